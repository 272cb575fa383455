#!/bin/sh
# fetch-uml.sh DIR: puts Debian's User-Mode Linux kernel and its modules into DIR and prints the path of the kernel.
#
# Idempotent: what is there already is used. Nothing is installed; the package is downloaded and unpacked. DIR then has
#   usr/bin/linux.uml                 the kernel
#   root/lib/modules/VERSION          its modules with their index, for `modprobe -d DIR/root`
# When it cannot be had, one line on stderr says why and the exit status is 1.
set -eu

die() { echo "fetch-uml: $*" >&2; exit 1; }

[ $# -eq 1 ] || die "usage: fetch-uml.sh DIR"
mkdir -p "$1" || die "cannot make $1"
dir=$(cd "$1" && pwd)
kernel=$dir/usr/bin/linux.uml
stamp=$dir/complete

# Two test programs may start at once: one fetches, the other waits and finds the work done.
exec 9>"$dir/lock"
flock 9
if [ -f "$stamp" ] && [ -x "$kernel" ]; then echo "$kernel"; exit 0; fi

for tool in dpkg-deb:dpkg apt-get:apt depmod:kmod; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${tool%%:*}" >/dev/null || die "${tool%%:*} is missing (package ${tool##*:})"
done
PATH=$PATH:/usr/sbin:/sbin

rm -rf "$dir/usr" "$dir/root" "$dir/deb" "$stamp"
mkdir -p "$dir/deb"
download() { (cd "$dir/deb" && apt-get download -q user-mode-linux >apt.log 2>&1); }
if ! download; then
    # An empty or an old package list; refresh it once. Only root may.
    apt-get update -q >"$dir/deb/update.log" 2>&1 || die "package user-mode-linux: apt-get update failed: $(tail -n1 "$dir/deb/update.log")"
    download || die "package user-mode-linux: $(tail -n1 "$dir/deb/apt.log")"
fi
deb=$(ls "$dir"/deb/user-mode-linux_*.deb 2>/dev/null | tail -n1)
[ -n "$deb" ] || die "package user-mode-linux: apt-get download left no file"
dpkg-deb -x "$deb" "$dir" || die "cannot unpack $deb"
[ -x "$kernel" ] || die "$deb has no usr/bin/linux.uml"
version=$(ls "$dir/usr/lib/uml/modules" | tail -n1)
[ -n "$version" ] || die "$deb has no modules"
mkdir -p "$dir/root/lib/modules"
mv "$dir/usr/lib/uml/modules/$version" "$dir/root/lib/modules/$version"
depmod -b "$dir/root" "$version" || die "depmod failed for $version"
[ -n "$(find "$dir/root/lib/modules/$version" -name 'gfs2.ko*' -print -quit)" ] || die "kernel $version has no gfs2 module"
rm -rf "$dir/deb"
echo "$version" >"$stamp"
echo "$kernel"
