/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of what is in the image of a guest's Linux kernel, by guest physical address: from its
 * System.map, or from /proc/kallsyms as root sees it in the guest, which look alike.
 *
 * The image is mapped at 0xffffffff80000000 from guest physical address 0 on, unless the kernel has
 * moved itself (KASLR): then the names are wrong, and the guest wants the word nokaslr.
 */
#ifndef CMD_GUEST_SYMBOLS_H
#define CMD_GUEST_SYMBOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct guest_symbols;

/* 0; or negative errno with a line for the user in ret_error. */
int guest_symbols_open(const char *path, struct guest_symbols **ret_symbols, char *ret_error,
		       size_t error_size);
void guest_symbols_free(struct guest_symbols *symbols); /* NULL is fine */

/* "symbol" or "symbol+0x1c", cut to fit; false: the image has nothing there. */
bool guest_symbols_name(const struct guest_symbols *symbols, uint64_t gpa, char *ret_name,
			size_t size);

#endif
