// SPDX-License-Identifier: Apache-2.0
/*
 * Heartbeats. The rules are in the header.
 *
 * Times only grow; a caller whose clock jumps back is not judged by it, because every difference is
 * taken as zero then. Tested by tests/core/test_heartbeat.c.
 */
#include "core/heartbeat.h"

#include <errno.h>
#include <string.h>

static uint64_t since(uint64_t then_ns, uint64_t now_ns)
{
	return now_ns > then_ns ? now_ns - then_ns : 0;
}

int heartbeat_init(struct heartbeat *heartbeat, const struct heartbeat_config *config,
		   uint64_t now_ns)
{
	struct member_set members;

	if (config->node_count == 0 || config->node_count > NODES_MAX ||
	    config->self >= config->node_count)
		return -EINVAL;
	members = member_set_or_all(&config->members, config->node_count);
	memset(heartbeat, 0, sizeof(*heartbeat));
	heartbeat->config = *config;
	if (config->interval_ns == 0)
		heartbeat->config.interval_ns = HEARTBEAT_INTERVAL_NS;
	if (config->timeout_ns == 0)
		heartbeat->config.timeout_ns = HEARTBEAT_TIMEOUT_NS;
	if (config->first_ns == 0)
		heartbeat->config.first_ns = HEARTBEAT_FIRST_NS;
	if (config->grace_ns == 0)
		heartbeat->config.grace_ns = HEARTBEAT_GRACE_NS;
	heartbeat->send_ns = now_ns;
	heartbeat->tick_ns = now_ns;
	for (uint16_t i = 0; i < config->node_count; i++) {
		heartbeat->peer[i].heard_ns = now_ns;
		heartbeat->peer[i].watched = i != config->self && member_set_has(&members, i);
	}
	return 0;
}

void heartbeat_heard(struct heartbeat *heartbeat, uint16_t node, uint64_t now_ns)
{
	if (node >= heartbeat->config.node_count)
		return;
	if (now_ns > heartbeat->peer[node].heard_ns)
		heartbeat->peer[node].heard_ns = now_ns;
	heartbeat->peer[node].missed_ns = 0;
	heartbeat->peer[node].heard = true;
}

void heartbeat_watch(struct heartbeat *heartbeat, uint16_t node, uint64_t now_ns)
{
	if (node >= heartbeat->config.node_count || node == heartbeat->config.self ||
	    heartbeat->peer[node].watched)
		return;
	heartbeat->peer[node] = (struct heartbeat_peer){ .heard_ns = now_ns, .watched = true };
}

void heartbeat_forget(struct heartbeat *heartbeat, uint16_t node)
{
	if (node < heartbeat->config.node_count)
		heartbeat->peer[node].watched = false;
}

uint64_t heartbeat_silence_ns(const struct heartbeat *heartbeat, uint16_t node, uint64_t now_ns)
{
	if (node >= heartbeat->config.node_count)
		return 0;
	return since(heartbeat->peer[node].heard_ns, now_ns);
}

/* When it will have been silent for too long. */
static uint64_t end_of(const struct heartbeat *heartbeat, const struct heartbeat_peer *peer)
{
	return peer->heard_ns + peer->missed_ns +
	       (peer->heard ? heartbeat->config.timeout_ns : heartbeat->config.first_ns);
}

/* Was due late_ns before: nobody was heard meanwhile, whoever spoke. */
static void miss(struct heartbeat *heartbeat, uint64_t now_ns, uint64_t late_ns)
{
	for (uint16_t i = 0; i < heartbeat->config.node_count; i++) {
		struct heartbeat_peer *peer = &heartbeat->peer[i];
		uint64_t silent_ns = since(peer->heard_ns, now_ns) - peer->missed_ns;

		peer->missed_ns += late_ns < silent_ns ? late_ns : silent_ns;
	}
}

uint32_t heartbeat_tick(struct heartbeat *heartbeat, uint64_t now_ns, bool *ret_send,
			uint16_t *ret_dead)
{
	uint32_t dead_count = 0;

	/* Ticks are due at least every interval; one that comes much later was not let run. */
	if (since(heartbeat->tick_ns, now_ns) > 2 * heartbeat->config.interval_ns)
		heartbeat->judge_ns = now_ns + heartbeat->config.grace_ns;
	heartbeat->tick_ns = now_ns;

	*ret_send = now_ns >= heartbeat->send_ns;
	if (*ret_send) {
		miss(heartbeat, now_ns, now_ns - heartbeat->send_ns);
		heartbeat->send_ns = now_ns + heartbeat->config.interval_ns;
	}

	if (now_ns < heartbeat->judge_ns)
		return 0;
	for (uint16_t i = 0; i < heartbeat->config.node_count; i++) {
		struct heartbeat_peer *peer = &heartbeat->peer[i];

		if (!peer->watched || now_ns < end_of(heartbeat, peer))
			continue;
		peer->watched = false;
		ret_dead[dead_count++] = i;
	}
	return dead_count;
}

uint64_t heartbeat_deadline(const struct heartbeat *heartbeat)
{
	uint64_t deadline_ns = heartbeat->send_ns;

	for (uint16_t i = 0; i < heartbeat->config.node_count; i++) {
		const struct heartbeat_peer *peer = &heartbeat->peer[i];
		uint64_t end_ns = end_of(heartbeat, peer);

		if (end_ns < heartbeat->judge_ns)
			end_ns = heartbeat->judge_ns;
		if (peer->watched && end_ns < deadline_ns)
			deadline_ns = end_ns;
	}
	return deadline_ns;
}
