# image: what guest/mkinitramfs and rack/mkhost share: functions that fill a folder and pack it as an
# initramfs. Source it; the caller has set -eu and defines die().
# Every function takes the image's folder first.

# image_busybox IMAGE ROOT: busybox of the unpacked packages in ROOT, with all its commands.
image_busybox() {
	local image=$1 root=$2 applet
	[ -x "$root/bin/busybox" ] || die "no busybox in $root: run guest/fetch"
	mkdir -p "$image"/{bin,sbin,usr/bin,usr/sbin,dev,proc,sys,tmp,root,etc,eagre}
	cp "$root/bin/busybox" "$image/bin/busybox"
	for applet in $("$root/bin/busybox" --list-full); do
		[ "$applet" = bin/busybox ] || ln -s /bin/busybox "$image/$applet"
	done
	echo 'root:x:0:0:root:/root:/bin/sh' >"$image/etc/passwd"
	echo 'root:x:0:' >"$image/etc/group"
}

# image_libraries IMAGE ROOT FILE: the shared libraries FILE needs, out of ROOT (empty: the machine).
image_libraries() {
	local image=$1 root=$2 file=$3 paths=() list library
	if [ -n "$root" ]; then
		paths=(--inhibit-cache --library-path
			"$root/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu")
	fi
	# A static program needs none, and the loader says so by failing.
	list=$("$root/lib64/ld-linux-x86-64.so.2" "${paths[@]}" --list "$file" 2>/dev/null) || return 0
	mkdir -p "$image/lib64" "$image/lib/x86_64-linux-gnu"
	[ -e "$image/lib64/ld-linux-x86-64.so.2" ] ||
		cp -L "$root/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2" "$image/lib64/"
	for library in $(awk '$2 == "=>" && $1 !~ /ld-linux/ { print $3 }' <<<"$list"); do
		[ -e "$library" ] || die "$file needs $library, which is not there"
		[ -e "$image/lib/x86_64-linux-gnu/${library##*/}" ] ||
			cp -L "$library" "$image/lib/x86_64-linux-gnu/"
	done
}

# image_program IMAGE ROOT SOURCE DESTINATION: a program and its libraries.
image_program() {
	local image=$1 root=$2 source=$3 destination=$4
	[ -r "$source" ] || die "cannot read $source"
	mkdir -p "$image/$(dirname "$destination")"
	rm -f "$image/$destination"
	cp -L "$source" "$image/$destination"
	image_libraries "$image" "$root" "$source"
}

# image_modules IMAGE KERNEL FOLDER LIST NAME...: modules and what they depend on, in FOLDER of the image, in
# loading order in LIST, without the debug sections that make loading slow on an emulated CPU.
image_modules() {
	local image=$1 kernel=$2 folder=$1/$3 list=$1/$4 name line path file
	shift 4
	mkdir -p "$folder" "$(dirname "$list")"
	touch "$list"
	for name in "$@"; do
		line=$(awk -F: -v want="${name//-/_}" '{
			file = $1; sub(/.*\//, "", file); sub(/\.ko.*/, "", file); gsub(/-/, "_", file)
			if (file == want) { print; exit } }' "$kernel/modules/modules.dep")
		if [ -z "$line" ]; then
			grep -q "/${name//_/[-_]}\.ko" "$kernel/modules/modules.builtin" && continue
			die "kernel $(cat "$kernel/version") has no module $name"
		fi
		# modules.dep names a module and then its dependencies, the deepest last.
		for path in $(tr ' ' '\n' <<<"${line/:/}" | tac); do
			file=${path##*/}
			file=${file%%.ko*}.ko
			grep -qxF "$file" "$list" || echo "$file" >>"$list"
			[ -e "$folder/$file" ] && continue
			case $path in
			*.xz) xz -dc "$kernel/modules/$path" >"$folder/$file" ;;
			*) cp "$kernel/modules/$path" "$folder/$file" ;;
			esac
			objcopy --strip-debug --remove-section=.BTF "$folder/$file"
		done
	done
}

# What a virtual device wants to have loaded, by its PCI device id (virtio 1.2, 4.1.2.1).
declare -A image_device_modules=(
	[1041]="virtio_pci virtio_net"
	[1042]="virtio_pci virtio_blk ext4"
	[1043]="virtio_pci virtio_console"
	[1044]="virtio_pci virtio_rng"
	[1045]="virtio_pci virtio_balloon"
)

# image_devices IMAGE CACHE: modules of all of guest/fetch's kernels, for guest/init to load those of the
# kernel that runs and of the devices that the machine has.
image_devices() {
	local image=$1 kernel version id
	for kernel in "$2"/kernel-*; do
		version=$(cat "$kernel/version")
		for id in "${!image_device_modules[@]}"; do
			image_modules "$image" "$kernel" "lib/modules/$version" "lib/modules/$version/device.$id" \
				${image_device_modules[$id]}
		done
	done
	mkdir -p "$image/etc/udhcpc"
	cat >"$image/etc/udhcpc/default.script" <<-'END'
		#!/bin/sh
		# What busybox's DHCP client has been told becomes so.
		case $1 in
		bound | renew)
			ip addr replace "$ip/$mask" dev "$interface"
			for gateway in $router; do ip route replace default via "$gateway" dev "$interface"; done
			: >/etc/resolv.conf
			for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf; done ;;
		esac
	END
	chmod +x "$image/etc/udhcpc/default.script"
}

# image_pack IMAGE METHOD OUT: packs it; the file appears whole or not at all.
image_pack() {
	local image=$1 method=$2 out=$3 pack
	case $method in
	none) pack=cat ;;
	gzip) pack="gzip -9n" ;;
	zstd) pack="zstd -q -19 -T2" ;;
	lz4) pack="lz4 -l -q -9" ;;
	*) die "unknown compression '$method' (none, gzip, zstd, lz4)" ;;
	esac
	(cd "$image" && find . -mindepth 1 -printf '%P\n' | LC_ALL=C sort |
		cpio --quiet --reproducible -o -H newc -R 0:0) | $pack >"$out.new.$$"
	mv "$out.new.$$" "$out"
}
