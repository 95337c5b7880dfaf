#!/usr/bin/env python3
"""Writes peer_runs.json: ends of runs of diffusers' schedulers and of ComfyUI's samplers by name, in float64, on a network given by a
formula.

Debian: apt install python3-torch python3-scipy python3-tqdm
git clone diffusers (58eb52c, 0.40.0.dev0) and ComfyUI (0.15.1), then
python3 tests/parity/references/peer_runs.py DIFFUSERS COMFYUI > tests/parity/references/peer_runs.json
"""
import importlib
import json
import math
import os
import sys
import tempfile

import torch

torch.set_default_dtype(torch.float64)
SHAPE = (2, 3, 4, 4)
STUBS = {
    "torchsde/__init__.py": "class BrownianTree: pass",
    "diffusers/__init__.py": "",
    "diffusers/schedulers/__init__.py": "",
    "diffusers/utils/__init__.py": "import logging as _l\nclass BaseOutput: pass\nclass PushToHubMixin: pass\n"
    "def deprecate(*a, **k): pass\ndef is_scipy_available(): return True\n"
    "class logging:\n    get_logger = staticmethod(lambda n: _l.getLogger('quiet'))\n",
    "diffusers/utils/torch_utils.py": "DRAW = []\ndef randn_tensor(shape, **k): return DRAW[0](shape)\n",
    "diffusers/configuration_utils.py": "import inspect\nclass Config(dict):\n    __getattr__ = dict.get\nclass ConfigMixin:\n"
    "    def register_to_config(self, **k): self.config = Config(getattr(self, 'config', {}), **k)\n"
    "def register_to_config(init):\n    def inner(self, **k):\n        b = inspect.signature(init).bind(self, **k); b.apply_defaults()\n"
    "        self.register_to_config(**{n: v for n, v in b.arguments.items() if n not in ('self', 'kwargs')}); init(self, **k)\n"
    "    return inner\n",
    "comfy/__init__.py": "",
    "comfy/model_patcher.py": "",
    "comfy/memory_management.py": "",
    "comfy/utils.py": "def model_trange(*a, **k): return range(a[0])\n",
    "comfy/ldm/modules/diffusionmodules/util.py": "import torch\ndef make_beta_schedule(s, n, linear_start, linear_end, cosine_s):\n"
    "    return torch.linspace(linear_start**0.5, linear_end**0.5, n)**2\n",
}


def in_float64(text):
    for a, b in (("torch.float32", "torch.float64"), ("np.float32", "np.float64"), (".float()", ".double()"),
                 ("dtype=torch.float)", "dtype=torch.float64)"), ("torch.FloatTensor(", "torch.tensor("),
                 ("from huggingface_hub.utils import validate_hf_hub_args", "validate_hf_hub_args = lambda f: f")):
        text = text.replace(a, b)
    return text


def prepare(diffusers, comfy):
    """Lays the files of both out in float64, with as little around them as they need."""
    place = tempfile.mkdtemp()

    def write(name, text):
        os.makedirs(os.path.dirname(f"{place}/{name}"), exist_ok=True)
        with open(f"{place}/{name}", "w", encoding="utf-8") as file:
            file.write(text)

    def read(name):
        with open(name, encoding="utf-8") as file:
            return in_float64(file.read())

    for name, text in STUBS.items():
        write(name, text)
    folder = f"{diffusers}/src/diffusers/schedulers"
    for name in os.listdir(folder):
        if name.startswith("scheduling_") and name.endswith(".py"):
            write(f"diffusers/schedulers/{name}", read(f"{folder}/{name}"))
    for name in ("k_diffusion/sampling", "k_diffusion/deis", "k_diffusion/sa_solver", "k_diffusion/utils", "model_sampling"):
        write(f"comfy/{name}.py", read(f"{comfy}/comfy/{name}.py"))
    text = read(f"{comfy}/comfy/samplers.py")
    between = lambda a, b: text[text.index(a):text.index(b)]
    write("comfy/samplers.py", "import torch, math, numpy, scipy.stats, logging\nfrom functools import partial\n"
          "from typing import NamedTuple, Callable\nfrom .k_diffusion import sampling as k_diffusion_sampling\n" +
          between("def simple_scheduler", "def get_mask_aabb") +
          between("class SchedulerHandler", "def sampler_object"))
    sys.path.insert(0, place)


def wave(k, shape=SHAPE):
    """Stands for noise: the start is k = -1, the draws are 0, 1, ..."""
    i = torch.arange(math.prod(shape))
    return (torch.sin(i * 12.9898 + (k + 1) * 78.233) * 1.3 + torch.cos(i * ((k + 2) * 0.7321)) * 0.4).view(shape)


class Draws:
    def __init__(self):
        self.count = 0

    def __call__(self, shape=SHAPE):
        self.count += 1
        return wave(self.count - 1, tuple(shape))


def mix(x, t):
    return 0.5 * torch.roll(x, 1, 3) + 0.3 * math.cos(0.003 * t) * torch.sin(x) + 0.1 * math.tanh(0.002 * t - 1)


def first8(x):
    return [float(f"{v:.12g}") for v in x.reshape(-1)[:8].tolist()]


SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ZERO = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
SCHEDULERS = [
    ("scheduling_ddpm", "DDPMScheduler",
     {**SD, "timestep_spacing": "trailing", "prediction_type": "v_prediction", "clip_sample": False}, 7),
    ("scheduling_ddim", "DDIMScheduler", {**SD, "set_alpha_to_one": False, "steps_offset": 1, "clip_sample": False}, 13),
    ("scheduling_ddim", "DDIMScheduler", {**SD, "timestep_spacing": "trailing", "clip_sample": False}, 30),
    ("scheduling_ddim", "DDIMScheduler",
     {"timestep_spacing": "linspace", "prediction_type": "v_prediction", "set_alpha_to_one": False, "clip_sample": False}, 7),
    ("scheduling_pndm", "PNDMScheduler", {**SD, "skip_prk_steps": True, "steps_offset": 1}, 13),
    ("scheduling_lms_discrete", "LMSDiscreteScheduler", {**SD, "timestep_spacing": "leading", "use_karras_sigmas": True}, 3),
    ("scheduling_euler_discrete", "EulerDiscreteScheduler", {"timestep_spacing": "trailing", **ZERO}, 1),
    ("scheduling_euler_discrete", "EulerDiscreteScheduler",
     {"prediction_type": "v_prediction", "timestep_type": "continuous", "sigma_min": 0.002, "sigma_max": 80.0}, 12),
    ("scheduling_euler_discrete", "EulerDiscreteScheduler",
     {**SD, "timestep_spacing": "leading", "use_karras_sigmas": True, "interpolation_type": "log_linear"}, 3),
    ("scheduling_euler_ancestral_discrete", "EulerAncestralDiscreteScheduler", {**SD, "timestep_spacing": "trailing", **ZERO}, 5),
    ("scheduling_heun_discrete", "HeunDiscreteScheduler", {"use_beta_sigmas": True, "clip_sample": True}, 7),
    ("scheduling_k_dpm_2_discrete", "KDPM2DiscreteScheduler", {"use_karras_sigmas": True, "timestep_spacing": "trailing"}, 6),
    ("scheduling_k_dpm_2_ancestral_discrete", "KDPM2AncestralDiscreteScheduler", {"use_exponential_sigmas": True}, 9),
    ("scheduling_dpmsolver_multistep", "DPMSolverMultistepScheduler", {"use_lu_lambdas": True, "timestep_spacing": "trailing", **ZERO}, 2),
    ("scheduling_dpmsolver_multistep", "DPMSolverMultistepScheduler",
     {**SD, "solver_order": 3, "thresholding": True, "algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min",
      "lower_order_final": False}, 10),
    ("scheduling_dpmsolver_multistep", "DPMSolverMultistepScheduler",
     {**SD, "algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}, 8),
    ("scheduling_dpmsolver_singlestep", "DPMSolverSinglestepScheduler", {**SD, "solver_order": 3, "solver_type": "heun"}, 13),
    ("scheduling_deis_multistep", "DEISMultistepScheduler", {**SD, "solver_order": 3, "use_beta_sigmas": True}, 9),
    ("scheduling_unipc_multistep", "UniPCMultistepScheduler",
     {**SD, "predict_x0": False, "thresholding": True, "sample_max_value": 0.5, "solver_type": "bh1", "final_sigmas_type": "sigma_min"}, 8),
    ("scheduling_unipc_multistep", "UniPCMultistepScheduler", {**FLOW, "solver_order": 3}, 7),
    ("scheduling_sasolver", "SASolverScheduler", {**SD, "predictor_order": 3, "corrector_order": 2}, 12),
    ("scheduling_lcm", "LCMScheduler", {"original_inference_steps": 100}, 5),
    ("scheduling_edm_dpmsolver_multistep", "EDMDPMSolverMultistepScheduler",
     {"algorithm_type": "sde-dpmsolver++", "sigma_schedule": "exponential"}, 7),
    ("scheduling_consistency_models", "CMStochasticIterativeScheduler", {"num_train_timesteps": 18, "clip_denoised": False}, 3),
    ("scheduling_flow_match_euler_discrete", "FlowMatchEulerDiscreteScheduler",
     {"shift": 3.0, "shift_terminal": 0.02, "use_exponential_sigmas": True, "num_train_timesteps": 100}, 6),
    ("scheduling_flow_match_heun_discrete", "FlowMatchHeunDiscreteScheduler", {"shift": 6.0}, 5),
]


def run_scheduler(file, name, config, steps):
    draws = Draws()
    importlib.import_module("diffusers.utils.torch_utils").DRAW[:] = [draws]
    torch.randn = lambda *a, **k: draws(a[0])
    s = getattr(importlib.import_module(f"diffusers.schedulers.{file}"), name)(**config)
    s.set_timesteps(steps)
    x = wave(-1) * float(getattr(s, "init_noise_sigma", 1))
    times = []
    for t in s.timesteps:
        times.append(float(f"{float(t):.9g}"))
        inner = s.scale_model_input(x, t) if hasattr(s, "scale_model_input") else x
        x = s.step(mix(inner, float(t)), t, x).prev_sample
    return {"scheduler": name, "config": config, "steps": steps, "times": times, "end": first8(x)}


SD_NAMES = {"dpm_2 simple": 7, "dpm_2_ancestral beta": 5, "lms karras": 10, "lms simple": 2, "dpm_fast karras": 7,
            "dpm_adaptive exponential": 5, "sa_solver karras": 13, "sa_solver_pece simple": 7, "euler ddim_uniform": 13,
            "exp_heun_2_x0 simple": 7,
            "exp_heun_2_x0_sde simple": 7, "dpmpp_2m karras": 9, "dpmpp_3m_sde exponential": 9, "ipndm_v kl_optimal": 9}
FLOW_NAMES = {"euler beta": 7, "euler karras": 7, "euler_ancestral simple": 9, "heun simple": 6, "dpm_2 sgm_uniform": 7,
              "dpm_2_ancestral simple": 6, "lms beta": 9, "dpmpp_2m simple": 9, "dpmpp_2m_sde simple": 9, "dpmpp_2s_ancestral simple": 7,
              "ipndm beta": 8, "deis simple": 9, "res_multistep simple": 9, "res_multistep_ancestral simple": 9,
              "gradient_estimation simple": 9, "er_sde simple": 9, "seeds_2 simple": 7, "sa_solver simple": 9,
              "exp_heun_2_x0_sde simple": 7, "lcm simple": 4}
NAMES = [(n, "sd", k) for n, k in SD_NAMES.items()] + [(n, "flow", k) for n, k in FLOW_NAMES.items()]


class Bag:
    def __init__(self, **k):
        self.__dict__.update(k)


def run_name(name, kind, steps):
    samplers, sampling = importlib.import_module("comfy.samplers"), importlib.import_module("comfy.k_diffusion.sampling")
    levels = importlib.import_module("comfy.model_sampling")
    bases = (levels.ModelSamplingDiscrete, levels.EPS) if kind == "sd" else (levels.ModelSamplingDiscreteFlow, levels.CONST)
    model = type("Model", bases, {})(Bag(sampling_settings={"shift": 3.0}))
    draws = Draws()
    torch.randn_like = lambda x, **k: draws()
    sampling.default_noise_sampler = lambda x, seed=None: lambda a, b: draws()
    sampling.BrownianTreeNoiseSampler = lambda *a, **k: lambda x, y: draws()

    class Network(torch.nn.Module):
        inner_model = Bag(model_sampling=model, model_patcher=Bag(get_model_object=lambda n: model))
        inner_model.inner_model = inner_model

        def forward(self, x, sigma, **k):
            t = float(model.timestep(sigma)[0])
            return model.calculate_denoised(sigma, mix(model.calculate_input(sigma, x), t), x)

    sampler, scheduler = name.split()
    drops = sampler.startswith("dpm_2")
    sigmas = samplers.calculate_sigmas(model, scheduler, steps + drops)
    if drops:
        sigmas = torch.cat([sigmas[:-2], sigmas[-1:]])
    whole = math.isclose(float(model.sigma_max), float(sigmas[0]), rel_tol=1e-5)
    x = model.noise_scaling(sigmas[0], wave(-1), torch.zeros(SHAPE), whole)
    function = getattr(sampling, f"sample_{sampler}")
    ends = (sigmas[-2], sigmas[0])
    more = {"dpm_fast": (*ends, len(sigmas) - 1), "dpm_adaptive": ends}.get(sampler, (sigmas,))
    return {"like": f"comfyui:{name}", "model": kind, "steps": steps, "end": first8(function(Network(), x, *more))}


def main():
    prepare(*sys.argv[1:3])
    cases = {"schedulers": [run_scheduler(*c) for c in SCHEDULERS], "names": [run_name(*c) for c in NAMES]}
    lines = [f'"{key}": [\n' + ",\n".join(json.dumps(c) for c in value) + "\n]" for key, value in cases.items()]
    print("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    with torch.no_grad():
        main()
