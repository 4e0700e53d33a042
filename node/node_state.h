/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of a running node, shared by the files of node/ and by nobody else.
 *
 * Threads: main (start-up, then waits for the end), control (control.c), one a shard (pager), one a
 * vCPU (vcpu.c), status socket, and where the PC is devices (devices.c) and console (console.c).
 * What is set before the threads start and never changes needs no lock; the rest says its own.
 */
#ifndef NODE_NODE_STATE_H
#define NODE_NODE_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/vcpu_place.h"
#include "core/vcpu_startup.h"
#include "link/mesh.h"
#include "machine/memory_map.h"
#include "machine/pc.h"
#include "node/control_rules.h"
#include "node/members.h"
#include "node/node.h"
#include "pager/pager.h"
#include "node/node_clock.h"
#include "node/page_pair.h"
#include "node/vcpu.h"

struct coming;
struct confine;
struct control_thread;
struct devices;
struct guest_io;
struct io;
struct moves;
struct node_stats;
struct placer;
struct queues;
struct queues_counts;
struct say;
struct sponsor;
struct status_socket;
struct steps;
struct virtio_queue_state;

struct node {
	const struct node_options *options;
	const struct pod_config *config;
	uint16_t self;
	struct members *members; /* who takes part; loops over nodes and questions who does what */
	struct engine_features features;
	struct memory_map map;
	struct memory_range high_window; /* PCI's, above RAM; once the CPUs' reach is agreed on */

	/* What the pod agreed on: set by start_agree() before memory and vCPUs exist. */
	struct control_start start;

	struct mesh *mesh;
	struct node_clock *clock; /* from check() on */
	struct node_clock_tsc tsc;
	struct guest_memory *memory;
	struct pager *pager;
	struct memory_port *loader_port;
	struct page_pair page_pair;
	struct engine *engine;
	atomic_bool engine_complete; /* it has all of its memory; no vCPU has run before */
	uint64_t entry;		     /* where vCPU 0 begins: loaded here, or said by RUN */
	/* Seats by vCPU number: for all vCPUs of the pod, or for those that begin here: node_moves() */
	struct vcpu *vcpu[VCPUS_MAX];
	struct vcpu_places places;
	struct moves *moves;
	struct coming *coming;
	_Atomic uint32_t torture_us; /* torture.c; 0: none */
	atomic_bool no_hints;	     /* likewise: pages are not asked for where a vCPU arrives */
	/* startup.c: by vCPU; the first is the PC's node's. Under the vCPU's lock. */
	struct vcpu_startup startup[VCPUS_MAX];
	struct vcpu_startup_debt startup_debt[VCPUS_MAX];
	struct placer *placer; /* NULL: nothing moves */
	_Atomic uint64_t
		word_ns[NODES_MAX]; /* policy.c: how often each node changes policy and pins */
	struct policy_state *policy_state; /* NULL: what is learned is not kept */
	struct control_thread *control;
	struct steps *steps;	 /* steps.c */
	struct sponsor *sponsor; /* sponsor.c; NULL: nobody may join by this node */
	atomic_bool joined;	 /* this node joins, and its main thread has done all that takes */
	struct guest_io *io;
	struct confine *confine; /* of the vCPUs' threads; NULL: none */
	struct queues *queues;	 /* queues.c */
	struct io *virtio;	 /* io.c; NULL: this node has nothing of any virtio device */
	struct devices *devices; /* NULL: the PC is on another node */
	struct console *console; /* likewise */
	struct status_socket *status;
	struct node_stats *stats;
	struct say *say;
	atomic_bool button_pressed;	 /* the PC's node: a user has had it pressed */
	atomic_bool vcpus_exist;	 /* all of vcpu[] is set */
	_Atomic uint32_t phase;		 /* enum node_phase: what others may say to this node */
	atomic_uint_fast64_t run_ns;	 /* pod clock at RUN, 0 before */
	atomic_uint_fast64_t loading_ns; /* local clock when the loader last went on; 0: no load */

	int ended_fd; /* readable once the pod has ended: for those who wait for other things */

	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t changed;
	uint32_t features_count, ready_count;	 /* the loader: answers of the others */
	uint64_t peer_clock_error_ns[NODES_MAX]; /* that READY told */
	struct control_features *peer_features[NODES_MAX];
	bool started, running; /* other nodes: START, RUN came */
	bool ended, end_is_ours;
	bool leaves;	 /* that end is this node's alone: it holds nothing, and the pod goes on */
	bool pages_wait; /* pager is there, and may keep the main thread from seeing the end */
	bool warned;	 /* why this one does not start has been said */
	struct control_end end;
};

/* What the user has given this node to do: its own part of the configuration. */
static inline const struct node_config *node_own(const struct node *node)
{
	return node->options->joins ? &node->options->joins->own : &node->config->node[node->self];
}

/* Do this pod's vCPUs move? Then a node has a seat for every one. */
static inline bool node_moves(const struct node *node)
{
	return node->config->vcpu_count <= NODE_VCPUS_MAX;
}

/* What a seat keeps resident besides what the engine has for it: its thread, and what this node, its
 * pager and the host's kernel know of it (tests/node/seat_cost.c). */
#define NODE_SEAT_BYTES (128u << 10)

/* The seats are those of the vCPUs from node_seat_first() on, so many. */
static inline uint32_t node_seat_first(const struct node *node)
{
	return node_moves(node) ? 0 : node_own(node)->vcpu_first;
}

static inline uint32_t node_seat_count(const struct node *node)
{
	return node_moves(node) ? node->config->vcpu_count : node_own(node)->vcpu_count;
}

/* Which actor of the pager a vCPU with a seat is. */
static inline uint32_t node_actor(const struct node *node, uint32_t number)
{
	return number - node_seat_first(node);
}

/* This node's seat for the vCPU of that number, or NULL. */
static inline struct vcpu *node_vcpu(const struct node *node, uint32_t number)
{
	return number < VCPUS_MAX ? node->vcpu[number] : NULL;
}

/* Not elsewhere: here, or on its way in or out. */
static inline bool node_has_vcpu(const struct node *node, uint32_t number)
{
	enum place_state state = vcpu_place_read(&node->places, number).state;
	return state != PLACE_AWAY && state != PLACE_SENT && state != PLACE_UNKNOWN;
}

static inline uint64_t node_now_ns(const struct node *node)
{
	return node_clock_now(node->clock);
}

/* The pod ends. Any thread; the first reason counts. `ours`: this node tells the others. */
void node_end(struct node *node, const struct control_end *end, bool ours);
/* The same, with the usual fields; text is formatted. */
__attribute__((format(printf, 4, 5))) void node_end_with(struct node *node,
							 enum control_end_kind kind, uint8_t status,
							 const char *format, ...);
/* This node alone ends, with status 0 and that line: it holds nothing, and nobody needs it. */
void node_leave(struct node *node, const struct control_end *end);
/*
 * The guest was reset, and `end` says by what. The loader, which alone knows what is wanted then,
 * begins anew or ends the pod; others tell it. Any thread.
 */
void node_guest_reset(struct node *node, const struct control_end *end);
/*
 * A peer says so. That the guest reboots is the loader's to say, of a guest that runs: who began anew on
 * another's word would wait for the others in vain. To it that is an end like any other.
 */
void node_told_end(struct node *node, const struct control_end *end);
bool node_has_ended(struct node *node);
__attribute__((format(printf, 2, 3))) void node_say(struct node *node, const char *format, ...);

/* The control channel to that node; NULL: none, or nothing is said to it any more. Holding the list. */
static inline struct control_channel *node_channel(const struct node *node, uint16_t to)
{
	return members_ears(node->members, to) == EARS_NONE ? NULL : mesh_control(node->mesh, to);
}

/* Bytes that wait for the socket. Any thread. */
size_t node_backlog(struct node *node, uint16_t to);
/* Sends to one node; a failure takes the link down, and who has no link hears nothing. Any thread. */
void node_send(struct node *node, uint16_t to, const struct control_message *msg);
void node_broadcast(struct node *node, const struct control_message *msg);
/* To who has that seat, which is another node. */
static inline void node_send_seat(struct node *node, enum member_seat seat,
				  const struct control_message *msg)
{
	node_send(node, members_seat(node->members, seat), msg);
}

/*
 * check.c, before anything is begun. `once`: what is to be said of this host, and no more than that, is
 * said. 0, or a negative error number and a line.
 */
int check_host(const struct node_options *options, bool once, struct engine_features *ret_features,
	       struct memory_map *ret_map, char *why, size_t why_size);
int check_pod(const struct node *node, char *why, size_t why_size);

/* signals.c: one thread takes those that a node knows; all others, made later, inherit the mask. */
int signals_take(struct node *node);

/* first.c: the guest's console and devices, and its kernel's way into the pod's memory. */
int first_create_devices(struct node *node);
int first_load_guest(struct node *node, char *why, size_t why_size);

/* start.c: agreeing on what the guest will see, from the main thread. */
int start_agree(struct node *node, char *why, size_t why_size);
int start_ready(struct node *node, char *why, size_t why_size);
/* ... of who joins, which has been told all else: until the pod's clock is known. */
int start_clock(struct node *node, char *why, size_t why_size);
/* ... and the messages that belong to it, from the control thread. */
void start_message(struct node *node, const struct control_message *msg);

/* control.c. Its thread goes before others where it may: with RLIMIT_NICE, or CAP_SYS_NICE. */
#define CONTROL_NICE	   (-15)
#define CONTROL_NICE_LIMIT ((unsigned int)(20 - CONTROL_NICE))
int control_start(struct node *node);
/* A seat's thread that waits for a vCPU: if `peer` has sent MOVE, it is taken now. Never waits. */
void control_look(struct node *node, uint16_t peer);
/* All links with a node that joins stand. The control thread. */
void control_linked(struct node *node, uint16_t peer);
/* ... it is a member, so it is missed when it falls silent. */
void control_watch(struct node *node, uint16_t peer);
/* ... and nothing is known of it any more: its links are to be closed. */
void control_forget(struct node *node, uint16_t peer);
/* Any thread: moves_settle() and steps_settle() are called soon, if there is a control thread. */
void control_wake(struct node *node);
/*
 * The control thread does nothing meanwhile, and so closes no channel. False: it could not be held within a
 * second.
 */
bool control_hold(struct node *node);
void control_let_go(struct node *node);
/* A page or io channel to `peer` failed. Judged after a short while: its own last words may be on
 * their way. Any thread. */
void control_link_failed(struct node *node, uint16_t peer, const char *cause);

/* devices.c: the PC. The callers: vCPU threads here, and the control thread for the other
 * nodes. */
int devices_create(struct node *node);
void devices_access(struct devices *devices, uint32_t vcpu, bool mmio,
		    const struct pc_access *access);
void devices_request(struct devices *devices,
		     const struct control_message *msg); /* queues; never waits */
void devices_eoi(struct devices *devices, uint8_t vector);
void devices_eoi_later(struct devices *devices, uint8_t vector); /* never waits */
/*
 * The guest's power button, once: whoever presses it again has pressed it, too. False: the guest does not
 * want to know of it, or is not to be reached. The second: for another node, which the device thread tells
 * by the pod's end if the button is in vain.
 */
bool devices_press_power_button(struct devices *devices);
void devices_press_later(struct devices *devices, uint16_t src); /* never waits */
/* What the io thread has to say about a virtio device (pc_device_*()): done soon; never waits. */
void devices_stopped(struct devices *devices, uint8_t device, uint64_t generation);
void devices_needs_reset(struct devices *devices, uint8_t device, uint64_t generation);
/* The console takes more of the serial ports' output; never waits. */
void devices_output_room(struct devices *devices);
size_t devices_input(struct devices *devices, unsigned int port, const uint8_t *data, size_t size);
size_t devices_break(struct devices *devices, unsigned int port);

/* queues.c: virtio devices between nodes. None of these waits. */
int queues_create(struct node *node);
/* Where the PC is: a device's registers have changed. This node's io thread and all others hear it. */
void queues_publish(struct node *node, const struct virtio_published *published);
/* A vCPU's thread. True: the access was a doorbell, and the queue's io thread hears of it. */
bool queues_ring(struct node *node, const struct pc_access *access);
/* A doorbell, in any way; any thread. device < VIRTIO_DEVICES_MAX, queue < VIRTIO_QUEUES_MAX. */
void queues_doorbell(struct node *node, uint8_t device, uint16_t queue);
/* Who has to say what has stopped, from now on. The control thread. */
void queues_members(struct node *node);
/* ... a node that joins has to, too: it is told what the registers say. */
void queues_introduce(struct node *node, uint16_t to);
/* The io thread has one that was left for it. True: the queue had gone, and it has been sent on. */
bool queues_send_on(struct node *node, uint8_t device, uint16_t queue);
/* The control thread: what is wrong with a message about devices, or NULL. */
const char *queues_message(struct node *node, const struct control_message *msg);
/* The channel to that node is empty: what was left for later leaves. Any thread. */
void queues_flush(struct node *node, uint16_t peer);
/* The io thread: nothing before that generation is under way; the driver has broken the device. */
void queues_stopped(struct node *node, uint8_t device, uint64_t generation);
void queues_needs_reset(struct node *node, uint8_t device, uint64_t generation);
/* The io thread, of the generation that its front half is in: core/queue_place.h. */
int queues_leave(struct node *node, uint8_t device, uint16_t queue, uint64_t generation,
		 uint16_t to);
int queues_give(struct node *node, uint8_t device, uint16_t queue, uint64_t generation,
		const struct virtio_queue_state *state);
int queues_taken(struct node *node, uint8_t device, uint16_t queue, uint64_t generation);
void queues_counts(const struct node *node, struct queues_counts *ret_counts);

/* guest_io.c: what vCPU threads need from outside. */
int guest_io_create(struct node *node);
extern const struct vcpu_ops guest_io_ops;
void guest_io_reply(struct node *node, const struct control_message *msg);
/* Routes an interrupt to vCPUs wherever they are. Any thread; never waits. */
void guest_io_interrupt(struct node *node, const struct interrupt *interrupt);
/* The channel to that node is empty: what was gathered for it leaves. Any thread. */
void guest_io_flush(struct node *node, uint16_t to);
/* Interrupts from another node, for vCPUs that are here, or were. */
void guest_io_deliver(struct node *node, const struct control_message *msg);
/* If the vCPU is elsewhere, what is in its inbox goes there. The vCPU's lock (moves_lock()). */
void guest_io_forward(struct node *node, uint32_t vcpu);
/* Into the vCPU's inbox, and no more; and waking its thread, if it has a seat here. */
void guest_io_put(struct node *node, uint32_t vcpu, uint8_t mode, uint8_t vector);
void guest_io_wake(struct node *node, uint32_t vcpu);
/* A question of a vCPU's thread to the PC, and its answer. 0, or -ESHUTDOWN: the pod ends. */
int guest_io_ask(struct node *node, uint32_t vcpu, enum control_io_kind kind,
		 const struct pc_access *access);

/*
 * steps.c: the list of members changes.
 *
 *	who joins (main thread)               its control thread
 *	links with all stand, pager, seats;
 *	control_start() in NODE_RUNNING   --> what members have said meanwhile is taken in order
 *	clock known, vCPUs' threads run:
 *	node->joined, control_wake()      --> steps_settle(): with that, the pager being ready and all
 *	                                      places known, READY is said, and ACTIVE comes
 */
int steps_create(struct node *node);
/* The control thread: STEP to DRAINED; what is wrong with one, or NULL. */
const char *steps_message(struct node *node, const struct control_message *msg);
/* The control thread, at each turn: what users have wished, and what can be done by now. */
void steps_settle(struct node *node);
/* Who joins, as this node wished, cannot be told so: it need not be waited for. Any thread. */
void steps_abandon(struct node *node, uint16_t joiner);
/* When it wants a turn at the latest, by the local clock. */
uint64_t steps_deadline(const struct node *node);
/* Links with `peer` have ended. Any thread. */
void steps_link_down(struct node *node, uint16_t peer, const char *cause);
/* What the pager has to know of members. */
void steps_configure_pager(struct node *node, struct pager_config *pager);
/*
 * Any thread that may wait: the wish goes to the steward. 0: its step is over; why not, as the list says it;
 * -ETIMEDOUT: nothing is known yet; -ESHUTDOWN: the pod ends.
 */
int steps_wish(struct node *node, const struct member_word *wish);
/* The steward's seat is to go to the node of that name; the answer as moves_request(). */
char *steps_steward_request(struct node *node, const char *words);
/* The node of that name is to leave, or to stay after all. */
char *steps_drain_request(struct node *node, const char *words, bool leaves);

/*
 * Who joins a pod that runs (join.c, sponsor.c):
 *
 *	joiner                             sponsor, which has a thread for it
 *	link/ask.h, by the token           sponsor_asked(), the control thread: its channel
 *	JOIN_ASK  ------------------->     judged: version, CPU, TSC, name, memory
 *	                                   steps_wish(JOIN): all members expect its links
 *	          <-------------------     START, RUN, JOIN_TOLD (list, configuration, secret)
 *	node_run(): links with all, pager, vCPUs' seats, all away; then its control thread begins, in
 *	phase NODE_RUNNING, as the guest does: so whatever members say meanwhile is taken in order
 *	clock known, vCPUs' threads run: node->joined, and control_wake()
 *	steps_settle(): with node->joined, pager_member_ready() and all places known, once:
 *	member_list_ready()
 *	ACTIVE is its own: it is a member
 */
/* The control thread: a JOIN that this node has wished is over; the list is as it was then. */
void sponsor_joined(struct node *node, const struct member_word *word);
/* Other hosts have joined, or nodes of the configuration have left: what begins anew is not the same. */
bool node_has_changed(const struct node *node);

/* startup.c: INIT and SIPI. From a vCPU that is here, or a device of the PC; may wait for that. */
void startup_interrupt(struct node *node, uint32_t source, uint32_t vcpu, uint8_t mode,
		       uint8_t vector);
/* One has come for a vCPU that is here, or was. */
void startup_deliver(struct node *node, uint32_t vcpu, uint8_t mode, uint8_t vector);
/* The vCPU's lock: one was taken out of its inbox to be forwarded; and whatever was owed and is not
 * in the inbox is with the vCPU, which is here again, or has left. */
void startup_forwarded(struct node *node, uint32_t vcpu);
void startup_settle(struct node *node, uint32_t vcpu);
/* The PC's node's control thread. Of a request: what is wrong with it, or NULL. */
const char *startup_request(struct node *node, const struct control_message *msg);
void startup_taken(struct node *node, const struct control_taken *taken);

/* moves.c: vCPUs that go from node to node, and what is said about it. */
int moves_create(struct node *node);
/* The lock of core/vcpu_place.h. Held to send and to change the place. */
void moves_lock(struct node *node, uint32_t vcpu);
void moves_unlock(struct node *node, uint32_t vcpu);
/* struct vcpu_ops */
int moves_leave(void *ctx, uint32_t vcpu, uint16_t to, int error);
int moves_left(void *ctx, uint32_t vcpu, const struct vcpu_moment *moment);
void moves_arrived(void *ctx, uint32_t vcpu);
void moves_refused(void *ctx, uint32_t vcpu);
/* The control thread: what arrived vCPUs owe others is said. */
void moves_settle(struct node *node);
/* The control thread: `to`, who joins, is told of all vCPUs that are here. */
void moves_introduce(struct node *node, uint16_t to);
/*
 * The control thread of a node that drains: whoever is here is wished away, to one of those; again and
 * again, as a wish may come to nothing. False: nobody is here any more, nor on its way in or out.
 */
bool moves_send_away(struct node *node, const struct member_set *to);
/* MOVE, PLACE, REFUSED, COMING, MOVE_ASK, MOVE_TOLD, from the control thread; MOVE also from who
 * looks in its stead. What is wrong with it, to
 * follow "it sent X ", or NULL. */
const char *moves_message(struct node *node, const struct control_message *msg);
/*
 * Has a vCPU of the pod moved to node `to`, wherever it is, and waits for that: enum
 * control_move_result, -ETIMEDOUT, or -ESHUTDOWN: the pod ends. Any thread but the control thread.
 */
int moves_ask(struct node *node, uint32_t vcpu, uint16_t to);
/* "VCPU NODE" as the user wrote it; the answer as JSON, malloc'd. */
char *moves_request(struct node *node, const char *words);
/* Without asking, waiting or telling anybody: a vCPU that is here shall go. False: it is not here. */
bool moves_wish(struct node *node, uint32_t vcpu, uint16_t to);
/* Bytes of the image that the vCPU last came here with; 0: it never has. */
uint32_t moves_image_bytes(const struct node *node, uint32_t vcpu);

/* coming.c: a word ahead. */
int coming_create(struct node *node);
/* Any thread, behind the wish: the vCPU will perhaps leave for there. Never waits. */
void coming_say(struct node *node, uint32_t vcpu, uint16_t to, uint64_t epoch);
/* The control thread. */
void coming_heard(struct node *node, uint16_t src, const struct control_coming *word);
/* struct vcpu_ops: looks whether it comes, for a while. */
void coming_look(void *ctx, uint32_t vcpu);
struct coming_stats {
	uint64_t look_count,
		came_count; /* times that a thread looked, and that it came meanwhile */
	uint64_t vain_ns;   /* of looking that was for nothing, the last time left out */
};
void coming_stats(const struct node *node, struct coming_stats *ret_stats);

/* policy.c: who decides about moves (placer.h), and what is said about that. */
int policy_create(struct node *node, char *why, size_t why_size);
int policy_start(struct node *node);
/* To whom vCPUs may go from now on; this node is one of them since just now. */
void policy_members(struct node *node, const struct member_set *members, bool newcomer);
/* A node that joins is told policy and pins. */
void policy_introduce(struct node *node, uint16_t to);
/* What was learned is kept. */
void policy_end(struct node *node);
/* LOAD, OUTCOMES, POLICY, PIN, from the control thread. What is wrong with it, or NULL. */
const char *policy_message(struct node *node, const struct control_message *msg);
/* "", or the name of a policy; "VCPU" to be pinned or no longer; answers as moves_request(). */
char *policy_request(struct node *node, const char *words);
/* The name of one that only rides along, or "none". */
char *policy_shadow_request(struct node *node, const char *words);
char *policy_pin_request(struct node *node, const char *words, bool pinned);
/* torture.c, for tests: where EAGRE_TORTURE_MOVES says so, every vCPU moves, again and again. */
int torture_start(struct node *node);
/* The same at any time: "MICROSECONDS" of a period in which all vCPUs here go; 0: no more. */
char *torture_request(struct node *node, const char *words);
/* "0" or "1": whether the pages of a vCPU that comes are asked for at once; to measure what it brings. */
char *torture_hints_request(struct node *node, const char *words);
/* Where EAGRE_TORTURE_CALL is set, the calling thread makes a system call that no vCPU's makes. */
void torture_call(void);

/* The answer to a user's request, as JSON, malloc'd. */
char *node_answer(bool done, const char *line);
bool node_parse_number(const char *word, uint32_t *ret_number);
/* A vCPU's number as the user wrote it. False: it is none, and *ret_answer says so. */
bool node_parse_vcpu(struct node *node, const char *word, uint32_t *ret_vcpu, char **ret_answer);

/* stats.c */
int stats_create(struct node *node);
/* What has happened in the pod since the last call, likewise (placer_trace()). */
char *stats_trace(struct node *node);
char *stats_end(struct node *node); /* how it has ended: alone ("left"), or with its pod */
char *stats_pod(struct node *node); /* the pod's; asks the others, waits a second at most */
void stats_reply(struct node *node, const struct control_message *msg); /* control thread */

#endif
