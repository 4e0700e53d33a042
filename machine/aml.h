/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small emitter of AML, the byte code of ACPI's DSDT (ACPI 6.4, chapter 20). Pure: it appends to
 * the caller's buffer. A buffer that is too small makes `overflow`; nothing is ever written behind
 * it.
 *
 *	uint32_t device = aml_begin_device(&aml, "COM1");
 *	aml_name_eisa_id(&aml, "_HID", "PNP0501");
 *	aml_end(&aml, device);
 */
#ifndef MACHINE_AML_H
#define MACHINE_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "machine/memory_map.h"

struct aml {
	uint8_t *bytes;
	size_t size, used;
	bool overflow;
};

/* Blocks with a length: end with aml_end(), inner ones first. `path`: "\\" or segments as "_SB_".
 */
size_t aml_begin_scope(struct aml *aml, const char *path);
size_t aml_begin_device(struct aml *aml, const char *name);
void aml_end(struct aml *aml, size_t block);

/* Name (name, value). Names have four characters. */
void aml_name_integer(struct aml *aml, const char *name, uint64_t value);
void aml_name_eisa_id(struct aml *aml, const char *name, const char *id);
/* Name (name, Package () {...}) of small integers */
void aml_name_package(struct aml *aml, const char *name, const uint8_t *values, uint8_t count);

/*
 * Method (_OSC, 4) of a PCI root bridge: the guest may control all that it asks for (PCI Firmware
 * 3.2, 4.5.1).
 */
void aml_pci_osc(struct aml *aml);

/* Name (_CRS, ResourceTemplate () {...}): begin, the resources, end. */
struct aml_resources {
	size_t package, length, start;
};
struct aml_resources aml_begin_resources(struct aml *aml);
void aml_io_ports(struct aml *aml, uint16_t first, uint8_t count);
void aml_irq(struct aml *aml, uint8_t irq);
/* This device's own, and nobody else may have it. */
void aml_memory(struct aml *aml, uint32_t gpa, uint32_t bytes);
/* What a bridge hands on: bus numbers, and addresses for the devices behind it. */
void aml_bus_window(struct aml *aml, uint16_t first, uint16_t count);
void aml_low_window(struct aml *aml, uint32_t gpa, uint32_t bytes);
void aml_high_window(struct aml *aml, const struct memory_range *range); /* prefetchable */
void aml_end_resources(struct aml *aml, const struct aml_resources *resources);

#endif
