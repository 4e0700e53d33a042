/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CPU benchmark's items that are other people's programs: zlib, zstd, SQLite and Lua, linked
 * statically, and libc's memcpy and memset as it picks them by CPUID.
 */
#include "bench/cpu_items.h"

#include <lauxlib.h>
#include <lualib.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#define TEXT_BYTES 131072u

static char text[TEXT_BYTES], packed[TEXT_BYTES + 4096], unpacked[TEXT_BYTES];

void cpu_text(char *out, size_t bytes)
{
	static const char *const word[] = { "node",   "page",	   "vcpu",  "stall", "12",
					    "4096",   "0.125",	   "the",   "of",    "guest",
					    "memory", "interrupt", "fault", "7",     "owner",
					    "=",      "{",	   "\n" };
	uint64_t random = 2463534242ull;
	size_t at = 0;

	while (at < bytes) {
		const char *w = word[cpu_random(&random) % (sizeof(word) / sizeof(word[0]))];
		size_t length = strlen(w);

		for (size_t i = 0; i < length && at < bytes; i++)
			out[at++] = w[i];
		if (at < bytes)
			out[at++] = ' ';
	}
}

static void text_prepare(void)
{
	cpu_text(text, sizeof(text));
}

static uint64_t deflate_unit(void)
{
	uLongf packed_bytes = sizeof(packed), bytes = sizeof(unpacked);

	if (compress2((Bytef *)packed, &packed_bytes, (const Bytef *)text, sizeof(text), 6) !=
		    Z_OK ||
	    uncompress((Bytef *)unpacked, &bytes, (const Bytef *)packed, packed_bytes) != Z_OK ||
	    memcmp(text, unpacked, sizeof(text)) != 0)
		cpu_die("zlib");
	return cpu_mix(packed_bytes, crc32(0, (const Bytef *)packed, (uInt)packed_bytes));
}

static uint64_t zstd_unit(void)
{
	size_t packed_bytes = 0;

	for (uint32_t round = 0; round < 4; round++) {
		packed_bytes = ZSTD_compress(packed, sizeof(packed), text, sizeof(text), 3);
		if (ZSTD_isError(packed_bytes) ||
		    ZSTD_decompress(unpacked, sizeof(unpacked), packed, packed_bytes) !=
			    sizeof(text) ||
		    memcmp(text, unpacked, sizeof(text)) != 0)
			cpu_die("zstd");
	}
	return packed_bytes;
}

static int sqlite_row(void *ctx, int columns, char **value, char **name)
{
	uint64_t *sum = ctx;

	(void)name;
	for (int i = 0; i < columns; i++) {
		for (const char *at = value[i] ? value[i] : "-"; *at; at++)
			*sum = cpu_mix(*sum, (uint8_t)*at);
	}
	return 0;
}

static void sqlite_run(sqlite3 *db, const char *statements, uint64_t *sum)
{
	if (sqlite3_exec(db, statements, sqlite_row, sum, NULL) != SQLITE_OK)
		cpu_die(sqlite3_errmsg(db));
}

static uint64_t sqlite_unit(void)
{
	sqlite3 *db = NULL;
	uint64_t sum = 0;

	if (sqlite3_open(":memory:", &db) != SQLITE_OK)
		cpu_die("sqlite3_open");
	sqlite_run(db,
		   "create table t(id integer primary key, k integer, name text);"
		   "with recursive n(i) as (select 1 union all select i + 1 from n where i < 2000)"
		   " insert into t select i, i * 7919 % 1009, 'name ' || (i * 31 % 977) from n;"
		   "create index by_k on t(k);"
		   "update t set k = k + 1 where id % 3 = 0;"
		   "delete from t where name like '%99%';",
		   &sum);
	sqlite_run(db,
		   "select k, count(*), max(name) from t group by k % 16 order by 1;"
		   "select count(*) from t a join t b on a.k = b.k where a.id < 500;"
		   "select name from t where k between 100 and 110 order by name, id;",
		   &sum);
	sqlite3_close(db);
	return sum;
}

static const char lua_program[] =
	"local words, sum = {}, 0\n"
	"for i = 1, 4000 do\n"
	"  local w = 'w' .. (i * 7919 % 613)\n"
	"  words[w] = (words[w] or 0) + i\n"
	"end\n"
	"local keys = {}\n"
	"for w in pairs(words) do keys[#keys + 1] = w end\n"
	"table.sort(keys)\n"
	"for i, w in ipairs(keys) do sum = (sum * 31 + words[w] + i) % 1000003 end\n"
	"local sieve = {}\n"
	"for i = 2, 8000 do\n"
	"  if not sieve[i] then for j = i * i, 8000, i do sieve[j] = true end sum = sum + i end\n"
	"end\n"
	"local function walk(n) if n < 2 then return n end return walk(n - 1) + walk(n - 2) end\n"
	"sum = sum + walk(17)\n"
	"for word in string.gmatch(string.rep('node page stall ', 100), '%a+') do sum = sum + #word end\n"
	"return sum\n";

static uint64_t lua_unit(void)
{
	lua_State *lua = luaL_newstate();
	uint64_t sum;

	if (!lua)
		cpu_die("luaL_newstate");
	luaL_openlibs(lua);
	if (luaL_dostring(lua, lua_program))
		cpu_die(lua_tostring(lua, -1));
	sum = (uint64_t)lua_tointeger(lua, -1);
	lua_close(lua);
	return sum;
}

/* --- libc --- */

#define COPY_BYTES 16384u
#define FILL_BYTES (32u << 20)

static char *fill_memory;

static uint64_t memcpy_unit(void)
{
	for (uint32_t round = 0; round < 1024; round++) {
		text[0] = (char)round;
		memcpy(unpacked, text, COPY_BYTES);
		__asm__ volatile("" ::: "memory");
	}
	return (uint64_t)unpacked[0] + (uint64_t)unpacked[COPY_BYTES - 1];
}

static void memset_prepare(void)
{
	fill_memory = cpu_memory(FILL_BYTES);
	memset(fill_memory, 1, FILL_BYTES);
}

static uint64_t memset_unit(void)
{
	memset(fill_memory, 0x5a, FILL_BYTES);
	__asm__ volatile("" ::: "memory");
	return (uint64_t)fill_memory[12345678];
}

const struct cpu_item cpu_library_items[] = {
	{ "deflate", text_prepare, deflate_unit, NULL, NULL },
	{ "zstd", text_prepare, zstd_unit, NULL, NULL },
	{ "sqlite", NULL, sqlite_unit, NULL, NULL },
	{ "lua", NULL, lua_unit, NULL, NULL },
	{ "memcpy", text_prepare, memcpy_unit, NULL, NULL },
	{ "memset", memset_prepare, memset_unit, NULL, NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};
