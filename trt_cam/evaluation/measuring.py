"""One batch of an evaluation: read its photos, explain them by every method, compare with the ground truth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from trt_cam.backbone import Preprocessing
from trt_cam.data.frames import fit_photo
from trt_cam.data.photos import open_photo
from trt_cam.data.samples import DataSet, Sample
from trt_cam.errors import DatasetError, InputError
from trt_cam.explainers import BoundExplainer, explain_together
from trt_cam.metrics.masks import MaskResults, evaluation_mask
from trt_cam.metrics.protocols import Protocol
from trt_cam.metrics.records import LocalizationResults

Results = LocalizationResults | MaskResults
Arrays = dict[str, npt.NDArray[Any]]
Maps = npt.NDArray[np.float32]  # (B, Gh, Gw)
Logits = npt.NDArray[np.float64] | None  # (B, K)


@dataclass(frozen=True)
class Method:
    """A method as it is evaluated: bound to a model, with a refinement, under the name that tables show."""

    name: str
    explain: BoundExplainer
    refine: str | None


@dataclass(frozen=True)
class Read:
    """A photo on the model's input, or why it is not there.

    Attributes
    ----------
    pixels : (3, H, W)
        Normalised.
    photo : (H, W)
        Of the photo on disk, upright.
    size : (H, W)
        Of the photo that its boxes refer to, which may be a larger one.
    mask : (grid, grid) uint8 or None
        Of its object, where pixels are compared.
    """

    index: int
    pixels: Tensor | None = None
    photo: tuple[int, int] = (0, 0)
    size: tuple[int, int] = (0, 0)
    mask: npt.NDArray[np.uint8] | None = None
    error: str = ""


class Batches(torch.utils.data.Dataset[list[Read]]):
    """Photos of numbered batches, read by worker processes.

    Parameters
    ----------
    indices
        Places in the data set, in the order in which they are evaluated.
    size : (H, W)
        Of the model's input, to which photos are squashed, as all protocols do.
    """

    def __init__(
        self,
        data: DataSet,
        indices: npt.NDArray[np.int64],
        prepare: Preprocessing,
        size: tuple[int, int],
        protocol: Protocol,
        batch_size: int,
    ) -> None:
        self.data, self.indices, self.prepare, self.size = data, indices, prepare, size
        self.protocol, self.batch_size = protocol, batch_size

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __getitem__(self, number: int) -> list[Read]:
        start = number * self.batch_size
        return [self.read(int(index)) for index in self.indices[start : start + self.batch_size]]

    def read(self, index: int) -> Read:
        """One photo; what is wrong with it is said, not raised."""
        try:
            sample = self.data[index]
            photo = open_photo(sample.path, at_least=self.size)
            pixels, _ = fit_photo(photo.image, self.size, "squash", self.prepare.interpolation, photo_size=photo.size)
            mask = self.mask(sample) if self.protocol.headline == "pxap" else None
        except (InputError, DatasetError) as error:
            return Read(index, error=str(error))
        ready = self.prepare.normalize(torch.from_numpy(pixels)[None])[0]
        return Read(index, ready, photo.size, sample.size or photo.size, mask)

    def mask(self, sample: Sample) -> npt.NDArray[np.uint8]:
        """What the photo's masks say of each pixel of the protocol's grid."""
        if not sample.masks:
            raise DatasetError(f"photo {sample.id} has no mask; give a data set with masks, or a protocol on boxes")
        instances = [grey(path) for path in sample.masks]
        ignore = grey(sample.ignore) if sample.ignore is not None else None
        return evaluation_mask(instances, ignore, size=self.protocol.grid)


def grey(path: Any) -> npt.NDArray[np.uint8]:
    """A mask's pixels, (H, W)."""
    image: Image.Image = open_photo(path).image
    return np.asarray(image.convert("L"))


class Measure:
    """All methods on one model and one data set, a batch at a time.

    Parameters
    ----------
    classes : (K',) int64
        The model's class for each of the data set's.
    """

    def __init__(
        self,
        methods: Sequence[Method],
        data: DataSet,
        classes: npt.NDArray[np.int64],
        protocol: Protocol,
        thresholds: npt.NDArray[np.float64],
    ) -> None:
        self.methods, self.data, self.classes = methods, data, classes
        self.protocol, self.thresholds = protocol, thresholds
        self.weights = next(methods[0].explain.model.parameters())

    def empty(self) -> Results:
        """Results of no photo."""
        if self.protocol.headline == "pxap":
            return MaskResults(self.thresholds)
        return LocalizationResults(self.protocol, self.thresholds)

    def batch(self, photos: list[Read]) -> Arrays:
        """Everything that is kept of a batch, as arrays.

        Returns
        -------
        dict
            For method i ``"i/..."`` of its results' state, ``"i/maps"`` (n, Gh, Gw) and ``"i/chances"`` (n, 2), of the
            labelled and of the predicted class; ``"sizes"`` (n, 2) of the photos on disk, height first;
            ``"failures"``, JSON of pairs of index and reason.
        """
        failures = [(one.index, one.error) for one in photos if one.error]
        ready, samples, labels = [], [], []
        for one in photos:
            if one.error:
                continue
            sample = self.data[one.index]
            label = -1 if sample.label is None or sample.label >= len(self.classes) else self.classes[sample.label]
            if label < 0:
                failures.append((one.index, f"photo {sample.id} has no label that is a class of the model"))
                continue
            ready.append(one)
            samples.append(sample)
            labels.append(int(label))
        found = self.explained(ready, labels) if ready else []
        results = [self.empty() for _ in self.methods]
        kept = []
        for place, (one, sample, label) in enumerate(zip(ready, samples, labels, strict=True)):
            try:
                heats = [self.protocol.heat(maps[place]) for maps, _ in found]
                for table, heat, (_, logits) in zip(results, heats, found, strict=True):
                    add(table, one, sample, heat, label, None if logits is None else logits[place])
                kept.append(place)
            except (InputError, DatasetError) as error:
                failures.append((one.index, str(error)))
        arrays: Arrays = {"failures": np.array(json.dumps(sorted(failures)))}
        arrays["sizes"] = np.array([ready[place].photo for place in kept]).reshape(-1, 2)
        for number, table in enumerate(results):
            arrays |= {f"{number}/{name}": values for name, values in table.state().items()}
            if found:
                maps, logits = found[number]
                arrays[f"{number}/maps"] = maps[kept]
                arrays[f"{number}/chances"] = chances(logits, labels, len(maps))[kept]
        return arrays

    def explained(self, photos: list[Read], labels: list[int]) -> list[tuple[Maps, Logits]]:
        """By each method the maps of the labelled classes, and logits where there is a classifier.

        In halves where a GPU's memory does not suffice.
        """
        methods = [one.explain for one in self.methods]
        images = torch.stack([one.pixels for one in photos if one.pixels is not None])
        target = torch.tensor(labels, device=self.weights.device) if methods[0].classes else None
        try:
            images = images.to(self.weights.device, self.weights.dtype)
            seen = explain_together(methods, images, target, refine=[one.refine for one in self.methods])
        except torch.cuda.OutOfMemoryError:
            if len(photos) == 1:
                raise
        else:
            known = bool(methods[0].classes)
            return [(numbers(one.evidence.float()), numbers(one.logits.double()) if known else None) for one in seen]
        torch.cuda.empty_cache()
        half = len(photos) // 2
        parts = self.explained(photos[:half], labels[:half]), self.explained(photos[half:], labels[half:])
        return [
            (np.concatenate([maps, more]), None if logits is None else np.concatenate([logits, others]))
            for (maps, logits), (more, others) in zip(*parts, strict=True)
        ]


def numbers(values: Tensor) -> npt.NDArray[Any]:
    """A tensor as an array."""
    return values.detach().cpu().numpy()  # type: ignore[no-any-return]


def add(
    results: Results,
    one: Read,
    sample: Sample,
    heat: npt.NDArray[Any],
    label: int,
    logits: npt.NDArray[np.float64] | None,
) -> None:
    """Measure one map of one photo."""
    if isinstance(results, MaskResults):
        assert one.mask is not None
        results.add(one.index, sample.id, heat, one.mask)
    else:
        results.add(one.index, sample.id, heat, sample.boxes, size=one.size, label=label, logits=logits)


def chances(logits: npt.NDArray[np.float64] | None, labels: list[int], count: int) -> npt.NDArray[np.float64]:
    """Probability of the labelled and of the predicted class, (B, 2); NaN without a classifier."""
    if logits is None:
        return np.full((count, 2), np.nan)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    odds /= odds.sum(axis=1, keepdims=True)
    return np.stack([odds[np.arange(count), labels], odds.max(axis=1)], axis=1)


def from_arrays(arrays: Mapping[str, npt.NDArray[Any]], number: int, kind: type[Results]) -> Results:
    """The results of method ``number`` that `Measure.batch` kept."""
    prefix = f"{number}/"
    return kind.from_state({name[len(prefix) :]: arrays[name] for name in arrays if name.startswith(prefix)})
