/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The judge of moving vCPUs. It shares no code with the core: every interrupt has a number, which
 * travels with it, and every state of a vCPU knows which numbers it has ever got, and is copied and
 * dropped with it.
 *
 * Its rules:
 *   one-place   a vCPU runs on one node at most, and in the end it is on one
 *   twice       a state gets no interrupt twice
 *   lost        in the end the state that is left has got all
 *   order       INIT and SIPI come to each vCPU as they came to their turn, and come to that as sent
 *   lie         nobody says what is taken for a lie
 *   round       each forward is by a higher epoch than the last
 *   bound       where a vCPU stays for 4 hops, an interrupt is forwarded 5 times at most and needs 6
 *               hops and 3 changes of place at most (docs/moves.md has the derivation)
 *   endless     it ends
 */
#ifndef TESTS_SIM_MOVES_JUDGE_H
#define TESTS_SIM_MOVES_JUDGE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/limits.h"

enum rule {
	RULE_NONE,
	RULE_ONE_PLACE,
	RULE_TWICE,
	RULE_LOST,
	RULE_ORDER,
	RULE_LIE,
	RULE_ROUND,
	RULE_BOUND,
	RULE_ENDLESS,
	RULE_COUNT,
};
const char *rule_name(enum rule rule);

#define IDS_MAX	     4096u /* interrupts of one vCPU */
#define FORWARDS_MAX 5u

/* An INIT's and SIPI's number is its turn: 1, 2, ... of each vCPU. */
struct parcel {
	uint32_t id;
	uint16_t vcpu;
	uint16_t slot; /* a vector, or SLOT_* */
	uint32_t forwards;
	uint64_t epoch; /* by which it was sent to the node that has it */
};
#define SLOT_NMI   256u
#define SLOT_INIT  257u
#define SLOT_SIPI  258u
#define SLOT_COUNT 259u

struct image {
	uint64_t got[IDS_MAX / 64];
	uint32_t turn, init_turn; /* of the last that came, of the last INIT */
};

struct judge {
	enum rule rule; /* the first that was broken */
	uint64_t now_ns, at_ns;
	char text[200];

	uint16_t runs_on[VCPUS_MAX]; /* NODE_NONE: nowhere */
	uint32_t id_count[VCPUS_MAX];
	uint32_t turn[VCPUS_MAX], init_turn[VCPUS_MAX]; /* given out */
	uint64_t *sent_ns;				/* by vCPU * IDS_MAX + id */
	uint64_t asked[VCPUS_MAX], heard[VCPUS_MAX];	/* INIT and SIPI, by sender */

	/* the longest of each, for the bound */
	uint64_t hop_ns, change_ns;
	uint64_t worst_ns;
	uint32_t worst_forwards;
};

int judge_init(struct judge *judge, uint32_t vcpus); /* 0, or -ENOMEM */
void judge_destroy(struct judge *judge);
void judge_fail(struct judge *judge, enum rule rule, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* A new number. */
uint32_t judge_sent(struct judge *judge, uint32_t vcpu);
/* An INIT or SIPI has come to its turn: its number. */
uint32_t judge_turn(struct judge *judge, uint32_t vcpu, bool init);
/* A vCPU asks for an INIT or SIPI; it is heard, as the sender's `number`th. */
uint64_t judge_asked(struct judge *judge, uint32_t sender);
void judge_heard(struct judge *judge, uint32_t sender, uint64_t number);

void judge_runs(struct judge *judge, uint32_t vcpu, uint16_t node);
void judge_stops(struct judge *judge, uint32_t vcpu, uint16_t node);
/* `parcel` goes into the LAPIC of `image`, on node. */
void judge_got(struct judge *judge, struct image *image, const struct parcel *parcel);

/* Everything is still; `image` is the state of a vCPU on the one node that has it; NULL: none. */
void judge_end(struct judge *judge, uint32_t vcpu, const struct image *image);
/* The bound: for vCPUs that stay `dwell_ns` at least. Permille of it that was needed; 0: none. */
uint32_t judge_bound(struct judge *judge, uint64_t dwell_ns);

#endif
