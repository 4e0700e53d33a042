/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The judge of the simulator. It shares no code with the core and does not look into it: it is told
 * what happened to the memory of every node, in the order in which it happened (virtual time is
 * total), and keeps its own account of what every page must contain.
 *
 *      node's memory: access changes ---+
 *      content that is installed -------+--> struct checker --> the first verdict, with its rule
 *      reads, writes of instructions ---+
 *      stalls, pins, wakes -------------+
 *
 * The first offence counts; what comes after it is not judged any more. Pages are numbered densely
 * from 0 (the caller maps guest page numbers). One thread.
 */
#ifndef TESTS_SIM_CHECKER_H
#define TESTS_SIM_CHECKER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/coherence.h" /* enum coh_access, and nothing else */

enum rule {
	RULE_NONE,
	RULE_SINGLE_WRITER,  /* a writable copy and any other copy exist at the same instant */
	RULE_STALE_READ,     /* a read did not see the last write */
	RULE_LOST_WRITE,     /* a write (or an atomic increment) was made on old content */
	RULE_LOST_PAGE,	     /* content is gone: nobody has a page that was written */
	RULE_CAPACITY,	     /* more pages resident than promised */
	RULE_STALL_BOUND,    /* a request was not granted in time */
	RULE_PROGRESS_BOUND, /* an instruction did not complete in time */
	RULE_WAKE_FORGOTTEN, /* the page is there and who waits for it was not told */
	RULE_PIN_BROKEN,     /* a pinned page was taken */
	RULE_RELEASE,	     /* a node that left still holds pages, or never gets rid of them */
	RULE_QUIESCENCE,     /* nobody wants anything, and it does not become still */
	RULE_ACTIONS,	     /* an action that cannot be carried out, or more than fit */
	RULE_ERROR,	     /* the core refused a correct input */
	RULE_ACCOUNT,	     /* what the core says of itself is not what is so */
	RULE_PUSHES,	     /* more pages were pushed than came: nodes trade them back and forth */
	RULE_FREED,	     /* a page is said to be untouched and is not, or the other way round */
	RULE_STRANGER,	     /* a message to, of, or about who is not in the pod */
	RULE_REGISTRAR,	     /* two answer for a chunk, or none */
	RULE_COUNT,
};

const char *rule_name(enum rule rule);

/* A page's content: who wrote last, how often it was written, and the sum of atomic increments. */
struct content {
	uint32_t version; /* 0: never written, a zero page */
	uint32_t writer;
	uint32_t sum;
	uint64_t stamp; /* no two writes have the same: versions begin anew when a page is freed */
};

struct verdict {
	enum rule rule; /* RULE_NONE: nothing to object to */
	uint64_t at_ns;
	uint32_t node;
	uint32_t page;
	char text[200];
};

struct checker_config {
	uint32_t node_count;
	uint32_t actor_count; /* in all nodes together */
	uint32_t page_count;
	uint64_t stall_bound_ns;    /* from a stall to its wake */
	uint64_t progress_bound_ns; /* from an instruction's first try to its end */
};

struct checker;

/* Returns NULL when memory is short. */
struct checker *checker_create(const struct checker_config *config);
void checker_destroy(struct checker *checker);
const struct verdict *checker_verdict(const struct checker *checker);

/* How many pages `node` may have in its memory at once (in each of its shards: `shard` 0..). */
void checker_set_capacity(struct checker *checker, uint32_t node, uint32_t shard, uint32_t pages);

/* Anything else that is wrong, found by the caller. */
void checker_fail(struct checker *checker, enum rule rule, uint32_t node, uint32_t page,
		  uint64_t now_ns, const char *format, ...) __attribute__((format(printf, 6, 7)));

/* The access of `node`'s memory to a page changed. `content` is what is there now (unless
 * COH_NONE). */
void checker_access(struct checker *checker, uint32_t node, uint32_t shard, uint32_t page,
		    enum coh_access access, const struct content *content, uint64_t now_ns);

/* An instruction of `node` read, or wrote, a page. `before` is what its memory had there. */
void checker_read(struct checker *checker, uint32_t node, uint32_t page,
		  const struct content *before, uint64_t now_ns);
void checker_write(struct checker *checker, uint32_t node, uint32_t page,
		   const struct content *before, const struct content *after, bool increment,
		   uint64_t now_ns);

/*
 * The page, which has been written, is needed no more: it may become zero once, until the end. There, `freed` says
 * whether it has. One at a time of a page.
 */
void checker_free_begin(struct checker *checker, uint32_t page);
void checker_free_end(struct checker *checker, uint32_t node, uint32_t page, bool freed,
		      uint64_t now_ns);

/* Actor (numbered over the whole pod) waits for a page; it was told that the page is there. */
void checker_stall(struct checker *checker, uint32_t actor, uint32_t node, uint32_t page,
		   enum coh_access want, uint64_t now_ns);
void checker_wake(struct checker *checker, uint32_t actor, uint64_t now_ns);

/* Actor begins, or has completed, an instruction. */
void checker_begin(struct checker *checker, uint32_t actor, uint64_t now_ns);
void checker_complete(struct checker *checker, uint32_t actor, uint64_t now_ns);

/* A pin is complete: until the unpin, `node` has at least `access`. One pin an actor. */
void checker_pinned(struct checker *checker, uint32_t actor, uint32_t node, uint32_t page,
		    enum coh_access access, uint64_t now_ns);
void checker_unpinned(struct checker *checker, uint32_t actor);

/* After an input to `node` was handled: did it forget a wake? */
void checker_after_input(struct checker *checker, uint32_t node, uint64_t now_ns);

/* Are there stalls, or instructions, that are overdue now? Cheap enough for every few events. */
void checker_time(struct checker *checker, uint64_t now_ns);

/* All is still: is every page that was written still somewhere, as it was written? */
void checker_still(struct checker *checker, uint64_t now_ns);

/* For those who ask how near the bounds are. */
uint64_t checker_longest_stall_ns(const struct checker *checker);
uint64_t checker_longest_instruction_ns(const struct checker *checker);
uint32_t checker_resident(const struct checker *checker, uint32_t node, uint32_t shard);
uint32_t checker_written(const struct checker *checker, uint32_t page);

#endif
