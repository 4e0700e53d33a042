/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the files of control messages: the fixed fields of each type as they lie on the wire,
 * frozen by static asserts, and its encoder and decoder. The interface is wire/control_message.h.
 */
#ifndef WIRE_CONTROL_PARTS_H
#define WIRE_CONTROL_PARTS_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>

#include "wire/control_message.h"

struct wire_header {
	uint32_t magic;
	uint16_t type;
	uint16_t zero;
	uint32_t payload_size;
	uint32_t sequence;
};
static_assert(sizeof(struct wire_header) == CONTROL_HEADER_BYTES);
static_assert(offsetof(struct wire_header, payload_size) == 8);

/* Messages of one to four numbers: HEARTBEAT, CLOCK_*, READY, RUN, STATS_REQUEST. */
struct wire_numbers {
	uint64_t number[4];
};

struct wire_stats_reply {
	uint64_t id;
	uint32_t offset, total;
	/* char text[] */
};
static_assert(sizeof(struct wire_stats_reply) == 16);

struct wire_end {
	uint64_t rip;
	uint16_t node, vcpu;
	uint16_t text_size;
	uint8_t kind, status;
	/* char text[text_size], without NUL */
};
static_assert(sizeof(struct wire_end) == 16);

struct wire_interrupt {
	uint8_t delivery, vector, level, zero;
	uint16_t from_vcpu, vcpu_count;
	/* uint16_t vcpu[vcpu_count] */
};
static_assert(sizeof(struct wire_interrupt) == 8);

struct wire_eoi {
	uint16_t vcpu;
	uint8_t vector;
	uint8_t zero;
};
static_assert(sizeof(struct wire_eoi) == 4);

struct wire_published {
	uint64_t generation, features, notify_gpa;
	uint16_t config_vector, queue_count, vector_count;
	uint8_t device, flags;
	uint8_t config[VIRTIO_CONFIG_MAX];
	/* struct wire_published_queue queue[queue_count] */
	/* struct wire_published_vector vector[vector_count] */
};
static_assert(sizeof(struct wire_published) == 128);

struct wire_published_queue {
	uint64_t desc, avail, used;
	uint16_t size, vector;
	uint8_t enabled, zero[3];
};
static_assert(sizeof(struct wire_published_queue) == 32);

struct wire_published_vector {
	uint64_t address;
	uint32_t data;
	uint8_t masked, zero[3];
};
static_assert(sizeof(struct wire_published_vector) == 16);

/* Of NEEDS_RESET, too. */
struct wire_stopped {
	uint64_t generation;
	uint8_t device, zero[7];
};
static_assert(sizeof(struct wire_stopped) == 16);

struct wire_queue {
	uint64_t generation, epoch;
	uint16_t queue, avail_index, used_index, told_index;
	uint8_t device, zero[7];
};
static_assert(sizeof(struct wire_queue) == 32);

struct wire_queue_place {
	uint64_t generation, epoch;
	uint16_t queue;
	uint8_t device, zero[5];
};
static_assert(sizeof(struct wire_queue_place) == 24);

struct wire_doorbell {
	uint16_t queue;
	uint8_t device;
	uint8_t zero;
};
static_assert(sizeof(struct wire_doorbell) == 4);

struct wire_io_request {
	uint64_t id;
	uint64_t address;
	uint16_t vcpu;
	uint16_t count;
	uint8_t kind, size, write, zero;
	/* uint8_t data[count * size], if write */
};
static_assert(sizeof(struct wire_io_request) == 24);
static_assert(offsetof(struct wire_io_request, kind) == 20);

struct wire_io_reply {
	uint64_t id;
	uint16_t vcpu;
	uint16_t count;
	uint8_t zero1, size;
	uint8_t zero2[2];
	/* uint8_t data[count * size] */
};
static_assert(sizeof(struct wire_io_reply) == 16);

struct wire_leaf {
	uint32_t function, index;
	uint32_t index_matters;
	uint32_t eax, ebx, ecx, edx;
};
static_assert(sizeof(struct wire_leaf) == 28);

struct wire_features {
	char engine[CONTROL_ENGINE_MAX];
	uint64_t capacity_pages;
	uint32_t tsc_khz;
	uint16_t vcpu_count;
	uint16_t leaf_count;
	uint8_t tsc_deadline, tsc_scaling, walks_write, device_count;
	uint32_t tsc_margin_ppm;
	/* struct wire_leaf leaf[leaf_count], then device_count of wire/device_info.h */
};
static_assert(sizeof(struct wire_features) == 40);
static_assert(offsetof(struct wire_features, tsc_deadline) == 32);

struct wire_start {
	uint64_t memory_bytes;
	uint64_t epoch_ns;
	uint32_t tsc_khz;
	uint16_t vcpu_count;
	uint16_t leaf_count;
	uint8_t tsc_deadline, walks_write, device_count, zero[5];
	/* struct wire_leaf leaf[leaf_count], then device_count of wire/device_info.h */
};
static_assert(sizeof(struct wire_start) == 32);

struct wire_move {
	uint16_t vcpu, image_size;
	uint16_t carry_size, hints_size;
	uint64_t epoch, clock_ns, guest_tsc, decided_ns;
	/* uint8_t image[image_size], carry[carry_size], hints[hints_size] */
};
static_assert(sizeof(struct wire_move) == 40);

/* PLACE, REFUSED, COMING */
struct wire_place {
	uint64_t epoch;
	uint16_t vcpu;
	uint8_t zero[6];
};
static_assert(sizeof(struct wire_place) == 16);

struct wire_move_ask {
	uint64_t id;
	uint16_t vcpu, to, asker;
	uint8_t zero[2];
};
static_assert(sizeof(struct wire_move_ask) == 16);

struct wire_move_told {
	uint64_t id;
	uint16_t vcpu;
	uint8_t result, zero[5];
};
static_assert(sizeof(struct wire_move_told) == 16);

struct wire_taken {
	uint16_t vcpu;
	uint8_t zero[6];
};
static_assert(sizeof(struct wire_taken) == 8);

struct wire_outcomes {
	uint16_t count;
	uint8_t zero[6];
};
static_assert(sizeof(struct wire_outcomes) == 8);

struct wire_outcome {
	uint8_t arm, zero;
	int8_t feature[PLACEMENT_FEATURES];
	uint32_t program, lost_us;
} __attribute__((packed));
static_assert(sizeof(struct wire_outcome) == 26);

/* LOAD: cores, awake. POLICY: shadow, policy. PIN: vCPU, pinned. */
struct wire_pair {
	uint16_t first, second;
	uint8_t zero[4];
};
static_assert(sizeof(struct wire_pair) == 8);

/* STEP, WISH: without a number, which is 0. */
struct wire_step {
	uint64_t number;
	uint32_t id;
	uint16_t node, by, why;
	uint8_t kind, seat;
	uint8_t zero[4];
	/* struct wire_about, if kind is JOIN */
};
static_assert(sizeof(struct wire_step) == 24);

struct wire_about {
	uint64_t promise_bytes;
	uint16_t cores;
	uint8_t zero[6];
	char name[NODE_NAME_MAX];
	char address[MEMBER_ADDRESS_MAX];
	uint64_t token_id, token_expiry_s;
};
static_assert(sizeof(struct wire_about) == 224);

/* JOIN_ASK: who asks, then FEATURES. */

/* JOIN_TOLD: refused with why; else the rest. */
struct wire_join_told {
	uint16_t number, why_size, secret_size, zero;
	uint32_t config_size, list_size;
	/* char why[]; uint8_t secret[]; char config[]; uint8_t list[] */
};
static_assert(sizeof(struct wire_join_told) == 16);

/* A list of members: then number_count states are known, of which those that are not FREE follow. */
struct wire_list {
	uint64_t step;
	uint16_t number_count, member_count;
	uint16_t seat[SEAT_COUNT];
	uint8_t zero[2];
	/* struct wire_member member[member_count], each with its texts, in the order of numbers */
};
static_assert(sizeof(struct wire_list) == 24);

struct wire_member {
	uint64_t since, promise_bytes, token_id, token_expiry_s;
	uint16_t node, cores;
	uint8_t state, name_size, address_size, zero;
	/* char name[], address[], without NUL */
};
static_assert(sizeof(struct wire_member) == 40);

/* JOIN_READY, JOIN_FAILED, DRAINED: node, by, why. WISH_REFUSED: id, why. */
struct wire_report {
	uint32_t id;
	uint16_t node, by, why;
	uint8_t zero[6];
};
static_assert(sizeof(struct wire_report) == 16);

static_assert(sizeof(struct wire_stats_reply) + CONTROL_STATS_PART_MAX <= CONTROL_PAYLOAD_MAX);
static_assert(sizeof(struct wire_features) + CPUID_LEAVES_MAX * sizeof(struct wire_leaf) +
		      VIRTIO_DEVICES_MAX * DEVICE_INFO_BYTES <=
	      CONTROL_PAYLOAD_MAX);

/* The payload's size, or -EINVAL. `out` has room for the largest of its type. */
int control_encode_move(const struct control_move *m, uint8_t *out);
int control_encode_place(uint16_t vcpu, uint64_t epoch, uint8_t *out);
int control_encode_move_ask(const struct control_move_ask *m, uint8_t *out);
int control_encode_move_told(const struct control_move_told *m, uint8_t *out);
int control_encode_taken(const struct control_taken *m, uint8_t *out);
int control_encode_load(const struct control_load *m, uint8_t *out);
int control_encode_policy(const struct control_policy *m, uint8_t *out);
int control_encode_pin(const struct control_pin *m, uint8_t *out);
int control_encode_outcomes(const struct control_outcomes *m, uint8_t *out);
int control_encode_interrupt(const struct control_interrupt *m, uint8_t *out);
int control_encode_eoi(const struct control_eoi *m, uint8_t *out);
int control_encode_io_request(const struct control_io_request *m, uint8_t *out);
int control_encode_io_reply(const struct control_io_reply *m, uint8_t *out);
int control_encode_features(const struct control_features *m, uint8_t *out);
int control_encode_start(const struct control_start *m, uint8_t *out);

/* 0, or -EPROTO. */
int control_decode_move(const uint8_t *in, size_t size, struct control_move *m);
int control_decode_place(const uint8_t *in, size_t size, uint16_t *ret_vcpu, uint64_t *ret_epoch);
int control_decode_move_ask(const uint8_t *in, size_t size, struct control_move_ask *m);
int control_decode_move_told(const uint8_t *in, size_t size, struct control_move_told *m);
int control_decode_taken(const uint8_t *in, size_t size, struct control_taken *m);
int control_decode_load(const uint8_t *in, size_t size, struct control_load *m);
int control_decode_outcomes(const uint8_t *in, size_t size, struct control_outcomes *m);
int control_decode_policy(const uint8_t *in, size_t size, struct control_policy *m);
int control_decode_pin(const uint8_t *in, size_t size, struct control_pin *m);
int control_decode_interrupt(const uint8_t *in, size_t size, struct control_interrupt *m);
int control_decode_eoi(const uint8_t *in, size_t size, struct control_eoi *m);
int control_decode_io_request(const uint8_t *in, size_t size, struct control_io_request *m);
int control_decode_io_reply(const uint8_t *in, size_t size, struct control_io_reply *m);
int control_decode_features(const uint8_t *in, size_t size, struct control_features *m);
int control_decode_start(const uint8_t *in, size_t size, struct control_start *m);

/* control_queues.c; STOPPED and NEEDS_RESET are alike */
int control_encode_published(const struct virtio_published *m, uint8_t *out);
int control_encode_stopped(const struct control_stopped *m, uint8_t *out);
int control_encode_queue(const struct control_queue *m, uint8_t *out);
int control_encode_queue_place(const struct control_queue_place *m, uint8_t *out);
int control_encode_doorbell(const struct control_doorbell *m, uint8_t *out);
int control_decode_published(const uint8_t *in, size_t size, struct virtio_published *m);
int control_decode_stopped(const uint8_t *in, size_t size, struct control_stopped *m);
int control_decode_queue(const uint8_t *in, size_t size, struct control_queue *m);
int control_decode_queue_place(const uint8_t *in, size_t size, struct control_queue_place *m);
int control_decode_doorbell(const uint8_t *in, size_t size, struct control_doorbell *m);

/* control_members.c: of STEP to DRAINED, by `type` */
int control_encode_member(uint8_t type, const struct member_word *m, uint8_t *out);
int control_decode_member(uint8_t type, const uint8_t *in, size_t size, struct member_word *m);
bool control_about_valid(const struct member_about *about);
void control_put_about(const struct member_about *about, uint8_t *out);
bool control_get_about(const uint8_t *in, struct member_about *about);

/* control_join.c */
int control_encode_join_ask(const struct control_join_ask *m, uint8_t *out);
int control_encode_join_told(const struct control_join_told *m, uint8_t *out);
int control_decode_join_ask(const uint8_t *in, size_t size, struct control_join_ask *m);
int control_decode_join_told(const uint8_t *in, size_t size, struct control_join_told *m);

#endif
