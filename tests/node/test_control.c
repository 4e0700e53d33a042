/* SPDX-License-Identifier: Apache-2.0 */
/* The control thread: lies, floods, silence. */
#include <dirent.h>
#include <endian.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/link/support.h"
#include "tests/node/half.h"
#include "tests/test.h"

static struct control_message msg;

static void assert_ends(struct half *half, unsigned int ms, const char *says)
{
	const char *text = half_end(half, ms);
	if (!text || !strstr(text, says))
		fail_msg("it ends with \"%s\", not \"%s\"", text ? text : "", says);
}

static void test_out_of_turn(void **state)
{
	struct half half;
	half_create(&half, 0);
	assert_int_equal(control_start(half.node), 0);
	msg = (struct control_message){ .type = CONTROL_EOI, .eoi = { .vcpu = 1, .vector = 32 } };
	half_peer_send(&half, &msg);
	assert_ends(&half, HALF_PATIENCE_MS, "node 1 (b, ");
	assert_ends(&half, 0, "it sent EOI out of turn");
}

/* RUN sets the phase by itself: what comes right behind it is in turn. */
static void test_phases_follow(void **state)
{
	struct half half;
	half_create(&half, 1);
	assert_int_equal(guest_io_create(half.node), 0);
	atomic_store(&half.node->phase, NODE_READY);
	assert_int_equal(control_start(half.node), 0);
	half_peer_beats(&half);
	msg = (struct control_message){ .type = CONTROL_RUN, .run = { .start_ns = 5 } };
	half_peer_send(&half, &msg);
	msg = (struct control_message){ .type = CONTROL_STATS_REQUEST };
	half_peer_send(&half, &msg);
	for (int i = 0; i < HALF_PATIENCE_MS && atomic_load(&half.node->phase) != NODE_RUNNING; i++)
		test_sleep_ms(1);
	assert_int_equal(atomic_load(&half.node->phase), NODE_RUNNING);
	assert_null(half_end(&half, 100));
	msg = (struct control_message){ .type = CONTROL_RUN };
	half_peer_send(&half, &msg);
	assert_ends(&half, HALF_PATIENCE_MS, "it sent RUN out of turn");
}

struct chatter {
	struct half *half;
	atomic_bool stop;
	atomic_uint pings, beats;
};

#define FRAMES 256

/* Frames that take longer to read than to send: encoded once, numbered anew each time. */
static size_t make_frames(uint8_t *out, size_t size)
{
	struct control_message interrupt = { .type = CONTROL_INTERRUPT };
	int bytes = 0;
	interrupt.interrupt.vector = 0x41;
	interrupt.interrupt.vcpu_count = CONTROL_VCPUS_MAX;
	for (int i = 0; i < (int)CONTROL_VCPUS_MAX; i++)
		interrupt.interrupt.vcpu[i] = (uint16_t)(1 + i % 2);
	for (int i = 0; i < FRAMES; i++) {
		bytes = control_message_encode(&interrupt, 0, out + i * bytes, size);
		assert_true(bytes > 0);
	}
	return (size_t)bytes;
}

static void number_frames(uint8_t *frames, size_t bytes, uint32_t *sequence)
{
	for (int i = 0; i < FRAMES; i++) {
		uint32_t le = htole32((*sequence)++);
		memcpy(frames + (size_t)i * bytes + 12, &le, sizeof(le));
	}
}

/* Never stops talking; counts what comes back. */
static void *chatter_main(void *arg)
{
	static struct control_message heard;
	static uint8_t frames[FRAMES * 512];
	size_t bytes = make_frames(frames, 512), size = FRAMES * bytes, sent = size;
	uint64_t messages, scrap;
	struct chatter *c = arg;
	struct control_channel *channel = mesh_control(c->half->peer, c->half->node->self);
	channel->ops->stats(channel, &messages, &scrap, &scrap);
	uint32_t sequence = (uint32_t)messages;
	while (!atomic_load(&c->stop)) {
		if (sent == size) {
			number_frames(frames, bytes, &sequence);
			sent = 0;
		}
		ssize_t more = send(control_fd(channel), frames + sent, size - sent,
				    MSG_NOSIGNAL | MSG_DONTWAIT);
		if (more > 0)
			sent += (size_t)more;
		while (control_receive(channel, &heard) == 0) {
			c->beats += heard.type == CONTROL_HEARTBEAT;
			c->pings += heard.type == CONTROL_CLOCK_PING;
		}
	}
	return NULL;
}

/* A peer that never stops talking: the clock is asked, and links are judged, all the same. */
static void test_chatty_peer(void **state)
{
	struct half half;
	struct chatter chatter = { .half = &half };
	pthread_t thread;
	half_create(&half, 1);
	assert_int_equal(guest_io_create(half.node), 0);
	atomic_store(&half.node->phase, NODE_READY);
	assert_int_equal(control_start(half.node), 0);
	pthread_create(&thread, NULL, chatter_main, &chatter);
	/* Pings go out every 100 ms here, as nobody answers them, where the thread gets to run so often. */
	for (int i = 0; i < HALF_PATIENCE_MS && (chatter.pings < 5 || chatter.beats < 2); i++)
		test_sleep_ms(1);
	if (chatter.pings < 5 || chatter.beats < 2)
		fail_msg("%u pings, %u heartbeats", chatter.pings, chatter.beats);
	control_link_failed(half.node, 0, "torn");
	assert_ends(&half, HALF_PATIENCE_MS, "torn");
	atomic_store(&chatter.stop, true);
	pthread_join(thread, NULL);
}

/*
 * A page channel fails, and its node's last word lies there, behind more than a turn's messages, to
 * be read by a thread that does not get on: that word is the reason, however late.
 */
static void test_last_words_read_late(void **state)
{
	struct half half;
	half_create(&half, 1);
	assert_int_equal(guest_io_create(half.node), 0);
	atomic_store(&half.node->phase, NODE_READY);
	assert_int_equal(control_start(half.node), 0);
	pthread_mutex_lock(&half.node->lock); /* RUN waits for it */
	msg = (struct control_message){ .type = CONTROL_RUN, .run = { .start_ns = 5 } };
	half_peer_send(&half, &msg);
	msg = (struct control_message){ .type = CONTROL_HEARTBEAT };
	for (int i = 0; i < 100; i++)
		half_peer_send(&half, &msg);
	msg = (struct control_message){ .type = CONTROL_END };
	msg.end = (struct control_end){ .kind = CONTROL_END_USER, .text = "enough" };
	half_peer_send(&half, &msg);
	control_link_failed(half.node, 0, "torn");
	test_sleep_ms(700);
	pthread_mutex_unlock(&half.node->lock);
	assert_ends(&half, HALF_PATIENCE_MS, "enough");
}

static void test_silence(void **state)
{
	struct half half;
	half_create(&half, 0);
	assert_int_equal(control_start(half.node), 0);
	/* For longer on a host that lets this run late. */
	assert_ends(&half, HALF_PATIENCE_MS, "nothing heard from it for ");
}

/* A node whose last bytes come together with its end has ended all the same, and at once. */
static void test_end_behind_a_word(void **state)
{
	struct half half;
	struct control_channel *channel;
	half_create(&half, 1);
	assert_int_equal(guest_io_create(half.node), 0);
	atomic_store(&half.node->phase, NODE_READY);
	assert_int_equal(control_start(half.node), 0);
	channel = mesh_control(half.peer, half.node->self);
	pthread_mutex_lock(&half.node->lock); /* RUN waits for it */
	msg = (struct control_message){ .type = CONTROL_RUN, .run = { .start_ns = 5 } };
	half_peer_send(&half, &msg);
	test_sleep_ms(100);
	msg = (struct control_message){ .type = CONTROL_HEARTBEAT };
	half_peer_send(&half, &msg);
	channel->ops->shutdown(channel);
	test_sleep_ms(100);
	pthread_mutex_unlock(&half.node->lock);
	/* Or else it would be missed some seconds later, with other words. */
	assert_ends(&half, HALF_PATIENCE_MS, "it closed its link");
}

/* A node that waits for the others, and does nothing else, takes no core from them. */
static void test_waits_asleep(void **state)
{
	struct half half;
	struct timespec before, after;
	half_create(&half, 0);
	assert_int_equal(control_start(half.node), 0);
	test_sleep_ms(100);
	double ms = 0;
	for (int try = 0; try < 3; try++) {
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
		test_sleep_ms(1500);
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
		ms = (double)(after.tv_sec - before.tv_sec) * 1e3 +
		     (double)(after.tv_nsec - before.tv_nsec) / 1e6;
		if (ms <= 100)
			return;
	}
	fail_msg("%.0f ms of a core in 1.5 s", ms);
}

/* What a node makes of a peer's END of this kind. */
static enum control_end_kind told_end(uint16_t self, enum node_phase phase,
				      enum control_end_kind kind)
{
	static struct node_guest guest = { .restarts = true };
	struct half half;
	half_create(&half, self);
	assert_int_equal(guest_io_create(half.node), 0);
	((struct node_options *)(uintptr_t)half.node->options)->guest = &guest;
	atomic_store(&half.node->phase, phase);
	assert_int_equal(control_start(half.node), 0);
	msg = (struct control_message){ .type = CONTROL_END };
	msg.end = (struct control_end){ .kind = (uint8_t)kind, .text = "so it ends" };
	half_peer_send(&half, &msg);
	assert_ends(&half, HALF_PATIENCE_MS, "so it ends");
	return (enum control_end_kind)half.node->end.kind;
}

/* Nobody begins anew because of a guest that does not run, or on the word of who cannot know. */
static void test_told_to_begin_anew(void **state)
{
	assert_int_equal(told_end(1, NODE_LINKED, CONTROL_END_RESTART), CONTROL_END_NODE_ERROR);
	assert_int_equal(told_end(1, NODE_STARTED, CONTROL_END_RESTART), CONTROL_END_NODE_ERROR);
	assert_int_equal(told_end(1, NODE_READY, CONTROL_END_RESTART), CONTROL_END_RESTART);
	assert_int_equal(told_end(0, NODE_OFFERED, CONTROL_END_RESTART), CONTROL_END_NODE_ERROR);
	assert_int_equal(told_end(0, NODE_OFFERED, CONTROL_END_RESET), CONTROL_END_RESET);
}

static void *come_first(void *arg)
{
	*(int *)arg = setpriority(PRIO_PROCESS, (id_t)gettid(), -15);
	return NULL;
}

/* Not every root may, as in a container. */
static bool may_come_first(void)
{
	pthread_t thread;
	int r = -1;

	assert_int_equal(pthread_create(&thread, NULL, come_first, &r), 0);
	pthread_join(thread, NULL);
	return r == 0;
}

/* So that it beats on a host that has more to do than cores for it. */
static void test_comes_first(void **state)
{
	struct half half;
	DIR *tasks = opendir("/proc/self/task");
	unsigned int before = 0;

	assert_non_null(tasks);
	if (!may_come_first()) {
		closedir(tasks);
		skip();
	}
	half_create(&half, 0);
	assert_int_equal(control_start(half.node), 0);
	for (int i = 0; before == 0 && i < 3000; i++) {
		test_sleep_ms(1);
		rewinddir(tasks);
		for (struct dirent *task; (task = readdir(tasks));) {
			int tid = atoi(task->d_name);

			before += tid && getpriority(PRIO_PROCESS, (id_t)tid) == -15;
		}
	}
	closedir(tasks);
	assert_true(before > 0);
}

/*
 * The loader waits for a page that does not come. That it got on long ago says nothing by itself:
 * nobody may have run since.
 */
static void test_load_stalls(void **state)
{
	struct half half;
	const char *text = NULL;
	half_create(&half, 0);
	atomic_store(&half.node->loading_ns, 1); /* at the beginning of time */
	assert_int_equal(control_start(half.node), 0);
	msg = (struct control_message){ .type = CONTROL_HEARTBEAT };
	for (int i = 0; i < 80 && !text; i++) {
		half_peer_send(&half, &msg);
		text = half_end(&half, 500);
		if (text && i < 2)
			fail_msg("\"%s\" after %d beats", text, i + 1);
	}
	assert_ends(&half, 0, "has not answered for a page");
}

#define PROMPT_NS 1900000ull /* its timer would have had it wait for 2 ms */

struct answerer {
	struct half *half;
	atomic_bool stop;
	atomic_uint pings;
	uint64_t last_sent_ns;
	unsigned int prompt; /* of those before the clock was good: sent with the answer before */
};

/* A first node whose clock is the host's. */
static void *answerer_main(void *arg)
{
	static struct control_message heard, pong;
	struct answerer *a = arg;
	struct control_channel *channel = mesh_control(a->half->peer, a->half->node->self);
	while (!atomic_load(&a->stop)) {
		while (control_receive(channel, &heard) == 0) {
			if (heard.type != CONTROL_CLOCK_PING)
				continue;
			uint64_t now = node_clock_local_ns(a->half->node->clock);
			atomic_fetch_add(&a->pings, 1);
			if (!node_clock_ready(a->half->node->clock) &&
			    heard.clock_ping.sent_ns - a->last_sent_ns < PROMPT_NS)
				a->prompt++;
			a->last_sent_ns = heard.clock_ping.sent_ns;
			pong.type = CONTROL_CLOCK_PONG;
			pong.clock_pong =
				(struct control_clock_pong){ heard.clock_ping.id,
							     heard.clock_ping.sent_ns, now, now };
			half_peer_send(a->half, &pong);
		}
		struct timespec moment = { .tv_nsec = 100000 };
		nanosleep(&moment, NULL);
	}
	return NULL;
}

/* So many come in that time; or do in another such, as a machine that stands still for a moment makes them few or many. */
static void assert_pings(struct answerer *a, unsigned int ms, unsigned int least, unsigned int most)
{
	unsigned int came = 0;
	for (int i = 0; i < 10; i++) {
		unsigned int before = atomic_load(&a->pings);
		test_sleep_ms(ms);
		came = atomic_load(&a->pings) - before;
		if (came >= least && came <= most)
			return;
	}
	assert_in_range(came, least, most);
}

/* A node that has no vCPU asks for the time seldom; and often at once when one comes. */
static void test_quiet_clock(void **state)
{
	struct half half;
	struct answerer answerer = { .half = &half };
	pthread_t thread;
	half_create(&half, 1);
	struct vcpu_places *places = &half.node->places;
	assert_int_equal(control_start(half.node), 0);
	pthread_create(&thread, NULL, answerer_main, &answerer);
	for (int i = 0; i < 20000 && !node_clock_settled(half.node->clock); i++)
		test_sleep_ms(1);
	assert_true(node_clock_settled(half.node->clock));
	/* The start waits for a good clock: until then each answer is the next question. */
	assert_in_range(answerer.prompt, 5, 1000000);
	assert_pings(&answerer, 1000, 3, 1000);
	for (uint32_t v = 1; v <= 2; v++) {
		assert_int_equal(vcpu_place_leave(places, v, 0), 0);
		vcpu_place_sent(places, v);
	}
	/* Before the guest runs nobody knows where vCPUs are, and the clock's rate is wanted. */
	assert_pings(&answerer, 1200, 4, 10000);
	atomic_store(&half.node->run_ns, 1);
	test_sleep_ms(600);
	assert_pings(&answerer, 2500, 1, 5);
	/* It does not go after all. What says so wakes the thread: here it is a heartbeat. */
	uint64_t epoch = vcpu_place_read(places, 1).epoch;
	assert_int_equal(vcpu_place_on_refused(places, 1, 0, epoch + 1), PLACE_NEWS);
	unsigned int before = atomic_load(&answerer.pings);
	msg = (struct control_message){ .type = CONTROL_HEARTBEAT };
	half_peer_send(&half, &msg);
	for (int i = 0; i < 5000 && atomic_load(&answerer.pings) < before + 8; i++)
		test_sleep_ms(1);
	assert_in_range(atomic_load(&answerer.pings) - before, 8, 5000);
	atomic_store(&answerer.stop, true);
	pthread_join(thread, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_waits_asleep),
		cmocka_unit_test(test_end_behind_a_word),
		cmocka_unit_test(test_out_of_turn),
		cmocka_unit_test(test_phases_follow),
		cmocka_unit_test(test_chatty_peer),
		cmocka_unit_test(test_silence),
		cmocka_unit_test(test_comes_first),
		cmocka_unit_test(test_load_stalls),
		cmocka_unit_test(test_quiet_clock),
		cmocka_unit_test(test_last_words_read_late),
		cmocka_unit_test(test_told_to_begin_anew),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
