#!/bin/sh
# make install: lays out below DESTDIR what a distribution's package would have.
#
# vdpad and the packages that it is made of lie in a folder of their own, PREFIX/lib/vdpad, in the
# versions that were tested (requirements-run.lock); a distribution's own may be too old, as Debian 12's
# are. The folder is what Python takes for a virtual environment, and the system's Python runs it: one
# below somebody's home could not be run by the service's user. What pip has unpacked stays in
# build/packages, compiled, for a lock and a version of Python, and is copied from there the next time.
set -eu
umask 022
cd "$(dirname "$0")/.."
root=$DESTDIR$PREFIX
lib=$PREFIX/lib/vdpad
python=$(readlink -f "$PYTHON")
packages=$DESTDIR$lib/lib/$(basename "$python")/site-packages
doc=$root/share/doc/vdpad

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "expected $PYTHON to be Python 3.11 or later" >&2
    exit 1
}

# A file of the repository's, with its paths, which are the defaults', put right.
place() { # FILE MODE DESTINATION
    install -d "$(dirname "$3")"
    sed -e "s,/usr/lib/vdpad,$lib,g" -e "s,/usr/bin/vdpad,$PREFIX/bin/vdpad,g" \
        -e "s,/etc/vdpad,$SYSCONFDIR/vdpad,g" "$1" > "$3"
    chmod "$2" "$3"
}

# A page's links lead to what lies beside it; of those to the rest of the repository the words are left.
page() { # FILE
    sed -E -e 's,(\]\(|")docs/,\1,g' -e 's,\]\(\.\./(README\.md|kit/),](\1,g' \
        -e 's,\]\([^)]*/(io\.vdpad\.[A-Za-z]+\.varlink)\),](\1),g' \
        -e 's,\[([^][]*)\]\((\.\./)?(CONTRIBUTING\.md|CHANGELOG\.md|(benchmarks|config|man|tests|vdpad)/)[^)]*\),\1,g' \
        "$1" > "$doc/$(basename "$1")"
    chmod 644 "$doc/$(basename "$1")"
}

# The service cannot write what it compiled; and packagers change times.
compile() { # FOLDER OPTION...
    folder=$1
    shift
    "$python" -m compileall -q "$@" --invalidation-mode unchecked-hash "$folder"
}

rm -rf "$DESTDIR$lib"
install -d "$packages" "$DESTDIR$lib/bin" "$root/bin"
ln -s "$python" "$DESTDIR$lib/bin/python"
printf 'home = %s\ninclude-system-site-packages = false\n' "$(dirname "$python")" > "$DESTDIR$lib/pyvenv.cfg"
unpacked=build/packages/compiled-$(basename "$python")-$(sha256sum requirements-run.lock | cut -c 1-16)
if [ ! -d "$unpacked" ]; then
    rm -rf build/packages
    "$PIP" --python "$python" --disable-pip-version-check --quiet install --root-user-action=ignore --require-hashes \
        --no-deps --no-compile --target "$unpacked.part" -r requirements-run.lock
    rm -rf "$unpacked.part/bin" # commands of others
    find "$unpacked.part" -type d -name tests -prune -exec rm -r {} + # theirs, a fifth of all
    # Each says where it lies as by default; where that is not so, Python knows it at each import.
    compile "$unpacked.part" -s "$unpacked.part" -p "/usr/lib/vdpad/lib/$(basename "$python")/site-packages"
    mv "$unpacked.part" "$unpacked"
fi
cp -R "$unpacked/." "$packages"
find vdpad -name '*.py' -o -name py.typed -o -name '*.varlink' | while read -r each; do
    install -Dm 644 "$each" "$packages/$each"
done
compile "$packages/vdpad" -s "$DESTDIR"

for each in vdpad vdpactl vdpad-vhost-user; do
    printf '#!%s/bin/python -I\nimport sys\n\nfrom vdpad.cli.%s import main\n\nsys.exit(main())\n' \
        "$lib" "$(echo "$each" | tr - _)" > "$root/bin/$each"
    chmod 755 "$root/bin/$each"
done

for each in vdpad.service vdpad.socket vdpad-varlink.socket \
    vdpad-vhost-user@.service vdpad-vhost-user@.socket; do
    place "systemd/$each" 644 "$root/lib/systemd/system/$each"
done
for each in vhost-vdpa.conf udp.conf 90-vdpad-vhost-vdpa.rules vdpad-metrics.conf \
    vdpad-vhost-user-tap.conf; do
    place "systemd/optional/$each" 644 "$DESTDIR$lib/systemd/$each"
done
place systemd/sysusers.conf 644 "$root/lib/sysusers.d/vdpad.conf"
place systemd/tmpfiles.conf 644 "$root/lib/tmpfiles.d/vdpad.conf"
place systemd/vdpad.catalog 644 "$root/lib/systemd/catalog/vdpad.catalog"

# How QEMU and libvirt find back end programs (QEMU, docs/interop/vhost-user.json).
place systemd/50-vdpad-vhost-user.json 644 "$root/share/qemu/vhost-user/50-vdpad-vhost-user.json"

install -d "$DESTDIR$SYSCONFDIR/vdpad/conf.d"
if [ ! -e "$DESTDIR$SYSCONFDIR/vdpad/vdpad.toml" ]; then # the operator's, from then on
    place config/vdpad.toml 644 "$DESTDIR$SYSCONFDIR/vdpad/vdpad.toml"
fi

install -d "$root/share/vdpad/monitoring"
install -m 644 config/monitoring/* "$root/share/vdpad/monitoring"
install -Dm 644 kit/c/vdpad-lend.h "$root/include/vdpad-lend.h"

install -d "$doc/examples" "$doc/pictures"
for each in README.md docs/*.md; do
    page "$each"
done
install -m 644 LICENSE docs/*.json vdpad/daemon/api/*.varlink vdpad/backend/control/*.varlink "$doc"
install -m 644 docs/examples/* "$doc/examples"
install -m 644 docs/pictures/*.svg "$doc/pictures"
find kit -type f -not -path '*/target/*' -not -name Cargo.lock | while read -r each; do
    install -Dm 644 "$each" "$doc/$each"
done
(cd docs && find recipes -type f -not -path '*/__pycache__/*') | while read -r each; do
    place "docs/$each" 644 "$doc/$each"
done
for each in bash-completion/completions zsh/vendor-completions fish/vendor_completions.d; do
    install -d "$root/share/$each"
    install -m 644 build/completion/$each/* "$root/share/$each" # `make completion`
done
for each in build/man/*.[1-8]; do # `make man`
    place "$each" 644 "$root/share/man/man${each##*.}/$(basename "$each")"
done
