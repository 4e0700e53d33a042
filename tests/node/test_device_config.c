/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What users say about disks and cards: what is read, and that each refusal names thing and remedy.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/pod_config.h"
#include "tests/test.h"

#define TWO_NODES                                                                                  \
	"[node a]\naddress=10.0.0.1:7700\nmemory=1G\nvcpus=2\n"                                    \
	"[node b]\naddress=10.0.0.2:7700\nmemory=3G\nvcpus=1\n"

static struct pod_config *read_config(const char *text)
{
	struct pod_config *c;
	char whole[2048], why[512];
	snprintf(whole, sizeof(whole), TWO_NODES "%s", text);
	if (pod_config_parse(whole, "t", &c, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	return c;
}

static void test_reads_devices(void **state)
{
	/* A disk may stand before the node that it names. */
	static const char text[] =
		"[disk root]\nnode = b\nfile = /srv/a b.img\nblock_size = 4096\n"
		"cache = writeback\nserial = S1\n"
		"[disk data]\nnbd = nbd://10.0.0.9/data\nread_only = yes\n"
		"timeout = 5\n"
		"[net lan]\nnode = b\ntap = tap0\nbridge = br0\nmac = 52:54:00:12:34:56\n"
		"[net out]\nuser = yes\nforward = 2222:22 udp:10.0.0.1:53:5353\n";
	struct pod_config *c = read_config(text);
	assert_int_equal(c->disk_count, 2);
	assert_string_equal(c->disk[0].file, "/srv/a b.img");
	assert_int_equal(c->disk[0].node, 1);
	assert_int_equal(c->disk[0].block_bytes, 4096);
	assert_int_equal(c->disk[0].cache, DISK_CACHE_WRITEBACK);
	assert_string_equal(c->disk[0].serial, "S1");
	assert_false(c->disk[0].read_only);
	assert_int_equal(c->disk[1].node, 0);
	assert_string_equal(c->disk[1].nbd, "nbd://10.0.0.9/data");
	assert_string_equal(c->disk[1].serial, "data");
	assert_true(c->disk[1].read_only);
	assert_int_equal(c->disk[1].timeout_s, 5);
	assert_int_equal(c->disk[1].cache, DISK_CACHE_NONE);
	assert_int_equal(c->net_count, 2);
	assert_string_equal(c->net[0].tap, "tap0");
	assert_string_equal(c->net[0].bridge, "br0");
	assert_int_equal(c->net[0].node, 1);
	assert_int_equal(c->net[0].mac[5], 0x56);
	const struct net_config *out = &c->net[1];
	assert_true(out->user);
	assert_int_equal(out->mac[0], 0x52);
	assert_int_equal(out->forward_count, 2);
	assert_string_equal(out->forward[0].host, "127.0.0.1");
	assert_int_equal(out->forward[0].host_port, 2222);
	assert_int_equal(out->forward[0].guest_port, 22);
	assert_false(out->forward[0].udp);
	assert_string_equal(out->forward[1].host, "10.0.0.1");
	assert_int_equal(out->forward[1].guest_port, 5353);
	assert_true(out->forward[1].udp);
	free(c);
}

static void test_digest(void **state)
{
	static const struct {
		const char *text;
		bool same; /* as the first */
	} pods[] = {
		{ "[disk d]\nfile=/x\n[net n]\ntap=t0\n", true },
		{ "[disk d]\nfile=/y\ncache=writeback\n[net n]\ntap=t1\n", true },
		{ "[disk d]\nfile=/x\nnode=b\n[net n]\ntap=t0\n", false },
		{ "[disk d]\nfile=/x\n", false },
		{ "[disk e]\nfile=/x\n[net n]\ntap=t0\n", false },
		{ "[disk d]\nfile=/x\nread_only=yes\n[net n]\ntap=t0\n", false },
		{ "[disk d]\nfile=/x\n[net n]\nuser=yes\n", false },
		{ "[disk d]\nfile=/x\n[net n]\ntap=t0\nmac=52:54:00:00:00:01\n", false },
	};
	uint64_t first = 0;
	for (size_t i = 0; i < sizeof(pods) / sizeof(pods[0]); i++) {
		struct pod_config *c = read_config(pods[i].text);
		uint64_t digest = pod_config_digest(c);
		free(c);
		if (i == 0)
			first = digest;
		if ((digest == first) != pods[i].same)
			fail_msg("%s", pods[i].text);
	}
}

static const struct {
	const char *text, *line;
} bad[] = {
	{ "[disk]\nfile=/x\n",
	  "[disk]: unknown section; there are [pod], [node NAME], [disk NAME]" },
	{ "[disk a/b]\nfile=/x\n", "[disk a/b]: use letters" },
	{ "[disk d]\nfile=/x\n[disk d]\nfile=/y\n", "[disk d] is there twice" },
	{ "[net n]\nuser=yes\n[net n]\nuser=yes\n", "[net n] is there twice" },
	{ "[disk d]\n", "[disk d] is nothing yet; write file = PATH, or nbd = URI" },
	{ "[disk d]\nfile=/x\nnbd=nbd://h\n", "write one of the two" },
	{ "[disk d]\nfile=/x\nfile=/y\n", "line 11: [disk d] file = /y: file is said twice" },
	{ "[disk d]\nfile=\n", "must be a path" },
	{ "[disk d]\npath=/x\n", "has no key 'path'; it knows node, file, nbd" },
	{ "[disk d]\nfile=/x\nnode=c\n",
	  "[disk d] node = c: the pod has no such node; its first is a" },
	{ "[disk d]\nfile=/x\nread_only=maybe\n", "must be yes or no" },
	{ "[disk d]\nfile=/x\nblock_size=1000\n", "must be 512, 1024, 2048 or 4096" },
	{ "[disk d]\nfile=/x\nblock_size=0\n", "must be 512, 1024, 2048 or 4096" },
	{ "[disk d]\nfile=/x\ncache=yes\n", "must be none, writeback or writethrough" },
	{ "[disk d]\nfile=/x\nserial=123456789012345678901\n", "fewer than 21 bytes" },
	{ "[disk d]\nfile=/x\nserial=a b\n", "without spaces" },
	{ "[disk d]\nfile=/x\ntimeout=-1\n", "must be 0 to 86400 seconds" },
	{ "[disk d]\nnbd=http://x\n", "is no NBD URI; write for example nbd://" },
	{ "[disk d]\nnbd=nbd://x\ncache=writethrough\n", "not with nbd" },
	{ "[disk d]\nfile=/x\n[disk e]\nfile=/x\n",
	  "disks d and e are both /x: each needs its own, or both are read-only" },
	{ "[disk d]\nnbd=nbd://x\n[disk e]\nnbd=nbd://x\nnode=b\n", "are both nbd://x" },
	{ "[net n]\n", "[net n] is nothing yet; write tap = NAME, or user = yes" },
	{ "[net n]\ntap=t0\nuser=yes\n", "write one of the two" },
	{ "[net n]\ntap=t0\nforward=1:2\n", "which only a user's network does" },
	{ "[net n]\ntap=a-name-that-is-long\n", "of fewer than 16 bytes" },
	{ "[net n]\ntap=a:b\n", "must be the name of a tap device" },
	{ "[net n]\ntap=..\n", "must be the name of a tap device" },
	{ "[net n]\ntap=t\nbridge=a-name-that-is-long\n",
	  "bridge = a-name-that-is-long: must be the name of a bridge, of fewer than 16 bytes" },
	{ "[net n]\ntap=t\nbridge=\n", "must be the name of a bridge" },
	{ "[net n]\nbridge=br0\n", "[net n] is nothing yet; write tap = NAME, or user = yes" },
	{ "[net n]\nuser=yes\nbridge=br0\n",
	  "[net n] has a bridge and no tap; write tap = NAME, which is made and put on bridge br0" },
	{ "[net n]\nuser=yes\nforward=\n", "for example 2222:22" },
	{ "[net n]\nuser=yes\nforward=22\n", "'22' must be PORT:GUESTPORT" },
	{ "[net n]\nuser=yes\nforward=0:22\n", "'0:22' must be" },
	{ "[net n]\nuser=yes\nforward=22:70000\n", "'22:70000' must be" },
	{ "[net n]\nuser=yes\nforward=host:1:2\n", "'host:1:2' must be" },
	{ "[net n]\nuser=yes\nforward=1:2:3:4\n", "'1:2:3:4' must be" },
	{ "[net n]\nuser=yes\nforward=1:2 1:3\n", "forwards port 1 twice" },
	{ "[net n]\nuser=yes\nmac=52:54:00:12:34\n", "must be six bytes" },
	{ "[net n]\nuser=yes\nmac=01:54:00:12:34:56\n", "of no single card" },
	{ "[net n]\nuser=yes\nmac=00:00:00:00:00:00\n", "of no single card" },
	{ "[net n]\ntap=t\nmac=52:54:00:00:00:01\n[net m]\ntap=u\nmac=52:54:00:00:00:01\n",
	  "cards n and m have the same mac" },
	{ "[net n]\ntap=t\n[net m]\ntap=t\n", "cards n and m have the same tap" },
	{ "[net n]\nuser=yes\nforward=1:2\n[net m]\nuser=yes\nforward=1:3\n",
	  "cards n and m have the same forwarded port" },
};

static void test_refuses(void **state)
{
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct pod_config *c;
		char text[2048], why[512];
		snprintf(text, sizeof(text), TWO_NODES "%s", bad[i].text);
		if (pod_config_parse(text, "t", &c, why, sizeof(why)) != -EINVAL)
			fail_msg("taken: %s", bad[i].text);
		if (!strstr(why, bad[i].line))
			fail_msg("%s gives '%s'", bad[i].text, why);
	}
}

/* What differs in one way only is no clash. */
static void test_no_clash(void **state)
{
	free(read_config("[disk d]\nfile=/x\n[disk e]\nfile=/x\nnode=b\n"));
	free(read_config("[disk d]\nfile=/x\nread_only=yes\n[disk e]\nfile=/x\nread_only=yes\n"));
	free(read_config("[net n]\ntap=t\n[net m]\ntap=t\nnode=b\n"));
	free(read_config("[net n]\nuser=yes\nforward=1:2 udp:1:2 10.0.0.1:1:2\n[net m]\n"
			 "user=yes\nnode=b\nforward=1:2\n"));
}

static void test_many(void **state)
{
	struct pod_config *c = read_config("");
	struct disk_config disk;
	struct net_config net;
	char why[512] = "", words[64];
	for (int i = 0; i < DISKS_MAX + 1; i++) {
		snprintf(words, sizeof(words), "/x%d,ro", i);
		assert_int_equal(disk_config_parse(words, "d", &disk, why, sizeof(why)), 0);
		assert_int_equal(pod_config_add_disk(c, &disk, why, sizeof(why)),
				 i < DISKS_MAX ? 0 : -EINVAL);
	}
	assert_non_null(strstr(why, "at most 16 disks"));
	for (int i = 0; i < NETS_MAX + 1; i++) {
		snprintf(words, sizeof(words), "tap=t%d,mac=52:54:00:00:00:%02x", i, i);
		assert_int_equal(net_config_parse(words, "n", &net, why, sizeof(why)), 0);
		assert_int_equal(pod_config_add_net(c, &net, why, sizeof(why)),
				 i < NETS_MAX ? 0 : -EINVAL);
	}
	assert_non_null(strstr(why, "at most 8 network cards"));
	free(c);
}

static void test_words(void **state)
{
	struct disk_config disk;
	struct net_config net;
	char why[512];
	assert_int_equal(disk_config_parse("a.img,ro,serial=x", "d", &disk, why, sizeof(why)), 0);
	assert_string_equal(disk.file, "a.img");
	assert_true(disk.read_only);
	assert_string_equal(disk.serial, "x");
	assert_int_equal(disk_config_parse("nbd+unix:///?socket=/s", "d", &disk, why, sizeof(why)),
			 0);
	assert_string_equal(disk.nbd, "nbd+unix:///?socket=/s");
	assert_int_equal(
		net_config_parse("user,forward=2222:22,forward=80:80", "n", &net, why, sizeof(why)),
		0);
	assert_int_equal(net.forward_count, 2);
	assert_int_equal(net_config_parse("none", "n", &net, why, sizeof(why)), -ENODEV);

	assert_int_equal(disk_config_parse("", "d", &disk, why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, "--disk : must be a path"));
	assert_int_equal(disk_config_parse("a,rw", "d", &disk, why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, "--disk a,rw: 'rw' is no option; there are ro and node"));
	assert_int_equal(disk_config_parse("a,ro,", "d", &disk, why, sizeof(why)), -EINVAL);
	assert_int_equal(disk_config_parse("a,ro,ro", "d", &disk, why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, "read_only is said twice"));
	assert_int_equal(net_config_parse("bridge", "n", &net, why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, "--net bridge: must begin with user or tap=NAME, or be none"));
	assert_int_equal(net_config_parse("user,forward=x", "n", &net, why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, "forward=x: 'x' must be PORT:GUESTPORT"));
	assert_int_equal(net_config_parse("user,tap=t", "n", &net, why, sizeof(why)), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reads_devices), cmocka_unit_test(test_digest),
		cmocka_unit_test(test_refuses),	      cmocka_unit_test(test_no_clash),
		cmocka_unit_test(test_many),	      cmocka_unit_test(test_words),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
