#!/usr/bin/env python3
"""Writes edm_pickles.json: what small networks of NVlabs/edm (commit 008a4e5) and NVlabs/edm2 (commit 4bf8162) denoise to, with settings that
only their .pkl files keep. The weights are sines, by a step that depends on the tensor's name.

python3 tests/parity/references/edm_pickles.py EDM EDM2 > tests/parity/references/edm_pickles.json
EDM and EDM2 are the folders of the two programs.
"""
import importlib
import json
import sys

import torch
from waves import waves

EDM = {
    "img_resolution": 8,
    "img_channels": 3,
    "label_dim": 4,
    "model_channels": 8,
    "channel_mult": [1, 1],
    "num_blocks": 1,
    "attn_resolutions": [4],
}
ADM = {**EDM, "model_type": "DhariwalUNet", "model_channels": 64}
NCSN = {**EDM, "embedding_type": "fourier", "channel_mult_noise": 2, "resample_filter": [1, 3, 3, 1]}
EDM2 = {**EDM, "channels_per_head": 4, "logvar_channels": 8}
CASES = [
    ("EDMPrecond", {**EDM, "model_type": "SongUNet"}),
    ("EDMPrecond", {**EDM, "model_type": "SongUNet", "sigma_data": 1.5}),
    ("VPPrecond", EDM),
    ("VPPrecond", {**EDM, "beta_d": 10.0, "beta_min": 0.2, "M": 500}),
    ("VEPrecond", NCSN),
    ("iDDPMPrecond", ADM),
    ("iDDPMPrecond", {**ADM, "M": 200}),
    ("Precond", EDM2),
    ("Precond", {**EDM2, "sigma_data": 1.5, "label_balance": 0.3, "concat_balance": 0.4, "res_balance": 0.5, "attn_balance": 0.2}),
    ("Precond", {**EDM2, "clip_act": 1}),
    ("Precond", {**EDM2, "resample_filter": [1, 3, 3, 1]}),
]


def fill(model):
    for name, weight in model.state_dict().items():
        step = 0.2 + sum(name.encode()) % 101 / 100
        if name.endswith("resample_filter") or name == "u":
            continue
        if "gain" in name:
            weight.fill_(1)
        elif weight.dim() > 1:
            weight.copy_(waves(weight.shape, step) * (2 / weight[0].numel() ** 0.5))
        else:
            weight.copy_(waves(weight.shape, step) * 0.1 + (1 if "norm" in name and name.endswith("weight") else 0))


def kept(net):
    """The numbers among the attributes of the modules, the outermost first, as the test writes them into a .pkl."""
    numbers = {}
    for module in net.modules():
        for key, value in vars(module).items():
            number = value is None or type(value) in (int, float) or type(value) is list and all(type(v) is int for v in value)
            if number and not key.startswith("_"):
                numbers.setdefault(key, value)
    return numbers


def denoised(folder, module, name, kwargs):
    sys.path.insert(0, folder)
    for loaded in [m for m in sys.modules if m.split(".")[0] in ("training", "torch_utils", "dnnlib")]:
        del sys.modules[loaded]
    network = getattr(importlib.import_module(module), name)(**kwargs, use_fp16=False).eval()
    sys.path.remove(folder)
    fill(network)
    sigma = torch.tensor([0.3, 5.0])
    if name == "iDDPMPrecond":
        sigma = network.round_sigma(sigma).float()  # it takes the nearest level of its table
    x = waves((2, 3, 8, 8), 0.37) * (sigma.view(2, 1, 1, 1) + 0.5)
    with torch.no_grad():
        out = network(x, sigma, torch.eye(4)[[1, 3]]).double()
    numbers = {k: v for k, v in kept(network).items() if v != float("inf")}
    return {
        "class": name,
        "kwargs": kwargs,
        "kept": numbers,
        "sigma": sigma.double().tolist(),
        "sum": out.sum().item(),
        "size": out.abs().sum().item(),
        "first": out[:, 0, 0, :4].flatten().tolist(),
    }


def main():
    cases = []
    for name, kwargs in CASES:
        module, folder = ("training.networks_edm2", sys.argv[2]) if name == "Precond" else ("training.networks", sys.argv[1])
        cases.append(denoised(folder, module, name, kwargs))
    print(json.dumps(cases, indent=1))


if __name__ == "__main__":
    with torch.no_grad():
        main()
