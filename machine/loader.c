/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linux loader (contract: loader.h; Documentation/arch/x86/boot.rst: 64-bit boot protocol, zero
 * page).
 *
 * The file is a user's: its header is copied once, checked, and then used. The kernel goes to the
 * address that it prefers, a multiple of its alignment (2 MiB), so that it begins with a chunk and
 * its text shares no chunk with anything else; so does the initrd.
 *
 * Tested in tests/machine/test_loader.c, and by every boot.
 */
#include "machine/loader.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/limits.h"
#include "machine/acpi.h"
#include "machine/lapic.h"

#define GDT_GPA		0x8000ull
#define PAGE_TABLE_GPA	0x9000ull
#define BOOT_PARAMS_GPA 0x10000ull
#define CMDLINE_GPA	0x20000ull

#define SECTOR_BYTES	  512u
#define BOOT_PARAMS_BYTES 4096u
#define ENTRY_64_OFFSET	  0x200u

/* Offsets in the file and, for the header, in boot_params alike. */
#define HDR_START	  0x1f1u
#define HDR_BOOT_FLAG	  0x1feu
#define HDR_JUMP	  0x201u /* 202h + this byte: end of the header */
#define HDR_SYSSIZE	  0x1f4u
#define SYSSIZE_UNIT	  16u
#define HDR_MAGIC	  0x202u
#define HDR_VERSION	  0x206u
#define HDR_LOADER	  0x210u
#define HDR_LOADFLAGS	  0x211u
#define HDR_INITRD	  0x218u
#define HDR_INITRD_BYTES  0x21cu
#define HDR_CMDLINE	  0x228u
#define HDR_INITRD_MAX	  0x22cu
#define HDR_ALIGNMENT	  0x230u
#define HDR_XLOADFLAGS	  0x236u
#define HDR_CMDLINE_BYTES 0x238u
#define HDR_PREFERRED	  0x258u
#define HDR_INIT_BYTES	  0x260u
#define HDR_END_MIN	  0x264u
#define HDR_END_MAX	  0x290u

/* boot_params only */
#define BP_RSDP	      0x070u
#define BP_E820_COUNT 0x1e8u
#define BP_E820	      0x2d0u
#define BP_E820_BYTES 20u

#define BOOT_FLAG	    0xaa55u
#define MAGIC		    0x53726448u /* "HdrS" */
#define PROTOCOL_MIN	    0x020cu
#define PROTOCOL_RSDP	    0x020eu
#define LOADED_HIGH	    0x01u
#define XLF_KERNEL_64	    0x0001u
#define LOADER_UNREGISTERED 0xffu

#define PAGE_PRESENT_WRITE 0x003u
#define PAGE_LARGE	   0x083u /* with present and write */
#define PAGE_TABLES	   6u	  /* PML4, PDPT, 4 page directories: 4 GiB */

/* What the loader needs of the header, checked. */
struct kernel_header {
	uint32_t setup_bytes, payload_bytes;
	uint32_t header_end;
	uint16_t version;
	uint32_t initrd_max, init_bytes, cmdline_bytes;
	uint64_t load_gpa;
};

static uint64_t get(const struct loader_file *file, size_t offset, size_t count)
{
	const uint8_t *bytes = file->data;
	uint64_t value = 0;

	for (size_t i = 0; i < count; i++)
		value |= (uint64_t)bytes[offset + i] << (i * 8);
	return value;
}

static void put(uint8_t *bytes, size_t offset, uint64_t value, size_t count)
{
	for (size_t i = 0; i < count; i++)
		bytes[offset + i] = (uint8_t)(value >> (i * 8));
}

static uint64_t round_up(uint64_t value, uint64_t to)
{
	return (value + to - 1) / to * to;
}

/* ---- the kernel's header --------------------------------------------------------------------- */

static int check_kind(const struct loader_file *kernel, char *why, size_t why_size)
{
	uint32_t version;

	if (kernel->bytes < HDR_END_MAX || get(kernel, HDR_BOOT_FLAG, 2) != BOOT_FLAG ||
	    get(kernel, HDR_MAGIC, 4) != MAGIC) {
		snprintf(why, why_size, "%s: not a Linux bzImage; give a vmlinuz file of x86-64",
			 kernel->name);
		return -ENOEXEC;
	}
	version = (uint32_t)get(kernel, HDR_VERSION, 2);
	if (version < PROTOCOL_MIN) {
		snprintf(why, why_size,
			 "%s: boot protocol %u.%02u is too old; give a kernel with 2.12 or later",
			 kernel->name, version >> 8, version & 0xff);
		return -ENOEXEC;
	}
	if (!(get(kernel, HDR_XLOADFLAGS, 2) & XLF_KERNEL_64)) {
		snprintf(why, why_size, "%s: has no 64-bit entry; give a kernel for x86-64",
			 kernel->name);
		return -ENOEXEC;
	}
	if (!(get(kernel, HDR_LOADFLAGS, 1) & LOADED_HIGH)) {
		snprintf(why, why_size, "%s: a zImage, which loads low; give a bzImage",
			 kernel->name);
		return -ENOEXEC;
	}
	return 0;
}

static int read_header(const struct loader_file *kernel, struct kernel_header *ret_header,
		       char *why, size_t why_size)
{
	struct kernel_header header;
	uint64_t sectors, alignment, preferred, said, whole;
	int error = check_kind(kernel, why, why_size);

	if (error)
		return error;
	sectors = get(kernel, HDR_START, 1);
	header.setup_bytes = (uint32_t)((sectors ? sectors : 4) + 1) * SECTOR_BYTES;
	header.header_end = HDR_MAGIC + (uint32_t)get(kernel, HDR_JUMP, 1);
	header.version = (uint16_t)get(kernel, HDR_VERSION, 2);
	header.initrd_max = (uint32_t)get(kernel, HDR_INITRD_MAX, 4);
	header.init_bytes = (uint32_t)get(kernel, HDR_INIT_BYTES, 4);
	header.cmdline_bytes = (uint32_t)get(kernel, HDR_CMDLINE_BYTES, 4);
	alignment = get(kernel, HDR_ALIGNMENT, 4);
	preferred = get(kernel, HDR_PREFERRED, 8);
	if (header.header_end < HDR_END_MIN || header.header_end > HDR_END_MAX || alignment == 0 ||
	    (alignment & (alignment - 1)) || preferred < HIMEM_GPA || preferred % alignment ||
	    preferred >= LOW_RAM_LIMIT || header.init_bytes == 0) {
		snprintf(why, why_size, "%s: damaged: its boot header makes no sense",
			 kernel->name);
		return -ENOEXEC;
	}
	header.load_gpa = preferred;
	/*
	 * syssize counts units of 16 bytes, and a file need not have the last one whole: what is
	 * missing is zero in memory that is fresh.
	 */
	said = header.setup_bytes + get(kernel, HDR_SYSSIZE, 4) * SYSSIZE_UNIT;
	whole = said < kernel->bytes ? said : kernel->bytes;
	if (whole + SYSSIZE_UNIT <= said || whole <= header.setup_bytes + ENTRY_64_OFFSET) {
		snprintf(why, why_size, "%s: truncated: %llu bytes, its header says %llu",
			 kernel->name, (unsigned long long)kernel->bytes, (unsigned long long)said);
		return -ENOEXEC;
	}
	header.payload_bytes = (uint32_t)(whole - header.setup_bytes);
	*ret_header = header;
	return 0;
}

int loader_check(const struct loader_file *kernel, char *why, size_t why_size)
{
	struct kernel_header header;

	return read_header(kernel, &header, why, why_size);
}

/* ---- placement ------------------------------------------------------------------------------- */

static int place(const struct loader_config *config, const struct kernel_header *header,
		 struct loader_result *ret_result, char *why, size_t why_size)
{
	uint64_t low_end = config->map.range[0].bytes;
	uint64_t initrd_end = (uint64_t)header->initrd_max + 1;
	struct loader_result result = {
		.kernel_gpa = header->load_gpa,
		.kernel_bytes = header->init_bytes > header->payload_bytes ? header->init_bytes
									   : header->payload_bytes,
		.entry = header->load_gpa + ENTRY_64_OFFSET,
		.initrd_bytes = config->initrd.bytes,
	};
	uint64_t kernel_end = round_up(result.kernel_gpa + result.kernel_bytes, CHUNK_BYTES);

	if (initrd_end > low_end)
		initrd_end = low_end;
	if (kernel_end > low_end) {
		snprintf(why, why_size,
			 "%s: needs %llu MiB of guest memory to boot; give the guest more memory",
			 config->kernel.name, (unsigned long long)(kernel_end >> 20));
		return -ENOMEM;
	}
	if (config->initrd.bytes == 0) {
		*ret_result = result;
		return 0;
	}
	if (config->initrd.bytes > initrd_end ||
	    (initrd_end - config->initrd.bytes) / CHUNK_BYTES * CHUNK_BYTES < kernel_end) {
		snprintf(why, why_size,
			 "%s: %llu MiB do not fit behind the kernel; give the guest more memory",
			 config->initrd.name, (unsigned long long)(config->initrd.bytes >> 20));
		return -ENOMEM;
	}
	result.initrd_gpa = (initrd_end - config->initrd.bytes) / CHUNK_BYTES * CHUNK_BYTES;
	*ret_result = result;
	return 0;
}

/* ---- what is written ------------------------------------------------------------------------- */

static int write_guest(const struct loader_config *config, uint64_t gpa, const void *data,
		       size_t bytes, const char *what, char *why, size_t why_size)
{
	int error = config->write(config->ctx, gpa, data, bytes);

	if (error)
		snprintf(why, why_size, "cannot write %s to guest memory at %#llx: %s", what,
			 (unsigned long long)gpa, strerror(-error));
	return error;
}

static void build_boot_params(const struct loader_config *config,
			      const struct kernel_header *header,
			      const struct loader_result *result, uint8_t *params)
{
	struct e820_range range[E820_RANGES_MAX];
	uint32_t count = memory_map_e820(&config->map, range);

	memcpy(params + HDR_START, (const uint8_t *)config->kernel.data + HDR_START,
	       header->header_end - HDR_START);
	params[HDR_LOADER] = LOADER_UNREGISTERED;
	put(params, HDR_INITRD, result->initrd_gpa, 4);
	put(params, HDR_INITRD_BYTES, result->initrd_bytes, 4);
	put(params, HDR_CMDLINE, CMDLINE_GPA, 4);
	if (header->version >= PROTOCOL_RSDP)
		put(params, BP_RSDP, ACPI_GPA, 8);
	params[BP_E820_COUNT] = (uint8_t)count;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t at = BP_E820 + i * BP_E820_BYTES;

		put(params, at, range[i].gpa, 8);
		put(params, at + 8, range[i].bytes, 8);
		put(params, at + 16, range[i].type, 4);
	}
}

/* Identity map of 4 GiB in 2 MiB pages: PML4, PDPT, 4 page directories, one behind the other. */
static void build_page_tables(uint8_t *tables)
{
	put(tables, 0, (PAGE_TABLE_GPA + PAGE_BYTES) | PAGE_PRESENT_WRITE, 8);
	for (uint32_t i = 0; i < 4; i++)
		put(tables, PAGE_BYTES + i * 8,
		    (PAGE_TABLE_GPA + (2 + i) * PAGE_BYTES) | PAGE_PRESENT_WRITE, 8);
	for (uint32_t i = 0; i < 4 * 512; i++)
		put(tables, 2 * PAGE_BYTES + (size_t)i * 8, (uint64_t)i << 21 | PAGE_LARGE, 8);
}

/* Entries 2 and 3 are the protocol's __BOOT_CS and __BOOT_DS; 4 and 5 a TSS for engines that want
 * one. */
static void build_gdt(uint8_t *gdt)
{
	put(gdt, 16, 0x00af9b000000ffffull, 8);
	put(gdt, 24, 0x00cf93000000ffffull, 8);
	put(gdt, 32, 0x00008b0000000067ull, 8);
}

/* A guest that reboots "by the BIOS" jumps to f000:fff0 in real mode; there is none but this. */
static const uint8_t reset_code[] = {
	0xba, 0xf9, 0x0c,      /* mov $0xcf9, %dx */
	0xb0, 0x0e, 0xee,      /* mov $0xe, %al; out %al, (%dx) */
	0xfa, 0xf4, 0xeb, 0xfc /* 1: cli; hlt; jmp 1b */
};

/* Too much for a small stack. */
struct boot_tables {
	uint8_t acpi[ACPI_BYTES_MAX];
	uint8_t pages[PAGE_TABLES * PAGE_BYTES];
	uint8_t gdt[48];
};

static int write_tables(const struct loader_config *config, char *why, size_t why_size)
{
	struct boot_tables *tables = calloc(1, sizeof(*tables));
	struct acpi_config acpi_config = { .vcpu_count = config->vcpu_count,
					   .numa = config->numa,
					   .high_window = config->high_window,
					   .gpa = ACPI_GPA };
	size_t acpi_bytes;
	int error =
		tables ? acpi_build(&acpi_config, tables->acpi, sizeof(tables->acpi), &acpi_bytes)
		       : -ENOMEM;

	if (error) {
		snprintf(why, why_size, "cannot build ACPI tables for %u vCPUs: %s",
			 config->vcpu_count, strerror(-error));
		goto out;
	}
	build_page_tables(tables->pages);
	build_gdt(tables->gdt);
	error = write_guest(config, ACPI_GPA, tables->acpi, acpi_bytes, "the ACPI tables", why,
			    why_size);
	if (!error)
		error = write_guest(config, PAGE_TABLE_GPA, tables->pages, sizeof(tables->pages),
				    "the page tables", why, why_size);
	if (!error)
		error = write_guest(config, GDT_GPA, tables->gdt, sizeof(tables->gdt), "the GDT",
				    why, why_size);
	if (!error)
		error = write_guest(config, RESET_VECTOR_GPA, reset_code, sizeof(reset_code),
				    "the reset vector", why, why_size);
out:
	free(tables);
	return error;
}

static int write_kernel(const struct loader_config *config, const struct kernel_header *header,
			const struct loader_result *result, char *why, size_t why_size)
{
	uint8_t params[BOOT_PARAMS_BYTES] = { 0 };
	int error;

	build_boot_params(config, header, result, params);
	error = write_guest(config, result->kernel_gpa,
			    (const uint8_t *)config->kernel.data + header->setup_bytes,
			    header->payload_bytes, "the kernel", why, why_size);
	if (!error && result->initrd_bytes)
		error = write_guest(config, result->initrd_gpa, config->initrd.data,
				    config->initrd.bytes, "the initrd", why, why_size);
	if (!error)
		error = write_guest(config, BOOT_PARAMS_GPA, params, sizeof(params), "boot_params",
				    why, why_size);
	if (!error)
		error = write_guest(config, CMDLINE_GPA, config->cmdline,
				    strlen(config->cmdline) + 1, "the command line", why, why_size);
	return error;
}

/* ---- the first vCPU -------------------------------------------------------------------------- */

#define CR0_BOOT  0x80000033ull /* PG, NE, ET, MP, PE */
#define CR4_PAE	  0x20ull
#define EFER_LONG 0x500ull /* LME, LMA */

static void set_segment(struct vcpu_segment_state *segment, uint16_t selector, uint16_t attributes,
			uint32_t limit)
{
	*segment = (struct vcpu_segment_state){ .limit = limit,
						.selector = selector,
						.attributes = attributes };
}

void loader_first(uint64_t entry, uint64_t xcr0, struct vcpu_state *state)
{
	vcpu_state_reset(state, 0);
	lapic_reset(&state->lapic, 0, true);
	state->xcr0 |= xcr0;
	state->cr0 = CR0_BOOT;
	state->cr3 = PAGE_TABLE_GPA;
	state->cr4 = CR4_PAE;
	state->efer = EFER_LONG;
	state->rip = entry;
	state->rflags = 2;
	state->gpr[GPR_RSI] = BOOT_PARAMS_GPA;
	state->gpr[GPR_RSP] = GDT_GPA;
	state->gdt = (struct vcpu_table_state){ .base = GDT_GPA, .limit = 47 };
	state->idt = (struct vcpu_table_state){ 0 };
	set_segment(&state->segment[SEG_CS], 0x10, 0xa09b, UINT32_MAX);
	for (int segment = SEG_ES; segment <= SEG_GS; segment++) {
		if (segment != SEG_CS)
			set_segment(&state->segment[segment], 0x18, 0xc093, UINT32_MAX);
	}
	set_segment(&state->segment[SEG_TR], 0x20, 0x8b, 0x67);
	set_segment(&state->segment[SEG_LDTR], 0, 0x82, 0);
	state->run_state = VCPU_RUNNABLE;
}

void loader_secondary(uint32_t number, uint64_t xcr0, struct vcpu_state *ret_state)
{
	vcpu_state_reset(ret_state, number);
	lapic_reset(&ret_state->lapic, number, false);
	ret_state->xcr0 |= xcr0;
}

int loader_load(const struct loader_config *config, struct vcpu_state *ret_bsp,
		struct loader_result *ret_result, char *why, size_t why_size)
{
	struct kernel_header header;
	struct loader_result result;
	int error = read_header(&config->kernel, &header, why, why_size);

	if (error)
		return error;
	if (strlen(config->cmdline) > LOADER_CMDLINE_MAX ||
	    strlen(config->cmdline) > header.cmdline_bytes) {
		snprintf(why, why_size, "the kernel's command line is longer than %u bytes",
			 header.cmdline_bytes < LOADER_CMDLINE_MAX ? header.cmdline_bytes
								   : LOADER_CMDLINE_MAX);
		return -EINVAL;
	}
	error = place(config, &header, &result, why, why_size);
	if (!error)
		error = write_tables(config, why, why_size);
	if (!error)
		error = write_kernel(config, &header, &result, why, why_size);
	if (error)
		return error;
	loader_first(result.entry, config->xcr0, ret_bsp);
	*ret_result = result;
	return 0;
}
