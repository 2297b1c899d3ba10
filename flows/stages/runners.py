"""Where a flow's stages run: on this machine, or on the nodes of a Ray cluster."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from flows.devices.memory import Room
from flows.devices.slots import Pool, slots_for
from flows.planning.graph import Graph
from flows.records.journal import LOCAL
from flows.stages.execution import Execution
from pipeline.peak import peaks
from pipeline.project import Project

RAY = "ray"
RUNNERS = (LOCAL, RAY)


@dataclass(frozen=True)
class Runner:
    """kind: one of `RUNNERS`. address: of the Ray cluster; None is that of RAY_ADDRESS. slots: stages at once."""

    kind: str = LOCAL
    address: str | None = None
    slots: int | None = None


@contextmanager
def ready(
    runner: Runner, project: Project, graph: Graph, urgency: Mapping[str, float], force: bool
) -> Iterator[tuple[int, Callable[..., Execution]]]:
    """Yield how many stages may be under way at once, and what makes the run's `Execution`.

    That takes processes, environment, and the options of `Execution` by name. Raises `ChorusError` where a cluster
    cannot be used.

    urgency: of each selected stage; the most urgent of those that wait gets the next slot.
    """
    offered = slots_for(project.params.compute, runner.slots, project.params.flow.members_per_gpu)
    here = Pool(offered, urgency, Room(peaks(project.root)).fits)
    if runner.kind == RAY:
        from flows.cluster.execution import on_cluster

        # The cluster's own queue says who waits, and shows a cluster that grows by itself what is wanted.
        there = Pool([{}] * (runner.slots or len(urgency)), urgency)
        with on_cluster(runner.address, project, here) as execution:
            yield there.size, partial(execution, graph=graph, pool=there, force=force)
    else:
        yield here.size, partial(Execution, project.root, graph=graph, pool=here, force=force)
