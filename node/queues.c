/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queues of virtio devices between nodes: what the registers say, where each queue is, doorbells.
 * core/queue_place.h has the states and the argument; docs/devices.md has the picture.
 *
 *	the PC's node     PUBLISHED to all, whole, when something has changed (queues_publish())
 *	control thread    PUBLISHED, STOPPED, NEEDS_RESET, QUEUE, QUEUE_PLACE, DOORBELL of other nodes
 *	io thread         leaves, gives, takes; says STOPPED
 *	vCPUs' threads    doorbells (queues_ring())
 *
 * A doorbell says "look at your queue", and nothing comes back. So it is not an access like others: a
 * vCPU's thread that sees a write to one leaves it for this node's io thread, or sends a message to
 * where the queue is, and goes on. It waits neither for the PC's lock nor for an answer. A node that
 * does not know (yet, or any more) where doorbells are asks the PC's with an ordinary access, as does
 * one that has more unsent than it should: waiting for the answer keeps a flood within bounds.
 *
 * What nobody waits for must not pile up either. Of PUBLISHED the newest counts: who is behind gets it
 * when the channel is empty again. Doorbells that are to be sent on to who is behind are bits until
 * then.
 *
 * A doorbell that comes too late, for a device that was reset meanwhile, is one look at a queue in vain.
 * A guest that gives a device's old place to something else while its vCPUs still write there could
 * see such a write go to the doorbell, for as long as PUBLISHED is under way; no driver does that.
 *
 * Tested in tests/node/test_queues.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/queue_place.h"
#include "node/io.h"
#include "node/node_state.h"
#include "node/stats_json.h"
#include "virtio/queue.h"

#define BACKLOG_BYTES  65536u /* beyond so much unsent, messages are left for later */
#define DOORBELL_BYTES 4u
#define QUEUE_WORDS    ((VIRTIO_QUEUES_MAX + 63) / 64)

#define NO_DEVICE "about a device that does not exist"
#define NOT_TRUE  "which cannot be"

struct device_queues {
	pthread_mutex_t lock; /* guards what follows; and see core/queue_place.h */
	struct queue_places places;
	struct virtio_published last; /* the PC's node: what the registers say */
	bool heard;		      /* the PC's node has said something */

	/* The page of doorbells, and in its low bits how many there are; 0: none now. */
	_Atomic uint64_t doorbells;
	_Atomic uint64_t waiting[QUEUE_WORDS]; /* doorbells for who is behind */
};

struct queues {
	struct node *node;
	_Atomic uint64_t rung, sent, sent_on; /* doorbells */
	_Atomic uint64_t given, taken;
	/* Devices, by bit. The PC's node: whose registers that one has not heard the newest of; each is
	 * guarded by its device's lock. And those with doorbells that wait. */
	_Atomic uint32_t behind[NODES_MAX];
	_Atomic uint32_t waits;
	struct device_queues device[VIRTIO_DEVICES_MAX];
};

/* Those who hear what is said to all: who joins does from when it is told. */
void queues_members(struct node *node)
{
	struct queues *queues = node->queues;
	struct member_set set = { 0 };
	members_for_each(node->members, n)
		if (members_state(node->members, n) != MEMBER_GONE &&
		    members_ears(node->members, n) == EARS_ALL)
			member_set_add(&set, n);
	for (uint8_t i = 0; queues && i < VIRTIO_DEVICES_MAX; i++) {
		struct device_queues *device = &queues->device[i];
		pthread_mutex_lock(&device->lock);
		bool all = queue_places_members(&device->places, &set) && device->heard;
		uint64_t generation = device->places.generation;
		pthread_mutex_unlock(&device->lock);
		if (all && node->devices)
			devices_stopped(node->devices, i, generation);
	}
}

int queues_create(struct node *node)
{
	struct queues *queues = calloc(1, sizeof(*queues));
	if (!queues)
		return -ENOMEM;
	queues->node = node;
	for (uint8_t i = 0; i < VIRTIO_DEVICES_MAX; i++) {
		pthread_mutex_init(&queues->device[i].lock, NULL);
		queue_places_init(&queues->device[i].places, node->self,
				  node->members->number_count, VIRTIO_QUEUES_MAX);
	}
	node->queues = queues;
	queues_members(node);
	return 0;
}

void queues_counts(const struct node *node, struct queues_counts *ret_counts)
{
	const struct queues *queues = node->queues;
	*ret_counts = (struct queues_counts){ 0 };
	if (!queues)
		return;
	ret_counts->doorbells = atomic_load(&queues->rung);
	ret_counts->doorbells_sent = atomic_load(&queues->sent);
	ret_counts->doorbells_sent_on = atomic_load(&queues->sent_on);
	ret_counts->given = atomic_load(&queues->given);
	ret_counts->taken = atomic_load(&queues->taken);
}

static bool is_behind(struct node *node, uint16_t to)
{
	return node_backlog(node, to) > BACKLOG_BYTES;
}

/* ---- what the registers say -------------------------------------------------------------------- */

/* What is published beyond all memory nobody can reach. */
static uint64_t doorbells_of(const struct virtio_published *published)
{
	uint64_t gpa = published->running ? published->notify_gpa : 0;
	return gpa && gpa < GPA_LIMIT && gpa % PAGE_BYTES == 0 ? gpa | published->queue_count : 0;
}

static uint32_t bit_of(const struct queues *queues, const struct device_queues *device)
{
	return 1u << (device - queues->device);
}

/* The device's lock. */
static void tell(struct node *node, struct device_queues *device, uint16_t to)
{
	struct queues *queues = node->queues;
	struct control_message msg; /* large, and little of it is sent */
	if (is_behind(node, to)) {
		atomic_fetch_or(&queues->behind[to], bit_of(queues, device));
		return;
	}
	atomic_fetch_and(&queues->behind[to], ~bit_of(queues, device));
	msg.type = CONTROL_PUBLISHED;
	msg.published = device->last;
	node_send(node, to, &msg);
}

/* First this node's own, so that nobody who is told knows more than the PC's. */
void queues_publish(struct node *node, const struct virtio_published *published)
{
	struct queues *queues = node->queues;
	if (!queues)
		return;
	struct device_queues *device = &queues->device[published->device];
	pthread_mutex_lock(&device->lock);
	/* Most of what a driver writes changes nothing that others know of. */
	if (device->heard && !memcmp(&device->last, published, sizeof(*published))) {
		pthread_mutex_unlock(&device->lock);
		return;
	}
	device->heard = true;
	(void)queue_places_begin(&device->places, published->generation);
	/* So that no doorbell is rung at an io thread that does not know what for. */
	(void)io_publish(node, published);
	atomic_store(&device->doorbells, doorbells_of(published));
	device->last = *published;
	members_for_each_other(node->members, n)
		tell(node, device, n);
	pthread_mutex_unlock(&device->lock);
	/* A channel that was emptied before somebody was found to be behind says nothing again. */
	members_for_each_other(node->members, n)
		if (node_backlog(node, n) == 0)
			queues_flush(node, n);
}

void queues_introduce(struct node *node, uint16_t to)
{
	struct queues *queues = node->queues;
	queues_members(node);
	if (!queues || !members_seat_is_here(node->members, SEAT_PC))
		return;
	for (uint8_t i = 0; i < VIRTIO_DEVICES_MAX; i++) {
		struct device_queues *device = &queues->device[i];
		pthread_mutex_lock(&device->lock);
		if (device->heard)
			tell(node, device, to);
		pthread_mutex_unlock(&device->lock);
	}
}

static const char *on_published(struct node *node, struct device_queues *device,
				const struct virtio_published *published)
{
	pthread_mutex_lock(&device->lock);
	enum queue_verdict verdict = queue_places_begin(&device->places, published->generation);
	bool first = verdict == QUEUE_NEWS || !device->heard;
	device->heard = true;
	pthread_mutex_unlock(&device->lock);
	if (verdict == QUEUE_LIE)
		return NOT_TRUE;
	/* Where there is nothing of it, nothing is under way. */
	if (!io_publish(node, published) && first)
		queues_stopped(node, published->device, published->generation);
	atomic_store(&device->doorbells, doorbells_of(published));
	return NULL;
}

/* ---- what has stopped, and what is broken -------------------------------------------------------- */

static enum queue_verdict stopped(struct node *node, uint16_t src, uint8_t device,
				  uint64_t generation)
{
	struct device_queues *queues = &node->queues->device[device];
	pthread_mutex_lock(&queues->lock);
	enum queue_verdict verdict = queue_places_on_stopped(&queues->places, src, generation);
	pthread_mutex_unlock(&queues->lock);
	if (verdict == QUEUE_NEWS)
		devices_stopped(node->devices, device, generation);
	return verdict;
}

void queues_stopped(struct node *node, uint8_t device, uint64_t generation)
{
	struct control_message msg;
	if (members_seat_is_here(node->members, SEAT_PC)) {
		(void)stopped(node, node->self, device, generation);
		return;
	}
	msg.type = CONTROL_STOPPED;
	msg.stopped = (struct control_stopped){ .device = device, .generation = generation };
	node_send_seat(node, SEAT_PC, &msg);
}

void queues_needs_reset(struct node *node, uint8_t device, uint64_t generation)
{
	struct control_message msg;
	if (members_seat_is_here(node->members, SEAT_PC)) {
		devices_needs_reset(node->devices, device, generation);
		return;
	}
	msg.type = CONTROL_NEEDS_RESET;
	msg.stopped = (struct control_stopped){ .device = device, .generation = generation };
	node_send_seat(node, SEAT_PC, &msg);
}

/* ---- doorbells ----------------------------------------------------------------------------------- */

static void send_doorbell(struct node *node, uint16_t to, uint8_t device, uint16_t queue)
{
	struct control_message msg;
	msg.type = CONTROL_DOORBELL;
	msg.doorbell = (struct control_doorbell){ .device = device, .queue = queue };
	node_send(node, to, &msg);
}

static void leave_doorbell(struct node *node, uint16_t to, uint8_t device, uint16_t queue)
{
	struct device_queues *queues = &node->queues->device[device];
	atomic_fetch_or(&queues->waiting[queue / 64], 1ull << (queue % 64));
	atomic_fetch_or(&node->queues->waits, bit_of(node->queues, queues));
	/* It may have been emptied before that, and says nothing again. */
	if (node_backlog(node, to) == 0)
		queues_flush(node, to);
}

bool queues_send_on(struct node *node, uint8_t device, uint16_t queue)
{
	struct queues *queues = node->queues;
	uint16_t to;
	if (!queues ||
	    queue_place_route(&queues->device[device].places, queue, &to) == QUEUE_LEAVE_IT)
		return false;
	if (is_behind(node, to)) {
		leave_doorbell(node, to, device, queue);
		return true;
	}
	atomic_fetch_add_explicit(&queues->sent_on, 1, memory_order_relaxed);
	send_doorbell(node, to, device, queue);
	return true;
}

void queues_doorbell(struct node *node, uint8_t device, uint16_t queue)
{
	if (node->queues && !queues_send_on(node, device, queue))
		io_doorbell(node, device, queue);
}

static bool find(struct queues *queues, const struct pc_access *access,
		 struct control_doorbell *ret_doorbell)
{
	uint64_t gpa = access->address & ~(uint64_t)(PAGE_BYTES - 1);
	uint64_t queue = (access->address - gpa) / DOORBELL_BYTES;
	for (uint8_t i = 0; gpa && i < VIRTIO_DEVICES_MAX; i++) {
		uint64_t page =
			atomic_load_explicit(&queues->device[i].doorbells, memory_order_acquire);
		if (page - gpa >= PAGE_BYTES || queue >= page - gpa)
			continue;
		*ret_doorbell = (struct control_doorbell){ .device = i, .queue = (uint16_t)queue };
		return true;
	}
	return false;
}

bool queues_ring(struct node *node, const struct pc_access *access)
{
	struct queues *queues = node->queues;
	struct control_doorbell bell;
	uint16_t to;
	if (!queues || !access->write || !find(queues, access, &bell))
		return false;
	if (queue_place_route(&queues->device[bell.device].places, bell.queue, &to) ==
	    QUEUE_LEAVE_IT) {
		atomic_fetch_add_explicit(&queues->rung, 1, memory_order_relaxed);
		io_doorbell(node, bell.device, bell.queue);
		return true;
	}
	if (is_behind(node, to)) {
		/* The PC's node answers such an access, and sees to the doorbell. */
		if (!members_seat_is_here(node->members, SEAT_PC))
			return false;
		leave_doorbell(node, to, bell.device, bell.queue);
		return true;
	}
	atomic_fetch_add_explicit(&queues->rung, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&queues->sent, 1, memory_order_relaxed);
	send_doorbell(node, to, bell.device, bell.queue);
	return true;
}

/* Those that wait, wherever their queues are by now. */
static void ring_waiting(struct node *node, uint8_t device)
{
	struct device_queues *queues = &node->queues->device[device];
	for (uint16_t word = 0; word < QUEUE_WORDS; word++) {
		uint64_t bits = atomic_load(&queues->waiting[word])
					? atomic_exchange(&queues->waiting[word], 0)
					: 0;
		for (; bits; bits &= bits - 1)
			queues_doorbell(node, device,
					(uint16_t)(word * 64 + (uint16_t)__builtin_ctzll(bits)));
	}
}

void queues_flush(struct node *node, uint16_t peer)
{
	struct queues *queues = node->queues;
	uint32_t behind, waits;
	if (!queues)
		return;
	for (behind = atomic_load(&queues->behind[peer]); behind; behind &= behind - 1) {
		struct device_queues *device = &queues->device[__builtin_ctz(behind)];
		pthread_mutex_lock(&device->lock);
		if (atomic_load(&queues->behind[peer]) & bit_of(queues, device))
			tell(node, device, peer);
		pthread_mutex_unlock(&device->lock);
	}
	waits = atomic_load(&queues->waits) ? atomic_exchange(&queues->waits, 0) : 0;
	for (; waits; waits &= waits - 1)
		ring_waiting(node, (uint8_t)__builtin_ctz(waits));
}

/* ---- hand-overs ---------------------------------------------------------------------------------- */

int queues_leave(struct node *node, uint8_t device, uint16_t queue, uint64_t generation,
		 uint16_t to)
{
	struct device_queues *queues = &node->queues->device[device];
	pthread_mutex_lock(&queues->lock);
	int r = queue_place_leave(&queues->places, queue, generation, to);
	pthread_mutex_unlock(&queues->lock);
	return r;
}

int queues_give(struct node *node, uint8_t device, uint16_t queue, uint64_t generation,
		const struct virtio_queue_state *state)
{
	struct device_queues *queues = &node->queues->device[device];
	struct control_message msg = { .type = CONTROL_QUEUE };
	msg.queue = (struct control_queue){ .device = device,
					    .queue = queue,
					    .generation = generation,
					    .avail_index = state->avail_index,
					    .used_index = state->used_index,
					    .told_index = state->told_index };
	pthread_mutex_lock(&queues->lock);
	int r = queue_place_giving(&queues->places, queue, generation, &msg.queue.epoch);
	if (!r) {
		node_send(node, queue_place_read(&queues->places, queue).node, &msg);
		queue_place_gave(&queues->places, queue);
		atomic_fetch_add(&node->queues->given, 1);
	}
	pthread_mutex_unlock(&queues->lock);
	return r;
}

int queues_taken(struct node *node, uint8_t device, uint16_t queue, uint64_t generation)
{
	struct device_queues *queues = &node->queues->device[device];
	pthread_mutex_lock(&queues->lock);
	int r = queue_place_taken(&queues->places, queue, generation);
	pthread_mutex_unlock(&queues->lock);
	if (!r)
		atomic_fetch_add(&node->queues->taken, 1);
	return r;
}

static const char *on_queue(struct node *node, struct device_queues *queues, uint16_t src,
			    const struct control_queue *queue)
{
	struct control_message msg = { .type = CONTROL_QUEUE_PLACE };
	msg.queue_place = (struct control_queue_place){ .device = queue->device,
							.queue = queue->queue,
							.generation = queue->generation,
							.epoch = queue->epoch };
	pthread_mutex_lock(&queues->lock);
	enum queue_verdict verdict = queue_place_on_queue(&queues->places, queue->queue, src,
							  queue->generation, queue->epoch);
	if (verdict == QUEUE_NEWS)
		node_broadcast(node, &msg);
	pthread_mutex_unlock(&queues->lock);
	return verdict == QUEUE_LIE || (verdict == QUEUE_NEWS && !io_arrives(node, queue))
		       ? NOT_TRUE
		       : NULL;
}

static const char *on_place(struct device_queues *queues, uint16_t src,
			    const struct control_queue_place *place)
{
	pthread_mutex_lock(&queues->lock);
	enum queue_verdict verdict = queue_place_on_place(&queues->places, place->queue, src,
							  place->generation, place->epoch);
	pthread_mutex_unlock(&queues->lock);
	return verdict == QUEUE_LIE ? NOT_TRUE : NULL;
}

const char *queues_message(struct node *node, const struct control_message *msg)
{
	struct queues *queues = node->queues;
	if (!queues)
		return NO_DEVICE;
	switch (msg->type) {
	case CONTROL_PUBLISHED:
		return on_published(node, &queues->device[msg->published.device], &msg->published);
	case CONTROL_STOPPED:
		/* Not waited for any more, though it may not know yet. */
		if (members_state(node->members, msg->src) == MEMBER_GONE)
			return NULL;
		return stopped(node, msg->src, msg->stopped.device, msg->stopped.generation) ==
				       QUEUE_LIE
			       ? NOT_TRUE
			       : NULL;
	case CONTROL_NEEDS_RESET:
		devices_needs_reset(node->devices, msg->stopped.device, msg->stopped.generation);
		return NULL;
	case CONTROL_QUEUE:
		return on_queue(node, &queues->device[msg->queue.device], msg->src, &msg->queue);
	case CONTROL_QUEUE_PLACE:
		return on_place(&queues->device[msg->queue_place.device], msg->src,
				&msg->queue_place);
	default: /* DOORBELL */
		queues_doorbell(node, msg->doorbell.device, msg->doorbell.queue);
		return NULL;
	}
}
