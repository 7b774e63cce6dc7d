"""How the official evaluation of VQA makes answers comparable, and what one answer is worth.

Rules and their order are those of GT-Vision-Lab/VQA, `vqaEval.py` of 2021, slips included: scores must be the same.
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
PERIODS = 32  # the official script hands a flag over as the number of replacements
# The script also lists I'm, I've and I'd've, but looks them up in lower case, where they are never found.
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
    {  # each apostrophe may be missing, one at a time
        word[:place] + word[place + 1 :]: word
        for word in CONTRACTED.split()
        for place, letter in enumerate(word)
        if letter == "'"
    }
    | {"somebody'd": "somebodyd"}
)


@lru_cache(maxsize=100_000)
def normalise_answer(answer: str) -> str:
    """Return the answer without punctuation and articles, in lower case, numbers to ten as digits, apostrophes put in.

    A mark of punctuation next to a space goes, between letters it becomes a space; in an answer with a comma between
    digits all of them go. A period goes unless a digit follows.
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
    """Return what an answer is worth: the mean, over leaving out each person, of min(1, others who said it / 3).

    With fewer than four people three others are not there, and the formula of the official script cannot give 1. Then
    all others must agree, and the only answer there is must be met.

    Args:
        given: the people's answers, ten in VQA.
        always_normalise: also where all people wrote the same, which the official script compares as it is written.
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
