/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One page of `eagre top`: what a pod did between two answers of `eagre status --json`.
 *
 * Pure: everything is in the arguments.
 */
#ifndef CMD_TOP_FRAME_H
#define CMD_TOP_FRAME_H

#include <jansson.h>
#include <stdbool.h>

#include "cmd/guest_symbols.h"

enum top_sort { TOP_BY_NUMBER, TOP_BY_RUNNING, TOP_BY_STALLED, TOP_BY_MOVES };

struct top_view {
	unsigned int width, height; /* of the page, 0: as wide, as high as it gets */
	enum top_sort sort;	    /* of vCPUs, most first */
	bool styled;	       /* headings are reversed, by escape sequences that take no room */
	const char *last_line; /* at the bottom of the page; may be NULL */
	const struct guest_symbols *symbols; /* may be NULL */
};

/*
 * malloc'd lines, each with its '\n'; NULL: no memory. `before` may be NULL: then what takes two
 * answers is "-", as is what an answer does not have, and what has fallen since (another pod has
 * taken that one's place). ASCII, whatever the answers have in them.
 */
char *top_frame(const json_t *before, const json_t *now, const struct top_view *view);

#endif
