/* SPDX-License-Identifier: Apache-2.0 */
/* Node 0's devices for other nodes' vCPUs, while nobody reads the console. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "machine/acpi_pm.h"
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

static void on_room(void *context, unsigned int port)
{
	struct node *node = context;
	devices_output_room(node->devices);
}

/* With the console's log into a pipe, whose reader the test is. */
static void with_devices(struct half *half, int ret_pipe[2])
{
	half_create(half, 0);
	half->node->map = (struct memory_map){ .range = { { 0, 16u << 20 } }, .count = 1 };
	assert_int_equal(pipe(ret_pipe), 0);
	struct console_config console = { .mode = CONSOLE_NONE,
					  .in_fd = -1,
					  .out_fd = -1,
					  .err_fd = -1,
					  .log_fd = ret_pipe[1],
					  .input = no_input,
					  .send_break = no_break,
					  .room = on_room,
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
	assert_true(half_peer_hear(&half, CONTROL_IO_REPLY, &msg, HALF_PATIENCE_MS));
	assert_int_equal(msg.io_reply.id, 7);
	assert_int_equal(msg.io_reply.vcpu, 1);
	assert_int_equal(msg.io_reply.count, 1);
	assert_int_equal(msg.io_reply.data[0] & 0x60, 0x60); /* the transmitter is empty */
	request(&half, 8, 0x3f8, true);
	assert_true(half_peer_hear(&half, CONTROL_IO_REPLY, &msg, HALF_PATIENCE_MS));
	assert_int_equal(msg.io_reply.count, 0);
}

static void write_port(struct half *half, uint16_t port, uint8_t value, uint32_t count)
{
	static uint8_t data[4096];
	struct pc_access access = {
		.address = port, .count = count, .size = 1, .write = true, .data = data
	};
	memset(data, value, sizeof(data));
	devices_access(half->node->devices, 0, false, &access);
}

static uint8_t read_port(struct half *half, uint16_t port)
{
	uint8_t value = 0;
	struct pc_access access = { .address = port, .count = 1, .size = 1, .data = &value };
	devices_access(half->node->devices, 0, false, &access);
	return value;
}

/* As much as the pipe and the console's ring hold, and more. */
static void fill(struct half *half)
{
	for (int i = 0; i < 200; i++)
		write_port(half, 0x3f8, 'y', 4096);
}

/* How often this thread has gone to sleep by itself. */
static long sleeps(void)
{
	struct rusage usage;
	assert_int_equal(getrusage(RUSAGE_THREAD, &usage), 0);
	return usage.ru_nvcsw;
}

/* How long it waited; where it only lost its core to others it did not. */
static uint64_t timed_ms(struct half *half, bool eoi)
{
	uint64_t start_ns = test_now_ns();
	long slept = sleeps();
	if (eoi)
		devices_eoi_later(half->node->devices, 0x31);
	else
		request(half, 1, 0x3fd, false);
	return sleeps() == slept ? 0 : (test_now_ns() - start_ns) / 1000000;
}

#define MUCH (1u << 20)

static uint8_t sent(size_t i)
{
	return (uint8_t)(i * 2654435761u >> 13);
}

/* As a driver: it fills the FIFO when that is empty. */
static void *driver(void *arg)
{
	struct half *half = arg;
	for (size_t done = 0; done < MUCH;) {
		if (!(read_port(half, 0x3fd) & 0x20)) {
			test_sleep_ms(1);
			continue;
		}
		for (int i = 0; i < 16; i++)
			write_port(half, 0x3f8, sent(done++), 1);
	}
	return NULL;
}

/* Who writes much for a slow reader never has the PC wait, and loses nothing. */
static void test_a_slow_reader(void **state)
{
	struct half half;
	int fds[2];
	pthread_t thread;
	uint8_t got[3000];
	size_t have = 0;
	with_devices(&half, fds);
	pthread_create(&thread, NULL, driver, &half);
	while (have < MUCH) {
		ssize_t n = read(fds[0], got, sizeof(got));
		assert_true(n > 0);
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(got[i], sent(have++));
		/* Others are served meanwhile. */
		if (have % 64 == 0) {
			request(&half, have, 0x3ff, false);
			assert_true(
				half_peer_hear(&half, CONTROL_IO_REPLY, &msg, HALF_PATIENCE_MS));
			assert_int_equal(msg.io_reply.id, have);
		}
	}
	pthread_join(thread, NULL);
}

/* While nobody reads, whatever is asked is answered, and the power button works. */
static void test_nobody_reads(void **state)
{
	struct half half;
	int fds[2];
	char scrap[65536];
	with_devices(&half, fds);
	assert_false(devices_press_power_button(half.node->devices));
	write_port(&half, ACPI_PM_EVENT + 3, 0x01, 1); /* PM1 enable, high byte: PWRBTN_EN */
	fill(&half);
	request(&half, 7, 0x3fd, false);
	assert_true(half_peer_hear(&half, CONTROL_IO_REPLY, &msg, HALF_PATIENCE_MS));
	assert_int_equal(msg.io_reply.data[0] & 0x60, 0); /* the transmitter is busy */
	assert_true(devices_press_power_button(half.node->devices));
	for (int i = 0; i < HALF_PATIENCE_MS && !(read_port(&half, 0x3fd) & 0x60); i++) {
		struct pollfd ready = { .fd = fds[0], .events = POLLIN };
		while (poll(&ready, 1, 0) == 1)
			assert_true(read(fds[0], scrap, sizeof(scrap)) > 0);
		test_sleep_ms(1);
	}
	assert_int_equal(read_port(&half, 0x3fd) & 0x60, 0x60);
}

static void *last_words(void *arg)
{
	struct half *half = arg;
	fill(half);
	write_port(half, ACPI_PM_CONTROL + 1, 0x34, 1); /* S5 */
	return NULL;
}

/*
 * At the guest's end its last words are waited for, but not by what the control thread calls; too much
 * of that ends the pod, by the name of who sent too much, not of who comes next.
 */
static void test_nobody_reads_last_words(void **state)
{
	struct half half;
	int fds[2];
	pthread_t thread;
	char scrap[65536];
	with_devices(&half, fds);
	pthread_create(&thread, NULL, last_words, &half);
	do /* until it waits, and the device thread with it */
		request(&half, 1, 0x3ff, false);
	while (half_peer_hear(&half, CONTROL_IO_REPLY, &msg, 1000));
	assert_int_equal(pthread_tryjoin_np(thread, NULL), EBUSY);
	for (int i = 0; i < 100; i++)
		assert_in_range(timed_ms(&half, true), 0, 400);
	assert_null(half_end(&half, 0));
	for (int i = 0; i < VCPUS_MAX - 1; i++)
		assert_in_range(timed_ms(&half, false), 0, 400);
	sender = 0;
	for (int i = 0; i < 3; i++)
		assert_in_range(timed_ms(&half, false), 0, 400);
	sender = 1;
	assert_non_null(half_end(&half, HALF_PATIENCE_MS));
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
		cmocka_unit_test(test_a_slow_reader),
		cmocka_unit_test(test_nobody_reads),
		cmocka_unit_test(test_nobody_reads_last_words),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
