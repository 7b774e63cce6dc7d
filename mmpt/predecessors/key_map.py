"""Mapping of checkpoint keys to keys of our model, and the report with the status of every key."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

Status = Literal["mapped", "tied", "dropped", "missing"]


@dataclass(frozen=True)
class Part:
    """A part of a tensor, and a note for the report."""

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
    """Mapping of the keys of one checkpoint. Each of its keys is mapped, tied to another key, or dropped for a reason.

    Args:
        targets: theirs -> [(ours, part)]; one of their keys may fill several of ours.
        ties: theirs -> the key of theirs that must have the same values.
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
class KeyStatus:
    """Status of one key.

    Args:
        status: "mapped", "tied", "dropped" or "missing".
        theirs: key of the checkpoint; None for a missing key of ours.
        ours: key of our model; None for a key of theirs that is not kept.
        note: reason, or part of the tensor.
    """

    status: Status
    theirs: str | None
    ours: str | None
    note: str = ""


@dataclass(frozen=True)
class KeyReport:
    """Status of every key of a checkpoint and of every key of our model.

    Args:
        family: name of the predecessor.
        source: path of the checkpoint.
        model: name of our model class.
        config: fields of our configuration.
        keys: status of each key.
        assumptions: one sentence for each value that was assumed because no file contains it.
    """

    family: str
    source: str
    model: str
    config: dict[str, Any]
    keys: tuple[KeyStatus, ...]
    assumptions: tuple[str, ...]

    def of(self, status: Status) -> list[KeyStatus]:
        return [key for key in self.keys if key.status == status]

    def summary(self) -> str:
        """Return one line with the number of keys of each status."""
        counts = Counter(key.status for key in self.keys)
        return f"{self.source} ({self.family}): " + ", ".join(
            f"{counts[status]} {status}" for status in STATUSES if counts[status]
        )

    def __str__(self) -> str:
        width = max((len(key.theirs or "-") for key in self.keys), default=0)
        lines = [self.summary()]
        for status in STATUSES:
            for key in self.of(status):
                target = f"-> {key.ours}" if key.ours else ""
                note = f"({key.note})" if key.note else ""
                lines.append(f"  {status:8} {key.theirs or '-':{width}} {target} {note}".rstrip())
        lines.append(f"  becomes  {self.model}")
        lines.extend(f"  assumed  {assumption}" for assumption in self.assumptions)
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the content of `conversion.json`."""
        return {
            "family": self.family,
            "source": self.source,
            "model": self.model,
            "keys": [  # "fate" is the name in files of released versions
                {"fate": key.status, "theirs": key.theirs, "ours": key.ours, "note": key.note} for key in self.keys
            ],
            "assumptions": list(self.assumptions),
        }


STATUSES: tuple[Status, ...] = ("mapped", "tied", "dropped", "missing")
