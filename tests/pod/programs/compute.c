/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that the guest compiles and runs (tests/pod/in_guest_programs): what it prints depends
 * on the arithmetic of the CPU alone, so that the same program run natively must print the same.
 *
 * It goes where compilers go: divisions, wide and narrow integers, vectors, doubles, floats and
 * x87's long doubles, function pointers, recursion, longjmp, strings, sorting, threads with
 * atomics, signals for bad accesses.
 */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state = 88172645463325252u;

static uint64_t random_next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	return state ^= state << 17;
}

/* FNV-1a. */
static uint64_t hash(uint64_t h, const void *data, size_t size)
{
	const unsigned char *byte = data;
	for (size_t i = 0; i < size; i++)
		h = (h ^ byte[i]) * 0x100000001b3u;
	return h;
}

static uint64_t integers(void)
{
	uint64_t h = 1;
	for (int i = 0; i < 200000; i++) {
		uint64_t a = random_next(), b = random_next() >> (i & 63) | 1;
		unsigned __int128 wide = (unsigned __int128)a * b;
		int64_t s = (int64_t)a / (int64_t)((b & 0xffff) + 1);
		uint32_t n = (uint32_t)a % ((uint32_t)b | 1);
		int16_t narrow = (int16_t)(a >> 3) / ((int16_t)(b & 127) + 1);
		h = h * 31 + (uint64_t)(wide >> 64) + a / b + (uint64_t)s + n + (uint64_t)narrow;
		h += (uint64_t)__builtin_popcountll(a) + (uint64_t)__builtin_clzll(b);
		h ^= (h >> 29) | (a << (b & 63)) | (uint64_t)((int64_t)a >> (a & 63));
	}
	return h;
}

static uint64_t doubles(void)
{
	double x = 0.5, sum = 0;
	float f = 1.25f;
	long double l = 1.0L;
	uint64_t h = 2;
	for (int i = 1; i < 60000; i++) {
		x = 3.9 * x * (1 - x);
		sum += sin(x) * cos(i) + sqrt(x) / i + pow(x, 1.5) - exp(-x) + log(x + 1);
		f = f * 0.75f + (float)x / 3;
		l = l * 0.99999L + sqrtl(l + x) / (1 + fabsl(l)) - floorl(l);
		h = h * 31 + (uint64_t)(int64_t)(sum * 1e6) + (uint64_t)lrint(f * 1e5) +
		    (uint64_t)(int)(l * 1e4L);
	}
	h = hash(h, &x, sizeof(x));
	h = hash(h, &sum, sizeof(sum));
	h = hash(h, &f, sizeof(f));
	return hash(h, &l, 10); /* the rest of it is padding */
}

static uint64_t vectors(void)
{
	static uint32_t a[4096], b[4096];
	static uint8_t bytes[4096];
	static float f[4096];
	for (int i = 0; i < 4096; i++) {
		a[i] = (uint32_t)random_next();
		bytes[i] = (uint8_t)(a[i] >> 9);
		f[i] = (float)(a[i] & 1023) / 8;
	}
	for (int round = 0; round < 200; round++)
		for (int i = 0; i < 4096; i++) {
			b[i] = b[i] * 5 + (a[i] >> (round & 15));
			bytes[i] = (uint8_t)((bytes[i] + b[i]) / 2);
			f[i] = f[i] > 100 ? f[i] / 2 : f[i] + (float)bytes[i];
		}
	return hash(hash(hash(3, b, sizeof(b)), bytes, sizeof(bytes)), f, sizeof(f));
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static uint64_t strings(void)
{
	enum { COUNT = 5000 };
	char *text[COUNT];
	uint64_t h = 4;
	for (int i = 0; i < COUNT; i++) {
		char line[100];
		uint64_t r = random_next();
		snprintf(line, sizeof(line), "%llx %d %.6g %s", (unsigned long long)r >> 40,
			 (int)(r & 4095) - 2000, (double)(r >> 20) / 977, r & 1 ? "odd" : "even");
		text[i] = strdup(line);
	}
	qsort(text, COUNT, sizeof(text[0]), by_text);
	for (int i = 0; i < COUNT; i++) {
		h = hash(h, text[i], strlen(text[i])) +
		    (uint64_t)(strtod(strchr(text[i], ' '), NULL) * 8);
		free(text[i]);
	}
	return h;
}

static unsigned ackermann(unsigned m, unsigned n)
{
	return !m ? n + 1 : ackermann(m - 1, !n ? 1 : ackermann(m, n - 1));
}

static jmp_buf escape;
static sigjmp_buf from_fault;

static void go_deep(int depth)
{
	if (!depth)
		longjmp(escape, 5);
	go_deep(depth - 1);
}

static void on_fault(int number, siginfo_t *info, void *context)
{
	siglongjmp(from_fault, number * 256 + info->si_code);
}

static uint64_t control(void)
{
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	volatile uint64_t h = ackermann(2, 300);
	for (volatile int i = 0; i < 300; i++)
		if (!setjmp(escape))
			go_deep(i);
		else
			h++;
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGFPE, &action, NULL);
	sigaction(SIGILL, &action, NULL);
	for (volatile int i = 0; i < 200; i++) {
		volatile int zero = 0, *nowhere = (int *)(uintptr_t)(i * 4);
		volatile int *not_canonical = (int *)0x8000000000000000;
		int said = sigsetjmp(from_fault, 1);
		if (said)
			h = h * 31 + (unsigned)said;
		else if (i % 4 == 0)
			*nowhere = 1;
		else if (i % 4 == 1)
			h += (uint64_t)*not_canonical;
		else if (i % 4 == 2)
			h += (uint64_t)(i / zero);
		else
			__asm__ volatile("ud2");
	}
	return h;
}

enum { THREADS = 4, ROUNDS = 20000 };
static atomic_ulong counted;
static unsigned long guarded;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *count(void *argument)
{
	for (int i = 0; i < ROUNDS; i++) {
		unsigned long seen = atomic_load(&counted);
		while (!atomic_compare_exchange_weak(&counted, &seen, seen + 3))
			;
		atomic_fetch_sub(&counted, 2);
		if (i % 8 == 0) {
			pthread_mutex_lock(&lock);
			guarded += (unsigned long)(uintptr_t)argument;
			pthread_mutex_unlock(&lock);
		}
	}
	return argument;
}

static uint64_t threads(void)
{
	pthread_t thread[THREADS];
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&thread[i], NULL, count, (void *)(i + 1));
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	return counted * 1000000 + guarded;
}

int main(void)
{
	static const struct {
		const char *name;
		uint64_t (*run)(void);
	} parts[] = { { "integers", integers }, { "doubles", doubles }, { "vectors", vectors },
		      { "strings", strings },	{ "control", control }, { "threads", threads } };
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		printf("%s %016llx\n", parts[i].name, (unsigned long long)parts[i].run());
	return 0;
}
