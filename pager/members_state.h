/* SPDX-License-Identifier: Apache-2.0 */
/* Members between the thread that has the list and the shards' threads. Private to pager/: members.c
 * has both sides. */
#ifndef PAGER_MEMBERS_STATE_H
#define PAGER_MEMBERS_STATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/limits.h"
#include "pager/members.h"

/* The list's thread's own. */
struct pager_members {
	enum member_state state[NODES_MAX];
	bool was_linked[NODES_MAX]; /* in its present life */
	bool unlinking[NODES_MAX];  /* PAGER_UNLINK was posted in it */
	bool releasing;
	/* Commands are numbered: how many there were, the last step, and the last of RELEASE, CANCEL. */
	uint64_t posted, step, release;
};

/* What a shard says, in one word: (commands taken) * 16 + these. */
#define SAYS_DONE     1u
#define SAYS_READY    2u
#define SAYS_RELEASED 4u
#define SAYS_FLUSHED  8u
#define SAYS_SHIFT    4u

struct shard_members {
	/* The shard's thread's own. */
	bool changing; /* a command has come, or this node joins: else there is nothing to say */
	bool releasing;
	uint64_t taken;
	uint16_t going; /* its GONE is not done here; NODE_NONE: that is nobody's */
	bool due;	/* a channel has ended, or is to be unlinked */
	enum member_state state[NODES_MAX];
	bool was_active[NODES_MAX];	/* in its present life */
	bool ended[NODES_MAX];		/* its channel, and that was told */
	bool unlinking[NODES_MAX];	/* when it ends, or now */
	uint64_t cut_at_ns[NODES_MAX];	/* of whose end is awaited: when it is made; monotonic */
	uint64_t cut_ns;		/* the first of these; UINT64_MAX: there is none */
	struct page_channel_stats past; /* of channels that were unlinked */

	/* Shared. */
	atomic_bool *linked;   /* by node. Set by the list's thread, cleared by the shard */
	_Atomic uint64_t says; /* by the shard, for pager_member_done() and its like */
};

struct shard;
struct pager_command;

/* When the shard is made, its core told of nothing yet. 0 or -errno. */
int shard_members_init(struct shard *shard);
void shard_members_fini(struct shard *shard);
/* The shard's thread. It begins: the channels of who joins stand. */
void shard_members_begin(struct shard *shard);
/* PAGER_MEMBER to PAGER_CANCEL. */
void shard_member_command(struct shard *shard, const struct pager_command *command);
/* `node`'s channel has this error. False: it is a failure, as it is a member's. */
bool shard_link_ended(struct shard *shard, uint16_t node, int error, const char *cause);
/* Channels that have ended. True: the protocol was told, and there may be more to send. */
bool shard_members_step(struct shard *shard);
void shard_members_say(struct shard *shard);

struct pager_config;
/* Whether the config's sets fit, and what they say. */
bool pager_members_valid(const struct pager_config *config);
void pager_members_init(struct pager *pager);
/* Whom a channel is needed to, at the start. */
bool pager_members_needs(const struct pager *pager, uint16_t node);

#endif
