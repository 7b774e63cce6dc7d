"""The region extractor that a model's record names, loaded where it can be had."""

import copy
from pathlib import Path
from typing import Any

from mmpt.configuration.errors import MmptOSError, MmptValueError
from mmpt.processing.region_extraction.region_extractor import RegionExtractor
from mmpt.processing.store.record import Record, check_same_regions, describe_extractor

ASKED = ("max_regions", "min_regions", "threshold")
ASKED_OF_PRESETS = ("preset", "background")


def load_recorded_extractor(record: Record, beside: str | Path | None = None) -> RegionExtractor:
    """Return the extractor that made the regions which a model was trained on.

    Args:
        record: see `region_record`.
        beside: the model's folder. A detector that was a folder is looked for in it, beside it and in the working
            directory, by the folder's name, which is all that a store knows.

    Raises:
        ValueError: if no extractor made the regions, or what is found is another.
        OSError: if the extractor is neither in a folder nor on the Hub.
    """
    settings: dict[str, Any] = record["extractor"]
    if "weights_sha256" not in settings:
        raise MmptValueError(
            f"the model was trained on regions made by {describe_extractor(record)}, which mmpt cannot run on a "
            "picture; give Regions, a store with regions=RegionStore.open(...), or extractor=..."
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
            f"a picture needs the extractor that the model was trained with, {describe_extractor(record)}, which is "
            f"neither a folder here ({', '.join(map(str, places))}) nor to be had from the Hub; give extractor="
            f"RegionExtractor.from_pretrained(<its folder>, backend={backend!r}, {given}), or Regions"
        ) from error
    check_same_regions(record, record_of_extractor(extractor), str(folder or name), "give extractor=...")
    return extractor


def record_of_extractor(extractor: Any) -> Record | None:
    """Return the record of the regions that an extractor makes; None if it does not tell, a function of one's own."""
    settings = getattr(extractor, "settings", None)
    if settings is None:
        return None
    return {
        "extractor": copy.deepcopy(settings),
        "feature_dim": extractor.feature_dim,
        "class_names": extractor.class_names,
    }
