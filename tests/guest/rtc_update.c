/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In the guest: finds the beginning of a second as `hwclock --directisa` does, by the clock's
 * update-in-progress flag: waits for it to rise twice. A busy host may let it miss some, which are
 * 2 ms long; it gives up after 30 s.
 */
#include <stdio.h>
#include <sys/io.h>
#include <time.h>

#define SECONDS_MAX 30.0

static int updating(void)
{
	outb(10, 0x70);
	return inb(0x71) & 0x80;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(void)
{
	double begin = now();
	int rises = 0, before = 1;

	if (iopl(3)) {
		perror("iopl");
		return 1;
	}
	while (rises < 2 && now() - begin < SECONDS_MAX) {
		int flag = updating();

		rises += flag && !before;
		before = flag;
	}
	printf("%d updates in %.1f s\n", rises, now() - begin);
	return rises < 2;
}
