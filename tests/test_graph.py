"""dvc.yaml against the code: a stage whose code changes has to run again."""

from pathlib import Path

import pytest
import yaml

import pipeline.fusion.strategies
import pipeline.models
from pipeline.packaged.code import imported, module_file
from pipeline.params import registered

ROOT = Path(__file__).parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# Paths, writing files whole, logging, lines of progress: what they do does not reach the content of an output.
PLUMBING = {
    f"pipeline.{name}"
    for name in ("errors", "exclusive", "exits", "files", "progress", "project", "tracking", "_torchvision")
}
# Warm starts: what they fetch is checked against a hash among the stage's parameters.
PLUMBING |= {"pipeline.pinning.weights", "pipeline.pinning.versions"}
ARCHITECTURES = registered(pipeline.models)
COMPOSITES = "pipeline.models._composite"
MODELS = [COMPOSITES, *(f"pipeline.models.{name}" for name in ARCHITECTURES)]
# Imported by name, which no import statement shows; a family's own architecture is a dependency by its name.
BY_NAME = {
    "train": [COMPOSITES],
    "evaluate": [COMPOSITES],
    "evaluate-later": MODELS,
    "fuse": [*(f"pipeline.fusion.strategies.{name}" for name in registered(pipeline.fusion.strategies)), *MODELS],
    "judge": MODELS,
    "gate": ["pipeline.recipes", "pipeline.packaged.model", *MODELS],
    "register": ["pipeline.recipes", "pipeline.packaged.model", *MODELS],
}
# Used for pictures in MLflow alone, which are no outputs.
PICTURES = {"pipeline.evaluation.pictures", "pipeline.fusion.samplers"}
FOR_TRACKING = {"train": PICTURES, "advance": PICTURES, "distill": PICTURES - {"pipeline.fusion.samplers"}}
# Stages that are another one's command in a later rung, and those whose names are no module's.
STAGE_FILES = {"evaluate-later": "evaluate", "evaluate-student": "evaluate_student"}


def definition(stage):
    return STAGES[stage].get("do", STAGES[stage])


def reached_from(modules, leave_out):
    """Files of all modules that these import, directly or through others, without those in `leave_out`."""
    found, todo = {}, list(modules)
    while todo:
        name = todo.pop()
        file = module_file(name)
        if file is None or file.name == "__init__.py" or name in found or name in leave_out:
            continue
        found[name] = file.relative_to(ROOT)
        todo += imported(file.read_text())
    return set(found.values())


@pytest.mark.parametrize("stage", STAGES)
def test_every_module_that_a_stage_uses_is_a_dependency(stage):
    declared = {Path(dep) for dep in definition(stage)["deps"]}
    entries = [f"pipeline.stages.{STAGE_FILES.get(stage, stage)}", *BY_NAME.get(stage, [])]
    used = reached_from(entries, PLUMBING | FOR_TRACKING.get(stage, set()))
    assert Path(f"pipeline/stages/{STAGE_FILES.get(stage, stage)}.py") in used
    assert not {file for file in used if not declared & {file, *file.parents}}


@pytest.mark.parametrize("stage", [stage for stage in STAGES if "foreach" in STAGES[stage]])
def test_what_builds_one_recipes_networks_depends_on_their_architecture(stage):
    assert "pipeline/models/_base.py" in definition(stage)["deps"]
    assert "pipeline/models/${item.architecture}.py" in definition(stage)["deps"]


@pytest.mark.parametrize("stage", STAGES)
def test_every_declared_file_exists(stage):
    for dep in definition(stage)["deps"]:
        assert "${" in dep or not dep.startswith("pipeline/") or (ROOT / dep).exists()


@pytest.mark.parametrize("stage", STAGES)
def test_stages_depend_on_whole_sections_as_single_keys_may_be_left_out(stage):
    for name in definition(stage).get("params", []):
        assert "." not in name or "${" in name or name == "racing.rungs", name
