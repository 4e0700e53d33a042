/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flow table: packets of IPv4 and IPv6, with and without ports, go to the pair that sent last on
 * their flow; many flows are spread; pairs that are no longer in use get nothing; garbage hurts nobody.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/flows.h"

#define PACKET_BYTES 64u

static struct flows flows;

static void swap(uint8_t *a, uint8_t *b, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++) {
		uint8_t byte = a[i];
		a[i] = b[i];
		b[i] = byte;
	}
}

/* From 10.0.2.15:port to 10.0.2.2:80; `back` is the answer. */
static size_t ipv4(uint8_t *packet, uint16_t port, uint8_t protocol, int back)
{
	static const uint8_t from[] = { 10, 0, 2, 15 }, to[] = { 10, 0, 2, 2 };
	memset(packet, 0, PACKET_BYTES);
	packet[12] = 8;
	uint8_t *ip = packet + 14;
	ip[0] = 0x45;
	ip[9] = protocol;
	memcpy(ip + 12, from, 4);
	memcpy(ip + 16, to, 4);
	ip[20] = (uint8_t)(port >> 8);
	ip[21] = (uint8_t)port;
	ip[23] = 80;
	if (back) {
		swap(ip + 12, ip + 16, 4);
		swap(ip + 20, ip + 22, 2);
	}
	return PACKET_BYTES;
}

static size_t ipv6(uint8_t *packet, uint16_t port, int back)
{
	memset(packet, 0, PACKET_BYTES);
	packet[12] = 0x86;
	packet[13] = 0xdd;
	uint8_t *ip = packet + 14;
	ip[0] = 0x60;
	ip[6] = 17;
	ip[8] = 0xfe;
	ip[24] = 0xfd;
	ip[39] = 9;
	ip[40] = (uint8_t)(port >> 8);
	ip[41] = (uint8_t)port;
	ip[43] = 53;
	if (back) {
		swap(ip + 8, ip + 24, 16);
		swap(ip + 40, ip + 42, 2);
	}
	return PACKET_BYTES;
}

/* The same packet with a VLAN's tag. */
static size_t tagged(uint8_t *packet, size_t bytes)
{
	memmove(packet + 16, packet + 12, bytes - 16);
	packet[12] = 0x81;
	packet[13] = 0;
	return bytes;
}

static uint16_t pair_of(const uint8_t *packet, size_t bytes, uint16_t pairs)
{
	return flows_pair(&flows, pairs, packet, bytes);
}

static void test_the_pair_that_sent_last(void **state)
{
	uint8_t packet[PACKET_BYTES];

	memset(&flows, 0, sizeof(flows));
	for (uint16_t pair = 0; pair < 8; pair++)
		for (int vlan = 0; vlan < 2; vlan++) {
			size_t bytes = ipv4(packet, 1000, 6, 0);
			flows_sent(&flows, pair, packet, vlan ? tagged(packet, bytes) : bytes);
			bytes = ipv4(packet, 1000, 6, 1);
			assert_int_equal(pair_of(packet, vlan ? tagged(packet, bytes) : bytes, 8),
					 pair);
			flows_sent(&flows, 7 - pair, packet, ipv6(packet, 1000, 0));
			assert_int_equal(pair_of(packet, ipv6(packet, 1000, 1), 8), 7 - pair);
		}
}

/* Others' packets do not move a flow, but for the few whose place they take. */
static void test_many(void **state)
{
	uint8_t packet[PACKET_BYTES];
	uint32_t kept = 0, at[4] = { 0 };

	memset(&flows, 0, sizeof(flows));
	for (uint16_t port = 1; port <= 1000; port++)
		at[pair_of(packet, ipv4(packet, port, 17, 1), 4)]++;
	for (uint32_t i = 0; i < 4; i++)
		assert_in_range(at[i], 180, 320);
	for (uint16_t port = 1; port <= 1000; port++)
		flows_sent(&flows, port % 4, packet, ipv4(packet, port, 17, 0));
	for (uint16_t port = 1; port <= 1000; port++)
		kept += pair_of(packet, ipv4(packet, port, 17, 1), 4) == port % 4;
	assert_in_range(kept, 880, 1000);
}

static void test_fewer_pairs(void **state)
{
	uint8_t packet[PACKET_BYTES];

	memset(&flows, 0, sizeof(flows));
	for (uint16_t port = 1; port <= 500; port++) {
		flows_sent(&flows, 7, packet, ipv4(packet, port, 6, 0));
		size_t bytes = ipv4(packet, port, 6, 1);
		assert_int_equal(pair_of(packet, bytes, 8), 7);
		assert_in_range(pair_of(packet, bytes, 7), 0, 6);
		assert_int_equal(pair_of(packet, bytes, 1), 0);
	}
}

/* All of a datagram's fragments go together; what has no ports goes by its addresses. */
static void test_without_ports(void **state)
{
	uint8_t packet[PACKET_BYTES];
	size_t bytes = ipv4(packet, 1, 17, 0);

	memset(&flows, 0, sizeof(flows));
	packet[14 + 6] = 0x20; /* the first: more follow */
	flows_sent(&flows, 5, packet, bytes);
	bytes = ipv4(packet, 2, 17, 1);
	packet[14 + 7] = 9; /* a later one: what lies where ports were is data */
	assert_int_equal(pair_of(packet, bytes, 8), 5);
	flows_sent(&flows, 6, packet, ipv4(packet, 3, 1, 0));
	assert_int_equal(pair_of(packet, ipv4(packet, 4, 1, 1), 8), 6);
	/* ARP, and what is too short for anything. */
	bytes = ipv4(packet, 1, 6, 0);
	packet[13] = 6;
	flows_sent(&flows, 5, packet, bytes);
	assert_int_equal(pair_of(packet, bytes, 8), 0);
	for (bytes = 0; bytes < 34; bytes++) {
		ipv4(packet, 1, 6, 0);
		flows_sent(&flows, 5, packet, bytes);
		assert_int_equal(pair_of(packet, bytes, 8), 0);
	}
}

/* Each in memory of its own size, for the sanitizers. */
static void test_garbage(void **state)
{
	uint64_t random = 1;

	for (int i = 0; i < 50000; i++) {
		size_t bytes = (random >> 40) % 70;
		uint8_t *packet = malloc(bytes + !bytes);
		for (size_t b = 0; b < bytes; b++) {
			random = random * 6364136223846793005ull + 1442695040888963407ull;
			packet[b] = (uint8_t)(random >> 56);
		}
		if (bytes > 14 && i % 4) {
			packet[12] = i % 4 == 1 ? 8 : i % 4 == 2 ? 0x86 : 0x81;
			packet[13] = i % 4 == 2 ? 0xdd : 0;
			packet[14] = (uint8_t)((i % 4 == 1 ? 0x40 : 0x60) | (packet[14] & 15));
		}
		random = random * 6364136223846793005ull + 1442695040888963407ull;
		flows_sent(&flows, (uint16_t)(random >> 60), packet, bytes);
		assert_in_range(pair_of(packet, bytes, 3), 0, 2);
		free(packet);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_pair_that_sent_last),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_fewer_pairs),
		cmocka_unit_test(test_without_ports),
		cmocka_unit_test(test_garbage),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
