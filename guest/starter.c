/* SPDX-License-Identifier: Apache-2.0 */
/*
 * starter: the first process of the first-stage Linux that starts a disk by the kernel which lies on it.
 *
 *   starter [--last] FILESYSTEM...
 *
 * It mounts what there is of disks and partitions, read-only, looks for a boot loader's configuration
 * (boot_config.h), loads the kernel and the initrd that it names by kexec_file_load(), and jumps there: the guest then
 * runs its own kernel with its own command line, and nothing of this one is left. Any file system will do that this
 * kernel can read; a journal is replayed, as the disk's own kernel would do next.
 *
 * Returns where no disk has such a configuration. With --last that is said on the console, where node/devices.c finds
 * it, and the pod ends with that line.
 *
 * The command line is what this Linux got for being a pod's guest (machine/cmdline.c), then the disk's own words, which
 * win, and console=ttyS0, since there is no other. A disk that brings up the CPUs of other nodes later
 * (guest/mkimage) gets the words for that; others begin with all.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/reboot.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guest/boot_config.h"

#define DISKS_MAX      64u
#define NAME_BYTES     64u
#define CMDLINE_BYTES  4096u
#define LINE_BYTES     1024u
#define WAIT_TURNS     30u /* of a tenth of a second, for the first disk */
#define RESET_PORT     0xcf9
#define RESET_WARM     0x06
#define ONLINE_SERVICE "/etc/systemd/system/eagre-online.service"

struct disk {
	char name[NAME_BYTES]; /* of the device */
	char type[16];
	int fd; /* its root */
};

struct starter {
	struct disk disk[DISKS_MAX];
	unsigned int count, device_count;
	struct boot_entry entry;
	char why[LINE_BYTES];
};

static int open_in(int root, const char *path, uint64_t flags)
{
	struct open_how how = { .flags = flags | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT };
	int fd = (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
	return fd < 0 ? -errno : fd;
}

static long read_file(void *ctx, const char *path, char *ret_bytes, size_t size)
{
	const struct disk *disk = ctx;
	int fd = open_in(disk->fd, path, O_RDONLY);
	size_t used = 0;
	ssize_t got = 0;
	if (fd < 0)
		return fd;
	while (used < size && (got = read(fd, ret_bytes + used, size - used)) > 0)
		used += (size_t)got;
	close(fd);
	return got < 0 ? -EIO : (long)used;
}

static bool list_files(void *ctx, const char *folder, unsigned int index, char *ret_name,
		       size_t size)
{
	const struct disk *disk = ctx;
	int fd = open_in(disk->fd, folder, O_RDONLY | O_DIRECTORY);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *found = NULL;
	if (!dir) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	while ((found = readdir(dir)) && (found->d_name[0] == '.' || index-- > 0))
		;
	if (found)
		snprintf(ret_name, size, "%s", found->d_name);
	closedir(dir);
	return found;
}

/* ---- disks ------------------------------------------------------------------------------------ */

/*
 * Its journal is replayed; where that cannot be, since the disk is read-only, it is read as it is. Silent: that a disk
 * with partitions is no file system is nothing for the user's console.
 */
static int mount_as(const char *device, const char *folder, const char *type)
{
	const char *plain = strcmp(type, "ext4") == 0  ? "noload"
			    : strcmp(type, "xfs") == 0 ? "norecovery"
						       : NULL;
	if (mount(device, folder, type, MS_RDONLY | MS_SILENT, NULL) == 0)
		return 0;
	return plain && errno == EROFS ? mount(device, folder, type, MS_RDONLY | MS_SILENT, plain)
				       : -1;
}

static void try_disk(struct starter *s, const char *name, char **types)
{
	struct disk *disk = &s->disk[s->count];
	char device[2 * NAME_BYTES], folder[2 * NAME_BYTES];
	snprintf(device, sizeof(device), "/dev/%s", name);
	snprintf(folder, sizeof(folder), "/disks/%s", name);
	mkdir("/disks", 0700);
	mkdir(folder, 0700);
	for (; *types; types++) {
		if (mount_as(device, folder, *types) < 0)
			continue;
		snprintf(disk->name, sizeof(disk->name), "%s", name);
		snprintf(disk->type, sizeof(disk->type), "%s", *types);
		disk->fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		s->count += disk->fd >= 0;
		return;
	}
}

static void mount_disks(struct starter *s, char **types)
{
	char line[128], name[NAME_BYTES];
	unsigned long long kib;
	FILE *file = fopen("/proc/partitions", "re");
	while (file && fgets(line, sizeof(line), file) && s->count < DISKS_MAX) {
		if (sscanf(line, "%*u %*u %llu %63s", &kib, name) != 2 ||
		    strncmp(name, "ram", 3) == 0 || strncmp(name, "loop", 4) == 0)
			continue;
		s->device_count++;
		/* An extended partition of an MBR is 1 KiB, as Linux has it. */
		if (kib > 1)
			try_disk(s, name, types);
	}
	if (file)
		fclose(file);
}

static void unmount_disks(struct starter *s)
{
	char folder[2 * NAME_BYTES];
	for (unsigned int i = 0; i < s->count; i++) {
		close(s->disk[i].fd);
		snprintf(folder, sizeof(folder), "/disks/%s", s->disk[i].name);
		umount2(folder, MNT_DETACH);
	}
	s->count = 0;
}

/* ---- what is started -------------------------------------------------------------------------- */

/* From where the configuration is, or else from wherever there is such a file: /boot may be elsewhere. */
static int open_anywhere(struct starter *s, unsigned int at, const char *path)
{
	int fd = open_in(s->disk[at].fd, path, O_RDONLY);
	for (unsigned int i = 0; fd < 0 && i < s->count; i++)
		fd = open_in(s->disk[i].fd, path, O_RDONLY);
	if (fd < 0 && strncmp(path, "/boot/", 6) == 0)
		return open_anywhere(s, at, path + 5);
	return fd;
}

static int copy_all(int from, int to)
{
	static char bytes[1 << 16];
	ssize_t got;
	while ((got = read(from, bytes, sizeof(bytes))) > 0)
		if (write(to, bytes, (size_t)got) != got)
			return -EIO;
	return got < 0 ? -errno : 0;
}

/* Several are one behind the other, as boot loaders do. -1: none; below: what is missing is said. */
static int open_initrd(struct starter *s, unsigned int at)
{
	int all = -1;
	for (unsigned int i = 0; i < s->entry.initrd_count; i++) {
		int fd = open_anywhere(s, at, s->entry.initrd[i]);
		if (fd >= 0 && s->entry.initrd_count == 1)
			return fd;
		if (fd >= 0 && all < 0)
			all = memfd_create("initrd", MFD_CLOEXEC);
		if (fd < 0 || all < 0 || copy_all(fd, all) < 0) {
			snprintf(s->why, sizeof(s->why), "%s of %s (%s) cannot be read",
				 s->entry.initrd[i], s->disk[at].name, s->entry.from);
			return -2;
		}
		close(fd);
	}
	return all;
}

static bool brings_up_cpus(const struct starter *s)
{
	struct stat st;
	for (unsigned int i = 0; i < s->count; i++) {
		int fd = open_in(s->disk[i].fd, ONLINE_SERVICE, O_PATH);
		bool there = fd >= 0 && fstat(fd, &st) == 0;
		if (fd >= 0)
			close(fd);
		if (there)
			return true;
	}
	return false;
}

static void make_cmdline(const struct starter *s, char *line, size_t size)
{
	char own[CMDLINE_BYTES] = "", *rest = NULL;
	bool late = brings_up_cpus(s);
	size_t used = 0;
	FILE *file = fopen("/proc/cmdline", "re");
	if (file && !fgets(own, sizeof(own), file))
		own[0] = '\0';
	if (file)
		fclose(file);
	line[0] = '\0';
	for (char *word = strtok_r(own, " \n", &rest); word; word = strtok_r(NULL, " \n", &rest)) {
		bool of_late = strncmp(word, "maxcpus=", 8) == 0 ||
			       strncmp(word, "eagre.online=", 13) == 0;
		if (strcmp(word, "quiet") != 0 && (late || !of_late))
			used += (size_t)snprintf(line + used, size - used, "%s ", word);
	}
	snprintf(line + used, size - used, "%s console=ttyS0", s->entry.options);
}

/* Returns only if that cannot be. */
static void start(struct starter *s, unsigned int at)
{
	static char line[CMDLINE_BYTES + BOOT_OPTIONS_MAX + 64];
	int kernel = open_anywhere(s, at, s->entry.kernel), initrd;
	if (kernel < 0) {
		snprintf(s->why, sizeof(s->why), "%s, which %s of %s names, is not there",
			 s->entry.kernel, s->entry.from, s->disk[at].name);
		return;
	}
	initrd = open_initrd(s, at);
	if (initrd == -2)
		return;
	make_cmdline(s, line, sizeof(line));
	unsigned long flags = initrd < 0 ? 4ul /* KEXEC_FILE_NO_INITRAMFS */ : 0ul;
	if (syscall(SYS_kexec_file_load, kernel, initrd, strlen(line) + 1, line, flags) < 0) {
		snprintf(s->why, sizeof(s->why), "%s of %s cannot be loaded: %s", s->entry.kernel,
			 s->disk[at].name, strerror(errno));
		return;
	}
	printf("eagre: %s starts %s, %s\n", s->disk[at].name, s->entry.kernel, s->entry.title);
	fflush(stdout);
	unmount_disks(s);
	sync();
	syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_KEXEC, NULL);
	snprintf(s->why, sizeof(s->why), "kexec: %s", strerror(errno));
}

static void find_and_start(struct starter *s)
{
	for (unsigned int i = 0; i < s->count; i++) {
		struct boot_files files = { read_file, list_files, &s->disk[i] };
		char why[LINE_BYTES / 2] = "";
		int r = boot_config_find(&files, &s->entry, why, sizeof(why));
		if (r == 0)
			start(s, i);
		else if (r == -EINVAL)
			snprintf(s->why, sizeof(s->why), "%s: %s", s->disk[i].name, why);
	}
}

/* The pod ends with this line: node/devices.c. */
static void give_up(const struct starter *s)
{
	printf("\neagre: cannot start: %s\n", s->why);
	fflush(stdout);
	usleep(200000);
	if (ioperm(RESET_PORT, 1, 1) == 0)
		outb(RESET_WARM, RESET_PORT);
}

int main(int argc, char **argv)
{
	static struct starter s;
	bool last = argc > 1 && strcmp(argv[1], "--last") == 0;
	for (unsigned int turn = 0; turn < WAIT_TURNS && !s.device_count; turn++) {
		if (turn)
			usleep(100000);
		mount_disks(&s, argv + 1 + last);
	}
	if (!s.device_count)
		snprintf(s.why, sizeof(s.why), "there is no disk; give one with --disk");
	else if (!s.count)
		snprintf(s.why, sizeof(s.why),
			 "no disk has a file system that can be read; give --kernel and --initrd");
	else
		snprintf(
			s.why, sizeof(s.why),
			"no disk has a boot loader's configuration (grub.cfg, loader/entries); give --kernel and "
			"--initrd");
	find_and_start(&s);
	unmount_disks(&s);
	if (last)
		give_up(&s);
	return 1;
}
