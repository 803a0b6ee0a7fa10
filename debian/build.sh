#!/bin/sh
# make deb: packages of what `make install` laid out, for the Debian that this is.
#
# Compiled Python modules are for one version of Python, so each release of Debian has packages of its
# own. Their version says which, and an upgrade of Debian finds those of the next one newer. The same
# commit gives the same bytes.
set -eu
umask 022
INSTALLED=$(realpath "$1")
folder=$(realpath "$2") # where the packages go
cd "$(dirname "$0")/.."
ROOT=$PWD
PYTHON_DEPENDS=$("$INSTALLED/usr/lib/vdpad/bin/python" -Ic 'from sys import version_info as version
print("python3 (>= 3.%d~), python3 (<< 3.%d~)" % (version.minor, version.minor + 1))')
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || date +%s)}"
export INSTALLED ROOT PYTHON_DEPENDS SOURCE_DATE_EPOCH

release=$(. /etc/os-release && echo "$VERSION_ID")
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' vdpad/__init__.py)
rm -rf "$folder/source"
mkdir -p "$folder/source"
cp -a debian "$folder/source/"
cd "$folder/source"
{
    printf 'vdpad (%s+deb%s) stable; urgency=medium\n\n' "$version" "$release"
    printf '  * What has changed is told in changelog.gz.\n\n'
    printf ' -- %s  %s\n' "$(sed -n 's/^Maintainer: //p' debian/control)" \
        "$(date -R -u -d "@$SOURCE_DATE_EPOCH")"
} > debian/changelog
dpkg-buildpackage --build=binary --unsigned-changes --unsigned-buildinfo --no-check-builddeps \
    > "$folder/log" 2>&1 || { tail -n 30 "$folder/log" >&2; exit 1; }
rm -rf "$folder/source"
