#!/bin/sh
# Fetches QEMU 10 without installing it: `fetch_qemu10.sh [FOLDER]`, as any user, on Debian 12 or 13.
#
# FOLDER is ${XDG_CACHE_HOME:-~/.cache}/vdpad/qemu10 unless given. Debian's packages of QEMU and of
# the libraries that this machine lacks are unpacked into it, with an apt whose sources, state and
# cache are its own. FOLDER/bin/qemu-system-x86_64 then runs it. Nothing is done where that
# exists already.
set -eu

folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/vdpad/qemu10}
mkdir -p "$folder"
folder=$(readlink -f "$folder")
qemu=$folder/bin/qemu-system-x86_64
if [ -x "$qemu" ]; then exit; fi

# Debian 12 has QEMU 7.2, and QEMU 10 among its backports only.
. /etc/os-release
case $VERSION_CODENAME in
    bookworm) suites="bookworm bookworm-backports" from=bookworm-backports ;;
    *) suites=$VERSION_CODENAME from=$VERSION_CODENAME ;;
esac

apt=$folder/apt
mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial" "$apt/empty" "$apt/packages"
for suite in $suites; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
        "http://deb.debian.org/debian $suite main"
done >"$apt/sources.list"
cat >"$apt/apt.conf" <<EOF
Dir::State "$apt/state";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "$apt/cache";
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "$apt/empty";
Dir::Etc::Preferences "$apt/no-preferences";
Dir::Etc::PreferencesParts "$apt/empty";
Acquire::Languages "none";
APT::Default-Release "$from";
APT::Sandbox::User "";
EOF
export APT_CONFIG="$apt/apt.conf"

apt-get -q update
# What an installation would take is what this machine lacks. Reinstalled: on Debian 13 it may be
# here already, and then the copy is of the same version.
apt-get -s --no-install-recommends --reinstall install qemu-system-x86 qemu-system-common \
    qemu-system-data seabios | sed -n 's/^Inst \([^ ]*\).*/\1/p' >"$apt/wanted"
(cd "$apt/packages" && xargs apt-get -q download <"$apt/wanted")
for package in "$apt"/packages/*.deb; do dpkg-deb -x "$package" "$folder"; done
rm -r "$apt"

# The firmware is nothing but HLT: loading a machine's devices is what is wanted, and a guest that
# ran on would set them up anew.
mkdir -p "${qemu%/*}" "$folder/halt"
head -c 262144 /dev/zero | tr '\0' '\364' >"$folder/halt/bios-256k.bin"
cat >"$qemu" <<'EOF'
#!/bin/sh
here=$(dirname "$(dirname "$(readlink -f "$0")")")
export LD_LIBRARY_PATH="$here/usr/lib/x86_64-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$here/usr/bin/qemu-system-x86_64" -L "$here/halt" -L "$here/usr/share/qemu" "$@"
EOF
chmod +x "$qemu"
"$qemu" --version | head -1
