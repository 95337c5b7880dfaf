#!/usr/bin/env bash
# From captions to pictures, the whole recipe on two cores in about an hour: a first stage, a tokenizer, a text-conditional model in the
# latent space, and how often captions never seen in training are obeyed. Everything goes to runs/; what is there is not made again.
#   tools/experiments/shapes_text_latent.sh [updates of the first stage, 4000] [updates of the model, 11000] [captions, 500]
set -euo pipefail
cd "$(dirname "$0")/../.."
brume=${BRUME:-build/brume}
config=configs/experiments/shapes_text_latent.yaml
test=configs/parts/shapes_scenes_test.yaml
captions=${3:-500}

[ -f runs/shapes_autoencoder/model.safetensors ] ||
  $brume train configs/experiments/shapes_autoencoder.yaml --out runs/shapes_autoencoder --set train.steps="${1:-4000}"
[ -f runs/shapes_tokenizer.model ] || $brume tokenizer train $config --type bpe --size 100 -o runs/shapes_tokenizer.model
[ -f runs/shapes_text_latent/model.safetensors ] || $brume train $config --out runs/shapes_text_latent --set train.steps="${2:-11000}"
$brume evaluate runs/shapes_text_latent/model.safetensors --metric caption_accuracy --data "$test" -n "$captions" --cfg 1,3,4,5 \
  --json runs/shapes_text_latent/captions.json
$brume sample runs/shapes_text_latent/model.safetensors -n 9 --cfg 4 -o runs/shapes_text_latent/prompts.png \
  --prompt 'a small red circle left of a large blue square' --prompt 'a large yellow star' \
  --prompt 'a small green triangle above a small purple cross'
