/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio's registers on PCI (contract: virtio_pci.h; sections are those of virtio 1.2).
 *
 *                  write of 0 (a reset)
 *      .--------------------------------------------.
 *      v                                            |
 *    idle  --ACKNOWLEDGE, DRIVER, FEATURES_OK-->  idle  --DRIVER_OK-->  started
 *      ^                                                                   |
 *      '---- virtio_pci_stopped() ----  stopping  <----- write of 0 -------'
 *
 * While it is idle nobody else has heard of it; nothing is published. From DRIVER_OK on, whatever the
 * driver changes is published at the end of the access. A reset that finds it started is published
 * too, and has ended when the other side has said so. Until then the driver sees the old status (it
 * has to wait for 0; 2.4.2), and whatever it writes is ignored.
 *
 * The driver is hostile: a field that it may not write (now), or that it writes with a width which is
 * not the field's (4.1.3.1), stays as it is. Addresses of rings are not looked at here.
 *
 * ISR status shows changes of configuration alone: there is no INTx, and who has no MSI-X polls.
 *
 * Tested in tests/machine/test_virtio_pci.c; fuzzed by tests/fuzz/fuzz_pci.c.
 */
#include "machine/virtio_pci.h"

#include <errno.h>
#include <string.h>

#define VENDOR_ID    0x1af4u
#define DEVICE_ID_0  0x1040u /* and the kind (4.1.2) */
#define SUBSYSTEM_ID 0x0040u
#define REVISION     1u

#define BAR 0u

/* Vendor capabilities (4.1.4) */
#define CAPABILITY_VENDOR 0x09u
#define CAPABILITY_BYTES  16u
#define TYPE_COMMON	  1u
#define TYPE_NOTIFY	  2u
#define TYPE_ISR	  3u
#define TYPE_DEVICE	  4u
#define TYPE_WINDOW	  5u
#define WINDOW_BAR	  4u /* behind the capability's place */
#define WINDOW_OFFSET	  8u
#define WINDOW_LENGTH	  12u
#define WINDOW_DATA	  16u

#define NOTIFY_MULTIPLIER 4u

/* Common configuration (4.1.4.3) */
#define COMMON_DEVICE_FEATURE_SELECT 0x00u
#define COMMON_DEVICE_FEATURE	     0x04u
#define COMMON_DRIVER_FEATURE_SELECT 0x08u
#define COMMON_DRIVER_FEATURE	     0x0cu
#define COMMON_CONFIG_VECTOR	     0x10u
#define COMMON_NUM_QUEUES	     0x12u
#define COMMON_STATUS		     0x14u
#define COMMON_GENERATION	     0x15u
#define COMMON_QUEUE_SELECT	     0x16u
#define COMMON_QUEUE_SIZE	     0x18u
#define COMMON_QUEUE_VECTOR	     0x1au
#define COMMON_QUEUE_ENABLE	     0x1cu
#define COMMON_QUEUE_NOTIFY	     0x1eu
#define COMMON_QUEUE_DESC	     0x20u
#define COMMON_QUEUE_AVAIL	     0x28u
#define COMMON_QUEUE_USED	     0x30u
#define COMMON_BYTES		     0x38u

#define ISR_CONFIG 2u

/* What nobody here does: SR-IOV, doorbells with data, resets of single queues. */
#define FEATURES_REFUSED (1ull << 37 | 1ull << 38 | 1ull << 40)

static uint64_t offered(const struct virtio_pci *virtio)
{
	return virtio->offer.features | VIRTIO_F_VERSION_1;
}

static struct virtio_published_queue *selected(struct virtio_pci *virtio)
{
	return virtio->queue_select < virtio->offer.queue_count
		       ? &virtio->state.queue[virtio->queue_select]
		       : NULL;
}

/* ---- what the other side is told ------------------------------------------------------------- */

/* At the end of whatever may have changed something. */
static void publish(struct virtio_pci *virtio)
{
	struct virtio_published *state = &virtio->state;
	struct interrupt interrupt;
	bool driver_ok;

	/*
	 * A kernel that starts another one takes bus mastering away, resets nothing and leaves its rings
	 * to be overwritten. The other one gives it back before it resets the device: that must not set
	 * it to work on what is no ring any more. A device that only slept goes on.
	 */
	if (state->running && !pci_master_given(virtio->function))
		virtio->status &= (uint8_t)~VIRTIO_STATUS_DRIVER_OK;
	driver_ok = (virtio->status & VIRTIO_STATUS_DRIVER_OK) &&
		    !(virtio->status & VIRTIO_STATUS_FAILED) && !virtio->stopping;

	while (msix_unmasked(&virtio->msix, &interrupt))
		virtio->ops->interrupt(virtio->ctx, &interrupt);
	state->running = driver_ok && pci_masters(virtio->function);
	if (!virtio->dirty || (!virtio->started && !state->running))
		return;
	virtio->dirty = false;
	virtio->started = true;
	state->msix = msix_enabled(&virtio->msix);
	state->features = virtio->driver_features;
	state->notify_gpa = pci_decodes(virtio->function)
				    ? pci_bar_gpa(virtio->function, BAR) + VIRTIO_PCI_NOTIFY
				    : 0;
	for (uint16_t i = 0; i < state->vector_count; i++)
		msix_vector(&virtio->msix, i, &state->vector[i]);
	virtio->ops->published(virtio->ctx, state);
}

static void set_idle(struct virtio_pci *virtio)
{
	struct virtio_published *state = &virtio->state;

	virtio->driver_features = 0;
	virtio->device_feature_select = virtio->driver_feature_select = 0;
	virtio->queue_select = 0;
	virtio->isr = 0;
	state->config_vector = VIRTIO_NO_VECTOR;
	for (uint16_t i = 0; i < state->queue_count; i++)
		state->queue[i] = (struct virtio_published_queue){ .size = virtio->offer.queue_size,
								   .vector = VIRTIO_NO_VECTOR };
}

static void reset(struct virtio_pci *virtio)
{
	if (virtio->stopping)
		return;
	set_idle(virtio);
	virtio->state.generation++;
	virtio->dirty = true;
	if (virtio->started)
		virtio->stopping = true;
	else
		virtio->status = 0;
}

static void tell_driver(struct virtio_pci *virtio)
{
	struct interrupt interrupt;

	virtio->isr |= ISR_CONFIG;
	if (msix_send(&virtio->msix, virtio->state.config_vector, &interrupt))
		virtio->ops->interrupt(virtio->ctx, &interrupt);
}

/* ---- status ---------------------------------------------------------------------------------- */

static bool features_are_fine(const struct virtio_pci *virtio)
{
	return !(virtio->driver_features & ~offered(virtio)) &&
	       (virtio->driver_features & VIRTIO_F_VERSION_1);
}

/* Bits are only ever added, but by a reset (2.1.1). */
static void write_status(struct virtio_pci *virtio, uint8_t value)
{
	uint8_t added = value & (uint8_t)~virtio->status & (uint8_t)~VIRTIO_STATUS_NEEDS_RESET;

	if (value == 0) {
		reset(virtio);
		return;
	}
	if ((added & VIRTIO_STATUS_FEATURES_OK) && !features_are_fine(virtio))
		added &= (uint8_t)~VIRTIO_STATUS_FEATURES_OK;
	/* Modern drivers agree on features first (3.1.1). */
	if (!((virtio->status | added) & VIRTIO_STATUS_FEATURES_OK))
		added &= (uint8_t)~VIRTIO_STATUS_DRIVER_OK;
	if (virtio->started) /* it was taken back with bus mastering: first a reset */
		added &= (uint8_t)~VIRTIO_STATUS_DRIVER_OK;
	virtio->status |= added;
	virtio->dirty = true;
}

/* ---- common configuration -------------------------------------------------------------------- */

static void put(uint8_t *bytes, uint32_t at, uint64_t value, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		bytes[at + i] = (uint8_t)(value >> (i * 8));
}

static uint32_t half(uint64_t value, uint32_t select)
{
	return select > 1 ? 0 : (uint32_t)(value >> (select * 32));
}

static void common_image(struct virtio_pci *virtio, uint8_t image[COMMON_BYTES])
{
	const struct virtio_published_queue *queue = selected(virtio);

	memset(image, 0, COMMON_BYTES);
	put(image, COMMON_DEVICE_FEATURE_SELECT, virtio->device_feature_select, 4);
	put(image, COMMON_DEVICE_FEATURE, half(offered(virtio), virtio->device_feature_select), 4);
	put(image, COMMON_DRIVER_FEATURE_SELECT, virtio->driver_feature_select, 4);
	put(image, COMMON_DRIVER_FEATURE,
	    half(virtio->driver_features, virtio->driver_feature_select), 4);
	put(image, COMMON_CONFIG_VECTOR, virtio->state.config_vector, 2);
	put(image, COMMON_NUM_QUEUES, virtio->offer.queue_count, 2);
	image[COMMON_STATUS] = virtio->status;
	image[COMMON_GENERATION] = 0; /* the device's own configuration never changes */
	put(image, COMMON_QUEUE_SELECT, virtio->queue_select, 2);
	if (!queue) {
		/* Size 0: no such queue (4.1.4.3.1). */
		put(image, COMMON_QUEUE_VECTOR, VIRTIO_NO_VECTOR, 2);
		return;
	}
	put(image, COMMON_QUEUE_SIZE, queue->size, 2);
	put(image, COMMON_QUEUE_VECTOR, queue->vector, 2);
	put(image, COMMON_QUEUE_ENABLE, queue->enabled, 2);
	put(image, COMMON_QUEUE_NOTIFY, virtio->queue_select, 2);
	put(image, COMMON_QUEUE_DESC, queue->desc, 8);
	put(image, COMMON_QUEUE_AVAIL, queue->avail, 8);
	put(image, COMMON_QUEUE_USED, queue->used, 8);
}

static void read_bytes(struct pci_access *access, const uint8_t *bytes, uint32_t count)
{
	access->value = 0;
	for (uint32_t i = 0; i < access->size; i++) {
		if (access->offset + i < count)
			access->value |= (uint64_t)bytes[access->offset + i] << (i * 8);
	}
}

static void write_driver_feature(struct virtio_pci *virtio, uint32_t value)
{
	uint32_t shift = virtio->driver_feature_select * 32;

	if (virtio->driver_feature_select > 1 || (virtio->status & VIRTIO_STATUS_FEATURES_OK))
		return;
	virtio->driver_features &= ~(0xffffffffull << shift);
	virtio->driver_features |= (uint64_t)value << shift;
}

/* A vector that is not there reads back as none (4.1.5.1.2.1). */
static uint16_t checked_vector(const struct virtio_pci *virtio, uint64_t value)
{
	return value < virtio->state.vector_count ? (uint16_t)value : VIRTIO_NO_VECTOR;
}

/* Whole, or one of its halves; not once the queue is enabled (4.1.4.3.2). */
static void write_address(const struct virtio_published_queue *queue, uint64_t *address,
			  uint32_t at, const struct pci_access *access)
{
	if (queue->enabled)
		return;
	if (access->size == 8 && at == 0)
		*address = access->value;
	else if (access->size == 4 && at == 0)
		*address = (*address & ~0xffffffffull) | access->value;
	else if (access->size == 4 && at == 4)
		*address = (*address & 0xffffffffull) | access->value << 32;
}

static void write_queue_size(const struct virtio_pci *virtio, struct virtio_published_queue *queue,
			     uint64_t value)
{
	if (!queue->enabled && value && !(value & (value - 1)) && value <= virtio->offer.queue_size)
		queue->size = (uint16_t)value;
}

static void write_queue(struct virtio_pci *virtio, struct virtio_published_queue *queue,
			const struct pci_access *access)
{
	uint32_t at = access->offset;

	if (at >= COMMON_QUEUE_USED)
		write_address(queue, &queue->used, at - COMMON_QUEUE_USED, access);
	else if (at >= COMMON_QUEUE_AVAIL)
		write_address(queue, &queue->avail, at - COMMON_QUEUE_AVAIL, access);
	else if (at >= COMMON_QUEUE_DESC)
		write_address(queue, &queue->desc, at - COMMON_QUEUE_DESC, access);
	else if (access->size != 2)
		return;
	else if (at == COMMON_QUEUE_SIZE)
		write_queue_size(virtio, queue, access->value);
	else if (at == COMMON_QUEUE_VECTOR)
		queue->vector = checked_vector(virtio, access->value);
	else if (at == COMMON_QUEUE_ENABLE && access->value == 1)
		queue->enabled = true;
}

static void write_common(struct virtio_pci *virtio, const struct pci_access *access)
{
	struct virtio_published_queue *queue = selected(virtio);
	uint32_t at = access->offset;

	if (virtio->stopping)
		return;
	virtio->dirty = true;
	if (at >= COMMON_QUEUE_SIZE) {
		if (queue)
			write_queue(virtio, queue, access);
	} else if (access->size == 4 && at == COMMON_DEVICE_FEATURE_SELECT) {
		virtio->device_feature_select = (uint32_t)access->value;
	} else if (access->size == 4 && at == COMMON_DRIVER_FEATURE_SELECT) {
		virtio->driver_feature_select = (uint32_t)access->value;
	} else if (access->size == 4 && at == COMMON_DRIVER_FEATURE) {
		write_driver_feature(virtio, (uint32_t)access->value);
	} else if (access->size == 2 && at == COMMON_CONFIG_VECTOR) {
		virtio->state.config_vector = checked_vector(virtio, access->value);
	} else if (access->size == 2 && at == COMMON_QUEUE_SELECT) {
		virtio->queue_select = (uint16_t)access->value;
	} else if (access->size == 1 && at == COMMON_STATUS) {
		write_status(virtio, (uint8_t)access->value);
	}
}

static void access_common(struct virtio_pci *virtio, struct pci_access *access)
{
	uint8_t image[COMMON_BYTES];

	if (access->write) {
		write_common(virtio, access);
		return;
	}
	common_image(virtio, image);
	read_bytes(access, image, sizeof(image));
}

/* ---- the rest of the BAR --------------------------------------------------------------------- */

static void access_isr(struct virtio_pci *virtio, struct pci_access *access)
{
	if (access->write)
		return;
	read_bytes(access, &virtio->isr, 1);
	if (access->offset == 0)
		virtio->isr = 0;
}

static void access_config(struct virtio_pci *virtio, struct pci_access *access)
{
	if (!access->write) {
		read_bytes(access, virtio->state.config, virtio->offer.config_bytes);
		return;
	}
	if (virtio->stopping)
		return;
	for (uint32_t i = 0; i < access->size; i++) {
		uint32_t at = access->offset + i;
		uint8_t mask, *byte;

		if (at >= virtio->offer.config_bytes)
			break;
		mask = virtio->offer.config_writable[at];
		byte = &virtio->state.config[at];
		*byte = (uint8_t)((*byte & ~mask) | ((uint8_t)(access->value >> (i * 8)) & mask));
		virtio->dirty |= mask != 0;
	}
}

static void access_doorbell(struct virtio_pci *virtio, struct pci_access *access)
{
	uint32_t queue = access->offset / NOTIFY_MULTIPLIER;

	if (!access->write)
		access->value = 0;
	else if (queue < virtio->offer.queue_count && virtio->state.running)
		virtio->ops->doorbell(virtio->ctx, virtio->state.device, (uint16_t)queue);
}

static void access_bar(struct virtio_pci *virtio, struct pci_access *access)
{
	static const struct region {
		uint32_t offset;
		void (*access)(struct virtio_pci *virtio, struct pci_access *access);
	} regions[] = {
		{ VIRTIO_PCI_NOTIFY, access_doorbell },
		{ VIRTIO_PCI_CONFIG, access_config },
		{ VIRTIO_PCI_ISR, access_isr },
		{ VIRTIO_PCI_COMMON, access_common },
	};

	if (access->offset >= VIRTIO_PCI_TABLE && access->offset < VIRTIO_PCI_NOTIFY) {
		bool table = access->offset < VIRTIO_PCI_PENDING;

		access->offset -= table ? VIRTIO_PCI_TABLE : VIRTIO_PCI_PENDING;
		if (table)
			msix_table_access(&virtio->msix, access);
		else
			msix_pending_access(&virtio->msix, access);
		virtio->dirty |= access->write && table;
		return;
	}
	for (size_t i = 0; i < sizeof(regions) / sizeof(regions[0]); i++) {
		if (access->offset >= regions[i].offset) {
			access->offset -= regions[i].offset;
			regions[i].access(virtio, access);
			return;
		}
	}
}

static void on_bar(void *ctx, uint32_t bar, struct pci_access *access)
{
	struct virtio_pci *virtio = ctx;

	(void)bar;
	access_bar(virtio, access);
	publish(virtio);
}

/* ---- configuration space --------------------------------------------------------------------- */

static uint32_t window_word(const struct virtio_pci *virtio, uint32_t at)
{
	uint32_t value;

	memcpy(&value, virtio->function->value + virtio->window + at, sizeof(value));
	return value;
}

/* The driver reads or writes the window's data: an access to the BAR (4.1.4.9). */
static void access_window(struct virtio_pci *virtio, bool write)
{
	uint8_t *data = virtio->function->value + virtio->window + WINDOW_DATA;
	struct pci_access access = { .offset = window_word(virtio, WINDOW_OFFSET),
				     .size = (uint8_t)window_word(virtio, WINDOW_LENGTH),
				     .write = write };
	uint32_t length = window_word(virtio, WINDOW_LENGTH);

	if (virtio->function->value[virtio->window + WINDOW_BAR] != BAR ||
	    (length != 1 && length != 2 && length != 4) || access.offset % length ||
	    access.offset >= VIRTIO_PCI_BYTES)
		return;
	for (uint32_t i = 0; write && i < length; i++)
		access.value |= (uint64_t)data[i] << (i * 8);
	access_bar(virtio, &access);
	if (!write)
		put(data, 0, access.value, length);
}

static bool touches(const struct pci_access *access, uint32_t first, uint32_t count)
{
	return access->offset < first + count && first < access->offset + access->size;
}

static void on_config(void *ctx, const struct pci_access *access)
{
	struct virtio_pci *virtio = ctx;

	if (touches(access, virtio->window + WINDOW_DATA, 4))
		access_window(virtio, access->write);
	if (access->write && touches(access, virtio->msix.capability, 4))
		virtio->dirty = true;
	publish(virtio);
}

static void on_moved(void *ctx)
{
	struct virtio_pci *virtio = ctx;

	virtio->dirty = true;
	publish(virtio);
}

static const struct pci_function_ops function_ops = { .config = on_config,
						      .bar = on_bar,
						      .moved = on_moved };

static int add_vendor(struct virtio_pci *virtio, uint8_t type, uint32_t offset, uint32_t bytes,
		      uint32_t count, const uint8_t *writable)
{
	uint8_t capability[CAPABILITY_BYTES + 4] = { CAPABILITY_VENDOR, 0, (uint8_t)count, type,
						     BAR };

	put(capability, 8, offset, 4);
	put(capability, 12, bytes, 4);
	if (type == TYPE_NOTIFY)
		put(capability, CAPABILITY_BYTES, NOTIFY_MULTIPLIER, 4);
	return pci_capability(virtio->function, capability, writable, count);
}

static int add_capabilities(struct virtio_pci *virtio)
{
	static const uint8_t window_writable[CAPABILITY_BYTES + 4] = {
		[WINDOW_BAR] = 0xff,
		[WINDOW_OFFSET] = 0xff,
		0xff,
		0xff,
		0xff,
		[WINDOW_LENGTH] = 0xff,
		0xff,
		0xff,
		0xff,
		[WINDOW_DATA] = 0xff,
		0xff,
		0xff,
		0xff,
	};
	const struct virtio_offer *offer = &virtio->offer;
	int at = add_vendor(virtio, TYPE_COMMON, VIRTIO_PCI_COMMON, COMMON_BYTES, CAPABILITY_BYTES,
			    NULL);

	if (at >= 0)
		at = add_vendor(virtio, TYPE_NOTIFY, VIRTIO_PCI_NOTIFY,
				offer->queue_count * NOTIFY_MULTIPLIER, CAPABILITY_BYTES + 4, NULL);
	if (at >= 0)
		at = add_vendor(virtio, TYPE_ISR, VIRTIO_PCI_ISR, 1, CAPABILITY_BYTES, NULL);
	if (at >= 0 && offer->config_bytes)
		at = add_vendor(virtio, TYPE_DEVICE, VIRTIO_PCI_CONFIG, offer->config_bytes,
				CAPABILITY_BYTES, NULL);
	if (at >= 0)
		at = add_vendor(virtio, TYPE_WINDOW, 0, 0, CAPABILITY_BYTES + 4, window_writable);
	if (at < 0)
		return at;
	virtio->window = (uint8_t)at;
	at = msix_add(&virtio->msix, virtio->function, virtio->state.vector_count, BAR,
		      VIRTIO_PCI_TABLE, VIRTIO_PCI_PENDING);
	return at < 0 ? at : pci_express(virtio->function);
}

static uint32_t class_of(uint8_t kind)
{
	switch (kind) {
	case VIRTIO_KIND_NET:
		return 0x020000; /* Ethernet controller */
	case VIRTIO_KIND_BLOCK:
		return 0x010000; /* SCSI storage controller: what guests expect of it */
	case VIRTIO_KIND_CONSOLE:
		return 0x078000; /* communication controller */
	default:
		return 0x00ff00; /* unclassified */
	}
}

int virtio_pci_add(struct virtio_pci *virtio, struct pci *pci, uint8_t device,
		   const struct virtio_offer *offer, const struct virtio_pci_ops *ops, void *ctx)
{
	const struct pci_identity identity = { .vendor = VENDOR_ID,
					       .device = DEVICE_ID_0 + offer->kind,
					       .subsystem_vendor = VENDOR_ID,
					       .subsystem = SUBSYSTEM_ID,
					       .revision = REVISION,
					       .class_code = class_of(offer->kind) };
	static const struct pci_bar bar[PCI_BARS] = {
		[BAR] = { .bytes = VIRTIO_PCI_BYTES, .wide = true, .prefetchable = true }
	};
	int error = virtio_offer_check(offer);

	if (error || device >= VIRTIO_DEVICES_MAX || (offer->features & FEATURES_REFUSED))
		return -EINVAL;
	*virtio = (struct virtio_pci){ .ops = ops, .ctx = ctx, .offer = *offer };
	virtio->state.device = device;
	virtio->state.queue_count = offer->queue_count;
	virtio->state.vector_count = (uint16_t)(offer->queue_count + 1);
	memcpy(virtio->state.config, offer->config, sizeof(virtio->state.config));
	set_idle(virtio);
	error = pci_add(pci, device + 1u, &identity, bar, &function_ops, virtio, &virtio->function);
	return error ? error : add_capabilities(virtio);
}

/* ---- from the other side --------------------------------------------------------------------- */

void virtio_pci_needs_reset(struct virtio_pci *virtio, uint64_t generation)
{
	if (generation != virtio->state.generation || virtio->stopping || !virtio->started)
		return;
	virtio->status |= VIRTIO_STATUS_NEEDS_RESET;
	tell_driver(virtio);
}

void virtio_pci_stopped(struct virtio_pci *virtio, uint64_t generation)
{
	if (!virtio->stopping || generation != virtio->state.generation)
		return;
	virtio->stopping = virtio->started = false;
	virtio->status = 0;
}
