/* device.h - devices without a running store: format and check. Both block.
 */
#ifndef HEADRACE_DEVICE_H
#define HEADRACE_DEVICE_H

#include <stddef.h>
#include <stdint.h>

#include "headrace/error.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct hr_format_options {
	size_t size;		/* set by hr_format_options_init() */
	uint64_t size_bytes;	/* 0: the whole block device, or the file's present size */
	uint64_t segment_bytes; /* 0: chosen so that a shard has at least 256 segments where it can */
	uint32_t shards_count; /* 0 = 1 */
	uint32_t force;	       /* 1: overwrite foreign content or an existing store */
	uint64_t *progress_done,
	    *progress_total; /* NULL, or written as it goes on (another thread may read them) */
	uint64_t reserve[4];
};
void hr_format_options_init(struct hr_format_options *options);
/* 0 or a negative error; `detail` (NULL or 256 bytes) gets one line that names the thing and the value wanted. */
int hr_format(const char *path, const struct hr_format_options *options, char *detail);

struct hr_check_options {
	size_t size;
	uint32_t skip_payload; /* 1: headers and footers only */
	uint32_t findings_max; /* at most so many in the report; default 1,000 */
	uint64_t *progress_done, *progress_total;
	uint64_t reserve[4];
};
void hr_check_options_init(struct hr_check_options *options);
/* Walks a device that no store has open; *ret_json (free() it): one object with blocks, bytes, damaged, segments, spaces, findings. Read only. */
int
hr_check(const char *path, const struct hr_check_options *options, char **ret_json, char *detail);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
