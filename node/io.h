/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node's io thread: one event loop that owns the front halves of the virtio devices (virtio/) and
 * the back halves (backend/) that are on this node, and wires them.
 *
 *	vCPU, devices ---- io_doorbell(), io_publish() ---->  io thread  <---->  disks, networks
 *	                                                          |
 *	pager         ---- io_memory_ready() ---------------->    '--> guest_io_interrupt()
 *
 * It never waits for guest memory, a disk, a network or another node. Everybody else talks to it
 * through the calls below, none of which waits for it.
 */
#ifndef NODE_IO_H
#define NODE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct control_queue;
struct device_list;
struct node;
struct node_options;
struct pod_config;
struct virtio_offer;
struct virtio_published;

/* Before there is a node: whether the disks' files can be opened, for node_check(). 0, or -errno with
 * one line in `why`. */
int io_check(const struct node_options *options, char *why, size_t why_size);
/*
 * Opens what this node has of the pod's disks and networks: files are locked, ports taken. Early,
 * so that what is wrong shows before the guest starts. 0, or -errno with one line in `why`. Where
 * there are no devices there is no io thread: node->virtio stays NULL, and the calls below do nothing.
 */
int io_open(struct node *node, char *why, size_t why_size);
/* What this node has, for FEATURES. */
void io_list(const struct node *node, struct device_list *ret_list);
/* The loader, once all FEATURES are here: what the pod has, for START. 0, or -EINVAL with `why`: some node
 * has something else than the configuration says. */
int io_gather(const struct node *node, struct device_list *ret_list, char *why, size_t why_size);
/* What START says, on every node. 0, or -EINVAL with `why`. */
int io_take(struct node *node, const struct device_list *list, char *why, size_t why_size);
/* Bytes that a node keeps resident at most for the disks and networks that it serves. */
uint64_t io_kept_bytes(const struct pod_config *config, uint32_t n);
/* What the guest finds, in the order of PCI's slots: for pc_config. Their number. */
uint32_t io_offers(const struct node *node, const struct virtio_offer **ret_offer);
/* For the pager: so many windows to guest memory, and who is told that some are worth a try. */
uint32_t io_window_count(const struct node *node);
void io_memory_ready(void *node);
/* Once guest memory and the pager are there: the thread runs. 0 or -errno. */
int io_start(struct node *node);

/* The guest rang: queue `queue` of device `device` has something new. Any thread; no lock; any
 * numbers. */
void io_doorbell(struct node *node, uint8_t device, uint16_t queue);
/*
 * The console's thread, of a pod with a command: bytes for the guest's end of the streams, of which
 * so many were taken (console_input_room() is called when there is room again); and what was offered
 * of the guest's is taken again.
 */
size_t io_streams_input(struct node *node, const uint8_t *data, size_t size);
void io_streams_room(struct node *node);
/* The registers of a device have changed. Any thread; copied. False: this node has nothing of it. */
bool io_publish(struct node *node, const struct virtio_published *published);
/* Another node has given a queue. The control thread. False: that cannot be taken here. */
bool io_arrives(struct node *node, const struct control_queue *queue);
/* At the pod's end: what is to be said to the user is said. */
void io_end(struct node *node);

#endif
