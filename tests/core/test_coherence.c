/* SPDX-License-Identifier: Apache-2.0 */
/* The page protocol, directed: reads, writes, upgrades, races of one transaction, read-ahead. */
#include "tests/core/pod.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void test_first_touch_is_local(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod = pod_new(2, &config);

	/* Chunk 0 is registered at node 0, chunk 1 at node 1. */
	pod_stall(pod, 0, 0, 5, COH_READ);
	assert_false(pod->node[0].waiting[0]);
	assert_int_equal(pod->node[0].access[5], COH_WRITE);
	pod_stall(pod, 0, 0, 6, COH_WRITE);
	assert_int_equal(pod->node[0].access[6], COH_WRITE);
	assert_int_equal(pod_peek(pod, 0, 1), 0);
	pod_write(pod, 0, 0, 600, 1);
	assert_int_equal(pod_count(pod, COH_HOME_GET), 1);
	pod_write(pod, 0, 0, 601, 1);
	assert_int_equal(pod_count(pod, COH_HOME_GET), 1);
	assert_int_equal(pod->pages_sent, 0);
	pod_check(pod);
	pod_free(pod);
}

static void test_read_then_write(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod = pod_new(4, &config);

	pod_write(pod, 0, 0, 7, 42);
	assert_int_equal(pod_read(pod, 1, 0, 7), 42);
	assert_int_equal(pod_read(pod, 2, 0, 7), 42);
	assert_int_equal(pod_read(pod, 3, 0, 7), 42);
	assert_int_equal(pod->node[0].access[7], COH_READ);
	pod_write(pod, 2, 0, 7, 43);
	assert_int_equal(pod_count(pod, COH_INVALIDATE), 2); /* the home is a sharer itself */
	assert_int_equal(pod->pages_sent, 3);		     /* the upgrade moved none */
	assert_int_equal(pod_read(pod, 0, 0, 7), 43);
	pod_write(pod, 3, 0, 7, 44);
	assert_int_equal(pod_read(pod, 1, 0, 7), 44);
	pod_check(pod);
	pod_free(pod);
}

static void test_first_touch_elsewhere(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod = pod_new(3, &config);

	pod_write(pod, 0, 0, 1, 1); /* home of chunk 0 is node 0 */
	pod_write(pod, 1, 0, 2, 5);
	assert_int_equal(pod->pages_sent, 0);
	assert_int_equal(pod_read(pod, 2, 0, 3), 0);
	assert_int_equal(pod->pages_sent, 0);
	assert_int_equal(pod_read(pod, 2, 0, 2), 5);
	assert_int_equal(pod->pages_sent, 1);
	pod_free(pod);
}

/* Acks may arrive before the grant, and the copy is readable before the last ack. */
static void test_acks_before_grant(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod = pod_new(4, &config);

	pod_write(pod, 1, 0, 512, 9); /* node 1: home of chunk 1, and owner */
	pod_write(pod, 0, 0, 512, 10);
	pod_read(pod, 2, 0, 512); /* keeper 0, sharers 0 2 */
	pod_run(pod, 10000000);
	pod_stall(pod, 3, 0, 512, COH_WRITE);
	while (pod_peek(pod, 3, 1) || pod_peek(pod, 1, 3))
		pod_peek(pod, 3, 1) ? pod_deliver(pod, 3, 1) : pod_deliver(pod, 1, 3);
	assert_int_equal(pod_peek(pod, 1, 0), COH_FWD_WRITE);
	assert_int_equal(pod_peek(pod, 1, 2), COH_INVALIDATE);
	pod_deliver(pod, 1, 2);
	assert_int_equal(pod_peek(pod, 2, 3), COH_INVALIDATE_ACK);
	pod_deliver(pod, 2, 3);
	assert_true(pod->node[3].waiting[0]);
	pod_deliver(pod, 1, 0);
	assert_int_equal(pod_peek(pod, 0, 3), COH_GRANT_WRITE);
	pod_deliver(pod, 0, 3);
	assert_false(pod->node[3].waiting[0]);
	assert_int_equal(pod->node[3].content[512], 10);
	pod_settle(pod);
	pod_check(pod);
	pod_free(pod);
}

static void test_data_before_acks(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod = pod_new(4, &config);

	pod_write(pod, 0, 0, 512, 9); /* node 0: home of chunk 1, keeper */
	pod_read(pod, 1, 0, 512);
	pod_read(pod, 2, 0, 512);
	pod_run(pod, 10000000);
	pod_stall(pod, 3, 0, 512, COH_WRITE);
	pod_stall(pod, 3, 1, 512, COH_READ);
	pod_deliver(pod, 3, 1); /* HOME_GET */
	pod_deliver(pod, 1, 3);
	pod_deliver(pod, 3, 0); /* WRITE_REQ */
	assert_int_equal(pod_peek(pod, 0, 3), COH_GRANT_WRITE);
	pod_deliver(pod, 0, 3);
	assert_int_equal(pod->node[3].access[512], COH_READ);
	assert_true(pod->node[3].waiting[0]);
	assert_false(pod->node[3].waiting[1]);
	pod_deliver(pod, 0, 1);
	pod_deliver(pod, 1, 3);
	assert_true(pod->node[3].waiting[0]);
	pod_deliver(pod, 0, 2);
	pod_deliver(pod, 2, 3);
	assert_int_equal(pod->node[3].access[512], COH_WRITE);
	assert_false(pod->node[3].waiting[0]);
	assert_int_equal(pod_peek(pod, 3, 0), COH_DONE);
	pod_settle(pod);
	pod_check(pod);
	pod_free(pod);
}

/* A requester whose copy is taken while its upgrade is queued gets data. */
static void test_upgrade_overtaken(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod = pod_new(3, &config);

	pod_write(pod, 0, 0, 7, 1);
	pod_read(pod, 1, 0, 7);
	pod_read(pod, 2, 0, 7);
	pod_run(pod, 10000000);
	pod_stall(pod, 1, 0, 7, COH_WRITE);
	pod_stall(pod, 2, 0, 7, COH_WRITE);
	pod_deliver(pod, 1, 0);
	pod_deliver(pod, 2, 0);
	pod_run(pod, 10000000);
	assert_false(pod->node[1].waiting[0]);
	assert_false(pod->node[2].waiting[0]);
	assert_int_equal(pod->node[2].access[7], COH_WRITE);
	assert_int_equal(pod->node[2].content[7], 1);
	assert_int_equal(pod->pages_sent, 3);
	pod_free(pod);
}

/* Read outstanding, write wanted: the read is granted first, then the upgrade goes out by itself.
 */
static void test_read_then_write_waiters(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod = pod_new(2, &config);

	pod_write(pod, 0, 0, 7, 3);
	pod_stall(pod, 1, 0, 7, COH_READ);
	pod_stall(pod, 1, 1, 7, COH_WRITE);
	pod_run(pod, 10000000);
	assert_false(pod->node[1].waiting[0]);
	assert_false(pod->node[1].waiting[1]);
	assert_int_equal(pod->node[1].access[7], COH_WRITE);
	assert_int_equal(pod->pages_sent, 1);
	pod_free(pod);
}

static void test_spurious_stall(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod = pod_new(2, &config);
	uint32_t wakes;

	pod_write(pod, 0, 0, 7, 3);
	wakes = pod->node[0].wakes;
	pod_stall(pod, 0, 1, 7, COH_READ);
	assert_int_equal(pod->node[0].wakes, wakes + 1);
	assert_false(pod->node[0].waiting[1]);
	pod_free(pod);
}

static void test_zero_batch_only_when_sequential(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod;

	config.zero_batch = 64;
	pod = pod_new(2, &config);
	pod_write(pod, 0, 0, 10, 1);
	pod_write(pod, 0, 0, 20, 1);
	pod_write(pod, 0, 0, 30, 1);
	assert_int_equal(pod->node[0].resident, 3);
	pod_write(pod, 0, 0, 31, 1);
	assert_true(pod->node[0].resident > 4);
	for (uint64_t gpn = 32; gpn < 512; gpn++)
		pod_write(pod, 0, 0, gpn, gpn);
	assert_int_equal(pod->node[0].access[512], COH_NONE); /* never beyond the chunk */
	assert_true(pod->node[0].wakes < 30);
	pod_check(pod);
	pod_free(pod);
}

static void test_readahead(void **state)
{
	struct coh_config config = pod_config();
	struct coh_stats stats;
	struct pod *pod;

	config.readahead = 16;
	pod = pod_new(2, &config);
	for (uint64_t gpn = 0; gpn < 512; gpn++)
		pod_write(pod, 0, 0, gpn, gpn + 1);
	pod_run(pod, 10000000);
	for (uint64_t gpn = 0; gpn < 512; gpn++)
		assert_int_equal(pod_read(pod, 1, 0, gpn), gpn + 1);
	assert_true(pod->node[1].wakes < 100);
	coh_stats_get(pod->node[1].coh, &stats);
	assert_true(stats.readahead_count > 400);
	pod_check(pod);
	pod_free(pod);
}

/* Who writes in order gets the following pages to write, from their owner. */
static void test_writes_ahead(void **state)
{
	struct coh_config config = pod_config();
	struct coh_stats stats;
	struct pod *pod;

	config.readahead = 16;
	pod = pod_new(2, &config);
	for (uint64_t gpn = 0; gpn < 512; gpn++)
		pod_write(pod, 0, 0, gpn, gpn + 1);
	pod_run(pod, 10000000);
	for (uint64_t gpn = 0; gpn < 512; gpn++) {
		assert_int_equal(pod->node[1].access[gpn] ? pod->node[1].content[gpn] : gpn + 1,
				 gpn + 1);
		pod_write(pod, 1, 0, gpn, gpn + 1000);
	}
	assert_true(pod->node[1].wakes < 100);
	coh_stats_get(pod->node[1].coh, &stats);
	assert_true(stats.readahead_count > 400);
	pod_run(pod, 10000000);
	for (uint64_t gpn = 0; gpn < 512; gpn++)
		assert_int_equal(pod_read(pod, 0, 0, gpn), gpn + 1000);
	pod_check(pod);
	pod_free(pod);
}

/* Of a chunk that is homed elsewhere, pages that nobody has come ahead as zero. */
static void test_zeros_ahead(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod;

	config.readahead = 16;
	pod = pod_new(2, &config);
	pod_write(pod, 0, 0, 0, 7);
	for (uint64_t gpn = 1; gpn < 512; gpn++)
		pod_write(pod, 1, 0, gpn, gpn);
	assert_true(pod->node[1].wakes < 100);
	assert_int_equal(pod->node[1].access[512], COH_NONE);
	/* Who only reads asks for none: a page that comes takes memory. */
	pod_write(pod, 0, 0, 1024, 7);
	for (uint64_t gpn = 1025; gpn < 1030; gpn++)
		assert_int_equal(pod_read(pod, 1, 0, gpn), 0);
	assert_int_equal(pod->node[1].access[1030], COH_NONE);
	pod_check(pod);
	pod_free(pod);
}

/* What others share comes ahead as a copy: they keep theirs. A page that is held stays. */
static void test_writes_ahead_of_others(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod;

	config.readahead = 8;
	pod = pod_new(3, &config);
	for (uint64_t gpn = 0; gpn < 16; gpn++)
		pod_write(pod, 0, 0, gpn, gpn + 1);
	pod_run(pod, 10000000);
	pod_read(pod, 2, 0, 4);
	pod_run(pod, 10000000);
	pod_pin(pod, 0, 1, 5, COH_READ);
	for (uint64_t gpn = 0; gpn < 4; gpn++)
		pod_write(pod, 1, 0, gpn, gpn + 1);
	assert_int_equal(pod->node[1].access[4], COH_READ);
	assert_int_equal(pod->node[2].access[4], COH_READ);
	assert_int_equal(pod->node[0].access[5], COH_WRITE);
	assert_int_equal(pod_count(pod, COH_GRANT_NONE), 1);
	assert_int_equal(pod_count(pod, COH_INVALIDATE), 0);
	/* Wanted in earnest, they come, and those behind them. */
	pod_unpin(pod, 0, 1);
	pod_write(pod, 1, 0, 4, 44);
	pod_write(pod, 1, 0, 5, 55);
	assert_int_equal(pod_read(pod, 2, 0, 4), 44);
	assert_int_equal(pod->node[1].access[6], COH_WRITE);
	pod_check(pod);
	pod_free(pod);
}

/* Reads and then writes pages that are 3 apart; how many upgrades that took. */
static uint32_t read_and_write(struct pod *pod, uint64_t from, uint64_t to, uint64_t step)
{
	uint32_t upgrades = 0;

	for (uint64_t gpn = from; gpn < to; gpn += step) {
		assert_int_equal(pod_read(pod, 1, 0, gpn), gpn + 1);
		upgrades += pod->node[1].access[gpn] != COH_WRITE;
		pod_write(pod, 1, 0, gpn, gpn + 2);
	}
	return upgrades;
}

/* Who writes to whatever it has read gets pages to own, but not those that others share; and no longer
 * when it only reads. */
static void test_read_and_written(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod;
	uint32_t owned = 0;

	config.capacity = 2 * POD_PAGES;
	pod = pod_new(3, &config);
	for (uint64_t gpn = 0; gpn < 900; gpn++)
		pod_write(pod, 0, 0, gpn, gpn + 1);
	pod_run(pod, 10000000);
	assert_in_range(read_and_write(pod, 0, 300, 3), 5, 25);
	for (uint64_t gpn = 300; gpn < 330; gpn += 3)
		assert_int_equal(pod_read(pod, 2, 0, gpn), gpn + 1);
	pod_run(pod, 10000000);
	for (uint64_t gpn = 300; gpn < 330; gpn += 3) {
		assert_int_equal(pod_read(pod, 1, 0, gpn), gpn + 1);
		assert_int_equal(pod->node[1].access[gpn], COH_READ);
		assert_int_equal(pod->node[2].access[gpn], COH_READ);
	}
	for (uint64_t gpn = 330; gpn < 630; gpn += 3) {
		assert_int_equal(pod_read(pod, 1, 0, gpn), gpn + 1);
		owned += pod->node[1].access[gpn] == COH_WRITE;
	}
	assert_in_range(owned, 0, 8);
	for (uint64_t gpn = 0; gpn < 300; gpn += 3)
		assert_int_equal(pod_read(pod, 2, 0, gpn), gpn + 2);
	pod_check(pod);
	pod_free(pod);
}

/* A vCPU that is kicked out of its stall, and comes back to it, has written to one page, not to four. */
static void test_upgrade_broken_off(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod = pod_new(2, &config);

	for (uint64_t gpn = 0; gpn < 8; gpn++)
		pod_write(pod, 0, 0, gpn, gpn + 1);
	pod_run(pod, 10000000);
	assert_int_equal(pod_read(pod, 1, 0, 0), 1);
	for (uint32_t i = 0; i < 6; i++)
		pod_stall(pod, 1, 0, 0, COH_WRITE);
	pod_run(pod, 10000000);
	assert_int_equal(pod->node[1].access[0], COH_WRITE);
	assert_int_equal(pod_read(pod, 1, 0, 5), 6);
	assert_int_equal(pod->node[1].access[5], COH_READ);
	pod_check(pod);
	pod_free(pod);
}

/* The same in order, and what comes ahead. */
static void test_read_and_written_ahead(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod;

	config.readahead = 16;
	pod = pod_new(2, &config);
	for (uint64_t gpn = 0; gpn < 512; gpn++)
		pod_write(pod, 0, 0, gpn, gpn + 1);
	pod_run(pod, 10000000);
	assert_in_range(read_and_write(pod, 0, 512, 1), 4, 60);
	pod_check(pod);
	pod_free(pod);
}

/* A long read-ahead asks for the next chunk's home in time and goes on there; not into a gap. */
static void read_two_chunks(bool gap, uint32_t *ret_stalls)
{
	struct coh_config config = pod_config();
	struct pod *pod;
	uint32_t before;

	config.readahead = 8;
	config.neighbours = true;
	config.gap_gpn = gap ? CHUNK_PAGES : 0;
	config.capacity = 2 * CHUNK_PAGES + 100;
	pod = pod_new(3, &config);
	for (uint64_t gpn = 0; gpn < 2 * CHUNK_PAGES; gpn++)
		pod_write(pod, 0, 0, gpn, gpn + 1);
	pod_run(pod, 10000000);
	for (uint64_t gpn = 0; gpn < CHUNK_PAGES; gpn++)
		assert_int_equal(pod_read(pod, 2, 0, gpn), gpn + 1);
	/* Chunk 1's registrar is node 1, and nobody has stalled in that chunk yet. */
	assert_int_equal(pod_count(pod, COH_HOME_GET), gap ? 2 : 3);
	before = pod->node[2].wakes;
	for (uint64_t gpn = CHUNK_PAGES; gpn < 2 * CHUNK_PAGES; gpn++)
		assert_int_equal(pod_read(pod, 2, 0, gpn), gpn + 1);
	*ret_stalls = pod->node[2].wakes - before;
	pod_check(pod);
	pod_free(pod);
}

static void test_readahead_crosses_chunks(void **state)
{
	uint32_t stalls, stalls_at_gap;

	read_two_chunks(false, &stalls);
	read_two_chunks(true, &stalls_at_gap);
	assert_true(stalls < stalls_at_gap);
}

/* Read-ahead of a page that somebody is busy with is refused, and an actor that waits for it asks
 * again. */
static void test_readahead_refused(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod;

	config.readahead = 4;
	pod = pod_new(2, &config);
	for (uint64_t gpn = 0; gpn < 8; gpn++)
		pod_write(pod, 0, 0, gpn, gpn + 1);
	pod_read(pod, 1, 0, 0);
	pod_pin(pod, 0, 1, 2, COH_WRITE);
	pod_stall(pod, 1, 0, 1, COH_READ); /* asks for 2 and 3 ahead; 2 is pinned */
	pod_stall(pod, 1, 1, 2, COH_READ);
	pod_run(pod, 10000000);
	assert_false(pod->node[1].waiting[0]);
	assert_true(pod->node[1].waiting[1]);
	pod_unpin(pod, 0, 1);
	pod_run(pod, 10000000);
	assert_false(pod->node[1].waiting[1]);
	assert_int_equal(pod->node[1].content[2], 3);
	assert_true(pod_count(pod, COH_GRANT_NONE) > 0);
	pod_check(pod);
	pod_free(pod);
}

static void refuse(struct pod *pod, struct coh_msg msg)
{
	static struct coh_action action[COH_ACTIONS_MIN];
	struct coh_out out = { .action = action, .capacity = COH_ACTIONS_MIN };

	msg.src = 1;
	assert_int_equal(coh_message(pod->node[0].coh, &msg, pod->now_ns, &out), -EPROTO);
	assert_int_equal(out.count, 0);
}

static void test_hostile(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod = pod_new(2, &config);

	pod_write(pod, 0, 0, 7, 1);
	refuse(pod, (struct coh_msg){ .type = 0 });
	refuse(pod, (struct coh_msg){ .type = COH_MSG_TYPES });
	refuse(pod, (struct coh_msg){ .type = COH_READ_REQ, .requester = 1, .gpn = POD_PAGES });
	refuse(pod, (struct coh_msg){ .type = COH_READ_REQ, .requester = 0, .version = 1 });
	refuse(pod, (struct coh_msg){ .type = COH_READ_REQ, .requester = 1, .version = 2 });
	refuse(pod,
	       (struct coh_msg){ .type = COH_FWD_WRITE, .requester = 1, .gpn = 7, .version = 1 });
	refuse(pod,
	       (struct coh_msg){ .type = COH_FWD_WRITE, .requester = 1, .gpn = 7, .version = 9 });
	refuse(pod,
	       (struct coh_msg){ .type = COH_INVALIDATE, .requester = 1, .gpn = 7, .version = 9 });
	refuse(pod, (struct coh_msg){ .type = COH_GRANT_WRITE, .requester = 0, .gpn = 7 });
	refuse(pod, (struct coh_msg){ .type = COH_INVALIDATE_ACK, .requester = 0, .gpn = 7 });
	refuse(pod, (struct coh_msg){ .type = COH_DONE, .requester = 1, .gpn = 7 });
	refuse(pod,
	       (struct coh_msg){ .type = COH_PUSH_DATA, .flags = COH_MSG_DATA, .requester = 1 });
	refuse(pod, (struct coh_msg){ .type = COH_HOME_IS, .gpn = 0, .version = 1 });
	refuse(pod, (struct coh_msg){ .type = COH_HOME_MOVE, .requester = 1, .version = 2 });
	refuse(pod,
	       (struct coh_msg){ .type = COH_HOME_SET, .requester = 0, .node = 1, .version = 2 });
	refuse(pod, (struct coh_msg){ .type = COH_ROOM_PUT, .requester = 1, .acks = 1 });
	refuse(pod, (struct coh_msg){ .type = COH_ROOM_IS, .requester = 0, .acks = 1 });
	pod_check(pod);
	pod_free(pod);
}

/* The same inputs give the same messages. */
static void test_two_writers_take_turns(void **state)
{
	struct coh_config config = pod_config();
	struct pod *pod = pod_new(3, &config);

	for (uint64_t i = 1; i <= 300; i++) {
		uint32_t n = (uint32_t)(i % 3);

		assert_int_equal(pod_read(pod, n, 0, 7), i - 1);
		pod_write(pod, n, 0, 7, i);
	}
	pod_check(pod);
	pod_free(pod);
}

/* The largest guest that core/limits.h allows: its last page is as good as any. */
static void test_last_page(void **state)
{
	static struct coh_action action[COH_ACTIONS_MIN];
	struct coh_out out = { .action = action, .capacity = COH_ACTIONS_MIN };
	struct coh_config config = pod_config();
	struct coh *coh;

	config.node_count = 1;
	config.self = 0;
	config.gpn_limit = GPN_LIMIT;
	assert_int_equal(coh_create(&config, &coh), 0);
	assert_int_equal(coh_stall(coh, 0, GPN_LIMIT - 1, COH_WRITE, 1, &out), 0);
	assert_int_equal(out.count, 2);
	assert_int_equal(action[0].kind, COH_INSTALL_ZERO);
	assert_int_equal(action[0].gpn, GPN_LIMIT - 1);
	assert_int_equal(action[1].kind, COH_WAKE);
	assert_int_equal(coh_access(coh, GPN_LIMIT - 1), COH_WRITE);
	coh_destroy(coh);
	config.gpn_limit = GPN_LIMIT + 1;
	assert_int_equal(coh_create(&config, &coh), -EINVAL);
}

/* Pages come without anybody's stall; for reading, a writer keeps a copy; and nobody waits for them. */
static void test_fetch(void **state)
{
	struct coh_config config = pod_config();
	struct coh_stats stats;
	struct pod *pod = pod_new(2, &config);

	pod_write(pod, 0, 0, 3, 30);
	pod_write(pod, 0, 0, 4, 40);
	pod_run(pod, 10000000);
	pod_fetch(pod, 1, 3, COH_READ);
	pod_fetch(pod, 1, 4, COH_WRITE);
	pod_fetch(pod, 1, 4, COH_WRITE); /* it is asked for already */
	coh_stats_get(pod->node[1].coh, &stats);
	assert_int_equal(stats.fetch_count, 2);
	pod_run(pod, 1000000);
	assert_int_equal(pod->node[1].access[3], COH_READ);
	assert_int_equal(pod->node[0].access[3], COH_READ);
	assert_int_equal(pod->node[1].access[4], COH_WRITE);
	assert_int_equal(pod->node[0].access[4], COH_NONE);
	assert_int_equal(pod->node[1].content[4], 40);
	assert_int_equal(pod->node[1].wakes, 0);
	/* It is not held for who may want it: who wants it gets it at once. */
	pod_write(pod, 0, 0, 4, 41);
	assert_int_equal(pod->node[1].access[4], COH_NONE);
	pod_free(pod);
}

/* Only with what is to spare: a window that is full, or pages that are not a guest's. */
static void test_fetch_spares(void **state)
{
	struct coh_config config = pod_config();
	static struct coh_action action[COH_ACTIONS_MIN];
	struct coh_out out = { .action = action, .capacity = COH_ACTIONS_MIN };
	struct coh_stats stats;
	struct pod *pod;

	config.window = config.actor_count + 2;
	pod = pod_new(2, &config);
	for (uint64_t gpn = 0; gpn < 8; gpn++)
		pod_write(pod, 0, 0, gpn, gpn);
	pod_run(pod, 10000000);
	for (uint64_t gpn = 0; gpn < 8; gpn++)
		pod_fetch(pod, 1, gpn, COH_READ);
	coh_stats_get(pod->node[1].coh, &stats);
	assert_int_equal(stats.fetch_count, 2);
	pod_run(pod, 1000000);
	assert_int_equal(pod->node[1].resident, 2);
	assert_int_equal(coh_fetch(pod->node[1].coh, config.gpn_limit, COH_READ, 1, &out), -EINVAL);
	assert_int_equal(coh_fetch(pod->node[1].coh, 0, COH_NONE, 1, &out), -EINVAL);
	pod_free(pod);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fetch),
		cmocka_unit_test(test_fetch_spares),
		cmocka_unit_test(test_first_touch_is_local),
		cmocka_unit_test(test_read_then_write),
		cmocka_unit_test(test_first_touch_elsewhere),
		cmocka_unit_test(test_acks_before_grant),
		cmocka_unit_test(test_data_before_acks),
		cmocka_unit_test(test_upgrade_overtaken),
		cmocka_unit_test(test_read_then_write_waiters),
		cmocka_unit_test(test_spurious_stall),
		cmocka_unit_test(test_zero_batch_only_when_sequential),
		cmocka_unit_test(test_readahead),
		cmocka_unit_test(test_readahead_refused),
		cmocka_unit_test(test_writes_ahead),
		cmocka_unit_test(test_zeros_ahead),
		cmocka_unit_test(test_writes_ahead_of_others),
		cmocka_unit_test(test_read_and_written),
		cmocka_unit_test(test_upgrade_broken_off),
		cmocka_unit_test(test_read_and_written_ahead),
		cmocka_unit_test(test_readahead_crosses_chunks),
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_two_writers_take_turns),
		cmocka_unit_test(test_last_page),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
