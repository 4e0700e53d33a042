/* SPDX-License-Identifier: Apache-2.0 */
/* Streams for tests (secure.h). */
#include "tests/link/secure.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct tls_keys *make_keys(const char *secret, bool kernel)
{
	struct tls_keys *keys;

	assert_int_equal(tls_keys_create(secret, strlen(secret), kernel, &keys), 0);
	return keys;
}

struct tls_keys *test_keys(const char *secret)
{
	return make_keys(secret, getenv("EAGRE_TEST_KTLS") != NULL);
}

struct tls_keys *test_kernel_keys(const char *secret)
{
	return make_keys(secret, true);
}

void test_shake_hands(struct stream *dialler, struct stream *listener, int ret_error[2])
{
	struct stream *end[2] = { dialler, listener };

	ret_error[0] = ret_error[1] = -EAGAIN;
	for (unsigned i = 0; ret_error[0] == -EAGAIN || ret_error[1] == -EAGAIN; i++) {
		struct pollfd fds[2];

		for (int k = 0; k < 2; k++) {
			if (ret_error[k] == -EAGAIN)
				ret_error[k] = stream_shake_hands(end[k]);
			fds[k] = (struct pollfd){ ret_error[k] == -EAGAIN ? end[k]->fd : -1, POLLIN,
						  0 };
		}
		if (ret_error[0] == -EAGAIN || ret_error[1] == -EAGAIN)
			assert_true(poll(fds, 2, 10000) > 0 && i < 10000);
	}
}

void test_secure(struct tls_keys *keys, int dialler, int listener, struct stream ret_stream[2])
{
	test_secure_by(keys, keys, dialler, listener, ret_stream);
}

void test_secure_by(struct tls_keys *dialler_keys, struct tls_keys *listener_keys, int dialler,
		    int listener, struct stream ret_stream[2])
{
	int error[2];

	ret_stream[0] = stream_plain(dialler);
	ret_stream[1] = stream_plain(listener);
	if (!dialler_keys)
		return;
	assert_int_equal(stream_secure(&ret_stream[0], dialler_keys, true), 0);
	assert_int_equal(stream_secure(&ret_stream[1], listener_keys, false), 0);
	test_shake_hands(&ret_stream[0], &ret_stream[1], error);
	assert_int_equal(error[0], 0);
	assert_int_equal(error[1], 0);
}
