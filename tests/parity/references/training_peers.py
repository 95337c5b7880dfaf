#!/usr/bin/env python3
"""Writes training_peers.json: learning rates, weights of noise levels and updates of optimizers, as the programs of others compute them, in
float64 on inputs that tests/contracts/training_peers_test.cpp makes again.

PEERS is a folder with clones of github.com/{huggingface/diffusers, huggingface/transformers, kohya-ss/sd-scripts, lucidrains/lion-pytorch,
konstmish/prodigy, NVlabs/edm2} at COMMITS. Only the functions and classes that are named here are run.
Debian: apt install python3-torch; python3 training_peers.py PEERS > training_peers.json
"""
import ast
import json
import math
import sys
from pathlib import Path

import torch

COMMITS = {
    "diffusers": "58eb52c080",
    "transformers": "005edacb6b",
    "sd-scripts": "48d368fa55",
    "lion-pytorch": "6a74fdc",
    "prodigy": "3efb213",
    "edm2": "4bf8162",
}
SHAPES = {"W": [2, 3], "b": [3], "K": [2, 1, 2, 1]}
STEPS = 8
torch.set_default_dtype(torch.float64)


def taken(path, *names):
    """The named functions and classes of a file, without its imports."""
    text = (Path(sys.argv[1]) / path).read_text()
    space = {"torch": torch, "math": math, "Optimizer": torch.optim.Optimizer}
    exec("from __future__ import annotations", space)
    for node in ast.parse(text).body:
        if getattr(node, "name", "") in names:
            part = ast.Module([ast.parse("from __future__ import annotations").body[0], node], [])
            exec(compile(part, path, "exec"), space)
    return space


def wave(name, rate, phase):
    shape = SHAPES[name]
    return (torch.arange(math.prod(shape), dtype=torch.float64) * rate + phase).sin().view(shape)


def track(make, rates=None, steps=STEPS):
    """The weights after every update."""
    offset = {"W": 0, "b": 1, "K": 2}
    weights = {name: torch.nn.Parameter(wave(name, 0.7, offset[name])) for name in SHAPES}
    optimizer = make(weights)
    base = [group["lr"] for group in optimizer.param_groups]
    rows = []
    for step in range(steps):
        for name, w in weights.items():
            w.grad = wave(name, 0.9, 1.3 * step + offset[name]) + 0.5 * w.detach()
        for group, lr in zip(optimizer.param_groups, base if rates else []):
            group["lr"] = lr * rates(step)
        optimizer.step()
        rows.append({name: [float(f"{v:.13g}") for v in w.detach().flatten()] for name, w in weights.items()})
    return rows


def one_group(kind, **options):
    return lambda weights: kind(list(weights.values()), **options)


def two_groups(kind, own, **options):
    return lambda w: kind([{"params": [w["W"], w["K"]]}, {"params": [w["b"]], **own}], **options)


def optimizers():
    lion = taken("lion-pytorch/lion_pytorch/lion_pytorch.py", "exists", "update_fn", "Lion")["Lion"]
    prodigy = taken("prodigy/prodigyopt/prodigy.py", "Prodigy")["Prodigy"]
    adafactor = taken("transformers/src/transformers/optimization.py", "Adafactor")["Adafactor"]

    def warm(step):
        return min(1, step / 3)

    p = {"lr": 1.0, "d0": 1e-3}
    return [
        ("lion", "lr: 0.02, weight_decay: 0.1, decay_per_step: true", {"lr": 0.01, "weight_decay": 0.3},
         track(two_groups(lion, {"lr": 0.01, "weight_decay": 0.3}, lr=0.02, weight_decay=0.1, decoupled_weight_decay=True))),
        ("prodigy", "d0: 1.0e-3, warmup: 3", {}, track(one_group(prodigy, **p), warm)),
        ("prodigy", "d0: 1.0e-3, warmup: 3, bias_correction: true, safeguard_warmup: true", {},
         track(one_group(prodigy, use_bias_correction=True, safeguard_warmup=True, **p), warm)),
        ("prodigy", "d0: 1.0e-3, beta1: 0, weight_decay: 0.1, decoupled: false", {},
         track(one_group(prodigy, betas=(0, 0.999), weight_decay=0.1, decouple=False, **p))),
        ("prodigy", "d0: 1.0e-3, beta3: 0.9, d_coef: 2, growth_rate: 1.5", {"lr": 0.0},
         track(two_groups(prodigy, {"lr": 0.0}, beta3=0.9, d_coef=2, growth_rate=1.5, **p))),
        ("adafactor", "lr: 0.02, beta1: 0.9, weight_decay: 0.1, threshold: 0.3, decay_rate: 0.5, square_eps: 0.01, scale_eps: 0.9", {},
         track(one_group(adafactor, lr=0.02, beta1=0.9, weight_decay=0.1, clip_threshold=0.3, decay_rate=-0.5, eps=(1e-2, 0.9),
                         relative_step=False))),
        ("adafactor", "relative_step: true, warmup_init: true", {}, track(one_group(adafactor, warmup_init=True))),
    ]


def rates(make, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(float(f"{optimizer.param_groups[0]['lr']:.13g}"))
        optimizer.step()
        schedule.step()
    return found


def learning_rates():
    made = taken("diffusers/src/diffusers/optimization.py", "get_cosine_with_hard_restarts_schedule_with_warmup",
                 "get_polynomial_decay_schedule_with_warmup", "get_linear_schedule_with_warmup")
    made["LambdaLR"] = torch.optim.lr_scheduler.LambdaLR
    stable = taken("transformers/src/transformers/optimization.py", "_get_wsd_scheduler_lambda")["_get_wsd_scheduler_lambda"]
    torch_rates = torch.optim.lr_scheduler
    cases = [("{type: cosine_restarts, cycles: 7}", 4, 23,
              lambda o: made["get_cosine_with_hard_restarts_schedule_with_warmup"](o, 4, 23, num_cycles=7)),
             ("{type: polynomial, power: 0.5, end: 0.1}", 4, 23,
              lambda o: made["get_polynomial_decay_schedule_with_warmup"](o, 4, 23, lr_end=0.1, power=0.5)),
             ("linear", 9, 9, lambda o: made["get_linear_schedule_with_warmup"](o, 9, 9)),
             ("{type: cosine_restarts, cycles: 3, factor: 2}", 0, 35,
              lambda o: torch_rates.CosineAnnealingWarmRestarts(o, T_0=5, T_mult=2)),
             ("{type: one_cycle, rise: 0.45, start: 10, end: 50}", 0, 13,
              lambda o: torch_rates.OneCycleLR(o, max_lr=1.0, total_steps=13, pct_start=0.45, div_factor=10, final_div_factor=50))]
    for ours, theirs in (("cosine", "cosine"), ("linear", "linear"), ("sqrt", "1-sqrt")):
        for warmup, end in ((4, 0.0), (0, 0.1)):  # theirs begins a warm-up at the rate that the fall ends at, brume's begins at 0
            options = {"num_warmup_steps": warmup, "num_stable_steps": 12, "num_decay_steps": 8, "warmup_type": "linear",
                       "decay_type": theirs, "min_lr_ratio": end, "num_cycles": 0.5}
            cases.append((f"{{type: stable_decay, share: 0.4, shape: {ours}, end: {end}}}", warmup, warmup + 20,
                          lambda o, k=options: torch_rates.LambdaLR(o, lambda step: stable(step, **k))))
    edm2 = taken("edm2/training/training_loop.py", "learning_rate_schedule")
    edm2["np"] = math
    for warmup, start in ((4, 9), (12, 5)):
        million = {"ref_lr": 1, "ref_batches": start, "rampup_Mimg": warmup * 10 / 1e6}
        cases.append((f"{{type: inverse_sqrt, from: {start}}}", warmup, 24, lambda o, k=million: torch_rates.LambdaLR(
            o, lambda step: edm2["learning_rate_schedule"](step * 10, 10, **k))))
    return [{"decay": text, "warmup": warmup, "steps": steps, "rates": rates(make, steps)} for text, warmup, steps, make in cases]


def weights():
    sd3 = taken("diffusers/src/diffusers/training_utils.py", "compute_loss_weighting_for_sd3")["compute_loss_weighting_for_sd3"]
    kohya = taken("sd-scripts/library/custom_train_functions.py", "apply_debiased_estimation", "apply_snr_weight")
    sigmas = torch.tensor([0.01, 0.03, 0.2, 1.0, 3.0, 14.0])
    t, ones, index = sigmas / (1 + sigmas), torch.ones(6), list(range(6))

    class Scheduler:
        all_snr = sigmas**-2

    found = [(scheme, "flow", sd3(scheme, t)) for scheme in ("cosmap", "sigma_sqrt")]
    found.append(("debiased", "noise", kohya["apply_debiased_estimation"](ones, index, Scheduler)))
    for target in ("noise", "v"):
        found.append(("{type: min_snr, gamma: 5}", target, kohya["apply_snr_weight"](ones, index, Scheduler, 5, target == "v")))
    return [{"weighting": text, "target": target, "sigmas": sigmas.tolist(), "weights": w.tolist()} for text, target, w in found]


def main():
    tracks = [{"type": kind, "options": options, "own_of_b": own, "steps": rows} for kind, options, own, rows in optimizers()]
    json.dump({"made with": {"torch": torch.__version__, **COMMITS}, "optimizers": tracks, "learning_rates": learning_rates(),
               "weightings": weights()}, sys.stdout)


main()
