/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pod's configuration: what is read, what is refused, and that each refusal names the thing.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/pod_config.h"
#include "tests/test.h"

#define TWO_NODES                                                                                  \
	"[node a]\naddress=10.0.0.1:7700\nmemory=1G\nvcpus=2\n"                                    \
	"[node b]\naddress=10.0.0.2:7700\nmemory=3G\nvcpus=1\n"
/* Gives memory alone. */
#define NODE_C "[node c]\naddress=10.0.0.3:7700\nmemory=1G\nvcpus=0\ncores=0\n"

static void test_reads_a_pod(void **state)
{
	struct pod_config *c;
	char why[256];
	assert_int_equal(pod_config_parse("[pod]\nname=demo\nshards=4\nspin=off\n" TWO_NODES, "t",
					  &c, why, sizeof(why)),
			 0);
	assert_string_equal(c->name, "demo");
	assert_int_equal(c->node_count, 2);
	assert_int_equal(c->vcpu_count, 3);
	assert_int_equal(c->node[1].vcpu_first, 2);
	assert_int_equal(c->shard_count, 4);
	assert_false(c->spin);
	assert_int_equal(c->policy, PLACEMENT_LEARNED);
	assert_int_equal(c->node[1].cores, CORES_OF_HOST);
	assert_int_equal(c->memory % CHUNK_BYTES, 0);
	assert_true(c->memory <= (4ull << 30) / 10 * 9 &&
		    c->memory > (4ull << 30) / 10 * 9 - CHUNK_BYTES);
	assert_int_equal(pod_config_find(c, "b"), 1);
	assert_int_equal(pod_config_find(c, "c"), NODE_NONE);
	assert_int_equal(pod_config_vcpu_node(c, 1), 0);
	assert_int_equal(pod_config_vcpu_node(c, 2), 1);
	assert_int_equal(pod_config_vcpu_node(c, 3), NODE_NONE);
	free(c);
}

static void test_reads_policy_and_cores(void **state)
{
	struct pod_config *c, *other;
	char why[256];
	assert_int_equal(pod_config_parse("[pod]\npolicy=base\n" TWO_NODES "cores=3\n" NODE_C, "t",
					  &c, why, sizeof(why)),
			 0);
	assert_int_equal(c->policy, PLACEMENT_BASE);
	assert_int_equal(c->node[0].cores, CORES_OF_HOST);
	assert_int_equal(c->node[1].cores, 3);
	assert_int_equal(c->node[2].cores, 0);
	assert_string_equal(c->policy_state, "");
	/* A node's cores and files are its own affair, the policy is the pod's. */
	assert_int_equal(
		pod_config_parse("[pod]\npolicy=base\npolicy_state=/tmp/s\n" TWO_NODES NODE_C, "t",
				 &other, why, sizeof(why)),
		0);
	assert_string_equal(other->policy_state, "/tmp/s");
	assert_true(pod_config_digest(c) == pod_config_digest(other));
	free(other);
	assert_int_equal(pod_config_parse(TWO_NODES, "t", &other, why, sizeof(why)), 0);
	assert_true(pod_config_digest(c) != pod_config_digest(other));
	free(other);
	free(c);
}

/* What people write, however it is laid out. */
static void test_reads_any_layout(void **state)
{
	static const char text[] = "\xef\xbb\xbf# a comment\r\n"
				   "[pod] ; the pod\r\n"
				   "\tname = demo\t# its name\r\n"
				   "\r\n"
				   "  ; indented\n"
				   "[ node   a ]\n"
				   "    address=[fe80::1%eth0]:7700 ;it has brackets\n"
				   "  memory   =   1G\n"
				   "vcpus=2#not a comment, and no number\n";
	struct pod_config *c = NULL;
	char why[256] = "", *good = strdup(text);
	assert_int_equal(pod_config_parse(text, "t", &c, why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, "line 9: [node a] vcpus = 2#not"));
	*strstr(good, "#not") = '\n';
	memcpy(strstr(good, "not a"), "#so", 3);
	assert_int_equal(pod_config_parse(good, "t", &c, why, sizeof(why)), 0);
	assert_string_equal(c->name, "demo");
	assert_string_equal(c->node[0].name, "a");
	assert_string_equal(c->node[0].address, "[fe80::1%eth0]:7700");
	assert_int_equal(c->node[0].memory, 1u << 30);
	assert_int_equal(c->vcpu_count, 2);
	free(c);
	free(good);
}

static const struct {
	const char *text, *named;
} refused[] = {
	{ "", "no nodes" },
	{ "nonsense\n", "line 1" },
	{ "[pod]\nnmae=x\n" TWO_NODES, "'nmae'" },
	{ "[pod]\nname=a b\n" TWO_NODES, "a b" },
	{ "[pod]\nmemory=lots\n" TWO_NODES, "lots" },
	{ "[pod]\nmemory=4G\n" TWO_NODES, "4096M" },
	{ "[pod]\nmemory=1M\n" TWO_NODES, "too little" },
	{ "[pod]\nshards=0\n" TWO_NODES, "shards" },
	{ "[pod]\nspin=always\n" TWO_NODES, "spin" },
	{ "[pod]\nnuma=maybe\n" TWO_NODES, "numa = maybe: must be yes or no" },
	{ "[pod]\npolicy=best\n" TWO_NODES,
	  "policy = best: must be pages, vcpus, base, learned or pinned" },
	{ "[pod]\npolicy_state=\n" TWO_NODES, "policy_state = : must be a path of fewer than" },
	{ TWO_NODES "cores=x\n", "[node b] cores = x: must be 0 to 4096" },
	{ TWO_NODES "cores=4097\n", "cores" },
	{ TWO_NODES "cores=0\n", "[node b] cores = 0: vCPUs begin there" },
	{ "[pdo]\nname=x\n" TWO_NODES, "[pdo]" },
	{ "[node a]\naddress=10.0.0.1\nmemory=1G\nvcpus=1\n", "HOST:PORT" },
	{ "[node a]\naddress=10.0.0.1:0\nmemory=1G\nvcpus=1\n", "HOST:PORT" },
	{ "[node a]\naddress=10.0.0.1:70000\nmemory=1G\nvcpus=1\n", "HOST:PORT" },
	{ "[node a]\nmemory=1G\nvcpus=1\n", "no address" },
	{ "[node a]\naddress=h:1\nvcpus=1\n", "no memory" },
	{ "[node a]\naddress=h:1\nmemory=1G\n", "no vcpus" },
	{ "[node a]\naddress=h:1\nmemory=1G\nvcpus=0\n", "0 vCPUs" },
	{ "[node a]\naddress=h:1\nmemory=1G\nvcpus=513\n", "512" },
	{ "[node a]\naddress=h:1\nmemory=1G\nvcpus=241\n", "0 to 240 on a node" },
	{ "[node a]\naddress=h:1\nmemory=1G\nvcpus=-1\n", "-1" },
	{ "[node a]\naddress=h:1\nmemory=1G\nvcpus=240\n[node b]\naddress=h:2\nmemory=1G\nvcpus=240\n[node c]\naddress=h:3\nmemory=1G\nvcpus=33\n",
	  "513" },
	{ TWO_NODES "[node a]\naddress=10.0.0.3:7700\n", "twice" },
	{ TWO_NODES "[node c]\naddress=10.0.0.1:7700\nmemory=1G\nvcpus=1\n", "same address" },
	{ TWO_NODES "[node a-name-of-sixty-four-bytes-which-is-one-more-than-a-node-can-have-]\n",
	  "fewer than 64" },
	{ TWO_NODES "[node c]\n", "[node c] has no address" },
	{ TWO_NODES "[node c] x\n", "line 9: is neither" },
	{ TWO_NODES "[node c\n", "line 9: is neither" },
	{ TWO_NODES "= 3\n", "line 9: is neither" },
	{ TWO_NODES "vcpus: 3\n", "line 9: is neither" },
	{ "name=x\n" TWO_NODES, "line 1: 'name' stands before" },
	{ "[pod]\nname=x\nmemory=1G\n  name=y\n" TWO_NODES,
	  "line 4: [pod] name is said twice, in line 2" },
	{ TWO_NODES "vcpus=3\n", "line 9: [node b] vcpus is said twice, in line 8" },
	{ "[pod]\n" TWO_NODES "[pod]\nname=x\n",
	  "line 10: [pod] is there twice: it begins in line 1" },
	{ TWO_NODES "[node a]\n", "line 9: [node a] is there twice: it begins in line 1" },
	/* It does not continue the line above it. */
	{ "[pod]\nname=x\n  y\n" TWO_NODES, "line 3" },
	{ "[pod]\nname=x;y\n" TWO_NODES, "x;y" },
	{ "[node a]\naddress=0.0.0.0:7700\n",
	  "line 2: [node a] address = 0.0.0.0:7700: no address of one" },
	{ "[node a]\naddress=224.0.0.1:7700\n", "no address of one host" },
	{ "[node a]\naddress=239.255.1.2:7700\n", "no address of one host" },
	{ "[node a]\naddress=255.255.255.255:7700\n", "no address of one host" },
	{ "[node a]\naddress=[::]:7700\n", "no address of one host" },
	{ "[node a]\naddress=[ff02::1%lo]:7700\n", "no address of one host" },
	{ "[node a]\naddress=fe80::1:7700\n", "HOST:PORT" },
	{ "[node a]\naddress=[fe80::1]7700\n", "HOST:PORT" },
	{ "[node a]\naddress=:7700\n", "HOST:PORT" },
	{ "[node a]\naddress=[]:7700\n", "HOST:PORT" },
	{ "[node a]\naddress=\n", "HOST:PORT" },
};

static void test_refuses_and_names(void **state)
{
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		struct pod_config *c = NULL;
		char why[256] = "";
		assert_int_equal(
			pod_config_parse(refused[i].text, "pod.conf", &c, why, sizeof(why)),
			-EINVAL);
		assert_null(c);
		if (!strstr(why, refused[i].named) || strncmp(why, "pod.conf: ", 10) != 0)
			fail_msg("case %zu: '%s' does not name '%s'", i, why, refused[i].named);
	}
}

static void test_refuses_files(void **state)
{
	struct pod_config *c = NULL;
	char why[256] = "";
	assert_int_equal(pod_config_read("/nonexistent/pod.conf", &c, why, sizeof(why)), -ENOENT);
	assert_non_null(strstr(why, "/nonexistent/pod.conf"));
	assert_int_equal(pod_config_read("/", &c, why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, "not a file"));

	static const char zero[] = TWO_NODES "\n[pod]\0\nname = lost\n";
	char path[] = "/tmp/test-pod-config.XXXXXX";
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, zero, sizeof(zero) - 1), sizeof(zero) - 1);
	close(fd);
	assert_int_equal(pod_config_read(path, &c, why, sizeof(why)), -EINVAL);
	unlink(path);
	assert_non_null(strstr(why, ": line 10: has a zero byte"));
	assert_null(c);
}

static int read_as(mode_t mode, const char *extra, struct pod_config **ret_config, char *why,
		   size_t size)
{
	char path[] = "/tmp/test_pod_config.XXXXXX";
	int fd = mkstemp(path), r;
	assert_true(fd >= 0);
	assert_int_equal(fchmod(fd, mode), 0);
	dprintf(fd, "[pod]\n%s\n" TWO_NODES, extra);
	close(fd);
	r = pod_config_read(path, ret_config, why, size);
	unlink(path);
	return r;
}

static int read_with(const char *extra, struct pod_config **ret_config, char *why, size_t size)
{
	return read_as(0600, extra, ret_config, why, size);
}

/* In the file, or in one of its own that nobody else may read. */
static void test_secret(void **state)
{
	char path[] = "/tmp/test_pod_secret.XXXXXX", line[128], both[256], why[512];
	struct pod_config *c = NULL;
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "a secret in a file\n", 19), 19);
	assert_int_equal(read_with("secret = 0123456789abcdef", &c, why, sizeof(why)), 0);
	assert_int_equal(c->secret_size, 16);
	assert_memory_equal(c->secret, "0123456789abcdef", 16);
	free(c);
	assert_int_equal(read_with("secret = 0123456789abcdef #more", &c, why, sizeof(why)),
			 -EINVAL);
	assert_non_null(strstr(why, "comment"));
	snprintf(line, sizeof(line), "secret_file = %s", path);
	assert_int_equal(read_with(line, &c, why, sizeof(why)), 0);
	assert_int_equal(c->secret_size, 18);
	assert_memory_equal(c->secret, "a secret in a file", 18);
	free(c);
	c = NULL;
	snprintf(both, sizeof(both), "secret = 0123456789abcdef\n%s", line);
	assert_int_equal(read_with(both, &c, why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, "not both"));
	assert_int_equal(fchmod(fd, 0640), 0);
	assert_int_equal(read_with(line, &c, why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, "chmod 600"));
	assert_int_equal(read_with("secret = short", &c, why, sizeof(why)), -EINVAL);
	assert_int_equal(read_with("secret_file = /nowhere", &c, why, sizeof(why)), -ENOENT);
	assert_int_equal(fchmod(fd, 0600), 0);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(read_with(line, &c, why, sizeof(why)), -EINVAL);
	assert_null(c);
	close(fd);
	unlink(path);
}

/* A secret in a configuration that others may read is said to be one. */
static void test_exposed_secret(void **state)
{
	static const struct {
		mode_t mode;
		const char *extra;
		bool exposed;
	} cases[] = { { 0600, "secret = 0123456789abcdef", false },
		      { 0644, "secret = 0123456789abcdef", true },
		      { 0640, "secret = 0123456789abcdef", true },
		      { 0620, "secret = 0123456789abcdef", true },
		      { 0644, "", false } };
	struct pod_config *c = NULL;
	char why[512];
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(read_as(cases[i].mode, cases[i].extra, &c, why, sizeof(why)), 0);
		assert_int_equal(c->secret_exposed, cases[i].exposed);
		free(c);
	}
}

/* What is not encrypted and leaves the host must be asked for. */
static void test_insecure(void **state)
{
	static const struct {
		const char *lines, *host;
		bool insecure, asked;
	} cases[] = { { "", "127.0.0.1", false, false },
		      { "", "192.0.2.7", true, false },
		      { "insecure = no\n", "192.0.2.7", true, false },
		      { "insecure = yes\n", "192.0.2.7", true, true },
		      { "insecure = yes\n", "[::1]", false, true },
		      { "secret = 0123456789abcdef\n", "192.0.2.7", false, false },
		      { "secret = 0123456789abcdef\nencrypt = no\n", "192.0.2.7", true, false },
		      { "secret = 0123456789abcdef\nencrypt = no\n", "127.1.1.1", false, false } };
	struct pod_config *c = NULL;
	char text[512], why[512];
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		snprintf(text, sizeof(text),
			 "[pod]\n%s[node a]\naddress=127.0.0.1:7700\nmemory=128M\nvcpus=1\n"
			 "[node b]\naddress=%s:7701\nmemory=128M\nvcpus=1\n",
			 cases[i].lines, cases[i].host);
		assert_int_equal(pod_config_parse(text, "test", &c, why, sizeof(why)), 0);
		assert_int_equal(pod_config_is_insecure(c), cases[i].insecure);
		assert_int_equal(c->insecure, cases[i].asked);
		free(c);
		c = NULL;
	}
	/* Nobody but this node is there. */
	assert_int_equal(
		pod_config_parse("[node a]\naddress=192.0.2.7:7700\nmemory=128M\nvcpus=1\n", "test",
				 &c, why, sizeof(why)),
		0);
	assert_false(pod_config_is_insecure(c));
	free(c);
	assert_int_equal(
		pod_config_parse("[pod]\ninsecure = perhaps\n", "test", &c, why, sizeof(why)),
		-EINVAL);
	assert_non_null(strstr(why, "yes or no"));
}

/* Links are encrypted where there is a secret, unless the file says otherwise. */
static void test_encrypt(void **state)
{
	static const char secret[] = "secret = 0123456789abcdef\n";
	static const struct {
		bool secret;
		const char *encrypt;
		bool wanted;
	} cases[] = { { true, "", true },
		      { true, "encrypt = yes", true },
		      { true, "encrypt = no", false },
		      { false, "", false },
		      { false, "encrypt = no", false } };
	struct pod_config *c = NULL;
	char text[128], why[512];
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		snprintf(text, sizeof(text), "%s%s", cases[i].secret ? secret : "",
			 cases[i].encrypt);
		assert_int_equal(read_with(text, &c, why, sizeof(why)), 0);
		assert_int_equal(pod_config_encrypts(c), cases[i].wanted);
		free(c);
		c = NULL;
	}
	assert_int_equal(read_with("encrypt = yes", &c, why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, "needs a secret"));
	snprintf(text, sizeof(text), "%sencrypt = maybe", secret);
	assert_int_equal(read_with(text, &c, why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, "must be yes or no"));
	assert_null(c);
}

static void test_loopback(void **state)
{
	static const struct {
		const char *address;
		bool loopback;
	} cases[] = { { "127.0.0.1:7000", true },
		      { "127.1.2.3:7", true },
		      { "[::1]:7000", true },
		      { "localhost:7000", true },
		      { "localhost.example.org:7000", false },
		      { "127.example.org:7000", false },
		      { "127.0.0.1.nip.io:7000", false },
		      { "10.0.0.1:7000", false },
		      { "[fe80::1%eth0]:7000", false } };
	static struct pod_config config;
	config.node_count = 2;
	strcpy(config.node[0].address, cases[0].address);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		strcpy(config.node[1].address, cases[i].address);
		assert_int_equal(pod_config_is_on_loopback(&config), cases[i].loopback);
	}
}

static void test_sizes(void **state)
{
	uint64_t size = 7;
	assert_int_equal(size_parse("512M", &size), 0);
	assert_int_equal(size, 512ull << 20);
	assert_int_equal(size_parse("3GiB", &size), 0);
	assert_int_equal(size, 3ull << 30);
	assert_int_equal(size_parse("4096", &size), 0);
	assert_int_equal(size, 4096);
	for (size_t i = 0; i < 7; i++) {
		static const char *bad[] = { "", "M", "-1M", "1X", "1MM", "0x10", " 1M" };
		assert_int_equal(size_parse(bad[i], &size), -EINVAL);
	}
	assert_int_equal(size_parse("65T", &size), -ERANGE);
	assert_int_equal(size_parse("18446744073709551616", &size), -ERANGE);
	assert_int_equal(size, 4096);
}

/* Who joins reads what pod_config_print() says, and must agree with those who read the file. */
static void test_joins(void **state)
{
	static const char text[] = "[pod]\nname=tide\nmemory=128M\nshards=2\nspin=off\nnuma=yes\n"
				   "policy=base\nnodes_max=5\n[node a]\naddress=127.0.0.1:1\n"
				   "memory=128M\nvcpus=1\n[node b]\naddress=127.0.0.1:2\n"
				   "memory=256M\nvcpus=0\ncores=2\n";
	struct pod_config *config, *again;
	char why[512], *printed;

	assert_int_equal(pod_config_parse(text, "t", &config, why, sizeof(why)), 0);
	assert_true(pod_config_grows(config));
	assert_int_equal(pod_config_numbers(config), 5);
	printed = pod_config_print(config);
	assert_non_null(printed);
	assert_int_equal(pod_config_parse(printed, "t", &again, why, sizeof(why)), 0);
	assert_int_equal(pod_config_digest(again), pod_config_digest(config));
	assert_int_equal(again->spin, config->spin);
	again->number_count = 6;
	assert_int_not_equal(pod_config_digest(again), pod_config_digest(config));
	again->number_count = 0;
	assert_int_equal(pod_config_numbers(again), 2);
	free(printed);
	free(again);
	free(config);
	for (int i = 0; i < 4; i++) {
		static const char *const bad[] = { "1", "0", "257", "x" };
		char wrong[256];

		snprintf(wrong, sizeof(wrong),
			 "[pod]\nnodes_max=%s\n[node a]\naddress=a:1\nmemory=128M\nvcpus=1\n"
			 "[node b]\naddress=b:1\nmemory=128M\nvcpus=1\n",
			 bad[i]);
		assert_int_equal(pod_config_parse(wrong, "t", &config, why, sizeof(why)), -EINVAL);
		assert_non_null(strstr(why, "nodes_max"));
	}
}

static void test_digest(void **state)
{
	struct pod_config *a, *b;
	char why[256];
	assert_int_equal(pod_config_parse(TWO_NODES, "t", &a, why, sizeof(why)), 0);
	assert_int_equal(pod_config_parse("[pod]\nname=b\n" TWO_NODES, "t", &b, why, sizeof(why)),
			 0);
	assert_true(pod_config_digest(a) == pod_config_digest(a));
	assert_true(pod_config_digest(a) != pod_config_digest(b));
	free(a);
	free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reads_any_layout),
		cmocka_unit_test(test_reads_a_pod),
		cmocka_unit_test(test_reads_policy_and_cores),
		cmocka_unit_test(test_refuses_and_names),
		cmocka_unit_test(test_refuses_files),
		cmocka_unit_test(test_secret),
		cmocka_unit_test(test_exposed_secret),
		cmocka_unit_test(test_insecure),
		cmocka_unit_test(test_encrypt),
		cmocka_unit_test(test_loopback),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_joins),
		cmocka_unit_test(test_digest),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
