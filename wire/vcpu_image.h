/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU's image: struct vcpu_state on the wire, as small as it gets without a real compressor.
 *
 * Most of a vCPU's state is as it was after reset, zero, or a small number; kernel addresses are
 * small numbers seen from the top. So every scalar is left out if it has its reset value, and else
 * has as many bytes as it needs, zero- or sign-extended. Extended state consists of the parts that
 * XSTATE_BV says are in use, and of those the units (registers, mostly) that are not zero.
 *
 *     0 version u8   1 zero u8   2 size u16 (of all of it)
 *     4 bitmap       a bit for each scalar, in the order of the table in vcpu_image.c
 *       codes        4 bits for each whose bit is set, low half first:
 *                    1..8 bytes, or 9..15: 1..7 bytes, sign-extended
 *       values       little-endian
 *       extended     XSTATE_BV u16 (bit 15: an MXCSR u32 follows), then for each block of each
 *                    part in use: bitmap of its units that are not zero, and those units
 *
 * What power-on leaves in each scalar (vcpu_state_reset()) is therefore part of the format. The
 * encoding of a state is unique: a decoder refuses what is longer than it needs to be. Decoding
 * never reads outside the image and checks everything, vcpu_state_check() included, before it gives
 * out anything.
 */
#ifndef WIRE_VCPU_IMAGE_H
#define WIRE_VCPU_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "vcpu/vcpu_state.h"

#define VCPU_IMAGE_VERSION   3u
#define VCPU_IMAGE_BYTES_MAX 4096u

/*
 * Writes the image of *state. -EINVAL: no state that vcpu_state_check() accepts, or reserved fields
 * not zero; -ENOSPC: more than `room` bytes. Parts of the extended state that are not in use are
 * not looked at.
 */
int vcpu_image_encode(const struct vcpu_state *state, uint8_t *image, size_t room,
		      size_t *ret_size);

/*
 * The state in exactly these `size` bytes; unused parts of the extended state are zero or as after
 * reset. -EPROTONOSUPPORT: another version; -EBADMSG: not an image; *ret_state is then untouched.
 */
int vcpu_image_decode(const uint8_t *image, size_t size, struct vcpu_state *ret_state);

#endif
