/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading what the user says about disks and cards (device_config.h). Whatever is wrong is said in
 * one line, with what to write instead.
 *
 * Tested by tests/node/test_device_config.c.
 */
#include "node/device_config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_S     60u
#define TIMEOUT_S_MAX 86400u
#define WORDS_MAX     1024

struct answer {
	char *why;
	size_t size;
};

__attribute__((format(printf, 2, 3))) static int refuse(const struct answer *a, const char *format,
							...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(a->why, a->size, format, args);
	va_end(args);
	return -EINVAL;
}

static int take_text(const struct answer *a, const char *value, char *text, size_t size,
		     const char *what)
{
	if (!value[0] || strlen(value) >= size)
		return refuse(a, "must be %s of fewer than %zu bytes", what, size);
	strcpy(text, value);
	return 0;
}

static int take_number(const char *value, uint32_t max, uint32_t *ret_number)
{
	char *end;
	if (!isdigit((unsigned char)value[0]))
		return -EINVAL;
	errno = 0;
	unsigned long number = strtoul(value, &end, 10);
	if (*end || errno || number > max)
		return -EINVAL;
	*ret_number = (uint32_t)number;
	return 0;
}

static int take_yes(const struct answer *a, const char *value, bool *ret_yes)
{
	if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
		return refuse(a, "must be yes or no");
	*ret_yes = value[0] == 'y';
	return 0;
}

static int take_block(const struct answer *a, const char *value, uint32_t *ret_bytes)
{
	uint32_t bytes;
	if (take_number(value, 4096, &bytes) < 0 || bytes < 512 || (bytes & (bytes - 1)))
		return refuse(a, "must be 512, 1024, 2048 or 4096");
	*ret_bytes = bytes;
	return 0;
}

static int take_cache(const struct answer *a, const char *value, enum disk_cache *ret_cache)
{
	static const char *const names[] = { [DISK_CACHE_NONE] = "none",
					     [DISK_CACHE_WRITEBACK] = "writeback",
					     [DISK_CACHE_WRITETHROUGH] = "writethrough" };
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(value, names[i]) == 0) {
			*ret_cache = (enum disk_cache)i;
			return 0;
		}
	return refuse(a, "must be none, writeback or writethrough");
}

static int take_serial(const struct answer *a, const char *value, char *serial)
{
	for (const char *c = value; *c; c++)
		if (!isgraph((unsigned char)*c))
			return refuse(a, "must be letters, digits and signs, without spaces");
	return take_text(a, value, serial, DISK_SERIAL_MAX + 1, "a text");
}

struct key {
	const char *name;
	int (*set)(const struct answer *a, const char *value, void *device);
	bool again; /* it may be said several times */
};

/* 0; -ENOENT; -EINVAL, with `why`. `said` has a bit for each key. */
static int set_key(const struct key *keys, void *device, uint32_t *said, const char *key,
		   const char *value, const struct answer *a)
{
	uint32_t i = 0;
	while (keys[i].name && strcmp(keys[i].name, key) != 0)
		i++;
	if (!keys[i].name)
		return -ENOENT;
	if ((*said & (1u << i)) && !keys[i].again)
		return refuse(a, "%s is said twice", key);
	*said |= 1u << i;
	return keys[i].set(a, value, device);
}

static int set_disk_node(const struct answer *a, const char *value, void *device)
{
	struct disk_config *disk = device;
	return take_text(a, value, disk->node_name, sizeof(disk->node_name), "a node's name");
}

static int set_disk_file(const struct answer *a, const char *value, void *device)
{
	struct disk_config *disk = device;
	return take_text(a, value, disk->file, sizeof(disk->file), "a path");
}

static int set_disk_nbd(const struct answer *a, const char *value, void *device)
{
	struct disk_config *disk = device;
	return take_text(a, value, disk->nbd, sizeof(disk->nbd), "an NBD URI");
}

static int set_disk_read_only(const struct answer *a, const char *value, void *device)
{
	struct disk_config *disk = device;
	return take_yes(a, value, &disk->read_only);
}

static int set_disk_serial(const struct answer *a, const char *value, void *device)
{
	struct disk_config *disk = device;
	return take_serial(a, value, disk->serial);
}

static int set_disk_block_size(const struct answer *a, const char *value, void *device)
{
	struct disk_config *disk = device;
	return take_block(a, value, &disk->block_bytes);
}

static int set_disk_cache(const struct answer *a, const char *value, void *device)
{
	struct disk_config *disk = device;
	return take_cache(a, value, &disk->cache);
}

static int set_disk_timeout(const struct answer *a, const char *value, void *device)
{
	struct disk_config *disk = device;
	return take_number(value, TIMEOUT_S_MAX, &disk->timeout_s) < 0
		       ? refuse(a, "must be 0 to %u seconds", TIMEOUT_S_MAX)
		       : 0;
}

static const struct key disk_keys[] = {
	{ "node", set_disk_node, false },
	{ "file", set_disk_file, false },
	{ "nbd", set_disk_nbd, false },
	{ "read_only", set_disk_read_only, false },
	{ "serial", set_disk_serial, false },
	{ "block_size", set_disk_block_size, false },
	{ "cache", set_disk_cache, false },
	{ "timeout", set_disk_timeout, false },
	{ .name = NULL },
};
const char disk_config_keys[] = "node, file, nbd, read_only, serial, block_size, cache and timeout";

int disk_config_set(struct disk_config *disk, const char *key, const char *value, char *why,
		    size_t why_size)
{
	const struct answer a = { why, why_size };
	return set_key(disk_keys, disk, &disk->said, key, value, &a);
}

void disk_config_begin(struct disk_config *disk, const char *name)
{
	*disk = (struct disk_config){ .timeout_s = TIMEOUT_S };
	snprintf(disk->name, sizeof(disk->name), "%s", name);
}

static bool is_uri(const char *text)
{
	static const char *const schemes[] = { "nbd://", "nbd+unix://", "nbds://", "nbds+unix://" };
	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
		if (strncmp(text, schemes[i], strlen(schemes[i])) == 0)
			return true;
	return false;
}

int disk_config_finish(struct disk_config *disk, char *why, size_t why_size)
{
	const struct answer a = { why, why_size };
	if (!disk->file[0] && !disk->nbd[0])
		return refuse(&a, "is nothing yet; write file = PATH, or nbd = URI");
	if (disk->file[0] && disk->nbd[0])
		return refuse(&a, "is a file and an NBD server's; write one of the two");
	if (disk->nbd[0] && !is_uri(disk->nbd))
		return refuse(&a,
			      "nbd = %s: is no NBD URI; write for example nbd://10.0.0.9/NAME or "
			      "nbd+unix:///NAME?socket=/run/nbd.sock",
			      disk->nbd);
	if (disk->nbd[0] && disk->cache == DISK_CACHE_WRITETHROUGH)
		return refuse(&a,
			      "cache = writethrough: not with nbd; the server says what is safe");
	if (!disk->serial[0])
		snprintf(disk->serial, sizeof(disk->serial), "%.*s", (int)DISK_SERIAL_MAX,
			 disk->name);
	return 0;
}

/* "52:54:00:12:34:56": of one card, and not all zeros. */
static int take_mac(const struct answer *a, const char *value, uint8_t mac[6])
{
	uint8_t byte[6], any = 0;
	const char *at = value;
	for (int i = 0; i < 6; i++) {
		if (!isxdigit((unsigned char)at[0]) || !isxdigit((unsigned char)at[1]) ||
		    at[2] != (i < 5 ? ':' : '\0'))
			return refuse(a, "must be six bytes, for example 52:54:00:12:34:56");
		byte[i] = (uint8_t)strtoul(at, NULL, 16);
		any |= byte[i];
		at += 3;
	}
	if ((byte[0] & 1) || !any)
		return refuse(a, "is the address of no single card; write for example "
				 "52:54:00:12:34:56");
	memcpy(mac, byte, sizeof(byte));
	return 0;
}

static bool take_port(const char *text, uint16_t *ret_port)
{
	uint32_t number;
	if (take_number(text, 65535, &number) < 0 || !number)
		return false;
	*ret_port = (uint16_t)number;
	return true;
}

/* "[tcp:|udp:][HOST:]PORT:GUESTPORT", which is written to. */
static bool read_forward(char *text, struct net_forward *f)
{
	char *part[3];
	size_t count = 0;
	struct in_addr address;
	*f = (struct net_forward){ .host = "127.0.0.1" };
	if (strncmp(text, "udp:", 4) == 0 || strncmp(text, "tcp:", 4) == 0) {
		f->udp = text[0] == 'u';
		text += 4;
	}
	for (char *rest = text; rest;) {
		if (count == 3)
			return false;
		part[count++] = strsep(&rest, ":");
	}
	if (count == 3) {
		if (strlen(part[0]) >= sizeof(f->host) ||
		    inet_pton(AF_INET, part[0], &address) != 1)
			return false;
		strcpy(f->host, part[0]);
	}
	return count >= 2 && take_port(part[count - 2], &f->host_port) &&
	       take_port(part[count - 1], &f->guest_port);
}

static int take_forwards(const struct answer *a, const char *value, struct net_config *net)
{
	char text[DEVICE_PATH_MAX];
	if (strlen(value) >= sizeof(text))
		return refuse(a, "is too long");
	strcpy(text, value);
	for (char *rest = text, *word; (word = strsep(&rest, " \t"));) {
		char copy[64];
		if (!word[0])
			continue;
		if (net->forward_count == FORWARDS_MAX)
			return refuse(a, "a card has at most %d forwarded ports", FORWARDS_MAX);
		snprintf(copy, sizeof(copy), "%s", word);
		if (strlen(word) >= sizeof(copy) ||
		    !read_forward(copy, &net->forward[net->forward_count]))
			return refuse(
				a,
				"'%s' must be PORT:GUESTPORT, with udp: or an IPv4 address of "
				"the host in front, as 2222:22 or udp:10.0.0.1:53:53",
				word);
		net->forward_count++;
	}
	return net->forward_count ? 0 : refuse(a, "must be PORT:GUESTPORT, for example 2222:22");
}

/* Names that Linux has for none of its devices are refused, too (dev_valid_name()). */
static int take_interface(const struct answer *a, const char *value, const char *what, char *name)
{
	if (!value[0] || strlen(value) >= TAP_NAME_MAX || strpbrk(value, "/ \t%:") ||
	    strcmp(value, ".") == 0 || strcmp(value, "..") == 0)
		return refuse(a, "must be the name of a %s, of fewer than %d bytes", what,
			      TAP_NAME_MAX);
	strcpy(name, value);
	return 0;
}

static int set_net_node(const struct answer *a, const char *value, void *device)
{
	struct net_config *net = device;
	return take_text(a, value, net->node_name, sizeof(net->node_name), "a node's name");
}

static int set_net_tap(const struct answer *a, const char *value, void *device)
{
	struct net_config *net = device;
	return take_interface(a, value, "tap device", net->tap);
}

static int set_net_bridge(const struct answer *a, const char *value, void *device)
{
	struct net_config *net = device;
	return take_interface(a, value, "bridge", net->bridge);
}

static int set_net_user(const struct answer *a, const char *value, void *device)
{
	struct net_config *net = device;
	return take_yes(a, value, &net->user);
}

static int set_net_forward(const struct answer *a, const char *value, void *device)
{
	return take_forwards(a, value, device);
}

static int set_net_mac(const struct answer *a, const char *value, void *device)
{
	struct net_config *net = device;
	return take_mac(a, value, net->mac);
}

static const struct key net_keys[] = {
	{ "node", set_net_node, false },
	{ "tap", set_net_tap, false },
	{ "bridge", set_net_bridge, false },
	{ "user", set_net_user, false },
	{ "forward", set_net_forward, true },
	{ "mac", set_net_mac, false },
	{ .name = NULL },
};
const char net_config_keys[] = "node, tap, bridge, user, forward and mac";

int net_config_set(struct net_config *net, const char *key, const char *value, char *why,
		   size_t why_size)
{
	const struct answer a = { why, why_size };
	return set_key(net_keys, net, &net->said, key, value, &a);
}

void net_config_begin(struct net_config *net, const char *name)
{
	*net = (struct net_config){ 0 };
	snprintf(net->name, sizeof(net->name), "%s", name);
}

int net_config_finish(struct net_config *net, char *why, size_t why_size)
{
	const struct answer a = { why, why_size };
	if (!net->user && !net->tap[0])
		return refuse(&a, "is nothing yet; write tap = NAME, or user = yes");
	if (net->user && net->tap[0])
		return refuse(&a, "is a tap and a user's network; write one of the two");
	if (net->bridge[0] && !net->tap[0])
		return refuse(&a,
			      "has a bridge and no tap; write tap = NAME, which is made and put on "
			      "bridge %s",
			      net->bridge);
	if (net->forward_count && !net->user)
		return refuse(&a,
			      "forwards ports, which only a user's network does: with a tap the "
			      "guest is on the network itself");
	for (uint32_t i = 0; i < net->forward_count; i++)
		for (uint32_t j = 0; j < i; j++)
			if (net->forward[i].host_port == net->forward[j].host_port &&
			    net->forward[i].udp == net->forward[j].udp &&
			    strcmp(net->forward[i].host, net->forward[j].host) == 0)
				return refuse(&a, "forwards port %u twice; take another for one",
					      net->forward[i].host_port);
	return 0;
}

/* A word of the command line behind the first; `ro` is short for read_only=yes. */
static int take_word(void *device, bool is_disk, char *word, const struct answer *a)
{
	char *equals = strchr(word, '='), detail[256] = "";
	int r = -ENOENT;
	if (is_disk && strcmp(word, "ro") == 0)
		return disk_config_set(device, "read_only", "yes", a->why, a->size);
	if (equals) {
		*equals = '\0';
		r = is_disk ? disk_config_set(device, word, equals + 1, detail, sizeof(detail))
			    : net_config_set(device, word, equals + 1, detail, sizeof(detail));
	}
	if (r == -ENOENT)
		return refuse(a, "'%s' is no option; there are %s%s, as KEY=VALUE", word,
			      is_disk ? "ro and " : "",
			      is_disk ? disk_config_keys : net_config_keys);
	return r < 0 ? refuse(a, "%s=%s: %s", word, equals + 1, detail) : 0;
}

static int take_words(void *device, bool is_disk, char *rest, const struct answer *a)
{
	int r = 0;
	while (!r && rest)
		r = take_word(device, is_disk, strsep(&rest, ","), a);
	return r;
}

int disk_config_parse(const char *words, const char *name, struct disk_config *ret_disk, char *why,
		      size_t why_size)
{
	const struct answer a = { why, why_size };
	struct disk_config disk;
	char text[WORDS_MAX], *rest = text, detail[256];
	if (strlen(words) >= sizeof(text))
		return refuse(&a, "--disk: is too long");
	strcpy(text, words);
	const char *what = strsep(&rest, ",");
	disk_config_begin(&disk, name);
	int r = disk_config_set(&disk, is_uri(what) ? "nbd" : "file", what, detail, sizeof(detail));
	const struct answer inner = { detail, sizeof(detail) };
	if (!r)
		r = take_words(&disk, true, rest, &inner);
	if (!r)
		r = disk_config_finish(&disk, detail, sizeof(detail));
	if (r < 0)
		return refuse(&a, "--disk %s: %s", words, detail);
	*ret_disk = disk;
	return 0;
}

int net_config_parse(const char *words, const char *name, struct net_config *ret_net, char *why,
		     size_t why_size)
{
	const struct answer a = { why, why_size };
	struct net_config net;
	char text[WORDS_MAX], *rest = text, detail[256];
	if (strcmp(words, "none") == 0)
		return -ENODEV;
	if (strlen(words) >= sizeof(text))
		return refuse(&a, "--net: is too long");
	strcpy(text, words);
	net_config_begin(&net, name);
	char *what = strsep(&rest, ",");
	const struct answer inner = { detail, sizeof(detail) };
	int r = 0;
	if (strcmp(what, "user") == 0)
		net.user = true;
	else if (strncmp(what, "tap=", 4) == 0)
		r = take_word(&net, false, what, &inner);
	else
		r = refuse(&inner, "must begin with user or tap=NAME, or be none");
	if (!r)
		r = take_words(&net, false, rest, &inner);
	if (!r)
		r = net_config_finish(&net, detail, sizeof(detail));
	if (r < 0)
		return refuse(&a, "--net %s: %s", words, detail);
	*ret_net = net;
	return 0;
}
