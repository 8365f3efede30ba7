"""How the Hopper GEMM cuts problems: a pure function of their numbers, so it needs no GPU."""

import pathlib
import subprocess

from test_compile_archs import nvcc  # noqa: F401  a fixture

TESTS = pathlib.Path(__file__).parent


def test_random_plans_keep_what_they_promise(nvcc, tmp_path):  # noqa: F811
    program = tmp_path / "plan"
    subprocess.run(
        [nvcc, "-std=c++17", "-O2", "-I", TESTS.parent / "kernels", "-o", program, TESTS / "plan_sm90.cu"],
        check=True,
        capture_output=True,
    )
    run = subprocess.run([program], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout
