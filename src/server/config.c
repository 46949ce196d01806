/* config.c - the table of options, and the YAML file. */
#include "server/config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <cyaml/cyaml.h>
#include <netdb.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/size.h"
#include "engine/evict.h"

#define MAX32 UINT32_MAX

/* clang-format off */
const struct option config_options[] = {
	OPTION(config, config, "config", OPTION_STRING, NULL, "YAML file with any of these options", .value_name = "FILE"),
	OPTION(config, device, "device", OPTION_LIST, NULL, "block devices and image files to serve; without one, a small store in $XDG_DATA_HOME/headrace", .value_name = "PATH[,PATH…]", .flags = OPTION_LIVE),
	OPTION(config, create_bytes, "create", OPTION_SIZE, NULL, "make image files that do not exist, of this size", .value_name = "SIZE"),
	OPTION(config, segment_bytes, "create-segment", OPTION_SIZE, NULL, "segment size of those; default: 8MiB … 1GiB, so that there are 256", .value_name = "SIZE"),
	OPTION(config, shards_per_device, "create-shards", OPTION_UINT, "1", "shards of each of those", .min = 1, .max = SLICES_MAX),
	OPTION(config, dram_bytes, "dram", OPTION_SIZE, NULL, "DRAM tier of the node; default: 1GiB or a quarter of the memory, the smaller"),
	OPTION(config, listen, "listen", OPTION_LIST, NULL, "tcp:HOST:PORT or unix:PATH, several of them; default: tcp:127.0.0.1:7450", .value_name = "ADDRESS"),
	OPTION(config, http, "http", OPTION_STRING, NULL, "HOST:PORT of /healthz and /metrics; default: none", .value_name = "HOST:PORT"),
	OPTION(config, insecure, "insecure", OPTION_BOOL, NULL, "listen on other addresses than loopback though everybody there may read and write all blocks"),
	OPTION(config, check_config, "check-config", OPTION_BOOL, NULL, "say whether the configuration can be used, and end"),
	OPTION(config, log_level, "log-level", OPTION_CHOICE, "info", "what is logged", .choices = "none|error|warn|info|debug", .flags = OPTION_LIVE),
	OPTION(config, threads, "threads", OPTION_UINT, "0", "threads for shards; 0 = one per shard, at most one per processor", .max = 64),
	OPTION(config, disk, "disk", OPTION_CHOICE, "auto", "how devices are read and written", .choices = "auto|io_uring|pread"),
	OPTION(config, net, "net", OPTION_CHOICE, "auto", "how sockets are served", .choices = "auto|io_uring|epoll|poll"),
	OPTION(config, sync, "sync", OPTION_CHOICE, "flush", "how writes become stable: one flush for many, or each with DSYNC", .choices = "flush|dsync"),
	OPTION(config, linger_us, "linger", OPTION_DURATION, "2ms", "how long a write waits for more to go with it", .max = 1000000),
	OPTION(config, policy, "policy", OPTION_STRING, "lru", "what reclaim keeps"),
	OPTION(config, cluster, "cluster", OPTION_STRING, NULL, "name of the cluster, for statistics"),
	OPTION(config, reads_max, "reads-max", OPTION_UINT, "128", "flash reads under way, per shard", .min = 1, .max = 65536),
	OPTION(config, reads_queued_max, "reads-queued-max", OPTION_UINT, "4096", "gets that wait for one, per shard; more are busy", .min = 1, .max = 1048576),
	OPTION(config, puts_max, "puts-max", OPTION_UINT, "4096", "puts begun and not answered, and blocks of several parts not complete, per shard; more are busy", .min = 1, .max = 1048576),
	OPTION(config, write_amplification_permille, "write-amplification-permille", OPTION_UINT, "1170", "bytes written ÷ payload that reclaim may cause", .min = 1001, .max = 10000),
	OPTION(config, reason_bytes, "reason-memory", OPTION_SIZE, "1MiB", "memory for why blocks are gone, per shard", .min = 4096, .max = UINT64_C(1) << 32),
	OPTION(config, conns_max, "conns-max", OPTION_UINT, "4096", "connections per thread", .min = 1, .max = 1048576),
	OPTION(config, requests_max, "requests-max", OPTION_UINT, "1024", "requests under way per connection; more are not read", .min = 1, .max = 65536),
	OPTION(config, request_bytes_max, "request-bytes-max", OPTION_SIZE, "128MiB", "put payload under way per connection; more is busy", .min = 4 << 20, .max = MAX32),
	OPTION(config, output_bytes_max, "output-bytes-max", OPTION_SIZE, "64MiB", "answers queued per connection; then nothing more is read from it", .min = 65536, .max = UINT64_C(1) << 36),
	OPTION(config, borrow_bytes_max, "borrow-bytes-max", OPTION_SIZE, "0", "pages borrowed per connection; 0 = a quarter of the DRAM tier"),
	OPTION(config, stalled_reader_s, "stalled-reader-s", OPTION_UINT, "30", "seconds after which a peer that takes nothing, or stops within a frame, is ended", .min = 1, .max = 86400),
	OPTION(config, hello_timeout_s, "hello-timeout-s", OPTION_UINT, "10", "seconds within which a peer must have said HELLO", .min = 1, .max = 3600),
	OPTION(config, drain_ms, "drain-ms", OPTION_UINT, "500", "milliseconds that what is under way gets to finish at the stop", .max = 600000),
};
/* clang-format on */
const size_t config_options_count = ARRAY_SIZE(config_options);

/* -- the file ------------------------------------------------------------------------------------------------------------------- */

/* Where a key stands, for messages; 0 when it is not found. */
static unsigned
line_of_key(const char *text, size_t len, const char *key)
{
	size_t key_len = strlen(key);
	const char *at = text, *end = text + len;

	for (unsigned line = 1; at < end; line++) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		const char *word = at;

		while (word < end && (*word == ' ' || *word == '"' || *word == '\'')) {
			word++;
		}
		if ((size_t)(end - word) > key_len && memcmp(word, key, key_len) == 0 &&
		    strchr(": \t\"'", word[key_len]) != NULL) {
			return line;
		}
		at = newline == NULL ? end : newline + 1;
	}
	return 0;
}

/* What libcyaml said: the first line of its report, and where. */
struct yaml_report {
	char what[160];
	char field[80];
	unsigned line;
};

static void
yaml_log(cyaml_log_t level, void *ctx, const char *fmt, va_list args)
{
	struct yaml_report *report = ctx;
	char text[256], *at;

	(void)level;
	vsnprintf(text, sizeof(text), fmt, args);
	text[strcspn(text, "\n")] = '\0';
	if (report->what[0] == '\0') {
		at = strncmp(text, "Load: ", 6) == 0 ? text + 6 : text;
		snprintf(report->what, sizeof(report->what), "%.150s", at);
		return;
	}
	at = strstr(text, "mapping field '");
	if (at != NULL && report->field[0] == '\0') {
		snprintf(report->field, sizeof(report->field), "%.70s", at + 15);
		report->field[strcspn(report->field, "'")] = '\0';
	}
	at = strstr(text, "(line: ");
	if (at != NULL && report->line == 0) {
		report->line = (unsigned)strtoul(at + 7, NULL, 10);
	}
}

static bool
is_list(const struct option *option)
{
	return option->type == OPTION_LIST;
}

/* One key as libcyaml reads it: a scalar's text, or a list of them. */
struct yaml_slot {
	char *text;
	char **items;
	uint64_t items_count;
};

static const cyaml_schema_value_t yaml_text = { CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 0,
								   CYAML_UNLIMITED) };

/* The schema is made of the table: each key in both spellings, all optional. */
static void
yaml_field_fill(cyaml_schema_field_t *field, const struct option *option, const char *key,
		size_t slot)
{
	const cyaml_schema_field_t text =
	    CYAML_FIELD_STRING_PTR("", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct yaml_slot,
				   text, 0, CYAML_UNLIMITED);
	const cyaml_schema_field_t list =
	    CYAML_FIELD_SEQUENCE_COUNT("", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
				       struct yaml_slot, items, items_count, &yaml_text, 0,
				       CYAML_UNLIMITED);
	cyaml_schema_field_t copy = is_list(option) ? list : text;

	copy.key = key;
	copy.data_offset += (uint32_t)(slot * sizeof(struct yaml_slot));
	copy.count_offset += (uint32_t)(slot * sizeof(struct yaml_slot));
	memcpy(field, &copy, sizeof(copy));
}

static int
yaml_report_error(const struct option_set *set, const char *path, const char *text, size_t len,
		  const struct yaml_report *report, struct errbuf *err)
{
	static const char unexpected[] = "Unexpected key: ";
	const char *key = report->what + strlen(unexpected), *names[128], *nearest;
	size_t count = 0;

	if (strncmp(report->what, unexpected, strlen(unexpected)) == 0) {
		for (size_t i = 0; i < set->count && count < ARRAY_SIZE(names); i++) {
			names[count++] = set->options[i].name;
		}
		nearest = nearest_name(key, names, count);
		return errf(err, -HR_ECONFIG, "%.100s:%u: unknown key %.60s%s%s", path,
			    line_of_key(text, len, key), key,
			    nearest != NULL ? "; the nearest is " : "",
			    nearest != NULL ? nearest : "");
	}
	if (strstr(report->what, "Expecting SEQUENCE") != NULL && report->field[0] != '\0') {
		return errf(err, -HR_ECONFIG, "%.100s:%u: %s: wanted is a list, like %s: [A, B]",
			    path, line_of_key(text, len, report->field), report->field,
			    report->field);
	}
	return errf(err, -HR_ECONFIG, "%.100s:%u: %s", path, HR_MAX(report->line, 1u),
		    report->what[0] != '\0' ? report->what : "not YAML");
}

static int
yaml_assign(struct option_set *set, const char *path, const char *text, size_t len, const char *key,
	    const char *value, struct errbuf *err)
{
	int rc = option_assign(set, key, value, OPTION_FROM_CONFIG, err);

	return rc == 0
		   ? 0
		   : errf_prefix(err, -HR_ECONFIG, "%.100s:%u", path, line_of_key(text, len, key));
}

static int
yaml_slots_apply(struct option_set *set, const char *path, const char *text, size_t len,
		 const cyaml_schema_field_t *fields, const struct yaml_slot *slots,
		 struct errbuf *err)
{
	int rc = 0;

	for (size_t i = 0; rc == 0 && fields[i].key != NULL; i++) {
		const struct yaml_slot *slot = &slots[i];

		if (strcmp(fields[i].key, "config") == 0 && slot->text != NULL) {
			return errf(err, -HR_ECONFIG,
				    "%.100s:%u: config: a file cannot name another", path,
				    line_of_key(text, len, "config"));
		}
		if (slot->text != NULL) {
			rc = yaml_assign(set, path, text, len, fields[i].key, slot->text, err);
		}
		for (uint64_t j = 0; rc == 0 && j < slot->items_count; j++) {
			rc = yaml_assign(set, path, text, len, fields[i].key, slot->items[j], err);
		}
	}
	return rc;
}

int
config_file_apply(struct option_set *set, const char *path, const char *text, size_t len,
		  struct errbuf *err)
{
	cyaml_schema_field_t *fields = calloc(2 * set->count + 1, sizeof(*fields));
	char(*keys)[64] = calloc(set->count, sizeof(*keys));
	struct yaml_report report = { 0 };
	cyaml_config_t config = { .log_fn = yaml_log,
				  .log_ctx = &report,
				  .mem_fn = cyaml_mem,
				  .log_level = CYAML_LOG_ERROR };
	struct yaml_slot *slots = NULL;
	size_t count = 0;
	int rc = 0;

	if (fields == NULL || keys == NULL) {
		free(fields);
		free(keys);
		return errf(err, -ENOMEM, "out of memory");
	}
	for (size_t i = 0; i < set->count; i++) {
		const struct option *option = &set->options[i];

		snprintf(keys[i], sizeof(keys[i]), "%s", option->name);
		for (char *at = keys[i]; *at != '\0'; at++) {
			*at = *at == '-' ? '_' : *at;
		}
		yaml_field_fill(&fields[count], option, keys[i], count);
		count++;
		if (strcmp(keys[i], option->name) != 0) {
			yaml_field_fill(&fields[count], option, option->name, count);
			count++;
		}
	}
	{
		const cyaml_schema_value_t top = { .type = CYAML_MAPPING,
						   .flags = CYAML_FLAG_POINTER,
						   .data_size =
						       (uint32_t)(count * sizeof(struct yaml_slot)),
						   .mapping = { .fields = fields } };

		if (cyaml_load_data((const uint8_t *)text, len, &config, &top,
				    (cyaml_data_t **)&slots, NULL) != CYAML_OK) {
			rc = yaml_report_error(set, path, text, len, &report, err);
		} else if (slots != NULL) {
			rc = yaml_slots_apply(set, path, text, len, fields, slots, err);
			cyaml_free(&config, &top, slots, 0);
		}
	}
	free(fields);
	free(keys);
	return rc;
}

static int
file_read(const char *path, char **ret_text, size_t *ret_len, struct errbuf *err)
{
	enum { CONFIG_BYTES_MAX = 1 << 20 };
	FILE *file = fopen(path, "r");
	struct stat st;
	char *text;
	size_t len;

	if (file == NULL) {
		return errf(err, -HR_ECONFIG, "configuration %.120s: %s", path, error_text(errno));
	}
	if (fstat(fileno(file), &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > CONFIG_BYTES_MAX) {
		fclose(file);
		return errf(err, -HR_ECONFIG, "configuration %.120s: not a file of at most 1 MiB",
			    path);
	}
	text = malloc(CONFIG_BYTES_MAX + 1);
	if (text == NULL) {
		fclose(file);
		return errf(err, -ENOMEM, "out of memory");
	}
	len = fread(text, 1, CONFIG_BYTES_MAX, file);
	if (ferror(file)) {
		fclose(file);
		free(text);
		return errf(err, -HR_ECONFIG, "configuration %.120s: it cannot be read", path);
	}
	fclose(file);
	text[len] = '\0';
	*ret_text = text;
	*ret_len = len;
	return 0;
}

/* -- all together ----------------------------------------------------------------------------------------------------------------- */

int
config_load(int argc, char **argv, struct option_set *set, struct config *config,
	    enum config_result *ret_result, struct errbuf *err)
{
	char **args = calloc((size_t)argc + 1, sizeof(char *));
	char *text = NULL;
	int operands = 0, parsed, rc;
	size_t len;

	if (args == NULL) {
		return errf(err, -ENOMEM, "out of memory");
	}
	memcpy(args, argv, (size_t)argc * sizeof(char *));
	rc = option_set_init(set, config_options, config_options_count, config, err);
	if (rc != 0) {
		free(args);
		return -HR_ECONFIG;
	}
	parsed = option_parse(set, argc, args, &operands, err);
	*ret_result = parsed == OPTION_WANTS_HELP      ? CONFIG_HELP
		      : parsed == OPTION_WANTS_VERSION ? CONFIG_VERSION
						       : CONFIG_RUN;
	rc = parsed < 0 ? -HR_ECONFIG : 0;
	if (parsed == OPTION_PARSED && operands > 0) {
		rc = errf(err, -HR_ECONFIG, "%.100s: not an option; devices are given by --device",
			  args[1]);
	}
	if (parsed == OPTION_PARSED && rc == 0 && config->config != NULL) {
		rc = file_read(config->config, &text, &len, err);
		if (rc == 0) {
			rc = config_file_apply(set, config->config, text, len, err);
		}
	}
	if (parsed == OPTION_PARSED && rc == 0) {
		rc = config_check(config, err);
	}
	free(text);
	free(args);
	if (rc != 0) {
		option_set_fini(set);
	}
	return rc;
}

static bool
sockaddr_is_local(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET) {
		return ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr) >>
			   24 ==
		       127;
	}
	if (address->sa_family == AF_INET6) {
		return IN6_IS_ADDR_LOOPBACK(
		    &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
	}
	return false;
}

bool
config_address_is_local(const char *address)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list = NULL;
	const char *colon;
	char host[256];
	bool local = true;

	if (strncmp(address, "unix:", 5) == 0) {
		return true;
	}
	if (strncmp(address, "tcp:", 4) == 0) {
		address += 4;
	}
	colon = strrchr(address, ':');
	snprintf(host, sizeof(host), "%.*s",
		 colon != NULL ? (int)(colon - address) : (int)strlen(address), address);
	if (host[0] == '[') {
		memmove(host, host + 1, strlen(host));
		host[strcspn(host, "]")] = '\0';
	}
	if (host[0] == '\0' || getaddrinfo(host, NULL, &hints, &list) != 0) {
		return false;
	}
	for (struct addrinfo *at = list; at != NULL; at = at->ai_next) {
		local = local && sockaddr_is_local(at->ai_addr);
	}
	freeaddrinfo(list);
	return local;
}

static int
port_check(const char *option, const char *address, const char *host_port, struct errbuf *err)
{
	const char *colon = strrchr(host_port, ':');
	char *end;
	unsigned long port;

	if (colon == NULL || colon == host_port || !isdigit((unsigned char)colon[1])) {
		return errf(err, -HR_ECONFIG, "--%s %.120s: wanted is HOST:PORT", option, address);
	}
	port = strtoul(colon + 1, &end, 10);
	if (*end != '\0' || port > 65535) {
		return errf(err, -HR_ECONFIG, "--%s %.120s: a port is 0 … 65535", option, address);
	}
	return 0;
}

static int
listen_check(const struct config *config, const char *address, struct errbuf *err)
{
	if (strncmp(address, "unix:", 5) == 0) {
		if (address[5] == '\0' || strlen(address + 5) > 107) {
			return errf(err, -HR_ECONFIG,
				    "--listen %.120s: a socket's path has 1 … 107 bytes", address);
		}
		return 0;
	}
	if (strncmp(address, "tcp:", 4) != 0) {
		return errf(err, -HR_ECONFIG,
			    "--listen %.120s: wanted is tcp:HOST:PORT or unix:PATH", address);
	}
	if (port_check("listen", address, address + 4, err) != 0) {
		return -HR_ECONFIG;
	}
	if (!config->insecure && !config_address_is_local(address)) {
		return errf(
		    err, -HR_ECONFIG,
		    "--listen %.120s: not a loopback address, and whoever reaches it could read and write all blocks; --insecure allows it",
		    address);
	}
	return 0;
}

int
config_check(const struct config *config, struct errbuf *err)
{
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < config->listen.count; i++) {
		rc = listen_check(config, config->listen.items[i], err);
	}
	for (size_t i = 0; rc == 0 && i < config->device.count; i++) {
		for (size_t j = 0; rc == 0 && j < i; j++) {
			if (strcmp(config->device.items[i], config->device.items[j]) == 0) {
				rc = errf(err, -HR_ECONFIG, "--device %.120s: named twice",
					  config->device.items[i]);
			}
		}
		if (config->device.items[i][0] == '\0') {
			rc = errf(err, -HR_ECONFIG, "--device: an empty path");
		}
	}
	if (rc == 0 && config->http != NULL) {
		rc = port_check("http", config->http, config->http, err);
	}
	if (rc == 0 && config->segment_bytes != 0 && !is_pow2(config->segment_bytes)) {
		rc = errf(err, -HR_ECONFIG,
			  "--create-segment: wanted is a power of two, 8MiB … 1GiB");
	}
	if (rc == 0 && config->dram_bytes != 0 && config->dram_bytes < MiB(8)) {
		rc = errf(err, -HR_ECONFIG, "--dram: wanted are at least 8MiB");
	}
	if (rc == 0 && config->create_bytes != 0 && config->device.count == 0) {
		rc = errf(err, -HR_ECONFIG, "--create: wanted is also --device, the file to make");
	}
	if (rc == 0 && evict_policy_find(config->policy) == NULL) {
		rc = errf(err, -HR_ECONFIG, "--policy %.60s: wanted is one of: %s", config->policy,
			  evict_policy_names());
	}
	return rc;
}

void
config_node_options(const struct config *config, struct node_device_options *devices,
		    struct node_options *ret)
{
	/* In the order of the table's choices. */
	static const enum io_disk_kind disks[] = { IO_DISK_AUTO, IO_DISK_URING, IO_DISK_PREAD };
	static const enum io_net_kind nets[] = { IO_NET_AUTO, IO_NET_URING, IO_NET_EPOLL,
						 IO_NET_POLL };
	static const enum log_sync syncs[] = { LOG_SYNC_FLUSH, LOG_SYNC_DSYNC };

	for (size_t i = 0; i < config->device.count; i++) {
		devices[i] = (struct node_device_options){
			.path = config->device.items[i],
			.create_bytes = config->create_bytes,
			.segment_bytes = config->segment_bytes,
			.shards_count = (uint32_t)config->shards_per_device,
		};
	}
	*ret = (struct node_options){
		.devices = devices,
		.devices_count = (uint32_t)config->device.count,
		.dram_bytes = config->dram_bytes,
		.threads = (uint32_t)config->threads,
		.listen = (const char *const *)config->listen.items,
		.listen_count = (uint32_t)config->listen.count,
		.disk = disks[config->disk],
		.net = nets[config->net],
		.cluster_name = config->cluster,
		.engine = {
			.sync = syncs[config->sync],
			.linger_us = (uint32_t)config->linger_us,
			.policy = config->policy,
			.reads_max = (uint32_t)config->reads_max,
			.reads_queued_max = (uint32_t)config->reads_queued_max,
			.puts_max = (uint32_t)config->puts_max,
			.wa_limit_permille = (uint32_t)config->write_amplification_permille,
			.reason_bytes = config->reason_bytes,
		},
		.shard = {
			.conns_max = (uint32_t)config->conns_max,
			.requests_max = (uint32_t)config->requests_max,
			.request_bytes_max = config->request_bytes_max,
			.output_bytes_max = config->output_bytes_max,
			.borrow_bytes_max = config->borrow_bytes_max,
			.stalled_reader_s = (uint32_t)config->stalled_reader_s,
			.hello_timeout_s = (uint32_t)config->hello_timeout_s,
		},
	};
}
