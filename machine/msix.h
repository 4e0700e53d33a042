/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MSI-X of one function: table, pending bits, and the capability's enable and mask bits (PCI Local
 * Bus 3.0, 6.8.2); and what interrupt a message is (SDM vol. 3, 11.11; KVM's MSI_EXT_DEST_ID for
 * vCPUs above 254). Pure.
 */
#ifndef MACHINE_MSIX_H
#define MACHINE_MSIX_H

#include "core/interrupt_route.h"
#include "machine/pci.h"
#include "virtio/published.h"

#define MSIX_ENTRY_BYTES 16u

struct msix {
	struct pci_function *function;
	uint8_t capability; /* its place */
	uint16_t count;
	uint64_t pending[(VIRTIO_VECTORS_MAX + 63) / 64];
	struct msix_entry {
		uint64_t address;
		uint32_t data, control;
	} entry[VIRTIO_VECTORS_MAX];
};

/* `count` vectors, table and pending bits at these offsets (multiples of 8) of a base address
 * register. 0, or -ENOSPC. */
int msix_add(struct msix *msix, struct pci_function *function, uint16_t count, uint32_t bar,
	     uint32_t table_offset, uint32_t pending_offset);

void msix_table_access(struct msix *msix, struct pci_access *access);	/* offset within it */
void msix_pending_access(struct msix *msix, struct pci_access *access); /* likewise */

bool msix_enabled(const struct msix *msix);
void msix_vector(const struct msix *msix, uint16_t vector,
		 struct virtio_published_vector *ret_vector);

/* The vector is to be sent: true, and the interrupt; false: it is masked, which is remembered. */
bool msix_send(struct msix *msix, uint16_t vector, struct interrupt *ret_interrupt);
/* A vector that was remembered and may be sent now. False: there is none (any more). */
bool msix_unmasked(struct msix *msix, struct interrupt *ret_interrupt);

/* A message of a device as an interrupt. False: the address is none of a local APIC's. */
bool msi_interrupt(uint64_t address, uint32_t data, struct interrupt *ret_interrupt);

#endif
