/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registers of a virtio device on PCI (virtio 1.2, 4.1; modern only): features, status, queues,
 * vectors, and the doorbells' addresses. What is behind the queues is elsewhere, and learns by
 * struct virtio_published what the driver has said. Pure.
 *
 * BAR 0, 64 bits, prefetchable, 32 KiB:
 *
 *   0000  common configuration       3000  MSI-X table
 *   1000  ISR status                 3800  MSI-X pending bits
 *   2000  device configuration       4000  doorbells: 4 bytes a queue, a page of their own
 *
 * A reset takes as long as the other side needs to let go of the driver's memory: the status goes on
 * to read as it was until virtio_pci_stopped().
 */
#ifndef MACHINE_VIRTIO_PCI_H
#define MACHINE_VIRTIO_PCI_H

#include "machine/msix.h"
#include "machine/pci.h"
#include "virtio/published.h"

#define VIRTIO_PCI_COMMON  0x0000u
#define VIRTIO_PCI_ISR	   0x1000u
#define VIRTIO_PCI_CONFIG  0x2000u
#define VIRTIO_PCI_TABLE   0x3000u
#define VIRTIO_PCI_PENDING 0x3800u
#define VIRTIO_PCI_NOTIFY  0x4000u
#define VIRTIO_PCI_BYTES   0x8000u

/* Device status (virtio 1.2, 2.1) */
#define VIRTIO_STATUS_ACKNOWLEDGE 0x01u
#define VIRTIO_STATUS_DRIVER	  0x02u
#define VIRTIO_STATUS_DRIVER_OK	  0x04u
#define VIRTIO_STATUS_FEATURES_OK 0x08u
#define VIRTIO_STATUS_NEEDS_RESET 0x40u
#define VIRTIO_STATUS_FAILED	  0x80u

struct virtio_pci_ops {
	void (*interrupt)(void *ctx, const struct interrupt *interrupt);
	void (*doorbell)(void *ctx, uint8_t device, uint16_t queue);
	void (*published)(void *ctx, const struct virtio_published *published);
};

struct virtio_pci {
	const struct virtio_pci_ops *ops;
	void *ctx;
	struct virtio_offer offer;
	struct pci_function *function;
	struct msix msix;
	uint8_t window; /* place of the capability that reaches the BAR by configuration space */

	uint8_t status, isr;
	bool started;  /* in this generation it has been published */
	bool stopping; /* a reset waits for virtio_pci_stopped() */
	bool dirty;    /* something has changed since the last publication */
	uint32_t device_feature_select, driver_feature_select;
	uint64_t driver_features;
	uint16_t queue_select;
	struct virtio_published state; /* as it would be published now */
};

/* At slot 1 + device. -EINVAL: the offer makes no sense; or what pci_add() says. */
int virtio_pci_add(struct virtio_pci *virtio, struct pci *pci, uint8_t device,
		   const struct virtio_offer *offer, const struct virtio_pci_ops *ops, void *ctx);

/* It met something that makes no sense, and does nothing until it is reset; the driver is told. */
void virtio_pci_needs_reset(struct virtio_pci *virtio, uint64_t generation);
/* The driver's memory is let go of, for the reset that began this generation. */
void virtio_pci_stopped(struct virtio_pci *virtio, uint64_t generation);

#endif
