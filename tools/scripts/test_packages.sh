#!/usr/bin/env bash
# Makes the .deb and the .tar.gz, installs each in a bare Debian root, and runs it there: lists plugins, trains two steps, samples.
# `test_packages.sh` takes build/ and a root of this machine's release. `test_packages.sh trixie` first builds in the root of
# test_debian13.sh. `test_packages.sh SUITE FOLDER` takes the packages in FOLDER. The bare root is kept in /var/tmp/brume-bare-SUITE,
# as debootstrap made it. Needs root.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$(. /etc/os-release && echo "$VERSION_CODENAME")
suite=${1:-$here}
packages=${2:-}
bare=/var/tmp/brume-bare-$suite
tools/scripts/debian_root.sh "$suite" "$bare"
if [ -z "$packages" ] && [ "$suite" = "$here" ]; then
  BRUME_TARGETS=brume_program tools/scripts/build.sh build
  tools/scripts/package.sh build
  packages=build/packages
elif [ -z "$packages" ]; then
  tools/scripts/test_debian13.sh --packages
  packages=/var/tmp/brume-debian13/srv/brume/build-release/packages
fi

root=$bare.test
mounted=()
cleanup() {
  for m in "${mounted[@]}"; do umount -l "$m" || true; done
  rm -rf --one-file-system "$root"
}
trap cleanup EXIT
rm -rf --one-file-system "$root"
cp -a "$bare" "$root"
mount -t proc proc "$root/proc" && mounted+=("$root/proc")
mkdir "$root/packages" && cp "$packages"/* "$root/packages"
in_root() { chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }
quietly() { in_root "$@" >"$root/log" 2>&1 || { tail -n 20 "$root/log"; exit 1; }; }

# try PROGRAM CONFIGURATION: what a user does first.
try() {
  in_root "$1" --version
  in_root "$1" list sampler >/dev/null
  quietly "$1" train "$2" --out /root/run --overwrite --set train.steps=2 --set train.preview.count=0
  quietly "$1" sample /root/run/model.safetensors -n 2 --steps 2 -o /root/two.png
  [ -s "$root/root/two.png" ] || { echo "$1 wrote no image"; exit 1; }
}

echo "== the .deb in a bare $suite"
quietly apt-get update
quietly sh -c 'apt-get install -y --no-install-recommends /packages/*.deb'
in_root dpkg-query -W brume
try brume /usr/share/brume/configs/experiments/quickstart.yaml
quietly apt-get remove -y brume
[ ! -e "$root/usr/bin/brume" ] || { echo "apt-get remove left /usr/bin/brume"; exit 1; }

echo "== the .tar.gz in a bare $suite, with the packages that its DEPENDENCIES names"
quietly apt-get autoremove -y
quietly sh -c 'tar -C /opt -xzf /packages/*.tar.gz && mv /opt/brume-* /opt/brume'
needed=$(sed -n '2s/ *([^)]*)//g; 2s/ *|[^,]*//g; 2s/,/ /gp' "$root/opt/brume/DEPENDENCIES")
quietly apt-get install -y --no-install-recommends $needed
try /opt/brume/bin/brume /opt/brume/share/brume/configs/experiments/quickstart.yaml
echo "both packages work in a bare $suite"
