/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stall benchmark: what its parts share.
 *
 *      stalls.c    rounds, medians, the table and the JSON
 *      floor.c     what this machine can do at best: TCP, userfaultfd, a simple remote page program
 *      bench_pod.c the real stack: node processes that do what they are told and time it
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
/* So many bytes there, and back, between two processes that spin. */
void floor_message(uint32_t bytes, uint32_t count, struct bench_samples *ret_samples);
/* Bytes a second from one process to another. */
double floor_tcp_bandwidth(void);
/* A touch of a missing page, answered by a thread with UFFDIO_COPY. */
void floor_userfault(bool spin, uint32_t count, struct bench_samples *ret_samples);
/* One faulting thread, one userfaultfd thread, one server over TCP. `busy`: a thread of the server
 * runs on the last core, all else on the others. */
void floor_simplest(bool spin, bool busy, uint32_t count, struct bench_samples *ret_samples);

/* A system call that does nothing, on average over some; a write protection of one present page,
 * alone in the process or while another thread of it runs on another core. */
void floor_call(uint32_t count, struct bench_samples *ret_samples);
void floor_shootdown(bool other_runs, uint32_t count, struct bench_samples *ret_samples);

/*
 * Keeps this thread and those that it begins off the machine's last core, or on it. Where one
 * thread runs all the time and others take turns, chance would else decide what a wake-up costs.
 */
void bench_keep_off_last(bool off);
void bench_keep_on_last(void);
/* A thread that runs on the last core and does nothing, to the end of the process. */
void bench_busy_thread(void);

/* --- the real stack --- */

enum bench_op {
	BENCH_READ,	 /* touch pages in `order`, each timed */
	BENCH_WRITE,	 /* write them */
	BENCH_PING_PONG, /* take turns with another node at writing one page, each turn timed */
	BENCH_BUSY,	 /* run on the last core until bench_pod_end() */
	BENCH_COUNT,	 /* publish counts */
	BENCH_QUIT,
};

struct bench_order {
	enum bench_op op;
	uint64_t gpn; /* first page */
	uint32_t count;
	bool shuffled;
	uint32_t turn; /* ping-pong: 0 or 1, who begins */
};

/* What a node's shards did since its start. */
struct bench_counts {
	uint64_t calls, shootdowns, sleeps, stalls;
};

struct bench_pod;

struct bench_pod_config {
	uint32_t nodes;
	bool spin;
	bool off_last;		 /* the nodes' threads keep off the last core */
	uint64_t memory_bytes;	 /* of the guest */
	uint64_t capacity_bytes; /* of node 0; 0: all of it. The others have all of it */
	bool encrypt;		 /* links */
};
struct bench_pod *bench_pod_start(const struct bench_pod_config *config);
void bench_pod_stop(struct bench_pod *pod);
/* Begins; then waits for the end. The whole time in ns, and the samples of the node. */
void bench_pod_begin(struct bench_pod *pod, uint32_t node, const struct bench_order *order);
uint64_t bench_pod_end(struct bench_pod *pod, uint32_t node, struct bench_samples *ret_samples);
/* Counts of all nodes, while none has an order. Takes some 30 ms. */
void bench_pod_counts(struct bench_pod *pod, struct bench_counts ret_counts[BENCH_NODES_MAX]);

#endif
