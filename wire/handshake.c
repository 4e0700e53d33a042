// SPDX-License-Identifier: Apache-2.0
/*
 * The handshake's layout, its judgement, and its words.
 *
 * Judging is symmetric but for roles: the listener judges the dialler's hello, the dialler then
 * judges the listener's, and both find the same reason. A hello of another version is never read
 * beyond its fixed part. What a peer says of itself reaches a terminal only after
 * wire_text_valid().
 *
 * Tested by tests/link/test_handshake.c, fuzzed by tests/fuzz/fuzz_handshake.c.
 */
#include "wire/handshake.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/coherence.h"
#include "wire/control_message.h"
#include "wire/page_frame.h"
#include "wire/text.h"
#include "wire/version.h"

struct wire_hello {
	uint32_t magic;
	uint16_t version, length;
	uint16_t node, peer;
	uint8_t verdict, zero1[3];
	/* Up to here the same in every version. */
	uint16_t purpose, shard_count, node_count, zero2;
	uint32_t capabilities, zero3;
	uint64_t config_digest;
	uint64_t incarnation;
	uint64_t limits_digest;
	uint64_t zero4;
	char pod_name[POD_NAME_MAX];
	char node_name[NODE_NAME_MAX];
	char build[HANDSHAKE_BUILD_MAX];
};
static_assert(sizeof(struct wire_hello) == HANDSHAKE_BYTES);
static_assert(offsetof(struct wire_hello, purpose) == HANDSHAKE_FIXED_BYTES);
static_assert(offsetof(struct wire_hello, config_digest) == 32);
static_assert(offsetof(struct wire_hello, pod_name) == 64);
static_assert(offsetof(struct wire_hello, build) == 192);

uint64_t handshake_limits_digest(void)
{
	const uint64_t limits[] = {
		PAGE_SHIFT, CHUNK_SHIFT,	NODES_MAX,	     VCPUS_MAX,
		SHARDS_MAX, GPA_LIMIT,		POD_NAME_MAX,	     NODE_NAME_MAX,
		NODE_NONE,  FRAME_MESSAGES_MAX, CONTROL_PAYLOAD_MAX, CPUID_LEAVES_MAX,
	};
	uint64_t digest = 0xcbf29ce484222325ull; /* FNV-1a */

	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		for (unsigned shift = 0; shift < 64; shift += 8) {
			digest ^= limits[i] >> shift & 0xff;
			digest *= 0x100000001b3ull;
		}
	}
	return digest;
}

void handshake_encode(const struct handshake *hello, uint8_t out[HANDSHAKE_BYTES])
{
	struct wire_hello w = {
		.magic = htole32(WIRE_MAGIC_HELLO),
		.version = htole16(hello->version),
		.length = htole16(HANDSHAKE_BYTES),
		.node = htole16(hello->node),
		.peer = htole16(hello->peer),
		.verdict = hello->verdict,
		.purpose = htole16(hello->purpose),
		.shard_count = htole16(hello->shard_count),
		.node_count = htole16(hello->node_count),
		.capabilities = htole32(hello->capabilities),
		.config_digest = htole64(hello->config_digest),
		.incarnation = htole64(hello->incarnation),
		.limits_digest = htole64(hello->limits_digest),
	};

	wire_text_clean(w.pod_name, sizeof(w.pod_name), hello->pod_name);
	wire_text_clean(w.node_name, sizeof(w.node_name), hello->node_name);
	wire_text_clean(w.build, sizeof(w.build), hello->build);
	memcpy(out, &w, sizeof(w));
}

int handshake_decode_fixed(const uint8_t in[HANDSHAKE_FIXED_BYTES], struct handshake *ret_hello,
			   uint16_t *ret_length)
{
	struct wire_hello w;
	uint16_t length;

	memset(&w, 0, sizeof(w));
	memcpy(&w, in, HANDSHAKE_FIXED_BYTES);
	length = le16toh(w.length);
	if (le32toh(w.magic) != WIRE_MAGIC_HELLO || length < HANDSHAKE_FIXED_BYTES)
		return -EPROTO;
	if (le16toh(w.version) == WIRE_VERSION &&
	    (length != HANDSHAKE_BYTES || !wire_zero(w.zero1, sizeof(w.zero1)) ||
	     w.verdict >= HANDSHAKE_VERDICT_LIMIT))
		return -EPROTO;
	*ret_hello = (struct handshake){
		.version = le16toh(w.version),
		.node = le16toh(w.node),
		.peer = le16toh(w.peer),
		.verdict = w.verdict,
	};
	*ret_length = length;
	return 0;
}

int handshake_decode(const uint8_t in[HANDSHAKE_BYTES], struct handshake *ret_hello)
{
	struct handshake hello;
	struct wire_hello w;
	uint16_t length;

	if (handshake_decode_fixed(in, &hello, &length) < 0)
		return -EPROTO;
	if (hello.version != WIRE_VERSION) {
		*ret_hello = hello;
		return 0;
	}
	memcpy(&w, in, sizeof(w));
	hello.purpose = le16toh(w.purpose);
	hello.shard_count = le16toh(w.shard_count);
	hello.node_count = le16toh(w.node_count);
	hello.capabilities = le32toh(w.capabilities);
	hello.config_digest = le64toh(w.config_digest);
	hello.incarnation = le64toh(w.incarnation);
	hello.limits_digest = le64toh(w.limits_digest);
	memcpy(hello.pod_name, w.pod_name, sizeof(w.pod_name));
	memcpy(hello.node_name, w.node_name, sizeof(w.node_name));
	memcpy(hello.build, w.build, sizeof(w.build));
	if (w.zero2 != 0 || w.zero3 != 0 || w.zero4 != 0 ||
	    hello.purpose >= HANDSHAKE_PURPOSE_MAX || hello.shard_count == 0 ||
	    hello.shard_count > SHARDS_MAX || hello.node_count == 0 ||
	    hello.node_count > NODES_MAX ||
	    !wire_text_valid(hello.pod_name, sizeof(hello.pod_name)) ||
	    !wire_text_valid(hello.node_name, sizeof(hello.node_name)) ||
	    !wire_text_valid(hello.build, sizeof(hello.build)))
		return -EPROTO;
	*ret_hello = hello;
	return 0;
}

enum handshake_verdict handshake_judge(const struct handshake *mine, const struct handshake *theirs)
{
	if (theirs->version != mine->version)
		return HANDSHAKE_VERSION;
	if (strncmp(theirs->pod_name, mine->pod_name, POD_NAME_MAX) != 0)
		return HANDSHAKE_POD;
	if (theirs->peer != mine->node)
		return HANDSHAKE_WRONG_NODE;
	if (theirs->node == mine->node || theirs->node >= mine->node_count)
		return HANDSHAKE_UNKNOWN_NODE;
	if (theirs->limits_digest != mine->limits_digest)
		return HANDSHAKE_LIMITS;
	if (theirs->shard_count != mine->shard_count)
		return HANDSHAKE_SHARDS;
	if (theirs->config_digest != mine->config_digest || theirs->node_count != mine->node_count)
		return HANDSHAKE_CONFIG;
	if (theirs->capabilities != mine->capabilities)
		return HANDSHAKE_CAPABILITIES;
	if (theirs->purpose > HANDSHAKE_SHARD(mine->shard_count - 1u))
		return HANDSHAKE_SHARDS;
	return HANDSHAKE_OK;
}

/*
 * The words for each verdict, to the side that dialled and to the one that listened. {fields} are
 * filled in once; what stands for them is not looked at again.
 */
static const char version_text[] =
	"{peer} runs Eagre protocol {their version}, this is {my version}: install the same version "
	"on all nodes";
static const char pod_text[] =
	"{peer} belongs to pod \"{their pod}\", this node to pod \"{my pod}\": give each pod addresses "
	"of its own, and all nodes of a pod the same configuration";
static const char config_text[] =
	"{peer} was started with another configuration of pod \"{my pod}\" (digest {their digest}, "
	"here {my digest}): copy one file to all nodes";
static const char shards_text[] =
	"{peer} has {their shards} shards, this node {my shards}: set the same number on all nodes";
static const char capabilities_text[] =
	"{peer} was built or started with other capabilities ({their capabilities}, here "
	"{my capabilities}): run the same program in the same way on all nodes";
static const char limits_text[] =
	"{peer} ({their build}) was built with other limits than this node ({my build}): install "
	"the same build on all nodes";

static const struct verdict_text {
	const char *listener, *dialler;
} verdict_texts[HANDSHAKE_VERDICT_LIMIT] = {
	[HANDSHAKE_VERSION] = { version_text, version_text },
	[HANDSHAKE_POD] = { pod_text, pod_text },
	[HANDSHAKE_WRONG_NODE] = {
		"{peer} says it is node {their node} and wants node {their peer}, but this is node "
		"{my node}: addresses are mixed up; start each node on its own host, with the same "
		"configuration",
		"{peer} says it is node {their node}: addresses are mixed up; start each node on its "
		"own host, with the same configuration",
	},
	[HANDSHAKE_UNKNOWN_NODE] = {
		"{peer} says it is node {their node}, which is {known}: give all nodes the same "
		"configuration, and start each once",
		"{peer} has no other node {my node} in its configuration: give all nodes the same "
		"configuration, and start each once",
	},
	[HANDSHAKE_CONFIG] = { config_text, config_text },
	[HANDSHAKE_SHARDS] = { shards_text, shards_text },
	[HANDSHAKE_CAPABILITIES] = { capabilities_text, capabilities_text },
	[HANDSHAKE_LIMITS] = { limits_text, limits_text },
	[HANDSHAKE_DUPLICATE] = {
		"{peer} is linked already, and a second process says it is node {their node}: start "
		"each node once",
		"{peer} is linked with another process that says it is node {my node}: start each "
		"node once",
	},
	[HANDSHAKE_RUNNING] = {
		"{peer} wants to join, but the pod is complete and running: end this pod first",
		"{peer} says that its pod is complete and running: end that pod first",
	},
};

#define FIELD_MAX 64u

enum number_form { DECIMAL, HEX, DIGEST };

static void put_number(char value[FIELD_MAX], enum number_form form, uint64_t number)
{
	unsigned long long n = number;

	if (form == DECIMAL)
		snprintf(value, FIELD_MAX, "%llu", n);
	else if (form == HEX)
		snprintf(value, FIELD_MAX, "%#llx", n);
	else
		snprintf(value, FIELD_MAX, "%016llx", n);
}

/* A field of one side's hello, in value; NULL: there is none of this name. */
static const char *side_field(const struct handshake *hello, const char *name, size_t length,
			      char value[FIELD_MAX])
{
	const struct {
		const char *name, *text;
		uint64_t number;
		enum number_form form;
	} fields[] = {
		{ "version", NULL, hello->version, DECIMAL },
		{ "node", NULL, hello->node, DECIMAL },
		{ "peer", NULL, hello->peer, DECIMAL },
		{ "shards", NULL, hello->shard_count, DECIMAL },
		{ "digest", NULL, hello->config_digest, DIGEST },
		{ "capabilities", NULL, hello->capabilities, HEX },
		{ "pod", hello->pod_name, 0, DECIMAL },
		{ "build", hello->build, 0, DECIMAL },
	};

	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		if (strlen(fields[i].name) != length || strncmp(fields[i].name, name, length) != 0)
			continue;
		if (fields[i].text)
			return fields[i].text;
		put_number(value, fields[i].form, fields[i].number);
		return value;
	}
	return NULL;
}

struct sides {
	const struct handshake *mine, *theirs;
	const char *peer;
};

/* What stands for the field `name`, without its braces. An unknown one is our own bug. */
static const char *field_text(const struct sides *sides, const char *name, size_t length,
			      char value[FIELD_MAX])
{
	const char *text = NULL;

	if (length == 4 && strncmp(name, "peer", 4) == 0)
		text = sides->peer;
	else if (length == 5 && strncmp(name, "known", 5) == 0)
		text = sides->theirs->node == sides->mine->node
			       ? "this node's own number"
			       : "not in this node's configuration";
	else if (strncmp(name, "their ", 6) == 0)
		text = side_field(sides->theirs, name + 6, length - 6, value);
	else if (strncmp(name, "my ", 3) == 0)
		text = side_field(sides->mine, name + 3, length - 3, value);
	assert(text);
	return text;
}

void handshake_explain(enum handshake_verdict verdict, enum handshake_role my_role,
		       const struct handshake *mine, const struct handshake *theirs,
		       const char *peer, char *text, size_t size)
{
	const struct sides sides = { mine, theirs, peer };
	const struct verdict_text *words =
		(unsigned)verdict < HANDSHAKE_VERDICT_LIMIT ? &verdict_texts[verdict] : NULL;
	const char *from = !words			  ? NULL
			   : my_role == HANDSHAKE_DIALLER ? words->dialler
							  : words->listener;
	size_t filled = 0;

	if (!from) {
		snprintf(text, size, "%s refused for reason %d", peer, (int)verdict);
		return;
	}
	while (*from && filled + 1 < size) {
		size_t plain = strcspn(from, "{");
		char value[FIELD_MAX];
		const char *field = "";

		if (from[plain] == '{') {
			size_t length = strcspn(from + plain, "}") - 1;

			field = field_text(&sides, from + plain + 1, length, value);
			filled += (size_t)snprintf(text + filled, size - filled, "%.*s%s",
						   (int)plain, from, field);
			from += plain + length + 2;
		} else {
			filled += (size_t)snprintf(text + filled, size - filled, "%s", from);
			from += plain;
		}
	}
}
