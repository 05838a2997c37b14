"""Pictures are decoded in order, and every one that is not has its reason."""

from pathlib import Path

import numpy as np
import pytest

from fsae_mlflow.faces.decoding import Transfer, decoded, read
from fsae_mlflow.faces.pictures import Picture
from fsae_mlflow.faces.sources.registry import open_source
from fsae_mlflow.faces.storage import Location


def test_pictures_are_decoded_in_order_by_any_number_of_workers(folder: Path) -> None:
    (folder / "ann" / "1.png").write_bytes(b"broken")
    (folder / "zoe.png").symlink_to(folder / "nowhere")
    pictures = list(open_source(str(folder))) * 5
    here = list(decoded(pictures, workers=0))
    there = list(decoded(pictures, workers=2))
    assert [item.picture for item in here] == [item.picture for item in there] == pictures
    assert [item.reason for item in here] == [item.reason for item in there]
    assert {item.reason for item in here if item.pixels is None} == {
        "The file is not a picture in a format or pixel layout that fsae_mlflow reads.",
        "The file does not exist.",
    }
    for mine, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(mine.pixels, other.pixels)


def test_pixels_come_in_a_file_or_if_the_folder_is_full_with_the_picture(folder: Path, tmp_path: Path) -> None:
    (folder / "ann" / "1.png").write_bytes(b"broken")
    pictures = [read(picture) for picture in open_source(str(folder))]
    memory = tmp_path / "memory"
    memory.mkdir()
    for place, in_file in ((memory, True), (tmp_path / "full", False)):
        for here in pictures:
            transfer = Transfer.pack(here, place)
            assert (transfer.path is not None) == (in_file and here.pixels is not None)
            there = transfer.unpack()
            assert (there.picture, there.reason) == (here.picture, here.reason)
            np.testing.assert_array_equal(there.pixels, here.pixels)
    assert not list(memory.iterdir())


def test_failing_storage_stops_the_run_instead_of_losing_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Location, offset: int = 0, length: int = -1) -> bytes:
        raise OSError("connection reset")

    monkeypatch.setattr(Location, "read", fail)
    with pytest.raises(OSError, match="run the same command again"):
        read(Picture("a", "a", Location("a", root="memory://a")))
    assert "connection reset" in read(Picture("a", "a", Location("a"))).reason
