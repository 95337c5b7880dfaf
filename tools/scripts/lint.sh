#!/usr/bin/env bash
# clang-format and clang-tidy on what changed since a commit (HEAD~1 where not given), or on the files named after --.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ "${1:-}" = -- ]; then
  shift
  files=("$@")
else
  mapfile -t files < <(git diff --name-only --diff-filter=d "${1:-HEAD~1}" -- 'framework/*.cpp' 'framework/*.h' 'plugins/*.cpp' 'tools/*.cpp' 'tests/*.cpp')
fi
[ ${#files[@]} -eq 0 ] && exit 0
clang-format --dry-run --Werror "${files[@]}"
sources=()
for file in "${files[@]}"; do [[ $file == *.cpp ]] && sources+=("$file"); done
# clang 14 cannot read LibTorch 1.13's ivalue.h in C++20 unless it comes first.
[ ${#sources[@]} -eq 0 ] || clang-tidy -p build --quiet --extra-arg=-include --extra-arg=ATen/core/ivalue.h "${sources[@]}"
