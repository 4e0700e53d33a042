/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pod's CPUID: the least common denominator of its nodes, and a topology that Linux likes.
 *
 * A vCPU may run on any node, so the guest may only be told what every node can do, in the same
 * way. Three kinds of leaves: features    an allow list of bits (feature_masks); common = AND. What
 * is new or node-local (performance counters, SVM, MONITOR, TSX, AMX, machine checks, ...) is
 * simply not in the list. xsave       a part is common only if both hosts have it at the same place
 * with the same size, since guests save it with the host's own instruction. made up     topology,
 * caches, hypervisor: written here, the same on every host. PKU and AVX-512 sit elsewhere on AMD
 * than on Intel; this does not matter as vendors never mix: kernels choose their system call and
 * errata paths by the vendor.
 *
 * Invariant: what comes out of cpuid_offer() and cpuid_common() is a fixed point of the policy, so
 * a peer's offer can take away, never add. Tested by tests/engine/test_cpuid.c.
 */
#include "vcpu/cpuid.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/limits.h"

#define BIT(n) (1u << (n))

/* Leaf 1 */
#define L1_ECX_FMA	    BIT(12)
#define L1_ECX_X2APIC	    BIT(21)
#define L1_ECX_TSC_DEADLINE BIT(24)
#define L1_ECX_XSAVE	    BIT(26)
#define L1_ECX_AVX	    BIT(28)
#define L1_ECX_F16C	    BIT(29)
#define L1_ECX_HYPERVISOR   BIT(31)
#define L1_EDX_HT	    BIT(28)
/* Leaf 7.0 */
#define L7_EBX_AVX2    BIT(5)
#define L7_EBX_AVX512F BIT(16)
#define L7_EBX_AVX512  (BIT(16) | BIT(17) | BIT(21) | BIT(28) | BIT(30) | BIT(31))
#define L7_ECX_PKU     BIT(3)
#define L7_ECX_AVX     (BIT(9) | BIT(10)) /* VAES, VPCLMULQDQ */
#define L7_ECX_AVX512  (BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14))
#define L7_EDX_AVX512  (BIT(2) | BIT(3) | BIT(8)) /* 4VNNIW, 4FMAPS, VP2INTERSECT */
#define L71_EAX_AVX    BIT(4)			  /* AVX-VNNI */
#define L71_EAX_AVX512 BIT(5)			  /* BF16 */
/* Leaf 0x80000001 */
#define X1_ECX_AVX		 (BIT(11) | BIT(16)) /* XOP, FMA4 */
#define X1_ECX_TOPOEXT		 BIT(22)
#define L7_EDX_ARCH_CAPABILITIES BIT(29)
#define X1_EDX_LM		 BIT(29)
#define X7_EDX_INVARIANT_TSC	 BIT(8)

#define XCR0_AVX    0x4u
#define XCR0_AVX512 0xe0u
#define XCR0_PKRU   0x200u
#define XSAVE_MIN   576u /* legacy area and header */

#define KVM_FEATURE_NOP_IO_DELAY BIT(1)
#define KVM_FEATURE_PV_UNHALT	 BIT(7)
#define KVM_FEATURE_EXT_DEST_ID	 BIT(15)
#define KVM_HINTS_REALTIME	 BIT(0)

struct feature_mask {
	uint32_t function, index;
	uint8_t index_matters;
	uint32_t eax, ebx, ecx, edx;
};

/* The policy: every bit that may ever be offered. */
static const struct feature_mask feature_masks[] = {
	/*
	 * ECX: SSE3 PCLMULQDQ SSSE3 FMA CX16 PCID SSE4.1 SSE4.2 x2APIC MOVBE POPCNT TSC-deadline
	 * AES XSAVE AVX F16C RDRAND hypervisor. EDX: all but VME, machine checks (7, 14), debug store,
	 * ACPI throttling, self snoop, HT, thermal.
	 */
	{ 0x1, 0, 0, 0, 0, 0xf7fa3203, 0x078bbb7d },
	/*
	 * EBX: FSGSBASE TSC_ADJUST BMI1 AVX2 SMEP BMI2 ERMS INVPCID RDSEED ADX SMAP CLFLUSHOPT CLWB
	 * SHA, AVX-512. ECX: AVX512VBMI UMIP PKU VBMI2 GFNI VAES VPCLMULQDQ VNNI BITALG VPOPCNTDQ
	 * RDPID MOVDIRI MOVDIR64B. EDX: 4VNNIW 4FMAPS FSRM VP2INTERSECT MD_CLEAR SERIALIZE
	 * SPEC_CTRL STIBP SSBD. ARCH_CAPABILITIES is ours (cpuid_finish()): hosts' differ.
	 */
	{ 0x7, 0, 1, 0,
	  BIT(0) | BIT(1) | BIT(3) | L7_EBX_AVX2 | BIT(7) | BIT(8) | BIT(9) | BIT(10) | BIT(18) |
		  BIT(19) | BIT(20) | BIT(23) | BIT(24) | BIT(29) | L7_EBX_AVX512,
	  BIT(2) | L7_ECX_PKU | BIT(8) | L7_ECX_AVX | L7_ECX_AVX512 | BIT(22) | BIT(27) | BIT(28),
	  BIT(4) | BIT(10) | BIT(14) | BIT(26) | BIT(27) | BIT(31) | L7_EDX_AVX512 },
	/* AVX-VNNI, BF16, FZRM, FSRS, FSRC. */
	{ 0x7, 1, 1, L71_EAX_AVX | L71_EAX_AVX512 | BIT(10) | BIT(11) | BIT(12), 0, 0, 0 },
	/* XSAVEOPT, XSAVEC, XGETBV with ECX 1, XSAVES. */
	{ 0xd, 1, 1, 0xf, 0, 0, 0 },
	/* LAHF, CR8, ABM, SSE4A, misaligned SSE, prefetch, XOP, FMA4, TBM, TOPOEXT; SYSCALL .. LM.
	 */
	{ 0x80000001, 0, 0, 0, 0,
	  BIT(0) | BIT(4) | BIT(5) | BIT(6) | BIT(7) | BIT(8) | X1_ECX_AVX | BIT(21) |
		  X1_ECX_TOPOEXT,
	  0x2fd3bb7d },
	/* CLZERO, XSAVEERPTR, IBPB, IBRS, STIBP, SSBD, VIRT_SSBD, SSB_NO. */
	{ 0x80000008, 0, 0, 0,
	  BIT(0) | BIT(2) | BIT(12) | BIT(14) | BIT(15) | BIT(24) | BIT(25) | BIT(26), 0, 0 },
	/* LFENCE serialises, null selectors clear the base. */
	{ 0x80000021, 0, 0, BIT(2) | BIT(6), 0, 0, 0 },
};
#define FEATURE_MASK_COUNT (sizeof(feature_masks) / sizeof(feature_masks[0]))

static const char brand_unknown[48] = "x86-64 processor of a pod";

const struct cpuid_leaf *cpuid_find(const struct cpuid_set *set, uint32_t function, uint32_t index)
{
	for (uint32_t i = 0; i < set->count; i++) {
		const struct cpuid_leaf *leaf = &set->leaf[i];

		if (leaf->function == function && (!leaf->index_matters || leaf->index == index))
			return leaf;
	}
	return NULL;
}

static struct cpuid_leaf *find_mutable(struct cpuid_set *set, uint32_t function, uint32_t index)
{
	const struct cpuid_leaf *leaf = cpuid_find(set, function, index);

	return leaf ? &set->leaf[leaf - set->leaf] : NULL;
}

static const struct cpuid_leaf *find_raw(const struct cpuid_leaf *raw, size_t count,
					 uint32_t function, uint32_t index)
{
	for (size_t i = 0; i < count; i++)
		if (raw[i].function == function && (!raw[i].index_matters || raw[i].index == index))
			return &raw[i];
	return NULL;
}

/* The lists made here are far shorter than CPUID_LEAVES_MAX: at most one leaf per line of this
 * file. */
static struct cpuid_leaf *append(struct cpuid_set *set, struct cpuid_leaf leaf)
{
	if (set->count == CPUID_LEAVES_MAX)
		abort();
	set->leaf[set->count] = leaf;
	return &set->leaf[set->count++];
}

static int compare_leaves(const void *a, const void *b)
{
	const struct cpuid_leaf *x = a, *y = b;

	if (x->function != y->function)
		return x->function < y->function ? -1 : 1;
	return (x->index > y->index) - (x->index < y->index);
}

static void sort(struct cpuid_set *set)
{
	qsort(set->leaf, set->count, sizeof(set->leaf[0]), compare_leaves);
}

/* Clears what depends on vector state that is not there, and vector state nobody can use. */
static void settle_features(struct cpuid_set *set)
{
	struct cpuid_leaf *one = find_mutable(set, 0x1, 0), *seven = find_mutable(set, 0x7, 0);
	struct cpuid_leaf *seven1 = find_mutable(set, 0x7, 1),
			  *ext = find_mutable(set, 0x80000001, 0);
	struct cpuid_leaf *xsave = find_mutable(set, 0xd, 0);
	uint32_t xcr0 = one->ecx & L1_ECX_XSAVE ? xsave->eax & (uint32_t)CPUID_XCR0_OFFERED : 0;

	if ((xcr0 & 3) != 3)
		xcr0 = 0;
	if (!(xcr0 & XCR0_AVX) || !(one->ecx & L1_ECX_AVX)) {
		xcr0 &= ~(XCR0_AVX | XCR0_AVX512);
		one->ecx &= ~(L1_ECX_AVX | L1_ECX_FMA | L1_ECX_F16C);
		seven->ebx &= ~L7_EBX_AVX2;
		seven->ecx &= ~L7_ECX_AVX;
		seven1->eax &= ~L71_EAX_AVX;
		ext->ecx &= ~X1_ECX_AVX;
	}
	if ((xcr0 & XCR0_AVX512) != XCR0_AVX512 || !(seven->ebx & L7_EBX_AVX512F)) {
		xcr0 &= ~XCR0_AVX512;
		seven->ebx &= ~L7_EBX_AVX512;
		seven->ecx &= ~L7_ECX_AVX512;
		seven->edx &= ~L7_EDX_AVX512;
		seven1->eax &= ~L71_EAX_AVX512;
	}
	if (!(xcr0 & XCR0_PKRU) || !(seven->ecx & L7_ECX_PKU)) {
		xcr0 &= ~XCR0_PKRU;
		seven->ecx &= ~L7_ECX_PKU;
	}
	if (!xcr0) {
		one->ecx &= ~L1_ECX_XSAVE;
		find_mutable(set, 0xd, 1)->eax = 0;
	}
	xsave->eax = xcr0;
	for (uint32_t i = 0; i < set->count;) {
		struct cpuid_leaf *leaf = &set->leaf[i];

		if (leaf->function == 0xd && leaf->index >= 2 && !(xcr0 >> leaf->index & 1))
			*leaf = set->leaf[--set->count];
		else
			i++;
	}
}

/* The xsave leaf: bits that can be offered, and place and size of each part. */
static void offer_xsave(const struct cpuid_leaf *raw, size_t raw_count, struct cpuid_set *offer)
{
	const struct cpuid_leaf *main_leaf = find_raw(raw, raw_count, 0xd, 0);
	struct cpuid_leaf out = { .function = 0xd, .index_matters = 1 };
	uint32_t xcr0 = main_leaf ? main_leaf->eax & (uint32_t)CPUID_XCR0_OFFERED : 0;

	for (uint32_t i = 2; i < 32; i++) {
		const struct cpuid_leaf *part = find_raw(raw, raw_count, 0xd, i);

		if (!(xcr0 >> i & 1))
			continue;
		if (!part || part->eax == 0 || part->eax > 4096 || part->ebx < XSAVE_MIN ||
		    part->ebx > 4096) {
			xcr0 &= ~BIT(i);
			continue;
		}
		append(offer, (struct cpuid_leaf){ .function = 0xd,
						   .index = i,
						   .index_matters = 1,
						   .eax = part->eax,
						   .ebx = part->ebx,
						   .ecx = part->ecx & BIT(1) });
	}
	out.eax = xcr0;
	append(offer, out);
}

static void offer_features(const struct cpuid_leaf *raw, size_t raw_count, struct cpuid_set *offer)
{
	for (size_t i = 0; i < FEATURE_MASK_COUNT; i++) {
		const struct feature_mask *mask = &feature_masks[i];
		const struct cpuid_leaf *leaf =
			find_raw(raw, raw_count, mask->function, mask->index);
		struct cpuid_leaf out = { .function = mask->function,
					  .index = mask->index,
					  .index_matters = mask->index_matters };

		if (leaf) {
			out.eax = leaf->eax & mask->eax;
			out.ebx = leaf->ebx & mask->ebx;
			out.ecx = leaf->ecx & mask->ecx;
			out.edx = leaf->edx & mask->edx;
		}
		append(offer, out);
	}
}

/* Vendor, model and brand, address widths: what is neither a feature nor made up. */
static int offer_identity(const struct cpuid_leaf *raw, size_t raw_count, struct cpuid_set *offer)
{
	const struct cpuid_leaf *zero = find_raw(raw, raw_count, 0, 0);
	const struct cpuid_leaf *one = find_raw(raw, raw_count, 1, 0);
	const struct cpuid_leaf *widths = find_raw(raw, raw_count, 0x80000008, 0);
	uint32_t physical, virtual_bits;

	if (!zero || !one || !widths)
		return -EINVAL;
	physical = widths->eax & 0xff;
	virtual_bits = widths->eax >> 8 & 0xff;
	if (physical < 32 || physical > 52 || virtual_bits < 48)
		return -EINVAL;
	append(offer, (struct cpuid_leaf){ .ebx = zero->ebx, .ecx = zero->ecx, .edx = zero->edx });
	find_mutable(offer, 1, 0)->eax = one->eax & 0x0fff3fff;
	find_mutable(offer, 0x80000008, 0)->eax = physical | 48u << 8;
	for (uint32_t i = 0; i < 3; i++) {
		const struct cpuid_leaf *brand = find_raw(raw, raw_count, 0x80000002 + i, 0);
		struct cpuid_leaf out = { .function = 0x80000002 + i };

		if (brand) {
			out.eax = brand->eax;
			out.ebx = brand->ebx;
			out.ecx = brand->ecx;
			out.edx = brand->edx;
		}
		append(offer, out);
	}
	return 0;
}

int cpuid_offer(const struct cpuid_leaf *raw, size_t raw_count, bool tsc_deadline,
		struct cpuid_set *ret_offer)
{
	struct cpuid_set offer = { 0 };
	struct cpuid_leaf *one;
	int err;

	offer_features(raw, raw_count, &offer);
	offer_xsave(raw, raw_count, &offer);
	err = offer_identity(raw, raw_count, &offer);
	if (err)
		return err;
	if (!(find_mutable(&offer, 0x80000001, 0)->edx & X1_EDX_LM))
		return -EINVAL;
	one = find_mutable(&offer, 1, 0);
	one->ecx &= ~L1_ECX_TSC_DEADLINE;
	if (tsc_deadline)
		one->ecx |= L1_ECX_TSC_DEADLINE;
	one->ecx |= L1_ECX_X2APIC | L1_ECX_HYPERVISOR;
	settle_features(&offer);
	sort(&offer);
	*ret_offer = offer;
	return 0;
}

/* A part of the extended state is common if both have it at the same place, with the same size. */
static void common_xsave(struct cpuid_set *common, const struct cpuid_set *other)
{
	struct cpuid_leaf *mine = find_mutable(common, 0xd, 0);
	uint32_t xcr0 = mine->eax & cpuid_find(other, 0xd, 0)->eax;

	for (uint32_t i = 2; i < 32; i++) {
		const struct cpuid_leaf *a = cpuid_find(common, 0xd, i),
					*b = cpuid_find(other, 0xd, i);

		if ((xcr0 >> i & 1) &&
		    (!a || !b || a->eax != b->eax || a->ebx != b->ebx || a->ecx != b->ecx))
			xcr0 &= ~BIT(i);
	}
	mine->eax = xcr0;
}

static void common_brand(struct cpuid_set *common, const struct cpuid_set *other)
{
	uint32_t text[12];
	bool same = true;

	for (uint32_t i = 0; i < 3; i++) {
		const struct cpuid_leaf *a = cpuid_find(common, 0x80000002 + i, 0);
		const struct cpuid_leaf *b = cpuid_find(other, 0x80000002 + i, 0);

		same = same && a->eax == b->eax && a->ebx == b->ebx && a->ecx == b->ecx &&
		       a->edx == b->edx;
	}
	if (same)
		return;
	memcpy(text, brand_unknown, sizeof(text));
	for (uint32_t i = 0; i < 3; i++) {
		struct cpuid_leaf *leaf = find_mutable(common, 0x80000002 + i, 0);

		leaf->eax = text[4 * i];
		leaf->ebx = text[4 * i + 1];
		leaf->ecx = text[4 * i + 2];
		leaf->edx = text[4 * i + 3];
	}
}

static const char *vendor_name(const struct cpuid_leaf *zero)
{
	return zero->ebx == 0x68747541	 ? "AMD"
	       : zero->ebx == 0x756e6547 ? "Intel"
					 : "another vendor";
}

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static int refuse(char *why, size_t why_size, int err, const char *text)
{
	snprintf(why, why_size, "%s", text);
	return err;
}

int cpuid_common(struct cpuid_set *common, const struct cpuid_set *other, char *why,
		 size_t why_size)
{
	const struct cpuid_leaf *zero = cpuid_find(common, 0, 0), *other_zero;
	struct cpuid_set result = *common, checked;
	struct cpuid_leaf *mine;

	if (other->count > CPUID_LEAVES_MAX ||
	    cpuid_offer(other->leaf, other->count, cpuid_has_tsc_deadline(other), &checked))
		return refuse(why, why_size, -ENOTSUP,
			      "a node's CPUID is not that of an x86-64 CPU");
	other_zero = cpuid_find(&checked, 0, 0);
	if (zero->ebx != other_zero->ebx || zero->ecx != other_zero->ecx ||
	    zero->edx != other_zero->edx) {
		snprintf(
			why, why_size,
			"CPUs of %s and of %s cannot form one pod: put hosts of one vendor together",
			vendor_name(zero), vendor_name(other_zero));
		return -EXDEV;
	}
	for (size_t i = 0; i < FEATURE_MASK_COUNT; i++) {
		const struct feature_mask *mask = &feature_masks[i];
		const struct cpuid_leaf *theirs = cpuid_find(&checked, mask->function, mask->index);

		mine = find_mutable(&result, mask->function, mask->index);
		mine->eax = (mine->eax & theirs->eax & mask->eax) | (mine->eax & ~mask->eax);
		mine->ebx = (mine->ebx & theirs->ebx & mask->ebx) | (mine->ebx & ~mask->ebx);
		mine->ecx &= theirs->ecx;
		mine->edx &= theirs->edx;
	}
	mine = find_mutable(&result, 1, 0);
	mine->eax = least(mine->eax, cpuid_find(&checked, 1, 0)->eax);
	mine = find_mutable(&result, 0x80000008, 0);
	mine->eax = least(mine->eax, cpuid_find(&checked, 0x80000008, 0)->eax);
	common_xsave(&result, &checked);
	common_brand(&result, &checked);
	settle_features(&result);
	sort(&result);
	*common = result;
	return 0;
}

/* Every bit of `of` is in `in`, and so is every part of its extended state, at the same place. */
static bool set_within(const struct cpuid_set *of, const struct cpuid_set *in)
{
	for (size_t i = 0; i < FEATURE_MASK_COUNT; i++) {
		const struct feature_mask *mask = &feature_masks[i];
		const struct cpuid_leaf *a = cpuid_find(of, mask->function, mask->index);
		const struct cpuid_leaf *b = cpuid_find(in, mask->function, mask->index);

		if ((a->eax & mask->eax & ~b->eax) | (a->ebx & mask->ebx & ~b->ebx) |
		    (a->ecx & ~b->ecx) | (a->edx & ~b->edx))
			return false;
	}
	if (cpuid_find(of, 0xd, 0)->eax & ~cpuid_find(in, 0xd, 0)->eax)
		return false;
	return cpuid_physical_bits(of) <= cpuid_physical_bits(in);
}

bool cpuid_within(const struct cpuid_set *pod, const struct cpuid_set *offer)
{
	struct cpuid_set common = *offer, checked;
	char why[256];

	if (pod->count > CPUID_LEAVES_MAX ||
	    cpuid_offer(pod->leaf, pod->count, cpuid_has_tsc_deadline(pod), &checked))
		return false;
	/* The topology is cpuid_finish()'s own, whatever hosts have. */
	find_mutable(&checked, 0x80000001, 0)->ecx &= ~X1_ECX_TOPOEXT;
	return set_within(&checked, offer) &&
	       cpuid_common(&common, &checked, why, sizeof(why)) == 0 &&
	       cpuid_find(&common, 0xd, 0)->eax == cpuid_find(&checked, 0xd, 0)->eax;
}

static uint32_t bits_for(uint32_t count)
{
	uint32_t bits = 0;

	while ((1ull << bits) < count)
		bits++;
	return bits;
}

static bool is_amd(const struct cpuid_set *set)
{
	return cpuid_find(set, 0, 0)->ebx == 0x68747541 || cpuid_find(set, 0, 0)->ebx == 0x6f677948;
}

/* Sub-leaf of leaf 4 (Intel) and 0x8000001d (AMD): a cache of one vCPU, 64-byte lines. */
static struct cpuid_leaf cache_leaf(uint32_t function, uint32_t index, uint32_t cores)
{
	static const struct {
		uint32_t type, level, ways, sets;
	} cache[] = { { 1, 1, 8, 64 }, { 2, 1, 8, 64 }, { 3, 2, 8, 1024 } };
	struct cpuid_leaf leaf = { .function = function, .index = index, .index_matters = 1 };

	if (index >= sizeof(cache) / sizeof(cache[0]))
		return leaf;
	leaf.eax = cache[index].type | cache[index].level << 5 | BIT(8);
	if (function == 4)
		leaf.eax |= (least(cores, 64) - 1) << 26;
	leaf.ebx = 63 | (cache[index].ways - 1) << 22;
	leaf.ecx = cache[index].sets - 1;
	return leaf;
}

/*
 * One package, one thread a core, x2APIC id = vCPU number. No cache is shared: which vCPUs are near
 * each other changes as they move.
 */
static void add_topology(struct cpuid_set *pod, uint32_t vcpu_count)
{
	struct cpuid_leaf *one = find_mutable(pod, 1, 0);
	uint32_t id_bits = bits_for(vcpu_count), cache_function = is_amd(pod) ? 0x8000001d : 4;

	one->ebx = 8 << 8 | (vcpu_count > 1 ? least(vcpu_count, 255) << 16 : 0);
	one->edx &= ~L1_EDX_HT;
	if (vcpu_count > 1)
		one->edx |= L1_EDX_HT;
	append(pod,
	       (struct cpuid_leaf){ .function = 0xb, .index_matters = 1, .ebx = 1, .ecx = 1 << 8 });
	append(pod, (struct cpuid_leaf){ .function = 0xb,
					 .index = 1,
					 .index_matters = 1,
					 .eax = id_bits,
					 .ebx = vcpu_count,
					 .ecx = 2 << 8 | 1 });
	append(pod,
	       (struct cpuid_leaf){ .function = 0xb, .index = 2, .index_matters = 1, .ecx = 2 });
	for (uint32_t i = 0; i < 4; i++)
		append(pod, cache_leaf(cache_function, i, vcpu_count));
	if (!is_amd(pod)) {
		/* "Leaf 2 says nothing: see leaf 4", and how often to ask. */
		append(pod, (struct cpuid_leaf){ .function = 2, .eax = 0x00ff0001 });
		append(pod, (struct cpuid_leaf){ .function = 0x80000006,
						 .ecx = 512 << 16 | 6 << 12 | 64 });
		return;
	}
	append(pod, (struct cpuid_leaf){ .function = 0x80000005,
					 .eax = 0xff40ff40,
					 .ebx = 0xff40ff40,
					 .ecx = 32 << 24 | 8 << 16 | 1 << 8 | 64,
					 .edx = 32 << 24 | 8 << 16 | 1 << 8 | 64 });
	append(pod, (struct cpuid_leaf){ .function = 0x80000006,
					 .eax = 0x42004200,
					 .ebx = 0x42004200,
					 .ecx = 512 << 16 | 6 << 12 | 1 << 8 | 64 });
	append(pod, (struct cpuid_leaf){ .function = 0x8000001e });
	find_mutable(pod, 0x80000001, 0)->ecx |= X1_ECX_TOPOEXT | (vcpu_count > 1 ? BIT(1) : 0);
	find_mutable(pod, 0x80000008, 0)->ecx = (least(vcpu_count, 256) - 1) | id_bits << 12;
}

/* Sizes of the save area: for all of XCR0, standard and compacted. The engine redoes EBX as XCR0
 * changes. */
static void add_xsave_sizes(struct cpuid_set *pod)
{
	struct cpuid_leaf *zero = find_mutable(pod, 0xd, 0);
	uint32_t standard = XSAVE_MIN, compacted = XSAVE_MIN;

	for (uint32_t i = 2; i < 32; i++) {
		const struct cpuid_leaf *part = cpuid_find(pod, 0xd, i);

		if (!part)
			continue;
		if (part->ebx + part->eax > standard)
			standard = part->ebx + part->eax;
		if (part->ecx & BIT(1))
			compacted = (compacted + 63) & ~63u;
		compacted += part->eax;
	}
	zero->ebx = zero->ecx = zero->eax ? standard : 0;
	find_mutable(pod, 0xd, 1)->ebx = zero->eax ? compacted : 0;
}

int cpuid_finish(const struct cpuid_set *common, uint32_t vcpu_count, struct cpuid_set *ret_pod)
{
	struct cpuid_set pod = *common;
	struct cpuid_leaf *zero = find_mutable(&pod, 0, 0), identity;

	if (vcpu_count == 0 || vcpu_count > VCPUS_MAX)
		return -EINVAL;
	add_topology(&pod, vcpu_count);
	add_xsave_sizes(&pod);
	zero = find_mutable(&pod, 0, 0);
	identity = *zero;
	zero->eax = 0xd;
	identity.function = 0x80000000;
	identity.eax = is_amd(&pod) ? 0x80000021 : 0x80000008;
	if (!is_amd(&pod))
		identity.ebx = identity.ecx = identity.edx = 0;
	append(&pod, identity);
	/* The APIC timer runs always. */
	append(&pod, (struct cpuid_leaf){ .function = 6, .eax = BIT(2) });
	find_mutable(&pod, 7, 0)->eax = find_mutable(&pod, 7, 1)->eax ? 1 : 0;
	/* Or Linux, told "nox2apic", writes to an APIC that is not there. */
	find_mutable(&pod, 7, 0)->edx |= L7_EDX_ARCH_CAPABILITIES;
	append(&pod, (struct cpuid_leaf){ .function = 0x80000007, .edx = X7_EDX_INVARIANT_TSC });
	append(&pod, (struct cpuid_leaf){ .function = 0x40000000,
					  .eax = 0x40000001,
					  .ebx = 0x4b4d564b,
					  .ecx = 0x564b4d56,
					  .edx = 0x4d });
	/*
	 * Without PV_UNHALT Linux' spinlocks under a hypervisor write at every try
	 * (virt_spin_lock()), which here moves a page at every try. With it and the hint that vCPUs
	 * are not preempted it takes the native queued locks, and never uses the hypercall
	 * (kvm_spinlock_init()).
	 *
	 * Without EXT_DEST_ID, which the I/O APIC has, Linux brings no CPU online whose id is above
	 * 255, as no device's interrupt could reach it.
	 */
	append(&pod, (struct cpuid_leaf){ .function = 0x40000001,
					  .eax = KVM_FEATURE_NOP_IO_DELAY | KVM_FEATURE_PV_UNHALT |
						 KVM_FEATURE_EXT_DEST_ID,
					  .edx = KVM_HINTS_REALTIME });
	sort(&pod);
	*ret_pod = pod;
	return 0;
}

void cpuid_for_vcpu(const struct cpuid_set *pod, uint32_t number, struct cpuid_set *ret_set)
{
	*ret_set = *pod;
	for (uint32_t i = 0; i < ret_set->count; i++) {
		struct cpuid_leaf *leaf = &ret_set->leaf[i];

		switch (leaf->function) {
		case 0x1:
			leaf->ebx = (leaf->ebx & 0x00ffffff) | (number & 0xff) << 24;
			break;
		case 0xb:
			leaf->edx = number;
			break;
		case 0x8000001e:
			leaf->eax = number;
			leaf->ebx = number & 0xff;
			break;
		default:
			break;
		}
	}
}

uint64_t cpuid_xcr0(const struct cpuid_set *set)
{
	const struct cpuid_leaf *leaf = cpuid_find(set, 0xd, 0);

	return leaf && leaf->eax ? leaf->eax : 1;
}

uint32_t cpuid_physical_bits(const struct cpuid_set *set)
{
	const struct cpuid_leaf *leaf = cpuid_find(set, 0x80000008, 0);

	return leaf ? leaf->eax & 0xff : 36;
}

/* IBRS, STIBP, SSBD: Intel's CPUs offer them in one leaf, AMD's in another. */
uint64_t cpuid_spec_ctrl(const struct cpuid_set *set)
{
	const struct cpuid_leaf *seven = cpuid_find(set, 7, 0);
	const struct cpuid_leaf *amd = cpuid_find(set, 0x80000008, 0);
	uint32_t edx = seven ? seven->edx : 0, ebx = amd ? amd->ebx : 0;

	return ((edx >> 26 | ebx >> 14) & 1) | ((edx >> 27 | ebx >> 15) & 1) << 1 |
	       ((edx >> 31 | ebx >> 24) & 1) << 2;
}

bool cpuid_has_tsc_deadline(const struct cpuid_set *set)
{
	const struct cpuid_leaf *leaf = cpuid_find(set, 1, 0);

	return leaf && (leaf->ecx & L1_ECX_TSC_DEADLINE);
}
