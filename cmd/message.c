/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines for the user (message.h).
 *
 * Names of files, of nodes and what peers say come from elsewhere: none of it may move the cursor
 * or set a title. The other processes of a pod on this terminal print, too, while one of them has
 * made it raw for the guest: so how a line ends is asked of the terminal each time.
 *
 * Tested by tests/cmd/test_message.c.
 */
#include "cmd/message.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "node/deadline.h"

#define LINE_MAX_BYTES 4096
#define BRIEF_MS       500   /* for its write, from when the thread has begun */
#define LATE_MS	       10000 /* for a thread that does not get to run */
#define TURN_MS	       50

/* Bytes of the character that a terminal may be given, or 0: control, or not UTF-8 (RFC 3629). */
static size_t printable_size(const char *text)
{
	const unsigned char *byte = (const unsigned char *)text;
	size_t size = byte[0] >= 0xf0 ? 4 : byte[0] >= 0xe0 ? 3 : 2;
	if (byte[0] < 0x80)
		return byte[0] >= ' ' && byte[0] != 0x7f;
	if (byte[0] < 0xc2 || byte[0] > 0xf4)
		return 0;
	for (size_t i = 1; i < size; i++)
		if ((byte[i] & 0xc0) != 0x80)
			return 0;
	/* U+0080 to U+009F are control characters, too; then what is too long, and surrogates. */
	if ((byte[0] == 0xc2 && byte[1] < 0xa0) || (byte[0] == 0xe0 && byte[1] < 0xa0) ||
	    (byte[0] == 0xed && byte[1] >= 0xa0) || (byte[0] == 0xf0 && byte[1] < 0x90) ||
	    (byte[0] == 0xf4 && byte[1] >= 0x90))
		return 0;
	return size;
}

size_t message_escape(const char *line, char *ret_text, size_t size)
{
	size_t used = 0;
	while (*line) {
		size_t bytes = printable_size(line), need = bytes ? bytes : 4;
		if (used + need >= size)
			break;
		if (bytes)
			memcpy(ret_text + used, line, bytes);
		else
			snprintf(ret_text + used, size - used, "\\x%02x", (unsigned char)*line);
		used += need;
		line += bytes ? bytes : 1;
	}
	ret_text[used] = '\0';
	return used;
}

static bool terminal_is_raw(int fd)
{
	struct termios now;
	return tcgetattr(fd, &now) == 0 && !(now.c_oflag & OPOST);
}

void message_print(const char *line)
{
	static const char start[] = "eagre: ";
	char text[LINE_MAX_BYTES];
	size_t used = sizeof(start) - 1;
	memcpy(text, start, used);
	used += message_escape(line, text + used, sizeof(text) - used - 2);
	if (terminal_is_raw(STDERR_FILENO))
		text[used++] = '\r';
	text[used++] = '\n';
	(void)!write(STDERR_FILENO, text, used);
}

void message_print_forbidden(const char *call)
{
	char line[256];
	snprintf(
		line, sizeof(line),
		"a vCPU's thread made a system call that it never makes: %s; the node ends, as the "
		"guest may have broken out of it (SECURITY.md says where to report that)",
		call);
	message_print(line);
}

/* What is printed by a thread of its own; never freed if that does not end in time. */
struct brief {
	atomic_bool begun;
	char line[];
};

static void *print_thread(void *arg)
{
	struct brief *brief = arg;
	atomic_store(&brief->begun, true);
	message_print(brief->line);
	return NULL;
}

void message_print_briefly(const char *line)
{
	size_t size = strlen(line) + 1;
	struct brief *brief = calloc(1, sizeof(*brief) + size);
	pthread_t thread;
	if (brief)
		memcpy(brief->line, line, size);
	if (!brief || pthread_create(&thread, NULL, print_thread, brief)) {
		free(brief);
		message_print(line);
		return;
	}
	/* A busy host may let it begin late; nobody waits for who does not read. */
	for (unsigned int all = 0, its = 0; all < LATE_MS && its < BRIEF_MS; all += TURN_MS) {
		struct timespec until = deadline_after_ms(TURN_MS);
		if (deadline_join(thread, &until) == 0) {
			free(brief);
			return;
		}
		its += atomic_load(&brief->begun) ? TURN_MS : 0;
	}
	/* It is left to its write, which ends with the process at the latest. */
	pthread_detach(thread);
}
