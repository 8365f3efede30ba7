"""Convolutions to try on a GPU: how they are drawn, laid out in memory, computed in float64 and judged."""

import contextlib
import dataclasses

import torch

from reference import ROUNDOFF, UNDERFLOW, exact

# (dtype, whether fp32 may round to TF32)
MODES = {
    "fp32": (torch.float32, False),
    "tf32": (torch.float32, True),
    "fp64": (torch.float64, False),
    "fp16": (torch.float16, False),
    "bf16": (torch.bfloat16, False),
}
LAYOUTS = [
    "contiguous",
    "unaligned",
    "padded rows",
    "transposed",
    "every other",
    "expanded n",
    "expanded c",
    "expanded l",
]


@contextlib.contextmanager
def tf32(allowed):
    """PyTorch's own switch, put back afterwards."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    yield
    torch.backends.cudnn.allow_tf32 = before


@dataclasses.dataclass(frozen=True)
class Problem:
    N: int
    C: int  # of one group
    O: int  # of one group
    L: int
    K: int
    stride: int = 1
    padding: tuple = (0, 0)
    dilation: int = 1
    groups: int = 1
    bias: bool = True
    layout: str = "contiguous"

    def arguments(self, dtype, seed=0):
        """(x, weight, bias, stride, padding, dilation, groups) as the op takes them, on the GPU."""
        generator = torch.Generator("cuda").manual_seed(seed)

        def random(*shape):
            return without_ties(
                torch.randn(shape, generator=generator, device="cuda", dtype=torch.float64).to(dtype)
            )

        N, channels, L = self.N, self.groups * self.C, self.L
        x = {
            "contiguous": lambda: random(N, channels, L),
            "unaligned": lambda: random(N * channels * L + 1)[1:].view(N, channels, L),
            "padded rows": lambda: random(N, channels, L + 3)[:, :, 1 : L + 1],
            "transposed": lambda: random(N, L, channels).transpose(1, 2),
            "every other": lambda: random(N, channels, 2 * L)[:, :, ::2],
            "expanded n": lambda: random(1, channels, L).expand(N, channels, L),
            "expanded c": lambda: random(N, 1, L).expand(N, channels, L),
            "expanded l": lambda: random(N, channels, 1).expand(N, channels, L),
        }[self.layout]()
        weight = random(self.groups * self.O, self.C, self.K)
        bias = random(self.groups * self.O) if self.bias else None
        return x, weight, bias, (self.stride,), self.padding, (self.dilation,), self.groups


def draw(random, family):
    """A problem of one family from a random.Random: mostly small numbers, now and then a large one."""
    few = random.randint
    groups, C, O = {
        "dense": lambda: (few(1, 2), few(16, 100), few(8, 200)),
        "grouped": lambda: (few(2, 12), few(1, 40), few(1, 40)),
        "depthwise": lambda: (few(1, 70), 1, random.choice([1, 1, 1, 2, 4])),
        "few channels": lambda: (1, few(1, 15), random.choice([1, 3, 12, 70, 300])),
        "small groups": lambda: (few(1, 9), random.choice([1, 2, few(3, 64)]), few(8, 48)),
        "few outputs": lambda: (1, few(1, 100), few(1, 8)),
    }[family]()
    K = random.choice([1, 1, 2, 3, 3, 4, 5, 7, 10, few(11, 40)])
    stride = random.choice([1, 1, 1, 2, 3, few(4, 40)])
    dilation = random.choice([1, 1, 1, 2, 4, few(3, 150)])
    reach = dilation * (K - 1) + 1
    padding = random.choice([(0, 0), (reach // 2, reach // 2), (reach - 1, 0), (few(0, 9), few(0, 9))])
    shortest = max(1, reach - sum(padding))
    L = shortest + random.choice([0, few(0, 8), few(0, 70), few(0, 300), few(0, 3000)])
    # The reference gathers all patches at once.
    N = random.choice([1, 2, 3, few(4, 20)]) if groups * C * L * K < 2e6 else 1
    return Problem(
        N=N,
        C=C,
        O=O,
        L=L,
        K=K,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=random.random() < 0.5,
        layout=random.choice(LAYOUTS + 4 * ["contiguous"]),
    )


def without_ties(x):
    """x without numbers half-way between two TF32 ones: nearest is then the same however ties are broken."""
    if x.dtype != torch.float32:
        return x
    bits = x.view(torch.int32)
    return (bits + ((bits & 0x1FFF) == 0x1000).int()).view(torch.float32)


def round_tf32(x):
    """float32 rounded to nearest at 11 significant bits; inf and NaN stay."""
    bits = x.contiguous().view(torch.int32)
    return torch.where(x.isfinite(), ((bits + 0x1000) & ~0x1FFF).view(torch.float32), x)


def run_by(ops, route, arguments):
    """y by a named route; None where the route does not take the problem."""
    try:
        return ops.conv1d_by(route, *arguments)
    except RuntimeError as error:
        assert f"route '{route}' does not take this problem" in str(error)
        return None


def reference(arguments, rounds):
    """(y, sum of |w||x| + |bias|) in float64; of operands rounded to TF32 where `rounds`."""
    x, weight, bias, (stride,), padding, (dilation,), groups = arguments
    if rounds:
        x, weight = round_tf32(x), round_tf32(weight)
    numbers = dict(stride=stride, padding=padding, dilation=dilation, groups=groups)
    y = exact(x, weight, bias, **numbers)
    return y, exact(x.abs(), weight.abs(), None if bias is None else bias.abs(), **numbers)


def assert_accurate(y, arguments, mode, context=None):
    """y is the convolution of the arguments, as accurate as `mode` promises.

    Each element: sums in fp32 (fp64) may lose a unit in the last place at each product, as tensor cores
    truncate; then the result is rounded to its dtype. TF32 is held against the operands rounded to nearest.
    All elements together: fp32 errors are those of a short sum, 1e-6; those of TF32 grow by a truncation at
    each eight products.
    """
    try:
        check(y, arguments, mode, MODES[mode][1], context)
    except AssertionError:
        if mode != "tf32":
            raise
        check(y, arguments, mode, False, context)  # TF32 is allowed, not required


def check(y, arguments, mode, rounds, context):
    dtype, _ = MODES[mode]
    x, weight = arguments[:2]
    expected, magnitude = reference(arguments, rounds)
    assert y.shape == expected.shape and y.dtype == dtype and y.is_contiguous(), context
    products = weight.shape[1] * weight.shape[2]
    unit = 2 * min(ROUNDOFF[dtype], ROUNDOFF[torch.float32])
    sums = (products + 8) * unit * magnitude
    result = ROUNDOFF[dtype] if dtype in (torch.float16, torch.bfloat16) else 0.0
    bound = sums + result * (expected.abs() + sums) + UNDERFLOW[dtype]
    excess = (y.double() - expected).abs() - bound
    assert (excess <= 0).all(), f"beyond the bound by {excess.max():.3e}: {context}"
    if dtype == torch.float32 and y.numel() >= 1000 and 0 not in x.stride() and expected.any():  # enough independent results
        limit = 2 * unit * (4 + products / 8) if rounds else 1e-6
        error = (y.double() - expected).norm() / expected.norm()
        assert error <= limit, f"relative error {error:.3e} beyond {limit:.3e}: {context}"
