/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host's beginning as a node of a pod that runs: see join.h. Nothing else goes on in this process
 * yet, so it waits where it stands.
 *
 * Tested in tests/node/test_sponsor.c (what hosts may join), tests/pod/join.
 */
#include "node/join.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "link/address.h"
#include "link/ask.h"
#include "link/control.h"
#include "memory/uffd_probe.h"
#include "node/privileges.h"

#define DIAL_MS	     5000
#define TOLD_SECONDS 40 /* others may be before it, and each step has its time */

/* ---- what the guest asks of a host ----------------------------------------------------------- */

/* Hosts whose TSCs cannot be scaled: the guest's is faster by a little, so that all step forward. */
#define TSC_UNSCALED_PPM 30u

static bool tsc_follows(uint32_t guest_khz, const struct control_features *f)
{
	uint64_t khz = f->tsc_khz;

	if (f->tsc_scaling)
		return !f->tsc_margin_ppm ||
		       (uint64_t)guest_khz * 1000000 >= khz * (1000000ull + f->tsc_margin_ppm);
	return guest_khz >= khz && (guest_khz - khz) * 1000000 <= khz * TSC_UNSCALED_PPM;
}

struct bit {
	uint32_t function, index;
	char reg; /* 'b', 'c' or 'd' */
	uint8_t bit;
	const char *name;
};

/* Those that hosts differ in most. */
static const struct bit bits[] = {
	{ 1, 0, 'c', 0, "sse3" },      { 1, 0, 'c', 9, "ssse3" },     { 1, 0, 'c', 12, "fma" },
	{ 1, 0, 'c', 13, "cx16" },     { 1, 0, 'c', 19, "sse4_1" },   { 1, 0, 'c', 20, "sse4_2" },
	{ 1, 0, 'c', 22, "movbe" },    { 1, 0, 'c', 23, "popcnt" },   { 1, 0, 'c', 25, "aes" },
	{ 1, 0, 'c', 26, "xsave" },    { 1, 0, 'c', 28, "avx" },      { 1, 0, 'c', 29, "f16c" },
	{ 1, 0, 'c', 30, "rdrand" },   { 7, 0, 'b', 3, "bmi1" },      { 7, 0, 'b', 5, "avx2" },
	{ 7, 0, 'b', 7, "smep" },      { 7, 0, 'b', 8, "bmi2" },      { 7, 0, 'b', 9, "erms" },
	{ 7, 0, 'b', 16, "avx512f" },  { 7, 0, 'b', 17, "avx512dq" }, { 7, 0, 'b', 18, "rdseed" },
	{ 7, 0, 'b', 19, "adx" },      { 7, 0, 'b', 20, "smap" },     { 7, 0, 'b', 29, "sha_ni" },
	{ 7, 0, 'b', 30, "avx512bw" }, { 7, 0, 'b', 31, "avx512vl" }, { 7, 0, 'c', 3, "pku" },
	{ 7, 0, 'c', 8, "gfni" },      { 7, 0, 'c', 9, "vaes" },
};

static bool has_bit(const struct cpuid_set *set, const struct bit *bit)
{
	const struct cpuid_leaf *leaf = cpuid_find(set, bit->function, bit->index);
	uint32_t reg = !leaf		 ? 0
		       : bit->reg == 'b' ? leaf->ebx
		       : bit->reg == 'c' ? leaf->ecx
					 : leaf->edx;
	return reg >> bit->bit & 1;
}

static void name_missing(const struct cpuid_set *pod, const struct cpuid_set *offer, char *text,
			 size_t size)
{
	text[0] = '\0';
	for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++)
		if (has_bit(pod, &bits[i]) && !has_bit(offer, &bits[i])) {
			size_t used = strlen(text);
			snprintf(text + used, size - used, "%s%s", used ? ", " : ": ",
				 bits[i].name);
		}
}

int join_check_start(const struct control_start *start, const struct control_features *features,
		     char *why, size_t why_size)
{
	char missing[256];

	if (!cpuid_within(&start->cpuid, &features->offer)) {
		name_missing(&start->cpuid, &features->offer, missing, sizeof(missing));
		snprintf(why, why_size,
			 "the guest runs with CPU features that the joining host does not have%s",
			 missing);
		return -ENOTSUP;
	}
	if (start->tsc_deadline && !features->tsc_deadline) {
		snprintf(why, why_size,
			 "the guest uses the TSC-deadline timer, which the joining "
			 "host does not have");
		return -ENOTSUP;
	}
	if (!tsc_follows(start->tsc_khz, features)) {
		snprintf(
			why, why_size,
			"the guest's TSC runs at %u kHz, which the joining host's (%u kHz) cannot follow",
			start->tsc_khz, features->tsc_khz);
		return -ENOTSUP;
	}
	return 0;
}

/* ---- this host ------------------------------------------------------------------------------- */

/* By which of its addresses it reaches the pod: no packet is sent for that. */
static int find_address(const struct token *token, struct address *ret_address, char *why,
			size_t why_size)
{
	struct address peer;
	int r = address_parse(token->address[0], &peer, why, why_size), fd;

	if (r < 0)
		return r;
	*ret_address = (struct address){ .size = sizeof(ret_address->storage) };
	fd = socket(peer.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&peer.storage, peer.size) < 0 ||
	    getsockname(fd, (struct sockaddr *)&ret_address->storage, &ret_address->size) < 0) {
		r = -errno;
		snprintf(why, why_size, "the pod's %s is not reached: %s; give --address",
			 token->address[0], strerror(-r));
	} else {
		/* sin_port and sin6_port are at the same place. */
		uint16_t port = htobe16(JOIN_PORT);
		memcpy((char *)&ret_address->storage + 2, &port, sizeof(port));
	}
	if (fd >= 0)
		close(fd);
	return r;
}

/* The others will dial it, so it must be this host's, and free. */
static int try_address(const struct address *address, const char *text, char *why, size_t why_size)
{
	int fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1, r = 0;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, (const struct sockaddr *)&address->storage, address->size) < 0 ||
	    listen(fd, 1) < 0)
		r = -errno;
	if (fd >= 0)
		close(fd);
	if (r == -EADDRINUSE)
		snprintf(why, why_size, "%s is in use on this host: give --address HOST:PORT",
			 text);
	else if (r == -EADDRNOTAVAIL)
		snprintf(why, why_size,
			 "%s is no address of this host: give the one by which the pod's nodes "
			 "reach it (--address)",
			 text);
	else if (r < 0)
		snprintf(why, why_size, "%s: %s", text, strerror(-r));
	return r;
}

static int own_address(const struct join_config *config, char ret_text[ADDRESS_TEXT_MAX], char *why,
		       size_t why_size)
{
	struct address address;
	int r = config->own.address[0] ? address_parse(config->own.address, &address, why, why_size)
				       : find_address(config->token, &address, why, why_size);

	if (r < 0)
		return r;
	address_text(&address, ret_text);
	return try_address(&address, ret_text, why, why_size);
}

static int look_at_host(const struct join_config *config, struct control_join_ask *ask, char *why,
			size_t why_size)
{
	static struct engine_features found;
	const struct node_config *own = &config->own;
	struct control_features *f = &ask->features;
	char address[ADDRESS_TEXT_MAX];
	struct uffd_probe uffd;
	int r = uffd_probe(&uffd, why, why_size);

	if (!r)
		r = config->engine->probe(&found, why, why_size);
	if (!r)
		r = own_address(config, address, why, why_size);
	if (r < 0)
		return r;
	snprintf(ask->about.name, sizeof(ask->about.name), "%s", own->name);
	snprintf(ask->about.address, sizeof(ask->about.address), "%s", address);
	ask->about.promise_bytes = own->memory;
	ask->about.cores = own->cores < UINT16_MAX ? (uint16_t)own->cores : UINT16_MAX;
	snprintf(f->engine, sizeof(f->engine), "%s", config->engine->name);
	f->tsc_khz = found.tsc_khz;
	f->tsc_deadline = found.tsc_deadline;
	f->tsc_scaling = found.tsc_scaling;
	f->tsc_margin_ppm = found.tsc_margin_ppm;
	f->walks_write = found.walks_write;
	f->offer = found.offer;
	f->capacity_pages = own->memory / PAGE_BYTES;
	return 0;
}

/* ---- asking ---------------------------------------------------------------------------------- */

static int receive(struct control_channel *channel, time_t until, struct control_message *msg)
{
	struct pollfd fds = { .fd = control_fd(channel), .events = POLLIN };
	struct timespec now;

	for (;;) {
		int r = control_flush(channel);
		if (r < 0 && r != -EAGAIN)
			return r;
		r = control_receive(channel, msg);
		if (r != -EAGAIN)
			return r;
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec >= until)
			return -ETIMEDOUT;
		fds.events = control_backlog(channel) ? POLLIN | POLLOUT : POLLIN;
		(void)poll(&fds, 1, 1000);
	}
}

static int take_told(const struct control_join_told *told, const struct join_config *config,
		     const struct control_join_ask *ask, struct pod_config **ret_config,
		     struct node_joins *joins, char *why, size_t why_size)
{
	char *text = strndup(told->config, told->config_size);
	struct pod_config *pod = NULL;
	struct member_list *list = calloc(1, sizeof(*list));
	int r = text && list ? 0 : -ENOMEM;

	if (!r)
		r = pod_config_parse(text, "the pod's configuration", &pod, why, why_size);
	if (!r)
		r = control_list_decode(told->list, told->list_size, &joins->list);
	/* What a correct node never says is found here, and not when links are being made. */
	if (!r &&
	    (member_list_init_joiner(list, told->number, &joins->list) < 0 ||
	     joins->list.number_count != pod_config_numbers(pod) ||
	     strcmp(joins->list.member[told->number].about.name, ask->about.name) ||
	     told->secret_size > sizeof(pod->secret) || pod->memory != joins->start.memory_bytes ||
	     pod->vcpu_count != joins->start.vcpu_count)) {
		snprintf(why, why_size, "what the pod's node has told makes no sense");
		r = -EPROTO;
	}
	if (!r) {
		memcpy(pod->secret, told->secret, told->secret_size);
		pod->secret_size = told->secret_size;
		joins->own = config->own;
		snprintf(joins->own.address, sizeof(joins->own.address), "%s", ask->about.address);
		*ret_config = pod;
	} else {
		free(pod); /* the secret is not in it yet */
	}
	free(text);
	free(list);
	return r;
}

/* START, RUN, JOIN_TOLD; or the last alone. */
static int converse(struct control_channel *channel, const struct join_config *config,
		    struct control_message *msg, struct pod_config **ret_config,
		    struct node_joins *joins, uint16_t *ret_number, char *why, size_t why_size)
{
	static struct control_join_ask ask;
	bool started = false, runs = false;
	struct timespec now;
	int r;

	ask = msg->join_ask;
	clock_gettime(CLOCK_MONOTONIC, &now);
	r = control_send(channel, msg);
	while (!r) {
		r = receive(channel, now.tv_sec + TOLD_SECONDS, msg);
		if (r < 0)
			break;
		if (msg->type == CONTROL_START && !started) {
			joins->start = msg->start;
			started = true;
		} else if (msg->type == CONTROL_RUN && !runs) {
			joins->run = msg->run;
			runs = true;
		} else if (msg->type == CONTROL_JOIN_TOLD && msg->join_told.why[0]) {
			snprintf(why, why_size, "the pod says: %s", msg->join_told.why);
			return -EACCES;
		} else if (msg->type == CONTROL_JOIN_TOLD && started && runs) {
			*ret_number = msg->join_told.number;
			r = take_told(&msg->join_told, config, &ask, ret_config, joins, why,
				      why_size);
			return r ? r
				 : join_check_start(&joins->start, &ask.features, why, why_size);
		} else {
			r = -EPROTO;
		}
	}
	if (r == -ETIMEDOUT)
		snprintf(why, why_size, "the pod's node has not answered within %d s",
			 TOLD_SECONDS);
	else
		snprintf(why, why_size,
			 "the pod's node has closed the connection without an answer: "
			 "perhaps too many ask at once");
	return r;
}

int join_ask(const struct join_config *config, struct pod_config **ret_config,
	     struct node_joins **ret_joins, uint16_t *ret_number, char *why, size_t why_size)
{
	struct control_message *msg = calloc(1, sizeof(*msg));
	struct node_joins *joins = calloc(1, sizeof(*joins));
	struct ask *ask = NULL;
	int r = msg && joins ? 0 : -ENOMEM;

	*ret_config = NULL;
	snprintf(why, why_size, "out of memory");
	if (!r && token_is_expired(&config->token->name, (uint64_t)time(NULL))) {
		snprintf(why, why_size, "%s", token_explain(TOKEN_EXPIRED));
		r = -EKEYEXPIRED;
	}
	if (!r) {
		msg->type = CONTROL_JOIN_ASK;
		r = look_at_host(config, &msg->join_ask, why, why_size);
	}
	if (!r)
		r = ask_create(config->token, 0, DIAL_MS, &ask, why, why_size);
	if (!r) {
		privileges_hide(); /* the secret comes */
		r = converse(ask_channel(ask), config, msg, ret_config, joins, ret_number, why,
			     why_size);
	}
	ask_destroy(ask);
	free(msg);
	if (r < 0) {
		if (*ret_config)
			explicit_bzero(*ret_config, sizeof(**ret_config));
		free(*ret_config);
		*ret_config = NULL;
		free(joins);
		return r;
	}
	*ret_joins = joins;
	return 0;
}
