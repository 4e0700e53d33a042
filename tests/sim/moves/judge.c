/* SPDX-License-Identifier: Apache-2.0 */
/* The judge of moving vCPUs: see judge.h. */
#include "tests/sim/moves/judge.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *rule_name(enum rule rule)
{
	static const char *const names[RULE_COUNT] = {
		"fine", "one-place", "twice", "lost", "order", "lie", "round", "bound", "endless",
	};

	return names[rule];
}

int judge_init(struct judge *judge, uint32_t vcpus)
{
	memset(judge, 0, sizeof(*judge));
	for (uint32_t v = 0; v < VCPUS_MAX; v++)
		judge->runs_on[v] = NODE_NONE;
	judge->sent_ns = calloc((size_t)vcpus * IDS_MAX, sizeof(*judge->sent_ns));
	return judge->sent_ns ? 0 : -ENOMEM;
}

void judge_destroy(struct judge *judge)
{
	free(judge->sent_ns);
}

void judge_fail(struct judge *judge, enum rule rule, const char *format, ...)
{
	va_list args;

	if (judge->rule)
		return;
	judge->rule = rule;
	judge->at_ns = judge->now_ns;
	va_start(args, format);
	vsnprintf(judge->text, sizeof(judge->text), format, args);
	va_end(args);
}

uint32_t judge_sent(struct judge *judge, uint32_t vcpu)
{
	uint32_t id = judge->id_count[vcpu]++;

	if (id >= IDS_MAX)
		abort(); /* the plan sends too many */
	judge->sent_ns[vcpu * IDS_MAX + id] = judge->now_ns;
	return id;
}

uint32_t judge_turn(struct judge *judge, uint32_t vcpu, bool init)
{
	uint32_t turn = ++judge->turn[vcpu];

	if (init)
		judge->init_turn[vcpu] = turn;
	return turn;
}

uint64_t judge_asked(struct judge *judge, uint32_t sender)
{
	return ++judge->asked[sender];
}

void judge_heard(struct judge *judge, uint32_t sender, uint64_t number)
{
	if (number != judge->heard[sender] + 1)
		judge_fail(judge, RULE_ORDER,
			   "vCPU %u's %llu. INIT or SIPI is heard behind its %llu.", sender,
			   (unsigned long long)number, (unsigned long long)judge->heard[sender]);
	judge->heard[sender] = number;
}

void judge_runs(struct judge *judge, uint32_t vcpu, uint16_t node)
{
	if (judge->runs_on[vcpu] != NODE_NONE)
		judge_fail(judge, RULE_ONE_PLACE, "vCPU %u runs on node %u and on node %u", vcpu,
			   judge->runs_on[vcpu], node);
	judge->runs_on[vcpu] = node;
}

void judge_stops(struct judge *judge, uint32_t vcpu, uint16_t node)
{
	if (judge->runs_on[vcpu] != node)
		judge_fail(judge, RULE_ONE_PLACE, "vCPU %u stops on node %u, where it is not", vcpu,
			   node);
	judge->runs_on[vcpu] = NODE_NONE;
}

static void got_startup(struct judge *judge, struct image *image, const struct parcel *parcel)
{
	uint32_t vcpu = parcel->vcpu;

	if (parcel->id <= image->turn)
		judge_fail(judge, parcel->id == image->turn ? RULE_TWICE : RULE_ORDER,
			   "vCPU %u gets its %u. INIT or SIPI behind the %u.", vcpu, parcel->id,
			   image->turn);
	image->turn = parcel->id;
	if (parcel->slot == SLOT_INIT)
		image->init_turn = parcel->id;
}

void judge_got(struct judge *judge, struct image *image, const struct parcel *parcel)
{
	uint32_t vcpu = parcel->vcpu, id = parcel->id;
	uint64_t took_ns;

	if (parcel->slot == SLOT_INIT || parcel->slot == SLOT_SIPI) {
		got_startup(judge, image, parcel);
		return;
	}
	if (image->got[id / 64] >> (id % 64) & 1)
		judge_fail(judge, RULE_TWICE, "vCPU %u gets interrupt %u (vector %u) twice", vcpu,
			   id, parcel->slot);
	image->got[id / 64] |= 1ull << (id % 64);
	took_ns = judge->now_ns - judge->sent_ns[vcpu * IDS_MAX + id];
	if (took_ns > judge->worst_ns)
		judge->worst_ns = took_ns;
	if (parcel->forwards > judge->worst_forwards)
		judge->worst_forwards = parcel->forwards;
}

void judge_end(struct judge *judge, uint32_t vcpu, const struct image *image)
{
	if (!image) {
		judge_fail(judge, RULE_ONE_PLACE, "in the end vCPU %u is on no node, or on two",
			   vcpu);
		return;
	}
	for (uint32_t id = 0; id < judge->id_count[vcpu]; id++)
		if (!(image->got[id / 64] >> (id % 64) & 1)) {
			judge_fail(judge, RULE_LOST, "vCPU %u never gets interrupt %u of %llu ns",
				   vcpu, id,
				   (unsigned long long)judge->sent_ns[vcpu * IDS_MAX + id]);
			return;
		}
	/* Earlier ones may have been taken back, or replaced, by these. */
	if (image->turn != judge->turn[vcpu] || image->init_turn != judge->init_turn[vcpu])
		judge_fail(judge, RULE_LOST, "vCPU %u never gets its %u. INIT or SIPI", vcpu,
			   image->turn != judge->turn[vcpu] ? judge->turn[vcpu]
							    : judge->init_turn[vcpu]);
}

uint32_t judge_bound(struct judge *judge, uint64_t dwell_ns)
{
	uint64_t bound_ns = 6 * judge->hop_ns + 3 * judge->change_ns;

	if (dwell_ns < 4 * judge->hop_ns + judge->change_ns || !bound_ns)
		return 0;
	if (judge->worst_forwards > FORWARDS_MAX)
		judge_fail(judge, RULE_BOUND, "an interrupt is forwarded %u times",
			   judge->worst_forwards);
	if (judge->worst_ns > bound_ns)
		judge_fail(judge, RULE_BOUND,
			   "an interrupt takes %llu ns, a hop at most %llu, a change of place %llu",
			   (unsigned long long)judge->worst_ns, (unsigned long long)judge->hop_ns,
			   (unsigned long long)judge->change_ns);
	return (uint32_t)(judge->worst_ns * 1000 / bound_ns);
}
