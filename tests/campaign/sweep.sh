#!/usr/bin/env bash
# Kills a sweep of 2 x 3 trainings (kill -9) at a random moment of the fourth, and starts it again: `sweep.sh [KILLS]`, default 10. Checks
# that only what is missing runs, and that the table and the models have the bits of a sweep without a kill. BRUME names the program.
. "$(dirname "$0")/common.sh"
kills=${1:-10}
{ cat tiny.yaml; printf 'compute: {threads: 1}\nsweep:\n  grid: {train.ema.decay: [0.9, 0.99]}\n  repeat: 3\n'; } >sweep.yaml
"$brume" sweep sweep.yaml -o whole >table 2>log || { tail -n 1 log >&2; exit 2; }
fourth="decay=0.99,seed=0"
for ((k = 0; k < kills; k++)); do
  rm -rf again
  "$brume" sweep sweep.yaml -o again >/dev/null 2>&1 &
  process=$!
  until [ -d "again/$fourth" ] || ! kill -0 $process 2>/dev/null; do sleep 0.02; done
  sleep "$(awk -v r=$RANDOM 'BEGIN { print 3 * r / 32768 }')"
  kill -9 $process 2>/dev/null || true
  wait $process 2>/dev/null || true
  trained=$(ls again/*/model.safetensors 2>/dev/null | wc -l)
  touch mark
  "$brume" sweep sweep.yaml -o again --only missing >again_table 2>log || fail "the sweep after a kill: $(tail -n 1 log)"
  cmp -s table again_table || fail "another table after a kill with $trained models"
  for run in whole/*/; do
    name=$(basename "$run")
    cmp -s "$run/model.safetensors" "again/$name/model.safetensors" || fail "again/$name/model.safetensors has other bytes"
  done
  for name in decay=0.9,seed=0 decay=0.9,seed=1 decay=0.9,seed=2; do
    [ mark -nt "again/$name/model.safetensors" ] || fail "$name was trained again"
  done
done
echo "sweep: $kills kills in the fourth of six runs"
finish
