"""Gather the pages of the site in build/docs: `python docs/site.py`, which `make docs` runs before mkdocs.

The pages of docs/ are copied, with the READMEs of the repository and the examples. The reference of recipe keys and of
the Python names is generated from the code. Formulas become MathML, which browsers draw without a script. A link to a
file outside of these becomes the file's name.
"""

import re
import shutil
from pathlib import Path

from latex2mathml.converter import convert

import mmpt
from mmpt.recipe.key_list import list_keys

ROOT = Path(__file__).resolve().parents[1]
DOCS, OUT = ROOT / "docs", ROOT / "build" / "docs"
FENCE = re.compile(r"(^```\w*\n.*?^```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<![\\$\w])\$(?!\s)([^$\n]+?)(?<!\s)\$(?![\w$])")
EXAMPLES = sorted((ROOT / "examples").glob("*/README.md"))
READMES = {
    ROOT / "README.md": "index.md",
    ROOT / "README.zh-CN.md": "zh/start.md",
    **{readme: f"studies/{readme.parent.name}.md" for readme in EXAMPLES},
}
PICTURES = {picture: f"studies/{picture.name}" for readme in EXAMPLES for picture in readme.parent.glob("*.png")}
LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)")


def gather() -> None:
    """Write build/docs anew."""
    shutil.rmtree(OUT, ignore_errors=True)
    shutil.copytree(DOCS, OUT, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    sources = {page: DOCS / page.relative_to(OUT) for page in OUT.rglob("*.md")}
    sources |= {OUT / page: readme for readme, page in READMES.items()}
    (OUT / "studies").mkdir()
    for picture, place in PICTURES.items():
        shutil.copyfile(picture, OUT / place)
    for page, source in sources.items():
        text = with_formulas(with_links(source.read_text(encoding="utf-8"), source, page))
        page.write_text(text, encoding="utf-8")
    (OUT / "reference").mkdir()
    (OUT / "reference" / "python.md").write_text(python_names(), encoding="utf-8")
    (OUT / "reference" / "recipe-keys.md").write_text(recipe_keys(), encoding="utf-8")


def with_links(text: str, source: Path, page: Path) -> str:
    """Return the text of a page whose links lead to other pages of the site.

    Args:
        source: the file that the text is from, which its links start at.
        page: the file that it becomes.
    """

    def replace(match: re.Match[str]) -> str:
        words, link, place = match[1], match[2], match[3] or ""
        target = (source.parent / link).resolve()
        inside = READMES.get(target) or PICTURES.get(target)
        if inside is None and target.is_relative_to(DOCS) and target.suffix in (".md", ".png"):
            inside = target.relative_to(DOCS).as_posix()
        if inside is None:
            return f"{words} (`{target.relative_to(ROOT).as_posix()}`)"
        up = "../" * len(page.parent.relative_to(OUT).parts)
        return f"[{words}]({up}{inside}{place})"

    return LINK.sub(replace, text)


def with_formulas(text: str) -> str:
    """Return the text of a page with MathML in place of its LaTeX; code stays as it is."""
    parts = FENCE.split(text)
    for place, part in enumerate(parts):
        if place % 2 == 0:
            # In a span, because Markdown takes a line that begins with <math> for a block.
            parts[place] = INLINE.sub(lambda match: f"<span>{convert(match[1])}</span>", part)
        elif part.startswith("```math"):
            formula = part.removeprefix("```math").removesuffix("```").strip()
            parts[place] = f"<div>{convert(formula, display='block')}</div>"
    return "".join(parts)


def python_names() -> str:
    """Return the page of the public names, each from its docstring."""
    lines = ["# Python", "", "The public names of `mmpt`, from their docstrings.", ""]
    for name in sorted(mmpt._MODULES):
        lines += [f"::: {mmpt._MODULES[name]}.{name}", ""]
    return "\n".join(lines)


def recipe_keys() -> str:
    """Return the page of every key that a recipe can have, as `mmpt keys` lists them."""
    lines = ["# Recipe keys", "", "Every key of a recipe, with type and default, as `mmpt keys` prints it.", ""]
    section = ""
    for line in list_keys():
        key, colon, rest = line.partition(": ")
        if not colon or " " in key:
            lines += ["", line[0].upper() + line[1:] + "."]
            continue
        first, _, name = key.partition(".")
        if first != section:
            section = first
            lines += ["", f"## {first}", "", "| key | type and default |", "| --- | --- |"]
        kind = rest.replace("|", "\\|").replace("<", "&lt;")
        lines.append(f"| `{name or first}` | {kind} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    gather()
