/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio's registers (virtio 1.2, 4.1), driven as a driver would: found by its capabilities, brought
 * up by 3.1.1, its queues, vectors and doorbells, a reset that takes its time; and drivers that do
 * what they must not.
 */
#include "tests/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "machine/virtio_pci.h"

#define HIGH_GPA   0x4000000000ull
#define HIGH_BYTES 0x1000000000ull
#define FEATURES   (VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC | 1ull << 5)
#define OFFERED	   (FEATURES | VIRTIO_F_VERSION_1)
#define OK	   0x0fu /* ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK */

static struct pci pci;
static struct virtio_pci device;
static uint64_t bar;
static struct {
	uint32_t interrupts, doorbells, publications;
	struct interrupt interrupt;
	uint16_t queue;
	struct virtio_published published;
} seen;

static void on_interrupt(void *ctx, const struct interrupt *interrupt)
{
	struct vcpu_set set;

	assert_ptr_equal(ctx, &seen);
	assert_int_equal(interrupt_route(interrupt, VCPUS_MAX, &set), 0);
	seen.interrupt = *interrupt;
	seen.interrupts++;
}

static void on_doorbell(void *ctx, uint8_t number, uint16_t queue)
{
	assert_ptr_equal(ctx, &seen);
	assert_int_equal(number, 2);
	seen.queue = queue;
	seen.doorbells++;
}

static void on_published(void *ctx, const struct virtio_published *published)
{
	assert_ptr_equal(ctx, &seen);
	seen.published = *published;
	seen.publications++;
}

static const struct virtio_pci_ops ops = { on_interrupt, on_doorbell, on_published };

static struct virtio_offer offer_of(void)
{
	struct virtio_offer offer = { .kind = VIRTIO_KIND_BLOCK,
				      .queue_count = 4,
				      .queue_size = 256,
				      .features = FEATURES,
				      .config_bytes = 60 };

	for (uint8_t i = 0; i < offer.config_bytes; i++)
		offer.config[i] = i;
	offer.config_writable[32] = 0x01;
	return offer;
}

/* ---- what a driver does ---------------------------------------------------------------------- */

static uint64_t ecam(uint32_t reg, uint8_t size)
{
	struct pci_access access = { .size = size };

	pci_config(&pci, 3u << 15 | reg, &access);
	return access.value;
}

static void write_ecam(uint32_t reg, uint8_t size, uint64_t value)
{
	struct pci_access access = { .size = size, .write = true, .value = value };

	pci_config(&pci, 3u << 15 | reg, &access);
}

static uint64_t get(uint32_t offset, uint8_t size)
{
	struct pci_access access = { .size = size };

	assert_true(pci_memory(&pci, bar + offset, &access));
	return access.value;
}

static void put(uint32_t offset, uint8_t size, uint64_t value)
{
	struct pci_access access = { .size = size, .write = true, .value = value };

	assert_true(pci_memory(&pci, bar + offset, &access));
}

/* The first capability with this id and, if it is virtio's, this type. */
static uint32_t capability(uint8_t id, uint8_t type)
{
	for (uint32_t at = (uint32_t)ecam(0x34, 1); at; at = (uint32_t)ecam(at + 1, 1)) {
		if (ecam(at, 1) == id && (id != 9 || ecam(at + 3, 1) == type))
			return at;
	}
	return 0;
}

static uint64_t features(void)
{
	uint64_t value;

	put(0x00, 4, 1);
	value = get(0x04, 4) << 32;
	put(0x00, 4, 0);
	return value | get(0x04, 4);
}

static void agree(uint64_t value)
{
	for (uint32_t half = 0; half < 2; half++) {
		put(0x08, 4, half);
		put(0x0c, 4, (uint32_t)(value >> half * 32));
	}
}

static void set_entry(uint16_t vector, uint64_t address, uint32_t data, uint32_t control)
{
	uint32_t at = VIRTIO_PCI_TABLE + vector * 16u;

	put(at, 4, (uint32_t)address);
	put(at + 4, 4, address >> 32);
	put(at + 8, 4, data);
	put(at + 12, 4, control);
}

static void set_queue(uint16_t queue, uint16_t vector)
{
	put(0x16, 2, queue);
	put(0x1a, 2, vector);
	put(0x20, 4, 0x10000u * (queue + 1u));
	put(0x24, 4, queue);
	put(0x28, 8, 0x20000u * (queue + 1u));
	put(0x30, 8, 0x30000u * (queue + 1u));
	put(0x1c, 2, 1);
}

/* 3.1.1; vector 0 for the configuration, then one a queue, to vCPU = vector. */
static void bring_up(void)
{
	write_ecam(4, 2, 0x0006);
	put(0x14, 1, 0);
	assert_int_equal(get(0x14, 1), 0);
	put(0x14, 1, 1);
	put(0x14, 1, 3);
	agree(OFFERED);
	put(0x14, 1, 0x0b);
	assert_int_equal(get(0x14, 1), 0x0b);
	write_ecam(capability(0x11, 0) + 2, 2, 0x8000);
	for (uint16_t vector = 0; vector < 5; vector++)
		set_entry(vector, 0xfee00000u + vector * 0x1000u, 0x40u + vector, 0);
	put(0x10, 2, 0);
	for (uint16_t queue = 0; queue < 4; queue++)
		set_queue(queue, queue + 1u);
	put(0x14, 1, OK);
	assert_int_equal(get(0x14, 1), OK);
}

static int set_up(void **state)
{
	struct virtio_offer offer = offer_of();

	(void)state;
	memset(&seen, 0, sizeof(seen));
	pci_reset(&pci, HIGH_GPA, HIGH_BYTES);
	if (virtio_pci_add(&device, &pci, 2, &offer, &ops, &seen))
		return -1;
	bar = pci_bar_gpa(device.function, 0);
	return 0;
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void test_offers(void **state)
{
	struct virtio_offer bad[7];

	(void)state;
	for (int i = 0; i < 7; i++)
		bad[i] = offer_of();
	bad[0].kind = 0;
	bad[1].queue_count = 0;
	bad[2].queue_count = VIRTIO_QUEUES_MAX + 1;
	bad[3].queue_size = 100;
	bad[4].queue_size = 2048;
	bad[5].config_bytes = VIRTIO_CONFIG_MAX + 1;
	bad[6].features = 1ull << 38;
	for (int i = 0; i < 7; i++)
		assert_int_equal(virtio_pci_add(&device, &pci, 5, &bad[i], &ops, &seen), -EINVAL);
	bad[0] = offer_of();
	assert_int_equal(virtio_pci_add(&device, &pci, VIRTIO_DEVICES_MAX, &bad[0], &ops, &seen),
			 -EINVAL);
	/* the largest there may be, in the last slot */
	bad[0].queue_count = VIRTIO_QUEUES_MAX;
	bad[0].queue_size = VIRTIO_QUEUE_SIZE_MAX;
	bad[0].config_bytes = VIRTIO_CONFIG_MAX;
	assert_int_equal(
		virtio_pci_add(&device, &pci, VIRTIO_DEVICES_MAX - 1, &bad[0], &ops, &seen), 0);
	assert_true(VIRTIO_PCI_TABLE + VIRTIO_VECTORS_MAX * 16 <= VIRTIO_PCI_PENDING);
	assert_true(VIRTIO_PCI_NOTIFY + VIRTIO_QUEUES_MAX * 4 <= VIRTIO_PCI_BYTES);
}

/* 4.1.2, 4.1.4 */
static void test_found(void **state)
{
	static const struct {
		uint8_t type;
		uint32_t offset, length, bytes;
	} expected[] = {
		{ 1, VIRTIO_PCI_COMMON, 0x38, 16 },
		{ 2, VIRTIO_PCI_NOTIFY, 16, 20 },
		{ 3, VIRTIO_PCI_ISR, 1, 16 },
		{ 4, VIRTIO_PCI_CONFIG, 60, 16 },
		{ 5, 0, 0, 20 },
	};
	uint32_t at;

	(void)state;
	assert_int_equal(ecam(0, 4), 0x10421af4);
	assert_int_equal(ecam(8, 4), 0x01000001);
	assert_int_equal(ecam(0x2e, 2), 0x40);
	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
		at = capability(9, expected[i].type);
		assert_int_not_equal(at, 0);
		assert_int_equal(ecam(at + 2, 1), expected[i].bytes);
		assert_int_equal(ecam(at + 4, 1), 0); /* the BAR */
		assert_int_equal(ecam(at + 8, 4), expected[i].offset);
		assert_int_equal(ecam(at + 12, 4), expected[i].length);
	}
	assert_int_equal(ecam(capability(9, 2) + 16, 4), 4);
	at = capability(0x11, 0);
	assert_int_equal(ecam(at + 2, 2), 4); /* 5 vectors */
	assert_int_equal(ecam(at + 4, 4), VIRTIO_PCI_TABLE);
	assert_int_equal(ecam(at + 8, 4), VIRTIO_PCI_PENDING);
	assert_int_not_equal(capability(0x10, 0), 0);
	assert_int_not_equal(capability(0x01, 0), 0);
}

static void test_bring_up(void **state)
{
	const struct virtio_published *published = &seen.published;

	(void)state;
	write_ecam(4, 2, 2);
	assert_true(features() == OFFERED);
	assert_int_equal(get(0x12, 2), 4);
	put(0x16, 2, 4); /* 4.1.4.3.1: no such queue */
	assert_int_equal(get(0x18, 2), 0);
	put(0x16, 2, 3);
	assert_int_equal(get(0x18, 2), 256);
	assert_int_equal(get(0x1e, 2), 3);
	put(0x18, 2, 64);
	put(0x18, 2, 100); /* no power of 2 */
	put(0x18, 2, 512); /* more than it has */
	put(0x18, 2, 0);
	assert_int_equal(get(0x18, 2), 64);
	put(0x14, 1, 0);
	assert_int_equal(get(0x18, 2), 256);
	bring_up();
	assert_int_equal(seen.publications, 1);
	assert_true(published->running && published->msix);
	assert_int_equal(published->device, 2);
	assert_true(published->features == OFFERED);
	assert_true(published->notify_gpa == bar + VIRTIO_PCI_NOTIFY);
	assert_int_equal(published->queue_count, 4);
	assert_int_equal(published->vector_count, 5);
	assert_int_equal(published->config_vector, 0);
	for (uint16_t i = 0; i < 4; i++) {
		assert_true(published->queue[i].enabled);
		assert_int_equal(published->queue[i].size, 256);
		assert_int_equal(published->queue[i].vector, i + 1);
		assert_true(published->queue[i].desc == (0x10000u * (i + 1u) | (uint64_t)i << 32));
		assert_int_equal(published->queue[i].avail, 0x20000u * (i + 1u));
		assert_int_equal(published->queue[i].used, 0x30000u * (i + 1u));
		assert_int_equal(published->vector[i].address, 0xfee00000u + i * 0x1000u);
		assert_int_equal(published->vector[i].data, 0x40u + i);
		assert_false(published->vector[i].masked);
	}
	for (uint16_t i = 0; i < 4; i++) {
		put(VIRTIO_PCI_NOTIFY + i * 4u, 2, i);
		assert_int_equal(seen.queue, i);
	}
	put(VIRTIO_PCI_NOTIFY + 16, 2, 4);
	assert_int_equal(seen.doorbells, 4);
	assert_int_equal(get(VIRTIO_PCI_NOTIFY, 4), 0);
}

/* 2.2.2, 3.1.1: features that are not offered, or without VERSION_1, are refused. */
static void test_features(void **state)
{
	(void)state;
	write_ecam(4, 2, 6);
	put(0x14, 1, 3);
	agree(OFFERED | 1ull << 50);
	put(0x14, 1, 0x0b);
	assert_int_equal(get(0x14, 1), 3);
	put(0x14, 1, 0x0f); /* nor is it ready then */
	assert_int_equal(get(0x14, 1), 3);
	agree(FEATURES);
	put(0x14, 1, 0x0b);
	assert_int_equal(get(0x14, 1), 3);
	agree(VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX);
	put(0x14, 1, 0x0b);
	assert_int_equal(get(0x14, 1), 0x0b);
	agree(OFFERED); /* too late */
	put(0x08, 4, 0);
	assert_int_equal(get(0x0c, 4), VIRTIO_F_EVENT_IDX);
	put(0x08, 4, 7);
	assert_int_equal(get(0x0c, 4), 0);
	put(0x0c, 4, 0xffffffff);
	put(0x14, 1, 0x0f);
	assert_true(seen.published.features == (VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX));
	put(0x14, 1, 3); /* bits go by a reset only */
	assert_int_equal(get(0x14, 1), 0x0f);
	put(0x14, 1, 0x8f);
	assert_false(seen.published.running);
}

/* An enabled queue is where it is (4.1.4.3.2); fields are written by their own width (4.1.3.1). */
static void test_fields(void **state)
{
	static const struct {
		uint32_t at;
		uint8_t size;
	} wrong[] = { { 0x18, 4 }, { 0x18, 1 }, { 0x20, 2 }, { 0x22, 4 }, { 0x24, 8 },
		      { 0x30, 1 }, { 0x38, 4 }, { 0x3c, 8 }, { 0x14, 2 }, { 0x14, 4 } };

	(void)state;
	bring_up();
	put(0x16, 2, 1);
	put(0x18, 2, 16);
	put(0x20, 8, 0);
	put(0x28, 4, 0);
	put(0x34, 4, 1);
	put(0x1c, 2, 0);
	assert_int_equal(get(0x18, 2), 256);
	assert_int_equal(get(0x1c, 2), 1);
	assert_true(get(0x20, 8) == (0x20000 | 1ull << 32));
	assert_int_equal(get(0x28, 4), 0x40000);
	assert_int_equal(get(0x30, 8), 0x60000);
	put(0x1a, 2, 5); /* no such vector: none (4.1.5.1.2.1) */
	assert_int_equal(get(0x1a, 2), VIRTIO_NO_VECTOR);
	assert_int_equal(seen.published.queue[1].vector, VIRTIO_NO_VECTOR);
	put(0x1a, 2, 4);
	assert_int_equal(seen.published.queue[1].vector, 4);
	put(0x14, 1, 0);
	virtio_pci_stopped(&device, seen.published.generation);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		put(wrong[i].at, wrong[i].size, 0x0101010101010101 & 0xffffffff);
	assert_int_equal(get(0x14, 1), 0);
	assert_int_equal(get(0x18, 2), 256);
	assert_int_equal(get(0x20, 8) | get(0x30, 8), 0);
	assert_int_equal(get(0x38, 8), 0);
	assert_int_equal(get(0xff8, 8), 0);
}

/* 2.4.2: the driver sees the end of the reset when its memory is let go of. */
static void test_reset(void **state)
{
	uint64_t generation;

	(void)state;
	bring_up();
	generation = seen.published.generation;
	put(0x14, 1, 0);
	assert_int_equal(seen.publications, 2);
	assert_false(seen.published.running);
	assert_true(seen.published.generation > generation);
	assert_int_equal(get(0x14, 1), OK);
	assert_false(seen.published.queue[0].enabled);
	/* who does not wait is not heard */
	put(0x14, 1, 1);
	put(0x14, 1, 0);
	set_queue(0, 1);
	put(VIRTIO_PCI_NOTIFY, 2, 0);
	assert_int_equal(get(0x14, 1), OK);
	assert_int_equal(seen.publications, 2);
	assert_int_equal(seen.doorbells, 0);
	virtio_pci_stopped(&device, generation); /* an old word */
	assert_int_equal(get(0x14, 1), OK);
	virtio_pci_stopped(&device, seen.published.generation);
	assert_int_equal(get(0x14, 1), 0);
	assert_int_equal(get(0x1c, 2), 0);
	assert_int_equal(get(0x1a, 2), VIRTIO_NO_VECTOR);
	/* one that was never started is reset at once, and nobody hears of it */
	put(0x14, 1, 3);
	put(0x14, 1, 0);
	assert_int_equal(get(0x14, 1), 0);
	assert_int_equal(seen.publications, 2);
	generation = seen.published.generation;
	bring_up();
	assert_true(seen.published.running && seen.published.generation > generation);
	virtio_pci_stopped(&device, seen.published.generation); /* it is not stopping */
	assert_int_equal(get(0x14, 1), OK);
}

/* A bus master that is one no longer touches nothing; a BAR that is gone has no doorbells. */
static void test_command(void **state)
{
	uint64_t generation;

	(void)state;
	bring_up();
	generation = seen.published.generation;
	/* Asleep (D3hot) and awake again: it goes on. */
	write_ecam(capability(0x01, 0) + 4, 2, 3);
	assert_false(seen.published.running);
	write_ecam(capability(0x01, 0) + 4, 2, 0);
	assert_true(seen.published.running);
	write_ecam(4, 2, 2);
	assert_false(seen.published.running);
	assert_true(seen.published.vector[1].masked);
	assert_int_equal(seen.published.generation, generation);
	put(VIRTIO_PCI_NOTIFY, 2, 0);
	assert_int_equal(seen.doorbells, 0);
	/* Given back, as the next kernel does before it resets the device. */
	write_ecam(4, 2, 6);
	assert_false(seen.published.running || seen.published.vector[1].masked);
	put(0x14, 1, OK);
	assert_int_equal(get(0x14, 1), OK & ~4);
	put(VIRTIO_PCI_NOTIFY, 2, 0);
	assert_int_equal(seen.doorbells, 0);
	put(0x14, 1, 0);
	virtio_pci_stopped(&device, seen.published.generation);
	bring_up();
	assert_true(seen.published.running && seen.published.generation > generation);
	write_ecam(4, 2, 4);
	assert_int_equal(seen.published.notify_gpa, 0);
	write_ecam(4, 2, 6);
	write_ecam(0x10, 4, 0xd0000000);
	write_ecam(0x14, 4, 0);
	assert_int_equal(seen.published.notify_gpa, 0xd0000000 + VIRTIO_PCI_NOTIFY);
	bar = 0xd0000000;
	put(VIRTIO_PCI_NOTIFY + 4, 2, 1);
	assert_int_equal(seen.queue, 1);
}

/* PCI 3.0, 6.8.2 */
static void test_msix(void **state)
{
	uint32_t control = capability(0x11, 0) + 2;

	(void)state;
	bring_up();
	virtio_pci_needs_reset(&device, seen.published.generation);
	assert_int_equal(seen.interrupts, 1);
	assert_int_equal(seen.interrupt.vector, 0x40);
	assert_int_equal(seen.interrupt.dest, 0);
	/* masked by its bit: pending, and sent when it is not any more */
	put(VIRTIO_PCI_TABLE + 12, 4, 1);
	assert_true(seen.published.vector[0].masked && !seen.published.vector[1].masked);
	virtio_pci_needs_reset(&device, seen.published.generation);
	virtio_pci_needs_reset(&device, seen.published.generation);
	assert_int_equal(seen.interrupts, 1);
	assert_int_equal(get(VIRTIO_PCI_PENDING, 8), 1);
	put(VIRTIO_PCI_PENDING, 8, 0xff);
	assert_int_equal(get(VIRTIO_PCI_PENDING, 4), 1);
	put(VIRTIO_PCI_TABLE + 12, 4, 0xfffffffe);
	assert_int_equal(get(VIRTIO_PCI_TABLE + 12, 4), 0);
	assert_int_equal(seen.interrupts, 2);
	assert_int_equal(get(VIRTIO_PCI_PENDING, 1), 0);
	/* masked for the function */
	write_ecam(control, 2, 0xc000);
	assert_true(seen.published.vector[0].masked && seen.published.vector[4].masked);
	virtio_pci_needs_reset(&device, seen.published.generation);
	assert_int_equal(seen.interrupts, 2);
	write_ecam(control, 2, 0x8000);
	assert_int_equal(seen.interrupts, 3);
	/* off: nothing is sent, and nothing kept */
	write_ecam(control, 2, 0);
	assert_false(seen.published.msix);
	virtio_pci_needs_reset(&device, seen.published.generation);
	write_ecam(control, 2, 0x8000);
	assert_int_equal(seen.interrupts, 3);
	assert_int_equal(get(VIRTIO_PCI_ISR, 1), 2);
	assert_int_equal(get(VIRTIO_PCI_ISR, 1), 0);
	/* entries by quad words; bytes and words change nothing */
	put(VIRTIO_PCI_TABLE + 16, 8, 0x00000000fee0700full);
	put(VIRTIO_PCI_TABLE + 24, 8, 0x0000000100000055ull);
	put(VIRTIO_PCI_TABLE + 24, 2, 0x1111);
	put(VIRTIO_PCI_TABLE + 26, 4, 0x11111111);
	assert_int_equal(get(VIRTIO_PCI_TABLE + 16, 8), 0xfee0700c);
	assert_true(get(VIRTIO_PCI_TABLE + 24, 8) == 0x0000000100000055ull);
	put(VIRTIO_PCI_TABLE + 80, 8, UINT64_MAX); /* the sixth of five */
	assert_int_equal(get(VIRTIO_PCI_TABLE + 80, 8), 0);
	put(0x10, 2, 9);
	virtio_pci_needs_reset(&device, seen.published.generation);
	assert_int_equal(seen.interrupts, 3);
}

/* SDM vol. 3, 11.11; KVM's MSI_EXT_DEST_ID */
static void test_messages(void **state)
{
	struct interrupt interrupt;

	(void)state;
	assert_true(msi_interrupt(0xfee12004, 0x4131, &interrupt));
	assert_int_equal(interrupt.dest, 0x12);
	assert_int_equal(interrupt.logical, 1);
	assert_int_equal(interrupt.mode, INTERRUPT_LOWEST);
	assert_int_equal(interrupt.vector, 0x31);
	assert_int_equal(interrupt.level, 0);
	assert_int_equal(interrupt.source, INTERRUPT_SOURCE_DEVICE);
	assert_true(msi_interrupt(0xfee2c020, 0x0031, &interrupt)); /* vCPU 300 */
	assert_int_equal(interrupt.dest, 300);
	assert_true(msi_interrupt(0xfee00000, 0x8400, &interrupt));
	assert_int_equal(interrupt.mode, INTERRUPT_NMI);
	assert_int_equal(interrupt.level, 0);
	assert_false(msi_interrupt(0x1fee00000, 0x31, &interrupt));
	assert_false(msi_interrupt(0xfed00000, 0x31, &interrupt));
	assert_false(msi_interrupt(0, 0, &interrupt));
	for (uint32_t mode = 2; mode < 8; mode++)
		assert_int_equal(msi_interrupt(0xfee00000, mode << 8 | 0x31, &interrupt),
				 mode == INTERRUPT_NMI);
}

static void test_config(void **state)
{
	(void)state;
	write_ecam(4, 2, 6);
	assert_int_equal(get(VIRTIO_PCI_CONFIG, 4), 0x03020100);
	assert_int_equal(get(VIRTIO_PCI_CONFIG + 56, 8), 0x3b3a3938); /* 60 bytes of it */
	put(VIRTIO_PCI_CONFIG, 8, UINT64_MAX);
	assert_int_equal(get(VIRTIO_PCI_CONFIG, 4), 0x03020100);
	bring_up();
	put(VIRTIO_PCI_CONFIG + 32, 1, 0xff);
	assert_int_equal(get(VIRTIO_PCI_CONFIG + 32, 1), 33);
	assert_int_equal(seen.publications, 2);
	assert_int_equal(seen.published.config[32], 33);
	assert_int_equal(get(0x15, 1), 0); /* the generation: it never changes */
	assert_int_equal(seen.interrupts, 0);
	virtio_pci_needs_reset(&device, seen.published.generation - 1);
	assert_int_equal(get(0x14, 1), OK);
	virtio_pci_needs_reset(&device, seen.published.generation);
	assert_int_equal(get(0x14, 1), OK | VIRTIO_STATUS_NEEDS_RESET);
	assert_int_equal(seen.interrupts, 1);
	put(0x14, 1, 0);
	virtio_pci_stopped(&device, seen.published.generation);
	assert_int_equal(get(0x14, 1), 0);
}

/* 4.1.4.9: the BAR by configuration space alone. */
static void test_window(void **state)
{
	uint32_t at = capability(9, 5);

	(void)state;
	write_ecam(at + 4, 1, 0);
	write_ecam(at + 8, 4, 0x12);
	write_ecam(at + 12, 4, 2);
	assert_int_equal(ecam(at + 16, 2), 4); /* num_queues */
	write_ecam(at + 8, 4, 0x16);
	write_ecam(at + 16, 2, 3);
	write_ecam(at + 8, 4, 0x1e);
	assert_int_equal(ecam(at + 16, 2), 3);
	write_ecam(at + 8, 4, 0x14);
	write_ecam(at + 12, 4, 1);
	write_ecam(at + 16, 1, 3);
	assert_int_equal(ecam(at + 16, 1), 3);
	/* nonsense is without effect */
	write_ecam(at + 12, 4, 3);
	write_ecam(at + 16, 4, 0);
	write_ecam(at + 12, 4, 1);
	write_ecam(at + 4, 1, 1);
	write_ecam(at + 16, 4, 0);
	write_ecam(at + 4, 1, 0);
	write_ecam(at + 8, 4, 0xfffffff8);
	write_ecam(at + 16, 4, 0);
	ecam(at + 16, 4);
	write_ecam(4, 2, 2);
	assert_int_equal(get(0x14, 1), 3);
}

static bool has_lspci(void)
{
	return system("lspci --version >/dev/null 2>&1") == 0;
}

/* The configuration space, as `lspci -x` has it. */
static void write_hex(const char *path)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	fprintf(file, "00:03.0 device");
	for (uint32_t at = 0; at < 256; at++) {
		if (at % 16 == 0)
			fprintf(file, "\n%02x:", at);
		fprintf(file, " %02x", (unsigned int)ecam(at, 1));
	}
	fprintf(file, "\n\n");
	assert_int_equal(fclose(file), 0);
}

/* What lspci -vv makes of a device in use (Debian: pciutils). */
static void test_lspci(void **state)
{
	static const char *const lines[] = {
		"SCSI storage controller: Red Hat, Inc. Virtio 1.0 block device (rev 01)",
		"Control: I/O- Mem+ BusMaster+ ",
		"Status: Cap+ ",
		"Region 0: Memory at 4000000000 (64-bit, prefetchable)",
		"VirtIO: CommonCfg",
		"VirtIO: Notify",
		"BAR=0 offset=00004000 size=00000010 multiplier=00000004",
		"VirtIO: ISR",
		"VirtIO: DeviceCfg",
		"MSI-X: Enable+ Count=5 Masked-",
		"Vector table: BAR=0 offset=00003000",
		"PBA: BAR=0 offset=00003800",
		"Power Management version 3",
		"Status: D0 NoSoftRst+ ",
		"Express (v2) Root Complex Integrated Endpoint, MSI 00",
		"MaxPayload 128 bytes, MaxReadReq 512 bytes",
	};
	static char text[16384];
	char path[] = "/tmp/eagre-lspci.XXXXXX", command[128];
	FILE *lspci;
	int fd;

	(void)state;
	if (!has_lspci())
		skip();
	bring_up();
	fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	write_hex(path);
	snprintf(command, sizeof(command), "lspci -F %s -vv 2>/dev/null", path);
	lspci = popen(command, "r");
	assert_non_null(lspci);
	text[fread(text, 1, sizeof(text) - 1, lspci)] = '\0';
	assert_int_equal(pclose(lspci), 0);
	assert_int_equal(unlink(path), 0);
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		if (!strstr(text, lines[i]))
			fail_msg("no '%s' in:\n%s", lines[i], text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_offers, set_up),
		cmocka_unit_test_setup(test_found, set_up),
		cmocka_unit_test_setup(test_bring_up, set_up),
		cmocka_unit_test_setup(test_features, set_up),
		cmocka_unit_test_setup(test_fields, set_up),
		cmocka_unit_test_setup(test_reset, set_up),
		cmocka_unit_test_setup(test_command, set_up),
		cmocka_unit_test_setup(test_msix, set_up),
		cmocka_unit_test_setup(test_messages, set_up),
		cmocka_unit_test_setup(test_config, set_up),
		cmocka_unit_test_setup(test_window, set_up),
		cmocka_unit_test_setup(test_lspci, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
