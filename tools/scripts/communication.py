#!/usr/bin/env python3
"""Prints the model of communication in docs/scale.md.

A ring all-reduce of b bytes among N processes sends 2 (N - 1) / N b bytes per process in 2 (N - 1) messages (Patarasu and Yuan, 2009).
Gradients are float32. A sharded optimizer gathers the updated weights in addition: (N - 1) / N b bytes in N - 1 messages. Buckets have
25 MiB. Weak scaling: each process computes `seconds` per step, however many there are.
"""

BUCKET = 25 * 2**20
MODELS = [("adm64", 295.9e6, 10.0), ("sd15", 859.5e6, 6.4), ("DiT-XL/2", 675.1e6, 6.0)]  # weights, seconds per step
LINKS = [("1 Gbit/s", 1e9 / 8, 50e-6), ("25 Gbit/s", 25e9 / 8, 10e-6), ("200 Gbit/s", 200e9 / 8, 2e-6)]
PROCESSES = [2, 4, 16, 64, 256, 1024]


def communication(weights, processes, bandwidth, latency, sharded):
    """Returns bytes per process and seconds of one step."""
    size = 4 * weights
    passes = 3 if sharded else 2
    sent = passes * (processes - 1) / processes * size
    messages = passes * (processes - 1) * -(-size // BUCKET)
    return sent, sent / bandwidth + messages * latency


def main():
    print("| model | optimizer | link | " + " | ".join(f"{n}" for n in PROCESSES) + " |")
    print("|---|---|---|" + "---|" * len(PROCESSES))
    for name, weights, seconds in MODELS:
        for sharded in (False, True):
            for link, bandwidth, latency in LINKS:
                cells = []
                for n in PROCESSES:
                    _, time = communication(weights, n, bandwidth, latency, sharded)
                    cells.append(f"{time:.2f} s, {100 * seconds / (seconds + time):.0f} - {100 * seconds / max(seconds, time):.0f} %")
                print(f"| {name} | {'sharded' if sharded else 'whole'} | {link} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
