/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ACPI tables of the machine: RSDP, XSDT, FADT, FACS, MADT, MCFG, DSDT; SRAT and SLIT for a NUMA
 * view. Pure: bytes into the caller's buffer, the same for every node.
 */
#ifndef MACHINE_ACPI_H
#define MACHINE_ACPI_H

#include <stddef.h>
#include <stdint.h>

#include "machine/memory_map.h"

struct numa_view;

struct acpi_config {
	uint32_t vcpu_count;		 /* 1..VCPUS_MAX */
	const struct numa_view *numa;	 /* or NULL: all memory and vCPUs are alike */
	struct memory_range high_window; /* PCI's above 4 GiB; bytes 0: none */
	uint64_t gpa; /* where the bytes will be; a multiple of 64, below 4 GiB */
};

/* The RSDP is first. 0, -EINVAL, or -ENOSPC: `size` is too small (ACPI_BYTES_MAX is always enough).
 */
int acpi_build(const struct acpi_config *config, void *ret_bytes, size_t size, size_t *ret_used);

#endif
