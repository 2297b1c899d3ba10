"""What a flow that was killed leaves behind, ended and mended before the next one looks at the checkout.

Every process that a flow starts inherits a mark that names the checkout and the flow's own process, so that its orphans
are known whatever their ids are. What lives, also a `dvc repro` by hand, is left alone.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from flows.checkout.programs import git
from flows.stages.process import GRACE, TICK
from pipeline.errors import ChorusError
from pipeline.exclusive import FOLDER
from pipeline.files import TEMPORARY, write_json, write_text
from pipeline.tracking import Tracker, is_alive, is_dvc, is_here, process_identity

MARK = "CHORUS_FLOW"  # environment: the flow's process and, after a space, its checkout
FLOWS = Path(FOLDER) / "flows"  # a file for each flow run whose end nobody has seen
EXPERIMENTS = Path(FOLDER) / "experiments"  # worktrees, which belong to whoever holds the checkout
WRITTEN = ("data", "models", "evaluation", "report", ".checkpoints", ".chorus", ".warm")

Say = Callable[[str], None]


def reap(root: Path, say: Say, grace: float = GRACE) -> None:
    """End the orphans of dead flows in the checkout at `root`, mend what they left half done, and mark this process.

    say: called with a line about each thing that was found. grace: seconds that orphans get for their checkpoints.
    """
    end_orphans(root, say, grace)
    remove_git_locks(root, say)
    mend_path_locks(root, say)
    set_aside_damaged_lock(root, say)
    remove_half_written(root, say)
    os.environ[MARK] = f"{process_identity(psutil.Process())} {root.resolve()}"


def orphans(root: Path) -> list[psutil.Process]:
    """Return the processes that flows of this checkout and of its experiments started which are dead themselves."""
    found, experiments = [], root.resolve() / EXPERIMENTS
    for process in psutil.process_iter():
        # Processes of others do not show their environment, and some end while they are looked at.
        with suppress(psutil.Error, OSError, ValueError):
            identity, _, checkout = process.environ().get(MARK, "").partition(" ")
            ours = checkout == str(root.resolve()) or (checkout and Path(checkout).is_relative_to(experiments))
            if ours and process.pid != os.getpid() and not is_alive(identity):
                found.append(process)
    return found


def end_orphans(root: Path, say: Say, grace: float) -> None:
    """Ask all orphans but `dvc`, which ends with its command, to end; kill what is left after `grace` seconds."""
    found = orphans(root)
    if not found:
        return
    say(f"a flow was killed and left {len(found)} processes behind: ending them")
    for process in found:
        with suppress(psutil.Error):
            if not is_dvc(process.cmdline()):
                process.terminate()
    left = still_there(found, grace)
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    still_there(left, 5)


def still_there(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait for processes to end and return those that have not within `seconds`.

    One that has ended and is not collected has ended: a container often has no init that collects orphans.
    """
    deadline = time.monotonic() + seconds
    while (processes := [process for process in processes if _runs(process)]) and time.monotonic() < deadline:
        time.sleep(TICK)
    return processes


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def remove_git_locks(root: Path, say: Say) -> None:
    """Remove the locks of git commands that were killed, here and in the experiments' worktrees.

    Such a lock names nobody; it is left alone while any git command works on the checkout.
    """
    try:
        folder = root / git(root, "rev-parse", "--git-dir").strip()
    except ChorusError:
        return
    locks = [path for path in (folder / "index.lock", *folder.glob("worktrees/*/index.lock")) if path.exists()]
    if not locks or any(_is_git_of(process, root.resolve()) for process in psutil.process_iter()):
        return
    for path in locks:
        path.unlink(missing_ok=True)
        say("a git command was killed and left its lock: it is removed")


def _is_git_of(process: psutil.Process, root: Path) -> bool:
    """Whether a process is a git command that works on the checkout at `root`, or may be one."""
    try:
        return process.name() == "git" and (Path(process.cwd()).is_relative_to(root) or str(root) in process.cmdline())
    except psutil.AccessDenied:
        return True
    except psutil.Error:
        return False


def mend_path_locks(root: Path, say: Say) -> None:
    """Free the paths that dead processes hold in DVC's own list of them.

    DVC does so too where no process has the id any more, but not where another one got it, and it gives up where a kill
    in the middle of writing left half a list.
    """
    folder = root / ".dvc" / "tmp"
    path = folder / "rwlock"
    if not path.exists():
        return
    with (folder / "rwlock.lock").open("a+") as guard:  # the lock that DVC itself takes to change the list
        fcntl.flock(guard, fcntl.LOCK_EX)
        try:
            held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            written = path.stat().st_mtime
            kept = {
                "write": {name: info for name, info in held.get("write", {}).items() if _holds(info, root, written)},
                "read": {
                    name: left
                    for name, infos in held.get("read", {}).items()
                    if (left := [info for info in infos if _holds(info, root, written)])
                },
            }
        except (ValueError, AttributeError, KeyError, TypeError):
            say("DVC's list of locked paths was cut short: it is removed")
            path.unlink()
            return
        # Between commands DVC leaves empty entries, which name nobody.
        if kept != {kind: {name: whom for name, whom in held.get(kind, {}).items() if whom} for kind in kept}:
            say("DVC's list of locked paths named processes that are dead: they are struck off")
            write_text(path, json.dumps(kept))


def _holds(info: dict[str, Any], root: Path, written: float) -> bool:
    """Whether the process that locked a path may still work on it; `written`: when the list was last changed."""
    try:
        process = psutil.Process(int(info["pid"]))
        if process.status() == psutil.STATUS_ZOMBIE or process.create_time() > written + 1:
            return False  # the id has been given to another process since
        return Path(process.cwd()).is_relative_to(root.resolve())
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def set_aside_damaged_lock(root: Path, say: Say) -> None:
    """Move a `dvc.lock` that is cut short (a kill or a full disk while it was written) out of the way.

    DVC's run cache then brings back what was computed. A conflict of a merge is the user's to solve, and stays.
    """
    path = root / "dvc.lock"
    if not path.is_file() or not _cut_short(path):
        return
    from dvc.repo import Repo

    # Somebody's `dvc` may be in the middle of writing it: whoever holds DVC's lock sees it whole.
    with Repo(str(root), _wait_for_lock=True) as repo, repo.lock:
        if not _cut_short(path):
            return
        aside = root / FOLDER / "dvc.lock.damaged"
        aside.parent.mkdir(exist_ok=True)
        path.replace(aside)
    say(f"dvc.lock was cut short: it is moved to {aside.relative_to(root)}; DVC's cache still has the results")


def _cut_short(path: Path) -> bool:
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    text = path.read_bytes().decode("utf-8", "replace")
    try:
        COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(text))
        sound = text.endswith("\n")  # a hash that is cut short is still a text
    except (yaml.YAMLError, Invalid):
        sound = False
    return not sound and "<<<<<<<" not in text


def remove_half_written(root: Path, say: Say) -> None:
    """Remove the temporary files of processes that are dead."""
    for folder in WRITTEN:
        for path in (root / folder).rglob(".*.tmp"):
            if (match := TEMPORARY.match(path.name)) and not psutil.pid_exists(int(match[1])):
                path.unlink(missing_ok=True)
                say(f"{path.relative_to(root)} was half written: it is removed")


def note_flow(root: Path, flow_run: str) -> None:
    """Write down that this process carries out a Prefect flow run, for those who come after it was killed."""
    identity = process_identity(psutil.Process())
    write_json(root / FLOWS / f"{flow_run}.json", {"process": identity, "began": time.time()})


def forget_flow(root: Path, flow_run: str) -> None:
    """Take the note back: Prefect knows how the run ended."""
    (root / FLOWS / f"{flow_run}.json").unlink(missing_ok=True)


@contextmanager
def noted(root: Path, flow_run: str) -> Iterator[None]:
    """Have the note of a flow run while the context lasts: Prefect sees every end of it but that of its process."""
    note_flow(root, flow_run)
    try:
        yield
    finally:
        forget_flow(root, flow_run)


def dead_flows(root: Path) -> list[Path]:
    """Return the notes of the flow runs whose process has died before their end was seen; their names are the ids.

    Those of experiments too. A process of another host is dead: a clone is worked on by one machine, whose name
    changes where it is a container's.
    """
    return [path for path, process in _noted(root) if not is_here(process) or not is_alive(process)]


def _noted(root: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted([*(root / FLOWS).glob("*.json"), *(root / EXPERIMENTS).glob(f"*/{FLOWS}/*.json")]):
        try:
            yield path, str(json.loads(path.read_text(encoding="utf-8"))["process"])
        except (OSError, ValueError, KeyError):
            path.unlink(missing_ok=True)  # written by a version of ours that is gone


def settle(root: Path, say: Say) -> None:
    """Let Prefect, which has to answer, know of each dead flow run that it crashed, and of its tasks; MLflow too.

    A run that the server does not know (another server was used then) is left to whoever looks there.
    """
    dead = dead_flows(root)
    if not dead:
        return
    tracker = Tracker(root)
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for note in dead:
            if _crash(client, note.stem):
                say(f"the flow run {note.stem} was killed: Prefect has it as crashed now")
            tracker.end_flow(note.stem)
            note.unlink(missing_ok=True)


def _crash(client: Any, flow_run: str) -> bool:
    """Set a flow run and its tasks to Crashed where they have not ended; return whether that was so."""
    from uuid import UUID

    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Crashed

    try:
        state = client.read_flow_run(UUID(flow_run)).state
    except ObjectNotFound:
        return False
    if state is not None and state.is_final():
        return False
    lost = Crashed(message="its process was killed; the next run in the same clone found this out")
    ours = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run)]))
    for task in client.read_task_runs(flow_run_filter=ours):
        if task.state is None or not task.state.is_final():
            client.set_task_run_state(task.id, lost, force=True)
    client.set_flow_run_state(UUID(flow_run), lost, force=True)
    return True
