/* daemon.h - headraced from its first to its last line: configuration, node, HTTP, signals, reload.
 *
 * Threads:    the main thread waits for signals; the node and libmicrohttpd have their own, with all signals blocked.
 * Exit codes: 0 stopped as asked, or --help, --check-config; 1 it could not start (device, address, memory); 2 the command line or the
 *             configuration is not usable. docs/man/headraced.8.md
 * Tests:      tests/func/test_daemon.py
 */
#ifndef HR_SERVER_DAEMON_H
#define HR_SERVER_DAEMON_H

enum daemon_exit { DAEMON_OK = 0, DAEMON_CANNOT_START = 1, DAEMON_USAGE = 2 };

int daemon_main(int argc, char **argv);

#endif
