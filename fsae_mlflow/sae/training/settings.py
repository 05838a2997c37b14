"""Settings of train_sae."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt

from fsae_mlflow.errors import UserError
from fsae_mlflow.parameters import EXECUTION, flat, options, settings, unread
from fsae_mlflow.sae.settings import VariantSettings
from fsae_mlflow.sae.variants.registry import VARIANT, VARIANTS
from fsae_mlflow.sae.variants.settings import GatedSettings

SPARSITY = {"k": "k", "target_l0": "L0", "lam": "λ"}
"""The parameters of a variant that decide how sparse its SAE is, with their symbols."""


@settings
class TrainSettings:
    """Training of a sparse autoencoder on a template set.

    `preset=readable`: most features have a confirmed reading. `preset=faithful`: decoded templates are nearest to the
    originals, at 105 active features. `preset=paper`: every setting of the paper.
    """

    PRESETS: ClassVar[dict[str, dict[str, object]]] = {
        "readable": {"variant": "pursuit", "expansion": 1, "target_l0": 60, "normalize": True, "center": True},
        "faithful": {
            "variant": "topk",
            "k": 105,
            "expansion": 1,
            "aux_weight": 1.0,
            "normalize": True,
            "mixup": 1.0,
            "lr": 2e-3,
            "lr_warmup": 50,
            "batch_size": 512,
            "epochs": 40,
        },
        "paper": {
            "variant": "gated",
            "expansion": 128,
            "lam": 1e-7,
            "lr": 5e-4,
            "lr_end": 1e-6,
            "weight_decay": 1e-2,
            "batch_size": 1024,
            "epochs": 100,
        },
    }

    templates: Annotated[
        str, "Template set to train on: a folder, a run id, or `latest` of the experiment.", EXECUTION
    ] = "latest"
    preset: Annotated[
        Literal["default", "readable", "faithful", "paper"],
        "Where unset parameters come from: these defaults, or the settings chosen for readable features, for faithful "
        "decoding, or by the paper.",
        EXECUTION,
    ] = "default"
    variant: Annotated[VariantSettings, "Kind of sparse autoencoder.", VARIANT] = GatedSettings()
    expansion: Annotated[int, "Features per template dimension: d_sae = expansion · d_in.", Ge(1)] = 8
    center: Annotated[bool, "Whether to subtract the mean template first; the paper does not."] = False
    normalize: Annotated[bool, "Whether to bring each template to unit length first; the paper does not."] = False
    whiten: Annotated[
        int,
        "Principal components of the templates that are brought to equal variance for the training; 0: none, the "
        "templates as they are.",
        Ge(0),
    ] = 0
    init: Annotated[
        Literal["random", "data", "pca", "ica", "kmeans", "pursuit"],
        "Directions that the features start with: random ones, templates, principal or independent components, "
        "centroids, or those of kurtosis pursuit.",
    ] = "random"
    mixup: Annotated[
        float,
        "Share of each batch replaced by mixtures of two templates: against overfitting a small set.",
        Ge(0),
        Le(1),
    ] = 0.0
    lr: Annotated[float, "AdamW's initial learning rate.", Gt(0)] = 1e-3
    lr_end: Annotated[float, "Learning rate at the end of the schedule.", Ge(0)] = 1e-6
    lr_schedule: Annotated[Literal["cosine", "constant"], "How the learning rate goes on after its warm-up."] = "cosine"
    lr_warmup: Annotated[
        int, "Steps of linear warm-up of the learning rate, at the start and after each resampling.", Ge(0)
    ] = 0
    weight_decay: Annotated[float, "AdamW's decoupled weight decay, on the two weight matrices only.", Ge(0)] = 1e-2
    beta1: Annotated[float, "AdamW's decay rate of the first moment.", Ge(0), Lt(1)] = 0.9
    beta2: Annotated[float, "AdamW's decay rate of the second moment.", Ge(0), Lt(1)] = 0.999
    batch_size: Annotated[int, "Templates per step.", Ge(1)] = 256
    epochs: Annotated[int, "Passes over the training templates.", Ge(1)] = 100
    holdout: Annotated[
        float, "Share of the identities kept out of training, to measure on people never seen.", Ge(0), Lt(1)
    ] = 0.1
    keep: Annotated[
        Literal["last", "best"],
        "Which epoch's weights become the SAE: `last`, or `best`, the epoch of least held-out loss. For top-k variants "
        "that loss is the mse; with target_l0 it is the mse of epochs whose held-out L0 is within 5 % of the target "
        "(if none: last).",
    ] = "last"
    register: Annotated[bool, "Whether to add the SAE to the MLflow model registry.", EXECUTION] = True
    model_name: Annotated[str, "Its name there.", EXECUTION] = "fsae"
    embed_recognizer: Annotated[
        bool,
        "Whether the registered model carries the templates' recognizer (tiny, student or onnx), so that it takes "
        "pictures too; check first whether you may pass its weights on.",
        EXECUTION,
    ] = False
    describe: Annotated[
        bool,
        "Whether to log the readings' and probes' metrics of describe at the end, where the templates have attributes.",
        EXECUTION,
    ] = True
    seed: Annotated[
        int, "Seed of the initialization, the batches, the held-out identities, mixup and the resampling.", Ge(0)
    ] = 0
    step: Annotated[
        Literal["auto", "plain", "fused"],
        "How a step is computed: `plain` PyTorch, or `fused` loops over active features (CPU); auto takes what is "
        "faster for the size.",
    ] = "auto"
    checkpoint_seconds: Annotated[
        float,
        "Seconds between checkpoints, from which the same command goes on; the first comes within a minute.",
        Ge(0),
        EXECUTION,
    ] = 300.0
    max_gigabytes: Annotated[
        float,
        "Memory for training templates; a larger set is streamed through a shuffle window of this size.",
        Gt(0),
        EXECUTION,
    ] = 4.0
    device: Annotated[str, "Where to train: auto, cpu, cuda, cuda:1, …", EXECUTION] = "auto"
    output: Annotated[str, "Folder to write the SAE to; empty takes one under outputs/.", EXECUTION] = ""

    @property
    def title(self) -> str:
        """What sets a run apart, in a few words."""
        return sae_title(flat(self))

    def check(self) -> None:
        defaults = {option.name: option.default for option in options(type(self))}
        for name in unread(options(type(self)), type(self.variant)):
            if getattr(self, name) != defaults[name]:
                raise UserError(
                    f"{name} has no effect on variant={VARIANT.name_of(self.variant)}, whose dictionary is computed, "
                    "not trained; leave it out."
                )
        if self.lr_end > self.lr:
            raise UserError(f"lr_end must be at most lr ({self.lr}); it is {self.lr_end}.")
        if self.keep == "best" and not self.holdout:
            raise UserError("keep=best chooses by held-out people, but holdout is 0; use keep=last, or holdout=0.1.")


def sae_title(values: Mapping[str, Any]) -> str:
    """An SAE in a few words, by the flat settings of its training: `topk k=32 ×2`, `gated L0=64 ×8 seed=1`, `ica ×1`.

    Empty for an SAE that is stored without them.
    """
    kind = VARIANTS.get(values.get("variant", ""))
    if kind is None or "expansion" not in values:
        return ""
    own = {field.name for field in dataclasses.fields(kind)}  # pyright: ignore[reportArgumentType]
    sparsity = {symbol: values.get(name) for name, symbol in SPARSITY.items() if name in own}
    words = [f"{symbol}={value:.3g}" for symbol, value in sparsity.items() if value is not None]
    seed = [f"seed={values['seed']}"] if values.get("seed") else []
    return " ".join([values["variant"], *words, f"×{values['expansion']}", *seed])
