# Real programs in a guest, whose results are compared with those of the same files in a chroot of this machine. To be
# read by a script that has lib.bash, $here, $build, $source_root and $EAGRE_CACHE.

# Sub-results of in_guest count as ours.
take_results() { # FILE
	sed 's/^/  /' "$1"
	failures=$((failures + $(grep -c '^FAILED' "$1")))
	check "the guest judged something" grep -q '^ok' "$1"
}

# $logs/initrd with the programs and what in_guest_programs feeds them; $logs/native has their results here.
make_programs() { # PART...
	local root=$logs/root with=() add=() name
	gcc -E -P -I "$source_root" -o "$logs/large.i" "$source_root/core/coherence.c" || { failed "no gcc -E"; finish; }
	for name in stress-ng xz gcc python3-tests openssl sqlite3 zstd; do
		with+=(--with "$name")
	done
	for name in compute.c compat.c database.sql; do
		add+=(--add "$here/programs/$name:/test/programs/$name")
	done
	"$source_root/guest/fetch" --programs 2>"$logs/fetch.err" &&
		"$source_root/guest/mkinitramfs" --cache "$EAGRE_CACHE" --runner "$build/guest/runner" "${with[@]}" \
			"${add[@]}" --add "$logs/large.i:/test/programs/large.i" \
			--add "$here/in_guest_programs:/test/in_guest_programs" "$logs/initrd" 2>"$logs/mkinitramfs.err" ||
		{ failed "no initramfs: $(tail -n 1 "$logs/fetch.err" "$logs/mkinitramfs.err")"; finish; }
	[ $# -gt 0 ] || return 0
	mkdir "$root"
	(cd "$root" && cpio -idm --quiet <"$logs/initrd")
	natively keys=/test/programs/keys >"$logs/keys.out" 2>&1
	(cd "$root" && find test/programs/keys | cpio --quiet -o -H newc) >>"$logs/initrd"
	natively "$@" >"$logs/native" 2>"$logs/native.err"
	check "natively they do it, too" [ $? = 0 ]
	rm -rf "$root"
}

# in_guest_programs in the initramfs's files, with this machine's kernel and CPU.
natively() {
	# shellcheck disable=SC2016
	"${marked[@]}" timeout $((300 * patience)) unshare --mount --pid --fork --net --propagation private sh -c '
		root=$1; shift
		mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" && mount -t tmpfs tmpfs "$root/tmp" || exit 99
		exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root chroot "$root" sh /test/in_guest_programs "$@"' \
		sh "$logs/root" "$@" </dev/null
}

# The guest's judgements are ours; its results must be the native ones.
same_results() { # NAME
	take_results "$logs/$1.out"
	grep '^= ' "$logs/native" >"$logs/native.results"
	grep '^= ' "$logs/$1.out" >"$logs/$1.results"
	check "$(wc -l <"$logs/native.results") results, as natively" cmp "$logs/native.results" "$logs/$1.results"
	diff "$logs/native.results" "$logs/$1.results" | head -n 20
	[ $failures != 0 ] || rm -f "$logs/initrd"
}
