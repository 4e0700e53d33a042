/* SPDX-License-Identifier: Apache-2.0 */
/* HMAC-SHA-256 (RFC 2104). Pure. Tested in tests/link/test_hmac.c by the vectors of RFC 4231. */
#ifndef WIRE_HMAC_H
#define WIRE_HMAC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HMAC_BYTES 32u

/* 0, or -ENOMEM. */
int hmac_sha256(const void *key, size_t key_size, const void *data, size_t size,
		uint8_t out[HMAC_BYTES]);
/* Takes the same time wherever they differ. */
bool hmac_equal(const uint8_t a[HMAC_BYTES], const uint8_t b[HMAC_BYTES]);

#endif
