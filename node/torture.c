/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Torture, for tests and bench/moves: every vCPU moves at random, again and again.
 *
 * A thread of each node sends away whatever vCPU is there, once in a period, and all nodes do so at
 * the same moments: those are made from the pod clock and its time alone (moment_ns()). So a vCPU moves
 * once in each period, whichever node it is on, if it can move that fast; one that is still under way
 * at such a moment is left out. So is one that has hardly had its core since it came, or waits for a
 * page all the time, but not for ever: else nothing would get on where a page takes longer than a period.
 * A little chance keeps the moments apart from the guest's own ticks.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "node/node_state.h"

/* Of a vCPU that is not asleep, before it is sent away: of a period, of its thread's time. */
#define RUN_SHARE 3u
#define SPARES	  250u /* moments at most that it is left out for that: it may have no core for long */

struct torture {
	struct node *node;
	uint64_t cpu_ns[VCPUS_MAX]; /* of the seat's thread, when the vCPU was last sent away */
	uint8_t spared[VCPUS_MAX];
	uint64_t random;
	uint64_t turn_ns; /* the last one's moment */
};

static uint32_t random_number(struct torture *t)
{
	t->random ^= t->random << 13;
	t->random ^= t->random >> 7;
	t->random ^= t->random << 17;
	return (uint32_t)(t->random >> 32);
}

static uint64_t mixed(uint64_t value)
{
	value *= 0x9e3779b97f4a7c15ull;
	return (value ^ value >> 32) * 0x9e3779b97f4a7c15ull >> 32;
}

/* Of the period with this number, counted from the pod clock's 0. */
static uint64_t moment_ns(uint64_t period, uint64_t period_ns)
{
	return period * period_ns + mixed(period) % (period_ns / 8 + 1);
}

/* Each moment once, and as many as are over in one. */
static void wait_for_turn(struct torture *t, uint64_t period_ns)
{
	uint64_t now_ns = node_now_ns(t->node), period = now_ns / period_ns;
	while (moment_ns(period, period_ns) <= t->turn_ns)
		period++;
	t->turn_ns = moment_ns(period, period_ns);
	if (t->turn_ns <= now_ns)
		return;
	uint64_t wait_ns = t->turn_ns - now_ns;
	struct timespec ts = { (time_t)(wait_ns / 1000000000), (long)(wait_ns % 1000000000) };
	nanosleep(&ts, NULL);
}

static bool has_run(struct torture *t, uint32_t v, uint64_t period_ns)
{
	struct vcpu *vcpu = node_vcpu(t->node, v);
	uint64_t cpu_ns, wait_ns;
	if (vcpu && !vcpu_rests(vcpu) && vcpu_core_times(vcpu, &cpu_ns, &wait_ns)) {
		if (cpu_ns < t->cpu_ns[v] + period_ns / RUN_SHARE && ++t->spared[v] < SPARES)
			return false;
		t->cpu_ns[v] = cpu_ns;
	}
	t->spared[v] = 0;
	return true;
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
		wait_for_turn(t, period_us * 1000ull);
		for (uint32_t v = 0; v < config->vcpu_count; v++) {
			uint16_t to = members_pick(node->members, random_number(t));
			if (to == NODE_NONE || !has_run(t, v, period_us * 1000ull))
				continue;
			moves_wish(node, v, to);
		}
	}
	free(t);
	return NULL;
}

static int torture(struct node *node, uint32_t period_us)
{
	pthread_t thread;
	if (!members_may_have_others(node->members) ||
	    atomic_exchange(&node->torture_us, period_us) || !period_us)
		return 0;
	struct torture *t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	*t = (struct torture){ .node = node,
			       .random = node_now_ns(node) * 2654435761u | 1,
			       .turn_ns = node_now_ns(node) };
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

void torture_call(void)
{
	if (getenv("EAGRE_TORTURE_CALL"))
		syscall(SYS_getppid);
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
