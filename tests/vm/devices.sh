#!/bin/sh
# Brings up, in a virtual machine and as root, the devices that the tests work on: vp0, which the outer
# QEMU shows as hardware, and sim0.
#
#   devices.sh MODULES
set -eu
modules=$1

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
