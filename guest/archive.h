/* SPDX-License-Identifier: Apache-2.0 */
/*
 * archive: the cpio archive that carries a command into the guest.
 *
 * The kernel unpacks every archive it finds in the initrd, one after the other, so a second, tiny
 * one behind the initramfs adds files to it. Each archive must begin at a multiple of 4 bytes;
 * zero bytes between them are skipped (Linux, init/initramfs.c). Four of them at least: lz4's
 * frames have no end of their own, and the kernel's reader takes a size of zero for it (Linux,
 * lib/decompress_unlz4.c).
 *
 *      initrd = initramfs ++ 4 to 7 zero bytes, up to a multiple of 4 ++ this archive
 *
 * The archive holds eagre/command: the arguments, each ended by a zero byte. The guest's init finds
 * it and runs it instead of a shell. Pure: fills the caller's buffer. Tested by test_archive.c.
 */
#ifndef EAGRE_GUEST_ARCHIVE_H
#define EAGRE_GUEST_ARCHIVE_H

#include <stddef.h>
#include <sys/types.h>

#define GUEST_COMMAND_PATH	"eagre/command"
#define GUEST_COMMAND_ARGS_MAX	256
#define GUEST_COMMAND_BYTES_MAX 65536

/* Enough for any command within the limits. */
#define GUEST_ARCHIVE_SIZE_MAX (GUEST_COMMAND_BYTES_MAX + 1024)

/*
 * Writes the archive of the command argv[0..argc) to out; its size, a multiple of 512, is returned.
 * -EINVAL: no argument; -E2BIG: over the limits above; -ENOBUFS: out_size is too small.
 */
ssize_t guest_command_archive(size_t argc, char *const *argv, void *out, size_t out_size);

/* How many zero bytes go between an initramfs of this size and the archive; at most the maximum. */
#define GUEST_ARCHIVE_PADDING_MAX 7
size_t guest_archive_padding(size_t initramfs_size);

#endif
