// SPDX-License-Identifier: Apache-2.0
/* Fuzzes heads of io messages: what is accepted encodes to the same bytes again. */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/published.h"
#include "wire/io_message.h"
#include "wire/version.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint32_t magic = htole32(WIRE_MAGIC_IO);
	uint8_t head[IO_HEAD_BYTES], again[IO_HEAD_BYTES];
	struct io_message msg;
	uint32_t sequence;

	if (size < sizeof(head))
		return 0;
	memcpy(head, data, sizeof(head));
	memcpy(head, &magic, sizeof(magic));
	memcpy(&sequence, head + 8, sizeof(sequence));
	sequence = le32toh(sequence);
	if (io_message_decode(head, sequence, &msg) < 0)
		return 0;
	if (msg.device >= VIRTIO_DEVICES_MAX || msg.data_bytes > IO_DATA_MAX ||
	    io_message_encode(&msg, sequence, again) < 0 || memcmp(head, again, sizeof(head)) != 0)
		abort();
	return 0;
}
