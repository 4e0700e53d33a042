/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-console's front half: see console.h. Input waits in a ring of our own for the guest's buffers
 * and stays there over a reset of the device, as bytes do on a wire that nobody reads.
 *
 * What the guest writes is handed on from where it lies. Its pages are pinned all at once, so that
 * those that are elsewhere are fetched together; where so many cannot be pinned, one by one.
 *
 * With MULTIPORT the two sides first agree on the one port (virtio 1.2, 5.3.6.2):
 *
 *	driver                device
 *	DEVICE_READY  ---->
 *	              <----   PORT_ADD
 *	PORT_READY    ---->
 *	              <----   PORT_OPEN, PORT_NAME: who finds the name finds a port that is open
 *
 * What the device has still to say is a set of bits: it cannot grow. Tested in
 * tests/virtio/test_small.c, fuzzed by tests/fuzz/fuzz_virtio_console.c.
 */
#include "virtio/console.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/limits.h"
#include "virtio/queue.h"

#define QUEUE_SIZE 64u
#define CHAIN_MAX  64u
#define PIECE	   65536u /* bytes of output that are pinned at once, at most */

#define F_MULTIPORT (1ull << 1)

/* Events of control messages. */
enum {
	DEVICE_READY = 0,
	PORT_ADD = 1,
	PORT_READY = 3,
	PORT_OPEN = 6,
	PORT_NAME = 7,
};

struct control {
	uint32_t port;
	uint16_t event, value;
};

_Static_assert(sizeof(struct control) == 8, "virtio 1.2, 5.3.6.2");

struct console_queue {
	struct virtio_queue ring;
	struct virtio_chain chain;
	bool popped;
	bool copied;  /* INPUT, TELL: the chain has its bytes */
	size_t done;  /* bytes that have been copied */
	size_t bytes; /* to be copied */
	uint64_t at;  /* OUTPUT: bytes of the chain that have been put out */
};

struct virtio_console {
	struct virtio_front front; /* first */
	struct virtio_console_config config;
	struct console_queue queue[VIRTIO_CONSOLE_QUEUES];
	bool refused;	/* input was */
	uint8_t *input; /* a ring */
	size_t input_first, input_count;
	uint32_t to_tell; /* bits, by event */
	uint16_t telling; /* the event that is being told */
	struct control heard;
	uint8_t message[sizeof(struct control) + VIRTIO_CONSOLE_NAME_MAX];
};

void virtio_console_offer(struct virtio_offer *ret_offer)
{
	/* cols, rows, max_nr_ports, emerg_wr */
	uint16_t config[6] = { 0, 0, 1 };

	*ret_offer =
		(struct virtio_offer){ .kind = VIRTIO_KIND_CONSOLE,
				       .queue_count = VIRTIO_CONSOLE_QUEUES,
				       .queue_size = QUEUE_SIZE,
				       .config_bytes = sizeof(config),
				       .features = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC |
						   VIRTIO_F_EVENT_IDX | F_MULTIPORT };
	memcpy(ret_offer->config, config, sizeof(config));
}

static bool console_reset(struct virtio_front *front)
{
	struct virtio_console *console = (struct virtio_console *)front;

	for (uint32_t i = 0; i < VIRTIO_CONSOLE_QUEUES; i++) {
		console->queue[i].ring = (struct virtio_queue){ 0 };
		console->queue[i].popped = false;
	}
	console->to_tell = 0;
	return true;
}

static int console_start(struct virtio_front *front, const struct virtio_published *published)
{
	struct virtio_console *console = (struct virtio_console *)front;
	uint16_t count = front->features & F_MULTIPORT ? VIRTIO_CONSOLE_QUEUES : 2;
	int error = 0;

	for (uint16_t i = 0; error == 0 && i < count && i < published->queue_count; i++)
		if (published->queue[i].enabled)
			error = virtio_queue_start(&console->queue[i].ring,
						   virtio_front_dma(front, i), &published->queue[i],
						   front->features, CHAIN_MAX);
	return error;
}

static int pop(struct virtio_console *console, struct console_queue *queue)
{
	int error = 0;

	if (!queue->popped)
		error = virtio_front_judged(&console->front,
					    virtio_queue_pop(&queue->ring, &queue->chain));
	if (error < 0 || queue->popped)
		return error;
	queue->popped = true;
	queue->copied = false;
	queue->done = queue->bytes = 0;
	queue->at = 0;
	return 0;
}

static int push(struct virtio_console *console, struct console_queue *queue, uint32_t written)
{
	int error = virtio_front_judged(
		&console->front, virtio_queue_push(&queue->ring, queue->chain.head, written));

	if (error == 0)
		queue->popped = false;
	return error;
}

/* --- to the guest --- */

/* The ring's bytes into the chain, in one or two parts; they leave the ring when all are copied. */
static int fill(struct virtio_console *console, struct console_queue *queue)
{
	struct dma *dma = virtio_front_dma(&console->front, VIRTIO_CONSOLE_QUEUE_INPUT);

	if (queue->bytes == 0) {
		queue->bytes = console->input_count;
		if (queue->bytes > queue->chain.write_bytes)
			queue->bytes = (size_t)queue->chain.write_bytes;
	}
	while (queue->done < queue->bytes) {
		size_t from = (console->input_first + queue->done) % VIRTIO_CONSOLE_INPUT_MAX;
		size_t length = VIRTIO_CONSOLE_INPUT_MAX - from, copied = 0;
		int error;

		if (length > queue->bytes - queue->done)
			length = queue->bytes - queue->done;
		error = virtio_chain_write(dma, &queue->chain, queue->done, console->input + from,
					   length, &copied);
		queue->done += copied;
		if (error < 0)
			return virtio_front_judged(&console->front, error);
	}
	console->input_first = (console->input_first + queue->bytes) % VIRTIO_CONSOLE_INPUT_MAX;
	console->input_count -= queue->bytes;
	queue->copied = true;
	return 0;
}

static int serve_input(struct virtio_console *console, struct console_queue *queue)
{
	int error;

	if (console->input_count == 0 && !(queue->popped && queue->copied))
		return -ENOENT;
	error = pop(console, queue);
	if (error == 0 && !queue->copied)
		error = fill(console, queue);
	return error < 0 ? error : push(console, queue, (uint32_t)queue->bytes);
}

/* --- from the guest --- */

/* What of a chain comes next, up to `max` bytes of it, pinned: how many spans, and where they are. */
static int pin_output(struct virtio_console *console, struct console_queue *queue, uint64_t max,
		      struct dma_span *span, void **hva)
{
	struct dma *dma = virtio_front_dma(&console->front, VIRTIO_CONSOLE_QUEUE_OUTPUT);
	uint16_t count = virtio_chain_slice(&queue->chain, false, queue->at, max, span);
	int error = dma_pin(dma, span, count, hva);

	if (error == -ENOBUFS) {
		uint64_t page = PAGE_BYTES - span[0].gpa % PAGE_BYTES;

		count = virtio_chain_slice(&queue->chain, false, queue->at, page, span);
		count = count > 1 ? 1 : count;
		error = dma_pin(dma, span, count, hva);
	}
	return error < 0 ? virtio_front_judged(&console->front, error) : count;
}

/* A piece of the chain; as much of it as is taken. */
static int put_out(struct virtio_console *console, struct console_queue *queue)
{
	struct dma_span span[CHAIN_MAX];
	void *hva[CHAIN_MAX];
	int count = pin_output(console, queue, PIECE, span, hva);
	uint64_t taken = 0, offered = 0;

	if (count < 0)
		return count;
	for (int i = 0; i < count && taken == offered; i++) {
		offered += span[i].length;
		taken += console->config.output(console->config.ctx, hva[i], span[i].length);
	}
	dma_unpin(virtio_front_dma(&console->front, VIRTIO_CONSOLE_QUEUE_OUTPUT), span,
		  (uint32_t)count);
	queue->at += taken;
	return taken < offered ? -EBUSY : 0;
}

static int serve_output(struct virtio_console *console, struct console_queue *queue)
{
	int error = pop(console, queue);

	while (error == 0 && queue->at < queue->chain.read_bytes)
		error = put_out(console, queue);
	return error < 0 ? error : push(console, queue, 0);
}

/* --- control --- */

static size_t make_message(struct virtio_console *console)
{
	struct control control = { .event = console->telling, .value = 1 };
	size_t name = strnlen(console->config.name, VIRTIO_CONSOLE_NAME_MAX - 1);

	memcpy(console->message, &control, sizeof(control));
	if (console->telling != PORT_NAME)
		return sizeof(control);
	memcpy(console->message + sizeof(control), console->config.name, name);
	return sizeof(control) + name;
}

static int serve_tell(struct virtio_console *console, struct console_queue *queue)
{
	int error;

	if (console->to_tell == 0 && !queue->popped)
		return -ENOENT;
	error = pop(console, queue);
	if (error < 0)
		return error;
	if (queue->bytes == 0) {
		console->telling = (uint16_t)__builtin_ctz(console->to_tell);
		queue->bytes = make_message(console);
		if (queue->chain.write_bytes < queue->bytes)
			return virtio_front_broken(&console->front);
		console->to_tell &= ~(1u << console->telling);
	}
	error = virtio_front_judged(
		&console->front,
		virtio_chain_write(virtio_front_dma(&console->front, VIRTIO_CONSOLE_QUEUE_TELL),
				   &queue->chain, 0, console->message, queue->bytes, &queue->done));
	return error < 0 ? error : push(console, queue, (uint32_t)queue->bytes);
}

static void hear(struct virtio_console *console, const struct control *control)
{
	if (control->event == DEVICE_READY && control->value == 1)
		console->to_tell |= 1u << PORT_ADD;
	else if (control->event == PORT_READY && control->port == 0 && control->value == 1)
		console->to_tell |= 1u << PORT_OPEN | 1u << PORT_NAME;
}

static int serve_hear(struct virtio_console *console, struct console_queue *queue)
{
	size_t bytes = sizeof(console->heard);
	int error = pop(console, queue);

	/* What is shorter is no message. */
	if (error == 0 && !queue->copied && queue->chain.read_bytes >= bytes) {
		error = virtio_front_judged(
			&console->front,
			virtio_chain_read(
				virtio_front_dma(&console->front, VIRTIO_CONSOLE_QUEUE_HEAR),
				&queue->chain, 0, &console->heard, bytes, &queue->done));
		queue->copied = error == 0;
		if (error == 0)
			hear(console, &console->heard);
	}
	return error < 0 ? error : push(console, queue, 0);
}

static int (*const serve[])(struct virtio_console *, struct console_queue *) = {
	[VIRTIO_CONSOLE_QUEUE_INPUT] = serve_input,
	[VIRTIO_CONSOLE_QUEUE_OUTPUT] = serve_output,
	[VIRTIO_CONSOLE_QUEUE_TELL] = serve_tell,
	[VIRTIO_CONSOLE_QUEUE_HEAR] = serve_hear,
};

static void serve_queue(struct virtio_console *console, uint16_t index)
{
	struct console_queue *queue = &console->queue[index];
	int error = 0;

	if (!virtio_front_runs(&console->front) || !queue->ring.ready)
		return;
	for (uint32_t i = 0; error == 0 && !virtio_front_share(&console->front, index, i); i++)
		error = serve[index](console, queue);
	virtio_front_tell(&console->front, index, &queue->ring);
}

static void console_run(struct virtio_front *front, uint16_t index)
{
	struct virtio_console *console = (struct virtio_console *)front;

	serve_queue(console, index);
	if (index == VIRTIO_CONSOLE_QUEUE_HEAR && console->to_tell)
		serve_queue(console, VIRTIO_CONSOLE_QUEUE_TELL);
	if (console->refused && console->input_count < VIRTIO_CONSOLE_INPUT_MAX / 2) {
		console->refused = false;
		if (console->config.room)
			console->config.room(console->config.ctx);
	}
}

/* As much as there is room for. */
static size_t add_input(struct virtio_console *console, const uint8_t *bytes, size_t count)
{
	size_t room = VIRTIO_CONSOLE_INPUT_MAX - console->input_count;
	size_t at = (console->input_first + console->input_count) % VIRTIO_CONSOLE_INPUT_MAX;
	size_t part = VIRTIO_CONSOLE_INPUT_MAX - at;

	if (count > room)
		count = room;
	if (part > count)
		part = count;
	memcpy(console->input + at, bytes, part);
	memcpy(console->input, bytes + part, count - part);
	console->input_count += count;
	return count;
}

size_t virtio_console_input(struct virtio_front *front, const void *bytes, size_t count)
{
	struct virtio_console *console = (struct virtio_console *)front;
	size_t taken = 0;

	/* As long as the guest takes it: one that finds nothing more rings for the next buffers. */
	do {
		taken += add_input(console, (const uint8_t *)bytes + taken, count - taken);
		serve_queue(console, VIRTIO_CONSOLE_QUEUE_INPUT);
	} while (taken < count && console->input_count < VIRTIO_CONSOLE_INPUT_MAX);
	console->refused |= taken < count;
	return taken;
}

void virtio_console_ready(struct virtio_front *front)
{
	serve_queue((struct virtio_console *)front, VIRTIO_CONSOLE_QUEUE_OUTPUT);
}

static void console_destroy(struct virtio_front *front)
{
	free(((struct virtio_console *)front)->input);
	free(front);
}

static const struct virtio_front_ops console_ops = { .reset = console_reset,
						     .start = console_start,
						     .run = console_run,
						     .destroy = console_destroy };

int virtio_console_create(const struct virtio_console_config *config,
			  const struct virtio_host *host, struct virtio_front **ret_front)
{
	struct virtio_console *console = calloc(1, sizeof(*console));

	if (!console)
		return -ENOMEM;
	console->front = (struct virtio_front){ .ops = &console_ops,
						.host = *host,
						.queue_count = VIRTIO_CONSOLE_QUEUES };
	console->config = *config;
	console->input = malloc(VIRTIO_CONSOLE_INPUT_MAX);
	if (!console->input) {
		free(console);
		return -ENOMEM;
	}
	*ret_front = &console->front;
	return 0;
}
