/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the pod's configuration (pod_config.h).
 *
 * The file is read by lines, each of which is nothing (blank, a comment), a section or a key; what
 * is none of them is refused, and so is what is there twice: nothing is dropped without a word. A
 * table of keys says what each key is and where it goes. Every error is one line that names file,
 * line, section and key. What the file leaves out gets its default after parsing, and what only
 * makes sense for the whole pod (sums, duplicates) is checked last.
 *
 * Tested by tests/node/test_pod_config.c, fuzzed by tests/fuzz/fuzz_pod_config.c.
 */
#include "node/pod_config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine/memory_map.h"
#include "node/digest.h"
#include "node/pod_devices.h"

#define CONFIG_BYTES_MAX (1u << 20)
#define KEYS_MAX	 12

struct parse {
	struct pod_config *config;
	const char *source;
	char *why;
	size_t why_size;
	int error;

	unsigned int line;	  /* the one being read, from 1; 0: all have been */
	bool commented;		  /* it has a comment */
	const struct key *keys;	  /* of the section that the line is in; NULL: none yet */
	struct node_config *node; /* of that section; NULL: [pod], or another */
	struct disk_config *disk; /* likewise; then there are no `keys` */
	struct net_config *net;
	unsigned int said[KEYS_MAX]; /* where the section has each key; 0: it has not */
	unsigned int pod_line, node_line[NODES_MAX]; /* where sections begin */
};

__attribute__((format(printf, 2, 3))) static int refuse(struct parse *p, const char *format, ...)
{
	if (p->error)
		return 0;
	p->error = -EINVAL;
	int used = p->line ? snprintf(p->why, p->why_size, "%s: line %u: ", p->source, p->line)
			   : snprintf(p->why, p->why_size, "%s: ", p->source);
	if (used < 0 || (size_t)used >= p->why_size)
		return 0;
	va_list args;
	va_start(args, format);
	vsnprintf(p->why + used, p->why_size - (size_t)used, format, args);
	va_end(args);
	return 0;
}

int size_parse(const char *text, uint64_t *ret_bytes)
{
	static const char units[] = "KMGT";

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	char *end;
	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	if (errno)
		return -ERANGE;
	unsigned int shift = 0;
	if (*end) {
		const char *unit = strchr(units, toupper((unsigned char)*end));
		if (!unit)
			return -EINVAL;
		shift = 10u * (unsigned int)(unit - units + 1);
		end++;
		if (*end == 'i')
			end++;
		if (*end == 'B' || *end == 'b')
			end++;
		if (*end)
			return -EINVAL;
	}
	if (value > (GPA_LIMIT >> shift))
		return -ERANGE;
	*ret_bytes = (uint64_t)value << shift;
	return 0;
}

static int number_parse(const char *text, uint32_t max, uint32_t *ret_number)
{
	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	char *end;
	unsigned long value = strtoul(text, &end, 10);
	if (*end || value > max)
		return -EINVAL;
	*ret_number = (uint32_t)value;
	return 0;
}

static bool name_is_good(const char *name, size_t size)
{
	size_t length = strlen(name);
	if (!length || length >= size)
		return false;
	for (size_t i = 0; i < length; i++)
		if (!isalnum((unsigned char)name[i]) && !strchr("-_.", name[i]))
			return false;
	return true;
}

/*
 * "host:port" or "[v6]:port", of which *ret_host becomes the host. What a name means is found out
 * when it is used.
 */
static bool address_split(const char *address, char ret_host[ADDRESS_MAX])
{
	const char *colon = strrchr(address, ':');
	uint32_t port;
	if (strlen(address) >= ADDRESS_MAX || !colon || number_parse(colon + 1, 65535, &port) < 0 ||
	    !port)
		return false;
	size_t size = (size_t)(colon - address);
	if (address[0] == '[' && size > 2 && colon[-1] == ']') {
		address++;
		size -= 2;
	} else if (memchr(address, ':', size) || memchr(address, '[', size)) {
		return false;
	}
	if (!size)
		return false;
	memcpy(ret_host, address, size);
	ret_host[size] = '\0';
	return true;
}

/* An address that is of no host, or of many: nobody can be reached there. */
static bool host_is_one(char *host)
{
	struct in_addr v4;
	struct in6_addr v6;
	if (inet_pton(AF_INET, host, &v4) == 1) {
		uint32_t bits = ntohl(v4.s_addr);
		return bits != INADDR_ANY && bits != INADDR_BROADCAST && !IN_MULTICAST(bits);
	}
	host[strcspn(host, "%")] = '\0';
	return inet_pton(AF_INET6, host, &v6) != 1 ||
	       (!IN6_IS_ADDR_UNSPECIFIED(&v6) && !IN6_IS_ADDR_MULTICAST(&v6));
}

struct key {
	const char *name;
	int (*set)(struct parse *p, const char *value);
};

static int set_pod_name(struct parse *p, const char *value)
{
	struct pod_config *c = p->config;
	if (!name_is_good(value, sizeof(c->name)))
		return refuse(p,
			      "[pod] name = %s: use letters, digits, '-', '_' and '.', fewer than "
			      "%d of them",
			      value, POD_NAME_MAX);
	strcpy(c->name, value);
	return 1;
}

static int set_pod_memory(struct parse *p, const char *value)
{
	if (size_parse(value, &p->config->memory))
		return refuse(p, "[pod] memory = %s: not a size; write for example 4G or 512M",
			      value);
	return 1;
}

static int set_pod_shards(struct parse *p, const char *value)
{
	struct pod_config *c = p->config;
	if (number_parse(value, SHARDS_MAX, &c->shard_count) || !c->shard_count)
		return refuse(p, "[pod] shards = %s: must be 1 to %d", value, SHARDS_MAX);
	return 1;
}

static int set_pod_nodes_max(struct parse *p, const char *value)
{
	struct pod_config *c = p->config;
	if (number_parse(value, NODES_MAX, &c->number_count) || !c->number_count)
		return refuse(p, "[pod] nodes_max = %s: must be 1 to %d", value, NODES_MAX);
	return 1;
}

static int set_pod_spin(struct parse *p, const char *value)
{
	if (strcmp(value, "auto") != 0 && strcmp(value, "off") != 0)
		return refuse(p, "[pod] spin = %s: must be auto or off", value);
	p->config->spin = value[0] == 'a';
	return 1;
}

static int set_pod_numa(struct parse *p, const char *value)
{
	if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
		return refuse(p, "[pod] numa = %s: must be yes or no", value);
	p->config->numa = value[0] == 'y';
	return 1;
}

static int set_pod_encrypt(struct parse *p, const char *value)
{
	if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
		return refuse(p, "[pod] encrypt = %s: must be yes or no", value);
	p->config->encrypt = value[0] == 'y';
	p->config->must_encrypt = p->config->encrypt;
	return 1;
}

static int set_pod_insecure(struct parse *p, const char *value)
{
	if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
		return refuse(p, "[pod] insecure = %s: must be yes or no", value);
	p->config->insecure = value[0] == 'y';
	return 1;
}

/* "pages, vcpus, base, learned or pinned" */
void pod_config_policies(char *text, size_t size)
{
	text[0] = '\0';
	for (int i = 0; i < PLACEMENT_POLICIES; i++) {
		size_t used = strlen(text);
		snprintf(text + used, size - used, "%s%s",
			 i == 0			       ? ""
			 : i + 1 == PLACEMENT_POLICIES ? " or "
						       : ", ",
			 placement_policy_name((enum placement_policy)i));
	}
}

static int set_pod_policy(struct parse *p, const char *value)
{
	char names[128];
	if (placement_policy_parse(value, &p->config->policy) == 0)
		return 1;
	pod_config_policies(names, sizeof(names));
	return refuse(p, "[pod] policy = %s: must be %s", value, names);
}

static int set_pod_secret(struct parse *p, const char *value)
{
	struct pod_config *c = p->config;
	size_t size = strlen(value);
	/* It might be the secret's end, which then nobody would miss. */
	if (p->commented)
		return refuse(p,
			      "[pod] secret: what is behind a space and '#' or ';' is a comment: "
			      "put that on a line of its own, or the secret into a secret_file");
	if (size < POD_SECRET_MIN || size > POD_SECRET_MAX)
		return refuse(p, "[pod] secret: must be %d to %d characters", POD_SECRET_MIN,
			      POD_SECRET_MAX);
	c->secret_size = (uint32_t)size;
	memcpy(c->secret, value, size);
	return 1;
}

static int set_pod_secret_file(struct parse *p, const char *value)
{
	if (!value[0] || strlen(value) >= sizeof(p->config->secret_file))
		return refuse(p, "[pod] secret_file = %s: must be a path of fewer than %zu bytes",
			      value, sizeof(p->config->secret_file));
	strcpy(p->config->secret_file, value);
	return 1;
}

static int set_pod_policy_state(struct parse *p, const char *value)
{
	if (!value[0] || strlen(value) >= sizeof(p->config->policy_state))
		return refuse(p, "[pod] policy_state = %s: must be a path of fewer than %zu bytes",
			      value, sizeof(p->config->policy_state));
	strcpy(p->config->policy_state, value);
	return 1;
}

static int set_node_address(struct parse *p, const char *value)
{
	char host[ADDRESS_MAX];
	if (!address_split(value, host))
		return refuse(p,
			      "[node %s] address = %s: write HOST:PORT, for example 10.0.0.1:7700",
			      p->node->name, value);
	if (!host_is_one(host))
		return refuse(
			p,
			"[node %s] address = %s: no address of one host; give the one at which "
			"the other nodes reach this node",
			p->node->name, value);
	strcpy(p->node->address, value);
	return 1;
}

static int set_node_memory(struct parse *p, const char *value)
{
	struct node_config *node = p->node;
	if (size_parse(value, &node->memory) || node->memory < CHUNK_BYTES)
		return refuse(
			p,
			"[node %s] memory = %s: not a size of 2M or more; write for example 4G "
			"or 512M",
			node->name, value);
	node->memory &= ~(uint64_t)(CHUNK_BYTES - 1);
	return 1;
}

static int set_node_vcpus(struct parse *p, const char *value)
{
	if (number_parse(value, VCPUS_MAX, &p->node->vcpu_count) ||
	    p->node->vcpu_count > NODE_VCPUS_MAX)
		return refuse(p, "[node %s] vcpus = %s: must be 0 to %u on a node, and %d in a pod",
			      p->node->name, value, NODE_VCPUS_MAX, VCPUS_MAX);
	return 1;
}

static int set_node_cores(struct parse *p, const char *value)
{
	if (number_parse(value, CORES_MAX, &p->node->cores))
		return refuse(p, "[node %s] cores = %s: must be 0 to %d", p->node->name, value,
			      CORES_MAX);
	return 1;
}

static const struct key pod_keys[KEYS_MAX] = {
	{ "name", set_pod_name },	  { "memory", set_pod_memory },
	{ "shards", set_pod_shards },	  { "spin", set_pod_spin },
	{ "secret", set_pod_secret },	  { "secret_file", set_pod_secret_file },
	{ "policy", set_pod_policy },	  { "policy_state", set_pod_policy_state },
	{ "numa", set_pod_numa },	  { "encrypt", set_pod_encrypt },
	{ "insecure", set_pod_insecure }, { "nodes_max", set_pod_nodes_max },
};

static const struct key node_keys[KEYS_MAX] = {
	{ "address", set_node_address },
	{ "memory", set_node_memory },
	{ "vcpus", set_node_vcpus },
	{ "cores", set_node_cores },
};

static int begin_node(struct parse *p, const char *name)
{
	struct pod_config *c = p->config;
	uint16_t number = pod_config_find(c, name);
	if (number != NODE_NONE)
		return refuse(p, "[node %s] is there twice: it begins in line %u, too", name,
			      p->node_line[number]);
	if (!name_is_good(name, NODE_NAME_MAX))
		return refuse(p,
			      "[node %s]: use letters, digits, '-', '_' and '.' for a node's name, "
			      "fewer than %d of them",
			      name, NODE_NAME_MAX);
	if (c->node_count == NODES_MAX)
		return refuse(p, "[node %s]: a pod has at most %d nodes", name, NODES_MAX);
	p->node_line[c->node_count] = p->line;
	p->node = &c->node[c->node_count++];
	strcpy(p->node->name, name);
	p->node->vcpu_count = UINT32_MAX; /* not said yet */
	p->node->cores = CORES_OF_HOST;
	p->keys = node_keys;
	return 1;
}

/* Disks and cards have names of their own kinds. */
static int check_device_name(struct parse *p, const char *kind, const char *name)
{
	const struct pod_config *c = p->config;
	if (!name_is_good(name, DEVICE_NAME_MAX))
		return refuse(p,
			      "[%s %s]: use letters, digits, '-', '_' and '.' for its name, fewer "
			      "than %d of them",
			      kind, name, DEVICE_NAME_MAX);
	for (uint32_t i = 0; kind[0] == 'd' && i < c->disk_count; i++)
		if (strcmp(c->disk[i].name, name) == 0)
			return refuse(p, "[disk %s] is there twice", name);
	for (uint32_t i = 0; kind[0] == 'n' && i < c->net_count; i++)
		if (strcmp(c->net[i].name, name) == 0)
			return refuse(p, "[net %s] is there twice", name);
	return 1;
}

static int begin_disk(struct parse *p, const char *name)
{
	struct pod_config *c = p->config;
	if (!check_device_name(p, "disk", name))
		return 0;
	if (c->disk_count == DISKS_MAX)
		return refuse(p, "[disk %s]: a pod has at most %d disks", name, DISKS_MAX);
	p->disk = &c->disk[c->disk_count++];
	disk_config_begin(p->disk, name);
	return 1;
}

static int begin_net(struct parse *p, const char *name)
{
	struct pod_config *c = p->config;
	if (!check_device_name(p, "net", name))
		return 0;
	if (c->net_count == NETS_MAX)
		return refuse(p, "[net %s]: a pod has at most %d network cards", name, NETS_MAX);
	p->net = &c->net[c->net_count++];
	net_config_begin(p->net, name);
	return 1;
}

static int begin_section(struct parse *p, const char *section)
{
	static const struct {
		const char *kind;
		int (*begin)(struct parse *p, const char *name);
	} named[] = { { "node", begin_node }, { "disk", begin_disk }, { "net", begin_net } };
	size_t kind_size = strcspn(section, " \t");
	memset(p->said, 0, sizeof(p->said));
	p->node = NULL;
	p->disk = NULL;
	p->net = NULL;
	p->keys = NULL;
	for (size_t i = 0; section[kind_size] && i < sizeof(named) / sizeof(named[0]); i++)
		if (strncmp(section, named[i].kind, kind_size) == 0 && !named[i].kind[kind_size])
			return named[i].begin(p, section + kind_size +
							 strspn(section + kind_size, " \t"));
	if (strcmp(section, "pod") != 0)
		return refuse(p,
			      "[%s]: unknown section; there are [pod], [node NAME], [disk NAME] "
			      "and [net NAME]",
			      section);
	if (p->pod_line)
		return refuse(p, "[pod] is there twice: it begins in line %u, too", p->pod_line);
	p->pod_line = p->line;
	p->keys = pod_keys;
	return 1;
}

/* "name, memory, shards and spin" */
static void list_keys(const struct key *keys, char *text, size_t size)
{
	text[0] = '\0';
	for (size_t i = 0; i < KEYS_MAX && keys[i].name; i++) {
		bool last = i + 1 == KEYS_MAX || !keys[i + 1].name;
		size_t used = strlen(text);
		snprintf(text + used, size - used, "%s%s",
			 i == 0 ? ""
			 : last ? " and "
				: ", ",
			 keys[i].name);
	}
}

static int set_device_key(struct parse *p, const char *name, const char *value)
{
	char why[256];
	const char *kind = p->disk ? "disk" : "net",
		   *device = p->disk ? p->disk->name : p->net->name;
	int r = p->disk ? disk_config_set(p->disk, name, value, why, sizeof(why))
			: net_config_set(p->net, name, value, why, sizeof(why));
	if (r == -ENOENT)
		return refuse(p, "[%s %s] has no key '%s'; it knows %s", kind, device, name,
			      p->disk ? disk_config_keys : net_config_keys);
	if (r < 0)
		return refuse(p, "[%s %s] %s = %s: %s", kind, device, name, value, why);
	return 1;
}

static int set_key(struct parse *p, const char *name, const char *value)
{
	char known[192], section[NODE_NAME_MAX + 8];
	size_t i = 0;
	if (p->disk || p->net)
		return set_device_key(p, name, value);
	if (!p->keys)
		return refuse(p, "'%s' stands before the first section, [pod] or [node NAME]",
			      name);
	snprintf(section, sizeof(section), "%s%s", p->node ? "node " : "pod",
		 p->node ? p->node->name : "");
	while (i < KEYS_MAX && p->keys[i].name && strcmp(p->keys[i].name, name) != 0)
		i++;
	if (i == KEYS_MAX || !p->keys[i].name) {
		list_keys(p->keys, known, sizeof(known));
		return refuse(p, "[%s] has no key '%s'; it knows %s", section, name, known);
	}
	if (p->said[i])
		return refuse(p, "[%s] %s is said twice, in line %u, too", section, name,
			      p->said[i]);
	p->said[i] = p->line;
	return p->keys[i].set(p, value);
}

/* Without the white space at both ends. */
static char *trim(char *text)
{
	size_t size;
	text += strspn(text, " \t\r");
	size = strlen(text);
	while (size && strchr(" \t\r", text[size - 1]))
		text[--size] = '\0';
	return text;
}

/* A comment begins with ';' or '#' at a line's beginning or behind white space. */
static bool cut_comment(char *line)
{
	for (char *at = line; (at = strpbrk(at, ";#")); at++)
		if (at == line || at[-1] == ' ' || at[-1] == '\t') {
			*at = '\0';
			return true;
		}
	return false;
}

static int parse_line(struct parse *p, char *line)
{
	p->commented = cut_comment(line);
	line = trim(line);
	size_t size = strlen(line);
	char *equals = strchr(line, '=');
	if (!size)
		return 1;
	if (line[0] == '[' && line[size - 1] == ']') {
		line[size - 1] = '\0';
		return begin_section(p, trim(line + 1));
	}
	if (line[0] == '[' || !equals || equals == line)
		return refuse(p, "is neither [SECTION] nor KEY = VALUE");
	*equals = '\0';
	return set_key(p, trim(line), trim(equals + 1));
}

/* text[size] is 0; it is cut into pieces. */
static void parse_text(struct parse *p, char *text, size_t size)
{
	static const char mark[] = "\xef\xbb\xbf"; /* some editors begin UTF-8 with it */
	char *line = text, *end = text + size;
	if (strncmp(text, mark, strlen(mark)) == 0)
		line += strlen(mark);
	while (!p->error && line < end) {
		char *next = memchr(line, '\n', (size_t)(end - line));
		char *stop = next ? next : end;
		*stop = '\0';
		p->line++;
		if (strlen(line) != (size_t)(stop - line))
			refuse(p, "has a zero byte: this is no text");
		else
			parse_line(p, line);
		line = stop + 1;
	}
	p->line = 0;
}

static int check_nodes(struct parse *p)
{
	struct pod_config *c = p->config;
	for (uint32_t i = 0; i < c->node_count; i++) {
		struct node_config *node = &c->node[i];
		if (!node->address[0])
			return refuse(p, "[node %s] has no address; write address = HOST:PORT",
				      node->name);
		if (!node->memory)
			return refuse(p, "[node %s] has no memory; write for example memory = 4G",
				      node->name);
		if (node->vcpu_count == UINT32_MAX)
			return refuse(p, "[node %s] has no vcpus; write for example vcpus = 4",
				      node->name);
		if (node->vcpu_count && !node->cores)
			return refuse(p,
				      "[node %s] cores = 0: vCPUs begin there, and need a core; "
				      "or write vcpus = 0",
				      node->name);
		for (uint32_t j = 0; j < i; j++)
			if (strcmp(c->node[j].address, node->address) == 0)
				return refuse(
					p,
					"nodes %s and %s have the same address %s; each needs "
					"its own",
					c->node[j].name, node->name, node->address);
		node->vcpu_first = c->vcpu_count;
		c->vcpu_count += node->vcpu_count;
	}
	for (uint32_t v = 0, i = 0; v < VCPUS_MAX; v++) {
		while (i < c->node_count && v >= c->node[i].vcpu_first + c->node[i].vcpu_count)
			i++;
		c->vcpu_node[v] = i < c->node_count ? (uint16_t)i : NODE_NONE;
	}
	return 1;
}

static int check_pod(struct parse *p)
{
	struct pod_config *c = p->config;
	uint64_t promised = 0;
	if (!c->node_count)
		return refuse(p, "no nodes; write a section [node NAME] for each");
	if (!check_nodes(p))
		return 0;
	if (!c->number_count)
		c->number_count = c->node_count;
	if (c->number_count < c->node_count)
		return refuse(p,
			      "[pod] nodes_max = %u, but there are %u nodes: it is how many there "
			      "may be with those that join",
			      c->number_count, c->node_count);
	if (!c->vcpu_count)
		return refuse(p, "0 vCPUs; give at least one node vcpus = 1");
	if (c->vcpu_count > VCPUS_MAX)
		return refuse(p, "%u vCPUs; a pod has at most %d", c->vcpu_count, VCPUS_MAX);
	for (uint32_t i = 0; i < c->node_count; i++)
		promised += c->node[i].memory;
	uint64_t most = (promised / 100 * MEMORY_SHARE_PERCENT) & ~(uint64_t)(CHUNK_BYTES - 1);
	if (!c->memory)
		c->memory = most;
	c->memory &= ~(uint64_t)(CHUNK_BYTES - 1);
	if (c->memory > most)
		return refuse(
			p,
			"[pod] memory is %lluM, but the nodes promise %lluM and %u%% of that can "
			"be guest memory: ask for at most %lluM, or promise more",
			(unsigned long long)(c->memory >> 20), (unsigned long long)(promised >> 20),
			MEMORY_SHARE_PERCENT, (unsigned long long)(most >> 20));
	if (c->memory < GUEST_MEMORY_MIN)
		return refuse(
			p,
			"%lluM of guest memory is too little for a guest; give it at least %lluM",
			(unsigned long long)(c->memory >> 20), GUEST_MEMORY_MIN >> 20);
	char why[512];
	return pod_devices_check(c, why, sizeof(why)) < 0 ? refuse(p, "%s", why) : 1;
}

/* Of `text`, which is written to. */
static int parse_all(char *text, size_t size, const char *source, struct pod_config **ret_config,
		     char *why, size_t why_size)
{
	struct parse p = { .source = source, .why = why, .why_size = why_size };
	struct pod_config *config = calloc(1, sizeof(*config));
	if (!config)
		return -ENOMEM;
	strcpy(config->name, "pod");
	config->shard_count = 1;
	config->spin = true;
	config->encrypt = true;
	config->policy = PLACEMENT_POLICY_DEFAULT;
	p.config = config;
	parse_text(&p, text, size);
	if (!p.error)
		check_pod(&p);
	if (p.error) {
		free(config);
		return p.error;
	}
	*ret_config = config;
	return 0;
}

int pod_config_parse(const char *text, const char *source, struct pod_config **ret_config,
		     char *why, size_t why_size)
{
	char *copy = strdup(text);
	if (!copy)
		return -ENOMEM;
	int r = parse_all(copy, strlen(copy), source, ret_config, why, why_size);
	free(copy);
	return r;
}

/* Others of this host than who runs this, and root, may read or change it. */
static bool is_exposed(const struct stat *st)
{
	return (st->st_mode & 077) || (st->st_uid != geteuid() && st->st_uid != 0);
}

/* The secret's file: one line. Others of this host must not read it, or it is none. */
static int read_secret(struct pod_config *config, const char *path, char *why, size_t why_size)
{
	const char *name = config->secret_file;
	char text[POD_SECRET_MAX + 2];
	struct stat st;
	ssize_t got = -1;
	int r = 0, fd;
	if (!name[0])
		return 0;
	fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0 || (got = read(fd, text, sizeof(text))) < 0)
		r = -errno;
	if (fd >= 0)
		close(fd);
	while (got > 0 && (text[got - 1] == '\n' || text[got - 1] == '\r'))
		got--;
	if (r < 0)
		snprintf(why, why_size, "%s: secret_file = %s: %s", path, name, strerror(-r));
	else if (config->secret_size)
		snprintf(why, why_size, "%s: give secret or secret_file, not both", path);
	else if (st.st_uid != geteuid() && st.st_uid != 0)
		snprintf(why, why_size,
			 "%s: secret_file = %s: is another user's, who may change it: chown it",
			 path, name);
	else if (!S_ISREG(st.st_mode) || (st.st_mode & 077))
		snprintf(why, why_size,
			 "%s: secret_file = %s: others than its owner may use it: chmod 600 it",
			 path, name);
	else if (got < POD_SECRET_MIN || got > POD_SECRET_MAX)
		snprintf(why, why_size, "%s: secret_file = %s: must hold %d to %d characters", path,
			 name, POD_SECRET_MIN, POD_SECRET_MAX);
	else {
		memcpy(config->secret, text, (size_t)got);
		config->secret_size = (uint32_t)got;
		explicit_bzero(text, sizeof(text));
		return 0;
	}
	explicit_bzero(text, sizeof(text));
	return r ? r : -EINVAL;
}

int pod_config_read(const char *path, struct pod_config **ret_config, char *why, size_t why_size)
{
	int r = 0;
	char *text = NULL;
	struct stat st;
	FILE *file = NULL;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO would block */
	if (fd < 0 || fstat(fd, &st) < 0)
		r = -errno;
	else if (S_ISREG(st.st_mode) && !(file = fdopen(fd, "r")))
		r = -errno;
	if (!file) {
		snprintf(why, why_size, "%s: %s; give the pod's configuration file", path,
			 r ? strerror(-r) : "is not a file");
		if (fd >= 0)
			close(fd);
		return r ? r : -EINVAL;
	}
	text = calloc(1, CONFIG_BYTES_MAX + 1);
	if (!text) {
		r = -ENOMEM;
		goto out;
	}
	size_t got = fread(text, 1, CONFIG_BYTES_MAX + 1, file);
	if (ferror(file)) {
		r = -EIO;
		snprintf(why, why_size, "%s: cannot be read: %s", path, strerror(errno));
	} else if (got > CONFIG_BYTES_MAX) {
		r = -EFBIG;
		snprintf(why, why_size, "%s: larger than %u bytes: not a pod configuration", path,
			 CONFIG_BYTES_MAX);
	} else {
		struct pod_config *config;
		r = parse_all(text, got, path, &config, why, why_size);
		if (!r) {
			config->secret_exposed = config->secret_size && is_exposed(&st);
			r = read_secret(config, path, why, why_size);
			if (!r && config->must_encrypt && !config->secret_size) {
				snprintf(why, why_size,
					 "%s: encrypt = yes needs a secret of the pod: make one by "
					 "'eagre secret FILE', and give secret_file = FILE",
					 path);
				r = -EINVAL;
			}
			if (!r)
				*ret_config = config;
			else
				free(config);
		}
	}
out:
	free(text);
	fclose(file);
	return r;
}

/* 127.example.org may be anywhere. */
bool pod_config_is_on_loopback(const struct pod_config *config)
{
	for (uint32_t i = 0; i < config->node_count; i++) {
		const char *address = config->node[i].address;
		bool is_ipv4 = address[strspn(address, "0123456789.")] == ':';
		if (!(is_ipv4 && strncmp(address, "127.", 4) == 0) &&
		    strncmp(address, "[::1]:", 6) != 0 && strncmp(address, "localhost:", 10) != 0)
			return false;
	}
	return true;
}

uint64_t pod_config_digest(const struct pod_config *config)
{
	uint64_t numbers[] = { config->memory, config->shard_count, config->node_count,
			       config->policy, config->numa,	    config->number_count };
	uint64_t digest = digest_add(DIGEST_BEGIN, config->name, strlen(config->name) + 1);
	digest = digest_add(digest, numbers, sizeof(numbers));
	for (uint32_t i = 0; i < config->node_count; i++) {
		const struct node_config *node = &config->node[i];
		uint64_t own[] = { node->memory, node->vcpu_count };
		digest = digest_add(digest, node->name, strlen(node->name) + 1);
		digest = digest_add(digest, node->address, strlen(node->address) + 1);
		digest = digest_add(digest, own, sizeof(own));
	}
	return pod_devices_digest(config, digest);
}

char *pod_config_print(const struct pod_config *config)
{
	char *text = NULL;
	size_t size;
	FILE *file = open_memstream(&text, &size);
	if (!file)
		return NULL;
	fprintf(file,
		"[pod]\nname = %s\nmemory = %llu\nshards = %u\nspin = %s\nnuma = %s\npolicy = %s\n"
		"nodes_max = %u\n",
		config->name, (unsigned long long)config->memory, config->shard_count,
		config->spin ? "auto" : "off", config->numa ? "yes" : "no",
		placement_policy_name(config->policy), config->number_count);
	for (uint32_t i = 0; i < config->node_count; i++) {
		const struct node_config *node = &config->node[i];
		fprintf(file, "[node %s]\naddress = %s\nmemory = %llu\nvcpus = %u\n", node->name,
			node->address, (unsigned long long)node->memory, node->vcpu_count);
	}
	if (fclose(file) == 0)
		return text;
	free(text);
	return NULL;
}

uint16_t pod_config_find(const struct pod_config *config, const char *name)
{
	for (uint32_t i = 0; i < config->node_count; i++)
		if (strcmp(config->node[i].name, name) == 0)
			return (uint16_t)i;
	return NODE_NONE;
}

uint16_t pod_config_vcpu_node(const struct pod_config *config, uint32_t number)
{
	return number < VCPUS_MAX ? config->vcpu_node[number] : NODE_NONE;
}
