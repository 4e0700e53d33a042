/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Joining a bridge (bridge.h), by ioctl: nothing has to be installed for it.
 *
 * A bridge takes the lowest of its ports' addresses for its own, and the smallest of their MTUs, unless the user has
 * set them. A pod that comes and goes must not change how its host is reached, so the tap gets an address that is
 * higher than any card's (fe: at the front, as libvirt does), and the bridge's MTU, before it joins.
 *
 * Tested by tests/backend/test_tap.c and tests/pod/network.
 */
#include "backend/bridge.h"

#include <errno.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define HIGH_ADDRESS 0xfe

static struct ifreq request_of(const char *name)
{
	struct ifreq request = { 0 };
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	return request;
}

static int check_bridge(int fd, const char *bridge)
{
	struct ethtool_drvinfo driver = { .cmd = ETHTOOL_GDRVINFO };
	struct ifreq request = request_of(bridge);
	request.ifr_data = (char *)&driver;
	if (ioctl(fd, SIOCETHTOOL, &request) == 0)
		return strcmp(driver.driver, "bridge") == 0 ? 0 : -EOPNOTSUPP;
	return errno == ENODEV ? -ENODEV : -EOPNOTSUPP;
}

/* The tap's MTU and address. */
static int take_after(int fd, const char *bridge, const char *tap)
{
	struct ifreq of_bridge = request_of(bridge), of_tap = request_of(tap);
	if (ioctl(fd, SIOCGIFMTU, &of_bridge) < 0)
		return -errno;
	of_tap.ifr_mtu = of_bridge.ifr_mtu;
	if (ioctl(fd, SIOCSIFMTU, &of_tap) < 0)
		return -errno;
	of_tap = request_of(tap);
	if (ioctl(fd, SIOCGIFHWADDR, &of_tap) < 0)
		return -errno;
	of_tap.ifr_hwaddr.sa_data[0] = (char)HIGH_ADDRESS;
	return ioctl(fd, SIOCSIFHWADDR, &of_tap) < 0 ? -errno : 0;
}

static int join(int fd, const char *bridge, const char *tap)
{
	struct ifreq request = request_of(bridge);
	request.ifr_ifindex = (int)if_nametoindex(tap);
	if (ioctl(fd, SIOCBRADDIF, &request) < 0)
		return -errno;
	request = request_of(tap);
	if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
		return -errno;
	request.ifr_flags |= IFF_UP;
	return ioctl(fd, SIOCSIFFLAGS, &request) < 0 ? -errno : 0;
}

int bridge_join(const char *bridge, const char *tap, char *why, size_t why_size)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int r = fd < 0 ? -errno : check_bridge(fd, bridge);
	if (!r)
		r = take_after(fd, bridge, tap);
	if (!r)
		r = join(fd, bridge, tap);
	if (r == -ENODEV)
		snprintf(why, why_size,
			 "there is no bridge %s; 'ip link add %s type bridge' and 'ip link set %s "
			 "up' make one",
			 bridge, bridge, bridge);
	else if (r == -EOPNOTSUPP)
		snprintf(why, why_size, "%s is no bridge", bridge);
	else if (r < 0)
		snprintf(why, why_size, "it cannot join bridge %s: %s", bridge, strerror(-r));
	if (fd >= 0)
		close(fd);
	return r;
}
