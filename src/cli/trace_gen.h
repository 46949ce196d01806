/* trace_gen.h — traces made from a seed, with the published statistics of real ones.
 *
 * What:       "chat": like the conversation trace of Mooncake's FAST'25 release (512 tokens a block, 24 blocks a request,
 *             every request shares the system prompt's block, four in ten go on with an earlier conversation; an infinite
 *             cache would serve 37 % of the blocks). "agent": like the tau2 customer-service agents (16 tokens a block,
 *             four models, sessions of about a dozen turns that grow by about ten blocks behind a long prompt; 96 %).
 * Threads:    pure: the same kind, seed and count give the same trace on every machine (integer arithmetic and the C
 *             library's log, exp and cos, whose last bit is rounded away).
 * Tests:      tests/unit/cli/test_trace_gen.c
 */
#ifndef HR_CLI_TRACE_GEN_H
#define HR_CLI_TRACE_GEN_H

#include "cli/trace.h"

enum trace_gen_kind { TRACE_GEN_CHAT, TRACE_GEN_AGENT };

/* "chat" or "agent"; -EINVAL otherwise. */
int trace_gen_kind_parse(const char *text, enum trace_gen_kind *ret_kind);
/* Requests of the trace it is made after: what --requests defaults to. */
size_t trace_gen_requests_default(enum trace_gen_kind kind);

HR_WARN_UNUSED int trace_generate(enum trace_gen_kind kind, uint64_t seed, size_t requests_count,
				  struct trace **ret_trace);

#endif
