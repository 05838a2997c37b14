"""The device that computes."""

import re

import torch

from fsae_mlflow.errors import UserError


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is a CUDA device if there is one, else the CPU.

    Raises: UserError if the device is unknown or not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
        raise UserError(f"device must be auto, cpu or cuda (cuda:0, cuda:1, …); it is {name!r}.")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device {name} is not on this machine ({torch.cuda.device_count()} CUDA devices); use device=auto."
        )
    return device
