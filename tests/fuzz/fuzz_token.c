// SPDX-License-Identifier: Apache-2.0
/*
 * Fuzzes join tokens: what is taken prints to the text that it was, but for blanks and capital
 * letters, and an identity to the bytes that it was. A mutated text hardly ever has its checksum:
 * so the input is also taken for the bytes before one, behind which it goes.
 */
#include <stdlib.h>
#include <string.h>

#include "wire/token.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_text(const char *text)
{
	char again[TOKEN_TEXT_MAX];
	struct token token;

	if (token_parse(text, &token) != TOKEN_OK)
		return;
	token_print(&token, again);
	for (const char *at = again; *at != '\0' || *text != '\0'; text++) {
		if (is_blank(*text))
			continue;
		if (digit_of(*text) != digit_of(*at++))
			abort();
	}
}

static void try_bytes(const uint8_t *data, size_t size)
{
	uint8_t bytes[BYTES_MAX], again[BYTES_MAX];
	struct token token;

	if (size > BYTES_MAX - CHECKSUM_BYTES)
		return;
	memcpy(bytes, data, size);
	if (!checksum(bytes, size, bytes + size))
		return;
	size += CHECKSUM_BYTES;
	if (decode(bytes, size, &token) != TOKEN_OK)
		return;
	if (encode(&token, again) != size || memcmp(bytes, again, size) != 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[6001], identity[TOKEN_IDENTITY_MAX];
	struct token_name name;

	if (size >= sizeof(text))
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	try_text(text);
	try_bytes(data, size);
	if (token_parse_identity(data, size, &name) == 0) {
		token_print_identity(&name, identity);
		if (size != strlen(identity) || memcmp(data, identity, size) != 0)
			abort();
	}
	return 0;
}
