/* SPDX-License-Identifier: Apache-2.0 */
/*
 * move_floor BYTES: what a move of a vCPU is held against (bench/moves), in microseconds, as JSON: a
 * bare message of so many bytes between two threads that spin, half a round trip over TCP on loopback;
 * and a read stall of two hops between threads that sleep. Ahead of all else on the machine.
 */
#include "bench/bench.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/limits.h"

#define SAMPLES	  1024u
#define STALLS	  512u
#define MEMORY	  (64ull << 20)
#define BYTES_MAX 65536u

static double message_us(uint32_t bytes, struct bench_samples *samples)
{
	floor_message(bytes, SAMPLES, samples);
	return bench_quantile(samples, 0.5) / 2e3;
}

/* As bench/stalls does it: node 1 is home and owner of what node 0 reads. */
static double stall_us(struct bench_samples *samples)
{
	struct bench_pod_config config = { 2, false, false, MEMORY, 0 };
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
	double message, stall;

	if (bytes < 1 || bytes > BYTES_MAX) {
		fprintf(stderr, "usage: move_floor BYTES\n");
		return 2;
	}
	bench_realtime();
	message = message_us((uint32_t)bytes, &samples);
	stall = stall_us(&samples);
	printf("{\"message_us\": %.2f, \"stall_us\": %.2f}\n", message, stall);
	return 0;
}
