/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Members that come and go: see members.h.
 *
 * Each call is a command to every shard, in the order of calls. A shard says in one word how many
 * commands it has taken and what is true of it since; what a caller asks for is true when all shards
 * say so behind the command that it is about. So an old answer is never taken for a new one.
 *
 * A channel's end ends the pod, but for two whose loss is none: who has not been ACTIVE (what it sends
 * is of no value, so lies end its channel, too), and who is GONE, from when this shard has done that
 * step. Their channels are loose (plan.h): what cannot be sent is dropped. All that a leaver sent has
 * been taken when its channel ends, and only then the protocol hears that it has (coh_unlinked()).
 *
 * A host that loses its power ends no channel, so UNLINK of a leaver waits for that for some seconds
 * and then ends it itself. All that has come is taken then, too.
 *
 * Of a joiner nothing is received until its ACTIVE is taken here: what it said before that it would
 * have begun without being a member, and if it then dies, room, homes and pages stay in its name for
 * ever. Only its end is watched for. A true joiner may have heard of its ACTIVE before this node has,
 * so what it says waits in its channel, a message's way long.
 *
 * A queue has room for these commands: of a node's LINK and UNLINK there are two at most, since its
 * next life begins with a step that comes behind them; a step is posted when the last one is done,
 * and with it there may be a RELEASE and a CANCEL (PAGER_MEMBER_COMMANDS).
 *
 * Tested in tests/memory/test_pager_member.c.
 */
#include "pager/members.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pager/shard.h"
#include "pager/shard_inside.h"

/* --- the list's thread --- */

static struct member_set members_of(const struct pager_config *config)
{
	return member_set_or_all(&config->members, config->node_count);
}

bool pager_members_valid(const struct pager_config *config)
{
	struct member_set space = member_set_below(config->node_count), set = members_of(config);
	struct member_set left = config->draining;

	for (uint32_t w = 0; w < NODES_MAX / 64; w++) {
		if (config->draining.word[w] & config->gone.word[w])
			return false;
		left.word[w] |= config->gone.word[w];
	}
	return member_set_covers(&space, &set) && member_set_has(&set, config->self) &&
	       member_set_covers(&set, &left) && !member_set_has(&left, config->self) &&
	       (config->joins || member_set_count(&left) == 0);
}

void pager_members_init(struct pager *pager)
{
	const struct pager_config *config = &pager->config;
	struct member_set set = members_of(config);

	for (uint16_t node = 0; node < config->node_count; node++)
		pager->members.state[node] =
			!member_set_has(&set, node)		  ? MEMBER_FREE
			: member_set_has(&config->gone, node)	  ? MEMBER_GONE
			: member_set_has(&config->draining, node) ? MEMBER_DRAINING
			: config->joins && node == config->self	  ? MEMBER_JOINING
								  : MEMBER_ACTIVE;
}

bool pager_members_needs(const struct pager *pager, uint16_t node)
{
	enum member_state state = pager->members.state[node];

	return node != pager->config.self && (state == MEMBER_ACTIVE || state == MEMBER_DRAINING);
}

/* It has failed, stops, or was interrupted: what was asked before may never be done. */
static bool shut_down(struct pager *pager)
{
	return pager_queue_closed(&pager->shard[0].queue);
}

/* To all shards; `channel` NULL, or theirs. */
static int post(struct pager *pager, struct pager_command command,
		struct page_channel *const *channel)
{
	int error = 0;

	pager->members.posted++;
	for (uint32_t i = 0; error == 0 && i < pager->shard_count; i++) {
		command.channel = channel ? channel[i] : NULL;
		error = pager_queue_post(&pager->shard[i].queue, &command);
	}
	return error;
}

/* All shards say it, as of the command of that number or later. */
static bool all_say(const struct pager *pager, uint64_t number, uint32_t what)
{
	for (uint32_t i = 0; i < pager->shard_count; i++) {
		uint64_t says = atomic_load(&pager->shard[i].members.says);

		if (says >> SAYS_SHIFT < number || !(says & what))
			return false;
	}
	return true;
}

static bool step_follows(const struct pager *pager, uint16_t node, enum member_state to)
{
	enum member_state from = pager->members.state[node];
	bool self = node == pager->config.self;

	switch (to) {
	case MEMBER_FREE:
		return from == MEMBER_GONE && !self;
	case MEMBER_JOINING:
		return from == MEMBER_FREE && !self;
	case MEMBER_ACTIVE:
		return from == MEMBER_DRAINING ||
		       (from == MEMBER_JOINING && (self || pager_linked(pager, node)));
	case MEMBER_DRAINING:
		return from == MEMBER_ACTIVE;
	case MEMBER_GONE:
		return from == MEMBER_DRAINING || (from == MEMBER_JOINING && !self);
	}
	return false;
}

int pager_member(struct pager *pager, uint16_t node, enum member_state state)
{
	struct pager_members *m = &pager->members;
	struct pager_command command = { .kind = PAGER_MEMBER, .actor = node, .gpn = state };

	if (shut_down(pager))
		return -ESHUTDOWN;
	if (node >= pager->config.node_count || !pager_member_done(pager) ||
	    !step_follows(pager, node, state))
		return -EINVAL;
	m->state[node] = state;
	if (state == MEMBER_JOINING)
		m->was_linked[node] = m->unlinking[node] = false;
	m->step = m->posted + 1;
	return post(pager, command, NULL);
}

bool pager_member_done(const struct pager *pager)
{
	return all_say(pager, pager->members.step, SAYS_DONE);
}

int pager_link(struct pager *pager, struct page_channel *const *channel)
{
	struct pager_members *m = &pager->members;
	uint16_t node = channel[0] ? channel[0]->peer : NODE_NONE;

	if (shut_down(pager))
		return -ESHUTDOWN;
	if (node >= pager->config.node_count || node == pager->config.self ||
	    m->state[node] != MEMBER_JOINING || m->was_linked[node] || !pager->shard[0].started)
		return -EINVAL;
	for (uint32_t i = 0; i < pager->shard_count; i++)
		if (!channel[i] || channel[i]->peer != node)
			return -EINVAL;
	m->was_linked[node] = true;
	for (uint32_t i = 0; i < pager->shard_count; i++)
		atomic_store(&pager->shard[i].members.linked[node], true);
	return post(pager, (struct pager_command){ .kind = PAGER_LINK, .actor = node }, channel);
}

int pager_unlink(struct pager *pager, uint16_t node)
{
	struct pager_members *m = &pager->members;

	if (shut_down(pager))
		return -ESHUTDOWN;
	if (node >= pager->config.node_count || node == pager->config.self ||
	    m->state[node] == MEMBER_ACTIVE || m->state[node] == MEMBER_DRAINING)
		return -EINVAL;
	if (m->unlinking[node] || !pager_linked(pager, node))
		return 0;
	m->unlinking[node] = true;
	return post(pager, (struct pager_command){ .kind = PAGER_UNLINK, .actor = node }, NULL);
}

bool pager_linked(const struct pager *pager, uint16_t node)
{
	for (uint32_t i = 0; i < pager->shard_count; i++)
		if (atomic_load(&pager->shard[i].members.linked[node]))
			return true;
	return false;
}

bool pager_member_ready(const struct pager *pager)
{
	return all_say(pager, 0, SAYS_READY);
}

int pager_release(struct pager *pager)
{
	struct pager_members *m = &pager->members;

	if (shut_down(pager))
		return -ESHUTDOWN;
	if (m->state[pager->config.self] != MEMBER_DRAINING || m->releasing)
		return -EINVAL;
	m->releasing = true;
	m->release = m->posted + 1;
	return post(pager, (struct pager_command){ .kind = PAGER_RELEASE }, NULL);
}

bool pager_released(const struct pager *pager)
{
	return pager->members.releasing && all_say(pager, pager->members.release, SAYS_RELEASED);
}

int pager_release_cancel(struct pager *pager)
{
	struct pager_members *m = &pager->members;

	if (shut_down(pager))
		return -ESHUTDOWN;
	if (m->state[pager->config.self] != MEMBER_ACTIVE)
		return -EINVAL;
	if (!m->releasing)
		return 0;
	m->releasing = false;
	m->release = m->posted + 1;
	m->step = m->release; /* the step is done when that is, too */
	return post(pager, (struct pager_command){ .kind = PAGER_CANCEL }, NULL);
}

bool pager_flushed(const struct pager *pager)
{
	return all_say(pager, pager->members.step, SAYS_FLUSHED);
}

/* --- the shards' threads --- */

/* Of those that come before a newcomer's first message there is nothing to send. */
static int tell_state(struct shard *shard, uint16_t node, enum member_state state)
{
	struct coh_out out = shard_out(shard);
	int error = coh_member(shard->coh, node, state, pod_now_ns(shard), &out);

	while (error == 0 && !coh_member_done(shard->coh))
		error = coh_tick(shard->coh, pod_now_ns(shard), &out);
	assert(out.count == 0);
	return error;
}

int shard_members_init(struct shard *shard)
{
	const struct pager *pager = shard->pager;
	struct shard_members *m = &shard->members;
	int error = 0;

	m->going = NODE_NONE;
	m->cut_ns = UINT64_MAX;
	m->changing = pager->config.joins;
	m->linked = calloc(pager->config.node_count, sizeof(*m->linked));
	if (!m->linked)
		return -ENOMEM;
	for (uint16_t node = 0; error == 0 && node < pager->config.node_count; node++) {
		enum member_state state = pager->members.state[node];

		m->state[node] = state;
		m->was_active[node] = state != MEMBER_FREE && state != MEMBER_JOINING;
		if (state == MEMBER_DRAINING || state == MEMBER_GONE)
			error = tell_state(shard, node, state);
	}
	atomic_init(&m->says, SAYS_DONE);
	return error;
}

void shard_members_fini(struct shard *shard)
{
	free(shard->members.linked);
}

/* The protocol was told something. */
static void told(struct shard *shard, int error, const struct coh_out *out, const char *what)
{
	if (error < 0)
		shard_core_failed(shard, error, what);
	else
		shard_carry_out(shard, out, NULL);
}

static void say_linked(struct shard *shard, uint16_t node)
{
	struct coh_out out = shard_out(shard);
	int error = coh_linked(shard->coh, node, pod_now_ns(shard), &out);

	told(shard, error, &out, "a link was refused");
}

void shard_members_begin(struct shard *shard)
{
	if (!shard->pager->config.joins)
		return;
	for (uint16_t node = 0; node < shard->plan.peer_count && !shard->failed; node++)
		if (shard->plan.peer[node].channel)
			say_linked(shard, node);
}

static void end_link(struct shard *shard, uint16_t node, int error, const char *cause)
{
	const struct pager_config *config = &shard->pager->config;

	shard_watch_end(shard, node);
	shard->plan.peer[node].error = error;
	shard->members.ended[node] = true;
	shard->members.due = true;
	if (cause && config->link_ended)
		config->link_ended(config->arg, node, error, cause);
}

bool shard_link_ended(struct shard *shard, uint16_t node, int error, const char *cause)
{
	if (!shard->plan.peer[node].loose || (error == -EPROTO && shard_hears(shard, node)))
		return false;
	if (!shard->members.ended[node])
		end_link(shard, node, error, cause);
	return true;
}

/* The channels that have not ended in time. */
static void cut_links(struct shard *shard)
{
	struct shard_members *m = &shard->members;
	uint64_t now_ns = local_now_ns(), next_ns = UINT64_MAX;

	for (uint16_t node = 0; node < shard->plan.peer_count; node++) {
		struct page_channel *channel = shard->plan.peer[node].channel;

		if (!m->unlinking[node] || m->ended[node] || m->cut_at_ns[node] == UINT64_MAX)
			continue;
		if (m->cut_at_ns[node] > now_ns) {
			next_ns = m->cut_at_ns[node] < next_ns ? m->cut_at_ns[node] : next_ns;
			continue;
		}
		channel->ops->cut(channel);
		m->cut_at_ns[node] = UINT64_MAX;
	}
	m->cut_ns = next_ns;
}

static void unlink_node(struct shard *shard, uint16_t node)
{
	const struct pager_config *config = &shard->pager->config;
	struct shard_members *m = &shard->members;
	struct page_channel *channel = shard->plan.peer[node].channel;
	struct coh_out out = shard_out(shard);
	struct page_channel_stats stats;
	int error;

	m->unlinking[node] = false;
	channel->ops->stats(channel, &stats);
	m->past.messages_out += stats.messages_out;
	m->past.bytes_out += stats.bytes_out;
	m->past.bytes_in += stats.bytes_in;
	m->past.calls += stats.calls;
	error = plan_unlink(&shard->plan, node);
	if (error < 0) {
		shard_plan_failed(shard, error);
		return;
	}
	m->ended[node] = false;
	error = coh_unlinked(shard->coh, node, pod_now_ns(shard), &out);
	told(shard, error, &out, "a link's end was refused");
	atomic_store(&m->linked[node], false);
	if (config->members_changed)
		config->members_changed(config->arg);
}

/* What the plan found ended, and what is to be unlinked when it has. */
bool shard_members_step(struct shard *shard)
{
	struct shard_members *m = &shard->members;
	bool fed = false;

	if (m->going != NODE_NONE && coh_member_done(shard->coh)) {
		shard->plan.peer[m->going].loose = true;
		m->going = NODE_NONE;
	}
	if (m->cut_ns != UINT64_MAX && local_now_ns() >= m->cut_ns)
		cut_links(shard);
	if (!m->due && !shard->plan.ended)
		return false;
	m->due = shard->plan.ended = false;
	for (uint16_t node = 0; node < shard->plan.peer_count && !shard->failed; node++) {
		const struct plan_peer *peer = &shard->plan.peer[node];

		if (peer->error && !m->ended[node])
			shard_peer_failed(shard, node, peer->error, "sending");
		if (m->ended[node] && m->unlinking[node]) {
			unlink_node(shard, node);
			fed = true;
		}
	}
	return fed;
}

void shard_members_say(struct shard *shard)
{
	const struct pager_config *config = &shard->pager->config;
	struct shard_members *m = &shard->members;
	uint64_t says = m->taken << SAYS_SHIFT;

	if (!m->changing)
		return;
	if (coh_member_done(shard->coh))
		says |= SAYS_DONE;
	if (m->state[config->self] == MEMBER_JOINING && coh_member_ready(shard->coh))
		says |= SAYS_READY;
	if (m->releasing && coh_released(shard->coh))
		says |= SAYS_RELEASED;
	if (m->state[config->self] == MEMBER_GONE && coh_flushed(shard->coh) &&
	    !plan_has_lazy(&shard->plan) && shard->blocked_count == 0)
		says |= SAYS_FLUSHED;
	if (says == atomic_load_explicit(&m->says, memory_order_relaxed))
		return;
	atomic_store(&m->says, says);
	if (config->members_changed)
		config->members_changed(config->arg);
}

/* Who is lost when it becomes a member is lost as one. */
static void begin_member(struct shard *shard, uint16_t node)
{
	struct shard_members *m = &shard->members;
	struct plan_peer *peer = &shard->plan.peer[node];
	bool joined = !m->was_active[node];

	m->was_active[node] = true;
	peer->loose = false;
	if (shard->failed || !peer->channel)
		return;
	if (m->ended[node])
		shard_peer_failed(shard, node, peer->error, "a member is lost");
	else if (joined)
		shard_hear(shard, node);
}

static void take_step(struct shard *shard, uint16_t node, enum member_state state)
{
	struct shard_members *m = &shard->members;
	struct coh_out out = shard_out(shard);
	int error = coh_member(shard->coh, node, state, pod_now_ns(shard), &out);

	m->state[node] = state;
	m->going = state == MEMBER_GONE && node != shard->pager->config.self ? node : NODE_NONE;
	if (state == MEMBER_JOINING)
		m->was_active[node] = false;
	told(shard, error, &out, "a step was refused");
	if (state == MEMBER_ACTIVE)
		begin_member(shard, node);
}

static void take_link(struct shard *shard, struct page_channel *channel)
{
	uint16_t node = channel->peer;
	int error = shard_add_channel(shard, channel);

	if (error < 0) {
		shard_core_failed(shard, error, "a channel cannot be watched");
		return;
	}
	shard->plan.peer[node].loose = true;
	say_linked(shard, node);
}

static void take_unlink(struct shard *shard, uint16_t node)
{
	struct shard_members *m = &shard->members;

	m->unlinking[node] = m->due = true;
	if (m->ended[node])
		return;
	if (!shard_hears(shard, node)) {
		end_link(shard, node, -ECANCELED, NULL);
		return;
	}
	m->cut_at_ns[node] = local_now_ns() + shard->pager->config.unlink_ns;
	if (m->cut_at_ns[node] < m->cut_ns)
		m->cut_ns = m->cut_at_ns[node];
}

static void take_release(struct shard *shard, bool release)
{
	struct coh_out out = shard_out(shard);
	uint64_t now_ns = pod_now_ns(shard);
	int error;

	shard->members.releasing = release;
	error = release ? coh_release_all(shard->coh, now_ns, &out)
			: coh_release_cancel(shard->coh, now_ns, &out);
	told(shard, error, &out, "a release was refused");
}

void shard_member_command(struct shard *shard, const struct pager_command *command)
{
	uint16_t node = (uint16_t)command->actor;

	shard->members.changing = true;
	shard->members.taken++;
	switch (command->kind) {
	case PAGER_MEMBER:
		take_step(shard, node, (enum member_state)command->gpn);
		break;
	case PAGER_LINK:
		take_link(shard, command->channel);
		break;
	case PAGER_UNLINK:
		take_unlink(shard, node);
		break;
	default:
		take_release(shard, command->kind == PAGER_RELEASE);
		break;
	}
}
