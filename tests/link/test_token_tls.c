// SPDX-License-Identifier: Apache-2.0
/*
 * TLS by a join token: who has one gets through the handshake of whoever has the pod's secret, and
 * is known for it; who has another pod's, or changed its expiry, or only heard it used, does not;
 * and a stranger hears the same whatever he names.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/link/secure.h"
#include "tests/link/support.h"
#include "tests/test.h"

static const char secret[] = "no tide comes twice";
static const struct token_pod tide = { secret, sizeof(secret) - 1, "tide" };
static const struct token_name name = { 0x0123456789abcdef, 2000000000 };
static const char *const address = "10.0.0.1:7000";

static int find_token(void *ctx, const struct token_name *asked, uint8_t ret_key[TOKEN_KEY_BYTES])
{
	(void)ctx;
	return token_key(&tide, asked, ret_key);
}

static struct token token_of(const struct token_pod *pod)
{
	struct token token;

	assert_int_equal(token_make(pod, &name, &address, 1, &token), 0);
	return token;
}

/* A member's, that takes tokens. */
static struct tls_keys *member_keys(bool kernel)
{
	struct tls_keys *keys = kernel ? test_kernel_keys(secret) : test_keys(secret);

	tls_keys_take_tokens(keys, find_token, NULL);
	return keys;
}

static struct tls_keys *token_keys(const struct token *token)
{
	struct tls_keys *keys;

	assert_int_equal(tls_keys_create_by_token(token, &keys), 0);
	return keys;
}

static void meet(struct tls_keys *dialler, struct tls_keys *listener, struct stream ret_stream[2],
		 int ret_error[2])
{
	int fd[2];

	test_tcp_pair(fd, 0);
	for (int i = 0; i < 2; i++) {
		ret_stream[i] = stream_plain(fd[i]);
		assert_int_equal(stream_secure(&ret_stream[i], i == 0 ? dialler : listener, i == 0),
				 0);
	}
	test_shake_hands(&ret_stream[0], &ret_stream[1], ret_error);
}

static void check_bytes(struct stream *from, struct stream *to)
{
	struct iovec iov = { (void *)(uintptr_t) "let me in", 9 };
	struct pollfd fds = { to->fd, POLLIN, 0 };
	char words[16];
	ssize_t got;

	assert_int_equal(stream_send(from, &iov, 1), 9);
	assert_int_equal(stream_flush(from), 0);
	while ((got = stream_receive(to, words, sizeof(words))) == -EAGAIN)
		assert_int_equal(poll(&fds, 1, 10000), 1);
	assert_int_equal(got, 9);
	assert_memory_equal(words, "let me in", 9);
}

/* And whoever comes by the secret comes by it alone. */
static void test_token(void **state)
{
	for (int kernel = 0; kernel < 2; kernel++) {
		struct token token = token_of(&tide);
		struct tls_keys *joiner = token_keys(&token), *member = member_keys(kernel);
		struct stream stream[2];
		struct token_name shown = { 0 };
		int error[2];

		meet(joiner, member, stream, error);
		assert_int_equal(error[0], 0);
		assert_int_equal(error[1], 0);
		assert_true(stream_by_token(&stream[1], &shown));
		assert_true(shown.id == name.id && shown.expiry_s == name.expiry_s);
		assert_false(stream_by_token(&stream[0], &shown));
		check_bytes(&stream[0], &stream[1]);
		check_bytes(&stream[1], &stream[0]);
		stream_close(&stream[0]);
		stream_close(&stream[1]);

		meet(member, member, stream, error);
		assert_int_equal(error[0], 0);
		assert_int_equal(error[1], 0);
		assert_false(stream_by_token(&stream[1], &shown));
		stream_close(&stream[0]);
		stream_close(&stream[1]);
		tls_keys_destroy(joiner);
		tls_keys_destroy(member);
	}
}

static void assert_refused(struct tls_keys *joiner, struct tls_keys *member)
{
	struct token_name shown;
	struct stream stream[2];
	int error[2];

	meet(joiner, member, stream, error);
	assert_int_equal(error[0], -EKEYREJECTED);
	assert_int_equal(error[1], -EKEYREJECTED);
	assert_false(stream_by_token(&stream[1], &shown));
	stream_close(&stream[0]);
	stream_close(&stream[1]);
	tls_keys_destroy(joiner);
}

static void test_not_its_token(void **state)
{
	const struct token_pod other_secret = { "ebb and flow", 12, "tide" };
	const struct token_pod other_name = { secret, sizeof(secret) - 1, "ebb" };
	struct tls_keys *member = member_keys(false), *other = test_keys("ebb and flow");
	struct token token = token_of(&other_secret);

	assert_refused(token_keys(&token), member);
	token = token_of(&other_name);
	assert_refused(token_keys(&token), member);
	token = token_of(&tide);
	token.name.expiry_s += 3600;
	assert_refused(token_keys(&token), member);
	token = token_of(&tide);
	token.name.id++;
	assert_refused(token_keys(&token), member);
	/* Who takes no tokens; and a member of another pod that does. */
	token = token_of(&tide);
	assert_refused(token_keys(&token), other);
	tls_keys_take_tokens(other, find_token, NULL);
	assert_refused(test_keys(secret), other);
	tls_keys_destroy(member);
	tls_keys_destroy(other);
}

/* What the listener says in clear to whoever shows this identity with a key that is not its own. */
static size_t answer_to_stranger(struct tls_keys *member, uint64_t id, uint64_t expiry_s,
				 uint8_t bytes[256])
{
	struct token token = { .name = { id, expiry_s }, .key = { 1, 2, 3 } };
	struct tls_keys *keys = token_keys(&token);
	struct stream stream[2];
	struct pollfd fds;
	int fd[2], error;
	ssize_t got;

	test_tcp_pair(fd, 0);
	stream[0] = stream_plain(fd[0]);
	stream[1] = stream_plain(fd[1]);
	assert_int_equal(stream_secure(&stream[0], keys, true), 0);
	assert_int_equal(stream_secure(&stream[1], member, false), 0);
	assert_int_equal(stream_shake_hands(&stream[0]), -EAGAIN);
	fds = (struct pollfd){ fd[1], POLLIN, 0 };
	while ((error = stream_shake_hands(&stream[1])) == -EAGAIN)
		assert_int_equal(poll(&fds, 1, 10000), 1);
	assert_int_equal(error, -EKEYREJECTED);
	fds = (struct pollfd){ fd[0], POLLIN, 0 };
	assert_int_equal(poll(&fds, 1, 10000), 1);
	got = recv(fd[0], bytes, 256, MSG_DONTWAIT);
	assert_true(got > 0);
	stream_close(&stream[0]);
	stream_close(&stream[1]);
	tls_keys_destroy(keys);
	return (size_t)got;
}

static void test_stranger_learns_nothing(void **state)
{
	uint8_t real[256], made_up[256], expired[256];
	struct tls_keys *member = member_keys(false);
	size_t size = answer_to_stranger(member, name.id, name.expiry_s, real);

	assert_int_equal(answer_to_stranger(member, 77, 88, made_up), size);
	assert_int_equal(answer_to_stranger(member, name.id, 1, expired), size);
	assert_memory_equal(real, made_up, size);
	assert_memory_equal(real, expired, size);
	tls_keys_destroy(member);
}

/* All that a joiner said, recorded and said again, whole or its first words alone. */
static void test_recorded(void **state)
{
	struct token token = token_of(&tide);
	struct tls_keys *joiner = token_keys(&token), *member = member_keys(false);
	uint8_t heard[4096];
	size_t heard_bytes = 0, first_bytes = 0;
	struct token_name shown;
	struct stream stream[2];
	int near[2], far[2];
	bool done[2] = { false, false };

	test_tcp_pair(near, 0);
	test_tcp_pair(far, 0);
	stream[0] = stream_plain(near[0]);
	stream[1] = stream_plain(far[1]);
	assert_int_equal(stream_secure(&stream[0], joiner, true), 0);
	assert_int_equal(stream_secure(&stream[1], member, false), 0);
	for (unsigned i = 0; i < 20000 && (!done[0] || !done[1]); i++) {
		uint8_t bytes[2048];
		ssize_t got;

		for (int k = 0; k < 2; k++) {
			int error = done[k] ? 0 : stream_shake_hands(&stream[k]);

			assert_true(error == 0 || error == -EAGAIN);
			done[k] = error == 0;
		}
		got = recv(near[1], bytes, sizeof(bytes), MSG_DONTWAIT);
		if (got > 0) {
			assert_true(heard_bytes + (size_t)got <= sizeof(heard));
			memcpy(heard + heard_bytes, bytes, (size_t)got);
			heard_bytes += (size_t)got;
			first_bytes = first_bytes ? first_bytes : (size_t)got;
			assert_int_equal(send(far[0], bytes, (size_t)got, MSG_NOSIGNAL), got);
		}
		got = recv(far[0], bytes, sizeof(bytes), MSG_DONTWAIT);
		if (got > 0)
			assert_int_equal(send(near[1], bytes, (size_t)got, MSG_NOSIGNAL), got);
		test_sleep_ms(1);
	}
	assert_true(done[0] && done[1] && heard_bytes > first_bytes);
	stream_close(&stream[0]);
	stream_close(&stream[1]);
	close(near[1]);
	close(far[0]);

	for (int whole = 0; whole < 2; whole++) {
		size_t size = whole ? heard_bytes : first_bytes;
		struct pollfd fds;
		int error;

		test_tcp_pair(far, 0);
		stream[1] = stream_plain(far[1]);
		assert_int_equal(stream_secure(&stream[1], member, false), 0);
		assert_int_equal(send(far[0], heard, size, MSG_NOSIGNAL), size);
		shutdown(far[0], SHUT_WR);
		fds = (struct pollfd){ far[1], POLLIN, 0 };
		while ((error = stream_shake_hands(&stream[1])) == -EAGAIN)
			assert_int_equal(poll(&fds, 1, 10000), 1);
		assert_true(error < 0);
		assert_false(stream_by_token(&stream[1], &shown));
		stream_close(&stream[1]);
		close(far[0]);
	}
	tls_keys_destroy(joiner);
	tls_keys_destroy(member);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_token),
		cmocka_unit_test(test_not_its_token),
		cmocka_unit_test(test_stranger_learns_nothing),
		cmocka_unit_test(test_recorded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
