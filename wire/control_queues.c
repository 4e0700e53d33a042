/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control messages about virtio devices: what their registers say, where their queues are, doorbells.
 * How encoders and decoders are made: control_message.c.
 */
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "core/queue_place.h"
#include "wire/control_parts.h"
#include "wire/text.h"

_Static_assert(QUEUE_PLACES_MAX == VIRTIO_QUEUES_MAX, "a device's queues have places");

#define FLAG_RUNNING 1u
#define FLAG_MSIX    2u

/* ---- Rules: the same for encoding (our own bug) and decoding (a peer's). ---- */

static bool size_valid(uint16_t size)
{
	return size >= 1 && size <= VIRTIO_QUEUE_SIZE_MAX && (size & (size - 1)) == 0;
}

/* What virtio/published.h has checked; all else the driver may have made up. */
static bool published_valid(const struct virtio_published *m)
{
	if (m->device >= VIRTIO_DEVICES_MAX || m->queue_count < 1 ||
	    m->queue_count > VIRTIO_QUEUES_MAX || m->vector_count > VIRTIO_VECTORS_MAX)
		return false;
	for (uint16_t i = 0; i < m->queue_count; i++)
		if (!size_valid(m->queue[i].size))
			return false;
	return true;
}

static bool queue_valid(uint8_t device, uint16_t queue)
{
	return device < VIRTIO_DEVICES_MAX && queue < VIRTIO_QUEUES_MAX;
}

static bool epoch_valid(uint64_t epoch)
{
	return epoch <= QUEUE_EPOCH_MAX;
}

/* ---- Encoding. Each returns the payload's size, or -EINVAL. ---- */

static void put_queue(const struct virtio_published_queue *queue, uint8_t *out)
{
	struct wire_published_queue w = { .desc = htole64(queue->desc),
					  .avail = htole64(queue->avail),
					  .used = htole64(queue->used),
					  .size = htole16(queue->size),
					  .vector = htole16(queue->vector),
					  .enabled = queue->enabled };

	memcpy(out, &w, sizeof(w));
}

static void put_vector(const struct virtio_published_vector *vector, uint8_t *out)
{
	struct wire_published_vector w = { .address = htole64(vector->address),
					   .data = htole32(vector->data),
					   .masked = vector->masked };

	memcpy(out, &w, sizeof(w));
}

int control_encode_published(const struct virtio_published *m, uint8_t *out)
{
	struct wire_published w = {
		.generation = htole64(m->generation),
		.features = htole64(m->features),
		.notify_gpa = htole64(m->notify_gpa),
		.config_vector = htole16(m->config_vector),
		.queue_count = htole16(m->queue_count),
		.vector_count = htole16(m->vector_count),
		.device = m->device,
		.flags = (uint8_t)((m->running ? FLAG_RUNNING : 0) | (m->msix ? FLAG_MSIX : 0)),
	};
	uint8_t *at = out + sizeof(w);

	if (!published_valid(m))
		return -EINVAL;
	memcpy(w.config, m->config, sizeof(w.config));
	memcpy(out, &w, sizeof(w));
	for (uint16_t i = 0; i < m->queue_count; i++, at += sizeof(struct wire_published_queue))
		put_queue(&m->queue[i], at);
	for (uint16_t i = 0; i < m->vector_count; i++, at += sizeof(struct wire_published_vector))
		put_vector(&m->vector[i], at);
	return (int)(at - out);
}

int control_encode_stopped(const struct control_stopped *m, uint8_t *out)
{
	struct wire_stopped w = { .generation = htole64(m->generation), .device = m->device };

	if (m->device >= VIRTIO_DEVICES_MAX)
		return -EINVAL;
	memcpy(out, &w, sizeof(w));
	return sizeof(w);
}

int control_encode_queue(const struct control_queue *m, uint8_t *out)
{
	struct wire_queue w = { .generation = htole64(m->generation),
				.epoch = htole64(m->epoch),
				.queue = htole16(m->queue),
				.device = m->device,
				.avail_index = htole16(m->avail_index),
				.used_index = htole16(m->used_index),
				.told_index = htole16(m->told_index) };

	if (!queue_valid(m->device, m->queue) || !epoch_valid(m->epoch))
		return -EINVAL;
	memcpy(out, &w, sizeof(w));
	return sizeof(w);
}

int control_encode_queue_place(const struct control_queue_place *m, uint8_t *out)
{
	struct wire_queue_place w = { .generation = htole64(m->generation),
				      .epoch = htole64(m->epoch),
				      .queue = htole16(m->queue),
				      .device = m->device };

	if (!queue_valid(m->device, m->queue) || !epoch_valid(m->epoch))
		return -EINVAL;
	memcpy(out, &w, sizeof(w));
	return sizeof(w);
}

int control_encode_doorbell(const struct control_doorbell *m, uint8_t *out)
{
	struct wire_doorbell w = { .queue = htole16(m->queue), .device = m->device };

	if (!queue_valid(m->device, m->queue))
		return -EINVAL;
	memcpy(out, &w, sizeof(w));
	return sizeof(w);
}

/* ---- Decoding ---- */

static int get_queue(const uint8_t *in, struct virtio_published_queue *ret_queue)
{
	struct wire_published_queue w;

	memcpy(&w, in, sizeof(w));
	if (w.enabled > 1 || !wire_zero(w.zero, sizeof(w.zero)))
		return -EPROTO;
	*ret_queue = (struct virtio_published_queue){ .enabled = w.enabled,
						      .size = le16toh(w.size),
						      .vector = le16toh(w.vector),
						      .desc = le64toh(w.desc),
						      .avail = le64toh(w.avail),
						      .used = le64toh(w.used) };
	return 0;
}

static int get_vector(const uint8_t *in, struct virtio_published_vector *ret_vector)
{
	struct wire_published_vector w;

	memcpy(&w, in, sizeof(w));
	if (w.masked > 1 || !wire_zero(w.zero, sizeof(w.zero)))
		return -EPROTO;
	*ret_vector = (struct virtio_published_vector){ .address = le64toh(w.address),
							.data = le32toh(w.data),
							.masked = w.masked };
	return 0;
}

int control_decode_published(const uint8_t *in, size_t size, struct virtio_published *m)
{
	const uint8_t *at = in + sizeof(struct wire_published);
	struct wire_published w;

	if (size < sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	memset(m, 0, sizeof(*m));
	m->generation = le64toh(w.generation);
	m->features = le64toh(w.features);
	m->notify_gpa = le64toh(w.notify_gpa);
	m->config_vector = le16toh(w.config_vector);
	m->queue_count = le16toh(w.queue_count);
	m->vector_count = le16toh(w.vector_count);
	m->device = w.device;
	m->running = w.flags & FLAG_RUNNING;
	m->msix = w.flags & FLAG_MSIX;
	memcpy(m->config, w.config, sizeof(m->config));
	if (w.flags > (FLAG_RUNNING | FLAG_MSIX) || m->queue_count > VIRTIO_QUEUES_MAX ||
	    m->vector_count > VIRTIO_VECTORS_MAX ||
	    size != sizeof(w) + m->queue_count * sizeof(struct wire_published_queue) +
			    m->vector_count * sizeof(struct wire_published_vector))
		return -EPROTO;
	for (uint16_t i = 0; i < m->queue_count; i++, at += sizeof(struct wire_published_queue))
		if (get_queue(at, &m->queue[i]) < 0)
			return -EPROTO;
	for (uint16_t i = 0; i < m->vector_count; i++, at += sizeof(struct wire_published_vector))
		if (get_vector(at, &m->vector[i]) < 0)
			return -EPROTO;
	return published_valid(m) ? 0 : -EPROTO;
}

int control_decode_stopped(const uint8_t *in, size_t size, struct control_stopped *m)
{
	struct wire_stopped w;

	if (size != sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	m->generation = le64toh(w.generation);
	m->device = w.device;
	return wire_zero(w.zero, sizeof(w.zero)) && m->device < VIRTIO_DEVICES_MAX ? 0 : -EPROTO;
}

int control_decode_queue(const uint8_t *in, size_t size, struct control_queue *m)
{
	struct wire_queue w;

	if (size != sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	*m = (struct control_queue){ .generation = le64toh(w.generation),
				     .epoch = le64toh(w.epoch),
				     .queue = le16toh(w.queue),
				     .device = w.device,
				     .avail_index = le16toh(w.avail_index),
				     .used_index = le16toh(w.used_index),
				     .told_index = le16toh(w.told_index) };
	return wire_zero(w.zero, sizeof(w.zero)) && queue_valid(m->device, m->queue) &&
			       epoch_valid(m->epoch)
		       ? 0
		       : -EPROTO;
}

int control_decode_queue_place(const uint8_t *in, size_t size, struct control_queue_place *m)
{
	struct wire_queue_place w;

	if (size != sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	*m = (struct control_queue_place){ .generation = le64toh(w.generation),
					   .epoch = le64toh(w.epoch),
					   .queue = le16toh(w.queue),
					   .device = w.device };
	return wire_zero(w.zero, sizeof(w.zero)) && queue_valid(m->device, m->queue) &&
			       epoch_valid(m->epoch)
		       ? 0
		       : -EPROTO;
}

int control_decode_doorbell(const uint8_t *in, size_t size, struct control_doorbell *m)
{
	struct wire_doorbell w;

	if (size != sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	m->queue = le16toh(w.queue);
	m->device = w.device;
	return w.zero == 0 && queue_valid(m->device, m->queue) ? 0 : -EPROTO;
}
