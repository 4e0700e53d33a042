/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS 1.3 on a socket, by OpenSSL. For stream.c alone.
 *
 * Both sides prove by a pre-shared key, derived from the pod's secret, that they are of the pod
 * (RFC 8446, 4.2.11), and agree on keys by X25519 or P-256, so that who learns the secret later
 * cannot read what was said before. There are no certificates, no tickets, no early data, and no
 * other version: nothing of what was overheard is of use on another connection, and nothing can be
 * talked down.
 *
 * Or the dialler proves that it has a join token (wire/token.h), whose id and expiry it says in the
 * open, in place of the secret. The key is all that TLS judges: whether the token is still good is
 * for whoever asks tls_by_token(), once the other side has shown that it has it. So a stranger hears
 * the same whatever token he names.
 *
 * The handshake reads not a byte behind it.
 */
#ifndef LINK_TLS_H
#define LINK_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "wire/token.h"

/* A record's head, kind and tag. */
#define TLS_RECORD_MORE 22u
/* A key is changed after so many records: AES-GCM is good for 2^24.5 (RFC 8446, 5.5). */
#define TLS_KEY_RECORDS (1u << 23)
/* Bytes of a handshake that are read at most: a stranger's are no more than that. */
#define TLS_HANDSHAKE_BYTES_MAX 8192u

/* A pod's, for all connections of a node. */
struct tls_keys;
/* kernel: kTLS is used where the host has it. 0 or -ENOMEM. */
int tls_keys_create(const void *secret, size_t size, bool kernel, struct tls_keys **ret_keys);
/* A dialler's that has a token, and no secret. 0 or -ENOMEM. */
int tls_keys_create_by_token(const struct token *token, struct tls_keys **ret_keys);
/*
 * From now on listeners take tokens, too: find gives the key that belongs to what the other side
 * named, 0 or a negative errno. It is called during handshakes, by their thread.
 */
typedef int tls_find_token(void *ctx, const struct token_name *name,
			   uint8_t ret_key[TOKEN_KEY_BYTES]);
void tls_keys_take_tokens(struct tls_keys *keys, tls_find_token *find, void *ctx);
void tls_keys_destroy(struct tls_keys *keys); /* after all that uses it; NULL is fine */

struct tls;
int tls_create(struct tls_keys *keys, int fd, bool dialler, struct tls **ret_tls);
void tls_destroy(struct tls *tls); /* NULL is fine */

/* The contracts are stream.h's. */
int tls_shake_hands(struct tls *tls);
bool tls_by_token(struct tls *tls, struct token_name *ret_name);
ssize_t tls_send(struct tls *tls, const struct iovec *iov, size_t count);
int tls_flush(struct tls *tls);
size_t tls_backlog(struct tls *tls);
ssize_t tls_receive(struct tls *tls, const struct iovec *iov, size_t count, bool from_socket);
bool tls_holds(struct tls *tls);
void tls_read_ahead(struct tls *tls);

/*
 * After the handshake, before anything else is sent or read: 1: the kernel has taken over, and this
 * is no longer needed; 0: it cannot, or the other side came by a token, of which nobody would know
 * any more; < 0: the connection is of no more use.
 */
int tls_to_kernel(struct tls *tls);
/* For tests: a new key after so many records. */
void tls_set_key_records(struct tls *tls, uint64_t records);

/* The socket's, for tls.c (stream.c). */
ssize_t stream_socket_send(int fd, const void *data, size_t size);
ssize_t stream_socket_receive(int fd, void *buffer, size_t size);

#endif
