#!/usr/bin/env bash
# Trains in two processes by each launcher, and kills processes that train and sample: test_world.sh BRUME [KILLS]. Prints what each check
# took and fails at the first that goes wrong. torchrun, Open MPI and MPICH are checked if they are installed (Debian: python3-torch,
# openmpi-bin, mpich).
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
whole_seconds=$SECONDS
echo "one process: $whole_seconds s"

by() {  # by NAME COMMAND...: trains by a launcher
  local name=$1
  shift
  SECONDS=0
  "$@" train run.yaml -o "$name" 2>"$name.log" || { tail "$name.log"; exit 1; }
  same "$name" "$name, $SECONDS s"
  rm -rf "$name"
}
slurm() {  # slurm ARGUMENTS...: two processes with the variables of Slurm
  local tasks=() rank
  for rank in 0 1; do
    SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NTASKS=2 SLURM_NODEID=0 SLURM_JOB_ID=$$ SLURM_STEP_ID=0 SLURM_TASKS_PER_NODE=2 \
      SLURM_JOB_NODELIST='n[7]' "$brume" "$@" &
    tasks+=($!)
  done
  wait "${tasks[0]}" && wait "${tasks[1]}"
}
by launch "$brume" launch -n 2 --
by slurm slurm
if [ -x /usr/bin/torchrun ]; then
  # Debian 12's torchrun fails at its own default of --redirects and --tee.
  by torchrun /usr/bin/python3 -m torch.distributed.run --no_python --nproc_per_node=2 --master_port=29517 --redirects 1 --tee 1 "$brume"
fi
if command -v mpirun.openmpi >/dev/null; then by openmpi mpirun.openmpi --allow-run-as-root --oversubscribe -n 2 "$brume"; fi
if command -v mpirun.mpich >/dev/null; then by mpich mpirun.mpich -n 2 "$brume"; fi

moment() {  # sleeps up to as long as the undisturbed training took
  sleep "$((RANDOM % (whole_seconds + 1))).$((RANDOM % 10))"
}
end_of() {  # end_of RANK: waits for it and sets `code`; fails after 30 s
  SECONDS=0
  while kill -0 "${pids[$1]}" 2>/dev/null; do
    sleep 0.2
    [ "$SECONDS" -le 30 ] || { echo "kill $i: rank $1 hangs"; kill -KILL "${pids[$1]}"; exit 1; }
  done
  [ "$SECONDS" -le "$slowest" ] || slowest=$SECONDS
  code=0
  wait "${pids[$1]}" 2>/dev/null || code=$?
}
ranks() {  # ranks RESUME...: starts two processes that meet in a file
  rm -f store
  for rank in 0 1; do
    "$brume" train "$@" --rendezvous "file://$folder/store" --rank "$rank" --world 2 2>"rank$rank.log" &
    pids[rank]=$!
  done
}
ended=0 slowest=0 trainings=0
for ((i = 1; i <= kills; ++i)); do
  if [ -e killed/training.safetensors ]; then ranks --resume killed; else ranks run.yaml -o killed --overwrite; fi
  moment
  victim=$((RANDOM % 2))
  kill -KILL "${pids[victim]}" 2>/dev/null || true
  end_of $((1 - victim))
  wait "${pids[victim]}" 2>/dev/null || true
  if [ "$code" -eq 3 ]; then
    grep -q "rank $victim answers no more" "rank$((1 - victim)).log" ||
      { echo "kill $i: rank $victim is not named:"; cat "rank$((1 - victim)).log"; exit 1; }
    ended=$((ended + 1))
  elif [ "$code" -ne 0 ]; then
    echo "kill $i: exit code $code:"; cat "rank$((1 - victim)).log"; exit 1
  fi
  if cmp -s killed/model.safetensors whole/model.safetensors; then  # at its end: another one
    trainings=$((trainings + 1))
    rm -rf killed
  fi
done
ranks $([ -e killed/training.safetensors ] && echo --resume killed || echo run.yaml -o killed --overwrite)
wait "${pids[0]}" && wait "${pids[1]}" || { cat rank0.log rank1.log; exit 1; }
same killed "$kills kills of trainings, $ended in their middle, at most $slowest s to the end of the other, $((trainings + 1)) trainings"

sample() { "$brume" sample whole -n 64 --steps 20 --batch 1 --seed 3 "$@" 2>sample.log >/dev/null; }
SECONDS=0
sample -o images || { cat sample.log; exit 1; }
whole_seconds=$SECONDS slowest=0 lost=0
for ((i = 1; i <= kills; ++i)); do
  for rank in 0 1; do
    sample -o divided --rank "$rank" --world 2 &
    pids[rank]=$!
  done
  moment
  victim=$((RANDOM % 2))
  pkill -KILL -P "${pids[victim]}" 2>/dev/null || true  # the program below the function
  code=0
  wait "${pids[1 - victim]}" || code=$?
  [ "$code" -eq 0 ] || { echo "kill $i: the other process ended with $code"; cat sample.log; exit 1; }
  wait "${pids[victim]}" || lost=$((lost + 1))
  sample -o divided --missing || { echo "kill $i:"; cat sample.log; exit 1; }
  diff -r images divided || { echo "kill $i: other images"; exit 1; }
  rm -rf divided
done
echo "$kills kills of samplings, $lost in their middle: the files of one process"
