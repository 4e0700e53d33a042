/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the pod's configuration (pod_config.h).
 *
 * inih splits the file; a table of keys says what each key is and where it goes. Every error is one
 * line that names file, section and key. What the file leaves out gets its default after parsing,
 * and what only makes sense for the whole pod (sums, duplicates) is checked last.
 */
#include "node/pod_config.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONFIG_BYTES_MAX (1u << 20)
/* inih cuts a section's name behind 49 bytes without a word: what has so many may have had more. */
#define SECTION_MAX 48

struct parse {
	struct pod_config *config;
	const char *source;
	char *why;
	size_t why_size;
	int error;
};

__attribute__((format(printf, 2, 3))) static int refuse(struct parse *p, const char *format, ...)
{
	if (p->error)
		return 0;
	p->error = -EINVAL;
	int used = snprintf(p->why, p->why_size, "%s: ", p->source);
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

/* "host:port" or "[v6]:port"; what the name means is found out when it is used. */
static bool address_is_good(const char *address)
{
	const char *colon = strrchr(address, ':');
	uint32_t port;
	if (strlen(address) >= ADDRESS_MAX || !colon || colon == address)
		return false;
	return number_parse(colon + 1, 65535, &port) == 0 && port > 0;
}

static int set_pod(struct parse *p, const char *key, const char *value)
{
	struct pod_config *c = p->config;
	if (strcmp(key, "name") == 0) {
		if (!name_is_good(value, sizeof(c->name)))
			return refuse(p,
				      "[pod] name = %s: use letters, digits, '-', '_' and '.', "
				      "fewer than %d of them",
				      value, POD_NAME_MAX);
		strcpy(c->name, value);
	} else if (strcmp(key, "memory") == 0) {
		if (size_parse(value, &c->memory))
			return refuse(p,
				      "[pod] memory = %s: not a size; write for example 4G or 512M",
				      value);
	} else if (strcmp(key, "shards") == 0) {
		if (number_parse(value, SHARDS_MAX, &c->shard_count) || !c->shard_count)
			return refuse(p, "[pod] shards = %s: must be 1 to %d", value, SHARDS_MAX);
	} else if (strcmp(key, "spin") == 0) {
		if (strcmp(value, "auto") != 0 && strcmp(value, "off") != 0)
			return refuse(p, "[pod] spin = %s: must be auto or off", value);
		c->spin = value[0] == 'a';
	} else {
		return refuse(p, "[pod] has no key '%s'; it knows name, memory, shards and spin",
			      key);
	}
	return 1;
}

static struct node_config *node_named(struct parse *p, const char *name)
{
	struct pod_config *c = p->config;
	uint16_t number = pod_config_find(c, name);
	if (number != NODE_NONE)
		return &c->node[number];
	if (!name_is_good(name, NODE_NAME_MAX)) {
		refuse(p, "[node %s]: use letters, digits, '-', '_' and '.' for a node's name",
		       name);
		return NULL;
	}
	if (c->node_count == NODES_MAX) {
		refuse(p, "[node %s]: a pod has at most %d nodes", name, NODES_MAX);
		return NULL;
	}
	struct node_config *node = &c->node[c->node_count++];
	strcpy(node->name, name);
	node->vcpu_count = UINT32_MAX; /* not said yet */
	return node;
}

static int set_node(struct parse *p, const char *name, const char *key, const char *value)
{
	struct node_config *node = node_named(p, name);
	if (!node)
		return 0;
	if (strcmp(key, "address") == 0) {
		if (!address_is_good(value))
			return refuse(p,
				      "[node %s] address = %s: write HOST:PORT, for example "
				      "10.0.0.1:7700",
				      name, value);
		if (node->address[0])
			return refuse(p, "[node %s] address is said twice: is a node listed twice?",
				      name);
		strcpy(node->address, value);
	} else if (strcmp(key, "memory") == 0) {
		if (size_parse(value, &node->memory) || node->memory < CHUNK_BYTES)
			return refuse(p,
				      "[node %s] memory = %s: not a size of 2M or more; write for "
				      "example 4G or 512M",
				      name, value);
		node->memory &= ~(uint64_t)(CHUNK_BYTES - 1);
	} else if (strcmp(key, "vcpus") == 0) {
		if (number_parse(value, VCPUS_MAX, &node->vcpu_count))
			return refuse(p, "[node %s] vcpus = %s: must be 0 to %d", name, value,
				      VCPUS_MAX);
	} else {
		return refuse(p, "[node %s] has no key '%s'; it knows address, memory and vcpus",
			      name, key);
	}
	return 1;
}

static int on_key(void *context, const char *section, const char *key, const char *value)
{
	struct parse *p = context;
	if (p->error)
		return 0;
	if (strlen(section) > SECTION_MAX)
		return refuse(p, "[%s...: give the node a name of %zu bytes at most", section,
			      SECTION_MAX - strlen("node "));
	if (strcmp(section, "pod") == 0)
		return set_pod(p, key, value);
	if (strncmp(section, "node ", 5) == 0)
		return set_node(p, section + 5, key, value);
	return refuse(p, "[%s]: unknown section; there are [pod] and [node NAME]", section);
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
	return 1;
}

int pod_config_parse(const char *text, const char *source, struct pod_config **ret_config,
		     char *why, size_t why_size)
{
	struct pod_config *config = calloc(1, sizeof(*config));
	if (!config)
		return -ENOMEM;
	strcpy(config->name, "pod");
	config->shard_count = 1;
	config->spin = true;

	struct parse p = { .config = config, .source = source, .why = why, .why_size = why_size };
	int line = ini_parse_string(text, on_key, &p);
	if (!p.error && line)
		refuse(&p, "line %d is neither [SECTION] nor KEY = VALUE", line);
	if (!p.error)
		check_pod(&p);
	if (p.error) {
		free(config);
		return p.error;
	}
	*ret_config = config;
	return 0;
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
		r = pod_config_parse(text, path, ret_config, why, why_size);
	}
out:
	free(text);
	fclose(file);
	return r;
}

/* FNV-1a: it tells different files apart, it is no defence against a forger. */
static uint64_t digest_add(uint64_t digest, const void *data, size_t size)
{
	const uint8_t *byte = data;
	for (size_t i = 0; i < size; i++)
		digest = (digest ^ byte[i]) * 0x100000001b3ull;
	return digest;
}

uint64_t pod_config_digest(const struct pod_config *config)
{
	uint64_t numbers[] = { config->memory, config->shard_count, config->node_count };
	uint64_t digest = digest_add(0xcbf29ce484222325ull, config->name, strlen(config->name) + 1);
	digest = digest_add(digest, numbers, sizeof(numbers));
	for (uint32_t i = 0; i < config->node_count; i++) {
		const struct node_config *node = &config->node[i];
		uint64_t own[] = { node->memory, node->vcpu_count };
		digest = digest_add(digest, node->name, strlen(node->name) + 1);
		digest = digest_add(digest, node->address, strlen(node->address) + 1);
		digest = digest_add(digest, own, sizeof(own));
	}
	return digest;
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
	for (uint32_t i = 0; i < config->node_count; i++)
		if (number - config->node[i].vcpu_first < config->node[i].vcpu_count)
			return (uint16_t)i;
	return NODE_NONE;
}
