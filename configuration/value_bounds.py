# Copyright 2026 The mmpt authors. Licensed under the Apache License, Version 2.0.
"""The bounds that numbers must keep, and one sentence for those that do not."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmpt.configuration.errors import MmptValueError


@dataclass(frozen=True)
class Bounds:
    """The numbers that a value may have; NaN and infinity are never among them.

    Args:
        low: the lowest, or what the value must be above if `open_low`.
        high: the highest, or what the value must be below if `open_high`; None is no bound.
    """

    low: float
    high: float | None = None
    open_low: bool = False
    open_high: bool = False

    def hold(self, value: float) -> bool:
        """Return whether a number keeps the bounds."""
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
    """Refuse a number that does not keep its bounds.

    Args:
        values: by name; what is no number is left to the checks of types.
        bounds: by name.
        where: put before the name in the error.

    Raises:
        MmptValueError: naming the value and what is expected.
    """
    for name, bound in bounds.items():
        value = values.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and not bound.hold(value):
            raise MmptValueError(f"{where}{name} is {value}, expected {bound}")
