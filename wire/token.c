// SPDX-License-Identifier: Apache-2.0
/*
 * Join tokens (token.h): bytes, text, keys, and the book of used ones.
 *
 * The checksum comes last in every version, and is looked at before the version: so "another
 * version" is never said of a slip. What is taken prints to the same text.
 *
 * Tested by tests/link/test_token.c, fuzzed by tests/fuzz/fuzz_token.c.
 */
#include "wire/token.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>

#include "core/limits.h"
#include "wire/hmac.h"
#include "wire/text.h"

#define HEAD_BYTES     58u
#define CHECKSUM_BYTES 4u
#define BYTES_MAX      (HEAD_BYTES + TOKEN_ADDRESSES_MAX * TOKEN_ADDRESS_MAX + CHECKSUM_BYTES)

static_assert(TOKEN_TEXT_MAX > (BYTES_MAX * 8 + 4) / 5);
static_assert(TOKEN_KEY_BYTES == HMAC_BYTES);

static const char digits[] = "abcdefghijklmnopqrstuvwxyz234567";
static const char identity_head[] = "eagre-join ";

/* ---- Keys ---- */

static int pod_id(const struct token_pod *pod, uint64_t *ret_id)
{
	static const char purpose[] = "eagre pod ";
	char text[sizeof(purpose) + POD_NAME_MAX];
	uint8_t mac[HMAC_BYTES];
	uint64_t id;
	int length, error;

	if (pod->secret_size == 0)
		return -EINVAL;
	length = snprintf(text, sizeof(text), "%s%s", purpose, pod->name);
	if (length < 0 || (size_t)length >= sizeof(text))
		return -EINVAL;
	error = hmac_sha256(pod->secret, pod->secret_size, text, (size_t)length, mac);
	if (error < 0)
		return error;
	memcpy(&id, mac, sizeof(id));
	*ret_id = le64toh(id);
	return 0;
}

int token_key(const struct token_pod *pod, const struct token_name *name,
	      uint8_t ret_key[TOKEN_KEY_BYTES])
{
	struct {
		char purpose[16];
		uint64_t pod, id, expiry_s;
	} what = { .purpose = "eagre join",
		   .id = htole64(name->id),
		   .expiry_s = htole64(name->expiry_s) };
	uint64_t id;
	int error = pod_id(pod, &id);

	if (error < 0)
		return error;
	what.pod = htole64(id);
	return hmac_sha256(pod->secret, pod->secret_size, &what, sizeof(what), ret_key);
}

int token_make(const struct token_pod *pod, const struct token_name *name,
	       const char *const *address, size_t address_count, struct token *ret_token)
{
	struct token token = { .name = *name, .address_count = (uint8_t)address_count };
	int error;

	if (address_count == 0 || address_count > TOKEN_ADDRESSES_MAX)
		return -EINVAL;
	for (size_t i = 0; i < address_count; i++) {
		size_t length = strlen(address[i]);

		if (length == 0 || length >= TOKEN_ADDRESS_MAX ||
		    !wire_text_span_valid(address[i], length, false))
			return -EINVAL;
		memcpy(token.address[i], address[i], length);
	}
	error = pod_id(pod, &token.pod);
	if (error == 0)
		error = token_key(pod, name, token.key);
	if (error == 0)
		*ret_token = token;
	OPENSSL_cleanse(token.key, sizeof(token.key));
	return error;
}

/* ---- Bytes ---- */

static void put_u64(uint8_t *bytes, uint64_t value)
{
	value = htole64(value);
	memcpy(bytes, &value, sizeof(value));
}

static uint64_t get_u64(const uint8_t *bytes)
{
	uint64_t value;

	memcpy(&value, bytes, sizeof(value));
	return le64toh(value);
}

/* False: no memory for it; such a token is damaged. */
static bool checksum(const uint8_t *bytes, size_t size, uint8_t ret_sum[CHECKSUM_BYTES])
{
	static const char purpose[] = "eagre token";
	uint8_t mac[HMAC_BYTES];

	if (hmac_sha256(purpose, sizeof(purpose), bytes, size, mac) < 0)
		return false;
	memcpy(ret_sum, mac, CHECKSUM_BYTES);
	return true;
}

static size_t encode(const struct token *token, uint8_t bytes[BYTES_MAX])
{
	size_t at = HEAD_BYTES;

	bytes[0] = TOKEN_VERSION;
	put_u64(bytes + 1, token->name.id);
	put_u64(bytes + 9, token->name.expiry_s);
	put_u64(bytes + 17, token->pod);
	memcpy(bytes + 25, token->key, TOKEN_KEY_BYTES);
	bytes[57] = token->address_count;
	for (unsigned i = 0; i < token->address_count; i++) {
		size_t length = strlen(token->address[i]);

		bytes[at++] = (uint8_t)length;
		memcpy(bytes + at, token->address[i], length);
		at += length;
	}
	if (!checksum(bytes, at, bytes + at))
		memset(bytes + at, 0, CHECKSUM_BYTES);
	return at + CHECKSUM_BYTES;
}

static bool decode_addresses(const uint8_t *bytes, size_t size, struct token *token)
{
	size_t at = 0;

	if (token->address_count == 0 || token->address_count > TOKEN_ADDRESSES_MAX)
		return false;
	for (unsigned i = 0; i < token->address_count; i++) {
		size_t length;

		if (at == size)
			return false;
		length = bytes[at++];
		if (length == 0 || length >= TOKEN_ADDRESS_MAX || length > size - at)
			return false;
		memcpy(token->address[i], bytes + at, length);
		if (!wire_text_span_valid(token->address[i], length, false))
			return false;
		at += length;
	}
	return at == size;
}

static enum token_verdict decode(const uint8_t *bytes, size_t size, struct token *ret_token)
{
	uint8_t sum[CHECKSUM_BYTES];

	if (size < 1 + CHECKSUM_BYTES || !checksum(bytes, size - CHECKSUM_BYTES, sum) ||
	    memcmp(sum, bytes + size - CHECKSUM_BYTES, CHECKSUM_BYTES) != 0)
		return TOKEN_DAMAGED;
	if (bytes[0] != TOKEN_VERSION)
		return TOKEN_OTHER_VERSION;
	if (size < HEAD_BYTES + CHECKSUM_BYTES)
		return TOKEN_DAMAGED;
	*ret_token = (struct token){
		.name = { .id = get_u64(bytes + 1), .expiry_s = get_u64(bytes + 9) },
		.pod = get_u64(bytes + 17),
		.address_count = bytes[57],
	};
	memcpy(ret_token->key, bytes + 25, TOKEN_KEY_BYTES);
	return decode_addresses(bytes + HEAD_BYTES, size - HEAD_BYTES - CHECKSUM_BYTES, ret_token)
		       ? TOKEN_OK
		       : TOKEN_DAMAGED;
}

/* ---- Text ---- */

void token_print(const struct token *token, char ret_text[TOKEN_TEXT_MAX])
{
	uint8_t bytes[BYTES_MAX];
	size_t size = encode(token, bytes), length = 0;
	uint32_t held = 0;
	unsigned bits = 0;

	for (size_t i = 0; i < size; i++) {
		held = held << 8 | bytes[i];
		for (bits += 8; bits >= 5; bits -= 5)
			ret_text[length++] = digits[held >> (bits - 5) & 31];
	}
	if (bits > 0)
		ret_text[length++] = digits[held << (5 - bits) & 31];
	ret_text[length] = '\0';
	OPENSSL_cleanse(bytes, sizeof(bytes));
}

static int digit_of(char c)
{
	if (c >= 'a' && c <= 'z')
		return c - 'a';
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	return c >= '2' && c <= '7' ? c - '2' + 26 : -1;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Bytes, or 0: it is no base32, or too much of it. */
static size_t unprint(const char *text, uint8_t bytes[BYTES_MAX])
{
	uint32_t held = 0;
	unsigned bits = 0;
	size_t size = 0;

	for (; *text != '\0'; text++) {
		int digit = digit_of(*text);

		if (is_blank(*text))
			continue;
		if (digit < 0)
			return 0;
		held = held << 5 | (uint32_t)digit;
		bits += 5;
		if (bits < 8)
			continue;
		if (size == BYTES_MAX)
			return 0;
		bits -= 8;
		bytes[size++] = (uint8_t)(held >> bits);
	}
	/* What is left over is no whole letter, and zero. */
	return bits < 5 && (held & ((1u << bits) - 1)) == 0 ? size : 0;
}

enum token_verdict token_parse(const char *text, struct token *ret_token)
{
	enum token_verdict verdict;
	uint8_t bytes[BYTES_MAX];
	struct token token;

	verdict = decode(bytes, unprint(text, bytes), &token);
	if (verdict == TOKEN_OK)
		*ret_token = token;
	OPENSSL_cleanse(bytes, sizeof(bytes));
	OPENSSL_cleanse(&token, sizeof(token));
	return verdict;
}

void token_print_identity(const struct token_name *name, char ret_text[TOKEN_IDENTITY_MAX])
{
	snprintf(ret_text, TOKEN_IDENTITY_MAX, "%s%016llx %016llx", identity_head,
		 (unsigned long long)name->id, (unsigned long long)name->expiry_s);
}

static bool parse_hex(const char *text, uint64_t *ret_value)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < 16; i++) {
		char c = text[i];

		if (c >= '0' && c <= '9')
			value = value << 4 | (uint64_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			value = value << 4 | (uint64_t)(c - 'a' + 10);
		else
			return false;
	}
	*ret_value = value;
	return true;
}

int token_parse_identity(const void *text, size_t size, struct token_name *ret_name)
{
	const char *at = text;
	struct token_name name;

	if (size != TOKEN_IDENTITY_MAX - 1 || memcmp(at, identity_head, strlen(identity_head)) != 0)
		return -EINVAL;
	at += strlen(identity_head);
	if (!parse_hex(at, &name.id) || at[16] != ' ' || !parse_hex(at + 17, &name.expiry_s))
		return -EINVAL;
	*ret_name = name;
	return 0;
}

/* ---- Whether it is good ---- */

bool token_is_expired(const struct token_name *name, uint64_t now_s)
{
	return name->expiry_s <= now_s;
}

/* Time goes on, and what has expired is forgotten. */
static void go_on(struct token_book *book, uint64_t now_s)
{
	uint32_t kept = 0;

	if (now_s <= book->now_s)
		return;
	book->now_s = now_s;
	for (uint32_t i = 0; i < book->count; i++)
		if (!token_is_expired(&book->used[i], now_s))
			book->used[kept++] = book->used[i];
	book->count = kept;
}

enum token_verdict token_look_up(struct token_book *book, const struct token_name *name,
				 uint64_t now_s)
{
	go_on(book, now_s);
	if (token_is_expired(name, book->now_s))
		return TOKEN_EXPIRED;
	for (uint32_t i = 0; i < book->count; i++)
		if (book->used[i].id == name->id && book->used[i].expiry_s == name->expiry_s)
			return TOKEN_USED;
	return book->count == TOKEN_USED_MAX ? TOKEN_BOOK_FULL : TOKEN_OK;
}

enum token_verdict token_use(struct token_book *book, const struct token_name *name, uint64_t now_s)
{
	enum token_verdict verdict = token_look_up(book, name, now_s);

	if (verdict == TOKEN_OK)
		book->used[book->count++] = *name;
	return verdict;
}

enum token_verdict token_check(const struct token *token, const struct token_pod *pod,
			       struct token_book *book, uint64_t now_s)
{
	uint8_t key[TOKEN_KEY_BYTES];
	uint64_t id;
	bool right;

	if (pod_id(pod, &id) < 0 || id != token->pod)
		return TOKEN_OTHER_POD;
	right = token_key(pod, &token->name, key) == 0 && hmac_equal(key, token->key);
	OPENSSL_cleanse(key, sizeof(key));
	return right ? token_look_up(book, &token->name, now_s) : TOKEN_FORGED;
}

const char *token_explain(enum token_verdict verdict)
{
	static const char *const texts[TOKEN_VERDICTS] = {
		[TOKEN_OK] = "this token is good",
		[TOKEN_DAMAGED] = "this is no token, or not all of it: copy it as it was printed",
		[TOKEN_OTHER_VERSION] =
			"this token is of another version of Eagre: install the one that its pod runs",
		[TOKEN_OTHER_POD] = "this token is of another pod",
		[TOKEN_FORGED] = "this token was not made with the pod's secret",
		[TOKEN_EXPIRED] = "this token has expired: make a new one",
		[TOKEN_USED] = "this token was used already: make one for each host",
		[TOKEN_BOOK_FULL] =
			"too many tokens were used lately: wait until some have expired",
	};

	return verdict < TOKEN_VERDICTS ? texts[verdict] : "this token is not taken";
}
