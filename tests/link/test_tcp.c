// SPDX-License-Identifier: Apache-2.0
/*
 * Channels over real sockets: whatever pieces the bytes come in, frames and messages arrive whole,
 * in order, in place; and what is no frame, or ends, is said to be so.
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
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "link/tcp.h"
#include "tests/link/secure.h"
#include "tests/link/support.h"

#define FRAMES	   1500
#define PAGES_AREA 64
#define PEER	   7

static struct tls_keys *keys; /* NULL: the tests' streams are plain */

/* ---- Frames made from a seed, so that the receiver knows what to expect ---- */

struct shape {
	uint32_t messages, pages;
};

static struct shape make_shape(struct random *random)
{
	static const struct shape usual[] = { { 1, 0 },	  { 1, 1 }, { 1, 1 },	  { 2, 0 },
					      { 32, 32 }, { 3, 2 }, { 256, 256 }, { 256, 0 } };
	uint32_t dice = random_below(random, 40);

	if (dice < 36)
		return usual[dice % 6];
	if (dice == 36)
		return usual[6 + random_below(random, 2)];
	struct shape shape = { .messages = 1 + random_below(random, FRAME_MESSAGES_MAX) };

	shape.pages = random_below(random, shape.messages + 1);
	return shape;
}

static void make_frame(struct random *random, struct page_frame *frame, const uint8_t *area)
{
	struct shape shape = make_shape(random);
	uint32_t left = shape.pages;

	frame->message_count = shape.messages;
	frame->page_count = shape.pages;
	for (uint32_t i = 0; i < shape.messages; i++) {
		bool data = left > 0 && (left == shape.messages - i || random_below(random, 2));

		frame->message[i] = (struct coh_msg){
			.type = data ? COH_GRANT_READ
				     : (uint8_t)(1 + random_below(random, COH_MSG_TYPES - 1)),
			.flags = data ? COH_MSG_DATA : 0,
			.requester = (uint16_t)random_below(random, NODES_MAX),
			.node = (uint16_t)random_below(random, NODES_MAX),
			.gpn = random_below(random, 1u << 30),
			.age = random_next(random),
			.seq = random_next(random),
		};
		left -= data;
	}
	for (uint32_t i = 0; i < shape.pages; i++) {
		/* Runs of neighbours, so that pieces are merged. */
		uint32_t page = i > 0 && random_below(random, 3)
					? (uint32_t)(((const uint8_t *)frame->page[i - 1] - area) /
							     PAGE_BYTES +
						     1) %
						  PAGES_AREA
					: random_below(random, PAGES_AREA);

		frame->page[i] = area + page * PAGE_BYTES;
	}
}

static uint8_t *make_area(void)
{
	uint8_t *area = mmap(NULL, PAGES_AREA * PAGE_BYTES, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct random random;

	assert_true(area != MAP_FAILED);
	random_seed(&random, 42);
	for (uint32_t i = 0; i < PAGES_AREA * PAGE_BYTES / 8; i++) {
		uint64_t word = random_next(&random);

		memcpy(area + i * 8, &word, 8);
	}
	return area;
}

static void assert_frame_equal(const struct page_frame *got, const struct page_frame *want)
{
	assert_int_equal(got->message_count, want->message_count);
	assert_int_equal(got->page_count, want->page_count);
	for (uint32_t i = 0; i < want->message_count; i++) {
		struct coh_msg message = want->message[i];

		message.src = PEER;
		assert_memory_equal(&got->message[i], &message, sizeof(message));
	}
	for (uint32_t i = 0; i < want->page_count; i++) {
		assert_memory_equal(got->page[i], want->page[i], PAGE_BYTES);
		assert_int_equal((uintptr_t)got->page[i] % PAGE_BYTES, 0);
		if (i > 0)
			assert_ptr_equal(got->page[i],
					 (const uint8_t *)got->page[i - 1] + PAGE_BYTES);
	}
}

/* ---- A proxy that passes bytes on in pieces of random sizes ---- */

struct proxy {
	int in, out;
	uint64_t seed;
	pthread_t thread;
};

static void *proxy_main(void *argument)
{
	static const uint32_t piece_max[] = { 3, 70, 5000, 200000 };
	struct proxy *proxy = argument;
	uint8_t *buffer = malloc(200000);
	struct random random;

	random_seed(&random, proxy->seed);
	for (uint64_t round = 0;; round++) {
		/* A few bytes at a time only for short stretches: it is slow. */
		uint32_t kind = round % 200 < 20 ? 0 : 1 + random_below(&random, 3);
		uint32_t want = 1 + random_below(&random, piece_max[kind]);
		struct pollfd fds = { .fd = proxy->in, .events = POLLIN };
		ssize_t got, done = 0;

		poll(&fds, 1, -1);
		got = recv(proxy->in, buffer, want, 0);
		if (got <= 0)
			break;
		while (done < got) {
			ssize_t sent =
				send(proxy->out, buffer + done, (size_t)(got - done), MSG_NOSIGNAL);

			fds = (struct pollfd){ .fd = proxy->out, .events = POLLOUT };
			if (sent < 0 && errno == EAGAIN)
				poll(&fds, 1, -1);
			else if (sent < 0)
				goto out;
			else
				done += sent;
		}
	}
out:
	shutdown(proxy->out, SHUT_WR);
	free(buffer);
	return NULL;
}

static void proxy_start(struct proxy *proxy, int in, int out, uint64_t seed)
{
	*proxy = (struct proxy){ .in = in, .out = out, .seed = seed };
	assert_int_equal(pthread_create(&proxy->thread, NULL, proxy_main, proxy), 0);
}

static void proxy_stop(struct proxy *proxy)
{
	pthread_join(proxy->thread, NULL);
	close(proxy->in);
	close(proxy->out);
}

/* ---- Page channels ---- */

static void wait_for(int fd, short events)
{
	struct pollfd fds = { .fd = fd, .events = events };

	assert_int_equal(poll(&fds, 1, 10000), 1);
}

/* What has come at `from` goes on to `to`, `size` bytes of it at most. */
static void pass_on(int from, int to, size_t size)
{
	uint8_t bytes[4096];
	ssize_t got;

	wait_for(from, POLLIN);
	got = recv(from, bytes, size < sizeof(bytes) ? size : sizeof(bytes), 0);
	assert_true(got > 0);
	assert_int_equal(send(to, bytes, (size_t)got, MSG_NOSIGNAL), got);
}

/* The test itself is what lies between the two. */
static void secure_across(const int near[2], const int far[2], struct stream ret_stream[2])
{
	ret_stream[0] = stream_plain(near[0]);
	ret_stream[1] = stream_plain(far[1]);
	if (!keys)
		return;
	assert_int_equal(stream_secure(&ret_stream[0], keys, true), 0);
	assert_int_equal(stream_secure(&ret_stream[1], keys, false), 0);
	assert_int_equal(stream_shake_hands(&ret_stream[0]), -EAGAIN);
	pass_on(near[1], far[0], SIZE_MAX);
	wait_for(far[1], POLLIN);
	assert_int_equal(stream_shake_hands(&ret_stream[1]), -EAGAIN);
	pass_on(far[0], near[1], SIZE_MAX);
	wait_for(near[0], POLLIN);
	assert_int_equal(stream_shake_hands(&ret_stream[0]), 0);
	pass_on(near[1], far[0], SIZE_MAX);
	wait_for(far[1], POLLIN);
	assert_int_equal(stream_shake_hands(&ret_stream[1]), 0);
}

/* Sends FRAMES random frames and receives them on the other side, in one thread: nothing may ever
 * block. */
static void exchange(struct page_channel *out, struct page_channel *in, uint64_t seed)
{
	struct page_frame *sent = malloc(sizeof(*sent)), *want = malloc(sizeof(*want));
	struct page_frame *got = malloc(sizeof(*got));
	uint32_t sent_count = 0, got_count = 0;
	struct random sending, expecting;
	uint8_t *area = make_area();

	random_seed(&sending, seed);
	random_seed(&expecting, seed);
	while (got_count < FRAMES) {
		int error;

		for (uint32_t burst = random_next(&sending) % 8;
		     burst > 0 && sent_count < FRAMES && sent_count < got_count + 50; burst--) {
			struct random of_frame;

			random_seed(&of_frame, seed + sent_count++);
			make_frame(&of_frame, sent, area);
			assert_int_equal(out->ops->send(out, sent), 0);
			/* The pages are the caller's again: what is queued must be a copy. */
			memset(sent, 0xee, sizeof(*sent));
		}
		error = out->ops->flush(out);
		assert_true(error == 0 || error == -EAGAIN);
		while ((error = in->ops->receive(in, got)) == 0) {
			struct random of_frame;

			random_seed(&of_frame, seed + got_count++);
			make_frame(&of_frame, want, area);
			assert_frame_equal(got, want);
		}
		assert_int_equal(error, -EAGAIN);
		if (sent_count == got_count + 50 || sent_count == FRAMES) {
			struct pollfd fds[2] = { { in->ops->fd(in), POLLIN, 0 },
						 { out->ops->fd(out), POLLOUT, 0 } };

			if (got_count < FRAMES)
				assert_true(poll(fds, out->ops->flush(out) ? 2 : 1, 10000) > 0);
		}
	}
	munmap(area, PAGES_AREA * PAGE_BYTES);
	free(sent);
	free(want);
	free(got);
}

static void make_page_pair(int buffer, struct page_channel *channel[2])
{
	struct stream stream[2];
	int fd[2];

	test_tcp_pair(fd, buffer);
	test_secure(keys, fd[0], fd[1], stream);
	for (int i = 0; i < 2; i++)
		assert_int_equal(tcp_page_create(stream[i], PEER, 0, &channel[i]), 0);
}

static void test_pages_direct(void **state)
{
	struct page_channel *channel[2];
	struct page_channel_stats out, in;

	make_page_pair(0, channel);
	exchange(channel[0], channel[1], test_seed());
	channel[0]->ops->stats(channel[0], &out);
	channel[1]->ops->stats(channel[1], &in);
	assert_true(out.messages_out >= FRAMES);
	assert_int_equal(out.bytes_out, in.bytes_in);
	assert_true(out.calls > 0 && in.calls > 0);
	channel[0]->ops->destroy(channel[0]);
	channel[1]->ops->destroy(channel[1]);
}

static void test_pages_small_buffers(void **state)
{
	struct page_channel *channel[2];

	make_page_pair(4096, channel);
	exchange(channel[0], channel[1], test_seed() + 1);
	channel[0]->ops->destroy(channel[0]);
	channel[1]->ops->destroy(channel[1]);
}

static void test_pages_in_pieces(void **state)
{
	struct page_channel *channel[2];
	struct stream stream[2];
	int first[2], second[2];
	struct proxy proxy;
	uint64_t seed = test_seed() + 2;

	test_tcp_pair(first, 16384);
	test_tcp_pair(second, 16384);
	secure_across(first, second, stream);
	proxy_start(&proxy, first[1], second[0], seed);
	for (int i = 0; i < 2; i++)
		assert_int_equal(tcp_page_create(stream[i], PEER, 0, &channel[i]), 0);
	exchange(channel[0], channel[1], seed);
	channel[0]->ops->destroy(channel[0]);
	proxy_stop(&proxy);
	channel[1]->ops->destroy(channel[1]);
}

/* ---- System calls: these take the place of libc's, and count ---- */

static _Atomic unsigned recv_count, sendmsg_count;

ssize_t recv(int fd, void *buffer, size_t size, int flags)
{
	recv_count++;
	return syscall(SYS_recvfrom, fd, buffer, size, flags, NULL, NULL);
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	sendmsg_count++;
	return syscall(SYS_sendmsg, fd, msg, flags);
}

/* A frame is one sendmsg() and, after one of its shape has been seen, one recv(). */
static void test_pages_syscalls(void **state)
{
	static const struct shape shapes[] = { { 1, 0 }, { 1, 1 }, { 3, 2 }, { 8, 8 } };
	struct page_channel *channel[2];
	static struct page_frame frame, got;
	uint8_t *area = make_area();

	make_page_pair(0, channel);
	for (unsigned k = 0; k < sizeof(shapes) / sizeof(shapes[0]); k++) {
		frame.message_count = shapes[k].messages;
		frame.page_count = shapes[k].pages;
		for (uint32_t i = 0; i < frame.message_count; i++) {
			bool data = i < frame.page_count;

			frame.message[i] = (struct coh_msg){
				.type = data ? COH_GRANT_READ : COH_DONE,
				.flags = data ? COH_MSG_DATA : 0,
			};
			frame.page[i] = area + 2 * i * PAGE_BYTES;
		}
		for (unsigned round = 0; round < 20; round++) {
			int error;

			sendmsg_count = 0;
			assert_int_equal(channel[0]->ops->send(channel[0], &frame), 0);
			assert_int_equal(sendmsg_count, 1);
			wait_for(channel[1]->ops->fd(channel[1]), POLLIN);
			test_sleep_ms(1); /* all of it is there */
			recv_count = 0;
			while ((error = channel[1]->ops->receive(channel[1], &got)) == -EAGAIN)
				;
			assert_int_equal(error, 0);
			assert_int_equal(channel[1]->ops->receive(channel[1], &got), -EAGAIN);
			if (round > 0 && recv_count != 1)
				fail_msg("%u messages, %u pages: %u calls of recv()",
					 frame.message_count, frame.page_count, recv_count);
		}
	}
	channel[0]->ops->destroy(channel[0]);
	channel[1]->ops->destroy(channel[1]);
	munmap(area, PAGES_AREA * PAGE_BYTES);
}

/* How many of the pages at `first` are in memory. */
static size_t resident(const uint8_t *first, size_t pages)
{
	unsigned char map[FRAME_MESSAGES_MAX];
	size_t count = 0;

	assert_true(pages <= sizeof(map));
	assert_int_equal(mincore((void *)(uintptr_t)first, pages * PAGE_BYTES, map), 0);
	for (size_t i = 0; i < pages; i++)
		count += map[i] & 1;
	return count;
}

/* Large frames need much memory, and leave little behind. */
static void test_pages_give_back(void **state)
{
	static struct page_frame frame, got;
	uint8_t *area = make_area();
	struct page_channel *channel[2];

	make_page_pair(0, channel);
	for (uint32_t round = 0; round < 6; round++) {
		int error;

		/* Of another shape than the last one: it falls on no boundary. */
		frame.message_count = round % 2 ? FRAME_MESSAGES_MAX - 1 : FRAME_MESSAGES_MAX;
		frame.page_count = frame.message_count;
		for (uint32_t i = 0; i < frame.message_count; i++) {
			frame.message[i] =
				(struct coh_msg){ .type = COH_GRANT_READ, .flags = COH_MSG_DATA };
			frame.page[i] = area + i % PAGES_AREA * PAGE_BYTES;
		}
		assert_int_equal(channel[0]->ops->send(channel[0], &frame), 0);
		while ((error = channel[1]->ops->receive(channel[1], &got)) == -EAGAIN)
			(void)channel[0]->ops->flush(channel[0]);
		assert_int_equal(error, 0);
		assert_frame_equal(&got, &frame);
		assert_int_equal(resident(got.page[0], frame.page_count), frame.page_count);
		assert_int_equal(channel[1]->ops->receive(channel[1], &got), -EAGAIN);
		assert_true(resident(got.page[0], frame.page_count) * PAGE_BYTES < TCP_PAGE_KEPT);
	}
	channel[0]->ops->destroy(channel[0]);
	channel[1]->ops->destroy(channel[1]);
	munmap(area, PAGES_AREA * PAGE_BYTES);
}

static void test_pages_queue_bound(void **state)
{
	struct page_channel *channel;
	static struct page_frame frame;
	uint8_t *area = make_area();
	int fd[2], error = 0;
	unsigned count = 0;

	test_tcp_pair(fd, 4096);
	assert_int_equal(tcp_page_create(stream_plain(fd[0]), PEER, 1u << 20, &channel), 0);
	frame.message_count = frame.page_count = 1;
	frame.message[0] = (struct coh_msg){ .type = COH_GRANT_READ, .flags = COH_MSG_DATA };
	frame.page[0] = area;
	while (error == 0 && count < 4000) {
		error = channel->ops->send(channel, &frame);
		count++;
	}
	assert_int_equal(error, -ENOBUFS);
	assert_true(count > 250);
	channel->ops->destroy(channel);
	close(fd[1]);
	munmap(area, PAGES_AREA * PAGE_BYTES);
}

static void expect_page_error(const void *bytes, size_t size, int want)
{
	struct page_channel *channel;
	static struct page_frame frame;
	int fd[2], error;

	test_tcp_pair(fd, 0);
	assert_int_equal(tcp_page_create(stream_plain(fd[1]), PEER, 0, &channel), 0);
	assert_int_equal(write(fd[0], bytes, size), size);
	close(fd[0]);
	do {
		wait_for(fd[1], POLLIN);
		error = channel->ops->receive(channel, &frame);
	} while (error == -EAGAIN || error == 0);
	assert_int_equal(error, want);
	channel->ops->destroy(channel);
}

static void test_pages_malformed(void **state)
{
	struct page_frame_header header = { .message_count = 2, .page_count = 1 };
	struct coh_msg message[2] = { { .type = COH_GRANT_READ, .flags = COH_MSG_DATA },
				      { .type = COH_DONE } };
	uint8_t bytes[PAGE_FRAME_HEADER_BYTES + 96 + PAGE_BYTES] = { 0 };
	uint8_t broken[sizeof(bytes)];

	page_frame_encode_head(&header, message, bytes);
	expect_page_error(bytes, sizeof(bytes), -EPIPE);     /* whole, then the end */
	expect_page_error(bytes, sizeof(bytes) - 1, -EPIPE); /* never whole */
	expect_page_error("GET / HTTP/1.1\r\n\r\n", 18, -EPROTO);
	/* Bits of magic, counts, padding, and of the sequence; a flag without its page. */
	for (unsigned i = 0; i < PAGE_FRAME_HEADER_BYTES; i++) {
		memcpy(broken, bytes, sizeof(bytes));
		broken[i] ^= 0x80;
		/* 130 messages may be; they just never come. */
		expect_page_error(broken, sizeof(broken), i == 4 ? -EPIPE : -EPROTO);
	}
	memcpy(broken, bytes, sizeof(bytes));
	broken[PAGE_FRAME_HEADER_BYTES + 1] ^= COH_MSG_DATA;
	expect_page_error(broken, sizeof(broken), -EPROTO);
	memcpy(broken, bytes, sizeof(bytes));
	broken[PAGE_FRAME_HEADER_BYTES + 2] = 1; /* a byte of a message that must be zero */
	expect_page_error(broken, sizeof(broken), -EPROTO);
}

static void test_pages_link_down(void **state)
{
	struct page_channel *channel[2];
	static struct page_frame frame;
	int error = 0;

	make_page_pair(0, channel);
	channel[1]->ops->destroy(channel[1]);
	wait_for(channel[0]->ops->fd(channel[0]), POLLIN);
	assert_int_equal(channel[0]->ops->receive(channel[0], &frame), -EPIPE);
	frame.message_count = 1;
	frame.message[0].type = 1;
	for (unsigned i = 0; i < 1000 && error == 0; i++) {
		error = channel[0]->ops->send(channel[0], &frame);
		test_sleep_ms(1);
	}
	assert_true(error == -EPIPE || error == -ECONNRESET);
	channel[0]->ops->destroy(channel[0]);
}

/* ---- Control channels ---- */

#define SENDERS	 4
#define MESSAGES 3000

struct sender {
	struct control_channel *channel;
	uint16_t number;
	pthread_t thread;
};

/* Each message says who sent it and its place in that thread's order, whatever its type. */
/* Who cuts a link is given what has come, and waits for no end of the peer's. */
static void test_pages_cut(void **state)
{
	static const uint8_t page[PAGE_BYTES] __attribute__((aligned(PAGE_BYTES)));
	static struct page_frame frame;
	struct page_channel *channel[2];

	(void)state;
	make_page_pair(0, channel);
	frame.message_count = frame.page_count = 1;
	frame.message[0] = (struct coh_msg){ .type = COH_GRANT_READ, .flags = COH_MSG_DATA };
	frame.page[0] = page;
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(channel[0]->ops->send(channel[0], &frame), 0);
	wait_for(channel[1]->ops->fd(channel[1]), POLLIN);
	channel[1]->ops->cut(channel[1]);
	channel[1]->ops->cut(channel[1]);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(channel[1]->ops->receive(channel[1], &frame), 0);
	while (channel[1]->ops->receive(channel[1], &frame) == -EAGAIN)
		;
	assert_int_equal(channel[1]->ops->receive(channel[1], &frame), -EPIPE);
	assert_true(channel[1]->ops->send(channel[1], &frame) < 0);
	for (uint32_t i = 0; i < 2; i++)
		channel[i]->ops->destroy(channel[i]);
}

static void *sender_main(void *argument)
{
	struct sender *sender = argument;
	struct control_message *msg = calloc(1, sizeof(*msg));
	char *text = malloc(CONTROL_STATS_PART_MAX);
	int error;

	memset(text, 'x', CONTROL_STATS_PART_MAX);
	for (uint64_t i = 0; i < MESSAGES; i++) {
		uint64_t id = (uint64_t)sender->number << 32 | i;

		if (i % 100 == 99) {
			msg->type = CONTROL_STATS_REPLY;
			msg->stats_reply = (struct control_stats_reply){
				.id = id,
				.total = (uint32_t)(i * 21),
				.text_size = (uint32_t)(i * 21),
				.text = text,
			};
		} else if (i % 3 == 0) {
			memset(msg, 0, sizeof(*msg));
			msg->type = CONTROL_IO_REQUEST;
			msg->io_request.id = id;
			msg->io_request.address = 0x3f8;
			msg->io_request.size = 1;
			msg->io_request.write = 1;
			msg->io_request.count = (uint16_t)(1 + i % 256);
			memset(msg->io_request.data, (int)i & 0xff, msg->io_request.count);
		} else {
			msg->type = CONTROL_CLOCK_PING;
			msg->clock_ping.id = id;
		}
		while ((error = control_send(sender->channel, msg)) == -ENOBUFS)
			test_sleep_ms(1);
		if (error < 0)
			abort();
	}
	free(text);
	free(msg);
	return NULL;
}

static uint64_t message_id(const struct control_message *msg)
{
	switch (msg->type) {
	case CONTROL_STATS_REPLY:
		return msg->stats_reply.id;
	case CONTROL_IO_REQUEST:
		return msg->io_request.id;
	default:
		return msg->clock_ping.id;
	}
}

static void check_message(const struct control_message *msg, uint64_t next[SENDERS])
{
	uint64_t id = message_id(msg);
	uint64_t number = id >> 32, i = id & 0xffffffff;

	assert_int_equal(msg->src, PEER);
	assert_true(number < SENDERS);
	assert_int_equal(i, next[number]++);
	if (msg->type == CONTROL_STATS_REPLY) {
		assert_int_equal(msg->stats_reply.text_size, i * 21);
		for (uint32_t k = 0; k < msg->stats_reply.text_size; k++)
			assert_int_equal(msg->stats_reply.text[k], 'x');
	} else if (msg->type == CONTROL_IO_REQUEST) {
		assert_int_equal(msg->io_request.count, 1 + i % 256);
		assert_int_equal(msg->io_request.data[msg->io_request.count - 1], i & 0xff);
	}
}

static void test_control_many_senders(void **state)
{
	struct control_channel *out, *in;
	struct control_message *msg = malloc(sizeof(*msg));
	struct sender sender[SENDERS];
	uint64_t next[SENDERS] = { 0 };
	struct stream stream[2];
	int first[2], second[2];
	struct proxy proxy;
	unsigned count = 0;

	test_tcp_pair(first, 0);
	test_tcp_pair(second, 0);
	secure_across(first, second, stream);
	proxy_start(&proxy, first[1], second[0], test_seed() + 3);
	assert_int_equal(tcp_control_create(stream[0], PEER, &out), 0);
	assert_int_equal(tcp_control_create(stream[1], PEER, &in), 0);
	for (uint16_t i = 0; i < SENDERS; i++) {
		sender[i] = (struct sender){ .channel = out, .number = i };
		pthread_create(&sender[i].thread, NULL, sender_main, &sender[i]);
	}
	while (count < SENDERS * MESSAGES) {
		int error = control_receive(in, msg);

		if (error == 0) {
			check_message(msg, next);
			count++;
			continue;
		}
		assert_int_equal(error, -EAGAIN);
		assert_true(control_flush(out) != -EPIPE);
		struct pollfd fds = { .fd = control_fd(in), .events = POLLIN };
		poll(&fds, 1, 10);
	}
	for (uint16_t i = 0; i < SENDERS; i++)
		pthread_join(sender[i].thread, NULL);

	/* Shut down in order: the last word arrives, then the end. */
	msg->type = CONTROL_END;
	msg->end = (struct control_end){ .kind = CONTROL_END_USER, .node = 3, .vcpu = NODE_NONE };
	snprintf(msg->end.text, sizeof(msg->end.text), "last\nword \x1b[31m");
	assert_int_equal(control_send(out, msg), 0);
	out->ops->shutdown(out);
	assert_int_equal(control_send(out, msg), -EPIPE);
	wait_for(control_fd(in), POLLIN);
	while (control_receive(in, msg) == -EAGAIN)
		test_sleep_ms(1);
	assert_int_equal(msg->type, CONTROL_END);
	assert_string_equal(msg->end.text, "last?word ?[31m");
	assert_int_equal(msg->end.node, 3);
	int error;
	while ((error = control_receive(in, msg)) == -EAGAIN)
		test_sleep_ms(1);
	assert_int_equal(error, -EPIPE);

	out->ops->destroy(out);
	proxy_stop(&proxy);
	in->ops->destroy(in);
	free(msg);
}

static void test_control_queue_bound(void **state)
{
	struct control_message *msg = calloc(1, sizeof(*msg));
	char *text = calloc(1, CONTROL_STATS_PART_MAX);
	struct control_channel *channel;
	int fd[2], error = 0;
	unsigned count = 0;

	memset(text, ' ', CONTROL_STATS_PART_MAX);
	test_tcp_pair(fd, 4096);
	assert_int_equal(tcp_control_create(stream_plain(fd[0]), PEER, &channel), 0);
	msg->type = CONTROL_STATS_REPLY;
	msg->stats_reply.text = text;
	msg->stats_reply.text_size = CONTROL_STATS_PART_MAX;
	msg->stats_reply.total = CONTROL_STATS_PART_MAX;
	for (; error == 0 && count < 1000; count++)
		error = control_send(channel, msg);
	assert_int_equal(error, -ENOBUFS);
	assert_true(count >= CONTROL_QUEUE_BYTES / CONTROL_FRAME_MAX);
	msg->type = CONTROL_EOI;
	msg->eoi.vcpu = VCPUS_MAX;
	assert_int_equal(control_send(channel, msg), -EINVAL);
	channel->ops->destroy(channel);
	close(fd[1]);
	free(text);
	free(msg);
}

static bool is_told(struct control_channel *channel)
{
	struct pollfd fds = { .fd = control_fd(channel), .events = POLLIN };

	return poll(&fds, 1, 50) > 0;
}

/*
 * A heartbeat alone wakes nobody who dozes; anything else does, and the rest of a frame that came in
 * pieces, be it as short.
 */
static void test_control_doze(void **state)
{
	struct control_message *msg = calloc(1, sizeof(*msg));
	struct control_channel *channel;
	uint8_t bytes[128];
	int fd[2], size;

	test_tcp_pair(fd, 0);
	assert_int_equal(tcp_control_create(stream_plain(fd[0]), PEER, &channel), 0);
	control_doze(channel);
	msg->type = CONTROL_HEARTBEAT;
	size = control_message_encode(msg, 0, bytes, sizeof(bytes));
	assert_int_equal(write(fd[1], bytes, (size_t)size), size);
	assert_false(is_told(channel));
	msg->type = CONTROL_EOI;
	size = control_message_encode(msg, 1, bytes, sizeof(bytes));
	assert_int_equal(write(fd[1], bytes, (size_t)size), size);
	assert_true(is_told(channel));
	assert_int_equal(control_receive(channel, msg), 0);
	assert_int_equal(msg->type, CONTROL_HEARTBEAT);
	assert_int_equal(control_receive(channel, msg), 0);
	assert_int_equal(msg->type, CONTROL_EOI);
	for (uint32_t cut = 1; cut < (uint32_t)size; cut++) {
		size = control_message_encode(msg, 1 + cut, bytes, sizeof(bytes));
		assert_int_equal(write(fd[1], bytes, cut), cut);
		test_sleep_ms(1);
		assert_int_equal(control_receive(channel, msg), -EAGAIN);
		assert_int_equal(write(fd[1], bytes + cut, (size_t)size - cut), size - (int)cut);
		assert_true(is_told(channel));
		assert_int_equal(control_receive(channel, msg), 0);
		assert_int_equal(control_receive(channel, msg), -EAGAIN);
	}
	msg->type = CONTROL_HEARTBEAT;
	size = control_message_encode(msg, 1 + (uint32_t)size, bytes, sizeof(bytes));
	assert_int_equal(write(fd[1], bytes, (size_t)size), size);
	assert_false(is_told(channel));
	close(fd[1]);
	assert_true(is_told(channel));
	channel->ops->destroy(channel);
	free(msg);
}

/* Who only looks takes nothing; what comes behind is not forgotten; advisory words never queue. */
static void test_control_peek(void **state)
{
	struct control_message *msg = calloc(1, sizeof(*msg));
	struct control_channel *out, *in;
	struct stream stream[2];
	int fd[2], sent = 0;
	bool behind;

	test_tcp_pair(fd, 4096);
	test_secure(keys, fd[0], fd[1], stream);
	assert_int_equal(tcp_control_create(stream[0], PEER, &out), 0);
	assert_int_equal(tcp_control_create(stream[1], PEER, &in), 0);
	assert_int_equal(control_peek(in, &behind), 0);
	assert_false(behind);
	msg->type = CONTROL_EOI;
	assert_int_equal(control_try_send(out, msg), 0);
	wait_for(fd[1], POLLIN);
	assert_int_equal(control_peek(in, &behind), CONTROL_EOI);
	assert_false(behind);
	msg->type = CONTROL_TAKEN;
	assert_int_equal(control_send(out, msg), 0);
	wait_for(fd[1], POLLIN);
	assert_int_equal(control_receive(in, msg), 0);
	assert_int_equal(msg->type, CONTROL_EOI);
	assert_int_equal(control_peek(in, &behind), CONTROL_TAKEN);
	assert_int_equal(control_receive(in, msg), 0);
	/* Two at once. */
	assert_int_equal(control_send(out, msg), 0);
	assert_int_equal(control_send(out, msg), 0);
	wait_for(fd[1], POLLIN);
	while (control_peek(in, &behind) != CONTROL_TAKEN || !behind)
		if (control_receive(in, msg) == 0)
			assert_int_equal(control_send(out, msg), 0);
	while (control_receive(in, msg) == 0)
		;
	while (control_backlog(out) == 0 && sent++ < 1000000)
		assert_int_equal(control_send(out, msg), 0);
	assert_int_equal(control_try_send(out, msg), -EAGAIN);
	/* A link that is down is for receive() to tell, which it does. */
	out->ops->destroy(out);
	while (control_receive(in, msg) == 0)
		;
	while (control_peek(in, &behind) == CONTROL_TAKEN)
		control_receive(in, msg);
	assert_int_equal(control_peek(in, &behind), 0);
	assert_true(behind);
	assert_true(control_receive(in, msg) < 0);
	in->ops->destroy(in);
	free(msg);
}

/* The same with TLS, where a heartbeat is a record, and the rest of one may be as short. */
static void test_control_doze_secure(void **state)
{
	struct control_message *msg = calloc(1, sizeof(*msg));
	struct control_channel *out, *in;
	struct stream stream[2];
	int near[2], far[2];

	/* out -> near[0] | near[1] -> what the test passes on -> far[0] | far[1] -> in */
	test_tcp_pair(near, 0);
	test_tcp_pair(far, 0);
	secure_across(near, far, stream);
	assert_int_equal(tcp_control_create(stream[0], PEER, &out), 0);
	assert_int_equal(tcp_control_create(stream[1], PEER, &in), 0);
	control_doze(in);
	msg->type = CONTROL_HEARTBEAT;
	assert_int_equal(control_send(out, msg), 0);
	pass_on(near[1], far[0], SIZE_MAX);
	assert_false(is_told(in));
	msg->type = CONTROL_EOI;
	assert_int_equal(control_send(out, msg), 0);
	pass_on(near[1], far[0], SIZE_MAX);
	assert_true(is_told(in));
	assert_int_equal(control_receive(in, msg), 0);
	assert_int_equal(msg->type, CONTROL_HEARTBEAT);
	assert_int_equal(control_receive(in, msg), 0);
	assert_int_equal(msg->type, CONTROL_EOI);
	assert_int_equal(control_receive(in, msg), -EAGAIN);
	for (size_t cut = 1; cut < CONTROL_HEARTBEAT_BYTES + 4 + TLS_RECORD_MORE; cut++) {
		assert_int_equal(control_send(out, msg), 0);
		pass_on(near[1], far[0], cut);
		test_sleep_ms(1);
		assert_int_equal(control_receive(in, msg), -EAGAIN);
		pass_on(near[1], far[0], SIZE_MAX);
		assert_true(is_told(in));
		assert_int_equal(control_receive(in, msg), 0);
		assert_int_equal(msg->type, CONTROL_EOI);
		assert_int_equal(control_receive(in, msg), -EAGAIN);
	}
	msg->type = CONTROL_HEARTBEAT;
	assert_int_equal(control_send(out, msg), 0);
	pass_on(near[1], far[0], SIZE_MAX);
	assert_false(is_told(in));
	out->ops->destroy(out);
	in->ops->destroy(in);
	close(near[1]);
	close(far[0]);
	free(msg);
}

static void expect_control_error(const uint8_t *bytes, size_t size, int want)
{
	struct control_message *msg = malloc(sizeof(*msg));
	struct control_channel *channel;
	int fd[2], error;

	test_tcp_pair(fd, 0);
	assert_int_equal(tcp_control_create(stream_plain(fd[1]), PEER, &channel), 0);
	assert_int_equal(write(fd[0], bytes, size), size);
	close(fd[0]);
	do {
		wait_for(fd[1], POLLIN);
		error = control_receive(channel, msg);
	} while (error == -EAGAIN || error == 0);
	assert_int_equal(error, want);
	channel->ops->destroy(channel);
	free(msg);
}

static void test_control_malformed(void **state)
{
	struct control_message *msg = calloc(1, sizeof(*msg));
	uint8_t bytes[128], broken[128];
	int size;

	msg->type = CONTROL_HEARTBEAT;
	size = control_message_encode(msg, 0, bytes, sizeof(bytes));
	assert_int_equal(size, CONTROL_HEARTBEAT_BYTES);
	expect_control_error(bytes, (size_t)size, -EPIPE);
	expect_control_error(bytes, (size_t)size - 1, -EPIPE);
	for (unsigned i = 0; i < CONTROL_HEADER_BYTES; i++) {
		memcpy(broken, bytes, sizeof(bytes));
		broken[i] ^= 0x40;
		/* A payload of 64 + 8 bytes is one that never comes, or no heartbeat. */
		expect_control_error(broken, (size_t)size, i == 8 || i == 9 ? -EPIPE : -EPROTO);
	}
	free(msg);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pages_direct),
		cmocka_unit_test(test_pages_small_buffers),
		cmocka_unit_test(test_pages_in_pieces),
		cmocka_unit_test(test_pages_syscalls),
		cmocka_unit_test(test_pages_give_back),
		cmocka_unit_test(test_pages_queue_bound),
		cmocka_unit_test(test_pages_malformed),
		cmocka_unit_test(test_pages_link_down),
		cmocka_unit_test(test_pages_cut),
		cmocka_unit_test(test_control_many_senders),
		cmocka_unit_test(test_control_queue_bound),
		cmocka_unit_test(test_control_peek),
		cmocka_unit_test(test_control_doze),
		cmocka_unit_test(test_control_malformed),
	};

	/* The same, as far as it makes no bytes of its own, where the streams are encrypted. */
	const struct CMUnitTest secure[] = {
		cmocka_unit_test(test_pages_direct),
		cmocka_unit_test(test_pages_small_buffers),
		cmocka_unit_test(test_pages_in_pieces),
		cmocka_unit_test(test_pages_syscalls),
		cmocka_unit_test(test_pages_give_back),
		cmocka_unit_test(test_control_many_senders),
		cmocka_unit_test(test_pages_cut),
		cmocka_unit_test(test_control_peek),
		cmocka_unit_test(test_control_doze_secure),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	keys = test_keys("no tide comes twice");
	failed += cmocka_run_group_tests(secure, NULL, NULL);
	tls_keys_destroy(keys);
	return failed;
}
