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
	assert_ends(&half, 2000, "node 1 (b, ");
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
	msg = (struct control_message){ .type = CONTROL_RUN, .run = { .start_ns = 5 } };
	half_peer_send(&half, &msg);
	msg = (struct control_message){ .type = CONTROL_STATS_REQUEST };
	half_peer_send(&half, &msg);
	for (int i = 0; i < 2000 && atomic_load(&half.node->phase) != NODE_RUNNING; i++)
		test_sleep_ms(1);
	assert_int_equal(atomic_load(&half.node->phase), NODE_RUNNING);
	assert_null(half_end(&half, 100));
	msg = (struct control_message){ .type = CONTROL_RUN };
	half_peer_send(&half, &msg);
	assert_ends(&half, 2000, "it sent RUN out of turn");
}

struct chatter {
	struct half *half;
	atomic_bool stop;
	unsigned int pings, beats, longest_ms;
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
	uint64_t last_ns = test_now_ns();
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
			if (heard.type != CONTROL_CLOCK_PING)
				continue;
			unsigned int ms = (unsigned int)((test_now_ns() - last_ns) / 1000000);
			if (ms > c->longest_ms)
				c->longest_ms = ms;
			last_ns = test_now_ns();
			c->pings++;
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
	test_sleep_ms(1500);
	control_page_link_failed(half.node, 0, "torn");
	assert_ends(&half, 3000, "torn");
	atomic_store(&chatter.stop, true);
	pthread_join(thread, NULL);
	/* Pings go out every 100 ms here, as nobody answers them; fewer would do. */
	if (chatter.pings < 5 || chatter.beats < 2)
		fail_msg("%u pings, %u heartbeats", chatter.pings, chatter.beats);
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
	control_page_link_failed(half.node, 0, "torn");
	test_sleep_ms(700);
	pthread_mutex_unlock(&half.node->lock);
	assert_ends(&half, 2000, "enough");
}

static void test_silence(void **state)
{
	struct half half;
	half_create(&half, 0);
	assert_int_equal(control_start(half.node), 0);
	/* For longer on a host that lets this run late. */
	assert_ends(&half, 15000, "nothing heard from it for ");
}

/* A node whose last bytes come together with its end has ended all the same, and at once. */
static void test_end_behind_a_word(void **state)
{
	struct half half;
	struct control_channel *channel;
	uint64_t start_ns;
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
	start_ns = test_now_ns();
	pthread_mutex_unlock(&half.node->lock);
	assert_ends(&half, 6000, "it closed its link");
	assert_true(test_now_ns() - start_ns < 2000000000);
}

/* A node that waits for the others, and does nothing else, takes no core from them. */
static void test_waits_asleep(void **state)
{
	struct half half;
	struct timespec before, after;
	half_create(&half, 0);
	assert_int_equal(control_start(half.node), 0);
	test_sleep_ms(100);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
	test_sleep_ms(1500);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
	double ms = (double)(after.tv_sec - before.tv_sec) * 1e3 +
		    (double)(after.tv_nsec - before.tv_nsec) / 1e6;
	if (ms > 100)
		fail_msg("%.0f ms of a core in 1.5 s", ms);
}

/* So that it beats on a host that has more to do than cores for it. */
static void test_comes_first(void **state)
{
	struct half half;
	DIR *tasks = opendir("/proc/self/task");
	unsigned int before = 0;

	assert_non_null(tasks);
	if (geteuid() != 0) {
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

struct answerer {
	struct half *half;
	atomic_bool stop;
	atomic_uint pings;
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

static unsigned int pings_in(struct answerer *a, unsigned int ms)
{
	unsigned int before = atomic_load(&a->pings);
	test_sleep_ms(ms);
	return atomic_load(&a->pings) - before;
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
	assert_in_range(pings_in(&answerer, 1000), 3, 1000);
	for (uint32_t v = 1; v <= 2; v++) {
		assert_int_equal(vcpu_place_leave(places, v, 0), 0);
		vcpu_place_sent(places, v);
	}
	/* Before the guest runs nobody knows where vCPUs are, and the clock's rate is wanted. */
	assert_in_range(pings_in(&answerer, 1200), 4, 10000);
	atomic_store(&half.node->run_ns, 1);
	test_sleep_ms(600);
	assert_in_range(pings_in(&answerer, 2500), 1, 5);
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
		cmocka_unit_test(test_waits_asleep), cmocka_unit_test(test_end_behind_a_word),
		cmocka_unit_test(test_out_of_turn),  cmocka_unit_test(test_phases_follow),
		cmocka_unit_test(test_chatty_peer),  cmocka_unit_test(test_silence),
		cmocka_unit_test(test_comes_first),  cmocka_unit_test(test_load_stalls),
		cmocka_unit_test(test_quiet_clock),  cmocka_unit_test(test_last_words_read_late),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
