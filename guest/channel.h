/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel: one command's stdin, stdout, stderr and exit status over one byte stream.
 *
 * A line carries bytes and nothing else. To run a command at its far end and get its output
 * alone and byte-exact, with stderr apart and the exit status known, the bytes are framed:
 *
 *      0      1      2             4
 *      +------+------+-------------+------------------------+
 *      | kind | zero | length (LE) | payload, length bytes  |
 *      +------+------+-------------+------------------------+
 *
 * The side that runs the command is the server (guest/runner.c on the guest's virtio port or second
 * serial port, rack/agent.c on a virtio port of an emulated host); the side that asked for it is the
 * client.
 *
 *      server -> client                      client -> server
 *      HELLO   "eagre channel 2"             ARG        one argument, in order
 *      WINDOW  u32: that many more bytes     START      u8 terminal, zero, u16 rows, u16 columns
 *              of STDIN may be sent          STDIN      data, never more than WINDOW allowed
 *      STDOUT  data                          STDIN_END
 *      STDERR  data                          RESIZE     the same, when it changed
 *      EXIT    u32: 0..255, as a shell has it
 *
 * The server speaks first. A server that knows its command (the guest's) takes no ARG and no START.
 * WINDOW exists because a 16550 has no flow control that emulators honour: without it, input faster
 * than the command reads it would be lost; and so that input which the command does not read keeps
 * nothing else from coming. After EXIT the server sends nothing more. It waits for BYE where it goes
 * on to the next client, so that it knows where one ends and the next begins; and on a virtio port,
 * which cannot say what of it has been taken: there the client says BYE when all that came before
 * EXIT has been written out.
 *
 * Where the guest has no command, the runner greets all the same and hands out no WINDOW: the
 * client sends RESIZE and nothing else, for the serial console's terminal.
 *
 * This module is pure: no descriptors, no allocation. Tested by guest/test_channel.c.
 */
#ifndef EAGRE_GUEST_CHANNEL_H
#define EAGRE_GUEST_CHANNEL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CHANNEL_HEADER_SIZE 4
#define CHANNEL_FRAME_MAX   32768 /* what Linux takes for a virtio port at once */
#define CHANNEL_PAYLOAD_MAX (CHANNEL_FRAME_MAX - CHANNEL_HEADER_SIZE)
#define CHANNEL_GREETING    "eagre channel 2"

/* The guest's second serial port. */
#define CHANNEL_GUEST_TTY "/dev/ttyS1"
/* The virtio port's name, by which the guest finds it. */
#define CHANNEL_GUEST_PORT "eagre.streams"

enum channel_kind {
	CHANNEL_HELLO = 0x41,
	CHANNEL_WINDOW,
	CHANNEL_STDOUT,
	CHANNEL_STDERR,
	CHANNEL_EXIT,
	CHANNEL_ARG = 0x61,
	CHANNEL_START,
	CHANNEL_STDIN,
	CHANNEL_STDIN_END,
	CHANNEL_RESIZE,
	CHANNEL_BYE,
};

enum channel_sender {
	CHANNEL_FROM_SERVER,
	CHANNEL_FROM_CLIENT,
};

/* A whole frame, checked. payload points into the decoder and lives until the next decode. */
struct channel_frame {
	enum channel_kind kind;
	size_t size;
	const uint8_t *payload;
};

/* What START says. A terminal merges stderr into stdout, as terminals do. */
struct channel_terminal {
	uint8_t wanted;
	uint16_t rows;
	uint16_t columns;
};

/* Owned by one thread; plain memory, needs no destructor. */
struct channel_decoder {
	enum channel_sender sender;
	uint8_t greeted;
	int failed;
	size_t have;
	uint8_t bytes[CHANNEL_FRAME_MAX];
};

/* sender: who wrote the bytes that will be decoded. */
void channel_decoder_init(struct channel_decoder *decoder, enum channel_sender sender);

/*
 * Takes bytes until one frame is whole or data ends. Returns how many bytes were taken, always more
 * than 0 when size is. *ret_whole is 1 when *ret_frame holds a frame, else 0; call again with what
 * is left. -EPROTO for bytes that the sender may not send, for good: the stream has no way to
 * find its place again. -EPROTONOSUPPORT when the server's greeting is of another version.
 */
ssize_t channel_decode(struct channel_decoder *decoder, const void *data, size_t size,
		       struct channel_frame *ret_frame, int *ret_whole);

/*
 * Writes a frame to out. Returns its size; -EMSGSIZE when the payload is over CHANNEL_PAYLOAD_MAX,
 * -ENOBUFS when it does not fit into out.
 */
ssize_t channel_encode(enum channel_kind kind, const void *payload, size_t size, void *out,
		       size_t out_size);

/* The header alone, of a payload of `size` bytes that is behind it already: CHANNEL_HEADER_SIZE. */
ssize_t channel_encode_header(enum channel_kind kind, size_t size, void *out);

/* The payloads with fields. The frame must be of that kind (the decoder has checked its size). */
uint32_t channel_frame_u32(const struct channel_frame *frame);
struct channel_terminal channel_frame_terminal(const struct channel_frame *frame);

/* Encoders for the same, like channel_encode(). kind: WINDOW or EXIT; START or RESIZE. */
ssize_t channel_encode_u32(enum channel_kind kind, uint32_t value, void *out, size_t out_size);
ssize_t channel_encode_terminal(enum channel_kind kind, const struct channel_terminal *terminal,
				void *out, size_t out_size);

#endif
