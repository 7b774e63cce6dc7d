"""The parts of sentences about NLVR scenes: descriptions and amounts, in words and with their truth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from examples.nlvr.scenes import (
    COLOUR,
    COLOURS,
    PANEL,
    PANELS,
    SHAPE,
    SHAPES,
    SIDE,
    SIZE,
    Scene,
    X,
    Y,
    is_tower,
)

T = TypeVar("T")

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
SIZE_WORDS = {10: ("small",), 20: ("medium", "medium sized"), 30: ("big", "large")}
MANY = 4  # objects of a box that has "many" of them


class Item(NamedTuple):
    """An object: left and top edge, side, colour and shape."""

    x: int
    y: int
    size: int
    colour: int
    shape: int

    def touches(self, walls: str) -> bool:
        """Whether it touches one of the walls, named by their first letters: l, r, t, b."""
        gaps = {"l": self.x, "t": self.y, "r": SIDE - self.x - self.size, "b": SIDE - self.y - self.size}
        return any(gaps[wall] == 0 for wall in walls)

    def in_corner(self) -> bool:
        """Whether it touches two walls."""
        return self.touches("lr") and self.touches("tb")


class Boxes:
    """A scene as three lists of items, each from the lowest to the highest, and all of them together."""

    def __init__(self, scene: Scene) -> None:
        self.tower = is_tower(scene)
        self.boxes: list[list[Item]] = [[] for _ in range(PANELS)]
        rows = scene[np.argsort(-scene[:, Y], kind="stable")]
        for row in rows[:, (PANEL, X, Y, SIZE, COLOUR, SHAPE)].tolist():
            self.boxes[row[0]].append(Item(*row[1:]))
        self.items = [item for box in self.boxes for item in box]


Box = list[Item]


@dataclass(frozen=True)
class Statement:
    """A sentence and whether it holds.

    Args:
        family: name of the template that made it.
    """

    text: str
    holds: Callable[[Boxes], bool]
    family: str


@dataclass(frozen=True)
class What:
    """A description of items; None leaves a property open."""

    colour: int | None = None
    shape: int | None = None
    size: int | None = None
    noun: str = "item"
    size_word: str = ""

    def fits(self, item: Item) -> bool:
        """Whether the item is one of those described."""
        return (
            (self.colour is None or item.colour == self.colour)
            and (self.shape is None or item.shape == self.shape)
            and (self.size is None or item.size == self.size)
        )

    def words(self, number: int = 1) -> str:
        """Return the noun phrase without article."""
        noun = (self.noun if self.shape is None else SHAPES[self.shape]) + ("" if number == 1 else "s")
        return " ".join(filter(None, (self.size_word, "" if self.colour is None else COLOURS[self.colour], noun)))

    def article(self) -> str:
        """Return the noun phrase with its article."""
        words = self.words()
        return f"an {words}" if words[0] in "aeiou" else f"a {words}"

    def count(self, items: Sequence[Item]) -> int:
        """Return how many of the items fit."""
        return sum(map(self.fits, items))


@dataclass(frozen=True)
class Amount:
    """A number with its bound: "" (as good as exactly), exactly, at least, at most, only, more than, less than."""

    number: int
    bound: str
    digits: bool

    def words(self) -> str:
        """Return "at least 2", say."""
        number = str(self.number) if self.digits else NUMBERS[self.number]
        return f"{self.bound} {number}".strip()

    def holds(self, found: int) -> bool:
        """Whether so many are meant."""
        if self.bound in ("at least", "atleast"):
            return found >= self.number
        if self.bound == "at most":
            return found <= self.number
        if self.bound == "more than":
            return found > self.number
        if self.bound == "less than":
            return found < self.number
        return found == self.number

    @property
    def verb(self) -> str:
        """Is or are."""
        return "is" if self.number == 1 else "are"


class Writer:
    """Draws the words of a statement, with an eye on a scene so that it speaks of what is there.

    Args:
        plain: no "exactly", "at least" or "each": numbers are exact, and things are said of one box or tower.
    """

    def __init__(self, boxes: Boxes, rng: np.random.Generator, plain: bool = False) -> None:
        self.boxes = boxes
        self.plain = plain
        self.rng = rng
        self.box = boxes.boxes[int(rng.integers(PANELS))] or boxes.items
        self.digits = self.chance(0.5)

    def chance(self, share: float) -> bool:
        """Return true in this share of the draws."""
        return bool(self.rng.random() < share)

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options; one that stands there twice comes twice as often."""
        return options[int(self.rng.integers(len(options)))]

    def colour(self) -> int:
        """A colour, most often one of the box that is looked at."""
        return self.pick(self.box).colour if self.chance(0.85) else int(self.rng.integers(len(COLOURS)))

    def what(self, kinds: str = "cs cs c s cn", noun: str | None = None) -> What:
        """Describe some item: c by colour, s by shape, z by size, n not at all."""
        kind = self.pick(kinds.split())
        item = self.pick(self.box)
        if self.boxes.tower:
            return What(self.colour() if "c" in kind else None, noun=noun or self.block())
        return What(
            self.colour() if "c" in kind else None,
            item.shape if "s" in kind else None,
            item.size if "z" in kind else None,
            noun or self.pick(("item", "item", "item", "object")),
            self.pick(SIZE_WORDS[item.size]) if "z" in kind else "",
        )

    def block(self) -> str:
        """A word for a block of a tower."""
        return self.pick(("block",) * 14 + ("item", "square"))

    def amount(
        self, found: int, bounds: str = ",,,exactly,exactly,at least,at least,only,at most,atleast,more than,less than"
    ) -> Amount:
        """An amount near the one that was found."""
        number = found if self.chance(0.6) else found + self.pick((-1, 1, 1, 2))
        bound = "" if self.plain else self.pick(bounds.split(","))
        number = min(max(number, 1), len(NUMBERS) - 1)
        if bound == "less than" and number == 1:
            bound = "exactly"
        return Amount(number, bound, self.digits if self.chance(0.9) else not self.digits)

    def box_amount(self) -> Amount | None:
        """How many boxes or towers; None for the plain "a"."""
        if self.plain or self.chance(0.4):
            return None
        number = self.pick((1, 1, 1, 2, 2, 3))
        bound = self.pick(("", "", "", "exactly", "exactly", "at least", "at least", "only"))
        return Amount(number, bound, self.digits)

    def there(self, amount: Amount | None, noun: str, plural: str | None = None) -> str:
        """There is a box, there are at least 2 boxes, ..."""
        if amount is None:
            return f"there is a {noun}"
        plural = noun + "s" if plural is None else plural
        return f"there {amount.verb} {amount.words()} {noun if amount.number == 1 else plural}"


Test = Callable[[Box], bool]
Truth = Callable[[Boxes], bool]
Maker = Callable[[Writer], tuple[str, Truth]]
"""A template: it writes a sentence, and how to tell whether the sentence is true."""


def boxes_hold(amount: Amount | None, test: Test) -> Truth:
    """Return whether so many boxes pass the test; at least one where no amount is given."""

    def holds(boxes: Boxes) -> bool:
        found = sum(test(box) for box in boxes.boxes)
        return found >= 1 if amount is None else amount.holds(found)

    return holds


def in_boxes(w: Writer, listing: str, test: Test) -> tuple[str, Truth]:
    """There are 2 boxes with ...; each box has ...; one of the grey square contains ...; there is no box with ..."""
    draw = 1.0 if w.plain else w.rng.random()
    if draw < 0.08:
        each = w.pick(("each", "each", "every"))
        noun = w.pick(("box",) * 8 + ("grey box",))
        return f"{each} {noun} {w.pick(('has', 'has', 'contains'))} {listing}", lambda b: all(map(test, b.boxes))
    if draw < 0.14:
        return f"there is {listing} in {w.pick(('each', 'every'))} box", lambda b: all(map(test, b.boxes))
    if draw < 0.19:
        return f"there is no box with {listing}", lambda b: not any(map(test, b.boxes))
    if draw < 0.35:
        grey = w.pick(("grey square", "grey box", "box"))
        who = w.pick((f"one of the {grey}", f"one of the {grey}", f"at least one {grey}", f"one {grey}"))
        return f"{who} {w.pick(('contains', 'has'))} {listing}", lambda b: any(map(test, b.boxes))
    amount = w.box_amount()
    number = 1 if amount is None else amount.number
    which = w.pick(("with", "with", "with", "with", "that has", "which has", "which contains", "that contains"))
    if number > 1:
        which = which.replace("has", "have").replace("contains", "contain")
    noun = w.pick(("box",) * 9 + ("grey box", "grey square"))
    plural = noun + ("s" if noun.endswith("square") else "es")
    return f"{w.there(amount, noun, plural)} {which} {listing}", boxes_hold(amount, test)


def in_box(w: Writer, words: str, test: Test) -> tuple[str, Truth]:
    """There are 2 boxes with ...; only this form, for what sounds wrong in the others."""
    amount = w.box_amount()
    which = w.pick(("with", "with", "with", "with", "that has", "which has"))
    if amount is not None and amount.number > 1:
        which = which.replace("has", "have")
    return f"{w.there(amount, 'box', 'boxes')} {which} {words}", boxes_hold(amount, test)


def in_tower(w: Writer, words: str, test: Test, verbs: bool = True) -> tuple[str, Truth]:
    """There is a tower with ...; at least one tower has ...; no tower; 2 of the three towers."""
    draw = 1.0 if w.plain else w.rng.random()
    if draw < 0.05:
        return f"there is no tower with {words}", lambda b: not any(map(test, b.boxes))
    if draw < 0.09:
        number = w.pick((1, 2))
        said = str(number) if w.digits else NUMBERS[number]
        return (
            f"{said} of the {w.pick(('three ', '3 ', ''))}towers {'has' if number == 1 else 'have'} {words}",
            lambda b: sum(map(test, b.boxes)) == number,
        )
    if draw < 0.12:
        return f"{w.pick(('each', 'every', 'each'))} tower has {words}", lambda b: all(map(test, b.boxes))
    amount = w.box_amount()
    if draw < 0.2:
        several = amount is not None and amount.number > 1
        start = "a" if amount is None else amount.words()
        return f"{start} {'towers have' if several else 'tower has'} {words}", boxes_hold(amount, test)
    which = w.pick(("with",) * 6 + ("which has", "that has", "that contain")) if verbs else "with"
    plural = amount is not None and amount.number > 1
    which = which.replace("has", "have") if plural else which.replace("that contain", "that contains")
    return f"{w.there(amount, 'tower')} {which} {words}", boxes_hold(amount, test)


def tower_height(w: Writer, bounds: str = ",,exactly,exactly,only,at least,at least,at most") -> Amount:
    """An amount of blocks near those of the tower that is looked at."""
    return w.amount(len(w.box), bounds)


def blocks_of(amount: Amount) -> str:
    """Return "exactly 2 blocks", say."""
    return f"{amount.words()} {'block' if amount.number == 1 else 'blocks'}"
