/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests of links share: connected sockets, addresses of their own, seeded randomness.
 */
#ifndef TESTS_LINK_SUPPORT_H
#define TESTS_LINK_SUPPORT_H

#include <stdint.h>

/* xorshift64*: the same numbers for the same seed everywhere. */
struct random {
	uint64_t state;
};
void random_seed(struct random *random, uint64_t seed);
uint64_t random_next(struct random *random);
uint32_t random_below(struct random *random, uint32_t limit);

/* EAGRE_SEED in the environment, or the time; printed, so that a failure can be run again. */
uint64_t test_seed(void);

uint64_t test_now_ns(void);
void test_sleep_ms(unsigned ms);

/*
 * A connected, non-blocking pair over loopback TCP. buffer: of each direction, 0 for the kernel's
 * own sizes.
 */
void test_tcp_pair(int fd[2], int buffer);

/*
 * "127.x.y.<1 + host>:<7000 + port>": x and y differ between processes that run at the same time,
 * so that tests can run side by side. In a static ring of buffers.
 */
const char *test_address(unsigned host, unsigned port);

#endif
