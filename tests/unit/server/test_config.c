/* test_config.c — the configuration file, and what is refused before anything is opened. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "headrace/error.h"
#include "server/config.h"

static int
apply(const char *text, struct option_set *set, struct config *config, struct errbuf *err)
{
	err->text[0] = '\0';
	assert_int_equal(option_set_init(set, config_options, config_options_count, config, err), 0);
	return config_file_apply(set, "t.yaml", text, strlen(text), err);
}

static void
test_file(void **state)
{
	struct option_set set;
	struct config config;
	struct errbuf err;

	(void)state;
	assert_int_equal(
	    apply("# a comment\ndevice:\n  - /a\n  - \"/b c\"\ndram: 3GiB\nlisten: [tcp:127.0.0.1:1, 'unix:/x']\n"
		  "log_level: debug\nstalled-reader-s: 7\ninsecure: true\nlinger: 500us\n",
		  &set, &config, &err),
	    0);
	assert_int_equal(config.device.count, 2);
	assert_string_equal(config.device.items[1], "/b c");
	assert_int_equal(config.dram_bytes, 3ull << 30);
	assert_int_equal(config.listen.count, 2);
	assert_string_equal(config.listen.items[1], "unix:/x");
	assert_int_equal(config.stalled_reader_s, 7);
	assert_true(config.insecure);
	assert_int_equal(config.linger_us, 500);
	assert_int_equal(option_origin_get(&set, "dram"), OPTION_FROM_CONFIG);
	assert_int_equal(option_origin_get(&set, "threads"), OPTION_FROM_DEFAULT);
	option_set_fini(&set);
	assert_int_equal(apply("", &set, &config, &err), 0);
	option_set_fini(&set);
	assert_int_equal(apply("# nothing\n", &set, &config, &err), 0);
	option_set_fini(&set);
}

static void
test_refused_files(void **state)
{
	static const struct {
		const char *text, *wanted;
	} bad[] = {
		{ "dram: 1GiB\n\n# x\nlsiten:\n  - unix:/x\n",
		  "t.yaml:4: unknown key lsiten; the nearest is listen" },
		{ "log_levle: info\n", "log-level" },
		{ "qqqqqqqqqqqq: 1\n", "unknown key qqqqqqqqqqqq" },
		{ "threads: 2\ndram: plenty\n", "t.yaml:2: dram: 'plenty'" },
		{ "threads: 9999\n", "t.yaml:1: threads" },
		{ "log_level: loud\n", "loud" },
		{ "listen: unix:/x\n", "t.yaml:1: listen: wanted is a list" },
		{ "dram: [1GiB]\n", "t.yaml:1" },
		{ "dram: 1GiB\ndram: 2GiB\n", "already" },
		{ "config: other.yaml\n", "cannot name another" },
		{ "listen: [unterminated\n", "t.yaml" },
		{ "- a\n- b\n", "t.yaml" },
		{ "\x01\x02", "t.yaml" },
	};
	struct option_set set;
	struct config config;
	struct errbuf err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(apply(bad[i].text, &set, &config, &err), -HR_ECONFIG);
		if (strstr(err.text, bad[i].wanted) == NULL) {
			print_error("%zu: \"%s\" is not in \"%s\"\n", i, bad[i].wanted, err.text);
			fail();
		}
		option_set_fini(&set);
	}
}

/* Every option of the command line is a key of the file, in both spellings. */
static void
test_every_option_is_a_key(void **state)
{
	(void)state;
	for (size_t i = 0; i < config_options_count; i++) {
		static const char *const values[] = {
			[OPTION_BOOL] = "true",	  [OPTION_UINT] = "2000",
			[OPTION_SIZE] = "64MiB",  [OPTION_DURATION] = "1ms",
			[OPTION_STRING] = "text", [OPTION_LIST] = "[a, b]",
		};
		const struct option *option = &config_options[i];
		char text[256], choice[64], name[64];
		struct option_set set;
		struct config config;
		struct errbuf err;

		if (strcmp(option->name, "config") == 0) {
			continue;
		}
		for (int spelling = 0; spelling < 2; spelling++) {
			uint64_t number = 2000;

			snprintf(name, sizeof(name), "%s", option->name);
			for (char *at = name; spelling == 1 && *at != '\0'; at++) {
				*at = *at == '-' ? '_' : *at;
			}
			if (option->type == OPTION_UINT && option->max != 0 && number > option->max) {
				number = option->max;
			}
			if (option->type == OPTION_CHOICE) {
				snprintf(choice, sizeof(choice), "%.*s",
					 (int)strcspn(option->choices, "|"), option->choices);
				snprintf(text, sizeof(text), "%s: %s\n", name, choice);
			} else if (option->type == OPTION_UINT) {
				snprintf(text, sizeof(text), "%s: %llu\n", name,
					 (unsigned long long)number);
			} else {
				snprintf(text, sizeof(text), "%s: %s\n", name, values[option->type]);
			}
			if (apply(text, &set, &config, &err) != 0) {
				print_error("%s: %s\n", text, err.text);
				fail();
			}
			assert_int_equal(option_origin_get(&set, option->name), OPTION_FROM_CONFIG);
			option_set_fini(&set);
		}
	}
}

static int
load(const char *const *argv, struct option_set *set, struct config *config, struct errbuf *err)
{
	enum config_result result;
	int argc = 0;

	while (argv[argc] != NULL) {
		argc++;
	}
	err->text[0] = '\0';
	return config_load(argc, (char **)(uintptr_t)argv, set, config, &result, err);
}

static void
test_command_line(void **state)
{
	const char *good[] = { "headraced",
			       "--device",
			       "/a,/b",
			       "--dram",
			       "1GiB",
			       "--listen",
			       "tcp:127.0.0.1:7450",
			       "--listen",
			       "unix:/tmp/hr.sock",
			       "--http",
			       "127.0.0.1:7451",
			       NULL };
	static const char *bad[][8] = {
		{ "headraced", "--listen", "tcp:0.0.0.0:7450", NULL },
		{ "headraced", "--listen", "tcp:[::]:7450", NULL },
		{ "headraced", "--listen", "tcp:127.0.0.1", NULL },
		{ "headraced", "--listen", "udp:127.0.0.1:1", NULL },
		{ "headraced", "--listen", "unix:", NULL },
		{ "headraced", "--listen", "tcp:127.0.0.1:70000", NULL },
		{ "headraced", "--device", "/a,/a", NULL },
		{ "headraced", "--http", "7451", NULL },
		{ "headraced", "/a", NULL },
		{ "headraced", "--devise", "/a", NULL },
		{ "headraced", "--create-segment", "3MiB", NULL },
		{ "headraced", "--config", "/nowhere.yaml", NULL },
		{ "headraced", "--create", "1GiB", NULL },
		{ "headraced", "--policy", "fifo", NULL },
		{ "headraced", "--dram", "1MiB", NULL },
	};
	struct node_device_options devices[4];
	struct node_options options;
	struct option_set set;
	struct config config;
	struct errbuf err;

	(void)state;
	assert_int_equal(load(good, &set, &config, &err), 0);
	config_node_options(&config, devices, &options);
	assert_int_equal(options.devices_count, 2);
	assert_string_equal(devices[1].path, "/b");
	assert_int_equal(options.listen_count, 2);
	assert_int_equal(options.dram_bytes, 1ull << 30);
	assert_int_equal(options.shard.stalled_reader_s, 30);
	option_set_fini(&set);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(load(bad[i], &set, &config, &err), -HR_ECONFIG);
		assert_true(strlen(err.text) > 10);
	}
	assert_true(config_address_is_local("unix:/x"));
	assert_true(config_address_is_local("tcp:127.1.2.3:0"));
	assert_true(config_address_is_local("tcp:[::1]:0"));
	assert_true(config_address_is_local("tcp:localhost:0"));
	assert_false(config_address_is_local("tcp:10.0.0.1:0"));
	assert_false(config_address_is_local("tcp::0"));
}

/* The command line is stronger than the file, also for lists. */
static void
test_order_of_sources(void **state)
{
	char path[] = "/tmp/hr_config_XXXXXX";
	const char *argv[] = { "headraced", "--config", path,	     "--dram",
			       "2GiB",	    "--listen", "unix:/cli", NULL };
	static const char text[] = "dram: 1GiB\nlisten: [unix:/file1, unix:/file2]\nthreads: 3\n";
	struct option_set set;
	struct config config;
	struct errbuf err;
	int fd = mkstemp(path);

	(void)state;
	assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
	close(fd);
	assert_int_equal(load(argv, &set, &config, &err), 0);
	assert_int_equal(config.dram_bytes, 2ull << 30);
	assert_int_equal(config.threads, 3);
	assert_int_equal(config.listen.count, 1);
	assert_string_equal(config.listen.items[0], "unix:/cli");
	option_set_fini(&set);
	unlink(path);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_refused_files),
		cmocka_unit_test(test_every_option_is_a_key),
		cmocka_unit_test(test_command_line),
		cmocka_unit_test(test_order_of_sources),
	};

	return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
