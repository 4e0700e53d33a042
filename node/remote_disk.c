/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk of another node (remote_disk.h).
 *
 * A *whole* is a request of the front half's; an *ask* is what one message says of it, whose number
 * is the id in messages:
 *
 *	request --> whole --> ask of its first 256 KiB --> DISK_REQUEST
 *	                      ask of the next          --> DISK_REQUEST
 *	            ...
 *	done    <-- whole <-- the last of them         <-- DISK_REPLY
 *
 * so that the disk works on what has come while the rest of a large request is on its way, and what
 * has been read is on its way while the disk reads on. Wholes wait in a row for asks and for what is
 * reserved. An ask is
 *
 *	FREE -> SENDING (the channel has it) -> SENT -> FREE
 *
 * A request's memory is in use until all replies are here: the front half keeps it until then,
 * whatever the guest does meanwhile. A reply cannot come before its ask has left, so one that does is
 * a lie, and the channel never reads memory that has been given back.
 *
 * Tested by tests/node/test_remote_disk.c, fuzzed by tests/fuzz/fuzz_io.c.
 */
#include "node/remote_disk.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "virtio/blk.h"

static_assert(VIRTIO_BLK_BYTES_MAX <= IO_DATA_MAX, "what a driver asks for fits a message");
static_assert(IO_DATA_MAX <= DISK_PIECES_MAX * DISK_PIECE_BYTES, "and what is reserved");

/* Of a large request, in one message: so that the disk, the link and the other side work at once. */
#define ASK_BYTES (4u * DISK_PIECE_BYTES)

static_assert(ASK_BYTES <= IO_DATA_MAX);

enum ask_state { ASK_FREE, ASK_SENDING, ASK_SENT };

struct whole {
	struct disk_request *request;
	bool cut;	    /* into asks of ASK_BYTES at most; else one ask is all of it */
	bool begun;	    /* all of it is, or was, with asks */
	uint64_t at;	    /* bytes that are, or were: where the next ask begins */
	uint32_t iov_at;    /* likewise, in its memory */
	size_t iov_skip;    /* bytes of that piece */
	uint32_t asks;	    /* under way */
	int result;	    /* of the first that failed */
	struct whole *next; /* free, or waiting */
};

struct ask {
	struct io_parcel parcel; /* its owner is this */
	struct whole *whole;
	uint64_t length;
	const struct iovec *iov; /* its part of the request's, or `part` */
	uint32_t iov_count;
	struct iovec part; /* of one piece that is larger than an ask */
	enum ask_state state;
	struct ask *next; /* free */
};

struct remote_disk {
	struct disk disk; /* first */
	struct io_channel *channel;
	uint8_t device;
	uint32_t pieces_left; /* of what is reserved */
	struct disk_request *done, **done_end;
	struct whole *waiting, **waiting_end;
	struct whole *free_whole;
	struct ask *free_ask;
	struct whole whole[DISK_REQUESTS_MAX];
	struct ask ask[DISK_REQUESTS_MAX];
};

static struct remote_disk *remote_of(struct disk *disk)
{
	return (struct remote_disk *)disk;
}

/* Pieces of memory that are no multiples of blocks: an ask that ends with one would end in a block. */
static bool may_be_cut(const struct disk_info *info, const struct disk_request *request)
{
	if ((request->op != DISK_READ && request->op != DISK_WRITE) || request->length <= ASK_BYTES)
		return false;
	for (uint32_t i = 0; i < request->iov_count; i++)
		if (request->iov[i].iov_len % info->block_bytes != 0)
			return false;
	return true;
}

/* What the next ask of a whole would be: pieces of memory as they are, or a part of a large one. */
static void next_part(const struct whole *whole, struct ask *ask)
{
	const struct disk_request *request = whole->request;
	const struct iovec *iov = request->iov;
	uint32_t left = request->iov_count - whole->iov_at;

	if (!whole->cut) {
		ask->iov = iov; /* of FLUSH and its like NULL */
		ask->iov_count = request->iov_count;
		ask->length = request->length;
		return;
	}
	iov += whole->iov_at;
	ask->iov = iov;
	if (iov->iov_len - whole->iov_skip > ASK_BYTES || whole->iov_skip > 0) {
		size_t rest = iov->iov_len - whole->iov_skip;

		ask->length = rest < ASK_BYTES ? rest : ASK_BYTES;
		ask->part =
			(struct iovec){ (uint8_t *)iov->iov_base + whole->iov_skip, ask->length };
		ask->iov = &ask->part;
		ask->iov_count = 1;
		return;
	}
	ask->length = 0;
	for (ask->iov_count = 0; ask->iov_count < left; ask->iov_count++) {
		if (ask->length + iov[ask->iov_count].iov_len > ASK_BYTES)
			break;
		ask->length += iov[ask->iov_count].iov_len;
	}
}

static void go_on_behind(struct whole *whole, const struct ask *ask)
{
	whole->at += ask->length;
	if (ask->iov != &ask->part) {
		whole->iov_at += ask->iov_count;
	} else if ((whole->iov_skip += ask->length) == whole->request->iov[whole->iov_at].iov_len) {
		whole->iov_at++;
		whole->iov_skip = 0;
	}
	whole->begun = whole->at == whole->request->length;
}

static uint32_t pieces_of(const struct ask *ask)
{
	return disk_pieces(ask->whole->request->op, ask->length);
}

static void fill_parcel(const struct remote_disk *remote, struct ask *ask)
{
	const struct disk_request *request = ask->whole->request;
	bool write = request->op == DISK_WRITE, flush = request->op == DISK_FLUSH;

	ask->parcel = (struct io_parcel){
		.message = { .type = IO_DISK_REQUEST,
			     .device = remote->device,
			     .data_bytes = write ? (uint32_t)ask->length : 0,
			     .disk_request = { .id = (uint32_t)(ask - remote->ask),
					       .op = (uint8_t)request->op,
					       .unmap = request->op == DISK_ZERO && request->unmap,
					       .offset =
						       flush ? 0 : request->offset + ask->whole->at,
					       .length = ask->length } },
		.iov = write ? ask->iov : NULL,
		.iov_count = write ? ask->iov_count : 0,
		.owner = ask,
	};
}

/* Whether there is an ask for the next part of a whole, and room for it; and sends it. */
static bool send_part(struct remote_disk *remote, struct whole *whole)
{
	struct ask *ask = remote->free_ask;

	if (!ask)
		return false;
	ask->whole = whole;
	next_part(whole, ask);
	if (remote->pieces_left < pieces_of(ask))
		return false;
	remote->free_ask = ask->next;
	remote->pieces_left -= pieces_of(ask);
	fill_parcel(remote, ask);
	go_on_behind(whole, ask);
	whole->asks++;
	ask->state = ASK_SENDING;
	io_send(remote->channel, &ask->parcel);
	return true;
}

static void send_waiting(struct remote_disk *remote)
{
	struct whole *whole;

	while ((whole = remote->waiting)) {
		do {
			if (!send_part(remote, whole))
				return;
		} while (!whole->begun);
		remote->waiting = whole->next;
		if (!remote->waiting)
			remote->waiting_end = &remote->waiting;
	}
}

static int remote_submit(struct disk *disk, struct disk_request *request)
{
	struct remote_disk *remote = remote_of(disk);
	struct whole *whole = remote->free_whole;
	int error = disk_request_check(&disk->info, request);

	if (error < 0)
		return error;
	if (disk_pieces(request->op, request->length) > IO_DATA_MAX / DISK_PIECE_BYTES)
		return -EINVAL;
	if (!whole)
		return -EAGAIN;
	remote->free_whole = whole->next;
	*whole = (struct whole){ .request = request, .cut = may_be_cut(&disk->info, request) };
	*remote->waiting_end = whole;
	remote->waiting_end = &whole->next;
	send_waiting(remote);
	return 0;
}

static void remote_nothing(struct disk *disk)
{
}

static struct disk_request *remote_done(struct disk *disk)
{
	struct remote_disk *remote = remote_of(disk);
	struct disk_request *request = remote->done;

	if (!request)
		return NULL;
	remote->done = request->next;
	if (!remote->done)
		remote->done_end = &remote->done;
	return request;
}

static const struct disk_ops remote_ops = { .submit = remote_submit,
					    .settle = remote_nothing,
					    .work = remote_nothing,
					    .done = remote_done,
					    .destroy = remote_nothing };

/* What a reply is to, or NULL: to nothing. */
static struct ask *asked(struct remote_disk *remote, const struct io_message *msg)
{
	struct ask *ask;
	uint64_t expected = 0;

	if (msg->disk_reply.id >= DISK_REQUESTS_MAX)
		return NULL;
	ask = &remote->ask[msg->disk_reply.id];
	if (ask->state != ASK_SENT)
		return NULL;
	if (ask->whole->request->op == DISK_READ && msg->disk_reply.result == IO_RESULT_OK)
		expected = ask->length;
	return msg->data_bytes == expected ? ask : NULL;
}

int remote_disk_place(struct remote_disk *remote, const struct io_message *msg,
		      const struct iovec **ret_iov, uint32_t *ret_count)
{
	struct ask *ask = asked(remote, msg);

	if (!ask)
		return -EPROTO;
	*ret_iov = ask->iov;
	*ret_count = ask->iov_count;
	return 0;
}

static int result_of(uint8_t result)
{
	return result == IO_RESULT_OK ? 0 : result == IO_RESULT_UNSUPPORTED ? -EOPNOTSUPP : -EIO;
}

static void end_whole(struct remote_disk *remote, struct whole *whole)
{
	struct disk_request *request = whole->request;

	request->result = whole->result;
	request->next = NULL;
	*remote->done_end = request;
	remote->done_end = &request->next;
	whole->next = remote->free_whole;
	remote->free_whole = whole;
}

int remote_disk_arrived(struct remote_disk *remote, const struct io_message *msg)
{
	struct ask *ask = asked(remote, msg);
	struct whole *whole;

	if (!ask)
		return -EPROTO;
	whole = ask->whole;
	remote->pieces_left += pieces_of(ask);
	ask->state = ASK_FREE;
	ask->next = remote->free_ask;
	remote->free_ask = ask;
	if (whole->result == 0)
		whole->result = result_of(msg->disk_reply.result);
	if (--whole->asks == 0 && whole->begun)
		end_whole(remote, whole);
	send_waiting(remote);
	return 0;
}

void remote_disk_left(struct remote_disk *remote, struct io_parcel *parcel)
{
	struct ask *ask = parcel->owner;

	(void)remote;
	assert(ask->state == ASK_SENDING);
	ask->state = ASK_SENT;
}

int remote_disk_create(struct io_channel *channel, uint8_t device, const struct disk_info *info,
		       struct remote_disk **ret_remote)
{
	struct remote_disk *remote = calloc(1, sizeof(*remote));

	if (!remote)
		return -ENOMEM;
	remote->disk = (struct disk){ .ops = &remote_ops, .info = *info, .fd = -1 };
	remote->disk.info.alignment = 1; /* memory goes through a socket */
	remote->channel = channel;
	remote->device = device;
	remote->pieces_left = DISK_PIECES_MAX;
	remote->done_end = &remote->done;
	remote->waiting_end = &remote->waiting;
	for (uint32_t i = DISK_REQUESTS_MAX; i-- > 0;) {
		remote->whole[i].next = remote->free_whole;
		remote->free_whole = &remote->whole[i];
		remote->ask[i].next = remote->free_ask;
		remote->free_ask = &remote->ask[i];
	}
	*ret_remote = remote;
	return 0;
}

void remote_disk_destroy(struct remote_disk *remote)
{
	free(remote);
}

struct disk *remote_disk_disk(struct remote_disk *remote)
{
	return &remote->disk;
}
