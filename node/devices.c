/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's devices, where the seat PC is: the PC (machine/pc.h) behind a lock, and a thread that
 * serves the other nodes.
 *
 * vCPUs of this node call in directly. Requests of other nodes are queued by the control thread,
 * which must never wait, and served by the device thread, which does so for the PC's lock, but for no
 * user: output that nobody reads is the guest's driver's to keep, until the guest's end. A vCPU has
 * one request under way at most, and does not leave its node before the answer: so
 * a node has as many as the pod has vCPUs at most, all nodes together, too. One that sends more is
 * broken and ends the pod; for what one such node may fill, there is room besides that of the others.
 * The thread also carries the devices' timers.
 *
 * Other nodes' EOIs are bits of a set, by vector, for the same reason. Two that fall together are
 * one: between the two there is an interrupt, which the PC raises only when it has seen the first.
 *
 * What the io thread has to say about virtio devices is kept by device, the last word of each kind,
 * and said to the PC by the device thread: the io thread must not wait for the PC, which at the
 * guest's end waits for who reads its last words.
 *
 * The tail of what the kernel said on its console is kept, so that the end of a guest can be
 * explained.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "node/deadline.h"
#include "node/io.h"
#include "node/node_state.h"

#define TAIL_BYTES	  8192
#define INPUT_PATIENCE_NS 5000000
#define PRESS_PATIENCE_NS                                                                          \
	2000000000ull /* it is pressed once, and what follows is the guest's end */
#define REQUESTS_MAX (2 * VCPUS_MAX)

struct request {
	uint16_t src;
	struct control_io_request io;
};

/* Of one virtio device, from the io thread. */
struct word {
	bool any, stopped, needs_reset;
	uint64_t stopped_generation, reset_generation;
};

struct devices {
	struct node *node;
	pthread_t thread;

	pthread_mutex_t lock; /* guards pc, tail, at_work */
	struct pc *pc;
	uint32_t at_work; /* vCPU whose access is being served */
	size_t tail_size;
	char tail[TAIL_BYTES];

	pthread_mutex_t queue_lock; /* guards the rest */
	pthread_cond_t queued;
	uint32_t first, count;
	bool timer_changed;
	bool ended[256];  /* vectors of EOIs */
	bool eoi;	  /* one of them is set */
	uint16_t presser; /* that has the power button pressed; NODE_NONE: nobody */
	bool words;	  /* some word[].any is set */
	bool room;	  /* the console takes more */
	struct word word[VIRTIO_DEVICES_MAX];
	struct request *queue; /* REQUESTS_MAX of them */
	uint32_t queued_of[NODES_MAX];
};

static void on_interrupt(void *ctx, const struct interrupt *interrupt)
{
	struct devices *d = ctx;
	guest_io_interrupt(d->node, interrupt);
}

static void tail_add(struct devices *d, char byte)
{
	if (d->tail_size == TAIL_BYTES) {
		memmove(d->tail, d->tail + TAIL_BYTES / 2, TAIL_BYTES / 2);
		d->tail_size = TAIL_BYTES / 2;
	}
	d->tail[d->tail_size++] = byte;
}

/* Also of what is overrun: a kernel that panics does not wait for who reads. */
static void on_wrote(void *ctx, enum pc_serial port, uint8_t byte)
{
	if (port == PC_CONSOLE)
		tail_add(ctx, (char)byte);
}

static size_t on_output(void *ctx, enum pc_serial port, const uint8_t *bytes, size_t count)
{
	struct devices *d = ctx;
	return console_offer(d->node->console, port, bytes, count);
}

static void on_drain(void *ctx)
{
	struct devices *d = ctx;
	console_flush(d->node->console);
}

/* The guest's last words come first: who reads them may be slow. */
static void on_power_off(void *ctx)
{
	struct devices *d = ctx;
	console_flush(d->node->console);
	node_end_with(d->node, CONTROL_END_POWER_OFF, 0, "the guest powered off");
}

#define PANIC_MARK "Kernel panic"
#define START_MARK "eagre: cannot start: " /* guest/starter.c */

/* From the last such mark on the console to the line's end, without the terminal's control characters. */
static void last_line(const struct devices *d, const char *mark, char *line, size_t size)
{
	const char *found = NULL;
	line[0] = '\0';
	for (size_t i = 0; i + strlen(mark) <= d->tail_size; i++)
		if (memcmp(d->tail + i, mark, strlen(mark)) == 0)
			found = d->tail + i;
	if (!found)
		return;
	size_t n = 0;
	while (found < d->tail + d->tail_size && (unsigned char)*found >= ' ' && n + 1 < size)
		line[n++] = *found++;
	line[n] = '\0';
}

static void on_reset(void *ctx, enum pc_reset why)
{
	struct devices *d = ctx;
	struct node *node = d->node;
	struct control_end end = {
		.kind = CONTROL_END_RESET, .status = 1, .vcpu = NODE_NONE, .node = NODE_NONE
	};
	if (d->at_work < node->config->vcpu_count) {
		end.vcpu = (uint16_t)d->at_work;
		end.node = vcpu_place_read(&node->places, d->at_work).node;
	}
	const char *name = members_name(node->members, end.node);
	console_flush(node->console);
	char line[256] = "", start[256] = "";
	/* A kernel that panics resets warm; one that reboots may do so, too, if told to. */
	if (why == PC_RESET_WARM) {
		last_line(d, PANIC_MARK, line, sizeof(line));
		last_line(d, START_MARK, start, sizeof(start));
	}
	if (start[0]) {
		snprintf(end.text, sizeof(end.text), "the disk cannot be started: %s",
			 start + strlen(START_MARK));
	} else if (line[0]) {
		end.kind = CONTROL_END_PANIC;
		snprintf(end.text, sizeof(end.text),
			 "the guest's kernel panicked on vCPU %u, node %u (%s): %s", end.vcpu,
			 end.node, name, line);
	} else {
		snprintf(end.text, sizeof(end.text),
			 "the guest asked for a %sreset (vCPU %u, node %u (%s))",
			 why == PC_RESET_WARM ? "warm " : "", end.vcpu, end.node, name);
		node_guest_reset(node, &end);
		return;
	}
	node_end(node, &end, true);
}

static void on_doorbell(void *ctx, uint8_t device, uint16_t queue)
{
	struct devices *d = ctx;
	queues_doorbell(d->node, device, queue);
}

static void on_published(void *ctx, const struct virtio_published *published)
{
	struct devices *d = ctx;
	queues_publish(d->node, published);
}

static const struct pc_ops ops = {
	.interrupt = on_interrupt,
	.wrote = on_wrote,
	.output = on_output,
	.drain = on_drain,
	.power_off = on_power_off,
	.reset = on_reset,
	.doorbell = on_doorbell,
	.published = on_published,
};

/* The device thread looks at the timers again if an access may have moved them. */
static void timers_changed(struct devices *d, uint64_t before, uint64_t after)
{
	if (after >= before)
		return;
	pthread_mutex_lock(&d->queue_lock);
	d->timer_changed = true;
	pthread_cond_signal(&d->queued);
	pthread_mutex_unlock(&d->queue_lock);
}

void devices_access(struct devices *d, uint32_t vcpu, bool mmio, const struct pc_access *access)
{
	uint64_t now = node_now_ns(d->node);
	pthread_mutex_lock(&d->lock);
	uint64_t before = pc_deadline(d->pc);
	d->at_work = vcpu;
	if (mmio)
		pc_mmio(d->pc, access, now);
	else
		pc_io(d->pc, access, now);
	d->at_work = UINT32_MAX;
	uint64_t after = pc_deadline(d->pc);
	pthread_mutex_unlock(&d->lock);
	timers_changed(d, before, after);
}

void devices_eoi(struct devices *d, uint8_t vector)
{
	pthread_mutex_lock(&d->lock);
	pc_eoi(d->pc, vector);
	pthread_mutex_unlock(&d->lock);
}

void devices_eoi_later(struct devices *d, uint8_t vector)
{
	pthread_mutex_lock(&d->queue_lock);
	d->ended[vector] = true;
	d->eoi = true;
	pthread_cond_signal(&d->queued);
	pthread_mutex_unlock(&d->queue_lock);
}

/* In front of requests: a vCPU says EOI before it goes on to its next access. */
static void take_eois(struct devices *d)
{
	bool ended[256], any;
	pthread_mutex_lock(&d->queue_lock);
	any = d->eoi;
	if (any) {
		memcpy(ended, d->ended, sizeof(ended));
		memset(d->ended, 0, sizeof(d->ended));
		d->eoi = false;
	}
	pthread_mutex_unlock(&d->queue_lock);
	for (unsigned int vector = 0; any && vector < 256; vector++)
		if (ended[vector])
			devices_eoi(d, (uint8_t)vector);
}

/* ---- from the io thread ---------------------------------------------------------------------- */

/* The word of a device, with queue_lock held; NULL: there is no such device, and it is not held. */
static struct word *begin_word(struct devices *d, uint8_t device)
{
	if (!d || device >= VIRTIO_DEVICES_MAX)
		return NULL;
	pthread_mutex_lock(&d->queue_lock);
	return &d->word[device];
}

static void end_word(struct devices *d, struct word *word)
{
	word->any = true;
	d->words = true;
	pthread_cond_signal(&d->queued);
	pthread_mutex_unlock(&d->queue_lock);
}

void devices_stopped(struct devices *d, uint8_t device, uint64_t generation)
{
	struct word *word = begin_word(d, device);
	if (!word)
		return;
	word->stopped = true;
	word->stopped_generation = generation;
	end_word(d, word);
}

void devices_needs_reset(struct devices *d, uint8_t device, uint64_t generation)
{
	struct word *word = begin_word(d, device);
	if (!word)
		return;
	/* An older word, whoever says it, does not take a newer one's place. */
	if (!word->needs_reset || generation > word->reset_generation)
		word->reset_generation = generation;
	word->needs_reset = true;
	end_word(d, word);
}

static void take_word(struct devices *d, uint8_t device)
{
	pthread_mutex_lock(&d->queue_lock);
	struct word word = d->word[device];
	d->word[device] = (struct word){ 0 };
	pthread_mutex_unlock(&d->queue_lock);
	if (!word.any)
		return;
	pthread_mutex_lock(&d->lock);
	if (word.needs_reset)
		pc_device_needs_reset(d->pc, device, word.reset_generation);
	if (word.stopped)
		pc_device_stopped(d->pc, device, word.stopped_generation);
	pthread_mutex_unlock(&d->lock);
}

static void take_words(struct devices *d)
{
	pthread_mutex_lock(&d->queue_lock);
	bool any = d->words;
	d->words = false; /* what comes from now on is looked at again */
	pthread_mutex_unlock(&d->queue_lock);
	for (uint8_t device = 0; any && device < VIRTIO_DEVICES_MAX; device++)
		take_word(d, device);
}

void devices_output_room(struct devices *d)
{
	pthread_mutex_lock(&d->queue_lock);
	d->room = true;
	pthread_cond_signal(&d->queued);
	pthread_mutex_unlock(&d->queue_lock);
}

static void take_room(struct devices *d)
{
	pthread_mutex_lock(&d->queue_lock);
	bool room = d->room;
	d->room = false;
	pthread_mutex_unlock(&d->queue_lock);
	if (!room)
		return;
	pthread_mutex_lock(&d->lock);
	pc_output_room(d->pc);
	pthread_mutex_unlock(&d->lock);
}

/*
 * For who must not wait for long: at the guest's end whoever has the lock waits for a reader, and so
 * for the console's thread.
 */
static bool lock_within(struct devices *d, uint64_t patience_ns)
{
	struct timespec until = deadline_after_ns(patience_ns);
	return deadline_lock(&d->lock, &until) == 0;
}

/* For the console's thread. */
static bool lock_for_input(struct devices *d)
{
	return lock_within(d, INPUT_PATIENCE_NS);
}

size_t devices_input(struct devices *d, unsigned int port, const uint8_t *data, size_t size)
{
	if (!lock_for_input(d))
		return 0;
	uint64_t before = pc_deadline(d->pc);
	size_t taken = pc_serial_input(d->pc, port, data, size, node_now_ns(d->node));
	uint64_t after = pc_deadline(d->pc);
	pthread_mutex_unlock(&d->lock);
	timers_changed(d, before, after);
	return taken;
}

size_t devices_break(struct devices *d, unsigned int port)
{
	if (!lock_for_input(d))
		return 0;
	size_t taken = pc_serial_break(d->pc, port);
	pthread_mutex_unlock(&d->lock);
	return taken;
}

bool devices_press_power_button(struct devices *d)
{
	if (atomic_load(&d->node->button_pressed))
		return true;
	if (!lock_within(d, PRESS_PATIENCE_NS))
		return false;
	bool pressed = pc_press_power_button(d->pc);
	pthread_mutex_unlock(&d->lock);
	if (pressed)
		atomic_store(&d->node->button_pressed, true);
	return pressed;
}

void devices_press_later(struct devices *d, uint16_t src)
{
	pthread_mutex_lock(&d->queue_lock);
	d->presser = src;
	pthread_cond_signal(&d->queued);
	pthread_mutex_unlock(&d->queue_lock);
}

static void take_press(struct devices *d)
{
	pthread_mutex_lock(&d->queue_lock);
	uint16_t src = d->presser;
	d->presser = NODE_NONE;
	pthread_mutex_unlock(&d->queue_lock);
	if (src != NODE_NONE && !devices_press_power_button(d))
		node_end_with(d->node, CONTROL_END_USER, 128 + SIGTERM,
			      "ended by SIGTERM on node %u (%s)", src,
			      members_name(d->node->members, src));
}

void devices_request(struct devices *d, const struct control_message *msg)
{
	pthread_mutex_lock(&d->queue_lock);
	bool full =
		d->queued_of[msg->src] == d->node->config->vcpu_count || d->count == REQUESTS_MAX;
	if (!full) {
		struct request *r = &d->queue[(d->first + d->count++) % REQUESTS_MAX];
		d->queued_of[msg->src]++;
		r->src = msg->src;
		r->io = msg->io_request;
		pthread_cond_signal(&d->queued);
	}
	pthread_mutex_unlock(&d->queue_lock);
	if (full)
		node_end_with(d->node, CONTROL_END_NODE_ERROR, 1,
			      "node %u (%s) sent more device accesses than the pod has vCPUs",
			      msg->src, members_name(d->node->members, msg->src));
}

static void serve_request(struct devices *d, struct request *r)
{
	struct pc_access access = { .address = r->io.address,
				    .count = r->io.count,
				    .size = r->io.size,
				    .write = r->io.write,
				    .data = r->io.data };
	devices_access(d, r->io.vcpu, r->io.kind == CONTROL_IO_MMIO, &access);

	struct control_message msg = { .type = CONTROL_IO_REPLY };
	msg.io_reply = (struct control_io_reply){
		.id = r->io.id,
		.vcpu = r->io.vcpu,
		.size = r->io.size,
		.count = r->io.write ? 0 : r->io.count,
	};
	if (!r->io.write)
		memcpy(msg.io_reply.data, r->io.data, (size_t)r->io.size * r->io.count);
	node_send(d->node, r->src, &msg);
}

static uint64_t tick(struct devices *d)
{
	uint64_t now = node_now_ns(d->node);
	pthread_mutex_lock(&d->lock);
	if (pc_deadline(d->pc) <= now)
		pc_tick(d->pc, now);
	uint64_t deadline = pc_deadline(d->pc);
	pthread_mutex_unlock(&d->lock);
	return deadline;
}

/* Waits for a request (true, and *ret_request) or until the timers need another look. */
static bool next_request(struct devices *d, uint64_t deadline, struct request *ret_request)
{
	bool got = false;
	pthread_mutex_lock(&d->queue_lock);
	if (!d->count && !d->timer_changed && !d->eoi && d->presser == NODE_NONE && !d->words &&
	    !d->room) {
		uint64_t now = node_now_ns(d->node);
		uint64_t wait = deadline > now ? deadline - now : 0;
		if (wait > 1000000000ull)
			wait = 1000000000ull;
		struct timespec until = deadline_after_ns(wait);
		deadline_wait(&d->queued, &d->queue_lock, &until);
	}
	d->timer_changed = false;
	if (d->count) {
		*ret_request = d->queue[d->first];
		d->first = (d->first + 1) % REQUESTS_MAX;
		d->count--;
		d->queued_of[ret_request->src]--;
		got = true;
	}
	pthread_mutex_unlock(&d->queue_lock);
	return got;
}

static void *device_thread(void *arg)
{
	struct devices *d = arg;
	struct request request;
	pthread_setname_np(pthread_self(), "devices");
	while (!node_has_ended(d->node)) {
		bool got = next_request(d, tick(d), &request);
		take_eois(d);
		take_press(d);
		take_words(d);
		take_room(d);
		if (got)
			serve_request(d, &request);
	}
	return NULL;
}

int devices_create(struct node *node)
{
	struct devices *d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->node = node;
	d->at_work = UINT32_MAX;
	d->presser = NODE_NONE;
	pthread_mutex_init(&d->lock, NULL);
	pthread_mutex_init(&d->queue_lock, NULL);
	pthread_cond_init(&d->queued, NULL);
	d->queue = calloc(REQUESTS_MAX, sizeof(*d->queue));
	struct pc_config config = { .wall_epoch_s = (int64_t)time(NULL) -
						    (int64_t)(node_now_ns(node) / 1000000000ull),
				    .high_window = node->high_window };
	config.device_count = io_offers(node, &config.device);
	int r = d->queue ? pc_create(&config, &ops, d, &d->pc) : -ENOMEM;
	if (!r) {
		node->devices = d;
		r = -pthread_create(&d->thread, NULL, device_thread, d);
	}
	if (!r)
		pthread_detach(d->thread); /* it ends with the pod, and nobody waits for it */
	if (r) {
		node->devices = NULL;
		if (d->pc)
			pc_destroy(d->pc);
		free(d->queue);
		free(d);
	}
	return r;
}
