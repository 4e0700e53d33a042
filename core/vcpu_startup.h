/* SPDX-License-Identifier: Apache-2.0 */
/*
 * INIT and start-up IPIs (SIPI) to vCPUs that move: in the order in which they were sent. Pure.
 *
 * A vCPU ignores a SIPI unless it waits for one, so one that comes before its INIT is lost, and the
 * guest's CPU never starts. Other interrupts have no such order. But messages to a vCPU that moves
 * overtake each other: the first is sent after it over the nodes that it was on, the second goes
 * straight to where it is now, and the sender may itself have moved in between.
 *
 * So all of them go through one node, and one at a time to each vCPU:
 *
 *      vCPU s on any node                node 0                             where v is
 *        ICR write: INIT to v ------> waits for its turn; none is out:
 *        (as a device access,  <----- INIT ------------------------------> inbox of v (forwarded
 *        answered at once)                                                  after v, if v has left)
 *        ICR write: SIPI to v ------> waits: INIT is out
 *                              <-----
 *                                     INIT has come to v   <-------------- TAKEN
 *                                     SIPI -----------------------------> ...
 *
 * The sender waits for node 0, as for any device, and never for v or its move; it does not leave
 * before the answer, so what it sends next from elsewhere is behind. What waits for its turn is kept
 * as a local APIC keeps it (lapic_inbox): an INIT takes back an earlier SIPI, a SIPI replaces one.
 *
 * TAKEN is said when nothing that is sent afterwards can come to the vCPU's APIC before it:
 *   - it is in the inbox and the place, read after that, is HERE. Its thread drains the inbox before
 *     the vCPU can leave, into the APIC that leaves. Or
 *   - it was in the inbox while the vCPU came or went (the node owes an answer), and the place is HERE
 *     again; or
 *   - the node owes an answer, the vCPU has left, and what it owes for is not in the inbox: so it is in
 *     the state that left.
 * If the vCPU is away, the message goes on, and the next node owes the answer. Under the vCPU's lock
 * (core/vcpu_place.h), on the node that the message came to, node 0 itself included:
 *
 *   who has the message  [lock: owe(); post to the inbox; route(): WAKE: if pay(), say TAKEN, and wake;
 *                         LEAVE_IT: nothing; FORWARD: forward the inbox :unlock]
 *   who forwards v's inbox, in its lock: for an INIT or SIPI that it takes out pay(), saying nothing;
 *                         then, if pay(), say TAKEN
 *   the seat's thread, behind here() and stay(): if pay(), say TAKEN
 *
 * Threads: owe() and pay() as above. The rest is node 0's, under the vCPU's lock.
 * Tested in tests/core/test_vcpu_startup.c, in the simulator (tests/sim/moves), and by models/move.pml.
 */
#ifndef CORE_VCPU_STARTUP_H
#define CORE_VCPU_STARTUP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* One a vCPU, on every node: zeroed, it owes nothing. */
struct vcpu_startup_debt {
	_Atomic bool owed;
};

void vcpu_startup_owe(struct vcpu_startup_debt *debt);
/* True: it was owed. */
bool vcpu_startup_pay(struct vcpu_startup_debt *debt);

/* One a vCPU, on node 0: zeroed, nothing waits and nothing is out. */
struct vcpu_startup {
	bool out;	   /* one is on its way */
	bool init, sipi;   /* wait behind it; the SIPI behind the INIT */
	uint8_t sipi_page; /* its vector */
};

struct vcpu_startup_ipi {
	uint8_t mode; /* INTERRUPT_INIT, INTERRUPT_SIPI */
	uint8_t vector;
};

/*
 * An INIT or a SIPI has come to its turn behind all others before it. True: *ret_ipi is to be sent to
 * the vCPU now. (-> it is out.)
 */
bool vcpu_startup_post(struct vcpu_startup *startup, uint8_t mode, uint8_t vector,
		       struct vcpu_startup_ipi *ret_ipi);
/*
 * TAKEN. 1: *ret_ipi is to be sent next; 0: nothing waits; -EPROTO: nothing was out. Then somebody
 * has lied, but not always who says it: who sends INIT to a vCPU past node 0 has its node say TAKEN.
 */
int vcpu_startup_taken(struct vcpu_startup *startup, struct vcpu_startup_ipi *ret_ipi);

#endif
