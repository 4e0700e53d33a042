// SPDX-License-Identifier: Apache-2.0
/*
 * Fuzzes what another node can say about disks: a node that has a disk and asks for one of the
 * peer's, and a peer that says what the input says, well-formed or not, while requests are under way.
 * Whatever comes, the node goes on or ends the link; memory is its own again only when it is.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/share.h"
#include "link/tcp.h"
#include "node/disk_service.h"
#include "node/remote_disk.h"
#include "tests/backend/memory_disk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DISK_BYTES (1u << 20)
#define ASKED	   1 /* the peer's disk */
#define SERVED	   2 /* the node's */
#define REQUESTS   16u
#define LENGTH_MAX (256u << 10)

struct input {
	const uint8_t *data;
	size_t size, at;
};

struct node {
	struct io_channel *channel;
	struct memory_disk memory;
	struct disk_share *share;
	struct disk_service *service;
	struct remote_disk *remote;
	int peer;
	uint32_t sequence;
	struct own {
		struct disk_request request;
		struct iovec iov;
		uint8_t *data; /* while it is under way, and freed then: ASan sees who comes late */
	} own[REQUESTS];
};

static uint32_t take(struct input *input, uint32_t bytes)
{
	uint32_t number = 0;

	for (uint32_t i = 0; i < bytes && input->at < input->size; i++)
		number = number << 8 | input->data[input->at++];
	return number;
}

static int on_place(void *ctx, const struct io_message *msg, const struct iovec **ret_iov,
		    uint32_t *ret_count)
{
	struct node *node = ctx;

	if (msg->type == IO_DISK_REQUEST && msg->device == SERVED)
		return disk_service_place(node->service, msg, ret_iov, ret_count);
	if (msg->type == IO_DISK_REPLY && msg->device == ASKED)
		return remote_disk_place(node->remote, msg, ret_iov, ret_count);
	return -EPROTO;
}

static int on_arrived(void *ctx, const struct io_message *msg)
{
	struct node *node = ctx;

	if (msg->type == IO_DISK_REQUEST && msg->device == SERVED)
		return disk_service_arrived(node->service, msg);
	if (msg->type == IO_DISK_REPLY && msg->device == ASKED)
		return remote_disk_arrived(node->remote, msg);
	return -EPROTO;
}

static void make(struct node *node)
{
	int fd[2];

	memset(node, 0, sizeof(*node));
	memory_disk_make(&node->memory, DISK_BYTES, 1);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd) < 0 ||
	    tcp_io_create(stream_plain(fd[0]), 1, &node->channel) < 0 ||
	    disk_share_create(&node->memory.disk, 2, &node->share) < 0 ||
	    disk_service_create(node->channel, SERVED, disk_share_port(node->share, 1),
				&node->service) < 0 ||
	    remote_disk_create(node->channel, ASKED, &node->memory.disk.info, &node->remote) < 0)
		abort();
	node->peer = fd[1];
}

static void end(struct node *node)
{
	for (uint32_t i = 0; i < REQUESTS; i++)
		free(node->own[i].data);
	io_destroy(node->channel);
	remote_disk_destroy(node->remote);
	disk_service_destroy(node->service);
	disk_share_destroy(node->share);
	memory_disk_free(&node->memory);
	close(node->peer);
}

/* A request of the node's own to the peer's disk. */
static void submit(struct node *node, struct input *input)
{
	struct own *own = &node->own[take(input, 1) % REQUESTS];
	uint32_t length = 512 * (1 + take(input, 1));

	if (own->data)
		return;
	own->request = (struct disk_request){ .op = (enum disk_op)(take(input, 1) % 5),
					      .offset = 512 * take(input, 1),
					      .length = length,
					      .owner = own };
	own->data = calloc(1, length);
	own->iov = (struct iovec){ own->data, length };
	if (own->request.op == DISK_FLUSH)
		own->request.length = 0;
	if (own->request.op == DISK_READ || own->request.op == DISK_WRITE) {
		own->request.iov = &own->iov;
		own->request.iov_count = 1;
	}
	if (disk_submit(remote_disk_disk(node->remote), &own->request) < 0)
		abort();
}

static void send_bytes(struct node *node, const uint8_t *bytes, size_t size)
{
	(void)!send(node->peer, bytes, size, MSG_NOSIGNAL);
}

/* A message that may be, with data behind it, not always all of it. */
static void say(struct node *node, struct input *input)
{
	static uint8_t bytes[IO_HEAD_BYTES + LENGTH_MAX];
	struct io_message msg = { .type = (uint8_t)(1 + take(input, 1) % 2),
				  .device = (uint8_t)take(input, 1) % 4 };
	uint32_t length = 512 * take(input, 1) + take(input, 1) % 2;

	if (msg.type == IO_DISK_REQUEST) {
		msg.disk_request = (struct io_disk_request){ .id = take(input, 1),
							     .op = (uint8_t)(take(input, 1) % 5),
							     .offset = 512ull * take(input, 2),
							     .length = length };
		msg.data_bytes = msg.disk_request.op == DISK_WRITE ? length : 0;
	} else {
		msg.disk_reply = (struct io_disk_reply){ .id = take(input, 1) % (REQUESTS + 4),
							 .result = (uint8_t)(take(input, 1) % 3) };
		msg.data_bytes = msg.disk_reply.result ? 0 : length;
	}
	if (io_message_encode(&msg, node->sequence, bytes) < 0)
		return;
	node->sequence++;
	send_bytes(node, bytes, IO_HEAD_BYTES + msg.data_bytes);
}

static void say_raw(struct node *node, struct input *input)
{
	size_t size = take(input, 1);

	if (size > input->size - input->at)
		size = input->size - input->at;
	send_bytes(node, input->data + input->at, size);
	input->at += size;
}

static void hear(struct node *node)
{
	static uint8_t scrap[1 << 20];

	(void)!recv(node->peer, scrap, sizeof(scrap), 0);
}

/* A turn of the io thread's loop. */
static int turn(struct node *node)
{
	const struct io_receiver receiver = { on_place, on_arrived, node };
	struct disk *port = disk_share_port(node->share, 1);
	struct disk_request *request;
	struct io_parcel *parcel;
	int error = io_receive(node->channel, &receiver);

	if (error < 0)
		return error;
	while ((request = disk_done(remote_disk_disk(node->remote)))) {
		struct own *own = request->owner;

		free(own->data);
		own->data = NULL;
	}
	disk_work(port);
	disk_service_work(node->service);
	error = io_flush(node->channel);
	while ((parcel = io_left(node->channel))) {
		if (parcel->message.type == IO_DISK_REQUEST)
			remote_disk_left(node->remote, parcel);
		else
			disk_service_left(node->service, parcel);
	}
	return error == -EAGAIN ? 0 : error;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct node node;
	struct input input = { data, size, 0 };
	int error = 0;

	make(&node);
	while (input.at < input.size && error == 0) {
		switch (take(&input, 1) % 6) {
		case 0:
			submit(&node, &input);
			break;
		case 1:
			say(&node, &input);
			break;
		case 2:
			say_raw(&node, &input);
			break;
		case 3:
			hear(&node);
			break;
		case 4:
			node.memory.hold = !node.memory.hold;
			break;
		case 5:
			error = turn(&node);
			break;
		}
	}
	if (error == 0)
		error = turn(&node);
	if (error != 0 && error != -EPROTO && error != -EPIPE && error != -ECONNRESET)
		abort();
	end(&node);
	return 0;
}
