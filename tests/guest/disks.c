/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks, judged: threads write, read, discard and zero blocks of all disks at once, past the cache,
 * and each block that is read has to be what was written there last.
 *
 *	disks [--seconds N] [--threads N] [--spoil] DISK...
 *
 * Every thread has a part of each disk for itself. A block says which disk, which block and which
 * write it is of, and the rest of it follows from that, so one that is old, elsewhere's or torn is
 * seen. At the end all is read once more, by another thread than wrote it, after a flush. With
 * --spoil a block is made wrong behind the program's back, which it has to see.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/guest/cpus.h"

#define BLOCK	    4096u
#define BLOCKS_MOST 64u /* of one operation */
#define DISKS_MAX   8
#define THREADS_MAX 64
#define ZEROS	    0u	       /* of a block that was zeroed, or never written */
#define ANYTHING    UINT32_MAX /* of one that was discarded */

struct disk {
	const char *name;
	int fd;
	bool is_device;
	uint32_t block_count;
	uint32_t *written; /* by block: which write it holds */
};

struct worker {
	pthread_t thread;
	uint32_t number;
	uint64_t random, operations, bytes;
};

static struct disk disk[DISKS_MAX];
static uint32_t disk_count, thread_count;
static struct worker worker[THREADS_MAX];
static atomic_bool stop;
static pthread_barrier_t barrier;
static bool spoilt;

static void die(const struct disk *d, const char *what, uint32_t block)
{
	printf("disks: %s: %s block %u: %s\n", d->name, what, block, strerror(errno));
	fflush(stdout);
	_exit(1);
}

static uint32_t rnd(struct worker *w, uint32_t below)
{
	w->random = w->random * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)((w->random >> 33) % below);
}

static void fill(uint64_t *word, uint32_t d, uint32_t block, uint32_t write)
{
	uint64_t seed = (uint64_t)d << 56 | (uint64_t)block << 28 | write;
	for (uint32_t i = 0; i < BLOCK / 8; i++) {
		word[i] = write == ZEROS ? 0 : seed;
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	}
}

static void judge(const uint64_t *got, uint32_t d, uint32_t block, const char *when)
{
	uint64_t want[BLOCK / 8];
	uint32_t write = disk[d].written[block], at = 0;
	if (write == ANYTHING)
		return;
	fill(want, d, block, write);
	if (memcmp(got, want, BLOCK) == 0)
		return;
	while (got[at] == want[at])
		at++;
	printf("disks: WRONG: %s block %u %s: from byte %u on it is %016llx, not %016llx (write "
	       "%u)\n",
	       disk[d].name, block, when, at * 8, (unsigned long long)got[at],
	       (unsigned long long)want[at], write);
	fflush(stdout);
	_exit(1);
}

static void part_of(uint32_t d, uint32_t thread, uint32_t *ret_first, uint32_t *ret_count)
{
	*ret_count = disk[d].block_count / thread_count;
	*ret_first = *ret_count * thread;
}

static void read_back(uint32_t d, uint32_t first, uint32_t count, uint8_t *buffer, const char *when)
{
	ssize_t bytes = (ssize_t)count * BLOCK;
	if (pread(disk[d].fd, buffer, (size_t)bytes, (off_t)first * BLOCK) != bytes)
		die(&disk[d], "reading", first);
	for (uint32_t i = 0; i < count; i++)
		judge((uint64_t *)(void *)(buffer + i * BLOCK), d, first + i, when);
}

static void clear(uint32_t d, uint32_t first, uint32_t count, bool discard)
{
	uint64_t range[2] = { (uint64_t)first * BLOCK, (uint64_t)count * BLOCK };
	if (!disk[d].is_device)
		return;
	if (ioctl(disk[d].fd, discard ? BLKDISCARD : BLKZEROOUT, range) < 0) {
		if (discard && errno == EOPNOTSUPP)
			return;
		die(&disk[d], discard ? "discarding" : "zeroing", first);
	}
	for (uint32_t i = 0; i < count; i++)
		disk[d].written[first + i] = discard ? ANYTHING : ZEROS;
}

static void write_blocks(struct worker *w, uint32_t d, uint32_t first, uint32_t count,
			 uint8_t *buffer)
{
	ssize_t bytes = (ssize_t)count * BLOCK;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t write = 1 + rnd(w, 0xfffffff);
		disk[d].written[first + i] = write;
		fill((uint64_t *)(void *)(buffer + i * BLOCK), d, first + i, write);
	}
	if (pwrite(disk[d].fd, buffer, (size_t)bytes, (off_t)first * BLOCK) != bytes)
		die(&disk[d], "writing", first);
}

static void one_operation(struct worker *w, uint8_t *buffer)
{
	uint32_t d = rnd(w, disk_count), first, part, what = rnd(w, 32);
	part_of(d, w->number, &first, &part);
	uint32_t most = rnd(w, 4) ? 4 : BLOCKS_MOST, count = 1 + rnd(w, part < most ? part : most);
	first += rnd(w, part - count + 1);
	if (what < 15)
		write_blocks(w, d, first, count, buffer);
	else if (what < 30)
		read_back(d, first, count, buffer, "while others work");
	else if (what == 30)
		clear(d, first, count, rnd(w, 2));
	else if (fdatasync(disk[d].fd) < 0)
		die(&disk[d], "flushing", 0);
	w->operations++;
	w->bytes += (uint64_t)count * BLOCK;
}

static void spoil(void)
{
	static uint8_t block[BLOCK] __attribute__((aligned(4096))) = "spoilt";
	if (pwrite(disk[0].fd, block, BLOCK, 0) != BLOCK)
		die(&disk[0], "spoiling", 0);
	disk[0].written[0] = 1;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	uint8_t *buffer;
	if (posix_memalign((void **)&buffer, BLOCK, BLOCKS_MOST * BLOCK))
		exit(2);
	while (!atomic_load(&stop))
		one_operation(w, buffer);
	for (uint32_t d = 0; d < disk_count; d++)
		if (fdatasync(disk[d].fd) < 0)
			die(&disk[d], "flushing", 0);
	if (spoilt && w->number == 0)
		spoil();
	pthread_barrier_wait(&barrier);
	for (uint32_t d = 0; d < disk_count; d++) {
		uint32_t first, part;
		part_of(d, (w->number + 1) % thread_count, &first, &part);
		for (uint32_t at = 0; at < part; at += BLOCKS_MOST)
			read_back(d, first + at, part - at < BLOCKS_MOST ? part - at : BLOCKS_MOST,
				  buffer, "at the end");
	}
	free(buffer);
	return NULL;
}

static void open_disk(struct disk *d, const char *name)
{
	struct stat st;
	uint64_t bytes;
	d->name = name;
	d->fd = open(name, O_RDWR | O_DIRECT);
	if (d->fd < 0 && errno == EINVAL)
		d->fd = open(name, O_RDWR);
	if (d->fd < 0 || fstat(d->fd, &st) < 0)
		die(d, "opening", 0);
	d->is_device = S_ISBLK(st.st_mode);
	bytes = (uint64_t)st.st_size;
	if (d->is_device && ioctl(d->fd, BLKGETSIZE64, &bytes) < 0)
		die(d, "measuring", 0);
	d->block_count = (uint32_t)(bytes / BLOCK);
	d->written = malloc(d->block_count * sizeof(d->written[0]));
	if (!d->written || d->block_count < 2 * thread_count) {
		printf("disks: %s is too small\n", name);
		exit(2);
	}
	for (uint32_t i = 0; i < d->block_count; i++)
		d->written[i] = ANYTHING;
}

int main(int argc, char **argv)
{
	unsigned int seconds = 5;
	uint64_t operations = 0, bytes = 0;
	thread_count = 2 * cpus_count();
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc)
			seconds = (unsigned int)atoi(argv[++i]);
		else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc)
			thread_count = (uint32_t)atoi(argv[++i]);
		else if (strcmp(argv[i], "--spoil") == 0)
			spoilt = true;
		else if (disk_count < DISKS_MAX)
			open_disk(&disk[disk_count++], argv[i]);
	}
	if (!disk_count || !thread_count || thread_count > THREADS_MAX) {
		printf("usage: disks [--seconds N] [--threads N] [--spoil] DISK...\n");
		return 2;
	}
	pthread_barrier_init(&barrier, NULL, thread_count);
	for (uint32_t t = 0; t < thread_count; t++) {
		worker[t].number = t;
		worker[t].random = 12345 + 7919 * t;
	}
	for (uint32_t t = 0; t < thread_count; t++)
		if (pthread_create(&worker[t].thread, NULL, work, &worker[t]))
			return 2;
	sleep(seconds);
	atomic_store(&stop, true);
	for (uint32_t t = 0; t < thread_count; t++) {
		pthread_join(worker[t].thread, NULL);
		operations += worker[t].operations;
		bytes += worker[t].bytes;
	}
	printf("disks: %llu operations on %u disks, %llu MiB, all right\n",
	       (unsigned long long)operations, disk_count, (unsigned long long)(bytes >> 20));
	return 0;
}
