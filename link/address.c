// SPDX-License-Identifier: Apache-2.0
/* Addresses of nodes. Tested by tests/link/test_mesh.c. */
#include "link/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOST_MAX 256

/* Splits "host:port" or "[host]:port". */
static int split(const char *text, char host[HOST_MAX], const char **ret_port)
{
	const char *end, *port;

	if (text[0] == '[') {
		text++;
		end = strchr(text, ']');
		if (!end || end[1] != ':')
			return -EINVAL;
		port = end + 2;
	} else {
		end = strrchr(text, ':');
		if (!end || memchr(text, ':', (size_t)(end - text)))
			return -EINVAL;
		port = end + 1;
	}
	if (end == text || end - text >= HOST_MAX)
		return -EINVAL;
	memcpy(host, text, (size_t)(end - text));
	host[end - text] = '\0';
	*ret_port = port;
	return 0;
}

static int parse_port(const char *text)
{
	char *end;
	long port;

	if (text[0] < '0' || text[0] > '9')
		return -EINVAL;
	port = strtol(text, &end, 10);
	return *end == '\0' && port >= 1 && port <= 65535 ? (int)port : -EINVAL;
}

static int parse(const char *text, int flags, struct address *ret_address, char *why,
		 size_t why_size)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC,
				  .ai_socktype = SOCK_STREAM,
				  .ai_flags = flags };
	struct addrinfo *found = NULL;
	char host[HOST_MAX];
	const char *port;
	int error;

	if (split(text, host, &port) < 0 || parse_port(port) < 0) {
		snprintf(why, why_size,
			 "address \"%s\" is not of the form 10.0.0.3:7000 or [fe80::1%%eth0]:7000",
			 text);
		return -EINVAL;
	}
	if (text[0] == '[')
		hints.ai_flags |= AI_NUMERICHOST;
	error = getaddrinfo(host, port, &hints, &found);
	if (error != 0) {
		snprintf(why, why_size,
			 "address \"%s\": %s: give the node's IP address, or a name that this host "
			 "can resolve",
			 text, gai_strerror(error));
		return -ENOENT;
	}
	memset(ret_address, 0, sizeof(*ret_address));
	memcpy(&ret_address->storage, found->ai_addr, found->ai_addrlen);
	ret_address->size = found->ai_addrlen;
	freeaddrinfo(found);
	return 0;
}

int address_parse(const char *text, struct address *ret_address, char *why, size_t why_size)
{
	return parse(text, 0, ret_address, why, why_size);
}

int address_parse_numeric(const char *text, struct address *ret_address, char *why, size_t why_size)
{
	return parse(text, AI_NUMERICHOST, ret_address, why, why_size);
}

/* By numbers alone, the link's, too: vCPUs' threads may not ask for its name (node/confine.h). */
const char *address_text(const struct address *address, char buf[ADDRESS_TEXT_MAX])
{
	char host[INET6_ADDRSTRLEN], link[16] = "";
	struct sockaddr_in6 v6;
	struct sockaddr_in v4;

	if (address->storage.ss_family == AF_INET6) {
		memcpy(&v6, &address->storage, sizeof(v6));
		inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof(host));
		if (v6.sin6_scope_id)
			snprintf(link, sizeof(link), "%%%u", v6.sin6_scope_id);
		snprintf(buf, ADDRESS_TEXT_MAX, "[%s%s]:%u", host, link, address_port(address));
	} else if (address->storage.ss_family == AF_INET) {
		memcpy(&v4, &address->storage, sizeof(v4));
		inet_ntop(AF_INET, &v4.sin_addr, host, sizeof(host));
		snprintf(buf, ADDRESS_TEXT_MAX, "%s:%u", host, address_port(address));
	} else {
		snprintf(buf, ADDRESS_TEXT_MAX, "unknown address");
	}
	return buf;
}

uint16_t address_port(const struct address *address)
{
	struct sockaddr_in6 v6;
	struct sockaddr_in v4;

	if (address->storage.ss_family == AF_INET6) {
		memcpy(&v6, &address->storage, sizeof(v6));
		return ntohs(v6.sin6_port);
	}
	memcpy(&v4, &address->storage, sizeof(v4));
	return ntohs(v4.sin_port);
}

int address_equal(const struct address *a, const struct address *b)
{
	char text_a[ADDRESS_TEXT_MAX], text_b[ADDRESS_TEXT_MAX];

	return strcmp(address_text(a, text_a), address_text(b, text_b)) == 0;
}
