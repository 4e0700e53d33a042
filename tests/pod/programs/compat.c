/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A 32-bit program without a library: the guest compiles it with -m32 and runs it in compatibility
 * mode. System calls are taken both ways, int $0x80 and the entry that the kernel's vDSO names
 * (sysenter or syscall). It uses segment registers, x87, BCD arithmetic that 64-bit code has not
 * got, string instructions, a signal frame and a second process. It prints a line for each, which
 * must be the same natively.
 */
typedef unsigned int u32;
typedef unsigned long long u64;

enum {
	EXIT = 1,
	FORK = 2,
	WRITE = 4,
	WAITPID = 7,
	SIGACTION = 67,
	MMAP2 = 192,
	SET_THREAD_AREA = 243
};
enum { AT_SYSINFO = 32, SIGTRAP = 5, PAGE = 4096 };

static u32 entry; /* the vDSO's */

static int call(u32 number, u32 a, u32 b, u32 c)
{
	int result;
	__asm__ volatile("int $0x80"
			 : "=a"(result)
			 : "a"(number), "b"(a), "c"(b), "d"(c)
			 : "memory");
	return result;
}

static int call_entry(u32 number, u32 a, u32 b, u32 c)
{
	int result;
	if (!entry)
		return call(number, a, b, c);
	__asm__ volatile("call *%5"
			 : "=a"(result)
			 : "a"(number), "b"(a), "c"(b), "d"(c), "m"(entry)
			 : "memory");
	return result;
}

static void say(const char *name, u32 value)
{
	char line[40];
	u32 used = 0;
	while (name[used]) {
		line[used] = name[used];
		used++;
	}
	line[used++] = ' ';
	for (int shift = 28; shift >= 0; shift -= 4)
		line[used++] = "0123456789abcdef"[value >> shift & 15];
	line[used++] = '\n';
	call_entry(WRITE, 1, (u32)line, used);
}

static u32 x87(void)
{
	long double x = 0.25L, sum = 0;
	for (int i = 1; i < 20000; i++) {
		x = 3.7L * x * (1 - x);
		sum += x / i;
	}
	return (u32)(sum * 1e8L);
}

/* aaa, das, aam and into exist in 32-bit code only. */
static u32 bcd(void)
{
	u32 h = 7, ax;
	for (u32 i = 0; i < 1000; i++) {
		__asm__("add $0x38, %%al; aaa; aam; add %%ah, %%al; daa; sub $0x17, %%al; das; aad"
			: "=a"(ax)
			: "0"(i & 0xff)
			: "cc");
		h = h * 31 + (ax & 0xffff);
	}
	return h;
}

static u32 strings(void)
{
	static unsigned char from[5000], to[5000];
	unsigned char *s = from, *d = to;
	u32 n = sizeof(from), h = 1;
	for (u32 i = 0; i < n; i++)
		from[i] = (unsigned char)(i * 7 + (i >> 5));
	__asm__ volatile("rep movsb" : "+S"(s), "+D"(d), "+c"(n)::"memory");
	d = to, n = sizeof(to);
	__asm__ volatile("repne scasb" : "+D"(d), "+c"(n) : "a"(0xfe) : "memory", "cc");
	h += n;
	for (u32 i = 0; i < sizeof(to); i++)
		h = h * 33 + to[i];
	return h;
}

/* A segment of this process's own, and a read through gs. */
static u32 segments(void)
{
	static u32 words[4] = { 11, 22, 33, 44 };
	struct {
		u32 number, base, limit, flags;
	} area = { (u32)-1, (u32)words, 0xfffff, 0x51 /* 32-bit, limit in pages, usable */ };
	u32 value, selector;
	if (call(SET_THREAD_AREA, (u32)&area, 0, 0))
		return 0;
	selector = area.number * 8 + 3;
	__asm__ volatile("mov %1, %%gs; mov %%gs:8, %0" : "=r"(value) : "r"(selector));
	return value;
}

static volatile u32 trapped;

static void on_trap(int number)
{
	trapped += (u32)number;
}

static u32 signals(void)
{
	struct {
		void (*handler)(int);
		u32 mask, flags;
		void (*restorer)(void);
	} action = { on_trap, 0, 0, 0 };
	if (call(SIGACTION, SIGTRAP, (u32)&action, 0))
		return 0;
	for (int i = 0; i < 10; i++)
		__asm__ volatile("int3" ::: "memory");
	return trapped;
}

static u32 processes(void)
{
	u32 arguments[6] = {
		0, PAGE, 3 /* read, write */, 0x21 /* shared, anonymous */, (u32)-1, 0
	};
	volatile u32 *shared;
	u32 status = 0;
	__asm__ volatile(
		"push %%ebp; mov 20(%%esi), %%ebp; mov (%%esi), %%ebx; mov 4(%%esi), %%ecx; mov 8(%%esi), %%edx;"
		"mov 16(%%esi), %%edi; mov 12(%%esi), %%esi; int $0x80; pop %%ebp"
		: "=a"(shared), "+S"(*(u32 *[]){ arguments })
		: "0"(MMAP2)
		: "ebx", "ecx", "edx", "edi", "memory");
	if ((u32)shared > (u32)-4096)
		return 0;
	int child = call_entry(FORK, 0, 0, 0);
	if (!child) {
		shared[3] = 0x1234;
		call(EXIT, 9, 0, 0);
	}
	call(WAITPID, (u32)child, (u32)&status, 0);
	return status << 8 | shared[3];
}

__attribute__((used, noreturn)) static void begin(u32 *stack)
{
	u32 *word = stack + 1 + *stack + 1; /* behind the arguments */
	while (*word++)
		; /* the environment */
	for (; word[0]; word += 2)
		if (word[0] == AT_SYSINFO)
			entry = word[1];
	say("x87", x87());
	say("bcd", bcd());
	say("strings", strings());
	say("segments", segments());
	say("signals", signals());
	say("processes", processes());
	call(EXIT, 32, 0, 0);
	__builtin_unreachable();
}

__asm__(".globl _start\n_start: mov %esp, %eax; and $-16, %esp; sub $12, %esp; push %eax; call begin");
