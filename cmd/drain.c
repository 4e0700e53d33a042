/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eagre drain: a node of a running pod gives away what it has, and leaves.
 *
 * The pod does that, whether anybody looks or not; this is who asks for it, and looks on: by what the
 * pod says of that node a few times a second. It has left when it is no member any more. If the only
 * node of the pod here is the one that leaves, nobody is there to say so afterwards: so its last word
 * is waited for, too (STATUS_END), which is also how the end of the pod comes to be known, and why.
 *
 * Tested in tests/cmd/drain and tests/pod/drain.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/pod_socket.h"

#define NS_PER_S    1000000000ull
#define TURN_NS	    200000000ull
#define TURN_NS_MAX 2000000000ull   /* where the answer takes its time: all nodes make it */
#define LINE_NS	    (5 * NS_PER_S)  /* between lines for a file */
#define SILENCE_NS  (15 * NS_PER_S) /* of a node that is asked, which is given up then */
#define BEGIN_NS    (40 * NS_PER_S) /* until all know of it: somebody may be about to join */
#define SAMPLES	    20		    /* the rate is of so many turns, at most */
#define WAIT_S_MAX  1000000
#define NO_LIMIT    UINT64_MAX

struct drain {
	struct pod_search search;
	const char *node;
	bool cancel, on_terminal;
	uint64_t wait_ns; /* NO_LIMIT: until it has left */
	int end_fd;

	uint64_t begun_ns, heard_ns, line_ns, turn_ns;
	bool leaves; /* the pod has said so */
	char holds[80];
	struct sample {
		uint64_t ns;
		json_int_t bytes;
	} sample[SAMPLES];
	unsigned int sample_count;
};

enum outlook { GOES_ON, HAS_LEFT, HAS_FAILED };

static volatile sig_atomic_t end_signal;

static void on_signal(int number)
{
	end_signal = number;
}

static void usage(FILE *to)
{
	fputs("usage: eagre drain NODE [--cancel] [--wait SECONDS] [--pod NAME] [--node NAME]\n"
	      "                   [--socket PATH]\n"
	      "\n"
	      "Has a node of a running pod give its memory and its vCPUs to the others and leave, while the\n"
	      "guest goes on. It waits until the node holds nothing and its host can be switched off; Ctrl-C\n"
	      "ends the waiting, not the leaving. The others must have room for it. The pod's first node and its\n"
	      "steward stay, and so do all nodes of a pod with disks or cards, and of eagre run.\n"
	      "\n"
	      "  --cancel        NODE stays after all\n"
	      "  --wait SECONDS  wait no longer than that; 0: not at all (until it has left)\n"
	      "  --pod NAME      which pod, when nodes of several run here\n"
	      "  --node NAME     say it to this node of the pod (any will do)\n"
	      "  --socket PATH   say it to the node behind this socket\n",
	      to);
}

static uint64_t now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* ---- what is shown meanwhile ----------------------------------------------------------------- */

static json_int_t number(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

static void size_text(char *text, size_t size, json_int_t bytes)
{
	if (bytes >= (json_int_t)1 << 30)
		snprintf(text, size, "%.1fG", (double)bytes / (1 << 30));
	else if (bytes >= 1 << 20)
		snprintf(text, size, "%lldM", bytes >> 20);
	else
		snprintf(text, size, "%lldK", bytes >> 10);
}

/* Bytes a second that it gave away of late; 0: it does not get less. */
static double rate_of(const struct drain *d)
{
	unsigned int count = d->sample_count < SAMPLES ? d->sample_count : SAMPLES;
	const struct sample *last, *first;
	if (count < 2)
		return 0;
	last = &d->sample[(d->sample_count - 1) % SAMPLES];
	first = &d->sample[(d->sample_count - count) % SAMPLES];
	if (first->bytes <= last->bytes || last->ns <= first->ns)
		return 0;
	return (double)(first->bytes - last->bytes) * 1e9 / (double)(last->ns - first->ns);
}

/* Into d->holds; a node that says nothing at the moment leaves it as it is. */
static void take_holds(struct drain *d, const json_t *node)
{
	json_int_t bytes = number(node, "resident_bytes"), vcpus = number(node, "vcpus");
	char size[32];
	if (json_object_get(node, "error") || !json_object_get(node, "resident_bytes"))
		return;
	if (bytes < 0)
		bytes = 0;
	d->sample[d->sample_count++ % SAMPLES] = (struct sample){ now_ns(), bytes };
	size_text(size, sizeof(size), bytes);
	snprintf(d->holds, sizeof(d->holds), "holds %s and %lld vCPU%s", size, vcpus,
		 vcpus == 1 ? "" : "s");
}

static void show(struct drain *d)
{
	double rate = rate_of(d);
	char text[80] = "", size[32];
	if (!d->holds[0])
		return;
	if (rate >= 1) {
		double left_s = (double)d->sample[(d->sample_count - 1) % SAMPLES].bytes / rate;
		size_text(size, sizeof(size), (json_int_t)rate);
		snprintf(text, sizeof(text), ", %s a second, %.0f s more", size,
			 left_s < 1e6 ? left_s + 0.5 : 1e6);
	}
	if (d->on_terminal) {
		printf("\r\033[Knode %s %s%s", d->node, d->holds, text);
	} else if (now_ns() >= d->line_ns) {
		d->line_ns = now_ns() + LINE_NS;
		printf("node %s %s%s\n", d->node, d->holds, text);
	}
	fflush(stdout);
}

/* What follows is a line of its own. */
static void clear_line(const struct drain *d)
{
	if (d->on_terminal)
		fputs("\r\033[K", stdout);
	fflush(stdout);
}

/* How it is called off: the same pod, and no more words than it takes. */
static const char *cancel_words(const struct drain *d, char *text, size_t size)
{
	snprintf(text, size, "eagre drain %s --cancel%s%s", d->node, d->search.pod ? " --pod " : "",
		 d->search.pod ? d->search.pod : "");
	return text;
}

/* ---- how it goes ----------------------------------------------------------------------------- */

static const json_t *find(const json_t *answer, const char *name)
{
	const json_t *node;
	size_t i;
	json_array_foreach(json_object_get(answer, "nodes"), i, node)
	{
		const char *is = json_string_value(json_object_get(node, "name"));
		if (is && strcmp(is, name) == 0)
			return node;
	}
	return NULL;
}

/* The node that was asked has ended, or is about to. */
static enum outlook judge_end(const struct drain *d)
{
	json_t *end = pod_end_take(d->end_fd);
	const char *left = json_string_value(json_object_get(end, "left"));
	const char *why = json_string_value(json_object_get(end, "error"));
	enum outlook outlook = HAS_FAILED;
	clear_line(d);
	if (left && strcmp(left, d->node) == 0)
		outlook = HAS_LEFT;
	else if (left)
		complain("node %s, which was asked how it goes, has left itself: ask again", left);
	else if (why)
		complain("the pod ended before node %s had left: %s", d->node, why);
	else
		complain("the node that was asked has ended without a word");
	json_decref(end);
	return outlook;
}

static enum outlook judge_silence(struct drain *d, int error, const char *line)
{
	if (error != -EAGAIN)
		return judge_end(d);
	if (now_ns() - d->heard_ns < SILENCE_NS)
		return GOES_ON;
	clear_line(d);
	complain("%s", line);
	return HAS_FAILED;
}

static enum outlook judge_answer(struct drain *d, const json_t *answer)
{
	const json_t *node = find(answer, d->node);
	const char *state = json_string_value(json_object_get(node, "state"));
	d->heard_ns = now_ns();
	if (!json_is_array(json_object_get(answer, "nodes")) || (node && !state)) {
		clear_line(d);
		complain("the node's answer makes no sense");
		return HAS_FAILED;
	}
	/* One that joins is another of that name. */
	if (!node || (d->leaves && strcmp(state, "joins") == 0))
		return HAS_LEFT;
	if (strcmp(state, "member") != 0) {
		d->leaves = true;
		take_holds(d, node);
		show(d);
		return GOES_ON;
	}
	if (!d->leaves && now_ns() - d->begun_ns < BEGIN_NS)
		return GOES_ON;
	clear_line(d);
	if (d->leaves)
		complain("node %s stays: somebody has cancelled that it leaves", d->node);
	else
		complain("node %s does not leave: not all nodes have answered", d->node);
	return HAS_FAILED;
}

static enum outlook look(struct drain *d)
{
	json_t *answer = NULL;
	char error[512];
	enum outlook outlook;
	uint64_t asked_ns = now_ns();
	int r = pod_try(d->search.path, "status", &answer, error, sizeof(error));
	d->turn_ns = TURN_NS + 4 * (now_ns() - asked_ns);
	if (end_signal) {
		json_decref(answer);
		return GOES_ON;
	}
	outlook = r < 0 ? judge_silence(d, r, error) : judge_answer(d, answer);
	json_decref(answer);
	return outlook;
}

/* ---- waiting --------------------------------------------------------------------------------- */

/* Signals come while it waits, and while it asks; not in between. */
static void take_signals(void)
{
	static const int ends[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction action = { .sa_handler = on_signal }; /* no SA_RESTART */
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		sigaction(ends[i], &action, NULL);
}

/* True: the node that was asked has said its last word. */
static bool wait_turn(const struct drain *d)
{
	struct pollfd fd = { .fd = d->end_fd, .events = POLLIN };
	uint64_t ns = d->turn_ns < TURN_NS_MAX ? d->turn_ns : TURN_NS_MAX;
	struct timespec turn = { .tv_sec = (time_t)(ns / NS_PER_S),
				 .tv_nsec = (long)(ns % NS_PER_S) };
	sigset_t all, before;
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &before);
	int n = end_signal ? 0 : ppoll(&fd, 1, &turn, &before);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return n > 0;
}

static int interrupted(const struct drain *d)
{
	char cancel[256];
	clear_line(d);
	complain("node %s leaves all the same; it stays by: %s", d->node,
		 cancel_words(d, cancel, sizeof(cancel)));
	signal(end_signal, SIG_DFL);
	raise(end_signal);
	return STATUS_FAILED;
}

static int late(const struct drain *d)
{
	char cancel[256];
	clear_line(d);
	complain("node %s %s after %llu s, and leaves all the same; it stays by: %s", d->node,
		 d->holds[0] ? d->holds : "has not left", d->wait_ns / NS_PER_S,
		 cancel_words(d, cancel, sizeof(cancel)));
	return STATUS_FAILED;
}

static int watch(struct drain *d)
{
	enum outlook outlook = GOES_ON;
	while (outlook == GOES_ON) {
		outlook = look(d);
		if (outlook != GOES_ON)
			break;
		if (end_signal)
			return interrupted(d);
		if (d->wait_ns != NO_LIMIT && now_ns() - d->begun_ns >= d->wait_ns)
			return late(d);
		if (wait_turn(d))
			outlook = judge_end(d);
	}
	clear_line(d);
	if (outlook == HAS_FAILED)
		return STATUS_FAILED;
	printf("node %s holds nothing and can be switched off\n", d->node);
	return STATUS_OK;
}

/* True: it leaves, or that is not known yet. */
static bool begin(struct drain *d)
{
	json_t *answer = NULL;
	char request[POD_WORD_MAX + 16], error[512];
	const char *done, *refused;
	snprintf(request, sizeof(request), "drain %s", d->node);
	int r = pod_try(d->search.path, request, &answer, error, sizeof(error));
	if (r == -EAGAIN && d->wait_ns)
		return true;
	if (r < 0) {
		complain("%s", error);
		return false;
	}
	done = json_string_value(json_object_get(answer, "done"));
	refused = json_string_value(json_object_get(answer, "error"));
	if (done)
		printf("%s\n", done);
	else
		complain("%s", refused ? refused : "the node's answer makes no sense");
	fflush(stdout);
	json_decref(answer);
	return done;
}

static int drain(struct drain *d)
{
	const char *type = getenv("TERM");
	int status = STATUS_FAILED;
	d->search.avoid = d->node;
	if (!pod_word("node", d->node) || !pod_find(&d->search))
		return STATUS_FAILED;
	if (d->cancel) {
		char request[POD_WORD_MAX + 16];
		snprintf(request, sizeof(request), "keep %s", d->node);
		return pod_tell(d->search.path, request);
	}
	d->on_terminal = isatty(STDOUT_FILENO) && type && strcmp(type, "dumb") != 0;
	d->begun_ns = d->heard_ns = now_ns();
	d->line_ns = d->begun_ns + LINE_NS;
	d->end_fd = pod_end_open(d->search.path);
	if (begin(d)) {
		take_signals();
		status = d->wait_ns ? watch(d) : STATUS_OK;
	}
	if (d->end_fd >= 0)
		close(d->end_fd);
	return status;
}

static bool take_wait(const char *text, uint64_t *ret_ns)
{
	char *end;
	errno = 0;
	unsigned long seconds = strtoul(text, &end, 10);
	if (errno || *text < '0' || *text > '9' || *end || seconds > WAIT_S_MAX)
		return false;
	*ret_ns = seconds * NS_PER_S;
	return true;
}

int cmd_drain(int argc, char **argv)
{
	static const struct option options[] = {
		{ "cancel", no_argument, NULL, 'c' },
		{ "wait", required_argument, NULL, 'w' },
		POD_SEARCH_OPTIONS,
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct drain d = { .wait_ns = NO_LIMIT };
	int option;
	while ((option = getopt_long(argc, argv, ":h", options, NULL)) >= 0) {
		switch (option) {
		case 'c':
			d.cancel = true;
			break;
		case 'w':
			if (take_wait(optarg, &d.wait_ns))
				break;
			complain("--wait %s: give whole seconds, 0 to %d", optarg, WAIT_S_MAX);
			return STATUS_USAGE;
		case 'h':
			usage(stdout);
			return STATUS_OK;
		default:
			if (!pod_search_take(&d.search, option, optarg))
				return complain_option(argv, option);
		}
	}
	if (argc - optind != 1) {
		complain("drain takes a node's name; see eagre drain --help");
		return STATUS_USAGE;
	}
	if (d.cancel && d.wait_ns != NO_LIMIT) {
		complain("--cancel waits for nothing: leave out --wait");
		return STATUS_USAGE;
	}
	d.node = argv[optind];
	return drain(&d);
}
