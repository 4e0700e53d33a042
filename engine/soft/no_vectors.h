/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Included before everything else in each file of the engine (engine/meson.build), and by nobody.
 *
 * The guest's vector registers stay in the host's while C runs, so the C library's memcpy() and its
 * kin, which use them, must not be called. Compilers put calls to them where they like: for a large
 * assignment, or an initializer; which ones depends on the compiler and on how much it optimizes.
 * So the assembler takes these names for ours (no_vectors.c). tests/soft/no_vectors looks at the
 * result.
 */
#ifndef __ASSEMBLER__
__asm__(".set memcpy, soft_memcpy\n\t"
	".set memmove, soft_memmove\n\t"
	".set memset, soft_memset\n\t"
	".set memcmp, soft_memcmp");
#endif
