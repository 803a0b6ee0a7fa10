#!/bin/sh
# Runs in the virtual machine, as root, after its kernel: brings up the devices that the tests work
# on, and the agent that the tests speak to. When the agent ends, so does the machine.
#
#   boot.sh MODULES AGENT...
set -eu
modules=$1
shift

sh "$(dirname "$0")/devices.sh" "$modules"

# The host's files once more, but cached here: Python starts in a third of the time. The host does not
# change them while the machine runs.
root=/run/root
mkdir -p $root
mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000 cached $root
for each in proc sys dev run; do
    mount --rbind /$each $root/$each
done
export TMPDIR=/run
exec chroot $root "$@"
