/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eagre trace: records the stalls, moves and decisions of a running pod, for eagre replay.
 *
 * The nodes keep what happens while somebody asks for it again and again; here it is put in one order,
 * by the pod's clock, and written when all of it is there: after so many seconds, at Ctrl-C, when the
 * pod ends, or when there is as much as this process keeps. A file that the disk had no room for has
 * no end, and is refused.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/pod_socket.h"
#include "core/placement_trace.h"
#include "node/pod_config.h"

#define SECONDS_MAX 3600
#define BYTES_MAX   (1ull << 30) /* of memory, unless --memory says otherwise */
#define TURN_NS	    250000000
#define MISSES_MAX  3 /* in a row: on a busy host an answer may be cut off, and is lost */

struct trace {
	struct placement_trace_event *event;
	size_t count, room;
	struct placement_trace_writer head;
	uint64_t begin_ns, lost, move_ns;
	uint64_t bytes, bytes_max; /* of memory */
	const char *ended;	   /* why there is no more, or NULL */
	uint32_t node_count, vcpu_count, asked, misses;
	uint16_t place[VCPUS_MAX]; /* at the beginning; NODE_NONE: on its way */
	uint64_t told_ns[VCPUS_MAX];
};

static void usage(FILE *to)
{
	fputs("usage: eagre trace FILE [--seconds N] [--memory SIZE] [--pod NAME] [--node NAME] [--socket PATH]\n"
	      "\n"
	      "Records where the vCPUs of a running guest stall, what the policy decides and why, what comes of it,\n"
	      "and where they go, for N seconds (10), until Ctrl-C or until the pod ends, and writes that to FILE for\n"
	      "eagre replay. One at a time: two would share what there is.\n"
	      "\n"
	      "  --seconds N    for so long\n"
	      "  --memory SIZE  end when so much is kept (1G, some ten million events)\n"
	      "  --pod NAME     which pod, when nodes of several run here\n"
	      "  --node NAME    ask this node of the pod (any will do)\n"
	      "  --socket PATH  ask the node behind this socket\n",
	      to);
}

static uint64_t number(const json_t *object, const char *key)
{
	json_int_t value = json_integer_value(json_object_get(object, key));
	return value > 0 ? (uint64_t)value : 0;
}

static bool add(struct trace *t, const struct placement_trace_event *event)
{
	if (t->count == t->room) {
		size_t room = t->room ? 2 * t->room : 4096;
		struct placement_trace_event *more =
			reallocarray(t->event, room, sizeof(*t->event));
		if (!more)
			return false;
		t->event = more;
		t->room = room;
	}
	t->event[t->count++] = *event;
	t->bytes += sizeof(*event) + (event->record ? sizeof(*event->record) : 0);
	return true;
}

/* What makes no sense is left out: another host said it. */
static bool take_event(struct trace *t, const json_t *entry)
{
	const char *line = json_string_value(entry);
	struct placement_trace_event event;
	struct placement_record record, *own;
	if (!line ||
	    placement_trace_get(&t->head, line, json_string_length(entry), &event, &record) < 0)
		return true;
	if (event.what == PLACEMENT_TRACE_DECISION) {
		own = malloc(sizeof(*own));
		if (!own)
			return false;
		*own = record;
		event.record = own;
	}
	bool added = add(t, &event);
	if (!added)
		free((struct placement_record *)(uintptr_t)event.record);
	return added;
}

/*
 * The first answer of a node says where the trace begins. A vCPU that moves may be told of by two
 * nodes, which were asked at different times: the later counts.
 */
static void begin(struct trace *t, const json_t *node, uint16_t n)
{
	uint64_t time_ns = number(node, "time_ns");
	const json_t *entry;
	size_t i;
	if (time_ns > t->begin_ns)
		t->begin_ns = time_ns;
	t->move_ns += number(node, "move_ns") / t->node_count;
	json_array_foreach(json_object_get(node, "here"), i, entry)
	{
		json_int_t vcpu = json_integer_value(entry);
		if (vcpu < 0 || vcpu >= (json_int_t)t->vcpu_count || time_ns < t->told_ns[vcpu])
			continue;
		t->place[vcpu] = n;
		t->told_ns[vcpu] = time_ns;
	}
}

/* False: it is over, and it has been said why. */
static bool take_node(struct trace *t, const json_t *node, uint16_t n)
{
	const json_t *entry;
	size_t i;
	/* One that was late for once goes on recording: an hour of what is there is worth something. */
	if (json_object_get(node, "error") && t->asked) {
		t->lost++;
		return true;
	}
	if (json_object_get(node, "error")) {
		complain("node %s: %s", json_string_value(json_object_get(node, "name")) ?: "?",
			 json_string_value(json_object_get(node, "error")) ?: "?");
		return false;
	}
	/* A node that begins only now has forgotten what came before. */
	if (t->asked && json_is_true(json_object_get(node, "begun")))
		t->lost++;
	t->lost += number(node, "lost");
	if (!t->asked)
		begin(t, node, n);
	json_array_foreach(json_object_get(node, "events"), i, entry)
	{
		if (!take_event(t, entry)) {
			t->ended = "there is no memory for more";
			break;
		}
	}
	return true;
}

static bool ask(struct trace *t, const char *path)
{
	char error[512];
	json_t *answer = NULL;
	int r = pod_try(path, "trace", &answer, error, sizeof(error));
	const json_t *nodes = json_object_get(answer, "nodes");
	bool well = true;
	if (r == -EAGAIN && t->misses++ < MISSES_MAX) {
		t->lost += t->asked > 0;
		return true;
	}
	if (r < 0 && t->asked) {
		t->ended = "the pod has ended, or the node that was asked";
		return true;
	}
	if (r < 0) {
		complain("%s", error);
		return false;
	}
	t->misses = 0;
	if (!t->asked) {
		t->node_count = (uint32_t)json_array_size(nodes);
		t->vcpu_count = (uint32_t)number(answer, "vcpus");
		placement_trace_begin(&t->head, t->node_count, t->vcpu_count, 1);
	}
	if (t->node_count < 2 || t->node_count > NODES_MAX || t->vcpu_count == 0 ||
	    t->vcpu_count > VCPUS_MAX || json_array_size(nodes) != t->node_count) {
		const char *said = json_string_value(json_object_get(answer, "error"));
		complain("%s", said ?: "a pod of one node has nothing to trace");
		well = false;
	}
	for (uint32_t n = 0; well && n < t->node_count; n++)
		well = take_node(t, json_array_get(nodes, n), (uint16_t)n);
	t->asked++;
	if (well && t->bytes >= t->bytes_max)
		t->ended = "there are more than this command keeps";
	json_decref(answer);
	return well;
}

static int by_time(const void *a, const void *b)
{
	const struct placement_trace_event *x = a, *y = b;
	if (x->at_ns != y->at_ns)
		return x->at_ns < y->at_ns ? -1 : 1;
	/* What a node decides at a stall is behind it, and first the threshold. */
	if (x->what != y->what)
		return x->what < y->what ? -1 : 1;
	return x->record && y->record ? x->record->move - y->record->move : 0;
}

static void put(FILE *file, struct placement_trace_writer *writer,
		const struct placement_trace_event *event)
{
	char line[PLACEMENT_TRACE_LINE];
	if (placement_trace_put(writer, event, line, sizeof(line)) > 0)
		fputs(line, file);
}

/* The first nodes to answer have recorded who came to them before the last one has answered. */
static void find_places(struct trace *t)
{
	for (size_t i = 0; i < t->count; i++)
		if (t->event[i].what == PLACEMENT_TRACE_MOVE && t->event[i].at_ns < t->begin_ns)
			t->place[t->event[i].vcpu] = t->event[i].node;
}

/* A load and a pin are so until there is another: those from before count from the beginning. */
static bool is_state(const struct placement_trace_event *event)
{
	return event->what == PLACEMENT_TRACE_LOAD || event->what == PLACEMENT_TRACE_PIN;
}

/*
 * Times from the trace's beginning on. Stalls and choices that began before are not in it; of a move
 * that did there is what was left of it.
 */
static void put_event(FILE *file, struct trace *t, struct placement_trace_writer *writer,
		      struct placement_trace_event *event)
{
	if (event->at_ns < t->begin_ns && !is_state(event))
		return;
	event->at_ns -= event->at_ns < t->begin_ns ? event->at_ns : t->begin_ns;
	if (event->took_ns > event->at_ns && event->what != PLACEMENT_TRACE_MOVE)
		return;
	if (event->took_ns > event->at_ns)
		event->took_ns = event->at_ns;
	if (event->what == PLACEMENT_TRACE_MOVE)
		t->place[event->vcpu] = event->node;
	else if (event->what == PLACEMENT_TRACE_STALL && t->place[event->vcpu] == NODE_NONE)
		return;
	put(file, writer, event);
}

static void put_events(FILE *file, struct trace *t, struct placement_trace_writer *writer)
{
	for (uint32_t v = 0; v < t->vcpu_count; v++) {
		struct placement_trace_event place = { .what = PLACEMENT_TRACE_MOVE,
						       .vcpu = v,
						       .node = t->place[v] };
		if (t->place[v] != NODE_NONE)
			put(file, writer, &place);
	}
	for (size_t i = 0; i < t->count; i++)
		put_event(file, t, writer, &t->event[i]);
}

static int write_trace(struct trace *t, const char *path)
{
	struct placement_trace_writer writer;
	char line[PLACEMENT_TRACE_LINE];
	FILE *file = fopen(path, "we");
	uint64_t move_ns = t->move_ns < PLACEMENT_MOVE_NS_MAX ? t->move_ns : PLACEMENT_MOVE_NS_MAX;
	if (!file) {
		complain("%s: %s", path, strerror(errno));
		return STATUS_FAILED;
	}
	if (t->count)
		qsort(t->event, t->count, sizeof(*t->event), by_time);
	find_places(t);
	placement_trace_begin(&writer, t->node_count, t->vcpu_count, move_ns ? move_ns : 1);
	placement_trace_head(&writer, line, sizeof(line));
	fputs(line, file);
	put_events(file, t, &writer);
	placement_trace_end(&writer, line, sizeof(line));
	fputs(line, file);
	bool failed = ferror(file);
	if (fclose(file) != 0 || failed) {
		complain("%s: %s", path, strerror(errno));
		return STATUS_FAILED;
	}
	printf("%" PRIu64 " events%s%s%s\n", writer.lines, t->lost ? ", and some were lost" : "",
	       t->ended ? "; " : "", t->ended ? t->ended : "");
	return STATUS_OK;
}

static uint64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int record(const char *socket, const char *path, uint32_t seconds, uint64_t bytes_max)
{
	const struct timespec turn = { .tv_nsec = TURN_NS };
	sigset_t interrupt;
	struct trace *t = calloc(1, sizeof(*t));
	uint64_t end_ns = now_ns() + seconds * 1000000000ull;
	bool well;
	if (!t) {
		complain("no memory");
		return STATUS_FAILED;
	}
	t->bytes_max = bytes_max;
	for (uint32_t v = 0; v < VCPUS_MAX; v++)
		t->place[v] = NODE_NONE;
	/* Ctrl-C is taken between two answers: one that it broke off would be no answer. */
	sigemptyset(&interrupt);
	sigaddset(&interrupt, SIGINT);
	sigprocmask(SIG_BLOCK, &interrupt, NULL);
	well = ask(t, socket);
	for (bool over = false; well && !over && !t->ended && now_ns() < end_ns;
	     well = ask(t, socket))
		over = sigtimedwait(&interrupt, NULL, &turn) >= 0;
	if (well && !t->asked) {
		complain("%s: no answer", socket);
		well = false;
	}
	int status = well ? write_trace(t, path) : STATUS_FAILED;
	for (size_t i = 0; i < t->count; i++)
		free((struct placement_record *)(uintptr_t)t->event[i].record);
	free(t->event);
	free(t);
	return status;
}

int cmd_trace(int argc, char **argv)
{
	static const struct option options[] = {
		POD_SEARCH_OPTIONS,
		{ "seconds", required_argument, NULL, 't' },
		{ "memory", required_argument, NULL, 'm' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct pod_search search = { 0 };
	uint64_t bytes_max = BYTES_MAX;
	long seconds = 10;
	char *end;
	int option;
	while ((option = getopt_long(argc, argv, ":h", options, NULL)) >= 0) {
		switch (option) {
		case 'h':
			usage(stdout);
			return STATUS_OK;
		case 't':
			seconds = strtol(optarg, &end, 10);
			if (end != optarg && !*end && seconds >= 1 && seconds <= SECONDS_MAX)
				break;
			complain("--seconds %s: must be a number from 1 to %d", optarg,
				 SECONDS_MAX);
			return STATUS_USAGE;
		case 'm':
			if (size_parse(optarg, &bytes_max) == 0)
				break;
			complain("--memory %s: must be a size, as 512M", optarg);
			return STATUS_USAGE;
		default:
			if (!pod_search_take(&search, option, optarg))
				return complain_option(argv, option);
		}
	}
	if (argc - optind != 1) {
		complain("trace takes the name of a file; see eagre trace --help");
		return STATUS_USAGE;
	}
	return pod_find(&search) ? record(search.path, argv[optind], (uint32_t)seconds, bytes_max)
				 : STATUS_FAILED;
}
