"""A slice of `make fuzz`: damaged files give regions, rows or a reason, lose no whole row and run no code."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.annotations import Readers
from tests.fuzz.feature_files import WRITERS
from tests.fuzz.run import fuzz
from tests.fuzz.tally import Tally


@pytest.mark.parametrize("file_format", WRITERS)
def test_damaged_files_give_regions_or_a_reason(file_format: str) -> None:
    tally = fuzz(file_format, inputs=60, seed=1)
    assert tally.faults == []
    assert tally.found > 60
    assert tally.rejected > 10


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Readers:
    return Readers(tmp_path_factory.mktemp("annotations"))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_annotations_tables_and_lists_give_rows_or_a_reason(readers: Readers, data: st.DataObject) -> None:
    name, seed = data.draw(st.sampled_from(readers.names)), data.draw(st.integers(0, 2**32))
    tally = Tally()
    readers.check(name, random.Random(seed), tally)
    assert tally.faults == []
