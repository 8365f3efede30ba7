"""Plans are pure functions of a problem's numbers: programs that ask the kernels' host code for those of random
problems, and need no GPU."""

import os
import pathlib
import subprocess
from concurrent.futures import ThreadPoolExecutor

from test_compile_archs import nvcc  # noqa: F401  a fixture

TESTS = pathlib.Path(__file__).parent
KERNELS = TESTS.parent / "kernels"


def run_program(nvcc, folder, sources):  # noqa: F811
    """Builds a program for an architecture for which most kernels are empty, which saves their compilation."""

    def compiled(source):
        target = folder / f"{source.name}.o"
        command = [nvcc, "-std=c++17", "-O2", "-gencode=arch=compute_75,code=compute_75", "-I", KERNELS]
        subprocess.run([*command, "-c", source, "-o", target], check=True, capture_output=True)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, sources))
    program = folder / "program"
    subprocess.run([nvcc, "-o", program, *objects], check=True, capture_output=True)
    run = subprocess.run([program], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout


def test_random_plans_of_the_hopper_gemm_keep_what_they_promise(nvcc, tmp_path):  # noqa: F811
    run_program(nvcc, tmp_path, [TESTS / "plan_sm90.cu"])


def test_a_sample_takes_the_route_of_its_batch(nvcc, tmp_path):  # noqa: F811
    run_program(nvcc, tmp_path, [TESTS / "plan_routes.cu", *sorted(KERNELS.glob("*.cu"))])
