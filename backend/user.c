/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines for the user (user.h).
 */
#include "backend/user.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#define APART_NS 1000000000ull

void backend_say(struct backend_user *user, const char *format, ...)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	uint64_t now_ns = (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
	if (user->said_ns && now_ns - user->said_ns < APART_NS) {
		user->kept_quiet++;
		return;
	}
	char text[384], line[512];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (user->kept_quiet)
		snprintf(line, sizeof(line), "%s: %s (and %u more before)", user->name, text,
			 user->kept_quiet);
	else
		snprintf(line, sizeof(line), "%s: %s", user->name, text);
	user->said_ns = now_ns;
	user->kept_quiet = 0;
	user->say(user->ctx, line);
}
