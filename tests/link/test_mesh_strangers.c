// SPDX-License-Identifier: Apache-2.0
/*
 * The mesh and those who do not belong to it: who lacks the secret or says again what he overheard,
 * who speaks another version, another protocol or none, and crowds that keep its door busy.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "link/bring_up.h"
#include "link/mesh.h"
#include "link/mesh_state.h"
#include "tests/link/mesh_pod.h"
#include "tests/link/support.h"
#include "wire/handshake.h"
#include "wire/version.h"

/* One secret: they link. Another one, or none: refused, and told nothing of the pod. */
static void test_secrets(void **state)
{
	static const char *const secret[] = { "of one pod, long", "of another, longer", "" };

	for (int a = 0; a < 3; a++) {
		struct node *pod = pod_make(2);

		pod[0].config.secret = secret[0];
		pod[0].config.secret_size = strlen(secret[0]);
		pod[1].config.secret = secret[a];
		pod[1].config.secret_size = strlen(secret[a]);
		node_start(&pod[0]);
		node_start(&pod[1]);
		if (a == 0) {
			assert_int_equal(node_finish(&pod[0]), 0);
			assert_int_equal(node_finish(&pod[1]), 0);
		} else {
			assert_int_equal(node_finish(&pod[1]), -ECONNREFUSED);
			assert_says(pod[1].why, "node 0 (alpha");
			assert_says(pod[1].why, "secret");
			node_wait_logged(&pod[0], "does not know this pod's secret");
			node_cancel(&pod[0]);
			node_finish(&pod[0]);
		}
		pod_end(pod, 2);
	}
}

/* Who knows all of the pod but its secret: hears a verdict, is not linked, and keeps nobody out. */
static void test_stranger_with_digest(void **state)
{
	static const char secret[] = "the pod's own secret";
	struct handshake hello = node_hello(1, 0, 2);
	uint8_t bytes[HANDSHAKE_BYTES];
	struct node *pod = pod_make(2);
	int fd;

	for (int i = 0; i < 2; i++) {
		pod[i].config.secret = secret;
		pod[i].config.secret_size = sizeof(secret);
	}
	node_start(&pod[0]);
	node_wait_logged(&pod[0], "WAITING 1");
	fd = connect_to(pod[0].peers[0].address);
	handshake_encode(&hello, bytes);
	handshake_seal(bytes, NULL, NULL, 0);
	assert_int_equal(send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL), sizeof(bytes));
	receive_whole(fd, bytes);
	assert_int_equal(bytes[12], HANDSHAKE_SECRET);
	for (size_t i = HANDSHAKE_FIXED_BYTES; i < HANDSHAKE_BYTES; i++)
		assert_int_equal(bytes[i], 0);
	node_start(&pod[1]);
	assert_int_equal(node_finish(&pod[0]), 0);
	assert_int_equal(node_finish(&pod[1]), 0);
	close(fd);
	pod_end(pod, 2);
}

/* The same where links are encrypted; and who encrypts does not link with who does not. */
static void test_secrets_encrypted(void **state)
{
	static const char own[] = "of one pod, long";
	static const struct {
		const char *secret; /* the other node's */
		bool encrypt;	    /* likewise */
	} cases[] = {
		{ own, true }, { "of another, longer", true }, { own, false }, { "", false }
	};

	for (unsigned i = 0; i < 8; i++) {
		unsigned odd = i % 2; /* which of the two it is */
		struct node *pod = pod_make(2);

		for (unsigned k = 0; k < 2; k++) {
			pod[k].config.secret = k == odd ? cases[i / 2].secret : own;
			pod[k].config.secret_size = strlen(pod[k].config.secret);
			pod[k].config.encrypt = k == odd ? cases[i / 2].encrypt : true;
		}
		node_start(&pod[0]);
		node_start(&pod[1]);
		if (i / 2 == 0) {
			assert_int_equal(node_finish(&pod[0]), 0);
			assert_int_equal(node_finish(&pod[1]), 0);
			check_all_channels(pod, 2);
		} else {
			assert_int_equal(node_finish(&pod[1]), -ECONNREFUSED);
			assert_says(pod[1].why, "node 0 (alpha");
			assert_says(pod[1].why, "the same secret, and the same encrypt");
			node_wait_logged(&pod[0], "the same secret, and the same encrypt");
			assert_true(node_logged(&pod[0], "does not know this pod's secret"));
			node_cancel(&pod[0]);
			node_finish(&pod[0]);
		}
		pod_end(pod, 2);
	}
}

static const char overheard_secret[] = "the pod's own secret";

/* What a node has said to another on some connection, for everybody on the wire to hear. */
static void overhear(const struct node *node, uint16_t peer, uint64_t incarnation,
		     uint8_t bytes[HANDSHAKE_BYTES])
{
	struct handshake hello = node_hello(node->config.self, peer, node->config.node_count);

	hello.incarnation = incarnation;
	handshake_encode(&hello, bytes);
	handshake_seal(bytes, NULL, overheard_secret, sizeof(overheard_secret));
}

/* Who says a node's hello again, and what it once proved, gets no link, and takes none from it. */
static void test_overheard_hello(void **state)
{
	struct node *pod = pod_make(3);
	uint8_t hello[HANDSHAKE_BYTES], answer[HANDSHAKE_BYTES],
		proof[HANDSHAKE_PROOF_BYTES] = { 0 };
	int fd[3];

	for (int i = 0; i < 3; i++) {
		pod[i].config.secret = overheard_secret;
		pod[i].config.secret_size = sizeof(overheard_secret);
		pod[i].config.handshake_ms = 10000;
	}
	node_start(&pod[0]);
	node_start(&pod[1]);
	node_wait_logged(&pod[0], "CONNECTED 1");
	node_wait_logged(&pod[1], "CONNECTED 0");
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
	node_wait_logged(&pod[0], "its hello was overheard from somebody else");
	node_start(&pod[2]);
	for (int i = 0; i < 3; i++)
		assert_int_equal(node_finish(&pod[i]), 0);
	assert_false(node_logged(&pod[0], "lost node 1"));
	check_all_channels(pod, 3);
	for (int i = 0; i < 3; i++)
		close(fd[i]);
	pod_end(pod, 3);
}

/* Nor does who answers with what node 0 has once answered to another hello. */
static void test_overheard_answer(void **state)
{
	for (int other = 0; other < 2; other++) {
		uint8_t hello[HANDSHAKE_BYTES], answer[HANDSHAKE_BYTES], old[HANDSHAKE_BYTES];
		struct node *pod = pod_make(2);
		int listener = listen_at(pod[0].peers[0].address), fd;

		pod[1].config.secret = overheard_secret;
		pod[1].config.secret_size = sizeof(overheard_secret);
		node_start(&pod[1]);
		fd = accept(listener, NULL, NULL);
		receive_whole(fd, hello);
		overhear(&pod[0], 1, 77, answer);
		overhear(&pod[1], 0, pod[1].mesh->incarnation, old);
		if (other)
			handshake_seal(answer, old, overheard_secret, sizeof(overheard_secret));
		assert_int_equal(send(fd, answer, sizeof(answer), MSG_NOSIGNAL), sizeof(answer));
		assert_int_equal(node_finish(&pod[1]), -ECONNREFUSED);
		assert_says(pod[1].why, "secret");
		close(fd);
		close(listener);
		pod_end(pod, 2);
	}
}

/* ---- Peers that we fake, byte by byte ---- */

static struct handshake other_version(uint16_t node, uint16_t peer)
{
	return (struct handshake){ .version = WIRE_VERSION + 3, .node = node, .peer = peer };
}

static void test_other_version(void **state)
{
	struct handshake hello = other_version(1, 0);
	struct node *pod = pod_make(2);
	uint8_t bytes[HANDSHAKE_BYTES + 100] = { 0 };
	struct handshake answer;
	char text[200];
	uint16_t length;
	int fd, listener;

	/* It dials us, with a hello longer than ours: it must be able to read our answer. */
	node_start(&pod[0]);
	fd = connect_to(pod[0].peers[0].address);
	handshake_encode(&hello, bytes);
	bytes[6] = (HANDSHAKE_BYTES + 100) & 0xff;
	assert_int_equal(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
	snprintf(text, sizeof(text), "runs Eagre protocol %u, this is %u: install the same version",
		 WIRE_VERSION + 3, WIRE_VERSION);
	node_wait_logged(&pod[0], "REFUSED 1: node 1 (beta, from 127.");
	node_wait_logged(&pod[0], text);
	assert_int_equal(recv(fd, bytes, HANDSHAKE_BYTES, MSG_WAITALL), HANDSHAKE_BYTES);
	assert_int_equal(handshake_decode_fixed(bytes, &answer, &length), 0);
	assert_int_equal(answer.verdict, HANDSHAKE_VERSION);
	assert_int_equal(recv(fd, bytes, 1, 0), 0);
	close(fd);
	node_cancel(&pod[0]);
	node_finish(&pod[0]);
	node_end(&pod[0]);

	/* We dial it. */
	listener = listen_at(pod[0].peers[0].address);
	node_start(&pod[1]);
	fd = accept(listener, NULL, NULL);
	hello = other_version(0, 1);
	hello.verdict = 200; /* some verdict of the future */
	handshake_encode(&hello, bytes);
	assert_int_equal(write(fd, bytes, HANDSHAKE_FIXED_BYTES), HANDSHAKE_FIXED_BYTES);
	assert_int_equal(node_finish(&pod[1]), -ECONNREFUSED);
	assert_says(pod[1].why, text);
	assert_says(pod[1].why, "node 0 (alpha, 127.");
	close(fd);
	close(listener);
	pod_end(pod, 2);
}

/*
 * A stranger that says it is a node of another version: no word on that node, nor a line for each; but who has not the
 * secret is told of all the same.
 */
static void test_other_version_encrypted(void **state)
{
	struct node *pod = pod_make(3);
	int fd[3];

	pod[0].config.secret = overheard_secret;
	pod[0].config.secret_size = sizeof(overheard_secret);
	pod[0].config.encrypt = true;
	node_start(&pod[0]);
	for (uint16_t i = 0; i < 3; i++) {
		struct handshake hello =
			i < 2 ? other_version((uint16_t)(i + 1), 0) : node_hello(1, 0, 3);
		uint8_t bytes[HANDSHAKE_BYTES];

		fd[i] = connect_to(pod[0].peers[0].address);
		handshake_encode(&hello, bytes);
		assert_int_equal(send(fd[i], bytes, sizeof(bytes), MSG_NOSIGNAL), sizeof(bytes));
		receive_whole(fd[i], bytes);
		assert_int_equal(bytes[12], i < 2 ? HANDSHAKE_VERSION : HANDSHAKE_SECRET);
		assert_int_equal(recv(fd[i], bytes, 1, 0), 0); /* it is judged */
	}
	node_cancel(&pod[0]);
	node_finish(&pod[0]);
	assert_true(node_logged(&pod[0], "REFUSED 1: node 1 (beta, from 127."));
	assert_false(node_logged(&pod[0], "REFUSED 2"));
	assert_true(node_logged(&pod[0], "does not know this pod's secret"));
	assert_true(pod[0].mesh->refused[HANDSHAKE_VERSION].until_ns > 0);
	close(fd[2]);
	for (int i = 0; i < 2; i++) {
		assert_string_equal(pod[0].mesh->peer[i + 1].trouble, "");
		assert_int_equal(pod[0].mesh->peer[i + 1].refused.until_ns, 0);
		close(fd[i]);
	}
	pod_end(pod, 3);
}

static void test_other_limits(void **state)
{
	struct node *pod = pod_make(2);
	struct handshake hello = node_hello(1, 0, 2);
	uint8_t bytes[HANDSHAKE_BYTES];
	int fd;

	hello.limits_digest = 5;
	snprintf(hello.build, sizeof(hello.build), "odd");
	node_start(&pod[0]);
	fd = connect_to(pod[0].peers[0].address);
	handshake_encode(&hello, bytes);
	handshake_seal(bytes, NULL, NULL, 0);
	assert_int_equal(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
	node_wait_logged(&pod[0], "(odd) was built with other limits than this node");
	close(fd);
	node_cancel(&pod[0]);
	node_finish(&pod[0]);
	pod_end(pod, 2);
}

/* Something else listens where node 0 should: it is waited for, and named when the time is over. */
static void test_no_eagre_node(void **state)
{
	static const char banner[] = "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n";
	struct node *pod = pod_make(2);
	int listener = listen_at(pod[0].peers[0].address), fd;

	pod[1].config.timeout_ms = 3000;
	node_start(&pod[1]);
	fd = accept(listener, NULL, NULL);
	assert_int_equal(write(fd, banner, sizeof(banner)), sizeof(banner));
	close(listener);
	assert_int_equal(node_finish(&pod[1]), -ETIMEDOUT);
	close(fd);
	pod_end(pod, 2);

	pod = pod_make(2);
	listener = listen_at(pod[0].peers[0].address);
	pod[1].config.timeout_ms = 3000;
	node_start(&pod[1]);
	assert_int_equal(node_finish(&pod[1]), -ETIMEDOUT);
	assert_says(pod[1].why, "does not answer the handshake");
	close(listener);
	pod_end(pod, 2);
}

/* ---- Strangers ---- */

struct knocker {
	const char *address;
	uint64_t seed;
	uint32_t pause_ms; /* it holds 40 of its connections: some 80 pauses each */
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
		test_sleep_ms(knocker->pause_ms);
	}
	for (int i = 0; i < 40; i++)
		close(held[i]);
	return NULL;
}

static void encrypt(struct node *pod, uint16_t count)
{
	for (uint16_t i = 0; i < count; i++) {
		pod[i].config.secret = overheard_secret;
		pod[i].config.secret_size = sizeof(overheard_secret);
		pod[i].config.encrypt = true;
	}
}

static void strangers_come(bool encrypted)
{
	struct node *pod = pod_make(3);
	struct knocker knocker[2] = { { .address = pod[0].peers[0].address, .seed = test_seed() },
				      { .address = pod[0].peers[1].address, .seed = 5 } };

	pod[0].config.handshake_ms = encrypted ? 1000 : 100;
	for (int i = 0; i < 2; i++) /* so that it is node 0 that ends a silent one */
		knocker[i].pause_ms = encrypted ? 40 : 4;
	if (encrypted)
		encrypt(pod, 3);
	node_start(&pod[0]);
	node_start(&pod[1]);
	for (int i = 0; i < 2; i++)
		pthread_create(&knocker[i].thread, NULL, knocker_main, &knocker[i]);
	node_wait_logged(&pod[0], "it is no Eagre node");
	node_wait_logged(&pod[0], "it did not finish its handshake in time");
	node_start(&pod[2]);
	for (int i = 0; i < 3; i++) {
		if (node_finish(&pod[i]) != 0)
			fail_msg("node %d: %s", i, pod[i].why);
	}
	/* After bring-up they are no danger, either. */
	for (unsigned i = 0;
	     i < 240 || (i < 4000 && !node_logged(&pod[0], " more like it lately)")); i++) {
		mesh_poll(pod[0].mesh);
		test_sleep_ms(5);
	}
	assert_true(node_logged(&pod[0], " more like it lately)"));
	check_all_channels(pod, 3);
	for (int i = 0; i < 2; i++) {
		atomic_store(&knocker[i].stop, true);
		pthread_join(knocker[i].thread, NULL);
	}
	pod_end(pod, 3);
}

static void test_strangers(void **state)
{
	strangers_come(false);
}

static void test_strangers_encrypted(void **state)
{
	strangers_come(true);
}

/* Lines about the same become rarer as long as they go on, and are told at once after a calm. */
static void test_quiet(void **state)
{
	struct mesh_quiet quiet = { 0 };
	uint64_t now_ns = 1000 * QUIET_NS, day_ns = 86400 * QUIET_NS;
	unsigned lines = 0;

	for (uint64_t ns = 0; ns < day_ns; ns += 100 * MS)
		lines += quiet_is_over(&quiet, now_ns + ns);
	assert_in_range(lines, 1000, 1500);
	assert_true(quiet.unsaid > 800000);
	assert_true(quiet_is_over(&quiet, now_ns + 2 * day_ns));
	assert_false(quiet_is_over(&quiet, now_ns + 2 * day_ns + QUIET_NS - 1));
	assert_true(quiet_is_over(&quiet, now_ns + 2 * day_ns + QUIET_NS));
	assert_false(quiet_is_over(&quiet, now_ns + 2 * day_ns + 2 * QUIET_NS));
}

static bool is_used_beyond(const struct mesh *mesh, uint32_t end)
{
	for (uint32_t i = end; i < mesh->connection_count; i++)
		if (mesh->connection[i].state != CONNECTION_IDLE)
			return true;
	return false;
}

/* Strangers have no more places in a pod that is complete than what is counted for them. */
static void check_spare_places(struct mesh *mesh, const char *address)
{
	uint32_t end = mesh->dialled_count + SPARE_PLACES;
	bool full = false;
	int fd[100];

	assert_true(end < mesh->connection_count);
	for (int i = 0; i < 1000 && is_used_beyond(mesh, end); i++) { /* since before it was */
		mesh_poll(mesh);
		test_sleep_ms(10);
	}
	for (int i = 0; i < 100; i++)
		fd[i] = connect_to(address);
	for (int i = 0; i < 1000 && !full; i++) {
		mesh_poll(mesh);
		full = mesh->connection[end - 1].state != CONNECTION_IDLE;
		test_sleep_ms(10);
	}
	for (int i = 0; i < 10; i++) /* EVENTS_MAX at a time are accepted */
		mesh_poll(mesh);
	assert_true(full);
	assert_false(is_used_beyond(mesh, end));
	for (int i = 0; i < 100; i++)
		close(fd[i]);
}

/* More silent connections than there are places: the oldest give way, the node gets in. */
static void crowd_comes(bool encrypted)
{
	struct node *pod = pod_make(2);
	int fd[200];

	if (encrypted)
		encrypt(pod, 2);
	pod[0].config.handshake_ms = 60000;
	node_start(&pod[0]);
	for (int i = 0; i < 200; i++)
		fd[i] = connect_to(pod[0].peers[0].address);
	node_start(&pod[1]);
	assert_int_equal(node_finish(&pod[0]), 0);
	assert_int_equal(node_finish(&pod[1]), 0);
	assert_true(node_logged(&pod[0], "too many handshakes at once"));
	check_all_channels(pod, 2);
	for (int i = 0; i < 200; i++)
		close(fd[i]);
	check_spare_places(pod[0].mesh, pod[0].peers[0].address);
	pod_end(pod, 2);
}

static void test_slow_loris(void **state)
{
	crowd_comes(false);
	crowd_comes(true);
}

/* A node that has been answered, and says its proof a moment later, holds its link for up already. */
static void test_crowd_before_proof(void **state)
{
	struct node *pod = pod_make(2);
	uint8_t hello[HANDSHAKE_BYTES], answer[HANDSHAKE_BYTES], proof[HANDSHAKE_PROOF_BYTES];
	int crowd[200], fd;

	pod[0].config.handshake_ms = 60000;
	pod[0].config.secret = overheard_secret;
	pod[0].config.secret_size = sizeof(overheard_secret);
	node_start(&pod[0]);
	node_wait_logged(&pod[0], "WAITING 1");
	fd = connect_to(pod[0].peers[0].address);
	overhear(&pod[1], 0, 7, hello);
	assert_int_equal(send(fd, hello, sizeof(hello), MSG_NOSIGNAL), sizeof(hello));
	receive_whole(fd, answer);
	assert_int_equal(answer[12], HANDSHAKE_OK);
	for (int i = 0; i < 200; i++)
		crowd[i] = connect_to(pod[0].peers[0].address);
	node_wait_logged(&pod[0], "too many handshakes at once");
	handshake_prove(hello, answer, overheard_secret, sizeof(overheard_secret), proof);
	assert_int_equal(send(fd, proof, sizeof(proof), MSG_NOSIGNAL), sizeof(proof));
	assert_int_equal(recv(fd, answer, 1, 0), 1); /* a heartbeat: the link stands */
	node_cancel(&pod[0]);
	node_finish(&pod[0]);
	for (int i = 0; i < 200; i++)
		close(crowd[i]);
	close(fd);
	pod_end(pod, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_secrets),
		cmocka_unit_test(test_stranger_with_digest),
		cmocka_unit_test(test_secrets_encrypted),
		cmocka_unit_test(test_overheard_hello),
		cmocka_unit_test(test_overheard_answer),
		cmocka_unit_test(test_other_version),
		cmocka_unit_test(test_other_version_encrypted),
		cmocka_unit_test(test_other_limits),
		cmocka_unit_test(test_no_eagre_node),
		cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_strangers_encrypted),
		cmocka_unit_test(test_quiet),
		cmocka_unit_test(test_slow_loris),
		cmocka_unit_test(test_crowd_before_proof),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
