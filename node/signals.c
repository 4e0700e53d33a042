/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The signals that a node knows, on a thread of their own: Ctrl-C and its like end the pod, SIGTERM
 * first presses the guest's power button, SIGWINCH tells the guest of the terminal's size.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "backend/capabilities.h"
#include "node/console.h"
#include "node/node_state.h"

/* Who ends all processes of a group or service ends `eagre run`, too, which passes that on. */
#define SAME_PRESS_NS 1000000000ull

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

/* True: the guest is on its way to power off, or another node ends the pod if it is not. */
static bool press_power_button(struct node *node)
{
	struct control_message msg = { .type = CONTROL_BUTTON, .button.count = 1 };
	/* Who has gone ends soon by itself, and who joins ends alone. */
	if (members_state(node->members, node->self) == MEMBER_GONE)
		return true;
	if (!atomic_load(&node->run_ns) || atomic_load(&node->members->joins))
		return false;
	if (node->devices)
		return devices_press_power_button(node->devices);
	node_send_seat(node, SEAT_PC, &msg);
	return true;
}

/* It returns when a signal has come, or (0) at that time. */
static int next_signal(const sigset_t *set, const struct timespec *until)
{
	struct timespec now, left;
	int number;
	if (!until->tv_sec)
		return sigwait(set, &number) == 0 ? number : -1;
	for (;;) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec >= until->tv_sec)
			return 0;
		left = (struct timespec){ .tv_sec = until->tv_sec - now.tv_sec };
		number = sigtimedwait(set, NULL, &left);
		if (number > 0)
			return number;
	}
}

static void end_by_signal(struct node *node, const char *name, int number, const char *more)
{
	node_end_with(node, CONTROL_END_USER, (uint8_t)(128 + number),
		      "ended by %s on node %u (%s)%s", name, node->self,
		      members_name(node->members, node->self), more);
}

static void *signal_thread(void *arg)
{
	struct node *node = arg;
	struct timespec until = { 0 }; /* 0: the power button has not been pressed here */
	uint64_t pressed_ns = 0;
	char more[64];
	sigset_t set;
	int number;
	capabilities_keep(0);
	signals_of_node(&set);
	while ((number = next_signal(&set, &until)) >= 0) {
		size_t i = 0;
		while (i < ENDING_SIGNALS && ending_signals[i].number != number)
			i++;
		if (number == 0) {
			snprintf(more, sizeof(more), ": the guest did not power off within %u s",
				 node->options->power_off_s);
			end_by_signal(node, "SIGTERM", SIGTERM, more);
			until = (struct timespec){ 0 };
		} else if (number == SIGTERM && until.tv_sec &&
			   node_now_ns(node) < pressed_ns + SAME_PRESS_NS) {
			continue;
		} else if (number == SIGTERM && !until.tv_sec && press_power_button(node)) {
			clock_gettime(CLOCK_MONOTONIC, &until);
			until.tv_sec += node->options->power_off_s + 1;
			pressed_ns = node_now_ns(node);
			node_say(node, members_state(node->members, node->self) == MEMBER_GONE
					       ? "SIGTERM: this node has left, and ends soon"
					       : "SIGTERM: the guest's power button is pressed; "
						 "another one ends the pod at once");
		} else if (i < ENDING_SIGNALS) {
			end_by_signal(node, ending_signals[i].name, number, "");
		} else if (atomic_load(&node->run_ns) && node->console) {
			/* Before RUN the console has not told the guest any size. */
			console_resized(node->console);
		}
	}
	return NULL;
}

int signals_take(struct node *node)
{
	sigset_t set;
	pthread_t thread;
	signals_of_node(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a disk's file that may not grow fails its requests instead */
	int r = pthread_create(&thread, NULL, signal_thread, node);
	if (!r)
		pthread_detach(thread);
	return -r;
}
