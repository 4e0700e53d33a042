# bash completion for eagre(1)                                             -*- shell-script -*-
# Subcommands, options and policies are asked of the program itself (--help), so they are those that it has; pods and
# nodes are those that have sockets on this machine, or that the running pod names.
# Tested by tests/package/pages.

_eagre_subcommands() { "$1" --help 2>/dev/null | sed -n 's/^  \([a-z]*\) .*/\1/p'; }

# Of a subcommand; usage lines have those that need no more words.
_eagre_options() { "$1" "$2" --help 2>/dev/null | grep -oE -- '(^|[^a-z-])--[a-z][a-z-]*' | grep -oE -- '--[a-z-]+'; echo --help; }

_eagre_policies() { "$1" policy --help 2>/dev/null | sed -n 's/^  \([a-z]*\)  *[^ ].*/\1/p'; }

# POD.NODE.sock, where a dot of a name is a '%': the pods, or the nodes of the pod $2.
_eagre_sockets() { # pods|nodes [POD]
	local socket folder=/run/eagre name pod
	[ "$EUID" = 0 ] || folder=${XDG_RUNTIME_DIR:-/run/user/$EUID}/eagre
	for socket in "$folder"/*.*.sock; do
		[ -S "$socket" ] || continue
		name=${socket##*/} name=${name%.sock} pod=${name%%.*}
		pod=${pod//%/.}
		if [ "$1" = pods ]; then
			echo "$pod"
		elif [ -z "$2" ] || [ "$2" = "$pod" ]; then
			name=${name#*.}
			echo "${name//%/.}"
		fi
	done
}

# All nodes of the running pod, on whichever hosts.
_eagre_nodes() { # EAGRE [OPTION...]
	local eagre=$1
	shift
	timeout 2 "$eagre" status --json "$@" 2>/dev/null | sed -n '/"number":/{n;s/.*"name": *"\([^"]*\)".*/\1/p}'
}

_eagre() {
	local eagre=${COMP_WORDS[0]/#\~/$HOME} word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
	local subcommand=${COMP_WORDS[1]} i pod='' config='' count=0
	COMPREPLY=()
	if [ "$COMP_CWORD" = 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W "$(_eagre_subcommands "$eagre") --help --version" -- "$word")
		return
	fi
	for ((i = 2; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		--) return 1 ;; # the guest's command: files, as bash does it
		--pod) pod=${COMP_WORDS[i + 1]} ;;
		--config) config=${COMP_WORDS[i + 1]} ;;
		esac
		case ${COMP_WORDS[i]} in
		--pod | --node | --socket) i=$((i + 1)) ;;
		-*) ;;
		*) count=$((count + 1)) ;;
		esac
	done
	case $subcommand$before in
	*--pod) mapfile -t COMPREPLY < <(compgen -W "$(_eagre_sockets pods)" -- "$word") ;;
	*--node) mapfile -t COMPREPLY < <(compgen -W "$(_eagre_sockets nodes "$pod")" -- "$word") ;;
	*--name)
		mapfile -t COMPREPLY < <(compgen -W "$(sed -n 's/^[ \t]*\[[ \t]*node[ \t][ \t]*\([^] \t]*\)[ \t]*\].*/\1/p' "$config" 2>/dev/null)" -- "$word")
		;;
	*--engine) mapfile -t COMPREPLY < <(compgen -W "auto kvm soft" -- "$word") ;;
	*--policy) mapfile -t COMPREPLY < <(compgen -W "$(_eagre_policies "$eagre")" -- "$word") ;;
	policy--shadow) mapfile -t COMPREPLY < <(compgen -W "$(_eagre_policies "$eagre") none" -- "$word") ;;
	*--config | *--kernel | *--initrd | *--log | *--disk | *--map | *--policy-state | *--socket) return 1 ;;
	*--nodes | *--wait | *--vcpus | *--memory | *--append | *--power-off-time | *--net | *--interval | *--count | *--cores | *--address | *--for | *--seconds | *--explain) ;;
	*)
		if [[ $word = -* ]]; then
			mapfile -t COMPREPLY < <(compgen -W "$(_eagre_options "$eagre" "$subcommand")" -- "$word")
		elif [ "$subcommand" = policy ]; then
			mapfile -t COMPREPLY < <(compgen -W "$(_eagre_policies "$eagre")" -- "$word")
		elif [[ $subcommand$count = @(move1|drain0) ]]; then
			mapfile -t COMPREPLY < <(compgen -W "$(_eagre_nodes "$eagre" ${pod:+--pod "$pod"})" -- "$word")
		elif [[ $subcommand = @(secret|trace|replay) ]]; then
			return 1
		fi
		;;
	esac
}

complete -o bashdefault -o default -F _eagre eagre
