"""The tokenizer that belongs to a checkpoint, saved as a processor."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, BertTokenizer

from mmpt.configuration.configuration_mmpt import MmptConfig
from mmpt.configuration.errors import MmptValueError
from mmpt.configuration.pretrained import load_pretrained
from mmpt.predecessors.source_checkpoint import SourceCheckpoint
from mmpt.processing.image_processing_mmpt import MmptImageProcessor
from mmpt.processing.processing_mmpt import MmptProcessor


def save_processor(
    out: Path,
    source: SourceCheckpoint,
    config: MmptConfig,
    name: str | None,
    lowercase: bool | None,
    *,
    whole_image_region: bool,
) -> str | None:
    """Save tokenizer and region processor to `out`; return a sentence for the report, where there is one to say.

    Args:
        name: a folder or a name on the Hub; the source's own files by default.
        lowercase: whether the family's text was lower-cased; None leaves it to the tokenizer.

    Raises:
        ValueError: if the tokenizer has more words than the model's table.
    """
    tokenizer = _load(source.folder, name, lowercase)
    if tokenizer is None:
        kind = "cased" if lowercase is False else "uncased"
        return (
            f"no tokenizer was found beside the weights, and none is saved; give one with --tokenizer (the vocabulary "
            f"has {config.vocab_size} entries; BERT base {kind} is the family's)"
        )
    if len(tokenizer) > config.vocab_size:
        raise MmptValueError(
            f"the tokenizer has {len(tokenizer)} entries and the model's table {config.vocab_size}; it is not the one "
            "this checkpoint was trained with"
        )
    processor = MmptProcessor(MmptImageProcessor(whole_image_region=whole_image_region), tokenizer)
    processor.save_pretrained(out)
    if len(tokenizer) < config.vocab_size:
        return f"the table of words is padded: {config.vocab_size} rows for {len(tokenizer)} entries of the tokenizer"
    return None


def _load(folder: Path, name: str | None, lowercase: bool | None) -> Any:
    if name is not None:
        return load_pretrained(AutoTokenizer, name)
    if any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json")):
        return load_pretrained(AutoTokenizer, folder)
    if (folder / "vocab.txt").is_file():
        return load_pretrained(BertTokenizer, folder, do_lower_case=lowercase is not False)
    return None
