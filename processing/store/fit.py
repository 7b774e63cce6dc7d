"""Whether the regions of a store are what a model reads, and the command that makes regions that are."""

from mmpt.configuration.configuration_mmpt import CLASS_OBJECTIVE_NAMES, MmptConfig, MmptDualStreamConfig
from mmpt.configuration.errors import MmptValueError
from mmpt.processing.store.record import Record, describe_extractor


def check_store_fits(config: MmptConfig, record: Record | None, where: str) -> None:
    """Raise if a store has features, classes or a background that a model does not read.

    Args:
        record: of the store (`record_of`); nothing is known of other regions.
        where: what the store is called in the error.

    Raises:
        ValueError: with what the store has, what the model expects, and the command that makes a store that fits.
    """
    if record is None or "corpus" in record["extractor"]:
        return
    reads_classes = any(name in config.objective_weights for name in CLASS_OBJECTIVE_NAMES)
    classes = record.get("num_classes")
    space = record["extractor"].get("label_space")
    background = None if space is None else {"background_first": 0}.get(space)
    differ = []
    if record["feature_dim"] != config.region_feature_dim:
        differ.append(f"features of {record['feature_dim']} numbers, the model reads {config.region_feature_dim}")
    if reads_classes and classes is not None and classes != config.num_region_classes:
        differ.append(f"{classes} classes, the model predicts {config.num_region_classes}")
    elif reads_classes and classes is not None and space is not None and background != config.region_background_class:
        places = [("no background" if place is None else f"the background as class {place}") for place in
                  (background, config.region_background_class)]  # fmt: skip
        differ.append(f"{places[0]}, the model {places[1]}")
    if differ:
        raise MmptValueError(
            f"{where} (made by {describe_extractor(record)}) has {'; '.join(differ)}. Extract regions that the model "
            f"reads: {curing_command(config)}"
        )


def curing_command(config: MmptConfig) -> str:
    """Return the command that makes the regions of the predecessor that a model looks like."""
    if config.num_region_classes == 0:
        preset = "oscar" if config.region_box_dim == 6 else "visual_bert"
    elif config.region_background_class is None:
        preset = "lxmert"
    else:
        preset = "volta" if isinstance(config, MmptDualStreamConfig) else "uniter"
    return f"mmpt extract --images IMAGES --model DETECTOR --preset {preset} --out STORE"
