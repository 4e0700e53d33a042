/* SPDX-License-Identifier: Apache-2.0 */
/* Pods for tests of the mesh: mesh_pod.h. */
#include "tests/link/mesh_pod.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/link/support.h"
#include "wire/version.h"

void node_progress(void *ctx, enum mesh_event event, uint16_t number, const char *text)
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

static void on_linked(void *ctx, uint16_t number)
{
	struct node *node = ctx;

	node->linked[number]++;
	node->linked_count++;
}

bool node_logged(struct node *node, const char *text)
{
	bool found;

	pthread_mutex_lock(&node->lock);
	found = strstr(node->log, text) != NULL;
	pthread_mutex_unlock(&node->lock);
	return found;
}

void node_wait_logged(struct node *node, const char *text)
{
	for (unsigned i = 0; i < 2000 && !node_logged(node, text); i++)
		test_sleep_ms(10);
	if (!node_logged(node, text))
		fail_msg("node %u never said \"%s\", but:\n%s", node->config.self, text, node->log);
}

const char *const node_names[TEST_NODES] = { "alpha", "beta", "gamma", "delta", "eps", "zeta" };

/* Every pod has ports of its own, so that one test's sockets do not disturb the next. */
static unsigned pod_number;

void node_make(struct node *node, uint16_t self, uint16_t count)
{
	memset(node, 0, sizeof(*node));
	for (uint16_t i = 0; i < count; i++)
		node->peers[i] = (struct mesh_node){
			.name = node_names[i],
			.address = strdup(test_address(i, pod_number)),
		};
	node->config = (struct mesh_config){
		.pod_name = "tide",
		.self = self,
		.node_count = count,
		.node = node->peers,
		.shard_count = 2,
		.io = true,
		.config_digest = 0x1234,
		.timeout_ms =
			30000, /* for what takes a moment, on a machine that has other things to do */
		.handshake_ms = 400,
		.progress = node_progress,
		.down = on_down,
		.linked = on_linked,
		.ctx = node,
	};
	node->cancel_fd = eventfd(0, 0);
	pthread_mutex_init(&node->lock, NULL);
}

struct node *pod_make(uint16_t count)
{
	struct node *pod = malloc(count * sizeof(*pod));

	pod_number++;
	for (uint16_t i = 0; i < count; i++)
		node_make(&pod[i], i, count);
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

void node_start(struct node *node)
{
	assert_int_equal(pthread_create(&node->thread, NULL, node_main, node), 0);
}

int node_finish(struct node *node)
{
	pthread_join(node->thread, NULL);
	return node->result;
}

void node_cancel(struct node *node)
{
	uint64_t one = 1;

	assert_int_equal(write(node->cancel_fd, &one, sizeof(one)), sizeof(one));
}

void node_end(struct node *node)
{
	mesh_destroy(node->mesh);
	node->mesh = NULL;
}

void pod_end(struct node *pod, uint16_t count)
{
	for (uint16_t i = 0; i < count; i++) {
		node_end(&pod[i]);
		close(pod[i].cancel_fd);
		for (uint16_t k = 0; k < pod[i].config.node_count; k++)
			free((void *)(uintptr_t)pod[i].peers[k].address);
	}
	free(pod);
}

void assert_says(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("\"%s\" does not say \"%s\"", text, part);
	assert_null(strchr(text, '\n'));
}

static int on_place(void *ctx, const struct io_message *msg, const struct iovec **ret_iov,
		    uint32_t *ret_count)
{
	return -EPROTO;
}

static int on_arrived(void *ctx, const struct io_message *msg)
{
	*(uint32_t *)ctx = msg->disk_reply.id;
	return 0;
}

static void check_io(struct io_channel *out, struct io_channel *in, uint32_t id)
{
	struct io_parcel parcel = { .message = { .type = IO_DISK_REPLY, .disk_reply.id = id } };
	uint32_t got = 0;
	const struct io_receiver receiver = { on_place, on_arrived, &got };

	io_send(out, &parcel);
	assert_int_equal(io_flush(out), 0);
	assert_ptr_equal(io_left(out), &parcel);
	while (got == 0) {
		assert_int_equal(io_receive(in, &receiver), 0);
		test_sleep_ms(1);
	}
	assert_int_equal(got, id);
}

void check_channels(struct node *pod, uint16_t a, uint16_t b)
{
	static struct page_frame frame;
	struct control_message *msg = calloc(1, sizeof(*msg));
	struct control_channel *to = mesh_control(pod[a].mesh, b);
	struct control_channel *from = mesh_control(pod[b].mesh, a);
	int error;

	*msg = (struct control_message){ .type = CONTROL_CLOCK_PING };
	msg->clock_ping.id = a * 100u + b;
	assert_int_equal(control_send(to, msg), 0);
	/* Behind the heartbeats of the bring-up. */
	while ((error = control_receive(from, msg)) == -EAGAIN ||
	       (error == 0 && msg->type == CONTROL_HEARTBEAT))
		test_sleep_ms(1);
	assert_int_equal(error, 0);
	assert_int_equal(msg->src, a);
	assert_int_equal(msg->clock_ping.id, a * 100 + b);
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
	if (pod[a].config.io)
		check_io(mesh_io(pod[a].mesh, b), mesh_io(pod[b].mesh, a), 1 + a * 100u + b);
	free(msg);
}

void check_all_channels(struct node *pod, uint16_t count)
{
	for (uint16_t a = 0; a < count; a++) {
		for (uint16_t b = 0; b < count; b++) {
			if (a != b)
				check_channels(pod, a, b);
			else
				assert_null(mesh_control(pod[a].mesh, a));
		}
	}
}

struct handshake node_hello(uint16_t node, uint16_t peer, uint16_t node_count)
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

	snprintf(hello.node_name, sizeof(hello.node_name), "%s", node_names[node]);
	return hello;
}

void receive_whole(int fd, uint8_t bytes[HANDSHAKE_BYTES])
{
	for (size_t got = 0; got < HANDSHAKE_BYTES;) {
		ssize_t n = recv(fd, bytes + got, HANDSHAKE_BYTES - got, 0);

		assert_true(n > 0);
		got += (size_t)n;
	}
}

int listen_at(const char *text)
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

int connect_to(const char *text)
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
