/* host.c - file: the store runs inside the first process that opens it. */
#include "client/host.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/size.h"
#include "client/handle.h"
#include "shard/node.h"

enum { SOCKET_NAME_BYTES_MAX = 60, DRAIN_MS = 2000 };

/* An image that this process has something to do with. */
struct image {
	struct list_head link;
	dev_t dev; /* of the lock's file */
	ino_t ino;
	unsigned refs;	  /* handles */
	dev_t device_dev; /* of the image, while hosting */
	ino_t device_ino;
	int lock_fd;	   /* held while hosting, else -1 */
	struct node *node; /* while hosting */
	bool busy;	   /* a thread is starting or stopping it: wait for `changed` */
};

struct host {
	struct hr_client *client;
	struct image *image;
	char *path; /* absolute */
	char *lock_path;
	char *socket_path; /* real */
	char *address;	   /* through the folder's descriptor */
	int folder_fd;
	pid_t host_pid; /* who held the lock when last looked; 0 = unknown */
	pthread_t thread;
	bool thread_runs, thread_joinable;
	pthread_mutex_t mutex; /* of the two above */
};

/* The library's one piece of global state; see host.h. */
static struct {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	pid_t pid;
	struct list_head images;
} g_images = { .mutex = PTHREAD_MUTEX_INITIALIZER,
	       .changed = PTHREAD_COND_INITIALIZER,
	       .images = LIST_HEAD_INIT(g_images.images) };

/* A forked child begins with an empty table: what it inherited is its parent's, and the mutex may have been held at the fork. */
static void
images_lock(void)
{
	pid_t pid = getpid();

	if (__atomic_load_n(&g_images.pid, __ATOMIC_ACQUIRE) != pid &&
	    __atomic_load_n(&g_images.pid, __ATOMIC_ACQUIRE) != 0) {
		(void)pthread_mutex_init(&g_images.mutex, NULL);
		(void)pthread_cond_init(&g_images.changed, NULL);
		list_init(&g_images.images);
	}
	__atomic_store_n(&g_images.pid, pid, __ATOMIC_RELEASE);
	(void)pthread_mutex_lock(&g_images.mutex);
}

static void
images_unlock(void)
{
	(void)pthread_mutex_unlock(&g_images.mutex);
}

/* -- paths ----------------------------------------------------------------------------------------------------------------------- */

static int
paths_make(struct host *host, const char *path, struct errbuf *err)
{
	char folder[PATH_MAX], real[PATH_MAX], name[NAME_MAX + 16];
	const char *slash = strrchr(path, '/');
	const char *base = slash != NULL ? slash + 1 : path;
	uint8_t digest[SHA256_BYTES];

	(void)snprintf(folder, sizeof(folder), "%.*s", slash != NULL ? (int)(slash - path + 1) : 1,
		       slash != NULL ? path : ".");
	if (base[0] == 0) {
		return errf(err, -HR_EURL, "file:%.150s: the path of a file is wanted", path);
	}
	if (strlen(base) > NAME_MAX - 8) {
		return errf(err, -HR_EURL,
			    "file:…/%.60s…: the name has %zu bytes; at most %d are wanted", base,
			    strlen(base), NAME_MAX - 8);
	}
	/* Through a symbolic link it is the same image. */
	if (realpath(path, real) == NULL) {
		if (errno != ENOENT) {
			return errf(err, -errno, "file:%.150s: %s", path, error_text(errno));
		}
		if (realpath(folder, real) == NULL) {
			return errf(err, -errno, "file:%.150s: the folder: %s", path,
				    error_text(errno));
		}
		if (strlen(real) + strlen(base) + 16 > PATH_MAX) {
			return errf(err, -ENAMETOOLONG, "file:%.150s…: the path is too long", path);
		}
		(void)snprintf(real + strlen(real), sizeof(real) - strlen(real), "/%s", base);
	}
	host->path = strdup(real);
	slash = strrchr(real, '/');
	base = slash + 1;
	(void)snprintf(folder, sizeof(folder), "%.*s", (int)HR_MAX(slash - real, 1L), real);
	host->folder_fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (host->folder_fd < 0) {
		return errf(err, -errno, "file:%.150s: the folder: %s", path, error_text(errno));
	}
	(void)snprintf(name, sizeof(name), "%s.sock", base);
	if (strlen(name) > SOCKET_NAME_BYTES_MAX) {
		sha256(base, strlen(base), digest);
		(void)snprintf(name, sizeof(name), ".hr-%016llx.sock",
			       (unsigned long long)get_le64(digest));
	}
	if (host->path == NULL || asprintf(&host->lock_path, "%s.host", real) < 0 ||
	    asprintf(&host->socket_path, "%s/%s", folder, name) < 0 ||
	    asprintf(&host->address, "unix:/proc/self/fd/%d/%s", host->folder_fd, name) < 0) {
		return -ENOMEM;
	}
	return 0;
}

void
host_detail_mend(const struct host *host, char *detail, size_t bytes)
{
	const char *at = strstr(detail, host->address);
	char mended[DETAIL_BYTES];

	if (at != NULL) {
		(void)snprintf(mended, sizeof(mended), "%.*sunix:%.120s%s", (int)(at - detail),
			       detail, host->socket_path, at + strlen(host->address));
		(void)snprintf(detail, bytes, "%s", mended);
	}
}

/* -- the lock -------------------------------------------------------------------------------------------------------------------- */

/* 0: we have it. -EBUSY: *ret_pid has it. */
static int
lock_take(const char *path, int *ret_fd, pid_t *ret_pid)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	int rc;

	if (fd < 0) {
		return -errno;
	}
	if (fcntl(fd, F_SETLK, &lock) == 0) {
		*ret_fd = fd;
		return 0;
	}
	rc = errno == EACCES || errno == EAGAIN ? -EBUSY : -errno;
	if (rc == -EBUSY && fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK) {
		*ret_pid = lock.l_pid;
	}
	(void)close(fd); /* we hold nothing: nothing is lost */
	return rc;
}

/* -- hosting --------------------------------------------------------------------------------------------------------------------- */

static int
node_begin(struct host *host, struct node **ret_node, struct errbuf *err)
{
	const struct url *url = &host->client->url;
	struct node_device_options device = {
		.path = host->path,
		.create_bytes = url->size_bytes,
		.segment_bytes = url->segment_bytes,
		.shards_count = url->shards_count,
	};
	const char *listen = host->address;
	struct node_options options = {
		.devices = &device,
		.devices_count = 1,
		.dram_bytes = url->dram_bytes,
		.listen = &listen,
		.listen_count = 1,
		.disk = IO_DISK_AUTO,
		.net = IO_NET_AUTO,
		.cluster_name = "file",
		.host_mode = true,
	};
	char detail[DETAIL_BYTES] = "";
	struct stat st;
	int rc;

	if (stat(host->path, &st) != 0) {
		if (url->size_bytes == 0) {
			return errf(err, -ENOENT,
				    "file:%s: there is no image; ?size=8GiB makes one", host->path);
		}
	} else if (S_ISREG(st.st_mode) && st.st_size > 0 && url->size_bytes != 0 &&
		   (uint64_t)st.st_size != url->size_bytes) {
		char is[SIZE_TEXT_BYTES], asked[SIZE_TEXT_BYTES];

		(void)errf(err, 0, "file:%s: the image has %s and keeps it; size=%s is not used",
			   host->path, size_format((uint64_t)st.st_size, is),
			   size_format(url->size_bytes, asked));
	}
	if (strcmp(url->sync, "dsync") == 0) {
		options.engine.sync = LOG_SYNC_DSYNC;
	} else if (strcmp(url->sync, "flush") == 0) {
		options.engine.sync = LOG_SYNC_FLUSH;
	}
	/* A forked child of the last host may still keep its socket open: the name is ours, as the lock is. */
	(void)unlink(host->socket_path);
	rc = node_start(&options, ret_node, detail);
	if (rc != 0) {
		host_detail_mend(host, detail, sizeof(detail));
		return errf(err, rc == -EBUSY ? -HR_EINUSE : rc, "%s",
			    detail[0] != 0 ? detail : error_text(rc));
	}
	if (chmod(host->socket_path, 0600) != 0) {
		rc = errf(err, -errno, "%s: %s", host->socket_path, error_text(errno));
		node_stop(*ret_node, 0);
	}
	return rc;
}

/* Does this process host it already, under a lock whose file somebody has removed? */
static bool
hosted_here(struct host *host, struct stat *ret_st)
{
	struct image *image;
	bool found = false;

	if (stat(host->path, ret_st) != 0) {
		return false;
	}
	images_lock();
	list_for_each_entry(image, &g_images.images, link) {
		found |= image != host->image && image->node != NULL &&
			 image->device_dev == ret_st->st_dev && image->device_ino == ret_st->st_ino;
	}
	images_unlock();
	return found;
}

/* Hosts when nobody does. 0 also when somebody else does. Blocks while a node starts. */
static int
host_try(struct host *host, struct errbuf *err)
{
	struct image *image = host->image;
	struct node *node = NULL;
	struct stat st;
	pid_t pid = 0;
	int fd = -1, rc;

	images_lock();
	while (image->busy) {
		(void)pthread_cond_wait(&g_images.changed, &g_images.mutex);
	}
	if (image->node != NULL) { /* this process hosts: its lock's file is not to be opened again */
		host->host_pid = getpid();
		images_unlock();
		return 0;
	}
	image->busy = true;
	images_unlock();
	rc = lock_take(host->lock_path, &fd, &pid);
	if (rc == 0) {
		rc = hosted_here(host, &st)
			 ? errf(err, -HR_EINUSE,
				"%s: this process has it open, and its lock %s was removed",
				host->path, host->lock_path)
			 : node_begin(host, &node, err);
		if (rc == 0 && stat(host->path, &st) == 0) {
			image->device_dev = st.st_dev;
			image->device_ino = st.st_ino;
		}
		if (rc != 0) {
			(void)close(fd);
			fd = -1;
		}
		pid = getpid();
	} else if (rc == -EBUSY) {
		rc = 0;
	} else {
		(void)errf(err, rc, "%s: %s", host->lock_path, error_text(rc));
	}
	images_lock();
	image->busy = false;
	image->node = node;
	image->lock_fd = fd;
	host->host_pid = pid;
	(void)pthread_cond_broadcast(&g_images.changed);
	images_unlock();
	return rc;
}

static void *
host_thread(void *arg)
{
	struct host *host = arg;
	struct errbuf err = { { 0 } };
	int rc = host_try(host, &err);

	if (rc != 0) {
		client_detail_set(host->client, "%s", err.text[0] != 0 ? err.text : error_text(rc));
	}
	(void)pthread_mutex_lock(&host->mutex);
	host->thread_runs = false;
	(void)pthread_mutex_unlock(&host->mutex);
	return NULL;
}

void
host_wanted(struct host *host)
{
	(void)pthread_mutex_lock(&host->mutex);
	if (!host->thread_runs) {
		if (host->thread_joinable) {
			(void)pthread_join(host->thread, NULL);
		}
		host->thread_runs = true;
		host->thread_joinable = pthread_create(&host->thread, NULL, host_thread, host) == 0;
		host->thread_runs = host->thread_joinable;
	}
	(void)pthread_mutex_unlock(&host->mutex);
}

bool
host_gone(struct host *host)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	bool gone = false;
	int fd;

	images_lock();
	if (host->image->node != NULL || host->image->busy) {
		gone = host->image->node != NULL && host->host_pid != getpid();
		host->host_pid = host->image->node != NULL ? getpid() : host->host_pid;
		images_unlock();
		return gone;
	}
	/* Under the mutex: nobody of this process takes the lock while its file is open here. */
	fd = open(host->lock_path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd >= 0) {
		if (fcntl(fd, F_GETLK, &lock) == 0) {
			pid_t pid = lock.l_type == F_UNLCK ? 0 : lock.l_pid;

			gone = pid == 0 || (host->host_pid != 0 && pid != host->host_pid);
			host->host_pid = pid;
		}
		(void)close(fd);
	}
	images_unlock();
	return gone;
}

const char *
host_address(const struct host *host)
{
	return host->address;
}

/* The lock's file is made here, so that it has an inode to be known by. */
static int
image_enter(struct host *host, struct errbuf *err)
{
	struct image *image;
	struct stat st;
	int rc;

	images_lock();
	if (stat(host->lock_path, &st) != 0) {
		/* Not there: nobody of this process can hold it. */
		int fd = open(host->lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

		rc = fd < 0 || fstat(fd, &st) != 0 ? -errno : 0;
		if (fd >= 0) {
			(void)close(fd);
		}
		if (rc != 0) {
			images_unlock();
			return errf(err, rc, "%s: %s", host->lock_path, error_text(rc));
		}
	}
	list_for_each_entry(image, &g_images.images, link) {
		if (image->dev == st.st_dev && image->ino == st.st_ino) {
			image->refs++;
			host->image = image;
			images_unlock();
			return 0;
		}
	}
	image = calloc(1, sizeof(*image));
	if (image == NULL) {
		images_unlock();
		return -ENOMEM;
	}
	image->dev = st.st_dev;
	image->ino = st.st_ino;
	image->refs = 1;
	image->lock_fd = -1;
	list_add_tail(&g_images.images, &image->link);
	host->image = image;
	images_unlock();
	return 0;
}

/* The last handle: everything stable, then the lock goes and the next process may come. */
static void
image_leave(struct image *image)
{
	struct node *node;

	images_lock();
	while (image->busy) {
		(void)pthread_cond_wait(&g_images.changed, &g_images.mutex);
	}
	if (--image->refs > 0) {
		images_unlock();
		return;
	}
	node = image->node;
	image->node = NULL;
	image->busy = true;
	images_unlock();
	if (node != NULL) {
		node_stop(node, DRAIN_MS);
	}
	images_lock();
	if (image->lock_fd >= 0) {
		(void)close(image->lock_fd);
	}
	image->lock_fd = -1;
	image->busy = false;
	if (image->refs == 0) {
		list_del(&image->link);
		free(image);
	}
	(void)pthread_cond_broadcast(&g_images.changed);
	images_unlock();
}

int
host_open(struct hr_client *client, struct errbuf *err)
{
	struct host *host = calloc(1, sizeof(*host));
	int rc;

	if (host == NULL) {
		return -ENOMEM;
	}
	client->host = host; /* host_close() takes half-built ones */
	host->client = client;
	host->folder_fd = -1;
	(void)pthread_mutex_init(&host->mutex, NULL);
	rc = paths_make(host, client->url.path, err);
	if (rc == 0) {
		rc = image_enter(host, err);
	}
	return rc == 0 ? host_try(host, err) : rc;
}

void
host_close(struct host *host)
{
	if (host == NULL) {
		return;
	}
	if (host->thread_joinable) {
		(void)pthread_join(host->thread, NULL);
	}
	if (host->image != NULL) {
		image_leave(host->image);
	}
	if (host->folder_fd >= 0) {
		(void)close(host->folder_fd);
	}
	(void)pthread_mutex_destroy(&host->mutex);
	free(host->path);
	free(host->lock_path);
	free(host->socket_path);
	free(host->address);
	free(host);
}
