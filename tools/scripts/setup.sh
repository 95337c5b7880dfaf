#!/usr/bin/env bash
# Installs the packages that building brume needs (Debian 12 or 13), and those named as arguments. Prints nothing if all are installed.
set -euo pipefail
packages=(g++ cmake ninja-build pkg-config ccache libtorch-dev libdnnl-dev libopenblas0-openmp libyaml-cpp-dev libfmt-dev libopencv-dev
          libcli11-dev libcpp-httplib-dev nlohmann-json3-dev zlib1g-dev libicu-dev libsqlite3-dev libgtest-dev
          libsentencepiece-dev libgloo-dev "$@")
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
line="apt-get install -y --no-install-recommends ${missing[*]}"
if [ "$(id -u)" -ne 0 ]; then
  echo "brume needs packages that are not installed. Run this, then try again:" >&2
  echo "  sudo $line" >&2
  exit 1
fi
echo "installing: ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt-get update && $line; } >"$log" 2>&1; then
  tail -n 30 "$log" >&2
  echo "the installation failed; the line was: $line" >&2
  exit 1
fi
