/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two pages of guest memory that stay here for a moment: what an engine asks for while it does a
 * locked instruction across them (struct engine_pages).
 *
 * Two ports have a page each. Were one page waited for while the other is pinned, two nodes, or a
 * node and an older actor that holds the second page and stalls on the first, could wait for each
 * other for ever (docs/protocol.md, "Hold and progress": who has a pin stalls on nothing). So
 * nothing is waited for: either both are here, or there is no pin. What brings both here, and lets
 * them stay long enough, are the stalls and holds of the vCPU that touches them, as for any other
 * instruction that needs two pages.
 */
#ifndef NODE_PAGE_PAIR_H
#define NODE_PAGE_PAIR_H

#include "engine/engine.h"
#include "pager/pager.h"

#define PAGE_PAIR_PORTS ENGINE_PAGES_MAX

struct page_pair {
	struct pager *pager;
	struct memory_port *port[PAGE_PAIR_PORTS];
};

/* 0, or as pager_open_port(). */
int page_pair_open(struct page_pair *pair, struct pager *pager);
void page_pair_close(struct page_pair *pair); /* fine on a zeroed one */
/* For engine_config.pages; it uses `pair` as long as the engine lives. */
struct engine_pages page_pair_pages(struct page_pair *pair);

#endif
