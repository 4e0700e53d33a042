/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files as disks: by io_uring and by threads, through the host's cache and past it; what is refused,
 * and what a guest gets when the host's file fails.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "backend/file.h"
#include "tests/backend/drive.h"

#define BYTES (4u << 20)

static char folder[] = "/var/tmp/eagre-test-file-XXXXXX"; /* on a disk, as /tmp need not be */
static char path[64], why[512];
static struct drive_lines lines;
static uint8_t buffer[BYTES] __attribute__((aligned(4096)));

static void make_file(uint64_t bytes)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	close(fd);
}

static struct disk_file_options options_of(enum disk_way way, enum disk_cache cache)
{
	lines = (struct drive_lines){ 0 };
	return (struct disk_file_options){
		.path = path, .way = way, .cache = cache, .user = drive_user(&lines)
	};
}

static struct disk *open_options(const struct disk_file_options *options)
{
	struct disk *disk = NULL;
	if (disk_file_open(options, &disk, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	return disk;
}

static struct disk *open_way(enum disk_way way, enum disk_cache cache)
{
	struct disk_file_options options = options_of(way, cache);
	return open_options(&options);
}

/* Hosts that do not permit io_uring are tested with threads alone. */
static bool has_uring(void)
{
	struct disk_file_options options = options_of(DISK_WAY_URING, DISK_CACHE_NONE);
	struct disk *disk = NULL;
	make_file(BYTES);
	if (disk_file_open(&options, &disk, why, sizeof(why)) < 0)
		return false;
	assert_true(disk_file_uses_uring(disk));
	disk_destroy(disk);
	return true;
}

static void each_way(void (*test)(enum disk_way way))
{
	if (has_uring())
		test(DISK_WAY_URING);
	test(DISK_WAY_THREADS);
}

static void storm(enum disk_way way)
{
	for (int cache = DISK_CACHE_NONE; cache <= DISK_CACHE_WRITETHROUGH; cache++) {
		make_file(BYTES + 512);
		struct disk *disk = open_way(way, (enum disk_cache)cache);
		assert_int_equal(disk->info.bytes, BYTES + 512);
		assert_int_equal(disk->info.write_back, cache != DISK_CACHE_WRITETHROUGH);
		drive_storm(disk, 7u + (uint32_t)cache, cache ? 400 : 2000);
		disk_destroy(disk);
		assert_int_equal(lines.count, 0);
	}
}

static void test_storm(void **state)
{
	each_way(storm);
}

/* Memory's files cannot make zeros, only holes. */
static void no_zero_range(enum disk_way way)
{
	int fd = memfd_create("disk", MFD_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, BYTES), 0);
	struct disk_file_options options = options_of(way, DISK_CACHE_NONE);
	char name[64];
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	options.path = name;
	struct disk *disk = open_options(&options);
	drive_storm(disk, 77, 600);
	memset(buffer, 0xa5, BYTES);
	assert_int_equal(drive_data(disk, DISK_WRITE, 0, buffer, BYTES), 0);
	assert_int_equal(drive_range(disk, DISK_ZERO, 512, BYTES - 1024, false), 0);
	assert_int_equal(drive_data(disk, DISK_READ, 0, buffer, BYTES), 0);
	for (uint32_t i = 0; i < BYTES; i++)
		if (buffer[i] != (i < 512 || i >= BYTES - 512 ? 0xa5 : 0))
			fail_msg("byte %u is %#x", i, buffer[i]);
	disk_destroy(disk);
	close(fd);
}

static void test_no_zero_range(void **state)
{
	each_way(no_zero_range);
}

static void test_discard_frees(void **state)
{
	struct stat before, after;
	make_file(BYTES);
	struct disk *disk = open_way(DISK_WAY_ANY, DISK_CACHE_NONE);
	memset(buffer, 1, BYTES);
	assert_int_equal(drive_data(disk, DISK_WRITE, 0, buffer, BYTES), 0);
	assert_int_equal(drive_range(disk, DISK_FLUSH, 0, 0, false), 0);
	assert_int_equal(stat(path, &before), 0);
	assert_int_equal(drive_range(disk, DISK_DISCARD, 0, BYTES, false), 0);
	assert_int_equal(stat(path, &after), 0);
	assert_int_equal(after.st_size, BYTES);
	/* Not every file system has holes. */
	assert_true(after.st_blocks == before.st_blocks || after.st_blocks < 64);
	disk_destroy(disk);
}

static void test_requests_refused(void **state)
{
	make_file(BYTES);
	struct disk_file_options options = options_of(DISK_WAY_ANY, DISK_CACHE_NONE);
	options.read_only = true;
	options.block_bytes = 4096;
	struct disk *disk = open_options(&options);
	assert_int_equal(disk->info.block_bytes, 4096);
	assert_int_equal(drive_data(disk, DISK_WRITE, 0, buffer, 4096), -EROFS);
	assert_int_equal(drive_range(disk, DISK_ZERO, 0, 4096, false), -EROFS);
	assert_int_equal(drive_range(disk, DISK_DISCARD, 0, 4096, false), -EROFS);
	assert_int_equal(drive_data(disk, DISK_READ, 512, buffer, 4096), -EINVAL);
	assert_int_equal(drive_data(disk, DISK_READ, 0, buffer, 512), -EINVAL);
	assert_int_equal(drive_data(disk, DISK_READ, 0, buffer, 0), -EINVAL);
	assert_int_equal(drive_data(disk, DISK_READ, BYTES, buffer, 4096), -EINVAL);
	assert_int_equal(drive_data(disk, DISK_READ, UINT64_MAX - 4095, buffer, 4096), -EINVAL);
	assert_int_equal(drive_data(disk, DISK_READ, BYTES - 4096, buffer, 8192), -EINVAL);
	struct iovec iov[2] = { { buffer, 4096 }, { buffer, 4096 } };
	struct disk_request request = {
		.op = DISK_READ, .length = 4096, .iov = iov, .iov_count = 2
	};
	assert_int_equal(disk_submit(disk, &request), -EINVAL);
	request.iov_count = 0;
	assert_int_equal(disk_submit(disk, &request), -EINVAL);
	assert_int_equal(drive_data(disk, DISK_READ, BYTES - 4096, buffer, 4096), 0);
	disk_destroy(disk);
}

/* As many as there may be, all of memory that needs a bounce, of which there are fewer. */
static void many(enum disk_way way)
{
	static struct disk_request request[DISK_REQUESTS_MAX + 1];
	static struct iovec iov[DISK_REQUESTS_MAX + 1];
	make_file(BYTES);
	struct disk *disk = open_way(way, DISK_CACHE_NONE);
	uint32_t taken = 0, done = 0;
	for (uint32_t i = 0; i <= DISK_REQUESTS_MAX; i++) {
		iov[i] = (struct iovec){ buffer + 1 + i * 1024, 512 };
		request[i] = (struct disk_request){ .op = i % 2 ? DISK_READ : DISK_WRITE,
						    .offset = i * 512,
						    .length = 512,
						    .iov = &iov[i],
						    .iov_count = 1 };
		int r = disk_submit(disk, &request[i]);
		assert_int_equal(r, i < DISK_REQUESTS_MAX ? 0 : -EAGAIN);
		taken += r == 0;
	}
	while (done < taken) {
		struct disk_request *next = drive_next(disk, 60000);
		assert_non_null(next);
		assert_int_equal(next->result, 0);
		done++;
	}
	assert_int_equal(disk_submit(disk, &request[DISK_REQUESTS_MAX]), 0);
	assert_ptr_equal(drive_next(disk, 60000), &request[DISK_REQUESTS_MAX]);
	disk_destroy(disk);
}

static void test_many(void **state)
{
	each_way(many);
}

/* More than a bounce has room for. */
static void large(enum disk_way way)
{
	static uint8_t copy[BYTES];
	make_file(BYTES);
	struct disk *disk = open_way(way, DISK_CACHE_NONE);
	for (uint32_t i = 0; i < BYTES; i++)
		buffer[i] = (uint8_t)(i * 2654435761u >> 24);
	assert_int_equal(drive_data(disk, DISK_WRITE, 512, buffer + 3, BYTES - 1024), 0);
	assert_int_equal(drive_data(disk, DISK_READ, 512, copy + 1, BYTES - 1024), 0);
	assert_memory_equal(copy + 1, buffer + 3, BYTES - 1024);
	memset(copy, 0, BYTES);
	assert_int_equal(drive_data(disk, DISK_READ, 512, copy, BYTES - 1024), 0);
	assert_memory_equal(copy, buffer + 3, BYTES - 1024);
	disk_destroy(disk);
}

static void test_large(void **state)
{
	each_way(large);
}

/* Large ones in many pieces that are not in order, as a guest's memory is; more than have a bounce. */
static void scattered(enum disk_way way)
{
	enum { REQUESTS = 8, PIECES = 128, PIECE = 4096, LENGTH = PIECES * PIECE };
	static struct disk_request request[REQUESTS];
	static struct iovec iov[REQUESTS][PIECES];
	static uint8_t copy[BYTES] __attribute__((aligned(4096)));
	make_file(BYTES);
	struct disk *disk = open_way(way, DISK_CACHE_NONE);
	for (uint32_t i = 0; i < BYTES; i++)
		buffer[i] = (uint8_t)(i * 2654435761u >> 23);
	memset(copy, 0, BYTES);
	for (int turn = 0; turn < 2; turn++) {
		uint8_t *data = turn ? copy : buffer;
		for (uint32_t i = 0; i < REQUESTS; i++) {
			for (uint32_t k = 0; k < PIECES; k++)
				iov[i][k] = (struct iovec){
					data + i * LENGTH + (k * 37 + i) % PIECES * PIECE, PIECE
				};
			request[i] = (struct disk_request){ .op = turn ? DISK_READ : DISK_WRITE,
							    .offset = i * LENGTH,
							    .length = LENGTH,
							    .iov = iov[i],
							    .iov_count = PIECES };
			assert_int_equal(disk_submit(disk, &request[i]), 0);
		}
		for (uint32_t i = 0; i < REQUESTS; i++) {
			struct disk_request *next = drive_next(disk, 60000);
			assert_non_null(next);
			assert_int_equal(next->result, 0);
		}
	}
	assert_memory_equal(copy, buffer, BYTES);
	/* As the file has it, and not only as it comes back. */
	assert_int_equal(drive_data(disk, DISK_READ, 0, copy, PIECE), 0);
	assert_memory_equal(copy, buffer, PIECE);
	assert_int_equal(drive_data(disk, DISK_READ, PIECE, copy, PIECE), 0);
	assert_memory_equal(copy, buffer + 37 * PIECE, PIECE);
	disk_destroy(disk);
}

static void test_scattered(void **state)
{
	each_way(scattered);
}

/* One that is destroyed while it works has let go of memory. */
static void destroyed(enum disk_way way)
{
	static struct disk_request request[64];
	static struct iovec iov[64];
	make_file(BYTES);
	struct disk *disk = open_way(way, DISK_CACHE_NONE);
	for (uint32_t i = 0; i < 64; i++) {
		iov[i] = (struct iovec){ buffer + i * 4096, 4096 };
		request[i] = (struct disk_request){ .op = DISK_WRITE,
						    .offset = i * 4096,
						    .length = 4096,
						    .iov = &iov[i],
						    .iov_count = 1 };
		assert_int_equal(disk_submit(disk, &request[i]), 0);
	}
	disk_destroy(disk);
	disk = open_way(way, DISK_CACHE_NONE); /* and of its lock */
	disk_destroy(disk);
}

static void test_destroyed(void **state)
{
	each_way(destroyed);
}

static int try_open(const struct disk_file_options *options)
{
	struct disk *disk = NULL;
	int r = disk_file_open(options, &disk, why, sizeof(why));
	disk_destroy(disk);
	return r;
}

static void test_locked(void **state)
{
	make_file(BYTES);
	struct disk_file_options options = options_of(DISK_WAY_ANY, DISK_CACHE_NONE);
	struct disk *first = open_options(&options);
	assert_int_equal(try_open(&options), -EBUSY);
	assert_non_null(strstr(why, "is locked"));
	options.read_only = true;
	assert_int_equal(try_open(&options), -EBUSY);
	disk_destroy(first);
	first = open_options(&options);
	assert_int_equal(try_open(&options), 0); /* many may read */
	options.read_only = false;
	assert_int_equal(try_open(&options), -EBUSY);
	disk_destroy(first);
	assert_int_equal(try_open(&options), 0);
}

static void refused(const char *what, int error, const char *line)
{
	struct disk_file_options options = options_of(DISK_WAY_ANY, DISK_CACHE_NONE);
	options.path = what;
	assert_int_equal(try_open(&options), error);
	if (!strstr(why, line) || !strstr(why, what) || strchr(why, '\n'))
		fail_msg("'%s' should have '%s' and '%s'", why, what, line);
}

static void test_bad_input(void **state)
{
	unlink(path);
	refused(path, -ENOENT, "is not there; 'truncate -s 10G FILE' makes an empty disk");
	refused(folder, -EISDIR, "is a directory");
	refused("/dev/null", -EINVAL, "is neither a file nor a block device");
	make_file(0);
	refused(path, -EINVAL, "is empty");
	make_file(1000);
	refused(path, -EINVAL, "has 1000 bytes, no multiple of 512");
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	refused(path, -EINVAL, "is neither a file nor a block device");
	unlink(path);
	make_file(BYTES);
	struct disk_file_options options = options_of(DISK_WAY_ANY, DISK_CACHE_NONE);
	options.block_bytes = 4096;
	assert_int_equal(truncate(path, BYTES + 512), 0);
	assert_int_equal(try_open(&options), -EINVAL);
	assert_non_null(strstr(why, "no multiple of 4096"));
	bool root = geteuid() == 0; /* who may */
	chmod(path, 0);
	chmod(folder, 0711);
	if (root && seteuid(65534) < 0)
		skip();
	refused(path, -EACCES,
		"cannot be opened for writing: Permission denied; or take it read-only");
	options = options_of(DISK_WAY_ANY, DISK_CACHE_NONE);
	options.read_only = true;
	int r = try_open(&options);
	if (root)
		assert_int_equal(seteuid(0), 0);
	assert_int_equal(r, -EACCES);
	assert_non_null(strstr(why, "for reading: Permission denied; let this user read it"));
}

static void test_other_format(void **state)
{
	make_file(BYTES);
	int fd = open(path, O_RDWR);
	assert_int_equal(write(fd, "QFI\xfb\0\0\0\3", 8), 8);
	close(fd);
	struct disk *disk = open_way(DISK_WAY_ANY, DISK_CACHE_NONE);
	assert_non_null(strstr(lines.last, "looks like a qcow2 image"));
	disk_destroy(disk);
}

/* The host's disk is full, in effect: no file may be larger. */
static void full(enum disk_way way)
{
	struct rlimit before, limit;
	getrlimit(RLIMIT_FSIZE, &before);
	make_file(BYTES);
	struct disk *disk = open_way(way, DISK_CACHE_WRITEBACK);
	memset(buffer, 3, 65536);
	limit = before;
	limit.rlim_cur = BYTES / 2;
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &limit);
	int inside = drive_data(disk, DISK_WRITE, 0, buffer, 65536);
	int across = drive_data(disk, DISK_WRITE, BYTES / 2 - 4096, buffer, 65536);
	uint32_t said = lines.count;
	int again = drive_data(disk, DISK_WRITE, BYTES / 2, buffer, 4096);
	int reading = drive_data(disk, DISK_READ, BYTES / 2, buffer, 4096);
	setrlimit(RLIMIT_FSIZE, &before);
	assert_int_equal(inside, 0);
	assert_int_equal(across, -EIO);
	assert_int_equal(again, -EIO);
	assert_int_equal(reading, 0);
	assert_int_equal(said, 1);
	assert_true(lines.count <= 2); /* a slow machine has the second one, too */
	assert_non_null(strstr(lines.last, "disk test: writing "));
	assert_non_null(strstr(lines.last, "File too large; the guest gets an I/O error"));
	assert_int_equal(drive_data(disk, DISK_WRITE, BYTES / 2, buffer, 4096), 0);
	disk_destroy(disk);
}

static void test_full(void **state)
{
	each_way(full);
}

static void shrunk(enum disk_way way)
{
	make_file(BYTES);
	struct disk *disk = open_way(way, DISK_CACHE_NONE);
	memset(buffer, 4, 65536);
	assert_int_equal(drive_data(disk, DISK_WRITE, BYTES / 2 - 32768, buffer, 65536), 0);
	assert_int_equal(truncate(path, BYTES / 2), 0);
	assert_int_equal(drive_data(disk, DISK_READ, BYTES / 2 - 32768, buffer, 65536), -EIO);
	assert_non_null(strstr(lines.last, "it has become smaller; the guest gets an I/O error"));
	assert_int_equal(drive_data(disk, DISK_READ, BYTES / 2 - 32768, buffer, 32768), 0);
	disk_destroy(disk);
}

static void test_shrunk(void **state)
{
	each_way(shrunk);
}

/* As containers' filters do it. In a child: a filter stays. */
static void deny_uring(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		_exit(10);
}

static void test_uring_denied(void **state)
{
	int status;
	make_file(BYTES);
	pid_t pid = fork();
	if (pid == 0) {
		deny_uring();
		struct disk_file_options options = options_of(DISK_WAY_ANY, DISK_CACHE_NONE);
		struct disk *disk = NULL;
		if (disk_file_open(&options, &disk, why, sizeof(why)) < 0)
			_exit(1);
		if (disk_file_uses_uring(disk) ||
		    !strstr(lines.last, "does not permit io_uring (Operation not permitted)"))
			_exit(2);
		_exit(drive_data(disk, DISK_WRITE, 0, buffer, 65536) == 0 &&
				      drive_data(disk, DISK_READ, 0, buffer, 65536) == 0
			      ? 0
			      : 3);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static int set_up(void **state)
{
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/disk", folder);
	return 0;
}

static int tear_down(void **state)
{
	unlink(path);
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_storm),	      cmocka_unit_test(test_no_zero_range),
		cmocka_unit_test(test_discard_frees), cmocka_unit_test(test_requests_refused),
		cmocka_unit_test(test_many),	      cmocka_unit_test(test_large),
		cmocka_unit_test(test_scattered),     cmocka_unit_test(test_destroyed),
		cmocka_unit_test(test_locked),	      cmocka_unit_test(test_bad_input),
		cmocka_unit_test(test_other_format),  cmocka_unit_test(test_full),
		cmocka_unit_test(test_shrunk),	      cmocka_unit_test(test_uring_denied),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
