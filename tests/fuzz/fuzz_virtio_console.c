// SPDX-License-Identifier: Apache-2.0
/*
 * Fuzzes virtio-console's front half with a driver that does what the input says, as fuzz_virtio.c does
 * it for disks: rings and messages that are nearly right, or not; memory is missing, who reads takes
 * little or nothing. Nothing outside memory is touched, nothing more is put out than the guest may
 * have written, and after a reset nothing is pinned.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/virtio_rig.h"
#include "virtio/console.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEMORY_BYTES 0x40000u
#define DATA_AT	     (MODEL_BASE + VIRTIO_CONSOLE_QUEUES * MODEL_RING_BYTES)

struct rig {
	struct virtio_rig virtio; /* first */
	size_t room;
	uint32_t sum;
};

static size_t hear(void *ctx, const void *bytes, size_t count)
{
	struct rig *rig = ctx;

	if (count > rig->room)
		count = rig->room;
	for (size_t i = 0; i < count; i++)
		rig->sum += ((const uint8_t *)bytes)[i];
	rig->room -= count;
	return count;
}

static void room(void *ctx)
{
	(void)virtio_console_input(((struct rig *)ctx)->virtio.front, "again", 5);
}

static void generation_begins(struct rig *rig)
{
	rig_reset(&rig->virtio);
	rig_set_up(&rig->virtio);
}

/* A chain whose parts are nearly right, or a message. */
static void chain(struct rig *rig, struct input *input)
{
	uint32_t q = take(input, 1), how = take(input, 1), parts = 1 + how % 5;
	bool reads = q % 2 == 0;
	struct model_buffer buffer[5];

	for (uint32_t i = 0; i < parts; i++)
		buffer[i] = (struct model_buffer){ DATA_AT + take(input, 2), take(input, 2),
						   reads != (how >> 4 == 15) };
	if (how & 8) {
		uint8_t message[8] = { (uint8_t)(q >> 7), 0, 0, 0, (uint8_t)(q >> 3 & 7), 0, 1 };

		memcpy(model_at(&rig->virtio.memory, DATA_AT), message, sizeof(message));
		buffer[0] = (struct model_buffer){ DATA_AT, 8 + (how & 0x70), reads };
	}
	rig_chain(&rig->virtio, q % VIRTIO_CONSOLE_QUEUES, buffer, parts,
		  how & 32 ? DATA_AT + (take(input, 2) & 0xff0) : 0);
}

static void registers(struct rig *rig, struct input *input)
{
	uint32_t what = take(input, 1), value = take(input, 2), change = what >> 2 & 7;

	if (change == 0) {
		generation_begins(rig);
		virtio_front_publish(rig->virtio.front, &rig->virtio.published);
	} else {
		rig_change(&rig->virtio, change == 7 ? RIG_FEATURES : (enum rig_change)(change - 1),
			   what, value);
	}
}

static void step(struct rig *rig, struct input *input)
{
	static const uint8_t text[70000];
	struct virtio_front *front = rig->virtio.front;
	uint32_t what = take(input, 1);

	switch (what % 8) {
	case 0:
		rig_scribble(&rig->virtio, input);
		break;
	case 1:
	case 2:
		chain(rig, input);
		break;
	case 3:
		virtio_front_work(front, (uint16_t)(what / 8 % (VIRTIO_CONSOLE_QUEUES + 1)));
		break;
	case 4:
		(void)virtio_console_input(front, text, take(input, 3) % sizeof(text));
		break;
	case 5:
		rig->room = take(input, 2);
		virtio_console_ready(front);
		break;
	case 6:
		registers(rig, input);
		break;
	default:
		rig_memory_fails(&rig->virtio, what);
		break;
	}
}

static void begin(struct rig *rig)
{
	struct virtio_console_config config = {
		.name = "fuzz", .output = hear, .room = room, .ctx = rig
	};
	struct virtio_host host;

	rig_begin(&rig->virtio, MEMORY_BYTES, VIRTIO_CONSOLE_QUEUES);
	rig->virtio.size[3] = 4;
	rig->room = SIZE_MAX;
	rig->sum = 0;
	host = model_host_of(&rig->virtio.host);
	virtio_console_offer(&rig->virtio.offer);
	if (virtio_console_create(&config, &host, &rig->virtio.front) < 0)
		abort();
	generation_begins(rig);
	rig_run(&rig->virtio);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size };
	struct rig rig;

	begin(&rig);
	for (uint32_t i = 0; i < RIG_STEPS_MAX && input.left > 0; i++)
		step(&rig, &input);

	rig_reset(&rig.virtio);
	if (!rig_has_stopped(&rig.virtio))
		abort();
	rig_end(&rig.virtio);
	return 0;
}
