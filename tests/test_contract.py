"""What an evaluator does with model_new.py: it must survive every one of these."""
import importlib.util
import inspect
import re
import subprocess

import pytest
import torch
import torch.nn as nn
from conftest import ROOT, built_in, run_python

TEXT = (ROOT / "model_new.py").read_text()


# ---- rules over the source's text ----


def strip_comments(text):
    """`text` with `#` and `//` comments cut, as evaluators cut them: strings, docstrings and /* */ stay."""
    return "\n".join(re.split(r"#|//", line)[0] for line in text.splitlines())


FORBIDDEN = [
    # Refused by evaluators.
    r"\btry\s*:", r"except", r"\bpass\b", r"import\s+threading", r"threading\.Thread", r"multiprocessing",
    r"concurrent\.futures", r"_make_subclass", r"class\s+\w+\s*\(.*\bTensor\b.*\)",
    r"torch\.cuda\.Event\s*=[^=]", r"torch\.cuda\.synchronize\s*=[^=]", r"time\.time\s*=[^=]",
    r"time\.sleep\(", r"input\(", r"while\s+True\s*:",
    # Warned about.
    r"torch\.nn\.functional", r"\bF\.conv", r"torch\.conv1d\(", r"torch\.cuda\.Stream\(", r"\.half\(",
    r"\.to\(torch\.float16\)", r"__float2half\(",
    # Two lines are put in front of the file.
    r"from\s+__future__",
]  # fmt: skip
REQUIRED = [r"__global__", r"load_inline"]


def broken_rules(text):
    """The patterns of FORBIDDEN that `text` holds and those of REQUIRED that it lacks."""
    text = strip_comments(text)
    return [rule for rule in FORBIDDEN if re.search(rule, text)] + [
        rule for rule in REQUIRED if not re.search(rule, text)
    ]


@pytest.mark.parametrize("problem", [67, 76])
def test_source_text_breaks_no_rule(amalgamate, problem):
    assert broken_rules(amalgamate.amalgamate(problem)) == []


@pytest.mark.parametrize(
    "snippet",
    [
        "try:\n    x = 1",
        "class Failed(Exception): ...\nexcept Failed:",
        '"""An exceptional docstring."""',
        "for x in y: pass",
        "import threading",
        "threading.Thread(target=f)",
        "import multiprocessing",
        "from concurrent.futures import ThreadPoolExecutor",
        "torch.Tensor._make_subclass(kind, data)",
        "class Lazy(torch.Tensor):",
        "torch.cuda.Event = Fake",
        "torch.cuda.synchronize = lambda: None",
        "time.time = clock",
        "time.sleep(1)",
        "grad_input(x)",
        "while True:",
        "r'''\n/* torch.nn.functional */\n'''",
        "F.conv1d(x, w)",
        "torch.conv1d(x, w)",
        "torch.cuda.Stream()",
        "x.half()",
        "x.to(torch.float16)",
        "__float2half(1.f)",
        "from __future__ import annotations",
    ],
)
def test_checker_finds_each_broken_rule(snippet):
    kept = "__global__ load_inline\n"
    assert broken_rules(kept) == []
    assert len(broken_rules(kept + snippet)) >= 1


def test_checker_wants_kernels_outside_comments():
    assert broken_rules("# __global__\n// load_inline") == REQUIRED


def test_checker_reads_past_comments_only():
    assert broken_rules("__global__ load_inline  # try: torch.nn.functional\n// x.half()") == []


def test_source_never_asks_where_it_lies():
    assert "__file__" not in TEXT


# ---- loading ----

# What a reference's file leaves in the dict that the candidate is then run in.
REFERENCE = """\
import torch
import torch.nn as nn
class Model(nn.Module):
    def __init__(self, *arguments):
        super().__init__()
        self.conv1d = nn.Conv1d(*arguments, bias=False)
    def forward(self, x):
        return self.conv1d(x)
"""
GLOBALS = [
    "batch_size", "in_channels", "out_channels", "kernel_size", "length", "stride", "padding", "dilation",
    "groups", "bias", "input_length", "device", "x", "os",
]  # fmt: skip

OWN_NAMES = r"ModelNew|Conv1d|conv1d|get_inputs|get_init_inputs|torch|nn|_conv1d\w*|__builtins__|__doc__"


def evaluator_globals(text, cache):
    """The globals after an evaluator's load: reference, then two lines and the candidate, in one dict."""
    context = {}
    exec(REFERENCE, context)
    context.update(dict.fromkeys(GLOBALS, "the reference's own"))
    exec(f"import os\nos.environ['TORCH_EXTENSIONS_DIR'] = {cache!r}\n" + text, context)
    return context


@pytest.fixture(scope="module")
def cache(model_new):
    """The folder in which the imported module was built."""
    return built_in(model_new)


@pytest.fixture
def context(cache, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", cache)
    return evaluator_globals(TEXT, cache)


def test_exec_in_the_references_globals_touches_none_of_them(context):
    assert {name: context[name] for name in GLOBALS if name != "os"} == dict.fromkeys(
        [name for name in GLOBALS if name != "os"], "the reference's own"
    )
    assert context["Model"].__name__ == "Model"


# Other tests compile layers of the same module, and torch.compile leaves names in it.
TORCH_COMPILE_LEAVES = ("__builtins_dict_", "__compiled_fn_", "__import_", "__resume_at_")


def test_module_level_names_are_the_agreed_ones(model_new):
    extra = {name for name in vars(model_new) if not re.fullmatch(OWN_NAMES, name)}
    extra = {name for name in extra if not name.startswith(TORCH_COMPILE_LEAVES)}
    assert extra <= {"__name__", "__package__", "__loader__", "__spec__", "__file__", "__cached__"}


def test_inputs_ignore_the_references_globals(context):
    assert context["get_init_inputs"]() == [64, 128, 3]
    names = context["get_inputs"].__code__.co_names
    assert set(names) <= {"torch", "rand"}


def test_exec_runs_forward_and_backward(context):
    model = context["ModelNew"](3, 4, 3)
    x = torch.rand(2, 3, 9)
    torch.testing.assert_close(model(x), nn.functional.conv1d(x, model.conv1d.weight))
    model(x).sum().backward()
    assert model.conv1d.weight.grad is not None


def test_exec_has_no_file_and_a_foreign_name(context):
    assert "__file__" not in context and context["ModelNew"].__module__ == "builtins"
    with pytest.raises((OSError, TypeError)):
        inspect.getsource(context["ModelNew"])


def test_import_by_path(cache, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", cache)
    spec = importlib.util.spec_from_file_location("candidate", ROOT / "model_new.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.ModelNew(2, 2, 1)(torch.rand(1, 2, 4)).shape == (1, 2, 4)


def test_import_by_name_from_its_folder(cache):
    out, _ = run_python(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from model_new import ModelNew; import torch\n"
        "print(tuple(ModelNew(2, 2, 1)(torch.rand(1, 2, 4)).shape))",
        TORCH_EXTENSIONS_DIR=cache,
    )
    assert out == "(1, 2, 4)\n"


def test_notebook_cell(cache):
    out, _ = run_python(
        f"text = open({str(ROOT / 'model_new.py')!r}).read()\n"
        "exec(compile(text, '<cell>', 'exec'), globals())\n"  # __name__ == '__main__', no __file__
        "exec(compile(text, '<cell again>', 'exec'), globals())\n"
        "print(tuple(ModelNew(2, 2, 1)(torch.rand(1, 2, 4)).shape))",
        TORCH_EXTENSIONS_DIR=cache,
    )
    assert out == "(1, 2, 4)\n"


def test_four_loads_in_one_process_share_one_library(cache, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", cache)
    loaded = set(torch.ops.loaded_libraries)
    ops = {evaluator_globals(TEXT, cache)["_conv1d_ops"] for _ in range(4)}
    assert len(ops) == 1 and torch.ops.loaded_libraries == loaded


def test_loading_and_running_write_nothing_to_stdout(context, capfd, cache):
    evaluator_globals(TEXT, cache)["ModelNew"](2, 2, 1)(torch.rand(1, 2, 4))
    assert capfd.readouterr().out == ""


def test_loading_starts_no_cuda(cache):
    out, _ = run_python(
        "import torch\n"
        "def refuse(*a, **k): raise AssertionError('import touched torch.cuda')\n"
        "for name in ('is_available', 'device_count', 'init', '_lazy_init', 'get_device_capability',\n"
        "             'current_device', 'get_device_properties', 'current_stream', 'get_arch_list'):\n"
        "    setattr(torch.cuda, name, refuse)\n"
        f"exec(open({str(ROOT / 'model_new.py')!r}).read(), {{}})\n"
        "libraries = open('/proc/self/maps').read()\n"
        "print('libcuda.so' in libraries)",
        TORCH_EXTENSIONS_DIR=cache,
    )
    assert out == "False\n"


def test_library_does_not_link_the_driver(cache, model_new):
    name = model_new._conv1d_ops.name
    dynamic = subprocess.run(
        ["readelf", "-d", f"{cache}/{name}/{name}.so"], capture_output=True, text=True, check=True
    ).stdout
    assert "NEEDED" in dynamic and "libcuda.so" not in dynamic


GLOBAL_STATE = """\
import os, warnings, torch, torch.nn as nn
def state():
    b = torch.backends
    return [torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), b.cudnn.enabled,
            b.cudnn.benchmark, b.cudnn.deterministic, b.cudnn.allow_tf32, b.cuda.matmul.allow_tf32,
            torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled(),
            dict(os.environ), list(warnings.filters), nn.Conv1d.forward, nn.Conv1d._conv_forward,
            nn.functional.conv1d]
"""


def test_loading_and_running_change_nothing_global(cache):
    out, _ = run_python(
        f"{GLOBAL_STATE}\nbefore = state(); context = {{}}\n"
        f"exec(open({str(ROOT / 'model_new.py')!r}).read(), context)\n"
        "layer = context['Conv1d'](2, 2, 3, padding='same')\n"
        "layer(torch.rand(1, 2, 8)).sum().backward()\n"
        "context['Conv1d'].replace(nn.Sequential(nn.Conv1d(2, 2, 1)))\n"
        "print([pair for pair in zip(before, state()) if pair[0] != pair[1]])",
        TORCH_EXTENSIONS_DIR=cache,
    )
    assert out == "[]\n"


def test_importing_draws_no_random_numbers(cache):
    out, _ = run_python(
        "import torch; torch.manual_seed(1); before = torch.get_rng_state()\n"
        f"exec(open({str(ROOT / 'model_new.py')!r}).read(), {{}})\n"
        "print(torch.equal(before, torch.get_rng_state()))",
        TORCH_EXTENSIONS_DIR=cache,
    )
    assert out == "True\n"


# ---- the model ----

# KernelBench level 1: what the reference's Model takes by position after kernel_size, and what it is given.
PROBLEMS = {
    67: {
        "signature": [("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1), ("bias", False)],
        "some": {"stride": 2, "padding": 1, "dilation": 3, "groups": 2, "bias": True},
        "init": [64, 128, 3],
        "x": (32, 64, 131072),
    },
    76: {
        "signature": [("stride", 1), ("dilation", 1), ("bias", False)],
        "some": {"stride": 2, "dilation": 3, "bias": True},
        "init": [64, 128, 3, 3, 4],
        "x": (64, 64, 524280),
    },
}


class Reference(nn.Module):
    """The reference's Model for the problem whose signature has these names."""

    def __init__(self, names, in_channels, out_channels, kernel_size, *values):
        super().__init__()
        options = {"bias": False, **dict(zip(names, values))}
        self.conv1d = nn.Conv1d(in_channels, out_channels, kernel_size, **options)

    def forward(self, x):
        return self.conv1d(x)


@pytest.fixture(params=PROBLEMS)
def problem(request):
    return {"number": request.param, **PROBLEMS[request.param]}


@pytest.fixture
def candidate(problem, amalgamate, cache, monkeypatch):
    """The globals of this problem's file, loaded as an evaluator loads it."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", cache)
    return evaluator_globals(amalgamate.amalgamate(problem["number"]), cache)


@pytest.fixture
def build_both(problem, candidate):
    """build_both(*arguments): (reference, candidate), built after equal seeds, and the generator's two states."""

    def build(*arguments):
        models, states = [], []
        names = [name for name, _ in problem["signature"]]
        for make in (lambda *a: Reference(names, *a), candidate["ModelNew"]):
            torch.manual_seed(42)
            models.append(make(*arguments))
            states.append(torch.get_rng_state())
        return models, states

    return build


def test_signature_is_the_references_by_position(problem, candidate):
    parameters = list(inspect.signature(candidate["ModelNew"]).parameters.values())
    assert [p.name for p in parameters[:3]] == ["in_channels", "out_channels", "kernel_size"]
    assert [(p.name, p.default) for p in parameters[3:]] == problem["signature"]


def test_init_and_inputs_are_the_problems_own(problem, candidate, monkeypatch):
    assert candidate["get_init_inputs"]() == problem["init"]
    monkeypatch.setattr(torch, "rand", lambda *shape: shape)  # 76 would draw 8.6 GB
    assert candidate["get_inputs"]() == [problem["x"]]


@pytest.mark.parametrize("some", [False, True])
def test_equal_seeds_give_equal_weights(problem, build_both, some):
    values = problem["some"].values() if some else []
    (reference, model), (end, our_end) = build_both(4, 6, 3, *values)
    assert list(model.state_dict()) == list(reference.state_dict())
    for name, value in reference.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert torch.equal(end, our_end)


def test_state_dict_loads_strictly_both_ways(problem, build_both):
    (reference, model), _ = build_both(4, 6, 3, *problem["some"].values())
    assert set(model.state_dict()) == {"conv1d.weight", "conv1d.bias"}
    with torch.no_grad():
        reference.conv1d.weight.add_(1)
    model.load_state_dict(reference.state_dict(), strict=True)
    assert torch.equal(model.conv1d.weight, reference.conv1d.weight)
    with torch.no_grad():
        model.conv1d.bias.add_(1)
    reference.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(model.conv1d.bias, reference.conv1d.bias)


TOLERANCES = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 1e-2}


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("some", [False, True])
def test_five_trials_agree_with_the_reference(problem, build_both, some, dtype):
    models, _ = build_both(*((4, 6, 3, *problem["some"].values()) if some else problem["init"]))
    reference, model = (model.to(device="cpu", dtype=dtype) for model in models)
    for seed in range(5):
        torch.manual_seed(seed)
        x = torch.rand(2, reference.conv1d.in_channels, 301).to(dtype)
        kept = x.clone()
        wanted, got = reference(x), model(x)
        assert got.dtype == wanted.dtype and got.shape == wanted.shape
        assert torch.allclose(wanted, got, atol=TOLERANCES[dtype], rtol=TOLERANCES[dtype])
        assert torch.equal(x, kept)


def test_every_tensor_moves_and_casts(problem, candidate):
    model = candidate["ModelNew"](4, 6, 3, *problem["some"].values())
    plain = [value for module in model.modules() for value in vars(module).values()]
    assert not any(map(torch.is_tensor, plain))
    assert {p.dtype for p in model.to(torch.float64).parameters()} == {torch.float64}
    assert model(torch.rand(1, 4, 9, dtype=torch.float64)).dtype == torch.float64
    assert model.to("meta")(torch.rand(1, 4, 9, dtype=torch.float64, device="meta")).is_meta
