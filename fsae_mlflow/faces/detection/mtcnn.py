"""MTCNN on many pictures at once: the networks and results of facenet-pytorch, several times faster.

What makes it fast on a CPU: channels-last memory (max pooling is many times faster), windows averaged by one compiled
loop instead of resized one by one, chunks that fit into the cache, compiled non-maximum suppression.
"""

from collections.abc import Iterator, Sequence
from typing import cast, no_type_check

import numpy as np
import torch
from facenet_pytorch import MTCNN
from facenet_pytorch.models.utils.detect_face import nms_numpy
from jaxtyping import Float, Float32, Int, UInt8
from numba import njit
from torch import Tensor, nn
from torchvision.ops import batched_nms

from fsae_mlflow.faces.aligned import FACE_SIZE
from fsae_mlflow.faces.detection.area import Averages
from fsae_mlflow.faces.detection.keypoints import NO_FACES, Faces

CELL, STRIDE, FACTOR = 12, 2, 0.709
P_THRESHOLD, R_THRESHOLD, O_THRESHOLD = 0.6, 0.7, 0.7
P_PIXELS, R_CROPS, O_CROPS = 100_000, 64, 32  # per network call on a CPU, so that activations fit into the cache
CUDA_FACTOR = 64  # times more per call on a GPU
LARGEST_LEVEL = 8_000_000  # pixels in a level of the image pyramid
ALIGNED_BOX = (7.0, 17.0, 103.0, 112.0)  # MTCNN's box in an aligned face, on average
PIXELS_AT_ONCE = 1_000_000  # in pictures searched together on a CPU, for the same reason


class FaceFinder:
    """MTCNN (Zhang et al., "Joint face detection and alignment using multitask cascaded convolutional networks", 2016).

    Faces smaller than `min_face` pixels, or than `min_face_share` of a picture's shorter side, are not searched for.
    """

    def __init__(self, *, min_face: float, min_face_share: float, device: torch.device) -> None:
        networks = MTCNN(device=device).eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.pnet, self.rnet, self.onet = (
            cast(nn.Module, network) for network in (networks.pnet, networks.rnet, networks.onet)
        )
        for network in (self.pnet, self.rnet, self.onet):
            _take_pixels(cast(nn.Conv2d, network.conv1))
        self.min_face, self.min_face_share, self.device = min_face, min_face_share, device

    def __call__(self, pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Faces]:
        """Find the faces in pictures of any sizes; pictures of one size are searched together."""
        found: list[Faces] = [NO_FACES] * len(pictures)
        sizes: dict[tuple[int, ...], list[int]] = {}
        for index, picture in enumerate(pictures):
            sizes.setdefault(picture.shape, []).append(index)
        for (height, width, _), indices in sizes.items():
            for first, last in self._ranges(len(indices), max(1, PIXELS_AT_ONCE // (height * width))):
                together = indices[first:last]
                for index, faces in zip(together, self._search(np.stack([pictures[i] for i in together])), strict=True):
                    found[index] = faces
        return found

    @torch.inference_mode()
    def keypoints_of_aligned(
        self, faces: UInt8[np.ndarray, f"n {FACE_SIZE} {FACE_SIZE} 3"]
    ) -> tuple[Float32[np.ndarray, "n 5 2"], Float32[np.ndarray, " n"]]:
        """Keypoints and face probability of faces already aligned to the ArcFace template, by O-Net alone.

        On LFW's aligned faces the keypoints are on average 1.2 pixels away from those of all three networks, and the
        yaw measures of both have a correlation of 0.98.
        """
        if not len(faces):
            return np.empty((0, 5, 2), np.float32), np.empty(0, np.float32)
        averages = Averages(torch.from_numpy(faces).to(self.device))
        boxes = torch.tensor([*ALIGNED_BOX, 1.0], device=self.device).expand(len(faces), 5)
        boxes, _, (_, points, probabilities) = self._judge(
            self.onet, averages, boxes, torch.arange(len(faces), device=self.device), 48, O_CROPS
        )
        return _placed(boxes, points).cpu().numpy(), probabilities[:, 1].cpu().numpy()

    @torch.inference_mode()
    def _search(self, pictures: UInt8[np.ndarray, "batch height width 3"]) -> list[Faces]:
        averages = Averages(torch.from_numpy(pictures).to(self.device))
        boxes, numbers = self._propose(averages)
        boxes, numbers = self._refine(averages, boxes, numbers)
        return self._locate(averages, boxes, numbers)

    def _propose(self, averages: Averages) -> tuple[Float[Tensor, "n 5"], Int[Tensor, " n"]]:
        """P-Net on an image pyramid: square candidate boxes with scores, and the number of the picture of each."""
        n_pictures, height, width, _ = averages.pictures.shape
        scales = list(self._scales(height, width))
        places, answers = [], []
        for level, scale in enumerate(scales):
            size = int(height * scale + 1), int(width * scale + 1)
            for first, last in self._ranges(n_pictures, max(1, P_PIXELS // (size[0] * size[1]))):
                offsets, probabilities = self.pnet(averages.resized(first, last, *size))
                number, row, column = torch.where(probabilities[:, 1] >= P_THRESHOLD)
                places.append(torch.stack([first + number, torch.full_like(number, level), column, row], dim=1))
                answers.append(
                    torch.cat([probabilities[number, 1, row, column][:, None], offsets[number, :, row, column]], dim=1)
                )
        if not places:
            return torch.empty((0, 5), device=self.device), torch.empty(0, dtype=torch.int64, device=self.device)
        place = torch.cat(places)
        number, level, corner = place[:, 0], place[:, 1], STRIDE * place[:, 2:] + 1
        scale = torch.tensor(scales, device=self.device)[level, None]
        boxes = torch.cat([corner / scale, (corner + CELL - 1) / scale], dim=1).floor()
        found = torch.cat([boxes, torch.cat(answers)], dim=1)
        keep = grouped_nms(found, number * len(scales) + level, 0.5)
        found, number = found[keep], number[keep]
        keep = grouped_nms(found, number, 0.7)
        found, number = found[keep], number[keep]
        extent = found[:, 2:4] - found[:, :2]
        shifted = found[:, :4] + found[:, 5:] * extent.repeat(1, 2)
        return _square(torch.cat([shifted, found[:, 4:5]], dim=1)), number

    def _refine(
        self, averages: Averages, boxes: Float[Tensor, "n 5"], numbers: Int[Tensor, " n"]
    ) -> tuple[Float[Tensor, "m 5"], Int[Tensor, " m"]]:
        """R-Net: fewer and better square boxes."""
        boxes, numbers, (offsets, probabilities) = self._judge(self.rnet, averages, boxes, numbers, 24, R_CROPS)
        good = probabilities[:, 1] > R_THRESHOLD
        boxes, numbers, offsets = (
            torch.cat([boxes[good, :4], probabilities[good, 1:]], dim=1),
            numbers[good],
            offsets[good],
        )
        keep = grouped_nms(boxes, numbers, 0.7)
        return _square(_moved(boxes[keep], offsets[keep])), numbers[keep]

    def _locate(self, averages: Averages, boxes: Float[Tensor, "n 5"], numbers: Int[Tensor, " n"]) -> list[Faces]:
        """O-Net: the final boxes with keypoints, per picture."""
        boxes, numbers, (offsets, points, probabilities) = self._judge(self.onet, averages, boxes, numbers, 48, O_CROPS)
        good = probabilities[:, 1] > O_THRESHOLD
        boxes, numbers, offsets = (
            torch.cat([boxes[good, :4], probabilities[good, 1:]], dim=1),
            numbers[good],
            offsets[good],
        )
        keypoints = _placed(boxes, points[good]).cpu().numpy()
        final, owner = _moved(boxes, offsets).cpu().numpy(), numbers.cpu().numpy()
        faces = []
        for number in range(len(averages.pictures)):
            mine = np.flatnonzero(owner == number)
            if len(mine):
                mine = mine[np.asarray(nms_numpy(final[mine, :4], final[mine, 4], 0.7, "Min"), np.int64)]
            faces.append(Faces(final[mine, :4], keypoints[mine], final[mine, 4]))
        return faces

    def _judge(
        self,
        network: nn.Module,
        averages: Averages,
        boxes: Float[Tensor, "n 5"],
        numbers: Int[Tensor, " n"],
        size: int,
        at_once: int,
    ) -> tuple[Float[Tensor, "m 5"], Int[Tensor, " m"], list[Float[Tensor, "m _"]]]:
        """The outputs of R-Net or O-Net for each box that has a pixel inside its picture."""
        inside = _inside(boxes, *averages.pictures.shape[1:3])
        good = (inside[:, 2:] > inside[:, :2]).all(dim=1)
        boxes, numbers, inside = boxes[good], numbers[good], inside[good]
        if not len(boxes):
            widths = (4, 2) if size == 24 else (4, 10, 2)
            return boxes, numbers, [boxes.new_empty((0, width)) for width in widths]
        outputs = [
            network(averages.crops(numbers[first:last], inside[first:last], size, size))
            for first, last in self._ranges(len(inside), at_once)
        ]
        return boxes, numbers, [torch.cat(part) for part in zip(*outputs, strict=True)]

    def _scales(self, height: int, width: int) -> Iterator[float]:
        """Scales of the pyramid, from where the smallest face fills a P-Net cell to where the picture does.

        `min_face_share` leaves out levels and changes none, so the faces found on the others stay the same. Levels that
        would need gigabytes are left out too (in a picture of 22 megapixels, faces below 28 pixels are not found).
        """
        scale = CELL / self.min_face
        while min(height, width) * scale >= CELL:
            wanted = CELL / scale > self.min_face_share * min(height, width) * FACTOR
            if wanted and height * width * scale**2 <= LARGEST_LEVEL:
                yield scale
            scale *= FACTOR

    def _ranges(self, n: int, at_once: int) -> Iterator[tuple[int, int]]:
        step = at_once if self.device.type == "cpu" else at_once * CUDA_FACTOR
        return ((first, min(first + step, n)) for first in range(0, n, step))


def _take_pixels(first: nn.Conv2d) -> None:
    """Fold the networks' (pixel - 127.5) / 128 into their first convolution, which has no padding."""
    assert first.bias is not None
    with torch.no_grad():
        first.weight /= 128
        first.bias -= 127.5 * first.weight.sum(dim=(1, 2, 3))


def grouped_nms(boxes: Float[Tensor, "n _"], groups: Int[Tensor, " n"], threshold: float) -> Int[Tensor, " m"]:
    """Non-maximum suppression within each group: the indices of the boxes that remain."""
    if boxes.device.type != "cpu":
        return batched_nms(boxes[:, :4], boxes[:, 4], groups, threshold)
    order = np.lexsort((-boxes[:, 4].numpy(), groups.numpy()))
    return torch.from_numpy(order[_survivors(boxes[:, :4].numpy()[order], groups.numpy()[order], threshold)])


@no_type_check
@njit(nogil=True, cache=True, error_model="numpy")
def _survivors(boxes, groups, threshold):
    """Which boxes do not overlap with a better one of their group; boxes are sorted by group, then best first."""
    keep = np.ones(len(boxes), np.bool_)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for i in range(len(boxes)):
        other = i + 1
        while keep[i] and other < len(boxes) and groups[other] == groups[i]:
            width = min(boxes[i, 2], boxes[other, 2]) - max(boxes[i, 0], boxes[other, 0])
            height = min(boxes[i, 3], boxes[other, 3]) - max(boxes[i, 1], boxes[other, 1])
            both = max(width, np.float32(0)) * max(height, np.float32(0))
            if both / (area[i] + area[other] - both) > threshold:
                keep[other] = False
            other += 1
    return keep


def _square(boxes: Float[Tensor, "n 5"]) -> Float[Tensor, "n 5"]:
    """The boxes enlarged to squares with the same centers."""
    extent = boxes[:, 2:4] - boxes[:, :2]
    side = extent.amax(dim=1, keepdim=True)
    corner = boxes[:, :2] + extent * 0.5 - side * 0.5
    return torch.cat([corner, corner + side, boxes[:, 4:]], dim=1)


def _placed(boxes: Float[Tensor, "n 5"], points: Float[Tensor, "n 10"]) -> Float[Tensor, "n 5 2"]:
    """O-Net's keypoints, relative to the boxes, in pixels of the picture."""
    extent = boxes[:, None, 2:4] - boxes[:, None, :2] + 1
    return extent * points.view(-1, 2, 5).transpose(1, 2) + boxes[:, None, :2] - 1


def _moved(boxes: Float[Tensor, "n 5"], offsets: Float[Tensor, "n 4"]) -> Float[Tensor, "n 5"]:
    extent = (boxes[:, 2:4] - boxes[:, :2] + 1).repeat(1, 2)
    return torch.cat([boxes[:, :4] + offsets * extent, boxes[:, 4:]], dim=1)


def _inside(boxes: Float[Tensor, "n 5"], height: int, width: int) -> Int[Tensor, "n 4"]:
    """The boxes clipped to the picture, as facenet-pytorch's `pad` does: left, top, right, bottom (excluded)."""
    whole = boxes[:, :4].trunc().long()
    limit = torch.tensor([width, height], device=boxes.device)
    return torch.cat([whole[:, :2].clamp(min=1) - 1, whole[:, 2:].minimum(limit)], dim=1)
