"""The extractors, the rulers and the real images by which all models are measured alike: of judge, gate and opening."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from pipeline.compute import Runtime
from pipeline.evaluation import store
from pipeline.evaluation.certainty import estimates_of
from pipeline.evaluation.extractors import Extractor, load_extractors
from pipeline.evaluation.features import Features
from pipeline.evaluation.intervals import Estimate
from pipeline.evaluation.metrics import measure, warnings_of
from pipeline.evaluation.ruler import Ruler
from pipeline.project import Project
from pipeline.randomness import derive_seed


class Scale:
    """What images are measured with: extractors by name, their rulers, and the real images' features (`real`)."""

    def __init__(self, project: Project, runtime: Runtime, names: Sequence[str]) -> None:
        self.params, self.reference = project.params, project.reference
        self.judges: list[str] = store.read_reference(project.reference)["judges"]
        self.rulers: dict[str, Ruler] = {name: store.read_ruler(project.reference, name) for name in names}
        self.extractors: dict[str, Extractor] = load_extractors(
            project.reference, names, runtime.device, project.weights
        )
        self.real: dict[str, Features] = {}

    def against_split(self, split: str) -> "Scale":
        """Measure against the real images of a split whose features `data/reference` holds."""
        self.real = {name: store.read_features(self.reference, split, name) for name in self.rulers}
        return self

    def against(self, images: Tensor) -> "Scale":
        """Measure against these real images, uint8 N×C×S×S."""
        self.real = self.features(images)
        return self

    def features(self, images: Tensor) -> dict[str, Features]:
        """Return what each extractor sees of images, uint8 N×C×S×S."""
        return {name: extractor.features(images) for name, extractor in self.extractors.items()}

    def metrics(self, found: Mapping[str, Features]) -> dict[str, float]:
        """Return every metric of an arm's images by every extractor."""
        metrics: dict[str, float] = {}
        for name, features in found.items():
            seed = derive_seed(self.params.seed, "judge", name)
            neighbours = self.params.evaluation.neighbours
            metrics |= measure(features, self.real[name], self.rulers[name], neighbours=neighbours, seed=seed)
        return metrics

    def estimates(self, found: Mapping[str, Features]) -> dict[str, Estimate]:
        """Return how sure an arm's distances by the judges are."""
        return estimates_of(found, self.real, self.rulers, self.judges)

    def warnings(self, found: Mapping[str, Features]) -> set[str]:
        """Return which distances are mostly bias, in words."""
        return {text for name, seen in found.items() for text in warnings_of(seen, self.real[name], self.rulers[name])}
