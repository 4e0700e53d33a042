/* SPDX-License-Identifier: Apache-2.0 */
/* The code cache as memory (engine/soft/cache/cache.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/soft/cache/cache.h"

#define HUGE_BYTES (2u << 20)

/* VmFlags of the mapping that begins at `begin`, and its size. */
static size_t flags_of(uintptr_t begin, char *flags, int size)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	unsigned long first, end;
	size_t bytes = 0;
	char line[512];

	assert_non_null(file);
	flags[0] = '\0';
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &first, &end) == 2)
			bytes = first == begin ? end - first : 0;
		else if (bytes && strncmp(line, "VmFlags:", 8) == 0) {
			snprintf(flags, (size_t)size, "%s", line);
			break;
		}
	}
	fclose(file);
	return bytes;
}

/* It may have huge pages, as many as fit, where the host's kernel knows any. */
static void test_huge_pages(void **state)
{
	struct engine *engine = calloc(1, sizeof(*engine));
	uintptr_t base;
	char flags[512];
	size_t bytes;

	(void)state;
	assert_non_null(engine);
	assert_int_equal(soft_cache_create(engine), 0);
	base = (uintptr_t)soft_cache_room(engine).at & ~(uintptr_t)(HUGE_BYTES - 1);
	bytes = flags_of(base, flags, sizeof(flags));
	assert_true(bytes && bytes % HUGE_BYTES == 0);
	if (access("/sys/kernel/mm/transparent_hugepage/enabled", F_OK) == 0)
		assert_non_null(strstr(flags, " hg "));
	soft_cache_destroy(engine);
	assert_int_equal(flags_of(base, flags, sizeof(flags)), 0);
	free(engine);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_huge_pages) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
