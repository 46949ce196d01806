/* error.h - error codes of Headrace.
 *
 * Calls return 0 or a negative code: -errno where one fits, else one of these, which lie above every errno. A miss is not an error: it is
 * the status and reason of an item (batch.h).
 */
#ifndef HEADRACE_ERROR_H
#define HEADRACE_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* X(name, value, text). The values are part of the ABI. */
#define HR_ERROR_TABLE(X)                                                                          \
	X(HR_ECORRUPT, 1001, "data is damaged")                                                    \
	X(HR_EFOREIGN, 1002, "the device carries something that is not Headrace's")                \
	X(HR_EVERSION, 1003, "made by a newer version of Headrace")                                \
	X(HR_EPROTO, 1004, "the peer does not follow the protocol")                                \
	X(HR_EFORK, 1005, "this handle belongs to the parent process")                             \
	X(HR_EGONE, 1006, "the object is gone")                                                    \
	X(HR_EFULL, 1007, "a bounded queue is full")                                               \
	X(HR_EINUSE, 1008, "in use by another process")                                            \
	X(HR_EAUTH, 1009, "not allowed")                                                           \
	X(HR_ECONFIG, 1010, "the configuration is not usable")                                     \
	X(HR_ESIZE, 1011, "the size does not fit")                                                 \
	X(HR_EURL, 1012, "the URL is not usable")                                                  \
	X(HR_EDOWN, 1013, "the node is not reachable")

enum hr_error {
#define HR_ERROR_ENUM(name, value, text) name = value,
	HR_ERROR_TABLE(HR_ERROR_ENUM)
#undef HR_ERROR_ENUM
};

/* Text for a code (sign ignored), our own or an errno. Never NULL; static or thread-local. Any thread. */
const char *hr_strerror(int code);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
