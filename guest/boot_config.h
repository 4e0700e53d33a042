/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a disk's own boot loader would start: GRUB's configuration (grub.cfg, as grub-mkconfig writes it, with
 * grubenv's saved entry) and Boot Loader Specification entries, which are small files of one kernel each
 * (Fedora's blscfg, systemd-boot). Pure: files are read by the caller.
 *
 * GRUB's configuration is a program in a language like the shell's. It is run from its first line to its last:
 * variables, quoting, if with tests, menu entries in submenus, load_env, blscfg. Functions, loops and commands
 * about graphics, keys and modules are passed over. What a menu entry would do when it is chosen is done at once,
 * so that what it says of kernel and initrd is known; only the default entry's is used.
 *
 * Left out: sourcing of other files; next_entry (an entry for one boot only): nothing is written to the disk, so it
 * would be for all; devices: a path is looked for where the configuration is (boot_entry's paths have none).
 */
#ifndef GUEST_BOOT_CONFIG_H
#define GUEST_BOOT_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#define BOOT_PATH_MAX	 256u
#define BOOT_OPTIONS_MAX 2048u
#define BOOT_TITLE_MAX	 128u
#define BOOT_INITRDS_MAX 4u
#define BOOT_FILE_MAX	 (256u << 10)

/* A file system that holds a configuration. Paths are absolute in it. */
struct boot_files {
	/* The file's bytes, at most `size`, or negative errno. */
	long (*read)(void *ctx, const char *path, char *ret_bytes, size_t size);
	/* The name of the folder's file number `index`, any order; false: there are no more. */
	bool (*list)(void *ctx, const char *folder, unsigned int index, char *ret_name,
		     size_t size);
	void *ctx;
};

struct boot_entry {
	char title[BOOT_TITLE_MAX];
	char kernel[BOOT_PATH_MAX];
	char initrd[BOOT_INITRDS_MAX][BOOT_PATH_MAX];
	unsigned int initrd_count;
	char options[BOOT_OPTIONS_MAX]; /* the kernel's command line */
	char from[BOOT_PATH_MAX];	/* the file that says so */
};

/*
 * The entry that boots by default. 0; -ENOENT: there is no configuration on this file system; -EINVAL: there is
 * one, but it starts no Linux, or is too much for the bounds above, and `why` is a line about it. -ENOMEM.
 */
int boot_config_find(const struct boot_files *files, struct boot_entry *ret_entry, char *why,
		     size_t why_size);

#endif
