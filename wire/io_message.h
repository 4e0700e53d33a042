/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Io messages: what the io threads of two nodes say to each other about disks and network cards, and
 * the data that goes with it (link/io_channel.h).
 *
 *      0       4      5        6      8          12           16                 48
 *      | magic | type | device | zero | sequence | data bytes | by type, 32 bytes | data ...
 *
 * The head has the same size whatever its type, so a reader knows what to read. The sequence counts a
 * channel's messages from 0, so that a slip in framing is seen at once. A decoded head has been
 * checked wholly as far as it can be by itself: whether the device is there, the request is one that
 * it has, and a reply is one to a request, is for who knows them.
 *
 *      who says what    to               answer      meaning, and data
 *      DISK_REQUEST     the disk's node  DISK_REPLY  do this; what is to be written
 *      DISK_REPLY       who asked                    it is done, or failed; what was read
 *      NET_OUT          the card's node              packets that the guest sent on a pair
 *      NET_IN           who has the pair             packets for the guest, on that pair
 *      NET_ROOM         the card's node              how much may be sent to it on a pair
 *      NET_DRIVER       the card's node              what the guest's driver has set
 *
 * Packets travel as runs (backend/packet_ring.h), which who receives them checks.
 */
#ifndef WIRE_IO_MESSAGE_H
#define WIRE_IO_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/disk.h"
#include "backend/net.h"

#define IO_HEAD_BYTES 48u
#define IO_RUN_MAX    (128u << 10) /* of NET_OUT and NET_IN: a packet of any size fits */
#define IO_DATA_MAX   (4u << 20)   /* of one message: a disk request of a virtio driver fits */

enum io_type {
	IO_DISK_REQUEST = 1,
	IO_DISK_REPLY = 2,
	IO_NET_OUT = 3,
	IO_NET_IN = 4,
	IO_NET_ROOM = 5,
	IO_NET_DRIVER = 6,
	IO_TYPE_LIMIT,
};

enum io_result {
	IO_RESULT_OK = 0,
	IO_RESULT_FAILED = 1,	   /* -EIO */
	IO_RESULT_UNSUPPORTED = 2, /* -EOPNOTSUPP */
	IO_RESULT_LIMIT,
};

/* data_bytes: of WRITE its length, else 0. */
struct io_disk_request {
	uint32_t id;	 /* the asker's, for the reply */
	uint8_t op;	 /* enum disk_op */
	bool unmap;	 /* only of ZERO */
	uint64_t offset; /* FLUSH: 0 */
	uint64_t length; /* FLUSH: 0; READ and WRITE: to IO_DATA_MAX; the end fits 64 bits */
};

/* data_bytes: of a READ that is OK its length, else 0. */
struct io_disk_reply {
	uint32_t id;
	uint8_t result; /* enum io_result */
};

/* NET_OUT, NET_IN. data_bytes: the run's, 1 to IO_RUN_MAX. */
struct io_net_run {
	uint16_t pair; /* below NET_PAIRS_MAX, as below */
};

/* data_bytes 0, as below. */
struct io_net_room {
	uint16_t pair;
	uint64_t limit; /* so many bytes of runs, counted from the beginning; never lowered */
};

struct io_net_driver {
	uint16_t pairs; /* in use, 1 to NET_PAIRS_MAX */
	struct net_offloads offloads;
};

struct io_message {
	uint8_t type;	/* enum io_type: which of the union */
	uint8_t device; /* its place in the pod's list; below VIRTIO_DEVICES_MAX */
	uint32_t data_bytes;
	union {
		struct io_disk_request disk_request;
		struct io_disk_reply disk_reply;
		struct io_net_run net_run;
		struct io_net_room net_room;
		struct io_net_driver net_driver;
	};
};

/* 0, or -EINVAL: the message breaks a rule above (our own bug). */
int io_message_encode(const struct io_message *msg, uint32_t sequence, uint8_t out[IO_HEAD_BYTES]);
/* 0, or -EPROTO: it breaks a rule, or is not the `sequence`th. */
int io_message_decode(const uint8_t in[IO_HEAD_BYTES], uint32_t sequence,
		      struct io_message *ret_msg);

#endif
