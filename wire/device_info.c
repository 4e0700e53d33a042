/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists of devices on the wire (device_info.h). Pure. Tested by tests/link/test_control_message.c,
 * fuzzed with the messages that carry them.
 */
#include "wire/device_info.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "wire/text.h"

#define BLOCK_MIN     512u
#define BLOCK_MAX     4096u
#define ALIGNMENT_MAX 4096u
#define MTU_MIN	      68u

#define FLAG_READ_ONLY	(1u << 0)
#define FLAG_DISCARD	(1u << 1)
#define FLAG_ZERO	(1u << 2)
#define FLAG_WRITE_BACK (1u << 3)
#define FLAG_DIRECT	(1u << 4)
#define FLAG_CHECKSUM	(1u << 5)
#define FLAG_SEGMENTS	(1u << 6)

struct wire_device_info {
	uint8_t device, kind;
	uint16_t flags;
	uint32_t block_bytes;
	uint64_t bytes;
	uint32_t alignment;
	uint16_t mtu, pairs;
	char serial[24];
};
static_assert(sizeof(struct wire_device_info) == DEVICE_INFO_BYTES);
static_assert(DISK_SERIAL_MAX + 1 <= sizeof(((struct wire_device_info *)0)->serial));

static bool power_of_two(uint32_t number)
{
	return number > 0 && (number & (number - 1)) == 0;
}

static bool disk_valid(const struct disk_info *disk)
{
	return disk->bytes > 0 && power_of_two(disk->block_bytes) &&
	       disk->block_bytes >= BLOCK_MIN && disk->block_bytes <= BLOCK_MAX &&
	       power_of_two(disk->alignment) && disk->alignment <= ALIGNMENT_MAX &&
	       wire_text_valid(disk->serial, sizeof(disk->serial));
}

static bool net_valid(const struct net_info *net)
{
	return net->mtu >= MTU_MIN && net->pairs > 0 && net->pairs <= NET_PAIRS_MAX;
}

static bool info_valid(const struct device_info *info)
{
	if (info->device >= VIRTIO_DEVICES_MAX)
		return false;
	switch (info->kind) {
	case VIRTIO_KIND_BLOCK:
		return disk_valid(&info->disk);
	case VIRTIO_KIND_NET:
		return net_valid(&info->net);
	default:
		return false;
	}
}

bool device_list_valid(const struct device_list *list)
{
	if (list->count > VIRTIO_DEVICES_MAX)
		return false;
	for (uint32_t i = 0; i < list->count; i++)
		if (!info_valid(&list->info[i]) ||
		    (i > 0 && list->info[i].device <= list->info[i - 1].device))
			return false;
	return true;
}

static void put_disk(const struct disk_info *disk, struct wire_device_info *w)
{
	w->flags = htole16((disk->read_only ? FLAG_READ_ONLY : 0) |
			   (disk->discard ? FLAG_DISCARD : 0) | (disk->zero ? FLAG_ZERO : 0) |
			   (disk->write_back ? FLAG_WRITE_BACK : 0) |
			   (disk->direct ? FLAG_DIRECT : 0));
	w->block_bytes = htole32(disk->block_bytes);
	w->bytes = htole64(disk->bytes);
	w->alignment = htole32(disk->alignment);
	wire_text_put(w->serial, sizeof(disk->serial), disk->serial);
}

static void put_net(const struct net_info *net, struct wire_device_info *w)
{
	w->flags =
		htole16((net->checksum ? FLAG_CHECKSUM : 0) | (net->segments ? FLAG_SEGMENTS : 0));
	w->mtu = htole16(net->mtu);
	w->pairs = htole16(net->pairs);
}

size_t device_list_encode(const struct device_list *list, uint8_t *out)
{
	for (uint32_t i = 0; i < list->count; i++) {
		const struct device_info *info = &list->info[i];
		struct wire_device_info w = { .device = info->device, .kind = info->kind };

		if (info->kind == VIRTIO_KIND_BLOCK)
			put_disk(&info->disk, &w);
		else
			put_net(&info->net, &w);
		memcpy(out + i * sizeof(w), &w, sizeof(w));
	}
	return list->count * sizeof(struct wire_device_info);
}

static void get_info(const struct wire_device_info *w, struct device_info *info)
{
	uint16_t flags = le16toh(w->flags);

	memset(info, 0, sizeof(*info));
	info->device = w->device;
	info->kind = w->kind;
	if (w->kind == VIRTIO_KIND_BLOCK) {
		info->disk = (struct disk_info){ .bytes = le64toh(w->bytes),
						 .block_bytes = le32toh(w->block_bytes),
						 .alignment = le32toh(w->alignment),
						 .read_only = flags & FLAG_READ_ONLY,
						 .discard = flags & FLAG_DISCARD,
						 .zero = flags & FLAG_ZERO,
						 .write_back = flags & FLAG_WRITE_BACK,
						 .direct = flags & FLAG_DIRECT };
		memcpy(info->disk.serial, w->serial, sizeof(info->disk.serial));
	} else {
		info->net = (struct net_info){ .mtu = le16toh(w->mtu),
					       .pairs = le16toh(w->pairs),
					       .checksum = flags & FLAG_CHECKSUM,
					       .segments = flags & FLAG_SEGMENTS };
	}
}

/* What a kind does not have, and what has no meaning, is zero: so it encodes to the same bytes. */
static bool same_again(const struct device_list *list, const uint8_t *in)
{
	uint8_t again[VIRTIO_DEVICES_MAX * DEVICE_INFO_BYTES];

	return memcmp(again, in, device_list_encode(list, again)) == 0;
}

int device_list_decode(const uint8_t *in, size_t size, uint32_t count, struct device_list *ret_list)
{
	if (count > VIRTIO_DEVICES_MAX || size != count * DEVICE_INFO_BYTES)
		return -EPROTO;
	for (uint32_t i = 0; i < count; i++) {
		struct wire_device_info w;

		memcpy(&w, in + i * sizeof(w), sizeof(w));
		get_info(&w, &ret_list->info[i]);
	}
	ret_list->count = count;
	return device_list_valid(ret_list) && same_again(ret_list, in) ? 0 : -EPROTO;
}
