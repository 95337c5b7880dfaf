#!/usr/bin/env python3
"""Compares trainings of several processes with one process that accumulates as many parts: compare_worlds.py BRUME [-k NAME] [--steps N].

Trains small models by every objective, learner and time sampler, each in float32 and bf16, in one process with train.accumulate 2 and in
two processes; those of SHARDED also in two that shard the optimizer. Weights, averages and states of the optimizer must be equal bit for
bit. Those of FOUR also train in four processes by gradient descent, to within 1e-5 of the weights of one process that accumulates four
parts. Prints a line per training; exit code 1 if one differs.
"""
import argparse
import json
import math
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

UNET = "{type: unet, channels: 32, multipliers: [1, 2], blocks: 1, attention_resolutions: [8], heads: 2, groups: 8, dropout: 0.2}"
MLP = "{type: mlp, width: 128, blocks: 2, noise_embedding: {type: fourier, scale: 1, input: timestep}}"
EDM_MLP = "{type: mlp, width: 128, blocks: 2, noise_embedding: {type: fourier, scale: 1, input: quarter_log}}"
CLASSES = "{type: class_label, classes: 5, dropout: 0.2}"
IMAGES = {"model.image": "{channels: 1, height: 16, width: 16}", "model.network": UNET, "model.conditioner": CLASSES,
          "train.data": "{type: shapes, label: form}"}
POINTS = {"model.image": "{channels: 2, height: 1, width: 1}", "model.network": MLP, "train.data": "gaussians"}
EDM = {"model.noise": "edm", "model.parameterization": "edm"}
FLOW = {"model.noise": "flow", "model.parameterization": "flow"}
LEARNED = {"model.noise": "{type: linear, timesteps: 40, rescale: true}", "model.variance": "learned_range",
           "sample": "{sampler: {type: ddpm, variance: learned_range}}"}
AUTOENCODER = {"autoencoder.image": "{channels: 1, height: 16, width: 16}", "train.data": "shapes", "train.batch": "8",
               "autoencoder.network": "{type: kl, channels: 16, multipliers: [1, 2], blocks: 1, groups: 4, latent_channels: 2}"}
LEARNERS = {
    "classifier": {"classifier.image": "{channels: 1, height: 16, width: 16}", "classifier.classes": "5",
    "train.data": "{type: shapes, label: form}",
                   "classifier.network": "{type: unet_encoder, channels: 32, multipliers: [1, 2], blocks: 1, groups: 4, heads: 2, "
                       "dropout: 0.1}",
                   "classifier.noise": "{schedule: cosine}"},
    "autoencoder": AUTOENCODER,
    "autoencoder_adversarial": AUTOENCODER | {"train.loss": "{adversarial: {weight: 0.5, channels: 8, layers: 1, start: 10}}",
                                              "train.discriminator": "{optimizer: adam}"},
    "autoencoder_vq": AUTOENCODER | {"autoencoder.network": "{type: vq, channels: 16, multipliers: [1, 2], blocks: 1, groups: 4, "
        "latent_channels: 4, "
                                                            "codes: 16, codebook: ema, restart_after: 5}"},
}

SHARDED = ("optimizer_", "classifier", "autoencoder", "ddgan", "dmd", "average_", "adapter_lora")
FOUR = ("simple", "hybrid", "flow", "edm", "consistency", "classifier", "autoencoder", "mean_flow", "mdlm", "adapter_lora")


def model(*parts, **sets):
    """Returns the settings of a model of images; a later part wins."""
    all = dict(IMAGES)
    for part in parts:
        all |= part
    return all | {key.replace("__", "."): value for key, value in sets.items()}


def objectives(f):
    """Returns the settings of each training of a diffusion model; `f`: the folder of the models they start from."""
    teacher, edm, codes, base = (f / name / "model.safetensors" for name in ("teacher", "edm", "codes", "base"))
    points = {key: value for key, value in IMAGES.items() if key != "model.conditioner"} | POINTS
    tokens = {"model.autoencoder": f"{{type: codes, first_stage: {{type: checkpoint, path: {codes}}}}}",
              "model.network": "{type: dit, patch: 1, width: 64, depth: 2, heads: 2}"}
    adapted = {"train.from": str(base), "train.data": "{type: shapes, caption: short}", "train.triggers": "[mist]"}
    all = {
        "simple": model(), "simple_v_min_snr": model(model__parameterization="v",
            train__objective="{type: simple, target: v, weighting: min_snr}"),
        "hybrid": model(LEARNED, train__objective="hybrid"), "vlb": model(LEARNED, train__objective="vlb"),
        "flow": model(FLOW, train__objective="flow"), "edm": model(EDM, train__objective="edm"), "edm2": model(EDM,
            train__objective="edm2"),
        "consistency": model(model__noise="edm", model__parameterization="consistency", train__objective="consistency"),
        "consistency_distillation": model(model__noise="edm", model__parameterization="consistency",
                                          train__objective=f"{{type: consistency_distillation, teacher: {edm}}}"),
        "ect": model(model__noise="edm", model__parameterization="edm", train__objective="ect"),
        "progressive": model(model__noise="cosine", model__parameterization="v",
            train__objective=f"{{type: progressive, teacher: {teacher}, steps: 4}}"),
        "reflow": model(FLOW, train__objective=f"{{type: reflow, teacher: {teacher}, steps: 3}}"),
        "dmd": model(model__noise="cosine", model__parameterization="v", train__objective=f"{{type: dmd, teacher: {teacher}, steps: 2}}"),
        "ddgan": points | {"model.network": "{type: mlp, width: 64, blocks: 2, zero_init: false}",
        "model.conditioner": "{type: latent, width: 8}",
                           "model.noise": "vp", "model.parameterization": "x0", "sample": "{sampler: ddgan, spacing: trailing, steps: 4}",
                           "train.objective": "{type: ddgan, steps: 4, r1: 0.05, r1_every: 3, discriminator: {type: mlp, width: 64, "
                               "blocks: 2, "
                                              "zero_init: false}}"},
        "mean_flow": points | FLOW | {"model.noise": "{type: flow, timestep_scale: 1}", "model.conditioner": "{type: interval, width: 16}",
                                      "train.objective": "{type: mean_flow, ratio: 0.5}",
                                      "sample": "{sampler: flow_map, spacing: trailing, steps: 1}"},
        "shortcut": points | FLOW | {"model.noise": "{type: flow, timestep_scale: 1}", "model.conditioner": "{type: interval, width: 16}",
                                     "train.objective": "shortcut", "sample": "{sampler: flow_map, spacing: trailing, steps: 4}"},
        "scm": points | {"model.network": EDM_MLP, "model.noise": "edm",
        "model.parameterization": "{type: edm, sigma_data: 0.64, prediction: v}",
                         "train.objective": "{type: scm, sigma_data: 0.64, warmup: 20}",
                         "sample": "{sampler: consistency, spacing: {type: karras, inclusive: false, final: minimum}, steps: 2}"},
        "mdlm": model(tokens, model__noise="flow", model__parameterization="logits", train__objective="mdlm",
                      sample="{sampler: mdlm, spacing: trailing, steps: 4}"),
        "d3pm": model(tokens, model__noise="{type: cosine, timesteps: 100}", model__parameterization="{type: logits, kernel: uniform}",
                      train__objective="d3pm", sample="{sampler: {type: d3pm, kernel: uniform}, spacing: trailing, steps: 4}"),
        "network_dit": model(model__network="{type: dit, patch: 2, width: 64, depth: 2, heads: 2}"),
        "network_mmdit": model(FLOW, {"model.conditioner": "{type: clip_text, tokenizer: " + str(f / "clip") + ", trainable: true, "
            "width: 32, depth: 1, heads: 2, "
                                      "mlp: 64, length: 10}"}, model__network="{type: mmdit, patch: 2, width: 64, depth: 2, heads: 2}",
                               train__objective="flow", train__data="{type: shapes, caption: short}"),
        "network_song_unet": model(EDM, model__network="{type: song_unet, channels: 32, multipliers: [1, 2], blocks: 1}",
            train__objective="edm"),
        "network_dhariwal_unet": model(EDM, model__network="{type: dhariwal_unet, channels: 32, multipliers: [1, 2], blocks: 1, "
                                                           "attention_resolutions: [8]}", train__objective="edm"),
        "network_edm2_unet": model(EDM, model__network="{type: edm2_unet, channels: 32, multipliers: [1, 2], blocks: 1, "
            "attention_resolutions: [8]}",
                                   train__objective="edm2"),
        "network_unet_28": model(model__image="{channels: 1, height: 28, width: 28}",
            model__network="{type: unet, channels: 64, multipliers: "
                                 "[1, 2], blocks: 1, attention_resolutions: [14], heads: 2}"),
        "checkpoint": model(model__network=UNET.replace("dropout: 0.2", "dropout: 0.2, checkpoint: true")),
        "freeze": model(train__freeze="['*embed*']"),
        "average_power": model(train__ema="{type: power}"),
        "control": {"model.control": "{image: canny}", "train.from": str(teacher), "train.data": "{type: shapes, label: form}"},
        "noise_offset": model(train__objective="{type: simple, time: low_discrepancy, noise: {offset: 0.1, perturbation: 0.1}}"),
    }
    for name in ("uniform", "low_discrepancy", "log_normal", "logit_normal", "mode", "loss_second_moment"):
        all["time_" + name] = model(FLOW if name in ("logit_normal", "mode") else EDM if name == "log_normal" else {},
                                    train__objective="{type: %s, time: %s}" % ("flow" if name in ("logit_normal", "mode") else
                                                                              "edm" if name == "log_normal" else "simple", name))
    all["time_loss_second_moment"] = model(model__noise="{type: linear, timesteps: 4}",
                                           train__objective="{type: simple, time: {type: loss_second_moment, history: 2}}")
    for name in ("adam", "adamw", "adafactor", "lion", "muon", "prodigy", "schedule_free", "sgd"):
        all["optimizer_" + name] = model(train__optimizer="{type: %s, lr: 0.001}" % name if name != "prodigy" else "prodigy")
    for name in ("lora", "loha", "lokr", "dora"):
        all["adapter_" + name] = adapted | {"train.adapters": "[{type: %s, rank: 2}]" % name}
    all["adapter_textual_inversion"] = adapted | {"train.adapters": "[{type: textual_inversion, token: <mist>, vectors: 2, "
        "init: red circle}]"}
    del all["adapter_textual_inversion"]["train.triggers"]
    return all


def before(f):
    """Returns the settings of the trainings that others start from."""
    return {
        "teacher": model(model__noise="cosine", model__parameterization="v", train__objective="{type: simple, target: v}"),
        "edm": model(EDM, train__objective="edm"),
        "codes": LEARNERS["autoencoder_vq"] | {"autoencoder.network": "{type: vq, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, "
                                                                     "latent_channels: 4, codes: 12}"},
        "base": model({"model.conditioner": "{type: clip_text, tokenizer: " + str(f / "clip") + ", trainable: true, width: 32, "
            "depth: 2, heads: 2, "
                       "mlp: 64, length: 10}"},
                      model__network=UNET.replace("groups: 8", "groups: 8, transformer: {depth: [1]}"), model__parameterization="v",
                      train__data="{type: shapes, caption: short}"),
    }


def write_tokenizer(folder):
    """Writes CLIP's files: bytes, and no merges."""
    folder.mkdir()
    printable = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    letters = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    vocabulary = letters + [letter + "</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")


def tensors(path):
    """Returns {name: (type, bytes)} of a safetensors file."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    return {name: (t["dtype"], data[8 + size + t["data_offsets"][0] : 8 + size + t["data_offsets"][1]]) for name, t in header.items()}


def differing(a, b):
    """Returns the names of the tensors that have other bits, or that one of two files lacks."""
    one, two = tensors(a), tensors(b)
    return sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))


def distance(a, b):
    """Returns the largest relative distance of weights (L2)."""
    one, two, largest = tensors(a), tensors(b), 0.0
    for name, (dtype, data) in one.items():
        if not name.startswith("weights.") or dtype != "F32":
            continue
        x, y = (struct.unpack("<%df" % (len(d) // 4), d) for d in (data, two[name][1]))
        norm = math.sqrt(sum(v * v for v in x))
        largest = max(largest, math.sqrt(sum((v - w) ** 2 for v, w in zip(x, y))) / (norm or 1))
    return largest


class Trainer:
    def __init__(self, brume, folder, steps):
        self.brume, self.folder, self.steps = brume, folder, steps

    def __call__(self, name, settings, processes, sets):
        """Trains into folder/name and returns training.safetensors."""
        out = self.folder / name
        shutil.rmtree(out, ignore_errors=True)
        (self.folder / "empty.yaml").write_text("{}\n")
        preview = {} if "classifier.classes" in settings else {"train.preview": "{count: 0}"}
        all = preview | {"train.batch": "8", "train.steps": str(self.steps), "train.checkpoint_every": "1000",
        "compute.threads": "1"} | settings | sets
        command = ["train", str(self.folder / "empty.yaml"), "-o", str(out)]
        for key, value in all.items():
            command += ["--set", f"{key}={value}"]
        start = [self.brume] if processes == 1 else [self.brume, "launch", "-n", str(processes), "--"]
        done = subprocess.run(start + command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip()[-600:])
        return out / "training.safetensors"


def compare(train, name, settings, precision):
    """Prints what differs; returns whether nothing does."""
    sets = {"compute.precision": precision}
    whole = train("parts", settings, 1, sets | {"train.accumulate": "2"})
    found = {"two": differing(whole, train("two", settings, 2, sets))}
    if name.startswith(SHARDED):
        found["sharded"] = differing(whole, train("sharded", settings, 2, sets | {"train.shard": "optimizer"}))
    text = "  ".join(f"{key}: {'equal' if not names else f'{len(names)} differ: ' + ', '.join(names[:3])}" for key, names in found.items())
    good = not any(found.values())
    if precision == "fp32" and name in FOUR:
        descent = sets | {"train.optimizer": "{type: sgd, lr: 0.01}"}
        far = distance(train("one", settings, 1, descent | {"train.accumulate": "4"}), train("four", settings, 4, descent))
        text += f"  four: {far:.1e}"
        good = good and far <= 1e-5
    print(f"{'  ' if good else '! '}{name:28} {precision}  {text}", flush=True)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("brume")
    parser.add_argument("-k", default="", help="only trainings whose names hold this text")
    parser.add_argument("--steps", type=int, default=50)
    arguments = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as name:
        f = pathlib.Path(name)
        write_tokenizer(f / "clip")
        train = Trainer(str(pathlib.Path(arguments.brume).resolve()), f, arguments.steps)
        for name, settings in before(f).items():
            train(name, settings, 1, {"compute.precision": "fp32"})
        for name, settings in (objectives(f) | LEARNERS).items():
            for precision in ("fp32", "bf16") if arguments.k in name else ():
                try:
                    good = compare(train, name, settings, precision) and good
                except RuntimeError as e:
                    print(f"! {name:28} {precision}  {e}", flush=True)
                    good = False
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
