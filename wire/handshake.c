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
#include "wire/hmac.h"
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
	uint8_t mac[HANDSHAKE_MAC_BYTES];
};
static_assert(sizeof(struct wire_hello) == HANDSHAKE_BYTES);
static_assert(offsetof(struct wire_hello, purpose) == HANDSHAKE_FIXED_BYTES);
static_assert(offsetof(struct wire_hello, config_digest) == 32);
static_assert(offsetof(struct wire_hello, pod_name) == 64);
static_assert(offsetof(struct wire_hello, build) == 192);
static_assert(offsetof(struct wire_hello, mac) == HANDSHAKE_BYTES - HANDSHAKE_MAC_BYTES);
static_assert(HANDSHAKE_MAC_BYTES == HMAC_BYTES);

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
	memcpy(w.mac, hello->mac, sizeof(w.mac));
	memcpy(out, &w, sizeof(w));
}

void handshake_seal(uint8_t bytes[HANDSHAKE_BYTES], const void *secret, size_t size)
{
	size_t before = HANDSHAKE_BYTES - HANDSHAKE_MAC_BYTES;

	/* Without room for it: no seal, which nobody takes. */
	if (hmac_sha256(secret, size, bytes, before, bytes + before))
		memset(bytes + before, 0, HANDSHAKE_MAC_BYTES);
}

bool handshake_is_sealed(const uint8_t bytes[HANDSHAKE_BYTES], const void *secret, size_t size)
{
	size_t before = HANDSHAKE_BYTES - HANDSHAKE_MAC_BYTES;
	uint8_t mac[HMAC_BYTES];

	return hmac_sha256(secret, size, bytes, before, mac) == 0 &&
	       hmac_equal(mac, bytes + before);
}

struct handshake handshake_refusal(const struct handshake *mine, enum handshake_verdict verdict)
{
	return (struct handshake){ .version = mine->version,
				   .node = mine->node,
				   .peer = mine->peer,
				   .verdict = (uint8_t)verdict };
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
	if (hello.verdict == HANDSHAKE_SECRET) { /* handshake_refusal() */
		if (!wire_zero(in + HANDSHAKE_FIXED_BYTES, HANDSHAKE_BYTES - HANDSHAKE_FIXED_BYTES))
			return -EPROTO;
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
	memcpy(hello.mac, w.mac, sizeof(w.mac));
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

void handshake_explain(enum handshake_verdict verdict, enum handshake_role my_role,
		       const struct handshake *mine, const struct handshake *theirs,
		       const char *peer, char *text, size_t size)
{
	bool dialled = my_role == HANDSHAKE_DIALLER;

	switch (verdict) {
	case HANDSHAKE_VERSION:
		snprintf(
			text, size,
			"%s runs Eagre protocol %u, this is %u: install the same version on all nodes",
			peer, theirs->version, mine->version);
		return;
	case HANDSHAKE_SECRET:
		snprintf(text, size,
			 "%s %s: it is of another pod, or has another secret in its configuration: "
			 "give all nodes of a pod the same",
			 peer,
			 dialled ? "does not take this node's hello for one of its pod"
				 : "does not know this pod's secret");
		return;
	case HANDSHAKE_POD:
		snprintf(
			text, size,
			"%s belongs to pod \"%s\", this node to pod \"%s\": give each pod addresses "
			"of its own, and all nodes of a pod the same configuration",
			peer, theirs->pod_name, mine->pod_name);
		return;
	case HANDSHAKE_WRONG_NODE:
		if (dialled)
			snprintf(
				text, size,
				"%s says it is node %u: addresses are mixed up; start each node on its "
				"own host, with the same configuration",
				peer, theirs->node);
		else
			snprintf(
				text, size,
				"%s says it is node %u and wants node %u, but this is node %u: addresses "
				"are mixed up; start each node on its own host, with the same "
				"configuration",
				peer, theirs->node, theirs->peer, mine->node);
		return;
	case HANDSHAKE_UNKNOWN_NODE:
		if (dialled)
			snprintf(
				text, size,
				"%s has no other node %u in its configuration: give all nodes the same "
				"configuration, and start each once",
				peer, mine->node);
		else
			snprintf(text, size,
				 "%s says it is node %u, which is %s: give all nodes the same "
				 "configuration, and start each once",
				 peer, theirs->node,
				 theirs->node == mine->node ? "this node's own number"
							    : "not in this node's configuration");
		return;
	case HANDSHAKE_CONFIG:
		snprintf(
			text, size,
			"%s was started with another configuration of pod \"%s\" (digest %016llx, here "
			"%016llx): copy one file to all nodes",
			peer, mine->pod_name, (unsigned long long)theirs->config_digest,
			(unsigned long long)mine->config_digest);
		return;
	case HANDSHAKE_SHARDS:
		snprintf(text, size,
			 "%s has %u shards, this node %u: set the same number on all nodes", peer,
			 theirs->shard_count, mine->shard_count);
		return;
	case HANDSHAKE_CAPABILITIES:
		snprintf(
			text, size,
			"%s was built or started with other capabilities (%#x, here %#x): run the same "
			"program in the same way on all nodes",
			peer, theirs->capabilities, mine->capabilities);
		return;
	case HANDSHAKE_LIMITS:
		snprintf(
			text, size,
			"%s (%s) was built with other limits than this node (%s): install the same "
			"build on all nodes",
			peer, theirs->build, mine->build);
		return;
	case HANDSHAKE_DUPLICATE:
		if (dialled)
			snprintf(
				text, size,
				"%s is linked with another process that says it is node %u: start each "
				"node once",
				peer, mine->node);
		else
			snprintf(
				text, size,
				"%s is linked already, and a second process says it is node %u: start "
				"each node once",
				peer, theirs->node);
		return;
	case HANDSHAKE_RUNNING:
		if (dialled)
			snprintf(text, size,
				 "%s says that its pod is complete and running: end that pod first",
				 peer);
		else
			snprintf(
				text, size,
				"%s wants to join, but the pod is complete and running: end this pod "
				"first",
				peer);
		return;
	case HANDSHAKE_OK:
	case HANDSHAKE_VERDICT_LIMIT:
		break;
	}
	snprintf(text, size, "%s refused for reason %d", peer, (int)verdict);
}
