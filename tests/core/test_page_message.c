/* SPDX-License-Identifier: Apache-2.0 */
/* Page messages: every field comes back, and what no type has is refused. */
#include "tests/test.h"

#include <errno.h>
#include <string.h>

#include "wire/page_message.h"

static struct coh_msg sample(void)
{
	return (struct coh_msg){
		.type = COH_GRANT_WRITE,
		.flags = COH_MSG_DATA,
		.requester = 0xab,
		.node = 0xcd,
		.acks = 0x11223344,
		.version = 0x55667788,
		.gpn = 0xfedcba89,
		.age = 0x1020304050607080,
		.seq = 0x1122334455667788,
		.waited_ns = 0x99aabbccddeeff00,
	};
}

static void test_round_trip(void **state)
{
	struct coh_msg msg = sample(), back;
	uint8_t bytes[PAGE_MESSAGE_BYTES];

	msg.src = 7; /* never on the wire */
	page_message_encode(&msg, bytes);
	assert_int_equal(page_message_decode(bytes, &back), 0);
	msg.src = 0;
	assert_memory_equal(&msg, &back, sizeof(msg));
}

static void test_layout(void **state)
{
	struct coh_msg msg = sample();
	uint8_t bytes[PAGE_MESSAGE_BYTES];

	page_message_encode(&msg, bytes);
	assert_int_equal(bytes[0], COH_GRANT_WRITE);
	assert_int_equal(bytes[2] | bytes[3], 0);
	assert_int_equal(bytes[4], 0xab);
	assert_int_equal(bytes[8], 0x44);
	assert_int_equal(bytes[15], 0x55);
	assert_int_equal(bytes[16], 0x89);
	assert_int_equal(bytes[24], 0x80);
	assert_int_equal(bytes[47], 0x99);
}

static void assert_refused(size_t offset, uint8_t value)
{
	struct coh_msg msg = sample(), back, untouched;
	uint8_t bytes[PAGE_MESSAGE_BYTES];

	page_message_encode(&msg, bytes);
	bytes[offset] = value;
	memset(&back, 0x5a, sizeof(back));
	untouched = back;
	assert_int_equal(page_message_decode(bytes, &back), -EPROTO);
	assert_memory_equal(&back, &untouched, sizeof(back));
}

static void test_refused(void **state)
{
	assert_refused(0, 0);
	assert_refused(0, COH_MSG_TYPES);
	assert_refused(0, COH_READ_REQ); /* with COH_MSG_DATA */
	assert_refused(3, 1);		 /* src */
	assert_refused(5, 1);		 /* requester 256 and more */
	assert_refused(7, 1);
	assert_refused(23, 1); /* gpn */
	assert_refused(20, 1); /* the first beyond GPN_LIMIT's 32 bits */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
