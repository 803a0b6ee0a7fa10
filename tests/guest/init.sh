#!/bin/busybox sh
# The guest's only process that does not end. It brings the guest up, and then runs what comes in over
# its second serial port: a line is a command for this shell; what goes back is "CODE LENGTH\n" and
# LENGTH bytes, all that the command printed. The first reply says that the guest is up.
#
# A reply is sent once the guest has settled. Linux hands receive modes and address tables to the
# device from a work queue, behind the back of the program that changed them. With one CPU, work that
# is due is a task that is ready to run, and the shell that looks is the only other one. Where there
# are others at every look, the guest is busy with jobs of its own: then the work has had its turn, as
# Linux shares the CPU among all that are ready. A look must be short, or the jobs on a slow machine
# have always begun anew when it comes to it: so the shell reads a short line itself.
/bin/busybox --install -s /bin
export PATH=/bin
mkdir -p /proc /sys /dev /tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev 2>/dev/null # some kernels do so themselves

ip() { # not busybox's own, which its shell would prefer
    /bin/ip "$@"
}

settled() {
    looks=1000
    running=
    while [ "$running" != 1 ] && [ $looks -gt 0 ]; do
        read -r _ _ _ running _ < /proc/loadavg
        running=${running%%/*}
        looks=$((looks - 1))
    done
}

up() {
    # IPv6 joins a group for each address of its own, when the carrier is there: here for the
    # interfaces that come up now, and for none that is added later.
    echo 0 > /proc/sys/net/ipv6/conf/default/addr_gen_mode
    insmod /modules/*-virtio_net.ko
    for each in /sys/class/net/eth*; do
        ip link set "${each##*/}" up
    done
    for each in /sys/class/net/eth*; do
        until [ "$(cat "$each/operstate")" = up ]; do
            usleep 20000
        done
    done
    echo 1 > /proc/sys/net/ipv6/conf/default/addr_gen_mode
}

restart() { # everything as booted: the driver resets its devices, and what was upon them is gone
    rmmod virtio_net
    up
}

for each in /modules/*; do
    case $each in
        *-virtio_net.ko) ;; # last, by up: the others have to be there when an interface goes up
        *) insmod "$each" ;;
    esac
done
echo 0 > /proc/sys/net/ipv6/conf/all/accept_dad # an address has its group at once
up

exec 3<>/dev/ttyS1
stty -F /dev/ttyS1 raw -echo
code=0
: > /tmp/said
while true; do
    settled
    echo "$code $(stat -c %s /tmp/said)" >&3
    cat /tmp/said >&3
    read -r line <&3
    eval "$line" > /tmp/said 2>&1
    code=$?
done
