/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts a Linux bzImage into guest memory by the 64-bit boot protocol
 * (Documentation/arch/x86/boot.rst) and says how the first vCPU must start. Pure but for the
 * callback that writes guest memory.
 *
 *     9000   page tables (identity, 4 GiB)
 *    10000   boot_params
 *    20000   command line
 *    e0000   ACPI tables
 *   16 MiB   (the kernel's preferred address) the kernel, and room for its decompression
 *      ...   initrd: as high as it may be below LOW_RAM_LIMIT, on a chunk of its own
 */
#ifndef MACHINE_LOADER_H
#define MACHINE_LOADER_H

#include <stddef.h>
#include <stdint.h>

#include "vcpu/vcpu_state.h"
#include "machine/memory_map.h"

#define LOADER_CMDLINE_MAX 2047u

struct loader_file {
	const char *name; /* for errors */
	const void *data;
	size_t bytes;
};

/* 0 or negative errno, handed through. Guest memory is zero before; ranges are never written twice.
 */
typedef int loader_write_fn(void *ctx, uint64_t gpa, const void *data, size_t bytes);

struct loader_config {
	struct memory_map map;
	struct loader_file kernel;
	struct loader_file initrd;	 /* bytes 0: none */
	const char *cmdline;		 /* whole: loader_cmdline() makes it */
	uint32_t vcpu_count;		 /* for the ACPI tables */
	const struct numa_view *numa;	 /* for them, too; or NULL */
	struct memory_range high_window; /* likewise: memory_map_high_window() */
	uint64_t xcr0;			 /* cpuid_xcr0() of the pod; see loader_secondary() */
	loader_write_fn *write;
	void *ctx;
};

struct loader_result {
	uint64_t kernel_gpa, kernel_bytes; /* bytes: with the room for its decompression */
	uint64_t initrd_gpa, initrd_bytes;
	uint64_t entry;
};

/*
 * Is this a kernel that loader_load() takes? 0, or -EINVAL / -ENOEXEC with one line in `why` that
 * names the file: truncated, not a bzImage, boot protocol too old (2.12 is needed), no 64-bit
 * entry.
 */
int loader_check(const struct loader_file *kernel, char *why, size_t why_size);

/*
 * Writes kernel, initrd, boot_params, command line, page tables and ACPI tables, and sets `ret_bsp`
 * to vCPU 0 at the kernel's entry, x2APIC on. -EINVAL, -ENOEXEC, -ENOMEM (does not fit; `why` says
 * by how much), or what `write` returned (then `why` says what was being written).
 */
int loader_load(const struct loader_config *config, struct vcpu_state *ret_bsp,
		struct loader_result *ret_result, char *why, size_t why_size);

/* vCPU 0 at the kernel's entry: what loader_load() gives, for a node that has not loaded it. */
void loader_first(uint64_t entry, uint64_t xcr0, struct vcpu_state *ret_state);

/*
 * vCPU `number` (not 0) at power-on, x2APIC on: it waits for a start-up IPI.
 *
 * xcr0: all extended state that the pod offers is on from the start, as firmware may leave it. A
 * guest that sets XCR0 sets the same. It matters where a hypervisor below ours does not tell of
 * XSETBV (QEMU's emulated AMD-V): KVM would run the guest with what it last knew.
 */
void loader_secondary(uint32_t number, uint64_t xcr0, struct vcpu_state *ret_state);

/*
 * The guest's command line: what a pod needs (loader.c says what each is for), then the user's.
 * quiet: for runs where only the command's output matters. 0, or -E2BIG.
 */
struct loader_cmdline_config {
	uint32_t tsc_khz;
	bool quiet;
	bool translated;    /* the engine's `translates` */
	bool numa;	    /* the ACPI tables have a NUMA view */
	uint32_t boot_cpus; /* vCPUs that Linux brings up itself; 0: all */
	const char *extra;  /* or NULL */
};
int loader_cmdline(const struct loader_cmdline_config *config, char *ret_line, size_t size);
/* What a user should hear of these words before the guest starts with them, or NULL. */
const char *loader_cmdline_doubt(const char *extra);

#endif
