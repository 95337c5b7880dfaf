#!/usr/bin/env bash
# Runs train, sample, encode, evaluate, export, import and tokenizer with less address space (`ulimit -v`) than they need: `memory.sh
# [LIMITS]` tries LIMITS sizes (default 8) for each command, evenly spread from what `brume list` needs to what the command needs. Checks
# that the command works, or ends with exit code 2 and one line of error that names the memory, and leaves no temporary file. The same with
# little private memory (`ulimit -d`), and in control groups of a tenth, of a quarter, of half and of nine tenths of the memory that a
# training and a sampling take, if this user may make one. BRUME names the program.
. "$(dirname "$0")/common.sh"
limits=${1:-8}
checks=0

# peak COMMAND...: the largest address space that it takes, in KiB.
peak() {
  local most=0 now
  "$@" >log 2>&1 &
  local process=$!
  while now=$(sed -n 's/^VmPeak:[^0-9]*\([0-9]*\).*/\1/p' /proc/$process/status 2>/dev/null) && [ -n "$now" ]; do
    most=$now
    sleep 0.02
  done
  wait $process || { echo "$*: $(tail -n 1 log)" >&2; exit 2; }
  echo "$most"
}

# short NAME COMMAND...: the command under every limit; it writes into OUT.
short() {
  local name=$1 most works=0 refused=0 i limit code errors
  shift
  rm -rf OUT && mkdir OUT
  most=$(peak "$@")
  for ((i = 0; i < limits; i++)); do
    limit=$((least + (most - least) * (2 * i + 1) / (2 * limits)))
    rm -rf OUT && mkdir OUT
    code=0
    (ulimit -c 0 && ulimit -v $limit && exec timeout 600 "$@") >log 2>&1 || code=$?
    checks=$((checks + 1))
    errors=$(grep -c '^error: ' log || true)
    if [ $code = 0 ]; then
      works=$((works + 1))
    elif [ $code = 2 ] && [ "$errors" = 1 ] && grep -q '^error: .*memory' log; then
      refused=$((refused + 1))
    else
      fail "$name in $limit KiB of $most: exit code $code: $(grep -v '^warning' log | tail -n 2 | tr '\n' ' ')"
    fi
    [ -z "$(find OUT -name '*.brume-tmp')" ] || fail "$name in $limit KiB leaves $(find OUT -name '*.brume-tmp')"
  done
  echo "$name: needs $((most / 1024)) MiB; of $limits smaller limits $works are enough, $refused end with an error"
}

# group LIMIT COMMAND...: the command in a control group of LIMIT bytes.
group() {
  local folder=/sys/fs/cgroup limit=memory.max code=0
  [ -d /sys/fs/cgroup/memory ] && folder=/sys/fs/cgroup/memory limit=memory.limit_in_bytes
  folder=$folder/brume_campaign_$$
  echo "$1" >"$folder/$limit"
  shift
  (echo $BASHPID >"$folder/cgroup.procs" && exec timeout 600 "$@") || code=$?
  return $code
}

# grouped NAME COMMAND...: the command in groups of less than the resident memory that it takes.
grouped() {
  local name=$1 most part size code errors
  shift
  rm -rf OUT && mkdir OUT
  most=$(($(/usr/bin/time -f %M "$@" 2>&1 >/dev/null | tail -n 1) * 1024))
  for part in 10 25 50 90; do
    rm -rf OUT && mkdir OUT
    code=0 size=$((most / 100 * part))
    group $size "$@" >log 2>&1 || code=$?
    checks=$((checks + 1))
    errors=$(grep -c '^error: ' log || true)
    # shared code does not count for the group, so nine tenths may be enough
    { [ $code = 0 ] && [ $part = 90 ]; } || { [ $code = 2 ] && [ "$errors" = 1 ] && grep -q '^error: .*memory' log; } ||
      fail "$name in a group of $((size >> 20)) MiB: exit code $code: $(grep -v '^warning' log | tail -n 2 | tr '\n' ' ')"
    [ -z "$(find OUT -name '*.brume-tmp')" ] || fail "$name in a group leaves $(find OUT -name '*.brume-tmp')"
    echo "$name in a control group of $((size >> 20)) MiB: $(grep '^error: ' log | cut -c 1-150)"
  done
}

# private NAME COMMAND...: the command with little private memory.
private() {
  local name=$1 limit code
  shift
  for limit in 60 80 160 200 220 240 280; do
    rm -rf OUT && mkdir OUT
    code=0
    (ulimit -c 0 && ulimit -d $((limit * 1024)) && exec timeout 60 "$@") >log 2>&1 || code=$?
    checks=$((checks + 1))
    [ $code = 2 ] && grep -q '^error: .*memory' log || fail "$name with $limit MiB: exit code $code: $(tail -n 1 log)"
  done
  echo "$name with little private memory: 7 limits"
}

"$brume" train tiny.yaml --set train.steps=1 --set train.preview.count=0 --out one >/dev/null 2>&1
"$brume" train ldm.yaml --out ldm >/dev/null 2>&1
"$brume" train stage.yaml --out stage >/dev/null 2>&1
"$brume" export ldm/model.safetensors --to ldm foreign.safetensors >/dev/null
for colour in red green blue; do
  for form in circle square triangle; do printf 'a %s %s\na small %s %s on grey\n' $colour $form $colour $form; done
done >captions.txt
least=$(peak "$brume" list sampler)
echo "brume itself: $((least / 1024)) MiB"
short "train, batch of 512" "$brume" train tiny.yaml --set train.batch=512 --set train.steps=2 --set train.preview.count=0 --out OUT/run
short "sample, 512 at once" "$brume" sample one/model.safetensors -n 512 --batch 512 --steps 1 -o OUT/images
short "encode, 256 at once" "$brume" encode stage/model.safetensors --data '{type: shapes}' -n 256 --batch 256 -o OUT/latents
short "export" "$brume" export ldm/model.safetensors --to diffusers OUT/exported
short "import" "$brume" import foreign.safetensors -o OUT/model.safetensors
short "tokenizer" "$brume" tokenizer train captions.txt --size 24 -o OUT/pieces.model
private "train, batch of 512" "$brume" train tiny.yaml --set train.batch=512 --set train.steps=2 --set train.preview.count=0 --out OUT/run
private "sample, 512 at once" "$brume" sample one/model.safetensors -n 512 --batch 512 --steps 1 -o OUT/images
root=/sys/fs/cgroup
[ -d $root/memory ] && root=$root/memory
if mkdir "$root/brume_campaign_$$" 2>/dev/null; then
  trap 'rmdir "$root/brume_campaign_$$" 2>/dev/null; rm -rf "$work"' EXIT
  grouped "train, batch of 512" "$brume" train tiny.yaml --set train.batch=512 --set train.steps=2 --set train.preview.count=0 --out OUT/run
  grouped "sample, 512 at once" "$brume" sample one/model.safetensors -n 512 --batch 512 --steps 1 -o OUT/images
else
  echo "no control group can be made here"
fi
echo "$checks checks"
finish
