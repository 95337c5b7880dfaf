# Shared by the scripts of this folder: the program, a scratch folder, a small model.
set -euo pipefail
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1 LC_ALL=C
brume=${BRUME:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/build/brume}
[ -x "$brume" ] || { echo "no program at $brume; build it, or set BRUME" >&2; exit 2; }
work=$(mktemp -d "${TMPDIR:-/tmp}/brume_campaign_XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

# fail TEXT: counts a failure and says what it is.
fail() {
  echo "$*" >>"$work/failures"
  echo "  FAILED: $*"
}

# finish: the exit code of the script.
finish() {
  local failures=0
  [ ! -e "$work/failures" ] || failures=$(wc -l <"$work/failures")
  echo "$failures failures"
  [ "$failures" -eq 0 ]
}

# files FOLDER: every file in it, hidden ones too, sorted.
files() { (cd "$1" && find . -type f | sort); }

cat >tiny.yaml <<'YAML'
model:
  image: {channels: 3, height: 16, width: 16}
  network: {type: unet, channels: 32, multipliers: [1, 2], blocks: 1, groups: 8}
  conditioner: {type: class_label, classes: 5, dropout: 0.2}
train:
  data: {type: shapes}
  batch: 4
  steps: 40
  checkpoint_every: 5
  keep: 2
  log_every: 5
  workers: 1
  preview: {count: 4, steps: 2, every: 20}
sample: {steps: 4}
YAML
cat >ldm.yaml <<'YAML'
model:
  image: {channels: 3, height: 16, width: 16}
  network: {type: unet, channels: 32, multipliers: [1, 2], blocks: 1, groups: 32}
train: {data: {type: shapes}, batch: 2, steps: 1, preview: {count: 0}}
YAML
cat >stage.yaml <<'YAML'
autoencoder:
  image: {channels: 3, height: 16, width: 16}
  network: {type: kl, channels: 16, multipliers: [1, 2], blocks: 1, groups: 8}
train: {data: {type: shapes}, batch: 2, steps: 1, preview: {count: 0}}
YAML
