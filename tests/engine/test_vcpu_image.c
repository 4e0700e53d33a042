/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vCPU image: round trips of random states, completeness (no field is forgotten), uniqueness,
 * and hostile images: every truncation and many corruptions of good ones, decoded from a buffer
 * that ends where the image does (so that ASan sees a read too far).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "wire/vcpu_image.h"

static struct vcpu_state state, decoded, before;
static uint8_t image[VCPU_IMAGE_BYTES_MAX], again[VCPU_IMAGE_BYTES_MAX];

static uint64_t seed;

static uint64_t random64(void)
{
	seed += 0x9e3779b97f4a7c15ull;
	uint64_t z = seed;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* Zero, small, a kernel address, or anything: what registers hold. */
static uint64_t random_value(void)
{
	switch (random64() % 5) {
	case 0:
		return 0;
	case 1:
		return random64() >> (random64() % 64);
	case 2:
		return 0xffffffff80000000ull | (random64() >> 34);
	case 3:
		return (uint64_t)((int64_t)random64() >> (random64() % 64));
	default:
		return random64();
	}
}

static void random_extended(struct vcpu_state *s)
{
	uint16_t used = (uint16_t)(random64() & 0x2e7);

	s->xcr0 = (random64() & 1) ? 0x2e7 : 0x7;
	memcpy(s->xsave + 512, &used, 2);
	for (uint32_t part = 0; part < VCPU_XSAVE_PARTS; part++) {
		if (!(used >> part & 1))
			continue;
		for (uint32_t i = 0; i < vcpu_xsave_parts[part].size; i++)
			if ((i / 16 + part) % 3 || (random64() & 1))
				s->xsave[vcpu_xsave_parts[part].offset + i] = (uint8_t)random64();
	}
	memset(s->xsave + 24, 0, 8);
	s->xsave[24] = 0x80;
	s->xsave[25] = random64() & 1 ? 0x1f : 0x3f;
}

static void random_state(struct vcpu_state *s)
{
	vcpu_state_reset(s, (uint32_t)(random64() % 512));
	for (int i = 0; i < GPR_COUNT; i++)
		s->gpr[i] = random_value();
	s->rip = random_value();
	s->rflags = (random64() & 0xed5) | 2;
	s->cr0 = 0x80050033;
	s->cr2 = random_value();
	s->cr3 = random_value() & 0xfffffffff000ull;
	s->cr4 = 0x3506f0;
	s->efer = 0xd01;
	s->cr8 = random64() & 0xf;
	for (int i = 0; i < 4; i++)
		s->dr[i] = random_value();
	for (int i = 0; i < SEG_COUNT; i++) {
		s->segment[i].base = random_value();
		s->segment[i].limit = (uint32_t)random_value();
		s->segment[i].selector = (uint16_t)random64();
		s->segment[i].attributes = (uint16_t)(random64() & 0xf0ff);
		s->segment[i].unusable = random64() & 1;
	}
	s->gdt.base = random_value();
	s->idt.base = random_value();
	for (int i = 0; i < VCPU_MSR_COUNT; i++)
		if (random64() & 1)
			s->msr[i] = random_value();
	s->interrupt_injected = random64() & 1;
	s->interrupt_vector = (uint8_t)random64();
	s->interrupt_shadow = random64() & 3;
	s->debug_held = s->interrupt_shadow & 2 ? random64() & 0x400f : 0;
	s->x87_cs = (uint16_t)random64();
	s->run_state = (uint8_t)(random64() % 3);
	s->lapic.svr = (uint32_t)random_value();
	s->lapic.timer_deadline_ns = random_value();
	for (int i = 0; i < 4; i++)
		s->lapic.irr[i] = random_value();
	random_extended(s);
}

static void test_round_trip(void **unused)
{
	size_t size, size_again;

	(void)unused;
	seed = 1;
	for (int round = 0; round < 20000; round++) {
		random_state(&state);
		assert_int_equal(vcpu_image_encode(&state, image, sizeof(image), &size), 0);
		memset(&decoded, 0x55, sizeof(decoded));
		assert_int_equal(vcpu_image_decode(image, size, &decoded), 0);
		assert_int_equal(vcpu_image_encode(&decoded, again, sizeof(again), &size_again), 0);
		assert_int_equal(size, size_again);
		assert_memory_equal(image, again, size);
		/* x87's control word of an unused x87 is as after reset in both, the rest of it is
		 * zero. */
		assert_memory_equal(&state, &decoded, sizeof(state));
	}
}

#define AFTER(member)                                                                              \
	(offsetof(struct vcpu_state, member) + sizeof(((struct vcpu_state *)0)->member))
#define XSAVE(at) (offsetof(struct vcpu_state, xsave) + (at))

/* Bytes of the struct that mean nothing: the compiler's padding, and what lies between XSAVE parts.
 */
static bool is_padding(size_t at)
{
	static const struct {
		size_t from, to;
	} gaps[] = {
		{ AFTER(x87_cs), offsetof(struct vcpu_state, lapic) },
		{ AFTER(lapic.timer_divide), offsetof(struct vcpu_state, lapic.timer_start_ns) },
		{ AFTER(lapic), XSAVE(0) },
		{ XSAVE(28), XSAVE(32) }, /* MXCSR_MASK: the host's business */
		{ XSAVE(416), XSAVE(512) },
		{ XSAVE(832), XSAVE(1088) },
		{ XSAVE(2696), sizeof(struct vcpu_state) },
	};

	for (size_t i = 0; i < sizeof(gaps) / sizeof(gaps[0]); i++)
		if (at >= gaps[i].from && at < gaps[i].to)
			return true;
	return false;
}

static void test_nothing_forgotten(void **unused)
{
	size_t size, changed_size;

	(void)unused;
	vcpu_state_reset(&before, 0);
	before.xcr0 = 0x2e7;
	before.xsave[512] = 0xe7;
	before.xsave[513] = 0x02;
	assert_int_equal(vcpu_image_encode(&before, image, sizeof(image), &size), 0);
	for (size_t at = 0; at < sizeof(state); at++) {
		int err;

		state = before;
		((uint8_t *)&state)[at] ^= 1;
		err = vcpu_image_encode(&state, again, sizeof(again), &changed_size);
		if (is_padding(at) || err == -EINVAL)
			continue;
		assert_int_equal(err, 0);
		if (size == changed_size && !memcmp(image, again, size))
			fail_msg("byte %zu of the state is not in the image", at);
	}
}

static void test_worst_case_fits(void **unused)
{
	size_t size, largest = 0;

	(void)unused;
	seed = 2;
	for (int round = 0; round < 200; round++) {
		random_state(&state);
		for (int i = 0; i < GPR_COUNT; i++)
			state.gpr[i] = 0x0123456789abcdefull ^ random64() >> 8;
		for (int i = 0; i < VCPU_MSR_COUNT; i++)
			state.msr[i] = 0x4123456789abcdefull;
		memset(&state.lapic, 0x41, offsetof(struct lapic_state, enabled));
		state.xcr0 = 0x2e7;
		memset(state.xsave, 0x41, 416);
		memset(state.xsave + 576, 0x41, 256);
		memset(state.xsave + 1088, 0x41, 1608);
		memcpy(state.xsave + 24, "\x80\x3f\0\0\0\0\0\0", 8);
		memcpy(state.xsave + 512, "\xe7\x02", 2);
		assert_int_equal(vcpu_image_encode(&state, image, sizeof(image), &size), 0);
		if (size > largest)
			largest = size;
		assert_int_equal(vcpu_image_encode(&state, image, size - 1, &size), -ENOSPC);
	}
	print_message("largest image: %zu bytes\n", largest);
	assert_true(largest > 3200 && largest <= VCPU_IMAGE_BYTES_MAX);
}

static int decode_copy(const uint8_t *bytes, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);
	int err;

	assert_non_null(copy);
	memcpy(copy, bytes, size);
	err = vcpu_image_decode(copy, size, &decoded);
	free(copy);
	return err;
}

static void test_truncated(void **unused)
{
	size_t size;

	(void)unused;
	seed = 3;
	for (int round = 0; round < 20; round++) {
		random_state(&state);
		assert_int_equal(vcpu_image_encode(&state, image, sizeof(image), &size), 0);
		decoded = before = state;
		for (size_t cut = 0; cut < size; cut++) {
			uint8_t old[2] = { image[2], image[3] };

			assert_true(decode_copy(image, cut) < 0);
			image[2] = (uint8_t)cut; /* also with a size that agrees */
			image[3] = (uint8_t)(cut >> 8);
			assert_true(decode_copy(image, cut) < 0);
			memcpy(image + 2, old, 2);
		}
		assert_memory_equal(&decoded, &before, sizeof(decoded));
		assert_true(decode_copy(image, size) == 0);
	}
}

/* Whatever still decodes is a valid state, and the image is the only one of that state. */
static void test_corrupted(void **unused)
{
	size_t size, size_again;
	int good = 0;

	(void)unused;
	seed = 4;
	for (int round = 0; round < 100000; round++) {
		if (round % 100 == 0)
			random_state(&state);
		assert_int_equal(vcpu_image_encode(&state, image, sizeof(image), &size), 0);
		for (uint64_t n = 1 + random64() % 4; n; n--)
			image[random64() % (random64() & 1 ? size : 120)] = (uint8_t)random64();
		if (decode_copy(image, size))
			continue;
		good++;
		assert_int_equal(vcpu_image_encode(&decoded, again, sizeof(again), &size_again), 0);
		assert_int_equal(size, size_again);
		assert_memory_equal(image, again, size);
	}
	assert_true(good > 1000);
}

static void test_refusals(void **unused)
{
	size_t size;

	(void)unused;
	vcpu_state_reset(&state, 0);
	assert_int_equal(vcpu_image_encode(&state, image, sizeof(image), &size), 0);
	assert_true(size < 64);
	image[0] = VCPU_IMAGE_VERSION + 1;
	assert_int_equal(decode_copy(image, size), -EPROTONOSUPPORT);
	image[0] = VCPU_IMAGE_VERSION;
	image[1] = 1;
	assert_int_equal(decode_copy(image, size), -EBADMSG);
	image[1] = 0;
	image[size] = 0;
	assert_int_equal(decode_copy(image, size + 1), -EBADMSG);
	assert_int_equal(decode_copy(image, size), 0);
	state.cr0 = 1ull << 31;
	assert_int_equal(vcpu_image_encode(&state, image, sizeof(image), &size), -EINVAL);
	vcpu_state_reset(&state, 0);
	state.gdt.reserved[1] = 1;
	assert_int_equal(vcpu_image_encode(&state, image, sizeof(image), &size), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),	cmocka_unit_test(test_nothing_forgotten),
		cmocka_unit_test(test_worst_case_fits), cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_corrupted),	cmocka_unit_test(test_refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
