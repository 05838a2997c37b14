"""The device that computes."""

import torch


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is a CUDA device if there is one, else the CPU.

    Raises: ValueError if the device is unknown or not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device must be auto, cpu or cuda (cuda:0, cuda:1, …); it is {name!r}.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {name} is not on this machine ({torch.cuda.device_count()} CUDA devices); use device=auto."
        )
    return device
