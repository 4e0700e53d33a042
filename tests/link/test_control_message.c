// SPDX-License-Identifier: Apache-2.0
/*
 * Control messages: every type survives its journey, keeps its layout, and is refused when any rule
 * of its header is broken, or a byte is missing or too many.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/queue_place.h"
#include "wire/control_message.h"
#include "wire/vcpu_image.h"

static uint8_t frame[CONTROL_FRAME_MAX];
static struct control_message in, out;

static void fill_leaves(struct cpuid_set *set, uint32_t count)
{
	set->count = count;
	for (uint32_t i = 0; i < count; i++)
		set->leaf[i] = (struct cpuid_leaf){
			.function = i / 3,
			.index = i % 3,
			.index_matters = i % 2,
			.eax = i * 11,
			.ebx = i * 13,
			.ecx = i * 17,
			.edx = 0xffffffff,
		};
}

static void make_interrupt(int variant)
{
	in.interrupt.vector = 0x31;
	in.interrupt.level = 1;
	in.interrupt.from_vcpu = variant ? VCPUS_MAX - 1 : NODE_NONE;
	in.interrupt.vcpu_count = variant ? CONTROL_VCPUS_MAX : 1;
	for (uint16_t i = 0; i < in.interrupt.vcpu_count; i++)
		in.interrupt.vcpu[i] = VCPUS_MAX - 1u - i;
}

static void make_io_request(int variant)
{
	in.io_request.id = 77;
	in.io_request.address = variant ? 0xffff : GPA_LIMIT - 8;
	in.io_request.kind = variant ? CONTROL_IO_PORT : CONTROL_IO_MMIO;
	in.io_request.size = variant ? 4 : 8;
	in.io_request.write = (uint8_t)variant;
	in.io_request.count = variant ? CONTROL_IO_ITEMS_MAX : 1;
	for (unsigned i = 0; variant && i < CONTROL_IO_ITEMS_MAX * 4; i++)
		in.io_request.data[i] = (uint8_t)(i * 3);
}

static void make_io_reply(int variant)
{
	in.io_reply.id = 78;
	in.io_reply.size = 8;
	in.io_reply.count = variant ? CONTROL_IO_ITEMS_MAX : 0;
	for (unsigned i = 0; i < in.io_reply.count * 8u; i++)
		in.io_reply.data[i] = (uint8_t)(i * 5);
}

static void fill_devices(struct device_list *list, uint32_t count)
{
	memset(list, 0, sizeof(*list));
	list->count = count;
	for (uint32_t i = 0; i < count; i++) {
		struct device_info *info = &list->info[i];

		info->device = (uint8_t)i;
		info->kind = i % 2 ? VIRTIO_KIND_NET : VIRTIO_KIND_BLOCK;
		if (i % 2) {
			info->net = (struct net_info){ .mtu = 1500, .pairs = 32, .segments = true };
			continue;
		}
		info->disk.bytes = 1ull << (10 + i);
		info->disk.block_bytes = 4096;
		info->disk.alignment = 1;
		info->disk.discard = true;
		info->disk.read_only = i % 4;
		memset(info->disk.serial, 's', DISK_SERIAL_MAX);
	}
}

static void make_features(int variant)
{
	snprintf(in.features.engine, sizeof(in.features.engine), "kvm");
	in.features.capacity_pages = 1 << 20;
	in.features.tsc_khz = 2400000;
	in.features.vcpu_count = (uint16_t)(variant * VCPUS_MAX);
	in.features.tsc_scaling = 1;
	in.features.tsc_margin_ppm = 350;
	fill_leaves(&in.features.offer, variant ? CPUID_LEAVES_MAX : 1);
	fill_devices(&in.features.devices, variant ? VIRTIO_DEVICES_MAX : 0);
}

static void make_start(int variant)
{
	in.start.memory_bytes = variant ? GPA_LIMIT : PAGE_BYTES;
	in.start.epoch_ns = 12345678901234;
	in.start.tsc_khz = 1;
	in.start.vcpu_count = variant ? VCPUS_MAX : 1;
	in.start.walks_write = 1;
	fill_leaves(&in.start.cpuid, variant ? CPUID_LEAVES_MAX : 1);
	fill_devices(&in.start.devices, variant ? VIRTIO_DEVICES_MAX : 1);
}

static void make_stats_reply(int variant)
{
	static char text[CONTROL_STATS_PART_MAX];

	memset(text, 'x', sizeof(text));
	in.stats_reply = (struct control_stats_reply){ .id = 9, .text = text };
	in.stats_reply.text_size = variant ? CONTROL_STATS_PART_MAX : 1;
	in.stats_reply.total = variant ? CONTROL_STATS_TEXT_MAX : 1;
	in.stats_reply.offset = in.stats_reply.total - in.stats_reply.text_size;
}

static void make_move(int variant)
{
	static uint8_t image[VCPU_IMAGE_BYTES_MAX], carry[PLACEMENT_CARRY_BYTES];
	static uint8_t hints[PAGE_HINTS_BYTES_MAX];

	memset(image, 0xa5, sizeof(image));
	memset(carry, 0x5a, sizeof(carry));
	in.move = (struct control_move){ .vcpu = variant ? VCPUS_MAX - 1 : 0,
					 .image_size = variant ? VCPU_IMAGE_BYTES_MAX : 1,
					 .epoch = 7,
					 .clock_ns = 8,
					 .guest_tsc = 9,
					 .decided_ns = 10,
					 .image = image,
					 .carry = variant ? carry : NULL,
					 .hints = hints,
					 .hints_size = variant ? sizeof(hints) : 0 };
}

static void make_outcomes(int variant)
{
	in.outcomes.count = variant ? PLACEMENT_OUTCOMES : 1;
	for (uint32_t i = 0; i < in.outcomes.count; i++) {
		in.outcomes.outcome[i] = (struct placement_outcome){
			.arm = variant ? PLACEMENT_ARMS - 1 : 0,
			.program = 0x80000000u + i,
			.lost_us = variant ? PLACEMENT_LOST_US_MAX : 0,
		};
		for (int k = 0; k < PLACEMENT_FEATURES; k++)
			in.outcomes.outcome[i].feature[k] = (int8_t)(variant ? -128 + k : 127 - k);
	}
}

static void make_published(int variant)
{
	struct virtio_published *m = &in.published;

	*m = (struct virtio_published){ .device = variant ? VIRTIO_DEVICES_MAX - 1 : 0,
					.running = variant,
					.msix = !variant,
					.generation = 1ull << 40,
					.features = UINT64_MAX,
					.notify_gpa = UINT64_MAX,
					.config_vector = VIRTIO_NO_VECTOR,
					.queue_count = variant ? VIRTIO_QUEUES_MAX : 1,
					.vector_count = variant ? VIRTIO_VECTORS_MAX : 0 };
	for (uint16_t i = 0; i < m->queue_count; i++)
		m->queue[i] =
			(struct virtio_published_queue){ i % 2,	     (uint16_t)(1u << i % 11), i,
							 1ull << 63, UINT64_MAX - i,	       i };
	for (uint16_t i = 0; i < m->vector_count; i++)
		m->vector[i] = (struct virtio_published_vector){ 0xfee00000u + i, i, i % 2 };
	memset(m->config, 0x5a, sizeof(m->config));
}

static void fill_about(struct member_about *about)
{
	memset(about->name, 'n', NODE_NAME_MAX - 1);
	memset(about->address, 'a', MEMBER_ADDRESS_MAX - 1);
	about->promise_bytes = 1ull << 40;
	about->token_id = UINT64_MAX;
	about->token_expiry_s = UINT64_MAX - 1;
	about->cores = UINT16_MAX;
}

/* A step of the steward's own, and one that was wished for. */
static void make_step(int variant)
{
	in.member = (struct member_word){ .type = MEMBER_STEP,
					  .number = variant ? UINT64_MAX : 1,
					  .kind = variant ? KIND_JOIN : KIND_GONE,
					  .node = variant ? NODES_MAX - 1 : 0,
					  .by = variant ? NODES_MAX - 2 : NODE_NONE,
					  .id = variant ? UINT32_MAX : 0,
					  .why = variant ? 0 : -CONTROL_MEMBER_WHY_MAX };
	if (variant)
		fill_about(&in.member.about);
}

static void make_wish(int variant)
{
	in.member = (struct member_word){ .type = MEMBER_WISH,
					  .kind = variant ? KIND_JOIN : KIND_SEAT,
					  .seat = variant ? SEAT_STEWARD : SEAT_LOADER,
					  .node = variant ? 0 : 7,
					  .by = 5,
					  .id = 1 };
	if (variant)
		fill_about(&in.member.about);
}

static uint8_t list_bytes[CONTROL_PAYLOAD_MAX];
static struct member_snapshot list;

/* Two members, or as many as there can be, with the longest names that fit beside all else. */
static void make_list(int variant)
{
	memset(&list, 0, sizeof(list));
	list.step = variant ? UINT64_MAX : 1;
	list.number_count = variant ? NODES_MAX : 3;
	for (uint16_t node = 0; node < list.number_count; node += variant ? 1 : 2) {
		struct member *m = &list.member[node];

		m->state = node % 4 ? MEMBER_ACTIVE : MEMBER_JOINING;
		m->since = variant ? list.step - node : 0;
		if (!variant)
			fill_about(&m->about);
		memset(m->about.name, 0, sizeof(m->about.name));
		snprintf(m->about.name, sizeof(m->about.name), "n%u", node);
	}
	for (int seat = 0; seat < SEAT_COUNT; seat++)
		list.seat[seat] = (uint16_t)(list.number_count - 1);
}

static void make_join_ask(int variant)
{
	struct control_join_ask *m = &in.join_ask;

	memset(m, 0, sizeof(*m));
	fill_about(&m->about);
	m->about.token_id = m->about.token_expiry_s = 0;
	m->about.promise_bytes = variant ? 1ull << 40 : 0;
	m->features.capacity_pages = m->about.promise_bytes / PAGE_BYTES;
	memset(m->features.engine, 'e', variant ? CONTROL_ENGINE_MAX - 1 : 1);
	m->features.tsc_khz = 1;
	m->features.offer.count = variant ? CPUID_LEAVES_MAX : 1;
	for (uint32_t i = 0; i < m->features.offer.count; i++)
		m->features.offer.leaf[i] = (struct cpuid_leaf){ .function = i, .eax = ~i };
}

/* Refused, and let in. */
static void make_join_told(int variant)
{
	static const char config[] = "[pod]\nname = x\n";
	struct control_join_told *m = &in.join_told;

	memset(m, 0, sizeof(*m));
	if (!variant) {
		memset(m->why, 'w', CONTROL_TEXT_MAX - 1);
		return;
	}
	make_list(1);
	m->number = NODES_MAX - 1;
	m->secret = (const uint8_t *)"s";
	m->secret_size = 1;
	m->config = config;
	m->config_size = sizeof(config) - 1;
	m->list = list_bytes;
	m->list_size = (uint32_t)control_list_encode(&list, list_bytes, sizeof(list_bytes));
}

/* One about a member that is not `by`, where that has to be so. */
static void make_member(uint8_t type, int variant)
{
	uint16_t node = variant ? NODES_MAX - 1 : 0;

	in.member = (struct member_word){ 0 };
	while (control_member_type(in.member.type) != type)
		in.member.type++;
	switch (type) {
	case CONTROL_STEP:
		make_step(variant);
		break;
	case CONTROL_WISH:
		make_wish(variant);
		break;
	case CONTROL_STEP_DONE:
	case CONTROL_STEP_OVER:
		in.member.number = variant ? UINT64_MAX : 1;
		break;
	case CONTROL_WISH_REFUSED:
		in.member.id = variant ? UINT32_MAX : 1;
		in.member.why = variant ? -CONTROL_MEMBER_WHY_MAX : -1;
		break;
	case CONTROL_JOIN_FAILED:
		in.member.why = -1;
		in.member.node = node;
		in.member.by = 1;
		break;
	default:
		in.member.node = in.member.by = node;
	}
}

/* A valid message of each type; `variant` 0 is small, 1 is as large as can be. */
static void make(uint8_t type, int variant)
{
	memset(&in, 0, sizeof(in));
	in.type = type;
	switch (type) {
	case CONTROL_INTERRUPT:
		make_interrupt(variant);
		break;
	case CONTROL_EOI:
		in.eoi = (struct control_eoi){ variant ? VCPUS_MAX - 1 : 0, 0x31 };
		break;
	case CONTROL_PUBLISHED:
		make_published(variant);
		break;
	case CONTROL_STOPPED:
	case CONTROL_NEEDS_RESET:
		in.stopped = (struct control_stopped){ variant ? VIRTIO_DEVICES_MAX - 1 : 0,
						       UINT64_MAX };
		break;
	case CONTROL_QUEUE:
		in.queue = (struct control_queue){ variant ? VIRTIO_DEVICES_MAX - 1 : 0,
						   variant ? VIRTIO_QUEUES_MAX - 1 : 0,
						   UINT64_MAX,
						   variant ? QUEUE_EPOCH_MAX : 1,
						   1,
						   2,
						   UINT16_MAX };
		break;
	case CONTROL_QUEUE_PLACE:
		in.queue_place = (struct control_queue_place){ variant ? VIRTIO_DEVICES_MAX - 1 : 0,
							       variant ? VIRTIO_QUEUES_MAX - 1 : 0,
							       7, variant ? QUEUE_EPOCH_MAX : 1 };
		break;
	case CONTROL_DOORBELL:
		in.doorbell = (struct control_doorbell){ variant ? VIRTIO_DEVICES_MAX - 1 : 0,
							 variant ? VIRTIO_QUEUES_MAX - 1 : 0 };
		break;
	case CONTROL_IO_REQUEST:
		make_io_request(variant);
		break;
	case CONTROL_IO_REPLY:
		make_io_reply(variant);
		break;
	case CONTROL_FEATURES:
		make_features(variant);
		break;
	case CONTROL_START:
		make_start(variant);
		break;
	case CONTROL_STATS_REQUEST:
		in.stats_request = (struct control_stats_request){
			UINT64_MAX, variant ? CONTROL_STATS_WHAT_LIMIT - 1 : 0
		};
		break;
	case CONTROL_STATS_REPLY:
		make_stats_reply(variant);
		break;
	case CONTROL_MOVE:
		make_move(variant);
		break;
	case CONTROL_PLACE:
		in.place = (struct control_place){ variant ? VCPUS_MAX - 1 : 0, UINT64_MAX };
		break;
	case CONTROL_BUTTON:
		in.button.count = variant ? UINT64_MAX : 1;
		break;
	case CONTROL_REFUSED:
		in.refused = (struct control_refused){ variant ? VCPUS_MAX - 1 : 0, 1 };
		break;
	case CONTROL_COMING:
		in.coming = (struct control_coming){ variant ? VCPUS_MAX - 1 : 0, UINT64_MAX };
		break;
	case CONTROL_MOVE_ASK:
		in.move_ask = (struct control_move_ask){ 1, variant ? VCPUS_MAX - 1 : 0, 255, 254 };
		break;
	case CONTROL_MOVE_TOLD:
		in.move_told = (struct control_move_told){ 1, variant ? VCPUS_MAX - 1 : 0,
							   CONTROL_MOVE_RESULT_LIMIT - 1 };
		break;
	case CONTROL_TAKEN:
		in.taken.vcpu = variant ? VCPUS_MAX - 1 : 0;
		break;
	case CONTROL_LOAD:
		in.load = (struct control_load){ UINT16_MAX, variant ? VCPUS_MAX : 0 };
		break;
	case CONTROL_OUTCOMES:
		make_outcomes(variant);
		break;
	case CONTROL_POLICY:
		in.policy = (struct control_policy){ variant ? PLACEMENT_POLICIES : 0,
						     (uint8_t)variant };
		break;
	case CONTROL_PIN:
		in.pin = (struct control_pin){ variant ? VCPUS_MAX - 1 : 0, (uint8_t)variant };
		break;
	case CONTROL_END:
		in.end = (struct control_end){ .kind = CONTROL_END_PANIC,
					       .status = 3,
					       .node = 255,
					       .vcpu = NODE_NONE,
					       .rip = 0xffffffff81000000 };
		memset(in.end.text, 'e', variant ? CONTROL_TEXT_MAX - 1 : 0);
		break;
	case CONTROL_STEP:
	case CONTROL_STEP_DONE:
	case CONTROL_STEP_OVER:
	case CONTROL_WISH:
	case CONTROL_WISH_REFUSED:
	case CONTROL_JOIN_READY:
	case CONTROL_JOIN_FAILED:
	case CONTROL_DRAINED:
		make_member(type, variant);
		break;
	case CONTROL_JOIN_ASK:
		make_join_ask(variant);
		break;
	case CONTROL_JOIN_TOLD:
		make_join_told(variant);
		break;
	default:
		in.clock_pong = (struct control_clock_pong){ 1, 2, 3, 4 };
		break;
	}
}

static int decode(size_t size)
{
	struct control_header header;

	memset(&out, 0, sizeof(out));
	if (control_header_decode(frame, &header) < 0 ||
	    header.payload_size != size - CONTROL_HEADER_BYTES)
		return -EPROTO;
	return control_message_decode(header.type, frame + CONTROL_HEADER_BYTES,
				      header.payload_size, &out);
}

static void test_round_trip(void **state)
{
	static uint8_t again[CONTROL_FRAME_MAX];

	for (uint8_t type = 1; type < CONTROL_TYPE_LIMIT; type++) {
		for (int variant = 0; variant < 2; variant++) {
			struct control_header header;
			int size;

			make(type, variant);
			size = control_message_encode(&in, 0xabcd, frame, sizeof(frame));
			assert_true(size >= (int)CONTROL_HEADER_BYTES);
			assert_int_equal(control_header_decode(frame, &header), 0);
			assert_int_equal(header.type, type);
			assert_int_equal(header.sequence, 0xabcd);
			assert_int_equal(header.payload_size, size - CONTROL_HEADER_BYTES);
			if (decode((size_t)size) < 0)
				fail_msg("%s, variant %d", control_type_name(type), variant);
			assert_int_equal(control_message_encode(&out, 0xabcd, again, sizeof(again)),
					 size);
			assert_memory_equal(again, frame, (size_t)size);
		}
	}
}

/* What the fields of the big ones are, not only that they come back as the same bytes. */
static void test_fields(void **state)
{
	int size;

	make(CONTROL_START, 1);
	size = control_message_encode(&in, 0, frame, sizeof(frame));
	assert_int_equal(decode((size_t)size), 0);
	assert_memory_equal(&out.start, &in.start, sizeof(in.start));
	make(CONTROL_FEATURES, 1);
	size = control_message_encode(&in, 0, frame, sizeof(frame));
	assert_int_equal(decode((size_t)size), 0);
	assert_memory_equal(&out.features, &in.features, sizeof(in.features));
	make(CONTROL_IO_REQUEST, 1);
	size = control_message_encode(&in, 0, frame, sizeof(frame));
	assert_int_equal(decode((size_t)size), 0);
	assert_memory_equal(&out.io_request, &in.io_request, 24 + 1024);
	make(CONTROL_INTERRUPT, 1);
	size = control_message_encode(&in, 0, frame, sizeof(frame));
	assert_int_equal(decode((size_t)size), 0);
	assert_memory_equal(&out.interrupt, &in.interrupt, sizeof(in.interrupt));
	make(CONTROL_PUBLISHED, 1);
	size = control_message_encode(&in, 0, frame, sizeof(frame));
	assert_int_equal(decode((size_t)size), 0);
	assert_memory_equal(&out.published, &in.published, sizeof(in.published));
	make(CONTROL_END, 1);
	size = control_message_encode(&in, 0, frame, sizeof(frame));
	assert_int_equal(decode((size_t)size), 0);
	assert_memory_equal(&out.end, &in.end, sizeof(in.end));
	for (uint8_t type = CONTROL_STEP; type <= CONTROL_DRAINED; type++)
		for (int variant = 0; variant < 2; variant++) {
			make(type, variant);
			size = control_message_encode(&in, 0, frame, sizeof(frame));
			assert_int_equal(decode((size_t)size), 0);
			assert_memory_equal(&out.member, &in.member, sizeof(in.member));
		}
}

/* The layout is a promise to other builds: these bytes never change without a new WIRE_VERSION. */
static void test_layout(void **state)
{
	static const uint8_t want[] = {
		0x45, 0x41, 0x47, 0x43, 4,    0,    0, 0, 12, 0, 0, 0, 2, 1, 0, 0, /* header */
		0,    0xec, 0,	  0,	0xff, 0xff, 2, 0, 3,  0, 1, 1,		   /* INTERRUPT */
	};

	memset(&in, 0, sizeof(in));
	in.type = CONTROL_INTERRUPT;
	in.interrupt.vector = 0xec;
	in.interrupt.from_vcpu = NODE_NONE;
	in.interrupt.vcpu_count = 2;
	in.interrupt.vcpu[0] = 3;
	in.interrupt.vcpu[1] = 0x101;
	assert_int_equal(control_message_encode(&in, 0x102, frame, sizeof(frame)), sizeof(want));
	assert_memory_equal(frame, want, sizeof(want));
}

static void test_layout_of_steps(void **state)
{
	static const uint8_t step[] = {
		3, 1, 0, 0, 0, 0, 0, 0,	      /* number */
		4, 2, 0, 0, 1, 0, 2, 0, 0, 0, /* id, node, by, why */
		5, 2, 0, 0, 0, 0,	      /* kind, seat */
	};
	static const uint8_t failed[] = { 0, 0, 0, 0, 1, 0, 2, 0, 110, 0, 0, 0, 0, 0, 0, 0 };

	memset(&in, 0, sizeof(in));
	in.type = CONTROL_STEP;
	in.member = (struct member_word){ .type = MEMBER_STEP,
					  .number = 0x103,
					  .id = 0x204,
					  .node = 1,
					  .by = 2,
					  .kind = KIND_SEAT,
					  .seat = SEAT_PC };
	assert_int_equal(control_message_encode(&in, 0, frame, sizeof(frame)),
			 CONTROL_HEADER_BYTES + sizeof(step));
	assert_memory_equal(frame + CONTROL_HEADER_BYTES, step, sizeof(step));
	in.type = CONTROL_JOIN_FAILED;
	in.member = (struct member_word){
		.type = MEMBER_FAILED, .node = 1, .by = 2, .why = -ETIMEDOUT
	};
	assert_int_equal(control_message_encode(&in, 0, frame, sizeof(frame)),
			 CONTROL_HEADER_BYTES + sizeof(failed));
	assert_memory_equal(frame + CONTROL_HEADER_BYTES, failed, sizeof(failed));
}

/* One byte less, one more, and every shorter beginning. */
static void test_sizes(void **state)
{
	for (uint8_t type = 1; type < CONTROL_TYPE_LIMIT; type++) {
		size_t size;

		make(type, type != CONTROL_STATS_REPLY); /* its frame would have no room for more */
		size = (size_t)control_message_encode(&in, 0, frame, sizeof(frame) - 1) -
		       CONTROL_HEADER_BYTES;
		frame[CONTROL_HEADER_BYTES + size] = 0;
		assert_int_equal(
			control_message_decode(type, frame + CONTROL_HEADER_BYTES, size + 1, &out),
			-EPROTO);
		for (size_t less = 0; less < size; less++)
			assert_int_equal(control_message_decode(type, frame + CONTROL_HEADER_BYTES,
								less, &out),
					 -EPROTO);
		/* No room: nothing is written beyond it. */
		assert_int_equal(control_message_encode(&in, 0, frame, CONTROL_HEADER_BYTES + 3),
				 -EMSGSIZE);
	}
	assert_int_equal(control_message_decode(0, frame, 8, &out), -EPROTO);
	assert_int_equal(control_message_decode(CONTROL_TYPE_LIMIT, frame, 8, &out), -EPROTO);
	assert_int_equal(control_message_decode(300, frame, 8, &out), -EPROTO);
}

/* A byte of a valid payload is changed: it must be refused. */
static void expect_refused(uint8_t type, int variant, size_t at, uint8_t value)
{
	int size;

	make(type, variant);
	size = control_message_encode(&in, 0, frame, sizeof(frame));
	assert_int_equal(decode((size_t)size), 0);
	frame[CONTROL_HEADER_BYTES + at] = value;
	if (decode((size_t)size) != -EPROTO)
		fail_msg("%s with byte %zu = %u was accepted", control_type_name(type), at, value);
}

static void test_rules(void **state)
{
	expect_refused(CONTROL_CLOCK_PONG, 0, 24, 2); /* sent before received */
	expect_refused(CONTROL_INTERRUPT, 0, 0, 3);   /* no such delivery mode */
	expect_refused(CONTROL_INTERRUPT, 0, 0, 8);
	expect_refused(CONTROL_INTERRUPT, 0, 2, 2); /* level is 0 or 1 */
	expect_refused(CONTROL_INTERRUPT, 0, 3, 1); /* de-assert is INIT's */
	expect_refused(CONTROL_INTERRUPT, 1, 5, 2); /* from vCPU 767 */
	expect_refused(CONTROL_INTERRUPT, 0, 6, 0); /* nobody */
	expect_refused(CONTROL_INTERRUPT, 0, 6, 2); /* more than there are */
	expect_refused(CONTROL_INTERRUPT, 0, 9, 2); /* vCPU 767 */
	expect_refused(CONTROL_EOI, 1, 1, 2);
	expect_refused(CONTROL_EOI, 0, 3, 1);		 /* reserved */
	expect_refused(CONTROL_IO_REQUEST, 1, 17, 2);	 /* vCPU 512 */
	expect_refused(CONTROL_IO_REQUEST, 1, 10, 1);	 /* port above 65535 */
	expect_refused(CONTROL_IO_REQUEST, 0, 13, 0x40); /* beyond guest memory's limit */
	expect_refused(CONTROL_IO_REQUEST, 1, 19, 2);	 /* 512 items */
	expect_refused(CONTROL_IO_REQUEST, 0, 18, 2);	 /* two items of MMIO */
	expect_refused(CONTROL_IO_REQUEST, 1, 20, 3);	 /* kind */
	expect_refused(CONTROL_IO_REQUEST, 1, 21, 3);	 /* size */
	expect_refused(CONTROL_IO_REQUEST, 0, 21, 9);
	expect_refused(CONTROL_IO_REQUEST, 0, 21, 0);
	expect_refused(CONTROL_IO_REQUEST, 0, 22, 2);
	expect_refused(CONTROL_IO_REQUEST, 0, 23, 1); /* reserved */
	expect_refused(CONTROL_IO_REPLY, 0, 12, 2);   /* status */
	expect_refused(CONTROL_IO_REPLY, 0, 13, 0);
	expect_refused(CONTROL_IO_REPLY, 0, 14, 1);	/* reserved */
	expect_refused(CONTROL_FEATURES, 0, 0, 0);	/* no name */
	expect_refused(CONTROL_FEATURES, 0, 5, 'x');	/* behind its end */
	expect_refused(CONTROL_FEATURES, 0, 1, '\x1b'); /* control character */
	expect_refused(CONTROL_FEATURES, 0, 30, 0);	/* no leaf */
	expect_refused(CONTROL_FEATURES, 0, 30, 129);
	expect_refused(CONTROL_FEATURES, 0, 32, 2);	 /* flags */
	expect_refused(CONTROL_FEATURES, 0, 39, 1);	 /* reserved */
	expect_refused(CONTROL_FEATURES, 0, 48, 2);	 /* index_matters */
	expect_refused(CONTROL_FEATURES, 1, 40 + 28, 9); /* out of order */
	expect_refused(CONTROL_START, 0, 0, 1);		 /* not whole pages */
	expect_refused(CONTROL_START, 0, 1, 0);		 /* no memory */
	expect_refused(CONTROL_START, 0, 16, 0);	 /* no frequency */
	expect_refused(CONTROL_START, 0, 20, 0);	 /* no vCPU */
	expect_refused(CONTROL_START, 0, 25, 2);
	expect_refused(CONTROL_START, 0, 31, 1);
	expect_refused(CONTROL_STATS_REPLY, 1, 100, 0x1b);
	expect_refused(CONTROL_STATS_REPLY, 0, 8, 1); /* begins where the text ends */
	expect_refused(CONTROL_STATS_REPLY, 0, 11, 0x80);
	expect_refused(CONTROL_STATS_REPLY, 0, 12, 0);	  /* longer than the whole */
	expect_refused(CONTROL_STATS_REPLY, 0, 14, 0x20); /* a whole of 2 MiB */
	expect_refused(CONTROL_END, 1, 9, 1);		  /* node 511 */
	expect_refused(CONTROL_END, 1, 14, CONTROL_END_KIND_LIMIT);
	expect_refused(CONTROL_END, 1, 40, 0); /* a NUL within */
	expect_refused(CONTROL_END, 1, 40, '\n');
	expect_refused(CONTROL_END, 1, 40, 0xff); /* no UTF-8 */
}

static void test_rules_of_moves(void **state)
{
	expect_refused(CONTROL_MOVE, 1, 1, 2);			   /* vCPU 767 */
	expect_refused(CONTROL_MOVE, 0, 2, 0);			   /* no image */
	expect_refused(CONTROL_MOVE, 0, 2, 2);			   /* more than there is */
	expect_refused(CONTROL_MOVE, 1, 2, 1);			   /* longer than an image can be */
	expect_refused(CONTROL_MOVE, 0, 4, 1);			   /* a carry of one byte */
	expect_refused(CONTROL_MOVE, 0, 4, PLACEMENT_CARRY_BYTES); /* that is not there */
	expect_refused(CONTROL_MOVE, 1, 4, 0);
	expect_refused(CONTROL_MOVE, 0, 6, 8); /* hints that are not there */
	expect_refused(CONTROL_MOVE, 1, 6, 8); /* fewer than there are */
	expect_refused(CONTROL_MOVE, 1, 7, 3); /* more than there may be */
	expect_refused(CONTROL_PLACE, 0, 9, 2);
	expect_refused(CONTROL_PLACE, 0, 10, 1);
	expect_refused(CONTROL_REFUSED, 0, 9, 2);
	expect_refused(CONTROL_REFUSED, 0, 15, 1);
	expect_refused(CONTROL_COMING, 0, 9, 2);
	expect_refused(CONTROL_COMING, 0, 10, 1);
	expect_refused(CONTROL_MOVE_ASK, 0, 9, 2);
	expect_refused(CONTROL_MOVE_ASK, 0, 11, 1); /* node 511 */
	expect_refused(CONTROL_MOVE_ASK, 0, 13, 1);
	expect_refused(CONTROL_MOVE_ASK, 0, 14, 1);
	expect_refused(CONTROL_MOVE_TOLD, 0, 9, 2);
	expect_refused(CONTROL_MOVE_TOLD, 0, 10, CONTROL_MOVE_RESULT_LIMIT);
	expect_refused(CONTROL_MOVE_TOLD, 0, 11, 1);
	expect_refused(CONTROL_TAKEN, 0, 1, 2);
	expect_refused(CONTROL_TAKEN, 0, 7, 1);
}

static bool startup_encodes(uint64_t address, uint8_t size, uint8_t write)
{
	memset(&in, 0, sizeof(in));
	in.type = CONTROL_IO_REQUEST;
	in.io_request.kind = CONTROL_IO_STARTUP;
	in.io_request.address = address;
	in.io_request.size = size;
	in.io_request.count = 1;
	in.io_request.write = write;
	return control_message_encode(&in, 0, frame, sizeof(frame)) > 0;
}

static void test_rules_of_startups(void **state)
{
	uint64_t init = (uint64_t)CONTROL_DELIVERY_INIT << CONTROL_STARTUP_MODE;
	uint64_t sipi = (uint64_t)CONTROL_DELIVERY_SIPI << CONTROL_STARTUP_MODE;

	assert_true(startup_encodes(init | 5, 1, 1));
	assert_true(
		startup_encodes(sipi | 0xffull << CONTROL_STARTUP_VECTOR | (VCPUS_MAX - 1), 1, 1));
	assert_false(startup_encodes(init | VCPUS_MAX, 1, 1));
	assert_false(startup_encodes(init | 1ull << 32, 1, 1));
	assert_false(startup_encodes(5, 1, 1)); /* a fixed one */
	assert_false(startup_encodes(init | 5, 2, 1));
	assert_false(startup_encodes(init | 5, 1, 0));
}

static void test_rules_of_policy(void **state)
{
	expect_refused(CONTROL_LOAD, 1, 3, 3); /* 768 are awake */
	expect_refused(CONTROL_LOAD, 0, 4, 1);
	expect_refused(CONTROL_OUTCOMES, 0, 0, 0); /* none */
	expect_refused(CONTROL_OUTCOMES, 0, 0, 2); /* one more than there is */
	expect_refused(CONTROL_OUTCOMES, 1, 0, PLACEMENT_OUTCOMES + 1);
	expect_refused(CONTROL_OUTCOMES, 0, 2, 1);
	expect_refused(CONTROL_OUTCOMES, 0, 8, PLACEMENT_ARMS);
	expect_refused(CONTROL_OUTCOMES, 0, 9, 1);
	expect_refused(CONTROL_OUTCOMES, 0, 8 + 25, 1); /* 16 s of a horizon of 10 ms */
	expect_refused(CONTROL_POLICY, 0, 0, 2);
	expect_refused(CONTROL_POLICY, 0, 1, 1);
	expect_refused(CONTROL_STATS_REQUEST, 0, 8, CONTROL_STATS_WHAT_LIMIT);
	expect_refused(CONTROL_POLICY, 0, 2, PLACEMENT_POLICIES);
	expect_refused(CONTROL_POLICY, 0, 3, 1);
	expect_refused(CONTROL_POLICY, 0, 7, 1);
	expect_refused(CONTROL_PIN, 0, 1, 2); /* vCPU 512 */
	expect_refused(CONTROL_PIN, 0, 2, 2);
	expect_refused(CONTROL_PIN, 0, 3, 1);
	expect_refused(CONTROL_PIN, 0, 7, 1);
}

/* Whom a step may be by, and with what. */
static bool step_encodes(enum member_kind kind, uint16_t by, uint32_t id, int why)
{
	make(CONTROL_STEP, 1);
	in.member.kind = kind;
	in.member.by = by;
	in.member.id = id;
	in.member.why = why;
	return control_message_encode(&in, 0, frame, sizeof(frame)) > 0;
}

static void test_rules_of_steps(void **state)
{
	for (int kind = 0; kind <= KIND_COUNT; kind++) {
		enum member_kind k = (enum member_kind)kind;
		bool own = k == KIND_ACTIVE || k == KIND_GONE || k == KIND_FREE;
		bool wished = k != KIND_GONE && k != KIND_FREE && k != KIND_COUNT;

		assert_int_equal(step_encodes(k, NODE_NONE, 0, 0), own);
		assert_int_equal(step_encodes(k, 3, 1, 0), wished);
		assert_false(step_encodes(k, NODE_NONE, 1, 0));
		assert_false(step_encodes(k, 3, 0, 0));
		assert_false(step_encodes(k, NODES_MAX, 1, 0));
		assert_int_equal(step_encodes(k, NODE_NONE, 0, -1), k == KIND_GONE);
		assert_false(step_encodes(k, NODE_NONE, 0, 1));
		assert_false(step_encodes(k, NODE_NONE, 0, -CONTROL_MEMBER_WHY_MAX - 1));
		make(CONTROL_WISH, 1);
		in.member.kind = k;
		assert_int_equal(control_message_encode(&in, 0, frame, sizeof(frame)) > 0, wished);
	}
	expect_refused(CONTROL_STEP, 0, 0, 0);	/* step 0 */
	expect_refused(CONTROL_STEP, 0, 8, 1);	/* nobody's id */
	expect_refused(CONTROL_STEP, 1, 13, 1); /* node 511 */
	expect_refused(CONTROL_STEP, 1, 15, 1); /* by 510 */
	expect_refused(CONTROL_STEP, 0, 15, 0); /* GONE was wished for */
	expect_refused(CONTROL_STEP, 0, 17, 0x10);
	expect_refused(CONTROL_STEP, 1, 16, 1); /* JOIN with a reason */
	expect_refused(CONTROL_STEP, 0, 18, KIND_COUNT);
	expect_refused(CONTROL_STEP, 0, 18, KIND_JOIN); /* of whom? */
	expect_refused(CONTROL_STEP, 1, 18, KIND_DRAIN);
	expect_refused(CONTROL_STEP, 0, 19, 1); /* a seat */
	expect_refused(CONTROL_STEP, 0, 20, 1); /* reserved */
	expect_refused(CONTROL_STEP, 0, 23, 1);
	expect_refused(CONTROL_STEP, 1, 24 + 10, 1);
	expect_refused(CONTROL_STEP, 1, 24 + 16, 0);	      /* no name, or behind its end */
	expect_refused(CONTROL_STEP, 1, 24 + 20, '\n');	      /* within it */
	expect_refused(CONTROL_STEP, 1, 24 + 79, 'n');	      /* without an end */
	expect_refused(CONTROL_STEP, 1, 24 + 80 + 5, '\x1b'); /* in the address */
	expect_refused(CONTROL_STEP, 1, 24 + 80 + 127, 'a');
	expect_refused(CONTROL_STEP_DONE, 0, 0, 0);
	expect_refused(CONTROL_STEP_OVER, 0, 0, 0);
}

static void test_rules_of_wishes(void **state)
{
	expect_refused(CONTROL_WISH, 0, 0, 1);	/* a number */
	expect_refused(CONTROL_WISH, 0, 8, 0);	/* no id */
	expect_refused(CONTROL_WISH, 1, 12, 1); /* who joins, is given his number */
	expect_refused(CONTROL_WISH, 0, 13, 1);
	expect_refused(CONTROL_WISH, 0, 15, 1);
	expect_refused(CONTROL_WISH, 0, 16, 1); /* a reason */
	expect_refused(CONTROL_WISH, 0, 18, KIND_GONE);
	expect_refused(CONTROL_WISH, 0, 18, KIND_FREE);
	expect_refused(CONTROL_WISH, 0, 18, KIND_COUNT);
	expect_refused(CONTROL_WISH, 0, 19, SEAT_COUNT);
	expect_refused(CONTROL_WISH, 0, 20, 1);
	expect_refused(CONTROL_WISH_REFUSED, 0, 0, 0); /* no id */
	expect_refused(CONTROL_WISH_REFUSED, 0, 4, 1); /* a node */
	expect_refused(CONTROL_WISH_REFUSED, 0, 6, 1);
	expect_refused(CONTROL_WISH_REFUSED, 0, 8, 0); /* for no reason */
	expect_refused(CONTROL_WISH_REFUSED, 0, 9, 0x10);
	expect_refused(CONTROL_WISH_REFUSED, 0, 10, 1);
	for (uint8_t type = CONTROL_JOIN_READY; type <= CONTROL_DRAINED; type++) {
		expect_refused(type, 0, 0, 1); /* an id */
		expect_refused(type, 1, 4, 1); /* of another, or of himself */
		expect_refused(type, 0, 5, 1);
		expect_refused(type, 0, 7, 1);
		expect_refused(type, 0, 8, type != CONTROL_JOIN_FAILED);
		expect_refused(type, 0, 9, 0x10);
		expect_refused(type, 0, 15, 1);
	}
	/* A word of another type in the message. */
	make(CONTROL_STEP_DONE, 0);
	in.member.type = MEMBER_OVER;
	assert_int_equal(control_message_encode(&in, 0, frame, sizeof(frame)), -EINVAL);
}

static void test_join(void **state)
{
	static struct member_snapshot got;
	int size;

	for (int variant = 0; variant < 2; variant++) {
		make(CONTROL_JOIN_ASK, variant);
		size = control_message_encode(&in, 0, frame, sizeof(frame));
		assert_true(size > 0);
		assert_int_equal(decode((size_t)size), 0);
		assert_memory_equal(&out.join_ask.about, &in.join_ask.about,
				    sizeof(in.join_ask.about));
		assert_memory_equal(&out.join_ask.features.offer, &in.join_ask.features.offer,
				    sizeof(in.join_ask.features.offer));
		make_list(variant);
		size = control_list_encode(&list, list_bytes, sizeof(list_bytes));
		assert_true(size > 0);
		assert_int_equal(control_list_decode(list_bytes, (size_t)size, &got), 0);
		assert_memory_equal(&got, &list, sizeof(got));
		for (int less = 1; less < 100; less++)
			assert_int_equal(
				control_list_decode(list_bytes, (size_t)(size - less), &got),
				-EPROTO);
		assert_int_equal(control_list_encode(&list, list_bytes, (size_t)(size - 1)),
				 -EMSGSIZE);
	}
	make(CONTROL_JOIN_TOLD, 1);
	size = control_message_encode(&in, 0, frame, sizeof(frame));
	assert_int_equal(decode((size_t)size), 0);
	assert_int_equal(out.join_told.number, in.join_told.number);
	assert_int_equal(out.join_told.list_size, in.join_told.list_size);
	assert_memory_equal(out.join_told.list, in.join_told.list, in.join_told.list_size);
	assert_memory_equal(out.join_told.config, in.join_told.config, in.join_told.config_size);

	expect_refused(CONTROL_JOIN_ASK, 0, 0, 1);   /* a promise that FEATURES has not */
	expect_refused(CONTROL_JOIN_ASK, 0, 16, 0);  /* no name */
	expect_refused(CONTROL_JOIN_ASK, 0, 80, 0);  /* no address */
	expect_refused(CONTROL_JOIN_ASK, 0, 208, 1); /* a token of its own */
	expect_refused(CONTROL_JOIN_ASK, 0, 216, 1);
	expect_refused(CONTROL_JOIN_ASK, 0, 224 + 28, 1); /* a vCPU */
	expect_refused(CONTROL_JOIN_ASK, 0, 224 + 35, 1); /* a device */
	expect_refused(CONTROL_JOIN_TOLD, 0, 0, 1);	  /* refused, with a number */
	expect_refused(CONTROL_JOIN_TOLD, 0, 6, 1);
	expect_refused(CONTROL_JOIN_TOLD, 0, 16, '\n');
	expect_refused(CONTROL_JOIN_TOLD, 0, 16, 0);
	expect_refused(CONTROL_JOIN_TOLD, 1, 1, 1); /* number 511 */
	expect_refused(CONTROL_JOIN_TOLD, 1, 4, 0); /* no secret */
	expect_refused(CONTROL_JOIN_TOLD, 1, 8, 0); /* no configuration */
	expect_refused(CONTROL_JOIN_TOLD, 1, 11, 1);
	expect_refused(CONTROL_JOIN_TOLD, 1, 12, 0);	  /* no list */
	expect_refused(CONTROL_JOIN_TOLD, 1, 17, '\x1b'); /* in the configuration */
	/* The list, behind 16 of its lengths, a secret of 1, a configuration of 15. */
	expect_refused(CONTROL_JOIN_TOLD, 1, 32 + 9, 2);       /* 512 numbers */
	expect_refused(CONTROL_JOIN_TOLD, 1, 32 + 10, 1);      /* one more or less */
	expect_refused(CONTROL_JOIN_TOLD, 1, 32 + 13, 1);      /* a seat of 511's */
	expect_refused(CONTROL_JOIN_TOLD, 1, 32 + 22, 1);      /* reserved */
	expect_refused(CONTROL_JOIN_TOLD, 1, 32 + 24 + 32, 1); /* 1 comes twice */
	expect_refused(CONTROL_JOIN_TOLD, 1, 32 + 24 + 36, 0); /* FREE */
	expect_refused(CONTROL_JOIN_TOLD, 1, 32 + 24 + 36, 9);
	expect_refused(CONTROL_JOIN_TOLD, 1, 32 + 24 + 37, 0); /* no name */
	expect_refused(CONTROL_JOIN_TOLD, 1, 32 + 24 + 37, 255);
	expect_refused(CONTROL_JOIN_TOLD, 1, 32 + 24 + 38, 255);
	expect_refused(CONTROL_JOIN_TOLD, 1, 32 + 24 + 39, 1);
	expect_refused(CONTROL_JOIN_TOLD, 1, 32 + 24 + 40, 0); /* a NUL in a name */
}

static void test_encode_refuses(void **state)
{
	make(CONTROL_INTERRUPT, 0);
	in.interrupt.vcpu_count = CONTROL_VCPUS_MAX + 1;
	assert_int_equal(control_message_encode(&in, 0, frame, sizeof(frame)), -EINVAL);
	make(CONTROL_IO_REQUEST, 1);
	in.io_request.count = CONTROL_IO_ITEMS_MAX + 1;
	assert_int_equal(control_message_encode(&in, 0, frame, sizeof(frame)), -EINVAL);
	make(CONTROL_STATS_REPLY, 1);
	in.stats_reply.total++;
	assert_int_equal(control_message_encode(&in, 0, frame, sizeof(frame)), -EINVAL);
	make(CONTROL_FEATURES, 1);
	in.features.offer.count = CPUID_LEAVES_MAX + 1;
	assert_int_equal(control_message_encode(&in, 0, frame, sizeof(frame)), -EINVAL);
	make(CONTROL_END, 1);
	in.end.text[CONTROL_TEXT_MAX - 1] = 'e'; /* not terminated */
	assert_int_equal(control_message_encode(&in, 0, frame, sizeof(frame)), -EINVAL);
	in.type = CONTROL_TYPE_LIMIT;
	assert_int_equal(control_message_encode(&in, 0, frame, sizeof(frame)), -EINVAL);
	assert_string_equal(control_type_name(CONTROL_TYPE_LIMIT), "?");
	assert_string_equal(control_type_name(CONTROL_END), "END");
}

/* What no disk or card is. */
static void test_devices_refused(void **state)
{
	for (int wrong = 0; wrong < 9; wrong++) {
		struct device_info *info = in.start.devices.info;

		make(CONTROL_START, 1);
		switch (wrong) {
		case 0:
			in.start.devices.count = VIRTIO_DEVICES_MAX + 1;
			break;
		case 1:
			info[1].device = info[2].device;
			break;
		case 2:
			info[30].device = VIRTIO_DEVICES_MAX;
			break;
		case 3:
			info[0].kind = VIRTIO_KIND_RNG;
			break;
		case 4:
			info[0].disk.block_bytes = 1536;
			break;
		case 5:
			info[0].disk.block_bytes = 8192;
			break;
		case 6:
			info[0].disk.bytes = 0;
			break;
		case 7:
			memset(info[0].disk.serial, 's', sizeof(info[0].disk.serial));
			break;
		case 8:
			info[1].net.pairs = NET_PAIRS_MAX + 1;
			break;
		}
		assert_int_equal(control_message_encode(&in, 0, frame, sizeof(frame)), -EINVAL);
	}
}

/* The last words of a pod get through, whatever is in them. */
static void test_end_is_cleaned(void **state)
{
	int size;

	make(CONTROL_END, 0);
	snprintf(in.end.text, sizeof(in.end.text), "bad \x1b[0m \xff\xc0\xaf ok \xc3\xa4 \n");
	size = control_message_encode(&in, 0, frame, sizeof(frame));
	assert_true(size > 0);
	assert_int_equal(decode((size_t)size), 0);
	assert_string_equal(out.end.text, "bad ?[0m ??? ok \xc3\xa4 ?");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),	cmocka_unit_test(test_fields),
		cmocka_unit_test(test_layout),		cmocka_unit_test(test_layout_of_steps),
		cmocka_unit_test(test_sizes),		cmocka_unit_test(test_rules),
		cmocka_unit_test(test_rules_of_moves),	cmocka_unit_test(test_rules_of_startups),
		cmocka_unit_test(test_rules_of_policy), cmocka_unit_test(test_rules_of_steps),
		cmocka_unit_test(test_rules_of_wishes), cmocka_unit_test(test_join),
		cmocka_unit_test(test_encode_refuses),	cmocka_unit_test(test_devices_refused),
		cmocka_unit_test(test_end_is_cleaned),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
