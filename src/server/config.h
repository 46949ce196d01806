/* config.h - what headraced can be told: one table of options, from the command line, a YAML file and the environment.
 *
 * What:       every option of the command line is a key of the file (log-level or log_level), read with libcyaml; unknown keys are refused with
 *             the nearest valid name, file and line; values that contradict each other are found here, before anything is opened.
 * Threads:    the main thread.
 * Errors:     -HR_ECONFIG with one line naming the file, line, option, value and what is wanted.
 * Tests:      tests/unit/server/test_config.c, tests/func/test_daemon.py
 */
#ifndef HR_SERVER_CONFIG_H
#define HR_SERVER_CONFIG_H

#include "base/option.h"
#include "shard/node.h"

struct config {
	char *config;
	struct option_list device;
	uint64_t create_bytes, segment_bytes, shards_per_device;
	uint64_t dram_bytes;
	struct option_list listen;
	char *http;
	bool insecure, check_config;
	int log_level;
	uint64_t threads;
	int disk, net, sync;
	char *policy, *cluster;
	uint64_t linger_us;
	uint64_t reads_max, reads_queued_max, puts_max, write_amplification_permille, reason_bytes;
	uint64_t conns_max, requests_max, request_bytes_max, output_bytes_max, borrow_bytes_max;
	uint64_t stalled_reader_s, hello_timeout_s, drain_ms;
};

extern const struct option config_options[];
extern const size_t config_options_count;

enum config_result { CONFIG_RUN, CONFIG_HELP, CONFIG_VERSION };

/* The command line, then the file it names. `set` and `config` are the caller's: option_set_fini() after success. argv is not changed. */
int config_load(int argc, char **argv, struct option_set *set, struct config *config,
		enum config_result *ret_result, struct errbuf *err);
/* A file's text into a set that has its defaults; for tests and config_load(). */
int config_file_apply(struct option_set *set, const char *path, const char *text, size_t len,
		      struct errbuf *err);
/* What a single value cannot tell. */
int config_check(const struct config *config, struct errbuf *err);
/* True when the address can be reached from this host only. */
bool config_address_is_local(const char *address);
/* Options of the node; pointers into config and `devices` (room for config->device.count). */
void config_node_options(const struct config *config, struct node_device_options *devices,
			 struct node_options *ret);

#endif
