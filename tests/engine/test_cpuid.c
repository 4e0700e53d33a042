/* SPDX-License-Identifier: Apache-2.0 */
/* The pod's CPUID: nothing is offered that the policy or any node lacks; the topology is
 * consistent. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/limits.h"
#include "vcpu/cpuid.h"

#define ALL 0xffffffffu

/* A host that claims everything: all features, AMX, every part of the extended state. */
static size_t everything(struct cpuid_leaf *raw, bool amd)
{
	static const struct cpuid_leaf parts[] = {
		{ .function = 0xd, .index = 2, .index_matters = 1, .eax = 256, .ebx = 576 },
		{ .function = 0xd, .index = 3, .index_matters = 1, .eax = 64, .ebx = 960 },
		{ .function = 0xd, .index = 5, .index_matters = 1, .eax = 64, .ebx = 1088 },
		{ .function = 0xd, .index = 6, .index_matters = 1, .eax = 512, .ebx = 1152 },
		{ .function = 0xd, .index = 7, .index_matters = 1, .eax = 1024, .ebx = 1664 },
		{ .function = 0xd, .index = 9, .index_matters = 1, .eax = 8, .ebx = 2688 },
		{ .function = 0xd, .index = 17, .index_matters = 1, .eax = 64, .ebx = 2752 },
		{ .function = 0xd, .index = 18, .index_matters = 1, .eax = 8192, .ebx = 2816 },
	};
	static const uint32_t whole[] = { 5,	      0xa,	  0x12,	      0x14,
					  0x40000001, 0x80000001, 0x80000007, 0x80000008,
					  0x8000000a, 0x8000001f, 0x80000021 };
	size_t n = 0;

	raw[n++] = amd ? (struct cpuid_leaf){ .eax = 0x20,
					      .ebx = 0x68747541,
					      .ecx = 0x444d4163,
					      .edx = 0x69746e65 }
		       : (struct cpuid_leaf){ .eax = 0x20,
					      .ebx = 0x756e6547,
					      .ecx = 0x6c65746e,
					      .edx = 0x49656e69 };
	raw[n++] = (struct cpuid_leaf){
		.function = 1, .eax = 0x00a20f12, .ebx = ALL, .ecx = ALL, .edx = ALL
	};
	for (uint32_t i = 0; i < 3; i++)
		raw[n++] = (struct cpuid_leaf){ .function = 7,
						.index = i,
						.index_matters = 1,
						.eax = ALL,
						.ebx = ALL,
						.ecx = ALL,
						.edx = ALL };
	for (uint32_t i = 0; i < 2; i++)
		raw[n++] = (struct cpuid_leaf){ .function = 0xd,
						.index = i,
						.index_matters = 1,
						.eax = ALL,
						.ebx = ALL,
						.ecx = ALL,
						.edx = ALL };
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		raw[n++] = parts[i];
	for (size_t i = 0; i < sizeof(whole) / sizeof(whole[0]); i++)
		raw[n++] = (struct cpuid_leaf){
			.function = whole[i], .eax = ALL, .ebx = ALL, .ecx = ALL, .edx = ALL
		};
	for (size_t i = 0; i < n; i++)
		if (raw[i].function == 0x80000008)
			raw[i].eax = 0x3930; /* 48 physical, 57 virtual bits */
	return n;
}

static void offer_everything(struct cpuid_set *set, bool amd)
{
	struct cpuid_leaf raw[64];

	assert_int_equal(cpuid_offer(raw, everything(raw, amd), true, set), 0);
}

static struct cpuid_leaf *leaf_of(struct cpuid_set *set, uint32_t function, uint32_t index)
{
	for (uint32_t i = 0; i < set->count; i++)
		if (set->leaf[i].function == function && set->leaf[i].index == index)
			return &set->leaf[i];
	fail_msg("leaf %x.%x is missing", function, index);
	return NULL;
}

static bool ecx1(struct cpuid_set *set, int bit)
{
	return leaf_of(set, 1, 0)->ecx >> bit & 1;
}

static void test_policy_hides(void **unused)
{
	struct cpuid_set set;

	(void)unused;
	offer_everything(&set, false);
	assert_false(ecx1(&set, 3));  /* MONITOR */
	assert_false(ecx1(&set, 5));  /* VMX */
	assert_false(ecx1(&set, 27)); /* OSXSAVE is the guest's doing */
	assert_true(ecx1(&set, 21));  /* x2APIC */
	assert_true(ecx1(&set, 24));
	assert_true(ecx1(&set, 31));
	assert_int_equal(leaf_of(&set, 1, 0)->edx & (1u << 7 | 1u << 14), 0); /* MCE, MCA */
	assert_int_equal(leaf_of(&set, 1, 0)->edx & 1u << 1, 0);	      /* VME */
	assert_int_equal(leaf_of(&set, 0x80000001, 0)->edx & 1u << 1, 0);
	assert_int_equal(leaf_of(&set, 7, 0)->ebx & (1u << 4 | 1u << 11 | 1u << 2 | 1u << 25),
			 0); /* HLE RTM SGX PT */
	assert_int_equal(leaf_of(&set, 7, 0)->ecx & (1u << 16 | 1u << 7),
			 0); /* LA57, shadow stacks */
	assert_int_equal(leaf_of(&set, 7, 0)->edx & (1u << 22 | 1u << 24 | 1u << 25 | 1u << 29),
			 0); /* AMX, ARCH_CAPABILITIES */
	assert_int_equal(leaf_of(&set, 0x80000001, 0)->ecx & (1u << 2), 0); /* SVM */
	assert_int_equal(cpuid_xcr0(&set), CPUID_XCR0_OFFERED);
	assert_null(cpuid_find(&set, 0xd, 17));
	assert_null(cpuid_find(&set, 0xa, 0));
	assert_null(cpuid_find(&set, 0x8000000a, 0));
	assert_int_equal(cpuid_physical_bits(&set), 48);
}

static void test_offer_is_fixed_point(void **unused)
{
	struct cpuid_set once, twice;
	char why[128];

	(void)unused;
	for (int amd = 0; amd < 2; amd++) {
		offer_everything(&once, amd);
		assert_int_equal(cpuid_offer(once.leaf, once.count, true, &twice), 0);
		assert_memory_equal(&once, &twice, sizeof(once));
		assert_int_equal(cpuid_common(&twice, &once, why, sizeof(why)), 0);
		assert_memory_equal(&once, &twice, sizeof(once));
	}
}

static void test_no_deadline_unless_seen(void **unused)
{
	struct cpuid_leaf raw[64];
	struct cpuid_set with, without;
	char why[128];

	(void)unused;
	assert_int_equal(cpuid_offer(raw, everything(raw, true), false, &without), 0);
	assert_false(cpuid_has_tsc_deadline(&without));
	offer_everything(&with, true);
	assert_true(cpuid_has_tsc_deadline(&with));
	assert_int_equal(cpuid_common(&with, &without, why, sizeof(why)), 0);
	assert_false(cpuid_has_tsc_deadline(&with));
}

/* A host as above with random feature bits and parts missing. */
static void random_offer(struct cpuid_set *set)
{
	struct cpuid_leaf raw[64];
	size_t n = everything(raw, true);

	for (size_t i = 0; i < n; i++) {
		if (raw[i].function == 0 || raw[i].function == 0x80000008)
			continue;
		if (raw[i].function == 0xd && raw[i].index >= 2) {
			if (rand() % 4 == 0)
				raw[i].ebx += 64;
			continue;
		}
		for (int bit = 0; bit < 12; bit++) {
			raw[i].eax &= ~(1u << rand() % 32);
			raw[i].ebx &= ~(1u << rand() % 32);
			raw[i].ecx &= ~(1u << rand() % 32);
			raw[i].edx &= ~(1u << rand() % 28);
		}
		if (raw[i].function == 0x80000001)
			raw[i].edx |= 1u << 29;
	}
	assert_int_equal(cpuid_offer(raw, n, rand() % 2, set), 0);
}

/* Every bit of `part` is in `whole`, leaf by leaf (feature leaves only). */
static void assert_subset(struct cpuid_set *part, struct cpuid_set *whole)
{
	static const uint32_t leaves[][2] = { { 1, 0 },	  { 7, 0 },	     { 7, 1 },
					      { 0xd, 1 }, { 0x80000001, 0 }, { 0x80000021, 0 } };

	for (size_t i = 0; i < sizeof(leaves) / sizeof(leaves[0]); i++) {
		struct cpuid_leaf *a = leaf_of(part, leaves[i][0], leaves[i][1]);
		struct cpuid_leaf *b = leaf_of(whole, leaves[i][0], leaves[i][1]);

		assert_int_equal(a->ebx & ~b->ebx, 0);
		assert_int_equal(a->ecx & ~b->ecx, 0);
		assert_int_equal(a->edx & ~b->edx, 0);
	}
	assert_int_equal(cpuid_xcr0(part) & ~cpuid_xcr0(whole), 0);
}

static void assert_consistent(struct cpuid_set *set)
{
	uint64_t xcr0 = cpuid_xcr0(set);
	bool avx = ecx1(set, 28), avx512 = leaf_of(set, 7, 0)->ebx >> 16 & 1;

	assert_int_equal(avx, (xcr0 & 4) != 0);
	assert_int_equal(avx512, (xcr0 & 0xe0) == 0xe0);
	assert_true((xcr0 & 0xe0) == 0 || (xcr0 & 0xe4) == 0xe4);
	assert_true(avx || !(leaf_of(set, 7, 0)->ebx & (1u << 5))); /* AVX2 needs AVX */
	assert_int_equal((leaf_of(set, 7, 0)->ecx >> 3) & 1, (xcr0 >> 9) & 1);
	for (uint32_t i = 2; i < 32; i++)
		assert_int_equal(cpuid_find(set, 0xd, i) != NULL, (xcr0 >> i) & 1);
}

static void test_common_is_least(void **unused)
{
	struct cpuid_set offer[3], forward, backward;
	char why[128];

	(void)unused;
	srand(7);
	for (int round = 0; round < 2000; round++) {
		for (int i = 0; i < 3; i++)
			random_offer(&offer[i]);
		forward = offer[0];
		assert_int_equal(cpuid_common(&forward, &offer[1], why, sizeof(why)), 0);
		assert_int_equal(cpuid_common(&forward, &offer[2], why, sizeof(why)), 0);
		backward = offer[2];
		assert_int_equal(cpuid_common(&backward, &offer[1], why, sizeof(why)), 0);
		assert_int_equal(cpuid_common(&backward, &offer[0], why, sizeof(why)), 0);
		for (int i = 0; i < 3; i++)
			assert_subset(&forward, &offer[i]);
		assert_consistent(&forward);
		assert_int_equal(forward.count, backward.count);
		for (uint32_t i = 0; i < forward.count; i++)
			if (forward.leaf[i].function < 0x80000002 ||
			    forward.leaf[i].function > 0x80000004)
				assert_memory_equal(&forward.leaf[i], &backward.leaf[i],
						    sizeof(forward.leaf[i]));
	}
}

/* Whatever the hosts are: the pod's CPUID is within each one's offer, and with a bit more it is
 * not. */
static void test_within(void **unused)
{
	static const struct {
		uint32_t function, bit; /* of ebx */
	} more[] = { { 7, 5 }, { 7, 16 }, { 7, 18 }, { 7, 29 } };
	struct cpuid_set offer[3], common, pod;
	char why[128];

	(void)unused;
	srand(8);
	for (int round = 0; round < 2000; round++) {
		for (int i = 0; i < 3; i++)
			random_offer(&offer[i]);
		common = offer[0];
		for (int i = 1; i < 3; i++)
			assert_int_equal(cpuid_common(&common, &offer[i], why, sizeof(why)), 0);
		assert_int_equal(cpuid_finish(&common, 1 + (uint32_t)round % 9, &pod), 0);
		for (int i = 0; i < 3; i++)
			assert_true(cpuid_within(&pod, &offer[i]));
		for (size_t k = 0; k < sizeof(more) / sizeof(more[0]); k++) {
			struct cpuid_leaf *leaf =
				&pod.leaf[cpuid_find(&pod, more[k].function, 0) - pod.leaf];
			struct cpuid_set before = pod, grown;
			leaf->ebx |= 1u << more[k].bit;
			/* Bits that stand on others, which are not there, count for nothing. */
			assert_int_equal(cpuid_offer(pod.leaf, pod.count, false, &grown), 0);
			bool has = cpuid_find(&grown, 7, 0)->ebx >> more[k].bit & 1;
			bool offered = cpuid_find(&offer[0], 7, 0)->ebx >> more[k].bit & 1;
			assert_int_equal(cpuid_within(&pod, &offer[0]), !has || offered);
			pod = before;
		}
	}
	pod.count = 0;
	assert_false(cpuid_within(&pod, &offer[0]));
}

/* PKRU elsewhere (an older AMD CPU): not common, so not offered. */
static void test_layouts_must_agree(void **unused)
{
	struct cpuid_set a, b;
	char why[128];

	(void)unused;
	offer_everything(&a, true);
	b = a;
	leaf_of(&b, 0xd, 9)->ebx = 832;
	assert_int_equal(cpuid_common(&a, &b, why, sizeof(why)), 0);
	assert_int_equal(cpuid_xcr0(&a), 0xe7);
	assert_int_equal(leaf_of(&a, 7, 0)->ecx & (1u << 3), 0);
}

static void test_vendors_do_not_mix(void **unused)
{
	struct cpuid_set amd, intel;
	char why[128] = "";

	(void)unused;
	offer_everything(&amd, true);
	offer_everything(&intel, false);
	assert_int_equal(cpuid_common(&amd, &intel, why, sizeof(why)), -EXDEV);
	assert_non_null(strstr(why, "AMD"));
	assert_non_null(strstr(why, "Intel"));
}

static void test_hostile_offer(void **unused)
{
	struct cpuid_set good, bad, before;
	char why[128];

	(void)unused;
	offer_everything(&good, true);
	before = good;
	bad = good;
	bad.count = CPUID_LEAVES_MAX + 1;
	assert_int_equal(cpuid_common(&good, &bad, why, sizeof(why)), -ENOTSUP);
	memset(&bad, 0, sizeof(bad));
	assert_int_equal(cpuid_common(&good, &bad, why, sizeof(why)), -ENOTSUP);
	memset(&bad, 0xff, sizeof(bad));
	bad.count = CPUID_LEAVES_MAX;
	assert_int_equal(cpuid_common(&good, &bad, why, sizeof(why)), -ENOTSUP);
	assert_memory_equal(&good, &before, sizeof(good));
	bad = good;
	for (uint32_t i = 0; i < bad.count; i++)
		if (bad.leaf[i].function == 1)
			bad.leaf[i].ecx = ALL; /* claims VMX: cannot add it */
	assert_int_equal(cpuid_common(&good, &bad, why, sizeof(why)), 0);
	assert_false(ecx1(&good, 5));
}

static void check_topology(struct cpuid_set *pod, uint32_t count)
{
	struct cpuid_set set;
	uint32_t bits = leaf_of(pod, 0xb, 1)->eax;

	assert_true((1ull << bits) >= count);
	assert_true(count == 1 || (1ull << (bits - 1)) < count);
	assert_int_equal(leaf_of(pod, 0xb, 0)->ebx, 1);
	assert_int_equal(leaf_of(pod, 0xb, 1)->ebx, count);
	for (uint32_t number = 0; number < count; number += 1 + count / 7) {
		cpuid_for_vcpu(pod, number, &set);
		assert_int_equal(leaf_of(&set, 1, 0)->ebx >> 24, number & 0xff);
		for (uint32_t i = 0; i < 3; i++)
			assert_int_equal(leaf_of(&set, 0xb, i)->edx, number);
		if (cpuid_find(&set, 0x8000001e, 0))
			assert_int_equal(cpuid_find(&set, 0x8000001e, 0)->eax, number);
	}
}

static void test_finish(void **unused)
{
	static const uint32_t counts[] = { 1, 2, 3, 64, 255, 256, VCPUS_MAX };
	struct cpuid_set common, pod;

	(void)unused;
	for (int amd = 0; amd < 2; amd++) {
		offer_everything(&common, amd);
		for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
			assert_int_equal(cpuid_finish(&common, counts[i], &pod), 0);
			check_topology(&pod, counts[i]);
			assert_int_equal(leaf_of(&pod, 1, 0)->edx >> 28 & 1, counts[i] > 1);
		}
		assert_int_equal(leaf_of(&pod, 0xd, 0)->ecx, 2696);
		assert_int_equal(leaf_of(&pod, 0xd, 0)->eax, CPUID_XCR0_OFFERED);
		assert_int_equal(leaf_of(&pod, 0x80000007, 0)->edx, 1 << 8);
		assert_int_equal(leaf_of(&pod, 0x40000000, 0)->ebx, 0x4b4d564b);
		assert_int_equal(leaf_of(&pod, 0x40000001, 0)->eax & ~0x8082u, 0);
		/* The I/O APIC names any vCPU; else Linux takes none whose id is above 255. */
		assert_int_equal(leaf_of(&pod, 0x40000001, 0)->eax >> 15 & 1, 1);
		/* Native spinlocks: PV_UNHALT alone would make Linux use a hypercall. */
		assert_int_equal(leaf_of(&pod, 0x40000001, 0)->eax >> 7 & 1,
				 leaf_of(&pod, 0x40000001, 0)->edx & 1);
		assert_int_equal(leaf_of(&pod, 6, 0)->eax, 4);
		for (uint32_t i = 1; i < pod.count; i++)
			assert_true(pod.leaf[i - 1].function < pod.leaf[i].function ||
				    pod.leaf[i - 1].index < pod.leaf[i].index);
	}
	assert_int_equal(cpuid_finish(&common, 0, &pod), -EINVAL);
	assert_int_equal(cpuid_finish(&common, VCPUS_MAX + 1, &pod), -EINVAL);
}

static void test_bare_host(void **unused)
{
	struct cpuid_leaf raw[64];
	struct cpuid_set set;
	size_t n = everything(raw, true), kept = 0;

	(void)unused;
	for (size_t i = 0; i < n; i++)
		if (raw[i].function != 0xd && raw[i].function != 7)
			raw[kept++] = raw[i];
	assert_int_equal(cpuid_offer(raw, kept, true, &set), 0);
	assert_int_equal(cpuid_xcr0(&set), 1);
	assert_false(ecx1(&set, 26));
	assert_false(ecx1(&set, 28));
	assert_int_equal(cpuid_offer(raw, 1, true, &set), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_policy_hides),
		cmocka_unit_test(test_offer_is_fixed_point),
		cmocka_unit_test(test_no_deadline_unless_seen),
		cmocka_unit_test(test_common_is_least),
		cmocka_unit_test(test_within),
		cmocka_unit_test(test_layouts_must_agree),
		cmocka_unit_test(test_vendors_do_not_mix),
		cmocka_unit_test(test_hostile_offer),
		cmocka_unit_test(test_finish),
		cmocka_unit_test(test_bare_host),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
