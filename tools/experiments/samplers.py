#!/usr/bin/env python3
"""Prints the table of docs/samplers.md: all samplers at equal numbers of network calls.

    tools/experiments/samplers.py                                  # errors on the exact mixture alone
    tools/experiments/samplers.py --model RUN --classifier RUN --real DATA [-n 1000] [-- --cfg 2]

With a model, `brume evaluate` compares samples of every sampler with the real images, in the features of a classifier, and the table has a
column of Fréchet distances per budget. Results are kept in FOLDER and are not computed again; what follows `--` goes to `brume evaluate`.
"""
import argparse
import glob
import json
import os
import re
import subprocess
import sys

CITATION = re.compile(r"[^\W\d_][\w'’-]*(?: et al\.|(?:, [^\W\d_][\w-]*)? & [^\W\d_][\w-]*)? (?:19|20)\d\d[a-z]?")


def brume(program, *arguments):
    """Returns what the program prints. Ends the script if it fails."""
    done = subprocess.run([program, *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{program} {' '.join(arguments)}: exit code {done.returncode}")
    return done.stdout


def papers(reference):
    """Returns the first citation in the notes of each sampler, from the text of `brume describe --markdown`."""
    section = re.split(r"^## ", reference, flags=re.M)
    samplers = next(s for s in section if s.startswith("sampler\n"))
    found = {}
    for entry in re.split(r"^### ", samplers, flags=re.M)[1:]:
        notes = re.search(r"```text\n(.*?)```", entry, flags=re.S)
        citation = CITATION.search(notes[1].replace("\n", " ").replace("(", " ").replace("  ", " ")) if notes else None
        found[entry.split("\n", 1)[0].strip()] = citation[0] if citation else ""
    return found


def evaluate(arguments, samplers):
    """Measures the samplers of a model: one command for those that share budgets. A command that was stopped goes on.

    Samplers that choose their steps by a tolerance are left out: on a model they may take thousands of calls."""
    groups = {}
    for sampler in samplers:
        fitting = tuple(str(run["budget"]) for run in sampler["runs"] if run.get("steps", 0) > 0)
        if fitting:
            groups.setdefault(fitting, []).append(sampler["name"])
    for budgets, names in groups.items():
        path = os.path.join(arguments.folder, f"calls_{'_'.join(budgets)}.json")
        command = [arguments.brume, "evaluate", arguments.model, "--metric", "fid", "--features", f"classifier:{arguments.classifier}",
                   "--real", arguments.real, "--sampler", ",".join(names), "--calls", ",".join(budgets), "-n", str(arguments.count),
                   "--json", path, *arguments.more]
        print("samplers.py:", " ".join(command), file=sys.stderr, flush=True)
        if subprocess.run(command, stdout=sys.stderr).returncode != 0:
            raise SystemExit(f"samplers.py: {path} is not whole; the same command goes on")


def distances(folder):
    """Returns the budgets of the results, and {sampler: [(calls, Fréchet distance)]}."""
    budgets, found = set(), {}
    for path in glob.glob(os.path.join(folder, "calls_*.json")):
        budgets.update(int(number) for number in re.findall(r"\d+", os.path.basename(path)))
        with open(path, encoding="utf-8") as file:
            for s in json.load(file)["sets"]:
                found.setdefault(s["sampler"], []).append((s["calls"], s["figures"]["fid"]))
    return sorted(budgets), found


def distance_cells(sampler, found, budgets):
    """Returns a cell per budget: the distance of the run that makes most calls within it."""
    if sampler["own_count"]:
        return [""] * len(budgets)
    cells = []
    for budget in budgets:
        within = [(calls, value) for calls, value in found if calls <= budget]
        cells.append(f"{max(within)[1]:.2f}" if within else "-")
    return cells


def error_cells(sampler, budgets):
    """Returns a cell per budget; the last one of a sampler that chooses its steps has its calls."""
    if sampler["own_count"]:
        run = sampler["runs"][0]
        return [""] * (len(budgets) - 1) + [f"{run['error']:.4f} ({run['calls']} calls)"]
    errors = {run["budget"]: run.get("error") for run in sampler["runs"]}
    return ["-" if errors[b] is None else f"{errors[b]:.4f}" for b in budgets]


def calls_per_step(sampler):
    if sampler["own_count"]:
        return "by tolerance"
    longest = max(sampler["runs"], key=lambda run: run.get("steps", 0))
    return f"{longest['calls_per_step']:.3g}" if "calls_per_step" in longest else "-"


def print_table(arguments, measured, cited):
    budgets = measured["calls"]
    samplers = [s for s in measured["samplers"] if "left_out" not in s]
    judged, found = distances(arguments.folder)
    head = ["sampler", "calls per step", "paper"] + [f"W1 at {b} calls" for b in budgets]
    head += [f"Fréchet at {b}" for b in judged]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for sampler in samplers:
        cells = [f"`{sampler['name']}`", calls_per_step(sampler), cited.get(sampler["name"]) or "-", *error_cells(sampler, budgets)]
        cells += distance_cells(sampler, found.get(sampler["name"], []), judged) if judged else []
        print("|" + "".join(f" {cell} |" if cell else " |" for cell in cells))
    reasons = {}
    for sampler in measured["samplers"]:
        if "left_out" in sampler:
            reasons.setdefault(sampler["left_out"], []).append(f"`{sampler['name']}`")
    if reasons:
        print("\nLeft out: " + "; ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items()) + ".")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brume", default="build/brume", help="the program (build/brume)")
    parser.add_argument("--calls", default="8,16,32", help="budgets of network calls (8,16,32)")
    parser.add_argument("--folder", default="runs/samplers", help="where results are kept (runs/samplers)")
    parser.add_argument("--model", help="a model, whose samples are compared with the real images")
    parser.add_argument("--classifier", help="whose features are compared")
    parser.add_argument("--real", help="the real images, as `brume evaluate --real` takes them")
    parser.add_argument("-n", "--count", type=int, default=1000, help="samples per sampler and budget (1000)")
    parser.add_argument("more", nargs="*", help="further options of `brume evaluate`, after --")
    arguments = parser.parse_args()
    given = [bool(arguments.model), bool(arguments.classifier), bool(arguments.real)]
    if any(given) and not all(given):
        parser.error("--model, --classifier and --real are needed together")
    measured = json.loads(brume(arguments.brume, "conform", "sampler", "--calls", arguments.calls, "--json"))
    if arguments.model:
        os.makedirs(arguments.folder, exist_ok=True)
        evaluate(arguments, [s for s in measured["samplers"] if "left_out" not in s])
    print_table(arguments, measured, papers(brume(arguments.brume, "describe", "--markdown")))


if __name__ == "__main__":
    main()
