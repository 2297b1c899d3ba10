"""Record that a family could not be trained, in place of whatever `models/members/rungN/FAMILY` held.

No stage of `dvc.yaml`: a flow asks for it where a training has ended badly for good, so that the run goes on with the
other families. DVC never takes the result for that of the stage, so the next run trains the family again, from the
checkpoints where there are any.
"""

from pipeline.files import read_json, remove_tree, replace_tree, write_json
from pipeline.project import FIRST, Project
from pipeline.stages._failures import write_failure
from pipeline.stages.train import SCHEMA


def run(project: Project, family: str, rung: int, why: str) -> None:
    """Write a roster without members, and the reason for each that there should have been."""
    recipe = project.params.families[family]
    if rung == FIRST:
        failed = list(recipe.members)
    else:
        failed = read_json(project.family_folder(family, rung - 1) / "family.json")["members"]
    staging = project.checkpoints / family / "given-up"
    remove_tree(staging)
    for member in failed:
        write_failure(staging / member, why)
    content = {"schema": SCHEMA, "family": family, "members": [], "failed": failed}
    write_json(staging / "family.json", {**content, "params": recipe.model_dump(mode="json")})
    replace_tree(staging, project.family_folder(family, rung))
    print(f"give-up  {family}: {why}; the run goes on without it", flush=True)
