/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The member that a stranger has asked to join by: it judges what he offers, has the pod take him in,
 * and tells him what he must know (node_state.h has the order of words).
 *
 * All of that waits, for him and for the pod, so a thread does it that nobody waits for: one stranger
 * after the other, each for a bounded time. The control thread hands him over (sponsor_asked()) and
 * keeps the list as it was when he was taken in (sponsor_joined()). He has shown a token of this pod
 * before this thread hears of him, and is believed nothing: whatever is wrong with what he says ends
 * his channel alone.
 *
 * Tested in tests/node/test_sponsor.c and tests/pod/join.
 */
#include "node/sponsor.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "link/address.h"
#include "node/join.h"
#include "node/node_state.h"

#define ASKS_MAX	   4
#define ASK_SECONDS	   10 /* to say what he offers, and to take the answer in */
#define WISH_TRIES	   20
#define WISH_AGAIN_MS	   200
#define POLL_MS		   100
#define TOKEN_MINUTES	   60u
#define TOKEN_MINUTES_MAX  (7u * 24 * 60)
#define TOKEN_ANSWER_BYTES (TOKEN_TEXT_MAX + 64u)

struct asking {
	struct control_channel *channel;
	struct token_name token;
};

struct sponsor {
	struct node *node;
	pthread_t thread;
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t changed;
	struct asking queue[ASKS_MAX];
	uint32_t count;
	struct member_word joined; /* the last JOIN of this node's that was over */
	struct member_snapshot list;

	/* The thread's own. */
	struct control_message ask, answer;
	uint8_t list_bytes[CONTROL_PAYLOAD_MAX];
};

/* ---- judging --------------------------------------------------------------------------------- */

static bool is_name(const char *name)
{
	for (const char *c = name; *c; c++)
		if (!strchr("-_.0123456789abcdefghijklmnopqrstuvwxyz"
			    "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
			    *c))
			return false;
	return name[0] != '\0';
}

/* This pod as it is. */
static int judge_pod(const struct node *node, char *why, size_t why_size)
{
	const struct pod_config *config = node->config;

	if (!pod_config_grows(config))
		snprintf(why, why_size, "the pod takes no other nodes: set nodes_max in [pod]");
	else if (!config->secret_size)
		snprintf(why, why_size,
			 "the pod has no secret, and so no tokens: make one by "
			 "'eagre secret FILE', and set secret_file in [pod]");
	else if (!pod_config_encrypts(config))
		snprintf(why, why_size,
			 "the pod's links are not encrypted (encrypt = no), and who "
			 "joins is given its secret");
	else if (pod_config_has_io(config))
		snprintf(
			why, why_size,
			"the pod has disks or network cards, which nodes that join cannot reach yet");
	else if (!node_moves(node))
		snprintf(why, why_size, "the pod has more than %u vCPUs, so none can move",
			 NODE_VCPUS_MAX);
	else if (node->options->joins)
		snprintf(why, why_size, "this node has joined itself: ask one of the pod's first");
	else if (!atomic_load(&node->run_ns))
		snprintf(why, why_size, "the guest does not run yet: try again");
	else
		return 0;
	return -EPERM;
}

static int judge_about(const struct node *node, const struct member_about *about, char *why,
		       size_t why_size)
{
	struct address address;
	char wrong[128];

	if (!is_name(about->name)) {
		snprintf(why, why_size, "'%s' is no name: use letters, digits, '-', '_' and '.'",
			 about->name);
		return -EINVAL;
	}
	if (members_find(node->members, about->name) != NODE_NONE) {
		snprintf(why, why_size, "the pod has a node '%s' already: give --name",
			 about->name);
		return -EEXIST;
	}
	if (address_parse_numeric(about->address, &address, wrong, sizeof(wrong)) < 0) {
		snprintf(why, why_size, "its address: %s", wrong);
		return -EINVAL;
	}
	members_for_each(node->members, n)
		if (!strcmp(members_about(node->members, n)->address, about->address)) {
			snprintf(why, why_size, "%s is the address of the pod's node '%s'",
				 about->address, members_name(node->members, n));
			return -EEXIST;
		}
	if (about->promise_bytes < CHUNK_BYTES || about->promise_bytes % CHUNK_BYTES) {
		snprintf(why, why_size, "it promises no memory: give --memory");
		return -EINVAL;
	}
	return 0;
}

int sponsor_judge(const struct node *node, const struct control_join_ask *ask, char *why,
		  size_t why_size)
{
	int r = judge_pod(node, why, why_size);

	if (!r)
		r = judge_about(node, &ask->about, why, why_size);
	if (!r)
		r = join_check_start(&node->start, &ask->features, why, why_size);
	return r;
}

/* ---- words ----------------------------------------------------------------------------------- */

static bool goes_on(struct node *node, uint64_t until_ns)
{
	return !node_has_ended(node) && node_clock_local_ns(node->clock) < until_ns;
}

/* A message comes. 0; -ETIMEDOUT, -ESHUTDOWN, or what is wrong with the channel. */
static int receive(struct node *node, struct control_channel *channel, struct control_message *msg)
{
	uint64_t until_ns = node_clock_local_ns(node->clock) + ASK_SECONDS * 1000000000ull;
	struct pollfd fds = { .fd = control_fd(channel), .events = POLLIN };

	while (goes_on(node, until_ns)) {
		int r = control_flush(channel);
		if (r < 0 && r != -EAGAIN)
			return r;
		r = control_receive(channel, msg);
		if (r != -EAGAIN)
			return r;
		(void)poll(&fds, 1, POLL_MS);
	}
	return -ETIMEDOUT;
}

/* All that was said has left, and he has closed. */
static void finish(struct node *node, struct control_channel *channel)
{
	uint64_t until_ns = node_clock_local_ns(node->clock) + ASK_SECONDS * 1000000000ull;
	struct pollfd fds = { .fd = control_fd(channel), .events = POLLIN };
	int r = -EAGAIN;

	while (r == -EAGAIN && goes_on(node, until_ns)) {
		r = control_flush(channel);
		if (r == -EAGAIN)
			(void)poll(&(struct pollfd){ .fd = fds.fd, .events = POLLOUT }, 1, POLL_MS);
	}
	if (r == 0)
		channel->ops->shutdown(channel);
	static struct control_message rest;
	while (r == 0 && goes_on(node, until_ns)) {
		r = control_receive(channel, &rest);
		if (r == -EAGAIN) {
			(void)poll(&fds, 1, POLL_MS);
			r = 0;
		} else if (r == 0) {
			r = -EPROTO; /* he has nothing more to say */
		}
	}
	channel->ops->destroy(channel);
}

static void refuse(struct sponsor *s, struct control_channel *channel, const char *why)
{
	s->answer = (struct control_message){ .type = CONTROL_JOIN_TOLD };
	snprintf(s->answer.join_told.why, sizeof(s->answer.join_told.why), "%s", why);
	(void)control_send(channel, &s->answer);
}

static const char *wish_error(int error)
{
	switch (error) {
	case -EEXIST:
		return "the pod has a node of this name already: give --name";
	case -ENOSPC:
		return "the pod has as many nodes as it may (nodes_max in [pod])";
	case -EKEYREJECTED:
		return "this token has been used: make a new one";
	case -EBUSY:
		return "other nodes come or go: try again later, with a new token";
	case -ETIMEDOUT:
		return "not all nodes of the pod have answered: try again, with a new token";
	case -ESHUTDOWN:
		return "the pod has ended";
	default:
		return strerror(-error);
	}
}

static int wish(struct sponsor *s, const struct asking *asking)
{
	struct member_word word = { .kind = KIND_JOIN, .about = s->ask.join_ask.about };
	int r = -EBUSY;

	word.about.token_id = asking->token.id;
	word.about.token_expiry_s = asking->token.expiry_s;
	for (int i = 0; r == -EBUSY && i < WISH_TRIES && !node_has_ended(s->node); i++) {
		if (i)
			(void)poll(NULL, 0, WISH_AGAIN_MS);
		r = steps_wish(s->node, &word);
	}
	return r;
}

/* What he must know. 0 or -errno. */
static int tell(struct sponsor *s, const struct asking *asking)
{
	const struct node *node = s->node;
	struct control_join_told *told = &s->answer.join_told;
	struct control_message start = { .type = CONTROL_START };
	struct control_message run = { .type = CONTROL_RUN };
	char *text = pod_config_print(node->config);
	int r = text ? 0 : -ENOMEM, size;

	start.start = node->start;
	run.run.start_ns = atomic_load(&node->run_ns);
	run.run.entry = node->entry;
	s->answer = (struct control_message){ .type = CONTROL_JOIN_TOLD };
	pthread_mutex_lock(&s->lock);
	told->number = s->joined.node;
	size = control_list_encode(&s->list, s->list_bytes, sizeof(s->list_bytes));
	/* A wish of before may have been over after all: he would be told somebody else's number. */
	if (s->list.member[told->number].about.token_id != asking->token.id)
		r = -ESTALE;
	pthread_mutex_unlock(&s->lock);
	told->secret = node->config->secret;
	told->secret_size = (uint16_t)node->config->secret_size;
	told->config = text;
	told->config_size = text ? (uint32_t)strlen(text) : 0;
	told->list = s->list_bytes;
	told->list_size = (uint32_t)size;
	if (size < 0)
		r = size;
	if (!r)
		r = control_send(asking->channel, &start);
	if (!r)
		r = control_send(asking->channel, &run);
	if (!r)
		r = control_send(asking->channel, &s->answer);
	free(text);
	return r;
}

static void serve(struct sponsor *s, const struct asking *asking)
{
	struct node *node = s->node;
	const struct member_about *about = &s->ask.join_ask.about;
	char why[400] = "", line[480];
	int r = receive(node, asking->channel, &s->ask);

	if (!r && s->ask.type != CONTROL_JOIN_ASK)
		r = -EPROTO;
	if (r < 0) {
		node_say(node, "somebody has shown a join token, and then not asked to join: %s",
			 strerror(-r));
		finish(node, asking->channel);
		return;
	}
	r = sponsor_judge(node, &s->ask.join_ask, why, sizeof(why));
	s->answer.join_told.number = NODE_NONE; /* until he is taken in */
	if (!r) {
		r = wish(s, asking);
		if (!r)
			r = tell(s, asking);
		if (r < 0 && s->answer.join_told.number != NODE_NONE)
			steps_abandon(node, s->answer.join_told.number);
		if (r < 0)
			snprintf(why, sizeof(why), "%s", wish_error(r));
	}
	if (r < 0)
		refuse(s, asking->channel, why);
	snprintf(line, sizeof(line), "%s (%s): %s%s", about->name, about->address,
		 r ? "may not join: " : "joins the pod", why);
	node_say(node, "%s", line);
	finish(node, asking->channel);
}

static void *sponsor_main(void *arg)
{
	struct sponsor *s = arg;
	struct asking asking;

	pthread_setname_np(pthread_self(), "sponsor");
	for (;;) {
		pthread_mutex_lock(&s->lock);
		while (!s->count)
			pthread_cond_wait(&s->changed, &s->lock);
		asking = s->queue[0];
		s->count--;
		memmove(&s->queue[0], &s->queue[1], s->count * sizeof(s->queue[0]));
		pthread_mutex_unlock(&s->lock);
		serve(s, &asking);
	}
	return NULL;
}

/* ---- the control thread ---------------------------------------------------------------------- */

void sponsor_asked(struct node *node, const struct token_name *token,
		   struct control_channel *channel)
{
	struct sponsor *s = node->sponsor;
	bool taken;

	pthread_mutex_lock(&s->lock);
	taken = s->count < ASKS_MAX;
	if (taken)
		s->queue[s->count++] = (struct asking){ channel, *token };
	pthread_cond_signal(&s->changed);
	pthread_mutex_unlock(&s->lock);
	if (!taken) /* he hears that it is closed: there is nobody to wait for what else he says */
		channel->ops->destroy(channel);
}

void sponsor_joined(struct node *node, const struct member_word *word)
{
	struct sponsor *s = node->sponsor;

	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->joined = *word;
	s->list = node->members->list.now;
	pthread_mutex_unlock(&s->lock);
}

int sponsor_create(struct node *node)
{
	struct sponsor *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->node = node;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	node->sponsor = s;
	r = -pthread_create(&s->thread, NULL, sponsor_main, s);
	if (r) {
		node->sponsor = NULL;
		free(s);
	}
	return r;
}

/* ---- tokens ---------------------------------------------------------------------------------- */

/* Of those who take tokens, which who has joined does not; this node first. */
static size_t find_addresses(const struct node *node, const char **ret_address)
{
	size_t count = 0;

	ret_address[count++] = members_about(node->members, node->self)->address;
	members_for_each_other(node->members, n) {
		const struct member_about *about = members_about(node->members, n);

		if (count < TOKEN_ADDRESSES_MAX && !about->token_expiry_s &&
		    members_state(node->members, n) == MEMBER_ACTIVE &&
		    strlen(about->address) < TOKEN_ADDRESS_MAX)
			ret_address[count++] = about->address;
	}
	return count;
}

uint64_t sponsor_date_s(void *ctx)
{
	return (uint64_t)time(NULL);
}

char *sponsor_token_request(struct node *node, const char *words)
{
	const struct pod_config *config = node->config;
	struct token_pod pod = { config->secret, config->secret_size, config->name };
	uint32_t minutes = TOKEN_MINUTES;
	struct token_name name;
	const char *address[TOKEN_ADDRESSES_MAX];
	char line[TOKEN_ANSWER_BYTES];
	struct token token;
	char *answer;
	int r;

	if (judge_pod(node, line, sizeof(line)) < 0)
		return node_answer(false, line);
	if (words[0] &&
	    (!node_parse_number(words, &minutes) || minutes < 1 || minutes > TOKEN_MINUTES_MAX)) {
		snprintf(line, sizeof(line), "a token is good for 1 to %u minutes",
			 TOKEN_MINUTES_MAX);
		return node_answer(false, line);
	}
	if (getrandom(&name.id, sizeof(name.id), 0) != sizeof(name.id))
		return node_answer(false, "no random numbers");
	name.expiry_s = sponsor_date_s(NULL) + minutes * 60ull;
	r = token_make(&pod, &name, address, find_addresses(node, address), &token);
	if (r < 0) {
		snprintf(line, sizeof(line), "no token can be made of this node's address: %s",
			 strerror(-r));
		return node_answer(false, line);
	}
	token_print(&token, line);
	answer = node_answer(true, line);
	explicit_bzero(line, sizeof(line));
	explicit_bzero(&token, sizeof(token));
	return answer;
}
