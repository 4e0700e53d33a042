/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CPU benchmark's items that are plain C: integer code, recursion, memory patterns, SHA-256,
 * doubles. Each stands for a cost of translated code: many small blocks (crc), calls and returns
 * (fib), a load after a load (chase), loads and stores everywhere (hash), streams (copy), straight
 * register code (sha256), vector registers (nbody, matmul).
 */
#include "bench/cpu_items.h"

#include <math.h>
#include <string.h>

/* --- list: find, reverse and merge-sort a linked list, as CoreMark does --- */

#define LIST_NODES 512u

struct list_node {
	struct list_node *next;
	uint32_t key, weight;
};

static struct list_node list_node[LIST_NODES];

static struct list_node *list_build(void)
{
	uint64_t random = 88172645463325252ull;

	for (uint32_t i = 0; i < LIST_NODES; i++) {
		uint32_t at = i * 37 % LIST_NODES;
		uint32_t next = (i + 1) * 37 % LIST_NODES;

		list_node[at].key = (uint32_t)cpu_random(&random) & 0xffff;
		list_node[at].weight = i;
		list_node[at].next = i + 1 < LIST_NODES ? &list_node[next] : NULL;
	}
	return &list_node[0];
}

static struct list_node *list_reverse(struct list_node *head)
{
	struct list_node *done = NULL;

	while (head) {
		struct list_node *next = head->next;

		head->next = done;
		done = head;
		head = next;
	}
	return done;
}

static struct list_node *list_merge(struct list_node *a, struct list_node *b)
{
	struct list_node *head = NULL, **tail = &head;

	while (a && b) {
		struct list_node **from = a->key <= b->key ? &a : &b;

		*tail = *from;
		tail = &(*from)->next;
		*from = *tail;
	}
	*tail = a ? a : b;
	return head;
}

/* Bottom up: bin k holds a sorted list of 2^k nodes, or nothing. */
static struct list_node *list_sort(struct list_node *head)
{
	struct list_node *bin[16] = { NULL }, *sorted = NULL;

	while (head) {
		struct list_node *run = head;
		uint32_t k = 0;

		head = head->next;
		run->next = NULL;
		for (; bin[k]; k++) {
			run = list_merge(bin[k], run);
			bin[k] = NULL;
		}
		bin[k] = run;
	}
	for (uint32_t k = 0; k < 16; k++)
		sorted = list_merge(bin[k], sorted);
	return sorted;
}

static uint64_t list_unit(void)
{
	uint64_t sum = 0;

	for (uint32_t round = 0; round < 20; round++) {
		struct list_node *head = list_build();

		for (uint32_t want = 0; want < 64; want++) {
			const struct list_node *at = head;

			while (at && (at->key & 0x3ff) != want)
				at = at->next;
			sum = cpu_mix(sum, at ? at->weight : want);
			if (want % 8 == 0)
				head = list_reverse(head);
		}
		head = list_sort(head);
		for (const struct list_node *at = head; at; at = at->next)
			sum = cpu_mix(sum, at->weight);
	}
	return sum;
}

/* --- matrix: integers --- */

#define MATRIX 96u

static int32_t matrix_a[MATRIX][MATRIX], matrix_b[MATRIX][MATRIX], matrix_c[MATRIX][MATRIX];

static void matrix_prepare(void)
{
	uint64_t random = 1234567;

	for (uint32_t i = 0; i < MATRIX; i++) {
		for (uint32_t j = 0; j < MATRIX; j++) {
			matrix_a[i][j] = (int16_t)cpu_random(&random);
			matrix_b[i][j] = (int16_t)cpu_random(&random);
		}
	}
}

static uint64_t matrix_unit(void)
{
	uint64_t sum = 0;

	for (uint32_t round = 0; round < 4; round++) {
		for (uint32_t i = 0; i < MATRIX; i++) {
			for (uint32_t j = 0; j < MATRIX; j++) {
				uint32_t cell = 0;

				for (uint32_t k = 0; k < MATRIX; k++)
					cell += (uint32_t)(matrix_a[i][k] * matrix_b[k][j]) >> 3;
				matrix_c[i][j] = (int32_t)(cell + round);
			}
		}
		for (uint32_t i = 0; i < MATRIX; i++)
			sum = cpu_mix(sum, (uint32_t)matrix_c[i][(i * 7 + round) % MATRIX]);
	}
	return sum;
}

/* --- crc: a state machine over text, its transitions into a bitwise CRC --- */

#define CRC_TEXT 16384u

static char crc_text[CRC_TEXT];

static void crc_prepare(void)
{
	cpu_text(crc_text, sizeof(crc_text));
}

static uint16_t crc_byte(uint16_t crc, uint8_t byte)
{
	for (uint32_t bit = 0; bit < 8; bit++) {
		uint16_t carry = (uint16_t)((crc ^ byte) & 1);

		crc = (uint16_t)(crc >> 1 ^ (carry ? 0xa001 : 0));
		byte = (uint8_t)(byte >> 1);
	}
	return crc;
}

enum crc_state { CRC_START, CRC_NUMBER, CRC_FRACTION, CRC_WORD, CRC_OTHER };

static enum crc_state crc_step(enum crc_state state, char c)
{
	switch (state) {
	case CRC_NUMBER:
		if (c == '.')
			return CRC_FRACTION;
		/* fall through */
	case CRC_FRACTION:
		if (c >= '0' && c <= '9')
			return state;
		return c == ' ' || c == '\n' ? CRC_START : CRC_OTHER;
	case CRC_WORD:
		if ((c >= 'a' && c <= 'z') || c == '_')
			return CRC_WORD;
		return c == ' ' || c == '\n' ? CRC_START : CRC_OTHER;
	case CRC_OTHER:
		return c == '\n' ? CRC_START : CRC_OTHER;
	case CRC_START:
	default:
		if (c >= '0' && c <= '9')
			return CRC_NUMBER;
		if (c >= 'a' && c <= 'z')
			return CRC_WORD;
		return c == ' ' || c == '\n' ? CRC_START : CRC_OTHER;
	}
}

static uint64_t crc_unit(void)
{
	uint64_t visits[5] = { 0 }, sum = 0;
	enum crc_state state = CRC_START;
	uint16_t crc = 0xffff;

	for (uint32_t round = 0; round < 8; round++) {
		for (uint32_t i = 0; i < CRC_TEXT; i++) {
			enum crc_state next = crc_step(state, crc_text[i]);

			visits[next]++;
			if (next != state)
				crc = crc_byte(crc, (uint8_t)crc_text[i]);
			state = next;
		}
	}
	for (uint32_t i = 0; i < 5; i++)
		sum = cpu_mix(sum, visits[i]);
	return cpu_mix(sum, crc);
}

/* --- fib: calls and returns --- */

static uint32_t __attribute__((noinline)) fib(uint32_t n)
{
	return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static uint64_t fib_unit(void)
{
	return fib(29);
}

/* --- chase: a load that waits for the load before, in a random cycle of cache lines --- */

struct chase_line {
	struct chase_line *next;
	char rest[56];
};

static struct chase_line *chase_at;
static uint32_t chase_steps;

static void chase_prepare(uint32_t lines, uint32_t steps)
{
	struct chase_line *line = cpu_memory(lines * sizeof(*line));
	uint32_t *order = cpu_memory(lines * sizeof(*order));
	uint64_t random = 42;

	for (uint32_t i = 0; i < lines; i++)
		order[i] = i;
	for (uint32_t i = lines - 1; i > 0; i--) {
		uint32_t j = (uint32_t)(cpu_random(&random) % (i + 1)), swap = order[i];

		order[i] = order[j];
		order[j] = swap;
	}
	for (uint32_t i = 0; i < lines; i++)
		line[order[i]].next = &line[order[(i + 1) % lines]];
	chase_at = line;
	chase_steps = steps;
}

static void chase_16k_prepare(void)
{
	chase_prepare(16384 / 64, 1u << 20);
}

static void chase_1m_prepare(void)
{
	chase_prepare((1u << 20) / 64, 1u << 18);
}

static void chase_64m_prepare(void)
{
	chase_prepare((64u << 20) / 64, 1u << 16);
}

static uint64_t chase_unit(void)
{
	struct chase_line *at = chase_at;

	for (uint32_t i = 0; i < chase_steps; i++) {
		at = at->next;
		__asm__ volatile("" : "+r"(at));
	}
	chase_at = at;
	return chase_steps; /* where it ends depends on the addresses */
}

/* --- hash: read, change, write back at random places --- */

static uint64_t *hash_table;
static uint64_t hash_mask;

static void hash_32k_prepare(void)
{
	hash_table = cpu_memory(32768);
	hash_mask = 32768 / 8 - 1;
}

static void hash_16m_prepare(void)
{
	hash_table = cpu_memory(16u << 20);
	hash_mask = (16u << 20) / 8 - 1;
}

static uint64_t hash_unit(void)
{
	uint64_t x = 1, last = 0;

	for (uint32_t i = 0; i < 1u << 20; i++) {
		x = x * 6364136223846793005ull + 1442695040888963407ull;
		hash_table[x >> 33 & hash_mask] += x >> 7;
		last += x >> 60;
	}
	return last;
}

/* --- copy: eight bytes at a time, in a loop that stays one --- */

#define COPY_WORDS 65536u

static uint64_t *copy_from, *copy_to;

static void copy_prepare(void)
{
	copy_from = cpu_memory(COPY_WORDS * 8);
	copy_to = cpu_memory(COPY_WORDS * 8);
	for (uint64_t i = 0; i < COPY_WORDS; i++)
		copy_from[i] = i * 11400714819323198485ull;
}

static uint64_t copy_unit(void)
{
	uint64_t sum = 0;

	for (uint32_t round = 0; round < 32; round++) {
		for (uint64_t i = 0; i < COPY_WORDS; i++) {
			uint64_t word = copy_from[i];

			__asm__ volatile("" : "+r"(word));
			copy_to[i] = word;
		}
		sum = cpu_mix(sum, copy_to[round * 1000]);
	}
	return sum;
}

/* --- sha256: FIPS 180-4, in plain C --- */

static const uint32_t sha_k[64] = {
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

static uint32_t rotate(uint32_t x, uint32_t by)
{
	return x >> by | x << (32 - by);
}

static void sha_block(uint32_t h[8], const uint8_t *data)
{
	uint32_t w[64], s[8];

	for (uint32_t i = 0; i < 16; i++) {
		memcpy(&w[i], data + i * 4, 4);
		w[i] = __builtin_bswap32(w[i]);
	}
	for (uint32_t i = 16; i < 64; i++) {
		uint32_t a = w[i - 15], b = w[i - 2];

		w[i] = w[i - 16] + w[i - 7] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) +
		       (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
	}
	memcpy(s, h, sizeof(s));
	for (uint32_t i = 0; i < 64; i++) {
		uint32_t a = s[0], e = s[4];
		uint32_t t1 = s[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) +
			      ((e & s[5]) ^ (~e & s[6])) + sha_k[i] + w[i];
		uint32_t t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) +
			      ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));

		memmove(s + 1, s, 7 * sizeof(s[0]));
		s[0] = t1 + t2;
		s[4] += t1;
	}
	for (uint32_t i = 0; i < 8; i++)
		h[i] += s[i];
}

static uint64_t sha256_unit(void)
{
	static uint8_t data[16384];
	uint32_t h[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
			  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };

	for (uint32_t round = 0; round < 32; round++) {
		for (uint32_t at = 0; at < sizeof(data); at += 64)
			sha_block(h, data + at);
	}
	return (uint64_t)h[0] << 32 | h[1];
}

/* --- nbody: five bodies, doubles in scalar code --- */

struct body {
	double x, y, z, vx, vy, vz, mass;
};

static const struct body nbody_start[5] = {
	{ 0, 0, 0, -0.0004, -0.003, 0.00002, 39.478 },
	{ 4.841, -1.160, -0.1036, 0.6063, 2.8119, -0.02522, 0.03769 },
	{ 8.343, 4.125, -0.4035, -1.0107, 1.8256, 0.008415, 0.01128 },
	{ 12.894, -15.111, -0.2233, 1.0827, 0.8687, -0.01083, 0.001724 },
	{ 15.379, -25.919, 0.1792, 0.9791, 0.5946, -0.03474, 0.002033 },
};

static void nbody_step(struct body *body, double dt)
{
	for (uint32_t i = 0; i < 5; i++) {
		for (uint32_t j = i + 1; j < 5; j++) {
			double dx = body[i].x - body[j].x, dy = body[i].y - body[j].y;
			double dz = body[i].z - body[j].z;
			double square = dx * dx + dy * dy + dz * dz;
			double pull = dt / (square * sqrt(square));

			body[i].vx -= dx * body[j].mass * pull;
			body[i].vy -= dy * body[j].mass * pull;
			body[i].vz -= dz * body[j].mass * pull;
			body[j].vx += dx * body[i].mass * pull;
			body[j].vy += dy * body[i].mass * pull;
			body[j].vz += dz * body[i].mass * pull;
		}
	}
	for (uint32_t i = 0; i < 5; i++) {
		body[i].x += dt * body[i].vx;
		body[i].y += dt * body[i].vy;
		body[i].z += dt * body[i].vz;
	}
}

static uint64_t nbody_unit(void)
{
	struct body body[5];
	uint64_t sum = 0;

	memcpy(body, nbody_start, sizeof(body));
	for (uint32_t i = 0; i < 20000; i++)
		nbody_step(body, 0.001);
	for (uint32_t i = 0; i < 5; i++) {
		uint64_t bits[3];

		memcpy(bits, &body[i].x, sizeof(bits));
		sum = cpu_mix(cpu_mix(cpu_mix(sum, bits[0]), bits[1]), bits[2]);
	}
	return sum;
}

/* --- matmul: doubles in pairs (SSE2) --- */

#define MATMUL 128u

typedef double pair __attribute__((vector_size(16)));

static pair matmul_a[MATMUL][MATMUL / 2], matmul_b[MATMUL][MATMUL / 2];
static pair matmul_c[MATMUL][MATMUL / 2];

static void matmul_prepare(void)
{
	uint64_t random = 99;

	for (uint32_t i = 0; i < MATMUL; i++) {
		for (uint32_t j = 0; j < MATMUL; j++) {
			matmul_a[i][j / 2][j % 2] = (double)(cpu_random(&random) % 1000) / 7;
			matmul_b[i][j / 2][j % 2] = (double)(cpu_random(&random) % 1000) / 3;
		}
	}
}

static uint64_t matmul_unit(void)
{
	uint64_t sum = 0, bits;

	memset(matmul_c, 0, sizeof(matmul_c));
	for (uint32_t i = 0; i < MATMUL; i++) {
		for (uint32_t k = 0; k < MATMUL; k++) {
			pair a = { matmul_a[i][k / 2][k % 2], matmul_a[i][k / 2][k % 2] };

			for (uint32_t j = 0; j < MATMUL / 2; j++)
				matmul_c[i][j] += a * matmul_b[k][j];
		}
	}
	for (uint32_t i = 0; i < MATMUL; i++) {
		memcpy(&bits, &matmul_c[i][i / 2], sizeof(bits));
		sum = cpu_mix(sum, bits);
	}
	return sum;
}

uint64_t cpu_mixed_work(void)
{
	uint64_t sum = 0;

	for (uint32_t round = 0; round < 2; round++)
		sum = cpu_mix(cpu_mix(sum, fib_unit()), sha256_unit());
	return sum;
}

const struct cpu_item cpu_compute_items[] = {
	{ "list", NULL, list_unit, NULL, NULL },
	{ "matrix", matrix_prepare, matrix_unit, NULL, NULL },
	{ "crc", crc_prepare, crc_unit, NULL, NULL },
	{ "fib", NULL, fib_unit, NULL, NULL },
	{ "chase-16k", chase_16k_prepare, chase_unit, NULL, NULL },
	{ "chase-1m", chase_1m_prepare, chase_unit, NULL, NULL },
	{ "chase-64m", chase_64m_prepare, chase_unit, NULL, NULL },
	{ "hash-32k", hash_32k_prepare, hash_unit, NULL, NULL },
	{ "hash-16m", hash_16m_prepare, hash_unit, NULL, NULL },
	{ "copy", copy_prepare, copy_unit, NULL, NULL },
	{ "sha256", NULL, sha256_unit, NULL, NULL },
	{ "nbody", NULL, nbody_unit, NULL, NULL },
	{ "matmul", matmul_prepare, matmul_unit, NULL, NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};
