"""Rewrites the kernels' source as plain C++ for the emulator: python prepare.py KERNELS TARGET."""
import pathlib
import re
import shutil
import sys

HERE = pathlib.Path(__file__).resolve().parent
SOURCES = ["problem.h", "dispatch.cuh", "tile.cuh", "downsample_sm90.cuh", "downsample_sm90_plan.cuh",
           "gemm_sm90.cu", "gemm_sm90.cuh", "gemm_sm90_16bit.cu", "gemm_sm90_channels_last.cu",
           "gemm_sm90_channels_last_16bit.cu", "gemm_sm90_convert.cuh", "gemm_sm90_folded.cu",
           "gemm_sm90_folded_16bit.cu", "gemm_sm90_kernel.cuh", "gemm_sm90_pipeline.cuh", "gemm_sm90_plan.cuh",
           "gemm_sm90_product.cuh", "launch.cuh", "pointwise_sm90.cuh", "sliding_sm90.cuh",
           "sliding_sm90_five.cu", "sliding_sm90_plan.cuh", "stream_sm90.cuh", "stream_sm90_convert.cuh",
           "stream_sm90_plan.cuh", "stream_sm90_product.cuh", "window_sm90.cuh", "window_sm90_plan.cuh"]  # fmt: skip
LAUNCH = re.compile(r"(\w+(?:<[\w:, ]+>)?)\s*<<<(.*?)>>>\s*\((.*?)\);", re.DOTALL)


def rewrite(text):
    """What g++ cannot take: launches, dynamic shared memory, the test for the architecture. And a bound that
    no small problem reaches."""
    text = LAUNCH.sub(r"emulator::launch(\2, [&] { \1(\3); });", text)
    text = re.sub(r"extern __shared__ (\w+) (\w+)\[\];", r"\1* const \2 = emulator::shared_memory();", text)
    text = text.replace("#if __CUDA_ARCH__ == 900", "#if 1")
    text = text.replace("#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ == 900", "#if 1")
    text = text.replace("constexpr int64_t kFewWarps = 4096;", "const int64_t kFewWarps = emulator::few_warps;")
    # After the CUDA headers, whose names the emulator takes over.
    return text.replace("#include <cuda_runtime.h>", '#include <cuda_runtime.h>\n#include "emulator.h"')


def prepare(kernels, target, change=lambda name, text: text):
    """The rewritten sources and the emulator's own in `target`; `change` may alter a source first."""
    target.mkdir(parents=True, exist_ok=True)
    for name in SOURCES:
        text = rewrite(change(name, (kernels / name).read_text()))
        assert "<<<" not in text and "extern __shared__" not in text, name
        (target / name).write_text(text)
    for path in [*HERE.glob("*.h"), *HERE.glob("*.cpp"), *HERE.glob("*.cuh")]:
        shutil.copy(path, target)


if __name__ == "__main__":
    prepare(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
