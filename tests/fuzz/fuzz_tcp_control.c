// SPDX-License-Identifier: Apache-2.0
/*
 * Fuzzes the receiving side of a control channel as a stream: the input is a stream of frames,
 * whose headers are made valid as it goes, in pieces that the input chooses.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "link/tcp.h"
#include "wire/version.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* [type][size][payload bytes] becomes a frame with a valid header; a type of 0xff sends the payload
 * bare. */
static size_t put_frame(uint8_t *out, const uint8_t **data, size_t *size, uint32_t *sequence)
{
	uint8_t type = (*data)[0];
	size_t payload = (*data)[1];
	uint32_t word;

	*data += 2;
	*size -= 2;
	payload = payload < *size ? payload : *size;
	memset(out, 0, CONTROL_HEADER_BYTES);
	word = htole32(WIRE_MAGIC_CONTROL);
	memcpy(out, &word, sizeof(word));
	out[4] = type;
	word = htole32((uint32_t)payload);
	memcpy(out + 8, &word, sizeof(word));
	word = htole32((*sequence)++);
	memcpy(out + 12, &word, sizeof(word));
	if (type != 0xff)
		out += CONTROL_HEADER_BYTES;
	memcpy(out, *data, payload);
	*data += payload;
	*size -= payload;
	return payload + (type == 0xff ? 0 : CONTROL_HEADER_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct control_message msg;
	struct control_channel *channel;
	uint8_t frame[CONTROL_HEADER_BYTES + 256];
	uint32_t sequence = 0;
	int fd[2], error = -EAGAIN;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd) < 0 ||
	    tcp_control_create(stream_plain(fd[1]), 5, &channel) < 0)
		abort();
	while (size >= 3 && error == -EAGAIN) {
		size_t piece = 1u + data[0] % 64u;
		size_t total;

		data++;
		size--;
		total = put_frame(frame, &data, &size, &sequence);
		for (size_t at = 0; at < total && error == -EAGAIN; at += piece) {
			size_t part = total - at < piece ? total - at : piece;

			if (send(fd[0], frame + at, part, MSG_NOSIGNAL) != (ssize_t)part)
				abort();
			while ((error = control_receive(channel, &msg)) == 0) {
				if (msg.src != 5 || msg.type == 0 || msg.type >= CONTROL_TYPE_LIMIT)
					abort();
			}
		}
	}
	if (error != -EAGAIN && error != -EPROTO)
		abort();
	close(fd[0]);
	channel->ops->destroy(channel);
	return 0;
}
