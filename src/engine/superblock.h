/* superblock.h - what a device and its slices are; formatting and opening them.
 *
 * What:       reads, checks and writes superblocks (docs/format/README.md sections 1 and 2); format of a whole device.
 * Threads:    any one; the calls with a struct io block by running it (they are used before serving starts and by tools).
 * Errors:     -HR_EFOREIGN: the device carries something that is not ours; -HR_ECORRUPT: both superblocks bad; -HR_EVERSION: made by a newer
 *             version; -HR_ESIZE: smaller than its superblock says. `detail` gets one line that names the thing and the value wanted.
 */
#ifndef HR_ENGINE_SUPERBLOCK_H
#define HR_ENGINE_SUPERBLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "io/io.h"

enum { SLICES_MAX = 64, DETAIL_BYTES = 256 };

struct superblock {
	uint8_t device_uuid[16];
	uint8_t shard_uuid[16];
	uint32_t shard_idx;
	uint32_t shards_count;
	uint64_t slice_off_bytes;
	uint64_t slice_bytes;
	uint64_t device_bytes;
	uint64_t segment_bytes;
	uint32_t segments_count;
	uint32_t align_bytes;
	uint32_t part_bytes;
	uint32_t chunk_bytes;
	uint32_t meta_bytes;
	uint64_t weight;
	uint64_t sequence;
	uint64_t created_ms;
	uint32_t segments_prepared;
	uint32_t unit_bytes_max;
	uint32_t space_table_off[2];
	uint32_t space_table_bytes;
	uint32_t flags_compat, flags_ro_compat, flags_incompat;
	uint32_t copies_damaged; /* not on flash: how many of the two did not hold when they were read */
};

struct format_options {
	uint64_t size_bytes; /* 0: the whole device or the file's present size */
	uint64_t segment_bytes; /* 0: power of two, 8 MiB … 1 GiB, so that a shard has >= 256 of them where it can */
	uint32_t shards_count; /* 0 = 1 */
	bool force;	       /* overwrite what is there */
	bool prepare; /* write every segment of a file in full now (format); false: later, in the background */
	/* progress, or NULL */
	void (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes);
	void *progress_arg;
	bool (*stop)(void *arg); /* asked now and then; true ends with -EINTR */
};

/* Makes or resizes the file (fallocate), writes superblocks and empty space tables, zeroes head and trailer of every segment. */
int device_format(struct io *io, const char *path, const struct format_options *options,
		  char detail[DETAIL_BYTES]);
/* Reads the superblocks of all slices. `ret_slices` has room for SLICES_MAX. A slice whose superblocks are both bad has segments_count = 0 in its row. */
int device_superblocks_read(struct io *io, struct io_device *device, struct superblock *ret_slices,
			    uint32_t *ret_count, char detail[DETAIL_BYTES]);
/* Writes both copies with sequence + 1, B first, each made stable before the other. Asynchronous version for the running shard. */
void superblock_write(struct io *io, struct io_device *device, struct superblock *superblock,
		      void (*cb)(void *arg, int rc), void *arg);
/* What stands at the beginning of a foreign device, as far as a few well-known magics tell: "an ext4 file system", … */
const char *foreign_content_name(const void *first_page_64k, uint64_t bytes);

#endif
