// SPDX-License-Identifier: Apache-2.0
/*
 * Streams with TLS: what arrives is what was sent, whatever pieces it comes in; who lacks the secret
 * does not get through the handshake, whatever he says instead; and what was changed, left out, or
 * overheard before is taken for nothing else.
 */
#include <errno.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/link/secure.h"
#include "tests/link/support.h"

#define SECRET "no tide comes twice"
#define BYTES  (3u << 20)

static void wait_for(int fd, short events)
{
	struct pollfd fds = { .fd = fd, .events = events };

	assert_int_equal(poll(&fds, 1, 10000), 1);
}

static uint8_t byte_at(uint64_t seed, size_t at)
{
	return (uint8_t)((at * 2654435761u + seed) >> 11);
}

/* ---- Bytes ---- */

struct side {
	struct stream stream;
	struct random random;
	uint64_t seed; /* of what it sends; the other's is seed ^ 1 */
	size_t sent, got;
};

static void send_some(struct side *side)
{
	static uint8_t buffer[200000];
	size_t left = random_below(&side->random, sizeof(buffer)), all = 0;
	struct iovec iov[8];
	ssize_t sent;

	if (left > BYTES - side->sent)
		left = BYTES - side->sent;
	for (size_t i = 0; i < left; i++)
		buffer[i] = byte_at(side->seed, side->sent + i);
	for (int i = 0; i < 8; i++) {
		size_t part = i == 7 ? left - all
				     : random_below(&side->random, (uint32_t)(left - all) + 1);

		iov[i] = (struct iovec){ buffer + all, part };
		all += part;
	}
	if (left == 0)
		return;
	sent = stream_send(&side->stream, iov, 8);
	assert_true(sent > 0 || sent == -EAGAIN);
	side->sent += sent > 0 ? (size_t)sent : 0;
}

static void receive_some(struct side *side)
{
	static uint8_t buffer[100000];
	bool held_only = random_below(&side->random, 4) == 0;
	uint32_t size = 1 + random_below(&side->random, sizeof(buffer) - 100);
	uint32_t cut = random_below(&side->random, size);
	struct iovec iov[2] = { { buffer, cut }, { buffer + cut, size - cut } };
	ssize_t got;

	if (held_only)
		got = stream_take_held(&side->stream, iov, 2);
	else
		got = stream_receive_pieces(&side->stream, iov, 2);
	if (got == -EAGAIN)
		return;
	assert_true(got > 0);
	for (ssize_t i = 0; i < got; i++)
		assert_int_equal(buffer[i], byte_at(side->seed ^ 1, side->got + (size_t)i));
	side->got += (size_t)got;
}

static void exchange_by(struct tls_keys *const keys[2], int buffer, uint64_t key_records)
{
	uint64_t seed = test_seed();
	struct stream stream[2];
	struct side side[2];
	int fd[2];

	test_tcp_pair(fd, buffer);
	test_secure_by(keys[0], keys[1], fd[0], fd[1], stream);
	for (unsigned i = 0; i < 2; i++) {
		if (stream[i].tls)
			tls_set_key_records(stream[i].tls, key_records);
		stream_read_ahead(&stream[i]);
		side[i] = (struct side){ .stream = stream[i], .seed = (seed & ~1ull) ^ i };
		random_seed(&side[i].random, seed + i);
	}
	while (side[0].got < BYTES || side[1].got < BYTES) {
		for (int i = 0; i < 2; i++) {
			int error;

			send_some(&side[i]);
			error = stream_flush(&side[i].stream);
			assert_true(error == 0 || error == -EAGAIN);
			assert_int_equal(error == 0, stream_backlog(&side[i].stream) == 0);
			receive_some(&side[i]);
		}
	}
	for (int i = 0; i < 2; i++) {
		assert_false(stream_holds(&side[i].stream));
		stream_close(&side[i].stream);
	}
}

static void exchange(struct tls_keys *keys, int buffer, uint64_t key_records)
{
	struct tls_keys *const both[2] = { keys, keys };

	exchange_by(both, buffer, key_records);
}

static void test_plain(void **state)
{
	exchange(NULL, 0, 0);
}

static void test_secret(void **state)
{
	struct tls_keys *keys = test_keys(SECRET);

	exchange(keys, 0, TLS_KEY_RECORDS);
	exchange(keys, 4096, TLS_KEY_RECORDS);
	tls_keys_destroy(keys);
}

/* The kernel on one side, or on both; where it cannot, the same as ever. */
static void test_kernel(void **state)
{
	struct tls_keys *keys[2] = { test_keys(SECRET), test_kernel_keys(SECRET) };

	for (unsigned i = 1; i < 4; i++) {
		struct tls_keys *const pair[2] = { keys[i & 1], keys[i >> 1] };

		exchange_by(pair, 0, TLS_KEY_RECORDS);
		exchange_by(pair, 4096, TLS_KEY_RECORDS);
	}
	tls_keys_destroy(keys[0]);
	tls_keys_destroy(keys[1]);
}

/* Keys change on both sides at any moment. */
static void test_new_keys(void **state)
{
	struct tls_keys *keys = test_keys(SECRET);

	exchange(keys, 0, 3);
	exchange(keys, 4096, 1);
	tls_keys_destroy(keys);
}

/* ---- Handshakes that must not be ---- */

/* What `listener` says to these first bytes, and then the end if `ends`. */
static int answer_to(struct tls_keys *keys, const void *bytes, size_t size, bool ends)
{
	struct stream listener;
	int fd[2], error;

	test_tcp_pair(fd, 0);
	listener = stream_plain(fd[1]);
	assert_int_equal(stream_secure(&listener, keys, false), 0);
	assert_int_equal(send(fd[0], bytes, size, MSG_NOSIGNAL), size);
	if (ends)
		shutdown(fd[0], SHUT_WR);
	for (unsigned i = 0; (error = stream_shake_hands(&listener)) == -EAGAIN && i < 20; i++) {
		struct pollfd fds = { .fd = fd[1], .events = POLLIN };

		if (poll(&fds, 1, 50) == 0)
			break;
	}
	stream_close(&listener);
	close(fd[0]);
	return error;
}

static void test_other_secret(void **state)
{
	struct tls_keys *keys[2] = { test_keys(SECRET), test_keys(SECRET ".") };
	struct stream stream[2];
	int fd[2], error[2];

	test_tcp_pair(fd, 0);
	for (int i = 0; i < 2; i++) {
		stream[i] = stream_plain(fd[i]);
		assert_int_equal(stream_secure(&stream[i], keys[i], i == 0), 0);
	}
	test_shake_hands(&stream[0], &stream[1], error);
	assert_int_equal(error[0], -EKEYREJECTED);
	assert_int_equal(error[1], -EKEYREJECTED);
	for (int i = 0; i < 2; i++) {
		stream_close(&stream[i]);
		tls_keys_destroy(keys[i]);
	}
}

/* A dialler's first words, by OpenSSL as it comes, of these versions. */
static size_t first_words(int version, uint8_t *bytes, size_t size)
{
	SSL_CTX *context = SSL_CTX_new(TLS_method());
	SSL *ssl;
	int got;

	assert_true(SSL_CTX_set_max_proto_version(context, version));
	ssl = SSL_new(context);
	SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
	SSL_set_connect_state(ssl);
	SSL_do_handshake(ssl);
	got = BIO_read(SSL_get_wbio(ssl), bytes, (int)size);
	assert_true(got > 0);
	SSL_free(ssl);
	SSL_CTX_free(context);
	return (size_t)got;
}

/* No secret, an old TLS, no TLS, part of it, too much of it, nothing. */
static void test_strangers(void **state)
{
	struct tls_keys *keys = test_keys(SECRET);
	static uint8_t bytes[2 * TLS_HANDSHAKE_BYTES_MAX];
	/* A hello that says how large it will be: 128 KiB, just too much, and not in one record. */
	static const struct {
		const char *bytes;
		size_t size;
	} greedy[] = { { "\x16\x03\x01\x00\x06\x01\x02\x01\x00\x03\x03", 11 },
		       { "\x16\x03\x01\x00\x06\x01\x00\x20\x01\x03\x03", 11 },
		       { "\x16\x03\x01\x00\x03\x01\x02\x01", 8 },
		       { "\x15\x03\x01\x00\x02\x01\x00", 7 } };
	struct random random;
	size_t size = first_words(TLS1_3_VERSION, bytes, sizeof(bytes));

	assert_int_equal(answer_to(keys, bytes, size, false), -EKEYREJECTED);
	for (size_t cut = 0; cut < size; cut += 7) {
		assert_int_equal(answer_to(keys, bytes, cut, true), -EPIPE);
		if (cut % 5 == 0)
			assert_int_equal(answer_to(keys, bytes, cut, false), -EAGAIN);
	}
	size = first_words(TLS1_2_VERSION, bytes, sizeof(bytes));
	assert_int_equal(answer_to(keys, bytes, size, false), -EPROTONOSUPPORT);
	assert_int_equal(answer_to(keys, "GET / HTTP/1.1\r\n\r\n", 18, false), -EPROTO);
	/* One record of a hello that says it is larger than any. */
	memcpy(bytes, "\x16\x03\x01\x40\x00\x01\x01\x00\x00\x03\x03", 11);
	assert_int_equal(answer_to(keys, bytes, sizeof(bytes), false), -EPROTO);
	for (size_t i = 0; i < sizeof(greedy) / sizeof(greedy[0]); i++)
		assert_int_equal(answer_to(keys, greedy[i].bytes, greedy[i].size, false), -EPROTO);
	random_seed(&random, test_seed());
	for (int i = 0; i < 200; i++) {
		size = 1 + random_below(&random, 600);
		for (size_t k = 0; k < size; k++)
			bytes[k] = (uint8_t)random_next(&random);
		if (i % 2)
			memcpy(bytes, "\x16\x03\x01\x00\x80\x01\x00\x00\x7c\x03\x03",
			       size < 11 ? size : 11);
		assert_int_not_equal(answer_to(keys, bytes, size, true), 0);
	}
	tls_keys_destroy(keys);
}

/* What a dialler makes of an alert: that the other side has trouble is no word on the secret. */
static void test_alerts(void **state)
{
	static const struct {
		uint8_t alert;
		int error;
	} cases[] = { { SSL_AD_INTERNAL_ERROR, -EPIPE },
		      { SSL_AD_HANDSHAKE_FAILURE, -EKEYREJECTED },
		      { SSL_AD_DECRYPT_ERROR, -EKEYREJECTED },
		      { SSL_AD_PROTOCOL_VERSION, -EPROTONOSUPPORT } };
	struct tls_keys *keys = test_keys(SECRET);

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint8_t bytes[] = { SSL3_RT_ALERT, 3, 3, 0, 2, SSL3_AL_FATAL, cases[i].alert };
		struct stream dialler;
		int fd[2];

		test_tcp_pair(fd, 0);
		dialler = stream_plain(fd[0]);
		assert_int_equal(stream_secure(&dialler, keys, true), 0);
		assert_int_equal(stream_shake_hands(&dialler), -EAGAIN);
		assert_int_equal(send(fd[1], bytes, sizeof(bytes), MSG_NOSIGNAL), sizeof(bytes));
		wait_for(fd[0], POLLIN);
		assert_int_equal(stream_shake_hands(&dialler), cases[i].error);
		stream_close(&dialler);
		close(fd[1]);
	}
	tls_keys_destroy(keys);
}

/* A kernel that takes no byte: the handshake does not wait for an answer to what was never sent. */
static void test_no_room(void **state)
{
	static uint8_t bytes[1u << 16];
	struct tls_keys *keys = test_keys(SECRET);
	struct stream dialler;
	int fd[2];

	/* Not TCP: there the kernel makes room by itself, whenever its timers have it look. */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	dialler = stream_plain(fd[0]);
	assert_int_equal(stream_secure(&dialler, keys, true), 0);
	while (send(fd[0], bytes, sizeof(bytes), MSG_NOSIGNAL) > 0)
		continue;
	assert_int_equal(stream_shake_hands(&dialler), -ENOBUFS);
	stream_close(&dialler);
	close(fd[1]);
	tls_keys_destroy(keys);
}

static X509 *make_certificate(EVP_PKEY *key)
{
	X509 *certificate = X509_new();

	ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
	X509_gmtime_adj(X509_getm_notBefore(certificate), -100);
	X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
	X509_set_pubkey(certificate, key);
	assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
	return certificate;
}

/* Who listens with a certificate instead of the secret. */
static void test_listener_with_certificate(void **state)
{
	struct tls_keys *keys = test_keys(SECRET);
	SSL_CTX *context = SSL_CTX_new(TLS_method());
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	X509 *certificate = make_certificate(key);
	struct stream dialler;
	int fd[2], error = -EAGAIN;
	SSL *ssl;

	assert_int_equal(SSL_CTX_use_certificate(context, certificate), 1);
	assert_int_equal(SSL_CTX_use_PrivateKey(context, key), 1);
	test_tcp_pair(fd, 0);
	dialler = stream_plain(fd[0]);
	assert_int_equal(stream_secure(&dialler, keys, true), 0);
	ssl = SSL_new(context);
	SSL_set_fd(ssl, fd[1]);
	SSL_set_accept_state(ssl);
	for (int i = 0; i < 1000 && error == -EAGAIN; i++) {
		error = stream_shake_hands(&dialler);
		SSL_do_handshake(ssl);
		test_sleep_ms(1);
	}
	assert_int_equal(error, -EKEYREJECTED);
	assert_false(SSL_is_init_finished(ssl));
	stream_close(&dialler);
	SSL_free(ssl);
	close(fd[1]);
	SSL_CTX_free(context);
	X509_free(certificate);
	EVP_PKEY_free(key);
	tls_keys_destroy(keys);
}

/* ---- Somebody between the two ---- */

/* dialler | near[1], the test, far[0] | listener */
struct between {
	struct tls_keys *keys;
	struct stream dialler, listener;
	int near, far;
	uint8_t heard[4096]; /* of the dialler */
	size_t heard_bytes;
};

static size_t hear(struct between *between, int from, uint8_t *bytes, size_t size)
{
	ssize_t got;

	wait_for(from, POLLIN);
	got = recv(from, bytes, size, 0);
	assert_true(got > 0);
	if (from == between->near) {
		assert_true(between->heard_bytes + (size_t)got <= sizeof(between->heard));
		memcpy(between->heard + between->heard_bytes, bytes, (size_t)got);
		between->heard_bytes += (size_t)got;
	}
	return (size_t)got;
}

static void pass_on(struct between *between, int from, int to)
{
	uint8_t bytes[2048];
	size_t got = hear(between, from, bytes, sizeof(bytes));

	assert_int_equal(send(to, bytes, got, MSG_NOSIGNAL), got);
}

static void connect_across(struct between *between)
{
	int near[2], far[2];

	memset(between, 0, sizeof(*between));
	between->keys = test_keys(SECRET);
	test_tcp_pair(near, 0);
	test_tcp_pair(far, 0);
	between->near = near[1];
	between->far = far[0];
	between->dialler = stream_plain(near[0]);
	between->listener = stream_plain(far[1]);
	assert_int_equal(stream_secure(&between->dialler, between->keys, true), 0);
	assert_int_equal(stream_secure(&between->listener, between->keys, false), 0);
	assert_int_equal(stream_shake_hands(&between->dialler), -EAGAIN);
	pass_on(between, between->near, between->far);
	wait_for(far[1], POLLIN);
	assert_int_equal(stream_shake_hands(&between->listener), -EAGAIN);
	pass_on(between, between->far, between->near);
	wait_for(near[0], POLLIN);
	assert_int_equal(stream_shake_hands(&between->dialler), 0);
	pass_on(between, between->near, between->far);
	wait_for(far[1], POLLIN);
	assert_int_equal(stream_shake_hands(&between->listener), 0);
}

static void end_between(struct between *between)
{
	stream_close(&between->dialler);
	stream_close(&between->listener);
	close(between->near);
	close(between->far);
	tls_keys_destroy(between->keys);
}

static void say(struct stream *stream, const char *words)
{
	struct iovec iov = { (void *)(uintptr_t)words, strlen(words) };

	assert_int_equal(stream_send(stream, &iov, 1), strlen(words));
	assert_int_equal(stream_flush(stream), 0);
}

static ssize_t listen_to(struct stream *stream, char *words, size_t size)
{
	ssize_t got;

	while ((got = stream_receive(stream, words, size)) == -EAGAIN)
		wait_for(stream->fd, POLLIN);
	return got;
}

/* Each byte of a record matters; nothing of what was said can be heard; a record is good once. */
static void test_changed(void **state)
{
	static const char words[] = "the words of the prophets";
	uint8_t record[256];
	char heard[256];
	size_t size;

	for (size_t at = 0; at < sizeof(words) - 1 + TLS_RECORD_MORE; at++) {
		struct between between;
		ssize_t got;

		connect_across(&between);
		stream_read_ahead(&between.listener);
		say(&between.dialler, words);
		size = hear(&between, between.near, record, sizeof(record));
		assert_int_equal(size, sizeof(words) - 1 + TLS_RECORD_MORE);
		assert_null(memmem(record, size, words, 9));
		record[at] ^= 1;
		assert_int_equal(send(between.far, record, size, MSG_NOSIGNAL), size);
		shutdown(between.far, SHUT_WR);
		got = listen_to(&between.listener, heard, sizeof(heard));
		/* A length that is more waits for bytes that never come. */
		assert_true(got == -EBADMSG || ((at == 3 || at == 4) && got == -EPIPE));
		assert_true(listen_to(&between.listener, heard, sizeof(heard)) == got);
		end_between(&between);
	}
}

static void test_twice_and_left_out(void **state)
{
	for (int kind = 0; kind < 3; kind++) {
		struct between between;
		uint8_t record[256];
		char heard[256];
		size_t size;

		connect_across(&between);
		say(&between.dialler, "one");
		size = hear(&between, between.near, record, sizeof(record));
		if (kind == 0) /* twice, at once: what came before it is not waited for */
			assert_int_equal(send(between.far, record, size, MSG_NOSIGNAL), size);
		if (kind == 1) { /* later */
			assert_int_equal(send(between.far, record, size, MSG_NOSIGNAL), size);
			assert_int_equal(listen_to(&between.listener, heard, 256), 3);
		}
		if (kind == 2) { /* another before it */
			say(&between.dialler, "two");
			size = hear(&between, between.near, record, sizeof(record));
		}
		assert_int_equal(send(between.far, record, size, MSG_NOSIGNAL), size);
		if (kind == 0) {
			test_sleep_ms(20); /* both are there */
			stream_read_ahead(&between.listener);
		}
		assert_int_equal(listen_to(&between.listener, heard, 256), -EBADMSG);
		end_between(&between);
	}
}

/* All that a node said on a connection, said again on another; and to the node itself. */
static void test_overheard(void **state)
{
	struct between between;

	connect_across(&between);
	say(&between.dialler, "let me in");
	pass_on(&between, between.near, between.far);
	assert_true(answer_to(between.keys, between.heard, between.heard_bytes, true) < 0);
	/* Its first words alone: they are right, but say nothing that opens the answer. */
	assert_int_equal(answer_to(between.keys, between.heard,
				   5 + between.heard[4] + 256u * between.heard[3], false),
			 -EAGAIN);
	end_between(&between);
}

/* Cut off in the middle of a record: that is an end, not less of it. */
static void test_truncated(void **state)
{
	struct between between;
	uint8_t record[256];
	char heard[256];
	size_t size;

	connect_across(&between);
	say(&between.dialler, "one");
	pass_on(&between, between.near, between.far);
	say(&between.dialler, "and another");
	size = hear(&between, between.near, record, sizeof(record));
	assert_int_equal(send(between.far, record, size - 1, MSG_NOSIGNAL), size - 1);
	shutdown(between.far, SHUT_WR);
	stream_read_ahead(&between.listener);
	assert_int_equal(listen_to(&between.listener, heard, 256), 3);
	assert_int_equal(listen_to(&between.listener, heard, 256), -EPIPE);
	end_between(&between);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_secret),
		cmocka_unit_test(test_new_keys),
		cmocka_unit_test(test_kernel),
		cmocka_unit_test(test_other_secret),
		cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_alerts),
		cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_listener_with_certificate),
		cmocka_unit_test(test_changed),
		cmocka_unit_test(test_twice_and_left_out),
		cmocka_unit_test(test_overheard),
		cmocka_unit_test(test_truncated),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
