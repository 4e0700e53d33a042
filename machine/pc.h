/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices of the machine, all of which live on node 0: I/O APIC, two serial ports, RTC, PIT,
 * ACPI registers, PCI with the registers of its virtio devices. It is pure: time is an argument,
 * outputs go through struct pc_ops.
 *
 *   fec00000      I/O APIC, 24 pins           3f8 irq 4   serial 0: the console
 *   20, a0, 4d0   i8259: vCPU 0, by LINT0     2f8 irq 3   serial 1: the command channel
 *   40..43, 61    PIT                         600..607    ACPI PM1 event, control; irq 9
 *   70, 71        RTC, irq 8                  608         ACPI PM timer       (every node)
 *   64 (write fe) reset                       80, ed      delay               (every node)
 *   cf8, cfc      PCI configuration           cf9         reset
 *
 * Reads of anything else give all ones; writes go nowhere.
 *
 * Single-threaded by contract: the caller serialises all calls of one pc. The ops are called from
 * within these calls and must not call back into the pc.
 */
#ifndef MACHINE_PC_H
#define MACHINE_PC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/interrupt_route.h"
#include "machine/memory_map.h"
#include "virtio/published.h"

enum pc_serial { PC_CONSOLE = 0, PC_COMMAND = 1, PC_SERIALS };

enum pc_reset {
	PC_RESET_COLD,
	PC_RESET_WARM, /* a kernel that has panicked, too, resets so (loader_cmdline()) */
};

struct pc_ops {
	void (*interrupt)(
		void *ctx,
		const struct interrupt *interrupt); /* from a device: route and deliver it */
	/* The guest has written this to a port, whatever becomes of it. NULL: nobody wants to know. */
	void (*wrote)(void *ctx, enum pc_serial port, uint8_t byte);
	/* How many were taken. After fewer than all, pc_output_room() when there is room again. */
	size_t (*output)(void *ctx, enum pc_serial port, const uint8_t *bytes, size_t count);
	/* Waits until there is room: before the guest's end. NULL: output() takes everything. */
	void (*drain)(void *ctx);
	void (*power_off)(void *ctx);
	void (*reset)(void *ctx, enum pc_reset why);
	/* Of virtio devices, by their place in pc_config.device; NULL where there are none. */
	void (*doorbell)(void *ctx, uint8_t device, uint16_t queue);
	void (*published)(void *ctx, const struct virtio_published *published);
};

struct pc_config {
	int64_t wall_epoch_s;		   /* UTC seconds since 1970 at pod clock 0 */
	uint32_t device_count;		   /* virtio devices, in slots 1.. of PCI's bus */
	const struct virtio_offer *device; /* copied */
	struct memory_range high_window;   /* memory_map_high_window() */
};

struct pc;

/* -ENOMEM, -EINVAL: a device's offer makes no sense. `ops` must stay. */
int pc_create(const struct pc_config *config, const struct pc_ops *ops, void *ctx,
	      struct pc **ret_pc);
void pc_destroy(struct pc *pc);

/* A port access of `count` items of `size` (1, 2, 4) bytes; reads fill data. Any value is safe. */
struct pc_access {
	uint64_t address; /* port or gpa */
	uint32_t count;	  /* MMIO: 1 */
	uint8_t size;	  /* MMIO: 1..8 */
	bool write;
	uint8_t *data; /* count * size bytes */
};
void pc_io(struct pc *pc, const struct pc_access *access, uint64_t now_ns);
void pc_mmio(struct pc *pc, const struct pc_access *access, uint64_t now_ns);

/* The end of a level-triggered interrupt (lapic_effect.eoi), from any node. */
void pc_eoi(struct pc *pc, uint8_t vector);

/* Input for a serial port. Returns how many bytes were taken: the queue is bounded, offer the rest
 * later. */
size_t pc_serial_input(struct pc *pc, enum pc_serial port, const uint8_t *bytes, size_t count,
		       uint64_t now_ns);
/* A BREAK on its line, behind the input. 1: taken; 0: offer it again. */
size_t pc_serial_break(struct pc *pc, enum pc_serial port);
/* How many bytes it would take now. */
size_t pc_serial_room(const struct pc *pc, enum pc_serial port);

/* output() takes more now. */
void pc_output_room(struct pc *pc);

/* What the other side of a virtio device has to say (machine/virtio_pci.h). */
void pc_device_needs_reset(struct pc *pc, uint8_t device, uint64_t generation);
void pc_device_stopped(struct pc *pc, uint8_t device, uint64_t generation);

/* ACPI's power button. False: the guest does not want to know of it (acpi_pm.h). */
bool pc_press_power_button(struct pc *pc);

/* Pod clock at which pc_tick() has something to do; UINT64_MAX: never. */
uint64_t pc_deadline(const struct pc *pc);
void pc_tick(struct pc *pc, uint64_t now_ns);

/*
 * Accesses that every node answers by itself, for they have no state: the ACPI PM timer, delay
 * ports, and ports and addresses where nobody is. Returns true, and fills data, if `access` is
 * such. Any thread.
 */
bool pc_io_local(const struct pc_access *access, uint64_t now_ns);
bool pc_mmio_local(const struct pc_access *access);

#endif
