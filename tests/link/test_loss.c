// SPDX-License-Identifier: Apache-2.0
/*
 * Loss of a node: real processes that are killed, stopped, or cut off. Every other node must say
 * within 5 s which node is lost and why, and end; and nodes that are merely slow must be left
 * alone.
 *
 * Each process is a node as small as can be: mesh, pulse, and a control thread that ends at the
 * first loss or END, as a real node does. What it has to say goes to the parent through a pipe.
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "link/mesh.h"
#include "tests/link/pulse.h"
#include "tests/link/support.h"

#define POD 4
/* The promise for a whole pod, on a loaded machine, too; test_heartbeat.c has the 4 s of the judge.
 */
#define LOSS_NS 5000000000ull
#define HANG_NS 60000000000ull
/* A machine that stands still for a moment makes everybody late, or a cut long: who is late three times is late. */
#define TRIES	 3
#define LINE_MAX (MESH_WHY_MAX + 32)

static unsigned pod_number;

/* ---- A node (child process) ---- */

struct child {
	struct mesh *mesh;
	struct pulse *pulse;
	int lost_fd, out_fd;
	char cause[MESH_WHY_MAX];
	atomic_flag said;
};

static void say(struct child *child, const char *kind, const char *text)
{
	char line[LINE_MAX];
	int size = snprintf(line, sizeof(line), "%s %s\n", kind, text);

	if (write(child->out_fd, line, (size_t)size) != size)
		_exit(9);
}

static void on_down(void *ctx, uint16_t node, const char *cause)
{
	struct child *child = ctx;
	uint64_t one = 1;

	if (atomic_flag_test_and_set(&child->said))
		return;
	snprintf(child->cause, sizeof(child->cause), "%s", cause);
	if (write(child->lost_fd, &one, sizeof(one)) != sizeof(one))
		_exit(9);
}

/*
 * Tells everybody, as a node does, so that all give the same reason. Also who was told: its own end
 * must not be seen by anybody before the reason is.
 */
static void end_pod(struct child *child, uint16_t self, const char *text)
{
	struct control_message *msg = calloc(1, sizeof(*msg));

	msg->type = CONTROL_END;
	msg->end = (struct control_end){ .kind = CONTROL_END_NODE_LOST, .status = 1, .node = 0 };
	msg->end.vcpu = NODE_NONE;
	snprintf(msg->end.text, sizeof(msg->end.text), "%.500s", text);
	for (uint16_t i = 0; i < POD; i++) {
		if (i != self)
			control_send(mesh_control(child->mesh, i), msg);
	}
	free(msg);
}

/* Everything that came from `node`. False: the pod is at its end. */
static bool receive_all(struct child *child, uint16_t self, uint16_t node,
			struct control_message *msg)
{
	struct control_channel *channel = mesh_control(child->mesh, node);
	int error;

	control_flush(channel);
	while ((error = control_receive(channel, msg)) == 0) {
		if (pulse_message(child->pulse, msg))
			continue;
		if (msg->type == CONTROL_END) {
			say(child, "END", msg->end.text);
			end_pod(child, self, msg->end.text);
			return false;
		}
	}
	if (error != -EAGAIN)
		mesh_down(child->mesh, node, error, NULL);
	return true;
}

static void child_loop(struct child *child, uint16_t self)
{
	struct control_message *msg = malloc(sizeof(*msg));
	int epoll = epoll_create1(0);
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = POD };

	epoll_ctl(epoll, EPOLL_CTL_ADD, child->lost_fd, &event);
	for (uint16_t i = 0; i < POD; i++) {
		event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
		event.data.u32 = i;
		if (i != self)
			epoll_ctl(epoll, EPOLL_CTL_ADD, control_fd(mesh_control(child->mesh, i)),
				  &event);
	}
	for (;;) {
		if (epoll_wait(epoll, &event, 1, -1) != 1)
			continue;
		if (event.data.u32 == POD) {
			uint64_t count;

			if (read(child->lost_fd, &count, sizeof(count)) != sizeof(count))
				_exit(9);
			say(child, "LOST", child->cause);
			end_pod(child, self, child->cause);
			break;
		}
		if (!receive_all(child, self, (uint16_t)event.data.u32, msg))
			break;
	}
	close(epoll);
	free(msg);
}

static void child_main(uint16_t self, int out_fd)
{
	static const char *const names[POD] = { "alpha", "beta", "gamma", "delta" };
	struct child child = { .out_fd = out_fd, .said = ATOMIC_FLAG_INIT };
	struct mesh_node node[POD];
	char why[MESH_WHY_MAX];

	for (uint16_t i = 0; i < POD; i++)
		node[i] = (struct mesh_node){ names[i], test_address(i, pod_number) };
	struct mesh_config config = {
		.pod_name = "tide",
		.self = self,
		.node_count = POD,
		.node = node,
		.shard_count = 1,
		.timeout_ms = 50000,
		.down = on_down,
		.ctx = &child,
	};
	child.lost_fd = eventfd(0, 0);
	if (mesh_create(&config, &child.mesh, why, sizeof(why)) < 0 ||
	    mesh_bring_up(child.mesh, -1, why, sizeof(why)) < 0) {
		say(&child, "FAILED", why);
		_exit(1);
	}
	struct pulse_config pulse = { .mesh = child.mesh, .self = self, .node_count = POD };

	if (pulse_create(&pulse, &child.pulse) < 0)
		_exit(2);
	say(&child, "UP", "");
	child_loop(&child, self);
	pulse_destroy(child.pulse);
	mesh_destroy(child.mesh);
	_exit(0);
}

/* ---- The parent ---- */

struct pod {
	pid_t pid[POD];
	int fd[POD];
	char text[POD][4 * LINE_MAX]; /* what each has said */
};

static void pod_start(struct pod *pod)
{
	memset(pod, 0, sizeof(*pod));
	pod_number++;
	test_address(0, 0); /* chosen here, not by each child */
	for (uint16_t i = 0; i < POD; i++) {
		int fds[2];

		assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
		pod->pid[i] = fork();
		if (pod->pid[i] == 0) {
			/* Not even a failed assertion of the parent leaves a node behind. */
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			child_main(i, fds[1]);
		}
		close(fds[1]);
		pod->fd[i] = fds[0];
	}
}

/* Reads what the nodes say until `count` of them have said `word`, or time is over. */
static bool pod_wait(struct pod *pod, const char *word, const bool from[POD], uint64_t end_ns)
{
	for (;;) {
		struct pollfd fds[POD];
		bool all = true;

		for (int i = 0; i < POD; i++) {
			fds[i] = (struct pollfd){ .fd = from[i] ? pod->fd[i] : -1,
						  .events = POLLIN };
			if (from[i] && strstr(pod->text[i], word))
				fds[i].fd = -1;
			else if (from[i])
				all = false;
		}
		if (all)
			return true;
		uint64_t now_ns = test_now_ns();

		if (now_ns >= end_ns || poll(fds, POD, (int)((end_ns - now_ns) / 1000000) + 1) < 0)
			return false;
		for (int i = 0; i < POD; i++) {
			size_t used = strlen(pod->text[i]);
			ssize_t got;

			if (fds[i].fd < 0 || fds[i].revents == 0)
				continue;
			got = read(fds[i].fd, pod->text[i] + used, sizeof(pod->text[i]) - used - 1);
			if (got == 0) /* it has ended; what it said, it said */
				snprintf(pod->text[i] + used, sizeof(pod->text[i]) - used,
					 "GONE\n");
			if (got <= 0 && !strstr(pod->text[i], word))
				return false;
		}
	}
}

static const bool all_nodes[POD] = { true, true, true, true };

static void pod_up(struct pod *pod)
{
	pod_start(pod);
	if (!pod_wait(pod, "UP", all_nodes, test_now_ns() + HANG_NS))
		fail_msg("the pod did not come up: %s%s%s%s", pod->text[0], pod->text[1],
			 pod->text[2], pod->text[3]);
}

/* All others are gone by themselves; nothing is left behind. */
static void pod_end(struct pod *pod)
{
	uint64_t end_ns = test_now_ns() + HANG_NS;

	for (int i = 0; i < POD; i++) {
		int status = 0;
		pid_t done = 0;

		if (pod->pid[i] == 0)
			continue;
		while ((done = waitpid(pod->pid[i], &status, WNOHANG)) == 0 &&
		       test_now_ns() < end_ns)
			test_sleep_ms(5);
		if (done == 0) {
			kill(pod->pid[i], SIGKILL);
			waitpid(pod->pid[i], &status, 0);
			fail_msg("node %d has not ended; it said: %s", i, pod->text[i]);
		}
		close(pod->fd[i]);
		pod->pid[i] = 0;
	}
}

static void reap(struct pod *pod, int node)
{
	kill(pod->pid[node], SIGKILL);
	waitpid(pod->pid[node], NULL, 0);
	close(pod->fd[node]);
	pod->pid[node] = 0;
}

/* All but `lost` must name it, with `reason`, and end. Whether they have within `limit_ns`. */
static bool expect_loss(struct pod *pod, int lost, const char *reason, uint64_t since_ns,
			uint64_t limit_ns)
{
	static const char *const names[POD] = { "node 0 (alpha, ", "node 1 (beta, ",
						"node 2 (gamma, ", "node 3 (delta, " };
	bool others[POD];
	uint64_t took_ns;

	for (int i = 0; i < POD; i++)
		others[i] = i != lost;
	if (!pod_wait(pod, names[lost], others, since_ns + HANG_NS))
		fail_msg("not all have named node %d: \n0: %s\n1: %s\n2: %s\n3: %s", lost,
			 pod->text[0], pod->text[1], pod->text[2], pod->text[3]);
	took_ns = test_now_ns() - since_ns;
	for (int i = 0; i < POD; i++) {
		if (others[i] && !strstr(pod->text[i], reason))
			fail_msg("node %d says \"%s\", not \"%s\"", i, pod->text[i], reason);
	}
	reap(pod, lost);
	pod_end(pod);
	if (took_ns > limit_ns)
		print_message("late: node %d was named after %.1f s\n", lost,
			      (double)took_ns / 1e9);
	return took_ns <= limit_ns;
}

static bool kill_node(int lost)
{
	struct pod pod;
	uint64_t start_ns;

	pod_up(&pod);
	start_ns = test_now_ns();
	kill(pod.pid[lost], SIGKILL);
	return expect_loss(&pod, lost, "link", start_ns, 2000000000);
}

static void test_killed(void **state)
{
	for (int lost = 0; lost < POD; lost += 2) {
		int tries = TRIES;

		while (tries && !kill_node(lost))
			tries--;
		assert_int_not_equal(tries, 0);
	}
}

static bool stop_node(void)
{
	struct pod pod;
	uint64_t start_ns;
	bool in_time;

	pod_up(&pod);
	test_sleep_ms(600); /* heartbeats have been heard */
	start_ns = test_now_ns();
	kill(pod.pid[1], SIGSTOP);
	in_time = expect_loss(&pod, 1, "nothing heard from it for ", start_ns, LOSS_NS);
	assert_true(test_now_ns() - start_ns > 2500000000ull);
	return in_time;
}

static void test_stopped(void **state)
{
	int tries = TRIES;

	while (tries && !stop_node())
		tries--;
	assert_int_not_equal(tries, 0);
}

/*
 * The cable is cut: in a network of its own, loopback goes down, and every packet is lost.
 * Everybody must find somebody missing.
 */
static void set_loopback(bool up)
{
	struct ifreq request = { .ifr_name = "lo" };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	assert_int_equal(ioctl(fd, SIOCGIFFLAGS, &request), 0);
	request.ifr_flags = (short)(up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP);
	assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &request), 0);
	close(fd);
}

static bool cut(void)
{
	struct pod pod;
	uint64_t start_ns, took_ns;

	set_loopback(true);
	pod_up(&pod);
	test_sleep_ms(600);
	start_ns = test_now_ns();
	set_loopback(false);
	if (!pod_wait(&pod, " is gone: ", all_nodes, start_ns + HANG_NS))
		fail_msg("not all have noticed: \n0: %s\n1: %s\n2: %s\n3: %s", pod.text[0],
			 pod.text[1], pod.text[2], pod.text[3]);
	took_ns = test_now_ns() - start_ns;
	pod_end(&pod);
	return took_ns <= LOSS_NS;
}

static void test_cut(void **state)
{
	int tries = TRIES;

	if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0) {
		print_message("cannot make a network of its own here (%s): run as root\n",
			      strerror(errno));
		fail();
	}
	while (tries && !cut())
		tries--;
	assert_int_not_equal(tries, 0);
}

/* Whether a pod lives on after a cut of 1 s, and one of 1.7 s. */
static bool survive(void)
{
	struct pod pod;
	bool alive = true;

	set_loopback(true);
	pod_up(&pod);
	for (unsigned ms = 1000; alive && ms <= 1700; ms += 700) {
		uint64_t start_ns, took_ns;

		test_sleep_ms(700);
		start_ns = test_now_ns();
		set_loopback(false);
		test_sleep_ms(ms);
		set_loopback(true);
		took_ns = test_now_ns() - start_ns;
		alive = !pod_wait(&pod, " is gone: ", all_nodes, test_now_ns() + 1300000000);
		for (int i = 0; i < POD; i++)
			alive = alive && !strstr(pod.text[i], " is gone: ");
		if (!alive)
			print_message("a cut of %u ms, which took %.1f s, was not survived: "
				      "%s%s%s%s\n",
				      ms, (double)took_ns / 1e9, pod.text[0], pod.text[1],
				      pod.text[2], pod.text[3]);
	}
	for (int i = 0; i < POD; i++)
		reap(&pod, i);
	return alive;
}

/* A cut that is over before the judge speaks is survived, however TCP backs off meanwhile. */
static void test_short_cut(void **state)
{
	int tries = TRIES;

	while (tries && !survive())
		tries--;
	assert_int_not_equal(tries, 0);
}

/* Far more work than processors: nobody may be taken for dead. Takes 12 s: suite `long`. */
static void test_loaded(void **state)
{
	static const bool anybody[POD] = { true, false, false, false };
	pid_t hog[16];
	struct pod pod;

	for (int i = 0; i < 16; i++) {
		hog[i] = fork();
		if (hog[i] == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (volatile uint64_t k = 0;; k++)
				;
		}
	}
	pod_up(&pod);
	/* Had anybody lost anybody, the END would have reached node 0. */
	pod_wait(&pod, " is gone: ", anybody, test_now_ns() + 12000000000ull);
	if (strstr(pod.text[0], "\n"))
		pod_wait(&pod, "GONE", all_nodes, test_now_ns() + 1000000000ull);
	if (strstr(pod.text[0], "gone") || strstr(pod.text[0], "GONE"))
		fail_msg("a node was lost under load:\n%s%s%s%s", pod.text[0], pod.text[1],
			 pod.text[2], pod.text[3]);
	for (int i = 0; i < POD; i++)
		assert_int_equal(waitpid(pod.pid[i], NULL, WNOHANG), 0);
	for (int i = 0; i < POD; i++)
		reap(&pod, i);
	for (int i = 0; i < 16; i++) {
		kill(hog[i], SIGKILL);
		waitpid(hog[i], NULL, 0);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest loaded[] = {
		cmocka_unit_test(test_loaded),
	};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_killed),
		cmocka_unit_test(test_stopped),
		cmocka_unit_test(test_cut), /* from here on: it changes this process's network */
		cmocka_unit_test(test_short_cut),
	};

	if (argc > 1 && strcmp(argv[1], "loaded") == 0)
		return cmocka_run_group_tests(loaded, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
