"""Write one generator for inference elsewhere, and say what that costs in distance: a command, no stage of DVC."""

import secrets
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.compute import set_up
from pipeline.errors import ChorusError
from pipeline.evaluation import store
from pipeline.evaluation.extractors import load_extractors
from pipeline.evaluation.frechet import mean_distance
from pipeline.evaluation.ruler import DECIDES, views
from pipeline.export.onnx import OnnxGenerator, quantise, to_onnx
from pipeline.files import read_json, write_bytes
from pipeline.fusion.samplers import CandidateSampler, draw
from pipeline.project import Project
from pipeline.randomness import derive_seed
from pipeline.recipes import CANDIDATE_ID
from pipeline.stages._out import make_way
from pipeline.weights import load_generator, read_config, save_half

CHOSEN = "chosen"


def run(project: Project, what: str, form: str, out: Path) -> None:
    """Export a candidate by its id, or the single generator that was chosen.

    form: `onnx` and `int8` write a file, `fp16` a folder that loads as any snapshot. Raises `ChorusError` for what is
    not one generator, and where `out` is there already or cannot be.
    """
    snapshot = find(project, what)
    if form != "fp16" and read_config(snapshot).architecture == "mixture":
        raise ChorusError(
            f"{what} is a mixture, which chooses a network for each image, and ONNX has one graph for a whole batch: "
            "distil a student from it (`students` in params.yaml) and export that, or use fp16"
        )
    make_way(out)
    if out.exists() or out.is_symlink():
        raise ChorusError(f"{out} is there already: remove it, or name another --out")
    runtime = set_up(project.params.compute)
    network, config = load_generator(snapshot)
    if form == "fp16":
        partial = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
        try:
            save_half(partial, config, network)
            exported: nn.Module = load_generator(partial)[0]
            partial.rename(out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        size = (out / "generator.safetensors").stat().st_size
    else:
        content = to_onnx(network)
        if form == "int8":
            content = quantise(content, network)
        exported = OnnxGenerator(content, network, project.params.compute.threads)
        write_bytes(out, content)
        size = len(content)
    before = (snapshot / "generator.safetensors").stat().st_size
    print(f"export  {what} as {form}: {out}, {size:,} bytes instead of {before:,}", flush=True)
    if (project.reference / "reference.json").exists():
        report(project, runtime.device, network, exported)
    else:
        print("export  the distance is not measured: there is no data/reference", flush=True)


def find(project: Project, what: str) -> Path:
    """Return the snapshot that is meant; raises `ChorusError` for what is no single generator."""
    if what != CHOSEN:
        if not CANDIDATE_ID.fullmatch(what):
            raise ChorusError(f"{what!r} is neither '{CHOSEN}' nor the id of a candidate (FAMILY/MEMBER/SNAPSHOT)")
        return project.snapshot(what)
    recipe: dict[str, Any] = read_json(project.chosen / "recipe.json")["recipe"]
    if recipe["kind"] != "candidate":
        raise ChorusError(
            f"models/chosen is no single generator but of the kind '{recipe['kind']}': distil a student (`students` "
            "and `choose.tolerance` in params.yaml), or name a candidate with --what"
        )
    return project.chosen / "members" / str(recipe["id"])


def report(project: Project, device: torch.device, network: nn.Module, exported: nn.Module) -> None:
    """Print the distance to val of what was exported, and of what it was made of, on the same latents."""
    rulers = store.deciding_rulers(project.reference)
    extractors = load_extractors(project.reference, [r.extractor for r in rulers], device, project.weights)
    real = views(rulers, {name: store.read_features(project.reference, "val", name).values for name in extractors})

    def distance(generator: nn.Module) -> float:
        seed = derive_seed(project.params.seed, "export")
        images = draw(CandidateSampler(generator), project.params.evaluation.samples, seed=seed)
        features = {name: extractor.features(images).values for name, extractor in extractors.items()}
        return mean_distance(views(rulers, features), real)

    print(f"export  {DECIDES} {distance(exported):.4f}, before the export {distance(network):.4f}", flush=True)
