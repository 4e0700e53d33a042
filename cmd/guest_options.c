/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Turning file names and a command into a guest (guest_options.h).
 *
 * Files are mapped, not read: a kernel and an initrd are many megabytes and are copied into guest
 * memory anyway. With a command the initrd is copied once, the command's archive behind it.
 */
#include "cmd/guest_options.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "guest/archive.h"

void guest_options_usage(FILE *to)
{
	fputs("The guest:\n"
	      "  --kernel FILE    a Linux kernel (bzImage), unmodified\n"
	      "  --initrd FILE    its initramfs; guest/mkinitramfs makes one\n"
	      "  --append TEXT    more of the kernel's command line\n"
	      "  --log FILE       what the kernel says on its console, where the console is not shown\n"
	      "  --no-reboot      a guest that reboots ends the pod; without, it begins anew, but for COMMAND's\n"
	      "  --power-off-time SECONDS\n"
	      "                   SIGTERM presses the guest's power button, and ends the pod if the guest has\n"
	      "                   not powered off by then (60); a second one ends it at once\n"
	      "  --no-console     do not connect the guest's console to this terminal\n"
	      "  -- COMMAND...    run this in the guest, print its output, exit with its status\n"
	      "  --engine ENGINE  kvm (hardware virtualization), soft (translation), or auto: the best\n"
	      "                   that this host has; all nodes of a pod need the same\n",
	      to);
}

static int seconds_take(const char *value, uint32_t *ret_seconds)
{
	char *end;
	errno = 0;
	long seconds = strtol(value, &end, 10);
	if (errno || end == value || *end || seconds < 1 || seconds > 86400) {
		complain("--power-off-time %s: must be a number of seconds from 1 to 86400", value);
		return -EINVAL;
	}
	*ret_seconds = (uint32_t)seconds;
	return 0;
}

int guest_options_take(struct guest_options *options, int option, const char *value)
{
	switch (option) {
	case OPTION_KERNEL:
		options->kernel = value;
		break;
	case OPTION_INITRD:
		options->initrd = value;
		break;
	case OPTION_APPEND:
		options->append = value;
		break;
	case OPTION_LOG:
		options->log = value;
		break;
	case OPTION_NO_CONSOLE:
		options->no_console = true;
		break;
	case OPTION_ENGINE:
		options->engine = value;
		break;
	case OPTION_NO_REBOOT:
		options->no_reboot = true;
		break;
	case OPTION_POWER_OFF:
		return seconds_take(value, &options->power_off_s);
	}
	return 0;
}

static int file_map(const char *what, const char *path, struct node_file *ret_file)
{
	struct stat st;
	int r = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO would block */
	if (fd < 0 || fstat(fd, &st) < 0) {
		r = -errno;
		complain("%s %s: %s", what, path, strerror(-r));
		goto out;
	}
	if (!S_ISREG(st.st_mode) || !st.st_size) {
		r = -EINVAL;
		complain("%s %s: %s", what, path,
			 S_ISREG(st.st_mode) ? "is empty" : "is not a file");
		goto out;
	}
	void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED) {
		r = -errno;
		complain("%s %s: %s", what, path, strerror(-r));
		goto out;
	}
	*ret_file = (struct node_file){ .name = path, .data = data, .size = (size_t)st.st_size };
out:
	if (fd >= 0)
		close(fd);
	return r;
}

static int command_append(const struct guest_options *options, struct node_file *initrd)
{
	size_t padding = guest_archive_padding(initrd->size);
	uint8_t *whole = malloc(initrd->size + padding + GUEST_ARCHIVE_SIZE_MAX);
	if (!whole)
		return -ENOMEM;
	memcpy(whole, initrd->data, initrd->size);
	memset(whole + initrd->size, 0, padding);
	size_t used = initrd->size + padding;
	ssize_t size = guest_command_archive((size_t)options->command_count, options->command,
					     whole + used, GUEST_ARCHIVE_SIZE_MAX);
	if (size < 0) {
		complain("the command is too long: at most %d words and %d bytes",
			 GUEST_COMMAND_ARGS_MAX, GUEST_COMMAND_BYTES_MAX);
		free(whole);
		return (int)size;
	}
	initrd->data = whole;
	initrd->size = used + (size_t)size;
	return 0;
}

int guest_options_open(const struct guest_options *options, struct node_guest *ret_guest)
{
	struct node_guest guest = { .append = options->append, .log = options->log, .log_fd = -1 };
	if (!options->kernel) {
		complain(
			options->run_disk
				? "no kernel: give --kernel FILE; ./run --disk starts a disk by the kernel on it"
				: "no kernel: give --kernel FILE (guest/fetch brings Debian's)");
		return -EINVAL;
	}
	int r = file_map("kernel", options->kernel, &guest.kernel);
	if (r < 0)
		return r;
	if (options->initrd) {
		r = file_map("initrd", options->initrd, &guest.initrd);
		if (r < 0)
			return r;
	}
	guest.restarts = !options->no_reboot && !options->command_count;
	guest.console = options->no_console ? CONSOLE_NONE : CONSOLE_TERMINAL;
	if (options->command_count) {
		if (!options->initrd) {
			complain("a command needs an initrd that runs it: give --initrd FILE "
				 "(guest/mkinitramfs makes one)");
			return -EINVAL;
		}
		guest.console = CONSOLE_COMMAND;
		guest.quiet = true;
		r = command_append(options, &guest.initrd);
		if (r < 0)
			return r;
	}
	if (options->log) {
		/* Not blocked by a FIFO that nobody reads: that is ENXIO. */
		guest.log_fd = open(options->log,
				    O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK |
					    (options->again ? O_APPEND : O_TRUNC),
				    0644);
		if (guest.log_fd < 0) {
			r = -errno;
			complain("log %s: %s", options->log,
				 r == -ENXIO ? "nobody reads from this FIFO" : strerror(-r));
			return r;
		}
	}
	*ret_guest = guest;
	return 0;
}

const struct engine_ops *const engines[ENGINE_COUNT] = { &engine_kvm, &engine_soft };

static const struct engine_ops *best_engine(char *ret_note, size_t note_size)
{
	struct engine_features *features = malloc(sizeof(*features));
	char why[512] = "no memory";
	int r = features ? engine_kvm.probe(features, why, sizeof(why)) : -ENOMEM;

	free(features);
	/* The remedies behind the last colon are for who wants kvm. */
	if (r < 0 && strrchr(why, ':'))
		*strrchr(why, ':') = '\0';
	if (r == 0)
		snprintf(ret_note, note_size, "engine kvm: this host has hardware virtualization");
	else
		snprintf(ret_note, note_size, "engine soft, not kvm: %s", why);
	return r == 0 ? &engine_kvm : &engine_soft;
}

const struct engine_ops *engine_choose(const char *name, char *ret_note, size_t note_size)
{
	ret_note[0] = '\0';
	if (!name || strcmp(name, "auto") == 0)
		return best_engine(ret_note, note_size);
	for (size_t i = 0; i < ENGINE_COUNT; i++)
		if (strcmp(name, engines[i]->name) == 0)
			return engines[i];
	complain("there is no engine '%s'; there are auto, kvm and soft", name);
	return NULL;
}
