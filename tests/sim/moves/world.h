/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated pod of moving vCPUs: on each node the very core/vcpu_place.c, core/vcpu_startup.c and
 * machine/lapic.c's inboxes; threads that stop between any two of their steps; links with delays; and
 * virtual time. One seed is one run.
 *
 *      inbox.c   what is done about a vCPU's inbox: post, forward, drain, INIT and SIPI
 *      seat.c    a vCPU's thread on one node
 *      node.c    the control thread, and the devices' thread
 *      world.c   events in time order, links, the end
 */
#ifndef TESTS_SIM_MOVES_WORLD_H
#define TESTS_SIM_MOVES_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "core/vcpu_place.h"
#include "core/vcpu_startup.h"
#include "machine/lapic.h"
#include "tests/rng.h"
#include "tests/sim/command.h"
#include "tests/sim/moves/judge.h"
#include "tests/sim/moves/plan.h"

struct bag {
	struct parcel *item;
	uint32_t count, size;
};

enum message_type {
	MESSAGE_MOVE,
	MESSAGE_PLACE,
	MESSAGE_REFUSED,
	MESSAGE_INTERRUPT,
	MESSAGE_STARTUP, /* to node 0: a vCPU's INIT or SIPI */
	MESSAGE_HEARD,	 /* the answer */
	MESSAGE_TAKEN,	 /* to node 0 */
};

struct message {
	enum message_type type;
	uint16_t src, dst;
	uint32_t vcpu;
	uint64_t epoch, number, sent_ns;
	struct image *image;
	uint8_t mode, vector;
	uint32_t target; /* STARTUP */
	struct bag bag;	 /* INTERRUPT: by vCPU */
	struct message *next;
};

/* An interrupt on its way through one node. */
enum op_stage { OP_LOOK, OP_POST, OP_READ, OP_ACT };
struct op {
	bool active, straight;
	enum op_stage stage;
	uint8_t mode, vector;
	struct bag bag;
	uint32_t index; /* of the first parcel of the vCPU whose turn it is */
	enum place_route seen;
	uint16_t seen_node;
	struct message *bundle;
	uint64_t begun_ns;
};

enum seat_stage {
	SEAT_PARKED,
	SEAT_LOADING,
	SEAT_GUEST,
	SEAT_LEAVING,
	SEAT_SAVED,
	SEAT_DRAINED,
	SEAT_SENDING, /* of broken ones */
};

struct thread {
	uint64_t at_ns; /* when it goes on; UINT64_MAX: when somebody has it go on */
	uint32_t generation;
	struct op op;
};

struct seat {
	struct thread thread;
	enum seat_stage stage;
	struct image image;
	struct lapic_inbox inbox;
	struct bag shadow; /* what its bits stand for */
	struct vcpu_startup_debt debt;
	bool kicked, asking;
	bool owes; /* PLACE */
	uint64_t kicked_ns, came_ns, begun_ns, leave_ns, think_ns;
};

struct sim_node {
	struct vcpu_places places;
	struct thread control, device;
	struct message *first, *last; /* arrived */
	uint32_t owed_count;	      /* of its seats */
	uint32_t device_left;
};

struct hub {
	struct vcpu_startup startup;
	uint32_t init_turn, sipi_turn; /* that wait */
};

enum event_kind { EVENT_ARRIVAL, EVENT_SEAT, EVENT_CONTROL, EVENT_DEVICE, EVENT_FLUSH };
struct event {
	uint64_t at_ns, order;
	enum event_kind kind;
	uint32_t index, generation; /* FLUSH: the channel */
	struct message *message;
};

struct world {
	const struct plan *plan;
	struct rng rng;
	struct judge judge;
	uint64_t now_ns;
	uint32_t nodes, vcpus;
	bool trace;

	struct event *heap;
	uint32_t heap_count, heap_size;
	uint64_t order, events;

	struct sim_node *node;
	struct seat *seat; /* by node * vcpus + vcpu */
	struct hub hub[VCPUS_MAX];
	uint32_t moves_left[VCPUS_MAX], sends_left[VCPUS_MAX];
	uint64_t *arrival_ns; /* by channel: of the last message */
	uint64_t *full_ns;    /* by channel: it takes no interrupts until then */
	bool *waits;	      /* by channel: something is gathered for it */

	/* the longest of each */
	uint64_t travel_ns, op_ns, change_ns;
	uint64_t messages, merged, taken, refused;
};

struct world_result {
	enum rule rule;
	uint64_t at_ns, now_ns;
	char text[200];
	uint64_t events, messages, moves, refused, interrupts;
	uint32_t bound_permille, forwards;
};

/* 0, or -ENOMEM. */
int world_run(const struct plan *plan, bool trace, struct world_result *ret_result);

/* world.c, for the others */
static inline struct seat *seat_of(struct world *world, uint16_t node, uint32_t vcpu)
{
	return &world->seat[node * world->vcpus + vcpu];
}
/* Up to `ns`, or a pause. */
uint64_t step_ns(struct world *world);
uint64_t up_to(struct world *world, uint64_t ns);
void later(struct world *world, enum event_kind kind, uint32_t index, struct thread *thread,
	   uint64_t at_ns);
void flush_later(struct world *world, uint16_t from, uint16_t to, uint64_t at_ns);
struct message *message_new(enum message_type type, uint16_t src, uint16_t dst, uint32_t vcpu);
void message_send(struct world *world, struct message *message);
void bag_add(struct bag *bag, const struct parcel *parcel);
void bag_free(struct bag *bag);
/* inbox.c */
void inbox_note(struct world *world, uint16_t node, const struct parcel *parcel);
void inbox_drain(struct world *world, uint16_t node, uint32_t vcpu);
/* The lock. `anyway`: also where the channel is full. */
void inbox_forward(struct world *world, uint16_t node, uint32_t vcpu, bool anyway);
void inbox_flush(struct world *world, uint16_t node, uint16_t to);
void startup_post(struct world *world, uint16_t node, uint8_t mode, uint8_t vector,
		  const struct parcel *parcel);
void startup_turn(struct world *world, uint32_t vcpu, uint8_t mode);
void startup_taken(struct world *world, uint32_t vcpu);
void startup_settle(struct world *world, uint16_t node, uint32_t vcpu);
void op_begin(struct world *world, struct op *op, uint8_t mode, uint8_t vector, bool straight);
/* One step. True: it is over. */
bool op_step(struct world *world, uint16_t node, struct op *op);
/* A random interrupt of a source. */
void op_random(struct world *world, struct op *op);

/* seat.c */
void seat_kick(struct world *world, uint16_t node, uint32_t vcpu);
void seat_load(struct world *world, uint16_t node, uint32_t vcpu);
/* The lock. PLACE, if it is owed. */
void seat_say(struct world *world, uint16_t node, uint32_t vcpu);
void seat_go_on(struct world *world, uint16_t node, uint32_t vcpu);
void seat_step(struct world *world, uint16_t node, uint32_t vcpu);

/* node.c */
void control_arrival(struct world *world, struct message *message);
void control_go_on(struct world *world, uint16_t node);
void control_step(struct world *world, uint16_t node);
void device_step(struct world *world, uint16_t node);

#endif
