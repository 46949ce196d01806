/* trace_lines.c — see trace_lines.h. */
#include "cli/trace_lines.h"

#include <errno.h>
#include <fcntl.h>
#include <lzma.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/trace.h"

enum { CHUNK_BYTES = 64 << 10, LZMA_MEMORY_BYTES = 512 << 20 };

struct trace_lines {
	char path[256];
	int fd;
	bool compressed;
	bool file_ended;
	bool stream_ended; /* xz: the stream's own end was seen */
	bool text_ended;
	lzma_stream lzma;
	uint8_t in[CHUNK_BYTES];
	size_t in_bytes; /* Plain files: bytes of in[] not taken yet. */
	uint8_t out[CHUNK_BYTES];
	size_t out_off, out_bytes;
	char *line;
	size_t line_room;
	uint64_t number;
};

static int
fill_in(struct trace_lines *lines, char *detail)
{
	ssize_t n;

	do {
		n = read(lines->fd, lines->in, sizeof(lines->in));
	} while (n < 0 && errno == EINTR);
	if (n < 0) {
		int rc = -errno;

		snprintf(detail, TRACE_DETAIL_BYTES, "%s: %s", lines->path, strerror(-rc));
		return rc;
	}
	lines->in_bytes = (size_t)n;
	lines->file_ended = n == 0;
	return 0;
}

int
trace_lines_open(const char *path, struct trace_lines **ret_lines, char *detail)
{
	static const uint8_t xz_magic[6] = { 0xfd, '7', 'z', 'X', 'Z', 0 };
	struct trace_lines *lines = calloc(1, sizeof(*lines));
	int rc;

	if (lines == NULL) {
		return -ENOMEM;
	}
	snprintf(lines->path, sizeof(lines->path), "%s", path);
	lines->fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
	if (lines->fd < 0) {
		rc = -errno;
		snprintf(detail, TRACE_DETAIL_BYTES, "%s: %s", path, strerror(-rc));
		goto out_close;
	}
	rc = fill_in(lines, detail);
	if (rc != 0) {
		goto out_close;
	}
	lines->compressed = lines->in_bytes >= sizeof(xz_magic) &&
			    memcmp(lines->in, xz_magic, sizeof(xz_magic)) == 0;
	if (lines->compressed) {
		lines->lzma = (lzma_stream)LZMA_STREAM_INIT;
		if (lzma_stream_decoder(&lines->lzma, LZMA_MEMORY_BYTES, LZMA_CONCATENATED) !=
		    LZMA_OK) {
			rc = -ENOMEM;
			goto out_close;
		}
		lines->lzma.next_in = lines->in;
		lines->lzma.avail_in = lines->in_bytes;
	}
	*ret_lines = lines;
	return 0;
out_close:
	trace_lines_close(lines);
	return rc;
}

void
trace_lines_close(struct trace_lines *lines)
{
	if (lines == NULL) {
		return;
	}
	if (lines->compressed) {
		lzma_end(&lines->lzma);
	}
	if (lines->fd >= 0) {
		close(lines->fd);
	}
	free(lines->line);
	free(lines);
}

static int
fill_plain(struct trace_lines *lines, char *detail)
{
	int rc;

	if (lines->in_bytes == 0 && !lines->file_ended) {
		rc = fill_in(lines, detail);
		if (rc != 0) {
			return rc;
		}
	}
	memcpy(lines->out, lines->in, lines->in_bytes);
	lines->out_bytes = lines->in_bytes;
	lines->in_bytes = 0;
	return 0;
}

static int
fill_compressed(struct trace_lines *lines, char *detail)
{
	lzma_stream *lzma = &lines->lzma;
	lzma_ret code = LZMA_OK;
	int rc;

	lzma->next_out = lines->out;
	lzma->avail_out = sizeof(lines->out);
	while (lzma->avail_out == sizeof(lines->out) && !lines->stream_ended) {
		if (lzma->avail_in == 0 && !lines->file_ended) {
			rc = fill_in(lines, detail);
			if (rc != 0) {
				return rc;
			}
			lzma->next_in = lines->in;
			lzma->avail_in = lines->in_bytes;
		}
		code = lzma_code(lzma, lines->file_ended ? LZMA_FINISH : LZMA_RUN);
		if (code == LZMA_STREAM_END) {
			lines->stream_ended = true;
		} else if (code != LZMA_OK) {
			snprintf(detail, TRACE_DETAIL_BYTES,
				 "%s: damaged or truncated xz data (liblzma code %d)", lines->path,
				 (int)code);
			return -EBADMSG;
		}
	}
	lines->out_bytes = sizeof(lines->out) - lzma->avail_out;
	return 0;
}

static int
fill_out(struct trace_lines *lines, char *detail)
{
	int rc = lines->compressed ? fill_compressed(lines, detail) : fill_plain(lines, detail);

	lines->out_off = 0;
	if (rc == 0 && lines->out_bytes == 0) {
		lines->text_ended = true;
	}
	return rc;
}

static int
line_append(struct trace_lines *lines, size_t have, const void *piece, size_t bytes, char *detail)
{
	size_t want = have + bytes + 1;

	if (want > TRACE_LINE_BYTES_MAX) {
		snprintf(detail, TRACE_DETAIL_BYTES, "%s:%llu: a line of more than %d MiB",
			 lines->path, (unsigned long long)lines->number + 1,
			 TRACE_LINE_BYTES_MAX >> 20);
		return -E2BIG;
	}
	if (want > lines->line_room) {
		size_t room = HR_MAX(want, lines->line_room * 2 + 256);
		char *grown = realloc(lines->line, room);

		if (grown == NULL) {
			return -ENOMEM;
		}
		lines->line = grown;
		lines->line_room = room;
	}
	memcpy(lines->line + have, piece, bytes);
	lines->line[have + bytes] = '\0';
	return 0;
}

int
trace_lines_next(struct trace_lines *lines, char **ret_line, size_t *ret_len, char *detail)
{
	size_t len = 0;
	bool any = false;

	for (;;) {
		size_t have, take;
		const uint8_t *at, *end;
		int rc;

		if (lines->out_off == lines->out_bytes && !lines->text_ended) {
			lines->out_bytes = 0;
			rc = fill_out(lines, detail);
			if (rc != 0) {
				return rc;
			}
		}
		if (lines->text_ended) {
			if (!any) {
				return 0;
			}
			break;
		}
		at = lines->out + lines->out_off;
		have = lines->out_bytes - lines->out_off;
		end = memchr(at, '\n', have);
		take = end == NULL ? have : (size_t)(end - at);
		rc = line_append(lines, len, at, take, detail);
		if (rc != 0) {
			return rc;
		}
		any = true;
		len += take;
		lines->out_off += take + (end != NULL);
		if (end != NULL) {
			break;
		}
	}
	if (len > 0 && lines->line[len - 1] == '\r') {
		lines->line[--len] = '\0';
	}
	lines->number++;
	*ret_line = lines->line;
	*ret_len = len;
	return 1;
}

uint64_t
trace_lines_number(const struct trace_lines *lines)
{
	return lines->number;
}
