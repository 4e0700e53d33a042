/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control messages: everything nodes say to each other that is not about pages.
 *
 * One message is one frame on the control channel of two nodes:
 *
 *      0        4      6        8             12          16
 *      | magic  | type | zero   | payload size | sequence  | payload ...
 *
 * The sequence counts a channel's frames from 0, so that a slip in framing is seen at once. The
 * payload is the type's fixed fields, then its list, text or data, and nothing behind it. A decoded
 * message has been checked wholly: enumerations, ranges, counts, reserved bytes, and the payload's
 * exact size.
 *
 *      who says what           to          answer      meaning
 *      HEARTBEAT               all                     I live
 *      CLOCK_PING              node 0      CLOCK_PONG  what is the pod clock?
 *      INTERRUPT               vCPU's node             IPI or device interrupt for vCPUs of yours
 *      EOI                     node 0                  a vCPU ended a level-triggered interrupt
 *      IO_REQUEST              node 0      IO_REPLY    a vCPU's access to a device
 *      FEATURES                node 0      START       what my host can do; what the guest will see
 *      READY                   node 0      RUN         my vCPUs exist and wait; run them
 *      STATS_REQUEST           any         STATS_REPLY JSON of the node, in parts
 *      MOVE                    any         PLACE       a vCPU leaves me for you: its state
 *                                          or REFUSED  ... which I cannot take: it is yours again
 *      COMING                  any                     a vCPU will be with you in a moment, perhaps
 *      TAKEN                   node 0                  a vCPU has the INIT or SIPI you sent
 *      PLACE                   all                     a vCPU is with me now
 *      MOVE_ASK                vCPU's node MOVE_TOLD   please let a vCPU move
 *      LOAD                    all                     what I can run, and what is awake here
 *      OUTCOMES                all                     what came of thresholds that vCPUs here had
 *      POLICY, PIN             node 0, and from it     the policy of moves is changed; a vCPU is to
 *                              all                     stay where it is, or no longer
 *      PUBLISHED               all         STOPPED     what a virtio device's registers say; I have
 *                                                      let go of what was before its last reset
 *      NEEDS_RESET             node 0                  a driver has broken its device
 *      QUEUE                   any         QUEUE_PLACE a virtio queue is yours, as far as I have come
 *      QUEUE_PLACE             all                     a virtio queue is with me now
 *      DOORBELL                queue's node            a vCPU has rung one
 *      BUTTON                  node 0                  somebody wants the guest to power off
 *      END                     all                     the pod ends: why, with what status
 *      STEP                    all         STEP_DONE   the list of members changes (core/member_list.h)
 *      STEP_OVER               all                     ... and all have done what that asks
 *      WISH                    steward     STEP        I want it changed
 *                                          or WISH_REFUSED  ... which cannot be
 *      JOIN_READY, JOIN_FAILED, DRAINED    steward     about who comes or goes
 *      JOIN_ASK                sponsor     JOIN_TOLD   a stranger with a token asks to join; START and
 *                                                      RUN come before a JOIN_TOLD that lets it in
 *
 * A START that cannot be met is answered with END. The order of a pod's life is FEATURES, START,
 * READY, RUN, END; only HEARTBEAT, CLOCK_*, STATS_* and END come at any time. INTERRUPT, MOVE_ASK and
 * their like go to the node that the sender knows the vCPU to be on, and from there on after it
 * (core/vcpu_place.h); so do DOORBELLs after queues (core/queue_place.h).
 */
#ifndef WIRE_CONTROL_MESSAGE_H
#define WIRE_CONTROL_MESSAGE_H

#include <stddef.h>
#include <stdint.h>

#include "core/limits.h"
#include "core/member_list.h"
#include "core/page_hints.h"
#include "core/placement.h"
#include "vcpu/cpuid.h"
#include "virtio/published.h"
#include "wire/device_info.h"

#define CONTROL_HEADER_BYTES   16u
#define CONTROL_STATS_PART_MAX 65536u	  /* of a node's numbers in one message */
#define CONTROL_STATS_TEXT_MAX (1u << 20) /* of all of them */
/* The shortest frame, and no other is as short: link/tcp_control.c lets nobody be woken by it. */
#define CONTROL_HEARTBEAT_BYTES CONTROL_HEADER_BYTES

#define CONTROL_PAYLOAD_MAX (CONTROL_STATS_PART_MAX + 64u)
#define CONTROL_FRAME_MAX   (CONTROL_HEADER_BYTES + CONTROL_PAYLOAD_MAX)

#define CONTROL_VCPUS_MAX    64u  /* vCPUs named by one INTERRUPT */
#define CONTROL_IO_ITEMS_MAX 256u /* items of one string access; more are several requests */
#define CONTROL_IO_BYTES_MAX (CONTROL_IO_ITEMS_MAX * 8u)
#define CONTROL_TEXT_MAX     512u /* of END, with the terminating NUL */
#define CONTROL_ENGINE_MAX   16u  /* an engine's name, likewise */

enum control_type {
	CONTROL_HEARTBEAT = 1,
	CONTROL_CLOCK_PING = 2,
	CONTROL_CLOCK_PONG = 3,
	CONTROL_INTERRUPT = 4,
	CONTROL_EOI = 5,
	CONTROL_IO_REQUEST = 6,
	CONTROL_IO_REPLY = 7,
	CONTROL_FEATURES = 8,
	CONTROL_START = 9,
	CONTROL_READY = 10,
	CONTROL_RUN = 11,
	CONTROL_STATS_REQUEST = 12,
	CONTROL_STATS_REPLY = 13,
	CONTROL_END = 14,
	CONTROL_MOVE = 15,
	CONTROL_PLACE = 16,
	CONTROL_REFUSED = 17,
	CONTROL_MOVE_ASK = 18,
	CONTROL_MOVE_TOLD = 19,
	CONTROL_TAKEN = 20,
	CONTROL_LOAD = 21,
	CONTROL_POLICY = 22,
	CONTROL_PIN = 23,
	CONTROL_OUTCOMES = 24,
	CONTROL_COMING = 25,
	CONTROL_BUTTON = 26,
	CONTROL_PUBLISHED = 27,
	CONTROL_DOORBELL = 28,
	CONTROL_STOPPED = 29,
	CONTROL_NEEDS_RESET = 30,
	CONTROL_QUEUE = 31,
	CONTROL_QUEUE_PLACE = 32,
	CONTROL_STEP = 33,
	CONTROL_STEP_DONE = 34,
	CONTROL_STEP_OVER = 35,
	CONTROL_WISH = 36,
	CONTROL_WISH_REFUSED = 37,
	CONTROL_JOIN_READY = 38,
	CONTROL_JOIN_FAILED = 39,
	CONTROL_DRAINED = 40,
	CONTROL_JOIN_ASK = 41,
	CONTROL_JOIN_TOLD = 42,
	CONTROL_TYPE_LIMIT,
};

/* Delivery modes have the numbers of the ICR and of IOAPIC entries (SDM vol. 3, 11.6.1). */
enum control_delivery {
	CONTROL_DELIVERY_FIXED = 0,
	CONTROL_DELIVERY_LOWEST = 1, /* the sender has chosen the vCPU; kept for the record */
	CONTROL_DELIVERY_SMI = 2,
	CONTROL_DELIVERY_NMI = 4,
	CONTROL_DELIVERY_INIT = 5,
	CONTROL_DELIVERY_SIPI = 6, /* vector: start page */
	CONTROL_DELIVERY_EXTINT = 7,
};

enum control_io_kind {
	CONTROL_IO_PORT = 0, /* address < 65536; size 1, 2, 4; any count */
	CONTROL_IO_MMIO = 1, /* address < GPA_LIMIT; size 1..8; count 1 */
	/* An INIT or SIPI for a vCPU (core/vcpu_startup.h): address is vCPU, mode, vector; a write
	 * of one byte, which is 0. */
	CONTROL_IO_STARTUP = 2,
};
#define CONTROL_STARTUP_MODE   16 /* at this bit of the address */
#define CONTROL_STARTUP_VECTOR 24

/* Why a pod or its guest ends. */
enum control_end_kind {
	CONTROL_END_POWER_OFF = 0,
	CONTROL_END_RESET = 1,
	CONTROL_END_PANIC = 2,
	CONTROL_END_TRIPLE_FAULT = 3,
	CONTROL_END_ENGINE = 4,	    /* the engine could not go on with a vCPU */
	CONTROL_END_NODE_LOST = 5,  /* `node` died or its link broke */
	CONTROL_END_NODE_ERROR = 6, /* `node` cannot go on */
	CONTROL_END_USER = 7,	    /* somebody ended the pod */
	CONTROL_END_RESTART = 8,    /* the guest reboots: all nodes begin anew */
	CONTROL_END_KIND_LIMIT,
};

struct control_button {
	uint64_t count; /* of this sender, from 1 */
};

/* Times in ns. `sent_ns` is the asker's clock, given back; the others are the pod clock at the
 * answerer. */
struct control_clock_ping {
	uint64_t id;
	uint64_t sent_ns;
};
struct control_clock_pong {
	uint64_t id;
	uint64_t sent_ns;
	uint64_t peer_received_ns, peer_sent_ns; /* received <= sent */
};

struct control_interrupt {
	uint8_t delivery; /* enum control_delivery */
	uint8_t vector;
	uint8_t level;	     /* 1: level-triggered (sets TMR), 0: edge */
	uint16_t from_vcpu;  /* NODE_NONE: from a device */
	uint16_t vcpu_count; /* 1..CONTROL_VCPUS_MAX */
	uint16_t vcpu[CONTROL_VCPUS_MAX];
};

struct control_eoi {
	uint16_t vcpu;
	uint8_t vector;
};

/* Device below VIRTIO_DEVICES_MAX, queue below VIRTIO_QUEUES_MAX, epoch to QUEUE_EPOCH_MAX. */
struct control_stopped {
	uint8_t device;
	uint64_t generation;
};
struct control_queue {
	uint8_t device;
	uint16_t queue;
	uint64_t generation, epoch;
	uint16_t avail_index, used_index, told_index; /* struct virtio_queue_state */
};
struct control_queue_place {
	uint8_t device;
	uint16_t queue;
	uint64_t generation, epoch;
};
struct control_doorbell {
	uint8_t device;
	uint16_t queue; /* below VIRTIO_QUEUES_MAX */
};

/* data: count * size bytes; of a request only when it writes, of a reply only when that did not
 * write. */
struct control_io_request {
	uint64_t id; /* unique for the sending node while outstanding */
	uint64_t address;
	uint16_t vcpu;
	uint8_t kind; /* enum control_io_kind */
	uint8_t size;
	uint8_t write;
	uint16_t count; /* 1..CONTROL_IO_ITEMS_MAX */
	uint8_t data[CONTROL_IO_BYTES_MAX];
};
struct control_io_reply {
	uint64_t id;
	uint16_t vcpu;
	uint8_t size;
	uint16_t count; /* 0 for the reply to a write */
	uint8_t data[CONTROL_IO_BYTES_MAX];
};

#define CONTROL_TSC_MARGIN_MAX 10000u /* ppm */

/* What a node's probe found (struct engine_features), and what it promises. */
struct control_features {
	char engine[CONTROL_ENGINE_MAX];		/* engine_ops.name */
	uint64_t capacity_pages;			/* promised */
	uint32_t tsc_khz;				/* of the host */
	uint16_t vcpu_count;				/* that the node is ready to run */
	uint8_t tsc_deadline, tsc_scaling, walks_write; /* 0 or 1 */
	uint32_t tsc_margin_ppm;
	struct cpuid_set offer; /* sorted by function and index, without doubles; at least one */
	struct device_list devices; /* that the node has */
};

struct control_start {
	uint64_t memory_bytes; /* of the guest */
	uint64_t epoch_ns;     /* pod clock when the guest's TSC is 0 */
	uint32_t tsc_khz; /* of the guest's TSC: ticks = (pod clock - epoch_ns) * tsc_khz / 10^6 */
	uint16_t vcpu_count;	    /* of the pod */
	uint8_t tsc_deadline;	    /* the guest may use the TSC-deadline timer */
	uint8_t walks_write;	    /* some node's guest page walks count as writes */
	struct cpuid_set cpuid;	    /* of the pod (cpuid_finish()) */
	struct device_list devices; /* of the pod */
};

struct control_ready {
	uint64_t clock_error_ns; /* bound of this node's pod clock error */
};

struct control_run {
	uint64_t start_ns; /* pod clock; vCPUs may run from now on */
	uint64_t entry;	   /* where vCPU 0 begins (loader_first()) */
};

enum control_stats_what {
	CONTROL_STATS_NUMBERS = 0,
	CONTROL_STATS_TRACE = 1, /* what has happened since the last such request, or from now on */
	CONTROL_STATS_WHAT_LIMIT,
};
struct control_stats_request {
	uint64_t id;
	uint64_t what; /* enum control_stats_what */
};

/*
 * A part of a JSON text, not NUL-terminated; the parts come in order. Encoding reads the text,
 * decoding leaves it pointing into the input.
 */
struct control_stats_reply {
	uint64_t id;
	uint32_t offset; /* of the part in the whole */
	uint32_t total;	 /* of the whole, at least offset + text_size; to CONTROL_STATS_TEXT_MAX */
	uint32_t text_size; /* 1..CONTROL_STATS_PART_MAX */
	const char *text;
};

/*
 * Decoding leaves the image pointing into the input, and does not look into it (wire/vcpu_image.h).
 * The vCPU's clocks must not show less at the target than these: pod clock, and guest TSC without
 * TSC_ADJUST.
 */
struct control_move {
	uint16_t vcpu;
	uint16_t image_size; /* 1..VCPU_IMAGE_BYTES_MAX */
	uint64_t epoch;	     /* that it has at the target */
	uint64_t clock_ns, guest_tsc;
	uint64_t decided_ns; /* pod clock: when somebody wanted it to move, for the statistics */
	const uint8_t *image;
	const uint8_t *carry; /* PLACEMENT_CARRY_BYTES for the policy there, or NULL; likewise */
	const uint8_t *hints; /* pages that it will want (core/page_hints.h); likewise */
	uint16_t hints_size;  /* 0..PAGE_HINTS_BYTES_MAX */
};

struct control_place {
	uint16_t vcpu;
	uint64_t epoch;
};

struct control_refused {
	uint16_t vcpu;
	uint64_t epoch; /* that it has back at the source */
};

/* A word ahead of MOVE, which may not come. */
struct control_coming {
	uint16_t vcpu;
	uint64_t epoch; /* that it would have at the target */
};

struct control_taken {
	uint16_t vcpu;
};

enum control_move_result {
	CONTROL_MOVE_DONE = 0,
	CONTROL_MOVE_THERE = 1,	  /* it was on that node already */
	CONTROL_MOVE_BUSY = 2,	  /* it is moving, or has been asked to */
	CONTROL_MOVE_NO = 3,	  /* its state cannot be saved where it is */
	CONTROL_MOVE_REFUSED = 4, /* the target cannot take it */
	CONTROL_MOVE_RESULT_LIMIT,
};

struct control_move_ask {
	uint64_t id; /* the asker's, for the answer */
	uint16_t vcpu, to;
	uint16_t asker; /* gets the answer */
};
struct control_move_told {
	uint64_t id;
	uint16_t vcpu;
	uint8_t result; /* enum control_move_result */
};

struct control_load {
	uint16_t cores; /* that the node has for vCPUs; 0: it takes none */
	uint16_t awake; /* of the vCPUs there; to VCPUS_MAX */
};
struct control_outcomes {
	uint16_t count; /* 1..PLACEMENT_OUTCOMES */
	struct placement_outcome outcome[PLACEMENT_OUTCOMES];
};
struct control_policy {
	uint8_t policy; /* enum placement_policy; of a shadow PLACEMENT_POLICIES: none */
	uint8_t shadow; /* 1: that rides along; 0: that moves vCPUs */
};
struct control_pin {
	uint16_t vcpu;
	uint8_t pinned; /* 0 or 1 */
};

/*
 * Of STEP to DRAINED: struct member_word, of which each says what enum member_word_type names, and
 * the rest is 0; a wish to JOIN names no node. member.type is the message's. Nodes are below
 * NODES_MAX; a wisher's id is not 0. A step that nobody has wished is ACTIVE, GONE or FREE, has
 * NODE_NONE as `by` and no id; GONE and FREE were never wished. `why` is 0, or as low as
 * -CONTROL_MEMBER_WHY_MAX: of WISH_REFUSED and JOIN_FAILED never 0, of GONE perhaps, else always.
 * Who joins has a name that is not empty; both texts are valid (wire/text.h).
 */
#define CONTROL_MEMBER_WHY_MAX 4095 /* as Linux has it of its own */
/* The message that says the word. */
uint8_t control_member_type(enum member_word_type type);

/* What a host offers that has shown a join token. The token's own fields of `about` are not its to say: 0. */
struct control_join_ask {
	struct member_about about;
	struct control_features features; /* as FEATURES; no vCPUs, no devices */
};

#define CONTROL_SECRET_MAX	128u
#define CONTROL_JOIN_CONFIG_MAX 49152u

/*
 * Refused: `why` is not empty, and the rest is nothing. Or let in: the number that it joins as, the
 * pod's secret, its configuration as text (lines), and the list of members, in which it is JOINING by
 * the last step. Decoding leaves the three pointing into the input.
 */
struct control_join_told {
	char why[CONTROL_TEXT_MAX];
	uint16_t number;
	uint16_t secret_size; /* 1..CONTROL_SECRET_MAX */
	const uint8_t *secret;
	uint32_t config_size; /* 1..CONTROL_JOIN_CONFIG_MAX */
	const char *config;   /* not NUL-terminated */
	uint32_t list_size;
	const uint8_t *list; /* control_list_encode() */
};

/* Never fails but for room: -EMSGSIZE. The bytes that it takes. */
int control_list_encode(const struct member_snapshot *list, uint8_t *out, size_t size);
/* 0 or -EPROTO. Of ret_list, which may be NULL, all is set. What it means is member_list_init_joiner()'s. */
int control_list_decode(const uint8_t *in, size_t size, struct member_snapshot *ret_list);

/* Fields that say nothing are NODE_NONE (node, vcpu) or 0. */
struct control_end {
	uint8_t kind;	/* enum control_end_kind */
	uint8_t status; /* exit status of the whole */
	uint16_t node;	/* which the reason is about */
	uint16_t vcpu;
	uint64_t rip;
	char text[CONTROL_TEXT_MAX]; /* one line for the user; printable ASCII and UTF-8, no control
					characters */
};

struct control_message {
	uint8_t type; /* enum control_type: which of the union */
	uint16_t src; /* set by the channel on arrival; not on the wire */
	union {
		struct control_button button;
		struct control_clock_ping clock_ping;
		struct control_clock_pong clock_pong;
		struct control_interrupt interrupt;
		struct control_eoi eoi;
		struct virtio_published published;
		struct control_stopped stopped; /* of NEEDS_RESET, too */
		struct control_queue queue;
		struct control_queue_place queue_place;
		struct control_doorbell doorbell;
		struct control_io_request io_request;
		struct control_io_reply io_reply;
		struct control_features features;
		struct control_start start;
		struct control_ready ready;
		struct control_run run;
		struct control_stats_request stats_request;
		struct control_stats_reply stats_reply;
		struct control_end end;
		struct control_move move;
		struct control_place place;
		struct control_refused refused;
		struct control_coming coming;
		struct control_move_ask move_ask;
		struct control_move_told move_told;
		struct control_taken taken;
		struct control_load load;
		struct control_outcomes outcomes;
		struct control_policy policy;
		struct control_pin pin;
		struct member_word member; /* of STEP to DRAINED */
		struct control_join_ask join_ask;
		struct control_join_told join_told;
	};
};

struct control_header {
	uint16_t type;
	uint32_t payload_size;
	uint32_t sequence;
};

/*
 * Writes header and payload to out, which has `size` bytes. Returns the frame's size; -EINVAL: the
 * message breaks a rule above (our own bug); -EMSGSIZE: out is too small (CONTROL_FRAME_MAX never
 * is).
 */
int control_message_encode(const struct control_message *msg, uint32_t sequence, uint8_t *out,
			   size_t size);

/* Checks the first CONTROL_HEADER_BYTES of a frame. 0, or -EPROTO. */
int control_header_decode(const uint8_t in[CONTROL_HEADER_BYTES],
			  struct control_header *ret_header);

/*
 * The payload of a frame whose header said `type`. 0, or -EPROTO; ret_msg is then undefined.
 * ret_msg->src is 0. Only what the type has is written.
 */
int control_message_decode(uint16_t type, const uint8_t *payload, size_t size,
			   struct control_message *ret_msg);

/* "HEARTBEAT"...; "?" for an unknown type. */
const char *control_type_name(uint8_t type);

#endif
