/* test_option.c — every type from every source, precedence, the lines that errors say, and the help page. */
#include "base/option.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct config {
	bool verbose;
	bool direct;
	uint64_t shards;
	uint64_t dram_bytes;
	uint64_t timeout_us;
	uint64_t link;
	double factor;
	char *name;
	struct option_list listen;
	int ack;
};

static const struct option table[] = {
	OPTION(config, verbose, "verbose", OPTION_BOOL, NULL, "Say more", .letter = 'v'),
	OPTION(config, direct, "direct-io", OPTION_BOOL, "true", "Try O_DIRECT"),
	OPTION(config, shards, "shards", OPTION_UINT, "1", "Number of shards", .letter = 's',
	       .min = 1, .max = 64),
	OPTION(config, dram_bytes, "dram", OPTION_SIZE, "1GiB", "Memory of the DRAM tier",
	       .env = "HR_TEST_DRAM"),
	OPTION(config, timeout_us, "timeout", OPTION_DURATION, "30s",
	       "Time after which a reader that takes nothing is closed"),
	OPTION(config, link, "link", OPTION_BITRATE, "200Gbit", "Rate of the link"),
	OPTION(config, factor, "factor", OPTION_DOUBLE, "1", "Pace"),
	OPTION(config, name, "name", OPTION_STRING, NULL, "Name of the node", .letter = 'n',
	       .value_name = "NAME"),
	OPTION(config, listen, "listen", OPTION_LIST, "tcp:127.0.0.1:7450", "Where to listen",
	       .value_name = "URL", .letter = 'l'),
	OPTION(config, ack, "ack", OPTION_CHOICE, "ram", "When a PUT is done",
	       .choices = "ram|stable|replicated"),
	OPTION(config, shards, "secret", OPTION_UINT, "1", "Not shown", .flags = OPTION_HIDDEN),
};

struct fixture {
	struct config config;
	struct option_set set;
	struct errbuf err;
	int operands_count;
	char *argv[40];
};

/* Words of one line as argv; returns what option_parse() says. */
static int
parse(struct fixture *fixture, const char *line)
{
	static char copy[512];
	int argc = 1;
	char *save;

	snprintf(copy, sizeof(copy), "%s", line);
	fixture->argv[0] = (char *)"program";
	for (char *word = strtok_r(copy, " ", &save); word != NULL;
	     word = strtok_r(NULL, " ", &save)) {
		fixture->argv[argc++] = word;
	}
	return option_parse(&fixture->set, argc, fixture->argv, &fixture->operands_count,
			    &fixture->err);
}

static int
setup(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	unsetenv("HR_TEST_DRAM");
	*state = fixture;
	memset(&fixture->config, 0xff, sizeof(fixture->config));
	return option_set_init(&fixture->set, table, ARRAY_SIZE(table), &fixture->config,
			       &fixture->err);
}

static int
teardown(void **state)
{
	struct fixture *fixture = *state;

	option_set_fini(&fixture->set);
	option_set_fini(&fixture->set); /* Twice is harmless. */
	free(fixture);
	return 0;
}

static void
test_defaults(void **state)
{
	struct fixture *f = *state;

	assert_false(f->config.verbose);
	assert_true(f->config.direct);
	assert_int_equal(f->config.shards, 1);
	assert_int_equal(f->config.dram_bytes, GiB(1));
	assert_int_equal(f->config.timeout_us, 30000000);
	assert_true(f->config.link == 200000000000);
	assert_true(f->config.factor == 1.0);
	assert_null(f->config.name);
	assert_int_equal(f->config.listen.count, 1);
	assert_int_equal(f->config.ack, 0);
}

static void
test_command_line(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(
	    parse(f,
		  "first --shards 4 -v --dram=2GiB -nnode1 second --ack stable --no-direct-io --listen a,b -l c "
		  "--factor 0.5 --timeout 5ms --link 25Gbit - -- --shards"),
	    OPTION_PARSED);
	assert_true(f->config.verbose);
	assert_false(f->config.direct);
	assert_int_equal(f->config.shards, 4);
	assert_int_equal(f->config.dram_bytes, GiB(2));
	assert_int_equal(f->config.timeout_us, 5000);
	assert_true(f->config.link == 25000000000);
	assert_true(f->config.factor == 0.5);
	assert_string_equal(f->config.name, "node1");
	assert_int_equal(f->config.ack, 1);
	/* The list of the command line replaces the default, then grows. */
	assert_int_equal(f->config.listen.count, 3);
	assert_string_equal(f->config.listen.items[0], "a");
	assert_string_equal(f->config.listen.items[2], "c");
	assert_int_equal(f->operands_count, 4);
	assert_string_equal(f->argv[1], "first");
	assert_string_equal(f->argv[2], "second");
	assert_string_equal(f->argv[3], "-");
	assert_string_equal(f->argv[4], "--shards");
}

static void
test_help_and_version(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(parse(f, "--help"), OPTION_WANTS_HELP);
	assert_int_equal(parse(f, "x -vh"), OPTION_WANTS_HELP);
	assert_int_equal(parse(f, "--version"), OPTION_WANTS_VERSION);
}

static void
test_errors(void **state)
{
	static const struct {
		const char *line;
		const char *says;
	} bad[] = {
		{ "--lisen x", "unknown option '--lisen'; did you mean '--listen'?" },
		{ "--qqqq", "unknown option '--qqqq'" },
		{ "-z", "unknown option '-z'" },
		{ "--shards", "option '--shards' wants a value" },
		{ "-s", "option '--shards' wants a value" },
		{ "--shards 0", "shards: '0' is too small, at least 1 is wanted" },
		{ "--shards 65", "shards: '65' is too large, at most 64 is wanted" },
		{ "--shards 4x", "shards: '4x' is not a number" },
		{ "--shards -4", "shards: '-4' is not a number" },
		{ "--shards 99999999999999999999", "is not a number" },
		{ "--dram 2Gx", "dram: '2Gx': unit 'Gx'" },
		{ "--timeout 30", "timeout: '30': a duration ends with" },
		{ "--ack maybe", "ack: 'maybe' is not one of ram|stable|replicated" },
		{ "--verbose=maybe", "verbose: 'maybe' is not true or false" },
		{ "--factor fast", "factor: 'fast' is not a number" },
		{ "--no-shards", "unknown option '--no-shards'" },
		{ "--secre 1", "unknown option '--secre'" },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(parse(f, bad[i].line), -EINVAL);
		if (strstr(f->err.text, bad[i].says) == NULL) {
			fail_msg("'%s' said '%s'", bad[i].line, f->err.text);
		}
		assert_null(strstr(f->err.text, "secret'?"));
	}
	test_defaults(state); /* A value that fails leaves the one before it. */
}

static void
test_precedence(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(option_origin_get(&f->set, "dram"), OPTION_FROM_DEFAULT);
	assert_int_equal(parse(f, "--dram 3GiB --listen cli"), OPTION_PARSED);
	assert_int_equal(option_assign(&f->set, "dram", "2GiB", OPTION_FROM_CONFIG, &f->err), 0);
	assert_int_equal(f->config.dram_bytes, GiB(3));
	assert_int_equal(option_origin_get(&f->set, "dram"), OPTION_FROM_CLI);
	assert_string_equal(option_origin_name(OPTION_FROM_CLI), "command line");
	assert_int_equal(option_assign(&f->set, "listen", "config", OPTION_FROM_CONFIG, &f->err), 0);
	assert_int_equal(f->config.listen.count, 1);
	assert_string_equal(f->config.listen.items[0], "cli");
	/* A weaker source's nonsense is not looked at; an unknown key is. */
	assert_int_equal(option_assign(&f->set, "direct_io", "off", OPTION_FROM_CONFIG, &f->err), 0);
	assert_false(f->config.direct);
	assert_int_equal(option_assign(&f->set, "shard", "2", OPTION_FROM_CONFIG, &f->err), -EINVAL);
	assert_string_equal(f->err.text, "unknown option 'shard'; did you mean 'shards'?");
}

static void
test_environment(void **state)
{
	struct option_set set;
	struct config config;
	struct errbuf err;

	(void)state;
	setenv("HR_TEST_DRAM", "7MiB", 1);
	assert_int_equal(option_set_init(&set, table, ARRAY_SIZE(table), &config, &err), 0);
	assert_int_equal(config.dram_bytes, MiB(7));
	assert_int_equal(option_origin_get(&set, "dram"), OPTION_FROM_ENV);
	option_set_fini(&set);
	setenv("HR_TEST_DRAM", "much", 1);
	assert_int_equal(option_set_init(&set, table, ARRAY_SIZE(table), &config, &err), -EINVAL);
	assert_non_null(strstr(err.text, "HR_TEST_DRAM"));
	unsetenv("HR_TEST_DRAM");
}

static void
test_print(void **state)
{
	struct fixture *f = *state;
	char *text = NULL;
	size_t text_len;
	char value[64];
	FILE *out = open_memstream(&text, &text_len);

	assert_non_null(out);
	option_help_print(&f->set, out);
	option_names_print(&f->set, out);
	fclose(out);
	assert_non_null(strstr(text, "  -s, --shards N "));
	assert_non_null(strstr(text, "[default: 1GiB] [env: HR_TEST_DRAM]"));
	assert_non_null(strstr(text, "--ack ram|stable|replicated"));
	assert_non_null(strstr(text, "\n--listen\n"));
	assert_null(strstr(text, "secret"));
	for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
		assert_true(strlen(line) <= 100);
	}
	free(text);
	assert_int_equal(parse(f, "--listen a,b --ack stable"), OPTION_PARSED);
	assert_string_equal(option_value_format(&f->set, 3, value, sizeof(value)), "1GiB");
	assert_string_equal(option_value_format(&f->set, 4, value, sizeof(value)), "30s");
	assert_string_equal(option_value_format(&f->set, 7, value, sizeof(value)), "");
	assert_string_equal(option_value_format(&f->set, 8, value, sizeof(value)), "a,b");
	assert_string_equal(option_value_format(&f->set, 9, value, sizeof(value)), "stable");
	assert_string_equal(option_value_format(&f->set, 8, value, 3), "a,");
}

static void
test_nearest(void **state)
{
	static const char *const names[] = { "put", "get", "exists", "replay" };

	(void)state;
	assert_string_equal(nearest_name("exits", names, 4), "exists");
	assert_string_equal(nearest_name("repaly", names, 4), "replay");
	assert_string_equal(nearest_name("gett", names, 4), "get");
	assert_null(nearest_name("zzzzzz", names, 4));
	assert_null(nearest_name("x", names, 0));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_defaults, setup, teardown),
		cmocka_unit_test_setup_teardown(test_command_line, setup, teardown),
		cmocka_unit_test_setup_teardown(test_help_and_version, setup, teardown),
		cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_precedence, setup, teardown),
		cmocka_unit_test(test_environment),
		cmocka_unit_test_setup_teardown(test_print, setup, teardown),
		cmocka_unit_test(test_nearest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
