"""Every route of the CUDA table, and the one that the table chooses, against the definition in float64."""

import random

import pytest
import torch

from problems import LAYOUTS, MODES, Problem, assert_accurate, draw, reference, run_by, tf32
from reference import UNDERFLOW

FAMILIES = ["dense", "grouped", "depthwise", "few channels", "small groups", "few outputs"]

# What one step past an edge of the kernels looks like.
EDGES = {
    "one of all": Problem(1, 1, 1, 1, 1),
    "one position": Problem(3, 16, 8, 1, 1),
    "kernel as long as x": Problem(2, 20, 24, 9, 9),
    "kernel as long as padded x": Problem(2, 20, 24, 5, 9, padding=(2, 2)),
    "stride beyond kernel": Problem(2, 17, 9, 100, 3, stride=7),
    "stride beyond x": Problem(2, 17, 9, 100, 3, stride=1000),
    "huge stride of one position": Problem(2, 17, 9, 100, 3, stride=2**60),
    "huge dilation of one tap": Problem(2, 17, 9, 100, 1, dilation=2**60),
    "dilation beyond half of x": Problem(2, 18, 33, 100, 2, dilation=99),
    "padding beyond kernel": Problem(2, 18, 33, 10, 3, padding=(500, 0)),
    "all padding but one": Problem(2, 16, 8, 1, 3, padding=(1, 1)),
    "even kernel on one side": Problem(2, 16, 8, 61, 4, padding=(3, 0)),
    "odd length": Problem(2, 33, 65, 129, 3, padding=(1, 1)),
    "last position alone in its tile": Problem(1, 16, 130, 257, 1),
    "many taps": Problem(2, 16, 16, 900, 300),
    "many taps, dilated": Problem(1, 16, 16, 1500, 40, dilation=37),
    "long sums": Problem(1, 1500, 40, 300, 5, padding=(2, 2)),
    "half channels of a fragment": Problem(2, 24, 40, 200, 3),
    "stride of 8 as channels": Problem(2, 24, 72, 1704, 16, stride=8, padding=(8, 8)),
    "stride of 8 as channels, rows of any alignment": Problem(2, 19, 70, 1705, 15, stride=8, padding=(3, 5)),
    "stride of 8 as channels, many taps": Problem(1, 33, 30, 3001, 180, stride=8, padding=(89, 89)),
    "short rows of many samples": Problem(500, 20, 40, 3, 3, padding=(1, 1)),
    "rows of half a tile": Problem(9, 20, 140, 60, 3, padding=(1, 1)),
    "groups of 16": Problem(2, 16, 16, 70, 3, groups=9),
    "one output, many channels": Problem(3, 300, 1, 3001, 7, padding=(3, 3)),
    "few outputs, strided and dilated": Problem(2, 50, 2, 2999, 4, stride=3, dilation=90, groups=3),
    "many rounds of a short sum": Problem(16, 1, 200, 50000, 10, stride=5),
    "short sums, all planes": Problem(40, 3, 37, 9001, 8, stride=8, dilation=3, padding=(4, 4)),
    "short sums, much shared memory": Problem(16, 8, 16, 4096, 41, stride=2, padding=(20, 20), groups=16),
    "stem, rows begin anywhere in a sector": Problem(2, 1, 300, 5203, 11, stride=5),
    "stem, several channels, dilated": Problem(2, 3, 70, 4100, 13, padding=(9, 40), dilation=4),
    "stem, groups, strided": Problem(2, 5, 40, 8200, 7, stride=2, padding=(3, 3), groups=4),
    "stem, long sums": Problem(1, 4, 200, 3000, 15, padding=(7, 7)),
    "stem, long sums, long rows": Problem(2, 4, 64, 8192, 15, padding=(7, 7)),
    "stem, longest sums": Problem(3, 4, 61, 2500, 19, padding=(9, 9)),
    "stem, products half empty": Problem(2, 2, 70, 9001, 8, stride=4),
    "few outputs, rows of whole vectors": Problem(3, 40, 1, 4096, 7, padding=(3, 3)),
    "few outputs, strided, rows of whole vectors": Problem(2, 21, 2, 4104, 3, stride=4, padding=(1, 1)),
    "few outputs of long sums": Problem(5, 243, 1, 111, 24, stride=8, padding=(207, 207), dilation=9),
    "few outputs of long sums, several rows": Problem(2, 60, 6, 999, 25, padding=(12, 12)),
    "few outputs of very many products": Problem(1, 260, 4, 6597, 25, padding=(12, 12)),
    "gathered, 16 outputs a thread": Problem(200, 3, 21, 300, 3, padding=(1, 1)),
    "gathered, sums in parts": Problem(3, 100, 5, 200, 9, stride=3, padding=(0, 7)),
    "gathered, one product beyond a batch": Problem(4, 13, 3, 501, 1, stride=2, groups=3),
    "gathered, all parts by one thread": Problem(40, 2, 3, 1500, 12, groups=5),
    "small, a warp a part": Problem(2, 130, 24, 40, 5, padding=(2, 2)),
    "small, long sums": Problem(3, 320, 28, 33, 11, padding=(10, 10), dilation=2),
    "small, all parts in a warp": Problem(64, 25, 25, 700, 7, padding=(192, 192), dilation=64),
    "small, four warps a tile": Problem(30, 40, 130, 660, 4, stride=2, padding=(1, 1)),
    "small, odd weights of four warps a tile": Problem(40, 27, 120, 300, 5),
    "folded, wide rows, stores of any alignment": Problem(2, 1, 70, 5003, 10, stride=5),
    "folded, wide rows, aligned stores": Problem(2, 2, 64, 4099, 8, stride=4, padding=(2, 2)),
    "folded, odd taps and odd channels": Problem(3, 3, 24, 301, 7, padding=(3, 3), dilation=5),
    "folded, one channel, odd taps": Problem(3, 1, 40, 700, 251),
    "folded, several blocks of outputs": Problem(2, 4, 300, 600, 19, padding=(9, 9)),
    "folded, groups of 16 outputs": Problem(3, 4, 16, 512, 41, stride=4, padding=(20, 20), groups=5),
    "folded, few outputs of a group": Problem(3, 12, 5, 163, 7, padding=(3, 3), groups=9),
    "folded, chunks of channels": Problem(2, 15, 33, 700, 120, stride=2, padding=(60, 60)),
    "folded, chunks of 48 channels": Problem(2, 48, 48, 499, 128, padding=(64, 64), groups=2),
    "folded, half-empty chunk": Problem(3, 25, 25, 784, 39, padding=(19, 19)),
    "folded, half-empty last block": Problem(2, 5, 130, 1030, 9, padding=(4, 4)),
    "folded, few outputs, strided and dilated": Problem(
        2, 12, 5, 20000, 9, stride=4, padding=(5, 3), dilation=3, groups=2
    ),
    "folded, few outputs, much of x a block": Problem(10, 12, 10, 2294, 15, stride=4, padding=(7, 7), groups=10),
    "folded, stride 64": Problem(2, 2, 32, 8200, 64, stride=64),
    "folded, 5000 taps": Problem(1, 1, 16, 5200, 5000),
    "depthwise, long row": Problem(1, 1, 1, 30011, 31, padding=(15, 15), groups=2),
    "depthwise, rows of one": Problem(2, 1, 1, 1, 1, groups=1000),
    "depthwise, 2047 taps": Problem(1, 1, 1, 2048, 2047, padding=(2046, 0), groups=3),
    "depthwise, 5000 taps": Problem(1, 1, 1, 6001, 5000, groups=2),
    "depthwise, few taps, rows of any alignment": Problem(3, 1, 1, 4099, 7, padding=(6, 3), groups=400),
    "depthwise, dilated runs": Problem(2, 1, 1, 800, 87, padding=(86, 86), dilation=2, groups=30),
    "depthwise, more runs than a warp": Problem(2, 1, 1, 3999, 3, padding=(128, 128), dilation=128, groups=9),
    "depthwise, padding longer than the row": Problem(1, 1, 2, 300, 700, padding=(650, 699), groups=5),
    "depthwise, several samples a block": Problem(11, 1, 1, 301, 4, padding=(3, 0), groups=2200),
    "depthwise, taps a product apart": Problem(2, 1, 1, 700, 9, padding=(99, 99), dilation=24, groups=7),
    "depthwise, taps a little less apart": Problem(2, 1, 1, 700, 9, padding=(99, 99), dilation=23, groups=7),
    "depthwise, two outputs, several segments": Problem(1, 1, 2, 15001, 300, padding=(7, 290), groups=3),
    "depthwise, few taps, dilated, odd rows": Problem(3, 1, 1, 2051, 2, dilation=301, groups=50),
    "depthwise, strided": Problem(3, 1, 1, 1001, 5, stride=3, dilation=2, padding=(4, 4), groups=20),
    "depthwise, strided, many rows": Problem(9, 1, 1, 901, 19, stride=4, padding=(9, 9), groups=200),
    "depthwise, strided and dilated runs": Problem(9, 1, 2, 901, 9, stride=4, dilation=6, groups=70),
    "depthwise, stride 8": Problem(3, 1, 1, 2001, 13, stride=8, padding=(6, 6), groups=20),
    "depthwise, stride 2, taps in turns": Problem(3, 1, 1, 1203, 7, stride=2, padding=(3, 3), groups=21),
    "depthwise, stride 4, taps in turns": Problem(
        3, 1, 2, 2051, 15, stride=4, padding=(7, 7), dilation=3, groups=20
    ),
    "depthwise, stride 6, taps in turns": Problem(2, 1, 1, 4001, 9, stride=6, groups=20),
    "depthwise, stride 8, taps in turns, far apart": Problem(
        2, 1, 1, 6007, 23, stride=8, padding=(198, 198), dilation=9, groups=20
    ),
    "depthwise, stride 8, many taps, few positions": Problem(3, 1, 1, 900, 40, stride=8, groups=41),
    "depthwise, stride 8, short rows": Problem(5, 1, 1, 50, 61, stride=8, padding=(30, 30), groups=70),
    "depthwise, stride 3, dilated": Problem(5, 1, 1, 900, 7, stride=3, dilation=9, groups=70),
    "depthwise, short rows": Problem(9, 1, 1, 45, 6, padding=(45, 45), dilation=9, groups=70),
    "depthwise, few loads in all": Problem(5, 1, 1, 54, 47, padding=(46, 46), groups=17),
    "depthwise, rows too short for a warp": Problem(70, 1, 2, 16, 5, padding=(2, 2), groups=130),
    "depthwise, short rows, dilated": Problem(9, 1, 1, 23, 5, padding=(4, 0), dilation=3, groups=50),
    "depthwise, most taps see padding": Problem(
        3, 1, 1, 60, 400, stride=2, padding=(1197, 1197), dilation=3, groups=9
    ),
    "depthwise, channels last": Problem(3, 1, 1, 901, 9, padding=(8, 0), groups=130, layout="transposed"),
    "depthwise, channels last, strided": Problem(
        3, 1, 2, 901, 5, stride=2, dilation=3, groups=70, layout="transposed"
    ),
    "depthwise, long filter, 8 samples": Problem(9, 1, 1, 2048, 2047, padding=(2046, 0), groups=3),
    "depthwise, long filter, odd rows": Problem(3, 1, 2, 3001, 701, padding=(350, 350), groups=3),
    "depthwise, long filter, several segments": Problem(1, 1, 1, 70001, 1000, groups=2),
    "depthwise, long filter, all padding but one": Problem(2, 1, 1, 1, 640, padding=(639, 0), groups=5),
    "depthwise, long filter, dilated": Problem(2, 1, 1, 2500, 520, dilation=2, groups=5, bias=False),
    # Large enough for Hopper's GEMM to split fp32 into fp16.
    "dense, large": Problem(24, 128, 128, 3001, 3, padding=(1, 1)),
    "dense, large, strided, ragged": Problem(16, 200, 300, 3007, 5, stride=2, dilation=3, padding=(2, 9)),
    "dense, large, many short rows": Problem(400, 130, 256, 63, 5, padding=(2, 2)),
    "dense, large, two groups, aligned rows": Problem(16, 96, 130, 2048, 7, padding=(3, 3), groups=2),
    "one tap, rows between pieces of 16 bytes": Problem(8, 256, 256, 1500, 1),
    "two taps of a stride of 8": Problem(8, 64, 256, 9000, 2, stride=8),
    "downsampled": Problem(2, 80, 1024, 3648, 3, stride=2, padding=(1, 1)),
    "downsampled, padded behind alone": Problem(3, 64, 1000, 3648, 3, stride=2, padding=(0, 1)),
    "downsampled, padded before alone": Problem(1, 100, 1024, 3656, 3, stride=2, padding=(1, 0)),
    "downsampled, odd rows": Problem(2, 72, 1024, 3701, 3, stride=2),
    "downsampled, odd rows, four more channels": Problem(3, 68, 1024, 3699, 3, stride=2, bias=False),
    "downsampled, rows of two": Problem(2, 64, 1024, 3702, 3, stride=2),
    "downsampled, groups": Problem(1, 66, 512, 7296, 3, stride=2, padding=(1, 1), groups=2),
    "downsampled, large": Problem(16, 200, 512, 8000, 3, stride=2, padding=(1, 1)),
    "one tap, a large stride": Problem(3, 40, 72, 1001, 1, stride=5),
    "one tap, a large stride, padded behind": Problem(2, 64, 130, 1003, 1, stride=8, padding=(0, 20), groups=2),
    "one tap, a large stride, large": Problem(16, 200, 136, 30003, 1, stride=4, bias=False),
    "one tap, two blocks share x of 16 bits": Problem(20, 520, 256, 1024, 1),
    "one tap, two blocks share x": Problem(26, 1024, 250, 2048, 1),
    "sliding": Problem(3, 80, 200, 704, 3, padding=(1, 1)),
    "sliding, five taps": Problem(2, 100, 96, 1000, 5, padding=(2, 2)),
    "sliding, causal": Problem(2, 64, 130, 400, 5, padding=(4, 0)),
    "sliding, padding beyond a piece": Problem(1, 40, 64, 264, 3, padding=(11, 9)),
    "sliding, no padding, few channels": Problem(5, 17, 40, 120, 3, bias=False),
    "sliding, three more positions": Problem(2, 48, 64, 200, 5, padding=(3, 3)),
    "sliding, many short rows": Problem(301, 64, 128, 48, 5, padding=(2, 2)),
    "sliding, rows of 16 bits between pieces": Problem(7, 34, 72, 300, 5, padding=(2, 2)),
    "sliding, short rows of 16 bits between pieces": Problem(9, 40, 72, 60, 3, padding=(1, 3)),
    "sliding, odd rows": Problem(3, 80, 200, 701, 3, padding=(1, 1)),
    "sliding, odd rows, three more positions": Problem(2, 100, 72, 1003, 5, padding=(3, 0)),
    "sliding, odd rows, padding beyond them": Problem(5, 40, 64, 51, 3, padding=(11, 9)),
    "sliding, odd rows, groups": Problem(3, 32, 48, 255, 3, padding=(1, 1), groups=3),
    "sliding, rows of two residues": Problem(5, 46, 96, 302, 5, padding=(2, 2)),
    "sliding, rows of four residues of 16 bits": Problem(5, 44, 96, 306, 3, padding=(1, 2)),
    "sliding, odd rows, large": Problem(16, 136, 250, 3001, 3, padding=(1, 1)),
    "sliding, groups": Problem(3, 32, 48, 256, 3, padding=(1, 1), groups=3),
    "sliding, large": Problem(16, 136, 250, 3000, 3, padding=(1, 1)),
    "sliding, five taps, large": Problem(40, 72, 256, 1028, 5, padding=(0, 4)),
    # Rows of x begin at multiples of 16 bytes.
    "streamed": Problem(40, 64, 128, 2048, 3),
    "streamed, ragged, odd rows of y": Problem(3, 45, 99, 1800, 3, padding=(1, 2)),
    "streamed, stride 2": Problem(7, 64, 66, 2400, 3, stride=2, padding=(1, 1)),
    "streamed, stride 3, dilated": Problem(64, 50, 128, 4096, 3, stride=3, dilation=4, padding=(5, 0)),
    "streamed, stride 4": Problem(4, 64, 128, 4096, 3, stride=4, padding=(2, 2)),
    "streamed, planes that no tap reads": Problem(2, 40, 100, 904, 3, stride=4, dilation=4),
    "streamed, rows half a tile": Problem(60, 40, 100, 72, 3, padding=(1, 1)),
    "streamed, a box for each tap": Problem(3, 50, 128, 3000, 3, dilation=299, padding=(299, 299)),
    "streamed, two taps": Problem(3, 64, 70, 2400, 2, padding=(1, 0)),
    "streamed, two taps, a box for each": Problem(2, 33, 128, 2400, 2, dilation=515, padding=(515, 0)),
    "streamed, widest tiles": Problem(20, 64, 128, 16384, 3, padding=(1, 1)),
    "streamed, half the outputs": Problem(5, 64, 64, 2400, 3, padding=(1, 1)),
    "streamed, half the outputs, ragged": Problem(3, 40, 37, 1800, 2, stride=2, padding=(1, 0)),
    "folded, tap pairs": Problem(2, 1, 40, 3000, 45, stride=2, padding=(22, 22)),
    "folded, groups": Problem(3, 6, 24, 2100, 31, padding=(15, 15), dilation=2, groups=3),
    "folded, chunks": Problem(2, 7, 20, 5000, 430, padding=(200, 229)),
    "chunks of taps": Problem(2, 3, 50, 700, 900, padding=(600, 600)),
    "chunks in padding": Problem(2, 5, 20, 60, 300, stride=3, padding=(1200, 1200), dilation=7),
    "small groups, strided": Problem(3, 5, 4, 2100, 5, stride=4, groups=7),
    "short samples": Problem(40, 6, 12, 25, 4, stride=3, padding=(2, 2), groups=2),
    "shared sums": Problem(2, 12, 20, 40, 60, padding=(30, 30)),
    "many samples": Problem(65536, 3, 5, 5, 3, padding=(1, 1)),
    "many samples, dense": Problem(65536, 16, 8, 5, 3, padding=(1, 1)),
    "many samples, depthwise": Problem(65536, 1, 1, 5, 3, padding=(1, 1), groups=4),
    "many channels": Problem(1, 65536, 8, 6, 1),
    "many outputs": Problem(1, 16, 65536, 6, 3),
    "many groups": Problem(2, 1, 1, 7, 3, groups=65536),
    "many groups, dense": Problem(1, 16, 8, 7, 3, groups=4096),
}


def pytest_generate_tests(metafunc):
    if "route" in metafunc.fixturenames:
        import model_new

        metafunc.parametrize("route", ["chosen", *model_new._conv1d_ops.routes()])


def run(ops, route, arguments):
    return ops.conv1d(*arguments) if route == "chosen" else run_by(ops, route, arguments)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("edge", EDGES)
def test_edges(model_new, edge, mode):
    """By every route that takes the problem; the last row of the table takes them all."""
    dtype, allowed = MODES[mode]
    arguments = EDGES[edge].arguments(dtype)
    before = arguments[0].clone()
    ops = model_new._conv1d_ops
    took = []
    with tf32(allowed):
        assert ops.route(*arguments) in ops.routes()
        for route in ["chosen", *ops.routes()]:
            y = run(ops, route, arguments)
            if y is not None:
                took.append(route)
                assert_accurate(y, arguments, mode, (edge, route))
    assert took[0] == "chosen" and took[-1] == ops.routes()[-1]
    assert torch.equal(arguments[0], before)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_random_problems(model_new, family, mode):
    dtype, allowed = MODES[mode]
    numbers = random.Random(f"{family} {mode}")
    ops = model_new._conv1d_ops
    with tf32(allowed):
        for seed in range(60):
            problem = draw(numbers, family)
            arguments = problem.arguments(dtype, seed)
            for route in ["chosen", *ops.routes()]:
                y = run(ops, route, arguments)
                if y is not None:
                    assert_accurate(y, arguments, mode, (problem, route))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", MODES)
def test_layouts(model_new, layout, mode):
    """x of every layout, its rows of every alignment, by every route."""
    dtype, allowed = MODES[mode]
    ops = model_new._conv1d_ops
    for C, O, groups in [(32, 64, 1), (40, 72, 1), (16, 130, 2), (1, 1, 24), (3, 5, 2), (5, 24, 2), (1, 16, 1)]:
        for L in [257, 258, 260, 264]:
            problem = Problem(2, C, O, L, 3, padding=(1, 1), groups=groups, layout=layout)
            arguments = problem.arguments(dtype)
            with tf32(allowed):
                for route in ["chosen", *ops.routes()]:
                    y = run(ops, route, arguments)
                    if y is not None:
                        assert_accurate(y, arguments, mode, (problem, route))


def test_each_route_takes_something(model_new):
    """Else the tests above would say nothing about it. On Hopper, every route of the table fits something."""
    ops = model_new._conv1d_ops
    chosen = set()
    for mode, (dtype, allowed) in MODES.items():
        for problem in [
            Problem(2, 64, 128, 4096, 3),
            Problem(40, 64, 128, 2048, 3),
            Problem(2, 64, 128, 512, 1),
            Problem(1, 64, 1024, 3648, 3, stride=2, padding=(1, 1)),
            Problem(2, 1, 1, 4096, 3, groups=8),
            Problem(2, 3, 8, 512, 3),
            Problem(2, 4, 32, 512, 15),
            Problem(2, 4, 192, 2048, 15),
            Problem(2, 1, 1, 4096, 40, groups=8),
            Problem(2, 1, 1, 4096, 600, groups=8),
            Problem(1, 16, 1, 60000, 3),
        ]:
            with tf32(allowed):
                chosen.update(
                    r for r in ops.routes() if run_by(ops, r, problem.arguments(dtype)) is not None
                )
    if torch.cuda.get_device_capability() == (9, 0):
        assert chosen == set(ops.routes())
    assert {"depthwise", "direct"} <= chosen


@pytest.mark.parametrize("mode", MODES)
def test_weights_of_any_strides(model_new, mode):
    dtype, allowed = MODES[mode]
    x, weight, bias, *numbers = Problem(2, 32, 48, 200, 3).arguments(dtype)
    transposed = weight.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    spread = torch.stack([bias, bias], 1).flatten()[::2]
    with tf32(allowed):
        y = model_new._conv1d_ops.conv1d(x, transposed, spread, *numbers)
        assert torch.equal(y, model_new._conv1d_ops.conv1d(x, weight, bias, *numbers))


@pytest.mark.parametrize("mode", MODES)
def test_inf_and_nan_stay_where_they_belong(model_new, route, mode):
    """One inf or NaN of x reaches the outputs whose window holds it, in all channels, and no others; but in fp32
    sliding_sm90 computes some tiles around it again, more exactly."""
    dtype, allowed = MODES[mode]
    for C, O, groups, K in [(32, 48, 1, 5), (1, 1, 8, 5), (3, 5, 1, 5), (3, 24, 1, 5), (1, 9, 2, 5), (32, 70, 1, 1)]:
        for value in [float("inf"), float("-inf"), float("nan")]:
            problem = Problem(2, C, O, 400, K, padding=(K // 2, K // 2), groups=groups)
            x, *rest = problem.arguments(dtype)
            clean = (x, *rest)
            dirty = (x.clone(), *rest)
            dirty[0][1, 0, 200] = value
            with tf32(allowed):
                y, expected = run(model_new._conv1d_ops, route, dirty), run(
                    model_new._conv1d_ops, route, clean
                )
            if y is None:
                continue
            window = torch.zeros_like(y, dtype=torch.bool)
            window[1, : O if groups > 1 else None, 200 - K // 2 : 201 + K // 2] = True
            if mode == "fp32" and route == "sliding_sm90":
                torch.testing.assert_close(y[~window], expected[~window], rtol=1e-5, atol=1e-5)
            else:
                assert torch.equal(y[~window], expected[~window])
            if value != value:
                assert y[window].isnan().all()
            else:
                weight = rest[0][: O if groups > 1 else None, 0].flip(
                    -1
                )  # output 198 reads position 200 by tap 4
                assert torch.equal(y[window], (weight * value).flatten())


@pytest.mark.parametrize("mode", MODES)
def test_inf_and_nan_of_a_row_stay_there(model_new, mode):
    """Rows that begin between 16-byte pieces are loaded with their neighbours'; fp32 does some tiles again."""
    dtype, allowed = MODES[mode]
    for L, O, stride, padding in [(3648, 1024, 2, 1), (3701, 1024, 2, 0), *((L, 72, 1, 1) for L in range(1000, 1005))]:
        problem = Problem(2, 64, O, L, 3, stride=stride, padding=(padding, padding))
        x, *rest = problem.arguments(dtype)
        for value in [float("inf"), float("nan")]:
            dirty = x.clone()
            dirty[1, 5, L - 1] = dirty[1, 6, 0] = value  # the last of a row, the first of the next
            with tf32(allowed):
                y, expected = (model_new._conv1d_ops.conv1d(operand, *rest) for operand in (dirty, x))
            ends = torch.zeros_like(y, dtype=torch.bool)
            reached = 3 - stride  # outputs at either end whose windows hold it
            ends[1, :, :reached] = ends[1, :, -reached:] = True
            assert not y[ends].isfinite().any()
            torch.testing.assert_close(y[~ends], expected[~ends], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_inf_stays_out_of_taps_that_a_folded_stride_adds(model_new, mode):
    """Hopper's GEMM makes 16 taps of 11 at a stride of 8; an infinity must not meet their weights of zero."""
    dtype, allowed = MODES[mode]
    x, *rest = Problem(2, 20, 40, 1000, 11, stride=8, padding=(3, 3)).arguments(dtype)
    dirty = x.clone()
    dirty[1, 0, 500] = float("inf")  # position 503 of padded x: taps 7 of output 62 and 15 of output 61
    with tf32(allowed):
        y, expected = (model_new._conv1d_ops.conv1d(operand, *rest) for operand in (dirty, x))
    assert not y[1, :, 62].isfinite().any()
    y[1, :, 62] = expected[1, :, 62]
    torch.testing.assert_close(y, expected, rtol=1e-2, atol=1e-1)


@pytest.mark.parametrize("K", [1, 3, 5])
@pytest.mark.parametrize("C", [16, 32, 64, 200])
def test_fp32_is_as_accurate_as_multiply_adds(model_new, C, K):
    """By every route, against float64: an error at most twice that of PyTorch's fp32 (FFMA), in the mean over
    outputs of positive x, whose sums an accumulator that truncates would bias."""
    x, *rest = Problem(3, C, 96, 1000, K).arguments(torch.float32)
    arguments = (x.abs(), *rest)
    expected, _ = reference(arguments, rounds=False)

    def error(y):
        return float((y.double() - expected).norm())

    with tf32(False):
        theirs = error(torch.nn.functional.conv1d(*arguments[:3]))
        for route in model_new._conv1d_ops.routes():
            y = run_by(model_new._conv1d_ops, route, arguments)
            if y is not None:
                assert error(y) <= 2 * theirs, route


def hostile(kind, shape, generator):
    """fp32 numbers of magnitudes that a split into smaller formats may not hold."""

    def random(*shape):
        return torch.randn(shape, generator=generator, device="cuda")

    def uniform(*shape):
        return torch.rand(shape, generator=generator, device="cuda")

    x = random(*shape)
    N, C, L = shape
    if kind == "log-uniform":
        return x * torch.exp2(120 * uniform(*shape) - 60)
    if kind == "silence beside full scale":
        return x * torch.where(torch.arange(L, device="cuda") // 50 % 2 == 0, 1.0, 2.0**-30)
    if kind == "one outlier":
        x[N // 2, C // 2, L // 2] = 1e30
    if kind == "channels of any scale":
        return x * torch.exp2(80 * uniform(1, C, 1) - 40)
    return x * {"large": 1e5, "small": 1e-3, "tiny": 1e-12, "subnormal": 1e-39}.get(kind, 1.0)


HOSTILE_SIZES = {  # N, C, O, L, K, stride; y's rows begin anywhere, and at 16 bytes but not at 32
    "large": (24, 64, 128, 6001, 3, 1),
    "large, streamed": (24, 64, 128, 6000, 3, 1),
    "large, downsampled": (4, 128, 512, 8000, 3, 2),
    "large, sliding": (24, 144, 256, 2000, 3, 1),
    "sliding, five taps": (3, 100, 72, 1000, 5, 1),
    "sliding, odd rows": (3, 100, 72, 1003, 5, 1),
    "large, longer sums": (16, 128, 128, 3004, 3, 1),
    "large, short rows": (300, 128, 256, 36, 5, 1),
    "large, one tap": (8, 128, 136, 1004, 1, 1),
    "small": (3, 40, 70, 301, 5, 1),
}


@pytest.mark.parametrize("size", HOSTILE_SIZES)
@pytest.mark.parametrize(
    "kind",
    ["log-uniform", "silence beside full scale", "one outlier", "channels of any scale"]
    + ["large", "small", "tiny", "subnormal"],
)
def test_fp32_is_accurate_for_hostile_data(model_new, kind, size):
    """Each output, against the sum of the magnitudes in its own window: three roundings of 2^-24 for the
    operands of a product, and truncations of the tensor core's sums, promoted after at most 128 products; in
    all below 2^-20. Weights of the channels undo the scales of x, so that all channels count."""
    N, C, O, L, K, stride = HOSTILE_SIZES[size]
    generator = torch.Generator("cuda").manual_seed(1)
    x = hostile(kind, (N, C, L), generator)
    weight = torch.randn(O, C, K, generator=generator, device="cuda")
    if kind == "channels of any scale":
        weight /= x.abs().amax(dim=(0, 2))[:, None]
    for route in ["chosen", *model_new._conv1d_ops.routes()]:
        arguments = (x, weight, None, (stride,), (K // 2, K // 2), (1,), 1)
        with tf32(False):
            y = run(model_new._conv1d_ops, route, arguments)
        if y is None:
            continue
        expected, magnitude = reference(arguments, False)
        excess = (y.double() - expected).abs() - 2.0**-20 * magnitude - C * K * UNDERFLOW[torch.float32]
        assert (excess <= 0).all(), f"{route}: {((y.double() - expected).abs() / magnitude).max():.3e}"


def test_results_beyond_the_range_are_inf(model_new, route):
    x = torch.full((1, 16, 300), 60000.0, dtype=torch.float16, device="cuda")
    for sign in [1, -1]:
        weight = torch.full((8, 16, 2), float(sign), dtype=torch.float16, device="cuda")
        y = run(model_new._conv1d_ops, route, (x, weight, None, (1,), (0,), (1,), 1))
        if y is not None:
            assert (y == sign * float("inf")).all()
