"""The CUDA units compile for every architecture without a warning, and no kernel spills registers to memory."""
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.utils.cpp_extension import COMMON_NVCC_FLAGS

ARCHITECTURES = ["75", "80", "86", "89", "90a", "100a", "120a"]


@pytest.fixture(scope="module")
def nvcc():
    found = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    assert found, "this test compiles CUDA sources: put nvcc of CUDA 13 on PATH"
    return found


@pytest.fixture(scope="module")
def units(model_new, tmp_path_factory):
    """The CUDA units as the shipped file embeds them."""
    folder = tmp_path_factory.mktemp("units")
    paths = [folder / name for name in model_new._conv1d_units if name.endswith(".cu")]
    for path in paths:
        names = model_new._conv1d_units[path.name]
        path.write_text("\n".join(model_new._conv1d_sources[name] for name in names))
    return paths


def spilling_kernels(log):
    """(every kernel, those that spill) in what `ptxas -v` wrote."""
    entry = r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
    entries = re.findall(entry, log, re.DOTALL)
    return [name for name, _, _ in entries], [name for name, *spills in entries if spills != ["0", "0"]]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_compiles_without_spills(nvcc, units, architecture):
    # Not --split-compile, which import uses for speed: with it ptxas' registers vary from run to run.
    command = [nvcc, "-O3", "-std=c++17", *COMMON_NVCC_FLAGS, "-Xptxas=-v"]
    command += [f"-gencode=arch=compute_{architecture},code=sm_{architecture}", "-c"]

    def compile_unit(unit):
        whole = [*command, unit, "-o", unit.with_suffix(f".{architecture}.o")]
        return subprocess.run(whole, capture_output=True, text=True, timeout=900)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for unit, compiled in zip(units, pool.map(compile_unit, units)):
            log = compiled.stdout + compiled.stderr
            assert compiled.returncode == 0, log
            assert "warning" not in log, log
            kernels, spilling = spilling_kernels(log)
            assert (len(kernels) > 0 or unit.name == "conv1d.cu") and spilling == []


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
