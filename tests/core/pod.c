/* SPDX-License-Identifier: Apache-2.0 */
/* The pod of directed tests; see the header. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/core/pod.h"

static struct coh_action actions[COH_ACTIONS_MIN];

struct coh_config pod_config(void)
{
	return (struct coh_config){
		.actor_count = 4,
		.gpn_limit = POD_PAGES,
		.capacity = 1024,
		.window = 32,
		.zero_batch = 1,
		.hold_ns = 10000,
		.hold_ns_max = 1000000,
	};
}

struct pod *pod_new(uint32_t node_count, const struct coh_config *config)
{
	struct pod *pod = calloc(1, sizeof(*pod));

	assert_non_null(pod);
	assert_true(node_count <= POD_NODES);
	pod->config = *config;
	pod->node_count = node_count;
	pod->now_ns = 1000;
	for (uint32_t i = 0; i < node_count; i++) {
		struct coh_config c = *config;

		c.self = (uint16_t)i;
		c.node_count = (uint16_t)node_count;
		if (member_set_count(&c.members) && !member_set_has(&c.members, c.self))
			continue;
		assert_int_equal(coh_create(&c, &pod->node[i].coh), 0);
	}
	return pod;
}

void pod_free(struct pod *pod)
{
	for (uint32_t i = 0; i < pod->node_count; i++)
		coh_destroy(pod->node[i].coh);
	free(pod);
}

static void set_access(struct pod *pod, uint32_t n, uint64_t gpn, uint8_t access)
{
	struct pod_node *node = &pod->node[n];

	node->resident += (access != COH_NONE) - (node->access[gpn] != COH_NONE);
	node->access[gpn] = access;
	for (uint32_t i = 0; i < pod->node_count; i++) {
		uint8_t other = pod->node[i].access[gpn];

		if (pod->lenient || i == n || !access || !other)
			continue;
		if (access == COH_WRITE || other == COH_WRITE)
			fail_msg("page %lu: nodes %u (%u) and %u (%u)", gpn, n, access, i, other);
	}
}

static void link_put(struct pod *pod, uint32_t from, const struct coh_action *a)
{
	struct pod_link *link = &pod->link[from][a->to];
	struct pod_packet *p = &link->packet[(link->head + link->count++) % POD_LINK];

	assert_true(link->count <= POD_LINK);
	assert_int_not_equal(a->to, from);
	p->msg = a->msg;
	p->content = 0;
	p->at_ns = 0;
	if (a->kind == COH_SEND_PAGE) {
		assert_true(a->msg.flags & COH_MSG_DATA);
		if (!pod->lenient)
			assert_int_equal(pod->node[from].access[a->msg.gpn], COH_READ);
		p->content = pod->node[from].content[a->msg.gpn];
		pod->pages_sent++;
	} else {
		assert_false(a->msg.flags & COH_MSG_DATA);
	}
	pod->sent[a->msg.type]++;
}

static void wake(struct pod_node *node, uint64_t gpn, uint8_t access)
{
	node->wakes++;
	for (uint32_t i = 0; i < POD_ACTORS; i++)
		if (node->waiting[i] && node->wait_gpn[i] == gpn && node->wait_want[i] <= access)
			node->waiting[i] = false;
}

static void install(struct pod *pod, uint32_t n, const struct coh_action *a, uint64_t content)
{
	if (!pod->lenient)
		assert_int_equal(pod->node[n].access[a->gpn], COH_NONE);
	pod->node[n].content[a->gpn] = content;
	set_access(pod, n, a->gpn, a->access);
}

static void carry_out(struct pod *pod, uint32_t n, const struct coh_out *out, uint64_t content)
{
	struct pod_node *node = &pod->node[n];

	for (uint32_t i = 0; i < out->count; i++) {
		const struct coh_action *a = &out->action[i];

		switch (a->kind) {
		case COH_SEND:
		case COH_SEND_PAGE:
			link_put(pod, n, a);
			break;
		case COH_PROTECT:
			if (!pod->lenient)
				assert_int_not_equal(node->access[a->gpn], COH_NONE);
			set_access(pod, n, a->gpn, a->access);
			break;
		case COH_INSTALL_DATA:
			install(pod, n, a, content);
			break;
		case COH_INSTALL_ZERO:
			install(pod, n, a, 0);
			break;
		case COH_WAKE:
			wake(node, a->gpn, a->access);
			node->sharers = a->msg.acks;
			break;
		case COH_PINNED:
			node->waiting[a->actor] = false;
			node->pinned[a->actor] = true;
			break;
		case COH_FREED_PAGES:
			node->frees++;
			node->freed = a->msg.age;
			break;
		}
		assert_true(node->resident <= pod->config.capacity);
	}
}

static void finish(struct pod *pod, uint32_t n, int ret, const struct coh_out *out,
		   uint64_t content)
{
	if (ret && !pod->error)
		pod->error = ret;
	if (!pod->lenient)
		assert_int_equal(ret, 0);
	carry_out(pod, n, out, content);
}

#define OUT() ((struct coh_out){ .action = actions, .capacity = COH_ACTIONS_MIN })

static void wait_begin(struct pod *pod, uint32_t n, uint32_t actor, uint64_t gpn, uint8_t want)
{
	pod->node[n].waiting[actor] = true;
	pod->node[n].wait_gpn[actor] = gpn;
	pod->node[n].wait_want[actor] = want;
}

void pod_stall(struct pod *pod, uint32_t n, uint32_t actor, uint64_t gpn, enum coh_access want)
{
	struct coh_out out = OUT();

	wait_begin(pod, n, actor, gpn, (uint8_t)want);
	finish(pod, n, coh_stall(pod->node[n].coh, actor, gpn, want, pod->now_ns, &out), &out, 0);
}

void pod_pin(struct pod *pod, uint32_t n, uint32_t actor, uint64_t gpn, enum coh_access want)
{
	struct coh_out out = OUT();

	wait_begin(pod, n, actor, gpn, (uint8_t)want);
	finish(pod, n, coh_pin(pod->node[n].coh, actor, gpn, want, pod->now_ns, &out), &out, 0);
}

void pod_fetch(struct pod *pod, uint32_t n, uint64_t gpn, enum coh_access want)
{
	struct coh_out out = OUT();

	finish(pod, n, coh_fetch(pod->node[n].coh, gpn, want, pod->now_ns, &out), &out, 0);
}

int pod_pin_here(struct pod *pod, uint32_t n, uint32_t actor, uint64_t gpn, enum coh_access want)
{
	struct coh_out out = OUT();
	int error = coh_pin_here(pod->node[n].coh, actor, gpn, want, pod->now_ns, &out);

	if (error < 0) {
		assert_int_equal(out.count, 0);
		return error;
	}
	wait_begin(pod, n, actor, gpn, (uint8_t)want);
	finish(pod, n, 0, &out, 0);
	return 0;
}

int pod_untouch(struct pod *pod, uint32_t n, uint64_t first, uint64_t mask)
{
	struct coh_out out = OUT();
	int error = coh_free(pod->node[n].coh, first, mask, pod->now_ns, &out);

	if (error < 0)
		return error;
	finish(pod, n, 0, &out, 0);
	return 0;
}

void pod_unpin(struct pod *pod, uint32_t n, uint32_t actor)
{
	struct coh_out out = OUT();

	pod->node[n].pinned[actor] = false;
	finish(pod, n, coh_unpin(pod->node[n].coh, actor, pod->now_ns, &out), &out, 0);
}

void pod_release(struct pod *pod, uint32_t n)
{
	struct coh_out out = OUT();

	finish(pod, n, coh_release_all(pod->node[n].coh, pod->now_ns, &out), &out, 0);
}

void pod_member(struct pod *pod, uint32_t n, uint16_t about, enum member_state state)
{
	struct coh_out out = OUT();

	finish(pod, n, coh_member(pod->node[n].coh, about, state, pod->now_ns, &out), &out, 0);
}

void pod_linked(struct pod *pod, uint32_t n, uint16_t with)
{
	struct coh_out out = OUT();

	finish(pod, n, coh_linked(pod->node[n].coh, with, pod->now_ns, &out), &out, 0);
}

void pod_unlinked(struct pod *pod, uint32_t n, uint16_t with)
{
	struct coh_out out = OUT();

	finish(pod, n, coh_unlinked(pod->node[n].coh, with, pod->now_ns, &out), &out, 0);
}

void pod_release_cancel(struct pod *pod, uint32_t n)
{
	struct coh_out out = OUT();

	finish(pod, n, coh_release_cancel(pod->node[n].coh, pod->now_ns, &out), &out, 0);
}

void pod_join(struct pod *pod, uint32_t n, const struct member_set *members)
{
	struct coh_config config = pod->config;

	assert_null(pod->node[n].coh);
	config.self = (uint16_t)n;
	config.node_count = (uint16_t)pod->node_count;
	config.members = *members;
	config.joins = true;
	assert_int_equal(coh_create(&config, &pod->node[n].coh), 0);
}

void pod_tick(struct pod *pod, uint32_t n)
{
	struct coh_out out = OUT();

	finish(pod, n, coh_tick(pod->node[n].coh, pod->now_ns, &out), &out, 0);
}

uint8_t pod_peek(const struct pod *pod, uint32_t from, uint32_t to)
{
	const struct pod_link *link = &pod->link[from][to];

	return link->count ? link->packet[link->head].msg.type : 0;
}

void pod_deliver(struct pod *pod, uint32_t from, uint32_t to)
{
	struct pod_link *link = &pod->link[from][to];
	struct coh_out out = OUT();
	struct pod_packet p;
	int ret;

	assert_true(link->count);
	p = link->packet[link->head];
	link->head = (link->head + 1) % POD_LINK;
	link->count--;
	ret = coh_message(pod->node[to].coh, &p.msg, pod->now_ns, &out);
	if (ret && !pod->lenient)
		print_error("node %u: %d for message type %u from %u about page %lu\n", to, ret,
			    p.msg.type, from, p.msg.gpn);
	finish(pod, to, ret, &out, p.content);
}

static bool deliver_any(struct pod *pod)
{
	bool any = false;

	for (uint32_t i = 0; i < pod->node_count; i++) {
		for (uint32_t k = 0; k < pod->node_count; k++) {
			if (!pod->link[i][k].count)
				continue;
			pod_deliver(pod, i, k);
			any = true;
		}
		while (pod->node[i].coh && coh_deadline(pod->node[i].coh) == 0) {
			pod_tick(pod, i);
			any = true;
		}
	}
	return any;
}

void pod_settle(struct pod *pod)
{
	while (deliver_any(pod))
		;
}

void pod_run(struct pod *pod, uint64_t ns)
{
	uint64_t end = pod->now_ns + ns;

	for (;;) {
		uint64_t next = UINT64_MAX;

		pod_settle(pod);
		for (uint32_t i = 0; i < pod->node_count; i++)
			if (pod->node[i].coh && coh_deadline(pod->node[i].coh) < next)
				next = coh_deadline(pod->node[i].coh);
		if (next > end)
			break;
		if (next > pod->now_ns)
			pod->now_ns = next;
		for (uint32_t i = 0; i < pod->node_count; i++)
			if (pod->node[i].coh && coh_deadline(pod->node[i].coh) <= pod->now_ns)
				pod_tick(pod, i);
	}
	pod->now_ns = end;
}

static void access_page(struct pod *pod, uint32_t n, uint32_t actor, uint64_t gpn, uint8_t want)
{
	struct pod_node *node = &pod->node[n];

	for (uint32_t i = 0; i < 1000 && node->access[gpn] < want; i++) {
		pod_stall(pod, n, actor, gpn, want);
		for (uint32_t k = 0; k < 1000 && node->waiting[actor]; k++)
			pod_run(pod, 1000);
		assert_false(node->waiting[actor]);
	}
	assert_true(node->access[gpn] >= want);
}

void pod_write(struct pod *pod, uint32_t n, uint32_t actor, uint64_t gpn, uint64_t value)
{
	access_page(pod, n, actor, gpn, COH_WRITE);
	pod->node[n].content[gpn] = value;
}

uint64_t pod_read(struct pod *pod, uint32_t n, uint32_t actor, uint64_t gpn)
{
	access_page(pod, n, actor, gpn, COH_READ);
	return pod->node[n].content[gpn];
}

uint32_t pod_count(const struct pod *pod, uint8_t type)
{
	return pod->sent[type];
}

void pod_check(const struct pod *pod)
{
	for (uint32_t i = 0; i < pod->node_count; i++)
		for (uint64_t gpn = 0; pod->node[i].coh && gpn < pod->config.gpn_limit; gpn++)
			assert_int_equal(coh_access(pod->node[i].coh, gpn),
					 pod->node[i].access[gpn]);
}
