"""Which processes live."""

import os
import subprocess
import sys

from fsae_mlflow.machine.processes import lives


def test_a_process_lives_until_it_has_ended() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert lives(os.getpid()) and lives(os.getppid()) and lives(1)  # 1 is another user's, or the container's
    assert not lives(ended.pid) and not lives(10**30)
