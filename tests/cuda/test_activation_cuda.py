"""Every CUDA route with an activation against the same route and torch's own activation behind it."""

import pytest
import torch

from problems import LAYOUTS, MODES, Problem, run_by, tf32

SEPARATE = {
    "relu": torch.nn.functional.relu,
    "gelu": torch.nn.functional.gelu,
    "silu": torch.nn.functional.silu,
}

# Each kernel of each route, each way that it stores, ragged ends of tiles.
PROBLEMS = {
    "dense": Problem(3, 64, 130, 1001, 3, padding=(1, 1)),
    "dense, even rows": Problem(2, 40, 72, 1024, 4, padding=(2, 1)),
    "dense, rows of 16 bytes": Problem(2, 32, 128, 1600, 1),
    "streamed": Problem(2, 64, 128, 1600, 3, padding=(1, 1)),
    "streamed, odd rows": Problem(2, 40, 72, 1024, 3, stride=2, padding=(1, 2)),
    "downsampled": Problem(1, 64, 1024, 3648, 3, stride=2, padding=(1, 1)),
    "downsampled, odd rows": Problem(1, 64, 1000, 3701, 3, stride=2),
    "sliding": Problem(2, 40, 70, 1000, 3, padding=(1, 1)),
    "sliding, rows of 8 bytes": Problem(2, 40, 70, 300, 5, padding=(2, 2)),
    "sliding, odd rows of y": Problem(2, 40, 70, 1000, 5, padding=(2, 1)),
    "dense, one position": Problem(3, 16, 8, 1, 1),
    "dense, strided and dilated": Problem(2, 24, 40, 700, 5, stride=3, dilation=4, padding=(2, 2)),
    "short rows of many samples": Problem(300, 20, 40, 5, 3, padding=(1, 1)),
    "groups": Problem(2, 16, 24, 333, 3, groups=5, bias=False),
    "long sums": Problem(1, 700, 40, 131, 5, padding=(2, 2)),
    "long sums, few outputs": Problem(2, 600, 3, 700, 9, stride=2),
    "long sums, flat": Problem(30, 1030, 20, 7, 3, padding=(1, 1)),
    "few channels": Problem(4, 3, 70, 2001, 7, stride=2, padding=(3, 3)),
    "few channels, wide tiles": Problem(16, 2, 64, 20001, 4),
    "one output": Problem(3, 33, 1, 3001, 7, padding=(3, 3)),
    "depthwise, few taps": Problem(3, 1, 1, 4099, 4, padding=(3, 0), groups=40),
    "depthwise, two outputs": Problem(3, 1, 2, 600, 31, padding=(15, 15), groups=9),
    "depthwise, dilated": Problem(2, 1, 1, 800, 9, padding=(8, 8), dilation=2, groups=30),
    "depthwise, strided": Problem(3, 1, 1, 1001, 5, stride=3, dilation=2, padding=(4, 4), groups=20),
    "unaligned": Problem(2, 48, 64, 257, 3, layout="unaligned"),
}
ULP = {torch.float32: 2.0**-23, torch.float64: 2.0**-52, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}


def assert_activated(y, plain, name, context):
    """Within one unit in the last place of what torch makes of the same route's plain result. Where gelu comes
    close to 0 from below it is a difference of numbers as large as x: there the unit is that of x."""
    expected = SEPARATE[name](plain)
    assert y.shape == expected.shape and y.dtype == expected.dtype and y.is_contiguous(), context
    assert torch.equal(y.isnan(), expected.isnan()), context
    inside = expected.isfinite()
    assert torch.equal(y[~inside & ~y.isnan()], expected[~inside & ~expected.isnan()]), context
    if name == "relu":
        assert torch.equal(y[inside], expected[inside]), context
        return
    exact, wide = expected[inside].double(), plain[inside].double()
    sums = ULP[torch.float64 if y.dtype == torch.float64 else torch.float32]
    least = torch.finfo(y.dtype).smallest_normal * ULP[y.dtype]
    unit = ULP[y.dtype] * exact.abs() + sums * wide.abs() + least
    assert ((y[inside].double() - exact).abs() <= unit).all(), context


def run_activated(ops, route, arguments, name):
    return ops.conv1d_by(route, *arguments, name)


@pytest.mark.parametrize("name", SEPARATE)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_route(model_new, problem, mode, name):
    dtype, allowed = MODES[mode]
    arguments = PROBLEMS[problem].arguments(dtype)
    ops = model_new._conv1d_ops
    took = []
    with tf32(allowed):
        for route in ops.routes():
            plain = run_by(ops, route, arguments)
            if plain is not None:
                took.append(route)
                assert_activated(run_activated(ops, route, arguments, name), plain, name, (problem, route))
        chosen = ops.conv1d.lists(*arguments, name)
        assert torch.equal(chosen, run_activated(ops, ops.route(*arguments), arguments, name))
    assert took


@pytest.mark.parametrize("name", SEPARATE)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(model_new, layout, name):
    ops = model_new._conv1d_ops
    for mode, (dtype, allowed) in MODES.items():
        for C, O, groups in [(32, 64, 1), (1, 1, 24), (3, 5, 2)]:
            problem = Problem(2, C, O, 259, 3, padding=(1, 1), groups=groups, layout=layout)
            arguments = problem.arguments(dtype)
            with tf32(allowed):
                for route in ops.routes():
                    plain = run_by(ops, route, arguments)
                    if plain is not None:
                        y = run_activated(ops, route, arguments, name)
                        assert_activated(y, plain, name, (layout, mode, route))


@pytest.mark.parametrize("name", SEPARATE)
@pytest.mark.parametrize("mode", MODES)
def test_special_values(model_new, mode, name):
    """NaN and infinities of x, among them those that the fp32 mode of Hopper's route mends."""
    dtype, allowed = MODES[mode]
    ops = model_new._conv1d_ops
    for C, O, groups in [(32, 48, 1), (1, 1, 8), (3, 5, 1)]:
        x, weight, bias, *numbers = Problem(2, C, O, 400, 5, padding=(2, 2), groups=groups).arguments(dtype)
        for place, value in [(40, float("nan")), (120, float("inf")), (300, -float("inf"))]:
            x[1, 0, place] = value
        with tf32(allowed):
            for route in ops.routes():
                plain = run_by(ops, route, (x, weight, bias, *numbers))
                if plain is not None:
                    y = run_activated(ops, route, (x, weight, bias, *numbers), name)
                    assert y[1].isnan().any()
                    assert_activated(y, plain, name, (C, route))


@pytest.mark.parametrize("name", SEPARATE)
def test_one_kernel_more_at_most_packs_weights(model_new, name):
    """No kernel of torch's follows."""
    for problem in PROBLEMS.values():
        arguments = problem.arguments(torch.float32)
        with torch.no_grad(), torch.profiler.profile() as profile:
            model_new._conv1d_ops.conv1d.lists(*arguments, name)
            torch.cuda.synchronize()
        kernels = [e.name for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
        assert all("conv1d" in kernel for kernel in kernels if "Mem" not in kernel), kernels


@pytest.mark.parametrize("name", SEPARATE)
def test_gradients(model_new, name):
    layer = model_new.Conv1d(16, 24, 3, padding=1, activation=name, device="cuda", dtype=torch.float64)
    x = torch.randn(2, 16, 50, device="cuda", dtype=torch.float64, requires_grad=True)
    y = layer(x)
    expected = SEPARATE[name](torch.nn.functional.conv1d(x, layer.weight, layer.bias, padding=1))
    torch.testing.assert_close(y, expected)
    leaves = x, layer.weight, layer.bias
    grads, wanted = (torch.autograd.grad(out.sin().sum(), leaves) for out in (y, expected))
    for mine, other in zip(grads, wanted):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("name", SEPARATE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast(model_new, dtype, name):
    layer = model_new.Conv1d(32, 48, 3, padding=1, activation=name, device="cuda")
    x = torch.randn(4, 32, 500, device="cuda")
    with torch.no_grad(), torch.autocast("cuda", dtype=dtype):
        y = layer(x)
    low = layer.to(dtype)
    with torch.no_grad():
        assert y.dtype == dtype and torch.equal(y, low(x.to(dtype)))
