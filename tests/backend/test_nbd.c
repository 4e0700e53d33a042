/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NBD disks, with nbdkit as the server: what goes through is right, also when the server ends and
 * comes back, or does not.
 *
 *	test_nbd NBDKIT
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "backend/nbd.h"
#include "tests/backend/drive.h"

#define BYTES	    (4u << 20)
#define PATIENCE_MS 60000

static const char *nbdkit;
static char folder[] = "/tmp/eagre-test-nbd-XXXXXX", file[64], socket_path[64], uri[128], why[512];
static struct drive_lines lines;
static uint8_t buffer[BYTES];
static pid_t server;

/* With another word in front of the plugin, or NULL. */
static void start_server(const char *word)
{
	unlink(socket_path);
	server = fork();
	if (server == 0) {
		char name[80];
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		snprintf(name, sizeof(name), "file=%s", file);
		if (word)
			execl(nbdkit, nbdkit, "-f", "-U", socket_path, word, "file", name, NULL);
		else
			execl(nbdkit, nbdkit, "-f", "-U", socket_path, "file", name, NULL);
		_exit(127);
	}
	assert_true(server > 0);
}

static void end_server(void)
{
	kill(server, SIGKILL);
	assert_int_equal(waitpid(server, NULL, 0), server);
}

static void make_file(uint64_t bytes)
{
	int fd = open(file, O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	close(fd);
}

static struct disk *open_disk(uint32_t timeout_s, uint32_t silent_s)
{
	struct disk *disk;
	lines = (struct drive_lines){ 0 };
	struct disk_nbd_options options = { .uri = uri,
					    .serial = "n",
					    .timeout_s = timeout_s,
					    .silent_s = silent_s,
					    .connect_s = 60,
					    .user = drive_user(&lines) };
	if (disk_nbd_open(&options, &disk, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	return disk;
}

static void test_storm(void **state)
{
	make_file(BYTES + 512);
	start_server(NULL);
	struct disk *disk = open_disk(60, 0);
	assert_int_equal(disk->info.bytes, BYTES + 512);
	assert_true(disk->info.discard && disk->info.zero && disk->info.write_back);
	assert_string_equal(disk->info.serial, "n");
	drive_storm(disk, 5, 1500);
	assert_int_equal(lines.count, 0);
	disk_destroy(disk);
	end_server();
}

/* It keeps in memory, and loses when it is killed, what it is not told to flush. */
static void start_server_that_forgets(void)
{
	unlink(socket_path);
	server = fork();
	if (server == 0) {
		char name[80];
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		snprintf(name, sizeof(name), "file=%s", file);
		execl(nbdkit, nbdkit, "-f", "-U", socket_path, "--filter=cache", "file", name,
		      "cache=writeback", NULL);
		_exit(127);
	}
	assert_true(server > 0);
}

/* It wants whole blocks of 4 KiB. */
static void start_server_of_large_blocks(void)
{
	unlink(socket_path);
	server = fork();
	if (server == 0) {
		char name[80];
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		snprintf(name, sizeof(name), "file=%s", file);
		execl(nbdkit, nbdkit, "-f", "-U", socket_path, "--filter=blocksize-policy", "file",
		      name, "blocksize-minimum=4096", "blocksize-preferred=4096",
		      "blocksize-maximum=32M", "blocksize-error-policy=error", NULL);
		_exit(127);
	}
}

/* The pieces of memory are of any size. */
static void test_large_blocks(void **state)
{
	make_file(BYTES);
	start_server_of_large_blocks();
	struct disk *disk = open_disk(60, 0);
	assert_int_equal(disk->info.block_bytes, 4096);
	drive_storm(disk, 6, 500);
	assert_int_equal(lines.count, 0);
	disk_destroy(disk);
	end_server();
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static rlim_t memory_of_process(void)
{
	unsigned long pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%lu", &pages), 1);
	fclose(f);
	return (rlim_t)pages * 4096;
}

/* Nobody would say when to ask again: the request fails, and the next one does not. */
static void test_no_memory(void **state)
{
	struct iovec pieces[] = { { buffer, 512 },
				  { buffer + 512, BYTES - 512 },
				  { buffer, BYTES },
				  { buffer, BYTES },
				  { buffer, BYTES } };
	struct disk_request odd = {
		.op = DISK_READ, .length = 4 * BYTES, .iov = pieces, .iov_count = 5
	};
	struct rlimit before, little;
	make_file(4 * BYTES);
	start_server_of_large_blocks();
	struct disk *disk = open_disk(60, 0);
	malloc_trim(0);
	assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
	little = (struct rlimit){ memory_of_process() + (1u << 20), before.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_AS, &little), 0);
	int r = disk_submit(disk, &odd);
	assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
	assert_int_equal(r, 0);
	disk_settle(disk);
	struct pollfd fd = { .fd = disk_fd(disk), .events = POLLIN };
	assert_int_equal(poll(&fd, 1, PATIENCE_MS), 1);
	disk_work(disk);
	assert_ptr_equal(disk_done(disk), &odd);
	assert_int_equal(odd.result, -EIO);
	assert_non_null(strstr(lines.last, "no memory"));
	assert_int_equal(drive_one(disk, &odd), 0);
	disk_destroy(disk);
	end_server();
}
#endif

#define MANY 64
static struct disk_request request[MANY];
static struct iovec iov[MANY];

static void submit_many(struct disk *disk, enum disk_op op)
{
	for (uint32_t i = 0; i < MANY; i++) {
		iov[i] = (struct iovec){ buffer + i * 16384, 16384 };
		request[i] = (struct disk_request){ .op = op,
						    .offset = i * 16384,
						    .length = 16384,
						    .iov = &iov[i],
						    .iov_count = 1 };
		assert_int_equal(disk_submit(disk, &request[i]), 0);
	}
}

static void all_done(struct disk *disk, int result)
{
	for (uint32_t i = 0; i < MANY; i++) {
		struct disk_request *next = drive_next(disk, PATIENCE_MS);
		assert_non_null(next);
		assert_int_equal(next->result, result);
	}
}

/* The server ends with requests under way, again and again; they are done by the next one. */
static void test_comes_back(void **state)
{
	make_file(BYTES);
	start_server(NULL);
	struct disk *disk = open_disk(60, 0);
	for (uint32_t round = 0; round < 5; round++) {
		for (uint32_t i = 0; i < MANY * 16384; i++)
			buffer[i] = (uint8_t)(i / 7 + round * 31);
		submit_many(disk, DISK_WRITE);
		end_server();
		disk_settle(disk);
		disk_work(disk);
		start_server(NULL);
		all_done(disk, 0);
		memset(buffer, 0, sizeof(buffer));
		submit_many(disk, DISK_READ);
		all_done(disk, 0);
		for (uint32_t i = 0; i < MANY * 16384; i++)
			if (buffer[i] != (uint8_t)(i / 7 + round * 31))
				fail_msg("round %u: byte %u is %#x", round, i, buffer[i]);
	}
	assert_true(lines.count >= 2);
	disk_destroy(disk);
	end_server();
}

/* More than a command's reach: one command after the other. */
static void test_long_ranges(void **state)
{
	static const enum disk_op ops[] = { DISK_DISCARD, DISK_ZERO };
	uint64_t bytes = 5ull << 30; /* of nothing */
	make_file(bytes);
	start_server(NULL);
	struct disk *disk = open_disk(60, 0);
	for (uint32_t i = 0; i < 2; i++) {
		uint64_t last = bytes - 4096;
		memset(buffer, 7, 4096);
		assert_int_equal(drive_data(disk, DISK_WRITE, last, buffer, 4096), 0);
		assert_int_equal(drive_range(disk, ops[i], 4096, bytes - 4096, true), 0);
		assert_int_equal(drive_data(disk, DISK_READ, last, buffer, 4096), 0);
		for (uint32_t b = 0; b < 4096 && ops[i] == DISK_ZERO; b++)
			assert_int_equal(buffer[b], 0);
	}
	assert_int_equal(lines.count, 0);
	disk_destroy(disk);
	end_server();
}

static void write_bytes(struct disk *disk, uint8_t *model, uint64_t at, size_t bytes, int value)
{
	memset(model + at, value, bytes);
	assert_int_equal(drive_data(disk, DISK_WRITE, at, model + at, bytes), 0);
}

static void expect(struct disk *disk, const uint8_t *model)
{
	memset(buffer, 0xee, sizeof(buffer));
	assert_int_equal(drive_data(disk, DISK_READ, 0, buffer, BYTES), 0);
	for (uint32_t i = 0; i < BYTES; i++)
		if (buffer[i] != model[i])
			fail_msg("byte %u is %#x, not %#x", i, buffer[i], model[i]);
}

static uint8_t model[BYTES];

/* What it had acknowledged and was not told to flush is there again before anything else is asked. */
static void test_forgets(void **state)
{
	make_file(BYTES);
	start_server_that_forgets();
	struct disk *disk = open_disk(60, 0);
	memset(model, 0, sizeof(model));
	for (int round = 1; round < 4; round++) {
		write_bytes(disk, model, 0, BYTES / 2, round);
		if (round == 2)
			assert_int_equal(drive_range(disk, DISK_FLUSH, 0, 0, false), 0);
		write_bytes(disk, model, 65536, 65536, round + 16);
		write_bytes(disk, model, 98304, 65536, round + 32);
		memset(model + 8192, 0, 65536);
		assert_int_equal(drive_range(disk, DISK_ZERO, 8192, 65536, true), 0);
		assert_int_equal(drive_range(disk, DISK_DISCARD, 100u << 10, 65536, false), 0);
		write_bytes(disk, model, 100u << 10, 65536, round + 48);
		end_server();
		start_server_that_forgets();
		expect(disk, model);
		assert_non_null(
			strstr(lines.last, "that it was not told to flush have been written"));
	}
	/* What was flushed is not written again. */
	assert_int_equal(drive_range(disk, DISK_FLUSH, 0, 0, false), 0);
	end_server();
	start_server_that_forgets();
	expect(disk, model);
	assert_null(strstr(lines.last, "flush"));
	disk_destroy(disk);
	end_server();
}

/* More than is kept is flushed in between. */
static void test_forgets_much(void **state)
{
	make_file(BYTES);
	start_server_that_forgets();
	struct disk *disk = open_disk(60, 0);
	for (int round = 0; round < 25; round++)
		for (uint32_t at = 0; at < BYTES; at += BYTES / 4)
			write_bytes(disk, model, at, BYTES / 4,
				    (round * 7 + (int)(at >> 20)) & 255);
	end_server();
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	assert_int_equal(pread(fd, buffer, 1, BYTES / 2), 1);
	assert_int_not_equal(buffer[0], 0);
	close(fd);
	start_server_that_forgets();
	expect(disk, model);
	disk_destroy(disk);
	end_server();
}

/* It is killed again and again, whatever it is doing: nothing of all that is lost or out of order. */
static void test_forgets_in_a_storm(void **state)
{
	make_file(BYTES);
	start_server_that_forgets();
	struct disk *disk = open_disk(60, 0);
	end_server();
	pid_t killer = fork();
	if (killer == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (uint32_t i = 0; i < 10; i++) {
			start_server_that_forgets();
			while (access(socket_path, F_OK) < 0)
				usleep(1000);
			usleep(20000 + i * 10000);
			end_server();
		}
		start_server_that_forgets();
		pause();
		_exit(0);
	}
	assert_true(killer > 0);
	drive_storm(disk, 8, 4000);
	disk_destroy(disk);
	kill(killer, SIGKILL); /* and with it the server */
	assert_int_equal(waitpid(killer, NULL, 0), killer);
}

/* A server with these words behind its socket's name, the last one NULL. */
static void start_server_with(const char *const *words)
{
	const char *argument[20] = { nbdkit, "-f", "-U", socket_path };
	for (uint32_t i = 0; i < 15 && words[i]; i++)
		argument[4 + i] = words[i];
	unlink(socket_path);
	server = fork();
	if (server == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execv(nbdkit, (char **)(uintptr_t)argument);
		_exit(127);
	}
	assert_true(server > 0);
}

static double seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* It does not come back in time: errors, until it does after all. */
static void test_is_gone(void **state)
{
	make_file(BYTES);
	start_server(NULL);
	struct disk *disk = open_disk(1, 0);
	end_server();
	double before = seconds();
	submit_many(disk, DISK_WRITE);
	all_done(disk, -EIO);
	assert_true(seconds() - before >= 0.9);
	assert_non_null(strstr(lines.last, "has been gone for 1 s ("));
	assert_non_null(strstr(lines.last, "the guest gets I/O errors until it is there again"));
	before = seconds();
	/* Who only looks when the descriptor is readable is told, too, of what failed at once. */
	submit_many(disk, DISK_READ);
	disk_settle(disk);
	struct pollfd fd = { .fd = disk_fd(disk), .events = POLLIN };
	assert_int_equal(poll(&fd, 1, PATIENCE_MS), 1);
	disk_work(disk);
	all_done(disk, -EIO);
	assert_int_equal(drive_data(disk, DISK_READ, 0, buffer, 4096), -EIO);
	assert_int_equal(drive_range(disk, DISK_FLUSH, 0, 0, false), -EIO);
	start_server(NULL);
	while (!strstr(lines.last, "connected to") && seconds() - before < 60) {
		assert_null(drive_next(disk, 100));
	}
	assert_int_equal(drive_data(disk, DISK_READ, 0, buffer, 4096), 0);
	disk_destroy(disk);
	end_server();
}

/* It has lost what it was given, and does not take it again: nobody is told that all is well. */
static void test_refuses_what_it_forgot(void **state)
{
	char trigger[64], option[96], name[80];
	snprintf(trigger, sizeof(trigger), "%s/trigger", folder);
	snprintf(option, sizeof(option), "error-pwrite-file=%s", trigger);
	snprintf(name, sizeof(name), "file=%s", file);
	const char *words[] = { "--filter=error",	  "file", name, "error-pwrite=EIO",
				"error-pwrite-rate=100%", option, NULL };
	make_file(BYTES);
	start_server_that_forgets();
	struct disk *disk = open_disk(1, 0);
	memset(model, 0, sizeof(model));
	write_bytes(disk, model, 4096, 65536, 9);
	end_server();
	close(open(trigger, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	start_server_with(words);
	assert_int_equal(drive_data(disk, DISK_READ, 0, buffer, 4096), -EIO);
	assert_int_equal(drive_range(disk, DISK_FLUSH, 0, 0, false), -EIO);
	unlink(trigger);
	double before = seconds();
	while (!strstr(lines.last, "have been written again") && seconds() - before < 60)
		assert_null(drive_next(disk, 100));
	expect(disk, model);
	assert_int_equal(drive_range(disk, DISK_FLUSH, 0, 0, false), 0);
	disk_destroy(disk);
	end_server();
}

/* What is more than can be kept fails when no flush makes room for it, and does not when one does. */
static void test_cannot_flush(void **state)
{
	char trigger[64], flush[160], size[64];
	snprintf(trigger, sizeof(trigger), "%s/trigger", folder);
	snprintf(flush, sizeof(flush), "flush=if [ -e %s ]; then echo EIO >&2; exit 1; fi",
		 trigger);
	snprintf(size, sizeof(size), "get_size=echo %u", BYTES);
	const char *words[] = { "eval",
				size,
				"pwrite=cat >/dev/null",
				"can_write=exit 0",
				flush,
				"can_flush=exit 0",
				"can_trim=exit 3",
				NULL };
	close(open(trigger, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	start_server_with(words);
	struct disk *disk = open_disk(60, 0);
	uint32_t done = 0;
	while (done < 20 && drive_data(disk, DISK_WRITE, 0, buffer, BYTES) == 0)
		done++;
	assert_int_equal(done, 8); /* 32 MiB */
	assert_non_null(strstr(lines.last, "the guest gets an I/O error"));
	assert_int_equal(drive_data(disk, DISK_WRITE, 0, buffer, BYTES), -EIO);
	assert_int_equal(drive_range(disk, DISK_FLUSH, 0, 0, false), -EIO);
	unlink(trigger);
	for (uint32_t i = 0; i < 10; i++)
		assert_int_equal(drive_data(disk, DISK_WRITE, 0, buffer, BYTES), 0);
	disk_destroy(disk);
	end_server();
}

/* It is there and does nothing. */
static void test_is_silent(void **state)
{
	make_file(BYTES);
	start_server(NULL);
	struct disk *disk = open_disk(1, 1);
	kill(server, SIGSTOP);
	assert_int_equal(waitpid(server, NULL, WUNTRACED), server);
	submit_many(disk, DISK_WRITE);
	all_done(disk, -EIO);
	assert_non_null(strstr(lines.last, "has not answered for 1 s"));
	disk_destroy(disk);
	end_server();
}

/* Another disk at the same place is not taken for the old one. */
static void test_another_disk(void **state)
{
	make_file(BYTES);
	start_server(NULL);
	struct disk *disk = open_disk(1, 0);
	end_server();
	make_file(BYTES * 2);
	start_server(NULL);
	assert_int_equal(drive_data(disk, DISK_READ, 0, buffer, 4096), -EIO);
	/* It is looked at again and again, but not all the time. */
	struct pollfd fd = { .fd = disk_fd(disk), .events = POLLIN };
	uint32_t turns = 0;
	for (double until = seconds() + 0.5; seconds() < until;) {
		disk_settle(disk);
		turns += poll(&fd, 1, 100) > 0;
		disk_work(disk);
	}
	assert_in_range(turns, 0, 30);
	disk_destroy(disk);
	end_server();
}

/*
 * It says that it shuts down, and does not hang up: a lone request is sent again when it is there again,
 * or fails when that takes too long, however often it can be connected to meanwhile.
 */
static void test_shuts_down(void **state)
{
	char trigger[64], option[96], name[80];
	make_file(BYTES);
	snprintf(trigger, sizeof(trigger), "%s/trigger", folder);
	snprintf(option, sizeof(option), "error-file=%s", trigger);
	snprintf(name, sizeof(name), "file=%s", file);
	unlink(socket_path);
	server = fork();
	if (server == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl(nbdkit, nbdkit, "-f", "-U", socket_path, "--filter=error", "file", name,
		      "error=ESHUTDOWN", "error-rate=100%", option, NULL);
		_exit(127);
	}
	assert_true(server > 0);
	for (uint32_t timeout_s = 2; timeout_s <= 60; timeout_s += 58) {
		struct disk *disk = open_disk(timeout_s, 0);
		struct iovec piece = { buffer, 4096 };
		struct disk_request read = {
			.op = DISK_READ, .length = 4096, .iov = &piece, .iov_count = 1
		};
		close(open(trigger, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
		assert_int_equal(disk_submit(disk, &read), 0);
		if (timeout_s == 60) {
			struct pollfd fd = { .fd = disk_fd(disk), .events = POLLIN };
			for (double until = seconds() + 1; seconds() < until;) {
				disk_settle(disk);
				poll(&fd, 1, 100);
				disk_work(disk);
			}
			unlink(trigger);
		}
		assert_ptr_equal(drive_next(disk, PATIENCE_MS), &read);
		assert_int_equal(read.result, timeout_s == 60 ? 0 : -EIO);
		if (timeout_s != 60)
			assert_non_null(strstr(lines.last,
					       "has been gone for 2 s (it loses each connection)"));
		unlink(trigger);
		assert_in_range(lines.count, 1, 30);
		disk_destroy(disk);
	}
	end_server();
}

static int try_open(bool read_only)
{
	struct disk *disk = NULL;
	struct disk_nbd_options options = {
		.uri = uri, .read_only = read_only, .connect_s = 1, .user = drive_user(&lines)
	};
	int r = disk_nbd_open(&options, &disk, why, sizeof(why));
	disk_destroy(disk);
	return r;
}

static void test_refused(void **state)
{
	unlink(socket_path);
	assert_int_equal(try_open(false), -ETIMEDOUT);
	assert_non_null(strstr(why, uri));
	assert_non_null(strstr(why, "cannot be reached within 1 s: "));
	assert_non_null(strstr(why, "is its server there, and is the URI right?"));
	make_file(BYTES);
	start_server("-r");
	int r = -ETIMEDOUT;
	for (int i = 0; i < 60 && r == -ETIMEDOUT; i++)
		r = try_open(false);
	assert_int_equal(r, -EROFS);
	assert_non_null(strstr(why, "take it read-only"));
	assert_int_equal(try_open(true), 0);
	end_server();
	make_file(1000);
	start_server(NULL);
	r = -ETIMEDOUT;
	for (int i = 0; i < 60 && r == -ETIMEDOUT; i++)
		r = try_open(false);
	assert_int_equal(r, -EINVAL);
	assert_non_null(strstr(why, "has 1000 bytes, no multiple of 512"));
	end_server();
}

static int set_up(void **state)
{
	if (!mkdtemp(folder))
		return -1;
	snprintf(file, sizeof(file), "%s/disk", folder);
	snprintf(socket_path, sizeof(socket_path), "%s/nbd", folder);
	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", socket_path);
	return 0;
}

static int tear_down(void **state)
{
	unlink(file);
	unlink(socket_path);
	return rmdir(folder);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_storm),
		cmocka_unit_test(test_large_blocks),
		cmocka_unit_test(test_long_ranges),
		cmocka_unit_test(test_comes_back),
		cmocka_unit_test(test_forgets),
		cmocka_unit_test(test_forgets_much),
		cmocka_unit_test(test_forgets_in_a_storm),
		cmocka_unit_test(test_refuses_what_it_forgot),
		cmocka_unit_test(test_cannot_flush),
		cmocka_unit_test(test_is_gone),
		cmocka_unit_test(test_is_silent),
		cmocka_unit_test(test_another_disk),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_shuts_down),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
		cmocka_unit_test(test_no_memory),
#endif
	};
	if (argc != 2)
		return 2;
	nbdkit = argv[1];
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
