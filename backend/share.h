/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One disk for several users, each of whom has a *port*, which is a disk to it:
 *
 *	port 0 --.
 *	port 1 ---> by turns --> the disk, as many as it takes --> each back to its port
 *	port 2 --'
 *
 * A port takes whatever is submitted to it, and keeps it until it is the port's turn; its user bounds
 * how much that is. So nobody who asks for much keeps others out for longer than what the disk has
 * under way at once. All ports together are one thread's, as the disk is.
 */
#ifndef BACKEND_SHARE_H
#define BACKEND_SHARE_H

#include "backend/disk.h"

#define DISK_PORTS_MAX 256u

struct disk_share;

/* Takes the disk over, at success only. `ports` 1..DISK_PORTS_MAX. 0; -EINVAL; -ENOMEM. */
int disk_share_create(struct disk *disk, uint32_t ports, struct disk_share **ret_share);
/* Ends with the share. disk_work() and disk_settle() of any port are those of the disk. */
struct disk *disk_share_port(struct disk_share *share, uint32_t port);
/* And the disk, as disk_destroy(). NULL is fine. */
void disk_share_destroy(struct disk_share *share);

#endif
