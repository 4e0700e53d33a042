/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the two sides of a virtio device say to each other (virtio 1.2). Plain data, pure.
 *
 * One side is its registers: config space, common configuration, MSI-X table. They belong to the PC
 * of node 0 (machine/virtio_pci.h). The other works on its queues and is wherever that is cheapest
 * (virtio/blk.h and others). Before the guest runs, a struct virtio_offer says what the device is;
 * from then on the registers publish a struct virtio_published whenever the driver has changed
 * something that the other side must know. Each is whole: the newest counts, and some may be skipped.
 */
#ifndef VIRTIO_PUBLISHED_H
#define VIRTIO_PUBLISHED_H

#include <stdbool.h>
#include <stdint.h>

#define VIRTIO_DEVICES_MAX    31 /* slots 1..31 of bus 0 */
#define VIRTIO_QUEUES_MAX     67 /* 64, and a control queue or what else a device has besides */
#define VIRTIO_VECTORS_MAX    (VIRTIO_QUEUES_MAX + 1)
#define VIRTIO_CONFIG_MAX     96   /* bytes of a device's own configuration */
#define VIRTIO_QUEUE_SIZE_MAX 1024 /* entries; sizes are powers of 2 */
#define VIRTIO_NO_VECTOR      0xffffu

/* Device ids (virtio 1.2, 5). */
enum virtio_kind {
	VIRTIO_KIND_NET = 1,
	VIRTIO_KIND_BLOCK = 2,
	VIRTIO_KIND_CONSOLE = 3,
	VIRTIO_KIND_RNG = 4,
	VIRTIO_KIND_BALLOON = 5,
};

/* Feature bits that are not of one kind of device (virtio 1.2, 6). */
#define VIRTIO_F_INDIRECT_DESC (1ull << 28)
#define VIRTIO_F_EVENT_IDX     (1ull << 29)
#define VIRTIO_F_VERSION_1     (1ull << 32)

/* A device as its driver finds it. */
struct virtio_offer {
	uint8_t kind;	      /* enum virtio_kind */
	uint16_t queue_count; /* 1..VIRTIO_QUEUES_MAX */
	uint16_t queue_size;  /* of each, at most: a power of 2, 2..VIRTIO_QUEUE_SIZE_MAX */
	uint16_t config_bytes;
	uint64_t features; /* VIRTIO_F_VERSION_1 is offered, and demanded, whatever is here */
	uint8_t config[VIRTIO_CONFIG_MAX];
	/* Bits of it that the driver may write: published as any other change. */
	uint8_t config_writable[VIRTIO_CONFIG_MAX];
};

/* Where a queue is, as the driver said: nothing of this has been checked but `size`. */
struct virtio_published_queue {
	bool enabled;
	uint16_t size;	 /* a power of 2, 1..the offer's */
	uint16_t vector; /* of msix[], or VIRTIO_NO_VECTOR */
	uint64_t desc, avail, used;
};

/* A vector's message. `masked`: by its own bit, for the whole function, or MSI-X is off. */
struct virtio_published_vector {
	uint64_t address;
	uint32_t data;
	bool masked;
};

struct virtio_published {
	uint8_t device; /* its place in the pod's list of devices */
	/*
	 * Its memory may be touched: the driver has set DRIVER_OK, and bus mastering is on.
	 *
	 * False in a generation that was true before: the device sleeps (D3), or the driver has
	 * taken bus mastering away. Nothing is touched, and what is under way is kept until it is
	 * true again (never in this generation where mastering was taken), or a new one begins.
	 */
	bool running;
	bool msix; /* it is on; else there are no interrupts */
	/*
	 * Raised by each reset. What was under way in a generation before is let go of, and then
	 * pc_device_stopped() is told the generation that was published: only then does the driver
	 * see the end of the reset. Until then, `running` is false.
	 */
	uint64_t generation;
	uint64_t features;	/* agreed on; from `running` on */
	uint64_t notify_gpa;	/* queue q's doorbell is at + 4 * q; 0: memory decode is off */
	uint16_t config_vector; /* the registers' side sends it; as in a queue */
	uint16_t queue_count, vector_count;
	struct virtio_published_queue queue[VIRTIO_QUEUES_MAX];
	/*
	 * An interrupt for a vector that is masked is remembered by who would have sent it, and
	 * sent once a later publication has it unmasked.
	 */
	struct virtio_published_vector vector[VIRTIO_VECTORS_MAX];
	uint8_t config[VIRTIO_CONFIG_MAX]; /* as it is now */
};

/* 0, or -EINVAL: it keeps to the bounds that are said above. */
int virtio_offer_check(const struct virtio_offer *offer);

#endif
