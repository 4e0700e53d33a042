/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a node, and the pod, does, as JSON: for `eagre status` and whoever reads it.
 *
 * The status socket's thread asks all nodes at once and waits for their answers, a second at most;
 * a node that does not answer is shown with an error in its place. The control thread brings the
 * answers.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "node/node_state.h"

#define ANSWER_SECONDS 1
#define HOT_PAGES      8

struct node_stats {
	struct node *node;
	pthread_mutex_t asking; /* one question at a time */

	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t answered;
	uint64_t id;
	uint32_t missing;
	json_t *answer[NODES_MAX];
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

static json_t *stalls_json(const struct pager_stats *stats)
{
	static const char *const names[COH_STALL_KINDS] = { "zero", "read", "write", "upgrade" };
	json_t *stalls = json_object();
	for (int k = 0; k < COH_STALL_KINDS; k++)
		set(stalls, names[k], stats->stall_count[k]);
	return stalls;
}

static json_t *hot_json(struct node *node)
{
	struct pager_hot_page page[HOT_PAGES];
	uint32_t count = pager_hot_pages(node->pager, page, HOT_PAGES);
	json_t *list = json_array();
	for (uint32_t i = 0; i < count; i++) {
		char gpa[32];
		snprintf(gpa, sizeof(gpa), "0x%llx",
			 (unsigned long long)(page[i].gpn << PAGE_SHIFT));
		json_t *entry = json_object();
		json_object_set_new(entry, "gpa", json_string(gpa));
		set(entry, "stalls", page[i].count);
		json_array_append_new(list, entry);
	}
	return list;
}

static const char *vcpu_state_name(const struct vcpu_stats *stats)
{
	if (stats->run_state == VCPU_WAIT_FOR_SIPI)
		return "waiting";
	switch (stats->activity) {
	case VCPU_IN_GUEST:
		return "running";
	case VCPU_SLEEPING:
		return "halted";
	case VCPU_IN_IO:
		return "io";
	case VCPU_ENDED:
		return "ended";
	default:
		return "outside";
	}
}

static json_t *vcpus_json(struct node *node)
{
	static const char *const exits[] = { "io",     "mmio",	 "msr_read", "msr_write", "hlt",
					     "window", "kicked", "shutdown", "failed" };
	json_t *list = json_array();
	for (uint32_t i = 0; i < node_vcpu_count(node); i++) {
		struct vcpu_stats stats;
		vcpu_stats(node->vcpu[i], &stats);
		json_t *entry = json_object(), *counts = json_object();
		set(entry, "number", vcpu_number(node->vcpu[i]));
		json_object_set_new(entry, "node",
				    json_string(node->config->node[node->self].name));
		json_object_set_new(entry, "state", json_string(vcpu_state_name(&stats)));
		set(entry, "stalls", pager_vcpu_stalls(node->pager, i));
		for (int k = 0; k <= EXIT_FAILED; k++)
			set(counts, exits[k], stats.exit_count[k]);
		json_object_set_new(entry, "exits", counts);
		char rip[24];
		snprintf(rip, sizeof(rip), "0x%llx", (unsigned long long)stats.rip);
		json_object_set_new(entry, "rip", json_string(rip));
		vcpu_sample(node->vcpu[i]); /* for the next who asks */
		set(entry, "interrupts", stats.interrupt_count);
		set(entry, "ipis", stats.ipi_count);
		json_array_append_new(list, entry);
	}
	return list;
}

static json_t *own_json(struct node *node)
{
	const struct node_config *config = &node->config->node[node->self];
	struct pager_stats stats;
	pager_stats_get(node->pager, &stats);
	json_t *o = json_object();
	set(o, "number", node->self);
	json_object_set_new(o, "name", json_string(config->name));
	json_object_set_new(o, "address", json_string(config->address));
	set(o, "vcpus", config->vcpu_count);
	set(o, "resident_bytes", (stats.pages_owned + stats.pages_shared) * PAGE_BYTES);
	set(o, "promised_bytes", config->memory);
	set(o, "pages_owned", stats.pages_owned);
	set(o, "pages_shared", stats.pages_shared);
	json_object_set_new(o, "stalls", stalls_json(&stats));
	set(o, "stall_p50_ns", pager_stats_quantile_ns(&stats, COH_STALL_KINDS, 0.5));
	set(o, "stall_p99_ns", pager_stats_quantile_ns(&stats, COH_STALL_KINDS, 0.99));
	set(o, "messages", stats.message_count);
	set(o, "bytes_out", stats.bytes_out);
	set(o, "bytes_in", stats.bytes_in);
	set(o, "pages_sent", stats.page_count);
	set(o, "deferred", stats.deferred_count);
	set(o, "hold_ns", stats.hold_ns);
	set(o, "evicted_pushed", stats.evict_push_count);
	set(o, "evicted_dropped", stats.evict_drop_count);
	set(o, "readahead", stats.readahead_count);
	set(o, "chunks_homed", stats.chunks_homed);
	set(o, "clock_error_ns", node_clock_error_ns(node->clock));
	json_object_set_new(o, "tsc_error_ns", json_integer(node_clock_tsc_error_ns(node->clock)));
	json_object_set_new(o, "hot_pages", hot_json(node));
	json_object_set_new(o, "vcpu_list", vcpus_json(node));
	return o;
}

char *stats_own(struct node *node)
{
	json_t *o = own_json(node);
	char *text = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	return text;
}

static void send_own(struct node *node, const struct control_message *request)
{
	char *text = stats_own(node);
	size_t size = text ? strlen(text) : 0;
	struct control_message reply = { .type = CONTROL_STATS_REPLY };
	reply.stats_reply = (struct control_stats_reply){ .id = request->stats_request.id,
							  .text = text,
							  .text_size = (uint32_t)size };
	if (text && size <= CONTROL_STATS_BYTES_MAX)
		node_send(node, request->src, &reply);
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
	json_t *answer = json_loadb(msg->stats_reply.text, msg->stats_reply.text_size, 0, NULL);
	pthread_mutex_lock(&s->lock);
	if (answer && json_is_object(answer) && msg->stats_reply.id == s->id &&
	    !s->answer[msg->src]) {
		s->answer[msg->src] = answer;
		answer = NULL;
		s->missing--;
		pthread_cond_signal(&s->answered);
	}
	pthread_mutex_unlock(&s->lock);
	json_decref(answer);
}

static void ask_all(struct node_stats *s)
{
	struct node *node = s->node;
	struct control_message msg = { .type = CONTROL_STATS_REQUEST };
	pthread_mutex_lock(&s->lock);
	msg.stats_request.id = ++s->id;
	s->missing = node->config->node_count - 1;
	pthread_mutex_unlock(&s->lock);
	node_broadcast(node, &msg);

	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += ANSWER_SECONDS;
	pthread_mutex_lock(&s->lock);
	while (s->missing)
		if (pthread_cond_timedwait(&s->answered, &s->lock, &until) == ETIMEDOUT)
			break;
	s->id++; /* later answers are not for us */
	pthread_mutex_unlock(&s->lock);
}

/* Takes node n's answer out of its place; own numbers where n is this node. */
static json_t *take_answer(struct node_stats *s, uint32_t n)
{
	if (n == s->node->self)
		return own_json(s->node);
	json_t *o = s->answer[n];
	s->answer[n] = NULL;
	if (o)
		return o;
	o = json_object();
	set(o, "number", n);
	json_object_set_new(o, "name", json_string(s->node->config->node[n].name));
	json_object_set_new(o, "address", json_string(s->node->config->node[n].address));
	json_object_set_new(o, "error", json_string("no answer within a second"));
	return o;
}

char *stats_pod(void *context)
{
	struct node *node = context;
	struct node_stats *s = node->stats;
	pthread_mutex_lock(&s->asking);
	ask_all(s);
	json_t *pod = json_object(), *nodes = json_array(), *vcpus = json_array();
	for (uint32_t n = 0; n < node->config->node_count; n++) {
		json_t *o = take_answer(s, n);
		json_t *list = json_object_get(o, "vcpu_list");
		if (json_is_array(list))
			json_array_extend(vcpus, list);
		json_object_del(o, "vcpu_list");
		json_array_append_new(nodes, o);
	}
	pthread_mutex_unlock(&s->asking);
	json_object_set_new(pod, "pod", json_string(node->config->name));
	json_object_set_new(pod, "state", json_string(node->run_ns ? "running" : "starting"));
	set(pod, "uptime_s", node->run_ns ? (node_now_ns(node) - node->run_ns) / 1000000000ull : 0);
	set(pod, "memory_bytes", node->config->memory);
	json_object_set_new(pod, "engine", json_string(node->options->engine->name));
	json_object_set_new(pod, "nodes", nodes);
	json_object_set_new(pod, "vcpus", vcpus);
	char *text = json_dumps(pod, JSON_COMPACT);
	json_decref(pod);
	return text;
}
