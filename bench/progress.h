/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A benchmark's progress: one line of the terminal on stderr, written over and over. Where stderr
 * is no terminal there is none.
 */
#ifndef BENCH_PROGRESS_H
#define BENCH_PROGRESS_H

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

/* Before anything else is written to stderr, and at the end. */
static inline void progress_clear(void)
{
	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
}

__attribute__((format(printf, 1, 2))) static inline void progress_line(const char *format, ...)
{
	va_list args;

	if (!isatty(STDERR_FILENO))
		return;
	progress_clear();
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
}

#endif
