"""Region-feature vision-and-language pre-training on Hugging Face Transformers."""

from pathlib import Path

_here = Path(__file__).resolve().parent
if not (_here / "configuration").is_dir():  # a checkout: the other rooms are this folder's siblings
    __path__.append(str(_here.parent))

__version__ = "0.1.0"
