/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading boot loaders' configurations (contract: boot_config.h).
 *
 * A grub.cfg is cut into statements: words up to ';', the line's end, or a brace. Each is run if all blocks that it
 * is in are active. A stack of blocks says that:
 *
 *      if C; then A; elif D; then B; else E; fi     BLOCK_IF: active if its condition was the first true one
 *      menuentry T { ... }, submenu T { ... }       BLOCK_ENTRY, BLOCK_MENU
 *      function F { ... }, while, for ... done      BLOCK_SKIP: never active
 *
 * All is bounded: what is too long is cut off or left out, and a configuration that comes to nothing then is
 * refused with a line.
 *
 * Tested in guest/test_boot_config.c, on files that Debian's and Fedora's tools wrote.
 */
#include "guest/boot_config.h"

#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENTRIES_MAX   128u
#define VARIABLES_MAX 128u
#define WORD_MAX      64u
#define VALUE_MAX     1024u
#define WORDS_MAX     64u
#define STATEMENT_MAX (BOOT_OPTIONS_MAX + 1024u)
#define DEPTH_MAX     16u
#define NO_MENU	      0xffffu

struct variable {
	char name[WORD_MAX], value[VALUE_MAX];
};

/* An entry or a submenu, in the order of the file. */
struct item {
	bool is_menu;
	unsigned int menu;   /* the submenu that it is in; NO_MENU: the first one */
	unsigned int number; /* in there, from 0 */
	char id[BOOT_TITLE_MAX];
	struct boot_entry entry;
};

enum block_kind { BLOCK_IF, BLOCK_ENTRY, BLOCK_MENU, BLOCK_SKIP };

struct block {
	enum block_kind kind;
	bool active, taken; /* IF: taken: one of its conditions was true */
	unsigned int menu;  /* ENTRY, MENU: where things were put before */
};

struct grub {
	const struct boot_files *files;
	const char *path;	    /* of the configuration */
	char folder[BOOT_PATH_MAX]; /* it is in */
	struct variable variable[VARIABLES_MAX];
	unsigned int variable_count;
	struct item item[ENTRIES_MAX];
	unsigned int item_count;
	struct block block[DEPTH_MAX];
	unsigned int depth, lost_depth; /* lost: blocks that the stack had no room for */
	unsigned int menu;		/* where entries go now */
	struct item *open;		/* the entry whose body this is */
	char text[BOOT_FILE_MAX];
	char more[BOOT_FILE_MAX]; /* of a second file */
};

/* One statement's words: text in `bytes`, one behind the other. */
struct words {
	unsigned int count, used;
	char *word[WORDS_MAX];
	char bytes[STATEMENT_MAX];
	char end; /* what ended it: '\n', ';', '{', '}', 0: the text's end */
};

/* ---- variables -------------------------------------------------------------------------------- */

static const char *get(const struct grub *grub, const char *name)
{
	for (unsigned int i = 0; i < grub->variable_count; i++)
		if (strcmp(grub->variable[i].name, name) == 0)
			return grub->variable[i].value;
	return "";
}

static void set(struct grub *grub, const char *name, const char *value)
{
	unsigned int i = 0;
	if (strlen(name) >= WORD_MAX)
		return;
	while (i < grub->variable_count && strcmp(grub->variable[i].name, name) != 0)
		i++;
	if (i == VARIABLES_MAX)
		return;
	if (i == grub->variable_count) {
		strcpy(grub->variable[i].name, name);
		grub->variable_count++;
	}
	snprintf(grub->variable[i].value, VALUE_MAX, "%s", value);
}

/* NAME=VALUE. False: it is no such word. */
static bool assign(struct grub *grub, const char *word)
{
	char name[WORD_MAX];
	const char *equals = strchr(word, '=');
	size_t length = equals ? (size_t)(equals - word) : 0;
	if (!length || length >= sizeof(name))
		return false;
	for (size_t i = 0; i < length; i++)
		if (!isalnum((unsigned char)word[i]) && word[i] != '_')
			return false;
	memcpy(name, word, length);
	name[length] = '\0';
	set(grub, name, equals + 1);
	return true;
}

/* ---- words ------------------------------------------------------------------------------------ */

static void put(struct words *words, char c)
{
	if (words->used + 1 < sizeof(words->bytes))
		words->bytes[words->used++] = c;
}

/* A variable's value; `split`: blanks in it part words, as outside of quotes. Returns where its name ends. */
static const char *expand(const struct grub *grub, const char *at, const char *end,
			  const char **ret_value)
{
	char name[WORD_MAX];
	size_t length = 0;
	bool braces = at < end && *at == '{';
	if (braces)
		at++;
	while (at < end &&
	       (isalnum((unsigned char)*at) || *at == '_' || (length == 0 && *at == '?'))) {
		if (length + 1 < sizeof(name))
			name[length++] = *at;
		at++;
	}
	name[length] = '\0';
	if (braces && at < end && *at == '}')
		at++;
	*ret_value = get(grub, name);
	return at;
}

struct lexer {
	const struct grub *grub;
	const char *at, *end;
	struct words *words;
	bool open; /* a word has begun */
};

static void begin_word(struct lexer *l)
{
	if (l->open || l->words->count == WORDS_MAX)
		return;
	l->words->word[l->words->count++] = l->words->bytes + l->words->used;
	l->open = true;
}

static void end_word(struct lexer *l)
{
	if (l->open)
		put(l->words, '\0');
	l->open = false;
}

static void put_expanded(struct lexer *l, bool quoted)
{
	const char *value;
	l->at = expand(l->grub, l->at, l->end, &value);
	for (; *value; value++) {
		if (!quoted && isspace((unsigned char)*value)) {
			end_word(l);
		} else {
			begin_word(l);
			put(l->words, *value);
		}
	}
}

static void take_quoted(struct lexer *l, char quote)
{
	begin_word(l);
	while (l->at < l->end && *l->at != quote) {
		char c = *l->at++;
		if (quote == '"' && c == '$') {
			put_expanded(l, true);
			continue;
		}
		if (quote == '"' && c == '\\' && l->at < l->end && strchr("$\"\\\n", *l->at))
			c = *l->at++;
		put(l->words, c);
	}
	if (l->at < l->end)
		l->at++;
}

/* The next statement's words. Returns where the one behind it begins. */
static const char *next_statement(const struct grub *grub, const char *at, const char *end,
				  struct words *words)
{
	struct lexer l = { .grub = grub, .at = at, .end = end, .words = words };
	words->count = words->used = 0;
	words->end = '\0';
	while (l.at < end) {
		char c = *l.at++;
		if (c == '\\' && l.at < end) {
			if (*l.at == '\n')
				l.at++;
			else {
				begin_word(&l);
				put(words, *l.at++);
			}
		} else if (c == '\'' || c == '"') {
			take_quoted(&l, c);
		} else if (c == '$') {
			put_expanded(&l, false);
		} else if (c == '#' && !l.open) {
			while (l.at < end && *l.at != '\n')
				l.at++;
		} else if (c == '\n' || c == ';' || ((c == '{' || c == '}') && !l.open)) {
			words->end = c;
			break;
		} else if (isspace((unsigned char)c)) {
			end_word(&l);
		} else {
			begin_word(&l);
			put(words, c);
		}
	}
	end_word(&l);
	words->bytes[sizeof(words->bytes) - 1] = '\0';
	return l.at;
}

/* ---- conditions ------------------------------------------------------------------------------- */

/* "(hd0,gpt2)/vmlinuz" and "$root/vmlinuz" are paths of the file system that this is about. */
static const char *without_device(const char *path)
{
	const char *close = *path == '(' ? strchr(path, ')') : NULL;
	return close ? close + 1 : path;
}

static bool file_is_there(struct grub *grub, const char *path, bool empty_too)
{
	char byte;
	long got = grub->files->read(grub->files->ctx, without_device(path), &byte, 1);
	return got > 0 || (got == 0 && empty_too);
}

static bool test_one(struct grub *grub, char **word, unsigned int count)
{
	bool negate = false, result = false;
	while (count && strcmp(word[0], "!") == 0) {
		negate = !negate;
		word++;
		count--;
	}
	if (count == 1)
		result = word[0][0] != '\0';
	else if (count == 2 && strcmp(word[0], "-n") == 0)
		result = word[1][0] != '\0';
	else if (count == 2 && strcmp(word[0], "-z") == 0)
		result = word[1][0] == '\0';
	else if (count == 2 && word[0][0] == '-' && strchr("sefd", word[0][1]))
		result = file_is_there(grub, word[1], word[0][1] != 's');
	else if (count == 3 && (strcmp(word[1], "=") == 0 || strcmp(word[1], "==") == 0))
		result = strcmp(word[0], word[2]) == 0;
	else if (count == 3 && strcmp(word[1], "!=") == 0)
		result = strcmp(word[0], word[2]) != 0;
	else if (count == 3 && strcmp(word[1], "-eq") == 0)
		result = atol(word[0]) == atol(word[2]);
	else if (count == 3 && strcmp(word[1], "-ne") == 0)
		result = atol(word[0]) != atol(word[2]);
	else if (count == 3 && strcmp(word[1], "-ge") == 0)
		result = atol(word[0]) >= atol(word[2]);
	else if (count == 3 && strcmp(word[1], "-gt") == 0)
		result = atol(word[0]) > atol(word[2]);
	else if (count == 3 && strcmp(word[1], "-le") == 0)
		result = atol(word[0]) <= atol(word[2]);
	else if (count == 3 && strcmp(word[1], "-lt") == 0)
		result = atol(word[0]) < atol(word[2]);
	return result != negate;
}

/* -a binds closer than -o. */
static bool test_all(struct grub *grub, char **word, unsigned int count)
{
	bool any = false, all = true;
	unsigned int first = 0;
	for (unsigned int i = 0; i <= count; i++) {
		bool is_or = i == count || strcmp(word[i], "-o") == 0;
		if (!is_or && strcmp(word[i], "-a") != 0)
			continue;
		all = test_one(grub, word + first, i - first) && all;
		first = i + 1;
		if (is_or) {
			any = any || all;
			all = true;
		}
	}
	return any;
}

/* Of other commands those are taken to succeed that do so in front of a screen and without a user. */
static bool condition(struct grub *grub, char **word, unsigned int count)
{
	static const char *const succeed[] = { "true",	 "search", "load_env", "loadfont",
					       "insmod", "set",	   "sleep" };
	if (!count)
		return false;
	if (strcmp(word[0], "!") == 0)
		return !condition(grub, word + 1, count - 1);
	if (strcmp(word[0], "[") == 0)
		return test_all(grub, word + 1, count - 1 - (strcmp(word[count - 1], "]") == 0));
	if (strcmp(word[0], "test") == 0)
		return test_all(grub, word + 1, count - 1);
	for (size_t i = 0; i < sizeof(succeed) / sizeof(succeed[0]); i++)
		if (strcmp(word[0], succeed[i]) == 0)
			return true;
	return false;
}

/* ---- Boot Loader Specification ---------------------------------------------------------------- */

/* Versions in names: digits count as numbers. */
static int compare_versions(const char *a, const char *b)
{
	while (*a && *b) {
		if (isdigit((unsigned char)*a) && isdigit((unsigned char)*b)) {
			size_t n, m;
			while (*a == '0')
				a++;
			while (*b == '0')
				b++;
			n = strspn(a, "0123456789");
			m = strspn(b, "0123456789");
			if (n != m)
				return n < m ? -1 : 1;
			for (size_t i = 0; i < n; i++)
				if (a[i] != b[i])
					return a[i] < b[i] ? -1 : 1;
			a += n;
			b += m;
		} else if (*a != *b) {
			/* "6.1~rc1" is before "6.1". */
			if (*a == '~' || *b == '~')
				return *a == '~' ? -1 : 1;
			return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
		} else {
			a++;
			b++;
		}
	}
	return *a ? 1 : *b ? -1 : 0;
}

__attribute__((format(printf, 3, 4))) static void append(char *text, size_t size,
							 const char *format, ...)
{
	size_t used = strlen(text);
	va_list args;
	va_start(args, format);
	vsnprintf(text + used, size - used, format, args);
	va_end(args);
}

/* Variables of GRUB's in a value, as its blscfg has them: $kernelopts. */
static void append_expanded(const struct grub *grub, char *text, size_t size, const char *value)
{
	const char *end = value + strlen(value), *found;
	if (text[0])
		append(text, size, " ");
	while (value < end) {
		if (*value == '$') {
			value = expand(grub, value + 1, end, &found);
			append(text, size, "%s", found);
		} else {
			append(text, size, "%c", *value++);
		}
	}
}

static void add_initrd(struct boot_entry *entry, const char *path)
{
	if (entry->initrd_count < BOOT_INITRDS_MAX)
		snprintf(entry->initrd[entry->initrd_count++], BOOT_PATH_MAX, "%s",
			 without_device(path));
}

static void bls_line(const struct grub *grub, struct boot_entry *entry, char *line)
{
	char *value = line + strcspn(line, " \t");
	char words[BOOT_PATH_MAX * BOOT_INITRDS_MAX] = "";
	if (*value)
		*value++ = '\0';
	value += strspn(value, " \t");
	if (strcmp(line, "title") == 0) {
		snprintf(entry->title, sizeof(entry->title), "%s", value);
	} else if (strcmp(line, "linux") == 0) {
		snprintf(entry->kernel, sizeof(entry->kernel), "%s", without_device(value));
	} else if (strcmp(line, "options") == 0) {
		append_expanded(grub, entry->options, sizeof(entry->options), value);
	} else if (strcmp(line, "initrd") == 0) {
		char *rest = NULL;
		append_expanded(grub, words, sizeof(words), value);
		for (char *path = strtok_r(words, " \t", &rest); path;
		     path = strtok_r(NULL, " \t", &rest))
			add_initrd(entry, path);
	}
}

static struct item *add_item(struct grub *grub, bool is_menu)
{
	struct item *item = &grub->item[grub->item_count];
	unsigned int number = 0;
	if (grub->item_count == ENTRIES_MAX)
		return NULL;
	for (unsigned int i = 0; i < grub->item_count; i++)
		number += grub->item[i].menu == grub->menu;
	*item = (struct item){ .is_menu = is_menu, .menu = grub->menu, .number = number };
	grub->item_count++;
	return item;
}

static void read_bls_entry(struct grub *grub, const char *folder, const char *name)
{
	struct item *item;
	char path[2 * BOOT_PATH_MAX], *rest = NULL;
	long size;
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	size = grub->files->read(grub->files->ctx, path, grub->more, sizeof(grub->more) - 1);
	item = size > 0 ? add_item(grub, false) : NULL;
	if (!item)
		return;
	grub->more[size] = '\0';
	snprintf(item->id, sizeof(item->id), "%.*s", (int)(strlen(name) - strlen(".conf")), name);
	snprintf(item->entry.from, sizeof(item->entry.from), "%.*s",
		 (int)sizeof(item->entry.from) - 1, path);
	for (char *line = strtok_r(grub->more, "\r\n", &rest); line;
	     line = strtok_r(NULL, "\r\n", &rest))
		bls_line(grub, &item->entry, line + strspn(line, " \t"));
}

static bool is_entry_name(const char *name)
{
	size_t length = strlen(name);
	return length > 5 && strcmp(name + length - 5, ".conf") == 0;
}

/* The newest first, by the files' names; each is looked for among all, for they are few. */
static bool read_bls(struct grub *grub, const char *folder)
{
	char last[BOOT_PATH_MAX] = "", best[BOOT_PATH_MAX], name[BOOT_PATH_MAX];
	const struct boot_files *files = grub->files;
	bool any = false;
	do {
		best[0] = '\0';
		for (unsigned int i = 0; files->list(files->ctx, folder, i, name, sizeof(name));
		     i++)
			if (is_entry_name(name) && (!last[0] || compare_versions(name, last) < 0) &&
			    (!best[0] || compare_versions(name, best) > 0))
				memcpy(best, name, sizeof(best));
		if (best[0])
			read_bls_entry(grub, folder, best);
		any = any || best[0];
		memcpy(last, best, sizeof(last));
	} while (best[0] && grub->item_count < ENTRIES_MAX);
	return any;
}

static bool read_all_bls(struct grub *grub)
{
	return read_bls(grub, "/loader/entries") || read_bls(grub, "/boot/loader/entries");
}

/* ---- commands --------------------------------------------------------------------------------- */

/* grubenv: lines NAME=VALUE in a block that is filled with '#'. */
static void load_env(struct grub *grub)
{
	char path[2 * BOOT_PATH_MAX], *rest = NULL;
	long size;
	snprintf(path, sizeof(path), "%s/grubenv", grub->folder);
	size = grub->files->read(grub->files->ctx, path, grub->more, sizeof(grub->more) - 1);
	if (size <= 0)
		return;
	grub->more[size] = '\0';
	for (char *line = strtok_r(grub->more, "\r\n", &rest); line;
	     line = strtok_r(NULL, "\r\n", &rest))
		if (line[0] != '#' && strncmp(line, "next_entry=", 11) != 0)
			assign(grub, line);
}

static bool is_word(const char *word, const char *a, const char *b, const char *c)
{
	return strcmp(word, a) == 0 || strcmp(word, b) == 0 || strcmp(word, c) == 0;
}

static void run_command(struct grub *grub, char **word, unsigned int count)
{
	struct boot_entry *entry = grub->open ? &grub->open->entry : NULL;
	if (strcmp(word[0], "set") == 0) {
		if (count > 1)
			assign(grub, word[1]);
	} else if (strcmp(word[0], "load_env") == 0) {
		load_env(grub);
	} else if (strcmp(word[0], "blscfg") == 0) {
		read_all_bls(grub);
	} else if (entry && count > 1 && is_word(word[0], "linux", "linuxefi", "linux16")) {
		snprintf(entry->kernel, sizeof(entry->kernel), "%s", without_device(word[1]));
		entry->options[0] = '\0';
		for (unsigned int i = 2; i < count; i++)
			append(entry->options, sizeof(entry->options), "%s%s", i > 2 ? " " : "",
			       word[i]);
	} else if (entry && is_word(word[0], "initrd", "initrdefi", "initrd16")) {
		entry->initrd_count = 0;
		for (unsigned int i = 1; i < count; i++)
			add_initrd(entry, word[i]);
	} else {
		assign(grub, word[0]);
	}
}

static bool is_active(const struct grub *grub)
{
	for (unsigned int i = 0; i < grub->depth; i++)
		if (!grub->block[i].active)
			return false;
	return grub->lost_depth == 0;
}

static void push(struct grub *grub, enum block_kind kind, bool active)
{
	if (grub->depth == DEPTH_MAX) {
		grub->lost_depth++;
		return;
	}
	grub->block[grub->depth++] = (struct block){
		.kind = kind, .active = active, .taken = active, .menu = grub->menu
	};
}

static void pop(struct grub *grub)
{
	struct block *block;
	if (grub->lost_depth) {
		grub->lost_depth--;
		return;
	}
	if (!grub->depth)
		return;
	block = &grub->block[--grub->depth];
	grub->menu = block->menu;
	if (block->kind == BLOCK_ENTRY)
		grub->open = NULL;
}

/* menuentry and submenu: the title is the word that belongs to no option. */
static void begin_item(struct grub *grub, char **word, unsigned int count)
{
	bool is_menu = strcmp(word[0], "submenu") == 0, active = is_active(grub);
	struct item *item = active ? add_item(grub, is_menu) : NULL;
	push(grub, is_menu ? BLOCK_MENU : BLOCK_ENTRY, active);
	if (!item)
		return;
	for (unsigned int i = 1; i < count; i++) {
		if (strcmp(word[i], "--id") == 0 && i + 1 < count)
			snprintf(item->id, sizeof(item->id), "%s", word[++i]);
		else if (strcmp(word[i], "--unrestricted") == 0)
			continue;
		else if (word[i][0] == '-' && word[i][1] == '-')
			i++;
		else if (!item->entry.title[0])
			snprintf(item->entry.title, sizeof(item->entry.title), "%s", word[i]);
	}
	snprintf(item->entry.from, sizeof(item->entry.from), "%s", grub->path);
	if (is_menu)
		grub->menu = (unsigned int)(item - grub->item);
	else
		grub->open = item;
}

static struct block *innermost_if(struct grub *grub)
{
	if (grub->lost_depth || !grub->depth || grub->block[grub->depth - 1].kind != BLOCK_IF)
		return NULL;
	return &grub->block[grub->depth - 1];
}

/* "then", "else" and "do" may have a command behind them in the same statement: how many words are to go. */
static unsigned int run_keyword(struct grub *grub, char **word, unsigned int count)
{
	struct block *block = innermost_if(grub);
	if (strcmp(word[0], "if") == 0) {
		push(grub, BLOCK_IF, is_active(grub) && condition(grub, word + 1, count - 1));
		return count;
	}
	if (strcmp(word[0], "elif") == 0) {
		if (block) {
			block->active = false;
			block->active = !block->taken && condition(grub, word + 1, count - 1);
			block->taken = block->taken || block->active;
		}
		return count;
	}
	if (strcmp(word[0], "else") == 0) {
		if (block)
			block->active = !block->taken;
		return 1;
	}
	if (strcmp(word[0], "then") == 0 || strcmp(word[0], "do") == 0)
		return 1;
	if (strcmp(word[0], "fi") == 0 || strcmp(word[0], "done") == 0) {
		pop(grub);
		return 1;
	}
	if (is_word(word[0], "while", "until", "for")) {
		push(grub, BLOCK_SKIP, false);
		return count;
	}
	return 0;
}

static void run_statement(struct grub *grub, struct words *words)
{
	char **word = words->word;
	unsigned int count = words->count, taken;
	while (count && (taken = run_keyword(grub, word, count)) > 0) {
		word += taken;
		count -= taken;
	}
	if (words->end == '{') {
		if (count && (strcmp(word[0], "menuentry") == 0 || strcmp(word[0], "submenu") == 0))
			begin_item(grub, word, count);
		else
			push(grub, BLOCK_SKIP, false);
	} else if (count && is_active(grub)) {
		run_command(grub, word, count);
	}
	if (words->end == '}')
		pop(grub);
}

/* ---- the default entry ------------------------------------------------------------------------ */

static bool matches(const struct item *item, const char *name, size_t length)
{
	char number[16];
	snprintf(number, sizeof(number), "%u", item->number);
	return (strlen(number) == length && memcmp(number, name, length) == 0) ||
	       (strlen(item->id) == length && memcmp(item->id, name, length) == 0) ||
	       (strlen(item->entry.title) == length &&
		memcmp(item->entry.title, name, length) == 0);
}

/* A path of numbers, ids or titles with '>' between them; a menu stands for its first Linux. NULL: not there. */
static const struct item *find_default(const struct grub *grub, const char *name)
{
	unsigned int menu = NO_MENU;
	const struct item *found = NULL;
	while (*name) {
		size_t length = strcspn(name, ">");
		found = NULL;
		for (unsigned int i = 0; i < grub->item_count && !found; i++)
			if (grub->item[i].menu == menu && matches(&grub->item[i], name, length))
				found = &grub->item[i];
		if (!found)
			return NULL;
		menu = (unsigned int)(found - grub->item);
		name += length + (name[length] == '>');
	}
	return found;
}

static const struct item *first_linux(const struct grub *grub, unsigned int menu)
{
	for (unsigned int i = 0; i < grub->item_count; i++)
		if (grub->item[i].entry.kernel[0] &&
		    (menu == NO_MENU || grub->item[i].menu == menu))
			return &grub->item[i];
	return NULL;
}

static int choose(const struct grub *grub, struct boot_entry *ret_entry, char *why, size_t why_size)
{
	const struct item *item = find_default(grub, get(grub, "default"));
	if (item && item->is_menu)
		item = first_linux(grub, (unsigned int)(item - grub->item));
	if (!item || !item->entry.kernel[0])
		item = first_linux(grub, NO_MENU);
	if (!item) {
		snprintf(why, why_size, "%s starts no Linux", grub->path);
		return -EINVAL;
	}
	*ret_entry = item->entry;
	return 0;
}

static void run_grub(struct grub *grub, size_t size)
{
	static const char *const features[] = {
		"feature_menuentry_id",		"feature_all_video_module",
		"feature_timeout_style",	"feature_default_font_path",
		"feature_platform_search_hint", "feature_200_final"
	};
	const char *at = grub->text, *end = grub->text + size;
	struct words words;
	for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++)
		set(grub, features[i], "y");
	set(grub, "grub_platform", "efi");
	set(grub, "grub_cpu", "x86_64");
	set(grub, "prefix", grub->folder);
	while (at < end) {
		at = next_statement(grub, at, end, &words);
		run_statement(grub, &words);
	}
}

/* A pattern as the shell's, of entries' names with or without ".conf"; the newest that matches is the default. */
static void choose_by_pattern(struct grub *grub, const char *pattern)
{
	char name[BOOT_TITLE_MAX + 8];
	for (unsigned int i = 0; i < grub->item_count; i++) {
		snprintf(name, sizeof(name), "%s.conf", grub->item[i].id);
		if (fnmatch(pattern, grub->item[i].id, 0) != 0 && fnmatch(pattern, name, 0) != 0)
			continue;
		set(grub, "default", grub->item[i].id);
		return;
	}
}

/* systemd-boot's choice, if it names one. */
static void loader_default(struct grub *grub)
{
	char *rest = NULL;
	long size = grub->files->read(grub->files->ctx, "/loader/loader.conf", grub->text,
				      sizeof(grub->text) - 1);
	if (size <= 0)
		return;
	grub->text[size] = '\0';
	for (char *line = strtok_r(grub->text, "\r\n", &rest); line;
	     line = strtok_r(NULL, "\r\n", &rest)) {
		if (strncmp(line, "default", 7) != 0 || !isspace((unsigned char)line[7]))
			continue;
		choose_by_pattern(grub, line + 8 + strspn(line + 8, " \t"));
	}
}

int boot_config_find(const struct boot_files *files, struct boot_entry *ret_entry, char *why,
		     size_t why_size)
{
	static const char *const folders[] = { "/boot/grub", "/grub",	     "/boot/grub2",
					       "/grub2",     "/@/boot/grub", "/@/boot/grub2" };
	struct grub *grub = calloc(1, sizeof(*grub));
	char path[BOOT_PATH_MAX];
	int r = -ENOENT;
	if (!grub)
		return -ENOMEM;
	grub->files = files;
	grub->path = path;
	for (size_t i = 0; r == -ENOENT && i < sizeof(folders) / sizeof(folders[0]); i++) {
		snprintf(path, sizeof(path), "%s/grub.cfg", folders[i]);
		long size = files->read(files->ctx, path, grub->text, sizeof(grub->text));
		if (size <= 0)
			continue;
		snprintf(grub->folder, sizeof(grub->folder), "%s", folders[i]);
		grub->menu = NO_MENU;
		run_grub(grub, (size_t)size);
		r = choose(grub, ret_entry, why, why_size);
	}
	if (r == -ENOENT) {
		grub->menu = NO_MENU;
		snprintf(path, sizeof(path), "loader/entries");
		if (read_all_bls(grub)) {
			loader_default(grub);
			r = choose(grub, ret_entry, why, why_size);
		}
	}
	free(grub);
	return r;
}
