/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stall benchmark: what its parts share.
 *
 *      stalls.c    rounds, medians, the table and the JSON
 *      floor.c     what this machine can do at best: TCP, userfaultfd, the simplest remote page
 * program bench_pod.c the real stack: node processes that do what they are told and time it
 *
 * Samples are nanoseconds, in memory shared with the parent.
 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#define BENCH_NODES_MAX	  10
#define BENCH_SAMPLES_MAX 8192u

struct bench_samples {
	uint32_t count;
	uint32_t ns[BENCH_SAMPLES_MAX];
};

uint64_t bench_now_ns(void);
/* A quantile, ns; sorts. */
uint32_t bench_quantile(struct bench_samples *samples, double q);
/* Memory that children share; ends the program if there is none. */
void *bench_shared(uint64_t size);
void bench_die(const char *what) __attribute__((noreturn));

/*
 * With --realtime, this and later processes and threads run ahead of all others of the machine
 * (SCHED_RR), and the thread that calls bench_favour(true) ahead of those: it is the one that
 * stalls, and must get a core when its stall is over.
 */
void bench_realtime(void);
void bench_favour(bool on);

/* A connected pair over TCP on loopback, without delay; ends the program on failure. */
void bench_tcp_pair(int ret_fd[2]);

/* --- floors; `spin`: threads that wait spin --- */

/* 64 bytes there, 4096 back, between two processes. */
void floor_tcp_round_trip(bool spin, uint32_t count, struct bench_samples *ret_samples);
/* Bytes a second from one process to another. */
double floor_tcp_bandwidth(void);
/* A touch of a missing page, answered by a thread with UFFDIO_COPY. */
void floor_userfault(bool spin, uint32_t count, struct bench_samples *ret_samples);
/* One faulting thread, one userfaultfd thread, one server over TCP. */
void floor_simplest(bool spin, uint32_t count, struct bench_samples *ret_samples);

/* --- the real stack --- */

enum bench_op {
	BENCH_READ,	 /* touch pages in `order`, each timed */
	BENCH_WRITE,	 /* write them */
	BENCH_PING_PONG, /* take turns with another node at writing one page, each turn timed */
	BENCH_QUIT,
};

struct bench_order {
	enum bench_op op;
	uint64_t gpn; /* first page */
	uint32_t count;
	bool shuffled;
	uint32_t turn; /* ping-pong: 0 or 1, who begins */
};

struct bench_pod;

struct bench_pod *bench_pod_start(uint32_t nodes, bool spin, uint64_t memory_bytes);
void bench_pod_stop(struct bench_pod *pod);
/* Begins; then waits for the end. The whole time in ns, and the samples of the node. */
void bench_pod_begin(struct bench_pod *pod, uint32_t node, const struct bench_order *order);
uint64_t bench_pod_end(struct bench_pod *pod, uint32_t node, struct bench_samples *ret_samples);

#endif
