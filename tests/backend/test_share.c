/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk for several users: each gets its own requests back, all take turns, and what one asks for
 * keeps nobody out.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/share.h"
#include "tests/backend/drive.h"
#include "tests/backend/memory_disk.h"

#define BYTES (4u << 20)
#define PORTS 3u
#define MANY  1000u

static struct memory_disk memory;
static struct disk_share *share;

static void make(uint32_t limit)
{
	memory_disk_make(&memory, BYTES, 11);
	memory.limit = limit;
	assert_int_equal(disk_share_create(&memory.disk, PORTS, &share), 0);
}

static void end(void)
{
	disk_share_destroy(share);
	memory_disk_free(&memory);
}

static void test_storm(void **state)
{
	static const uint32_t limits[] = { 1, 7, DISK_REQUESTS_MAX };
	for (uint32_t i = 0; i < 3; i++) {
		make(limits[i]);
		drive_storm(disk_share_port(share, 1), 5 + i, 1500);
		assert_in_range(memory.count_max, 1, limits[i]);
		end();
	}
}

/* One port has asked for very much: another's request is among the next that the disk does. */
static void test_turns(void **state)
{
	static struct disk_request many[MANY];
	struct disk_request one = { .op = DISK_FLUSH }, *done;
	struct disk *greedy, *modest;
	uint32_t before = 0;
	make(4);
	greedy = disk_share_port(share, 0);
	modest = disk_share_port(share, 2);
	for (uint32_t i = 0; i < MANY; i++) {
		many[i] = (struct disk_request){ .op = DISK_FLUSH, .owner = greedy };
		assert_int_equal(disk_submit(greedy, &many[i]), 0);
	}
	assert_int_equal(disk_submit(modest, &one), 0);
	while (!(done = disk_done(modest))) {
		disk_work(greedy);
		while (disk_done(greedy))
			before++;
	}
	assert_ptr_equal(done, &one);
	/* Those that the disk had, and a turn or two: it does them in any order. */
	assert_in_range(before, 0, 40);
	while (before < MANY) {
		disk_work(greedy);
		while ((done = disk_done(greedy))) {
			assert_ptr_equal(done->owner, greedy);
			before++;
		}
		assert_null(disk_done(modest));
	}
	end();
}

static void test_errors(void **state)
{
	uint8_t data[512];
	struct disk *port;
	make(4);
	port = disk_share_port(share, 0);
	assert_int_equal(drive_data(port, DISK_READ, BYTES, data, 512), -EINVAL);
	memory.fail = -EIO;
	assert_int_equal(drive_data(port, DISK_READ, 0, data, 512), -EIO);
	memory.fail = -EOPNOTSUPP;
	assert_int_equal(drive_range(port, DISK_DISCARD, 0, 512, false), -EOPNOTSUPP);
	end();
	assert_int_equal(disk_share_create(&memory.disk, 0, &share), -EINVAL);
	assert_int_equal(disk_share_create(&memory.disk, DISK_PORTS_MAX + 1, &share), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_storm),
		cmocka_unit_test(test_turns),
		cmocka_unit_test(test_errors),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
