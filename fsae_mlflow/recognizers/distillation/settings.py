"""Settings of train_recognizer."""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from fsae_mlflow.parameters import EXECUTION, settings, short


@settings
class DistillSettings:
    """A teacher, aligned faces, the student's architecture and how it is trained."""

    teacher: Annotated[str, "Recognizer to learn from: any name that extract takes (onnx:/path/model.onnx, …)."]
    faces: Annotated[
        str,
        "Aligned 112 × 112 faces: any source that extract takes (a folder per identity, a list, a .bin, .tar shards).",
    ]
    teacher_card: Annotated[
        str, "JSON card of the teacher; empty: the file beside its weights, else its family's own."
    ] = ""
    name: Annotated[str, "The student's name on its card."] = "student"
    start: Annotated[str, "Student weights to go on with; they bring their architecture. Empty: a new student."] = ""
    backbone: Annotated[str, "Any convolutional timm model."] = "resnet18"
    backbone_args: Annotated[str, "JSON object of further arguments for timm.create_model."] = (
        '{"channels": [32, 64, 128, 128], "layers": [2, 2, 2, 1], "output_stride": 16}'
    )
    stem_stride: Annotated[int, "Stride of the backbone's first convolution; 0 keeps its own.", Ge(0), Le(4)] = 0
    head: Annotated[
        Literal["depthwise", "mean"], "Pooling with a weight for each place (MobileFaceNet's) or plain mean."
    ] = "depthwise"
    head_width: Annotated[int, "Number of channels that are pooled.", Ge(8), Le(65_536)] = 512
    epochs: Annotated[int, "Passes of the student; one pass is as many views as there are training faces.", Ge(1)] = 30
    minutes: Annotated[
        float, "Wall-clock limit: the learning rate reaches 0 by then at the latest; 0 is none.", Ge(0)
    ] = 0.0
    batch_size: Annotated[int, "Views per step.", Ge(8), Le(65_536)] = 64
    lr: Annotated[float, "AdamW's highest learning rate; warmed up over 200 steps, then linear to 0.", Gt(0)] = 2e-3
    weight_decay: Annotated[float, "AdamW's weight decay, on matrices and kernels only.", Ge(0)] = 0.02
    ema: Annotated[float, "Decay per step of the moving average of weights that is kept.", Ge(0), Lt(1)] = 0.998
    replays: Annotated[int, "How often the student sees a view on average; the teacher sees it once.", Ge(1)] = 2
    pool: Annotated[int, "Number of views kept in memory to be seen again (38 kB each).", Ge(64)] = 8192
    strength: Annotated[float, "Strength of the augmentation: 0 is none, 1 is normal.", Ge(0), Le(3)] = 1.0
    mixup: Annotated[float, "Share of views that blend two faces.", Ge(0), Le(1)] = 0.15
    holdout: Annotated[float, "Share of identities held out, to measure on.", Gt(0), Le(0.5)] = 0.05
    precision: Annotated[Literal["bf16", "fp32"], "Arithmetic of the convolutions while training."] = "bf16"
    device: Annotated[str, "auto, cpu, cuda or cuda:N.", EXECUTION] = "auto"
    threads: Annotated[
        int,
        "CPU threads for the teacher, and as many for the student; 0 leaves torch's choice.",
        Ge(0),
        Le(1024),
        EXECUTION,
    ] = 0
    seed: Annotated[int, "Seed of weights, views and held-out identities.", Ge(0)] = 0
    output: Annotated[
        str,
        "Folder to write to; empty: one of these settings, teacher and faces under outputs/train_recognizer/.",
        EXECUTION,
    ] = ""
    snapshot_minutes: Annotated[float, "Minutes between snapshots of the averaged student.", Gt(0), EXECUTION] = 3.0

    @property
    def title(self) -> str:
        """What sets a run apart, in a few words."""
        return f"{self.name} of {short(self.teacher)}"
