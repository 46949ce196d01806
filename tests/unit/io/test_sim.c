/* test_sim.c - the simulated world: the same seed gives the same events, and devices lose what they may and nothing else. */
#include "io_test.h"

#include "base/prng.h"

enum { PAGE = 4096, DEVICE_BYTES = 4 << 20 };

/* -- helpers -------------------------------------------------------------------------------------------------------------------- */

static struct sim *
world(uint64_t seed)
{
	struct sim_device_options options = { .kind = SIM_DEVICE_BYTES,
					      .size_bytes = DEVICE_BYTES,
					      .latency_us_min = 50,
					      .latency_us_max = 200 };
	struct sim *sim;

	assert_int_equal(sim_create(seed, &sim), 0);
	assert_int_equal(sim_seed(sim), seed);
	assert_int_equal(sim_device_add(sim, "disk", &options), 0);
	assert_int_equal(sim_device_add(sim, "disk", &options), -EEXIST);
	return sim;
}

static struct io *
inhabitant(struct sim *sim)
{
	struct io_options options = { .disk = IO_DISK_SIM, .net = IO_NET_SIM, .sim = sim };
	struct io *io;

	assert_int_equal(io_create(&options, &io), 0);
	return io;
}

static void *
page_of(uint8_t byte, size_t count)
{
	void *p = aligned_alloc(PAGE, count * PAGE);

	assert_non_null(p);
	memset(p, byte, count * PAGE);
	return p;
}

struct disk {
	struct sim *sim;
	struct io *io;
	struct io_device *device;
};

static struct disk
disk_open(uint64_t seed)
{
	struct disk d = { .sim = world(seed) };

	d.io = inhabitant(d.sim);
	assert_int_equal(io_device_open(d.io, "disk", 0, &d.device), 0);
	return d;
}

static void
disk_close(struct disk *d)
{
	io_device_close(d->device);
	io_destroy(d->io);
	sim_destroy(d->sim);
}

static void
disk_reopen(struct disk *d)
{
	io_device_close(d->device);
	assert_int_equal(io_device_open(d->io, "disk", 0, &d->device), 0);
}

static int64_t
op_wait(struct disk *d, struct outcome *o)
{
	run_until(d->io, &o->done);
	assert_int_equal(o->times, 1);
	return o->result;
}

/* Writes `count` pages of one byte. */
static int64_t
put(struct disk *d, uint64_t page_no, size_t count, uint8_t byte, unsigned flags)
{
	struct iovec iov = { page_of(byte, count), count * PAGE };
	struct outcome o = { 0 };
	struct io_op op = { 0 };

	io_device_write(d->device, &op, &iov, 1, page_no * PAGE, flags, outcome_cb, &o);
	(void)op_wait(d, &o);
	free(iov.iov_base);
	return o.result;
}

static int64_t
sync_disk(struct disk *d)
{
	struct outcome o = { 0 };
	struct io_op op = { 0 };

	io_device_sync(d->device, &op, outcome_cb, &o);
	return op_wait(d, &o);
}

static int64_t
get(struct disk *d, uint64_t page_no, void *page)
{
	struct iovec iov = { page, PAGE };
	struct outcome o = { 0 };
	struct io_op op = { 0 };

	io_device_read(d->device, &op, &iov, 1, page_no * PAGE, outcome_cb, &o);
	return op_wait(d, &o);
}

/* The byte that fills the page, -1 when it is not one byte only. */
static int
seen(struct disk *d, uint64_t page_no)
{
	uint8_t page[PAGE];
	int i;

	assert_int_equal(sim_device_peek(d->sim, "disk", page_no * PAGE, page, PAGE), 0);
	for (i = 1; i < PAGE; i++) {
		if (page[i] != page[0]) {
			return -1;
		}
	}
	return page[0];
}

/* -- determinism -------------------------------------------------------------------------------------------------------------------- */

/* A little cluster: two clients send drawn messages to a server that writes them to its device and answers. */
struct actor {
	struct sim *sim;
	struct io *io;
	struct io_listener *listener;
	struct io_device *device;
	struct io_conn *conns[4];
	struct peer {
		struct actor *actor;
		struct io_conn *conn;
		struct iovec in, out;
		struct io_op op;
		uint8_t buf[8];
		void *page;
		unsigned left;
	} peers[4];
	unsigned peers_count, finished;
};

static void peer_recv(struct peer *p);

static void
peer_answered(void *arg, int64_t result)
{
	assert_true(result > 0 || result == -ECANCELED);
	if (result > 0) {
		peer_recv(arg);
	}
}

static void
peer_stored(void *arg, int64_t result)
{
	struct peer *p = arg;

	assert_int_equal(result, PAGE);
	p->out = (struct iovec){ p->buf, 1 };
	io_conn_send(p->conn, &p->out, 1, peer_answered, p);
}

static void
peer_received(void *arg, int64_t result)
{
	struct peer *p = arg;

	if (result <= 0) {
		io_conn_close(p->conn);
		return;
	}
	p->in = (struct iovec){ p->page, PAGE };
	io_device_write(p->actor->device, &p->op, &p->in, 1, (uint64_t)p->buf[0] * PAGE,
			p->buf[0] % 2 ? IO_WRITE_DSYNC : 0, peer_stored, p);
}

static void
peer_recv(struct peer *p)
{
	p->in = (struct iovec){ p->buf, sizeof(p->buf) };
	io_conn_recv(p->conn, &p->in, 1, peer_received, p);
}

static void
server_accepted(void *arg, struct io_conn *conn)
{
	struct actor *server = arg;
	struct peer *p = &server->peers[server->peers_count++];

	p->actor = server;
	p->conn = conn;
	p->page = page_of((uint8_t)server->peers_count, 1);
	peer_recv(p);
}

static void client_send(struct peer *p);

static void
client_answered(void *arg, int64_t result)
{
	struct peer *p = arg;

	assert_int_equal(result, 1);
	if (--p->left == 0) {
		io_conn_close(p->conn);
		p->actor->finished++;
		return;
	}
	client_send(p);
}

static void
client_sent(void *arg, int64_t result)
{
	struct peer *p = arg;

	assert_true(result > 0);
	p->in = (struct iovec){ p->buf, 1 };
	io_conn_recv(p->conn, &p->in, 1, client_answered, p);
}

static void
client_send(struct peer *p)
{
	p->buf[0] = (uint8_t)io_random_u64(p->actor->io);
	p->out = (struct iovec){ p->buf, 1 };
	io_conn_send(p->conn, &p->out, 1, client_sent, p);
}

static void
client_connected(void *arg, int rc, struct io_conn *conn)
{
	struct peer *p = arg;

	assert_int_equal(rc, 0);
	p->conn = conn;
	p->left = 40;
	client_send(p);
}

static bool
both_finished(void *arg)
{
	struct actor *clients = arg;

	return clients[0].finished == 1 && clients[1].finished == 1;
}

static uint64_t
play(uint64_t seed, char **ret_trace)
{
	struct sim *sim = world(seed);
	struct actor server = { .sim = sim, .io = inhabitant(sim) }, clients[2] = { { 0 } };
	struct sim_net_options net = { .latency_us_min = 10,
				       .latency_us_max = 500,
				       .recv_split_max = 3 };
	size_t trace_len;
	FILE *file = open_memstream(ret_trace, &trace_len);
	uint64_t hash;
	unsigned i;

	sim_trace_to(sim, file);
	sim_net_set(sim, &net);
	assert_int_equal(io_device_open(server.io, "disk", 0, &server.device), 0);
	assert_int_equal(io_listen(server.io, "tcp:node:7450", server_accepted, &server,
				   &server.listener),
			 0);
	for (i = 0; i < 2; i++) {
		clients[i].io = inhabitant(sim);
		clients[i].peers[0].actor = &clients[i];
		assert_int_equal(io_connect(clients[i].io, "tcp:node:7450", 1000000,
					    client_connected, &clients[i].peers[0], NULL),
				 0);
	}
	assert_true(sim_run(sim, both_finished, clients, 60000000));
	while (sim_step(sim)) {
		/* the ends of the streams arrive */
	}
	hash = sim_trace_hash(sim);
	io_listener_close(server.listener);
	io_device_close(server.device);
	io_destroy(server.io);
	for (i = 0; i < 2; i++) {
		io_destroy(clients[i].io);
		free(server.peers[i].page);
	}
	sim_destroy(sim);
	(void)fclose(file);
	return hash;
}

/* Equal seeds: equal hashes and equal traces, line by line. Other seeds: other hashes. */
static void
seed_decides_everything(void **state)
{
	char *a, *b, *c;
	uint64_t hash;

	(void)state;
	hash = play(1, &a);
	assert_int_equal(play(1, &b), hash);
	assert_string_equal(a, b);
	assert_true(strlen(a) > 1000);
	assert_int_not_equal(play(2, &c), hash);
	assert_string_not_equal(a, c);
	free(a);
	free(b);
	free(c);
}

static void
nothing_cb(void *arg)
{
	(*(unsigned *)arg)++;
}

static bool
never(void *arg)
{
	(void)arg;
	return false;
}

/* Time moves from event to event, or by the limit when nothing happens. */
static void
time_jumps(void **state)
{
	struct sim *sim = world(3);
	struct io *io = inhabitant(sim);
	struct io_timer timer = { 0 };
	unsigned fired = 0;
	uint64_t start_us = sim_now_us(sim);

	(void)state;
	assert_false(sim_step(sim));
	io_timer_set(io, &timer, start_us + 3600000000, nothing_cb, &fired);
	assert_true(sim_step(sim));
	assert_int_equal(fired, 1);
	assert_int_equal(sim_now_us(sim), start_us + 3600000000);
	assert_int_equal(io_now_us(io), sim_now_us(sim));
	assert_false(sim_run(sim, never, NULL, 5000));
	assert_int_equal(sim_now_us(sim), start_us + 3600005000);
	io_timer_set(io, &timer, sim_now_us(sim) + 10000, nothing_cb, &fired);
	assert_false(sim_run(sim, never, NULL, 9999));
	assert_int_equal(fired, 1);
	assert_int_equal(io_run(io, UINT64_MAX), 1);
	assert_int_equal(fired, 2);
	assert_int_equal(io_run(io, UINT64_MAX), -EDEADLK);
	io_wake(io);
	assert_int_equal(io_run(io, UINT64_MAX), 0);
	io_destroy(io);
	sim_destroy(sim);
}

/* -- devices ------------------------------------------------------------------------------------------------------------------------ */

/* Over many seeds: what was synced or written with DSYNC is always there; what was not is sometimes there and sometimes not. */
static void
power_cut_keeps_what_is_stable(void **state)
{
	unsigned kept = 0, lost = 0, torn = 0;
	uint64_t seed;

	(void)state;
	for (seed = 1; seed <= 60; seed++) {
		struct disk d = disk_open(seed);
		int page;

		assert_int_equal(put(&d, 0, 4, 0xa1, 0), 4 * PAGE);
		assert_int_equal(sync_disk(&d), 0);
		assert_int_equal(put(&d, 4, 4, 0xa2, IO_WRITE_DSYNC), 4 * PAGE);
		assert_int_equal(put(&d, 8, 4, 0xa3, 0), 4 * PAGE);
		sim_power_cut(d.sim, "disk", SIM_CUT_DROP | SIM_CUT_TEAR | SIM_CUT_GARBLE);
		for (page = 0; page < 4; page++) {
			assert_int_equal(seen(&d, (uint64_t)page), 0xa1);
			assert_int_equal(seen(&d, 4 + (uint64_t)page), 0xa2);
		}
		page = seen(&d, 8) + seen(&d, 9) + seen(&d, 10) + seen(&d, 11);
		kept += page == 4 * 0xa3;
		lost += page == 0;
		torn += page != 4 * 0xa3 && page != 0;
		disk_close(&d);
	}
	assert_true(kept >= 5);
	assert_true(lost >= 5);
	assert_true(torn >= 5);
}

/* A sync makes stable what was complete when it began, not what completed while it was under way. */
static void
sync_covers_what_was_complete(void **state)
{
	unsigned lost = 0;
	uint64_t seed;

	(void)state;
	for (seed = 1; seed <= 40; seed++) {
		struct disk d = disk_open(seed);
		struct outcome synced = { 0 }, written = { 0 };
		struct io_op sync_op = { 0 }, write_op = { 0 };
		struct iovec iov = { page_of(0xb2, 1), PAGE };

		assert_int_equal(put(&d, 0, 1, 0xb1, 0), PAGE);
		io_device_sync(d.device, &sync_op, outcome_cb, &synced);
		io_device_write(d.device, &write_op, &iov, 1, PAGE, 0, outcome_cb, &written);
		(void)op_wait(&d, &synced);
		(void)op_wait(&d, &written);
		sim_power_cut(d.sim, "disk", SIM_CUT_DROP);
		assert_int_equal(seen(&d, 0), 0xb1);
		lost += seen(&d, 1) == 0;
		disk_close(&d);
		free(iov.iov_base);
	}
	assert_true(lost >= 5 && lost <= 35);
}

/* A stable write over an unstable one of the same place wins in every world; the older one is seen beside it where it was not
 * covered, or not at all. */
static void
stable_write_over_unstable(void **state)
{
	unsigned kept = 0;
	uint64_t seed;

	(void)state;
	for (seed = 1; seed <= 40; seed++) {
		struct disk d = disk_open(seed);

		assert_int_equal(put(&d, 0, 3, 0xc0, IO_WRITE_DSYNC), 3 * PAGE);
		assert_int_equal(put(&d, 0, 3, 0xc1, 0), 3 * PAGE);
		assert_int_equal(put(&d, 1, 1, 0xc2, IO_WRITE_DSYNC), PAGE);
		assert_int_equal(put(&d, 1, 1, 0xc3, 0), PAGE);
		sim_power_cut(d.sim, "disk", SIM_CUT_DROP);
		assert_true(seen(&d, 0) == 0xc0 || seen(&d, 0) == 0xc1);
		assert_int_equal(seen(&d, 0), seen(&d, 2));
		assert_true(seen(&d, 1) == 0xc2 || seen(&d, 1) == 0xc3);
		kept += seen(&d, 0) == 0xc1;
		disk_close(&d);
	}
	assert_true(kept >= 5 && kept <= 35);
}

/* Against a model: random writes, syncs and cuts; whatever a cut leaves of a page is a version that was possible. */
static void
power_cuts_against_a_model(void **state)
{
	enum { PAGES = 16 };
	uint64_t seed;

	(void)state;
	for (seed = 1; seed <= 30; seed++) {
		struct disk d = disk_open(seed);
		bool possible[PAGES][256] = { { false } };
		uint8_t newest[PAGES] = { 0 };
		struct prng prng;
		unsigned step, page, i;

		prng_init(&prng, seed);
		for (page = 0; page < PAGES; page++) {
			possible[page][0] = true;
		}
		for (step = 1; step < 200; step++) {
			unsigned first = (unsigned)prng_below(&prng, PAGES);
			unsigned count = 1 + (unsigned)prng_below(&prng, PAGES - first);
			unsigned what = (unsigned)prng_below(&prng, 10);

			if (what < 7) {
				bool dsync = what == 0;

				assert_int_equal(put(&d, first, count, (uint8_t)step,
						     dsync ? IO_WRITE_DSYNC : 0),
						 count * PAGE);
				for (i = first; i < first + count; i++) {
					if (dsync) {
						memset(possible[i], 0, sizeof(possible[i]));
					}
					possible[i][(uint8_t)step] = true;
					newest[i] = (uint8_t)step;
				}
			} else if (what < 9) {
				assert_int_equal(sync_disk(&d), 0);
				for (i = 0; i < PAGES; i++) {
					memset(possible[i], 0, sizeof(possible[i]));
					possible[i][newest[i]] = true;
				}
			} else {
				sim_power_cut(d.sim, "disk", SIM_CUT_DROP);
				disk_reopen(&d);
			}
			for (i = 0; i < PAGES; i++) {
				int now = seen(&d, i);

				assert_true(now >= 0 && possible[i][now]);
				if (what >= 9) {
					memset(possible[i], 0, sizeof(possible[i]));
					possible[i][now] = true;
					newest[i] = (uint8_t)now;
				}
				assert_int_equal(now, newest[i]);
			}
		}
		disk_close(&d);
	}
}

/* Operations under way at the cut end with -EIO, at once; who opened before it gets -EIO and changes nothing. */
static void
power_cut_ends_operations(void **state)
{
	struct disk d = disk_open(9);
	struct outcome o = { 0 };
	struct io_op op = { 0 };
	struct iovec iov = { page_of(0xd1, 1), PAGE };

	(void)state;
	io_device_write(d.device, &op, &iov, 1, 0, IO_WRITE_DSYNC, outcome_cb, &o);
	assert_int_equal(io_run(d.io, 1), 0); /* begun, not ended */
	sim_power_cut(d.sim, "disk", SIM_CUT_DROP);
	assert_false(o.done);
	assert_int_equal(op_wait(&d, &o), -EIO);
	assert_int_equal(put(&d, 5, 1, 0xd2, IO_WRITE_DSYNC), -EIO);
	assert_int_equal(seen(&d, 5), 0);
	disk_reopen(&d);
	assert_int_equal(put(&d, 5, 1, 0xd2, IO_WRITE_DSYNC), PAGE);
	assert_int_equal(seen(&d, 5), 0xd2);
	free(iov.iov_base);
	disk_close(&d);
}

/* The n-th operation fails, once or from then on. */
static void
faults_by_number(void **state)
{
	struct disk d = disk_open(4);
	uint8_t *page = page_of(0, 1);

	(void)state;
	sim_device_fail_nth(d.sim, "disk", 2, EIO, false);
	assert_int_equal(get(&d, 0, page), PAGE);
	assert_int_equal(get(&d, 0, page), -EIO);
	assert_int_equal(get(&d, 0, page), PAGE);
	sim_device_fail_nth(d.sim, "disk", 1, ENOSPC, true);
	assert_int_equal(put(&d, 0, 1, 1, 0), -ENOSPC);
	assert_int_equal(sync_disk(&d), -ENOSPC);
	sim_device_fail_nth(d.sim, "disk", 0, 0, false);
	assert_int_equal(sync_disk(&d), 0);
	assert_int_equal(sim_device_ops(d.sim, "disk"), 6);
	free(page);
	disk_close(&d);
}

/* Bad ranges fail the reads that touch them, and only those; a device that is gone fails all. */
static void
bad_ranges_and_gone(void **state)
{
	struct disk d = disk_open(5);
	uint8_t *page = page_of(0, 1);
	struct io_device *again;

	(void)state;
	assert_int_equal(put(&d, 0, 8, 7, 0), 8 * PAGE);
	sim_device_bad_range(d.sim, "disk", 2 * PAGE + 512, 512);
	assert_int_equal(get(&d, 1, page), PAGE);
	assert_int_equal(get(&d, 2, page), -EIO);
	assert_int_equal(get(&d, 3, page), PAGE);
	assert_int_equal(page[0], 7);
	sim_device_bad_range(d.sim, "disk", 0, 0);
	assert_int_equal(get(&d, 2, page), PAGE);
	sim_device_gone(d.sim, "disk", true);
	assert_int_equal(get(&d, 2, page), -ENODEV);
	assert_int_equal(put(&d, 2, 1, 8, 0), -ENODEV);
	assert_int_equal(sync_disk(&d), -ENODEV);
	assert_int_equal(io_device_open(d.io, "disk", 0, &again), -ENODEV);
	sim_device_gone(d.sim, "disk", false);
	assert_int_equal(get(&d, 2, page), PAGE);
	assert_int_equal(page[0], 7);
	free(page);
	disk_close(&d);
}

/* Bytes changed behind the program's back are what it reads. */
static void
peek_and_poke(void **state)
{
	struct disk d = disk_open(6);
	uint8_t *page = page_of(0, 1), bytes[3];

	(void)state;
	assert_int_equal(put(&d, 0, 2, 1, 0), 2 * PAGE);
	assert_int_equal(sim_device_poke(d.sim, "disk", PAGE - 2, "xyz", 3), 0);
	assert_int_equal(sim_device_peek(d.sim, "disk", PAGE - 2, bytes, 3), 0);
	assert_memory_equal(bytes, "xyz", 3);
	assert_int_equal(get(&d, 1, page), PAGE);
	assert_int_equal(page[0], 'z');
	assert_int_equal(page[1], 1);
	assert_int_equal(sim_device_poke(d.sim, "disk", DEVICE_BYTES - 1, "xy", 2), -EINVAL);
	assert_int_equal(sim_device_peek(d.sim, "absent", 0, bytes, 1), -ENODEV);
	free(page);
	disk_close(&d);
}

static bool
keep_marked(void *arg, uint64_t off, const void *page)
{
	(void)arg;
	(void)off;
	return ((const uint8_t *)page)[0] == 'K';
}

static void
make_from_offset(void *arg, uint64_t off, void *ret_page)
{
	(*(unsigned *)arg)++;
	memset(ret_page, (int)(off / PAGE % 251) + 1, PAGE);
}

/* A device of 1 TiB: marked pages keep their bytes, others are made again, unwritten ones are zeros, before and after a cut. */
static void
payload_free_device(void **state)
{
	struct disk d = disk_open(8);
	unsigned made = 0;
	struct sim_device_options options = { .kind = SIM_DEVICE_PAYLOAD_FREE,
					      .size_bytes = (uint64_t)1 << 40,
					      .block_device = true,
					      .keep_page = keep_marked,
					      .make_page = make_from_offset,
					      .arg = &made };
	uint64_t far_no = ((uint64_t)1 << 40) / PAGE - 4;
	struct io_device_info info;
	uint8_t *page = page_of(0, 1);
	int i;

	(void)state;
	assert_int_equal(sim_device_add(d.sim, "big", &options), 0);
	io_device_close(d.device);
	assert_int_equal(io_device_open(d.io, "big", 0, &d.device), 0);
	io_device_info_get(d.device, &info);
	assert_true(info.block_device);
	assert_int_equal(info.size_bytes, (uint64_t)1 << 40);
	assert_int_equal(put(&d, far_no, 1, 'K', IO_WRITE_DSYNC), PAGE);
	assert_int_equal(put(&d, far_no + 1, 2, 'p', IO_WRITE_DSYNC), 2 * PAGE);
	for (i = 0; i < 2; i++) {
		assert_int_equal(get(&d, far_no, page), PAGE);
		assert_int_equal(page[100], 'K');
		assert_int_equal(get(&d, far_no + 1, page), PAGE);
		assert_int_equal(page[100], (far_no + 1) % 251 + 1);
		assert_int_equal(get(&d, far_no + 3, page), PAGE);
		assert_int_equal(page[100], 0);
		assert_int_equal(put(&d, far_no, 3, 'K', 0), 3 * PAGE);
		sim_power_cut(d.sim, "big", 0);
		io_device_close(d.device);
		assert_int_equal(io_device_open(d.io, "big", 0, &d.device), 0);
		assert_int_equal(get(&d, far_no + 1, page), PAGE);
		assert_int_equal(page[100], 'K'); /* how = 0: everything is kept */
		assert_int_equal(put(&d, far_no + 1, 1, 'q', IO_WRITE_DSYNC), PAGE);
	}
	assert_true(made >= 2);
	free(page);
	disk_close(&d);
}

/* A device of 1 MB/s takes a second for a megabyte, also in pieces. */
static void
device_has_a_speed(void **state)
{
	struct sim_device_options options = { .kind = SIM_DEVICE_BYTES,
					      .size_bytes = DEVICE_BYTES,
					      .bytes_per_second = 1 << 20 };
	struct disk d = disk_open(8);
	uint64_t before_us;

	(void)state;
	assert_int_equal(sim_device_add(d.sim, "slow", &options), 0);
	io_device_close(d.device);
	assert_int_equal(io_device_open(d.io, "slow", 0, &d.device), 0);
	before_us = sim_now_us(d.sim);
	assert_int_equal(put(&d, 0, 128, 1, 0), 128 * PAGE);
	assert_int_equal(put(&d, 0, 128, 1, 0), 128 * PAGE);
	assert_in_range(sim_now_us(d.sim) - before_us, 999990, 1000010);
	disk_close(&d);
}

/* -- network ------------------------------------------------------------------------------------------------------------------------ */

struct ends {
	struct io_conn *a, *b;
	bool connected, accepted;
	int rc;
};

static void
ends_accepted(void *arg, struct io_conn *conn)
{
	struct ends *e = arg;

	e->b = conn;
	e->accepted = true;
}

static void
ends_connected(void *arg, int rc, struct io_conn *conn)
{
	struct ends *e = arg;

	e->rc = rc;
	e->a = conn;
	e->connected = true;
}

/* While the listener's address is cut off, connects time out and bytes stand still; afterwards they arrive, in order. */
static void
partition_stalls(void **state)
{
	struct sim *sim = world(11);
	struct io *io = inhabitant(sim);
	struct io_listener *listener;
	struct ends e = { 0 }, late = { 0 };
	struct outcome sent[2] = { { 0 } }, received = { 0 };
	struct iovec out[2] = { { (void *)"one", 3 }, { (void *)"two", 3 } }, in;
	char buf[16];

	(void)state;
	assert_int_equal(io_listen(io, "tcp:n:1", ends_accepted, &e, &listener), 0);
	assert_int_equal(io_connect(io, "tcp:n:1", 1000000, ends_connected, &e, NULL), 0);
	run_until(io, &e.connected);
	run_until(io, &e.accepted);
	sim_net_partition(sim, "tcp:n:1", true);
	in = (struct iovec){ buf, sizeof(buf) };
	io_conn_recv(e.b, &in, 1, outcome_cb, &received);
	io_conn_send(e.a, &out[0], 1, outcome_cb, &sent[0]);
	run_until(io, &sent[0].done);
	io_conn_send(e.a, &out[1], 1, outcome_cb, &sent[1]);
	assert_int_equal(io_connect(io, "tcp:n:1", 500000, ends_connected, &late, NULL), 0);
	run_until(io, &late.connected);
	assert_int_equal(late.rc, -ETIMEDOUT);
	assert_false(received.done);
	sim_net_partition(sim, "tcp:n:1", false);
	run_until(io, &received.done);
	assert_int_equal(received.result, 3);
	assert_memory_equal(buf, "one", 3);
	received = (struct outcome){ 0 };
	io_conn_recv(e.b, &in, 1, outcome_cb, &received);
	run_until(io, &received.done);
	assert_memory_equal(buf, "two", 3);
	/* Broken: both ends hear it. */
	received = (struct outcome){ 0 };
	io_conn_recv(e.b, &in, 1, outcome_cb, &received);
	sim_net_break_all(sim);
	run_until(io, &received.done);
	assert_int_equal(received.result, -ECONNRESET);
	sent[0] = (struct outcome){ 0 };
	io_conn_send(e.a, &out[0], 1, outcome_cb, &sent[0]);
	run_until(io, &sent[0].done);
	assert_int_equal(sent[0].result, -ECONNRESET);
	io_conn_close(e.a);
	io_conn_close(e.b);
	io_listener_close(listener);
	while (sim_step(sim)) {
	}
	io_destroy(io);
	sim_destroy(sim);
}

/* With a chance of one in ten a send breaks its stream instead. */
static void
sends_drop_conns(void **state)
{
	struct sim_net_options net = { .latency_us_max = 10, .drop_conn_ppm = 100000 };
	struct sim *sim = world(12);
	struct io *io = inhabitant(sim);
	struct iovec out = { (void *)"x", 1 };
	struct io_listener *listener;
	struct ends e = { 0 };
	struct outcome o;
	unsigned sends = 0;

	(void)state;
	assert_int_equal(io_listen(io, "tcp:n:1", ends_accepted, &e, &listener), 0);
	assert_int_equal(io_connect(io, "tcp:n:1", 1000000, ends_connected, &e, NULL), 0);
	run_until(io, &e.connected);
	run_until(io, &e.accepted);
	sim_net_set(sim, &net);
	do {
		o = (struct outcome){ 0 };
		io_conn_send(e.a, &out, 1, outcome_cb, &o);
		run_until(io, &o.done);
		assert_true(++sends < 200);
	} while (o.result == 1);
	assert_int_equal(o.result, -ECONNRESET);
	io_conn_close(e.a);
	io_conn_close(e.b);
	io_listener_close(listener);
	while (sim_step(sim)) {
	}
	io_destroy(io);
	sim_destroy(sim);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(seed_decides_everything),
		cmocka_unit_test(time_jumps),
		cmocka_unit_test(power_cut_keeps_what_is_stable),
		cmocka_unit_test(sync_covers_what_was_complete),
		cmocka_unit_test(stable_write_over_unstable),
		cmocka_unit_test(power_cuts_against_a_model),
		cmocka_unit_test(power_cut_ends_operations),
		cmocka_unit_test(faults_by_number),
		cmocka_unit_test(bad_ranges_and_gone),
		cmocka_unit_test(peek_and_poke),
		cmocka_unit_test(payload_free_device),
		cmocka_unit_test(device_has_a_speed),
		cmocka_unit_test(partition_stalls),
		cmocka_unit_test(sends_drop_conns),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
