"""Record of how a model's training regions were made, saved in its processor and compared with other regions.

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
    """Return the record of regions from a store or a corpus, or None if their origin is unknown.

    Args:
        corpus: name of the corpus that makes the features, for regions that are not from a store.
    """
    if getattr(regions, "fingerprint", None) is not None:
        return {name: getattr(regions, name) for name in (*FACTS, "fingerprint")}
    if corpus is None:
        return None
    return {"extractor": {"corpus": corpus}, "feature_dim": next(iter(regions.values())).feature_dim}


def check_same_regions(trained: Record | None, given: Record | None, where: str, allow: str) -> None:
    """Raise if the given regions come from another extractor than the training regions; unknown records pass.

    Args:
        where: description of the given regions, for the error.
        allow: option that permits different regions, for the error.

    Raises:
        ValueError: if the records differ; the message names both extractors.
    """
    if trained is None or given is None:
        return
    for name in ("feature_dim", "class_names"):
        # A record may lack class names.
        one, other = trained.get(name), given.get(name)
        if one is not None and other is not None and one != other:
            raise MmptValueError(
                f"{where} has {name} {_short(other)}, but the model was trained on regions with {_short(one)}; give "
                f"regions of {describe_extractor(trained)}"
                + (f", or {allow} to use these anyway" if name != "feature_dim" else "")
            )
    if _identity(trained["extractor"]) != _identity(given["extractor"]):
        differ = _differences(_identity(trained["extractor"]), _identity(given["extractor"]))
        raise MmptValueError(
            f"{where} was made by {describe_extractor(given)}, but the model was trained on regions made by "
            f"{describe_extractor(trained)} ({differ}); give regions of that extractor, or {allow} to use these anyway"
        )


def describe_extractor(record: Record) -> str:
    """Describe an extractor for an error message."""
    extractor = record["extractor"]
    if "corpus" in extractor:
        return f"the corpus {extractor['corpus']!r}"
    if "model" not in extractor:
        return _short(extractor)
    weights = f", weights {extractor['weights_sha256'][:12]}" if "weights_sha256" in extractor else ""
    revision = f" at {extractor['revision']}" if extractor.get("revision") else ""
    return f"{extractor['model']!r}{revision} (backend {extractor.get('backend')}{weights})"


def _identity(extractor: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that determine the regions.

    If the weights have a checksum, model name, revision and dtype are left out.
    """
    unread = ("model", "revision", "dtype") if "weights_sha256" in extractor else ()
    return {name: value for name, value in extractor.items() if name not in unread}


def _differences(trained: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    names = [name for name in {**trained, **given} if trained.get(name) != given.get(name)]
    return "; ".join(f"{name} {_short(given.get(name))}, not {_short(trained.get(name))}" for name in names[:3])


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
