/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a node tells of itself (stats_json.h), and its way through control messages.
 *
 * A node with the most vCPUs that a pod can have says some 250 KiB, which is more than one frame
 * should carry: heartbeats go the same way. So the text goes in parts, in order.
 *
 * Tested in tests/node/test_stats_json.c.
 */
#include "node/stats_json.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/placement_trace.h"

static void set(json_t *object, const char *key, uint64_t value)
{
	json_object_set_new(object, key, json_integer((json_int_t)value));
}

static json_t *hex_json(uint64_t value)
{
	char text[24];
	snprintf(text, sizeof(text), "0x%" PRIx64, value);
	return json_string(text);
}

static const char *const stall_names[COH_STALL_KINDS] = { "zero", "read", "write", "upgrade" };

static json_t *stalls_json(const struct pager_stats *stats)
{
	json_t *stalls = json_object();
	for (int k = 0; k < COH_STALL_KINDS; k++)
		set(stalls, stall_names[k], stats->stall_count[k]);
	return stalls;
}

/* How long they took, and how many took how long, by the histogram's bucket (pager/pager.h). */
static void set_stall_times(json_t *o, const struct pager_stats *stats)
{
	json_t *sums = json_object(), *buckets = json_object();
	for (int k = 0; k < COH_STALL_KINDS; k++)
		set(sums, stall_names[k], stats->stall_ns_sum[k]);
	for (int b = 0; b < PAGER_BUCKETS; b++) {
		uint64_t count = 0;
		char name[12];
		for (int k = 0; k < COH_STALL_KINDS; k++)
			count += stats->stall_bucket[k][b];
		snprintf(name, sizeof(name), "%d", b);
		if (count)
			set(buckets, name, count);
	}
	json_object_set_new(o, "stall_ns", sums);
	json_object_set_new(o, "stall_buckets", buckets);
}

static json_t *hot_json(const struct stats_node *node)
{
	json_t *list = json_array();
	for (uint32_t i = 0; i < node->hot_count; i++) {
		json_t *entry = json_object();
		json_object_set_new(entry, "gpa", hex_json(node->hot[i].gpn << PAGE_SHIFT));
		set(entry, "stalls", node->hot[i].count);
		json_t *at = json_object();
		for (uint32_t j = 0; j < node->hot[i].offset_count; j++) {
			char offset[8];
			snprintf(offset, sizeof(offset), "%x",
				 (unsigned)node->hot[i].offset[j].offset & (PAGE_BYTES - 1));
			set(at, offset, node->hot[i].offset[j].count);
		}
		json_object_set_new(entry, "at", at);
		json_array_append_new(list, entry);
	}
	return list;
}

static const char *vcpu_state_name(const struct vcpu_stats *stats)
{
	if (stats->run_state == VCPU_WAIT_FOR_SIPI)
		return "waiting";
	switch (stats->activity) {
	case VCPU_IN_GUEST:
		return "running";
	case VCPU_SLEEPING:
		return "halted";
	case VCPU_IN_IO:
		return "io";
	case VCPU_PARKED:
		return "moving";
	case VCPU_ENDED:
		return "ended";
	default:
		return "outside";
	}
}

static json_t *vcpu_json(const struct stats_node *node, const struct stats_vcpu *vcpu)
{
	static const char *const exits[] = { "io",     "mmio",	 "msr_read", "msr_write", "hlt",
					     "window", "kicked", "shutdown", "failed" };
	static const char *const parts[] = { "stop", "way", "wake", "load" };
	json_t *entry = json_object(), *counts = json_object(), *move = json_object();
	set(entry, "number", vcpu->number);
	json_object_set_new(entry, "node", json_string(node->name));
	json_object_set_new(entry, "state", json_string(vcpu_state_name(&vcpu->stats)));
	set(entry, "moves", vcpu->moves);
	set(entry, "move_ns", vcpu->stats.move_ns);
	for (int p = 0; p < VCPU_MOVE_PARTS; p++)
		set(move, parts[p], vcpu->stats.move_part_ns[p]);
	json_object_set_new(entry, "move_parts_ns", move);
	set(entry, "image_bytes", vcpu->image_bytes);
	set(entry, "stalls", vcpu->stalls);
	json_object_set_new(entry, "pinned", json_boolean(vcpu->pinned));
	for (int k = 0; k <= EXIT_FAILED; k++)
		set(counts, exits[k], vcpu->stats.exit_count[k]);
	json_object_set_new(entry, "exits", counts);
	json_object_set_new(entry, "rip", hex_json(vcpu->stats.rip));
	set(entry, "interrupts", vcpu->stats.interrupt_count);
	set(entry, "ipis", vcpu->stats.ipi_count);
	set(entry, "rekicks", vcpu->stats.rekick_count);
	return entry;
}

/* Advice by its reason: to go, and to stay in spite of what the stalls have cost. */
static json_t *why_json(const struct placement_stats *stats)
{
	static const char *const names[PLACEMENT_WHYS] = {
		[PLACEMENT_WHY_CREDIT] = NULL,
		[PLACEMENT_WHY_POLICY] = NULL,
		[PLACEMENT_WHY_PIN] = "stays_pinned",
		[PLACEMENT_WHY_DWELL] = "stays_new",
		[PLACEMENT_WHY_RATE] = "stays_rate",
		[PLACEMENT_WHY_CROWDED] = "stays_crowded",
		[PLACEMENT_WHY_REFUSED] = "stays_refused",
		[PLACEMENT_WHY_PAID] = "paid",
		[PLACEMENT_WHY_EAGER] = "eager",
		[PLACEMENT_WHY_ALWAYS] = "always",
		[PLACEMENT_WHY_GATHER] = "gather",
		[PLACEMENT_WHY_SPREAD] = "spread",
	};
	json_t *o = json_object();
	for (int i = 0; i < PLACEMENT_WHYS; i++)
		if (names[i])
			set(o, names[i], stats->why_count[i]);
	return o;
}

/* Was it switched off because it lost more than the base rule, when, and is it back? */
static void set_learner(json_t *o, const struct placement_stats *stats)
{
	set(o, "learner_off", stats->learner_off);
	set(o, "learner_off_count", stats->learner_off_count);
	set(o, "learner_off_ns", stats->learner_off_ns);
	set(o, "learner_back_ns", stats->learner_back_ns);
	set(o, "learner_lost_ppm", stats->learner_loss);
	set(o, "base_lost_ppm", stats->control_loss);
}

static json_t *placement_json(const struct placer_stats *stats)
{
	json_t *o = json_object();
	set(o, "cores", stats->cores);
	set(o, "awake", stats->awake);
	set(o, "stalls", stats->placement.stall_count);
	set(o, "stalls_missed", stats->missed_count);
	set(o, "advised", stats->placement.move_count);
	json_object_set_new(o, "why", why_json(&stats->placement));
	set(o, "wasted", stats->placement.wasted_count);
	set(o, "returned", stats->placement.return_count);
	set(o, "refault_ns", stats->placement.refault_ns);
	set(o, "learned", stats->placement.learned_count);
	set(o, "learned_of_others", stats->heard_count);
	set_learner(o, &stats->placement);
	return o;
}

static json_t *decisions_json(const struct placement_record *records, uint32_t count)
{
	json_t *list = json_array();
	for (uint32_t i = 0; i < count; i++) {
		const struct placement_record *record = &records[i];
		char text[PLACEMENT_TEXT_BYTES];
		json_t *o = json_object();
		placement_record_text(record, text, sizeof(text));
		set(o, "at_ns", record->at_ns);
		set(o, "vcpu", record->vcpu);
		json_object_set_new(o, "text", json_string(text));
		json_array_append_new(list, o);
	}
	return list;
}

/* What a policy that rides along would have done; nothing where none does. */
static void set_shadow(json_t *o, const struct stats_node *node)
{
	const struct placer_stats *stats = &node->placer;
	json_t *shadow;
	if (stats->shadow == PLACEMENT_POLICIES)
		return;
	shadow = json_object();
	json_object_set_new(shadow, "policy", json_string(placement_policy_name(stats->shadow)));
	set(shadow, "wishes", stats->shadow_wishes);
	set(shadow, "agreed", stats->shadow_agreed);
	json_object_set_new(shadow, "why", why_json(&stats->shadow_placement));
	json_object_set_new(shadow, "decisions", decisions_json(node->shadow, node->shadow_count));
	json_object_set_new(shadow, "choices",
			    decisions_json(node->shadow_choice, node->shadow_choice_count));
	json_object_set_new(o, "shadow", shadow);
}

static json_t *seat_json(const struct stats_vcpu *seat)
{
	json_t *entry = json_object();
	set(entry, "vcpu", seat->number);
	set(entry, "moves", seat->moves);
	set(entry, "here_ns", seat->stats.here_ns);
	set(entry, "cpu_ns", seat->cpu_ns);
	set(entry, "core_wait_ns", seat->core_wait_ns);
	set(entry, "stalled_ns", seat->stalled_ns);
	set(entry, "halted_ns", seat->stats.sleep_ns);
	set(entry, "stalls", seat->stalls);
	return entry;
}

static void set_pager(json_t *o, const struct pager_stats *stats)
{
	set(o, "resident_bytes", (stats->pages_owned + stats->pages_shared) * PAGE_BYTES);
	set(o, "pages_owned", stats->pages_owned);
	set(o, "pages_shared", stats->pages_shared);
	json_object_set_new(o, "stalls", stalls_json(stats));
	set_stall_times(o, stats);
	set(o, "stall_p50_ns", pager_stats_quantile_ns(stats, COH_STALL_KINDS, 0.5));
	set(o, "stall_p99_ns", pager_stats_quantile_ns(stats, COH_STALL_KINDS, 0.99));
	set(o, "messages", stats->message_count);
	set(o, "bytes_out", stats->bytes_out);
	set(o, "bytes_in", stats->bytes_in);
	set(o, "pages_sent", stats->page_count);
	set(o, "deferred", stats->deferred_count);
	set(o, "hold_ns", stats->hold_ns);
	set(o, "evicted_pushed", stats->evict_push_count);
	set(o, "evicted_dropped", stats->evict_drop_count);
	set(o, "readahead", stats->readahead_count);
	set(o, "hinted", stats->fetch_count);
	set(o, "freed", stats->freed_count);
	set(o, "pager_calls", stats->call_count);
	set(o, "shootdowns", stats->shootdown_count);
	set(o, "shootdown_pages", stats->shootdown_page_count);
	/* Only where it happens: a kernel that moves pages and denies it. */
	if (stats->moves_denied_count) {
		set(o, "moves_denied", stats->moves_denied_count);
		set(o, "moves_denied_errno", (uint64_t)stats->move_error);
	}
	set(o, "chunks_homed", stats->chunks_homed);
}

static json_t *disk_json(const struct io_disk_stats *disk)
{
	json_t *o = json_object(), *served = json_object();
	json_object_set_new(o, "name", json_string(disk->name));
	set(o, "node", disk->node);
	set(o, "requests", disk->own.requests);
	set(o, "errors", disk->own.errors);
	set(o, "read_bytes", disk->own.read_bytes);
	set(o, "write_bytes", disk->own.write_bytes);
	set(served, "requests", disk->served.requests);
	set(served, "errors", disk->served.errors);
	set(served, "read_bytes", disk->served.read_bytes);
	set(served, "write_bytes", disk->served.write_bytes);
	json_object_set_new(o, "served", served);
	return o;
}

/* Of pods that have devices. */
static void set_io(json_t *o, const struct io_thread_stats *io)
{
	json_t *disks = json_array(), *thread = json_object();
	set(thread, "turns", io->turns);
	set(thread, "messages_out", io->channels.messages_out);
	set(thread, "messages_in", io->channels.messages_in);
	set(thread, "bytes_out", io->channels.bytes_out);
	set(thread, "bytes_in", io->channels.bytes_in);
	set(thread, "bytes_copied", io->channels.bytes_copied);
	set(thread, "sends", io->channels.sends);
	set(thread, "receives", io->channels.receives);
	json_object_set_new(thread, "look", json_string(io->look));
	json_object_set_new(o, "io", thread);
	for (uint32_t i = 0; i < io->disk_count; i++)
		json_array_append_new(disks, disk_json(&io->disk[i]));
	json_object_set_new(o, "disks", disks);
}

static json_t *queues_json(const struct queues_counts *counts)
{
	json_t *o = json_object();
	set(o, "doorbells", counts->doorbells);
	set(o, "doorbells_sent", counts->doorbells_sent);
	set(o, "doorbells_sent_on", counts->doorbells_sent_on);
	set(o, "given", counts->given);
	set(o, "taken", counts->taken);
	return o;
}

char *stats_json(const struct stats_node *node)
{
	json_t *o = json_object(), *vcpus = json_array(), *seats = json_array();
	set(o, "number", node->number);
	json_object_set_new(o, "name", json_string(node->name));
	json_object_set_new(o, "address", json_string(node->address));
	json_object_set_new(o, "engine", json_string(node->engine));
	set(o, "vcpus", node->vcpu_count);
	set(o, "promised_bytes", node->promised_bytes);
	set(o, "time_ns", node->time_ns);
	set(o, "step", node->step);
	json_object_set_new(o, "steward", json_string(node->steward));
	set_pager(o, &node->pager);
	set(o, "clock_error_ns", node->clock_error_ns);
	json_object_set_new(o, "tsc_error_ns", json_integer(node->tsc_error_ns));
	set(o, "tsc_bound_ns", node->tsc_bound_ns);
	set(o, "tsc_host", node->tsc.host_tsc);
	set(o, "tsc_guest", node->tsc.guest_tsc);
	set(o, "tsc_ratio", node->tsc.ratio);
	set(o, "tsc_khz", node->tsc_khz);
	json_object_set_new(o, "policy", json_string(placement_policy_name(node->placer.policy)));
	json_object_set_new(o, "placement", placement_json(&node->placer));
	json_object_set_new(o, "decisions", decisions_json(node->record, node->record_count));
	json_object_set_new(o, "choices", decisions_json(node->choice, node->choice_count));
	set_shadow(o, node);
	set_io(o, &node->io);
	json_object_set_new(o, "queues", queues_json(&node->queues));
	json_object_set_new(o, "hot_pages", hot_json(node));
	for (uint32_t i = 0; i < node->seat_count; i++) {
		if (node->seat[i].here)
			json_array_append_new(vcpus, vcpu_json(node, &node->seat[i]));
		json_array_append_new(seats, seat_json(&node->seat[i]));
	}
	json_object_set_new(o, "vcpu_list", vcpus);
	json_object_set_new(o, "seats", seats);
	char *text = json_dumps(o, JSON_COMPACT | JSON_ENSURE_ASCII);
	json_decref(o);
	return text;
}

void stats_part(const char *text, uint32_t size, uint32_t offset, struct control_stats_reply *part)
{
	uint32_t left = size - offset;
	part->offset = offset;
	part->total = size;
	part->text = text + offset;
	part->text_size = left < CONTROL_STATS_PART_MAX ? left : CONTROL_STATS_PART_MAX;
}

int stats_text_add(struct stats_text *text, const struct control_stats_reply *part)
{
	if (part->offset != text->have || (text->have && part->total != text->total))
		return -EPROTO;
	if (!text->text) {
		text->text = malloc(part->total);
		if (!text->text)
			return -ENOMEM;
		text->total = part->total;
	}
	memcpy(text->text + text->have, part->text, part->text_size);
	text->have += part->text_size;
	return text->have == text->total;
}

void stats_text_free(struct stats_text *text)
{
	free(text->text);
	*text = (struct stats_text){ 0 };
}
