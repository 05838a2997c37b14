"""The groups that metrics are logged in, and which metrics matter most."""

from collections.abc import Mapping

GROUPS = {
    "faces": "pictures and faces of an extraction",
    "spectrum": "dimensions that the templates fill",
    "heldout": "the finished SAE on people kept out of its training",
    "train": "the finished SAE on the people that it was trained on",
    "per_epoch": "the same after each epoch, with the learning rate and the speed in per_epoch/train/; the step is the "
    "epoch",
    "features": "how the features of an SAE fire on the faces that are read; features/controls/ has the main "
    "metrics of controls, dictionary.json all",
    "readings": "what features mean, confirmed on other people",
    "probes": "how well few features tell an attribute",
    "absorption": "features that are silent where another one takes over",
    "lfw": "verification of pairs, by row of the table; also the audit, suppression and ablation",
    "verification": "verification of pairs of people kept out of the training, by templates decoded from all features",
    "explanation": "how much of the similarity of two faces is explained, and how faithful that is",
    "stability": "features that are found again in other SAEs",
    "images": "verdicts on the optimized images; those of controls in images/controls/",
    "optimization": "means over the images while they are optimized; the step is the optimizer's",
    "recognizer": "a distilled recognizer on held-out people",
    "browser": "size of the feature browser",
    "system": "load of the machine, every ten seconds, of stages that take longer",
}
"""The first part of every metric's name, and what the group holds."""

MAIN = (
    "faces/n_faces", "faces/n_failures", "heldout/fvu", "heldout/l0", "heldout/cosine", "train/alive",
    "features/l0", "features/fvu", "readings/confirmed_of_alive", "readings/strong_of_alive", "readings/n_kinds",
    "readings/n_identities", "lfw/original/accuracy", "lfw/all/accuracy", "lfw/high/accuracy", "lfw/low/accuracy",
    "explanation/genuine/unexplained", "explanation/impostor/unexplained", "stability/cosine/pw_mcc",
    "stability/cosine/found_again", "stability/across/correlation/found_again", "stability/initial/cosine/found_again",
    "images/features_confirmed", "images/confirmed", "recognizer/cosine", "recognizer/pair_accuracy",
    "browser/n_features",
)  # fmt: skip
"""What a run's description shows, in this order."""


def grouped(metrics: Mapping[str, float | int], group: str) -> dict[str, float]:
    """Metrics by their full name: those whose name has no known group get `group`."""
    return {
        name if name.split("/")[0] in GROUPS else f"{group}/{name}": float(value) for name, value in metrics.items()
    }


def main_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Those that matter most, the most important first."""
    return {name: metrics[name] for name in MAIN if name in metrics}
