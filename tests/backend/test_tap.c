/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taps of one queue and of several, in a network namespace of the test's own, where this host lets one
 * be made: what is opened, what is refused and how, on which pair a flow's packets come, and which are
 * dropped. One that is made by opening it joins a bridge, which is otherwise left as it was, and is gone
 * with its last user.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#include "backend/capabilities.h"
#include "backend/tap.h"

#define PAIRS	    4u
#define PATIENCE_MS 20000
#define AGAIN_MS    200
#define HEADERS	    (NET_HEADER_BYTES + 14u + 20u + 8u)

static uint8_t packet[NET_PACKET_MAX];
static const uint8_t guest_mac[6] = { 0x52, 0x54, 0, 1, 2, 3 };
static uint8_t host_mac[6];

static void on_say(void *ctx, const char *line)
{
}

static int open_on(const char *bridge, const char *name, uint16_t pairs, struct net **ret_net,
		   char *why)
{
	struct tap_options options = { .name = name,
				       .bridge = bridge,
				       .pairs = pairs,
				       .user = { .name = "net lan", .say = on_say } };
	return tap_open(&options, ret_net, why, 256);
}

static int open_tap(const char *name, uint16_t pairs, struct net **ret_net, char *why)
{
	return open_on("", name, pairs, ret_net, why);
}

static int make_tap(const char *name, int flags)
{
	struct ifreq request = { .ifr_flags = (short)(IFF_TAP | IFF_NO_PI | flags) };
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	int r = ioctl(fd, TUNSETIFF, &request) < 0 || ioctl(fd, TUNSETPERSIST, 1) < 0 ? -errno : 0;
	close(fd);
	return r;
}

/* It is up, and 10.9.0.1; the guest is 10.9.0.2, whom nobody has to ask for. */
static void bring_up(const char *name)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = { 0 };
	struct arpreq arp = { .arp_flags = ATF_COM | ATF_PERM };
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(0x0a090001) };
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	assert_int_equal(ioctl(fd, SIOCGIFHWADDR, &request), 0);
	memcpy(host_mac, request.ifr_hwaddr.sa_data, 6);
	memcpy(&request.ifr_addr, &address, sizeof(address));
	assert_int_equal(ioctl(fd, SIOCSIFADDR, &request), 0);
	address.sin_addr.s_addr = htonl(0xffffff00);
	memcpy(&request.ifr_netmask, &address, sizeof(address));
	assert_int_equal(ioctl(fd, SIOCSIFNETMASK, &request), 0);
	request.ifr_flags = IFF_UP;
	assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &request), 0);
	address.sin_addr.s_addr = htonl(0x0a090002);
	memcpy(&arp.arp_pa, &address, sizeof(address));
	arp.arp_ha.sa_family = ARPHRD_ETHER;
	memcpy(arp.arp_ha.sa_data, guest_mac, 6);
	snprintf(arp.arp_dev, sizeof(arp.arp_dev), "%s", name);
	assert_int_equal(ioctl(fd, SIOCSARP, &arp), 0);
	close(fd);
}

static int set_up(void **state)
{
	bool made = unshare(CLONE_NEWNET) == 0 && make_tap("one", 0) == 0 &&
		    make_tap("many", IFF_MULTI_QUEUE) == 0;
	*state = made ? packet : NULL;
	if (made)
		bring_up("many");
	return 0;
}

static void test_refused(void **state)
{
	struct net *net, *other;
	char why[256];
	if (!*state)
		skip();
	assert_int_equal(open_tap("none", 1, &net, why), -ENODEV);
	assert_non_null(strstr(why, "net lan: there is no tap none; 'ip tuntap add none mode tap"));
	assert_int_equal(open_tap("lo", PAIRS, &net, why), -EINVAL);
	assert_non_null(strstr(why, "; it is no tap"));
	assert_int_equal(open_tap("many", 0, &net, why), -EINVAL);
	assert_non_null(strstr(why, "net lan: tap many: "));
	assert_non_null(strstr(why, "; it cannot have so many pairs of queues"));
	for (int i = 0; i < 2; i++) {
		assert_int_equal(open_tap(i ? "many" : "one", PAIRS, &net, why), 0);
		assert_int_equal(net->info.pairs, i ? PAIRS : 1);
		assert_int_equal(open_tap(i ? "many" : "one", PAIRS, &other, why), -EBUSY);
		assert_non_null(strstr(why, "; another virtual machine has it"));
		net_destroy(net);
	}
	/* And at once again. */
	assert_int_equal(open_tap("many", 1, &net, why), 0);
	assert_int_equal(net->info.pairs, 1);
	net_destroy(net);
}

/* A host whose /dev/net/tun is there, and not this user's. */
static void test_forbidden(void **state)
{
	char name[] = "/tmp/eagre-test-tap-XXXXXX", why[256] = "";
	struct net *net;
	int fd = mkstemp(name);
	assert_true(fd >= 0);
	close(fd);
	bool made = *state && unshare(CLONE_NEWNS) == 0 &&
		    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
		    mount(name, "/dev/net/tun", NULL, MS_BIND, NULL) == 0;
	if (made) {
		assert_int_equal(seteuid(65534), 0);
		assert_int_equal(open_tap("one", 1, &net, why), -EACCES);
		assert_int_equal(seteuid(0), 0);
		assert_int_equal(umount("/dev/net/tun"), 0);
	}
	unlink(name);
	if (!made)
		skip();
	assert_string_equal(why, "net lan: tap one: Permission denied: /dev/net/tun; let this "
				 "user read and write it");
}

static void send_udp(struct net *net, uint16_t pair, uint16_t port)
{
	uint8_t *ip = packet + NET_HEADER_BYTES + 14;
	uint32_t sum = 0;
	memset(packet, 0, HEADERS);
	memcpy(packet + NET_HEADER_BYTES, host_mac, 6);
	memcpy(packet + NET_HEADER_BYTES + 6, guest_mac, 6);
	packet[NET_HEADER_BYTES + 12] = 8;
	memcpy(ip, "\x45\0\0\x1c\0\0\0\0\x40\x11\0\0\x0a\x09\0\2\x0a\x09\0\1", 20);
	for (int i = 0; i < 20; i += 2)
		sum += (uint32_t)(ip[i] << 8 | ip[i + 1]);
	sum = ~((sum & 0xffff) + (sum >> 16));
	ip[10] = (uint8_t)(sum >> 8);
	ip[11] = (uint8_t)sum;
	ip[20] = 0x11; /* from port 4352 */
	ip[22] = (uint8_t)(port >> 8);
	ip[23] = (uint8_t)port;
	ip[25] = 8;
	struct iovec iov = { packet, HEADERS };
	assert_int_equal(net_send(net, pair, &iov, 1), 0);
}

/*
 * On which pair an answer comes that is sent to the guest's port; what else there is is dropped. A host
 * that is busy with the tap's beginning drops packets, too: so it is sent again.
 */
static uint16_t arrives_on(struct net *net, uint16_t pairs, int host, uint8_t number,
			   const struct sockaddr_in *to)
{
	struct pollfd fd = { .fd = net_fd(net), .events = POLLIN };
	for (int ms = 0; ms < PATIENCE_MS; ms += AGAIN_MS) {
		assert_int_equal(
			sendto(host, &number, 1, 0, (const struct sockaddr *)to, sizeof(*to)), 1);
		if (poll(&fd, 1, AGAIN_MS) > 0)
			net_work(net);
		for (uint16_t pair = 0; pair < pairs; pair++) {
			const uint8_t *in;
			uint32_t bytes;
			while ((in = net_peek(net, pair, &bytes))) {
				const uint8_t *ip = in + NET_HEADER_BYTES + 14;
				bool is = bytes > HEADERS && ip[9] == 17 && ip[22] == 0x11 &&
					  ip[28] == number;
				/* It stays until it is dropped. */
				assert_ptr_equal(net_peek(net, pair, &bytes), in);
				net_drop(net, pair);
				if (is)
					return pair;
			}
		}
	}
	fail_msg("no answer came");
	return 0;
}

static void test_pairs(void **state)
{
	struct net *net;
	char why[256], got[8];
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(0x0a090001) };
	socklen_t size = sizeof(address);
	if (!*state)
		skip();
	int host = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(host, (struct sockaddr *)&address, size), 0);
	assert_int_equal(getsockname(host, (struct sockaddr *)&address, &size), 0);
	uint16_t port = ntohs(address.sin_port);
	assert_int_equal(open_tap("many", PAIRS, &net, why), 0);
	assert_int_equal(net_offload(net, &(struct net_offloads){ .checksum = true }), 0);
	assert_int_equal(net_set_pairs(net, 0), -EINVAL);
	assert_int_equal(net_set_pairs(net, PAIRS + 1), -EINVAL);
	for (uint16_t round = 0; round < 3; round++) {
		uint16_t pairs = round == 1 ? 2 : PAIRS;
		assert_int_equal(net_set_pairs(net, pairs), 0);
		for (uint16_t i = 0; i < 2 * pairs; i++) {
			send_udp(net, i % pairs, port);
			assert_int_equal(recvfrom(host, got, sizeof(got), 0,
						  (struct sockaddr *)&address, &size),
					 0);
			assert_int_equal(arrives_on(net, pairs, host,
						    (uint8_t)(round * 3 * PAIRS + i), &address),
					 i % pairs);
		}
	}
	close(host);
	net_destroy(net);
}

ssize_t __real_writev(int fd, const struct iovec *iov, int count);
ssize_t __wrap_writev(int fd, const struct iovec *iov, int count);

/* What the kernel says to packets, one after the other; 0: it takes them. */
static const int *refusals;

ssize_t __wrap_writev(int fd, const struct iovec *iov, int count)
{
	if (!refusals || !*refusals)
		return __real_writev(fd, iov, count);
	errno = *refusals++;
	return -1;
}

/*
 * A packet stays with the guest only where the kernel tells when it has room: else its queue would
 * stand still.
 */
static void test_no_room(void **state)
{
	static const struct {
		int refusals[3], answer;
	} cases[] = {
		{ { EAGAIN }, -EAGAIN },
		{ { ENOBUFS }, 0 },
		{ { EINVAL }, 0 },
		{ { EINTR }, 0 },
		{ { EINTR, EAGAIN }, -EAGAIN },
		{ { EINTR, ENOBUFS }, 0 },
	};
	struct iovec iov = { packet, HEADERS };
	struct net *net;
	char why[256];
	if (!*state)
		skip();
	assert_int_equal(open_tap("many", 1, &net, why), 0);
	memset(packet, 0, HEADERS);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		refusals = cases[i].refusals;
		assert_int_equal(net_send(net, 0, &iov, 1), cases[i].answer);
		assert_int_equal(*refusals, 0);
	}
	refusals = NULL;
	net_destroy(net);
}

/* What an ioctl() about a device gives. */
static int ask(unsigned long request, const char *name, struct ifreq *about)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	snprintf(about->ifr_name, sizeof(about->ifr_name), "%s", name);
	int r = ioctl(fd, request, about) < 0 ? -errno : 0;
	close(fd);
	return r;
}

/* A bridge "br" of MTU 1400 with the tap "one", whose address is high, but not as high as ours. */
static bool make_bridge(void)
{
	static const char high[6] = {
		(char)0xfc, (char)0xff, (char)0xff, (char)0xff, (char)0xff, 1
	};
	struct ifreq request = { .ifr_ifindex = (int)if_nametoindex("one") };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool made = ioctl(fd, SIOCBRADDBR, "br") == 0;
	close(fd);
	if (!made)
		return false;
	assert_int_equal(ask(SIOCBRADDIF, "br", &request), 0);
	request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
	memcpy(request.ifr_hwaddr.sa_data, high, sizeof(high));
	assert_int_equal(ask(SIOCSIFHWADDR, "one", &request), 0);
	request.ifr_mtu = 1400;
	assert_int_equal(ask(SIOCSIFMTU, "one", &request), 0);
	assert_int_equal(ask(SIOCGIFMTU, "br", &request), 0);
	assert_int_equal(request.ifr_mtu, 1400);
	return true;
}

static bool is_port_of(const char *bridge, const char *name)
{
	struct ifreq request = { .ifr_ifindex = (int)if_nametoindex(name) };
	/* A second time is refused: by the bridge, or by another that has it. */
	int r = request.ifr_ifindex ? ask(SIOCBRADDIF, bridge, &request) : -ENODEV;
	return r == -EBUSY;
}

static void refused_to_make(const char *bridge, const char *name, int error, const char *line)
{
	struct net *net;
	char why[256] = "";
	bool was_there = if_nametoindex(name);
	assert_int_equal(open_on(bridge, name, PAIRS, &net, why), error);
	assert_string_equal(why, line);
	assert_int_equal(if_nametoindex(name) != 0, was_there);
}

/* Of somebody who may only open /dev/net/tun: 0, or the error. */
static int attach_as_nobody(const char *name)
{
	struct ifreq request = { .ifr_flags =
					 IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE };
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC), error;
	assert_true(fd >= 0);
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	assert_int_equal(seteuid(65534), 0);
	error = ioctl(fd, TUNSETIFF, &request) < 0 ? -errno : 0;
	assert_int_equal(seteuid(0), 0);
	close(fd);
	return error;
}

static void test_made(void **state)
{
	struct ifreq before = { 0 }, now = { 0 };
	struct net *net;
	char why[256] = "";
	if (!*state || !make_bridge())
		skip();
	assert_int_equal(ask(SIOCGIFHWADDR, "br", &before), 0);
	for (uint16_t pairs = 1; pairs <= PAIRS; pairs += PAIRS - 1) {
		assert_int_equal(open_on("br", "mine", pairs, &net, why), 0);
		assert_int_equal(net->info.pairs, pairs);
		assert_true(is_port_of("br", "mine"));
		assert_int_equal(ask(SIOCGIFFLAGS, "mine", &now), 0);
		assert_true(now.ifr_flags & IFF_UP);
		assert_int_equal(ask(SIOCGIFMTU, "mine", &now), 0);
		assert_int_equal(now.ifr_mtu, 1400);
		assert_int_equal(net->info.mtu, 1400);
		assert_int_equal(attach_as_nobody("mine"), -EPERM);
		assert_int_equal(ask(SIOCGIFHWADDR, "br", &now), 0);
		assert_memory_equal(now.ifr_hwaddr.sa_data, before.ifr_hwaddr.sa_data, 6);
		refused_to_make("br", "mine", -EEXIST,
				"net lan: tap mine: File exists; to use it as it is leave out the "
				"bridge, or take another name");
		net_destroy(net);
		assert_int_equal(if_nametoindex("mine"), 0);
	}
	assert_true(is_port_of("br", "one"));
}

static void test_not_made(void **state)
{
	static const char there[] =
		"net lan: tap %s: File exists; to use it as it is leave out the "
		"bridge, or take another name";
	char line[256];
	if (!*state || !if_nametoindex("br"))
		skip();
	refused_to_make("nowhere", "mine", -ENODEV,
			"net lan: tap mine: there is no bridge nowhere; 'ip link add nowhere type "
			"bridge' and 'ip link set nowhere up' make one");
	refused_to_make("many", "mine", -EOPNOTSUPP, "net lan: tap mine: many is no bridge");
	refused_to_make("lo", "mine", -EOPNOTSUPP, "net lan: tap mine: lo is no bridge");
	for (int i = 0; i < 3; i++) {
		const char *name = i == 0 ? "one" : i == 1 ? "many" : "lo";
		snprintf(line, sizeof(line), there, name);
		refused_to_make("br", name, -EEXIST, line);
	}
	uint64_t held = capabilities_held();
	capabilities_set(held & ~CAPABILITY(CAP_NET_ADMIN), held);
	struct net *net;
	int r = open_on("br", "mine", 1, &net, line);
	capabilities_set(held, held);
	assert_int_equal(r, -EPERM);
	assert_string_equal(line,
			    "net lan: tap mine: Operation not permitted: CAP_NET_ADMIN makes "
			    "one; or have it made for this user: 'ip tuntap add ... user $USER'");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused), cmocka_unit_test(test_forbidden),
		cmocka_unit_test(test_pairs),	cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_made),	cmocka_unit_test(test_not_made),
	};
	return cmocka_run_group_tests(tests, set_up, NULL);
}
