#!/usr/bin/env bash
# Runs the tests inside a Debian 13 root, against LibTorch 2.6. Needs root (debootstrap, chroot); says so and stops otherwise.
# The root is kept in /var/tmp/brume-debian13 (or $1), so that a second run is quicker. `--prepare` stops before the build.
set -euo pipefail
cd "$(dirname "$0")/../.."
prepare_only=false
[ "${1:-}" = --prepare ] && { prepare_only=true; shift; }
root=${1:-/var/tmp/brume-debian13}
if [ "$(id -u)" -ne 0 ]; then
  echo "tools/scripts/test_debian13.sh: skipped: debootstrap and chroot need root" >&2
  exit 77
fi
command -v debootstrap >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends debootstrap >/dev/null; }
if [ ! -e "$root/.brume-ready" ]; then
  echo "== debootstrap trixie into $root"
  mkdir -p "$root"
  mirror=$(sed -n 's/^deb \(\[[^]]*\] \)\?\(http[^ ]*\).*/\2/p; s/^URIs: *\([^ ]*\).*/\1/p' /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep '/debian/*$' | head -n 1 || true)
  debootstrap --variant=minbase trixie "$root" ${mirror:+"$mirror"} >"$root.log" 2>&1 || { tail -n 20 "$root.log"; exit 1; }
  for file in /etc/resolv.conf /etc/hosts; do cp -L "$file" "$root$file" 2>/dev/null || true; done
  cp /etc/apt/apt.conf.d/*proxy* "$root/etc/apt/apt.conf.d/" 2>/dev/null || true
  touch "$root/.brume-ready"
fi
source=$root/srv/brume
mkdir -p "$source" "$root/srv/shared" "$root/proc"
mounted=()
cleanup() { for m in "${mounted[@]}"; do umount -l "$m" || true; done; }
trap cleanup EXIT
mount -t proc proc "$root/proc" && mounted+=("$root/proc")
if [ -d ../shared ]; then
  mount --bind -o ro ../shared "$root/srv/shared" && mounted+=("$root/srv/shared")
fi
# What git knows of, as it is here, without losing the root's own build directory.
git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --ignore-failed-read -cf - 2>/dev/null | tar -C "$source" -xf -
in_root() { chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 ${CI:+CI=$CI} "$@"; }
in_root /srv/brume/tools/scripts/setup.sh
in_root dpkg-query -W libtorch-dev libdnnl3 2>/dev/null || in_root dpkg-query -W libtorch-dev
$prepare_only && exit 0
in_root /srv/brume/tools/test.sh
