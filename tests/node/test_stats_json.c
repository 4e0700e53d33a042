/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node with as many vCPUs as a pod can have, and the largest numbers everywhere: all of it gets
 * through the control messages, part by part.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "node/stats_json.h"
#include "tests/test.h"

#define LONG_NAME "a-name-as-long-as-a-node-can-have-it-a-name-as-long-as-a-node-c"

static char *largest(void)
{
	static struct stats_vcpu vcpu[VCPUS_MAX];
	static struct stats_node node = { .number = NODES_MAX - 1,
					  .name = LONG_NAME,
					  .address = "host.example:65535",
					  .engine = "soft",
					  .step = INT64_MAX,
					  .steward = LONG_NAME,
					  .promised_bytes = GPA_LIMIT,
					  .clock_error_ns = INT64_MAX,
					  .tsc_error_ns = INT64_MIN,
					  .hot_count = STATS_HOT_PAGES,
					  .record_count = STATS_RECORDS,
					  .choice_count = STATS_CHOICES,
					  .shadow_count = STATS_RECORDS,
					  .shadow_choice_count = STATS_CHOICES,
					  .vcpu_count = VCPUS_MAX,
					  .seat_count = VCPUS_MAX,
					  .seat = vcpu };
	assert_int_equal(strlen(LONG_NAME), NODE_NAME_MAX - 1);
	for (uint32_t i = 0; i < VCPUS_MAX; i++) {
		memset(&vcpu[i].stats, 0x7f, sizeof(vcpu[i].stats));
		vcpu[i].number = i;
		vcpu[i].here = true;
		vcpu[i].stalled_ns = vcpu[i].cpu_ns = vcpu[i].core_wait_ns = INT64_MAX;
		vcpu[i].stalls = INT64_MAX;
	}
	memset(&node.placer.placement, 0x11, sizeof(node.placer.placement));
	node.placer.placement.learner_off = true;
	for (uint32_t i = 0; i < STATS_RECORDS; i++)
		node.record[i] = (struct placement_record){ .at_ns = INT64_MAX,
							    .vcpu = VCPUS_MAX - 1,
							    .move = true,
							    .here = NODES_MAX - 1,
							    .target = NODES_MAX - 2,
							    .move_ns = INT64_MAX,
							    .factor = UINT16_MAX,
							    .why = PLACEMENT_WHY_PAID };
	memcpy(node.shadow, node.record, sizeof(node.shadow));
	for (uint32_t i = 0; i < STATS_CHOICES; i++) {
		struct placement_record *choice = &node.choice[i];
		*choice = (struct placement_record){ .at_ns = INT64_MAX,
						     .vcpu = VCPUS_MAX - 1,
						     .here = NODES_MAX - 1,
						     .target = NODES_MAX - 2,
						     .arm = PLACEMENT_ARM_EAGER,
						     .drawn = true,
						     .predicted = true,
						     .arm_ns = { INT64_MAX, INT64_MIN },
						     .lost_ns = INT64_MAX };
		for (int f = 0; f < PLACEMENT_FEATURES; f++)
			choice->part_ns[f] = INT32_MIN;
	}
	memcpy(node.shadow_choice, node.choice, sizeof(node.shadow_choice));
	memset(&node.pager, 0x11, sizeof(node.pager));
	memset(&node.io, 0x11, sizeof(node.io));
	node.io.disk_count = DISKS_MAX;
	for (uint32_t i = 0; i < DISKS_MAX; i++)
		node.io.disk[i].name = "a-disk-whose-name-is-very-long-x";
	for (uint32_t i = 0; i < STATS_HOT_PAGES; i++) {
		node.hot[i] = (struct pager_hot_page){ .gpn = GPN_LIMIT - 1,
						       .count = INT64_MAX,
						       .offset_count = PAGER_HOT_OFFSETS };
		for (uint32_t j = 0; j < PAGER_HOT_OFFSETS; j++)
			node.hot[i].offset[j] =
				(struct pager_hot_offset){ PAGE_BYTES - 1 - j, INT64_MAX };
	}
	return stats_json(&node);
}

/* As over a channel: encoded, decoded. text points into `frame`. */
static void carry(const struct control_stats_reply *part, uint8_t *frame,
		  struct control_stats_reply *ret_part)
{
	static struct control_message msg, back;
	struct control_header header;
	msg.type = CONTROL_STATS_REPLY;
	msg.stats_reply = *part;
	assert_true(control_message_encode(&msg, 0, frame, CONTROL_FRAME_MAX) > 0);
	assert_int_equal(control_header_decode(frame, &header), 0);
	assert_int_equal(control_message_decode(header.type, frame + CONTROL_HEADER_BYTES,
						header.payload_size, &back),
			 0);
	*ret_part = back.stats_reply;
}

static void test_largest(void **state)
{
	uint8_t *frame = malloc(CONTROL_FRAME_MAX);
	struct stats_text whole = { 0 };
	char *text = largest();
	uint32_t size = (uint32_t)strlen(text), parts = 0;
	struct control_stats_reply part = { .id = 5 }, got;
	assert_true(size > CONTROL_STATS_PART_MAX && size <= CONTROL_STATS_TEXT_MAX);
	for (uint32_t offset = 0; offset < size; offset += part.text_size) {
		stats_part(text, size, offset, &part);
		carry(&part, frame, &got);
		assert_int_equal(stats_text_add(&whole, &got),
				 offset + got.text_size == size ? 1 : 0);
		parts++;
	}
	assert_int_equal(parts, (size + CONTROL_STATS_PART_MAX - 1) / CONTROL_STATS_PART_MAX);
	assert_int_equal(whole.total, size);
	assert_memory_equal(whole.text, text, size);

	json_t *o = json_loadb(whole.text, whole.total, 0, NULL);
	assert_int_equal(json_array_size(json_object_get(o, "vcpu_list")), VCPUS_MAX);
	assert_string_equal(json_string_value(json_object_get(o, "name")), LONG_NAME);
	assert_string_equal(json_string_value(json_object_get(o, "policy")), "pages");
	json_t *decisions = json_object_get(o, "decisions");
	assert_int_equal(json_array_size(decisions), STATS_RECORDS);
	assert_non_null(
		strstr(json_string_value(json_object_get(json_array_get(decisions, 0), "text")),
		       "goes from node 255 to node 254"));
	json_t *choices = json_object_get(o, "choices");
	assert_int_equal(json_array_size(choices), STATS_CHOICES);
	const char *choice = json_string_value(
		json_object_get(json_array_get(choices, STATS_CHOICES - 1), "text"));
	assert_non_null(strstr(choice, "at node 255, stalls on node 254: threshold eager"));
	assert_non_null(strstr(choice, "\n  lost "));
	json_t *shadow = json_object_get(o, "shadow");
	assert_int_equal(json_array_size(json_object_get(shadow, "decisions")), STATS_RECORDS);
	assert_int_equal(json_array_size(json_object_get(shadow, "choices")), STATS_CHOICES);
	assert_int_equal(json_array_size(json_object_get(o, "seats")), VCPUS_MAX);
	json_decref(o);
	stats_text_free(&whole);
	assert_null(whole.text);
	free(text);
	free(frame);
}

static int add(struct stats_text *text, uint32_t offset, uint32_t total, const char *words)
{
	struct control_stats_reply part = { .offset = offset,
					    .total = total,
					    .text = words,
					    .text_size = (uint32_t)strlen(words) };
	return stats_text_add(text, &part);
}

static void test_parts_out_of_order(void **state)
{
	struct stats_text text = { 0 };
	assert_int_equal(add(&text, 2, 6, "cd"), -EPROTO);
	assert_int_equal(add(&text, 0, 6, "ab"), 0);
	assert_int_equal(add(&text, 0, 6, "ab"), -EPROTO);
	assert_int_equal(add(&text, 4, 6, "ef"), -EPROTO);
	assert_int_equal(add(&text, 2, 4, "cd"), -EPROTO); /* another whole */
	assert_int_equal(add(&text, 2, 6, "cdef"), 1);
	assert_memory_equal(text.text, "abcdef", 6);
	assert_int_equal(add(&text, 4, 6, "ef"), -EPROTO);
	stats_text_free(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_largest),
		cmocka_unit_test(test_parts_out_of_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
