// SPDX-License-Identifier: Apache-2.0
/*
 * Hosts that ask to join by a token: once each, in time, a pod that has this secret and takes
 * tokens; then both sides have a channel. A token opens nothing else, and one that was only shown is
 * not used.
 *
 * Members are polled by the test's thread; who asks is a thread, as it waits.
 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "link/ask.h"
#include "link/mesh.h"
#include "link/tls.h"
#include "tests/link/mesh_pod.h"
#include "tests/link/secure.h"
#include "tests/link/support.h"
#include "wire/handshake.h"
#include "wire/version.h"

#define NOW_S 1900000000u

static const char secret[] = "no tide comes twice";
static const struct token_pod tide = { secret, sizeof(secret), "tide" };
static const struct token_name name = { 77, NOW_S + 60 };

static uint64_t date_s;
/* Who has asked. */
static unsigned asked_count;
static struct control_channel *asked_channel;
static struct token_name asked_token;

static uint64_t on_date(void *ctx)
{
	return date_s;
}

static void on_asked(void *ctx, const struct token_name *token, struct control_channel *channel)
{
	asked_count++;
	asked_token = *token;
	if (asked_channel)
		asked_channel->ops->destroy(asked_channel);
	asked_channel = channel;
}

enum kind { TAKES_TOKENS, TAKES_NONE, HAS_NO_SECRET };

/* Of two. */
static struct node *start(enum kind kind)
{
	struct node *pod = pod_make(2);

	date_s = NOW_S;
	asked_count = 0;
	for (uint16_t i = 0; i < 2; i++) {
		pod[i].config.secret = secret;
		pod[i].config.secret_size = kind == HAS_NO_SECRET ? 0 : sizeof(secret);
		pod[i].config.encrypt = kind != HAS_NO_SECRET;
		pod[i].config.asked = kind == TAKES_NONE ? NULL : on_asked;
		pod[i].config.date_s = on_date;
		pod[i].config.handshake_ms = 10000;
		node_start(&pod[i]);
	}
	for (uint16_t i = 0; i < 2; i++)
		assert_int_equal(node_finish(&pod[i]), 0);
	return pod;
}

static void end(struct node *pod)
{
	if (asked_channel)
		asked_channel->ops->destroy(asked_channel);
	asked_channel = NULL;
	pod_end(pod, 2);
}

static void turn(struct node *pod)
{
	mesh_poll(pod[0].mesh);
	mesh_poll(pod[1].mesh);
	test_sleep_ms(1);
}

struct asking {
	struct token token;
	pthread_t thread;
	struct ask *ask;
	int result;
	char why[MESH_WHY_MAX];
};

static void *ask_main(void *argument)
{
	struct asking *asking = argument;

	asking->result = ask_create(&asking->token, 0, 30000, &asking->ask, asking->why,
				    sizeof(asking->why));
	return NULL;
}

static void begin(struct asking *asking, const struct token *token)
{
	*asking = (struct asking){ .token = *token };
	assert_int_equal(pthread_create(&asking->thread, NULL, ask_main, asking), 0);
}

static int result(struct node *pod, struct asking *asking)
{
	while (pthread_tryjoin_np(asking->thread, NULL) == EBUSY)
		turn(pod);
	return asking->result;
}

/* Of that pod; by these members' doors. */
static struct token token_of(const struct token_pod *of, struct node *pod, unsigned doors)
{
	const char *address[2];
	struct token token;
	size_t count = 0;

	for (unsigned i = 0; i < 2; i++)
		if (doors >> i & 1)
			address[count++] = pod[0].peers[i].address;
	assert_int_equal(token_make(of, &name, address, count, &token), 0);
	return token;
}

static void assert_taken(struct node *pod, const struct token *token)
{
	unsigned before = asked_count;
	struct asking asking;

	begin(&asking, token);
	if (result(pod, &asking) != 0)
		fail_msg("%s", asking.why);
	while (asked_count == before)
		turn(pod);
	assert_int_equal(asked_count, before + 1);
	assert_true(asked_token.id == token->name.id);
	ask_destroy(asking.ask);
}

static void assert_not_taken(struct node *pod, const struct token *token, int error,
			     const char *text)
{
	unsigned before = asked_count;
	struct asking asking;

	begin(&asking, token);
	assert_int_equal(result(pod, &asking), error);
	assert_says(asking.why, text);
	assert_int_equal(asked_count, before);
	assert_null(asking.ask);
}

static void check_words(struct control_channel *from, struct control_channel *to)
{
	struct control_message *msg = calloc(1, sizeof(*msg));
	int error;

	*msg = (struct control_message){ .type = CONTROL_CLOCK_PING };
	msg->clock_ping.id = 1234;
	assert_int_equal(control_send(from, msg), 0);
	memset(msg, 0, sizeof(*msg));
	while ((error = control_receive(to, msg)) == -EAGAIN)
		test_sleep_ms(1);
	assert_int_equal(error, 0);
	assert_int_equal(msg->clock_ping.id, 1234);
	assert_int_equal(msg->src, NODE_NONE);
	free(msg);
}

static void test_words(void **state)
{
	struct node *pod = start(TAKES_TOKENS);
	struct token token = token_of(&tide, pod, 3);
	struct asking asking;

	begin(&asking, &token);
	if (result(pod, &asking) != 0)
		fail_msg("%s", asking.why);
	while (asked_count == 0)
		turn(pod);
	assert_true(asked_token.id == name.id && asked_token.expiry_s == name.expiry_s);
	assert_string_equal(ask_pod_name(asking.ask), "tide");
	check_words(ask_channel(asking.ask), asked_channel);
	check_words(asked_channel, ask_channel(asking.ask));
	check_all_channels(pod, 2);
	ask_destroy(asking.ask);
	end(pod);
}

/* The first address is nobody's. */
static void test_next_address(void **state)
{
	struct node *pod = start(TAKES_TOKENS);
	const char *address[2] = { test_address(5, 9), pod[0].peers[1].address };
	struct token token;

	assert_int_equal(token_make(&tide, &name, address, 2, &token), 0);
	assert_taken(pod, &token);
	assert_int_equal(token_make(&tide, &name, address, 1, &token), 0);
	assert_not_taken(pod, &token, -EHOSTUNREACH, "cannot ask the node at");
	end(pod);
}

static void test_twice(void **state)
{
	struct node *pod = start(TAKES_TOKENS);
	struct token token = token_of(&tide, pod, 1);

	assert_taken(pod, &token);
	assert_not_taken(pod, &token, -ECONNREFUSED, "was used already");
	node_wait_logged(&pod[0], "has a token that was used already");
	/* The other member hears of it by those who agree on who joins. */
	mesh_token_used(pod[1].mesh, &token.name);
	token = token_of(&tide, pod, 2);
	assert_not_taken(pod, &token, -ECONNREFUSED, "was used already");
	end(pod);
}

static void test_twice_at_once(void **state)
{
	struct node *pod = start(TAKES_TOKENS);
	struct token token = token_of(&tide, pod, 1);
	struct asking asking[3];

	for (unsigned i = 0; i < 3; i++)
		begin(&asking[i], &token);
	for (unsigned i = 0; i < 3; i++)
		result(pod, &asking[i]);
	for (unsigned i = 0; i < 50; i++)
		turn(pod);
	assert_int_equal(asked_count, 1);
	for (unsigned i = 0; i < 3; i++)
		ask_destroy(asking[i].ask);
	end(pod);
}

static void test_expired(void **state)
{
	struct node *pod = start(TAKES_TOKENS);
	struct token token = token_of(&tide, pod, 1);

	date_s = name.expiry_s;
	assert_not_taken(pod, &token, -ECONNREFUSED, "has expired");
	date_s = NOW_S; /* somebody sets the clock back */
	assert_not_taken(pod, &token, -ECONNREFUSED, "has expired");
	end(pod);
}

static void test_other_pods(void **state)
{
	const struct token_pod other = { "ebb and flow", 12, "tide" };
	struct node *pod = start(TAKES_TOKENS);
	struct token token = token_of(&other, pod, 3);

	assert_not_taken(pod, &token, -ECONNREFUSED, "does not take this token");
	token = token_of(&tide, pod, 1);
	token.name.expiry_s += 3600;
	assert_not_taken(pod, &token, -ECONNREFUSED, "does not take this token");
	token = token_of(&tide, pod, 1);
	assert_taken(pod, &token);
	end(pod);
	pod = start(TAKES_NONE);
	token = token_of(&tide, pod, 3);
	assert_not_taken(pod, &token, -ECONNREFUSED, "does not take this token");
	end(pod);
	pod = start(HAS_NO_SECRET);
	token = token_of(&tide, pod, 3);
	assert_not_taken(pod, &token, -EHOSTUNREACH, "takes no tokens");
	end(pod);
}

/* ---- By hand ---- */

static int wait_for(struct node *pod, int fd)
{
	struct pollfd fds = { fd, POLLIN, 0 };

	for (unsigned i = 0; i < 20000; i++) {
		if (poll(&fds, 1, 0) > 0)
			return 0;
		turn(pod);
	}
	return -ETIMEDOUT;
}

static struct stream dial(struct node *pod, struct tls_keys *keys)
{
	struct stream stream = stream_plain(connect_to(pod[0].peers[0].address));
	int error;

	assert_int_equal(stream_secure(&stream, keys, true), 0);
	/* Its socket blocks; what is asked for is only asked for when it is there. */
	while ((error = stream_shake_hands(&stream)) == -EAGAIN)
		assert_int_equal(wait_for(pod, stream.fd), 0);
	assert_int_equal(error, 0);
	return stream;
}

/* What the last two that were said hello to need to be told. */
struct said {
	uint8_t hello[HANDSHAKE_BYTES], answer[HANDSHAKE_BYTES];
};
static struct said said[2];

static void prove(struct stream *stream, const struct said *what)
{
	uint8_t proof[HANDSHAKE_PROOF_BYTES];
	struct iovec iov = { proof, sizeof(proof) };

	handshake_prove(what->hello, what->answer, NULL, 0, proof);
	assert_int_equal(stream_send(stream, &iov, 1), sizeof(proof));
	assert_int_equal(stream_flush(stream), 0);
}

static uint8_t verdict_on(struct node *pod, struct stream *stream, const struct handshake *hello,
			  const char *key, size_t key_size)
{
	uint8_t bytes[HANDSHAKE_BYTES];
	struct iovec iov = { bytes, sizeof(bytes) };
	struct handshake answer;

	handshake_encode(hello, bytes);
	handshake_seal(bytes, NULL, key, key_size);
	said[0] = said[1];
	memcpy(said[1].hello, bytes, sizeof(bytes));
	assert_int_equal(stream_send(stream, &iov, 1), sizeof(bytes));
	assert_int_equal(stream_flush(stream), 0);
	for (size_t got = 0; got < sizeof(bytes);) {
		ssize_t more = stream_receive(stream, bytes + got, sizeof(bytes) - got);

		assert_true(more > 0 || more == -EAGAIN);
		got += more > 0 ? (size_t)more : 0;
		if (more == -EAGAIN)
			assert_int_equal(wait_for(pod, stream->fd), 0);
	}
	memcpy(said[1].answer, bytes, sizeof(bytes));
	assert_int_equal(handshake_decode(bytes, &answer), 0);
	if (answer.verdict == HANDSHAKE_SECRET)
		assert_string_equal(answer.pod_name, "");
	return answer.verdict;
}

/* Who has a token is no member, and who is a member needs none: whatever else fits. */
static void test_good_for_nothing_else(void **state)
{
	struct node *pod = start(TAKES_TOKENS);
	struct token token = token_of(&tide, pod, 1);
	const struct mesh_node newcomer = { "gamma", test_address(5, 9) };
	struct handshake hello = node_hello(1, 0, 2);
	struct tls_keys *by_token, *by_secret;
	struct stream stream;
	char why[MESH_WHY_MAX];

	assert_int_equal(mesh_expect(pod[0].mesh, 1, &newcomer, 5, why, sizeof(why)), -EEXIST);
	assert_int_equal(tls_keys_create_by_token(&token, &by_token), 0);
	by_secret = NULL;
	assert_int_equal(tls_keys_create(secret, sizeof(secret), false, &by_secret), 0);
	mesh_forget(pod[0].mesh, 1);
	assert_int_equal(mesh_expect(pod[0].mesh, 1, &newcomer, 5, why, sizeof(why)), 0);
	hello.join = 5;
	for (unsigned keyed = 0; keyed < 2; keyed++) {
		stream = dial(pod, by_token);
		assert_int_equal(
			verdict_on(pod, &stream, &hello, secret, keyed ? sizeof(secret) : 0),
			HANDSHAKE_SECRET);
		stream_close(&stream);
	}
	/* The same by the secret: it was expected. */
	stream = dial(pod, by_secret);
	assert_int_equal(verdict_on(pod, &stream, &hello, secret, sizeof(secret)), HANDSHAKE_OK);
	stream_close(&stream);
	hello.purpose = HANDSHAKE_JOIN;
	for (unsigned keyed = 0; keyed < 2; keyed++) {
		stream = dial(pod, by_secret);
		assert_int_equal(
			verdict_on(pod, &stream, &hello, secret, keyed ? sizeof(secret) : 0),
			HANDSHAKE_SECRET);
		stream_close(&stream);
	}
	assert_int_equal(asked_count, 0);
	/* Nor does any of that use the token; nor a hello by it that is not proven. */
	for (unsigned i = 0; i < 3; i++) {
		stream = dial(pod, by_token);
		if (i > 0)
			assert_int_equal(verdict_on(pod, &stream, &hello, NULL, 0), HANDSHAKE_OK);
		stream_close(&stream);
	}
	hello.limits_digest++;
	stream = dial(pod, by_token);
	assert_int_equal(verdict_on(pod, &stream, &hello, NULL, 0), HANDSHAKE_LIMITS);
	stream_close(&stream);
	assert_taken(pod, &token);
	tls_keys_destroy(by_token);
	tls_keys_destroy(by_secret);
	end(pod);
}

/* Both were told that their token is good: who proves it first has used it. */
static void test_both_were_good(void **state)
{
	struct node *pod = start(TAKES_TOKENS);
	struct token token = token_of(&tide, pod, 1);
	const struct handshake hello = {
		.version = WIRE_VERSION,
		.node = NODE_NONE,
		.peer = NODE_NONE,
		.purpose = HANDSHAKE_JOIN,
		.limits_digest = handshake_limits_digest(),
		.build = "eagre",
	};
	struct stream stream[2];
	struct tls_keys *keys;
	char byte;

	assert_int_equal(tls_keys_create_by_token(&token, &keys), 0);
	for (unsigned i = 0; i < 2; i++) {
		stream[i] = dial(pod, keys);
		assert_int_equal(verdict_on(pod, &stream[i], &hello, NULL, 0), HANDSHAKE_OK);
	}
	prove(&stream[1], &said[1]);
	while (asked_count == 0)
		turn(pod);
	prove(&stream[0], &said[0]);
	assert_int_equal(wait_for(pod, stream[0].fd), 0);
	assert_true(recv(stream[0].fd, &byte, 1, 0) <= 0); /* the end */
	assert_int_equal(asked_count, 1);
	stream_close(&stream[0]);
	stream_close(&stream[1]);
	tls_keys_destroy(keys);
	end(pod);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_next_address),
		cmocka_unit_test(test_twice),
		cmocka_unit_test(test_twice_at_once),
		cmocka_unit_test(test_expired),
		cmocka_unit_test(test_other_pods),
		cmocka_unit_test(test_good_for_nothing_else),
		cmocka_unit_test(test_both_were_good),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
