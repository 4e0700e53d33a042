/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a server has said is written and was not yet told to flush: a copy of it, so that it can be
 * written again, in order, to a server that came back without it (nbd.c).
 *
 *	first              mark of a flush under way               end
 *	  | done, unflushed | done since that flush was sent         |  reserved: under way
 *	  '-----------------'----------------------------------------'
 *	   gone when that flush is done
 *
 * Records are numbered in the order in which they were done, from 0 on, and go in that order. A flush
 * covers what was done before it was sent, so unflushed_end() of that moment is its mark. Memory is of
 * a fixed size: what is to be written reserves its room before it is sent, and waits where there is none.
 *
 * Pure, and one thread's.
 */
#ifndef BACKEND_UNFLUSHED_H
#define BACKEND_UNFLUSHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "backend/disk.h"

#define UNFLUSHED_BYTES	   (32u << 20) /* of data */
#define UNFLUSHED_RECORDS  8192u
#define UNFLUSHED_TOGETHER 64u /* records of one batch */

_Static_assert(UNFLUSHED_BYTES >= 2 * DISK_BYTES_MAX, "room, while no more than half is used");

struct unflushed;

struct unflushed_record {
	enum disk_op op; /* WRITE, DISCARD, ZERO */
	bool unmap;
	uint64_t offset, length;
	struct iovec data[2]; /* WRITE: until the record is gone */
	uint32_t data_count;
};

/* 0 or -ENOMEM; memory that was never used costs nothing. */
int unflushed_create(struct unflushed **ret_unflushed);
/* NULL is fine. */
void unflushed_destroy(struct unflushed *u);
/* What one keeps resident at most. */
size_t unflushed_kept_bytes(void);

/*
 * Room for a WRITE, DISCARD or ZERO that is about to be sent. false: there is none until a flush is
 * done; unflushed_wants_flush() says so, at the latest when nothing is reserved any more.
 */
bool unflushed_reserve(struct unflushed *u, const struct disk_request *request);
/* It was not done: the room is given back. */
void unflushed_release(struct unflushed *u, const struct disk_request *request);
/* It was done: the last record, in the room that was reserved for it. */
void unflushed_add(struct unflushed *u, const struct disk_request *request);

/* Numbers: of the first record, and of the next one to come; equal: there is none. */
uint64_t unflushed_first(const struct unflushed *u);
uint64_t unflushed_end(const struct unflushed *u);
/* A flush with this mark is done: records before it are gone. Older marks than others' are fine. */
void unflushed_flushed(struct unflushed *u, uint64_t mark);
/* More than half is used: whoever flushes now keeps others from waiting. */
bool unflushed_wants_flush(const struct unflushed *u);

/* first <= number < end */
void unflushed_get(const struct unflushed *u, uint64_t number, struct unflushed_record *ret_record);
/*
 * How many records from this one on may be written again at once, as none of them overlaps another,
 * UNFLUSHED_TOGETHER at most; 0: this is the end.
 */
uint32_t unflushed_batch(const struct unflushed *u, uint64_t number);

#endif
