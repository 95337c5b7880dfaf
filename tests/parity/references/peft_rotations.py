#!/usr/bin/env python3
"""Writes peft_rotations.json: weights that OFT and BOFT of PEFT 0.20.1.dev0 (commit 5d602fdb) turned and merged.

python3 tests/parity/references/peft_rotations.py > tests/parity/references/peft_rotations.json
"""
import json

import torch
from peft import BOFTConfig, OFTConfig
from peft.tuners.boft import layer as boft
from peft.tuners.oft import layer as oft
from waves import waves

CASES = [
    ("oft_R", {"oft_block_size": 4}),
    ("oft_R", {"oft_block_size": 4, "use_cayley_neumann": False}),
    ("oft_R", {"oft_block_size": 4, "num_cayley_neumann_terms": 3}),
    ("oft_R", {"oft_block_size": 4, "num_cayley_neumann_terms": 2}),
    ("oft_R", {"oft_block_size": 4, "coft": True, "eps": 0.3, "use_cayley_neumann": False}),
    ("oft_R", {"oft_block_size": 4, "block_share": True}),
    ("boft_R", {"boft_block_size": 4}),
    ("boft_R", {"boft_block_size": 4, "boft_n_butterfly_factor": 2}),
    ("boft_R", {"boft_block_size": 2, "boft_n_butterfly_factor": 3}),
]


class BlockDiagonal:
    """What PEFT's CUDA extension computes, without which it allows one factor alone."""

    @staticmethod
    def apply(blocks):
        return torch.stack([torch.block_diag(*factor) for factor in blocks])


boft.get_fbd_cuda = lambda: True
boft.FastBlockDiag = BlockDiagonal


def merged(role, settings, convolution):
    base = torch.nn.Conv2d(8, 8, 3, bias=False) if convolution else torch.nn.Linear(16, 8, bias=False)
    base.weight.data = waves(base.weight.shape, 0.37)
    parts = {}
    if role == "oft_R":
        config = OFTConfig(**settings)
        layer = (oft.Conv2d if convolution else oft.Linear)(base, "default", config=config, r=0)
        weights = [("oft_R", layer.oft_R["default"].weight, 0)]
    else:
        config = BOFTConfig(**settings)
        layer = (boft.Conv2d if convolution else boft.Linear)(base, "default", config)
        weights = [("boft_R", layer.boft_R["default"], 0), ("boft_s", layer.boft_s["default"], 1)]
    for name, weight, one in weights:
        weight.data = waves(weight.shape, 0.9) * 0.1 + 1 if one else waves(weight.shape, 0.7) * 0.2
        parts[name] = list(weight.shape)
    layer.merge(adapter_names=["default"])
    return parts, layer.base_layer.weight.data


def main():
    cases = []
    for role, settings in CASES:
        for convolution in (False, True):
            parts, weight = merged(role, settings, convolution)
            values = weight.double().flatten()
            cases.append({"settings": settings, "parts": parts, "shape": list(weight.shape), "sum": values.sum().item(),
                          "weighted": (values * torch.arange(1, values.numel() + 1)).sum().item(), "first": values[:4].tolist()})
    print(json.dumps(cases, indent=1))


if __name__ == "__main__":
    main()
