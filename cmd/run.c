/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eagre run: a pod of several nodes on this one machine, over loopback.
 *
 * Each node is a process of its own, as it would be on hosts of their own; the first has the
 * terminal. This process only writes the configuration, starts them, waits, and passes on the first
 * node's exit status. Whatever way it ends, the kernel ends its children with it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <termios.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/guest_options.h"
#include "cmd/message.h"
#include "node/node.h"
#include "node/privileges.h"
#include "node/status_socket.h"

#define NODES_DEFAULT  3
#define MEMORY_DEFAULT (1ull << 30)

/* From one node's end on: then the others are asked to end, and then they are killed. */
#define PATIENCE_MS 3000
#define KILL_MS	    9000
/* A stopped node is killed when it has been so for this long, or the pod has ended. */
#define STOPPED_MS     3000
#define STOPPED_END_MS 300

struct run_command {
	uint32_t nodes, vcpus;
	uint64_t memory;
	enum placement_policy policy;
	const char *policy_state;
	bool quiet, numa, encrypt;
	const struct engine_ops *engine; /* of all nodes */
	char engine_note[600];
	struct guest_options guest;
	uint32_t disk_count, net_count;
	struct disk_config disk[DISKS_MAX];
	struct net_config net[NETS_MAX];
};

static void usage(FILE *to)
{
	fprintf(to,
		"usage: eagre run [--nodes N] [--vcpus N] [--memory SIZE] [--policy NAME] [--policy-state FILE] [--numa]\n"
		"                 [--encrypt]\n"
		"                 [--disk DISK]... [--net NET]... [GUEST OPTIONS] [-- COMMAND...]\n"
		"\n"
		"Starts a pod whose nodes all run on this machine, and gives the guest's console (Ctrl-] ends\n"
		"the pod, Ctrl-^ sends a BREAK), or runs COMMAND in the guest and exits with its status.\n"
		"\n"
		"  --nodes N        nodes, 1 to %d (%d)\n"
		"  --vcpus N        vCPUs of the guest, spread over the nodes, 1 to %d (one a node)\n"
		"  --memory SIZE    memory of the guest, the sum over the nodes (1G)\n"
		"  --policy NAME    where vCPUs go: learned (the default), base, vcpus, pages (nowhere), pinned\n"
		"  --policy-state FILE\n"
		"                   what is learned about that is kept there for the next start\n"
		"  --numa           nodes are NUMA nodes of the guest\n"
		"  --encrypt        links between the nodes are encrypted: on one machine only to try it\n"
		"  --disk FILE[,ro][,KEY=VALUE]...\n"
		"                   a disk: a raw image, a block device, or an NBD URI; with a key of [disk]\n"
		"                   in a pod's configuration: %s\n"
		"  --net user[,forward=PORT:GUESTPORT]... | tap=NAME[,bridge=NAME] | none\n"
		"                   a network card, likewise with keys of [net]: %s\n"
		"  --quiet          no progress on stderr\n"
		"\n",
		NODES_MAX, NODES_DEFAULT, VCPUS_MAX, disk_config_keys, net_config_keys);
	guest_options_usage(to);
}

static int number_take(const char *name, const char *text, uint32_t max, uint32_t *ret_number)
{
	char *end;
	errno = 0;
	long value = strtol(text, &end, 10);
	if (errno || end == text || *end || value < 1 || value > (long)max) {
		complain("%s %s: must be a number from 1 to %u", name, text, max);
		return -EINVAL;
	}
	*ret_number = (uint32_t)value;
	return 0;
}

static int take_disk(struct run_command *command, const char *words)
{
	char name[DEVICE_NAME_MAX], why[512];
	if (command->disk_count == DISKS_MAX) {
		complain("--disk: a pod has at most %d disks", DISKS_MAX);
		return -EINVAL;
	}
	snprintf(name, sizeof(name), "disk%u", command->disk_count);
	int r = disk_config_parse(words, name, &command->disk[command->disk_count], why,
				  sizeof(why));
	if (r < 0)
		complain("%s", why);
	else
		command->disk_count++;
	return r;
}

static int take_net(struct run_command *command, const char *words)
{
	/* The card is the same at every start, so that a guest's own configuration finds it. */
	static const uint8_t mac[] = { 0x52, 0x54, 0x00, 0xea, 0x00, 0x01 }, none[6];
	char name[DEVICE_NAME_MAX], why[512];
	if (command->net_count == NETS_MAX) {
		complain("--net: a pod has at most %d network cards", NETS_MAX);
		return -EINVAL;
	}
	struct net_config *net = &command->net[command->net_count];
	snprintf(name, sizeof(name), "net%u", command->net_count);
	int r = net_config_parse(words, name, net, why, sizeof(why));
	if (r == -ENODEV)
		return 0;
	if (r < 0) {
		complain("%s", why);
		return r;
	}
	if (memcmp(net->mac, none, sizeof(none)) == 0) {
		memcpy(net->mac, mac, sizeof(mac));
		net->mac[5] = (uint8_t)(mac[5] + command->net_count);
	}
	command->net_count++;
	return 0;
}

static int take_option(struct run_command *command, int option, const char *value)
{
	char names[128];
	switch (option) {
	case 'n':
		return number_take("--nodes", value, NODES_MAX, &command->nodes);
	case 'v':
		return number_take("--vcpus", value, VCPUS_MAX, &command->vcpus);
	case 'm':
		if (size_parse(value, &command->memory) == 0)
			return 0;
		complain("--memory %s: not a size; write for example 4G or 512M", value);
		return -EINVAL;
	case 'P':
		if (placement_policy_parse(value, &command->policy) == 0)
			return 0;
		pod_config_policies(names, sizeof(names));
		complain("--policy %s: must be %s", value, names);
		return -EINVAL;
	case 'S':
		command->policy_state = value;
		if (value[0] && strlen(value) < POLICY_STATE_PATH)
			return 0;
		complain("--policy-state: must be a path of fewer than %d bytes",
			 POLICY_STATE_PATH);
		return -EINVAL;
	case 'N':
		command->numa = true;
		return 0;
	case 'E':
		command->encrypt = true;
		return 0;
	case 'q':
		command->quiet = true;
		return 0;
	case 'd':
		return take_disk(command, value);
	case 't':
		return take_net(command, value);
	default:
		return guest_options_take(&command->guest, option, value);
	}
}

/* Exit status to return, or -1: go on. */
static int parse(int argc, char **argv, struct run_command *ret_command)
{
	static const struct option options[] = {
		{ "nodes", required_argument, NULL, 'n' },
		{ "vcpus", required_argument, NULL, 'v' },
		{ "memory", required_argument, NULL, 'm' },
		{ "policy", required_argument, NULL, 'P' },
		{ "policy-state", required_argument, NULL, 'S' },
		{ "numa", no_argument, NULL, 'N' },
		{ "disk", required_argument, NULL, 'd' },
		{ "net", required_argument, NULL, 't' },
		{ "encrypt", no_argument, NULL, 'E' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "help", no_argument, NULL, 'h' },
		GUEST_OPTIONS,
		{ 0 },
	};
	struct run_command command = { .nodes = NODES_DEFAULT,
				       .memory = MEMORY_DEFAULT,
				       .policy = PLACEMENT_POLICY_DEFAULT,
				       .guest.power_off_s = POWER_OFF_SECONDS };
	int option;
	while ((option = getopt_long(argc, argv, "+:h", options, NULL)) >= 0) {
		if (option == 'h') {
			usage(stdout);
			return STATUS_OK;
		}
		if (option == '?' || option == ':')
			return complain_option(argv, option);
		if (take_option(&command, option, optarg) < 0)
			return STATUS_USAGE;
	}
	if (optind < argc && strcmp(argv[optind - 1], "--") != 0) {
		complain("run takes no argument '%s'; a command for the guest stands behind --",
			 argv[optind]);
		return STATUS_USAGE;
	}
	if (!command.vcpus)
		command.vcpus = command.nodes;
	if (command.vcpus > command.nodes * NODE_VCPUS_MAX) {
		complain("--vcpus %u: a node has at most %u vCPUs: take more nodes", command.vcpus,
			 NODE_VCPUS_MAX);
		return STATUS_USAGE;
	}
	command.guest.command_count = argc - optind;
	command.guest.command = argv + optind;
	command.guest.run_disk = command.disk_count > 0;
	*ret_command = command;
	return -1;
}

/*
 * The nodes' ports are this process's as long as the pod lives: another one that starts just now is not given the same.
 * Beside a socket that has SO_REUSEADDR and does not listen, a node's own may have the port.
 */
static int held_port[NODES_MAX];
static uint32_t held_count;

static void give_ports(void)
{
	while (held_count)
		close(held_port[--held_count]);
}

static int take_ports(uint32_t count, uint16_t *ret_port)
{
	int on = 1;
	give_ports();
	while (held_count < count) {
		struct sockaddr_in address = { .sin_family = AF_INET,
					       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
		socklen_t size = sizeof(address);
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd < 0)
			return -errno;
		held_port[held_count] = fd;
		if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
		    bind(fd, (struct sockaddr *)&address, size) < 0 ||
		    getsockname(fd, (struct sockaddr *)&address, &size) < 0) {
			int r = -errno;
			close(fd);
			return r;
		}
		ret_port[held_count++] = ntohs(address.sin_port);
	}
	return 0;
}

static int add_devices(const struct run_command *command, struct pod_config *config)
{
	char why[512];
	int r = 0;
	for (uint32_t i = 0; !r && i < command->disk_count; i++)
		r = pod_config_add_disk(config, &command->disk[i], why, sizeof(why));
	for (uint32_t i = 0; !r && i < command->net_count; i++)
		r = pod_config_add_net(config, &command->net[i], why, sizeof(why));
	if (r < 0)
		complain("%s", why);
	return r;
}

/* Each node promises its part and the room that the page protocol needs. */
static struct pod_config *make_config(const struct run_command *command)
{
	uint16_t port[NODES_MAX];
	struct pod_config *config = NULL;
	char *text = NULL, why[512];
	size_t size;
	int r = take_ports(command->nodes, port);
	if (r < 0) {
		complain("no free ports on the loopback interface: %s%s", strerror(-r),
			 r == -EMFILE ? "; raise ulimit -n" : "; is it up?");
		return NULL;
	}
	FILE *file = open_memstream(&text, &size);
	if (!file)
		return NULL;
	uint64_t memory = (command->memory + CHUNK_BYTES - 1) / CHUNK_BYTES * CHUNK_BYTES;
	uint64_t promise =
		(memory / MEMORY_SHARE_PERCENT * 100 / command->nodes / CHUNK_BYTES + 2) *
		CHUNK_BYTES;
	/* A node that spins takes the core from another's vCPU where there are not enough. */
	cpu_set_t cores;
	bool spin = sched_getaffinity(0, sizeof(cores), &cores) == 0 &&
		    2 * command->nodes <= (uint32_t)CPU_COUNT(&cores);
	fprintf(file, "[pod]\nname = local%d\nmemory = %llu\nspin = %s\npolicy = %s\nnuma = %s\n",
		getpid(), (unsigned long long)memory, spin ? "auto" : "off",
		placement_policy_name(command->policy), command->numa ? "yes" : "no");
	for (uint32_t i = 0; i < command->nodes; i++)
		fprintf(file, "[node node%u]\naddress = 127.0.0.1:%u\nmemory = %llu\nvcpus = %u\n",
			i, port[i], (unsigned long long)promise,
			command->vcpus / command->nodes + (i < command->vcpus % command->nodes));
	/* For this pod alone; never in a file or on a command line. */
	uint8_t random[POD_SECRET_MAX / 4];
	if (getrandom(random, sizeof(random), 0) != sizeof(random)) {
		complain("no random numbers for the pod's secret: %s", strerror(errno));
		fclose(file);
		free(text);
		return NULL;
	}
	fclose(file);
	if (pod_config_parse(text, "eagre run", &config, why, sizeof(why)) < 0)
		complain("%s", why);
	free(text);
	if (config) {
		memcpy(config->secret, random, sizeof(random));
		config->secret_size = sizeof(random);
		/* Who can read or change what is on loopback can as well do it to the processes. */
		config->encrypt = command->encrypt;
		if (command->policy_state)
			strcpy(config->policy_state, command->policy_state);
	}
	if (config && add_devices(command, config) < 0) {
		free(config);
		return NULL;
	}
	return config;
}

static void say_nothing(void *context, const char *line)
{
}

/* What parent and children share. */
struct run_shared {
	pid_t parent;
	atomic_flag said;    /* one line says why the pod ended; the others' would say the same */
	atomic_bool restart; /* the guest reboots */
};

static struct node_options options_of(const struct run_command *command,
				      const struct pod_config *config, uint16_t self,
				      const struct node_guest *guest)
{
	return (struct node_options){
		.config = config,
		.self = self,
		.all_here = true,
		.engine = command->engine,
		.engine_note = command->engine_note,
		.guest = self == FIRST_NODE ? guest : NULL,
		.power_off_s = command->guest.power_off_s,
		.say = command->quiet || self != FIRST_NODE ? say_nothing : print_progress,
		.warn = print_progress,
		.forbidden = message_print_forbidden,
	};
}

/* In the child: never returns. */
static void run_node(const struct node_options *options, struct run_shared *shared)
{
	struct node_result result = { 0 };
	give_ports();
	/* The parent may have died before. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != shared->parent)
		_exit(STATUS_FAILED);
	int r = node_run(options, &result);
	if (options->self == FIRST_NODE && result.restart)
		atomic_store(&shared->restart, true);
	if (result.line[0] && (options->self == FIRST_NODE || r < 0) &&
	    !atomic_flag_test_and_set(&shared->said))
		complain_briefly("%s", result.line);
	fflush(NULL);
	_exit(r < 0 ? STATUS_FAILED : result.status);
}

static struct termios terminal_before;
static bool terminal_known;

static void terminal_keep(void)
{
	terminal_known = tcgetattr(STDIN_FILENO, &terminal_before) == 0;
}

/* The first node does this itself, unless it was killed. */
static void terminal_mend(void)
{
	struct termios now;
	if (!terminal_known || tcgetattr(STDIN_FILENO, &now) < 0 ||
	    (now.c_lflag == terminal_before.c_lflag && now.c_oflag == terminal_before.c_oflag))
		return;
	signal(SIGTTOU, SIG_IGN); /* in the background, too */
	tcsetattr(STDIN_FILENO, TCSANOW, &terminal_before);
}

static pid_t children[NODES_MAX]; /* for the signal handlers alone; written before they are set */

static volatile sig_atomic_t passed_on; /* somebody wants the end */

static void pass_on(int number)
{
	passed_on = 1;
	for (uint32_t i = 0; i < NODES_MAX; i++)
		if (children[i] > 0)
			kill(children[i], number);
}

static uint64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* What the parent knows of its nodes. Times in ms; 0: not. */
struct watch {
	const struct pod_config *config;
	uint32_t left;
	int first_status; /* of FIRST_NODE */
	uint64_t stopped[NODES_MAX], ended, looked;
	bool asked, killed;
};

static void kill_node(struct watch *w, uint32_t i, const char *why)
{
	kill(children[i], SIGKILL);
	complain_briefly("node %u (%s) %s", i, w->config->node[i].name, why);
}

static void node_changed(struct watch *w, uint32_t i, int status)
{
	if (WIFSTOPPED(status) || WIFCONTINUED(status)) {
		w->stopped[i] = WIFSTOPPED(status) ? now_ms() : 0;
		return;
	}
	bool ours = w->killed || w->stopped[i];
	children[i] = 0;
	w->stopped[i] = 0;
	w->left--;
	if (!w->ended)
		w->ended = now_ms();
	if (i == FIRST_NODE) {
		terminal_mend();
		w->first_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	}
	if (WIFSIGNALED(status) && !ours)
		complain_briefly(
			"node %u (%s) was ended by SIG%s%s", i, w->config->node[i].name,
			sigabbrev_np(WTERMSIG(status)),
			WTERMSIG(status) == SIGKILL ? ": perhaps this host ran out of memory" : "");
}

static void take_changes(struct watch *w)
{
	int status;
	pid_t pid;
	while (w->left && (pid = waitpid(-1, &status, WNOHANG | WUNTRACED | WCONTINUED)) > 0)
		for (uint32_t i = 0; i < w->config->node_count; i++)
			if (children[i] == pid)
				node_changed(w, i, status);
}

/*
 * The pod's own protocol ends the others when one ends. What it cannot do is done here: a stopped
 * process takes no signal but SIGKILL, and who was not linked yet does not know.
 */
static void judge_nodes(struct watch *w)
{
	uint64_t now = now_ms();
	/* Who was stopped itself (Ctrl-Z) has seen nobody go on. */
	bool late = now - w->looked > 1000;
	w->looked = now;
	for (uint32_t i = 0; i < w->config->node_count; i++) {
		if (!w->stopped[i] || !children[i])
			continue;
		if (late)
			w->stopped[i] = now;
		if (now - w->stopped[i] < (w->ended ? STOPPED_END_MS : STOPPED_MS))
			continue;
		kill_node(w, i, "was stopped, and is killed so that the pod ends");
		/* Perhaps nobody else has seen it at all. */
		pass_on(SIGTERM);
	}
	if (!w->ended)
		return;
	if (!w->asked && now - w->ended >= PATIENCE_MS) {
		w->asked = true;
		pass_on(SIGTERM);
	}
	if (!w->killed && now - w->ended >= KILL_MS) {
		w->killed = true;
		for (uint32_t i = 0; i < w->config->node_count; i++)
			if (children[i])
				kill_node(w, i, "did not end, and is killed");
	}
}

/* Is there anything that time alone brings on? */
static bool time_matters(const struct watch *w)
{
	bool stopped = false;
	for (uint32_t i = 0; i < w->config->node_count; i++)
		stopped |= w->stopped[i] != 0;
	return stopped || w->ended;
}

/* Until all are gone. The first node's status. */
static int wait_for_nodes(const struct pod_config *config, uint32_t count)
{
	struct watch w = { .config = config, .left = count, .first_status = STATUS_FAILED };
	struct timespec turn = { .tv_nsec = 100000000 };
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	w.looked = now_ms();
	for (take_changes(&w); w.left; take_changes(&w)) {
		judge_nodes(&w);
		sigtimedwait(&set, NULL, time_matters(&w) ? &turn : NULL);
	}
	return w.first_status;
}

static int start_nodes(const struct run_command *command, const struct pod_config *config,
		       const struct node_guest *guest, struct run_shared *shared)
{
	for (uint32_t i = 0; i < config->node_count; i++) {
		struct node_options options = options_of(command, config, (uint16_t)i, guest);
		pid_t pid = fork();
		if (pid == 0)
			run_node(&options, shared);
		if (pid < 0) {
			int error = errno;
			complain("cannot start node %u: %s", i, strerror(error));
			pass_on(SIGTERM);
			return -error;
		}
		children[i] = pid;
	}
	return 0;
}

/*
 * One life of the pod: until all nodes are gone. The first node's status. Nodes that follow are new
 * processes: what the guest's last life has left in them is gone with them.
 */
static int run_pod(const struct run_command *command, const struct pod_config *config,
		   const struct node_guest *guest, struct run_shared *shared)
{
	uint32_t started = 0;
	int r = start_nodes(command, config, guest, shared);
	/* A terminal's Ctrl-C reaches the nodes by itself; other senders know only this process. */
	signal(SIGINT, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	signal(SIGTERM, pass_on);
	if (signal(SIGHUP, pass_on) == SIG_IGN)
		signal(SIGHUP, SIG_IGN); /* nohup */
	for (uint32_t i = 0; i < config->node_count; i++)
		started += children[i] > 0;
	int status = wait_for_nodes(config, started);
	status_socket_sweep(); /* who was killed has left its socket */
	return r < 0 ? STATUS_FAILED : status;
}

/* The nodes get the signals as this process has got them. */
struct run_signals {
	struct sigaction interrupt, quit, term, hangup;
};

static void signals_keep(struct run_signals *signals)
{
	sigaction(SIGINT, NULL, &signals->interrupt);
	sigaction(SIGQUIT, NULL, &signals->quit);
	sigaction(SIGTERM, NULL, &signals->term);
	sigaction(SIGHUP, NULL, &signals->hangup);
}

static void signals_restore(const struct run_signals *signals)
{
	sigset_t set;
	sigaction(SIGINT, &signals->interrupt, NULL);
	sigaction(SIGQUIT, &signals->quit, NULL);
	sigaction(SIGTERM, &signals->term, NULL);
	sigaction(SIGHUP, &signals->hangup, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

int cmd_run(int argc, char **argv)
{
	static struct run_command command; /* large, and the stack may be small */
	struct node_guest guest;
	struct run_signals signals;
	char why[512];
	int status = parse(argc, argv, &command);
	if (status >= 0)
		return status;
	command.engine = engine_choose(command.guest.engine, command.engine_note,
				       sizeof(command.engine_note));
	if (!command.engine || guest_options_open(&command.guest, &guest) < 0)
		return STATUS_FAILED;
	struct pod_config *config = make_config(&command);
	if (!config)
		return STATUS_FAILED;
	privileges_hide(); /* the nodes' secret is here, too */
	status = STATUS_FAILED;
	struct run_shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
					 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct node_options first = options_of(&command, config, 0, &guest);
	if (shared == MAP_FAILED) {
		complain("no memory: %s", strerror(errno));
		goto out;
	}
	if (node_check(&first, why, sizeof(why)) < 0) {
		complain("%s", why);
		goto out;
	}
	shared->parent = getpid();
	fflush(NULL);
	terminal_keep();
	signals_keep(&signals);
	signal(SIGCHLD, SIG_DFL); /* a caller that ignores it has nobody told of a child's end */
	for (;;) {
		status = run_pod(&command, config, &guest, shared);
		if (status != STATUS_OK || passed_on || !atomic_load(&shared->restart))
			break;
		free(config);
		config = make_config(&command);
		if (!config)
			return STATUS_FAILED;
		atomic_store(&shared->restart, false);
		atomic_flag_clear(&shared->said);
		signals_restore(&signals);
		if (passed_on)
			break;
	}
out:
	free(config);
	return status;
}
