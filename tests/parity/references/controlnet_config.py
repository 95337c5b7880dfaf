#!/usr/bin/env python3
"""Writes controlnet_config.json: the residuals of the ControlNet in shared/refs2/controlnet/tiny_controlnet under other settings of its
config.json, computed by ControlNetModel of diffusers 0.40.0.dev0 (commit 58eb52c0).

python3 tests/parity/references/controlnet_config.py SHARED > tests/parity/references/controlnet_config.json
"""
import json
import sys
from pathlib import Path

import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from safetensors.torch import load_file
from waves import waves

SETTINGS = [
    {},
    {"controlnet_conditioning_channel_order": "bgr"},
    {"attention_head_dim": 4},
    {"norm_num_groups": 16},
    {"norm_eps": 0.01},
    {"downsample_padding": 0},
]


def residuals(folder, settings):
    config = {**json.loads((folder / "config.json").read_text()), **settings}
    model = ControlNetModel(**{k: v for k, v in config.items() if not k.startswith("_")}).eval()
    model.load_state_dict(load_file(folder / "diffusion_pytorch_model.safetensors"))
    hint = waves((1, 3, 32, 32), 0.013) * 0.5 + 0.5
    with torch.no_grad():
        down, middle = model(waves((1, 4, 16, 16), 0.37), torch.tensor([500.0]), waves((1, 7, 32), 0.11), hint, return_dict=False)
    return [*down, middle]


def main():
    folder = Path(sys.argv[1]) / "refs2/controlnet/tiny_controlnet"
    cases = []
    for settings in SETTINGS:
        values = [{"sum": r.double().sum().item(), "size": r.double().abs().sum().item(), "first": r.flatten()[:4].tolist()}
                  for r in residuals(folder, settings)]
        cases.append({"settings": settings, "residuals": values})
    print(json.dumps(cases, indent=1))


if __name__ == "__main__":
    main()
