/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A page of numbers from two answers (top_frame.h).
 *
 * A vCPU is where its last answer says; its shares of time come from the seats: each node counts,
 * for each vCPU that was ever there, how long it was, and how much of that it ran, waited for a
 * core, for a page, or for an interrupt. Those counters stand still while the vCPU is elsewhere, so
 * their sum over the nodes is the vCPU's, wherever it went, and each one's part is where it was.
 *
 * Unknown: missing fields, nodes that did not answer, counters that fell.
 *
 * The height is shared out line by line among nodes, vCPUs and pages, until each has all it wants.
 *
 * Tested in tests/cmd/test_top_frame.c.
 */
#include "cmd/top_frame.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/top_table.h"
#include "core/limits.h"
#include "pager/pager.h"

#define MAP_MAX	       64 /* nodes in a map of shares */
#define PAGES_MAX      32 /* shown */
#define PAGES_IN_LINES 10
#define GROUPS	       3 /* nodes, vCPUs, pages */
/* The first lines, and of each group the heading, the line before it. */
#define FIXED_LINES (3 + 2 * GROUPS)

static const char *const stall_names[COH_STALL_KINDS] = { "zero", "read", "write", "upgrade" };

enum seat_count { HERE, CORE, CORE_WAIT, STALLED, HALTED, STALLS, SEAT_COUNTS };
static const char *const seat_keys[SEAT_COUNTS] = { "here_ns",	  "cpu_ns",    "core_wait_ns",
						    "stalled_ns", "halted_ns", "stalls" };

struct node_row {
	const json_t *before, *now;
	char name[NODE_NAME_MAX];
	double ns; /* between the answers */
	double stall_ns[COH_STALL_KINDS];
	struct pager_stats times; /* only the buckets, of kind 0 */
	const json_t *seat_before[VCPUS_MAX], *seat[VCPUS_MAX];
};

struct vcpu_row {
	unsigned int number;
	char node[NODE_NAME_MAX], state[12];
	bool pinned;
	double moves;
	double count[SEAT_COUNTS];
	double here[MAP_MAX]; /* by node */
};

struct page_row {
	uint64_t gpa;
	double stalls, by_node[MAP_MAX];
	json_t *at; /* of the node with most stalls there */
	double at_stalls;
};

struct page {
	struct top_lines lines;
	const struct top_view *view;

	const json_t *before, *now;
	double ns; /* between the answers, by the nodes' clock */
	struct node_row *node;
	unsigned int node_count, answered;
	struct vcpu_row *vcpu;
	unsigned int vcpu_count;
	struct page_row *hot;
	unsigned int hot_count;
};

/* ---- numbers out of answers ------------------------------------------------------------------ */

static double number(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);
	double is = json_is_integer(value) ? (double)json_integer_value(value) : TOP_UNKNOWN;
	return is < 0 ? TOP_UNKNOWN : is;
}

static double grown(const json_t *before, const json_t *now, const char *key)
{
	double was = number(before, key), is = number(now, key);
	return was < 0 || is < was ? TOP_UNKNOWN : is - was;
}

static double per_second(double count, double ns)
{
	return count < 0 || ns <= 0 ? TOP_UNKNOWN : count * 1e9 / ns;
}

/* What is shown is ASCII, and obeys nobody. */
static void copy_text(char *to, size_t size, const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));
	snprintf(to, size, "%s", text && *text ? text : "-");
	for (; *to; to++)
		if (*to < ' ' || *to > '~')
			*to = '?';
}

static unsigned int map_width(const struct page *page)
{
	return page->node_count < MAP_MAX ? page->node_count : MAP_MAX;
}

/* ---- nodes ----------------------------------------------------------------------------------- */

static void take_seats(const json_t *node, const json_t *seats[VCPUS_MAX])
{
	size_t i;
	json_t *seat;
	json_array_foreach(json_object_get(node, "seats"), i, seat)
	{
		double v = number(seat, "vcpu");
		if (v >= 0 && v < VCPUS_MAX)
			seats[(size_t)v] = seat;
	}
}

static void take_times(struct node_row *row)
{
	const json_t *before = json_object_get(row->before, "stall_buckets");
	const json_t *now = json_object_get(row->now, "stall_buckets");
	for (int b = 0; before && b < PAGER_BUCKETS; b++) {
		char key[12];
		snprintf(key, sizeof(key), "%d", b);
		double was = number(before, key), is = number(now, key);
		if (is > 0 && is > was)
			row->times.stall_bucket[0][b] = (uint64_t)(is - (was < 0 ? 0 : was));
	}
}

static void take_node(struct page *page, const json_t *now, const json_t *before)
{
	struct node_row *row = &page->node[page->node_count++];
	const json_t *name = json_object_get(now, "name");
	row->now = now;
	page->answered += !json_object_get(now, "error");
	/* The same node: nodes of another pod have other names, or their clock starts again. */
	if (before && json_equal(json_object_get(before, "name"), name) &&
	    grown(before, now, "time_ns") > 0)
		row->before = before;
	copy_text(row->name, sizeof(row->name), now, "name");
	row->ns = grown(row->before, now, "time_ns");
	if (row->ns > page->ns)
		page->ns = row->ns;
	for (int k = 0; k < COH_STALL_KINDS; k++)
		row->stall_ns[k] = grown(json_object_get(row->before, "stall_ns"),
					 json_object_get(now, "stall_ns"), stall_names[k]);
	take_times(row);
	take_seats(now, row->seat);
	take_seats(row->before, row->seat_before);
}

static double stalls_of(const struct node_row *row)
{
	double sum = TOP_UNKNOWN;
	for (int k = 0; k < COH_STALL_KINDS; k++)
		sum = top_add(sum, grown(json_object_get(row->before, "stalls"),
					 json_object_get(row->now, "stalls"), stall_names[k]));
	return sum;
}

static double quantile(const struct pager_stats *times, double p)
{
	uint64_t ns = pager_stats_quantile_ns(times, COH_STALL_KINDS, p);
	return ns ? (double)ns : TOP_UNKNOWN;
}

enum {
	N_NUMBER,
	N_NAME,
	N_VCPUS,
	N_OWNED,
	N_SHARED,
	N_PROMISED,
	N_STALLS,
	N_ZERO,
	N_READ,
	N_WRITE,
	N_UPGRADE,
	N_P50,
	N_P99,
	N_MESSAGES,
	N_OUT,
	N_STATE,
	N_COLUMNS
};

/* Or an answer that does not say so. */
static bool is_member(const json_t *node)
{
	const char *state = json_string_value(json_object_get(node, "state"));
	return !state || strcmp(state, "member") == 0;
}

static bool all_are_members(const struct page *page)
{
	for (unsigned int i = 0; i < page->node_count; i++)
		if (!is_member(page->node[i].now))
			return false;
	return true;
}

static void put_node(const void *ctx, unsigned int i, top_row cell)
{
	const struct page *page = ctx;
	const struct node_row *row = &page->node[i];
	const char *error = json_string_value(json_object_get(row->now, "error"));
	sprintf(cell[N_NUMBER], "%u", i);
	strcpy(cell[N_NAME], row->name);
	if (!is_member(row->now))
		copy_text(cell[N_STATE], TOP_CELL_MAX, row->now, "state");
	if (error) {
		strcpy(cell[N_VCPUS], "none");
		return;
	}
	cell_count(cell[N_VCPUS], number(row->now, "vcpus"));
	double owned = number(row->now, "pages_owned"), shared = number(row->now, "pages_shared");
	cell_bytes(cell[N_OWNED], owned < 0 ? owned : owned * PAGE_BYTES);
	cell_bytes(cell[N_SHARED], shared < 0 ? shared : shared * PAGE_BYTES);
	cell_bytes(cell[N_PROMISED], number(row->now, "promised_bytes"));
	cell_count(cell[N_STALLS], per_second(stalls_of(row), row->ns));
	for (int k = 0; k < COH_STALL_KINDS; k++)
		cell_percent(cell[N_ZERO + k], top_percent(row->stall_ns[k], row->ns));
	cell_time(cell[N_P50], quantile(&row->times, 0.5));
	cell_time(cell[N_P99], quantile(&row->times, 0.99));
	cell_count(cell[N_MESSAGES], per_second(grown(row->before, row->now, "messages"), row->ns));
	cell_bytes(cell[N_OUT], per_second(grown(row->before, row->now, "bytes_out"), row->ns));
}

static void put_nodes(struct page *page, unsigned int room)
{
	static const struct top_column columns[N_COLUMNS] = {
		[N_NUMBER] = { "no", 3, 0, false },	[N_NAME] = { "node", 8, 0, true },
		[N_VCPUS] = { "vCPUs", 5, 1, false },	[N_OWNED] = { "owned", 5, 2, false },
		[N_SHARED] = { "shared", 6, 2, false }, [N_PROMISED] = { "of", 4, 2, false },
		[N_STALLS] = { "stalls", 6, 1, false }, [N_ZERO] = { "zero%", 5, 4, false },
		[N_READ] = { "read%", 5, 3, false },	[N_WRITE] = { "writ%", 5, 3, false },
		[N_UPGRADE] = { "upgr%", 5, 3, false }, [N_P50] = { "p50", 5, 2, false },
		[N_P99] = { "p99", 5, 2, false },	[N_MESSAGES] = { "messages", 8, 5, false },
		[N_OUT] = { "out", 5, 5, false },	[N_STATE] = { "", 8, 1, true },
	};
	/* Who comes and goes is said where somebody does. */
	lines_table(&page->lines, columns, all_are_members(page) ? N_STATE : N_COLUMNS, put_node,
		    page, page->node_count, room);
}

/* ---- vCPUs ----------------------------------------------------------------------------------- */

/* Of two nodes that say that they have it, as it went from one to the other: the later. */
static const json_t *entry_of(const json_t *pod, unsigned int vcpu)
{
	const json_t *found = NULL;
	size_t i;
	json_t *entry;
	json_array_foreach(json_object_get(pod, "vcpus"), i, entry)
	{
		if (number(entry, "number") == vcpu &&
		    (!found || number(entry, "moves") > number(found, "moves")))
			found = entry;
	}
	return found;
}

/* How often it has moved, by whoever knows best: where it is, or just was. */
static double moves_of(const struct page *page, unsigned int v, bool now)
{
	double most = number(entry_of(now ? page->now : page->before, v), "moves");
	for (unsigned int n = 0; n < page->node_count; n++) {
		const struct node_row *node = &page->node[n];
		double moves = number(now ? node->seat[v] : node->seat_before[v], "moves");
		if (moves > most)
			most = moves;
	}
	return most;
}

static void take_vcpu(struct page *page, unsigned int v)
{
	const json_t *now = entry_of(page->now, v);
	double moves = moves_of(page, v, true), before = moves_of(page, v, false);
	struct vcpu_row *row = &page->vcpu[page->vcpu_count];
	bool seen = now;
	*row = (struct vcpu_row){ .number = v,
				  .moves = before < 0 || moves < before ? TOP_UNKNOWN
									: moves - before };
	for (int c = 0; c < SEAT_COUNTS; c++)
		row->count[c] = TOP_UNKNOWN;
	for (unsigned int n = 0; n < page->node_count; n++) {
		const struct node_row *node = &page->node[n];
		const json_t *seat = node->seat[v];
		double part[SEAT_COUNTS];
		seen = seen || seat;
		/* At a seat that was not there before, all is new. */
		for (int c = 0; c < SEAT_COUNTS; c++) {
			part[c] = node->seat_before[v]
					  ? grown(node->seat_before[v], seat, seat_keys[c])
				  : node->before && json_object_get(node->before, "seats")
					  ? number(seat, seat_keys[c])
					  : TOP_UNKNOWN;
			row->count[c] = top_add(row->count[c], part[c]);
		}
		if (n < MAP_MAX)
			row->here[n] = seat || !node->before ? part[HERE] : 0;
	}
	if (!seen)
		return;
	copy_text(row->node, sizeof(row->node), now, "node");
	copy_text(row->state, sizeof(row->state), now, "state");
	row->pinned = json_is_true(json_object_get(now, "pinned"));
	/* Nobody has it: it was under way when they were asked. */
	if (!now && page->answered == page->node_count)
		strcpy(row->state, "moving");
	page->vcpu_count++;
}

static double sort_key(const struct vcpu_row *row, enum top_sort sort)
{
	switch (sort) {
	case TOP_BY_RUNNING:
		return row->count[CORE];
	case TOP_BY_STALLED:
		return row->count[STALLED];
	case TOP_BY_MOVES:
		return row->moves;
	default:
		return 0;
	}
}

static int compare_vcpus(const void *a, const void *b, void *sort)
{
	const struct vcpu_row *x = a, *y = b;
	double x_key = sort_key(x, *(enum top_sort *)sort),
	       y_key = sort_key(y, *(enum top_sort *)sort);
	if (x_key != y_key)
		return x_key < y_key ? 1 : -1;
	return (x->number > y->number) - (x->number < y->number);
}

enum {
	V_NUMBER,
	V_NODE,
	V_STATE,
	V_RUN,
	V_WAIT,
	V_STALL,
	V_HALT,
	V_OTHER,
	V_LOCAL,
	V_STALLS,
	V_MOVES,
	V_WHERE,
	V_COLUMNS
};

/* Of the time in which it could have worked: on a core, and not waiting for a page. */
static double local_percent(const struct vcpu_row *row)
{
	double worked = row->count[CORE], stalled = row->count[STALLED];
	return worked < 0 || stalled < 0 ? TOP_UNKNOWN : top_percent(worked, worked + stalled);
}

static void put_vcpu(const void *ctx, unsigned int i, top_row cell)
{
	const struct page *page = ctx;
	const struct vcpu_row *row = &page->vcpu[i];
	double known = TOP_UNKNOWN;
	sprintf(cell[V_NUMBER], "%u%s", row->number, row->pinned ? "p" : "");
	strcpy(cell[V_NODE], row->node);
	strcpy(cell[V_STATE], row->state);
	for (int c = CORE; c <= HALTED; c++) {
		known = top_add(known, row->count[c]);
		cell_percent(cell[V_RUN + c - CORE], top_percent(row->count[c], page->ns));
	}
	double other = page->ns > known ? page->ns - known : 0;
	cell_percent(cell[V_OTHER], known < 0 ? TOP_UNKNOWN : top_percent(other, page->ns));
	cell_percent(cell[V_LOCAL], local_percent(row));
	cell_count(cell[V_STALLS], per_second(row->count[STALLS], page->ns));
	cell_count(cell[V_MOVES], per_second(row->moves, page->ns));
	memset(cell[V_WHERE], ' ', 6);
	cell_map(cell[V_WHERE] + 6, row->here, map_width(page));
}

static void put_vcpus(struct page *page, unsigned int room)
{
	struct top_column columns[V_COLUMNS] = {
		[V_NUMBER] = { "vCPU", 4, 0, false },
		[V_NODE] = { "node", 8, 0, true },
		[V_STATE] = { "state", 7, 3, true },
		[V_RUN] = { "run%", 4, 1, false },
		[V_WAIT] = { "core%", 5, 3, false },
		[V_STALL] = { "stall%", 6, 1, false },
		[V_HALT] = { "halt%", 5, 1, false },
		[V_OTHER] = { "other%", 6, 5, false },
		[V_LOCAL] = { "local%", 6, 2, false },
		[V_STALLS] = { "stalls", 6, 2, false },
		[V_MOVES] = { "moves", 5, 2, false },
		[V_WHERE] = { "", 6 + map_width(page), 4, true },
	};
	cell_map_title(columns[V_WHERE].title, "where", map_width(page));
	lines_table(&page->lines, columns, V_COLUMNS, put_vcpu, page, page->vcpu_count, room);
}

/* ---- pages ----------------------------------------------------------------------------------- */

static const json_t *hot_entry(const json_t *list, const json_t *gpa)
{
	size_t i;
	json_t *entry;
	json_array_foreach(list, i, entry)
	{
		if (json_equal(json_object_get(entry, "gpa"), gpa))
			return entry;
	}
	return NULL;
}

static struct page_row *page_row(struct page *page, uint64_t gpa)
{
	for (unsigned int i = 0; i < page->hot_count; i++)
		if (page->hot[i].gpa == gpa)
			return &page->hot[i];
	page->hot[page->hot_count] = (struct page_row){ .gpa = gpa, .at_stalls = TOP_UNKNOWN };
	return &page->hot[page->hot_count++];
}

/*
 * The nodes tell only the pages with most stalls. One that was not among them had no more than the
 * last that was, so at least what it has beyond that is new.
 */
static void take_hot(struct page *page, unsigned int n)
{
	const struct node_row *node = &page->node[n];
	const json_t *now = json_object_get(node->now, "hot_pages");
	const json_t *before = json_object_get(node->before, "hot_pages");
	double least = 0;
	if (!json_is_array(before))
		return;
	if (json_array_size(before) >= json_array_size(now) && json_array_size(before))
		least = number(json_array_get(before, json_array_size(before) - 1), "stalls");
	for (size_t i = 0; i < json_array_size(now) && i < PAGES_MAX; i++) {
		const json_t *entry = json_array_get(now, i), *gpa = json_object_get(entry, "gpa");
		const json_t *was = hot_entry(before, gpa);
		double is = number(entry, "stalls");
		double stalls = is - (was ? number(was, "stalls") : least);
		if (!json_is_string(gpa) || is < 0 || stalls <= 0)
			continue;
		struct page_row *row = page_row(page, strtoull(json_string_value(gpa), NULL, 16));
		row->stalls += stalls;
		if (n < MAP_MAX)
			row->by_node[n] += stalls;
		if (stalls > row->at_stalls) {
			row->at_stalls = stalls;
			row->at = json_object_get(entry, "at");
		}
	}
}

static int compare_pages(const void *a, const void *b)
{
	const struct page_row *x = a, *y = b;
	if (x->stalls != y->stalls)
		return x->stalls < y->stalls ? 1 : -1;
	return (x->gpa > y->gpa) - (x->gpa < y->gpa);
}

/* Symbols at the offsets that were touched, else the offsets. */
static void put_name(char *cell, const struct page *page, const struct page_row *row)
{
	const char *offset;
	json_t *count;
	size_t used = 0;
	json_object_foreach(row->at, offset, count)
	{
		uint64_t at = strtoull(offset, NULL, 16) & (PAGE_BYTES - 1);
		char name[160];
		if (!page->view->symbols ||
		    !guest_symbols_name(page->view->symbols, row->gpa + at, name, sizeof(name)))
			snprintf(name, sizeof(name), "+0x%" PRIx64, at);
		if (used + strlen(name) + 3 > TOP_CELL_MAX)
			break;
		used += (size_t)sprintf(cell + used, "%s%s", used ? ", " : "", name);
	}
}

enum { P_PAGE, P_STALLS, P_BY, P_NAME, P_COLUMNS };

static void put_page(const void *ctx, unsigned int i, top_row cell)
{
	const struct page *page = ctx;
	const struct page_row *row = &page->hot[i];
	sprintf(cell[P_PAGE], "0x%" PRIx64, row->gpa);
	cell_count(cell[P_STALLS], per_second(row->stalls, page->ns));
	memset(cell[P_BY], ' ', 3);
	cell_map(cell[P_BY] + 3, row->by_node, map_width(page));
	put_name(cell[P_NAME], page, row);
}

static void put_pages(struct page *page, unsigned int room)
{
	const char *name = page->view->symbols ? "touched there" : "touched there, at offsets";
	struct top_column columns[P_COLUMNS] = {
		[P_PAGE] = { "page", 13, 0, true },
		[P_STALLS] = { "stalls", 6, 0, false },
		[P_BY] = { "", 3 + map_width(page), 2, true },
		[P_NAME] = { "", 20, 1, true },
	};
	unsigned int used = 13 + 1 + 6 + 1 + 3 + map_width(page) + 1;
	columns[P_NAME].width = !page->view->width		? 160
				: page->view->width > used + 20 ? page->view->width - used
								: 20;
	strcpy(columns[P_NAME].title, name);
	cell_map_title(columns[P_BY].title, "by", map_width(page));
	lines_table(&page->lines, columns, P_COLUMNS, put_page, page, page->hot_count, room);
}

/* ---- the page -------------------------------------------------------------------------------- */

/* On how many nodes the base rule decides alone, as the learner lost to it. */
static unsigned int learners_off(const struct page *page)
{
	unsigned int count = 0;
	const json_t *node;
	size_t i;
	json_array_foreach(json_object_get(page->now, "nodes"), i, node) count +=
		number(json_object_get(node, "placement"), "learner_off") > 0;
	return count;
}

static void put_title(struct page *page)
{
	char name[POD_NAME_MAX], state[16], engine[16], policy[16], memory[TOP_CELL_MAX];
	char up[32] = "", pins[32] = "", off[32] = "";
	double seconds = number(page->now, "uptime_s");
	copy_text(name, sizeof(name), page->now, "pod");
	copy_text(state, sizeof(state), page->now, "state");
	copy_text(engine, sizeof(engine), page->now, "engine");
	cell_bytes(memory, number(page->now, "memory_bytes"));
	copy_text(policy, sizeof(policy), page->now, "policy");
	unsigned int pinned = 0;
	for (unsigned int i = 0; i < page->vcpu_count; i++)
		pinned += page->vcpu[i].pinned;
	if (pinned)
		snprintf(pins, sizeof(pins), ", %u pinned", pinned);
	if (learners_off(page))
		snprintf(off, sizeof(off), " (off on %u)", learners_off(page));
	if (seconds >= 0)
		snprintf(up, sizeof(up), " %.0f s", seconds);
	lines_text(&page->lines, "pod %s: %s%s, %s, %s, %u nodes, %u vCPUs, policy %s%s%s", name,
		   state, up, engine, memory, page->node_count, page->vcpu_count, policy, off,
		   pins);
}

static void put_shares(struct page *page)
{
	double sum[SEAT_COUNTS], whole = page->ns * page->vcpu_count;
	char cell[SEAT_COUNTS][TOP_CELL_MAX], interval[32];
	for (int c = 0; c < SEAT_COUNTS; c++) {
		sum[c] = TOP_UNKNOWN;
		for (unsigned int i = 0; i < page->vcpu_count; i++)
			sum[c] = top_add(sum[c], page->vcpu[i].count[c]);
		cell_percent(cell[c], top_percent(sum[c], whole));
	}
	snprintf(interval, sizeof(interval), page->ns > 0 ? "%.1f s" : "-", page->ns / 1e9);
	lines_text(&page->lines,
		   "%s, vCPUs: %s %% on a core, %s %% waiting for one, %s %% stalled, %s %% halted",
		   interval, cell[CORE], cell[CORE_WAIT], cell[STALLED], cell[HALTED]);
}

static void put_rates(struct page *page)
{
	double moves = TOP_UNKNOWN, stalls = TOP_UNKNOWN, messages = TOP_UNKNOWN,
	       bytes = TOP_UNKNOWN;
	struct pager_stats *times = calloc(1, sizeof(*times));
	char cell[6][TOP_CELL_MAX];
	for (unsigned int i = 0; i < page->vcpu_count; i++)
		moves = top_add(moves, page->vcpu[i].moves);
	for (unsigned int i = 0; i < page->node_count; i++) {
		const struct node_row *row = &page->node[i];
		stalls = top_add(stalls, stalls_of(row));
		messages = top_add(messages, grown(row->before, row->now, "messages"));
		bytes = top_add(bytes, grown(row->before, row->now, "bytes_out"));
		for (int b = 0; times && b < PAGER_BUCKETS; b++)
			times->stall_bucket[0][b] += row->times.stall_bucket[0][b];
	}
	cell_count(cell[0], per_second(moves, page->ns));
	cell_count(cell[1], per_second(stalls, page->ns));
	cell_time(cell[2], times ? quantile(times, 0.5) : TOP_UNKNOWN);
	cell_time(cell[3], times ? quantile(times, 0.99) : TOP_UNKNOWN);
	cell_count(cell[4], per_second(messages, page->ns));
	cell_bytes(cell[5], per_second(bytes, page->ns));
	lines_text(&page->lines,
		   "a second: %s moves, %s stalls (p50 %s, p99 %s), %s messages, %s B out", cell[0],
		   cell[1], cell[2], cell[3], cell[4], cell[5]);
	free(times);
}

/* Line by line in turn, so that each group gets a third, or what it needs. */
static void share_out(unsigned int lines, const unsigned int want[GROUPS],
		      unsigned int ret_room[GROUPS])
{
	bool given = true;
	memset(ret_room, 0, GROUPS * sizeof(*ret_room));
	while (lines && given) {
		given = false;
		for (int g = 0; g < GROUPS && lines; g++)
			if (ret_room[g] < want[g]) {
				ret_room[g]++;
				lines--;
				given = true;
			}
	}
}

static void put_all(struct page *page)
{
	const struct top_view *view = page->view;
	unsigned int want[GROUPS] = { page->node_count, page->vcpu_count, page->hot_count };
	unsigned int room[GROUPS], fixed = FIXED_LINES + (view->last_line ? 1 : 0);
	memcpy(room, want, sizeof(room));
	if (view->height)
		share_out(view->height > fixed ? view->height - fixed : 0, want, room);
	put_title(page);
	put_shares(page);
	put_rates(page);
	put_nodes(page, room[0]);
	put_vcpus(page, room[1]);
	if (page->hot_count)
		put_pages(page, room[2]);
	if (!view->last_line || (view->height && page->lines.count >= view->height))
		return;
	while (view->height && page->lines.count + 1 < view->height)
		lines_put(&page->lines, false, "");
	lines_put(&page->lines, false, view->last_line);
}

static void take_all(struct page *page)
{
	const json_t *before = json_object_get(page->before, "nodes");
	const json_t *nodes = json_object_get(page->now, "nodes");
	for (size_t i = 0; i < json_array_size(nodes) && i < NODES_MAX; i++)
		take_node(page, json_array_get(nodes, i), json_array_get(before, i));
	for (unsigned int v = 0; v < VCPUS_MAX; v++)
		take_vcpu(page, v);
	qsort_r(page->vcpu, page->vcpu_count, sizeof(*page->vcpu), compare_vcpus,
		&(enum top_sort){ page->view->sort });
	for (unsigned int n = 0; n < page->node_count; n++)
		take_hot(page, n);
	qsort(page->hot, page->hot_count, sizeof(*page->hot), compare_pages);
	unsigned int most = page->view->height ? PAGES_MAX : PAGES_IN_LINES;
	if (page->hot_count > most)
		page->hot_count = most;
}

/* Another pod has taken the place of the one of before. */
static bool is_another(const json_t *before, const json_t *now)
{
	return number(now, "uptime_s") < number(before, "uptime_s") ||
	       !json_equal(json_object_get(before, "pod"), json_object_get(now, "pod"));
}

char *top_frame(const json_t *before, const json_t *now, const struct top_view *view)
{
	char *text = NULL;
	size_t size;
	struct page page = { .view = view, .lines.view = view, .now = now };
	if (before && !is_another(before, now))
		page.before = before;
	page.node = calloc(NODES_MAX, sizeof(*page.node));
	page.vcpu = calloc(VCPUS_MAX, sizeof(*page.vcpu));
	page.hot = calloc((size_t)NODES_MAX * PAGES_MAX, sizeof(*page.hot));
	page.lines.out = page.node && page.vcpu && page.hot ? open_memstream(&text, &size) : NULL;
	if (page.lines.out) {
		take_all(&page);
		put_all(&page);
		fclose(page.lines.out);
	}
	free(page.node);
	free(page.vcpu);
	free(page.hot);
	return text;
}
