/* SPDX-License-Identifier: Apache-2.0 */
/* Node 0's side of the start: what it takes from a peer, what it refuses and why, and its phases. */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "tests/link/support.h"
#include "tests/node/half.h"
#include "tests/test.h"

static struct control_message msg;

static void make_offer(struct cpuid_set *ret_offer)
{
	static const struct cpuid_leaf raw[] = {
		{ .function = 0,
		  .eax = 0xd,
		  .ebx = 0x68747541,
		  .ecx = 0x444d4163,
		  .edx = 0x69746e65 },
		{ .function = 1, .eax = 0x800f12, .ecx = 0x00f83203, .edx = 0x078bbb7f },
		{ .function = 0x80000001, .ecx = 1, .edx = 0x2fd3bb7f },
		{ .function = 0x80000008, .eax = 48u << 8 | 40 },
	};
	assert_int_equal(cpuid_offer(raw, 4, false, ret_offer), 0);
}

static void features(struct half *half, uint16_t vcpus, uint64_t pages, const char *engine)
{
	msg = (struct control_message){ .type = CONTROL_FEATURES, .src = half->peer_number };
	strcpy(msg.features.engine, engine);
	msg.features.capacity_pages = pages;
	msg.features.vcpu_count = vcpus;
	msg.features.tsc_khz = 2000000;
	msg.features.tsc_scaling = 1;
	msg.features.tsc_margin_ppm = strcmp(engine, "kvm") == 0 ? 350 : 0;
	make_offer(&msg.features.offer);
	start_message(half->node, &msg);
}

static void first_node(struct half *half)
{
	half_create(half, 0);
	make_offer(&half->node->features.offer);
	half->node->features.tsc_scaling = true;
	atomic_store(&half->node->phase, NODE_OFFERED);
}

static void assert_refused(uint16_t vcpus, uint64_t pages, const char *engine, const char *says)
{
	struct half half;
	char why[512] = "";
	first_node(&half);
	features(&half, vcpus, pages, engine);
	assert_int_equal(start_agree(half.node, why, sizeof(why)), -EINVAL);
	if (!strstr(why, says))
		fail_msg("\"%s\" does not say \"%s\"", why, says);
	assert_int_equal(atomic_load(&half.node->phase), NODE_OFFERED);
	assert_false(half_peer_hear(&half, CONTROL_START, &msg, 50));
}

static void test_features_are_checked(void **state)
{
	assert_refused(3, 32768, "soft", "node 1 (b) offers 3 vCPUs and 128M");
	assert_refused(2, 32767, "soft", "node 1 (b) offers 2 vCPUs and 127M");
}

/* The offers have 40 bits: a TiB, of which one GiB is the hole below 4 GiB. */
static int agree_on_memory(uint64_t memory, char *why, size_t size)
{
	struct half half;
	struct pod_config config;
	first_node(&half);
	config = *half.node->config;
	config.memory = memory;
	half.node->config = &config;
	features(&half, 2, 32768, "soft");
	return start_agree(half.node, why, size);
}

static void test_memory_is_in_reach(void **state)
{
	uint64_t most = (1ull << 40) - (HIGH_RAM_BASE - LOW_RAM_LIMIT);
	char why[512] = "";
	assert_int_equal(agree_on_memory(most, why, sizeof(why)), 0);
	assert_int_equal(agree_on_memory(most + CHUNK_BYTES, why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, "1047554M of memory are more than the CPUs of all hosts can"));
}

static void agree(struct half *half, const char *engine)
{
	char why[512] = "";
	first_node(half);
	features(half, 2, 32768, engine);
	if (start_agree(half->node, why, sizeof(why)))
		fail_msg("%s", why);
	assert_int_equal(atomic_load(&half->node->phase), NODE_STARTED);
	assert_true(half_peer_hear(half, CONTROL_START, &msg, HALF_PATIENCE_MS));
	assert_int_equal(msg.start.vcpu_count, 3);
	assert_int_equal(msg.start.memory_bytes, half->node->config->memory);
}

/* Whichever node kvm is on: the guest's TSC is faster than it by what it needs to scale. */
static void test_engines_may_differ(void **state)
{
	struct half half;
	agree(&half, "kvm");
	assert_int_equal(msg.start.tsc_khz, 2000700);
	agree(&half, "soft");
	assert_int_equal(msg.start.tsc_khz, 2000000);
}

static void ready(struct half *half, uint64_t error_ns)
{
	msg = (struct control_message){ .type = CONTROL_READY, .src = half->peer_number };
	msg.ready.clock_error_ns = error_ns;
	start_message(half->node, &msg);
}

static void test_clock_is_checked(void **state)
{
	static const uint64_t bad[] = { 100000001, UINT64_MAX };
	for (int i = 0; i < 2; i++) {
		struct half half;
		char why[512] = "";
		agree(&half, "soft");
		ready(&half, bad[i]);
		assert_int_equal(start_ready(half.node, why, sizeof(why)), -ETIME);
		assert_non_null(strstr(why, "node 1 (b) knows the pod clock to"));
		assert_false(half_peer_hear(&half, CONTROL_RUN, &msg, 50));
	}
}

static void test_runs(void **state)
{
	struct half half;
	char why[512] = "";
	agree(&half, "soft");
	ready(&half, 20000);
	assert_int_equal(start_ready(half.node, why, sizeof(why)), 0);
	assert_int_equal(atomic_load(&half.node->phase), NODE_RUNNING);
	assert_true(half_peer_hear(&half, CONTROL_RUN, &msg, HALF_PATIENCE_MS));
	assert_int_equal(msg.run.start_ns, half.node->run_ns);
}

static void *end_later(void *arg)
{
	test_sleep_ms(100);
	node_end_with(arg, CONTROL_END_USER, 1, "enough");
	return NULL;
}

/* Who waits for a peer sees the pod's end at once. */
static void test_end_while_waiting(void **state)
{
	struct half half;
	char why[512] = "";
	pthread_t thread;
	uint64_t start_ns = test_now_ns();
	first_node(&half);
	pthread_create(&thread, NULL, end_later, half.node);
	assert_int_equal(start_agree(half.node, why, sizeof(why)), -ESHUTDOWN);
	assert_true(test_now_ns() - start_ns < 30000000000);
	pthread_join(thread, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_features_are_checked),
		cmocka_unit_test(test_memory_is_in_reach),
		cmocka_unit_test(test_engines_may_differ),
		cmocka_unit_test(test_clock_is_checked),
		cmocka_unit_test(test_runs),
		cmocka_unit_test(test_end_while_waiting),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
