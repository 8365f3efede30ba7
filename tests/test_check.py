"""The judge judged: what check.py must catch, let through and record. Needs no built kernels."""
import functools
import itertools
import json
import math
import os
import types

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

import check

SMALL = check.Layer("small", 3, 8, 61, 12, 5, 2, 3, 2, 2, True, "a test")
CASE = {"route": "direct", "ms": 1.0, "torch_ms": 2.0, "floor_ms": 0.5, "rel_err": 1e-7,
        "torch_rel_err": 1e-7, "correct": True}


def convolve(x, weight, bias, stride, padding, dilation, groups):
    """Ideal in every mode but tf32, where it is better than it has to be: float64 rounded once."""
    bias = None if bias is None else bias.double()
    y = torch.nn.functional.conv1d(x.double(), weight.double(), bias, stride, padding, dilation, groups)
    return y.to(x.dtype)


def implementation(conv1d=convolve):
    """What check.py sees of model_new.py."""
    return types.SimpleNamespace(
        conv1d=conv1d, Conv1d=torch.nn.Conv1d, _conv1d_hash="abc",
        _conv1d_ops=types.SimpleNamespace(route=lambda *arguments: "cpu"))


def verdict(conv1d, mode, layer=SMALL):
    data = check.make_data(layer, mode, "cpu")
    settings = layer.stride, layer.padding, layer.dilation, layer.groups
    # Not PyTorch's own result: on CPUs its fp16 convolution crashes for some strided inputs of L <= 2.
    other = convolve(*data, *settings)
    return check.judge_output(layer, mode, data, conv1d(*data, *settings), other)


@pytest.fixture(params=["whole", "windows"])
def coverage(request, monkeypatch):
    """Judges the whole output, or windows so narrow that the fixed three miss most of it."""
    if request.param == "windows":
        narrow = functools.partial(check.choose_windows, budget=4 * (SMALL.Cin * SMALL.K + SMALL.Cout))
        monkeypatch.setattr(check, "choose_windows", narrow)


layers = st.builds(
    lambda N, G, C, O, L, K, stride, padding, dilation, bias: check.Layer(
        "drawn", N, G * C, L, G * O, K, stride, padding, dilation, G, bias),
    *[st.integers(1, high) for high in (3, 3, 5, 5, 40, 6, 4)], st.integers(0, 9), st.integers(1, 4),
    st.booleans(),
).filter(lambda layer: layer.L + 2 * layer.padding > layer.dilation * (layer.K - 1))


# ------------------------------------------------------------------------------------------- the yardstick

@hypothesis.given(layers, st.integers(1, 400))
@hypothesis.settings(deadline=None, max_examples=150)
def test_every_window_of_the_reference_equals_the_float64_convolution(layer, budget):
    data = check.make_data(layer, "fp64", "cpu")
    whole = convolve(*data, layer.stride, layer.padding, layer.dilation, layer.groups)
    for window in check.choose_windows(layer, (layer.N - 1, layer.P // 3), budget):
        reference = check.exact(layer, check.input_of(layer, data[0], window), *data[1:])
        torch.testing.assert_close(reference, window.of(whole), rtol=1e-12, atol=1e-13)


@hypothesis.given(layers, st.integers(1, 400))
def test_windows_reach_the_first_the_last_and_the_farthest_element(layer, budget):
    farthest = (layer.N // 2, layer.P // 3)
    windows = check.choose_windows(layer, farthest, budget)
    for n, p in ((0, 0), (layer.N - 1, layer.P - 1), farthest):
        assert any(w.n_begin <= n < w.n_end and w.p_begin <= p < w.p_end for w in windows)


@hypothesis.given(layers)
@hypothesis.settings(deadline=None)
def test_flop_counts_the_taps_that_meet_input_and_no_others(layer):
    x = torch.ones(layer.N, layer.Cin, layer.L)
    weight = torch.ones(layer.Cout, layer.Cin // layer.groups, layer.K)
    products = convolve(x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    assert layer.flop == 2 * products.double().sum().item()


def test_tf32_rounding_is_to_nearest_with_ties_to_even():
    step = 2.0 ** -10  # between neighbours in [1, 2)
    values = 1 + step * torch.tensor([0.49, 0.51, 0.5, 1.5])
    expected = 1 + step * torch.tensor([0, 1, 0, 2])
    assert torch.equal(check.to_tf32(values), expected) and torch.equal(check.to_tf32(-values), -expected)


# --------------------------------------------------------------------- nothing right is called wrong

@hypothesis.given(layers, st.sampled_from(list(check.MODES)))
@hypothesis.example(check.Layer("drawn", 1, 3, 33, 9, 1, 1, 0, 1, 3, False), "fp16")  # subnormal results
@hypothesis.settings(deadline=None, max_examples=200)
def test_a_correctly_rounded_result_passes(layer, mode):
    assert verdict(convolve, mode, layer)[0]


def one_by_one(order):
    """A convolution that adds its terms to a float32 accumulator one by one, in the order given."""
    def conv1d(x, weight, bias, stride, padding, dilation, groups):
        padded = torch.nn.functional.pad(x.float(), (padding, padding))
        per_group, K = weight.shape[1:]
        P = (padded.shape[2] - dilation * (K - 1) - 1) // stride + 1
        y = torch.zeros(x.shape[0], weight.shape[0], P)
        for c, k in order(list(itertools.product(range(per_group), range(K)))):
            taps = padded[:, c::per_group, k * dilation:][:, :, :(P - 1) * stride + 1:stride]
            y += weight[:, c, k].float()[:, None] * taps.repeat_interleave(weight.shape[0] // groups, 1)
        return (y if bias is None else y + bias.float()[:, None]).to(x.dtype)
    return conv1d


@hypothesis.given(layers, st.sampled_from(["fp32", "fp16", "bf16"]))
@hypothesis.settings(deadline=None, max_examples=100)
def test_fp32_accumulation_in_any_order_passes(layer, mode):
    assert verdict(one_by_one(iter), mode, layer)[0]
    assert verdict(one_by_one(reversed), mode, layer)[0]


@pytest.mark.parametrize("mode", ["fp32", "tf32", "fp16", "bf16"])
def test_fp32_accumulation_of_thousands_of_terms_passes(mode):
    layer = check.Layer("long_sum", 1, 256, 40, 8, 15, source="a test")
    assert verdict(one_by_one(iter), mode, layer)[0]


def test_operands_rounded_to_nearest_tf32_pass_in_tf32_only(coverage):
    def rounded(x, weight, *rest):
        return convolve(check.to_tf32(x), check.to_tf32(weight), *rest)
    assert verdict(rounded, "tf32")[0]
    assert not verdict(rounded, "fp32")[0]


# --------------------------------------------------------------------------- nothing wrong is called right

def spoil(change):
    def spoilt(*arguments):
        y = convolve(*arguments)
        change(y)
        return y
    return spoilt


WRONG = {
    "one element left as it was poisoned": spoil(lambda y: y[1, 3, 7].fill_(math.nan)),
    "one element infinite": spoil(lambda y: y[1, 3, 7].fill_(math.inf)),
    "one element left zero": spoil(lambda y: y[0, 5, 19].zero_()),
    "the last position wrong by 2 percent": spoil(lambda y: y[:, :, -1].mul_(1.02)),
    "shifted by one position": spoil(lambda y: y.copy_(y.roll(1, 2))),
    "two channels exchanged": spoil(lambda y: y.copy_(y[:, [1, 0, *range(2, SMALL.Cout)]])),
    "bias missing": lambda x, weight, bias, *rest: convolve(x, weight, None, *rest),
    "last tap missing": lambda x, weight, *rest: convolve(
        x, weight * (torch.arange(weight.shape[2]) < weight.shape[2] - 1), *rest),
    "all NaN": spoil(lambda y: y.fill_(math.nan)),
}


@pytest.mark.parametrize("mode", check.MODES)
@pytest.mark.parametrize("defect", WRONG)
def test_a_wrong_result_is_caught(defect, mode, coverage):
    assert not verdict(WRONG[defect], mode)[0]


def test_truncated_tf32_operands_are_caught(coverage):
    def truncated(x, weight, *rest):
        x, weight = ((t.contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32) for t in (x, weight))
        return convolve(x, weight, *rest)
    assert not verdict(truncated, "tf32")[0]


@pytest.mark.parametrize("mode", ["fp16", "bf16"])
def test_partial_sums_rounded_to_the_output_type_are_caught(mode, coverage):
    def halves(x, weight, bias, *rest):
        first = (torch.arange(weight.shape[2]) < 2).to(weight.dtype)
        return convolve(x, weight * first, None, *rest) + convolve(x, weight * (1 - first), bias, *rest)
    assert not verdict(halves, mode)[0]


def test_operands_of_19_bits_in_fp32_are_caught(coverage):
    def short(x, weight, *rest):  # float32 has 24; two bfloat16 parts, rather than three, would keep 16
        x, weight = (((t.view(torch.int32) + 16) & ~31).view(torch.float32) for t in (x, weight))
        return convolve(x, weight, *rest)
    assert not verdict(short, "fp32")[0]
    assert verdict(short, "tf32")[0]


def test_operands_of_8_bits_in_tf32_are_caught(coverage):
    def short(x, weight, *rest):
        return convolve(x.bfloat16().float(), weight.bfloat16().float(), *rest)
    assert not verdict(short, "tf32")[0]


@pytest.mark.parametrize("mode", ["fp16", "bf16"])
def test_one_element_off_by_two_units_in_the_last_place_is_caught(mode, coverage):
    def off(y):  # too little to show in the norm of all errors
        flat = y.view(-1)
        flat[flat.abs().argmax()] *= 1 + 2 * torch.finfo(y.dtype).eps
    assert not verdict(spoil(off), mode, SMALL._replace(N=40))[0]


def test_float32_accumulation_in_fp64_is_caught(coverage):
    def single(x, weight, bias, *rest):
        return convolve(x.float(), weight.float(), bias, *rest).double()
    assert not verdict(single, "fp64")[0]


# ---------------------------------------------------------------------------------------- runs and exit codes

def run(monkeypatch, conv1d, *arguments):
    monkeypatch.setitem(check.sys.modules, "model_new", implementation(conv1d))
    return check.main([*arguments, "--device", "cpu"])


SHAPE = ("--shape", "2,6,50", "4", "3", "--stride", "2", "--padding", "1", "--groups", "2")


def test_exit_code_0_and_a_table_on_stdout_where_all_is_right(monkeypatch, capsys):
    assert run(monkeypatch, convolve, *SHAPE) == 0
    captured = capsys.readouterr()
    rows = [line.split() for line in captured.out.splitlines()[1:]]
    assert [row[:4] for row in rows] == [["shape", mode, "cpu", "yes"] for mode in ("fp32", "fp16", "bf16")]
    assert "No GPU" in captured.err and "2x6x50 -> 4, K3 s2 p1 g2" in captured.err


def test_exit_code_1_where_one_mode_is_wrong(monkeypatch, capsys):
    def wrong_in_bf16(x, *rest):
        return convolve(x, *rest) * (1.02 if x.dtype == torch.bfloat16 else 1)
    assert run(monkeypatch, wrong_in_bf16, *SHAPE) == 1
    assert [line.split()[3] for line in capsys.readouterr().out.splitlines()[1:]] == ["yes", "yes", "WRONG"]


def test_a_layer_that_raises_fails_alone(monkeypatch, capsys):
    def raising(x, weight, *rest):
        if weight.shape[2] == 7:
            raise torch.OutOfMemoryError("out of memory\nat great length")
        return convolve(x, weight, *rest)
    assert run(monkeypatch, raising, "vocos_dw7", "kb67_v0", "--mode", "fp32") == 1
    rows = capsys.readouterr().out.splitlines()[1:]
    assert rows[0].split()[:3] == ["vocos_dw7", "fp32", "FAILED"] and "out of memory" in rows[0]
    assert rows[1].split()[:4] == ["kb67_v0", "fp32", "cpu", "yes"]


def test_a_result_of_another_shape_or_dtype_fails(monkeypatch):
    assert run(monkeypatch, lambda *arguments: convolve(*arguments)[:, :, 1:], *SHAPE) == 1
    assert run(monkeypatch, lambda *arguments: convolve(*arguments).double(), *SHAPE) == 1


def test_an_interrupt_ends_with_130_and_writes_nothing(monkeypatch, tmp_path):
    def interrupted(*arguments):
        raise KeyboardInterrupt
    monkeypatch.setattr(check, "RESULTS", tmp_path)
    assert run(monkeypatch, interrupted, *SHAPE) == 130
    assert not list(tmp_path.iterdir())


def test_json_holds_every_key_and_no_nan(monkeypatch, capsys):
    assert run(monkeypatch, WRONG["all NaN"], *SHAPE, "--json") == 1
    report = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert report["sources"] == "abc" and report["gpu"] == "cpu"
    case = report["cases"]["shape"]["fp32"]
    assert set(CASE) <= set(case) and case["correct"] is False and case["rel_err"] is None and case["ms"] > 0


@pytest.mark.parametrize("arguments, sentence", [
    (["no_such_layer"], "no layer no_such_layer"),
    (["--mode", "fp8"], "invalid choice"),
    (["--device", "cuda:99"], "there is no cuda:99"),
    (["--device", "nowhere"], "argument --device"),
    (["--shape", "1,2", "3", "4"], "expected N,CIN,L COUT K"),
    (["--shape", "1,2,3", "4", "9"], "longer than the padded input"),
    (["--shape", "1,6,9", "4", "3", "--groups", "4"], "4 does not divide"),
    (["--shape", "1,2,9", "4", "3", "--stride", "0"], "must be positive"),
    (["--stride", "2"], "describe a --shape"),
    (["--random", "no_such_regime", "3"], "expected one of dense"),
    (["--random", "dense", "none"], "and a count"),
    (["--kernelbench", "1"], "invalid choice"),
    (["kb67", "--table"], "choose one of"),
    (["--record", "--device", "cpu"], "on a GPU"),
])
def test_bad_arguments_end_with_2_and_one_sentence(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as ended:
        check.main(arguments)
    assert ended.value.code == 2 and sentence in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------- layers

@pytest.mark.parametrize("layer", check.LAYERS.values(), ids=check.LAYERS)
def test_a_layer_is_a_valid_convolution_at_its_own_and_at_its_fitted_size(layer):
    assert layer.source and layer.name.replace("_", "").isalnum() and layer.name.islower()
    fitted = check.fitted(layer, 1 << 21, 6e7)
    for each in (layer, fitted):
        conv = torch.nn.Conv1d(each.Cin, each.Cout, each.K, each.stride, each.padding, each.dilation,
                               each.groups, each.bias, device="meta")
        y = conv(torch.empty(each.N, each.Cin, each.L, device="meta"))
        assert y.shape == (each.N, each.Cout, each.P)
    weights = fitted.Cout * fitted.terms  # are not cut
    assert fitted.elements - weights <= 1 << 21 and fitted.flop <= 6e8
    assert (fitted.K, fitted.stride, fitted.padding, fitted.dilation) == layer[5:9]
    assert check.fitted(layer, layer.elements, layer.flop) == layer


@pytest.mark.parametrize("regime, holds", [
    ("dense", lambda layer: min(layer.Cin, layer.Cout) // layer.groups >= 16),
    ("depthwise", lambda layer: layer.groups == layer.Cin and layer.K < 64),
    ("few_channels", lambda layer: layer.groups == 1 and min(layer.Cin, layer.Cout) <= 8),
    ("small_groups", lambda layer: 1 < layer.groups and 2 <= layer.Cin // layer.groups < 16),
    ("long", lambda layer: layer.K >= 64),
])
def test_generated_layers_are_of_their_regime_valid_and_the_same_for_the_same_seed(regime, holds):
    drawn = check.generated(regime, 30, 7)
    assert drawn == check.generated(regime, 30, 7) != check.generated(regime, 30, 8)
    assert all(holds(layer) and layer.P >= 1 for layer in drawn)
    assert all(layer.Cin % layer.groups == layer.Cout % layer.groups == 0 for layer in drawn)


def test_a_random_sweep_names_the_losers(capsys):
    def case(ms):
        return {"fp32": {**CASE, "ms": ms}}
    check.print_summary({"quick": case(0.5), "slow": case(4.0), "failed": case(None)}, ["fp32"])
    assert capsys.readouterr().out == (
        "fp32: ratio 1.41 in the geometric mean, 0.50 at least; slower than PyTorch: slow 0.50\n")


# ------------------------------------------------------------------------------------- the record, the table

def report(cases, sources="abc"):
    return {"sources": sources, "gpu": "NVIDIA H200", "torch": "2.11.0", "cuda": "13.0", "cudnn": 91900,
            "cases": cases}


def read(path):
    return json.loads(path.read_text(), parse_constant=pytest.fail)


def test_a_partial_run_of_the_same_sources_is_merged_case_by_case(tmp_path):
    check.write_record(report({"kb76": {"tf32": CASE}, "kb67": {"tf32": CASE, "fp16": CASE}}), tmp_path)
    path = check.write_record(report({"kb67": {"fp16": {**CASE, "ms": 9.0}}}), tmp_path)
    assert path.name == "nvidia_h200.json"
    cases = read(path)["cases"]
    assert list(cases) == ["kb67", "kb76"]
    assert cases["kb67"] == {"tf32": CASE, "fp16": {**CASE, "ms": 9.0}} and cases["kb76"] == {"tf32": CASE}


def test_a_run_of_other_sources_replaces_the_record(tmp_path):
    check.write_record({**report({"kb76": {"tf32": CASE}}), "host_us": {"ours": 1.0, "torch": 2.0}}, tmp_path)
    record = read(check.write_record(report({"kb67": {"tf32": CASE}}, sources="def"), tmp_path))
    assert record["sources"] == "def" and list(record["cases"]) == ["kb67"] and "host_us" not in record


def test_a_measured_case_has_the_record_s_keys_and_types():
    bench = check.Bench("cpu")
    limits = bench.limits(["fp32"])
    case = check.run_cases(implementation(), [check.LAYERS["kb67"]], ["fp32"], bench, limits)["kb67"]["fp32"]
    assert {key: type(case[key]) for key in CASE} == {key: type(value) for key, value in CASE.items()}
    assert case["scaled"] == check.fitted(check.LAYERS["kb67"], *bench.largest).shape
    assert limits["copy_TBps"] > 0 and limits["matmul_TFLOPs"]["fp32"] > 0


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = check.write_record(report({"kb67": {"tf32": CASE}}), tmp_path)
    before = path.read_text()

    def interrupted(*arguments):
        raise KeyboardInterrupt
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        check.write_record(report({"kb76": {"tf32": CASE}}), tmp_path)
    assert path.read_text() == before


def test_the_table_gives_ms_ratio_and_share_of_the_floor_and_marks_wrong_and_stale(tmp_path):
    cases = {"kb67": {"tf32": CASE, "fp16": {**CASE, "correct": False}},
             "kb76": {"bf16": {**CASE, "torch_ms": None}}}
    check.write_record({**report(cases), "import_s": {"cold": 12.0, "cached": 0.1},
                        "host_us": {"ours": 5.0, "torch": 16.7}}, tmp_path)
    table = check.results_table(tmp_path, "abc")
    assert "| kb67 | 32x64x131072 -> 128, K3 | direct | 1 ms, 2.00x, 50% |  | **wrong** |  |" in table
    assert "| direct |  |  |  | 1 ms, 50% |" in table
    assert "NVIDIA H200" in table and "12.0 s cold" in table and "16.7 us" in table
    assert "tale" not in table
    assert "**Stale" in check.results_table(tmp_path, "other sources")


def test_the_table_replaces_what_stands_between_the_marks_and_nothing_else(tmp_path):
    readme, results = tmp_path / "README.md", tmp_path / "results"
    check.write_record(report({"kb67": {"tf32": CASE}}), results)
    readme.write_text("head\n<!-- results:begin -->\nold\n<!-- results:end -->\ntail\n")
    for _ in range(2):
        check.write_table(readme, results, "abc")
        head, rest = readme.read_text().split("<!-- results:begin -->")
        table, tail = rest.split("<!-- results:end -->")
        assert (head, tail) == ("head\n", "\ntail\n") and "kb67" in table and "old" not in table


def test_a_readme_without_its_marks_is_left_alone(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("no marks")
    with pytest.raises(ValueError, match="results:begin"):
        check.write_table(readme, tmp_path, "abc")
    assert readme.read_text() == "no marks"


# -------------------------------------------------------------------------------------------- KernelBench

CANDIDATE = """
import torch
assert batch_size == 2 and 'Model' in globals() and '__file__' not in globals() and __name__ == 'builtins'
class ModelNew(torch.nn.Module):
    def __init__(self, *arguments, bias=False):
        super().__init__()
        {draw}
        self.conv1d = torch.nn.Conv1d(*arguments, bias=bias)
    def forward(self, x):
        return {result}
def get_inputs():
    return None
"""


def kernelbench(draw="", result="self.conv1d(x)"):
    text = CANDIDATE.format(draw=draw, result=result)
    return check.kernelbench(67, "cpu", text, trials=3, runs=2, sizes={"batch_size": 2, "length": 200})


def test_kernelbench_passes_an_equal_module_and_times_both_with_and_without_grad(monkeypatch):
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    found = kernelbench()
    assert found["correct"] and found["passed"] == 3 and found["max_diff"] == 0
    assert all(found[key] > 0 for key in ("ms", "grad_ms", "torch_ms", "torch_grad_ms"))
    assert "TORCH_EXTENSIONS_DIR" not in os.environ


@pytest.mark.parametrize("draw, result", [
    ("", "self.conv1d(x) * 1.001"),
    ("", "self.conv1d(x)[..., 1:]"),
    ("", "self.conv1d(x) * float('nan')"),
    ("torch.rand(1)", "self.conv1d(x)"),  # weights are equal only where nothing is drawn before them
])
def test_kernelbench_fails_what_the_evaluator_fails(draw, result):
    found = kernelbench(draw, result)
    assert not found["correct"] and found["passed"] == 0


def test_kernelbench_76_takes_stride_and_dilation_by_position():
    context = {}
    exec(check.PROBLEMS[76], context)
    conv = context["Model"](*context["get_init_inputs"]()).conv1d
    assert (conv.in_channels, conv.out_channels, conv.kernel_size) == (64, 128, (3,))
    assert (conv.stride, conv.padding, conv.dilation, conv.bias) == ((3,), (0,), (4,), None)
    assert (context["batch_size"], context["length"]) == (64, 524280)
