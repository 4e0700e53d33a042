/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses of nodes: text to socket address and back. Inside link/ only.
 */
#ifndef LINK_ADDRESS_H
#define LINK_ADDRESS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define ADDRESS_TEXT_MAX 80 /* "[v6%number]:port" with its NUL */

struct address {
	struct sockaddr_storage storage;
	socklen_t size;
};

/*
 * "10.0.0.3:7000", "[fe80::1%eth0]:7000", "alpha.lan:7000". 0; -EINVAL or -ENOENT (no such host),
 * with one line in `why` that names the text and the remedy. May ask a name server, once.
 */
int address_parse(const char *text, struct address *ret_address, char *why, size_t why_size);

/* The same, without names: nobody is asked, so it takes no time. */
int address_parse_numeric(const char *text, struct address *ret_address, char *why,
			  size_t why_size);

/* Numeric, in buf, which is returned. */
const char *address_text(const struct address *address, char buf[ADDRESS_TEXT_MAX]);

uint16_t address_port(const struct address *address);

/* Are they the same host and port? */
int address_equal(const struct address *a, const struct address *b);

#endif
