/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of eagre top from made-up answers: what they say is worked out by hand, and whole pages are
 * compared with tests/cmd/top/NAME. Set EAGRE_GOLDEN to a folder to have them written there.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/guest_symbols.h"
#include "cmd/top_frame.h"
#include "tests/test.h"

#define SECOND 1000000000ll

struct shape {
	int nodes, vcpus, missing_node; /* -1: all answer */
};

static json_t *node_json(const struct shape *shape, int n, json_int_t t)
{
	json_t *seats = json_array(), *hot = json_array();
	for (int v = 0; v < shape->vcpus; v++) {
		/* On node v for 3/4 of each second, for 1/4 on the next one. */
		int part = v % shape->nodes == n ? 3 : (v + 1) % shape->nodes == n ? 1 : 0;
		if (part)
			json_array_append_new(
				seats,
				json_pack("{s:i,s:I,s:I,s:I,s:I,s:I,s:I}", "vcpu", v, "here_ns",
					  t * part * 250000000, "cpu_ns", t * part * 100000000,
					  "core_wait_ns", t * part * 10000000, "stalled_ns",
					  t * part * 50000000, "halted_ns", t * part * 25000000,
					  "stalls", t * part * 300));
	}
	json_array_append_new(hot, json_pack("{s:s,s:I,s:{s:i,s:i}}", "gpa", "0x1a01000", "stalls",
					     10 + t * (n + 1) * 100, "at", "40", 5, "80", 3));
	json_array_append_new(hot, json_pack("{s:s,s:I,s:{s:i}}", "gpa", "0x2fff000", "stalls",
					     5 + t * 20, "at", "0", 5));
	return json_pack(
		"{s:i,s:s+,s:i,s:I,s:I,s:i,s:i,s:{s:I,s:I,s:I,s:I},s:{s:I,s:I,s:I,s:I},s:{s:I,s:I},"
		"s:I,s:I,s:o,s:o}",
		"number", n, "name", "node", (char[]){ (char)('a' + n), 0 }, "vcpus",
		(shape->vcpus - n + shape->nodes - 1) / shape->nodes, "time_ns", 100 + t * SECOND,
		"promised_bytes", 1ll << 30, "pages_owned", 100000, "pages_shared", 5000, "stalls",
		"zero", t, "read", t * 1000, "write", t * 500, "upgrade", t * 20, "stall_ns",
		"zero", t * 1000, "read", t * 400000000, "write", t * 150000000, "upgrade",
		t * 3000000, "stall_buckets", "60", t * 98, "72", t * 2, "messages", t * 4000,
		"bytes_out", t * 3 << 20, "hot_pages", hot, "seats", seats);
}

/* After t seconds. */
static json_t *pod(const struct shape *shape, int t)
{
	json_t *nodes = json_array(), *vcpus = json_array();
	for (int n = 0; n < shape->nodes; n++) {
		if (n == shape->missing_node)
			json_array_append_new(nodes, json_pack("{s:i,s:s,s:s}", "number", n, "name",
							       "gone", "error",
							       "no answer within a second"));
		else
			json_array_append_new(nodes, node_json(shape, n, t));
	}
	for (int v = 0; v < shape->vcpus; v++) {
		char name[] = "nodea";
		name[4] = (char)('a' + v % shape->nodes);
		if (v % shape->nodes != shape->missing_node)
			json_array_append_new(
				vcpus, json_pack("{s:i,s:s,s:s,s:i,s:b}", "number", v, "node", name,
						 "state", v % 2 ? "halted" : "running", "moves",
						 t * 10 * (v + 1), "pinned", v == 1));
	}
	return json_pack("{s:s,s:s,s:i,s:I,s:s,s:s,s:o,s:o}", "pod", "demo", "state", "running",
			 "uptime_s", 30 + t, "memory_bytes", 2ll << 30, "engine", "soft", "policy",
			 "learned", "nodes", nodes, "vcpus", vcpus);
}

static char *frame_of(json_t *before, json_t *now, const struct top_view *view)
{
	char *text = top_frame(before, now, view);
	assert_non_null(text);
	json_decref(before);
	json_decref(now);
	return text;
}

static void compare(const char *name, const char *text)
{
	const char *write_to = getenv("EAGRE_GOLDEN");
	static char wanted[65536];
	char path[512];
	snprintf(path, sizeof(path), "%s/%s", write_to ? write_to : GOLDEN_DIR, name);
	FILE *file = fopen(path, write_to ? "w" : "r");
	assert_non_null(file);
	if (write_to) {
		fputs(text, file);
	} else {
		wanted[fread(wanted, 1, sizeof(wanted) - 1, file)] = '\0';
		assert_string_equal(text, wanted);
	}
	fclose(file);
}

static void test_golden(void **state)
{
	static const struct {
		const char *name;
		struct shape shape;
		struct top_view view;
	} cases[] = {
		{ "3-nodes-80x24",
		  { 3, 3, -1 },
		  { .width = 80, .height = 24, .last_line = "keys" } },
		{ "3-nodes-120x30", { 3, 6, -1 }, { .width = 120, .height = 30 } },
		{ "1-vcpu-80x24", { 1, 1, -1 }, { .width = 80, .height = 24 } },
		{ "16-nodes-80x40", { 16, 64, -1 }, { .width = 80, .height = 40 } },
		{ "16-nodes-120x50",
		  { 16, 64, -1 },
		  { .width = 120, .height = 50, .sort = TOP_BY_MOVES } },
		{ "node-gone-batch", { 3, 3, 1 }, { .width = 0 } },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *text =
			frame_of(pod(&cases[i].shape, 2), pod(&cases[i].shape, 4), &cases[i].view);
		compare(cases[i].name, text);
		free(text);
	}
}

/* Whatever the size: no line is wider, none too many, and the styled page is as high. */
static void test_sizes(void **state)
{
	const struct shape shape = { 16, 64, 3 };
	for (unsigned int width = 1; width < 200; width += 7)
		for (unsigned int height = 1; height < 100; height += 9) {
			struct top_view view = { .width = width,
						 .height = height,
						 .last_line = "keys" };
			char *text = frame_of(pod(&shape, 2), pod(&shape, 3), &view);
			unsigned int lines = 0;
			for (char *line = text; *line; lines++) {
				char *end = strchr(line, '\n');
				assert_non_null(end);
				assert_true((size_t)(end - line) <= width);
				line = end + 1;
			}
			assert_int_equal(lines, height);
			free(text);
		}
}

static const char *line_with(const char *text, const char *word)
{
	static char line[1024];
	const char *found = strstr(text, word);
	assert_non_null(found);
	while (found > text && found[-1] != '\n')
		found--;
	snprintf(line, sizeof(line), "%.*s", (int)strcspn(found, "\n"), found);
	return line;
}

static void test_numbers(void **state)
{
	const struct shape shape = { 3, 3, -1 };
	const struct top_view view = { 0 };
	char *text = frame_of(pod(&shape, 2), pod(&shape, 4), &view);
	/* Two seats: 4 x 10 % on a core, 4 x 1 % without, 4 x 5 %, 4 x 2.5 %; 20 moves a second. */
	assert_non_null(
		strstr(text, "40 % on a core, 4 % waiting for one, 20 % stalled, 10 % halted"));
	assert_non_null(strstr(text, "a second: 60 moves, 4.6k stalls"));
	assert_non_null(strstr(
		text,
		"nodeb    halted    40     4     20    10     26     67   1.2k    20       .83"));
	/* 600 stalls a second: 100, 200 and 300. */
	assert_non_null(strstr(text, "0x1a01000        600    235 +0x40, +0x80"));
	free(text);
}

/* Where the learner lost to the base rule, that is said with the policy. */
static void test_learner_off(void **state)
{
	const struct shape shape = { 3, 3, -1 };
	const struct top_view view = { 0 };
	json_t *now = pod(&shape, 4), *nodes = json_object_get(now, "nodes");
	for (size_t n = 0; n < 3; n++)
		json_object_set_new(json_array_get(nodes, n), "placement",
				    json_pack("{s:i}", "learner_off", n != 1));
	char *text = frame_of(pod(&shape, 2), now, &view);
	assert_non_null(strstr(text, "3 vCPUs, policy learned (off on 2), 1 pinned\n"));
	free(text);
}

/* Nothing to compare with, or another pod's numbers, or answers that have little: no nonsense. */
/* Who comes and goes is said where somebody does, and only then. */
static void test_states(void **state)
{
	static const char *const states[] = { "member", "leaves", "joins" };
	const struct shape shape = { 3, 3, -1 };
	const struct top_view view = { 0 }, narrow = { .width = 40, .height = 20 };
	json_t *now = pod(&shape, 4), *nodes = json_object_get(now, "nodes"), *all = pod(&shape, 4);
	for (size_t n = 0; n < 3; n++) {
		json_object_set_new(json_array_get(nodes, n), "state", json_string(states[n]));
		json_object_set_new(json_array_get(json_object_get(all, "nodes"), n), "state",
				    json_string("member"));
	}
	json_object_set_new(json_array_get(nodes, 2), "error", json_string("no numbers of it"));
	char *small = frame_of(pod(&shape, 2), json_deep_copy(now), &narrow);
	char *text = frame_of(pod(&shape, 2), now, &view);
	char *plain = frame_of(pod(&shape, 2), all, &view);
	assert_non_null(strstr(text, " leaves\n"));
	assert_non_null(strstr(text, " joins\n"));
	assert_null(strstr(text, "member"));
	assert_non_null(strstr(small, " leaves\n"));
	assert_null(strstr(plain, "member"));
	free(text);
	free(plain);
	free(small);
}

static void test_unknown(void **state)
{
	const struct shape shape = { 3, 3, -1 };
	const struct top_view view = { 0 };
	char *none = frame_of(NULL, pod(&shape, 4), &view);
	char *back = frame_of(pod(&shape, 9), pod(&shape, 4), &view);
	assert_string_equal(none, back);
	assert_non_null(strstr(none, "a second: - moves, - stalls (p50 -, p99 -), - messages"));
	free(none);
	free(back);

	/* Another pod of this name, whose clock is ahead of that one's. */
	json_t *other = pod(&shape, 9);
	json_object_set_new(other, "uptime_s", json_integer(3));
	back = frame_of(pod(&shape, 4), other, &view);
	assert_non_null(strstr(back, "a second: - moves, - stalls"));
	free(back);

	/* Its clock goes on, its counters have begun again. */
	json_t *before = pod(&shape, 2), *now = pod(&shape, 4), *node;
	node = json_array_get(json_object_get(now, "nodes"), 1);
	json_object_set_new(node, "messages", json_integer(5));
	json_object_set_new(json_object_get(node, "stalls"), "read", json_integer(0));
	json_object_set_new(json_array_get(json_object_get(node, "seats"), 0), "cpu_ns",
			    json_integer(0));
	char *text = frame_of(before, now, &view);
	compare("counters-back", text);
	free(text);

	static const char *const little[] = {
		"{}",
		"[]",
		"{\"nodes\":[{}],\"vcpus\":[{}]}",
		"{\"nodes\":{\"a\":1},\"vcpus\":7,\"uptime_s\":-5}",
		"{\"pod\":\"\\u001b[2J\",\"nodes\":[{\"name\":\"a\\tb\",\"seats\":[{\"vcpu\":9999},{\"vcpu\":-1},"
		"{\"vcpu\":3}],\"hot_pages\":[{},{\"gpa\":7}],\"stall_buckets\":{\"999\":5}}],"
		"\"vcpus\":[{\"number\":600},{\"number\":3,\"node\":\"\\u00e9\",\"moves\":\"x\"}]}",
	};
	for (size_t i = 0; i < sizeof(little) / sizeof(little[0]); i++) {
		now = json_loads(little[i], 0, NULL);
		assert_non_null(now);
		text = frame_of(json_incref(now), now, &view);
		for (char *c = text; *c; c++)
			assert_true(*c == '\n' || (*c >= ' ' && *c <= '~'));
		free(text);
	}
}

/* Between two nodes when they were asked: neither has it, or both do. */
static void test_under_way(void **state)
{
	const struct shape shape = { 2, 2, -1 };
	const struct top_view view = { 0 };
	json_t *before = pod(&shape, 2), *now = pod(&shape, 4), *vcpus, *twice;
	vcpus = json_object_get(now, "vcpus");
	json_array_remove(vcpus, 1);
	twice = json_deep_copy(json_array_get(vcpus, 0));
	json_object_set_new(twice, "moves", json_integer(42));
	json_object_set_new(twice, "node", json_string("nodeb"));
	json_array_append_new(vcpus, twice);
	char *text = frame_of(before, now, &view);
	assert_non_null(strstr(
		text,
		"\n   0 nodeb    running   40     4     20    10     26     67   1.2k    11 "));
	assert_non_null(strstr(
		text,
		"\n   1 -        moving    40     4     20    10     26     67   1.2k     - "));
	free(text);
}

static void test_symbols(void **state)
{
	char path[] = "/tmp/eagre-test-map.XXXXXX", error[512], name[64];
	int fd = mkstemp(path);
	struct guest_symbols *symbols;
	static const char map[] = "0000000000000000 A fixed_percpu_data\n"
				  "ffffffff81a01000 D tasklist_lock\n"
				  "ffffffff81000000 T _text\n"
				  "ffffffff81a01080 d a_lock\n"
				  "ffffffffc0000000 t elsewhere\t[module]\n"
				  "nonsense\n"
				  "ffffffff82000000 B _end\n";
	assert_true(fd >= 0);
	assert_int_equal(guest_symbols_open(path, &symbols, error, sizeof(error)), -EINVAL);
	assert_non_null(strstr(error, "/proc/kallsyms"));
	assert_int_equal(guest_symbols_open("/nowhere", &symbols, error, sizeof(error)), -ENOENT);
	assert_int_equal(write(fd, map, sizeof(map) - 1), sizeof(map) - 1);
	close(fd);
	assert_int_equal(guest_symbols_open(path, &symbols, error, sizeof(error)), 0);
	unlink(path);
	assert_false(guest_symbols_name(symbols, 0xffffff, name, sizeof(name)));
	assert_false(guest_symbols_name(symbols, 0x2000000, name, sizeof(name)));
	assert_true(guest_symbols_name(symbols, 0x1a01000, name, sizeof(name)));
	assert_string_equal(name, "tasklist_lock");
	assert_true(guest_symbols_name(symbols, 0x1a01082, name, sizeof(name)));
	assert_string_equal(name, "a_lock+0x2");

	const struct shape shape = { 3, 3, -1 };
	const struct top_view view = { .width = 80, .height = 24, .symbols = symbols };
	char *text = frame_of(pod(&shape, 2), pod(&shape, 4), &view);
	assert_non_null(strstr(text, "tasklist_lock+0x40, a_lock\n"));
	assert_non_null(strstr(line_with(text, "0x2fff000"), "+0x0"));
	free(text);
	guest_symbols_free(symbols);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_golden),	cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_numbers), cmocka_unit_test(test_learner_off),
		cmocka_unit_test(test_unknown), cmocka_unit_test(test_under_way),
		cmocka_unit_test(test_symbols), cmocka_unit_test(test_states),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
