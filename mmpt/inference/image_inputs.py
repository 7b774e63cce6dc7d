"""Accepted forms of an image, and how to get its regions."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.region_extraction.image_loading import load_image
from mmpt.processing.region_extraction.recorded_extractor import load_recorded_extractor, record_of_extractor
from mmpt.processing.region_extraction.region_extractor import RegionExtractor
from mmpt.processing.regions import Regions
from mmpt.processing.store.record import Record, check_same_regions, record_of

Picture = Image.Image | str | Path
ImageInput = Regions | Picture | tuple[Picture, NDArray[Any]]
"""Regions, the id of an image in a store, a PIL image or the path of an image file. For an extractor of given boxes, a
tuple of PIL image or path and boxes, (regions, 4), normalised to the upright image."""


class ImageInputs:
    """Find the regions of images, in a store or by extraction.

    Args:
        regions: image id -> regions.
        extractor: extractor for images and files. None loads the extractor of training when first needed.
        trained_on: record of the training regions.
        folder: folder of the model, next to which its extractor may be.
        allow_other_regions: accept regions and an extractor that differ from the record.

    Raises:
        ValueError: if regions or extractor differ from those of training.
    """

    def __init__(
        self,
        regions: Mapping[str, Regions] | None,
        extractor: RegionExtractor | None,
        trained_on: Record | None = None,
        folder: str | Path | None = None,
        allow_other_regions: bool = False,
    ) -> None:
        if not allow_other_regions:
            allow = "set allow_other_regions=True"
            check_same_regions(trained_on, record_of(regions), str(getattr(regions, "path", "regions")), allow)
            check_same_regions(trained_on, record_of_extractor(extractor), "extractor", allow)
        self.regions = regions
        self.extractor = extractor
        self._trained_on = trained_on
        self._folder = folder

    def __call__(self, images: Iterable[ImageInput]) -> list[Regions]:
        """Return the regions of each image; repeated images are read or extracted only once.

        Raises:
            ValueError: if an image is not an `ImageInput`, has no regions, or cannot be read.
        """
        images = list(images)
        found: dict[Hashable, Regions] = {}
        pictures: dict[Hashable, Any] = {}
        for image in images:
            key = _key(image)
            if isinstance(image, Regions):
                found[key] = image
            elif key not in found and isinstance(image, str) and self.regions is not None and image in self.regions:
                found[key] = self.regions[image]
            elif key not in found:
                pictures[key] = image
        if pictures:
            found |= zip(pictures, self._extract(list(pictures.values())), strict=True)
        return [found[_key(image)] for image in images]

    def _extract(self, pictures: Sequence[Any]) -> list[Regions]:
        first = pictures[0]
        if self.extractor is None:
            if isinstance(first, str) and self.regions is not None:
                raise MmptValueError(
                    f"image {first!r} is not among the regions ({len(self.regions)} images, "
                    f"{next(iter(self.regions), None)!r} is the first); give an id of these, or an extractor for files"
                )
            if not isinstance(first[0] if isinstance(first, tuple) else first, Image.Image | str | Path):
                raise MmptValueError(
                    f"got {type(first).__name__} for an image, expected Regions, an image id, a PIL image or a path"
                )
            if self._trained_on is None:  # mmpt 0.1.0 did not record the extractor
                raise MmptValueError(
                    f"got {type(first).__name__} for an image, expected Regions; for images and files give the "
                    "pipeline extractor=RegionExtractor.from_pretrained(...), for image ids "
                    "regions=RegionStore.open(...): the model's processor does not record its extractor"
                )
            self.extractor = load_recorded_extractor(self._trained_on, self._folder)
        found: list[Regions] = []
        step = self.extractor.batch_size  # limits the number of decoded images in memory
        for start in range(0, len(pictures), step):
            chosen = [each if isinstance(each, tuple) else (each, None) for each in pictures[start : start + step]]
            given = None if all(boxes is None for _, boxes in chosen) else [boxes for _, boxes in chosen]
            found += self.extractor([_decode(picture) for picture, _ in chosen], boxes=given)  # type: ignore[arg-type]
        return found


def _key(image: Any) -> Hashable:
    return image if isinstance(image, str | Path) else id(image)


def _decode(picture: Any) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture
    if not isinstance(picture, str | Path):
        raise MmptValueError(
            f"got {type(picture).__name__} for an image, expected Regions, an image id, a PIL image or a path"
        )
    try:
        return load_image(picture)
    except ValueError as error:
        raise MmptValueError(f"{picture}: {error}") from error
