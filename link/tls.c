// SPDX-License-Identifier: Apache-2.0
/*
 * TLS 1.3 on a socket (tls.h).
 *
 *	pieces --copy--> plain[] --SSL_write()--> out[] --send()--> socket
 *	pieces <--SSL_read()-- OpenSSL's buffer, many records <--recv()-- socket
 *
 * OpenSSL reads and writes through a BIO of our own: what it writes always fits into out[], so that
 * a record is never half made, and records of one call leave together; what it reads is asked of the
 * socket once a call. During the handshake it reads no byte that it does not need yet, so that epoll
 * knows of the next; later it reads what there is.
 *
 * One lock a stream, since an SSL object knows no threads; held over one call of the kernel, like
 * the lock of who sends.
 *
 * The kernel is given the keys of both directions (kTLS), as OpenSSL tells them to its keylog, and
 * the SSL object is no longer needed. It never changes them.
 *
 * Tested by tests/link/test_stream.c.
 */
#include "link/tls.h"

#include <assert.h>
#include <errno.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "wire/hmac.h"

#define RECORD_BYTES	SSL3_RT_MAX_PLAIN_LENGTH
#define RECORDS_AT_ONCE 4u
/* Beyond the records of a call: a new key, an alert. */
#define OUT_MORE   1024u
#define OUT_BYTES  (RECORDS_AT_ONCE * (RECORD_BYTES + TLS_RECORD_MORE) + OUT_MORE)
#define READ_BYTES (64u << 10)
#define KEY_BYTES  HMAC_BYTES

static_assert(KEY_BYTES == TOKEN_KEY_BYTES);

/* A record's head, and that of the hello in it. */
#define RECORD_HEAD 5u
#define HELLO_HEAD  4u
#define FIRST_BYTES (RECORD_HEAD + HELLO_HEAD)

#ifndef SOL_TLS
#define SOL_TLS 282
#endif
#ifndef TCP_ULP
#define TCP_ULP 31
#endif

struct tls_keys {
	SSL_CTX *context;
	BIO_METHOD *method;
	uint8_t key[KEY_BYTES];
	/* Whose it is, as diallers say. */
	char identity[TOKEN_IDENTITY_MAX];
	size_t identity_size;
	/* Of other diallers' tokens; NULL: none is taken. */
	tls_find_token *find_token;
	void *find_ctx;
	atomic_bool kernel;
};

enum direction { FROM_DIALLER, FROM_LISTENER, DIRECTIONS };

struct tls {
	pthread_mutex_t lock; /* guards all of it */
	struct tls_keys *keys;
	SSL *ssl;
	int fd;
	bool dialler;
	bool done;		 /* the handshake is */
	bool ahead;		 /* reads more than is needed */
	bool from_socket, empty; /* of the call under way */
	int socket_error;
	int failed; /* receiving, for good */
	uint32_t handshake_bytes;
	uint8_t first[FIRST_BYTES]; /* of them, a listener's */
	bool by_token;		    /* a listener's: the other side named this one */
	struct token_name token;
	uint64_t records, key_records; /* sent by this key, and at most */
	bool have_secret[DIRECTIONS];
	uint8_t secret[DIRECTIONS][HMAC_BYTES]; /* until tls_to_kernel() */

	size_t out_at, out_end; /* out[out_at .. out_end) has not been sent */
	uint8_t plain[RECORD_BYTES];
	uint8_t out[OUT_BYTES];
};

static const char pod_identity[] = "eagre";

/* ---- What OpenSSL calls ---- */

/*
 * OpenSSL makes room for all that a first hello says it will be, 128 KiB, for any stranger, and
 * before it has come. So the head of a hello is to lie in the first record, and is looked at here.
 */
static bool first_is_good(const struct tls *tls)
{
	const uint8_t *record = tls->first, *hello = tls->first + RECORD_HEAD;

	if (tls->handshake_bytes < RECORD_HEAD)
		return true;
	if (record[0] != SSL3_RT_HANDSHAKE || (record[3] << 8 | record[4]) < (int)HELLO_HEAD)
		return false;
	return tls->handshake_bytes < FIRST_BYTES ||
	       (hello[1] == 0 && (hello[2] << 8 | hello[3]) <= (int)TLS_HANDSHAKE_BYTES_MAX);
}

/* Bytes of a handshake have come: are they bearable? */
static bool take_handshake(struct tls *tls, const char *bytes, size_t size)
{
	uint32_t at = tls->handshake_bytes;

	tls->handshake_bytes += (uint32_t)size;
	if (!tls->dialler && at < FIRST_BYTES)
		memcpy(tls->first + at, bytes, size < FIRST_BYTES - at ? size : FIRST_BYTES - at);
	return tls->handshake_bytes <= TLS_HANDSHAKE_BYTES_MAX &&
	       (tls->dialler || first_is_good(tls));
}

static int bio_read(BIO *bio, char *buffer, int size)
{
	struct tls *tls = BIO_get_data(bio);
	ssize_t got;

	BIO_clear_retry_flags(bio);
	if (!tls->from_socket || tls->empty) {
		BIO_set_retry_read(bio);
		return -1;
	}
	got = stream_socket_receive(tls->fd, buffer, (size_t)size);
	if (got == -EAGAIN) {
		tls->empty = true;
		BIO_set_retry_read(bio);
		return -1;
	}
	if (got > 0 && !tls->done && !take_handshake(tls, buffer, (size_t)got))
		got = -EPROTO;
	if (got < 0) {
		tls->socket_error = (int)got;
		return -1;
	}
	tls->empty = got < size;
	return (int)got;
}

static int bio_write(BIO *bio, const char *data, int size)
{
	struct tls *tls = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	if ((size_t)size > OUT_BYTES - tls->out_end)
		return -1;
	memcpy(tls->out + tls->out_end, data, (size_t)size);
	tls->out_end += (size_t)size;
	return size;
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
	return command == BIO_CTRL_FLUSH;
}

/* A key as OpenSSL wants it. */
static SSL_SESSION *make_session(SSL *ssl, const uint8_t key[KEY_BYTES])
{
	static const uint8_t aes_128_gcm_sha256[] = { 0x13, 0x01 };
	const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, aes_128_gcm_sha256);
	SSL_SESSION *session = SSL_SESSION_new();

	if (session && cipher && SSL_SESSION_set1_master_key(session, key, KEY_BYTES) &&
	    SSL_SESSION_set_cipher(session, cipher) &&
	    SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION))
		return session;
	SSL_SESSION_free(session);
	return NULL;
}

/* A dialler's. md: the only hash that will do, from the second hello on. */
static int use_key(SSL *ssl, const EVP_MD *md, const unsigned char **ret_identity, size_t *ret_size,
		   SSL_SESSION **ret_session)
{
	const struct tls_keys *keys = ((const struct tls *)SSL_get_app_data(ssl))->keys;

	if (md && EVP_MD_get_type(md) != NID_sha256)
		return 0;
	*ret_session = make_session(ssl, keys->key);
	*ret_identity = (const uint8_t *)keys->identity;
	*ret_size = keys->identity_size;
	return *ret_session != NULL;
}

/* A listener's. Without a session it would go on by certificates, of which there are none. */
static int find_key(SSL *ssl, const unsigned char *theirs, size_t size, SSL_SESSION **ret_session)
{
	struct tls *tls = SSL_get_app_data(ssl);
	const struct tls_keys *keys = tls->keys;
	uint8_t key[KEY_BYTES];

	*ret_session = NULL;
	tls->by_token = false; /* a second hello may name another */
	if (size == sizeof(pod_identity) - 1 && memcmp(theirs, pod_identity, size) == 0) {
		*ret_session = make_session(ssl, keys->key);
	} else if (keys->find_token && token_parse_identity(theirs, size, &tls->token) == 0 &&
		   keys->find_token(keys->find_ctx, &tls->token, key) == 0) {
		*ret_session = make_session(ssl, key);
		tls->by_token = true;
		OPENSSL_cleanse(key, sizeof(key));
	}
	return 1;
}

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "CLIENT_TRAFFIC_SECRET_0 <32 bytes> <secret>", in hexadecimal. */
static void take_secret(const SSL *ssl, const char *line)
{
	static const char *const label[DIRECTIONS] = { "CLIENT_TRAFFIC_SECRET_0 ",
						       "SERVER_TRAFFIC_SECRET_0 " };
	struct tls *tls = SSL_get_app_data(ssl);

	for (unsigned i = 0; i < DIRECTIONS; i++) {
		const char *hex = strrchr(line, ' ');

		if (strncmp(line, label[i], strlen(label[i])) != 0 || !hex ||
		    strlen(hex + 1) != 2u * HMAC_BYTES)
			continue;
		hex++;
		tls->have_secret[i] = true;
		for (unsigned k = 0; k < HMAC_BYTES; k++, hex += 2)
			tls->secret[i][k] = (uint8_t)(digit(hex[0]) << 4 | digit(hex[1]));
	}
}

/* ---- Keys ---- */

static SSL_CTX *make_context(bool kernel)
{
	/* Who has no AES in hardware is faster, and safer, with the other. */
	static const char aes_first[] = "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256";
	static const char aes_last[] = "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256";
	const char *ciphers = __builtin_cpu_supports("aes") ? aes_first : aes_last;
	SSL_CTX *context = SSL_CTX_new(TLS_method());

	if (!context)
		return NULL;
	if (!SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) ||
	    !SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) ||
	    !SSL_CTX_set_ciphersuites(context, ciphers) ||
	    !SSL_CTX_set1_groups_list(context, "X25519:P-256") ||
	    !SSL_CTX_set_num_tickets(context, 0) || !SSL_CTX_set_max_early_data(context, 0)) {
		SSL_CTX_free(context);
		return NULL;
	}
	SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_clear_options(context, SSL_OP_ENABLE_MIDDLEBOX_COMPAT | SSL_OP_ALLOW_NO_DHE_KEX);
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_default_read_buffer_len(context, READ_BYTES);
	SSL_CTX_set_psk_use_session_callback(context, use_key);
	SSL_CTX_set_psk_find_session_callback(context, find_key);
	if (kernel)
		SSL_CTX_set_keylog_callback(context, take_secret);
	return context;
}

/* Without its key. NULL: out of memory. */
static struct tls_keys *make_keys(const char *identity, bool kernel)
{
	struct tls_keys *keys = calloc(1, sizeof(*keys));

	if (!keys)
		return NULL;
	keys->identity_size = strlen(identity);
	assert(keys->identity_size < sizeof(keys->identity));
	memcpy(keys->identity, identity, keys->identity_size);
	atomic_store(&keys->kernel, kernel);
	keys->context = make_context(kernel);
	keys->method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "link");
	if (!keys->context || !keys->method || !BIO_meth_set_read(keys->method, bio_read) ||
	    !BIO_meth_set_write(keys->method, bio_write) ||
	    !BIO_meth_set_ctrl(keys->method, bio_control)) {
		tls_keys_destroy(keys);
		return NULL;
	}
	return keys;
}

int tls_keys_create(const void *secret, size_t size, bool kernel, struct tls_keys **ret_keys)
{
	/* The secret is the hellos' key, too (wire/handshake.h): for each purpose another one. */
	static const char purpose[] = "eagre links, pre-shared key of TLS 1.3";
	struct tls_keys *keys = make_keys(pod_identity, kernel);

	if (!keys)
		return -ENOMEM;
	if (hmac_sha256(secret, size, purpose, sizeof(purpose), keys->key) < 0) {
		tls_keys_destroy(keys);
		return -ENOMEM;
	}
	*ret_keys = keys;
	return 0;
}

int tls_keys_create_by_token(const struct token *token, struct tls_keys **ret_keys)
{
	char identity[TOKEN_IDENTITY_MAX];
	struct tls_keys *keys;

	token_print_identity(&token->name, identity);
	keys = make_keys(identity, false);
	if (!keys)
		return -ENOMEM;
	memcpy(keys->key, token->key, KEY_BYTES);
	*ret_keys = keys;
	return 0;
}

void tls_keys_take_tokens(struct tls_keys *keys, tls_find_token *find, void *ctx)
{
	keys->find_token = find;
	keys->find_ctx = ctx;
}

void tls_keys_destroy(struct tls_keys *keys)
{
	if (!keys)
		return;
	SSL_CTX_free(keys->context);
	BIO_meth_free(keys->method);
	OPENSSL_cleanse(keys->key, sizeof(keys->key));
	free(keys);
}

/* ---- A connection ---- */

int tls_create(struct tls_keys *keys, int fd, bool dialler, struct tls **ret_tls)
{
	struct tls *tls = calloc(1, sizeof(*tls));
	BIO *bio;

	if (!tls)
		return -ENOMEM;
	pthread_mutex_init(&tls->lock, NULL);
	tls->keys = keys;
	tls->fd = fd;
	tls->dialler = dialler;
	tls->key_records = TLS_KEY_RECORDS;
	tls->ssl = SSL_new(keys->context);
	bio = BIO_new(keys->method);
	if (!tls->ssl || !bio || !SSL_set_app_data(tls->ssl, tls)) {
		BIO_free(bio);
		tls_destroy(tls);
		return -ENOMEM;
	}
	BIO_set_data(bio, tls);
	BIO_set_init(bio, 1);
	SSL_set_bio(tls->ssl, bio, bio);
	if (dialler) {
		/* Who listens without the key may have a certificate: it is none that we know. */
		SSL_set_verify(tls->ssl, SSL_VERIFY_PEER, NULL);
		SSL_set_connect_state(tls->ssl);
	} else {
		SSL_set_accept_state(tls->ssl);
	}
	*ret_tls = tls;
	return 0;
}

void tls_destroy(struct tls *tls)
{
	if (!tls)
		return;
	SSL_free(tls->ssl);
	pthread_mutex_destroy(&tls->lock);
	OPENSSL_cleanse(tls, sizeof(*tls));
	free(tls);
}

static int flush_locked(struct tls *tls)
{
	while (tls->out_at < tls->out_end) {
		ssize_t sent = stream_socket_send(tls->fd, tls->out + tls->out_at,
						  tls->out_end - tls->out_at);

		if (sent < 0)
			return (int)sent;
		tls->out_at += (size_t)sent;
	}
	tls->out_at = 0;
	tls->out_end = 0;
	return 0;
}

/* Why a handshake failed, by what OpenSSL says first. */
static int handshake_error(const struct tls *tls)
{
	int reason = ERR_GET_REASON(ERR_peek_error());

	if (tls->socket_error)
		return tls->socket_error;
	switch (reason) {
	case SSL_R_UNSUPPORTED_PROTOCOL:
	case SSL_R_WRONG_SSL_VERSION:
	case SSL_R_VERSION_TOO_LOW:
	case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
		return -EPROTONOSUPPORT;
	case SSL_R_BINDER_DOES_NOT_VERIFY:
	case SSL_R_NO_SHARED_CIPHER:
	case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM:
	case SSL_R_NO_CERTIFICATE_SET:
	case SSL_R_CERTIFICATE_VERIFY_FAILED:
		return -EKEYREJECTED;
	case SSL_R_TLSV1_ALERT_INTERNAL_ERROR: /* it is short of memory, say */
		return -EPIPE;
	default:
		return reason >= SSL_AD_REASON_OFFSET ? -EKEYREJECTED : -EPROTO;
	}
}

static int shake_hands_locked(struct tls *tls)
{
	int result, error, flushed;

	ERR_clear_error();
	tls->from_socket = true;
	tls->empty = false;
	result = SSL_do_handshake(tls->ssl);
	error = 0;
	if (result != 1)
		error = SSL_get_error(tls->ssl, result) == SSL_ERROR_WANT_READ
				? -EAGAIN
				: handshake_error(tls);
	ERR_clear_error();
	/* Also an alert. Nobody waits for room: a socket that has none for so little is no good. */
	flushed = flush_locked(tls);
	if (flushed < 0 && (error == 0 || error == -EAGAIN))
		error = flushed == -EAGAIN ? -ENOBUFS : flushed;
	if (error == 0 && !SSL_session_reused(tls->ssl))
		error = -EKEYREJECTED;
	tls->done = error == 0;
	return error;
}

int tls_shake_hands(struct tls *tls)
{
	int error;

	pthread_mutex_lock(&tls->lock);
	error = shake_hands_locked(tls);
	pthread_mutex_unlock(&tls->lock);
	return error;
}

bool tls_by_token(struct tls *tls, struct token_name *ret_name)
{
	bool by_token;

	pthread_mutex_lock(&tls->lock);
	by_token = tls->done && tls->by_token;
	if (by_token)
		*ret_name = tls->token;
	pthread_mutex_unlock(&tls->lock);
	return by_token;
}

void tls_read_ahead(struct tls *tls)
{
	pthread_mutex_lock(&tls->lock);
	SSL_set_read_ahead(tls->ssl, 1);
	pthread_mutex_unlock(&tls->lock);
}

void tls_set_key_records(struct tls *tls, uint64_t records)
{
	tls->key_records = records;
}

/* ---- Out ---- */

/* A position in pieces. */
struct cursor {
	const struct iovec *iov;
	size_t count, done; /* pieces left; bytes of the first that are */
};

static size_t copy_out(struct cursor *at, uint8_t *to, size_t size)
{
	size_t copied = 0;

	while (at->count > 0 && copied < size) {
		size_t part = at->iov->iov_len - at->done;

		if (part > size - copied)
			part = size - copied;
		memcpy(to + copied, (const uint8_t *)at->iov->iov_base + at->done, part);
		copied += part;
		at->done += part;
		if (at->done == at->iov->iov_len) {
			at->iov++;
			at->count--;
			at->done = 0;
		}
	}
	return copied;
}

/* 0, or -EPIPE: OpenSSL says no, which it has no reason to. */
static int change_key(struct tls *tls)
{
	if (tls->records < tls->key_records)
		return 0;
	tls->records = 0;
	return SSL_key_update(tls->ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1 &&
			       SSL_do_handshake(tls->ssl) == 1
		       ? 0
		       : -EPIPE;
}

static ssize_t send_locked(struct tls *tls, const struct iovec *iov, size_t count)
{
	struct cursor at = { iov, count, 0 };
	ssize_t taken = 0;
	int error = flush_locked(tls);

	if (error < 0)
		return error;
	ERR_clear_error();
	for (unsigned i = 0; i < RECORDS_AT_ONCE; i++) {
		size_t size = copy_out(&at, tls->plain, RECORD_BYTES), written;

		if (size == 0)
			break;
		if (change_key(tls) < 0 ||
		    SSL_write_ex(tls->ssl, tls->plain, size, &written) != 1 || written != size)
			return -EPIPE;
		tls->records++;
		taken += (ssize_t)size;
	}
	error = flush_locked(tls);
	return error < 0 && error != -EAGAIN ? error : taken;
}

ssize_t tls_send(struct tls *tls, const struct iovec *iov, size_t count)
{
	ssize_t taken;

	pthread_mutex_lock(&tls->lock);
	taken = send_locked(tls, iov, count);
	pthread_mutex_unlock(&tls->lock);
	return taken;
}

int tls_flush(struct tls *tls)
{
	int error;

	pthread_mutex_lock(&tls->lock);
	error = flush_locked(tls);
	pthread_mutex_unlock(&tls->lock);
	return error;
}

size_t tls_backlog(struct tls *tls)
{
	size_t bytes;

	pthread_mutex_lock(&tls->lock);
	bytes = tls->out_end - tls->out_at;
	pthread_mutex_unlock(&tls->lock);
	return bytes;
}

/* ---- In ---- */

/* SSL_read() gave nothing: -EAGAIN, or why for good. */
static int nothing_read(struct tls *tls)
{
	int why = SSL_get_error(tls->ssl, 0);

	if (why == SSL_ERROR_WANT_READ)
		return -EAGAIN;
	if (tls->socket_error)
		tls->failed = tls->socket_error;
	else
		tls->failed = why == SSL_ERROR_ZERO_RETURN ? -EPIPE : -EBADMSG;
	return tls->failed;
}

/*
 * What is not as it was sent ends the link at once: what came before it may lie here with no event
 * to come. An end of the socket is told again by epoll.
 */
static ssize_t receive_locked(struct tls *tls, const struct iovec *iov, size_t count)
{
	ssize_t all = 0;

	if (tls->failed)
		return tls->failed;
	ERR_clear_error();
	for (size_t i = 0; i < count; i++) {
		size_t filled = 0;

		while (filled < iov[i].iov_len) {
			size_t got;
			int error;

			if (SSL_read_ex(tls->ssl, (uint8_t *)iov[i].iov_base + filled,
					iov[i].iov_len - filled, &got) == 1) {
				filled += got;
				all += (ssize_t)got;
				continue;
			}
			error = nothing_read(tls);
			ERR_clear_error();
			return all > 0 && error != -EBADMSG ? all : error;
		}
	}
	return all;
}

ssize_t tls_receive(struct tls *tls, const struct iovec *iov, size_t count, bool from_socket)
{
	ssize_t got;

	pthread_mutex_lock(&tls->lock);
	tls->from_socket = from_socket;
	tls->empty = false;
	got = receive_locked(tls, iov, count);
	pthread_mutex_unlock(&tls->lock);
	return got;
}

bool tls_holds(struct tls *tls)
{
	bool holds;

	pthread_mutex_lock(&tls->lock);
	/* Of a record whose head alone has come OpenSSL says nothing is pending. */
	holds = SSL_has_pending(tls->ssl) || strcmp(SSL_rstate_string(tls->ssl), "RB") == 0;
	pthread_mutex_unlock(&tls->lock);
	return holds;
}

/* ---- The kernel's ---- */

/* RFC 8446, 7.1, of no more bytes than the hash has. */
static int expand_label(const uint8_t secret[HMAC_BYTES], const char *label, uint8_t *out,
			size_t size)
{
	uint8_t info[40], block[HMAC_BYTES];
	size_t at = 0, label_size = strlen(label);

	assert(size <= sizeof(block) && label_size + 11 <= sizeof(info));
	info[at++] = 0;
	info[at++] = (uint8_t)size;
	info[at++] = (uint8_t)(6 + label_size);
	memcpy(info + at, "tls13 ", 6);
	memcpy(info + at + 6, label, label_size);
	at += 6 + label_size;
	info[at++] = 0; /* no context */
	info[at++] = 1; /* the first block of HKDF-Expand */
	if (hmac_sha256(secret, HMAC_BYTES, info, at, block) < 0)
		return -ENOMEM;
	memcpy(out, block, size);
	OPENSSL_cleanse(block, sizeof(block));
	return 0;
}

static int give_key(const struct tls *tls, enum direction direction, int way)
{
	const uint8_t *secret = tls->secret[direction];
	uint8_t iv[TLS_CIPHER_AES_GCM_128_SALT_SIZE + TLS_CIPHER_AES_GCM_128_IV_SIZE];
	struct tls12_crypto_info_aes_gcm_128 info = {
		.info = { .version = TLS_1_3_VERSION, .cipher_type = TLS_CIPHER_AES_GCM_128 }
	};
	int error = expand_label(secret, "key", info.key, sizeof(info.key));

	if (error == 0)
		error = expand_label(secret, "iv", iv, sizeof(iv));
	memcpy(info.salt, iv, sizeof(info.salt));
	memcpy(info.iv, iv + sizeof(info.salt), sizeof(info.iv));
	if (error == 0 && setsockopt(tls->fd, SOL_TLS, way, &info, sizeof(info)) < 0)
		error = -errno;
	OPENSSL_cleanse(&info, sizeof(info));
	OPENSSL_cleanse(iv, sizeof(iv));
	return error;
}

static int to_kernel(struct tls *tls)
{
	const SSL_CIPHER *cipher = SSL_get_current_cipher(tls->ssl);
	enum direction out = tls->dialler ? FROM_DIALLER : FROM_LISTENER;
	enum direction in = tls->dialler ? FROM_LISTENER : FROM_DIALLER;

	if (!atomic_load(&tls->keys->kernel) || !tls->have_secret[in] || !tls->have_secret[out] ||
	    SSL_CIPHER_get_protocol_id(cipher) != 0x1301 || tls->out_end > 0)
		return 0;
	if (setsockopt(tls->fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) < 0) {
		atomic_store(&tls->keys->kernel, false); /* nor for the others */
		return 0;
	}
	if (give_key(tls, in, TLS_RX) < 0)
		return 0;
	return give_key(tls, out, TLS_TX) < 0 ? -EPROTO : 1;
}

int tls_to_kernel(struct tls *tls)
{
	int error = tls->by_token ? 0 : to_kernel(tls);

	OPENSSL_cleanse(tls->secret, sizeof(tls->secret));
	memset(tls->have_secret, 0, sizeof(tls->have_secret));
	return error;
}
