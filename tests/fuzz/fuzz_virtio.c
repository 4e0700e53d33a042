// SPDX-License-Identifier: Apache-2.0
/*
 * Fuzzes front halves of virtio devices with a driver that does what the input says: it writes
 * anywhere in memory, makes requests that are nearly right, rings, resets, moves the rings; memory is
 * missing, the disk is full or fails. Whatever it does, nothing outside memory is touched (the
 * sanitizers see that), the disk is asked for nothing that is not on it (the model disk sees that), and
 * after a reset nothing is left: no page pinned, no request kept.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/virtio_rig.h"
#include "virtio/blk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEMORY_BYTES 0x20000u
#define QUEUES	     2u
#define DATA_AT	     0x20000u
#define DISK_BYTES   (65536u + 100u)

struct rig {
	struct virtio_rig virtio; /* first */
	struct model_disk disk;
};

static void generation_begins(struct rig *rig)
{
	rig_reset(&rig->virtio);
	rig_set_up(&rig->virtio);
}

/* A request whose parts are nearly right. */
static void request(struct rig *rig, struct input *input)
{
	static const uint32_t type[] = { 0, 1, 4, 8, 11, 13, 0, 1 };
	uint32_t q = take(input, 1) % QUEUES;
	uint32_t kind = take(input, 1), at = DATA_AT + take(input, 2), count = 0;
	uint32_t parts = take(input, 1) % 6, length = take(input, 2);
	struct model_buffer buffer[8];
	uint8_t header[32] = { (uint8_t)type[kind % 8] };

	header[8] = (uint8_t)take(input, 1);
	memcpy(header + 16, header + 8, 8);
	header[24] = header[28] = (uint8_t)(kind >> 6);
	if (at - MODEL_BASE <= MEMORY_BYTES - sizeof(header))
		memcpy(model_at(&rig->virtio.memory, at), header, sizeof(header));
	buffer[count++] = (struct model_buffer){ at, kind & 8 ? 16 : 32, false };
	for (uint32_t i = 0; i < parts; i++)
		buffer[count++] =
			(struct model_buffer){ DATA_AT + take(input, 2),
					       kind & 16 ? 512 * (length % 9) : length,
					       type[kind % 8] == 0 || type[kind % 8] == 8 };
	buffer[count++] = (struct model_buffer){ DATA_AT + take(input, 2), 1, true };
	rig_chain(&rig->virtio, q, buffer, count,
		  kind & 32 ? DATA_AT + (take(input, 2) & 0xff0) : 0);
}

static void finish_one(struct rig *rig, struct input *input)
{
	struct disk_request *done;
	uint32_t how = take(input, 1);

	rig->disk.fail = how & 1 ? -EIO : how & 2 ? -EOPNOTSUPP : 0;
	rig->disk.last_first = how & 4;
	done = disk_done(&rig->disk.disk);
	if (done)
		virtio_blk_done(rig->virtio.front, done);
}

static void registers(struct rig *rig, struct input *input)
{
	uint32_t what = take(input, 1), value = take(input, 2), change = what >> 1 & 7;

	if (change == 0)
		generation_begins(rig);
	else if (change == 7)
		rig->virtio.published.config[32] = (uint8_t)value;
	if (change == 0 || change == 7)
		virtio_front_publish(rig->virtio.front, &rig->virtio.published);
	else
		rig_change(&rig->virtio, (enum rig_change)(change - 1), what, value);
}

static void step(struct rig *rig, struct input *input)
{
	uint32_t what = take(input, 1);

	switch (what % 8) {
	case 0:
		rig_scribble(&rig->virtio, input);
		break;
	case 1:
	case 2:
		request(rig, input);
		break;
	case 3:
	case 4:
		virtio_front_work(rig->virtio.front, (uint16_t)(what / 8 % (QUEUES + 1)));
		break;
	case 5:
		finish_one(rig, input);
		break;
	case 6:
		registers(rig, input);
		break;
	default:
		rig_memory_fails(&rig->virtio, what);
		rig->disk.max = 1 + what / 8;
		break;
	}
}

static void begin(struct rig *rig, bool in_place)
{
	struct virtio_blk_config config = { .queue_count = QUEUES,
					    .disk = &rig->disk.disk,
					    .in_place = in_place };
	struct virtio_host host;

	rig_begin(&rig->virtio, MEMORY_BYTES, QUEUES);
	rig->virtio.size[1] = 4;
	model_disk_create(&rig->disk, DISK_BYTES);
	host = model_host_of(&rig->virtio.host);
	virtio_blk_offer(&rig->disk.disk.info, QUEUES, &rig->virtio.offer);
	if (virtio_blk_create(&config, &host, &rig->virtio.front) < 0)
		abort();
	generation_begins(rig);
	rig_run(&rig->virtio);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size };
	struct rig rig;

	begin(&rig, take(&input, 1) & 1);
	for (uint32_t i = 0; i < RIG_STEPS_MAX && input.left > 0; i++)
		step(&rig, &input);

	rig_reset(&rig.virtio);
	while (rig.disk.count > 0)
		virtio_blk_done(rig.virtio.front, disk_done(&rig.disk.disk));
	if (!rig_has_stopped(&rig.virtio))
		abort();
	rig_end(&rig.virtio);
	model_disk_destroy(&rig.disk);
	return 0;
}
