/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread that connects (nbd_connect.h).
 */
#include "backend/nbd_connect.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "backend/capabilities.h"

#define TRY_MS	      10000 /* one try takes no longer */
#define APART_MS      500   /* between tries in vain, */
#define AGAIN_MS      100   /* ... and from one that was not to the next */
#define SILENT_S      15    /* a server whose host is gone is noticed by then */
#define ERROR_MAX     256
#define URI_BYTES_MAX 512

struct nbd_connect {
	pthread_t thread;
	char uri[URI_BYTES_MAX];
	int ready_fd, wake_fd; /* to the disk; to the thread */

	pthread_mutex_t lock; /* guards the rest */
	bool wanted, stop;
	struct nbd_handle *handle;
	char error[ERROR_MAX];
};

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000ll + now.tv_nsec / 1000000;
}

static bool must_stop(struct nbd_connect *c)
{
	pthread_mutex_lock(&c->lock);
	bool stop = c->stop;
	pthread_mutex_unlock(&c->lock);
	return stop;
}

static void set_error(struct nbd_connect *c, const char *text)
{
	pthread_mutex_lock(&c->lock);
	snprintf(c->error, sizeof(c->error), "%s", text ? text : "unknown error");
	pthread_mutex_unlock(&c->lock);
}

/* Sleeps until the deadline, the socket, or the disk wants something. */
static void wait_for(struct nbd_connect *c, struct nbd_handle *handle, int64_t until_ms)
{
	int64_t left = until_ms - now_ms();
	unsigned int direction = handle ? nbd_aio_get_direction(handle) : 0;
	struct pollfd fd[2] = {
		{ .fd = c->wake_fd, .events = POLLIN },
		{ .fd = handle ? nbd_aio_get_fd(handle) : -1,
		  .events = (short)((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
				    (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0)) },
	};
	eventfd_t count;
	if (left <= 0 || poll(fd, 2, (int)left) <= 0)
		return;
	if (fd[0].revents)
		(void)!eventfd_read(c->wake_fd, &count);
	if (!handle)
		return;
	direction = nbd_aio_get_direction(handle);
	if ((fd[1].revents & (POLLIN | POLLHUP | POLLERR)) &&
	    (direction & LIBNBD_AIO_DIRECTION_READ))
		nbd_aio_notify_read(handle);
	else if ((fd[1].revents & (POLLOUT | POLLHUP | POLLERR)) &&
		 (direction & LIBNBD_AIO_DIRECTION_WRITE))
		nbd_aio_notify_write(handle);
}

/* A server's host that says nothing more is no different from one that says good-bye. */
static void notice_silence(struct nbd_handle *handle)
{
	int fd = nbd_aio_get_fd(handle), yes = 1, first_s = 5, apart_s = 5, count = 2;
	unsigned int silent_ms = SILENT_S * 1000;
	/* They fail on sockets that are not TCP's, which need none of it. */
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof(yes));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &first_s, sizeof(first_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &apart_s, sizeof(apart_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silent_ms, sizeof(silent_ms));
}

static struct nbd_handle *try_once(struct nbd_connect *c)
{
	int64_t until = now_ms() + TRY_MS;
	struct nbd_handle *handle = nbd_create();
	if (!handle || nbd_set_pread_initialize(handle, false) < 0 ||
	    nbd_aio_connect_uri(handle, c->uri) < 0) {
		set_error(c, nbd_get_error());
		goto failed;
	}
	while (!nbd_aio_is_ready(handle)) {
		if (nbd_aio_is_dead(handle) || nbd_aio_is_closed(handle)) {
			set_error(c, nbd_get_error());
			goto failed;
		}
		if (now_ms() >= until) {
			set_error(c, "no answer");
			goto failed;
		}
		if (must_stop(c))
			goto failed;
		wait_for(c, handle, until);
	}
	notice_silence(handle);
	return handle;
failed:
	nbd_close(handle);
	return NULL;
}

/* At each try: a socket of this host, or keys. */
static bool opens_files(const char *uri)
{
	return strncmp(uri, "nbd://", 6) != 0 || strchr(uri, '?');
}

static void *run(void *arg)
{
	struct nbd_connect *c = arg;
	int64_t next_ms = 0;
	pthread_setname_np(pthread_self(), "nbd");
	capabilities_keep(opens_files(c->uri) ? CAPABILITY(CAP_DAC_OVERRIDE) : 0);
	pthread_mutex_lock(&c->lock);
	while (!c->stop) {
		bool wanted = c->wanted;
		pthread_mutex_unlock(&c->lock);
		struct nbd_handle *handle = NULL;
		if (wanted && now_ms() >= next_ms) {
			handle = try_once(c);
			next_ms = now_ms() + (handle ? AGAIN_MS : APART_MS);
		}
		if (!handle)
			wait_for(c, NULL, wanted ? next_ms : now_ms() + 3600000);
		pthread_mutex_lock(&c->lock);
		if (handle) {
			c->handle = handle;
			c->wanted = false;
			eventfd_write(c->ready_fd, 1);
		}
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

static int start(struct nbd_connect *c)
{
	sigset_t all, before;
	c->ready_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->ready_fd < 0 || c->wake_fd < 0)
		return -errno;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	int r = -pthread_create(&c->thread, NULL, run, c);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

static void release(struct nbd_connect *c)
{
	if (c->ready_fd >= 0)
		close(c->ready_fd);
	if (c->wake_fd >= 0)
		close(c->wake_fd);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

int nbd_connect_create(const char *uri, struct nbd_connect **ret_connect)
{
	struct nbd_connect *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	if (strlen(uri) >= sizeof(c->uri)) {
		free(c);
		return -ENAMETOOLONG;
	}
	strcpy(c->uri, uri);
	c->wanted = true;
	c->ready_fd = c->wake_fd = -1;
	pthread_mutex_init(&c->lock, NULL);
	int r = start(c);
	if (r < 0)
		release(c);
	else
		*ret_connect = c;
	return r;
}

int nbd_connect_fd(const struct nbd_connect *c)
{
	return c->ready_fd;
}

struct nbd_handle *nbd_connect_take(struct nbd_connect *c)
{
	eventfd_t count;
	pthread_mutex_lock(&c->lock);
	struct nbd_handle *handle = c->handle;
	c->handle = NULL;
	(void)!eventfd_read(c->ready_fd, &count);
	pthread_mutex_unlock(&c->lock);
	return handle;
}

void nbd_connect_again(struct nbd_connect *c)
{
	pthread_mutex_lock(&c->lock);
	c->wanted = true;
	pthread_mutex_unlock(&c->lock);
	eventfd_write(c->wake_fd, 1);
}

void nbd_connect_error(struct nbd_connect *c, char *text, size_t size)
{
	pthread_mutex_lock(&c->lock);
	snprintf(text, size, "%s", c->error);
	pthread_mutex_unlock(&c->lock);
}

void nbd_connect_destroy(struct nbd_connect *c)
{
	if (!c)
		return;
	pthread_mutex_lock(&c->lock);
	c->stop = true;
	pthread_mutex_unlock(&c->lock);
	eventfd_write(c->wake_fd, 1);
	pthread_join(c->thread, NULL);
	if (c->handle)
		nbd_close(c->handle);
	release(c);
}
