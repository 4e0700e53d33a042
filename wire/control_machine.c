/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control messages that have a part in the guest's machine: INTERRUPT, EOI, device accesses, and
 * what nodes offer and agree on at the start. How encoders and decoders are made:
 * control_message.c.
 */
#include "wire/control_parts.h"

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "wire/text.h"

/* ---- Rules: the same for encoding (our own bug) and decoding (a peer's). ---- */

static bool interrupt_valid(const struct control_interrupt *m)
{
	switch (m->delivery) {
	case CONTROL_DELIVERY_FIXED:
	case CONTROL_DELIVERY_LOWEST:
	case CONTROL_DELIVERY_SMI:
	case CONTROL_DELIVERY_NMI:
	case CONTROL_DELIVERY_INIT:
	case CONTROL_DELIVERY_SIPI:
	case CONTROL_DELIVERY_EXTINT:
		break;
	default:
		return false;
	}
	if (m->level > 1)
		return false;
	if (m->from_vcpu >= VCPUS_MAX && m->from_vcpu != NODE_NONE)
		return false;
	if (m->vcpu_count == 0 || m->vcpu_count > CONTROL_VCPUS_MAX)
		return false;
	for (uint16_t i = 0; i < m->vcpu_count; i++) {
		if (m->vcpu[i] >= VCPUS_MAX)
			return false;
	}
	return true;
}

static bool startup_valid(const struct control_io_request *m)
{
	uint8_t mode = (uint8_t)(m->address >> CONTROL_STARTUP_MODE);

	return m->address >> 32 == 0 && (m->address & 0xffff) < VCPUS_MAX &&
	       (mode == CONTROL_DELIVERY_INIT || mode == CONTROL_DELIVERY_SIPI) && m->size == 1 &&
	       m->count == 1 && m->write;
}

static bool io_request_valid(const struct control_io_request *m)
{
	if (m->vcpu >= VCPUS_MAX || m->write > 1)
		return false;
	if (m->kind == CONTROL_IO_PORT)
		return (m->size == 1 || m->size == 2 || m->size == 4) && m->address <= 0xffff &&
		       m->count >= 1 && m->count <= CONTROL_IO_ITEMS_MAX;
	if (m->kind == CONTROL_IO_MMIO)
		return m->size >= 1 && m->size <= 8 && m->address < GPA_LIMIT && m->count == 1;
	if (m->kind == CONTROL_IO_STARTUP)
		return startup_valid(m);
	return false;
}

static bool io_reply_valid(const struct control_io_reply *m)
{
	return m->vcpu < VCPUS_MAX && m->size >= 1 && m->size <= 8 &&
	       m->count <= CONTROL_IO_ITEMS_MAX;
}

static bool leaves_valid(const struct cpuid_set *set)
{
	if (set->count == 0 || set->count > CPUID_LEAVES_MAX)
		return false;
	for (uint32_t i = 0; i < set->count; i++) {
		const struct cpuid_leaf *leaf = &set->leaf[i];

		if (leaf->index_matters > 1)
			return false;
		if (i == 0)
			continue;
		if (leaf[-1].function > leaf->function ||
		    (leaf[-1].function == leaf->function && leaf[-1].index >= leaf->index))
			return false;
	}
	return true;
}

static bool features_valid(const struct control_features *m)
{
	return wire_text_valid(m->engine, sizeof(m->engine)) && m->engine[0] != '\0' &&
	       m->tsc_khz > 0 && m->vcpu_count <= VCPUS_MAX && m->tsc_deadline <= 1 &&
	       m->tsc_scaling <= 1 && m->walks_write <= 1 && m->capacity_pages <= GPN_LIMIT &&
	       m->tsc_margin_ppm <= CONTROL_TSC_MARGIN_MAX && leaves_valid(&m->offer) &&
	       device_list_valid(&m->devices);
}

static bool start_valid(const struct control_start *m)
{
	return m->memory_bytes > 0 && m->memory_bytes <= GPA_LIMIT &&
	       m->memory_bytes % PAGE_BYTES == 0 && m->tsc_khz > 0 && m->vcpu_count >= 1 &&
	       m->vcpu_count <= VCPUS_MAX && m->tsc_deadline <= 1 && m->walks_write <= 1 &&
	       leaves_valid(&m->cpuid) && device_list_valid(&m->devices);
}

/* ---- Encoding. Each returns the payload's size, or -EINVAL. ---- */

int control_encode_interrupt(const struct control_interrupt *m, uint8_t *out)
{
	struct wire_interrupt w = {
		.delivery = m->delivery,
		.vector = m->vector,
		.level = m->level,
		.from_vcpu = htole16(m->from_vcpu),
		.vcpu_count = htole16(m->vcpu_count),
	};

	if (!interrupt_valid(m))
		return -EINVAL;
	memcpy(out, &w, sizeof(w));
	out += sizeof(w);
	for (uint16_t i = 0; i < m->vcpu_count; i++) {
		uint16_t le = htole16(m->vcpu[i]);

		memcpy(out + i * sizeof(le), &le, sizeof(le));
	}
	return (int)(sizeof(w) + m->vcpu_count * sizeof(uint16_t));
}

int control_encode_eoi(const struct control_eoi *m, uint8_t *out)
{
	struct wire_eoi w = { .vcpu = htole16(m->vcpu), .vector = m->vector };

	if (m->vcpu >= VCPUS_MAX)
		return -EINVAL;
	memcpy(out, &w, sizeof(w));
	return sizeof(w);
}

int control_encode_io_request(const struct control_io_request *m, uint8_t *out)
{
	struct wire_io_request w = {
		.id = htole64(m->id),
		.address = htole64(m->address),
		.vcpu = htole16(m->vcpu),
		.count = htole16(m->count),
		.kind = m->kind,
		.size = m->size,
		.write = m->write,
	};
	size_t data_bytes;

	if (!io_request_valid(m))
		return -EINVAL;
	data_bytes = m->write ? (size_t)m->count * m->size : 0;
	memcpy(out, &w, sizeof(w));
	memcpy(out + sizeof(w), m->data, data_bytes);
	return (int)(sizeof(w) + data_bytes);
}

int control_encode_io_reply(const struct control_io_reply *m, uint8_t *out)
{
	struct wire_io_reply w = {
		.id = htole64(m->id),
		.vcpu = htole16(m->vcpu),
		.count = htole16(m->count),
		.size = m->size,
	};
	size_t data_bytes = (size_t)m->count * m->size;

	if (!io_reply_valid(m))
		return -EINVAL;
	memcpy(out, &w, sizeof(w));
	memcpy(out + sizeof(w), m->data, data_bytes);
	return (int)(sizeof(w) + data_bytes);
}

static size_t put_leaves(uint8_t *out, const struct cpuid_set *set)
{
	for (uint32_t i = 0; i < set->count; i++) {
		const struct cpuid_leaf *leaf = &set->leaf[i];
		struct wire_leaf w = {
			.function = htole32(leaf->function),
			.index = htole32(leaf->index),
			.index_matters = htole32(leaf->index_matters),
			.eax = htole32(leaf->eax),
			.ebx = htole32(leaf->ebx),
			.ecx = htole32(leaf->ecx),
			.edx = htole32(leaf->edx),
		};

		memcpy(out + i * sizeof(w), &w, sizeof(w));
	}
	return set->count * sizeof(struct wire_leaf);
}

int control_encode_features(const struct control_features *m, uint8_t *out)
{
	struct wire_features w = {
		.capacity_pages = htole64(m->capacity_pages),
		.tsc_khz = htole32(m->tsc_khz),
		.vcpu_count = htole16(m->vcpu_count),
		.leaf_count = htole16((uint16_t)m->offer.count),
		.tsc_deadline = m->tsc_deadline,
		.tsc_scaling = m->tsc_scaling,
		.walks_write = m->walks_write,
		.device_count = (uint8_t)m->devices.count,
		.tsc_margin_ppm = htole32(m->tsc_margin_ppm),
	};
	size_t size = sizeof(w);

	if (!features_valid(m))
		return -EINVAL;
	wire_text_put(w.engine, sizeof(w.engine), m->engine);
	memcpy(out, &w, sizeof(w));
	size += put_leaves(out + size, &m->offer);
	return (int)(size + device_list_encode(&m->devices, out + size));
}

int control_encode_start(const struct control_start *m, uint8_t *out)
{
	struct wire_start w = {
		.memory_bytes = htole64(m->memory_bytes),
		.epoch_ns = htole64(m->epoch_ns),
		.tsc_khz = htole32(m->tsc_khz),
		.vcpu_count = htole16(m->vcpu_count),
		.leaf_count = htole16((uint16_t)m->cpuid.count),
		.tsc_deadline = m->tsc_deadline,
		.walks_write = m->walks_write,
		.device_count = (uint8_t)m->devices.count,
	};
	size_t size = sizeof(w);

	if (!start_valid(m))
		return -EINVAL;
	memcpy(out, &w, sizeof(w));
	size += put_leaves(out + size, &m->cpuid);
	return (int)(size + device_list_encode(&m->devices, out + size));
}

/* ---- Decoding ---- */

int control_decode_interrupt(const uint8_t *in, size_t size, struct control_interrupt *m)
{
	struct wire_interrupt w;

	if (size < sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	m->delivery = w.delivery;
	m->vector = w.vector;
	m->level = w.level;
	m->from_vcpu = le16toh(w.from_vcpu);
	m->vcpu_count = le16toh(w.vcpu_count);
	if (m->vcpu_count > CONTROL_VCPUS_MAX ||
	    size != sizeof(w) + m->vcpu_count * sizeof(uint16_t))
		return -EPROTO;
	for (uint16_t i = 0; i < m->vcpu_count; i++) {
		uint16_t le;

		memcpy(&le, in + sizeof(w) + i * sizeof(le), sizeof(le));
		m->vcpu[i] = le16toh(le);
	}
	return w.zero == 0 && interrupt_valid(m) ? 0 : -EPROTO;
}

int control_decode_eoi(const uint8_t *in, size_t size, struct control_eoi *m)
{
	struct wire_eoi w;

	if (size != sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	m->vcpu = le16toh(w.vcpu);
	m->vector = w.vector;
	return w.zero != 0 || m->vcpu >= VCPUS_MAX ? -EPROTO : 0;
}

int control_decode_io_request(const uint8_t *in, size_t size, struct control_io_request *m)
{
	struct wire_io_request w;
	size_t data_bytes;

	if (size < sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	m->id = le64toh(w.id);
	m->address = le64toh(w.address);
	m->vcpu = le16toh(w.vcpu);
	m->count = le16toh(w.count);
	m->kind = w.kind;
	m->size = w.size;
	m->write = w.write;
	if (w.zero != 0 || !io_request_valid(m))
		return -EPROTO;
	data_bytes = m->write ? (size_t)m->count * m->size : 0;
	if (size != sizeof(w) + data_bytes)
		return -EPROTO;
	memcpy(m->data, in + sizeof(w), data_bytes);
	return 0;
}

int control_decode_io_reply(const uint8_t *in, size_t size, struct control_io_reply *m)
{
	struct wire_io_reply w;

	if (size < sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	m->id = le64toh(w.id);
	m->vcpu = le16toh(w.vcpu);
	m->count = le16toh(w.count);
	m->size = w.size;
	if (w.zero1 != 0 || !wire_zero(w.zero2, sizeof(w.zero2)) || !io_reply_valid(m) ||
	    size != sizeof(w) + (size_t)m->count * m->size)
		return -EPROTO;
	memcpy(m->data, in + sizeof(w), (size_t)m->count * m->size);
	return 0;
}

static int get_leaves(const uint8_t *in, size_t size, uint16_t count, struct cpuid_set *ret_set)
{
	if (count > CPUID_LEAVES_MAX || size < count * sizeof(struct wire_leaf))
		return -EPROTO;
	for (uint16_t i = 0; i < count; i++) {
		struct wire_leaf w;

		memcpy(&w, in + i * sizeof(w), sizeof(w));
		if (le32toh(w.index_matters) > 1)
			return -EPROTO;
		ret_set->leaf[i] = (struct cpuid_leaf){
			.function = le32toh(w.function),
			.index = le32toh(w.index),
			.index_matters = (uint8_t)le32toh(w.index_matters),
			.eax = le32toh(w.eax),
			.ebx = le32toh(w.ebx),
			.ecx = le32toh(w.ecx),
			.edx = le32toh(w.edx),
		};
	}
	ret_set->count = count;
	return 0;
}

/* Leaves, and devices behind them, to the end. */
static int get_lists(const uint8_t *in, size_t size, uint16_t leaves, uint8_t devices,
		     struct cpuid_set *ret_set, struct device_list *ret_list)
{
	size_t leaf_bytes = leaves * sizeof(struct wire_leaf);
	int error = get_leaves(in, size, leaves, ret_set);

	return error ? error
		     : device_list_decode(in + leaf_bytes, size - leaf_bytes, devices, ret_list);
}

int control_decode_features(const uint8_t *in, size_t size, struct control_features *m)
{
	struct wire_features w;

	if (size < sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	if (!wire_text_valid(w.engine, sizeof(w.engine)) ||
	    get_lists(in + sizeof(w), size - sizeof(w), le16toh(w.leaf_count), w.device_count,
		      &m->offer, &m->devices) < 0)
		return -EPROTO;
	memcpy(m->engine, w.engine, sizeof(m->engine));
	m->capacity_pages = le64toh(w.capacity_pages);
	m->tsc_khz = le32toh(w.tsc_khz);
	m->vcpu_count = le16toh(w.vcpu_count);
	m->tsc_deadline = w.tsc_deadline;
	m->tsc_scaling = w.tsc_scaling;
	m->walks_write = w.walks_write;
	m->tsc_margin_ppm = le32toh(w.tsc_margin_ppm);
	return features_valid(m) ? 0 : -EPROTO;
}

int control_decode_start(const uint8_t *in, size_t size, struct control_start *m)
{
	struct wire_start w;

	if (size < sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	if (!wire_zero(w.zero, sizeof(w.zero)) ||
	    get_lists(in + sizeof(w), size - sizeof(w), le16toh(w.leaf_count), w.device_count,
		      &m->cpuid, &m->devices) < 0)
		return -EPROTO;
	m->memory_bytes = le64toh(w.memory_bytes);
	m->epoch_ns = le64toh(w.epoch_ns);
	m->tsc_khz = le32toh(w.tsc_khz);
	m->vcpu_count = le16toh(w.vcpu_count);
	m->tsc_deadline = w.tsc_deadline;
	m->walks_write = w.walks_write;
	return start_valid(m) ? 0 : -EPROTO;
}
