#!/usr/bin/env python3
"""Prints the ends of runs by A1111's names: Forge's samplers and schedules, in float64, on the network `mix` of peer_runs.py.

Debian: apt install python3-torch python3-scipy python3-tqdm
git clone stable-diffusion-webui-forge (lllyasviel, dfdcbab), then
python3 tests/parity/references/webui_runs.py FORGE

The cases "sdcpp:" of webui_runs.json are of stable-diffusion.cpp 97d2990: sample_k_diffusion() and get_sigmas() of its
src/runtime/denoiser.hpp, compiled with double for float, on the same network and noise.
"""
import inspect
import json
import sys
import types

import numpy as np
import torch

from peer_runs import Draws, Bag, first8, in_float64, mix, wave

NAMES = {"DPM++ 2M Automatic": 10, "Euler a SGM Uniform": 9, "DPM2 KL Optimal": 7, "Euler KL Optimal": 9, "DPM++ 3M SDE Beta": 8,
         "DPM fast Karras": 7, "DPM adaptive Simple": 5, "LMS Polyexponential": 9, "Heun Turbo": 6, "HeunPP2 DDIM": 10, "DEIS Normal": 8,
         "IPNDM Simple": 9, "Euler Turbo": 16, "DPM++ 2M Simple": 38, "Euler Align Your Steps": 10,
         "Euler Align Your Steps GITS": 8, "DDIM": 20, "PLMS": 13, "UniPC": 10}


def stub(name, **content):
    module = sys.modules[name] = types.ModuleType(name)
    module.__dict__.update(content)
    return module


def load(name, path):
    module = stub(name, __file__=path, __package__=name.rpartition(".")[0])
    text = in_float64(open(path, encoding="utf-8").read()).replace("torch.tensor(sigs)", "torch.tensor([float(s) for s in sigs])")
    exec(compile(text, path, "exec"), module.__dict__)
    return module


def prepare(forge):
    for name in ("torchsde", "torchdiffeq", "torchvision", "torchvision.transforms", "safetensors", "requests", "PIL", "backend",
                 "backend.modules", "modules.models", "modules.models.diffusion"):
        stub(name, BrownianTree=object, odeint=None, transforms=None, functional=None, Image=None)
    stub("backend.modules.k_prediction", PredictionFlux=type("PredictionFlux", (), {}))
    options = Bag(uni_pc_variant="bh1", uni_pc_skip_type="time_uniform", uni_pc_order=3, uni_pc_lower_order_final=True,
                  beta_dist_alpha=0.6, beta_dist_beta=0.6)
    shared = stub("modules.shared", opts=options, sd_model=Bag(is_sdxl=False))
    stub("modules", shared=shared)
    stub("modules.torch_utils", float64=lambda x: torch.float64)
    k = stub("k_diffusion", __path__=[])
    for name in ("utils", "deis", "sampling", "external"):
        setattr(k, name, load(f"k_diffusion.{name}", f"{forge}/k_diffusion/{name}.py"))
    package = stub("modules.models.diffusion.uni_pc", __path__=[])
    package.uni_pc = load("modules.models.diffusion.uni_pc.uni_pc", f"{forge}/modules/models/diffusion/uni_pc/uni_pc.py")
    schedules = load("modules.sd_schedulers", f"{forge}/modules/sd_schedulers.py")
    timesteps = load("modules.sd_samplers_timesteps_impl", f"{forge}/modules/sd_samplers_timesteps_impl.py")
    text = open(f"{forge}/modules/sd_samplers_kdiffusion.py", encoding="utf-8").read()
    table = {"sd_samplers_extra": Bag(restart_sampler=None)}
    exec(text[text.index("samplers_k_diffusion = ["):].split("\n]\n")[0] + "\n]", table)
    return k, schedules, timesteps, {row[0]: row for row in table["samplers_k_diffusion"]}


CUMPROD = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000)**2, 0)


class Network(torch.nn.Module):
    predictor = None

    def __init__(self):
        super().__init__()
        self.alphas_cumprod = CUMPROD
        self.inner_model = Bag(inner_model=Bag(alphas_cumprod=CUMPROD))

    def apply_model(self, x, t, **k):
        return mix(x, float(t.reshape(-1)[0]))

    forward = apply_model


def levels(schedules, row, schedule, steps, model):
    drops = row[3].get("discard_next_to_last_sigma", False)
    name = (schedule if schedule != "Automatic" else None) or row[3].get("scheduler") or "Uniform"
    s = schedules.schedulers_map[name]
    given = {"sigma_min": float(model.sigmas[0]), "sigma_max": float(model.sigmas[-1])}
    if s.need_inner_model:
        given["inner_model"] = model
        predictor = Bag(sigma=lambda t: model.sigmas[t])
        model.inner_model.forge_objects = Bag(unet=Bag(model=Bag(predictor=predictor)))
    sigmas = s.function(n=steps + drops, **given, device="cpu")
    return torch.cat([sigmas[:-2], sigmas[-1:]]) if drops else sigmas


def run(parts, name, steps):
    k, schedules, timesteps, table = parts
    draws = Draws()
    torch.randn_like = lambda x, **k: draws()
    k.sampling.default_noise_sampler = lambda x: lambda a, b: draws()
    if name in ("DDIM", "PLMS", "UniPC"):
        times = torch.clip(torch.tensor(range(0, 1000, 1000 // steps)) + 1, 0, 999)
        function = getattr(timesteps, name.lower())
        end = function(Network(), wave(-1), times, extra_args={}, callback=lambda d: None, disable=True)
        return {"like": f"a1111:{name}", "model": "sd", "steps": steps, "vp": True, "end": first8(end)}
    row = max((r for n, r in table.items() if f"{name} ".startswith(f"{n} ")), key=lambda r: len(r[0]))
    model = k.external.CompVisDenoiser(Network(), quantize=False)
    sigmas = levels(schedules, row, name[len(row[0]) + 1:], steps, model)
    function = getattr(k.sampling, row[1])
    given = {"n": steps, "sigma_min": float(model.sigmas[0]), "sigma_max": float(model.sigmas[-1]), "sigmas": sigmas,
             "noise_sampler": lambda a, b: draws()}
    asked = inspect.signature(function).parameters
    end = function(model, wave(-1) * sigmas[0], disable=True, **{n: v for n, v in given.items() if n in asked})
    return {"like": f"a1111:{name}", "model": "sd", "steps": steps, "end": first8(end)}


if __name__ == "__main__":
    made = prepare(sys.argv[1])
    print(",\n".join(json.dumps(run(made, *case)) for case in NAMES.items()))
