# What the tests of whole pods share. Source it with set -u; then: begin NAME BUILD-DIR.
#
# A test prints "ok: ..." or "FAILED: ..." for each thing it looked at, keeps what it captured in
# BUILD-DIR/tests/pod/logs/NAME/, and ends with `finish`. Everything it starts carries a mark in its
# environment, by which `nothing_left` finds what was left behind; nothing is ever ended by name.
# What should come is waited for so many seconds (wait_for, run_for, patient), and as a machine may have other work,
# EAGRE_TEST_PATIENCE times that: ./check says 3.
# In tests without emulated hosts, /run/eagre and TMPDIR are the test's own, so that what is in them is its own, too.

failures=0
patience=${EAGRE_TEST_PATIENCE:-1}
ok() { echo "ok: $*"; }
failed() {
	echo "FAILED: $*"
	failures=$((failures + 1))
}
finish() {
	# What a pod that did not end looked like (tests/pod/patient).
	[ ! -s "$logs/stuck" ] || sed 's/^/stuck: /' "$logs/stuck"
	[ $failures = 0 ] || echo "$failures failed; see $logs"
	exit $((failures > 0))
}

# check WHAT COMMAND...: the command's status decides.
check() {
	local what=$1
	shift
	if "$@"; then ok "$what"; else failed "$what"; fi
}

begin() { # NAME BUILD-DIR
	build=$(cd "$2" && pwd) && [ -x "$build/cmd/eagre" ] || { echo "$2: not a folder with eagre built"; exit 1; }
	unset CDPATH
	source_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
	eagre=$build/cmd/eagre
	logs=$build/tests/pod/logs/$1
	patient=$source_root/tests/pod/patient
	export EAGRE_TEST_LOGS=$logs EAGRE_TEST_EAGRE=$eagre
	mark=pod-test-$1-$$
	# A shell's background jobs ignore these; what ignores them is not ended by them.
	marked=(env --default-signal=INT,QUIT "EAGRE_TEST_MARK=$mark")
	rm -rf "$logs"
	mkdir -p "$logs"
	# Short: there are unix sockets in it, wherever the build directory is.
	TMPDIR=$(mktemp -d /tmp/eagre-test.XXXXXX) || exit 1
	export TMPDIR
	chmod 1777 "$TMPDIR"
	trap 'end_all; rm -rf "$TMPDIR"' EXIT
	trap 'exit 130' INT TERM HUP
}

# Runs the calling script again with a /run/eagre of its own; needs root. Call it first.
own_run_dir() { # "$0" "$@"
	[ -z "${EAGRE_TEST_OWN_RUN:-}" ] || return 0
	mkdir -p /run/eagre || exit 1
	# shellcheck disable=SC2016
	EAGRE_TEST_OWN_RUN=yes exec unshare --mount --propagation private \
		sh -c 'mount -t tmpfs -o mode=0755 tmpfs /run/eagre && exec "$@"' sh "$@"
}

# Before a command. An array: a function in the background would be a shell with the command as its child.
marked=()

# Process ids of everything that carries our mark.
marked_pids() {
	local file
	for file in $(grep -alsF "EAGRE_TEST_MARK=$mark" /proc/[0-9]*/environ); do
		file=${file%/environ}
		echo "${file#/proc/}"
	done
}

end_all() {
	local pid
	for pid in $(marked_pids); do
		kill -KILL "$pid" 2>/dev/null
	done
}

# No process, no file in TMPDIR, no socket is left of what WHAT was. Waits some seconds for the last to go: one that was
# killed has its memory to give back first.
nothing_left() { # WHAT
	local until=$((SECONDS + 10 * patience)) pids
	while :; do
		pids=$(marked_pids)
		[ -n "$pids" ] && [ $SECONDS -lt $until ] || break
		sleep 0.1
	done
	if [ -n "$pids" ]; then
		failed "$1: left running: $(for i in $pids; do tr '\0' ' ' <"/proc/$i/cmdline"; echo "($i);"; done)"
		end_all
	fi
	local left
	left=$(find "$TMPDIR" -mindepth 1 2>/dev/null)
	[ -z "${EAGRE_TEST_OWN_RUN:-}" ] || left+=$(find /run/eagre -mindepth 1)
	if [ -n "$left" ]; then
		failed "$1: left behind:" $left
		find "$TMPDIR" -mindepth 1 -delete
		[ -z "${EAGRE_TEST_OWN_RUN:-}" ] || find /run/eagre -mindepth 1 -delete
		return 1
	fi
	[ -z "$pids" ]
}

# How `run_for` ended a command that did not end by itself.
TIMED_OUT=124

# run_for SECONDS NAME COMMAND...: its output into logs/NAME.out and .err; its status.
# In the background, because a shell that waits for a command in front of it takes no signal: a test that is
# ended must end what it started at once.
run_for() {
	local seconds=$1 name=$2
	shift 2
	"${marked[@]}" "$patient" -k 5 "$seconds" "$@" >"$logs/$name.out" 2>"$logs/$name.err" </dev/null &
	wait $!
}

# One line on stderr, which begins with "eagre: " and has all the patterns in it; nothing on stdout.
says_one_line() { # NAME PATTERN...
	local name=$1 pattern lines
	shift
	[ ! -s "$logs/$name.out" ] || { failed "$name: printed on stdout: $(head -c 300 "$logs/$name.out")"; return 1; }
	lines=$(wc -l <"$logs/$name.err")
	[ "$lines" = 1 ] || { failed "$name: $lines lines, not one: $(head -c 600 "$logs/$name.err")"; return 1; }
	for pattern in '^eagre: ' "$@"; do
		grep -qE -- "$pattern" "$logs/$name.err" ||
			{ failed "$name: does not say '$pattern': $(cat "$logs/$name.err")"; return 1; }
	done
}

# refuse NAME PATTERN... -- COMMAND...: fails within 10 s (for a quiet machine) with that one line, and leaves nothing.
refuse() {
	local name=$1 patterns=() status=0
	shift
	while [ "$1" != -- ]; do
		patterns+=("$1")
		shift
	done
	shift
	run_for 10 "$name" "$@" || status=$?
	if [ $status = 0 ]; then
		failed "$name: exit status 0: $(head -c 300 "$logs/$name.err")"
	elif [ $status = $TIMED_OUT ] || [ $status -ge 126 ]; then
		failed "$name: exit status $status: $(head -c 300 "$logs/$name.err")"
	elif says_one_line "$name" "${patterns[@]}"; then
		nothing_left "$name" && ok "$name: $(cut -c1-200 "$logs/$name.err")"
		return
	fi
	nothing_left "$name"
}

# wait_for SECONDS COMMAND...: until it succeeds.
wait_for() {
	local until=$((SECONDS + $1 * patience))
	shift
	until "$@"; do
		[ $SECONDS -lt $until ] || return 1
		sleep 0.1
	done
}

# status_json [OPTION...]: what `eagre status --json` says, once all nodes have answered. A node that does not within a second
# is shown with an error and without its numbers, and a busy machine makes late: five tries. The last counts.
status_json() {
	local try text status
	for ((try = 1; try <= 5 * patience; try++)); do
		status=0
		text=$("$eagre" status --json "$@") || status=$?
		[ $status != 0 ] || grep -q '"error":' <<<"$text" || break
		[ $status = 0 ] || sleep 0.2
	done
	printf '%s\n' "$text"
	return $status
}

# torture_begins MICROSECONDS: in the pod that runs; needs own_run_dir.
torture_begins() {
	python3 - "$1" /run/eagre/*.sock <<-'END'
		import socket, sys
		for path in sys.argv[2:]:
		    with socket.socket(socket.AF_UNIX) as s:
		        s.connect(path)
		        s.sendall(f"torture {sys.argv[1]}\n".encode())
		        print(path, s.recv(200).decode().strip())
	END
}

# A TCP port on the loopback interface that nobody has now, and that no other test gets.
free_port() { "$source_root/tests/pod/ports.py"; }
