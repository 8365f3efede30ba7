"""The source of the Hopper GEMM and of the streaming, sliding, downsampling and pointwise convolutions, run
on the CPU by tests/emulator_sm90: random problems, schedules, delays."""
import datetime
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess

import pytest
from conftest import ROOT

HERE = ROOT / "tests" / "emulator_sm90"
CUDA_INCLUDE = pathlib.Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "include"

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None or not (CUDA_INCLUDE / "cuda_fp16.h").exists(),
    reason="needs g++ and CUDA's headers",
)

# Faults put into the source, each to be found: file, what is there, what takes its place.
FAULTS = {
    "x and weights are released before their products": (
        "gemm_sm90_product.cuh",
        "ptx::wgmma_wait_group<Traits::kIsSplit ? 0 : 1>();",
        "if (emulator::broken != BREAK || Traits::kIsSplit)\n"
        "ptx::wgmma_wait_group<Traits::kIsSplit ? 0 : 1>();\n"
        "else ptx::wgmma_wait_group<3>();",
    ),
    "split products are read before their wait": (
        "gemm_sm90_product.cuh",
        "ptx::wgmma_wait_group<Traits::kIsSplit ? 0 : 1>();",
        "{ if (emulator::broken != BREAK || !Traits::kIsSplit)\n"
        "ptx::wgmma_wait_group<Traits::kIsSplit ? 0 : 1>(); }",
    ),
    "rows are staged before those that were there are stored": (
        "gemm_sm90_product.cuh",
        "__syncwarp();  // the rows that were here have left",
        "if (emulator::broken != BREAK) __syncwarp();",
    ),
    "rows are stored before they are staged": (
        "gemm_sm90_product.cuh",
        "__syncwarp();\n            store_rows(",
        "if (emulator::broken != BREAK) __syncwarp();\n            store_rows(",
    ),
    "elements before a row's whole pieces are not stored": (
        "gemm_sm90_product.cuh",
        "if (head < min(pieces, end))",
        "if (emulator::broken != BREAK && head < min(pieces, end))",
    ),
    "a row's whole pieces begin between them": (
        "gemm_sm90_product.cuh",
        "pieces = (begin + kPiece - 1) & -kPiece, pieces_end",
        "pieces = emulator::broken == BREAK ? begin : (begin + kPiece - 1) & -kPiece, pieces_end",
    ),
    "samples of a flat tile begin unlike each other": (
        "gemm_sm90_plan.cuh",
        "static_cast<int32_t>(rows + (sample - rows % piece + piece) % piece);",
        "static_cast<int32_t>(rows + (emulator::broken != BREAK) * ((sample - rows % piece + piece) % piece));",
    ),
    "outputs are mended before they are stored": (
        "gemm_sm90_product.cuh",
        "__syncwarp();  // all lanes have stored",
        "if (emulator::broken != BREAK) __syncwarp();",
    ),
    "a tile's first product adds to the sums of the tile before": (
        "gemm_sm90_product.cuh",
        "Traits::kIsSplit || accumulates ? 0 : 1;",
        "Traits::kIsSplit || accumulates || emulator::broken == BREAK ? 0 : 1;",
    ),
    "converters do not claim a stage in which they have no batch": (
        "gemm_sm90_convert.cuh",
        "claim();\n            ptx::fence_proxy_async();",
        "if (emulator::broken != BREAK) claim();\n            ptx::fence_proxy_async();",
    ),
    "x is read one position too far": (
        "gemm_sm90_convert.cuh",
        "static_cast<uint32_t>(l) < static_cast<uint32_t>(problem.L);",
        "static_cast<uint32_t>(l) < static_cast<uint32_t>(problem.L) + (emulator::broken == BREAK);",
    ),
    "too few arrivals free an announcement": (
        "gemm_sm90_kernel.cuh",
        "kProductWarps + kConverterWarps);",
        "kProductWarps + kConverterWarps - (emulator::broken == BREAK));",
    ),
    "units of weights begin where shorter ones would": (
        "gemm_sm90_convert.cuh",
        "(i - step * units.segments) * units.taps;",
        "(i - step * units.segments) * (emulator::broken == BREAK ? 4 : units.taps);",
    ),
    "weights come without room for them": (
        "gemm_sm90_pipeline.cuh",
        "ptx::mbarrier_wait(barriers.w_empty(weights.stage), weights.parity);",
        "if (emulator::broken != BREAK)\n"
        "ptx::mbarrier_wait(barriers.w_empty(weights.stage), weights.parity);",
    ),
    "tf32x3 cuts other tiles than f16x3": (
        "gemm_sm90_plan.cuh",
        "kRowBytes / Traits::kElementBytes) * problem.K <= 12",
        "(emulator::broken == BREAK ? Traits::kChunkChannels : kRowBytes / Traits::kElementBytes)) *\n"
        "problem.K <= 12",
    ),
    "streamed x is converted before it is there": (
        "stream_sm90_convert.cuh",
        "ptx::mbarrier_wait(barriers.raw_full(raws.stage), raws.parity);",
        "if (emulator::broken != BREAK) ptx::mbarrier_wait(barriers.raw_full(raws.stage), raws.parity);",
    ),
    "streamed x comes without room for it": (
        "stream_sm90_convert.cuh",
        "ptx::mbarrier_wait(barriers.raw_empty(stages.stage), stages.parity);",
        "if (emulator::broken != BREAK)\n"
        "ptx::mbarrier_wait(barriers.raw_empty(stages.stage), stages.parity);",
    ),
    "boxes of taps far apart begin side by side": (
        "stream_sm90_convert.cuh",
        "l + box * geometry.box_step,",
        "l + box * (emulator::broken == BREAK ? geometry.box_positions : geometry.box_step),",
    ),
    "streamed x is converted over what products read": (
        "stream_sm90_convert.cuh",
        "ptx::mbarrier_wait(barriers.x_empty(stages.stage), stages.parity);",
        "if (emulator::broken != BREAK) ptx::mbarrier_wait(barriers.x_empty(stages.stage), stages.parity);",
    ),
    "streamed products are read before their wait": (
        "stream_sm90_product.cuh",
        "ptx::wgmma_wait_group<0>();\n        release",
        "if (emulator::broken != BREAK) ptx::wgmma_wait_group<0>();\n        release",
    ),
    "streamed rows of y begin at other positions": (
        "stream_sm90_product.cuh",
        "const int32_t at = p - phi + kCount * lane + 32 * kCount * i;",
        "const int32_t at = p - phi + kCount * lane + 32 * kCount * i + (emulator::broken == BREAK);",
    ),
    "a stage of windows is filled before it is empty": (
        "window_sm90.cuh",
        "ptx::mbarrier_wait(barriers.empty(ring.stage), ring.parity);\n            const uint32_t target",
        "if (emulator::broken != BREAK) ptx::mbarrier_wait(barriers.empty(ring.stage), ring.parity);\n"
        "            const uint32_t target",
    ),
    "a stage of windows is read before it is there": (
        "window_sm90.cuh",
        "ptx::mbarrier_wait(barriers.full(ring.stage), ring.parity);\n        loader",
        "if (emulator::broken != BREAK) ptx::mbarrier_wait(barriers.full(ring.stage), ring.parity);\n"
        "        loader",
    ),
    "a stage of windows is left before its products": (
        "window_sm90.cuh",
        "if (done >= 0) release(done);\n                done = number;",
        "if (emulator::broken == BREAK) release(number);\n"
        "else if (done >= 0) release(done);\n                done = number;",
    ),
    "a block of a cluster does not wait for the other's products": (
        "window_sm90.cuh",
        "kProductWarps * kWindowCluster);",
        "kProductWarps * (emulator::broken == BREAK ? 1 : kWindowCluster));",
    ),
    "a block of a cluster ends before the other": (
        "window_sm90.cuh",
        "ptx::cluster_sync();  // shared memory outlives",
        "if (emulator::broken != BREAK) ptx::cluster_sync();  // shared memory outlives",
    ),
    "a chunk of y is written before it is stored": (
        "window_sm90.cuh",
        "ptx::mbarrier_wait(barriers.stored(chunk_ring.stage), chunk_ring.parity ^ 1);\n            Element",
        "if (emulator::broken != BREAK)\n"
        "ptx::mbarrier_wait(barriers.stored(chunk_ring.stage), chunk_ring.parity ^ 1);\n            Element",
    ),
    "a chunk of y is stored before it is staged": (
        "window_sm90.cuh",
        "ptx::mbarrier_wait(barriers.staged(ring.stage), ring.parity);",
        "if (emulator::broken != BREAK) ptx::mbarrier_wait(barriers.staged(ring.stage), ring.parity);",
    ),
    "constants of a tile are used before they are there": (
        "window_sm90.cuh",
        "ptx::mbarrier_wait(barriers.constants(tiles.stage), tiles.parity);\n            const",
        "if (emulator::broken != BREAK) ptx::mbarrier_wait(barriers.constants(tiles.stage), tiles.parity);\n"
        "            const",
    ),
    "rows apart have no padding": (
        "sliding_sm90.cuh",
        "if (!has_padding) return;",
        "if (!has_padding || emulator::broken == BREAK) return;",
    ),
    "windows begin one position late": (
        "sliding_sm90.cuh",
        "const int late_in_box = lateness<Traits>(problem, residue);",
        "const int late_in_box = lateness<Traits>(problem, residue) + (emulator::broken == BREAK);",
    ),
    "rows between pieces begin elsewhere": (
        "downsample_sm90.cuh",
        "(Traits::kIsFloat ? late : late / 2) * 4;",
        "(Traits::kIsFloat ? late : (late + (emulator::broken == BREAK)) / 2) * 4;",
    ),
    "a pointwise stage is filled before it is empty": (
        "pointwise_sm90.cuh",
        "ptx::mbarrier_wait(barriers.empty(filled.stage), filled.parity);\n                load_chunk",
        "if (emulator::broken != BREAK) ptx::mbarrier_wait(barriers.empty(filled.stage), filled.parity);\n"
        "load_chunk",
    ),
    "a pointwise block does not wait for the products of the other": (
        "pointwise_sm90.cuh",
        "kProductWarps * params.cluster);",
        "kProductWarps * (emulator::broken == BREAK ? 1 : params.cluster));",
    ),
    "a pointwise stage does not wait for copies": (
        "pointwise_sm90.cuh",
        "ptx::cp_async_wait_group<kUnderWay - 1>();",
        "if (emulator::broken != BREAK) ptx::cp_async_wait_group<kUnderWay - 1>();\n"
        "else ptx::cp_async_wait_group<kUnderWay>();",
    ),
    "boxes of a pointwise stage are converted before they are there": (
        "pointwise_sm90.cuh",
        "ptx::mbarrier_wait(barriers.landed(ready.stage), ready.parity);",
        "if (emulator::broken != BREAK) ptx::mbarrier_wait(barriers.landed(ready.stage), ready.parity);",
    ),
    "a pointwise stage is left before its products": (
        "pointwise_sm90.cuh",
        "if (step == 0 && done >= 0) release(done);\n            }\n            done = stages.stage;",
        "if (step == 0 && done >= 0) release(done);\n            }\n"
        "            if (emulator::broken != BREAK) done = stages.stage;\n"
        "            else release(stages.stage), done = -1;",
    ),
    "the second of two pointwise channels in a row begins elsewhere": (
        "pointwise_sm90.cuh",
        "Traits::plane_bytes(2) / 2 + 8,",
        "Traits::plane_bytes(2) / 2 + 8 * (emulator::broken != BREAK),",
    ),
    "pointwise sums are staged before they have been stored": (
        "pointwise_sm90.cuh",
        "staged[i * kStagedPitch + lane];\n            }\n            __syncwarp();",
        "staged[i * kStagedPitch + lane];\n            }\n            if (emulator::broken != BREAK) __syncwarp();",
    ),
}
POINTWISE = sum(file == "pointwise_sm90.cuh" for file, *_ in FAULTS.values())  # the last of them


def put_faults(name, text):
    """A source with every fault that belongs in it; emulator::broken says which one shows."""
    for number, (file, old, new) in enumerate(FAULTS.values(), 1):
        if file == name:
            assert text.count(old) == 1, f"{name}: {old}"
            text = text.replace(old, new.replace("BREAK", str(number)))
    return text


@pytest.fixture(scope="module")
def drivers(tmp_path_factory):
    """{name: program}, two built at a time: the kernels as they are; few instances of them with faults."""
    spec = importlib.util.spec_from_file_location("prepare_sm90", HERE / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folders = {name: tmp_path_factory.mktemp(name) for name in ("whole", "faulty")}
    module.prepare(ROOT / "kernels", folders["whole"])
    module.prepare(ROOT / "kernels", folders["faulty"], put_faults)
    programs = {}
    for name in ("driver", "pointwise"):
        builds = []
        for kind, folder in folders.items():
            # A vector load or store at an address that is no multiple of its size faults on a GPU.
            command = ["g++", "-std=c++17", "-O2", "-fno-strict-aliasing", "-w", "-fsanitize=alignment",
                       "-fno-sanitize-recover=alignment", f"-I{folder}", f"-I{CUDA_INCLUDE}",
                       *["-DFEW_INSTANCES"] * (kind == "faulty"), folder / f"{name}.cpp",
                       folder / "emulator.cpp", "-o", folder / name]  # fmt: skip
            builds.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
            programs[name, kind] = folder / name
        for build in builds:
            errors = build.communicate()[1]
            assert build.returncode == 0, errors
    return programs


def run_driver(driver, seed, count, fault=0):
    return subprocess.run(
        [driver, str(seed), str(count), str(fault)], capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("name", ["driver", "pointwise"])
def test_random_problems(drivers, name):
    """The same problems every time and, next to them, new ones every day. A report names the seed, which
    `driver SEED 1` runs again."""
    today = datetime.date.today().toordinal() * 1000
    print(f"seeds of today: {today}")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    runs = [subprocess.Popen([drivers[name, "whole"], str(seed), "140"], **pipes) for seed in (1, today)]
    for run in runs:
        out, errors = run.communicate(timeout=300)
        assert run.returncode == 0, errors
        print(out)
        if run is runs[0]:
            counts = {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", out)}
            assert min(counts.values()) > 0, counts  # among others: no tile, some and all listed by f16x3


@pytest.mark.parametrize("number", range(len(FAULTS) + 1), ids=["none", *FAULTS])
def test_faults_are_found(drivers, number):
    """A fault shows within a bounded number of problems; the same ones run well without it."""
    name = "pointwise" if number > len(FAULTS) - POINTWISE else "driver"
    run = run_driver(drivers[name, "faulty"], 1, 40 if number == 0 else 300, number)
    print(run.stderr)
    assert (run.returncode == 0) == (number == 0), run.stderr
