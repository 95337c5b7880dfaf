#!/usr/bin/env bash
# Measures the processor time of each compile step. `compile_times.sh [DIRECTORY] [CMAKE ARGUMENT...]` builds everything in DIRECTORY
# (build-times/) without ccache, and prints the sums of library, program and tests, then the 20 slowest steps.
# The times are user + system seconds, so other programs change them little.
set -euo pipefail
if [ "${1:-}" = --step ]; then  # as the compiler launcher: compile_times.sh --step LOG COMPILER ARGUMENT...
  log=$2
  shift 2
  status=0
  "$@" || status=$?
  source=${*: -1}
  times >"$log.$$"  # the second line is the child's: 0m1.234s 0m0.056s; in a pipe it would be zero
  sed -n "2s|\$| $source|p" "$log.$$" >>"$log"
  rm "$log.$$"
  exit $status
fi
cd "$(dirname "$0")/../.."
directory=${1:-build-times}
[ $# -gt 0 ] && shift
log=$PWD/$directory/compile_times.txt
rm -rf "$directory" && mkdir -p "$directory"
CCACHE_DISABLE=1 tools/scripts/build.sh "$directory" -DBRUME_TESTS=ON \
  "-DCMAKE_CXX_COMPILER_LAUNCHER=$PWD/tools/scripts/compile_times.sh;--step;$log" "$@"
awk -v root="$PWD/" -v built="$directory/" '
  function seconds(text) { split(text, part, /[ms]/); return 60 * part[1] + part[2] }
  {
    time = seconds($1) + seconds($2); name = $3; sub(root, "", name)
    sub("^" built, "", name)
    group = name ~ "^(unity/)?(tests/|test_|brume_test)" ? "tests" : name ~ "^(tools/|templates|architectures|(unity|CMakeFiles)/brume_program)" ? "program" : "library"
    sum[group] += time; count[group]++
    printf "%7.1f s  %s\n", time, name | "sort -rn | head -n 20 >&3"
  }
  END {
    for (group in sum) printf "%-8s %4d steps %7.0f s\n", group, count[group], sum[group]
  }' "$log" 3>"$log.slowest"
echo "the slowest:"
cat "$log.slowest"
