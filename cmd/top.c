/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eagre top: what a pod does, on a page that is renewed every second, or as lines for a file.
 *
 * top_frame.c makes the page; here are the clock, the signals and the terminal. The page is on the
 * terminal's other screen, and each is one write, without clearing first, so nothing flickers. However
 * it ends, the terminal is as it was: by q, Ctrl-C or Ctrl-Z, by SIGTERM or SIGHUP, or because the
 * pod has ended, when the last page stays on the screen.
 *
 * Signals are taken in ppoll() only, but those that end it interrupt asking and writing, too: a node
 * that does not answer, and a terminal that nobody reads, hold up nobody.
 *
 * Tested in tests/pod/top and tests/cmd/top_signal.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/pod_socket.h"
#include "cmd/top_frame.h"

#define NS_PER_S       1000000000ull
#define INTERVAL_S     1.0
#define INTERVAL_S_MIN 0.1
#define INTERVAL_S_MAX 3600.0
#define FIRST_NS       300000000ull /* until the first page that has rates */
#define RESTORE_MS     500

/* Other screen, no cursor; and back. Each page begins at the top and clears what it does not write. */
#define ENTER "\033[?1049h\033[?25l"
#define LEAVE "\033[m\033[?25h\033[?1049l"
#define HOME  "\033[H"

#define KEYS "q quits; vCPUs by: v number, r run, s stall, m moves"

struct top {
	struct pod_search search;
	struct top_view view;
	bool batch;
	double interval_s;
	unsigned long count; /* 0: until it is ended */

	json_t *before, *now;
	char note[512]; /* why the page is not the newest; empty: it is */
	bool have_keys, on_page;
	struct termios mode; /* as it was */
};

static volatile sig_atomic_t end_signal, stop_signal, resized;

static void on_signal(int number)
{
	if (number == SIGWINCH)
		resized = 1;
	else if (number == SIGTSTP)
		stop_signal = 1;
	else if (number != SIGCONT)
		end_signal = number;
}

static void usage(FILE *to)
{
	fputs("usage: eagre top [--batch] [--interval S] [--count N] [--map FILE]\n"
	      "                 [--pod NAME] [--node NAME] [--socket PATH]\n"
	      "\n"
	      "Shows what a pod with a node on this machine does, again and again. q or Ctrl-C ends it; v, r,\n"
	      "s and m sort vCPUs by number, time on a core, time stalled, moves.\n"
	      "\n"
	      "  --interval S   seconds between pages (1)\n"
	      "  --count N      end after so many\n"
	      "  --batch        plain lines, for a file or a pipe\n"
	      "  --map FILE     name pages of the guest's kernel by this System.map, or by what root reads\n"
	      "                 from /proc/kallsyms in the guest. The guest's kernel wants the word nokaslr\n"
	      "                 then: one that moves itself has other things there\n"
	      "  --pod NAME     which pod, when nodes of several run here\n"
	      "  --node NAME    ask this node (any gives the same answer, but for times)\n"
	      "  --socket PATH  ask the node behind this socket\n"
	      "\n"
	      "All numbers are of the last interval, and counts are a second.\n"
	      "\n"
	      "Nodes: vCPUs that are here; memory owned and shared (copies for reading), of what the node\n"
	      "has promised; stalls, and the time that vCPUs stalled here by kind, where 100 is one vCPU all\n"
	      "the time: zero (a page's first touch), read, write, upgrade (written to while others had\n"
	      "copies); how long stalls took (p50, p99), which is a round trip or more; messages and bytes\n"
	      "sent.\n"
	      "vCPUs: of its time run (on a core), core (ready, but the host had no core for it), stall\n"
	      "(waiting for a page), halt (idle), other (waiting for a device, or moving); where it was: a\n"
	      "character a node, # all of the time, 1 to 9 tenths, + less, . none. How many of its touches\n"
	      "were of pages that were there nobody sees, since those cost nothing; what the others cost is\n"
	      "stalls and stall%; and local% is run% of run% and stall%: 100 never waits for a page.\n"
	      "Pages: those with most stalls, first touches left out; at least so many a second; by which\n"
	      "nodes, in tenths; and at which offsets, or symbols with --map.\n",
	      to);
}

/* ---- the terminal ---------------------------------------------------------------------------- */

static void write_all(const char *text, size_t size)
{
	while (size && !end_signal) {
		ssize_t done = write(STDOUT_FILENO, text, size);
		if (done < 0 && errno != EINTR)
			return;
		if (done > 0) {
			text += done;
			size -= (size_t)done;
		}
	}
}

static void leave_page(struct top *t)
{
	struct pollfd terminal = { .fd = STDOUT_FILENO, .events = POLLOUT };
	if (!t->on_page)
		return;
	t->on_page = false;
	/* One that takes nothing would hold us up here for good. */
	if (poll(&terminal, 1, RESTORE_MS) != 1)
		tcflush(STDOUT_FILENO, TCOFLUSH);
	(void)!write(STDOUT_FILENO, LEAVE, strlen(LEAVE));
	if (t->have_keys)
		tcsetattr(STDIN_FILENO, TCSANOW, &t->mode);
}

static void enter_page(struct top *t)
{
	if (t->have_keys) {
		struct termios mode = t->mode;
		mode.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
		mode.c_cc[VMIN] = 1;
		mode.c_cc[VTIME] = 0;
		tcsetattr(STDIN_FILENO, TCSANOW, &mode);
	}
	t->on_page = true;
	write_all(ENTER, strlen(ENTER));
}

static void take_size(struct top_view *view)
{
	struct winsize size = { 0 };
	ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
	view->width = size.ws_col ? size.ws_col : 80;
	view->height = size.ws_row ? size.ws_row : 24;
}

/* Each line clears what is behind it, the last what is below. */
static void show_page(const char *frame)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	if (!out)
		return;
	fputs(HOME, out);
	for (const char *line = frame; *line;) {
		const char *end = strchr(line, '\n');
		fprintf(out, "%s%.*s\033[K", line == frame ? "" : "\r\n", (int)(end - line), line);
		line = end + 1;
	}
	fputs("\033[J", out);
	if (fclose(out) == 0)
		write_all(text, size);
	free(text);
}

static void show(struct top *t)
{
	struct top_view view = t->view;
	if (!t->batch) {
		take_size(&view);
		view.styled = true;
		view.last_line = t->note[0] ? t->note : KEYS;
	}
	char *frame = top_frame(t->before, t->now, &view);
	if (!frame)
		return;
	if (!t->batch) {
		show_page(frame);
	} else {
		fputs(frame, stdout);
		putchar('\n');
		fflush(stdout);
	}
	free(frame);
}

/* The other screen is gone, and with it the page: here it is again. */
static void show_last(struct top *t)
{
	struct top_view view = t->view;
	take_size(&view);
	view.height = view.height > 2 ? view.height - 2 : 1;
	char *frame = top_frame(t->before, t->now, &view);
	if (frame)
		write_all(frame, strlen(frame));
	free(frame);
}

/* ---- signals, keys, time --------------------------------------------------------------------- */

static void take_signals(sigset_t *ret_waiting)
{
	static const int ends[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
	static const int others[] = { SIGWINCH, SIGTSTP, SIGCONT };
	struct sigaction action = { .sa_handler = on_signal }; /* no SA_RESTART */
	sigset_t blocked;
	sigemptyset(&blocked);
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		sigaction(ends[i], &action, NULL);
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		sigaction(others[i], &action, NULL);
		sigaddset(&blocked, others[i]);
	}
	sigprocmask(SIG_BLOCK, &blocked, ret_waiting);
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		sigdelset(ret_waiting, others[i]);
}

static uint64_t now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* False: it is to end. */
static bool take_key(struct top *t)
{
	char key;
	if (read(STDIN_FILENO, &key, 1) != 1) {
		t->have_keys = false; /* the terminal is gone; a signal will say so */
		return true;
	}
	switch (key) {
	case 'q':
	case 'Q':
		return false;
	case 'v':
		t->view.sort = TOP_BY_NUMBER;
		break;
	case 'r':
		t->view.sort = TOP_BY_RUNNING;
		break;
	case 's':
		t->view.sort = TOP_BY_STALLED;
		break;
	case 'm':
		t->view.sort = TOP_BY_MOVES;
		break;
	default:
		return true;
	}
	show(t);
	return true;
}

static void stop(struct top *t)
{
	stop_signal = 0;
	leave_page(t);
	raise(SIGSTOP);
	enter_page(t);
	show(t);
}

/* As ppoll(); a signal that ends it and came before is not slept through. */
static int poll_key(struct pollfd *keys, const struct timespec *left, const sigset_t *waiting)
{
	sigset_t all, before;
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &before);
	int n = end_signal ? -1 : ppoll(keys, 1, left, waiting);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return n;
}

/* Until then. False: it is to end. */
static bool wait_until(struct top *t, uint64_t until_ns, const sigset_t *waiting)
{
	while (!end_signal) {
		struct pollfd keys = { .fd = t->have_keys ? STDIN_FILENO : -1, .events = POLLIN };
		uint64_t now = now_ns();
		struct timespec left;
		if (now >= until_ns)
			return true;
		left.tv_sec = (time_t)((until_ns - now) / NS_PER_S);
		left.tv_nsec = (long)((until_ns - now) % NS_PER_S);
		if (poll_key(&keys, &left, waiting) > 0 && !take_key(t))
			return false;
		if (stop_signal && !end_signal)
			stop(t);
		if (resized && !t->batch && !end_signal) {
			resized = 0;
			show(t);
		}
	}
	return false;
}

/* ---- the loop -------------------------------------------------------------------------------- */

static bool is_ended(int error)
{
	return error == -ENOENT || error == -ECONNREFUSED;
}

/* 0, or -ENOENT, -ECONNREFUSED; what else goes wrong may pass, and t->note says it until then. */
static int ask(struct top *t)
{
	json_t *answer = NULL;
	int error = pod_try(t->search.path, "status", &answer, t->note, sizeof(t->note));
	/* A node that ends takes its socket away before it breaks off what it says. */
	if (error == -ECONNRESET)
		error = pod_try(t->search.path, "status", &answer, t->note, sizeof(t->note));
	if (error)
		return is_ended(error) ? error : 0;
	t->note[0] = '\0';
	if (t->now) {
		json_decref(t->before);
		t->before = t->now;
	}
	t->now = answer;
	return 0;
}

static const char *pod_name(const struct top *t)
{
	const char *name = json_string_value(json_object_get(t->now, "pod"));
	return name ? name : "?";
}

static int end(struct top *t, bool pod_ended)
{
	bool was_on_page = t->on_page;
	leave_page(t);
	if (pod_ended) {
		if (was_on_page)
			show_last(t);
		complain("the pod %s has ended, or its node here has", pod_name(t));
		return STATUS_OK;
	}
	if (end_signal && end_signal != SIGINT) {
		signal(end_signal, SIG_DFL);
		raise(end_signal);
	}
	return STATUS_OK;
}

static int watch(struct top *t)
{
	sigset_t waiting;
	uint64_t next_ns = now_ns();
	bool pod_ended = false;
	take_signals(&waiting);
	if (!t->batch) {
		enter_page(t);
		show(t);
	}
	/* A page needs two answers; the first on a terminal comes soon. */
	next_ns += t->batch ? (uint64_t)(t->interval_s * 1e9) : FIRST_NS;
	for (unsigned long shown = 0; !t->count || shown < t->count; shown++) {
		if (!wait_until(t, next_ns, &waiting))
			break;
		pod_ended = ask(t) < 0;
		if (pod_ended || end_signal)
			break;
		if (t->batch && t->note[0])
			complain("%s", t->note);
		else
			show(t);
		if (t->batch && ferror(stdout))
			break;
		next_ns += (uint64_t)(t->interval_s * 1e9);
		if (next_ns < now_ns())
			next_ns = now_ns() + (uint64_t)(t->interval_s * 1e9);
	}
	return end(t, pod_ended);
}

static bool take_number(const char *text, double min, double max, double *ret_value)
{
	char *rest;
	double value = strtod(text, &rest);
	if (!*text || *rest || !(value >= min && value <= max))
		return false;
	*ret_value = value;
	return true;
}

/* A usable terminal, or --batch. */
static bool check_terminal(struct top *t)
{
	const char *type = getenv("TERM");
	if (t->batch)
		return true;
	if (!isatty(STDOUT_FILENO)) {
		complain("the output is not a terminal; eagre top --batch prints plain lines");
		return false;
	}
	if (!type || !*type || strcmp(type, "dumb") == 0) {
		complain(
			"this terminal (TERM is '%s') has no pages; eagre top --batch prints plain "
			"lines",
			type ? type : "");
		return false;
	}
	t->have_keys = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &t->mode) == 0;
	return true;
}

static int start(struct top *t, const char *map)
{
	struct guest_symbols *symbols = NULL;
	char error[512];
	int status = STATUS_FAILED;
	if (!check_terminal(t))
		return STATUS_USAGE;
	if (map && guest_symbols_open(map, &symbols, error, sizeof(error)) < 0) {
		complain("%s", error);
		return STATUS_FAILED;
	}
	t->view.symbols = symbols;
	if (!pod_find(&t->search))
		goto out;
	t->now = pod_ask(t->search.path, "status");
	if (t->now)
		status = watch(t);
out:
	json_decref(t->before);
	json_decref(t->now);
	guest_symbols_free(symbols);
	return status;
}

int cmd_top(int argc, char **argv)
{
	static const struct option options[] = {
		{ "batch", no_argument, NULL, 'b' },
		{ "interval", required_argument, NULL, 'i' },
		{ "count", required_argument, NULL, 'c' },
		{ "map", required_argument, NULL, 'm' },
		POD_SEARCH_OPTIONS,
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct top t = { .interval_s = INTERVAL_S };
	const char *map = NULL;
	double count = 0;
	int option;
	while ((option = getopt_long(argc, argv, ":h", options, NULL)) >= 0) {
		switch (option) {
		case 'b':
			t.batch = true;
			break;
		case 'i':
			if (!take_number(optarg, INTERVAL_S_MIN, INTERVAL_S_MAX, &t.interval_s)) {
				complain("--interval %s: give seconds, from %g to %g", optarg,
					 INTERVAL_S_MIN, INTERVAL_S_MAX);
				return STATUS_USAGE;
			}
			break;
		case 'c':
			if (!take_number(optarg, 1, 1e9, &count) ||
			    count != (double)(unsigned long)count) {
				complain("--count %s: give a number, 1 or more", optarg);
				return STATUS_USAGE;
			}
			t.count = (unsigned long)count;
			break;
		case 'm':
			map = optarg;
			break;
		case 'h':
			usage(stdout);
			return STATUS_OK;
		default:
			if (!pod_search_take(&t.search, option, optarg))
				return complain_option(argv, option);
		}
	}
	if (optind < argc) {
		complain("top takes no argument '%s'; see eagre top --help", argv[optind]);
		return STATUS_USAGE;
	}
	return start(&t, map);
}
