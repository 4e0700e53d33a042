/* SPDX-License-Identifier: Apache-2.0 */
/* Control messages between the nodes of a pod, judged by who says them: see control_rules.h. */
#include "node/control_rules.h"

#define NOT_THERE    "about a vCPU that does not exist"
#define NOT_ITS_PART "which is not its part"
#define OUT_OF_TURN  "out of turn"
#define TWICE	     "twice"
#define NOT_YET	     "for what no node does yet"
#define NO_MEMBER    "before it is a member"

static bool exists(const struct control_rules *rules, uint32_t vcpu)
{
	return vcpu < rules->config->vcpu_count;
}

static bool is_to(const struct control_rules *rules, enum member_seat seat)
{
	return members_seat_is_here(rules->members, seat);
}

static bool is_from(const struct control_rules *rules, enum member_seat seat,
		    const struct control_message *msg)
{
	return msg->src == members_seat(rules->members, seat);
}

/* Another node may run, and send, a moment before the loader's RUN comes here. */
static bool guest_runs(const struct control_rules *rules, enum node_phase phase)
{
	return phase >= (is_to(rules, SEAT_LOADER) ? NODE_RUNNING : NODE_READY);
}

/* For vCPUs that are here, or were, or are about to come: the table of places knows. */
static const char *interrupt_lie(const struct control_rules *rules, enum node_phase phase,
				 const struct control_interrupt *interrupt)
{
	if (!guest_runs(rules, phase))
		return OUT_OF_TURN;
	if (interrupt->from_vcpu != NODE_NONE && !exists(rules, interrupt->from_vcpu))
		return NOT_THERE;
	for (uint16_t i = 0; i < interrupt->vcpu_count; i++)
		if (!exists(rules, interrupt->vcpu[i]))
			return NOT_THERE;
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

/* The part of a vCPU's node towards the PC's, while the guest runs. */
static const char *device_lie(const struct control_rules *rules, enum node_phase phase,
			      uint32_t vcpu)
{
	if (!is_to(rules, SEAT_PC))
		return NOT_ITS_PART;
	if (phase < NODE_RUNNING)
		return OUT_OF_TURN;
	return exists(rules, vcpu) ? NULL : NOT_THERE;
}

static const char *to_loader_lie(struct control_rules *rules, enum node_phase phase,
				 const struct control_message *msg)
{
	if (!is_to(rules, SEAT_LOADER))
		return NOT_ITS_PART;
	if (msg->type == CONTROL_FEATURES ? phase >= NODE_STARTED
					  : phase < NODE_STARTED || phase >= NODE_RUNNING)
		return OUT_OF_TURN;
	return once(rules, msg);
}

static const char *from_loader_lie(struct control_rules *rules, enum node_phase phase,
				   const struct control_message *msg)
{
	if (!is_from(rules, SEAT_LOADER, msg))
		return NOT_ITS_PART;
	if (phase != (msg->type == CONTROL_START ? NODE_OFFERED : NODE_READY))
		return OUT_OF_TURN;
	return once(rules, msg);
}

/* By way of one node, so that all hear the same last word. */
static const char *policy_lie(const struct control_rules *rules, enum node_phase phase,
			      const struct control_message *msg)
{
	if (!is_to(rules, SEAT_WORDS) && !is_from(rules, SEAT_WORDS, msg))
		return NOT_ITS_PART;
	if (!guest_runs(rules, phase))
		return OUT_OF_TURN;
	return msg->type != CONTROL_PIN || exists(rules, msg->pin.vcpu) ? NULL : NOT_THERE;
}

bool control_rules_may_change(const struct pod_config *config)
{
	return !pod_config_has_io(config) && config->vcpu_count <= NODE_VCPUS_MAX;
}

/* Of the seats only the steward's can move. The list judges on. */
static const char *step_lie(const struct control_rules *rules, enum node_phase phase,
			    const struct control_message *msg)
{
	const struct member_word *word = &msg->member;

	if (!guest_runs(rules, phase))
		return OUT_OF_TURN;
	if (msg->type != CONTROL_STEP && msg->type != CONTROL_WISH)
		return NULL;
	if (word->kind == KIND_SEAT ? word->seat != SEAT_STEWARD
				    : !control_rules_may_change(rules->config))
		return NOT_YET;
	return NULL;
}

/* A node that joins, and may know a moment earlier than this one that it is a member. */
static bool joiner_may_say(const struct control_message *msg)
{
	switch (msg->type) {
	case CONTROL_HEARTBEAT:
	case CONTROL_CLOCK_PING:
	case CONTROL_STATS_REQUEST:
	case CONTROL_STATS_REPLY:
	case CONTROL_STOPPED:
	case CONTROL_JOIN_READY:
	case CONTROL_END:
		return true;
	default:
		return false;
	}
}

const char *control_rules_lie(struct control_rules *rules, enum node_phase phase,
			      const struct control_message *msg)
{
	if (members_state(rules->members, msg->src) == MEMBER_JOINING && !joiner_may_say(msg))
		return NO_MEMBER;
	switch (msg->type) {
	case CONTROL_INTERRUPT:
		return interrupt_lie(rules, phase, &msg->interrupt);
	case CONTROL_EOI:
		return device_lie(rules, phase, msg->eoi.vcpu);
	case CONTROL_TAKEN:
		return device_lie(rules, phase, msg->taken.vcpu);
	case CONTROL_IO_REQUEST:
		return device_lie(rules, phase, msg->io_request.vcpu);
	case CONTROL_IO_REPLY:
		if (!is_from(rules, SEAT_PC, msg))
			return NOT_ITS_PART;
		if (phase < NODE_RUNNING)
			return OUT_OF_TURN;
		return exists(rules, msg->io_reply.vcpu) ? NULL : NOT_THERE;
	case CONTROL_MOVE:
	case CONTROL_PLACE:
	case CONTROL_REFUSED:
	case CONTROL_COMING:
	case CONTROL_MOVE_ASK:
	case CONTROL_MOVE_TOLD:
		return guest_runs(rules, phase) ? NULL : OUT_OF_TURN; /* moves.c judges on */
	case CONTROL_LOAD:
	case CONTROL_OUTCOMES:
		return guest_runs(rules, phase) ? NULL : OUT_OF_TURN;
	case CONTROL_POLICY:
	case CONTROL_PIN:
		return policy_lie(rules, phase, msg);
	case CONTROL_BUTTON:
		if (!is_to(rules, SEAT_PC))
			return NOT_ITS_PART;
		return phase >= NODE_RUNNING ? NULL : OUT_OF_TURN;
	case CONTROL_PUBLISHED:
		if (!is_from(rules, SEAT_PC, msg))
			return NOT_ITS_PART;
		return guest_runs(rules, phase) ? NULL : OUT_OF_TURN;
	case CONTROL_STOPPED:
	case CONTROL_NEEDS_RESET:
		return device_lie(rules, phase, 0);
	case CONTROL_DOORBELL:
	case CONTROL_QUEUE:
	case CONTROL_QUEUE_PLACE:
		return guest_runs(rules, phase) ? NULL : OUT_OF_TURN; /* queues.c judges on */
	case CONTROL_CLOCK_PING:
		return is_to(rules, SEAT_CLOCK) ? NULL : NOT_ITS_PART;
	case CONTROL_CLOCK_PONG:
		return is_from(rules, SEAT_CLOCK, msg) ? NULL : NOT_ITS_PART;
	case CONTROL_FEATURES:
	case CONTROL_READY:
		return to_loader_lie(rules, phase, msg);
	case CONTROL_START:
	case CONTROL_RUN:
		return from_loader_lie(rules, phase, msg);
	case CONTROL_STEP:
	case CONTROL_STEP_DONE:
	case CONTROL_STEP_OVER:
	case CONTROL_WISH:
	case CONTROL_WISH_REFUSED:
	case CONTROL_JOIN_READY:
	case CONTROL_JOIN_FAILED:
	case CONTROL_DRAINED:
		return step_lie(rules, phase, msg);
	case CONTROL_JOIN_ASK:
	case CONTROL_JOIN_TOLD:
		return NOT_ITS_PART; /* on a joiner's own channel alone: sponsor.c */
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

uint64_t control_loading_stalled_ns(struct control_loading *load, uint64_t at_ns, uint64_t now_ns)
{
	uint64_t turn_ns = now_ns > load->judged_ns ? now_ns - load->judged_ns : 0;

	if (turn_ns > CONTROL_LOAD_TURN_NS)
		turn_ns = CONTROL_LOAD_TURN_NS;
	load->stalled_ns = at_ns && at_ns == load->at_ns ? load->stalled_ns + turn_ns : 0;
	load->at_ns = at_ns;
	load->judged_ns = now_ns;
	return load->stalled_ns;
}
