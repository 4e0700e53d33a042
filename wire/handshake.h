/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first words on every connection, by which nodes make sure that they belong together.
 *
 *      dialler                         listener
 *      hello(verdict 0)   ---------->  handshake_judge()
 *                         <----------  hello(verdict)      and, unless OK, close
 *      handshake_judge()
 *      proof              ---------->  the link stands
 *
 * Both hellos have the same layout, so that both sides know everything about the mismatch and say
 * it in the same words (handshake_explain()). The first 16 bytes are the same in every version for
 * ever: so versions can refuse each other by name.
 *
 *        0 magic u32          4 version u16       6 length u16
 *        8 node u16          10 peer u16         12 verdict u8       13 zero[3]
 *       16 purpose u16       18 shard_count u16  20 node_count u16   22 zero u16
 *       24 capabilities u32  28 zero u32
 *       32 config_digest u64                     40 incarnation u64
 *       48 limits_digest u64                     56 join u64
 *       64 pod_name[64]     128 node_name[64]   192 build[16]       208 nonce[16]
 *      224 mac[32]                                                                         256
 *
 * MACs are HMAC-SHA-256 with the pod's secret; without one the key is empty and they prove nothing.
 * Each says more than the one before, and has another length, so none can pass for another:
 *
 *      dialler's hello   224 bytes: those before the MAC
 *      listener's hello  480 bytes: those before the MAC, then the dialler's hello
 *      proof             512 bytes: the dialler's hello, then the listener's
 *
 * The nonces are new for each connection: so what was overheard on one is worth nothing on another,
 * to the dialler from the listener's hello on, to the listener from the proof on. Until then a
 * listener changes nothing because of a hello.
 *
 * Who does not know the secret, or whose token is good no more, hears only a verdict: all else in that
 * hello is zero (handshake_refusal()). All this proves who is there when a connection begins; what is
 * said on it later is neither sealed nor secret.
 */
#ifndef WIRE_HANDSHAKE_H
#define WIRE_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/limits.h"

#define HANDSHAKE_BYTES	      256u
#define HANDSHAKE_FIXED_BYTES 16u /* that mean the same in every version */
#define HANDSHAKE_BUILD_MAX   16u
#define HANDSHAKE_NONCE_BYTES 16u
#define HANDSHAKE_MAC_BYTES   32u
#define HANDSHAKE_PROOF_BYTES 32u

/*
 * Purpose of a connection: control, page channel of shard k, or io channel; or to ask to join, by
 * who has a token in place of the secret and the configuration (wire/token.h): there both numbers
 * are NODE_NONE in the dialler's hello, which says nothing of a pod, and the MACs have the empty key,
 * as TLS has shown by the token's who is there.
 */
#define HANDSHAKE_CONTROL     0u
#define HANDSHAKE_SHARD(k)    (1u + (k))
#define HANDSHAKE_IO	      (SHARDS_MAX + 1u)
#define HANDSHAKE_JOIN	      (SHARDS_MAX + 2u)
#define HANDSHAKE_PURPOSE_MAX (SHARDS_MAX + 3u)

/* What nodes must have in common; anything else about a host goes by FEATURES. */
#define HANDSHAKE_CAP_NATIVE_TEST (1u << 0) /* a pod memory test, not a guest */

enum handshake_verdict {
	HANDSHAKE_OK = 0,
	HANDSHAKE_VERSION,	/* another WIRE_VERSION */
	HANDSHAKE_POD,		/* another pod's name */
	HANDSHAKE_WRONG_NODE,	/* the listener is not the node that the dialler wants */
	HANDSHAKE_UNKNOWN_NODE, /* dialler's number is not in the listener's config, or its own */
	HANDSHAKE_CONFIG,	/* same pod, another config */
	HANDSHAKE_SHARDS,	/* other number of shards */
	HANDSHAKE_CAPABILITIES,
	HANDSHAKE_LIMITS,     /* built with other core/limits.h */
	HANDSHAKE_DUPLICATE,  /* this node number is linked already */
	HANDSHAKE_RUNNING,    /* the pod is complete and running */
	HANDSHAKE_SECRET,     /* another secret of the pod, or none */
	HANDSHAKE_UNEXPECTED, /* it says that it joins, but not as who is expected */
	HANDSHAKE_TOKEN_EXPIRED,
	HANDSHAKE_TOKEN_USED,
	HANDSHAKE_TOKEN_FULL, /* too many others were used lately */
	HANDSHAKE_VERDICT_LIMIT,
};

struct handshake {
	uint16_t version, node, peer, purpose;
	uint16_t shard_count, node_count;
	uint8_t verdict;
	uint32_t capabilities;
	uint64_t config_digest;
	uint64_t incarnation;	/* random, of the process: tells a node from its second start */
	uint64_t limits_digest; /* of core/limits.h as built */
	/* A joiner's, which the pod has given it; 0: the node was there at the start. */
	uint64_t join;
	char pod_name[POD_NAME_MAX];
	char node_name[NODE_NAME_MAX];
	char build[HANDSHAKE_BUILD_MAX]; /* "eagre 0.1.0", for people */
	uint8_t nonce[HANDSHAKE_NONCE_BYTES];
	uint8_t mac[HANDSHAKE_MAC_BYTES];
};

/* Of this build's core/limits.h. */
uint64_t handshake_limits_digest(void);

void handshake_encode(const struct handshake *hello, uint8_t out[HANDSHAKE_BYTES]);

/*
 * Puts the MAC into an encoded hello; whether a received one has the right MAC. `asked`: the
 * dialler's hello that it answers; NULL: it is a dialler's.
 */
void handshake_seal(uint8_t bytes[HANDSHAKE_BYTES], const uint8_t asked[HANDSHAKE_BYTES],
		    const void *secret, size_t size);
bool handshake_is_sealed(const uint8_t bytes[HANDSHAKE_BYTES], const uint8_t asked[HANDSHAKE_BYTES],
			 const void *secret, size_t size);

/* The dialler's last word, and whether it is that. */
void handshake_prove(const uint8_t asked[HANDSHAKE_BYTES], const uint8_t answer[HANDSHAKE_BYTES],
		     const void *secret, size_t size, uint8_t ret_proof[HANDSHAKE_PROOF_BYTES]);
bool handshake_is_proven(const uint8_t asked[HANDSHAKE_BYTES],
			 const uint8_t answer[HANDSHAKE_BYTES], const void *secret, size_t size,
			 const uint8_t proof[HANDSHAKE_PROOF_BYTES]);

/* Whether a hello with this verdict says nothing else. */
bool handshake_is_bare(enum handshake_verdict verdict);
/* A hello that says who is asked, the version and the verdict, and nothing else. */
struct handshake handshake_refusal(const struct handshake *mine, enum handshake_verdict verdict);

/*
 * The first HANDSHAKE_FIXED_BYTES: 0 and *ret_version, node, peer, verdict set (the rest zero) and
 * *ret_length the bytes to read in all; -EPROTO: not an Eagre node. A length other than
 * HANDSHAKE_BYTES comes only with another version.
 */
int handshake_decode_fixed(const uint8_t in[HANDSHAKE_FIXED_BYTES], struct handshake *ret_hello,
			   uint16_t *ret_length);

/* The whole of a hello of this version. 0 or -EPROTO. Of another version: only the fixed part, 0.
 */
int handshake_decode(const uint8_t in[HANDSHAKE_BYTES], struct handshake *ret_hello);

/* Does `theirs`, a dialler's hello, fit `mine`? By content alone: DUPLICATE, RUNNING and
 * UNEXPECTED are the mesh's to find. */
enum handshake_verdict handshake_judge(const struct handshake *mine,
				       const struct handshake *theirs);

enum handshake_role { HANDSHAKE_LISTENER, HANDSHAKE_DIALLER };

/*
 * One line on why `mine` and `theirs` do not go together, naming the remedy. `peer` describes the
 * other side, e.g. "node 2 (beta, 10.0.0.3:7000)". Nothing a peer sent gets into the text
 * unchecked.
 */
void handshake_explain(enum handshake_verdict verdict, enum handshake_role my_role,
		       const struct handshake *mine, const struct handshake *theirs,
		       const char *peer, char *text, size_t size);

#endif
