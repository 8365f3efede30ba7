"""Kernels without Hopper's instructions run on the CPU: their own source, compiled by the C++ compiler.

tests/emulator runs the threads in random order, watches each access to memory (emulator.cpp) and compares
random problems with sums in double precision (driver.cpp). A failure names the problem's seed:

    program ROUTE SEED 0    runs that one again
"""
import re
import subprocess
import time

import pytest
from conftest import ROOT

EMULATOR = ROOT / "tests" / "emulator"
INSTRUCTIONS = ("ptx.cuh", "mma.cuh", "wgmma.cuh")  # emulator.h has their functions
SECONDS = 8  # that the problems of one run take

HEADERS = {
    "toeplitz_sm90": "toeplitz_sm90.cuh",
    "toeplitz": "toeplitz.cuh",
    "depthwise": "depthwise.cuh",
    "stem_sm80": "stem.cuh",
    "fold_sm80": "fold.cuh",
    "small_sm80": "small.cuh",
    "gemm_sm80": "gemm_sm80.cuh",
    "few_outputs": "few_outputs.cuh",
    "gather": "gather.cuh",
    "direct": "direct.cuh",
}

# What a route consists of besides its header and what all share.
PARTS = {
    "depthwise": [
        *(f"depthwise_{part}.cuh" for part in ("row", "rows", "sliding", "padded", "outputs")),
        "gather_plan.cuh",
        "gather.cuh",
    ],
    "fold_sm80": ["gather_plan.cuh"],
    "few_outputs": ["few_outputs_project.cuh", "gather_plan.cuh", "gemm_sm90_plan.cuh"],
    "gather": ["gather_plan.cuh"],
}

# What the kernel takes, where the table gives it large problems only.
FITS = {
    "stem_sm80": "conv1d::stem::takes",
    "fold_sm80": "conv1d::fold::takes",
    "few_outputs": "conv1d::few::takes",
    "gather": "conv1d::gather::takes",
}

# Name: (route, architecture), where its kernel differs from that for sm_90.
OLDER = {"stem_sm80 without bulk copies": ("stem_sm80", 800)}

UNIT = """\
{includes}
extern "C" bool route_fits(const conv1d::Problem* problem) {{ return {fits}(*problem); }}
extern "C" size_t route_workspace_bytes(const conv1d::Problem* problem) {{ return {workspace}; }}
extern "C" conv1d::Error route_launch(const conv1d::Problem* problem) {{
    return conv1d::launch_{route}(*problem, nullptr);
}}
"""

# Name: (route, text of its kernel, what is there instead, how the report begins).
MISTAKES = {
    "copies_behind_x": (
        "toeplitz", "begin == 0 && end == kWide;", "begin < end;", "read of 16 bytes outside"
    ),
    "no_barrier": ("fold_sm80", "__syncthreads();  // the chunk before has been read", "", "race"),
    "products_before_x": (
        "toeplitz_sm90", "ptx::fence_proxy_async();\n    __syncthreads();", "ptx::fence_proxy_async();", "race"
    ),
    "y_before_x_is_read": ("depthwise", "__syncthreads();  // x has been read", "", "race"),
    "stage_before_x_is_read": (
        "depthwise", "__syncwarp();  // x and y have been read by all lanes", "", "race"
    ),
    "stage_before_copies_have_read_it": (
        "stem_sm80",
        "ptx::cp_async_bulk_wait_read<0>();\n#endif\n        __syncwarp();",
        "#endif",
        "wrong result",
    ),
    "one_group_too_late": ("gemm_sm80", "cp_async_wait_group<1>", "cp_async_wait_group<2>", "race"),
    "chunk_before_is_read": (
        "small_sm80", "sync_team<Tile>();  // the chunk before has been read", ";", "race"
    ),
    "chunk_overwritten": ("direct", "__syncthreads();  // the chunk before has been read", "", "race"),
    "a_warps_sum_lost": (
        "few_outputs", "value += part[(warp_k <<", "value += part[(warp_k / 2 * 2 <<", "wrong result"
    ),
    "stage_before_the_warp_has_read_it": (
        "few_outputs", "__syncwarp();  // x has been read by all lanes", "", "race"
    ),
    "taps_before_they_lie_there": (
        "depthwise", "widen(w[k]);\n    __syncthreads();", "widen(w[k]);", "race"
    ),
    "part_before_lost": ("gather", "sum[o] += total_smem[o * kThreads];", ";", "wrong result"),
    "prefetch_behind_x": ("fold_sm80", "at < inside.end; at += 32", "at < params.span; at += 32", "read of"),
    "sums_before_weights_are_read": ("gather", "__syncthreads();  // weights have been read", "", "race"),
}


def as_plain_cpp(text):
    """CUDA source with what g++ cannot parse rewritten into calls of the emulator."""
    text = re.sub(r"#include <cuda_\w+\.h>", '#include "emulator.h"', text)
    text = re.sub(r"#pragma unroll.*", "", text)
    launch = r"(\w+(?:<[\w:, *<>]*>)?)\s*<<<(.*?),\s*stream>>>\((.*?)\);"
    call = r"emulator::launch(reinterpret_cast<const void*>(\1), \2, [&] { \1(\3); });"
    text = re.sub(launch, call, text, flags=re.DOTALL)
    dynamic = "extern __shared__ __align__(16) unsigned char smem[];"
    text = text.replace(dynamic, "unsigned char* const smem = emulator::shared();")
    static = r"\1& \2 = *static_cast<\1*>(emulator::static_shared(sizeof(\1)));"
    text = re.sub(r"__shared__ (\w+) (\w+);", static, text)
    assert "<<<" not in text and "__shared__" not in text
    return text


def compiler(*arguments):
    """Starts the compiler; returns a function that waits for it."""
    process = subprocess.Popen(["c++", "-std=c++17", "-O1", *arguments], stderr=subprocess.PIPE, text=True)

    def wait():
        _, log = process.communicate()
        assert process.returncode == 0, log

    return wait


def start_build(folder, route, edit=None, architecture=900):
    """Starts to compile a route's kernels into folder/unit.o; (text, replacement) edits them before."""
    folder.mkdir()
    for name in INSTRUCTIONS:
        (folder / name).write_text('#include "emulator.h"\n')
    own = [HEADERS[route], *PARTS.get(route, [])]
    texts = {name: (ROOT / "kernels" / name).read_text() for name in ["problem.h", "tile.cuh", *own]}
    if edit is not None:
        found = [name for name in own for _ in range(texts[name].count(edit[0]))]
        assert len(found) == 1, f"{own} must hold {edit[0]!r} once: adapt the mistake"
        texts[found[0]] = texts[found[0]].replace(*edit)
    for name, text in texts.items():
        (folder / name).write_text(as_plain_cpp(text))
    workspace = f"conv1d::workspace_{route}(*problem)" if route.startswith(("gemm", "few")) else "0"
    unit = folder / "unit.cpp"
    includes = "\n".join(f'#include "{name}"' for name in own)
    fits = FITS.get(route, f"conv1d::fits_{route}")
    unit.write_text(UNIT.format(includes=includes, route=route, fits=fits, workspace=workspace))
    # Each load and store calls a function of emulator.cpp; a misaligned one traps.
    watch = ["-fsanitize=thread", "-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"]
    target = ["-c", unit, "-o", folder / "unit.o"]
    return compiler("-w", f"-D__CUDA_ARCH__={architecture}", f"-I{EMULATOR}", f"-I{folder}", *watch, *target)


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """{name: program that runs problems of its route}: routes and mistakes, built two at a time."""
    folder = tmp_path_factory.mktemp("emulator")
    # The hardened longjmp may not change stacks.
    plain = ["-U_FORTIFY_SOURCE", f"-I{EMULATOR}", f"-I{ROOT / 'kernels'}", "-c"]
    shared = [folder / f"{name}.o" for name in ("emulator", "driver")]
    for wait in [compiler(*plain, EMULATOR / f"{path.stem}.cpp", "-o", path) for path in shared]:
        wait()
    wanted = {route: (route,) for route in HEADERS}
    wanted |= {name: (route, None, architecture) for name, (route, architecture) in OLDER.items()}
    wanted |= {mistake: (route, edit) for mistake, (route, *edit, _) in MISTAKES.items()}
    names = list(wanted)
    for i in range(0, len(names), 2):
        for wait in [start_build(folder / name, *wanted[name]) for name in names[i : i + 2]]:
            wait()
    for name in names:
        compiler(*shared, folder / name / "unit.o", "-o", folder / name / "program")()
    return {name: folder / name / "program" for name in names}


def start_run(program, route, seed, seconds):
    command = [program, route, str(seed), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("name", [*HEADERS, *OLDER])
def test_kernels_are_right_in_any_order_of_threads(programs, name):
    route = OLDER.get(name, (name,))[0]
    today = int(time.time()) // 86400 * 10**9
    runs = [start_run(programs[name], route, seed, SECONDS) for seed in (1, today)]
    for run in runs:
        out, _ = run.communicate(timeout=20 * SECONDS)
        print(out)
        assert run.returncode == 0, out
        assert int(out.split()[1]) >= 20, out


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_caught(programs, mistake):
    route, *_, seen = MISTAKES[mistake]
    run = start_run(programs[mistake], route, 1, SECONDS)
    out, _ = run.communicate(timeout=20 * SECONDS)
    assert run.returncode == 1 and f"FAILED: {seen}" in out, out
