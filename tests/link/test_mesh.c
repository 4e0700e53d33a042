// SPDX-License-Identifier: Apache-2.0
/*
 * The mesh: it comes up whatever the order of starts, and what does not belong together is refused
 * on both sides with a line that says why. Nodes are threads here, each with a mesh of its own
 * (mesh_pod.h); processes that die are in test_loss.c, strangers in test_mesh_strangers.c.
 */
#include <errno.h>
#include <linux/filter.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
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
#include "tests/link/mesh_pod.h"
#include "tests/link/support.h"

/* ---- Coming up ---- */

static void test_comes_up(void **state)
{
	struct node *pod = pod_make(TEST_NODES);

	for (int i = TEST_NODES - 1; i >= 0; i--) {
		node_start(&pod[i]);
		test_sleep_ms(i % 3 * 40);
	}
	for (int i = 0; i < TEST_NODES; i++) {
		int result = node_finish(&pod[i]);

		if (result != 0)
			fail_msg("node %d: %s", i, pod[i].why);
		assert_true(node_logged(&pod[i], i == 0 ? "CONNECTED 1: node 1 (beta, "
							: "CONNECTED 0: node 0 (alpha, "));
	}
	assert_true(node_logged(&pod[5], "WAITING 2: waiting for node 2 (gamma) at 127."));
	check_all_channels(pod, TEST_NODES);
	pod_end(pod, TEST_NODES);
}

static void test_one_node(void **state)
{
	struct node *pod = pod_make(1);

	node_start(&pod[0]);
	assert_int_equal(node_finish(&pod[0]), 0);
	pod_end(pod, 1);
}

static void test_small_socket_buffers(void **state)
{
	struct node *pod = pod_make(3);

	for (int i = 0; i < 3; i++) {
		pod[i].config.socket_buffer = 2048;
		pod[i].config.io = false;
		node_start(&pod[i]);
	}
	for (int i = 0; i < 3; i++)
		assert_int_equal(node_finish(&pod[i]), 0);
	check_all_channels(pod, 3);
	pod_end(pod, 3);
}

/* A node that ends while others are missing, and is started again, is taken as if it were new. */
static void test_restart_during_bring_up(void **state)
{
	struct node *pod = pod_make(3);

	node_start(&pod[0]);
	node_start(&pod[1]);
	node_wait_logged(&pod[0], "CONNECTED 1");
	node_wait_logged(&pod[1], "CONNECTED 0");
	node_cancel(&pod[1]);
	assert_int_equal(node_finish(&pod[1]), -ECANCELED);
	node_end(&pod[1]);
	node_wait_logged(&pod[0], "DROPPED 1: lost node 1 (beta");
	close(pod[1].cancel_fd);
	pod[1].cancel_fd = eventfd(0, 0);
	node_start(&pod[1]);
	test_sleep_ms(100);
	node_start(&pod[2]);
	for (int i = 0; i < 3; i++)
		assert_int_equal(node_finish(&pod[i]), 0);
	check_all_channels(pod, 3);
	pod_end(pod, 3);
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
	struct node *pod = pod_make(3);
	uint64_t start_ns;

	msg.end = (struct control_end){ .kind = CONTROL_END_USER, .status = 3, .text = "enough" };
	pod[0].config.ended = on_ended;
	node_start(&pod[0]);
	node_start(&pod[1]);
	node_wait_logged(&pod[0], "CONNECTED 1");
	node_wait_logged(&pod[1], "CONNECTED 0");
	node_cancel(&pod[1]);
	assert_int_equal(node_finish(&pod[1]), -ECANCELED);
	start_ns = test_now_ns();
	mesh_tell(pod[1].mesh, &msg, NODE_NONE);
	node_end(&pod[1]);
	assert_int_equal(node_finish(&pod[0]), -ECONNABORTED);
	assert_true(test_now_ns() - start_ns < 20000000000); /* at once, and not 30 s later */
	assert_string_equal(pod[0].down, "enough");
	pod_end(pod, 3);
}

/* Who was there, went without a word, and does not come back is not waited for until the deadline. */
static void test_lost_during_bring_up(void **state)
{
	struct node *pod = pod_make(3);
	uint64_t start_ns;

	pod[0].config.timeout_ms = 60000;
	node_start(&pod[0]);
	node_start(&pod[1]);
	node_wait_logged(&pod[0], "CONNECTED 1");
	node_wait_logged(&pod[1], "CONNECTED 0");
	node_cancel(&pod[1]);
	assert_int_equal(node_finish(&pod[1]), -ECANCELED);
	start_ns = test_now_ns();
	node_end(&pod[1]);
	assert_int_equal(node_finish(&pod[0]), -ECONNABORTED);
	assert_true(test_now_ns() - start_ns < 30000000000); /* 3 s, if it gets to run */
	assert_says(pod[0].why, "node 1 (beta");
	assert_says(pod[0].why, "did not come back");
	pod_end(pod, 3);
}

/* Its kernel takes connections, nobody answers: a node that was stopped, or another program. */
static void test_stopped_before_handshake(void **state)
{
	struct node *pod = pod_make(2);
	int listener = listen_at(pod[0].peers[0].address);
	uint64_t start_ns = test_now_ns();

	pod[1].config.timeout_ms = 60000;
	node_start(&pod[1]);
	assert_int_equal(node_finish(&pod[1]), -ECONNABORTED);
	assert_true(test_now_ns() - start_ns < 30000000000); /* 4 s */
	assert_says(pod[1].why, "does not answer");
	close(listener);
	pod_end(pod, 2);
}

/* The loop does not get on for longer than it takes lightly, with its first connection under way. */
static void on_progress_late(void *ctx, enum mesh_event event, uint16_t number, const char *text)
{
	struct node *node = ctx;
	bool first = !node->log[0];

	node_progress(ctx, event, number, text);
	if (first)
		test_sleep_ms(1300);
}

/* Who did not get to run holds nothing against peers that came in just then. */
static void test_late_judge(void **state)
{
	struct node *pod = pod_make(2);

	pod[1].config.progress = on_progress_late;
	node_start(&pod[0]);
	node_wait_logged(&pod[0], "WAITING 1");
	node_start(&pod[1]);
	if (node_finish(&pod[1]) != 0)
		fail_msg("%s", pod[1].why);
	assert_int_equal(node_finish(&pod[0]), 0);
	pod_end(pod, 2);
}

/* A peer that comes and goes as fast as it can costs a few lines a second. */
static void test_flapping(void **state)
{
	struct node *pod = pod_make(3);
	unsigned rounds = 0, lines = 0, lines_max;
	uint64_t start_ns = test_now_ns();

	node_start(&pod[0]);
	for (; rounds <= 10 || test_now_ns() - start_ns < 1500000000; rounds++) {
		node_start(&pod[1]);
		while (!node_logged(&pod[1], "CONNECTED 0"))
			test_sleep_ms(1);
		node_cancel(&pod[1]);
		node_finish(&pod[1]);
		node_end(&pod[1]);
		close(pod[1].cancel_fd);
		pod[1].cancel_fd = eventfd(0, 0);
		pod[1].log[0] = '\0';
	}
	node_cancel(&pod[0]);
	node_finish(&pod[0]);
	for (const char *c = pod[0].log; *c; c++)
		lines += *c == '\n';
	lines_max = 4 * (2 + (unsigned)((test_now_ns() - start_ns) / 1000000000)) + 4;
	if (lines > lines_max)
		fail_msg("%u rounds, %u lines:\n%s", rounds, lines, pod[0].log);
	pod_end(pod, 3);
}

static void test_missing_node(void **state)
{
	struct node *pod = pod_make(3);

	pod[0].config.timeout_ms = pod[1].config.timeout_ms = 6000;
	node_start(&pod[0]);
	node_start(&pod[1]);
	assert_int_equal(node_finish(&pod[0]), -ETIMEDOUT);
	assert_int_equal(node_finish(&pod[1]), -ETIMEDOUT);
	assert_says(pod[0].why, "waited 6 s for node 2 (gamma, 127.");
	assert_says(pod[0].why, "never heard of it");
	pod_end(pod, 3);

	pod = pod_make(2);
	pod[1].config.timeout_ms = 2000;
	node_start(&pod[1]);
	assert_int_equal(node_finish(&pod[1]), -ETIMEDOUT);
	assert_says(pod[1].why, "Connection refused");
	pod_end(pod, 2);
}

/* ---- Refusals. Node 1 dials node 0; both must say the same thing. ---- */

static void expect_refusal(struct node *pod, const char *dialler_says, const char *listener_says)
{
	node_start(&pod[0]);
	node_start(&pod[1]);
	assert_int_equal(node_finish(&pod[1]), -ECONNREFUSED);
	assert_says(pod[1].why, dialler_says);
	node_wait_logged(&pod[0], listener_says);
	node_cancel(&pod[0]);
	assert_int_equal(node_finish(&pod[0]), -ECANCELED);
	pod_end(pod, 2);
}

static void test_refusals(void **state)
{
	struct node *pod = pod_make(2);

	pod[1].config.pod_name = "ebb";
	expect_refusal(pod, "belongs to pod \"tide\", this node to pod \"ebb\": give each pod",
		       "belongs to pod \"ebb\", this node to pod \"tide\": give each pod");

	pod = pod_make(2);
	pod[1].config.config_digest = 0x99;
	expect_refusal(pod, "node 0 (alpha, 127.", "REFUSED 1: node 1 (beta, from 127.");
	pod = pod_make(2);
	pod[1].config.config_digest = 0x99;
	expect_refusal(pod,
		       "was started with another configuration of pod \"tide\" (digest "
		       "0000000000001234, here 0000000000000099): copy one file",
		       "was started with another configuration of pod \"tide\" (digest "
		       "0000000000000099, here 0000000000001234): copy one file");

	pod = pod_make(2);
	pod[1].config.shard_count = 3;
	expect_refusal(pod, "has 2 shards, this node 3: set the same number",
		       "has 3 shards, this node 2: set the same number");

	pod = pod_make(2);
	pod[1].config.capabilities = HANDSHAKE_CAP_NATIVE_TEST;
	expect_refusal(pod, "other capabilities (0, here 0x1)", "other capabilities (0x1, here 0)");
}

/* Node 1 of one configuration has the address of node 0 of another: numbers are mixed up. */
static void test_wrong_number(void **state)
{
	struct node *pod = pod_make(3);

	/* What node 2 takes for node 1 is node 0. */
	const char *swap = pod[2].peers[0].address;
	pod[2].peers[0].address = pod[2].peers[1].address;
	pod[2].peers[1].address = swap;
	node_start(&pod[0]);
	node_start(&pod[2]);
	assert_int_equal(node_finish(&pod[2]), -ECONNREFUSED);
	assert_says(pod[2].why, "node 1 (beta, 127.");
	assert_says(pod[2].why, "says it is node 0: addresses are mixed up");
	node_wait_logged(&pod[0], "says it is node 2 and wants node 1, but this is node 0");
	node_cancel(&pod[0]);
	node_finish(&pod[0]);
	pod_end(pod, 3);
}

static void test_unknown_number(void **state)
{
	struct node *pod = pod_make(3);

	pod[0].config.node_count = 2;
	node_start(&pod[0]);
	node_start(&pod[2]);
	assert_int_equal(node_finish(&pod[2]), -ECONNREFUSED);
	assert_says(pod[2].why, "has no other node 2 in its configuration");
	node_wait_logged(&pod[0], "says it is node 2, which is not in this node's configuration");
	node_cancel(&pod[0]);
	node_finish(&pod[0]);
	pod[0].config.node_count = 3;
	pod_end(pod, 3);
}

/* Two processes say they are node 1, from different addresses. */
static void test_same_node_twice(void **state)
{
	struct node *pod = pod_make(3);
	struct node *twin = malloc(sizeof(*twin));

	node_make(twin, 1, 3);
	free((void *)(uintptr_t)twin->peers[1].address);
	twin->peers[1].address = strdup(test_address(9, 99));
	node_start(&pod[0]);
	node_start(&pod[1]);
	node_wait_logged(&pod[0], "CONNECTED 1");
	node_start(twin);
	assert_int_equal(node_finish(twin), -ECONNREFUSED);
	assert_says(twin->why,
		    "is linked with another process that says it is node 1: start each node once");
	node_wait_logged(&pod[0],
			 "is linked already, and a second process says it is node 1: start each");
	/* The first is undisturbed. */
	node_start(&pod[2]);
	for (int i = 0; i < 3; i++)
		assert_int_equal(node_finish(&pod[i]), 0);
	check_all_channels(pod, 3);

	/* And later, too, when the pod is running. */
	node_end(twin);
	pod[0].log[0] = '\0';
	test_sleep_ms(1100); /* the same refusal is said once a second */
	node_start(twin);
	for (unsigned i = 0; i < 2000 && !node_logged(&pod[0], "second process"); i++) {
		struct pollfd fds = { .fd = mesh_fd(pod[0].mesh), .events = POLLIN };

		poll(&fds, 1, 10);
		mesh_poll(pod[0].mesh);
	}
	assert_int_equal(node_finish(twin), -ECONNREFUSED);
	assert_says(twin->why, "start each node once");
	pod_end(twin, 1);
	pod_end(pod, 3);
}

/* A guest that reboots: one node is back before the other has ended. It asks until that one is back, too. */
static void test_begins_anew(void **state)
{
	struct node *pod = pod_make(2);
	struct node *again = malloc(sizeof(*again));

	node_make(again, 1, 2);
	again->config.again = true;
	node_start(&pod[0]);
	node_start(&pod[1]);
	assert_int_equal(node_finish(&pod[0]), 0);
	assert_int_equal(node_finish(&pod[1]), 0);
	node_end(&pod[1]);
	node_start(again);
	for (unsigned i = 0; i < 2000 && !node_logged(again, "has not begun anew yet"); i++) {
		struct pollfd fds = { .fd = mesh_fd(pod[0].mesh), .events = POLLIN };

		poll(&fds, 1, 10);
		mesh_poll(pod[0].mesh);
	}
	assert_true(node_logged(again, "has not begun anew yet"));
	node_end(&pod[0]);
	pod[0].config.again = true;
	node_start(&pod[0]);
	assert_int_equal(node_finish(&pod[0]), 0);
	assert_int_equal(node_finish(again), 0);
	pod_end(again, 1);
	pod_end(pod, 2);
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
	struct node *pod = pod_make(2);
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
	pod_end(pod, 2);
}

static void test_down_once(void **state)
{
	struct node *pod = pod_make(2);

	node_start(&pod[0]);
	node_start(&pod[1]);
	assert_int_equal(node_finish(&pod[0]), 0);
	assert_int_equal(node_finish(&pod[1]), 0);
	assert_true(mesh_down(pod[0].mesh, 1, -EPIPE, NULL));
	assert_says(pod[0].down, "node 1 (beta, 127.");
	assert_says(pod[0].down, "is gone: it closed its link");
	assert_false(mesh_down(pod[0].mesh, 1, -ECONNRESET, "other"));
	assert_says(pod[0].down, "it closed its link");
	pod_end(pod, 2);
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
	struct node *pod = pod_make(2);
	struct page_channel *out, *in;
	struct timespec begin, end;
	struct pollfd broken = { .events = POLLIN };

	node_start(&pod[0]);
	node_start(&pod[1]);
	assert_int_equal(node_finish(&pod[0]), 0);
	assert_int_equal(node_finish(&pod[1]), 0);
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
	pod_end(pod, 2);
}

/* What is sent right before mesh_destroy() arrives, though unread bytes lie in the sender's socket.
 */
static void test_last_words(void **state)
{
	struct control_message *msg = calloc(1, sizeof(*msg));
	char *text = calloc(1, CONTROL_STATS_PART_MAX);
	struct node *pod = pod_make(2);
	struct control_channel *in;
	pthread_t thread;
	unsigned count = 0;
	int error;

	memset(text, ' ', CONTROL_STATS_PART_MAX);
	node_start(&pod[0]);
	node_start(&pod[1]);
	assert_int_equal(node_finish(&pod[0]), 0);
	assert_int_equal(node_finish(&pod[1]), 0);
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
	pod_end(pod, 2);
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
		cmocka_unit_test(test_missing_node),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_wrong_number),
		cmocka_unit_test(test_unknown_number),
		cmocka_unit_test(test_same_node_twice),
		cmocka_unit_test(test_begins_anew),
		cmocka_unit_test(test_bad_config),
		cmocka_unit_test(test_down_once),
		cmocka_unit_test(test_page_link_into_a_hole),
		cmocka_unit_test(test_last_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
