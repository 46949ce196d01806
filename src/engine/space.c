/* space.c - rows live in DRAM; every change writes the whole table to the slot that is not the newest.
 *
 * One write at a time. Changes made during a write are covered by the next one, which begins at once. When nothing is left to
 * acknowledge, the older slot is brought up to date as well: otherwise one damaged page could undo the last change, and bring a
 * dropped space back or give its number away twice.
 */
#include "engine/space.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <headrace/error.h>

#include "base/error.h"
#include "base/list.h"
#include "engine/blocking.h"
#include "engine/layout.h"

struct entry {
	struct space_row row; /* first: a row pointer is an entry pointer */
	bool durable; /* known to be on flash; others are invisible, because their number may be given away again */
};

struct waiter {
	struct list_head link;
	void (*cb)(void *arg, int rc);
	void (*cb_row)(void *arg, int rc, struct space_row *row);
	void *arg;
	struct entry *entry;
	int rc;
};

struct space_table {
	struct io *io;
	struct io_device *device;
	struct superblock slice;
	struct entry **entries; /* by number, growing */
	uint32_t entries_count;
	uint32_t next_number;
	uint64_t sequence;
	unsigned slot_newest;	  /* 0 or 1 */
	uint64_t version;	  /* counts changes */
	uint64_t slot_version[2]; /* the newest change that each slot holds */
	uint64_t writing_version;
	uint32_t slots_damaged;
	bool writing;
	void (*error_cb)(void *arg, int rc);
	void *error_arg;
	void (*quiet_cb)(void *arg);
	void *quiet_arg;
	struct list_head waiting;    /* for the next write */
	struct list_head in_write;   /* for the one under way */
	struct list_head nothing_to; /* answered by the timer: no write was needed */
	struct io_timer timer;
	struct io_op op;
	struct iovec iov;
	uint8_t *buf; /* SPACE_TABLE_BYTES */
	const struct space_row *rows[SPACE_ROWS_MAX];
};

int
space_table_create(struct io *io, struct io_device *device, const struct superblock *slice,
		   struct space_table **ret_table)
{
	struct space_table *table = calloc(1, sizeof(*table));

	if (table == NULL) {
		return -ENOMEM;
	}
	table->entries = calloc(SPACE_ROWS_MAX, sizeof(*table->entries));
	table->buf = page_alloc(SPACE_TABLE_BYTES);
	if (table->entries == NULL || table->buf == NULL) {
		free(table->entries);
		free(table->buf);
		free(table);
		return -ENOMEM;
	}
	table->io = io;
	table->device = device;
	table->slice = *slice;
	table->next_number = 1;
	list_init(&table->waiting);
	list_init(&table->in_write);
	list_init(&table->nothing_to);
	*ret_table = table;
	return 0;
}

void
space_table_on_error(struct space_table *table, void (*cb)(void *arg, int rc), void *arg)
{
	table->error_cb = cb;
	table->error_arg = arg;
}

void
space_table_destroy(struct space_table *table)
{
	if (table == NULL) {
		return;
	}
	HR_ASSERT(!table->writing && list_empty(&table->waiting) && list_empty(&table->nothing_to));
	io_timer_cancel(table->io, &table->timer);
	for (uint32_t i = 0; i < table->entries_count; i++) {
		free(table->entries[i]);
	}
	free(table->entries);
	free(table->buf);
	free(table);
}

/* -- loading -------------------------------------------------------------------------------------------------------------------- */

static int
rows_take(struct space_table *table, const uint8_t *bytes, const struct space_slot *slot)
{
	uint32_t last = 0;

	for (uint32_t i = 0; i < slot->rows_count; i++) {
		struct entry *e = calloc(1, sizeof(*e));
		int rc = e == NULL ? -ENOMEM : space_row_decode(bytes, i, &e->row);

		if (rc == 0 && (e->row.number <= last || e->row.number >= slot->next_number)) {
			rc = -HR_ECORRUPT;
		}
		if (rc != 0) {
			free(e);
			return rc;
		}
		last = e->row.number;
		e->durable = true;
		table->entries[table->entries_count++] = e;
	}
	table->next_number = slot->next_number;
	table->sequence = slot->sequence;
	return 0;
}

int
space_table_load(struct space_table *table, char detail[DETAIL_BYTES])
{
	struct space_slot slots[2];
	uint8_t *bytes[2] = { page_alloc(SPACE_TABLE_BYTES), page_alloc(SPACE_TABLE_BYTES) };
	int rcs[2] = { -ENOMEM, -ENOMEM };
	int rc = -ENOMEM;
	int best = -1;

	for (int i = 0; i < 2 && bytes[0] != NULL && bytes[1] != NULL; i++) {
		rcs[i] =
		    blocking_read(table->io, table->device,
				  table->slice.slice_off_bytes + table->slice.space_table_off[i],
				  bytes[i], SPACE_TABLE_BYTES);
		rcs[i] = rcs[i] != 0 ? rcs[i]
				     : space_slot_decode(&table->slice, bytes[i], SPACE_TABLE_BYTES,
							 &slots[i]);
		if (rcs[i] == 0 && (best < 0 || slots[i].sequence > slots[best].sequence)) {
			best = i;
		}
	}
	if (best >= 0) {
		rc = rows_take(table, bytes[best], &slots[best]);
		table->slot_newest = (unsigned)best;
		/* Slot B is blank until the first change. */
		table->slots_damaged =
		    rcs[1 - best] != 0 &&
		    !(slots[best].sequence <= 2 && is_all_zero(bytes[1 - best], PAGE_BYTES));
	} else if (rcs[0] == -HR_ECORRUPT && rcs[1] == -HR_ECORRUPT && table->slice.sequence == 0) {
		rc = 0;
	} else if (rcs[0] != -ENOMEM) {
		rc = rcs[0] == -HR_EVERSION || rcs[1] == -HR_EVERSION ? -HR_EVERSION : -HR_ECORRUPT;
	}
	if (rc != 0) {
		snprintf(detail, DETAIL_BYTES,
			 "shard %u: both copies of the space table are unusable (%s)",
			 table->slice.shard_idx, error_text(rc));
	}
	free(bytes[0]);
	free(bytes[1]);
	return rc;
}

/* -- writing -------------------------------------------------------------------------------------------------------------------- */

static void write_start(struct space_table *table);

static void
waiter_answer(struct waiter *w, int rc)
{
	rc = w->rc != 0 ? w->rc : rc;
	if (w->cb_row != NULL) {
		w->cb_row(w->arg, rc, rc == 0 ? &w->entry->row : NULL);
	} else if (w->cb != NULL) {
		w->cb(w->arg, rc);
	}
	if (w->entry != NULL) {
		w->entry->row.users--;
	}
	free(w);
}

static void
waiters_answer(struct list_head *list, int rc)
{
	struct list_head now;
	struct waiter *w;

	list_init(&now);
	list_splice_tail(&now, list);
	while ((w = list_pop_entry(&now, struct waiter, link)) != NULL) {
		waiter_answer(w, rc);
	}
}

/* Rows made since the write began are not in it. */
static void
rows_written(struct space_table *table)
{
	uint32_t next_number = get_le32(table->buf + 44);

	for (uint32_t i = 0; i < table->entries_count; i++) {
		if (table->entries[i]->row.number < next_number) {
			table->entries[i]->durable = true;
		}
	}
}

static void
quiet_check(struct space_table *table)
{
	void (*cb)(void *arg) = table->quiet_cb;

	if (cb != NULL && !table->writing && list_empty(&table->waiting) &&
	    list_empty(&table->nothing_to)) {
		table->quiet_cb = NULL;
		cb(table->quiet_arg);
	}
}

static void
write_done(void *arg, int64_t result)
{
	struct space_table *table = arg;
	struct list_head answered;
	int rc = result < 0 ? (int)result : 0;

	list_init(&answered);
	list_splice_tail(&answered, &table->in_write);
	table->writing = false;
	if (rc == 0) {
		table->slot_newest = 1 - table->slot_newest;
		table->slot_version[table->slot_newest] = table->writing_version;
		rows_written(table);
	} else if (table->error_cb != NULL) {
		table->error_cb(table->error_arg, rc);
	}
	/* A write that failed is not tried again before the next change; the newest slot on flash is still whole. */
	if (!list_empty(&table->waiting) ||
	    (rc == 0 && table->slot_version[1 - table->slot_newest] < table->version)) {
		write_start(table);
	}
	waiters_answer(&answered, rc);
	quiet_check(table);
}

static void
write_start(struct space_table *table)
{
	struct space_slot slot = { table->sequence + 1, table->entries_count, table->next_number };
	unsigned target = 1 - table->slot_newest;

	HR_ASSERT(!table->writing && list_empty(&table->in_write));
	for (uint32_t i = 0; i < table->entries_count; i++) {
		table->rows[i] = &table->entries[i]->row;
	}
	table->writing = true;
	table->writing_version = table->version;
	table->sequence++;
	list_splice_tail(&table->in_write, &table->waiting);
	table->iov = (struct iovec){ table->buf, space_slot_encode(&table->slice, &slot,
								   table->rows, table->buf) };
	io_device_write(table->device, &table->op, &table->iov, 1,
			table->slice.slice_off_bytes + table->slice.space_table_off[target],
			IO_WRITE_DSYNC, write_done, table);
}

static void
timer_due(void *arg)
{
	struct space_table *table = arg;

	waiters_answer(&table->nothing_to, 0);
	quiet_check(table);
}

void
space_table_quiesce(struct space_table *table, void (*cb)(void *arg), void *arg)
{
	table->quiet_cb = cb;
	table->quiet_arg = arg;
	io_timer_set(table->io, &table->timer, io_now_us(table->io), timer_due, table);
}

static struct waiter *
waiter_make(struct list_head *list, struct entry *entry, void *arg)
{
	struct waiter *w = calloc(1, sizeof(*w));

	HR_ASSERT(w != NULL);
	w->entry = entry;
	if (entry != NULL) {
		entry->row.users++;
	}
	w->arg = arg;
	list_add_tail(list, &w->link);
	return w;
}

/* The table changed: it goes to both slots, and the waiter hears of the first. */
static void
changed(struct space_table *table)
{
	table->version++;
	if (!table->writing) {
		write_start(table);
	}
}

/* -- rows ----------------------------------------------------------------------------------------------------------------------- */

static struct entry *
entry_find(struct space_table *table, const uint8_t tenant[16], const uint8_t digest[32])
{
	for (uint32_t i = 0; i < table->entries_count; i++) {
		struct entry *e = table->entries[i];

		if (memcmp(e->row.digest, digest, 32) == 0 &&
		    memcmp(e->row.tenant, tenant, 16) == 0) {
			return e;
		}
	}
	return NULL;
}

struct space_row *
space_find(struct space_table *table, const uint8_t tenant[16], const uint8_t digest[32])
{
	struct entry *e = entry_find(table, tenant, digest);

	return e == NULL || !e->durable ? NULL : &e->row;
}

struct space_row *
space_by_number(struct space_table *table, uint32_t number)
{
	uint32_t low = 0;
	uint32_t high = table->entries_count;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;
		struct entry *e = table->entries[mid];

		if (e->row.number == number) {
			return e->durable ? &e->row : NULL;
		}
		if (e->row.number < number) {
			low = mid + 1;
		} else {
			high = mid;
		}
	}
	return NULL;
}

/* As much of a label as fits, without cutting a UTF-8 character. */
static void
label_set(struct space_row *row, const char *label)
{
	size_t len = label != NULL ? strnlen(label, sizeof(row->label)) : 0;

	if (len == sizeof(row->label)) {
		len--;
		while (len > 0 && ((uint8_t)label[len] & 0xc0) == 0x80) {
			len--;
		}
	}
	memset(row->label, 0, sizeof(row->label));
	memcpy(row->label, label != NULL ? label : "", len);
}

static struct entry *
entry_make(struct space_table *table, const uint8_t tenant[16], const uint8_t digest[32],
	   const char *label)
{
	struct entry *e = calloc(1, sizeof(*e));

	HR_ASSERT(e != NULL);
	e->row.number = table->next_number++;
	e->row.generation = 1;
	e->row.created_ms = io_wall_ms(table->io);
	memcpy(e->row.digest, digest, 32);
	memcpy(e->row.tenant, tenant, 16);
	label_set(&e->row, label);
	table->entries[table->entries_count++] = e;
	return e;
}

void
space_open(struct space_table *table, const uint8_t tenant[16], const uint8_t digest[32],
	   const char *label, void (*cb)(void *arg, int rc, struct space_row *row), void *arg)
{
	struct entry *e = entry_find(table, tenant, digest);

	if (e != NULL && e->durable) {
		waiter_make(&table->nothing_to, e, arg)->cb_row = cb;
		io_timer_set(table->io, &table->timer, io_now_us(table->io), timer_due, table);
		return;
	}
	if (e == NULL && table->entries_count == SPACE_ROWS_MAX) {
		struct waiter *w = waiter_make(&table->nothing_to, NULL, arg);

		w->cb_row = cb;
		w->rc = -ENOSPC;
		io_timer_set(table->io, &table->timer, io_now_us(table->io), timer_due, table);
		return;
	}
	if (e == NULL) {
		e = entry_make(table, tenant, digest, label);
	}
	waiter_make(&table->waiting, e, arg)->cb_row = cb;
	changed(table);
}

void
space_drop(struct space_table *table, struct space_row *row, uint64_t birth,
	   uint64_t segment_generation, void (*cb)(void *arg, int rc), void *arg)
{
	row->generation++;
	row->drop_birth = birth;
	row->drop_generation = segment_generation;
	row->used = false;
	waiter_make(&table->waiting, NULL, arg)->cb = cb;
	changed(table);
}

void
space_set(struct space_table *table, struct space_row *row, uint64_t quota_bytes,
	  uint64_t pin_budget_bytes, const char *label, void (*cb)(void *arg, int rc), void *arg)
{
	if (quota_bytes != UINT64_MAX) {
		row->quota_bytes = quota_bytes;
	}
	if (pin_budget_bytes != UINT64_MAX) {
		row->pin_budget_bytes = pin_budget_bytes;
	}
	if (label != NULL) {
		label_set(row, label);
	}
	waiter_make(&table->waiting, NULL, arg)->cb = cb;
	changed(table);
}

/* The number is never given again, so what other generations left on flash stays dead without a row. A record of its own generation
 * must not be there: were the newer slot lost, the row would be back, and with it what was deleted by tombstones that nobody kept. */
uint32_t
space_table_trim(struct space_table *table, struct space_row **ret_idle)
{
	uint32_t kept = 0, idle = 0;

	for (uint32_t i = 0; i < table->entries_count; i++) {
		struct entry *e = table->entries[i];
		const struct space_row *row = &e->row;
		bool spare = e->durable && row->users == 0 && row->usage_blocks == 0 &&
			     row->drops_pending == 0 && row->quota_bytes == 0 &&
			     row->pin_budget_bytes == 0;

		if (spare && !row->used) {
			free(e);
			continue;
		}
		table->entries[kept++] = e;
		if (spare) {
			ret_idle[idle++] = &e->row;
		}
	}
	if (kept != table->entries_count) {
		table->entries_count = kept;
		changed(table);
	}
	return idle;
}

struct space_row *
space_next(struct space_table *table, uint32_t *cursor)
{
	/* The cursor is the last number seen, so that rows may come and go between calls. */
	for (uint32_t i = 0; i < table->entries_count; i++) {
		struct entry *e = table->entries[i];

		if (e->durable && e->row.number > *cursor) {
			*cursor = e->row.number;
			return &e->row;
		}
	}
	return NULL;
}

uint32_t
space_count(const struct space_table *table)
{
	return table->entries_count;
}

uint32_t
space_table_slots_damaged(const struct space_table *table)
{
	return table->slots_damaged;
}

bool
space_table_busy(const struct space_table *table)
{
	return table->writing;
}
