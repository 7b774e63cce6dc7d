"""A slice of `make fuzz`: damaged feature files give regions or a reason, lose no whole row and run no code."""

import pytest

from tests.fuzz.feature_files import WRITERS
from tests.fuzz.run import fuzz


@pytest.mark.parametrize("file_format", WRITERS)
def test_damaged_files_give_regions_or_a_reason(file_format: str) -> None:
    tally = fuzz(file_format, inputs=60, seed=1)
    assert tally.faults == []
    assert tally.found > 60
    assert tally.rejected > 10
