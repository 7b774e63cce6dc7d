"""Normalisation and scores of answers as in the official evaluation of VQA.

The rules and their order are those of GT-Vision-Lab/VQA, `vqaEval.py` of 2021, bugs included, to give equal scores.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from mmpt.processing.annotations.plain_words import on_one_line

AGREEING = 3  # people who must agree for the full score
ARTICLES = {"a", "an", "the"}
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {word: str(number) for number, word in enumerate(NUMBER_WORDS)} | {"none": "0"}
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
COMMA_IN_NUMBER = re.compile(r"[0-9],[0-9]")
PERIOD = re.compile(r"\.(?![0-9])")
PERIODS = 32  # the official script passes a flag as the maximum number of replacements
# The script also lists I'm, I've and I'd've, but looks words up in lower case and so never finds them.
CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't
    not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll
    somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd
    there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll
    what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
    would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
CONTRACTIONS = (
    {  # one apostrophe may be missing
        word[:index] + word[index + 1 :]: word
        for word in CONTRACTED.split()
        for index, character in enumerate(word)
        if character == "'"
    }
    | {"somebody'd": "somebodyd"}
)


@lru_cache(maxsize=100_000)
def normalise_answer(answer: str) -> str:
    """Normalise an answer: lower case, no punctuation or articles, numbers to ten as digits, apostrophes restored.

    A punctuation mark next to a space is removed; otherwise it becomes a space. In an answer with a comma between
    digits, all punctuation marks are removed. A period is removed unless a digit follows.
    """
    text = on_one_line(answer)
    joined = COMMA_IN_NUMBER.search(text) is not None
    without = text
    for mark in PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        without = without.replace(mark, "" if joined or beside_space else " ")
    words = PERIOD.sub("", without, count=PERIODS).lower().split()
    digits = (NUMBERS.get(word, word) for word in words)
    return " ".join(CONTRACTIONS.get(word, word) for word in digits if word not in ARTICLES)


def score_answer(answer: str, given: Sequence[str], always_normalise: bool = False) -> float:
    """Return the score of an answer, the mean of min(1, agreeing / 3) over leaving out each annotator in turn.

    `agreeing` is the number of other annotators who gave the answer. With fewer than four annotators, this formula of
    the official script cannot reach 1. Then all other annotators must agree, and a single annotator decides alone.

    Args:
        given: the annotators' answers, ten in VQA.
        always_normalise: normalise even if all annotators gave the same answer, which the official script does not.
    """
    if always_normalise or len({on_one_line(one) for one in given}) > 1:
        answer, given = normalise_answer(answer), [normalise_answer(one) for one in given]
    else:
        answer, given = on_one_line(answer), [on_one_line(one) for one in given]
    people, said = len(given), given.count(answer)
    if people == 1:
        return float(said)
    needed = min(AGREEING, people - 1)
    left_in, left_out = min(said, needed), min(max(said - 1, 0), needed)
    return ((people - said) * left_in + said * left_out) / (people * needed)
