/* SPDX-License-Identifier: Apache-2.0 */
/* The time-stamp counter: set by the pod clock, adjusted by the guest. */
#include <string.h>
#include <x86intrin.h>

#include "tests/engine/cases.h"

static int read_guest_tsc(struct rig *rig, uint32_t number, uint64_t *ret_tsc)
{
	struct engine_exit *exit = &rig->exit[number];
	uint32_t half[2] = { 0 };

	for (int i = 0; i < 2; i++) {
		CHECK(rig_ops->vcpu_run(rig->vcpu[number], exit) == 0, "run");
		CHECK(exit->kind == EXIT_IO && exit->io.port == PORT_OUT, "%s",
		      rig_kind_name(exit->kind));
		memcpy(&half[i], exit->io.data, 4);
	}
	*ret_tsc = (uint64_t)half[0] << 32 | half[1];
	return 0;
}

/* The guest's TSC lies between what the host's was before and after, moved by the offset. */
static int check_tsc(struct rig *rig, uint32_t number, uint64_t offset, uint64_t *last)
{
	uint64_t before = __rdtsc(), guest, after;

	CHECK(read_guest_tsc(rig, number, &guest) == 0, "rdtsc");
	after = __rdtsc();
	CHECK(guest - offset >= before && guest - offset <= after, "TSC is %ld off",
	      (long)(guest - offset - before));
	CHECK(guest > *last, "TSC went back by %lu", (unsigned long)(*last - guest));
	*last = guest;
	return 0;
}

static int test_tsc(struct rig *rig)
{
	uint64_t host = __rdtsc(), offset = 1000000 - host, last = 0;
	struct tsc_line tsc = { .host_tsc = host, .guest_tsc = 1000000, .ratio = TSC_RATIO_ONE };

	for (uint32_t i = 0; i < 2; i++) {
		CHECK(rig_start(rig, i, GUEST(tsc), RIG_LONG) == 0, "start");
		CHECK(rig_ops->vcpu_set_tsc(rig->vcpu[i], &tsc) == 0, "set");
		rig_sleep_ms(i * 5); /* set later, for the same pair: no matter */
	}
	for (int i = 0; i < 200; i++)
		CHECK(check_tsc(rig, i % 2, offset, &last) == 0, "reading %d", i);
	for (int i = 0; i < 100; i++) { /* corrected forward a little, again and again */
		offset += 1000;
		tsc = (struct tsc_line){ .host_tsc = 0,
					 .guest_tsc = offset,
					 .ratio = TSC_RATIO_ONE };
		for (uint32_t k = 0; k < 2; k++)
			CHECK(rig_ops->vcpu_set_tsc(rig->vcpu[k], &tsc) == 0, "set");
		CHECK(check_tsc(rig, 0, offset, &last) == 0 &&
			      check_tsc(rig, 1, offset, &last) == 0,
		      "correction %d", i);
	}
	return 0;
}

static uint64_t scaled(uint64_t tsc, uint64_t ratio)
{
	return (uint64_t)((unsigned __int128)tsc * ratio >> TSC_RATIO_BITS);
}

/* At another rate than the host's, which changes. */
static int test_tsc_ratio(struct rig *rig)
{
	static const uint64_t ratios[] = { TSC_RATIO_ONE / 2 + 12345, TSC_RATIO_ONE + 1,
					   3 * TSC_RATIO_ONE - 77 };
	uint64_t before, guest, after;

	if (rig_ops == &engine_kvm)
		return 0;
	CHECK(rig_start(rig, 0, GUEST(tsc), RIG_LONG) == 0, "start");
	for (size_t i = 0; i < 300; i++) {
		struct tsc_line tsc = { .host_tsc = 3ull << (i % 50),
					.guest_tsc = 0x123456789abc + i,
					.ratio = ratios[i % 3] };
		uint64_t from = tsc.guest_tsc - scaled(tsc.host_tsc, tsc.ratio);

		CHECK(rig_ops->vcpu_set_tsc(rig->vcpu[0], &tsc) == 0, "set");
		before = __rdtsc();
		CHECK(read_guest_tsc(rig, 0, &guest) == 0, "rdtsc");
		after = __rdtsc();
		CHECK(guest - from >= scaled(before, tsc.ratio) &&
			      guest - from <= scaled(after, tsc.ratio),
		      "%zu: not between", i);
	}
	return 0;
}

/* What the guest adds to its TSC stays added when the pod clock is set again. */
static int test_tsc_adjust(struct rig *rig)
{
	struct tsc_line tsc = { .host_tsc = 0, .guest_tsc = 0, .ratio = TSC_RATIO_ONE };
	uint64_t last = 0;

	CHECK(rig_start(rig, 0, GUEST(tsc_adjust), RIG_LONG) == 0, "start");
	CHECK(rig_ops->vcpu_set_tsc(rig->vcpu[0], &tsc) == 0, "set");
	CHECK(check_tsc(rig, 0, 1ull << 40, &last) == 0, "adjusted");
	tsc.guest_tsc = 5000;
	CHECK(rig_ops->vcpu_set_tsc(rig->vcpu[0], &tsc) == 0, "set");
	CHECK(check_tsc(rig, 0, (1ull << 40) + 5000, &last) == 0, "adjusted and set");
	return 0;
}

/* What a deadline is to be counted from comes with it. */
static int test_tsc_deadline(struct rig *rig)
{
	if (!rig_features.tsc_deadline) {
		printf("  left out: writes of a TSC deadline do not exit here\n");
		return 0;
	}
	CHECK(rig_start(rig, 0, GUEST(tsc_deadline), RIG_LONG) == 0, "start");
	CHECK(rig_expect(rig, 0, EXIT_MSR_WRITE) == 0, "wrmsr");
	CHECK(rig->exit[0].msr.index == 0x6e0 && rig->exit[0].msr.value == 5, "%x %lx",
	      rig->exit[0].msr.index, (unsigned long)rig->exit[0].msr.value);
	CHECK(rig->exit[0].msr.tsc_adjust == UINT64_MAX, "%lx",
	      (unsigned long)rig->exit[0].msr.tsc_adjust);
	CHECK(rig_expect(rig, 0, EXIT_HLT) == 0, "hlt");
	return 0;
}

const struct test_case cases_tsc[] = {
	{ "tsc", test_tsc, "guests see the host's TSC" },
	{ "tsc-deadline", test_tsc_deadline, "it has no TSC deadline" },
	{ "tsc-adjust", test_tsc_adjust, "guests see the host's TSC" },
	{ "tsc-ratio", test_tsc_ratio, "guests see the host's TSC" },
	{ 0 },
};
