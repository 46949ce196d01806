/* io.h - the seams: time, randomness, devices and networks of one thread.
 *
 * What:       a `struct io` is one thread's event loop. Everything the shard program and the client do with the outside world
 *             goes through it, so that the same program runs on io_uring, on plain system calls, and on a simulated world whose
 *             every event follows from a seed.
 * Not here:   what the bytes mean (wire/, engine/), message rings between threads (base/ring.h).
 * Threads:    every call from the thread that runs the loop, except io_wake(), which any thread may call.
 * Ownership:  buffers, iovec arrays and `struct io_op`s are borrowed until the callback has run. Callbacks run exactly once per
 *             accepted operation, only from io_run(), never inside the submitting call.
 * Errors:     0 or -errno from calls; callbacks get a count of bytes or -errno.
 * Limits:     device operations beyond what the backend holds wait in the io's own queue, which is bounded
 *             (IO_DEVICE_QUEUE_MAX; beyond it -EAGAIN is handed to the callback) and counted.
 * Tests:      tests/unit/io/, tests/sim/
 */
#ifndef HR_IO_IO_H
#define HR_IO_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/list.h"

struct io;
struct io_device;
struct io_listener;
struct io_conn;
struct sim;

enum { IO_DEVICE_QUEUE_MAX = 4096, IO_IOV_MAX = 1024, IO_FDS_MAX = 16 };

/* Which implementation. The library uses NET_POLL only.
 * DISK_AUTO is what HEADRACE_IO names (uring, pread), else io_uring when the kernel allows it, else pread with a note that says why.
 * NET_AUTO is what HEADRACE_NET names (uring, epoll, poll), else epoll. A kind that was asked for by name and is refused is an
 * error of io_create(). HEADRACE_DIRECT=0 treats every file and device as one that refuses O_DIRECT. */
enum io_disk_kind { IO_DISK_AUTO, IO_DISK_URING, IO_DISK_PREAD, IO_DISK_SIM };
enum io_net_kind { IO_NET_AUTO, IO_NET_URING, IO_NET_EPOLL, IO_NET_POLL, IO_NET_SIM };

struct io_options {
	enum io_disk_kind disk;
	enum io_net_kind net;
	unsigned ring_entries; /* io_uring submission entries, 0 = 256 */
	unsigned pread_threads; /* workers of the pread backend, 0 = 4; started at the first device operation */
	struct sim *sim; /* the simulated world; required by the _SIM kinds, which come together */
};

/* What was chosen and why, for the log line and for STAT. */
struct io_backend {
	const char *disk; /* "io_uring", "pread", "simulated" */
	const char *net;  /* "io_uring", "epoll", "poll", "simulated" */
	char note[128];	  /* e.g. "io_uring refused: Operation not permitted" or empty */
};

struct io_counters {
	uint64_t device_reads, device_writes, device_syncs, device_errors;
	uint64_t device_read_bytes, device_write_bytes;
	uint64_t device_queue_high, device_queue_refused;
	uint64_t registered_bytes; /* now; see io_memory_register() */
	uint64_t net_recv_bytes, net_send_bytes;
	uint64_t net_accepts_failed; /* no descriptor or no memory for a connection that wanted in */
};

int io_create(const struct io_options *options, struct io **ret_io);
void io_destroy(
    struct io *io); /* All devices, listeners and conns must be closed and their callbacks run. */
void io_backend_get(const struct io *io, struct io_backend *ret);
void io_counters_get(const struct io *io, struct io_counters *ret);

/* Submits what was queued, waits at most `wait_us_max` (0: does not wait; UINT64_MAX: until something happens) for something to do,
 * and runs the callbacks that are due. Returns how many callbacks ran, or -errno when the loop itself broke. */
int io_run(struct io *io, uint64_t wait_us_max);
void io_wake(struct io *io); /* Any thread: makes a waiting io_run() return. */

/* -- clock and randomness (clock.h's seam) ---------------------------------------------------------------------------------- */

uint64_t io_now_us(
    const struct io *io); /* Monotonic; read once per io_run() turn; fresh enough for deadlines. */
uint64_t io_now_us_fresh(struct io *io); /* Asks the clock. For latency measurements. */
uint64_t
io_wall_ms(const struct io *io); /* Milliseconds since 1970, for expiry times that go to flash. */
uint64_t io_random_u64(struct io *io);

struct io_timer {
	uint64_t seq; /* private: timers of one instant run in the order in which they were set */
	uint64_t at_us;
	uint32_t heap_idx; /* private; 0 = not set */
	void (*cb)(void *arg);
	void *arg;
};
void io_timer_set(struct io *io, struct io_timer *timer, uint64_t at_us, void (*cb)(void *arg),
		  void *arg); /* Re-arms if set. */
void io_timer_cancel(struct io *io,
		     struct io_timer *timer); /* No-op when not set. A zeroed timer is not set. */

/* -- devices ------------------------------------------------------------------------------------------------------------------ */

enum {
	IO_DEVICE_READONLY = 1u << 0,
	IO_DEVICE_BUFFERED = 1u << 1, /* Do not even try O_DIRECT. */
	IO_DEVICE_LOCK = 1u << 2, /* Take an exclusive lock; -EBUSY when another process has it. */
};

struct io_device_info {
	uint64_t size_bytes;
	uint32_t align_bytes; /* Of offsets, lengths and memory; 4096 also where the device would allow 512. */
	bool direct; /* O_DIRECT holds: a block was read with it. When it is refused, then or by a later write, the device is buffered and `note` says so. */
	bool block_device;
	char note[128];
};

/* One operation. The caller embeds it in its own object and leaves the fields alone; zeroed = idle. */
typedef void (*io_op_cb)(void *arg, int64_t result);
struct io_op {
	struct list_head link;
	struct io_device *device;
	const struct iovec *iov;
	unsigned iov_count;
	unsigned flags;
	uint8_t kind;
	uint64_t off;
	uint64_t bytes_total;
	uint64_t bytes_done;
	io_op_cb cb;
	void *arg;
	int64_t result;
	uint64_t priv[4];
	struct iovec iov_rest[2];
	struct iovec iov_one;
};

enum { IO_WRITE_DSYNC = 1u << 0 };

/* The lock is a record lock on "<path>.lock" for a regular file (the file stays), an O_EXCL claim for a block device. It ends with the
 * process even when a forked child lives. Devices of one process share it; it ends with the last of them. Simulated devices take none.
 * Path: a block device or a regular file; with the simulated backend, the name of a device of the world. */
int io_device_open(struct io *io, const char *path, unsigned flags, struct io_device **ret_device);
void io_device_close(struct io_device *device); /* No operation may be under way. */
void io_device_info_get(const struct io_device *device, struct io_device_info *ret);

/* Whole or not at all: a short read or write is continued by the backend; end of device is -EIO. Result = bytes asked for.
 * A completed write is NOT stable unless IO_WRITE_DSYNC was given, or a sync begun after its completion has completed. */
void io_device_read(struct io_device *device, struct io_op *op, const struct iovec *iov,
		    unsigned iov_count, uint64_t off, io_op_cb cb, void *arg);
void io_device_write(struct io_device *device, struct io_op *op, const struct iovec *iov,
		     unsigned iov_count, uint64_t off, unsigned flags, io_op_cb cb, void *arg);
void
io_device_sync(struct io_device *device, struct io_op *op, io_op_cb cb, void *arg); /* fdatasync */
/* Half of the io's queue is taken. Whoever can wait or refuse (reads for clients) does, so that there is room for what must not fail for
 * want of it: writes, syncs, what reclaim reads. */
bool io_device_crowded(const struct io_device *device);

/* Tells the backend of memory that I/O will often use (io_uring fixed buffers). Returns at once: a thread makes the pages resident and each
 * piece is pinned between two turns, so that no turn waits for it. Never required: where it cannot be done (a small memory-lock limit,
 * say) I/O goes on unregistered. */
int io_memory_register(struct io *io, void *base, size_t len);
/* Before that memory is unmapped, or other pages are mapped there: the kernel would go on using the old ones. No operation on it
 * may be under way. Of memory that was not registered: no-op. */
void io_memory_unregister(struct io *io, void *base, size_t len);

/* -- network ------------------------------------------------------------------------------------------------------------------- */

/* Addresses: "tcp:HOST:PORT" (HOST may be an IPv6 address in brackets; port 0 = any free one) and "unix:PATH". */
typedef void (*io_accept_cb)(void *arg, struct io_conn *conn);
int io_listen(struct io *io, const char *address, io_accept_cb cb, void *arg,
	      struct io_listener **ret_listener);
void io_listener_close(struct io_listener *listener);
/* The address with the real port, "tcp:127.0.0.1:40117". */
const char *io_listener_address(const struct io_listener *listener);

/* Asynchronous connect. cb(arg, 0, conn) or cb(arg, -errno, NULL), within timeout_us. Host names are looked up meanwhile (-ENXIO: no
 * such host, -EAGAIN: nobody knows now); only the io_uring backend, with which nobody connects by name, does it in the call. A pending connect is given up with io_connect_cancel(), after which cb does not run. */
struct io_connect;
typedef void (*io_connect_cb)(void *arg, int rc, struct io_conn *conn);
int io_connect(struct io *io, const char *address, uint64_t timeout_us, io_connect_cb cb, void *arg,
	       struct io_connect **ret_connect);
void io_connect_cancel(struct io_connect *connect);

/* A byte stream. At most one receive and one send are under way at a time on a conn.
 * recv: completes with >= 1 bytes (scattered in order), 0 at the peer's end, or -errno.
 * send: completes with the sum of all iovecs once everything was handed to the kernel, or -errno. */
typedef void (*io_conn_cb)(void *arg, int64_t result);
void io_conn_recv(struct io_conn *conn, const struct iovec *iov, unsigned iov_count, io_conn_cb cb,
		  void *arg);
void io_conn_send(struct io_conn *conn, const struct iovec *iov, unsigned iov_count, io_conn_cb cb,
		  void *arg);
/* Cancels what is under way and closes. The callbacks of operations under way still run, once, with -ECANCELED (memory is not
 * touched after that); the conn itself is freed by the io after them. Never call it twice. */
void io_conn_close(struct io_conn *conn);

/* unix: only. Descriptors go with the first byte of the send (dup'ed: the caller keeps its own); received ones wait in the conn until taken
 * (at most IO_FDS_MAX; more are closed and end the conn). Returns the count taken; they are the caller's. */
void io_conn_send_fds(struct io_conn *conn, const struct iovec *iov, unsigned iov_count,
		      const int *fds, unsigned fds_count, io_conn_cb cb, void *arg);
unsigned io_conn_take_fds(struct io_conn *conn, int *ret_fds, unsigned fds_max);

/* Moving a conn to another thread's io: nothing may be under way. detach frees the conn and returns its descriptor. */
int io_conn_detach(struct io_conn *conn);
int io_conn_attach(struct io *io, int fd, struct io_conn **ret_conn);

/* "tcp:10.0.0.7:51234" or "unix:pid=4711,uid=1000" or "sim:3"; lives as long as the conn. */
const char *io_conn_peer(const struct io_conn *conn);
bool io_conn_is_unix(const struct io_conn *conn);

/* Watches a plain descriptor (an eventfd of another library) for readability. Not on the simulated backend. */
struct io_watch;
int
io_watch_fd(struct io *io, int fd, void (*cb)(void *arg), void *arg, struct io_watch **ret_watch);
void io_watch_close(struct io_watch *watch);

#endif
