/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network of the process's own, from a guest's side, with packets made by hand: an address by
 * DHCP, UDP and TCP to this host and forwarded from it, checksums and large segments left to it.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "backend/net_header.h"
#include "backend/user_net.h"

#define PATIENCE_MS 20000
#define PAIRS	    4
#define ETHER	    14u
#define IP	    (ETHER + 20u)

static const uint8_t guest_mac[6] = { 0x52, 0x54, 0, 0xea, 0, 1 };
static uint8_t host_mac[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
static const uint8_t guest_ip[4] = { 10, 0, 2, 15 }, host_ip[4] = { 10, 0, 2, 2 };
static struct net *net;
static uint16_t on_pair;				/* that is sent on */
static uint8_t in[NET_PACKET_MAX], out[NET_PACKET_MAX]; /* with header */
static uint8_t *const packet_in = in + NET_HEADER_BYTES, *const packet = out + NET_HEADER_BYTES;

static char said[256];

static void on_say(void *ctx, const char *line)
{
	snprintf(said, sizeof(said), "%s", line);
}

static struct user_net_options options_of(const struct user_net_forward *forward, uint32_t count)
{
	return (struct user_net_options){ .pairs = PAIRS,
					  .forward = forward,
					  .forward_count = count,
					  .user = { .name = "net test", .say = on_say } };
}

static void put16(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
	put16(at, value >> 16);
	put16(at + 2, value & 0xffff);
}

static uint32_t get16(const uint8_t *at)
{
	return (uint32_t)at[0] << 8 | at[1];
}

static uint32_t get32(const uint8_t *at)
{
	return get16(at) << 16 | get16(at + 2);
}

static uint32_t sum(const uint8_t *at, size_t bytes, uint32_t total)
{
	for (size_t i = 0; i < bytes; i++)
		total += i % 2 ? at[i] : (uint32_t)at[i] << 8;
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	return total;
}

/* Sends what is in `packet` from IP's payload on, whose checksum is left to the network. */
static void send_ip(uint8_t protocol, const uint8_t to[4], size_t payload, uint32_t checksum_at)
{
	memcpy(packet, host_mac, 6);
	memcpy(packet + 6, guest_mac, 6);
	put16(packet + 12, 0x0800);
	uint8_t *ip = packet + ETHER;
	memset(ip, 0, 20);
	ip[0] = 0x45;
	put16(ip + 2, (uint32_t)(20 + payload));
	ip[8] = 64;
	ip[9] = protocol;
	memcpy(ip + 12, guest_ip, 4);
	memcpy(ip + 16, to, 4);
	put16(ip + 10, ~sum(ip, 20, 0) & 0xffff);
	/* The pseudo header's sum, as a driver leaves it. */
	put16(ip + 20 + checksum_at, sum(ip + 12, 8, protocol + (uint32_t)payload));
	struct net_header header = { .flags = NET_NEEDS_CHECKSUM,
				     .checksum_start = IP,
				     .checksum_offset = (uint16_t)checksum_at };
	memcpy(out, &header, sizeof(header));
	struct iovec iov[2] = { { out, 30 }, { out + 30, NET_HEADER_BYTES + IP + payload - 30 } };
	assert_int_equal(net_send(net, on_pair, iov, 2), 0);
}

static void send_udp(const uint8_t to[4], uint16_t from_port, uint16_t port, const void *data,
		     size_t bytes)
{
	uint8_t *udp = packet + IP;
	put16(udp, from_port);
	put16(udp + 2, port);
	put16(udp + 4, (uint32_t)(8 + bytes));
	memcpy(udp + 8, data, bytes);
	send_ip(17, to, 8 + bytes, 6);
}

/* The guest answers who asks for its address. */
static void answer_arp(void)
{
	static const uint8_t begin[] = { 0, 1, 8, 0, 6, 4, 0, 2 };
	uint8_t *arp = packet + ETHER;
	memcpy(packet, packet_in + 6, 6);
	memcpy(packet + 6, guest_mac, 6);
	put16(packet + 12, 0x0806);
	memcpy(arp, begin, sizeof(begin));
	memcpy(arp + 8, guest_mac, 6);
	memcpy(arp + 14, guest_ip, 4);
	memcpy(arp + 18, packet_in + ETHER + 8, 10);
	memset(out, 0, NET_HEADER_BYTES);
	struct iovec iov = { out, NET_HEADER_BYTES + ETHER + 28 };
	assert_int_equal(net_send(net, 0, &iov, 1), 0);
}

static bool waits(uint16_t pair)
{
	uint32_t bytes;
	return net_peek(net, pair, &bytes) != NULL;
}

/* The next packet of that protocol: where its payload is, and how long. */
static const uint8_t *receive(uint8_t protocol, size_t *ret_bytes)
{
	for (;;) {
		uint32_t whole;
		const uint8_t *next = net_peek(net, 0, &whole);
		if (!next) {
			struct pollfd fd = { .fd = net_fd(net), .events = POLLIN };
			net_settle(net);
			assert_true(poll(&fd, 1, PATIENCE_MS) > 0);
			net_work(net);
			continue;
		}
		memcpy(in, next, whole);
		net_drop(net, 0);
		memcpy(host_mac, packet_in + 6, 6);
		if (get16(packet_in + 12) == 0x0806 && get16(packet_in + ETHER + 6) == 1)
			answer_arp();
		if (get16(packet_in + 12) != 0x0800 || packet_in[ETHER + 9] != protocol)
			continue;
		*ret_bytes = get16(packet_in + ETHER + 2) - 20;
		return packet_in + IP;
	}
}

static int host_socket(int type, uint16_t *ret_port)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(address);
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
	*ret_port = ntohs(address.sin_port);
	return fd;
}

static void open_net(const struct user_net_forward *forward, uint32_t count)
{
	char why[256];
	struct user_net_options options = options_of(forward, count);
	if (user_net_open(&options, &net, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	assert_int_equal(net->info.pairs, PAIRS);
	assert_true(net->info.checksum && net->info.segments);
}

static void test_dhcp(void **state)
{
	static const uint8_t all[4] = { 255, 255, 255, 255 }, cookie[] = { 99, 130, 83, 99 };
	uint8_t discover[300] = { 1, 1, 6 };
	size_t bytes;
	open_net(NULL, 0);
	memcpy(discover + 28, guest_mac, 6);
	memcpy(discover + 236, cookie, 4);
	memcpy(discover + 240, "\x35\x01\x01\xff", 4);
	send_udp(all, 68, 67, discover, sizeof(discover));
	/* It is there at once, and its descriptor says so. */
	struct pollfd fd = { .fd = net_fd(net), .events = POLLIN };
	net_settle(net);
	assert_int_equal(poll(&fd, 1, PATIENCE_MS), 1);
	net_work(net);
	const uint8_t *reply = receive(17, &bytes) + 8;
	assert_false(waits(0));
	net_settle(net);
	assert_int_equal(poll(&fd, 1, 0), 0);
	assert_true(bytes > 248);
	assert_memory_equal(reply + 16, guest_ip, 4);
	net_destroy(net);
}

static void test_udp(void **state)
{
	uint16_t port, forwarded;
	int host = host_socket(SOCK_DGRAM, &port), free_one = host_socket(SOCK_DGRAM, &forwarded);
	char text[2000];
	size_t bytes;
	close(free_one);
	struct user_net_forward forward = {
		.udp = true, .host = "127.0.0.1", .host_port = forwarded, .guest_port = 5000
	};
	open_net(&forward, 1);
	/* Odd, so that the checksum has an end of its own; the guest's address is learnt by it. */
	memset(text, 'x', sizeof(text));
	send_udp(host_ip, 4000, port, text, 1201);
	struct sockaddr_in from;
	socklen_t size = sizeof(from);
	char got[2000];
	assert_int_equal(recvfrom(host, got, sizeof(got), 0, (struct sockaddr *)&from, &size),
			 1201);
	assert_memory_equal(got, text, 1201);
	assert_int_equal(sendto(host, "answer", 6, 0, (struct sockaddr *)&from, size), 6);
	const uint8_t *udp = receive(17, &bytes);
	assert_int_equal(get16(udp + 2), 4000);
	assert_int_equal(bytes, 8 + 6);
	assert_memory_equal(udp + 8, "answer", 6);
	assert_int_equal(in[0], 0);
	/* What comes has good checksums, which the guest may want to hear. */
	assert_int_equal(net_offload(net, &(struct net_offloads){ .checksum = true }), 0);
	from.sin_port = htons(forwarded);
	from.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(sendto(host, "hello", 5, 0, (struct sockaddr *)&from, size), 5);
	udp = receive(17, &bytes);
	assert_int_equal(get16(udp + 2), 5000);
	assert_memory_equal(udp + 8, "hello", 5);
	assert_int_equal(in[0], NET_CHECKSUM_GOOD);
	close(host);
	net_destroy(net);
}

struct connection {
	uint16_t from, to;
	uint32_t sent, received;
};

#define TCP_SYN 2u
#define TCP_ACK 16u

static void send_tcp(const struct connection *c, uint8_t flags, const void *data, size_t bytes)
{
	uint8_t *tcp = packet + IP;
	memset(tcp, 0, 20);
	put16(tcp, c->from);
	put16(tcp + 2, c->to);
	put32(tcp + 4, c->sent);
	put32(tcp + 8, c->received);
	tcp[12] = 5 << 4;
	tcp[13] = flags;
	put16(tcp + 14, 65535);
	if (bytes)
		memcpy(tcp + 20, data, bytes);
	send_ip(6, host_ip, 20 + bytes, 16);
}

/* A segment, whole, of far more than the network's packets have; and back. */
static void test_tcp(void **state)
{
	static uint8_t data[40000], got[40000];
	uint16_t port;
	size_t bytes;
	int listener = host_socket(SOCK_STREAM, &port);
	assert_int_equal(listen(listener, 1), 0);
	open_net(NULL, 0);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 2654435761u >> 16);
	struct connection c = { .from = 3000, .to = port, .sent = 100 };
	send_tcp(&c, TCP_SYN, NULL, 0);
	const uint8_t *tcp = receive(6, &bytes);
	assert_int_equal(tcp[13], TCP_SYN | TCP_ACK);
	c.received = get32(tcp + 4) + 1;
	c.sent++;
	send_tcp(&c, TCP_ACK, data, sizeof(data));
	int host = accept(listener, NULL, NULL);
	assert_true(host >= 0);
	for (size_t at = 0; at < sizeof(data);) {
		struct pollfd fd[2] = { { .fd = net_fd(net), .events = POLLIN },
					{ .fd = host, .events = POLLIN } };
		net_settle(net);
		assert_true(poll(fd, 2, PATIENCE_MS) > 0);
		net_work(net);
		ssize_t part = recv(host, got + at, sizeof(got) - at, MSG_DONTWAIT);
		assert_true(part > 0 || errno == EAGAIN);
		at += part > 0 ? (size_t)part : 0;
	}
	assert_memory_equal(got, data, sizeof(data));
	c.sent += sizeof(data);
	assert_int_equal(send(host, data, sizeof(data), MSG_DONTWAIT), sizeof(data));
	for (size_t at = 0; at < sizeof(data);) {
		tcp = receive(6, &bytes);
		size_t header = (size_t)(tcp[12] >> 4) * 4, part = bytes - header;
		assert_true(bytes <= 1480);
		assert_int_equal(get32(tcp + 4), c.received);
		assert_memory_equal(tcp + header, data + at, part);
		at += part;
		c.received += (uint32_t)part;
		if (part)
			send_tcp(&c, TCP_ACK, NULL, 0);
	}
	close(host);
	close(listener);
	net_destroy(net);
}

static void look(void)
{
	struct pollfd fd = { .fd = net_fd(net), .events = POLLIN };
	net_settle(net);
	assert_true(poll(&fd, 1, PATIENCE_MS) > 0);
	net_work(net);
}

/* Takes what has come on that pair: an answer to 10.0.2.15:port? */
static bool answered(uint16_t pair, uint16_t port)
{
	const uint8_t *next;
	uint32_t whole;
	bool is = false;
	while ((next = net_peek(net, pair, &whole))) {
		memcpy(in, next, whole);
		net_drop(net, pair);
		is = is || (get16(packet_in + 12) == 0x0800 && get16(packet_in + IP + 2) == port);
	}
	return is;
}

/* An answer comes on the pair that sent last to whom answers; on none that is not in use. */
static void test_pairs(void **state)
{
	uint16_t port;
	int host = host_socket(SOCK_DGRAM, &port);
	struct sockaddr_in from;
	socklen_t size = sizeof(from);
	char got[16];
	size_t bytes;
	open_net(NULL, 0);
	assert_int_equal(net_set_pairs(net, 0), -EINVAL);
	assert_int_equal(net_set_pairs(net, PAIRS + 1), -EINVAL);
	send_udp(host_ip, 4000, port, "x", 1);
	recvfrom(host, got, sizeof(got), 0, (struct sockaddr *)&from, &size);
	sendto(host, "y", 1, 0, (struct sockaddr *)&from, size);
	receive(17, &bytes); /* and the guest's address is known */
	assert_int_equal(net_set_pairs(net, PAIRS), 0);
	for (uint16_t i = 0; i < 8; i++) {
		on_pair = i % PAIRS;
		send_udp(host_ip, 4000, port, "x", 1);
		recvfrom(host, got, sizeof(got), 0, (struct sockaddr *)&from, &size);
		if (i == 7)
			assert_int_equal(net_set_pairs(net, 1), 0);
		sendto(host, "y", 1, 0, (struct sockaddr *)&from, size);
		while (!answered(i == 7 ? 0 : on_pair, 4000))
			look();
		for (uint16_t pair = 0; pair < PAIRS; pair++)
			assert_false(answered(pair, 4000));
	}
	on_pair = 0;
	close(host);
	net_destroy(net);
}

/* What the guest does not take is dropped in the end; what it takes then is whole. */
static void test_ring(void **state)
{
	uint16_t port;
	int host = host_socket(SOCK_DGRAM, &port);
	struct sockaddr_in from;
	socklen_t size = sizeof(from);
	static uint8_t text[1400], got[1400];
	size_t bytes;
	open_net(NULL, 0);
	send_udp(host_ip, 4000, port, "x", 1);
	assert_int_equal(recvfrom(host, got, sizeof(got), 0, (struct sockaddr *)&from, &size), 1);
	assert_int_equal(sendto(host, "x", 1, 0, (struct sockaddr *)&from, size), 1);
	receive(17, &bytes); /* and the guest's address is known */
	for (uint32_t round = 0, seen = 0; round < 3; round++) {
		for (uint32_t i = 0; i < 10000; i++) {
			put32(text, round * 10000 + i);
			assert_int_equal(
				sendto(host, text, sizeof(text), 0, (struct sockaddr *)&from, size),
				sizeof(text));
			net_settle(net);
			net_work(net);
		}
		uint32_t count = 0;
		while (waits(0) && count < 1000 + round) {
			uint32_t number = get32(receive(17, &bytes) + 8);
			assert_true(!seen || number > seen);
			assert_int_equal(bytes, 8 + sizeof(text));
			seen = number;
			count++;
		}
		assert_int_equal(count, 1000 + round);
	}
	close(host);
	net_destroy(net);
}

static void test_refused(void **state)
{
	uint16_t port;
	char why[256];
	int taken = host_socket(SOCK_STREAM, &port);
	assert_int_equal(listen(taken, 1), 0);
	struct user_net_forward forward = { .host = "127.0.0.1",
					    .host_port = port,
					    .guest_port = 22 };
	struct user_net_options options = options_of(&forward, 1);
	assert_int_equal(user_net_open(&options, &net, why, sizeof(why)), -EADDRINUSE);
	assert_non_null(strstr(why, "net test: TCP port "));
	assert_non_null(strstr(why, "of 127.0.0.1 cannot be forwarded: Address already in use; end "
				    "who has it, or take another port"));
	forward.host = "192.0.2.1";
	assert_int_equal(user_net_open(&options, &net, why, sizeof(why)), -EADDRNOTAVAIL);
	assert_non_null(strstr(why, "it is no address of this host"));
	options.pairs = 0;
	assert_int_equal(user_net_open(&options, &net, why, sizeof(why)), -EINVAL);
	assert_string_equal(why,
			    "net test: cannot be made: it cannot have so many pairs of queues");
	close(taken);
}

static uint32_t descriptors(void)
{
	uint32_t count = 0;
	DIR *dir = opendir("/proc/self/fd");
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

/* A guest may have many flows, but not all of the process's descriptors; those that it has work on. */
static void test_many_flows(void **state)
{
	static const uint8_t echo[8] = { 8 };
	struct connection c = { .sent = 100 };
	struct sockaddr_in from;
	socklen_t size = sizeof(from);
	uint16_t port, tcp_port;
	char got[16];
	int host = host_socket(SOCK_DGRAM, &port), listener = host_socket(SOCK_STREAM, &tcp_port);
	uint32_t before = descriptors();
	assert_int_equal(listen(listener, 1), 0);
	c.to = tcp_port;
	said[0] = '\0';
	open_net(NULL, 0);
	for (uint16_t i = 0; i < 1800; i++) {
		if (i % 3 == 0) {
			send_udp(host_ip, 20000 + i, port, "x", 1);
		} else if (i % 3 == 1) {
			c.from = 20000 + i;
			send_tcp(&c, TCP_SYN, NULL, 0);
		} else {
			memcpy(packet + IP, echo, sizeof(echo));
			packet[IP + 7] = (uint8_t)i;
			send_ip(1, host_ip, 8, 2);
			send_udp(host_ip, 30000 + i, port, "x", 1);
		}
		net_settle(net);
	}
	assert_in_range(descriptors() - before, 900, 1300);
	assert_non_null(strstr(said, "net test: the guest has 10"));
	/* One that there is. */
	while (recv(host, got, sizeof(got), MSG_DONTWAIT) > 0)
		;
	send_udp(host_ip, 20000, port, "yes", 3);
	assert_int_equal(recvfrom(host, got, sizeof(got), 0, (struct sockaddr *)&from, &size), 3);
	net_destroy(net);
	assert_int_equal(descriptors(), before);
	close(host);
	close(listener);
}

/* Who connects to a forward when there are no descriptors waits, and nobody spins meanwhile. */
static void test_no_descriptors(void **state)
{
	struct rlimit limit, none;
	uint16_t port;
	size_t bytes;
	close(host_socket(SOCK_STREAM, &port));
	struct user_net_forward forward = { .host = "127.0.0.1",
					    .host_port = port,
					    .guest_port = 22 };
	struct sockaddr_in to = { .sin_family = AF_INET,
				  .sin_port = htons(port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	open_net(&forward, 1);
	int host = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	net_settle(net);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	none = limit;
	none.rlim_cur = (rlim_t)host + 1; /* the lowest ones are taken */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	int r = connect(host, (struct sockaddr *)&to, sizeof(to));
	assert_true(r == 0 || errno == EINPROGRESS);
	uint32_t turns = 0;
	struct timespec now, begin;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	do {
		struct pollfd fd = { .fd = net_fd(net), .events = POLLIN };
		net_settle(net);
		turns += poll(&fd, 1, 100) > 0;
		net_work(net);
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec - begin.tv_sec < 2);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_in_range(turns, 1, 200);
	const uint8_t *tcp = receive(6, &bytes);
	assert_int_equal(get16(tcp + 2), 22);
	close(host);
	net_destroy(net);
}

/* Nothing that a guest sends may hurt. */
static void test_hostile(void **state)
{
	open_net(NULL, 0);
	uint64_t random = 1;
	for (int i = 0; i < 20000; i++) {
		size_t bytes = 0;
		for (size_t b = 0; b < 200; b++) {
			random = random * 6364136223846793005ull + 1442695040888963407ull;
			out[b] = (uint8_t)(random >> 56);
		}
		bytes = (random >> 33) % 200;
		out[0] &= NET_NEEDS_CHECKSUM;
		struct iovec iov = { out, bytes };
		assert_int_equal(net_send(net, 0, &iov, 1), 0);
	}
	struct iovec iov = { out, sizeof(out) };
	assert_int_equal(net_send(net, 0, &iov, 1), 0);
	net_settle(net);
	net_work(net);
	net_destroy(net);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dhcp),
		cmocka_unit_test(test_udp),
		cmocka_unit_test(test_tcp),
		cmocka_unit_test(test_ring),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_many_flows),
		cmocka_unit_test(test_no_descriptors),
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_pairs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
