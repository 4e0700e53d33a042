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
#include <stdarg.h>
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
	uint64_t join;
	char pod_name[POD_NAME_MAX];
	char node_name[NODE_NAME_MAX];
	char build[HANDSHAKE_BUILD_MAX];
	uint8_t nonce[HANDSHAKE_NONCE_BYTES];
	uint8_t mac[HANDSHAKE_MAC_BYTES];
};
static_assert(sizeof(struct wire_hello) == HANDSHAKE_BYTES);
static_assert(offsetof(struct wire_hello, purpose) == HANDSHAKE_FIXED_BYTES);
static_assert(offsetof(struct wire_hello, config_digest) == 32);
static_assert(offsetof(struct wire_hello, pod_name) == 64);
static_assert(offsetof(struct wire_hello, build) == 192);
static_assert(offsetof(struct wire_hello, mac) == HANDSHAKE_BYTES - HANDSHAKE_MAC_BYTES);
static_assert(offsetof(struct wire_hello, nonce) == 208);
static_assert(HANDSHAKE_MAC_BYTES == HMAC_BYTES && HANDSHAKE_PROOF_BYTES == HMAC_BYTES);

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
		.join = htole64(hello->join),
	};

	wire_text_clean(w.pod_name, sizeof(w.pod_name), hello->pod_name);
	wire_text_clean(w.node_name, sizeof(w.node_name), hello->node_name);
	wire_text_clean(w.build, sizeof(w.build), hello->build);
	memcpy(w.nonce, hello->nonce, sizeof(w.nonce));
	memcpy(w.mac, hello->mac, sizeof(w.mac));
	memcpy(out, &w, sizeof(w));
}

#define SEALED_BYTES (HANDSHAKE_BYTES - HANDSHAKE_MAC_BYTES)

/* Of `size` bytes and then, unless NULL, a whole hello. False: no room for it. */
static bool mac_of(const uint8_t *bytes, size_t size, const uint8_t *hello, const void *secret,
		   size_t secret_size, uint8_t ret_mac[HMAC_BYTES])
{
	uint8_t text[2 * HANDSHAKE_BYTES];

	assert(size <= HANDSHAKE_BYTES);
	memcpy(text, bytes, size);
	if (hello)
		memcpy(text + size, hello, HANDSHAKE_BYTES);
	return hmac_sha256(secret, secret_size, text, size + (hello ? HANDSHAKE_BYTES : 0),
			   ret_mac) == 0;
}

void handshake_seal(uint8_t bytes[HANDSHAKE_BYTES], const uint8_t asked[HANDSHAKE_BYTES],
		    const void *secret, size_t size)
{
	/* Without room for it: no seal, which nobody takes. */
	if (!mac_of(bytes, SEALED_BYTES, asked, secret, size, bytes + SEALED_BYTES))
		memset(bytes + SEALED_BYTES, 0, HANDSHAKE_MAC_BYTES);
}

bool handshake_is_sealed(const uint8_t bytes[HANDSHAKE_BYTES], const uint8_t asked[HANDSHAKE_BYTES],
			 const void *secret, size_t size)
{
	uint8_t mac[HMAC_BYTES];

	return mac_of(bytes, SEALED_BYTES, asked, secret, size, mac) &&
	       hmac_equal(mac, bytes + SEALED_BYTES);
}

void handshake_prove(const uint8_t asked[HANDSHAKE_BYTES], const uint8_t answer[HANDSHAKE_BYTES],
		     const void *secret, size_t size, uint8_t ret_proof[HANDSHAKE_PROOF_BYTES])
{
	if (!mac_of(asked, HANDSHAKE_BYTES, answer, secret, size, ret_proof))
		memset(ret_proof, 0, HANDSHAKE_PROOF_BYTES);
}

bool handshake_is_proven(const uint8_t asked[HANDSHAKE_BYTES],
			 const uint8_t answer[HANDSHAKE_BYTES], const void *secret, size_t size,
			 const uint8_t proof[HANDSHAKE_PROOF_BYTES])
{
	uint8_t mac[HMAC_BYTES];

	return mac_of(asked, HANDSHAKE_BYTES, answer, secret, size, mac) && hmac_equal(mac, proof);
}

bool handshake_is_bare(enum handshake_verdict verdict)
{
	return verdict == HANDSHAKE_SECRET || verdict == HANDSHAKE_TOKEN_EXPIRED ||
	       verdict == HANDSHAKE_TOKEN_USED || verdict == HANDSHAKE_TOKEN_FULL;
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
	if (handshake_is_bare((enum handshake_verdict)hello.verdict)) { /* handshake_refusal() */
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
	hello.join = le64toh(w.join);
	memcpy(hello.pod_name, w.pod_name, sizeof(w.pod_name));
	memcpy(hello.node_name, w.node_name, sizeof(w.node_name));
	memcpy(hello.build, w.build, sizeof(w.build));
	memcpy(hello.nonce, w.nonce, sizeof(w.nonce));
	memcpy(hello.mac, w.mac, sizeof(w.mac));
	if (w.zero2 != 0 || w.zero3 != 0 || hello.purpose >= HANDSHAKE_PURPOSE_MAX ||
	    (hello.shard_count == 0 && hello.purpose != HANDSHAKE_JOIN) ||
	    hello.shard_count > SHARDS_MAX ||
	    (hello.node_count == 0 && hello.purpose != HANDSHAKE_JOIN) ||
	    hello.node_count > NODES_MAX ||
	    !wire_text_valid(hello.pod_name, sizeof(hello.pod_name)) ||
	    !wire_text_valid(hello.node_name, sizeof(hello.node_name)) ||
	    !wire_text_valid(hello.build, sizeof(hello.build)))
		return -EPROTO;
	*ret_hello = hello;
	return 0;
}

/* Of a pod who asks to join knows nothing yet. */
static enum handshake_verdict judge_joiner(const struct handshake *mine,
					   const struct handshake *theirs)
{
	if (theirs->limits_digest != mine->limits_digest)
		return HANDSHAKE_LIMITS;
	return theirs->capabilities != mine->capabilities ? HANDSHAKE_CAPABILITIES : HANDSHAKE_OK;
}

enum handshake_verdict handshake_judge(const struct handshake *mine, const struct handshake *theirs)
{
	if (theirs->version != mine->version)
		return HANDSHAKE_VERSION;
	if (theirs->purpose == HANDSHAKE_JOIN)
		return judge_joiner(mine, theirs);
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
	if (theirs->purpose > HANDSHAKE_SHARD(mine->shard_count - 1u) &&
	    theirs->purpose != HANDSHAKE_IO)
		return HANDSHAKE_SHARDS;
	return HANDSHAKE_OK;
}

/* ---- Words ---- */

struct mismatch {
	const struct handshake *mine, *theirs;
	const char *peer; /* how the other side is called */
	bool dialled;	  /* by us */
	char *text;
	size_t size;
};

__attribute__((format(printf, 2, 3))) static void say(const struct mismatch *m, const char *format,
						      ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(m->text, m->size, format, args);
	va_end(args);
}

static void say_version(const struct mismatch *m)
{
	say(m, "%s runs Eagre protocol %u, this is %u: install the same version on all nodes",
	    m->peer, m->theirs->version, m->mine->version);
}

static void say_secret(const struct mismatch *m)
{
	say(m,
	    "%s %s: it is of another pod, or has another secret, or does not encrypt its links as "
	    "this node does: give all nodes of a pod the same secret, and the same encrypt",
	    m->peer,
	    m->dialled ? "does not take this node's hello for one of its pod"
		       : "does not know this pod's secret");
}

static void say_pod(const struct mismatch *m)
{
	say(m,
	    "%s belongs to pod \"%s\", this node to pod \"%s\": give each pod addresses of its own, "
	    "and all nodes of a pod the same configuration",
	    m->peer, m->theirs->pod_name, m->mine->pod_name);
}

static void say_wrong_node(const struct mismatch *m)
{
	char wanted[64] = "";

	if (!m->dialled)
		snprintf(wanted, sizeof(wanted), " and wants node %u, but this is node %u",
			 m->theirs->peer, m->mine->node);
	say(m,
	    "%s says it is node %u%s: addresses are mixed up; start each node on its own host, "
	    "with the same configuration",
	    m->peer, m->theirs->node, wanted);
}

static void say_unknown_node(const struct mismatch *m)
{
	static const char remedy[] = "give all nodes the same configuration, and start each once";

	if (m->dialled)
		say(m, "%s has no other node %u in its configuration: %s", m->peer, m->mine->node,
		    remedy);
	else
		say(m, "%s says it is node %u, which is %s: %s", m->peer, m->theirs->node,
		    m->theirs->node == m->mine->node ? "this node's own number"
						     : "not in this node's configuration",
		    remedy);
}

static void say_config(const struct mismatch *m)
{
	say(m,
	    "%s was started with another configuration of pod \"%s\" (digest %016llx, here "
	    "%016llx): copy one file to all nodes",
	    m->peer, m->mine->pod_name, (unsigned long long)m->theirs->config_digest,
	    (unsigned long long)m->mine->config_digest);
}

static void say_shards(const struct mismatch *m)
{
	say(m, "%s has %u shards, this node %u: set the same number on all nodes", m->peer,
	    m->theirs->shard_count, m->mine->shard_count);
}

static void say_capabilities(const struct mismatch *m)
{
	say(m,
	    "%s was built or started with other capabilities (%#x, here %#x): run the same program "
	    "in the same way on all nodes",
	    m->peer, m->theirs->capabilities, m->mine->capabilities);
}

static void say_limits(const struct mismatch *m)
{
	say(m,
	    "%s (%s) was built with other limits than this node (%s): install the same build on "
	    "all nodes",
	    m->peer, m->theirs->build, m->mine->build);
}

static void say_duplicate(const struct mismatch *m)
{
	if (m->dialled)
		say(m,
		    "%s is linked with another process that says it is node %u: start each node "
		    "once",
		    m->peer, m->mine->node);
	else
		say(m,
		    "%s is linked already, and a second process says it is node %u: start each "
		    "node once",
		    m->peer, m->theirs->node);
}

static void say_running(const struct mismatch *m)
{
	if (m->dialled)
		say(m, "%s says that its pod is complete and running: end that pod first", m->peer);
	else
		say(m, "%s wants to join, but the pod is complete and running: end this pod first",
		    m->peer);
}

static void say_unexpected(const struct mismatch *m)
{
	if (m->dialled)
		say(m,
		    "%s does not expect this node to join as node %u, or not any more: ask again",
		    m->peer, m->mine->node);
	else
		say(m,
		    "%s wants to join as node %u, which is not expected, or not any more: let it "
		    "ask again",
		    m->peer, m->theirs->node);
}

static void say_token_expired(const struct mismatch *m)
{
	say(m, "%s %s: make a new one", m->peer,
	    m->dialled ? "says that this token has expired" : "has a token that has expired");
}

static void say_token_used(const struct mismatch *m)
{
	say(m, "%s %s: make one for each host", m->peer,
	    m->dialled ? "says that this token was used already"
		       : "has a token that was used already");
}

static void say_token_full(const struct mismatch *m)
{
	say(m, "%s %s, as too many were used lately: wait until some have expired", m->peer,
	    m->dialled ? "takes no more tokens" : "has a token that is not taken");
}

static void (*const say_why[HANDSHAKE_VERDICT_LIMIT])(const struct mismatch *m) = {
	[HANDSHAKE_VERSION] = say_version,
	[HANDSHAKE_POD] = say_pod,
	[HANDSHAKE_WRONG_NODE] = say_wrong_node,
	[HANDSHAKE_UNKNOWN_NODE] = say_unknown_node,
	[HANDSHAKE_CONFIG] = say_config,
	[HANDSHAKE_SHARDS] = say_shards,
	[HANDSHAKE_CAPABILITIES] = say_capabilities,
	[HANDSHAKE_LIMITS] = say_limits,
	[HANDSHAKE_DUPLICATE] = say_duplicate,
	[HANDSHAKE_RUNNING] = say_running,
	[HANDSHAKE_SECRET] = say_secret,
	[HANDSHAKE_UNEXPECTED] = say_unexpected,
	[HANDSHAKE_TOKEN_EXPIRED] = say_token_expired,
	[HANDSHAKE_TOKEN_USED] = say_token_used,
	[HANDSHAKE_TOKEN_FULL] = say_token_full,
};

void handshake_explain(enum handshake_verdict verdict, enum handshake_role my_role,
		       const struct handshake *mine, const struct handshake *theirs,
		       const char *peer, char *text, size_t size)
{
	struct mismatch m = { .mine = mine,
			      .theirs = theirs,
			      .peer = peer,
			      .dialled = my_role == HANDSHAKE_DIALLER,
			      .text = text,
			      .size = size };

	if (verdict < HANDSHAKE_VERDICT_LIMIT && say_why[verdict])
		say_why[verdict](&m);
	else
		say(&m, "%s refused for reason %d", peer, (int)verdict);
}
