"""The gallery shows the images that the regions were extracted from, and right rows next to wrong ones."""

from pathlib import Path
from typing import Any

from PIL import Image

from mmpt.tasks.gallery import write_gallery
from mmpt.training.data_sources import Pictures, TaskTable, join
from tests.factories.tasks import images, table


def test_photos_and_right_rows_are_shown(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(5):  # the last one is missing
        Image.new("RGB", (20, 10), "red").save(photos / f"image-{number}.PNG")
    picture = Pictures(str(photos))
    assert picture("image-0").size == picture("image-0.png").size == (20, 10)  # type: ignore[union-attr]
    assert picture("image-5") is None
    dataset = join(table("statements"), images(), "statements")
    predictions: list[Any] = [{"prediction": "true", "number": 1, "confidence": 0.5 + row / 10} for row in range(6)]
    page = tmp_path / "gallery.html"
    wrong = write_gallery(
        page, "statements", TaskTable(dataset, None, picture), predictions, {"false": 0, "true": 1}, 2
    )
    text = page.read_text(encoding="utf-8")
    assert wrong == 3
    assert (text.count("<article>"), text.count('<article class="right">')) == (2, 2)
    assert text.index("<h2>Wrong") < text.index("<article>") < text.index("<h2>Right") < text.index('class="right"')
