/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports: what devices and the loader see of guest memory. The waiting is behind the port's ops;
 * here are the bounds, the cutting into pages and the copying. Tested in
 * tests/memory/test_access.c.
 */
#include "memory/access.h"

#include <errno.h>
#include <string.h>

static int acquire(struct memory_port *port, uint64_t gpa, enum coh_access want, bool here,
		   void **ret_hva, size_t *length)
{
	void *hva = guest_memory_hva(port->memory, gpa);
	size_t in_page = PAGE_BYTES - gpa % PAGE_BYTES;
	int error;

	if (!hva)
		return -EFAULT;
	if (port->gpn != MEMORY_PORT_IDLE)
		return -EBUSY;
	error = here ? port->ops->pin_here(port, gpa >> PAGE_SHIFT, want)
		     : port->ops->pin(port, gpa >> PAGE_SHIFT, want);
	if (error < 0)
		return error;
	port->gpn = gpa >> PAGE_SHIFT;
	if (*length > in_page)
		*length = in_page;
	*ret_hva = hva;
	return 0;
}

int memory_acquire(struct memory_port *port, uint64_t gpa, enum coh_access want, void **ret_hva,
		   size_t *length)
{
	return acquire(port, gpa, want, false, ret_hva, length);
}

int memory_acquire_here(struct memory_port *port, uint64_t gpa, enum coh_access want,
			void **ret_hva, size_t *length)
{
	return acquire(port, gpa, want, true, ret_hva, length);
}

void memory_release(struct memory_port *port)
{
	if (port->gpn == MEMORY_PORT_IDLE)
		return;
	port->ops->unpin(port, port->gpn);
	port->gpn = MEMORY_PORT_IDLE;
}

enum transfer_kind { TRANSFER_READ, TRANSFER_WRITE };

struct transfer {
	enum transfer_kind kind;
	uint8_t *to;	     /* TRANSFER_READ */
	const uint8_t *from; /* TRANSFER_WRITE */
};

static void transfer_part(struct transfer *transfer, void *hva, size_t length)
{
	switch (transfer->kind) {
	case TRANSFER_READ:
		memcpy(transfer->to, hva, length);
		transfer->to += length;
		break;
	case TRANSFER_WRITE:
		memcpy(hva, transfer->from, length);
		transfer->from += length;
		break;
	}
}

static int transfer_all(struct memory_port *port, uint64_t gpa, uint64_t length,
			struct transfer *transfer)
{
	enum coh_access want = transfer->kind == TRANSFER_READ ? COH_READ : COH_WRITE;

	while (length > 0) {
		size_t part = length < PAGE_BYTES ? (size_t)length : PAGE_BYTES;
		void *hva;
		int error = memory_acquire(port, gpa, want, &hva, &part);

		if (error < 0)
			return error;
		transfer_part(transfer, hva, part);
		memory_release(port);
		gpa += part;
		length -= part;
	}
	return 0;
}

int memory_read(struct memory_port *port, uint64_t gpa, void *ret_data, size_t length)
{
	struct transfer transfer = { .kind = TRANSFER_READ, .to = ret_data };

	return transfer_all(port, gpa, length, &transfer);
}

int memory_write(struct memory_port *port, uint64_t gpa, const void *data, size_t length)
{
	struct transfer transfer = { .kind = TRANSFER_WRITE, .from = data };

	return transfer_all(port, gpa, length, &transfer);
}
