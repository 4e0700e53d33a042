/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's command line (contract: loader.h). Every word that a pod adds, and why:
 *
 *   console=ttyS0      the only console there is
 *   tsc=reliable       the TSC is the pod clock on every node: no watchdog, and no warp test, in
 * which two vCPUs would fight for one page for 20 ms each time a vCPU comes up tsc_early_khz= its
 * frequency, exactly: guests measure it against the PIT or the PM timer otherwise, which takes time
 * and is refused where an exit takes longer than 25 us no_timer_check     no test whether PIT
 * interrupts arrive (KVM guests do it so, too) reboot=p,panic_w   reset by port cf9: cold (0eh)
 * when the guest wants to, warm (06h) after a panic, which is how pc.c tells one from the other
 *   panic=-1           and do it at once
 *
 * The user's words come last, and win.
 */
#include "machine/loader.h"

#include <errno.h>
#include <stdio.h>

int loader_cmdline(const struct loader_cmdline_config *config, char *ret_line, size_t size)
{
	int length = snprintf(ret_line, size,
			      "console=ttyS0 tsc=reliable tsc_early_khz=%u no_timer_check "
			      "reboot=p,panic_w panic=-1%s%s%s",
			      config->tsc_khz, config->quiet ? " quiet" : "",
			      config->extra && *config->extra ? " " : "",
			      config->extra ? config->extra : "");

	return length < 0 || (size_t)length >= size || (size_t)length > LOADER_CMDLINE_MAX ? -E2BIG
											   : 0;
}
