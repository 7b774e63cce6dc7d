"""Summarise the content of a region store."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmpt.processing.store.format import MANIFEST
from mmpt.processing.store.region_store import RegionStore

SHOWN_CLASSES = 20
BAR = 30  # characters of the longest bar


@dataclass(frozen=True)
class StoreSummary:
    """Counts of a store.

    Args:
        regions: (images,), number of regions of each image.
        classes: (classes,), number of regions of each class, empty if the store has no classes. The class of a region
            is its label or, without labels, its most probable class.
        file_bytes: total size of the files in bytes.
    """

    store: RegionStore
    regions: np.ndarray
    classes: np.ndarray
    file_bytes: int

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        store, manifest = self.store, self.store.manifest
        state = "" if store.complete else " (writing was interrupted: these are its complete shards)"
        rejected = manifest["errors"]["rows"] if manifest["errors"] else 0
        classes = "no classes" if store.num_classes is None else f"{store.num_classes} classes"
        counts = self.regions
        spread = f"{counts.min()} to {counts.max()} per image, mean {counts.mean():.1f}" if len(counts) else "none"
        arrays = ", ".join(store.arrays) or "no optional arrays"
        lines = [
            f"{store.path}: {len(store):,} images{state}, {self.file_bytes / 1e6:,.1f} MB in "
            f"{len(manifest['shards'])} shards",
            f"regions: {counts.sum():,}; {spread}; {(counts == 0).sum():,} images without",
            f"features: dimension {store.feature_dim}, float16; {classes}; {arrays}",
            f"rejected: {rejected:,}" + (" (errors.jsonl has the reasons)" if rejected else ""),
            f"extractor: {_flat(store.extractor)}",
            f"origin: {_flat(manifest['origin'])}",
            f"schema version {manifest['schema_version']}, fingerprint {store.fingerprint[:12]}",
        ]
        return lines + self._histogram()

    def _histogram(self) -> list[str]:
        total = self.classes.sum()
        if not total:
            return []
        order = np.argsort(-self.classes, kind="stable")[: min(SHOWN_CLASSES, np.count_nonzero(self.classes))]
        names = [class_name(self.store, int(number)) for number in order]
        width = max(map(len, names))
        of = "" if self.store.num_classes is None else f" of {self.store.num_classes}"
        lines = [f"classes of the regions, {np.count_nonzero(self.classes)}{of} occur:"]
        for name, number in zip(names, order.tolist(), strict=True):
            count = int(self.classes[number])
            bar = "#" * max(1, round(BAR * count / int(self.classes.max())))
            lines.append(f"  {name:{width}}  {count:>9,}  {100 * count / total:5.1f} %  {bar}")
        return lines


def summarise(store: RegionStore) -> StoreSummary:
    """Count images, regions and classes of a store without reading its features."""
    regions, classes = [], np.zeros(store.num_classes or 0, dtype=np.int64)
    for batch in store.batches():
        regions.append(batch.arrow.column("num_regions").to_numpy())
        labels = _classes_of(batch, store)
        if len(labels):
            found = np.bincount(labels, minlength=len(classes))
            classes = np.pad(classes, (0, len(found) - len(classes))) + found
    files = [*(entry["bytes"] for entry in store.manifest["shards"]), (store.path / MANIFEST).stat().st_size]
    for name in ("index", "errors"):
        files.append(store.manifest[name]["bytes"] if store.manifest[name] else 0)
    return StoreSummary(store, np.concatenate([np.zeros(0, np.int32), *regions]), classes, sum(files))


def class_name(store: RegionStore, number: int) -> str:
    """Return the name of a class, or "class" and its number if the store has no names."""
    names = store.class_names
    return names[number] if names is not None and number < len(names) else f"class {number}"


def _classes_of(batch: Any, store: RegionStore) -> np.ndarray:
    rows = range(len(batch))
    labels = [batch.payload("labels", row) for row in rows]
    known = [value.view("<i4") for value in labels if value is not None]
    if not known and store.num_classes:
        probs = [batch.payload("class_probs", row) for row in rows]
        known = [p.view("<f2").reshape(-1, store.num_classes).argmax(1) for p in probs if p is not None and len(p)]
    return np.concatenate([np.zeros(0, np.int64), *known]).astype(np.int64)


def _flat(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items()) or "not recorded"
