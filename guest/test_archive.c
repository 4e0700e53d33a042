/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of archive.c: what is written must be what cpio's own format says. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "guest/archive.h"

struct member {
	char name[64];
	size_t mode;
	size_t size;
	const char *data;
};

static size_t hex_field(const char *header, int index)
{
	char digits[9] = { 0 };

	memcpy(digits, header + 6 + 8 * index, 8);
	return strtoul(digits, NULL, 16);
}

/* An independent reader of newc, written from cpio(5). Returns the next member's offset. */
static size_t read_member(const char *archive, size_t at, struct member *m)
{
	const char *header = archive + at;
	size_t name_size;

	assert_int_equal(at % 4, 0);
	assert_memory_equal(header, "070701", 6);
	name_size = hex_field(header, 11);
	m->mode = hex_field(header, 1);
	m->size = hex_field(header, 6);
	assert_true(name_size <= sizeof(m->name));
	memcpy(m->name, header + 110, name_size);
	assert_int_equal(m->name[name_size - 1], '\0');
	at = (at + 110 + name_size + 3) / 4 * 4;
	m->data = archive + at;
	return (at + m->size + 3) / 4 * 4;
}

static void command_is_archived(void **state)
{
	static char out[GUEST_ARCHIVE_SIZE_MAX];
	char *argv[] = { "sh", "-c", "echo 'a b'; exit 3", "" };
	static const char want[] = "sh\0-c\0echo 'a b'; exit 3\0";
	ssize_t size = guest_command_archive(4, argv, out, sizeof(out));
	struct member m;
	size_t at;

	(void)state;
	assert_true(size > 0);
	assert_int_equal(size % 512, 0);
	at = read_member(out, 0, &m);
	assert_string_equal(m.name, "eagre");
	assert_int_equal(m.mode, 0040755);
	at = read_member(out, at, &m);
	assert_string_equal(m.name, GUEST_COMMAND_PATH);
	assert_int_equal(m.mode, 0100644);
	assert_int_equal(m.size, sizeof(want));
	assert_memory_equal(m.data, want, sizeof(want));
	at = read_member(out, at, &m);
	assert_string_equal(m.name, "TRAILER!!!");
	for (; at < (size_t)size; at++)
		assert_int_equal(out[at], 0);
}

static void limits_are_kept(void **state)
{
	static char out[GUEST_ARCHIVE_SIZE_MAX];
	static char longest[GUEST_COMMAND_BYTES_MAX + 1];
	static char *many[GUEST_COMMAND_ARGS_MAX + 1];
	char *one[] = { longest };
	ssize_t size;

	(void)state;
	assert_int_equal(guest_command_archive(0, one, out, sizeof(out)), -EINVAL);
	memset(longest, 'x', GUEST_COMMAND_BYTES_MAX);
	assert_int_equal(guest_command_archive(1, one, out, sizeof(out)), -E2BIG);
	longest[GUEST_COMMAND_BYTES_MAX - 1] = '\0';
	size = guest_command_archive(1, one, out, sizeof(out));
	assert_true(size > 0);
	for (size_t i = 0; i <= GUEST_COMMAND_ARGS_MAX; i++)
		many[i] = "x";
	assert_int_equal(guest_command_archive(GUEST_COMMAND_ARGS_MAX + 1, many, out, sizeof(out)),
			 -E2BIG);
	/* Every size that is too small is refused, and none of them is overrun. */
	one[0] = "ls";
	size = guest_command_archive(1, one, out, sizeof(out));
	for (size_t room = 0; room < (size_t)size; room++) {
		char *exact = malloc(room + 1);

		exact[room] = 0x55;
		assert_int_equal(guest_command_archive(1, one, exact, room), -ENOBUFS);
		assert_int_equal(exact[room], 0x55);
		free(exact);
	}
}

/* Four zero bytes end an lz4 initramfs. */
static void padding_reaches_alignment(void **state)
{
	(void)state;
	for (size_t size = 0; size < 9; size++) {
		assert_int_equal((size + guest_archive_padding(size)) % 4, 0);
		assert_in_range(guest_archive_padding(size), 4, GUEST_ARCHIVE_PADDING_MAX);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(command_is_archived),
		cmocka_unit_test(limits_are_kept),
		cmocka_unit_test(padding_reaches_alignment),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
