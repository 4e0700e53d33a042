/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The policy's file (policy_state.h). It has a thread of its own, since a disk may take long, and the
 * placer's thread has a turn every few milliseconds.
 */
#include "node/policy_state.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/deadline.h"
#include "node/placer.h"

struct policy_state {
	struct policy_state_config config;
	char path[POLICY_STATE_PATH];
	char saved[PLACEMENT_STATE_BYTES]; /* what is in the file, or was to be known at first */
	bool silent;			   /* it has been said that saving fails */

	pthread_t thread;
	bool started;
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t changed;
	bool stop;
};

/* ---- files ----------------------------------------------------------------------------------- */

/* The folder that it is in, or -ENAMETOOLONG. */
static int folder_of(const char *path, char folder[POLICY_STATE_PATH])
{
	const char *slash = strrchr(path, '/');
	size_t length = slash ? (size_t)(slash - path) : 0;
	if (strlen(path) >= POLICY_STATE_PATH)
		return -ENAMETOOLONG;
	if (!slash)
		strcpy(folder, ".");
	else if (length == 0)
		strcpy(folder, "/");
	else
		memcpy(folder, path, length), folder[length] = '\0';
	return 0;
}

/* Opens it for reading: a file, and no FIFO that would block. */
static int open_file(const char *path, struct stat *st)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int r = fd < 0 || fstat(fd, st) < 0 ? -errno : 0;
	if (!r && S_ISDIR(st->st_mode))
		r = -EISDIR;
	else if (!r && !S_ISREG(st->st_mode))
		r = -EINVAL;
	if (!r)
		return fd;
	if (fd >= 0)
		close(fd);
	return r;
}

static int refuse(int error, const char *path, char *why, size_t why_size)
{
	snprintf(why, why_size, "policy state %s: %s", path,
		 error == -EINVAL ? "is not a file" : strerror(-error));
	return error;
}

int policy_state_check(const char *path, char *why, size_t why_size)
{
	char folder[POLICY_STATE_PATH], real[PATH_MAX];
	struct stat st;
	int fd = open_file(path, &st), r;
	if (fd >= 0)
		close(fd);
	else if (fd != -ENOENT)
		return refuse(fd, path, why, why_size);
	r = folder_of(fd >= 0 && realpath(path, real) ? real : path, folder);
	if (!r && access(folder, W_OK | X_OK) < 0)
		r = -errno;
	if (!r)
		return 0;
	snprintf(why, why_size, "policy state %s: nothing can be made in its folder: %s", path,
		 strerror(-r));
	return r;
}

int policy_state_read(const char *path, char *text, size_t *ret_length, char *why, size_t why_size)
{
	struct stat st;
	int fd = open_file(path, &st);
	ssize_t got = 1;
	if (fd < 0)
		return fd == -ENOENT ? fd : refuse(fd, path, why, why_size);
	for (*ret_length = 0; got > 0 && *ret_length < PLACEMENT_STATE_BYTES + 1;) {
		got = read(fd, text + *ret_length, PLACEMENT_STATE_BYTES + 1 - *ret_length);
		*ret_length += got > 0 ? (size_t)got : 0;
	}
	int r = got < 0 ? -errno : 0;
	close(fd);
	return r ? refuse(r, path, why, why_size) : 0;
}

static int write_all(int fd, const char *text, size_t length)
{
	while (length) {
		ssize_t put = write(fd, text, length);
		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		text += put;
		length -= (size_t)put;
	}
	return 0;
}

/* As the file that it replaces; the owner, if that may be. */
static int keep_mode(int fd, const char *path)
{
	struct stat st;
	if (stat(path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (fchown(fd, st.st_uid, st.st_gid) < 0 && errno != EPERM)
		return -errno;
	return fchmod(fd, st.st_mode & 0777) < 0 ? -errno : 0;
}

/*
 * A file that has no name until it is whole, so that whoever is killed leaves nothing behind; where
 * there are no such files, one with a name of its own.
 */
static int open_new(const char *real, char temporary[PATH_MAX + 8], bool *ret_nameless)
{
	char copy[PATH_MAX];
	strcpy(copy, real);
	int fd = open(dirname(copy), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
	*ret_nameless = fd >= 0;
	snprintf(temporary, PATH_MAX + 8, *ret_nameless ? "%s.new" : "%s.XXXXXX", real);
	if (fd < 0)
		fd = mkostemp(temporary, O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int give_name(int fd, const char *name)
{
	char proc[32];
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	/* Who was killed in the moment before rename() has left one. */
	unlink(name);
	return linkat(AT_FDCWD, proc, AT_FDCWD, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

int policy_state_write(const char *path, const char *text, size_t length, bool sync)
{
	char real[PATH_MAX], temporary[PATH_MAX + 8];
	bool nameless;
	if (!realpath(path, real)) {
		if (errno != ENOENT || strlen(path) >= sizeof(real))
			return errno == ENOENT ? -ENAMETOOLONG : -errno;
		strcpy(real, path);
	}
	int fd = open_new(real, temporary, &nameless);
	if (fd < 0)
		return fd;
	int r = keep_mode(fd, real);
	if (!r)
		r = write_all(fd, text, length);
	if (!r && sync && fsync(fd) < 0)
		r = -errno;
	if (!r && nameless)
		r = give_name(fd, temporary);
	if (close(fd) < 0 && !r)
		r = -errno;
	if (!r && rename(temporary, real) < 0)
		r = -errno;
	if (r)
		unlink(temporary);
	return r;
}

/* ---- a pod's ---------------------------------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) static void say(const struct policy_state *s,
						      const char *format, ...)
{
	char line[POLICY_STATE_PATH + 256];
	va_list args;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	s->config.say(s->config.ctx, line);
}

/* At the end nobody waits for the disk: without it the file is still the old one or the new one. */
static void save(struct policy_state *s, bool sync)
{
	char text[PLACEMENT_STATE_BYTES];
	int length = placer_save(s->config.placer, text, sizeof(text));
	if (length < 0 || strcmp(text, s->saved) == 0)
		return;
	int r = policy_state_write(s->path, text, (size_t)length, sync);
	if (!r) {
		strcpy(s->saved, text);
		s->silent = false;
	} else if (!s->silent) {
		s->silent = true;
		say(s, "policy state %s: cannot be saved: %s", s->path, strerror(-r));
	}
}

static void *state_main(void *arg)
{
	struct policy_state *s = arg;
	bool stop = false;
	pthread_setname_np(pthread_self(), "policy state");
	while (!stop) {
		struct timespec until = deadline_after_ms(s->config.save_ms);
		pthread_mutex_lock(&s->lock);
		while (!s->stop && deadline_wait(&s->changed, &s->lock, &until) != ETIMEDOUT)
			;
		stop = s->stop;
		pthread_mutex_unlock(&s->lock);
		save(s, !stop);
	}
	return NULL;
}

/* False: it is not to be written over. */
static bool load(struct policy_state *s)
{
	char text[PLACEMENT_STATE_BYTES + 1], why[POLICY_STATE_PATH + 128];
	const char *reason;
	size_t length;
	int r = policy_state_read(s->path, text, &length, why, sizeof(why));
	if (r && r != -ENOENT)
		say(s, "%s: not used", why);
	else if (!r && placer_load_state(s->config.placer, text, length, &reason) < 0)
		say(s, "policy state %s: %s: not used, and left as it is", s->path, reason);
	else
		return true;
	return false;
}

int policy_state_open(const struct policy_state_config *config, struct policy_state **ret_state,
		      char *why, size_t why_size)
{
	int r = config->reads_only ? 0 : policy_state_check(config->path, why, why_size);
	if (r)
		return r;
	struct policy_state *s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->config = *config;
	snprintf(s->path, sizeof(s->path), "%s", config->path);
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	bool ours = load(s);
	placer_save(config->placer, s->saved, sizeof(s->saved));
	if (ours && !config->reads_only)
		r = -pthread_create(&s->thread, NULL, state_main, s);
	s->started = ours && !config->reads_only && !r;
	if (r)
		free(s);
	else
		*ret_state = s;
	return r;
}

void policy_state_close(struct policy_state *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_signal(&s->changed);
	pthread_mutex_unlock(&s->lock);
	if (s->started)
		pthread_join(s->thread, NULL);
	free(s);
}
