#!/bin/sh
# Runs in the virtual machine, as root, after its kernel: brings up the devices that the tests work
# on, and the agent that the tests speak to. When the agent ends, so does the machine.
#
#   boot.sh MODULES AGENT...
set -eu
modules=$1
shift

modprobe vhost_vdpa max_iotlb_entries=65536
modprobe virtio_console
for each in vringh vdpa_sim vdpa_sim_net vp_vdpa; do
    insmod "$modules/$each.ko"
done

for device in /sys/bus/pci/devices/*; do
    # A modern virtio-net device: the one that the outer QEMU shows us as hardware.
    if [ "$(cat "$device/vendor")$(cat "$device/device")" = 0x1af40x1041 ]; then
        address=${device##*/}
        echo "$address" > "$device/driver/unbind"
        echo vp-vdpa > "$device/driver_override"
        echo "$address" > /sys/bus/pci/drivers/vp-vdpa/bind
        vdpa dev add name vp0 mgmtdev "pci/$address"
    fi
done
vdpa dev add name sim0 mgmtdev vdpasim_net mac 52:54:00:00:00:01

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
