/* engine_model.c — a shard's store with everything under way at once, against a model of what callers may see.
 *
 * What:       one seed drives PUTs (of one part and of many, at both levels, replacing or not, with TTL, pinned, under a quota), GETs that are held,
 *             cancelled and borrowed, EXISTS with leases, RELEASE, TOUCH, DELETE, PREFETCH, LIST, drops, owners that go with unfinished parts,
 *             stops, power cuts and I/O errors, on a device and an arena so small that reclaim always works and memory runs out.
 * Checked:    never wrong bytes, nor bytes of two PUTs in one block; the first to complete wins; what was deleted, replaced or dropped never comes
 *             back, whatever is evicted or restarted meanwhile; stable stays until it is evicted, deleted, replaced, dropped or expires; a leased
 *             block stays for its lease and a pinned one for good; each operation is answered once; at quiet moments engine_check() holds, and usage and LIST say
 *             what EXISTS says.
 * How:        each PUT of a key is a version with bytes of its own. Every call and answer has a number; a version is dead from the
 *             number at which something that ended it was answered. Who asked earlier may still see it.
 * Longer:     HR_SIM_SEED (the first), HR_SIM_COUNT (how many), HR_SIM_STEPS.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/crc.h"
#include "base/prng.h"
#include "engine/engine_impl.h"
#include "engine/superblock.h"
#include "io/sim.h"

enum {
	SPACES = 3,
	KEYS = 30,
	OWNERS = 4,
	VERSIONS_MAX = 600,
	OPS_MAX = 40,
	PARTS_MAX = 8,
	HELD_MAX = 12,
	WAIT_US = 120 * 1000000,
	COUNT_DEFAULT = 40,
	STEPS_DEFAULT = 5000,
};

#define NEVER UINT64_MAX

enum fate { UNKNOWN, PUBLISHED, REFUSED };

struct version {
	uint64_t bytes;
	uint64_t birth; /* 0: not known */
	uint64_t begun, answered;
	uint64_t expiry_from_ms, expiry_to_ms; /* between these it may have passed; 0: never */
	uint64_t dead, evicted; /* seen so in this life of the engine, at that number; NEVER: not */
	bool dead_for_ever;
	bool stable, pinned;
	bool uncertain; /* something else of the key was under way with it */
	enum fate fate;
};

struct key {
	struct version versions[VERSIONS_MAX];
	unsigned count;
	unsigned changing; /* operations under way that may end a version */
	uint64_t changed;  /* when one of them was begun or answered, last */
	uint64_t leased;   /* when the lease was granted; NEVER: none */
	uint64_t lease_until_us;
	unsigned lease_owner;
};

enum op_kind { OP_PUT, OP_GET, OP_DELETE, OP_LIST, OP_SPACE };

struct op;
struct part {
	struct op *op;
	struct engine_put *put;
	bool committed, answered;
};

struct op {
	enum op_kind kind;
	struct world *world;
	bool used;
	unsigned space, key, version, owner;
	uint64_t begun;
	/* PUT */
	struct engine_put_args args;
	struct part parts[PARTS_MAX];
	unsigned parts_count, parts_open, waiting;
	bool refused, unknown, decided, spoilt;
	uint64_t birth;
	/* GET: allocated by itself, so that a use after its end is seen */
	struct engine_get *get;
	unsigned part, version_first;
	uint64_t birth_first, part_bytes_first;
	bool held;
	/* LIST */
	uint64_t cursor;
	bool seen[KEYS];
	unsigned *seen_count;
};

struct world {
	struct sim *sim;
	struct io *io;
	struct io_device *device;
	struct superblock slices[SLICES_MAX];
	struct engine *engine;
	struct engine_options options;
	struct prng prng;
	uint64_t seed, number; /* of the last call or answer */
	unsigned step;
	struct space_row *rows[SPACES];
	bool dropping[SPACES];
	struct engine_owner *owners[OWNERS];
	struct key keys[SPACES][KEYS];
	struct op ops[OPS_MAX];
	unsigned ops_now, held_now;
	uint64_t put_number;
	bool errors; /* injected in this life */
	bool down;   /* on_failed() said so */
	bool stopping;
	bool interrupted; /* the last open was the second one */
	bool calm;	  /* gets end with the part they are at, and keep nothing */
	uint64_t hits, misses, restarts, cuts;
	uint8_t *scratch, *scratch_want;
};

static struct world *world_now;

static void __attribute__((noreturn, format(printf, 1, 2))) broken(const char *format, ...)
{
	va_list args;

	fprintf(stderr,
		"HR_SIM_SEED=%llu HR_SIM_COUNT=1, step %u: ", (unsigned long long)world_now->seed,
		world_now->step);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n");
	world_now = NULL;
	abort();
}

#define CHECK(cond, ...)                                                                           \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			broken(__VA_ARGS__);                                                       \
		}                                                                                  \
	} while (0)

/* An assertion of the engine itself does not know the seed. Made before each step: the handler may only write it. */
static char where_now[80];

static void
on_abort(int sig)
{
	(void)sig;
	if (world_now != NULL) {
		(void)!write(STDERR_FILENO, where_now, sizeof(where_now));
	}
}

static uint64_t
below(struct world *w, uint64_t n)
{
	return prng_below(&w->prng, n);
}

static bool
chance(struct world *w, uint64_t in_thousand)
{
	return below(w, 1000) < in_thousand;
}

static bool
never(void *arg)
{
	(void)arg;
	return false;
}

static void
pass(struct world *w, uint64_t us)
{
	sim_run(w->sim, never, NULL, us);
}

static const uint8_t *
tenant_of(unsigned space)
{
	static const uint8_t tenants[2][16] = { { 0 }, { 7 } };

	return tenants[space == 2];
}

static void
id_make(unsigned space, unsigned key, uint8_t id[16])
{
	put_le64(id, (space * KEYS + key + 1) * UINT64_C(0x9e3779b97f4a7c15));
	put_le64(id + 8, space * 1000 + key);
}

static unsigned
key_of_id(unsigned space, const uint8_t id[16])
{
	return (unsigned)(get_le64(id + 8) - space * 1000);
}

/* off: a multiple of 8. */
static void
bytes_make(unsigned space, unsigned key, unsigned version, uint64_t off, uint8_t *buf, size_t len)
{
	uint64_t base = ((uint64_t)space << 48 | (uint64_t)key << 32 | (version + 1)) *
			UINT64_C(0xd6e8feb86659fd93);
	size_t i = 0;

	for (; i < len; i += 8) {
		uint64_t word = (base + (off + i)) * UINT64_C(0x9e3779b97f4a7c15);

		word ^= word >> 29;
		memcpy(buf + i, &word, HR_MIN(len - i, (size_t)8));
	}
}

static uint64_t
part_len(const struct world *w, uint64_t bytes, unsigned part)
{
	uint64_t part_bytes = w->slices[0].part_bytes;

	return HR_MIN(part_bytes, bytes - part * part_bytes);
}

static struct op *
op_take(struct world *w, enum op_kind kind, unsigned space, unsigned key)
{
	for (unsigned i = 0; i < OPS_MAX; i++) {
		struct op *op = &w->ops[i];

		if (!op->used) {
			*op = (struct op){ .kind = kind,
					   .world = w,
					   .used = true,
					   .space = space,
					   .key = key,
					   .begun = ++w->number };
			w->ops_now++;
			return op;
		}
	}
	return NULL;
}

static void
op_end(struct op *op)
{
	CHECK(op->used, "answered twice");
	op->used = false;
	op->world->ops_now--;
}

static void
changing_begin(struct world *w, struct key *k)
{
	k->changing++;
	k->changed = w->number;
	for (unsigned i = 0; i < k->count && k->changing > 1; i++) {
		k->versions[i].uncertain |= k->versions[i].answered == 0;
	}
}

static void
changing_end(struct world *w, struct key *k)
{
	k->changing--;
	k->changed = ++w->number;
}

/* ---- what may be seen ---- */

/* What had been answered before `before` is over. */
static void
versions_end(struct key *k, uint64_t before, uint64_t now, bool for_ever)
{
	for (unsigned i = 0; i < k->count; i++) {
		struct version *v = &k->versions[i];

		if (v->answered != 0 && v->answered < before) {
			v->dead = HR_MIN(v->dead, now);
			v->dead_for_ever |= for_ever;
		}
	}
}

static bool
may_be_expired(const struct world *w, const struct version *v)
{
	return v->expiry_from_ms != 0 && io_wall_ms(w->io) >= v->expiry_from_ms;
}

static bool
is_expired(uint64_t at_ms, const struct version *v)
{
	return v->expiry_to_ms != 0 && at_ms >= v->expiry_to_ms;
}

/* The version that must be there, as far as the model knows: NULL when there is none or it is not certain. */
static struct version *
certain(const struct world *w, struct key *k, uint64_t asked)
{
	struct version *found = NULL;

	if (k->changing > 0 || k->changed >= asked) {
		return NULL;
	}
	for (unsigned i = 0; i < k->count; i++) {
		struct version *v = &k->versions[i];

		if (v->fate == PUBLISHED && v->answered < asked && v->dead == NEVER &&
		    !v->dead_for_ever && v->evicted == NEVER) {
			if (found != NULL) {
				return NULL;
			}
			found = v;
		}
	}
	return found != NULL && !found->uncertain && !may_be_expired(w, found) ? found : NULL;
}

static void
miss_check(struct world *w, unsigned space, unsigned key, uint64_t asked, uint8_t reason)
{
	struct key *k = &w->keys[space][key];
	struct version *v = certain(w, k, asked);
	uint64_t now = ++w->number;
	struct engine_stat stat;
	bool kept;
	bool leased = k->leased != NEVER && k->leased < asked &&
		      k->lease_until_us > sim_now_us(w->sim);

	w->misses++;
	if (reason == HR_REASON_BUSY || reason == HR_REASON_DEADLINE) {
		return;
	}
	if (reason == HR_REASON_DOWN) {
		CHECK(w->down || w->stopping, "down while it runs");
		return;
	}
	if (v != NULL && !w->errors) {
		CHECK(reason == HR_REASON_EVICTED || reason == HR_REASON_QUOTA,
		      "space %u key %u: reason %u for what is there", space, key, reason);
		engine_stat_get(w->engine, &stat);
		kept = stat.reclaim_evicted_kept == 0; /* Without a free segment nothing is. */
		CHECK(!leased || !kept, "space %u key %u: leased, and evicted", space, key);
		CHECK(!v->pinned || !kept, "space %u key %u: pinned, and evicted", space, key);
	}
	CHECK(reason != HR_REASON_CORRUPT || w->errors, "corrupt without an error");
	for (unsigned i = 0; i < k->count; i++) {
		v = &k->versions[i];
		if (v->answered == 0 || v->answered >= asked) {
			continue;
		}
		v->evicted = HR_MIN(v->evicted, now);
	}
}

/* Bytes of this version were seen by who asked at that number. */
static void
hit_check(struct world *w, unsigned space, unsigned key, unsigned version, uint64_t asked,
	  uint64_t asked_ms)
{
	struct key *k = &w->keys[space][key];
	struct version *v = &k->versions[version];

	w->hits++;
	CHECK(v->fate != REFUSED, "space %u key %u: version %u was refused", space, key, version);
	CHECK(!v->dead_for_ever || v->dead >= asked, "space %u key %u: version %u came back", space,
	      key, version);
	CHECK(v->dead >= asked, "space %u key %u: version %u is dead", space, key, version);
	CHECK(v->evicted >= asked, "space %u key %u: version %u was gone", space, key, version);
	CHECK(!is_expired(asked_ms, v), "space %u key %u: version %u has expired", space, key,
	      version);
	if (k->changing == 0 && k->changed < asked) {
		v->uncertain = false;
	}
}

/* ---- PUT ---- */

static void
published(struct world *w, struct op *op)
{
	struct key *k = &w->keys[op->space][op->key];
	struct version *v = &k->versions[op->version];
	bool stable = op->args.ack == HR_ACK_STABLE;

	v->fate = PUBLISHED;
	v->birth = op->birth;
	v->stable = stable;
	for (unsigned i = 0; i < k->count; i++) {
		struct version *other = &k->versions[i];

		if (other == v || other->birth == 0 || other->dead_for_ever) {
			continue;
		}
		CHECK(other->birth != v->birth, "two of one birth");
		if (other->birth < v->birth) {
			other->dead = HR_MIN(other->dead, w->number);
			other->dead_for_ever |= stable;
		} else if (other->fate == PUBLISHED) {
			v->dead = HR_MIN(v->dead, w->number);
			v->dead_for_ever |= other->stable;
		}
	}
}

static void
put_end(struct op *op)
{
	struct world *w = op->world;
	struct key *k = &w->keys[op->space][op->key];
	struct version *v = &k->versions[op->version];
	uint64_t ttl_end = op->args.ttl_ms != 0 ? io_wall_ms(w->io) + op->args.ttl_ms : 0;

	changing_end(w, k);
	v->answered = w->number;
	v->expiry_to_ms = ttl_end;
	if (op->decided && !op->refused) {
		published(w, op);
	} else if (!op->unknown) {
		v->fate = REFUSED;
	}
	op_end(op);
}

static void
on_put(void *arg, const struct engine_put_result *result)
{
	struct part *part = arg;
	struct op *op = part->op;
	struct world *w = op->world;

	CHECK(op->used && op->kind == OP_PUT && part->committed && !part->answered, "put answered");
	part->answered = true;
	if (result->status != HR_STATUS_OK) {
		CHECK(result->status == HR_STATUS_REFUSED, "status %u", result->status);
		CHECK(op->spoilt || result->reason != HR_REASON_CORRUPT, "corrupt");
		CHECK(result->reason == HR_REASON_BUSY || result->reason == HR_REASON_DOWN ||
			  result->reason == HR_REASON_CORRUPT ||
			  result->reason == HR_REASON_QUOTA || result->reason == HR_REASON_CANCELLED,
		      "put refused for %u", result->reason);
		CHECK(result->reason != HR_REASON_DOWN || w->down || w->stopping, "put: down");
		op->refused = true;
		op->unknown |= result->reason == HR_REASON_DOWN;
	} else if (result->duplicate) {
		CHECK(!op->args.replace, "a duplicate, but it was to replace");
		CHECK(result->differs, "no two puts have the same bytes");
		op->refused = true;
	} else if (!result->held) {
		CHECK(!op->decided && result->birth != 0, "decided twice");
		op->decided = true;
		op->birth = result->birth;
	}
	op->parts_open--;
	if (op->parts_open == 0) {
		put_end(op);
	}
}

static void
part_commit(struct part *part)
{
	struct op *op = part->op;

	part->committed = true;
	op->waiting--;
	engine_put_commit(op->world->engine, part->put, on_put, part);
}

static void
put_fill(struct op *op, struct part *part, const uint8_t *bytes, size_t len)
{
	unsigned count;
	const struct iovec *iov = engine_put_iov(part->put, &count);
	size_t at = 0;

	for (unsigned i = 0; i < count; i++) {
		memcpy(iov[i].iov_base, bytes + at, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	CHECK(at == len, "room for %zu of %zu", at, len);
	if (op->spoilt) {
		((uint8_t *)iov[0].iov_base)[0] ^= 1;
	}
}

static enum hr_reason
part_begin(struct op *op, unsigned i, uint64_t bytes)
{
	struct world *w = op->world;
	struct engine_put_args *a = &op->args;
	struct part *part = &op->parts[i];
	uint32_t crcs[ENGINE_CRCS_MAX];
	size_t len = (size_t)part_len(w, bytes, i);
	struct iovec iov = { w->scratch, len };
	enum hr_reason reason;

	bytes_make(op->space, op->key, op->version, i * (uint64_t)w->slices[0].part_bytes,
		   w->scratch, len);
	a->part = (uint16_t)i;
	a->stored_bytes = (uint32_t)len;
	a->crcs_count = (uint32_t)crc32c_chunks(&iov, 1, 65536, crcs);
	a->crcs = crcs;
	*part = (struct part){ .op = op };
	reason = engine_put_begin(w->engine, a, &part->put);
	CHECK(reason == HR_REASON_NONE || reason == HR_REASON_BUSY || reason == HR_REASON_QUOTA ||
		  (reason == HR_REASON_DOWN && w->down),
	      "begin: %u", reason);
	if (reason == HR_REASON_NONE) {
		put_fill(op, part, w->scratch, len);
	}
	return reason;
}

static uint64_t
size_draw(struct world *w)
{
	uint64_t what = below(w, 100);

	if (what < 3) {
		return 0;
	}
	if (what < 40) {
		return 1 + below(w, 20000);
	}
	if (what < 85) {
		return 1 + below(w, 1 << 20);
	}
	return what < 96 ? (1 << 20) + 1 + below(w, 1 << 20) : 1 + below(w, 4 << 20);
}

static void
put_start(struct world *w)
{
	unsigned space = (unsigned)below(w, SPACES), key = (unsigned)below(w, KEYS);
	unsigned owner = (unsigned)below(w, OWNERS);
	struct key *k = &w->keys[space][key];
	uint64_t bytes = size_draw(w);
	struct version *v;
	struct op *op;
	uint64_t name = key;

	if (k->count == VERSIONS_MAX || w->owners[owner] == NULL ||
	    (op = op_take(w, OP_PUT, space, key)) == NULL) {
		return;
	}
	/* No two versions have the same bytes. */
	bytes = bytes == 0 && k->count == 0 ? 0 : HR_MAX(bytes, 16u);
	op->owner = owner;
	op->version = k->count++;
	op->spoilt = bytes > 0 && chance(w, 10);
	op->args = (struct engine_put_args){
		.space = w->rows[space],
		.owner = w->owners[owner],
		.route = key,
		.key = (const uint8_t *)&name,
		.key_bytes = sizeof(name),
		.block_bytes = bytes,
		.parts_count = (uint16_t)HR_MAX(1, div_round_up(bytes, w->slices[0].part_bytes)),
		.put_number = ++w->put_number,
		.ttl_ms = chance(w, 120) ? 1 + (uint32_t)below(w, 3000) : 0,
		.replace = chance(w, 400),
		.pinned = chance(w, 30),
		.ack = chance(w, 400) ? HR_ACK_STABLE : HR_ACK_RAM,
	};
	id_make(space, key, op->args.id);
	v = &k->versions[op->version];
	*v = (struct version){ .bytes = bytes,
			       .begun = op->begun,
			       .dead = NEVER,
			       .evicted = NEVER,
			       .pinned = op->args.pinned };
	v->expiry_from_ms = op->args.ttl_ms != 0 ? io_wall_ms(w->io) + op->args.ttl_ms : 0;
	changing_begin(w, k);
	op->parts_count = op->args.parts_count;
	for (unsigned i = 0; i < op->parts_count && !op->refused; i++) {
		op->refused = part_begin(op, i, bytes) != HR_REASON_NONE;
		if (!op->refused) {
			op->parts_open++;
			op->waiting++;
		}
	}
	/* A client that gives up, or never sends the rest. */
	for (unsigned i = op->parts_count; i-- > 0;) {
		struct part *part = &op->parts[i];

		if (part->put != NULL && (chance(w, 30) || (op->refused && chance(w, 500)))) {
			engine_put_abort(w->engine, part->put);
			part->put = NULL;
			op->refused = true;
			op->parts_open--;
			op->waiting--;
		}
	}
	if (op->parts_open == 0) {
		put_end(op);
		return;
	}
	for (unsigned i = 0; i < op->parts_count; i++) {
		if (op->parts[i].put != NULL && chance(w, op->parts_count == 1 ? 800 : 500)) {
			part_commit(&op->parts[i]);
		}
	}
}

/* Commits a part that was begun. */
static void
put_continue(struct world *w, bool all, unsigned owner)
{
	for (unsigned i = 0; i < OPS_MAX; i++) {
		struct op *op = &w->ops[i];

		for (unsigned p = 0; op->used && op->kind == OP_PUT && p < op->parts_count; p++) {
			struct part *part = &op->parts[p];

			if (part->put == NULL || part->committed ||
			    (owner != OWNERS && op->owner != owner) || (!all && !chance(w, 200))) {
				continue;
			}
			part_commit(part);
		}
	}
}

/* ---- GET ---- */

static void
entry_copy(struct world *w, const struct engine_get *get, uint8_t *to)
{
	struct iovec iov[ARENA_IOV_MAX];
	unsigned count = arena_iov_slice(&get->entry->buf, 0, get->entry->bytes, iov);

	(void)w;
	for (unsigned i = 0; i < count; i++) {
		memcpy(to, iov[i].iov_base, iov[i].iov_len);
		to += iov[i].iov_len;
	}
}

/* Whose bytes are they? */
static unsigned
get_version(struct op *op)
{
	struct world *w = op->world;
	struct key *k = &w->keys[op->space][op->key];
	struct engine_get *get = op->get;
	size_t len = get->entry->bytes;

	entry_copy(w, get, w->scratch);
	for (unsigned i = k->count; i-- > 0;) {
		struct version *v = &k->versions[i];

		if (v->bytes != get->len_block || part_len(w, v->bytes, op->part) != len) {
			continue;
		}
		bytes_make(op->space, op->key, i, op->part * (uint64_t)w->slices[0].part_bytes,
			   w->scratch_want, len);
		if (memcmp(w->scratch, w->scratch_want, len) == 0) {
			return i;
		}
	}
	broken("space %u key %u part %u: wrong bytes", op->space, op->key, op->part);
}

static void
get_end(struct op *op)
{
	free(op->get);
	op_end(op);
}

static void get_part(struct op *op);

static void
get_answered(struct op *op)
{
	struct world *w = op->world;
	struct engine_get *get = op->get;
	unsigned version;

	if (get->status != HR_STATUS_OK) {
		CHECK(get->status == HR_STATUS_MISS && get->entry == NULL, "status %u", get->status);
		miss_check(w, op->space, op->key, op->begun, get->reason);
		get_end(op);
		return;
	}
	version = get_version(op);
	hit_check(w, op->space, op->key, version, op->begun, op->birth /* wall time */);
	if (op->part == 0) {
		op->version_first = version;
		op->birth_first = get->birth;
	} else if (get->birth == op->birth_first) {
		CHECK(version == op->version_first, "space %u key %u: bytes of two blocks",
		      op->space, op->key);
	} else {
		engine_get_done(w->engine,
				get); /* Another block meanwhile: the client starts over. */
		get_end(op);
		return;
	}
	op->version = version;
	if (!w->calm && w->held_now < HELD_MAX && chance(w, 300)) {
		op->held = true;
		w->held_now++;
		return;
	}
	engine_get_done(w->engine, get);
	get_part(op);
}

static void
on_get(struct engine_get *get)
{
	struct op *op = get->arg;

	CHECK(op->used && op->kind == OP_GET && op->get == get && !op->held, "get answered");
	get_answered(op);
}

/* The next part, or the end. */
static void
get_part(struct op *op)
{
	struct world *w = op->world;
	struct engine_get *get = op->get;

	if (get != NULL) {
		op->part++;
		if (op->part * (uint64_t)w->slices[0].part_bytes >= get->len_block || w->calm) {
			get_end(op);
			return;
		}
		free(get);
	}
	op->begun = ++w->number;
	op->birth = io_wall_ms(w->io);
	op->get = calloc(1, sizeof(*op->get));
	*op->get = (struct engine_get){ .space = w->rows[op->space],
					.part = (uint16_t)op->part,
					.block_bytes = UINT64_MAX,
					.low_priority = op->key % 5 == 0,
					.cb = on_get,
					.arg = op };
	id_make(op->space, op->key, op->get->id);
	if (chance(w, 50)) {
		op->get->deadline_us = io_now_us(w->io) + below(w, 2000);
	}
	if (engine_get(w->engine, op->get)) {
		if (op->get->status == HR_STATUS_MISS && op->get->reason == HR_REASON_SIZE) {
			CHECK(op->part > 0, "size");
			get_end(op); /* Another block, and shorter. */
			return;
		}
		get_answered(op);
	}
}

static void
get_start(struct world *w)
{
	struct op *op = op_take(w, OP_GET, (unsigned)below(w, SPACES), (unsigned)below(w, KEYS));

	if (op != NULL) {
		get_part(op);
	}
}

static void
held_end(struct op *op)
{
	struct world *w = op->world;
	size_t len = op->get->entry->bytes;

	entry_copy(w, op->get, w->scratch);
	bytes_make(op->space, op->key, op->version, op->part * (uint64_t)w->slices[0].part_bytes,
		   w->scratch_want, len);
	CHECK(memcmp(w->scratch, w->scratch_want, len) == 0, "borrowed bytes changed");
	op->held = false;
	w->held_now--;
	engine_get_done(w->engine, op->get);
	get_part(op);
}

static void
gets_walk(struct world *w, bool all)
{
	for (unsigned i = 0; i < OPS_MAX; i++) {
		struct op *op = &w->ops[i];

		if (!op->used || op->kind != OP_GET || op->get == NULL) {
			continue;
		}
		if (op->held) {
			if (all || chance(w, 100)) {
				held_end(op);
			}
		} else if (chance(w, 20)) {
			engine_get_cancel(w->engine, op->get);
			get_end(op);
		}
	}
}

/* ---- the others ---- */

static struct version *
version_of_bytes(struct key *k, uint64_t bytes, uint64_t asked)
{
	for (unsigned i = k->count; i-- > 0;) {
		struct version *v = &k->versions[i];

		if (v->bytes == bytes && v->fate != REFUSED && v->dead >= asked &&
		    v->evicted >= asked) {
			return v;
		}
	}
	return NULL;
}

static bool
exists(struct world *w, unsigned space, unsigned key, uint32_t lease_ms, unsigned owner,
       struct engine_exists_result *ret)
{
	struct key *k = &w->keys[space][key];
	uint8_t id[16];

	id_make(space, key, id);
	w->number++;
	engine_exists(w->engine, w->rows[space], id, lease_ms, w->owners[owner], ret);
	if (!ret->present) {
		miss_check(w, space, key, w->number, ret->reason);
		return false;
	}
	CHECK(version_of_bytes(k, ret->block_bytes, w->number) != NULL,
	      "space %u key %u: %llu bytes, of nothing alive", space, key,
	      (unsigned long long)ret->block_bytes);
	if (ret->leased) {
		k->leased = w->number;
		k->lease_until_us =
		    HR_MAX(k->lease_until_us, sim_now_us(w->sim) + (uint64_t)lease_ms * 1000);
		k->lease_owner = owner;
	}
	return true;
}

static void
lookup(struct world *w)
{
	unsigned space = (unsigned)below(w, SPACES), key = (unsigned)below(w, KEYS);
	unsigned owner = (unsigned)below(w, OWNERS);
	uint64_t what = below(w, 100);
	struct engine_exists_result result;
	struct key *k = &w->keys[space][key];
	uint8_t id[16];
	uint8_t reason;

	id_make(space, key, id);
	if (what < 30) {
		(void)exists(w, space, key, 0, owner, &result);
	} else if (what < 60 && w->owners[owner] != NULL) {
		(void)exists(w, space, key, 1 + (uint32_t)below(w, 4000), owner, &result);
	} else if (what < 70 && w->owners[owner] != NULL) {
		engine_release(w->engine, w->rows[space], id, w->owners[owner]);
		if (k->lease_owner == owner) {
			k->leased = NEVER;
			k->lease_until_us = 0;
		}
	} else {
		w->number++;
		reason = what < 85 ? engine_touch(w->engine, w->rows[space], id)
				   : engine_prefetch(w->engine, w->rows[space], id);
		if (reason != HR_REASON_NONE) {
			miss_check(w, space, key, w->number, reason);
		}
	}
}

static void
on_delete(void *arg, uint8_t reason)
{
	struct op *op = arg;
	struct world *w = op->world;
	struct key *k = &w->keys[op->space][op->key];

	CHECK(op->used && op->kind == OP_DELETE, "delete answered");
	changing_end(w, k);
	if (reason != HR_REASON_BUSY && reason != HR_REASON_DOWN) {
		versions_end(k, op->begun, w->number, op->args.ack == HR_ACK_STABLE);
	}
	op_end(op);
}

static void
delete_start(struct world *w)
{
	struct op *op = op_take(w, OP_DELETE, (unsigned)below(w, SPACES), (unsigned)below(w, KEYS));
	uint8_t id[16];

	if (op == NULL) {
		return;
	}
	id_make(op->space, op->key, id);
	op->args.ack = chance(w, 700) ? HR_ACK_STABLE : HR_ACK_RAM;
	changing_begin(w, &w->keys[op->space][op->key]);
	engine_delete(w->engine, w->rows[op->space], id, op->args.ack, on_delete, op);
}

/* Moves when reclaim takes or carries anything. */
static uint64_t
carried_count(const struct world *w)
{
	struct engine_stat stat;

	engine_stat_get(w->engine, &stat);
	return stat.reclaim_survivor_records + stat.reclaim_evicted_blocks;
}

static void
on_list(void *arg, int rc, uint64_t next, const struct engine_list_entry *entries, uint32_t count)
{
	struct op *op = arg;
	struct world *w = op->world;

	CHECK(op->used && op->kind == OP_LIST, "list answered");
	for (uint32_t i = 0; i < count; i++) {
		const struct engine_list_entry *e = &entries[i];
		unsigned key = key_of_id(op->space, e->id);

		CHECK(key < KEYS && e->key_bytes == 8 && get_le64(e->key) == key, "list: key %u",
		      key);
		CHECK(version_of_bytes(&w->keys[op->space][key], e->block_bytes, op->begun) != NULL,
		      "list: space %u key %u is not there", op->space, key);
		CHECK(e->expiry_ms == 0 || e->expiry_ms > op->birth, "list: key %u has expired",
		      key);
		if (op->seen_count != NULL) {
			/* What reclaim carries on behind the cursor meanwhile is seen again. */
			CHECK(!op->seen[key] || carried_count(w) != op->birth_first,
			      "list: key %u twice", key);
			*op->seen_count += !op->seen[key];
			op->seen[key] = true;
		}
	}
	op->cursor = next;
	if (rc != 0 || next == 0 || w->stopping) {
		op_end(op);
	} else {
		engine_list(w->engine, w->rows[op->space], next, 1 + (uint32_t)below(w, 20),
			    on_list, op);
	}
}

static struct op *
list_start(struct world *w, unsigned space, unsigned *seen_count)
{
	struct op *op = op_take(w, OP_LIST, space, 0);

	if (op != NULL) {
		op->seen_count = seen_count;
		op->birth = io_wall_ms(w->io);
		op->birth_first = carried_count(w);
		engine_list(w->engine, w->rows[space], 0, 1 + (uint32_t)below(w, 20), on_list, op);
	}
	return op;
}

static void
on_dropped(void *arg, int rc, struct space_row *row)
{
	struct op *op = arg;
	struct world *w = op->world;

	(void)row;
	CHECK(op->used && op->kind == OP_SPACE, "drop answered");
	for (unsigned key = 0; key < KEYS; key++) {
		struct key *k = &w->keys[op->space][key];

		changing_end(w, k);
		if (rc == 0) {
			versions_end(k, op->begun, w->number, true);
		}
	}
	w->dropping[op->space] = false;
	op_end(op);
}

static void
drop_start(struct world *w)
{
	unsigned space = (unsigned)below(w, SPACES);
	struct op *op = w->dropping[space] ? NULL : op_take(w, OP_SPACE, space, 0);

	if (op == NULL) {
		return;
	}
	w->dropping[space] = true;
	for (unsigned key = 0; key < KEYS; key++) {
		struct key *k = &w->keys[space][key];

		changing_begin(w, k);
		k->leased = NEVER;
		k->lease_until_us = 0;
		versions_end(k, op->begun, w->number, false); /* Gone at once. */
	}
	engine_space_drop(w->engine, w->rows[space], on_dropped, op);
}

static void
on_set(void *arg, int rc, struct space_row *row)
{
	(void)rc;
	(void)row;
	op_end(arg);
}

static void
quota_change(struct world *w)
{
	unsigned space = (unsigned)below(w, SPACES);
	struct op *op = op_take(w, OP_SPACE, space, 0);

	if (op != NULL) {
		engine_space_set(w->engine, w->rows[space],
				 chance(w, 800) ? 0 : (8 << 20) + below(w, 16 << 20),
				 below(w, 6 << 20), on_set, op);
	}
}

static void
owner_change(struct world *w)
{
	unsigned i = (unsigned)below(w, OWNERS);

	if (w->owners[i] == NULL) {
		CHECK(engine_owner_create(w->engine,
					  engine_tenant_number(w->engine, tenant_of(i % SPACES)),
					  &w->owners[i]) == 0,
		      "owner");
		return;
	}
	/* As a session does: what it has begun is given to the engine or aborted before, what the engine has goes on. */
	put_continue(w, true, i);
	engine_owner_destroy(w->engine, w->owners[i]);
	w->owners[i] = NULL;
	for (unsigned s = 0; s < SPACES; s++) {
		for (unsigned key = 0; key < KEYS; key++) {
			if (w->keys[s][key].lease_owner == i) {
				w->keys[s][key].leased = NEVER;
				w->keys[s][key].lease_until_us = 0;
			}
		}
	}
}

/* ---- quiet moments ---- */

static bool
nothing_under_way(void *arg)
{
	struct world *w = arg;

	return w->ops_now == 0;
}

static bool
nothing_at_all(void *arg)
{
	struct world *w = arg;

	return w->ops_now == 0 && (reclaim_idle(w->engine) || w->down) && w->engine->async_now == 0;
}

static void
space_check(struct world *w, unsigned space)
{
	struct engine_exists_result result;
	uint64_t bytes = 0;
	unsigned count = 0, listed = 0;
	uint64_t carried = carried_count(w);
	bool some_expired = false;

	for (unsigned key = 0; key < KEYS; key++) {
		if (exists(w, space, key, 0, 0, &result)) {
			bytes += result.block_bytes;
			count++;
		}
		some_expired |= result.reason == HR_REASON_EXPIRED;
	}
	if (!some_expired) {
		CHECK(w->rows[space]->usage_blocks == count, "space %u: usage %llu blocks, %u exist",
		      space, (unsigned long long)w->rows[space]->usage_blocks, count);
		CHECK(w->rows[space]->usage_bytes == bytes, "space %u: usage", space);
	}
	if (list_start(w, space, &listed) == NULL) {
		return;
	}
	CHECK(sim_run(w->sim, nothing_under_way, w, WAIT_US), "a list without an answer");
	for (unsigned key = 0; key < KEYS; key++) {
		some_expired |= !exists(w, space, key, 0, 0, &result) &&
				result.reason == HR_REASON_EXPIRED; /* Meanwhile. */
	}
	if (!some_expired && !w->errors && carried_count(w) == carried) {
		CHECK(listed == count, "space %u: %u listed, %u exist", space, listed, count);
	}
}

static void
quiet(struct world *w)
{
	w->calm = true;
	gets_walk(w, true);
	put_continue(w, true, OWNERS);
	CHECK(sim_run(w->sim, nothing_under_way, w, WAIT_US), "%u without an answer", w->ops_now);
	CHECK(sim_run(w->sim, nothing_at_all, w, WAIT_US), "it does not come to rest");
	w->calm = false;
	if (w->down) {
		return;
	}
	engine_check(w->engine);
	/* LIST begins with a flush, which may meet the error that was injected. */
	for (unsigned s = 0; s < SPACES && !w->down; s++) {
		space_check(w, s);
	}
}

/* ---- lives of the engine ---- */

struct wait {
	bool done;
	int rc;
	struct space_row *row;
};

static bool
wait_done(void *arg)
{
	return ((struct wait *)arg)->done;
}

static void
on_ready(void *arg, int rc, const struct recover_result *result)
{
	(void)result;
	*(struct wait *)arg = (struct wait){ .done = true, .rc = rc };
}

static void
on_space(void *arg, int rc, struct space_row *row)
{
	*(struct wait *)arg = (struct wait){ .done = true, .rc = rc, .row = row };
}

static void
on_stopped(void *arg)
{
	((struct wait *)arg)->done = true;
}

static void
on_failed(void *arg, int rc)
{
	struct world *w = arg;

	CHECK(!w->down && rc < 0, "failed twice");
	CHECK(w->errors, "failed without an error: %d", rc);
	w->down = true;
}

static void
engine_open(struct world *w)
{
	char detail[DETAIL_BYTES] = "";
	struct wait wait = { 0 };
	uint32_t count;

	CHECK(io_device_open(w->io, "disk", 0, &w->device) == 0, "device");
	CHECK(device_superblocks_read(w->io, w->device, w->slices, &count, detail) == 0, "%s",
	      detail);
	w->errors = w->down = w->stopping = w->calm = false;
	CHECK(engine_create(w->io, w->device, &w->slices[0], &w->options, &w->engine) == 0,
	      "create");
	CHECK(engine_start(w->engine, on_ready, &wait, detail) == 0, "%s", detail);
	if (chance(w, 150)) {
		/* Stopped before it has started. */
		struct wait stopped = { 0 };

		pass(w, below(w, 3000));
		engine_stop(w->engine, on_stopped, &stopped);
		CHECK(sim_run(w->sim, wait_done, &stopped, WAIT_US), "no stop while it starts");
		CHECK(wait.done, "no answer to the start");
		engine_destroy(w->engine);
		io_device_close(w->device);
		engine_open(w);
		w->interrupted = true;
		return;
	}
	CHECK(sim_run(w->sim, wait_done, &wait, WAIT_US) && wait.rc == 0, "start: %d", wait.rc);
	w->interrupted = false;
	for (unsigned s = 0; s < SPACES; s++) {
		uint8_t digest[32] = { (uint8_t)(s + 1) };

		wait = (struct wait){ 0 };
		engine_space_open(w->engine, tenant_of(s), digest, "model", on_space, &wait);
		CHECK(sim_run(w->sim, wait_done, &wait, WAIT_US) && wait.rc == 0, "space");
		w->rows[s] = wait.row;
		(void)engine_tenant_number(w->engine, tenant_of(s));
	}
}

static void
engine_close(struct world *w)
{
	struct wait wait = { 0 };

	w->stopping = w->calm = true;
	if (chance(w, 500)) {
		put_continue(w, true, OWNERS);
	}
	for (unsigned i = 0; i < OPS_MAX; i++) {
		struct op *op = &w->ops[i];

		for (unsigned p = 0; op->used && op->kind == OP_PUT && p < op->parts_count; p++) {
			if (op->parts[p].put != NULL && !op->parts[p].committed) {
				engine_put_abort(w->engine, op->parts[p].put);
				op->parts[p].put = NULL;
				op->refused = true;
				if (--op->parts_open == 0) {
					put_end(op);
					break;
				}
			}
		}
	}
	for (unsigned i = 0; i < OWNERS; i++) {
		engine_owner_destroy(w->engine, w->owners[i]);
		w->owners[i] = NULL;
	}
	engine_stop(w->engine, on_stopped, &wait);
	gets_walk(w, true);
	CHECK(sim_run(w->sim, wait_done, &wait, WAIT_US), "no stop: %u under way", w->ops_now);
	CHECK(w->ops_now == 0, "stopped, and %u without an answer", w->ops_now);
	engine_destroy(w->engine);
	io_device_close(w->device);
}

/* Which version a key has now; what was before it is over for good, for what a start finds is stable. */
static void
adopt(struct world *w, unsigned space, unsigned key, const bool must[SPACES][KEYS])
{
	struct key *k = &w->keys[space][key];
	uint64_t number = ++w->number, birth_max = 0;
	struct engine_exists_result result;
	uint8_t id[16];
	struct op *op;
	struct version *v;

	id_make(space, key, id);
	engine_exists(w->engine, w->rows[space], id, 0, NULL, &result);
	/* Reclaim works from the start on; of what it did in a life before this one nothing is known. */
	CHECK(result.present || !must[space][key] || w->interrupted ||
		  result.reason == HR_REASON_EVICTED,
	      "space %u key %u: stable, and lost (reason %u)", space, key, result.reason);
	for (unsigned i = 0; i < k->count; i++) {
		birth_max = HR_MAX(birth_max, k->versions[i].birth);
	}
	if (!result.present) {
		for (unsigned i = 0; i < k->count; i++) {
			struct version *gone = &k->versions[i];

			if (result.reason == HR_REASON_EVICTED) {
				gone->evicted = HR_MIN(gone->evicted, number);
			} else {
				gone->dead_for_ever = true;
				gone->dead = HR_MIN(gone->dead, number);
			}
		}
		return;
	}
	op = op_take(w, OP_GET, space, key);
	w->calm = true;
	op->version_first = UINT32_MAX;
	get_part(op);
	CHECK(sim_run(w->sim, nothing_under_way, w, WAIT_US), "get");
	w->calm = false;
	if (op->version_first == UINT32_MAX) {
		return; /* Busy, or its deadline passed: nothing is known. */
	}
	v = &k->versions[op->version];
	v->fate = PUBLISHED;
	v->birth = v->birth != 0 ? v->birth : birth_max + 1;
	v->stable = true;
	for (unsigned i = 0; i < k->count; i++) {
		struct version *other = &k->versions[i];

		if (other != v) {
			other->dead_for_ever = true;
			other->dead = HR_MIN(other->dead, w->number);
		}
	}
}

static void
restart(struct world *w, bool cut)
{
	static bool must[SPACES][KEYS];
	bool clean;

	w->restarts++;
	w->cuts += cut;
	memset(must, 0, sizeof(must));
	for (unsigned s = 0; s < SPACES; s++) {
		for (unsigned key = 0; key < KEYS; key++) {
			struct key *k = &w->keys[s][key];
			struct version *v = certain(w, k, ++w->number);
			struct engine_exists_result result;
			uint8_t id[16];

			if (v == NULL || (cut && !v->stable) || v->expiry_from_ms != 0 ||
			    w->errors) {
				continue;
			}
			id_make(s, key, id);
			engine_exists(w->engine, w->rows[s], id, 0, NULL, &result);
			must[s][key] = result.present;
		}
	}
	if (cut) {
		sim_power_cut(w->sim, "disk", SIM_CUT_DROP | SIM_CUT_TEAR | SIM_CUT_GARBLE);
		sim_device_gone(w->sim, "disk", true);
		w->errors = true;
	}
	sim_device_fail_nth(w->sim, "disk", 0, 0, false);
	engine_close(w);
	clean = !w->errors;
	sim_device_gone(w->sim, "disk", false);
	for (unsigned s = 0; s < SPACES; s++) {
		w->dropping[s] = false;
		for (unsigned key = 0; key < KEYS; key++) {
			struct key *k = &w->keys[s][key];

			CHECK(k->changing == 0, "changing");
			k->leased = NEVER;
			k->lease_until_us = 0;
			for (unsigned i = 0; i < k->count; i++) {
				struct version *v = &k->versions[i];

				v->dead_for_ever |= clean && v->dead != NEVER &&
						    v->evicted > v->dead;
				v->dead = v->dead_for_ever ? 0 : NEVER;
				v->evicted =
				    NEVER; /* It may come back: its segment may not have been freed yet. */
				v->answered = v->answered != 0 ? v->answered : w->number;
			}
			k->changed = w->number;
		}
	}
	w->number++;
	engine_open(w);
	for (unsigned s = 0; s < SPACES; s++) {
		for (unsigned key = 0; key < KEYS; key++) {
			adopt(w, s, key, must);
		}
	}
	engine_check(w->engine);
}

static void
world_create(struct world *w, uint64_t seed)
{
	struct io_options io = { .disk = IO_DISK_SIM, .net = IO_NET_SIM };
	struct sim_device_options device = { .kind = SIM_DEVICE_BYTES, .block_device = true };
	struct format_options format = { .segment_bytes = MiB(8) };
	char detail[DETAIL_BYTES] = "";

	*w = (struct world){ .seed = seed };
	world_now = w;
	prng_init(&w->prng, seed);
	device.size_bytes = MiB(48) + below(w, 6) * MiB(8);
	device.latency_us_min = 10 + below(w, 50);
	device.latency_us_max = device.latency_us_min + (1 << below(w, 13));
	device.bytes_per_second = chance(w, 500) ? 0 : MiB(100) << below(w, 5);
	w->scratch = malloc(MiB(2));
	w->scratch_want = malloc(MiB(2));
	w->options = (struct engine_options){
		.dram_bytes = MiB(6) << below(w, 3),
		.reads_max = 1 + (uint32_t)below(w, 8),
		.reads_queued_max = 2 + (uint32_t)below(w, 16),
		.puts_max = 8 + (uint32_t)below(w, 30),
		.sync = below(w, 2) == 0 ? LOG_SYNC_FLUSH : LOG_SYNC_DSYNC,
		.on_failed = on_failed,
		.on_failed_arg = w,
	};
	for (unsigned s = 0; s < SPACES; s++) {
		for (unsigned key = 0; key < KEYS; key++) {
			w->keys[s][key].leased = NEVER;
		}
	}
	CHECK(sim_create(seed, &w->sim) == 0 && sim_device_add(w->sim, "disk", &device) == 0,
	      "world");
	io.sim = w->sim;
	CHECK(io_create(&io, &w->io) == 0, "io");
	CHECK(device_format(w->io, "disk", &format, detail) == 0, "%s", detail);
	engine_open(w);
}

static void
world_destroy(struct world *w)
{
	engine_close(w);
	io_destroy(w->io);
	sim_destroy(w->sim);
	free(w->scratch);
	free(w->scratch_want);
	world_now = NULL;
}

static void
step(struct world *w)
{
	uint64_t what = below(w, 1000);

	if (w->down || what < 2) {
		restart(w, !w->down && chance(w, 500));
	} else if (what < 6) {
		quiet(w);
	} else if (what < 7) {
		drop_start(w);
	} else if (what < 12) {
		quota_change(w);
	} else if (what < 30) {
		owner_change(w);
	} else if (what < 31) {
		w->errors = true;
		sim_device_fail_nth(w->sim, "disk", 1 + below(w, 50), -EIO, false);
	} else if (what < 400) {
		put_start(w);
	} else if (what < 600) {
		get_start(w);
	} else if (what < 800) {
		lookup(w);
	} else if (what < 830) {
		delete_start(w);
	} else if (what < 860) {
		(void)list_start(w, (unsigned)below(w, SPACES), NULL);
	} else {
		put_continue(w, false, OWNERS);
		gets_walk(w, false);
	}
	if (chance(w, 600)) {
		pass(w, 1 << below(w, 13));
	}
}

static void
run(uint64_t seed, unsigned steps)
{
	struct world *w = calloc(1, sizeof(*w));
	struct engine_stat stat;

	world_create(w, seed);
	for (w->step = 0; w->step < steps; w->step++) {
		snprintf(where_now, sizeof(where_now), "HR_SIM_SEED=%llu HR_SIM_COUNT=1, step %u\n",
			 (unsigned long long)seed, w->step);
		step(w);
	}
	if (!w->down) {
		quiet(w);
	}
	engine_stat_get(w->engine, &stat);
	if (getenv("HR_SIM_VERBOSE") != NULL) {
		fprintf(stderr,
			"seed %llu: %llu hits, %llu misses, %llu restarts, %llu cuts, %llu reclaims\n",
			(unsigned long long)seed, (unsigned long long)w->hits,
			(unsigned long long)w->misses, (unsigned long long)w->restarts,
			(unsigned long long)w->cuts, (unsigned long long)stat.reclaims);
	}
	world_destroy(w);
	free(w);
}

static uint64_t
from_environment(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

/* Method: above. */
static void
test_everything_at_once(void **state)
{
	uint64_t seed = from_environment("HR_SIM_SEED", 1);
	uint64_t count = from_environment("HR_SIM_COUNT", COUNT_DEFAULT);
	unsigned steps = (unsigned)from_environment("HR_SIM_STEPS", STEPS_DEFAULT);

	(void)state;
	signal(SIGABRT, on_abort);
	for (uint64_t i = 0; i < count; i++) {
		run(seed + i, steps);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_everything_at_once) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
