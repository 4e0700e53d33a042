/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages that the guest needs no more, as a balloon says: they become untouched again where that is
 * easy (docs/protocol.md), so that no node keeps memory for them.
 *
 * One thread makes all calls but pager_free_allow(), the one that uses the windows (pager/window.h).
 */
#ifndef PAGER_FREE_H
#define PAGER_FREE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/dma.h"

/* Spans at a time. */
#define PAGER_FREE_RANGES 64u

struct pager;

/*
 * The guest needs the contents of these no more (whole pages in a span count, and none of one that is
 * not all RAM), and does not use them until pager_freed() says that
 * it is over: until then they may become zero at any moment. 0; -EINVAL: none, or too many;
 * -EBUSY: the last call's are not over. pager_config.window_ready is called when they are.
 */
int pager_free(struct pager *pager, const struct dma_span *span, uint32_t count);

/*
 * Whether pages are freed from now on, as they are at first; else what was begun is soon over, and the
 * rest of it is left as it is. Any thread.
 */
void pager_free_allow(struct pager *pager, bool allowed);

/* Whether what pager_free() began has come to its end since it was last asked. */
bool pager_freed(struct pager *pager);

#endif
