/* SPDX-License-Identifier: Apache-2.0 */
/* The order of INIT and SIPI to vCPUs that move: see vcpu_startup.h. */
#include "core/vcpu_startup.h"

#include <errno.h>

#include "core/interrupt_route.h"

void vcpu_startup_owe(struct vcpu_startup_debt *debt)
{
	atomic_store(&debt->owed, true);
}

bool vcpu_startup_pay(struct vcpu_startup_debt *debt)
{
	return atomic_exchange(&debt->owed, false);
}

static bool send_next(struct vcpu_startup *startup, struct vcpu_startup_ipi *ret_ipi)
{
	if (startup->out || (!startup->init && !startup->sipi))
		return false;
	startup->out = true;
	if (startup->init) {
		startup->init = false;
		*ret_ipi = (struct vcpu_startup_ipi){ .mode = INTERRUPT_INIT };
		return true;
	}
	startup->sipi = false;
	*ret_ipi =
		(struct vcpu_startup_ipi){ .mode = INTERRUPT_SIPI, .vector = startup->sipi_page };
	return true;
}

bool vcpu_startup_post(struct vcpu_startup *startup, uint8_t mode, uint8_t vector,
		       struct vcpu_startup_ipi *ret_ipi)
{
	if (mode == INTERRUPT_INIT) {
		startup->init = true;
		startup->sipi = false;
	} else {
		startup->sipi = true;
		startup->sipi_page = vector;
	}
	return send_next(startup, ret_ipi);
}

int vcpu_startup_taken(struct vcpu_startup *startup, struct vcpu_startup_ipi *ret_ipi)
{
	if (!startup->out)
		return -EPROTO;
	startup->out = false;
	return send_next(startup, ret_ipi);
}
