/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was acknowledged is there after a crash.
 *
 *	acked FOLDER [--seconds N] [--threads N]   prints "THREAD NUMBER" for each transaction that is safe
 *	acked FOLDER --judge <ACKNOWLEDGED         looks at what is in FOLDER then
 *	acked FOLDER --itself [--spoil]            both, one after the other; spoilt, the judge has to see it
 *
 * Each thread does transactions one after the other, in files of its own. What number N does follows
 * from thread and N alone: it appends a record to a log, writes a block of a file anew in place, or
 * replaces a whole file by rename(). It is printed when fsync() has come back. So after a crash all up
 * to the last one printed must be there. What was printed may have been lost on its way, so there may
 * be more; but each was safe before the next began: all but the last one that has left a trace are
 * there wholly.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/guest/cpus.h"

#define THREADS_MAX 64u
#define BLOCK	    4096u
#define BLOCKS	    64u
#define RECORD_MAX  40000u
#define UNHEARD_MAX 100000u /* transactions done whose words were lost */

enum kind { APPEND, WRITE, REPLACE };

struct transaction {
	enum kind kind;
	uint32_t block; /* of WRITE */
	uint32_t size;	/* of APPEND and REPLACE */
};

struct thread {
	pthread_t thread;
	uint32_t number;
	uint32_t done; /* transactions */
	uint64_t log_end;
	int log, blocks;
};

static struct thread threads[THREADS_MAX];
static uint32_t thread_count;
static int folder;
static bool silent;
static atomic_bool stop;

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 31) * 0x7fb5d329728ea185ull;
	x = (x ^ x >> 27) * 0x81dadef4bc2dd44dull;
	return x ^ x >> 33;
}

static struct transaction transaction(uint32_t thread, uint32_t n)
{
	uint64_t random = mix((uint64_t)thread << 32 | n);
	return (struct transaction){
		.kind = random % 8 < 3	 ? APPEND
			: random % 8 < 7 ? WRITE
					 : REPLACE,
		.block = (uint32_t)(random >> 8) % BLOCKS,
		.size = 16 + (uint32_t)(random >> 16) % (RECORD_MAX - 16) / 8 * 8,
	};
}

static void fill(uint64_t *word, uint32_t size, uint32_t thread, uint32_t n)
{
	uint64_t seed = (uint64_t)thread << 32 | n;
	for (uint32_t i = 0; i < size / 8; i++) {
		word[i] = seed;
		seed = mix(seed + i);
	}
}

static int open_file(const char *kind, uint32_t thread, int flags)
{
	char name[32];
	snprintf(name, sizeof(name), "%s.%u", kind, thread);
	return openat(folder, name, flags, 0666);
}

static void die(uint32_t thread, uint32_t n, const char *what)
{
	printf("acked: thread %u, %u: %s: %s\n", thread, n, what, strerror(errno));
	fflush(stdout);
	_exit(2);
}

static void write_all(struct thread *t, int fd, const void *data, uint32_t size, uint64_t at)
{
	if (pwrite(fd, data, size, (off_t)at) != (ssize_t)size)
		die(t->number, t->done + 1, "writing");
	if (fdatasync(fd) < 0)
		die(t->number, t->done + 1, "fdatasync");
}

static void replace(struct thread *t, const void *data, uint32_t size)
{
	char from[32], to[32];
	int fd = open_file("new", t->number, O_RDWR | O_CREAT | O_TRUNC);
	if (fd < 0)
		die(t->number, t->done + 1, "creating");
	write_all(t, fd, data, size, 0);
	close(fd);
	snprintf(from, sizeof(from), "new.%u", t->number);
	snprintf(to, sizeof(to), "current.%u", t->number);
	if (renameat(folder, from, folder, to) < 0 || fsync(folder) < 0)
		die(t->number, t->done + 1, "renaming");
}

static void do_transaction(struct thread *t)
{
	static _Thread_local uint64_t data[RECORD_MAX / 8];
	uint32_t n = t->done + 1;
	struct transaction a = transaction(t->number, n);
	fill(data, RECORD_MAX, t->number, n);
	if (a.kind == APPEND) {
		write_all(t, t->log, data, a.size, t->log_end);
		t->log_end += a.size;
	} else if (a.kind == WRITE) {
		write_all(t, t->blocks, data, BLOCK, (uint64_t)a.block * BLOCK);
	} else {
		replace(t, data, a.size);
	}
	t->done = n;
}

static void *work(void *arg)
{
	struct thread *t = arg;
	char line[32];
	while (!atomic_load(&stop)) {
		do_transaction(t);
		int length = snprintf(line, sizeof(line), "%u %u\n", t->number, t->done);
		if (!silent && write(STDOUT_FILENO, line, (size_t)length) != length)
			break;
	}
	return NULL;
}

static void prepare(struct thread *t)
{
	static uint8_t nothing[BLOCK * BLOCKS];
	t->log = open_file("log", t->number, O_RDWR | O_CREAT | O_TRUNC);
	t->blocks = open_file("blocks", t->number, O_RDWR | O_CREAT | O_TRUNC);
	if (t->log < 0 || t->blocks < 0)
		die(t->number, 0, "creating");
	write_all(t, t->log, nothing, 0, 0);
	write_all(t, t->blocks, nothing, sizeof(nothing), 0);
	if (fsync(folder) < 0)
		die(t->number, 0, "fsync of the folder");
}

static void run(unsigned int seconds)
{
	for (uint32_t i = 0; i < thread_count; i++) {
		threads[i].number = i;
		prepare(&threads[i]);
	}
	for (uint32_t i = 0; i < thread_count; i++)
		if (pthread_create(&threads[i].thread, NULL, work, &threads[i]))
			_exit(2);
	sleep(seconds);
	atomic_store(&stop, true);
	for (uint32_t i = 0; i < thread_count; i++)
		pthread_join(threads[i].thread, NULL);
}

static bool wrong(uint32_t thread, uint32_t n, const char *what)
{
	printf("acked: WRONG: thread %u, which had done %u: %s\n", thread, n, what);
	return false;
}

/* The first SIZE bytes at AT are those of transaction N. */
static bool is(int fd, uint64_t at, uint32_t size, uint32_t thread, uint32_t n)
{
	static uint64_t want[RECORD_MAX / 8], got[RECORD_MAX / 8];
	fill(want, size, thread, n);
	return pread(fd, got, size, (off_t)at) == (ssize_t)size && memcmp(got, want, size) == 0;
}

static bool is_zero(int fd, uint64_t at)
{
	static uint64_t got[BLOCK / 8];
	if (pread(fd, got, BLOCK, (off_t)at) != BLOCK)
		return false;
	for (uint32_t i = 0; i < BLOCK / 8; i++)
		if (got[i])
			return false;
	return true;
}

static bool judge_block(int fd, uint32_t thread, uint32_t n, uint32_t block, uint32_t last)
{
	struct transaction next = transaction(thread, n + 1);
	uint64_t at = (uint64_t)block * BLOCK;
	char what[64];
	if (last ? is(fd, at, BLOCK, thread, last) : is_zero(fd, at))
		return true;
	if (next.kind == WRITE && next.block == block && is(fd, at, BLOCK, thread, n + 1))
		return true;
	snprintf(what, sizeof(what), "block %u is not what %u wrote", block, last);
	return wrong(thread, n, what);
}

static bool judge_current(uint32_t thread, uint32_t n, uint32_t last)
{
	struct transaction next = transaction(thread, n + 1);
	int fd = open_file("current", thread, O_RDONLY);
	bool good = fd < 0 ? !last
			   : (last && is(fd, 0, transaction(thread, last).size, thread, last)) ||
				     (next.kind == REPLACE && is(fd, 0, next.size, thread, n + 1));
	if (fd >= 0)
		close(fd);
	return good || wrong(thread, n, "the file that is replaced is not the last one");
}

/* The number that a file's first word at AT has, if there is one. */
static uint32_t number_at(int fd, uint64_t at, uint32_t thread)
{
	uint64_t word;
	if (pread(fd, &word, sizeof(word), (off_t)at) != sizeof(word) || word >> 32 != thread)
		return 0;
	return (uint32_t)word;
}

/* The last transaction that has left a trace. */
static uint32_t find_last(uint32_t thread, int log, int blocks)
{
	uint32_t last = 0, n;
	int fd = open_file("current", thread, O_RDONLY);
	if (fd >= 0) {
		last = number_at(fd, 0, thread);
		close(fd);
	}
	for (uint32_t b = 0; b < BLOCKS; b++)
		if ((n = number_at(blocks, (uint64_t)b * BLOCK, thread)) > last)
			last = n;
	for (uint64_t at = 0; (n = number_at(log, at, thread)); at += transaction(thread, n).size)
		if (n > last)
			last = n;
	return last;
}

static bool judge(uint32_t thread, uint32_t acknowledged)
{
	uint32_t last[BLOCKS] = { 0 }, current = 0;
	uint64_t end = 0;
	bool good = true;
	struct stat st;
	int log = open_file("log", thread, O_RDONLY),
	    blocks = open_file("blocks", thread, O_RDONLY);
	if (log < 0 || blocks < 0)
		return wrong(thread, acknowledged, "a file is gone");
	uint32_t found = find_last(thread, log, blocks);
	if (found > acknowledged + UNHEARD_MAX)
		return wrong(thread, acknowledged, "there is what it cannot have written yet");
	uint32_t n = found > acknowledged ? found - 1 : acknowledged;
	for (uint32_t i = 1; i <= n && good; i++) {
		struct transaction a = transaction(thread, i);
		if (a.kind == APPEND) {
			good = is(log, end, a.size, thread, i) ||
			       wrong(thread, n, "a record is missing");
			end += a.size;
		} else if (a.kind == WRITE) {
			last[a.block] = i;
		} else {
			current = i;
		}
	}
	struct transaction next = transaction(thread, n + 1);
	if (fstat(log, &st) < 0 ||
	    (uint64_t)st.st_size > end + (next.kind == APPEND ? next.size : 0))
		good = wrong(thread, n, "the log has more than was written");
	for (uint32_t b = 0; b < BLOCKS; b++)
		good &= judge_block(blocks, thread, n, b, last[b]);
	good &= judge_current(thread, n, current);
	close(log);
	close(blocks);
	return good;
}

/* The last line may have been cut off. */
static void read_acknowledged(void)
{
	char line[64];
	unsigned int thread, n;
	while (fgets(line, sizeof(line), stdin) && strchr(line, '\n'))
		if (sscanf(line, "%u %u", &thread, &n) == 2 && thread < THREADS_MAX) {
			if (n > threads[thread].done)
				threads[thread].done = n;
			if (thread >= thread_count)
				thread_count = thread + 1;
		}
}

static int judge_all(void)
{
	uint64_t sum = 0;
	bool good = true;
	for (uint32_t i = 0; i < thread_count; i++) {
		good &= judge(i, threads[i].done);
		sum += threads[i].done;
	}
	if (good)
		printf("acked: %llu transactions of %u threads, all right\n",
		       (unsigned long long)sum, thread_count);
	return good ? 0 : 1;
}

int main(int argc, char **argv)
{
	unsigned int seconds = 3600;
	bool only_judge = false, itself = false, spoil = false;
	const char *name = NULL;
	thread_count = 2 * cpus_count();
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc)
			seconds = (unsigned int)atoi(argv[++i]);
		else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc)
			thread_count = (uint32_t)atoi(argv[++i]);
		else if (strcmp(argv[i], "--judge") == 0)
			only_judge = true;
		else if (strcmp(argv[i], "--itself") == 0)
			itself = true;
		else if (strcmp(argv[i], "--spoil") == 0)
			spoil = true;
		else
			name = argv[i];
	}
	if (!name || !thread_count || thread_count > THREADS_MAX) {
		printf("usage: acked FOLDER [--seconds N] [--threads N] | --judge | --itself\n");
		return 2;
	}
	if (!only_judge)
		mkdir(name, 0777);
	folder = open(name, O_RDONLY | O_DIRECTORY);
	if (folder < 0)
		die(0, 0, name);
	silent = itself;
	if (only_judge) {
		thread_count = 0;
		read_acknowledged();
	} else {
		run(seconds);
	}
	if (spoil) /* as if two more had been acknowledged */
		threads[0].done += 2;
	return only_judge || itself ? judge_all() : 0;
}
