/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One disk for several users (share.h).
 *
 * What the disk gets are copies of the requests, one in each *ticket*, which knows whose it is; there
 * are as many as the disk takes. Tested by tests/backend/test_share.c.
 */
#include "backend/share.h"

#include <errno.h>
#include <stdlib.h>

struct list {
	struct disk_request *first, **end;
};

struct port {
	struct disk disk; /* first */
	struct disk_share *share;
	struct list waiting, done;
};

struct ticket {
	struct disk_request copy; /* its owner is this */
	struct disk_request *request;
	struct port *port;
	struct ticket *next; /* free */
};

struct disk_share {
	struct disk *disk;
	uint32_t port_count, turn;
	uint32_t waiting_count;
	struct ticket *free;
	struct ticket ticket[DISK_REQUESTS_MAX];
	struct port port[];
};

static struct port *port_of(struct disk *disk)
{
	return (struct port *)disk;
}

static void list_put(struct list *list, struct disk_request *request)
{
	request->next = NULL;
	*list->end = request;
	list->end = &request->next;
}

static struct disk_request *list_get(struct list *list)
{
	struct disk_request *request = list->first;
	if (!request)
		return NULL;
	list->first = request->next;
	if (!list->first)
		list->end = &list->first;
	request->next = NULL;
	return request;
}

static void ticket_put(struct disk_share *share, struct ticket *ticket)
{
	ticket->next = share->free;
	share->free = ticket;
}

/* The first of a port that is waiting, to the disk. False: the disk takes no more now. */
static bool pass_on(struct disk_share *share, struct port *port)
{
	struct ticket *ticket = share->free;
	struct disk_request *request = port->waiting.first;
	if (!ticket)
		return false;
	ticket->copy = *request;
	ticket->copy.owner = ticket;
	ticket->request = request;
	ticket->port = port;
	int r = disk_submit(share->disk, &ticket->copy);
	if (r == -EAGAIN)
		return false;
	list_get(&port->waiting);
	share->waiting_count--;
	if (!r) {
		share->free = ticket->next;
		return true;
	}
	request->result = r; /* which the port's check did not find */
	list_put(&port->done, request);
	return true;
}

static void pump(struct disk_share *share)
{
	while (share->waiting_count) {
		struct port *port = &share->port[share->turn];
		if (port->waiting.first && !pass_on(share, port))
			return;
		share->turn = (share->turn + 1) % share->port_count;
	}
}

static int port_submit(struct disk *disk, struct disk_request *request)
{
	struct port *port = port_of(disk);
	int r = disk_request_check(&disk->info, request);
	if (r < 0)
		return r;
	list_put(&port->waiting, request);
	port->share->waiting_count++;
	pump(port->share);
	return 0;
}

static void port_settle(struct disk *disk)
{
	disk_settle(port_of(disk)->share->disk);
}

static void port_work(struct disk *disk)
{
	struct disk_share *share = port_of(disk)->share;
	struct disk_request *copy;
	disk_work(share->disk);
	while ((copy = disk_done(share->disk))) {
		struct ticket *ticket = copy->owner;
		ticket->request->result = copy->result;
		list_put(&ticket->port->done, ticket->request);
		ticket_put(share, ticket);
	}
	pump(share);
}

static struct disk_request *port_done(struct disk *disk)
{
	return list_get(&port_of(disk)->done);
}

static void port_destroy(struct disk *disk)
{
}

static const struct disk_ops port_ops = { .submit = port_submit,
					  .settle = port_settle,
					  .work = port_work,
					  .done = port_done,
					  .destroy = port_destroy };

int disk_share_create(struct disk *disk, uint32_t ports, struct disk_share **ret_share)
{
	struct disk_share *share;
	if (!ports || ports > DISK_PORTS_MAX)
		return -EINVAL;
	share = calloc(1, sizeof(*share) + ports * sizeof(share->port[0]));
	if (!share)
		return -ENOMEM;
	share->disk = disk;
	share->port_count = ports;
	for (uint32_t i = 0; i < ports; i++) {
		struct port *port = &share->port[i];
		port->disk = (struct disk){ .ops = &port_ops, .info = disk->info, .fd = disk->fd };
		port->share = share;
		port->waiting.end = &port->waiting.first;
		port->done.end = &port->done.first;
	}
	for (uint32_t i = DISK_REQUESTS_MAX; i-- > 0;)
		ticket_put(share, &share->ticket[i]);
	*ret_share = share;
	return 0;
}

struct disk *disk_share_port(struct disk_share *share, uint32_t port)
{
	return &share->port[port].disk;
}

void disk_share_destroy(struct disk_share *share)
{
	if (!share)
		return;
	disk_destroy(share->disk);
	free(share);
}
