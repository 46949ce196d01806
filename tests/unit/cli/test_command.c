/* The command line against a store in memory: what is said, where, and with which exit code. */
#include "cli/command.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "fake_store.h"

static char g_out[1 << 20], g_err[1 << 16];

static void
read_back(int fd, char *ret, size_t bytes)
{
	ssize_t n = pread(fd, ret, bytes - 1, 0);

	assert_true(n >= 0);
	ret[n] = '\0';
}

/* Runs `headrace ARGS…` with both outputs in files. */
static int
run(const char *const *args)
{
	char *argv[32] = { (char *)"headrace" }, *copies[32];
	char out_path[] = "/tmp/test_command_XXXXXX", err_path[] = "/tmp/test_command_XXXXXX";
	int out = mkstemp(out_path), err = mkstemp(err_path);
	int old_out, old_err, rc, argc = 1;

	while (args[argc - 1] != NULL) {
		argv[argc] = copies[argc] = strdup(args[argc - 1]);
		argc++;
	}
	fflush(NULL);
	old_out = dup(STDOUT_FILENO);
	old_err = dup(STDERR_FILENO);
	dup2(out, STDOUT_FILENO);
	dup2(err, STDERR_FILENO);
	rc = cli_main(argc, argv);
	fflush(NULL);
	dup2(old_out, STDOUT_FILENO);
	dup2(old_err, STDERR_FILENO);
	read_back(out, g_out, sizeof(g_out));
	read_back(err, g_err, sizeof(g_err));
	close(old_out);
	close(old_err);
	close(out);
	close(err);
	unlink(out_path);
	unlink(err_path);
	for (int i = 1; i < argc; i++) {
		free(copies[i]); /* argv itself had its operands moved about */
	}
	return rc;
}
#define RUN(...) run((const char *const[]){ __VA_ARGS__, NULL })

#define ASSERT_SAYS(text, what)                                                                    \
	do {                                                                                       \
		if (strstr(text, what) == NULL) {                                                  \
			fail_msg("\"%s\" does not say \"%s\"", text, what);                        \
		}                                                                                  \
	} while (0)

static int
setup(void **state)
{
	(void)state;
	fake_reset();
	unsetenv("HEADRACE_URL");
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	fake_reset();
	return 0;
}

static void
help_of_everything(void **state)
{
	(void)state;
	assert_int_equal(run((const char *const[]){ NULL }), CLI_USAGE);
	ASSERT_SAYS(g_err, "commands:");
	assert_int_equal(RUN("--help"), CLI_OK);
	ASSERT_SAYS(g_out, "commands:");
	for (size_t i = 0; i < cli_commands_count; i++) {
		char name[64];

		assert_int_equal(RUN(cli_commands[i]->name, "--help"), CLI_OK);
		snprintf(name, sizeof(name), "usage: headrace %s", cli_commands[i]->name);
		ASSERT_SAYS(g_out, name);
		ASSERT_SAYS(g_out, cli_commands[i]->summary);
		ASSERT_SAYS(g_out, "exit codes: 0 OK");
		assert_string_equal(g_err, "");
		if (cli_commands[i]->examples_count > 0) {
			ASSERT_SAYS(g_out, "examples:");
		}
		assert_int_equal(RUN("help", cli_commands[i]->name), CLI_OK);
	}
	assert_int_equal(RUN("put", "--help"), CLI_OK);
	ASSERT_SAYS(g_out, "[default: ram]");
	ASSERT_SAYS(g_out, "HEADRACE_URL");
}

static void
what_is_wrong_is_named(void **state)
{
	(void)state;
	assert_int_equal(RUN("gte"), CLI_USAGE);
	ASSERT_SAYS(g_err, "did you mean get?");
	assert_int_equal(RUN("get", "--rute", "1", "k"), CLI_USAGE);
	ASSERT_SAYS(g_err, "'--route'");
	assert_int_equal(RUN("get"), CLI_USAGE);
	ASSERT_SAYS(g_err, "KEY");
	assert_int_equal(RUN("get", "a", "b", "c"), CLI_USAGE);
	ASSERT_SAYS(g_err, "\"c\" is one too many");
	assert_int_equal(RUN("get", "k"), CLI_USAGE);
	ASSERT_SAYS(g_err, "HEADRACE_URL");
	assert_int_equal(RUN("get", "k", "--url", "pigeon:"), CLI_USAGE);
	ASSERT_SAYS(g_err, "pigeon:");
	assert_int_equal(RUN("get", "k", "--url", "fake:", "--route", "xyz"), CLI_USAGE);
	ASSERT_SAYS(g_err, "xyz");
	assert_int_equal(RUN("get", "", "--url", "fake:"), CLI_USAGE);
	ASSERT_SAYS(g_err, "1024");
	assert_int_equal(RUN("bench", "--size", "1XiB"), CLI_USAGE);
	ASSERT_SAYS(g_err, "1XiB");
	assert_int_equal(RUN("space", "frop"), CLI_USAGE);
	ASSERT_SAYS(g_err, "ls|usage|drop|pin|set");
	assert_int_equal(RUN("space", "drop", "--url", "fake:"), CLI_USAGE);
	assert_int_equal(RUN("space", "set", "x", "--url", "fake:"), CLI_USAGE);
	ASSERT_SAYS(g_err, "--quota");
	assert_int_equal(RUN("space", "set", "x", "--quota", "much", "--url", "fake:"), CLI_USAGE);
	ASSERT_SAYS(g_err, "much");
	assert_string_equal(g_out, "");
	fake.never_ready = true;
	assert_int_equal(RUN("get", "k", "--url", "fake:"), CLI_UNREACHED);
	ASSERT_SAYS(g_err, "does not answer");
}

static void
blocks_come_and_go(void **state)
{
	char path[] = "/tmp/test_command_XXXXXX", back[] = "/tmp/test_command_XXXXXX";
	int fd = mkstemp(path), back_fd = mkstemp(back);
	char value[16] = { 0 };

	(void)state;
	assert_int_equal(write(fd, "some value", 10), 10);
	setenv("HEADRACE_URL", "fake:", 1);
	assert_int_equal(RUN("put", "k", path), CLI_OK);
	ASSERT_SAYS(g_out, "k: stored, 10 bytes (ack ram)");
	assert_int_equal(RUN("put", "k", path), CLI_OK);
	ASSERT_SAYS(g_out, "was there already");
	assert_int_equal(RUN("put", "--quiet", "l", path, "--route", "ff"), CLI_OK);
	assert_string_equal(g_out, "");
	assert_int_equal(RUN("get", "k"), CLI_OK);
	assert_string_equal(g_out, "some value");
	assert_int_equal(RUN("get", "l", back, "--route", "0xff"), CLI_OK);
	assert_int_equal(pread(back_fd, value, sizeof(value), 0), 10);
	assert_string_equal(value, "some value");
	/* A miss leaves the file as it is. */
	assert_int_equal(RUN("get", "l", back, "--route", "fe"), CLI_ABSENT);
	ASSERT_SAYS(g_err, "l: not there (absent)");
	assert_int_equal(pread(back_fd, value, sizeof(value), 0), 10);
	assert_int_equal(RUN("exists", "k", "l"), CLI_OK);
	ASSERT_SAYS(g_out, "l: 10 bytes");
	assert_int_equal(RUN("exists", "k", "nothing"), CLI_ABSENT);
	ASSERT_SAYS(g_out, "nothing: not there (absent)");
	assert_int_equal(RUN("ls"), CLI_OK);
	ASSERT_SAYS(g_out, "          10  k\n");
	ASSERT_SAYS(g_out, "          10  l\n");
	assert_int_equal(RUN("ls", "l", "--json"), CLI_OK);
	ASSERT_SAYS(g_out, "\"key\": \"l\", \"bytes\": 10");
	assert_null(strstr(g_out, "\"k\""));
	assert_int_equal(RUN("rm", "k"), CLI_OK);
	assert_int_equal(RUN("rm", "k"), CLI_ABSENT);
	assert_int_equal(RUN("space", "ls"), CLI_OK);
	ASSERT_SAYS(g_out, "1 blocks");
	assert_int_equal(RUN("space", "set", "x", "--quota", "1GiB"), CLI_OK);
	assert_true(fake.quota_bytes == 1 << 30 && fake.pin_budget_bytes == UINT64_MAX);
	assert_int_equal(RUN("space", "pin", "x", "2MiB"), CLI_OK);
	assert_true(fake.quota_bytes == UINT64_MAX && fake.pin_budget_bytes == 2 << 20);
	assert_int_equal(RUN("space", "usage", "y"), CLI_ABSENT);
	assert_int_equal(RUN("space", "drop", "y"), CLI_ABSENT);
	ASSERT_SAYS(g_err, "y: the store has no such space");
	assert_int_equal(fake.blocks_count, 1);
	assert_int_equal(RUN("space", "drop", "--space", "x"), CLI_OK);
	assert_int_equal(fake.blocks_count, 0);
	assert_int_equal(RUN("put", "k", "/nowhere/file"), CLI_UNREACHED);
	ASSERT_SAYS(g_err, "/nowhere/file");
	close(fd);
	close(back_fd);
	unlink(path);
	unlink(back);
}

/* A block longer than the first guess is asked for again, whole. */
static void
long_blocks_come_whole(void **state)
{
	enum { BYTES = 9 << 20 };
	char path[] = "/tmp/test_command_XXXXXX", back[] = "/tmp/test_command_XXXXXX";
	int fd = mkstemp(path), back_fd = mkstemp(back);

	(void)state;
	assert_int_equal(ftruncate(fd, BYTES), 0);
	assert_int_equal(pwrite(fd, "end", 3, BYTES - 3), 3);
	assert_int_equal(RUN("put", "--url", "fake:", "k", path), CLI_OK);
	assert_int_equal(RUN("get", "--url", "fake:", "k", back), CLI_OK);
	assert_int_equal(lseek(back_fd, 0, SEEK_END), BYTES);
	assert_int_equal(pread(back_fd, g_out, 3, BYTES - 3), 3);
	assert_memory_equal(g_out, "end", 3);
	close(fd);
	close(back_fd);
	unlink(path);
	unlink(back);
}

static void
devices(void **state)
{
	(void)state;
	assert_int_equal(RUN("format", "dev"), CLI_REFUSED);
	ASSERT_SAYS(g_err, "--force");
	assert_int_equal(RUN("format", "dev", "--size", "8GiB", "--force"), CLI_OK);
	assert_true(fake.formatted_bytes == 8ULL << 30);
	ASSERT_SAYS(g_out, "8GiB");
	assert_int_equal(RUN("check", "sound"), CLI_OK);
	ASSERT_SAYS(g_out, "no damage");
	assert_int_equal(RUN("check", "hurt"), CLI_DAMAGED);
	ASSERT_SAYS(g_out, "1 damaged");
	ASSERT_SAYS(g_out, "segment=7 what=footer");
	assert_int_equal(RUN("check", "hurt", "--json"), CLI_DAMAGED);
	ASSERT_SAYS(g_out, "\"damaged\": 1");
}

static void
replay_and_bench(void **state)
{
	char path[] = "/tmp/test_command_XXXXXX";
	int fd = mkstemp(path);

	(void)state;
	assert_int_equal(RUN("replay", "--generate", "chat", "--requests", "50", "--url",
			     "fake:", "--block-bytes", "1KiB", "--json", "--report", path,
			     "--compare-size", "100KiB"),
			 CLI_OK);
	ASSERT_SAYS(g_out, "\"usable_prefix_hits\"");
	ASSERT_SAYS(g_out, "\"write_amplification\": 1.1");
	ASSERT_SAYS(g_out, "\"lru_blocks\": 100");
	ASSERT_SAYS(g_out, "\"ack\": \"ram\"");
	assert_true(pread(fd, g_out, 15, 0) == 15 && memcmp(g_out, "<!DOCTYPE html>", 15) == 0);
	fake.damage_every = 10;
	assert_int_equal(RUN("replay", "--generate", "chat", "--requests", "50", "--url",
			     "fake:", "--block-bytes", "1KiB"),
			 CLI_DAMAGED);
	ASSERT_SAYS(g_err, "wrong bytes");
	ASSERT_SAYS(g_out, "usable-prefix hits");
	fake.damage_every = 0;
	assert_int_equal(RUN("replay", "--generate", "tchat", "--url", "fake:"), CLI_USAGE);
	assert_int_equal(RUN("replay", "--generate", "chat", "--model", "lama-3.1-8b", "--url",
			     "fake:"),
			 CLI_USAGE);
	ASSERT_SAYS(g_err, "'llama-3.1-8b'");
	assert_int_equal(RUN("replay", "/nowhere.kvt", "--url", "fake:"), CLI_UNREACHED);
	ASSERT_SAYS(g_err, "/nowhere.kvt");
	assert_int_equal(RUN("bench", "--url", "fake:", "--op", "get", "--size", "4KiB", "--depth",
			     "4", "--seconds", "0.05", "--working-set", "1MiB", "--json"),
			 CLI_OK);
	ASSERT_SAYS(g_out, "\"errors\": 0");
	ASSERT_SAYS(g_out, "\"op\": \"get\"");
	assert_int_equal(RUN("bench", "--url", "fake:", "--seconds", "0"), CLI_USAGE);
	close(fd);
	unlink(path);
}

static void
scripts_for_shells(void **state)
{
	static const char *const shells[] = { "bash", "zsh", "fish" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(shells); i++) {
		assert_int_equal(RUN("completion", shells[i]), CLI_OK);
		for (size_t k = 0; k < cli_commands_count; k++) {
			ASSERT_SAYS(g_out, cli_commands[k]->name);
			for (size_t o = 0; o < cli_commands[k]->options_count; o++) {
				ASSERT_SAYS(g_out, cli_commands[k]->options[o].name);
			}
		}
	}
	assert_int_equal(RUN("completion", "csh"), CLI_USAGE);
	assert_int_equal(RUN("version"), CLI_OK);
	assert_string_equal(g_out, "headrace fake\n");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(help_of_everything, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_wrong_is_named, setup, teardown),
		cmocka_unit_test_setup_teardown(blocks_come_and_go, setup, teardown),
		cmocka_unit_test_setup_teardown(long_blocks_come_whole, setup, teardown),
		cmocka_unit_test_setup_teardown(devices, setup, teardown),
		cmocka_unit_test_setup_teardown(replay_and_bench, setup, teardown),
		cmocka_unit_test_setup_teardown(scripts_for_shells, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
