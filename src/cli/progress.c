/* progress.c — see progress.h. */
#include "cli/progress.h"

#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { SHOW_EVERY_US = 100000, WIDTH_MAX = 160 };

uint64_t
cli_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

void
progress_start(struct progress *progress, const char *what, bool quiet)
{
	*progress = (struct progress){
		.out = !quiet && isatty(STDERR_FILENO) ? stderr : NULL,
		.what = what,
		.started_us = cli_now_us(),
	};
}

static unsigned
terminal_width(void)
{
	struct winsize size;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col < 20) {
		return 80;
	}
	return HR_MIN(size.ws_col, (unsigned)WIDTH_MAX);
}

void
progress_line(char *ret, size_t ret_bytes, unsigned width, const char *what, uint64_t done,
	      uint64_t total, uint64_t elapsed_us, const char *note)
{
	enum { BAR = 24 };
	char bar[BAR + 1], left[48] = "";
	double part = total == 0 ? 0 : HR_MIN(1.0, (double)done / (double)total);

	memset(bar, '.', BAR);
	memset(bar, '#', (size_t)(part * BAR));
	bar[BAR] = '\0';
	if (part > 0.01 && part < 1 && elapsed_us > 2000000) {
		snprintf(left, sizeof(left), " %.0f s left",
			 (double)elapsed_us / 1e6 * (1 - part) / part);
	}
	snprintf(ret, ret_bytes, "%s [%s] %5.1f %%%s%s%s", what, bar, part * 100, left,
		 note != NULL ? "  " : "", note != NULL ? note : "");
	if (strlen(ret) >= width) {
		ret[width - 1] = '\0';
	}
}

void
progress_show(struct progress *progress, uint64_t done, uint64_t total, const char *note)
{
	char line[WIDTH_MAX * 2];
	uint64_t now_us;

	if (progress->out == NULL) {
		return;
	}
	now_us = cli_now_us();
	if (now_us - progress->shown_us < SHOW_EVERY_US) {
		return;
	}
	progress->shown_us = now_us;
	progress->shown = true;
	progress_line(line, sizeof(line), terminal_width(), progress->what, done, total,
		      now_us - progress->started_us, note);
	fprintf(progress->out, "\r%s\033[K", line);
	fflush(progress->out);
}

void
progress_end(struct progress *progress)
{
	if (progress->shown) {
		fputs("\r\033[K", progress->out);
		fflush(progress->out);
		progress->shown = false;
	}
}
