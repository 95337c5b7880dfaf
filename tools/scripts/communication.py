#!/usr/bin/env python3
"""Prints the model of communication in docs/scale.md.

A ring all-reduce of b bytes among N processes sends 2 (N - 1) / N b bytes per process in 2 (N - 1) messages (Patarasu and Yuan, 2009).
Gradients are float32, in buckets of 25 MiB, and are summed while the backward pass runs, which takes two thirds of a step: the last bucket
is summed after it. A sharded optimizer gathers the updated weights afterwards: (N - 1) / N b bytes in N - 1 messages. Weak scaling: each
process computes `seconds` per step, however many there are.
"""

BUCKET = 25 * 2**20
BACKWARD = 2 / 3  # of the seconds of a step
MODELS = [("adm64", 295.9e6, 10.0), ("sd15", 859.5e6, 6.4), ("DiT-XL/2", 675.1e6, 6.0)]  # weights, seconds per step
LINKS = [("1 Gbit/s", 1e9 / 8, 50e-6), ("25 Gbit/s", 25e9 / 8, 10e-6), ("200 Gbit/s", 200e9 / 8, 2e-6)]
PROCESSES = [2, 4, 16, 64, 256, 1024]


def pass_seconds(size, processes, bandwidth, latency):
    """Returns the seconds of one of the two passes of an all-reduce, or of an all-gather, of `size` bytes."""
    return (processes - 1) * (size / processes / bandwidth + -(-size // BUCKET) * latency)


def step(weights, seconds, processes, bandwidth, latency, sharded):
    """Returns the seconds of communication in a step, and those among them that computing does not hide."""
    one = pass_seconds(4 * weights, processes, bandwidth, latency)
    last = 2 * pass_seconds(min(BUCKET, 4 * weights), processes, bandwidth, latency)
    gather = one if sharded else 0
    return 2 * one + gather, max(2 * one - BACKWARD * seconds, last) + gather


def main():
    print("| model | optimizer | link | " + " | ".join(f"{n}" for n in PROCESSES) + " |")
    print("|---|---|---|" + "---|" * len(PROCESSES))
    for name, weights, seconds in MODELS:
        for sharded in (False, True):
            for link, bandwidth, latency in LINKS:
                cells = []
                for n in PROCESSES:
                    all, exposed = step(weights, seconds, n, bandwidth, latency, sharded)
                    cells.append(f"{all:.2f} s, {100 * seconds / (seconds + exposed):.0f} %")
                print(f"| {name} | {'sharded' if sharded else 'whole'} | {link} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
