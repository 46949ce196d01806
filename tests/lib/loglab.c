#include "lib/loglab.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/crc.h"
#include "base/prng.h"
#include "engine/blocking.h"

static const char device_name[] = "flash";

/* -- life ------------------------------------------------------------------------------------------------------------------------ */

void
lab_create(struct lab *lab, uint64_t seed, uint32_t segments)
{
	struct sim_device_options device = { .kind = SIM_DEVICE_BYTES,
					     .size_bytes = MiB(1) + segments * MiB(8),
					     .latency_us_min = 20,
					     .latency_us_max = 200,
					     .block_device = true };
	struct io_options options = { .disk = IO_DISK_SIM, .net = IO_NET_SIM };
	struct format_options format = { .segment_bytes = MiB(8) };

	memset(lab, 0, sizeof(*lab));
	assert_int_equal(sim_create(seed, &lab->sim), 0);
	assert_int_equal(sim_device_add(lab->sim, device_name, &device), 0);
	options.sim = lab->sim;
	assert_int_equal(io_create(&options, &lab->io), 0);
	assert_int_equal(device_format(lab->io, device_name, &format, lab->detail), 0);
}

static void
found_clear(struct lab *lab)
{
	free(lab->found);
	lab->found = NULL;
	lab->found_count = lab->found_room = 0;
}

static void
records_clear(struct lab *lab)
{
	struct lab_record *r;

	while ((r = lab->records) != NULL) {
		lab->records = r->next;
		free(r->value);
		free(r);
	}
}

void
lab_destroy(struct lab *lab)
{
	if (lab->log != NULL) {
		lab_close(lab);
	}
	found_clear(lab);
	records_clear(lab);
	io_destroy(lab->io);
	sim_destroy(lab->sim);
}

static void
found_record(void *arg, const struct desc *desc, uint32_t segment, uint64_t generation)
{
	struct lab *lab = arg;
	struct lab_found *f;

	if (lab->found_count == lab->found_room) {
		lab->found_room = lab->found_room > 0 ? 2 * lab->found_room : 64;
		lab->found = realloc(lab->found, lab->found_room * sizeof(*lab->found));
		assert_non_null(lab->found);
	}
	f = &lab->found[lab->found_count++];
	memset(f, 0, sizeof(*f));
	f->desc = *desc;
	f->number = get_le64(desc->id);
	f->segment = segment;
	f->generation = generation;
	memcpy(f->key, desc->key != NULL ? desc->key : (const uint8_t *)"", desc->key_bytes);
	memcpy(f->crcs, desc->crcs != NULL ? desc->crcs : f->crcs, 4 * desc->crcs_count);
	f->desc.key = NULL;
	f->desc.crcs = NULL;
}

static void
recovery_done(void *arg, const struct recover_result *result)
{
	struct lab *lab = arg;

	lab->recovered = *result;
	lab->recovery_done = true;
}

int
lab_open(struct lab *lab)
{
	const struct recover_visitor visitor = { found_record, recovery_done, lab };
	struct superblock slices[SLICES_MAX];
	uint32_t count;
	int rc;

	found_clear(lab);
	rc = io_device_open(lab->io, device_name, 0, &lab->device);
	if (rc != 0) {
		return rc;
	}
	rc = device_superblocks_read(lab->io, lab->device, slices, &count, lab->detail);
	if (rc == 0) {
		lab->slice = slices[0];
		rc = log_create(lab->io, lab->device, &lab->slice, &lab->options, &lab->log);
	}
	if (rc != 0) {
		io_device_close(lab->device);
		lab->device = NULL;
		return rc;
	}
	lab->recovery_done = false;
	assert_int_equal(recover_start(lab->log, &visitor), 0);
	while (!lab->recovery_done) {
		assert_true(io_run(lab->io, UINT64_MAX) >= 0);
	}
	log_check(lab->log);
	return lab->recovered.rc;
}

static void
quiesced(void *arg)
{
	*(bool *)arg = true;
}

void
lab_close(struct lab *lab)
{
	bool done = false;

	log_quiesce(lab->log, quiesced, &done);
	lab_wait(lab, &done);
	log_check(lab->log);
	log_destroy(lab->log);
	io_device_close(lab->device);
	lab->log = NULL;
	lab->device = NULL;
}

void
lab_crash(struct lab *lab, unsigned how)
{
	sim_power_cut(lab->sim, device_name, how);
	lab_close(lab);
}

/* -- records --------------------------------------------------------------------------------------------------------------------- */

void
lab_value_make(uint64_t number, uint32_t bytes, uint8_t *ret_value)
{
	struct prng prng;

	prng_init(&prng, number * 1000003 + bytes);
	for (uint32_t i = 0; i < bytes; i += 8) {
		uint64_t v = prng_u64(&prng);

		memcpy(ret_value + i, &v, HR_MIN(8u, bytes - i));
	}
}

static void
record_written(struct log_record *record, int rc)
{
	struct lab_record *r = record->arg;

	assert_false(r->written_done);
	r->written_done = true;
	r->written_rc = rc;
}

static void
record_stable(struct log_record *record, int rc)
{
	struct lab_record *r = record->arg;

	assert_true(r->written_done && !r->stable_done && record->want_stable);
	r->stable_done = true;
	r->stable_rc = rc;
}

struct lab_record *
lab_append(struct lab *lab, enum segment_class class, const struct desc *desc, bool want_stable,
	   int *ret_rc)
{
	struct lab_record *r = calloc(1, sizeof(*r));
	uint32_t bytes = pages_bytes(desc->stored_bytes);
	int rc;

	assert_non_null(r);
	r->lab = lab;
	r->record.desc = *desc;
	r->record.want_stable = want_stable;
	r->record.written = record_written;
	r->record.stable = record_stable;
	r->record.arg = r;
	if (bytes > 0) {
		r->value = page_alloc(bytes);
		lab_value_make(get_le64(desc->id), desc->stored_bytes, r->value);
	}
	/* In two pieces where it can be. */
	for (uint32_t at = 0; at < bytes; at += r->iov[r->record.iov_count++].iov_len) {
		r->iov[r->record.iov_count] =
		    (struct iovec){ r->value + at, at == 0 ? PAGE_BYTES : bytes - at };
	}
	r->record.iov = r->iov;
	r->record.desc.crcs_count =
	    (uint32_t)crc32c_chunks(&(struct iovec){ r->value, desc->stored_bytes }, 1, CHUNK_BYTES,
				    r->crcs);
	r->record.desc.crcs = r->crcs;
	memcpy(r->key, desc->key != NULL ? desc->key : (const uint8_t *)"", desc->key_bytes);
	r->record.desc.key = r->key;
	rc = log_append(lab->log, class, &r->record);
	if (ret_rc != NULL) {
		*ret_rc = rc;
	}
	if (rc != 0) {
		free(r->value);
		free(r);
		return NULL;
	}
	r->next = lab->records;
	lab->records = r;
	return r;
}

static struct desc
desc_make(struct lab *lab, uint64_t number, uint8_t *key)
{
	struct desc d = { .space_number = 1,
			  .space_generation = 1,
			  .route = number,
			  .birth = log_birth_next(lab->log) };

	put_le64(d.id, number);
	d.key = key;
	d.key_bytes = (uint16_t)snprintf((char *)key, 32, "key-%llu", (unsigned long long)number);
	return d;
}

struct lab_record *
lab_put(struct lab *lab, enum segment_class class, uint64_t number, uint32_t bytes, bool want_stable)
{
	uint8_t key[32];
	struct desc d = desc_make(lab, number, key);

	d.kind = DESC_VALUE;
	d.parts_count = 1;
	d.logical_bytes = d.stored_bytes = bytes;
	d.block_bytes = bytes;
	return lab_append(lab, class, &d, want_stable, NULL);
}

struct lab_record *
lab_tombstone(struct lab *lab, uint64_t number)
{
	uint8_t key[32];
	struct desc d = desc_make(lab, number, key);

	d.kind = DESC_TOMBSTONE;
	d.horizon = log_generation_newest(lab->log);
	return lab_append(lab, CLASS_FRESH, &d, true, NULL);
}

int
lab_put_wait(struct lab *lab, enum segment_class class, uint64_t number, uint32_t bytes)
{
	struct lab_record *r;
	int err;

	while ((r = lab_put(lab, class, number, bytes, true)) == NULL) {
		if (log_failed(lab->log, &err)) {
			return -EIO;
		}
		assert_true(io_run(lab->io, UINT64_MAX) >= 0);
	}
	lab_wait(lab, &r->stable_done);
	return r->stable_rc;
}

struct answer {
	bool done;
	int rc;
};

static void
answered(void *arg, int rc)
{
	struct answer *a = arg;

	assert_false(a->done);
	a->done = true;
	a->rc = rc;
}

int
lab_flush(struct lab *lab)
{
	struct answer a = { 0 };

	log_flush(lab->log, answered, &a);
	assert_false(a.done);
	lab_wait(lab, &a.done);
	return a.rc;
}

int
lab_free(struct lab *lab, uint32_t segment)
{
	struct answer a = { 0 };

	log_segment_free(lab->log, segment, answered, &a);
	assert_false(a.done);
	lab_wait(lab, &a.done);
	return a.rc;
}

void
lab_wait(struct lab *lab, const bool *flag)
{
	while (!*flag) {
		int rc = io_run(lab->io, UINT64_MAX);

		if (rc < 0) {
			fail_msg("nothing will happen any more: rc=%d", rc);
		}
		if (lab->log != NULL) {
			log_check(lab->log);
		}
	}
}

void
lab_idle(struct lab *lab)
{
	while (sim_step(lab->sim)) {
	}
}

void
lab_wait_state(struct lab *lab, uint32_t segment, enum segment_state state)
{
	while (lab_state(lab, segment) != state) {
		assert_true(io_run(lab->io, UINT64_MAX) >= 0);
	}
}

/* -- what there is ----------------------------------------------------------------------------------------------------------------- */

const struct lab_found *
lab_winner(const struct lab *lab, uint64_t number)
{
	const struct lab_found *best = NULL;

	for (uint32_t i = 0; i < lab->found_count; i++) {
		const struct lab_found *f = &lab->found[i];

		if (f->number == number &&
		    (best == NULL || f->desc.birth > best->desc.birth ||
		     (f->desc.birth == best->desc.birth && f->generation > best->generation))) {
			best = f;
		}
	}
	return best;
}

uint64_t
lab_segment_off(const struct lab *lab, uint32_t segment)
{
	return META_BYTES + segment * lab->slice.segment_bytes;
}

bool
lab_value_right(const struct lab *lab, const struct lab_found *found)
{
	uint32_t bytes = found->desc.stored_bytes;
	uint8_t *want = malloc(bytes + 8);
	uint8_t *got = malloc(bytes + 8);
	char key[32];
	bool right;

	lab_value_make(found->number, bytes, want);
	assert_int_equal(sim_device_peek(lab->sim, device_name,
					 lab_segment_off(lab, found->segment) +
					     found->desc.value_off,
					 got, bytes),
			 0);
	right = memcmp(want, got, bytes) == 0;
	snprintf(key, sizeof(key), "key-%llu", (unsigned long long)found->number);
	right = right && found->desc.key_bytes == strlen(key) &&
		memcmp(found->key, key, strlen(key)) == 0;
	free(want);
	free(got);
	return right;
}

void
lab_flip(struct lab *lab, uint64_t off)
{
	uint8_t b;

	assert_int_equal(sim_device_peek(lab->sim, device_name, off, &b, 1), 0);
	b ^= 0x08;
	assert_int_equal(sim_device_poke(lab->sim, device_name, off, &b, 1), 0);
}

enum segment_state
lab_state(const struct lab *lab, uint32_t segment)
{
	struct segment_info info;

	log_segment_info(lab->log, segment, &info);
	return info.state;
}
