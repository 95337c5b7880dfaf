#!/usr/bin/env bash
# Installs what the test of the studio needs: Chromium, Node.js, Playwright and axe-core. Without them the test is skipped.
set -euo pipefail
cd "$(dirname "$0")/../.."
missing=()
[ -x /usr/bin/chromium ] || missing+=(chromium)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
[ ${#missing[@]} -eq 0 ] || tools/scripts/setup.sh "${missing[@]}"
cd tests/studio
[ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --ignore-scripts --no-fund --no-audit >&2
