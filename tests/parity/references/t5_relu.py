#!/usr/bin/env python3
"""Writes t5_relu.json: the tokens of small T5 encoders whose feed-forward layers are relu (t5-small to t5-11b) and gated gelu (T5 1.1), computed
by comfy/text_encoders/t5.py of a fork of ComfyUI (hiddenswitch/pip-and-uv-installable-ComfyUI, commit 87606c5). The weights are sines, by a
step that depends on the tensor's name.

python3 tests/parity/references/t5_relu.py COMFYUI > tests/parity/references/t5_relu.json
COMFYUI is the folder of the program. Of its other files nothing is needed: attention without a kernel stands in for theirs.
"""
import importlib.util
import json
import sys
import types

import torch
from waves import waves

CONFIG = {"d_ff": 40, "d_kv": 8, "d_model": 32, "num_heads": 3, "num_layers": 2, "vocab_size": 50, "model_type": "t5"}
KINDS = {"relu": {"dense_act_fn": "relu", "is_gated_act": False}, "gated_gelu": {"dense_act_fn": "gelu_pytorch_tanh", "is_gated_act": True}}


def attention(q, k, v, heads, mask):
    def split(x):
        return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)

    q, k, v = split(q), split(k), split(v)
    scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5 + mask
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def t5_of(folder):
    for name in ["comfy", "comfy.ops", "comfy.ldm", "comfy.ldm.modules", "comfy.ldm.modules.attention", "comfy.text_encoders"]:
        sys.modules[name] = types.ModuleType(name)
    sys.modules["comfy"].ops = sys.modules["comfy.ops"]
    sys.modules["comfy.ops"].cast_to_input = lambda weight, x: weight.to(x)
    sys.modules["comfy.ldm.modules.attention"].optimized_attention_for_device = lambda *a, **k: attention
    spec = importlib.util.spec_from_file_location("comfy.text_encoders.t5", folder + "/comfy/text_encoders/t5.py")
    module = importlib.util.module_from_spec(spec)
    module.__package__ = "comfy.text_encoders"
    spec.loader.exec_module(module)
    return module.T5


class Embedding(torch.nn.Embedding):
    def forward(self, ids, out_dtype=None):
        return super().forward(ids)


def main():
    t5 = t5_of(sys.argv[1])
    ids = (torch.arange(2 * 21) * 17 % 49).view(2, 21)
    mask = torch.ones(2, 21)
    mask[1, 9:] = 0
    cases = {}
    for kind, settings in KINDS.items():
        model = t5({**CONFIG, **settings}, torch.float32, "cpu", types.SimpleNamespace(Linear=torch.nn.Linear, Embedding=Embedding)).eval()
        for name, weight in model.state_dict().items():
            step = 0.2 + sum(name.encode()) % 101 / 100
            if weight.dim() > 1:
                weight.copy_(waves(weight.shape, step) * (2 / weight[0].numel() ** 0.5))
            else:
                weight.copy_(waves(weight.shape, step) * 0.1 + 1)
        out = model(ids, mask)[0].double()
        cases[kind] = {"sum": out.sum().item(), "size": out.abs().sum().item(), "first": out[:, :4, 0].flatten().tolist()}
    print(json.dumps(cases, indent=1))


if __name__ == "__main__":
    with torch.no_grad():
        main()
