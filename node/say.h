/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines for the user, from any thread, none of which waits for him.
 *
 * Who prints to stderr waits for whoever reads it, and a thread that other nodes depend on must
 * not. So lines go into a bounded ring, and a thread of its own prints them; what does not fit is
 * counted and not said. Tested in tests/node/test_say.c.
 */
#ifndef NODE_SAY_H
#define NODE_SAY_H

#define SAY_LINE_MAX 512
#define SAY_LINES    64
#define SAY_FLUSH_MS 500u /* for the last lines, at the end */

struct say;

/* `print` is called by the thread, one line without newline at a time. 0 or -errno. */
int say_create(void (*print)(void *context, const char *line), void *context, struct say **ret_say);
/* Any thread; never waits. The line is cut to SAY_LINE_MAX. */
void say_line(struct say *say, const char *line);
/*
 * Gives the thread up to flush_ms to print what is there. The memory stays, as threads may still
 * speak, which then goes nowhere. NULL is fine.
 */
void say_close(struct say *say, unsigned int flush_ms);

#endif
