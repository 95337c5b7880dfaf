#!/usr/bin/env bash
# Compares the speed of two commits in one run: `compare_commits.sh BEFORE AFTER [ARGUMENT...]` builds each in a worktree of its own
# (build-compare/COMMIT) and runs `brume bench ARGUMENT...` of both in turn, $ROUNDS times (3). Prints the least time of each part and
# AFTER's relative speed. Exits with 1 if AFTER takes more than $ALLOWED percent (5) longer for any part.
# BEFORE and AFTER can also be two built programs. Example: compare_commits.sh main~1 main --arch small --seconds 2 --rounds 1
set -euo pipefail
if [ $# -lt 2 ]; then
  sed -n '2,5s/^# //p' "$0" >&2
  exit 2
fi
before=$1 after=$2
shift 2
[ $# -gt 0 ] || set -- --arch small --seconds 2 --rounds 1
source=$(cd "$(dirname "$0")/../.." && pwd)

# Prints the path of a program: the argument, or that commit's, which is built first.
program_of() {
  if [ -f "$1" ] && [ -x "$1" ]; then
    realpath "$1"
    return
  fi
  local commit place
  commit=$(git -C "$source" rev-parse --verify --quiet "$1^{commit}") ||
    { echo "compare_commits.sh: '$1' is neither a commit nor a program" >&2; exit 2; }
  place=$source/build-compare/$commit
  [ -d "$place" ] || git -C "$source" worktree add --quiet --detach "$place" "$commit" >&2
  BRUME_TARGETS=brume_program "$place/tools/scripts/build.sh" build -DBRUME_TESTS=OFF >&2
  echo "$place/build/brume"
}
first=$(program_of "$before")
second=$(program_of "$after")
programs=("$first" "$second")

figures=$(mktemp -d)
trap 'rm -rf "$figures"' EXIT
for ((round = 1; round <= ${ROUNDS:-3}; ++round)); do
  for i in 0 1; do
    "${programs[i]}" bench "$@" --json "$figures/$i.$round.json" >/dev/null
  done
done

python3 - "$figures" "$before" "$after" "${ALLOWED:-5}" <<'PYTHON'
import glob, json, sys
folder, before, after, allowed = sys.argv[1:]
def least(i):
    times = {}
    for path in glob.glob(f"{folder}/{i}.*.json"):
        for part in json.load(open(path)):
            rows = {"": part["seconds"], **{f": {name}": row["seconds"] for name, row in part["operations"].items()}}
            for name, seconds in rows.items():
                key = part["part"] + name
                times[key] = min(seconds, times.get(key, seconds))
    return times
old, new = least(0), least(1)
slower = []
print(f"before: {before}\nafter:  {after}\n{'':<60} {'before':>12} {'after':>12}   ratio")
for name in old:
    if name not in new:
        continue
    ratio = old[name] / new[name] if new[name] > 0 else 1.0
    print(f"{name:<60} {old[name] * 1e3:>9.2f} ms {new[name] * 1e3:>9.2f} ms {ratio:>6.2f}x")
    if ": " not in name and new[name] > old[name] * (1 + float(allowed) / 100):
        slower.append(name)
for name in slower:
    print(f"slower by more than {allowed} %: {name}", file=sys.stderr)
sys.exit(1 if slower else 0)
PYTHON
