/* headrace.h - everything. */
#ifndef HEADRACE_HEADRACE_H
#define HEADRACE_HEADRACE_H

#include "headrace/batch.h"
#include "headrace/client.h"
#include "headrace/device.h"
#include "headrace/error.h"
#include "headrace/space.h"

#endif
