"""What others have pushed: the branch's upstream in git, and the DVC remote that its files lead to."""

from collections.abc import Callable
from pathlib import Path

from flows.checkout.programs import FETCHING, PULLING, dvc, git
from pipeline.errors import ChorusError
from pipeline.project import Project


def newer(root: Path) -> str | None:
    """Return the commit that the branch's upstream is at, None where the clone has it; asks the remote repository.

    Raises `ChorusError` where the branch has no upstream, or where that does not answer.
    """
    try:
        git(root, "rev-parse", "--abbrev-ref", "@{upstream}")
    except ChorusError:
        remedy = "say which it follows: `git branch --set-upstream-to origin/main`"
        raise ChorusError(f"the branch of {root} has no upstream; {remedy}") from None
    git(root, "fetch", "--quiet", limit=FETCHING)
    commit = git(root, "rev-parse", "@{upstream}").strip()
    return None if git(root, "merge-base", "HEAD", commit).strip() == commit else commit


def update(root: Path, say: Callable[[str], None]) -> Project:
    """Take over the upstream's commits and what its `dvc.lock` names, as far as the DVC remote has it.

    What an earlier call did not bring, as it was killed or the remote was away, this one does: that asks the remote for
    what is missing alone. Returns the project as it is then. Raises `ChorusError` where the branches have gone
    different ways, where files that were changed here would be overwritten, and where the pull fails.
    """
    if commit := newer(root):
        git(root, "merge", "--quiet", "--ff-only", commit)
        say(f"now at {git(root, 'log', '-1', '--format=%h %s').strip()}")
    if dvc(root, "remote", "list").strip():
        # What the remote lacks is computed here.
        dvc(root, "pull", "--quiet", "--allow-missing", limit=PULLING)
    return Project.load(root)
