/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes channel_decode() as a stream, in both directions: the first byte picks the sender and the
 * size of the pieces. Whatever the pieces, the same frames come out; each, encoded again, is the
 * bytes that it came from.
 */
#include <stdlib.h>
#include <string.h>

#include "guest/channel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Decodes all of it; the frames' bytes are put into out. Returns their size, *ret_error the end. */
static size_t decode(enum channel_sender sender, const uint8_t *data, size_t size, size_t piece,
		     uint8_t *out, int *ret_error)
{
	static struct channel_decoder decoder;
	struct channel_frame frame;
	size_t at = 0, used = 0;
	int whole;

	*ret_error = 0;
	channel_decoder_init(&decoder, sender);
	while (at < size) {
		size_t part = size - at < piece ? size - at : piece;
		ssize_t n = channel_decode(&decoder, data + at, part, &frame, &whole);

		if (n < 0) {
			*ret_error = (int)n;
			break;
		}
		if (n == 0 || (size_t)n > part)
			abort();
		at += (size_t)n;
		if (!whole)
			continue;
		n = channel_encode(frame.kind, frame.payload, frame.size, out + used, size - used);
		if (n < 0 || used + (size_t)n != at || memcmp(out + used, data + used, (size_t)n))
			abort();
		used = at;
	}
	return used;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum channel_sender sender;
	size_t piece, one, other;
	int one_error, other_error;
	uint8_t *out;

	if (size < 2)
		return 0;
	sender = data[0] & 1 ? CHANNEL_FROM_CLIENT : CHANNEL_FROM_SERVER;
	piece = data[0] / 2u + 1;
	data++;
	size--;
	out = malloc(size);
	if (!out)
		return 0;
	one = decode(sender, data, size, size, out, &one_error);
	other = decode(sender, data, size, piece, out, &other_error);
	if (one != other || one_error != other_error)
		abort();
	free(out);
	return 0;
}
