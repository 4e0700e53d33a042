/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the io thread share (io.h): nobody else includes this. Who may touch what is
 * said at each part; what says nothing is set before the thread runs and then stays.
 */
#ifndef NODE_IO_STATE_H
#define NODE_IO_STATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/limits.h"
#include "node/disk_counts.h"
#include "node/io_stats.h"
#include "virtio/published.h"
#include "virtio/queue.h"
#include "wire/device_info.h"

struct disk_service;
struct disk_share;
struct io_channel;
struct net_service;
struct remote_disk;
struct remote_net;
struct node;
struct say;
struct virtio_front;
struct virtio_host;

#define QUEUE_WORDS  ((VIRTIO_QUEUES_MAX + 63) / 64)
#define VECTOR_WORDS ((VIRTIO_VECTORS_MAX + 63) / 64)
/* In epoll, beside a device's number: wake_fd, and a peer's channel. */
#define WAKE_EVENT	 UINT32_MAX
#define PEER_EVENT	 0x10000u /* + its node */
#define IO_STREAMS_BYTES 65536u

#define IO_NO_VCPU UINT32_MAX

/* A channel to another node. The io thread's. */
struct io_peer {
	struct io *io;
	uint16_t node;
	struct io_channel *channel; /* NULL: none, or it has failed */
	bool full;		    /* the socket is: epoll tells when it no longer is */
};

/* Where a queue is to be (io_queues.c). All 0 in a generation's beginning. */
struct io_queue {
	uint32_t vcpu; /* its vector's, or IO_NO_VCPU */
	bool told;     /* an interrupt has been sent for it in this generation */
	bool leaving;
	uint16_t to;	  /* where its vCPU is, if not here, */
	uint64_t away_ns; /* ... since when; 0: it is here */
	uint64_t came_ns;
};

/* A queue that another node has given (QUEUE). */
struct io_arrival {
	bool there;
	uint64_t generation;
	struct virtio_queue_state state;
};

/* Every node has all of the pod's, in the same order. */
struct io_device {
	struct io *io;
	uint8_t number;
	uint16_t node; /* that has the file or network */
	bool moves;    /* every node has a front half of it: its queues may go there */
	struct device_info info;
	struct virtio_offer offer;
	struct virtio_front *front; /* NULL: this node has none */
	/* What the front half works with. One of them, or none: random numbers. */
	struct disk *disk;
	struct net *net;
	struct io_streams *streams;
	bool balloon;
	bool in_place; /* the disk may work on guest memory itself */
	uint8_t mac[6];
	/* A disk of this node's that others use, too: its ports by node number, and who asks. */
	struct disk_share *share;
	struct disk_service *service[NODES_MAX];
	struct disk_counts disk_counts; /* of the front half's requests */
	struct remote_disk *remote;	/* a disk of another node's */
	struct net_service
		*net_service; /* a card of this node's: for the first, which has its front half */
	struct remote_net *remote_net; /* a card of another node's */
	uint32_t window_first;	       /* of the windows to guest memory, one a queue */

	_Atomic uint64_t rung[QUEUE_WORDS];

	/* io->lock */
	bool posted;
	struct virtio_published post;
	struct io_arrival arrival[VIRTIO_QUEUES_MAX];

	/* The io thread's. */
	bool known; /* `now` has been said */
	bool broke; /* the driver has broken it, and it was said */
	struct virtio_published now;
	uint64_t pending[VECTOR_WORDS];
	uint64_t works[QUEUE_WORDS]; /* queues that did something in this turn */
	uint32_t leaving;	     /* queues that are */
	struct io_queue queue[VIRTIO_QUEUES_MAX];
};

/* A command's streams: what the console's thread has for the guest (io_streams.c). */
struct io_streams {
	struct io_device *device;
	pthread_mutex_t lock; /* guards the rest */
	bool refused;	      /* there was more than room for */
	size_t start, size;
	uint8_t input[IO_STREAMS_BYTES]; /* a ring */
};

struct io {
	struct node *node;
	pthread_t thread;
	int epoll_fd, wake_fd;
	atomic_bool sleeping;
	atomic_bool memory;	 /* pages have come that windows wait for */
	_Atomic uint32_t rung;	 /* devices with bits */
	_Atomic uint32_t posted; /* devices with mail */
	_Atomic uint64_t turns;	 /* of its loop: how often it has looked at what there is */
	pthread_mutex_t lock;
	uint32_t count, window_count;
	uint32_t works;	  /* devices with queues that work, or leave; the io thread's */
	uint64_t torture; /* 0: none; else random */
	bool still;	  /* queues stay where they are */
	struct say *say;
	struct io_peer peer[NODES_MAX];
	struct io_streams *streams; /* NULL: this node has no command's */
	atomic_bool look;	    /* somebody wants to be told what is in hand */
	char looked[IO_LOOK_BYTES]; /* lines; io->lock */
	struct io_device device[VIRTIO_DEVICES_MAX];
	struct virtio_offer offer[VIRTIO_DEVICES_MAX];
};

/* io_open.c */
int io_watch(struct io *io, int fd, uint32_t which);

/* io_peer.c: what is said with other nodes. Channels, disks of other nodes, disks for them; before
 * the thread runs. 0 or -errno. */
int io_peers_start(struct io *io);
void io_peer_event(struct io *io, uint16_t node);
/* Everything that was left for the peers leaves; before the thread waits. */
void io_peers_flush(struct io *io);

/* io.c: requests of a disk that are done go back to who asked. */
void io_disk_done(struct io_device *device);
/* Packets that a card's network has go where its front half is, and what waits to be sent is tried. */
void io_net_ready(struct io_device *device);
/* Is a front half of it on this node? Those of cards are where the PC is only, so far. */
bool io_has_front(const struct io_device *device);
/* io.c: something is in a device's mail. */
void io_mail_there(struct io *io, uint8_t device);

/* io_look.c: the lines anew, by the io thread; the newest there are, IO_LOOK_BYTES, by any thread. */
void io_look(struct io *io);
void io_look_get(struct io *io, char *to);
/* io.c: and new ones are to be made. */
void io_look_wanted(struct io *io);

/* io_queues.c. Before the thread runs. */
void io_queues_configure(struct io *io);
/* The io thread's. The registers have said something; a queue has done something. */
void io_queues_published(struct io_device *device, bool new_generation);
void io_queue_works(struct io_device *device, uint16_t queue);
/* Queues in the mail are taken, where their generation has started. */
void io_queues_arrive(struct io_device *device);
/* At a turn's end: who leaves, and who can be given. */
void io_queues_turn(struct io *io);

/* io_streams.c, of the io thread but for the first. */
int io_streams_open(struct io *io, struct io_device *device);
int io_streams_start(struct io_streams *streams, const struct virtio_host *host);
void io_streams_work(struct io_streams *streams);

#endif
