"""Which process a run belongs to, so that the runs of dead processes can be ended."""

import json
import os
import platform
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from fsae_mlflow.machine.processes import lives

HOST, PROCESS = "fsae.host", "fsae.process"
PID_NAMESPACE = Path("/proc/self/ns/pid")
CPU = Path("/proc/cpuinfo")
MACHINE = Path("/etc/machine-id")  # hosts of one name are not one machine


def process_tags() -> dict[str, str]:
    """Tags that name this process: its host, and as JSON its pid, its start (seconds after boot), the machine, and the
    namespace that the pid is of.
    """
    pid = os.getpid()
    process = {
        "pid": pid,
        "started": _started(pid),
        "machine": MACHINE.read_text().strip() if MACHINE.is_file() else "",
        "pid_namespace": str(PID_NAMESPACE.readlink()) if PID_NAMESPACE.is_symlink() else "",
    }
    return {HOST: socket.gethostname(), PROCESS: json.dumps(process)}


def holder_of(tags: Mapping[str, str]) -> str:
    """The process that `process_tags` named, for a sentence."""
    return f"process {_process(tags).get('pid', 'of an unknown number')} on {tags.get(HOST, 'an unknown host')}"


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
    here, there = process_tags(), _process(tags)
    mine = _process(here)
    if tags.get(HOST) != here[HOST] or any(there.get(name) != mine[name] for name in ("machine", "pid_namespace")):
        return False
    if not lives(there["pid"]):
        return True
    try:  # another process can have the number by now
        return abs(_started(there["pid"]) - there["started"]) > 1
    except psutil.NoSuchProcess:
        return True


def _process(tags: Mapping[str, str]) -> dict[str, Any]:
    with suppress(ValueError):  # a tag can be edited
        process = json.loads(tags.get(PROCESS, ""))
        if isinstance(process, dict):
            return process
    return {}


def _started(pid: int) -> float:
    # Seconds after boot do not change when the clock is set. boot_time() first: create_time() adds what it has read.
    boot = psutil.boot_time()
    process = psutil.Process(pid)
    if process.status() == psutil.STATUS_ZOMBIE:
        raise psutil.NoSuchProcess(pid)
    return round(process.create_time() - boot, 2)
