/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Symbols of the guest's kernel image, sorted by address (guest_symbols.h). Per-CPU symbols, which
 * have small addresses, and those of modules are left out. Tested in tests/cmd/test_top_frame.c.
 */
#include "cmd/guest_symbols.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IMAGE_VA     0xffffffff80000000ull
#define IMAGE_BYTES  0x40000000ull /* KERNEL_IMAGE_SIZE; modules lie above */
#define NAME_MAX_LEN 127
#define SYMBOLS_MAX  2000000u

struct symbol {
	uint64_t gpa;
	char *name;
};

struct guest_symbols {
	struct symbol *symbol;
	size_t count, room;
};

static int by_gpa(const void *a, const void *b)
{
	const struct symbol *x = a, *y = b;
	return (x->gpa > y->gpa) - (x->gpa < y->gpa);
}

static int add(struct guest_symbols *s, uint64_t gpa, const char *name)
{
	if (s->count == SYMBOLS_MAX)
		return -E2BIG;
	if (s->count == s->room) {
		size_t room = s->room ? 2 * s->room : 4096;
		struct symbol *grown = realloc(s->symbol, room * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		s->symbol = grown;
		s->room = room;
	}
	s->symbol[s->count].gpa = gpa;
	s->symbol[s->count].name = strdup(name);
	return s->symbol[s->count].name ? (s->count++, 0) : -ENOMEM;
}

/* "ffffffff81000000 T _text", and from kallsyms "[module]" behind it. Other lines are nothing. */
static int take_line(struct guest_symbols *s, const char *line)
{
	uint64_t va;
	char kind, name[NAME_MAX_LEN + 1], module[2];
	int fields = sscanf(line, "%" SCNx64 " %c %127s %1s", &va, &kind, name, module);
	if (fields != 3 || va < IMAGE_VA || va >= IMAGE_VA + IMAGE_BYTES)
		return 0;
	for (char *c = name; *c; c++)
		if (!isgraph((unsigned char)*c))
			*c = '?';
	return add(s, va - IMAGE_VA, name);
}

int guest_symbols_open(const char *path, struct guest_symbols **ret_symbols, char *ret_error,
		       size_t error_size)
{
	struct guest_symbols *s = calloc(1, sizeof(*s));
	char line[512];
	int error = s ? 0 : -ENOMEM;
	FILE *file = fopen(path, "re");
	if (!file)
		error = -errno;
	while (!error && fgets(line, sizeof(line), file))
		error = take_line(s, line);
	if (!error && ferror(file))
		error = -EIO;
	if (file)
		fclose(file);
	if (error)
		snprintf(ret_error, error_size, "%s: %s", path, strerror(-error));
	else if (s->count < 2) {
		error = -EINVAL;
		snprintf(
			ret_error, error_size,
			"%s: no symbols of a Linux kernel's image; the guest's /proc/kallsyms, as root "
			"reads it, has them",
			path);
	}
	if (error) {
		guest_symbols_free(s);
		return error;
	}
	qsort(s->symbol, s->count, sizeof(*s->symbol), by_gpa);
	*ret_symbols = s;
	return 0;
}

void guest_symbols_free(struct guest_symbols *symbols)
{
	if (!symbols)
		return;
	for (size_t i = 0; i < symbols->count; i++)
		free(symbols->symbol[i].name);
	free(symbols->symbol);
	free(symbols);
}

bool guest_symbols_name(const struct guest_symbols *symbols, uint64_t gpa, char *ret_name,
			size_t size)
{
	size_t low = 0, high = symbols->count;
	/* The last symbol, _end or so, is where the image ends. */
	if (gpa < symbols->symbol[0].gpa || gpa >= symbols->symbol[high - 1].gpa)
		return false;
	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;
		if (symbols->symbol[middle].gpa <= gpa)
			low = middle;
		else
			high = middle;
	}
	while (low && symbols->symbol[low - 1].gpa == symbols->symbol[low].gpa)
		low--; /* of several names the first: the same each time */
	uint64_t inside = gpa - symbols->symbol[low].gpa;
	if (inside)
		snprintf(ret_name, size, "%s+0x%" PRIx64, symbols->symbol[low].name, inside);
	else
		snprintf(ret_name, size, "%s", symbols->symbol[low].name);
	return true;
}
