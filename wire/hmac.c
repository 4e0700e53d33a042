/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 and HMAC (hmac.h). Written after FIPS 180-4, section 6.2: short, not fast. */
#include "wire/hmac.h"

#include <endian.h>
#include <string.h>

#define BLOCK_BYTES 64u

struct sha256 {
	uint32_t state[8];
	uint64_t bytes;
	uint8_t block[BLOCK_BYTES];
};

static const uint32_t round_constants[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
	0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
	0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
	0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
	0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
	0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
	0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
	0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
	0xc67178f2,
};

static uint32_t turn(uint32_t x, unsigned int by)
{
	return x >> by | x << (32 - by);
}

static void sha256_block(struct sha256 *s)
{
	uint32_t w[64], v[8];

	for (unsigned int i = 0; i < 16; i++) {
		memcpy(&w[i], s->block + 4 * i, 4);
		w[i] = be32toh(w[i]);
	}
	for (unsigned int i = 16; i < 64; i++) {
		uint32_t a = w[i - 15], b = w[i - 2];

		w[i] = w[i - 16] + (turn(a, 7) ^ turn(a, 18) ^ a >> 3) + w[i - 7] +
		       (turn(b, 17) ^ turn(b, 19) ^ b >> 10);
	}
	memcpy(v, s->state, sizeof(v));
	for (unsigned int i = 0; i < 64; i++) {
		uint32_t choice = (v[4] & v[5]) ^ (~v[4] & v[6]);
		uint32_t majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
		uint32_t t1 = v[7] + (turn(v[4], 6) ^ turn(v[4], 11) ^ turn(v[4], 25)) + choice +
			      round_constants[i] + w[i];
		uint32_t t2 = (turn(v[0], 2) ^ turn(v[0], 13) ^ turn(v[0], 22)) + majority;

		memmove(v + 1, v, 7 * sizeof(v[0]));
		v[4] += t1;
		v[0] = t1 + t2;
	}
	for (unsigned int i = 0; i < 8; i++)
		s->state[i] += v[i];
}

static void sha256_begin(struct sha256 *s)
{
	static const uint32_t start[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
					   0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };

	memset(s, 0, sizeof(*s));
	memcpy(s->state, start, sizeof(start));
}

static void sha256_add(struct sha256 *s, const void *data, size_t size)
{
	const uint8_t *byte = data;

	for (size_t i = 0; i < size; i++) {
		s->block[s->bytes++ % BLOCK_BYTES] = byte[i];
		if (s->bytes % BLOCK_BYTES == 0)
			sha256_block(s);
	}
}

static void sha256_end(struct sha256 *s, uint8_t out[HMAC_BYTES])
{
	static const uint8_t padding[BLOCK_BYTES] = { 0x80 };
	uint64_t bits = htobe64(s->bytes * 8);

	sha256_add(s, padding, 1 + (119 - s->bytes % BLOCK_BYTES) % BLOCK_BYTES);
	sha256_add(s, &bits, sizeof(bits));
	for (unsigned int i = 0; i < 8; i++) {
		uint32_t word = htobe32(s->state[i]);

		memcpy(out + 4 * i, &word, 4);
	}
}

void sha256(const void *data, size_t size, uint8_t out[HMAC_BYTES])
{
	struct sha256 s;

	sha256_begin(&s);
	sha256_add(&s, data, size);
	sha256_end(&s, out);
}

/* H((key ^ pad) | data) */
static void keyed(const uint8_t key[BLOCK_BYTES], uint8_t pad, const void *data, size_t size,
		  uint8_t out[HMAC_BYTES])
{
	uint8_t padded[BLOCK_BYTES];
	struct sha256 s;

	for (unsigned int i = 0; i < BLOCK_BYTES; i++)
		padded[i] = key[i] ^ pad;
	sha256_begin(&s);
	sha256_add(&s, padded, sizeof(padded));
	sha256_add(&s, data, size);
	sha256_end(&s, out);
}

void hmac_sha256(const void *key, size_t key_size, const void *data, size_t size,
		 uint8_t out[HMAC_BYTES])
{
	uint8_t block[BLOCK_BYTES] = { 0 }, inner[HMAC_BYTES];

	if (key_size > BLOCK_BYTES)
		sha256(key, key_size, block);
	else if (key_size > 0)
		memcpy(block, key, key_size);
	keyed(block, 0x36, data, size, inner);
	keyed(block, 0x5c, inner, sizeof(inner), out);
}

bool hmac_equal(const uint8_t a[HMAC_BYTES], const uint8_t b[HMAC_BYTES])
{
	uint8_t difference = 0;

	for (unsigned int i = 0; i < HMAC_BYTES; i++)
		difference |= a[i] ^ b[i];
	return difference == 0;
}
