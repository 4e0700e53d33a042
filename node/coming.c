/* SPDX-License-Identifier: Apache-2.0 */
/*
 * COMING: a word ahead of a vCPU that moves, so that its seat is awake when it comes.
 *
 * Problem: from the decision to the vCPU's first instruction at the target three threads that sleep
 * would be woken one after the other: the vCPU's own, the target's control thread, the seat's. Idea:
 * who decides says so to the target at once. There the seat's thread is woken while the vCPU is
 * still being stopped, and then looks for MOVE on the channel itself, in the control thread's stead
 * (control_look()).
 *
 *      decider      kick the vCPU; COMING ------> control thread: wakes the seat's
 *      vCPU         stops; MOVE ---------------->                 the seat's looks, takes it, loads
 *
 * The word is advisory: lost, late or a lie, it changes nothing but who is awake. It is not sent where
 * that would have to wait.
 *
 * A thread that looks takes a core, so it looks for LOOK_NS at most, one at a time, only where a core
 * is there for the vCPU, and lets everybody else go first; if somebody then took the core for long,
 * it looks no further. Whatever others say, no more than a 32nd of a core's time is spent on looking in vain, and
 * no more than a fourth in all.
 *
 * Tested in tests/node/test_moves.c.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "node/cores.h"
#include "node/node_state.h"

#define LOOK_NS 200000u
#define JUMP_NS 20000u /* between two looks: somebody else has had the core */

#define VAIN_PAUSE 31u /* times as long as was looked */
#define PAUSE	   3u

struct coming {
	bool spare_core;		  /* this host has more than one */
	atomic_bool looks;		  /* some thread does */
	_Atomic uint64_t pause_ns;	  /* pod clock: nobody looks before */
	_Atomic uint16_t from[VCPUS_MAX]; /* by vCPU: who has said so last */
	_Atomic uint64_t look_count, came_count, vain_ns, last_ns; /* by who looks */
};

int coming_create(struct node *node)
{
	struct coming *coming = calloc(1, sizeof(*coming));
	if (!coming)
		return -ENOMEM;
	coming->spare_core = cores_of_host() > 1;
	node->coming = coming;
	return 0;
}

void coming_say(struct node *node, uint32_t vcpu, uint16_t to, uint64_t epoch)
{
	struct control_message msg; /* large, and little of it is sent */
	uint32_t held = members_hold(node->members);
	struct control_channel *channel = node_channel(node, to);
	msg.type = CONTROL_COMING;
	msg.coming = (struct control_coming){ .vcpu = (uint16_t)vcpu, .epoch = epoch };
	if (channel)
		control_try_send(channel, &msg);
	members_let_go(node->members, held);
}

/* Whether it would run at once if it came. */
static bool has_core(const struct node *node)
{
	uint32_t cores = node_own(node)->cores, here = cores_of_host(), busy = 0;
	for (uint32_t v = 0; v < node->config->vcpu_count; v++)
		busy += node->vcpu[v] && vcpu_is_busy(node->vcpu[v]);
	return busy < (cores < here ? cores : here);
}

static bool is_next_move(const struct node *node, uint32_t vcpu, uint16_t from, uint64_t epoch)
{
	struct vcpu_place place = vcpu_place_read(&node->places, vcpu);
	return place.state == PLACE_AWAY && place.node == from && epoch == place.epoch + 1;
}

void coming_heard(struct node *node, uint16_t src, const struct control_coming *word)
{
	struct coming *coming = node->coming;
	if (!coming->spare_core || atomic_load(&coming->looks) ||
	    node_now_ns(node) < atomic_load(&coming->pause_ns) ||
	    !is_next_move(node, word->vcpu, src, word->epoch) || !has_core(node))
		return;
	atomic_store(&coming->from[word->vcpu], src);
	vcpu_expect(node_vcpu(node, word->vcpu));
}

/* True: it has come. */
static bool look(struct node *node, uint32_t vcpu, uint64_t since_ns)
{
	uint16_t from = atomic_load(&node->coming->from[vcpu]);
	uint64_t now_ns = since_ns, before_ns;
	do {
		control_look(node, from);
		if (vcpu_place_read(&node->places, vcpu).state != PLACE_AWAY)
			return true;
		sched_yield();
		before_ns = now_ns;
		now_ns = node_now_ns(node);
	} while (now_ns - since_ns < LOOK_NS && now_ns - before_ns < JUMP_NS);
	return false;
}

void coming_look(void *ctx, uint32_t vcpu)
{
	struct node *node = ctx;
	struct coming *coming = node->coming;
	uint64_t since_ns, ns;
	bool came;
	if (atomic_exchange(&coming->looks, true))
		return;
	since_ns = node_now_ns(node);
	/* Two may have been told to before the first one looked. */
	if (since_ns < atomic_load(&coming->pause_ns)) {
		atomic_store(&coming->looks, false);
		return;
	}
	came = look(node, vcpu, since_ns);
	ns = node_now_ns(node) - since_ns;
	atomic_store(&coming->pause_ns, since_ns + ns + ns * (came ? PAUSE : VAIN_PAUSE));
	atomic_fetch_add(&coming->look_count, 1);
	atomic_fetch_add(&coming->came_count, came);
	atomic_fetch_add(&coming->vain_ns, atomic_exchange(&coming->last_ns, came ? 0 : ns));
	atomic_store(&coming->looks, false);
}

void coming_stats(const struct node *node, struct coming_stats *ret_stats)
{
	const struct coming *coming = node->coming;
	*ret_stats = (struct coming_stats){ atomic_load(&coming->look_count),
					    atomic_load(&coming->came_count),
					    atomic_load(&coming->vain_ns) };
}
