#!/usr/bin/env bash
# A model of four colours learns a fifth, by LoRA, by DreamBooth and by a new word, and what each forgets of the four. Everything goes to
# runs/; what is there is not made again. CLIP's vocab.json and merges.txt belong in data/clip_tokenizer.
#   tools/experiments/shapes_new_colour.sh [updates of the first stage, 4000] [updates of the model, 2500] [captions, 1000]
set -euo pipefail
cd "$(dirname "$0")/../.."
brume=${BRUME:-build/brume}
captions=${3:-1000}

train() {  # name, configuration, settings...
  local name=$1 config=$2
  shift 2
  [ -f runs/"$name"/model.safetensors ] || $brume train configs/experiments/"$config".yaml --out runs/"$name" "$@"
}
obeyed() {  # name, data
  $brume evaluate runs/"$1" --metric caption_accuracy --data configs/parts/"$2".yaml -n "$captions" --json runs/"$1"/"$2".json
}
likeness() {  # model, prompt, options...: how often eight images each of 5 seeds are a large purple star
  local model=$1 prompt=$2 folder=runs/shapes_likeness
  shift 2
  rm -rf $folder
  $brume sample runs/"$model" --prompt "$prompt" -n 40 -o $folder/ "$@"
  $brume evaluate runs/"$model" --metric caption_accuracy -n 40 --steps 1 \
    --data "{type: captioned_folder, path: $folder, prompt: a large purple star}" | grep 'data,'
}

train shapes_autoencoder shapes_autoencoder --set train.steps="${1:-4000}"
train shapes_four_colours shapes_four_colours --set train.steps="${2:-2500}"
obeyed shapes_four_colours shapes_four_colours
obeyed shapes_four_colours shapes_purple

train shapes_purple_lora shapes_purple_lora
obeyed shapes_purple_lora shapes_purple
obeyed shapes_purple_lora shapes_four_colours

[ -d runs/shapes_photos ] || $brume sample runs/shapes_purple_lora --prompt 'a large purple star' -n 8 --seed 5 -o runs/shapes_photos/
train shapes_purple_dreambooth shapes_purple_dreambooth
train shapes_purple_no_prior shapes_purple_dreambooth --set train.prior_preservation=null
train shapes_purple_long shapes_purple_dreambooth --set train.steps=1500
train shapes_purple_long_no_prior shapes_purple_dreambooth --set train.steps=1500 --set train.prior_preservation=null
for run in shapes_purple_{dreambooth,no_prior,long,long_no_prior}; do
  likeness $run 'a large sks star'
  obeyed $run shapes_four_colours
done

train shapes_purple_word shapes_purple_word
likeness shapes_four_colours 'a large <gem> star' --embedding runs/shapes_purple_word/embedding.safetensors
