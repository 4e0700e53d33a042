/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent: runs commands in an emulated host for `rack exec`.
 *
 * The host has a handful of virtio serial ports, each a unix socket outside. One process per port
 * serves one client after the other with a session (guest/session.h); so commands at the same
 * time need no multiplexing, and a client that is gone is seen at once: the port hangs up.
 *
 *      agent [PORT-PREFIX]      init starts it; it never returns
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/perf_event.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/session.h"

#define PORTS_MAX 32

struct port {
	char path[32];
	pid_t pid;
};

/*
 * A port without a client polls as hung up, for ever; edge-triggered, it tells once when that
 * changes (Linux, drivers/char/virtio_console.c).
 */
static int wait_for_client(int fd)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET };
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	int ret = 0;

	if (epoll < 0)
		return -errno;
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
		ret = -errno;
	while (ret == 0) {
		struct pollfd now = { .fd = fd, .events = POLLOUT };

		if (poll(&now, 1, 0) > 0 && !(now.revents & POLLHUP))
			break;
		if (epoll_wait(epoll, &event, 1, -1) < 0 && errno != EINTR)
			ret = -errno;
	}
	close(epoll);
	return ret;
}

/* Opening the port anew for every client throws away what the last one left unread. */
static int serve_port(const char *path)
{
	for (;;) {
		struct session_config config = { .window = SESSION_WINDOW_MAX };
		int ret;

		config.line = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		if (config.line < 0) {
			fprintf(stderr, "agent: %s: %s\n", path, strerror(errno));
			return 1;
		}
		ret = wait_for_client(config.line);
		if (ret == 0)
			ret = session_serve(&config);
		close(config.line);
		if (ret && ret != -ECONNRESET && ret != -EPROTO) {
			fprintf(stderr, "agent: %s: %s\n", path, strerror(-ret));
			return 1;
		}
	}
}

static int port_start(struct port *port)
{
	port->pid = fork();
	if (port->pid < 0)
		return -errno;
	if (port->pid == 0)
		_exit(serve_port(port->path));
	return 0;
}

static size_t find_ports(struct port *ports, const char *prefix)
{
	DIR *folder = opendir("/dev");
	struct dirent *entry;
	size_t count = 0;

	if (!folder)
		return 0;
	while ((entry = readdir(folder)) && count < PORTS_MAX) {
		if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
			continue;
		if (strlen(entry->d_name) + sizeof("/dev/") > sizeof(ports[0].path))
			continue;
		strcpy(ports[count].path, "/dev/");
		strcat(ports[count++].path, entry->d_name);
	}
	closedir(folder);
	return count;
}

/*
 * What is held for as long as the host lives. The first and the last of each make the kernel
 * rewrite the scheduler's code (static keys: preempt_notifier_key, perf_sched_events), and QEMU 7.2
 * loses such a write when another CPU translates that very code at the same time: the int3 that
 * stands there meanwhile stays for ever, and the host dies of it (docs/rack.md). So that happens
 * once, here, before there is any load.
 */
static void hold_vm(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0UL);

	if (vm < 0 || ioctl(vm, KVM_CREATE_VCPU, 0UL) < 0)
		fprintf(stderr, "agent: no VM to hold: %s\n", strerror(errno));
	if (kvm >= 0)
		close(kvm);
}

/* eagre opens such a one to learn the TSC's rate. */
static void hold_perf_event(void)
{
	struct perf_event_attr attr = { .type = PERF_TYPE_SOFTWARE,
					.size = sizeof(attr),
					.config = PERF_COUNT_SW_DUMMY };

	if (syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC) < 0)
		fprintf(stderr, "agent: no perf event to hold: %s\n", strerror(errno));
}

int main(int argc, char **argv)
{
	static struct port ports[PORTS_MAX];
	size_t count = find_ports(ports, argc > 1 ? argv[1] : "vport");

	if (!count) {
		fprintf(stderr, "agent: no virtio port in /dev\n");
		return 1;
	}
	hold_vm();
	hold_perf_event();
	for (size_t i = 0; i < count; i++) {
		if (port_start(&ports[i]))
			return 1;
	}
	for (;;) {
		pid_t ended = wait(NULL);

		for (size_t i = 0; ended > 0 && i < count; i++) {
			if (ports[i].pid == ended) {
				sleep(1);
				port_start(&ports[i]);
			}
		}
	}
}
