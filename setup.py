"""The distribution mmpt: one top-level package, made of the four rooms that lie side by side in the checkout."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
REPOSITORY = "https://github.com/mmpt/mmpt"  # the one place that knows the address
ROOMS = ("configuration", "modeling_mmpt", "processing")

CORE = [
    "accelerate>=1.10,<2",
    "datasets>=4,<6",
    "evaluate>=0.4.6,<1",
    "filelock>=3.15.1",
    "huggingface_hub>=1.31,<3",
    "numpy>=2,<3",
    "pillow>=11",
    "pyarrow>=21",
    "pyyaml>=6",
    "safetensors>=0.8",
    "tokenizers>=0.23.1",
    "torch>=2.9,<3",
    "transformers>=5.20,<6",
    "typer>=0.20,<1",
]
EXTRAS = {
    "chinese": ["jieba>=0.42.1"],
    "demo": ["gradio>=6.31"],
    "dev": [
        "faiss-cpu>=1.9",
        "h5py>=3.11",
        "hypothesis>=6.130",
        "lmdb>=1.5.1",
        "msgpack>=1.0",
        "msgpack-numpy>=0.4.8",
        "parameterized>=0.9",
        "peft>=0.20",
        "playwright>=1.50",
        "psutil>=6",
        "pyright==1.1.414",
        "pytest>=9",
        "pytest-xdist>=3.7",
        "ruff==0.17.6",
        "scikit-learn>=1.6",
        "setuptools>=77.0.1",
    ],
    "docs": ["latex2mathml>=3.77", "mkdocs-material>=9.6", "mkdocstrings[python]>=1.0"],
    "hdf5": ["h5py>=3.11"],
    "lmdb": ["lmdb>=1.5.1", "msgpack>=1.0"],
    "plots": ["matplotlib>=3.9"],
    "retrieval": ["faiss-cpu>=1.9"],
    "track": ["tensorboard>=2.18", "trackio>=0.2"],
}


def read_version() -> str:
    """Return `__version__` of the package, the one place that knows it."""
    source = (ROOT / "mmpt" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)
    if match is None:
        raise ValueError('mmpt/__init__.py has no line __version__ = "..."')
    return match[1]


setup(
    name="mmpt",
    version=read_version(),
    description="Region-feature vision-and-language pre-training on Hugging Face Transformers",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The mmpt authors",
    url=REPOSITORY,
    project_urls={
        "Documentation": f"{REPOSITORY}/tree/main/docs",
        "Changelog": f"{REPOSITORY}/blob/main/CHANGELOG.md",
        "Issues": f"{REPOSITORY}/issues",
    },
    keywords=["vision-and-language", "pre-training", "transformers", "region features", "UNITER", "LXMERT", "ViLBERT"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3 :: Only",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (10, 11, 12, 13)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=[
        "mmpt",
        "mmpt.model_cards",  # the template of the cards that runs write
        "mmpt.recipes",  # what `mmpt pretrain tiny` and `mmpt recipes` find
        *(f"mmpt.{part}" for part in find_packages(str(ROOT / "mmpt"))),
        *(f"mmpt.{room}" for room in ROOMS),
        *(f"mmpt.{room}.{part}" for room in ROOMS for part in find_packages(str(ROOT / room))),
    ],
    package_dir={f"mmpt.{room}": room for room in (*ROOMS, "model_cards", "recipes")},
    package_data={
        "mmpt": ["py.typed", "__init__.pyi"],
        "mmpt.example": ["*/*"],
        "mmpt.model_cards": ["template.md"],
        "mmpt.recipes": ["*.yaml", "*/*.yaml"],
    },
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["mmpt = mmpt.commands.main:main"]},
)
