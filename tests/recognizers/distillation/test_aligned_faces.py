"""Aligned faces out of every source that extract reads."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsae_mlflow.recognizers.distillation.aligned_faces import AlignedFaces


def write_list(aligned: Path, folder: Path) -> str:
    lines = [f"{path},{path.parent.name}" for path in sorted(aligned.glob("*/*"))]
    (folder / "faces.csv").write_text("\n".join(["path,identity", *lines]))
    return str(folder / "faces.csv")


def write_tar(aligned: Path, folder: Path) -> str:
    with tarfile.open(folder / "faces.tar", "w") as tar:
        for path in sorted(aligned.glob("*/*")):
            tar.add(path, str(path.relative_to(aligned)))
    return str(folder / "faces.tar")


@pytest.mark.parametrize(
    "write", [lambda aligned, _: str(aligned), write_list, write_tar], ids=["folder", "csv", "tar"]
)
def test_any_source_gives_the_same_faces(aligned: Path, tmp_path: Path, write) -> None:
    faces = AlignedFaces(write(aligned, tmp_path))
    assert len(np.unique(faces.identities)) == 12 and len(faces.image_ids) == 36
    with Image.open(aligned / "p03" / "1.png") as image:
        expected = np.asarray(image)
    np.testing.assert_array_equal(faces.read(np.array([10, 0]))[0], expected)


def test_other_sizes_are_resized(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("L", (64, 80), 7).save(tmp_path / name / "x.png")
    pixels = AlignedFaces(str(tmp_path)).read(np.array([0, 1]))
    assert pixels.shape == (2, 112, 112, 3) and (pixels == 7).all()


def test_faces_that_cannot_serve_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no folder"):
        AlignedFaces(str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"at least two identities, to hold some out; .* has 0"):
        AlignedFaces(str(tmp_path))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"faces: a/x\.jpg of .* cannot be read \(.*\); remove it"):
        AlignedFaces(str(tmp_path)).read(np.array([0]))
