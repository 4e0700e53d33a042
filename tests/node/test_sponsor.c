// SPDX-License-Identifier: Apache-2.0
/*
 * Who asks to join, as the member sees it that was asked: what is judged of what he offers, and that a
 * stranger who says nothing, lies or goes away ends his channel, and nothing else.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "link/tcp.h"
#include "link/tls.h"
#include "node/join.h"
#include "node/node_state.h"
#include "node/say.h"
#include "node/sponsor.h"

#define WAIT_MS 20000

static struct node *node;
static struct pod_config *config;
static struct node_options options;
static struct control_message msg;
static struct control_join_ask ask;

/* Nothing of a node is ever freed, as its threads live on: so it is known where it is. */
static void *kept[64];
static size_t kept_count;

static void keep(void *what)
{
	assert_non_null(what);
	assert_true(kept_count < sizeof(kept) / sizeof(kept[0]));
	kept[kept_count++] = what;
}

static void say(void *context, const char *line)
{
}

static void pod(const char *more)
{
	char text[512], why[256];

	snprintf(text, sizeof(text),
		 "[pod]\nname=tide\n%s[node a]\naddress=127.0.0.1:7001\nmemory=128M\nvcpus=1\n"
		 "[node b]\naddress=127.0.0.1:7002\nmemory=128M\nvcpus=1\n",
		 more);
	if (pod_config_parse(text, "test", &config, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	options = (struct node_options){ .config = config, .say = say };
	node->config = config;
	assert_int_equal(members_create(config, 0, &node->members), 0);
	keep(config);
	keep(node->members);
}

static int begin(void **state)
{
	struct node_clock_config clock = { .reference = true, .host_khz = 2000000 };

	node = calloc(1, sizeof(*node));
	keep(node);
	node->options = &options;
	pthread_mutex_init(&node->lock, NULL);
	pod("nodes_max=3\nsecret=no tide comes twice\n");
	assert_int_equal(say_create(say, NULL, &node->say), 0);
	assert_int_equal(node_clock_create(&clock, &node->clock), 0);
	atomic_store(&node->run_ns, 1);
	node->start.tsc_khz = 2000000;
	memset(&ask, 0, sizeof(ask));
	strcpy(ask.about.name, "c");
	strcpy(ask.about.address, "127.0.0.1:7003");
	ask.about.promise_bytes = 128 << 20;
	strcpy(ask.features.engine, "soft");
	ask.features.tsc_khz = 2000000;
	ask.features.tsc_scaling = 1;
	ask.features.capacity_pages = ask.about.promise_bytes / PAGE_BYTES;
	ask.features.offer.count = 1;
	return 0;
}

static void expect(const char *wanted)
{
	char why[256] = "";

	assert_true(sponsor_judge(node, &ask, why, sizeof(why)) < 0);
	if (!strstr(why, wanted))
		fail_msg("'%s' does not say '%s'", why, wanted);
}

static void test_pods(void **state)
{
	static const struct {
		const char *more, *why;
	} pods[] = {
		{ "secret=no tide comes twice\n", "nodes_max" },
		{ "nodes_max=3\n", "no secret" },
		{ "nodes_max=3\nsecret=no tide comes twice\nencrypt=no\n", "not encrypted" },
		{ "nodes_max=3\nsecret=no tide comes twice\n[disk d]\nnode=a\nfile=/x\n",
		  "disks or network cards" },
	};
	char *answer;

	for (size_t i = 0; i < sizeof(pods) / sizeof(pods[0]); i++) {
		pod(pods[i].more);
		expect(pods[i].why);
		answer = sponsor_token_request(node, "");
		assert_non_null(strstr(answer, pods[i].why));
		free(answer);
	}
	pod("nodes_max=3\nsecret=no tide comes twice\n");
	atomic_store(&node->run_ns, 0);
	expect("does not run yet");
}

static void test_offers(void **state)
{
	strcpy(ask.about.name, "b");
	expect("a node 'b' already");
	strcpy(ask.about.name, "a b");
	expect("no name");
	strcpy(ask.about.name, "c");
	strcpy(ask.about.address, "127.0.0.1:7002");
	expect("address of the pod's node 'b'");
	strcpy(ask.about.address, "host.example.org:7700");
	expect("its address");
	strcpy(ask.about.address, "127.0.0.1:7003");
	ask.about.promise_bytes = 0;
	expect("no memory");
	ask.about.promise_bytes = CHUNK_BYTES + PAGE_BYTES;
	expect("no memory");
	ask.about.promise_bytes = CHUNK_BYTES;
	/* The guest's CPUID is nothing here, which no host can run. */
	expect("CPU features");
}

static void add(struct cpuid_set *set, uint32_t function, uint32_t ebx, uint32_t ecx)
{
	set->leaf[set->count++] = (struct cpuid_leaf){
		.function = function, .index_matters = function == 7, .ebx = ebx, .ecx = ecx
	};
}

static void test_features_by_name(void **state)
{
	static struct control_start start;
	char why[256];

	memset(&start, 0, sizeof(start));
	ask.features.offer.count = 0;
	add(&ask.features.offer, 1, 0, 0);
	add(&ask.features.offer, 7, 0, 0);
	add(&start.cpuid, 1, 0, 1u << 28);
	add(&start.cpuid, 7, 1u << 5 | 1u << 16, 0);
	assert_int_equal(join_check_start(&start, &ask.features, why, sizeof(why)), -ENOTSUP);
	assert_non_null(strstr(why, "avx, avx2, avx512f"));
}

/* ---- strangers --------------------------------------------------------------------------------- */

static struct control_channel *connect_stranger(int *ret_fd)
{
	struct control_channel *theirs;
	struct token_name token = { 1, 2 };
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	assert_int_equal(tcp_control_create(stream_plain(fd[0]), NODE_NONE, &theirs), 0);
	sponsor_asked(node, &token, theirs);
	*ret_fd = fd[1];
	if (ret_fd && *ret_fd >= 0) {
		struct control_channel *ours;
		assert_int_equal(tcp_control_create(stream_plain(fd[1]), NODE_NONE, &ours), 0);
		return ours;
	}
	return NULL;
}

/* The next message, or what the channel has come to. */
static int hear(struct control_channel *channel)
{
	int r = -EAGAIN;

	for (int ms = 0; r == -EAGAIN && ms < WAIT_MS; ms += 10) {
		(void)control_flush(channel);
		r = control_receive(channel, &msg);
		if (r == -EAGAIN)
			(void)poll(NULL, 0, 10);
	}
	return r;
}

static void test_strangers(void **state)
{
	struct control_channel *channel;
	int fd;

	assert_int_equal(sponsor_create(node), 0);
	/* Refused with a line, and then the end. */
	channel = connect_stranger(&fd);
	msg = (struct control_message){ .type = CONTROL_JOIN_ASK };
	strcpy(ask.about.name, "b");
	msg.join_ask = ask;
	assert_int_equal(control_send(channel, &msg), 0);
	assert_int_equal(hear(channel), 0);
	assert_int_equal(msg.type, CONTROL_JOIN_TOLD);
	assert_non_null(strstr(msg.join_told.why, "a node 'b' already"));
	channel->ops->destroy(channel);
	/* Something else. */
	channel = connect_stranger(&fd);
	msg = (struct control_message){ .type = CONTROL_END };
	assert_int_equal(control_send(channel, &msg), 0);
	assert_int_equal(hear(channel), -EPIPE);
	channel->ops->destroy(channel);
	/* Noise. */
	channel = connect_stranger(&fd);
	assert_int_equal(write(fd, "GET / HTTP/1.1\r\n\r\n", 18), 18);
	assert_true(hear(channel) < 0);
	channel->ops->destroy(channel);
	/* He goes away, and comes again, more often than there are places. */
	for (int i = 0; i < 20; i++) {
		channel = connect_stranger(&fd);
		channel->ops->destroy(channel);
	}
	/* A JOIN of nobody's. */
	sponsor_joined(node, &(struct member_word){ .kind = KIND_JOIN, .node = 2 });
	assert_false(node_has_ended(node));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_pods, begin),
		cmocka_unit_test_setup(test_offers, begin),
		cmocka_unit_test_setup(test_features_by_name, begin),
		cmocka_unit_test_setup(test_strangers, begin),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
