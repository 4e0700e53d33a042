/* SPDX-License-Identifier: Apache-2.0 */
/* The whole machine through its ports: who answers, interrupts, output, power-off and resets,
 * random accesses. */
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

#include "machine/memory_map.h"
#include "machine/pc.h"

#define MS 1000000ull

struct seen {
	uint32_t interrupts, power_offs, resets, outputs;
	enum pc_reset why;
	struct interrupt last;
	char text[PC_SERIALS][4096];
	size_t length[PC_SERIALS];
	size_t room; /* bytes that are taken; then no more */
	size_t wrote[PC_SERIALS];
	uint32_t drains;
};

static struct seen seen;
static struct pc *pc;
static uint64_t now;

static void on_interrupt(void *ctx, const struct interrupt *interrupt)
{
	struct vcpu_set set;

	assert_ptr_equal(ctx, &seen);
	assert_int_equal(interrupt_route(interrupt, 4, &set), 0);
	seen.last = *interrupt;
	seen.interrupts++;
}

static void on_wrote(void *ctx, enum pc_serial port, uint8_t byte)
{
	(void)ctx;
	(void)byte;
	seen.wrote[port]++;
}

static size_t on_output(void *ctx, enum pc_serial port, const uint8_t *bytes, size_t count)
{
	(void)ctx;
	assert_true(count > 0);
	seen.outputs++;
	if (count > seen.room)
		count = seen.room;
	seen.room -= count;
	for (size_t i = 0; i < count; i++)
		seen.text[port][seen.length[port]++ % 4095] = (char)bytes[i];
	return count;
}

/* A byte at a time. */
static void on_drain(void *ctx)
{
	(void)ctx;
	seen.drains++;
	seen.room = 1;
}

static void on_power_off(void *ctx)
{
	(void)ctx;
	seen.power_offs++;
}

static void on_reset(void *ctx, enum pc_reset why)
{
	(void)ctx;
	seen.resets++;
	seen.why = why;
}

static const struct pc_ops ops = {
	.interrupt = on_interrupt,
	.wrote = on_wrote,
	.output = on_output,
	.drain = on_drain,
	.power_off = on_power_off,
	.reset = on_reset,
};

static int set_up(void **state)
{
	struct pc_config config = { .wall_epoch_s = 1700000000 };

	(void)state;
	memset(&seen, 0, sizeof(seen));
	seen.room = SIZE_MAX;
	now = 0;
	return pc_create(&config, &ops, &seen, &pc);
}

static int tear_down(void **state)
{
	(void)state;
	pc_destroy(pc);
	return 0;
}

static uint32_t in(uint32_t port, uint8_t size)
{
	uint32_t value = 0;
	struct pc_access access = { port, 1, size, false, (uint8_t *)&value };

	pc_io(pc, &access, now);
	return value;
}

static void outp(uint32_t port, uint8_t size, uint32_t value)
{
	struct pc_access access = { port, 1, size, true, (uint8_t *)&value };

	pc_io(pc, &access, now);
}

static void set_pin(uint32_t pin, uint32_t low)
{
	uint32_t value = 0x10 + pin * 2;
	struct pc_access access = { IOAPIC_GPA, 1, 4, true, (uint8_t *)&value };

	pc_mmio(pc, &access, now);
	value = low;
	access.address = IOAPIC_GPA + 0x10;
	pc_mmio(pc, &access, now);
}

static void test_nobody(void **state)
{
	static const uint16_t ports[] = { 0x00,	 0x22,	0x60,  0x64,  0x80,  0xed,  0x1f0,
					  0x378, 0x3e8, 0x510, 0x5ff, 0x60c, 0xd00, 0xffff };

	(void)state;
	for (size_t i = 0; i < sizeof(ports) / sizeof(ports[0]); i++) {
		assert_int_equal(in(ports[i], 1), 0xff);
		outp(ports[i], 1, 0x12);
	}
	assert_int_equal(in(0xfffe, 4), 0xffffffff); /* wraps around the port space */
	assert_int_equal(seen.resets + seen.power_offs + seen.outputs, 0);
}

static void test_mmio(void **state)
{
	uint64_t value = 0;
	struct pc_access access = { 0xd0000000, 1, 8, false, (uint8_t *)&value };

	(void)state;
	/* where PCI may have something nobody can tell alone */
	pc_mmio(pc, &access, 0);
	assert_int_equal(value, UINT64_MAX);
	assert_false(pc_mmio_local(&access));
	access.address = 1ull << 40;
	assert_false(pc_mmio_local(&access));
	access.address = GPA_LIMIT;
	assert_true(pc_mmio_local(&access));
	access.address = IOAPIC_GPA;
	access.size = 4;
	assert_false(pc_mmio_local(&access));
	value = 0;
	pc_mmio(pc, &access, 0);
	assert_int_equal(value, 0);
	access.address = LAPIC_GPA;
	assert_true(pc_mmio_local(&access));
}

static void test_local(void **state)
{
	uint32_t value = 0;
	struct pc_access access = { 0x608, 1, 4, false, (uint8_t *)&value };

	(void)state;
	assert_true(pc_io_local(&access, 1000000000));
	assert_int_equal(value, 3579545);
	now = 1000000000;
	assert_int_equal(in(0x608, 4), 3579545); /* the pc says the same */
	access.address = 0x80;
	access.size = 1;
	access.write = true;
	assert_true(pc_io_local(&access, 0));
	access.address = 0x3f8;
	assert_false(pc_io_local(&access, 0));
	access.address = 0x3f7; /* half of it is somebody's */
	access.size = 2;
	assert_false(pc_io_local(&access, 0));
	access.address = 0xcf8;
	access.size = 4;
	assert_false(pc_io_local(&access, 0));
	access.address = 0x3e8;
	access.write = false;
	access.size = 1;
	assert_true(pc_io_local(&access, 0));
	assert_int_equal(value & 0xff, 0xff);
}

static void test_output(void **state)
{
	uint8_t line[600];
	struct pc_access access = { 0x3f8, 5, 1, true, line };

	(void)state;
	memcpy(line, "hello", 5);
	pc_io(pc, &access, now); /* a string output */
	assert_int_equal(seen.outputs, 0);
	assert_int_equal(pc_deadline(pc), 2 * MS);
	pc_tick(pc, 2 * MS - 1);
	assert_int_equal(seen.outputs, 0);
	pc_tick(pc, 2 * MS);
	assert_int_equal(seen.outputs, 1);
	assert_memory_equal(seen.text[PC_CONSOLE], "hello", 5);
	assert_int_equal(pc_deadline(pc), UINT64_MAX);
	outp(0x3f8, 1, '\n');
	assert_int_equal(seen.outputs, 2);
	memset(line, 'x', sizeof(line));
	access.address = 0x2f8;
	access.count = 600;
	pc_io(pc, &access, now);
	assert_int_equal(seen.length[PC_COMMAND], 512);
	outp(0x605, 1, 0x34); /* nothing is lost at power-off */
	assert_int_equal(seen.length[PC_COMMAND], 600);
	assert_int_equal(seen.power_offs, 1);
}

/* The byte at this place of what a driver sends. */
static uint8_t sent(size_t i)
{
	return (uint8_t)('a' + i % 23);
}

/* As a driver does that fills the FIFO whenever it is empty: how many bytes went. */
static size_t drive(size_t from, size_t most)
{
	size_t done = 0;

	while (done < most && (in(0x3fd, 1) & 0x20))
		for (int i = 0; i < 16; i++)
			outp(0x3f8, 1, sent(from + done++));
	return done;
}

/* A driver waits for who reads, hears when there is room, and nothing is lost; nor at the end. */
static void test_output_that_nobody_takes(void **state)
{
	size_t done;

	(void)state;
	set_pin(4, 0x24);
	outp(0x3fc, 1, 0x08);
	outp(0x3fa, 1, 0x01);
	outp(0x3f9, 1, 0x02);
	seen.room = 100;
	done = drive(0, 4000);
	assert_in_range(done, 200, 600);
	assert_int_equal(seen.length[PC_CONSOLE], 100);
	assert_int_equal(pc_deadline(pc), UINT64_MAX); /* it does not try again and again */
	assert_int_equal(in(0x3fd, 1) & 0x60, 0);
	assert_int_equal(in(0x3fa, 1) & 0xf, 0x01);

	seen.room = 10;
	pc_output_room(pc); /* not for all */
	assert_int_equal(seen.length[PC_CONSOLE], 110);
	assert_int_equal(in(0x3fd, 1) & 0x60, 0);
	seen.interrupts = 0;
	seen.room = SIZE_MAX;
	pc_output_room(pc);
	assert_int_equal(seen.interrupts, 1);
	assert_int_equal(seen.last.vector, 0x24);
	assert_int_equal(in(0x3fa, 1) & 0xf, 0x02);
	assert_int_equal(in(0x3fd, 1) & 0x60, 0x60);
	assert_int_equal(seen.length[PC_CONSOLE], done);

	seen.room = 0;
	done += drive(done, 4000);
	outp(0x605, 1, 0x34);
	assert_int_equal(seen.power_offs, 1);
	assert_true(seen.drains > 200);
	assert_int_equal(seen.length[PC_CONSOLE], done);
	for (size_t i = 0; i < done; i++)
		assert_int_equal(seen.text[PC_CONSOLE][i], sent(i));
}

/* Who does not look overruns it, as on a wire, and nothing else happens; what it wrote is known. */
static void test_output_that_overruns(void **state)
{
	(void)state;
	seen.room = 0;
	for (int i = 0; i < 10000; i++)
		outp(0x3f8, 1, i % 100 ? 'x' : '\n');
	seen.room = SIZE_MAX;
	pc_output_room(pc);
	assert_in_range(seen.length[PC_CONSOLE], 200, 600);
	assert_int_equal(seen.wrote[PC_CONSOLE], 10000);
	assert_int_equal(seen.wrote[PC_COMMAND], 0);
}

static void test_input_interrupt(void **state)
{
	(void)state;
	set_pin(4, 0x24);
	set_pin(3, 0x23);
	outp(0x3fc, 1, 0x08);
	outp(0x3f9, 1, 0x01);
	outp(0x2fc, 1, 0x08);
	outp(0x2f9, 1, 0x01);
	assert_int_equal(pc_serial_input(pc, PC_CONSOLE, (const uint8_t *)"a", 1, 0), 1);
	assert_int_equal(seen.interrupts, 1);
	assert_int_equal(seen.last.vector, 0x24);
	assert_int_equal(pc_serial_input(pc, PC_COMMAND, (const uint8_t *)"b", 1, 0), 1);
	assert_int_equal(seen.interrupts, 2);
	assert_int_equal(seen.last.vector, 0x23);
	assert_int_equal(in(0x3f8, 1), 'a');
	assert_int_equal(in(0x2f8, 1), 'b');
	pc_serial_input(pc, PC_CONSOLE, (const uint8_t *)"c", 1, 0);
	assert_int_equal(seen.interrupts, 3);
	assert_true(pc_serial_room(pc, PC_CONSOLE) >= 4096);
}

/* Each byte that a driver sends by interrupt makes one more edge. */
static void test_output_interrupts(void **state)
{
	(void)state;
	set_pin(4, 0x24);
	outp(0x3fc, 1, 0x08);
	outp(0x3f9, 1, 0x02);
	for (uint32_t i = 1; i < 10; i++) {
		assert_int_equal(seen.interrupts, i);
		assert_int_equal(in(0x3fa, 1) & 0xf, 0x02);
		outp(0x3f8, 1, 'x');
	}
	/* even if nobody asked for the cause in between */
	outp(0x3f8, 1, 'y');
	assert_int_equal(seen.interrupts, 11);
}

static void test_pit_interrupt(void **state)
{
	uint64_t due;

	(void)state;
	set_pin(2, 0x30);
	outp(0x43, 1, 0x34);
	outp(0x40, 1, 0x00);
	outp(0x40, 1, 0x10);
	due = pc_deadline(pc);
	assert_true(due < 4 * MS);
	pc_tick(pc, due);
	assert_int_equal(seen.interrupts, 1);
	assert_int_equal(seen.last.vector, 0x30);
	pc_tick(pc, pc_deadline(pc));
	assert_int_equal(seen.interrupts, 2);
}

static void cmos_write(uint8_t reg, uint8_t value)
{
	outp(0x70, 1, reg);
	outp(0x71, 1, value);
}

/* The clock's alarm, every second, as an event of ACPI: an SCI for as long as it is there. */
static void test_sci(void **state)
{
	(void)state;
	set_pin(9, 0x29 | 0x8000);
	outp(0x602, 2, 0x0400);
	for (uint8_t reg = 1; reg <= 5; reg += 2) /* any second, minute, hour */
		cmos_write(reg, 0xff);
	cmos_write(0x0b, 0x22);
	for (int i = 0; i < 10 && !seen.interrupts; i++)
		pc_tick(pc, pc_deadline(pc));
	assert_int_equal(seen.interrupts, 1);
	assert_int_equal(seen.last.vector, 0x29);
	assert_int_equal(seen.last.level, 1);
	pc_eoi(pc, 0x29); /* still there for all we know */
	assert_int_equal(seen.interrupts, 2);
	assert_int_equal(in(0x600, 2), 0x0400);
	outp(0x600, 2, 0x0400);
	pc_eoi(pc, 0x29);
	assert_int_equal(seen.interrupts, 2);
}

static void test_resets(void **state)
{
	(void)state;
	outp(0xcf9, 1, 0x02);
	assert_int_equal(seen.resets, 0);
	outp(0xcf9, 1, 0x0e);
	assert_int_equal(seen.resets, 1);
	assert_int_equal(seen.why, PC_RESET_COLD);
	outp(0xcf9, 1, 0x06);
	assert_int_equal(seen.resets, 2);
	assert_int_equal(seen.why, PC_RESET_WARM);
	outp(0xcf9, 1, 0x04); /* without the bit for the whole machine: it is the CPUs' reset */
	assert_int_equal(seen.resets, 3);
	assert_int_equal(seen.why, PC_RESET_WARM);
	outp(0x64, 1, 0xfe);
	assert_int_equal(seen.resets, 4);
	assert_int_equal(seen.why, PC_RESET_COLD);
	outp(0x64, 1, 0xaa);
	assert_int_equal(seen.resets, 4);
	outp(0x604, 2, 0x2000 | 5 << 10);
	assert_int_equal(seen.power_offs, 1);
	outp(0x604, 2, 0x2000 | 1 << 10);
	assert_int_equal(seen.power_offs, 1);
}

static void test_pci(void **state)
{
	(void)state;
	outp(0xcf8, 4, 0x80000000);
	assert_int_equal(in(0xcf8, 4), 0x80000000);
	assert_int_equal(in(0xcfc, 4), 0x00081b36);
	assert_int_equal(in(0xcfe, 2), 0x0008);
	outp(0xcf8, 4, 0x80000008);
	assert_int_equal(in(0xcfe, 2), 0x0600); /* host bridge */
	outp(0xcf8, 4, 0x8000003c);
	assert_int_equal(in(0xcfc, 4), 0);
	outp(0xcfc, 4, 0xffffffff);
	assert_int_equal(in(0xcfc, 4), 0);
	for (uint32_t device = 1; device < 32; device++) {
		outp(0xcf8, 4, 0x80000000 | device << 11);
		assert_int_equal(in(0xcfc, 4), 0xffffffff);
	}
	outp(0xcf8, 4, 0x80000100);
	assert_int_equal(in(0xcfc, 4), 0xffffffff);
	outp(0xcf8, 4, 0); /* not enabled */
	assert_int_equal(in(0xcfc, 4), 0xffffffff);
	outp(0xcf8, 4, 0x80000000);
	outp(0xcfb, 1, 0x01); /* a probe for the other mechanism changes nothing */
	assert_int_equal(in(0xcf8, 4), 0x80000000);
	assert_int_equal(seen.resets, 0);
}

static void test_pic(void **state)
{
	(void)state;
	assert_int_equal(in(0x21, 1), 0xff);
	outp(0x21, 1, 0xfb);
	assert_int_equal(in(0x21, 1), 0xfb); /* how guests see that it is there */
	outp(0x20, 1, 0x11);
	outp(0x21, 1, 0x30);
	outp(0x21, 1, 0x04);
	outp(0x21, 1, 0x01);
	outp(0x21, 1, 0xab);
	assert_int_equal(in(0x21, 1), 0xab);
	assert_int_equal(in(0x20, 1), 0);
	outp(0xa1, 1, 0x55);
	assert_int_equal(in(0xa1, 1), 0x55);
	outp(0x4d0, 2, 0x0c20);
	assert_int_equal(in(0x4d0, 2), 0x0c20);
}

static void test_rtc(void **state)
{
	(void)state;
	outp(0x70, 1, 0);
	assert_int_equal(in(0x71, 1), 0x20); /* 1700000000 is 22:13:20 */
	outp(0x70, 1, 4);
	assert_int_equal(in(0x71, 1), 0x22);
}

static uint32_t some_port(void)
{
	static const uint16_t bases[] = { 0x20,	 0x40,	0x60,  0x70,  0xa0,
					  0x2f8, 0x3f8, 0x4d0, 0x600, 0xcf8 };

	return rand() % 8 ? bases[rand() % 10] + (uint32_t)rand() % 12 : (uint32_t)rand() & 0xffff;
}

static void test_fuzz(void **state)
{
	static const uint8_t sizes[] = { 1, 2, 4 };
	uint8_t data[64 * 8];

	(void)state;
	srand(13);
	for (int round = 0; round < 300000; round++) {
		struct pc_access access = { some_port(), 1 + (uint32_t)rand() % 64,
					    sizes[rand() % 3], rand() & 1, data };

		for (size_t i = 0; i < sizeof(data); i += 16)
			data[i] = (uint8_t)rand();
		now += (uint64_t)rand() >> (rand() % 31);
		if (rand() % 4) {
			if (rand() % 16)
				access.count = 1;
			if (!pc_io_local(&access, now))
				pc_io(pc, &access, now);
		} else {
			access.address = IOAPIC_GPA + (uint32_t)rand() % 5 * 0x10;
			access.count = 1;
			access.size = (uint8_t)(1 + rand() % 8);
			pc_mmio(pc, &access, now);
		}
		pc_eoi(pc, (uint8_t)rand());
		if (rand() % 16 == 0)
			pc_serial_input(pc, rand() & 1 ? PC_CONSOLE : PC_COMMAND, data, 8, now);
		pc_tick(pc, now);
		assert_true(pc_deadline(pc) > now);
	}
	assert_true(seen.interrupts && seen.outputs && seen.resets);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_nobody),
		TEST(test_mmio),
		TEST(test_local),
		TEST(test_output),
		TEST(test_output_that_nobody_takes),
		TEST(test_output_that_overruns),
		TEST(test_input_interrupt),
		TEST(test_output_interrupts),
		TEST(test_pit_interrupt),
		TEST(test_sci),
		TEST(test_resets),
		TEST(test_pci),
		TEST(test_pic),
		TEST(test_rtc),
		TEST(test_fuzz),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
