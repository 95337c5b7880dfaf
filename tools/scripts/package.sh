#!/usr/bin/env bash
# Makes packages/brume_VERSION_ARCHITECTURE.deb and packages/brume-VERSION-SYSTEM.tar.gz in build/ (or the directory given), which must
# be built. The archive names the packages it needs in its DEPENDENCIES: those that dpkg-shlibdeps finds for the .deb.
set -euo pipefail
cd "$(dirname "$0")/../.."
directory=${1:-build}
command -v dpkg-shlibdeps >/dev/null || { echo "tools/scripts/package.sh: needs dpkg-shlibdeps (Debian: dpkg-dev)" >&2; exit 1; }
cd "$directory"
rm -rf packages
cpack -G DEB -B packages >packages.log 2>&1 || { cat packages.log; exit 1; }
cpack -G TGZ -B packages >>packages.log 2>&1 || { cat packages.log; exit 1; }
rm -rf packages.log packages/_CPack_Packages
deb=$(echo packages/*.deb) archive=$(echo packages/*.tar.gz)
folder=$(basename "$archive" .tar.gz)
mkdir "packages/$folder"
{
  echo "brume needs these packages of Debian, as dpkg-shlibdeps finds them:"
  dpkg-deb -f "$deb" Depends
} >"packages/$folder/DEPENDENCIES"
gzip -d "$archive"
tar -rf "${archive%.gz}" -C packages --owner=root --group=root "$folder/DEPENDENCIES"
gzip "${archive%.gz}"
rm -r "packages/${folder:?}"
ls -sh packages
