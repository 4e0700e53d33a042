/* SPDX-License-Identifier: Apache-2.0 */
/* What the C library has better, without vector registers: see no_vectors.h. */
#include <stddef.h>
#include <stdint.h>

void *soft_memcpy(void *to, const void *from, size_t bytes);
void *soft_memmove(void *to, const void *from, size_t bytes);
void *soft_memset(void *to, int value, size_t bytes);
int soft_memcmp(const void *one, const void *other, size_t bytes);

void *soft_memcpy(void *to, const void *from, size_t bytes)
{
	void *at = to;

	__asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(bytes) : : "memory");
	return to;
}

void *soft_memmove(void *to, const void *from, size_t bytes)
{
	uint8_t *last = (uint8_t *)to + bytes - 1;
	const uint8_t *last_from = (const uint8_t *)from + bytes - 1;

	if ((uintptr_t)to - (uintptr_t)from >= bytes)
		return soft_memcpy(to, from, bytes);
	__asm__ volatile("std; rep movsb; cld"
			 : "+D"(last), "+S"(last_from), "+c"(bytes)
			 :
			 : "memory");
	return to;
}

void *soft_memset(void *to, int value, size_t bytes)
{
	void *at = to;

	__asm__ volatile("rep stosb" : "+D"(at), "+c"(bytes) : "a"(value) : "memory");
	return to;
}

int soft_memcmp(const void *one, const void *other, size_t bytes)
{
	const uint8_t *a = one, *b = other;

	for (size_t i = 0; i < bytes; i++)
		if (a[i] != b[i])
			return a[i] - b[i];
	return 0;
}
