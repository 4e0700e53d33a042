/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Members that come and go while the shards run: what the pager is told, and what it says to that.
 * The list of members and its steps are core/member_list.h's, what a shard does about each is
 * core/coherence_member.c's. One thread makes all these calls, the one that has the list; no call
 * waits, and pager_config.members_changed tells it to ask again.
 *
 *   it hears of a step      pager_member(); DONE is said when pager_member_done()
 *   JOINING x               pager_link() when all links with x stand, which is before ACTIVE x, as x
 *                           is not READY before; what x says is heard from ACTIVE x on
 *   GONE x                  pager_unlink(), for a joiner that failed at once, for a leaver when its
 *                           links end; the channels are nobody's when pager_linked() is false, and
 *                           FREE x is done only then
 *
 *   this node joins         pager_config.joins; it is READY when pager_member_ready()
 *   it drains               pager_release() when DRAINING is over; DRAINED when pager_released()
 *   it stays after all      pager_release_cancel() at ACTIVE
 *   it is GONE              it ends when GONE is over and pager_flushed()
 *
 * From pager_release() to pager_release_cancel() nobody touches guest memory here, and who joins
 * begins with that at ACTIVE.
 */
#ifndef PAGER_MEMBERS_H
#define PAGER_MEMBERS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/member_set.h"
#include "link/channel.h"

struct pager;

/*
 * A step: `node`, which may be this one, is `state` now. 0; -EINVAL: the last step is not done, or
 * this one does not follow (ACTIVE of a joiner that is not linked does not); -ESHUTDOWN: the pager
 * has failed, stops, or was interrupted.
 */
int pager_member(struct pager *pager, uint16_t node, enum member_state state);
/* All shards have done what the last step asks. */
bool pager_member_done(const struct pager *pager);

/*
 * The channels to a node that is JOINING, one a shard, in their order; borrowed until pager_linked()
 * is false. Once in a node's life here. 0; -EINVAL: no such joiner, it was linked already, or that
 * are not its channels; -ESHUTDOWN.
 */
int pager_link(struct pager *pager, struct page_channel *const *channel);
/*
 * A joiner, or one that is GONE, has no links any more: of who has been ACTIVE all is taken that
 * comes before its channels end, which is pager_config.unlink_ns later at most; of who has not nothing
 * is. 0, also for who is not linked; -EINVAL: it is a member; -ESHUTDOWN: only pager_stop() makes the
 * channels free.
 */
int pager_unlink(struct pager *pager, uint16_t node);
/* Some shard uses its channel. */
bool pager_linked(const struct pager *pager, uint16_t node);

/* This node joins, and its shards know what they must. */
bool pager_member_ready(const struct pager *pager);

/* This node will hold nothing any more. 0; -EINVAL: it is not DRAINING, or was told; -ESHUTDOWN. */
int pager_release(struct pager *pager);
bool pager_released(const struct pager *pager);
/* It is ACTIVE again. 0, also if nothing was to be released; -EINVAL: it is not; -ESHUTDOWN. */
int pager_release_cancel(struct pager *pager);
/* This node is GONE, nobody needs it any more, and all that it said has left it. */
bool pager_flushed(const struct pager *pager);

#endif
