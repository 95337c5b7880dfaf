#!/usr/bin/env bash
# Trains in two processes of one thread on one host, and on two hosts that 1 Gbit/s joins (network namespaces; needs root and iproute2):
# test_slow_link.sh BRUME [BATCH] [STEPS]. Prints seconds per step of both and the model's communication, and fails if the weights differ.
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: $0 BRUME [BATCH] [STEPS]" >&2; exit 2; }
brume=$(realpath "$1") batch=${2:-32} steps=${3:-6}
scripts=$(realpath "$(dirname "$0")")
folder=$(mktemp -d)
cd "$folder"
hosts=(brume-$$-a brume-$$-b)
down() {
  for host in "${hosts[@]}"; do ip netns del "$host" 2>/dev/null || true; done
  rm -rf "$folder"
}
trap down EXIT
for host in "${hosts[@]}"; do ip netns add "$host"; done
ip link add eth netns "${hosts[0]}" type veth peer name eth netns "${hosts[1]}"
for rank in 0 1; do
  ip -n "${hosts[rank]}" addr add "10.77.0.$((rank + 1))/24" dev eth
  ip -n "${hosts[rank]}" link set eth up
  ip -n "${hosts[rank]}" link set lo up
  tc -n "${hosts[rank]}" qdisc add dev eth root tbf rate 1gbit burst 128kb latency 50ms
done

# The U-Net of Improved DDPM for CIFAR-10: 52.5 M parameters.
cat >run.yaml <<YAML
model:
  image: {channels: 3, height: 32, width: 32}
  network: {type: unet, channels: 128, multipliers: [1, 2, 2, 2], blocks: 3, attention_resolutions: [16, 8], heads: 4, dropout: 0.3}
train: {data: {type: shapes}, batch: $batch, steps: $steps, log_every: 1, checkpoint_every: 100000, preview: {count: 0}}
compute: {precision: bf16, threads: 1}
YAML

"$brume" launch -n 2 -- train run.yaml -o local >local.log 2>&1 || { tail local.log; exit 1; }
for rank in 0 1; do
  RANK=$rank WORLD_SIZE=2 MASTER_ADDR=10.77.0.1 MASTER_PORT=29600 GLOO_SOCKET_IFNAME=eth \
    ip netns exec "${hosts[rank]}" "$brume" train run.yaml -o link >"link$rank.log" 2>&1 &
  pids[rank]=$!
done
wait "${pids[0]}" && wait "${pids[1]}" || { tail link0.log link1.log; exit 1; }
cmp local/model.safetensors link/model.safetensors
PYTHONPATH=$scripts python3 - <<'PYTHON'
import json
import statistics

import communication


def seconds(run):
    times = [json.loads(line)["seconds"] for line in open(run + "/metrics.jsonl")]
    return statistics.median(b - a for a, b in zip(times, times[1:]))


local, link = seconds("local"), seconds("link")
all, exposed = communication.step(52.5e6, local, 2, 1e9 / 8, 50e-6, False)
print(f"one host {local:.2f} s per step, two hosts {link:.2f} s: {link - local:.2f} s of communication are not hidden; "
      f"the model: {all:.2f} s, of which {exposed:.2f} s are not hidden")
PYTHON
