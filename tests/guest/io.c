/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast a guest's disks and network cards are, for bench/devices. Reads what to do from stdin, a
 * line each, does it for so many seconds and says how much that was:
 *
 *	read DISK SECONDS             1 MiB after 1 MiB, past the cache     read 123456789 a second, 118 requests
 *	write DISK SECONDS
 *	whole DISK SECONDS            reads into a huge page
 *	pages DISK SECONDS            reads into 256 pages of which no two are neighbours
 *	random DISK SECONDS           reads of 4 KiB, 32 at a time
 *	scan BYTES SECONDS            adds one to a word of each page of so much memory, in order
 *	touch BYTES SECONDS           likewise, at random; the memory is filled before, and kept for the next
 *	out CARD HOST PORT SECONDS    one TCP connection                    (bytes)
 *	in CARD HOST PORT SECONDS
 *	turns CARD HOST PORT SECONDS  a byte there and one back             (turns)
 *
 * The server's end is bench/devices: the first byte of a connection says which of the three it is.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096u
#define LARGE (1u << 20)
#define DEPTH 32u
#define PAGES (LARGE / BLOCK)

struct result {
	double seconds;
	uint64_t bytes, requests;
};

static void die(const char *what)
{
	printf("io: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int disk_open(const char *name, uint64_t *ret_bytes)
{
	struct stat st;
	int fd = open(name, O_RDWR | O_DIRECT | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0)
		die(name);
	*ret_bytes = (uint64_t)st.st_size;
	if (S_ISBLK(st.st_mode) && ioctl(fd, BLKGETSIZE64, ret_bytes) < 0)
		die(name);
	if (*ret_bytes < LARGE) {
		errno = ENOSPC;
		die(name);
	}
	return fd;
}

/* 1 MiB of memory in pieces, as the kind wants it; what is behind *ret_all is twice that. */
static int memory_of(const char *kind, struct iovec *iov, void **ret_all)
{
	uint8_t *all;
	int whole = strcmp(kind, "whole") == 0, pages = strcmp(kind, "pages") == 0;

	if (!whole && !pages) {
		*ret_all = aligned_alloc(BLOCK, LARGE);
		memset(*ret_all, 0x5a, LARGE);
		iov[0] = (struct iovec){ *ret_all, LARGE };
		return 1;
	}
	*ret_all = all = aligned_alloc(2 * LARGE, 2 * LARGE);
	(void)madvise(all, 2 * LARGE, whole ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	memset(all, 0x5a, 2 * LARGE);
	for (uint32_t i = 0; pages && i < PAGES; i++)
		iov[i] = (struct iovec){ all + (PAGES - 1 - i) * 2 * BLOCK, BLOCK };
	if (whole)
		iov[0] = (struct iovec){ all, LARGE };
	return pages ? PAGES : 1;
}

static struct result in_order(const char *kind, const char *disk, double seconds)
{
	static struct iovec iov[PAGES];
	struct result result = { 0 };
	uint64_t size, at = 0;
	int fd = disk_open(disk, &size), writes = strcmp(kind, "write") == 0, pieces;
	void *data;
	double begun;

	pieces = memory_of(kind, iov, &data);
	begun = now_s();
	do {
		ssize_t n = writes ? pwritev(fd, iov, pieces, (off_t)at)
				   : preadv(fd, iov, pieces, (off_t)at);

		if (n != LARGE)
			die(disk);
		at = at + 2 * LARGE > size ? 0 : at + LARGE;
		result.requests++;
		result.bytes += LARGE;
		result.seconds = now_s() - begun;
	} while (result.seconds < seconds);
	if (writes && fdatasync(fd) < 0)
		die(disk);
	result.seconds = now_s() - begun;
	free(data);
	close(fd);
	return result;
}

static uint64_t random_block(uint64_t *state, uint64_t count)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return (*state >> 20) % count;
}

/* One thread keeps 32 under way. */
static struct result at_random(const char *disk, double seconds)
{
	struct result result = { 0 };
	struct iocb block[DEPTH] = { 0 }, *next[DEPTH];
	struct io_event done[DEPTH];
	aio_context_t context = 0;
	uint64_t size, state = 1;
	int fd = disk_open(disk, &size);
	uint8_t *data = aligned_alloc(BLOCK, DEPTH * BLOCK);
	long count = DEPTH;
	double begun = now_s();

	if (syscall(SYS_io_setup, DEPTH, &context) < 0)
		die("io_setup");
	for (uint32_t i = 0; i < DEPTH; i++) {
		block[i] = (struct iocb){ .aio_fildes = (uint32_t)fd,
					  .aio_lio_opcode = IOCB_CMD_PREAD,
					  .aio_buf = (uint64_t)(uintptr_t)(data + i * BLOCK),
					  .aio_nbytes = BLOCK };
		next[i] = &block[i];
	}
	do {
		for (long i = 0; i < count; i++)
			next[i]->aio_offset = (int64_t)(random_block(&state, size / BLOCK) * BLOCK);
		if (syscall(SYS_io_submit, context, count, next) != count)
			die("io_submit");
		count = syscall(SYS_io_getevents, context, 1l, (long)DEPTH, done, NULL);
		for (long i = 0; i < count; i++) {
			if (done[i].res != BLOCK)
				die(disk);
			next[i] = (struct iocb *)(uintptr_t)done[i].obj;
		}
		result.requests += (uint64_t)count;
		result.seconds = now_s() - begun;
	} while (result.seconds < seconds);
	result.bytes = result.requests * BLOCK;
	syscall(SYS_io_destroy, context);
	free(data);
	close(fd);
	return result;
}

static struct result in_memory(const char *kind, uint64_t bytes, double seconds)
{
	static volatile uint64_t *memory;
	static uint64_t filled, state = 1;
	struct result result = { 0 };
	uint64_t pages = bytes / BLOCK, words = BLOCK / sizeof(*memory), at = 0;
	int random = strcmp(kind, "touch") == 0;
	double begun;

	if (!memory)
		memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			      0);
	if (memory == MAP_FAILED || pages == 0 || (filled && filled != pages)) {
		errno = ENOMEM;
		die(kind);
	}
	/* No two pages are alike. */
	for (; filled < pages; filled++)
		for (uint64_t i = 0; i < words; i += 8)
			memory[filled * words + i] = filled * 2654435761u + i;
	begun = now_s();
	do {
		for (int i = 0; i < 16; i++) {
			uint64_t page = random ? random_block(&state, pages) : at++ % pages;

			memory[page * words]++;
			result.requests++;
		}
		result.seconds = now_s() - begun;
	} while (result.seconds < seconds);
	result.bytes = result.requests * BLOCK;
	return result;
}

static int connection_open(const char *card, const char *host, int port, char kind)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	if (fd < 0 || inet_pton(AF_INET, host, &to.sin_addr) != 1)
		die(host);
	if (setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, card, (socklen_t)strlen(card)) < 0)
		die(card);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 || write(fd, &kind, 1) != 1)
		die(host);
	return fd;
}

static struct result by_card(const char *kind, const char *card, const char *host, int port,
			     double seconds)
{
	struct result result = { 0 };
	static uint8_t data[65536];
	int turns = strcmp(kind, "turns") == 0, out = strcmp(kind, "out") == 0;
	int fd = connection_open(card, host, port, kind[0]);
	double begun = now_s();

	do {
		ssize_t n;

		if (turns)
			n = write(fd, data, 1) == 1 ? read(fd, data, 1) : -1;
		else
			n = out ? write(fd, data, sizeof(data)) : read(fd, data, sizeof(data));
		if (n <= 0)
			die(host);
		result.requests++;
		result.bytes += (uint64_t)n;
		result.seconds = now_s() - begun;
	} while (result.seconds < seconds);
	/* What is still on its way was sent, and has not arrived: it is waited for. */
	if (out) {
		shutdown(fd, SHUT_WR);
		while (read(fd, data, sizeof(data)) > 0)
			;
		result.seconds = now_s() - begun;
	}
	close(fd);
	return result;
}

static struct result work(const char *kind, const char *what, const char *rest)
{
	char host[64];
	double seconds;
	int port;

	if (sscanf(rest, "%63s %d %lf", host, &port, &seconds) == 3)
		return by_card(kind, what, host, port, seconds);
	seconds = atof(rest);
	if (strcmp(kind, "scan") == 0 || strcmp(kind, "touch") == 0)
		return in_memory(kind, strtoull(what, NULL, 0), seconds);
	if (strcmp(kind, "random") == 0)
		return at_random(what, seconds);
	return in_order(kind, what, seconds);
}

int main(void)
{
	char line[512], kind[16], what[256];
	int rest;

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("ready\n");
	while (fgets(line, sizeof(line), stdin)) {
		struct result result;

		if (sscanf(line, "%15s %255s %n", kind, what, &rest) != 2)
			continue;
		result = work(kind, what, line + rest);
		printf("%s %.0f a second, %llu requests\n", kind,
		       (double)(strcmp(kind, "turns") ? result.bytes : result.requests) /
			       result.seconds,
		       (unsigned long long)result.requests);
	}
	return 0;
}
