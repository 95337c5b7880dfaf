#!/usr/bin/env bash
# Kills brume (kill -9) at random moments of train, sample, encode, export, import and tokenizer, and starts it again: `kill.sh [KILLS]`
# kills each command KILLS times (default 84, about 500 in all). Checks that the second start ends with the files that a run without a
# kill makes, bit for bit, and with no others. BRUME names the program.
. "$(dirname "$0")/common.sh"
kills=${1:-84}

# seconds COMMAND...: how long it takes.
seconds() {
  local begin=$EPOCHREALTIME
  "$@" >log 2>&1 || { echo "$*: $(tail -n 1 log)" >&2; exit 2; }
  rm log
  awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }'
}

# killed COMMAND...: runs it and kills it after a random share of `whole` seconds. Returns 1 if it ended before; `whole` then comes nearer
# to the time that it took, because a machine with other work is slower at some times.
killed() {
  local begin=$EPOCHREALTIME code=0 process alarm ended
  "$@" >log 2>&1 &
  process=$!
  sleep "$(awk -v r=$RANDOM -v s="$whole" 'BEGIN { print s * r / 32768 }')" &
  alarm=$!
  wait -n -p ended $process $alarm || code=$?
  if [ "$ended" = $alarm ]; then
    kill -9 $process 2>/dev/null || true
    code=0
    wait $process 2>/dev/null || code=$?
  fi
  kill $alarm 2>/dev/null && wait $alarm 2>/dev/null || true
  [ $code -eq 137 ] && return 0
  [ $code -eq 0 ] || { echo "$* ended with $code: $(tail -n 1 log)" >&2; exit 2; }
  whole=$(awk -v w="$whole" -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { print (w + b - a) / 2 }')
  return 1
}

# same A B [FILE...]: whether two folders hold the same files, of which FILE need only exist.
same() {
  local a=$1 b=$2 file
  shift 2
  diff <(files "$a") <(files "$b") >differences || { fail "other files: $(tr '\n' ' ' <differences)"; return; }
  for file in $(files "$a"); do
    [[ " $* " == *" $file "* ]] || cmp -s "$a/$file" "$b/$file" || fail "$b/$file has other bytes"
  done
}

# once NAME COMMAND...: a command that writes OUT from nothing; it is killed, then run to its end.
once() {
  local name=$1 count=0 whole
  shift
  rm -rf ref out && mkdir ref out
  whole=$(cd ref && seconds "$@")
  while [ $count -lt "$kills" ]; do
    rm -rf out && mkdir out
    cd out
    killed "$@" || { cd .. && continue; }
    cd ..
    count=$((count + 1))
    (cd out && rm -f log && "$@" >/dev/null 2>../log) || fail "$name after a kill: $(tail -n 1 log)"
    rm -f out/log out/differences
    same ref out
  done
  echo "$name: $count kills in $whole s of work, each followed by a whole run"
}

training() {
  local count=0 runs=0 whole
  whole=$(seconds "$brume" train tiny.yaml --out ref)
  rm -rf run
  while [ $count -lt "$kills" ]; do
    local resume=""
    [ -e run/training.safetensors ] && resume=--resume
    if killed "$brume" train tiny.yaml --out run $resume; then
      count=$((count + 1))
      continue
    fi
    runs=$((runs + 1))
    same ref run ./metrics.jsonl
    cmp -s <(grep -o '"step":[0-9]*' ref/metrics.jsonl) <(grep -o '"step":[0-9]*' run/metrics.jsonl) || fail "other lines in metrics.jsonl"
    rm -rf run
  done
  # The run that was killed last goes on to its end.
  if [ -d run ]; then
    local resume=""
    [ -e run/training.safetensors ] && resume=--resume
    "$brume" train tiny.yaml --out run $resume >/dev/null 2>log || fail "train after the last kill: $(tail -n 1 log)"
    runs=$((runs + 1))
    same ref run ./metrics.jsonl
  fi
  echo "train: $count kills in $runs runs of $whole s, each with the bits of a run without a kill"
}

training
model=$work/ref/model.safetensors
cp "$model" trained.safetensors
once sample "$brume" sample ../trained.safetensors -n 6 --batch 1 --steps 3 -o images
"$brume" train stage.yaml --out stage >/dev/null 2>&1
once encode "$brume" encode ../stage/model.safetensors --data '{type: shapes}' -n 256 --shard 32 --batch 16 -o latents
"$brume" train ldm.yaml --out ldm >/dev/null 2>&1
once export "$brume" export ../ldm/model.safetensors --to diffusers exported
"$brume" export ldm/model.safetensors --to ldm foreign.safetensors >/dev/null
once import "$brume" import ../foreign.safetensors -o imported.safetensors
for colour in red green blue yellow; do
  for form in circle square triangle star; do printf 'a %s %s
a small %s %s on grey
' $colour $form $colour $form; done
done >captions.txt
once tokenizer "$brume" tokenizer train ../captions.txt --size 30 -o pieces.model
finish
