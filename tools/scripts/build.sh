#!/usr/bin/env bash
# Installs what is missing and builds into build/ (or the directory given); further arguments go to cmake. Shows how far the build is.
# Builds the targets in $BRUME_TARGETS, if it is set.
set -euo pipefail
cd "$(dirname "$0")/../.."
directory=${1:-build}
[ $# -gt 0 ] && shift
tools/scripts/setup.sh
export CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
cmake -S . -B "$directory" -G Ninja "$@" >"$directory.log" 2>&1 || { cat "$directory.log"; exit 1; }
rm -f "$directory.log"

clock() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# Reads ninja's output. Shows its steps as one line that is rewritten on a terminal, else as a line per 10 %; passes on all other lines.
show_progress() {
  local line count total percent left next=10 begin=$SECONDS
  while IFS= read -r line; do
    if [[ ! $line =~ ^\[([0-9]+)/([0-9]+)\]\ (.*) ]]; then
      [[ $line == "ninja: no work to do." ]] || printf '%s\n' "$line"
      continue
    fi
    count=${BASH_REMATCH[1]} total=${BASH_REMATCH[2]}
    ((count > 0)) || continue  # "Re-checking globbed directories", before the first step
    percent=$((100 * count / total)) left=$(((SECONDS - begin) * (total - count) / count))
    line="[$percent %, $count of $total, $(clock $((SECONDS - begin))) passed, about $(clock "$left") left]"
    if [ -t 1 ]; then
      printf '\r\e[K%.*s' "$((${COLUMNS:-$(tput cols 2>/dev/null || echo 80)} - 1))" "$line ${BASH_REMATCH[3]}"
      ((count < total)) || printf '\n'
    elif ((percent >= next)); then
      printf '%s\n' "$line"
      next=$((percent / 10 * 10 + 10))
    fi
  done
}
NINJA_STATUS='[%f/%t] ' cmake --build "$directory" ${BRUME_TARGETS:+--target $BRUME_TARGETS} 2>&1 | show_progress
