/* SPDX-License-Identifier: Apache-2.0 */
/* Who may say what to whom, and which pongs count. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/control_rules.h"
#include "tests/test.h"

/* vCPUs 0 and 1 on node 0, 2 on node 1, 3 on node 2. */
static const char pod_text[] = "[node a]\naddress=h:1\nmemory=1G\nvcpus=2\n"
			       "[node b]\naddress=h:2\nmemory=1G\nvcpus=1\n"
			       "[node c]\naddress=h:3\nmemory=1G\nvcpus=1\n";
#define NODES 3
static struct pod_config *config;
static struct members *members[NODES]; /* as each sees them */

/* What a fresh node `to` in `phase` makes of it. */
static const char *lie(uint16_t to, enum node_phase phase, const struct control_message *msg)
{
	struct control_rules rules = { .config = config, .members = members[to] };
	return control_rules_lie(&rules, phase, msg);
}

static bool allowed_in(uint16_t from, uint16_t to, enum node_phase phase, uint8_t type)
{
	struct control_message msg = { .type = type, .src = from };
	return !lie(to, phase, &msg);
}

/* In some phase. */
static bool allowed(uint16_t from, uint16_t to, uint8_t type)
{
	for (int phase = NODE_LINKED; phase <= NODE_RUNNING; phase++)
		if (allowed_in(from, to, (enum node_phase)phase, type))
			return true;
	return false;
}

static void test_roles(void **state)
{
	static const uint8_t to_first[] = { CONTROL_CLOCK_PING, CONTROL_FEATURES, CONTROL_READY };
	static const uint8_t from_first[] = { CONTROL_CLOCK_PONG, CONTROL_START, CONTROL_RUN };
	static const uint8_t any[] = { CONTROL_HEARTBEAT, CONTROL_STATS_REQUEST,
				       CONTROL_STATS_REPLY, CONTROL_END };
	for (size_t i = 0; i < sizeof(to_first); i++) {
		assert_true(allowed(1, 0, to_first[i]));
		assert_false(allowed(0, 1, to_first[i]));
		assert_false(allowed(2, 1, to_first[i]));
	}
	for (size_t i = 0; i < sizeof(from_first); i++) {
		assert_true(allowed(0, 1, from_first[i]));
		assert_false(allowed(1, 0, from_first[i]));
		assert_false(allowed(2, 1, from_first[i]));
	}
	for (int phase = NODE_LINKED; phase <= NODE_RUNNING; phase++)
		for (size_t i = 0; i < sizeof(any); i++)
			assert_true(allowed_in(2, 1, (enum node_phase)phase, any[i]) &&
				    allowed_in(0, 2, (enum node_phase)phase, any[i]) &&
				    allowed_in(1, 0, (enum node_phase)phase, any[i]));
}

/* The table of phases: a row a message, what a node 0 and another one may hear in each phase. */
static void test_phases(void **state)
{
	static const struct {
		uint8_t type;
		const char *first, *other; /* LINKED, OFFERED, STARTED, READY, RUNNING */
		uint16_t other_src;
	} rows[] = {
		{ CONTROL_FEATURES, "yynnn", "nnnnn", 2 },
		{ CONTROL_START, "nnnnn", "nynnn", 0 },
		{ CONTROL_READY, "nnyyn", "nnnnn", 2 },
		{ CONTROL_RUN, "nnnnn", "nnnyn", 0 },
		{ CONTROL_IO_REQUEST, "nnnny", "nnnnn", 2 },
		{ CONTROL_IO_REPLY, "nnnnn", "nnnny", 0 },
		{ CONTROL_EOI, "nnnny", "nnnnn", 2 },
		{ CONTROL_BUTTON, "nnnny", "nnnnn", 2 },
		{ CONTROL_PUBLISHED, "nnnnn", "nnnyy", 0 },
		{ CONTROL_PUBLISHED, "nnnnn", "nnnnn", 2 },
		{ CONTROL_STOPPED, "nnnny", "nnnnn", 2 },
		{ CONTROL_NEEDS_RESET, "nnnny", "nnnnn", 2 },
		{ CONTROL_QUEUE, "nnnny", "nnnyy", 2 },
		{ CONTROL_QUEUE_PLACE, "nnnny", "nnnyy", 2 },
		{ CONTROL_DOORBELL, "nnnny", "nnnyy", 2 },
		{ CONTROL_INTERRUPT, "nnnny", "nnnyy", 2 },
		{ CONTROL_INTERRUPT, "nnnny", "nnnyy", 0 },
		{ CONTROL_MOVE, "nnnny", "nnnyy", 2 },
		{ CONTROL_PLACE, "nnnny", "nnnyy", 0 },
		{ CONTROL_REFUSED, "nnnny", "nnnyy", 2 },
		{ CONTROL_COMING, "nnnny", "nnnyy", 2 },
		{ CONTROL_MOVE_ASK, "nnnny", "nnnyy", 0 },
		{ CONTROL_MOVE_TOLD, "nnnny", "nnnyy", 2 },
		{ CONTROL_LOAD, "nnnny", "nnnyy", 2 },
		{ CONTROL_OUTCOMES, "nnnny", "nnnyy", 2 },
		{ CONTROL_POLICY, "nnnny", "nnnyy", 0 },
		{ CONTROL_POLICY, "nnnny", "nnnnn", 2 },
		{ CONTROL_PIN, "nnnny", "nnnyy", 0 },
		{ CONTROL_PIN, "nnnny", "nnnnn", 2 },
		{ CONTROL_STEP, "nnnny", "nnnyy", 0 },
		{ CONTROL_WISH, "nnnny", "nnnyy", 2 },
		{ CONTROL_STEP_DONE, "nnnny", "nnnyy", 2 },
		{ CONTROL_STEP_OVER, "nnnny", "nnnyy", 0 },
		{ CONTROL_WISH_REFUSED, "nnnny", "nnnyy", 0 },
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		for (int phase = NODE_LINKED; phase <= NODE_RUNNING; phase++) {
			struct control_message to_first = { .type = rows[i].type, .src = 1 };
			struct control_message to_other = { .type = rows[i].type,
							    .src = rows[i].other_src };
			uint16_t other_vcpu = rows[i].other_src == 0 ? 0 : 3;
			switch (rows[i].type) {
			case CONTROL_IO_REQUEST:
				to_first.io_request.vcpu = 2;
				to_other.io_request.vcpu = other_vcpu;
				break;
			case CONTROL_IO_REPLY:
				to_first.io_reply.vcpu = 0;
				to_other.io_reply.vcpu = 2;
				break;
			case CONTROL_STEP:
			case CONTROL_WISH:
				to_first.member.kind = to_other.member.kind = KIND_SEAT;
				break;
			case CONTROL_EOI:
				to_first.eoi.vcpu = 2;
				to_other.eoi.vcpu = other_vcpu;
				break;
			case CONTROL_INTERRUPT:
				to_first.interrupt = (struct control_interrupt){ .from_vcpu = 2,
										 .vcpu_count = 1 };
				to_other.interrupt = (struct control_interrupt){
					.from_vcpu = other_vcpu, .vcpu_count = 1, .vcpu = { 2 }
				};
				break;
			}
			assert_int_equal(!lie(0, (enum node_phase)phase, &to_first),
					 rows[i].first[phase] == 'y');
			assert_int_equal(!lie(1, (enum node_phase)phase, &to_other),
					 rows[i].other[phase] == 'y');
		}
}

/* Of the seats only the steward's moves; a pod with disks keeps its nodes. */
static void test_steps(void **state)
{
	static const char with_disk[] = "[disk d]\nfile=/x\nnode=a\n";
	static const uint8_t changes[] = { CONTROL_STEP, CONTROL_WISH };
	static const uint8_t answers[] = { CONTROL_STEP_DONE,	 CONTROL_STEP_OVER,
					   CONTROL_WISH_REFUSED, CONTROL_JOIN_READY,
					   CONTROL_JOIN_FAILED,	 CONTROL_DRAINED };
	char text[512], why[256];
	struct pod_config *stays;

	snprintf(text, sizeof(text), "%s%s", pod_text, with_disk);
	if (pod_config_parse(text, "stays", &stays, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	assert_true(control_rules_may_change(config));
	assert_false(control_rules_may_change(stays));
	for (uint8_t i = 0; i < sizeof(changes); i++)
		for (int kind = 0; kind < KIND_COUNT; kind++)
			for (enum member_seat s = 0; s < SEAT_COUNT; s++) {
				struct control_rules kept = { .config = stays,
							      .members = members[0] };
				struct control_message msg = { .type = changes[i], .src = 1 };
				bool seat = kind == KIND_SEAT;

				msg.member.kind = (enum member_kind)kind;
				msg.member.seat = s;
				assert_int_equal(!lie(0, NODE_RUNNING, &msg),
						 !seat || s == SEAT_STEWARD);
				assert_int_equal(!control_rules_lie(&kept, NODE_RUNNING, &msg),
						 seat && s == SEAT_STEWARD);
			}
	for (uint8_t i = 0; i < sizeof(answers); i++)
		assert_true(allowed(1, 0, answers[i]) && allowed(0, 1, answers[i]));
	free(stays);
}

/* Who joins says nothing that another one acts on. */
static void test_joiner(void **state)
{
	static const uint8_t may[] = {
		CONTROL_HEARTBEAT,   CONTROL_CLOCK_PING, CONTROL_STATS_REQUEST,
		CONTROL_STATS_REPLY, CONTROL_STOPPED,	 CONTROL_JOIN_READY,
		CONTROL_END
	};
	static const uint8_t may_not[] = {
		CONTROL_INTERRUPT, CONTROL_EOI,	       CONTROL_TAKEN,	    CONTROL_IO_REQUEST,
		CONTROL_IO_REPLY,  CONTROL_MOVE,       CONTROL_PLACE,	    CONTROL_REFUSED,
		CONTROL_COMING,	   CONTROL_LOAD,       CONTROL_MOVE_ASK,    CONTROL_MOVE_TOLD,
		CONTROL_POLICY,	   CONTROL_PIN,	       CONTROL_OUTCOMES,    CONTROL_BUTTON,
		CONTROL_PUBLISHED, CONTROL_QUEUE,      CONTROL_QUEUE_PLACE, CONTROL_DOORBELL,
		CONTROL_STEP,	   CONTROL_WISH,       CONTROL_STEP_DONE,   CONTROL_STEP_OVER,
		CONTROL_DRAINED,   CONTROL_START,      CONTROL_RUN,	    CONTROL_FEATURES,
		CONTROL_READY,	   CONTROL_CLOCK_PONG,
	};

	atomic_store(&members[0]->state[2], MEMBER_JOINING);
	for (size_t i = 0; i < sizeof(may); i++)
		assert_true(allowed(2, 0, may[i]));
	for (size_t i = 0; i < sizeof(may_not); i++)
		assert_false(allowed(2, 0, may_not[i]));
	assert_true(allowed(1, 0, CONTROL_LOAD));
	atomic_store(&members[0]->state[2], MEMBER_ACTIVE);
	assert_true(allowed(2, 0, CONTROL_LOAD));
}

/* Each node says these once; another node's words do not count as its. */
static void test_once(void **state)
{
	struct control_rules rules = { .config = config, .members = members[0] };
	struct control_message msg = { .type = CONTROL_FEATURES, .src = 1 };
	assert_null(control_rules_lie(&rules, NODE_OFFERED, &msg));
	assert_string_equal(control_rules_lie(&rules, NODE_OFFERED, &msg), "twice");
	msg.src = 2;
	assert_null(control_rules_lie(&rules, NODE_OFFERED, &msg));
	msg.type = CONTROL_READY;
	assert_null(control_rules_lie(&rules, NODE_STARTED, &msg));
	assert_non_null(control_rules_lie(&rules, NODE_READY, &msg));
	rules = (struct control_rules){ .config = config, .members = members[1] };
	msg = (struct control_message){ .type = CONTROL_START, .src = 0 };
	assert_null(control_rules_lie(&rules, NODE_OFFERED, &msg));
	assert_non_null(control_rules_lie(&rules, NODE_OFFERED, &msg));
}

static bool interrupt(uint16_t from, uint16_t to, uint16_t from_vcpu, uint16_t first, uint16_t last)
{
	struct control_message msg = { .type = CONTROL_INTERRUPT, .src = from };
	msg.interrupt.from_vcpu = from_vcpu;
	for (uint16_t v = first; v <= last; v++)
		msg.interrupt.vcpu[msg.interrupt.vcpu_count++] = v;
	return !lie(to, NODE_RUNNING, &msg);
}

/* Whose vCPU it is is not known for sure, as vCPUs move; whether there is one is. */
static void test_interrupts(void **state)
{
	assert_true(interrupt(1, 0, 2, 0, 1));
	assert_true(interrupt(0, 2, 1, 3, 3));
	assert_true(interrupt(0, 1, NODE_NONE, 2, 2));
	assert_true(interrupt(1, 0, NODE_NONE, 0, 0)); /* a device's, forwarded */
	assert_true(interrupt(1, 0, 3, 0, 0));	       /* it was another node's vCPU */
	assert_true(interrupt(1, 0, 2, 1, 2));	       /* some of them were ours */
	assert_false(interrupt(1, 0, 4, 0, 0));
	assert_false(interrupt(1, 0, 2, 3, 4));
}

static void test_accesses(void **state)
{
	struct control_message msg = { .type = CONTROL_EOI, .src = 1, .eoi = { .vcpu = 2 } };
	assert_null(lie(0, NODE_RUNNING, &msg));
	assert_non_null(lie(2, NODE_RUNNING, &msg));
	msg.eoi.vcpu = 4;
	assert_non_null(lie(0, NODE_RUNNING, &msg));
	msg = (struct control_message){ .type = CONTROL_IO_REQUEST, .src = 1 };
	msg.io_request.vcpu = 2;
	assert_null(lie(0, NODE_RUNNING, &msg));
	msg.io_request.vcpu = 4;
	assert_non_null(lie(0, NODE_RUNNING, &msg));
	msg = (struct control_message){ .type = CONTROL_IO_REPLY, .src = 0 };
	msg.io_reply.vcpu = 2;
	assert_null(lie(1, NODE_RUNNING, &msg));
	assert_null(lie(2, NODE_RUNNING, &msg));
	msg.io_reply.vcpu = 4;
	assert_non_null(lie(1, NODE_RUNNING, &msg));
	msg.io_reply.vcpu = 2;
	msg.src = 2;
	assert_non_null(lie(1, NODE_RUNNING, &msg));
}

/* ---- seats elsewhere ------------------------------------------------------------------------- */

static void act(uint16_t node, const struct member_out *out)
{
	if (out->type == MEMBER_APPLIED) {
		assert_int_equal(members_publish(members[node]), 0);
		member_list_done(&members[node]->list);
		assert_int_equal(members_publish(members[node]), 0);
	}
	for (uint16_t to = 0; out->type == MEMBER_SEND && to < NODES; to++)
		if (member_set_has(&out->to, to))
			assert_int_equal(member_list_hear(&members[to]->list, node, &out->word, 0),
					 0);
}

/* What nodes have to say to each other is said. */
static void settle(void)
{
	struct member_out out;
	bool silent = false;

	while (!silent) {
		silent = true;
		for (uint16_t n = 0; n < NODES; n++)
			while (member_list_next(&members[n]->list, 0, &out)) {
				silent = false;
				act(n, &out);
			}
	}
}

static void seat(enum member_seat seat, uint16_t node)
{
	struct member_word wish = { .kind = KIND_SEAT, .seat = seat, .node = node };
	uint32_t id;

	if (members_seat(members[0], seat) == node)
		return;
	assert_int_equal(member_list_wish(&members[0]->list, &wish, &id), 0);
	settle();
	for (int n = 0; n < NODES; n++)
		assert_int_equal(members_seat(members[n], seat), node);
}

/* One seat is at a node, and all others at another one. */
static void seat_all(enum member_seat one, uint16_t node, uint16_t others)
{
	for (enum member_seat s = 0; s < SEAT_COUNT; s++)
		seat(s, s == one ? node : others);
}

/* Whatever only who has a seat may say, or be told. */
static void test_seats(void **state)
{
	static const struct {
		uint8_t type;
		enum member_seat seat;
		bool to, from;
	} rows[] = {
		{ CONTROL_CLOCK_PING, SEAT_CLOCK, true, false },
		{ CONTROL_CLOCK_PONG, SEAT_CLOCK, false, true },
		{ CONTROL_FEATURES, SEAT_LOADER, true, false },
		{ CONTROL_READY, SEAT_LOADER, true, false },
		{ CONTROL_START, SEAT_LOADER, false, true },
		{ CONTROL_RUN, SEAT_LOADER, false, true },
		{ CONTROL_IO_REQUEST, SEAT_PC, true, false },
		{ CONTROL_IO_REPLY, SEAT_PC, false, true },
		{ CONTROL_EOI, SEAT_PC, true, false },
		{ CONTROL_TAKEN, SEAT_PC, true, false },
		{ CONTROL_BUTTON, SEAT_PC, true, false },
		{ CONTROL_PUBLISHED, SEAT_PC, false, true },
		{ CONTROL_STOPPED, SEAT_PC, true, false },
		{ CONTROL_NEEDS_RESET, SEAT_PC, true, false },
		{ CONTROL_POLICY, SEAT_WORDS, true, true },
		{ CONTROL_PIN, SEAT_WORDS, true, true },
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		for (uint16_t at = 0; at < NODES; at++) {
			seat_all(rows[i].seat, at, (uint16_t)((at + 1) % NODES));
			for (uint16_t from = 0; from < NODES; from++)
				for (uint16_t to = 0; to < NODES; to++)
					if (from != to)
						assert_int_equal(
							allowed(from, to, rows[i].type),
							(rows[i].to && to == at) ||
								(rows[i].from && from == at));
		}
	seat_all(SEAT_COUNT, 0, 0);
}

/* Others may run before the loader's RUN comes; nobody before it has been said. */
static void test_loader_runs_first(void **state)
{
	for (uint16_t at = 0; at < NODES; at++) {
		seat_all(SEAT_LOADER, at, (uint16_t)((at + 1) % NODES));
		for (uint16_t to = 0; to < NODES; to++)
			assert_int_equal(allowed_in((uint16_t)((to + 1) % NODES), to, NODE_READY,
						    CONTROL_DOORBELL),
					 to != at);
	}
	seat_all(SEAT_COUNT, 0, 0);
}

static bool answers(struct control_pings *pings, uint64_t id, uint64_t sent_ns)
{
	struct control_clock_pong pong = { .id = id, .sent_ns = sent_ns };
	return control_pings_answer(pings, &pong);
}

static void test_pongs(void **state)
{
	struct control_pings pings = { 0 };
	assert_false(answers(&pings, 0, 0));
	for (uint64_t i = 0; i < CONTROL_PINGS + 2; i++)
		assert_int_equal(control_pings_new(&pings, 1000 + i).id, i);
	assert_false(answers(&pings, 1, 1001)); /* long ago */
	assert_true(answers(&pings, 2, 1002));
	assert_false(answers(&pings, 2, 1002)); /* once */
	assert_false(answers(&pings, 3, 1004)); /* never said so */
	assert_true(answers(&pings, 3, 1003));
	assert_false(answers(&pings, CONTROL_PINGS + 2, 1000));
	assert_false(answers(&pings, UINT64_MAX, 0));
}

#define SECOND 1000000000ull

static void test_load(void **state)
{
	struct control_loading load = { 0 };
	uint64_t now = 1000 * SECOND;
	assert_int_equal(control_loading_stalled_ns(&load, 0, now), 0);
	now += SECOND;
	assert_int_equal(control_loading_stalled_ns(&load, now - 1, now), 0);
	for (int i = 1; i <= 8; i++) {
		now += SECOND / 4;
		assert_int_equal(control_loading_stalled_ns(&load, 1001 * SECOND - 1, now),
				 i * SECOND / 4);
	}
	/* Nobody ran for a minute. */
	now += 60 * SECOND;
	assert_int_equal(control_loading_stalled_ns(&load, 1001 * SECOND - 1, now), 5 * SECOND / 2);
	/* It got on. */
	now += SECOND / 4;
	assert_int_equal(control_loading_stalled_ns(&load, now - 5, now), 0);
	now += SECOND / 4;
	assert_int_equal(control_loading_stalled_ns(&load, 0, now), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_roles),
		cmocka_unit_test(test_phases),
		cmocka_unit_test(test_steps),
		cmocka_unit_test(test_once),
		cmocka_unit_test(test_joiner),
		cmocka_unit_test(test_interrupts),
		cmocka_unit_test(test_accesses),
		cmocka_unit_test(test_pongs),
		cmocka_unit_test(test_load),
		cmocka_unit_test(test_seats),
		cmocka_unit_test(test_loader_runs_first),
	};
	char why[256];

	if (pod_config_parse(pod_text, "pod.conf", &config, why, sizeof(why)) < 0)
		return 2;
	for (uint16_t n = 0; n < NODES; n++)
		if (members_create(config, n, &members[n]) < 0)
			return 2;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
