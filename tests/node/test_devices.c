/* SPDX-License-Identifier: Apache-2.0 */
/* Node 0's devices for other nodes' vCPUs, while nobody reads the console. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "node/console.h"
#include "tests/link/support.h"
#include "tests/node/half.h"
#include "tests/test.h"

static struct control_message msg;

static size_t no_input(void *context, unsigned int port, const uint8_t *data, size_t size)
{
	return 0;
}

static size_t no_break(void *context, unsigned int port)
{
	return 0;
}

static void on_line(void *context, const char *line)
{
}

/* With the console's log into a pipe, whose reader the test is. */
static void with_devices(struct half *half, int ret_pipe[2])
{
	half_create(half, 0);
	assert_int_equal(pipe(ret_pipe), 0);
	struct console_config console = { .mode = CONSOLE_NONE,
					  .in_fd = -1,
					  .out_fd = -1,
					  .err_fd = -1,
					  .log_fd = ret_pipe[1],
					  .input = no_input,
					  .send_break = no_break,
					  .warn = on_line,
					  .end = on_line,
					  .context = half->node };
	assert_int_equal(console_open(&console, &half->node->console), 0);
	assert_int_equal(guest_io_create(half->node), 0);
	assert_int_equal(devices_create(half->node), 0);
	atomic_store(&half->node->phase, NODE_RUNNING);
}

static uint16_t sender = 1;

static void request(struct half *half, uint64_t id, uint16_t port, bool write)
{
	static struct control_message io;
	io = (struct control_message){ .type = CONTROL_IO_REQUEST, .src = sender };
	io.io_request = (struct control_io_request){
		.id = id, .address = port, .vcpu = 1, .size = 1, .write = write, .count = 1
	};
	io.io_request.data[0] = 'x';
	devices_request(half->node->devices, &io);
}

static void test_answers(void **state)
{
	struct half half;
	int fds[2];
	with_devices(&half, fds);
	request(&half, 7, 0x3fd, false);
	assert_true(half_peer_hear(&half, CONTROL_IO_REPLY, &msg, 2000));
	assert_int_equal(msg.io_reply.id, 7);
	assert_int_equal(msg.io_reply.vcpu, 1);
	assert_int_equal(msg.io_reply.count, 1);
	assert_int_equal(msg.io_reply.data[0] & 0x60, 0x60); /* the transmitter is empty */
	request(&half, 8, 0x3f8, true);
	assert_true(half_peer_hear(&half, CONTROL_IO_REPLY, &msg, 2000));
	assert_int_equal(msg.io_reply.count, 0);
}

static void *writer(void *arg)
{
	struct half *half = arg;
	static uint8_t data[4096];
	struct pc_access access = {
		.address = 0x3f8, .count = sizeof(data), .size = 1, .write = true, .data = data
	};
	memset(data, 'y', sizeof(data));
	for (int i = 0; i < 200; i++) /* more than the pipe and the console's ring hold */
		devices_access(half->node->devices, 0, false, &access);
	return NULL;
}

static uint64_t timed_ms(struct half *half, bool eoi)
{
	uint64_t start_ns = test_now_ns();
	if (eoi)
		devices_eoi_later(half->node->devices, 0x31);
	else
		request(half, 1, 0x3fd, false);
	return (test_now_ns() - start_ns) / 1000000;
}

/*
 * What the control thread calls does not wait for who does not read; too much of it ends the pod, by
 * the name of who sent too much, not of who comes next.
 */
static void test_nobody_reads(void **state)
{
	struct half half;
	int fds[2];
	pthread_t thread;
	char scrap[65536];
	with_devices(&half, fds);
	pthread_create(&thread, NULL, writer, &half);
	test_sleep_ms(500);
	assert_int_equal(pthread_tryjoin_np(thread, NULL), EBUSY);
	for (int i = 0; i < 100; i++)
		assert_in_range(timed_ms(&half, true), 0, 400);
	assert_in_range(timed_ms(&half, false), 0, 400);
	assert_null(half_end(&half, 0));
	for (int i = 0; i < VCPUS_MAX - 1; i++)
		assert_in_range(timed_ms(&half, false), 0, 400);
	sender = 0;
	for (int i = 0; i < 3; i++)
		assert_in_range(timed_ms(&half, false), 0, 400);
	sender = 1;
	assert_non_null(half_end(&half, 1000));
	assert_non_null(strstr(half.node->end.text, "node 1 (b) sent more device accesses"));
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	while (pthread_tryjoin_np(thread, NULL) == EBUSY)
		if (read(fds[0], scrap, sizeof(scrap)) < 0)
			test_sleep_ms(1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_nobody_reads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
