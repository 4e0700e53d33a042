/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control messages between who asks to join a pod and the member that it has asked: how encoders and
 * decoders are made says control_message.c.
 */
#include "wire/control_parts.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "wire/text.h"

static_assert(sizeof(struct wire_about) + sizeof(struct wire_features) +
		      CPUID_LEAVES_MAX * sizeof(struct wire_leaf) +
		      VIRTIO_DEVICES_MAX * DEVICE_INFO_BYTES <=
	      CONTROL_PAYLOAD_MAX);

/* ---- JOIN_ASK ---- */

static bool ask_valid(const struct control_join_ask *m)
{
	return control_about_valid(&m->about) && m->about.address[0] && m->about.token_id == 0 &&
	       m->about.token_expiry_s == 0 && m->features.vcpu_count == 0 &&
	       m->features.devices.count == 0 && m->about.promise_bytes % PAGE_BYTES == 0 &&
	       m->features.capacity_pages == m->about.promise_bytes / PAGE_BYTES;
}

int control_encode_join_ask(const struct control_join_ask *m, uint8_t *out)
{
	int features;

	if (!ask_valid(m))
		return -EINVAL;
	control_put_about(&m->about, out);
	features = control_encode_features(&m->features, out + sizeof(struct wire_about));
	return features < 0 ? features : (int)sizeof(struct wire_about) + features;
}

int control_decode_join_ask(const uint8_t *in, size_t size, struct control_join_ask *m)
{
	if (size < sizeof(struct wire_about) || !control_get_about(in, &m->about) ||
	    control_decode_features(in + sizeof(struct wire_about),
				    size - sizeof(struct wire_about), &m->features) < 0)
		return -EPROTO;
	return ask_valid(m) ? 0 : -EPROTO;
}

/* ---- the list of members ---- */

struct place {
	uint8_t *out;
	size_t room;
};

static bool put(struct place *place, const void *bytes, size_t size)
{
	if (size > place->room)
		return false;
	memcpy(place->out, bytes, size);
	place->out += size;
	place->room -= size;
	return true;
}

static bool put_member(struct place *place, uint16_t node, const struct member *m)
{
	size_t name = strnlen(m->about.name, sizeof(m->about.name));
	size_t address = strnlen(m->about.address, sizeof(m->about.address));
	struct wire_member w = { .since = htole64(m->since),
				 .promise_bytes = htole64(m->about.promise_bytes),
				 .token_id = htole64(m->about.token_id),
				 .token_expiry_s = htole64(m->about.token_expiry_s),
				 .node = htole16(node),
				 .cores = htole16(m->about.cores),
				 .state = (uint8_t)m->state,
				 .name_size = (uint8_t)name,
				 .address_size = (uint8_t)address };

	return put(place, &w, sizeof(w)) && put(place, m->about.name, name) &&
	       put(place, m->about.address, address);
}

int control_list_encode(const struct member_snapshot *list, uint8_t *out, size_t size)
{
	struct place place = { out, size };
	struct wire_list w = { .step = htole64(list->step),
			       .number_count = htole16(list->number_count) };
	uint16_t count = 0;

	for (int seat = 0; seat < SEAT_COUNT; seat++)
		w.seat[seat] = htole16(list->seat[seat]);
	for (uint16_t node = 0; node < list->number_count; node++)
		count += list->member[node].state != MEMBER_FREE;
	w.member_count = htole16(count);
	if (!put(&place, &w, sizeof(w)))
		return -EMSGSIZE;
	for (uint16_t node = 0; node < list->number_count; node++)
		if (list->member[node].state != MEMBER_FREE &&
		    !put_member(&place, node, &list->member[node]))
			return -EMSGSIZE;
	return (int)(size - place.room);
}

/* One member from the front of *in; its number, or -EPROTO. */
static int get_member(const uint8_t **in, size_t *size, struct member *ret_member)
{
	struct member_about *about = &ret_member->about;
	struct wire_member w;
	size_t texts;

	if (*size < sizeof(w))
		return -EPROTO;
	memcpy(&w, *in, sizeof(w));
	texts = (size_t)w.name_size + w.address_size;
	if (w.zero || w.name_size >= sizeof(about->name) ||
	    w.address_size >= sizeof(about->address) || *size - sizeof(w) < texts ||
	    w.state == MEMBER_FREE || w.state > MEMBER_GONE)
		return -EPROTO;
	*ret_member = (struct member){ .state = (enum member_state)w.state,
				       .since = le64toh(w.since),
				       .about = { .promise_bytes = le64toh(w.promise_bytes),
						  .token_id = le64toh(w.token_id),
						  .token_expiry_s = le64toh(w.token_expiry_s),
						  .cores = le16toh(w.cores) } };
	memcpy(about->name, *in + sizeof(w), w.name_size);
	memcpy(about->address, *in + sizeof(w) + w.name_size, w.address_size);
	/* A NUL within would make two forms of one name. */
	if (!control_about_valid(about) || strlen(about->name) != w.name_size ||
	    strlen(about->address) != w.address_size)
		return -EPROTO;
	*in += sizeof(w) + texts;
	*size -= sizeof(w) + texts;
	return le16toh(w.node);
}

int control_list_decode(const uint8_t *in, size_t size, struct member_snapshot *ret_list)
{
	uint16_t number_count, member_count;
	struct wire_list w;
	int last = -1;

	if (size < sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	number_count = le16toh(w.number_count);
	member_count = le16toh(w.member_count);
	if (!wire_zero(w.zero, sizeof(w.zero)) || number_count == 0 || number_count > NODES_MAX)
		return -EPROTO;
	if (ret_list) {
		memset(ret_list, 0, sizeof(*ret_list));
		ret_list->step = le64toh(w.step);
		ret_list->number_count = number_count;
	}
	for (int seat = 0; seat < SEAT_COUNT; seat++) {
		if (le16toh(w.seat[seat]) >= number_count)
			return -EPROTO;
		if (ret_list)
			ret_list->seat[seat] = le16toh(w.seat[seat]);
	}
	in += sizeof(w);
	size -= sizeof(w);
	for (uint16_t i = 0; i < member_count; i++) {
		struct member member;
		int node = get_member(&in, &size, &member);

		if (node <= last || node >= number_count)
			return -EPROTO;
		last = node;
		if (ret_list)
			ret_list->member[node] = member;
	}
	return size == 0 ? 0 : -EPROTO;
}

/* ---- JOIN_TOLD ---- */

static bool told_valid(const struct control_join_told *m)
{
	if (!wire_text_valid(m->why, sizeof(m->why)))
		return false;
	if (m->why[0])
		return m->number == 0 && m->secret_size == 0 && m->config_size == 0 &&
		       m->list_size == 0;
	return m->number < NODES_MAX && m->secret_size >= 1 &&
	       m->secret_size <= CONTROL_SECRET_MAX && m->config_size >= 1 &&
	       m->config_size <= CONTROL_JOIN_CONFIG_MAX &&
	       wire_text_span_valid(m->config, m->config_size, true) &&
	       control_list_decode(m->list, m->list_size, NULL) == 0;
}

int control_encode_join_told(const struct control_join_told *m, uint8_t *out)
{
	size_t why = strnlen(m->why, sizeof(m->why));
	struct wire_join_told w = { .number = htole16(m->number),
				    .why_size = htole16((uint16_t)why),
				    .secret_size = htole16(m->secret_size),
				    .config_size = htole32(m->config_size),
				    .list_size = htole32(m->list_size) };
	struct place place = { out, CONTROL_PAYLOAD_MAX };

	if (!told_valid(m))
		return -EINVAL;
	if (!put(&place, &w, sizeof(w)) || !put(&place, m->why, why) ||
	    (!why &&
	     (!put(&place, m->secret, m->secret_size) || !put(&place, m->config, m->config_size) ||
	      !put(&place, m->list, m->list_size))))
		return -EINVAL;
	return (int)(CONTROL_PAYLOAD_MAX - place.room);
}

int control_decode_join_told(const uint8_t *in, size_t size, struct control_join_told *m)
{
	struct wire_join_told w;
	size_t why_size;

	memset(m, 0, sizeof(*m));
	if (size < sizeof(w))
		return -EPROTO;
	memcpy(&w, in, sizeof(w));
	why_size = le16toh(w.why_size);
	m->number = le16toh(w.number);
	m->secret_size = le16toh(w.secret_size);
	m->config_size = le32toh(w.config_size);
	m->list_size = le32toh(w.list_size);
	if (w.zero || why_size >= sizeof(m->why) ||
	    (uint64_t)sizeof(w) + why_size + m->secret_size + m->config_size + m->list_size != size)
		return -EPROTO;
	memcpy(m->why, in + sizeof(w), why_size);
	m->secret = in + sizeof(w) + why_size;
	m->config = (const char *)m->secret + m->secret_size;
	m->list = (const uint8_t *)m->config + m->config_size;
	return strlen(m->why) == why_size && told_valid(m) ? 0 : -EPROTO;
}
