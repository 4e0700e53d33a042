/* SPDX-License-Identifier: Apache-2.0 */
/* Control messages between the nodes of a pod, judged by who says them: see control_rules.h. */
#include "node/control_rules.h"

#define NOT_ITS_OWN  "about what is not its own"
#define NOT_ITS_PART "which is not its part"
#define OUT_OF_TURN  "out of turn"
#define TWICE	     "twice"

static bool owns(const struct control_rules *rules, uint16_t node, uint32_t vcpu)
{
	return pod_config_vcpu_node(rules->config, vcpu) == node;
}

/*
 * From a vCPU's node, or a device's, to the node of all vCPUs named. Another node may run, and
 * send, a moment before RUN comes here.
 */
static const char *interrupt_lie(const struct control_rules *rules, enum node_phase phase,
				 uint16_t src, const struct control_interrupt *interrupt)
{
	if (phase < (rules->self == 0 ? NODE_RUNNING : NODE_READY))
		return OUT_OF_TURN;
	if (interrupt->from_vcpu == NODE_NONE ? src != 0 : !owns(rules, src, interrupt->from_vcpu))
		return NOT_ITS_OWN;
	for (uint16_t i = 0; i < interrupt->vcpu_count; i++)
		if (!owns(rules, rules->self, interrupt->vcpu[i]))
			return NOT_ITS_OWN;
	return NULL;
}

static const char *once(struct control_rules *rules, const struct control_message *msg)
{
	uint32_t bit = 1u << msg->type;

	if (rules->said[msg->src] & bit)
		return TWICE;
	rules->said[msg->src] |= bit;
	return NULL;
}

/* The part of a vCPU's node towards the devices' node, while the guest runs. */
static const char *device_lie(const struct control_rules *rules, enum node_phase phase,
			      uint16_t src, uint32_t vcpu)
{
	if (rules->self != 0)
		return NOT_ITS_PART;
	if (phase < NODE_RUNNING)
		return OUT_OF_TURN;
	return owns(rules, src, vcpu) ? NULL : NOT_ITS_OWN;
}

static const char *to_first_lie(struct control_rules *rules, enum node_phase phase,
				const struct control_message *msg)
{
	if (rules->self != 0)
		return NOT_ITS_PART;
	if (msg->type == CONTROL_FEATURES ? phase >= NODE_STARTED
					  : phase < NODE_STARTED || phase >= NODE_RUNNING)
		return OUT_OF_TURN;
	return once(rules, msg);
}

static const char *from_first_lie(struct control_rules *rules, enum node_phase phase,
				  const struct control_message *msg)
{
	if (msg->src != 0)
		return NOT_ITS_PART;
	if (phase != (msg->type == CONTROL_START ? NODE_OFFERED : NODE_READY))
		return OUT_OF_TURN;
	return once(rules, msg);
}

const char *control_rules_lie(struct control_rules *rules, enum node_phase phase,
			      const struct control_message *msg)
{
	switch (msg->type) {
	case CONTROL_INTERRUPT:
		return interrupt_lie(rules, phase, msg->src, &msg->interrupt);
	case CONTROL_EOI:
		return device_lie(rules, phase, msg->src, msg->eoi.vcpu);
	case CONTROL_IO_REQUEST:
		return device_lie(rules, phase, msg->src, msg->io_request.vcpu);
	case CONTROL_IO_REPLY:
		if (msg->src != 0)
			return NOT_ITS_PART;
		if (phase < NODE_RUNNING)
			return OUT_OF_TURN;
		return owns(rules, rules->self, msg->io_reply.vcpu) ? NULL : NOT_ITS_OWN;
	case CONTROL_CLOCK_PING:
		return rules->self == 0 ? NULL : NOT_ITS_PART;
	case CONTROL_CLOCK_PONG:
		return msg->src == 0 ? NULL : NOT_ITS_PART;
	case CONTROL_FEATURES:
	case CONTROL_READY:
		return to_first_lie(rules, phase, msg);
	case CONTROL_START:
	case CONTROL_RUN:
		return from_first_lie(rules, phase, msg);
	default:
		return NULL; /* HEARTBEAT, STATS_*, END: any node, any time */
	}
}

struct control_clock_ping control_pings_new(struct control_pings *pings, uint64_t now_ns)
{
	uint64_t id = pings->next_id++;

	pings->sent_ns[id % CONTROL_PINGS] = now_ns;
	return (struct control_clock_ping){ .id = id, .sent_ns = now_ns };
}

bool control_pings_answer(struct control_pings *pings, const struct control_clock_pong *pong)
{
	uint64_t *sent_ns = &pings->sent_ns[pong->id % CONTROL_PINGS];

	if (pong->id >= pings->next_id || pings->next_id - pong->id > CONTROL_PINGS ||
	    *sent_ns == 0 || pong->sent_ns != *sent_ns)
		return false;
	*sent_ns = 0;
	return true;
}
