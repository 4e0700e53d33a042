/* SPDX-License-Identifier: Apache-2.0 */
/* HMAC-SHA-256 by the vectors of RFC 4231, SHA-256 by those of FIPS 180-4, at all lengths around a
 * block's. */
#include <stdio.h>
#include <string.h>

#include "tests/test.h"
#include "wire/hmac.h"

static void assert_hex(const uint8_t value[HMAC_BYTES], const char *hex)
{
	char text[2 * HMAC_BYTES + 1];
	for (unsigned int i = 0; i < HMAC_BYTES; i++)
		snprintf(text + 2 * i, 3, "%02x", value[i]);
	assert_string_equal(text, hex);
}

static void test_rfc_4231(void **state)
{
	uint8_t key[131], data[50], out[HMAC_BYTES];
	memset(key, 0x0b, 20);
	hmac_sha256(key, 20, "Hi There", 8, out);
	assert_hex(out, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
	hmac_sha256("Jefe", 4, "what do ya want for nothing?", 28, out);
	assert_hex(out, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
	memset(key, 0xaa, 20);
	memset(data, 0xdd, 50);
	hmac_sha256(key, 20, data, 50, out);
	assert_hex(out, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");
	memset(key, 0xaa, 131);
	hmac_sha256(key, 131, "Test Using Larger Than Block-Size Key - Hash Key First", 54, out);
	assert_hex(out, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

static void test_equal(void **state)
{
	uint8_t a[HMAC_BYTES] = { 1, 2, 3 }, b[HMAC_BYTES] = { 1, 2, 3 };
	assert_true(hmac_equal(a, b));
	for (unsigned int i = 0; i < HMAC_BYTES; i++) {
		b[i] ^= 0x80;
		assert_false(hmac_equal(a, b));
		b[i] ^= 0x80;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rfc_4231),
		cmocka_unit_test(test_equal),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
