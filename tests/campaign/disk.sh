#!/usr/bin/env bash
# Takes the disk away from trainings and other commands: no room, ulimit -f, read-only, no permission, the directory removed. Checks that
# each ends with exit code 2 and one line of error, and that the state of before is whole. Needs root (it mounts small disks, in a namespace
# of its own). BRUME names the program.
if [ "${1:-}" != inside ]; then exec unshare -m "$0" inside; fi
. "$(dirname "$0")/common.sh"
mount --make-rprivate /
checks=0

# disk FOLDER SIZE: a tmpfs.
disk() { mkdir -p "$1" && mount -t tmpfs -o "size=$2" tmpfs "$1"; }

# refused NAME PATTERN CODE: what a command that ended with CODE wrote to `log` is one line that begins with "error: " and holds PATTERN.
refused() {
  checks=$((checks + 1))
  local errors
  errors=$(grep -c '^error: ' log || true)
  [ "$3" = 2 ] || fail "$1: exit code $3, expected 2: $(tail -n 1 log)"
  [ "$errors" = 1 ] || fail "$1: $errors lines of error: $(cat log)"
  grep -q "^error: .*$2" log || fail "$1: says '$(grep '^error: ' log)'"
  echo "$1: $(grep -m 1 '^error: ' log | cut -c 1-150)"
}

# run NAME PATTERN COMMAND...: refused() of a command.
run() {
  local name=$1 pattern=$2 code=0
  shift 2
  "$@" >log 2>&1 || code=$?
  refused "$name" "$pattern" $code
}

# during NAME PATTERN FOLDER FAULT: a long training in FOLDER, in which FAULT (a command) happens after the first checkpoint.
during() {
  local name=$1 pattern=$2 folder=$3 fault=$4 code=0
  "$brume" train tiny.yaml --set train.steps=1000000 --set train.preview.count=0 --out "$folder" >log 2>&1 &
  local process=$!
  for _ in $(seq 600); do
    [ -e "$folder/training.safetensors" ] && break
    sleep 0.1
  done
  eval "$fault"
  for _ in $(seq 600); do
    kill -0 $process 2>/dev/null || break
    sleep 0.1
  done
  kill -9 $process 2>/dev/null && fail "$name: still runs a minute later"
  wait $process 2>/dev/null || code=$?
  refused "$name" "$pattern" $code
}

# resumes NAME FOLDER: three more steps, from the checkpoint that is there; and no temporary file is left.
resumes() {
  checks=$((checks + 1))
  local step
  "$brume" sample "$2/model.safetensors" -n 1 --steps 1 -o whole.png >log 2>&1 || fail "$1: model.safetensors: $(tail -n 1 log)"
  timeout -s INT 8 "$brume" train --resume "$2" >log 2>&1 && step=0 || step=$?
  [ "$step" = 130 ] || [ "$step" = 124 ] || fail "$1: does not resume: $(tail -n 1 log)"
  [ -z "$(find "$2" -name '*.brume-tmp')" ] || fail "$1: leaves $(find "$2" -name '*.brume-tmp')"
}

"$brume" train tiny.yaml --set train.steps=1 --set train.preview.count=0 --out one >/dev/null 2>&1
"$brume" train ldm.yaml --out ldm >/dev/null 2>&1
"$brume" export ldm/model.safetensors --to ldm foreign.safetensors >/dev/null
"$brume" train stage.yaml --out stage >/dev/null 2>&1
size=$(stat -c %s one/training.safetensors)
disk small $(($(stat -c %s foreign.safetensors) / 2))
run "train, no room from the start" "needs .* and the disk has" "$brume" train tiny.yaml --out small/run
run "import, no room" "no room on the disk" "$brume" import foreign.safetensors -o small/model.safetensors
[ -z "$(files small | grep -v config.yaml)" ] || fail "files are left on the full disk: $(files small)"
umount small

disk half $((size * 10))
during "train, the disk fills" "no room on the disk\|cannot be written" half/run 'dd if=/dev/zero of=half/full bs=64k 2>/dev/null || true'
rm half/full
resumes "train, the disk fills" half/run
umount half

limit=$((size / 1024 - 100))
code=0
(ulimit -f $limit && "$brume" train tiny.yaml --out limited) >log 2>&1 || code=$?
refused "train, ulimit -f" "ulimit -f" $code
(ulimit -f 1 && "$brume" sample one/model.safetensors -n 16 -o limited.png) >log 2>&1 && code=0 || code=$?
refused "sample, ulimit -f" "ulimit -f" $code

disk closed $((size * 20))
during "train, the disk becomes read-only" "Read-only" closed/run 'until mount -o remount,ro closed 2>/dev/null; do sleep 0.05; done'
run "sample to a read-only disk" "Read-only" "$brume" sample one/model.safetensors -n 1 --steps 1 -o closed/a.png
run "encode to a read-only disk" "Read-only" "$brume" encode stage/model.safetensors --data '{type: shapes}' -n 4 -o closed/latents
mount -o remount,rw closed
resumes "train, the disk becomes read-only" closed/run
umount closed

during "train, the directory is removed" "cannot be written\|no directory" removed/run 'rm -rf removed'

mkdir locked && chmod 755 "$work" && chmod 555 locked
run "train without permission" "Permission denied" setpriv --reuid=65534 --regid=65534 --clear-groups \
  "$brume" train tiny.yaml --out locked/run
run "sample without permission" "Permission denied" setpriv --reuid=65534 --regid=65534 --clear-groups \
  "$brume" sample one/model.safetensors \
  -n 1 --steps 1 -o locked/a.png

"$brume" train tiny.yaml --set train.steps=1000000 --set train.preview.count=0 --out twice >first 2>&1 &
first=$!
for _ in $(seq 300); do [ -e twice/training.safetensors ] && break; sleep 0.1; done
run "a second training in the directory" "another process trains" "$brume" train tiny.yaml --out twice --overwrite
kill -9 $first
wait $first 2>/dev/null || true
resumes "after the first was killed" twice

echo "$checks checks"
finish
