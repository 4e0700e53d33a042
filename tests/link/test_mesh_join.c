// SPDX-License-Identifier: Apache-2.0
/*
 * Nodes that join a mesh which is complete: they link with all who expect them, in the clear and
 * encrypted, one after the other and at once; who is not expected, or not as he says he is, does
 * not; who dies on the way leaves nothing behind; and a number that was forgotten is the next one's.
 *
 * Members are polled by the test's thread, as a node's control thread does it; who joins is a
 * thread of its own.
 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "link/mesh.h"
#include "link/mesh_state.h"
#include "tests/link/mesh_pod.h"
#include "tests/link/support.h"
#include "wire/handshake.h"

static const char secret[] = "no tide comes twice";

/* Of numbers that exist, those in `members` are there from the start. */
struct pod {
	struct node *node;
	uint16_t count;
	unsigned members; /* a bit each: polled by us */
	uint64_t beat_ns;
	uint64_t longest_ns[2]; /* turn; the one in which somebody was linked */
};

static bool is_member(const struct pod *pod, uint16_t number)
{
	return pod->members >> number & 1;
}

static struct pod start(uint16_t count, unsigned members, bool encrypt)
{
	struct pod pod = { .node = pod_make(count), .count = count, .members = members };

	for (uint16_t i = 0; i < count; i++) {
		for (uint16_t k = 0; k < count; k++)
			if (k != i && !is_member(&pod, k))
				pod.node[i].peers[k].name = NULL;
		pod.node[i].config.handshake_ms = 10000;
		pod.node[i].config.encrypt = encrypt;
		pod.node[i].config.secret = secret;
		pod.node[i].config.secret_size = encrypt ? sizeof(secret) : 0;
	}
	for (uint16_t i = 0; i < count; i++)
		if (is_member(&pod, i))
			node_start(&pod.node[i]);
	for (uint16_t i = 0; i < count; i++)
		if (is_member(&pod, i))
			assert_int_equal(node_finish(&pod.node[i]), 0);
	return pod;
}

static void end(struct pod *pod)
{
	pod_end(pod->node, pod->count);
}

/* Of this thread: how long it runs, whatever else the machine does. */
static uint64_t cpu_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* One turn of each member. */
static void turn(struct pod *pod)
{
	static const struct control_message beat = { .type = CONTROL_HEARTBEAT };
	bool beats = test_now_ns() >= pod->beat_ns;

	if (beats)
		pod->beat_ns = test_now_ns() + 500000000;
	for (uint16_t i = 0; i < pod->count; i++) {
		uint64_t begin_ns = cpu_ns(), took_ns;
		unsigned linked = pod->node[i].linked_count;

		if (!is_member(pod, i))
			continue;
		mesh_poll(pod->node[i].mesh);
		took_ns = cpu_ns() - begin_ns;
		linked = pod->node[i].linked_count - linked;
		if (took_ns > pod->longest_ns[linked])
			pod->longest_ns[linked] = took_ns;
		if (beats)
			mesh_tell(pod->node[i].mesh, &beat, NODE_NONE);
	}
	test_sleep_ms(1);
}

static void wait_logged(struct pod *pod, uint16_t number, const char *text)
{
	for (unsigned i = 0; i < 20000 && !node_logged(&pod->node[number], text); i++)
		turn(pod);
	node_wait_logged(&pod->node[number], text);
}

static void forget_log(struct pod *pod, uint16_t number)
{
	pthread_mutex_lock(&pod->node[number].lock);
	pod->node[number].log[0] = '\0';
	pthread_mutex_unlock(&pod->node[number].lock);
}

static void expect_at(struct pod *pod, uint16_t at, uint16_t number, uint64_t join)
{
	const struct mesh_node node = { node_names[number], pod->node[at].peers[number].address };
	char why[MESH_WHY_MAX] = "";

	assert_int_equal(mesh_expect(pod->node[at].mesh, number, &node, join, why, sizeof(why)), 0);
}

static void expect(struct pod *pod, uint16_t number, uint64_t join)
{
	for (uint16_t i = 0; i < pod->count; i++)
		if (is_member(pod, i))
			expect_at(pod, i, number, join);
}

static void forget(struct pod *pod, uint16_t number)
{
	for (uint16_t i = 0; i < pod->count; i++) {
		if (i == number || !is_member(pod, i))
			continue;
		mesh_forget(pod->node[i].mesh, number);
		pod->node[i].linked[number] = 0;
	}
}

/* It has been given the list of members. */
static void begin(struct pod *pod, uint16_t number, uint64_t join)
{
	struct node *node = &pod->node[number];

	for (uint16_t i = 0; i < pod->count; i++)
		node->peers[i].name = i == number || is_member(pod, i) ? node_names[i] : NULL;
	node->config.join = join;
	node_start(node);
}

static int result(struct pod *pod, uint16_t number)
{
	while (pthread_tryjoin_np(pod->node[number].thread, NULL) == EBUSY)
		turn(pod);
	return pod->node[number].result;
}

/* All have it, and it has all. */
static void finish(struct pod *pod, uint16_t number)
{
	if (result(pod, number) != 0)
		fail_msg("node %u: %s", number, pod->node[number].why);
	for (uint16_t i = 0; i < pod->count; i++) {
		if (!is_member(pod, i))
			continue;
		while (pod->node[i].linked[number] == 0)
			turn(pod);
		assert_int_equal(pod->node[i].linked[number], 1);
	}
	for (uint16_t i = 0; i < pod->count; i++) {
		if (!is_member(pod, i))
			continue;
		check_channels(pod->node, number, i);
		check_channels(pod->node, i, number);
	}
}

static void join(struct pod *pod, uint16_t number, uint64_t nonce)
{
	begin(pod, number, nonce);
	finish(pod, number);
}

static void leave(struct pod *pod, uint16_t number)
{
	node_end(&pod->node[number]);
	forget(pod, number);
}

static void assert_refused(struct pod *pod, uint16_t number, uint64_t nonce, const char *text)
{
	begin(pod, number, nonce);
	assert_int_equal(result(pod, number), -ECONNREFUSED);
	assert_says(pod->node[number].why, text);
	node_end(&pod->node[number]);
}

/* One after the other, each dialling all that are there, of whatever number; then all talk. */
static void late(bool encrypt)
{
	struct pod pod = start(5, 1u << 0 | 1u << 3, encrypt);
	static const uint16_t joiners[] = { 1, 4, 2 };

	for (unsigned i = 0; i < 3; i++) {
		expect(&pod, joiners[i], 100 + i);
		join(&pod, joiners[i], 100 + i);
		pod.members |= 1u << joiners[i];
	}
	check_all_channels(pod.node, 5);
	end(&pod);
}

static void test_late(void **state)
{
	late(false);
}

static void test_late_encrypted(void **state)
{
	late(true);
}

/* As many links as a node can have: what a turn of the members takes. Said, not judged. */
static void test_turns(void **state)
{
	struct pod pod = { .node = pod_make(3), .count = 3, .members = 3 };

	for (uint16_t i = 0; i < 3; i++) {
		pod.node[i].config.secret = secret;
		pod.node[i].config.secret_size = sizeof(secret);
		pod.node[i].config.encrypt = true;
		pod.node[i].config.shard_count = SHARDS_MAX;
		pod.node[i].config.handshake_ms = 10000;
	}
	for (uint16_t i = 0; i < 2; i++) {
		pod.node[i].peers[2].name = NULL;
		node_start(&pod.node[i]);
	}
	for (uint16_t i = 0; i < 2; i++)
		assert_int_equal(node_finish(&pod.node[i]), 0);
	expect(&pod, 2, 1);
	join(&pod, 2, 1);
	print_message("longest turn of a member: %u us of CPU; that which makes channels: %u\n",
		      (unsigned)(pod.longest_ns[0] / 1000), (unsigned)(pod.longest_ns[1] / 1000));
	end(&pod);
}

static void test_two_at_once(void **state)
{
	for (int encrypt = 0; encrypt < 2; encrypt++) {
		struct pod pod = start(6, 3, encrypt);

		expect(&pod, 2, 7);
		expect(&pod, 4, 8);
		begin(&pod, 4, 8);
		begin(&pod, 2, 7);
		finish(&pod, 2);
		finish(&pod, 4);
		end(&pod);
	}
}

static void test_not_expected(void **state)
{
	for (int encrypt = 0; encrypt < 2; encrypt++) {
		struct pod pod = start(4, 3, encrypt);

		assert_refused(&pod, 2, 55, "does not expect this node to join as node 2");
		wait_logged(&pod, 0, "wants to join as node 2, which is not expected");
		expect(&pod, 2, 55);
		assert_refused(&pod, 2, 54, "does not expect this node to join as node 2");
		assert_refused(&pod, 3, 55, "does not expect this node to join as node 3");
		/* Of the whole file, or so it thinks: that pod is none that it can be part of. */
		assert_refused(&pod, 3, 0, "has no other node 3 in its configuration");
		pod.node[2].config.config_digest++;
		assert_refused(&pod, 2, 55, "another configuration");
		pod.node[2].config.config_digest--;
		assert_int_equal(pod.node[0].linked[2], 0);
		join(&pod, 2, 55);
		end(&pod);
	}
}

/* Who says that it is a member, or joins twice. */
static void test_taken(void **state)
{
	struct pod pod = start(3, 1, false);
	struct node *second = calloc(1, sizeof(*second));
	struct node *first = pod.node;

	expect(&pod, 1, 9);
	join(&pod, 1, 9);
	for (unsigned i = 0; i < 3; i++) {
		static const uint64_t says[] = { 9, 10, 0 };
		static const char *const hears[] = { "is linked with another process",
						     "does not expect this node to join",
						     "does not expect this node to join" };

		*second = (struct node){ .config = first[1].config };
		second->config.node = first[1].peers;
		second->config.ctx = second;
		second->config.join = says[i];
		/* Where node 2 would be: node 1's address is in use. */
		memcpy(second->peers, first[1].peers, sizeof(second->peers));
		second->peers[1].address = first[2].peers[2].address;
		second->config.node = second->peers;
		second->cancel_fd = -1;
		pthread_mutex_init(&second->lock, NULL);
		node_start(second);
		while (pthread_tryjoin_np(second->thread, NULL) == EBUSY)
			turn(&pod);
		assert_int_equal(second->result, -ECONNREFUSED);
		assert_says(second->why, hears[i]);
		node_end(second);
	}
	check_channels(pod.node, 0, 1);
	free(second);
	end(&pod);
}

static void test_bad_expectations(void **state)
{
	struct pod pod = start(4, 3, false);
	struct mesh *mesh = pod.node[0].mesh;
	struct mesh_node node = { "gamma", pod.node[0].peers[2].address };
	char why[MESH_WHY_MAX];

	assert_int_equal(mesh_expect(mesh, 4, &node, 1, why, sizeof(why)), -EINVAL);
	assert_int_equal(mesh_expect(mesh, 2, &node, 0, why, sizeof(why)), -EINVAL);
	assert_int_equal(mesh_expect(mesh, 1, &node, 1, why, sizeof(why)), -EEXIST);
	assert_int_equal(mesh_expect(mesh, 0, &node, 1, why, sizeof(why)), -EEXIST);
	node.address = "localhost:7000";
	assert_int_equal(mesh_expect(mesh, 2, &node, 1, why, sizeof(why)), -EINVAL);
	node.address = pod.node[0].peers[1].address;
	assert_int_equal(mesh_expect(mesh, 2, &node, 1, why, sizeof(why)), -EINVAL);
	assert_says(why, "have the same address");
	node = (struct mesh_node){ "a\nb", pod.node[0].peers[2].address };
	assert_int_equal(mesh_expect(mesh, 2, &node, 1, why, sizeof(why)), -EINVAL);
	mesh_forget(mesh, 2); /* who is not there */
	expect(&pod, 2, 1);
	join(&pod, 2, 1);
	end(&pod);
}

/* ---- Who joins by hand ---- */

#define HAND 2 /* its number */

/* Up to so many bytes, with the members at work. */
static size_t receive_with_turns(struct pod *pod, int fd, void *bytes, size_t size)
{
	size_t got = 0;

	for (unsigned i = 0; i < 20000 && got < size; i++) {
		ssize_t n = recv(fd, (char *)bytes + got, size - got, MSG_DONTWAIT);

		if (n == 0 || (n < 0 && errno != EAGAIN))
			break;
		got += n > 0 ? (size_t)n : 0;
		turn(pod);
	}
	return got;
}

struct bytes_said {
	unsigned hello, proof;
};

static int dial(struct pod *pod, uint16_t purpose, uint64_t nonce, struct bytes_said say,
		uint8_t ret_answer[HANDSHAKE_BYTES])
{
	struct handshake hello = node_hello(HAND, 0, pod->count);
	uint8_t asked[HANDSHAKE_BYTES], proof[HANDSHAKE_PROOF_BYTES];
	int fd = connect_to(pod->node[0].peers[0].address);

	hello.purpose = purpose;
	hello.join = nonce;
	handshake_encode(&hello, asked);
	handshake_seal(asked, NULL, NULL, 0);
	assert_int_equal(send(fd, asked, say.hello, MSG_NOSIGNAL), say.hello);
	if (say.hello < HANDSHAKE_BYTES)
		return fd;
	assert_int_equal(receive_with_turns(pod, fd, ret_answer, HANDSHAKE_BYTES), HANDSHAKE_BYTES);
	handshake_prove(asked, ret_answer, NULL, 0, proof);
	assert_int_equal(send(fd, proof, say.proof, MSG_NOSIGNAL), say.proof);
	return fd;
}

static void some_turns(struct pod *pod)
{
	for (unsigned i = 0; i < 10; i++)
		turn(pod);
}

/* It dies after so many links, and words of the next: whoever is next by that number has it. */
static void test_dies_in_each_phase(void **state)
{
	static const uint16_t purposes[] = { HANDSHAKE_CONTROL, HANDSHAKE_SHARD(0),
					     HANDSHAKE_SHARD(1), HANDSHAKE_IO };
	static const struct bytes_said words[] = {
		{ 0, 0 }, { 8, 0 }, { 100, 0 }, { 256, 0 }, { 256, 31 }
	};
	const struct bytes_said whole = { HANDSHAKE_BYTES, HANDSHAKE_PROOF_BYTES };
	struct pod pod = start(4, 1, false);
	uint64_t nonce = 1000;

	for (unsigned links = 0; links <= 4; links++) {
		for (unsigned w = 0; w < 5; w++, nonce++) {
			bool all = links == 4;
			uint8_t answer[HANDSHAKE_BYTES];
			int fd[5];

			expect(&pod, HAND, nonce);
			for (unsigned i = 0; i < links; i++) {
				fd[i] = dial(&pod, purposes[i], nonce, whole, answer);
				assert_int_equal(answer[12], HANDSHAKE_OK);
				while (pod.node[0].mesh->peer[HAND].up_count <= i)
					turn(&pod);
			}
			assert_int_equal(pod.node[0].linked[HAND], all);
			assert_true((mesh_control(pod.node[0].mesh, HAND) != NULL) == all);
			fd[links] = dial(&pod, purposes[links % 4], nonce, words[w], answer);
			if (words[w].hello == HANDSHAKE_BYTES)
				assert_int_equal(answer[12],
						 all ? HANDSHAKE_DUPLICATE : HANDSHAKE_OK);
			some_turns(&pod);
			forget_log(&pod, 0);
			for (unsigned i = 0; i <= links; i++)
				close(fd[w % 2 ? links - i : i]);
			if (links > 0 && !all)
				wait_logged(&pod, 0, "lost node 2 (gamma");
			some_turns(&pod);
			if (all) /* its users see its end, and forget it */
				forget(&pod, HAND), expect(&pod, HAND, nonce);
			join(&pod, HAND, nonce);
			leave(&pod, HAND);
		}
	}
	end(&pod);
}

/* One link ends while others stand: all go. And a forgotten one's are closed, and stay so. */
static void test_forgotten_on_its_way(void **state)
{
	const struct bytes_said whole = { HANDSHAKE_BYTES, HANDSHAKE_PROOF_BYTES };
	struct pod pod = start(3, 1, false);
	uint8_t answer[HANDSHAKE_BYTES], byte;
	int fd[3];

	for (unsigned forgets = 0; forgets < 2; forgets++) {
		expect(&pod, HAND, 5);
		fd[0] = dial(&pod, HANDSHAKE_CONTROL, 5, whole, answer);
		fd[1] = dial(&pod, HANDSHAKE_SHARD(0), 5, whole, answer);
		while (pod.node[0].mesh->peer[HAND].up_count < 2)
			turn(&pod);
		/* A third has been answered, and has not proven itself yet. */
		fd[2] = dial(&pod, HANDSHAKE_SHARD(1), 5, (struct bytes_said){ HANDSHAKE_BYTES, 0 },
			     answer);
		if (forgets)
			forget(&pod, HAND);
		else
			close(fd[1]);
		while (receive_with_turns(&pod, fd[0], &byte, 1) == 1)
			continue; /* heartbeats, then the end */
		if (forgets)
			assert_int_equal(receive_with_turns(&pod, fd[1], &byte, 1), 0);
		else
			forget(&pod, HAND);
		expect(&pod, HAND, 6);
		close(fd[0]);
		close(fd[2]);
		if (forgets)
			close(fd[1]);
		fd[0] = dial(&pod, HANDSHAKE_CONTROL, 5, whole, answer);
		assert_int_equal(answer[12], HANDSHAKE_UNEXPECTED);
		close(fd[0]);
		join(&pod, HAND, 6);
		leave(&pod, HAND);
	}
	end(&pod);
}

/* Who is forgotten takes nothing along that is the next one's: places of its links are used anew. */
static void test_forgets_one(void **state)
{
	const struct bytes_said whole = { HANDSHAKE_BYTES, HANDSHAKE_PROOF_BYTES };
	struct pod pod = start(4, 1, false);
	uint8_t answer[HANDSHAKE_BYTES], beat[16];
	int fd[2];

	expect(&pod, 3, 5);
	join(&pod, 3, 5);
	expect(&pod, HAND, 6);
	fd[0] = dial(&pod, HANDSHAKE_CONTROL, 6, whole, answer);
	fd[1] = dial(&pod, HANDSHAKE_SHARD(0), 6, whole, answer);
	while (pod.node[0].mesh->peer[HAND].up_count < 2)
		turn(&pod);
	leave(&pod, 3);
	assert_int_equal(pod.node[0].mesh->peer[HAND].up_count, 2);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(receive_with_turns(&pod, fd[0], beat, 16), 16);
	assert_int_equal(recv(fd[1], beat, 1, MSG_DONTWAIT), -1);
	close(fd[0]);
	close(fd[1]);
	end(&pod);
}

/* While others keep it waiting it hears from who it is linked with; and only that. */
static void test_heartbeats(void **state)
{
	const struct bytes_said whole = { HANDSHAKE_BYTES, HANDSHAKE_PROOF_BYTES };
	const struct control_message beat = { .type = CONTROL_HEARTBEAT };
	struct pod pod = start(3, 1, false);
	uint8_t answer[HANDSHAKE_BYTES], beats[4 * 16];
	int fd;

	expect(&pod, HAND, 5);
	fd = dial(&pod, HANDSHAKE_CONTROL, 5, whole, answer);
	while (pod.node[0].mesh->peer[HAND].up_count < 1)
		turn(&pod);
	for (unsigned i = 0; i < 10; i++)
		mesh_tell(pod.node[0].mesh, &beat, NODE_NONE);
	assert_int_equal(receive_with_turns(&pod, fd, beats, 16), 16);
	some_turns(&pod);
	assert_true(recv(fd, beats, sizeof(beats), MSG_DONTWAIT) <= 16); /* not those ten */
	assert_int_equal(receive_with_turns(&pod, fd, beats, 32), 32);
	close(fd);
	end(&pod);
}

/* A crowd at the door does not keep out who is expected. */
static void test_crowd(void **state)
{
	struct pod pod = start(3, 3, false);
	int fd[80];

	for (unsigned i = 0; i < 80; i++)
		fd[i] = connect_to(pod.node[0].peers[0].address);
	for (unsigned i = 0; i < 100; i++)
		turn(&pod);
	expect(&pod, HAND, 3);
	join(&pod, HAND, 3);
	for (unsigned i = 0; i < 80; i++)
		close(fd[i]);
	end(&pod);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_late),
		cmocka_unit_test(test_late_encrypted),
		cmocka_unit_test(test_turns),
		cmocka_unit_test(test_two_at_once),
		cmocka_unit_test(test_not_expected),
		cmocka_unit_test(test_taken),
		cmocka_unit_test(test_bad_expectations),
		cmocka_unit_test(test_dies_in_each_phase),
		cmocka_unit_test(test_forgotten_on_its_way),
		cmocka_unit_test(test_forgets_one),
		cmocka_unit_test(test_heartbeats),
		cmocka_unit_test(test_crowd),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
