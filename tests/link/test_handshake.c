// SPDX-License-Identifier: Apache-2.0
/* The handshake's layout, judgement and words; and the rules of text on the wire. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "wire/handshake.h"
#include "wire/text.h"
#include "wire/version.h"

static struct handshake make(uint16_t node, uint16_t peer)
{
	return (struct handshake){
		.version = WIRE_VERSION,
		.node = node,
		.peer = peer,
		.purpose = HANDSHAKE_SHARD(1),
		.shard_count = 2,
		.node_count = 4,
		.config_digest = 0x1122334455667788,
		.incarnation = 42,
		.limits_digest = handshake_limits_digest(),
		.pod_name = "tide",
		.node_name = "gamma",
		.build = "eagre 0.1",
	};
}

static void test_round_trip(void **state)
{
	struct handshake hello = make(2, 1), back;
	uint8_t bytes[HANDSHAKE_BYTES];
	uint16_t length;

	hello.verdict = HANDSHAKE_DUPLICATE;
	hello.join = 0x1122334455667788;
	handshake_encode(&hello, bytes);
	memset(&back, 0xff, sizeof(back));
	assert_int_equal(handshake_decode(bytes, &back), 0);
	assert_int_equal(back.incarnation, 42);
	assert_int_equal(back.config_digest, hello.config_digest);
	assert_true(back.join == hello.join);
	assert_int_equal(bytes[56], 0x88);
	assert_int_equal(bytes[63], 0x11);
	assert_int_equal(back.purpose, HANDSHAKE_SHARD(1));
	assert_int_equal(back.verdict, HANDSHAKE_DUPLICATE);
	assert_string_equal(back.pod_name, "tide");
	assert_string_equal(back.node_name, "gamma");
	assert_string_equal(back.build, "eagre 0.1");
	assert_int_equal(handshake_decode_fixed(bytes, &back, &length), 0);
	assert_int_equal(length, HANDSHAKE_BYTES);
	assert_int_equal(back.node, 2);
	assert_int_equal(back.peer, 1);
	/* The fixed part, for ever: magic, version, length, node, peer, verdict. */
	static const uint8_t fixed[16] = { 'E', 'A', 'G', 'H', WIRE_VERSION,	   0, 0, 1,
					   2,	0,   1,	  0,   HANDSHAKE_DUPLICATE };
	assert_memory_equal(bytes, fixed, sizeof(fixed));
}

/* Every bit of a hello is under the seal, and only the right secret opens it. */
static void test_seal(void **state)
{
	static const char secret[] = "no tide comes twice";
	struct handshake hello = make(2, 1), back;
	uint8_t bytes[HANDSHAKE_BYTES];

	handshake_encode(&hello, bytes);
	assert_false(handshake_is_sealed(bytes, NULL, secret, sizeof(secret)));
	assert_false(handshake_is_sealed(bytes, NULL, NULL, 0));
	handshake_seal(bytes, NULL, secret, sizeof(secret));
	assert_true(handshake_is_sealed(bytes, NULL, secret, sizeof(secret)));
	assert_false(handshake_is_sealed(bytes, NULL, secret, sizeof(secret) - 2));
	assert_false(handshake_is_sealed(bytes, NULL, NULL, 0));
	assert_int_equal(handshake_decode(bytes, &back), 0);
	for (unsigned bit = 0; bit < 8 * HANDSHAKE_BYTES; bit++) {
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_false(handshake_is_sealed(bytes, NULL, secret, sizeof(secret)));
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

/* An answer is to one hello, and a proof to one answer: no bit of either may differ. */
static void test_answer_and_proof(void **state)
{
	static const char secret[] = "no tide comes twice";
	struct handshake hello = make(2, 1);
	uint8_t asked[HANDSHAKE_BYTES], answer[HANDSHAKE_BYTES], proof[HANDSHAKE_PROOF_BYTES];

	hello.nonce[3] = 7;
	handshake_encode(&hello, asked);
	handshake_seal(asked, NULL, secret, sizeof(secret));
	hello = make(1, 2);
	hello.nonce[15] = 9;
	handshake_encode(&hello, answer);
	handshake_seal(answer, asked, secret, sizeof(secret));
	assert_true(handshake_is_sealed(answer, asked, secret, sizeof(secret)));
	assert_false(handshake_is_sealed(answer, NULL, secret, sizeof(secret)));
	assert_false(handshake_is_sealed(answer, asked, NULL, 0));
	handshake_prove(asked, answer, secret, sizeof(secret), proof);
	assert_true(handshake_is_proven(asked, answer, secret, sizeof(secret), proof));
	assert_false(handshake_is_proven(answer, asked, secret, sizeof(secret), proof));
	assert_false(handshake_is_proven(asked, answer, NULL, 0, proof));
	for (unsigned bit = 0; bit < 8 * HANDSHAKE_BYTES; bit++) {
		asked[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_false(handshake_is_sealed(answer, asked, secret, sizeof(secret)));
		assert_false(handshake_is_proven(asked, answer, secret, sizeof(secret), proof));
		asked[bit / 8] ^= (uint8_t)(1u << bit % 8);
		answer[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_false(handshake_is_proven(asked, answer, secret, sizeof(secret), proof));
		answer[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	for (unsigned bit = 0; bit < 8 * HANDSHAKE_PROOF_BYTES; bit++) {
		proof[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_false(handshake_is_proven(asked, answer, secret, sizeof(secret), proof));
		proof[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_true(handshake_is_proven(asked, answer, secret, sizeof(secret), proof));
}

/* What a stranger hears: the fixed part. */
static void test_refusal(void **state)
{
	struct handshake hello = make(2, 1), refusal, back;
	uint8_t bytes[HANDSHAKE_BYTES];

	refusal = handshake_refusal(&hello, HANDSHAKE_SECRET);
	handshake_encode(&refusal, bytes);
	for (size_t i = HANDSHAKE_FIXED_BYTES; i < HANDSHAKE_BYTES; i++)
		assert_int_equal(bytes[i], 0);
	assert_int_equal(handshake_decode(bytes, &back), 0);
	assert_int_equal(back.verdict, HANDSHAKE_SECRET);
	bytes[100] = 1;
	assert_int_equal(handshake_decode(bytes, &back), -EPROTO);
}

static void expect_malformed(size_t at, uint8_t value)
{
	struct handshake hello = make(2, 1), back;
	uint8_t bytes[HANDSHAKE_BYTES];

	handshake_encode(&hello, bytes);
	bytes[at] = value;
	if (handshake_decode(bytes, &back) != -EPROTO)
		fail_msg("byte %zu = %u was accepted", at, value);
}

static void test_malformed(void **state)
{
	static const size_t reserved[] = { 13, 14, 15, 22, 23, 28, 31 };

	expect_malformed(0, 'X');
	expect_malformed(6, 16);		       /* length of another version */
	expect_malformed(12, HANDSHAKE_VERDICT_LIMIT); /* verdict */
	expect_malformed(16, HANDSHAKE_PURPOSE_MAX);   /* purpose */
	expect_malformed(18, 0);		       /* shards */
	expect_malformed(18, SHARDS_MAX + 1);
	expect_malformed(20, 0); /* nodes */
	expect_malformed(21, 2);
	for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
		expect_malformed(reserved[i], 1);
	expect_malformed(64, '\n');	/* pod's name */
	expect_malformed(64 + 10, 'x'); /* behind its end */
	expect_malformed(128, 0x1b);
	expect_malformed(192, 0x9b); /* not UTF-8, and a terminal's CSI */
}

/* Of another version nothing is read beyond the fixed part, whatever it holds. */
static void test_other_version(void **state)
{
	struct handshake mine = make(0, 2), hello = make(2, 0), back;
	uint8_t bytes[HANDSHAKE_BYTES];
	uint16_t length;

	handshake_encode(&hello, bytes);
	bytes[4] = WIRE_VERSION + 1;
	bytes[6] = 40;
	bytes[7] = 9;
	memset(bytes + 13, 0xff, sizeof(bytes) - 13);
	assert_int_equal(handshake_decode_fixed(bytes, &back, &length), 0);
	assert_int_equal(length, 9 * 256 + 40);
	assert_int_equal(handshake_decode(bytes, &back), 0);
	assert_int_equal(back.node, 2);
	assert_int_equal(back.pod_name[0], 0);
	assert_int_equal(handshake_judge(&mine, &back), HANDSHAKE_VERSION);
	bytes[6] = 15; /* shorter than what all versions have */
	bytes[7] = 0;
	assert_int_equal(handshake_decode_fixed(bytes, &back, &length), -EPROTO);
}

static void test_judge(void **state)
{
	struct handshake mine = make(1, 2), theirs = make(2, 1), other;

	assert_int_equal(handshake_judge(&mine, &theirs), HANDSHAKE_OK);
	other = theirs;
	snprintf(other.pod_name, sizeof(other.pod_name), "ebb");
	assert_int_equal(handshake_judge(&mine, &other), HANDSHAKE_POD);
	other = theirs;
	other.peer = 3;
	assert_int_equal(handshake_judge(&mine, &other), HANDSHAKE_WRONG_NODE);
	other = theirs;
	other.node = 1;
	assert_int_equal(handshake_judge(&mine, &other), HANDSHAKE_UNKNOWN_NODE);
	other.node = 4;
	assert_int_equal(handshake_judge(&mine, &other), HANDSHAKE_UNKNOWN_NODE);
	other = theirs;
	other.limits_digest++;
	assert_int_equal(handshake_judge(&mine, &other), HANDSHAKE_LIMITS);
	other = theirs;
	other.shard_count = 3;
	assert_int_equal(handshake_judge(&mine, &other), HANDSHAKE_SHARDS);
	other = theirs;
	other.config_digest++;
	assert_int_equal(handshake_judge(&mine, &other), HANDSHAKE_CONFIG);
	other = theirs;
	other.node_count = 5;
	assert_int_equal(handshake_judge(&mine, &other), HANDSHAKE_CONFIG);
	other = theirs;
	other.capabilities = HANDSHAKE_CAP_NATIVE_TEST;
	assert_int_equal(handshake_judge(&mine, &other), HANDSHAKE_CAPABILITIES);
	other = theirs;
	other.purpose = HANDSHAKE_SHARD(2);
	assert_int_equal(handshake_judge(&mine, &other), HANDSHAKE_SHARDS);
}

/* Every verdict has words of its own for both sides: one line, which names the peer. */
static void test_explain(void **state)
{
	struct handshake mine = make(1, 2), theirs = make(2, 1);
	char text[2][HANDSHAKE_VERDICT_LIMIT][512];

	for (unsigned role = 0; role < 2; role++) {
		for (unsigned v = HANDSHAKE_OK + 1; v < HANDSHAKE_VERDICT_LIMIT; v++) {
			handshake_explain((enum handshake_verdict)v, (enum handshake_role)role,
					  &mine, &theirs, "node 2 (gamma)", text[role][v], 512);
			assert_non_null(strstr(text[role][v], "node 2 (gamma)"));
			assert_non_null(strchr(text[role][v], ':')); /* and the remedy */
			assert_null(strstr(text[role][v], "for reason"));
			for (unsigned w = HANDSHAKE_OK + 1; w < v; w++)
				assert_string_not_equal(text[role][v], text[role][w]);
		}
	}
	handshake_explain(HANDSHAKE_WRONG_NODE, HANDSHAKE_LISTENER, &mine, &theirs, "x", text[0][0],
			  512);
	assert_string_equal(text[0][0],
			    "x says it is node 2 and wants node 1, but this is node 1: addresses "
			    "are mixed up; start each node on its own host, with the same "
			    "configuration");
	/* A name is not looked at for fields, and a small buffer is not overrun. */
	snprintf(theirs.pod_name, sizeof(theirs.pod_name), "{my pod}{");
	handshake_explain(HANDSHAKE_POD, HANDSHAKE_DIALLER, &mine, &theirs, "x", text[0][0], 512);
	assert_non_null(
		strstr(text[0][0], "x belongs to pod \"{my pod}{\", this node to pod \"tide"));
	memset(text[0][0], '#', 512);
	handshake_explain(HANDSHAKE_POD, HANDSHAKE_DIALLER, &mine, &theirs, "x", text[0][0], 20);
	assert_int_equal(strlen(text[0][0]), 19);
	assert_int_equal(text[0][0][20], '#');
	handshake_explain((enum handshake_verdict)99, HANDSHAKE_DIALLER, &mine, &theirs, "x",
			  text[0][0], 512);
	assert_string_equal(text[0][0], "x refused for reason 99");
}

static void test_text(void **state)
{
	static const char *const good[] = { "", "abc", "n\xc3\xa4me", "\xe2\x82\xac",
					    "\xf0\x9f\x8c\x8a" };
	static const char *const bad[] = {
		"a\nb",
		"\x1b[2J",
		"\x7f",
		"\xff",
		"\xc0\xaf",
		"\xc2",
		"\xc2\x9b",
		"\xe0\x80\xaf",
		"\xed\xa0\x80",
		"\xf4\x90\x80\x80",
		"\xf0\x80\x80\xaf",
		"\xe2\x82",
	};
	char field[8];

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_true(wire_text_span_valid(good[i], strlen(good[i]), false));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_false(wire_text_span_valid(bad[i], strlen(bad[i]), false));
		wire_text_clean(field, sizeof(field), bad[i]);
		assert_true(wire_text_valid(field, sizeof(field)));
	}
	assert_true(wire_text_span_valid("a\n\tb", 4, true));
	assert_false(wire_text_valid("12345678", 8));
	assert_false(wire_text_valid("123\0x\0\0", 8));
	wire_text_put(field, sizeof(field), "1234567890");
	assert_string_equal(field, "1234567");
	/* Cut between characters, not within one. */
	wire_text_clean(field, sizeof(field), "12345\xe2\x82\xac");
	assert_string_equal(field, "12345");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answer_and_proof),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_seal),
		cmocka_unit_test(test_refusal),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_other_version),
		cmocka_unit_test(test_judge),
		cmocka_unit_test(test_explain),
		cmocka_unit_test(test_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
