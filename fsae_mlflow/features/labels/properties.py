"""Properties of faces, measured from keypoints, boxes, pixels and templates, with which features are compared."""

import numpy as np
from jaxtyping import Float64, Int

from fsae_mlflow.faces import quality
from fsae_mlflow.progress import progress
from fsae_mlflow.templates.set import TemplateSet

STORED = ("yaw", "sharpness", "interocular")
SAME_LENGTH = 1e-5
"""Relative spread of the lengths of templates below which they differ by rounding only."""


def face_properties(templates: TemplateSet, rows: Int[np.ndarray, " n"]) -> dict[str, Float64[np.ndarray, " n"]]:
    """Properties of the faces in the given rows by name; nan where unknown.

    yaw (nose offset over eye distance, positive to the right of the image), sharpness, interocular (source pixels),
    norm (length of the raw template; unknown where the recognizer gives all templates the same length), face_size (root
    of the box's area, source pixels), roll (degrees), brightness (0…255) and grayness (0…1) of the aligned face;
    `faces/quality.py` has the formulas. Of a central crop only sharpness, norm, brightness and grayness are known.

    Raises: UserError naming a file of the set that is damaged or missing.
    """
    keypoints = templates.column("keypoints")[rows].reshape(-1, 5, 2)
    boxes = templates.column("box")[rows]
    found = {name: templates.column(name)[rows].astype(np.float64) for name in STORED}
    found["norm"] = _norms(templates)[rows]
    found["face_size"] = np.array([quality.face_size(box) for box in boxes], np.float64)
    found["face_size"][np.isnan(keypoints).any(axis=(1, 2))] = np.nan
    found["roll"] = np.array([quality.roll(points) for points in keypoints], np.float64)
    return found | _of_pixels(templates, rows)


def _norms(templates: TemplateSet) -> Float64[np.ndarray, " n"]:
    chunks = templates.chunks("template")
    norms = np.concatenate([np.linalg.norm(chunk.astype(np.float64), axis=1) for chunk in chunks])
    if np.ptp(norms) <= SAME_LENGTH * norms.max():
        norms[:] = np.nan
    return norms


def _of_pixels(templates: TemplateSet, rows: Int[np.ndarray, " n"]) -> dict[str, Float64[np.ndarray, " n"]]:
    different, place = np.unique(rows, return_inverse=True)
    measured = np.empty((len(different), 2))
    faces = progress(templates.faces_in_order(different), total=len(different), label="properties", unit="faces")
    for number, (_, face) in enumerate(faces):
        pixels = np.asarray(face)
        measured[number] = quality.brightness(pixels), quality.grayness(pixels)
    brightness, grayness = measured[place].T
    return {"brightness": brightness, "grayness": grayness}
