#!/usr/bin/env bash
# clang-format on all sources; clang-tidy on those that changed since a commit (HEAD~1 if not given), or on the files named after --.
# At most $BRUME_TIDY_FILES of them (10), the smallest first: one takes half a minute. Configures build-lint/, which has a command for
# each source.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ "${1:-}" = -- ]; then
  shift
  changed=("$@")
else
  mapfile -t changed < <(git diff --name-only --diff-filter=d "${1:-HEAD~1}" -- '*.cpp' 2>/dev/null || true)
fi
for tool in clang-format clang-tidy; do
  command -v $tool >/dev/null || { echo "tools/scripts/lint.sh: skipped: needs $tool (Debian: $tool)" >&2; exit 0; }
done
echo "== clang-format on all sources"
git ls-files -z '*.cpp' '*.h' | xargs -0 clang-format --dry-run --Werror

cmake --preset dev -B build-lint -DBRUME_UNITY=OFF >build-lint.log 2>&1 || { cat build-lint.log; exit 1; }
rm build-lint.log
sources=()
for file in "${changed[@]}"; do
  [ ! -e "$file" ] || ! grep -q "\"file\": \"$PWD/$file\"" build-lint/compile_commands.json || sources+=("$file")
done
if [ ${#sources[@]} -eq 0 ]; then exit 0; fi
mapfile -t sources < <(ls -Sr "${sources[@]}" | head -n "${BRUME_TIDY_FILES:-10}")
echo "== clang-tidy on ${#sources[@]} of ${#changed[@]} changed sources"
# GCC's precompiled headers are not for clang.
commands=$(mktemp -d)
trap 'rm -rf "$commands"' EXIT
sed 's/ -Winvalid-pch//; s/ -include [^ ]*cmake_pch\.hxx//' build-lint/compile_commands.json >"$commands/compile_commands.json"
# clang 14 cannot read LibTorch 1.13's ivalue.h in C++20 unless it comes first.
printf '%s\0' "${sources[@]}" | xargs -0 -n 1 -P "$(nproc)" \
  clang-tidy -p "$commands" --quiet --extra-arg=-include --extra-arg=ATen/core/ivalue.h
