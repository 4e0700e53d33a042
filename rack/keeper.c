/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keeper: starts a rack's processes and sees that none of them outlives it.
 *
 * The rack must leave nothing behind, whatever dies first. So one process is the parent of all of
 * them: it ends them when it is told to (SIGTERM, SIGINT), when the owner it was given ends, or
 * when an indispensable one (the switch) ends; and the kernel ends them when the keeper itself is
 * killed (PR_SET_PDEATHSIG).
 *
 *      keeper DIR OWNER            OWNER: a process id, or 0 for none
 *
 * DIR/tasks/NAME holds a command line, each argument ended by a zero byte. For each task, in order
 * of name, DIR/NAME.pid appears when it runs and DIR/NAME.ended, with its status, when it has
 * ended; its output goes to DIR/NAME.log. DIR/keeper.pid is written when all have been started.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define TASKS_MAX   80
#define COMMAND_MAX 16384
#define ARGS_MAX    256
#define NAME_SIZE   64
#define FIRST_TASK  "0-" /* tasks with this prefix are indispensable */

struct task {
	char name[NAME_SIZE];
	pid_t pid;
};

static struct task tasks[TASKS_MAX];
static size_t task_count;

static int note(const char *name, const char *suffix, long value)
{
	char path[2 * NAME_SIZE];
	FILE *file;

	snprintf(path, sizeof(path), "%s.%s", name, suffix);
	file = fopen(path, "we");
	if (!file)
		return -errno;
	fprintf(file, "%ld\n", value);
	return fclose(file) ? -errno : 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_task(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

static int tasks_find(void)
{
	struct dirent **entries;
	int n = scandir("tasks", &entries, is_task, by_name);

	if (n < 0)
		return -errno;
	for (int i = 0; i < n; i++) {
		if (task_count < TASKS_MAX)
			snprintf(tasks[task_count++].name, NAME_SIZE, "%.60s", entries[i]->d_name);
		free(entries[i]);
	}
	free(entries);
	return n > TASKS_MAX ? -E2BIG : 0;
}

static _Noreturn void task_exec(const char *name, pid_t keeper)
{
	static char text[COMMAND_MAX + 1];
	char path[2 * NAME_SIZE];
	char *argv[ARGS_MAX + 1];
	size_t count = 0;
	sigset_t none;
	ssize_t size;
	int fd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != keeper)
		_exit(1); /* it died before we could ask */
	snprintf(path, sizeof(path), "%s.log", name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	dup2(fd, 1);
	dup2(fd, 2);
	fd = open("/dev/null", O_RDONLY);
	dup2(fd, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	snprintf(path, sizeof(path), "tasks/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	size = read(fd, text, COMMAND_MAX);
	for (ssize_t at = 0; at < size && count < ARGS_MAX; at += (ssize_t)strlen(text + at) + 1)
		argv[count++] = text + at;
	argv[count] = NULL;
	if (count)
		execvp(argv[0], argv);
	fprintf(stderr, "keeper: cannot run %s: %s\n", count ? argv[0] : name, strerror(errno));
	_exit(127);
}

static int tasks_start(void)
{
	pid_t keeper = getpid();

	for (size_t i = 0; i < task_count; i++) {
		struct task *task = &tasks[i];

		task->pid = fork();
		if (task->pid < 0)
			return -errno;
		if (task->pid == 0)
			task_exec(task->name, keeper);
		note(task->name, "pid", task->pid);
	}
	return note("keeper", "pid", keeper);
}

/* Takes notice of one ended task. 1 when it was indispensable. */
static int task_ended(pid_t pid, int status)
{
	char path[2 * NAME_SIZE];

	for (size_t i = 0; i < task_count; i++) {
		struct task *task = &tasks[i];

		if (task->pid != pid)
			continue;
		task->pid = 0;
		snprintf(path, sizeof(path), "%s.pid", task->name);
		unlink(path);
		note(task->name, "ended",
		     WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
		return !strncmp(task->name, FIRST_TASK, strlen(FIRST_TASK));
	}
	return 0;
}

static void tasks_end(void)
{
	int status;
	pid_t pid;

	for (size_t i = 0; i < task_count; i++) {
		if (tasks[i].pid > 0)
			kill(tasks[i].pid, SIGKILL);
	}
	while ((pid = wait(&status)) > 0)
		task_ended(pid, status);
	unlink("keeper.pid");
}

static void keep(int signals, int owner)
{
	struct pollfd fds[] = { { .fd = signals, .events = POLLIN },
				{ .fd = owner, .events = POLLIN } };

	for (;;) {
		struct signalfd_siginfo info;
		int status;
		pid_t pid;

		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return;
		if (fds[1].revents)
			return;
		if (!fds[0].revents || read(signals, &info, sizeof(info)) != sizeof(info))
			continue;
		if (info.ssi_signo != SIGCHLD)
			return;
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
			if (task_ended(pid, status))
				return;
		}
	}
}

int main(int argc, char **argv)
{
	sigset_t mask;
	pid_t owner_pid;
	int signals, ret;
	int owner = -1;

	if (argc != 3) {
		fprintf(stderr, "usage: keeper DIR OWNER\n");
		return 2;
	}
	owner_pid = (pid_t)strtol(argv[2], NULL, 10);
	if (owner_pid > 0) {
		owner = pidfd_open(owner_pid, 0);
		if (owner < 0) {
			fprintf(stderr, "keeper: the owner %s: %s\n", argv[2], strerror(errno));
			return 1;
		}
		fcntl(owner, F_SETFD, FD_CLOEXEC);
	}
	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGHUP);
	sigaddset(&mask, SIGCHLD);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	signals = signalfd(-1, &mask, SFD_CLOEXEC);
	if (signals < 0 || chdir(argv[1])) {
		fprintf(stderr, "keeper: %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	ret = tasks_find();
	if (ret == 0)
		ret = tasks_start();
	if (ret == 0)
		keep(signals, owner);
	else
		fprintf(stderr, "keeper: %s\n", strerror(-ret));
	tasks_end();
	return ret ? 1 : 0;
}
