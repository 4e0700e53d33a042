// SPDX-License-Identifier: Apache-2.0
/*
 * Fuzzes the hand-over of queues: one node's table of places (core/queue_place.h) and its front half of a
 * disk, put together as node/queues.c and node/io_queues.c do, among peers that say what the input says:
 * a queue is given with any indices, from anywhere, of any generation; places, ends and publications come
 * in any order. Meanwhile the driver works, memory is missing, and the disk takes its time.
 *
 * Nothing outside memory is touched, and the disk is asked for nothing that is not on it. Whatever is
 * said, a queue that the table has elsewhere is not worked on here; doorbells are routed to a node that
 * there is, and not to this one; and after a reset nothing is left.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/queue_place.h"
#include "tests/fuzz/virtio_rig.h"
#include "virtio/blk.h"
#include "virtio/queue.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEMORY_BYTES 0x20000u
#define QUEUES	     2u
#define NODES	     3u
#define DATA_AT	     0x20000u
#define DISK_BYTES   (65536u + 100u)

struct arrival {
	bool there;
	uint64_t generation;
	struct virtio_queue_state state;
};

struct rig {
	struct virtio_rig virtio; /* first */
	struct model_disk disk;
	struct queue_places places; /* knows of a generation before the front half does */
	struct virtio_published posted;
	bool is_posted;
	struct arrival arrival[QUEUES];
	bool leaving[QUEUES];
};

/* --- the control thread ----------------------------------------------------------------------------- */

static void post(struct rig *rig)
{
	enum queue_verdict verdict =
		queue_places_begin(&rig->places, rig->virtio.published.generation);

	if (verdict == QUEUE_LIE)
		abort();
	rig->posted = rig->virtio.published;
	rig->is_posted = true;
}

static void generation_begins(struct rig *rig)
{
	rig->virtio.published.generation++;
	rig->virtio.published.running = false;
	post(rig);
}

/* The generation that there is, mostly. */
static uint64_t some_generation(struct rig *rig, uint32_t what)
{
	return rig->places.generation - (what % 4 == 3) + (what % 8 == 4);
}

static void on_queue(struct rig *rig, struct input *input, uint32_t what)
{
	uint16_t q = (uint16_t)(what & 1), src = (uint16_t)(what >> 1 & 3);
	uint64_t generation = some_generation(rig, take(input, 1));
	uint64_t epoch = rig->places.epoch[q] + take(input, 1) % 4;
	struct virtio_queue_state state = { (uint16_t)take(input, 2), (uint16_t)take(input, 2),
					    (uint16_t)take(input, 2) };

	if (queue_place_on_queue(&rig->places, q, src, generation, epoch) == QUEUE_NEWS)
		rig->arrival[q] = (struct arrival){ true, generation, state };
}

static void on_word(struct rig *rig, struct input *input, uint32_t what)
{
	uint16_t q = (uint16_t)(what & 1), src = (uint16_t)(what >> 1 & 3);
	uint64_t generation = some_generation(rig, take(input, 1));

	if (what & 8)
		(void)queue_places_on_stopped(&rig->places, src, generation);
	else
		(void)queue_place_on_place(&rig->places, q, src, generation,
					   rig->places.epoch[q] + take(input, 1) % 4);
}

/* --- the io thread ---------------------------------------------------------------------------------- */

static uint64_t front_generation(const struct rig *rig)
{
	return rig->virtio.front->generation;
}

static void take_arrival(struct rig *rig, uint16_t q)
{
	struct arrival *arrival = &rig->arrival[q];

	if (!arrival->there || arrival->generation > front_generation(rig))
		return;
	if (arrival->generation == front_generation(rig)) {
		int r = virtio_front_take(rig->virtio.front, q, &arrival->state);

		if (r == -EAGAIN)
			return;
		(void)queue_place_taken(&rig->places, q, front_generation(rig));
	}
	arrival->there = false;
}

static void take_mail(struct rig *rig)
{
	if (rig->is_posted) {
		if (rig->posted.generation != front_generation(rig))
			memset(rig->leaving, 0, sizeof(rig->leaving));
		rig->is_posted = false;
		virtio_front_publish(rig->virtio.front, &rig->posted);
		if (rig->places.self == 0)
			(void)queue_places_on_stopped(&rig->places, 0, rig->virtio.host.stopped);
	}
	for (uint16_t q = 0; q < QUEUES; q++)
		take_arrival(rig, q);
}

static void leave(struct rig *rig, uint16_t q, uint16_t to)
{
	if (rig->leaving[q] || virtio_front_leave(rig->virtio.front, q) < 0)
		return;
	if (queue_place_leave(&rig->places, q, front_generation(rig), to) < 0)
		virtio_front_stay(rig->virtio.front, q);
	else
		rig->leaving[q] = true;
}

static void give(struct rig *rig, uint16_t q)
{
	struct virtio_queue_state state;
	uint64_t epoch;

	if (!rig->leaving[q] || virtio_front_give(rig->virtio.front, q, &state) < 0)
		return;
	if (queue_place_giving(&rig->places, q, front_generation(rig), &epoch) == 0)
		queue_place_gave(&rig->places, q);
	rig->leaving[q] = false;
}

static void finish_one(struct rig *rig)
{
	struct disk_request *done = disk_done(&rig->disk.disk);

	if (done)
		virtio_blk_done(rig->virtio.front, done);
}

/* --- the guest -------------------------------------------------------------------------------------- */

static void request(struct rig *rig, struct input *input)
{
	uint32_t q = take(input, 1) % QUEUES, kind = take(input, 1), at = DATA_AT + take(input, 2);
	bool write = kind & 1;
	struct model_buffer buffer[3] = { { at, 16, false },
					  { DATA_AT + take(input, 2), 512 * (1 + kind / 2 % 16),
					    !write },
					  { DATA_AT + take(input, 2), 1, true } };
	uint8_t header[16] = { write };

	header[8] = (uint8_t)take(input, 1);
	if (at - MODEL_BASE <= MEMORY_BYTES - sizeof(header))
		memcpy(model_at(&rig->virtio.memory, at), header, sizeof(header));
	rig_chain(&rig->virtio, q, buffer, 3, 0);
}

static void runs(struct rig *rig)
{
	rig->virtio.published.running = !rig->virtio.published.running;
	post(rig);
}

static void resets(struct rig *rig, bool set_up)
{
	generation_begins(rig);
	if (set_up)
		rig_set_up(&rig->virtio);
}

/* --- what must hold --------------------------------------------------------------------------------- */

static void check(struct rig *rig)
{
	struct virtio_front *front = rig->virtio.front;
	uint16_t to;

	for (uint16_t q = 0; q < QUEUES; q++) {
		struct queue_place place = queue_place_read(&rig->places, q);

		if (queue_place_route(&rig->places, q, &to) == QUEUE_FORWARD &&
		    (to >= NODES || to == rig->places.self))
			abort();
		if (front->known && front->generation == rig->places.generation &&
		    (place.state == QUEUE_AWAY || place.state == QUEUE_ARRIVING) &&
		    front->ops->ring(front, q)->ready)
			abort();
	}
}

static void step(struct rig *rig, struct input *input)
{
	uint32_t what = take(input, 1), rest = what >> 4;

	switch (what & 15) {
	case 0:
		rig_scribble(&rig->virtio, input);
		break;
	case 1:
	case 2:
		request(rig, input);
		break;
	case 3:
		virtio_front_work(rig->virtio.front, (uint16_t)(rest % (QUEUES + 1)));
		break;
	case 4:
	case 5:
		finish_one(rig);
		break;
	case 6:
		rig_memory_fails(&rig->virtio, take(input, 1));
		break;
	case 7:
	case 8:
		on_queue(rig, input, rest);
		break;
	case 9:
		on_word(rig, input, rest);
		break;
	case 10:
		leave(rig, (uint16_t)(rest & 1), (uint16_t)(rest >> 1 & 3));
		break;
	case 11:
		give(rig, (uint16_t)(rest & 1));
		break;
	case 12:
		runs(rig);
		break;
	case 13:
		resets(rig, rest & 1);
		break;
	default:
		take_mail(rig);
		break;
	}
	check(rig);
}

static void begin(struct rig *rig, uint32_t how)
{
	struct virtio_blk_config config = { .queue_count = QUEUES, .in_place = how & 4 };
	struct virtio_host host;

	memset(rig, 0, sizeof(*rig));
	rig_begin(&rig->virtio, MEMORY_BYTES, QUEUES);
	model_disk_create(&rig->disk, DISK_BYTES);
	queue_places_init(&rig->places, (uint16_t)(how % NODES), NODES, QUEUES);
	config.disk = &rig->disk.disk;
	host = model_host_of(&rig->virtio.host);
	host.queues_elsewhere = rig->places.self != 0;
	virtio_blk_offer(&rig->disk.disk.info, QUEUES, &rig->virtio.offer);
	if (virtio_blk_create(&config, &host, &rig->virtio.front) < 0)
		abort();
	resets(rig, true);
	take_mail(rig);
	runs(rig);
	take_mail(rig);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size };
	struct rig rig;

	begin(&rig, take(&input, 1));
	for (uint32_t i = 0; i < RIG_STEPS_MAX && input.left > 0; i++)
		step(&rig, &input);

	generation_begins(&rig);
	take_mail(&rig);
	while (rig.disk.count > 0)
		finish_one(&rig);
	if (!rig_has_stopped(&rig.virtio))
		abort();
	rig_end(&rig.virtio);
	model_disk_destroy(&rig.disk);
	return 0;
}
