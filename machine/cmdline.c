/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's command line (contract: loader.h): what a pod adds, word by word, and then the user's
 * words, which win. Tested in tests/machine/test_loader.c.
 */
#include "machine/loader.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *const words[] = {
	/* The only console there is. */
	"console=ttyS0",
	/*
	 * The TSC is the pod clock on every node: no watchdog, and no warp test, in which two vCPUs
	 * fight for one page for 20 ms whenever a vCPU comes up.
	 */
	"tsc=reliable",
	/*
	 * Do not measure the TSC once more against the PM timer: it is known exactly, and where an
	 * exit takes longer than 31 us, Linux tries for ever and stays without precise timers.
	 */
	"pmtmr=0",
	/* Do not test whether PIT interrupts arrive; Linux leaves that out as KVM's guest, too. */
	"no_timer_check",
	/*
	 * Reset by port cf9: cold (0eh) when the guest wants to, warm (06h) after a panic: then
	 * what its console said of it is told (node/devices.c).
	 */
	"reboot=p,panic_w",
	/* After a panic reset at once. */
	"panic=-1",
	/*
	 * No memory is moved about for huge pages that somebody might want: pages would go from node
	 * to node for it, and a thread wakes up twice a second.
	 */
	"sysctl.vm.compaction_proactiveness=0",
};

struct line {
	char *text;
	size_t size, used;
	int error;
};

static void add(struct line *line, const char *text)
{
	size_t length = strlen(text);
	size_t gap = line->used ? 1 : 0;

	if (line->error || length == 0)
		return;
	if (line->used + gap + length + 1 > line->size ||
	    line->used + gap + length > LOADER_CMDLINE_MAX) {
		line->error = -E2BIG;
		return;
	}
	if (gap)
		line->text[line->used++] = ' ';
	memcpy(line->text + line->used, text, length + 1);
	line->used += length;
}

int loader_cmdline(const struct loader_cmdline_config *config, char *ret_line, size_t size)
{
	struct line line = { .text = ret_line, .size = size };
	char frequency[40], late[64];

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		add(&line, words[i]);
	/*
	 * The TSC's frequency: guests measure it against the PIT otherwise, which is slow, and
	 * fails where an exit takes longer than 25 us.
	 */
	snprintf(frequency, sizeof(frequency), "tsc_early_khz=%u", config->tsc_khz);
	add(&line, frequency);
	/*
	 * Where vCPUs stay on their nodes, the others come up when the guest's init says so
	 * (eagre.online, guest/init): booting is several times faster on one node alone, and much
	 * more where page tables cannot be shared.
	 * With one CPU Linux would take the lock prefixes out of its code, and put all of them back
	 * when the second one comes up, some ten thousand writes of code.
	 */
	if (config->boot_cpus) {
		snprintf(late, sizeof(late), "maxcpus=%u noreplace-smp eagre.online=1",
			 config->boot_cpus);
		add(&line, late);
	}
	/*
	 * Retpolines, returns through thunks and the like are jumps as others after translation:
	 * they cost a fifth of the kernel's time and guard nothing (docs/decisions.md).
	 */
	if (config->translated)
		add(&line, "mitigations=off");
	/*
	 * Linux would take pages away now and then to see who uses them, and copy them to his node.
	 * The pod sees that anyway, and moves them without.
	 */
	if (config->numa)
		add(&line, "numa_balancing=disable");
	if (config->quiet)
		add(&line, "quiet");
	if (config->extra)
		add(&line, config->extra);
	return line.error;
}

static bool has_word(const char *text, const char *word)
{
	size_t length = strlen(word);

	for (const char *at = strstr(text, word); at; at = strstr(at + 1, word)) {
		if ((at == text || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0'))
			return true;
	}
	return false;
}

const char *loader_cmdline_doubt(const char *extra)
{
	/* No machine whose APIC is locked in x2APIC mode can do without these. */
	static const struct {
		const char *word, *doubt;
	} doubts[] = {
		{ "acpi=off",
		  "'acpi=off' takes the tables away by which Linux knows the CPUs and this APIC: it "
		  "panics, 6.1 before it has a console" },
		{ "nolapic", "'nolapic' takes the only source of interrupts away: Linux panics" },
		{ "disableapic",
		  "'disableapic' takes the only source of interrupts away: Linux panics" },
	};

	for (size_t i = 0; extra && i < sizeof(doubts) / sizeof(doubts[0]); i++) {
		if (has_word(extra, doubts[i].word))
			return doubts[i].doubt;
	}
	return NULL;
}
