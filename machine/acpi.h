/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ACPI tables of the machine: RSDP, XSDT, FADT, FACS, MADT, DSDT. Pure: bytes into the caller's
 * buffer, the same for every node. SRAT and SLIT will join when the guest gets a NUMA view, MCFG
 * with PCI.
 */
#ifndef MACHINE_ACPI_H
#define MACHINE_ACPI_H

#include <stddef.h>
#include <stdint.h>

struct acpi_config {
	uint32_t vcpu_count; /* 1..VCPUS_MAX */
	uint64_t gpa;	     /* where the bytes will be; a multiple of 64, below 4 GiB */
};

/* The RSDP is first. 0, -EINVAL, or -ENOSPC: `size` is too small (ACPI_BYTES_MAX is always enough).
 */
int acpi_build(const struct acpi_config *config, void *ret_bytes, size_t size, size_t *ret_used);

#endif
