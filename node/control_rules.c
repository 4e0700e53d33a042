/* SPDX-License-Identifier: Apache-2.0 */
/* Control messages between the nodes of a pod, judged by who says them: see control_rules.h. */
#include "node/control_rules.h"

/* From a vCPU's node, or a device's, to the node of all vCPUs named. */
static bool interrupt_allowed(const struct pod_config *config, uint16_t self, uint16_t src,
			      const struct control_interrupt *interrupt)
{
	if (interrupt->from_vcpu == NODE_NONE
		    ? src != 0
		    : pod_config_vcpu_node(config, interrupt->from_vcpu) != src)
		return false;
	for (uint16_t i = 0; i < interrupt->vcpu_count; i++)
		if (pod_config_vcpu_node(config, interrupt->vcpu[i]) != self)
			return false;
	return true;
}

bool control_rules_allow(const struct pod_config *config, uint16_t self,
			 const struct control_message *msg)
{
	switch (msg->type) {
	case CONTROL_INTERRUPT:
		return interrupt_allowed(config, self, msg->src, &msg->interrupt);
	case CONTROL_EOI:
		return self == 0 && pod_config_vcpu_node(config, msg->eoi.vcpu) == msg->src;
	case CONTROL_IO_REQUEST:
		return self == 0 && pod_config_vcpu_node(config, msg->io_request.vcpu) == msg->src;
	case CONTROL_IO_REPLY:
		return msg->src == 0 && pod_config_vcpu_node(config, msg->io_reply.vcpu) == self;
	case CONTROL_CLOCK_PING:
	case CONTROL_FEATURES:
	case CONTROL_READY:
		return self == 0;
	case CONTROL_CLOCK_PONG:
	case CONTROL_START:
	case CONTROL_RUN:
		return msg->src == 0;
	default:
		return true;
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
