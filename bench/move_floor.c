/* SPDX-License-Identifier: Apache-2.0 */
/*
 * move_floor BYTES: what a move of a vCPU is held against (bench/moves), in microseconds, as JSON. All of
 * it over TCP on loopback, and ahead of all else on the machine:
 *
 *	message  a message of so many bytes between two threads that spin, half a round trip
 *	steps    the least that a move is made of where threads sleep: one thread interrupts another, which
 *	         runs and sends the message in its signal's handler; a thread that sleeps in epoll takes it,
 *	         and wakes one that sleeps on a futex
 *	stall    a read stall of two hops between threads that sleep
 */
#include "bench/bench.h"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/limits.h"

#define SAMPLES	  1024u
#define STALLS	  512u
#define STEPS	  256u
#define REST_US	  2000u /* all threads sleep again */
#define MEMORY	  (64ull << 20)
#define BYTES_MAX 65536u

static double message_us(uint32_t bytes, struct bench_samples *samples)
{
	floor_message(bytes, SAMPLES, samples);
	return bench_quantile(samples, 0.5) / 2e3;
}

static struct {
	int fd[2];
	size_t bytes;
	pthread_t runner, receiver, seat;
	atomic_bool end;
	_Atomic uint32_t turn;	   /* the seat's futex */
	_Atomic uint64_t awake_ns; /* when the seat's thread ran; 0: not yet */
	char out[BYTES_MAX], in[BYTES_MAX];
} steps;

static void on_signal(int number)
{
	if (send(steps.fd[0], steps.out, steps.bytes, MSG_NOSIGNAL) != (ssize_t)steps.bytes)
		bench_die("send");
}

static void *runner(void *arg)
{
	bench_keep_on_last();
	while (!atomic_load(&steps.end))
		;
	return NULL;
}

static void *receiver(void *arg)
{
	struct epoll_event event = { .events = EPOLLIN };
	int epoll_fd = epoll_create1(EPOLL_CLOEXEC);

	if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, steps.fd[1], &event) < 0)
		bench_die("epoll");
	for (size_t got = 0; !atomic_load(&steps.end);) {
		ssize_t n;

		if (epoll_wait(epoll_fd, &event, 1, -1) < 1)
			continue;
		n = recv(steps.fd[1], steps.in, steps.bytes - got, MSG_DONTWAIT);
		got += n > 0 ? (size_t)n : 0;
		if (n == 0 || got < steps.bytes)
			continue;
		got = 0;
		atomic_fetch_add(&steps.turn, 1);
		syscall(SYS_futex, &steps.turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	}
	close(epoll_fd);
	return NULL;
}

static void *seat(void *arg)
{
	for (uint32_t seen = 0; !atomic_load(&steps.end);) {
		syscall(SYS_futex, &steps.turn, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
		if (atomic_load(&steps.turn) == seen)
			continue;
		seen = atomic_load(&steps.turn);
		atomic_store(&steps.awake_ns, bench_now_ns());
	}
	return NULL;
}

static void begin(pthread_t *thread, void *(*run)(void *))
{
	if (pthread_create(thread, NULL, run, NULL))
		bench_die("pthread_create");
}

static double steps_us(uint32_t bytes, struct bench_samples *samples)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };

	bench_tcp_pair(steps.fd);
	sigaction(SIGUSR1, &action, NULL);
	steps.bytes = bytes;
	begin(&steps.runner, runner);
	bench_keep_off_last(true);
	begin(&steps.receiver, receiver);
	begin(&steps.seat, seat);
	samples->count = STEPS;
	for (uint32_t i = 0; i < STEPS; i++) {
		usleep(REST_US);
		atomic_store(&steps.awake_ns, 0);
		uint64_t start_ns = bench_now_ns();

		pthread_kill(steps.runner, SIGUSR1);
		while (!atomic_load(&steps.awake_ns))
			usleep(REST_US);
		samples->ns[i] = (uint32_t)(atomic_load(&steps.awake_ns) - start_ns);
	}
	atomic_store(&steps.end, true);
	shutdown(steps.fd[0], SHUT_RDWR);
	atomic_fetch_add(&steps.turn, 1);
	syscall(SYS_futex, &steps.turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	pthread_join(steps.runner, NULL);
	pthread_join(steps.receiver, NULL);
	pthread_join(steps.seat, NULL);
	bench_keep_off_last(false);
	return bench_quantile(samples, 0.5) / 1e3;
}

/* As bench/stalls does it: node 1 is home and owner of what node 0 reads. */
static double stall_us(struct bench_samples *samples)
{
	struct bench_pod_config config = { 2, false, false, MEMORY, 0, false };
	struct bench_order order = { .op = BENCH_WRITE, .count = STALLS };
	struct bench_pod *pod = bench_pod_start(&config);

	bench_pod_begin(pod, 1, &order);
	bench_pod_end(pod, 1, NULL);
	order.op = BENCH_READ;
	order.shuffled = true;
	bench_pod_begin(pod, 0, &order);
	bench_pod_end(pod, 0, samples);
	bench_pod_stop(pod);
	return bench_quantile(samples, 0.5) / 1e3;
}

int main(int argc, char **argv)
{
	static struct bench_samples samples;
	unsigned long bytes = argc == 2 ? strtoul(argv[1], NULL, 10) : 0;
	double message, least, stall;

	if (bytes < 1 || bytes > BYTES_MAX) {
		fprintf(stderr, "usage: move_floor BYTES\n");
		return 2;
	}
	bench_realtime();
	message = message_us((uint32_t)bytes, &samples);
	stall = stall_us(&samples);
	least = steps_us((uint32_t)bytes, &samples);
	printf("{\"message_us\": %.2f, \"steps_us\": %.2f, \"stall_us\": %.2f}\n", message, least,
	       stall);
	return 0;
}
