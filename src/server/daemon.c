/* daemon.c - headraced. */
#define HR_LOG_COMPONENT "headraced"
#include "server/daemon.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/size.h"
#include "server/config.h"
#include "server/http.h"

struct daemon {
	int argc;
	char **argv;
	struct option_set set;
	struct config config;
	struct node *node;
	struct http *http;
	/* The store of a start without --device. */
	char *default_path;
	uint64_t default_bytes;
	const char *default_listen;
	bool said_ready;
};

static const char DEFAULT_LISTEN[] = "tcp:127.0.0.1:7450";

/* -- systemd ---------------------------------------------------------------------------------------------------------------------- */

/* What sd_notify() does: one datagram to the socket that systemd names. */
static void
notify(const char *text)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t len;
	int fd;

	if (path == NULL || (path[0] != '/' && path[0] != '@') ||
	    strlen(path) >= sizeof(address.sun_path)) {
		return;
	}
	len = strlen(path);
	memcpy(address.sun_path, path, len);
	if (path[0] == '@') {
		address.sun_path[0] = '\0'; /* an abstract name */
	}
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0) {
		(void)sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&address,
			     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
		close(fd);
	}
}

/* -- a start without a device --------------------------------------------------------------------------------------------------------- */

static int
folder_make(const char *path, struct errbuf *err)
{
	char part[4096];

	if (snprintf(part, sizeof(part), "%s", path) >= (int)sizeof(part)) {
		return errf(err, -ENAMETOOLONG, "%.100s…: too long", path);
	}
	for (char *at = part + 1; *at != '\0'; at++) {
		if (*at == '/') {
			*at = '\0';
			(void)mkdir(part, 0700);
			*at = '/';
		}
	}
	if (mkdir(part, 0700) != 0 && errno != EEXIST) {
		return errf(err, -errno, "folder %.120s: %s", path, error_text(errno));
	}
	return 0;
}

/* 8 GiB or a tenth of what is free, the smaller; an existing store keeps its size. */
static int
default_store(struct daemon *daemon, struct errbuf *err)
{
	const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
	char folder[4000];
	struct statvfs fs;
	size_t len;
	int rc;

	if (data != NULL && data[0] == '/') {
		snprintf(folder, sizeof(folder), "%s/headrace", data);
	} else if (home != NULL && home[0] == '/') {
		snprintf(folder, sizeof(folder), "%s/.local/share/headrace", home);
	} else {
		return errf(err, -HR_ECONFIG,
			    "no --device, and neither $XDG_DATA_HOME nor $HOME to keep a store in");
	}
	rc = folder_make(folder, err);
	if (rc != 0) {
		return rc;
	}
	if (statvfs(folder, &fs) != 0) {
		return errf(err, -errno, "folder %.120s: %s", folder, error_text(errno));
	}
	len = strlen(folder) + sizeof("/store.img");
	daemon->default_path = malloc(len);
	if (daemon->default_path == NULL) {
		return errf(err, -ENOMEM, "out of memory");
	}
	snprintf(daemon->default_path, len, "%s/store.img", folder);
	daemon->default_bytes =
	    align_down(HR_MIN(GiB(8), (uint64_t)fs.f_bavail * fs.f_frsize / 10), MiB(1));
	return 0;
}

/* -- start ------------------------------------------------------------------------------------------------------------------------------ */

static int
node_run(struct daemon *daemon, char detail[DETAIL_BYTES])
{
	const struct config *config = &daemon->config;
	struct node_device_options *devices = calloc(config->device.count + 1, sizeof(*devices));
	struct node_options options;
	int rc;

	if (devices == NULL) {
		snprintf(detail, DETAIL_BYTES, "out of memory");
		return -ENOMEM;
	}
	config_node_options(config, devices, &options);
	if (daemon->default_path != NULL) {
		devices[0] = (struct node_device_options){ .path = daemon->default_path,
							   .create_bytes = daemon->default_bytes };
		options.devices_count = 1;
	}
	if (daemon->default_listen != NULL) {
		options.listen = &daemon->default_listen;
		options.listen_count = 1;
	}
	rc = node_start(&options, &daemon->node, detail);
	if (rc == -EADDRINUSE && daemon->default_listen == DEFAULT_LISTEN) {
		/* Nobody asked for this port: any other is as good, and it is said. */
		daemon->default_listen = "tcp:127.0.0.1:0";
		rc = node_start(&options, &daemon->node, detail);
	}
	free(devices);
	return rc;
}

static int
daemon_start(struct daemon *daemon, struct errbuf *err)
{
	const struct config *config = &daemon->config;
	char detail[DETAIL_BYTES] = "";
	int rc = 0;

	if (config->device.count == 0) {
		rc = default_store(daemon, err);
	}
	if (config->listen.count == 0) {
		daemon->default_listen = DEFAULT_LISTEN;
	}
	if (rc == 0 && config->http != NULL) {
		rc = http_start(config->http, &daemon->http, err);
	}
	if (rc != 0) {
		return rc;
	}
	rc = node_run(daemon, detail);
	if (rc != 0) {
		return errf(err, rc, "%s", detail[0] != '\0' ? detail : error_text(rc));
	}
	http_node_set(daemon->http, daemon->node);
	for (uint32_t i = 0; node_address(daemon->node, i) != NULL; i++) {
		log_info("listening", "address=%s", LOG_QUOTED(node_address(daemon->node, i)));
	}
	if (daemon->http != NULL) {
		log_info("listening", "address=http:%s", http_address(daemon->http));
	}
	if (daemon->default_path != NULL) {
		printf("headraced: a store of its own in %s\nheadraced: export HEADRACE_URL=%s\n",
		       daemon->default_path, node_address(daemon->node, 0));
		fflush(stdout);
	}
	return 0;
}

/* -- reload --------------------------------------------------------------------------------------------------------------------------------- */

static bool
list_has(const struct option_list *list, const char *text)
{
	for (size_t i = 0; i < list->count; i++) {
		if (strcmp(list->items[i], text) == 0) {
			return true;
		}
	}
	return false;
}

static void
devices_reload(struct daemon *daemon, const struct config *config)
{
	struct node_device_options *devices = calloc(config->device.count + 1, sizeof(*devices));
	char detail[DETAIL_BYTES], quoted[2 * DETAIL_BYTES];
	struct node_options options;

	if (devices == NULL) {
		return;
	}
	config_node_options(config, devices, &options);
	for (size_t i = 0; i < daemon->config.device.count; i++) {
		const char *path = daemon->config.device.items[i];

		if (!list_has(&config->device, path) &&
		    node_device_drop(daemon->node, path, detail) != 0) {
			log_error("device_drop_failed", "error=%s",
				  log_quote(detail, quoted, sizeof(quoted)));
		}
	}
	/* Also those that were there before: one that had failed or was missing gets its replacement. */
	for (size_t i = 0; i < config->device.count; i++) {
		int rc = node_device_add(daemon->node, &devices[i], detail);

		if (rc != 0 && rc != -EEXIST) {
			log_error("device_add_failed", "error=%s",
				  log_quote(detail, quoted, sizeof(quoted)));
		}
	}
	free(devices);
}

static void
restart_needed_say(const struct option_set *old, const struct option_set *new)
{
	for (size_t i = 0; i < config_options_count; i++) {
		char before[512], after[512], quoted[1024];

		option_value_format(old, i, before, sizeof(before));
		option_value_format(new, i, after, sizeof(after));
		if (strcmp(before, after) != 0 && (config_options[i].flags & OPTION_LIVE) == 0) {
			log_warn("reload_needs_restart", "option=%s value=%s",
				 config_options[i].name, log_quote(after, quoted, sizeof(quoted)));
		}
	}
}

static void
daemon_reload(struct daemon *daemon)
{
	enum config_result result;
	struct option_set set;
	struct config *config = calloc(1, sizeof(*config));
	struct errbuf err = { "" };
	char quoted[512];

	notify("RELOADING=1");
	if (config == NULL ||
	    config_load(daemon->argc, daemon->argv, &set, config, &result, &err) != 0) {
		log_error("reload_failed", "error=%s action=\"nothing was changed\"",
			  log_quote(err.text, quoted, sizeof(quoted)));
		free(config);
		notify("READY=1");
		return;
	}
	restart_needed_say(&daemon->set, &set);
	log_set_level((enum log_level)config->log_level);
	if (daemon->default_path == NULL && config->device.count > 0) {
		devices_reload(daemon, config);
	}
	option_set_fini(&daemon->set);
	daemon->config = *config;
	daemon->set = set;
	daemon->set.values = &daemon->config;
	free(config);
	log_info("reloaded", "log_level=%s devices=%zu",
		 log_level_name((enum log_level)daemon->config.log_level),
		 daemon->config.device.count);
	notify("READY=1");
}

/* -- run -------------------------------------------------------------------------------------------------------------------------------------- */

static void
ready_say(struct daemon *daemon)
{
	if (!daemon->said_ready && node_ready(daemon->node)) {
		daemon->said_ready = true;
		log_info("ready", "%s=%d", "pid", (int)getpid());
		notify("READY=1");
	}
}

static void
daemon_run(struct daemon *daemon, const sigset_t *signals)
{
	for (;;) {
		/* Until the shards serve, somebody has to look whether they do; then nobody wakes for nothing. */
		const struct timespec soon = { .tv_nsec = 20 * 1000 * 1000 };
		int sig = daemon->said_ready ? sigwaitinfo(signals, NULL)
					     : sigtimedwait(signals, NULL, &soon);

		ready_say(daemon);
		if (sig == SIGHUP) {
			daemon_reload(daemon);
		} else if (sig == SIGTERM || sig == SIGINT) {
			log_info("stopping", "signal=%s", sig == SIGTERM ? "SIGTERM" : "SIGINT");
			return;
		}
	}
}

static void
daemon_stop(struct daemon *daemon)
{
	uint64_t drain_ms = daemon->config.drain_ms;

	notify("STOPPING=1");
	http_node_set(daemon->http, NULL);
	node_stop(daemon->node, (uint32_t)drain_ms);
	http_stop(daemon->http);
	log_info("stopped", "%s=%d", "pid", (int)getpid());
}

static void
help_print(const struct option_set *set)
{
	printf(
	    "usage: headraced [OPTION…]\n\n"
	    "The Headrace storage daemon: serves blocks on flash devices to engines on this host and over TCP.\n"
	    "Every option is also a key of the configuration file (log-level: log_level). Sizes take KiB, MiB, GiB.\n"
	    "SIGTERM drains and stops; SIGHUP reads the configuration again.\n\n");
	option_help_print(set, stdout);
	printf(
	    "\nExit codes: 0 stopped as asked; 1 could not start; 2 the command line or configuration is not usable.\n");
}

/* As many open files as the hard limit allows: the soft one is 1,024 nearly everywhere, for the sake of programs with select(). */
static void
descriptors_raise(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static int
usage_error(const struct errbuf *err)
{
	fprintf(stderr, "headraced: %s\n", err->text);
	return DAEMON_USAGE;
}

int
daemon_main(int argc, char **argv)
{
	struct daemon daemon = { .argc = argc, .argv = argv };
	enum config_result result;
	struct errbuf err = { "" };
	char quoted[512];
	sigset_t signals;
	int rc;

	if (config_load(argc, argv, &daemon.set, &daemon.config, &result, &err) != 0) {
		return usage_error(&err);
	}
	if (result == CONFIG_HELP) {
		help_print(&daemon.set);
	} else if (result == CONFIG_VERSION) {
		printf("headraced %s\n", HR_VERSION);
	} else if (daemon.config.check_config) {
		printf("headraced: the configuration can be used\n");
	}
	if (result != CONFIG_RUN || daemon.config.check_config) {
		option_set_fini(&daemon.set);
		return DAEMON_OK;
	}
	log_set_level((enum log_level)daemon.config.log_level);
	descriptors_raise();
	/* Before any thread is there, so that all have them blocked. */
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	sigdelset(&signals, SIGPIPE);
	log_info("starting", "version=%s pid=%d", HR_VERSION, (int)getpid());
	rc = daemon_start(&daemon, &err);
	if (rc != 0) {
		log_error("cannot_start", "error=%s", log_quote(err.text, quoted, sizeof(quoted)));
		if (daemon.config.log_level == LOG_NONE) {
			fprintf(stderr, "headraced: %s\n", err.text);
		}
		http_stop(daemon.http);
	} else {
		daemon_run(&daemon, &signals);
		daemon_stop(&daemon);
	}
	option_set_fini(&daemon.set);
	free(daemon.default_path);
	return rc == 0 ? DAEMON_OK : DAEMON_CANNOT_START;
}
