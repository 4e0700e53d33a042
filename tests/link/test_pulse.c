// SPDX-License-Identifier: Apache-2.0
/*
 * The pulse over real links: three nodes in one process whose local clocks are made to differ by
 * offset and rate. All three share one true clock, so every node's pod clock can be compared with
 * node 0's: it must be within the bound that it reports, and never go back, while many threads read
 * it.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "link/mesh.h"
#include "tests/link/pulse.h"
#include "tests/link/support.h"

#define POD	3
#define READERS 2
#define RUN_MS	2500

struct skew {
	uint64_t offset_ns, start_ns;
	int64_t rate_ppb;
};

struct node {
	uint16_t self;
	struct skew skew;
	struct mesh *mesh;
	struct pulse *pulse;
	atomic_bool stop;
	pthread_t control, reader[READERS];
	struct node *reference;
	uint64_t worst_ns, bound_ns; /* of reader 0 */
};

static uint64_t raw_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_RAW, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static uint64_t skewed_ns(void *ctx)
{
	const struct skew *skew = ctx;
	int64_t span_ns = (int64_t)(raw_ns() - skew->start_ns);

	return skew->offset_ns + (uint64_t)(span_ns + span_ns * skew->rate_ppb / 1000000000);
}

static void *control_main(void *argument)
{
	struct node *node = argument;
	struct control_message *msg = malloc(sizeof(*msg));

	while (!atomic_load(&node->stop)) {
		struct pollfd fds[POD];

		for (uint16_t i = 0; i < POD; i++) {
			fds[i] = (struct pollfd){ .fd = -1, .events = POLLIN };
			if (i != node->self)
				fds[i].fd = control_fd(mesh_control(node->mesh, i));
		}
		poll(fds, POD, 50);
		for (uint16_t i = 0; i < POD; i++) {
			if (i == node->self)
				continue;
			while (control_receive(mesh_control(node->mesh, i), msg) == 0)
				assert_true(pulse_message(node->pulse, msg));
		}
	}
	free(msg);
	return NULL;
}

static void *reader_main(void *argument)
{
	struct node *node = argument;
	uint64_t last_ns = 0;

	while (!atomic_load(&node->stop)) {
		uint64_t before_ns = pulse_pod_ns(node->reference->pulse);
		/* The bound of this reading: a moment later a ping may have made it smaller. */
		uint64_t bound_ns, ns = pulse_bounded_pod_ns(node->pulse, &bound_ns);
		uint64_t after_ns = pulse_pod_ns(node->reference->pulse), off_ns = 0;

		if (ns + bound_ns < before_ns || ns > after_ns + bound_ns) {
			fprintf(stderr, "node %u: %lld ns after %llu ns of truth, bound %llu\n",
				node->self, (long long)(ns - before_ns),
				(unsigned long long)(after_ns - before_ns),
				(unsigned long long)bound_ns);
			abort();
		}
		if (ns < last_ns) {
			fprintf(stderr, "node %u went back by %llu ns\n", node->self,
				(unsigned long long)(last_ns - ns));
			abort();
		}
		last_ns = ns;
		if (ns < before_ns)
			off_ns = before_ns - ns;
		else if (ns > after_ns)
			off_ns = ns - after_ns;
		if (pthread_equal(pthread_self(), node->reader[0])) {
			node->worst_ns = off_ns > node->worst_ns ? off_ns : node->worst_ns;
			node->bound_ns = bound_ns;
		}
	}
	return NULL;
}

static void *bring_up(void *argument)
{
	struct node *node = argument;
	char why[MESH_WHY_MAX];

	if (mesh_bring_up(node->mesh, -1, why, sizeof(why)) < 0) {
		fprintf(stderr, "%s\n", why);
		abort();
	}
	return NULL;
}

static void test_clocks(void **state)
{
	static const int64_t rates[POD] = { 20000, 90000, -75000 };
	static struct node node[POD];
	struct mesh_node nodes[POD];
	char why[MESH_WHY_MAX];

	for (uint16_t i = 0; i < POD; i++)
		nodes[i] = (struct mesh_node){ i ? i == 1 ? "b" : "c" : "a", test_address(i, 1) };
	for (uint16_t i = 0; i < POD; i++) {
		struct mesh_config config = { .pod_name = "tide",
					      .self = i,
					      .node_count = POD,
					      .node = nodes,
					      .shard_count = 1,
					      .timeout_ms = 9000 };

		node[i].self = i;
		node[i].reference = &node[0];
		node[i].skew = (struct skew){ i * 12345678901ull, raw_ns(), rates[i] };
		assert_int_equal(mesh_create(&config, &node[i].mesh, why, sizeof(why)), 0);
		pthread_create(&node[i].control, NULL, bring_up, &node[i]);
	}
	for (uint16_t i = 0; i < POD; i++)
		pthread_join(node[i].control, NULL);
	for (uint16_t i = 0; i < POD; i++) {
		struct pulse_config config = { .mesh = node[i].mesh,
					       .self = i,
					       .node_count = POD,
					       .local_ns = skewed_ns,
					       .ctx = &node[i].skew };

		assert_int_equal(pulse_create(&config, &node[i].pulse), 0);
		assert_int_equal(pulse_clock_ready(node[i].pulse), i == 0);
		assert_int_equal(pulse_error_ns(node[i].pulse), i ? UINT64_MAX : 0);
		pthread_create(&node[i].control, NULL, control_main, &node[i]);
	}
	for (uint16_t i = 0; i < POD; i++) {
		for (unsigned k = 0; k < 1000 && !pulse_clock_ready(node[i].pulse); k++)
			test_sleep_ms(10);
		assert_true(pulse_clock_ready(node[i].pulse));
		pulse_clock_start(node[i].pulse);
	}
	for (uint16_t i = 1; i < POD; i++) {
		for (int k = 0; k < READERS; k++)
			pthread_create(&node[i].reader[k], NULL, reader_main, &node[i]);
	}
	test_sleep_ms(RUN_MS);
	for (uint16_t i = 0; i < POD; i++)
		atomic_store(&node[i].stop, true);
	for (uint16_t i = 1; i < POD; i++) {
		for (int k = 0; k < READERS; k++)
			pthread_join(node[i].reader[k], NULL);
	}
	for (uint16_t i = 0; i < POD; i++) {
		pthread_join(node[i].control, NULL);
		pulse_destroy(node[i].pulse);
	}
	for (uint16_t i = 0; i < POD; i++) {
		if (i > 0)
			print_message("node %u: at most %.1f us off, bound at the end %.1f us\n", i,
				      (double)node[i].worst_ns / 1e3,
				      (double)node[i].bound_ns / 1e3);
		mesh_destroy(node[i].mesh);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clocks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
