// SPDX-License-Identifier: Apache-2.0
/*
 * The mesh: it comes up whatever the order of starts and whoever else knocks, and what does not
 * belong together is refused on both sides with a line that says why. Nodes are threads here, each
 * with a mesh of its own; processes that die are in test_loss.c.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "link/mesh.h"
#include "tests/link/support.h"
#include "link/mesh_state.h"
#include "wire/handshake.h"
#include "wire/version.h"

#define TEST_NODES 6

/* ---- A node of a test pod ---- */

struct node {
	struct mesh_config config;
	struct mesh_node peers[TEST_NODES];
	struct mesh *mesh;
	int cancel_fd;
	int result;
	char why[MESH_WHY_MAX];
	pthread_t thread;
	pthread_mutex_t lock; /* log */
	char log[16384];
	char down[MESH_WHY_MAX];
};

static void on_progress(void *ctx, enum mesh_event event, uint16_t number, const char *text)
{
	static const char *const names[] = { "WAITING", "CONNECTED", "REFUSED", "DROPPED" };
	struct node *node = ctx;
	size_t used;

	pthread_mutex_lock(&node->lock);
	used = strlen(node->log);
	snprintf(node->log + used, sizeof(node->log) - used, "%s %d: %s\n", names[event],
		 number == NODE_NONE ? -1 : number, text);
	pthread_mutex_unlock(&node->lock);
}

static void on_down(void *ctx, uint16_t number, const char *cause)
{
	struct node *node = ctx;

	snprintf(node->down, sizeof(node->down), "%s", cause);
}

static bool logged(struct node *node, const char *text)
{
	bool found;

	pthread_mutex_lock(&node->lock);
	found = strstr(node->log, text) != NULL;
	pthread_mutex_unlock(&node->lock);
	return found;
}

static void wait_logged(struct node *node, const char *text)
{
	for (unsigned i = 0; i < 500 && !logged(node, text); i++)
		test_sleep_ms(10);
	if (!logged(node, text))
		fail_msg("node %u never said \"%s\", but:\n%s", node->config.self, text, node->log);
}

static const char *const names[TEST_NODES] = { "alpha", "beta", "gamma", "delta", "eps", "zeta" };

/* Every pod has ports of its own, so that one test's sockets do not disturb the next. */
static unsigned pod_number;

static void make_node(struct node *node, uint16_t self, uint16_t count)
{
	memset(node, 0, sizeof(*node));
	for (uint16_t i = 0; i < count; i++)
		node->peers[i] = (struct mesh_node){
			.name = names[i],
			.address = strdup(test_address(i, pod_number)),
		};
	node->config = (struct mesh_config){
		.pod_name = "tide",
		.self = self,
		.node_count = count,
		.node = node->peers,
		.shard_count = 2,
		.config_digest = 0x1234,
		.timeout_ms = 8000,
		.handshake_ms = 400,
		.progress = on_progress,
		.down = on_down,
		.ctx = node,
	};
	node->cancel_fd = eventfd(0, 0);
	pthread_mutex_init(&node->lock, NULL);
}

static struct node *make_pod(uint16_t count)
{
	struct node *pod = malloc(count * sizeof(*pod));

	pod_number++;
	for (uint16_t i = 0; i < count; i++)
		make_node(&pod[i], i, count);
	return pod;
}

static void *node_main(void *argument)
{
	struct node *node = argument;

	node->result = mesh_create(&node->config, &node->mesh, node->why, sizeof(node->why));
	if (node->result == 0)
		node->result =
			mesh_bring_up(node->mesh, node->cancel_fd, node->why, sizeof(node->why));
	return NULL;
}

static void start(struct node *node)
{
	assert_int_equal(pthread_create(&node->thread, NULL, node_main, node), 0);
}

static int finish(struct node *node)
{
	pthread_join(node->thread, NULL);
	return node->result;
}

static void cancel(struct node *node)
{
	uint64_t one = 1;

	assert_int_equal(write(node->cancel_fd, &one, sizeof(one)), sizeof(one));
}

static void end_node(struct node *node)
{
	mesh_destroy(node->mesh);
	node->mesh = NULL;
}

static void end_pod(struct node *pod, uint16_t count)
{
	for (uint16_t i = 0; i < count; i++) {
		end_node(&pod[i]);
		close(pod[i].cancel_fd);
		for (uint16_t k = 0; k < pod[i].config.node_count; k++)
			free((void *)(uintptr_t)pod[i].peers[k].address);
	}
	free(pod);
}

static void assert_says(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("\"%s\" does not say \"%s\"", text, part);
	assert_null(strchr(text, '\n'));
}

static int listen_at(const char *address);
static int connect_to(const char *address);

/* ---- Coming up ---- */

static void check_all_channels(struct node *pod, uint16_t count)
{
	static struct page_frame frame;
	struct control_message *msg = calloc(1, sizeof(*msg));

	for (uint16_t a = 0; a < count; a++) {
		for (uint16_t b = 0; b < count; b++) {
			if (a == b) {
				assert_null(mesh_control(pod[a].mesh, a));
				continue;
			}
			struct control_channel *to = mesh_control(pod[a].mesh, b);
			struct control_channel *from = mesh_control(pod[b].mesh, a);
			int error;

			*msg = (struct control_message){ .type = CONTROL_HEARTBEAT };
			msg->heartbeat.count = a * 100u + b;
			assert_int_equal(control_send(to, msg), 0);
			/* Behind the heartbeats of the bring-up. */
			while ((error = control_receive(from, msg)) == -EAGAIN ||
			       (error == 0 && msg->heartbeat.count == 0))
				test_sleep_ms(1);
			assert_int_equal(error, 0);
			assert_int_equal(msg->src, a);
			assert_int_equal(msg->heartbeat.count, a * 100 + b);
			for (uint16_t s = 0; s < pod[a].config.shard_count; s++) {
				struct page_channel *out = mesh_pages(pod[a].mesh, b, s);
				struct page_channel *in = mesh_pages(pod[b].mesh, a, s);

				frame.message_count = 1;
				frame.page_count = 0;
				frame.message[0] = (struct coh_msg){
					.type = COH_DONE,
					.gpn = a * 10000u + b * 100u + s,
				};
				assert_int_equal(out->ops->send(out, &frame), 0);
				while ((error = in->ops->receive(in, &frame)) == -EAGAIN)
					test_sleep_ms(1);
				assert_int_equal(error, 0);
				assert_int_equal(frame.message[0].src, a);
				assert_int_equal(frame.message[0].gpn, a * 10000 + b * 100 + s);
			}
		}
	}
	free(msg);
}

static void test_comes_up(void **state)
{
	struct node *pod = make_pod(TEST_NODES);

	for (int i = TEST_NODES - 1; i >= 0; i--) {
		start(&pod[i]);
		test_sleep_ms(i % 3 * 40);
	}
	for (int i = 0; i < TEST_NODES; i++) {
		int result = finish(&pod[i]);

		if (result != 0)
			fail_msg("node %d: %s", i, pod[i].why);
		assert_true(logged(&pod[i], i == 0 ? "CONNECTED 1: node 1 (beta, "
						   : "CONNECTED 0: node 0 (alpha, "));
	}
	assert_true(logged(&pod[5], "WAITING 2: waiting for node 2 (gamma) at 127."));
	check_all_channels(pod, TEST_NODES);
	end_pod(pod, TEST_NODES);
}

static void test_one_node(void **state)
{
	struct node *pod = make_pod(1);

	start(&pod[0]);
	assert_int_equal(finish(&pod[0]), 0);
	end_pod(pod, 1);
}

static void test_small_socket_buffers(void **state)
{
	struct node *pod = make_pod(3);

	for (int i = 0; i < 3; i++) {
		pod[i].config.socket_buffer = 2048;
		start(&pod[i]);
	}
	for (int i = 0; i < 3; i++)
		assert_int_equal(finish(&pod[i]), 0);
	check_all_channels(pod, 3);
	end_pod(pod, 3);
}

/* A node that ends while others are missing, and is started again, is taken as if it were new. */
static void test_restart_during_bring_up(void **state)
{
	struct node *pod = make_pod(3);

	start(&pod[0]);
	start(&pod[1]);
	wait_logged(&pod[0], "CONNECTED 1");
	wait_logged(&pod[1], "CONNECTED 0");
	cancel(&pod[1]);
	assert_int_equal(finish(&pod[1]), -ECANCELED);
	end_node(&pod[1]);
	wait_logged(&pod[0], "DROPPED 1: lost node 1 (beta");
	close(pod[1].cancel_fd);
	pod[1].cancel_fd = eventfd(0, 0);
	start(&pod[1]);
	test_sleep_ms(100);
	start(&pod[2]);
	for (int i = 0; i < 3; i++)
		assert_int_equal(finish(&pod[i]), 0);
	check_all_channels(pod, 3);
	end_pod(pod, 3);
}

/* One secret: they link. Another one, or none: refused, and told nothing of the pod. */
static void test_secrets(void **state)
{
	static const char *const secret[] = { "of one pod, long", "of another, longer", "" };

	for (int a = 0; a < 3; a++) {
		struct node *pod = make_pod(2);

		pod[0].config.secret = secret[0];
		pod[0].config.secret_size = strlen(secret[0]);
		pod[1].config.secret = secret[a];
		pod[1].config.secret_size = strlen(secret[a]);
		start(&pod[0]);
		start(&pod[1]);
		if (a == 0) {
			assert_int_equal(finish(&pod[0]), 0);
			assert_int_equal(finish(&pod[1]), 0);
		} else {
			assert_int_equal(finish(&pod[1]), -ECONNREFUSED);
			assert_says(pod[1].why, "node 0 (alpha");
			assert_says(pod[1].why, "secret");
			wait_logged(&pod[0], "does not know this pod's secret");
			cancel(&pod[0]);
			finish(&pod[0]);
		}
		end_pod(pod, 2);
	}
}

/* As make_node()'s nodes say it, for the control channel. */
static struct handshake hello_of(uint16_t node, uint16_t peer, uint16_t node_count)
{
	struct handshake hello = {
		.version = WIRE_VERSION,
		.node = node,
		.peer = peer,
		.purpose = HANDSHAKE_CONTROL,
		.shard_count = 2,
		.node_count = node_count,
		.config_digest = 0x1234,
		.incarnation = 7,
		.limits_digest = handshake_limits_digest(),
		.pod_name = "tide",
		.build = "eagre",
		.nonce = { 1, 2, 3 },
	};

	snprintf(hello.node_name, sizeof(hello.node_name), "%s", names[node]);
	return hello;
}

static void receive_whole(int fd, uint8_t bytes[HANDSHAKE_BYTES])
{
	for (size_t got = 0; got < HANDSHAKE_BYTES;) {
		ssize_t n = recv(fd, bytes + got, HANDSHAKE_BYTES - got, 0);

		assert_true(n > 0);
		got += (size_t)n;
	}
}

/* Who knows all of the pod but its secret: hears a verdict, is not linked, and keeps nobody out. */
static void test_stranger_with_digest(void **state)
{
	static const char secret[] = "the pod's own secret";
	struct handshake hello = hello_of(1, 0, 2);
	uint8_t bytes[HANDSHAKE_BYTES];
	struct node *pod = make_pod(2);
	int fd;

	for (int i = 0; i < 2; i++) {
		pod[i].config.secret = secret;
		pod[i].config.secret_size = sizeof(secret);
	}
	start(&pod[0]);
	wait_logged(&pod[0], "WAITING 1");
	fd = connect_to(pod[0].peers[0].address);
	handshake_encode(&hello, bytes);
	handshake_seal(bytes, NULL, NULL, 0);
	assert_int_equal(send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL), sizeof(bytes));
	receive_whole(fd, bytes);
	assert_int_equal(bytes[12], HANDSHAKE_SECRET);
	for (size_t i = HANDSHAKE_FIXED_BYTES; i < HANDSHAKE_BYTES; i++)
		assert_int_equal(bytes[i], 0);
	start(&pod[1]);
	assert_int_equal(finish(&pod[0]), 0);
	assert_int_equal(finish(&pod[1]), 0);
	close(fd);
	end_pod(pod, 2);
}

static const char overheard_secret[] = "the pod's own secret";

/* What a node has said to another on some connection, for everybody on the wire to hear. */
static void overhear(const struct node *node, uint16_t peer, uint64_t incarnation,
		     uint8_t bytes[HANDSHAKE_BYTES])
{
	struct handshake hello = hello_of(node->config.self, peer, node->config.node_count);

	hello.incarnation = incarnation;
	handshake_encode(&hello, bytes);
	handshake_seal(bytes, NULL, overheard_secret, sizeof(overheard_secret));
}

/* Who says a node's hello again, and what it once proved, gets no link, and takes none from it. */
static void test_overheard_hello(void **state)
{
	struct node *pod = make_pod(3);
	uint8_t hello[HANDSHAKE_BYTES], answer[HANDSHAKE_BYTES],
		proof[HANDSHAKE_PROOF_BYTES] = { 0 };
	int fd[3];

	for (int i = 0; i < 3; i++) {
		pod[i].config.secret = overheard_secret;
		pod[i].config.secret_size = sizeof(overheard_secret);
		pod[i].config.handshake_ms = 10000;
	}
	start(&pod[0]);
	start(&pod[1]);
	wait_logged(&pod[0], "CONNECTED 1");
	wait_logged(&pod[1], "CONNECTED 0");
	overhear(&pod[1], 0, pod[1].mesh->incarnation, hello);
	for (int i = 0; i < 3; i++) {
		fd[i] = connect_to(pod[0].peers[0].address);
		assert_int_equal(send(fd[i], hello, sizeof(hello), MSG_NOSIGNAL), sizeof(hello));
		receive_whole(fd[i], answer);
		if (i == 2) /* says no more */
			break;
		assert_int_equal(send(fd[i], proof, sizeof(proof), MSG_NOSIGNAL), sizeof(proof));
		assert_int_equal(recv(fd[i], answer + 1, 1, 0), 0); /* it is thrown out */
		/* What node 1 proved on that connection: no proof on the next. */
		handshake_prove(hello, answer, overheard_secret, sizeof(overheard_secret), proof);
	}
	wait_logged(&pod[0], "its hello was overheard from somebody else");
	start(&pod[2]);
	for (int i = 0; i < 3; i++)
		assert_int_equal(finish(&pod[i]), 0);
	assert_false(logged(&pod[0], "lost node 1"));
	check_all_channels(pod, 3);
	for (int i = 0; i < 3; i++)
		close(fd[i]);
	end_pod(pod, 3);
}

/* Nor does who answers with what node 0 has once answered to another hello. */
static void test_overheard_answer(void **state)
{
	for (int other = 0; other < 2; other++) {
		uint8_t hello[HANDSHAKE_BYTES], answer[HANDSHAKE_BYTES], old[HANDSHAKE_BYTES];
		struct node *pod = make_pod(2);
		int listener = listen_at(pod[0].peers[0].address), fd;

		pod[1].config.secret = overheard_secret;
		pod[1].config.secret_size = sizeof(overheard_secret);
		start(&pod[1]);
		fd = accept(listener, NULL, NULL);
		receive_whole(fd, hello);
		overhear(&pod[0], 1, 77, answer);
		overhear(&pod[1], 0, pod[1].mesh->incarnation, old);
		if (other)
			handshake_seal(answer, old, overheard_secret, sizeof(overheard_secret));
		assert_int_equal(send(fd, answer, sizeof(answer), MSG_NOSIGNAL), sizeof(answer));
		assert_int_equal(finish(&pod[1]), -ECONNREFUSED);
		assert_says(pod[1].why, "secret");
		close(fd);
		close(listener);
		end_pod(pod, 2);
	}
}

static void on_ended(void *ctx, const struct control_end *end)
{
	struct node *node = ctx;

	snprintf(node->down, sizeof(node->down), "%s", end->text);
}

/* Who says why it ends, while others are missing, ends them at once. */
static void test_end_during_bring_up(void **state)
{
	struct control_message msg = { .type = CONTROL_END };
	struct node *pod = make_pod(3);
	uint64_t start_ns;

	msg.end = (struct control_end){ .kind = CONTROL_END_USER, .status = 3, .text = "enough" };
	pod[0].config.ended = on_ended;
	start(&pod[0]);
	start(&pod[1]);
	wait_logged(&pod[0], "CONNECTED 1");
	wait_logged(&pod[1], "CONNECTED 0");
	cancel(&pod[1]);
	assert_int_equal(finish(&pod[1]), -ECANCELED);
	start_ns = test_now_ns();
	mesh_tell(pod[1].mesh, &msg, NODE_NONE);
	end_node(&pod[1]);
	assert_int_equal(finish(&pod[0]), -ECONNABORTED);
	assert_true(test_now_ns() - start_ns < 2000000000);
	assert_string_equal(pod[0].down, "enough");
	end_pod(pod, 3);
}

/* Who was there, went without a word, and does not come back is not waited for until the deadline. */
static void test_lost_during_bring_up(void **state)
{
	struct node *pod = make_pod(3);
	uint64_t start_ns;

	pod[0].config.timeout_ms = 60000;
	start(&pod[0]);
	start(&pod[1]);
	wait_logged(&pod[0], "CONNECTED 1");
	wait_logged(&pod[1], "CONNECTED 0");
	cancel(&pod[1]);
	assert_int_equal(finish(&pod[1]), -ECANCELED);
	start_ns = test_now_ns();
	end_node(&pod[1]);
	assert_int_equal(finish(&pod[0]), -ECONNABORTED);
	assert_true(test_now_ns() - start_ns < 5000000000);
	assert_says(pod[0].why, "node 1 (beta");
	assert_says(pod[0].why, "did not come back");
	end_pod(pod, 3);
}

/* Its kernel takes connections, nobody answers: a node that was stopped, or another program. */
static void test_stopped_before_handshake(void **state)
{
	struct node *pod = make_pod(2);
	int listener = listen_at(pod[0].peers[0].address);
	uint64_t start_ns = test_now_ns();

	pod[1].config.timeout_ms = 60000;
	start(&pod[1]);
	assert_int_equal(finish(&pod[1]), -ECONNABORTED);
	assert_true(test_now_ns() - start_ns < 5500000000);
	assert_says(pod[1].why, "does not answer");
	close(listener);
	end_pod(pod, 2);
}

/* The loop does not get on for longer than it takes lightly, with its first connection under way. */
static void on_progress_late(void *ctx, enum mesh_event event, uint16_t number, const char *text)
{
	struct node *node = ctx;
	bool first = !node->log[0];

	on_progress(ctx, event, number, text);
	if (first)
		test_sleep_ms(1300);
}

/* Who did not get to run holds nothing against peers that came in just then. */
static void test_late_judge(void **state)
{
	struct node *pod = make_pod(2);

	pod[1].config.progress = on_progress_late;
	start(&pod[0]);
	wait_logged(&pod[0], "WAITING 1");
	start(&pod[1]);
	if (finish(&pod[1]) != 0)
		fail_msg("%s", pod[1].why);
	assert_int_equal(finish(&pod[0]), 0);
	end_pod(pod, 2);
}

/* A peer that comes and goes as fast as it can costs a few lines a second. */
static void test_flapping(void **state)
{
	struct node *pod = make_pod(3);
	unsigned rounds = 0, lines = 0;
	uint64_t end_ns = test_now_ns() + 1500000000;

	start(&pod[0]);
	for (; test_now_ns() < end_ns; rounds++) {
		start(&pod[1]);
		while (!logged(&pod[1], "CONNECTED 0"))
			test_sleep_ms(1);
		cancel(&pod[1]);
		finish(&pod[1]);
		end_node(&pod[1]);
		close(pod[1].cancel_fd);
		pod[1].cancel_fd = eventfd(0, 0);
		pod[1].log[0] = '\0';
	}
	cancel(&pod[0]);
	finish(&pod[0]);
	for (const char *c = pod[0].log; *c; c++)
		lines += *c == '\n';
	if (lines > 4 * 3 + 4)
		fail_msg("%u rounds, %u lines:\n%s", rounds, lines, pod[0].log);
	assert_true(rounds > 10);
	end_pod(pod, 3);
}

static void test_missing_node(void **state)
{
	struct node *pod = make_pod(3);

	pod[0].config.timeout_ms = pod[1].config.timeout_ms = 1000;
	start(&pod[0]);
	start(&pod[1]);
	assert_int_equal(finish(&pod[0]), -ETIMEDOUT);
	assert_int_equal(finish(&pod[1]), -ETIMEDOUT);
	assert_says(pod[0].why, "waited 1 s for node 2 (gamma, 127.");
	assert_says(pod[0].why, "never heard of it");
	end_pod(pod, 3);

	pod = make_pod(2);
	pod[1].config.timeout_ms = 500;
	start(&pod[1]);
	assert_int_equal(finish(&pod[1]), -ETIMEDOUT);
	assert_says(pod[1].why, "Connection refused");
	end_pod(pod, 2);
}

/* ---- Refusals. Node 1 dials node 0; both must say the same thing. ---- */

static void expect_refusal(struct node *pod, const char *dialler_says, const char *listener_says)
{
	start(&pod[0]);
	start(&pod[1]);
	assert_int_equal(finish(&pod[1]), -ECONNREFUSED);
	assert_says(pod[1].why, dialler_says);
	wait_logged(&pod[0], listener_says);
	cancel(&pod[0]);
	assert_int_equal(finish(&pod[0]), -ECANCELED);
	end_pod(pod, 2);
}

static void test_refusals(void **state)
{
	struct node *pod = make_pod(2);

	pod[1].config.pod_name = "ebb";
	expect_refusal(pod, "belongs to pod \"tide\", this node to pod \"ebb\": give each pod",
		       "belongs to pod \"ebb\", this node to pod \"tide\": give each pod");

	pod = make_pod(2);
	pod[1].config.config_digest = 0x99;
	expect_refusal(pod, "node 0 (alpha, 127.", "REFUSED 1: node 1 (beta, from 127.");
	pod = make_pod(2);
	pod[1].config.config_digest = 0x99;
	expect_refusal(pod,
		       "was started with another configuration of pod \"tide\" (digest "
		       "0000000000001234, here 0000000000000099): copy one file",
		       "was started with another configuration of pod \"tide\" (digest "
		       "0000000000000099, here 0000000000001234): copy one file");

	pod = make_pod(2);
	pod[1].config.shard_count = 3;
	expect_refusal(pod, "has 2 shards, this node 3: set the same number",
		       "has 3 shards, this node 2: set the same number");

	pod = make_pod(2);
	pod[1].config.capabilities = HANDSHAKE_CAP_NATIVE_TEST;
	expect_refusal(pod, "other capabilities (0, here 0x1)", "other capabilities (0x1, here 0)");
}

/* Node 1 of one configuration has the address of node 0 of another: numbers are mixed up. */
static void test_wrong_number(void **state)
{
	struct node *pod = make_pod(3);

	/* What node 2 takes for node 1 is node 0. */
	const char *swap = pod[2].peers[0].address;
	pod[2].peers[0].address = pod[2].peers[1].address;
	pod[2].peers[1].address = swap;
	start(&pod[0]);
	start(&pod[2]);
	assert_int_equal(finish(&pod[2]), -ECONNREFUSED);
	assert_says(pod[2].why, "node 1 (beta, 127.");
	assert_says(pod[2].why, "says it is node 0: addresses are mixed up");
	wait_logged(&pod[0], "says it is node 2 and wants node 1, but this is node 0");
	cancel(&pod[0]);
	finish(&pod[0]);
	end_pod(pod, 3);
}

static void test_unknown_number(void **state)
{
	struct node *pod = make_pod(3);

	pod[0].config.node_count = 2;
	start(&pod[0]);
	start(&pod[2]);
	assert_int_equal(finish(&pod[2]), -ECONNREFUSED);
	assert_says(pod[2].why, "has no other node 2 in its configuration");
	wait_logged(&pod[0], "says it is node 2, which is not in this node's configuration");
	cancel(&pod[0]);
	finish(&pod[0]);
	pod[0].config.node_count = 3;
	end_pod(pod, 3);
}

/* Two processes say they are node 1, from different addresses. */
static void test_same_node_twice(void **state)
{
	struct node *pod = make_pod(3);
	struct node *twin = malloc(sizeof(*twin));

	make_node(twin, 1, 3);
	free((void *)(uintptr_t)twin->peers[1].address);
	twin->peers[1].address = strdup(test_address(9, 99));
	start(&pod[0]);
	start(&pod[1]);
	wait_logged(&pod[0], "CONNECTED 1");
	start(twin);
	assert_int_equal(finish(twin), -ECONNREFUSED);
	assert_says(twin->why,
		    "is linked with another process that says it is node 1: start each node once");
	wait_logged(&pod[0],
		    "is linked already, and a second process says it is node 1: start each");
	/* The first is undisturbed. */
	start(&pod[2]);
	for (int i = 0; i < 3; i++)
		assert_int_equal(finish(&pod[i]), 0);
	check_all_channels(pod, 3);

	/* And later, too, when the pod is running. */
	end_node(twin);
	pod[0].log[0] = '\0';
	test_sleep_ms(1100); /* the same refusal is said once a second */
	start(twin);
	for (unsigned i = 0; i < 500 && !logged(&pod[0], "second process"); i++) {
		struct pollfd fds = { .fd = mesh_fd(pod[0].mesh), .events = POLLIN };

		poll(&fds, 1, 10);
		mesh_poll(pod[0].mesh);
	}
	assert_int_equal(finish(twin), -ECONNREFUSED);
	assert_says(twin->why, "start each node once");
	end_pod(twin, 1);
	end_pod(pod, 3);
}

/* ---- Peers that we fake, byte by byte ---- */

static int listen_at(const char *text)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	char host[64];
	unsigned port;
	int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;

	assert_int_equal(sscanf(text, "%63[^:]:%u", host, &port), 2);
	inet_pton(AF_INET, host, &address.sin_addr);
	address.sin_port = htons((uint16_t)port);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 10), 0);
	return fd;
}

static int connect_to(const char *text)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	char host[64];
	unsigned port;

	assert_int_equal(sscanf(text, "%63[^:]:%u", host, &port), 2);
	inet_pton(AF_INET, host, &address.sin_addr);
	address.sin_port = htons((uint16_t)port);
	for (unsigned i = 0; i < 500; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
			return fd;
		close(fd);
		test_sleep_ms(10);
	}
	fail_msg("cannot connect to %s", text);
	return -1;
}

static struct handshake other_version(uint16_t node, uint16_t peer)
{
	return (struct handshake){ .version = WIRE_VERSION + 3, .node = node, .peer = peer };
}

static void test_other_version(void **state)
{
	struct handshake hello = other_version(1, 0);
	struct node *pod = make_pod(2);
	uint8_t bytes[HANDSHAKE_BYTES + 100] = { 0 };
	struct handshake answer;
	char text[200];
	uint16_t length;
	int fd, listener;

	/* It dials us, with a hello longer than ours: it must be able to read our answer. */
	start(&pod[0]);
	fd = connect_to(pod[0].peers[0].address);
	handshake_encode(&hello, bytes);
	bytes[6] = (HANDSHAKE_BYTES + 100) & 0xff;
	assert_int_equal(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
	snprintf(text, sizeof(text), "runs Eagre protocol %u, this is %u: install the same version",
		 WIRE_VERSION + 3, WIRE_VERSION);
	wait_logged(&pod[0], "REFUSED 1: node 1 (beta, from 127.");
	wait_logged(&pod[0], text);
	assert_int_equal(recv(fd, bytes, HANDSHAKE_BYTES, MSG_WAITALL), HANDSHAKE_BYTES);
	assert_int_equal(handshake_decode_fixed(bytes, &answer, &length), 0);
	assert_int_equal(answer.verdict, HANDSHAKE_VERSION);
	assert_int_equal(recv(fd, bytes, 1, 0), 0);
	close(fd);
	cancel(&pod[0]);
	finish(&pod[0]);
	end_node(&pod[0]);

	/* We dial it. */
	listener = listen_at(pod[0].peers[0].address);
	start(&pod[1]);
	fd = accept(listener, NULL, NULL);
	hello = other_version(0, 1);
	hello.verdict = 200; /* some verdict of the future */
	handshake_encode(&hello, bytes);
	assert_int_equal(write(fd, bytes, HANDSHAKE_FIXED_BYTES), HANDSHAKE_FIXED_BYTES);
	assert_int_equal(finish(&pod[1]), -ECONNREFUSED);
	assert_says(pod[1].why, text);
	assert_says(pod[1].why, "node 0 (alpha, 127.");
	close(fd);
	close(listener);
	end_pod(pod, 2);
}

static void test_other_limits(void **state)
{
	struct node *pod = make_pod(2);
	struct handshake hello = hello_of(1, 0, 2);
	uint8_t bytes[HANDSHAKE_BYTES];
	int fd;

	hello.limits_digest = 5;
	snprintf(hello.build, sizeof(hello.build), "odd");
	start(&pod[0]);
	fd = connect_to(pod[0].peers[0].address);
	handshake_encode(&hello, bytes);
	handshake_seal(bytes, NULL, NULL, 0);
	assert_int_equal(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
	wait_logged(&pod[0], "(odd) was built with other limits than this node");
	close(fd);
	cancel(&pod[0]);
	finish(&pod[0]);
	end_pod(pod, 2);
}

/* Something else listens where node 0 should: it is waited for, and named when the time is over. */
static void test_no_eagre_node(void **state)
{
	static const char banner[] = "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n";
	struct node *pod = make_pod(2);
	int listener = listen_at(pod[0].peers[0].address), fd;

	pod[1].config.timeout_ms = 1000;
	start(&pod[1]);
	fd = accept(listener, NULL, NULL);
	assert_int_equal(write(fd, banner, sizeof(banner)), sizeof(banner));
	close(listener);
	assert_int_equal(finish(&pod[1]), -ETIMEDOUT);
	close(fd);
	end_pod(pod, 2);

	pod = make_pod(2);
	listener = listen_at(pod[0].peers[0].address);
	pod[1].config.timeout_ms = 1000;
	start(&pod[1]);
	assert_int_equal(finish(&pod[1]), -ETIMEDOUT);
	assert_says(pod[1].why, "does not answer the handshake");
	close(listener);
	end_pod(pod, 2);
}

/* ---- Strangers ---- */

struct knocker {
	const char *address;
	uint64_t seed;
	atomic_bool stop;
	pthread_t thread;
};

static void *knocker_main(void *argument)
{
	struct knocker *knocker = argument;
	struct random random;
	int held[40], held_count = 0;

	random_seed(&random, knocker->seed);
	for (int i = 0; i < 40; i++)
		held[i] = -1;
	while (!atomic_load(&knocker->stop)) {
		int fd = connect_to(knocker->address);
		struct handshake hello = {
			.version = WIRE_VERSION, .node = 1, .shard_count = 1, .node_count = 1
		};
		uint8_t bytes[4096];

		for (unsigned i = 0; i < sizeof(bytes); i++)
			bytes[i] = (uint8_t)random_next(&random);
		switch (random_below(&random, 4)) {
		case 0: /* garbage, and gone */
			send(fd, bytes, 1 + random_below(&random, sizeof(bytes)), MSG_NOSIGNAL);
			close(fd);
			break;
		case 1: /* a hello cut short, then silence: held */
			handshake_encode(&hello, bytes);
			send(fd, bytes, random_below(&random, HANDSHAKE_BYTES), MSG_NOSIGNAL);
			close(held[held_count % 40]);
			held[held_count++ % 40] = fd;
			break;
		case 2: /* a hello with one bit wrong */
			handshake_encode(&hello, bytes);
			bytes[random_below(&random, HANDSHAKE_BYTES)] ^=
				(uint8_t)(1u << random_below(&random, 8));
			send(fd, bytes, HANDSHAKE_BYTES, MSG_NOSIGNAL);
			close(fd);
			break;
		case 3: /* nothing at all: held */
			close(held[held_count % 40]);
			held[held_count++ % 40] = fd;
			break;
		}
		test_sleep_ms(2);
	}
	for (int i = 0; i < 40; i++)
		close(held[i]);
	return NULL;
}

static void test_strangers(void **state)
{
	struct node *pod = make_pod(3);
	struct knocker knocker[2] = { { .address = pod[0].peers[0].address, .seed = test_seed() },
				      { .address = pod[0].peers[1].address, .seed = 5 } };

	pod[0].config.handshake_ms = 100;
	start(&pod[0]);
	start(&pod[1]);
	for (int i = 0; i < 2; i++)
		pthread_create(&knocker[i].thread, NULL, knocker_main, &knocker[i]);
	wait_logged(&pod[0], "it is no Eagre node");
	wait_logged(&pod[0], "it did not finish its handshake in time");
	start(&pod[2]);
	for (int i = 0; i < 3; i++) {
		if (finish(&pod[i]) != 0)
			fail_msg("node %d: %s", i, pod[i].why);
	}
	/* After bring-up they are no danger, either. */
	for (unsigned i = 0; i < 240; i++) {
		mesh_poll(pod[0].mesh);
		test_sleep_ms(5);
	}
	assert_true(logged(&pod[0], " more like it lately)"));
	check_all_channels(pod, 3);
	for (int i = 0; i < 2; i++) {
		atomic_store(&knocker[i].stop, true);
		pthread_join(knocker[i].thread, NULL);
	}
	end_pod(pod, 3);
}

/* More silent connections than there are places: the oldest give way, the node gets in. */
static void test_slow_loris(void **state)
{
	struct node *pod = make_pod(2);
	int fd[200];

	pod[0].config.handshake_ms = 60000;
	start(&pod[0]);
	for (int i = 0; i < 200; i++)
		fd[i] = connect_to(pod[0].peers[0].address);
	start(&pod[1]);
	assert_int_equal(finish(&pod[0]), 0);
	assert_int_equal(finish(&pod[1]), 0);
	assert_true(logged(&pod[0], "too many handshakes at once"));
	check_all_channels(pod, 2);
	for (int i = 0; i < 200; i++)
		close(fd[i]);
	end_pod(pod, 2);
}

/* A node that has been answered, and says its proof a moment later, holds its link for up already. */
static void test_crowd_before_proof(void **state)
{
	struct node *pod = make_pod(2);
	uint8_t hello[HANDSHAKE_BYTES], answer[HANDSHAKE_BYTES], proof[HANDSHAKE_PROOF_BYTES];
	int crowd[200], fd;

	pod[0].config.handshake_ms = 60000;
	pod[0].config.secret = overheard_secret;
	pod[0].config.secret_size = sizeof(overheard_secret);
	start(&pod[0]);
	wait_logged(&pod[0], "WAITING 1");
	fd = connect_to(pod[0].peers[0].address);
	overhear(&pod[1], 0, 7, hello);
	assert_int_equal(send(fd, hello, sizeof(hello), MSG_NOSIGNAL), sizeof(hello));
	receive_whole(fd, answer);
	assert_int_equal(answer[12], HANDSHAKE_OK);
	for (int i = 0; i < 200; i++)
		crowd[i] = connect_to(pod[0].peers[0].address);
	wait_logged(&pod[0], "too many handshakes at once");
	handshake_prove(hello, answer, overheard_secret, sizeof(overheard_secret), proof);
	assert_int_equal(send(fd, proof, sizeof(proof), MSG_NOSIGNAL), sizeof(proof));
	assert_int_equal(recv(fd, answer, 1, 0), 1); /* a heartbeat: the link stands */
	cancel(&pod[0]);
	finish(&pod[0]);
	for (int i = 0; i < 200; i++)
		close(crowd[i]);
	close(fd);
	end_pod(pod, 2);
}

/* ---- Bad configurations ---- */

static void expect_bad(struct node *pod, int error, const char *says)
{
	struct mesh *mesh = NULL;
	char why[MESH_WHY_MAX] = "";

	assert_int_equal(mesh_create(&pod->config, &mesh, why, sizeof(why)), error);
	assert_null(mesh);
	assert_says(why, says);
}

static void test_bad_config(void **state)
{
	struct node *pod = make_pod(2);
	struct node bad = pod[0];
	int fd;

	bad.config.node = bad.peers;
	bad.config.node_count = 0;
	expect_bad(&bad, -EINVAL, "0 nodes: a pod has 1 to 256");
	bad.config.node_count = 2;
	bad.config.self = 2;
	expect_bad(&bad, -EINVAL, "node 2 is not one of the pod's 2 nodes");
	bad.config.self = 0;
	bad.config.shard_count = 17;
	expect_bad(&bad, -EINVAL, "17 shards: a node has 1 to 16");
	bad.config.shard_count = 2;

	static const char *const texts[] = {
		"10.0.0.1",	":7000",	"10.0.0.1:", "10.0.0.1:0", "10.0.0.1:65536",
		"10.0.0.1:70x", "fe80::1:7000", "[::1]7000", "[::1:7000",  ""
	};
	for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		bad.peers[1].address = texts[i];
		expect_bad(&bad, -EINVAL, "is not of the form 10.0.0.3:7000");
	}
	bad.peers[1].address = "[no-such-host]:7000"; /* in brackets no name server is asked */
	expect_bad(&bad, -ENOENT, "node 1 (beta): address \"[no-such-host]:7000\"");
	bad.peers[1].address = bad.peers[0].address;
	expect_bad(&bad, -EINVAL, "nodes 0 (alpha) and 1 (beta) have the same address");
	bad.peers[1].address = pod[0].peers[1].address;

	bad.peers[0].address = "192.0.2.77:7000"; /* TEST-NET: of no host */
	expect_bad(&bad, -EADDRNOTAVAIL, "start this node on the host that has the address");
	fd = listen_at(pod[0].peers[0].address);
	expect_bad(&pod[0], -EADDRINUSE, "end the program that uses this port");
	close(fd);
	end_pod(pod, 2);
}

static void test_down_once(void **state)
{
	struct node *pod = make_pod(2);

	start(&pod[0]);
	start(&pod[1]);
	assert_int_equal(finish(&pod[0]), 0);
	assert_int_equal(finish(&pod[1]), 0);
	assert_true(mesh_down(pod[0].mesh, 1, -EPIPE, NULL));
	assert_says(pod[0].down, "node 1 (beta, 127.");
	assert_says(pod[0].down, "is gone: it closed its link");
	assert_false(mesh_down(pod[0].mesh, 1, -ECONNRESET, "other"));
	assert_says(pod[0].down, "it closed its link");
	end_pod(pod, 2);
}

/*
 * A page link that leads nowhere, while all others work: its node learns of it within 5 s, not when
 * TCP gives up. The hole is a filter that drops what comes for one socket before TCP sees it.
 */
static void test_page_link_into_a_hole(void **state)
{
	struct sock_filter nothing = { .code = BPF_RET | BPF_K, .k = 0 };
	struct sock_fprog filter = { .len = 1, .filter = &nothing };
	struct page_frame *frame = calloc(1, sizeof(*frame));
	struct node *pod = make_pod(2);
	struct page_channel *out, *in;
	struct timespec begin, end;
	struct pollfd broken = { .events = POLLIN };

	start(&pod[0]);
	start(&pod[1]);
	assert_int_equal(finish(&pod[0]), 0);
	assert_int_equal(finish(&pod[1]), 0);
	out = mesh_pages(pod[0].mesh, 1, 1);
	in = mesh_pages(pod[1].mesh, 0, 1);
	assert_int_equal(
		setsockopt(in->ops->fd(in), SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)),
		0);
	frame->message_count = 1;
	frame->message[0] = (struct coh_msg){ .type = COH_READ_REQ };
	assert_int_equal(out->ops->send(out, frame), 0);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	broken.fd = out->ops->fd(out);
	assert_int_equal(poll(&broken, 1, 20000), 1);
	clock_gettime(CLOCK_MONOTONIC, &end);
	assert_int_equal(out->ops->receive(out, frame), -ETIMEDOUT);
	assert_in_range(end.tv_sec - begin.tv_sec, 2, 9);
	free(frame);
	end_pod(pod, 2);
}

/* What is sent right before mesh_destroy() arrives, though unread bytes lie in the sender's socket.
 */
static void test_last_words(void **state)
{
	struct control_message *msg = calloc(1, sizeof(*msg));
	char *text = calloc(1, CONTROL_STATS_PART_MAX);
	struct node *pod = make_pod(2);
	struct control_channel *in;
	pthread_t thread;
	unsigned count = 0;
	int error;

	memset(text, ' ', CONTROL_STATS_PART_MAX);
	start(&pod[0]);
	start(&pod[1]);
	assert_int_equal(finish(&pod[0]), 0);
	assert_int_equal(finish(&pod[1]), 0);
	in = mesh_control(pod[0].mesh, 1);
	msg->type = CONTROL_HEARTBEAT;
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(control_send(in, msg), 0); /* never read by node 1 */
	msg->type = CONTROL_STATS_REPLY;
	msg->stats_reply = (struct control_stats_reply){
		.id = 1,
		.total = CONTROL_STATS_PART_MAX,
		.text_size = CONTROL_STATS_PART_MAX,
		.text = text,
	};
	for (unsigned i = 0; i < 60; i++)
		assert_int_equal(control_send(mesh_control(pod[1].mesh, 0), msg), 0);
	msg->type = CONTROL_END;
	msg->end = (struct control_end){ .kind = CONTROL_END_USER, .text = "bye" };
	assert_int_equal(control_send(mesh_control(pod[1].mesh, 0), msg), 0);
	pthread_create(&thread, NULL, (void *(*)(void *))(uintptr_t)mesh_destroy, pod[1].mesh);
	pod[1].mesh = NULL;
	while ((error = control_receive(in, msg)) == -EAGAIN || error == 0) {
		if (error == -EAGAIN)
			test_sleep_ms(1);
		else if (msg->type != CONTROL_HEARTBEAT) /* of the bring-up */
			count++;
	}
	pthread_join(thread, NULL);
	assert_int_equal(count, 61);
	assert_int_equal(msg->type, CONTROL_END);
	assert_string_equal(msg->end.text, "bye");
	end_pod(pod, 2);
	free(text);
	free(msg);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_comes_up),
		cmocka_unit_test(test_one_node),
		cmocka_unit_test(test_small_socket_buffers),
		cmocka_unit_test(test_restart_during_bring_up),
		cmocka_unit_test(test_end_during_bring_up),
		cmocka_unit_test(test_lost_during_bring_up),
		cmocka_unit_test(test_stopped_before_handshake),
		cmocka_unit_test(test_late_judge),
		cmocka_unit_test(test_flapping),
		cmocka_unit_test(test_secrets),
		cmocka_unit_test(test_stranger_with_digest),
		cmocka_unit_test(test_overheard_hello),
		cmocka_unit_test(test_overheard_answer),
		cmocka_unit_test(test_missing_node),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_wrong_number),
		cmocka_unit_test(test_unknown_number),
		cmocka_unit_test(test_same_node_twice),
		cmocka_unit_test(test_other_version),
		cmocka_unit_test(test_other_limits),
		cmocka_unit_test(test_no_eagre_node),
		cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_slow_loris),
		cmocka_unit_test(test_crowd_before_proof),
		cmocka_unit_test(test_bad_config),
		cmocka_unit_test(test_down_once),
		cmocka_unit_test(test_page_link_into_a_hole),
		cmocka_unit_test(test_last_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
