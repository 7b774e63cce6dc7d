"""Sentence templates about towers of blocks."""

from itertools import pairwise

from examples.nlvr.scenes import COLOURS
from examples.nlvr.wording import (
    NUMBERS,
    Amount,
    Box,
    Boxes,
    Test,
    Truth,
    Writer,
    blocks_of,
    boxes_hold,
    in_tower,
    tower_height,
)

ORDINALS = ("first", "second", "third", "fourth")


def _colour_at(place: int, colour: int) -> Test:
    """Whether the block at a place, 0 the lowest and -1 the highest, has a colour."""
    return lambda box: -len(box) <= place < len(box) and box[place].colour == colour


def _end(w: Writer) -> tuple[int, str]:
    """The base or the top: place and word."""
    place = w.pick((0, -1))
    return place, "top" if place else w.pick(("base", "base", "base", "base", "bottom"))


def end_colour(w: Writer) -> tuple[str, Truth]:
    """There are exactly two towers with a black block at the base."""
    place, said = _end(w)
    colour = w.colour()
    name = COLOURS[colour]
    words = w.pick(
        (f"a {name} block at the {said}",) * 8
        + (
            f"{name} block at the {said}",
            f"a {name} {said}",
            f"a {name} block at {said}",
            f"a {name} block at its {said}",
            f"1 {name} block at the {said}",
            f"{name} {said}",
        )
    )
    return in_tower(w, words, _colour_at(place, colour))


def block_as_end(w: Writer) -> tuple[str, Truth]:
    """There is a blue block as the top of a tower with at least two blocks; 2 black blocks as the base of a tower."""
    place, said = _end(w)
    colour = w.colour()
    fits = _colour_at(place, colour)
    name = COLOURS[colour]
    draw = w.rng.random()
    if draw < 0.12:
        amount = w.pick(
            (
                Amount(1, "at least", w.digits),
                Amount(2, "at least", w.digits),
                Amount(2, "", w.digits),
                Amount(1, "only", w.digits),
            )
        )
        tower = "tower" if amount.number == 1 else "towers"
        return f"there is a {name} block as the {said} of {amount.words()} {tower}", boxes_hold(amount, fits)
    if draw < 0.18:
        return f"there is no {name} block as the {said} of a tower", lambda b: not any(map(fits, b.boxes))
    number = None if draw < 0.6 else w.amount(sum(map(fits, w.boxes.boxes)), ",,exactly,exactly,at least,only")
    start = (
        f"a {name} block"
        if number is None
        else f"{number.words()} {name} {'block' if number.number == 1 else 'blocks'}"
    )
    verb = "is" if number is None else number.verb
    text = f"there {verb} {start} as the {said} of a tower"
    if w.chance(0.6 if number is None else 0.25):
        height = tower_height(w)
        return f"{text} with {blocks_of(height)}", boxes_hold(number, lambda box: fits(box) and height.holds(len(box)))
    return text, boxes_hold(number, fits)


def height(w: Writer) -> tuple[str, Truth]:
    """There is at least one tower with exactly three blocks."""
    amount = tower_height(w)
    if w.chance(0.1):
        number = amount.number if amount.number < len(NUMBERS) else 4
        said = f"{number if w.digits else NUMBERS[number]} {w.pick(('block', 'blocks'))} tower"
        return f"there is a {said}", lambda b: any(len(box) == number for box in b.boxes)
    return in_tower(w, blocks_of(amount), lambda box: amount.holds(len(box)))


def height_and(w: Writer) -> tuple[str, Truth]:
    """The tower with three blocks has a blue block at the base; a tower with four blocks having ..."""
    amount = tower_height(w, ",,,exactly,only,more than")
    words, test = w.pick((_ends, _order, _order, _ordinal, _ends, _ends))(w)

    def both(box: Box) -> bool:
        return amount.holds(len(box)) and test(box)

    size = f"with {blocks_of(amount)}"
    draw = w.rng.random()
    if draw < 0.12:
        place, said = _end(w)
        colour, number = w.colour(), min(len(w.box), 4)
        size = f"{number if w.digits else NUMBERS[number]} {w.pick(('block', 'blocks'))}"
        fits = _colour_at(place, colour)
        return f"the {said} of a {size} tower is {COLOURS[colour]}", lambda b: any(
            len(box) == number and fits(box) for box in b.boxes
        )
    if draw < 0.55:
        return f"the tower {size} has {words}", boxes_hold(None, both)
    link = w.pick(("having", "with", "and", "that has", "and it has"))
    return f"{w.there(None, 'tower')} {size} {link} {words}", boxes_hold(None, both)


def _ends(w: Writer) -> tuple[str, Test]:
    place, said = _end(w)
    colour = w.colour()
    words, test = f"a {COLOURS[colour]} block at the {said}", _colour_at(place, colour)
    if w.chance(0.25):
        other = w.colour()
        rest = "base" if place else "top"
        also = _colour_at(0 if place else -1, other)
        if other == colour and w.chance(0.5):
            words = f"a {COLOURS[colour]} block at the {said} and {rest}"
        else:
            words = f"{words} and a {COLOURS[other]} block at the {rest}"
        return words, lambda box: test(box) and also(box)
    return words, test


def ends(w: Writer) -> tuple[str, Truth]:
    """There is a tower with a black block at the top and a blue block at the base."""
    return in_tower(w, *_ends(w))


def _order(w: Writer) -> tuple[str, Test]:
    lower, upper = w.colour(), w.colour()
    relation = w.pick(("above", "over", "on", "on top of", "over"))
    article = w.pick(("a", "a", "a", "the"))
    return f"a {COLOURS[upper]} block {relation} {article} {COLOURS[lower]} block", _stacked(upper, lower)


def _stacked(upper: int, lower: int) -> Test:
    """Whether a block of one colour stands right on one of another."""
    return lambda box: any(a.colour == lower and b.colour == upper for a, b in pairwise(box))


def order(w: Writer) -> tuple[str, Truth]:
    """There is a black block on a yellow block; there is a tower with a yellow block over a blue block."""
    upper, lower = w.colour(), w.colour()
    if w.chance(0.45):
        return in_tower(w, *_order(w))
    down = w.chance(0.2)
    relation = (
        w.pick(("below", "bellow", "underneath", "under", "beneath"))
        if down
        else w.pick(("above", "above", "on", "on", "over"))
    )
    first, second = (lower, upper) if down else (upper, lower)
    test = _stacked(upper, lower)
    article = w.pick(("a", "a", "a", "a", "the"))
    end = f"{relation} {article} {COLOURS[second]} block"
    draw = 1.0 if w.plain else w.rng.random()
    if draw < 0.12:
        return f"there is no {COLOURS[first]} block {end}", lambda b: not any(map(test, b.boxes))
    if draw < 0.4:

        def count(b: Boxes) -> int:
            return sum(x.colour == lower and y.colour == upper for box in b.boxes for x, y in pairwise(box))

        amount = w.amount(count(w.boxes), ",at least,at least,exactly")
        noun = "block" if amount.number == 1 else "blocks"
        return f"there {amount.verb} {amount.words()} {COLOURS[first]} {noun} {end}", lambda b: amount.holds(count(b))
    return f"there is a {COLOURS[first]} block {end}", lambda b: any(map(test, b.boxes))


def _ordinal(w: Writer) -> tuple[str, Test]:
    colour = w.colour()
    if w.chance(0.35):
        return (
            w.pick((f"a {COLOURS[colour]} block in the middle", f"a {COLOURS[colour]} block as a middle block")),
            lambda box: any(block.colour == colour for block in box[1:-1]),
        )
    place = w.pick((1, 1, 2))
    end = w.pick(("base", "base", "bottom", "top"))
    return (
        f"a {COLOURS[colour]} block as the {ORDINALS[place]} block from the {end}",
        _colour_at(-place - 1 if end == "top" else place, colour),
    )


def ordinal(w: Writer) -> tuple[str, Truth]:
    """The second block from the base of a tower is black; the first 2 colors of a tower from the base are ..."""
    draw = w.rng.random()
    if draw < 0.3:
        return in_tower(w, *_ordinal(w))
    end, sign = w.pick((("base", 1), ("base", 1), ("bottom", 1), ("top", -1)))
    if draw < 0.7:
        place, colour = w.pick((0, 1, 1, 2)), w.colour()
        test = _colour_at(place if sign > 0 else -1 - place, colour)
        of = w.pick(("a tower", "a tower", "at least one tower", "one tower"))
        text = (
            f"the {ORDINALS[place]} {w.pick(('block', 'block', 'color'))} from the {end} of {of} is {COLOURS[colour]}"
        )
        return text, lambda b: any(map(test, b.boxes))
    number = w.pick((2, 2, 3))
    said = number if w.digits else NUMBERS[number]
    box = w.box[::sign][:number]
    colours = (
        [block.colour for block in box] if len(box) == number and w.chance(0.7) else [w.colour() for _ in range(number)]
    )
    if w.chance(0.4):
        colours = colours[:1] * number
        text = f"the first {said} blocks from the {end} of a tower are {COLOURS[colours[0]]}"
    else:
        *others, last = (COLOURS[colour] for colour in colours)
        noun = w.pick(("blocks", "colors"))
        text = f"the first {said} {noun} of a tower from the {end} are {', '.join(others)} and {last}"
    return text, lambda b: any([block.colour for block in box[::sign][:number]] == colours for box in b.boxes)


def tower_counts(w: Writer) -> tuple[str, Truth]:
    """There is 1 tower with at least 2 black blocks (stacked together); with 2 yellow blocks and 1 blue block."""
    what = w.what("c", noun="block")
    amount = w.amount(what.count(w.box), ",,,exactly,at least,at least,only")
    words = f"{amount.words()} {what.words(amount.number)}"
    draw = 1.0 if w.plain else w.rng.random()
    if draw < 0.2 and amount.number > 1:
        amount = Amount(amount.number, w.pick(("", "", "at least")), amount.digits)
        words = f"{amount.words()} {what.words(2)} {w.pick(('stacked together', 'attached with each other'))}"

        def test(box: Box) -> bool:
            runs = "".join("x" if what.fits(block) else " " for block in box).split()
            return any(amount.holds(len(run)) for run in runs)

        return in_tower(w, words, test)
    if draw < 0.35:
        other = w.what("c", noun="block")
        more = w.amount(other.count(w.box), ",,exactly,at least")
        words = f"{words} and {more.words()} {other.words(more.number)}"
        return in_tower(w, words, lambda box: amount.holds(what.count(box)) and more.holds(other.count(box)))
    if draw < 0.45:
        return in_tower(w, what.article(), lambda box: what.count(box) >= 1)
    return in_tower(w, words, lambda box: amount.holds(what.count(box)))


def same_ends(w: Writer) -> tuple[str, Truth]:
    """There are two towers with the same base color; with a top of the same colour as the base."""
    if w.chance(0.4):
        return in_tower(
            w, "the same color at the top and the base", lambda box: len(box) > 1 and box[0].colour == box[-1].colour
        )
    place, said = w.pick(((0, "base"), (-1, "top")))
    number, word = w.pick(((2, "2"), (2, "two"), (3, "3"), (3, "three"), (2, "at least two")))

    def holds(b: Boxes) -> bool:
        ends = [box[place].colour for box in b.boxes]
        return max(map(ends.count, ends)) >= number

    return f"there are {word} towers with the same {said} {w.pick(('color', 'colour'))}", holds


def between(w: Writer) -> tuple[str, Truth]:
    """There is a yellow block between two blue blocks."""
    inner, below, above = w.colour(), w.colour(), w.colour()
    if w.chance(0.6):
        above = below
        rest = w.pick((f"2 {COLOURS[below]} blocks", f"two {COLOURS[below]} blocks"))
    else:
        rest = f"a {COLOURS[below]} block and a {COLOURS[above]} block"

    def test(box: Box) -> bool:
        triples = zip(box, box[1:], box[2:], strict=False)
        return any(b.colour == inner and {a.colour, c.colour} == {below, above} for a, b, c in triples)

    text = f"a {COLOURS[inner]} block between {rest}"
    return (f"there is {text}", lambda b: any(map(test, b.boxes))) if w.chance(0.5) else in_tower(w, text, test)
