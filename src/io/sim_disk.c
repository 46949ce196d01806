/* sim_disk.c - simulated devices: contents in memory, latencies, faults, and what a power cut leaves.
 *
 * What:       `current` maps page numbers to shared, immutable pages: what reads see. A write that is not stable yet is remembered
 *             in order in `writes`, and `stable` keeps, for each page such a write touched, what the page was without them.
 * Power cut:  the stable pages come back, then the remembered writes are applied again in order, each whole, dropped, torn or
 *             garbled as drawn; a stable one that lies over an older unstable one is in the list, too, and applied whole.
 * Why so:     a drive with a cache may keep any subset of what it was not asked to make stable, but a later stable write is never
 *             undone by an older one.
 * Invariants: S1 a page has an entry in `stable` if and only if a remembered write touches it; `users` counts these. S2 the newest
 *             remembered write of a page, or nothing, made its current contents.
 * Tests:      tests/unit/io/test_sim.c
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "io/sim_impl.h"

enum { PAGE_BYTES = 4096, SECTOR_BYTES = 512, SECTORS_PER_PAGE = PAGE_BYTES / SECTOR_BYTES };

/* -- pages ------------------------------------------------------------------------------------------------------------------------ */

struct sim_page {
	uint32_t refs;
	uint8_t bytes[PAGE_BYTES];
};

/* A page of zeros costs nothing; so does one whose contents make_page gives again. */
static struct sim_page page_zero, page_made;

struct sim_stable {
	struct sim_page *page;
	uint32_t users;
};

struct sim_write {
	struct list_head link;
	uint64_t seq;
	bool stable;
	uint64_t page_no;
	uint64_t pages_count;
	struct sim_page *pages[];
};

struct bad_range {
	uint64_t off, len;
};

struct sim_device {
	struct list_head link;
	struct sim *sim;
	uint32_t id;
	char *name;
	struct sim_device_options options;
	struct hashmap current; /* page number -> struct sim_page, zeros and made ones are not in it */
	uint64_t *made;		/* PAYLOAD_FREE: one bit a page */
	struct hashmap stable; /* page number -> struct sim_stable */
	struct list_head writes;
	uint64_t write_seq;
	struct list_head inflight; /* struct sim_disk_op */
	uint64_t busy_until_us;
	uint32_t epoch; /* counts power cuts */
	uint64_t ops_count;
	uint64_t fail_after;
	int fail_err;
	bool fail_sticky;
	bool gone;
	struct bad_range *bad;
	size_t bad_count;
};

struct sim_disk {
	unsigned inflight;
};

struct sim_disk_op {
	struct sim_event event;
	struct list_head link;
	struct sim_device *dev;
	struct io_op *op;
	int err;
	bool dead;	       /* the device was opened before a power cut: no effect any more */
	uint64_t seq_at_begin; /* a sync covers the writes up to here */
};

static bool
page_is_real(const struct sim_page *page)
{
	return page != &page_zero && page != &page_made;
}

static struct sim_page *
page_new(void)
{
	struct sim_page *page = malloc(sizeof(*page));

	HR_ASSERT(page != NULL);
	page->refs = 1;
	return page;
}

static struct sim_page *
page_ref(struct sim_page *page)
{
	if (page_is_real(page)) {
		page->refs++;
	}
	return page;
}

static void
page_unref(struct sim_page *page)
{
	if (page_is_real(page) && --page->refs == 0) {
		free(page);
	}
}

static bool
made_get(const struct sim_device *dev, uint64_t no)
{
	return dev->made != NULL && (dev->made[no / 64] >> (no % 64) & 1) != 0;
}

static void
made_set(struct sim_device *dev, uint64_t no, bool made)
{
	if (dev->made != NULL) {
		dev->made[no / 64] &= ~((uint64_t)1 << (no % 64));
		dev->made[no / 64] |= (uint64_t)made << (no % 64);
	}
}

/* Borrowed. */
static struct sim_page *
current_get(struct sim_device *dev, uint64_t no)
{
	struct sim_page *page = hashmap_get_ptr(&dev->current, no);

	if (page != NULL) {
		return page;
	}
	return made_get(dev, no) ? &page_made : &page_zero;
}

/* Takes over the caller's reference. */
static void
current_set(struct sim_device *dev, uint64_t no, struct sim_page *page)
{
	struct sim_page *old = hashmap_get_ptr(&dev->current, no);

	made_set(dev, no, page == &page_made);
	if (page_is_real(page)) {
		HR_ASSERT(hashmap_put_ptr(&dev->current, no, page) == 0);
	} else if (old != NULL) {
		(void)hashmap_remove_ptr(&dev->current, no);
	}
	if (old != NULL) {
		page_unref(old);
	}
}

static void
page_bytes(struct sim_device *dev, uint64_t no, const struct sim_page *page, void *ret_bytes)
{
	if (page_is_real(page)) {
		memcpy(ret_bytes, page->bytes, PAGE_BYTES);
	} else if (page == &page_made) {
		dev->options.make_page(dev->options.arg, no * PAGE_BYTES, ret_bytes);
	} else {
		memset(ret_bytes, 0, PAGE_BYTES);
	}
}

static struct sim_page *
page_of_bytes(struct sim_device *dev, uint64_t no, const void *bytes)
{
	struct sim_page *page;

	if (dev->options.kind == SIM_DEVICE_PAYLOAD_FREE &&
	    !dev->options.keep_page(dev->options.arg, no * PAGE_BYTES, bytes)) {
		return &page_made;
	}
	if (is_all_zero(bytes, PAGE_BYTES)) {
		return &page_zero;
	}
	page = page_new();
	memcpy(page->bytes, bytes, PAGE_BYTES);
	return page;
}

/* -- writes that are not stable --------------------------------------------------------------------------------------------------- */

static struct sim_write *
write_new(struct sim_device *dev, const struct io_op *op)
{
	uint64_t count = op->bytes_total / PAGE_BYTES, done = 0;
	struct sim_write *w = malloc(sizeof(*w) + count * sizeof(struct sim_page *));
	unsigned i;

	HR_ASSERT(w != NULL);
	list_init(&w->link);
	w->stable = false;
	w->page_no = op->off / PAGE_BYTES;
	w->pages_count = count;
	for (i = 0; i < op->iov_count; i++) {
		const char *at = op->iov[i].iov_base;
		size_t off;

		for (off = 0; off < op->iov[i].iov_len; off += PAGE_BYTES, done++) {
			w->pages[done] = page_of_bytes(dev, w->page_no + done, at + off);
		}
	}
	HR_ASSERT(done == count);
	return w;
}

static void
write_free(struct sim_write *w)
{
	uint64_t i;

	for (i = 0; i < w->pages_count; i++) {
		page_unref(w->pages[i]);
	}
	list_del(&w->link);
	free(w);
}

static void
write_make_current(struct sim_device *dev, struct sim_write *w)
{
	uint64_t i;

	for (i = 0; i < w->pages_count; i++) {
		current_set(dev, w->page_no + i, page_ref(w->pages[i]));
	}
}

static bool
write_overlaps_remembered(struct sim_device *dev, const struct sim_write *w)
{
	uint64_t i;

	for (i = 0; i < w->pages_count && dev->stable.count > 0; i++) {
		if (hashmap_get_ptr(&dev->stable, w->page_no + i) != NULL) {
			return true;
		}
	}
	return false;
}

/* Call before write_make_current(). */
static void
write_remember(struct sim_device *dev, struct sim_write *w)
{
	uint64_t i;

	for (i = 0; i < w->pages_count; i++) {
		uint64_t no = w->page_no + i;
		struct sim_stable *s = hashmap_get_ptr(&dev->stable, no);

		if (s == NULL) {
			s = malloc(sizeof(*s));
			HR_ASSERT(s != NULL);
			s->page = page_ref(current_get(dev, no));
			s->users = 0;
			HR_ASSERT(hashmap_put_ptr(&dev->stable, no, s) == 0);
		}
		s->users++;
	}
	w->seq = ++dev->write_seq;
	list_add_tail(&dev->writes, &w->link);
}

/* The write is stable and nothing older over it is undecided: it becomes part of the stable pages and is forgotten. */
static void
write_settle(struct sim_device *dev, struct sim_write *w)
{
	uint64_t i;

	for (i = 0; i < w->pages_count; i++) {
		uint64_t no = w->page_no + i;
		struct sim_stable *s = hashmap_get_ptr(&dev->stable, no);

		HR_ASSERT(s != NULL && s->users > 0);
		page_unref(s->page);
		s->page = page_ref(w->pages[i]);
		if (--s->users == 0) {
			page_unref(s->page);
			(void)hashmap_remove_ptr(&dev->stable, no);
			free(s);
		}
	}
	write_free(w);
}

static bool
write_covers_older_unstable(struct sim_device *dev, const struct sim_write *w)
{
	struct sim_write *older;

	list_for_each_entry(older, &dev->writes, link) {
		if (older == w) {
			return false;
		}
		if (older->page_no < w->page_no + w->pages_count &&
		    w->page_no < older->page_no + older->pages_count) {
			return true; /* A settled one would not be in the list. */
		}
	}
	return false;
}

static void
writes_settle(struct sim_device *dev)
{
	struct sim_write *w, *next;
	bool undecided = false;

	list_for_each_entry_safe(w, next, &dev->writes, link) {
		if (w->stable && !(undecided && write_covers_older_unstable(dev, w))) {
			write_settle(dev, w);
		} else {
			undecided = true;
		}
	}
}

static void
device_write(struct sim_device *dev, const struct io_op *op, bool stable)
{
	struct sim_write *w = write_new(dev, op);

	if (stable && !write_overlaps_remembered(dev, w)) {
		write_make_current(dev, w);
		write_free(w);
		return;
	}
	write_remember(dev, w);
	write_make_current(dev, w);
	w->stable = stable;
	if (stable) {
		writes_settle(dev);
	}
}

static void
device_sync(struct sim_device *dev, uint64_t seq)
{
	struct sim_write *w;

	list_for_each_entry(w, &dev->writes, link) {
		if (w->seq <= seq) {
			w->stable = true;
		}
	}
	writes_settle(dev);
}

/* -- operations --------------------------------------------------------------------------------------------------------------------- */

static bool
read_hits_bad_range(const struct sim_device *dev, const struct io_op *op)
{
	size_t i;

	for (i = 0; i < dev->bad_count; i++) {
		if (op->off < dev->bad[i].off + dev->bad[i].len &&
		    dev->bad[i].off < op->off + op->bytes_total) {
			return true;
		}
	}
	return false;
}

static void
device_read(struct sim_device *dev, const struct io_op *op)
{
	uint64_t no = op->off / PAGE_BYTES;
	unsigned i;

	for (i = 0; i < op->iov_count; i++) {
		char *at = op->iov[i].iov_base;
		size_t off;

		for (off = 0; off < op->iov[i].iov_len; off += PAGE_BYTES, no++) {
			page_bytes(dev, no, current_get(dev, no), at + off);
		}
	}
}

/* Nobody may rely on a failed write's range: a drawn part of it has reached the device, and is not stable. */
static void
device_write_failed(struct sim_device *dev, const struct io_op *op)
{
	struct sim_write *w = write_new(dev, op);
	uint64_t kept = sim_draw_between(dev->sim, 0, w->pages_count);
	uint64_t i;

	for (i = kept; i < w->pages_count; i++) {
		page_unref(w->pages[i]);
		w->pages[i] = page_ref(current_get(dev, w->page_no + i));
	}
	write_remember(dev, w);
	write_make_current(dev, w);
}

static int64_t
op_effect(struct sim_device *dev, const struct sim_disk_op *d)
{
	const struct io_op *op = d->op;

	if (dev->gone) {
		return -ENODEV;
	}
	if (d->dead) {
		return -EIO;
	}
	if (d->err != 0) {
		if (op->kind == IO_OP_WRITE) {
			device_write_failed(dev, op);
		}
		return d->err;
	}
	switch (op->kind) {
	case IO_OP_READ:
		if (read_hits_bad_range(dev, op)) {
			return -EIO;
		}
		device_read(dev, op);
		break;
	case IO_OP_WRITE:
		device_write(dev, op, (op->flags & IO_WRITE_DSYNC) != 0);
		break;
	default:
		device_sync(dev, d->seq_at_begin);
		break;
	}
	return (int64_t)op->bytes_total;
}

static void
op_end(struct sim_disk_op *d, int64_t result)
{
	struct io *io = d->op->device->io;
	struct sim_disk *disk = io->disk;

	sim_trace(d->dev->sim, "device-done", d->dev->id, d->op->kind, d->op->off, result);
	list_del(&d->link);
	disk->inflight--;
	io_op_complete(io, d->op, result);
	free(d);
}

static void
op_fire(struct sim *sim, struct sim_event *event)
{
	struct sim_disk_op *d = container_of(event, struct sim_disk_op, event);

	(void)sim;
	op_end(d, op_effect(d->dev, d));
}

static void
op_drop(struct sim *sim, struct sim_event *event)
{
	(void)sim;
	(void)event;
	HR_ASSERT(!"a device operation outlives its io");
}

static int
fault_draw(struct sim_device *dev)
{
	dev->ops_count++;
	if (dev->fail_after == 0 || --dev->fail_after > 0) {
		return 0;
	}
	if (dev->fail_sticky) {
		dev->fail_after = 1;
	}
	return dev->fail_err;
}

static bool
sim_disk_submit(struct io *io, struct io_op *op)
{
	struct sim_disk *disk = io->disk;
	struct sim_device *dev = op->device->priv;
	struct sim *sim = dev->sim;
	struct sim_disk_op *d;
	uint64_t start_us;

	if (disk->inflight >= IO_DISK_INFLIGHT_MAX) {
		return false;
	}
	disk->inflight++;
	d = calloc(1, sizeof(*d));
	HR_ASSERT(d != NULL);
	d->event.fire = op_fire;
	d->event.drop = op_drop;
	d->dev = dev;
	d->op = op;
	d->seq_at_begin = dev->write_seq;
	d->err = fault_draw(dev);
	d->dead = (uint32_t)op->device->file_slot != dev->epoch;
	sim_trace(sim, "device-op", dev->id, op->kind, op->off, (int64_t)op->bytes_total);
	start_us = HR_MAX(sim->now_us, dev->busy_until_us);
	if (dev->options.bytes_per_second > 0) {
		start_us += (uint64_t)((double)op->bytes_total * 1e6 /
				       (double)dev->options.bytes_per_second);
		dev->busy_until_us = start_us;
	}
	list_add_tail(&dev->inflight, &d->link);
	sim_event_at(sim, &d->event,
		     start_us + sim_draw_between(sim, dev->options.latency_us_min,
						 dev->options.latency_us_max));
	return true;
}

/* -- the backend -------------------------------------------------------------------------------------------------------------------- */

static struct sim_device *
device_find(const struct sim *sim, const char *name)
{
	struct sim_device *dev;

	list_for_each_entry(dev, &sim->devices, link) {
		if (strcmp(dev->name, name) == 0) {
			return dev;
		}
	}
	return NULL;
}

static struct sim_device *
device_get(const struct sim *sim, const char *name)
{
	struct sim_device *dev = device_find(sim, name);

	HR_ASSERTF(dev != NULL, "the world has no device \"%s\"", name);
	return dev;
}

static int
sim_disk_create(struct io *io)
{
	io->disk = calloc(1, sizeof(struct sim_disk));
	return io->disk != NULL ? 0 : -ENOMEM;
}

static void
sim_disk_destroy(struct io *io)
{
	free(io->disk);
	io->disk = NULL;
}

static int
sim_disk_device_open(struct io_device *device)
{
	struct sim_device *dev = device_find(device->io->sim, device->path);

	if (dev == NULL || dev->gone) {
		return -ENODEV;
	}
	device->priv = dev;
	device->file_slot = (int)dev->epoch;
	device->info.size_bytes = dev->options.size_bytes;
	device->info.align_bytes = IO_ALIGN_BYTES;
	device->info.direct = true;
	device->info.block_device = dev->options.block_device;
	return 0;
}

static void
sim_disk_device_close(struct io_device *device)
{
	device->priv = NULL;
}

static void
sim_disk_flush(struct io *io)
{
	(void)io;
}

static bool
sim_disk_wait_prepare(struct io *io)
{
	(void)io;
	return false;
}

static int
sim_disk_memory_register(struct io *io, void *base, size_t len)
{
	(void)io;
	(void)base;
	(void)len;
	return 0;
}

static void
sim_disk_memory_unregister(struct io *io, void *base, size_t len)
{
	(void)io;
	(void)base;
	(void)len;
}

const struct io_disk_ops disk_sim_ops = {
	.name = "simulated",
	.create = sim_disk_create,
	.destroy = sim_disk_destroy,
	.device_open = sim_disk_device_open,
	.device_close = sim_disk_device_close,
	.submit = sim_disk_submit,
	.flush = sim_disk_flush,
	.wait_prepare = sim_disk_wait_prepare,
	.reap = sim_disk_flush,
	.memory_register = sim_disk_memory_register,
	.memory_unregister = sim_disk_memory_unregister,
};

/* -- calls of sim.h ------------------------------------------------------------------------------------------------------------------- */

int
sim_device_add(struct sim *sim, const char *name, const struct sim_device_options *options)
{
	uint64_t pages = div_round_up(options->size_bytes, PAGE_BYTES);
	struct sim_device *dev;

	if (options->kind == SIM_DEVICE_PAYLOAD_FREE &&
	    (options->keep_page == NULL || options->make_page == NULL)) {
		return -EINVAL;
	}
	if (device_find(sim, name) != NULL) {
		return -EEXIST;
	}
	dev = calloc(1, sizeof(*dev));
	if (dev == NULL) {
		return -ENOMEM;
	}
	dev->name = strdup(name);
	if (options->kind == SIM_DEVICE_PAYLOAD_FREE) {
		dev->made = calloc(div_round_up(pages, 64), sizeof(*dev->made));
	}
	if (dev->name == NULL || (options->kind == SIM_DEVICE_PAYLOAD_FREE && dev->made == NULL)) {
		free(dev->name);
		free(dev);
		return -ENOMEM;
	}
	dev->sim = sim;
	dev->id = ++sim->device_id_last;
	dev->options = *options;
	hashmap_init(&dev->current, 1);
	hashmap_init(&dev->stable, 2);
	list_init(&dev->writes);
	list_init(&dev->inflight);
	list_add_tail(&sim->devices, &dev->link);
	return 0;
}

static void
stable_forget(struct sim_device *dev, bool restore)
{
	size_t i;

	for (i = 0; dev->stable.count > 0 && i <= dev->stable.mask; i++) {
		struct hashmap_slot *slot = &dev->stable.slots[i];
		struct sim_stable *s = (struct sim_stable *)(uintptr_t)slot->value;

		if (slot->used == 0) {
			continue;
		}
		if (restore) {
			current_set(dev, slot->key[0], page_ref(s->page));
		}
		page_unref(s->page);
		free(s);
	}
	hashmap_fini(&dev->stable);
	hashmap_init(&dev->stable, 2);
}

void
sim_devices_free(struct sim *sim)
{
	struct sim_device *dev;

	while ((dev = list_pop_entry(&sim->devices, struct sim_device, link)) != NULL) {
		size_t i;

		HR_ASSERT(list_empty(&dev->inflight));
		while (!list_empty(&dev->writes)) {
			write_free(list_first_entry(&dev->writes, struct sim_write, link));
		}
		stable_forget(dev, false);
		for (i = 0; dev->current.count > 0 && i <= dev->current.mask; i++) {
			if (dev->current.slots[i].used != 0) {
				page_unref(
				    (struct sim_page *)(uintptr_t)dev->current.slots[i].value);
			}
		}
		hashmap_fini(&dev->current);
		free(dev->made);
		free(dev->bad);
		free(dev->name);
		free(dev);
	}
}

/* Sectors [first, end) of the write come from `noise` or from the write; the others stay as they are. */
static void
cut_apply(struct sim_device *dev, const struct sim_write *w, uint64_t first, uint64_t end,
	  bool noise)
{
	uint64_t i, sector;

	for (i = first / SECTORS_PER_PAGE; i < w->pages_count && i * SECTORS_PER_PAGE < end; i++) {
		uint64_t no = w->page_no + i;
		uint8_t written[PAGE_BYTES];
		struct sim_page *page;

		if (!noise && i * SECTORS_PER_PAGE >= first && (i + 1) * SECTORS_PER_PAGE <= end) {
			current_set(dev, no, page_ref(w->pages[i])); /* whole: stays payload-free */
			continue;
		}
		page = page_new();
		page_bytes(dev, no, current_get(dev, no), page->bytes);
		page_bytes(dev, no, w->pages[i], written);
		for (sector = 0; sector < SECTORS_PER_PAGE; sector++) {
			uint64_t at = i * SECTORS_PER_PAGE + sector;

			if (at < first || at >= end) {
				continue;
			}
			if (noise) {
				prng_bytes(&dev->sim->prng, page->bytes + sector * SECTOR_BYTES,
					   SECTOR_BYTES);
			} else {
				memcpy(page->bytes + sector * SECTOR_BYTES,
				       written + sector * SECTOR_BYTES, SECTOR_BYTES);
			}
		}
		current_set(dev, no, page);
	}
}

static void
cut_write(struct sim_device *dev, const struct sim_write *w, unsigned how)
{
	static const unsigned kinds[] = { 0, SIM_CUT_DROP, SIM_CUT_TEAR, SIM_CUT_GARBLE };
	uint64_t sectors = w->pages_count * SECTORS_PER_PAGE, a, b;
	unsigned fates[4], count = 0, i, fate;

	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (kinds[i] == 0 || (how & kinds[i]) != 0) {
			fates[count++] = kinds[i];
		}
	}
	fate = w->stable ? 0 : fates[prng_below(&dev->sim->prng, count)];
	sim_trace(dev->sim, "cut", dev->id, w->page_no, w->pages_count, fate);
	switch (fate) {
	case SIM_CUT_DROP:
		break;
	case SIM_CUT_TEAR: /* Drives do not promise an order of sectors: the front or the back arrives. */
		a = prng_below(&dev->sim->prng, sectors + 1);
		if (prng_below(&dev->sim->prng, 2) == 0) {
			cut_apply(dev, w, 0, a, false);
		} else {
			cut_apply(dev, w, a, sectors, false);
		}
		break;
	case SIM_CUT_GARBLE:
		a = prng_below(&dev->sim->prng, sectors);
		b = a + 1 + prng_below(&dev->sim->prng, sectors - a);
		cut_apply(dev, w, 0, sectors, false);
		cut_apply(dev, w, a, b, true);
		break;
	default:
		cut_apply(dev, w, 0, sectors, false);
		break;
	}
}

void
sim_power_cut(struct sim *sim, const char *name, unsigned how)
{
	struct sim_device *dev = device_get(sim, name);
	struct sim_disk_op *d;

	sim_trace(sim, "power-cut", dev->id, how, 0, 0);
	dev->epoch++;
	/* What was on its way may have arrived as well as what was in the cache. */
	while ((d = list_first_entry(&dev->inflight, struct sim_disk_op, link)) != NULL) {
		sim_event_cancel(sim, &d->event);
		if (d->op->kind == IO_OP_WRITE && d->err == 0 && !d->dead) {
			device_write(dev, d->op, false);
		}
		op_end(d, -EIO);
	}
	stable_forget(dev, true);
	while (!list_empty(&dev->writes)) {
		struct sim_write *w = list_first_entry(&dev->writes, struct sim_write, link);

		cut_write(dev, w, how);
		write_free(w);
	}
	dev->busy_until_us = 0;
}

void
sim_device_fail_nth(struct sim *sim, const char *name, uint64_t n, int err, bool sticky)
{
	struct sim_device *dev = device_get(sim, name);

	dev->fail_after = n;
	dev->fail_err = err > 0 ? -err : err;
	dev->fail_sticky = sticky;
}

void
sim_device_bad_range(struct sim *sim, const char *name, uint64_t off, uint64_t len)
{
	struct sim_device *dev = device_get(sim, name);

	if (len == 0) {
		dev->bad_count = 0;
		return;
	}
	dev->bad = realloc(dev->bad, (dev->bad_count + 1) * sizeof(*dev->bad));
	HR_ASSERT(dev->bad != NULL);
	dev->bad[dev->bad_count++] = (struct bad_range){ off, len };
}

void
sim_device_gone(struct sim *sim, const char *name, bool gone)
{
	device_get(sim, name)->gone = gone;
}

int
sim_device_peek(struct sim *sim, const char *name, uint64_t off, void *buf, uint64_t len)
{
	struct sim_device *dev = device_find(sim, name);
	uint8_t bytes[PAGE_BYTES];
	uint64_t done, part;

	if (dev == NULL) {
		return -ENODEV;
	}
	if (off > dev->options.size_bytes || len > dev->options.size_bytes - off) {
		return -EINVAL;
	}
	for (done = 0; done < len; done += part) {
		uint64_t at = (off + done) % PAGE_BYTES, no = (off + done) / PAGE_BYTES;

		part = HR_MIN(len - done, PAGE_BYTES - at);
		page_bytes(dev, no, current_get(dev, no), bytes);
		memcpy((char *)buf + done, bytes + at, part);
	}
	return 0;
}

static struct sim_page *
page_patched(struct sim_device *dev, uint64_t no, const struct sim_page *old, uint64_t at,
	     const void *bytes, uint64_t len)
{
	struct sim_page *page = page_new();

	page_bytes(dev, no, old, page->bytes);
	memcpy(page->bytes + at, bytes, len);
	return page;
}

/* Damage is damage also after a power cut: it goes below the writes that are not stable, too. */
int
sim_device_poke(struct sim *sim, const char *name, uint64_t off, const void *buf, uint64_t len)
{
	struct sim_device *dev = device_find(sim, name);
	uint64_t done, part;

	if (dev == NULL) {
		return -ENODEV;
	}
	if (off > dev->options.size_bytes || len > dev->options.size_bytes - off) {
		return -EINVAL;
	}
	for (done = 0; done < len; done += part) {
		uint64_t at = (off + done) % PAGE_BYTES, no = (off + done) / PAGE_BYTES;
		const char *from = (const char *)buf + done;
		struct sim_stable *s = hashmap_get_ptr(&dev->stable, no);

		part = HR_MIN(len - done, PAGE_BYTES - at);
		if (s != NULL) {
			struct sim_page *page = page_patched(dev, no, s->page, at, from, part);

			page_unref(s->page);
			s->page = page;
		}
		current_set(dev, no, page_patched(dev, no, current_get(dev, no), at, from, part));
	}
	return 0;
}

uint64_t
sim_device_ops(const struct sim *sim, const char *name)
{
	return device_get(sim, name)->ops_count;
}
