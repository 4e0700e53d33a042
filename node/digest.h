/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FNV-1a: it tells different files apart, it is no defence against a forger.
 */
#ifndef NODE_DIGEST_H
#define NODE_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#define DIGEST_BEGIN 0xcbf29ce484222325ull

static inline uint64_t digest_add(uint64_t digest, const void *data, size_t size)
{
	const uint8_t *byte = data;
	for (size_t i = 0; i < size; i++)
		digest = (digest ^ byte[i]) * 0x100000001b3ull;
	return digest;
}

#endif
