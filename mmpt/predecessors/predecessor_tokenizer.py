"""Build the processor of a checkpoint from its tokenizer and the settings of its family."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, BertTokenizer

from mmpt.configuration.configuration_mmpt import MmptConfig
from mmpt.configuration.errors import MmptValueError
from mmpt.configuration.pretrained import load_pretrained
from mmpt.predecessors.source_checkpoint import SourceCheckpoint
from mmpt.processing.image_processing_mmpt import MmptImageProcessor
from mmpt.processing.placeholders import refuse_placeholder
from mmpt.processing.processing_mmpt import MmptProcessor


def find_processor(
    source: SourceCheckpoint,
    config: MmptConfig,
    name: str | None,
    lowercase: bool | None,
    *,
    whole_image_region: bool,
) -> tuple[MmptProcessor | None, str | None]:
    """Return (processor, sentence for the report); the processor is None if no tokenizer is found.

    Args:
        name: folder, or name on the Hub; None uses the files next to the weights.
        lowercase: whether the family's text is lower-cased; None leaves it to the tokenizer.
        whole_image_region: whether the processor adds a whole-image region.

    Raises:
        ValueError: if the tokenizer cannot be loaded, or has more entries than the word embeddings.
    """
    tokenizer = _load(source.folder, name, lowercase)
    if tokenizer is None:
        kind = "cased" if lowercase is False else "uncased"
        return None, (
            f"no tokenizer was found next to the weights, and none is saved; give one with --tokenizer (the vocabulary "
            f"has {config.vocab_size} entries; the family uses BERT base {kind})"
        )
    if len(tokenizer) > config.vocab_size:
        raise MmptValueError(
            f"the tokenizer has {len(tokenizer)} entries and the word embeddings {config.vocab_size}; it is not the "
            "one this checkpoint was trained with"
        )
    processor = MmptProcessor(MmptImageProcessor(whole_image_region=whole_image_region), tokenizer)
    note = None
    if len(tokenizer) < config.vocab_size:
        note = f"word embeddings are padded: {config.vocab_size} rows for {len(tokenizer)} entries of the tokenizer"
    return processor, note


def _load(folder: Path, name: str | None, lowercase: bool | None) -> Any:
    where = folder if name is None else Path(name)
    for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        if (where / file).is_file():
            refuse_placeholder(where / file)
    if name is not None:
        return load_pretrained(AutoTokenizer, name, "--tokenizer")
    if any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json")):
        return load_pretrained(AutoTokenizer, folder, "the tokenizer next to the weights")
    if (folder / "vocab.txt").is_file():
        return load_pretrained(BertTokenizer, folder, "vocab.txt", do_lower_case=lowercase is not False)
    return None
