"""Region source that decodes and prepares images and extracts their regions, batch by batch."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.region_extraction.image_preparation import PreparedImage
from mmpt.processing.region_extraction.image_sources import ImageEntry, ImageSource
from mmpt.processing.region_extraction.region_extractor import RegionExtractor
from mmpt.processing.regions import boxes_from_pixels, check_boxes
from mmpt.processing.store.source import Found, Rejected

_NOTHING = "the detector finds no region in it, expected one or more; a very small, long or plain image may have none"
BATCHES_AHEAD = 2  # batches that are decoded while the model is at work


@dataclass(frozen=True)
class _Ready:
    """An image prepared for the model, with its given boxes and labels."""

    where: str
    image_id: str
    image: PreparedImage
    boxes: NDArray[np.float32] | None
    labels: NDArray[np.int64] | None


class ImageRegions:
    """A `RegionSource` of images, in which each group is one batch of the extractor.

    An image that cannot be decoded or prepared, or has invalid boxes, is rejected; the rest of its batch is processed.
    An error of the model is raised, because it would affect every image.

    Args:
        box_format: format of the boxes of `images`, for an extractor that needs them: "pixel" (of the upright image)
            or "normalized" (0..1).
        workers: number of threads that decode and prepare.
        shard: (i, n) selects the i-th of n contiguous blocks, counted from 0. The n stores merged in order have the
            same images in the same order as one undivided run.

    Raises:
        ValueError: if the shard number is out of range, or the shard has no image.
    """

    def __init__(
        self,
        images: ImageSource,
        extractor: RegionExtractor,
        *,
        box_format: Literal["pixel", "normalized"] = "pixel",
        workers: int = 4,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        index, count = shard
        if not 0 <= index < count <= len(images):
            raise MmptValueError(
                f"shard is {index} of {count}, expected 0..{max(count, 1) - 1} of at most {len(images)}, the number of "
                "images"
            )
        self._images = images
        self._extractor = extractor
        self._box_format = box_format
        self._workers = workers
        self._shard = shard
        self._block = range(index * len(images) // count, (index + 1) * len(images) // count)

    @property
    def extractor(self) -> Mapping[str, Any]:
        """Settings of the extractor."""
        return self._extractor.settings

    @property
    def origin(self) -> Mapping[str, Any]:
        """Identity of the images."""
        return {
            "images": self._images.name,
            "total": len(self._images),
            "ids_sha256": self._images.ids_sha256,
            "shard": list(self._shard),
        }

    @property
    def class_names(self) -> Sequence[str] | None:
        """Class names of the extractor."""
        return self._extractor.class_names

    @property
    def total(self) -> int:
        """Number of images in the shard."""
        return len(self._block)

    def groups(self, start: int) -> Iterator[list[Found | Rejected]]:
        """Yield the images of the shard from position `start` on, in order, batch by batch."""
        yield from self._groups(self._block[start:])

    @property
    def ids(self) -> list[str | None]:
        """The ids of the shard's images."""
        return [self._images.ids[place] for place in self._block]

    def read(self, numbers: Sequence[int]) -> Iterator[list[Found | Rejected]]:
        """Yield only these positions of the shard, batch by batch."""
        yield from self._groups([self._block[number] for number in numbers])

    def _groups(self, positions: Sequence[int]) -> Iterator[list[Found | Rejected]]:
        remaining = iter(positions)
        batches = iter(lambda: list(islice(remaining, self._extractor.batch_size)), [])
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="mmpt-images")
        waiting: deque[list[Future[_Ready | Rejected]]] = deque()
        try:
            for batch in batches:
                waiting.append([pool.submit(self._ready, position) for position in batch])
                if len(waiting) > BATCHES_AHEAD:
                    yield self._extract([future.result() for future in waiting.popleft()])
            while waiting:
                yield self._extract([future.result() for future in waiting.popleft()])
        finally:
            pool.shutdown(cancel_futures=True)

    def _ready(self, position: int) -> _Ready | Rejected:
        """Decode and prepare an image; runs in a thread."""
        entry = self._images[position]
        try:
            if entry.image_id is None:
                entry.load()  # raises an error that describes what is wrong with the row
                raise MmptValueError("the row has no image id, expected one")
            image = self._extractor.prepare(entry.load())
            boxes, labels = self._boxes(entry, image) if self._extractor.needs_boxes else (None, None)
        except ValueError as error:
            return Rejected(entry.where, str(error), entry.image_id)
        return _Ready(entry.where, entry.image_id, image, boxes, labels)

    def _boxes(self, entry: ImageEntry, image: PreparedImage) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
        try:
            boxes = np.asarray(entry.boxes if entry.boxes is not None else [], dtype=np.float32)
        except (TypeError, ValueError):
            raise MmptValueError(f"boxes are {entry.boxes!r:.100}, expected lists of x1 y1 x2 y2") from None
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise MmptValueError(f"boxes have shape {boxes.shape}, expected (regions, 4) with at least one region")
        normal = (
            boxes_from_pixels(boxes, image.width, image.height) if self._box_format == "pixel" else check_boxes(boxes)
        )
        if entry.labels is None:
            return normal, None
        labels = np.asarray(entry.labels)
        if labels.shape != (len(boxes),) or labels.dtype.kind != "i":
            raise MmptValueError(
                f"labels are {entry.labels!r:.100}, expected one class number for each of {len(boxes)} boxes"
            )
        return normal, labels

    def _extract(self, batch: list[_Ready | Rejected]) -> list[Found | Rejected]:
        ready = [item for item in batch if isinstance(item, _Ready)]
        boxes = [item.boxes for item in ready if item.boxes is not None] if self._extractor.needs_boxes else None
        found = self._extractor.extract_prepared(
            [item.image for item in ready], [item.image_id for item in ready], boxes
        )
        regions = iter(found)
        result: list[Found | Rejected] = []
        for item in batch:
            if isinstance(item, _Ready):
                one = next(regions)
                if item.labels is not None:
                    one.labels = item.labels
                item = Found(item.where, one) if len(one) else Rejected(item.where, _NOTHING, one.image_id)
            result.append(item)
        return result
