"""A sample takes the route of its batch: routes are a pure function of a problem's numbers, so this needs no GPU."""

import os
import pathlib
import subprocess
from concurrent.futures import ThreadPoolExecutor

from test_compile_archs import nvcc  # noqa: F401  a fixture

TESTS = pathlib.Path(__file__).parent
KERNELS = TESTS.parent / "kernels"


def test_a_sample_takes_the_route_of_its_batch(nvcc, tmp_path):  # noqa: F811
    def compiled(source):
        target = tmp_path / f"{source.name}.o"
        # sm_75: most kernels are empty there, which saves their compilation.
        command = [nvcc, "-std=c++17", "-O1", "-gencode=arch=compute_75,code=compute_75", "-I", KERNELS]
        subprocess.run([*command, "-c", source, "-o", target], check=True, capture_output=True)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, [TESTS / "plan_routes.cu", *sorted(KERNELS.glob("*.cu"))]))
    program = tmp_path / "plan_routes"
    subprocess.run([nvcc, "-o", program, *objects], check=True, capture_output=True)
    run = subprocess.run([program], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout
