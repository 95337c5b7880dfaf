#!/usr/bin/env python3
"""Writes vision.json: features of small CLIP and DINOv2 networks whose weights follow a rule, computed in float64 with PyTorch's own
layers, and the bytes of Pillow's bicubic resizing.

Debian: apt install python3-torch python3-pil; python3 tests/parity/references/vision.py > tests/parity/references/vision.json
"""
import hashlib
import json
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

MASK = (1 << 64) - 1
BEGIN, END = 519, 520  # of the tokenizer in tests/support/tokenizers.cpp
CAPTIONS = {"red cat": [513, 518], "a red cat": [256 + 97, 513, 518]}


def rule(name, shape):
    """The values of tests/support/vision.cpp."""
    base = 0xCBF29CE484222325
    for byte in name.encode():
        base = ((base ^ byte) * 0x100000001B3) & MASK
    count = int(np.prod(shape))
    with np.errstate(over="ignore"):
        z = np.uint64((base + 1) & MASK) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    v = (z >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1
    if "token" in name or "embedding" in name or name == "pos_embed":
        v = v * 0.5
    elif len(shape) >= 2:
        v = v * math.sqrt(3 * shape[0] / count)
    elif name.endswith("weight") or name.endswith("gamma"):
        v = v * 0.25 + 1
    else:
        v = v * 0.1
    return torch.from_numpy(v.astype(np.float32).astype(np.float64)).view(shape)


def image(n, height, width):
    """[3, H, W] uint8."""
    c, y, x = np.meshgrid(np.arange(3), np.arange(height), np.arange(width), indexing="ij")
    return ((7 * x + 5 * (c + 1) * y + 40 * n + 60 * ((x // 6 + y // 5) % 2)) % 256).astype(np.uint8)


def pillow(array, height, width):
    resized = Image.fromarray(array.transpose(1, 2, 0), "RGB").resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized).transpose(2, 0, 1)


def norm(x, name, eps):
    return F.layer_norm(x, x.shape[-1:], rule(name + "weight", (x.shape[-1],)), rule(name + "bias", (x.shape[-1],)), eps)


def linear(x, name, out):
    return F.linear(x, rule(name + "weight", (out, x.shape[-1])), rule(name + "bias", (out,)))


def attention(x, heads, in_weight, in_bias, out_name, mask=None):
    width = x.shape[-1]
    layer = torch.nn.MultiheadAttention(width, heads, batch_first=True).double()
    layer.in_proj_weight.data = rule(in_weight, (3 * width, width))
    layer.in_proj_bias.data = rule(in_bias, (3 * width,))
    layer.out_proj.weight.data = rule(out_name + "weight", (width, width))
    layer.out_proj.bias.data = rule(out_name + "bias", (width,))
    return layer(x, x, x, need_weights=False, attn_mask=mask)[0].detach()


def clip_blocks(x, prefix, depth, heads, mlp, act, mask=None):
    for i in range(depth):
        b = f"{prefix}transformer.resblocks.{i}."
        x = x + attention(norm(x, b + "ln_1.", 1e-5), heads, b + "attn.in_proj_weight", b + "attn.in_proj_bias", b + "attn.out_proj.", mask)
        h = linear(norm(x, b + "ln_2.", 1e-5), b + "mlp.c_fc.", mlp)
        x = x + linear(act(h), b + "mlp.c_proj.", x.shape[-1])
    return x


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


def clip_image(array, act, width=128, patch=8, side=32, out=24):
    h, w = array.shape[1:]
    short = min(h, w)
    size = (side * h // short, side * w // short)
    if short != side:
        array = pillow(array, *size)
    top, left = int(round((array.shape[1] - side) / 2.0)), int(round((array.shape[2] - side) / 2.0))
    x = torch.from_numpy(array[:, top : top + side, left : left + side].copy()).double() / 255
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).double().view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).double().view(3, 1, 1)
    x = ((x - mean) / std).unsqueeze(0)
    x = F.conv2d(x, rule("visual.conv1.weight", (width, 3, patch, patch)), stride=patch).flatten(2).transpose(1, 2)
    x = torch.cat([rule("visual.class_embedding", (width,)).view(1, 1, -1), x], 1)
    x = norm(x + rule("visual.positional_embedding", (1 + (side // patch) ** 2, width)), "visual.ln_pre.", 1e-5)
    x = clip_blocks(x, "visual.", 2, 2, 256, act)
    return (norm(x[:, 0], "visual.ln_post.", 1e-5) @ rule("visual.proj", (width, out)))[0]


def clip_text(tokens, act, width=64, length=16, rows=521, out=24):
    ids = [BEGIN] + tokens + [END]
    end = len(ids) - 1
    ids = torch.tensor(ids + [0] * (length - len(ids)))
    x = rule("token_embedding.weight", (rows, width))[ids] + rule("positional_embedding", (length, width))
    mask = torch.full((length, length), float("-inf")).double().triu(1)
    x = clip_blocks(x.unsqueeze(0), "", 2, 1, 128, act, mask)
    return (norm(x, "ln_final.", 1e-5)[:, end] @ rule("text_projection", (width, out)))[0]


def positions(side, grid, width, antialias):
    table = rule("pos_embed", (1, 1 + side * side, width))
    patches = table[:, 1:].view(1, side, side, width).permute(0, 3, 1, 2)
    if antialias:
        patches = F.interpolate(patches, size=(grid, grid), mode="bicubic", antialias=True)
    else:
        scale = (grid + 0.1) / side
        patches = F.interpolate(patches, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([table[:, :1], patches.permute(0, 2, 3, 1).reshape(1, grid * grid, width)], 1)


def dinov2(array, resize, registers, gated, width=128, side=5, size=56, patch=14):
    if resize == "edm2":
        x = torch.from_numpy(array.copy()).float().unsqueeze(0)
        x = F.interpolate(x, size=(size, size), mode="bicubic", antialias=True).double()
    else:
        x = torch.from_numpy(pillow(array, size, size).copy()).double().unsqueeze(0)
    mean = torch.tensor([0.485, 0.456, 0.406]).double().view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).double().view(1, 3, 1, 1)
    x = (x / 255 - mean) / std
    weight, bias = rule("patch_embed.proj.weight", (width, 3, patch, patch)), rule("patch_embed.proj.bias", (width,))
    x = F.conv2d(x, weight, bias, stride=patch).flatten(2).transpose(1, 2)
    x = torch.cat([rule("cls_token", (1, 1, width)), x], 1) + positions(side, size // patch, width, registers > 0)
    if registers:
        x = torch.cat([x[:, :1], rule("register_tokens", (1, registers, width)), x[:, 1:]], 1)
    for i in range(2):
        b = f"blocks.{i}."
        a = attention(norm(x, b + "norm1.", 1e-6), 2, b + "attn.qkv.weight", b + "attn.qkv.bias", b + "attn.proj.")
        x = x + a * rule(b + "ls1.gamma", (width,))
        h = norm(x, b + "norm2.", 1e-6)
        if gated:
            first, second = linear(h, b + "mlp.w12.", 320).chunk(2, -1)
            h = linear(F.silu(first) * second, b + "mlp.w3.", width)
        else:
            h = linear(F.gelu(linear(h, b + "mlp.fc1.", 256)), b + "mlp.fc2.", width)
        x = x + h * rule(b + "ls2.gamma", (width,))
    return norm(x, "norm.", 1e-6)[0, 0]


def main():
    torch.set_num_threads(1)
    images = [image(0, 30, 41), image(1, 40, 32), image(2, 20, 26)]
    values = lambda rows: [[round(float(v), 9) for v in row] for row in rows]
    result = {"meta": {"torch": torch.__version__, "pillow": Image.__version__, "written_by": "tests/parity/references/vision.py"}}
    result["image_sizes"] = [list(i.shape[1:]) for i in images]
    result["pillow"] = [
        {"image": n, "size": [h, w], "sha256": hashlib.sha256(np.ascontiguousarray(pillow(images[n], h, w).transpose(1, 2, 0)).tobytes()).hexdigest()}
        for n, h, w in [(0, 17, 13), (0, 30, 20), (0, 61, 45), (1, 7, 64), (2, 224, 224)]
    ]
    result["clip"] = {
        name: {"images": values(clip_image(i, act) for i in images), "captions": {c: values([clip_text(t, act)])[0] for c, t in CAPTIONS.items()}}
        for name, act in [("quick_gelu", quick_gelu), ("gelu", F.gelu)]
    }
    result["dinov2"] = [
        {"resize": resize, "registers": registers, "gated": gated, "images": values(dinov2(i, resize, registers, gated) for i in images)}
        for resize, registers, gated in [("edm2", 0, False), ("dgm_eval", 0, False), ("edm2", 4, False), ("edm2", 0, True)]
    ]
    print(json.dumps(result, separators=(",", ":")).replace("],", "],\n"))


main()
