// SPDX-License-Identifier: Apache-2.0
/*
 * Fuzzes control messages. The input is a frame; its header's sizes are put right half of the time
 * (first byte odd), so that the payloads get their share. What is accepted must encode to the same
 * bytes again.
 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "wire/control_message.h"
#include "wire/text.h"
#include "wire/vcpu_image.h"
#include "wire/version.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void repair(uint8_t *frame, size_t size)
{
	uint32_t magic = htole32(WIRE_MAGIC_CONTROL);
	uint32_t payload_size = htole32((uint32_t)(size - CONTROL_HEADER_BYTES));

	memcpy(frame, &magic, sizeof(magic));
	frame[4] = (uint8_t)(1 + frame[4] % (CONTROL_TYPE_LIMIT - 1));
	frame[5] = frame[6] = frame[7] = 0;
	memcpy(frame + 8, &payload_size, sizeof(payload_size));
}

/* Whatever they are: what is believed is written as the same bytes. */
static void check_hints(const struct control_move *move)
{
	uint8_t again[PAGE_HINTS_BYTES_MAX];
	struct page_hints hints;

	if (page_hints_read(move->hints, move->hints_size, &hints) == 0 &&
	    (page_hints_write(&hints, again) != move->hints_size ||
	     (move->hints_size && memcmp(again, move->hints, move->hints_size) != 0)))
		abort();
}

/* As much of a word as member_list_hear() takes for granted, and as is printed. */
static void check_member(const struct control_message *msg)
{
	const struct member_word *word = &msg->member;

	if (control_member_type(word->type) != msg->type || word->node >= NODES_MAX ||
	    word->kind >= KIND_COUNT || word->seat >= SEAT_COUNT || word->why > 0 ||
	    word->why < -CONTROL_MEMBER_WHY_MAX || (word->by >= NODES_MAX && word->by != NODE_NONE))
		abort();
	if (!wire_text_valid(word->about.name, sizeof(word->about.name)) ||
	    !wire_text_valid(word->about.address, sizeof(word->about.address)))
		abort();
}

/* What a decoder lets through is used without further looks. */
static void check_ranges(const struct control_message *msg)
{
	static struct member_snapshot list;

	if (msg->type == CONTROL_INTERRUPT &&
	    (msg->interrupt.vcpu_count > CONTROL_VCPUS_MAX || msg->interrupt.vcpu[0] >= VCPUS_MAX))
		abort();
	if (msg->type == CONTROL_IO_REQUEST &&
	    (size_t)msg->io_request.count * msg->io_request.size > CONTROL_IO_BYTES_MAX)
		abort();
	if (msg->type == CONTROL_MOVE && (msg->move.vcpu >= VCPUS_MAX || !msg->move.image_size ||
					  msg->move.image_size > VCPU_IMAGE_BYTES_MAX))
		abort();
	if (msg->type == CONTROL_MOVE)
		check_hints(&msg->move);
	if ((msg->type == CONTROL_PLACE && msg->place.vcpu >= VCPUS_MAX) ||
	    (msg->type == CONTROL_COMING && msg->coming.vcpu >= VCPUS_MAX) ||
	    (msg->type == CONTROL_REFUSED && msg->refused.vcpu >= VCPUS_MAX) ||
	    (msg->type == CONTROL_TAKEN && msg->taken.vcpu >= VCPUS_MAX))
		abort();
	if (msg->type == CONTROL_MOVE_ASK &&
	    (msg->move_ask.vcpu >= VCPUS_MAX || msg->move_ask.to >= NODES_MAX ||
	     msg->move_ask.asker >= NODES_MAX))
		abort();
	if (msg->type == CONTROL_OUTCOMES &&
	    (msg->outcomes.count == 0 || msg->outcomes.count > PLACEMENT_OUTCOMES ||
	     !placement_outcome_valid(&msg->outcomes.outcome[msg->outcomes.count - 1])))
		abort();
	if (msg->type == CONTROL_POLICY &&
	    (msg->policy.shadow > 1 ||
	     msg->policy.policy >= PLACEMENT_POLICIES + msg->policy.shadow))
		abort();
	if (msg->type >= CONTROL_STEP && msg->type <= CONTROL_DRAINED)
		check_member(msg);
	if (msg->type == CONTROL_JOIN_TOLD && !msg->join_told.why[0] &&
	    (msg->join_told.number >= NODES_MAX ||
	     msg->join_told.secret_size > CONTROL_SECRET_MAX ||
	     control_list_decode(msg->join_told.list, msg->join_told.list_size, &list) < 0))
		abort();
	if (msg->type == CONTROL_END && !wire_text_valid(msg->end.text, CONTROL_TEXT_MAX))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t frame[CONTROL_FRAME_MAX + 64], again[CONTROL_FRAME_MAX];
	static struct control_message msg;
	struct control_header header;
	int encoded;

	if (size < 1 + CONTROL_HEADER_BYTES || size - 1 > sizeof(frame))
		return 0;
	size--;
	memcpy(frame, data + 1, size);
	if (data[0] & 1)
		repair(frame, size);
	if (control_header_decode(frame, &header) < 0)
		return 0;
	if (header.payload_size != size - CONTROL_HEADER_BYTES)
		return 0;
	if (control_message_decode(header.type, frame + CONTROL_HEADER_BYTES, header.payload_size,
				   &msg) < 0)
		return 0;
	check_ranges(&msg);
	encoded = control_message_encode(&msg, header.sequence, again, sizeof(again));
	if (encoded != (int)size || memcmp(again, frame, size) != 0)
		abort();
	return 0;
}
