#!/usr/bin/env bash
# The experiments of docs/experiments.md, on two cores in about an hour: likelihoods of three objectives, sample quality against steps
# for five samplers, guidance against scale, and inversion. Everything goes to runs/experiments; what exists already is not made again.
#   tools/experiments/fashion_mnist.sh [training steps, 1500] [samples, 500]
set -euo pipefail
cd "$(dirname "$0")/../.."
steps=${1:-1500}
samples=${2:-500}
brume=${BRUME:-build/brume}
runs=runs/experiments
real=configs/parts/fashion_mnist_test.yaml
config=configs/experiments/fashion_mnist_hybrid.yaml
mkdir -p $runs

train() {  # name, config, settings...
  local name=$1 from=$2
  shift 2
  [ -f $runs/"$name"/model.safetensors ] && return
  rm -rf $runs/"$name"
  $brume train "$from" --out $runs/"$name" "$@"
}
number() { sed -n "s/.*\"$1\": \([0-9.e+-]*\).*/\1/p" "$2" | tail -1; }

train classifier configs/experiments/fashion_mnist_classifier.yaml
train noisy_classifier configs/experiments/fashion_mnist_noisy_classifier.yaml --set train.steps=1500
train hybrid $config --set train.steps="$steps" --set train.preview.every=0
train simple $config --set train.steps="$steps" --set train.preview.every=0 --set 'train.objective={type: simple, target: v}' \
  --set model.variance=none --set sample.sampler=ddim
train vlb $config --set train.steps="$steps" --set train.preview.every=0 --set 'train.objective={type: vlb, time: loss_second_moment}'

echo "objective,bits_per_dim,standard_error" >$runs/likelihood.csv
for objective in simple hybrid vlb; do
  out=$runs/likelihood_$objective.json
  [ -f $out ] || $brume likelihood $runs/$objective/model.safetensors --data "$real" --method vlb -n 32 --json $out
  echo "$objective,$(number bits_per_dim $out),$(number standard_error $out)" >>$runs/likelihood.csv
done

echo "sampler,steps,frechet" >$runs/steps.csv
# Heun's method in sigma multiplies the network's errors by (from - to) / (2 to), which is large where few steps come down from the
# sigma of 20,000 the cosine schedule begins with; in the frame of flow matching it does not.
for sampler in '{type: ddpm, variance: learned_range}' ddim '{type: heun, time: flow, scale: flow}' dpmpp_2m unipc; do
  name=$(echo "$sampler" | sed 's/{type: \([a-z_0-9]*\).*/\1/')
  for n in 5 10 20 50 100; do
    out=$runs/steps_${name}_$n.json
    [ -f $out ] || $brume evaluate $runs/hybrid/model.safetensors --classifier $runs/classifier/model.safetensors --real "$real" \
      --sampler "$sampler" --steps $n --cfg 1 -n "$samples" --precision auto --json $out >/dev/null
    echo "$name,$n,$(number frechet_distance $out)" >>$runs/steps.csv
  done
done

echo "guidance,scale,frechet,accuracy" >$runs/guidance.csv
for scale in 0 1 2 4; do
  out=$runs/cfg_$scale.json
  [ -f $out ] || $brume evaluate $runs/hybrid/model.safetensors --classifier $runs/classifier/model.safetensors --real "$real" \
    --sampler ddim --steps 20 --cfg $scale -n "$samples" --precision auto --json $out >/dev/null
  echo "cfg,$scale,$(number frechet_distance $out),$(number accuracy $out)" >>$runs/guidance.csv
  out=$runs/classifier_$scale.json
  # On top of the conditional model (cfg 1), as in ADM's conditional models.
  [ -f $out ] || $brume evaluate $runs/hybrid/model.safetensors --classifier $runs/classifier/model.safetensors --real "$real" \
    --sampler ddim --steps 20 -n "$samples" --precision auto --json $out \
    --set "sample.guidance=[{type: classifier, model: ../noisy_classifier/model.safetensors, scale: $scale}, clip]" >/dev/null
  echo "classifier,$scale,$(number frechet_distance $out),$(number accuracy $out)" >>$runs/guidance.csv
done

$brume invert $runs/hybrid/model.safetensors --data "$real" -n 32 --sampler ddim --steps 10,20,50,100,200 --json $runs/inversion.json
for what in "steps frechet sampler" "guidance frechet guidance"; do
  set -- $what
  x=$([ "$1" = steps ] && echo steps || echo scale)
  $brume plot table $runs/"$1".csv --x "$x" --y "$2" --by "$3" $([ "$x" = steps ] && echo --log-x) -o $runs/"$1".png
done
$brume plot table $runs/guidance.csv --x scale --y accuracy --by guidance -o $runs/accuracy.png
