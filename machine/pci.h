/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCI Express as a virtual machine has it: bus 0 alone, a host bridge at 00:00.0, and functions
 * beside it; configuration by ECAM (one bus, 1 MiB at PCI_ECAM_GPA) and by ports cf8/cfc alike; base
 * addresses anywhere in the two windows of machine/memory_map.h; MSI-X, no INTx. Pure (PCI Local Bus
 * 3.0; PCI Express Base 4.0).
 *
 *	pci_add()            what the function is, and its base address registers
 *	pci_capability()     appended to its list, before the guest runs
 *	pci_config()         an access of the guest's to configuration space
 *	pci_memory()         ... to an address that may be within a base address register
 *
 * A function's configuration space is bytes and a mask of those bits that the guest may write, so
 * any access by any width is safe; whoever is behind it is told what was written.
 *
 * Base addresses are assigned as firmware does, one behind the other in the 64-bit window.
 */
#ifndef MACHINE_PCI_H
#define MACHINE_PCI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PCI_FUNCTIONS	 32u /* slots: function 0 of each */
#define PCI_CONFIG_BYTES 256u
#define PCI_BARS	 6u

struct pci_identity {
	uint16_t vendor, device, subsystem_vendor, subsystem;
	uint8_t revision;
	uint32_t class_code; /* 24 bits: class, subclass, interface */
};

struct pci_bar {
	uint64_t bytes; /* a power of 2, 16 or more; 0: none */
	bool wide;	/* 64 bits: takes the next register, too */
	bool prefetchable;
};

/* One access: `size` (1..8) bytes, little-endian in `value`; reads fill it. */
struct pci_access {
	uint32_t offset; /* in the configuration space or behind a base address */
	uint8_t size;
	bool write;
	uint64_t value;
};

/* Whoever is behind a function. Any may be NULL. */
struct pci_function_ops {
	/* Before a read, or after a write, of these bytes of configuration space. */
	void (*config)(void *ctx, const struct pci_access *access);
	/* Within the base address register. */
	void (*bar)(void *ctx, uint32_t bar, struct pci_access *access);
	/* The command register, a base address or the power state has changed. */
	void (*moved)(void *ctx);
};

struct pci_function {
	const struct pci_function_ops *ops;
	void *ctx;
	bool present;
	uint8_t capability; /* the last one's place; 0: none */
	uint8_t capabilities_end;
	uint8_t power; /* place of the power management capability; 0: none */
	struct pci_bar bar[PCI_BARS];
	uint8_t value[PCI_CONFIG_BYTES], writable[PCI_CONFIG_BYTES];
};

struct pci {
	uint64_t high_gpa, high_end; /* the 64-bit window; the next free address in it */
	uint64_t low_gpa;	     /* ... in the window below 4 GiB */
	uint32_t address;	     /* port cf8 */
	struct pci_function function[PCI_FUNCTIONS];
};

/* The host bridge, and nothing else. high_bytes 0: no window above 4 GiB. */
void pci_reset(struct pci *pci, uint64_t high_gpa, uint64_t high_bytes);

/* A function at `slot`. -EEXIST, -EINVAL, -ENOSPC: no room for its base addresses. */
int pci_add(struct pci *pci, uint32_t slot, const struct pci_identity *identity,
	    const struct pci_bar bar[PCI_BARS], const struct pci_function_ops *ops, void *ctx,
	    struct pci_function **ret_function);

/*
 * A capability (`count` bytes, of which the first two are its id and the list's) with a mask of bits
 * that may be written (NULL: none). Its place, or -ENOSPC.
 */
int pci_capability(struct pci_function *function, const uint8_t *bytes, const uint8_t *writable,
		   uint32_t count);
/* Those that every function of PCI Express has: power management, PCI Express (integrated). */
int pci_express(struct pci_function *function);

/* An access by ECAM: offset is slot << 15 | function << 12 | register. Nobody there reads ones. */
void pci_config(struct pci *pci, uint32_t ecam_offset, struct pci_access *access);
/* ... by the data port, byte `offset` of 0..3. */
void pci_config_port(struct pci *pci, struct pci_access *access);
/* An access to memory. False: no function decodes the address. */
bool pci_memory(struct pci *pci, uint64_t gpa, struct pci_access *access);

/* Does the function answer at its base addresses; may it use memory and send messages? Asleep (D3) it does neither. */
bool pci_decodes(const struct pci_function *function);
bool pci_masters(const struct pci_function *function);
/* Is bus mastering given, asleep or not? */
bool pci_master_given(const struct pci_function *function);
uint64_t pci_bar_gpa(const struct pci_function *function, uint32_t bar);

#endif
