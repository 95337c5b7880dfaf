#!/usr/bin/env python3
"""Writes diffusers_options.json: what small U-Nets with rare settings give, computed by UNet2DConditionModel of diffusers 0.40.0.dev0 (commit
58eb52c0). The weights are sines, by a step that depends on the tensor's name.

python3 tests/parity/references/diffusers_options.py > tests/parity/references/diffusers_options.json
"""
import json

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.latent_consistency_models.pipeline_latent_consistency_text2img import LatentConsistencyModelPipeline
from waves import waves

BASE = {
    "sample_size": 8,
    "block_out_channels": [16, 32],
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": 24,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
    "layers_per_block": 1,
}
SETTINGS = [
    {},
    {"time_cond_proj_dim": 16},
    {"time_cond_proj_dim": 10, "flip_sin_to_cos": False},
    {"only_cross_attention": [True, False]},
    {"only_cross_attention": True},
    {"only_cross_attention": True, "mid_block_only_cross_attention": False, "cross_attention_dim": 16},
]


def fill(model):
    for name, weight in model.state_dict().items():
        step = 0.2 + sum(name.encode()) % 101 / 100
        if weight.dim() > 1:
            weight.copy_(waves(weight.shape, step) * (2 / weight[0].numel() ** 0.5))
        else:
            weight.copy_(waves(weight.shape, step) * 0.1 + (1 if name.endswith("weight") else 0))


def main():
    cases = []
    for settings in SETTINGS:
        config = {**BASE, **settings}
        model = UNet2DConditionModel(**config).eval()
        fill(model)
        condition = None
        if width := config.get("time_cond_proj_dim"):
            scale = torch.tensor([8.5, 1.5])
            condition = LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, scale - 1, width)
        with torch.no_grad():
            out = model(waves((2, 4, 8, 8), 0.37), torch.tensor([3.0, 500.0]), waves((2, 7, config["cross_attention_dim"]), 0.11),
                        timestep_cond=condition).sample.double()
        cases.append({"config": config, "sum": out.sum().item(), "size": out.abs().sum().item(), "first": out[:, 0, 0, :4].flatten().tolist()})
    print(json.dumps(cases, indent=1))


if __name__ == "__main__":
    main()
