/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A line for the user, on stderr.
 */
#ifndef CMD_MESSAGE_H
#define CMD_MESSAGE_H

#include <stddef.h>

/* "eagre: ", the line made harmless, and an end of line as the terminal now wants it; one write. */
void message_print(const char *line);

/* The same, but a terminal that nobody reads holds up the caller for half a second at most. */
void message_print_briefly(const char *line);

/* What node.h's `forbidden` says; the process ends behind it. */
void message_print_forbidden(const char *call);

/*
 * Copies `line` so that a terminal shows it and obeys nothing in it: control characters, and bytes
 * that are no UTF-8, become \xNN. Cuts what does not fit into `size`. Returns the length.
 */
size_t message_escape(const char *line, char *ret_text, size_t size);

#endif
