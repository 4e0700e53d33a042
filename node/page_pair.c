/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two pages that stay: see page_pair.h. Tested in tests/memory/test_page_pair.c and by
 * tests/guest/splitlock.c on pods.
 */
#include "node/page_pair.h"

#include <string.h>

int page_pair_open(struct page_pair *pair, struct pager *pager)
{
	int error = 0;

	*pair = (struct page_pair){ .pager = pager };
	for (uint32_t i = 0; error == 0 && i < PAGE_PAIR_PORTS; i++)
		error = pager_open_port(pager, &pair->port[i]);
	if (error < 0)
		page_pair_close(pair);
	return error;
}

void page_pair_close(struct page_pair *pair)
{
	for (uint32_t i = 0; i < PAGE_PAIR_PORTS; i++)
		if (pair->port[i])
			pager_close_port(pair->pager, pair->port[i]);
	memset(pair, 0, sizeof(*pair));
}

static void release(void *arg)
{
	struct page_pair *pair = arg;

	for (uint32_t i = 0; i < PAGE_PAIR_PORTS; i++)
		memory_release(pair->port[i]);
}

static int keep(void *arg, const uint64_t *gpa, uint32_t count)
{
	struct page_pair *pair = arg;
	int error = 0;

	for (uint32_t i = 0; error == 0 && i < count; i++) {
		size_t length = 1;
		void *hva;

		error = memory_acquire_here(pair->port[i], gpa[i], COH_WRITE, &hva, &length);
	}
	if (error < 0)
		release(pair);
	return error;
}

struct engine_pages page_pair_pages(struct page_pair *pair)
{
	return (struct engine_pages){ .keep = keep, .release = release, .arg = pair };
}
