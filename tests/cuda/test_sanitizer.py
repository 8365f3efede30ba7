"""compute-sanitizer finds no bad access, no race and no misused barrier in any kernel."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

SANITIZER = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")


@pytest.mark.skipif(SANITIZER is None, reason="compute-sanitizer is not installed")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_clean(model_new, tool):
    script = pathlib.Path(__file__).with_name("sanitize.py")
    run = subprocess.run(
        [SANITIZER, "--tool", tool, "--error-exitcode", "1", sys.executable, script, tool],
        env={**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    for route in model_new._conv1d_ops.routes():
        assert f"{route}: " in run.stdout
    assert "ERROR SUMMARY: 0 errors" in run.stdout or "RACECHECK SUMMARY: 0 hazards" in run.stdout
