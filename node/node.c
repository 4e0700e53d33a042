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
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "machine/loader.h"
#include "node/confine.h"
#include "node/deadline.h"
#include "node/io.h"
#include "node/node_state.h"
#include "node/placer.h"
#include "node/privileges.h"
#include "node/say.h"
#include "node/sponsor.h"
#include "node/status_socket.h"

#define LINK_SECONDS 60
#define LOADER_PORTS 1
/* As long as the others have patience with who joins, and a little more: their word comes first. */
#define JOIN_SECONDS 35
#define JOIN_TURN_MS 50

_Static_assert(NODE_VCPUS_MAX + LOADER_PORTS + PAGE_PAIR_PORTS <= PAGER_ACTORS_MAX,
	       "the pager serves all of them");
#define HOLD_WALKS_NS_MAX 10000000ull
#define REFETCH_WALKS	  48u
#define REASON_SECONDS	  2

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

void node_leave(struct node *node, const struct control_end *end)
{
	pthread_mutex_lock(&node->lock);
	node->leaves = node->leaves || !node->ended;
	pthread_mutex_unlock(&node->lock);
	node_end(node, end, false);
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
	uint32_t held = members_hold(node->members);
	struct control_channel *channel = node_channel(node, to);
	if (channel && control_send(channel, msg) == -ENOBUFS)
		mesh_down(node->mesh, to, -ENOBUFS, NULL);
	members_let_go(node->members, held);
}

size_t node_backlog(struct node *node, uint16_t to)
{
	uint32_t held = members_hold(node->members);
	struct control_channel *channel = node_channel(node, to);
	size_t bytes = channel ? control_backlog(channel) : 0;
	members_let_go(node->members, held);
	return bytes;
}

bool node_has_changed(const struct node *node)
{
	for (uint32_t n = 0; n < node->members->number_count; n++) {
		enum member_state state = members_state(node->members, n);
		if ((n < node->config->node_count) != (state == MEMBER_ACTIVE) ||
		    (state == MEMBER_ACTIVE && members_about(node->members, n)->token_expiry_s))
			return true;
	}
	return false;
}

/* A guest that falls so soon after its start would do so again, for ever. */
#define RESTART_LIFE_NS 2000000000ull

void node_guest_reset(struct node *node, const struct control_end *end)
{
	struct control_end again = *end;
	if (!members_seat_is_here(node->members, SEAT_LOADER)) {
		node_send_seat(node, SEAT_LOADER,
			       &(struct control_message){ .type = CONTROL_END, .end = *end });
		return;
	}
	/* It may come back from who was told so, or from another vCPU. */
	if (node_has_ended(node))
		return;
	/* A peer may say so of a guest that does not run. */
	if (node->options->guest->restarts && node_has_changed(node)) {
		snprintf(
			again.text, sizeof(again.text),
			"the guest reboots, which a pod that hosts have joined or left cannot yet: %.300s",
			end->text);
		node_end(node, &again, true);
		return;
	}
	if (!node->options->guest->restarts || !atomic_load(&node->run_ns) ||
	    (end->kind == CONTROL_END_TRIPLE_FAULT &&
	     node_now_ns(node) < node->run_ns + RESTART_LIFE_NS)) {
		node_end(node, end, true);
		return;
	}
	again.kind = CONTROL_END_RESTART;
	again.status = 0;
	node_say(node, "the guest reboots: %s", end->text);
	node_end(node, &again, true);
}

void node_told_end(struct node *node, const struct control_end *end)
{
	struct control_end told = *end;
	if (end->kind == CONTROL_END_RESTART && (members_seat_is_here(node->members, SEAT_LOADER) ||
						 atomic_load(&node->phase) < NODE_READY)) {
		told.kind = CONTROL_END_NODE_ERROR;
		told.status = 1;
	}
	node_end(node, &told, false);
}

void node_broadcast(struct node *node, const struct control_message *msg)
{
	members_for_each_other(node->members, n)
		if (members_ears(node->members, n) == EARS_ALL)
			node_send(node, n, msg);
}

static void on_progress(void *ctx, enum mesh_event event, uint16_t peer, const char *text)
{
	node_say(ctx, "%s%s", event == MESH_CONNECTED ? "linked with " : "", text);
}

static void on_link_down(void *ctx, uint16_t peer, const char *cause)
{
	steps_link_down(ctx, peer, cause);
}

static void on_linked(void *ctx, uint16_t peer)
{
	control_linked(ctx, peer);
}

static void on_pager_failed(void *ctx, uint16_t peer, int error, const char *cause)
{
	struct node *node = ctx;
	if (peer == NODE_NONE || peer == node->self)
		node_end_with(node, CONTROL_END_NODE_ERROR, 1, "node %u (%s): memory: %s",
			      node->self, members_name(node->members, node->self), cause);
	else
		control_link_failed(node, peer, cause);
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

static void on_peer_ended(void *ctx, const struct control_end *end)
{
	node_told_end(ctx, end);
}

static void on_asked(void *ctx, const struct token_name *token, struct control_channel *channel)
{
	sponsor_asked(ctx, token, channel);
}

/* Links with all. */
static int mesh_up(struct node *node, char *why, size_t why_size)
{
	const struct pod_config *config = node->config;
	uint16_t count = node->members->number_count;
	struct mesh_node *nodes = calloc(count, sizeof(*nodes));
	if (!nodes)
		return -ENOMEM;
	members_for_each(node->members, n) {
		const struct member_about *about = members_about(node->members, n);
		if (members_state(node->members, n) == MEMBER_GONE)
			continue;
		nodes[n] = (struct mesh_node){ .name = about->name, .address = about->address };
	}
	struct mesh_config mesh = {
		.pod_name = config->name,
		.self = node->self,
		.node_count = count,
		.node = nodes,
		.shard_count = (uint16_t)config->shard_count,
		.io = pod_config_has_io(config),
		.secret = config->secret,
		.secret_size = config->secret_size,
		.encrypt = pod_config_encrypts(config),
		.config_digest = pod_config_digest(config),
		.again = node->options->again,
		.timeout_ms = LINK_SECONDS * 1000,
		.progress = on_progress,
		.down = on_link_down,
		.linked = on_linked,
		.ended = on_peer_ended,
		.asked = node->sponsor ? on_asked : NULL,
		.date_s = sponsor_date_s,
		.join = node->options->joins ? node->options->joins->list.step : 0,
		.ctx = node,
	};
	const char *asked = pod_config_is_insecure(config) ? "insecure, as asked for: " : "";
	if (members_may_have_others(node->members) && !config->secret_size)
		node_say(node,
			 "%sthe pod has no secret: whoever reaches this node's port can take "
			 "part, and links are not encrypted; make one by 'eagre secret FILE', "
			 "and set secret_file in [pod]",
			 asked);
	else if (pod_config_is_insecure(config))
		node_say(node,
			 "%sencrypt = no: whoever can change packets between the nodes can read "
			 "and change the guest's memory",
			 asked);
	int r = mesh_create(&mesh, &node->mesh, why, why_size);
	free(nodes);
	if (!r)
		r = mesh_bring_up(node->mesh, node->ended_fd, why, why_size);
	return r;
}

static int link_up(struct node *node, char *why, size_t why_size)
{
	int r = pod_config_grows(node->config) && pod_config_encrypts(node->config)
			? sponsor_create(node)
			: 0;
	if (!r)
		r = mesh_up(node, why, why_size);
	return r ? r : control_start(node);
}

/* Early, since it may take a privilege. */
static int create_memory(struct node *node, char *why, size_t why_size)
{
	struct guest_memory_config memory = { .range_count = node->map.count,
					      .shard_count = node->config->shard_count };
	for (uint32_t i = 0; i < node->map.count; i++)
		memory.range[i] = (struct guest_memory_range){ .gpa = node->map.range[i].gpa,
							       .size = node->map.range[i].bytes };
	int r = guest_memory_create(&memory, &node->memory);
	if (r < 0)
		snprintf(why, why_size, "the guest's memory cannot be made: %s", strerror(-r));
	return r;
}

static int start_pager(struct node *node)
{
	const struct pod_config *config = node->config;
	int r;
	struct pager_config pager = {
		.memory = node->memory,
		.self = node->self,
		.node_count = node->members->number_count,
		.vcpu_count = node_seat_count(node),
		.port_count = LOADER_PORTS + PAGE_PAIR_PORTS,
		.capacity_bytes = node_own(node)->memory,
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
		.window_count = io_window_count(node),
		.window_ready = io_memory_ready,
		.arg = node,
	};
	steps_configure_pager(node, &pager);
	r = pager_create(&pager, &node->pager);
	/* From now on the end also ends waits for pages: the loader's. */
	pthread_mutex_lock(&node->lock);
	node->pages_wait = r == 0;
	if (!r && node->ended)
		r = -ESHUTDOWN;
	pthread_mutex_unlock(&node->lock);
	/* Who is GONE when this node joins has no links with it. */
	members_for_each_other(node->members, n)
		for (uint32_t s = 0; !r && mesh_control(node->mesh, n) && s < config->shard_count;
		     s++)
			r = pager_add_channel(node->pager, s,
					      mesh_pages(node->mesh, n, (uint16_t)s));
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
	if (node->options->engine->translates)
		r = confine_create(node->options->forbidden, &node->confine, why, why_size);
	if (r < 0)
		return r;
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
	if (node->options->joins || pod_config_vcpu_node(node->config, 0) != node->self)
		return;
	loader_first(node->entry, cpuid_xcr0(&node->start.cpuid), &state);
	vcpu_set_state(node_vcpu(node, 0), &state);
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

static char *on_request(void *ctx, const char *request)
{
	struct node *node = ctx;
	static const char move[] = "move ", torture[] = "torture ", policy[] = "policy ",
			  pin[] = "pin ", unpin[] = "unpin ", hints[] = "hints ",
			  shadow[] = "shadow ", steward[] = "steward ", drain[] = "drain ",
			  keep[] = "keep ", token[] = "token ";
	/* What its users want it would say to members for which it is none: a lie. */
	if (strchr(request, ' ') && atomic_load(&node->members->joins))
		return node_answer(false, "this node has not joined yet: try again");
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
	if (strcmp(request, STATUS_END) == 0)
		return stats_end(node);
	if (strncmp(request, pin, strlen(pin)) == 0)
		return policy_pin_request(node, request + strlen(pin), true);
	if (strncmp(request, unpin, strlen(unpin)) == 0)
		return policy_pin_request(node, request + strlen(unpin), false);
	if (strncmp(request, steward, strlen(steward)) == 0)
		return steps_steward_request(node, request + strlen(steward));
	if (strncmp(request, drain, strlen(drain)) == 0)
		return steps_drain_request(node, request + strlen(drain), true);
	if (strncmp(request, keep, strlen(keep)) == 0)
		return steps_drain_request(node, request + strlen(keep), false);
	if (strncmp(request, token, strlen(token)) == 0)
		return sponsor_token_request(node, request + strlen(token));
	return stats_pod(node);
}

/*
 * What cannot be opened or made is said here at once. The loader, who would wait for this one
 * in vain, hears of it when the links are up.
 */
static int tell_loader(struct node *node, int error, char *why, size_t why_size)
{
	char reason[512];
	int r;
	snprintf(reason, sizeof(reason), "%s", why[0] ? why : strerror(-error));
	node->options->warn(node->options->context, reason);
	node->warned = true;
	r = link_up(node, why, why_size);
	if (r == -ESHUTDOWN)
		return r;
	snprintf(why, why_size, "%s", reason);
	return error;
}

/* Looks at this host, opens what is its own, and then gives up its privileges. */
static int open_own(struct node *node, char *why, size_t why_size)
{
	struct node_clock_config clock = { .reference = members_seat_is_here(node->members,
									     SEAT_CLOCK) };
	int r = check_pod(node, why, why_size), opened = 0;
	if (!r)
		r = check_host(node->options, !node->options->all_here && !node->options->again,
			       &node->features, &node->map, why, why_size);
	if (!r)
		opened = io_open(node, why, why_size);
	if (!r && !opened)
		opened = create_memory(node, why, why_size);
	if (opened < 0 &&
	    (members_seat_is_here(node->members, SEAT_LOADER) || node->options->all_here))
		r = opened;
	if (!r && !opened)
		privileges_drop(node);
	if (!r)
		r = queues_create(node);
	clock.exact_rate = !node->features.tsc_scaling;
	clock.host_khz = node->features.tsc_khz;
	if (!r)
		r = node_clock_create(&clock, &node->clock);
	return !r && opened < 0 ? tell_loader(node, opened, why, why_size) : r;
}

static void say_what_it_has(struct node *node)
{
	if (node->options->engine_note[0])
		node_say(node, "%s", node->options->engine_note);
	if (members_may_have_others(node->members) && node->features.advice)
		node_say(node, "advice: %s", node->features.advice);
}

/* What the guest is made of, once the pod has agreed on it. */
static int make_guest(struct node *node, char *why, size_t why_size)
{
	node->high_window =
		memory_map_high_window(&node->map, cpuid_physical_bits(&node->start.cpuid));
	int r = moves_create(node);
	if (!r)
		r = policy_create(node, why, why_size);
	if (!r)
		r = start_pager(node);
	if (!r)
		r = create_engine(node, why, why_size);
	if (!r)
		r = create_vcpus(node, why, why_size);
	if (!r)
		r = io_start(node);
	if (!r && members_seat_is_here(node->members, SEAT_PC))
		r = first_create_devices(node);
	if (!r && members_seat_is_here(node->members, SEAT_LOADER))
		r = first_load_guest(node, why, why_size);
	if (!r && !node->options->joins)
		atomic_store(&node->vcpus_exist, true);
	return r;
}

static int open_status(struct node *node, char *why, size_t why_size)
{
	const char *pod = node->config->name, *name = members_name(node->members, node->self);
	int r = stats_create(node);
	if (!r)
		r = status_socket_open(pod, name, on_request, node, &node->status);
	if (r == -EADDRINUSE)
		snprintf(why, why_size, "a node '%s' of a pod '%s' runs on this host already", name,
			 pod);
	else if (r == -EPERM)
		snprintf(
			why, why_size,
			"the folder of status sockets belongs to somebody else, or others may write "
			"to it: set XDG_RUNTIME_DIR to one of your own");
	else if (r < 0)
		snprintf(why, why_size, "the status socket cannot be made: %s", strerror(-r));
	return r;
}

/* Until all know this node as a member. */
static int wait_until_member(struct node *node, char *why, size_t why_size)
{
	for (uint32_t ms = 0; ms < JOIN_SECONDS * 1000; ms += JOIN_TURN_MS) {
		/* It may be on its way out already. */
		if (members_state(node->members, node->self) != MEMBER_JOINING)
			return 0;
		if (node_has_ended(node))
			return -ESHUTDOWN;
		usleep(JOIN_TURN_MS * 1000);
	}
	snprintf(why, why_size, "the pod has not taken this node in within %d s", JOIN_SECONDS);
	return -ETIMEDOUT;
}

/*
 * The same where the guest runs already, and what it is made of has been told (join.c): so all that a
 * member may say to this node is known how to be taken when the first word is read.
 */
static int bring_up_joiner(struct node *node, char *why, size_t why_size)
{
	const struct node_joins *joins = node->options->joins;
	why[0] = '\0';
	int r = open_own(node, why, why_size);
	if (r < 0)
		return r;
	say_what_it_has(node);
	node->start = joins->start;
	node->entry = joins->run.entry;
	r = io_take(node, &node->start.devices, why, why_size);
	if (!r)
		r = mesh_up(node, why, why_size);
	if (!r)
		r = make_guest(node, why, why_size);
	if (!r)
		r = open_status(node, why, why_size);
	if (r < 0)
		return r;
	atomic_store(&node->run_ns, joins->run.start_ns);
	atomic_store(&node->phase, NODE_RUNNING);
	r = control_start(node);
	if (!r)
		r = start_clock(node, why, why_size);
	if (!r)
		r = start_vcpus(node);
	atomic_store(&node->vcpus_exist, true);
	if (!r)
		r = policy_start(node);
	if (r < 0)
		return r;
	atomic_store(&node->joined, true);
	control_wake(node);
	return wait_until_member(node, why, why_size);
}

/* Everything up to running vCPUs. */
static int bring_up(struct node *node, char *why, size_t why_size)
{
	why[0] = '\0';
	int r = open_own(node, why, why_size);
	if (r < 0)
		return r;
	say_what_it_has(node);
	r = link_up(node, why, why_size);
	if (!r)
		r = start_agree(node, why, why_size);
	if (!r)
		r = make_guest(node, why, why_size);
	if (!r)
		r = open_status(node, why, why_size);
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
	if (!node->mesh || node->leaves)
		return;
	/* Who it is about comes last: the others shall not see its end before the reason. */
	bool held = control_hold(node);
	mesh_tell(node->mesh, &msg, node->end.node == node->self ? NODE_NONE : node->end.node);
	if (held)
		control_let_go(node);
}

/* What the process's exit status and last line are. */
static void judge_end(struct node *node, struct node_result *result)
{
	const struct control_end *end = &node->end;
	result->status = end->status;
	result->restart = end->kind == CONTROL_END_RESTART;
	if (node->leaves) {
		snprintf(result->line, sizeof(result->line), "%s", end->text);
		return;
	}
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
	bool held = control_hold(node);
	mesh_shutdown(node->mesh);
	if (held)
		control_let_go(node);
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
	int created = options->joins ? members_create_joiner(&options->joins->list, node->self,
							     &node->members)
				     : members_create(node->config, node->self, &node->members);
	if (created < 0) {
		free(node);
		return -ENOMEM;
	}
	pthread_mutex_init(&node->lock, NULL);
	pthread_cond_init(&node->changed, NULL);
	node->ended_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int r = node->ended_fd < 0 ? -errno : 0;
	privileges_begin();
	if (node->config->secret_size)
		privileges_hide();
	if (!r)
		r = signals_take(node);
	if (!r)
		r = say_create(options->say, options->context, &node->say);
	if (!r)
		r = options->joins ? bring_up_joiner(node, why, sizeof(why))
				   : bring_up(node, why, sizeof(why));
	if (r == 0 && options->joins) {
		node_say(node, "this node is a member of the pod now, which has %u",
			 members_count(node->members));
		wait_for_end(node);
	} else if (r == 0) {
		node_say(node, "the guest runs: %u vCPUs and %lluM on %u nodes",
			 node->config->vcpu_count, (unsigned long long)(node->config->memory >> 20),
			 members_count(node->members));
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
			      node->self, members_name(node->members, node->self),
			      why[0] ? why : strerror(-r));
	close_down(node);
	policy_end(node);
	io_end(node);
	say_close(node->say, SAY_FLUSH_MS);
	if (failed && !node->warned)
		snprintf(ret_result->line, sizeof(ret_result->line), "%s",
			 why[0] ? why : strerror(-r));
	else if (!failed)
		judge_end(node, ret_result);
	return r;
}
