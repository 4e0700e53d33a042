/* SPDX-License-Identifier: Apache-2.0 */
/* Streams for tests, plain or with TLS. */
#ifndef TESTS_LINK_SECURE_H
#define TESTS_LINK_SECURE_H

#include "link/stream.h"
#include "link/tls.h"

/* Of two ends of a connection, whatever lies between; keys NULL: plain. Fails the test if they
 * cannot. */
void test_secure(struct tls_keys *keys, int dialler, int listener, struct stream ret_stream[2]);
void test_secure_by(struct tls_keys *dialler_keys, struct tls_keys *listener_keys, int dialler,
		    int listener, struct stream ret_stream[2]);
/* Goes on until both have an answer; what they say in the end. */
void test_shake_hands(struct stream *dialler, struct stream *listener, int ret_error[2]);
/* Of this secret. */
struct tls_keys *test_keys(const char *secret);
/* The same, where the kernel makes the records if it can. */
struct tls_keys *test_kernel_keys(const char *secret);

#endif
