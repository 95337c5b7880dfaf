#!/usr/bin/env bash
# Runs the tests that use AMX on a Sapphire Rapids that Bochs emulates: brume's attention on tiles, and oneDNN's kernels for tiles.
# `tools/scripts/test_amx.sh build/tests/test_nn --gtest_filter=Products.*` runs one program; BRUME_AMX_ENV="NAME=VALUE ..." is its
# environment. Needs a build in build/, and root to install Debian's packages; ends with 77 ("skipped") otherwise. Keeps Bochs, which is
# built once, and the disks in /var/tmp/brume-amx (or $BRUME_AMX).
set -euo pipefail
cd "$(dirname "$0")/../.."
source=$PWD
if [ ! -x "${1:-build/tests/test_nn}" ]; then
  echo "tools/scripts/test_amx.sh: ${1:-build/tests/test_nn} does not exist; tools/test.sh builds the tests" >&2
  exit 1
fi
place=${BRUME_AMX:-/var/tmp/brume-amx}
needed=(g++ make patch xz-utils cpio e2fsprogs dosfstools mtools syslinux)
if ! dpkg-query -W "${needed[@]}" >/dev/null 2>&1; then
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "tools/scripts/test_amx.sh: skipped: needs the packages ${needed[*]}" >&2
    exit 77
  fi
  apt-get update -qq && apt-get install -y -qq --no-install-recommends "${needed[@]}" >/dev/null
fi
mkdir -p "$place"
exec 9>"$place/lock"  # Bochs inherits it
flock -n 9 || { echo "tools/scripts/test_amx.sh: another run uses $place" >&2; exit 1; }
rm -f "$place"/*.img.lock

if [ ! -x "$place/bochs/bochs" ] || [ tests/amx/bochs.patch -nt "$place/bochs/bochs" ]; then
  echo "== building Bochs in $place"
  mirror=$(sed -n 's/^deb \(\[[^]]*\] \)\?\(http[^ ]*\).*/\2/p; s/^URIs: *\([^ ]*\).*/\1/p' /etc/apt/sources.list /etc/apt/sources.list.d/* \
    2>/dev/null | grep '/debian/*$' | head -n 1 || true)
  rm -rf "$place/bochs" && mkdir "$place/bochs"
  /usr/lib/apt/apt-helper -o APT::Sandbox::User=root download-file "${mirror:-http://deb.debian.org/debian}/pool/main/b/bochs/bochs_3.0+dfsg.orig.tar.xz" \
    "$place/bochs.tar.xz" SHA256:78f6c73d4a6472d5130a87ab9dc306d02c7c71ed8e25b3a8ef642e2a7acd282b >/dev/null
  tar -C "$place/bochs" --strip-components=1 -xf "$place/bochs.tar.xz"
  patch -s -d "$place/bochs" -p1 <tests/amx/bochs.patch
  (cd "$place/bochs" && CFLAGS=-O2 CXXFLAGS=-O2 ./configure --with-nogui --enable-x86-64 --enable-avx --enable-evex --enable-amx \
    --enable-all-optimizations --disable-docbook && make -j "$(nproc)" bochs) >"$place/bochs.log" 2>&1 ||
    { tail -n 20 "$place/bochs.log"; exit 1; }
fi

if [ ! -e "$place/boot.img" ] || [ tests/amx/init -nt "$place/boot.img" ] || [ "$0" -nt "$place/boot.img" ]; then
  echo "== a disk that boots Linux"
  rm -rf "$place/packages" "$place/ram" && mkdir -p "$place/packages" "$place/ram"/{bin,dev,root}
  kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p')
  (cd "$place/packages" && apt-get download -qq -o APT::Sandbox::User=root "$kernel" busybox-static bochsbios vgabios &&
    for package in *.deb; do dpkg-deb -x "$package" .; done)
  find "$place/packages/lib" "$place/packages/usr/lib" -name '*.ko.xz' -exec xz -d {} + 2>/dev/null || true  # as in Debian 13
  cp "$(find "$place/packages" -path '*/bin/busybox')" "$place/ram/bin"
  install -m 755 tests/amx/init "$place/ram/init"
  add_module() {  # after those that it needs
    local file name need
    file=$(find "$place/packages" -name "${1//[-_]/[-_]}.ko")
    name=${file##*/}
    if [ -z "$file" ] || [ -e "$place/ram/$name" ]; then return; fi
    for need in $(tr '\0' '\n' <"$file" | sed -n 's/^depends=//p' | tr , ' '); do add_module "$need"; done
    cp "$file" "$place/ram" && echo "/$name" >>"$place/ram/modules"
  }
  add_module ata_piix && add_module sd_mod
  (cd "$place/ram" && find . | cpio -o -H newc --quiet | gzip -1 >"$place/initrd.gz")
  # Linux of Debian 12 takes a wrong memmove where there are short fast moves (580) without fast ones; power management of Bochs knows
  # neither PCID nor five levels of pages.
  printf '%s\n' 'DEFAULT linux' 'LABEL linux' 'KERNEL vmlinuz' "APPEND initrd=initrd.gz console=ttyS0,115200 quiet loglevel=3 \
mitigations=off nokaslr tsc=reliable no_timer_check clearcpuid=580 no5lvl nopcid" >"$place/syslinux.cfg"
  rm -f "$place/boot.img" && mkfs.vfat -F 32 -C "$place/boot.part" 65536 >/dev/null
  mcopy -i "$place/boot.part" "$place/packages/boot"/vmlinuz-* ::vmlinuz
  mcopy -i "$place/boot.part" "$place/initrd.gz" "$place/syslinux.cfg" ::
  syslinux --install "$place/boot.part"
  mv "$place/boot.part" "$place/boot.img"
fi

nn=Attention.IsThe*:Attention.WhatIs*:Attention.Padding*:Attention.AnImage*:Types/Packed.*:AddToASum.*:EveryIsa/TokenOps.*amx*
nn+=:Products.*:LearningConv.Res*:LearningConv.Sums*:LearningConv.Gives*:LearningConv.Takes*:UnetCondition.*:PatchDiscriminator.*
contracts=*NetworkContract.ImageI*/unet_8:*NetworkContract.ImageI*/unet_10:*NetworkContract.Eight*/unet_8:*NetworkContract.Grad*/unet_8
lines=(  # programs with their arguments
  "build/tests/test_nn --gtest_brief=1 --gtest_filter=$nn"
  "build/tests/test_contracts --gtest_brief=1 --gtest_filter=$contracts:*AutoencoderContract.ImageI*/kl_*"
)
if [ $# -gt 0 ]; then lines=("$(printf '%q ' "$@")"); fi
echo "== a disk with the build"
root=$place/root
rm -rf "$root" "$place/disk.img" && mkdir -p "$root"/{bin,dev,proc,sys,tmp} "$root$source"
cp "$place/ram/bin/busybox" "$root/bin" && ln -s busybox "$root/bin/sh"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp -P --parents -t "$root$source" 2>/dev/null || true
for program in $(printf '%s\n' "${lines[@]}" | cut -d ' ' -f 1 | sort -u); do
  cp -L --parents "$program" "$root$source"
  ldd "$program" | grep -o '/[^ ]*' | xargs cp -L -u --parents -t "$root"
done
{
  echo "cd $source; export HOME=/tmp PATH=/bin OMP_NUM_THREADS=1 ONEDNN_VERBOSE=1 BRUME_ISA=amx ${BRUME_AMX_ENV:-}"
  for line in "${lines[@]}"; do
    printf 'echo %q\n' "== $line"
    printf '{ %s || echo %q >>/tmp/failed; } | busybox awk '"'%s'\n" "$line" "$line" \
      '/^onednn_verbose/ { if (/exec.*_amx/) ++n; next } { print; fflush() } END { print n + 0 " primitives of oneDNN ran on AMX" }'
  done
  echo '[ ! -e /tmp/failed ]'
} >"$root/run"
mke2fs -q -t ext4 -O ^has_journal -m 0 -d "$root" "$place/disk.img" "$(($(du -sm "$root" | cut -f 1) * 11 / 10 + 100))M" >/dev/null
rm -rf "$root"

cd "$place"
: >serial.txt
timeout 3600 bochs/bochs -q -f "$source/tests/amx/bochsrc" >bochs.out 2>&1 &
bochs=$!
trap 'kill $bochs 2>/dev/null && wait $bochs; rm -f boot.img.lock disk.img.lock' EXIT
tail -n +1 -f --pid=$bochs serial.txt
wait $bochs || true
grep '^tdpbf16ps: [1-9]' bochs.out || { tail -n 3 bochs.out; grep PANIC bochs.log; exit 1; }
echo "$((SECONDS / 60)) minutes"
grep -q '^== ended 0' serial.txt
