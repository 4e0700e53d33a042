/* SPDX-License-Identifier: Apache-2.0 */
/* The rate of the host's TSC: idea and order of the sources are in tsc_rate.h. */
#include "engine/tsc_rate.h"

#include <cpuid.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/host_clock.h"

#define BRACKETS_FIRST 64
#define BRACKETS_EACH  16
#define PAUSE_NS       2000000
#define DISTANCE_NS    10000000ull /* never less between the two */
#define READINGS_MAX   2000	   /* of pauses that return at once, say */
#define PPB	       1000000000u

static struct tsc_bracket narrowest(unsigned int count)
{
	struct tsc_bracket best = { .after = UINT64_MAX };

	for (unsigned int i = 0; i < count; i++) {
		struct tsc_bracket now = { .before = host_clock_tsc() };

		now.ns = host_clock_raw_ns();
		now.after = host_clock_tsc();
		if (now.after >= now.before && now.after - now.before < best.after - best.before)
			best = now;
	}
	return best;
}

bool tsc_rate_bounds(const struct tsc_bracket *first, const struct tsc_bracket *last,
		     struct tsc_rate *ret_rate)
{
	unsigned __int128 most, least;
	uint64_t ns = last->ns - first->ns;

	/* One ns each way: the clock is cut off to whole ones. */
	if (last->ns <= first->ns + 1 || last->before <= first->after || ns > 1ull << 40)
		return false;
	most = (unsigned __int128)(last->after - first->before) * 1000000 / (ns - 1) + 1;
	least = (unsigned __int128)(last->before - first->after) * 1000000 / (ns + 1);
	if (most > TSC_RATE_KHZ_MAX || least < TSC_RATE_KHZ_MIN)
		return false;
	ret_rate->low_khz = (uint32_t)least;
	ret_rate->high_khz = (uint32_t)most;
	return true;
}

void tsc_rate_choose(struct tsc_rate *rate, const struct tsc_claim *claim, size_t count)
{
	rate->khz = rate->low_khz + (rate->high_khz - rate->low_khz) / 2;
	rate->source = "measured";
	for (size_t i = 0; i < count; i++) {
		if (claim[i].khz < rate->low_khz || claim[i].khz > rate->high_khz)
			continue;
		rate->khz = claim[i].khz;
		rate->source = claim[i].source;
		return;
	}
}

/* Half the distance of the bounds; none if whole kHz cannot say more. */
static uint64_t doubt_ppb(const struct tsc_rate *rate)
{
	if (rate->high_khz - rate->low_khz <= 2)
		return 0;
	return (uint64_t)(rate->high_khz - rate->low_khz) * (PPB / 2) / rate->low_khz;
}

static int measure(struct tsc_rate *rate, char *why, size_t why_size)
{
	struct tsc_bracket first = narrowest(BRACKETS_FIRST);
	uint64_t doubt = UINT64_MAX;

	for (unsigned int i = 0; i < READINGS_MAX; i++) {
		struct tsc_rate now;
		struct tsc_bracket last;

		host_clock_pause(PAUSE_NS);
		last = narrowest(BRACKETS_EACH);
		if (last.ns - first.ns < DISTANCE_NS)
			continue;
		if (tsc_rate_bounds(&first, &last, &now) && doubt_ppb(&now) < doubt) {
			doubt = doubt_ppb(&now);
			*rate = now;
		}
		if (doubt <= TSC_RATE_GOAL_PPB || last.ns - first.ns > TSC_RATE_PATIENCE_NS)
			break;
	}
	if (doubt <= TSC_RATE_BOUND_PPB)
		return 0;
	if (doubt == UINT64_MAX)
		snprintf(why, why_size,
			 "this host's TSC and its clock (CLOCK_MONOTONIC_RAW) do not run together: "
			 "use a host with an invariant TSC");
	else
		snprintf(
			why, why_size,
			"the rate of this host's TSC is only known to %llu ppm after %llu s, since "
			"reading the clock takes so long: use a host whose clocksource is tsc",
			(unsigned long long)doubt / 1000, TSC_RATE_PATIENCE_NS / PPB);
	return -ENOTSUP;
}

/* ---- what others say -------------------------------------------------------------------------
 */

/*
 * The page of any perf event says how the kernel turns the TSC into ns (perf_event_open(2),
 * cap_user_time): ns = ticks * time_mult >> time_shift. A dummy event of one's own thread is
 * allowed where kernel.perf_event_paranoid is 2 or less.
 */
static uint32_t khz_of_perf(void)
{
	struct perf_event_attr attr = { .type = PERF_TYPE_SOFTWARE,
					.size = sizeof(attr),
					.config = PERF_COUNT_SW_DUMMY,
					.exclude_kernel = 1,
					.exclude_hv = 1 };
	int fd = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
	volatile struct perf_event_mmap_page *page;
	uint32_t sequence, mult, shift, khz = 0;
	long bytes = sysconf(_SC_PAGESIZE);

	if (fd < 0)
		return 0;
	page = mmap(NULL, (size_t)bytes, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if ((void *)(uintptr_t)page == MAP_FAILED)
		return 0;
	do {
		sequence = page->lock;
		__atomic_signal_fence(__ATOMIC_SEQ_CST); /* x86 keeps the order of loads */
		mult = page->cap_user_time ? page->time_mult : 0;
		shift = page->time_shift;
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
	} while (page->lock != sequence);
	munmap((void *)(uintptr_t)page, (size_t)bytes);
	if (mult && shift < 40) {
		uint64_t exact = ((1000000ull << shift) + mult / 2) / mult;

		khz = exact <= UINT32_MAX ? (uint32_t)exact : 0;
	}
	return khz;
}

/* Linux, Documentation/virt/kvm/x86/cpuid.rst and VMware's: kHz of the virtual TSC in EAX. */
static uint32_t khz_of_hypervisor(void)
{
	uint32_t eax, ebx, ecx, edx;

	__cpuid(1, eax, ebx, ecx, edx);
	if (!(ecx >> 31))
		return 0;
	__cpuid(0x40000000, eax, ebx, ecx, edx);
	if (eax < 0x40000010 || eax > 0x400000ff)
		return 0;
	__cpuid(0x40000010, eax, ebx, ecx, edx);
	return eax;
}

/* SDM vol. 3, 18.7.3: TSC = crystal (ECX, Hz) * EBX / EAX. */
static uint32_t khz_of_crystal(void)
{
	uint32_t eax, ebx, ecx, edx;
	uint64_t khz;

	if (__get_cpuid_max(0, NULL) < 0x15)
		return 0;
	__cpuid_count(0x15, 0, eax, ebx, ecx, edx);
	if (!eax || !ebx || !ecx)
		return 0;
	khz = (uint64_t)ecx * ebx / eax / 1000;
	return khz <= UINT32_MAX ? (uint32_t)khz : 0;
}

int tsc_rate_measure(uint32_t khz_of_engine, struct tsc_rate *ret_rate, char *why, size_t why_size)
{
	const struct tsc_claim claims[] = {
		{ "KVM", khz_of_engine },
		{ "perf", khz_of_perf() },
		{ "the hypervisor's CPUID leaf 40000010h", khz_of_hypervisor() },
		{ "CPUID leaf 15h", khz_of_crystal() },
	};
	struct tsc_rate rate;
	int r = measure(&rate, why, why_size);

	if (r < 0)
		return r;
	tsc_rate_choose(&rate, claims, sizeof(claims) / sizeof(claims[0]));
	*ret_rate = rate;
	return 0;
}
