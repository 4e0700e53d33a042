/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node's life, in order (node.h); the other files of node/ are what it wires together.
 *
 * The end is one value, written once under the lock: the first reason that this node learns of. Who
 * learns of it from outside the pod (its guest, its link, its user) tells all others. Nothing is
 * torn down then: threads may be inside stalls that nobody will resolve, so the last words are said
 * and the process ends, which gives everything back.
 */
#include "node/node.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "machine/loader.h"
#include "machine/numa.h"
#include "memory/host_memory.h"
#include "memory/uffd_probe.h"
#include "node/deadline.h"
#include "node/node_state.h"
#include "node/placer.h"
#include "node/say.h"
#include "node/status_socket.h"

#define LINK_SECONDS 60
#define LOADER_PORTS 1

_Static_assert(NODE_VCPUS_MAX + LOADER_PORTS + PAGE_PAIR_PORTS <= PAGER_ACTORS_MAX,
	       "the pager serves all of them");
#define HELLO_SECONDS	  60 /* an emulated host boots a guest in half of it */
#define HOLD_WALKS_NS_MAX 10000000ull
#define REFETCH_WALKS	  48u
#define LOAD_PIECE_BYTES  4096u
#define REASON_SECONDS	  2
#define SAY_FLUSH_MS	  500u

void node_say(struct node *node, const char *format, ...)
{
	char line[512];
	va_list args;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	say_line(node->say, line);
}

bool node_has_ended(struct node *node)
{
	pthread_mutex_lock(&node->lock);
	bool ended = node->ended;
	pthread_mutex_unlock(&node->lock);
	return ended;
}

void node_end(struct node *node, const struct control_end *end, bool ours)
{
	pthread_mutex_lock(&node->lock);
	if (!node->ended) {
		node->end = *end;
		node->end_is_ours = ours;
		node->ended = true;
		eventfd_write(node->ended_fd, 1);
		pthread_cond_broadcast(&node->changed);
		if (node->pages_wait)
			pager_interrupt(node->pager);
	}
	pthread_mutex_unlock(&node->lock);
}

void node_end_with(struct node *node, enum control_end_kind kind, uint8_t status,
		   const char *format, ...)
{
	struct control_end end = {
		.kind = (uint8_t)kind, .status = status, .node = node->self, .vcpu = NODE_NONE
	};
	va_list args;
	va_start(args, format);
	vsnprintf(end.text, sizeof(end.text), format, args);
	va_end(args);
	node_end(node, &end, true);
}

/* A link that is down is for its reader to report, after the peer's last words (link/control.h). */
void node_send(struct node *node, uint16_t to, const struct control_message *msg)
{
	if (control_send(mesh_control(node->mesh, to), msg) == -ENOBUFS)
		mesh_down(node->mesh, to, -ENOBUFS, NULL);
}

void node_broadcast(struct node *node, const struct control_message *msg)
{
	for (uint32_t n = 0; n < node->config->node_count; n++)
		if (n != node->self)
			node_send(node, (uint16_t)n, msg);
}

static void on_progress(void *ctx, enum mesh_event event, uint16_t peer, const char *text)
{
	node_say(ctx, "%s%s", event == MESH_CONNECTED ? "linked with " : "", text);
}

static void on_link_down(void *ctx, uint16_t peer, const char *cause)
{
	struct control_end end = {
		.kind = CONTROL_END_NODE_LOST, .status = 1, .node = peer, .vcpu = NODE_NONE
	};
	snprintf(end.text, sizeof(end.text), "%s", cause);
	node_end(ctx, &end, true);
}

static void on_pager_failed(void *ctx, uint16_t peer, int error, const char *cause)
{
	struct node *node = ctx;
	if (peer == NODE_NONE || peer == node->self)
		node_end_with(node, CONTROL_END_NODE_ERROR, 1, "node %u (%s): memory: %s",
			      node->self, node->config->node[node->self].name, cause);
	else
		control_page_link_failed(node, peer, cause);
}

/* The pager runs before the engine exists: an engine that is not complete has no code yet. */
static void on_pages_lost(void *ctx, uint64_t gpa, uint64_t bytes)
{
	struct node *node = ctx;
	if (atomic_load_explicit(&node->engine_complete, memory_order_acquire))
		node->options->engine->page_lost(node->engine, gpa, bytes);
}

static void on_stalled(void *ctx, const struct pager_stall *stall)
{
	struct node *node = ctx;
	placer_stalled(node->placer, node_seat_first(node) + stall->actor, stall);
}

static uint64_t pager_now(void *ctx)
{
	return node_now_ns(ctx);
}

static int check_memory(const struct node_options *options, char *why, size_t why_size)
{
	const struct pod_config *config = options->config;
	struct host_memory memory;
	uint64_t promised = 0, mapped = 0;
	for (uint32_t n = 0; n < config->node_count; n++) {
		if (n != options->self && !options->all_here)
			continue;
		promised += config->node[n].memory +
			    mesh_kept_bytes(config->node_count, config->shard_count);
		mapped += config->memory;
	}
	host_memory_probe("", &memory);
	return host_memory_check(&memory, promised, mapped, why, why_size);
}

static int check(const struct node_options *options, struct engine_features *ret_features,
		 struct memory_map *ret_map, char *why, size_t why_size)
{
	uint64_t memory = options->config->memory;
	struct uffd_probe uffd;
	int r = 0;
	if (options->guest) {
		const struct node_file *file = &options->guest->kernel;
		struct loader_file kernel = { file->name, file->data, file->size };
		r = loader_check(&kernel, why, why_size);
	}
	if (!r)
		r = uffd_probe(&uffd, why, why_size);
	if (!r)
		r = check_memory(options, why, why_size);
	if (!r && options->config->policy_state[0])
		r = policy_state_check(options->config->policy_state, why, why_size);
	if (!r)
		r = options->engine->probe(ret_features, why, why_size);
	if (r < 0)
		return r;
	r = memory_map_build(memory, ret_map);
	if (r < 0)
		snprintf(why, why_size, "%lluM of guest memory cannot be laid out",
			 (unsigned long long)(memory >> 20));
	return r;
}

int node_check(const struct node_options *options, char *why, size_t why_size)
{
	static struct engine_features features;
	struct memory_map map;
	return check(options, &features, &map, why, why_size);
}

static void on_peer_ended(void *ctx, const struct control_end *end)
{
	node_end(ctx, end, false);
}

static int link_up(struct node *node, char *why, size_t why_size)
{
	const struct pod_config *config = node->config;
	struct mesh_node *nodes = calloc(config->node_count, sizeof(*nodes));
	if (!nodes)
		return -ENOMEM;
	for (uint32_t i = 0; i < config->node_count; i++)
		nodes[i] = (struct mesh_node){ .name = config->node[i].name,
					       .address = config->node[i].address };
	struct mesh_config mesh = {
		.pod_name = config->name,
		.self = node->self,
		.node_count = (uint16_t)config->node_count,
		.node = nodes,
		.shard_count = (uint16_t)config->shard_count,
		.secret = config->secret,
		.secret_size = config->secret_size,
		.config_digest = pod_config_digest(config),
		.timeout_ms = LINK_SECONDS * 1000,
		.progress = on_progress,
		.down = on_link_down,
		.ended = on_peer_ended,
		.ctx = node,
	};
	if (config->node_count > 1 && !config->secret_size)
		node_say(node, "the pod has no secret: whoever reaches this node's port can take "
			       "part; set secret or secret_file in [pod]");
	int r = mesh_create(&mesh, &node->mesh, why, why_size);
	free(nodes);
	if (!r)
		r = mesh_bring_up(node->mesh, node->ended_fd, why, why_size);
	if (!r)
		r = control_start(node);
	return r;
}

static int create_memory(struct node *node)
{
	const struct pod_config *config = node->config;
	struct guest_memory_config memory = { .range_count = node->map.count,
					      .shard_count = config->shard_count };
	for (uint32_t i = 0; i < node->map.count; i++)
		memory.range[i] = (struct guest_memory_range){ .gpa = node->map.range[i].gpa,
							       .size = node->map.range[i].bytes };
	int r = guest_memory_create(&memory, &node->memory);
	if (r < 0)
		return r;
	struct pager_config pager = {
		.memory = node->memory,
		.self = node->self,
		.node_count = (uint16_t)config->node_count,
		.vcpu_count = node_seat_count(node),
		.port_count = LOADER_PORTS + PAGE_PAIR_PORTS,
		.capacity_bytes = config->node[node->self].memory,
		/*
		 * Where page-table walks count as writes, page tables bounce with every walk, a
		 * dozen pages at once: they are fetched back together, and holds may grow to a few
		 * stalls. Longer ones make every hand-over between two nodes as long
		 * (docs/rack.md).
		 */
		.hold_ns_max = node->start.walks_write ? HOLD_WALKS_NS_MAX : 0,
		.refetch = node->start.walks_write ? REFETCH_WALKS : 0,
		.spin = config->spin ? PAGER_SPIN_AUTO : PAGER_SPIN_OFF,
		.now_ns = pager_now,
		.failed = on_pager_failed,
		.lost = node->options->engine->page_lost ? on_pages_lost : NULL,
		.stalled = node->placer ? on_stalled : NULL,
		.arg = node,
	};
	r = pager_create(&pager, &node->pager);
	/* From now on the end also ends waits for pages: the loader's. */
	pthread_mutex_lock(&node->lock);
	node->pages_wait = r == 0;
	if (!r && node->ended)
		r = -ESHUTDOWN;
	pthread_mutex_unlock(&node->lock);
	for (uint32_t n = 0; !r && n < config->node_count; n++)
		for (uint32_t s = 0; !r && n != node->self && s < config->shard_count; s++)
			r = pager_add_channel(node->pager, s,
					      mesh_pages(node->mesh, (uint16_t)n, (uint16_t)s));
	if (!r)
		r = pager_start(node->pager);
	if (!r)
		r = page_pair_open(&node->page_pair, node->pager);
	return r;
}

static int create_engine(struct node *node, char *why, size_t why_size)
{
	struct engine_config engine = { .vcpu_max = node_seat_count(node),
					.tsc_khz = node->start.tsc_khz,
					.cpuid = &node->start.cpuid,
					.pages = page_pair_pages(&node->page_pair) };
	int r = node->options->engine->create(&engine, &node->engine, why, why_size);
	for (uint32_t i = 0; !r && i < node->map.count; i++)
		r = node->options->engine->add_memory(
			node->engine, node->map.range[i].gpa,
			guest_memory_hva(node->memory, node->map.range[i].gpa),
			node->map.range[i].bytes);
	atomic_store_explicit(&node->engine_complete, r == 0, memory_order_release);
	node->tsc = (struct node_clock_tsc){ .epoch_ns = node->start.epoch_ns,
					     .guest_khz = node->start.tsc_khz,
					     .engine_ops = node->options->engine,
					     .engine = node->engine };
	if (!r)
		node_clock_tsc_start(node->clock, &node->tsc);
	if (!r)
		r = guest_io_create(node);
	if (r < 0 && !why[0])
		snprintf(why, why_size, "the engine cannot be made: %s", strerror(-r));
	return r;
}

static int create_vcpus(struct node *node, char *why, size_t why_size)
{
	uint32_t first = node_seat_first(node), count = node_seat_count(node);
	uint64_t xcr0 = cpuid_xcr0(&node->start.cpuid);
	struct vcpu_config config = {
		.engine_ops = node->options->engine,
		.engine = node->engine,
		.lapic = { .tsc_khz = node->start.tsc_khz,
			   .tsc_epoch_ns = node->start.epoch_ns,
			   .tsc_deadline = node->start.tsc_deadline },
		.ops = &guest_io_ops,
		.ctx = node,
	};
	static struct vcpu_state state;
	int r = 0;
	for (uint32_t v = first; !r && v < first + count; v++) {
		config.number = v;
		config.away = !node_has_vcpu(node, v);
		loader_secondary(v, xcr0, &state);
		r = vcpu_create(&config, &state, &node->vcpu[v]);
	}
	if (r < 0)
		snprintf(why, why_size, "vCPUs cannot be made: %s", strerror(-r));
	return r;
}

/*
 * vCPU 0 is on the first node that has vCPUs, which need not be the one that loads the guest: where
 * it begins is known since RUN. The others wait for its start-up IPIs.
 */
static void set_first_vcpu(struct node *node)
{
	static struct vcpu_state state;
	if (pod_config_vcpu_node(node->config, 0) != node->self)
		return;
	loader_first(node->entry, cpuid_xcr0(&node->start.cpuid), &state);
	vcpu_set_state(node_vcpu(node, 0), &state);
}

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
	return node->run_ns ? devices_input(node->devices, port, data, size) : 0;
}

static size_t on_console_break(void *ctx, unsigned int port)
{
	struct node *node = ctx;
	return node->run_ns ? devices_break(node->devices, port) : 0;
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

static int create_devices(struct node *node)
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
	for (uint32_t i = 0; i < config->node_count; i++)
		weight[i] = config->node[i].memory;
	int r = numa_view_build(&node->map, weight, config->node_count, ret_view);
	ret_view->vcpu_count = config->vcpu_count;
	memcpy(ret_view->vcpu_node, config->vcpu_node, sizeof(ret_view->vcpu_node));
	return r;
}

/* How many vCPUs the node of vCPU 0 has. */
static uint32_t first_vcpus(const struct node *node)
{
	return node->config->node[pod_config_vcpu_node(node->config, 0)].vcpu_count;
}

static int load_guest(struct node *node, char *why, size_t why_size)
{
	const struct node_guest *guest = node->options->guest;
	char cmdline[LOADER_CMDLINE_MAX + 1];
	bool late = node->config->node_count > 1;
	struct loader_cmdline_config line = { .tsc_khz = node->start.tsc_khz,
					      .boot_cpus = late ? first_vcpus(node) : 0,
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

static int start_vcpus(struct node *node)
{
	int r = 0;
	node_clock_tsc_start(node->clock, &node->tsc);
	for (uint32_t v = 0; !r && v < node->config->vcpu_count; v++)
		if (node->vcpu[v])
			r = vcpu_start(node->vcpu[v]);
	return r;
}

/* Before anything else, because it shows only when all the work of the start is done. */
static int check_names(const struct node *node, char *why, size_t why_size)
{
	const char *pod = node->config->name, *name = node->config->node[node->self].name;
	size_t excess = status_socket_excess(pod, name);
	char dir[64];
	if (!excess)
		return 0;
	status_socket_dir(dir, sizeof(dir));
	snprintf(why, why_size,
		 "pod '%s' and node '%s': their names are %zu bytes too long for a socket in %s: "
		 "give one of them a shorter name",
		 pod, name, excess, dir);
	return -ENAMETOOLONG;
}

static char *on_request(void *ctx, const char *request)
{
	struct node *node = ctx;
	static const char move[] = "move ", torture[] = "torture ", policy[] = "policy ",
			  pin[] = "pin ", unpin[] = "unpin ", hints[] = "hints ",
			  shadow[] = "shadow ";
	if (strncmp(request, move, strlen(move)) == 0)
		return moves_request(node, request + strlen(move));
	if (strncmp(request, torture, strlen(torture)) == 0)
		return torture_request(node, request + strlen(torture));
	if (strncmp(request, hints, strlen(hints)) == 0)
		return torture_hints_request(node, request + strlen(hints));
	if (strncmp(request, policy, strlen(policy)) == 0)
		return policy_request(node, request + strlen(policy));
	if (strncmp(request, shadow, strlen(shadow)) == 0)
		return policy_shadow_request(node, request + strlen(shadow));
	if (strcmp(request, "trace") == 0)
		return stats_trace(node);
	if (strncmp(request, pin, strlen(pin)) == 0)
		return policy_pin_request(node, request + strlen(pin), true);
	if (strncmp(request, unpin, strlen(unpin)) == 0)
		return policy_pin_request(node, request + strlen(unpin), false);
	return stats_pod(node);
}

/* Everything up to running vCPUs. */
static int bring_up(struct node *node, char *why, size_t why_size)
{
	why[0] = '\0';
	int r = check_names(node, why, why_size);
	if (!r)
		r = check(node->options, &node->features, &node->map, why, why_size);
	struct node_clock_config clock = { .reference = node->self == 0,
					   .exact_rate = !node->features.tsc_scaling,
					   .host_khz = node->features.tsc_khz };
	if (!r)
		r = node_clock_create(&clock, &node->clock);
	if (!r && node->options->engine_note[0])
		node_say(node, "%s", node->options->engine_note);
	if (!r && node->config->node_count > 1 && node->features.advice)
		node_say(node, "advice: %s", node->features.advice);
	if (!r)
		r = link_up(node, why, why_size);
	if (!r)
		r = start_agree(node, why, why_size);
	if (!r)
		r = moves_create(node);
	if (!r)
		r = policy_create(node, why, why_size);
	if (!r)
		r = create_memory(node);
	if (!r)
		r = create_engine(node, why, why_size);
	if (!r)
		r = create_vcpus(node, why, why_size);
	if (!r && node->self == 0)
		r = create_devices(node);
	if (!r && node->self == 0)
		r = load_guest(node, why, why_size);
	if (r < 0)
		return r;
	atomic_store(&node->vcpus_exist, true);
	r = stats_create(node);
	if (!r)
		r = status_socket_open(node->config->name, node->config->node[node->self].name,
				       on_request, node, &node->status);
	if (r == -EADDRINUSE)
		snprintf(why, why_size, "a node '%s' of a pod '%s' runs on this host already",
			 node->config->node[node->self].name, node->config->name);
	else if (r == -EPERM)
		snprintf(
			why, why_size,
			"the folder of status sockets belongs to somebody else, or others may write "
			"to it: set XDG_RUNTIME_DIR to one of your own");
	else if (r < 0)
		snprintf(why, why_size, "the status socket cannot be made: %s", strerror(-r));
	if (!r)
		r = start_ready(node, why, why_size);
	if (r < 0)
		return r;
	set_first_vcpu(node);
	r = start_vcpus(node);
	if (!r)
		r = policy_start(node);
	return r ? r : torture_start(node);
}

static const struct {
	int number;
	const char *name;
	bool may_be_ignored; /* by nohup, or by a shell for a job in the background */
} ending_signals[] = {
	{ SIGINT, "Ctrl-C", true },
	{ SIGQUIT, "SIGQUIT", true },
	{ SIGHUP, "SIGHUP", true },
	{ SIGTERM, "SIGTERM", false },
};

#define ENDING_SIGNALS (sizeof(ending_signals) / sizeof(ending_signals[0]))

/* What the process was started to ignore is left alone. */
static bool is_ignored(int number)
{
	struct sigaction action;
	return sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

static void signals_of_node(sigset_t *ret_set)
{
	sigemptyset(ret_set);
	sigaddset(ret_set, SIGWINCH);
	for (size_t i = 0; i < ENDING_SIGNALS; i++)
		if (!ending_signals[i].may_be_ignored || !is_ignored(ending_signals[i].number))
			sigaddset(ret_set, ending_signals[i].number);
}

static void *signal_thread(void *arg)
{
	struct node *node = arg;
	sigset_t set;
	int number;
	signals_of_node(&set);
	while (sigwait(&set, &number) == 0) {
		size_t i = 0;
		while (i < ENDING_SIGNALS && ending_signals[i].number != number)
			i++;
		/* Before RUN the console has not told the guest any size. */
		if (i < ENDING_SIGNALS)
			node_end_with(node, CONTROL_END_USER, (uint8_t)(128 + number),
				      "ended by %s on node %u (%s)", ending_signals[i].name,
				      node->self, node->config->node[node->self].name);
		else if (atomic_load(&node->run_ns) && node->console)
			console_resized(node->console);
	}
	return NULL;
}

/* One thread takes the signals that a node knows; all others, made later, inherit the mask. */
static int take_signals(struct node *node)
{
	sigset_t set;
	pthread_t thread;
	signals_of_node(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	int r = pthread_create(&thread, NULL, signal_thread, node);
	if (!r)
		pthread_detach(thread);
	return -r;
}

static void wait_for_end(struct node *node)
{
	pthread_mutex_lock(&node->lock);
	while (!node->ended)
		pthread_cond_wait(&node->changed, &node->lock);
	pthread_mutex_unlock(&node->lock);
}

static void wait_for_reason(struct node *node)
{
	struct timespec until = deadline_after_ms(REASON_SECONDS * 1000);
	pthread_mutex_lock(&node->lock);
	while (!node->ended)
		if (deadline_wait(&node->changed, &node->lock, &until) == ETIMEDOUT)
			break;
	pthread_mutex_unlock(&node->lock);
}

/*
 * Also when we were told: whoever sees our end before it has read the END from elsewhere would take
 * us for the cause.
 */
static void tell_end(struct node *node)
{
	struct control_message msg = { .type = CONTROL_END, .end = node->end };
	if (!node->mesh)
		return;
	/* Who it is about comes last: the others shall not see its end before the reason. */
	mesh_tell(node->mesh, &msg, node->end.node == node->self ? NODE_NONE : node->end.node);
}

/* What the process's exit status and last line are. */
static void judge_end(struct node *node, struct node_result *result)
{
	const struct control_end *end = &node->end;
	result->status = end->status;
	if (end->kind != CONTROL_END_POWER_OFF) {
		snprintf(result->line, sizeof(result->line), "the pod ended: %s", end->text);
		if (!result->status)
			result->line[0] = '\0';
		return;
	}
	if (!node->console)
		return;
	const char *failure = console_failure(node->console);
	if (failure) {
		result->status = 1;
		snprintf(result->line, sizeof(result->line), "the pod ended: %s", failure);
		return;
	}
	if (node->options->guest->console != CONSOLE_COMMAND)
		return;
	int status = console_exit_status(node->console);
	if (status >= 0) {
		result->status = status;
		return;
	}
	result->status = 1;
	snprintf(
		result->line, sizeof(result->line),
		"the guest powered off before its command had ended: see its console (--log FILE)");
}

/* The others are told first: what is left to do here may wait for a user. */
static void close_down(struct node *node)
{
	tell_end(node);
	status_socket_close(node->status);
	console_close(node->console);
	if (!node->mesh)
		return;
	mesh_shutdown(node->mesh);
	usleep(100000); /* the last words leave */
}

int node_run(const struct node_options *options, struct node_result *ret_result)
{
	char why[512] = "";
	struct node *node = calloc(1, sizeof(*node));
	if (!node)
		return -ENOMEM;
	node->options = options;
	node->config = options->config;
	node->self = options->self;
	pthread_mutex_init(&node->lock, NULL);
	pthread_cond_init(&node->changed, NULL);
	node->ended_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int r = node->ended_fd < 0 ? -errno : 0;
	if (!r)
		r = take_signals(node);
	if (!r)
		r = say_create(options->say, options->context, &node->say);
	if (!r)
		r = bring_up(node, why, sizeof(why));
	if (r == 0) {
		node_say(node, "the guest runs: %u vCPUs and %lluM on %u nodes",
			 node->config->vcpu_count, (unsigned long long)(node->config->memory >> 20),
			 node->config->node_count);
		wait_for_end(node);
	}
	/* Pages end when a page link does; why it did is learnt a moment later (control.c). */
	if (r == -ESHUTDOWN)
		wait_for_reason(node);
	/* A start that fails because the pod has ended fails for that reason, whatever it ran into.
	 */
	bool failed = r < 0 && !node_has_ended(node);
	if (failed)
		node_end_with(node, CONTROL_END_NODE_ERROR, 1, "node %u (%s) cannot start: %s",
			      node->self, node->config->node[node->self].name,
			      why[0] ? why : strerror(-r));
	close_down(node);
	policy_end(node);
	say_close(node->say, SAY_FLUSH_MS);
	if (failed)
		snprintf(ret_result->line, sizeof(ret_result->line), "%s",
			 why[0] ? why : strerror(-r));
	else
		judge_end(node, ret_result);
	return r;
}
