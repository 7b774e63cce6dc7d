# Copyright 2026 The mmpt authors. Licensed under the Apache License, Version 2.0.
"""Allowed ranges of numbers, and the error for a number out of range."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmpt.configuration.errors import MmptValueError


@dataclass(frozen=True)
class Bounds:
    """The allowed range of a value; NaN and infinity are never allowed.

    Args:
        low: lower bound, itself excluded if `open_low`.
        high: upper bound, itself excluded if `open_high`; None means unbounded.
    """

    low: float
    high: float | None = None
    open_low: bool = False
    open_high: bool = False

    def hold(self, value: float) -> bool:
        """Return whether a number is within the bounds."""
        if isinstance(value, float) and not math.isfinite(value):
            return False
        if value < self.low or (self.open_low and value == self.low):
            return False
        return self.high is None or value < self.high or (value == self.high and not self.open_high)

    def __str__(self) -> str:
        low = f"above {self.low}" if self.open_low else f"{self.low} or more"
        if self.high is None:
            return low
        if not self.open_low and not self.open_high:
            return f"{self.low} to {self.high}"
        return f"{low} and {'less than' if self.open_high else 'at most'} {self.high}"


NOT_NEGATIVE = Bounds(0)
POSITIVE = Bounds(0, open_low=True)
AT_LEAST_ONE = Bounds(1)
SHARE = Bounds(0, 1)


def check_bounds(values: Mapping[str, Any], bounds: Mapping[str, Bounds], where: str = "") -> None:
    """Raise if a number is out of its bounds.

    Args:
        values: name -> value; values that are not numbers are left to the type checks.
        bounds: name -> bounds.
        where: prefix of the name in the error.

    Raises:
        MmptValueError: if a number is out of its bounds; the message has the value and the bounds.
    """
    for name, bound in bounds.items():
        value = values.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and not bound.hold(value):
            raise MmptValueError(f"{where}{name} is {value}, expected {bound}")
