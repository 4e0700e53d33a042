/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The status socket: it answers, refuses a second server, replaces what a dead one left, leaves
 * nothing.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "node/status_socket.h"
#include "tests/test.h"

static char pod_name[64];

static atomic_bool full; /* of descriptors, this process */
static atomic_uint refused;

int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
	if (!atomic_load(&full))
		return (int)syscall(SYS_accept4, fd, address, size, flags);
	atomic_fetch_add(&refused, 1);
	errno = EMFILE;
	return -1;
}

static char *answer(void *context, const char *request)
{
	return strdup(context);
}

static struct sockaddr_un address_of(const char *node)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char dir[64];
	status_socket_dir(dir, sizeof(dir));
	snprintf(address.sun_path, sizeof(address.sun_path), "%.40s/%.40s.%.20s.sock", dir,
		 pod_name, node);
	return address;
}

static void test_answers(void **state)
{
	struct status_socket *s, *second;
	char reply[64] = "";
	struct sockaddr_un address = address_of("a%b");
	assert_int_equal(status_socket_open(pod_name, "a.b", answer, "{\"x\":1}", &s), 0);
	assert_int_equal(status_socket_open(pod_name, "a.b", answer, "{}", &second), -EADDRINUSE);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(read(fd, reply, sizeof(reply) - 1), 7);
	assert_string_equal(reply, "{\"x\":1}");
	assert_int_equal(read(fd, reply, sizeof(reply)), 0);
	close(fd);
	struct stat st;
	assert_int_equal(stat(address.sun_path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	status_socket_close(s);
	assert_int_equal(access(address.sun_path, F_OK), -1);
}

static char *echo(void *context, const char *request)
{
	return strdup(*request ? request : "nothing");
}

static double seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* What is answered to both, of which the second comes so much later. False: that was too late for an answer. */
static bool try_echo(const char *first, unsigned int ms, const char *then, const char *wanted)
{
	struct sockaddr_un address = address_of("echo");
	char reply[STATUS_REQUEST_MAX + 1] = "";
	double begun = seconds();
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(write(fd, first, strlen(first)), strlen(first));
	if (then) {
		usleep(ms * 1000);
		ssize_t sent = send(fd, then, strlen(then), MSG_NOSIGNAL);
		if (seconds() - begun > 0.9) {
			close(fd);
			return false;
		}
		assert_int_equal(sent, strlen(then));
	}
	size_t have = 0;
	for (ssize_t n; (n = read(fd, reply + have, sizeof(reply) - 1 - have)) > 0;)
		have += (size_t)n;
	assert_string_equal(reply, wanted);
	close(fd);
	return true;
}

/* It waits a second for the whole of a request: a thread that was late itself tries again. */
static void expect_echo_late(const char *first, unsigned int ms, const char *then,
			     const char *wanted)
{
	for (int i = 0; i < 20; i++)
		if (try_echo(first, ms, then, wanted))
			return;
	fail_msg("this thread was late 20 times");
}

static void expect_echo(const char *first, const char *then, const char *wanted)
{
	expect_echo_late(first, 10, then, wanted);
}

/* One line is the request; without any, and without its end, it is as long as it got. */
static void test_requests(void **state)
{
	char longest[STATUS_REQUEST_MAX + 9], cut[STATUS_REQUEST_MAX];
	struct status_socket *s;
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	memcpy(cut, longest, sizeof(cut) - 1);
	cut[sizeof(cut) - 1] = '\0';
	assert_int_equal(status_socket_open(pod_name, "echo", echo, NULL, &s), 0);
	expect_echo("move 1 a\n", NULL, "move 1 a");
	expect_echo("move 1", " a\nmore", "move 1 a");
	/* On a busy host a client may not get to say it at once. */
	expect_echo_late("", 300, "move 1 a\n", "move 1 a");
	expect_echo("", NULL, "nothing");
	expect_echo("\n", NULL, "nothing");
	expect_echo("half", NULL, "half");
	expect_echo(longest, NULL, cut);
	status_socket_close(s);
}

/* Who cannot be let in waits, without a thread that tries all the time, and is answered then. */
static void test_no_descriptors(void **state)
{
	struct sockaddr_un address = address_of("full");
	struct status_socket *s;
	char reply[64] = "";
	assert_int_equal(status_socket_open(pod_name, "full", answer, "{}", &s), 0);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	atomic_store(&full, true);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	for (int i = 0; i < 600 && !atomic_load(&refused); i++)
		usleep(100000);
	usleep(500000);
	assert_in_range(atomic_load(&refused), 1, 200);
	atomic_store(&full, false);
	assert_int_equal(read(fd, reply, sizeof(reply) - 1), 2);
	assert_string_equal(reply, "{}");
	close(fd);
	status_socket_close(s);
}

static void test_replaces_a_dead_one(void **state)
{
	struct sockaddr_un address = address_of("dead");
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	close(fd);
	struct status_socket *s;
	assert_int_equal(status_socket_open(pod_name, "dead", answer, "{}", &s), 0);
	status_socket_close(s);
}

static atomic_bool read_enough;

static void *read_slowly(void *arg)
{
	char part[512];
	while (!atomic_load(&read_enough) && read(*(int *)arg, part, sizeof(part)) > 0)
		usleep(100000);
	return NULL;
}

static char *long_answer(void *context, const char *request)
{
	char *text = malloc(8u << 20);
	memset(text, 'x', 8u << 20);
	text[(8u << 20) - 1] = '\0';
	return text;
}

/* Who asks and reads slowly holds up neither the next who asks nor the end. */
static void test_slow_readers(void **state)
{
	struct sockaddr_un address = address_of("slow");
	struct status_socket *s;
	pthread_t thread[2];
	int fd[2];
	assert_int_equal(status_socket_open(pod_name, "slow", long_answer, NULL, &s), 0);
	for (int i = 0; i < 2; i++) {
		fd[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(fd[i], (struct sockaddr *)&address, sizeof(address)), 0);
		assert_int_equal(pthread_create(&thread[i], NULL, read_slowly, &fd[i]), 0);
	}
	/* The second gets the beginning of its answer after the first's time is over. */
	double begun = seconds();
	char byte;
	assert_int_equal(recv(fd[1], &byte, 1, MSG_PEEK), 1);
	assert_true(seconds() - begun < 10);
	begun = seconds();
	status_socket_close(s);
	assert_true(seconds() - begun < 1.5);
	for (int i = 0; i < 2; i++) {
		atomic_store(&read_enough, true);
		pthread_join(thread[i], NULL);
		close(fd[i]);
	}
}

/* Nor do those who connect and say nothing, or begin a word, and more of them than have a place. */
static void test_silent_askers(void **state)
{
	struct sockaddr_un address = address_of("echo");
	struct status_socket *s;
	int fd[12], more[40];
	double begun = seconds();
	assert_int_equal(status_socket_open(pod_name, "echo", echo, NULL, &s), 0);
	for (int i = 0; i < 12; i++) {
		fd[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(fd[i], (struct sockaddr *)&address, sizeof(address)), 0);
		if (i % 2)
			assert_int_equal(write(fd[i], "mo", 2), 2);
	}
	expect_echo("move 1 a\n", NULL, "move 1 a");
	/* One after the other they would take a second each: 12. */
	assert_true(seconds() - begun < 9);
	for (int i = 0; i < 12; i++) {
		char reply[16] = "";
		assert_true(read(fd[i], reply, sizeof(reply) - 1) > 0);
		assert_string_equal(reply, i % 2 ? "mo" : "nothing");
		close(fd[i]);
	}
	for (int i = 0; i < 40; i++) {
		more[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		(void)!connect(more[i], (struct sockaddr *)&address, sizeof(address));
	}
	expect_echo("move 2 a\n", NULL, "move 2 a");
	for (int i = 0; i < 40; i++)
		close(more[i]);
	status_socket_close(s);
}

/* Of dead and living nodes, whether these listen or not, the dead ones' files go. */
static int ask(const char *words)
{
	struct sockaddr_un address = address_of("end");
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(write(fd, words, strlen(words)), strlen(words));
	return fd;
}

/* Who asks for the end is told then; he keeps nobody else from asking, nor does he hold a place for ever. */
static void test_end(void **state)
{
	int fd[STATUS_ENDS_MAX], other;
	struct status_socket *s;
	char reply[64];
	assert_int_equal(status_socket_open(pod_name, "end", echo, NULL, &s), 0);
	for (int turn = 0; turn < 3; turn++) {
		for (unsigned i = 0; i < STATUS_ENDS_MAX; i++)
			fd[i] = ask("end\n");
		other = ask("end\n"); /* one too many */
		assert_int_equal(read(other, reply, sizeof(reply)), 0);
		close(other);
		other = ask("move 1 a\n");
		assert_int_equal(read(other, reply, sizeof(reply)), 8);
		close(other);
		for (unsigned i = 0; turn < 2 && i < STATUS_ENDS_MAX; i++) {
			if (i % 2) /* one who says more is not heard */
				assert_int_equal(write(fd[i], "end\n", 4), 4);
			close(fd[i]);
		}
	}
	usleep(1200000); /* more than others have to say what they want */
	assert_int_equal(recv(fd[0], reply, sizeof(reply), MSG_DONTWAIT), -1);
	status_socket_close(s);
	for (unsigned i = 0; i < STATUS_ENDS_MAX; i++) {
		assert_int_equal(read(fd[i], reply, sizeof(reply)), 3);
		assert_memory_equal(reply, "end", 3);
		assert_int_equal(read(fd[i], reply, sizeof(reply)), 0);
		close(fd[i]);
	}
}

static void test_sweep(void **state)
{
	static const char *const names[] = { "swept", "bound", "alive" };
	struct sockaddr_un address[3];
	struct status_socket *s, *s2;
	int fd[2];
	assert_int_equal(status_socket_open(pod_name, "alive", answer, "{}", &s), 0);
	for (int i = 0; i < 3; i++)
		address[i] = address_of(names[i]);
	for (int i = 0; i < 2; i++) {
		fd[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(bind(fd[i], (struct sockaddr *)&address[i], sizeof(address[i])),
				 0);
	}
	close(fd[0]);
	status_socket_sweep();
	assert_int_equal(access(address[0].sun_path, F_OK), -1);
	assert_int_equal(access(address[1].sun_path, F_OK), 0);
	assert_int_equal(access(address[2].sun_path, F_OK), 0);
	assert_int_equal(status_socket_open(pod_name, "bound", answer, "{}", &s2), -EADDRINUSE);
	close(fd[1]);
	unlink(address[1].sun_path);
	status_socket_close(s);
}

static void test_names(void **state)
{
	char pod[32], node[32];
	assert_true(status_socket_name_parse("p%x.n.sock", pod, node, sizeof(pod)));
	assert_string_equal(pod, "p.x");
	assert_string_equal(node, "n");
	static const char *bad[] = { "",
				     "a.sock",
				     "a.b",
				     ".b.sock",
				     "a..sock",
				     "a.b.sock.old",
				     "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.b.sock" };
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(status_socket_name_parse(bad[i], pod, node, sizeof(pod)));
}

/* Told before anything is made, and by the byte. */
static void test_long_names(void **state)
{
	struct sockaddr_un address;
	char name[256] = "", node[256] = "";
	struct status_socket *s;
	char dir[64];
	status_socket_dir(dir, sizeof(dir));
	size_t fits = sizeof(address.sun_path) - 1 - strlen(dir) - strlen("/.n.sock");
	memset(name, 'p', fits);
	assert_int_equal(status_socket_excess(name, "n"), 0);
	assert_int_equal(status_socket_open(name, "n", answer, "{}", &s), 0);
	status_socket_close(s);
	assert_int_equal(status_socket_excess(name, "no"), 1);
	assert_int_equal(status_socket_open(name, "no", answer, "{}", &s), -ENAMETOOLONG);
	memset(node, 'n', 60);
	assert_int_equal(status_socket_excess(name, node), 59);
}

/* The environment of another user, as su leaves it, keeps nobody from starting a node. */
static void test_folder_of_another(void **state)
{
	char own[] = "/tmp/eagre-test.XXXXXX", dir[64], wanted[64];
	uid_t user = geteuid();
	if (user == 0)
		assert_int_equal(seteuid(65534), 0);
	assert_non_null(mkdtemp(own));
	snprintf(wanted, sizeof(wanted), "%s/eagre", own);
	setenv("XDG_RUNTIME_DIR", own, 1);
	status_socket_dir(dir, sizeof(dir));
	assert_string_equal(dir, wanted);
	assert_int_equal(rmdir(own), 0);
	status_socket_dir(dir, sizeof(dir));
	assert_string_not_equal(dir, wanted);
	setenv("XDG_RUNTIME_DIR", "/usr", 1);
	status_socket_dir(dir, sizeof(dir));
	assert_string_not_equal(dir, "/usr/eagre");
	unsetenv("XDG_RUNTIME_DIR");
	assert_int_equal(seteuid(user), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_no_descriptors),
		cmocka_unit_test(test_replaces_a_dead_one),
		cmocka_unit_test(test_slow_readers),
		cmocka_unit_test(test_silent_askers),
		cmocka_unit_test(test_sweep),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_long_names),
		cmocka_unit_test(test_folder_of_another),
		cmocka_unit_test(test_end),
	};
	snprintf(pod_name, sizeof(pod_name), "test%d", getpid());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
