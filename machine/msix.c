/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MSI-X (contract: msix.h). The capability's enable and mask bits are bytes of configuration space
 * (machine/pci.c); everything else is here.
 *
 * A function that is not master of the bus sends no message: its vectors are as masked. So are all
 * of one whose MSI-X is off.
 *
 * Tested in tests/machine/test_virtio_pci.c.
 */
#include "machine/msix.h"

#include <errno.h>
#include <string.h>

#define CAPABILITY_MSIX	 0x11u
#define CAPABILITY_BYTES 12u
#define CONTROL		 2u /* message control, behind the capability's place; its high byte: */
#define CONTROL_MASK	 0x40u
#define CONTROL_ENABLE	 0x80u

#define ENTRY_MASKED 1u

/* A message's address (SDM vol. 3, 11.11.1), with the bits of MSI_EXT_DEST_ID. */
#define ADDRESS_BASE	  0xfee00000ull
#define ADDRESS_BASE_BITS 0xfffffffffff00000ull
#define ADDRESS_LOGICAL	  2 /* at this bit */
#define ADDRESS_DEST_HIGH 5 /* 7 bits: destination 14:8 */
#define ADDRESS_DEST	  12
#define DATA_MODE	  8

int msix_add(struct msix *msix, struct pci_function *function, uint16_t count, uint32_t bar,
	     uint32_t table_offset, uint32_t pending_offset)
{
	uint32_t table = table_offset | bar, pending = pending_offset | bar;
	uint16_t size = (uint16_t)(count - 1);
	uint8_t bytes[CAPABILITY_BYTES] = { CAPABILITY_MSIX, 0, (uint8_t)size,
					    (uint8_t)(size >> 8) };
	static const uint8_t writable[CAPABILITY_BYTES] = { [CONTROL + 1] =
								    CONTROL_MASK | CONTROL_ENABLE };
	int at;

	if (count < 1 || count > VIRTIO_VECTORS_MAX)
		return -EINVAL;
	for (int i = 0; i < 4; i++) {
		bytes[4 + i] = (uint8_t)(table >> (i * 8));
		bytes[8 + i] = (uint8_t)(pending >> (i * 8));
	}
	at = pci_capability(function, bytes, writable, sizeof(bytes));
	if (at < 0)
		return at;
	*msix = (struct msix){ .function = function, .capability = (uint8_t)at, .count = count };
	for (uint32_t i = 0; i < count; i++)
		msix->entry[i].control = ENTRY_MASKED;
	return 0;
}

static uint8_t control(const struct msix *msix)
{
	return msix->function->value[msix->capability + CONTROL + 1];
}

bool msix_enabled(const struct msix *msix)
{
	return control(msix) & CONTROL_ENABLE;
}

static bool is_masked(const struct msix *msix, uint16_t vector)
{
	return !msix_enabled(msix) || (control(msix) & CONTROL_MASK) ||
	       !pci_masters(msix->function) || (msix->entry[vector].control & ENTRY_MASKED);
}

/* ---- the table ------------------------------------------------------------------------------- */

/* An entry as the guest sees it: address, data, control. */
static void entry_bytes(const struct msix_entry *entry, uint8_t bytes[MSIX_ENTRY_BYTES])
{
	memcpy(bytes, &entry->address, 8);
	memcpy(bytes + 8, &entry->data, 4);
	memcpy(bytes + 12, &entry->control, 4);
}

static void write_word(struct msix_entry *entry, uint32_t word, uint32_t value)
{
	switch (word) {
	case 0: /* dword-aligned, always */
		entry->address = (entry->address & ~0xffffffffull) | (value & ~3u);
		break;
	case 1:
		entry->address = (entry->address & 0xffffffffull) | (uint64_t)value << 32;
		break;
	case 2:
		entry->data = value;
		break;
	default:
		entry->control = value & ENTRY_MASKED;
		break;
	}
}

void msix_table_access(struct msix *msix, struct pci_access *access)
{
	uint8_t bytes[MSIX_ENTRY_BYTES];

	if (access->write) {
		/* By double or quad words only (PCI 3.0, 6.8.2). */
		if ((access->size != 4 && access->size != 8) || access->offset % access->size)
			return;
		for (uint32_t at = access->offset; at < access->offset + access->size; at += 4) {
			uint32_t value = (uint32_t)(access->value >> (at - access->offset) * 8);

			if (at / MSIX_ENTRY_BYTES < msix->count)
				write_word(&msix->entry[at / MSIX_ENTRY_BYTES],
					   at % MSIX_ENTRY_BYTES / 4, value);
		}
		return;
	}
	access->value = 0;
	for (uint32_t i = 0; i < access->size; i++) {
		uint32_t at = access->offset + i;

		if (at / MSIX_ENTRY_BYTES >= msix->count)
			continue;
		entry_bytes(&msix->entry[at / MSIX_ENTRY_BYTES], bytes);
		access->value |= (uint64_t)bytes[at % MSIX_ENTRY_BYTES] << (i * 8);
	}
}

void msix_pending_access(struct msix *msix, struct pci_access *access)
{
	if (access->write)
		return; /* read-only */
	access->value = 0;
	for (uint32_t i = 0; i < access->size; i++) {
		uint32_t at = access->offset + i;

		if (at < sizeof(msix->pending))
			access->value |= (msix->pending[at / 8] >> (at % 8 * 8) & 0xff) << (i * 8);
	}
}

void msix_vector(const struct msix *msix, uint16_t vector,
		 struct virtio_published_vector *ret_vector)
{
	*ret_vector = (struct virtio_published_vector){ .address = msix->entry[vector].address,
							.data = msix->entry[vector].data,
							.masked = is_masked(msix, vector) };
}

/* ---- messages -------------------------------------------------------------------------------- */

bool msi_interrupt(uint64_t address, uint32_t data, struct interrupt *ret_interrupt)
{
	struct interrupt interrupt = {
		.dest = (uint32_t)(address >> ADDRESS_DEST & 0xff) |
			(uint32_t)(address >> ADDRESS_DEST_HIGH & 0x7f) << 8,
		.source = INTERRUPT_SOURCE_DEVICE,
		.vector = (uint8_t)data,
		.mode = (uint8_t)(data >> DATA_MODE & 7),
		.logical = (uint8_t)(address >> ADDRESS_LOGICAL & 1),
		/* An edge whatever the trigger bit says: nobody could take a level away again. */
	};

	if ((address & ADDRESS_BASE_BITS) != ADDRESS_BASE)
		return false;
	if (interrupt.mode != INTERRUPT_FIXED && interrupt.mode != INTERRUPT_LOWEST &&
	    interrupt.mode != INTERRUPT_NMI)
		return false;
	*ret_interrupt = interrupt;
	return true;
}

bool msix_send(struct msix *msix, uint16_t vector, struct interrupt *ret_interrupt)
{
	const struct msix_entry *entry;

	if (vector >= msix->count)
		return false;
	if (is_masked(msix, vector)) {
		if (msix_enabled(msix))
			msix->pending[vector / 64] |= 1ull << (vector % 64);
		return false;
	}
	entry = &msix->entry[vector];
	return msi_interrupt(entry->address, entry->data, ret_interrupt);
}

bool msix_unmasked(struct msix *msix, struct interrupt *ret_interrupt)
{
	for (uint16_t vector = 0; vector < msix->count; vector++) {
		uint64_t bit = 1ull << (vector % 64);

		if (!(msix->pending[vector / 64] & bit) || is_masked(msix, vector))
			continue;
		msix->pending[vector / 64] &= ~bit;
		if (msix_send(msix, vector, ret_interrupt))
			return true;
	}
	return false;
}
