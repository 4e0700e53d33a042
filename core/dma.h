/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory as a device uses it: never waits.
 *
 *	pin(all spans) --> 0: use them in place --> unpin(the same spans)
 *	               \-> -EAGAIN: none is pinned; what is missing has been asked for
 *
 * Whoever gets -EAGAIN lets go of whatever it is in the middle of, remembers where it was, and
 * tries again once it is told that it is worth it. To be told, and by whom, is not of this
 * interface: pager/window.h has it for the nodes' io threads, and tests for plain arrays.
 *
 * Pure: two front halves of devices (virtio/) and their tests use it alike.
 */
#ifndef CORE_DMA_H
#define CORE_DMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* [gpa, gpa + length), which need not lie in one page; length > 0. */
struct dma_span {
	uint64_t gpa;
	uint32_t length;
	bool write; /* the device writes it */
};

struct dma;

struct dma_ops {
	/*
	 * All pages of all spans are here with the access they need and stay until the unpin: 0, and
	 * *ret_hva (an array) says where each span is, contiguous. Else nothing is pinned: -EAGAIN
	 * see above; -EFAULT: a span is not RAM, or has no length; -ENOBUFS: more pages than can be
	 * pinned at once, by themselves or beside those that are: use fewer, page by page if need be,
	 * or try again after an unpin. One page at a time is never too many.
	 */
	int (*pin)(struct dma *dma, const struct dma_span *span, uint32_t count, void **ret_hva);
	void (*unpin)(struct dma *dma, const struct dma_span *span, uint32_t count);
};

/* The beginning of whatever implements it. */
struct dma {
	const struct dma_ops *ops;
};

static inline int dma_pin(struct dma *dma, const struct dma_span *span, uint32_t count,
			  void **ret_hva)
{
	return dma->ops->pin(dma, span, count, ret_hva);
}

static inline void dma_unpin(struct dma *dma, const struct dma_span *span, uint32_t count)
{
	dma->ops->unpin(dma, span, count);
}

/*
 * Copies, page by page. *done bytes are done already, and raised: called again after -EAGAIN, it
 * goes on where it was. 0 when all is done; -EAGAIN; -EFAULT.
 */
int dma_read(struct dma *dma, uint64_t gpa, void *to, size_t length, size_t *done);
int dma_write(struct dma *dma, uint64_t gpa, const void *from, size_t length, size_t *done);

#endif
