"""How near a strategy's images are to the part of `val` that chooses, and how sure that is."""

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from pipeline.compute import Runtime
from pipeline.evaluation import frechet, store
from pipeline.evaluation.certainty import estimates_of
from pipeline.evaluation.extractors import Extractor, load_extractors
from pipeline.evaluation.features import Features
from pipeline.evaluation.intervals import Estimate, interval, mean_of
from pipeline.evaluation.ruler import Ruler, decisive
from pipeline.project import Project
from pipeline.stages._pool import rows_of_halves


@dataclass(frozen=True)
class Score:
    """distance: the one that decides. noise: half its 95 % interval; estimates: by each ruler. None of few images."""

    distance: float
    noise: float | None
    estimates: tuple[Estimate, ...] | None


@dataclass(frozen=True)
class Scorer:
    """Measures images by the rulers that decide, against the same real images each time."""

    rulers: list[Ruler]
    extractors: dict[str, Extractor]
    real: dict[str, Features]

    @classmethod
    def load(cls, project: Project, runtime: Runtime) -> Self:
        """Read what that takes from data/reference."""
        rulers = store.deciding_rulers(project.reference)
        names = [ruler.extractor for ruler in rulers]
        extractors = load_extractors(project.reference, names, runtime.device, project.weights)
        val = {name: store.read_features(project.reference, "val", name) for name in names}
        _, rows = rows_of_halves(project, len(val[names[0]]))
        return cls(rulers, extractors, {name: features.take(rows) for name, features in val.items()})

    def score(self, images: Tensor) -> Score:
        """Measure uint8 N×C×H×W."""
        seen = {name: extractor.features(images) for name, extractor in self.extractors.items()}
        pairs = [(seen[ruler.extractor], self.real[ruler.extractor], ruler) for ruler in self.rulers]
        moments = [(ruler.see(fake.moments), ruler.see(real.moments)) for fake, real, ruler in pairs]
        named = zip(self.rulers, moments, strict=True)
        distance = decisive({ruler.name: frechet.distance(*both) for ruler, both in named}, self.rulers)
        found = estimates_of(seen, self.real, {ruler.extractor: ruler for ruler in self.rulers}, list(seen))
        if len(found) < len(self.rulers):
            return Score(distance, None, None)
        estimates = tuple(found[ruler.name] for ruler in self.rulers)
        whole = interval(mean_of(estimates, [ruler.spread for ruler in self.rulers]))
        return Score(distance, (whole.high - whole.low) / 2, estimates)
