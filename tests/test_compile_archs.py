"""The CUDA unit compiles for every architecture without a warning, and no kernel spills registers to memory."""
import re
import shutil
import subprocess

import pytest
from torch.utils.cpp_extension import COMMON_NVCC_FLAGS

ARCHITECTURES = ["75", "80", "86", "89", "90a", "100a", "120a"]


@pytest.fixture(scope="module")
def nvcc():
    found = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    assert found, "this test compiles CUDA sources: put nvcc of CUDA 13 on PATH"
    return found


@pytest.fixture(scope="module")
def unit(model_new, tmp_path_factory):
    """The CUDA unit as the shipped file embeds it."""
    path = tmp_path_factory.mktemp("unit") / "cuda.cu"
    names = model_new._conv1d_units["cuda_sources"]
    path.write_text("\n".join(model_new._conv1d_sources[name] for name in names))
    return path


def spilling_kernels(log):
    """(every kernel, those that spill) in what `ptxas -v` wrote."""
    entry = r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
    entries = re.findall(entry, log, re.DOTALL)
    return [name for name, _, _ in entries], [name for name, *spills in entries if spills != ["0", "0"]]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_compiles_without_spills(nvcc, unit, architecture):
    # Not --split-compile, which import uses for speed: with it ptxas' registers vary from run to run.
    command = [nvcc, "-O3", "-std=c++17", *COMMON_NVCC_FLAGS, "-Xptxas=-v"]
    command += [f"-gencode=arch=compute_{architecture},code=sm_{architecture}", "-c", unit]
    command += ["-o", unit.with_suffix(f".{architecture}.o")]
    compiled = subprocess.run(command, capture_output=True, text=True, timeout=900)
    log = compiled.stdout + compiled.stderr
    assert compiled.returncode == 0, log
    assert "warning" not in log, log
    kernels, spilling = spilling_kernels(log)
    assert len(kernels) > 0 and spilling == []


def test_spills_are_found(nvcc, tmp_path):
    source = tmp_path / "spill.cu"
    values = 256  # more live values than the 24 registers that are allowed
    source.write_text(
        "__global__ void spilling(float* x) {\n"
        f"    float v[{values}];\n"
        f"    #pragma unroll\n    for (int i = 0; i < {values}; ++i) v[i] = x[i];\n"
        f"    #pragma unroll\n    for (int i = 0; i < {values}; ++i) x[i] = v[{values - 1} - i];\n"
        "}\n"
    )
    command = [nvcc, "-arch=sm_80", "-maxrregcount=24", "-Xptxas=-v", "-c", source, "-o", tmp_path / "o"]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    kernels, spilling = spilling_kernels(log)
    assert len(kernels) == 1 and spilling == kernels
