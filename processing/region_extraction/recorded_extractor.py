"""Load the region extractor named in a model's record."""

import copy
from pathlib import Path
from typing import Any

from mmpt.configuration.errors import MmptOSError, MmptValueError
from mmpt.processing.region_extraction.region_extractor import RegionExtractor
from mmpt.processing.store.record import Record, check_same_regions, describe_extractor

ASKED = ("max_regions", "min_regions", "threshold")
ASKED_OF_PRESETS = ("preset", "background")


def load_recorded_extractor(record: Record, beside: str | Path | None = None) -> RegionExtractor:
    """Load the extractor that made a model's training regions.

    Args:
        record: see `processing.store.record`.
        beside: folder of the model. A store records only the name of a detector's folder, which is searched in the
            working directory, in `beside` and next to it.

    Raises:
        ValueError: if the regions were not made by an extractor, or the one found differs from the record.
        OSError: if the extractor is neither in a folder nor on the Hub.
    """
    settings: dict[str, Any] = record["extractor"]
    if "weights_sha256" not in settings:
        raise MmptValueError(
            f"the model was trained on regions made by {describe_extractor(record)}, which mmpt cannot run on a "
            "image; give Regions, a store with regions=RegionStore.open(...), or extractor=..."
        )
    name, backend = settings["model"], settings["backend"]
    places = [Path(name)] + ([] if beside is None else [Path(beside) / name, Path(beside).parent / name])
    folder = next((place for place in places if place.is_dir()), None)
    names = ASKED_OF_PRESETS if "preset" in settings else ASKED
    asked = {key: settings[key] for key in names if key in settings}
    try:
        extractor = RegionExtractor.from_pretrained(
            name if folder is None else folder,
            backend=backend,
            revision=settings["revision"] if folder is None else None,
            dtype=settings["dtype"],
            **asked,
        )
    except OSError as error:
        given = ", ".join(f"{key}={value!r}" for key, value in asked.items())
        raise MmptOSError(
            f"an image needs the extractor that the model was trained with, {describe_extractor(record)}, which was "
            f"found neither in a folder ({', '.join(map(str, places))}) nor on the Hub; give extractor="
            f"RegionExtractor.from_pretrained(<its folder>, backend={backend!r}, {given}), or Regions"
        ) from error
    check_same_regions(record, record_of_extractor(extractor), str(folder or name), "give extractor=...")
    return extractor


def record_of_extractor(extractor: Any) -> Record | None:
    """Return the record of an extractor's regions, or None for an extractor without settings, such as a function."""
    settings = getattr(extractor, "settings", None)
    if settings is None:
        return None
    return {
        "extractor": copy.deepcopy(settings),
        "feature_dim": extractor.feature_dim,
        "class_names": extractor.class_names,
    }
