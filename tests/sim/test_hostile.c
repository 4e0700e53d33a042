/* SPDX-License-Identifier: Apache-2.0 */
/* Random bytes as hostile peers of one node (hostile.h). The fuzzer looks deeper; this always runs.
 */
#include "tests/test.h"

#include "tests/sim/hostile.h"
#include "tests/rng.h"

#define ROUNDS 15000
#define BYTES  4096

static void test_random_messages(void **state)
{
	static uint8_t data[BYTES];
	struct hostile_count count = { 0 };

	for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
		struct rng rng = { .state = seed };

		for (size_t i = 0; i < BYTES; i++)
			data[i] = (uint8_t)rng_next(&rng);
		hostile_run(data, BYTES, &count);
	}
	print_message("%llu messages, %llu of them accepted\n", (unsigned long long)count.messages,
		      (unsigned long long)count.accepted);
	/* They must get behind the first check, and must not all be believed. */
	assert_true(count.accepted > count.messages / 100);
	assert_true(count.accepted < count.messages);
	assert_true(count.members > 1000);
}

/* Inputs of the fuzzer that failed once. */
static const struct {
	const char *what;
	uint8_t size, data[32];
} kept[] = {
	{ "parts of a home, from a liar, for a chunk that its registrar then gives to itself",
	  19,
	  { 0x05, 0x10, 0x00, 0x75, 0xb7, 0xb7, 0x0e, 0x41, 0xb7, 0x0e, 0xcc, 0x8c, 0x00, 0x7b,
	    0xb7, 0x00, 0x3a, 0xff, 0xff } },
};

static void test_kept_inputs(void **state)
{
	struct hostile_count count = { 0 };

	for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
		print_message("%s\n", kept[i].what);
		hostile_run(kept[i].data, kept[i].size, &count);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kept_inputs),
		cmocka_unit_test(test_random_messages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
