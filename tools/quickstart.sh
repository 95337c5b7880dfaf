#!/usr/bin/env bash
# From a fresh clone to generated images: installs what is missing, builds, trains about two minutes, samples.
set -euo pipefail
cd "$(dirname "$0")/.."
echo "== building (some minutes the first time)"
tools/scripts/build.sh build -DBRUME_TESTS=OFF
run=runs/quickstart
echo "== training configs/experiments/quickstart.yaml (about two minutes on two cores)"
build/brume train configs/experiments/quickstart.yaml --out "$run" --overwrite
echo "== sampling"
build/brume sample "$run/model.safetensors" -n 25 --grid 5 --cfg 2 -o "$run/samples.png" >/dev/null
build/brume sample "$run/model.safetensors" -n 5 --cfg 2 -o "$run/clean.png" --strip "$run/denoising.png" >/dev/null
rm -f "$run/clean.png"
echo
echo "a grid of samples, labelled:     $PWD/$run/samples.png"
echo "the same images, noise to clean: $PWD/$run/denoising.png"
echo
echo "next: build/brume sample $run/model.safetensors --classes star,circle -n 8 --seed 7 -o out.png"
