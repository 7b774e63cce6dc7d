"""Sentence templates in the wording of NLVR's writers, each with the truth of what it says."""

from collections.abc import Callable

from examples.nlvr.scenes import COLOURS
from examples.nlvr.wording import (
    MANY,
    NUMBERS,
    Amount,
    Box,
    Boxes,
    Item,
    Test,
    Truth,
    Writer,
    boxes_hold,
    in_box,
    in_boxes,
)

PLACES = {
    "bottom": (
        "b",
        (
            "closely touching the bottom of a box",
            "closely touching the bottom of a box",
            "touching the base",
            "touching the bottom base",
            "touching the bottom",
        ),
    ),
    "right": ("r", ("closely touching right wall of a box", "closely touching the right wall of a box")),
    "roof": ("t", ("closely touching the roof of a box", "touching the roof", "touching the top")),
    "edge": (
        "lrtb",
        (
            "touching the edge",
            "touching the edge",
            "touching the edge",
            "touching an edge",
            "touching the wall",
            "touching the side",
            "touching any edge",
            "closely touching a wall of a box",
        ),
    ),
    "corner": (
        "",
        (
            "touching the corner",
            "closely touching a corner",
            "closely touching a corner of a box",
            "touching a corner",
            "closely touching a box corner",
        ),
    ),
}
NOT_AT_EDGE = ("not touching any edge", "not touching the edge", "not touching any edge", "not touching the wall")
_PLACE_SHARES = ("bottom",) * 7 + ("right",) * 3 + ("edge",) * 7 + ("corner",) * 3 + ("roof",)


def at_place(place: str) -> Callable[[Item], bool]:
    """Whether an item touches the walls that the place names."""
    if place == "corner":
        return lambda item: item.in_corner()
    return lambda item: item.touches(PLACES[place][0])


# Of the whole image


def existence(w: Writer) -> tuple[str, Truth]:
    """There is a blue circle."""
    what = w.what("cs")
    return f"there is {what.article()}", lambda b: what.count(b.items) >= 1


def total(w: Writer) -> tuple[str, Truth]:
    """There are exactly 3 yellow blocks."""
    what = w.what("c c cs cs cs s cz csz" if not w.boxes.tower else "c")
    amount = w.amount(what.count(w.boxes.items), ",,,,exactly,exactly,at least,only,at most")
    text = f"there {amount.verb} {amount.words()} {what.words(amount.number)}"
    if w.chance(0.15):
        other = w.what("cs cs c")
        more = w.amount(other.count(w.boxes.items), ",,at least,exactly")
        text = f"{text} and {more.words()} {other.words(more.number)}"
        return text, lambda b: amount.holds(what.count(b.items)) and more.holds(other.count(b.items))
    return text, lambda b: amount.holds(what.count(b.items))


# Of some boxes


def _listed(w: Writer) -> tuple[str, Test]:
    """One entry of what a box has: a blue circle, at least 2 black items, 3 items."""
    draw = w.rng.random()
    if draw < 0.08 and not w.plain:
        return _two_colours(w)
    if draw < 0.4:
        what = w.what("cs cs cs c s csz")
        return what.article(), lambda box: what.count(box) >= 1
    what = w.what("cs c c s n n" if draw < 0.9 else "cz csz sz z")
    amount = w.amount(
        what.count(w.box), ",,,,exactly,exactly,at least,at least,only,at most,atleast,more than,less than"
    )
    return f"{amount.words()} {what.words(amount.number)}", lambda box: amount.holds(what.count(box))


def _two_colours(w: Writer) -> tuple[str, Test]:
    """2 black and 1 blue items."""
    one, other = (int(c) for c in w.rng.permutation(3)[:2])
    counts = [sum(item.colour == colour for item in w.box) for colour in (one, other)]
    first, second = (w.amount(count, ",,,exactly,at least") for count in counts)
    noun = w.block() if w.boxes.tower else w.pick(("item", "item", "object"))
    noun = noun if second.number == 1 else noun + "s"
    return (
        f"{first.words()} {COLOURS[one]} and {second.words()} {COLOURS[other]} {noun}",
        lambda box: (
            first.holds(sum(i.colour == one for i in box)) and second.holds(sum(i.colour == other for i in box))
        ),
    )


def box_with(w: Writer) -> tuple[str, Truth]:
    """There are 2 boxes with a blue circle and at least 2 yellow items."""
    count = 1 if w.plain else w.pick((1, 1, 1, 1, 2, 2, 2, 3))
    alone = count == 1 and w.chance(0.3)
    parts = [_only_number(w)] if alone else [_listed(w) for _ in range(count)]
    words = [text for text, _ in parts]
    listing = words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
    return in_boxes(w, listing, lambda box: all(test(box) for _, test in parts))


def _only_number(w: Writer) -> tuple[str, Test]:
    """Only 3 items; exactly 2 objects, of a colour or not."""
    what = w.what("n n n c cs s")
    amount = w.amount(what.count(w.box), "only,only,exactly,,")
    return f"{amount.words()} {what.words(amount.number)}", lambda box: amount.holds(what.count(box))


def box_of_which(w: Writer) -> tuple[str, Truth]:
    """There is a box with 4 items of which 2 are black; ... with multiple items and the 2 are black."""
    what = w.what("c c c cs")
    whole = w.amount(len(w.box), ",,,exactly,at least")
    part = w.amount(what.count(w.box), ",,,exactly,at least,only")
    noun = w.pick(("items", "objects"))
    told = what.words(part.number) if what.shape is not None else COLOURS[what.colour or 0]
    link = w.pick(
        (
            f"of which {part.words()} {part.verb} {told}",
            f"and {part.words()} {part.verb} {told}",
            f"including {part.words()} {told if what.shape is not None else told + ' item'}",
        )
    )
    if w.chance(0.2):
        return in_box(w, f"multiple {noun} {link}", lambda box: len(box) > 1 and part.holds(what.count(box)))
    noun = noun if whole.number > 1 else noun[:-1]
    return in_boxes(
        w, f"{whole.words()} {noun} {link}", lambda box: whole.holds(len(box)) and part.holds(what.count(box))
    )


def box_many(w: Writer) -> tuple[str, Truth]:
    """There are 2 boxes with many items; ... with multiple yellow items."""
    what = w.what("n n c")
    many, least = w.pick((("many", MANY), ("many", MANY), ("multiple", 2), ("a lot of", MANY)))
    number = w.pick((1, 1, 2, 3))
    start = w.there(Amount(number, "", w.digits) if w.chance(0.8) else None, "box", "boxes")
    if not start.startswith("there is a "):
        return f"{start} with {many} {what.words(2)}", lambda b: sum(what.count(x) >= least for x in b.boxes) >= number
    return f"{start} with {many} {what.words(2)}", lambda b: any(what.count(x) >= least for x in b.boxes)


def no_or_without(w: Writer) -> tuple[str, Truth]:
    """There is a box without a blue item; ... with no black circle."""
    what = w.what("c c cs s")
    words = w.pick(
        (
            f"without {what.article()}",
            f"without any {what.words()}",
            f"with no {what.words()}",
            f"with no {what.words(2)}",
        )
    )
    amount = w.box_amount()
    return f"{w.there(amount, 'box', 'boxes')} {words}", boxes_hold(amount, lambda box: what.count(box) == 0)


def box_same_number(w: Writer) -> tuple[str, Truth]:
    """There are 2 boxes with the same number of items."""
    what = w.what("n n c c")
    number, said = w.pick(((2, "2"), (2, "two"), (3, "3"), (3, "three"), (2, "at least two")))
    noun = w.pick(("boxes", "towers")) if w.boxes.tower else "boxes"
    same = (
        "the same height"
        if noun == "towers" and what.colour is None and w.chance(0.4)
        else f"the same number of {what.words(2)}"
    )

    def holds(b: Boxes) -> bool:
        counts = [what.count(box) for box in b.boxes]
        return max(map(counts.count, counts)) >= number

    return f"there are {said} {noun} with {same}", holds


# Of touching


def touching(w: Writer) -> tuple[str, Truth]:
    """There is no yellow circle closely touching the bottom of a box; exactly two squares not touching any edge."""
    what = w.what("cs cs cs c s csz cz n")
    if w.chance(0.28):
        places, test = NOT_AT_EDGE, lambda item: not item.touches("lrtb")
    else:
        place = w.pick(_PLACE_SHARES)
        places, test = PLACES[place][1], at_place(place)
    said = w.pick(places)
    draw = 0.0 if w.plain else w.rng.random()

    def count(b: Boxes) -> int:
        return sum(what.fits(item) and test(item) for item in b.items)

    if draw < 0.3:
        return f"there is {what.article()} {said}", lambda b: count(b) >= 1
    if draw < 0.42:
        return f"there is no {what.words()} {said}", lambda b: count(b) == 0
    if draw < 0.5 and "not" not in said:
        return f"none of the {what.words(2)} are {said}", lambda b: count(b) == 0
    if draw < 0.55:
        article = w.pick(("the ", ""))
        return f"{article}{what.words()} is {said}", lambda b: count(b) >= 1
    if draw < 0.59:
        return f"all the {what.words(2)} are {said}", lambda b: count(b) == what.count(b.items) > 0
    amount = w.amount(
        sum(what.fits(i) and test(i) for i in w.boxes.items), ",,exactly,exactly,exactly,at least,at least,only"
    )
    return f"there {amount.verb} {amount.words()} {what.words(amount.number)} {said}", lambda b: amount.holds(count(b))


def box_touching(w: Writer) -> tuple[str, Truth]:
    """There is a box with a black item touching the wall (and a blue circle)."""
    place = w.pick(_PLACE_SHARES)
    what, test = w.what("cs c s csz"), at_place(place)
    said = (
        w.pick(PLACES[place][1])
        .removesuffix(" of a box")
        .replace("closely touching right wall", "touching the right wall")
    )
    words = f"{what.article()} {said}"

    def touches(box: Box) -> bool:
        return any(what.fits(item) and test(item) for item in box)

    if w.chance(0.6):
        return in_box(w, words, touches)
    other, has = _listed(w)
    words = w.pick((f"{words} and {other}", f"{other} and {words}"))
    return in_box(w, words, lambda box: touches(box) and has(box))


def touch(one: Item, other: Item) -> bool:
    """Whether two items are at most two pixels apart."""
    across = max(one.x - other.x - other.size, other.x - one.x - one.size)
    down = max(one.y - other.y - other.size, other.y - one.y - one.size)
    return max(across, down) <= 2


def box_each_other(w: Writer) -> tuple[str, Truth]:
    """There is a box with 2 blue items touching each other; ... with a blue circle touching a black item."""
    one, other = w.what("cs c s"), w.what("cs c s")
    if w.chance(0.4):
        words, other = f"2 {one.words(2)} touching each other", one
    else:
        words = f"{one.article()} touching {other.article()}"

    def test(box: Box) -> bool:
        return any(one.fits(a) and other.fits(b) and touch(a, b) for a in box for b in box if a is not b)

    return in_box(w, words, test)


def box_above(w: Writer) -> tuple[str, Truth]:
    """There is a box with a yellow circle above a blue square; ... with a black item on top."""
    what, other = w.what("cs c s"), w.what("cs c s")
    if w.chance(0.4):
        words = f"{what.article()} on top"
        if w.chance(0.3):
            many = w.amount(len(w.box), ",,at least")
            words = f"{many.words()} {'items' if many.number > 1 else 'item'} and {words}"
            return in_box(w, words, lambda box: bool(box) and what.fits(_highest(box)) and many.holds(len(box)))
        return in_box(w, words, lambda box: bool(box) and what.fits(_highest(box)))
    side = w.pick(("above", "above", "below", "over", "under"))
    sign = 1 if side in ("above", "over") else -1

    def test(box: Box) -> bool:
        pairs = [(a, b) for a in box if what.fits(a) for b in box if other.fits(b) and b is not a]
        return any(a.y + a.size <= b.y if sign > 0 else b.y + b.size <= a.y for a, b in pairs)

    return in_box(w, f"{what.article()} {side} {other.article()}", test)


def _highest(box: Box) -> Item:
    return min(box, key=lambda item: item.y)


def box_shapes(w: Writer) -> tuple[str, Truth]:
    """There is a box with only squares; ... with all shapes; ... with 3 items of the same shape."""
    kind = w.pick(("only", "only", "all", "same", "number"))
    count = w.amount(len(w.box), ",,at least,exactly")
    items = f"{count.words()} {'items' if count.number > 1 else 'item'}"
    if kind == "only":
        what = w.what("s s cs")
        return in_box(w, f"only {what.words(2)}", lambda box: bool(box) and what.count(box) == len(box))
    if kind == "all":
        return in_box(
            w,
            w.pick(("all shapes", "all three shapes", "items of all shapes")),
            lambda box: len({i.shape for i in box}) == 3,
        )
    if kind == "same":
        return in_box(
            w, f"{items} of the same shape", lambda box: count.holds(len(box)) and len({i.shape for i in box}) == 1
        )
    number = w.pick((2, 3))
    words = f"{items} of {number if w.digits else NUMBERS[number]} different shapes"
    return in_box(w, words, lambda box: count.holds(len(box)) and len({i.shape for i in box}) == number)
