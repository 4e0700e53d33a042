/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks of NBD servers (nbd.h), by libnbd's asynchronous calls.
 *
 * A request becomes commands, one for each piece of its memory; zeros and discards of more than a
 * command's reach one after the other. A connection that is lost takes its commands with it, not
 * their requests: they *wait*, and are sent again, whole, to the next connection. That is right, as
 * nobody has been told that they are done, and requests that are under way at once are not ordered.
 *
 *	connected --lost--> waiting --timeout--> gone: requests fail
 *	    ^                  |                    |
 *	    '--- replaying <---'--------------------'   when the thread has connected again
 *
 * What the server had acknowledged and not yet been told to flush when it ended may be lost, and the
 * guest, which will flush some time, could not tell. So a copy of it is kept (unflushed.h), and
 * written again, in order, before anything else goes to the next connection. Where half of the room
 * for that is used a flush of our own makes some.
 *
 * A server that does not answer at all for that time is left as if its connection were lost; so is
 * one that says that it shuts down, at once, as it need not hang up. Connections that bring nothing but
 * their loss do not give the requests that wait for them more time.
 *
 * Tested by tests/backend/test_nbd.c.
 */
#include "backend/nbd.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "backend/nbd_commands.h"
#include "backend/nbd_connect.h"
#include "backend/unflushed.h"

#define CONNECT_S    5
#define SILENT_S     10u /* a server may take its time, whatever the timeout */
#define GATHER_MAX   8u	 /* requests whose pieces are too odd for the server; others wait */
#define BLOCK_MAX    4096u
#define TICK_MS	     250
#define REPLAY_BYTES (1u << 20) /* of one command */

enum state { CONNECTED, REPLAYING, WAITING, GONE };

struct nbd_disk;

struct slot {
	struct nbd_group group; /* first */
	struct nbd_disk *disk;
	struct slot *next; /* free, or waiting to be sent */
	struct disk_request *request;
	uint64_t progress; /* ZERO, DISCARD: bytes done, and of the command under way */
	uint64_t range;
	uint64_t mark;	   /* FLUSH: what it covers */
	bool reserved;	   /* WRITE, ZERO, DISCARD: room among what is not flushed */
	uint8_t *gathered; /* its memory in one piece, if that must be */
};

struct nbd_disk {
	struct disk disk;
	struct backend_user user;
	char uri[256];
	uint32_t timeout_s, silent_s;
	enum state state;
	struct nbd_connect *connect;
	struct nbd_connection connection; /* CONNECTED, REPLAYING: there is one */
	int nbd_fd;			  /* as it is in the epoll; -1: is not */
	uint32_t nbd_events;
	int timer_fd;
	bool in_vain;	       /* requests have waited for this connection, with no answer yet */
	uint64_t waiting_ns;   /* since when they do */
	uint64_t server_bytes; /* at first */
	uint32_t block;	       /* the server's smallest */
	bool flush;
	uint32_t gathered_count;
	struct unflushed *unflushed; /* NULL: read-only, or nothing is to be flushed there */
	struct nbd_group replay;
	uint64_t replay_next;	/* the first record that has not been sent to this connection */
	bool was_gone;		/* REPLAYING: before */
	bool was_in_vain;	/* the same */
	struct nbd_group early; /* a flush of our own */
	uint64_t early_mark;
	bool early_failed; /* the last one, at the server */
	struct slot *free, *waiting, **waiting_end;
	struct disk_request *done, **done_end;
	struct slot slot[DISK_REQUESTS_MAX];
};

static struct nbd_disk *nbd_of(struct disk *disk)
{
	return (struct nbd_disk *)disk;
}

static void put_waiting(struct nbd_disk *n, struct slot *slot)
{
	slot->next = NULL;
	*n->waiting_end = slot;
	n->waiting_end = &slot->next;
}

static struct slot *take_waiting(struct nbd_disk *n)
{
	struct slot *slot = n->waiting;
	if (slot) {
		n->waiting = slot->next;
		if (!n->waiting)
			n->waiting_end = &n->waiting;
	}
	return slot;
}

static void finish(struct nbd_disk *n, struct slot *slot, int result)
{
	struct disk_request *request = slot->request;
	if (slot->gathered) {
		free(slot->gathered);
		slot->gathered = NULL;
		n->gathered_count--;
	}
	if (slot->reserved) {
		if (result < 0)
			unflushed_release(n->unflushed, request);
		else
			unflushed_add(n->unflushed, request);
		slot->reserved = false;
	}
	slot->request = NULL;
	slot->next = n->free;
	n->free = slot;
	request->result = result;
	request->next = NULL;
	*n->done_end = request;
	n->done_end = &request->next;
}

static void copy(const struct slot *slot, bool gather)
{
	uint8_t *at = slot->gathered;
	for (uint32_t i = 0; i < slot->request->iov_count; i++) {
		const struct iovec *piece = &slot->request->iov[i];
		memcpy(gather ? (void *)at : piece->iov_base, gather ? piece->iov_base : (void *)at,
		       piece->iov_len);
		at += piece->iov_len;
	}
}

static void request_failed(struct nbd_disk *n, const struct disk_request *request, int error)
{
	backend_say(
		&n->user,
		"a request of %llu bytes at %llu failed: %s's server says: %s; the guest gets an "
		"I/O error",
		(unsigned long long)request->length, (unsigned long long)request->offset, n->uri,
		strerror(error));
}

static void slot_ended(struct nbd_group *group)
{
	struct slot *slot = (struct slot *)group;
	struct nbd_disk *n = slot->disk;
	struct disk_request *request = slot->request;
	if (group->answered)
		n->in_vain = false;
	if (!nbd_is_whole(group)) {
		put_waiting(n, slot); /* also if another command of it failed: it may not again */
		return;
	}
	if (group->error) {
		request_failed(n, request, group->error);
		finish(n, slot, -EIO);
		return;
	}
	slot->progress += slot->range;
	if (slot->range && slot->progress < request->length) {
		put_waiting(n, slot); /* its next command */
		return;
	}
	if (slot->gathered && request->op == DISK_READ)
		copy(slot, false);
	if (request->op == DISK_FLUSH && n->unflushed) {
		unflushed_flushed(n->unflushed, slot->mark);
		n->early_failed = false;
	}
	finish(n, slot, 0);
}

static void early_ended(struct nbd_group *group)
{
	struct nbd_disk *n =
		(struct nbd_disk *)(void *)((char *)group - offsetof(struct nbd_disk, early));
	if (!nbd_is_whole(group))
		return;
	n->early_failed = group->error != 0;
	if (!group->error)
		unflushed_flushed(n->unflushed, n->early_mark);
}

/* work() looks what has become of it. */
static void replay_ended(struct nbd_group *group)
{
}

static void send_slot(struct nbd_disk *n, struct slot *slot)
{
	const struct disk_request *request = slot->request;
	struct iovec whole = { slot->gathered, request->length };
	const struct iovec *iov = slot->gathered ? &whole : request->iov;
	uint32_t count = slot->gathered ? 1 : request->iov_count;
	uint64_t offset = request->offset;
	nbd_begin(&slot->group);
	slot->range = 0;
	switch (request->op) {
	case DISK_READ:
	case DISK_WRITE:
		for (uint32_t i = 0; i < count; i++) {
			nbd_send_data(&slot->group, request->op, &iov[i], offset);
			offset += iov[i].iov_len;
		}
		break;
	case DISK_FLUSH:
		slot->mark = n->unflushed ? unflushed_end(n->unflushed) : 0;
		nbd_send_flush(&slot->group);
		break;
	case DISK_DISCARD:
	case DISK_ZERO:
		slot->range =
			nbd_send_range(&slot->group, request->op, request->unmap,
				       offset + slot->progress, request->length - slot->progress);
		break;
	}
	nbd_all_sent(&slot->group);
}

/* Is there room to keep what it changes until that is flushed? */
static bool has_room(struct nbd_disk *n, struct slot *slot)
{
	enum disk_op op = slot->request->op;
	if (n->unflushed && !slot->reserved && op != DISK_READ && op != DISK_FLUSH)
		slot->reserved = unflushed_reserve(n->unflushed, slot->request);
	return !n->unflushed || slot->reserved || op == DISK_READ || op == DISK_FLUSH;
}

static void send_waiting(struct nbd_disk *n)
{
	struct slot **end = n->waiting_end;
	/* What is lost while they are sent waits behind them. */
	while (n->state == CONNECTED && n->waiting && has_room(n, n->waiting)) {
		bool last = &n->waiting->next == end;
		send_slot(n, take_waiting(n));
		if (last)
			break;
	}
}

/*
 * Half of the room is used: a flush of our own. When that fails, which nobody was promised anything of,
 * it is tried again for who finds no room at all, and he has the error.
 */
static void flush_early(struct nbd_disk *n)
{
	if (n->state != CONNECTED || !n->unflushed || n->early.under_way)
		return;
	bool no_room = n->waiting && !has_room(n, n->waiting);
	if (!no_room)
		n->early.error = 0; /* of who finds none later it is no answer */
	if (no_room && n->early.error) {
		struct slot *slot = take_waiting(n);
		request_failed(n, slot->request, n->early.error);
		n->early.error = 0; /* the next one has its own try */
		finish(n, slot, -EIO);
		no_room = n->waiting && !has_room(n, n->waiting);
	}
	if (!unflushed_wants_flush(n->unflushed) || (n->early_failed && !no_room))
		return;
	n->early_mark = unflushed_end(n->unflushed);
	nbd_begin(&n->early);
	nbd_send_flush(&n->early);
	nbd_all_sent(&n->early);
}

/* In commands that any server takes; what was discarded is undefined, whether it is so again or not. */
static void replay_record(struct nbd_disk *n, const struct unflushed_record *record)
{
	uint64_t offset = record->offset, end = record->offset + record->length;
	if (record->op == DISK_DISCARD)
		return;
	for (uint32_t i = 0; i < record->data_count; i++) {
		struct iovec left = record->data[i];
		while (left.iov_len) {
			struct iovec part = { left.iov_base, left.iov_len };
			if (part.iov_len > REPLAY_BYTES)
				part.iov_len = REPLAY_BYTES;
			nbd_send_data(&n->replay, record->op, &part, offset);
			offset += part.iov_len;
			left.iov_base = (uint8_t *)left.iov_base + part.iov_len;
			left.iov_len -= part.iov_len;
		}
	}
	while (offset < end)
		offset +=
			nbd_send_range(&n->replay, record->op, record->unmap, offset, end - offset);
}

static void replay_batch(struct nbd_disk *n)
{
	uint32_t count = unflushed_batch(n->unflushed, n->replay_next);
	struct unflushed_record record;
	nbd_begin(&n->replay);
	for (uint32_t i = 0; i < count; i++) {
		unflushed_get(n->unflushed, n->replay_next++, &record);
		replay_record(n, &record);
	}
	nbd_all_sent(&n->replay);
}

static void fail_waiting(struct nbd_disk *n)
{
	struct slot *slot;
	n->in_vain = false;
	while ((slot = take_waiting(n)))
		finish(n, slot, -EIO);
}

static void watch(struct nbd_disk *n, int fd, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.fd = fd };
	if (n->nbd_fd == fd && n->nbd_events == events)
		return;
	if (n->nbd_fd >= 0 && n->nbd_fd != fd)
		epoll_ctl(n->disk.fd, EPOLL_CTL_DEL, n->nbd_fd, NULL);
	if (fd >= 0)
		epoll_ctl(n->disk.fd, n->nbd_fd == fd ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
	n->nbd_fd = fd;
	n->nbd_events = events;
}

/* The connection, dead or not, is given up; what was under way waits for the next. */
static void disconnect(struct nbd_disk *n)
{
	watch(n, -1, 0);
	n->state = n->timeout_s && !(n->state == REPLAYING && n->was_gone) ? WAITING : GONE;
	n->connection.since_ns = nbd_now_ns();
	if (!n->in_vain)
		n->waiting_ns = n->connection.since_ns;
	nbd_close(n->connection.handle); /* ends all commands, which are lost */
	n->connection.handle = NULL;
	/* All begin anew, also with what they have reserved: it is theirs in the order that they wait. */
	for (struct slot *slot = n->waiting; slot; slot = slot->next) {
		slot->progress = 0;
		if (slot->reserved)
			unflushed_release(n->unflushed, slot->request);
		slot->reserved = false;
	}
	n->connection.shuts_down = false;
	if (n->state == GONE)
		fail_waiting(n);
	nbd_connect_again(n->connect);
}

static void check_connection(struct nbd_disk *n)
{
	if (!n->connection.handle || !nbd_is_lost(&n->connection))
		return;
	backend_say(&n->user, "the connection to %s is lost: %s", n->uri,
		    n->timeout_s ? "the guest waits for it"
				 : "the guest gets I/O errors until it is there again");
	disconnect(n);
}

/* Is what has been connected to still the same disk? */
static bool is_same(struct nbd_disk *n, struct nbd_handle *handle)
{
	int64_t bytes = nbd_get_size(handle);
	if (bytes >= 0 && (uint64_t)bytes == n->server_bytes &&
	    (n->disk.info.read_only || nbd_is_read_only(handle) == 0))
		return true;
	backend_say(&n->user,
		    "%s is back with another disk: of %lld bytes, not %llu; it is not used", n->uri,
		    (long long)bytes, (unsigned long long)n->server_bytes);
	return false;
}

static void take_connection(struct nbd_disk *n)
{
	struct nbd_handle *handle = nbd_connect_take(n->connect);
	if (!handle)
		return;
	if (!is_same(n, handle)) {
		nbd_close(handle);
		nbd_connect_again(n->connect);
		return;
	}
	n->connection.handle = handle;
	n->was_gone = n->state == GONE;
	n->state = REPLAYING;
	n->connection.since_ns = nbd_now_ns();
	n->replay_next = n->unflushed ? unflushed_first(n->unflushed) : 0;
	n->was_in_vain = n->in_vain;
	n->in_vain = true;
	n->replay.error = 0;
}

static void replayed(struct nbd_disk *n)
{
	uint64_t count = n->unflushed ? n->replay_next - unflushed_first(n->unflushed) : 0;
	n->state = CONNECTED;
	n->in_vain = n->waiting;
	if (!n->was_in_vain)
		n->user.said_ns = 0; /* as often as a line that it is lost, which may be of now */
	if (count)
		backend_say(
			&n->user,
			"connected to %s again; %llu writes that it was not told to flush have been "
			"written again",
			n->uri, (unsigned long long)count);
	else
		backend_say(&n->user, "connected to %s again", n->uri);
}

/* A server that does not take what it has lost is as good as none. */
static void replay_refused(struct nbd_disk *n)
{
	backend_say(
		&n->user,
		"%s is back, and does not let be written again what it was not told to flush: %s; "
		"it is not used",
		n->uri, strerror(n->replay.error));
	disconnect(n);
}

/* What it was not told to flush is written again, and before that nothing else. */
static void go_on_replaying(struct nbd_disk *n)
{
	while (n->state == REPLAYING && !n->replay.under_way && !nbd_is_lost(&n->connection)) {
		if (n->replay.error)
			replay_refused(n);
		else if (n->unflushed && n->replay_next != unflushed_end(n->unflushed))
			replay_batch(n);
		else
			replayed(n);
	}
}

/* Has somebody waited for too long? */
static void check_time(struct nbd_disk *n)
{
	uint64_t now = nbd_now_ns();
	char error[256];
	if (n->connection.handle && n->connection.busy &&
	    now - n->connection.since_ns > n->silent_s * 1000000000ull) {
		backend_say(&n->user,
			    "%s has not answered for %u s: the guest gets I/O errors until it does",
			    n->uri, n->silent_s);
		disconnect(n);
		n->state = GONE;
		fail_waiting(n);
	} else if (n->state == WAITING && now - n->waiting_ns > n->timeout_s * 1000000000ull) {
		nbd_connect_error(n->connect, error, sizeof(error));
		n->user.said_ns = 0; /* whatever has just been said */
		backend_say(&n->user,
			    "%s has been gone for %u s (%s): the guest gets I/O errors until it is "
			    "there again",
			    n->uri, n->timeout_s, n->in_vain ? "it loses each connection" : error);
		n->state = GONE;
		fail_waiting(n);
	}
}

/* It ticks while somebody waits; `at_once`: it is due now. */
static void set_timer(struct nbd_disk *n, bool at_once)
{
	bool needed = at_once || n->state == WAITING ||
		      (n->connection.handle &&
		       (n->connection.busy || n->waiting || n->state == REPLAYING));
	struct itimerspec now, wanted = { 0 };
	if (needed)
		wanted.it_value.tv_nsec = wanted.it_interval.tv_nsec = TICK_MS * 1000000;
	if (at_once)
		wanted.it_value.tv_nsec = 1;
	timerfd_gettime(n->timer_fd, &now);
	if (at_once || (now.it_interval.tv_nsec != 0) != needed)
		timerfd_settime(n->timer_fd, 0, &wanted, NULL);
}

static void nbd_settle(struct disk *disk)
{
	struct nbd_disk *n = nbd_of(disk);
	check_connection(n);
	if (n->connection.handle) {
		unsigned int direction = nbd_aio_get_direction(n->connection.handle);
		watch(n, nbd_aio_get_fd(n->connection.handle),
		      (direction & LIBNBD_AIO_DIRECTION_READ ? EPOLLIN : 0u) |
			      (direction & LIBNBD_AIO_DIRECTION_WRITE ? EPOLLOUT : 0u));
	}
	/* What was done in submit() would be told by nothing else. */
	set_timer(n, n->done != NULL);
}

static void notify(struct nbd_disk *n, uint32_t events)
{
	unsigned int direction = nbd_aio_get_direction(n->connection.handle);
	if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && (direction & LIBNBD_AIO_DIRECTION_READ))
		nbd_aio_notify_read(n->connection.handle);
	else if ((events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) &&
		 (direction & LIBNBD_AIO_DIRECTION_WRITE))
		nbd_aio_notify_write(n->connection.handle);
}

static void nbd_work(struct disk *disk)
{
	struct nbd_disk *n = nbd_of(disk);
	struct epoll_event event[4];
	uint64_t ticks;
	int count = epoll_wait(n->disk.fd, event, 4, 0);
	for (int i = 0; i < count; i++) {
		int fd = event[i].data.fd;
		if (fd == n->timer_fd)
			(void)!read(fd, &ticks, sizeof(ticks));
		else if (fd == nbd_connect_fd(n->connect))
			take_connection(n);
		else if (n->connection.handle && fd == n->nbd_fd)
			notify(n, event[i].events);
	}
	check_connection(n);
	go_on_replaying(n);
	send_waiting(n);
	flush_early(n);
	check_time(n);
	set_timer(n, false);
}

/* Must its memory be made one piece? */
static bool is_odd(const struct nbd_disk *n, const struct disk_request *request)
{
	for (uint32_t i = 0; i < request->iov_count; i++)
		if (request->iov[i].iov_len % n->block || !request->iov[i].iov_len)
			return true;
	return false;
}

/* With nothing under way whose end would say when to ask again. */
static void no_memory(struct nbd_disk *n, struct slot *slot)
{
	backend_say(
		&n->user,
		"a request of %llu bytes at %llu failed: no memory; the guest gets an I/O error",
		(unsigned long long)slot->request->length,
		(unsigned long long)slot->request->offset);
	finish(n, slot, -EIO);
}

static int nbd_submit(struct disk *disk, struct disk_request *request)
{
	struct nbd_disk *n = nbd_of(disk);
	int r = disk_request_check(&disk->info, request);
	if (r < 0)
		return r;
	bool odd = (request->op == DISK_READ || request->op == DISK_WRITE) && is_odd(n, request);
	struct slot *slot = n->free;
	if (!slot || (odd && n->gathered_count == GATHER_MAX))
		return -EAGAIN;
	if (odd) {
		slot->gathered = malloc(request->length);
		if (!slot->gathered && (n->connection.busy || n->waiting || n->done))
			return -EAGAIN;
		n->gathered_count += slot->gathered != NULL;
	}
	n->free = slot->next;
	slot->request = request;
	slot->progress = 0;
	if (odd && !slot->gathered) {
		no_memory(n, slot);
		return 0;
	}
	if (odd && request->op == DISK_WRITE)
		copy(slot, true);
	if (n->state == GONE || (request->op == DISK_FLUSH && !n->flush)) {
		finish(n, slot, n->state == GONE ? -EIO : 0);
	} else {
		put_waiting(n, slot);
		send_waiting(n);
		flush_early(n);
	}
	return 0;
}

static struct disk_request *nbd_done(struct disk *disk)
{
	struct nbd_disk *n = nbd_of(disk);
	struct disk_request *request = n->done;
	if (request) {
		n->done = request->next;
		if (!n->done)
			n->done_end = &n->done;
	}
	return request;
}

static void nbd_destroy(struct disk *disk)
{
	struct nbd_disk *n = nbd_of(disk);
	if (n->connection.handle) {
		nbd_aio_disconnect(n->connection.handle, 0);
		nbd_close(n->connection.handle);
	}
	nbd_connect_destroy(n->connect);
	unflushed_destroy(n->unflushed);
	if (n->timer_fd >= 0)
		close(n->timer_fd);
	if (n->disk.fd >= 0)
		close(n->disk.fd);
	for (uint32_t i = 0; i < DISK_REQUESTS_MAX; i++)
		free(n->slot[i].gathered);
	free(n);
}

static const struct disk_ops nbd_ops = {
	.submit = nbd_submit,
	.settle = nbd_settle,
	.work = nbd_work,
	.done = nbd_done,
	.destroy = nbd_destroy,
};

struct opening {
	const struct disk_nbd_options *options;
	struct nbd_disk *n;
	char *why;
	size_t why_size;
};

__attribute__((format(printf, 3, 4))) static int refuse(const struct opening *o, int error,
							const char *format, ...)
{
	int used = snprintf(o->why, o->why_size, "%s: %s ", o->options->user.name, o->options->uri);
	if (used > 0 && (size_t)used < o->why_size) {
		va_list args;
		va_start(args, format);
		vsnprintf(o->why + used, o->why_size - (size_t)used, format, args);
		va_end(args);
	}
	return error;
}

static int first_connection(const struct opening *o)
{
	struct nbd_disk *n = o->n;
	uint64_t seconds = o->options->connect_s ? o->options->connect_s : CONNECT_S;
	char error[256];
	int r = nbd_connect_create(o->options->uri, &n->connect);
	if (r < 0)
		return refuse(o, r, "cannot be connected to: %s", strerror(-r));
	struct pollfd fd = { .fd = nbd_connect_fd(n->connect), .events = POLLIN };
	int found;
	do
		found = poll(&fd, 1, (int)(seconds * 1000));
	while (found < 0 && errno == EINTR);
	n->connection.handle = nbd_connect_take(n->connect);
	if (n->connection.handle)
		return 0;
	nbd_connect_error(n->connect, error, sizeof(error));
	return refuse(o, -ETIMEDOUT,
		      "cannot be reached within %llu s: %s; is its server there, and is the URI "
		      "right?",
		      (unsigned long long)seconds, error[0] ? error : "no answer");
}

static int learn(const struct opening *o)
{
	struct nbd_disk *n = o->n;
	struct disk_info *info = &n->disk.info;
	int64_t bytes = nbd_get_size(n->connection.handle);
	int64_t smallest = nbd_get_block_size(n->connection.handle, LIBNBD_SIZE_MINIMUM);
	bool read_only = nbd_is_read_only(n->connection.handle) == 1;
	if (bytes <= 0)
		return refuse(o, -EINVAL, "is empty");
	n->server_bytes = (uint64_t)bytes;
	n->block = smallest > 0 ? (uint32_t)smallest : 1;
	info->bytes = (uint64_t)bytes;
	info->block_bytes = o->options->block_bytes ? o->options->block_bytes
			    : n->block > 512	    ? n->block
						    : 512;
	info->alignment = 1;
	info->read_only = o->options->read_only;
	info->serial[0] = '\0';
	n->flush = nbd_can_flush(n->connection.handle) == 1;
	info->write_back = n->flush;
	info->discard = !info->read_only && nbd_can_trim(n->connection.handle) == 1;
	info->zero = !info->read_only && nbd_can_zero(n->connection.handle) == 1;
	if (read_only && !info->read_only)
		return refuse(o, -EROFS, "is read-only at its server: take it read-only");
	if (n->block > BLOCK_MAX || info->block_bytes < n->block)
		return refuse(o, -EINVAL, "has blocks of %u bytes%s", n->block,
			      n->block > BLOCK_MAX ? ", which is too large"
						   : "; block_size must be that");
	if (info->bytes % info->block_bytes)
		return refuse(o, -EINVAL, "has %llu bytes, no multiple of %u",
			      (unsigned long long)info->bytes, info->block_bytes);
	return 0;
}

static int make_parts(const struct opening *o)
{
	struct nbd_disk *n = o->n;
	n->waiting_end = &n->waiting;
	n->done_end = &n->done;
	n->early = (struct nbd_group){ .connection = &n->connection, .ended = early_ended };
	n->replay = (struct nbd_group){ .connection = &n->connection, .ended = replay_ended };
	for (uint32_t i = DISK_REQUESTS_MAX; i-- > 0;) {
		n->slot[i].group =
			(struct nbd_group){ .connection = &n->connection, .ended = slot_ended };
		n->slot[i].disk = n;
		n->slot[i].next = n->free;
		n->free = &n->slot[i];
	}
	n->disk.fd = epoll_create1(EPOLL_CLOEXEC);
	n->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	return n->disk.fd < 0 || n->timer_fd < 0
		       ? refuse(o, -errno, "cannot be used: %s", strerror(errno))
		       : 0;
}

static int watch_parts(const struct opening *o)
{
	struct nbd_disk *n = o->n;
	int fd[] = { n->timer_fd, nbd_connect_fd(n->connect) };
	for (int i = 0; i < 2; i++) {
		struct epoll_event event = { .events = EPOLLIN, .data.fd = fd[i] };
		if (epoll_ctl(n->disk.fd, EPOLL_CTL_ADD, fd[i], &event) < 0)
			return refuse(o, -errno, "cannot be used: %s", strerror(errno));
	}
	return 0;
}

size_t disk_nbd_kept_bytes(bool read_only)
{
	return sizeof(struct nbd_disk) + (read_only ? 0 : unflushed_kept_bytes());
}

int disk_nbd_open(const struct disk_nbd_options *options, struct disk **ret_disk, char *why,
		  size_t why_size)
{
	struct nbd_disk *n = calloc(1, sizeof(*n));
	struct opening o = { .options = options, .n = n, .why = why, .why_size = why_size };
	if (!n)
		return refuse(&o, -ENOMEM, "cannot be used: no memory");
	n->disk.ops = &nbd_ops;
	n->nbd_fd = -1;
	n->user = options->user;
	n->timeout_s = options->timeout_s;
	n->silent_s = options->silent_s		? options->silent_s
		      : n->timeout_s > SILENT_S ? n->timeout_s
						: SILENT_S;
	snprintf(n->uri, sizeof(n->uri), "%s", options->uri);
	int r = make_parts(&o);
	if (!r)
		r = first_connection(&o);
	if (!r)
		r = learn(&o);
	if (!r && n->flush && !n->disk.info.read_only && unflushed_create(&n->unflushed) < 0)
		r = refuse(&o, -ENOMEM, "cannot be used: no memory");
	if (!r)
		r = watch_parts(&o);
	if (r < 0) {
		nbd_destroy(&n->disk);
		return r;
	}
	snprintf(n->disk.info.serial, sizeof(n->disk.info.serial), "%s",
		 options->serial ? options->serial : "");
	n->connection.since_ns = nbd_now_ns();
	*ret_disk = &n->disk;
	return 0;
}
