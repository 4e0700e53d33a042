/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands on a connection to an NBD server, in groups: of one request, of what is written again, a
 * flush.
 *
 *	nbd_begin(group)
 *	nbd_send_...(group) ...      any number of commands
 *	nbd_all_sent(group)
 *	group->ended(group)          all have an answer, or are lost with their connection: nbd_is_whole()
 *
 * `ended` may be called by any function of libnbd, with libnbd's lock held: it must call none.
 */
#ifndef BACKEND_NBD_COMMANDS_H
#define BACKEND_NBD_COMMANDS_H

#include <libnbd.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "backend/disk.h"

#define NBD_RANGE_BYTES (1u << 30) /* of a ZERO's or DISCARD's command, at most */

struct nbd_connection {
	struct nbd_handle *handle; /* or NULL */
	bool shuts_down;	   /* the server has said so */
	uint32_t busy;		   /* groups under way */
	uint64_t since_ns;	   /* something came, or there was nothing to come */
};

struct nbd_group {
	struct nbd_connection *connection;
	void (*ended)(struct nbd_group *group);
	uint32_t under_way;
	uint32_t sent, answered; /* since nbd_begin() */
	int error;		 /* of one of them: errno */
};

uint64_t nbd_now_ns(void);

void nbd_begin(struct nbd_group *group);
void nbd_all_sent(struct nbd_group *group);
/* READ, WRITE; the memory stays until the group has ended. */
void nbd_send_data(struct nbd_group *group, enum disk_op op, const struct iovec *piece,
		   uint64_t offset);
/* DISCARD, ZERO: its first part, of NBD_RANGE_BYTES at most: how much that is. */
uint64_t nbd_send_range(struct nbd_group *group, enum disk_op op, bool unmap, uint64_t offset,
			uint64_t bytes);
void nbd_send_flush(struct nbd_group *group);

/* Have all been answered, with an error or without? */
static inline bool nbd_is_whole(const struct nbd_group *group)
{
	return group->answered == group->sent;
}

/* There is one: is it of no use any more? */
bool nbd_is_lost(const struct nbd_connection *connection);

#endif
