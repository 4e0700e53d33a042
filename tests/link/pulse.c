// SPDX-License-Identifier: Apache-2.0
/*
 * The pulse's thread, and the pod clock's map for all others.
 *
 * `lock` guards heartbeat, clock and what belongs to them; it is held for microseconds, and never
 * over a system call but clock_gettime(). The map is published by a sequence lock: readers copy it
 * and read the local clock between two looks at the sequence, the writer reads the local clock
 * while the sequence is odd. So whoever used the old map read its clock before the new map begins,
 * and time goes on smoothly from one to the other.
 *
 * Tested by tests/link/test_loss.c and tests/link/test_pulse.c.
 */
#include "tests/link/pulse.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MS		  1000000ull
#define PING_BURST_COUNT  200u /* this many pings PING_BURST_NS apart, then one every PING_NS */
#define PING_BURST_NS	  (10 * MS)
#define PING_NS		  (100 * MS)
#define READY_SAMPLES	  150u
#define SLEEP_NS_MAX	  (200 * MS)  /* so that a late thread notices that it is late */
#define UNREAD_SILENCE_NS (1000 * MS) /* from then on, look for bytes that nobody has read */
#define MAP_WORDS	  6

struct pulse {
	struct pulse_config config;
	pthread_t thread;
	int stop_fd;

	pthread_mutex_t lock; /* guards down to the blank line */
	struct heartbeat heartbeat;
	struct pod_clock clock;
	int unread[NODES_MAX]; /* bytes in a silent peer's socket, at the last look */

	/* The pulse thread's own. */
	uint64_t ping_id;

	atomic_bool ready;
	/* Sequence lock; odd: being written. Writers hold `lock`. */
	_Atomic uint32_t sequence;
	_Atomic uint64_t map[MAP_WORDS];
};

static uint64_t clock_ns(clockid_t id)
{
	struct timespec now;

	clock_gettime(id, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static uint64_t local_ns(const struct pulse *pulse)
{
	if (pulse->config.local_ns)
		return pulse->config.local_ns(pulse->config.ctx);
	return clock_ns(CLOCK_MONOTONIC_RAW);
}

/* ---- The map ---- */

static void map_pack(const struct clock_map *map, uint64_t word[MAP_WORDS])
{
	word[0] = map->local_ns;
	word[1] = map->pod_ns;
	word[2] = (uint64_t)(uint32_t)map->rate_ppb << 32 | (uint32_t)map->slew_ppb;
	word[3] = map->slew_span_ns;
	word[4] = map->error_ns;
	word[5] = map->growth_ppb;
}

static void map_unpack(const uint64_t word[MAP_WORDS], struct clock_map *map)
{
	map->local_ns = word[0];
	map->pod_ns = word[1];
	map->rate_ppb = (int32_t)(uint32_t)(word[2] >> 32);
	map->slew_ppb = (int32_t)(uint32_t)word[2];
	map->slew_span_ns = word[3];
	map->error_ns = word[4];
	map->growth_ppb = (uint32_t)word[5];
}

/* With the lock held. Pairs with read_map(). */
static void publish_map(struct pulse *pulse)
{
	uint32_t sequence = atomic_load_explicit(&pulse->sequence, memory_order_relaxed);
	uint64_t word[MAP_WORDS];
	struct clock_map map;

	atomic_store_explicit(&pulse->sequence, sequence + 1, memory_order_seq_cst);
	atomic_thread_fence(memory_order_seq_cst);
	pod_clock_update(&pulse->clock, local_ns(pulse), &map);
	map_pack(&map, word);
	for (unsigned i = 0; i < MAP_WORDS; i++)
		atomic_store_explicit(&pulse->map[i], word[i], memory_order_relaxed);
	atomic_store_explicit(&pulse->sequence, sequence + 2, memory_order_release);
}

/* The map, and a reading of the local clock that belongs to it. Pairs with publish_map(). */
static uint64_t read_map(const struct pulse *pulse, struct clock_map *ret_map)
{
	uint64_t word[MAP_WORDS], now_ns;
	uint32_t before, after;

	do {
		before = atomic_load_explicit(&pulse->sequence, memory_order_acquire);
		for (unsigned i = 0; i < MAP_WORDS; i++)
			word[i] = atomic_load_explicit(&pulse->map[i], memory_order_relaxed);
		now_ns = local_ns(pulse);
		atomic_thread_fence(memory_order_seq_cst);
		after = atomic_load_explicit(&pulse->sequence, memory_order_relaxed);
	} while (before != after || before % 2 != 0);
	map_unpack(word, ret_map);
	return now_ns;
}

uint64_t pulse_bounded_pod_ns(const struct pulse *pulse, uint64_t *ret_error_ns)
{
	struct clock_map map;
	uint64_t now_ns = read_map(pulse, &map);

	*ret_error_ns = clock_map_error_ns(&map, now_ns);
	return clock_map_pod_ns(&map, now_ns);
}

uint64_t pulse_pod_ns(const struct pulse *pulse)
{
	uint64_t error_ns;

	return pulse_bounded_pod_ns(pulse, &error_ns);
}

void pulse_map(const struct pulse *pulse, struct clock_map *ret_map)
{
	read_map(pulse, ret_map);
}

uint64_t pulse_error_ns(const struct pulse *pulse)
{
	struct clock_map map;
	uint64_t now_ns = read_map(pulse, &map);

	return clock_map_error_ns(&map, now_ns);
}

bool pulse_clock_ready(const struct pulse *pulse)
{
	return atomic_load_explicit(&pulse->ready, memory_order_acquire);
}

void pulse_clock_start(struct pulse *pulse)
{
	pthread_mutex_lock(&pulse->lock);
	pod_clock_start(&pulse->clock);
	pthread_mutex_unlock(&pulse->lock);
}

/* ---- What comes ---- */

static void answer_ping(struct pulse *pulse, const struct control_message *msg)
{
	struct control_message pong = { .type = CONTROL_CLOCK_PONG };

	pong.clock_pong.peer_received_ns = pulse_pod_ns(pulse);
	pong.clock_pong.id = msg->clock_ping.id;
	pong.clock_pong.sent_ns = msg->clock_ping.sent_ns;
	pong.clock_pong.peer_sent_ns = pulse_pod_ns(pulse);
	/* A link that is down is found by whoever reads it. */
	(void)control_send(mesh_control(pulse->config.mesh, msg->src), &pong);
}

static void take_pong(struct pulse *pulse, const struct control_clock_pong *pong)
{
	struct clock_sample sample = {
		.sent_ns = pong->sent_ns,
		.received_ns = local_ns(pulse),
		.pod_received_ns = pong->peer_received_ns,
		.pod_sent_ns = pong->peer_sent_ns,
	};

	pthread_mutex_lock(&pulse->lock);
	/* What cannot be is not used: a peer's mistake costs its own accuracy only. */
	if (pod_clock_sample(&pulse->clock, &sample) >= 0) {
		publish_map(pulse);
		if (pulse->clock.sample_count >= READY_SAMPLES)
			atomic_store_explicit(&pulse->ready, true, memory_order_release);
	}
	pthread_mutex_unlock(&pulse->lock);
}

bool pulse_message(struct pulse *pulse, const struct control_message *msg)
{
	pthread_mutex_lock(&pulse->lock);
	heartbeat_heard(&pulse->heartbeat, msg->src, clock_ns(CLOCK_MONOTONIC));
	pthread_mutex_unlock(&pulse->lock);
	switch (msg->type) {
	case CONTROL_HEARTBEAT:
		return true;
	case CONTROL_CLOCK_PING:
		if (pulse->config.self == 0)
			answer_ping(pulse, msg);
		return true;
	case CONTROL_CLOCK_PONG:
		if (msg->src == 0)
			take_pong(pulse, &msg->clock_pong);
		return true;
	default:
		return false;
	}
}

void pulse_forget(struct pulse *pulse, uint16_t node)
{
	pthread_mutex_lock(&pulse->lock);
	heartbeat_forget(&pulse->heartbeat, node);
	pthread_mutex_unlock(&pulse->lock);
}

/* ---- The thread ---- */

/*
 * Bytes that arrive while our control thread is late are signs of life that it has not seen. Only
 * if they become more: what a dead peer has left in the socket stays as it is.
 */
static void look_for_unread(struct pulse *pulse, uint64_t now_ns)
{
	for (uint16_t i = 0; i < pulse->config.node_count; i++) {
		int unread = 0;

		if (i == pulse->config.self || !pulse->heartbeat.peer[i].watched)
			continue;
		if (heartbeat_silence_ns(&pulse->heartbeat, i, now_ns) < UNREAD_SILENCE_NS) {
			pulse->unread[i] = 0;
			continue;
		}
		if (ioctl(control_fd(mesh_control(pulse->config.mesh, i)), FIONREAD, &unread) < 0)
			continue;
		if (unread > pulse->unread[i])
			heartbeat_heard(&pulse->heartbeat, i, now_ns);
		pulse->unread[i] = unread;
	}
}

/*
 * A link that is down is for its reader to report: the peer's last words (END) may lie unread
 * before its end, and they tell the true reason.
 */
static void send_to(struct pulse *pulse, uint16_t node, const struct control_message *msg)
{
	if (control_send(mesh_control(pulse->config.mesh, node), msg) == -ENOBUFS)
		mesh_down(pulse->config.mesh, node, -ENOBUFS, NULL);
}

static void send_heartbeats(struct pulse *pulse, const bool watched[NODES_MAX])
{
	struct control_message msg = { .type = CONTROL_HEARTBEAT };

	for (uint16_t i = 0; i < pulse->config.node_count; i++) {
		if (watched[i])
			send_to(pulse, i, &msg);
	}
}

static void beat(struct pulse *pulse)
{
	uint16_t dead[NODES_MAX];
	uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
	bool send, watched[NODES_MAX];
	uint32_t dead_count;

	pthread_mutex_lock(&pulse->lock);
	look_for_unread(pulse, now_ns);
	dead_count = heartbeat_tick(&pulse->heartbeat, now_ns, &send, dead);
	for (uint16_t i = 0; i < pulse->config.node_count; i++)
		watched[i] = pulse->heartbeat.peer[i].watched;
	publish_map(pulse);
	pthread_mutex_unlock(&pulse->lock);

	for (uint32_t i = 0; i < dead_count; i++) {
		char text[128];
		uint64_t silence_ns;

		pthread_mutex_lock(&pulse->lock);
		silence_ns = heartbeat_silence_ns(&pulse->heartbeat, dead[i], now_ns);
		pthread_mutex_unlock(&pulse->lock);
		snprintf(text, sizeof(text),
			 "nothing heard from it for %llu.%llu s (it is stopped, overloaded or cut "
			 "off)",
			 (unsigned long long)(silence_ns / 1000000000),
			 (unsigned long long)(silence_ns / 100000000 % 10));
		mesh_down(pulse->config.mesh, dead[i], -ETIMEDOUT, text);
	}
	if (send)
		send_heartbeats(pulse, watched);
}

static void ping(struct pulse *pulse)
{
	struct control_message msg = { .type = CONTROL_CLOCK_PING };

	msg.clock_ping.id = pulse->ping_id++;
	msg.clock_ping.sent_ns = local_ns(pulse);
	send_to(pulse, 0, &msg);
}

static void prepare_thread(void)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	pthread_setname_np(pthread_self(), "pulse");
	/* Only the privileged may; the others do without. */
	(void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), -15);
}

static void *pulse_main(void *argument)
{
	struct pulse *pulse = argument;
	struct pollfd stop = { .fd = pulse->stop_fd, .events = POLLIN };
	uint64_t ping_ns = 0;

	prepare_thread();
	for (;;) {
		uint64_t now_ns = clock_ns(CLOCK_MONOTONIC), wake_ns;
		struct timespec timeout;

		beat(pulse);
		if (pulse->config.self != 0 && now_ns >= ping_ns) {
			ping(pulse);
			ping_ns = now_ns +
				  (pulse->ping_id < PING_BURST_COUNT ? PING_BURST_NS : PING_NS);
		}
		pthread_mutex_lock(&pulse->lock);
		wake_ns = heartbeat_deadline(&pulse->heartbeat);
		pthread_mutex_unlock(&pulse->lock);
		if (pulse->config.self != 0 && ping_ns < wake_ns)
			wake_ns = ping_ns;
		if (wake_ns > now_ns + SLEEP_NS_MAX)
			wake_ns = now_ns + SLEEP_NS_MAX;
		wake_ns = wake_ns > now_ns ? wake_ns - now_ns : 0;
		timeout = (struct timespec){ .tv_nsec = (long)wake_ns };
		if (ppoll(&stop, 1, &timeout, NULL) > 0)
			return NULL;
	}
}

int pulse_create(const struct pulse_config *config, struct pulse **ret_pulse)
{
	struct heartbeat_config times = config->heartbeat;
	struct clock_config clock = { .reference = config->self == 0 };
	struct pulse *pulse = calloc(1, sizeof(*pulse));
	int error;

	if (!pulse)
		return -ENOMEM;
	pulse->config = *config;
	times.self = config->self;
	times.node_count = config->node_count;
	pthread_mutex_init(&pulse->lock, NULL);
	atomic_init(&pulse->ready, config->self == 0);
	pulse->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	error = pulse->stop_fd < 0 ? -errno : 0;
	if (error == 0)
		error = heartbeat_init(&pulse->heartbeat, &times, clock_ns(CLOCK_MONOTONIC));
	if (error == 0)
		error = pod_clock_init(&pulse->clock, &clock);
	if (error == 0) {
		publish_map(pulse);
		error = -pthread_create(&pulse->thread, NULL, pulse_main, pulse);
	}
	if (error < 0) {
		if (pulse->stop_fd >= 0)
			close(pulse->stop_fd);
		pthread_mutex_destroy(&pulse->lock);
		free(pulse);
		return error;
	}
	*ret_pulse = pulse;
	return 0;
}

void pulse_destroy(struct pulse *pulse)
{
	uint64_t one = 1;

	if (!pulse)
		return;
	while (write(pulse->stop_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	pthread_join(pulse->thread, NULL);
	close(pulse->stop_fd);
	pthread_mutex_destroy(&pulse->lock);
	free(pulse);
}
