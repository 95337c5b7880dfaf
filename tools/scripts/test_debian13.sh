#!/usr/bin/env bash
# Runs the tests inside a Debian 13 root, against LibTorch 2.6. Needs root (debootstrap, chroot); ends with 77 ("skipped") otherwise.
# The root is kept in /var/tmp/brume-debian13 (or the folder given), so that a second run is quicker. `--prepare` stops before the build;
# `--packages` builds the program without tests, and its packages (package.sh).
set -euo pipefail
cd "$(dirname "$0")/../.."
what=tests
case "${1:-}" in --prepare | --packages) what=${1#--} && shift ;; esac
root=${1:-/var/tmp/brume-debian13}
tools/scripts/debian_root.sh trixie "$root"
source=$root/srv/brume
mkdir -p "$source" "$root/srv/shared" "$root/proc"
mounted=()
cleanup() { for m in "${mounted[@]}"; do umount -l "$m" || true; done; }
trap cleanup EXIT
mount -t proc proc "$root/proc" && mounted+=("$root/proc")
if [ -d ../shared ]; then
  mount --bind -o ro ../shared "$root/srv/shared" && mounted+=("$root/srv/shared")
fi
# What git knows of, as it is here, without losing the root's own build directory. What was renamed here since is deleted there.
for folder in cmake configs docs framework plugins shims tests tools; do rm -rf --one-file-system "${source:?}/$folder"; done
git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --ignore-failed-read -cf - 2>/dev/null |
  tar -C "$source" -xf -
in_root() { chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 ${CI:+CI=$CI} "$@"; }
in_root /srv/brume/tools/scripts/setup.sh
in_root dpkg-query -W libtorch-dev libdnnl3 2>/dev/null || in_root dpkg-query -W libtorch-dev
case $what in
  packages)
    in_root /srv/brume/tools/scripts/setup.sh dpkg-dev
    in_root /srv/brume/tools/scripts/build.sh build-release -DBRUME_TESTS=OFF
    in_root /srv/brume/tools/scripts/package.sh build-release
    ;;
  tests) in_root /srv/brume/tools/test.sh ;;
esac
