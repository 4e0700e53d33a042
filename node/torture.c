/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Torture, for tests and bench/moves: every vCPU moves at random, again and again.
 *
 * A thread of each node sends away whatever vCPU is there, once in a period. Nodes take turns: their
 * periods begin one after the other by the pod clock, so that on two nodes a vCPU moves twice in each.
 * A little chance keeps that apart from the guest's own ticks.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

#include "node/node_state.h"

struct torture {
	struct node *node;
	uint64_t random;
};

static uint32_t random_below(struct torture *t, uint32_t limit)
{
	t->random ^= t->random << 13;
	t->random ^= t->random >> 7;
	t->random ^= t->random << 17;
	return (uint32_t)((t->random >> 32) % limit);
}

static void wait_for_turn(struct torture *t, uint32_t period_us)
{
	const struct node *node = t->node;
	uint64_t period_ns = period_us * 1000ull;
	uint64_t first_ns = period_ns * node->self / node->config->node_count;
	uint64_t now_ns = node_now_ns(node);
	uint64_t since_ns = (now_ns % period_ns + period_ns - first_ns) % period_ns;
	uint64_t wait_ns = period_ns - since_ns + random_below(t, period_us / 8 + 1) * 1000ull;
	struct timespec ts = { (time_t)(wait_ns / 1000000000), (long)(wait_ns % 1000000000) };
	nanosleep(&ts, NULL);
}

static void *torture_main(void *arg)
{
	struct torture *t = arg;
	struct node *node = t->node;
	const struct pod_config *config = node->config;
	uint32_t period_us;
	pthread_setname_np(pthread_self(), "torture");
	prctl(PR_SET_TIMERSLACK, 1000ul);
	while (!node_has_ended(node) && (period_us = atomic_load(&node->torture_us))) {
		wait_for_turn(t, period_us);
		for (uint32_t v = 0; v < config->vcpu_count; v++) {
			uint16_t to = (uint16_t)random_below(t, config->node_count - 1);
			moves_wish(node, v, to < node->self ? to : to + 1);
		}
	}
	free(t);
	return NULL;
}

static int torture(struct node *node, uint32_t period_us)
{
	pthread_t thread;
	if (node->config->node_count < 2 || atomic_exchange(&node->torture_us, period_us) ||
	    !period_us)
		return 0;
	struct torture *t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	*t = (struct torture){ node, node_now_ns(node) * 2654435761u | 1 };
	int r = -pthread_create(&thread, NULL, torture_main, t);
	if (!r)
		pthread_detach(thread);
	return r;
}

int torture_start(struct node *node)
{
	const char *text = getenv("EAGRE_TORTURE_MOVES");
	uint32_t us;
	return text && node_parse_number(text, &us) ? torture(node, us) : 0;
}

char *torture_hints_request(struct node *node, const char *words)
{
	uint32_t on;
	if (!node_parse_number(words, &on))
		return node_answer(false, "0 or 1");
	atomic_store(&node->no_hints, on == 0);
	return node_answer(true, words);
}

char *torture_request(struct node *node, const char *words)
{
	uint32_t us;
	if (!node_parse_number(words, &us) || !atomic_load(&node->run_ns) || torture(node, us) < 0)
		return node_answer(false, "not now");
	return node_answer(true, words);
}
