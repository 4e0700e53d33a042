/* SPDX-License-Identifier: Apache-2.0 */
/* The loader on made-up kernels: what it refuses and how it says so, where it puts things. */
#include "tests/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/limits.h"
#include "machine/loader.h"

#define MIB	     (1ull << 20)
#define SETUP_SECTS  3u
#define PAYLOAD	     8192u
#define KERNEL_BYTES ((SETUP_SECTS + 1) * 512 + PAYLOAD)
#define GUEST_BYTES  (64 * MIB)

static uint8_t kernel[KERNEL_BYTES];
static uint8_t initrd[3 * MIB + 5];
static uint8_t *guest;
static uint32_t write_count, fail_at;
static char why[200];

static void put(uint32_t offset, uint64_t value, size_t count)
{
	for (size_t i = 0; i < count; i++)
		kernel[offset + i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get(const uint8_t *at, size_t count)
{
	uint64_t value = 0;

	for (size_t i = 0; i < count; i++)
		value |= (uint64_t)at[i] << (8 * i);
	return value;
}

static void make_kernel(void)
{
	memset(kernel, 0x11, sizeof(kernel));
	put(0x1f1, SETUP_SECTS, 1);
	put(0x1f4, PAYLOAD / 16, 4);
	put(0x1fe, 0xaa55, 2);
	put(0x201, 0x6a, 1);
	memcpy(kernel + 0x202, "HdrS", 4);
	put(0x206, 0x020f, 2);
	put(0x211, 0x01, 1);
	put(0x22c, 0x7fffffff, 4);
	put(0x230, 0x200000, 4);
	put(0x234, 1, 1);
	put(0x236, 0x0001, 2);
	put(0x238, 2047, 4);
	put(0x258, 16 * MIB, 8);
	put(0x260, 20 * MIB, 4);
	memset(kernel + (SETUP_SECTS + 1) * 512, 0x90, PAYLOAD);
}

static int write_guest(void *ctx, uint64_t gpa, const void *data, size_t bytes)
{
	(void)ctx;
	if (++write_count == fail_at)
		return -EIO;
	assert_true(gpa + bytes <= GUEST_BYTES);
	memcpy(guest + gpa, data, bytes);
	return 0;
}

static struct loader_config good(void)
{
	struct loader_config config = {
		.kernel = { "vmlinuz", kernel, sizeof(kernel) },
		.initrd = { "initrd", initrd, sizeof(initrd) },
		.cmdline = "console=ttyS0",
		.vcpu_count = 2,
		.xcr0 = 7,
		.write = write_guest,
	};

	make_kernel();
	write_count = fail_at = 0;
	why[0] = 0;
	memset(guest, 0, MIB);
	assert_int_equal(memory_map_build(GUEST_BYTES, &config.map), 0);
	return config;
}

static int load(const struct loader_config *config, struct vcpu_state *bsp,
		struct loader_result *result)
{
	return loader_load(config, bsp, result, why, sizeof(why));
}

/* memtest86+ 6.10 and 7.20 end before the padding to 16 bytes. */
static void test_last_unit_cut(void **state)
{
	struct loader_config config = good();
	struct loader_result result;
	struct vcpu_state bsp;

	(void)state;
	for (uint32_t missing = 1; missing < 16; missing++) {
		config.kernel.bytes = KERNEL_BYTES - missing;
		memset(guest + 16 * MIB + PAYLOAD - 16, 0, 16);
		assert_int_equal(loader_check(&config.kernel, why, sizeof(why)), 0);
		assert_int_equal(load(&config, &bsp, &result), 0);
		assert_int_equal(guest[16 * MIB + PAYLOAD - missing - 1], 0x90);
		assert_int_equal(guest[16 * MIB + PAYLOAD - missing], 0);
	}
}

static void test_load(void **state)
{
	struct loader_config config = good();
	struct loader_result result;
	struct vcpu_state bsp;
	const uint8_t *params = guest + 0x10000;

	(void)state;
	assert_int_equal(load(&config, &bsp, &result), 0);
	assert_int_equal(result.kernel_gpa, 16 * MIB);
	assert_int_equal(result.kernel_bytes, 20 * MIB);
	assert_int_equal(result.entry, 16 * MIB + 0x200);
	assert_int_equal(guest[16 * MIB], 0x90);
	assert_int_equal(result.initrd_gpa % CHUNK_BYTES, 0);
	assert_true(result.initrd_gpa + sizeof(initrd) <= GUEST_BYTES);
	assert_memory_equal(guest + result.initrd_gpa, initrd, sizeof(initrd));
	/* boot_params */
	assert_memory_equal(params + 0x202, "HdrS", 4);
	assert_int_equal(params[0x210], 0xff);
	assert_int_equal(get(params + 0x218, 4), result.initrd_gpa);
	assert_int_equal(get(params + 0x21c, 4), sizeof(initrd));
	assert_int_equal(get(params + 0x228, 4), 0x20000);
	assert_string_equal((const char *)guest + 0x20000, "console=ttyS0");
	assert_int_equal(get(params + 0x70, 8), ACPI_GPA);
	assert_memory_equal(guest + ACPI_GPA, "RSD PTR ", 8);
	assert_int_equal(params[0x1e8], 5);
	assert_int_equal(get(params + 0x2d0 + 3 * 20, 8), MIB);
	assert_int_equal(get(params + 0x2d0 + 3 * 20 + 8, 8), GUEST_BYTES - MIB);
	assert_int_equal(params[0x1ef], 0); /* sentinel */
	assert_int_equal(params[0x1f0], 0);
	assert_int_equal(params[0x26c], 0); /* nothing behind the header */
}

/* Walks the page tables as the CPU would. */
static uint64_t translate(uint64_t cr3, uint64_t address)
{
	uint64_t entry = get(guest + cr3 + (address >> 39 & 511) * 8, 8);

	assert_int_equal(entry & 3, 3);
	entry = get(guest + (entry & ~0xfffull) + (address >> 30 & 511) * 8, 8);
	assert_int_equal(entry & 0x83, 3);
	entry = get(guest + (entry & ~0xfffull) + (address >> 21 & 511) * 8, 8);
	assert_int_equal(entry & 0x83, 0x83);
	return (entry & ~0x1fffffull) + (address & 0x1fffff);
}

static void test_start_state(void **state)
{
	struct loader_config config = good();
	struct loader_result result;
	struct vcpu_state bsp, secondary;
	const char *wrong = NULL;

	(void)state;
	assert_int_equal(load(&config, &bsp, &result), 0);
	assert_int_equal(vcpu_state_check(&bsp, &wrong), 0);
	assert_int_equal(bsp.rip, result.entry);
	assert_int_equal(bsp.gpr[GPR_RSI], 0x10000);
	assert_int_equal(bsp.rflags, 2);
	assert_int_equal(bsp.run_state, VCPU_RUNNABLE);
	assert_int_equal(bsp.segment[SEG_CS].selector, 0x10);
	assert_int_equal(bsp.segment[SEG_DS].selector, 0x18);
	assert_int_equal(bsp.lapic.bsp, 1);
	assert_int_equal(bsp.lapic.x2apic, 1);
	assert_int_equal(bsp.xcr0, 7);
	for (uint64_t address = 0; address < 4096 * MIB; address += 77 * MIB + 4097)
		assert_int_equal(translate(bsp.cr3, address), address);
	/* the GDT holds what the segments say */
	assert_int_equal(get(guest + bsp.gdt.base + 0x10, 8), 0x00af9b000000ffffull);
	assert_int_equal(get(guest + bsp.gdt.base + 0x18, 8), 0x00cf93000000ffffull);
	loader_secondary(3, 7, &secondary);
	assert_int_equal(vcpu_state_check(&secondary, &wrong), 0);
	assert_int_equal(secondary.run_state, VCPU_WAIT_FOR_SIPI);
	assert_int_equal(secondary.lapic.id, 3);
	assert_int_equal(secondary.lapic.bsp, 0);
	assert_int_equal(secondary.lapic.svr, 0xff);
	assert_int_equal(secondary.xcr0, 7);
}

static void assert_refused(const struct loader_config *config, int error, const char *says)
{
	struct loader_result result;
	struct vcpu_state bsp;

	why[0] = 0;
	assert_int_equal(load(config, &bsp, &result), error);
	if (!strstr(why, says))
		fail_msg("'%s' does not say '%s'", why, says);
	assert_null(strchr(why, '\n'));
	assert_int_equal(write_count, 0);
}

static void test_refused_kernels(void **state)
{
	struct loader_config config = good();

	(void)state;
#define REFUSED(change, says)                                                                      \
	do {                                                                                       \
		config = good();                                                                   \
		change;                                                                            \
		assert_refused(&config, -ENOEXEC, says);                                           \
		assert_non_null(strstr(why, "vmlinuz"));                                           \
		assert_int_equal(loader_check(&config.kernel, why, sizeof(why)), -ENOEXEC);        \
	} while (0)
	REFUSED(config.kernel.bytes = 0, "not a Linux bzImage");
	REFUSED(config.kernel.bytes = 0x28f, "not a Linux bzImage");
	REFUSED(put(0x1fe, 0, 2), "not a Linux bzImage");
	REFUSED(put(0x202, 0, 4), "not a Linux bzImage");
	REFUSED(put(0x206, 0x020b, 2), "2.11 is too old");
	REFUSED(put(0x236, 0, 2), "no 64-bit entry");
	REFUSED(put(0x211, 0, 1), "zImage");
	REFUSED(put(0x201, 0x10, 1), "damaged");
	REFUSED(put(0x201, 0xff, 1), "damaged");
	REFUSED(put(0x230, 0, 4), "damaged");
	REFUSED(put(0x230, 3, 4), "damaged");
	REFUSED(put(0x258, 0, 8), "damaged");
	REFUSED(put(0x258, 16 * MIB + 1, 8), "damaged");
	REFUSED(put(0x258, 1ull << 40, 8), "damaged");
	REFUSED(put(0x260, 0, 4), "damaged");
	REFUSED(config.kernel.bytes = KERNEL_BYTES - 16, "truncated");
	REFUSED(config.kernel.bytes = (SETUP_SECTS + 1) * 512, "truncated");
	REFUSED(put(0x1f4, 0xffffffff, 4), "truncated");
	REFUSED(put(0x1f4, 0, 4), "truncated");
}

static void test_refused_sizes(void **state)
{
	static char long_line[2200];
	struct loader_config config = good();

	(void)state;
	put(0x260, 60 * MIB, 4);
	assert_refused(&config, -ENOMEM, "76 MiB");
	config = good();
	config.initrd.bytes = 40 * MIB; /* never read: it is too large */
	assert_refused(&config, -ENOMEM, "initrd: 40 MiB");
	config = good();
	memset(long_line, 'a', sizeof(long_line) - 1);
	config.cmdline = long_line;
	assert_refused(&config, -EINVAL, "2047");
	config = good();
	put(0x238, 5, 4);
	assert_refused(&config, -EINVAL, "5 bytes");
	config = good();
	config.vcpu_count = VCPUS_MAX + 1;
	assert_refused(&config, -EINVAL, "513 vCPUs");
}

static void test_failing_writes(void **state)
{
	struct loader_config config = good();
	struct loader_result result;
	struct vcpu_state bsp;
	uint32_t total;

	(void)state;
	assert_int_equal(load(&config, &bsp, &result), 0);
	total = write_count;
	assert_true(total >= 6);
	for (uint32_t at = 1; at <= total; at++) {
		config = good();
		fail_at = at;
		assert_int_equal(load(&config, &bsp, &result), -EIO);
		assert_non_null(strstr(why, "cannot write"));
		assert_int_equal(write_count, at);
	}
}

static void test_no_initrd(void **state)
{
	struct loader_config config = good();
	struct loader_result result;
	struct vcpu_state bsp;

	(void)state;
	config.initrd.bytes = 0;
	assert_int_equal(load(&config, &bsp, &result), 0);
	assert_int_equal(get(guest + 0x10000 + 0x21c, 4), 0);
}

static void test_fuzzed_headers(void **state)
{
	struct loader_config config;
	struct loader_result result;
	struct vcpu_state bsp;

	(void)state;
	srand(11);
	for (int round = 0; round < 2000; round++) {
		config = good();
		for (int i = rand() % 6; i >= 0; i--)
			kernel[0x1f0 + rand() % 0x80] = (uint8_t)rand();
		config.kernel.bytes -= rand() % 10 ? 0 : (size_t)rand() % KERNEL_BYTES;
		load(&config, &bsp, &result);
	}
}

static void test_cmdline(void **state)
{
	struct loader_cmdline_config config = { .tsc_khz = 2400000, .extra = "single x=y" };
	char line[LOADER_CMDLINE_MAX + 1], small[20] = "";
	char extra[LOADER_CMDLINE_MAX + 1];

	(void)state;
	assert_int_equal(loader_cmdline(&config, line, sizeof(line)), 0);
	assert_memory_equal(line, "console=ttyS0 ", 14);
	assert_non_null(strstr(line, " tsc_early_khz=2400000 "));
	assert_non_null(strstr(line, " reboot=p,panic_w "));
	assert_non_null(strstr(line, " sysctl.vm.compaction_proactiveness=0 "));
	assert_null(strstr(line, "quiet"));
	assert_string_equal(line + strlen(line) - 11, " single x=y");
	assert_null(strstr(line, "maxcpus"));
	assert_null(strstr(line, "mitigations"));
	config.translated = true;
	assert_int_equal(loader_cmdline(&config, line, sizeof(line)), 0);
	assert_non_null(strstr(line, " mitigations=off single x=y"));
	config.translated = false;
	config.boot_cpus = 3;
	assert_int_equal(loader_cmdline(&config, line, sizeof(line)), 0);
	assert_non_null(strstr(line, " maxcpus=3 noreplace-smp eagre.online=1 "));
	config.boot_cpus = 0;
	config.quiet = true;
	config.extra = "";
	assert_int_equal(loader_cmdline(&config, line, sizeof(line)), 0);
	assert_string_equal(line + strlen(line) - 6, " quiet");
	assert_int_equal(loader_cmdline(&config, small, sizeof(small)), -E2BIG);
	assert_true(strlen(small) < sizeof(small));
	memset(extra, 'b', sizeof(extra) - 1);
	extra[sizeof(extra) - 1] = 0;
	config.extra = extra;
	assert_int_equal(loader_cmdline(&config, line, sizeof(line)), -E2BIG);
}

static int set_up(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(initrd); i++)
		initrd[i] = (uint8_t)(i * 13);
	guest = malloc(GUEST_BYTES);
	return guest ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	free(guest);
	return 0;
}

static void test_cmdline_doubt(void **state)
{
	(void)state;
	assert_null(loader_cmdline_doubt(NULL));
	assert_null(loader_cmdline_doubt("quiet noapic acpi=offline xnolapic"));
	assert_non_null(strstr(loader_cmdline_doubt("quiet acpi=off"), "acpi=off"));
	assert_non_null(strstr(loader_cmdline_doubt("nolapic_timer nolapic quiet"), "nolapic"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cmdline_doubt),
		cmocka_unit_test(test_last_unit_cut),
		cmocka_unit_test(test_load),
		cmocka_unit_test(test_start_state),
		cmocka_unit_test(test_refused_kernels),
		cmocka_unit_test(test_refused_sizes),
		cmocka_unit_test(test_failing_writes),
		cmocka_unit_test(test_no_initrd),
		cmocka_unit_test(test_fuzzed_headers),
		cmocka_unit_test(test_cmdline),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
