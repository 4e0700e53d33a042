/* SPDX-License-Identifier: Apache-2.0 */
/* Who may say what to whom, and which pongs count. */
#include <stdlib.h>
#include <string.h>

#include "node/control_rules.h"
#include "tests/test.h"

/* vCPUs 0 and 1 on node 0, 2 on node 1, 3 on node 2. */
static const char pod_text[] = "[node a]\naddress=h:1\nmemory=1G\nvcpus=2\n"
			       "[node b]\naddress=h:2\nmemory=1G\nvcpus=1\n"
			       "[node c]\naddress=h:3\nmemory=1G\nvcpus=1\n";
static struct pod_config *config;

static bool allowed(uint16_t from, uint16_t to, uint8_t type)
{
	struct control_message msg = { .type = type, .src = from };
	return control_rules_allow(config, to, &msg);
}

static void test_roles(void **state)
{
	static const uint8_t to_first[] = { CONTROL_CLOCK_PING, CONTROL_FEATURES, CONTROL_READY };
	static const uint8_t from_first[] = { CONTROL_CLOCK_PONG, CONTROL_START, CONTROL_RUN };
	static const uint8_t any[] = { CONTROL_HEARTBEAT, CONTROL_STATS_REQUEST,
				       CONTROL_STATS_REPLY, CONTROL_END };
	for (size_t i = 0; i < sizeof(to_first); i++) {
		assert_true(allowed(1, 0, to_first[i]));
		assert_false(allowed(0, 1, to_first[i]));
		assert_false(allowed(2, 1, to_first[i]));
	}
	for (size_t i = 0; i < sizeof(from_first); i++) {
		assert_true(allowed(0, 1, from_first[i]));
		assert_false(allowed(1, 0, from_first[i]));
		assert_false(allowed(2, 1, from_first[i]));
	}
	for (size_t i = 0; i < sizeof(any); i++)
		assert_true(allowed(2, 1, any[i]) && allowed(0, 2, any[i]) &&
			    allowed(1, 0, any[i]));
}

static bool interrupt(uint16_t from, uint16_t to, uint16_t from_vcpu, uint16_t first, uint16_t last)
{
	struct control_message msg = { .type = CONTROL_INTERRUPT, .src = from };
	msg.interrupt.from_vcpu = from_vcpu;
	for (uint16_t v = first; v <= last; v++)
		msg.interrupt.vcpu[msg.interrupt.vcpu_count++] = v;
	return control_rules_allow(config, to, &msg);
}

static void test_interrupts(void **state)
{
	assert_true(interrupt(1, 0, 2, 0, 1));
	assert_true(interrupt(0, 2, 1, 3, 3));
	assert_true(interrupt(0, 1, NODE_NONE, 2, 2));
	assert_false(interrupt(1, 0, NODE_NONE, 0, 0)); /* devices are on node 0 */
	assert_false(interrupt(1, 0, 3, 0, 0));		/* another node's vCPU */
	assert_false(interrupt(1, 0, 2, 1, 2));		/* not all of them ours */
	assert_false(interrupt(1, 0, 9, 0, 0));
	assert_false(interrupt(1, 0, 2, 9, 9));
}

static void test_accesses(void **state)
{
	struct control_message msg = { .type = CONTROL_EOI, .src = 1, .eoi = { .vcpu = 2 } };
	assert_true(control_rules_allow(config, 0, &msg));
	assert_false(control_rules_allow(config, 2, &msg));
	msg.eoi.vcpu = 3;
	assert_false(control_rules_allow(config, 0, &msg));
	msg = (struct control_message){ .type = CONTROL_IO_REQUEST, .src = 1 };
	msg.io_request.vcpu = 2;
	assert_true(control_rules_allow(config, 0, &msg));
	msg.io_request.vcpu = 0;
	assert_false(control_rules_allow(config, 0, &msg));
	msg = (struct control_message){ .type = CONTROL_IO_REPLY, .src = 0 };
	msg.io_reply.vcpu = 2;
	assert_true(control_rules_allow(config, 1, &msg));
	assert_false(control_rules_allow(config, 2, &msg));
	msg.src = 2;
	assert_false(control_rules_allow(config, 1, &msg));
}

static bool answers(struct control_pings *pings, uint64_t id, uint64_t sent_ns)
{
	struct control_clock_pong pong = { .id = id, .sent_ns = sent_ns };
	return control_pings_answer(pings, &pong);
}

static void test_pongs(void **state)
{
	struct control_pings pings = { 0 };
	assert_false(answers(&pings, 0, 0));
	for (uint64_t i = 0; i < CONTROL_PINGS + 2; i++)
		assert_int_equal(control_pings_new(&pings, 1000 + i).id, i);
	assert_false(answers(&pings, 1, 1001)); /* long ago */
	assert_true(answers(&pings, 2, 1002));
	assert_false(answers(&pings, 2, 1002)); /* once */
	assert_false(answers(&pings, 3, 1004)); /* never said so */
	assert_true(answers(&pings, 3, 1003));
	assert_false(answers(&pings, CONTROL_PINGS + 2, 1000));
	assert_false(answers(&pings, UINT64_MAX, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_roles),
		cmocka_unit_test(test_interrupts),
		cmocka_unit_test(test_accesses),
		cmocka_unit_test(test_pongs),
	};
	char why[256];

	if (pod_config_parse(pod_text, "pod.conf", &config, why, sizeof(why)) < 0)
		return 2;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
