"""What made the regions that a model was trained on: kept in its processor, compared before other regions are used.

A record is JSON: `extractor` (the settings, or the corpus that makes its own features), `feature_dim`, `class_names`
and a store's `fingerprint`.
"""

import json
from collections.abc import Mapping
from typing import Any

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.store.format import FACTS

Record = dict[str, Any]


def record_of(regions: Any, corpus: str | None = None) -> Record | None:
    """Return the record of a store's regions, or of those of a corpus; None where nothing is known of them.

    Args:
        corpus: name of the corpus that makes the features, for regions that are no store's.
    """
    if getattr(regions, "fingerprint", None) is not None:
        return {name: getattr(regions, name) for name in (*FACTS, "fingerprint")}
    if corpus is None:
        return None
    return {"extractor": {"corpus": corpus}, "feature_dim": next(iter(regions.values())).feature_dim}


def check_same_regions(trained: Record | None, given: Record | None, where: str, allow: str) -> None:
    """Raise if a model would get regions of another extractor than it was trained on; both must be known.

    Args:
        where: what the given regions are of, for the error.
        allow: how a user says that they may differ, for the error.

    Raises:
        ValueError: naming both extractors.
    """
    if trained is None or given is None:
        return
    for name in ("feature_dim", "class_names"):
        # Every corpus may leave names out.
        one, other = trained.get(name), given.get(name)
        if one is not None and other is not None and one != other:
            raise MmptValueError(
                f"{where} has {name} {_short(other)}, but the model was trained on regions with {_short(one)}; give "
                f"regions of {describe_extractor(trained)}"
                + (f", or {allow} to use these all the same" if name != "feature_dim" else "")
            )
    if _identity(trained["extractor"]) != _identity(given["extractor"]):
        differ = _differences(_identity(trained["extractor"]), _identity(given["extractor"]))
        raise MmptValueError(
            f"{where} was made by {describe_extractor(given)}, but the model was trained on regions made by "
            f"{describe_extractor(trained)} ({differ}); give regions of that extractor, or {allow} to use these all "
            "the same"
        )


def describe_extractor(record: Record) -> str:
    """Return what errors call an extractor."""
    extractor = record["extractor"]
    if "corpus" in extractor:
        return f"the corpus {extractor['corpus']!r}"
    if "model" not in extractor:
        return _short(extractor)
    weights = f", weights {extractor['weights_sha256'][:12]}" if "weights_sha256" in extractor else ""
    revision = f" at {extractor['revision']}" if extractor.get("revision") else ""
    return f"{extractor['model']!r}{revision} (backend {extractor.get('backend')}{weights})"


def _identity(extractor: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the regions: equal weights make a name, a revision and a rounding to a lower dtype none."""
    unread = ("model", "revision", "dtype") if "weights_sha256" in extractor else ()
    return {name: value for name, value in extractor.items() if name not in unread}


def _differences(trained: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    names = [name for name in {**trained, **given} if trained.get(name) != given.get(name)]
    return "; ".join(f"{name} {_short(given.get(name))}, not {_short(trained.get(name))}" for name in names[:3])


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
