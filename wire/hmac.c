/* SPDX-License-Identifier: Apache-2.0 */
/* HMAC-SHA-256 (hmac.h), by OpenSSL's libcrypto. */
#include "wire/hmac.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

_Static_assert(HMAC_BYTES == 256 / 8, "SHA-256");

int hmac_sha256(const void *key, size_t key_size, const void *data, size_t size,
		uint8_t out[HMAC_BYTES])
{
	unsigned int bytes = 0;

	/* NULL would mean: the key of the last call. */
	if (!HMAC(EVP_sha256(), key_size ? key : "", (int)key_size, data, size, out, &bytes))
		return -ENOMEM;
	return bytes == HMAC_BYTES ? 0 : -ENOMEM;
}

bool hmac_equal(const uint8_t a[HMAC_BYTES], const uint8_t b[HMAC_BYTES])
{
	return CRYPTO_memcmp(a, b, HMAC_BYTES) == 0;
}
