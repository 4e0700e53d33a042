/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flows (flows.h). A key is both ends, the smaller one first, and the protocol. Of TCP and UDP an end
 * has a port; fragments have none, not even the first, as the others would go elsewhere; nor has what
 * lies behind IPv6's extension headers.
 *
 * Tested by tests/backend/test_flows.c.
 */
#include "backend/flows.h"

#include <stdbool.h>
#include <string.h>

#define ETHER_BYTES 14u
#define ETHER_IPV4  0x0800u
#define ETHER_IPV6  0x86ddu
#define ETHER_VLAN  0x8100u
#define VLAN_BYTES  4u
#define IPV4_BYTES  20u
#define IPV6_BYTES  40u
#define IP_TCP	    6u
#define IP_UDP	    17u
#define FRAGMENT    0x3fffu /* more of them, or not at the beginning */

struct end {
	uint8_t address[16], port[2];
};

struct key {
	struct end low, high;
	uint8_t protocol, version;
};

_Static_assert(sizeof(struct key) == 38, "it is hashed as it lies");

static uint32_t get16(const uint8_t *at)
{
	return (uint32_t)at[0] << 8 | at[1];
}

static void take_ports(struct key *key, const uint8_t *ip, size_t bytes, size_t header)
{
	if ((key->protocol != IP_TCP && key->protocol != IP_UDP) || bytes < header + 4)
		return;
	memcpy(key->low.port, ip + header, 2);
	memcpy(key->high.port, ip + header + 2, 2);
}

static bool take_ipv4(struct key *key, const uint8_t *ip, size_t bytes)
{
	if (bytes < IPV4_BYTES || ip[0] >> 4 != 4)
		return false;
	size_t header = (size_t)(ip[0] & 15) * 4;
	key->version = 4;
	key->protocol = ip[9];
	memcpy(key->low.address, ip + 12, 4);
	memcpy(key->high.address, ip + 16, 4);
	if (!(get16(ip + 6) & FRAGMENT) && header >= IPV4_BYTES)
		take_ports(key, ip, bytes, header);
	return true;
}

static bool take_ipv6(struct key *key, const uint8_t *ip, size_t bytes)
{
	if (bytes < IPV6_BYTES || ip[0] >> 4 != 6)
		return false;
	key->version = 6;
	key->protocol = ip[6];
	memcpy(key->low.address, ip + 8, 16);
	memcpy(key->high.address, ip + 24, 16);
	take_ports(key, ip, bytes, IPV6_BYTES);
	return true;
}

static bool take_key(struct key *key, const uint8_t *packet, size_t bytes)
{
	size_t header = ETHER_BYTES;
	bool is_ip;

	if (bytes < ETHER_BYTES + VLAN_BYTES)
		return false;
	if (get16(packet + 12) == ETHER_VLAN)
		header += VLAN_BYTES;
	const uint8_t *ip = packet + header;
	switch (get16(ip - 2)) {
	case ETHER_IPV4:
		is_ip = take_ipv4(key, ip, bytes - header);
		break;
	case ETHER_IPV6:
		is_ip = take_ipv6(key, ip, bytes - header);
		break;
	default:
		return false;
	}
	if (memcmp(&key->low, &key->high, sizeof(key->low)) > 0) {
		struct end swap = key->low;
		key->low = key->high;
		key->high = swap;
	}
	return is_ip;
}

/* 0: it is no flow. FNV-1a, whose upper half is stirred into the lower. */
static uint64_t hash_of(const uint8_t *packet, size_t bytes)
{
	struct key key = { 0 };
	uint64_t hash = 0xcbf29ce484222325ull;

	if (!take_key(&key, packet, bytes))
		return 0;
	const uint8_t *byte = (const uint8_t *)&key;
	for (size_t i = 0; i < sizeof(key); i++)
		hash = (hash ^ byte[i]) * 0x100000001b3ull;
	hash = (hash ^ hash >> 32) * 0x9e3779b97f4a7c15ull;
	return hash | 1ull << 63; /* so the tag is not 0 */
}

static uint32_t place_of(uint64_t hash)
{
	return (uint32_t)hash & (FLOWS_MAX - 1);
}

static uint32_t tag_of(uint64_t hash)
{
	return (uint32_t)(hash >> 32);
}

void flows_sent(struct flows *flows, uint16_t pair, const uint8_t *packet, size_t bytes)
{
	uint64_t hash = hash_of(packet, bytes);

	if (hash)
		flows->flow[place_of(hash)] = (struct flow){ tag_of(hash), pair };
}

uint16_t flows_pair(const struct flows *flows, uint16_t pairs, const uint8_t *packet, size_t bytes)
{
	uint64_t hash = pairs > 1 ? hash_of(packet, bytes) : 0;
	const struct flow *flow = &flows->flow[place_of(hash)];

	if (!hash)
		return 0;
	if (flow->tag == tag_of(hash) && flow->pair < pairs)
		return flow->pair;
	return (uint16_t)((hash >> 16 & 0xffff) * pairs >> 16);
}
