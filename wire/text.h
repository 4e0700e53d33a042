/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text on the wire: what may come from a peer and end up on a terminal or in a log.
 *
 * Valid text is UTF-8 without control characters (no escape sequences, no line breaks; `lines`
 * allows \n and \t). In a field of fixed size it ends in at least one NUL, and everything behind
 * the first NUL is NUL.
 */
#ifndef WIRE_TEXT_H
#define WIRE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool wire_text_valid(const char *field, size_t size);
bool wire_text_span_valid(const char *text, size_t length, bool lines);

/* Copies text into a field, cut to fit, the rest zeroed. */
void wire_text_put(char *field, size_t size, const char *text);

/*
 * Like wire_text_put(), and makes it valid: control characters and what is no UTF-8 become '?'. For
 * text from elsewhere (strerror(), a path) that goes into an END.
 */
void wire_text_clean(char *field, size_t size, const char *text);

bool wire_zero(const uint8_t *bytes, size_t size);

#endif
