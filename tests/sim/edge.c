/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node's edge: gives its core one input at a time and carries out the actions in their order,
 * before anything else happens, as the contract in core/coherence.h demands of every caller. What
 * cannot be carried out (a page is sent that is not there, or that a vCPU may still write) is a
 * verdict.
 */
#include "tests/sim/world.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static const char *message_name(uint8_t type)
{
	static const char *const name[COH_MSG_TYPES] = {
		[COH_HOME_GET] = "HOME_GET",
		[COH_HOME_IS] = "HOME_IS",
		[COH_NOT_HOME] = "NOT_HOME",
		[COH_READ_REQ] = "READ_REQ",
		[COH_WRITE_REQ] = "WRITE_REQ",
		[COH_FWD_READ] = "FWD_READ",
		[COH_FWD_WRITE] = "FWD_WRITE",
		[COH_INVALIDATE] = "INVALIDATE",
		[COH_INVALIDATE_ACK] = "INVALIDATE_ACK",
		[COH_GRANT_READ] = "GRANT_READ",
		[COH_GRANT_WRITE] = "GRANT_WRITE",
		[COH_GRANT_NONE] = "GRANT_NONE",
		[COH_DONE] = "DONE",
		[COH_NUDGE] = "NUDGE",
		[COH_HURRY] = "HURRY",
		[COH_PUSH_REQ] = "PUSH_REQ",
		[COH_PUSH_GO] = "PUSH_GO",
		[COH_PUSH_NO] = "PUSH_NO",
		[COH_PUSH_DATA] = "PUSH_DATA",
		[COH_ROOM_GET] = "ROOM_GET",
		[COH_ROOM_IS] = "ROOM_IS",
		[COH_ROOM_PUT] = "ROOM_PUT",
		[COH_HOME_MOVE] = "HOME_MOVE",
		[COH_HOME_SET] = "HOME_SET",
		[COH_FREE] = "FREE",
		[COH_DROP] = "DROP",
		[COH_DROPPED] = "DROPPED",
		[COH_FREED] = "FREED",
		[COH_REG_MOVE] = "REG_MOVE",
		[COH_REG_IS] = "REG_IS",
		[COH_FLUSH] = "FLUSH",
	};

	return type < COH_MSG_TYPES && name[type] ? name[type] : "?";
}

static void trace_message(const struct world *world, uint32_t node, const char *what,
			  uint32_t other, const struct coh_msg *msg)
{
	if (!world->trace)
		return;
	world_trace(world, node,
		    "%s n%u %s page %" PRIu64
		    " requester n%u node %u acks %u version %u age %" PRIu64 " seq %" PRIu64
		    " flags %02x waited %" PRIu64,
		    what, other, message_name(msg->type), msg->gpn, msg->requester, msg->node,
		    msg->acks, msg->version, msg->age, msg->seq, msg->flags, msg->waited_ns);
}

static void set_access(struct world *world, uint32_t node, uint32_t page, enum coh_access access)
{
	struct sim_node *n = &world->node[node];

	n->access[page] = (uint8_t)access;
	if (n->gates.word) {
		gate_open(&n->gates, page, access);
		if (gate_access(&n->gates, page) > access)
			world_fail(world, RULE_PIN_BROKEN, node, page,
				   "a page is taken whose gate is open");
	}
	if (n->released && access != COH_NONE)
		world_fail(world, RULE_RELEASE, node, page, "a node that has left gets a page");
	checker_access(world->checker, node, world_shard(world, page), page, access,
		       &n->content[page], world->now_ns);
}

static void do_protect(struct world *world, uint32_t node, uint32_t page, enum coh_access access)
{
	struct sim_node *n = &world->node[node];

	world_trace(world, node, "  PROTECT page %u: %u -> %u", page, n->access[page], access);
	if (n->access[page] == COH_NONE && access != COH_NONE)
		world_fail(world, RULE_ACTIONS, node, page, "PROTECT gives access to no content");
	set_access(world, node, page, access);
	if (access == COH_NONE)
		n->content[page] = (struct content){ 0 };
}

static void do_install(struct world *world, uint32_t node, const struct coh_action *action,
		       const struct event *event)
{
	struct sim_node *n = &world->node[node];
	uint32_t page = (uint32_t)action->gpn;
	bool data = action->kind == COH_INSTALL_DATA;

	world_trace(world, node, "  INSTALL_%s page %u: %u -> %u", data ? "DATA" : "ZERO", page,
		    n->access[page], action->access);
	if (n->access[page] != COH_NONE)
		world_fail(world, RULE_ACTIONS, node, page, "INSTALL over a page that is there");
	if (action->access == COH_NONE)
		world_fail(world, RULE_ACTIONS, node, page, "INSTALL without access");
	if (data && (!event || !event->has_content || event->msg.gpn != page))
		world_fail(world, RULE_ACTIONS, node, page, "INSTALL_DATA, but no data came");
	n->content[page] = data && event ? event->content : (struct content){ 0 };
	world->fetched += !event || event->msg.type != COH_PUSH_DATA;
	set_access(world, node, page, action->access);
}

static void do_send(struct world *world, uint32_t node, uint32_t shard,
		    const struct coh_action *action)
{
	const struct sim_node *n = &world->node[node];
	bool with_page = action->kind == COH_SEND_PAGE;
	uint32_t page = (uint32_t)action->msg.gpn;

	trace_message(world, node, with_page ? "  SEND_PAGE to" : "  SEND to", action->to,
		      &action->msg);
	if (action->to == node || action->to >= world->node_count)
		world_fail(world, RULE_ACTIONS, node, page, "SEND to itself or to nobody");
	else if (with_page && page >= world->page_count)
		world_fail(world, RULE_ACTIONS, node, page, "SEND_PAGE of a page that is none");
	else if (with_page && n->access[page] != COH_READ)
		world_fail(world, RULE_ACTIONS, node, page,
			   n->access[page] ? "SEND_PAGE of a page that may still be written"
					   : "SEND_PAGE of a page that is not there");
	else if (with_page != !!(action->msg.flags & COH_MSG_DATA))
		world_fail(world, RULE_ACTIONS, node, page, "SEND and COH_MSG_DATA differ");
	else
		world_send(world, node, shard, action, with_page ? &n->content[page] : NULL);
	world->node[node].asks += action->msg.type == COH_HOME_GET && action->msg.requester == node;
	steps_judge_send(world, node, action->to, &action->msg);
	steps_judge_answer(world, node, &action->msg);
}

static void do_freed(struct world *world, uint32_t node, uint32_t shard,
		     const struct coh_action *action)
{
	struct sim_node *n = &world->node[node];
	uint32_t group = (uint32_t)(action->gpn / COH_FREE_PAGES);
	uint64_t asked = n->freeing[group], freed = action->msg.age;

	world_trace(world, node, "  FREED pages %" PRIu64 "+%016" PRIx64, action->gpn, freed);
	if (action->gpn % COH_FREE_PAGES || !asked || (freed & ~asked)) {
		world_fail(world, RULE_ACTIONS, node, (uint32_t)action->gpn,
			   "FREED_PAGES of what was not asked");
		return;
	}
	n->frees[shard]--;
	n->freeing[group] = 0;
	world->freeing[group] &= ~asked;
	for (; asked; asked &= asked - 1) {
		uint32_t bit = (uint32_t)__builtin_ctzll(asked);

		checker_free_end(world->checker, node, group * COH_FREE_PAGES + bit,
				 freed >> bit & 1, world->now_ns);
	}
}

static void do_action(struct world *world, uint32_t node, uint32_t shard,
		      const struct coh_action *action, const struct event *event)
{
	uint32_t page = (uint32_t)action->gpn;
	bool about_page = action->kind != COH_SEND && action->kind != COH_SEND_PAGE;

	if (about_page && action->gpn >= world->page_count) {
		world_fail(world, RULE_ACTIONS, node, 0, "an action for a page that is none");
		return;
	}
	switch (action->kind) {
	case COH_SEND:
	case COH_SEND_PAGE:
		do_send(world, node, shard, action);
		break;
	case COH_PROTECT:
		do_protect(world, node, page, action->access);
		break;
	case COH_INSTALL_DATA:
	case COH_INSTALL_ZERO:
		do_install(world, node, action, event);
		break;
	case COH_WAKE:
		world_trace(world, node, "  WAKE page %u access %u", page, action->access);
		actor_wake(world, node, page, action->access);
		break;
	case COH_PINNED:
		world_trace(world, node, "  PINNED page %u actor %u", page, action->actor);
		actor_pinned(world, node, action->actor, page);
		break;
	case COH_FREED_PAGES:
		do_freed(world, node, shard, action);
		break;
	default:
		world_fail(world, RULE_ACTIONS, node, page, "an action of no kind");
	}
}

/* The core and its node must be of one mind about every page that was touched. */
static void judge_access(struct world *world, uint32_t node, uint32_t shard,
			 const struct coh_out *out)
{
	const struct sim_node *n = &world->node[node];

	for (uint32_t i = 0; i < out->count; i++) {
		const struct coh_action *action = &out->action[i];

		if (action->kind == COH_SEND || action->kind == COH_SEND_PAGE ||
		    action->gpn >= world->page_count)
			continue;
		if (coh_access(n->coh[shard], action->gpn) != n->access[action->gpn])
			world_fail(world, RULE_ACCOUNT, node, (uint32_t)action->gpn,
				   "coh_access() is not what the memory has");
	}
}

#define GUARD 0xa5

static struct coh_out out_begin(struct world *world)
{
	memset(&world->action[COH_ACTIONS_MIN], GUARD, sizeof(*world->action));
	return (struct coh_out){ .action = world->action, .capacity = COH_ACTIONS_MIN };
}

static void judge_overrun(struct world *world, uint32_t node, const struct coh_out *out)
{
	const uint8_t *guard = (const uint8_t *)&world->action[COH_ACTIONS_MIN];

	if (out->count > COH_ACTIONS_MIN || guard[0] != GUARD ||
	    memcmp(guard, guard + 1, sizeof(*world->action) - 1))
		world_fail(world, RULE_ACTIONS, node, 0, "more actions than fit");
}

static void finish_input(struct world *world, uint32_t node, uint32_t shard, int ret,
			 const struct coh_out *out, const struct event *event)
{
	struct sim_node *n = &world->node[node];
	uint64_t deadline;

	if (ret) {
		world_fail(world, RULE_ERROR, node, 0,
			   ret == -EPROTO ? "-EPROTO" : "the core returns an error");
		return;
	}
	judge_overrun(world, node, out);
	for (uint32_t i = 0; i < out->count && !checker_verdict(world->checker)->rule; i++)
		do_action(world, node, shard, &out->action[i], event);
	if (checker_verdict(world->checker)->rule)
		return;
	judge_access(world, node, shard, out);
	deadline = coh_deadline(n->coh[shard]);
	if (deadline) /* 0: more of its work comes at the next tick */
		checker_after_input(world->checker, node, world->now_ns);
}

void edge_stall(struct world *world, const struct sim_actor *actor, uint32_t page,
		enum coh_access want)
{
	struct coh_out out = out_begin(world);
	uint32_t shard = world_shard(world, page);
	int ret;

	world_trace(world, actor->node, "STALL actor %u page %u wants %d", actor->index, page,
		    want);
	ret = coh_stall(world->node[actor->node].coh[shard], actor->index, page, want,
			world->now_ns, &out);
	finish_input(world, actor->node, shard, ret, &out, NULL);
}

void edge_pin(struct world *world, const struct sim_actor *actor, uint32_t page,
	      enum coh_access want)
{
	struct coh_out out = out_begin(world);
	uint32_t shard = world_shard(world, page);
	int ret;

	world_trace(world, actor->node, "PIN actor %u page %u wants %d", actor->index, page, want);
	ret = coh_pin(world->node[actor->node].coh[shard], actor->index, page, want, world->now_ns,
		      &out);
	finish_input(world, actor->node, shard, ret, &out, NULL);
}

void edge_unpin(struct world *world, const struct sim_actor *actor)
{
	struct coh_out out = out_begin(world);
	uint32_t shard = world_shard(world, actor->stall_page);
	int ret;

	world_trace(world, actor->node, "UNPIN actor %u page %u", actor->index, actor->stall_page);
	ret = coh_unpin(world->node[actor->node].coh[shard], actor->index, world->now_ns, &out);
	finish_input(world, actor->node, shard, ret, &out, NULL);
}

void edge_unpinned(struct world *world, uint32_t node, uint32_t page)
{
	struct coh_out out = out_begin(world);
	uint32_t shard = world_shard(world, page);
	int ret;

	world_trace(world, node, "UNPINNED page %u", page);
	ret = coh_unpinned(world->node[node].coh[shard], page, world->now_ns, &out);
	finish_input(world, node, shard, ret, &out, NULL);
}

void edge_free(struct world *world, uint32_t node, uint32_t group, uint64_t mask)
{
	struct sim_node *n = &world->node[node];
	struct coh_out out = out_begin(world);
	uint32_t first = group * COH_FREE_PAGES, shard = world_shard(world, first);
	int ret;

	mask &= ~world->freeing[group];
	/* Of a page that is zero already nobody sees when it becomes so. */
	for (uint32_t i = 0; i < COH_FREE_PAGES; i++)
		if (first + i >= world->page_count || !checker_written(world->checker, first + i))
			mask &= ~(1ull << i);
	if (!mask || n->freeing[group] || n->frees[shard] == COH_FREES || n->released)
		return;
	world_trace(world, node, "FREE pages %u+%016" PRIx64, first, mask);
	for (uint32_t i = 0; i < COH_FREE_PAGES; i++)
		if (mask >> i & 1)
			checker_free_begin(world->checker, first + i);
	n->frees[shard]++;
	n->freeing[group] = mask;
	world->freeing[group] |= mask;
	ret = coh_free(n->coh[shard], first, mask, world->now_ns, &out);
	finish_input(world, node, shard, ret, &out, NULL);
}

void edge_message(struct world *world, const struct event *event)
{
	struct coh_out out = out_begin(world);
	int ret;

	trace_message(world, event->target, "from", event->msg.src, &event->msg);
	steps_judge(world, event);
	/* The answer; or the question comes back to who has become registrar. */
	if ((event->msg.type == COH_HOME_IS ||
	     (event->msg.type == COH_HOME_GET && event->msg.requester == event->target)) &&
	    world->node[event->target].asks)
		world->node[event->target].asks--;
	ret = coh_message(world->node[event->target].coh[event->shard], &event->msg, world->now_ns,
			  &out);
	finish_input(world, event->target, event->shard, ret, &out, event);
}

void edge_tick(struct world *world, uint32_t node, uint32_t shard)
{
	struct coh_out out = out_begin(world);
	int ret;

	world_trace(world, node, "TICK");
	ret = coh_tick(world->node[node].coh[shard], world->now_ns, &out);
	finish_input(world, node, shard, ret, &out, NULL);
}

void edge_release(struct world *world, uint32_t node)
{
	world_trace(world, node, "RELEASE ALL");
	for (uint32_t shard = 0; shard < world->shard_count; shard++) {
		struct coh_out out = out_begin(world);
		int ret = coh_release_all(world->node[node].coh[shard], world->now_ns, &out);

		finish_input(world, node, shard, ret, &out, NULL);
	}
}

void edge_release_cancel(struct world *world, uint32_t node)
{
	world_trace(world, node, "STAYS");
	for (uint32_t shard = 0; shard < world->shard_count; shard++) {
		struct coh_out out = out_begin(world);
		int ret = coh_release_cancel(world->node[node].coh[shard], world->now_ns, &out);

		finish_input(world, node, shard, ret, &out, NULL);
	}
}

void edge_member(struct world *world, uint32_t node, uint32_t about, enum member_state state)
{
	world_trace(world, node, "HEARS n%u is %d", about, state);
	for (uint32_t shard = 0; shard < world->shard_count; shard++) {
		struct coh_out out = out_begin(world);
		int ret = coh_member(world->node[node].coh[shard], (uint16_t)about, state,
				     world->now_ns, &out);

		finish_input(world, node, shard, ret, &out, NULL);
	}
}

void edge_linked(struct world *world, uint32_t node, uint32_t with)
{
	for (uint32_t shard = 0; shard < world->shard_count; shard++) {
		struct coh_out out = out_begin(world);
		int ret = coh_linked(world->node[node].coh[shard], (uint16_t)with, world->now_ns,
				     &out);

		finish_input(world, node, shard, ret, &out, NULL);
	}
}

void edge_unlinked(struct world *world, uint32_t node, uint32_t with)
{
	for (uint32_t shard = 0; shard < world->shard_count; shard++)
		edge_end(world, node, shard, with);
}

void edge_end(struct world *world, uint32_t node, uint32_t shard, uint32_t from)
{
	struct coh_out out = out_begin(world);
	int ret = coh_unlinked(world->node[node].coh[shard], (uint16_t)from, world->now_ns, &out);

	finish_input(world, node, shard, ret, &out, NULL);
}
