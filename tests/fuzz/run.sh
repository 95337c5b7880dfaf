#!/usr/bin/env bash
# run.sh FOLDER [RUNS]: builds the fuzz targets in FOLDER and gives each of them RUNS inputs, the same in each run. Ends with 77 ("skipped")
# if clang or its fuzzer is not installed. Leaves a failing input in FOLDER/failures.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$1
runs=${2:-20000}
clang=$(command -v clang++-14 || command -v clang++ || true)
if [ -z "$clang" ]; then
  echo "skipped: fuzzing needs clang++ (Debian: clang, libclang-rt-dev)"
  exit 77
fi
mkdir -p "$folder/failures"
if ! echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' |
  "$clang" -x c++ -fsanitize=fuzzer,address - -o "$folder/probe" 2>"$folder/probe.log"; then
  echo "skipped: $clang has no libFuzzer (Debian: libclang-rt-dev)"
  exit 77
fi
cmake -S "$here" -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER="$clang" \
  ${CMAKE_PREFIX_PATH:+-DCMAKE_PREFIX_PATH="$CMAKE_PREFIX_PATH"} \
  >"$folder/configure.log" 2>&1 || { cat "$folder/configure.log"; exit 1; }
cmake --build "$folder" ${JOBS:+-j "$JOBS"} >"$folder/build.log" 2>&1 || { tail -n 50 "$folder/build.log"; exit 1; }
rm -rf "$folder/seeds"
"$folder/write_seeds" "$folder/seeds"
# Leaks are of LibTorch's start; sizes in MiB: no allocation beyond what 4096 bytes may ask for (a deflated entry: 4 MiB).
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=0 OMP_NUM_THREADS=1
for target in safetensors gguf network_pickle zip npz torch pickle json clip_tokenizer image_header csv yaml tar prompt idx pixels \
  sentencepiece request; do
  if ! "$folder/fuzz_$target" -runs="$runs" -seed=1 -max_len=4096 -timeout=10 -malloc_limit_mb=16 -rss_limit_mb=2048 \
    -artifact_prefix="$folder/failures/$target-" "$folder/seeds/$target" >"$folder/$target.log" 2>&1; then
    tail -n 40 "$folder/$target.log"
    exit 1
  fi
  echo "$target: $(tail -n 1 "$folder/$target.log")"
done
