/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The version of everything that nodes say to each other.
 *
 * All nodes of a pod run the same version: there is no negotiation, only a refusal that says what
 * to install. Any change of a message, of its meaning, or of core/limits.h makes a new
 * WIRE_VERSION.
 *
 * Magics are the four letters as they appear on the wire (little-endian numbers).
 */
#ifndef WIRE_VERSION_H
#define WIRE_VERSION_H

#define WIRE_VERSION 15

#define WIRE_MAGIC_HELLO   0x48474145u /* "EAGH" wire/handshake.h */
#define WIRE_MAGIC_CONTROL 0x43474145u /* "EAGC" wire/control_message.h */
#define WIRE_MAGIC_PAGES   0x50474145u /* "EAGP" wire/page_frame.h */
#define WIRE_MAGIC_IO	   0x49474145u /* "EAGI" wire/io_message.h */

#endif
