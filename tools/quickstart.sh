#!/usr/bin/env bash
# From a fresh clone to generated images: installs what is missing, builds, measures the machine, trains for about two minutes, samples,
# and counts how many of 100 samples show what was asked for. Prints where the pictures are.
set -euo pipefail
cd "$(dirname "$0")/.."
config=configs/experiments/quickstart.yaml run=runs/quickstart
batch=$(sed -n 's/^  batch: //p' "$config")
seconds=120 fewest=600 most=6000  # of training; the steps that are worth it

echo "== building (long the first time, quick afterwards)"
tools/scripts/build.sh build -DBRUME_TESTS=OFF

echo "== measuring the machine"
trial=$(mktemp -d)
trap 'rm -rf "$trial"' EXIT
build/brume train "$config" --out "$trial/run" --set train.steps=30 >"$trial/log" 2>&1 || { cat "$trial/log" >&2; exit 1; }
rate=$(tr '\r' '\n' <"$trial/log" | sed -n 's/.* \([0-9.]*\) images\/s.*/\1/p' | tail -1)
steps=$(awk -v r="$rate" -v b="$batch" -v s=$seconds -v lo=$fewest -v hi=$most \
  'BEGIN { n = int(r * s / b); print (n < lo ? lo : n > hi ? hi : n) }')
echo "$rate images per second: $steps steps of $batch images take $(awk -v r="$rate" -v n="$steps" -v b="$batch" \
  'BEGIN { t = int(n * b / r + 0.5); printf "%d:%02d minutes", t / 60, t % 60 }')"

echo "== training $config"
build/brume train "$config" --out "$run" --overwrite --set train.steps="$steps"

echo "== sampling"
build/brume sample "$run/model.safetensors" -n 20 --grid 5 -o "$run/samples.png" >/dev/null
build/brume sample "$run/model.safetensors" --classes 'red circle,green square,blue triangle,yellow star,red cross' -n 5 \
  -o "$run/clean.png" --strip "$run/denoising.png" >/dev/null
rm -f "$run/clean.png"
build/brume evaluate "$run/model.safetensors" --metric caption_accuracy --data "$config" -n 100 --cfg 2 \
  --json "$trial/judged.json" >/dev/null
right=$(sed -n 's/^ *"right": \([0-9.]*\),*$/\1/p' "$trial/judged.json" | tail -1)
echo
right=$(awk -v r="$right" 'BEGIN { printf "%.0f", 100 * r }')
echo "samples that show the form and the colour of their class: $right of 100, read back from the pixels"
echo "a grid of samples, labelled:      $PWD/$run/samples.png"
echo "five images, from noise to clean: $PWD/$run/denoising.png"
echo
echo "next: build/brume sample $run/model.safetensors --classes 'yellow star,blue circle' -n 8 --seed 7 -o out.png"
