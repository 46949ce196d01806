/* main.c — headrace, the command line. */
#include <locale.h>
#include <signal.h>

#include "cli/command.h"

int
main(int argc, char **argv)
{
	/* A pipe that is closed is an error of write(), told once, not a silent death in the middle of a replay. */
	signal(SIGPIPE, SIG_IGN);
	setlocale(LC_CTYPE, "");
	return cli_main(argc, argv);
}
