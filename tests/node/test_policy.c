/* SPDX-License-Identifier: Apache-2.0 */
/* The pod's policy and pins: what a user is answered, and what nodes tell each other. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "node/placer.h"
#include "tests/link/support.h"
#include "tests/node/half.h"
#include "tests/test.h"

static struct control_message msg;

static void expect(char *answer, const char *json)
{
	assert_non_null(answer);
	assert_string_equal(answer, json);
	free(answer);
}

static void create(struct half *half, uint16_t self)
{
	half_create(half, self);
	assert_int_equal(policy_create(half->node, NULL, 0), 0);
}

/* Node 0 decides at once, and tells the others. */
static void test_of_node_0(void **state)
{
	struct half half;
	create(&half, 0);
	expect(policy_request(half.node, ""), "{\"done\":\"pages\"}");
	expect(policy_request(half.node, "base"), "{\"error\":\"the guest does not run yet\"}");
	atomic_store(&half.node->run_ns, 1);
	expect(policy_request(half.node, "base"), "{\"done\":\"the policy is base now\"}");
	assert_true(half_peer_hear(&half, CONTROL_POLICY, &msg, HALF_PATIENCE_MS));
	assert_int_equal(msg.policy.policy, PLACEMENT_BASE);
	expect(policy_request(half.node, ""), "{\"done\":\"base\"}");
	expect(policy_request(half.node, "bases"),
	       "{\"error\":\"there is no policy 'bases': it must be pages, vcpus, base, learned or "
	       "pinned\"}");
	expect(policy_pin_request(half.node, "2", true),
	       "{\"done\":\"vCPU 2 stays where it is now\"}");
	assert_true(half_peer_hear(&half, CONTROL_PIN, &msg, HALF_PATIENCE_MS));
	assert_true(msg.pin.vcpu == 2 && msg.pin.pinned);
	expect(policy_pin_request(half.node, "2", false), "{\"done\":\"vCPU 2 may move again\"}");
	assert_true(half_peer_hear(&half, CONTROL_PIN, &msg, HALF_PATIENCE_MS));
	assert_false(msg.pin.pinned || placer_pinned(half.node->placer, 2));
	expect(policy_pin_request(half.node, "3", true),
	       "{\"error\":\"no vCPU 3 in this pod: they are 0 to 2\"}");
	expect(policy_pin_request(half.node, "", true),
	       "{\"error\":\"no vCPU  in this pod: they are 0 to 2\"}");
}

/* What another node wants is everybody's, and his, when node 0 has said so. */
static void test_by_way_of_node_0(void **state)
{
	struct control_message word = { .type = CONTROL_POLICY, .src = 1 };
	struct half half;
	create(&half, 0);
	word.policy.policy = PLACEMENT_VCPUS;
	policy_message(half.node, &word);
	assert_int_equal(placer_policy(half.node->placer), PLACEMENT_VCPUS);
	assert_true(half_peer_hear(&half, CONTROL_POLICY, &msg, HALF_PATIENCE_MS));
	assert_int_equal(msg.policy.policy, PLACEMENT_VCPUS);
}

/* Who changes pins without end is told so, and what he wanted is not done; a moment later it is. */
static void test_users_flood(void **state)
{
	static const char busy[] =
		"{\"error\":\"policy and pins change too often: try again in a second\"}";
	struct half half;
	uint32_t done = 0;
	create(&half, 0);
	atomic_store(&half.node->run_ns, 1);
	for (uint32_t i = 0; i < 100000; i++, done++) {
		bool pin = i % 2 == 0;
		char *answer = policy_pin_request(half.node, "1", pin);
		if (strcmp(answer, busy) == 0) {
			assert_true(placer_pinned(half.node->placer, 1) == !pin);
			free(answer);
			break;
		}
		free(answer);
	}
	assert_in_range(done, 100, 50000);
	test_sleep_ms(300);
	expect(policy_pin_request(half.node, "1", true),
	       "{\"done\":\"vCPU 1 stays where it is now\"}");
}

/* A node that lets more through is a liar; as many as a node may send are none, held up or not. */
static void test_a_node_floods(void **state)
{
	struct control_message word = { .type = CONTROL_PIN, .src = 1, .pin = { .vcpu = 1 } };
	struct half half;
	const char *lie = NULL;
	uint32_t count = 0;
	create(&half, 0);
	for (; !lie && count < 1000000; count++) {
		lie = policy_message(half.node, &word);
		while (half_peer_hear(&half, CONTROL_PIN, &msg, 0))
			;
	}
	assert_non_null(lie);
	assert_string_equal(lie, "again and again");
	assert_in_range(count, 500, 500000);
}

static void *answer_main(void *arg)
{
	struct half *half = arg;
	static struct control_message asked;
	if (half_peer_hear(half, CONTROL_POLICY, &asked, HALF_PATIENCE_MS)) {
		asked.src = 0;
		policy_message(half->node, &asked);
	}
	return NULL;
}

static void test_of_another_node(void **state)
{
	struct control_message word = { .type = CONTROL_PIN, .src = 0 };
	struct half half;
	pthread_t thread;
	create(&half, 1);
	atomic_store(&half.node->run_ns, 1);
	pthread_create(&thread, NULL, answer_main, &half);
	expect(policy_request(half.node, "learned"), "{\"done\":\"the policy is learned now\"}");
	pthread_join(thread, NULL);
	word.pin = (struct control_pin){ .vcpu = 1, .pinned = 1 };
	policy_message(half.node, &word);
	assert_true(placer_pinned(half.node->placer, 1));
	/* Node 0 says nothing. */
	expect(policy_request(half.node, "pages"),
	       "{\"error\":\"the pod's first node does not answer: try again\"}");
	assert_int_equal(placer_policy(half.node->placer), PLACEMENT_LEARNED);
}

static void *end_main(void *arg)
{
	struct half *half = arg;
	test_sleep_ms(50);
	node_end_with(half->node, CONTROL_END_USER, 0, "ended by the test");
	return NULL;
}

/* The node's end waits for who still waits for node 0. */
static void test_end_while_waiting(void **state)
{
	struct half half;
	pthread_t thread;
	create(&half, 1);
	atomic_store(&half.node->run_ns, 1);
	pthread_create(&thread, NULL, end_main, &half);
	expect(policy_request(half.node, "base"), "{\"error\":\"the pod has ended\"}");
	pthread_join(thread, NULL);
}

static pthread_barrier_t both;

#define ROUNDS 3000

static void *words_main(void *arg)
{
	struct half *half = arg;
	static struct control_message word = { .type = CONTROL_POLICY, .src = 1 };
	for (int i = 0; i < ROUNDS; i++) {
		pthread_barrier_wait(&both);
		word.policy.policy = PLACEMENT_VCPUS;
		policy_message(half->node, &word);
		pthread_barrier_wait(&both);
	}
	return NULL;
}

/* Two users at once, on two nodes: the last word is the same for all. */
static void test_words_at_once(void **state)
{
	static struct control_message mine = { .type = CONTROL_POLICY, .src = 1 };
	uint32_t other = 0;
	struct half half;
	pthread_t thread;
	create(&half, 0);
	pthread_barrier_init(&both, NULL, 2);
	pthread_create(&thread, NULL, words_main, &half);
	for (int i = 0; i < ROUNDS; i++) {
		uint8_t last = 0;
		atomic_store(&half.node->word_ns[1], 0); /* it is not about how many */
		pthread_barrier_wait(&both);
		mine.policy.policy = PLACEMENT_BASE;
		policy_message(half.node, &mine);
		pthread_barrier_wait(&both);
		for (int k = 0; k < 2; k++) {
			assert_true(half_peer_hear(&half, CONTROL_POLICY, &msg, HALF_PATIENCE_MS));
			last = msg.policy.policy;
		}
		other += last != placer_policy(half.node->placer);
	}
	pthread_join(thread, NULL);
	assert_int_equal(other, 0);
}

static void test_load(void **state)
{
	struct half half;
	create(&half, 0);
	assert_int_equal(policy_start(half.node), 0);
	assert_false(half_peer_hear(&half, CONTROL_LOAD, &msg, 50));
	placer_set_policy(half.node->placer, PLACEMENT_BASE);
	assert_true(half_peer_hear(&half, CONTROL_LOAD, &msg, HALF_PATIENCE_MS));
	assert_true(msg.load.cores > 0 && msg.load.awake == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_users_flood),	cmocka_unit_test(test_a_node_floods),
		cmocka_unit_test(test_of_node_0),	cmocka_unit_test(test_by_way_of_node_0),
		cmocka_unit_test(test_of_another_node), cmocka_unit_test(test_end_while_waiting),
		cmocka_unit_test(test_words_at_once),	cmocka_unit_test(test_load),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
