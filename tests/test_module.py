"""Conv1d is nn.Conv1d in everything but its kernels, and replace() swaps it in without leaving a trace."""
import copy
import inspect
import io
import pickle

import pytest
import torch
import torch.nn as nn
from torch.nn.utils import parametrizations, prune


def assert_agree(got, wanted, layer, x):
    """Equal but for rounding: two sums of n = C*K + 1 terms differ by at most 2*n*eps*sum(|terms|)."""
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    terms = layer.weight[0].numel() + 1
    largest = max(1, x.abs().max().item()) * max(p.abs().max().item() for p in layer.parameters())
    bound = 2 * terms * torch.finfo(x.dtype).eps * terms * largest
    torch.testing.assert_close(got, wanted, rtol=0, atol=bound)


def build_both(model_new, *arguments, **options):
    """(nn.Conv1d, Conv1d) of these arguments, built after the same seed."""
    layers = []
    for kind in (nn.Conv1d, model_new.Conv1d):
        torch.manual_seed(7)
        layers.append(kind(*arguments, **options))
    return layers


def test_conv1d_has_the_agreed_signature(model_new):
    parameters = inspect.signature(model_new.conv1d).parameters.values()
    assert [(p.name, p.default) for p in parameters if p.default is not p.empty] == [
        ("bias", None), ("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1),
        ("activation", None),
    ]  # fmt: skip
    assert [p.name for p in parameters][:2] == ["x", "weight"]


@pytest.mark.parametrize("padding", [0, 2, (2,), "same", "valid"])
@pytest.mark.parametrize("kernel_size", [3, 4])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_function_takes_every_kind_of_padding_and_x(model_new, padding, kernel_size, batch):
    layer = nn.Conv1d(6, 4, kernel_size, padding=padding, dilation=2, groups=2)
    x = torch.randn(*batch, 6, 17)
    got = model_new.conv1d(x, layer.weight, layer.bias, padding=padding, dilation=2, groups=2)
    assert_agree(got, layer(x), layer, x)


MODES = ["zeros", "reflect", "replicate", "circular"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding", [0, 3, "same", "valid"])
@pytest.mark.parametrize("stride", [1, 2])
def test_module_takes_every_padding_mode(model_new, mode, padding, stride):
    if padding == "same" and stride == 2:
        with pytest.raises(ValueError, match="same") as wanted:
            nn.Conv1d(6, 4, 4, padding=padding, stride=stride)
        with pytest.raises(ValueError) as got:
            model_new.Conv1d(6, 4, 4, padding=padding, stride=stride)
        assert str(got.value) == str(wanted.value)
        return
    options = {"padding": padding, "padding_mode": mode, "stride": stride, "dilation": 2}
    reference, layer = build_both(model_new, 6, 4, 4, **options)
    x = torch.randn(2, 6, 17)
    assert_agree(layer(x), reference(x), reference, x)
    assert_agree(layer(x[0]), reference(x[0]), reference, x)


def test_construction_draws_and_shows_what_torch_does(model_new):
    ends = []
    for kind in (nn.Conv1d, model_new.Conv1d):
        torch.manual_seed(3)
        options = {"padding": "valid", "padding_mode": "circular", "dtype": torch.float64}
        layer = kind(4, 6, 5, stride=2, groups=2, **options)
        ends.append((torch.get_rng_state().tolist(), layer.state_dict()["weight"].tolist(), repr(layer)))
    assert ends[0] == ends[1]


def test_state_dict_loads_strictly_both_ways(model_new):
    reference, layer = build_both(model_new, 4, 6, 3)
    with torch.no_grad():
        reference.weight.mul_(2)
    layer.load_state_dict(reference.state_dict(), strict=True)
    assert torch.equal(layer.weight, reference.weight)
    reference.load_state_dict(layer.state_dict(), strict=True)


def test_copies_and_pickles(model_new):
    layer = model_new.Conv1d(4, 6, 3)
    x = torch.randn(2, 4, 9)
    stream = io.BytesIO()
    torch.save(layer, stream)
    stream.seek(0)
    saved = torch.load(stream, weights_only=False)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), saved):
        assert type(twin) is model_new.Conv1d and twin.weight is not layer.weight
        assert torch.equal(twin(x), layer(x))


def reparametrized(make):
    """Every way torch has of computing a layer's weight at each call, on a layer from make()."""
    yield "weight_norm hook", torch.nn.utils.weight_norm(make())
    yield "weight_norm", parametrizations.weight_norm(make())
    yield "spectral_norm", parametrizations.spectral_norm(make())
    yield "pruned", prune.l1_unstructured(make(), "weight", amount=0.5)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_computed_weights_are_read_at_every_call(model_new):
    def make(kind):
        torch.manual_seed(5)
        return kind(4, 6, 3).eval()

    pairs = zip(reparametrized(lambda: make(nn.Conv1d)), reparametrized(lambda: make(model_new.Conv1d)))
    for (name, reference), (_, layer) in pairs:
        for scale in (1, 3):
            with torch.no_grad():
                for parameter in (*reference.parameters(), *layer.parameters()):
                    parameter.mul_(scale)
            x = torch.randn(2, 4, 9)
            assert_agree(layer(x), reference(x), reference, x)


def test_hooks_and_gradients_reach_the_module(model_new):
    reference, layer = build_both(model_new, 4, 6, 3)
    x = torch.randn(2, 4, 9)
    seen = []
    layer.register_forward_hook(lambda module, arguments, output: seen.append(output.shape))
    layer(x).square().sum().backward()
    reference(x).square().sum().backward()
    assert seen == [(2, 6, 7)]
    torch.testing.assert_close(layer.weight.grad, reference.weight.grad)
    torch.testing.assert_close(layer.bias.grad, reference.bias.grad)


# ---- replace ----


class Sub(nn.Conv1d):
    """A subclass of the user's own."""


@pytest.fixture
def model():
    shared = nn.Conv1d(4, 4, 3, padding=1)
    return nn.Sequential(
        nn.Conv1d(3, 4, 3, padding="same", padding_mode="reflect"),
        nn.Sequential(shared, nn.ReLU(), nn.ModuleDict({"again": shared})["again"]),
        Sub(4, 4, 1),
        nn.ConvTranspose1d(4, 4, 3),
        nn.Conv1d(4, 2, 3, bias=False),
    ).eval()


def test_replace_swaps_every_conv1d_in_place(model_new, model):
    x = torch.randn(2, 3, 12)
    before = list(model.modules())
    parameters = dict(model.named_parameters())
    wanted = model(x)
    assert model_new.Conv1d.replace(model) is model
    assert all(old is new for old, new in zip(before, model.modules()))
    assert all(parameters[name] is parameter for name, parameter in model.named_parameters())
    kinds = [type(module) for module in model.modules() if hasattr(module, "weight")]
    assert kinds == [model_new.Conv1d, model_new.Conv1d, Sub, nn.ConvTranspose1d, model_new.Conv1d]
    torch.testing.assert_close(model(x), wanted)


def test_replace_takes_a_bare_layer_and_twice_is_once(model_new):
    layer = nn.Conv1d(2, 2, 1)
    assert model_new.Conv1d.replace(layer) is layer
    assert type(model_new.Conv1d.replace(layer)) is model_new.Conv1d


def test_replace_keeps_hooks_and_training_mode(model_new, model):
    seen = []
    model[0].register_forward_pre_hook(lambda module, arguments: seen.append(type(module)))
    model_new.Conv1d.replace(model)
    model(torch.randn(1, 3, 12))
    assert seen == [model_new.Conv1d] and not model[0].training


def test_replace_leaves_the_old_class_alone(model_new, model):
    model_new.Conv1d.replace(model)
    assert type(nn.Conv1d(1, 1, 1)) is nn.Conv1d
    assert nn.LazyConv1d.cls_to_become is nn.Conv1d


def test_replace_keeps_parametrizations(model_new):
    layer = parametrizations.weight_norm(nn.Conv1d(4, 6, 3))
    twin = copy.deepcopy(layer)
    x = torch.randn(2, 4, 9)
    wanted = layer(x)
    model_new.Conv1d.replace(nn.Sequential(layer))
    assert isinstance(layer, model_new.Conv1d) and not isinstance(twin, model_new.Conv1d)
    assert_agree(layer(x), wanted, twin, x)
    with torch.no_grad():
        layer.parametrizations.weight.original0.mul_(2)
        layer.bias.zero_()
    assert_agree(layer(x) / 2, wanted - twin.bias[:, None], twin, x)
    nn.utils.parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is model_new.Conv1d


def test_replace_waits_for_a_lazy_layer(model_new):
    lazy = model_new.Conv1d.replace(nn.Sequential(nn.LazyConv1d(6, 3)))
    x = torch.randn(2, 4, 9)
    y = lazy(x)
    assert type(lazy[0]) is model_new.Conv1d and lazy[0].weight.shape == (6, 4, 3)
    reference = nn.Conv1d(4, 6, 3)
    reference.load_state_dict(lazy[0].state_dict())
    assert_agree(y, reference(x), reference, x)


def test_replaced_model_runs_on_our_op(model_new, model):
    model_new.Conv1d.replace(model)
    with torch.profiler.profile() as profile:
        model(torch.randn(1, 3, 12))
    name = f"{model_new._conv1d_ops.name}::conv1d"
    assert sum(event.count for event in profile.key_averages() if event.key == name) == 4


@pytest.mark.parametrize("padding", [1, "same"])
def test_compiles_to_one_graph(model_new, padding):
    reference, layer = build_both(model_new, 4, 6, 3, padding=padding)
    x = torch.randn(2, 4, 9)
    assert_agree(torch.compile(layer, fullgraph=True, backend="eager")(x), reference(x), reference, x)
