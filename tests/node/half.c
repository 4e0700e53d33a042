/* SPDX-License-Identifier: Apache-2.0 */
/* Half a pod (half.h). */
#include "tests/node/half.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "node/say.h"
#include "tests/link/support.h"
#include "tests/test.h"

/* Nothing of a half is ever freed, as its threads live on; so that no leak is seen in that. */
#define HALVES_MAX 64
static struct half kept[HALVES_MAX];
static unsigned int kept_count;

static void say(void *context, const char *line)
{
}

static void on_down(void *ctx, uint16_t peer, const char *cause)
{
	steps_link_down(ctx, peer, cause);
}

static void on_linked(void *ctx, uint16_t peer)
{
	control_linked(ctx, peer);
}

static void peer_down(void *ctx, uint16_t peer, const char *cause)
{
}

struct bring_up {
	struct mesh *mesh;
	int result;
	char why[MESH_WHY_MAX];
};

static void *bring_up(void *arg)
{
	struct bring_up *b = arg;
	b->result = mesh_bring_up(b->mesh, -1, b->why, sizeof(b->why));
	return NULL;
}

static struct mesh *make_mesh(const struct pod_config *config, uint16_t self, struct node *node)
{
	struct mesh_node nodes[2];
	char why[MESH_WHY_MAX];
	struct mesh *mesh;
	for (int i = 0; i < 2; i++)
		nodes[i] = (struct mesh_node){ config->node[i].name, config->node[i].address };
	struct mesh_config mesh_config = { .pod_name = config->name,
					   .self = self,
					   .node_count = 2,
					   .node = nodes,
					   .shard_count = 1,
					   .down = node ? on_down : peer_down,
					   .linked = node ? on_linked : NULL,
					   .ctx = node };
	if (mesh_create(&mesh_config, &mesh, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	return mesh;
}

static void link_both(struct half *half, const struct pod_config *config)
{
	struct bring_up ours, theirs;
	pthread_t thread;
	ours.mesh = half->node->mesh = make_mesh(config, half->node->self, half->node);
	theirs.mesh = half->peer = make_mesh(config, half->peer_number, NULL);
	pthread_create(&thread, NULL, bring_up, &theirs);
	bring_up(&ours);
	pthread_join(thread, NULL);
	if (ours.result || theirs.result)
		fail_msg("%s %s", ours.why, theirs.why);
}

void half_create(struct half *half, uint16_t self)
{
	static const struct engine_ops engine = { .name = "soft" };
	static unsigned int pods;
	struct node_options *options = calloc(1, sizeof(*options));
	struct node_clock_config clock = { .reference = self == 0, .host_khz = 2000000 };
	struct pod_config *config;
	char text[512], why[512];

	snprintf(text, sizeof(text),
		 "[pod]\npolicy=pages\nmemory=128M\n[node a]\naddress=%s\nmemory=128M\nvcpus=1\n"
		 "[node b]\naddress=%s\nmemory=128M\nvcpus=2\n",
		 test_address(0, 100 + pods), test_address(1, 100 + pods));
	pods++;
	if (pod_config_parse(text, "half", &config, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	*options = (struct node_options){
		.config = config, .self = self, .engine = &engine, .say = say
	};
	struct node *node = calloc(1, sizeof(*node));
	node->options = options;
	node->config = config;
	node->self = self;
	assert_int_equal(members_create(config, self, &node->members), 0);
	node->features.tsc_khz = 2000000;
	assert_int_equal(memory_map_build(config->memory, &node->map), 0);
	pthread_mutex_init(&node->lock, NULL);
	pthread_cond_init(&node->changed, NULL);
	node->ended_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	assert_int_equal(say_create(say, NULL, &node->say), 0);
	assert_int_equal(node_clock_create(&clock, &node->clock), 0);
	assert_int_equal(moves_create(node), 0);
	*half = (struct half){ .node = node, .peer_number = (uint16_t)(1 - self) };
	link_both(half, config);
	assert_true(kept_count < HALVES_MAX);
	kept[kept_count++] = *half;
}

void half_peer_send(struct half *half, const struct control_message *msg)
{
	assert_int_equal(control_send(mesh_control(half->peer, half->node->self), msg), 0);
}

void half_little_room(struct half *half)
{
	int fd[2] = { control_fd(mesh_control(half->node->mesh, half->peer_number)),
		      control_fd(mesh_control(half->peer, half->node->self)) };
	int bytes = 16384;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(setsockopt(fd[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)),
				 0);
		assert_int_equal(setsockopt(fd[i], SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)),
				 0);
	}
}

static void *beat(void *arg)
{
	static const struct control_message msg = { .type = CONTROL_HEARTBEAT };
	struct half *half = arg;

	/* As a node's control thread, where it may: this one must not be late either. */
	(void)setpriority(PRIO_PROCESS, (id_t)gettid(), -15);
	while (control_send(mesh_control(half->peer, half->node->self), &msg) == 0)
		test_sleep_ms(200);
	return NULL;
}

void half_peer_beats(struct half *half)
{
	struct half *beating = &kept[kept_count - 1];
	pthread_t thread;

	assert_ptr_equal(beating->node, half->node);
	assert_int_equal(pthread_create(&thread, NULL, beat, beating), 0);
	pthread_detach(thread);
}

bool half_peer_hear(struct half *half, uint8_t type, struct control_message *ret_msg,
		    unsigned int ms)
{
	struct control_channel *channel = mesh_control(half->peer, half->node->self);
	uint64_t end_ns = test_now_ns() + ms * 1000000ull;
	do {
		while (control_receive(channel, ret_msg) == 0)
			if (ret_msg->type == type)
				return true;
		control_flush(channel);
		test_sleep_ms(1);
	} while (test_now_ns() < end_ns);
	return false;
}

const char *half_end(struct half *half, unsigned int ms)
{
	uint64_t end_ns = test_now_ns() + ms * 1000000ull;
	while (!node_has_ended(half->node)) {
		if (test_now_ns() >= end_ns)
			return NULL;
		test_sleep_ms(2);
	}
	return half->node->end.text;
}
