/* SPDX-License-Identifier: Apache-2.0 */
/* Lines for the user: what a terminal must not obey, and where its lines end. */
#include <fcntl.h>
#include <pthread.h>
#include <pty.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cmd/message.h"
#include "tests/test.h"

static void test_escapes(void **state)
{
	static const struct {
		const char *line, *text;
	} cases[] = {
		{ "", "" },
		{ "kernel vmlinuz: No such file", "kernel vmlinuz: No such file" },
		{ "Grüße, 世界 🙂", "Grüße, 世界 🙂" },
		{ "\x1b]0;title\x07", "\\x1b]0;title\\x07" },
		{ "a\tb\r\nc\x7f", "a\\x09b\\x0d\\x0ac\\x7f" },
		{ "\xc2\x9b"
		  "31m",
		  "\\xc2\\x9b31m" }, /* CSI as U+009B */
		{ "\x9b"
		  "31m",
		  "\\x9b31m" },
		{ "\xc3", "\\xc3" },
		{ "\xe4\xb8", "\\xe4\\xb8" },
		{ "\xc0\x9b \xe0\x82\x9b \xf0\x80\x82\x9b", /* too long forms of CSI */
		  "\\xc0\\x9b \\xe0\\x82\\x9b \\xf0\\x80\\x82\\x9b" },
		{ "\xed\xa0\x80 \xf4\x90\x80\x80 \xff",
		  "\\xed\\xa0\\x80 \\xf4\\x90\\x80\\x80 \\xff" },
	};
	char text[100];
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(message_escape(cases[i].line, text, sizeof(text)),
				 strlen(cases[i].text));
		assert_string_equal(text, cases[i].text);
	}
}

/* Never half a character, never beyond the end. */
static void test_cuts(void **state)
{
	char text[8];
	assert_int_equal(message_escape("123456789", text, sizeof(text)), 7);
	assert_string_equal(text, "1234567");
	assert_int_equal(message_escape("123456\xc3\xbc", text, sizeof(text)), 6);
	assert_string_equal(text, "123456");
	assert_int_equal(message_escape("1234\x1b", text, sizeof(text)), 4);
	assert_string_equal(text, "1234");
	assert_int_equal(message_escape("x", text, 1), 0);
	assert_string_equal(text, "");
}

/* A terminal that another process has made raw for the guest gets its carriage return from us. */
static void test_ends_of_lines(void **state)
{
	struct termios mode;
	char got[64];
	int user, terminal, saved = dup(STDERR_FILENO);
	assert_int_equal(openpty(&user, &terminal, NULL, NULL, NULL), 0);
	assert_int_equal(tcgetattr(terminal, &mode), 0);
	for (int raw = 0; raw < 2; raw++) {
		if (raw) {
			cfmakeraw(&mode);
			assert_int_equal(tcsetattr(terminal, TCSANOW, &mode), 0);
		}
		dup2(terminal, STDERR_FILENO);
		message_print("a line");
		dup2(saved, STDERR_FILENO);
		/* A terminal may hand it on in pieces. */
		for (size_t size = 0; size < 15;) {
			ssize_t n = read(user, got + size, sizeof(got) - size);
			assert_in_range(n, 1, 15 - size);
			size += (size_t)n;
		}
		assert_memory_equal(got, "eagre: a line\r\n", 15);
	}
	close(user);
	close(terminal);
	close(saved);
}

/* Who has to end does not wait for a terminal that nobody reads. */
static void test_briefly(void **state)
{
	int user, terminal, saved = dup(STDERR_FILENO);
	struct timespec begun, ended;
	assert_int_equal(openpty(&user, &terminal, NULL, NULL, NULL), 0);
	int full = open(ttyname(terminal), O_WRONLY | O_NONBLOCK | O_NOCTTY);
	for (int i = 0; i < 20; i++) {
		while (write(full, "x", 1) == 1)
			continue;
		usleep(10000); /* what the terminal has taken makes room, a moment later */
	}
	dup2(terminal, STDERR_FILENO);
	clock_gettime(CLOCK_MONOTONIC, &begun);
	message_print_briefly("a line");
	clock_gettime(CLOCK_MONOTONIC, &ended);
	dup2(saved, STDERR_FILENO);
	assert_true(ended.tv_sec - begun.tv_sec < 10);
	close(full);
	close(saved); /* the terminal stays: somebody is still writing to it */
}

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*begin)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*begin)(void *), void *arg);

static bool threads_are_late;

struct late {
	void *(*begin)(void *);
	void *arg;
};

static void *begin_late(void *arg)
{
	struct late late = *(struct late *)arg;
	free(arg);
	usleep(1500000);
	return late.begin(late.arg);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*begin)(void *), void *arg)
{
	struct late *late;
	if (!threads_are_late)
		return __real_pthread_create(thread, attributes, begin, arg);
	late = malloc(sizeof(*late));
	*late = (struct late){ begin, arg };
	return __real_pthread_create(thread, attributes, begin_late, late);
}

/* The last line of a process is not lost because the host is busy. */
static void test_briefly_on_a_busy_host(void **state)
{
	char got[64] = "";
	int fds[2], saved = dup(STDERR_FILENO);
	assert_int_equal(pipe(fds), 0);
	dup2(fds[1], STDERR_FILENO);
	threads_are_late = true;
	message_print_briefly("a line");
	threads_are_late = false;
	dup2(saved, STDERR_FILENO);
	close(fds[1]);
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	assert_int_equal(read(fds[0], got, sizeof(got) - 1), 14);
	assert_string_equal(got, "eagre: a line\n");
	close(fds[0]);
	close(saved);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_escapes),	      cmocka_unit_test(test_cuts),
		cmocka_unit_test(test_ends_of_lines), cmocka_unit_test(test_briefly_on_a_busy_host),
		cmocka_unit_test(test_briefly),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
