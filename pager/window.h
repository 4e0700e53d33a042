/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Windows: guest memory for an io thread, which never waits for it (core/dma.h).
 *
 * Where all pages are here, a pin takes no lock and no other thread: an atomic word a page
 * (memory/gate.h). Else the shards' threads ask for what is missing as for a stall, and who waits
 * keeps nothing meanwhile; so pins of many pages cannot deadlock. When they have come, `ready` of
 * the pager's configuration is called, and pager_window_ready() says which windows it is for.
 *
 * All windows of a pager are used by one thread. A pinned page stays until the unpin: whoever wants
 * it waits, so let it be short.
 */
#ifndef PAGER_WINDOW_H
#define PAGER_WINDOW_H

#include <stdint.h>

#include "core/dma.h"

struct pager;

/* A window, to be used by the caller's one thread. NULL: none is left (pager_config.window_count),
 * as many as were asked for. */
struct dma *pager_window(struct pager *pager, uint32_t index);

/* The next window for which another try is worth it, by its index; UINT32_MAX: none. */
uint32_t pager_window_ready(struct pager *pager);

#endif
