/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file's steps by threads that wait for the disk in the caller's stead (file_way.h): for hosts
 * that do not permit io_uring.
 *
 * The lock guards two lists, of steps to do and of steps that have ended; an eventfd says that the
 * second has become something.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "backend/capabilities.h"
#include "backend/file_way.h"

#define THREADS 8

struct list {
	struct file_step *first, **end;
};

struct threads {
	struct file_way way;
	int file_fd;
	uint32_t count;
	pthread_t thread[THREADS];

	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t more;
	struct list to_do, ended;
	bool stop;
};

static struct threads *threads_of(struct file_way *way)
{
	return (struct threads *)way;
}

static void list_clear(struct list *list)
{
	list->first = NULL;
	list->end = &list->first;
}

static void list_put(struct list *list, struct file_step *step)
{
	step->next = NULL;
	*list->end = step;
	list->end = &step->next;
}

static struct file_step *list_take(struct list *list)
{
	struct file_step *step = list->first;
	if (step) {
		list->first = step->next;
		if (!list->first)
			list->end = &list->first;
	}
	return step;
}

static int do_step(int fd, const struct file_step *step)
{
	ssize_t r = -EINVAL;
	switch (step->call) {
	case FILE_READ:
		r = preadv(fd, step->iov, (int)step->iov_count, (off_t)step->offset);
		break;
	case FILE_WRITE:
		r = pwritev(fd, step->iov, (int)step->iov_count, (off_t)step->offset);
		break;
	case FILE_SYNC:
		r = fdatasync(fd);
		break;
	case FILE_ALLOCATE:
		r = fallocate(fd, step->mode, (off_t)step->offset, (off_t)step->length);
		break;
	}
	return r < 0 ? -errno : (int)r;
}

static void *run(void *arg)
{
	struct threads *t = arg;
	pthread_setname_np(pthread_self(), "disk");
	capabilities_keep(0); /* the file is open */
	pthread_mutex_lock(&t->lock);
	while (!t->stop || t->to_do.first) {
		struct file_step *step = list_take(&t->to_do);
		if (!step) {
			pthread_cond_wait(&t->more, &t->lock);
			continue;
		}
		pthread_mutex_unlock(&t->lock);
		step->result = do_step(t->file_fd, step);
		pthread_mutex_lock(&t->lock);
		bool first = !t->ended.first;
		list_put(&t->ended, step);
		if (first)
			eventfd_write(t->way.fd, 1);
	}
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

static void threads_start(struct file_way *way, struct file_step *step)
{
	struct threads *t = threads_of(way);
	pthread_mutex_lock(&t->lock);
	list_put(&t->to_do, step);
	pthread_cond_signal(&t->more);
	pthread_mutex_unlock(&t->lock);
}

static void threads_settle(struct file_way *way)
{
}

static struct file_step *threads_ended(struct file_way *way)
{
	struct threads *t = threads_of(way);
	eventfd_t count;
	pthread_mutex_lock(&t->lock);
	struct file_step *step = list_take(&t->ended);
	if (!t->ended.first)
		(void)!eventfd_read(way->fd, &count); /* what comes now says so itself */
	pthread_mutex_unlock(&t->lock);
	return step;
}

static void threads_destroy(struct file_way *way)
{
	struct threads *t = threads_of(way);
	pthread_mutex_lock(&t->lock);
	t->stop = true;
	pthread_cond_broadcast(&t->more);
	pthread_mutex_unlock(&t->lock);
	for (uint32_t i = 0; i < t->count; i++)
		pthread_join(t->thread[i], NULL);
	pthread_cond_destroy(&t->more);
	pthread_mutex_destroy(&t->lock);
	close(way->fd);
	free(t);
}

int file_threads_create(int file_fd, struct file_way **ret_way)
{
	static const struct file_way_ops ops = {
		.start = threads_start,
		.settle = threads_settle,
		.ended = threads_ended,
		.destroy = threads_destroy,
	};
	struct threads *t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->file_fd = file_fd;
	t->way = (struct file_way){ .ops = &ops, .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
	if (t->way.fd < 0) {
		int r = -errno;
		free(t);
		return r;
	}
	list_clear(&t->to_do);
	list_clear(&t->ended);
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->more, NULL);
	/* Signals are for others. */
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	while (t->count < THREADS && pthread_create(&t->thread[t->count], NULL, run, t) == 0)
		t->count++;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!t->count) {
		threads_destroy(&t->way);
		return -EAGAIN;
	}
	*ret_way = &t->way;
	return 0;
}
