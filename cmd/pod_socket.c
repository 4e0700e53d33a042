/* SPDX-License-Identifier: Apache-2.0 */
/* Talking to a node of a pod on this machine: pod_socket.h. */
#include "cmd/pod_socket.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "node/status_socket.h"

#define ANSWER_SECONDS 5

/*
 * Sockets are named POD.NODE.sock; the first that fits is taken, and two pods are one too many.
 * What killed nodes have left is removed before.
 */
static int find_socket(struct pod_search *s)
{
	char dir[256], pod_found[256] = "";
	status_socket_sweep();
	status_socket_dir(dir, sizeof(dir));
	DIR *d = opendir(dir);
	if (!d)
		return 0;
	for (struct dirent *e; (e = readdir(d));) {
		char pod[256], node[256];
		if (!status_socket_name_parse(e->d_name, pod, node, sizeof(pod)))
			continue;
		if ((s->pod && strcmp(pod, s->pod) != 0) || (s->node && strcmp(node, s->node) != 0))
			continue;
		bool avoided = s->avoid && strcmp(node, s->avoid) == 0;
		char path[sizeof(s->path)];
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		if (s->found && strcmp(pod, pod_found) != 0) {
			s->found = 2;
			break;
		}
		snprintf(pod_found, sizeof(pod_found), "%s", pod);
		if (!s->found || !avoided)
			memcpy(s->path, path, sizeof(path));
		s->found = 1;
	}
	closedir(d);
	return s->found;
}

static bool was_closed(int fd)
{
	char byte;
	ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	return n == 0 || (n < 0 && errno == ECONNRESET);
}

/* A connection on which that was asked, or -errno and a line. */
static int ask(const char *path, const char *request, char *ret_error, size_t error_size)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval patience = { .tv_sec = ANSWER_SECONDS };
	char line[STATUS_REQUEST_MAX];
	int size, error;
	if (strlen(path) >= sizeof(address.sun_path)) {
		snprintf(ret_error, error_size, "%s: the path is too long for a socket", path);
		return -ENAMETOOLONG;
	}
	strcpy(address.sun_path, path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* A stopped node answers nobody, and once its queue is full nobody gets in, either. */
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		error = -errno;
		if (error == -EAGAIN)
			snprintf(ret_error, error_size,
				 "%s: no answer within %d s; the node is stuck or stopped", path,
				 ANSWER_SECONDS);
		else
			snprintf(ret_error, error_size, "%s: %s; is a pod running on this machine?",
				 path, strerror(-error));
		if (fd >= 0)
			close(fd);
		return error;
	}
	size = snprintf(line, sizeof(line), "%s\n", request);
	if (size < (int)sizeof(line))
		(void)!send(fd, line, (size_t)size,
			    MSG_NOSIGNAL); /* no answer comes then, either */
	return fd;
}

int pod_try(const char *path, const char *request, json_t **ret_answer, char *ret_error,
	    size_t error_size)
{
	json_error_t json_error;
	int fd = ask(path, request, ret_error, error_size), error = 0;
	if (fd < 0)
		return fd;
	*ret_answer = json_loadfd(fd, 0, &json_error);
	if (*ret_answer)
		goto out;
	error = was_closed(fd) ? -ECONNRESET : -EAGAIN;
	if (error == -ECONNRESET)
		snprintf(ret_error, error_size, "%s: no whole answer; the node is ending", path);
	else
		snprintf(ret_error, error_size, "%s: no answer within %d s; the node is stuck",
			 path, ANSWER_SECONDS);
out:
	close(fd);
	return error;
}

int pod_end_open(const char *path)
{
	char error[512];
	return ask(path, STATUS_END, error, sizeof(error));
}

json_t *pod_end_take(int fd)
{
	json_error_t error;
	json_t *answer = json_loadfd(fd, 0, &error);
	if (json_is_object(answer))
		return answer;
	json_decref(answer);
	return NULL;
}

json_t *pod_ask(const char *path, const char *request)
{
	json_t *answer = NULL;
	char error[512];
	if (pod_try(path, request, &answer, error, sizeof(error)) < 0)
		complain("%s", error);
	return answer;
}

bool pod_search_take(struct pod_search *search, int option, const char *value)
{
	switch (option) {
	case 'p':
		search->pod = value;
		return true;
	case 'n':
		search->node = value;
		return true;
	case 's':
		snprintf(search->path, sizeof(search->path), "%s", value);
		return true;
	default:
		return false;
	}
}

bool pod_find(struct pod_search *search)
{
	char dir[256];
	if (search->path[0])
		return true;
	if (status_socket_dir_check() == -EPERM) {
		status_socket_dir(dir, sizeof(dir));
		complain(
			"%s: it belongs to somebody else, or others may write to it: what is in it may "
			"be no pod of yours",
			dir);
		return false;
	}
	if (find_socket(search) == 1)
		return true;
	if (search->found)
		complain("several pods have nodes here; name one with --pod");
	else
		complain(
			"no running pod with a node on this machine%s; start one with eagre run or "
			"eagre node",
			search->pod ? " and this name" : "");
	return false;
}

bool pod_word(const char *what, const char *word)
{
	size_t size = strlen(word);
	bool plain = size > 0 && size <= POD_WORD_MAX;

	for (size_t i = 0; plain && i < size; i++)
		plain = word[i] > ' ' && word[i] <= '~';
	if (!plain)
		complain("'%.*s%s' is no %s", POD_WORD_MAX, word, size > POD_WORD_MAX ? "..." : "",
			 what);
	return plain;
}

int pod_tell(const char *path, const char *request)
{
	const char *done, *error;
	json_t *answer = pod_ask(path, request);
	if (!answer)
		return STATUS_FAILED;
	done = json_string_value(json_object_get(answer, "done"));
	error = json_string_value(json_object_get(answer, "error"));
	if (done)
		printf("%s\n", done);
	else
		complain("%s", error ? error : "the node's answer makes no sense");
	json_decref(answer);
	return done ? STATUS_OK : STATUS_FAILED;
}
