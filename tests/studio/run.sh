#!/usr/bin/env bash
# run.sh PROGRAM [--screenshots DIR]: the test of the studio. Exit code 77: what it needs is not installed.
set -euo pipefail
if ! command -v node >/dev/null; then
  echo "skipped: Node.js is not installed (tools/scripts/setup_studio.sh)"
  exit 77
fi
program=$(realpath "$1")
shift
exec node "$(dirname "$0")/studio.mjs" "$program" "$@"
