#!/usr/bin/env bash
# Trains in two processes with real launchers and kills processes: test_world.sh BRUME [KILLS]. Prints what each check took and fails at the
# first that goes wrong. torchrun and mpirun are checked if they are installed (Debian: python3-torch, openmpi-bin).
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: $0 BRUME [KILLS]" >&2; exit 2; }
brume=$(realpath "$1")
kills=${2:-10}
export OMP_WAIT_POLICY=passive
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >run.yaml <<'YAML'
model:
  image: {channels: 1, height: 16, width: 16}
  network: {type: unet, channels: 16, multipliers: [1, 2], blocks: 1, attention_resolutions: [8], heads: 2, groups: 8}
  conditioner: {type: class_label, classes: 5}
  noise: cosine
train:
  data: {type: shapes}
  batch: 8
  steps: 200
  checkpoint_every: 10
  preview: {count: 0}
compute: {precision: fp32, threads: 1}
YAML

same() {  # same RUN: its model has the bits of the undisturbed training
  cmp -s "$1/model.safetensors" whole/model.safetensors || { echo "$2: other weights than one process has"; exit 1; }
  echo "$2: the bits of one process"
}

SECONDS=0
"$brume" train run.yaml -o whole --set train.accumulate=2 2>/dev/null
echo "one process: $SECONDS s"

if command -v torchrun >/dev/null || [ -x /usr/bin/torchrun ]; then
  SECONDS=0
  # Debian 12's torchrun fails at its own default of --redirects and --tee.
  /usr/bin/python3 -m torch.distributed.run --no_python --nproc_per_node=2 --master_port=29517 --redirects 1 --tee 1 \
    "$brume" train run.yaml -o torchrun 2>torchrun.log ||
    { tail torchrun.log; exit 1; }
  same torchrun "torchrun, $SECONDS s"
fi
if command -v mpirun >/dev/null; then
  SECONDS=0
  mpirun --allow-run-as-root --oversubscribe -n 2 "$brume" train run.yaml -o mpirun 2>mpirun.log || { tail mpirun.log; exit 1; }
  same mpirun "mpirun, $SECONDS s"
fi

ranks() {  # ranks RESUME...: starts two processes that meet in a file
  rm -f store
  for rank in 0 1; do
    "$brume" train "$@" --rendezvous "file://$folder/store" --rank "$rank" --world 2 2>"rank$rank.log" &
    pids[rank]=$!
  done
}
ended=0 slowest=0
for ((i = 1; i <= kills; ++i)); do
  if [ -e killed/training.safetensors ]; then ranks --resume killed; else ranks run.yaml -o killed --overwrite; fi
  sleep "$((RANDOM % 4)).$((RANDOM % 10))"
  victim=$((RANDOM % 2))
  kill -KILL "${pids[victim]}" 2>/dev/null || true
  SECONDS=0
  while kill -0 "${pids[1 - victim]}" 2>/dev/null; do
    sleep 0.2
    [ "$SECONDS" -le 30 ] || { echo "kill $i: rank $((1 - victim)) hangs"; kill -KILL "${pids[1 - victim]}"; exit 1; }
  done
  [ "$SECONDS" -le "$slowest" ] || slowest=$SECONDS
  wait "${pids[0]}" 2>/dev/null || true
  code=0
  wait "${pids[1 - victim]}" 2>/dev/null || code=$?
  if [ "$code" -eq 3 ]; then
    grep -q "rank $victim answers no more" "rank$((1 - victim)).log" ||
      { echo "kill $i: rank $victim is not named:"; cat "rank$((1 - victim)).log"; exit 1; }
    ended=$((ended + 1))
  elif [ "$code" -ne 0 ]; then
    echo "kill $i: exit code $code:"; cat "rank$((1 - victim)).log"; exit 1
  fi
done
ranks $([ -e killed/training.safetensors ] && echo --resume killed || echo run.yaml -o killed)
wait "${pids[0]}" && wait "${pids[1]}" || { cat rank0.log rank1.log; exit 1; }
same killed "$kills kills, $ended in the middle of a training, at most $slowest s to the end of the other process"
