/* SPDX-License-Identifier: Apache-2.0 */
/* Lines for the user (say.h). */
#include "node/say.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/capabilities.h"
#include "node/deadline.h"

struct say {
	void (*print)(void *context, const char *line);
	void *context;
	pthread_t thread;

	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t changed;
	bool closed;
	uint32_t first, count, lost;
	char line[SAY_LINES][SAY_LINE_MAX];
};

/* The next line, waiting for it. False: there will be none. */
static bool next_line(struct say *say, char line[SAY_LINE_MAX])
{
	pthread_mutex_lock(&say->lock);
	while (!say->count && !say->lost && !say->closed)
		pthread_cond_wait(&say->changed, &say->lock);
	bool some = say->count || say->lost;
	if (say->count) {
		snprintf(line, SAY_LINE_MAX, "%s", say->line[say->first]);
		say->first = (say->first + 1) % SAY_LINES;
		say->count--;
	} else if (say->lost) {
		snprintf(line, SAY_LINE_MAX, "%u more lines came faster than they could be printed",
			 say->lost);
		say->lost = 0;
	}
	pthread_mutex_unlock(&say->lock);
	return some;
}

static void *say_thread(void *arg)
{
	struct say *say = arg;
	char line[SAY_LINE_MAX];
	pthread_setname_np(pthread_self(), "say");
	capabilities_keep(0);
	while (next_line(say, line))
		say->print(say->context, line);
	return NULL;
}

int say_create(void (*print)(void *context, const char *line), void *context, struct say **ret_say)
{
	struct say *say = calloc(1, sizeof(*say));
	if (!say)
		return -ENOMEM;
	say->print = print;
	say->context = context;
	pthread_mutex_init(&say->lock, NULL);
	pthread_cond_init(&say->changed, NULL);
	int r = -pthread_create(&say->thread, NULL, say_thread, say);
	if (r) {
		free(say);
		return r;
	}
	*ret_say = say;
	return 0;
}

void say_line(struct say *say, const char *line)
{
	pthread_mutex_lock(&say->lock);
	if (say->count == SAY_LINES) {
		say->lost++;
	} else if (!say->closed) {
		snprintf(say->line[(say->first + say->count++) % SAY_LINES], SAY_LINE_MAX, "%s",
			 line);
		pthread_cond_signal(&say->changed);
	}
	pthread_mutex_unlock(&say->lock);
}

void say_close(struct say *say, unsigned int flush_ms)
{
	if (!say)
		return;
	pthread_mutex_lock(&say->lock);
	say->closed = true;
	pthread_cond_signal(&say->changed);
	pthread_mutex_unlock(&say->lock);
	struct timespec until = deadline_after_ms(flush_ms);
	if (deadline_join(say->thread, &until))
		pthread_detach(say->thread);
}
