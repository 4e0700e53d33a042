/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AML emitter (contract: aml.h). Lengths are written in their longest form (ACPI 6.4, 20.2.4), so
 * that a block's length has its place before the block is known. Tested with the tables in
 * tests/machine/test_acpi.c.
 */
#include "machine/aml.h"

#include <string.h>

enum aml_op {
	OP_ZERO = 0x00,
	OP_ONE = 0x01,
	OP_NAME = 0x08,
	OP_BYTE = 0x0a,
	OP_WORD = 0x0b,
	OP_DWORD = 0x0c,
	OP_QWORD = 0x0e,
	OP_SCOPE = 0x10,
	OP_BUFFER = 0x11,
	OP_PACKAGE = 0x12,
	OP_METHOD = 0x14,
	OP_EXTENDED = 0x5b,
	OP_ARG_0 = 0x68,
	OP_OR = 0x7d,
	OP_CREATE_DWORD_FIELD = 0x8a,
	OP_NOT = 0x92,
	OP_EQUAL = 0x93,
	OP_IF = 0xa0,
	OP_RETURN = 0xa4,
	OP_EXTENDED_DEVICE = 0x82,
};

#define NAME_BYTES   4u
#define LENGTH_BYTES 4u

#define RESOURCE_IRQ_SMALL 0x22u /* IRQ descriptor without flags: edge, active high */
#define RESOURCE_IO_SMALL  0x47u
#define RESOURCE_END_SMALL 0x79u
#define RESOURCE_MEMORY	   0x86u
#define RESOURCE_DWORD	   0x87u
#define RESOURCE_WORD	   0x88u
#define RESOURCE_QWORD	   0x8au

#define WINDOW_MEMORY	    0u
#define WINDOW_BUS	    2u
#define WINDOW_FIXED	    0x0cu /* both ends are; what is in it is handed on */
#define MEMORY_WRITABLE	    0x01u
#define MEMORY_PREFETCHABLE 0x06u

static void put(struct aml *aml, const void *bytes, size_t count)
{
	if (count > aml->size - aml->used) {
		aml->overflow = true;
		return;
	}
	memcpy(aml->bytes + aml->used, bytes, count);
	aml->used += count;
}

static void put_byte(struct aml *aml, uint8_t byte)
{
	put(aml, &byte, 1);
}

static void put_little_endian(struct aml *aml, uint64_t value, size_t count)
{
	for (size_t i = 0; i < count; i++)
		put_byte(aml, (uint8_t)(value >> (i * 8)));
}

/* Place for a length; the block that it measures begins with the length itself. */
static size_t begin_length(struct aml *aml)
{
	size_t at = aml->used;

	put_little_endian(aml, 0, LENGTH_BYTES);
	return at;
}

void aml_end(struct aml *aml, size_t block)
{
	uint32_t length = (uint32_t)(aml->used - block);

	if (aml->overflow)
		return;
	/* Lead byte: 3 more bytes follow; bits 3:0 of the length. */
	aml->bytes[block] = (uint8_t)(0xc0 | (length & 0xf));
	aml->bytes[block + 1] = (uint8_t)(length >> 4);
	aml->bytes[block + 2] = (uint8_t)(length >> 12);
	aml->bytes[block + 3] = (uint8_t)(length >> 20);
}

size_t aml_begin_scope(struct aml *aml, const char *path)
{
	size_t block;

	put_byte(aml, OP_SCOPE);
	block = begin_length(aml);
	put(aml, path, strlen(path));
	return block;
}

size_t aml_begin_device(struct aml *aml, const char *name)
{
	size_t block;

	put_byte(aml, OP_EXTENDED);
	put_byte(aml, OP_EXTENDED_DEVICE);
	block = begin_length(aml);
	put(aml, name, NAME_BYTES);
	return block;
}

static void put_integer(struct aml *aml, uint64_t value)
{
	if (value <= 1) {
		put_byte(aml, value ? OP_ONE : OP_ZERO);
	} else if (value <= UINT8_MAX) {
		put_byte(aml, OP_BYTE);
		put_little_endian(aml, value, 1);
	} else if (value <= UINT16_MAX) {
		put_byte(aml, OP_WORD);
		put_little_endian(aml, value, 2);
	} else if (value <= UINT32_MAX) {
		put_byte(aml, OP_DWORD);
		put_little_endian(aml, value, 4);
	} else {
		put_byte(aml, OP_QWORD);
		put_little_endian(aml, value, 8);
	}
}

static void put_name(struct aml *aml, const char *name)
{
	put_byte(aml, OP_NAME);
	put(aml, name, NAME_BYTES);
}

void aml_name_integer(struct aml *aml, const char *name, uint64_t value)
{
	put_name(aml, name);
	put_integer(aml, value);
}

static uint32_t hex_digit(char c)
{
	return (uint32_t)(c <= '9' ? c - '0' : c - 'A' + 10);
}

/* "PNP0501": three letters of 5 bits, four hex digits, as a big-endian double word
 * (ACPI 6.4, 19.3.4). */
void aml_name_eisa_id(struct aml *aml, const char *name, const char *id)
{
	uint32_t value = 0;

	for (int i = 0; i < 3; i++)
		value = value << 5 | ((uint32_t)(id[i] - '@') & 0x1f);
	for (int i = 3; i < 7; i++)
		value = value << 4 | hex_digit(id[i]);
	put_name(aml, name);
	put_byte(aml, OP_DWORD);
	put_little_endian(aml, __builtin_bswap32(value), 4);
}

void aml_name_package(struct aml *aml, const char *name, const uint8_t *values, uint8_t count)
{
	size_t block;

	put_name(aml, name);
	put_byte(aml, OP_PACKAGE);
	block = begin_length(aml);
	put_byte(aml, count);
	for (uint8_t i = 0; i < count; i++)
		put_integer(aml, values[i]);
	aml_end(aml, block);
}

struct aml_resources aml_begin_resources(struct aml *aml)
{
	struct aml_resources resources;

	put_name(aml, "_CRS");
	put_byte(aml, OP_BUFFER);
	resources.package = begin_length(aml);
	put_byte(aml, OP_WORD);
	resources.length = aml->used;
	put_little_endian(aml, 0, 2);
	resources.start = aml->used;
	return resources;
}

void aml_io_ports(struct aml *aml, uint16_t first, uint8_t count)
{
	put_byte(aml, RESOURCE_IO_SMALL);
	put_byte(aml, 1); /* all 16 address bits are decoded */
	put_little_endian(aml, first, 2);
	put_little_endian(aml, first, 2);
	put_byte(aml, 0);
	put_byte(aml, count);
}

void aml_irq(struct aml *aml, uint8_t irq)
{
	put_byte(aml, RESOURCE_IRQ_SMALL);
	put_little_endian(aml, 1u << irq, 2);
}

void aml_memory(struct aml *aml, uint32_t gpa, uint32_t bytes)
{
	put_byte(aml, RESOURCE_MEMORY);
	put_little_endian(aml, 9, 2);
	put_byte(aml, MEMORY_WRITABLE);
	put_little_endian(aml, gpa, 4);
	put_little_endian(aml, bytes, 4);
}

/* An address space of `width` bytes a number (ACPI 6.4, 6.4.3.5). */
static void put_window(struct aml *aml, uint8_t resource, uint8_t kind, uint8_t flags,
		       uint64_t first, uint64_t count)
{
	size_t width = resource == RESOURCE_QWORD ? 8 : resource == RESOURCE_DWORD ? 4 : 2;

	put_byte(aml, resource);
	put_little_endian(aml, 3 + 5 * width, 2);
	put_byte(aml, kind);
	put_byte(aml, WINDOW_FIXED);
	put_byte(aml, flags);
	put_little_endian(aml, 0, width); /* granularity */
	put_little_endian(aml, first, width);
	put_little_endian(aml, first + count - 1, width);
	put_little_endian(aml, 0, width); /* translation */
	put_little_endian(aml, count, width);
}

void aml_bus_window(struct aml *aml, uint16_t first, uint16_t count)
{
	put_window(aml, RESOURCE_WORD, WINDOW_BUS, 0, first, count);
}

void aml_low_window(struct aml *aml, uint32_t gpa, uint32_t bytes)
{
	put_window(aml, RESOURCE_DWORD, WINDOW_MEMORY, MEMORY_WRITABLE, gpa, bytes);
}

void aml_high_window(struct aml *aml, const struct memory_range *range)
{
	put_window(aml, RESOURCE_QWORD, WINDOW_MEMORY, MEMORY_WRITABLE | MEMORY_PREFETCHABLE,
		   range->gpa, range->bytes);
}

/* 33db4d5b-1ff7-401c-9657-7441c03dd766, as ACPI's ToUUID() has it. */
static const uint8_t osc_uuid[16] = { 0x5b, 0x4d, 0xdb, 0x33, 0xf7, 0x1f, 0x1c, 0x40,
				      0x96, 0x57, 0x74, 0x41, 0xc0, 0x3d, 0xd7, 0x66 };

#define OSC_UNKNOWN_UUID     0x04u
#define OSC_UNKNOWN_REVISION 0x08u

static void put_argument(struct aml *aml, uint8_t number)
{
	put_byte(aml, (uint8_t)(OP_ARG_0 + number));
}

/* Or (CDW1, bit, CDW1) */
static void put_osc_error(struct aml *aml, uint8_t bit)
{
	put_byte(aml, OP_OR);
	put(aml, "CDW1", NAME_BYTES);
	put_integer(aml, bit);
	put(aml, "CDW1", NAME_BYTES);
}

static void put_osc_return(struct aml *aml)
{
	put_byte(aml, OP_RETURN);
	put_argument(aml, 3);
}

/*
 *	CreateDWordField (Arg3, 0, CDW1)
 *	If (LEqual (Arg0, Buffer (16) {...})) {
 *		If (LNot (LEqual (Arg1, 1))) { Or (CDW1, 8, CDW1) }
 *		Return (Arg3)
 *	}
 *	Or (CDW1, 4, CDW1)
 *	Return (Arg3)
 */
void aml_pci_osc(struct aml *aml)
{
	size_t method, known, buffer, revision;

	put_byte(aml, OP_METHOD);
	method = begin_length(aml);
	put(aml, "_OSC", NAME_BYTES);
	put_byte(aml, 0x0c); /* four arguments; serialized, since it creates a name */
	put_byte(aml, OP_CREATE_DWORD_FIELD);
	put_argument(aml, 3);
	put_integer(aml, 0);
	put(aml, "CDW1", NAME_BYTES);

	put_byte(aml, OP_IF);
	known = begin_length(aml);
	put_byte(aml, OP_EQUAL);
	put_argument(aml, 0);
	put_byte(aml, OP_BUFFER);
	buffer = begin_length(aml);
	put_integer(aml, sizeof(osc_uuid));
	put(aml, osc_uuid, sizeof(osc_uuid));
	aml_end(aml, buffer);

	put_byte(aml, OP_IF);
	revision = begin_length(aml);
	put_byte(aml, OP_NOT);
	put_byte(aml, OP_EQUAL);
	put_argument(aml, 1);
	put_integer(aml, 1);
	put_osc_error(aml, OSC_UNKNOWN_REVISION);
	aml_end(aml, revision);

	put_osc_return(aml);
	aml_end(aml, known);
	put_osc_error(aml, OSC_UNKNOWN_UUID);
	put_osc_return(aml);
	aml_end(aml, method);
}

void aml_end_resources(struct aml *aml, const struct aml_resources *resources)
{
	size_t length;

	put_byte(aml, RESOURCE_END_SMALL);
	put_byte(aml, 0); /* checksum not used */
	if (aml->overflow)
		return;
	length = aml->used - resources->start;
	aml->bytes[resources->length] = (uint8_t)length;
	aml->bytes[resources->length + 1] = (uint8_t)(length >> 8);
	aml_end(aml, resources->package);
}
