/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deliberate defects of the page protocol, chosen by coh_config.broken. They exist so that the
 * simulator's checker can be tested: each must be caught. Never set outside of tests.
 */
#ifndef CORE_COHERENCE_BROKEN_H
#define CORE_COHERENCE_BROKEN_H

enum coh_broken {
	COH_BROKEN_NONE = 0,
	COH_BROKEN_ACK_FORGOTTEN, /* a write begins before all invalidations are acknowledged */
	COH_BROKEN_INVALIDATE_SKIPPED, /* one sharer is not told of a write */
	COH_BROKEN_HOLD_IGNORED,       /* every taking is served at once */
	COH_BROKEN_STALE_HOME_SERVES,  /* a home goes on serving after it was handed on */
	COH_BROKEN_DROP_REQUESTED,     /* a copy is dropped while an upgrade of it is outstanding */
	COH_BROKEN_PUSH_UNASKED,       /* eviction pushes a page without the home's permission */
	COH_BROKEN_UPGRADE_BLIND,      /* an upgrade for a requester whose copy is gone */
	COH_BROKEN_KEEPER_DROPS,       /* eviction drops the last copy without a word */
	COH_BROKEN_OWNER_KEEPS_READ,   /* a write grant leaves the old owner a read-only copy */
	COH_BROKEN_OWNER_KEEPS_WRITE,  /* a read grant leaves the old owner's page writable */
	COH_BROKEN_WAITER_LOST,	       /* the queue behind a transaction loses its first waiter */
	COH_BROKEN_AGE_IGNORED,	       /* holds are kept whatever the age of who asks */
	COH_BROKEN_NUDGE_LOST,	       /* an older request behind a transaction is not announced */
	COH_BROKEN_DONE_EARLY,	 /* the home is told that a write is over before the acks came */
	COH_BROKEN_RUN_BLIND,	 /* a victim's neighbours leave with it, wanted and pinned or not */
	COH_BROKEN_FREE_UNASKED, /* a page becomes untouched although somebody has it */
	COH_BROKEN_FREE_TOGETHER, /* its keeper drops it while a sharer may refuse */
	COH_BROKEN_FREE_EARLY,	  /* who frees is told before the pages are gone */
	COH_BROKEN_FREE_PINNED,	  /* a page that is pinned, held or asked for is dropped */
	COH_BROKEN_ACTIVE_EARLY,  /* in the simulator's list: ACTIVE before all know the newcomer */
	COH_BROKEN_SLOT_EARLY,	  /* who gets a slot answers before all its entries have come */
	COH_BROKEN_VERSION_FORGOTTEN, /* of chunks whose home has gone */
	COH_BROKEN_FLUSH_LEFT_OUT,    /* a number is free while words that name it are under way */
	COH_BROKEN_SHARERS_UNMASKED,  /* who has gone is told to drop its copies */
	COH_BROKEN_CANCEL_HALF,	      /* who stays after all goes on to release */
	COH_BROKEN_COUNT,
};

#endif
