// SPDX-License-Identifier: Apache-2.0
/*
 * Fuzzes the balloon's front half with a driver that does what the input says: page numbers and free
 * blocks of any kind, on all queues, while memory is missing, what is freed takes its time, and the
 * device is reset. Nothing is freed while something is (the rig sees that), and after a reset and the
 * end of what is under way the driver hears of the one and nothing is pinned.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/virtio_rig.h"
#include "virtio/balloon.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEMORY_BYTES 0x40000u
#define QUEUES	     5u
#define DATA_AT	     0x40000u

struct rig {
	struct virtio_rig virtio; /* first */
	bool freeing, refuse;
};

static int free_spans(void *ctx, const struct dma_span *span, uint32_t count)
{
	struct rig *rig = ctx;

	if (rig->freeing || count == 0 || count > VIRTIO_BALLOON_SPANS)
		abort();
	for (uint32_t i = 0; i < count; i++)
		if (span[i].length == 0)
			abort();
	rig->freeing = !rig->refuse;
	return rig->refuse ? -1 : 0;
}

static void free_ends(struct rig *rig)
{
	if (!rig->freeing)
		return;
	rig->freeing = false;
	virtio_balloon_freed(rig->virtio.front);
}

static void generation_begins(struct rig *rig)
{
	rig_reset(&rig->virtio);
	/* The driver sees the end of its reset when what is under way has ended. */
	if (rig->freeing && rig_has_stopped(&rig->virtio))
		abort();
	free_ends(rig);
	if (!rig_has_stopped(&rig->virtio))
		abort();
	rig_set_up(&rig->virtio);
}

static void request(struct rig *rig, struct input *input)
{
	uint32_t q = take(input, 1) % QUEUES, how = take(input, 1), count = 1 + how % 8;
	struct model_buffer buffer[8];

	for (uint32_t i = 0; i < count; i++)
		buffer[i] = (struct model_buffer){ DATA_AT + take(input, 2),
						   how & 16 ? 4096 : take(input, 2), q >= 2 };
	if (how & 32)
		buffer[0].write = !buffer[0].write;
	rig_chain(&rig->virtio, q, buffer, count,
		  how & 64 ? DATA_AT + (take(input, 2) & 0xff0) : 0);
}

static void registers(struct rig *rig, struct input *input)
{
	uint32_t what = take(input, 1), value = take(input, 2), change = what >> 3 & 7;

	if (change == 0) {
		generation_begins(rig);
		virtio_front_publish(rig->virtio.front, &rig->virtio.published);
	} else {
		rig_change(&rig->virtio, change == 7 ? RIG_RUN : (enum rig_change)(change - 1),
			   what, value);
	}
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
		free_ends(rig);
		break;
	case 6:
		registers(rig, input);
		break;
	default:
		rig_memory_fails(&rig->virtio, what & 0x7f);
		rig->refuse = what & 0x80;
		break;
	}
}

static void begin(struct rig *rig)
{
	struct virtio_balloon_config config = { .free = free_spans, .ctx = rig };
	struct virtio_host host;

	rig_begin(&rig->virtio, MEMORY_BYTES, QUEUES);
	rig->virtio.size[1] = rig->virtio.size[3] = 4;
	rig->freeing = rig->refuse = false;
	host = model_host_of(&rig->virtio.host);
	virtio_balloon_offer(&rig->virtio.offer);
	if (virtio_balloon_create(&config, &host, &rig->virtio.front) < 0)
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
	generation_begins(&rig);
	rig_end(&rig.virtio);
	return 0;
}
