#!/usr/bin/env bash
# Builds and runs the tests with sanitizers: `test_sanitizers.sh asan` runs all of them with AddressSanitizer and
# UndefinedBehaviorSanitizer, `test_sanitizers.sh tsan` those that start threads with ThreadSanitizer. Further arguments are the folders of
# tests to run: `test_sanitizers.sh asan config files`. A report of a sanitizer fails its test.
set -euo pipefail
cd "$(dirname "$0")/../.."
kind=${1:-}
[[ $kind == asan || $kind == tsan ]] || { echo "usage: tools/scripts/test_sanitizers.sh asan|tsan [FOLDER...]" >&2; exit 2; }
shift
folders=("$@")

tools/scripts/setup.sh
cmake --preset "$kind" >"build-$kind.log" 2>&1 || { cat "build-$kind.log"; exit 1; }
rm "build-$kind.log"
if [ $kind = tsan ] && [ ${#folders[@]} -eq 0 ]; then folders=(contracts datasets nn text train); fi  # which start threads
export BRUME_TARGETS=""
for folder in "${folders[@]}"; do BRUME_TARGETS+=" test_$folder"; done
tools/scripts/build.sh "build-$kind"

# OpenMP's barriers are invisible to the sanitizers, because libgomp is not built with them. One thread has no barriers; the limit holds
# for configurations that ask for more, too.
export OMP_NUM_THREADS=1 OMP_THREAD_LIMIT=1 UBSAN_OPTIONS=print_stacktrace=1
# allocator_may_return_null: tests ask for more memory than there is.
export ASAN_OPTIONS=detect_stack_use_after_return=1:allocator_may_return_null=1 LSAN_OPTIONS=suppressions=$PWD/tests/sanitizers/lsan.supp:print_suppressions=0
export TSAN_OPTIONS=halt_on_error=1
if [ $kind = asan ]; then
  labels=$(IFS='|'; echo "${folders[*]}")
  exec ctest --test-dir build-asan --output-on-failure -j 2 -E '^fuzz$' ${labels:+-L "^($labels)$"}
fi
for folder in "${folders[@]}"; do
  echo "== $folder"
  "build-tsan/tests/test_$folder" --gtest_brief=1 --gtest_filter='*Thread*:*AtOnce*:*AtTheSameTime*:Loader.*'
done
