/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a pod has learned about its moves, kept in a file from one start to the next: --policy-state,
 * policy_state = (core/placement_learner.h has the text).
 *
 * A file that is not there is made at the first save. What is in one that makes no sense (another
 * version, cut off, no such text) is not used, and the file is left alone: it may be somebody's, or
 * that of another eagre. Saving replaces the file in one step, so nobody sees half of it; its mode
 * and owner stay, and what a symbolic link points to is replaced, not the link.
 *
 * Tested in tests/node/test_policy_state.c and tests/pod/policy.
 */
#ifndef NODE_POLICY_STATE_H
#define NODE_POLICY_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/placement.h"

/* The longest path. */
#define POLICY_STATE_PATH 512

/*
 * Can it be used, as far as that can be known before? 0, or negative errno and one line in `why`: the
 * path is none, or no file; it may not be read; or nothing may be made in its folder.
 */
int policy_state_check(const char *path, char *why, size_t why_size);

/*
 * 0; -ENOENT: there is no file; other errors with one line in `why`. text has
 * PLACEMENT_STATE_BYTES + 1, so that the length tells of what is too long.
 */
int policy_state_read(const char *path, char *text, size_t *ret_length, char *why, size_t why_size);
/*
 * 0, or negative errno: then the file is as it was. Whoever is killed meanwhile leaves it so, too, and
 * nothing beside it. sync: it is on the disk then.
 */
int policy_state_write(const char *path, const char *text, size_t length, bool sync);

struct placer;
struct policy_state;

/* One thread calls, at any time. */
struct policy_state_config {
	const char *path;
	struct placer *placer; /* borrowed; outlives this */
	bool reads_only;       /* somebody else saves it */
	uint32_t save_ms;      /* between saves */
	/* One line for the user: at the start, and when the file cannot be saved (once). */
	void (*say)(void *ctx, const char *line);
	void *ctx;
};

/* Gives the placer what is in the file. 0; -ENOMEM; what policy_state_check() has found, in `why`. */
int policy_state_open(const struct policy_state_config *config, struct policy_state **ret_state,
		      char *why, size_t why_size);
/* Saves, and ends. NULL is fine. */
void policy_state_close(struct policy_state *state);

#endif
