#!/usr/bin/env bash
# Builds everything and runs all tests, two at a time (CTEST_PARALLEL_LEVEL). Arguments go to ctest: `tools/test.sh -L fast`,
# `-L config` for a folder, `-R config.Registry` for a suite.
set -euo pipefail
cd "$(dirname "$0")/.."
# For the fuzz targets, which are skipped without clang.
[ "$(id -u)" -ne 0 ] || tools/scripts/setup.sh clang libclang-rt-dev || true
tools/scripts/build.sh build -DBRUME_TESTS=ON ${CI:+-DBRUME_WERROR=ON}
export CTEST_PARALLEL_LEVEL=${CTEST_PARALLEL_LEVEL:-2}
ctest --test-dir build --output-on-failure "$@"
