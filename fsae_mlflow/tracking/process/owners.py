"""Which process a run belongs to, so that the runs of dead processes can be ended."""

import os
import platform
import re
import socket
from collections.abc import Mapping
from pathlib import Path

import psutil

from fsae_mlflow.machine.processes import lives

PID_NAMESPACE = Path("/proc/self/ns/pid")
CPU = Path("/proc/cpuinfo")
MACHINE = Path("/etc/machine-id")  # hosts of one name are not one machine


def process_tags() -> dict[str, str]:
    """Tags that name this process: host, pid and start (seconds after boot), and the namespace that the pid is of."""
    tags = {"fsae.host": socket.gethostname(), "fsae.pid": str(os.getpid()), "fsae.started": str(_started(os.getpid()))}
    if MACHINE.is_file():
        tags["fsae.machine"] = MACHINE.read_text().strip()
    return tags | ({"fsae.pid_namespace": str(PID_NAMESPACE.readlink())} if PID_NAMESPACE.is_symlink() else {})


def device_tags(name: str) -> dict[str, str]:
    """The tag that says what a stage's device is: the GPU's name, or the processor's.

    Raises: UserError if the device is unknown or not on this machine.
    """
    from fsae_mlflow.machine.compute import choose_device  # torch takes seconds to import

    device = choose_device(name)
    if device.type == "cuda":
        import torch

        return {"fsae.device": torch.cuda.get_device_name(device)}
    models = re.findall(r"^model name\s*: (.*)$", CPU.read_text(), re.MULTILINE) if CPU.is_file() else []
    return {"fsae.device": f"cpu: {next(iter(models), platform.machine())}"}


def is_gone(tags: Mapping[str, str]) -> bool:
    """Whether the process that `process_tags` named has ended. False for one that cannot be seen from here."""
    here = process_tags()
    if any(tags.get(name) != here.get(name) for name in ("fsae.host", "fsae.machine", "fsae.pid_namespace")):
        return False
    if not lives(int(tags["fsae.pid"])):
        return True
    try:  # another process can have the number by now
        return abs(_started(int(tags["fsae.pid"])) - float(tags["fsae.started"])) > 1
    except psutil.NoSuchProcess:
        return True


def _started(pid: int) -> float:
    # Seconds after boot do not change when the clock is set. boot_time() first: create_time() adds what it has read.
    boot = psutil.boot_time()
    process = psutil.Process(pid)
    if process.status() == psutil.STATUS_ZOMBIE:
        raise psutil.NoSuchProcess(pid)
    return round(process.create_time() - boot, 2)
