// SPDX-License-Identifier: Apache-2.0
/*
 * Join tokens: their bytes and keys (against what Python's hmac and base64 make of the same words),
 * slips of any letter, whose they are, and that each is good once, and for a time.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/link/support.h"
#include "tests/test.h"
#include "wire/token.h"

#define NOW_S 1900000000u

static const char secret[] = "no tide comes twice";
static const struct token_pod tide = { secret, sizeof(secret) - 1, "tide" };
static const struct token_name name = { 0x0123456789abcdef, 2000000000 };
static const char *const addresses[] = { "10.0.0.1:7000", "[fe80::1%eth0]:7001", "c:1", "d:2" };

static struct token make(void)
{
	struct token token;

	assert_int_equal(token_make(&tide, &name, addresses, 2, &token), 0);
	return token;
}

static void assert_same(const struct token *a, const struct token *b)
{
	assert_memory_equal(a, b, sizeof(*a));
}

/* import hmac, hashlib, struct, base64; h = lambda k, d: hmac.new(k, d, hashlib.sha256).digest() */
static void test_known(void **state)
{
	static const char text[] = "ahx43k4jm5csgaiasq2xoaaaaaapfygfulj6axsli5kdpxk2fwwxysqgah5jim"
				   "zarlnfmswxc36lgz3dv4setvq2fj2aedjrgaxdalrqfyytunzqgaybgw3gmu4d"
				   "aor2geswk5digbotunzqgay3vpqs7q";
	struct token token = make(), read;
	char printed[TOKEN_TEXT_MAX];

	token_print(&token, printed);
	assert_string_equal(printed, text);
	memset(&read, 0, sizeof(read));
	assert_int_equal(token_parse(text, &read), TOKEN_OK);
	assert_same(&read, &token);
}

static void test_as_it_is_pasted(void **state)
{
	struct token token = make(), read;
	char printed[TOKEN_TEXT_MAX], pasted[2 * TOKEN_TEXT_MAX];
	size_t length = 0;

	token_print(&token, printed);
	for (size_t i = 0; printed[i] != '\0'; i++) {
		char c = printed[i];

		if (i % 40 == 0)
			pasted[length++] = "\n\r\t "[i / 40 % 4];
		pasted[length++] = c >= 'a' && i % 3 == 0 ? (char)(c - 'a' + 'A') : c;
	}
	pasted[length] = '\0';
	assert_int_equal(token_parse(pasted, &read), TOKEN_OK);
	assert_same(&read, &token);
}

/* Any letter another, left out, or twice; any length cut off: never another token. */
static void test_slips(void **state)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz234567018-=";
	char printed[TOKEN_TEXT_MAX], slip[TOKEN_TEXT_MAX + 1];
	struct token token = make(), read = token, before = token;
	size_t length;

	token_print(&token, printed);
	length = strlen(printed);
	for (size_t at = 0; at < length; at++) {
		for (const char *letter = letters; *letter != '\0'; letter++) {
			memcpy(slip, printed, length + 1);
			slip[at] = *letter;
			if (*letter != printed[at])
				assert_int_equal(token_parse(slip, &read), TOKEN_DAMAGED);
		}
		memcpy(slip, printed, at);
		memcpy(slip + at, printed + at + 1, length - at);
		assert_int_equal(token_parse(slip, &read), TOKEN_DAMAGED);
		memcpy(slip, printed, at + 1);
		memcpy(slip + at + 1, printed + at, length - at + 1);
		assert_int_equal(token_parse(slip, &read), TOKEN_DAMAGED);
		memcpy(slip, printed, at);
		slip[at] = '\0';
		assert_int_equal(token_parse(slip, &read), TOKEN_DAMAGED);
	}
	assert_same(&read, &before);
	/* Longer than any. */
	memset(slip, 'a', sizeof(slip) - 1);
	slip[sizeof(slip) - 1] = '\0';
	assert_int_equal(token_parse(slip, &read), TOKEN_DAMAGED);
}

/* By Python, as test_known()'s: version 2, and nothing else that this one could know. */
static void test_other_version(void **state)
{
	struct token read;

	assert_int_equal(token_parse("ajxgk53iozed6", &read), TOKEN_OTHER_VERSION);
}

static void test_largest(void **state)
{
	char address[TOKEN_ADDRESS_MAX + 1], printed[TOKEN_TEXT_MAX];
	const char *all[] = { address, address, address, address, address };
	struct token token, read;

	memset(address, 'x', sizeof(address));
	address[TOKEN_ADDRESS_MAX - 1] = '\0';
	assert_int_equal(token_make(&tide, &name, all, TOKEN_ADDRESSES_MAX, &token), 0);
	token_print(&token, printed);
	assert_int_equal(strlen(printed), TOKEN_TEXT_MAX - 1);
	assert_int_equal(token_parse(printed, &read), TOKEN_OK);
	assert_same(&read, &token);
	assert_int_equal(token_make(&tide, &name, all, TOKEN_ADDRESSES_MAX + 1, &token), -EINVAL);
	assert_int_equal(token_make(&tide, &name, all, 0, &token), -EINVAL);
	address[TOKEN_ADDRESS_MAX - 1] = 'x';
	address[TOKEN_ADDRESS_MAX] = '\0';
	assert_int_equal(token_make(&tide, &name, all, 1, &token), -EINVAL);
	snprintf(address, sizeof(address), "\033[2J:1");
	assert_int_equal(token_make(&tide, &name, all, 1, &token), -EINVAL);
	address[0] = '\0';
	assert_int_equal(token_make(&tide, &name, all, 1, &token), -EINVAL);
}

/* A pod without a secret has no tokens; another secret, or another name, is another pod. */
static void test_whose(void **state)
{
	const struct token_pod none = { "", 0, "tide" };
	const struct token_pod other_secret = { "other", 5, "tide" };
	const struct token_pod other_name = { secret, sizeof(secret) - 1, "ebb" };
	uint8_t key[TOKEN_KEY_BYTES], other[TOKEN_KEY_BYTES];
	struct token_book book = { 0 };
	struct token token = make(), kept = token;

	assert_int_equal(token_make(&none, &name, addresses, 1, &token), -EINVAL);
	assert_int_equal(token_key(&none, &name, key), -EINVAL);
	assert_same(&token, &kept);
	assert_int_equal(token_check(&token, &tide, &book, NOW_S), TOKEN_OK);
	assert_int_equal(token_check(&token, &none, &book, NOW_S), TOKEN_OTHER_POD);
	assert_int_equal(token_check(&token, &other_secret, &book, NOW_S), TOKEN_OTHER_POD);
	assert_int_equal(token_check(&token, &other_name, &book, NOW_S), TOKEN_OTHER_POD);
	assert_int_equal(token_key(&tide, &name, key), 0);
	assert_int_equal(token_key(&other_name, &name, other), 0);
	assert_memory_not_equal(key, other, sizeof(key));
	token.key[31] ^= 1;
	assert_int_equal(token_check(&token, &tide, &book, NOW_S), TOKEN_FORGED);
	token = kept;
	token.name.expiry_s++; /* its owner would like it to be good for longer */
	assert_int_equal(token_check(&token, &tide, &book, NOW_S), TOKEN_FORGED);
}

static void test_expiry(void **state)
{
	struct token_book book = { 0 };

	assert_int_equal(token_look_up(&book, &name, name.expiry_s - 1), TOKEN_OK);
	assert_false(token_is_expired(&name, name.expiry_s - 1));
	assert_true(token_is_expired(&name, name.expiry_s));
	assert_int_equal(token_use(&book, &name, name.expiry_s), TOKEN_EXPIRED);
	assert_int_equal(book.count, 0);
}

/* Once each, also when the host's clock is set back behind what had expired. */
static void test_used(void **state)
{
	struct token_book book = { 0 };
	const struct token_name second = { name.id + 1, name.expiry_s };
	const struct token_name later = { name.id, name.expiry_s + 10 };

	assert_int_equal(token_use(&book, &name, NOW_S), TOKEN_OK);
	assert_int_equal(token_use(&book, &name, NOW_S), TOKEN_USED);
	assert_int_equal(token_look_up(&book, &name, NOW_S - 5), TOKEN_USED);
	assert_int_equal(token_use(&book, &second, NOW_S), TOKEN_OK);
	assert_int_equal(token_use(&book, &later, NOW_S), TOKEN_OK);
	assert_int_equal(token_use(&book, &later, name.expiry_s), TOKEN_USED);
	assert_int_equal(book.count, 1);
	assert_int_equal(token_use(&book, &name, NOW_S), TOKEN_EXPIRED);
	assert_int_equal(token_use(&book, &second, 0), TOKEN_EXPIRED);
}

/* A full book takes no more, and forgets none to make room; time does. */
static void test_book_full(void **state)
{
	struct token_book book = { 0 };
	struct token_name next = { 1, NOW_S + 10 };

	for (next.id = 1; next.id <= TOKEN_USED_MAX; next.id++) {
		next.expiry_s = NOW_S + 10 + next.id % 2;
		assert_int_equal(token_use(&book, &next, NOW_S), TOKEN_OK);
	}
	next.expiry_s = NOW_S + 11;
	assert_int_equal(token_use(&book, &next, NOW_S), TOKEN_BOOK_FULL);
	assert_int_equal(token_use(&book, &(struct token_name){ 1, NOW_S + 11 }, NOW_S),
			 TOKEN_USED);
	assert_int_equal(token_use(&book, &next, NOW_S + 10), TOKEN_OK);
	assert_int_equal(book.count, TOKEN_USED_MAX / 2 + 1);
}

/* At random, against a list that forgets nothing. */
static void test_book_random(void **state)
{
	static struct {
		struct token_name name;
		bool used;
	} all[64];
	struct token_book book = { 0 };
	struct random random;
	uint64_t latest = 0;

	random_seed(&random, test_seed());
	for (unsigned i = 0; i < 64; i++)
		all[i].name = (struct token_name){ i % 40, 100 + random_below(&random, 400) };
	for (unsigned i = 0; i < 20000; i++) {
		unsigned k = random_below(&random, 64);
		uint64_t now = i / 40 + random_below(&random, 30);
		enum token_verdict expected = TOKEN_OK;

		latest = now > latest ? now : latest;
		for (unsigned j = 0; j < 64; j++)
			if (all[j].used && all[j].name.id == all[k].name.id &&
			    all[j].name.expiry_s == all[k].name.expiry_s)
				expected = TOKEN_USED;
		if (all[k].name.expiry_s <= latest)
			expected = TOKEN_EXPIRED;
		assert_int_equal(token_use(&book, &all[k].name, now), expected);
		all[k].used = true;
	}
}

static void test_identity(void **state)
{
	char text[TOKEN_IDENTITY_MAX], slip[TOKEN_IDENTITY_MAX];
	struct token_name read = { 0 };

	token_print_identity(&name, text);
	assert_string_equal(text, "eagre-join 0123456789abcdef 0000000077359400");
	assert_int_equal(token_parse_identity(text, strlen(text), &read), 0);
	assert_true(read.id == name.id && read.expiry_s == name.expiry_s);
	for (size_t length = 0; length < strlen(text); length++)
		assert_int_equal(token_parse_identity(text, length, &read), -EINVAL);
	assert_int_equal(token_parse_identity(text, sizeof(text), &read), -EINVAL);
	for (size_t at = 0; at < strlen(text); at++) {
		memcpy(slip, text, sizeof(slip));
		slip[at] = 'A'; /* no digit of ours, nor of the head */
		assert_int_equal(token_parse_identity(slip, strlen(slip), &read), -EINVAL);
	}
}

static void test_words(void **state)
{
	for (int verdict = TOKEN_OK; verdict <= TOKEN_VERDICTS; verdict++)
		assert_non_null(token_explain((enum token_verdict)verdict));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known),	  cmocka_unit_test(test_as_it_is_pasted),
		cmocka_unit_test(test_slips),	  cmocka_unit_test(test_other_version),
		cmocka_unit_test(test_largest),	  cmocka_unit_test(test_whose),
		cmocka_unit_test(test_expiry),	  cmocka_unit_test(test_used),
		cmocka_unit_test(test_book_full), cmocka_unit_test(test_book_random),
		cmocka_unit_test(test_identity),  cmocka_unit_test(test_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
