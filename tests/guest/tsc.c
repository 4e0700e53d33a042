/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tsc: the pod has one time. Threads on all vCPUs hand a token round through shared memory, one way
 * and then the other; each writes its TSC into it and the next, having read that, must not read a
 * smaller one. The kernel's clock (CLOCK_MONOTONIC) goes round in the same token. While it waits, a
 * thread watches that its own TSC only grows.
 *
 * Of all hand-overs between two neighbours the quickest each way are kept: half their difference is
 * how far the two TSCs may be apart, half their sum how well that is known, as NTP reckons.
 *
 * --beats N prints the kernel's clock of vCPU 0 N times instead, 20 ms apart, for someone outside to
 * hold it against his own.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "tests/guest/cpus.h"

/* What goes round: one cache line. */
struct token {
	uint64_t turn; /* written last; odd laps go backwards */
	uint64_t tsc;
	uint64_t clock_ns;
	uint64_t last; /* the turn after which to end; 0: not known */
};

struct ring {
	unsigned int threads;
	uint64_t ticks; /* to run for */
	bool spoil;
	struct token *token; /* a page of its own */
	/* Written at a thread's end. [0]: from the thread before, [1]: from the one behind. */
	uint64_t quickest[GUEST_THREADS][2], backwards[GUEST_THREADS], handed[GUEST_THREADS];
	uint64_t clock_backwards[GUEST_THREADS];
	uint64_t worst[GUEST_THREADS]; /* ticks that a TSC was behind what had been read before */
};

static uint64_t clock_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Whose the turn is: 0 1 2 .. n-1, then n-2 .. 1, and again from 0. */
static unsigned int holder(const struct ring *ring, uint64_t turn)
{
	uint64_t lap = 2 * (ring->threads - 1), at = turn % lap;
	return (unsigned int)(at < ring->threads ? at : lap - at);
}

struct watch {
	uint64_t last_tsc, backwards, worst;
};

static uint64_t watch_tsc(struct watch *watch)
{
	uint64_t now = tsc_read();
	if (now < watch->last_tsc) {
		watch->backwards++;
		if (watch->last_tsc - now > watch->worst)
			watch->worst = watch->last_tsc - now;
	}
	watch->last_tsc = now;
	return now;
}

/* Until the turn is ours; false: the ring has ended. */
static bool wait_for_turn(struct ring *ring, unsigned int t, struct watch *watch,
			  uint64_t *ret_turn)
{
	unsigned int spins = 0;
	for (;;) {
		uint64_t turn = __atomic_load_n(&ring->token->turn, __ATOMIC_ACQUIRE);
		uint64_t last = __atomic_load_n(&ring->token->last, __ATOMIC_RELAXED);
		if (last && turn > last)
			return false;
		if (holder(ring, turn) == t) {
			*ret_turn = turn;
			return true;
		}
		watch_tsc(watch);
		cpus_relax(&spins);
	}
}

static void ring_work(void *context, unsigned int t)
{
	struct ring *ring = context;
	struct token *token = ring->token;
	struct watch watch = { 0 };
	uint64_t deadline = tsc_read() + ring->ticks;
	uint64_t quickest[2] = { UINT64_MAX, UINT64_MAX }, turn, handed = 0, clock_backwards = 0;
	while (wait_for_turn(ring, t, &watch, &turn)) {
		uint64_t sent = token->tsc, now = watch_tsc(&watch), clock = clock_ns();
		if (ring->spoil && t == 1 && handed == 10)
			now = sent - 5000;
		if (turn) {
			bool back = turn % (2 * (ring->threads - 1)) >= ring->threads || t == 0;
			uint64_t took = now - sent;
			if (now < sent) {
				watch.backwards++;
				if (sent - now > watch.worst)
					watch.worst = sent - now;
			} else if (took < quickest[back]) {
				quickest[back] = took;
			}
			clock_backwards += clock < token->clock_ns;
		}
		handed++;
		token->clock_ns = clock_ns();
		token->tsc = watch_tsc(&watch);
		if (t == 0 && !token->last && token->tsc >= deadline)
			token->last = turn;
		__atomic_store_n(&token->turn, turn + 1, __ATOMIC_RELEASE);
	}
	ring->quickest[t][0] = quickest[0];
	ring->quickest[t][1] = quickest[1];
	ring->backwards[t] = watch.backwards;
	ring->worst[t] = watch.worst;
	ring->handed[t] = handed;
	ring->clock_backwards[t] = clock_backwards;
}

static double in_us(uint64_t ticks, uint64_t hz)
{
	return (double)ticks * 1e6 / (double)hz;
}

/* Neighbours t and t + 1: forth is what t + 1 saw coming from t, back what t saw coming from t + 1.
 */
static double print_pairs(const struct ring *ring, uint64_t hz)
{
	double worst = 0;
	for (unsigned int t = 0; t + 1 < ring->threads; t++) {
		uint64_t forth = ring->quickest[t + 1][0], back = ring->quickest[t][1];
		if (forth == UINT64_MAX || back == UINT64_MAX)
			continue;
		double apart = (in_us(forth, hz) - in_us(back, hz)) / 2;
		printf("vCPU %u and %u: quickest hand-over %.3f us forth, %.3f us back: %.3f us apart, +- %.3f\n",
		       t, t + 1, in_us(forth, hz), in_us(back, hz), apart,
		       (in_us(forth, hz) + in_us(back, hz)) / 2);
		if (apart < 0)
			apart = -apart;
		if (apart > worst)
			worst = apart;
	}
	return worst;
}

static void beat(uint64_t count)
{
	cpus_pin(0);
	for (uint64_t i = 0; i < count; i++) {
		struct timespec now;
		clock_gettime(CLOCK_MONOTONIC_RAW, &now);
		printf("beat %llu\n", (unsigned long long)now.tv_sec * 1000000000u +
					      (unsigned long long)now.tv_nsec);
		fflush(stdout);
		usleep(20000);
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seconds", required_argument, NULL, 's' },
		{ "threads", required_argument, NULL, 't' },
		{ "beats", required_argument, NULL, 'b' },
		{ "spoil", no_argument, NULL, 'x' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	static struct ring ring;
	uint64_t seconds = 5;
	int option;
	ring.threads = cpus_count() > 1 ? cpus_count() : 2;
	while ((option = getopt_long(argc, argv, "h", options, NULL)) >= 0) {
		if (option == 's')
			seconds = number_argument("--seconds", optarg, 1000000);
		else if (option == 't')
			ring.threads =
				(unsigned int)number_argument("--threads", optarg, GUEST_THREADS);
		else if (option == 'b')
			return beat(number_argument("--beats", optarg, 1000000)), 0;
		else if (option == 'x')
			ring.spoil = true;
		else {
			fputs("usage: tsc [--seconds N] [--threads N] [--spoil] [--beats N]\n"
			      "\n"
			      "Hands TSC values round all vCPUs; exits with 1 when one goes back. --spoil makes one.\n",
			      option == 'h' ? stdout : stderr);
			return option == 'h' ? 0 : 2;
		}
	}
	if (ring.threads < 2)
		ring.threads = 2;
	uint64_t hz = tsc_measure_hz(), handed = 0, backwards = 0, clock_backwards = 0, worst = 0;
	ring.token = pages_new(1);
	ring.ticks = hz * seconds;
	cpus_run(ring.threads, 0, ring_work, &ring);
	double apart = print_pairs(&ring, hz);
	for (unsigned int t = 0; t < ring.threads; t++) {
		handed += ring.handed[t];
		backwards += ring.backwards[t];
		clock_backwards += ring.clock_backwards[t];
		worst = ring.worst[t] > worst ? ring.worst[t] : worst;
	}
	printf("tsc: %.1f MHz, %llu hand-overs over %u vCPUs, worst skew %.3f us, TSC went back %llu times "
	       "(by at most %.3f us), the kernel's clock %llu times\n",
	       (double)hz / 1e6, (unsigned long long)handed, cpus_count(), apart,
	       (unsigned long long)backwards, in_us(worst, hz),
	       (unsigned long long)clock_backwards);
	return backwards || clock_backwards ? 1 : 0;
}
