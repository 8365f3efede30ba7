"""The CPU kernel against the definition in float64, over the whole space of problems."""

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from reference import assert_within_bound, bound, exact

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
LAYOUTS = [
    "contiguous",
    "unaligned",
    "transposed",
    "every other",
    "expanded n",
    "expanded c",
    "expanded l",
    "channels first",
]


def make_x(N, channels, L, dtype, layout):
    """x of shape (N, channels, L), its memory laid out in one of LAYOUTS."""
    if layout == "contiguous":
        return torch.randn(N, channels, L).to(dtype)
    if layout == "unaligned":
        return torch.randn(N * channels * L + 1).to(dtype)[1:].view(N, channels, L)
    if layout == "transposed":
        return torch.randn(N, L, channels).to(dtype).transpose(1, 2)
    if layout == "every other":
        return torch.randn(N, channels, 2 * L).to(dtype)[:, :, ::2]
    if layout == "expanded n":
        return torch.randn(1, channels, L).to(dtype).expand(N, channels, L)
    if layout == "expanded c":
        return torch.randn(N, 1, L).to(dtype).expand(N, channels, L)
    if layout == "expanded l":
        return torch.randn(N, channels, 1).to(dtype).expand(N, channels, L)
    return torch.randn(channels, N, L).to(dtype).transpose(0, 1)


def check(model_new, x, weight, bias=None, stride=1, padding=(0, 0), dilation=1, groups=1):
    before = x.clone()
    arguments = (x, weight, bias, (stride,), padding, (dilation,), groups)
    assert model_new._conv1d_ops.route(*arguments) == "cpu"
    y = model_new._conv1d_ops.conv1d(*arguments)
    assert_within_bound(y, x, weight, bias, stride, padding, dilation, groups)
    assert torch.equal(x, before)


@st.composite
def problems(draw):
    size = lambda low, high: draw(st.integers(low, high))
    groups, C, O, K = size(1, 4), size(1, 6), size(1, 10), size(1, 7)
    stride, dilation = size(1, 5), size(1, 5)
    padding = (size(0, 8), size(0, 8))
    shortest = max(1, dilation * (K - 1) + 1 - sum(padding))
    dtype, layout = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(LAYOUTS))
    torch.manual_seed(size(0, 2**31))
    x = make_x(size(1, 4), groups * C, shortest + size(0, 90), dtype, layout)
    if draw(st.booleans()):
        x = x[0]
    weight = torch.randn(groups * O, C, K).to(dtype)
    if draw(st.booleans()):
        weight = torch.randn(K, C, groups * O).to(dtype).permute(2, 1, 0)
    bias = torch.randn(2 * groups * O).to(dtype)[::2] if draw(st.booleans()) else None
    return dict(
        x=x, weight=weight, bias=bias, stride=stride, padding=padding, dilation=dilation, groups=groups
    )


@hypothesis.settings(max_examples=400, deadline=None, derandomize=True)
@hypothesis.given(problem=problems())
def test_any_problem(model_new, problem):
    check(model_new, **problem)


# One problem for each boundary that the kernel draws: (N, groups, C, O, L, K, stride, padding, dilation).
BOUNDARIES = {
    "one": (1, 1, 1, 1, 1, 1, 1, (0, 0), 1),
    "output blocks": (1, 1, 3, 300, 40, 3, 1, (1, 1), 1),
    "ragged tiles of outputs": (1, 2, 3, 143, 21, 3, 1, (1, 1), 1),
    "position blocks": (2, 1, 2, 3, 1000, 3, 1, (1, 1), 1),
    "position blocks, strided": (2, 1, 2, 3, 3001, 5, 3, (2, 0), 2),
    "chunks of channels": (1, 1, 700, 5, 50, 3, 1, (1, 1), 1),
    "chunks of one channel": (1, 1, 3, 5, 700, 300, 1, (9, 9), 1),
    "chains within a row of taps": (1, 1, 2, 3, 3000, 1031, 2, (7, 0), 1),
    "scratch beyond its budget": (1, 1, 3, 2, 90000, 3, 1, (0, 0), 44000),
    "a row for each tap": (2, 1, 5, 4, 400, 3, 1, (60, 60), 100),
    "taps that share rows": (2, 1, 5, 4, 400, 9, 6, (3, 3), 4),
    "stride beyond the kernel": (2, 1, 5, 4, 400, 3, 17, (3, 3), 1),
    "folded batch": (50, 1, 20, 9, 7, 3, 1, (1, 1), 1),
    "folded batch, one position": (300, 3, 4, 5, 4, 4, 1, (0, 0), 1),
    "folded batch, strided": (33, 1, 4, 5, 29, 3, 2, (1, 1), 1),
    "padding longer than x": (2, 1, 3, 4, 2, 3, 1, (30, 11), 2),
    "only padding under most taps": (1, 1, 2, 3, 1, 9, 1, (8, 8), 1),
    "depthwise": (2, 90, 1, 1, 300, 31, 1, (15, 15), 1),
    "depthwise, two outputs each": (2, 30, 1, 2, 300, 7, 2, (3, 3), 1),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("name", BOUNDARIES)
def test_boundary(model_new, name, dtype):
    N, groups, C, O, L, K, stride, padding, dilation = BOUNDARIES[name]
    torch.manual_seed(0)
    x = torch.randn(N, groups * C, L).to(dtype)
    weight = torch.randn(groups * O, C, K).to(dtype)
    check(model_new, x, weight, torch.randn(groups * O).to(dtype), stride, padding, dilation, groups)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("K", [1, 2, 5, 6])
@pytest.mark.parametrize("dilation", [1, 3])
def test_padding_by_name(model_new, padding, K, dilation):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 4, 40), torch.randn(6, 2, K)
    total = dilation * (K - 1) if padding == "same" else 0
    y = model_new.conv1d(x, weight, None, 1, padding, dilation, 2)
    assert_within_bound(y, x, weight, None, 1, (total // 2, total - total // 2), dilation, 2)


@pytest.mark.parametrize("channels, K", [(512, 8), (4096, 1), (1, 5000)])
def test_long_sums_stay_accurate(model_new, channels, K):
    """Thousands of products of random sign: relative error at most 1e-6 in the 2-norm, as PyTorch's."""
    torch.manual_seed(0)
    x, weight = torch.randn(2, channels, K + 99), torch.randn(16, channels, K)
    reference = exact(x, weight)
    error = (model_new.conv1d(x, weight).double() - reference).norm() / reference.norm()
    assert error <= 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_conversions_keep_every_value(model_new, dtype):
    """A kernel of one tap, 1.0, gives back each of the 65,536 bit patterns; nan stays nan."""
    x = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype).view(1, 1, -1)
    y = model_new.conv1d(x, torch.ones(1, 1, 1, dtype=dtype))
    assert torch.equal(torch.isnan(y), torch.isnan(x))
    assert torch.equal(y[~torch.isnan(y)], x[~torch.isnan(x)])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_results_round_to_nearest_even(model_new, dtype):
    """A sum of two values is rounded to float32 once, and from there to the result once more: subnormal, tied and
    overflowing sums among them."""
    torch.manual_seed(0)
    x = torch.randint(-(2**15), 2**15, (1, 2, 2**20)).to(torch.int16).view(dtype)
    x[:, 1, : 2**19] = x[:, 0, : 2**19] * torch.tensor(2.0**-8).to(dtype)  # neighbours in size: many ties
    y = model_new.conv1d(x, torch.ones(1, 2, 1, dtype=dtype))[0, 0]
    expected = (x[0, 0].float() + x[0, 1].float()).to(dtype)
    assert torch.equal(torch.isnan(y), torch.isnan(expected))
    assert torch.equal(y[~torch.isnan(y)], expected[~torch.isnan(expected)])


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])
def test_special_values_reach_their_own_outputs_only(model_new, dtype):
    x, weight = torch.ones(1, 2, 500, dtype=dtype), torch.ones(3, 2, 3, dtype=dtype)
    x[0, 0, 100], x[0, 1, 300] = float("inf"), float("nan")
    y = model_new.conv1d(x, weight, padding=1)
    inf, nan = torch.zeros(500, dtype=bool), torch.zeros(500, dtype=bool)
    inf[99:102], nan[299:302] = True, True
    assert torch.equal(torch.isinf(y), inf.expand(1, 3, 500))
    assert torch.equal(torch.isnan(y), nan.expand(1, 3, 500))


@pytest.mark.parametrize("shape", [(8, 96, 700, 40, 5), (40, 30, 9, 40, 2)], ids=["windowed", "folded"])
def test_result_does_not_depend_on_threads_or_batch(model_new, shape):
    N, C, L, O, K = shape
    torch.manual_seed(0)
    x, weight = torch.randn(N, C, L), torch.randn(O, C, K)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = model_new.conv1d(x, weight)
    torch.set_num_threads(3)
    together = model_new.conv1d(x, weight)
    torch.set_num_threads(threads)
    assert torch.equal(alone, together)
    for n in range(N):
        assert torch.equal(model_new.conv1d(x[n], weight), alone[n])


def test_bound_is_tight_enough_to_catch_a_lost_product():
    """The tests' own tolerance: dropping one product of 1,536 in float32 must be seen."""
    torch.manual_seed(0)
    x, weight = torch.randn(1, 512, 3), torch.randn(1, 512, 3)
    spoilt = x.clone()
    spoilt[0, 100, 1] = 0
    assert (exact(spoilt, weight) - exact(x, weight)).abs() > bound(x, weight)
