"""What PyTorch asks of a CUDA op beyond numbers: streams, graphs, memory, repeatability, switches."""

import pytest
import torch

from conftest import ROOT, run_python
from problems import MODES, Problem, assert_accurate, run_by, tf32

DENSE = Problem(4, 64, 128, 3001, 3, padding=(1, 1))
DEPTHWISE = Problem(4, 1, 1, 3001, 4, padding=(3, 0), groups=64)
SHORT = Problem(70, 32, 40, 5, 3, padding=(1, 1))
PROBLEMS = {
    "dense": DENSE,
    "dense, taps in groups": Problem(24, 75, 104, 1881, 8, stride=4, dilation=9),
    # One sample has tiles of gemm_sm90 for a warpgroup alone, all have others: in TF32 and 16 bits, of the
    # second in 16 bits.
    "dense, many samples": Problem(100, 128, 146, 260, 7, padding=(3, 3)),
    "dense, many samples, a stride": Problem(60, 90, 60, 401, 9, stride=3),
    "dense, many samples, fp32": Problem(45, 58, 76, 152, 3, stride=3),  # the same in fp32
    "depthwise": DEPTHWISE,
    "streamed": Problem(4, 64, 128, 3000, 3, padding=(1, 1)),
    "downsampled": Problem(3, 64, 1024, 3648, 3, stride=2, padding=(1, 1)),
    "sliding": Problem(40, 72, 256, 1028, 3, padding=(1, 1)),  # one sample has narrower tiles
    "sliding, five taps": Problem(70, 40, 256, 500, 5, padding=(2, 2)),
    "one tap, two blocks share x": Problem(20, 520, 256, 1024, 1),
    "sliding, odd rows": Problem(40, 72, 256, 1027, 3, padding=(1, 1)),
    "short": SHORT,
    "few channels": Problem(4, 3, 20, 1001, 5),
    "few channels, many outputs": Problem(4, 4, 192, 2048, 15, padding=(7, 6)),
    "few channels, 16 outputs a thread": Problem(200, 3, 40, 300, 3),  # of one sample 8
    "few outputs of long sums": Problem(5, 60, 3, 700, 9, padding=(4, 4)),
    "depthwise, some taps": Problem(4, 1, 1, 3001, 40, padding=(20, 19), groups=64),
    "depthwise, many taps": Problem(5, 1, 1, 1501, 600, padding=(599, 0), groups=9),
    "depthwise, strided": Problem(3, 1, 1, 3001, 9, stride=2, padding=(4, 4), groups=64),
}

# One sample is summed by another kernel than all.
SWITCHED = {
    "depthwise, short rows": Problem(64, 1, 1, 100, 12, groups=341),
    "depthwise, short rows, two outputs": Problem(64, 1, 2, 66, 18, groups=445),
    "depthwise, few taps": Problem(64, 1, 1, 315, 4, padding=(1, 1), groups=40),
    "depthwise, taps apart": Problem(64, 1, 1, 500, 8, dilation=4, groups=50),
    "depthwise, one plane": Problem(64, 1, 1, 2132, 7, stride=2, dilation=2, groups=46),
    "depthwise, many outputs": Problem(40, 1, 1, 4096, 4, padding=(3, 0), groups=100),
}


def pytest_generate_tests(metafunc):
    if "route" in metafunc.fixturenames:
        import model_new

        metafunc.parametrize("route", model_new._conv1d_ops.routes())


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("mode", MODES)
def test_runs_on_the_current_stream(model_new, route, problem, mode):
    """x becomes what it should be late, on a side stream: only work on that stream sees it."""
    dtype, allowed = MODES[mode]
    x, *rest = PROBLEMS[problem].arguments(dtype)
    late = torch.zeros_like(x)
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with tf32(allowed), torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)
        late.copy_(x)
        y = run_by(model_new._conv1d_ops, route, (late, *rest))
        stream.synchronize()
        if y is not None:
            assert_accurate(y, (x, *rest), mode, route)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("mode", MODES)
def test_graph_capture_and_replay(model_new, route, problem, mode):
    dtype, allowed = MODES[mode]
    x, *rest = PROBLEMS[problem].arguments(dtype, seed=0)
    with tf32(allowed):
        if run_by(model_new._conv1d_ops, route, (x, *rest)) is None:
            return
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = model_new._conv1d_ops.conv1d_by(route, x, *rest)
        for seed in [1, 2]:
            x.copy_(PROBLEMS[problem].arguments(dtype, seed)[0])
            graph.replay()
            assert_accurate(y, (x, *rest), mode, route)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("mode", MODES)
def test_on_the_device_of_x(model_new, route, mode):
    dtype, allowed = MODES[mode]
    for problem in PROBLEMS.values():
        arguments = problem.arguments(dtype)
        elsewhere = tuple(a.to("cuda:1") if isinstance(a, torch.Tensor) else a for a in arguments)
        with tf32(allowed):
            y = run_by(model_new._conv1d_ops, route, elsewhere)
        if y is not None:
            assert y.device == torch.device("cuda:1") and torch.cuda.current_device() == 0
            assert_accurate(y.to("cuda:0"), arguments, mode, route)


@pytest.mark.parametrize("mode", MODES)
def test_the_same_bits_each_time(model_new, route, mode):
    dtype, allowed = MODES[mode]
    for problem in PROBLEMS.values():
        arguments = problem.arguments(dtype)
        with tf32(allowed):
            first = run_by(model_new._conv1d_ops, route, arguments)
            for _ in range(3 if first is not None else 0):
                assert torch.equal(run_by(model_new._conv1d_ops, route, arguments), first)


@pytest.mark.parametrize("mode", MODES)
def test_a_sample_does_not_depend_on_its_batch(model_new, route, mode):
    dtype, allowed = MODES[mode]
    for problem in PROBLEMS.values():
        x, *rest = problem.arguments(dtype)
        with tf32(allowed):
            whole = run_by(model_new._conv1d_ops, route, (x, *rest))
            if whole is None:
                continue
            for n in [0, 1, x.shape[0] - 1]:
                alone = run_by(model_new._conv1d_ops, route, (x[n : n + 1], *rest))
                assert torch.equal(alone, whole[n : n + 1])
            unbatched = model_new._conv1d_ops.conv1d_by(route, x[0], *rest)
            assert torch.equal(unbatched, whole[0])


@pytest.mark.parametrize("problem", SWITCHED)
@pytest.mark.parametrize("mode", MODES)
def test_kernels_that_the_batch_chooses_give_the_same_bits(model_new, problem, mode):
    dtype, allowed = MODES[mode]
    x, *rest = SWITCHED[problem].arguments(dtype)
    with tf32(allowed):
        whole = model_new._conv1d_ops.conv1d(x, *rest)
        for count in [1, 2, 7]:
            for n in [0, len(x) - count]:
                part = model_new._conv1d_ops.conv1d(x[n : n + count], *rest)
                assert torch.equal(part, whole[n : n + count]), (count, n)


@pytest.mark.parametrize("mode", MODES)
def test_memory_is_the_output_and_packed_weights(model_new, route, mode):
    """At the peak: y, and at most the weights split for two modes (4 and 8 bytes each) and 8 bytes a tile."""
    dtype, allowed = MODES[mode]
    arguments = Problem(8, 64, 128, 65536, 3).arguments(dtype)
    x, weight = arguments[:2]
    with tf32(allowed):
        y = run_by(model_new._conv1d_ops, route, arguments)
        if y is None:
            return
        y_bytes = y.numel() * y.element_size()
        del y
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        # What is asked for: what the allocator hands out may be a larger block that it had.
        requested = lambda when: torch.cuda.memory_stats()[f"requested_bytes.all.{when}"]
        before = requested("current")
        y = run_by(model_new._conv1d_ops, route, arguments)
        assert y_bytes <= requested("peak") - before <= y_bytes + 12 * weight.numel() + y.numel() // 256
        assert requested("current") - before == y_bytes


@pytest.mark.parametrize("problem", PROBLEMS)
def test_gradients(model_new, problem):
    x, weight, bias, (stride,), padding, (dilation,), groups = PROBLEMS[problem].arguments(torch.float64)
    few = max(40, dilation * weight.shape[-1])  # positions
    leaves = [t[:2, :, :few].clone() if t is x else t.clone() for t in (x, weight, bias)]
    ours = [t.requires_grad_() for t in leaves]
    theirs = [t.detach().clone().requires_grad_() for t in leaves]
    y = model_new._conv1d_ops.conv1d(*ours, (stride,), padding, (dilation,), groups)
    padded = torch.nn.functional.pad(theirs[0], padding)
    expected = torch.nn.functional.conv1d(padded, theirs[1], theirs[2], stride, 0, dilation, groups)
    grad = torch.randn_like(expected)
    y.backward(grad)
    expected.backward(grad)
    for mine, other in zip(ours, theirs):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-10, atol=1e-10)


def test_gradients_by_finite_differences(model_new):
    x, weight, bias, *numbers = Problem(2, 3, 4, 9, 3, stride=2, padding=(2, 1), dilation=2).arguments(
        torch.float64
    )
    inputs = [t.requires_grad_() for t in (x, weight, bias)]
    assert torch.autograd.gradcheck(lambda *t: model_new._conv1d_ops.conv1d(*t, *numbers), inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast(model_new, dtype):
    conv = model_new.Conv1d(32, 48, 3, padding=1, device="cuda")
    x = torch.randn(4, 32, 500, device="cuda")
    with torch.autocast("cuda", dtype=dtype):
        y = conv(x)
    low = conv.to(dtype)
    assert y.dtype == dtype and torch.equal(y, low(x.to(dtype)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_as_one_graph(model_new, dtype):
    conv = model_new.Conv1d(32, 48, 3, padding=1, device="cuda", dtype=dtype)
    x = torch.randn(4, 32, 500, device="cuda").to(dtype)
    compiled = torch.compile(lambda x: conv(x) * 2, fullgraph=True)
    assert torch.equal(compiled(x), conv(x) * 2)


SWITCH = """
import sys
sys.path.insert(0, {root!r})
import torch
import model_new
x = torch.rand(2, 64, 4000, device="cuda")
w = torch.randn(128, 64, 3, device="cuda")
exact = torch.nn.functional.conv1d(x.double(), w.double())
def error():
    return ((model_new._conv1d_ops.conv1d(x, w).double() - exact).norm() / exact.norm()).item()
{set}
print(error())
"""


@pytest.mark.parametrize(
    "set, allowed",
    [
        ("", True),  # PyTorch's default
        ("torch.backends.cudnn.allow_tf32 = False", False),
        ("torch.backends.cudnn.allow_tf32 = True", True),
        ("torch.backends.cudnn.conv.fp32_precision = 'ieee'", False),
        ("torch.backends.cudnn.conv.fp32_precision = 'tf32'", True),
        ("torch.backends.cuda.matmul.allow_tf32 = False", True),  # matrix products' own switch
    ],
)
def test_tf32_follows_pytorchs_switches(model_new, set, allowed):
    out, _ = run_python(SWITCH.format(root=str(ROOT), set=set))
    error = float(out)
    assert 1e-5 < error < 1e-3 if allowed else error < 1e-6
