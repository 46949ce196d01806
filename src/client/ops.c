/* ops.c - items: cut into pieces and frames, put together again from answers.
 *
 * An item becomes one or more pieces: its parts, or (ALL_SHARDS) one question to each shard. Pieces of one item may be in several frames;
 * the item is decided when none is left. Every way out of an item goes through item_finish() and ops_item_decide().
 */
#include <openssl/crypto.h>

#include "base/crc.h"
#include "client/core_impl.h"

enum { FLAGS_IN_MASK = 0xffff, PART_NONE = -1 };

static void item_place(struct core *core, struct core_batch *batch, uint32_t idx);
static bool item_get_prepare(struct core_item *st, struct hr_item *item);

/* -- small helpers --------------------------------------------------------------------------------------------------------------- */

uint8_t
ops_reason_of_status(uint16_t status)
{
	switch (status) {
	case WIRE_BUSY:
	case WIRE_TOO_MANY:
	case WIRE_READ_ONLY:
		return HR_REASON_BUSY;
	case WIRE_TABLE_FULL:
		return HR_REASON_QUOTA;
	default:
		return HR_REASON_DOWN;
	}
}

static uint8_t
wire_op(uint8_t op)
{
	static const uint8_t ops[] = {
		[HR_OP_PUT] = WIRE_PUT,	      [HR_OP_GET] = WIRE_GET,
		[HR_OP_EXISTS] = WIRE_EXISTS, [HR_OP_TOUCH] = WIRE_TOUCH,
		[HR_OP_DELETE] = WIRE_DELETE, [HR_OP_PREFETCH] = WIRE_PREFETCH,
	};

	return ops[op];
}

/* What a failure that is no fault of the item is called, per operation. */
static uint8_t
fail_status(const struct core_batch *batch)
{
	return batch->op == HR_OP_PUT ? HR_STATUS_REFUSED : HR_STATUS_MISS;
}

/* Anything over the longest block is as good as one byte over it. */
static uint64_t
iov_sum(const struct iovec *iov, uint32_t count)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < count && sum <= HR_BLOCK_BYTES_MAX; i++) {
		sum += HR_MIN((uint64_t)iov[i].iov_len, HR_BLOCK_BYTES_MAX + 1);
	}
	return HR_MIN(sum, HR_BLOCK_BYTES_MAX + 1);
}

/* Walks [off, off + len) of a scattered buffer. */
typedef int (*iov_slice_fn)(void *arg, uint8_t *base, size_t len);
static int
iov_slice(const struct iovec *iov, uint32_t count, uint64_t off, uint64_t len, iov_slice_fn fn,
	  void *arg)
{
	for (uint32_t i = 0; i < count && len > 0; i++) {
		size_t n;
		int rc;

		if (off >= iov[i].iov_len) {
			off -= iov[i].iov_len;
			continue;
		}
		n = HR_MIN(iov[i].iov_len - off, len);
		rc = fn(arg, (uint8_t *)iov[i].iov_base + off, n);
		if (rc != 0) {
			return rc;
		}
		off = 0;
		len -= n;
	}
	return len == 0 ? 0 : -EINVAL;
}

/* -- an item's end --------------------------------------------------------------------------------------------------------------- */

static void
item_borrow_drop(struct core *core, struct core_item *st)
{
	if (st->borrow != NULL) {
		shm_borrow_free(core, st->borrow, true);
		st->borrow = NULL;
	}
}

static void
item_decide(struct core *core, struct core_batch *batch, uint32_t idx, uint8_t status,
	    uint8_t reason)
{
	struct core_item *st = &batch->states[idx];
	struct hr_item *item = batch_item(batch, idx);

	HR_ASSERT(!st->done);
	st->done = true;
	if (status != HR_STATUS_OK) {
		item_borrow_drop(core, st);
		item->bytes = 0;
		if (st->touched) {
			st->flags_out |= HR_ITEM_TOUCHED;
		}
		st->flags_out &= ~(uint32_t)(HR_ITEM_DRAM | HR_ITEM_FLASH);
	}
	item->status = status;
	item->reason = reason;
	item->flags |= st->flags_out;
	batch->left_count--;
	batch_check_done(core, batch);
}

static int
segment_cmp(const void *a, const void *b)
{
	const struct borrow_segment *x = a, *y = b;

	return x->part != y->part ? (x->part < y->part ? -1 : 1)
				  : (x->order > y->order) - (x->order < y->order);
}

/* The pages in the order of the block. */
static int
item_borrow_give(struct core *core, struct core_item *st, struct hr_item *item)
{
	struct borrow *borrow = st->borrow;

	if (borrow == NULL) { /* an empty block has no pages */
		return 0;
	}
	borrow->iov = calloc(HR_MAX(borrow->segments_count, 1u), sizeof(*borrow->iov));
	if (borrow->iov == NULL) {
		return -ENOMEM;
	}
	qsort(borrow->segments, borrow->segments_count, sizeof(*borrow->segments), segment_cmp);
	for (uint32_t i = 0; i < borrow->segments_count; i++) {
		borrow->iov[i] = borrow->segments[i].iov;
	}
	list_add_tail(&core->borrows, &borrow->link);
	core->stat.borrows_now++;
	item->borrowed = borrow->iov;
	item->borrowed_count = borrow->segments_count;
	item->borrow = (uint64_t)(uintptr_t)borrow;
	st->flags_out |= HR_ITEM_BORROWED;
	st->borrow = NULL;
	return 0;
}

static int
copy_out(void *arg, uint8_t *base, size_t len)
{
	uint8_t **from = arg;

	memcpy(base, *from, len);
	*from += len;
	return 0;
}

static void
item_get_ok(struct core *core, struct core_batch *batch, uint32_t idx)
{
	struct core_item *st = &batch->states[idx];
	struct hr_item *item = batch_item(batch, idx);
	uint8_t *from = st->staged;

	if (st->staged != NULL) {
		(void)iov_slice(item->iov, item->iov_count, 0, st->got, copy_out, &from);
	}
	if ((item->flags & HR_GET_BORROW) != 0 && item_borrow_give(core, st, item) != 0) {
		item_decide(core, batch, idx, HR_STATUS_MISS, HR_REASON_BUSY);
		return;
	}
	item->len = st->len;
	item->bytes = st->got;
	core->stat.bytes_got += st->got;
	item_decide(core, batch, idx, HR_STATUS_OK, HR_REASON_NONE);
}

/* Begins the item anew, as if nothing had been asked. */
static void
item_again(struct core *core, struct core_batch *batch, uint32_t idx)
{
	struct core_item *st = &batch->states[idx];
	struct hr_item *item = batch_item(batch, idx);

	item_borrow_drop(core, st);
	st->phase = ITEM_PLAIN;
	st->planned = false;
	st->failed = false;
	st->mixed = false;
	st->birth = 0;
	st->got = 0;
	st->flags_out = 0;
	if (batch->op == HR_OP_GET) {
		/* Length and range, which may have been cut to a block that has gone since. */
		(void)item_get_prepare(st, item);
	}
	item_place(core, batch, idx);
}

/* Part 0 has told the length: the rest, if there is one. False: nothing more to ask. */
static bool
item_learn_more(struct core *core, struct core_batch *batch, uint32_t idx, struct peer *peer)
{
	struct core_item *st = &batch->states[idx];
	uint64_t part_bytes = peer->hello.part_bytes;
	uint64_t end, first;

	if (st->off > st->len) {
		return false;
	}
	end = st->off + HR_MIN(st->want, st->len - st->off);
	first = HR_MAX(st->off / part_bytes, (uint64_t)1);
	st->want = end - st->off;
	if (end <= part_bytes || end <= first * part_bytes) {
		return false;
	}
	st->phase = ITEM_PLAIN;
	st->planned = true;
	st->part_first = (uint16_t)first;
	st->part_end = (uint16_t)div_round_up(end, part_bytes);
	st->pieces_left = st->part_end - st->part_first;
	item_place(core, batch, idx);
	return true;
}

static bool
op_idempotent(uint8_t op)
{
	return op == HR_OP_GET || op == HR_OP_EXISTS || op == HR_OP_TOUCH || op == HR_OP_PREFETCH;
}

static void
item_get_finish(struct core *core, struct core_batch *batch, uint32_t idx, struct peer *peer)
{
	struct core_item *st = &batch->states[idx];

	/* Parts of two births, or some parts of another length: the block was replaced while it was read. */
	if (st->failed && st->reason == HR_REASON_SIZE && st->birth != 0) {
		st->mixed = true;
	}
	if (st->mixed && !st->restarted) {
		st->restarted = true;
		core->stat.restarts_mixed_births++;
		item_again(core, batch, idx);
		return;
	}
	if (st->mixed) {
		item_decide(core, batch, idx, HR_STATUS_MISS, HR_REASON_ABSENT);
		return;
	}
	if (st->failed) {
		batch_item(batch, idx)->len = st->len_out;
		item_decide(core, batch, idx, st->status, st->reason);
		return;
	}
	if (st->phase == ITEM_LEARN) {
		if (st->off > st->len) {
			batch_item(batch, idx)->len = st->len;
			item_decide(core, batch, idx, HR_STATUS_INVALID, HR_REASON_NONE);
			return;
		}
		if (item_learn_more(core, batch, idx, peer)) {
			return;
		}
	}
	item_get_ok(core, batch, idx);
}

static void
item_ask_finish(struct core *core, struct core_batch *batch, uint32_t idx)
{
	struct core_item *st = &batch->states[idx];

	if (!st->found) {
		item_decide(core, batch, idx, st->status, st->reason);
		return;
	}
	if (batch->op != HR_OP_GET) {
		batch_item(batch, idx)->len = st->len_out;
		item_decide(core, batch, idx, HR_STATUS_OK, HR_REASON_NONE);
		return;
	}
	st->phase = ITEM_PLAIN;
	st->failed = false;
	item_place(core, batch, idx);
}

/* No piece of it is under way any more. */
static void
item_finish(struct core *core, struct core_batch *batch, uint32_t idx, struct peer *peer)
{
	struct core_item *st = &batch->states[idx];

	if (st->phase == ITEM_ASK) {
		item_ask_finish(core, batch, idx);
		return;
	}
	if (st->failed && st->reason == HR_REASON_DOWN && op_idempotent(batch->op) &&
	    batch_may_wait(core, batch)) {
		core->stat.retries_gap++;
		item_again(core, batch, idx);
		return;
	}
	switch (batch->op) {
	case HR_OP_GET:
		item_get_finish(core, batch, idx, peer);
		break;
	case HR_OP_PUT:
		if (!st->failed && !st->decided_put) {
			/* Every part is held and none decided the block: that is no answer. */
			item_decide(core, batch, idx, HR_STATUS_REFUSED, HR_REASON_BUSY);
			break;
		}
		/* fallthrough */
	default:
		if (st->failed) {
			item_decide(core, batch, idx, st->status, st->reason);
		} else {
			batch_item(batch, idx)->len = st->len_out;
			item_decide(core, batch, idx, HR_STATUS_OK, HR_REASON_NONE);
		}
		break;
	}
}

/* How much a reason says: a shard that is away hides the truth, a fact beats "absent". */
static unsigned
reason_rank(uint8_t reason)
{
	return reason == HR_REASON_DOWN || reason == HR_REASON_BUSY	? 3
	       : reason == HR_REASON_ABSENT || reason == HR_REASON_NONE ? 1
									: 2;
}

static void
pieces_failed(struct core *core, struct core_batch *batch, uint32_t idx, struct peer *peer,
	      uint32_t count, uint8_t status, uint8_t reason)
{
	struct core_item *st = &batch->states[idx];
	bool worse = !st->failed ||
		     (st->phase == ITEM_ASK && reason_rank(reason) > reason_rank(st->reason));

	HR_ASSERT(!st->done && st->pieces_left >= count);
	if (worse) {
		st->failed = true;
		st->status = status;
		st->reason = reason;
	}
	st->pieces_left -= count;
	if (st->pieces_left == 0) {
		item_finish(core, batch, idx, peer);
	}
}

static void
piece_ok(struct core *core, struct core_batch *batch, uint32_t idx, struct peer *peer)
{
	struct core_item *st = &batch->states[idx];

	HR_ASSERT(!st->done && st->pieces_left > 0);
	if (--st->pieces_left == 0) {
		item_finish(core, batch, idx, peer);
	}
}

/* -- a batch's beginning --------------------------------------------------------------------------------------------------------- */

static bool
item_get_prepare(struct core_item *st, struct hr_item *item)
{
	uint64_t sum = iov_sum(item->iov, item->iov_count);

	st->off = item->object_off;
	st->want = sum;
	st->len = item->expected_len;
	if ((item->flags & HR_GET_BORROW) != 0) {
		if (item->iov_count != 0) {
			return false;
		}
		st->len = item->expected_len == 0 ? HR_LEN_ANY : item->expected_len;
		st->want = HR_BLOCK_BYTES_MAX;
	} else if (item->expected_len == 0) {
		if (st->off > HR_BLOCK_BYTES_MAX) {
			return false;
		}
		st->len = st->off + sum;
	}
	if (st->off > HR_BLOCK_BYTES_MAX) {
		return false;
	}
	if (st->len != HR_LEN_ANY) {
		if (st->len > HR_BLOCK_BYTES_MAX || st->off > st->len) {
			return false;
		}
		if (st->want > st->len - st->off && (item->flags & HR_GET_BORROW) == 0) {
			return false; /* behind the end of a block whose length the caller knows */
		}
		st->want = HR_MIN(st->want, st->len - st->off);
	}
	return true;
}

static bool
item_prepare(struct core *core, struct core_batch *batch, struct core_item *st, struct hr_item *item)
{
	if (item->key == NULL || item->key_len == 0 || item->key_len > HR_KEY_BYTES_MAX ||
	    (item->iov_count > 0 && item->iov == NULL)) {
		return false;
	}
	if (batch->op == HR_OP_PUT) {
		st->len = iov_sum(item->iov, item->iov_count);
		if (st->len > HR_BLOCK_BYTES_MAX) {
			return false;
		}
		st->put_number = io_random_u64(core->io) | 1;
		st->len_out = st->len;
	} else if (batch->op == HR_OP_GET && !item_get_prepare(st, item)) {
		return false;
	}
	block_id_compute(&batch->space->prefix, item->key, item->key_len, st->id);
	st->route = (item->flags & HR_ITEM_ROUTE) != 0 ? item->route : get_le64(st->id);
	return true;
}

void
ops_batch_start(struct core *core, struct core_batch *batch)
{
	batch->states = calloc(batch->items_count, sizeof(*batch->states));
	for (uint32_t i = 0; i < batch->items_count; i++) {
		struct hr_item *item = batch_item(batch, i);

		item->flags &= FLAGS_IN_MASK;
		item->status = fail_status(batch);
		item->reason = HR_REASON_BUSY;
		item->len = 0;
		item->bytes = 0;
		item->borrowed = NULL;
		item->borrowed_count = 0;
		item->borrow = 0;
	}
	if (batch->states == NULL) {
		batch->left_count = 0; /* all busy, as set above */
		batch_check_done(core, batch);
		return;
	}
	for (uint32_t i = 0; i < batch->items_count; i++) {
		if (!item_prepare(core, batch, &batch->states[i], batch_item(batch, i))) {
			item_decide(core, batch, i, HR_STATUS_INVALID, HR_REASON_NONE);
		}
	}
	batch_check_done(core, batch);
}

void
ops_batch_fail(struct core *core, struct core_batch *batch, uint8_t reason)
{
	for (uint32_t i = 0; i < batch->items_count && !batch->finished; i++) {
		if (!batch->states[i].done) {
			item_decide(core, batch, i, fail_status(batch), reason);
		}
	}
}

void
ops_batch_free(struct core *core, struct core_batch *batch)
{
	for (uint32_t i = 0; batch->states != NULL && i < batch->items_count; i++) {
		free(batch->states[i].staged);
		item_borrow_drop(core, &batch->states[i]);
	}
	free(batch->states);
	batch->states = NULL;
}

/* -- groups ---------------------------------------------------------------------------------------------------------------------- */

void
ops_group_free(struct group *group)
{
	list_del(&group->link);
	list_del(&group->batch_link);
	free(group);
}

void
ops_group_fail(struct core *core, struct group *group, uint8_t reason)
{
	struct core_batch *batch = group->batch;

	list_del(&group->link);
	list_del(&group->batch_link);
	for (uint32_t i = group->next; i < group->count; i++) {
		uint32_t idx = group->idx[i];
		struct core_item *st = &batch->states[idx];
		uint32_t count = 1;

		if (st->done) {
			continue;
		}
		if (st->phase != ITEM_ASK && !st->planned) {
			st->pieces_left = 1;
		} else if (st->phase != ITEM_ASK && i == group->next &&
			   group->part_next != UINT32_MAX) {
			count = st->part_end - group->part_next;
		} else if (st->phase != ITEM_ASK) {
			count = st->part_end - st->part_first;
		}
		pieces_failed(core, batch, idx, group->peer, count, fail_status(batch), reason);
	}
	free(group);
}

static void
group_add(struct core *core, struct core_batch *batch, struct peer *peer, uint8_t op,
	  const uint32_t *idx, uint32_t count)
{
	struct group *group;

	if (count == 0) {
		return;
	}
	group = malloc(sizeof(*group) + count * sizeof(group->idx[0]));
	if (group == NULL) {
		for (uint32_t i = 0; i < count; i++) {
			if (!batch->states[idx[i]].done) {
				item_decide(core, batch, idx[i], fail_status(batch), HR_REASON_BUSY);
			}
		}
		return;
	}
	*group = (struct group){
		.peer = peer, .batch = batch, .op = op, .count = count, .part_next = UINT32_MAX
	};
	memcpy(group->idx, idx, count * sizeof(group->idx[0]));
	list_init(&group->link);
	list_init(&group->batch_link);
	if (peer_down(peer) && !batch_may_wait(core, batch)) {
		ops_group_fail(core, group, HR_REASON_DOWN);
		return;
	}
	list_add_tail(&peer->groups[batch->priority], &group->link);
	list_add_tail(&batch->groups, &group->batch_link);
	peer_want(peer);
}

static struct peer *
peer_of_item(struct core *core, const struct core_item *st)
{
	if (st->found) {
		for (unsigned i = 0; i < core->peers_count; i++) {
			if (memcmp(core->peers[i]->uuid, st->found_uuid, 16) == 0) {
				return core->peers[i];
			}
		}
	}
	return core_owner(core, st->route);
}

/* One item, on its own. */
static void
item_place(struct core *core, struct core_batch *batch, uint32_t idx)
{
	struct peer *peer = peer_of_item(core, &batch->states[idx]);

	if (peer == NULL) {
		item_decide(core, batch, idx, fail_status(batch), HR_REASON_DOWN);
		return;
	}
	group_add(core, batch, peer, wire_op(batch->op), &idx, 1);
}

static bool
item_asks_all(const struct core *core, const struct core_batch *batch, uint32_t idx)
{
	return core->peers_count > 1 && batch->op != HR_OP_PUT &&
	       (batch_item(batch, idx)->flags & HR_ITEM_ALL_SHARDS) != 0;
}

void
ops_batch_place(struct core *core, struct core_batch *batch)
{
	uint32_t *list = malloc(batch->items_count * sizeof(*list));
	uint16_t *owner = malloc(batch->items_count * sizeof(*owner));
	unsigned peers_count = core->peers_count;
	uint32_t n;

	if (list == NULL || owner == NULL) {
		ops_batch_fail(core, batch, HR_REASON_BUSY);
		goto out;
	}
	for (uint32_t i = 0; i < batch->items_count; i++) {
		struct core_item *st = &batch->states[i];
		struct peer *peer;

		owner[i] = UINT16_MAX;
		if (st->done) {
			continue;
		}
		if (item_asks_all(core, batch, i)) {
			st->phase = ITEM_ASK;
			st->status = HR_STATUS_MISS;
			st->reason = HR_REASON_ABSENT;
			st->pieces_left = peers_count;
			continue;
		}
		peer = core_owner(core, st->route);
		for (uint16_t p = 0; peer != NULL && p < peers_count; p++) {
			if (core->peers[p] == peer) {
				owner[i] = p;
				break;
			}
		}
		if (owner[i] == UINT16_MAX) {
			item_decide(core, batch, i, fail_status(batch), HR_REASON_DOWN);
		}
	}
	for (unsigned p = 0; p < peers_count && !batch->finished; p++) {
		n = 0;
		for (uint32_t i = 0; i < batch->items_count; i++) {
			if (owner[i] == p) {
				list[n++] = i;
			}
		}
		group_add(core, batch, core->peers[p], wire_op(batch->op), list, n);
		n = 0;
		for (uint32_t i = 0; i < batch->items_count; i++) {
			if (!batch->states[i].done && batch->states[i].phase == ITEM_ASK) {
				list[n++] = i;
			}
		}
		group_add(core, batch, core->peers[p],
			  batch->op == HR_OP_GET ? WIRE_EXISTS : wire_op(batch->op), list, n);
	}
out:
	free(list);
	free(owner);
}

/* -- frames ---------------------------------------------------------------------------------------------------------------------- */

static struct piece *
piece_add(struct request *req)
{
	uint32_t n = req->pieces_count;

	if (is_pow2(n) || n == 0) { /* room doubles at each power of two */
		struct piece *more =
		    reallocarray(req->pieces, n == 0 ? 1 : (size_t)n * 2, sizeof(*more));

		if (more == NULL) {
			return NULL;
		}
		req->pieces = more;
	}
	req->pieces[n] = (struct piece){ 0 };
	return &req->pieces[n];
}

static int
slice_to_request(void *arg, uint8_t *base, size_t len)
{
	return req_iov_add(arg, base, len);
}

struct staging_copy {
	uint8_t *to;
	size_t chunk_left;
	uint32_t crc;
	uint32_t *crcs;
	uint32_t count;
};

/* Copies and sums while the bytes are in the cache: the sums are of what was copied, whatever the owner does meanwhile. */
static int
slice_to_staging(void *arg, uint8_t *base, size_t len)
{
	struct staging_copy *copy = arg;

	while (len > 0) {
		size_t n = HR_MIN(len, copy->chunk_left);

		memcpy(copy->to, base, n);
		copy->crc = crc32c(copy->crc, copy->to, n);
		copy->to += n;
		base += n;
		len -= n;
		copy->chunk_left -= n;
		if (copy->chunk_left == 0) {
			copy->crcs[copy->count++] = copy->crc;
			copy->crc = 0;
			copy->chunk_left = WIRE_CHUNK_BYTES;
		}
	}
	return 0;
}

/* The value of a part: into shared memory where there is room, else it goes out from where it lies. */
static int
put_value(struct peer *peer, struct request *req, struct piece *piece, const struct hr_item *item,
	  uint64_t off, struct wire_put_item *wire, uint32_t *crcs)
{
	struct core *core = peer->core;
	struct staging_copy copy = { .chunk_left = WIRE_CHUNK_BYTES, .crcs = crcs };
	unsigned first = req->iov_count;
	int rc;

	rc = iov_slice(item->iov, item->iov_count, off, piece->bytes, slice_to_request, req);
	if (rc != 0) {
		return rc;
	}
	if (peer->shm && piece->bytes > 0 && req->iov_count == first + 1) {
		wire->staging_region = shm_region_find(core, req->iov[first].iov_base, piece->bytes,
						       &wire->staging_off);
		if (wire->staging_region != 0 && peer->regions_sent[wire->staging_region]) {
			(void)crc32c_chunks(&req->iov[first], 1, WIRE_CHUNK_BYTES, crcs);
			wire->flags |= WIRE_PUT_STAGED;
			req->iov_count = first;
			return 0;
		}
		wire->staging_region = 0;
		wire->staging_off = 0;
	}
	if (peer->shm && piece->bytes > 0 && peer->regions_sent[STAGING_REGION] &&
	    shm_staging_get(core, piece->bytes, &piece->staging_at, &copy.to)) {
		piece->staged = true;
		for (unsigned i = first; i < req->iov_count; i++) {
			(void)slice_to_staging(&copy, req->iov[i].iov_base, req->iov[i].iov_len);
		}
		if (copy.chunk_left != WIRE_CHUNK_BYTES) {
			crcs[copy.count] = copy.crc;
		}
		core->stat.bytes_staged += piece->bytes;
		wire->flags |= WIRE_PUT_STAGED;
		wire->staging_region = STAGING_REGION;
		wire->staging_off = shm_staging_off(core, piece->staging_at);
		req->iov_count = first;
		return 0;
	}
	if (req->iov_count > first) {
		(void)crc32c_chunks(&req->iov[first], req->iov_count - first, WIRE_CHUNK_BYTES,
				    crcs);
	}
	req->payload_bytes += piece->bytes;
	return 0;
}

static void
item_put_plan(struct peer *peer, struct core_item *st)
{
	st->planned = true;
	st->part_first = 0;
	st->part_end = (uint16_t)HR_MAX(div_round_up(st->len, peer->hello.part_bytes), (uint64_t)1);
	st->pieces_left = st->part_end;
}

/* Which parts a GET asks for. */
static void
item_get_plan(struct peer *peer, struct core_item *st)
{
	uint64_t part_bytes = peer->hello.part_bytes;

	if (st->planned) { /* the rest of one whose length was learnt */
		return;
	}
	st->planned = true;
	if (st->len == HR_LEN_ANY) {
		st->phase = ITEM_LEARN;
		st->part_first = 0;
		st->part_end = 1;
	} else {
		uint64_t parts = HR_MAX(div_round_up(st->len, part_bytes), (uint64_t)1);

		st->part_first = (uint16_t)HR_MIN(st->off / part_bytes, parts - 1);
		st->part_end = st->want == 0
				   ? st->part_first + 1
				   : (uint16_t)div_round_up(st->off + st->want, part_bytes);
	}
	st->pieces_left = st->part_end - st->part_first;
}

/* True: the part is in the frame. False with 0: the frame is full; else what went wrong. */
static bool
put_part_add(struct peer *peer, struct group *group, struct request *req, uint32_t idx,
	     uint32_t part, int *ret_rc)
{
	struct core_batch *batch = group->batch;
	struct core_item *st = &batch->states[idx];
	struct hr_item *item = batch_item(batch, idx);
	uint64_t part_bytes = peer->hello.part_bytes;
	uint64_t off = part * part_bytes;
	uint32_t bytes = (uint32_t)HR_MIN(part_bytes, st->len - off);
	uint32_t crcs[WIRE_CRCS_MAX];
	struct wire_put_item wire = { 0 };
	struct piece *piece;
	uint64_t limit = HR_MIN((uint64_t)peer->hello.payload_max, (uint64_t)CORE_PUT_FRAME_BYTES);
	uint64_t window = peer->hello.request_bytes_max != 0 ? peer->hello.request_bytes_max
							     : UINT64_MAX;
	size_t need = 128 + align_up(item->key_len, 4) + WIRE_CRCS_MAX * 4 + 8;

	*ret_rc = 0;
	if (req->items.len + need > WIRE_ITEMS_BYTES_MAX ||
	    (req->payload_bytes > 0 && req->payload_bytes + bytes > limit) ||
	    (peer->put_bytes_inflight + req->payload_bytes > 0 &&
	     peer->put_bytes_inflight + req->payload_bytes + bytes > window)) {
		return false;
	}
	piece = piece_add(req);
	if (piece == NULL) {
		*ret_rc = -ENOMEM;
		return false;
	}
	piece->item_idx = idx;
	piece->part = (uint16_t)part;
	piece->bytes = bytes;
	*ret_rc = put_value(peer, req, piece, item, off, &wire, crcs);
	if (*ret_rc != 0) {
		return false;
	}
	memcpy(wire.id, st->id, 16);
	if (item->parent != NULL) {
		memcpy(wire.parent, item->parent, 16);
	}
	wire.route = st->route;
	wire.block_bytes = st->len;
	wire.put_number = st->part_end > 1 ? st->put_number : 0;
	wire.ttl_ms = item->ttl_ms;
	wire.position = item->position;
	wire.cost_hint_us = item->cost_hint_us;
	wire.class_hint = item->class_hint;
	wire.stored_bytes = bytes;
	wire.part = (uint16_t)part;
	wire.parts_count = st->part_end;
	wire.crcs_count = (uint16_t)div_round_up(bytes, WIRE_CHUNK_BYTES);
	wire.flags |= (item->flags & HR_PUT_REPLACE) != 0 ? WIRE_PUT_REPLACE : 0;
	wire.flags |= (item->flags & HR_PUT_PINNED) != 0 ? WIRE_PUT_PINNED : 0;
	if (part == 0) {
		wire.key = item->key;
		wire.key_len = (uint16_t)item->key_len;
	}
	wire_put_item_encode(&req->items, &wire, crcs);
	peer->core->stat.bytes_put += bytes;
	req->pieces_count++;
	return true;
}

static bool
get_part_add(struct peer *peer, struct group *group, struct request *req, uint32_t idx,
	     uint32_t part, int *ret_rc)
{
	struct core_batch *batch = group->batch;
	struct core_item *st = &batch->states[idx];
	struct hr_item *item = batch_item(batch, idx);
	uint64_t part_bytes = peer->hello.part_bytes;
	uint64_t part_at = part * part_bytes;
	uint64_t from = HR_MAX(st->off, part_at),
		 to = HR_MIN(st->off + st->want, part_at + part_bytes);
	struct wire_get_item wire = { 0 };
	struct piece *piece;

	*ret_rc = 0;
	if (req->items.len + 56 > WIRE_ITEMS_BYTES_MAX) {
		return false;
	}
	piece = piece_add(req);
	if (piece == NULL) {
		*ret_rc = -ENOMEM;
		return false;
	}
	if (from > to ||
	    from >=
		part_at +
		    part_bytes) { /* the range begins in a later part: only the length is wanted here */
		from = to = part_at;
	}
	piece->item_idx = idx;
	piece->part = (uint16_t)part;
	piece->off = (uint32_t)(from - part_at);
	piece->bytes = (uint32_t)(to - from);
	piece->dst_off = from > st->off ? from - st->off : 0;
	memcpy(wire.id, st->id, 16);
	wire.route = st->route;
	wire.block_bytes = st->len;
	wire.part = (uint16_t)part;
	wire.off = piece->off;
	wire.bytes = piece->bytes;
	if (peer->shm) {
		wire.flags |= WIRE_GET_SHM;
		if ((item->flags & HR_GET_BORROW) != 0 && peer->borrow) {
			wire.flags |= WIRE_GET_BORROW;
		}
	}
	wire_get_item_encode(&req->items, &wire);
	req->pieces_count++;
	return true;
}

static bool
id_add(struct group *group, struct request *req, uint32_t idx, int *ret_rc)
{
	struct core_item *st = &group->batch->states[idx];
	struct wire_id_item wire = { .route = st->route };
	struct piece *piece = piece_add(req);

	*ret_rc = 0;
	if (piece == NULL) {
		*ret_rc = -ENOMEM;
		return false;
	}
	piece->item_idx = idx;
	memcpy(wire.id, st->id, 16);
	wire_id_item_encode(&req->items, &wire);
	req->pieces_count++;
	return true;
}

/* Puts as many pieces of the group into the frame as fit. */
static int
request_fill(struct peer *peer, struct group *group, struct request *req)
{
	struct core_batch *batch = group->batch;
	uint32_t items_max = peer->hello.items_max != 0
				 ? HR_MIN(peer->hello.items_max, (uint32_t)WIRE_ITEMS_MAX)
				 : WIRE_ITEMS_MAX;
	bool ids = group->op != WIRE_PUT && group->op != WIRE_GET;
	int rc = 0;

	while (group->next < group->count && req->pieces_count < items_max) {
		uint32_t idx = group->idx[group->next];
		struct core_item *st = &batch->states[idx];
		bool added;

		if (st->done) {
			group->next++;
			group->part_next = UINT32_MAX;
			continue;
		}
		if (group->part_next == UINT32_MAX) {
			if (group->op == WIRE_PUT) {
				item_put_plan(peer, st);
			} else if (group->op == WIRE_GET) {
				item_get_plan(peer, st);
			} else if (st->phase != ITEM_ASK) {
				st->planned = true;
				st->part_first = 0;
				st->part_end = 1;
				st->pieces_left = 1;
			}
			group->part_next = st->part_first;
		}
		if (st->failed && !ids) {
			/* A part was refused: the others need not be sent. */
			uint32_t count = st->part_end - group->part_next;

			group->next++;
			group->part_next = UINT32_MAX;
			if (count > 0) {
				pieces_failed(peer->core, batch, idx, peer, count, st->status,
					      st->reason);
			}
			continue;
		}
		added = ids ? id_add(group, req, idx, &rc)
			: group->op == WIRE_PUT
			    ? put_part_add(peer, group, req, idx, group->part_next, &rc)
			    : get_part_add(peer, group, req, idx, group->part_next, &rc);
		if (!added) {
			break;
		}
		if (ids || ++group->part_next == st->part_end) {
			group->next++;
			group->part_next = UINT32_MAX;
		}
	}
	return rc != 0 ? rc : req->items.failed ? -ENOMEM : 0;
}

struct request *
ops_request_build(struct peer *peer, struct group *group, bool *ret_blocked)
{
	struct core_batch *batch = group->batch;
	struct core *core = peer->core;
	struct request *req = req_create(peer, REQUEST_ITEMS, group->op);
	int rc;

	if (req == NULL) {
		ops_group_fail(core, group, HR_REASON_BUSY);
		return NULL;
	}
	if (req_slot_take(peer, req) != 0) {
		*ret_blocked = true;
		req_free(req);
		return NULL;
	}
	req->batch = batch;
	req->space = batch->space;
	req->priority = batch->priority;
	req->ack = batch->op == HR_OP_PUT || batch->op == HR_OP_DELETE ? batch->ack : 0;
	req->lease_ms = batch->op == HR_OP_EXISTS ? batch->lease_ms : 0;
	req->deadline_at_us = batch->deadline_at_us;
	list_add_tail(&batch->requests, &req->batch_link);
	/* Off the lists meanwhile: an item that is decided in here may end its batch. */
	list_del(&group->link);
	list_del(&group->batch_link);
	rc = request_fill(peer, group, req);
	req->items_count = req->pieces_count;
	if (group->op == WIRE_PUT) {
		peer->put_bytes_inflight += req->payload_bytes;
	}
	if (rc != 0) {
		ops_request_fail(core, req, HR_REASON_BUSY);
		req_free(req);
		ops_group_fail(core, group, HR_REASON_BUSY);
		return NULL;
	}
	if (group->next == group->count || batch->finished) {
		free(group);
		group = NULL;
	} else {
		list_add(&peer->groups[batch->priority], &group->link);
		list_add_tail(&batch->groups, &group->batch_link);
	}
	if (req->pieces_count == 0) {
		req_free(req);
		*ret_blocked = group != NULL;
		return NULL;
	}
	return req;
}

void
ops_request_pieces_release(struct core *core, struct request *req)
{
	for (uint32_t i = 0; i < req->pieces_count; i++) {
		if (req->pieces[i].staged) {
			req->pieces[i].staged = false;
			shm_staging_put(core, req->pieces[i].staging_at);
		}
	}
}

void
ops_request_fail(struct core *core, struct request *req, uint8_t reason)
{
	struct core_batch *batch = req->batch;

	for (uint32_t i = 0; i < req->pieces_count; i++) {
		struct piece *piece = &req->pieces[i];

		if (piece->done || batch->states[piece->item_idx].done) {
			continue;
		}
		piece->done = true;
		pieces_failed(core, batch, piece->item_idx, req->peer, 1, fail_status(batch),
			      reason);
	}
}

/* -- answers --------------------------------------------------------------------------------------------------------------------- */

static int
answer_put(struct peer *peer, struct request *req, const char **ret_why)
{
	struct rx *rx = &peer->rx;
	struct wire_reader reader = { rx->items, rx->items + rx->header.items_bytes };
	struct core_batch *batch = req->batch;

	for (uint32_t i = 0; i < rx->header.items_count; i++) {
		struct wire_put_answer answer;
		struct core_item *st;
		struct piece *piece;

		if (wire_put_answer_decode(&reader, &answer, ret_why) != 0) {
			return -HR_EPROTO;
		}
		if (answer.item_idx >= req->pieces_count || req->pieces[answer.item_idx].done) {
			*ret_why = "an answer to no item";
			return -HR_EPROTO;
		}
		piece = &req->pieces[answer.item_idx];
		piece->done = true;
		if (piece->staged) {
			piece->staged = false;
			shm_staging_put(peer->core, piece->staging_at);
		}
		st = &batch->states[piece->item_idx];
		if (st->done) {
			continue;
		}
		if (answer.status != HR_STATUS_OK) {
			pieces_failed(peer->core, batch, piece->item_idx, peer, 1,
				      answer.status == HR_STATUS_INVALID ? HR_STATUS_INVALID
									 : HR_STATUS_REFUSED,
				      answer.reason);
			continue;
		}
		st->decided_put |= (answer.flags & WIRE_PUT_HELD) == 0;
		st->flags_out |= (answer.flags & WIRE_PUT_DUPLICATE) != 0 ? HR_ITEM_DUPLICATE : 0;
		st->flags_out |= (answer.flags & WIRE_PUT_DIFFERS) != 0 ? HR_ITEM_DIFFERS : 0;
		piece_ok(peer->core, batch, piece->item_idx, peer);
	}
	return reader.at == reader.end ? 0 : -HR_EPROTO;
}

static void
piece_asked(struct peer *peer, struct core_batch *batch, struct piece *piece, uint8_t byte,
	    uint64_t len)
{
	struct core_item *st = &batch->states[piece->item_idx];
	uint8_t reason = byte & WIRE_REASON_MASK;
	bool deletes = batch->op == HR_OP_DELETE;

	if ((byte & WIRE_PRESENT) == 0) {
		pieces_failed(peer->core, batch, piece->item_idx, peer, 1,
			      deletes && reason == HR_REASON_BUSY ? HR_STATUS_REFUSED
								  : HR_STATUS_MISS,
			      reason);
		return;
	}
	if (!st->found && st->phase == ITEM_ASK) {
		st->found = true;
		memcpy(st->found_uuid, peer->uuid, 16);
	}
	st->len_out = len;
	st->flags_out |= (byte & WIRE_LEASED) != 0 && batch->op == HR_OP_EXISTS ? HR_ITEM_LEASED : 0;
	piece_ok(peer->core, batch, piece->item_idx, peer);
}

/* EXISTS, TOUCH, DELETE, PREFETCH: a byte per item, and lengths behind them for EXISTS. */
static int
answer_ids(struct peer *peer, struct request *req, const char **ret_why)
{
	struct rx *rx = &peer->rx;
	struct core_batch *batch = req->batch;
	size_t lens_at = align_up(req->pieces_count, 8);
	bool lens = req->op == WIRE_EXISTS;

	if (rx->header.items_bytes != lens_at + (lens ? (size_t)req->pieces_count * 8 : 0)) {
		*ret_why = "an answer of another size";
		return -HR_EPROTO;
	}
	for (uint32_t i = 0; i < req->pieces_count; i++) {
		struct piece *piece = &req->pieces[i];

		if (piece->done || batch->states[piece->item_idx].done) {
			continue;
		}
		piece->done = true;
		piece_asked(peer, batch, piece, rx->items[i],
			    lens ? get_le64(rx->items + lens_at + i * 8) : 0);
	}
	return 0;
}

static bool
crcs_match(const struct iovec *iov, unsigned iov_count, const struct wire_get_answer *answer)
{
	uint32_t crcs[WIRE_CRCS_MAX + 1];
	size_t count = crc32c_chunks(iov, iov_count, WIRE_CHUNK_BYTES, crcs);

	for (size_t i = 0; i < count; i++) {
		if (crcs[i] != wire_crc_get(answer->crcs, (unsigned)i)) {
			return false;
		}
	}
	return true;
}

/* How many bytes of a piece there are, now that the block's length is known. */
static uint64_t
piece_len(const struct peer *peer, const struct piece *piece, uint64_t block_bytes)
{
	uint64_t part_bytes = peer->hello.part_bytes;
	uint64_t part_at = piece->part * part_bytes;
	uint64_t part_len = block_bytes > part_at ? HR_MIN(part_bytes, block_bytes - part_at) : 0;

	return piece->off >= part_len ? 0 : HR_MIN((uint64_t)piece->bytes, part_len - piece->off);
}

static struct borrow *
item_borrow(struct peer *peer, struct core_item *st)
{
	if (st->borrow == NULL) {
		st->borrow = calloc(1, sizeof(*st->borrow));
		if (st->borrow != NULL) {
			st->borrow->peer = peer;
			st->borrow->epoch = peer->epoch;
			list_init(&st->borrow->link);
		}
	}
	return st->borrow;
}

static int
borrow_segment_add(struct borrow *borrow, const struct borrow_segment *segment)
{
	struct borrow_segment *more =
	    reallocarray(borrow->segments, borrow->segments_count + 1, sizeof(*borrow->segments));

	if (more == NULL) {
		return -ENOMEM;
	}
	more[borrow->segments_count] = *segment;
	more[borrow->segments_count].order = (uint16_t)borrow->segments_count;
	borrow->segments = more;
	borrow->segments_count++;
	return 0;
}

static int
borrow_handle_add(struct borrow *borrow, uint64_t handle)
{
	uint64_t *more = reallocarray(borrow->handles, borrow->handles_count + 1, sizeof(*more));

	if (more == NULL) {
		return -ENOMEM;
	}
	borrow->handles = more;
	borrow->handles[borrow->handles_count++] = handle;
	return 0;
}

/* The extents of an answer as memory, checked against the mappings. */
static int
extents_find(struct peer *peer, const struct wire_get_answer *answer, struct iovec *ret_iov,
	     struct mapping **ret_mappings, uint64_t *ret_sum, const char **ret_why)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < answer->extents_count; i++) {
		struct wire_extent extent;
		struct mapping *mapping;

		wire_extent_get(answer->extents, i, &extent);
		mapping = shm_chunk_find(peer, extent.chunk);
		if (mapping == NULL || extent.off > mapping->len ||
		    extent.bytes > mapping->len - extent.off) {
			*ret_why = "an extent outside of its chunk";
			return -HR_EPROTO;
		}
		ret_iov[i] = (struct iovec){ mapping->base + extent.off, extent.bytes };
		ret_mappings[i] = mapping;
		sum += extent.bytes;
	}
	*ret_sum = sum;
	return 0;
}

struct copy_in {
	const struct iovec *iov;
	unsigned at;
	size_t off;
	size_t chunk_left;
	uint32_t crc;
	unsigned chunk;
	const uint8_t *crcs;
};

/* From the shared pages into the caller's buffer, summing what landed while it is in the cache. -HR_ECORRUPT. */
static int
slice_from_shared(void *arg, uint8_t *base, size_t len)
{
	struct copy_in *copy = arg;

	while (len > 0) {
		size_t n = HR_MIN(len, copy->iov[copy->at].iov_len - copy->off);

		n = HR_MIN(n, copy->chunk_left);
		memcpy(base, (const uint8_t *)copy->iov[copy->at].iov_base + copy->off, n);
		copy->crc = crc32c(copy->crc, base, n);
		base += n;
		len -= n;
		copy->off += n;
		copy->chunk_left -= n;
		if (copy->off == copy->iov[copy->at].iov_len) {
			copy->at++;
			copy->off = 0;
		}
		if (copy->chunk_left == 0) {
			if (copy->crc != wire_crc_get(copy->crcs, copy->chunk++)) {
				return -HR_ECORRUPT;
			}
			copy->crc = 0;
			copy->chunk_left = WIRE_CHUNK_BYTES;
		}
	}
	return 0;
}

static int
shared_copy(struct core_item *st, const struct hr_item *item, const struct piece *piece,
	    const struct iovec *iov, uint64_t len, const struct wire_get_answer *answer)
{
	struct copy_in copy = { .iov = iov, .chunk_left = WIRE_CHUNK_BYTES, .crcs = answer->crcs };
	int rc;

	if (len == 0) {
		return 0;
	}
	if (st->staged != NULL) {
		rc = slice_from_shared(&copy, st->staged + piece->dst_off, len);
	} else {
		st->touched = true;
		rc = iov_slice(item->iov, item->iov_count, piece->dst_off, len, slice_from_shared,
			       &copy);
	}
	if (rc == 0 && copy.chunk_left != WIRE_CHUNK_BYTES &&
	    copy.crc != wire_crc_get(answer->crcs, copy.chunk)) {
		rc = -HR_ECORRUPT;
	}
	return rc;
}

static int
shared_borrow(struct peer *peer, struct core_item *st, const struct piece *piece,
	      const struct iovec *iov, struct mapping **mappings,
	      const struct wire_get_answer *answer)
{
	struct borrow *borrow = item_borrow(peer, st);

	if (borrow == NULL || borrow_handle_add(borrow, answer->borrow) != 0) {
		shm_unborrow(peer, answer->borrow);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < answer->extents_count; i++) {
		struct borrow_segment segment = { .part = piece->part,
						  .mapping = mappings[i],
						  .iov = iov[i] };

		if (borrow_segment_add(borrow, &segment) != 0) {
			return -ENOMEM;
		}
		mappings[i]->refs++;
	}
	return 0;
}

/* The value is in shared memory: there is nothing to wait for. */
static int
answer_shared(struct peer *peer, struct request *req, struct piece *piece,
	      const struct wire_get_answer *answer, uint64_t len, const char **ret_why)
{
	struct core_batch *batch = req->batch;
	struct core_item *st = &batch->states[piece->item_idx];
	struct hr_item *item = batch_item(batch, piece->item_idx);
	struct iovec iov[WIRE_EXTENTS_MAX];
	struct mapping *mappings[WIRE_EXTENTS_MAX];
	uint64_t sum;
	int rc;

	if (answer->extents_count > WIRE_EXTENTS_MAX) {
		*ret_why = "too many extents";
		return -HR_EPROTO;
	}
	rc = extents_find(peer, answer, iov, mappings, &sum, ret_why);
	if (rc != 0) {
		return rc;
	}
	if (sum != len) {
		*ret_why = "extents of another length";
		return -HR_EPROTO;
	}
	if ((item->flags & HR_GET_BORROW) != 0) {
		rc = crcs_match(iov, answer->extents_count, answer) ? 0 : -HR_ECORRUPT;
		if (rc == 0) {
			rc = shared_borrow(peer, st, piece, iov, mappings, answer);
		} else {
			shm_unborrow(peer, answer->borrow);
		}
	} else {
		rc = shared_copy(st, item, piece, iov, len, answer);
		shm_unborrow(peer, answer->borrow);
	}
	if (rc != 0) {
		peer->core->stat.crc_failures += rc == -HR_ECORRUPT;
		pieces_failed(peer->core, batch, piece->item_idx, peer, 1, HR_STATUS_MISS,
			      rc == -HR_ECORRUPT ? HR_REASON_CORRUPT : HR_REASON_BUSY);
		return 0;
	}
	st->got += len;
	peer->core->stat.bytes_shared += len;
	piece_ok(peer->core, batch, piece->item_idx, peer);
	return 0;
}

static int
dst_add(struct rx *rx, uint8_t *base, size_t len)
{
	if (rx->dst_count == rx->dst_cap) {
		unsigned cap = HR_MAX(rx->dst_cap * 2, 64u);
		struct iovec *more = reallocarray(rx->dst, cap, sizeof(*more));

		if (more == NULL) {
			return -ENOMEM;
		}
		rx->dst = more;
		rx->dst_cap = cap;
	}
	rx->dst[rx->dst_count++] = (struct iovec){ base, len };
	return 0;
}

static int
slice_to_dst(void *arg, uint8_t *base, size_t len)
{
	return dst_add(arg, base, len);
}

static struct rx_piece *
rx_piece_add(struct rx *rx)
{
	if (rx->pieces_count == rx->pieces_cap) {
		uint32_t cap = HR_MAX(rx->pieces_cap * 2, 16u);
		struct rx_piece *more = reallocarray(rx->pieces, cap, sizeof(*more));

		if (more == NULL) {
			return NULL;
		}
		rx->pieces = more;
		rx->pieces_cap = cap;
	}
	rx->pieces[rx->pieces_count] = (struct rx_piece){ 0 };
	return &rx->pieces[rx->pieces_count++];
}

/* The value comes as payload: says where to. */
static int
answer_payload(struct peer *peer, struct request *req, uint32_t piece_idx,
	       const struct wire_get_answer *answer, uint64_t *payload_end)
{
	struct rx *rx = &peer->rx;
	struct piece *piece = &req->pieces[piece_idx];
	struct core_item *st = &req->batch->states[piece->item_idx];
	struct hr_item *item = batch_item(req->batch, piece->item_idx);
	struct rx_piece *rp = rx_piece_add(rx);
	int rc;

	if (rp == NULL) {
		return -ENOMEM;
	}
	*payload_end += answer->payload_bytes;
	rp->piece_idx = piece_idx;
	rp->answer = *answer;
	rp->payload_end = *payload_end;
	rp->dst_first = rx->dst_count;
	if (st->done) {
		rc = dst_add(rx, NULL, answer->payload_bytes);
	} else if ((item->flags & HR_GET_BORROW) != 0) {
		rp->base = malloc(answer->payload_bytes);
		rc = rp->base == NULL ? -ENOMEM : dst_add(rx, rp->base, answer->payload_bytes);
	} else if (st->staged != NULL) {
		rc = dst_add(rx, st->staged + piece->dst_off, answer->payload_bytes);
	} else {
		st->touched = true;
		rc = iov_slice(item->iov, item->iov_count, piece->dst_off, answer->payload_bytes,
			       slice_to_dst, rx);
	}
	rp->dst_count = rx->dst_count - rp->dst_first;
	return rc;
}

/* Birth and length must be the same in all answers for one item. */
static void
answer_compare(struct core_item *st, const struct wire_get_answer *answer)
{
	if (st->birth == 0) {
		st->birth = answer->birth;
	} else if (st->birth != answer->birth) {
		st->mixed = true;
	}
	if (st->len == HR_LEN_ANY) {
		st->len = answer->block_bytes;
	} else if (st->len != answer->block_bytes) {
		st->mixed = true;
	}
	if ((answer->flags & WIRE_GOT_FLASH) != 0) {
		st->flags_out = (st->flags_out | HR_ITEM_FLASH) & ~(uint32_t)HR_ITEM_DRAM;
	} else if ((answer->flags & WIRE_GOT_DRAM) != 0 && (st->flags_out & HR_ITEM_FLASH) == 0) {
		st->flags_out |= HR_ITEM_DRAM;
	}
}

static int
item_staged_prepare(struct core_item *st, const struct hr_item *item)
{
	if ((item->flags & HR_GET_STAGED) == 0 || (item->flags & HR_GET_BORROW) != 0 ||
	    st->staged != NULL || st->want == 0) {
		return 0;
	}
	st->staged = malloc(st->want);
	return st->staged == NULL ? -ENOMEM : 0;
}

/* One answer of a GET frame. */
static int
answer_get_one(struct peer *peer, struct request *req, const struct wire_get_answer *answer,
	       uint64_t *payload_end, const char **ret_why)
{
	struct core_batch *batch = req->batch;
	struct piece *piece = &req->pieces[answer->item_idx];
	struct core_item *st = &batch->states[piece->item_idx];
	struct hr_item *item = batch_item(batch, piece->item_idx);
	uint64_t len;

	piece->done = true;
	if (answer->status != HR_STATUS_OK) {
		if (answer->payload_bytes != 0) {
			*ret_why = "a miss with payload";
			return -HR_EPROTO;
		}
		if (!st->done) {
			if (answer->reason == HR_REASON_SIZE) {
				st->len_out = answer->block_bytes;
			}
			pieces_failed(peer->core, batch, piece->item_idx, peer, 1,
				      answer->status == HR_STATUS_INVALID ? HR_STATUS_INVALID
									  : HR_STATUS_MISS,
				      answer->reason);
		}
		return 0;
	}
	len = piece_len(peer, piece, answer->block_bytes);
	if (answer->block_bytes > HR_BLOCK_BYTES_MAX ||
	    answer->crcs_count < div_round_up(len, WIRE_CHUNK_BYTES) ||
	    ((answer->flags & WIRE_GOT_SHM) == 0 && answer->payload_bytes != len) ||
	    ((answer->flags & WIRE_GOT_SHM) != 0 && answer->payload_bytes != 0)) {
		*ret_why = "a value of another length";
		return -HR_EPROTO;
	}
	if (st->done) {
		if ((answer->flags & WIRE_GOT_SHM) != 0) {
			shm_unborrow(peer, answer->borrow);
			return 0;
		}
		return len == 0 ? 0
				: answer_payload(peer, req, answer->item_idx, answer, payload_end);
	}
	answer_compare(st, answer);
	if (item_staged_prepare(st, item) != 0) {
		return -ENOMEM;
	}
	if ((answer->flags & WIRE_GOT_SHM) != 0) {
		return answer_shared(peer, req, piece, answer, len, ret_why);
	}
	if (len == 0) {
		piece_ok(peer->core, batch, piece->item_idx, peer);
		return 0;
	}
	return answer_payload(peer, req, answer->item_idx, answer, payload_end);
}

static int
answer_get(struct peer *peer, struct request *req, const char **ret_why)
{
	struct rx *rx = &peer->rx;
	struct wire_reader reader = { rx->items, rx->items + rx->header.items_bytes };
	uint64_t payload_end = 0;
	int rc = 0;

	for (uint32_t i = 0; i < rx->header.items_count && rc == 0; i++) {
		struct wire_get_answer answer;

		if (wire_get_answer_decode(&reader, &answer, ret_why) != 0) {
			return -HR_EPROTO;
		}
		if (req->batch == NULL) {
			*ret_why = "an answer to no item";
			return -HR_EPROTO;
		}
		if (answer.item_idx >= req->pieces_count || req->pieces[answer.item_idx].done) {
			*ret_why = "an answer to no item";
			return -HR_EPROTO;
		}
		rc = answer_get_one(peer, req, &answer, &payload_end, ret_why);
		if (rc != 0) {
			req->pieces[answer.item_idx].done = false; /* it fails with the connection */
		}
	}
	return rc != 0 ? rc : reader.at == reader.end ? 0 : -HR_EPROTO;
}

int
ops_answer(struct peer *peer, struct request *req, const char **ret_why)
{
	*ret_why = "an answer that does not fit its request";
	switch (req->op) {
	case WIRE_PUT:
		return answer_put(peer, req, ret_why);
	case WIRE_GET:
		return answer_get(peer, req, ret_why);
	default:
		return answer_ids(peer, req, ret_why);
	}
}

static void
piece_landed(struct peer *peer, struct request *req, struct rx_piece *rp)
{
	struct rx *rx = &peer->rx;
	struct core_batch *batch = req->batch;
	struct piece *piece = &req->pieces[rp->piece_idx];
	struct core_item *st = &batch->states[piece->item_idx];
	uint8_t reason = HR_REASON_CORRUPT;
	bool good;

	if (st->done) {
		return;
	}
	good = crcs_match(&rx->dst[rp->dst_first], rp->dst_count, &rp->answer);
	if (good && rp->base != NULL) {
		struct borrow_segment segment = { .part = piece->part,
						  .owned = true,
						  .iov = { rp->base, rp->answer.payload_bytes } };
		struct borrow *borrow = item_borrow(peer, st);

		good = borrow != NULL && borrow_segment_add(borrow, &segment) == 0;
		if (good) {
			rp->base = NULL;
		}
		reason = HR_REASON_BUSY;
	} else if (!good) {
		peer->core->stat.crc_failures++;
	}
	if (!good) {
		pieces_failed(peer->core, batch, piece->item_idx, peer, 1, HR_STATUS_MISS, reason);
		return;
	}
	st->got += rp->answer.payload_bytes;
	piece_ok(peer->core, batch, piece->item_idx, peer);
}

void
ops_answer_lost(struct peer *peer)
{
	struct rx *rx = &peer->rx;

	for (uint32_t i = rx->pieces_next; rx->req != NULL && i < rx->pieces_count; i++) {
		rx->req->pieces[rx->pieces[i].piece_idx].done = false;
	}
}

void
ops_answer_landed(struct peer *peer)
{
	struct rx *rx = &peer->rx;

	while (rx->pieces_next < rx->pieces_count &&
	       rx->pieces[rx->pieces_next].payload_end <= rx->payload_got) {
		struct rx_piece *rp = &rx->pieces[rx->pieces_next++];

		if (rx->req != NULL && rx->req->batch != NULL) {
			piece_landed(peer, rx->req, rp);
		}
		free(rp->base);
		rp->base = NULL;
		if (peer->conn == NULL) {
			return;
		}
	}
}
