"""Which key of a checkpoint becomes which key of our model, and the report that leaves no key unexplained."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

Fate = Literal["mapped", "tied", "dropped", "missing"]


@dataclass(frozen=True)
class Part:
    """What of a tensor is taken, and how."""

    note: str
    take: Callable[[Tensor], Tensor]


WHOLE = Part("", lambda tensor: tensor)
MATCHED_FIRST = Part(
    "classes 0 and 1 exchanged: theirs has 0 = matched, ours 1",
    lambda tensor: tensor[[1, 0, *range(2, len(tensor))]],
)


def rows_from(start: int, note: str) -> Part:
    return Part(note, lambda tensor: tensor[start:])


def columns(start: int, stop: int | None, note: str) -> Part:
    return Part(note, lambda tensor: tensor[:, start:stop].contiguous())


@dataclass
class KeyMap:
    """The keys of one checkpoint. Each key of theirs is mapped, equal to another one, or dropped for a reason.

    Args:
        targets: theirs -> [(ours, part)]; one of theirs may fill several of ours.
        ties: theirs -> the key of theirs that must hold the same values.
        drops: theirs -> reason.
        made: ours -> what a formula gives, where the checkpoint has nothing.
    """

    targets: dict[str, list[tuple[str, Part]]] = field(default_factory=dict)
    ties: dict[str, str] = field(default_factory=dict)
    drops: dict[str, str] = field(default_factory=dict)
    made: dict[str, Tensor] = field(default_factory=dict)

    def tensor(self, theirs: str, ours: str, part: Part = WHOLE) -> None:
        self.targets.setdefault(theirs, []).append((ours, part))

    def module(self, theirs: str, ours: str, part: Part = WHOLE) -> None:
        """Map weight and bias of a module."""
        for name in ("weight", "bias"):
            self.tensor(f"{theirs}.{name}", f"{ours}.{name}", part)

    def modules(self, theirs: str, ours: str, names: Mapping[str, str]) -> None:
        """Map the modules below `theirs` to those below `ours`; names: our name -> theirs."""
        for our_name, their_name in names.items():
            self.module(f"{theirs}.{their_name}", f"{ours}.{our_name}")

    def tie(self, theirs: str, to: str) -> None:
        self.ties[theirs] = to

    def tie_modules(self, pairs: Iterable[tuple[str, str]]) -> None:
        for theirs, to in pairs:
            for name in ("weight", "bias"):
                self.tie(f"{theirs}.{name}", f"{to}.{name}")

    def drop(self, keys: Iterable[str], reason: str) -> None:
        self.drops.update(dict.fromkeys(keys, reason))


@dataclass(frozen=True)
class KeyFate:
    """What became of one key.

    Args:
        theirs: key of the checkpoint; None where our key got nothing.
        ours: key of our model; None where theirs is not kept.
    """

    fate: Fate
    theirs: str | None
    ours: str | None
    note: str = ""


@dataclass(frozen=True)
class KeyReport:
    """What became of every key of a checkpoint and of every key of our model.

    Args:
        family: the name of the predecessor.
        source: the checkpoint.
        model: the class of ours that it became.
        config: the configuration that it was given, by field.
        assumptions: what no file said and was assumed, one sentence each.
    """

    family: str
    source: str
    model: str
    config: dict[str, Any]
    keys: tuple[KeyFate, ...]
    assumptions: tuple[str, ...]

    def of(self, fate: Fate) -> list[KeyFate]:
        return [key for key in self.keys if key.fate == fate]

    def summary(self) -> str:
        """Return one line: how many keys had which fate."""
        counts = Counter(key.fate for key in self.keys)
        return f"{self.source} ({self.family}): " + ", ".join(
            f"{counts[fate]} {fate}" for fate in FATES if counts[fate]
        )

    def __str__(self) -> str:
        width = max((len(key.theirs or "-") for key in self.keys), default=0)
        lines = [self.summary()]
        for fate in FATES:
            for key in self.of(fate):
                target = f"-> {key.ours}" if key.ours else ""
                note = f"({key.note})" if key.note else ""
                lines.append(f"  {fate:8} {key.theirs or '-':{width}} {target} {note}".rstrip())
        lines.append(f"  becomes  {self.model}")
        lines.extend(f"  assumed  {assumption}" for assumption in self.assumptions)
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return what `conversion.json` holds."""
        return {
            "family": self.family,
            "source": self.source,
            "model": self.model,
            "keys": [{"fate": key.fate, "theirs": key.theirs, "ours": key.ours, "note": key.note} for key in self.keys],
            "assumptions": list(self.assumptions),
        }


FATES: tuple[Fate, ...] = ("mapped", "tied", "dropped", "missing")
