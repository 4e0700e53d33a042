/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a node, and the pod, does, as JSON: for `eagre status` and whoever reads it.
 *
 * The status socket's thread asks all nodes at once and waits for their answers, a second at most;
 * a node that does not answer is shown with an error in its place. The control thread brings the
 * answers, in parts, and does no more than put them together.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "node/deadline.h"
#include "node/node_state.h"
#include "node/placer.h"
#include "node/stats_json.h"

#define ANSWER_SECONDS 1

struct node_stats {
	struct node *node;
	pthread_mutex_t asking; /* one question at a time */

	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t answered;
	uint64_t id;
	uint32_t missing;
	struct stats_text answer[NODES_MAX];
};

int stats_create(struct node *node)
{
	struct node_stats *s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->node = node;
	pthread_mutex_init(&s->asking, NULL);
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->answered, NULL);
	node->stats = s;
	return 0;
}

static void set(json_t *object, const char *key, uint64_t value)
{
	json_object_set_new(object, key, json_integer((json_int_t)value));
}

/* malloc'd: the seats that vCPUs are or were at; *ret_here have one now. */
static struct stats_vcpu *seats_now(struct node *node, uint32_t *ret_count, uint32_t *ret_here)
{
	struct stats_vcpu *list = calloc(node_seat_count(node), sizeof(*list));
	uint32_t count = 0, here = 0;
	for (uint32_t v = 0; list && v < node->config->vcpu_count; v++) {
		struct vcpu_place place = vcpu_place_read(&node->places, v);
		if (!node->vcpu[v])
			continue;
		list[count] = (struct stats_vcpu){ .number = v, .here = node_has_vcpu(node, v) };
		vcpu_stats(node->vcpu[v], &list[count].stats);
		if (!list[count].here && !list[count].stats.here_ns)
			continue;
		list[count].moves = place.epoch;
		list[count].image_bytes = moves_image_bytes(node, v);
		list[count].pinned = placer_pinned(node->placer, v);
		list[count].stalls = pager_vcpu_stalls(node->pager, node_actor(node, v));
		list[count].stalled_ns = pager_vcpu_stalled_ns(node->pager, node_actor(node, v));
		if (!vcpu_core_times(node->vcpu[v], &list[count].cpu_ns, &list[count].core_wait_ns))
			list[count].cpu_ns = list[count].core_wait_ns = 0;
		if (list[count].here) {
			vcpu_sample(node->vcpu[v]); /* for the next who asks */
			here++;
		}
		count++;
	}
	*ret_count = count;
	*ret_here = here;
	return list;
}

static char *stats_own(struct node *node)
{
	const struct node_config *config = node_own(node);
	uint32_t count, here;
	struct stats_vcpu *seats = seats_now(node, &count, &here);
	struct stats_node now = {
		.number = node->self,
		.name = config->name,
		.address = config->address,
		.engine = node->options->engine->name,
		.promised_bytes = config->memory,
		.clock_error_ns = node_clock_error_ns(node->clock),
		.tsc_error_ns = node_clock_tsc_error_ns(node->clock),
		.tsc_bound_ns = node_clock_tsc_bound_ns(node->clock),
		.time_ns = node_now_ns(node),
		.step = members_step(node->members),
		.steward = members_name(node->members, members_seat(node->members, SEAT_STEWARD)),
		.vcpu_count = here,
		.seat_count = count,
		.seat = seats,
	};
	node_clock_tsc(node->clock, &now.tsc);
	now.tsc_khz = node->start.tsc_khz;
	placer_stats(node->placer, &now.placer);
	queues_counts(node, &now.queues);
	now.record_count = placer_records(node->placer, false, now.record, STATS_RECORDS);
	now.choice_count = placer_choices(node->placer, false, now.choice, STATS_CHOICES);
	now.shadow_count = placer_records(node->placer, true, now.shadow, STATS_RECORDS);
	now.shadow_choice_count =
		placer_choices(node->placer, true, now.shadow_choice, STATS_CHOICES);
	pager_stats_get(node->pager, &now.pager);
	io_stats_get(node, &now.io);
	now.hot_count = pager_hot_pages(node->pager, now.hot, STATS_HOT_PAGES);
	char *text = stats_json(&now);
	free(seats);
	return text;
}

/* Of an answer's 1 MiB, for a trace's lines. */
#define TRACE_TEXT_MAX (900u << 10)

/* Lines as they are in a trace (core/placement_trace.h). Returns how many there was no room for. */
static uint64_t put_events(json_t *events, const struct placer_trace *trace)
{
	struct placement_trace_writer writer = { 0 };
	char line[PLACEMENT_TRACE_LINE];
	size_t sum = 0;
	for (uint32_t i = 0; i < trace->count; i++) {
		int length = placement_trace_put(&writer, &trace->event[i], line, sizeof(line));
		if (length < 1)
			continue;
		sum += (size_t)length + 3;
		if (sum > TRACE_TEXT_MAX)
			return trace->count - i;
		json_array_append_new(events, json_stringn(line, (size_t)length - 1));
	}
	return 0;
}

/* What has happened here since somebody asked the last time. */
static char *trace_own(struct node *node)
{
	struct placer_trace *trace = NULL;
	json_t *o = json_object(), *events = json_array(), *here = json_array();
	set(o, "number", node->self);
	set(o, "time_ns", node_now_ns(node));
	for (uint32_t v = 0; v < node->config->vcpu_count; v++)
		if (node_has_vcpu(node, v))
			json_array_append_new(here, json_integer(v));
	if (placer_trace(node->placer, &trace) == 0) {
		json_object_set_new(o, "begun", json_boolean(trace->begun));
		set(o, "lost", trace->lost + put_events(events, trace));
		set(o, "move_ns", trace->move_ns);
	}
	free(trace);
	json_object_set_new(o, "here", here);
	json_object_set_new(o, "events", events);
	char *text = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	return text;
}

static char *text_own(struct node *node, uint64_t what)
{
	return what == CONTROL_STATS_TRACE ? trace_own(node) : stats_own(node);
}

static void send_own(struct node *node, const struct control_message *request)
{
	char *text = text_own(node, request->stats_request.what);
	uint32_t size = text ? (uint32_t)strlen(text) : 0;
	struct control_message reply = { .type = CONTROL_STATS_REPLY };
	reply.stats_reply.id = request->stats_request.id;
	for (uint32_t offset = 0; offset < size; offset += reply.stats_reply.text_size) {
		stats_part(text, size, offset, &reply.stats_reply);
		node_send(node, request->src, &reply);
	}
	free(text);
}

void stats_reply(struct node *node, const struct control_message *msg)
{
	struct node_stats *s = node->stats;
	if (!atomic_load(&node->vcpus_exist) || !s)
		return;
	if (msg->type == CONTROL_STATS_REQUEST) {
		send_own(node, msg);
		return;
	}
	pthread_mutex_lock(&s->lock);
	struct stats_text *answer = &s->answer[msg->src];
	/* Nobody sends more than he was asked for: what is whole takes no further part. */
	if (msg->stats_reply.id == s->id && stats_text_add(answer, &msg->stats_reply) == 1) {
		s->missing--;
		pthread_cond_signal(&s->answered);
	}
	pthread_mutex_unlock(&s->lock);
}

/* Who joins, or has gone, is shown without numbers of its own. */
static bool answers(const struct node *node, uint16_t n)
{
	enum member_state state = members_state(node->members, n);
	return state == MEMBER_ACTIVE || state == MEMBER_DRAINING;
}

static void ask_all(struct node_stats *s, uint64_t what)
{
	struct node *node = s->node;
	struct control_message msg = { .type = CONTROL_STATS_REQUEST };
	pthread_mutex_lock(&s->lock);
	msg.stats_request = (struct control_stats_request){ .id = ++s->id, .what = what };
	s->missing = 0;
	members_for_each_other(node->members, n)
		s->missing += answers(node, n);
	pthread_mutex_unlock(&s->lock);
	members_for_each_other(node->members, n)
		if (answers(node, n))
			node_send(node, n, &msg);

	struct timespec until = deadline_after_ms(ANSWER_SECONDS * 1000);
	pthread_mutex_lock(&s->lock);
	while (s->missing)
		if (deadline_wait(&s->answered, &s->lock, &until) == ETIMEDOUT)
			break;
	s->id++; /* later answers are not for us */
	pthread_mutex_unlock(&s->lock);
}

/* Node n's answer as an object, if it is whole and is one. */
static json_t *answer_of(struct node_stats *s, uint32_t n, uint64_t what)
{
	struct stats_text *answer = &s->answer[n];
	json_t *o = NULL;
	if (n == s->node->self) {
		char *text = text_own(s->node, what);
		o = text ? json_loads(text, 0, NULL) : NULL;
		free(text);
	} else if (answer->have && answer->have == answer->total) {
		o = json_loadb(answer->text, answer->total, 0, NULL);
	}
	stats_text_free(answer);
	if (json_is_object(o))
		return o;
	json_decref(o);
	return NULL;
}

/* Takes node n's answer out of its place; own numbers where n is this node. */
static json_t *take_answer(struct node_stats *s, uint32_t n, uint64_t what)
{
	json_t *o = answer_of(s, n, what);
	if (o)
		return o;
	o = json_object();
	set(o, "number", n);
	json_object_set_new(o, "name", json_string(members_name(s->node->members, n)));
	json_object_set_new(o, "address", json_string(members_about(s->node->members, n)->address));
	/* Who joins, or has left, was not asked. */
	json_object_set_new(o, "error",
			    json_string(answers(s->node, (uint16_t)n) ? "no answer within a second"
								      : "no numbers of it"));
	return o;
}

/* By number. One that moves may be told of by two nodes, at different times: the later counts. */
static void take_vcpus(json_t *list, json_t **vcpu, uint32_t count)
{
	size_t i;
	json_t *v;
	json_array_foreach(list, i, v)
	{
		json_int_t number = json_integer_value(json_object_get(v, "number"));
		json_int_t moves = json_integer_value(json_object_get(v, "moves"));
		if (number < 0 || number >= (json_int_t)count)
			continue;
		if (vcpu[number] &&
		    json_integer_value(json_object_get(vcpu[number], "moves")) >= moves)
			continue;
		json_decref(vcpu[number]);
		vcpu[number] = json_incref(v);
	}
}

/* One that no node told of was on its way: nothing is known of it but where it was last. */
static json_t *moving_vcpu(const struct node *node, uint32_t number)
{
	static const char *const counts[] = { "move_ns",    "image_bytes", "stalls",
					      "interrupts", "ipis",	   "rekicks" };
	struct vcpu_place place = vcpu_place_read(&node->places, number);
	json_t *v = json_object();
	set(v, "number", number);
	json_object_set_new(v, "node", json_string(members_name(node->members, place.node)));
	json_object_set_new(v, "state", json_string("moving"));
	set(v, "moves", place.epoch);
	json_object_set_new(v, "exits", json_object());
	json_object_set_new(v, "rip", json_string("0x0"));
	json_object_set_new(v, "pinned", json_false());
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
		set(v, counts[i], 0);
	return v;
}

static const char *state_text(const struct node *node, uint16_t n)
{
	switch (members_state(node->members, n)) {
	case MEMBER_JOINING:
		return "joins";
	case MEMBER_DRAINING:
		return "leaves";
	case MEMBER_ACTIVE:
		return "member";
	default: /* also who was still there when it was asked */
		return "has left";
	}
}

char *stats_pod(struct node *node)
{
	struct node_stats *s = node->stats;
	pthread_mutex_lock(&s->asking);
	ask_all(s, CONTROL_STATS_NUMBERS);
	json_t *pod = json_object(), *nodes = json_array(), *vcpus = json_array();
	json_t *vcpu[VCPUS_MAX] = { NULL };
	bool whole = true; /* all nodes have answered */
	members_for_each(node->members, n) {
		json_t *o = take_answer(s, n, CONTROL_STATS_NUMBERS);
		json_t *list = json_object_get(o, "vcpu_list");
		whole = whole && !json_object_get(o, "error");
		take_vcpus(list, vcpu, node->config->vcpu_count);
		json_object_del(o, "vcpu_list");
		json_object_set_new(o, "state", json_string(state_text(node, n)));
		json_array_append_new(nodes, o);
	}
	for (uint32_t v = 0; v < node->config->vcpu_count; v++)
		if (vcpu[v])
			json_array_append_new(vcpus, vcpu[v]);
		else if (whole)
			json_array_append_new(vcpus, moving_vcpu(node, v));
	pthread_mutex_unlock(&s->asking);
	json_object_set_new(pod, "pod", json_string(node->config->name));
	json_object_set_new(pod, "state", json_string(node->run_ns ? "running" : "starting"));
	set(pod, "uptime_s", node->run_ns ? (node_now_ns(node) - node->run_ns) / 1000000000ull : 0);
	set(pod, "memory_bytes", node->config->memory);
	json_object_set_new(pod, "engine", json_string(node->options->engine->name));
	json_object_set_new(pod, "policy",
			    json_string(placement_policy_name(placer_policy(node->placer))));
	json_object_set_new(pod, "nodes", nodes);
	json_object_set_new(pod, "vcpus", vcpus);
	set(pod, "vcpu_count", node->config->vcpu_count);
	char *text = json_dumps(pod, JSON_COMPACT);
	json_decref(pod);
	return text;
}

char *stats_end(struct node *node)
{
	json_t *o = json_object();
	pthread_mutex_lock(&node->lock);
	if (node->leaves)
		json_object_set_new(o, "left", json_string(node_own(node)->name));
	else
		json_object_set_new(o, "error", json_string(node->end.text));
	pthread_mutex_unlock(&node->lock);
	char *text = json_dumps(o, JSON_COMPACT | JSON_ENSURE_ASCII);
	json_decref(o);
	return text;
}

char *stats_trace(struct node *node)
{
	struct node_stats *s = node->stats;
	json_t *pod = json_object(), *nodes = json_array();
	pthread_mutex_lock(&s->asking);
	ask_all(s, CONTROL_STATS_TRACE);
	members_for_each(node->members, n)
		json_array_append_new(nodes, take_answer(s, n, CONTROL_STATS_TRACE));
	pthread_mutex_unlock(&s->asking);
	set(pod, "vcpus", node->config->vcpu_count);
	json_object_set_new(pod, "nodes", nodes);
	char *text = json_dumps(pod, JSON_COMPACT);
	json_decref(pod);
	return text;
}
