# shellcheck shell=bash
# leasectl.bash - completion of leasectl's commands and options in bash
#
# Source it, or install it as /usr/share/bash-completion/completions/leasectl.
# It needs nothing but bash.  It never asks a server: a TAB must neither connect
# nor wait, so names, tokens and patterns are the user's to type.

_leasectl_verbs='run elect acquire renew release transfer force-release
	list waiters stats history explain status watch top'

# What top can sort by.
_leasectl_columns='name holder mode token remaining held waiters owner position waited blocked_by
	contended contention_rate acquired wait_mean wait_max longest_queue refused timeouts expired rejected'

# The options that a command takes; those that all take if there is none yet.
_leasectl_options()
{
	local take='--wait --holder --min-hold --lock-delay --correlation-id --metadata'
	local permits='--try --shared --permits --capacity' own=

	case $1 in
		run) own="--ttl $take $permits --kill-after" ;;
		elect) own="--ttl $take --kill-after --once --pause" ;;
		acquire) own="--ttl $take $permits --request-id" ;;
		renew) own=--ttl ;;
		force-release) own='--reason --token --reopen' ;;
		history) own='--since --limit' ;;
		explain) own=--since ;;
		watch) own=--interval ;;
		top) own='--interval --sort' ;;
	esac
	case $1 in
		'' | run | elect) ;;
		top) own+=' --timeout' ;;
		*) own+=' --timeout --json' ;;
	esac
	echo "--host --port --username --dbname $own --quiet --help --version"
}

# Does this option take the next word?
_leasectl_takes_word()
{
	case $1 in
		--*=* | --try | --shared | --once | --reopen | --json | --quiet | --help | --version) return 1 ;;
		--* | -[hpUd]) return 0 ;;
	esac
	return 1
}

# Look at the words before the cursor.  Sets the caller's verb (empty if there is none
# yet), operands (how many words follow it), and command (where the word after "--" is;
# 0 if there is no "--").  readline makes three words of --ttl=30s.
_leasectl_look()
{
	local i

	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
			--)
				command=$((i + 1))
				return
				;;
			-?*)
				if [[ ${COMP_WORDS[i + 1]-} = '=' ]]; then
					((i += 2))
				elif _leasectl_takes_word "${COMP_WORDS[i]}"; then
					((i += 1))
				fi
				;;
			*) if [[ -z $verb ]]; then verb=${COMP_WORDS[i]}; else ((operands += 1)); fi ;;
		esac
	done
}

# Take the words that begin with the one at the cursor from what a compgen finds.
_leasectl_offer()
{
	mapfile -t COMPREPLY < <(compgen "$@" -- "$current")
}

# What stands after "--": a command as the shell knows it, and then its arguments,
# which the bash-completion package completes as that command's, if it is there.
_leasectl_command()
{
	if declare -F _comp_command_offset >/dev/null; then
		_comp_command_offset "$command"
	elif declare -F _command_offset >/dev/null; then
		_command_offset "$command"
	elif ((COMP_CWORD == command)) && [[ $current != */* ]]; then
		_leasectl_offer -c
	else
		compopt -o filenames 2>/dev/null
		_leasectl_offer -f
	fi
}

# The value of an option.  Most are the user's to type.
_leasectl_value()
{
	case $1 in
		--host | -h) _leasectl_offer -A hostname ;;
		--username | -U) _leasectl_offer -u ;;
		--sort) _leasectl_offer -W "$_leasectl_columns" ;;
	esac
}

_leasectl()
{
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
	local verb='' operands=0 command=0

	COMPREPLY=()
	_leasectl_look
	if ((command > 0)); then
		_leasectl_command
		return
	fi
	if [[ $current = '=' ]]; then
		current=
	elif [[ $previous = '=' ]]; then
		previous=${COMP_WORDS[COMP_CWORD - 2]}
	fi
	if _leasectl_takes_word "$previous"; then
		_leasectl_value "$previous"
	elif [[ $current = -* ]]; then
		_leasectl_offer -W "$(_leasectl_options "$verb")"
	elif [[ -z $verb ]]; then
		_leasectl_offer -W "$_leasectl_verbs"
	elif [[ $verb = run || $verb = elect ]] && ((operands > 0)); then
		_leasectl_offer -W --
	fi
}

complete -F _leasectl leasectl
