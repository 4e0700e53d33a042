// SPDX-License-Identifier: Apache-2.0
/*
 * Fuzzes hellos: what is accepted encodes to the same bytes, can be judged, and every explanation
 * of it is one line of valid text.
 */
#include <stdlib.h>
#include <string.h>

#include "wire/handshake.h"
#include "wire/text.h"
#include "wire/version.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct handshake mine = {
		.version = WIRE_VERSION,
		.node = 1,
		.peer = 0,
		.shard_count = 2,
		.node_count = 4,
		.limits_digest = handshake_limits_digest(),
		.pod_name = "tide",
		.node_name = "b",
		.build = "eagre",
	};
	uint8_t bytes[HANDSHAKE_BYTES], again[HANDSHAKE_BYTES];
	struct handshake theirs;
	char text[512];
	uint16_t length;

	if (size < HANDSHAKE_FIXED_BYTES || handshake_decode_fixed(data, &theirs, &length) < 0)
		return 0;
	if (size < HANDSHAKE_BYTES)
		return 0;
	memcpy(bytes, data, sizeof(bytes));
	if (handshake_decode(bytes, &theirs) < 0)
		return 0;
	if (theirs.version == WIRE_VERSION) {
		handshake_encode(&theirs, again);
		if (memcmp(bytes, again, sizeof(again)) != 0)
			abort();
	}
	if (handshake_judge(&mine, &theirs) == HANDSHAKE_OK && theirs.purpose != HANDSHAKE_JOIN &&
	    (theirs.node >= mine.node_count ||
	     (theirs.purpose > HANDSHAKE_SHARD(1) && theirs.purpose != HANDSHAKE_IO)))
		abort();
	for (unsigned verdict = 0; verdict <= HANDSHAKE_VERDICT_LIMIT; verdict++) {
		for (unsigned role = 0; role < 2; role++) {
			handshake_explain((enum handshake_verdict)verdict,
					  (enum handshake_role)role, &mine, &theirs, "node 0 (a)",
					  text, sizeof(text));
			if (!wire_text_span_valid(text, strlen(text), false))
				abort();
		}
	}
	return 0;
}
