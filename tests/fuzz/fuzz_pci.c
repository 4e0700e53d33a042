// SPDX-License-Identifier: Apache-2.0
/*
 * Fuzzes PCI and the registers of virtio devices: a driver that writes anything anywhere.
 *
 *   input: operations of 12 bytes: what | device | size | flags | offset (4 bytes) | value (4 bytes)
 *
 * Accesses go to configuration space (ECAM and ports), to where the fuzzer knows the device's base
 * address to be, or to any address; in between the other side says that it has stopped, that its
 * configuration has changed, or that it wants a reset. Judged: what is published keeps the promises
 * of virtio/published.h, doorbells and interrupts are ones that may be, generations never go back;
 * and the sanitizers.
 */
#include <stdlib.h>
#include <string.h>

#include "core/limits.h"
#include "machine/memory_map.h"
#include "machine/pc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DEVICES	   3u
#define HIGH_GPA   0x4000000000ull
#define HIGH_BYTES 0x40000ull
#define BAR_BYTES  0x8000u

static const struct virtio_offer offers[DEVICES] = {
	{ .kind = VIRTIO_KIND_BLOCK,
	  .queue_count = 4,
	  .queue_size = 256,
	  .config_bytes = 60,
	  .features = 0xff,
	  .config_writable = { [32] = 1 } },
	{ .kind = VIRTIO_KIND_NET,
	  .queue_count = VIRTIO_QUEUES_MAX,
	  .queue_size = VIRTIO_QUEUE_SIZE_MAX,
	  .config_bytes = VIRTIO_CONFIG_MAX,
	  .features = VIRTIO_F_EVENT_IDX },
	{ .kind = VIRTIO_KIND_RNG, .queue_count = 1, .queue_size = 2 },
};

static struct {
	uint64_t generation[DEVICES];
	bool running[DEVICES];
} seen;

static void check(bool what)
{
	if (!what)
		abort();
}

static void on_interrupt(void *ctx, const struct interrupt *interrupt)
{
	struct vcpu_set set;

	(void)ctx;
	check(interrupt_route(interrupt, VCPUS_MAX, &set) == 0);
	check(interrupt->source == INTERRUPT_SOURCE_DEVICE);
}

static size_t taken;

static size_t on_output(void *ctx, enum pc_serial port, const uint8_t *bytes, size_t count)
{
	(void)ctx;
	(void)port;
	(void)bytes;
	/* By turns nothing, half and all of it. */
	return count * (taken++ % 3) / 2;
}

static void on_drain(void *ctx)
{
	(void)ctx;
}

static void on_power_off(void *ctx)
{
	(void)ctx;
}

static void on_reset(void *ctx, enum pc_reset why)
{
	(void)ctx;
	(void)why;
}

static void on_doorbell(void *ctx, uint8_t device, uint16_t queue)
{
	(void)ctx;
	check(device < DEVICES && queue < offers[device].queue_count);
	check(seen.running[device]);
}

static void on_published(void *ctx, const struct virtio_published *published)
{
	const struct virtio_offer *offer = &offers[published->device];

	(void)ctx;
	check(published->device < DEVICES);
	check(published->queue_count == offer->queue_count);
	check(published->vector_count == offer->queue_count + 1);
	check(published->generation >= seen.generation[published->device]);
	check(published->config_vector == VIRTIO_NO_VECTOR ||
	      published->config_vector < published->vector_count);
	check(published->notify_gpa % PAGE_BYTES == 0);
	if (published->running) {
		check(!(published->features & ~(offer->features | VIRTIO_F_VERSION_1)));
		check(published->features & VIRTIO_F_VERSION_1);
	}
	for (uint16_t i = 0; i < published->queue_count; i++) {
		const struct virtio_published_queue *queue = &published->queue[i];

		check(queue->size && queue->size <= offer->queue_size);
		check(!(queue->size & (queue->size - 1)));
		check(queue->vector == VIRTIO_NO_VECTOR || queue->vector < published->vector_count);
	}
	for (uint16_t i = 0; i < published->vector_count; i++)
		check(published->msix || published->vector[i].masked);
	for (uint32_t i = 0; i < VIRTIO_CONFIG_MAX; i++)
		check(!((published->config[i] ^ offer->config[i]) & ~offer->config_writable[i]) ||
		      i < 4);
	seen.generation[published->device] = published->generation;
	seen.running[published->device] = published->running;
}

static const struct pc_ops ops = {
	.interrupt = on_interrupt,
	.output = on_output,
	.drain = on_drain,
	.power_off = on_power_off,
	.reset = on_reset,
	.doorbell = on_doorbell,
	.published = on_published,
};

static void access_mmio(struct pc *pc, uint64_t gpa, uint8_t size, bool write, uint64_t value)
{
	struct pc_access access = { gpa, 1, size, write, (uint8_t *)&value };

	if (gpa < GPA_LIMIT)
		pc_mmio(pc, &access, 0);
}

static void access_port(struct pc *pc, uint32_t port, uint8_t size, bool write, uint32_t value)
{
	struct pc_access access = { port, 1, size, write, (uint8_t *)&value };

	pc_io(pc, &access, 0);
}

static uint64_t bar_of(struct pc *pc, uint8_t device)
{
	uint64_t value = 0;
	struct pc_access access = { PCI_ECAM_GPA + ((device + 1u) << 15) + 0x10, 1, 8, false,
				    (uint8_t *)&value };

	pc_mmio(pc, &access, 0);
	return value & ~0xfull;
}

static void step(struct pc *pc, const uint8_t *op)
{
	uint8_t device = op[1] % DEVICES, size = op[2] % 8 + 1;
	bool write = op[3] & 1;
	uint32_t offset, value, port_size = 1u << op[2] % 3;
	uint64_t wide;

	memcpy(&offset, op + 4, 4);
	memcpy(&value, op + 8, 4);
	wide = op[3] & 2 ? value | (uint64_t)value << 32 : value;
	switch (op[0] % 8) {
	case 0:
		access_mmio(pc, PCI_ECAM_GPA + ((device + 1u) << 15) + offset % 256, size, write,
			    wide);
		break;
	case 1:
	case 2:
		access_mmio(pc, bar_of(pc, device) + offset % BAR_BYTES, size, write, wide);
		break;
	case 3: /* common configuration, by widths that it takes */
		access_mmio(pc, bar_of(pc, device) + offset % 64, (uint8_t)(1u << op[2] % 4), write,
			    wide);
		break;
	case 4:
		access_mmio(pc, PCI_MMIO_BASE + (uint64_t)offset * (op[3] & 4 ? 1 : 4096), size,
			    write, wide);
		break;
	case 5:
		access_port(pc, 0xcf8, 4, true, 0x80000000 | (device + 1u) << 11 | (offset & 0xfc));
		access_port(pc, 0xcfc + (offset & 3 & ~(port_size - 1)), (uint8_t)port_size, write,
			    value);
		break;
	case 6:
		pc_device_stopped(pc, device, seen.generation[device] + (op[3] >> 7));
		break;
	case 7:
		pc_device_needs_reset(pc, device, seen.generation[device]);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pc_config config = { .device_count = DEVICES,
				    .device = offers,
				    .high_window = { HIGH_GPA, HIGH_BYTES } };
	struct pc *pc;

	memset(&seen, 0, sizeof(seen));
	if (pc_create(&config, &ops, NULL, &pc) < 0)
		abort();
	for (; size >= 12; data += 12, size -= 12)
		step(pc, data);
	pc_destroy(pc);
	return 0;
}
