#!/usr/bin/env bash
# Makes a root of a Debian release with debootstrap: `debian_root.sh trixie FOLDER`. Keeps one that is already in FOLDER.
# Needs root; ends with 77 ("skipped") otherwise. Takes the mirror, the proxy and the hosts of this machine.
set -euo pipefail
suite=$1 root=$2
if [ "$(id -u)" -ne 0 ]; then
  echo "skipped: debootstrap and chroot need root" >&2
  exit 77
fi
[ ! -e "$root/.brume-ready" ] || exit 0
command -v debootstrap >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends debootstrap >/dev/null; }
echo "== debootstrap $suite into $root"
mkdir -p "$root"
mirror=$(sed -n 's/^deb \(\[[^]]*\] \)\?\(http[^ ]*\).*/\2/p; s/^URIs: *\([^ ]*\).*/\1/p' /etc/apt/sources.list /etc/apt/sources.list.d/* \
  2>/dev/null | grep '/debian/*$' | head -n 1 || true)
debootstrap --variant=minbase "$suite" "$root" ${mirror:+"$mirror"} >"$root.log" 2>&1 || { tail -n 20 "$root.log"; exit 1; }
for file in /etc/resolv.conf /etc/hosts; do cp -L "$file" "$root$file" 2>/dev/null || true; done
cp /etc/apt/apt.conf.d/*proxy* "$root/etc/apt/apt.conf.d/" 2>/dev/null || true
touch "$root/.brume-ready"
