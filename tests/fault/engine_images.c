/* engine_images.c — a store's image with fields changed at random and every CRC made right again: opened, read, listed, written full, opened again.
 *
 * What an attacker or a broken other version could have written is an error, a miss or another block, never an assertion, a wild
 * access, or a store that does not answer. HR_SIM_SEED, HR_SIM_COUNT: more of it.
 */
#include <signal.h>
#include <unistd.h>

#include "engine/engine_impl.h"
#include "engine/layout.h"
#include "unit/engine/engine_rig.h"

enum { IMAGE_BYTES = 64 << 20, SEGMENT_BYTES = 8 << 20, KEYS = 60, COUNT_DEFAULT = 40 };

static uint8_t *g_image, *g_work;
static uint32_t g_headers[4096], g_headers_count; /* offsets of unit headers */
static uint32_t g_trailers[16], g_trailers_count;
static char g_where[80]; /* empty: none is under way */

/* Neither an assertion of the engine nor one of cmocka knows the seed. */
static void
seed_say(void)
{
	(void)!write(STDERR_FILENO, g_where, strlen(g_where));
}

static void
on_abort(int sig)
{
	(void)sig;
	seed_say();
}

static struct engine_put_result
put(struct rig *rig, uint64_t key, uint64_t bytes, struct engine_put_args args)
{
	static uint64_t number = 1000;
	uint16_t parts = (uint16_t)HR_MAX(1, div_round_up(bytes, RIG_PART_BYTES));
	struct rig_wait w = { 0 };

	args.put_number = ++number;
	for (uint16_t i = 0; i < parts; i++) {
		enum hr_reason reason;
		struct engine_put *p = rig_put_part(rig, key, 0, bytes, i, &args, &reason);

		for (int n = 0; p == NULL && reason == HR_REASON_BUSY && n < 100; n++) {
			sim_run(rig->sim, rig_never, NULL, 1000);
			p = rig_put_part(rig, key, 0, bytes, i, &args, &reason);
		}
		if (p == NULL) {
			w.put.status = HR_STATUS_REFUSED;
			break;
		}
		w = (struct rig_wait){ 0 };
		engine_put_commit(rig->engine, p, rig_on_put, &w);
		rig_until(rig, &w);
		if (w.put.status != HR_STATUS_OK) {
			break;
		}
	}
	return w.put;
}

static void
image_make(void)
{
	static const uint64_t sizes[] = { 0, 1, 5000, 70000, 300000, MiB(1), MiB(2) + 5, 40000 };
	struct rig rig;
	struct rig_wait w = { 0 };

	rig_create(&rig, 1, IMAGE_BYTES, SEGMENT_BYTES);
	engine_space_set(rig.engine, rig.space, 0, MiB(8), rig_on_space, &w);
	rig_until(&rig, &w);
	for (uint64_t k = 0; k < KEYS; k++) {
		put(&rig, k, sizes[k % ARRAY_SIZE(sizes)],
		    (struct engine_put_args){ .ttl_ms = k % 5 == 0 ? 1000000 : 0,
					      .pinned = k % 7 == 0,
					      .ack = HR_ACK_STABLE });
	}
	for (uint64_t k = 0; k < KEYS; k += 3) {
		put(&rig, k, sizes[(k + 3) % ARRAY_SIZE(sizes)],
		    (struct engine_put_args){ .replace = true, .ack = HR_ACK_STABLE });
	}
	for (uint64_t k = 1; k < KEYS; k += 10) {
		rig_delete(&rig, k, HR_ACK_STABLE);
	}
	sim_device_gone(rig.sim, "disk", true);
	rig_close(&rig);
	sim_device_gone(rig.sim, "disk", false);
	assert_int_equal(sim_device_peek(rig.sim, "disk", 0, g_image, IMAGE_BYTES), 0);
	rig_open(&rig);
	rig_destroy(&rig);
	for (uint32_t off = META_BYTES; off < IMAGE_BYTES; off += PAGE_BYTES) {
		if (memcmp(g_image + off, "HRUNIT01", 8) == 0) {
			g_headers[g_headers_count++] = off;
		}
		if (memcmp(g_image + off + PAGE_BYTES - TRAILER_BYTES, "HRFOOT01", 8) == 0) {
			g_trailers[g_trailers_count++] = off + PAGE_BYTES - TRAILER_BYTES;
		}
	}
	assert_true(g_headers_count > 20 && g_trailers_count > 1);
}

static uint64_t
value_draw(struct prng *prng, uint64_t now)
{
	static const uint64_t odd[] = { 0,
					1,
					2,
					3,
					4096,
					8192,
					65536,
					1 << 20,
					4 << 20,
					8 << 20,
					0x7fff,
					0xffff,
					0x7fffffff,
					0x80000000,
					0xffffffff,
					0xfffff000,
					UINT64_MAX,
					INT64_MAX,
					UINT64_C(1) << 47 };

	switch (prng_below(prng, 5)) {
	case 0:
		return now + 1;
	case 1:
		return now - 1;
	case 2:
		return now ^ UINT64_C(1) << prng_below(prng, 64);
	case 3:
		return prng_u64(prng);
	default:
		return odd[prng_below(prng, ARRAY_SIZE(odd))];
	}
}

static void
field_change(struct prng *prng, uint8_t *p, uint32_t len)
{
	uint32_t width = 1u << prng_below(prng, 4);
	uint32_t off = (uint32_t)prng_below(prng, len / width) * width;
	uint64_t now = 0;

	memcpy(&now, p + off, width);
	now = value_draw(prng, now);
	memcpy(p + off, &now, width);
}

static void
superblocks_change(struct prng *prng)
{
	uint8_t *a = g_work + SUPERBLOCK_A_OFF;

	field_change(prng, a + 8, 156);
	put_le32(a + 4092, crc32c(0, a, 4092));
	memcpy(g_work + SUPERBLOCK_B_OFF, a, PAGE_BYTES);
}

static void
spaces_change(struct prng *prng)
{
	static const uint32_t slots[] = { SPACE_TABLE_A_OFF, SPACE_TABLE_B_OFF };
	uint8_t *p = g_work + slots[prng_below(prng, 2)];
	uint32_t rows;

	field_change(prng, p + 8, 52 + SPACE_ROW_BYTES);
	rows = HR_MIN(get_le32(p + 40), (uint32_t)SPACE_ROWS_MAX);
	put_le32(p + 60,
		 crc32c(crc32c(0, p, 60), p + SPACE_HEADER_BYTES, rows * (size_t)SPACE_ROW_BYTES));
}

static void
header_change(struct prng *prng)
{
	uint8_t *p = g_work + g_headers[prng_below(prng, g_headers_count)];
	uint32_t descs = get_le32(p + 92);
	uint64_t room = (uint64_t)(g_work + IMAGE_BYTES - (p + UNIT_HEADER_BYTES));

	if (prng_below(prng, 3) == 0 || descs < 8 || descs > room) {
		field_change(prng, p + 8, 116);
	} else {
		field_change(prng, p + UNIT_HEADER_BYTES, descs);
	}
	descs = get_le32(p + 92);
	if (descs <= room) {
		put_le32(p + 124, crc32c(crc32c(0, p, 124), p + UNIT_HEADER_BYTES, descs));
	}
}

static bool
footer_lies_inside(const uint8_t *trailer)
{
	return get_le32(trailer + 76) <= SEGMENT_BYTES &&
	       get_le32(trailer + 84) <= get_le32(trailer + 76);
}

static void
footer_change(struct prng *prng)
{
	uint8_t *t = g_work + g_trailers[prng_below(prng, g_trailers_count)];

	if (prng_below(prng, 3) == 0 || !footer_lies_inside(t) || get_le32(t + 84) < 8) {
		field_change(prng, t + 8, 116);
	} else {
		field_change(prng, t + TRAILER_BYTES - get_le32(t + 76), get_le32(t + 84));
	}
	if (footer_lies_inside(t)) {
		put_le32(t + 116, crc32c(0, t + TRAILER_BYTES - get_le32(t + 76), get_le32(t + 84)));
	}
	put_le32(t + 124, crc32c(0, t, 124));
}

static void
image_change(struct prng *prng)
{
	static void (*const changes[])(struct prng * prng) = {
		superblocks_change, spaces_change, header_change, header_change,
		header_change,	    footer_change, footer_change, footer_change,
	};

	for (uint64_t n = 1 + prng_below(prng, 5); n > 0; n--) {
		changes[prng_below(prng, ARRAY_SIZE(changes))](prng);
	}
}

static void
on_list(void *arg, int rc, uint64_t cursor_next, const struct engine_list_entry *entries,
	uint32_t count)
{
	struct rig_wait *w = arg;

	(void)rc;
	(void)entries;
	(void)count;
	(void)cursor_next;
	w->done = true;
}

static void
use(struct rig *rig, struct prng *prng)
{
	struct rig_wait w;

	for (uint64_t k = 0; k < KEYS; k++) {
		for (uint16_t part = 0; part < 3 && prng_below(prng, 3) == 0; part++) {
			struct engine_get get;

			rig_get_part(rig, k, part, &get);
			engine_get_done(rig->engine, &get);
		}
		if (prng_below(prng, 3) == 0) {
			(void)rig_exists(rig, k, 10000);
		}
	}
	w = (struct rig_wait){ 0 };
	engine_list(rig->engine, rig->space, 0, 1000, on_list, &w);
	rig_until(rig, &w);
	w = (struct rig_wait){ 0 };
	engine_list(rig->engine, rig->space, prng_u64(prng), 1000, on_list, &w);
	rig_until(rig, &w);
	for (uint64_t k = 1000; k < 1250; k++) {
		(void)put(rig, k, 300000, (struct engine_put_args){ .ack = HR_ACK_RAM });
		if (prng_below(prng, 20) == 0) {
			(void)rig_exists(rig, prng_below(prng, KEYS), 10000);
		}
		if (prng_below(prng, 40) == 0) {
			(void)rig_delete(rig, prng_below(prng, KEYS), HR_ACK_RAM);
		}
		if (prng_below(prng, 40) == 0) {
			(void)put(rig, prng_below(prng, KEYS), 5000,
				  (struct engine_put_args){ .replace = true });
		}
	}
	if (prng_below(prng, 4) == 0) {
		w = (struct rig_wait){ 0 };
		engine_space_drop(rig->engine, rig->space, rig_on_space, &w);
		rig_until(rig, &w);
	}
	engine_check(rig->engine);
}

/* 0: it is open. */
static int
try_open(struct rig *rig)
{
	struct rig_wait w = { 0 };
	char detail[DETAIL_BYTES];
	uint8_t digest[32] = { 1 };
	uint32_t count;
	int rc;

	assert_int_equal(io_device_open(rig->io, "disk", 0, &rig->device), 0);
	rc = device_superblocks_read(rig->io, rig->device, rig->slices, &count, detail);
	rc = rc == 0 && rig->slices[0].segments_count == 0 ? -EINVAL : rc;
	rc = rc != 0
		 ? rc
		 : engine_create(rig->io, rig->device, &rig->slices[0], &rig->options, &rig->engine);
	if (rc != 0) {
		io_device_close(rig->device);
		return rc;
	}
	rc = engine_start(rig->engine, rig_on_ready, &w, detail);
	if (rc == 0) {
		rig_until(rig, &w);
		rc = w.rc;
		if (rc != 0) {
			w = (struct rig_wait){ 0 };
			engine_stop(rig->engine, rig_on_done, &w);
			rig_until(rig, &w);
		}
	}
	if (rc != 0) {
		engine_destroy(rig->engine);
		io_device_close(rig->device);
		return rc;
	}
	w = (struct rig_wait){ 0 };
	engine_space_open(rig->engine, rig_tenant, digest, "test", rig_on_space, &w);
	rig_until(rig, &w);
	rig->space = w.row;
	assert_int_equal(engine_owner_create(rig->engine,
					     engine_tenant_number(rig->engine, rig_tenant),
					     &rig->owner),
			 0);
	if (w.rc != 0) {
		rig_close(rig);
	}
	return w.rc;
}

static uint64_t
from_environment(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

static void
test_images(void **state)
{
	uint64_t seed = from_environment("HR_SIM_SEED", 1);
	uint64_t count = from_environment("HR_SIM_COUNT", COUNT_DEFAULT);
	unsigned opened = 0;
	struct rig rig;

	(void)state;
	g_image = malloc(IMAGE_BYTES);
	g_work = malloc(IMAGE_BYTES);
	image_make();
	rig_create(&rig, 2, IMAGE_BYTES, SEGMENT_BYTES);
	rig_close(&rig);
	for (uint64_t i = seed; i < seed + count; i++) {
		struct prng prng;

		prng_init(&prng, i);
		memcpy(g_work, g_image, IMAGE_BYTES);
		image_change(&prng);
		assert_int_equal(sim_device_poke(rig.sim, "disk", 0, g_work, IMAGE_BYTES), 0);
		snprintf(g_where, sizeof(g_where), "HR_SIM_SEED=%llu, after those before it\n",
			 (unsigned long long)i);
		for (int life = 0; life < 2 && try_open(&rig) == 0; life++) {
			use(&rig, &prng);
			rig_close(&rig);
			opened++;
		}
	}
	g_where[0] = 0;
	assert_true(opened > count / 4);
	io_destroy(rig.io);
	sim_destroy(rig.sim);
	free(g_image);
	free(g_work);
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_images) };

	signal(SIGABRT, on_abort);
	atexit(seed_say);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
