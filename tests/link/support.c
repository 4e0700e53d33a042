// SPDX-License-Identifier: Apache-2.0
/* What tests of links share. */
#include "tests/link/support.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void check(int ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	abort();
}

void random_seed(struct random *random, uint64_t seed)
{
	random->state = (seed + 1) * 0x9e3779b97f4a7c15ull;
	if (random->state == 0)
		random->state = 1;
}

uint64_t random_next(struct random *random)
{
	uint64_t x = random->state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	random->state = x;
	return x * 0x2545f4914f6cdd1dull;
}

uint32_t random_below(struct random *random, uint32_t limit)
{
	return (uint32_t)((random_next(random) >> 32) * limit >> 32);
}

uint64_t test_seed(void)
{
	const char *text = getenv("EAGRE_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);

	fprintf(stderr, "seed %llu (EAGRE_SEED=... runs it again)\n", (unsigned long long)seed);
	return seed;
}

uint64_t test_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

void test_sleep_ms(unsigned ms)
{
	struct timespec time = { ms / 1000, (long)(ms % 1000) * 1000000 };

	nanosleep(&time, NULL);
}

static void set_buffers(int fd, int buffer)
{
	if (buffer == 0)
		return;
	check(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer)) == 0, "SO_SNDBUF");
	check(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer)) == 0, "SO_RCVBUF");
}

void test_tcp_pair(int fd[2], int buffer)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t size = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	int on = 1;

	check(listener >= 0, "socket");
	set_buffers(listener, buffer);
	check(bind(listener, (struct sockaddr *)&address, size) == 0, "bind");
	check(listen(listener, 1) == 0, "listen");
	check(getsockname(listener, (struct sockaddr *)&address, &size) == 0, "getsockname");
	fd[0] = socket(AF_INET, SOCK_STREAM, 0);
	set_buffers(fd[0], buffer);
	check(connect(fd[0], (struct sockaddr *)&address, size) == 0, "connect");
	fd[1] = accept(listener, NULL, NULL);
	check(fd[1] >= 0, "accept");
	close(listener);
	for (int i = 0; i < 2; i++) {
		check(setsockopt(fd[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0, "nodelay");
		check(fcntl(fd[i], F_SETFL, O_NONBLOCK) == 0, "O_NONBLOCK");
	}
}

const char *test_address(unsigned host, unsigned port)
{
	static char ring[64][64];
	static unsigned next;
	static pid_t first; /* the parent's, in children, too */
	char *text = ring[next++ % 64];

	if (first == 0)
		first = getpid();
	snprintf(text, sizeof(ring[0]), "127.%u.%u.%u:%u", 100 + (unsigned)first / 250 % 100,
		 1 + (unsigned)first % 250, 1 + host, 7000 + port);
	return text;
}
