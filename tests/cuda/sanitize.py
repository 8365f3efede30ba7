"""Small problems of every route and dtype, for compute-sanitizer to watch:

    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck python tests/cuda/sanitize.py memcheck

Operands are made on the CPU, so that nearly all kernels that run are ours. Prints one line a route.
"""

import pathlib
import sys

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import model_new  # noqa: E402

# (N, groups, C, O, L, K, stride, padding, dilation): ragged tiles, halos, short rows. On Hopper no more chunks of
# channels than stages: a stage that is written again, after mbarriers said that its readers have left, is a race
# to racecheck, which does not follow them from one mbarrier to the next. tests/emulator_sm90 does, and it alone
# looks for races where even small problems write stages again or hand them on twice: see `watched`.
PROBLEMS = [
    (2, 1, 17, 9, 203, 3, 1, (1, 1), 1),
    (2, 1, 17, 250, 1100, 1, 1, (0, 0), 1),
    (1, 1, 40, 70, 301, 5, 3, (2, 2), 2),
    (5, 2, 16, 8, 7, 3, 1, (1, 1), 1),
    (1, 1, 16, 130, 72, 1, 1, (0, 0), 1),
    (2, 1, 32, 130, 252, 1, 1, (0, 0), 1),
    (3, 2, 52, 136, 100, 1, 1, (0, 0), 1),
    (2, 1, 40, 70, 264, 3, 1, (1, 1), 1),
    (2, 1, 64, 66, 808, 3, 3, (2, 2), 4),
    (2, 1, 48, 40, 400, 3, 2, (1, 1), 1),
    (2, 2, 40, 72, 300, 5, 1, (2, 1), 1),
    (1, 1, 16, 40, 841, 11, 8, (4, 3), 1),
    (2, 1, 16, 70, 1600, 16, 8, (0, 8), 1),
    (2, 3, 1, 1, 301, 5, 1, (2, 2), 1),
    (2, 3, 1, 2, 101, 3, 2, (2, 2), 3),
    (2, 1, 2, 3, 67, 4, 1, (3, 0), 1),
    (2, 1, 1, 70, 2603, 10, 5, (0, 0), 1),
    (2, 3, 3, 24, 131, 7, 1, (3, 3), 2),
    (2, 1, 4, 150, 600, 9, 1, (4, 4), 1),
    (1, 1, 1, 300, 5203, 10, 5, (0, 0), 1),
    (1, 2, 4, 33, 2100, 15, 1, (7, 7), 1),
    (3, 1, 70, 3, 131, 9, 2, (4, 4), 3),
    (2, 1, 100, 3, 131, 12, 2, (4, 4), 1),
    (2, 1, 40, 1, 1032, 7, 1, (3, 3), 1),
    (2, 1, 1, 16, 901, 251, 1, (0, 0), 1),
    (1, 2, 48, 40, 250, 60, 1, (30, 30), 1),
    (2, 3, 1, 1, 2001, 31, 1, (15, 15), 1),
    (1, 2, 1, 1, 8003, 7, 1, (96, 96), 32),
    (1, 2, 1, 1, 700, 513, 1, (512, 512), 1),
    (9, 2200, 1, 1, 21, 3, 1, (2, 0), 1),
    (2, 40, 1, 1, 301, 9, 3, (4, 4), 2),
    (2, 3, 1, 1, 1203, 13, 8, (6, 6), 1),
    (2, 3, 1, 1, 33, 101, 1, (50, 50), 1),
    (3, 2, 1, 1, 1001, 600, 1, (599, 0), 1),
    (2, 3, 5, 4, 701, 5, 4, (2, 2), 1),
    (3, 1, 3, 20, 90, 110, 2, (300, 300), 3),
    (5, 2, 6, 9, 23, 3, 8, (1, 1), 5),
    (1, 1, 64, 1024, 3648, 3, 2, (1, 1), 1),
    (1, 1, 72, 1000, 3701, 3, 2, (0, 0), 1),
    (2, 1, 48, 72, 303, 3, 1, (1, 1), 1),
]
SLOW = 10**8  # products


def watched(tool, route, stride, products):
    folded = route == "gemm_sm90" and stride == 8
    if tool == "racecheck" and (folded or route in ("pointwise_sm90", "sliding_sm90", "downsample_sm90")):
        return False
    return products < SLOW or route == "downsample_sm90"  # which takes nothing small


def main(tool):
    ops = model_new._conv1d_ops
    ran = dict.fromkeys(ops.routes(), 0)
    torch.manual_seed(0)
    for N, groups, C, O, L, K, stride, padding, dilation in PROBLEMS:
        x = torch.randn(N, groups * C, L, dtype=torch.float64)
        weight = torch.randn(groups * O, C, K, dtype=torch.float64) / (C * K) ** 0.5
        bias = torch.randn(groups * O, dtype=torch.float64)
        padded = torch.nn.functional.pad(x, padding)
        expected = torch.nn.functional.conv1d(padded, weight, bias, stride, 0, dilation, groups)
        for dtype, allowed, tolerance in [
            (torch.float32, False, 1e-5),
            (torch.float32, True, 1e-2),
            (torch.float64, False, 1e-13),
            (torch.float16, False, 2e-2),
            (torch.bfloat16, False, 1e-1),
        ]:
            torch.backends.cudnn.allow_tf32 = allowed
            operands = [t.to(dtype).cuda() for t in (x, weight, bias)]
            for route in ops.routes():
                if not watched(tool, route, stride, expected.numel() * C * K):
                    continue
                try:
                    y = ops.conv1d_by(route, *operands, (stride,), padding, (dilation,), groups)
                except RuntimeError as error:
                    assert "does not take this problem" in str(error), error
                    continue
                torch.testing.assert_close(y.cpu().double(), expected, rtol=tolerance, atol=tolerance)
                if dtype == torch.float16:  # watched, kernels are slow: one activation stands for all
                    activated = ops.conv1d_by(
                        route, *operands, (stride,), padding, (dilation,), groups, "gelu"
                    )
                    torch.testing.assert_close(activated.cpu(), torch.nn.functional.gelu(y.cpu()))
                ran[route] += 1
    for route, count in ran.items():
        print(f"{route}: {count} problems")


if __name__ == "__main__":
    main(*sys.argv[1:])
