/* SPDX-License-Identifier: Apache-2.0 */
/* The code cache as memory (engine/soft/cache/cache.c). */
#include <cpuid.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/soft/cache/cache.h"
#include "engine/soft/cache/huge.h"

#define BLOCK_BYTES 4096u
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* newer than the C library's headers */
#endif

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

/* Bytes of that mapping in huge pages, whatever the kernel calls them. */
static size_t huge_bytes(uintptr_t begin)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	unsigned long first, end, kib;
	size_t bytes = 0;
	bool inside = false;
	char line[512], name[32];

	assert_non_null(file);
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &first, &end) == 2)
			inside = first == begin;
		else if (inside && sscanf(line, "%31[^:]: %lu kB", name, &kib) == 2 &&
			 (strcmp(name, "ShmemPmdMapped") == 0 ||
			  strcmp(name, "AnonHugePages") == 0))
			bytes += kib << 10;
	}
	fclose(file);
	return bytes;
}

static void publish(struct engine *engine, uint64_t gpa)
{
	struct soft_room room = soft_cache_room(engine);

	*room.block = (struct soft_block){
		.gpa = gpa, .rip = gpa, .code = room.at, .code_bytes = BLOCK_BYTES
	};
	soft_cache_publish(engine, room.block);
}

/* A piece of it is in a huge page soon after it is begun, if the kernel can (Linux 6.1). */
static void test_pieces_are_huge(void **state)
{
	struct engine *engine = calloc(1, sizeof(*engine));
	uint8_t *begin;

	(void)state;
	assert_non_null(engine);
	assert_int_equal(soft_cache_create(engine), 0);
	begin = (uint8_t *)((uintptr_t)soft_cache_room(engine).at & ~(uintptr_t)(HUGE_BYTES - 1));
	if (madvise(begin, HUGE_BYTES, MADV_COLLAPSE) < 0) {
		soft_cache_destroy(engine);
		free(engine);
		skip();
	}
	for (uint64_t gpa = PAGE_BYTES; soft_cache_room(engine).at < begin + 2 * HUGE_BYTES;
	     gpa += PAGE_BYTES) {
		/* As if it were code: a piece without any cannot be made huge. */
		memset(soft_cache_room(engine).at + soft_cache_alias(engine), 0x90, BLOCK_BYTES);
		publish(engine, gpa);
	}
	for (int turn = 0; turn < 3000 && huge_bytes((uintptr_t)begin) < 2 * HUGE_BYTES; turn++)
		usleep(10000);
	assert_in_range(huge_bytes((uintptr_t)begin), 2 * HUGE_BYTES, 4 * HUGE_BYTES);
	soft_cache_destroy(engine);
	free(engine);
}

/* What is written by the one address is executed at the other, which cannot be written. */
static void test_never_both(void **state)
{
	struct engine *engine = calloc(1, sizeof(*engine));
	struct soft_room room;
	uint8_t *written;
	unsigned long first, end;
	char line[512], rights[5];
	unsigned int eax, ebx, ecx, edx;
	int code = 0;
	FILE *file;

	(void)state;
	assert_non_null(engine);
	assert_int_equal(soft_cache_create(engine), 0);
	room = soft_cache_room(engine);
	written = room.at + soft_cache_alias(engine);
	written[0] = 0xb8; /* mov eax, 42; ret */
	memcpy(written + 1, (const uint8_t[]){ 42, 0, 0, 0, 0xc3 }, 5);
	assert_int_equal(((int (*)(void))(uintptr_t)room.at)(), 42);
	soft_cache_patch(engine, room.at + 1, room.at + 5 + 43);
	__cpuid(0, eax, ebx, ecx, edx); /* as who enters code that has been changed */
	assert_int_equal(((int (*)(void))(uintptr_t)room.at)(), 43);
	assert_int_equal(engine->code_writes, 1);
	publish(engine, PAGE_BYTES);
	assert_int_equal(engine->code_writes, 2);
	room.block->head = room.block->stale = room.at;
	room.block->valid = true;
	soft_block_invalidate(engine, room.block);
	assert_int_equal(engine->code_writes, 3);
	file = fopen("/proc/self/maps", "r");
	assert_non_null(file);
	while (fgets(line, sizeof(line), file)) {
		assert_int_equal(sscanf(line, "%lx-%lx %4s", &first, &end, rights), 3);
		assert_false(rights[1] == 'w' && rights[2] == 'x');
		if ((uintptr_t)room.at >= first && (uintptr_t)room.at < end) {
			assert_string_equal(rights, "r-xs");
			code++;
		}
		if ((uintptr_t)written >= first && (uintptr_t)written < end) {
			assert_string_equal(rights, "rw-s");
			code++;
		}
	}
	fclose(file);
	assert_int_equal(code, 2);
	soft_cache_destroy(engine);
	free(engine);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_huge_pages),
					    cmocka_unit_test(test_pieces_are_huge),
					    cmocka_unit_test(test_never_both) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
