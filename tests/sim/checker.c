/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The judge: see checker.h.
 *
 * Per page it keeps the content that the last write left, how many nodes may read it and how many
 * may write it. The invariant is judged at every single change of access, not at the end of an
 * input: writers <= 1, and writers == 1 means no reader elsewhere. Since content only changes by
 * writes of the one writer, a copy that equals the last write when it is installed stays equal
 * until somebody writes. A page that is being freed may lose its content once: that is seen when it
 * comes back as a zero page, while nobody has it, or at the latest when it is said to be free.
 *
 * Tested by test_checker.c (every rule is broken once by hand) and by the broken variants of the
 * core.
 */
#include "tests/sim/checker.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/limits.h"

struct page {
	struct content latest;
	uint16_t readers, writers; /* nodes with COH_READ, with COH_WRITE */
	bool freeing;		   /* between checker_free_begin() and its end */
	bool may_vanish;	   /* it has not yet been seen to be zero since */
};

struct actor {
	uint32_t node, page;
	uint64_t stalled_ns, begun_ns;
	enum coh_access want;
	enum coh_access pin_access;
	uint32_t pin_node, pin_page;
	uint32_t next_stalled; /* of the same node; index + 1 */
	bool stalled, running, pinned;
};

struct node {
	uint32_t resident[SHARDS_MAX];
	uint32_t capacity[SHARDS_MAX];
	uint32_t first_stalled; /* actor + 1 */
	uint32_t pin_count;
};

struct checker {
	struct checker_config config;
	struct verdict verdict;
	struct page *page;
	struct node *node;
	struct actor *actor;
	uint8_t *access; /* [node * page_count + page] */
	uint64_t longest_stall_ns, longest_instruction_ns;
};

const char *rule_name(enum rule rule)
{
	static const char *const name[RULE_COUNT] = {
		[RULE_NONE] = "none",
		[RULE_SINGLE_WRITER] = "single-writer",
		[RULE_STALE_READ] = "stale-read",
		[RULE_LOST_WRITE] = "lost-write",
		[RULE_LOST_PAGE] = "lost-page",
		[RULE_CAPACITY] = "capacity",
		[RULE_STALL_BOUND] = "stall-bound",
		[RULE_PROGRESS_BOUND] = "progress-bound",
		[RULE_WAKE_FORGOTTEN] = "wake-forgotten",
		[RULE_PIN_BROKEN] = "pin-broken",
		[RULE_RELEASE] = "release",
		[RULE_QUIESCENCE] = "quiescence",
		[RULE_ACTIONS] = "actions",
		[RULE_ERROR] = "error",
		[RULE_ACCOUNT] = "account",
		[RULE_PUSHES] = "pushes",
		[RULE_FREED] = "freed",
		[RULE_STRANGER] = "stranger",
		[RULE_REGISTRAR] = "registrar",
	};

	return name[rule];
}

struct checker *checker_create(const struct checker_config *config)
{
	struct checker *checker = calloc(1, sizeof(*checker));

	if (!checker)
		return NULL;
	checker->config = *config;
	checker->page = calloc(config->page_count, sizeof(*checker->page));
	checker->node = calloc(config->node_count, sizeof(*checker->node));
	checker->actor = calloc(config->actor_count, sizeof(*checker->actor));
	checker->access = calloc((size_t)config->node_count * config->page_count, 1);
	if (!checker->page || !checker->node || !checker->actor || !checker->access) {
		checker_destroy(checker);
		return NULL;
	}
	return checker;
}

void checker_destroy(struct checker *checker)
{
	if (!checker)
		return;
	free(checker->page);
	free(checker->node);
	free(checker->actor);
	free(checker->access);
	free(checker);
}

const struct verdict *checker_verdict(const struct checker *checker)
{
	return &checker->verdict;
}

void checker_set_capacity(struct checker *checker, uint32_t node, uint32_t shard, uint32_t pages)
{
	checker->node[node].capacity[shard] = pages;
}

void checker_fail(struct checker *checker, enum rule rule, uint32_t node, uint32_t page,
		  uint64_t now_ns, const char *format, ...)
{
	struct verdict *verdict = &checker->verdict;
	va_list args;

	if (verdict->rule != RULE_NONE)
		return;
	verdict->rule = rule;
	verdict->node = node;
	verdict->page = page;
	verdict->at_ns = now_ns;
	va_start(args, format);
	vsnprintf(verdict->text, sizeof(verdict->text), format, args);
	va_end(args);
}

static uint8_t *access_of(struct checker *checker, uint32_t node, uint32_t page)
{
	return &checker->access[(size_t)node * checker->config.page_count + page];
}

static bool same_content(const struct content *a, const struct content *b)
{
	return a->version == b->version && a->writer == b->writer && a->sum == b->sum &&
	       a->stamp == b->stamp;
}

static void judge_pins(struct checker *checker, uint32_t node, uint32_t page,
		       enum coh_access access, uint64_t now_ns)
{
	for (uint32_t i = 0; i < checker->config.actor_count; i++) {
		const struct actor *actor = &checker->actor[i];

		if (actor->pinned && actor->pin_node == node && actor->pin_page == page &&
		    access < actor->pin_access)
			checker_fail(checker, RULE_PIN_BROKEN, node, page, now_ns,
				     "actor %u has pinned it with access %d, it falls to %d", i,
				     actor->pin_access, access);
	}
}

static void judge_resident(struct checker *checker, uint32_t node, uint32_t shard, uint32_t page,
			   uint64_t now_ns)
{
	const struct node *n = &checker->node[node];

	if (n->resident[shard] > n->capacity[shard])
		checker_fail(checker, RULE_CAPACITY, node, page, now_ns,
			     "%u pages resident, %u promised (shard %u)", n->resident[shard],
			     n->capacity[shard], shard);
}

static void vanish(struct page *p)
{
	p->latest = (struct content){ 0 };
	p->may_vanish = false;
}

void checker_free_begin(struct checker *checker, uint32_t page)
{
	checker->page[page].freeing = checker->page[page].may_vanish = true;
}

void checker_free_end(struct checker *checker, uint32_t node, uint32_t page, bool freed,
		      uint64_t now_ns)
{
	struct page *p = &checker->page[page];

	if (freed && p->may_vanish && p->latest.version && p->readers + p->writers)
		checker_fail(checker, RULE_FREED, node, page, now_ns,
			     "said to be free, and %u nodes have version %u of actor %u",
			     p->readers + p->writers, p->latest.version, p->latest.writer);
	if (!freed && !p->may_vanish)
		checker_fail(checker, RULE_FREED, node, page, now_ns,
			     "said to have stayed, and its content is gone");
	if (freed && p->may_vanish && p->latest.version)
		vanish(p);
	p->freeing = p->may_vanish = false;
}

void checker_access(struct checker *checker, uint32_t node, uint32_t shard, uint32_t page,
		    enum coh_access access, const struct content *content, uint64_t now_ns)
{
	struct page *p = &checker->page[page];
	uint8_t *held = access_of(checker, node, page);

	p->readers -= *held == COH_READ;
	p->writers -= *held == COH_WRITE;
	p->readers += access == COH_READ;
	p->writers += access == COH_WRITE;
	checker->node[node].resident[shard] -= *held != COH_NONE;
	checker->node[node].resident[shard] += access != COH_NONE;
	if (access < *held && checker->node[node].pin_count)
		judge_pins(checker, node, page, access, now_ns);
	*held = (uint8_t)access;
	if (p->writers > 1 || (p->writers == 1 && p->readers > 0))
		checker_fail(checker, RULE_SINGLE_WRITER, node, page, now_ns,
			     "access becomes %d: now %u nodes may write it and %u others read it",
			     access, p->writers, p->readers);
	if (access != COH_NONE && p->may_vanish && !content->version && p->latest.version &&
	    p->readers + p->writers == 1)
		vanish(p);
	if (access != COH_NONE && !same_content(content, &p->latest))
		checker_fail(checker, RULE_STALE_READ, node, page, now_ns,
			     "mapped with version %u of actor %u, the last is %u of actor %u",
			     content->version, content->writer, p->latest.version,
			     p->latest.writer);
	judge_resident(checker, node, shard, page, now_ns);
}

void checker_read(struct checker *checker, uint32_t node, uint32_t page,
		  const struct content *before, uint64_t now_ns)
{
	const struct page *p = &checker->page[page];

	if (*access_of(checker, node, page) < COH_READ)
		checker_fail(checker, RULE_ACTIONS, node, page, now_ns, "read without access");
	if (!same_content(before, &p->latest))
		checker_fail(checker, RULE_STALE_READ, node, page, now_ns,
			     "read version %u of actor %u, the last is %u of actor %u",
			     before->version, before->writer, p->latest.version, p->latest.writer);
}

void checker_write(struct checker *checker, uint32_t node, uint32_t page,
		   const struct content *before, const struct content *after, bool increment,
		   uint64_t now_ns)
{
	struct page *p = &checker->page[page];
	uint32_t sum = p->latest.sum + (increment ? 1 : 0);

	if (*access_of(checker, node, page) < COH_WRITE)
		checker_fail(checker, RULE_ACTIONS, node, page, now_ns, "write without access");
	if (!same_content(before, &p->latest))
		checker_fail(checker, RULE_LOST_WRITE, node, page, now_ns,
			     "written over version %u of actor %u, the last is %u of actor %u",
			     before->version, before->writer, p->latest.version, p->latest.writer);
	if (after->version != p->latest.version + 1 || after->sum != sum)
		checker_fail(checker, RULE_LOST_WRITE, node, page, now_ns,
			     "version %u sum %u written, expected %u and %u", after->version,
			     after->sum, p->latest.version + 1, sum);
	p->latest = *after;
}

void checker_stall(struct checker *checker, uint32_t actor, uint32_t node, uint32_t page,
		   enum coh_access want, uint64_t now_ns)
{
	struct actor *a = &checker->actor[actor];

	a->node = node;
	a->page = page;
	a->want = want;
	a->stalled = true;
	a->stalled_ns = now_ns;
	a->next_stalled = checker->node[node].first_stalled;
	checker->node[node].first_stalled = actor + 1;
}

void checker_wake(struct checker *checker, uint32_t actor, uint64_t now_ns)
{
	struct actor *a = &checker->actor[actor];
	uint32_t *link = &checker->node[a->node].first_stalled;

	while (*link != actor + 1)
		link = &checker->actor[*link - 1].next_stalled;
	*link = a->next_stalled;
	a->stalled = false;
	if (now_ns - a->stalled_ns > checker->longest_stall_ns)
		checker->longest_stall_ns = now_ns - a->stalled_ns;
}

void checker_begin(struct checker *checker, uint32_t actor, uint64_t now_ns)
{
	checker->actor[actor].running = true;
	checker->actor[actor].begun_ns = now_ns;
}

void checker_complete(struct checker *checker, uint32_t actor, uint64_t now_ns)
{
	struct actor *a = &checker->actor[actor];

	a->running = false;
	if (now_ns - a->begun_ns > checker->longest_instruction_ns)
		checker->longest_instruction_ns = now_ns - a->begun_ns;
}

void checker_pinned(struct checker *checker, uint32_t actor, uint32_t node, uint32_t page,
		    enum coh_access access, uint64_t now_ns)
{
	struct actor *a = &checker->actor[actor];

	if (*access_of(checker, node, page) < access)
		checker_fail(checker, RULE_PIN_BROKEN, node, page, now_ns,
			     "actor %u has its pin, but access is only %d", actor,
			     *access_of(checker, node, page));
	a->pinned = true;
	a->pin_node = node;
	a->pin_page = page;
	a->pin_access = access;
	checker->node[node].pin_count++;
}

void checker_unpinned(struct checker *checker, uint32_t actor)
{
	struct actor *a = &checker->actor[actor];

	a->pinned = false;
	checker->node[a->pin_node].pin_count--;
}

void checker_after_input(struct checker *checker, uint32_t node, uint64_t now_ns)
{
	uint32_t next = checker->node[node].first_stalled;

	while (next) {
		const struct actor *a = &checker->actor[next - 1];

		if (*access_of(checker, node, a->page) >= (uint8_t)a->want)
			checker_fail(checker, RULE_WAKE_FORGOTTEN, node, a->page, now_ns,
				     "actor %u waits for access %d, which is there", next - 1,
				     a->want);
		next = a->next_stalled;
	}
}

void checker_time(struct checker *checker, uint64_t now_ns)
{
	for (uint32_t i = 0; i < checker->config.actor_count; i++) {
		const struct actor *a = &checker->actor[i];

		if (a->stalled && now_ns - a->stalled_ns > checker->config.stall_bound_ns)
			checker_fail(checker, RULE_STALL_BOUND, a->node, a->page, now_ns,
				     "actor %u waits for access %d since %" PRIu64
				     " ns; the bound is %" PRIu64,
				     i, a->want, now_ns - a->stalled_ns,
				     checker->config.stall_bound_ns);
		if (a->running && now_ns - a->begun_ns > checker->config.progress_bound_ns)
			checker_fail(checker, RULE_PROGRESS_BOUND, a->node, a->page, now_ns,
				     "actor %u is at one instruction since %" PRIu64
				     " ns; the bound is %" PRIu64,
				     i, now_ns - a->begun_ns, checker->config.progress_bound_ns);
	}
}

void checker_still(struct checker *checker, uint64_t now_ns)
{
	for (uint32_t i = 0; i < checker->config.page_count; i++) {
		const struct page *p = &checker->page[i];

		if (p->freeing)
			checker_fail(
				checker, RULE_FREED, 0, i, now_ns,
				"nothing happens any more, and nobody said whether it is free");
		if (p->latest.version && !p->readers && !p->writers)
			checker_fail(checker, RULE_LOST_PAGE, 0, i, now_ns,
				     "version %u of actor %u is nowhere", p->latest.version,
				     p->latest.writer);
	}
	for (uint32_t i = 0; i < checker->config.actor_count; i++) {
		const struct actor *a = &checker->actor[i];

		if (a->stalled)
			checker_fail(checker, RULE_STALL_BOUND, a->node, a->page, now_ns,
				     "nothing happens any more; actor %u waits for access %d "
				     "since %" PRIu64 " ns",
				     i, a->want, now_ns - a->stalled_ns);
	}
}

uint64_t checker_longest_stall_ns(const struct checker *checker)
{
	return checker->longest_stall_ns;
}

uint64_t checker_longest_instruction_ns(const struct checker *checker)
{
	return checker->longest_instruction_ns;
}

uint32_t checker_resident(const struct checker *checker, uint32_t node, uint32_t shard)
{
	return checker->node[node].resident[shard];
}

uint32_t checker_written(const struct checker *checker, uint32_t page)
{
	return checker->page[page].latest.version;
}
