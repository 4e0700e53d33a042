/* SPDX-License-Identifier: Apache-2.0 */
/* A pod whose members come and go: see changing_pod.h. */
#include "tests/test.h"
#include "tests/memory/changing_pod.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "link/tcp.h"
#include "tests/link/mesh_pod.h"
#include "tests/link/support.h"

#define WAIT_MS 20000

/* --- what pagers say --- */

static void ring(struct changing_pod *pod)
{
	uint64_t one = 1;

	assert_int_equal(write(pod->event_fd, &one, sizeof(one)), sizeof(one));
}

static void members_changed(void *arg)
{
	ring(((struct host *)arg)->pod);
}

static void link_ended(void *arg, uint16_t node, int error, const char *cause)
{
	struct host *host = arg;

	(void)error;
	(void)cause;
	atomic_store(&host->lost[node], true);
	atomic_fetch_add(&host->ended, 1);
	ring(host->pod);
}

static void failed(void *arg, uint16_t node, int error, const char *cause)
{
	struct host *host = arg;

	host->failed_node = node;
	host->failed_error = error;
	snprintf(host->cause, sizeof(host->cause), "%s", cause);
	atomic_fetch_add(&host->failures, 1);
	ring(host->pod);
}

void pod_assert_well(struct changing_pod *pod)
{
	for (uint16_t i = 0; i < HOSTS; i++)
		if (atomic_load(&pod->host[i].failures))
			fail_msg("node %u: node %u: %s", i, pod->host[i].failed_node,
				 pod->host[i].cause);
}

/* --- hosts --- */

static void create_host(struct host *host, const struct pager_config *who)
{
	struct changing_pod *pod = host->pod;
	struct guest_memory_config memory = { .range = { { 0, pod->memory_bytes } },
					      .range_count = 1,
					      .shard_count = pod->shard_count };
	struct pager_config config = *who;

	config.self = host->self;
	config.node_count = HOSTS;
	config.vcpu_count = 2;
	config.port_count = 1;
	config.capacity_bytes = pod->capacity_bytes;
	config.spin = pod->spin;
	config.unlink_ns = pod->unlink_ns;
	config.failed = failed;
	config.members_changed = members_changed;
	config.link_ended = link_ended;
	config.arg = host;
	assert_int_equal(guest_memory_create(&memory, &host->memory), 0);
	config.memory = host->memory;
	assert_int_equal(pager_create(&config, &host->pager), 0);
	host->there = true;
}

/* The channels of a pair, which nobody has yet. */
static void make_channels(struct host *a, struct host *b)
{
	for (uint32_t shard = 0; shard < a->pod->shard_count; shard++) {
		int fd[2];

		assert_int_equal(
			socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
		assert_int_equal(tcp_page_create(stream_plain(fd[0]), b->self, 0,
						 &a->channel[b->self][shard]),
				 0);
		assert_int_equal(tcp_page_create(stream_plain(fd[1]), a->self, 0,
						 &b->channel[a->self][shard]),
				 0);
	}
}

static void add_channels(struct host *host, uint16_t peer)
{
	for (uint32_t shard = 0; shard < host->pod->shard_count; shard++)
		assert_int_equal(pager_add_channel(host->pager, shard, host->channel[peer][shard]),
				 0);
}

static void close_channels(struct host *host, uint16_t peer)
{
	if (host->pod->mesh) {
		mesh_forget(host->pod->mesh[host->self].mesh, peer);
		host->pod->mesh[host->self].linked[peer] = 0;
		memset(host->channel[peer], 0, sizeof(host->channel[peer]));
		return;
	}
	for (uint32_t shard = 0; shard < host->pod->shard_count; shard++) {
		struct page_channel *channel = host->channel[peer][shard];

		if (channel)
			channel->ops->destroy(channel);
		host->channel[peer][shard] = NULL;
	}
}

/* What it said and nobody has heard yet. */
static void forget_words(struct host *host, uint16_t src)
{
	for (uint32_t i = host->count; i > 0; i--) {
		struct letter letter = host->letter[host->first];

		host->first = (host->first + 1) % HOST_WORDS;
		if (letter.src == src)
			host->count--;
		else
			host->letter[(host->first + host->count - 1) % HOST_WORDS] = letter;
	}
}

void host_end(struct host *host)
{
	if (!host->there)
		return;
	for (uint16_t i = 0; i < HOSTS; i++)
		forget_words(&host->pod->host[i], host->self);
	pager_stop(host->pager);
	pager_destroy(host->pager);
	if (host->pod->mesh)
		node_end(&host->pod->mesh[host->self]);
	for (uint16_t peer = 0; peer < HOSTS && !host->pod->mesh; peer++)
		close_channels(host, peer);
	guest_memory_destroy(host->memory);
	host->there = false;
}

/* Meshes of those that are there from the start. */
static void bring_up_meshes(struct changing_pod *pod, uint16_t member_count)
{
	static const char secret[] = "the pier stays";

	pod->mesh = pod_make(HOSTS);
	for (uint16_t i = 0; i < HOSTS; i++) {
		struct node *node = &pod->mesh[i];

		for (uint16_t k = 0; k < HOSTS; k++)
			if (k != i && k >= member_count)
				node->peers[k].name = NULL;
		node->config.shard_count = (uint16_t)pod->shard_count;
		node->config.handshake_ms = 10000;
		node->config.encrypt = pod->encrypt;
		node->config.secret = secret;
		node->config.secret_size = pod->encrypt ? sizeof(secret) : 0;
		if (i < member_count)
			node_start(node);
	}
	for (uint16_t i = 0; i < member_count; i++)
		assert_int_equal(node_finish(&pod->mesh[i]), 0);
}

static void take_channels(struct host *host, uint16_t peer)
{
	for (uint32_t shard = 0; shard < host->pod->shard_count; shard++)
		host->channel[peer][shard] =
			mesh_pages(host->pod->mesh[host->self].mesh, peer, (uint16_t)shard);
}

static void expect_joiner(struct host *host, const struct member_word *step)
{
	struct node *mesh = &host->pod->mesh[host->self];
	const struct mesh_node node = { node_names[step->node], mesh->peers[step->node].address };
	char why[MESH_WHY_MAX] = "";

	assert_int_equal(mesh_expect(mesh->mesh, step->node, &node, step->number, why, sizeof(why)),
			 0);
}

/* It has been given the list, and dials all members. */
static void begin_joiner_mesh(struct changing_pod *pod, uint16_t number, uint64_t join)
{
	struct node *node = &pod->mesh[number];

	for (uint16_t i = 0; i < HOSTS; i++)
		node->peers[i].name =
			i == number || member_list_counts(&pod->host[pod->sponsor].list, i)
				? node_names[i]
				: NULL;
	node->config.join = join;
	node_start(node);
}

/* This node's turn with its mesh: who has linked is the pager's from now on. */
static void follow_mesh(struct host *host)
{
	struct node *mesh = &host->pod->mesh[host->self];

	mesh_poll(mesh->mesh);
	for (uint16_t node = 0; node < HOSTS; node++) {
		if (!mesh->linked[node] || host->channel[node][0] || host->late)
			continue;
		take_channels(host, node);
		assert_int_equal(pager_link(host->pager, host->channel[node]), 0);
	}
}

static void beat(struct changing_pod *pod)
{
	static const struct control_message word = { .type = CONTROL_HEARTBEAT };

	if (test_now_ns() < pod->beat_ns)
		return;
	pod->beat_ns = test_now_ns() + 500000000;
	for (uint16_t i = 0; i < HOSTS; i++)
		if (pod->host[i].there)
			mesh_tell(pod->mesh[i].mesh, &word, NODE_NONE);
}

/* It has been given the list, and links with all that are members; these hear of it one by one. */
static void begin_joiner(struct changing_pod *pod, uint16_t number, uint16_t sponsor)
{
	const struct member_snapshot *now = &pod->host[sponsor].list.now;
	struct host *host = &pod->host[number];
	struct pager_config who = { .joins = true };

	*host = (struct host){ .pod = pod, .self = number };
	assert_int_equal(member_list_init_joiner(&host->list, number, now), 0);
	for (uint16_t node = 0; node < HOSTS; node++) {
		if (now->member[node].state != MEMBER_FREE)
			member_set_add(&who.members, node);
		if (now->member[node].state == MEMBER_DRAINING)
			member_set_add(&who.draining, node);
		if (now->member[node].state == MEMBER_GONE)
			member_set_add(&who.gone, node);
	}
	create_host(host, &who);
	for (uint16_t node = 0; node < HOSTS; node++) {
		struct host *peer = &pod->host[node];

		if (!member_list_counts(&host->list, node) || node == number)
			continue;
		assert_int_equal(pager_start(host->pager), -ENOTCONN);
		if (pod->mesh)
			take_channels(host, node);
		else
			make_channels(host, peer);
		add_channels(host, node);
		if (!pod->mesh)
			assert_int_equal(pager_link(peer->pager, peer->channel[number]), 0);
	}
	assert_int_equal(pager_start(host->pager), 0);
}

/* --- turns --- */

static uint64_t now_ns(void)
{
	return 1;
}

static void post(struct changing_pod *pod, uint16_t src, uint16_t dst,
		 const struct member_word *word)
{
	struct host *to = &pod->host[dst];

	if (!to->there)
		return;
	assert_true(to->count < HOST_WORDS);
	to->letter[(to->first + to->count++) % HOST_WORDS] = (struct letter){ src, *word };
}

static void apply(struct host *host, const struct member_word *step)
{
	static const enum member_state states[] = {
		[KIND_JOIN] = MEMBER_JOINING,	[KIND_ACTIVE] = MEMBER_ACTIVE,
		[KIND_DRAIN] = MEMBER_DRAINING, [KIND_GONE] = MEMBER_GONE,
		[KIND_FREE] = MEMBER_FREE,
	};
	bool self = step->node == host->self;

	if (step->kind == KIND_SEAT) {
		member_list_done(&host->list);
		return;
	}
	if (step->kind == KIND_JOIN && host->pod->mesh)
		expect_joiner(host, step);
	assert_int_equal(pager_member(host->pager, step->node, states[step->kind]), 0);
	if (step->kind == KIND_ACTIVE && self) {
		assert_int_equal(pager_release_cancel(host->pager), 0);
		host->said_drained = false;
		host->drain_over = false;
	}
	host->owes_done = !(step->kind == KIND_GONE && self);
}

static void over(struct host *host, const struct member_word *step)
{
	if (step->kind == KIND_JOIN && step->by == host->self) {
		host->pod->joiner = step->node;
		host->pod->sponsor = host->self;
		if (host->pod->mesh)
			begin_joiner_mesh(host->pod, step->node, step->number);
	}
	if (step->node != host->self)
		return;
	if (step->kind == KIND_DRAIN)
		host->drain_over = true;
	if (step->kind == KIND_GONE)
		host->gone_over = true;
}

static bool do_next(struct host *host)
{
	struct member_out out;

	if (!member_list_next(&host->list, now_ns(), &out))
		return false;
	switch (out.type) {
	case MEMBER_SEND:
		for (uint16_t node = 0; node < HOSTS; node++)
			if (member_set_has(&out.to, node))
				post(host->pod, host->self, node, &out.word);
		break;
	case MEMBER_APPLIED:
		apply(host, &out.word);
		break;
	case MEMBER_IS_OVER:
		over(host, &out.word);
		break;
	case MEMBER_UNWANTED:
		fail_msg("node %u: a wish is refused: %s", host->self, strerror(-out.word.why));
		break;
	case MEMBER_END:
		host->pod->ended = true;
		break;
	}
	return true;
}

/* What the pager has come to say, about this node. */
static bool report(struct host *host)
{
	enum member_state state = host->list.now.member[host->self].state;

	if (host->owes_done && pager_member_done(host->pager)) {
		host->owes_done = false;
		member_list_done(&host->list);
		return true;
	}
	if (state == MEMBER_JOINING && !host->said_ready && !host->pod->no_ready &&
	    pager_member_ready(host->pager)) {
		host->said_ready = true;
		member_list_ready(&host->list);
		return true;
	}
	if (host->drain_over && !host->held) {
		host->drain_over = false;
		assert_int_equal(pager_release(host->pager), 0);
		return true;
	}
	if (state == MEMBER_DRAINING && !host->said_drained && pager_released(host->pager)) {
		uint64_t pages;

		assert_int_equal(guest_memory_resident(host->memory, &pages), 0);
		assert_int_equal(pages, 0);
		host->said_drained = true;
		member_list_drained(&host->list);
		return true;
	}
	return false;
}

/* About the links of others. */
static bool follow_links(struct host *host)
{
	for (uint16_t node = 0; node < HOSTS; node++) {
		enum member_state state = host->list.now.member[node].state;

		if (!host->channel[node][0] || node == host->self)
			continue;
		if (atomic_exchange(&host->lost[node], false) && state == MEMBER_JOINING) {
			member_list_lost(&host->list, node);
			return true;
		}
		if (state != MEMBER_GONE && state != MEMBER_FREE)
			continue;
		/* Its control channel ends, or it has failed. */
		if (!host->pod->host[node].there)
			assert_int_equal(pager_unlink(host->pager, node), 0);
		if (!pager_linked(host->pager, node)) {
			close_channels(host, node);
			atomic_store(&host->lost[node], false);
			host->unlinked++;
			member_list_lost(&host->list, node);
			return true;
		}
	}
	return false;
}

static bool turn(struct host *host)
{
	struct letter *letter = &host->letter[host->first];

	if (host->pod->mesh)
		follow_mesh(host);
	if (host->gone_over && !host->stays && pager_flushed(host->pager)) {
		host_end(host);
		return true;
	}
	if (follow_links(host) || report(host) || do_next(host))
		return true;
	if (host->count == 0)
		return false;
	host->first = (host->first + 1) % HOST_WORDS;
	host->count--;
	assert_int_equal(member_list_hear(&host->list, letter->src, &letter->word, now_ns()), 0);
	return true;
}

/* Who joins has its links, and begins. */
static bool follow_joiner(struct changing_pod *pod)
{
	uint16_t number = pod->joiner;

	if (number == NODE_NONE ||
	    (pod->mesh && pthread_tryjoin_np(pod->mesh[number].thread, NULL) == EBUSY))
		return false;
	if (pod->mesh && pod->mesh[number].result)
		fail_msg("node %u does not link: %s", number, pod->mesh[number].why);
	pod->joiner = NODE_NONE;
	begin_joiner(pod, number, pod->sponsor);
	return true;
}

bool pod_turn(struct changing_pod *pod)
{
	uint32_t first = rng_below(&pod->rng, HOSTS);
	bool done = follow_joiner(pod);

	if (pod->mesh)
		beat(pod);
	for (uint32_t i = 0; i < HOSTS; i++) {
		struct host *host = &pod->host[(first + i) % HOSTS];

		if (host->there && rng_chance(&pod->rng, 70))
			done |= turn(host);
		else
			done |= host->there;
	}
	return done;
}

void pod_wait(struct changing_pod *pod)
{
	const char *patience = getenv("EAGRE_TEST_PATIENCE");
	struct pollfd poll_fd = { .fd = pod->event_fd, .events = POLLIN };
	uint64_t rings;

	if (pod->mesh) { /* they are to be polled, too */
		usleep(1000);
		return;
	}
	if (poll(&poll_fd, 1, (int)(WAIT_MS * (patience ? atof(patience) : 1))) != 1) {
		pod_assert_well(pod);
		fail_msg("nothing comes any more, at step %u",
			 (unsigned)pod->host[0].list.now.step);
	}
	assert_int_equal(read(pod->event_fd, &rings, sizeof(rings)), sizeof(rings));
}

static bool is_so(const struct changing_pod *pod, uint16_t node, enum member_state state)
{
	for (uint16_t i = 0; i < HOSTS; i++) {
		const struct host *host = &pod->host[i];

		if (!host->there)
			continue;
		if (host->count || host->owes_done || !host->list.over ||
		    host->list.now.member[node].state != state)
			return false;
	}
	return true;
}

void pod_run_until(struct changing_pod *pod, uint16_t node, enum member_state state)
{
	for (;;) {
		while (pod_turn(pod))
			;
		pod_assert_well(pod);
		assert_false(pod->ended);
		if (is_so(pod, node, state))
			return;
		pod_wait(pod);
	}
}

static struct member_about about_of(const char *name)
{
	struct member_about about = { .promise_bytes = 1ull << 30, .cores = 2 };

	snprintf(about.name, sizeof(about.name), "%s", name);
	snprintf(about.address, sizeof(about.address), "%s:7000", name);
	return about;
}

void pod_wish_join(struct changing_pod *pod, uint16_t by, const char *name)
{
	struct member_word wish = { .kind = KIND_JOIN, .about = about_of(name) };
	uint32_t id;

	assert_int_equal(member_list_wish(&pod->host[by].list, &wish, &id), 0);
}

void pod_wish(struct changing_pod *pod, uint16_t by, enum member_kind kind, uint16_t node)
{
	struct member_word wish = { .kind = kind, .node = node };
	uint32_t id;

	assert_int_equal(member_list_wish(&pod->host[by].list, &wish, &id), 0);
}

/* --- life --- */

void changing_pod_create(struct changing_pod *pod, uint16_t member_count)
{
	struct pager_config who = { .members = member_set_below(member_count) };
	struct member_about about[HOSTS];

	for (uint16_t i = 0; i < member_count; i++)
		about[i] = about_of((const char[]){ (char)('a' + i), '\0' });
	pod->event_fd = eventfd(0, EFD_CLOEXEC);
	assert_true(pod->event_fd >= 0);
	pod->joiner = NODE_NONE;
	if (pod->meshed)
		bring_up_meshes(pod, member_count);
	for (uint16_t i = 0; i < HOSTS; i++)
		pod->host[i] = (struct host){ .pod = pod, .self = i };
	for (uint16_t i = 0; i < member_count; i++) {
		member_list_init(&pod->host[i].list, i, HOSTS, member_count, about);
		create_host(&pod->host[i], &who);
	}
	for (uint16_t a = 0; a < member_count; a++) {
		for (uint16_t b = (uint16_t)(a + 1); b < member_count; b++) {
			if (pod->mesh) {
				take_channels(&pod->host[a], b);
				take_channels(&pod->host[b], a);
			} else {
				make_channels(&pod->host[a], &pod->host[b]);
			}
			add_channels(&pod->host[a], b);
			add_channels(&pod->host[b], a);
		}
	}
	for (uint16_t i = 0; i < member_count; i++)
		assert_int_equal(pager_start(pod->host[i].pager), 0);
}

void changing_pod_destroy(struct changing_pod *pod)
{
	/* None is to see another end. */
	for (uint16_t i = 0; i < HOSTS; i++)
		if (pod->host[i].there)
			pager_stop(pod->host[i].pager);
	for (uint16_t i = 0; i < HOSTS; i++)
		host_end(&pod->host[i]);
	if (pod->mesh)
		pod_end(pod->mesh, HOSTS);
	close(pod->event_fd);
}
