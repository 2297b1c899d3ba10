"""A node's part: one stage in a clone of its own, from its inputs out of the DVC remote to its results back into it.

Runs as a program: `main` takes an `Order` as the first line of its standard input and ends when the stage has ended.
The stage ends with whoever started the program, for the end of the input, which also comes when that process is killed,
is an order to stop. It knows nothing of Ray.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flows.cluster.order import Order
from flows.cluster.surroundings import differences, missing, surroundings
from pipeline.exits import CAN_PASS

FOLDER = "CHORUS_NODE_FOLDER"  # environment: where a node keeps its clones and DVC's cache
STOP, KILL = "stop", "kill"  # lines on the standard input: end the stage in good order, or at once


def main() -> int:
    """Carry out one order; return DVC's status, 2 where the machine lacks something, 124 where something took too long.

    Transfers that failed have the status 75, for a remote may answer later.

    Arguments: a folder with the repository, and the file that the stage's lock entry is written to, as JSON.
    """
    repository, result = map(Path, sys.argv[1:])
    order = Order.parse(sys.stdin.readline())
    here = surroundings()
    if lacking := missing(here):
        say(
            f"chorus: {os.uname().nodename} lacks {', '.join(lacking)}: install the project's requirements on all nodes"
        )
        return 2
    if other := differences(order.surroundings, here):
        say(f"the last bits may differ from the head's, which has {'; '.join(other)}")

    from flows.stages.command import OVERDUE
    from flows.stages.process import Overdue, Processes, stopping_on_signals

    processes = Processes()
    threading.Thread(target=_obey, args=(processes,), daemon=True).start()
    with stopping_on_signals(processes, say), leased_clone(node_folder(order)) as clone:
        say(f"on {os.uname().nodename}, in {clone}")
        try:
            return Job(order, clone, repository, processes).carry_out(result)
        except Overdue:
            return OVERDUE


def say(line: str) -> None:
    print(line, flush=True)


def _obey(processes: Any) -> None:
    """Stop when the input says so or ends, and without patience when it says that."""
    for line in sys.stdin:
        if line.strip() == KILL:
            processes.grace = 0.0
        processes.stop()
    processes.stop()


def node_folder(order: Order) -> Path:
    """Return the folder of this machine's clones and cache; projects with other remotes have others."""
    base = os.environ.get(FOLDER)
    project = hashlib.sha256(str(order.remote[1]["url"]).encode()).hexdigest()[:12]
    return (Path(base) if base else Path.home() / ".cache" / "chorus") / project


@contextmanager
def leased_clone(folder: Path) -> Iterator[Path]:
    """Hold a clone that no other stage of this machine works in.

    Stages at once on one machine have a clone each, since each has a `dvc.lock` of its own; DVC's cache they share.
    """
    clones = folder / "clones"
    clones.mkdir(parents=True, exist_ok=True)
    number = 0
    while True:
        clone = clones / str(number)
        with (clones / f"{number}.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                number += 1
                continue
            clone.mkdir(exist_ok=True)
            end_leftovers(clone)
            yield clone
            return


def end_leftovers(clone: Path) -> None:
    """Kill what a killed job left at work in the clone: whoever holds the lease is alone there."""
    import psutil

    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if Path(process.cwd()).is_relative_to(clone.resolve()):
                process.kill()


class Job:
    """One order in a leased clone. repository: a bare one that has the commit."""

    def __init__(self, order: Order, clone: Path, repository: Path, processes: Any) -> None:
        self.order, self.clone, self.repository, self.processes = order, clone, repository, processes

    def carry_out(self, result: Path) -> int:
        """Compute the stage and push it; its lock entry is in `result` where the returned status is 0."""
        self.settle()
        stage = self.order.stage
        # `repro --pull` takes inputs that are missing for unchanged, and would fetch the results of former ones.
        inputs = ["pull", "--quiet", *self.order.upstream]
        if self.order.upstream and not self.transferred(*inputs):
            return CAN_PASS
        if status := self.reproduce(stage):
            return status
        if not self.transferred("push", "--quiet", "--run-cache", stage):
            return CAN_PASS
        result.write_text(json.dumps(lock_entry(self.clone / "dvc.lock", stage)), encoding="utf-8")
        return 0

    def reproduce(self, stage: str) -> int:
        """Compute the stage, on from the checkpoint of a node that was lost where there is a copy of it."""
        command = ["repro", "--single-item", "--pull", stage, *(["--force"] if self.order.force else [])]
        if not self.order.checkpoints:
            return self.dvc(*command)
        from flows.cluster.checkpoints import Copies

        copies = Copies(self.order.checkpoints, stage, self.clone)
        with going_on("bring checkpoints"):
            if copies.bring():
                say(f"checkpoints of {stage} came from {self.order.checkpoints}")
        with copies.kept():
            status = self.dvc(*command)
        if status == 0:
            with going_on("remove the copies of checkpoints"):
                copies.drop()
        return status

    def settle(self) -> None:
        """Bring the clone to the order's commit and lock; one that cannot be brought there is made anew."""
        try:
            self.bring_to_commit()
        except Exception as error:
            say(f"the clone that a former stage left cannot be used ({error}): it is made anew")
            empty(self.clone)
            self.bring_to_commit()

    def bring_to_commit(self) -> None:
        """Check the order's commit out; what former stages left goes, their locks too."""
        if not (self.clone / ".git").exists():
            self.git("init", "--quiet")
        free(self.clone)
        self.git("fetch", "--quiet", "--depth", "1", self.repository.resolve().as_uri(), self.order.commit)
        self.git("checkout", "--quiet", "--force", "--detach", self.order.commit)
        self.git("clean", "-ffdxq", "-e", "/.dvc", "-e", "/.checkpoints", "-e", "/.warm")
        if self.order.lock:
            (self.clone / "dvc.lock").write_text(self.order.lock, encoding="utf-8")
        configure(self.clone, self.order.remote)

    def git(self, *arguments: str) -> None:
        # By name: from a damaged repository git would go on to one that the folder may lie in.
        command = ["git", "-C", str(self.clone), "--git-dir=.git", "--work-tree=.", *arguments]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

    def transferred(self, *arguments: str) -> bool:
        """Whether a transfer came to its end; a slow one, too, says nothing of the stage."""
        from flows.stages.process import Overdue

        try:
            return self.dvc(*arguments) == 0
        except Overdue as error:
            say(f"dvc {arguments[0]}: {error}")
            return False

    def dvc(self, *arguments: str) -> int:
        from flows.stages.command import stage_environment

        environment = stage_environment(self.order.threads) | dict(self.order.environment)
        command = [sys.executable, "-m", "dvc", *arguments]
        return int(self.processes.run(command, self.clone, environment, say, self.order.limit))


@contextmanager
def going_on(errand: str) -> Iterator[None]:
    """Say what went wrong on an errand that a stage can do without, whatever library it comes from."""
    try:
        yield
    except Exception as error:
        say(f"cannot {errand} ({type(error).__name__}: {error}); going on")


def free(clone: Path) -> None:
    """Remove the locks that a killed job left; whoever holds the lease is alone in the clone."""
    from flows.checkout.reaping import mend_path_locks

    for lock in (clone / ".git").rglob("*.lock"):
        lock.unlink()
    mend_path_locks(clone, say)


def empty(clone: Path) -> None:
    """Remove all that a clone holds but its checkpoints, which say by themselves whether they are sound."""
    for path in clone.iterdir():
        if path.is_dir() and not path.is_symlink():
            if path.name != ".checkpoints":
                shutil.rmtree(path)
        else:
            path.unlink()


def configure(clone: Path, remote: tuple[str, Any]) -> None:
    """Give the clone the head's remote, and the cache that it shares with the other clones of this machine.

    Nobody else on the machine can read what is written, as the remote's settings may hold a secret.
    """
    from dvc.config import Config

    name, settings = remote
    written = clone / ".dvc" / Config.CONFIG_LOCAL
    written.touch(mode=0o600)
    written.chmod(0o600)  # of one that was there
    with Config(str(clone / ".dvc")).edit("local") as local:
        local["core"] = {"remote": name, "analytics": False, "check_update": False}
        local["cache"] = {"dir": str(clone.resolve().parents[1] / "cache")}
        local["remote"] = {name: dict(settings)}


def lock_entry(path: Path, stage: str) -> dict[str, Any]:
    """Return a stage's entry of a `dvc.lock`."""
    import yaml

    return dict(yaml.safe_load(path.read_text(encoding="utf-8"))["stages"][stage])


if __name__ == "__main__":
    sys.exit(main())
