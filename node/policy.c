/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The policy of moves in a node: the placer (placer.h) with a node's vCPUs, messages and user.
 *
 * The policy and the pins are the pod's: who wants to change them tells the node that has the seat
 * WORDS, which tells all, so that the last word is the same everywhere. Each node says its load to all
 * others when it has changed, and after a move (LOAD); under a policy that moves nothing nobody says
 * anything.
 *
 * Tested in tests/node/test_policy.c, tests/pod/policy.
 */
#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "node/cores.h"
#include "node/node_state.h"
#include "node/placer.h"

/* What a move is taken to cost, and its stalls, until moves have been seen. */
#define MOVE_NS	   150000u
#define REFAULT_NS (PLACEMENT_REFAULT_MOVES * MOVE_NS)

#define STATE_SAVE_MS 30000u

/* Until the pod's word is here. */
#define WORD_MS	     4000
#define WORD_TURN_US 1000

/* Of a node's users, each and at once; and how many at once are taken of another node. */
#define WORD_NS	   20000000ull
#define WORDS	   256u
#define WORDS_HELD 1024u

/* WORDS says one at a time, so that all hear them in one order. Held to send, never to wait. */
static pthread_mutex_t word_lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t now_ns(void *ctx)
{
	return node_now_ns(ctx);
}

static bool look(void *ctx, uint32_t vcpu, struct placer_vcpu *ret_vcpu)
{
	struct node *node = ctx;
	struct vcpu_stats stats;
	uint16_t at;
	if (!node_vcpu(node, vcpu) || vcpu_place_route(&node->places, vcpu, &at) != PLACE_WAKE)
		return false;
	vcpu_stats(node->vcpu[vcpu], &stats);
	*ret_vcpu = (struct placer_vcpu){ .sleeps = stats.activity == VCPU_SLEEPING,
					  .slept_ns = stats.sleep_ns };
	uint64_t cpu_ns;
	if (!vcpu_core_times(node->vcpu[vcpu], &cpu_ns, &ret_vcpu->waited_ns))
		ret_vcpu->waited_ns = 0;
	return true;
}

static uint32_t program(void *ctx, uint32_t vcpu)
{
	struct node *node = ctx;
	return atomic_load(&node->vcpus_exist) && node->vcpu[vcpu] ? vcpu_program(node->vcpu[vcpu])
								   : 0;
}

static void go(void *ctx, uint32_t vcpu, uint16_t to)
{
	moves_wish(ctx, vcpu, to);
}

/* Who joins has nothing to say until all know that it is a member: then it says it again. */
static void say_load(void *ctx, const struct placement_load *load)
{
	struct control_message msg; /* large, and little of it is sent */
	struct node *node = ctx;
	if (atomic_load(&node->members->joins))
		return;
	msg.type = CONTROL_LOAD;
	msg.load = (struct control_load){ .cores = load->cores, .awake = load->awake };
	node_broadcast(ctx, &msg);
}

static void say_outcomes(void *ctx, const struct placement_outcome *outcome, uint32_t count)
{
	struct control_message msg; /* large, and little of it is sent */
	struct node *node = ctx;
	if (atomic_load(&node->members->joins))
		return;
	msg.type = CONTROL_OUTCOMES;
	msg.outcomes.count = (uint16_t)count;
	memcpy(msg.outcomes.outcome, outcome, count * sizeof(*outcome));
	node_broadcast(ctx, &msg);
}

static void say_learner(void *ctx, const struct placement_stats *stats)
{
	if (!stats->learner_off)
		node_say(ctx,
			 "what was learned about where vCPUs should be may be tried again here");
	else
		node_say(ctx,
			 "what was learned about where vCPUs should be is not used here any more: "
			 "it lost %.1f %% of the time, the base rule %.1f %%; eagre policy learned "
			 "lets it try again",
			 (double)stats->learner_loss / 10000, (double)stats->control_loss / 10000);
}

static const struct placer_ops ops = { now_ns,	 look,	       program,	   go,
				       say_load, say_outcomes, say_learner };

/*
 * Where all nodes are on one host there is no core elsewhere that is not here: whoever is sent away
 * for one, or kept away, only loses his pages.
 */
static uint16_t cores_of(const struct node *node)
{
	uint32_t cores = node_own(node)->cores, here = cores_of_host();
	if (node->options->all_here && here < node->config->vcpu_count)
		here = node->config->vcpu_count;
	return (uint16_t)(cores < here ? cores : here);
}

/* What the user should know even without progress is said once a pod. */
static void say_state(void *ctx, const char *line)
{
	struct node *node = ctx;
	if (members_seat_is_here(node->members, SEAT_WORDS))
		node->options->warn(node->options->context, line);
	else
		node_say(node, "%s", line);
}

/* Where all nodes have one file one of them saves it: what it has learned, the others have told. */
static int open_state(struct node *node, char *why, size_t why_size)
{
	const struct policy_state_config config = {
		.path = node->config->policy_state,
		.placer = node->placer,
		.reads_only =
			node->options->all_here && !members_seat_is_here(node->members, SEAT_WORDS),
		.save_ms = STATE_SAVE_MS,
		.say = say_state,
		.ctx = node,
	};
	return policy_state_open(&config, &node->policy_state, why, why_size);
}

/* Who begins where the idle gather may have left: then it is who has a core and the lowest number. */
static uint16_t gather_node(const struct node *node, const struct member_set *members)
{
	uint16_t first = pod_config_vcpu_node(node->config, 0);
	if (member_set_has(members, first))
		return first;
	for (uint16_t n = 0; n < node->members->number_count; n++)
		if (member_set_has(members, n) && members_about(node->members, n)->cores)
			return n;
	return node->self;
}

int policy_create(struct node *node, char *why, size_t why_size)
{
	const struct pod_config *config = node->config;
	struct member_set members;
	members_active(node->members, &members);
	member_set_add(&members, node->self);
	struct placer_config placer = {
		.placement = { .self = node->self,
			       .node_count = node->members->number_count,
			       .members = members,
			       .gather_node = gather_node(node, &members),
			       .vcpu_count = config->vcpu_count,
			       .policy = config->policy,
			       .move_ns = MOVE_NS,
			       .refault_ns = REFAULT_NS,
			       .seed = pod_config_digest(config) },
		.cores = cores_of(node),
		.traces_pins = members_seat_is_here(node->members, SEAT_WORDS),
		.ops = &ops,
		.ctx = node,
	};
	if (!node_moves(node) || !members_may_have_others(node->members))
		return 0;
	int r = placer_create(&placer, config->vcpu_node, &node->placer);
	return r || !config->policy_state[0] ? r : open_state(node, why, why_size);
}

void policy_members(struct node *node, const struct member_set *members, bool newcomer)
{
	placer_members(node->placer, members, gather_node(node, members), newcomer);
}

void policy_introduce(struct node *node, uint16_t to)
{
	struct control_message msg; /* large, and little of it is sent */
	if (!node->placer || !members_seat_is_here(node->members, SEAT_WORDS))
		return;
	pthread_mutex_lock(&word_lock);
	msg.type = CONTROL_POLICY;
	for (int shadow = 0; shadow < 2; shadow++) {
		enum placement_policy policy =
			shadow ? placer_shadow(node->placer) : placer_policy(node->placer);
		msg.policy = (struct control_policy){ .policy = (uint8_t)policy, .shadow = shadow };
		node_send(node, to, &msg);
	}
	msg.type = CONTROL_PIN;
	for (uint32_t v = 0; v < node->config->vcpu_count; v++) {
		if (!placer_pinned(node->placer, v))
			continue;
		msg.pin = (struct control_pin){ .vcpu = (uint16_t)v, .pinned = true };
		node_send(node, to, &msg);
	}
	pthread_mutex_unlock(&word_lock);
}

void policy_end(struct node *node)
{
	policy_state_close(node->policy_state);
}

int policy_start(struct node *node)
{
	return placer_start(node->placer);
}

/* ---- words of the pod ------------------------------------------------------------------------ */

static void set_shadow(struct node *node, enum placement_policy policy)
{
	if (placer_set_shadow(node->placer, policy) < 0)
		node_say(node, "no memory for a shadow policy");
}

static void obey(struct node *node, const struct control_message *msg)
{
	if (msg->type == CONTROL_PIN)
		placer_pin(node->placer, msg->pin.vcpu, msg->pin.pinned);
	else if (msg->policy.shadow)
		set_shadow(node, (enum placement_policy)msg->policy.policy);
	else
		placer_set_policy(node->placer, (enum placement_policy)msg->policy.policy);
}

static void say_word(struct node *node, const struct control_message *msg)
{
	if (!members_seat_is_here(node->members, SEAT_WORDS)) {
		node_send_seat(node, SEAT_WORDS, msg);
		return;
	}
	pthread_mutex_lock(&word_lock);
	node_broadcast(node, msg);
	obey(node, msg);
	pthread_mutex_unlock(&word_lock);
}

/*
 * So that neither a program that calls without end nor a node that lies makes a flood of what is told
 * to all. A node keeps its users to WORD_NS and WORDS at once; who has WORDS believes twice as much, and
 * what may have been held up on the way: more is a lie. Node `from`'s are counted by one thread.
 */
static bool word_is_early(struct node *node, uint16_t from, uint64_t each_ns, uint64_t at_once)
{
	uint64_t now_ns = node_clock_local_ns(node->clock),
		 due_ns = atomic_load(&node->word_ns[from]);
	if (due_ns > now_ns + (at_once - 1) * each_ns)
		return true;
	atomic_store(&node->word_ns[from], (due_ns > now_ns ? due_ns : now_ns) + each_ns);
	return false;
}

const char *policy_message(struct node *node, const struct control_message *msg)
{
	struct placement_load load = { msg->load.cores, msg->load.awake };
	/* Where no vCPU may go there is no core, whatever it says. */
	if (msg->type == CONTROL_LOAD && members_state(node->members, msg->src) != MEMBER_ACTIVE)
		return NULL;
	if (msg->type == CONTROL_LOAD)
		placer_load(node->placer, msg->src, &load);
	else if (msg->type == CONTROL_OUTCOMES)
		placer_outcomes(node->placer, msg->src, msg->outcomes.outcome, msg->outcomes.count);
	else if (!members_seat_is_here(node->members, SEAT_WORDS))
		obey(node, msg);
	else if (word_is_early(node, msg->src, WORD_NS / 2, WORDS_HELD))
		return "again and again";
	else
		say_word(node, msg);
	return NULL;
}

/* ---- requests -------------------------------------------------------------------------------- */

static bool is_so(const struct node *node, const struct control_message *msg)
{
	if (msg->type == CONTROL_PIN)
		return placer_pinned(node->placer, msg->pin.vcpu) == msg->pin.pinned;
	if (msg->policy.shadow)
		return placer_shadow(node->placer) == msg->policy.policy;
	return placer_policy(node->placer) == msg->policy.policy;
}

/* False: the pod's word has not come, or the pod has ended. */
static bool say_and_wait(struct node *node, const struct control_message *msg)
{
	say_word(node, msg);
	for (uint32_t i = 0; i < WORD_MS && !is_so(node, msg) && !node_has_ended(node); i++)
		usleep(WORD_TURN_US);
	return is_so(node, msg);
}

/* NULL: vCPUs may move here. */
static char *cannot(const struct node *node)
{
	char line[128];
	if (!members_may_have_others(node->members))
		return node_answer(false, "a pod of one node has nowhere for vCPUs to go");
	if (!node->placer) {
		snprintf(line, sizeof(line), "vCPUs of a pod that has more than %u do not move",
			 NODE_VCPUS_MAX);
		return node_answer(false, line);
	}
	return atomic_load(&node->run_ns) ? NULL : node_answer(false, "the guest does not run yet");
}

static char *answer_word(struct node *node, const struct control_message *msg, const char *line)
{
	if (word_is_early(node, node->self, WORD_NS, WORDS))
		return node_answer(false,
				   "policy and pins change too often: try again in a second");
	if (say_and_wait(node, msg))
		return node_answer(true, line);
	if (node_has_ended(node))
		return node_answer(false, "the pod has ended");
	return node_answer(false, "the pod's first node does not answer: try again");
}

/* "base", or "base, learned rides along". */
static char *answer_policy(const struct node *node)
{
	enum placement_policy shadow = placer_shadow(node->placer);
	char line[128];
	snprintf(line, sizeof(line), "%s%s%s%s", placement_policy_name(placer_policy(node->placer)),
		 shadow == PLACEMENT_POLICIES ? "" : ", ",
		 shadow == PLACEMENT_POLICIES ? "" : placement_policy_name(shadow),
		 shadow == PLACEMENT_POLICIES ? "" : " rides along");
	return node_answer(true, line);
}

static char *no_policy(const char *word, bool shadow)
{
	char line[256], names[128];
	pod_config_policies(names, sizeof(names));
	snprintf(line, sizeof(line), "there is no policy '%s': it must be %s%s", word, names,
		 shadow ? "; or none" : "");
	return node_answer(false, line);
}

static char *set_policy(struct node *node, enum placement_policy policy, bool shadow)
{
	struct control_message msg = { .type = CONTROL_POLICY };
	char line[128], *no = cannot(node);
	if (no)
		return no;
	msg.policy = (struct control_policy){ .policy = (uint8_t)policy, .shadow = shadow };
	if (!shadow)
		snprintf(line, sizeof(line), "the policy is %s now", placement_policy_name(policy));
	else if (policy == PLACEMENT_POLICIES)
		snprintf(line, sizeof(line), "no other policy rides along");
	else
		snprintf(line, sizeof(line), "%s rides along: see eagre status",
			 placement_policy_name(policy));
	return answer_word(node, &msg, line);
}

char *policy_request(struct node *node, const char *words)
{
	enum placement_policy policy;
	if (!words[0])
		return answer_policy(node);
	if (placement_policy_parse(words, &policy) < 0)
		return no_policy(words, false);
	return set_policy(node, policy, false);
}

char *policy_shadow_request(struct node *node, const char *words)
{
	enum placement_policy policy = PLACEMENT_POLICIES;
	if (strcmp(words, "none") != 0 && placement_policy_parse(words, &policy) < 0)
		return no_policy(words, true);
	return set_policy(node, policy, true);
}

char *policy_pin_request(struct node *node, const char *words, bool pinned)
{
	struct control_message msg = { .type = CONTROL_PIN };
	char line[128], *no = NULL;
	uint32_t vcpu;
	if (!node_parse_vcpu(node, words, &vcpu, &no))
		return no;
	no = cannot(node);
	if (no)
		return no;
	msg.pin = (struct control_pin){ .vcpu = (uint16_t)vcpu, .pinned = pinned };
	snprintf(line, sizeof(line),
		 pinned ? "vCPU %u stays where it is now" : "vCPU %u may move again", vcpu);
	return answer_word(node, &msg, line);
}
