#!/usr/bin/env bash
# Makes SAMPLES samples (default 1000) in one process from the library and prints its resident memory: `leaks.sh [SAMPLES]`. Fails if it
# grows by more than 1 % in the second half. Needs `ninja -C build campaign_leaks`.
. "$(dirname "$0")/common.sh"
"$brume" train tiny.yaml --set train.steps=1 --set train.preview.count=0 --out run >/dev/null 2>&1
"$(dirname "$brume")/tests/campaign_leaks" run/model.safetensors "${1:-1000}" || fail "the memory grows"
finish
