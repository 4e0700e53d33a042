/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one node has and no other: the guest's devices behind its console (the seat PC), and the
 * guest's kernel, which it loads into the pod's memory (the seat LOADER).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/placement.h"
#include "machine/loader.h"
#include "machine/numa.h"
#include "node/console.h"
#include "node/io.h"
#include "node/node_state.h"

#define HELLO_SECONDS	 60 /* an emulated host boots a guest in half of it */
#define LOAD_PIECE_BYTES 4096u

/* In pages, so that the control thread sees it go on with each: judge_load(). */
static int loader_write(void *ctx, uint64_t gpa, const void *data, size_t bytes)
{
	struct node *node = ctx;
	int r = 0;
	for (size_t done = 0, piece; !r && done < bytes; done += piece) {
		piece = bytes - done < LOAD_PIECE_BYTES ? bytes - done : LOAD_PIECE_BYTES;
		atomic_store(&node->loading_ns, node_clock_local_ns(node->clock));
		r = memory_write(node->loader_port, gpa + done, (const uint8_t *)data + done,
				 piece);
	}
	if (!r && node->options->engine->page_lost)
		node->options->engine->page_lost(node->engine, gpa, bytes);
	return r;
}

static size_t on_console_input(void *ctx, unsigned int port, const uint8_t *data, size_t size)
{
	struct node *node = ctx;
	if (!node->run_ns)
		return 0;
	return port == CONSOLE_VIRTIO ? io_streams_input(node, data, size)
				      : devices_input(node->devices, port, data, size);
}

static size_t on_console_break(void *ctx, unsigned int port)
{
	struct node *node = ctx;
	return node->run_ns ? devices_break(node->devices, port) : 0;
}

static void on_console_room(void *ctx, unsigned int port)
{
	struct node *node = ctx;
	if (port == CONSOLE_VIRTIO)
		io_streams_room(node);
	else
		devices_output_room(node->devices);
}

static void on_console_warn(void *ctx, const char *line)
{
	struct node *node = ctx;
	node->options->warn(node->options->context, line);
}

static void on_console_end(void *ctx, const char *text)
{
	struct control_end end = { .kind = CONTROL_END_USER,
				   .status = text ? 1 : 0,
				   .node = NODE_NONE,
				   .vcpu = NODE_NONE };
	snprintf(end.text, sizeof(end.text), "%s", text ? text : "ended from the console");
	node_end(ctx, &end, true);
}

int first_create_devices(struct node *node)
{
	const struct node_guest *guest = node->options->guest;
	struct console_config console = { .mode = guest->console,
					  .in_fd = STDIN_FILENO,
					  .out_fd = STDOUT_FILENO,
					  .err_fd = STDERR_FILENO,
					  .log_fd = guest->log_fd,
					  .hello_ms = HELLO_SECONDS * 1000,
					  .input = on_console_input,
					  .send_break = on_console_break,
					  .room = on_console_room,
					  .warn = on_console_warn,
					  .end = on_console_end,
					  .context = node };
	/* Devices write to the console from their first moment. */
	int r = console_open(&console, &node->console);
	return r ? r : devices_create(node);
}

static int build_numa(const struct node *node, struct numa_view *ret_view)
{
	const struct pod_config *config = node->config;
	static uint64_t weight[NODES_MAX];
	members_for_each(node->members, n)
		weight[n] = members_about(node->members, n)->promise_bytes;
	int r = numa_view_build(&node->map, weight, node->members->number_count, ret_view);
	ret_view->vcpu_count = config->vcpu_count;
	memcpy(ret_view->vcpu_node, config->vcpu_node, sizeof(ret_view->vcpu_node));
	return r;
}

/*
 * So many vCPUs Linux brings up by itself, 0: all. Where idle ones go to one node it boots there
 * anyway; where they stay, on the vCPUs of that node alone.
 */
static uint32_t boot_cpus(const struct node *node)
{
	if (!members_may_have_others(node->members) ||
	    (node_moves(node) && placement_policy_gathers(node->config->policy)))
		return 0;
	return node->config->node[pod_config_vcpu_node(node->config, 0)].vcpu_count;
}

int first_load_guest(struct node *node, char *why, size_t why_size)
{
	const struct node_guest *guest = node->options->guest;
	char cmdline[LOADER_CMDLINE_MAX + 1];
	struct loader_cmdline_config line = { .tsc_khz = node->start.tsc_khz,
					      .boot_cpus = boot_cpus(node),
					      .quiet = guest->quiet,
					      .translated = node->options->engine->translates,
					      .numa = node->config->numa,
					      .extra = guest->append };
	const char *doubt = loader_cmdline_doubt(guest->append);
	if (doubt)
		node_say(node, "the guest's command line: %s", doubt);
	if (loader_cmdline(&line, cmdline, sizeof(cmdline)) < 0) {
		snprintf(why, why_size, "the kernel's command line is too long: shorten --append");
		return -E2BIG;
	}
	static struct numa_view numa;
	int r = node->config->numa ? build_numa(node, &numa) : 0;
	if (r < 0) {
		snprintf(why, why_size, "the nodes' parts of memory: %s", strerror(-r));
		return r;
	}
	struct loader_config config = {
		.map = node->map,
		.numa = node->config->numa ? &numa : NULL,
		.high_window = node->high_window,
		.kernel = { guest->kernel.name, guest->kernel.data, guest->kernel.size },
		.initrd = { guest->initrd.name, guest->initrd.data, guest->initrd.size },
		.cmdline = cmdline,
		.vcpu_count = node->config->vcpu_count,
		.xcr0 = cpuid_xcr0(&node->start.cpuid),
		.write = loader_write,
		.ctx = node,
	};
	static struct vcpu_state bsp;
	struct loader_result result = { 0 };
	r = pager_open_port(node->pager, &node->loader_port);
	if (!r)
		r = loader_load(&config, &bsp, &result, why, why_size);
	atomic_store(&node->loading_ns, 0);
	if (node->loader_port)
		pager_close_port(node->pager, node->loader_port);
	node->entry = result.entry;
	if (r < 0 && !why[0])
		snprintf(why, why_size, "the guest cannot be loaded: %s", strerror(-r));
	return r;
}
