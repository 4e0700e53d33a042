/* SPDX-License-Identifier: Apache-2.0 */
/* Copies to and from guest memory that never wait: see dma.h. Tested in tests/virtio. */
#include "core/dma.h"

#include <string.h>

#include "core/limits.h"

static size_t in_page(uint64_t gpa, size_t length)
{
	size_t left = PAGE_BYTES - gpa % PAGE_BYTES;

	return length < left ? length : left;
}

int dma_read(struct dma *dma, uint64_t gpa, void *to, size_t length, size_t *done)
{
	while (*done < length) {
		size_t part = in_page(gpa + *done, length - *done);
		struct dma_span span = { .gpa = gpa + *done, .length = (uint32_t)part };
		void *hva;
		int error = dma_pin(dma, &span, 1, &hva);

		if (error < 0)
			return error;
		memcpy((uint8_t *)to + *done, hva, part);
		dma_unpin(dma, &span, 1);
		*done += part;
	}
	return 0;
}

int dma_write(struct dma *dma, uint64_t gpa, const void *from, size_t length, size_t *done)
{
	while (*done < length) {
		size_t part = in_page(gpa + *done, length - *done);
		struct dma_span span = { .gpa = gpa + *done,
					 .length = (uint32_t)part,
					 .write = true };
		void *hva;
		int error = dma_pin(dma, &span, 1, &hva);

		if (error < 0)
			return error;
		memcpy(hva, (const uint8_t *)from + *done, part);
		dma_unpin(dma, &span, 1);
		*done += part;
	}
	return 0;
}
