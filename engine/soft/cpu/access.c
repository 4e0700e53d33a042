/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory for the engine's own C code, and devices in the middle of an instruction.
 *
 * A page may be on another node: then the access blocks in the host's kernel. The functions of the
 * section soft_access are the only ones that may block so. They begin with a look at vcpu->stop,
 * and a signal that finds the pc in the section (a kick) breaks the access off, too: so a kick that
 * comes before the look is seen by it, and one that comes later does not find the thread about to
 * block with nobody to wake it. Broken off, it goes to vcpu->abandon, and the instruction starts
 * anew some time, its registers as they were (soft_step_abandoned()). So callers hold no lock, and
 * do nothing before their last access that may not be done twice, or set vcpu->committing for it:
 * then the access is not broken off, and the kick waits for it.
 *
 * Memory that is a device's is asked for by an exit. The instruction then starts anew as well, with
 * the answers so far in vcpu->device[]; it asks for the same things in the same order.
 *
 * Left out: the atomicity of accesses that cross a page, unless they are locked (step/exec.c).
 */
#include "engine/soft/vcpu.h"

#include <string.h>

#include "engine/soft/cache/code_page.h"
#include "engine/soft/cpu/access.h"
#include "engine/soft/cpu/mmu.h"

#define ACCESS_SECTION                                                                             \
	__attribute__((section("soft_access"), noinline,                                           \
		       no_sanitize("address", "thread", "undefined")))

extern const char __start_soft_access[], __stop_soft_access[];

bool soft_in_access(uint64_t pc)
{
	return pc >= (uintptr_t)__start_soft_access && pc < (uintptr_t)__stop_soft_access;
}

_Thread_local struct engine_vcpu *volatile soft_this_vcpu;

void soft_access_break_off(struct engine_vcpu *vcpu)
{
	longjmp(vcpu->abandon, 1);
}

static __attribute__((noinline)) void stopped(struct engine_vcpu *vcpu)
{
	if (vcpu->running && !vcpu->committing)
		soft_access_break_off(vcpu);
}

/* Part of each function of the section. */
static inline __attribute__((always_inline, no_sanitize("address", "thread", "undefined"))) void
look_at_stop(void)
{
	struct engine_vcpu *vcpu = soft_this_vcpu;

	if (__builtin_expect(vcpu && atomic_load(&vcpu->stop), 0))
		stopped(vcpu);
}

ACCESS_SECTION uint64_t soft_load64(const void *host)
{
	look_at_stop();
	return *(const volatile uint64_t *)host;
}

ACCESS_SECTION uint8_t soft_load8(const void *host)
{
	look_at_stop();
	return *(const volatile uint8_t *)host;
}

ACCESS_SECTION bool soft_exchange64(void *host, uint64_t expected, uint64_t value)
{
	look_at_stop();
	return __atomic_compare_exchange_n((uint64_t *)host, &expected, value, false,
					   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* Small sizes in one go, as the CPU does it. */
ACCESS_SECTION void soft_copy(void *to, const void *from, size_t bytes)
{
	look_at_stop();
	switch (bytes) {
	case 1:
		*(volatile uint8_t *)to = *(const volatile uint8_t *)from;
		break;
	case 2:
		*(volatile uint16_t *)to = *(const volatile uint16_t *)from;
		break;
	case 4:
		*(volatile uint32_t *)to = *(const volatile uint32_t *)from;
		break;
	case 8:
		*(volatile uint64_t *)to = *(const volatile uint64_t *)from;
		break;
	default:
		__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
		break;
	}
}

/* Changes nothing, but wants the page as a write does. */
ACCESS_SECTION void soft_touch(void *host)
{
	look_at_stop();
	__asm__ volatile("lock orb $0, %0" : "+m"(*(uint8_t *)host) : : "cc", "memory");
}

ACCESS_SECTION void soft_fill(void *to, uint64_t value, size_t words)
{
	look_at_stop();
	__asm__ volatile("rep stosq" : "+D"(to), "+c"(words) : "a"(value) : "memory");
}

/* One access of at most 8 bytes to a device. SOFT_EXIT: it has not happened yet. */
static int device_access(struct engine_vcpu *vcpu, uint64_t gpa, void *data, uint32_t size,
			 bool write)
{
	struct soft_device_access *access = &vcpu->device[vcpu->device_seen];

	if (vcpu->device_seen < vcpu->device_count) {
		vcpu->device_seen++;
		if (!write)
			memcpy(data, access->data, size);
		return SOFT_OK;
	}
	if (vcpu->device_count == DEVICE_ACCESSES_MAX) {
		vcpu->pending.kind = EXIT_FAILED;
		vcpu->pending.fail.reason = "an instruction with too many accesses to devices";
		vcpu->pending.fail.detail = gpa;
		return SOFT_EXIT;
	}
	memset(access, 0, sizeof(*access));
	access->gpa = gpa;
	access->size = (uint8_t)size;
	access->write = write;
	if (write)
		memcpy(access->data, data, size);
	vcpu->open = OPEN_MMIO;
	vcpu->pending.kind = EXIT_MMIO;
	vcpu->pending.mmio.gpa = gpa;
	vcpu->pending.mmio.size = (uint8_t)size;
	vcpu->pending.mmio.write = write;
	vcpu->pending.mmio.data = access->data;
	return SOFT_EXIT;
}

static int device_range(struct engine_vcpu *vcpu, uint64_t gpa, uint8_t *data, uint32_t size,
			bool write)
{
	while (size) {
		uint32_t part = size > 8 ? 8 : size;
		int err = device_access(vcpu, gpa, data, part, write);

		if (err)
			return err;
		gpa += part;
		data += part;
		size -= part;
	}
	return SOFT_OK;
}

static uint32_t part_in_page(uint64_t linear, uint32_t size)
{
	uint32_t room = PAGE_BYTES - (uint32_t)(linear & (PAGE_BYTES - 1));

	return size < room ? size : room;
}

int soft_read(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear, void *data,
	      uint32_t size)
{
	uint8_t *to = data;

	while (size) {
		uint32_t part = part_in_page(linear, size);
		struct soft_page page;
		int err = soft_translate(vcpu, view, linear, ACCESS_READ, &page);

		if (err)
			return err;
		if (page.host)
			soft_copy(to, page.host, part);
		else
			err = device_range(vcpu, page.gpa, to, part, false);
		if (err)
			return err;
		linear += part;
		to += part;
		size -= part;
	}
	return SOFT_OK;
}

int soft_probe_write(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear, uint32_t size)
{
	while (size) {
		uint32_t part = part_in_page(linear, size);
		struct soft_page page;
		int err = soft_translate(vcpu, view, linear, ACCESS_WRITE, &page);

		if (err)
			return err;
		linear += part;
		size -= part;
	}
	return SOFT_OK;
}

static int write_page(struct engine_vcpu *vcpu, const struct soft_page *page, const uint8_t *from,
		      uint32_t size)
{
	uint8_t copy[8];

	if (page->host) {
		soft_copy(page->host, from, size);
		if (page->code)
			soft_code_written(vcpu, page->gpa, size);
		return SOFT_OK;
	}
	if (size > sizeof(copy))
		return device_range(vcpu, page->gpa, (uint8_t *)(uintptr_t)from, size, true);
	memcpy(copy, from, size);
	return device_range(vcpu, page->gpa, copy, size, true);
}

/* To those of its pages that are devices', or to those that are memory. */
static int write_pages(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear,
		       const uint8_t *from, uint32_t size, bool devices)
{
	int err = SOFT_OK;

	for (uint32_t part; size && !err; linear += part, from += part, size -= part) {
		struct soft_page page;

		part = part_in_page(linear, size);
		err = soft_translate(vcpu, view, linear, ACCESS_WRITE, &page);
		if (!err && devices == !page.host)
			err = write_page(vcpu, &page, from, part);
	}
	return err;
}

int soft_write(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear, const void *data,
	       uint32_t size)
{
	struct soft_page page;
	int err;

	if (part_in_page(linear, size) == size) {
		err = soft_translate(vcpu, view, linear, ACCESS_WRITE, &page);
		return err ? err : write_page(vcpu, &page, data, size);
	}
	/* Both pages have to be writable before the first is written. */
	err = soft_probe_write(vcpu, view, linear, size);
	/*
	 * Devices first: the instruction starts anew with each answer of theirs, and is not to find
	 * what it has written itself.
	 */
	if (!err)
		err = write_pages(vcpu, view, linear, data, size, true);
	return err ? err : write_pages(vcpu, view, linear, data, size, false);
}

int soft_fetch(struct engine_vcpu *vcpu, uint64_t linear, uint8_t *bytes, uint32_t *size)
{
	uint32_t part = part_in_page(linear, *size);
	struct soft_page page;
	int err = soft_translate(vcpu, vcpu->view, linear, ACCESS_FETCH, &page);

	if (err)
		return err;
	*size = part;
	if (page.host) {
		soft_copy(bytes, page.host, part);
		return SOFT_OK;
	}
	vcpu->pending.kind = EXIT_FAILED;
	vcpu->pending.fail.reason = "the guest executes what is not memory";
	vcpu->pending.fail.detail = page.gpa;
	return SOFT_EXIT;
}
