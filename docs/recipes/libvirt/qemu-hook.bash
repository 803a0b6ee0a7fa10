#!/bin/bash
# libvirt's hook for QEMU: lets a guest come only where this host takes what it has set.
#
# Called as `qemu GUEST OPERATION SUB-OPERATION EXTRA`, with the guest's XML on standard input. README.md
# has what it does at which operation; ../README.md has what lies in $moves, and who puts it there.
set -u
shopt -s nullglob extglob
moves=${VDPAD_MOVES:-/var/lib/vdpad-moves}
guest=${1:?expected GUEST OPERATION SUB-OPERATION EXTRA} operation=${2:?expected an operation}
no_reply=7 # vdpactl's exit code
case $guest in . | .. | */*) exit 0 ;; esac # no folder is called so

# What vdpactl says is told only where it refuses. libvirt has a hook's standard error in its own message.
ask() {
    local said code
    said=$(vdpactl --timeout 10 "$@" 2>&1 < /dev/null) && return
    code=$?
    echo "$guest, ${nic##*/}: $said" >&2
    return $code
}

ask_daemon() {
    ask ${VDPAD_SOCKET:+--socket "$VDPAD_SOCKET"} "$@"
}

check() { # of one card, by its files without their endings
    if [ -e "$nic.backend" ]; then
        ask --backend "$(< "$nic.backend")" check "$nic.state"
    else
        ask_daemon check "$nic.state" --target "@$nic.target"
    fi
}

prepare() {
    local migration committer
    [ -e "$nic.commit" ] || return 0
    read -r migration committer < "$nic.commit"
    ask_daemon prepare "$migration" "$nic.state" --target "@$nic.target" --committer "$committer"
}

cancel() { # what has ended stays as it is
    local migration _
    [ -e "$nic.commit" ] || return 0
    read -r migration _ < "$nic.commit"
    ask_daemon cancel "$migration" 2> /dev/null
}

nics=() # the cards, by whatever file there is of each, so that none without a state is let in
last=
for file in "$moves/$guest"/*.@(state|target|backend|commit); do
    [ "${file%.*}" = "$last" ] && continue
    last=${file%.*}
    nics+=("$last")
done

each_card() { # FUNCTION: of every card, so that all refusals are told; fails where one did
    local nic failed=0
    for nic in "${nics[@]}"; do
        "$1" || failed=1
    done
    return $failed
}

# Up to the first that cannot be: nothing else is called where this fails, so what was prepared is given
# up here. A name that is refused may be another guest's, and stays as it is.
prepare_all() {
    local nic prepared=()
    for nic in "${nics[@]}"; do
        prepare && prepared+=("$nic") && continue
        [ $? -ne $no_reply ] || prepared+=("$nic") # it may have been
        for nic in "${prepared[@]}"; do cancel; done
        return 1
    done
}

cat > /dev/null # the XML; nothing on standard output leaves it as it is
case $operation in
migrate)
    if [ -d "$moves/$guest" ] && [ ${#nics[@]} -eq 0 ]; then
        echo "$guest: no state came for any card; expected CARD.state in $moves/$guest" >&2
        exit 1
    fi
    each_card check && prepare_all || exit 1
    ;;
release)
    each_card cancel
    ;;
esac
exit 0
