/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floors of the stall benchmark, each written in the most straightforward way: no batching, no
 * protocol. The figures of the real stack are judged against these, measured in the same run.
 */
#include "bench/bench.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/limits.h"
#include "memory/uffd_probe.h"

#define REALTIME_PRIORITY 10
#define REQUEST_BYTES	  64u
#define BANDWIDTH_BYTES	  (512ull << 20)
#define BANDWIDTH_BUFFER  (256u << 10)

void bench_die(const char *what)
{
	perror(what);
	exit(1);
}

void bench_realtime(void)
{
	struct sched_param param = { .sched_priority = REALTIME_PRIORITY };

	if (sched_setscheduler(0, SCHED_RR, &param) < 0)
		bench_die("SCHED_RR");
}

void bench_favour(bool on)
{
	struct sched_param param = { .sched_priority = REALTIME_PRIORITY + on };

	if (sched_getscheduler(0) == SCHED_RR && sched_setscheduler(0, SCHED_RR, &param) < 0)
		bench_die("SCHED_RR");
}

/* All cores that this process had at its beginning. */
static void cores_of_process(cpu_set_t *ret_cores, int *ret_last)
{
	static cpu_set_t first;
	static int last = -1;

	if (last < 0) {
		CPU_ZERO(&first);
		if (sched_getaffinity(0, sizeof(first), &first) < 0)
			bench_die("sched_getaffinity");
		for (int i = 0; i < CPU_SETSIZE; i++)
			if (CPU_ISSET(i, &first))
				last = i;
	}
	*ret_cores = first;
	*ret_last = last;
}

void bench_keep_off_last(bool off)
{
	cpu_set_t cores;
	int last;

	cores_of_process(&cores, &last);
	if (off && CPU_COUNT(&cores) > 1)
		CPU_CLR(last, &cores);
	if (sched_setaffinity(0, sizeof(cores), &cores) < 0)
		bench_die("sched_setaffinity");
}

void bench_keep_on_last(void)
{
	cpu_set_t cores;
	int last;

	cores_of_process(&cores, &last);
	CPU_ZERO(&cores);
	CPU_SET(last, &cores);
	if (sched_setaffinity(0, sizeof(cores), &cores) < 0)
		bench_die("sched_setaffinity");
}

static void *run_on_last(void *arg)
{
	bench_keep_on_last();
	for (;;)
		atomic_signal_fence(memory_order_seq_cst);
	return NULL;
}

void bench_busy_thread(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, run_on_last, NULL) != 0)
		bench_die("pthread_create");
}

uint64_t bench_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

uint32_t bench_quantile(struct bench_samples *samples, double q)
{
	uint32_t index = (uint32_t)(q * samples->count);

	if (samples->count == 0)
		return 0;
	qsort(samples->ns, samples->count, sizeof(samples->ns[0]), by_value);
	return samples->ns[index < samples->count ? index : samples->count - 1];
}

void *bench_shared(uint64_t size)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		bench_die("mmap");
	return at;
}

static void *private_pages(uint64_t size)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		bench_die("mmap");
	return at;
}

void bench_tcp_pair(int ret_fd[2])
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) < 0 ||
	    listen(listener, 1) < 0 ||
	    getsockname(listener, (struct sockaddr *)&address, &size) < 0)
		bench_die("listen");
	ret_fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (ret_fd[0] < 0 || connect(ret_fd[0], (struct sockaddr *)&address, size) < 0)
		bench_die("connect");
	ret_fd[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (ret_fd[1] < 0)
		bench_die("accept");
	for (int i = 0; i < 2; i++)
		if (setsockopt(ret_fd[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0)
			bench_die("TCP_NODELAY");
	close(listener);
}

/* false: the other side closed. */
static bool receive_all(int fd, void *to, size_t size, bool spin)
{
	for (size_t got = 0; got < size;) {
		ssize_t n = recv(fd, (char *)to + got, size - got, spin ? MSG_DONTWAIT : 0);

		if (n > 0)
			got += (size_t)n;
		else if (n == 0 || (errno != EAGAIN && errno != EINTR))
			return false;
	}
	return true;
}

static void send_all(int fd, const void *from, size_t size)
{
	for (size_t sent = 0; sent < size;) {
		ssize_t n = send(fd, (const char *)from + sent, size - sent, MSG_NOSIGNAL);

		if (n < 0 && errno != EINTR)
			bench_die("send");
		sent += n > 0 ? (size_t)n : 0;
	}
}

/* A child that gives a page for every request, until the socket closes. */
static pid_t start_server(int fd, int other, bool spin, bool busy)
{
	pid_t child = fork();
	char request[REQUEST_BYTES];
	static char page[PAGE_BYTES];

	if (child < 0)
		bench_die("fork");
	if (child > 0)
		return child;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	close(other);
	memset(page, 1, sizeof(page));
	if (busy)
		bench_busy_thread();
	while (receive_all(fd, request, sizeof(request), spin))
		send_all(fd, page, sizeof(page));
	_exit(0);
}

static void stop_server(pid_t child, int fd)
{
	close(fd);
	waitpid(child, NULL, 0);
}

void floor_tcp_round_trip(bool spin, uint32_t count, struct bench_samples *ret_samples)
{
	char request[REQUEST_BYTES] = { 0 };
	static char page[PAGE_BYTES];
	int fd[2];
	pid_t child;

	bench_tcp_pair(fd);
	child = start_server(fd[1], fd[0], spin, false);
	close(fd[1]);
	ret_samples->count = count;
	for (uint32_t i = 0; i < count; i++) {
		uint64_t start_ns = bench_now_ns();

		send_all(fd[0], request, sizeof(request));
		if (!receive_all(fd[0], page, sizeof(page), spin))
			bench_die("recv");
		ret_samples->ns[i] = (uint32_t)(bench_now_ns() - start_ns);
	}
	stop_server(child, fd[0]);
}

/* A child that sends back what it gets, until the socket closes. */
static pid_t start_echo(int fd, int other, uint32_t bytes)
{
	pid_t child = fork();
	char *message = calloc(1, bytes);

	if (child < 0 || !message)
		bench_die("fork");
	if (child > 0) {
		free(message);
		return child;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	close(other);
	while (receive_all(fd, message, bytes, true))
		send_all(fd, message, bytes);
	_exit(0);
}

void floor_message(uint32_t bytes, uint32_t count, struct bench_samples *ret_samples)
{
	char *message = calloc(1, bytes);
	int fd[2];
	pid_t child;

	if (!message)
		bench_die("calloc");
	bench_tcp_pair(fd);
	child = start_echo(fd[1], fd[0], bytes);
	close(fd[1]);
	ret_samples->count = count;
	for (uint32_t i = 0; i < count; i++) {
		uint64_t start_ns = bench_now_ns();

		send_all(fd[0], message, bytes);
		if (!receive_all(fd[0], message, bytes, true))
			bench_die("recv");
		ret_samples->ns[i] = (uint32_t)(bench_now_ns() - start_ns);
	}
	stop_server(child, fd[0]);
	free(message);
}

double floor_tcp_bandwidth(void)
{
	static char buffer[BANDWIDTH_BUFFER];
	uint64_t start_ns;
	pid_t child;
	int fd[2];

	bench_tcp_pair(fd);
	child = fork();
	if (child < 0)
		bench_die("fork");
	if (child == 0) {
		close(fd[0]);
		for (uint64_t sent = 0; sent < BANDWIDTH_BYTES; sent += sizeof(buffer))
			send_all(fd[1], buffer, sizeof(buffer));
		_exit(0);
	}
	close(fd[1]);
	start_ns = bench_now_ns();
	for (uint64_t got = 0; got < BANDWIDTH_BYTES;) {
		ssize_t n = recv(fd[0], buffer, sizeof(buffer), 0);

		if (n <= 0)
			bench_die("recv");
		got += (uint64_t)n;
	}
	start_ns = bench_now_ns() - start_ns;
	stop_server(child, fd[0]);
	return (double)BANDWIDTH_BYTES * 1e9 / (double)start_ns;
}

/* --- userfaultfd --- */

struct answerer {
	int uffd, remote; /* remote -1: answers from `page` */
	bool spin;
	void *page;
};

static void answer_fault(const struct answerer *answerer, uint64_t address)
{
	char request[REQUEST_BYTES] = { 0 };
	struct uffdio_copy copy = { .dst = address & ~(uint64_t)(PAGE_BYTES - 1),
				    .src = (uintptr_t)answerer->page,
				    .len = PAGE_BYTES };

	if (answerer->remote >= 0) {
		send_all(answerer->remote, request, sizeof(request));
		if (!receive_all(answerer->remote, answerer->page, PAGE_BYTES, answerer->spin))
			bench_die("recv");
	}
	if (ioctl(answerer->uffd, UFFDIO_COPY, &copy) < 0)
		bench_die("UFFDIO_COPY");
}

/* Ends by cancellation. */
static void *answer_faults(void *arg)
{
	const struct answerer *answerer = arg;

	for (;;) {
		struct pollfd ready = { .fd = answerer->uffd, .events = POLLIN };
		struct uffd_msg msg;
		ssize_t n;

		if (!answerer->spin)
			poll(&ready, 1, -1);
		else
			pthread_testcancel();
		n = read(answerer->uffd, &msg, sizeof(msg));
		if (n == (ssize_t)sizeof(msg) && msg.event == UFFD_EVENT_PAGEFAULT)
			answer_fault(answerer, msg.arg.pagefault.address);
	}
	return NULL;
}

/* Touches `count` pages in the answerer's care. */
static void time_faults(struct answerer *answerer, uint32_t count,
			struct bench_samples *ret_samples)
{
	uint64_t size = (uint64_t)count * PAGE_BYTES;
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING |
					       UFFDIO_REGISTER_MODE_WP };
	char *memory = private_pages(size);
	pthread_t thread;

	answerer->page = private_pages(PAGE_BYTES);
	memset(answerer->page, 1, PAGE_BYTES);
	answerer->uffd = uffd_open();
	reg.range.start = (uintptr_t)memory;
	reg.range.len = size;
	if (answerer->uffd < 0 || madvise(memory, size, MADV_NOHUGEPAGE) < 0 ||
	    ioctl(answerer->uffd, UFFDIO_REGISTER, &reg) < 0)
		bench_die("userfaultfd");
	if (pthread_create(&thread, NULL, answer_faults, answerer) != 0)
		bench_die("pthread_create");
	bench_favour(true);
	ret_samples->count = count;
	for (uint32_t i = 0; i < count; i++) {
		uint64_t start_ns = bench_now_ns();

		*(volatile char *)(memory + (uint64_t)i * PAGE_BYTES) = 1;
		ret_samples->ns[i] = (uint32_t)(bench_now_ns() - start_ns);
	}
	bench_favour(false);
	pthread_cancel(thread);
	pthread_join(thread, NULL);
	close(answerer->uffd);
	munmap(memory, size);
	munmap(answerer->page, PAGE_BYTES);
}

void floor_userfault(bool spin, uint32_t count, struct bench_samples *ret_samples)
{
	struct answerer answerer = { .remote = -1, .spin = spin };

	time_faults(&answerer, count, ret_samples);
}

void floor_simplest(bool spin, bool busy, uint32_t count, struct bench_samples *ret_samples)
{
	struct answerer answerer = { .spin = spin };
	int fd[2];
	pid_t child;

	if (busy)
		bench_keep_off_last(true);
	bench_tcp_pair(fd);
	child = start_server(fd[1], fd[0], spin, busy);
	close(fd[1]);
	answerer.remote = fd[0];
	time_faults(&answerer, count, ret_samples);
	stop_server(child, fd[0]);
	if (busy)
		bench_keep_off_last(false);
}

/* --- calls --- */

void floor_call(uint32_t count, struct bench_samples *ret_samples)
{
	enum { CALLS = 16 };

	ret_samples->count = count;
	for (uint32_t i = 0; i < count; i++) {
		uint64_t start_ns = bench_now_ns();

		for (int call = 0; call < CALLS; call++)
			syscall(SYS_getppid);
		ret_samples->ns[i] = (uint32_t)(bench_now_ns() - start_ns) / CALLS;
	}
}

/* In a process of its own: the other thread is there to the end of it. */
static void time_shootdowns(bool other_runs, uint32_t count, struct bench_samples *samples)
{
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_WP };
	struct uffdio_writeprotect wp = { .range.len = PAGE_BYTES };
	char *page = private_pages(PAGE_BYTES);
	int fd = uffd_open();

	bench_keep_off_last(true);
	bench_favour(true);
	memset(page, 1, PAGE_BYTES);
	reg.range.start = (uintptr_t)page;
	reg.range.len = PAGE_BYTES;
	wp.range.start = (uintptr_t)page;
	if (fd < 0 || ioctl(fd, UFFDIO_REGISTER, &reg) < 0)
		bench_die("userfaultfd");
	if (other_runs)
		bench_busy_thread();
	usleep(1000);
	for (uint32_t i = 0; i < count; i++) {
		uint64_t start_ns = bench_now_ns();

		wp.mode = UFFDIO_WRITEPROTECT_MODE_WP;
		if (ioctl(fd, UFFDIO_WRITEPROTECT, &wp) < 0)
			bench_die("UFFDIO_WRITEPROTECT");
		samples->ns[i] = (uint32_t)(bench_now_ns() - start_ns);
		wp.mode = 0;
		if (ioctl(fd, UFFDIO_WRITEPROTECT, &wp) < 0)
			bench_die("UFFDIO_WRITEPROTECT");
		*(volatile char *)page = 2;
	}
}

void floor_shootdown(bool other_runs, uint32_t count, struct bench_samples *ret_samples)
{
	struct bench_samples *samples = bench_shared(sizeof(*samples));
	pid_t child = fork();

	if (child < 0)
		bench_die("fork");
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		time_shootdowns(other_runs, count, samples);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	memcpy(ret_samples, samples, sizeof(*ret_samples));
	ret_samples->count = count;
	munmap(samples, sizeof(*samples));
}
