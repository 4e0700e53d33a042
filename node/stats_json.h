/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node's numbers as JSON text, and that text in parts that control messages can carry.
 *
 * Pure: everything is in the arguments.
 */
#ifndef NODE_STATS_JSON_H
#define NODE_STATS_JSON_H

#include "pager/pager.h"
#include "node/io_stats.h"
#include "node/placer.h"
#include "node/vcpu.h"
#include "wire/control_message.h"

#define STATS_HOT_PAGES 32
#define STATS_RECORDS	64 /* moves that the policy wanted of late */
#define STATS_CHOICES	32 /* thresholds that it chose */

/* A seat, and the vCPU if it is there. */
struct stats_vcpu {
	uint32_t number;
	bool here;
	uint64_t moves;	      /* how often it has moved */
	uint64_t image_bytes; /* of the image it last came here with */
	uint64_t stalls, stalled_ns;
	uint64_t cpu_ns, core_wait_ns; /* of the seat's thread: on a core, and ready to be */
	bool pinned;
	struct vcpu_stats stats;
};

/* Of virtio devices' queues (queues.c). */
struct queues_counts {
	uint64_t doorbells;	 /* that vCPUs here have rung; those that were accesses left out */
	uint64_t doorbells_sent; /* of them, as messages */
	uint64_t doorbells_sent_on; /* others', that came after their queues had gone */
	uint64_t given, taken;	    /* queues */
};

struct stats_node {
	uint32_t number;
	const char *name, *address, *engine;
	uint64_t promised_bytes;
	uint64_t time_ns; /* pod clock: when this was counted */
	uint64_t step;	  /* of the list of members, as the node knows it */
	const char *steward;
	struct pager_stats pager;
	uint64_t clock_error_ns;
	int64_t tsc_error_ns;
	uint64_t tsc_bound_ns;
	struct tsc_line tsc; /* what the guest's is made of */
	uint32_t tsc_khz;
	struct pager_hot_page hot[STATS_HOT_PAGES];
	uint32_t hot_count;
	struct placer_stats placer;
	struct queues_counts queues;
	uint32_t record_count;
	struct placement_record record[STATS_RECORDS]; /* newest first */
	uint32_t choice_count;
	struct placement_record choice[STATS_CHOICES]; /* likewise */
	uint32_t shadow_count, shadow_choice_count;
	struct placement_record shadow[STATS_RECORDS]; /* likewise, of a policy that rides along */
	struct placement_record shadow_choice[STATS_CHOICES];
	struct io_thread_stats io;
	uint32_t vcpu_count, seat_count;
	const struct stats_vcpu *seat; /* seat_count of them, vcpu_count with a vCPU */
};

/* One JSON object, ASCII, malloc'd; at most CONTROL_STATS_TEXT_MAX bytes. NULL: no memory. */
char *stats_json(const struct stats_node *node);

/* The part of the text that begins at offset < size, as long as one message carries. */
void stats_part(const char *text, uint32_t size, uint32_t offset, struct control_stats_reply *part);

/* A text that comes in parts. All zero: nothing came yet. */
struct stats_text {
	char *text; /* `total` bytes, no NUL */
	uint32_t have, total;
};

/*
 * The next part, of a valid message. 1: the text is whole; 0: more must come; -EPROTO: it does not
 * go on where the last one ended; -ENOMEM.
 */
int stats_text_add(struct stats_text *text, const struct control_stats_reply *part);
void stats_text_free(struct stats_text *text); /* and all zero again */

#endif
