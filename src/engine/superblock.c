/* superblock.c - format: the old superblocks go first and the new ones come last, so that a device whose format was cut short is
 * never taken for a store.
 */
#include "engine/superblock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <headrace/error.h>

#include "base/error.h"
#include "engine/blocking.h"
#include "engine/layout.h"

enum {
	INSPECT_BYTES = 1 << 20,
	INSPECT_SAMPLES = 64, /* pages of a file behind that */
	ZERO_BUF_BYTES = 1 << 20,
	ZERO_IOV_COUNT = 4, /* of the same buffer: 4 MiB a write */
	ZERO_DEPTH = 8,
};

#define SAY(detail, ...) snprintf((detail), DETAIL_BYTES, __VA_ARGS__)

/* -- what is there already ------------------------------------------------------------------------------------------------------ */

struct signature {
	uint32_t off;
	uint32_t len;
	const char *bytes;
	const char *name;
};

/* The commoner owners of block devices. An order: what contains others (a partition table) comes after what it may contain. */
static const struct signature signatures[] = {
	{ 0, 6, "LUKS\xba\xbe", "a LUKS volume" },
	{ 0, 4, "XFSB", "an XFS file system" },
	{ 0x438, 2, "\x53\xef", "an ext2, ext3 or ext4 file system" },
	{ 0x10040, 8, "_BHRfS_M", "a btrfs file system" },
	{ 0x400, 4, "\x10\x20\xf5\xf2", "an F2FS file system" },
	{ 3, 8, "NTFS    ", "an NTFS file system" },
	{ 3, 8, "EXFAT   ", "an exFAT file system" },
	{ 0x52, 5, "FAT32", "a FAT32 file system" },
	{ 0, 4, "hsqs", "a squashfs image" },
	{ 32769, 5, "CD001", "an ISO 9660 image" },
	{ 512, 8, "LABELONE", "an LVM physical volume" },
	{ 0, 8, "LABELONE", "an LVM physical volume" },
	{ 4096, 4, "\xfc\x4e\x2b\xa9", "a member of a Linux RAID" },
	{ 0, 4, "\xfc\x4e\x2b\xa9", "a member of a Linux RAID" },
	{ 4086, 10, "SWAPSPACE2", "swap space" },
	{ 0, 22, "bluestore block device", "a Ceph OSD" },
	{ 0, 4, "QFI\xfb", "a qcow2 image" },
	{ 257, 5, "ustar", "a tar archive" },
	{ 0, 4,
	  "\x7f"
	  "ELF",
	  "a program" },
	{ 512, 8, "EFI PART", "a GPT partition table" },
	{ 4096, 8, "EFI PART", "a GPT partition table" },
	{ 510, 2, "\x55\xaa", "an MBR partition table or boot sector" },
};

const char *
foreign_content_name(const void *first_page_64k, uint64_t bytes)
{
	const uint8_t *p = first_page_64k;

	for (size_t i = 0; i < ARRAY_SIZE(signatures); i++) {
		const struct signature *s = &signatures[i];

		if ((uint64_t)s->off + s->len <= bytes && memcmp(p + s->off, s->bytes, s->len) == 0) {
			return s->name;
		}
	}
	return NULL;
}

static bool
magic_nearly(const uint8_t *p, const char *magic)
{
	int same = 0;

	for (int i = 0; i < 8; i++) {
		same += p[i] == (uint8_t)magic[i];
	}
	return same >= 6;
}

/* Traces of a store whose superblocks may both be damaged. `head` is the first MiB, zero-filled behind the end. */
static bool
headrace_traces(const uint8_t *head)
{
	return magic_nearly(head + SUPERBLOCK_A_OFF, "HRSUPER1") ||
	       magic_nearly(head + SUPERBLOCK_B_OFF, "HRSUPER1") ||
	       magic_nearly(head + SPACE_TABLE_A_OFF, "HRSPACE1") ||
	       magic_nearly(head + SPACE_TABLE_B_OFF, "HRSPACE1");
}

static uint64_t
nonzero_count(const uint8_t *p, size_t len)
{
	uint64_t n = 0;

	for (size_t i = 0; i < len; i++) {
		n += p[i] != 0;
	}
	return n;
}

/* Reads the first MiB, as much as there is in whole pages. */
static int
head_read(struct io *io, struct io_device *device, uint8_t **ret_head)
{
	struct io_device_info info;
	uint8_t *head = page_alloc(INSPECT_BYTES);
	int rc = 0;

	if (head == NULL) {
		return -ENOMEM;
	}
	io_device_info_get(device, &info);
	if (info.size_bytes >= PAGE_BYTES) {
		rc = blocking_read(io, device, 0, head,
				   HR_MIN(align_down(info.size_bytes, PAGE_BYTES), INSPECT_BYTES));
	}
	if (rc != 0) {
		free(head);
		return rc;
	}
	*ret_head = head;
	return 0;
}

/* 0: blank. Otherwise -HR_EFOREIGN, and the detail says what it is. */
static int
refuse_content(const char *path, const uint8_t *head, char *detail)
{
	const char *name;

	if (is_all_zero(head, INSPECT_BYTES)) {
		return 0;
	}
	name = foreign_content_name(head, INSPECT_BYTES);
	if (headrace_traces(head)) {
		SAY(detail,
		    "%s: already a Headrace device; --force formats it anew and loses what it holds",
		    path);
	} else if (name != NULL) {
		SAY(detail, "%s: carries %s; --force overwrites it", path, name);
	} else {
		SAY(detail,
		    "%s: carries %" PRIu64
		    " bytes of unknown data in its first MiB; --force overwrites it",
		    path, nonzero_count(head, INSPECT_BYTES));
	}
	return -HR_EFOREIGN;
}

/* -- geometry ------------------------------------------------------------------------------------------------------------------- */

static uint64_t
segment_bytes_choose(uint64_t slice_bytes)
{
	uint64_t bytes = SEGMENT_BYTES_MAX;

	while (bytes > SEGMENT_BYTES_MIN && (slice_bytes - META_BYTES) / bytes < 256) {
		bytes /= 2;
	}
	return bytes;
}

static int
geometry_check(const char *path, uint64_t size_bytes, const struct format_options *options,
	       char *detail)
{
	uint32_t shards = options->shards_count != 0 ? options->shards_count : 1;
	uint64_t segment = options->segment_bytes != 0 ? options->segment_bytes : SEGMENT_BYTES_MIN;
	uint64_t wanted;

	if (shards > SLICES_MAX) {
		SAY(detail, "%s: %" PRIu32 " shards asked for; at most %d fit on a device", path,
		    shards, SLICES_MAX);
		return -EINVAL;
	}
	if (!is_pow2(segment) || segment < SEGMENT_BYTES_MIN || segment > SEGMENT_BYTES_MAX) {
		SAY(detail,
		    "%s: segment size %" PRIu64
		    " bytes; wanted is a power of two from 8 MiB to 1 GiB",
		    path, segment);
		return -EINVAL;
	}
	wanted = shards * (SEGMENTS_COUNT_MIN * segment + META_BYTES);
	if (size_bytes < wanted) {
		SAY(detail,
		    "%s: %" PRIu64 " bytes is too small; wanted are at least %" PRIu64
		    " bytes (%" PRIu64 " MiB) for %" PRIu32 " shard(s) of %d segments of %" PRIu64
		    " MiB",
		    path, size_bytes, wanted, wanted >> 20, shards, SEGMENTS_COUNT_MIN,
		    segment >> 20);
		return -HR_ESIZE;
	}
	if (size_bytes / shards > SLICE_BYTES_MAX) {
		SAY(detail,
		    "%s: %" PRIu64 " TiB is too large for %" PRIu32
		    " shard(s) of at most 32 TiB; wanted are at least %" PRIu64 " shards",
		    path, size_bytes >> 40, shards, div_round_up(size_bytes, SLICE_BYTES_MAX));
		return -HR_ESIZE;
	}
	return 0;
}

static void
uuid_make(struct io *io, uint8_t ret_uuid[16])
{
	put_le64(ret_uuid, io_random_u64(io));
	put_le64(ret_uuid + 8, io_random_u64(io));
	ret_uuid[6] = (ret_uuid[6] & 0x0f) | 0x40; /* RFC 9562 version 4, */
	ret_uuid[8] = (ret_uuid[8] & 0x3f) | 0x80; /* variant 1. */
}

/* The superblock of slice 0; the others differ in shard_idx, offset and UUID. */
static struct superblock
geometry_make(struct io *io, uint64_t size_bytes, const struct format_options *options,
	      bool prepared)
{
	struct superblock sb = {
		.shards_count = options->shards_count != 0 ? options->shards_count : 1,
		.align_bytes = PAGE_BYTES,
		.chunk_bytes = CHUNK_BYTES,
		.meta_bytes = META_BYTES,
		.sequence = 1,
		.created_ms = io_wall_ms(io),
		.unit_bytes_max = UNIT_VALUES_BYTES_MAX,
		.space_table_off = { SPACE_TABLE_A_OFF, SPACE_TABLE_B_OFF },
		.space_table_bytes = SPACE_TABLE_BYTES,
	};

	uuid_make(io, sb.device_uuid);
	sb.device_bytes = align_down(size_bytes, PAGE_BYTES);
	/* Slices after the first begin at whole MiB, which suits every flash. */
	sb.slice_bytes = sb.shards_count == 1
			     ? sb.device_bytes
			     : align_down(sb.device_bytes / sb.shards_count, MiB(1));
	sb.segment_bytes = options->segment_bytes != 0 ? options->segment_bytes
						       : segment_bytes_choose(sb.slice_bytes);
	sb.segments_count = (uint32_t)((sb.slice_bytes - META_BYTES) / sb.segment_bytes);
	sb.part_bytes = sb.segment_bytes < MiB(32) ? MiB(1) : MiB(4);
	sb.weight = sb.slice_bytes;
	sb.segments_prepared = prepared ? sb.segments_count : 0;
	return sb;
}

/* -- zeroing -------------------------------------------------------------------------------------------------------------------- */

struct zeroing;
struct zero_slot {
	struct io_op op;
	struct zeroing *job;
	uint64_t bytes;
	bool busy;
};

/* Ranges, one after the other, several writes in flight. */
struct zeroing {
	struct io *io;
	struct io_device *device;
	const struct format_options *options;
	uint64_t done_bytes, total_bytes;
	int rc;
	unsigned inflight;
	struct iovec iov[ZERO_IOV_COUNT];
	struct iovec page;
	struct zero_slot slots[ZERO_DEPTH];
};

static void
zero_done(void *arg, int64_t result)
{
	struct zero_slot *slot = arg;
	struct zeroing *job = slot->job;

	slot->busy = false;
	job->inflight--;
	job->done_bytes += slot->bytes;
	if (result < 0 && job->rc == 0) {
		job->rc = (int)result;
	}
}

static int
zero_drain(struct zeroing *job, unsigned inflight_max)
{
	while (job->inflight > inflight_max) {
		int rc = io_run(job->io, UINT64_MAX);

		HR_ASSERTF(rc >= 0, "rc=%d", rc);
	}
	return job->rc;
}

static int
zero_write(struct zeroing *job, const struct iovec *iov, unsigned iov_count, uint64_t off,
	   uint64_t bytes)
{
	unsigned i = 0;
	int rc = zero_drain(job, ZERO_DEPTH - 1);

	if (rc != 0) {
		return rc;
	}
	while (job->slots[i].busy) {
		i++;
	}
	job->slots[i].job = job;
	job->slots[i].busy = true;
	job->slots[i].bytes = bytes;
	job->inflight++;
	io_device_write(job->device, &job->slots[i].op, iov, iov_count, off, 0, zero_done,
			&job->slots[i]);
	if (job->options->progress != NULL) {
		job->options->progress(job->options->progress_arg, job->done_bytes,
				       job->total_bytes);
	}
	if (job->options->stop != NULL && job->options->stop(job->options->progress_arg)) {
		job->rc = -EINTR;
	}
	return job->rc;
}

static int
zero_page(struct zeroing *job, uint64_t off)
{
	return zero_write(job, &job->page, 1, off, PAGE_BYTES);
}

static int
zero_segment(struct zeroing *job, const struct superblock *sb, uint32_t segment)
{
	uint64_t off = sb->slice_off_bytes + META_BYTES + segment * sb->segment_bytes;
	int rc = 0;

	if (!job->options->prepare) {
		rc = zero_page(job, off);
		return rc != 0 ? rc : zero_page(job, off + sb->segment_bytes - PAGE_BYTES);
	}
	for (uint64_t at = 0; at < sb->segment_bytes && rc == 0;
	     at += ZERO_BUF_BYTES * ZERO_IOV_COUNT) {
		rc = zero_write(job, job->iov, ZERO_IOV_COUNT, off + at,
				ZERO_BUF_BYTES * ZERO_IOV_COUNT);
	}
	return rc;
}

static uint64_t
zero_total(const struct superblock *sb, bool prepare)
{
	uint64_t segment = prepare ? sb->segment_bytes : 2 * PAGE_BYTES;

	return sb->shards_count * (4 * PAGE_BYTES + sb->segments_count * segment);
}

/* Old superblocks and tables first, made stable, then the segments. */
static int
zero_everything(struct zeroing *job, const struct superblock *slices)
{
	static const uint32_t heads[] = { SUPERBLOCK_A_OFF, SUPERBLOCK_B_OFF, SPACE_TABLE_A_OFF,
					  SPACE_TABLE_B_OFF };
	uint32_t count = slices[0].shards_count;
	int rc = 0;

	for (uint32_t s = 0; s < count && rc == 0; s++) {
		for (size_t i = 0; i < ARRAY_SIZE(heads) && rc == 0; i++) {
			rc = zero_page(job, slices[s].slice_off_bytes + heads[i]);
		}
	}
	rc = rc != 0 ? rc : zero_drain(job, 0);
	rc = rc != 0 ? rc : blocking_sync(job->io, job->device);
	for (uint32_t s = 0; s < count && rc == 0; s++) {
		for (uint32_t i = 0; i < slices[s].segments_count && rc == 0; i++) {
			rc = zero_segment(job, &slices[s], i);
		}
	}
	return rc;
}

static int
zero_device(struct io *io, struct io_device *device, const struct superblock *slices,
	    const struct format_options *options)
{
	struct zeroing *job = calloc(1, sizeof(*job));
	void *zeros = page_alloc(ZERO_BUF_BYTES);
	int rc = -ENOMEM;

	if (job == NULL || zeros == NULL) {
		goto out;
	}
	job->io = io;
	job->device = device;
	job->options = options;
	job->total_bytes = zero_total(&slices[0], options->prepare);
	job->page = (struct iovec){ zeros, PAGE_BYTES };
	for (int i = 0; i < ZERO_IOV_COUNT; i++) {
		job->iov[i] = (struct iovec){ zeros, ZERO_BUF_BYTES };
	}
	rc = zero_everything(job, slices);
	/* Also after a failure: what is under way points into the job. */
	(void)zero_drain(job, 0);
	rc = rc != 0 ? rc : job->rc;
	rc = rc != 0 ? rc : blocking_sync(io, device);
	if (rc == 0 && options->progress != NULL) {
		options->progress(options->progress_arg, job->total_bytes, job->total_bytes);
	}
out:
	free(zeros);
	free(job);
	return rc;
}

/* -- format --------------------------------------------------------------------------------------------------------------------- */

static int
tables_and_superblocks_write(struct io *io, struct io_device *device,
			     const struct superblock *slices)
{
	static const uint32_t copies[] = { SUPERBLOCK_B_OFF, SUPERBLOCK_A_OFF };
	const struct space_slot empty = { .sequence = 1, .rows_count = 0, .next_number = 1 };
	uint8_t *page = page_alloc(PAGE_BYTES);
	uint32_t count = slices[0].shards_count;
	int rc = 0;

	if (page == NULL) {
		return -ENOMEM;
	}
	for (uint32_t s = 0; s < count && rc == 0; s++) {
		space_slot_encode(&slices[s], &empty, NULL, page);
		rc = blocking_write(io, device, slices[s].slice_off_bytes + SPACE_TABLE_A_OFF, page,
				    PAGE_BYTES, IO_WRITE_DSYNC);
	}
	/* Slice 0 comes last: it is what makes the device a store. */
	for (uint32_t s = count; s-- > 0 && rc == 0;) {
		superblock_encode(&slices[s], page);
		for (size_t i = 0; i < ARRAY_SIZE(copies) && rc == 0; i++) {
			rc = blocking_write(io, device, slices[s].slice_off_bytes + copies[i], page,
					    PAGE_BYTES, IO_WRITE_DSYNC);
		}
	}
	rc = rc != 0 ? rc : blocking_sync(io, device);
	free(page);
	return rc;
}

static int
open_failed(const char *path, int rc, char *detail)
{
	if (rc == -EBUSY) {
		SAY(detail, "%s: in use by another process", path);
		return -HR_EINUSE;
	}
	SAY(detail, "%s: cannot be opened: %s", path, error_text(rc));
	return rc;
}

/* What the path is before anything is changed. Size 0: it is not there, or empty. */
struct target {
	bool simulated, exists, regular;
	uint64_t size_bytes;
};

/* Devices are read in whole pages; of a file that ends within one, this reads the rest: six bytes are as precious as a MiB. */
static int
tail_read(const char *path, uint64_t size_bytes, uint8_t *head)
{
	uint64_t at = align_down(size_bytes, PAGE_BYTES);
	int fd, rc = 0;

	if (at >= INSPECT_BYTES || at == size_bytes) {
		return 0;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || pread(fd, head + at, size_bytes - at, (off_t)at) < 0) {
		rc = -errno;
	}
	if (fd >= 0) {
		close(fd);
	}
	return rc;
}

/* A file that begins with zeros may be somebody's all the same, a sparse one for instance. A disk that begins with zeros was wiped: what is
 * left behind is left by whoever wiped it. */
static int
samples_check(struct io *io, struct io_device *device, uint64_t size_bytes, const char *path,
	      char *detail)
{
	uint64_t pages = size_bytes / PAGE_BYTES, first = INSPECT_BYTES / PAGE_BYTES;
	uint8_t *page;
	int rc = 0;

	if (pages <= first) {
		return 0;
	}
	page = page_alloc(PAGE_BYTES);
	if (page == NULL) {
		return -ENOMEM;
	}
	for (uint64_t i = 0; rc == 0 && i < INSPECT_SAMPLES; i++) {
		uint64_t at = (first + (pages - 1 - first) * i / (INSPECT_SAMPLES - 1)) * PAGE_BYTES;

		rc = blocking_read(io, device, at, page, PAGE_BYTES);
		if (rc == 0 && !is_all_zero(page, PAGE_BYTES)) {
			SAY(detail, "%s: carries something, at %" PRIu64 "; --force overwrites it",
			    path, at);
			rc = -HR_EFOREIGN;
		}
	}
	free(page);
	return rc;
}

static int
content_check(struct io *io, const char *path, const struct target *target, char *detail)
{
	struct io_device *device;
	uint8_t *head;
	int rc;

	rc = io_device_open(io, path, IO_DEVICE_READONLY, &device);
	if (rc != 0) {
		return open_failed(path, rc, detail);
	}
	rc = head_read(io, device, &head);
	if (rc == 0) {
		rc = target->regular ? tail_read(path, target->size_bytes, head) : 0;
		rc = rc != 0 ? rc : refuse_content(path, head, detail);
		if (rc == 0 && target->regular) {
			rc = samples_check(io, device, target->size_bytes, path, detail);
		}
		free(head);
	}
	if (rc != 0 && detail[0] == 0) {
		SAY(detail, "%s: cannot be read: %s", path, error_text(rc));
	}
	io_device_close(device);
	return rc;
}

/* Makes the file when there is none, and gives it its size. *ret_made: it was not there before. */
static int
file_make(const char *path, uint64_t size_bytes, bool *ret_made, char *detail)
{
	struct stat st;
	int fd;
	int rc;

	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	*ret_made = fd >= 0;
	if (fd < 0 && errno == EEXIST) {
		fd = open(path, O_RDWR | O_CLOEXEC);
	}
	if (fd < 0 || fstat(fd, &st) != 0) {
		rc = open_failed(path, -errno, detail);
		goto out;
	}
	rc = (uint64_t)st.st_size > size_bytes && ftruncate(fd, (off_t)size_bytes) != 0 ? errno : 0;
	rc = rc != 0 ? rc : fallocate(fd, 0, 0, (off_t)size_bytes) != 0 ? errno : 0;
	if (rc == EOPNOTSUPP) {
		/* Preparing a segment writes it in full, so the space is there before it is counted on. */
		rc = ftruncate(fd, (off_t)size_bytes) != 0 ? errno : 0;
	}
	if (rc != 0) {
		SAY(detail, "%s: no room for %" PRIu64 " bytes: %s", path, size_bytes,
		    error_text(-rc));
		rc = -rc;
	}
out:
	if (fd >= 0) {
		close(fd);
	}
	if (rc != 0 && *ret_made) {
		unlink(path);
	}
	return rc;
}

static int
target_look(struct io *io, const char *path, struct target *ret, char *detail)
{
	struct io_backend backend;
	struct stat st;

	memset(ret, 0, sizeof(*ret));
	io_backend_get(io, &backend);
	if (strcmp(backend.disk, "simulated") == 0) {
		ret->simulated = ret->exists = true;
		return 0;
	}
	if (stat(path, &st) != 0) {
		return errno == ENOENT ? 0 : open_failed(path, -errno, detail);
	}
	ret->exists = true;
	ret->regular = S_ISREG(st.st_mode);
	ret->size_bytes = ret->regular ? (uint64_t)st.st_size : 0;
	if (!ret->regular && !S_ISBLK(st.st_mode)) {
		SAY(detail, "%s: neither a file nor a block device", path);
		return -EINVAL;
	}
	return 0;
}

/* The size that the store gets, once the device is open. */
static int
size_settle(const char *path, struct io_device *device, const struct format_options *options,
	    uint64_t *ret_bytes, char *detail)
{
	struct io_device_info info;
	uint64_t bytes;

	io_device_info_get(device, &info);
	bytes = options->size_bytes != 0 ? options->size_bytes : info.size_bytes;
	if (bytes > info.size_bytes) {
		SAY(detail, "%s: size %" PRIu64 " bytes asked for; the device has %" PRIu64, path,
		    bytes, info.size_bytes);
		return -HR_ESIZE;
	}
	*ret_bytes = bytes;
	return geometry_check(path, bytes, options, detail);
}

static int
format_open_device(struct io *io, const char *path, struct io_device *device,
		   const struct format_options *options, char *detail)
{
	struct superblock *slices;
	struct io_device_info info;
	uint64_t size_bytes;
	int rc;

	rc = size_settle(path, device, options, &size_bytes, detail);
	if (rc != 0) {
		return rc;
	}
	slices = calloc(SLICES_MAX, sizeof(*slices));
	if (slices == NULL) {
		return -ENOMEM;
	}
	io_device_info_get(device, &info);
	slices[0] = geometry_make(io, size_bytes, options, options->prepare || info.block_device);
	for (uint32_t s = 0; s < slices[0].shards_count; s++) {
		slices[s] = slices[0];
		slices[s].shard_idx = s;
		slices[s].slice_off_bytes = s * slices[0].slice_bytes;
		uuid_make(io, slices[s].shard_uuid);
	}
	rc = zero_device(io, device, slices, options);
	rc = rc != 0 ? rc : tables_and_superblocks_write(io, device, slices);
	if (rc != 0) {
		SAY(detail, "%s: format failed: %s", path,
		    rc == -EINTR ? "stopped" : error_text(rc));
	}
	free(slices);
	return rc;
}

/* A file gets its size while its lock is held, so that a store in use is never cut short. */
static int
target_prepare(struct io *io, const char *path, const struct target *target,
	       const struct format_options *options, bool *ret_made, char *detail)
{
	uint64_t bytes = options->size_bytes != 0 ? options->size_bytes : target->size_bytes;
	struct io_device *device = NULL;
	int rc;

	if (bytes == 0) {
		SAY(detail, "%s: a size is wanted for a new file, --size 8GiB say", path);
		return -EINVAL;
	}
	rc = geometry_check(path, bytes, options, detail);
	if (rc == 0 && target->exists) {
		rc = io_device_open(io, path, IO_DEVICE_LOCK, &device);
		rc = rc != 0 ? open_failed(path, rc, detail) : 0;
	}
	rc = rc != 0 ? rc : file_make(path, bytes, ret_made, detail);
	if (device != NULL) {
		io_device_close(device);
	}
	return rc;
}

int
device_format(struct io *io, const char *path, const struct format_options *options,
	      char detail[DETAIL_BYTES])
{
	struct target target;
	struct io_device *device;
	bool made = false;
	int rc;

	detail[0] = 0;
	rc = target_look(io, path, &target, detail);
	if (rc == 0 && target.exists && !options->force) {
		rc = content_check(io, path, &target, detail);
	}
	if (rc == 0 && !target.simulated && (!target.exists || target.regular)) {
		rc = target_prepare(io, path, &target, options, &made, detail);
	}
	if (rc != 0) {
		return rc;
	}
	rc = io_device_open(io, path, IO_DEVICE_LOCK, &device);
	if (rc != 0) {
		rc = open_failed(path, rc, detail);
	} else {
		rc = format_open_device(io, path, device, options, detail);
		io_device_close(device);
	}
	if (rc != 0 && made) {
		unlink(path);
	}
	return rc;
}

/* -- reading -------------------------------------------------------------------------------------------------------------------- */

/* The valid copy with the greater sequence. A read error of one copy is as good as a bad one; a newer version's is not: it may have written what
 * this one does not understand, and was perhaps cut short between its copies. */
static int
slice_read(struct io *io, struct io_device *device, uint64_t slice_off, struct superblock *ret)
{
	static const uint32_t copies[] = { SUPERBLOCK_A_OFF, SUPERBLOCK_B_OFF };
	uint8_t *page = page_alloc(PAGE_BYTES);
	struct superblock sb;
	bool found = false;
	bool newer = false;
	uint32_t damaged = 0;
	int worst = -HR_ECORRUPT;

	if (page == NULL) {
		return -ENOMEM;
	}
	for (size_t i = 0; i < ARRAY_SIZE(copies); i++) {
		int rc = blocking_read(io, device, slice_off + copies[i], page, PAGE_BYTES);

		rc = rc != 0 ? rc : superblock_decode(page, slice_off + copies[i], &sb);
		damaged += rc != 0;
		newer |= rc == -HR_EVERSION;
		if (rc == 0 && (!found || sb.sequence > ret->sequence)) {
			*ret = sb;
			found = true;
		} else if (rc == -HR_EVERSION || (rc > -HR_ECORRUPT && rc < 0)) {
			worst = rc;
		}
	}
	if (found) {
		ret->copies_damaged = damaged;
	}
	free(page);
	return newer ? -HR_EVERSION : found ? 0 : worst;
}

/* Slice 0 has no valid superblock: says why. */
static int
refuse_device(struct io *io, struct io_device *device, int rc, char *detail)
{
	uint8_t *head;
	const char *name;

	if (rc == -HR_EVERSION) {
		SAY(detail, "made by a newer Headrace (this one reads format %d)", FORMAT_VERSION);
		return rc;
	}
	if (rc != -HR_ECORRUPT || head_read(io, device, &head) != 0) {
		SAY(detail, "cannot be read: %s", error_text(rc == -HR_ECORRUPT ? -EIO : rc));
		return rc == -HR_ECORRUPT ? -EIO : rc;
	}
	name = foreign_content_name(head, INSPECT_BYTES);
	if (headrace_traces(head)) {
		SAY(detail,
		    "both superblocks are damaged (at 0 and at 512 KiB); the device cannot be used");
		rc = -HR_ECORRUPT;
	} else {
		rc = -HR_EFOREIGN;
		bool blank = is_all_zero(head, INSPECT_BYTES);

		SAY(detail, "not a Headrace device: %s; `headrace format%s` makes it one%s",
		    blank	   ? "it is blank"
		    : name != NULL ? name
				   : "it carries unknown data",
		    blank ? "" : " --force", blank ? "" : ", and what it carries is lost");
	}
	free(head);
	return rc;
}

/* The rows of other slices must belong to the same format as slice 0's. */
static bool
slice_agrees(const struct superblock *first, const struct superblock *sb, uint32_t idx)
{
	return memcmp(first->device_uuid, sb->device_uuid, 16) == 0 && sb->shard_idx == idx &&
	       sb->shards_count == first->shards_count && sb->slice_bytes == first->slice_bytes;
}

int
device_superblocks_read(struct io *io, struct io_device *device, struct superblock *ret_slices,
			uint32_t *ret_count, char detail[DETAIL_BYTES])
{
	struct io_device_info info;
	struct superblock first;
	int rc;

	detail[0] = 0;
	io_device_info_get(device, &info);
	if (info.size_bytes < META_BYTES) {
		SAY(detail, "not a Headrace device: %" PRIu64 " bytes is too small for one",
		    info.size_bytes);
		return -HR_EFOREIGN;
	}
	rc = slice_read(io, device, 0, &first);
	if (rc != 0) {
		return refuse_device(io, device, rc, detail);
	}
	if (first.device_bytes > info.size_bytes) {
		SAY(detail,
		    "smaller than when it was formatted: %" PRIu64 " bytes, wanted are %" PRIu64,
		    info.size_bytes, first.device_bytes);
		return -HR_ESIZE;
	}
	ret_slices[0] = first;
	for (uint32_t i = 1; i < first.shards_count; i++) {
		struct superblock *sb = &ret_slices[i];

		if (slice_read(io, device, i * first.slice_bytes, sb) != 0 ||
		    !slice_agrees(&first, sb, i)) {
			memset(sb, 0, sizeof(*sb));
			sb->shard_idx = i;
			sb->slice_off_bytes = i * first.slice_bytes;
		}
	}
	*ret_count = first.shards_count;
	return 0;
}

/* -- writing -------------------------------------------------------------------------------------------------------------------- */

struct superblock_writing {
	struct io_op op;
	struct iovec iov;
	struct io_device *device;
	uint64_t slice_off;
	bool second;
	void (*cb)(void *arg, int rc);
	void *arg;
	uint8_t *page;
};

static void
superblock_write_done(void *arg, int64_t result)
{
	struct superblock_writing *w = arg;

	if (result >= 0 && !w->second) {
		w->second = true;
		io_device_write(w->device, &w->op, &w->iov, 1, w->slice_off + SUPERBLOCK_A_OFF,
				IO_WRITE_DSYNC, superblock_write_done, w);
		return;
	}
	w->cb(w->arg, result < 0 ? (int)result : 0);
	free(w->page);
	free(w);
}

void
superblock_write(struct io *io, struct io_device *device, struct superblock *superblock,
		 void (*cb)(void *arg, int rc), void *arg)
{
	struct superblock_writing *w = calloc(1, sizeof(*w));

	(void)io;
	HR_ASSERT(w != NULL);
	w->page = page_alloc(PAGE_BYTES);
	HR_ASSERT(w->page != NULL);
	w->device = device;
	w->slice_off = superblock->slice_off_bytes;
	w->cb = cb;
	w->arg = arg;
	w->iov = (struct iovec){ w->page, PAGE_BYTES };
	superblock->sequence++;
	superblock_encode(superblock, w->page);
	io_device_write(device, &w->op, &w->iov, 1, w->slice_off + SUPERBLOCK_B_OFF, IO_WRITE_DSYNC,
			superblock_write_done, w);
}
