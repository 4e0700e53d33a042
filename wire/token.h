/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Join tokens: what the owner of a pod gives to a host that may join it, once, until a certain time.
 * Pure; the time of day is an argument, in seconds since 1970.
 *
 * A token says where the pod's members are reached, and has a key of its own, which follows from the
 * pod's secret:
 *
 *      key = HMAC-SHA-256(secret, "eagre join" pod id expiry)
 *      pod = HMAC-SHA-256(secret, "eagre pod" name), its first 8 bytes
 *
 * So every member can check one without having heard of it: by its id and expiry, which go over the
 * wire in the open (token_print_identity()), it makes the key, and TLS proves that the other side
 * has it (link/tls.h). Whoever has a token can join as long as it is good: it is to be guarded as
 * the secret is. The secret does not follow from it.
 *
 * As text it is base32 (RFC 4648, without padding, in small letters; capital ones, blanks and line
 * ends between them are taken, too) of
 *
 *      0 version u8     1 id u64     9 expiry u64     17 pod u64     25 key[32]
 *      57 count u8, then each address: length u8, its text
 *      checksum u32: of all before it, against slips of the hand and of the clipboard
 *
 * Each is used once: who takes one in keeps its id until it has expired (struct token_book).
 */
#ifndef WIRE_TOKEN_H
#define WIRE_TOKEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TOKEN_VERSION	    1u
#define TOKEN_KEY_BYTES	    32u
#define TOKEN_ADDRESSES_MAX 4u
#define TOKEN_ADDRESS_MAX   64u	 /* with its NUL: "10.0.0.3:7000" */
#define TOKEN_TEXT_MAX	    510u /* with its NUL */
#define TOKEN_IDENTITY_MAX  45u	 /* with its NUL */
/* Used ones that are remembered: more at a time are not taken. */
#define TOKEN_USED_MAX 256u

/* What of a token goes over the wire: not secret. */
struct token_name {
	uint64_t id; /* random */
	uint64_t expiry_s;
};

struct token {
	struct token_name name;
	uint64_t pod;
	uint8_t key[TOKEN_KEY_BYTES];
	uint8_t address_count;
	char address[TOKEN_ADDRESSES_MAX][TOKEN_ADDRESS_MAX];
};

struct token_pod {
	const void *secret;
	size_t secret_size;
	const char *name;
};

enum token_verdict {
	TOKEN_OK,
	TOKEN_DAMAGED,
	TOKEN_OTHER_VERSION,
	TOKEN_OTHER_POD,
	TOKEN_FORGED, /* its key is not the one that follows from the secret */
	TOKEN_EXPIRED,
	TOKEN_USED,
	TOKEN_BOOK_FULL,
	TOKEN_VERDICTS,
};

/*
 * A token of that pod, with 1 to TOKEN_ADDRESSES_MAX addresses, which are not looked at but for
 * their characters. 0; -EINVAL: the pod has no secret, or there are no addresses, too many, or one
 * that is too long or no plain text; -ENOMEM. *ret_token is set on success only.
 */
int token_make(const struct token_pod *pod, const struct token_name *name,
	       const char *const *address, size_t address_count, struct token *ret_token);

void token_print(const struct token *token, char ret_text[TOKEN_TEXT_MAX]);
/* OK, DAMAGED or OTHER_VERSION; *ret_token is set with OK only. */
enum token_verdict token_parse(const char *text, struct token *ret_token);

/* Whether its own host may still try it. What the pod says is what counts. */
bool token_is_expired(const struct token_name *name, uint64_t now_s);

/* The key that it must have. 0; -EINVAL: the pod has no secret; -ENOMEM. */
int token_key(const struct token_pod *pod, const struct token_name *name,
	      uint8_t ret_key[TOKEN_KEY_BYTES]);

/* "eagre-join 0123456789abcdef 0000000068ffffff": id, expiry. */
void token_print_identity(const struct token_name *name, char ret_text[TOKEN_IDENTITY_MAX]);
/* Exactly that, without a NUL. 0 or -EINVAL. */
int token_parse_identity(const void *text, size_t size, struct token_name *ret_name);

/*
 * Which tokens have been used. It never goes back in time: one that it has forgotten, as it had
 * expired, is expired for good, whatever becomes of the host's clock. All zero: none.
 */
struct token_book {
	uint64_t now_s; /* the latest that it was told */
	uint32_t count;
	struct token_name used[TOKEN_USED_MAX];
};

/* OK, EXPIRED, USED or BOOK_FULL. */
enum token_verdict token_look_up(struct token_book *book, const struct token_name *name,
				 uint64_t now_s);
/* The same, and from now on it is used if it was OK. */
enum token_verdict token_use(struct token_book *book, const struct token_name *name,
			     uint64_t now_s);

/* All of it, of a token that is at hand: OTHER_POD, FORGED, or what token_look_up() says. */
enum token_verdict token_check(const struct token *token, const struct token_pod *pod,
			       struct token_book *book, uint64_t now_s);

/* "this token has expired: make a new one", for the user. */
const char *token_explain(enum token_verdict verdict);

#endif
