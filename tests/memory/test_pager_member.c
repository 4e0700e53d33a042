/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Members that come and go while pagers run and threads touch memory: nothing that was written is lost,
 * no count either; who has drained holds nothing; a number is used again; a joiner that fails takes
 * nobody along, and a member's loss ends the pod. Real lists of members order the steps
 * (changing_pod.h).
 */
#include "tests/test.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pager/shard.h"
#include "tests/memory/changing_pod.h"

#define MIB	     (1ull << 20)
#define MEMORY	     (16 * MIB)
#define PAGES	     (MEMORY / PAGE_BYTES)
#define COUNTER_EACH 256u /* so many pages a counter, which all count */
#define COUNTERS     (PAGES / COUNTER_EACH)
#define WORK	     100u /* steps of each worker between two changes */

/* --- work --- */

/*
 * Each of the other pages is written by one worker alone, who says how often; all read all. Who has read
 * one never reads less in it.
 */
struct worker {
	struct host *host;
	uint32_t index;
	pthread_t thread;
	bool running;
	struct rng rng;
	atomic_bool stop;
	atomic_uint steps;
	atomic_uint bad;
	uint64_t counted[COUNTERS];
	uint64_t seen[PAGES]; /* its own pages: written */
};

static uint32_t owner_of(uint64_t page)
{
	return (uint32_t)(page % HOSTS);
}

static uint64_t value_of(uint64_t page, uint64_t version)
{
	return version ? version << 16 | page : 0;
}

static void step(struct worker *worker)
{
	uint64_t page = rng_below(&worker->rng, PAGES);
	_Atomic uint64_t *at = host_at(worker->host, page * PAGE_BYTES);
	_Atomic uint64_t *end = host_at(worker->host, (page + 1) * PAGE_BYTES - 8);
	uint64_t value;

	if (page % COUNTER_EACH == 0) {
		atomic_fetch_add(at, 1);
		worker->counted[page / COUNTER_EACH]++;
		return;
	}
	value = atomic_load(at);
	if (owner_of(page) == worker->index) {
		if (value != value_of(page, worker->seen[page]) || atomic_load(end) != value)
			atomic_fetch_add(&worker->bad, 1);
		value = value_of(page, ++worker->seen[page]);
		atomic_store(at, value);
		atomic_store(end, value);
		return;
	}
	if (value >> 16 < worker->seen[page] || value != value_of(page, value >> 16))
		atomic_fetch_add(&worker->bad, 1);
	worker->seen[page] = value >> 16;
}

static void *work(void *arg)
{
	struct worker *worker = arg;

	if (pager_bind_actor(worker->host->pager, 0, (pid_t)syscall(SYS_gettid)) < 0)
		atomic_fetch_add(&worker->bad, 1);
	while (!atomic_load(&worker->stop)) {
		step(worker);
		atomic_fetch_add(&worker->steps, 1);
	}
	return NULL;
}

static struct worker *worker_of(struct changing_pod *pod, uint16_t node)
{
	struct worker *worker = calloc(1, sizeof(*worker));

	assert_non_null(worker);
	worker->host = &pod->host[node];
	worker->index = node;
	worker->rng.state = node + 1;
	return worker;
}

static void begin_work(struct worker *worker)
{
	atomic_store(&worker->stop, false);
	worker->running = true;
	assert_int_equal(pthread_create(&worker->thread, NULL, work, worker), 0);
}

static void end_work(struct worker *worker)
{
	atomic_store(&worker->stop, true);
	if (worker->running)
		pthread_join(worker->thread, NULL);
	worker->running = false;
	assert_int_equal(atomic_load(&worker->bad), 0);
}

static void let_work(struct worker *worker)
{
	uint32_t until = atomic_load(&worker->steps) + WORK;

	while ((int32_t)(until - atomic_load(&worker->steps)) > 0) {
		pod_assert_well(worker->host->pod);
		usleep(1000);
	}
}

/* What a host sees is what all have written, to the last of it. */
static void check(struct host *host, struct worker *const worker[HOSTS])
{
	for (uint64_t page = 0; page < PAGES; page++) {
		uint64_t value = *(volatile uint64_t *)host_at(host, page * PAGE_BYTES), sum = 0;
		const struct worker *owner = worker[owner_of(page)];

		if (page % COUNTER_EACH) {
			assert_int_equal(value, owner ? value_of(page, owner->seen[page]) : 0);
			continue;
		}
		for (uint32_t i = 0; i < HOSTS; i++)
			sum += worker[i] ? worker[i]->counted[page / COUNTER_EACH] : 0;
		assert_int_equal(value, sum);
	}
}

static void free_workers(struct worker *const worker[HOSTS])
{
	for (uint32_t i = 0; i < HOSTS; i++)
		free(worker[i]);
}

/* A host that leaves touches nothing any more. */
static void leave(struct changing_pod *pod, struct worker *worker)
{
	uint16_t node = worker->host->self;

	end_work(worker);
	pod_wish(pod, 0, KIND_DRAIN, node);
	pod_run_until(pod, node, MEMBER_FREE);
	assert_false(pod->host[node].there);
}

static void join(struct changing_pod *pod, uint16_t node, const char *name)
{
	pod_wish_join(pod, 0, name);
	pod_run_until(pod, node, MEMBER_ACTIVE);
	assert_true(pod->host[node].there);
}

/* --- the pod --- */

enum links {
	LINKS_PAIRS,
	LINKS_MESH,
	LINKS_ENCRYPTED,
};

static struct changing_pod *make_pod(uint32_t shards, enum links links)
{
	struct changing_pod *pod = calloc(1, sizeof(*pod));

	assert_non_null(pod);
	pod->meshed = links != LINKS_PAIRS;
	pod->encrypt = links == LINKS_ENCRYPTED;
	pod->shard_count = shards;
	pod->memory_bytes = MEMORY;
	pod->capacity_bytes = 12 * MIB; /* the smallest pod has to push pages about */
	pod->rng.state = shards;
	return pod;
}

static struct changing_pod *new_linked_pod(uint32_t shards, uint16_t members, enum links links)
{
	struct changing_pod *pod = make_pod(shards, links);

	changing_pod_create(pod, members);
	return pod;
}

static struct changing_pod *new_pod(uint32_t shards, uint16_t members)
{
	return new_linked_pod(shards, members, LINKS_PAIRS);
}

static void end_pod(struct changing_pod *pod)
{
	pod_assert_well(pod);
	changing_pod_destroy(pod);
	free(pod);
}

/* As of a moment ago, but never fewer than before. */
static uint64_t messages(const struct changing_pod *pod, uint16_t node)
{
	struct pager_stats stats;

	pager_stats_get(pod->host[node].pager, &stats);
	return stats.message_count;
}

/* A third host comes and goes under load, and so does another by its number. */
static void come_and_go(uint32_t shards, enum links links)
{
	struct changing_pod *pod = new_linked_pod(shards, 2, links);
	struct worker *worker[HOSTS] = { worker_of(pod, 0), worker_of(pod, 1), worker_of(pod, 2) };
	uint64_t sent;

	for (uint32_t i = 0; i < 2; i++) {
		begin_work(worker[i]);
		let_work(worker[i]);
	}
	for (int life = 0; life < 2; life++) {
		join(pod, 2, life ? "d" : "c");
		begin_work(worker[2]);
		for (uint32_t i = 0; i < 3; i++)
			let_work(worker[i]);
		sent = messages(pod, 0);
		leave(pod, worker[2]);
		assert_true(messages(pod, 0) >= sent);
		for (uint32_t i = 0; i < 2; i++) {
			assert_int_equal(pod->host[i].unlinked, life + 1);
			let_work(worker[i]);
		}
	}
	for (uint32_t i = 0; i < 2; i++)
		end_work(worker[i]);
	for (uint32_t i = 0; i < 2; i++)
		check(&pod->host[i], worker);
	end_pod(pod);
	free_workers(worker);
}

static void a_member_comes_and_goes(void **state)
{
	come_and_go(1, LINKS_PAIRS);
	come_and_go(2, LINKS_PAIRS);
}

static void a_member_comes_and_goes_by_a_mesh(void **state)
{
	come_and_go(2, LINKS_MESH);
	come_and_go(2, LINKS_ENCRYPTED);
}

/* The registrars' slots go round: all leave but the one with the seats, and their numbers come again. */
static void all_change(void **state)
{
	struct changing_pod *pod = new_pod(2, 3);
	struct worker *worker[HOSTS];

	for (uint16_t i = 0; i < HOSTS; i++)
		worker[i] = worker_of(pod, i);
	for (uint32_t i = 0; i < 3; i++)
		begin_work(worker[i]);
	join(pod, 3, "x");
	begin_work(worker[3]);
	for (uint16_t i = 1; i < HOSTS; i++) {
		let_work(worker[i]);
		leave(pod, worker[i]);
		/* The lowest number that is free. */
		join(pod, i, (const char[]){ (char)('e' + i), '\0' });
		begin_work(worker[i]);
		let_work(worker[0]);
	}
	for (uint32_t i = 0; i < HOSTS; i++) {
		let_work(worker[i]);
		end_work(worker[i]);
	}
	for (uint32_t i = 0; i < HOSTS; i++)
		check(&pod->host[i], worker);
	end_pod(pod);
	free_workers(worker);
}

/* A drain takes as long as it takes; who stays after all works on, wherever that hits it. */
static void who_drains_may_stay(void **state)
{
	struct changing_pod *pod = new_pod(2, 3);
	struct worker *worker[HOSTS] = { worker_of(pod, 0), worker_of(pod, 1), worker_of(pod, 2) };

	for (uint32_t i = 0; i < 3; i++)
		begin_work(worker[i]);
	for (int turns = 0; turns < 300; turns += 50) {
		let_work(worker[2]);
		end_work(worker[2]);
		/* It does not say that it is empty, so that it can be kept. */
		pod->host[2].said_drained = true;
		pod->host[2].held = turns == 0; /* it has not begun to release, either */
		pod_wish(pod, 0, KIND_DRAIN, 2);
		pod_run_until(pod, 2, MEMBER_DRAINING);
		for (int i = 0; i < turns; i++) {
			pod_turn(pod);
			usleep(100);
		}
		pod_wish(pod, 0, KIND_ACTIVE, 2);
		pod_run_until(pod, 2, MEMBER_ACTIVE);
		assert_false(pager_released(pod->host[2].pager));
		begin_work(worker[2]);
	}
	pod->host[2].held = false;
	let_work(worker[2]);
	leave(pod, worker[2]);
	for (uint32_t i = 0; i < 2; i++)
		end_work(worker[i]);
	for (uint32_t i = 0; i < 2; i++)
		check(&pod->host[i], worker);
	end_pod(pod);
	free_workers(worker);
}

/* --- failures --- */

static void run_until_linked(struct changing_pod *pod, uint16_t node)
{
	pod->no_ready = true;
	pod_wish_join(pod, 1, "c");
	pod_run_until(pod, node, MEMBER_JOINING);
	while (!pod->host[node].there || !pager_member_ready(pod->host[node].pager)) {
		if (!pod_turn(pod))
			pod_wait(pod);
	}
}

/* A joiner that dies, or falls silent, before it is a member. */
enum fails {
	FAILS_DIES,
	FAILS_ONE_LINK,
	FAILS_SILENT,
	FAILS_COUNT,
};

static uint32_t links_ended(const struct changing_pod *pod)
{
	return atomic_load(&pod->host[0].ended) + atomic_load(&pod->host[1].ended);
}

static void fail_joiner(struct changing_pod *pod, enum fails how)
{
	struct host *joiner = &pod->host[2];
	struct page_channel *channel = joiner->channel[1][1];

	switch (how) {
	case FAILS_DIES:
		host_end(joiner);
		break;
	case FAILS_ONE_LINK:
		shutdown(channel->ops->fd(channel), SHUT_RDWR);
		break;
	default:
		member_list_fail_joiner(&pod->host[0].list, -ETIMEDOUT);
		break;
	}
}

static void a_joiner_takes_nobody_along(void **state)
{
	struct changing_pod *pod = new_pod(2, 2);
	struct worker *worker[HOSTS] = { worker_of(pod, 0), worker_of(pod, 1), worker_of(pod, 2) };

	for (uint32_t i = 0; i < 2; i++)
		begin_work(worker[i]);
	for (enum fails how = 0; how < FAILS_COUNT; how++) {
		uint32_t ended = links_ended(pod);

		run_until_linked(pod, 2);
		fail_joiner(pod, how);
		while (pod->host[0].list.now.member[2].state == MEMBER_JOINING)
			if (!pod_turn(pod))
				pod_wait(pod);
		assert_int_equal(links_ended(pod) > ended, how != FAILS_SILENT);
		/* It is told nothing, and ends because of its links. */
		host_end(&pod->host[2]);
		atomic_store(&pod->host[2].failures, 0);
		pod_run_until(pod, 2, MEMBER_FREE);
		for (uint32_t i = 0; i < 2; i++)
			let_work(worker[i]);
	}
	pod->no_ready = false;
	join(pod, 2, "c");
	begin_work(worker[2]);
	let_work(worker[2]);
	for (uint32_t i = 0; i < 3; i++)
		end_work(worker[i]);
	for (uint32_t i = 0; i < 3; i++)
		check(&pod->host[i], worker);
	end_pod(pod);
	free_workers(worker);
}

/*
 * What it may not say yet. Each would leave something in its name: room, a home, a page; and a lie its
 * link's end.
 */
#define HOMED_CHUNK 1 /* by node 1, which is its registrar */
#define FREE_CHUNK  3 /* likewise, but nobody has touched it */
static const struct coh_msg early_words[] = {
	{ .type = COH_ROOM_GET, .requester = 2, .acks = 1, .age = 1 },
	{ .type = COH_HOME_GET, .requester = 2, .gpn = FREE_CHUNK * CHUNK_PAGES },
	{ .type = COH_WRITE_REQ,
	  .requester = 2,
	  .version = 1,
	  .seq = 1,
	  .gpn = HOMED_CHUNK * CHUNK_PAGES },
	{ .type = COH_REG_IS, .requester = 2, .node = 1, .acks = 3 },
};
#define EARLY_WORDS (sizeof(early_words) / sizeof(early_words[0]))
#define EARLY_US    20000 /* that they might be heard in */

static volatile uint64_t *chunk_at(const struct host *host, uint64_t chunk)
{
	return host_at(host, chunk * CHUNK_PAGES * PAGE_BYTES);
}

/* What comes to it of this type, or nothing for so long. */
static bool hears(struct page_channel *channel, uint8_t type, uint32_t turns)
{
	static struct page_frame frame;

	for (uint32_t turn = 0; turn < turns; turn++) {
		int error = channel->ops->receive(channel, &frame);

		assert_true(error == 0 || error == -EAGAIN);
		for (uint32_t i = 0; error == 0 && i < frame.message_count; i++)
			if (frame.message[i].type == type)
				return true;
		if (error)
			usleep(1000);
	}
	return false;
}

static void say(struct page_channel *channel, const struct coh_msg *msg)
{
	static struct page_frame frame = { .message_count = 1 };

	frame.message[0] = *msg;
	assert_int_equal(channel->ops->send(channel, &frame), 0);
}

static void ask_and_die(enum links links)
{
	struct changing_pod *pod = new_linked_pod(1, 2, links);
	struct host *b = &pod->host[1], *joiner = &pod->host[2];

	*chunk_at(b, HOMED_CHUNK) = 17;
	for (uint32_t i = 0; i < EARLY_WORDS; i++) {
		uint32_t ended = links_ended(pod);

		run_until_linked(pod, 2);
		pager_stop(joiner->pager);
		say(joiner->channel[1][0], &early_words[i]);
		usleep(EARLY_US);
		assert_int_equal(links_ended(pod), ended);
		host_end(joiner);
		pod_run_until(pod, 2, MEMBER_FREE);
		assert_int_equal(*chunk_at(&pod->host[0], HOMED_CHUNK), 17);
		*chunk_at(b, HOMED_CHUNK) = 17;
	}
	*chunk_at(&pod->host[0], FREE_CHUNK) = 18;
	assert_int_equal(*chunk_at(b, FREE_CHUNK), 18);
	end_pod(pod);
}

static void who_is_no_member_yet_is_not_heard(void **state)
{
	ask_and_die(LINKS_PAIRS);
	ask_and_die(LINKS_MESH);
	ask_and_die(LINKS_ENCRYPTED);
}

static void be_early(enum links links)
{
	struct changing_pod *pod = new_linked_pod(1, 2, links);
	struct host *b = &pod->host[1], *joiner = &pod->host[2];
	struct page_channel *channel;

	run_until_linked(pod, 2);
	channel = joiner->channel[1][0];
	pager_stop(joiner->pager);
	say(channel, &early_words[0]);
	assert_false(hears(channel, COH_ROOM_IS, 20));
	assert_int_equal(pager_member(b->pager, 2, MEMBER_ACTIVE), 0);
	while (!hears(channel, COH_ROOM_IS, 20)) {
		pod_assert_well(pod);
		pod_turn(pod);
	}
	end_pod(pod);
}

/* It has heard that it is a member before another has: what it says then waits. */
static void who_is_a_member_early_is_heard_later(void **state)
{
	be_early(LINKS_PAIRS);
	be_early(LINKS_MESH);
	be_early(LINKS_ENCRYPTED);
}

#define LATE_TURNS 300

/*
 * The newcomer's links stand when it has sent its proof, and another member's do when that has come
 * there: also one that is no registrar is waited for, or it would hear of ACTIVE first.
 */
static void who_has_no_slot_is_waited_for(void **state)
{
	struct changing_pod *pod = new_linked_pod(2, 2, LINKS_MESH);
	struct host *joiner = &pod->host[3];

	join(pod, 2, "c");
	pod->host[2].late = true;
	pod_wish_join(pod, 0, "d");
	while (!joiner->there)
		if (!pod_turn(pod))
			pod_wait(pod);
	for (int turn = 0; turn < LATE_TURNS; turn++) {
		while (pod_turn(pod))
			;
		pod_wait(pod);
		assert_false(pager_member_ready(joiner->pager));
	}
	pod->host[2].late = false;
	pod_run_until(pod, 3, MEMBER_ACTIVE);
	*chunk_at(joiner, 1) = 19;
	assert_int_equal(*chunk_at(&pod->host[2], 1), 19);
	end_pod(pod);
}

/* Whoever tells it something before he has heard of the failure hears of it then, and of no fault of his. */
static void assert_shut_down(struct host *host)
{
	struct pager *pager = host->pager;

	assert_int_equal(pager_member(pager, 2, MEMBER_DRAINING), -ESHUTDOWN);
	assert_int_equal(pager_member(pager, 3, MEMBER_JOINING), -ESHUTDOWN);
	assert_int_equal(pager_link(pager, host->channel[2]), -ESHUTDOWN);
	assert_int_equal(pager_unlink(pager, 3), -ESHUTDOWN);
	assert_int_equal(pager_release(pager), -ESHUTDOWN);
	assert_int_equal(pager_release_cancel(pager), -ESHUTDOWN);
}

/* A member's loss is one, also while it drains, and that of who is GONE and is needed. */
static void a_member_takes_all_along(void **state)
{
	for (int draining = 0; draining < 2; draining++) {
		struct changing_pod *pod = new_pod(1, 3);

		if (draining) {
			pod->host[2].held = true;
			pod_wish(pod, 0, KIND_DRAIN, 2);
			pod_run_until(pod, 2, MEMBER_DRAINING);
		}
		host_end(&pod->host[2]);
		for (int i = 0; i < 2; i++) {
			while (!atomic_load(&pod->host[i].failures))
				pod_wait(pod);
			assert_int_equal(pod->host[i].failed_node, 2);
			assert_int_equal(atomic_load(&pod->host[i].ended), 0);
			/* It is told of before the queues are closed. */
			while (pager_member(pod->host[i].pager, HOSTS, MEMBER_GONE) != -ESHUTDOWN)
				usleep(1000);
			assert_shut_down(&pod->host[i]);
			pager_stop(pod->host[i].pager);
			assert_shut_down(&pod->host[i]);
		}
		changing_pod_destroy(pod);
		free(pod);
	}
}

static bool all_taken(const struct pager *pager)
{
	for (uint32_t i = 0; i < pager->shard_count; i++)
		if (atomic_load(&pager->shard[i].members.says) >> SAYS_SHIFT !=
		    pager->members.posted)
			return false;
	return true;
}

#define FOR_EVER_NS (1ull << 60)

/* 2 is GONE, that is over, and nobody needs it; but it stays, and its links are cut after so long. */
static struct changing_pod *pod_that_was_left(uint64_t unlink_ns)
{
	struct changing_pod *pod = make_pod(1, LINKS_PAIRS);
	struct host *leaver = &pod->host[2];

	pod->unlink_ns = unlink_ns;
	changing_pod_create(pod, 3);

	leaver->stays = true;
	pod_wish(pod, 0, KIND_DRAIN, 2);
	while (!leaver->gone_over || !pager_flushed(leaver->pager))
		if (!pod_turn(pod))
			pod_wait(pod);
	return pod;
}

#define QUESTIONS 200u /* frames; far more than a socket takes */

/* What who is GONE sends on for others is in its queue, as it is not read there: it must not end yet. */
static void who_is_gone_ends_behind_its_words(void **state)
{
	static struct page_frame frame = { .message_count = FRAME_MESSAGES_MAX };
	struct changing_pod *pod = pod_that_was_left(FOR_EVER_NS);
	struct page_channel *from = pod->host[0].channel[2][0], *to = pod->host[1].channel[2][0];
	struct pager *leaver = pod->host[2].pager;
	uint64_t sent_on = 0;

	/* Its slot of chunk 5 has become node 1's. */
	for (uint32_t i = 0; i < FRAME_MESSAGES_MAX; i++)
		frame.message[i] = (struct coh_msg){ .type = COH_HOME_GET, .gpn = 5 * CHUNK_PAGES };
	pager_stop(pod->host[0].pager);
	pager_stop(pod->host[1].pager);
	for (uint32_t i = 0; i < QUESTIONS; i++)
		assert_int_equal(from->ops->send(from, &frame), 0);
	while (pager_flushed(leaver)) {
		assert_true(from->ops->flush(from) <= 0);
		usleep(1000);
	}
	while (sent_on < (uint64_t)QUESTIONS * FRAME_MESSAGES_MAX || !pager_flushed(leaver)) {
		int error = to->ops->receive(to, &frame);

		assert_true(error == 0 || error == -EAGAIN);
		if (error == 0)
			sent_on += frame.message_count;
		else
			usleep(1000);
		(void)from->ops->flush(from);
	}
	end_pod(pod);
}

/* Whoever has been told that its links end waits for the last that comes by them. */
static void a_leaver_is_heard_to_its_end(void **state)
{
	static struct page_frame frame = {
		.message_count = 1,
		.message = { { .type = COH_REG_IS, .requester = 2, .node = 1, .acks = 3 } },
	};
	struct changing_pod *pod = pod_that_was_left(FOR_EVER_NS);
	struct host *a = &pod->host[0], *leaver = &pod->host[2];
	struct page_channel *channel = leaver->channel[0][0];

	pager_stop(leaver->pager);
	assert_int_equal(pager_unlink(a->pager, 2), 0);
	assert_int_equal(pager_unlink(a->pager, 2), 0);
	while (!all_taken(a->pager))
		pod_wait(pod);
	assert_true(pager_linked(a->pager, 2));
	assert_int_equal(channel->ops->send(channel, &frame), 0);
	while (!atomic_load(&a->failures))
		pod_wait(pod);
	assert_int_equal(a->failed_node, 2);
	assert_int_equal(a->failed_error, -EPROTO);
	changing_pod_destroy(pod);
	free(pod);
}

/* Its host has lost power: it ends no link, and says nothing. */
static void a_leaver_that_does_not_end_is_cut(void **state)
{
	struct changing_pod *pod = pod_that_was_left(100000000);
	struct host *leaver = &pod->host[2];

	pager_stop(leaver->pager);
	for (uint32_t i = 0; i < 2; i++)
		assert_int_equal(pager_unlink(pod->host[i].pager, 2), 0);
	for (uint32_t i = 0; i < 2; i++)
		while (pager_linked(pod->host[i].pager, 2))
			pod_wait(pod);
	host_end(leaver);
	pod_run_until(pod, 2, MEMBER_FREE);
	*chunk_at(&pod->host[0], 1) = 20;
	assert_int_equal(*chunk_at(&pod->host[1], 1), 20);
	end_pod(pod);
}

/*
 * A member lies about who asks: that is one who joins, and is not linked yet. A slot that has moved is asked
 * by others' questions, too.
 */
static void nobody_answers_who_is_not_linked(void **state)
{
	static struct page_frame frame = {
		.message_count = 1,
		.message = { { .type = COH_HOME_GET, .requester = 2, .gpn = 2 * CHUNK_PAGES } },
	};
	struct changing_pod *pod = new_pod(1, 3);
	struct host *a = &pod->host[0];
	struct page_channel *channel = pod->host[1].channel[0][0];

	pod_wish(pod, 0, KIND_DRAIN, 2);
	pod_run_until(pod, 2, MEMBER_FREE);
	assert_int_equal(pager_member(a->pager, 2, MEMBER_JOINING), 0);
	while (!pager_member_done(a->pager))
		pod_wait(pod);
	pager_stop(pod->host[1].pager);
	assert_int_equal(channel->ops->send(channel, &frame), 0);
	while (!atomic_load(&a->failures))
		pod_wait(pod);
	assert_int_equal(a->failed_node, 1);
	assert_int_equal(a->failed_error, -EPROTO);
	assert_non_null(strstr(a->cause, "node 2, which is not linked"));
	changing_pod_destroy(pod);
	free(pod);
}

/* --- what is refused --- */

static void what_does_not_follow_is_refused(void **state)
{
	struct changing_pod *pod = new_pod(2, 2);
	struct pager *pager = pod->host[0].pager;
	struct page_channel *swapped[2];

	assert_true(pager_member_done(pager));
	assert_false(pager_member_ready(pager) || pager_released(pager) || pager_flushed(pager));
	assert_int_equal(pager_member(pager, HOSTS, MEMBER_JOINING), -EINVAL);
	assert_int_equal(pager_member(pager, 0, MEMBER_FREE), -EINVAL);
	assert_int_equal(pager_member(pager, 1, MEMBER_GONE), -EINVAL);
	assert_int_equal(pager_member(pager, 1, MEMBER_ACTIVE), -EINVAL);
	assert_int_equal(pager_member(pager, 2, MEMBER_ACTIVE), -EINVAL);
	assert_int_equal(pager_release(pager), -EINVAL);
	assert_int_equal(pager_release_cancel(pager), 0);
	assert_int_equal(pager_unlink(pager, 1), -EINVAL);
	assert_int_equal(pager_unlink(pager, 0), -EINVAL);
	assert_int_equal(pager_unlink(pager, 3), 0);

	/* Who is linked from the start; twice; and channels of two. */
	assert_int_equal(pager_link(pager, pod->host[0].channel[1]), -EINVAL);
	pod->no_ready = true;
	pod_wish_join(pod, 1, "c");
	pod_run_until(pod, 2, MEMBER_JOINING);
	assert_int_equal(pager_member(pager, 3, MEMBER_ACTIVE), -EINVAL);
	assert_true(pager_linked(pager, 2) && !pager_linked(pager, 3));
	assert_int_equal(pager_link(pager, pod->host[0].channel[2]), -EINVAL);
	swapped[0] = pod->host[0].channel[2][0];
	swapped[1] = pod->host[0].channel[1][1];
	assert_int_equal(pager_link(pager, swapped), -EINVAL);
	end_pod(pod);
}

/* A joiner's step without its links; links before the step. */
static void links_come_between_the_steps(void **state)
{
	struct changing_pod *pod = new_pod(2, 2);
	struct host *a = &pod->host[0];
	struct page_channel *channel[POD_SHARDS] = { 0 };

	for (uint32_t shard = 0; shard < 2; shard++) {
		struct page_channel *one = malloc(sizeof(*one));

		assert_non_null(one);
		*one = (struct page_channel){ .ops = a->channel[1][shard]->ops, .peer = 2 };
		channel[shard] = one;
	}
	assert_int_equal(pager_link(a->pager, channel), -EINVAL);
	assert_int_equal(pager_member(a->pager, 2, MEMBER_JOINING), 0);
	while (!pager_member_done(a->pager))
		pod_wait(pod);
	assert_int_equal(pager_member(a->pager, 2, MEMBER_ACTIVE), -EINVAL);
	assert_false(pager_linked(a->pager, 2));
	assert_int_equal(pager_member(a->pager, 2, MEMBER_GONE), 0);
	while (!pager_member_done(a->pager))
		pod_wait(pod);
	assert_int_equal(pager_link(a->pager, channel), -EINVAL);
	for (uint32_t shard = 0; shard < 2; shard++)
		free(channel[shard]);
	end_pod(pod);
}

static void bad_sets_are_refused(void **state)
{
	struct guest_memory_config memory = { { { 0, 4 * MIB } }, 1, 1 };
	struct pager_config good = { .node_count = 4,
				     .capacity_bytes = MIB,
				     .joins = true,
				     .members = member_set_below(3) };
	struct pager *pager = NULL;
	struct pager_config bad;

	assert_int_equal(guest_memory_create(&memory, &good.memory), 0);
	member_set_add(&good.draining, 1);
	member_set_add(&good.gone, 2);
	assert_int_equal(pager_create(&good, &pager), 0);
	/* Of 1, who drains, a channel is needed; of 2, who is GONE, none. */
	assert_int_equal(pager_start(pager), -ENOTCONN);
	pager_destroy(pager);
	bad = good;
	bad.joins = false;
	assert_int_equal(pager_create(&bad, &pager), -EINVAL);
	bad = good;
	member_set_add(&bad.gone, 1);
	assert_int_equal(pager_create(&bad, &pager), -EINVAL);
	bad = good;
	member_set_add(&bad.gone, 3);
	assert_int_equal(pager_create(&bad, &pager), -EINVAL);
	bad = good;
	member_set_add(&bad.members, 4);
	assert_int_equal(pager_create(&bad, &pager), -EINVAL);
	bad = good;
	bad.self = 3;
	assert_int_equal(pager_create(&bad, &pager), -EINVAL);
	bad = good;
	bad.self = 1;
	assert_int_equal(pager_create(&bad, &pager), -EINVAL);
	guest_memory_destroy(good.memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bad_sets_are_refused),
		cmocka_unit_test(what_does_not_follow_is_refused),
		cmocka_unit_test(links_come_between_the_steps),
		cmocka_unit_test(a_member_comes_and_goes),
		cmocka_unit_test(a_member_comes_and_goes_by_a_mesh),
		cmocka_unit_test(all_change),
		cmocka_unit_test(who_drains_may_stay),
		cmocka_unit_test(a_joiner_takes_nobody_along),
		cmocka_unit_test(who_is_no_member_yet_is_not_heard),
		cmocka_unit_test(who_is_a_member_early_is_heard_later),
		cmocka_unit_test(who_has_no_slot_is_waited_for),
		cmocka_unit_test(a_member_takes_all_along),
		cmocka_unit_test(who_is_gone_ends_behind_its_words),
		cmocka_unit_test(a_leaver_is_heard_to_its_end),
		cmocka_unit_test(a_leaver_that_does_not_end_is_cut),
		cmocka_unit_test(nobody_answers_who_is_not_linked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
