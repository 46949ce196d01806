/* stat_json.h - statistics as JSON (docs/ops/stat.md): copies taken in the shard's thread, text made anywhere.
 *
 * Threads:    stat_engine_take() in the engine's thread; the others on copies, in any.
 * Ownership:  a struct stat_engine's rows are freed with stat_engine_fini().
 */
#ifndef HR_SHARD_STAT_JSON_H
#define HR_SHARD_STAT_JSON_H

#include <jansson.h>

#include "shard/shard.h"

struct stat_engine {
	struct superblock slice;
	struct engine_stat stat;
	bool ready;
	struct space_row *rows;
	uint32_t rows_count;
};

int stat_engine_take(struct engine *engine, struct stat_engine *ret);
void stat_engine_fini(struct stat_engine *engine);
/* One object of "shards"; device NULL: not known. New reference. */
json_t *stat_json_engine(const struct stat_engine *engine, const char *device);
/* "sessions". Adds up several threads' when they are summed first. */
json_t *stat_json_sessions(const struct shard_stat *stat);
void stat_sessions_add(struct shard_stat *to, const struct shard_stat *from);
/* Rows of the same (tenant, digest) of all shards are one: adds `engine`'s to the array. */
void stat_json_spaces_add(json_t *spaces, const struct stat_engine *engine);
/* "01234567-89ab-…" */
const char *stat_uuid_format(const uint8_t uuid[16], char ret_text[37]);

#endif
