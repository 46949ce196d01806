/* io_impl.h - what the files of io/ share: the reactor's state and the tables that a backend fills in.
 *
 * What:       `struct io` with its timers, its queue of device operations and its list of due callbacks; `struct io_disk_ops` and
 *             `struct io_net_ops`, of which io.c calls one each.
 * Not here:   anything a user of the seams needs (io.h, sim.h).
 * Threads:    the io's own, except io_wake() and the workers of disk_pread.c, which share only that file's state.
 * Ownership:  what was closed inside a callback stays in memory until the end of the turn (io_bury): loops that run callbacks may
 *             look at their object after the callback returned.
 * Invariants: D1 a callback is run only by io.c from io_run(). D2 an operation is in exactly one of: the queue, the backend, the
 *             done list. D3 a task is on the list at most once.
 * Tests:      tests/unit/io/
 */
#ifndef HR_IO_IO_IMPL_H
#define HR_IO_IO_IMPL_H

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "base/base.h"
#include "base/list.h"
#include "io/io.h"
#include "io/sim.h"

struct net_address;
struct io_ring;

enum {
	IO_ALIGN_BYTES = 4096,
	IO_DISK_INFLIGHT_MAX = 256, /* What a real backend holds; the rest waits in the io's queue. */
	IO_NET_VEC_MAX = 64,	    /* iovecs of one socket call; longer lists take several. */
	IO_ACCEPT_BATCH = 16,
	IO_PEER_MAX = 80,
	IO_ADDRESS_MAX = 128,
};

/* A callback that is due. Embedded; runs once each time it was queued. */
struct io_task {
	struct list_head link;
	void (*run)(struct io *io, struct io_task *task);
	bool queued;
};

/* First member of everything that io_bury() frees. */
struct io_object {
	struct list_head link;
};

/* Readiness of one descriptor, for backends and for the io's own eventfds. `ready` runs while waiting: it may do system calls and
 * queue tasks, and neither runs user code nor adds or removes descriptors. */
struct io_pollee {
	int fd;
	short want; /* POLLIN | POLLOUT: what poll() is to ask for. Edge-triggered epoll always hears of both. */
	bool level;    /* Told again each turn while the condition holds. */
	uint32_t slot; /* poll: place in the array, 1-based. */
	void (*ready)(struct io *io, struct io_pollee *pollee, unsigned revents);
	void *priv;    /* the owner's */
	void *backend; /* io_uring: its request */
};

/* -- disk ------------------------------------------------------------------------------------------------------------------- */

struct io_device {
	struct io_object object;
	struct io *io;
	int fd;
	unsigned flags;
	struct io_device_info info;
	unsigned ops_count; /* under way: in the queue, the backend or on the done list */
	int file_slot;	    /* io_uring registered file, -1 = none */
	struct io_device_lock *lock;
	void *priv; /* the simulated device */
	char path[PATH_MAX];
};

enum io_op_kind { IO_OP_IDLE, IO_OP_READ, IO_OP_WRITE, IO_OP_SYNC };

struct io_disk_ops {
	const char *name;
	int (*create)(struct io *io);
	void (*destroy)(struct io *io);
	int (*device_open)(struct io_device *device); /* fills device; path and flags are set */
	void (*device_close)(struct io_device *device);
	bool (*submit)(struct io *io, struct io_op *op); /* false: full, comes again next turn */
	void (*flush)(struct io *io);	     /* everything submitted goes to the kernel */
	bool (*wait_prepare)(struct io *io); /* true: something has completed, do not wait */
	void (*reap)(struct io *io);	     /* io_op_complete() for what has completed */
	int (*memory_register)(struct io *io, void *base, size_t len);
	void (*memory_unregister)(struct io *io, void *base, size_t len);
};

extern const struct io_disk_ops disk_uring_ops;
extern const struct io_disk_ops disk_pread_ops;
extern const struct io_disk_ops disk_sim_ops;

/* The rest of an operation from bytes_done on, as at most IO_IOV_MAX iovecs. The returned array lives as long as the op. */
const struct iovec *io_op_rest(struct io_op *op, unsigned *ret_count, uint64_t *ret_bytes);
/* One system call's or request's result. Returns true when the op is over (op->result is set), false when its rest is to be
 * submitted. Touches the op only: workers call it. */
bool io_op_progress(struct io_op *op, int64_t rc);
void io_op_complete(struct io *io, struct io_op *op, int64_t result);

/* device_file.c: opening of block devices and regular files for both real backends. */
int device_file_open(struct io_device *device);
void device_file_close(struct io_device *device);
/* A direct device that answers -EINVAL to an aligned operation does not mean it: goes on buffered. */
bool device_file_drop_direct(struct io_device *device);

/* device_lock.c: see there for why this is a table of the process. */
int device_lock_take(const char *path, bool block_device, struct io_device_lock **ret_lock);
void device_lock_release(struct io_device_lock *lock);

/* -- network ------------------------------------------------------------------------------------------------------------------ */

/* A receive or a send under way. */
struct io_stream_op {
	struct io_task task;
	struct list_head try_link; /* readiness backends: to be tried before the next wait */
	struct io_conn *conn;
	const struct iovec *iov;
	unsigned iov_count;
	unsigned iov_idx; /* first iovec with something left */
	size_t iov_skip;  /* bytes of it that are done */
	bool active;	  /* from submission until just before the callback */
	bool done;	  /* result is set, task is queued */
	bool is_send;
	int64_t result;
	uint64_t bytes_done;
	io_conn_cb cb;
	void *arg;
};

struct io_conn {
	struct io_object object;
	struct io *io;
	int fd;
	bool is_unix;
	bool closed;
	bool buried;
	bool maybe_readable; /* readiness backends: worth a recvmsg before waiting */
	bool ended; /* readiness backends: the peer's end was signalled, no further edge will come */
	struct io_stream_op recv, send;
	int fds[IO_FDS_MAX];
	unsigned fds_count;
	int send_fds[IO_FDS_MAX]; /* our duplicates, closed when the first byte has gone */
	unsigned send_fds_count;
	unsigned backend_refs; /* requests of the backend that point here */
	struct io_pollee pollee;
	void *priv;
	char peer[IO_PEER_MAX];
};

struct io_listener {
	struct io_object object;
	struct io *io;
	int fd;
	bool is_unix;
	bool closed;
	bool buried;
	io_accept_cb cb;
	void *arg;
	struct io_task task;
	struct io_pollee pollee;
	struct io_timer pause; /* out of descriptors: accepting again later */
	bool starved; /* the last accept failed for want of descriptors or memory, and that was said */
	unsigned backend_refs;
	int accepted_fd; /* io_uring: taken, callback not yet run; -1 = none */
	void *priv;
	uint64_t unix_dev, unix_ino;
	char address[IO_ADDRESS_MAX];
};

struct io_connect {
	struct io_object object;
	struct io *io;
	int fd;
	bool is_unix;
	bool closed; /* cancelled or over: cb must not run (again) */
	bool buried;
	bool done;
	int result;
	struct io_conn *conn;
	io_connect_cb cb;
	void *arg;
	struct io_task task;
	struct io_pollee pollee;
	struct io_timer deadline, retry;
	struct net_address *addresses, *next; /* tried in order */
	unsigned backend_refs;
	void *priv;
	char address[IO_ADDRESS_MAX];
};

struct io_watch {
	struct io_object object;
	struct io *io;
	bool closed;
	void (*cb)(void *arg);
	void *arg;
	struct io_task task;
	struct io_pollee pollee;
};

/* The calls of a net backend. The socket backends share net_socket.c, which makes and names the sockets. */
struct io_net_ops {
	const char *name;
	int (*create)(struct io *io);
	void (*destroy)(struct io *io);
	int (*wait)(struct io *io, uint64_t wait_us); /* tries, submits, waits, queues tasks */
	int (*pollee_add)(struct io *io, struct io_pollee *pollee);
	void (*pollee_want)(struct io *io, struct io_pollee *pollee, short want);
	void (*pollee_del)(struct io *io, struct io_pollee *pollee);
	int (*listen)(struct io_listener *listener, const char *address);
	void (*listener_close)(struct io_listener *listener);
	int (*connect)(struct io_connect *connect, const char *address, uint64_t timeout_us);
	void (*connect_cancel)(struct io_connect *connect);
	int (*conn_open)(struct io_conn *conn);	  /* fd is set */
	void (*conn_close)(struct io_conn *conn); /* ends what is under way with -ECANCELED */
	int (*conn_detach)(struct io_conn *conn); /* returns the descriptor */
	void (*recv)(struct io_conn *conn);
	void (*send)(struct io_conn *conn);
};

extern const struct io_net_ops net_epoll_ops;
extern const struct io_net_ops net_poll_ops;
extern const struct io_net_ops net_uring_ops;
extern const struct io_net_ops net_sim_ops;

int io_conn_create(struct io *io, int fd, struct io_conn **ret_conn);
void io_conn_free_if_idle(struct io_conn *conn);
void io_stream_op_finish(struct io_stream_op *op, int64_t result);
void io_connect_finish(struct io_connect *connect, int rc, struct io_conn *conn);
void io_connect_release(struct io_connect *connect); /* buries it once nothing points to it */
void io_listener_release(struct io_listener *listener);
/* Counts, and says it once until an accept succeeds again: a lack that lasts is one event. */
void io_accept_failed(struct io_listener *listener, int rc);
void io_fds_close(int *fds, unsigned *count);

/* -- the reactor -------------------------------------------------------------------------------------------------------------- */

struct io {
	struct io_options options;
	struct io_backend backend;
	struct io_counters counters;
	const struct io_disk_ops *disk_ops;
	const struct io_net_ops *net_ops;
	void *disk, *net;     /* the backends' own */
	struct io_ring *ring; /* shared when both are io_uring */
	struct sim *sim;
	struct list_head sim_link;
	uint32_t sim_id;
	bool sim_woken;
	bool running;
	bool unregistered_noted;
	uint64_t now_us;
	uint64_t callbacks_count;

	struct io_timer **heap; /* 1-based */
	uint32_t heap_count, heap_capacity;
	uint64_t timer_seq;

	struct list_head queue; /* struct io_op, waiting for the backend */
	uint64_t queue_count;
	struct list_head ops_done;
	struct list_head tasks;
	struct list_head dead;
	unsigned devices_count, listeners_count, connects_count, conns_count, watches_count;

	/* Only a loop that waits is told by its eventfd; one that is at work sees WAKE_PENDING before it waits again. */
	_Atomic enum io_wake_state { WAKE_NONE, WAKE_WAITING, WAKE_PENDING } wake_state;
	struct io_pollee wake;
	uint64_t random[32];
	unsigned random_left;
};

uint64_t clock_monotonic_us(void);
uint64_t io_deadline_us(struct io *io, uint64_t timeout_us); /* from now on, saturating */
void io_task_queue(struct io *io, struct io_task *task);
void io_task_drop(struct io_task *task);
void io_bury(struct io *io, struct io_object *object);
/* Runs what is due; callbacks queued meanwhile wait for the next turn. */
int io_run_due(struct io *io);
bool io_has_due(const struct io *io);
bool io_timer_next(const struct io *io, uint64_t *ret_at_us);
void io_pump(struct io *io);			    /* moves the device queue into the backend */
void io_memory_unregistered(struct io *io, int rc); /* noted once, and said once in a process */

/* sim.c */
int sim_io_attach(struct sim *sim, struct io *io);
void sim_io_detach(struct sim *sim, struct io *io);
int sim_io_run(struct io *io, uint64_t wait_us_max);
uint64_t sim_random(struct sim *sim);
uint64_t sim_wall_ms(const struct sim *sim);
void sim_trace_timer(struct sim *sim, uint32_t io_id, uint64_t at_us);

#endif
