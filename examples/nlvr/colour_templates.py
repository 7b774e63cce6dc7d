"""Sentence templates about the colours that a box or a tower has: only these, so many, all the same."""

from examples.nlvr.scenes import COLOURS
from examples.nlvr.wording import (
    NUMBERS,
    Box,
    Test,
    Truth,
    Writer,
    blocks_of,
    boxes_hold,
    in_box,
    in_tower,
    tower_height,
)


def box_only_colours(w: Writer) -> tuple[str, Truth]:
    """There is a box with only blue and black items; ... with 3 items of only yellow color."""
    noun, (said, has_only) = _noun(w), _only(w)
    draw = 0.0 if w.plain else w.rng.random()
    if draw < 0.45:
        return in_box(w, f"only {said} {noun}", has_only)
    if draw < 0.65:
        return in_box(w, f"{noun} of only {said} color", has_only)
    count = w.amount(len(w.box), ",,exactly,at most,at least")
    words = f"{count.words()} {noun} of {w.pick(('', 'only '))}{said} {w.pick(('color', 'color', 'colors'))}"
    return in_box(w, words, lambda box: has_only(box) and count.holds(len(box)))


def box_number_of_colours(w: Writer) -> tuple[str, Truth]:
    """There is a box with 4 items of 3 different colors; ... with items of the same color; ... of all colors."""
    noun = _noun(w)
    if w.chance(0.15):
        who = w.pick(("items", "at least one item"))
        every = w.pick(
            ("all 3 different colors", "all three different colors", "every color", "each color", "all colors")
        )
        return in_box(w, f"{who} of {every}", lambda box: _colours(box) == {0, 1, 2})
    if w.chance(0.1):
        return in_box(w, f"all {noun} of the same color", lambda box: len(_colours(box)) == 1)
    count = w.amount(len(w.box), ",,,at least,exactly") if w.chance(0.75) else None
    start = noun if count is None else f"{count.words()} {noun if count.number > 1 else noun[:-1]}"
    low, high, words = _number_of_colours(w)

    def test(box: Box) -> bool:
        return low <= len(_colours(box)) <= high and (count is None or count.holds(len(box)))

    return in_box(w, f"{start} of {words}", test)


def _number_of_colours(w: Writer) -> tuple[int, int, str]:
    """Return the least and the greatest number that are meant, and the words for it."""
    draw = 0.0 if w.plain else w.rng.random()
    if draw < 0.25:
        return 1, 1, f"the same {w.pick(('color', 'colour'))}"
    if draw < 0.45:
        return 2, 3, f"different {w.pick(('color', 'colors'))}"
    number = max(1, len(_colours(w.box)) + w.pick((0, 0, -1)))
    every = w.pick(("", "", "", "all ")) if number == 3 else ""
    said = str(number) if w.digits else NUMBERS[number]
    return number, number, f"{every}{said} different {w.pick(('colors', 'colors', 'colours'))}"


def tower_only_colours(w: Writer) -> tuple[str, Truth]:
    """There is a tower with only blue and yellow blocks."""
    said, has_only = _only(w)
    words = w.pick((f"only {said} blocks", f"only {said} blocks", f"{said} blocks only", f"only {said} color blocks"))
    return in_tower(w, words, has_only)


def tower_number_of_colours(w: Writer) -> tuple[str, Truth]:
    """There is a tower which has only one color; ... with three blocks of the same color."""
    height = w.amount(len(w.box), ",,exactly,at least") if w.chance(0.35) else None
    blocks = "blocks" if height is None else blocks_of(height)
    if w.chance(0.5):
        number, words = (
            1,
            f"{blocks} of {w.pick(('the same', 'the same', 'one', 'only one'))} {w.pick(('color', 'colour'))}",
        )
        words = "only one color" if height is None and w.chance(0.4) else words
    else:
        number = max(2, len(_colours(w.box)) + w.pick((0, 0, -1)))
        said = f"{number if w.digits else NUMBERS[number]} different colors"
        words = f"{blocks} of {said}" if w.chance(0.7) or height else said

    def test(box: Box) -> bool:
        return len(_colours(box)) == number and (height is None or height.holds(len(box)))

    return in_tower(w, words, test)


def tower_of_colour(w: Writer) -> tuple[str, Truth]:
    """There is a black tower with only one block; one of the three towers is blue."""
    colour = w.colour()
    name = COLOURS[colour]

    def whole(box: Box) -> bool:
        return _colours(box) == {colour}

    draw = 0.0 if w.plain else w.rng.random()
    if draw < 0.35:
        amount = w.box_amount()
        return w.there(amount, f"{name} tower"), boxes_hold(amount, whole)
    if draw < 0.45:
        text = f"{w.pick(('one', '1'))} of the {w.pick(('three', '3'))} towers is {name}"
        return text, lambda b: sum(map(whole, b.boxes)) == 1
    height = tower_height(w, "only,exactly,,")

    def test(box: Box) -> bool:
        return whole(box) and height.holds(len(box))

    if draw < 0.65:
        return f"there is a {name} tower with {blocks_of(height)}", boxes_hold(None, test)
    which = w.pick(("which", "that")) + (" is " if height.number == 1 else " are ")
    of = w.pick((name, name, f"of {name} color"))
    return in_tower(w, f"{blocks_of(height)} {which}{of}", test, verbs=False)


def _noun(w: Writer) -> str:
    return w.pick(("items", "items", "blocks" if w.boxes.tower else "objects"))


def _only(w: Writer) -> tuple[str, Test]:
    """Return some colours in words, and whether a box has these and no others; of one, whether it has no other."""
    names = sorted(_colours(w.box))
    if len(names) == len(COLOURS) or w.chance(0.3):
        names = w.rng.permutation(len(COLOURS))[: w.pick((1, 2, 2, 2))].tolist()
    w.rng.shuffle(names)
    wanted = set(names)
    return " and ".join(COLOURS[colour] for colour in names), lambda box: _colours(box) == wanted


def _colours(box: Box) -> set[int]:
    return {item.colour for item in box}
