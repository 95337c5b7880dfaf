#!/usr/bin/env bash
# Builds everything and runs all tests. tools/test.sh -R config runs only those whose name matches.
set -euo pipefail
cd "$(dirname "$0")/.."
# For the fuzz targets, which are skipped where it cannot be had.
[ "$(id -u)" -ne 0 ] || tools/scripts/setup.sh clang libclang-rt-dev || true
tools/scripts/build.sh build -DBRUME_TESTS=ON ${CI:+-DBRUME_WERROR=ON}
ctest --test-dir build --output-on-failure "$@"
