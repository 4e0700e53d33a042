/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The status socket's server (status_socket.h): one thread. It hears and answers CLIENTS at once, and
 * makes one answer at a time: who asks or reads slowly holds up nobody. An answer has SEND_MS to
 * leave, and the node's end breaks it off. Who asks for that end has a place until then, or until he
 * hangs up; half of the places are for him and his like.
 *
 * Who removes a dead socket's file, or makes one, holds a lock on the folder (flock): or he might
 * remove the file that another has just put in the dead one's place.
 */
#include "node/status_socket.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS	     16u  /* further ones wait in the kernel */
#define REQUEST_MS   1000 /* who asks may lose its core between connecting and asking */
#define SEND_MS	     2000
#define BACK_OFF_MS  100 /* who cannot be let in stays, and would be seen again at once */
#define LOCK_TURN_US 2000
#define LOCK_MS	     1000 /* nobody holds it so long, but who is stopped */

struct client {
	int fd;	      /* -1: nobody */
	uint64_t end; /* of its time to ask, then of its answer's to leave: now_ms() */
	char request[STATUS_REQUEST_MAX];
	char *answer; /* NULL: it has not asked yet, or waits for the end */
	bool waits_for_end;
	size_t have, length, sent;
};

struct status_socket {
	struct sockaddr_un address;
	int fd, stop_fd;
	pthread_t thread;
	struct client client[CLIENTS]; /* the thread's */
	uint64_t closed_until;	       /* the thread's: now_ms() */
	status_answer_fn *answer;
	void *context;
};

static bool is_ours(const char *dir)
{
	struct stat st;
	return stat(dir, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid();
}

void status_socket_dir(char *path, size_t size)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	char of_login[64]; /* the folder that logind makes for a user */
	snprintf(of_login, sizeof(of_login), "/run/user/%u", geteuid());
	/* After su the variable may still name another user's folder, or one that is gone. */
	if (geteuid() == 0)
		snprintf(path, size, "/run/eagre");
	else if (runtime && runtime[0] == '/' && is_ours(runtime))
		snprintf(path, size, "%s/eagre", runtime);
	else if (is_ours(of_login))
		snprintf(path, size, "%s/eagre", of_login);
	else
		snprintf(path, size, "/tmp/eagre-%u", geteuid());
}

int status_socket_dir_check(void)
{
	char dir[PATH_MAX];
	struct stat st;
	status_socket_dir(dir, sizeof(dir));
	if (lstat(dir, &st) < 0)
		return -errno;
	return S_ISDIR(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 022) ? 0 : -EPERM;
}

static void swap_dots(char *name, char from, char to)
{
	for (; *name; name++)
		if (*name == from)
			*name = to;
}

bool status_socket_name_parse(const char *name, char *pod, char *node, size_t size)
{
	const char *dot = strchr(name, '.');
	const char *end = dot ? strchr(dot + 1, '.') : NULL;
	if (!end || strcmp(end, ".sock") != 0 || dot == name || end == dot + 1)
		return false;
	if ((size_t)(dot - name) >= size || (size_t)(end - dot) > size)
		return false;
	snprintf(pod, size, "%.*s", (int)(dot - name), name);
	snprintf(node, size, "%.*s", (int)(end - dot - 1), dot + 1);
	swap_dots(pod, '%', '.');
	swap_dots(node, '%', '.');
	return true;
}

static uint64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void client_end(struct client *c)
{
	close(c->fd);
	free(c->answer);
	*c = (struct client){ .fd = -1 };
}

static void client_send(struct client *c)
{
	while (c->sent < c->length) {
		ssize_t n = send(c->fd, c->answer + c->sent, c->length - c->sent,
				 MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0)
			break;
		c->sent += (size_t)n;
	}
	client_end(c);
}

static void client_wait_for_end(struct status_socket *s, struct client *c)
{
	unsigned count = 0;
	for (unsigned i = 0; i < CLIENTS; i++)
		count += s->client[i].fd >= 0 && s->client[i].waits_for_end;
	if (count == STATUS_ENDS_MAX) {
		client_end(c);
		return;
	}
	c->waits_for_end = true;
	c->end = UINT64_MAX;
}

static void client_tell(struct status_socket *s, struct client *c)
{
	c->answer = s->answer(s->context, c->request);
	if (!c->answer) {
		client_end(c);
		return;
	}
	c->length = strlen(c->answer);
	c->end = now_ms() + SEND_MS;
	client_send(c);
}

static void client_answer(struct status_socket *s, struct client *c)
{
	c->request[c->have] = '\0';
	c->request[strcspn(c->request, "\n")] = '\0';
	if (strcmp(c->request, STATUS_END) == 0)
		client_wait_for_end(s, c);
	else
		client_tell(s, c);
}

/*
 * The line that comes first is the request; without its end, as much as there is when its time is
 * over. Who hangs up without a word only wanted to know whether somebody lives here.
 */
static void client_hear(struct status_socket *s, struct client *c)
{
	ssize_t n =
		recv(c->fd, c->request + c->have, STATUS_REQUEST_MAX - 1 - c->have, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0 && c->have == 0) {
		client_end(c);
		return;
	}
	bool whole = n <= 0 || memchr(c->request + c->have, '\n', (size_t)n);
	c->have += n > 0 ? (size_t)n : 0;
	if (whole || c->have + 1 == STATUS_REQUEST_MAX)
		client_answer(s, c);
}

static void client_accept(struct status_socket *s, struct client *c)
{
	int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd >= 0)
		*c = (struct client){ .fd = fd, .end = now_ms() + REQUEST_MS };
	else if (errno != EINTR && errno != ECONNABORTED)
		s->closed_until = now_ms() + BACK_OFF_MS; /* no descriptors, or no memory */
}

/* Its time is over: what it has said is what it asks, and what has not left stays. */
static void client_late(struct status_socket *s, struct client *c)
{
	if (c->answer)
		client_end(c);
	else
		client_answer(s, c);
}

static struct client *place_for_one(struct status_socket *s)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		if (s->client[i].fd < 0)
			return &s->client[i];
	return NULL;
}

/* What to wait for: the end, new clients if there is a place, and each client. In ms, how long. */
static int want(const struct status_socket *s, bool place, struct pollfd fds[CLIENTS + 2])
{
	uint64_t now = now_ms(), first = UINT64_MAX;
	fds[0] = (struct pollfd){ .fd = s->stop_fd, .events = POLLIN };
	bool closed = now < s->closed_until;
	if (place && closed)
		first = s->closed_until;
	fds[1] = (struct pollfd){ .fd = place && !closed ? s->fd : -1, .events = POLLIN };
	for (unsigned i = 0; i < CLIENTS; i++) {
		const struct client *c = &s->client[i];
		fds[i + 2] = (struct pollfd){ .fd = c->fd, .events = c->answer ? POLLOUT : POLLIN };
		if (c->fd >= 0 && c->end < first)
			first = c->end;
	}
	return first == UINT64_MAX ? -1 : first > now ? (int)(first - now) : 0;
}

static void *serve(void *arg)
{
	struct status_socket *s = arg;
	struct pollfd fds[CLIENTS + 2];
	for (unsigned i = 0; i < CLIENTS; i++)
		s->client[i].fd = -1;
	for (;;) {
		struct client *place = place_for_one(s);
		int count = poll(fds, CLIENTS + 2, want(s, place, fds));
		if (count < 0 && errno != EINTR)
			break;
		if (count > 0 && fds[0].revents)
			break;
		for (unsigned i = 0; i < CLIENTS; i++) {
			struct client *c = &s->client[i];
			if (c->fd < 0)
				continue;
			if (count > 0 && fds[i + 2].revents && c->answer)
				client_send(c);
			else if (count > 0 && fds[i + 2].revents && c->waits_for_end)
				client_end(c);
			else if (count > 0 && fds[i + 2].revents)
				client_hear(s, c);
			else if (now_ms() >= c->end)
				client_late(s, c);
		}
		if (count > 0 && fds[1].revents)
			client_accept(s, place);
	}
	for (unsigned i = 0; i < CLIENTS; i++) {
		if (s->client[i].fd >= 0 && s->client[i].waits_for_end)
			client_tell(s, &s->client[i]);
		if (s->client[i].fd >= 0)
			client_end(&s->client[i]);
	}
	return NULL;
}

/*
 * A socket file that no process has open is left from a node that died. A datagram socket is not
 * connected to a node's (EPROTOTYPE), so nobody is disturbed; and it makes no difference whether
 * the node listens yet, or is stopped. 0: nobody is there any more; -EADDRINUSE: a node is.
 */
static int remove_dead(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	int r = connect(fd, (const struct sockaddr *)&address, sizeof(address)) ? -errno
										: -EADDRINUSE;
	close(fd);
	if (r == -EPROTOTYPE)
		r = -EADDRINUSE;
	if (r == -ECONNREFUSED)
		r = unlink(path) ? -errno : 0;
	return r == -ENOENT ? 0 : r;
}

/* Locked until it is closed; -1: it is not there, or somebody else has it for longer than that. */
static int dir_lock(const char *dir, uint64_t patience_ms)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	uint64_t end = now_ms() + patience_ms;
	while (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if ((errno != EWOULDBLOCK && errno != EINTR) || now_ms() >= end) {
			close(fd);
			return -1;
		}
		usleep(LOCK_TURN_US);
	}
	return fd;
}

void status_socket_sweep(void)
{
	char dir[PATH_MAX], pod[256], node[256], path[2 * PATH_MAX];
	status_socket_dir(dir, sizeof(dir));
	if (status_socket_dir_check() < 0)
		return;
	int lock = dir_lock(dir, LOCK_MS);
	DIR *d = lock >= 0 ? opendir(dir) : NULL;
	for (struct dirent *e; d && (e = readdir(d));) {
		if (!status_socket_name_parse(e->d_name, pod, node, sizeof(pod)))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		remove_dead(path);
	}
	if (d)
		closedir(d);
	if (lock >= 0)
		close(lock);
}

/* As snprintf(): the length that the path has, or would have. */
static size_t path_make(const char *pod, const char *node, char *path, size_t size)
{
	char dir[PATH_MAX], pod_name[256], node_name[256];
	status_socket_dir(dir, sizeof(dir));
	snprintf(pod_name, sizeof(pod_name), "%s", pod);
	snprintf(node_name, sizeof(node_name), "%s", node);
	swap_dots(pod_name, '.', '%');
	swap_dots(node_name, '.', '%');
	return (size_t)snprintf(path, size, "%s/%s.%s.sock", dir, pod_name, node_name);
}

size_t status_socket_excess(const char *pod, const char *node)
{
	size_t most = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;
	size_t length = path_make(pod, node, NULL, 0);
	return length > most ? length - most : 0;
}

static int listen_at(struct status_socket *s, const char *pod, const char *node)
{
	char dir[PATH_MAX];
	if (status_socket_excess(pod, node))
		return -ENAMETOOLONG;
	status_socket_dir(dir, sizeof(dir));
	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return -errno;
	int r = status_socket_dir_check();
	if (r < 0)
		return r;
	status_socket_sweep();
	s->address.sun_family = AF_UNIX;
	path_make(pod, node, s->address.sun_path, sizeof(s->address.sun_path));
	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s->fd < 0)
		return -errno;
	int folder = dir_lock(dir, LOCK_MS);
	r = remove_dead(s->address.sun_path);
	if (!r && bind(s->fd, (struct sockaddr *)&s->address, sizeof(s->address)) < 0)
		r = -errno;
	if (folder >= 0)
		close(folder);
	if (r < 0)
		return r;
	if (chmod(s->address.sun_path, 0600) < 0 || listen(s->fd, 4) < 0) {
		r = -errno;
		unlink(s->address.sun_path);
		return r;
	}
	return 0;
}

int status_socket_open(const char *pod, const char *node, status_answer_fn *answer, void *context,
		       struct status_socket **ret_socket)
{
	struct status_socket *s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->fd = -1;
	s->answer = answer;
	s->context = context;
	s->stop_fd = eventfd(0, EFD_CLOEXEC);
	int r = s->stop_fd < 0 ? -errno : 0;
	if (!r)
		r = listen_at(s, pod, node);
	if (!r) {
		r = -pthread_create(&s->thread, NULL, serve, s);
		if (r)
			unlink(s->address.sun_path);
	}
	if (r) {
		if (s->fd >= 0)
			close(s->fd);
		if (s->stop_fd >= 0)
			close(s->stop_fd);
		free(s);
		return r;
	}
	*ret_socket = s;
	return 0;
}

void status_socket_close(struct status_socket *s)
{
	if (!s)
		return;
	unlink(s->address.sun_path);
	eventfd_write(s->stop_fd, 1);
	pthread_join(s->thread, NULL);
	close(s->fd);
	close(s->stop_fd);
	free(s);
}
