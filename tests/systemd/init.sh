#!/bin/busybox sh
# The machine's first process. Lays the host's files, read-only, and what stands in /layers over them
# under a file system in memory, leaves of systemd's units what the tests need, and becomes systemd.
set -e
/bin/busybox --install -s /bin
export PATH=/bin
mkdir -p /proc /dev /layer /memory /new
mount -t proc none /proc
mount -t devtmpfs none /dev
for each in /modules/*.ko; do insmod "$each"; done

# Cached: the host changes none of it while the machine runs.
lower=
for tag in $(cat /layers); do
    mkdir "/layer/$tag"
    mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000 "$tag" "/layer/$tag"
    lower=$lower${lower:+:}/layer/$tag
done
mount -t tmpfs -o mode=755 memory /memory
mkdir -m 755 /memory/upper /memory/work
mount -t overlay -o "lowerdir=$lower,upperdir=/memory/upper,workdir=/memory/work" root /new

cd /new
rm -rf run
rm -f .dockerenv # systemd would take itself to be in a container, and keep all mounts private
mkdir -p run dev proc sys
release=$(uname -r)
rm -rf "usr/lib/modules/$release"
mkdir -p usr/lib/modules
ln -s "$(cat /kernel)/lib/modules/$release" "usr/lib/modules/$release"

# Nothing of what this host runs, and nothing that a machine with no disk, seat or network needs.
units=usr/lib/systemd/system
rm -rf etc/systemd etc/fstab etc/machine-id etc/udev/rules.d etc/modules-load.d etc/tmpfiles.d
rm -rf usr/lib/systemd/system-generators "$units"/*.wants
mkdir -p etc/systemd/system etc/systemd/journald.conf.d etc/tmpfiles.d
mkdir "$units/sysinit.target.wants" "$units/sockets.target.wants"
for each in systemd-journald.service systemd-udevd.service; do
    ln -s "../$each" "$units/sysinit.target.wants/"
done
for each in systemd-journald.socket systemd-journald-dev-log.socket \
    systemd-udevd-control.socket systemd-udevd-kernel.socket; do
    ln -s "../$each" "$units/sockets.target.wants/"
done
: > etc/fstab
: > etc/tmpfiles.d/tmp.conf # this repository may lie in /tmp, which would be emptied
echo 0123456789abcdef0123456789abcdef > etc/machine-id
printf '[Journal]\nStorage=volatile\nRateLimitBurst=0\n' > etc/systemd/journald.conf.d/tests.conf
cp /agent.service etc/systemd/system/
printf '[Unit]\nRequires=basic.target agent.service\nAfter=basic.target\nAllowIsolate=yes\n' \
    > etc/systemd/system/default.target

cd /
umount /proc
mount --move /dev /new/dev
exec switch_root /new /usr/lib/systemd/systemd --system
