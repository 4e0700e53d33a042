/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Giving up what a node does not need (privileges.h).
 *
 * A node that root starts has all capabilities, and needs hardly any: to open userfaultfd, taps, and
 * files that are not its user's. All that is opened early (node.c). But a guest that reboots has the
 * node begin anew, by the same command line, and as what it is then; and some files are opened now and
 * then. So it is tried what can be had without capabilities; what cannot keeps the one that it takes,
 * and the user is told. Where `eagre run` starts the nodes it starts them again itself, and keeps
 * its capabilities for that.
 *
 * How nice a thread may be is a limit, not a capability, once it is raised.
 *
 * Left out: to become another user; the bounding set, which is of no use to who may get nothing new
 * (PR_SET_NO_NEW_PRIVS).
 *
 * Tested by tests/node/test_privileges.c and tests/pod/privileges.
 */
#include "node/privileges.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/capabilities.h"
#include "backend/tap.h"
#include "memory/uffd_probe.h"
#include "node/node_state.h"

#define PORTS_FREE_DEFAULT 1024u

void privileges_begin(void)
{
	(void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

void privileges_hide(void)
{
	const char *open = getenv("EAGRE_DUMPABLE");
	if (!open || strcmp(open, "1") != 0)
		(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

struct drop {
	struct node *node;
	uint64_t held, kept;
};

__attribute__((format(printf, 4, 5))) static void keep(struct drop *d, int capability,
						       const char *name, const char *format, ...)
{
	char why[PATH_MAX + 128];
	va_list args;
	if (!(d->held & CAPABILITY(capability)) || (d->kept & CAPABILITY(capability)))
		return;
	d->kept |= CAPABILITY(capability);
	va_start(args, format);
	vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	if (!d->node->options->again)
		node_say(d->node, "%s is kept: %s", name, why);
}

/* With no capability in force. What is not there at all is for who opens it to say. */
static void keep_for_file(struct drop *d, const char *path, int mode)
{
	if (!path || !path[0] || faccessat(AT_FDCWD, path, mode, AT_EACCESS) == 0 ||
	    (errno != EACCES && errno != EPERM))
		return;
	keep(d, CAP_DAC_OVERRIDE, "CAP_DAC_OVERRIDE",
	     "without it this node's user could not open %s again", path);
}

static void keep_for_folder_of(struct drop *d, const char *path)
{
	char folder[PATH_MAX];
	const char *slash = strrchr(path, '/');
	if (!path[0])
		return;
	if (slash)
		snprintf(folder, sizeof(folder), "%.*s", slash == path ? 1 : (int)(slash - path),
			 path);
	keep_for_file(d, slash ? folder : ".", W_OK | X_OK);
}

/* A file that is written anew now and then, beside the old one, and keeps its owner (policy_state.h). */
static void keep_for_state(struct drop *d, const char *path)
{
	char real[PATH_MAX];
	struct stat st;
	keep_for_file(d, path, R_OK);
	keep_for_folder_of(d, path[0] && realpath(path, real) ? real : path);
	if (!path[0])
		return;
	if (stat(path, &st) < 0 ? errno != EACCES
				: st.st_uid == geteuid() && st.st_gid == getegid())
		return;
	keep(d, CAP_CHOWN, "CAP_CHOWN",
	     "%s is, or may be, another user's, and stays so when it is written", path);
	keep(d, CAP_FOWNER, "CAP_FOWNER",
	     "%s is, or may be, another user's, and is replaced now and then", path);
}

static uint32_t first_free_port(void)
{
	uint32_t port = PORTS_FREE_DEFAULT;
	FILE *file = fopen("/proc/sys/net/ipv4/ip_unprivileged_port_start", "re");
	if (file && fscanf(file, "%u", &port) != 1)
		port = PORTS_FREE_DEFAULT;
	if (file)
		fclose(file);
	return port;
}

static void keep_for_port(struct drop *d, unsigned long port)
{
	if (port < first_free_port())
		keep(d, CAP_NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE", "port %lu takes it", port);
}

/* Links come up when this is over. */
static void keep_for_links(struct drop *d)
{
	const char *colon = strrchr(node_own(d->node)->address, ':');
	if (members_may_have_others(d->node->members) && colon)
		keep_for_port(d, strtoul(colon + 1, NULL, 10));
}

/* What the guest pings goes out by a socket of ICMP's, or else by a raw one (libslirp). */
static void keep_for_pings(struct drop *d)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, IPPROTO_ICMP);
	if (fd >= 0)
		close(fd);
	else if (errno == EACCES)
		keep(d, CAP_NET_RAW, "CAP_NET_RAW",
		     "the guest's pings take it here; the sysctl net.ipv4.ping_group_range would do");
}

/* What this process opens while the guest runs. */
static void keep_for_now(struct drop *d)
{
	const struct node_options *options = d->node->options;
	const struct pod_config *config = d->node->config;
	keep_for_links(d);
	for (uint32_t i = 0; i < config->net_count; i++)
		if (config->net[i].node == d->node->self && config->net[i].user)
			keep_for_pings(d);
	if (!options->engine->translates)
		keep_for_file(d, "/dev/kvm", R_OK | W_OK);
	keep_for_state(d, config->policy_state);
}

static void keep_for_uffd(struct drop *d)
{
	int fd = uffd_open();
	if (fd >= 0)
		close(fd);
	else if (fd == -EPERM || fd == -EACCES)
		keep(d, CAP_SYS_PTRACE, "CAP_SYS_PTRACE",
		     "userfaultfd takes it when the guest reboots; access to /dev/userfaultfd would "
		     "do, or vm.unprivileged_userfaultfd=1");
}

static void keep_for_disk(struct drop *d, const struct disk_config *disk)
{
	const char *socket = strstr(disk->nbd, "socket=");
	char path[PATH_MAX];
	keep_for_file(d, disk->file, disk->read_only ? R_OK : R_OK | W_OK);
	if (!socket)
		return;
	socket += strlen("socket=");
	snprintf(path, sizeof(path), "%.*s", (int)strcspn(socket, "&"), socket);
	keep_for_file(d, path, R_OK | W_OK);
}

static void keep_for_net(struct drop *d, const struct net_config *net)
{
	if (net->tap[0] && tap_is_others(net->tap))
		keep(d, CAP_NET_ADMIN, "CAP_NET_ADMIN",
		     "tap %s is another user's, and is opened again when the guest reboots",
		     net->tap);
	if (net->bridge[0])
		keep(d, CAP_NET_ADMIN, "CAP_NET_ADMIN",
		     "tap %s is made, and joins %s, again when the guest reboots", net->tap,
		     net->bridge);
	for (uint32_t i = 0; i < net->forward_count; i++)
		keep_for_port(d, net->forward[i].host_port);
}

static void keep_for_devices(struct drop *d)
{
	const struct pod_config *config = d->node->config;
	for (uint32_t i = 0; i < config->disk_count; i++)
		if (config->disk[i].node == d->node->self)
			keep_for_disk(d, &config->disk[i]);
	for (uint32_t i = 0; i < config->net_count; i++)
		if (config->net[i].node == d->node->self)
			keep_for_net(d, &config->net[i]);
}

/* What the process opens that follows on this one. */
static void keep_for_reboot(struct drop *d)
{
	const struct node_options *options = d->node->options;
	keep_for_uffd(d);
	keep_for_devices(d);
	keep_for_file(d, options->config_path, R_OK);
	keep_for_file(d, options->config->secret_file, R_OK);
	if (!options->guest)
		return;
	keep_for_file(d, options->guest->kernel.name, R_OK);
	keep_for_file(d, options->guest->initrd.name, R_OK);
	keep_for_file(d, options->guest->log, W_OK);
}

/* So that the control thread may put itself before others, now and after a reboot. */
static void raise_nice(struct drop *d)
{
	const struct rlimit wanted = { .rlim_cur = CONTROL_NICE_LIMIT,
				       .rlim_max = CONTROL_NICE_LIMIT };
	struct rlimit now;
	if (!(d->held & CAPABILITY(CAP_SYS_NICE)) ||
	    (getrlimit(RLIMIT_NICE, &now) == 0 && now.rlim_cur >= CONTROL_NICE_LIMIT) ||
	    setrlimit(RLIMIT_NICE, &wanted) == 0)
		return;
	d->kept |= CAPABILITY(CAP_SYS_NICE); /* not worth a line */
}

void privileges_drop(struct node *node)
{
	struct drop d = { .node = node, .held = capabilities_held() };
	if (!d.held)
		return;
	raise_nice(&d);
	capabilities_set(0, d.held);
	keep_for_now(&d);
	if (node->options->config_path)
		keep_for_reboot(&d);
	capabilities_keep(d.kept);
}
