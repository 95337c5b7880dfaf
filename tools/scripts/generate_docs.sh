#!/usr/bin/env bash
# Writes the generated documents with build/brume. `generate_docs.sh --check` writes nothing, and fails if one differs from what it would
# write; it leaves out docs/samplers.md, whose figures take minutes to measure.
set -euo pipefail
cd "$(dirname "$0")/../.."
check=false
[ "${1:-}" = --check ] && check=true
brume=build/brume
[ -x "$brume" ] || { echo "tools/scripts/generate_docs.sh: $brume does not exist; tools/scripts/build.sh builds it" >&2; exit 1; }
written=$(mktemp)
trap 'rm -f "$written"' EXIT
stale=0

# place DOCUMENT COMPARE: compares the document with the text in $written, both passed through COMPARE, or replaces it.
place() {
  if ! $check; then
    cp "$written" "$1"
  elif ! diff -u <("$2" "$1") <("$2" "$written") | head -n 20; then
    echo "tools/scripts/generate_docs.sh: $1 is stale; tools/scripts/generate_docs.sh writes it" >&2
    stale=1
  fi
}
$brume schema >"$written" && place configs/schema.json cat
$brume describe --markdown >"$written" && place docs/reference.md cat
$brume describe --cli >"$written" && place docs/cli.md cat
# The table between the two comments of README.md.
{ sed '/^<!-- brume list/q' README.md && $brume list --markdown && sed -n '/^<!-- end -->/,$p' README.md; } >"$written" && place README.md cat
$check && exit $stale  # measuring every sampler takes minutes
# The laws stand below the comment in docs/samplers.md; the table above it is that of tools/experiments/samplers.py.
{ sed '/^<!-- brume conform/q' docs/samplers.md && $brume conform sampler --markdown; } >"$written" && place docs/samplers.md cat
exit $stale
