/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How nodes agree on what the guest will see, before anything runs.
 *
 *	others                the loader
 *	(the pod clock is known)
 *	FEATURES   ------->   folds all CPUs into the least common, checks TSC rates
 *	           <-------   START: CPUID, TSC rate, memory, epoch
 *	(memory, vCPUs)       (memory, vCPUs, guest loaded)
 *	READY      ------->
 *	           <-------   RUN
 *
 * The control thread takes the messages in (start_message()), the main thread waits for them, with
 * a limit, and tells the user what it waits for.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "node/deadline.h"
#include "node/io.h"
#include "node/node_state.h"

#define START_SECONDS 60
#define SAY_SECONDS   3

/* Between hosts that cannot scale their TSCs: how far apart, and how much faster the guest's is. */
#define TSC_UNSCALED_APART_PPM	25u
#define TSC_UNSCALED_MARGIN_PPM 5u
/* Clocks that are known no better than this make guests whose vCPUs disagree for all to see. */
#define CLOCK_ERROR_NS_MAX 100000000ull

struct waiting {
	const char *for_what;
	bool (*done)(const struct node *node);
};

/* Until done, the pod's end (-ESHUTDOWN) or START_SECONDS (-ETIMEDOUT). */
static int wait_until(struct node *node, const struct waiting *waiting, char *why, size_t why_size)
{
	int r = 0;
	pthread_mutex_lock(&node->lock);
	for (int second = 0; !waiting->done(node); second++) {
		if (node->ended) {
			r = -ESHUTDOWN;
			break;
		}
		if (second >= START_SECONDS) {
			snprintf(why, why_size, "%s: not within %d s", waiting->for_what,
				 START_SECONDS);
			r = -ETIMEDOUT;
			break;
		}
		struct timespec until = deadline_after_ms(1000);
		while (!waiting->done(node) && !node->ended)
			if (deadline_wait(&node->changed, &node->lock, &until) == ETIMEDOUT)
				break;
		if (second && second % SAY_SECONDS == 0 && !waiting->done(node)) {
			pthread_mutex_unlock(&node->lock);
			node_say(node, "%s (%d s)", waiting->for_what, second);
			pthread_mutex_lock(&node->lock);
		}
	}
	pthread_mutex_unlock(&node->lock);
	return r;
}

static bool have_features(const struct node *node)
{
	return node->features_count == members_count(node->members) - 1;
}

static bool have_start(const struct node *node)
{
	return node->started;
}

static bool have_ready(const struct node *node)
{
	return node->ready_count == members_count(node->members) - 1;
}

static bool have_run(const struct node *node)
{
	return node->running;
}

static bool have_clock(const struct node *node)
{
	return node_clock_ready(node->clock);
}

static void put_features(const struct node *node, struct control_features *features)
{
	snprintf(features->engine, sizeof(features->engine), "%s", node->options->engine->name);
	features->tsc_khz = node_clock_pod_khz(node->clock);
	features->tsc_deadline = node->features.tsc_deadline;
	features->tsc_scaling = node->features.tsc_scaling;
	features->tsc_margin_ppm = node->features.tsc_margin_ppm;
	features->walks_write = node->features.walks_write;
	features->offer = node->features.offer;
	features->capacity_pages = node_own(node)->memory / PAGE_BYTES;
	features->vcpu_count = (uint16_t)node_own(node)->vcpu_count;
	io_list(node, &features->devices);
}

/* Host TSCs must run alike where they cannot be scaled: what is missing is made up for by steps
 * (core/tsc_line.h), and they are small. */
static int check_peer(struct node *node, uint16_t peer, const struct control_features *f, char *why,
		      size_t why_size)
{
	const char *name = members_name(node->members, peer);
	const struct node_config *promised = &node->config->node[peer];
	if (f->vcpu_count != promised->vcpu_count ||
	    f->capacity_pages != promised->memory / PAGE_BYTES) {
		snprintf(
			why, why_size,
			"node %u (%s) offers %u vCPUs and %lluM, in the configuration it has %u and "
			"%lluM: give all nodes the same file",
			peer, name, f->vcpu_count,
			(unsigned long long)(f->capacity_pages >> (20 - PAGE_SHIFT)),
			promised->vcpu_count, (unsigned long long)(promised->memory >> 20));
		return -EINVAL;
	}
	uint32_t ours = node->features.tsc_khz, theirs = f->tsc_khz;
	uint32_t apart = ours > theirs ? ours - theirs : theirs - ours;
	if ((uint64_t)apart * 1000000 > (uint64_t)ours * TSC_UNSCALED_APART_PPM &&
	    (!f->tsc_scaling || !node->features.tsc_scaling)) {
		snprintf(why, why_size,
			 "node %u (%s) has a TSC of %u kHz, this one of %u kHz, and not both CPUs "
			 "can scale it: use hosts of one kind",
			 peer, name, theirs, ours);
		return -EINVAL;
	}
	return 0;
}

/*
 * The rate of the guest's TSC, in the pod clock's kHz: one that every host can follow. One node, or
 * an engine that can scale by anything: the loader's own. Else it is faster than every host's,
 * by what some engine needs to scale at all, or, where somebody cannot, by a little, so that all
 * have to step forward only.
 */
static uint32_t guest_khz(const struct node *node)
{
	uint64_t khz = node->features.tsc_khz, margin = node->features.tsc_margin_ppm;
	bool scaling = node->features.tsc_scaling;
	members_for_each_other(node->members, n) {
		const struct control_features *f = node->peer_features[n];
		scaling &= f->tsc_scaling;
		khz = f->tsc_khz > khz ? f->tsc_khz : khz;
		margin = f->tsc_margin_ppm > margin ? f->tsc_margin_ppm : margin;
	}
	if (!members_may_have_others(node->members) || (scaling && margin == 0))
		return node->features.tsc_khz;
	return (uint32_t)(khz +
			  (khz * (scaling ? margin : TSC_UNSCALED_MARGIN_PPM) + 999999) / 1000000);
}

/* What is above no page table can name; kvm would refuse it as well, without saying why. */
static int check_reach(const struct node *node, const struct cpuid_set *cpuid, char *why,
		       size_t why_size)
{
	uint32_t bits = cpuid_physical_bits(cpuid);
	struct memory_map map;
	if (memory_map_build(node->config->memory, &map) == 0 &&
	    !((memory_map_end(&map) - 1) >> bits))
		return 0;
	snprintf(why, why_size,
		 "the guest's %lluM of memory are more than the CPUs of all hosts can address (%u "
		 "bits): give the pod less (memory = ... in [pod])",
		 (unsigned long long)(node->config->memory >> 20), bits);
	return -EINVAL;
}

static int fold_features(struct node *node, struct control_start *start, char *why, size_t why_size)
{
	struct cpuid_set common = node->features.offer;
	start->tsc_deadline = node->features.tsc_deadline;
	start->walks_write = node->features.walks_write;
	members_for_each_other(node->members, n) {
		const struct control_features *f = node->peer_features[n];
		int r = check_peer(node, n, f, why, why_size);
		if (r < 0)
			return r;
		char detail[256];
		r = cpuid_common(&common, &f->offer, detail, sizeof(detail));
		if (r < 0) {
			snprintf(why, why_size, "node %u (%s): %s", n,
				 members_name(node->members, n), detail);
			return r;
		}
		start->tsc_deadline &= f->tsc_deadline;
		start->walks_write |= f->walks_write;
	}
	int r = cpuid_finish(&common, node->config->vcpu_count, &start->cpuid);
	if (r < 0)
		snprintf(why, why_size, "the hosts' CPUs have too little in common for a guest");
	return r < 0 ? r : check_reach(node, &start->cpuid, why, why_size);
}

static int agree_as_loader(struct node *node, char *why, size_t why_size)
{
	int r = wait_until(
		node,
		&(struct waiting){ "waiting for what the other hosts' CPUs can do", have_features },
		why, why_size);
	if (r < 0)
		return r;
	struct control_message msg = { .type = CONTROL_START };
	r = fold_features(node, &msg.start, why, why_size);
	if (!r)
		r = io_gather(node, &msg.start.devices, why, why_size);
	if (!r)
		r = io_take(node, &msg.start.devices, why, why_size);
	if (r < 0)
		return r;
	msg.start.memory_bytes = node->config->memory;
	msg.start.tsc_khz = guest_khz(node);
	msg.start.vcpu_count = (uint16_t)node->config->vcpu_count;
	msg.start.epoch_ns = node_now_ns(node);
	node->start = msg.start;
	atomic_store(&node->phase, NODE_STARTED);
	node_broadcast(node, &msg);
	return 0;
}

static int agree_as_other(struct node *node, char *why, size_t why_size)
{
	struct control_message msg = { .type = CONTROL_FEATURES };
	/* First, since this host's rates are told by the pod clock. */
	int r = wait_until(
		node,
		&(struct waiting){ "measuring the distance to the first node's clock", have_clock },
		why, why_size);
	if (r < 0)
		return r;
	put_features(node, &msg.features);
	atomic_store(&node->phase, NODE_OFFERED);
	node_send_seat(node, SEAT_LOADER, &msg);
	r = wait_until(node, &(struct waiting){ "waiting for the first node's START", have_start },
		       why, why_size);
	if (r < 0)
		return r;
	if (node->start.memory_bytes != node->config->memory ||
	    node->start.vcpu_count != node->config->vcpu_count) {
		snprintf(
			why, why_size,
			"the first node starts another pod than this configuration describes: give "
			"all nodes the same file");
		return -EINVAL;
	}
	if (!cpuid_within(&node->start.cpuid, &node->features.offer)) {
		snprintf(
			why, why_size,
			"the first node starts a guest with CPU features that this host does not have");
		return -EINVAL;
	}
	return io_take(node, &node->start.devices, why, why_size);
}

int start_agree(struct node *node, char *why, size_t why_size)
{
	return members_seat_is_here(node->members, SEAT_LOADER)
		       ? agree_as_loader(node, why, why_size)
		       : agree_as_other(node, why, why_size);
}

static int check_clocks(const struct node *node, char *why, size_t why_size)
{
	members_for_each_other(node->members, n) {
		if (node->peer_clock_error_ns[n] <= CLOCK_ERROR_NS_MAX)
			continue;
		snprintf(
			why, why_size,
			"node %u (%s) knows the pod clock to %llu ms only, %llu would do: its host or "
			"the network between is too slow",
			n, members_name(node->members, n),
			(unsigned long long)(node->peer_clock_error_ns[n] / 1000000),
			CLOCK_ERROR_NS_MAX / 1000000);
		return -ETIME;
	}
	return 0;
}

int start_clock(struct node *node, char *why, size_t why_size)
{
	return wait_until(
		node, &(struct waiting){ "measuring the distance to the pod's clock", have_clock },
		why, why_size);
}

int start_ready(struct node *node, char *why, size_t why_size)
{
	struct control_message msg = { .type = CONTROL_READY };
	if (!members_seat_is_here(node->members, SEAT_LOADER)) {
		msg.ready.clock_error_ns = node_clock_error_ns(node->clock);
		atomic_store(&node->phase, NODE_READY);
		node_send_seat(node, SEAT_LOADER, &msg);
		return wait_until(
			node, &(struct waiting){ "waiting for the guest to be loaded", have_run },
			why, why_size);
	}
	int r = wait_until(node,
			   &(struct waiting){ "waiting for the other nodes' vCPUs", have_ready },
			   why, why_size);
	if (!r)
		r = check_clocks(node, why, why_size);
	if (r < 0)
		return r;
	msg = (struct control_message){ .type = CONTROL_RUN };
	msg.run.start_ns = node_now_ns(node);
	msg.run.entry = node->entry;
	node->run_ns = msg.run.start_ns;
	atomic_store(&node->phase, NODE_RUNNING);
	node_broadcast(node, &msg);
	return 0;
}

static void take_features(struct node *node, const struct control_message *msg)
{
	struct control_features *copy = malloc(sizeof(*copy));
	if (!copy)
		return; /* the wait for it names what is missing */
	*copy = msg->features;
	node->peer_features[msg->src] = copy;
	node->features_count++;
}

/* Each comes once and in its phase: control_rules.h. */
void start_message(struct node *node, const struct control_message *msg)
{
	pthread_mutex_lock(&node->lock);
	switch (msg->type) {
	case CONTROL_FEATURES:
		take_features(node, msg);
		break;
	case CONTROL_READY:
		node->peer_clock_error_ns[msg->src] = msg->ready.clock_error_ns;
		node->ready_count++;
		break;
	case CONTROL_START:
		node->start = msg->start;
		node->started = true;
		atomic_store(&node->phase, NODE_STARTED);
		break;
	case CONTROL_RUN:
		node->run_ns = msg->run.start_ns;
		node->entry = msg->run.entry;
		node->running = true;
		atomic_store(&node->phase, NODE_RUNNING);
		break;
	}
	pthread_cond_broadcast(&node->changed);
	pthread_mutex_unlock(&node->lock);
}
