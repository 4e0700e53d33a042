/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The filter on system calls of threads that run guest code (node/confine.h): what they need goes on as
 * it did, and each other call ends the process, which says which one it was.
 *
 * With the argument `bench` it prints what some calls cost with and without the filter, by turns.
 */
#include "tests/test.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "node/confine.h"
#include "node/deadline.h"

#define ENDED_WELL 7
#define NO_FILTER  77 /* a sanitizer's build has none */

static struct confine *confine; /* of a child */
static int out;			/* where it says what it may not */

static void say_forbidden(const char *call)
{
	(void)!write(out, call, strlen(call));
}

struct work {
	void (*work)(void);
	int error;
};

static void *confined(void *arg)
{
	struct work *work = arg;
	work->error = confine_thread(confine);
	if (!work->error)
		work->work();
	return NULL;
}

static void in_child(void (*work)(void))
{
	const struct rlimit no_core = { 0 };
	struct work w = { .work = work };
	pthread_t thread;
	char why[256];
	setrlimit(RLIMIT_CORE, &no_core);
	alarm(20);
	dup2(out, STDERR_FILENO);
	if (confine_create(say_forbidden, &confine, why, sizeof(why)) < 0)
		_exit(1);
	if (!confine && !getenv("EAGRE_SECCOMP"))
		_exit(NO_FILTER);
	if (pthread_create(&thread, NULL, confined, &w) != 0)
		_exit(1);
	pthread_join(thread, NULL);
	_exit(w.error ? 2 : ENDED_WELL);
}

/* The child's status, and what it has said. */
static int run(void (*work)(void), char *ret_said, size_t size)
{
	int pipes[2], status;
	ssize_t got;
	size_t used = 0;
	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	pid_t pid = fork();
	if (pid == 0) {
		out = pipes[1];
		in_child(work);
	}
	close(pipes[1]);
	while ((got = read(pipes[0], ret_said + used, size - 1 - used)) > 0)
		used += (size_t)got;
	ret_said[used] = '\0';
	close(pipes[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == NO_FILTER)
		skip();
	return status;
}

static void ends_well(void (*work)(void))
{
	char said[256];
	int status = run(work, said, sizeof(said));
	assert_string_equal(said, "");
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), ENDED_WELL);
}

static void is_ended(void (*work)(void), const char *call)
{
	char said[256];
	int status = run(work, said, sizeof(said));
	assert_string_equal(said, call);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
}

/* ---- what is allowed --------------------------------------------------------------------------- */

static void on_signal(int number)
{
}

static void use_memory(void)
{
	for (size_t size = 16; size < (64u << 20); size *= 3) {
		char *some = malloc(size);
		memset(some, 1, size);
		some = realloc(some, size * 2);
		free(some);
	}
	void *at = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mprotect(at, 4096, PROT_NONE);
	madvise(at, 8192, MADV_DONTNEED);
	munmap(at, 8192);
}

static void use_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal };
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaction(SIGUSR1, &action, NULL);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1);
}

static void use_time(void)
{
	struct timespec short_while = { .tv_nsec = 1000 }, until = deadline_after_ms(1);
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t never = PTHREAD_COND_INITIALIZER;
	nanosleep(&short_while, NULL);
	sched_yield();
	syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &short_while);
	pthread_mutex_lock(&lock);
	deadline_wait(&never, &lock, &until);
	pthread_mutex_unlock(&lock);
}

/* Descriptors of before the filter: a thread gets no others. */
static int event = -1, pair[2] = { -1, -1 };

static void use_descriptors(void)
{
	struct iovec iov = { .iov_base = "x", .iov_len = 1 };
	const struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	eventfd_t value;
	struct termios terminal;
	eventfd_write(event, 1);
	eventfd_read(event, &value);
	char byte;
	if (sendmsg(pair[0], &msg, MSG_NOSIGNAL) != 1 || recv(pair[1], &byte, 1, MSG_DONTWAIT) != 1)
		_exit(3);
	if (setsockopt(pair[0], SOL_SOCKET, SO_RCVLOWAT, &(int){ 2 }, sizeof(int)) < 0)
		_exit(3);
	(void)tcgetattr(pair[0], &terminal);
}

static void test_allowed(void **state)
{
	event = eventfd(0, EFD_CLOEXEC);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	ends_well(use_memory);
	ends_well(use_signals);
	ends_well(use_time);
	ends_well(use_descriptors);
	close(event);
	close(pair[0]);
	close(pair[1]);
}

/* ---- what is not ------------------------------------------------------------------------------- */

static void open_file(void)
{
	(void)!open("/dev/null", O_RDONLY);
}

static void make_socket(void)
{
	(void)socket(AF_UNIX, SOCK_STREAM, 0);
}

static void run_program(void)
{
	char *const nothing[] = { NULL };
	(void)execve("/bin/true", nothing, nothing);
}

static void make_process(void)
{
	(void)syscall(SYS_fork);
}

static void make_thread(void)
{
	pthread_t thread;
	pthread_create(&thread, NULL, confined, NULL);
}

static void look_into_a_process(void)
{
	(void)syscall(SYS_process_vm_readv, getpid(), NULL, 0, NULL, 0, 0);
}

static void make_memory_executable(void)
{
	void *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	(void)mprotect(at, 4096, PROT_READ | PROT_EXEC);
}

static void map_executable(void)
{
	(void)mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void signal_another(void)
{
	(void)syscall(SYS_tgkill, 1, 1, 0);
}

static void ask_for_a_route(void)
{
	int on = 1;
	(void)setsockopt(pair[0], SOL_SOCKET, SO_DONTROUTE, &on, sizeof(on));
}

static void type_for_the_user(void)
{
	(void)ioctl(0, TIOCSTI, "x");
}

static void test_forbidden(void **state)
{
	is_ended(open_file, "openat");
	is_ended(make_socket, "socket");
	is_ended(run_program, "execve");
	is_ended(make_process, "fork");
	is_ended(look_into_a_process, "process_vm_readv");
	is_ended(make_memory_executable, "mprotect");
	is_ended(map_executable, "mmap");
	is_ended(signal_another, "tgkill");
	is_ended(ask_for_a_route, "setsockopt");
	is_ended(type_for_the_user, "ioctl");
}

/* libc lets no signal in meanwhile, so nobody can say which call it was. */
static void test_no_threads(void **state)
{
	char said[256];
	int status = run(make_thread, said, sizeof(said));
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSYS);
}

static void fail_an_assertion(void)
{
	assert(event == -2);
}

/* Our own bugs go on being said as ever. */
static void test_assertion(void **state)
{
	char said[512];
	int status = run(fail_an_assertion, said, sizeof(said));
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
	assert_non_null(strstr(said, "event == -2"));
}

static void test_off(void **state)
{
	setenv("EAGRE_SECCOMP", "off", 1);
	ends_well(open_file);
	setenv("EAGRE_SECCOMP", "log", 1);
	ends_well(open_file);
	unsetenv("EAGRE_SECCOMP");
}

/* ---- what it costs ------------------------------------------------------------------------------ */

static uint64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#define CALLS 200000u

static void bench_calls(void)
{
	double ns[3];
	uint64_t begin = now_ns();
	for (uint32_t i = 0; i < CALLS; i++)
		syscall(SYS_gettid);
	ns[0] = (double)(now_ns() - begin) / CALLS;
	begin = now_ns();
	for (uint32_t i = 0; i < CALLS; i++)
		eventfd_write(event, 1);
	ns[1] = (double)(now_ns() - begin) / CALLS;
	begin = now_ns();
	for (uint32_t i = 0; i < CALLS; i++)
		syscall(SYS_tgkill, getpid(), gettid(), 0);
	ns[2] = (double)(now_ns() - begin) / CALLS / 3;
	char line[128];
	int size =
		snprintf(line, sizeof(line),
			 "gettid %.0f ns, write to an eventfd %.0f ns, getpid, gettid and tgkill "
			 "%.0f ns each\n",
			 ns[0], ns[1], ns[2]);
	(void)!write(out, line, (size_t)size);
}

static int bench(void)
{
	char said[256];
	event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (int round = 0; round < 6; round++) {
		setenv("EAGRE_SECCOMP", round % 2 ? "on" : "off", 1);
		run(bench_calls, said, sizeof(said));
		printf("filter %-3s  %s", round % 2 ? "on" : "off", said);
	}
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_allowed),	   cmocka_unit_test(test_forbidden),
		cmocka_unit_test(test_no_threads), cmocka_unit_test(test_assertion),
		cmocka_unit_test(test_off),
	};
	if (argc > 1 && strcmp(argv[1], "bench") == 0)
		return bench();
	unsetenv("EAGRE_SECCOMP");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
