#!/bin/bash
# A host of its own, in namespaces that its caller has made: NAME PORT UUID FOLDER LIBVIRT REPOSITORY.
# Its root folder is this machine's; what is written to it, and what of LIBVIRT's packages this machine
# has not, is in memory. Of FOLDER are its hooks, what lies there for them, and the logs. It goes with
# this process.
set -eu
name=$1 port=$2 uuid=$3 folder=$4 libvirt=$5 repository=$6

hostname "$name"
mount -t tmpfs none "$folder/memory"
mkdir "$folder/memory"/{written,work,root}
root=$folder/memory/root
mount -t overlay -o "lowerdir=/,upperdir=$folder/memory/written,workdir=$folder/memory/work" none "$root"
cp -a --no-clobber "$libvirt"/{usr,etc} "$root"
mkdir -p "$root$folder" "$root$repository" "$root"/{etc/libvirt/hooks,var/lib/vdpad-moves}
mount --bind "$folder" "$root$folder"
mount --bind "$repository" "$root$repository"
mount --bind "$folder/hooks" "$root/etc/libvirt/hooks"
mount --bind "$folder/moves" "$root/var/lib/vdpad-moves"
mount --rbind /dev "$root/dev"
mount -t proc none "$root/proc"
mount -t sysfs none "$root/sys"
mount -t tmpfs none "$root/run"
mkdir -p "$root"/run/{lock,vdpad/vhost-user/net0}
ln -s "$repository/.venv/bin/vdpactl" "$root/usr/bin/vdpactl"
ln -s "$repository/.venv" "$root/usr/lib/vdpad"

# As the packages' scripts make them; libvirtd does not start without.
echo "libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin" >> "$root/etc/passwd"
echo "libvirt-qemu:x:64055:" >> "$root/etc/group"

cat > "$root/etc/libvirt/libvirtd.conf" <<END
listen_tls = 0
listen_tcp = 1
listen_addr = "127.0.0.1"
tcp_port = "$port"
auth_tcp = "none"
auth_unix_rw = "none"
host_uuid = "$uuid"
log_outputs = "2:stderr"
END
cat > "$root/etc/libvirt/qemu.conf" <<END
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
dynamic_ownership = 0
stdio_handler = "file"
END

start() { # LOG COMMAND …
    local log=$folder/$1
    shift
    chroot "$root" "$@" > "$log" 2>&1 &
}
bin=$repository/.venv/bin
start vdpad.log "$bin/vdpad" --socket /run/vdpad/vdpad.sock --varlink /run/vdpad/io.vdpad
start back-end.log "$bin/vdpad-vhost-user" --software --name net0 --stay \
    --socket-path /run/vdpad/vhost-user-net0.sock --state-directory /run/vdpad/vhost-user/net0/state
start libvirtd.log libvirtd --listen
touch "$folder/begun"
# The first process of its namespace waits for those whose parents have ended, as QEMU's has.
while :; do sleep 1; done
