/* SPDX-License-Identifier: Apache-2.0 */
/* Lines for the user: in order, and nobody waits for who does not read them. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "node/say.h"
#include "tests/test.h"

struct reader {
	pthread_mutex_t lock; /* held: it does not read */
	unsigned int count;
	char line[256][SAY_LINE_MAX];
};

static void print(void *context, const char *line)
{
	struct reader *reader = context;
	pthread_mutex_lock(&reader->lock);
	if (reader->count < 256)
		snprintf(reader->line[reader->count++], SAY_LINE_MAX, "%s", line);
	pthread_mutex_unlock(&reader->lock);
}

static unsigned int elapsed_ms(const struct timespec *since)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (unsigned int)((now.tv_sec - since->tv_sec) * 1000 +
			      (now.tv_nsec - since->tv_nsec) / 1000000);
}

static struct reader reader = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void test_in_order(void **state)
{
	static struct say *say; /* never freed: say.h */
	char line[32];
	reader.count = 0;
	assert_int_equal(say_create(print, &reader, &say), 0);
	for (int i = 0; i < 50; i++) {
		snprintf(line, sizeof(line), "line %d", i);
		say_line(say, line);
	}
	say_close(say, 5000);
	assert_int_equal(reader.count, 50);
	assert_string_equal(reader.line[0], "line 0");
	assert_string_equal(reader.line[49], "line 49");
	say_line(say, "goes nowhere");
}

/* A reader that does not read: whoever speaks goes on, and what was too much is counted. */
static void test_nobody_reads(void **state)
{
	static struct say *say; /* never freed: say.h */
	struct timespec start;
	reader.count = 0;
	assert_int_equal(say_create(print, &reader, &say), 0);
	clock_gettime(CLOCK_MONOTONIC, &start);
	pthread_mutex_lock(&reader.lock);
	for (int i = 0; i < SAY_LINES + 100; i++)
		say_line(say, "a line that nobody reads");
	pthread_mutex_unlock(&reader.lock);
	say_close(say, 5000);
	assert_true(reader.count >= SAY_LINES + 1 && reader.count < SAY_LINES + 100);
	assert_non_null(strstr(reader.line[reader.count - 1], "more lines"));
}

static void test_close_is_bounded(void **state)
{
	static struct say *say; /* never freed: say.h */
	struct timespec start;
	assert_int_equal(say_create(print, &reader, &say), 0);
	pthread_mutex_lock(&reader.lock);
	say_line(say, "stuck");
	clock_gettime(CLOCK_MONOTONIC, &start);
	say_close(say, 100);
	assert_in_range(elapsed_ms(&start), 90, 5000);
	pthread_mutex_unlock(&reader.lock);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_in_order),
		cmocka_unit_test(test_nobody_reads),
		cmocka_unit_test(test_close_is_bounded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
