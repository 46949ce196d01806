/* core.c - the map, who asks for it, and the life of batches and calls. */
#include "client/core_impl.h"

#include <stdarg.h>
#include <stdio.h>

#include "cluster/placement.h"

enum { GAP_TICK_US = 50 * 1000, OVERDUE_US = 200 * 1000 };

static void boot_start(struct core *core);

void
core_error_set(struct core *core, int rc, const char *fmt, ...)
{
	va_list ap;

	core->error = rc;
	va_start(ap, fmt);
	(void)vsnprintf(core->error_text, sizeof(core->error_text), fmt, ap);
	va_end(ap);
}

int
core_last_error(const struct core *core, char *ret_text, size_t text_bytes)
{
	if (ret_text != NULL) {
		(void)snprintf(ret_text, text_bytes, "%s", core->error_text);
	}
	return core->error;
}

/* -- calls ----------------------------------------------------------------------------------------------------------------------- */

void
core_call_end(struct core *core, struct core_call *call, int rc)
{
	list_del(&call->link);
	io_timer_cancel(core->io, &call->timer);
	if (call->request != NULL) {
		call->request->call = NULL;
		call->request = NULL;
	}
	wire_buf_free(&call->items);
	call->rc = rc;
	call->done(call);
}

static void
call_deadline_cb(void *arg)
{
	struct core_call *call = arg;

	core_call_end(call->core, call, -ETIMEDOUT);
}

static void
calls_end(struct core *core, struct list_head *calls, int rc)
{
	struct core_call *call, *tmp;

	list_for_each_entry_safe(call, tmp, calls, link) {
		core_call_end(core, call, rc);
	}
}

static struct peer *
peer_find(struct core *core, const uint8_t uuid[16])
{
	for (unsigned i = 0; i < core->peers_count; i++) {
		if (memcmp(core->peers[i]->uuid, uuid, 16) == 0) {
			return core->peers[i];
		}
	}
	return NULL;
}

/* The shard a call is for; with no wish, one that is connected. */
static struct peer *
call_peer(struct core *core, const struct core_call *call)
{
	struct peer *best = NULL;

	if (!is_all_zero(call->shard_uuid, 16)) {
		return peer_find(core, call->shard_uuid);
	}
	for (unsigned i = 0; i < core->peers_count; i++) {
		struct peer *peer = core->peers[i];

		if (peer->state == PEER_READY) {
			return peer;
		}
		if (best == NULL || (peer_down(best) && !peer_down(peer))) {
			best = peer;
		}
	}
	return best;
}

static void
call_place(struct core *core, struct core_call *call)
{
	struct peer *peer;

	if (call->connects) {
		list_add_tail(&core->ready_calls, &call->link);
		for (unsigned i = 0; i < core->peers_count; i++) {
			peer_want(core->peers[i]);
		}
		if (core->boot != NULL) {
			peer_want(core->boot);
		}
		core_ready_check(core);
		return;
	}
	if (!core->have_map) {
		if (peer_down(core->boot) && !core->options.gap_waits) {
			core_call_end(core, call, -HR_EDOWN);
			return;
		}
		list_add_tail(&core->calls, &call->link);
		peer_want(core->boot);
		return;
	}
	peer = call_peer(core, call);
	if (peer == NULL || (peer_down(peer) && !core->options.gap_waits)) {
		core_call_end(core, call, peer == NULL ? -HR_EGONE : -HR_EDOWN);
		return;
	}
	list_add_tail(&peer->calls, &call->link);
	peer_want(peer);
}

void
core_call(struct core *core, struct core_call *call)
{
	list_init(&call->link);
	call->core = core;
	call->request = NULL;
	call->timer = (struct io_timer){ 0 };
	call->rc = 0;
	if (core->closing || call->items.failed) {
		core_call_end(core, call, call->items.failed ? -ENOMEM : -ECANCELED);
		return;
	}
	io_timer_set(core->io, &call->timer, io_now_us(core->io) + call->deadline_us,
		     call_deadline_cb, call);
	call_place(core, call);
}

/* Those that only want to see the store answer wait through failures, until their own deadline. */
void
core_ready_check(struct core *core)
{
	if (core_ready(core)) {
		calls_end(core, &core->ready_calls, 0);
	}
}

/* -- the map --------------------------------------------------------------------------------------------------------------------- */

/* "tcp=" of a node's text, else "unix=", as an address. */
static char *
address_of_text(const char *text, uint32_t text_len)
{
	static const char *const names[] = { "tcp", "unix" };

	for (unsigned n = 0; n < ARRAY_SIZE(names); n++) {
		size_t name_len = strlen(names[n]);
		uint32_t at = 0;

		while (at < text_len) {
			uint32_t end = at;
			char *address;

			while (end < text_len && text[end] != ' ') {
				end++;
			}
			if (end - at > name_len + 1 && text[at + name_len] == '=' &&
			    memcmp(text + at, names[n], name_len) == 0) {
				if (asprintf(&address, "%s:%.*s", names[n],
					     (int)(end - at - name_len - 1),
					     text + at + name_len + 1) < 0) {
					return NULL;
				}
				return address;
			}
			at = end + 1;
		}
	}
	return NULL;
}

/* Where a node is reached: the way that led to it before, else what the map says. */
static char *
node_address(struct core *core, const struct wire_map_node *node, const struct peer *from)
{
	char *address;

	if (from != NULL && memcmp(from->node_uuid, node->uuid, 16) == 0) {
		return strdup(from->address);
	}
	for (unsigned i = 0; i < core->peers_count; i++) {
		if (core->peers[i]->state == PEER_READY &&
		    memcmp(core->peers[i]->node_uuid, node->uuid, 16) == 0) {
			return strdup(core->peers[i]->address);
		}
	}
	address = address_of_text(node->text, node->text_len);
	if (address == NULL) {
		address = strdup(from != NULL ? from->address : core->addresses[0]);
	}
	return address;
}

static void
peer_bury(struct core *core, struct peer *peer)
{
	list_add_tail(&core->buried, &peer->link);
	peer_close(peer);
}

static struct peer *
peer_for_shard(struct core *core, const struct wire_map *map, uint32_t i, struct peer *from)
{
	const struct wire_map_shard *shard = &map->shards[i];
	const struct wire_map_node *node = &map->nodes[shard->node_idx];
	struct peer *peer = peer_find(core, shard->uuid);
	char *address;

	if (peer == NULL && from != NULL && from->boot && memcmp(from->uuid, shard->uuid, 16) == 0) {
		peer = from; /* it becomes that shard's once the whole map is taken */
	}
	address = node_address(core, node, from);
	if (address == NULL) {
		return NULL;
	}
	if (peer != NULL) {
		if (peer != from && strcmp(peer->address, address) != 0) {
			free(peer->address);
			peer->address = address;
		} else {
			free(address);
		}
	} else if (peer_create(core, shard->uuid, address, &peer) != 0) {
		free(address);
		return NULL;
	} else {
		free(address);
	}
	memcpy(peer->node_uuid, node->uuid, 16);
	peer->weight = shard->weight;
	peer->map_state = shard->state;
	return peer;
}

void
core_map_take(struct core *core, struct wire_map *map, struct peer *from)
{
	struct peer **peers = calloc(HR_MAX(map->shards_count, 1u), sizeof(struct peer *));
	struct peer **old = core->peers;
	unsigned old_count = core->peers_count;
	bool whole = peers != NULL && map->shards_count > 0;

	if (core->closing) {
		free(peers);
		wire_map_free(map);
		return;
	}
	for (uint32_t i = 0; i < map->shards_count && whole; i++) {
		whole = map->shards[i].node_idx < map->nodes_count;
		peers[i] = whole ? peer_for_shard(core, map, i, from) : NULL;
		whole = peers[i] != NULL;
	}
	if (!whole) {
		/* No memory, or nonsense: the old map serves on, and who sent it is not trusted with more. */
		for (uint32_t i = 0; peers != NULL && i < map->shards_count && peers[i] != NULL;
		     i++) {
			if (peers[i] != from && peer_find(core, peers[i]->uuid) != peers[i]) {
				peer_bury(core, peers[i]);
			}
		}
		free(peers);
		wire_map_free(map);
		if (from != NULL) {
			peer_fail(from, -HR_EPROTO, "its map cannot be used");
		}
		return;
	}
	core->stat.maps++;
	wire_map_free(&core->map);
	core->map = *map;
	core->peers = peers;
	core->peers_count = map->shards_count;
	core->have_map = true;
	for (unsigned i = 0; i < core->peers_count; i++) {
		if (peers[i] == core->boot) {
			peers[i]->boot = false;
			core->boot = NULL;
		}
	}
	for (unsigned i = 0; i < old_count; i++) {
		if (peer_find(core, old[i]->uuid) != old[i]) {
			peer_bury(core, old[i]);
		}
	}
	free(old);
	core_ready_check(core);
	if (core->boot != NULL && from == core->boot) {
		/* Its shard has a connection of its own, or is not in the map. */
		struct peer *boot = core->boot;

		core->boot = NULL;
		for (unsigned i = 0; i < core->peers_count; i++) {
			peer_retry_now(core->peers[i]);
		}
		peer_bury(core, boot);
	}
}

struct peer *
core_owner(struct core *core, uint64_t route)
{
	uint32_t order[1];

	if (core->peers_count == 1) {
		return core->peers[0];
	}
	return placement_pick(&core->map, route, order, 1) == 0 ? NULL : core->peers[order[0]];
}

unsigned
core_shards(const struct core *core, struct core_shard *ret_shards, unsigned max)
{
	unsigned count = HR_MIN(core->peers_count, max);

	if (ret_shards == NULL) {
		return core->peers_count;
	}
	for (unsigned i = 0; i < count; i++) {
		memcpy(ret_shards[i].uuid, core->peers[i]->uuid, 16);
		memcpy(ret_shards[i].node_uuid, core->peers[i]->node_uuid, 16);
		ret_shards[i].weight = core->peers[i]->weight;
	}
	return count;
}

/* A shard that is still finding out what it has counts when its node is connected: its batches would be refused. */
bool
core_ready(const struct core *core)
{
	bool ready = false;

	for (unsigned i = 0; i < core->peers_count; i++) {
		const struct peer *peer = core->peers[i];

		if (peer->state != PEER_READY) {
			continue;
		}
		for (unsigned j = 0; j < core->peers_count; j++) {
			if (core->peers[j]->map_state == WIRE_JOINING &&
			    memcmp(core->peers[j]->node_uuid, peer->node_uuid, 16) == 0) {
				return false;
			}
		}
		ready = true;
	}
	return ready;
}

void
core_kick(struct core *core)
{
	if (core->boot != NULL) {
		peer_retry_now(core->boot);
	}
	for (unsigned i = 0; i < core->peers_count; i++) {
		peer_retry_now(core->peers[i]);
	}
}

/* -- boot: any node tells the map of all --------------------------------------------------------------------------------------- */

static void
boot_start(struct core *core)
{
	static const uint8_t any[16];

	if (core->boot != NULL || core->closing) {
		return;
	}
	if (peer_create(core, any,
			core->addresses[core->address_next % core->options.addresses_count],
			&core->boot) != 0) {
		core->boot = NULL;
		return;
	}
	core->boot->boot = true;
	if (core->have_map) {
		core->boot->half_open = true;
		peer_want(core->boot);
	}
}

static void
waiting_fail(struct core *core)
{
	struct core_batch *batch, *tmp;

	list_for_each_entry_safe(batch, tmp, &core->waiting, link) {
		if (!batch_may_wait(core, batch)) {
			list_del(&batch->link);
			list_add_tail(&core->live, &batch->link);
			ops_batch_fail(core, batch, HR_REASON_DOWN);
		}
	}
}

/* One address did not answer: the next one. When all were tried, those who wait are told. */
static void
boot_down(struct core *core, struct peer *boot)
{
	unsigned count = core->options.addresses_count;
	char *address;

	core->address_next++;
	address = strdup(core->addresses[core->address_next % count]);
	if (address != NULL) {
		free(boot->address);
		boot->address = address;
	}
	if (boot->failures % count != 0) {
		io_timer_cancel(core->io, &boot->timer);
		peer_retry_now(boot);
		boot->half_open = core->have_map;
		return;
	}
	waiting_fail(core);
	if (!core->options.gap_waits) {
		calls_end(core, &core->calls, -HR_EDOWN);
	}
}

static void
groups_fail(struct core *core, struct peer *peer)
{
	for (int priority = 1; priority <= 3; priority++) {
		struct group *group, *tmp;

		list_for_each_entry_safe(group, tmp, &peer->groups[priority], link) {
			if (peer->gone || !batch_may_wait(core, group->batch)) {
				ops_group_fail(core, group, HR_REASON_DOWN);
			}
		}
	}
}

void
core_peer_down(struct core *core, struct peer *peer)
{
	bool all_down = true;

	if (core->closing || peer->gone) {
		groups_fail(core, peer);
		calls_end(core, &peer->calls, -HR_EDOWN);
		return;
	}
	if (core->options.down != NULL) {
		core->options.down(core->options.arg);
	}
	if (peer == core->boot) {
		boot_down(core, peer);
		return;
	}
	groups_fail(core, peer);
	if (!core->options.gap_waits) {
		calls_end(core, &peer->calls, -HR_EDOWN);
	}
	for (unsigned i = 0; i < core->peers_count; i++) {
		all_down &= peer_down(core->peers[i]);
	}
	if (all_down && (core->options.addresses_count > 1 || core->map.nodes_count > 1)) {
		boot_start(core);
	}
}

void
core_peer_up(struct core *core, struct peer *peer)
{
	struct core_batch *batch, *tmp;
	struct core_call *call, *next;
	struct list_head calls;

	core->error = 0;
	if (core->boot != NULL && core->boot != peer) {
		struct peer *boot = core->boot;

		core->boot = NULL;
		peer_bury(core, boot);
	}
	list_for_each_entry_safe(batch, tmp, &core->waiting, link) {
		list_del(&batch->link);
		list_add_tail(&core->live, &batch->link);
		ops_batch_place(core, batch);
	}
	list_init(&calls);
	list_splice_tail(&calls, &core->calls);
	list_for_each_entry_safe(call, next, &calls, link) {
		list_del(&call->link);
		call_place(core, call);
	}
	core_ready_check(core);
}

/* -- batches --------------------------------------------------------------------------------------------------------------------- */

bool
batch_may_wait(const struct core *core, const struct core_batch *batch)
{
	return core->options.gap_waits && !core->closing && !batch->ended &&
	       io_now_us(core->io) < batch->submit_us + CORE_GAP_US;
}

/* The results that are about the whole batch. */
static void
batch_sum(struct core *core, struct core_batch *batch)
{
	bool prefix = true;

	batch->ok_count = 0;
	batch->prefix_count = 0;
	for (uint32_t i = 0; i < batch->items_count; i++) {
		struct hr_item *item = batch_item(batch, i);
		bool ok = item->status == HR_STATUS_OK;

		batch->ok_count += ok;
		prefix &= ok;
		batch->prefix_count += prefix;
		if (!ok) {
			core->stat.reasons[HR_MIN(item->reason, (uint32_t)HR_REASON_COUNT - 1)]++;
		}
	}
	core->stat.items[batch->op] += batch->items_count;
	core->stat.items_ok[batch->op] += batch->ok_count;
}

void
batch_check_done(struct core *core, struct core_batch *batch)
{
	if (batch->left_count > 0 || batch->holds > 0 || batch->finished) {
		return;
	}
	batch->finished = true;
	io_timer_cancel(core->io, &batch->timer);
	peer_batch_requests_end(core, batch);
	batch_sum(core, batch);
	list_del(&batch->link);
	list_add_tail(&core->done, &batch->link);
}

static void
batch_end(struct core *core, struct core_batch *batch, uint8_t reason)
{
	struct group *group, *tmp;

	if (batch->ended || batch->finished) {
		return;
	}
	batch->ended = true;
	batch->cancelled = reason == HR_REASON_CANCELLED;
	list_for_each_entry_safe(group, tmp, &batch->groups, batch_link) {
		ops_group_free(group);
	}
	peer_batch_requests_end(core, batch);
	ops_batch_fail(core, batch, reason);
}

static void
batch_deadline_cb(void *arg)
{
	struct core_batch *batch = arg;

	batch_end(batch->core, batch, HR_REASON_DEADLINE);
}

static uint8_t
default_priority(uint8_t op)
{
	switch (op) {
	case HR_OP_GET:
	case HR_OP_EXISTS:
		return HR_PRIORITY_HIGH;
	case HR_OP_PREFETCH:
		return HR_PRIORITY_LOW;
	default:
		return HR_PRIORITY_NORMAL;
	}
}

static void gap_cb(void *arg);

static void
gap_arm(struct core *core)
{
	if (core->options.gap_waits && core->gap.heap_idx == 0) {
		io_timer_set(core->io, &core->gap, io_now_us(core->io) + GAP_TICK_US, gap_cb, core);
	}
}

/* Those that cannot be sent yet, because there is no connection or the space is not open on it, and may not wait any longer. */
static void
groups_expire(struct core *core, struct peer *peer)
{
	for (int priority = 1; priority <= 3; priority++) {
		struct group *group, *tmp;

		list_for_each_entry_safe(group, tmp, &peer->groups[priority], link) {
			uint32_t idx = group->batch->space->idx;
			bool can_go = peer->state == PEER_READY && idx < peer->spaces_count &&
				      peer->spaces[idx].state == SPACE_OPEN;

			if (!can_go && !batch_may_wait(core, group->batch)) {
				ops_group_fail(core, group, HR_REASON_DOWN);
			}
		}
	}
}

/* file: while something is under way: who waited too long for a host is told, and a host whose answers are overdue is looked at. */
static void
gap_cb(void *arg)
{
	struct core *core = arg;
	uint64_t now = io_now_us(core->io);

	waiting_fail(core);
	for (unsigned i = 0; i < core->peers_count; i++) {
		struct peer *peer = core->peers[i];

		groups_expire(core, peer);
		if (peer->conn != NULL && peer->slots_used > 0 && now - peer->rx_us > OVERDUE_US &&
		    core->options.gone != NULL && core->options.gone(core->options.arg)) {
			peer_fail(peer, -HR_EDOWN, "the host is gone");
		}
	}
	if (core->boot != NULL && core->boot->conn != NULL && now - core->boot->rx_us > OVERDUE_US &&
	    core->options.gone != NULL && core->options.gone(core->options.arg)) {
		peer_fail(core->boot, -HR_EDOWN, "the host is gone");
	}
	if (!list_empty(&core->live) || !list_empty(&core->waiting)) {
		core_kick(core); /* somebody waits: the breaker's long pauses are for idle handles */
		gap_arm(core);
	}
}

void
core_submit(struct core *core, struct core_batch *batch)
{
	list_init(&batch->link);
	list_init(&batch->groups);
	list_init(&batch->requests);
	batch->core = core;
	batch->states = NULL;
	batch->left_count = batch->items_count;
	batch->holds = 0;
	batch->ended = false;
	batch->finished = false;
	batch->cancelled = false;
	batch->timer = (struct io_timer){ 0 };
	batch->submit_us = io_now_us(core->io);
	batch->deadline_at_us = 0;
	if (batch->priority == HR_PRIORITY_DEFAULT || batch->priority > HR_PRIORITY_HIGH) {
		batch->priority = default_priority(batch->op);
	}
	core->stat.batches++;
	list_add_tail(&core->live, &batch->link);
	ops_batch_start(core, batch);
	if (batch->finished) {
		return;
	}
	if (core->closing) {
		batch_end(core, batch, HR_REASON_CANCELLED);
		return;
	}
	if (batch->deadline_us != 0) {
		batch->deadline_at_us = batch->submit_us + batch->deadline_us;
		io_timer_set(core->io, &batch->timer, batch->deadline_at_us, batch_deadline_cb,
			     batch);
	}
	gap_arm(core);
	if (core->have_map) {
		ops_batch_place(core, batch);
		return;
	}
	if (core->boot == NULL || (peer_down(core->boot) && !batch_may_wait(core, batch))) {
		ops_batch_fail(core, batch, HR_REASON_DOWN);
		return;
	}
	list_del(&batch->link);
	list_add_tail(&core->waiting, &batch->link);
	peer_want(core->boot);
}

struct core_batch *
core_reap(struct core *core)
{
	struct core_batch *batch = list_pop_entry(&core->done, struct core_batch, link);
	struct peer *peer, *tmp;

	list_for_each_entry_safe(peer, tmp, &core->buried, link) {
		if (peer_quiet(peer) && peer->slots_used == 0) {
			list_del(&peer->link);
			peer_destroy(peer);
		}
	}
	if (batch != NULL) {
		ops_batch_free(core, batch);
	}
	return batch;
}

void
core_cancel(struct core *core, struct core_batch *batch)
{
	batch_end(core, batch, HR_REASON_CANCELLED);
}

void
core_release(struct core *core, struct core_space *space, const uint8_t *ids,
	     const uint64_t *routes, uint32_t count, bool all_shards)
{
	for (unsigned p = 0; p < core->peers_count; p++) {
		struct peer *peer = core->peers[p];
		struct wire_buf items = { 0 };
		uint32_t n = 0;

		for (uint32_t i = 0; i < count; i++) {
			struct wire_id_item item = { .route = routes[i] };

			if (!all_shards && core_owner(core, routes[i]) != peer) {
				continue;
			}
			memcpy(item.id, ids + (size_t)i * 16, 16);
			wire_id_item_encode(&items, &item);
			n++;
			if (n == WIRE_ITEMS_MAX) {
				peer_note(peer, WIRE_RELEASE, space, &items, n);
				n = 0;
			}
		}
		if (n > 0) {
			peer_note(peer, WIRE_RELEASE, space, &items, n);
		}
		peer_pump(peer);
	}
}

/* -- life ------------------------------------------------------------------------------------------------------------------------ */

struct core_space *
core_space_get(struct core *core, const uint8_t digest[SPACE_DIGEST_BYTES], const char *label)
{
	struct core_space *space;

	list_for_each_entry(space, &core->spaces, link) {
		if (memcmp(space->digest, digest, SPACE_DIGEST_BYTES) == 0) {
			return space;
		}
	}
	space = calloc(1, sizeof(*space));
	if (space == NULL) {
		return NULL;
	}
	memcpy(space->digest, digest, SPACE_DIGEST_BYTES);
	(void)snprintf(space->label, sizeof(space->label), "%s", label != NULL ? label : "");
	block_id_prefix_init(&space->prefix, digest);
	space->idx = core->spaces_count++;
	list_add_tail(&core->spaces, &space->link);
	return space;
}

static void
options_free(struct core *core)
{
	for (unsigned i = 0; i < core->options.addresses_count; i++) {
		free(core->addresses[i]);
	}
	free(core->addresses);
	free((void *)(uintptr_t)core->options.name);
	free((void *)(uintptr_t)core->options.tenant);
	free((void *)(uintptr_t)core->options.token);
}

static int
options_copy(struct core *core, const struct core_options *options)
{
	uint8_t *token;

	core->options = *options;
	core->options.addresses_count = 0;
	core->options.name = strdup(options->name != NULL ? options->name : "");
	core->options.tenant = strdup(options->tenant != NULL ? options->tenant : "");
	core->options.token = token = malloc(HR_MAX(options->token_len, (size_t)1));
	core->addresses = calloc(options->addresses_count, sizeof(char *));
	if (core->options.name == NULL || core->options.tenant == NULL || token == NULL ||
	    core->addresses == NULL) {
		return -ENOMEM;
	}
	if (options->token_len > 0) {
		memcpy(token, options->token, options->token_len);
	}
	if (core->options.connect_timeout_ms == 0) {
		core->options.connect_timeout_ms = 2000;
	}
	for (unsigned i = 0; i < options->addresses_count; i++) {
		core->addresses[i] = strdup(options->addresses[i]);
		if (core->addresses[i] == NULL) {
			return -ENOMEM;
		}
		core->options.addresses_count++;
	}
	return 0;
}

int
core_create(struct io *io, const struct core_options *options, struct core **ret_core)
{
	struct core *core = calloc(1, sizeof(*core));
	int rc;

	if (core == NULL) {
		return -ENOMEM;
	}
	core->io = io;
	list_init(&core->spaces);
	list_init(&core->calls);
	list_init(&core->ready_calls);
	list_init(&core->buried);
	list_init(&core->waiting);
	list_init(&core->live);
	list_init(&core->done);
	list_init(&core->borrows);
	core->scratch = malloc(SCRATCH_BYTES);
	rc = options_copy(core, options);
	if (rc == 0 && core->scratch == NULL) {
		rc = -ENOMEM;
	}
	if (rc == 0 && options->staging_bytes > 0) {
		rc = shm_staging_create(core);
	}
	if (rc == 0) {
		boot_start(core);
		rc = core->boot == NULL ? -ENOMEM : 0;
	}
	if (rc != 0) {
		core_destroy(core);
		return rc;
	}
	*ret_core = core;
	return 0;
}

void
core_close(struct core *core)
{
	struct core_batch *batch, *tmp;

	core->closing = true;
	io_timer_cancel(core->io, &core->gap);
	list_for_each_entry_safe(batch, tmp, &core->waiting, link) {
		list_del(&batch->link);
		list_add_tail(&core->live, &batch->link);
	}
	for (bool more = true; more;) {
		more = false;
		list_for_each_entry(batch, &core->live, link) {
			if (!batch->ended) {
				batch_end(core, batch, HR_REASON_CANCELLED);
				more = true;
				break; /* the list has changed */
			}
		}
	}
	calls_end(core, &core->calls, -ECANCELED);
	calls_end(core, &core->ready_calls, -ECANCELED);
	if (core->boot != NULL) {
		peer_bury(core, core->boot);
		core->boot = NULL;
	}
	for (unsigned i = 0; i < core->peers_count; i++) {
		peer_bury(core, core->peers[i]);
	}
	core->peers_count = 0;
}

bool
core_closed(const struct core *core)
{
	struct peer *peer;

	if (!core->closing || !list_empty(&core->live)) {
		return false;
	}
	list_for_each_entry(peer, &core->buried, link) {
		if (!peer_quiet(peer) || peer->slots_used > 0) {
			return false;
		}
	}
	return true;
}

void
core_destroy(struct core *core)
{
	struct core_space *space, *space_next;
	struct peer *peer, *peer_next;

	if (core == NULL) {
		return;
	}
	HR_ASSERT(list_empty(&core->live) && list_empty(&core->done));
	if (core->boot != NULL) {
		peer_destroy(core->boot);
	}
	list_for_each_entry_safe(peer, peer_next, &core->buried, link) {
		peer_destroy(peer);
	}
	shm_fini(core);
	list_for_each_entry_safe(space, space_next, &core->spaces, link) {
		free(space);
	}
	wire_map_free(&core->map);
	free(core->peers);
	free(core->scratch);
	options_free(core);
	free(core);
}

void
core_stat_get(const struct core *core, struct core_stat *ret)
{
	struct core_stat stat = core->stat;

	stat.requests_now = 0;
	stat.breakers_open_now = 0;
	for (unsigned i = 0; i < core->peers_count; i++) {
		stat.requests_now += core->peers[i]->slots_used;
		stat.breakers_open_now += peer_down(core->peers[i]);
	}
	*ret = stat;
}
