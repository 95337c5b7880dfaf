#!/usr/bin/env bash
# Installs what is missing and builds into build/ (or the directory given); further arguments go to cmake.
set -euo pipefail
cd "$(dirname "$0")/../.."
directory=${1:-build}
[ $# -gt 0 ] && shift
tools/scripts/setup.sh
export CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
cmake -S . -B "$directory" -G Ninja "$@" >"$directory.log" 2>&1 || { cat "$directory.log"; exit 1; }
rm -f "$directory.log"
cmake --build "$directory"
