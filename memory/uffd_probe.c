/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Probing userfaultfd: try the real thing and translate what comes back into one line with a
 * remedy.
 *
 * The system call and /dev/userfaultfd (Linux 6.1) have separate permissions, so both are tried.
 * Kernel headers of the build machine may be older than the running kernel: what is newer than
 * Linux 6.1 is defined here. That a fault can be interrupted cannot be asked for, so the kernel's
 * version decides it. Tested in tests/memory/test_uffd_probe.c.
 */
#include "memory/uffd_probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "core/limits.h"
#include "memory/uffd_move.h"

/* linux/userfaultfd.h of 6.1 and later */
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

#define UFFD_FEATURES_NEEDED (UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_THREAD_ID)

static int explain(char *why, size_t why_size, int error, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

static int explain(char *why, size_t why_size, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (why_size > 0)
		vsnprintf(why, why_size, format, args);
	va_end(args);
	return error;
}

/* A descriptor that sees kernel-mode faults too, by whichever door is open. */
static int open_bare(void)
{
	long fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	int error, dev;

	if (fd >= 0)
		return (int)fd;
	error = -errno;
	if (error != -EPERM)
		return error;
	dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (dev < 0)
		return error;
	fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		fd = error;
	close(dev);
	return (int)fd;
}

/* Negotiates the API. -EOPNOTSUPP: it is too old. */
static int handshake(int fd, uint64_t *ret_features)
{
	/* The exact address is for statistics alone. A refused handshake may be tried again. */
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURES_NEEDED | UFFD_FEATURE_EXACT_ADDRESS };

	if (ioctl(fd, UFFDIO_API, &api) == 0) {
		*ret_features = api.features;
		return 0;
	}
	api = (struct uffdio_api){ .api = UFFD_API, .features = UFFD_FEATURES_NEEDED };
	if (ioctl(fd, UFFDIO_API, &api) < 0)
		return errno == EINVAL ? -EOPNOTSUPP : -errno;
	*ret_features = api.features;
	return 0;
}

int uffd_open(void)
{
	uint64_t features;
	int fd = open_bare();
	int error;

	if (fd < 0)
		return fd;
	error = handshake(fd, &features);
	if (error < 0) {
		close(fd);
		return error;
	}
	return fd;
}

static int explain_open(int error, char *why, size_t why_size)
{
	switch (error) {
	case -ENOSYS:
		return explain(why, why_size, error,
			       "userfaultfd: this kernel has none (CONFIG_USERFAULTFD, Linux 4.3): "
			       "use Linux 6.2 or later");
	case -EPERM:
	case -EACCES:
		return explain(
			why, why_size, error,
			"userfaultfd: no permission to see kernel-mode faults: run as root, or give "
			"CAP_SYS_PTRACE, or access to /dev/userfaultfd (Linux 6.1), or set "
			"vm.unprivileged_userfaultfd=1");
	case -EMFILE:
	case -ENFILE:
		return explain(why, why_size, error,
			       "userfaultfd: too many open files: raise the limit (ulimit -n)");
	default:
		return explain(why, why_size, error, "userfaultfd: cannot be opened: %s",
			       strerror(-error));
	}
}

/* What the kernel has when the needed features were refused: asked on a fresh descriptor. */
static int explain_features(char *why, size_t why_size)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = open_bare();
	uint64_t has = 0;

	if (fd >= 0) {
		if (ioctl(fd, UFFDIO_API, &api) == 0)
			has = api.features;
		close(fd);
	}
	if (!(has & UFFD_FEATURE_THREAD_ID))
		return explain(
			why, why_size, -EOPNOTSUPP,
			"userfaultfd: the faulting thread's id is missing (UFFD_FEATURE_THREAD_ID, "
			"Linux 4.14): use Linux 6.2 or later");
	return explain(why, why_size, -EOPNOTSUPP,
		       "userfaultfd: write protection is missing (UFFD_FEATURE_PAGEFAULT_FLAG_WP, "
		       "Linux 5.7): use Linux 6.2 or later");
}

/* Registers one page the way guest memory will be, and looks at what it may be asked. */
static int try_register(int fd, char *why, size_t why_size)
{
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING |
					       UFFDIO_REGISTER_MODE_WP };
	void *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int error = 0;

	if (page == MAP_FAILED)
		return explain(why, why_size, -errno, "memory: one page cannot be mapped: %s",
			       strerror(errno));
	reg.range.start = (uintptr_t)page;
	reg.range.len = PAGE_BYTES;
	if (ioctl(fd, UFFDIO_REGISTER, &reg) < 0)
		error = explain(
			why, why_size, -EOPNOTSUPP,
			"userfaultfd: anonymous memory cannot be registered for missing pages and write "
			"protection (CONFIG_HAVE_ARCH_USERFAULTFD_WP, Linux 5.7): use Linux 6.2 or later");
	else if (!(reg.ioctls & (1ull << _UFFDIO_WRITEPROTECT)))
		error = explain(
			why, why_size, -EOPNOTSUPP,
			"userfaultfd: UFFDIO_WRITEPROTECT is missing (Linux 5.7): use Linux 6.2 or later");
	munmap(page, PAGE_BYTES);
	return error;
}

static bool kernel_at_least(unsigned int major, unsigned int minor)
{
	struct utsname name;
	unsigned int has_major, has_minor;

	if (uname(&name) < 0 || sscanf(name.release, "%u.%u", &has_major, &has_minor) != 2)
		return false;
	return has_major > major || (has_major == major && has_minor >= minor);
}

int uffd_probe(struct uffd_probe *ret_probe, char *why, size_t why_size)
{
	uint64_t features = 0;
	int error;
	int fd = open_bare();

	if (fd < 0)
		return explain_open(fd, why, why_size);
	error = handshake(fd, &features);
	if (error == -EOPNOTSUPP) {
		close(fd);
		return explain_features(why, why_size);
	}
	if (error < 0) {
		close(fd);
		return explain(why, why_size, error, "userfaultfd: UFFDIO_API failed: %s",
			       strerror(-error));
	}
	error = try_register(fd, why, why_size);
	close(fd);
	if (error < 0)
		return error;
	ret_probe->interruptible = kernel_at_least(6, 2);
	ret_probe->move = (features & UFFD_FEATURE_MOVE) != 0;
	ret_probe->move_in_batches = ret_probe->move && kernel_at_least(6, 18);
	return 0;
}
