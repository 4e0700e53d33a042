/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Boot loaders' configurations: what Debian's grub-mkconfig wrote (guest/boot_configs/), others in the forms that
 * Ubuntu's and Fedora's have, systemd-boot's, and what is broken.
 */
#include "tests/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/boot_config.h"

#define FILES_MAX 12

struct file {
	const char *path, *text;
};

struct disk {
	const struct file *file;
};

static long read_file(void *ctx, const char *path, char *ret_bytes, size_t size)
{
	const struct disk *disk = ctx;
	for (const struct file *file = disk->file; file->path; file++) {
		size_t length = strlen(file->text);
		if (strcmp(file->path, path) != 0)
			continue;
		if (length > size)
			length = size;
		memcpy(ret_bytes, file->text, length);
		return (long)length;
	}
	return -ENOENT;
}

static bool list_files(void *ctx, const char *folder, unsigned int index, char *ret_name,
		       size_t size)
{
	const struct disk *disk = ctx;
	size_t length = strlen(folder);
	for (const struct file *file = disk->file; file->path; file++) {
		if (strncmp(file->path, folder, length) != 0 || file->path[length] != '/' ||
		    index-- > 0)
			continue;
		snprintf(ret_name, size, "%s", file->path + length + 1);
		return true;
	}
	return false;
}

static struct boot_entry entry;
static char why[256];

static int find(const struct file *files)
{
	struct disk disk = { files };
	struct boot_files ops = { read_file, list_files, &disk };
	memset(&entry, 0, sizeof(entry));
	why[0] = '\0';
	return boot_config_find(&ops, &entry, why, sizeof(why));
}

/* A configuration of ours as /boot/grub/grub.cfg, and what it starts. */
static const char *kernel_of(const char *text)
{
	const struct file files[] = { { "/boot/grub/grub.cfg", text }, { NULL, NULL } };
	return find(files) == 0 ? entry.kernel : why;
}

static char *load(const char *name)
{
	char path[512];
	snprintf(path, sizeof(path), "%s/guest/boot_configs/%s", getenv("EAGRE_SOURCE"), name);
	FILE *file = fopen(path, "re");
	assert_non_null(file);
	char *text = calloc(1, BOOT_FILE_MAX);
	assert_true(fread(text, 1, BOOT_FILE_MAX - 1, file) > 0);
	fclose(file);
	return text;
}

static void test_debian(void **state)
{
	static const struct {
		const char *name, *path, *kernel, *initrd, *options;
	} cases[] = {
		{ "bookworm.cfg", "/boot/grub/grub.cfg", "/boot/vmlinuz-6.1.0-56-cloud-amd64",
		  "/boot/initrd.img-6.1.0-56-cloud-amd64", "root=/dev/vda1 ro quiet" },
		{ "trixie.cfg", "/boot/grub/grub.cfg", "/boot/vmlinuz-6.12.118+deb13-cloud-amd64",
		  "/boot/initrd.img-6.12.118+deb13-cloud-amd64", "root=/dev/vda1 ro quiet" },
		{ "boot_partition.cfg", "/grub/grub.cfg", "/vmlinuz-6.12.118+deb13-cloud-amd64",
		  "/initrd.img-6.12.118+deb13-cloud-amd64",
		  "root=UUID=1deaa742-4a85-472e-a22d-69d249952bf9 ro quiet" },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *text = load(cases[i].name);
		const struct file files[] = { { cases[i].path, text }, { NULL, NULL } };
		assert_int_equal(find(files), 0);
		assert_string_equal(entry.kernel, cases[i].kernel);
		assert_int_equal(entry.initrd_count, 1);
		assert_string_equal(entry.initrd[0], cases[i].initrd);
		assert_string_equal(entry.options, cases[i].options);
		assert_string_equal(entry.title, "Debian GNU/Linux");
		assert_string_equal(entry.from, cases[i].path);
		free(text);
	}
}

/* As kernel-install writes it for systemd-boot, on the partition that both read. */
static void test_entry(void **state)
{
#define TOKEN "e77222420edb407ca08243b53fed44d4"
	char *text = load("entry.conf");
	const struct file files[] = { { "/loader/entries/" TOKEN "-6.12.118+deb13-cloud-amd64.conf",
					text },
				      { "/loader/loader.conf", "#timeout 3\n#console-mode keep\n" },
				      { "/loader/entries.srel", "type1\n" },
				      { NULL, NULL } };
	assert_int_equal(find(files), 0);
	assert_string_equal(entry.kernel, "/" TOKEN "/6.12.118+deb13-cloud-amd64/linux");
	assert_int_equal(entry.initrd_count, 1);
	assert_string_equal(entry.initrd[0], "/" TOKEN "/6.12.118+deb13-cloud-amd64/"
					     "initrd.img-6.12.118+deb13-cloud-amd64");
	assert_string_equal(entry.options,
			    "root=UUID=7d38de47-6d78-442a-af9e-65b6185c8a03 ro quiet "
			    "systemd.machine_id=" TOKEN);
	assert_string_equal(entry.title, "Debian GNU/Linux 13 (trixie)");
	free(text);
}

/* The saved entry is one of a submenu; what is for one boot only is not looked at. */
static void test_saved(void **state)
{
	static const char text[] =
		"if [ -s $prefix/grubenv ]; then\n"
		"  set have_grubenv=true\n"
		"  load_env\n"
		"fi\n"
		"if [ \"${next_entry}\" ] ; then\n"
		"   set default=\"${next_entry}\"\n"
		"   set next_entry=\n"
		"   save_env next_entry\n"
		"   set boot_once=true\n"
		"else\n"
		"   set default=\"${saved_entry}\"\n"
		"fi\n"
		"\n"
		"if [ x\"${feature_menuentry_id}\" = xy ]; then\n"
		"  menuentry_id_option=\"--id\"\n"
		"else\n"
		"  menuentry_id_option=\"\"\n"
		"fi\n"
		"export menuentry_id_option\n"
		"function recordfail {\n"
		"  set recordfail=1\n"
		"  if [ -n \"${have_grubenv}\" ]; then if [ -z \"${boot_once}\" ]; then save_env recordfail; fi; fi\n"
		"}\n"
		"function gfxmode {\n"
		"	set gfxpayload=\"${1}\"\n"
		"	if [ \"${1}\" = \"keep\" ]; then\n"
		"		set vt_handoff=vt.handoff=7\n"
		"	else\n"
		"		set vt_handoff=\n"
		"	fi\n"
		"}\n"
		"menuentry 'Ubuntu' --class ubuntu --class os $menuentry_id_option 'simple' {\n"
		"	recordfail\n"
		"	if [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi\n"
		"	search --no-floppy --fs-uuid --set=root 1234\n"
		"	linux	/vmlinuz-6.8.0-31-generic root=UUID=1234 ro  quiet splash $vt_handoff\n"
		"	initrd	/initrd.img-6.8.0-31-generic\n"
		"}\n"
		"submenu 'Advanced options for Ubuntu' $menuentry_id_option 'advanced' {\n"
		"	menuentry 'Ubuntu, with Linux 6.8.0-31-generic' $menuentry_id_option 'a-31' {\n"
		"		linux /vmlinuz-6.8.0-31-generic root=UUID=1234 ro\n"
		"	}\n"
		"	menuentry \"Ubuntu, with Linux 6.5 (it's \\\"old\\\")\" $menuentry_id_option 'a-5' {\n"
		"		linux /vmlinuz-6.5 root=UUID=1234 ro old='a b'\n"
		"		initrd /early.img \\\n"
		"			/initrd.img-6.5\n"
		"	}\n"
		"}\n";
	struct file files[] = { { "/boot/grub/grub.cfg", text },
				{ "/boot/grub/grubenv",
				  "# GRUB Environment Block\nsaved_entry=advanced>a-5\n"
				  "next_entry=0\n####" },
				{ NULL, NULL } };
	assert_int_equal(find(files), 0);
	assert_string_equal(entry.kernel, "/vmlinuz-6.5");
	assert_string_equal(entry.title, "Ubuntu, with Linux 6.5 (it's \"old\")");
	assert_string_equal(entry.options, "root=UUID=1234 ro old=a b");
	assert_int_equal(entry.initrd_count, 2);
	assert_string_equal(entry.initrd[1], "/initrd.img-6.5");
	files[1].text = "saved_entry=1>0\n";
	assert_int_equal(find(files), 0);
	assert_string_equal(entry.options, "root=UUID=1234 ro");
	/* A menu stands for its first entry, what is not there for the first of all. */
	files[1].text = "saved_entry=advanced\n";
	assert_int_equal(find(files), 0);
	assert_string_equal(entry.title, "Ubuntu, with Linux 6.8.0-31-generic");
	files[1].text = "saved_entry=gone>a-5\n";
	assert_int_equal(find(files), 0);
	assert_string_equal(entry.title, "Ubuntu");
	assert_string_equal(entry.options, "root=UUID=1234 ro quiet splash");
	files[1].path = "/boot/grub/none";
	assert_int_equal(find(files), 0);
	assert_string_equal(entry.title, "Ubuntu");
}

static void test_fedora(void **state)
{
	static const struct {
		const char *text, *kernel;
	} loader[] = {
		{ "timeout 3\ndefault m-0-rescue.conf\n", "/vmlinuz-0-rescue" },
		{ "#timeout 3\ndefault m-6.8*\n", "/vmlinuz-6.8.5-301.fc40.x86_64" },
		{ "default  m-*.conf\n", "/vmlinuz-6.10.3-200.fc40.x86_64" }, /* the newest */
		{ "default m-0-rescue\n", "/vmlinuz-0-rescue" },
		{ "default @saved\n", "/vmlinuz-6.10.3-200.fc40.x86_64" },
		{ "timeout 3\n", "/vmlinuz-6.10.3-200.fc40.x86_64" },
	};
	static const char text[] =
		"set pager=1\n"
		"if [ -f ${config_directory}/grubenv ]; then\n"
		"  load_env -f ${config_directory}/grubenv\n"
		"elif [ -s $prefix/grubenv ]; then\n"
		"  load_env\n"
		"fi\n"
		"if [ \"${next_entry}\" ] ; then\n"
		"   set default=\"${next_entry}\"\n"
		"else\n"
		"   set default=\"${saved_entry}\"\n"
		"fi\n"
		"if [ -z \"${kernelopts}\" ]; then\n"
		"  set kernelopts=\"root=/dev/vda3 ro fallback\"\n"
		"fi\n"
		"insmod blscfg\n"
		"blscfg\n"
		"menuentry 'UEFI Firmware Settings' $menuentry_id_option 'uefi-firmware' {\n"
		"	fwsetup\n"
		"}\n";
	struct file files[] = {
		{ "/grub2/grub.cfg", text },
		{ "/grub2/grubenv",
		  "saved_entry=m-6.8.5-301.fc40.x86_64\nkernelopts=root=UUID=9 ro rhgb\n" },
		{ "/loader/entries/m-0-rescue.conf",
		  "title Rescue\nlinux /vmlinuz-0-rescue\ninitrd /initramfs-0.img\n" },
		{ "/loader/entries/m-6.8.5-301.fc40.x86_64.conf",
		  "title Fedora Linux (6.8.5-301.fc40.x86_64) 40\nversion 6.8.5-301.fc40.x86_64\n"
		  "linux /vmlinuz-6.8.5-301.fc40.x86_64\ninitrd /initramfs-6.8.5-301.fc40.x86_64.img $tuned_initrd\n"
		  "options $kernelopts $tuned_params\ngrub_users $grub_users\n" },
		{ "/loader/entries/m-6.10.3-200.fc40.x86_64.conf",
		  "title Fedora Linux (6.10.3-200.fc40.x86_64) 40\r\nlinux /vmlinuz-6.10.3-200.fc40.x86_64\r\n"
		  "options root=UUID=9 ro\r\noptions second\r\n" },
		{ "/loader/entries/readme", "linux /wrong\n" },
		{ NULL, NULL }
	};
	assert_int_equal(find(files), 0);
	assert_string_equal(entry.kernel, "/vmlinuz-6.8.5-301.fc40.x86_64");
	assert_string_equal(entry.options, "root=UUID=9 ro rhgb ");
	assert_int_equal(entry.initrd_count, 1);
	assert_string_equal(entry.initrd[0], "/initramfs-6.8.5-301.fc40.x86_64.img");
	assert_string_equal(entry.from, "/loader/entries/m-6.8.5-301.fc40.x86_64.conf");
	/* Without a saved entry the newest; 6.10 is newer than 6.8. */
	files[1].text = "x=y\n";
	assert_int_equal(find(files), 0);
	assert_string_equal(entry.kernel, "/vmlinuz-6.10.3-200.fc40.x86_64");
	assert_string_equal(entry.options, "root=UUID=9 ro second");
	assert_int_equal(entry.initrd_count, 0);
	/* The same without GRUB: systemd-boot, which may name one, also by a pattern, as bootctl has it. */
	files[0].path = "/loader/loader.conf";
	for (size_t i = 0; i < sizeof(loader) / sizeof(loader[0]); i++) {
		files[0].text = loader[i].text;
		assert_int_equal(find(files), 0);
		assert_string_equal(entry.kernel, loader[i].kernel);
	}
}

static void test_language(void **state)
{
	assert_string_equal(kernel_of("menuentry a { linux ($root)/a x; }"), "/a");
	assert_string_equal(kernel_of("# menuentry no {\nmenuentry \\\n a {\nlinux /a#b # c\n}"),
			    "/a#b");
	assert_string_equal(kernel_of("a=/x; b=$a\nmenuentry t { linux ${b}y }\n"), "/xy");
	assert_string_equal(
		kernel_of(
			"if false; then menuentry a { linux /a; }\nelif [ 2 -gt 1 -a ! -z x ]; then\n"
			"menuentry b { linux /b; }\nelse menuentry c { linux /c; }\nfi"),
		"/b");
	assert_string_equal(
		kernel_of("if [ a = b -o c != d ]; then if ! true; then x=1; else x=2; fi; fi\n"
			  "menuentry a { linux /$x }"),
		"/2");
	assert_string_equal(
		kernel_of(
			"for i in 1 2; do menuentry $i { linux /no; }; done\nmenuentry a { linux /a; }"),
		"/a");
	assert_string_equal(
		kernel_of("if [ -s /boot/grub/grub.cfg ]; then menuentry a { linux /a; } fi"),
		"/a");
	assert_string_equal(
		kernel_of(
			"menuentry 'other system' { chainloader +1; }\nmenuentry l { linuxefi /l; }"),
		"/l");
	/* The default has no kernel: the first that has. */
	assert_string_equal(
		kernel_of("default=w\nmenuentry l { linux /l; }\nmenuentry w { chainloader +1; }"),
		"/l");
	assert_string_equal(
		kernel_of("set default=1\nmenuentry a { linux /a; }\nmenuentry b { linux /b; }"),
		"/b");
}

/* Any text comes to an end, within its bounds. */
static void test_bad(void **state)
{
	static const struct file none[] = { { "/etc/fstab", "" }, { NULL, NULL } };
	static const struct file empty[] = { { "/boot/grub/grub.cfg", "" }, { NULL, NULL } };
	static char text[BOOT_FILE_MAX];
	static const char bits[] =
		"{}{}\"'$;\n\\ #if then fi menuentry submenu else linux /a set=x${[ ] ";
	uint32_t random = 1;
	assert_int_equal(find(none), -ENOENT);
	assert_int_equal(find(empty), -ENOENT);
	assert_string_equal(kernel_of("menuentry a { chainloader +1; }"),
			    "/boot/grub/grub.cfg starts no Linux");
	assert_string_equal(kernel_of("}}}} fi fi\n done \n menuentry a { linux /a"), "/a");
	assert_string_equal(kernel_of("menuentry \"a"), "/boot/grub/grub.cfg starts no Linux");
	for (int round = 0; round < 300; round++) {
		size_t size = 0;
		while (size < 3000) {
			random = random * 1664525 + 1013904223;
			if (random >> 28 == 0)
				size += (size_t)sprintf(text + size, "%s ",
							"menuentry x { linux /k");
			else if (random >> 28 == 1)
				size += (size_t)sprintf(text + size, "%s ", "\nif [ x = x ]; then");
			else
				text[size++] = bits[(random >> 8) % (sizeof(bits) - 1)];
		}
		text[size] = '\0';
		kernel_of(text);
	}
	/* Too much of everything. */
	memset(text, 0, sizeof(text));
	for (int i = 0; i < 400; i++)
		sprintf(text + strlen(text),
			"v%d=%d\nsubmenu m%d {\nmenuentry e%d { linux /k%d }\nif true; then\n", i,
			i, i, i, i);
	assert_string_equal(kernel_of(text), "/k0");
	memset(text, 'x', sizeof(text) - 1);
	memcpy(text, "menuentry a { linux /", 21);
	assert_int_equal(strlen(kernel_of(text)), BOOT_PATH_MAX - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_debian),	 cmocka_unit_test(test_entry),
		cmocka_unit_test(test_saved),	 cmocka_unit_test(test_fedora),
		cmocka_unit_test(test_language), cmocka_unit_test(test_bad),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
