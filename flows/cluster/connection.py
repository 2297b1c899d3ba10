"""The Ray cluster as the head sees it: a stage goes to a node that has room, and its output comes back as it runs."""

import json
import os
import platform
import signal
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flows.cluster import station
from flows.cluster.node import KILL, STOP
from flows.cluster.order import Order
from flows.stages.process import Processes
from pipeline.errors import ChorusError
from pipeline.exits import CAN_PASS
from pipeline.params import Compute

LISTENING = 1.0  # seconds that one question for new output waits on the node
LOST = -signal.SIGKILL  # what a stage's status counts as when its node is gone
PATIENCE = 10.0  # seconds without a node before that is said
OVERTIME = 15.0  # seconds beyond the grace of a stage before the head stops waiting for a node's answer


class Cluster:
    """A connection to a running cluster. share: of a GPU that a stage takes; none computes on the processor."""

    def __init__(self, cargo: bytes, cores: int, share: float) -> None:
        import ray

        self._ray = ray
        self._cargo = ray.put(cargo)
        self._cores, self.share = cores, share

    def run(self, order: Order, processes: Processes, on_line: Callable[[str], None]) -> tuple[int, Any]:
        """Compute a stage on some node; return DVC's status and the stage's lock entry.

        The status is `LOST` where the node went, and `CAN_PASS` where Ray could not start or follow the stage.

        on_line: called with each line of the stage's output as it comes.
        """
        ray = self._ray
        options = {"num_cpus": self._cores, "num_gpus": self.share, "scheduling_strategy": "SPREAD"}
        # The class travels by value: nodes hold no code of the project.
        actor = ray.remote(max_restarts=0, max_task_retries=0, **options)(station.Station).remote(self._cargo)
        try:
            return self._follow(actor, order, processes, on_line)
        except ray.exceptions.RayActorError as error:
            first, *more = str(error).splitlines()
            on_line(f"the node was lost: {first}")
            for line in more[-1:]:  # where the actor did not get to life, the cause stands at the end
                on_line(line)
            return LOST, None
        except ray.exceptions.RayError as error:  # memory or its store full, an environment that cannot be made, …
            for line in f"{type(error).__name__}: {error}".splitlines():
                on_line(line)
            return CAN_PASS, None
        finally:
            ray.kill(actor)

    def _follow(
        self, actor: Any, order: Order, processes: Processes, on_line: Callable[[str], None]
    ) -> tuple[int, Any]:
        begun = actor.start.remote(order.dump())
        waiting = time.monotonic()
        while not self._answered(begun):
            if processes.stopped:
                return -signal.SIGTERM, None
            if waiting and time.monotonic() - waiting > PATIENCE:
                waiting = 0.0
                on_line(f"waiting for a node with {self._cores} free cores and {self.share:g} of a GPU")
        self._ray.get(begun)
        stopping = Stopping(actor, processes)
        while True:
            heard = actor.hear.remote(LISTENING)
            while not self._answered(heard):
                if stopping.given_up():
                    return LOST, None
            lines, status = self._ray.get(heard)
            for line in lines:
                on_line(line)
            if status == 0:
                return 0, json.loads(self._ray.get(actor.result.remote()))
            if status is not None:
                return status, None
            stopping.pass_on()

    def _answered(self, reference: Any) -> bool:
        return bool(self._ray.wait([reference], timeout=LISTENING + 1)[0])


class Stopping:
    """Tells a node once that its stage is to end, and once more that it is to end now."""

    def __init__(self, actor: Any, processes: Processes) -> None:
        self.actor, self.processes = actor, processes
        self._asked_at: float | None = None
        self._killed = False

    def pass_on(self) -> None:
        if self.processes.stopped and self._asked_at is None:
            self._asked_at = time.monotonic()
            self.actor.tell.remote(STOP)
        if self.processes.killing and not self._killed:
            self._killed = True
            self.actor.tell.remote(KILL)

    def given_up(self) -> bool:
        """Whether the node has not answered for longer than its stage had to end."""
        self.pass_on()
        waited = time.monotonic() - self._asked_at if self._asked_at is not None else 0.0
        return waited > self.processes.grace + OVERTIME


@contextmanager
def connected(address: str | None, compute: Compute, members_per_gpu: int, cargo: bytes) -> Iterator[Cluster]:
    """Connect to the cluster at `address`, or that of RAY_ADDRESS, while the context lasts.

    Raises `ChorusError` where there is no address and where no cluster answers.
    """
    where = address or os.environ.get("RAY_ADDRESS")
    if not where:
        raise ChorusError("--runner ray needs a running cluster: set RAY_ADDRESS or --ray-address (HOST:6379, ray://…)")
    try:
        import ray
    except ImportError:
        raise ChorusError(
            "--runner ray needs Ray: pip install -c constraints.txt -e '.[cluster]' in the clone"
        ) from None
    if not hasattr(tarfile, "data_filter"):  # with which nodes unpack what they are sent
        raise ChorusError(f"--runner ray needs Python 3.11.4 or newer; this is {platform.python_version()}")
    ray.cloudpickle.register_pickle_by_value(station)
    before = signal.getsignal(signal.SIGTERM)
    try:
        # Ray repeats the nodes' output on the terminal; the stages' own lines take the flow's way.
        ray.init(where, log_to_driver=False, logging_level="WARNING", namespace="chorus")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ChorusError(f"no Ray cluster answers at {where}: {error}") from None
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray's own would end this process
        share = gpu_share(compute, members_per_gpu, ray.cluster_resources().get("GPU", 0))
        yield Cluster(cargo, compute.threads, share)
    finally:
        ray.shutdown()


def gpu_share(compute: Compute, members_per_gpu: int, gpus: float) -> float:
    """Return the part of a GPU that each stage takes on a cluster that has `gpus`; 0 computes on the processor."""
    if compute.device == "cpu" or (compute.device == "auto" and not gpus):
        return 0.0
    return 1 / members_per_gpu
