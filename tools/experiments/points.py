#!/usr/bin/env python3
"""Judges points of the plane that a model of 25 Gaussians makes: which modes they find, and how straight its paths are.

    brume sample RUN -n 10000 --batch 1000 -o points.safetensors
    tools/experiments/points.py points.safetensors
    brume sample RUN -n 2000 --batch 1000 --sampler euler --steps 100 --trajectory paths.safetensors -o points.safetensors
    tools/experiments/points.py --straightness paths.safetensors        # of a model with `noise: flow`

A point counts for the nearest mode if it is within 3 standard deviations of its mean, in distance: 98.9 % of the points of the data set do.
A mode is found if a tenth of its share of the points counts for it. Straightness is S = mean |(z_0 - z_1) - dz/dt|^2 over the paths and the
times (Liu et al. 2023, "Flow Straight and Fast", eq. 4): 0 for straight lines.
"""
import argparse
import array
import json
import math
import struct


def tensor(path, name):
    """Returns shape and numbers of a tensor of a safetensors file."""
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        entry = json.loads(file.read(size))[name]
        begin, end = entry["data_offsets"]
        file.seek(8 + size + begin)
        return entry["shape"], array.array({"F32": "f", "F64": "d"}[entry["dtype"]], file.read(end - begin))


def modes(path, side, spacing, std):
    """Prints how many modes are found and how many points are near one."""
    shape, numbers = tensor(path, "images")
    if shape[1:] != [2, 1, 1]:
        raise SystemExit(f"{path}: images of {shape[1:]}, not points of the plane")
    found, near = [0] * side**2, 0
    for x, y in zip(numbers[0::2], numbers[1::2]):
        i, j = (min(side - 1, max(0, round(v / spacing + (side - 1) / 2))) for v in (x, y))
        away = math.hypot(x - spacing * (i - (side - 1) / 2), y - spacing * (j - (side - 1) / 2))
        if away <= 3 * std:
            near += 1
            found[i * side + j] += 1
    share = shape[0] / side**2
    print(f"{sum(n >= share / 10 for n in found)} of {side**2} modes, {100 * near / shape[0]:.1f} % within 3 standard deviations; "
          f"points per mode: {min(found)} to {max(found)} of {share:.0f}")


def straightness(path):
    """Prints the mean squared difference of a path's velocity from the straight line between its ends."""
    shape, x = tensor(path, "x")
    _, t = tensor(path, "t")
    times = list(t) + [0.0]
    steps, numbers = shape[0] - 1, math.prod(shape[1:])
    total = 0.0
    for k in range(steps):
        length = times[k] - times[k + 1]
        total += length / times[0] * sum(
            ((x[i] - x[steps * numbers + i]) / times[0] - (x[k * numbers + i] - x[(k + 1) * numbers + i]) / length) ** 2
            for i in range(numbers))
    print(f"S = {total / shape[1]:.5f} over {shape[1]} paths of {steps} steps")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="of brume sample: points, or a trajectory with --straightness")
    parser.add_argument("--straightness", action="store_true")
    parser.add_argument("--side", type=int, default=5, help="as the data set `gaussians` has it")
    parser.add_argument("--spacing", type=float, default=0.45)
    parser.add_argument("--std", type=float, default=0.01125)
    o = parser.parse_args()
    straightness(o.file) if o.straightness else modes(o.file, o.side, o.spacing, o.std)


if __name__ == "__main__":
    main()
