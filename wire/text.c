// SPDX-License-Identifier: Apache-2.0
/* Checks of text and padding that came over a link. Tested by tests/link/test_handshake.c. */
#include "wire/text.h"

#include <string.h>

bool wire_zero(const uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		if (bytes[i] != 0)
			return false;
	}
	return true;
}

/* Length of the UTF-8 character at s (RFC 3629: no overlong forms, no surrogates), 0: it is none.
 */
static size_t character_bytes(const unsigned char *s, size_t left)
{
	size_t length;
	uint32_t code;

	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf) {
		length = 2;
		code = s[0] & 0x1f;
	} else if (s[0] >= 0xe0 && s[0] <= 0xef) {
		length = 3;
		code = s[0] & 0x0f;
	} else if (s[0] >= 0xf0 && s[0] <= 0xf4) {
		length = 4;
		code = s[0] & 0x07;
	} else {
		return 0;
	}
	if (left < length)
		return 0;
	for (size_t i = 1; i < length; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (s[i] & 0x3f);
	}
	if (length == 2 && code < 0xa0) /* C1 control characters */
		return 0;
	if (length == 3 && (code < 0x800 || (code >= 0xd800 && code <= 0xdfff)))
		return 0;
	if (length == 4 && (code < 0x10000 || code > 0x10ffff))
		return 0;
	return length;
}

bool wire_text_span_valid(const char *text, size_t length, bool lines)
{
	const unsigned char *s = (const unsigned char *)text;

	for (size_t i = 0; i < length;) {
		size_t bytes = character_bytes(s + i, length - i);

		if (bytes == 0 || s[i] == 0x7f)
			return false;
		if (s[i] < 0x20 && !(lines && (s[i] == '\n' || s[i] == '\t')))
			return false;
		i += bytes;
	}
	return true;
}

bool wire_text_valid(const char *field, size_t size)
{
	size_t length = strnlen(field, size);

	return length < size && wire_text_span_valid(field, length, false) &&
	       wire_zero((const uint8_t *)field + length, size - length);
}

void wire_text_put(char *field, size_t size, const char *text)
{
	size_t length = strnlen(text, size - 1);

	memcpy(field, text, length);
	memset(field + length, 0, size - length);
}

void wire_text_clean(char *field, size_t size, const char *text)
{
	const unsigned char *s = (const unsigned char *)text;
	size_t left = strlen(text);
	size_t at = 0;

	while (left > 0) {
		size_t bytes = character_bytes(s, left);
		bool good = bytes > 0 && s[0] >= 0x20 && s[0] != 0x7f;
		size_t put = good ? bytes : 1;

		if (at + put >= size)
			break;
		if (good)
			memcpy(field + at, s, put);
		else
			field[at] = '?';
		at += put;
		s += put;
		left -= put;
	}
	memset(field + at, 0, size - at);
}
