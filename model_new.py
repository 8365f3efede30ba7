"""y = Conv1d(64, 128, 3)(x) is y = nn.Conv1d(64, 128, 3)(x): same call, same numbers, by this file's kernels.

    from model_new import Conv1d, conv1d
    layer = Conv1d(64, 128, 3, padding="same")         # a subclass of nn.Conv1d
    y = conv1d(x, weight, bias, stride=2, padding=1)   # the function
    model = Conv1d.replace(model)                      # every nn.Conv1d inside a model, in place

One file, nothing beside it. Importing it compiles the CUDA and C++ sources that it holds, with
torch.utils.cpp_extension (as load_inline does, but in several units side by side), once for each machine,
torch version and set of GPU architectures; later imports load what was built.
"""
import torch
import torch.nn as nn


def conv1d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, activation=None):
    """The convolution of torch: same arguments, same result, same errors.

    x: (N, groups*C, L) or (groups*C, L). weight: (groups*O, C, K). bias: (groups*O,) or None.
    stride, padding, dilation: an integer or a tuple of one; padding may also be 'same' or 'valid'.
    activation: None, or 'relu', 'gelu' or 'silu', which then follows in the same kernel: with the result of
    torch's function of that name on the convolution.
    Returns (N, groups*O, P) or (groups*O, P) with P = (L + 2*padding - dilation*(K - 1) - 1)//stride + 1.
    A call that is not valid raises what torch raises for it.
    """
    if not torch.compiler.is_dynamo_compiling():
        y = _conv1d_ops.direct(x, weight, bias, stride, padding, dilation, groups, activation)
        if y is not NotImplemented:
            return y
        _conv1d_check_types(x, weight, bias, stride, padding, dilation, groups)

    if activation is not None:
        _conv1d_check_activation(activation)
    if isinstance(stride, (tuple, list)) and len(stride) == 1:
        stride = stride[0]
    if isinstance(padding, (tuple, list)) and len(padding) == 1:
        padding = padding[0]
    if isinstance(dilation, (tuple, list)) and len(dilation) == 1:
        dilation = dilation[0]
    if isinstance(stride, int) and isinstance(padding, int) and isinstance(dilation, int):
        return _conv1d_ops.conv1d.default(x, weight, bias, stride, padding, dilation, groups, activation)

    stride, dilation = _conv1d_as_list(stride), _conv1d_as_list(dilation)
    if isinstance(padding, str):
        return _conv1d_ops.conv1d.padding(x, weight, bias, stride, padding, dilation, groups, activation)
    padding = _conv1d_as_list(padding)
    return _conv1d_ops.conv1d.lists(x, weight, bias, stride, padding, dilation, groups, activation)


def _conv1d_as_list(value):
    return value if isinstance(value, (tuple, list)) else (value,)


def _conv1d_check_types(x, weight, bias, *numbers):
    """TypeError, as torch words it, where its convolution has no signature for arguments of these types."""
    import numbers as abstract

    def is_tensor(value):
        return hasattr(type(value), "__torch_function__")

    def is_number(value):
        if isinstance(value, abstract.Integral):
            return not isinstance(value, bool)
        return isinstance(value, torch.SymInt) or is_tensor(value)

    *lists, groups = numbers
    if isinstance(lists[1], str):
        del lists[1]
    flat = [item for value in lists for item in _conv1d_as_list(value)]
    tensors = [x, weight] if bias is None else [x, weight, bias]
    if not (all(map(is_tensor, tensors)) and all(map(is_number, [*flat, groups]))):
        types = ", ".join(type(value).__name__ for value in (x, weight, bias, *numbers))
        raise TypeError(f"conv1d() received an invalid combination of arguments - got ({types})")


_conv1d_activations = (None, "relu", "gelu", "silu")


def _conv1d_check_activation(activation):
    if activation not in _conv1d_activations:
        raise ValueError(f"activation must be one of {_conv1d_activations}, but got {activation=}")


class Conv1d(nn.Conv1d):
    """nn.Conv1d on the kernels of this file: same arguments, initialisation, parameters and state_dict.

    activation: None, or 'relu', 'gelu' or 'silu', which then follows in the same kernel.
    """

    activation = None  # of what replace() turns into a Conv1d

    def __init__(
        self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True,
        padding_mode="zeros", device=None, dtype=None, *, activation=None,
    ):
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            device, dtype,
        )
        _conv1d_check_activation(activation)
        self.activation = activation

    def extra_repr(self):
        shown = super().extra_repr()
        return shown if self.activation is None else f"{shown}, activation={self.activation}"

    def forward(self, input):
        # Looking up self.weight costs 0.6 us. Weights that are computed at each call are not in the dict.
        parameters = self._parameters
        weight = parameters["weight"] if "weight" in parameters else self.weight
        bias = parameters["bias"] if "bias" in parameters else self.bias
        return self._conv_forward(input, weight, bias)

    def _conv_forward(self, input, weight, bias):
        padding = self.padding
        if self.padding_mode != "zeros":
            input = nn.functional.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        return conv1d(
            input, weight, bias, self.stride, padding, self.dilation, self.groups, self.activation
        )

    @classmethod
    def replace(cls, model):
        """Makes every nn.Conv1d in `model`, itself included, a Conv1d in place, and returns `model`.

        Only the class changes: parameters, buffers, hooks, parametrizations and identities stay as they are.
        nn.LazyConv1d becomes a Conv1d when it meets its first input. Subclasses of nn.Conv1d are left alone.
        """
        for module in model.modules():
            kind = type(module)
            if kind is nn.Conv1d:
                module.__class__ = cls
            elif kind is nn.LazyConv1d:
                module.cls_to_become = cls
            elif nn.utils.parametrize.is_parametrized(module) and kind.__bases__ == (nn.Conv1d,):
                # Parametrizing gave this module a class of its own, which holds the properties.
                own = dict(vars(kind))
                module.__class__ = type(kind.__name__, (cls,), own)
        return model


# >>> page, written by kernels/amalgamate.py


class ModelNew(nn.Module):
    """KernelBench level 1, problem 67 (conv_standard_1D), with the signature of that problem's Model."""

    def __init__(
        self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=False
    ):
        super().__init__()
        self.conv1d = Conv1d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
        )

    def forward(self, x):
        return self._modules["conv1d"](x)  # what self.conv1d is, 1.2 us sooner


def get_inputs():
    return [torch.rand(32, 64, 131072)]


def get_init_inputs():
    return [64, 128, 3]


# <<< page


def _conv1d_architectures():
    """What nvcc shall compile for, sorted, in its words: ["compute_80", "sm_80", "sm_90a"]; compute_ is PTX.

    The union of TORCH_CUDA_ARCH_LIST and this machine's GPUs, from 7.5 on. NVML tells the GPUs whatever
    CUDA_VISIBLE_DEVICES says, and without starting the CUDA driver, after which a process could not fork.
    """
    import contextlib
    import ctypes
    import os
    import re

    listed = os.environ.get("TORCH_CUDA_ARCH_LIST", "")
    for name, numbers in {  # "X+Tegra" before "X"
        "Kepler+Tesla": "3.7", "Kepler": "3.5", "Maxwell+Tegra": "5.3", "Maxwell": "5.2", "Pascal": "6.1",
        "Volta+Tegra": "7.2", "Volta": "7.0", "Turing": "7.5+PTX", "Ampere+Tegra": "8.7",
        "Ampere": "8.0;8.6+PTX", "Ada": "8.9+PTX", "Hopper": "9.0+PTX", "Blackwell+Tegra": "11.0",
        "Blackwell": "10.0;10.3;12.0;12.1+PTX", "native": "",
    }.items():
        listed = listed.replace(name, numbers)
    wanted = set(re.split("[; ]+", listed)) - {""}

    with contextlib.suppress(OSError):  # no NVML: no NVIDIA GPU
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        count, device, major, minor = ctypes.c_uint(), ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
        nvml.nvmlInit_v2()
        nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        for index in range(count.value):
            nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device))
            nvml.nvmlDeviceGetCudaComputeCapability(device, ctypes.byref(major), ctypes.byref(minor))
            wanted.add(f"{major.value}.{minor.value}")
        nvml.nvmlShutdown()

    codes = set()
    for item in wanted:
        match = re.fullmatch(r"(\d+)\.(\d)([af]?)(\+PTX)?", item)
        if match is None:
            raise ImportError(f"conv1d: TORCH_CUDA_ARCH_LIST holds {item!r}; write 8.6 or 9.0+PTX")
        number, suffix, ptx = int(match[1] + match[2]), match[3], match[4]
        if number >= 75:
            # 9.0 means 9.0a, which alone has wgmma, and whose PTX runs on no other GPU.
            codes.add("sm_90a" if number == 90 else f"sm_{number}{suffix}")
            if ptx:
                codes.add("compute_80" if number == 90 else f"compute_{number}{suffix}")
    return sorted(codes) or ["compute_80", "sm_80", "sm_90a"]


def _conv1d_find_nvcc():
    """(the folder of a CUDA toolkit of torch's major version, None) or (None, a sentence: cause and cure).

    From 12.5 on: the oldest whose runtime has all the launch attributes that the kernels use.
    """
    import os
    import re
    import shutil
    import subprocess
    import sys

    major, minor = torch.version.cuda.split(".")[:2]
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    on_path = shutil.which("nvcc")
    homes += [on_path and os.path.realpath(f"{on_path}/../.."), "/usr/local/cuda"]
    homes += [f"{folder}/nvidia/cu{major}" for folder in sys.path]  # where pip puts it
    others = ""
    for home in dict.fromkeys(filter(None, homes)):
        headers = (f"{home}/include", f"{home}/targets/{os.uname().machine}-linux/include")
        nvcc = f"{home}/bin/nvcc"
        if os.access(nvcc, os.X_OK) and any(os.path.exists(f"{folder}/cuda_runtime.h") for folder in headers):
            told = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
            release = "".join(re.findall(r"release ([\d.]+)", told))
            numbers = [int(number) for number in re.findall(r"\d+", release)]
            if numbers >= [12, 5] and numbers[0] == int(major):
                return home, None
            others += f" ({nvcc} is of CUDA {release})"
    command = f"pip install 'cuda-toolkit[nvcc,cccl]=={major}.{minor}.*'"
    if int(major) < 13:  # pip has no nvcc for these
        command = f"conda install -c nvidia cuda-toolkit={major}.{minor}"
    least = " from 12.5 on" if major == "12" else ""
    cause = f"found no nvcc of CUDA {major}{least}, which torch was built with{others}"
    return None, f"conv1d has no CUDA half: {cause}; run: {command}"


def _conv1d_with_direct(ops, path):
    """`ops`, with the function that its library at `path`, a Python module too, has for calls from Python."""
    import importlib.util

    spec = importlib.util.spec_from_file_location(ops.name, path)
    ops.direct = importlib.util.module_from_spec(spec).conv1d
    return ops


def _conv1d_load(name, cache):
    """torch.ops.<name>, from the library in `cache`; None where there is none or it is not what was built."""
    import contextlib
    import hashlib

    ops = getattr(torch.ops, name)
    if hasattr(ops, "conv1d"):  # a process may register an op once only
        return ops
    with contextlib.suppress(OSError), open(f"{cache}/{name}/sha256") as recorded:
        path = f"{cache}/{name}/{name}.so"
        with open(path, "rb") as library:
            intact = recorded.read() == hashlib.sha256(library.read()).hexdigest()
        if intact:
            torch.ops.load_library(path)
            return _conv1d_with_direct(ops, path)


def _conv1d_compile(name, folder, cpp_flags, cuda_flags, codes, home):
    """Compiles library `name` in `folder` and loads it; its CUDA half, for `codes`, by the toolkit in `home`.

    No CUDA half where `home` is None. ImportError where a tool is missing, one sentence with the command that
    mends it; RuntimeError with the compiler's words where compiling fails.
    """
    import contextlib
    import glob
    import importlib.util
    import logging
    import os
    import shutil
    import subprocess

    with contextlib.ExitStack() as settings:

        def set_meanwhile(mapping, key, value):
            undo = (mapping.__setitem__, key, mapping[key]) if key in mapping else (mapping.pop, key)
            settings.callback(*undo)
            mapping[key] = value

        if importlib.util.find_spec("ninja"):  # a virtual environment that was not activated is not on PATH
            import ninja

            set_meanwhile(os.environ, "PATH", f"{os.environ.get('PATH', os.defpath)}:{ninja.BIN_DIR}")
        compiler = os.environ.get("CXX", "c++")
        for tool, command in {"ninja": "pip install ninja", compiler: "apt-get install g++"}.items():
            if shutil.which(tool) is None:
                raise ImportError(f"conv1d cannot be compiled: {tool} was not found; run: {command}")

        # Otherwise this import starts the CUDA driver, and it tells where there is no GPU.
        set_meanwhile(os.environ, "PYTORCH_NVML_BASED_CUDA_CHECK", "1")
        set_meanwhile(vars(logging.getLogger("torch.utils.cpp_extension")), "disabled", True)
        from torch.utils import cpp_extension

        units = [unit for unit in _conv1d_units if home or not unit.endswith(".cu")]
        # Ninja begins them in this order: those that take longest must not be among the last.
        shortest = "conv1d.cu conv1d.cpp cpu.cpp downsample_sm90.cu gemm_sm80.cu small.cu toeplitz.cu".split()
        units.sort(key=lambda unit: unit in shortest)
        for unit in units:
            with open(f"{folder}/{unit}", "w") as file:
                file.write("\n".join(_conv1d_sources[part] for part in _conv1d_units[unit]))
        link_flags = []
        if home:
            cpp_flags = [*cpp_flags, "-DCONV1D_WITH_CUDA"]
            cuda_flags = [*cuda_flags]
            told = subprocess.run([f"{home}/bin/nvcc", "--list-gpu-arch"], capture_output=True, text=True)
            known = [int(code.removeprefix("compute_")) for code in told.stdout.split()]
            for code in codes:
                number = code.split("_")[1]
                if int(number.rstrip("af")) not in known:  # newer than nvcc: the driver compiles the PTX
                    number = max(known)
                    code = f"compute_{number}"
                cuda_flags.append(f"-gencode=arch=compute_{number},code={code}")
            set_meanwhile(vars(cpp_extension), "CUDA_HOME", home)
            if not glob.glob(f"{home}/lib*/libcudart.so"):  # pip's toolkit lacks the linker's name for it
                for runtime in glob.glob(f"{home}/lib/libcudart.so.*"):
                    os.symlink(runtime, f"{folder}/libcudart.so")
                link_flags = [f"-L{folder}"]
        # Torch would skip a build that this process has tried before, even where it failed.
        cpp_extension.JIT_EXTENSION_VERSIONER.entries.pop(name, None)
        cpp_extension.load(
            name,
            [f"{folder}/{unit}" for unit in units],
            extra_cflags=cpp_flags,
            extra_cuda_cflags=cuda_flags,
            extra_ldflags=link_flags,
            build_directory=folder,
            is_python_module=False,
        )


def _conv1d_build():
    """Loads the op library of these sources from the cache, or compiles it into the cache first.

    Returns the sources' hash and torch.ops.<library name>. Any number of processes may do this at once, and
    any may be killed: the lock dies with its process, and a build is renamed into its place when it is whole.
    """
    import fcntl
    import hashlib
    import os
    import pathlib
    import shutil
    import sys

    def digest(*content):
        return hashlib.sha256(repr(content).encode()).hexdigest()[:16]

    def library_name(codes):
        versions = torch.__version__, torch.version.cuda, os.uname().machine, sys.implementation.cache_tag
        return "conv1d_" + digest(sources_hash, cpp_flags, cuda_flags, codes, *versions)

    sources_hash = digest(_conv1d_sources, _conv1d_units)
    # Torch adds the -std= that its headers need. A compiler that never collects garbage takes a seventh less.
    cpp_flags = ["-O1", "-fvisibility=hidden", "-fopenmp", "--param=ggc-min-heapsize=2097152"]
    # Two threads a CUDA unit: with one for each core, the C++ unit, which takes longest, waits for its turns.
    # -O1 is for host code, a tenth of the time: device code is optimized as ever.
    cuda_flags = ["-O1", "-std=c++17", "-Xcompiler=-fvisibility=hidden", "--threads=0", "--split-compile=2"]
    default = f"{os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')}/torch_extensions"
    cache = pathlib.Path(os.environ.get("TORCH_EXTENSIONS_DIR") or default).absolute()
    codes = _conv1d_architectures() if torch.version.cuda else []
    home = missing = None
    name = library_name(codes)
    ops = _conv1d_load(name, cache)
    if ops is None and codes:
        home, missing = _conv1d_find_nvcc()
        if missing:
            print(missing, file=sys.stderr)
            codes, name = [], library_name([])
            ops = _conv1d_load(name, cache)

    if ops is None:
        existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
        if not (existing.is_dir() and os.access(existing, os.W_OK)):
            raise ImportError(
                f"conv1d cannot be compiled: {cache} is not a writable directory; "
                "run: export TORCH_EXTENSIONS_DIR=/tmp/torch_extensions"
            )
        os.makedirs(cache, exist_ok=True)
        with open(f"{cache}/{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            ops = _conv1d_load(name, cache)  # another process may have built it while this one waited
            if ops is None:
                halves = f"C++ and CUDA ({', '.join(codes)})" if home else "C++"
                print(f"conv1d: compiling {halves} into {cache}/{name}, once", file=sys.stderr, flush=True)
                for leftover in cache.glob(f"{name}.*.part"):
                    shutil.rmtree(leftover, ignore_errors=True)
                folder = f"{cache}/{name}.{os.getpid()}.part"
                os.mkdir(folder)
                _conv1d_compile(name, folder, cpp_flags, cuda_flags, codes, home)
                with open(f"{folder}/{name}.so", "rb") as library, open(f"{folder}/sha256", "w") as recorded:
                    recorded.write(hashlib.sha256(library.read()).hexdigest())
                shutil.rmtree(f"{cache}/{name}", ignore_errors=True)
                os.rename(folder, f"{cache}/{name}")
                ops = _conv1d_with_direct(getattr(torch.ops, name), f"{cache}/{name}/{name}.so")

    if missing and not hasattr(ops, "_without_cuda"):

        def refuse(*arguments):
            raise RuntimeError(missing)

        ops._without_cuda = torch.library.Library(name, "IMPL")  # registered for as long as it is referred to
        ops._without_cuda.impl("conv1d", refuse, "CUDA")
    return sources_hash, ops


# >>> sources, written by kernels/amalgamate.py


_conv1d_sources = {
"problem.h": r'''
#line 1 "kernels/problem.h"
// One convolution as plain numbers: all that the binding, the table of routes and the kernels share.
//
//   y[n, g*O + o, p] = bias[g*O + o] + sum over c, k of w[g*O + o, c, k] * x[n, g*C + c, l],
//   l = p*stride + k*dilation - pad_left, and x counts as zero outside 0 <= l < L.
//
// Capital letters are extents, small ones indices. Strides count elements. No torch and no CUDA headers here.

#include <cstddef>
#include <cstdint>

namespace conv1d {

enum class Dtype : int32_t { float32, float64, float16, bfloat16 };

// How products of float32 operands may round: ieee keeps all 24 bits, tf32 rounds each operand to nearest at
// 11 bits.
enum class Precision : int32_t { ieee, tf32 };

// What y goes through before it is stored: as if y were rounded to its element type first and the activation
// computed from that in the type of sums. gelu is x/2 * (1 + erf(x/sqrt(2))), silu x / (1 + exp(-x)).
enum class Activation : int32_t { none, relu, gelu, silu };

// What a kernel must know of the GPU it runs on. On the CPU all are zero.
struct Device {
    int32_t arch;        // compute capability, 10*major + minor: 90 is Hopper
    int32_t sm_count;    // multiprocessors
    int32_t smem_bytes;  // shared memory that one block may ask for
    int32_t index;       // among the GPUs that the process sees
};

struct Problem {
    const void* x;     // [N, G*C, L], strides x_stride_n, x_stride_c, x_stride_l: any, zero included
    const void* w;     // [G*O, C, K], contiguous
    const void* bias;  // [G*O], contiguous, or null
    void* y;           // [N, G*O, P], contiguous, aligned to 16 bytes
    void* workspace;   // Plan::workspace_bytes bytes, aligned to 256, uninitialised; null where that is zero

    int64_t N;  // batch
    int64_t G;  // groups
    int64_t C;  // input channels of one group
    int64_t O;  // output channels of one group
    int64_t L;  // input positions
    int64_t P;  // output positions
    int64_t K;  // taps

    int64_t stride, dilation, pad_left;  // pad_right is implied by P
    int64_t x_stride_n, x_stride_c, x_stride_l;

    Dtype dtype;          // of x, w, bias and y alike
    Precision precision;  // matters for float32 only
    Activation activation;  // of CUDA kernels; the CPU kernel leaves it to its caller
    Device device;
};

// Which route a problem takes, and what it needs: a pure function of the problem's numbers.
struct Plan {
    const char* name;        // the route, as tests and check.py print it
    int32_t route;           // its row in the table of dispatch.cuh
    size_t workspace_bytes;  // scratch that the binding must provide
};

// Null where all went well, else one sentence with static lifetime.
using Error = const char*;

constexpr int64_t element_bytes(Dtype dtype) {
    return dtype == Dtype::float64 ? 8 : dtype == Dtype::float32 ? 4 : 2;
}

// The CPU kernel's whole surface.
//
// How many independent tasks the problem makes.
int64_t cpu_task_count(const Problem& problem);
// How many tasks are worth waking a thread for: about 10 us of work.
int64_t cpu_task_grain(const Problem& problem);
// Runs tasks [begin, end) on the calling thread.
void cpu_run_tasks(const Problem& problem, int64_t begin, int64_t end);

}  // namespace conv1d

// The CUDA half's whole surface.
//
// The table's row names in order; null past the last.
extern "C" const char* conv1d_cuda_route_name(int32_t route);
// The first row that fits, or, where `wanted` is not null, that row alone; Plan::route is -1 where none fits.
extern "C" conv1d::Plan conv1d_cuda_plan(const conv1d::Problem* problem, const char* wanted);
// Enqueues row `route`, which must fit, on `stream` (a cudaStream_t) of the current device; does not wait.
extern "C" conv1d::Error conv1d_cuda_launch(const conv1d::Problem* problem, int32_t route, void* stream);
''',
"binding.h": r'''
#line 1 "kernels/binding.h"
// What the binding's units share: names, at::conv1d with one more argument, and the op itself.



#define AT_PER_OPERATOR_HEADERS  // torch's headers read no operator's that is not named: a tenth of the time
#include <optional>

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#define CONV1D_STRING(name) #name
#define CONV1D_QUALIFIED(name) CONV1D_STRING(name) "::conv1d"

// One macro level more than torch's, so that the extension's name is expanded first.
#define CONV1D_LIBRARY(name, m) TORCH_LIBRARY(name, m)
#define CONV1D_LIBRARY_IMPL(name, key, m) TORCH_LIBRARY_IMPL(name, key, m)

namespace conv1d {
namespace binding {

using at::IntArrayRef;
using at::Tensor;
using c10::SymInt;
using c10::SymIntArrayRef;
using OptionalTensor = std::optional<Tensor>;
using OptionalInt = std::optional<SymInt>;
using OptionalName = std::optional<c10::string_view>;

constexpr const char* kOpName = CONV1D_QUALIFIED(TORCH_EXTENSION_NAME);

// at::conv1d knows one padding for both sides: what one side has more is put into a copy of x first.
struct SymmetricPadding {
    Tensor x;
    SymInt padding;  // both sides of `x`
    SymInt left;     // positions put in front of the original x
    bool padded;     // whether `x` is such a copy

    SymmetricPadding(const Tensor& original, const SymInt& pad_left, const SymInt& pad_right);
};

// None for dtypes that the kernels do not know.
std::optional<Dtype> kernel_dtype(at::ScalarType type);

Tensor activate(Tensor y, const OptionalName& name);

// `pad_right` is `padding` where it is not given.
Tensor pytorch_conv1d(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, SymInt stride,
                      SymInt padding, SymInt dilation, SymInt groups, OptionalName activation,
                      OptionalInt pad_right);

// What the autograd, autocast, Meta and functorch kernels redispatch to.
inline const auto& conv1d_op() {
    static const auto op =
        c10::Dispatcher::singleton().findSchemaOrThrow(kOpName, "").typed<decltype(pytorch_conv1d)>();
    return op;
}

}  // namespace binding
}  // namespace conv1d
''',
"autograd.cpp": r'''
#line 1 "kernels/autograd.cpp"
// The op under autograd: PyTorch's own derivatives, and no graph where none is wanted.


#include <array>
#include <vector>

#include <ATen/ops/convolution_backward.h>
#include <torch/csrc/autograd/custom_function.h>

namespace {

using namespace conv1d::binding;

class Conv1dFunction : public torch::autograd::Function<Conv1dFunction> {
public:
    static constexpr bool is_traceable =
        true;  // for compiled autograd: backward depends on what was saved alone

    static Tensor forward(torch::autograd::AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                          const OptionalTensor& bias, const SymInt& stride, const SymInt& padding,
                          const SymInt& dilation, const SymInt& groups, const OptionalInt& pad_right) {
        const at::AutoDispatchBelowADInplaceOrView below_autograd;
        Tensor y =
            conv1d_op().call(x, weight, bias, stride, padding, dilation, groups, std::nullopt, pad_right);
        ctx->save_for_backward({x, weight});
        ctx->saved_data["numbers"] =
            std::vector<SymInt>{stride, dilation, padding, pad_right.value_or(padding), groups};
        ctx->saved_data["has_bias"] = bias.has_value();
        return y;
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                   const torch::autograd::variable_list& grads) {
        const auto saved = ctx->get_saved_variables();
        const Tensor& x = saved[0];
        const Tensor& weight = saved[1];
        const auto numbers = ctx->saved_data["numbers"].toSymIntVector();
        const bool batched = x.dim() == 3;
        const bool has_bias = ctx->saved_data["has_bias"].toBool();
        const std::array<bool, 3> wanted = {ctx->needs_input_grad(0), ctx->needs_input_grad(1),
                                            has_bias && ctx->needs_input_grad(2)};
        const std::vector<SymInt> bias_sizes = {weight.sym_size(0)};
        const SymmetricPadding symmetric(batched ? x : x.unsqueeze(0), numbers[2], numbers[3]);
        auto [x_grad, weight_grad, bias_grad] = at::convolution_backward_symint(
            batched ? grads[0] : grads[0].unsqueeze(0), symmetric.x, weight, SymIntArrayRef(bias_sizes),
            numbers[0], symmetric.padding, numbers[1], false, SymInt(0), numbers[4], wanted);
        if (x_grad.defined()) {
            if (symmetric.padded) x_grad = x_grad.narrow_symint(2, symmetric.left, x.sym_size(-1));
            if (!batched) x_grad = x_grad.squeeze(0);
        }
        return {x_grad, weight_grad, bias_grad, Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
    }
};

// Under a functorch transform, or with a forward-mode tangent, PyTorch's convolution knows all the
// derivatives.
bool transformed(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
    return c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::FuncTorchDynamicLayerBackMode) ||
           x._fw_grad(0).defined() || weight._fw_grad(0).defined() || (bias && bias->_fw_grad(0).defined());
}

Tensor conv1d_autograd(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, SymInt stride,
                       SymInt padding, SymInt dilation, SymInt groups, OptionalName activation,
                       OptionalInt pad_right) {
    // Complex convolutions are differentiable only as at::conv1d takes them apart.
    if (transformed(x, weight, bias) || !kernel_dtype(x.scalar_type()))
        return pytorch_conv1d(x, weight, bias, stride, padding, dilation, groups, activation, pad_right);
    if (at::GradMode::is_enabled() &&
        (x.requires_grad() || weight.requires_grad() || (bias && bias->requires_grad())))
        return activate(Conv1dFunction::apply(x, weight, bias, stride, padding, dilation, groups, pad_right),
                        activation);
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return conv1d_op().call(x, weight, bias, stride, padding, dilation, groups, activation, pad_right);
}

CONV1D_LIBRARY_IMPL(TORCH_EXTENSION_NAME, Autograd, m) { m.impl("conv1d", conv1d_autograd); }

}  // namespace
''',
"conv1d.cpp": r'''
#line 1 "kernels/conv1d.cpp"
// The binding: the op's schema and what it does under each dispatch key. This file, autograd.cpp and
// python.cpp alone know torch.
//
// A valid float problem runs on our kernels. Everything else goes to at::conv1d: invalid calls (so that the
// error is PyTorch's own), integer and complex dtypes, empty tensors, other devices, functorch transforms
// and forward-mode AD.
//
// Built with -fvisibility=hidden, so that two revisions of this file share nothing in one process, and with
// -fopenmp, which at::parallel_for needs. Nothing links an OpenMP runtime: its symbols come from the one
// that torch has loaded.


#include <algorithm>
#include <array>
#include <string>
#include <tuple>
#include <vector>

#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/conv1d.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>

#ifdef CONV1D_WITH_CUDA
#include <ATen/cuda/EmptyTensor.h>
#include <c10/core/DeviceGuard.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>
#endif

// From ATen/autocast_mode.h, which reads every operator's header: that takes a tenth of the time.
namespace at::autocast {
TORCH_API ScalarType get_autocast_dtype(DeviceType device);
TORCH_API Tensor cached_cast(ScalarType dtype, const Tensor& x, DeviceType device);
}  // namespace at::autocast

namespace {

using namespace conv1d::binding;

struct NamedActivation {
    const char* name;
    Tensor (*of)(const Tensor&);  // an op of its own, which autograd sees
    void (*in_place)(Tensor&);
};

constexpr NamedActivation kActivations[] = {
    // in the order of conv1d::Activation, which begins with none
    {"relu", [](const Tensor& y) { return at::relu(y); }, [](Tensor& y) { at::relu_(y); }},
    {"gelu", [](const Tensor& y) { return at::gelu(y); }, [](Tensor& y) { at::gelu_(y); }},
    {"silu", [](const Tensor& y) { return at::silu(y); }, [](Tensor& y) { at::silu_(y); }},
};

const NamedActivation& activation_row(conv1d::Activation activation) {
    return kActivations[static_cast<int>(activation) - 1];
}

conv1d::Activation activation_named(const OptionalName& name) {
    if (!name) return conv1d::Activation::none;
    int number = 1;
    for (const NamedActivation& row : kActivations) {
        if (*name == row.name) return static_cast<conv1d::Activation>(number);
        ++number;
    }
    TORCH_CHECK_VALUE(false, "activation must be one of (None, 'relu', 'gelu', 'silu'), but got activation='",
                      *name, "'");
}

}  // namespace

namespace conv1d {
namespace binding {

SymmetricPadding::SymmetricPadding(const Tensor& original, const SymInt& pad_left, const SymInt& pad_right)
    : x(original),
      padding(pad_left.min(pad_right)),
      left(pad_left - padding),
      padded(pad_left != pad_right) {
    if (padded) {
        const std::array<SymInt, 2> extra = {left, pad_right - padding};
        x = at::constant_pad_nd_symint(original, extra, 0);
    }
}

Tensor activate(Tensor y, const OptionalName& name) {
    const Activation activation = activation_named(name);
    return activation == Activation::none ? y : activation_row(activation).of(y);
}

Tensor pytorch_conv1d(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, SymInt stride,
                      SymInt padding, SymInt dilation, SymInt groups, OptionalName activation,
                      OptionalInt pad_right) {
    if (!pad_right)
        return activate(at::conv1d_symint(x, weight, bias, stride, padding, dilation, groups), activation);
    const SymmetricPadding symmetric(x, padding, *pad_right);
    return activate(at::conv1d_symint(symmetric.x, weight, bias, stride, symmetric.padding, dilation, groups),
                    activation);
}

std::optional<Dtype> kernel_dtype(at::ScalarType type) {
    switch (type) {
        case at::kFloat: return Dtype::float32;
        case at::kDouble: return Dtype::float64;
        case at::kHalf: return Dtype::float16;
        case at::kBFloat16: return Dtype::bfloat16;
        default: return std::nullopt;
    }
}

}  // namespace binding
}  // namespace conv1d

namespace {

constexpr const char* kCpuRoute = "cpu";
constexpr const char* kPytorchRoute = "pytorch";

int64_t number(const SymInt& value) { return value.guard_int(__FILE__, __LINE__); }

// The problem's numbers, without pointers and device; nothing where the call is not a valid float problem.
std::optional<conv1d::Problem> describe(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                                        const SymInt& stride, const SymInt& padding, const SymInt& dilation,
                                        const SymInt& groups, const OptionalName& activation,
                                        const OptionalInt& pad_right) {
    const int64_t rank = x.dim();
    const auto dtype = kernel_dtype(x.scalar_type());
    if (!dtype || (rank != 2 && rank != 3) || weight.dim() != 3 || weight.scalar_type() != x.scalar_type() ||
        weight.device() != x.device() || x.layout() != at::kStrided || weight.layout() != at::kStrided ||
        x.numel() == 0 || weight.numel() == 0)
        return std::nullopt;

    conv1d::Problem p{};
    p.stride = number(stride);
    p.dilation = number(dilation);
    p.pad_left = number(padding);
    p.G = number(groups);
    const int64_t right = pad_right ? number(*pad_right) : p.pad_left;
    if (p.stride <= 0 || p.dilation <= 0 || p.pad_left < 0 || right < 0 || p.G <= 0) return std::nullopt;

    const int64_t outputs = weight.size(0);
    if (outputs % p.G != 0 || x.size(rank - 2) != weight.size(1) * p.G) return std::nullopt;
    if (bias && (bias->dim() != 1 || bias->size(0) != outputs || bias->scalar_type() != x.scalar_type() ||
                 bias->device() != x.device()))
        return std::nullopt;

    p.N = rank == 3 ? x.size(0) : 1;
    p.C = weight.size(1);
    p.O = outputs / p.G;
    p.L = x.size(rank - 1);
    p.K = weight.size(2);
    int64_t reach, padded;  // of the taps beyond the first, of x with its padding
    if (__builtin_mul_overflow(p.K - 1, p.dilation, &reach) ||
        __builtin_add_overflow(p.L, p.pad_left, &padded) || __builtin_add_overflow(padded, right, &padded) ||
        reach >= padded)
        return std::nullopt;
    p.P = (padded - reach - 1) / p.stride + 1;
    p.x_stride_n = rank == 3 ? x.stride(0) : 0;
    p.x_stride_c = x.stride(rank - 2);
    p.x_stride_l = x.stride(rank - 1);
    p.dtype = *dtype;
    p.activation = activation_named(activation);
    return p;
}

// A contiguous tensor. at::empty would do the same through the dispatcher, in 0.2 us more.
Tensor allocate(IntArrayRef sizes, at::ScalarType type, at::Device device) {
#ifdef CONV1D_WITH_CUDA
    if (device.is_cuda()) return at::detail::empty_cuda(sizes, type, device, std::nullopt);
#endif
    return at::detail::empty_cpu(sizes, type);
}

// Memory for y, and the pointers into it and into the operands.
struct Operands {
    c10::MaybeOwned<Tensor> weight, bias;
    Tensor y;

    Operands(const Tensor& x, const Tensor& weight_, const OptionalTensor& bias_, conv1d::Problem& p)
        : weight(weight_.expect_contiguous()),
          bias(bias_ ? bias_->expect_contiguous() : c10::MaybeOwned<Tensor>::owned(Tensor())) {
        const std::array<int64_t, 3> sizes = {p.N, p.G * p.O, p.P};
        y = allocate(IntArrayRef(sizes).slice(x.dim() == 3 ? 0 : 1), x.scalar_type(), x.device());
        p.x = x.const_data_ptr();
        p.w = weight->const_data_ptr();
        p.bias = bias->defined() ? bias->const_data_ptr() : nullptr;
        p.y = y.mutable_data_ptr();
    }
};

Tensor run_cpu(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, conv1d::Problem& p) {
    Operands operands(x, weight, bias, p);
    at::parallel_for(0, conv1d::cpu_task_count(p), conv1d::cpu_task_grain(p),
                     [&p](int64_t begin, int64_t end) { conv1d::cpu_run_tasks(p, begin, end); });
    // torch's exp and erf are vectorised
    if (p.activation != conv1d::Activation::none) activation_row(p.activation).in_place(operands.y);
    return operands.y;
}

Tensor conv1d_cpu(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, SymInt stride,
                  SymInt padding, SymInt dilation, SymInt groups, OptionalName activation,
                  OptionalInt pad_right) {
    auto problem = describe(x, weight, bias, stride, padding, dilation, groups, activation, pad_right);
    if (!problem)
        return pytorch_conv1d(x, weight, bias, stride, padding, dilation, groups, activation, pad_right);
    return run_cpu(x, weight, bias, *problem);
}

#ifdef CONV1D_WITH_CUDA

int32_t device_attribute(cudaDeviceAttr attribute, int device) {
    int value = 0;
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&value, attribute, device));
    return value;
}

// The facts of every GPU that the process sees, asked once.
conv1d::Device cuda_device(c10::DeviceIndex index) {
    static const std::vector<conv1d::Device> devices = [] {
        std::vector<conv1d::Device> facts(c10::cuda::device_count());
        for (size_t i = 0; i < facts.size(); ++i)
            facts[i] = {10 * device_attribute(cudaDevAttrComputeCapabilityMajor, i) +
                            device_attribute(cudaDevAttrComputeCapabilityMinor, i),
                        device_attribute(cudaDevAttrMultiProcessorCount, i),
                        device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, i), int32_t(i)};
        return facts;
    }();
    return devices[index];
}

// The route of a problem whose pointers are set: the first that fits, or the `wanted` one. PyTorch's own
// switch decides whether fp32 may round to TF32.
conv1d::Plan plan_cuda(const Tensor& x, conv1d::Problem& p, const char* wanted) {
    p.device = cuda_device(x.get_device());
    const bool tf32 =
        x.scalar_type() == at::kFloat && at::globalContext().allowTF32CuDNN(at::Float32Op::CONV);
    p.precision = tf32 ? conv1d::Precision::tf32 : conv1d::Precision::ieee;
    const conv1d::Plan plan = conv1d_cuda_plan(&p, wanted);
    TORCH_CHECK(plan.route >= 0, "conv1d: route '", wanted ? wanted : "any", "' does not take this problem");
    return plan;
}

// Enqueues on the current stream of x's device.
Tensor run_cuda(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, conv1d::Problem& p,
                const char* wanted) {
    const c10::DeviceGuard guard(x.device());
    const Operands operands(x, weight, bias, p);
    const conv1d::Plan plan = plan_cuda(x, p, wanted);
    Tensor workspace;
    if (plan.workspace_bytes > 0) {
        workspace = allocate({int64_t(plan.workspace_bytes)}, at::kByte, x.device());
        p.workspace = workspace.mutable_data_ptr();
    }
    const auto stream = c10::cuda::getCurrentCUDAStream(x.get_device());
    const conv1d::Error error = conv1d_cuda_launch(&p, plan.route, stream.stream());
    TORCH_CHECK(error == nullptr, "conv1d: route '", plan.name, "': ", error);
    return operands.y;
}

Tensor conv1d_cuda(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, SymInt stride,
                   SymInt padding, SymInt dilation, SymInt groups, OptionalName activation,
                   OptionalInt pad_right) {
    auto problem = describe(x, weight, bias, stride, padding, dilation, groups, activation, pad_right);
    if (!problem)
        return pytorch_conv1d(x, weight, bias, stride, padding, dilation, groups, activation, pad_right);
    return run_cuda(x, weight, bias, *problem, nullptr);
}

#endif

template <c10::DispatchKey kKey, at::DeviceType kDevice>
Tensor conv1d_autocast(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, SymInt stride,
                       SymInt padding, SymInt dilation, SymInt groups, OptionalName activation,
                       OptionalInt pad_right) {
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(kKey);
    const auto dtype = at::autocast::get_autocast_dtype(kDevice);
    const auto cast = [dtype](const Tensor& tensor) {
        return at::autocast::cached_cast(dtype, tensor, kDevice);
    };
    return conv1d_op().call(cast(x), cast(weight), bias ? OptionalTensor(cast(*bias)) : std::nullopt, stride,
                            padding, dilation, groups, activation, pad_right);
}

// padding = "valid" or "same"; what is not valid, and every other string, gets PyTorch's own error.
Tensor conv1d_padding(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                      SymIntArrayRef stride, c10::string_view padding, SymIntArrayRef dilation, SymInt groups,
                      OptionalName activation) {
    const bool valid = padding == "valid" && stride.size() == 1 && dilation.size() == 1;
    const bool same = padding == "same" && weight.dim() == 3 && dilation.size() == 1 && stride.size() == 1 &&
                      stride[0] == 1 && !(bias && bias->scalar_type() != x.scalar_type());
    if (!valid && !same)
        return activate(at::conv1d_symint(x, weight, bias, stride, padding, dilation, groups), activation);
    const SymInt total = same ? dilation[0] * (weight.sym_size(2) - 1) : SymInt(0);
    return conv1d_op().call(x, weight, bias, stride[0], total / 2, dilation[0], groups, activation,
                            total - total / 2);
}

// Of stride and dilation one number each, of padding one or two; other lists get PyTorch's own error.
bool are_numbers(SymIntArrayRef stride, SymIntArrayRef padding, SymIntArrayRef dilation) {
    return stride.size() == 1 && dilation.size() == 1 && (padding.size() == 1 || padding.size() == 2);
}

Tensor conv1d_lists(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, SymIntArrayRef stride,
                    SymIntArrayRef padding, SymIntArrayRef dilation, SymInt groups, OptionalName activation) {
    if (!are_numbers(stride, padding, dilation))
        return activate(at::conv1d_symint(x, weight, bias, stride, padding, dilation, groups), activation);
    return conv1d_op().call(x, weight, bias, stride[0], padding.front(), dilation[0], groups, activation,
                            padding.size() == 2 ? OptionalInt(padding[1]) : std::nullopt);
}

std::optional<conv1d::Problem> describe_lists(const Tensor& x, const Tensor& weight,
                                              const OptionalTensor& bias, SymIntArrayRef stride,
                                              SymIntArrayRef padding, SymIntArrayRef dilation,
                                              const SymInt& groups, const OptionalName& activation) {
    if (!are_numbers(stride, padding, dilation)) return std::nullopt;
    return describe(x, weight, bias, stride[0], padding.front(), dilation[0], groups, activation,
                    padding.back());
}

std::string conv1d_route(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                         SymIntArrayRef stride, SymIntArrayRef padding, SymIntArrayRef dilation,
                         SymInt groups, OptionalName activation) {
    auto problem = describe_lists(x, weight, bias, stride, padding, dilation, groups, activation);
    if (problem && x.is_cpu()) return kCpuRoute;
#ifdef CONV1D_WITH_CUDA
    if (problem && x.is_cuda()) {
        problem->x = x.const_data_ptr();
        // A weight that is not contiguous would be copied to aligned memory: null stands for that.
        problem->w = weight.is_contiguous() ? weight.const_data_ptr() : nullptr;
        problem->bias = bias ? bias->const_data_ptr() : nullptr;
        return plan_cuda(x, *problem, nullptr).name;
    }
#endif
    return kPytorchRoute;
}

std::vector<std::string> conv1d_routes() {
    std::vector<std::string> names;
#ifdef CONV1D_WITH_CUDA
    for (int32_t row = 0; const char* name = conv1d_cuda_route_name(row); ++row) names.emplace_back(name);
#endif
    return names;
}

Tensor conv1d_by(const std::string& route, const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                 SymIntArrayRef stride, SymIntArrayRef padding, SymIntArrayRef dilation, SymInt groups,
                 OptionalName activation) {
    auto problem = describe_lists(x, weight, bias, stride, padding, dilation, groups, activation);
    TORCH_CHECK(problem, "conv1d: route '", route, "' takes valid floating-point problems only");
    if (x.is_cpu() && route == kCpuRoute) return run_cpu(x, weight, bias, *problem);
#ifdef CONV1D_WITH_CUDA
    if (x.is_cuda()) return run_cuda(x, weight, bias, *problem, route.c_str());
#endif
    TORCH_CHECK(false, "conv1d: route '", route, "' does not take this problem");
}

#define CONV1D_OPERANDS "Tensor x, Tensor weight, Tensor? bias=None, "
#define CONV1D_LISTS                                                                   \
    CONV1D_OPERANDS                                                                    \
    "SymInt[1] stride=1, SymInt[1] padding=0, SymInt[1] dilation=1, SymInt groups=1, " \
    "str? activation=None"

CONV1D_LIBRARY(TORCH_EXTENSION_NAME, m) {
    // Numbers, not lists: each list costs a call from Python 0.4 us.
    m.def("conv1d(" CONV1D_OPERANDS
          "SymInt stride=1, SymInt padding=0, SymInt dilation=1, SymInt groups=1, str? activation=None, "
          "SymInt? pad_right=None) -> Tensor",
          {at::Tag::pt2_compliant_tag});
    m.def("conv1d.lists(" CONV1D_LISTS ") -> Tensor", conv1d_lists, {at::Tag::pt2_compliant_tag});
    m.def("conv1d.padding(" CONV1D_OPERANDS
          "SymInt[1] stride=1, str padding=\"valid\", SymInt[1] dilation=1, SymInt groups=1, "
          "str? activation=None) -> Tensor",
          conv1d_padding, {at::Tag::pt2_compliant_tag});
    m.def("route(" CONV1D_LISTS ") -> str", conv1d_route);
    m.def("routes() -> str[]", conv1d_routes);
    m.def("conv1d_by(str route, " CONV1D_LISTS ") -> Tensor", conv1d_by);
}

CONV1D_LIBRARY_IMPL(TORCH_EXTENSION_NAME, CPU, m) { m.impl("conv1d", conv1d_cpu); }
#ifdef CONV1D_WITH_CUDA
CONV1D_LIBRARY_IMPL(TORCH_EXTENSION_NAME, CUDA, m) { m.impl("conv1d", conv1d_cuda); }
#endif
CONV1D_LIBRARY_IMPL(TORCH_EXTENSION_NAME, CompositeExplicitAutograd, m) {
    m.impl("conv1d", pytorch_conv1d);  // Meta and the devices that are not ours
}
CONV1D_LIBRARY_IMPL(TORCH_EXTENSION_NAME, FuncTorchBatched, m) { m.impl("conv1d", pytorch_conv1d); }
CONV1D_LIBRARY_IMPL(TORCH_EXTENSION_NAME, AutocastCUDA, m) {
    m.impl("conv1d", conv1d_autocast<c10::DispatchKey::AutocastCUDA, at::kCUDA>);
}
CONV1D_LIBRARY_IMPL(TORCH_EXTENSION_NAME, AutocastCPU, m) {
    m.impl("conv1d", conv1d_autocast<c10::DispatchKey::AutocastCPU, at::kCPU>);
}

}  // namespace
''',
"dispatch.cuh": r'''
#line 1 "kernels/dispatch.cuh"
// THE table of routes. The first row whose `fits` holds takes the problem; nothing else decides.
// Each row carries the measurement that put it where it stands (H200; results/ has the full table).

#include <cuda_runtime.h>



namespace conv1d {

struct Route {
    const char* name;
    bool (*fits)(const Problem&);
    size_t (*workspace_bytes)(const Problem&);
    Error (*launch)(const Problem&, cudaStream_t);
};

inline size_t no_workspace(const Problem&) { return 0; }

// Defined in several translation units, which compile side by side.
extern const Route kToeplitzSm90, kToeplitz, kDepthwise, kStemSm80, kFoldSm80, kFewOutputs, kGather,
    kSmallSm80, kStreamSm90, kPointwiseSm90, kDownsampleSm90, kSlidingSm90, kGemmSm90, kGemmSm80, kDirect;

constexpr const Route* kRoutes[] = {
    &kToeplitzSm90,  // depthwise: long filters on Hopper
    &kToeplitz,      // before the rest where tensor cores beat sliding windows
    &kDepthwise,     // one input channel a group
    &kStemSm80,      // fewer than 16 channels a group and sums of some 80 products: bound by stores
    &kFoldSm80,      // fewer than 16 channels a group
    &kFewOutputs,    // one to eight output channels a group: bound by reading x
    &kGather,        // tiny problems, taps that hardly overlap, few outputs of few positions
    &kSmallSm80,     // dense problems of few products: one launch
    &kStreamSm90,    // short sums on Hopper, bound by memory
    &kPointwiseSm90,  // one tap on Hopper, rows of whole 16 bytes
    &kDownsampleSm90,  // three taps at a stride of 2 on Hopper
    &kSlidingSm90,  // few taps at a stride of 1 on Hopper
    &kGemmSm90,      // every other dense problem on Hopper
    &kGemmSm80,      // and on other cards since Ampere
    &kDirect,        // fits every valid problem: the last row
};
constexpr int32_t kRouteCount = sizeof(kRoutes) / sizeof(kRoutes[0]);

}  // namespace conv1d
''',
"conv1d.cu": r'''
#line 1 "kernels/conv1d.cu"
// Root of the CUDA half: the entry points that problem.h declares. Knows CUDA, not torch.
#include <cstring>




extern "C" const char* conv1d_cuda_route_name(int32_t route) {
    return route < conv1d::kRouteCount ? conv1d::kRoutes[route]->name : nullptr;
}

extern "C" conv1d::Plan conv1d_cuda_plan(const conv1d::Problem* problem, const char* wanted) {
    for (int32_t route = 0; route < conv1d::kRouteCount; ++route) {
        const conv1d::Route& row = *conv1d::kRoutes[route];
        if (wanted != nullptr && std::strcmp(wanted, row.name) != 0) continue;
        if (row.fits(*problem)) return {row.name, route, row.workspace_bytes(*problem)};
    }
    return {nullptr, -1, 0};
}

extern "C" conv1d::Error conv1d_cuda_launch(const conv1d::Problem* problem, int32_t route, void* stream) {
    return conv1d::kRoutes[route]->launch(*problem, static_cast<cudaStream_t>(stream));
}
''',
"cpu.cpp": r'''
#line 1 "kernels/cpu.cpp"
// The CPU kernel: a direct convolution in registers, plain C++ without torch, for every valid problem.
//
// A task is one group's up to 128 output channels at 960 bytes' worth of positions. It packs what it needs
// of x into scratch, a few input channels at a time: padded with zeros, widened to the accumulator's type,
// and split by stride, so that every tap reads consecutive elements. A register tile of output channels x
// vectors of positions then runs over (c, k). fp16 and bf16 accumulate in float. Where rows of y are shorter
// than a vector, positions run on through the batch.
//
// Sums are blocked: at most 256 products in one chain, chains added in the order of (c, k). That order
// depends on the problem alone, never on the threads. The vector width is chosen at run time, so that a
// compiled file may move between machines; code inlines into the functions that carry a target attribute,
// hence always_inline and no lambdas.
#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <numeric>
#include <type_traits>



// The flags say -O1, with which the binding compiles a quarter sooner; loops need more.
#pragma GCC optimize("O3")

namespace conv1d {
namespace cpu {

#define CONV1D_INLINE inline __attribute__((always_inline))

constexpr int64_t kOutputBlock = 128;  // output channels of one task
constexpr int64_t kColumnBlockBytes =
    960;                            // accumulators a task has for one output channel: 5 AVX-512 tiles
constexpr int64_t kFoldBelow = 16;  // positions in a row of y below which the batch is folded in
constexpr int64_t kChain = 256;     // products added one after the other
constexpr int64_t kScratchBytes = 256 * 1024;  // packed x of one task, unless one channel alone needs more
constexpr int64_t kLineBytes = 64;             // a cache line, and the widest vector

template <typename To, typename From>
CONV1D_INLINE To bit_cast(From value) {
    static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
    To result;
    std::memcpy(&result, &value, sizeof(To));
    return result;
}

template <typename T>
struct Native {
    using Stored = T;
    using Acc = T;
    static CONV1D_INLINE Acc widen(Stored value) { return value; }
    static CONV1D_INLINE Stored narrow(Acc value) { return value; }
};

struct Bfloat16 {
    using Stored = uint16_t;
    using Acc = float;
    static CONV1D_INLINE Acc widen(Stored bits) { return bit_cast<float>(uint32_t(bits) << 16); }
    static CONV1D_INLINE Stored narrow(Acc value) {  // to nearest, ties to even
        const uint32_t bits = bit_cast<uint32_t>(value);
        const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        return uint16_t(value != value ? 0x7fc0 : rounded);
    }
};

// Without branches, so that the compiler vectorises the loops over it.
struct Float16 {
    using Stored = uint16_t;
    using Acc = float;
    static CONV1D_INLINE Acc widen(Stored bits) {
        const uint32_t sign = uint32_t(bits & 0x8000) << 16;
        const uint32_t magnitude = uint32_t(bits & 0x7fff) << 13;
        const uint32_t rebiased = magnitude + (112u << 23);  // exponent bias 15 -> 127
        const uint32_t special = magnitude + (224u << 23);   // inf and nan: all exponent bits set
        // A subnormal is fraction * 2^-24: written as 2^-14 * (1 + fraction/1024), less 2^-14.
        const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(magnitude + (113u << 23)) - 0x1p-14f);
        const uint32_t finite = magnitude < (1u << 23) ? subnormal : rebiased;
        return bit_cast<float>(sign | (magnitude >= (31u << 23) ? special : finite));
    }
    static CONV1D_INLINE Stored narrow(Acc value) {  // to nearest, ties to even
        const uint32_t bits = bit_cast<uint32_t>(value);
        const uint32_t magnitude = bits & 0x7fffffff;
        const uint32_t normal = (magnitude - (112u << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
        // Below 2^-14 the unit is 2^-24, which is the unit of floats in [0.5, 1).
        const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - (126u << 23);
        const uint32_t finite = magnitude < (113u << 23) ? subnormal : normal;
        const uint32_t special = magnitude > 0x7f800000 ? 0x7e00 : 0x7c00;
        return uint16_t((bits >> 16 & 0x8000) | (magnitude >= (143u << 23) ? special : finite));
    }
};

struct AlignedDelete {
    void operator()(void* memory) const { ::operator delete[](memory, std::align_val_t(kLineBytes)); }
};
template <typename T>
using Scratch = std::unique_ptr<T[], AlignedDelete>;
template <typename T>
Scratch<T> allocate(int64_t count) {
    return Scratch<T>(static_cast<T*>(::operator new[](count * sizeof(T), std::align_val_t(kLineBytes))));
}

constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How the work splits into tasks. A column is a position, or, where the batch is folded, a pair (n, p),
// counted as n*P + p.
struct Tasks {
    int64_t images, columns;               // `images` times `columns` is N times P
    int64_t column_block;                  // columns of one task
    int64_t output_blocks, column_blocks;  // how many along o and along the columns
    int64_t count;

    explicit Tasks(const Problem& p) {
        const bool fold = p.P < kFoldBelow;
        images = fold ? 1 : p.N;
        columns = fold ? p.N * p.P : p.P;
        column_block = kColumnBlockBytes / std::max<int64_t>(sizeof(float), element_bytes(p.dtype));
        output_blocks = divide_up(p.O, kOutputBlock);
        column_blocks = divide_up(columns, column_block);
        count = images * p.G * output_blocks * column_blocks;
    }
};

// How one input channel lies in scratch. Taps whose positions agree modulo the stride read the same
// elements, shifted, and share a row: of stride / gcd(stride, dilation) rows, row r begins r*dilation %
// stride elements of x after the first column's own and goes on in steps of the stride. Where dilation is so
// wide that such rows would be mostly unread, or columns are folded, each tap gets a row of its own.
struct Window {
    int64_t rows;       // rows a channel
    int64_t extra;      // elements of a row beyond one a column
    int64_t row_elems;  // from row to row: an odd number of cache lines, to spread over the cache's sets

    Window(const Problem& p, const Tasks& tasks, int64_t acc_bytes) {
        const int64_t lanes = kLineBytes / acc_bytes;
        const int64_t columns = std::min(tasks.columns, tasks.column_block);
        const int64_t shared_rows = std::min(p.K, p.stride / std::gcd(p.stride, p.dilation));
        const int64_t shared_extra = (p.K - 1) * p.dilation / p.stride;
        const bool share = tasks.images == p.N && shared_rows * (columns + shared_extra) <= p.K * columns;
        rows = share ? shared_rows : p.K;
        extra = share ? shared_extra : 0;
        row_elems = ((divide_up(columns, lanes) + divide_up(extra, lanes)) | 1) * lanes;
    }
    int64_t channel_elems() const { return rows * row_elems; }
    // Where row `row` begins, in elements of x after the first column's own.
    int64_t row_shift(const Problem& p, int64_t row) const {
        return rows == p.K ? row * p.dilation : row * p.dilation % p.stride;
    }
    // Where tap k's first element lies in a channel's scratch.
    int64_t tap_offset(const Problem& p, int64_t k) const {
        const int64_t row = k % rows;
        return row * row_elems + (k * p.dilation - row_shift(p, row)) / p.stride;
    }
};

// A run of `count` columns that lie in one row of y.
struct Segment {
    int64_t n, p, count;
    Segment(const Problem& problem, int64_t column, int64_t column_end)
        : n(column / problem.P),
          p(column % problem.P),
          count(std::min(problem.P - p, column_end - column)) {}
};

// dst[i] = src[i * hop], widened.
template <typename Type>
CONV1D_INLINE void widen_row(typename Type::Acc* __restrict__ dst,
                             const typename Type::Stored* __restrict__ src, int64_t count, int64_t hop) {
    if (hop == 1) {
        for (int64_t i = 0; i < count; ++i) dst[i] = Type::widen(src[i]);
    } else if (hop == 2) {
        for (int64_t i = 0; i < count; ++i) dst[i] = Type::widen(src[i * 2]);
    } else {
        for (int64_t i = 0; i < count; ++i) dst[i] = Type::widen(src[i * hop]);
    }
}

// dst[i] = x[first + i*stride], widened, and zero outside 0 <= l < L.
template <typename Type>
CONV1D_INLINE void pack_row(const Problem& p,
                            typename Type::Acc* dst,           // [count]
                            const typename Type::Stored* src,  // x[n, c, 0]
                            int64_t count, int64_t first) {
    const int64_t begin = first >= 0 ? 0 : std::min(count, divide_up(-first, p.stride));
    const int64_t end =
        first >= p.L ? begin : std::max(begin, std::min(count, (p.L - 1 - first) / p.stride + 1));
    std::fill(dst, dst + begin, typename Type::Acc(0));
    widen_row<Type>(dst + begin, src + (first + begin * p.stride) * p.x_stride_l, end - begin,
                    p.stride * p.x_stride_l);
    std::fill(dst + end, dst + count, typename Type::Acc(0));
}

// sums[o][i] = sum over j of w[o][j] * x[offsets[j] + i], for kO output channels and kV vectors of columns.
template <typename Acc, int kBytes, int kO, int kV>
CONV1D_INLINE void multiply_tile(
    const Acc* __restrict__ x,            // scratch at the tile's first column
    const int64_t* __restrict__ offsets,  // [products] of each (c, k) in scratch
    const Acc* __restrict__ w,            // [kO][products], w_stride apart
    int64_t w_stride, int64_t products,
    Acc* __restrict__ sums) {  // [kO][kV * lanes]
    typedef Acc Vector __attribute__((vector_size(kBytes)));
    constexpr int kLanes = kBytes / sizeof(Acc);
    for (int64_t begin = 0; begin < products; begin += kChain) {
        const int64_t end = std::min(products, begin + kChain);
        Vector acc[kO][kV] = {};
        for (int64_t j = begin; j < end; ++j) {
            Vector x_frag[kV];
            for (int v = 0; v < kV; ++v) std::memcpy(&x_frag[v], x + offsets[j] + v * kLanes, kBytes);
            for (int o = 0; o < kO; ++o) {
                const Acc w_value = w[o * w_stride + j];
                for (int v = 0; v < kV; ++v) acc[o][v] += x_frag[v] * w_value;
            }
        }
        for (int o = 0; o < kO; ++o) {
            for (int v = 0; v < kV; ++v) {
                Acc* sum = sums + (o * kV + v) * kLanes;
                if (begin > 0) {
                    Vector before;
                    std::memcpy(&before, sum, kBytes);
                    acc[o][v] += before;
                }
                std::memcpy(sum, &acc[o][v], kBytes);
            }
        }
    }
}

template <typename Acc>
using Tile = void (*)(const Acc*, const int64_t*, const Acc*, int64_t, int64_t, Acc*);

constexpr int64_t kTileVectors = 3;

// One task: outputs [o_begin, o_begin + outputs) of group g at columns [column_begin, column_begin +
// columns).
struct Task {
    int64_t image, g, o_begin, outputs, column_begin, columns;

    Task(const Problem& p, const Tasks& tasks, int64_t index) {
        column_begin = index % tasks.column_blocks * tasks.column_block;
        index /= tasks.column_blocks;
        o_begin = index % tasks.output_blocks * kOutputBlock;
        index /= tasks.output_blocks;
        g = index % p.G;
        image = index / p.G;
        columns = std::min(tasks.columns - column_begin, tasks.column_block);
        outputs = std::min(p.O - o_begin, kOutputBlock);
    }
};

// Packs what a task reads of input channel c, counted over all groups, into `scratch`.
template <typename Type>
CONV1D_INLINE void pack_channel(const Problem& p, const Window& window, const Task& task, int64_t c,
                                int64_t padded_columns,         // columns rounded up to whole vectors
                                typename Type::Acc* scratch) {  // [rows][row_elems]
    const auto* x =
        static_cast<const typename Type::Stored*>(p.x) + task.image * p.x_stride_n + c * p.x_stride_c;
    for (int64_t row = 0; row < window.rows; ++row) {
        typename Type::Acc* packed = scratch + row * window.row_elems;
        for (int64_t i = 0; i < task.columns;) {
            const Segment segment(p, task.column_begin + i, task.column_begin + task.columns);
            pack_row<Type>(p, packed + i, x + segment.n * p.x_stride_n, segment.count + window.extra,
                           segment.p * p.stride - p.pad_left + window.row_shift(p, row));
            i += segment.count;
        }
        // Columns past the last one are computed and not stored.
        std::fill(packed + task.columns + window.extra, packed + padded_columns + window.extra,
                  typename Type::Acc(0));
    }
}

// Adds the bias to output channel o's sums of `count` columns from `column` on, and writes them to y.
template <typename Type>
CONV1D_INLINE void store_columns(const Problem& p, const Task& task, int64_t o, int64_t column,
                                 int64_t count, const typename Type::Acc* __restrict__ sums) {
    using Stored = typename Type::Stored;
    const int64_t output = task.g * p.O + task.o_begin + o;
    const auto bias =
        p.bias ? Type::widen(static_cast<const Stored*>(p.bias)[output]) : typename Type::Acc(0);
    for (int64_t i = 0; i < count;) {
        const Segment segment(p, column + i, column + count);
        Stored* __restrict__ y =
            static_cast<Stored*>(p.y) + ((task.image + segment.n) * p.G * p.O + output) * p.P + segment.p;
        for (int64_t j = 0; j < segment.count; ++j) y[j] = Type::narrow(sums[i + j] + bias);
        i += segment.count;
    }
}

// Tasks [begin, end), on one thread.
template <typename Type, typename Target>
CONV1D_INLINE void run_tasks(const Problem& p, int64_t begin, int64_t end) {
    using Stored = typename Type::Stored;
    using Acc = typename Type::Acc;
    constexpr int64_t kLanes = Target::kBytes / sizeof(Acc);
    constexpr bool kWiden = !std::is_same<Stored, Acc>::value;

    const Tasks tasks(p);
    const Window window(p, tasks, sizeof(Acc));
    const int64_t most_outputs = std::min(p.O, kOutputBlock);
    // Input channels packed at a time.
    const int64_t fitting = kScratchBytes / int64_t(sizeof(Acc)) / window.channel_elems();
    const int64_t chunk = std::max<int64_t>(1, std::min({p.C, kChain / p.K, fitting}));

    const auto x_scratch = allocate<Acc>(chunk * window.channel_elems());
    const auto w_scratch = allocate<Acc>(kWiden ? most_outputs * chunk * p.K : 0);
    const auto offsets = allocate<int64_t>(chunk * p.K);  // of (c, k) in x_scratch
    for (int64_t c = 0; c < chunk; ++c)
        for (int64_t k = 0; k < p.K; ++k)
            offsets[c * p.K + k] = c * window.channel_elems() + window.tap_offset(p, k);
    // [outputs][column_block]: sums of the chunks so far.
    const auto partial = allocate<Acc>(chunk < p.C ? most_outputs * tasks.column_block : 0);

    for (int64_t index = begin; index < end; ++index) {
        const Task task(p, tasks, index);
        const int64_t vectors = divide_up(task.columns, kLanes);
        const Stored* w = static_cast<const Stored*>(p.w) + (task.g * p.O + task.o_begin) * p.C * p.K;

        for (int64_t c_begin = 0; c_begin < p.C; c_begin += chunk) {
            const int64_t channels = std::min(chunk, p.C - c_begin);
            const int64_t products = channels * p.K;
            const bool first = c_begin == 0, last = c_begin + channels == p.C;
            for (int64_t c = 0; c < channels; ++c)
                pack_channel<Type>(p, window, task, task.g * p.C + c_begin + c, vectors * kLanes,
                                   &x_scratch[c * window.channel_elems()]);
            const Acc* w_chunk;  // [outputs][products], w_stride apart
            int64_t w_stride;
            if constexpr (kWiden) {
                w_chunk = w_scratch.get();
                w_stride = products;
                for (int64_t o = 0; o < task.outputs; ++o)
                    widen_row<Type>(&w_scratch[o * products], w + (o * p.C + c_begin) * p.K, products, 1);
            } else {
                w_chunk = w + c_begin * p.K;
                w_stride = p.C * p.K;
            }

            for (int64_t v = 0, tile_v; v < vectors; v += tile_v) {
                tile_v = std::min(kTileVectors, vectors - v);
                const int64_t tile_columns = std::min(tile_v * kLanes, task.columns - v * kLanes);
                for (int64_t o = 0, tile_o; o < task.outputs; o += tile_o) {
                    int size = Target::kTileSizes - 1;
                    while (task.outputs - o < (1 << size)) --size;
                    tile_o = 1 << size;
                    const Tile<Acc> multiply = Target::template kTiles<Acc>[size][tile_v - 1];
                    alignas(kLineBytes) Acc sums[(1 << (Target::kTileSizes - 1)) * kTileVectors * kLanes];
                    multiply(&x_scratch[v * kLanes], offsets.get(), &w_chunk[o * w_stride], w_stride,
                             products, sums);
                    for (int64_t i = 0; i < tile_o; ++i) {
                        Acc* sum = sums + i * tile_v * kLanes;
                        Acc* so_far = partial.get() + (o + i) * tasks.column_block + v * kLanes;
                        if (!first)
                            for (int64_t j = 0; j < tile_columns; ++j) sum[j] += so_far[j];
                        if (last)
                            store_columns<Type>(p, task, o + i, task.column_begin + v * kLanes, tile_columns,
                                                sum);
                        else
                            std::copy(sum, sum + tile_columns, so_far);
                    }
                }
            }
        }
    }
}

// One struct an instruction set. kTiles holds the tiles of 1, 2, 4, ... output channels and 1, 2, 3 vectors;
// the largest leaves registers for 3 vectors of x and 1 of w: of 32 in AVX-512, of 16 elsewhere.
#define CONV1D_TARGET(name, bytes, tile_sizes, attribute)                                                \
    struct name {                                                                                        \
        static constexpr int kBytes = bytes, kTileSizes = tile_sizes;                                    \
        template <typename Acc, int kO, int kV>                                                          \
        attribute static void tile(const Acc* x, const int64_t* offsets, const Acc* w, int64_t w_stride, \
                                   int64_t products, Acc* sums) {                                        \
            multiply_tile<Acc, kBytes, kO, kV>(x, offsets, w, w_stride, products, sums);                 \
        }                                                                                                \
        template <typename Acc>                                                                          \
        static constexpr Tile<Acc> kTiles[4][kTileVectors] = {                                           \
            {tile<Acc, 1, 1>, tile<Acc, 1, 2>, tile<Acc, 1, 3>},                                         \
            {tile<Acc, 2, 1>, tile<Acc, 2, 2>, tile<Acc, 2, 3>},                                         \
            {tile<Acc, 4, 1>, tile<Acc, 4, 2>, tile<Acc, 4, 3>},                                         \
            {tile<Acc, 8, 1>, tile<Acc, 8, 2>, tile<Acc, 8, 3>}};                                        \
        template <typename Type>                                                                         \
        attribute static void run(const Problem& p, int64_t begin, int64_t end) {                        \
            run_tasks<Type, name>(p, begin, end);                                                        \
        }                                                                                                \
    };

#if defined(__x86_64__)
CONV1D_TARGET(Avx512, 64, 4, __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma"))))
CONV1D_TARGET(Avx2, 32, 3, __attribute__((target("avx2,fma"))))
#endif
CONV1D_TARGET(Portable, 16, 3, )

template <typename Type>
inline void run_on_this_machine(const Problem& p, int64_t begin, int64_t end) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq"))
        return Avx512::run<Type>(p, begin, end);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return Avx2::run<Type>(p, begin, end);
#endif
    Portable::run<Type>(p, begin, end);
}

#undef CONV1D_TARGET
#undef CONV1D_INLINE

}  // namespace cpu

int64_t cpu_task_count(const Problem& p) { return cpu::Tasks(p).count; }

int64_t cpu_task_grain(const Problem& p) {
    const cpu::Tasks tasks(p);
    const int64_t products =
        p.C * p.K * std::min(p.O, cpu::kOutputBlock) * std::min(tasks.columns, tasks.column_block);
    return std::max<int64_t>(1, 500000 / products);
}

void cpu_run_tasks(const Problem& p, int64_t begin, int64_t end) {
    switch (p.dtype) {
        case Dtype::float32: return cpu::run_on_this_machine<cpu::Native<float>>(p, begin, end);
        case Dtype::float64: return cpu::run_on_this_machine<cpu::Native<double>>(p, begin, end);
        case Dtype::float16: return cpu::run_on_this_machine<cpu::Float16>(p, begin, end);
        case Dtype::bfloat16: return cpu::run_on_this_machine<cpu::Bfloat16>(p, begin, end);
    }
}

}  // namespace conv1d
''',
"tile.cuh": r'''
#line 1 "kernels/tile.cuh"
// What several kernels share: element types, their sums, and a block's window of x in shared memory.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <atomic>
#include <type_traits>



namespace conv1d {

__host__ __device__ constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
__host__ __device__ constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Blocks that one launch may have along x, and along y or z.
constexpr int64_t kMaxBlocks = 2147483647;
constexpr int64_t kMaxBlockRows = 65535;

// What __launch_bounds__ asks for where any number of blocks may share a multiprocessor: 0 leaves their
// registers to ptxas, which for sm_120 would spill some.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int kUnboundBlocks = 1;
#else
constexpr int kUnboundBlocks = 0;
#endif

inline Error launch_error() {
    const cudaError_t error = cudaGetLastError();
    return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

// Lets a kernel's blocks have all the shared memory that there is, beyond 48 KB. Asked once a device: asking
// at each launch would cost about 1 us of it.
template <auto kKernel>
Error allow_smem(const Device& device) {
    static std::atomic<uint64_t> allowed{0};  // one bit a device
    const uint64_t bit = device.index < 64 ? uint64_t{1} << device.index : 0;
    if (allowed.load(std::memory_order_relaxed) & bit) return nullptr;
    cudaFuncAttributes attributes;
    cudaError_t error = cudaFuncGetAttributes(&attributes, kKernel);
    if (error == cudaSuccess) {
        const int most = device.smem_bytes - static_cast<int>(attributes.sharedSizeBytes);
        error = cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
    }
    if (error != cudaSuccess) return cudaGetErrorString(error);
    allowed.fetch_or(bit, std::memory_order_relaxed);
    return nullptr;
}

// Of shared memory, that a block has without permission: 48 KB, less what kernels declare themselves.
constexpr int kPlainSmemBytes = 45 << 10;

// The same problem without numbers that do not matter: a stride that no second position uses, or a dilation
// that no second tap uses, may be huge.
inline Problem canonical(Problem problem) {
    if (problem.P == 1) problem.stride = 1;
    if (problem.K == 1) problem.dilation = 1;
    return problem;
}

// Division by a number known at launch: exact where dividend * divisor is below 2^31.
struct Divisor {
    uint32_t divisor, reciprocal;

    __device__ __forceinline__ uint32_t quotient(uint32_t dividend) const {
        return static_cast<uint32_t>(static_cast<uint64_t>(dividend) * reciprocal >> 31);
    }
};

inline Divisor plan_divisor(int64_t divisor) {
    return {static_cast<uint32_t>(divisor), static_cast<uint32_t>(ceil_div(int64_t{1} << 31, divisor))};
}

// Likewise, exact for every dividend below 2^31 (Granlund and Montgomery, "Division by invariant integers
// using multiplication", PLDI 1994, theorem 4.2 with N = 31).
struct IndexDivisor {
    uint32_t divisor, reciprocal, shift;

    __device__ __forceinline__ uint32_t quotient(uint32_t dividend) const {
        return static_cast<uint32_t>(static_cast<uint64_t>(dividend) * reciprocal >> 31) >> shift;
    }
};

inline IndexDivisor plan_index_divisor(int64_t divisor) {
    uint32_t shift = 0;
    while (shift < 31 && int64_t{1} << shift < divisor) ++shift;
    return {static_cast<uint32_t>(divisor),
            static_cast<uint32_t>(ceil_div(int64_t{1} << (31 + shift), divisor)), shift};
}

// Finds the sample of a position that counts through all samples.
struct SampleDivisor {
    IndexDivisor row;  // positions of a sample
    bool few;          // in all: at most 2^30, so that threads past the last count right as well

    __device__ __forceinline__ int64_t quotient(int64_t index) const {
        return few ? row.quotient(static_cast<uint32_t>(index)) : index / row.divisor;
    }
};

inline SampleDivisor plan_sample_divisor(int64_t samples, int64_t positions) {
    return {plan_index_divisor(positions), samples <= (1 << 30) / positions};
}

// The type in which products of an element type are summed.
template <class Element>
struct SumOf {
    using Type = float;
};
template <>
struct SumOf<double> {
    using Type = double;
};

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ double widen(double value) { return value; }
__device__ __forceinline__ float widen(__half value) { return __half2float(value); }
__device__ __forceinline__ float widen(__nv_bfloat16 value) { return __bfloat162float(value); }

template <class Element>
__device__ __forceinline__ Element narrow(typename SumOf<Element>::Type sum) {
    return sum;
}
template <>
__device__ __forceinline__ __half narrow<__half>(float sum) {
    return __float2half_rn(sum);
}
template <>
__device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float sum) {
    return __float2bfloat16_rn(sum);
}

// fp32 bits to nearest TF32, ties away from zero as cuDNN has them: half of TF32's last place is added, and
// what is left in the low 13 bits tensor cores ignore. By a multiply-add, which hands inf and NaN through: an
// integer addition would have to test for them. (Subnormal numbers are cut.)
__device__ __forceinline__ uint32_t round_tf32(uint32_t bits) {
    const float power = __uint_as_float(bits & 0xFF800000u);  // the number's sign and exponent
    return __float_as_uint(fmaf(power, 0x1p-11f, __uint_as_float(bits)));
}

// Whether sums of split operands' products can be right: an infinity's parts cancel to NaN, and near the
// subnormal numbers parts are lost. Three instructions a sum; `&&` over many becomes a branch at each.
struct Soundness {
    float zero = 0.0f;               // NaN once a sum is not finite
    uint32_t smallest = 0xFFFFFFFF;  // of twice the magnitudes' bits, less one: for zero the largest

    __device__ __forceinline__ void add(float sum) {
        zero = fmaf(sum, 0.0f, zero);
        smallest = min(smallest, 2 * __float_as_uint(sum) - 1);
    }
    __device__ __forceinline__ bool is_finite() const { return zero == 0.0f; }
    __device__ __forceinline__ bool holds() const {
        return is_finite() && smallest >= 2 * __float_as_uint(0x1p-90f) - 1;
    }
};

__device__ __forceinline__ bool is_sound(float sum) {
    Soundness one;
    one.add(sum);
    return one.holds();
}

// Whether so few output channels of a group that products are nearly empty are worth them: decided by one
// sample, whose result must not depend on others. ms by gemm_sm90 and by "direct", TF32: 9x187x20337 to 6, K6
// .147, .681; 2x260x6597 to 4, K25 .084, .297; 6x278x2744 to 2, K6 s2 .021, .040; but 3x401x6873 to 3, K3 s4
// .035, .033; of one output for one tap "direct" reads each x once.
inline bool pays_for_few_outputs(const Problem& problem) {
    if (problem.O * problem.K <= 8 && problem.C <= 512) return false;
    const double windows =
        static_cast<double>(problem.G * problem.P) * static_cast<double>(problem.C * problem.K);
    const double products = windows * static_cast<double>(problem.O);
    if (element_bytes(problem.dtype) == 2) return products >= 1.2e6;
    return problem.precision == Precision::tf32 ? products >= 3e6 : windows >= 4e6;
}

// gelu or silu of one value, as PyTorch's kernels compute them.
template <class Sum>
__device__ __forceinline__ Sum smooth_activation(Activation activation, Sum value) {
    if (activation == Activation::silu) return value / (Sum{1} + exp(-value));
    return value * Sum{0.5} * (Sum{1} + erf(value * Sum{0.70710678118654752440}));
}

// The same as a call: in the unrolled loops of kernels that store from registers it would be some 50
// instructions a value.
template <class Sum>
__device__ __noinline__ Sum call_smooth_activation(Activation activation, Sum value) {
    return smooth_activation(activation, value);
}

// What y holds where an activation follows the sum, bias included. relu hands NaN through.
template <class Element, bool kCall = false>
__device__ __forceinline__ Element activate(Activation activation, typename SumOf<Element>::Type sum) {
    const auto value = widen(narrow<Element>(sum));
    if (activation == Activation::relu) return narrow<Element>(value < 0 ? 0 : value);
    if constexpr (kCall) return narrow<Element>(call_smooth_activation(activation, value));
    else return narrow<Element>(smooth_activation(activation, value));
}

// What y holds of a sum, bias included.
template <class Element, bool kActivated>
__device__ __forceinline__ Element finish(const Problem& problem, typename SumOf<Element>::Type sum) {
    if constexpr (kActivated) return activate<Element, true>(problem.activation, sum);
    else return narrow<Element>(sum);
}

// Calls launch(element, activated) for the problem's element type; activated::value is whether an activation
// follows. Kernels that store from registers have an instance of their own for that: it costs the other
// nothing.
template <class Launch>
Error launch_instance(const Problem& problem, Launch launch) {
    const auto with_element = [&](auto element) {
        return problem.activation == Activation::none ? launch(element, std::false_type{})
                                                      : launch(element, std::true_type{});
    };
    switch (problem.dtype) {
        case Dtype::float32:
            return with_element(float{});
        case Dtype::float64:
            return with_element(double{});
        case Dtype::float16:
            return with_element(__half{});
        case Dtype::bfloat16:
            return with_element(__nv_bfloat16{});
    }
    return nullptr;
}

// Values that move together.
template <class Value, int kCount>
struct alignas(sizeof(Value) * kCount < 16 ? sizeof(Value) * kCount : 16) Vector {
    Value at[kCount];
};

// How many elements `pointer` lies past a multiple of kCount of them.
template <int kCount, class Element>
__device__ __forceinline__ int misalignment(const Element* pointer) {
    return static_cast<int>(reinterpret_cast<uint64_t>(pointer) / sizeof(Element) % kCount);
}

// Where the input row begins and ends, counted from its position l_first and cut to 0..count.
struct Inside {
    int begin, end;
};
__device__ __forceinline__ Inside inside_row(int64_t l_first, int64_t L, int count) {
    const int64_t most = count;
    return {static_cast<int>(min(max(-l_first, int64_t{0}), most)),
            static_cast<int>(min(max(L - l_first, int64_t{0}), most))};
}

// One warp: activates what it has staged in shared memory, in place; what lies between its rows as well,
// which nobody reads. `count` is a multiple of 4.
template <class Element>
__device__ __forceinline__ void activate_staged(Activation activation, Element* staged, int count) {
    auto* const values = reinterpret_cast<Vector<Element, 4>*>(staged);
#pragma unroll 1
    for (int i = threadIdx.x % 32; i < count / 4; i += 32) {
        Vector<Element, 4> value = values[i];
#pragma unroll
        for (int j = 0; j < 4; ++j) value.at[j] = activate<Element>(activation, widen(value.at[j]));
        values[i] = value;
    }
    __syncwarp();
}

// One output by FFMA, from x and w as they are; padding counts as x = 0.
template <class Element = float>
__device__ __forceinline__ Element finish_exactly(const Problem& problem, int64_t n, int64_t g, int64_t o,
                                                  int64_t p) {
    const int64_t channel = g * problem.O + o;
    const Element* const w = static_cast<const Element*>(problem.w) + channel * problem.C * problem.K;
    const Element* const x =
        static_cast<const Element*>(problem.x) + n * problem.x_stride_n + g * problem.C * problem.x_stride_c;
    float sum = 0.0f;
#pragma unroll 1
    for (int64_t c = 0; c < problem.C; ++c) {
        float part = 0.0f;
#pragma unroll 1
        for (int64_t k = 0; k < problem.K; ++k) {
            const int64_t l = p * problem.stride + k * problem.dilation - problem.pad_left;
            const bool inside = l >= 0 && l < problem.L;
            const float value = inside ? widen(x[c * problem.x_stride_c + l * problem.x_stride_l]) : 0.0f;
            part = fmaf(widen(w[c * problem.K + k]), value, part);
        }
        sum += part;
    }
    if (problem.bias != nullptr) sum += widen(static_cast<const Element*>(problem.bias)[channel]);
    return problem.activation == Activation::none ? narrow<Element>(sum)
                                                  : activate<Element>(problem.activation, sum);
}

// How the x that one block needs for some taps lies in shared memory, one row of slots a channel.
//
// Tap k of the window (counted from its first) reads x at offset row*stride + k*dilation, where row counts
// the block's output positions. Taps whose offsets agree modulo the stride share a plane: a run of rows,
// `stride` input positions apart. So every tap of every stride and dilation is a shift, and rows are dense:
//
//   slot(k, row) = tap_slot[k] + row
//
// For example stride 2, dilation 1, 3 taps, 4 positions:
//
//   plane 0   offsets 0 2 4 6 8   slots 0..4   tap 0 from slot 0, tap 2 from slot 1
//   plane 1   offsets 1 3 5 7 9   slots 5..9   tap 1 from slot 5
template <int kMaxTaps>
struct Window {
    int32_t planes;
    int32_t plane_rows;
    int32_t tap_slot[kMaxTaps];
    int64_t plane_offset[kMaxTaps];  // of the plane's row 0, in input positions

    __host__ __device__ constexpr int32_t slots() const { return planes * plane_rows; }
};

// `shared_planes` false gives each tap a plane of its own: for rows that are not neighbours in x.
template <int kMaxTaps>
Window<kMaxTaps> plan_window(int64_t taps, int64_t rows, int64_t stride, int64_t dilation,
                             bool shared_planes) {
    Window<kMaxTaps> window{};
    int64_t longest_shift = 0;
    int32_t plane_of[kMaxTaps]{};
    int64_t shift_of[kMaxTaps]{};
    for (int64_t tap = 0; tap < taps; ++tap) {
        const int64_t offset = tap * dilation;
        int32_t plane = 0;
        // A shift beyond half the rows would load more than a plane of its own does.
        for (; plane < window.planes; ++plane) {
            const int64_t distance = offset - window.plane_offset[plane];
            if (shared_planes && distance % stride == 0 && distance / stride <= rows / 2) break;
        }
        if (plane == window.planes) window.plane_offset[window.planes++] = offset;
        plane_of[tap] = plane;
        shift_of[tap] = (offset - window.plane_offset[plane]) / stride;
        if (shift_of[tap] > longest_shift) longest_shift = shift_of[tap];
    }
    window.plane_rows = static_cast<int32_t>(rows + longest_shift);
    for (int64_t tap = 0; tap < taps; ++tap) {
        window.tap_slot[tap] = static_cast<int32_t>(plane_of[tap] * window.plane_rows + shift_of[tap]);
    }
    return window;
}

}  // namespace conv1d
''',
"depthwise_row.cuh": r'''
#line 1 "kernels/depthwise_row.cuh"
// What the depthwise kernels share: rows of y, and the strip of positions that a thread sums.

#include <algorithm>




namespace conv1d {
namespace depthwise {

// What sums an output: kernels, and ways of the rows kernel.
enum class Way { strips, words, strided, sliding, padded, outputs, gathered };

constexpr int kMaxThreads = 256;
constexpr int kSumBytes = 4;
constexpr int kSmemSums = kPlainSmemBytes / kSumBytes;  // of a block
constexpr int kWideBytes = 16;  // what a thread loads or stores at once

// A thread's strip of positions, and what it slides over.
constexpr int kVector = 4;
constexpr int kStripVectors = 3;
constexpr int kStrip = kStripVectors * kVector;
constexpr int kChunkTaps = kVector * (kStripVectors + 1);  // after these the registers' roles repeat
using SumVector = Vector<float, kVector>;
static_assert(kStripVectors % 2 == 1, "strips must be an odd number of vectors to avoid bank conflicts");

// What the kernels read of a problem, and no more, about in the order in which they do: each new 64 bytes of
// parameters take 0.1 us. Numbers have 32 bits by fits_depthwise.
struct Params {
    IndexDivisor segments;  // of a row
    IndexDivisor channels;  // of y
    uint32_t rows;          // of y
    int32_t segment;        // positions of a row that one block or warp takes
    uint32_t N, O;
    const void *x, *w, *bias;
    void* y;
    int64_t x_stride_n, x_stride_c, x_stride_l;
    int32_t L, P, K, stride, dilation, pad_left;
    Activation activation;
};

// Where blocks take whole rows, or one segment of one.
struct BlockParams : Params {
    uint32_t row_blocks;  // blocks for one segment of all rows
    int32_t rows_per_block;
    Divisor threads_per_row;
    bool by_channel;  // x is contiguous along channels, and a block's rows are of one sample
};

// The part of one row of y that one thread works on.
template <class Element>
struct Row {
    const Element* x;  // position 0 of the input row
    const Element* w;  // its K taps
    Element* y;        // position 0
    int32_t p_begin, p_end;
    uint32_t o;  // output channel
    bool valid;
};

// Row `index` of y, which is sample n's and channel o's. Rows and blocks are fewer than 2^31
// (fits_depthwise).
template <class Element>
__device__ __forceinline__ Row<Element> row_at(const Params& params, uint32_t index, uint32_t n, uint32_t o) {
    Row<Element> row;
    row.o = o;
    row.x = static_cast<const Element*>(params.x) + n * params.x_stride_n +
            (params.O == 1 ? o : o / params.O) * params.x_stride_c;
    row.w = static_cast<const Element*>(params.w) + o * int64_t{params.K};
    row.y = static_cast<Element*>(params.y) + index * int64_t{params.P};
    return row;
}

// The block's row `place`.
template <class Element>
__device__ __forceinline__ Row<Element> row_of_block(const BlockParams& params, int place) {
    const uint32_t channels = params.channels.divisor;
    uint32_t index, n, o, segment;
    bool valid;
    // Blocks that run together should share what they read: a row, or rows of neighbouring channels.
    if (params.by_channel) {
        const uint32_t row_block = blockIdx.x % params.row_blocks;
        segment = blockIdx.x / params.row_blocks;
        n = row_block % params.N;
        o = row_block / params.N * params.rows_per_block + place;
        index = n * channels + o;
        valid = o < channels;
    } else {
        const uint32_t row_block = params.segments.quotient(blockIdx.x);
        segment = blockIdx.x - row_block * params.segments.divisor;
        index = row_block * params.rows_per_block + place;
        n = params.channels.quotient(index);
        o = index - n * channels;
        valid = index < params.rows;
    }
    Row<Element> row = row_at<Element>(params, valid ? index : 0, valid ? n : 0, valid ? o : 0);
    row.p_begin = segment * params.segment;
    row.p_end = min(row.p_begin + params.segment, params.P);
    row.valid = valid;
    return row;
}

// The thread's row in the block, and its place among the row's threads.
struct Place {
    int row, lane;
};
__device__ __forceinline__ Place place_of_thread(const BlockParams& params) {
    const int thread = threadIdx.x;
    const int row = params.threads_per_row.quotient(thread);
    return {row, static_cast<int>(thread - row * params.threads_per_row.divisor)};
}

template <class Element>
__device__ __forceinline__ typename SumOf<Element>::Type bias_of(const Params& params, uint32_t o) {
    return params.bias == nullptr ? 0 : widen(static_cast<const Element*>(params.bias)[o]);
}

// Four neighbours of x, as they are multiplied. Those of fp32 by value: from a reference the compiler loads
// them one by one (ms of conformer_dw31 .074 and .0645); of 16 bits it should, as registers do not last for
// all four (mamba_dw4 .189 and .218).
template <class Element>
__device__ __forceinline__ SumVector widen_vector(const Vector<Element, kVector>& vector) {
    SumVector result;
#pragma unroll
    for (int i = 0; i < kVector; ++i) result.at[i] = widen(vector.at[i]);
    return result;
}
__device__ __forceinline__ SumVector widen_vector(SumVector vector) { return vector; }

// Adds kChunkTaps taps, or, where not kWhole, the `taps_left` that there are. `x` and `w` are at the first
// of them; vectors 0 to 2 of the strip's window are in registers on entry and, for the next chunk, on
// return: vector i in window[i % 4].
template <bool kWhole, class Element>
__device__ __forceinline__ void add_chunk(const Vector<Element, kVector>* x, const SumVector* w,
                                          int taps_left, SumVector (&window)[kStripVectors + 1],
                                          float (&part)[kStrip]) {
    constexpr int kGroups = kChunkTaps / kVector;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
        if (!kWhole && g * kVector >= taps_left) break;
        window[(g + kStripVectors) % kGroups] = widen_vector(x[g + kStripVectors]);
        const SumVector w_frag = w[g];
        const auto add = [&](int t) {
#pragma unroll
            for (int i = 0; i < kStrip; ++i) {
                const int at = i + t;
                const float x_at = window[(g + at / kVector) % kGroups].at[at % kVector];
                part[i] = fmaf(w_frag.at[t], x_at, part[i]);
            }
        };
        // One branch a group: with one a tap the compiler would load vectors piece by piece.
        if (kWhole || (g + 1) * kVector <= taps_left) {
#pragma unroll
            for (int t = 0; t < kVector; ++t) add(t);
        } else {
#pragma unroll
            for (int t = 0; t < kVector - 1; ++t) {
                if (g * kVector + t < taps_left) add(t);
            }
        }
    }
}

// A plan without its own numbers.
template <class Params>
Params plan_any(const Problem& problem) {
    Params params{};
    params.channels = plan_index_divisor(problem.G * problem.O);
    params.rows = static_cast<uint32_t>(problem.N * problem.G * problem.O);
    params.N = static_cast<uint32_t>(problem.N);
    params.O = static_cast<uint32_t>(problem.O);
    params.x = problem.x;
    params.w = problem.w;
    params.bias = problem.bias;
    params.y = problem.y;
    params.x_stride_n = problem.x_stride_n;
    params.x_stride_c = problem.x_stride_c;
    params.x_stride_l = problem.x_stride_l;
    params.L = static_cast<int32_t>(problem.L);
    params.P = static_cast<int32_t>(problem.P);
    params.K = static_cast<int32_t>(problem.K);
    params.stride = static_cast<int32_t>(problem.stride);
    params.dilation = static_cast<int32_t>(problem.dilation);
    params.pad_left = static_cast<int32_t>(problem.pad_left);
    params.activation = problem.activation;
    return params;
}

// Of an output's taps, those that can meet x.
inline int64_t meeting_taps(const Problem& problem) {
    return std::min(problem.K, ceil_div(problem.L, problem.dilation));
}

}  // namespace depthwise
}  // namespace conv1d
''',
"depthwise_outputs.cuh": r'''
#line 1 "kernels/depthwise_outputs.cuh"
// Depthwise outputs one by one: any strides. x and w are read through the L1 cache.

#include <algorithm>




namespace conv1d {
namespace depthwise {

constexpr int kOutputs = 4;    // of a thread
constexpr int kBatchTaps = 2;  // whose loads are under way at once
constexpr int kLaneTaps = 8;   // of a lane, before another lane takes some
constexpr int kMaxLanes = 32;
constexpr int64_t kManyThreads = 1 << 16;  // more lanes would hide no more latency

template <class Element>
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
constexpr int kOutputsBlocks = sizeof(Element) == 8 ? 2 : 5;
#else
constexpr int kOutputsBlocks = 1;
#endif

struct OutputsParams : BlockParams {
    int32_t lanes_log2;  // of an output
    int32_t p_distance;  // between a thread's outputs
};

// Rounded once.
__device__ __forceinline__ float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double multiply_add(double a, double b, double c) { return fma(a, b, c); }

// A thread has outputs of one row. `lanes` neighbours share them: lane i sums taps i, i + lanes, ... that
// meet x.
template <class Element>
__global__ void __launch_bounds__(kMaxThreads, kOutputsBlocks<Element>)
    depthwise_outputs_kernel(const __grid_constant__ OutputsParams params) {
    using Sum = typename SumOf<Element>::Type;
    const Place place = place_of_thread(params);
    const Row<Element> row = row_of_block<Element>(params, place.row);
    const bool valid = row.valid && place.row < params.rows_per_block;  // blocks are whole warps
    const Sum bias = bias_of<Element>(params, row.o);
    const int lanes = 1 << params.lanes_log2, lane = place.lane % lanes;
    const int taps = params.K, dilation = params.dilation, stride = params.stride, L = params.L;
    const uint32_t x_stride_l = static_cast<uint32_t>(params.x_stride_l);
    const uint32_t most_l = L - 1;
    const int step = params.p_distance, step_l = step * stride;
    const int p = row.p_begin + (place.lane >> params.lanes_log2);
    const int l = p * stride - params.pad_left, l_last = l + (kOutputs - 1) * step_l;
    // Taps that meet x, of one output at least.
    const int k_begin = l_last >= 0 ? 0 : -l_last / dilation / lanes * lanes;
    int k_end = l + (taps - 1) * dilation < L ? taps : (L - l + dilation - 1) / dilation;
    if (!valid) k_end = 0;
    Sum sum[kOutputs] = {};
#pragma unroll 1
    for (int k = k_begin + lane; k < k_end; k += kBatchTaps * lanes) {
        Element w[kBatchTaps], x[kBatchTaps][kOutputs];
        // From the nearest that there is, so that no load waits in a branch.
#pragma unroll
        for (int i = 0; i < kBatchTaps; ++i) {
            const int tap = min(k + i * lanes, taps - 1);
            w[i] = row.w[tap];
#pragma unroll
            for (int j = 0; j < kOutputs; ++j) {
                const uint32_t at = l + j * step_l + tap * dilation;
                x[i][j] = row.x[min(at, most_l) * x_stride_l];
            }
        }
#pragma unroll
        for (int i = 0; i < kBatchTaps; ++i) {
            const int tap = k + i * lanes;
            const Sum factor = tap < taps ? widen(w[i]) : Sum{};
#pragma unroll
            for (int j = 0; j < kOutputs; ++j) {
                const uint32_t at = l + j * step_l + tap * dilation;
                const Sum value = tap < taps && at <= most_l ? widen(x[i][j]) : Sum{};
                sum[j] = multiply_add(factor, value, sum[j]);
            }
        }
    }
    for (int distance = lanes / 2; distance > 0; distance /= 2) {
#pragma unroll
        for (int j = 0; j < kOutputs; ++j) sum[j] += __shfl_xor_sync(0xFFFFFFFF, sum[j], distance);
    }
#pragma unroll
    for (int j = 0; j < kOutputs; ++j) {
        const bool wanted = valid && lane == j % lanes && p + j * step < row.p_end;
        if (wanted) row.y[p + j * step] = narrow<Element>(sum[j] + bias);
    }
    if (params.activation == Activation::none || !valid) return;
#pragma unroll 1
    for (int j = lane; j < kOutputs && p + j * step < row.p_end; j += lanes) {
        Element* const y = row.y + p + j * step;
        *y = activate<Element>(params.activation, widen(*y));
    }
}

// Neither an output's lanes nor the outputs that it shares a thread with depend on the number of samples, so
// that its sum does not.
inline OutputsParams plan_outputs(const Problem& problem) {
    OutputsParams params = plan_any<OutputsParams>(problem);
    const int64_t taps = meeting_taps(problem), threads = problem.G * problem.O * problem.P / kOutputs;
    int64_t lanes = 1;
    while (lanes < kMaxLanes && taps > kLaneTaps * lanes && threads * lanes < kManyThreads) {
        lanes *= 2;
        ++params.lanes_log2;
    }
    const int64_t step = std::min(ceil_div(problem.P, kOutputs), kMaxThreads / lanes);
    params.segment = static_cast<int32_t>(kOutputs * step);
    params.p_distance = static_cast<int32_t>(step);  // neighbours load neighbours
    params.segments = plan_index_divisor(ceil_div(problem.P, params.segment));
    params.threads_per_row = plan_divisor(step * lanes);
    params.rows_per_block =
        params.segments.divisor > 1 ? 1 : static_cast<int32_t>(kMaxThreads / (step * lanes));
    params.row_blocks = static_cast<uint32_t>(ceil_div(params.rows, params.rows_per_block));
    return params;
}

}  // namespace depthwise
}  // namespace conv1d
''',
"depthwise_padded.cuh": r'''
#line 1 "kernels/depthwise_padded.cuh"
// Depthwise filters that are mostly longer than their row of x: an output sums the taps that meet x, one
// after the other, and no other.

#include <algorithm>
#include <numeric>




namespace conv1d {
namespace depthwise {

constexpr int kPaddedThreads = 128;

struct PaddedParams : Params {
    uint32_t blocks_per_row;  // of output channels
    // Positions whose taps meet the same x, `cycle` apart, are neighbours: turn of them, then the next ones.
    uint32_t cycle, turn;
};

// Where a tap lies in shared memory. Lanes whose first taps lie a power of two apart meet in no bank.
__host__ __device__ constexpr int padded_slot(int tap) { return tap + (tap >> 5); }

template <class Element, int kSamples>
__global__ void __launch_bounds__(kPaddedThreads, kUnboundBlocks)
    depthwise_padded_kernel(const __grid_constant__ PaddedParams params) {
    constexpr int kBatch = kSamples == 1 ? 8 : 4;  // taps whose loads are under way at once
    extern __shared__ __align__(16) unsigned char smem[];
    float* const w_smem = reinterpret_cast<float*>(smem);
    const uint32_t o = blockIdx.x / params.blocks_per_row;
    const uint64_t item =
        uint64_t{blockIdx.x - o * params.blocks_per_row} * kPaddedThreads + threadIdx.x;
    const int taps = params.K, dilation = params.dilation;
    const Element* const w = static_cast<const Element*>(params.w) + int64_t{o} * taps;
#pragma unroll 4
    for (int k = threadIdx.x; k < taps; k += kPaddedThreads) w_smem[padded_slot(k)] = widen(w[k]);
    __syncthreads();

    const uint32_t places = params.cycle * params.turn;  // of a sample
    const uint32_t group = static_cast<uint32_t>(
        item <= UINT32_MAX ? static_cast<uint32_t>(item) / places : item / places);
    const uint32_t n_first = group * kSamples, place = static_cast<uint32_t>(item - uint64_t{group} * places);
    const int p = static_cast<int>(place % params.turn * params.cycle + place / params.turn);
    if (n_first >= params.N || p >= params.P) return;
    const Row<Element> row = row_at<Element>(params, n_first * params.channels.divisor + o, n_first, o);
    const int samples = static_cast<int>(min(params.N - n_first, uint32_t{kSamples}));
    const Element* x[kSamples];
#pragma unroll
    for (int j = 0; j < kSamples; ++j) x[j] = row.x + min(j, samples - 1) * params.x_stride_n;
    // The taps that meet x: 0 <= l + k * dilation < L.
    const int l = p * params.stride - params.pad_left, left = params.L - l;
    int k = l < 0 ? (dilation - 1 - l) / dilation : 0;
    const int k_end = left <= 0 ? 0 : min(taps, (left + dilation - 1) / dilation);
    const int32_t x_stride_l = static_cast<int32_t>(params.x_stride_l), step = dilation * x_stride_l;
    int32_t at = (l + k * dilation) * x_stride_l;

    float sum[kSamples] = {};
    const auto add = [&](auto count) {
        constexpr int kCount = decltype(count)::value;
        float factor[kCount];
        Element value[kCount][kSamples];
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
            factor[i] = w_smem[padded_slot(k + i)];
#pragma unroll
            for (int j = 0; j < kSamples; ++j) value[i][j] = x[j][at];
            at += step;
        }
        k += kCount;
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
#pragma unroll
            for (int j = 0; j < kSamples; ++j) sum[j] = fmaf(factor[i], widen(value[i][j]), sum[j]);
        }
    };
#pragma unroll 1
    while (k + kBatch <= k_end) add(std::integral_constant<int, kBatch>{});
#pragma unroll 1
    while (k < k_end) add(std::integral_constant<int, 1>{});

    const float bias = bias_of<Element>(params, o);
    Element* y = row.y + p;
    const int64_t y_stride_n = int64_t{params.channels.divisor} * params.P;
#pragma unroll
    for (int j = 0; j < kSamples; ++j) {
        if (j < samples) y[j * y_stride_n] = narrow<Element>(sum[j] + bias);
    }
    if (params.activation == Activation::none) return;
#pragma unroll 1
    for (int j = 0; j < samples; ++j, y += y_stride_n) *y = activate<Element>(params.activation, widen(*y));
}

inline int padded_smem_bytes(const Problem& problem) {
    return padded_slot(static_cast<int>(problem.K)) * static_cast<int>(sizeof(float));
}

template <class Element, int kSamples>
Error launch_padded(const Problem& problem, cudaStream_t stream) {
    PaddedParams params = plan_any<PaddedParams>(problem);
    const int64_t cycle = problem.dilation / std::gcd(problem.stride, problem.dilation);
    params.cycle = static_cast<uint32_t>(8 * cycle <= problem.P ? cycle : 1);
    params.turn = static_cast<uint32_t>(ceil_div(problem.P, params.cycle));
    const int64_t places = ceil_div(problem.N, kSamples) * params.cycle * params.turn;
    params.blocks_per_row = static_cast<uint32_t>(ceil_div(places, kPaddedThreads));
    const auto blocks = static_cast<unsigned>(problem.G * problem.O * params.blocks_per_row);
    const int smem_bytes = padded_smem_bytes(problem);
    depthwise_padded_kernel<Element, kSamples><<<blocks, kPaddedThreads, smem_bytes, stream>>>(params);
    return launch_error();
}

// A thread takes several samples where enough threads remain: the sum of an output does not change with that.
template <class Element>
Error launch_padded(const Problem& problem, cudaStream_t stream) {
    const auto fill = [&](int samples) {
        const int64_t threads = problem.G * problem.O * ceil_div(problem.N, samples) * problem.P;
        return problem.N >= samples && threads >= int64_t{128} * problem.device.sm_count;
    };
    if (fill(4)) return launch_padded<Element, 4>(problem, stream);
    if (fill(2)) return launch_padded<Element, 2>(problem, stream);
    return launch_padded<Element, 1>(problem, stream);
}

inline bool fits_padded(const Problem& problem) {
    return problem.dtype != Dtype::float64 && problem.K < kSmemSums &&
           padded_smem_bytes(problem) <= kSmemSums * kSumBytes;
}

}  // namespace depthwise
}  // namespace conv1d
''',
"mma.cuh": r'''
#line 1 "kernels/mma.cuh"
// One inline function an instruction, named after it: those of sm_80 and all later architectures.
// Sections are those of the PTX ISA manual, version 9.0.

#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace conv1d {
namespace ptx {

// 9.7.9.25.3.1: 16 bytes, global to shared, both aligned; past the first `source_bytes` they become zeros.
__device__ __forceinline__ void cp_async_16(uint32_t target, const void* source, uint32_t source_bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(source),
                 "r"(source_bytes)
                 : "memory");
}
// 4, 8 or 16 bytes likewise, through the L1 cache.
template <int kBytes>
__device__ __forceinline__ void cp_async(uint32_t target, const void* source, uint32_t source_bytes) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(target), "l"(source), "n"(kBytes),
                 "r"(source_bytes)
                 : "memory");
}
__device__ __forceinline__ void cp_async_commit_group() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
// Returns once all but the latest kPending groups of this thread have landed.
template <int kPending>
__device__ __forceinline__ void cp_async_wait_group() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}
// Returns once all copies of this thread have landed.
__device__ __forceinline__ void cp_async_wait_all() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// 9.7.9.22: round to nearest, ties away from zero, at 11 significant bits.
__device__ __forceinline__ uint32_t cvt_rna_tf32(float value) {
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return bits;
}

// 9.7.15.5.15: four matrices of 8 rows of 4 words. Lane 8*m + i gives the address of row i of matrix m, 16
// bytes; word m of lane t is word t%4 of its row t/4.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&words)[4], uint32_t source) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(source)
                 : "memory");
}

// 9.7.14.5: sum[16][8] += a[16][depth] * b[depth][8], where depth is 8 TF32 or 16 16-bit numbers: 8 words.
// Of lane 4*g + t, in words of a row or column: a = (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4);
// b = (t, g), (t + 4, g); sum = (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
#define CONV1D_MMA(shape, types)                                 \
    asm("mma.sync.aligned." shape ".row.col.f32." types          \
        ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "    \
        "{%0, %1, %2, %3};"                                      \
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3]) \
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y))

template <class Element>
__device__ __forceinline__ void mma(float (&sum)[4], const uint4& a, const uint2& b);
template <>
__device__ __forceinline__ void mma<float>(float (&sum)[4], const uint4& a, const uint2& b) {
    CONV1D_MMA("m16n8k8", "tf32.tf32");
}
template <>
__device__ __forceinline__ void mma<__half>(float (&sum)[4], const uint4& a, const uint2& b) {
    CONV1D_MMA("m16n8k16", "f16.f16");
}
template <>
__device__ __forceinline__ void mma<__nv_bfloat16>(float (&sum)[4], const uint4& a, const uint2& b) {
    CONV1D_MMA("m16n8k16", "bf16.bf16");
}
#undef CONV1D_MMA

}  // namespace ptx
}  // namespace conv1d
''',
"ptx.cuh": r'''
#line 1 "kernels/ptx.cuh"
// One inline function an instruction, named after it. Sections are those of the PTX ISA manual, version 9.0.
// Who calls one of them is compiled for an architecture that has it.

#include <cstdint>
#include <cuda_runtime.h>

namespace conv1d {
namespace ptx {

// Address in the shared window, as every instruction below takes it.
__device__ __forceinline__ uint32_t smem_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// 9.7.9.22: round to nearest even at 11 significant bits; the result's low 13 bits are zero.
__device__ __forceinline__ uint32_t cvt_rn_tf32(float value) {
    uint32_t bits;
    asm("cvt.rn.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return bits;
}

// 9.7.9.11: neighbours, in one aligned store or in two. (Of plain stores the compiler makes two wherever
// it merges branches.)
__device__ __forceinline__ void st_shared(uint32_t target, float2 pair) {
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(target), "f"(pair.x), "f"(pair.y) : "memory");
}
__device__ __forceinline__ void st_shared(uint32_t target, uint32_t pair) {
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(target), "r"(pair) : "memory");
}
__device__ __forceinline__ void st_shared(uint32_t target, uint4 four) {
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(target), "r"(four.x), "r"(four.y),
                 "r"(four.z), "r"(four.w)
                 : "memory");
}
__device__ __forceinline__ void st_shared_apart(uint32_t target, float2 pair) {
    asm volatile("st.shared.f32 [%0], %1;\nst.shared.f32 [%0 + 4], %2;" ::"r"(target), "f"(pair.x),
                 "f"(pair.y)
                 : "memory");
}
__device__ __forceinline__ void st_shared_apart(uint32_t target, uint32_t pair) {
    asm volatile(
        "{\n.reg .b16 first, second;\nmov.b32 {first, second}, %1;\nst.shared.b16 [%0], first;\n"
        "st.shared.b16 [%0 + 2], second;\n}" ::"r"(target),
        "r"(pair)
        : "memory");
}

// 9.7.9.15: asks for the cache line at `source`, so that L2 has it sooner.
__device__ __forceinline__ void prefetch_l2(const void* source) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(source));
}

// 9.7.9.11: of plain stores of 16 bytes the compiler makes four here and there.
__device__ __forceinline__ void st_global(void* target, uint4 four) {
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(target), "r"(four.x), "r"(four.y),
                 "r"(four.z), "r"(four.w)
                 : "memory");
}
__device__ __forceinline__ void st_global(void* target, uint2 pair) {
    asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(target), "r"(pair.x), "r"(pair.y) : "memory");
}

// 9.7.4.9: of two pairs of fp16, the second without its signs, the larger ones; NaN where there is one.
__device__ __forceinline__ uint32_t max_magnitude_f16(uint32_t largest, uint32_t pair) {
    uint32_t result;
    asm("{\n.reg .b32 magnitude;\nabs.f16x2 magnitude, %2;\nmax.NaN.f16x2 %0, %1, magnitude;\n}"
        : "=r"(result)
        : "r"(largest), "r"(pair));
    return result;
}

// 9.7.4.8: likewise the smaller ones; without NaN where there is another number.
__device__ __forceinline__ uint32_t min_magnitude_f16(uint32_t smallest, uint32_t pair) {
    uint32_t result;
    asm("{\n.reg .b32 magnitude;\nabs.f16x2 magnitude, %2;\nmin.f16x2 %0, %1, magnitude;\n}"
        : "=r"(result)
        : "r"(smallest), "r"(pair));
    return result;
}

// 9.7.9.8: 2 to 16 bytes, in the order of the program: of plain loads the compiler puts some behind stores.
__device__ __forceinline__ void ld_shared(uint16_t& value, uint32_t source) {
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(value) : "r"(source) : "memory");
}
__device__ __forceinline__ void ld_shared(uint32_t& value, uint32_t source) {
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(value) : "r"(source) : "memory");
}
__device__ __forceinline__ void ld_shared(uint2& value, uint32_t source) {
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(value.x), "=r"(value.y) : "r"(source) : "memory");
}
__device__ __forceinline__ void ld_shared(uint4& value, uint32_t source) {
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "r"(source)
                 : "memory");
}
// The same in some lanes; without a branch, which between products would make the compiler wait for them.
__device__ __forceinline__ void ld_shared_if(bool condition, uint32_t& value, uint32_t source) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.u32 p, %2, 0;\n@p ld.shared.u32 %0, [%1];\n}"
        : "+r"(value)
        : "r"(source), "r"(static_cast<uint32_t>(condition))
        : "memory");
}

// No instruction: the compiler computes the value here, not where it is used.
__device__ __forceinline__ void settle(float2& value) { asm volatile("" : "+f"(value.x), "+f"(value.y)); }
__device__ __forceinline__ void settle(uint32_t& value) { asm volatile("" : "+r"(value)); }
template <class Element>
__device__ __forceinline__ void settle(const Element*& pointer) {
    asm volatile("" : "+l"(pointer));
}

// The same value; but the compiler computes what depends on it here, and keeps no result from elsewhere in a
// register until now.
__device__ __forceinline__ int32_t anew(int32_t value) {
    asm volatile("" : "+r"(value));
    return value;
}

// 9.7.13.17: true in one thread of a converged warp, the same one each time. What only it does, the compiler
// issues once, not in a loop over threads.
__device__ __forceinline__ bool elect() {
    uint32_t elected;
    asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xFFFFFFFF;\nselp.u32 %0, 1, 0, p;\n}" : "=r"(elected));
    return elected != 0;
}

// 9.7.13.15: mbarrier, an arrival counter in shared memory with a phase bit.
__device__ __forceinline__ void mbarrier_init(uint32_t barrier, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void fence_mbarrier_init() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void mbarrier_arrive(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ __forceinline__ void mbarrier_arrive_expect_tx(uint32_t barrier, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}
// Returns once the phase of this parity has completed.
__device__ __forceinline__ void mbarrier_wait(uint32_t barrier, uint32_t parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@!done bra again;\n"
        "}" ::"r"(barrier),
        "r"(parity)
        : "memory");
}

// 9.7.9.25.5.2: one contiguous piece, global to shared; source, target and size are multiples of 16 bytes.
__device__ __forceinline__ void cp_async_bulk(uint32_t target, const void* source, uint32_t bytes,
                                              uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
            target),
        "l"(source), "r"(bytes), "r"(barrier)
        : "memory");
}

// The same, to the same place in each block of the cluster that has a bit in `blocks`, and to its barrier.
__device__ __forceinline__ void cp_async_bulk_multicast(uint32_t target, const void* source, uint32_t bytes,
                                                        uint32_t barrier, uint16_t blocks) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1], %2, [%3], %4;" ::"r"(target),
        "l"(source), "r"(bytes), "r"(barrier), "h"(blocks)
        : "memory");
}

// From shared to global, and its groups, which belong to the thread that issued them (9.7.9.25.3).
__device__ __forceinline__ void cp_async_bulk_store(uint64_t target, uint32_t source, uint32_t bytes) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(target), "r"(source),
                 "r"(bytes)
                 : "memory");
}
__device__ __forceinline__ void cp_async_bulk_commit() {
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
// Returns once all of this thread's groups but the last kPending have read their sources.
template <int kPending>
__device__ __forceinline__ void cp_async_bulk_wait_read() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}

// 9.7.9.27.1.2: a box of three axes that a tensor map describes, global to shared, from coordinates
// (c0, c1, c2) on; c0 runs along memory, and what lies outside the tensor reads as zero. The target is a
// multiple of 128 bytes, and c0 a multiple of 16 bytes: others are illegal instructions.
__device__ __forceinline__ void cp_async_bulk_tensor(uint32_t target, const void* map, int32_t c0, int32_t c1,
                                                     int32_t c2, uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%2, %3, %4}], [%5];" ::"r"(target),
        "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(barrier)
        : "memory");
}

// The same of four axes.
__device__ __forceinline__ void cp_async_bulk_tensor(uint32_t target, const void* map, int32_t c0, int32_t c1,
                                                     int32_t c2, int32_t c3, uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(target),
        "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(barrier)
        : "memory");
}

// The same, to the same place in each block of the cluster that has a bit in `blocks`, and to its barrier.
__device__ __forceinline__ void cp_async_bulk_tensor_multicast(uint32_t target, const void* map, int32_t c0,
                                                               int32_t c1, int32_t c2, int32_t c3,
                                                               uint32_t barrier, uint16_t blocks) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%2, %3, %4, %5}], [%6], %7;" ::"r"(target),
        "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(barrier), "h"(blocks)
        : "memory");
}

// 10.15: this block's number in its cluster. 9.7.9.23: the address of the same place in block `rank` of it.
__device__ __forceinline__ uint32_t cluster_ctarank() {
    uint32_t rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
__device__ __forceinline__ uint32_t mapa(uint32_t address, uint32_t rank) {
    uint32_t mapped;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(mapped) : "r"(address), "r"(rank));
    return mapped;
}
// 9.7.13.15.13: mbarrier_arrive by such an address.
__device__ __forceinline__ void mbarrier_arrive_cluster(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// 9.7.13.4: all threads of the cluster.
__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
}

// 9.7.15.5.15 and .16: four 8x8 matrices of 16-bit elements. Lane 8*m + i gives the address of row i of
// matrix m, 16 bytes; word m of lane t holds elements 2*(t%4) and that + 1 of its row t/4, or, transposed, of
// its column t/4.
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&words)[4], uint32_t source) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(source)
                 : "memory");
}
__device__ __forceinline__ void stmatrix_x4(uint32_t target, const uint32_t (&words)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(target),
                 "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3])
                 : "memory");
}

// 9.7.13.1: hardware barrier kId, of `threads` threads; arrive does not wait.
template <int kId>
__device__ __forceinline__ void bar_sync(int threads) {
    asm volatile("bar.sync %0, %1;" ::"n"(kId), "r"(threads) : "memory");
}
template <int kId>
__device__ __forceinline__ void bar_arrive(int threads) {
    asm volatile("bar.arrive %0, %1;" ::"n"(kId), "r"(threads) : "memory");
}

// 9.7.13.3: orders this thread's ordinary shared-memory writes before later reads by wgmma and bulk copies.
__device__ __forceinline__ void fence_proxy_async() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// 9.7.19.5: moves registers between the warpgroups of a block.
template <int kRegisters>
__device__ __forceinline__ void setmaxnreg_inc() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void setmaxnreg_dec() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// 9.7.13.13: lets the next kernel of the stream begin where its launch allows that; there, waits until all
// kernels before it have ended and their writes can be seen.
__device__ __forceinline__ void griddepcontrol_launch_dependents() {
    asm volatile("griddepcontrol.launch_dependents;");
}
__device__ __forceinline__ void griddepcontrol_wait() {
    asm volatile("griddepcontrol.wait;" ::: "memory");
}

// 9.7.15.7: orders register and shared-memory accesses around wgmma.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit_group() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void wgmma_wait_group() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// 9.7.15.5.1.2.2: matrix descriptor of a K-major operand in rows of 128 bytes, swizzled 128 B, 8-row groups
// 1024 B apart; `smem16` is its address in units of 16 bytes. The swizzle is a function of the address, so a
// start of any multiple of 128 B is the same tile some rows on.
__device__ __forceinline__ uint64_t wgmma_descriptor(uint32_t smem16) {
    constexpr uint32_t kLeadingOffset = 1 << 16, kRowGroupOffset = 1024 / 16, kSwizzle128 = 1 << 30;
    return (uint64_t{kRowGroupOffset | kSwizzle128} << 32) | (smem16 + kLeadingOffset);
}

// The same of an operand that is not swizzled, in parts of 8 rows of 16 bytes: 128 B from one to the next
// along K, kRowGroupBytes along the rows. In a cluster addresses have the block's number above 24 bits.
template <uint32_t kRowGroupBytes = 128>
__device__ __forceinline__ uint64_t wgmma_descriptor_plain(uint32_t smem16) {
    constexpr uint32_t kPart = 128 / 16;
    return (uint64_t{kRowGroupBytes / 16} << 32) | ((smem16 & 0x3FFF) + (kPart << 16));
}
// That of the operand so many units of 16 bytes behind.
__device__ __forceinline__ uint64_t wgmma_descriptor_behind(uint64_t descriptor, uint32_t offset16) {
    return (descriptor >> 32 << 32) | (static_cast<uint32_t>(descriptor) + offset16);
}

}  // namespace ptx
}  // namespace conv1d
''',
"depthwise_rows.cuh": r'''
#line 1 "kernels/depthwise_rows.cuh"
// Depthwise rows whose taps lie near each other: a warp takes a row or a segment of one, by itself, in
// stages. x comes to shared memory as it lies in global memory, by copies of 16 bytes, one stage ahead.
// Three ways to sum:
//
// strips   stride 1, dilation 1: a lane slides over a strip of 12 positions, a new vector of 4 x for 48
//          multiply-adds. (3 vectors: an odd count, so that a warp's strips meet no bank twice.) y is put in
//          order where x has been.
// words    any dilation, and short rows: a lane has words of y, 32 words apart, so that neither the alignment
//          of x nor that of y matters.
// strided  a lane has outputs of its own and takes their taps in turns (plan_turns), so that lanes meet no
//          bank twice. Where there are few outputs, or strides are long, some lanes share one.

#include <algorithm>






namespace conv1d {
namespace depthwise {

constexpr int kRowsWarps = kMaxThreads / 32;
constexpr int kMaxStages = 4;    // of a warp, where the GPU is full anyway
constexpr int kLineBytes = 128;  // where the stores of a warp begin
constexpr int kWords = 4;        // of y, 4 bytes each, that a lane sums at once
template <class Element>
constexpr int kPack = 4 / sizeof(Element);  // elements of a word
constexpr int kStridedOutputs = 4;   // that a lane sums at once
constexpr int kStridedBytes = 1024;  // of x that a stage has, about
constexpr int64_t kMaxSpan = 1 << 16;  // of x: no stage is that large
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
template <Way kWay>
constexpr int kRowsBlocks = kWay == Way::words ? 5 : 4;
#else
template <Way kWay>
constexpr int kRowsBlocks = 1;
#endif

struct RowsParams : Params {
    int32_t lanes_log2;         // strided: of an output
    int32_t turns;              // taps of a lane after which its outputs have been in all banks they meet
    int32_t turn_outputs_log2;  // outputs after which banks repeat
    int32_t stage_positions;    // of y
    int32_t stage_elems;        // of their x, in shared memory
    int32_t warp_bytes;         // of two stages and taps
};

// Starts to bring `count` elements of x from row position l on, which is aligned, by one warp.
template <class Element>
__device__ __forceinline__ void fetch_stage(const Element* row_x, int l, int L, int count, Element* x_smem) {
    constexpr int kWide = kWideBytes / sizeof(Element);
#pragma unroll 1
    for (int i = threadIdx.x % 32 * kWide; i < count; i += 32 * kWide) {
        const Element* const source = row_x + (l + i);
        auto* const target = reinterpret_cast<Vector<Element, kWide>*>(x_smem + i);
        const int begin = -(l + i), end = L - (l + i);  // of the row
        if (begin <= 0 && end >= kWide) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
            *target = *reinterpret_cast<const Vector<Element, kWide>*>(source);
#else
            ptx::cp_async_16(ptx::smem_address(target), source, kWideBytes);
#endif
        } else {
            Vector<Element, kWide> some;
#pragma unroll
            for (int j = 0; j < kWide; ++j) {
                some.at[j] = j >= begin && j < end ? source[j] : narrow<Element>(0);
            }
            *target = some;
        }
    }
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    ptx::cp_async_commit_group();
#endif
}

// Returns once the warp's stages but the last kPending are in shared memory.
template <int kPending>
__device__ __forceinline__ void wait_for_stage() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    ptx::cp_async_wait_group<kPending>();
#endif
    __syncwarp();
}

// What a warp of the rows kernel works on: positions [p, p_end) of a row, of which those before 0 are none.
// Their x is in shared memory, and their taps.
template <class Element>
struct Stage {
    const Row<Element>& row;
    int p, p_end;
    Element* x_smem;
    const float* w_smem;
    float bias;
};

// A lane has words of y, 32 words apart.
template <class Element>
__device__ __forceinline__ void sum_words(const Params& params, const Stage<Element>& stage, int shift) {
    using Word = Vector<Element, kPack<Element>>;
    constexpr int kWordElems = kPack<Element>;
    const int lane = threadIdx.x % 32;
    const int taps = params.K, dilation = params.dilation;
#pragma unroll 1
    for (int p_first = stage.p; p_first < stage.p_end; p_first += 32 * kWords * kWordElems) {
        float sum[kWords][kWordElems] = {};
        int at = p_first - stage.p + shift;
#pragma unroll 2
        for (int k = 0; k < taps; ++k, at += dilation) {
            const float w = stage.w_smem[k];
            const Word* const x = reinterpret_cast<const Word*>(stage.x_smem) + at / kWordElems + lane;
            if (at % kWordElems == 0) {
#pragma unroll
                for (int i = 0; i < kWords; ++i) {
#pragma unroll
                    for (int j = 0; j < kWordElems; ++j)
                        sum[i][j] = fmaf(w, widen(x[32 * i].at[j]), sum[i][j]);
                }
            } else {
#pragma unroll
                for (int i = 0; i < kWords; ++i) {
                    const float first = widen(x[32 * i].at[kWordElems - 1]);
                    const float last = widen(x[32 * i + 1].at[0]);
                    sum[i][0] = fmaf(w, first, sum[i][0]);
                    sum[i][kWordElems - 1] = fmaf(w, last, sum[i][kWordElems - 1]);
                }
            }
        }
#pragma unroll
        for (int i = 0; i < kWords; ++i) {
            const int p = p_first + (32 * i + lane) * kWordElems;
            Word out;
#pragma unroll
            for (int j = 0; j < kWordElems; ++j) out.at[j] = narrow<Element>(sum[i][j] + stage.bias);
            if (p >= 0 && p + kWordElems <= stage.p_end) {
                *reinterpret_cast<Word*>(stage.row.y + p) = out;
                continue;
            }
#pragma unroll
            for (int j = 0; j < kWordElems; ++j) {
                if (p + j >= 0 && p + j < stage.p_end) stage.row.y[p + j] = out.at[j];
            }
        }
        if (params.activation == Activation::none) continue;
#pragma unroll 1
        for (int i = 0; i < kWords * kWordElems; ++i) {
            const int p = p_first + (i / kWordElems * 32 + lane) * kWordElems + i % kWordElems;
            if (p < 0 || p >= stage.p_end) continue;
            stage.row.y[p] = activate<Element>(params.activation, widen(stage.row.y[p]));
        }
    }
}

// A lane has strips of neighbours, which then go through shared memory, where x has been.
template <class Element>
__device__ __forceinline__ void sum_strips(const Params& params, const Stage<Element>& stage) {
    using Word = Vector<Element, kPack<Element>>;
    using ElementVector = Vector<Element, kVector>;
    constexpr int kWordElems = kPack<Element>, kSpan = 32 * kStrip;
    const int lane = threadIdx.x % 32, taps = params.K;
    const SumVector* const w = reinterpret_cast<const SumVector*>(stage.w_smem);
#pragma unroll 1
    for (int p_first = stage.p; p_first < stage.p_end; p_first += kSpan) {
        Element* const span_smem = stage.x_smem + (p_first - stage.p);
        auto* const strip = reinterpret_cast<ElementVector*>(span_smem + lane * kStrip);
        float sum[kStrip] = {};
        SumVector window[kStripVectors + 1];
#pragma unroll
        for (int i = 0; i < kStripVectors; ++i) window[i] = widen_vector(strip[i]);
#pragma unroll 1
        for (int k = 0; k < taps; k += kChunkTaps) {
            if (k + kChunkTaps <= taps) {
                add_chunk<true, Element>(strip + k / kVector, w + k / kVector, kChunkTaps, window, sum);
            } else {
                add_chunk<false, Element>(strip + k / kVector, w + k / kVector, taps - k, window, sum);
            }
        }
        __syncwarp();  // x has been read by all lanes
#pragma unroll
        for (int v = 0; v < kStripVectors; ++v) {
            ElementVector out;
#pragma unroll
            for (int i = 0; i < kVector; ++i)
                out.at[i] = narrow<Element>(sum[v * kVector + i] + stage.bias);
            strip[v] = out;
        }
        if (params.activation != Activation::none) {
#pragma unroll 1
            for (int i = lane * kStrip; i < (lane + 1) * kStrip; ++i) {
                span_smem[i] = activate<Element>(params.activation, widen(span_smem[i]));
            }
        }
        __syncwarp();  // y is there
        Element* const y = stage.row.y + p_first;
        if (kWordElems == 1 || p_first < 0 || p_first + kSpan > stage.p_end) {
            const uint32_t end = stage.p_end;
#pragma unroll
            for (int i = lane; i < kSpan; i += 32) {
                if (static_cast<uint32_t>(p_first + i) < end) y[i] = span_smem[i];
            }
        } else if (misalignment<kWordElems>(y) == 0) {
#pragma unroll
            for (int i = 0; i < kStrip / kWordElems; ++i) {
                reinterpret_cast<Word*>(y)[32 * i + lane] =
                    reinterpret_cast<const Word*>(span_smem)[32 * i + lane];
            }
        } else {
            y[lane == 0 ? 0 : kSpan - 1] = span_smem[lane == 0 ? 0 : kSpan - 1];
#pragma unroll
            for (int i = 0; i < kStrip / kWordElems; ++i) {
                const int at = (32 * i + lane) * kWordElems + 1;
                Word word;
                word.at[0] = span_smem[at];
                word.at[kWordElems - 1] = span_smem[at + kWordElems - 1];
                if (at + 1 < kSpan) *reinterpret_cast<Word*>(y + at) = word;
            }
        }
    }
}

// A lane has outputs 32 apart; where rows are short, `lanes` neighbours share each, with every lanes-th tap.
// Lanes whose outputs lie in the same banks for any one tap take their taps in turns: from another one on.
template <class Element>
__device__ __forceinline__ void sum_strided(const RowsParams& params, const Stage<Element>& stage,
                                            int shift) {
    const int taps = params.K, dilation = params.dilation;
    const int stride = params.stride, lanes = 1 << params.lanes_log2;
    const int lane = threadIdx.x % lanes, output = threadIdx.x % 32 >> params.lanes_log2;
    const int outputs = 32 >> params.lanes_log2;  // at once, kStridedOutputs times
    const int turns = params.turns, first = (output >> params.turn_outputs_log2) * kPack<Element>;
#pragma unroll 1
    for (int p_first = stage.p; p_first < stage.p_end; p_first += kStridedOutputs * outputs) {
        float sum[kStridedOutputs] = {};
        const Element* const x = stage.x_smem + shift + (p_first - stage.p + output) * stride;
        const auto add = [&](int k, const Element* at) {
            const float w = stage.w_smem[k];
#pragma unroll
            for (int i = 0; i < kStridedOutputs; ++i) sum[i] += w * widen(at[i * outputs * stride]);
        };
        int k = lane;
        if (turns > 1) {
            for (; k + (turns - 1) * lanes < taps; k += turns * lanes) {
#pragma unroll 2
                for (int turn = 0; turn < turns; ++turn) {
                    const int other = k + (turn + first & turns - 1) * lanes;
                    add(other, x + other * dilation);
                }
            }
        }
        const Element* at = x + k * dilation;
#pragma unroll 2
        for (; k < taps; k += lanes, at += lanes * dilation) add(k, at);
        for (int distance = lanes / 2; distance > 0; distance /= 2) {
#pragma unroll
            for (int i = 0; i < kStridedOutputs; ++i) sum[i] += __shfl_xor_sync(0xFFFFFFFF, sum[i], distance);
        }
#pragma unroll
        for (int i = 0; i < kStridedOutputs; ++i) {
            const int p = p_first + i * outputs + output;
            if (i % lanes == lane && p < stage.p_end) stage.row.y[p] = narrow<Element>(sum[i] + stage.bias);
        }
        if (params.activation == Activation::none) continue;
#pragma unroll 1
        for (int i = lane; i < kStridedOutputs; i += lanes) {
            const int p = p_first + i * outputs + output;
            if (p >= stage.p_end) break;
            stage.row.y[p] = activate<Element>(params.activation, widen(stage.row.y[p]));
        }
    }
}

template <class Element, Way kWay>
__global__ void __launch_bounds__(kMaxThreads, kRowsBlocks<kWay>)
    depthwise_rows_kernel(const __grid_constant__ RowsParams params) {
    constexpr int kWide = kWideBytes / sizeof(Element);
    extern __shared__ __align__(16) unsigned char smem[];
    const int warp = threadIdx.x / 32;
    const uint32_t item = blockIdx.x * kRowsWarps + warp, index = params.segments.quotient(item);
    if (index >= params.rows) return;
    const uint32_t n = params.channels.quotient(index);
    const Row<Element> row = row_at<Element>(params, index, n, index - n * params.channels.divisor);
    const float bias = bias_of<Element>(params, row.o);
    const int taps = params.K, L = params.L;
    const int stride = kWay == Way::strided ? params.stride : 1;
    Element* x_smem = reinterpret_cast<Element*>(smem + warp * params.warp_bytes);
    Element* x_next = x_smem + params.stage_elems;
    float* const w_smem = reinterpret_cast<float*>(x_next + params.stage_elems);
    // The first of them on their way while x is.
    const int lane = threadIdx.x % 32;
    const Element w_first = row.w[min(lane, taps - 1)];

    // Segments of words begin where y is aligned, those of strips where x is.
    const int positions = params.stage_positions;
    int p_begin = static_cast<int>(item - index * params.segments.divisor) * params.segment;
    if (kWay == Way::words) p_begin -= misalignment<kLineBytes / sizeof(Element)>(row.y);
    if (kWay == Way::strips) p_begin -= misalignment<kWide>(row.x - params.pad_left);
    const int p_end = min(p_begin + params.segment, params.P);
    // Through a shuffle, so that the compiler knows it is the same in the whole warp.
    const int first_l = p_begin * stride - params.pad_left;
    const int shift =
        kWay == Way::strips ? 0 : __shfl_sync(0xFFFFFFFF, misalignment<kWide>(row.x + first_l), 0);
    // Of x for some positions. Words of odd taps reach one element further.
    const auto count_of = [&](int some) {
        const int reach = (taps - 1) * params.dilation;
        return shift + (min(some, positions) - 1) * stride + reach + 2;
    };
    if (p_begin < p_end) fetch_stage(row.x, first_l - shift, L, count_of(p_end - p_begin), x_smem);
    if (lane < taps) w_smem[lane] = widen(w_first);
    for (int k = lane + 32; k < taps; k += 32) w_smem[k] = widen(row.w[k]);
#pragma unroll 1
    for (int p = p_begin; p < p_end; p += positions) {
        const int left = p_end - p - positions;
        if (left > 0) {
            const int l = (p + positions) * stride - params.pad_left - shift;
            fetch_stage(row.x, l, L, count_of(left), x_next);
            wait_for_stage<1>();
        } else {
            wait_for_stage<0>();
        }
        const Stage<Element> stage = {row, p, min(p + positions, p_end), x_smem, w_smem, bias};
        if constexpr (kWay == Way::words) sum_words(params, stage, shift);
        if constexpr (kWay == Way::strips) sum_strips(params, stage);
        if constexpr (kWay == Way::strided) sum_strided(params, stage, shift);
        __syncwarp();  // x and y have been read by all lanes
        Element* const now = x_smem;
        x_smem = x_next;
        x_next = now;
    }
}

// An output's lanes in strided rows: several where rows are short or strides long, but not more than half of
// the taps.
inline int32_t strided_lanes_log2(const Problem& problem) {
    int32_t log2 = 0;
    for (int64_t lanes = 1; lanes < 32; lanes *= 2, ++log2) {
        const bool is_far = problem.stride > 8 * lanes;
        const bool is_short = 32 / lanes * kStridedOutputs >= 2 * problem.P;
        if (!is_far && (2 * lanes > problem.K || !is_short)) break;
    }
    return log2;
}

// In what turns the lanes of a warp take their taps.
inline void plan_turns(const Problem& problem, RowsParams& params) {
    const int64_t pack = 4 / element_bytes(problem.dtype), lanes = int64_t{1} << params.lanes_log2;
    const int64_t power = std::min<int64_t>(problem.stride & -problem.stride, 32);
    const int64_t outputs = 32 / std::max<int64_t>(power / pack, 1);  // in banks of their own
    params.turn_outputs_log2 = 0;
    while (outputs >> (params.turn_outputs_log2 + 1) > 0) ++params.turn_outputs_log2;
    const int64_t turns = std::max<int64_t>(32 / lanes / outputs, 1);
    params.turns = static_cast<int32_t>(turns > 1 ? turns * pack : 1);
}

// For x contiguous along l. False where taps reach too far, or the stride is too long, for shared memory.
inline bool plan_rows(const Problem& problem, RowsParams& params, Way way) {
    const int64_t bytes = element_bytes(problem.dtype), wide = kWideBytes / bytes, pack = 4 / bytes;
    int64_t positions = 32 * pack * (way == Way::words ? 2 * kWords : kStrip), lead = 0;
    if (way == Way::words) lead = kLineBytes / bytes - 1;
    if (way == Way::strips) lead = wide - 1;
    if (way == Way::strided) {
        params.lanes_log2 = strided_lanes_log2(problem);
        plan_turns(problem, params);
        const int64_t outputs = kStridedOutputs * (32 >> params.lanes_log2);
        const int64_t times = std::max<int64_t>(kStridedBytes / (outputs * problem.stride * bytes), 1);
        positions = round_up(outputs * times, wide);  // so that stages of x are aligned alike
    }
    // With what lies between aligned x and a row's, and what words and strips read ahead.
    const int64_t reach = (problem.K - 1) * problem.dilation;
    if (problem.stride > kMaxSpan / positions || reach > kMaxSpan) return false;
    const int64_t elems = round_up(positions * problem.stride + reach + 2 * wide, wide);
    const int64_t warp_bytes = 2 * elems * bytes + round_up(problem.K, kVector) * kSumBytes;
    // Two blocks a multiprocessor have enough of x on its way.
    const int64_t most_bytes = way == Way::strided ? std::min<int64_t>(problem.device.smem_bytes, 110 << 10)
                                                   : kPlainSmemBytes;
    if (kRowsWarps * warp_bytes > most_bytes) return false;
    params.stage_positions = static_cast<int32_t>(positions);
    params.stage_elems = static_cast<int32_t>(elems);
    params.warp_bytes = static_cast<int32_t>(warp_bytes);
    const int64_t stages = ceil_div(problem.P + lead, positions);
    const int64_t full = params.rows * stages / (64 * std::max<int64_t>(problem.device.sm_count, 1));
    const int64_t segments = ceil_div(stages, std::clamp<int64_t>(full, 1, kMaxStages));
    params.segment = static_cast<int32_t>(ceil_div(stages, segments) * positions);
    params.segments = plan_index_divisor(segments);
    return true;
}

}  // namespace depthwise
}  // namespace conv1d
''',
"depthwise_sliding.cuh": r'''
#line 1 "kernels/depthwise_sliding.cuh"
// Depthwise rows of many taps, by blocks: a block takes one or several rows of y, or a segment of a long one.
// The segment's window of x lies in shared memory, in runs within which taps are neighbours. A thread slides
// over a strip of a run; y is put in order where x has been.

#include <algorithm>
#include <numeric>
#include <type_traits>






namespace conv1d {
namespace depthwise {

constexpr int kAlignBytes = 32;  // where the stores of a warp begin: of parts of sectors, L2 takes fewer
constexpr int kPieceTaps = 256;  // summed apart, so that the error of many taps stays that of few
static_assert(kPieceTaps % kChunkTaps == 0, "pieces must end with a chunk");
constexpr int kSlidingThreads = 128;  // of a block of several rows: small blocks wait and work in turns
template <class Element>
constexpr int kBatch = sizeof(Element) == 2 ? 16 : 4;  // loads at once
constexpr int kManyTaps = 64;  // of which those that see padding are worth to be left out
constexpr int kLaneRows = 8;   // rows of neighbouring channels that a warp loads at once
constexpr int kRowGroups = 4;  // of these in a block, at most
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
constexpr int kSlidingBlocks = 3;
#else
constexpr int kSlidingBlocks = 1;
#endif

// The runs of sliding. With s = stride / gcd(stride, dilation) and d = dilation / gcd(stride, dilation), taps
// q, q + s, q + 2*s, ... read x d output positions apart: they share plane q, which holds x from offset
// q*dilation on, a stride apart. A run is what is a multiple of d apart in a plane. For example, stride 2:
//
//   plane 0   offsets 0 2 4 6 ...   taps 0 2 4 ...
//   plane 1   offsets 1 3 5 7 ...   taps 1 3 5 ...
//
// and with dilation 2 and stride 1, run 0 of the only plane has offsets 0 2 4 ..., run 1 has 1 3 5 ...
struct Runs {
    int32_t planes;  // that have taps
    int32_t tap_step;  // between neighbouring taps of a plane: s
    int32_t most_taps, planes_of_most;  // of the first planes; the others have one less
    int32_t residues;  // runs of a plane: d
    uint32_t inverse;  // 2^32 / d, rounded up
    int32_t w_pitch;   // shared memory of a plane's taps, in sums; a multiple of kVector
    int32_t run_pitch;  // likewise of a run
    int32_t row_pitch;  // of all of a row
};

struct SlidingParams : BlockParams {
    Runs runs;
};

// Where a row's positions begin in its plan: of runs of neighbours, at the aligned y before, so that vectors
// of a strip are aligned.
template <class Element>
__device__ __forceinline__ int lead_of(const SlidingParams& params, const Row<Element>& row) {
    return params.runs.residues == 1 ? misalignment<kWideBytes / sizeof(Element)>(row.y + row.p_begin) : 0;
}

// Whether numbers go to shared memory without registers: where the architecture has such copies and they need
// no conversion.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
template <class Element>
constexpr bool kAsync = sizeof(Element) == sizeof(float);
#else
template <class Element>
constexpr bool kAsync = false;
#endif

// Where position i of a plane lies in it. `divisor` is the number of residues, its `inverse` 2^32 / divisor
// rounded up: exact, as positions times divisor are fewer than 2^32.
__device__ __forceinline__ int place_in_plane(const Runs& runs, int i) {
    if (runs.residues == 1) return i;
    const int run = static_cast<int>(static_cast<uint64_t>(static_cast<uint32_t>(i)) * runs.inverse >> 32);
    return (i - run * runs.residues) * runs.run_pitch + run;
}

// Brings what a row reads of x, plane after plane, by the threads of that row; `x` is under the segment's
// first position and tap 0, and a plane needs `count` positions.
template <class Element>
__device__ __forceinline__ void fetch_row(const SlidingParams& params, const Element* x, const Inside& inside,
                                          int count, int lead, int lane, float* x_smem) {
    const Runs& runs = params.runs;
    const int threads = params.threads_per_row.divisor, stride = params.stride;
    const uint32_t inside_count = inside.end - inside.begin;
    int at = lane * stride;  // of x, from the first
    const int step = threads * stride;
    const Element* source = x + at * params.x_stride_l;
    const int64_t step_x = step * params.x_stride_l;
    at -= inside.begin;
    if constexpr (kAsync<Element>) {
        if (runs.planes == 1) {
            const uint32_t divisor = runs.residues;
            const int step_run = divisor == 1 ? threads : threads / divisor;
            const int step_residue = threads - step_run * runs.residues;
            const int step_bytes = (step_residue * runs.run_pitch + step_run) * sizeof(Element);
            const int wrap_bytes = (1 - runs.residues * runs.run_pitch) * static_cast<int>(sizeof(Element));
            uint32_t target = ptx::smem_address(x_smem + place_in_plane(runs, lead + lane));
            int residue = divisor == 1 ? 0 : lane % divisor;
#pragma unroll 4
            for (int i = lane; i < count; i += threads) {
                const bool is_inside = static_cast<uint32_t>(at) < inside_count;
                ptx::cp_async<sizeof(Element)>(target, source, is_inside ? sizeof(Element) : 0);
                target += step_bytes;
                residue += step_residue;
                if (residue >= runs.residues) {
                    residue -= runs.residues;
                    target += wrap_bytes;
                }
                source += step_x;
                at += step;
            }
            return;
        }
    }
    // From the end of one plane to the beginning of the next.
    const int wrap = params.dilation - count * stride;
    const int64_t wrap_x = wrap * params.x_stride_l;
    struct {
        int i, left, plane_first;
    } next = {lane, count * runs.planes - lane, 0};
    const auto target_of = [&](auto& place) {
        return x_smem + place.plane_first + place_in_plane(runs, lead + place.i);
    };
#pragma unroll 1
    while (next.left > 0) {
        Element values[kBatch<Element>];
        auto stored = next;
#pragma unroll
        for (int j = 0; j < kBatch<Element>; ++j) {
            if (next.left <= 0) break;
            while (next.i >= count) {
                next.i -= count;
                next.plane_first += runs.residues * runs.run_pitch;
                at += wrap;
                source += wrap_x;
            }
            const bool is_inside = static_cast<uint32_t>(at) < inside_count;
            if constexpr (kAsync<Element>) {
                ptx::cp_async<sizeof(Element)>(ptx::smem_address(target_of(next)), source,
                                               is_inside ? sizeof(Element) : 0);
            } else {
                values[j] = is_inside ? *source : narrow<Element>(0);
            }
            next.i += threads;
            next.left -= threads;
            at += step;
            source += step_x;
        }
        if constexpr (!kAsync<Element>) {
#pragma unroll
            for (int j = 0; j < kBatch<Element>; ++j) {
                if (stored.left <= 0) break;
                while (stored.i >= count) {
                    stored.i -= count;
                    stored.plane_first += runs.residues * runs.run_pitch;
                }
                *target_of(stored) = widen(values[j]);
                stored.i += threads;
                stored.left -= threads;
            }
        }
    }
}

// Brings one plane of all the block's rows: a warp loads kLaneRows neighbours along channels from some
// neighbouring positions, and the same of kRowGroups groups of rows at once. `inside` is the plane's.
template <class Element>
__device__ __forceinline__ void fetch_channels(const SlidingParams& params, int plane, int64_t l, int count,
                                               float* x_smem) {
    const Runs& runs = params.runs;
    const int place = threadIdx.x % kLaneRows;
    const Row<Element> row = row_of_block<Element>(params, place);
    const Element* x[kRowGroups];
    int lead[kRowGroups];
#pragma unroll
    for (int group = 0; group < kRowGroups; ++group) {
        Row<Element> other = row;
        const int rows_on = group * kLaneRows;
        if (row.o + rows_on < params.channels.divisor) {
            other.y += rows_on * int64_t{params.P};
            const uint32_t O = params.O;
            other.x += (O == 1 ? rows_on : (row.o + rows_on) / O - row.o / O) * params.x_stride_c;
        }
        x[group] = other.x;
        lead[group] = lead_of(params, other);
    }
    const int groups = params.rows_per_block / kLaneRows, step = blockDim.x / kLaneRows;
    x_smem += place * runs.row_pitch + plane * runs.residues * runs.run_pitch;
    l += plane * params.dilation;
#pragma unroll 2
    for (int i = threadIdx.x / kLaneRows; i < count; i += step) {
        const int64_t at = l + i * params.stride;
        const bool is_inside = at >= 0 && at < params.L;
        Element values[kRowGroups];
#pragma unroll
        for (int group = 0; group < kRowGroups; ++group) {
            if (group >= groups) break;
            const Element* const source = x[group] + at * params.x_stride_l;
            if constexpr (kAsync<Element>) {
                float* const target = x_smem + group * kLaneRows * runs.row_pitch;
                const int to = place_in_plane(runs, lead[group] + i);
                ptx::cp_async<sizeof(Element)>(ptx::smem_address(target + to), source,
                                               is_inside ? sizeof(Element) : 0);
            } else {
                values[group] = is_inside ? *source : narrow<Element>(0);
            }
        }
        if constexpr (!kAsync<Element>) {
#pragma unroll
            for (int group = 0; group < kRowGroups; ++group) {
                if (group >= groups) break;
                float* const target = x_smem + group * kLaneRows * runs.row_pitch;
                target[place_in_plane(runs, lead[group] + i)] = widen(values[group]);
            }
        }
    }
}

template <class Element>
__global__ void __launch_bounds__(kMaxThreads, kSlidingBlocks)
    depthwise_sliding_kernel(const __grid_constant__ SlidingParams params) {
    constexpr int kWide = kWideBytes / sizeof(Element);
    extern __shared__ __align__(16) unsigned char smem[];
    const Runs& runs = params.runs;
    const int taps = params.K;
    const int threads = params.threads_per_row.divisor;
    const Place place = place_of_thread(params);
    const int lane = place.lane;
    const Row<Element> row = row_of_block<Element>(params, place.row);
    float* const w_smem = reinterpret_cast<float*>(smem) + place.row * runs.row_pitch;  // [plane][w_pitch]
    float* const x_smem = w_smem + runs.planes * runs.w_pitch;  // [plane][residue][run_pitch]
    Element* const y_smem = reinterpret_cast<Element*>(x_smem);  // once x has been read

    // Places in y_smem count from the aligned y at or before the segment's first.
    const int y_begin = misalignment<kAlignBytes / sizeof(Element)>(row.y + row.p_begin);
    const int lead = lead_of(params, row);
    const int count = row.p_end - row.p_begin;
    const int64_t l_begin = row.p_begin * params.stride - params.pad_left;
    Element* const y = row.y + row.p_begin - y_begin;
    if (row.valid) {
#pragma unroll 1
        for (int k = lane; k < taps; k += threads) {
            const uint32_t divisor = runs.tap_step;
            const int target = divisor == 1 ? k : k % divisor * runs.w_pitch + k / divisor;
            w_smem[target] = widen(row.w[k]);
        }
    }
    // Of the first plane, which has most.
    const int plane_count = count + (runs.most_taps - 1) * runs.residues;
    if (params.by_channel) {
        float* const first = reinterpret_cast<float*>(smem) + runs.planes * runs.w_pitch;
        for (int plane = 0; plane < runs.planes; ++plane) {
            fetch_channels<Element>(params, plane, l_begin, plane_count, first);
        }
    } else if (row.valid) {
        const Inside inside = inside_row(l_begin, params.L, 1 << 30);
        fetch_row(params, row.x + l_begin * params.x_stride_l, inside, plane_count, lead, lane, x_smem);
    }
    if constexpr (kAsync<Element>) ptx::cp_async_wait_all();
    const float bias = bias_of<Element>(params, row.o);
    __syncthreads();  // x and w are there

    // A thread has one strip.
    const int strip_of_run = runs.residues == 1 ? lane : lane / static_cast<uint32_t>(runs.residues);
    const int residue = lane - strip_of_run * runs.residues, first = strip_of_run * kStrip;  // in the run
    float sum[kStrip] = {}, part[kStrip] = {};
    // Chunks of stride 1 that see nothing but padding are left out, the same ones throughout a warp.
    int chunks_begin = 0, chunks_end = taps;
    if (params.stride == 1 && taps >= kManyTaps) {
        const uint32_t divisor = runs.residues;
        const int total = lead + count + (taps - 1) * params.dilation;
        const Inside inside = inside_row(l_begin - lead, params.L, total);
        const int warp_first = max(lane - 31, 0) / divisor * kStrip;
        const int warp_last = (lane + 31) / divisor * kStrip;
        const int x_begin = inside.begin / divisor, x_end = inside.end / divisor + 1;  // in any run
        chunks_begin = max(x_begin - warp_last - kStrip - kChunkTaps, 0) / kChunkTaps * kChunkTaps;
        chunks_end = x_end - warp_first;
    }
    for (int plane = 0; row.valid && plane < runs.planes; ++plane) {
        const float* const run = x_smem + (plane * runs.residues + residue) * runs.run_pitch + first;
        const SumVector* x = reinterpret_cast<const SumVector*>(run);
        const SumVector* w = reinterpret_cast<const SumVector*>(w_smem + plane * runs.w_pitch);
        const int plane_taps = runs.most_taps - (plane >= runs.planes_of_most);
        const int k_end = min(chunks_end, plane_taps);
        SumVector window[kStripVectors + 1];
        if (chunks_begin < k_end) {
#pragma unroll
            for (int i = 0; i < kStripVectors; ++i) window[i] = x[chunks_begin / kVector + i];
        }
        for (int k = chunks_begin; k < k_end; k += kChunkTaps) {
            if (k + kChunkTaps <= plane_taps) {
                add_chunk<true, float>(x + k / kVector, w + k / kVector, kChunkTaps, window, part);
            } else {
                add_chunk<false, float>(x + k / kVector, w + k / kVector, plane_taps - k, window, part);
            }
            if ((k + kChunkTaps) % kPieceTaps == 0) {
#pragma unroll
                for (int i = 0; i < kStrip; ++i) {
                    sum[i] += part[i];
                    part[i] = 0;
                }
            }
        }
    }
#pragma unroll
    for (int i = 0; i < kStrip; ++i) sum[i] = sum[i] + part[i] + bias;
    __syncthreads();  // x has been read

    if (runs.residues == 1) {
#pragma unroll
        for (int v = 0; v < kStripVectors; ++v) {
            Vector<Element, kVector> out;
#pragma unroll
            for (int i = 0; i < kVector; ++i) out.at[i] = narrow<Element>(sum[v * kVector + i]);
            reinterpret_cast<Vector<Element, kVector>*>(y_smem + y_begin - lead + first)[v] = out;
        }
    } else {
#pragma unroll
        for (int i = 0; i < kStrip; ++i) {
            y_smem[y_begin + (first + i) * runs.residues + residue] = narrow<Element>(sum[i]);
        }
    }
    __syncthreads();  // y is there
    if (!row.valid) return;
    const int y_end = y_begin + count;
#pragma unroll 1
    for (int i = lane * kWide; i < y_end; i += threads * kWide) {
        if (params.activation != Activation::none) {
#pragma unroll 1
            for (int j = i; j < i + kWide; ++j) {
                y_smem[j] = activate<Element>(params.activation, widen(y_smem[j]));
            }
        }
        if (i >= y_begin && i + kWide <= y_end) {
            *reinterpret_cast<uint4*>(y + i) = *reinterpret_cast<const uint4*>(y_smem + i);
            continue;
        }
#pragma unroll 1
        for (int j = max(i, y_begin); j < min(i + kWide, y_end); ++j) y[j] = y_smem[j];
    }
}

// Shared memory of a row of sliding, in sums: its taps, and runs of x with what the last strip's vectors add.
// Odd numbers of vectors, so that neighbouring runs, and rows, begin in different banks.
inline Runs plan_runs(const Problem& problem, int64_t strips_of_run) {
    const int64_t common = std::gcd(problem.stride, problem.dilation);
    const int64_t tap_step = problem.stride / common, residues = problem.dilation / common;
    const int64_t planes = std::min(tap_step, problem.K);
    const int64_t w_pitch = round_up(ceil_div(problem.K, tap_step), kVector);
    const int64_t run_pitch = (strips_of_run * kStrip + w_pitch) / kVector / 2 * 2 * kVector + kVector;
    const int64_t row_vectors = planes * (w_pitch + residues * run_pitch) / kVector;
    Runs runs;
    runs.planes = static_cast<int32_t>(planes);
    runs.tap_step = static_cast<int32_t>(tap_step);
    runs.most_taps = static_cast<int32_t>(ceil_div(problem.K, tap_step));
    runs.planes_of_most = static_cast<int32_t>(problem.K - (runs.most_taps - 1) * tap_step);
    runs.residues = static_cast<int32_t>(residues);
    runs.inverse = residues == 1 ? 0 : static_cast<uint32_t>(ceil_div(int64_t{1} << 32, residues));
    runs.w_pitch = static_cast<int32_t>(w_pitch);
    runs.run_pitch = static_cast<int32_t>(run_pitch);
    runs.row_pitch = static_cast<int32_t>((row_vectors / 2 * 2 + 1) * kVector);
    return runs;
}

// A row by so many threads, a strip each: false where its shared memory or its threads are more than a block
// has, or most of x would be loaded twice.
inline bool plan_sliding_rows(const Problem& problem, SlidingParams& params, int64_t threads,
                              int64_t rows_per_block) {
    const int64_t residues = problem.dilation / std::gcd(problem.stride, problem.dilation);
    const int64_t wide = kWideBytes / element_bytes(problem.dtype);
    const bool aligned = problem.P % wide == 0 && reinterpret_cast<uint64_t>(problem.y) % kWideBytes == 0;
    const int64_t lead = residues > 1 || aligned ? 0 : wide;
    if (threads < residues) return false;
    // Of several runs, a segment may have fewer strips than would fit, where these then fit the row better.
    int64_t strips = threads / residues;
    const int64_t halo = (problem.K - 1) / problem.stride * problem.dilation;
    const int64_t halo_strips = ceil_div(halo, kStrip * residues);
    const auto cost_of = [&](int64_t some) {
        return ceil_div(problem.P, some * kStrip * residues) * (some + halo_strips);
    };
    for (int64_t some = strips - 1; residues > 1 && some > 0; --some) {
        if (cost_of(some) < cost_of(strips)) strips = some;
    }
    // They begin aligned.
    const int64_t most = strips * kStrip * residues - lead;
    if (most < 1) return false;
    const int64_t segments = ceil_div(problem.P, most);
    params.segments = plan_index_divisor(segments);
    const int64_t segment = residues == 1 ? ceil_div(problem.P, segments) : most;
    params.segment = static_cast<int32_t>(std::min(round_up(std::min(segment, problem.P), wide), most));
    const int64_t strips_of_run = ceil_div(ceil_div(params.segment + lead, residues), kStrip);
    params.runs = plan_runs(problem, strips_of_run);
    params.threads_per_row = plan_divisor(strips_of_run * residues);
    params.rows_per_block = static_cast<int32_t>(rows_per_block);
    return (segments == 1 || params.segment >= halo) &&
           rows_per_block * params.runs.row_pitch <= kSmemSums;
}

// threads_per_row.divisor stays 0 where sliding does not take the problem.
inline SlidingParams plan_sliding(const Problem& problem) {
    SlidingParams params = plan_any<SlidingParams>(problem), none = params;
    if (problem.dtype == Dtype::float64 || problem.K > 2048) return none;
    if (problem.stride > 1024 || problem.dilation > 1024) return none;
    if (problem.x_stride_l != 1 && problem.x_stride_c == 1 && problem.G > 1) {
        params.by_channel = true;
        // First of many channels and few positions, whose taps reach furthest into what others load.
        for (int64_t rows = kLaneRows * kRowGroups; rows >= kLaneRows; rows /= 2) {
            for (int64_t threads = kMaxThreads / rows; threads >= 4; threads /= 2) {
                if (!plan_sliding_rows(problem, params, threads, rows)) continue;
                params.row_blocks = static_cast<uint32_t>(problem.N * ceil_div(problem.G * problem.O, rows));
                return params;
            }
        }
        params.by_channel = false;
    }
    for (int64_t threads = kMaxThreads; threads >= 32; threads /= 2) {
        if (!plan_sliding_rows(problem, params, threads, 1)) continue;
        if (params.segments.divisor == 1) {
            const int64_t rows = std::min<int64_t>(kSlidingThreads / params.threads_per_row.divisor,
                                                   kSmemSums / params.runs.row_pitch);
            params.rows_per_block = static_cast<int32_t>(std::max<int64_t>(rows, 1));
        }
        params.row_blocks = static_cast<uint32_t>(ceil_div(params.rows, params.rows_per_block));
        return params;
    }
    return none;
}

}  // namespace depthwise
}  // namespace conv1d
''',
"gather_plan.cuh": r'''
#line 1 "kernels/gather_plan.cuh"
// How route "gather" (gather.cuh) cuts a problem, and which problems it takes.

#include <algorithm>




namespace conv1d {
namespace gather {

constexpr int kThreads = 256;
constexpr int kBatch = 12;           // elements of x that a thread has in flight
constexpr int kBatchW = 4;           // and of w
constexpr int kOutputs = 8;          // of a thread, or twice as many
constexpr int kMostParts = 32;
constexpr int kStep = 4;             // products between two looks at the end; zeros follow the last weight
constexpr int64_t kChain = 1024;     // products that one thread sums in a line, about,
constexpr int64_t kShortChain = 16;  // and that it does sum so where they are all

// A block is [part][position]: threads side by side, and those that share a position's products. What the
// kernel reads, and no more, in the order in which it does: each new 64 bytes of parameters take 0.1 us.
struct Params {
    int32_t positions_log2;
    SampleDivisor samples;            // whose positions follow one another
    int32_t products, share;          // C * K, and those of a part
    int32_t channels;                 // O
    const void* w;
    const void* bias;
    Divisor taps;
    int32_t stride, pad_left, dilation, length;
    const void* x;
    int64_t sample_step, group_step;  // in x
    int32_t row_step, l_step;         // likewise, from channel to channel and position to position,
    int32_t tap_step, turn_step;      // tap to tap, and a channel's last tap to the next's first
    void* y;
    int64_t y_sample_step;
    int64_t N;
    Divisor products_of_channel;
    int32_t shared_parts;             // 1 where each thread sums all of its own
    Activation activation;
};

// How it is launched. p_blocks is 0 where the problem does not suit.
struct Plan {
    Params params;
    int64_t p_blocks, o_blocks;
    int32_t outputs;  // of a thread
    bool alone;       // each thread sums all parts, of which there are several
    int32_t smem_bytes;
};

// N does not decide parts, which order the sums, but whether threads share them.
inline Plan plan(const Problem& problem) {
    Plan plan{};
    const int64_t products = problem.C * problem.K;
    const int64_t few_outputs = problem.O <= 2 ? problem.O : problem.O <= 4 ? 4 : kOutputs;
    const int64_t few_rows = problem.G * ceil_div(problem.O, few_outputs);  // of blocks
    int64_t sharers = 1;
    const auto wants_more = [&] {
        const int64_t p_blocks = ceil_div(problem.P * sharers, kThreads);
        return products > kChain * sharers ||
               (products > kShortChain * sharers && few_rows * p_blocks < 2 * problem.device.sm_count);
    };
    while (sharers < kMostParts && wants_more()) sharers *= 2;
    const int64_t share = round_up(ceil_div(products, sharers), kBatch), parts = ceil_div(products, share);
    const auto smem_bytes = [&](int64_t outputs, bool alone) {
        const int64_t w_rows = products + kStep - 1;
        const int64_t rows = alone ? w_rows + kThreads : std::max<int64_t>(w_rows, kThreads);
        return (round_up(outputs, 4) + rows * outputs) * 4;
    };
    // One and a half blocks a multiprocessor, and room for the sums of earlier parts.
    const int64_t outputs = few_rows * problem.N * problem.P;  // of threads
    plan.alone = parts > 1 && 2 * outputs >= 3 * kThreads * problem.device.sm_count &&
                 smem_bytes(few_outputs, true) <= kPlainSmemBytes;
    if (plan.alone) sharers = 1;
    Params& params = plan.params;
    params.positions_log2 = 8;
    for (int64_t count = 1; count < sharers; count *= 2) --params.positions_log2;
    params.samples = plan_sample_divisor(problem.N, problem.P);
    params.products = static_cast<int32_t>(products);
    params.share = static_cast<int32_t>(share);
    params.channels = static_cast<int32_t>(problem.O);
    params.w = problem.w;
    params.bias = problem.bias;
    params.taps = plan_divisor(problem.K);
    params.stride = static_cast<int32_t>(problem.stride);
    params.pad_left = static_cast<int32_t>(problem.pad_left);
    params.dilation = static_cast<int32_t>(problem.dilation);
    params.length = static_cast<int32_t>(problem.L);
    params.x = problem.x;
    params.sample_step = problem.x_stride_n;
    params.group_step = problem.C * problem.x_stride_c;
    params.row_step = static_cast<int32_t>(problem.x_stride_c);
    params.l_step = static_cast<int32_t>(problem.x_stride_l);
    params.tap_step = static_cast<int32_t>(problem.dilation * problem.x_stride_l);
    params.turn_step = static_cast<int32_t>(problem.x_stride_c - (problem.K - 1) * params.tap_step);
    params.y = problem.y;
    params.y_sample_step = problem.G * problem.O * problem.P;
    params.N = problem.N;
    params.products_of_channel = plan_divisor(products);
    params.shared_parts = static_cast<int32_t>(plan.alone ? 1 : parts);
    params.activation = problem.activation;

    const int64_t p_blocks = ceil_div(problem.N * problem.P, kThreads / sharers);
    // Twice the outputs a thread where enough blocks remain: 1024x3x512 to 64, K3, bf16 150 and 77 us.
    const bool many = problem.O > kOutputs && few_rows * p_blocks >= 4 * problem.device.sm_count &&
                      smem_bytes(2 * kOutputs, plan.alone) <= kPlainSmemBytes;
    plan.outputs = static_cast<int32_t>(many ? 2 * kOutputs : few_outputs);
    plan.smem_bytes = static_cast<int32_t>(smem_bytes(plan.outputs, plan.alone));
    plan.o_blocks = ceil_div(problem.O, plan.outputs);
    if (plan.smem_bytes <= kPlainSmemBytes && plan.o_blocks <= kMaxBlockRows && p_blocks <= kMaxBlocks)
        plan.p_blocks = p_blocks;
    return plan;
}

// What the kernel can compute; `problem` is canonical.
inline bool takes(const Problem& problem) {
    // Positions of x are counted in 32 bits, and steps from one product's to the next's.
    constexpr int64_t kMost = int64_t{1} << 30;
    return problem.dtype != Dtype::float64 && problem.L < kMost && problem.P < kMost &&
           problem.stride < kMost && problem.P * problem.stride < kMost && problem.pad_left < kMost &&
           problem.dilation < kMost && problem.K < kMost && problem.K * problem.dilation < kMost &&
           problem.x_stride_l < kMost && problem.K * problem.dilation * problem.x_stride_l < kMost &&
           problem.x_stride_c < kMost && problem.C < kMost && problem.G <= kMaxBlockRows &&
           problem.G * problem.O < kMost && problem.C * problem.K < kMost && plan(problem).p_blocks > 0;
}

}  // namespace gather

// Tiny problems, taps that hardly overlap, and few outputs of long sums over few positions. us by this route
// and by the next best, TF32 and bf16, of some 700 random layers of few channels or small groups: 26x6x29597
// to 4, K1 15, 19 and 15, 27; 19x90x16678 to 360, K1 s3 g30 84, 94 and 62, 119; 10x76x2205 to 418, K5 s3 g38
// 14, 16 and 13, 20; 3x48x418 to 12, K22 s3 g6 6, 9 and 6, 10; 2x1488x50 to 248, K12 g124 8.5, 12 and 8.9,
// 12; 11x527x4212 to 1, K1 48, 127; 1x66x120270 to 7, K2 25, 32 and 28, 22 (fp32 26, 64). But 40x345x696 to
// 1380, K7 s3 g115 83, 54 and 83, 71; 7x255x37625 to 2, K10 s3 215, 140; 6x516x8190 to 516, K12 s8 g43 92, 86
// and 74, 55; and of eight outputs 16x128x2000 K7 100, 21. Many samples that alone leave rows short are what
// its bound costs: 33x40x2210 to 35, K7 g5 29, 24 and 33, 21; 42x1x4392 to 36, K21 s2 18, 15 and 19, 17.
inline bool fits_gather(const Problem& any_problem) {
    const Problem problem = canonical(any_problem);
    if (!gather::takes(problem)) return false;
    constexpr int64_t kFewProducts = 300;
    const int64_t products = problem.C * problem.K;
    const int64_t loads = problem.G * ceil_div(problem.O, 8) * problem.P * products;  // of a sample
    if (problem.O <= 8 && problem.K <= std::min<int64_t>(problem.stride, 8)) return true;
    // us by this and by gemm_sm90, bf16: 43x115x716 to 6, K3 41, 14; 63x213x403 to 2, K9 61, 22.
    if (element_bytes(problem.dtype) == 2 && problem.device.arch == 90 && problem.C >= 16 && problem.O < 8 &&
        pays_for_few_outputs(problem))
        return false;
    if (problem.O <= 8 && products >= 32 && problem.K <= std::min<int64_t>(2 * problem.stride, 8))
        return loads <= 1 << 21 || (problem.dtype == Dtype::float32 && products <= kFewProducts);
    if (problem.O < 8 && problem.G == 1 && problem.C >= 80 && problem.K <= 8 * problem.stride)
        return loads <= 1 << 21;
    if (problem.C >= 16 && problem.O >= 8) return false;
    const bool is_ieee = problem.dtype == Dtype::float32 && problem.precision == Precision::ieee;
    if (loads <= (problem.G > 1 && !is_ieee ? 3 << 18 : 1 << 20)) return true;
    return problem.K <= 2 * problem.stride && products <= (problem.O <= 32 ? kFewProducts : 10);
}

Error launch_gather(const Problem& any_problem, cudaStream_t stream);  // gather.cuh, for other routes too

}  // namespace conv1d
''',
"depthwise.cuh": r'''
#line 1 "kernels/depthwise.cuh"
// Depthwise convolution: one input channel a group, any taps, stride and dilation, all dtypes, sm_75 and
// later. Each element of x and y moves once; from some 60 taps on, multiply-adds bind instead. Which of five
// kernels sums an output depends on one sample, as its order of sums does; where several add taps in their
// order, on the number of samples too:
//
// rows     taps that lie near each other, a warp a row (depthwise_rows.cuh)
// sliding  many taps, a block a row or several (depthwise_sliding.cuh)
// padded   filters mostly longer than the row or few positions, a thread an output (depthwise_padded.cuh)
// gathered rows too short for a warp each (gather.cuh)
// outputs  all else, and doubles, a thread or some an output (depthwise_outputs.cuh)

#include <algorithm>
#include <numeric>
#include <type_traits>









namespace conv1d {
namespace depthwise {

constexpr int kMaxO = 4;
constexpr int64_t kMaxReach = 1 << 27;  // positions: sums of some of them have 32 bits

// Blocks of "gathered" that all run at once, two or three a multiprocessor: then it is the soonest done.
inline bool has_few_blocks(const Problem& problem) {
    const int64_t blocks = problem.G * ceil_div(problem.N * problem.P, gather::kThreads);
    return 2 * blocks <= 5 * problem.device.sm_count && gather::takes(problem);
}

// Stride 1, x contiguous along l. Taps are added in their order by "gathered" up to gather::kShortChain, by
// "outputs" up to kLaneTaps, and by strips, words and sliding: among them the number of samples may choose.
inline Way way_of_neighbours(const Problem& problem) {
    const int64_t K = problem.K, P = problem.P;
    const bool is_fp32 = problem.dtype == Dtype::float32;
    const double outputs = static_cast<double>(problem.N * problem.G * problem.O) * static_cast<double>(P);
    const double products = outputs * static_cast<double>(K);
    if (K <= gather::kShortChain ? has_few_blocks(problem)
                                 : problem.G * P * K <= 1 << 16 && gather::takes(problem))
        return Way::gathered;
    // us by words and by this, bf16: 4x302x229, K4 d2 6.1, 5.5; 1x308x637, K5 d2 5.9, 5.5; but 6x45x1150, K6
    // d9 6.2, 7.7.
    if (K <= (is_fp32 ? 4 : kLaneTaps) && products <= 1.2e6) return Way::outputs;
    // us by words and by this: 2x2102x614, K4 fp32 11.4, 9.9, bf16 10.8, 8.4; 1x262x53528, K10 42, 36 and 39,
    // 25; but mamba_dw4 fp32 342, 348.
    const bool fills_strips = is_fp32 ? K > (outputs > 1.5e7 ? 4 : 3) : K > (P >= 1024 ? 2 : 3);
    if (problem.dilation == 1 && P >= 192 && fills_strips && K <= 128) return Way::strips;
    if (K <= 4 && P < 48) return Way::outputs;
    // us by words and by this: 512x128x16 to 256, K5, fp32 62 and 26, bf16 85 and 26.
    const int64_t some = problem.O * (is_fp32 ? 1 : 2);
    if (P <= std::min<int64_t>(16 * some, 47) && K * P <= 256 * some && gather::takes(problem))
        return Way::gathered;
    if (K > 32) return P < 48 ? Way::outputs : Way::sliding;
    // Words are sooner set out to, but a short row takes a warp as long as one of 128 positions, and each tap
    // costs them more (us by them and by sliding: 1, 8 and 64 samples of 341x58, K17 fp32 5.2, 6.0, 18.5 and
    // 7.0, 7.1, 10.4; 1 and 64 of 341x100, K12 4.7, 16.5 and 6.4, 14.0; 1 and 64 of 445x66 to 890, K18 bf16
    // 6.5, 67 and 7.4, 22; 2x3714x56, K8 bf16 9.6, 7.1; 2x186x55403, K18 d2 fp32 80, 95; 40x35x5358, K29 d4
    // 47, 41).
    const double work = static_cast<double>(problem.N * problem.G * problem.O) * static_cast<double>(K + 8);
    if (P < 32) return Way::words;
    if (P < 128) return work <= (is_fp32 ? 140e3 : 55e3) ? Way::words : Way::sliding;
    if (P < 192) return K <= 8 || work <= 70e3 ? Way::words : Way::sliding;
    if (P >= 400) return K <= 20 ? Way::words : Way::sliding;
    if (products <= 8e6) return K <= (is_fp32 ? 24 : 12) ? Way::words : Way::sliding;
    return K <= (is_fp32 ? 12 : 5) ? Way::words : Way::sliding;
}

// Who sums the outputs: by the numbers of one sample, but where ways add taps in the same order, as the
// number of samples must not change the order of a sum. The bounds are those of measurements on an H200
// (results/findings.md).
inline Way way_of(const Problem& problem) {
    const int64_t K = problem.K, P = problem.P, stride = problem.stride;
    const int64_t common = std::gcd(stride, problem.dilation);
    const int64_t planes = stride / common;  // of x, in each of which taps are neighbours
    const bool by_channel = problem.x_stride_l != 1 && problem.x_stride_c == 1;
    if (problem.dtype == Dtype::float64) return Way::outputs;
    if (by_channel) return Way::sliding;
    if (2 * meeting_taps(problem) <= K && fits_padded(problem)) return Way::padded;
    if (stride == 1 && problem.x_stride_l == 1) return way_of_neighbours(problem);
    // us by sliding and by this: 1x39x54, K47, padding 46 7.8, 4.7; 3x250x582, K12, stride 4 8.7, 5.8. Of
    // fewer taps others are as good, and of many samples better.
    if (K >= 5 && problem.G * P * K <= 1 << 16 && gather::takes(problem)) return Way::gathered;
    if (problem.x_stride_l != 1) return P < 64 ? Way::outputs : Way::sliding;
    const auto outputs_or_gathered = [&] {
        return K <= kLaneTaps && has_few_blocks(problem) ? Way::gathered : Way::outputs;
    };
    if (common == 1 && P >= 16 && P < 64 && K > 16 && K <= 96) return Way::strided;
    if (common == 1 && P >= 64 && stride % 2 == 1 && K > (P < 512 ? 4 : 2) && K <= 32) return Way::strided;
    // us by outputs or sliding and by this, fp32 and bf16: 8x36x39071 to 72, K3 s2 58, 46 and 58, 36;
    // 21x50x8047, K7 s4 26, 22 and 26, 17; 2x645x55009, K8 s2 d9 192, 189 and 207, 129; but 1x3377x31709, K23
    // s4 223, 243 and 224, 239, and of fp32 1x797x43897, K5 s8 49, 52.
    const bool is_fp32 = problem.dtype == Dtype::float32;
    if (common == 1 && P >= 400 && stride % 2 == 0 && stride <= 8 && K <= (is_fp32 ? 16 : 20) &&
        2 * K >= (is_fp32 ? 3 * stride : stride + 1))
        return Way::strided;
    // 16 bits of few taps come faster by 16 bytes: 9x427x8288 to 854, K2 s8 55 us by outputs, 38 by this;
    // 11x3780x1057, K3 s3 76, 62; 3x1391x16985, K4 s4 d2 97, 75.
    if (!is_fp32 && K > 1 && K <= 4 && P >= 300) return Way::strided;
    if ((K <= 4 && (planes > 1 || P < 64)) || 2 * K <= 3 * planes) return outputs_or_gathered();
    if (common == 1 && P >= 64 && stride >= 8 && K <= 32) return Way::strided;
    // Few positions for as many planes: 3x41x2940, K48, stride 8 13.5 us by sliding, 6.6 by this; 4x90x16719
    // to 180, K50, stride 8 58, 34; 2x176x1182, K45 s4 d9 12, 8. But of fewer planes 5x370x1831, K38 s4 d2
    // 14, 21; 11x345x1043, K41 s4 19, 25.
    const int64_t few_positions = stride >= 8 ? 2500 : stride >= 4 ? 200 : 0;
    if (common == 1 && K >= 24 && K <= 63 && P >= 64 && P <= few_positions) return Way::strided;
    // Too few products for setting out. Of few taps in one plane both ways add in their order, so that all
    // samples' products count (us by outputs and by sliding, 1, 8 and 64 samples of 46x2132, K7 s2 d2: 5.4,
    // 10, 36 and 6.0, 6.8, 17; but 49x146x382, K2 s2 d4 10.0, 12.6); of others one sample's.
    const bool in_order = planes == 1 && K <= kLaneTaps;
    const int64_t products = (in_order ? problem.N : 1) * problem.G * problem.O * P * K;
    const int64_t few = in_order ? (K <= 4 ? 48 : 12) : planes > 1 && K <= 16 ? 3 : 1;
    if (products <= few << 17) return outputs_or_gathered();
    if (P < 64 && K >= 192 && fits_padded(problem)) return Way::padded;
    return P < 64 && (planes > 2 || K < 16 || K > 64) ? Way::outputs : Way::sliding;
}

// Whether few_outputs sums long filters sooner: for few positions, and whose window of x no block could
// hold. ms there and here: 27x96x7185, K1782, dilation 4 .20 and .36; 2x574x43521, K1774, dilation 4 13.7
// and 44.
inline bool prefers_few_outputs(const Problem& problem) {
    if (problem.K < 1000 || problem.O != 1 || problem.device.arch < 80) return false;
    if (way_of(problem) != Way::sliding || problem.x_stride_l != 1) return false;
    return problem.P < 64 || plan_sliding(problem).threads_per_row.divisor == 0;
}

template <class Element, Way kWay>
Error launch_rows(const Problem& problem, const RowsParams& params, cudaStream_t stream) {
    const int smem_bytes = kRowsWarps * params.warp_bytes;
    if (smem_bytes > kPlainSmemBytes) {
        const Error error = allow_smem<depthwise_rows_kernel<Element, kWay>>(problem.device);
        if (error != nullptr) return error;
    }
    const int64_t blocks = ceil_div(int64_t{params.rows} * params.segments.divisor, kRowsWarps);
    depthwise_rows_kernel<Element, kWay>
        <<<static_cast<unsigned>(blocks), kRowsWarps * 32, smem_bytes, stream>>>(params);
    return launch_error();
}

template <class Element>
Error launch_element(const Problem& problem, cudaStream_t stream) {
    const auto blocks_of = [](const BlockParams& params) {
        return params.row_blocks * params.segments.divisor;
    };
    const auto threads_of = [](const BlockParams& params) {
        return params.rows_per_block * params.threads_per_row.divisor;
    };
    if constexpr (!std::is_same<Element, double>::value) {
        Way way = way_of(problem);
        RowsParams rows = plan_any<RowsParams>(problem);
        if (way <= Way::strided && !plan_rows(problem, rows, way)) way = Way::sliding;
        if (way == Way::strips) return launch_rows<Element, Way::strips>(problem, rows, stream);
        if (way == Way::words) return launch_rows<Element, Way::words>(problem, rows, stream);
        if (way == Way::strided) return launch_rows<Element, Way::strided>(problem, rows, stream);
        if (way == Way::padded) return launch_padded<Element>(problem, stream);
        if (way == Way::gathered) return launch_gather(problem, stream);
        if (way == Way::sliding) {
            const SlidingParams params = plan_sliding(problem);
            if (params.threads_per_row.divisor > 0) {
                const size_t smem_bytes = params.rows_per_block * params.runs.row_pitch * sizeof(float);
                depthwise_sliding_kernel<Element>
                    <<<blocks_of(params), threads_of(params), smem_bytes, stream>>>(params);
                return launch_error();
            }
        }
    }
    const OutputsParams params = plan_outputs(problem);
    const auto threads = static_cast<unsigned>(round_up(threads_of(params), 32));
    depthwise_outputs_kernel<Element><<<blocks_of(params), threads, 0, stream>>>(params);
    return launch_error();
}

}  // namespace depthwise

// Places in a row are numbers of 32 bits. A block takes at least one row, or a segment of
// kMaxThreads / kMaxLanes positions.
inline bool fits_depthwise(const Problem& any_problem) {
    using namespace depthwise;
    const Problem problem = canonical(any_problem);
    const int64_t reach = (problem.P - 1) * problem.stride + (problem.K - 1) * problem.dilation;
    const int64_t most = std::max({reach, problem.L, problem.pad_left});
    const int64_t rows = problem.N * problem.G * problem.O;
    return problem.C == 1 && problem.O <= kMaxO && most < kMaxReach && !prefers_few_outputs(problem) &&
           problem.x_stride_l <= (int64_t{1} << 31) / problem.L &&
           rows * ceil_div(problem.P, kMaxThreads / kMaxLanes) <= kMaxBlocks;
}

inline Error launch_depthwise(const Problem& any_problem, cudaStream_t stream) {
    const Problem problem = canonical(any_problem);
    switch (problem.dtype) {
        case Dtype::float32:
            return depthwise::launch_element<float>(problem, stream);
        case Dtype::float64:
            return depthwise::launch_element<double>(problem, stream);
        case Dtype::float16:
            return depthwise::launch_element<__half>(problem, stream);
        case Dtype::bfloat16:
            return depthwise::launch_element<__nv_bfloat16>(problem, stream);
    }
    return nullptr;
}

}  // namespace conv1d
''',
"depthwise.cu": r'''
#line 1 "kernels/depthwise.cu"
// The translation unit of route "depthwise".



const conv1d::Route conv1d::kDepthwise = {"depthwise", fits_depthwise, no_workspace, launch_depthwise};
''',
"direct.cuh": r'''
#line 1 "kernels/direct.cuh"
// The route that is right for every valid problem, in plain multiply-adds: fp32 at full accuracy, fp64,
// 16-bit with fp32 sums; any strides, any sizes, sm_75 and later. Two kernels: "chunk" for few products, few
// channels or few outputs, and the general one.
//
// A block of the general one computes kO output channels x kP output positions; a step of the reduction
// brings some channels x some taps into shared memory: x as a Window (tile.cuh), w as [channel][tap][kO]. A
// warp owns kThreadO output channels and 256 positions, a thread 8 of those, 32 apart: x is read and y
// written along rows, w is read by broadcast. Where rows are short, a tile runs on from one sample to the
// next ("flat"); no taps share x then. Sums of fp32 are cut into pieces of about 512 products, added up in
// y: the error stays that of a short sum. Cost: at 64 x 256 outputs 10 shared reads for 64 multiply-adds.

#include <algorithm>
#include <numeric>
#include <type_traits>






namespace conv1d {
namespace direct {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kThreadP = 8;
constexpr int kMaxTaps = 32;       // of a step
constexpr int kMaxProducts = 32;   // (channel, tap) pairs of a step
constexpr int kPieceProducts = 512;

template <class Element_, int kThreadO_, int kWarpsO>
struct Tile {
    using Element = Element_;
    using Sum = typename SumOf<Element>::Type;
    static constexpr int kThreadO = kThreadO_;
    static constexpr int kO = kThreadO * kWarpsO;
    static constexpr int kWarpP = 32 * kThreadP;
    static constexpr bool kPieces = std::is_same<Element, float>::value;  // whether long sums are cut
    static constexpr int kMaxChannels = 32 / sizeof(Sum);  // of a step: 32 bytes of x wait in registers
    static constexpr int kP = kWarpP * (kWarps / kWarpsO);
    static constexpr int kWPitch = kO + 4;  // 4 mod 32 where kO is 32 or 64: filled without bank conflicts
    static constexpr int kMaxXSlots =
        kPlainSmemBytes / static_cast<int>(sizeof(Sum)) - kMaxProducts * kWPitch;
    static_assert(kMaxXSlots >= kP, "one channel of one tap must fit into shared memory");
};

struct Params {
    Problem problem;
    Window<kMaxTaps> window;
    int32_t taps;       // of a step; the last may have fewer
    int32_t channels;   // of a step; the last may have fewer
    int64_t tap_steps;  // steps that share channels
    int64_t steps;
    bool flat;  // positions count through all samples
    int64_t o_tiles, p_tiles, tiles;
    int32_t rounds;  // of the grid over all tiles
};

// What one block computes. Kept in shared memory: the sums leave few registers.
struct Place {
    int64_t n, g, o_begin, p_begin;
};

// One output position: its sample, and where in the sample.
struct Position {
    int64_t n, p;
    bool valid;
};

__device__ __forceinline__ Position position_at(const Params& params, const Place& place, int64_t index) {
    const Problem& problem = params.problem;
    if (!params.flat) return {place.n, index, index < problem.P};
    const int64_t sample = index / problem.P;
    return {sample, index - sample * problem.P, sample < problem.N};
}

// Both fills load all that a thread brings before they store any of it.
template <class Tile>
__device__ __forceinline__ void fill_x(const Params& params, const Place& place, typename Tile::Sum* x_smem,
                                       int64_t channel_begin, int channels, int64_t tap_begin) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const Window<kMaxTaps>& window = params.window;
    const Element* x =
        static_cast<const Element*>(problem.x) + (place.g * problem.C + channel_begin) * problem.x_stride_c;
    for (int row = threadIdx.x; row < window.plane_rows; row += kThreads) {
        // Rows past the last position of a tile that is not flat hold what later taps read.
        const Position at = position_at(params, place, place.p_begin + row);
        const int64_t l0 = at.p * problem.stride - problem.pad_left + tap_begin * problem.dilation;
        for (int plane = 0; plane < window.planes; ++plane) {
            const int64_t l = l0 + window.plane_offset[plane];
            const bool inside = l >= 0 && l < problem.L && (at.valid || !params.flat);
            const Element* source = x + at.n * problem.x_stride_n + l * problem.x_stride_l;
            typename Tile::Sum* target = x_smem + plane * window.plane_rows + row;
            Element value[Tile::kMaxChannels];
#pragma unroll
            for (int c = 0; c < Tile::kMaxChannels; ++c) {
                value[c] = inside && c < channels ? source[c * problem.x_stride_c] : Element{};
            }
#pragma unroll
            for (int c = 0; c < Tile::kMaxChannels; ++c) {
                if (c < channels) target[c * window.slots()] = widen(value[c]);
            }
        }
    }
}

template <class Tile>
__device__ __forceinline__ void fill_w(const Params& params, const Place& place, typename Tile::Sum* w_smem,
                                       int64_t channel_begin, int channels, int64_t tap_begin, int taps) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const Element* w = static_cast<const Element*>(problem.w);
    // A warp reads 8 neighbours of 4 rows, which fall into 32 different banks.
    const int lane_o = threadIdx.x / 32 * 4 + threadIdx.x % 4;
    const int lane_product = threadIdx.x % 32 / 4;
    const int products = channels * taps;
    for (int o = lane_o; o < Tile::kO; o += kWarps * 4) {
        const bool inside = place.o_begin + o < problem.O;
        const int64_t channel = place.g * problem.O + place.o_begin + o;
        const Element* row = w + (channel * problem.C + channel_begin) * problem.K + tap_begin;
        Element value[kMaxProducts / 8];
#pragma unroll
        for (int i = 0; i < kMaxProducts / 8; ++i) {
            const int product = lane_product + 8 * i;
            const int64_t offset = taps == problem.K ? product : product / taps * problem.K + product % taps;
            value[i] = inside && product < products ? row[offset] : Element{};
        }
#pragma unroll
        for (int i = 0; i < kMaxProducts / 8; ++i) {
            const int product = lane_product + 8 * i;
            if (product < products) w_smem[product * Tile::kWPitch + o] = widen(value[i]);
        }
    }
}

template <class Tile>
__device__ __forceinline__ void multiply(const Params& params, const typename Tile::Sum* x_smem,
                                         const typename Tile::Sum* w_smem, int channels, int taps,
                                         typename Tile::Sum (&sum)[Tile::kThreadO][kThreadP]) {
    using Sum = typename Tile::Sum;
    constexpr int kVector = 16 / sizeof(Sum);
    for (int c = 0; c < channels; ++c) {
        for (int tap = 0; tap < taps; ++tap) {
            const Sum* x_row = x_smem + c * params.window.slots() + params.window.tap_slot[tap];
            Sum x_frag[kThreadP];
#pragma unroll
            for (int j = 0; j < kThreadP; ++j) x_frag[j] = x_row[32 * j];
#pragma unroll
            for (int i = 0; i < Tile::kThreadO; i += kVector) {
                const auto w_frag = *reinterpret_cast<const Vector<Sum, kVector>*>(w_smem + i);
#pragma unroll
                for (int v = 0; v < kVector; ++v) {
#pragma unroll
                    for (int j = 0; j < kThreadP; ++j) sum[i + v][j] += w_frag.at[v] * x_frag[j];
                }
            }
            w_smem += Tile::kWPitch;
        }
    }
}

// y = sum, or y + sum where earlier pieces lie there, with the bias if this is the last piece.
template <class Tile>
__device__ __forceinline__ void store(const Params& params, const Place& place, uint32_t thread_o,
                                      uint32_t thread_p, bool first_piece, bool last_piece,
                                      const typename Tile::Sum (&sum)[Tile::kThreadO][kThreadP]) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int64_t channel = place.g * problem.O + place.o_begin + thread_o;
    const int rows = static_cast<int>(min(problem.O - place.o_begin - thread_o, int64_t{Tile::kThreadO}));
    typename Tile::Sum bias[Tile::kThreadO];
#pragma unroll
    for (int i = 0; i < Tile::kThreadO; ++i) {
        const bool biased = last_piece && problem.bias != nullptr && i < rows;
        bias[i] = biased ? widen(static_cast<const Element*>(problem.bias)[channel + i]) : 0;
    }
    const int64_t p_begin = place.p_begin + thread_p;
#pragma unroll
    for (int j = 0; j < kThreadP; ++j) {
        const Position at = position_at(params, place, p_begin + 32 * j);
        if (!at.valid) continue;
        Element* y =
            static_cast<Element*>(problem.y) + (at.n * problem.G * problem.O + channel) * problem.P + at.p;
#pragma unroll
        for (int i = 0; i < Tile::kThreadO; ++i) {
            if (i >= rows) break;
            typename Tile::Sum value = sum[i][j] + bias[i];
            if (Tile::kPieces && !first_piece) value += widen(*y);
            *y = narrow<Element>(value);
            y += problem.P;
        }
    }
}

// Activates what this thread has stored of its tile. Apart from store, whose 64 unrolled values would make
// that 1,000 instructions; next to the reduction, reading y back costs little.
template <class Tile>
__device__ __forceinline__ void activate_stored(const Params& params, const Place& place, uint32_t thread_o,
                                                uint32_t thread_p) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int64_t channel = place.g * problem.O + place.o_begin + thread_o;
    const int rows = static_cast<int>(min(problem.O - place.o_begin - thread_o, int64_t{Tile::kThreadO}));
#pragma unroll 1
    for (int j = 0; j < kThreadP; ++j) {
        const Position at = position_at(params, place, place.p_begin + thread_p + 32 * j);
        if (!at.valid) continue;
        Element* y =
            static_cast<Element*>(problem.y) + (at.n * problem.G * problem.O + channel) * problem.P + at.p;
        Element value[Tile::kThreadO];
#pragma unroll
        for (int i = 0; i < Tile::kThreadO; ++i) value[i] = i < rows ? y[i * problem.P] : Element{};
#pragma unroll
        for (int i = 0; i < Tile::kThreadO; ++i) {
            value[i] = activate<Element, true>(problem.activation, widen(value[i]));
            if (i < rows) y[i * problem.P] = value[i];
        }
    }
}

// Blocks that share a multiprocessor's registers. With two, ptxas for sm_120 spills some of the largest tile.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
constexpr int kBlocksPerSm = 1;
#else
constexpr int kBlocksPerSm = 2;
#endif

template <class Tile>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    direct_forward_kernel(const __grid_constant__ Params params) {
    using Sum = typename Tile::Sum;
    extern __shared__ __align__(16) unsigned char smem[];
    Sum* w_smem = reinterpret_cast<Sum*>(smem);           // [channel][tap][kWPitch]
    Sum* x_smem = w_smem + kMaxProducts * Tile::kWPitch;  // [channel][slot]

    __shared__ Place place;
    const Problem& problem = params.problem;
    const uint32_t warp = threadIdx.x / 32;
    const uint32_t thread_o = warp % (Tile::kO / Tile::kThreadO) * Tile::kThreadO;
    const uint32_t thread_p = warp / (Tile::kO / Tile::kThreadO) * Tile::kWarpP + threadIdx.x % 32;

    for (int round = 0; round < params.rounds; ++round) {
        const int64_t index = blockIdx.x + static_cast<int64_t>(round) * gridDim.x;
        if (index >= params.tiles) break;
        __syncthreads();  // the tile before has been computed
        if (threadIdx.x == 0) {
            const int64_t row = index / params.o_tiles;
            place.o_begin = index % params.o_tiles * Tile::kO;
            place.p_begin = row % params.p_tiles * Tile::kP;
            place.g = row / params.p_tiles % problem.G;
            place.n = row / params.p_tiles / problem.G;  // 0 where tiles are flat
        }
        __syncthreads();

        for (int64_t step = 0; step < params.steps;) {
            const bool first_piece = step == 0;
            Sum sum[Tile::kThreadO][kThreadP] = {};
            int products = 0;
            do {
                const int64_t channel = step / params.tap_steps * params.channels;
                const int64_t tap = step % params.tap_steps * params.taps;
                const int channels = min(params.channels, static_cast<int>(problem.C - channel));
                const int taps = min(params.taps, static_cast<int>(problem.K - tap));
                fill_x<Tile>(params, place, x_smem, channel, channels, tap);
                fill_w<Tile>(params, place, w_smem, channel, channels, tap, taps);
                __syncthreads();
                multiply<Tile>(params, x_smem + thread_p, w_smem + thread_o, channels, taps, sum);
                __syncthreads();  // this step has been read
                products += channels * taps;
            } while (++step < params.steps && (!Tile::kPieces || products < kPieceProducts));
            store<Tile>(params, place, thread_o, thread_p, first_piece, step == params.steps, sum);
        }
        if (problem.activation != Activation::none) {
            activate_stored<Tile>(params, place, thread_o, thread_p);
        }
    }
}

template <class Tile>
Params plan(const Problem& problem) {
    Params params{};
    params.problem = problem;
    params.flat = 2 * problem.P < Tile::kP;
    const auto fits = [&](int64_t channels) {
        return channels * params.taps <= kMaxProducts &&
               channels * params.window.slots() <= Tile::kMaxXSlots;
    };
    // The most taps that leave room for a channel; one tap always does.
    for (int64_t most = problem.K < kMaxTaps ? problem.K : kMaxTaps;; --most) {
        params.taps = static_cast<int32_t>(ceil_div(problem.K, ceil_div(problem.K, most)));
        params.window =
            plan_window<kMaxTaps>(params.taps, Tile::kP, problem.stride, problem.dilation, !params.flat);
        if (fits(1)) break;
    }
    params.channels = 1;
    while (params.channels < problem.C && params.channels < Tile::kMaxChannels && fits(params.channels + 1))
        ++params.channels;
    params.tap_steps = ceil_div(problem.K, params.taps);
    params.steps = ceil_div(problem.C, params.channels) * params.tap_steps;
    params.o_tiles = ceil_div(problem.O, Tile::kO);
    params.p_tiles = ceil_div(params.flat ? problem.N * problem.P : problem.P, Tile::kP);
    params.tiles = params.o_tiles * params.p_tiles * problem.G * (params.flat ? 1 : problem.N);
    params.rounds = static_cast<int32_t>(ceil_div(params.tiles, kMaxBlocks));
    return params;
}

template <class Tile>
Error launch_tile(const Problem& problem, cudaStream_t stream) {
    const Params params = plan<Tile>(problem);
    const auto blocks = static_cast<unsigned>(params.tiles < kMaxBlocks ? params.tiles : kMaxBlocks);
    const size_t smem_bytes = (kMaxProducts * Tile::kWPitch + params.channels * params.window.slots()) *
                              sizeof(typename Tile::Sum);
    direct_forward_kernel<Tile><<<blocks, kThreads, smem_bytes, stream>>>(params);
    return launch_error();
}

// Few products an output, few channels or few outputs: a block brings a chunk of the reduction, weights and
// the window of x, into shared memory at once; often that is all of it. Then each warp goes its own way over
// its outputs, kThreadO channels x 128 positions. x lies as [channel][plane][row]: a plane holds positions
// `stride` apart, so that a tap is a shift. Samples too short for a warp lie one after another, `pitch` rows
// apart, and positions count through them. Sums are cut into pieces of up to 64 products, added up in order;
// where one sample makes little work, warps share the pieces of the same outputs.
constexpr int kPieceSize = 64;
constexpr int64_t kChunkP = 128;  // positions of a warp

// Where ptxas spills some registers otherwise, one block less shares them.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ != 800 && __CUDA_ARCH__ != 900
constexpr int kFewerBlocks = 1;
#else
constexpr int kFewerBlocks = 0;
#endif

template <class Element_, int kThreadO_>
struct ChunkTile {
    using Element = Element_;
    static constexpr int kThreadO = kThreadO_;
    static constexpr int kThreadP = kChunkP / 32;  // 32 apart
    static constexpr int kValues = kThreadO * kThreadP;
    // Blocks that registers are shared by; elements that a thread loads before it stores any, unless copies
    // go straight to shared memory. How many are in flight bounds 16 bits: 5x663x19661 to 204, K4 g51 takes
    // 284, 226 and 175 us with 2 blocks and 8 elements, 3 and 8, 3 and 16.
    static constexpr int kBlocks = kValues > 16 ? 2 : 3;
    static constexpr int kBatch = kValues > 16 ? 6 : 16;
    static_assert(kThreadO % 4 == 0, "weights are read 4 at a time");
};

struct ChunkParams {
    Problem problem;
    int32_t threads;
    int32_t warps_p;            // of a block, along positions
    Divisor warps_o, warps_k;   // along output channels; warps_k share the pieces of the same outputs
    int32_t rounds;             // runs of warps_p warps that a block computes, where one chunk is all
    int32_t channels;           // of a chunk: more than one only with all taps
    Divisor taps;               // of a chunk
    Divisor tap_chunks;
    int32_t chunks;
    int32_t piece;              // products of a piece, at most
    int32_t group;              // products that pieces begin anew with
    Divisor group_pieces;
    int32_t chunk_pieces;
    int32_t w_pitch;            // output channels of a block + 4
    // Planes are all residues of l modulo the stride, a tap's that of its offset ("dense"), or those of the
    // first taps, which repeat after some, `cycle_rows` rows on.
    bool dense;
    Divisor cycle;              // positions, or taps, after which planes repeat
    int32_t cycle_rows;
    Divisor samples;            // of a block
    Divisor planes;
    int32_t line_rows;          // of one plane of one channel of one sample
    // What threads bring at a time: of x [line][row][plane], of weights [8 products][4 output channels]. A
    // line is a channel of a sample.
    Divisor step_rows;
    int32_t parts;              // of a line
    int32_t step_lines;
    Divisor step_quads;
    int32_t step_eights;
    int32_t plane_step;         // input positions from a plane's row 0 to the next's
    int32_t plane_rows, channel_slots;
    Divisor pitch;              // rows from a sample to the next
    int32_t w_slot, x_slot;     // in shared memory, after the bias and the products' slots
    IndexDivisor o_tiles, p_tiles, g_tiles;  // tiles count in [sample][group][position][output channel]
    int64_t tiles;
    size_t smem_bytes;

    // Where row 0 of a product's x lies in shared memory.
    __device__ __forceinline__ int32_t slot_of(uint32_t product) const {
        const uint32_t c = taps.quotient(product), k = product - c * taps.divisor;
        const uint32_t at = dense ? k * static_cast<uint32_t>(problem.dilation) : k;
        const uint32_t turn = cycle.quotient(at), plane = at - turn * cycle.divisor;
        return x_slot + c * channel_slots + plane * plane_rows + turn * cycle_rows;
    }
};

// What one block computes: some outputs of `samples` samples.
struct ChunkPlace {
    int64_t n, g, o_begin, p_begin;
    int32_t outputs, samples;  // that there are
};

// Each thread finds it where it needs it: registers do not last for it, and to wait until one thread has put
// it into shared memory would cost tiny problems 5 % of their time. (That would be better for many rounds:
// encodec_stem in fp32 .162, not .171.)
__device__ __forceinline__ ChunkPlace find_place(const ChunkParams& params) {
    const Problem& problem = params.problem;
    const uint32_t block = ptx::anew(blockIdx.x);
    const uint32_t run = params.o_tiles.quotient(block), run_g = params.p_tiles.quotient(run);
    const uint32_t run_n = params.g_tiles.quotient(run_g);
    const int32_t block_o = params.w_pitch - 4, block_n = params.samples.divisor;
    const int32_t block_p = params.rounds * params.warps_p * static_cast<int32_t>(kChunkP);
    ChunkPlace place;
    place.n = static_cast<int64_t>(run_n) * block_n;
    place.g = run_g - run_n * params.g_tiles.divisor;
    place.o_begin = static_cast<int64_t>(block - run * params.o_tiles.divisor) * block_o;
    place.p_begin = static_cast<int64_t>(run - run_g * params.p_tiles.divisor) * block_p;
    place.outputs = static_cast<int32_t>(min(problem.O - place.o_begin, int64_t{block_o}));
    place.samples = static_cast<int32_t>(min(problem.N - place.n, int64_t{block_n}));
    return place;
}

// Brings `count` elements, `step` apart, to slots of shared memory; zeros for those whose positions, counted
// from `position` on, are not below `size`. 4 bytes go straight, others through registers, several in flight.
template <class Tile>
__device__ __forceinline__ void bring(float* target, int32_t target_step,
                                      const typename Tile::Element* source, int64_t step, int32_t count,
                                      uint32_t position, uint32_t position_step, uint32_t size) {
    using Element = typename Tile::Element;
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    constexpr bool kAsync = sizeof(Element) == 4;
#else
    constexpr bool kAsync = false;
#endif
    if constexpr (kAsync) {
#pragma unroll 4
        for (int32_t i = 0; i < count; ++i) {
            ptx::cp_async<4>(ptx::smem_address(target), source, position < size ? 4 : 0);
            source += step;
            target += target_step;
            position += position_step;
        }
    } else {
#pragma unroll 1
        for (; count > 0; count -= Tile::kBatch) {
            Element value[Tile::kBatch];
#pragma unroll
            for (int i = 0; i < Tile::kBatch; ++i) {
                value[i] = i < count && position < size ? *source : Element{};
                source += step;
                position += position_step;
            }
#pragma unroll
            for (int i = 0; i < Tile::kBatch; ++i) {
                if (i < count) *target = widen(value[i]);
                target += target_step;
            }
        }
    }
}

// Weights of `products` products from a channel's tap on. A warp brings 8 neighbours of 4 rows, which fall
// into different banks.
template <class Tile>
__device__ __forceinline__ void fill_chunk_w(const ChunkParams& params, const ChunkPlace& place,
                                             int32_t channel, int32_t tap, int32_t products, float* smem) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int32_t step_quads = params.step_quads.divisor, step_products = params.step_eights * 8;
    const int32_t eight = params.step_quads.quotient(threadIdx.x / 32);
    const int32_t first = eight * 8 + threadIdx.x % 32 / 4;
    if (eight >= params.step_eights || first >= products) return;
    const int32_t count = static_cast<uint32_t>(products - first + step_products - 1) / step_products;
    const int64_t row_products = problem.C * problem.K;
    const Element* const w = static_cast<const Element*>(problem.w) + channel * problem.K + tap + first +
                             (place.g * problem.O + place.o_begin) * row_products;
    const int32_t slot = params.w_slot + first * params.w_pitch;
#pragma unroll 1
    for (int32_t o = (threadIdx.x / 32 - eight * step_quads) * 4 + threadIdx.x % 4; o < params.w_pitch - 4;
         o += step_quads * 4)
        bring<Tile>(smem + slot + o, step_products * params.w_pitch, w + o * row_products, step_products,
                    count, 0, 0, o < place.outputs);
}

// The x that taps from `tap` on of some channels need, zeros outside 0 <= l < L.
template <class Tile>
__device__ __forceinline__ void fill_chunk_x(const ChunkParams& params, const ChunkPlace& place,
                                             int32_t channel, int32_t tap, int32_t channels, float* smem) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int32_t step_rows = params.step_rows.divisor, stride = static_cast<int32_t>(problem.stride);
    const uint32_t index = params.planes.quotient(threadIdx.x);
    const int32_t plane = threadIdx.x - index * params.planes.divisor;
    const int32_t first_line = params.step_rows.quotient(index), row = index - first_line * step_rows;
    if (first_line >= params.step_lines) return;
    const int32_t count = params.parts - (row + (params.parts - 1) * step_rows >= params.line_rows);
    const int32_t lines = channels * params.samples.divisor;
    const int64_t l = place.p_begin * stride - problem.pad_left + tap * problem.dilation +
                      row * stride + plane * params.plane_step;
    const Element* const x = static_cast<const Element*>(problem.x) + place.n * problem.x_stride_n +
                             (place.g * problem.C + channel) * problem.x_stride_c + l * problem.x_stride_l;
    const int32_t slot = params.x_slot + plane * params.plane_rows + row;
    const Inside range = inside_row(l, problem.L, 1 << 30);
    const uint32_t size = range.end - range.begin;
#pragma unroll 1
    for (int32_t line = first_line; line < lines; line += params.step_lines) {
        const int32_t c = params.samples.quotient(line), sample = line - c * params.samples.divisor;
        bring<Tile>(smem + slot + c * params.channel_slots + sample * params.pitch.divisor, step_rows,
                    x + c * problem.x_stride_c + sample * problem.x_stride_n,
                    step_rows * stride * problem.x_stride_l, count, -range.begin, step_rows * stride,
                    sample < place.samples ? size : 0);
    }
}

// total += the sum of `count` products of this thread, whose x begins at `slots` bytes from x.
template <class Tile>
__device__ __forceinline__ void multiply_piece(const ChunkParams& params, const float* x,
                                               const int32_t* slots, const float* w_row, int32_t count,
                                               float (&total)[Tile::kThreadO][Tile::kThreadP]) {
    float sum[Tile::kThreadO][Tile::kThreadP] = {};
    const auto multiply_one = [&](int32_t slot) {
        const float* const x_row = reinterpret_cast<const float*>(reinterpret_cast<const char*>(x) + slot);
        float x_frag[Tile::kThreadP];
#pragma unroll
        for (int j = 0; j < Tile::kThreadP; ++j) x_frag[j] = x_row[32 * j];
#pragma unroll
        for (int i = 0; i < Tile::kThreadO; i += 4) {
            const auto w_frag = *reinterpret_cast<const Vector<float, 4>*>(w_row + i);
#pragma unroll
            for (int v = 0; v < 4; ++v) {
#pragma unroll
                for (int j = 0; j < Tile::kThreadP; ++j) sum[i + v][j] += w_frag.at[v] * x_frag[j];
            }
        }
        w_row += params.w_pitch;
    };
    int32_t product = 0;
#pragma unroll 1
    for (; product + 4 <= count; product += 4) {
        const auto four = *reinterpret_cast<const Vector<int32_t, 4>*>(slots + product);
#pragma unroll
        for (int i = 0; i < 4; ++i) multiply_one(four.at[i]);
    }
#pragma unroll 1
    for (; product < count; ++product) multiply_one(slots[product]);
#pragma unroll
    for (int i = 0; i < Tile::kThreadO; ++i) {
#pragma unroll
        for (int j = 0; j < Tile::kThreadP; ++j) total[i][j] += sum[i][j];
    }
}

// What one warp computes: some outputs of its block, or its share of their sums.
struct ChunkWarp {
    int32_t first;   // of the warps that share these outputs
    int32_t k;       // among them
    int32_t o, row;  // first output channel and position in the block
    int32_t rows;    // output channels that there are from o on
    bool active;     // some warps only bring
};

template <class Tile>
__device__ __forceinline__ ChunkWarp find_warp(const ChunkParams& params, const ChunkPlace& place,
                                               int32_t warp, int32_t round) {
    const int32_t warp_op = params.warps_k.quotient(warp), warp_p = params.warps_o.quotient(warp_op);
    ChunkWarp found;
    found.first = warp_op * params.warps_k.divisor;
    found.k = warp - found.first;
    found.o = (warp_op - warp_p * params.warps_o.divisor) * Tile::kThreadO;
    found.row = (round * params.warps_p + warp_p) * static_cast<int32_t>(kChunkP);
    found.rows = place.outputs - found.o;
    found.active = warp_p < params.warps_p && found.rows > 0 &&
                   (params.samples.divisor > 1
                        ? found.row < place.samples * static_cast<int32_t>(params.pitch.divisor)
                        : place.p_begin + found.row < params.problem.P);
    return found;
}

// Outputs to y. All threads of a block call this.
template <class Tile>
__device__ __forceinline__ void store_chunk(const ChunkParams& params, const ChunkPlace& place, int32_t round,
                                            float* bias_smem,
                                            const float (&total)[Tile::kThreadO][Tile::kThreadP]) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int32_t thread = ptx::anew(threadIdx.x);  // registers do not last for what was known of it
    const ChunkWarp warp = find_warp<Tile>(params, place, thread / 32, round);
    // Where the thread's position of index j lies in y, and whether it is there.
    const auto find = [&](int j, int64_t& offset) {
        const int32_t at = warp.row + thread % 32 + 32 * j;
        const int32_t sample = params.pitch.quotient(at);
        const int64_t p = place.p_begin + at - sample * static_cast<int32_t>(params.pitch.divisor);
        offset = sample * (problem.G * problem.O * problem.P) + p;
        return warp.active && sample < place.samples && p < problem.P;
    };
    Element* y = static_cast<Element*>(problem.y) +
                 ((place.n * problem.G + place.g) * problem.O + place.o_begin + warp.o) * problem.P;
    const int32_t warps_k = params.warps_k.divisor;
    if (warps_k > 1) {  // the sums of warps that share outputs, [warp][value][lane]
        float* const sums = bias_smem + params.w_slot + thread % 32;
        __syncthreads();  // all products have been read
#pragma unroll
        for (int value = 0; value < Tile::kValues; ++value) {
            if (warp.active)
                sums[((warp.first + warp.k) * Tile::kValues + value) * 32] =
                    total[value / Tile::kThreadP][value % Tile::kThreadP];
        }
        __syncthreads();
#pragma unroll 1
        for (int value = warp.k; value < Tile::kValues; value += warps_k) {
            const int i = value / Tile::kThreadP;
            int64_t offset;
            if (!find(value % Tile::kThreadP, offset) || i >= warp.rows) continue;
            float sum = bias_smem[warp.o + i];
            for (int k = 0; k < warps_k; ++k)
                sum += sums[((warp.first + k) * Tile::kValues + value) * 32];
            y[i * problem.P + offset] = problem.activation == Activation::none
                                            ? narrow<Element>(sum)
                                            : activate<Element, true>(problem.activation, sum);
        }
        return;
    }
    int64_t first, offset;
    int32_t step[Tile::kThreadP];  // from index 0 on
    bool valid[Tile::kThreadP];
    valid[0] = find(0, first);
    step[0] = 0;
#pragma unroll
    for (int j = 1; j < Tile::kThreadP; ++j) {
        valid[j] = find(j, offset);
        step[j] = static_cast<int32_t>(offset - first);
    }
    y += first;
#pragma unroll
    for (int i = 0; i < Tile::kThreadO; ++i) {
        if (i >= warp.rows) break;
        const float bias = bias_smem[warp.o + i];
#pragma unroll
        for (int j = 0; j < Tile::kThreadP; ++j) {
            if (valid[j]) y[step[j]] = narrow<Element>(total[i][j] + bias);
        }
        y += problem.P;
    }
    if (problem.activation == Activation::none) return;
#pragma unroll 1
    for (int i = 0; i < min(warp.rows, Tile::kThreadO); ++i) {  // reads back what this thread has stored
        y -= problem.P;
#pragma unroll
        for (int j = 0; j < Tile::kThreadP; ++j) {
            if (valid[j]) y[step[j]] = activate<Element, true>(problem.activation, widen(y[step[j]]));
        }
    }
}

template <class Tile>
__global__ void __launch_bounds__(kThreads, Tile::kBlocks - kFewerBlocks)
    direct_chunk_kernel(const __grid_constant__ ChunkParams params) {
    using Element = typename Tile::Element;
    extern __shared__ __align__(16) unsigned char smem[];
    float* const bias_smem = reinterpret_cast<float*>(smem);
    int32_t* const slots_smem = reinterpret_cast<int32_t*>(bias_smem + params.w_pitch);  // [product]
    float* const w_smem = bias_smem + params.w_slot;                                    // [product][w_pitch]

    const Problem& problem = params.problem;
    bool ready = false;  // whether bias and slots lie in shared memory
#pragma unroll 1
    for (int32_t round = 0; round < params.rounds; ++round) {
        const ChunkWarp warp = find_warp<Tile>(params, find_place(params), threadIdx.x / 32, round);
        // Taps of a piece that meet nothing but padding add nothing.
        const auto meets = [&](int32_t tap) {
            const int64_t p = params.samples.divisor > 1 ? 0 : find_place(params).p_begin + warp.row;
            const int64_t l = p * problem.stride - problem.pad_left + tap * problem.dilation;
            return l < problem.L && l + kChunkP * problem.stride + (params.piece - 1) * problem.dilation > 0;
        };
        float total[Tile::kThreadO][Tile::kThreadP] = {};
        int32_t piece = 0;  // modulo warps_k
#pragma unroll 1
        for (int32_t chunk = 0; chunk < params.chunks; ++chunk) {
            const int32_t run = params.tap_chunks.quotient(chunk), channel = run * params.channels;
            const int32_t chunk_taps = params.taps.divisor;
            const int32_t tap = (chunk - run * params.tap_chunks.divisor) * chunk_taps;
            const int32_t channels = min(static_cast<int32_t>(problem.C) - channel, params.channels);
            const int32_t taps = min(static_cast<int32_t>(problem.K) - tap, chunk_taps);
            const int32_t products = channels * taps;
            if (round == 0) {
                const ChunkPlace place = find_place(params);
                const int64_t l_begin =
                    place.p_begin * problem.stride - problem.pad_left + tap * problem.dilation;
                const int64_t l_end = l_begin + params.line_rows * problem.stride +
                                      int64_t{taps - 1} * problem.dilation;
                const bool needed = l_end > 0 && l_begin < problem.L;
                if (!needed && (ready || chunk + 1 < params.chunks)) {
                    piece += params.chunk_pieces;
                    continue;
                }
                __syncthreads();  // the chunk before has been read
                fill_chunk_w<Tile>(params, place, channel, tap, products, bias_smem);
                fill_chunk_x<Tile>(params, place, channel, tap, channels, bias_smem);
                if (!ready) {
                    for (int32_t i = threadIdx.x; i < params.chunk_pieces * kPieceSize; i += params.threads) {
                        const int32_t index = i / kPieceSize, group = params.group_pieces.quotient(index);
                        const int32_t part = index - group * params.group_pieces.divisor;
                        const int32_t in_group = part * params.piece + i % kPieceSize;
                        if (i % kPieceSize < params.piece && in_group < params.group)
                            slots_smem[i] = 4 * params.slot_of(group * params.group + in_group);
                    }
                    if (static_cast<int32_t>(threadIdx.x) < place.outputs) {
                        const Element* const bias = static_cast<const Element*>(problem.bias) +
                                                    place.g * problem.O + place.o_begin + threadIdx.x;
                        bias_smem[threadIdx.x] = problem.bias != nullptr ? widen(*bias) : 0.0f;
                    }
                    ready = true;
                }
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
                ptx::cp_async_wait_all();
#endif
                __syncthreads();
            }
            if (!warp.active) continue;
            const int32_t* slots = slots_smem;
            for (int32_t begin = 0; begin < products; begin += params.group) {
                const int32_t end = min(begin + params.group, products);
                for (int32_t at = begin; at < end; at += params.piece, ++piece, slots += kPieceSize) {
                    if ((piece & (params.warps_k.divisor - 1)) != warp.k) continue;
                    if (params.piece < params.group && !meets(tap + at - begin)) continue;
                    multiply_piece<Tile>(params, bias_smem + warp.row + threadIdx.x % 32, slots,
                                         w_smem + at * params.w_pitch + warp.o,
                                         min(params.piece, end - at), total);
                }
            }
        }
        store_chunk<Tile>(params, find_place(params), round, bias_smem, total);
    }
}

// The pieces that sums of C*K products are cut into: whole channels, or equal parts of one's taps.
struct Pieces {
    int64_t channels, taps;
    int64_t parts;     // of a channel's taps
    int64_t met_taps;  // that a warp's positions meet, the others lie in padding
};
inline Pieces plan_pieces(const Problem& problem) {
    const int64_t parts = ceil_div(problem.K, kPieceSize);
    const int64_t channels = std::min(std::max(kPieceSize / problem.K, int64_t{1}), problem.C);
    const int64_t met = ceil_div(problem.L + kChunkP * problem.stride, problem.dilation);
    return {channels, ceil_div(problem.K, parts), parts, std::min(met, problem.K)};
}

// Warps that share the pieces of the same outputs: so many that one sample makes some work for each
// multiprocessor. Not by the number of samples: a sample's sums must not depend on others.
inline int32_t plan_warps_k(const Problem& problem) {
    const Pieces plan = plan_pieces(problem);
    const int64_t pieces = ceil_div(problem.C, plan.channels) * ceil_div(plan.met_taps, plan.taps);
    const int64_t warps = ceil_div(problem.O, 4) * ceil_div(problem.P, kChunkP) * problem.G;
    const int64_t sms = problem.device.sm_count;
    const auto is_few = [&](int64_t warps_k) {
        return (2 * warps_k <= pieces && warps * warps_k < 2 * sms) ||
               (8 * warps_k <= pieces && warps * warps_k < 8 * sms);
    };
    int32_t warps_k = 1;
    while (warps_k < kWarps && is_few(warps_k)) warps_k *= 2;
    return warps_k;
}

// tiles is 0 where the problem does not suit.
template <class Tile>
ChunkParams plan_chunk(const Problem& problem) {
    ChunkParams params{};
    params.problem = problem;
    if (problem.C * problem.K > 1 << 20 || problem.stride > 4096 || problem.dilation > 4096) return params;
    const Pieces pieces = plan_pieces(problem);
    const int64_t warps_k = plan_warps_k(problem);
    params.warps_k = plan_divisor(warps_k);
    // As many output channels a block as leave few of the last block's empty.
    const int64_t channel_warps = ceil_div(problem.O, Tile::kThreadO);
    int64_t warps_o = std::min(kWarps / warps_k, channel_warps);
    while (warps_o > 1 && 8 * round_up(channel_warps, warps_o) > 9 * channel_warps) --warps_o;
    const int64_t cycle = problem.stride / std::gcd(problem.stride, problem.dilation);

    // Whether chunks of so many channels and taps fit.
    const int64_t room = std::min<int64_t>(problem.device.smem_bytes, 72 * 1024) / 4;
    const auto set = [&](int64_t warps_p, int64_t rounds, int64_t channels, int64_t taps) {
        const int64_t tile_rows = warps_p * rounds * kChunkP;
        params.dense = cycle == problem.stride && taps >= problem.stride;
        params.cycle = plan_divisor(cycle);
        params.cycle_rows =
            static_cast<int32_t>(params.dense ? 1 : cycle * problem.dilation / problem.stride);
        const int64_t planes = std::min(taps, cycle);
        const int64_t reach = (taps - 1) * (params.dense ? problem.dilation : 1);
        const int64_t turns = reach / cycle * params.cycle_rows;
        const int64_t short_rows = problem.P + turns;
        const bool flat = 2 * short_rows <= tile_rows;
        const int64_t samples = flat ? std::min(tile_rows / short_rows, problem.N) : 1;
        const int64_t line_rows = std::min(tile_rows, problem.P) + turns;
        const int64_t pitch = samples > 1 ? short_rows : tile_rows + turns;
        const int64_t rows = std::max((samples - 1) * pitch + line_rows, tile_rows + turns);
        const int64_t plane_rows = round_up(rows, 32) + (planes > 1 ? ceil_div(32, planes) : 0);
        const int64_t items = channels * samples * planes * line_rows;
        params.warps_o = plan_divisor(warps_o);
        params.w_pitch = static_cast<int32_t>(warps_o * Tile::kThreadO + 4);
        params.warps_p = static_cast<int32_t>(warps_p);
        params.rounds = static_cast<int32_t>(rounds);
        params.channels = static_cast<int32_t>(channels);
        const int64_t tap_chunks = ceil_div(problem.K, taps);
        params.taps = plan_divisor(taps);
        params.tap_chunks = plan_divisor(tap_chunks);
        params.chunks = static_cast<int32_t>(ceil_div(problem.C, channels) * tap_chunks);
        params.group = static_cast<int32_t>(problem.K > kPieceSize ? taps : pieces.channels * problem.K);
        params.piece = static_cast<int32_t>(problem.K > kPieceSize ? pieces.taps : params.group);
        params.group_pieces = plan_divisor(ceil_div(params.group, params.piece));
        params.chunk_pieces = static_cast<int32_t>(ceil_div(taps, pieces.taps) *
                                                    ceil_div(channels, pieces.channels));
        params.planes = plan_divisor(planes);
        params.plane_step = static_cast<int32_t>(params.dense ? 1 : problem.dilation);
        params.plane_rows = static_cast<int32_t>(plane_rows);
        params.channel_slots = static_cast<int32_t>(planes * plane_rows);
        params.line_rows = static_cast<int32_t>(line_rows);
        params.samples = plan_divisor(samples);
        params.pitch = plan_divisor(pitch);
        params.w_slot = params.w_pitch + params.chunk_pieces * kPieceSize;
        params.x_slot = static_cast<int32_t>(params.w_slot + channels * taps * params.w_pitch);
        const int64_t o_tiles = ceil_div(problem.O, params.w_pitch - 4);
        const int64_t p_tiles = samples > 1 ? 1 : ceil_div(problem.P, tile_rows);
        params.tiles = o_tiles * p_tiles * problem.G * ceil_div(problem.N, samples);
        params.o_tiles = plan_index_divisor(o_tiles);
        params.p_tiles = plan_index_divisor(p_tiles);
        params.g_tiles = plan_index_divisor(problem.G);
        const int64_t warps = warps_o * warps_p * warps_k;
        const int64_t sums = warps_k > 1 ? warps * Tile::kValues * 32 : 0;
        const int64_t slots = std::max(params.x_slot + channels * planes * plane_rows, params.w_slot + sums);
        params.smem_bytes = slots * 4;
        // Warps that only bring, so that no thread brings more than some 16 elements.
        const int64_t all_items = items + channels * taps * warps_o * Tile::kThreadO;
        const int64_t block_warps = std::max(warps, std::min<int64_t>(kWarps, ceil_div(all_items, 512)));
        params.threads = static_cast<int32_t>(32 * block_warps);
        const int64_t quads = std::min(warps_o * Tile::kThreadO / 4, block_warps);
        params.step_quads = plan_divisor(quads);
        params.step_eights = static_cast<int32_t>(block_warps / quads);
        return slots <= room && reach * cycle <= INT32_MAX &&
               samples * problem.G * problem.O * problem.P <= INT32_MAX;
    };
    // How threads share x: equal parts of as many lines as leave few threads idle; several parts, of 32
    // elements or more, so that as many elements are in flight.
    const auto share = [&] {
        const int64_t threads = params.threads, planes = params.planes.divisor, line_rows = params.line_rows;
        const int64_t all_lines = int64_t{params.channels} * params.samples.divisor;
        const int64_t fewest = ceil_div(line_rows * planes, threads);
        int64_t most = 0;
        for (int64_t parts = fewest; parts <= std::max<int64_t>(fewest + 3, Tile::kBatch); ++parts) {
            const int64_t rows = ceil_div(line_rows, parts);
            if (parts > fewest + 3 && rows * planes < 32) break;
            const int64_t lines = std::min(threads / (rows * planes), all_lines);
            const int64_t active = lines * line_rows / parts;
            if (8 * active <= 7 * most) continue;
            most = std::max(most, active);
            params.step_rows = plan_divisor(rows);
            params.parts = static_cast<int32_t>(ceil_div(line_rows, rows));
            params.step_lines = static_cast<int32_t>(lines);
        }
        return most > 0;
    };
    // All of the reduction, or else as many channels, or as many parts of one channel's taps, as fit.
    const auto cut = [&](int64_t warps_p) {
        const bool padded = pieces.parts > 1 && problem.K > 2 * pieces.met_taps;
        for (int64_t count = 1; !padded && count <= ceil_div(problem.C, pieces.channels); ++count) {
            const int64_t channels = round_up(ceil_div(problem.C, count), pieces.channels);
            if (set(warps_p, 1, std::min(channels, problem.C), problem.K)) return true;
        }
        const int64_t least = padded ? 2 * problem.K / pieces.met_taps : 2;  // so that chunks can be left out
        for (int64_t count = std::min(least, pieces.parts); pieces.parts > 1; ++count) {
            if (set(warps_p, 1, 1, ceil_div(pieces.parts, count) * pieces.taps)) return true;
            if (count >= pieces.parts) break;
        }
        return false;
    };
    // No more positions a block than there are.
    const int64_t rows = 2 * problem.P > kChunkP
                             ? problem.P
                             : problem.N * (problem.P + (problem.K - 1) * problem.dilation / problem.stride);
    const int64_t row_warps = ceil_div(rows, kChunkP);
    int64_t warps_p = std::min(kWarps / (warps_k * warps_o), row_warps);
    warps_p = ceil_div(row_warps, ceil_div(row_warps, warps_p));
    // Fewer where that brings all at once.
    if (problem.C * problem.K <= kPieceProducts) {
        int64_t fewer = warps_p;
        while (fewer > 1 && !set(fewer, 1, problem.C, problem.K)) fewer /= 2;
        if (set(fewer, 1, problem.C, problem.K)) warps_p = fewer;
    }
    while (!cut(warps_p)) {
        if (warps_p == 1) {
            params.tiles = 0;
            return params;
        }
        warps_p /= 2;
    }
    // Smaller blocks where multiprocessors would have less than two, or none.
    while (params.tiles < 2 * problem.device.sm_count) {
        const bool very_few = 4 * params.tiles < 3 * problem.device.sm_count;
        if (warps_p > 1) warps_p = ceil_div(warps_p, 2);
        else if (warps_o > 1 && very_few) warps_o = ceil_div(warps_o, 2);
        else break;
        cut(warps_p);
    }
    // More rounds share one filling while four waves of blocks remain.
    if (params.chunks == 1 && warps_k == 1) {
        int64_t rounds = 1;
        while (rounds < kWarps && warps_p * rounds * kChunkP < problem.P &&
               set(warps_p, 2 * rounds, problem.C, problem.K) && params.smem_bytes <= kPlainSmemBytes &&
               params.tiles >= 8 * problem.device.sm_count)
            rounds *= 2;
        set(warps_p, rounds, problem.C, problem.K);
    }
    if (params.tiles > kMaxBlocks || !share()) params.tiles = 0;
    return params;
}

template <class Tile>
Error launch_chunk(const ChunkParams& params, cudaStream_t stream) {
    if (params.smem_bytes > kPlainSmemBytes) {
        const Error error = allow_smem<direct_chunk_kernel<Tile>>(params.problem.device);
        if (error != nullptr) return error;
    }
    direct_chunk_kernel<Tile>
        <<<static_cast<unsigned>(params.tiles), params.threads, params.smem_bytes, stream>>>(params);
    return launch_error();
}

template <class Element>
Error launch_element(const Problem& problem, cudaStream_t stream) {
    if constexpr (std::is_same<Element, double>::value) {
        if (problem.O <= 4) return launch_tile<Tile<double, 2, 2>>(problem, stream);
        return launch_tile<Tile<double, 4, 8>>(problem, stream);
    } else {
        if (problem.C * problem.K <= kPieceProducts || problem.C < 16 || problem.O <= 32) {
            // Tiles of 8 channels where there are enough of them, and they leave fewer empty.
            const int64_t wide_warps = ceil_div(problem.O, 8) * ceil_div(problem.P, kChunkP) * problem.G *
                                       problem.N * plan_warps_k(problem);
            const bool narrow = 8 * round_up(problem.O, 4) < 7 * round_up(problem.O, 8) ||
                                wide_warps < 8 * problem.device.sm_count;
            using Narrow = ChunkTile<Element, 4>;
            using Wide = ChunkTile<Element, 8>;
            const ChunkParams params = narrow ? plan_chunk<Narrow>(problem) : plan_chunk<Wide>(problem);
            if (params.tiles > 0)
                return narrow ? launch_chunk<Narrow>(params, stream) : launch_chunk<Wide>(params, stream);
        }
        if (problem.O <= 16) return launch_tile<Tile<Element, 4, 4>>(problem, stream);
        return launch_tile<Tile<Element, 8, 8>>(problem, stream);
    }
}

}  // namespace direct

inline bool fits_direct(const Problem&) { return true; }

inline Error launch_direct(const Problem& any_problem, cudaStream_t stream) {
    const Problem problem = canonical(any_problem);
    switch (problem.dtype) {
        case Dtype::float32:
            return direct::launch_element<float>(problem, stream);
        case Dtype::float64:
            return direct::launch_element<double>(problem, stream);
        case Dtype::float16:
            return direct::launch_element<__half>(problem, stream);
        default:
            return direct::launch_element<__nv_bfloat16>(problem, stream);
    }
}

}  // namespace conv1d
''',
"direct.cu": r'''
#line 1 "kernels/direct.cu"
// The translation unit of route "direct".



const conv1d::Route conv1d::kDirect = {"direct", fits_direct, no_workspace, launch_direct};
''',
"wgmma.cuh": r'''
#line 1 "kernels/wgmma.cuh"
// wgmma.mma_async (PTX ISA 9.0, section 9.7.15.5.2): D[64][N] (+)= A[64][k] * B[k][N]^T, both operands
// K-major in shared memory, D in registers: thread t of the warpgroup holds rows 16*(t/32) + t%32/4 (+ 8) and
// columns 8*j + 2*(t%4) (+ 1) as d[4*j + 2*(row half) + (column parity)].

#include <cstdint>

namespace conv1d {

enum class Operand { tf32, f16, bf16 };

// Issues one product of 32 bytes of K; `acc` false overwrites d.
template <Operand kOperand, int kN>
struct Wgmma;

// The same with A in registers: of its row of 32 bytes in four-byte words, thread t holds words t%4 of rows
// 16*(t/32) + t%32/4 and that + 8, then words t%4 + 4 of both.
template <Operand kOperand, int kN>
struct WgmmaFromRegisters;

// clang-format off
#define CONV1D_WGMMA_D32 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define CONV1D_WGMMA_OUT32 \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
    "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15])
#define CONV1D_WGMMA_D64 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define CONV1D_WGMMA_OUT64 \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
    "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), \
    "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
    "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
#define CONV1D_WGMMA_D128 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define CONV1D_WGMMA_OUT128 \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
    "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), \
    "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
    "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), \
    "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), \
    "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), \
    "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), \
    "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
#define CONV1D_WGMMA_D192 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, " \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define CONV1D_WGMMA_OUT192 \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
    "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), \
    "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
    "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), \
    "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), \
    "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), \
    "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), \
    "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63]), \
    "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67]), "+f"(d[68]), "+f"(d[69]), "+f"(d[70]), "+f"(d[71]), \
    "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]), "+f"(d[77]), "+f"(d[78]), "+f"(d[79]), \
    "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83]), "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87]), \
    "+f"(d[88]), "+f"(d[89]), "+f"(d[90]), "+f"(d[91]), "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95])
#define CONV1D_WGMMA_D256 CONV1D_WGMMA_D192 \
    ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define CONV1D_WGMMA_OUT256 CONV1D_WGMMA_OUT192, \
    "+f"(d[96]), "+f"(d[97]), "+f"(d[98]), "+f"(d[99]), "+f"(d[100]), "+f"(d[101]), "+f"(d[102]), \
    "+f"(d[103]), "+f"(d[104]), "+f"(d[105]), "+f"(d[106]), "+f"(d[107]), "+f"(d[108]), "+f"(d[109]), \
    "+f"(d[110]), "+f"(d[111]), "+f"(d[112]), "+f"(d[113]), "+f"(d[114]), "+f"(d[115]), "+f"(d[116]), \
    "+f"(d[117]), "+f"(d[118]), "+f"(d[119]), "+f"(d[120]), "+f"(d[121]), "+f"(d[122]), "+f"(d[123]), \
    "+f"(d[124]), "+f"(d[125]), "+f"(d[126]), "+f"(d[127])
#define CONV1D_WGMMA_D72 CONV1D_WGMMA_D64 ", %32, %33, %34, %35"
#define CONV1D_WGMMA_OUT72 CONV1D_WGMMA_OUT64, "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35])
#define CONV1D_WGMMA_D80 CONV1D_WGMMA_D72 ", %36, %37, %38, %39"
#define CONV1D_WGMMA_OUT80 CONV1D_WGMMA_OUT72, "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39])
#define CONV1D_WGMMA_D136 CONV1D_WGMMA_D128 ", %64, %65, %66, %67"
#define CONV1D_WGMMA_OUT136 CONV1D_WGMMA_OUT128, "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67])
#define CONV1D_WGMMA_D144 CONV1D_WGMMA_D136 ", %68, %69, %70, %71"
#define CONV1D_WGMMA_OUT144 CONV1D_WGMMA_OUT136, "+f"(d[68]), "+f"(d[69]), "+f"(d[70]), "+f"(d[71])
#define CONV1D_WGMMA_FROM_REGISTERS(OPERAND, N, SHAPE, TYPES, A0, A1, A2, A3, B, ACC, TRANSPOSE)        \
    template <>                                                                                         \
    struct WgmmaFromRegisters<Operand::OPERAND, N> {                                                    \
        static __device__ __forceinline__ void issue(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, \
                                                     bool acc) {                                        \
            asm volatile(                                                                               \
                "{\n.reg .pred p;\nsetp.ne.b32 p, %" ACC ", 0;\n"                                       \
                "wgmma.mma_async.sync.aligned." SHAPE ".f32." TYPES                                     \
                " {" CONV1D_WGMMA_D##N "}, {%" A0 ", %" A1 ", %" A2 ", %" A3 "}, %" B                   \
                ", p, 1, 1" TRANSPOSE ";\n}"                                                            \
                : CONV1D_WGMMA_OUT##N                                                                   \
                : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(acc)));      \
        }                                                                                               \
    };

#define CONV1D_WGMMA(OPERAND, N, SHAPE, TYPES, A, B, ACC, TRANSPOSE)                                     \
    template <>                                                                                         \
    struct Wgmma<Operand::OPERAND, N> {                                                                 \
        static __device__ __forceinline__ void issue(float (&d)[N / 2], uint64_t a, uint64_t b, bool acc) { \
            asm volatile(                                                                               \
                "{\n.reg .pred p;\nsetp.ne.b32 p, %" ACC ", 0;\n"                                       \
                "wgmma.mma_async.sync.aligned." SHAPE ".f32." TYPES                                     \
                " {" CONV1D_WGMMA_D##N "}, %" A ", %" B ", p, 1, 1" TRANSPOSE ";\n}"                    \
                : CONV1D_WGMMA_OUT##N                                                                   \
                : "l"(a), "l"(b), "r"(static_cast<int>(acc)));                                          \
        }                                                                                               \
    };

CONV1D_WGMMA(tf32, 64, "m64n64k8", "tf32.tf32", "32", "33", "34", "")
CONV1D_WGMMA(f16, 64, "m64n64k16", "f16.f16", "32", "33", "34", ", 0, 0")
CONV1D_WGMMA(bf16, 64, "m64n64k16", "bf16.bf16", "32", "33", "34", ", 0, 0")
CONV1D_WGMMA(tf32, 128, "m64n128k8", "tf32.tf32", "64", "65", "66", "")
CONV1D_WGMMA(f16, 128, "m64n128k16", "f16.f16", "64", "65", "66", ", 0, 0")
CONV1D_WGMMA(bf16, 128, "m64n128k16", "bf16.bf16", "64", "65", "66", ", 0, 0")
CONV1D_WGMMA(tf32, 192, "m64n192k8", "tf32.tf32", "96", "97", "98", "")
CONV1D_WGMMA(f16, 192, "m64n192k16", "f16.f16", "96", "97", "98", ", 0, 0")
CONV1D_WGMMA(bf16, 192, "m64n192k16", "bf16.bf16", "96", "97", "98", ", 0, 0")

CONV1D_WGMMA_FROM_REGISTERS(f16, 32, "m64n32k16", "f16.f16", "16", "17", "18", "19", "20", "21", ", 0")
CONV1D_WGMMA_FROM_REGISTERS(tf32, 64, "m64n64k8", "tf32.tf32", "32", "33", "34", "35", "36", "37", "")
CONV1D_WGMMA_FROM_REGISTERS(bf16, 64, "m64n64k16", "bf16.bf16", "32", "33", "34", "35", "36", "37", ", 0")
CONV1D_WGMMA_FROM_REGISTERS(tf32, 128, "m64n128k8", "tf32.tf32", "64", "65", "66", "67", "68", "69", "")
CONV1D_WGMMA_FROM_REGISTERS(bf16, 128, "m64n128k16", "bf16.bf16", "64", "65", "66", "67", "68", "69", ", 0")
CONV1D_WGMMA_FROM_REGISTERS(f16, 64, "m64n64k16", "f16.f16", "32", "33", "34", "35", "36", "37", ", 0")
CONV1D_WGMMA_FROM_REGISTERS(f16, 128, "m64n128k16", "f16.f16", "64", "65", "66", "67", "68", "69", ", 0")
CONV1D_WGMMA_FROM_REGISTERS(tf32, 72, "m64n72k8", "tf32.tf32", "36", "37", "38", "39", "40", "41", "")
CONV1D_WGMMA_FROM_REGISTERS(f16, 80, "m64n80k16", "f16.f16", "40", "41", "42", "43", "44", "45", ", 0")
CONV1D_WGMMA_FROM_REGISTERS(bf16, 80, "m64n80k16", "bf16.bf16", "40", "41", "42", "43", "44", "45", ", 0")
CONV1D_WGMMA_FROM_REGISTERS(tf32, 136, "m64n136k8", "tf32.tf32", "68", "69", "70", "71", "72", "73", "")
CONV1D_WGMMA_FROM_REGISTERS(f16, 144, "m64n144k16", "f16.f16", "72", "73", "74", "75", "76", "77", ", 0")
CONV1D_WGMMA_FROM_REGISTERS(bf16, 144, "m64n144k16", "bf16.bf16", "72", "73", "74", "75", "76", "77", ", 0")
CONV1D_WGMMA_FROM_REGISTERS(
    f16, 256, "m64n256k16", "f16.f16", "128", "129", "130", "131", "132", "133", ", 0")
CONV1D_WGMMA_FROM_REGISTERS(
    bf16, 256, "m64n256k16", "bf16.bf16", "128", "129", "130", "131", "132", "133", ", 0")

#undef CONV1D_WGMMA
#undef CONV1D_WGMMA_FROM_REGISTERS
#undef CONV1D_WGMMA_D32
#undef CONV1D_WGMMA_OUT32
#undef CONV1D_WGMMA_D72
#undef CONV1D_WGMMA_OUT72
#undef CONV1D_WGMMA_D80
#undef CONV1D_WGMMA_OUT80
#undef CONV1D_WGMMA_D136
#undef CONV1D_WGMMA_OUT136
#undef CONV1D_WGMMA_D144
#undef CONV1D_WGMMA_OUT144
#undef CONV1D_WGMMA_D256
#undef CONV1D_WGMMA_OUT256
#undef CONV1D_WGMMA_D64
#undef CONV1D_WGMMA_OUT64
#undef CONV1D_WGMMA_D128
#undef CONV1D_WGMMA_OUT128
#undef CONV1D_WGMMA_D192
#undef CONV1D_WGMMA_OUT192
// clang-format on

}  // namespace conv1d
''',
"gemm_sm90_plan.cuh": r'''
#line 1 "kernels/gemm_sm90_plan.cuh"
// How the Hopper GEMM (gemm_sm90.cuh) cuts a problem: its precision modes, the memory plan of a block, the
// tiles. Pure functions of the problem's numbers; no kernel here.

#include <algorithm>
#include <type_traits>





namespace conv1d {
namespace sm90 {

// One position's channels: 8 pieces of 16 bytes, swizzled by the row's index mod 8.
constexpr int kRowBytes = 128;
constexpr int kWarpgroupO = 64;   // output channels of a product warpgroup
constexpr int kTileO = 2 * kWarpgroupO;
constexpr int kProductWarps = 8;  // two warpgroups
constexpr int kConverterWarps = 7;
constexpr int kThreads = 32 * (kProductWarps + kConverterWarps + 1);  // and one warp for tickets and weights
constexpr int kTileSlots = 4;  // tiles announced ahead; with 2, converters waited for 39 % of kb67
constexpr int kTileCounters = 2 * kTileSlots;  // a tile in work may be kTileSlots behind the one announced
constexpr int kMaxStages = 12;
constexpr int kReservedBytes = 1024;  // of shared memory, that the system keeps of each block
constexpr int kLeanBytes = (196 << 10) - kReservedBytes;  // a block's: they leave 60 KB of L1 cache
constexpr int kMostRest = 4;  // rows of a folded window that are not worth a batch of their own

// Two modes keep the accuracy of fp32: f16x3 splits each operand into two fp16 numbers, tf32x3 into two TF32
// ones, at half the speed but for all magnitudes. Tiles whose x or w f16x3 cannot hold are done again by
// tf32x3.
enum class Mode { tf32, tf32x3, f16x3, f16, bf16 };

template <Mode kMode>
struct ModeTraits {
    static constexpr bool kIsTf32 = kMode == Mode::tf32 || kMode == Mode::tf32x3;
    static constexpr bool kIsFloat = kIsTf32 || kMode == Mode::f16x3;  // x, w and y are fp32
    // A row holds the high parts, then the low parts.
    static constexpr bool kIsSplit = kMode == Mode::tf32x3 || kMode == Mode::f16x3;
    static constexpr Operand kOperand = kIsTf32               ? Operand::tf32
                                        : kMode == Mode::bf16 ? Operand::bf16
                                                              : Operand::f16;
    static constexpr int kPieceChannels = kIsTf32 ? 4 : 8;           // channels in 16 bytes
    static constexpr int kPieces = kIsSplit ? 4 : 8;                 // pieces of a row that carry channels
    static constexpr int kChunkChannels = kPieces * kPieceChannels;  // channels in a row
    static constexpr int kSteps = kPieces / 2;  // products of 32 bytes of channels in a row
    using Bits = std::conditional_t<kIsFloat, uint32_t, uint16_t>;        // of one element of x, w and y
    using BitsPair = std::conditional_t<kIsFloat, uint2, uint32_t>;
    static constexpr int kElementBytes = sizeof(Bits);
    // Of a staged row of D, in elements: room for a sector offset, and no bank conflicts between eight rows.
    static __host__ __device__ constexpr int stage_pitch(int columns) {
        return columns + (kIsFloat ? 8 : 24);
    }
    static __host__ __device__ constexpr int warp_staging_bytes(int columns) {
        return 8 * stage_pitch(columns) * static_cast<int>(sizeof(Bits));
    }
};

// Which neighbours of x one load takes. Each has kernels of its own: with two in one kernel, either ran 5 to
// 20 % slower.
enum class Layout {
    positions,      // of a channel, as contiguous x has them
    channels_last,  // channels of a position
    folded,         // the positions of a channel that become its folded channels
};

// At a stride of 8 the taps of a window reach up to 8 planes of x, which leave room for few columns. So the 8
// positions between two outputs become channels: l = 8*q + r - pad_left, channel c becomes 8*c + r of a
// convolution over q, tap k becomes tap k / 8 of channel 8*c + k % 8, the stride 1. Taps that K lacks to a
// multiple of 8 have weights of zero; sums that are NaN for one of those times infinity are mended.
constexpr int kFold = 8;

// Not where more than a third of the folded weights would be such zeros, nor where a sample fills no tile.
inline bool folds(const Problem& problem) {
    return problem.stride == kFold && problem.dilation == 1 && problem.x_stride_l == 1 && problem.P >= 96 &&
           round_up(problem.K, kFold) * 2 <= problem.K * 3 && problem.C < (int64_t{1} << 27);
}

// What the two product warpgroups take of a tile.
enum class Share : int32_t {
    channels,  // 64 output channels each of the same columns
    columns,   // the same 64 channels of neighbouring columns
    none       // the first takes all of it, 64 channels: for tiles too few to occupy all multiprocessors
};

// The shape of tiles.
struct Tiling {
    int columns;  // of a product warpgroup
    bool flat;    // tiles run over all samples' rows in a line; else each lies in one sample
    Share share;
    bool leads = true;  // columns are computed twice where stores then begin on sectors
};

// THE lists of tiles: ROW(mode, columns).
#define CONV1D_SM90_FP32_TILES(ROW) \
    ROW(tf32, 192)                  \
    ROW(tf32, 128)                  \
    ROW(tf32, 64)                   \
    ROW(tf32x3, 128)                \
    ROW(tf32x3, 64)                 \
    ROW(f16x3, 128)                 \
    ROW(f16x3, 64)
#define CONV1D_SM90_16BIT_TILES(ROW) \
    ROW(f16, 192)                    \
    ROW(f16, 128)                    \
    ROW(f16, 64)                     \
    ROW(bf16, 192)                   \
    ROW(bf16, 128)                   \
    ROW(bf16, 64)
#define CONV1D_SM90_TILES(ROW)  \
    CONV1D_SM90_FP32_TILES(ROW) \
    CONV1D_SM90_16BIT_TILES(ROW)

// How one launch cuts its problem; written by the host, read by every role.
struct Geometry {
    int32_t folded;                              // 1: the four below are those of the folded problem
    int32_t channels, taps, stride, dilation;
    int32_t rows_per_sample;   // flat: a sample's rows on the common row axis, outputs and then halo
    uint32_t stride_magic;     // ceil(2^32 / stride)
    uint32_t rows_magic;       // ceil(2^32 / rows_per_sample) where that is small
    int32_t flat;              // as in Tiling
    Share share;
    int32_t tile_o;            // output channels of a tile
    int32_t weight_bytes;      // of a tile's weights of one tap and one chunk of channels
    int32_t tiles_per_sample;  // of one sample; of the whole batch where flat
    int32_t lead;              // columns computed for stores to begin on a 32-byte sector: 0, 8 or 16
    uint32_t offset_mask;      // elements of a sector, or, without a lead, of 16 bytes, less one
    int32_t advance;           // columns stored by a warpgroup: kN - lead
    int32_t tile_advance;      // columns stored by a tile: advance, twice where warpgroups lie side by side
    int32_t tiles;             // of the whole problem
    int32_t o_tiles;           // of one group
    int32_t chunks;            // of channels
    int32_t tap_groups;        // taps that share one window, ceil(K / taps_per_group) times
    int32_t taps_per_group;
    int32_t window;   // positions of x: (the tile's columns - 1)*stride + (taps_per_group - 1)*dilation + 1
    int32_t channels_last;  // 1: neighbouring channels of x can be loaded together, 16 bytes at once
    int32_t planes;         // where only positions of planes that some tap reads are loaded: how many; else 0
    int32_t pairs;          // 1: two neighbouring positions of x are loaded together
    int32_t ragged;   // 1: they are, though rows may begin at odd elements
    int32_t batches;  // of conversion in a stage
    int32_t batch_positions;
    int32_t rest;     // folded: rows behind the last batch, which its warp converts as well
    int32_t x_stride_c, x_stride_l;
    int32_t plane_rows;   // distance between planes, in rows
    uint32_t plane_mask;  // planes that some tap reads
    int32_t x_stages, x_stage_bytes;
    int32_t w_stages;
    int32_t by_steps;  // 1: weights are packed step by step, see pack_staged
    int32_t resident;  // 1: all weights lie in shared memory for the life of the block
    int32_t smem_bytes;
};

// Shared memory, in order: x stages | weight stages | staging of D, 8 warps | barriers | announced tiles.
struct Announcement {
    int32_t tile;     // -1: no more
    int32_t counter;  // f16x3: its counter of values too small
    int32_t sample;   // of column 0
    int32_t row;      // position of column 0 in its sample, may be negative
    int32_t channel;  // first output channel of the tile inside its group
    int32_t group;
};

constexpr int kBarrierBytes = (4 * kMaxStages + 2 * kTileSlots) * 8;
constexpr int kControlBytes = kBarrierBytes + kTileSlots * static_cast<int>(sizeof(Announcement)) +
                              kTileCounters * static_cast<int>(sizeof(int32_t));

// Rows between planes, mod 8, that spread eight neighbouring positions over all banks; index: stride.
constexpr int kPlaneResidue[9] = {0, 0, 4, 3, 2, 5, 3, 7, 1};

// Cuts the problem into tiles with at most `most_taps` to a window. `tiles` is 0 where that cannot be.
template <Mode kMode>
inline Geometry cut(const Problem& given, const Tiling& tiling, int64_t most_taps) {
    using Traits = ModeTraits<kMode>;
    const bool flat = tiling.flat;
    Geometry geometry{};
    Problem problem = given;  // as products see it
    geometry.folded = folds(given);
    if (geometry.folded) {
        // The kernel has no flat tiles of folded x.
        if (flat) return Geometry{};
        problem.C = round_up(given.C * kFold, Traits::kChunkChannels);
        problem.K = ceil_div(given.K, kFold);
        problem.stride = 1;
    }
    geometry.channels = static_cast<int32_t>(problem.C);
    geometry.taps = static_cast<int32_t>(problem.K);
    geometry.stride = static_cast<int32_t>(problem.stride);
    geometry.dilation = static_cast<int32_t>(problem.dilation);
    geometry.flat = flat;
    geometry.share = tiling.share;
    geometry.tile_o = tiling.share == Share::channels ? kTileO : kWarpgroupO;
    geometry.weight_bytes = geometry.tile_o * kRowBytes;
    geometry.chunks = static_cast<int32_t>(ceil_div(problem.C, Traits::kChunkChannels));
    geometry.o_tiles = static_cast<int32_t>(ceil_div(problem.O, geometry.tile_o));
    const int64_t stride = problem.stride;
    const int64_t blocks = geometry.chunks * problem.K;
    const int other_bytes =
        kProductWarps * Traits::warp_staging_bytes(tiling.columns) + kControlBytes + 1024;
    const int free_bytes = problem.device.smem_bytes - other_bytes;

    // Rows of y that begin between sectors cost partial writes, and those between 16-byte pieces also stores
    // of elements. Where sums are long, the former cost less than columns that a lead computes twice. (The
    // same for both modes of fp32, whose tiles must be the same.)
    const int sector = 32 / Traits::kElementBytes, piece = 16 / Traits::kElementBytes;
    const bool is_short = ceil_div(problem.C, kRowBytes / Traits::kElementBytes) * problem.K <= 12;
    const bool begins_anywhere = problem.P % piece != 0 || (problem.P % sector != 0 && is_short);
    geometry.lead = tiling.leads && !flat && begins_anywhere ? sector : 0;
    geometry.offset_mask = (geometry.lead > 0 ? sector : piece) - 1;
    geometry.advance = tiling.columns - geometry.lead;
    geometry.tile_advance = geometry.advance * (tiling.share == Share::columns ? 2 : 1);
    const int columns = geometry.tile_advance + geometry.lead;  // of a tile

    // As many taps a window as leave room for two stages of x and three of weights.
    int64_t taps = most_taps < problem.K ? most_taps : problem.K, max_shift = 0;
    int32_t planes = 0;  // that some tap reads
    for (;; taps = ceil_div(taps, 2)) {
        const int64_t span = (taps - 1) * problem.dilation;
        geometry.plane_mask = 0;
        for (int64_t tap = 0; tap < taps && tap < stride; ++tap)
            geometry.plane_mask |= 1u << (tap * problem.dilation % stride);
        planes = 0;
        for (uint32_t mask = geometry.plane_mask; mask != 0; mask &= mask - 1) ++planes;
        max_shift = span / stride;
        const int64_t rows = columns + max_shift;
        int64_t plane_rows = rows;
        while (planes > 1 && stride <= 8 && plane_rows % 8 != kPlaneResidue[stride]) ++plane_rows;
        const int64_t bytes = round_up((plane_rows * (planes - 1) + rows) * kRowBytes, 1024);
        constexpr int64_t w_least = 3;
        if (2 * bytes + w_least * geometry.weight_bytes <= free_bytes) {
            geometry.window = static_cast<int32_t>((columns - 1) * stride + span + 1);
            geometry.plane_rows = static_cast<int32_t>(plane_rows);
            geometry.x_stage_bytes = static_cast<int32_t>(bytes);
            break;
        }
        if (taps == 1) return Geometry{};
    }
    geometry.tap_groups = static_cast<int32_t>(ceil_div(problem.K, taps));
    geometry.taps_per_group = static_cast<int32_t>(taps);
    const auto in_pieces = [](int64_t elements) { return elements * Traits::kElementBytes % 16 == 0; };
    geometry.channels_last = !geometry.folded && problem.x_stride_c == 1 &&
                             problem.C % Traits::kPieceChannels == 0 &&
                             (problem.L == 1 || in_pieces(problem.x_stride_l)) &&
                             (problem.N == 1 || in_pieces(problem.x_stride_n)) &&
                             reinterpret_cast<uintptr_t>(problem.x) % 16 == 0;
    // One by one, where few of a window's positions are read (ms TF32, fp32, bf16: 24x512x9000 to 256, K2 s8
    // .266, .372, .169, so .243, .259, .142; 8x256x20000 to 512, K3 s8 .196, .315, .125 and .155, .206, .121;
    // but 32x64x4000 to 128, K2 s5 .027, .038, .020 and .029, .037, .021).
    if (8 * planes <= 3 * stride && !geometry.channels_last) geometry.planes = planes;
    geometry.pairs = !flat && problem.x_stride_l == 1 && !geometry.channels_last && !geometry.folded &&
                     geometry.planes == 0;
    geometry.ragged =
        geometry.folded
            ? !(in_pieces(problem.x_stride_c | problem.x_stride_n | problem.pad_left) &&
                reinterpret_cast<uintptr_t>(problem.x) % 16 == 0)
            : geometry.pairs && (problem.L % 2 != 0 || (problem.x_stride_c | problem.x_stride_n) % 2 != 0 ||
                                 reinterpret_cast<uintptr_t>(problem.x) % (2 * Traits::kElementBytes) != 0);
    geometry.batch_positions = 64 - (geometry.ragged ? geometry.folded ? 1 : 2 : 0);
    // A pair may begin at -1 where the window begins at an odd position of x.
    const int64_t begins = geometry.tile_advance * stride | geometry.lead * stride | problem.pad_left |
                           (geometry.tap_groups > 1 ? taps * problem.dilation : 0);
    const int32_t positions = geometry.planes > 0
                                  ? geometry.planes * static_cast<int32_t>(columns + max_shift)
                                  : geometry.window + (geometry.pairs && begins % 2 != 0);
    geometry.batches = static_cast<int32_t>(ceil_div(positions, geometry.batch_positions));
    const int32_t rest = positions % geometry.batch_positions;
    if (geometry.folded && !geometry.ragged && geometry.batches > 1 && rest <= kMostRest)
        geometry.rest = rest, geometry.batches -= rest > 0;
    geometry.x_stride_c = static_cast<int32_t>(problem.x_stride_c);
    geometry.x_stride_l = static_cast<int32_t>(problem.x_stride_l);
    geometry.stride_magic = static_cast<uint32_t>(ceil_div(int64_t{1} << 32, stride));

    // What shared memory leaves of a multiprocessor is its L1 cache, which keeps lines of x that several
    // loads share: 60 KB beside lean blocks, else 28. That is worth more than stages of x beyond 92 KB, than
    // stages of weights beyond three, and than weights that stay (2x668x86690 to 220, K2 s8 g4 bf16: ms .105,
    // .085; 33x268x10901 to 48, K2 bf16 .127, .107).
    const int64_t lean_bytes = std::min<int64_t>(free_bytes, kLeanBytes - other_bytes);
    geometry.resident = geometry.o_tiles * problem.G == 1 && blocks <= kMaxStages &&
                        2 * geometry.x_stage_bytes + blocks * geometry.weight_bytes <= lean_bytes;
    struct Stages {
        int64_t x, w;
    };
    const auto fit_stages = [&](int64_t bytes, int64_t x_wanted) {
        const auto x_beside = [&](int64_t w) {
            return std::min<int64_t>((bytes - w * geometry.weight_bytes) / geometry.x_stage_bytes, 6);
        };
        if (geometry.resident) return Stages{x_beside(blocks), blocks};
        int64_t w = std::min<int64_t>((bytes - 2 * geometry.x_stage_bytes) / geometry.weight_bytes, 6);
        while (w > 4 && x_beside(w) < x_wanted && x_beside(4) >= x_wanted) --w;
        return Stages{x_beside(w), w};
    };
    Stages stages = fit_stages(free_bytes, 3);
    const int64_t x_least = std::min(stages.x, ceil_div(int64_t{92} << 10, geometry.x_stage_bytes));
    const Stages lean = fit_stages(lean_bytes, x_least);
    if (lean.x >= x_least && lean.w >= std::min<int64_t>(stages.w, 3)) stages = lean;
    geometry.w_stages = static_cast<int32_t>(stages.w);
    geometry.x_stages = static_cast<int32_t>(stages.x);
    geometry.smem_bytes =
        geometry.x_stages * geometry.x_stage_bytes + geometry.w_stages * geometry.weight_bytes + other_bytes;

    int64_t windows;
    if (flat) {
        const int64_t rows = problem.P + max_shift > 2 ? problem.P + max_shift : 2;
        // So that rows of y begin alike in all samples: those of a tile are staged once.
        const int64_t sample = problem.G * problem.O * problem.P;
        geometry.rows_per_sample = static_cast<int32_t>(rows + (sample - rows % piece + piece) % piece);
        if (geometry.rows_per_sample < columns + max_shift)  // a tile may hold several samples
            geometry.rows_magic = static_cast<uint32_t>(ceil_div(int64_t{1} << 32, geometry.rows_per_sample));
        windows =
            problem.P > 4 * columns ? 0 : ceil_div(problem.N * geometry.rows_per_sample, columns);
        geometry.tiles_per_sample = 0;
    } else {
        const int64_t late =
            geometry.lead > 0 ? geometry.lead - 1 : 0;  // how far the last store may end early
        geometry.tiles_per_sample = static_cast<int32_t>(ceil_div(problem.P + late, geometry.tile_advance));
        windows = problem.N * geometry.tiles_per_sample;
    }
    const int64_t tiles = windows * geometry.o_tiles * problem.G;
    geometry.tiles = tiles < (int64_t{1} << 30) ? static_cast<int32_t>(tiles) : 0;
    return geometry;
}

// Cycles that a launch needs by a simple count, in whole waves of tiles: products, bytes through L2 and
// conversions of x, which overlap for the most part, then stores. Constants fitted to 240 random layers timed
// with each tile (results/findings.md).
template <Mode kMode>
inline double estimate_cycles(const Problem& problem, const Geometry& geometry, const Tiling& tiling) {
    using Traits = ModeTraits<kMode>;
    constexpr double kBytesPerCycle = 32;  // of one multiprocessor from L2
    const double blocks = static_cast<double>(geometry.chunks) * geometry.taps;
    // Six products of 32 bytes a block of split operands; f16x3 waits for them twice.
    const double steps = kMode == Mode::f16x3 ? 8.5 : Traits::kIsSplit ? 6 : 4;
    // Of a row's channels that do not exist, whole steps are left out.
    constexpr int kStepChannels = Traits::kChunkChannels / Traits::kSteps;
    const double filled = static_cast<double>(ceil_div(geometry.channels, kStepChannels)) / Traits::kSteps;
    // And the fewer columns, the more often weights are read from shared memory. A warpgroup that is alone
    // has the tensor cores for itself, but then needs as long as that reading; of split operands it waits for
    // each product.
    const bool alone = tiling.share == Share::none;
    const double step = !alone ? tiling.columns + 6
                        : Traits::kIsSplit
                            ? 0.76 * (tiling.columns + 6)
                            : std::max(0.5 * tiling.columns + 3, 0.25 * tiling.columns + 32);
    const double products = filled * geometry.taps * steps * step;
    const double stages = static_cast<double>(geometry.chunks) * geometry.tap_groups;
    const double bytes = stages * geometry.window * Traits::kChunkChannels * Traits::kElementBytes +
                         (geometry.resident ? 0 : blocks * geometry.weight_bytes) +
                         (alone ? kWarpgroupO : kTileO) * tiling.columns * Traits::kElementBytes;
    const double moves = bytes / kBytesPerCycle;
    // The converters may take longer: a batch costs each of the seven warps some 4,000 cycles.
    const double batch = kMode == Mode::f16x3 ? 1050 : Traits::kIsFloat ? 570 : 700;
    const double singles = Traits::kIsFloat ? 1.5 : 2.2;
    const double conversions = (stages + static_cast<double>(geometry.channels) / Traits::kChunkChannels *
                                             geometry.tap_groups) / 2 * geometry.batches * batch *
                               (geometry.pairs || geometry.folded ? 1 + 0.1 * geometry.ragged : singles);
    const auto overlap = [](double a, double b, double share) {
        return std::max(a, b) + share * std::min(a, b);
    };
    const double work = overlap(overlap(products, moves, 0.25), conversions, 0.36);
    constexpr int kPiece = 16 / Traits::kElementBytes;
    const bool by_elements = geometry.lead == 0 && problem.P % kPiece != 0;  // some of each row of y
    const double tile = work + 2000 + (by_elements ? 18 : 12) * tiling.columns;
    return static_cast<double>(ceil_div(geometry.tiles, problem.device.sm_count)) * tile;
}

struct Cut {
    Geometry geometry;
    Tiling tiling;  // no columns: none fits
    double cycles;
};

// The cut that takes the fewest cycles, with at most `most_taps` to a window, of those that
// `suits(geometry)`.
template <Mode kMode, class Suits>
inline Cut find_cut(const Problem& problem, int64_t most_taps, Suits suits) {
    Cut best{};
    const auto consider = [&](const Tiling& tiling) {
        const Geometry geometry = cut<kMode>(problem, tiling, most_taps);
        if (geometry.tiles == 0 || !suits(geometry)) return;
        const double cycles = estimate_cycles<kMode>(problem, geometry, tiling);
        if (best.tiling.columns == 0 || cycles < best.cycles) best = {geometry, tiling, cycles};
    };
    // The last 64 channels are alone where their number is odd.
    const bool odd = ceil_div(problem.O, kWarpgroupO) % 2 == 1;
    for (const Share share : {Share::none, Share::channels, Share::columns}) {
        if (share == Share::channels && problem.O <= kWarpgroupO) continue;
        if (share == Share::columns && !odd) continue;
        for (const bool flat : {false, true}) {
            for (const bool leads : {true, false}) {
                if (flat && !leads) continue;
#define CONV1D_SM90_CONSIDER(mode, columns) \
    if (kMode == Mode::mode) consider({columns, flat, share, leads});
                CONV1D_SM90_TILES(CONV1D_SM90_CONSIDER)
#undef CONV1D_SM90_CONSIDER
            }
        }
    }
    return best;
}

// The order in which terms are added depends on one sample's numbers alone, not on how many there are or
// where they lie: what decides it is decided for these, by tiles that both warpgroups share.
template <Mode kMode>
inline Cut decisive_cut(const Problem& problem) {
    Problem some = problem;
    some.N = 8;
    some.x_stride_n = problem.G * problem.C * problem.x_stride_c;
    some.x = some.y = nullptr;
    return find_cut<kMode>(some, problem.K,
                           [](const Geometry& geometry) { return geometry.share != Share::none; });
}

template <Mode kMode>
inline Cut choose_cut(const Problem& problem, const Cut& decisive) {
    const int32_t taps = decisive.geometry.taps_per_group;
    // With many more tiles than multiprocessors, a warpgroup that is alone gains nothing.
    return find_cut<kMode>(problem, taps, [&](const Geometry& geometry) {
        return geometry.taps_per_group == taps &&
               (geometry.share != Share::none || geometry.tiles <= 3 * problem.device.sm_count);
    });
}
template <Mode kMode>
inline Cut choose_cut(const Problem& problem) {
    return choose_cut<kMode>(problem, decisive_cut<kMode>(problem));
}

// f16x3: x * 2^8 and w * 2^e, e such that the largest weight of its output channel lies in [2^14, 2^15),
// become high + low / 2^11, both fp16 and rounded to nearest. (Ootomo and Yokota, "Recovering single
// precision accuracy from Tensor Cores", 2022, scale the low part so.) Scaled values below 2^16 and from
// 2^-12 on are then right to 2^-24 of themselves, and zero is exact. Smaller ones are right to 2^-36: n of x
// and m of w put an error of at most n * 2^15 * 2^-36 + m * 2^16 * 2^-36 into a sum, less than 2^-24 of it
// where it is at least 8n + 16m. Tiles with larger values, or with sums below that, belong to tf32x3.
constexpr float kXScale = 256.0f, kLowScale = 2048.0f;
constexpr float kSmallestScaled = 1.0f / 4096, kLargestScaled = 65280.0f;
constexpr uint32_t kSmallestHigh = 0x0C00;  // kSmallestScaled as fp16
constexpr float kSumOfSmallX = 8.0f, kSumOfSmallW = 16.0f;

template <Mode kMode>
inline size_t image_bytes(const Problem& problem, const Geometry& geometry, int tile_o) {
    return static_cast<size_t>(problem.G * round_up(problem.O, tile_o) *
                               ceil_div(geometry.channels, ModeTraits<kMode>::kChunkChannels) *
                               geometry.taps * kRowBytes);
}

// What the kernels of one launch share in the workspace.
struct Scratch {
    int32_t* tickets;     // [2]: drawn so far; tiles listed
    uint8_t* image;       // packed weights
    float2* row_scaling;  // f16x3: [G][o_tiles * tile_o], what undoes the scales of x and w, negative where w
                          // is out of range; how many weights are too small
    int32_t* is_listed;   // f16x3: [tiles]
    int32_t* list;        // f16x3: [tiles], those to be done again
    uint8_t* safe_image;  // f16x3: packed weights of tf32x3
};

// Lays the scratch out from `base` on; returns its size.
template <Mode kMode>
inline size_t lay_out(const Problem& problem, const Geometry& geometry, uint8_t* base, Scratch* scratch) {
    size_t bytes = 0;
    const auto take = [&](size_t size) {
        uint8_t* const place = base + bytes;
        bytes += static_cast<size_t>(round_up(static_cast<int64_t>(size), 256));
        return place;
    };
    *scratch = {};
    scratch->tickets = reinterpret_cast<int32_t*>(take(2 * sizeof(int32_t)));
    scratch->image = take(image_bytes<kMode>(problem, geometry, geometry.tile_o));
    if (kMode == Mode::f16x3) {
        const size_t tile_bytes = static_cast<size_t>(geometry.tiles) * sizeof(int32_t);
        scratch->row_scaling =
            reinterpret_cast<float2*>(take(problem.G * geometry.o_tiles * geometry.tile_o * sizeof(float2)));
        scratch->is_listed = reinterpret_cast<int32_t*>(take(tile_bytes));
        scratch->list = reinterpret_cast<int32_t*>(take(tile_bytes));
        // Its tiles may have other numbers of rows.
        scratch->safe_image = take(image_bytes<Mode::tf32x3>(problem, geometry, kTileO));
    }
    return bytes;
}

// How tf32x3 cuts a problem of which another kernel does the first mode: what of it a tile there overlaps.
// `advance` is 0 where that does not know its positions by 32 bits.
struct SafeTiles {
    int32_t flat, rows_per_sample, tiles_per_sample, advance, lead;
    int32_t o_tiles, tile_o;
};

inline SafeTiles find_safe_tiles(const Problem& problem) {
    const Geometry safe = choose_cut<Mode::tf32x3>(problem).geometry;
    if (safe.tiles == 0 || int64_t{safe.tiles} * safe.tile_advance >= int64_t{1} << 31) return {};
    return {safe.flat, safe.rows_per_sample, safe.tiles_per_sample, safe.tile_advance,
            safe.lead, safe.o_tiles, safe.tile_o};
}

// What pack_weights and lay_out ask of a Geometry, of routes other than gemm_sm90 itself.
template <Mode kMode>
inline Geometry packing(const Problem& problem) {
    Geometry geometry{};
    geometry.o_tiles = static_cast<int32_t>(ceil_div(problem.O, kTileO));
    geometry.tile_o = kTileO;
    geometry.channels = static_cast<int32_t>(problem.C);
    geometry.taps = static_cast<int32_t>(problem.K);
    geometry.chunks = static_cast<int32_t>(ceil_div(problem.C, ModeTraits<kMode>::kChunkChannels));
    geometry.tap_groups = 1;
    geometry.taps_per_group = static_cast<int32_t>(problem.K);
    if (kMode == Mode::f16x3) geometry.tiles = choose_cut<Mode::tf32x3>(problem).geometry.tiles;
    return geometry;
}

// That which such a route takes: f16x3 even where tf32x3 would be faster.
inline Mode fast_mode_of(const Problem& problem) {
    if (problem.dtype == Dtype::float16) return Mode::f16;
    if (problem.dtype == Dtype::bfloat16) return Mode::bf16;
    return problem.precision == Precision::tf32 ? Mode::tf32 : Mode::f16x3;
}

template <class Call>
inline auto with_mode(const Problem& problem, Call call) {
    switch (fast_mode_of(problem)) {
        case Mode::tf32:
            return call(std::integral_constant<Mode, Mode::tf32>{});
        case Mode::f16x3:
            return call(std::integral_constant<Mode, Mode::f16x3>{});
        case Mode::f16:
            return call(std::integral_constant<Mode, Mode::f16>{});
        default:
            return call(std::integral_constant<Mode, Mode::bf16>{});
    }
}

// Does listed tiles of tf32x3 again, for other routes that list them; in this route's unit, where the
// kernels are.
Error launch_listed_tiles(const Problem& problem, Scratch scratch, cudaStream_t stream);

// By how many cycles f16x3 must be ahead of tf32x3: it packs weights for both modes and launches the second
// one, even where no tile needs it. Fitted as the constants of estimate_cycles.
constexpr double kLeastGain = 12000;

struct Choice {
    Mode mode;
    Cut cut;
};

inline Choice choose(const Problem& problem) {
    if (problem.dtype == Dtype::float16) return {Mode::f16, choose_cut<Mode::f16>(problem)};
    if (problem.dtype == Dtype::bfloat16) return {Mode::bf16, choose_cut<Mode::bf16>(problem)};
    if (problem.precision == Precision::tf32) return {Mode::tf32, choose_cut<Mode::tf32>(problem)};
    const Cut fast = decisive_cut<Mode::f16x3>(problem), safe = decisive_cut<Mode::tf32x3>(problem);
    if (fast.cycles + kLeastGain < safe.cycles)
        return {Mode::f16x3, choose_cut<Mode::f16x3>(problem, fast)};
    return {Mode::tf32x3, choose_cut<Mode::tf32x3>(problem, safe)};
}

}  // namespace sm90

inline bool fits_gemm_sm90(const Problem& problem) {
    constexpr int64_t kMost = int64_t{1} << 30;  // positions, channels and products are counted in 32 bits
    return problem.device.arch == 90 && problem.dtype != Dtype::float64 && problem.C >= 16 &&
           (problem.O >= 8 || pays_for_few_outputs(problem)) && problem.stride <= 32 && problem.L < kMost &&
           problem.P < kMost && problem.N < kMost && problem.K * problem.dilation < kMost &&
           problem.K < kMost / 64 && problem.C * problem.K < kMost &&
           problem.x_stride_c < kMost && problem.x_stride_l < kMost && problem.G * problem.O < kMost &&
           problem.G * problem.C < kMost;
}

inline size_t workspace_gemm_sm90(const Problem& problem) {
    const sm90::Choice choice = sm90::choose(problem);
    const sm90::Geometry& geometry = choice.cut.geometry;
    sm90::Scratch scratch;
    switch (choice.mode) {
        case sm90::Mode::tf32:
            return sm90::lay_out<sm90::Mode::tf32>(problem, geometry, nullptr, &scratch);
        case sm90::Mode::tf32x3:
            return sm90::lay_out<sm90::Mode::tf32x3>(problem, geometry, nullptr, &scratch);
        case sm90::Mode::f16x3:
            return sm90::lay_out<sm90::Mode::f16x3>(problem, geometry, nullptr, &scratch);
        default:
            return sm90::lay_out<sm90::Mode::f16>(problem, geometry, nullptr, &scratch);
    }
}

}  // namespace conv1d
''',
"window_sm90_plan.cuh": r'''
#line 1 "kernels/window_sm90_plan.cuh"
// How the convolutions with x as register operand (window_sm90.cuh) cut a problem: the memory plan of a
// block, the tiles. Pure functions of the problem's numbers; no kernel here.





namespace conv1d {
namespace sm90 {

constexpr int kWindowBox = 64;           // positions whose x is loaded together, of one sample
constexpr int kWindowChunkOutputs = 32;  // of y, staged together
constexpr int kWindowMostChunks = 4;     // of y, under way
constexpr int kWindowMostStages = 8;
constexpr int kWindowBarriers = 2 * (kWindowMostStages + kWindowMostChunks + 2);
constexpr int kWindowCluster = 2;  // blocks that share weights or x
// That order x, that store y; one brings weights.
constexpr int kWindowXWarps = 3, kWindowStoreWarps = 4;
constexpr int kWindowThreads = 32 * (kProductWarps + kWindowXWarps + 1 + kWindowStoreWarps);

// kOutputs: of a tile; each product warpgroup takes all of them.
template <Mode kMode_, int kTaps_, int kStride_, int kOutputs_>
struct WindowTraits : ModeTraits<kMode_> {
    using Traits = ModeTraits<kMode_>;
    static constexpr Mode kMode = kMode_;
    static constexpr int kTaps = kTaps_, kStride = kStride_, kOutputs = kOutputs_;
    // The blocks of a cluster take neighbouring outputs of the same positions, else neighbouring positions of
    // the same outputs: they share what is more.
    static constexpr bool kSharesX = kStride > 1;
    static constexpr int kOTiles = kSharesX ? kWindowCluster : 1;  // of a cluster
    static constexpr int kStageChannels = 32 / (Traits::kIsTf32 ? 4 : 2);  // of one product, 32 bytes of K
    static constexpr int kTogether = Traits::kIsTf32 ? 1 : 2;      // channels whose numbers share words
    static constexpr int kParts = Traits::kIsSplit ? 2 : 1;        // of an operand
    static constexpr int kWeightPartBytes = kTaps * kOutputs * 32;  // of a stage
    static constexpr int kWeightBytes = kWeightPartBytes * kParts;
    // Of 64 positions of a warpgroup. Split operands need the registers of the second one for totals.
    static constexpr int kProducts = Traits::kIsSplit ? 1 : 2;
    // Whose sums split operands add before totals do: at most 128 products.
    static constexpr int kStagesTogether = Traits::kIsSplit && 2 * kTaps * kStageChannels <= 128 ? 2 : 1;
    static constexpr int kBoxes = 2 * kProducts;  // of a tile
    static constexpr int kTilePositions = kWindowBox * kBoxes;
    static constexpr int kWarpPositions = kTilePositions / kProductWarps;
    static constexpr int kWarpsOfBox = kWindowBox / kWarpPositions;
    // Of a thread of the product warpgroups, of the one that orders and of the one that stores; of 128 at
    // launch.
    static constexpr int kProductRegisters = kOutputs == 64                           ? 216
                                             : Traits::kIsSplit && kStagesTogether > 1 ? 224
                                             : !Traits::kIsSplit && kTaps > 3          ? 232
                                                                                       : 216;
    static constexpr int kOrderRegisters = kProductRegisters > 216 ? 24 : 40;
    static constexpr int kStoreRegisters = 4 * 128 - 2 * kProductRegisters - kOrderRegisters;
    static constexpr int kPiece = 16 / Traits::kElementBytes;  // elements of a piece of 16 bytes
    // Of a channel in a stage, in elements, of rows that lie in so many ways. Neighbouring lanes read
    // different banks, where they can, and boxes are multiples of 128 bytes.
    static __host__ __device__ constexpr int pitch(int residues) {
        if (kStride > 1)
            return residues == 1 ? (Traits::kIsSplit ? 132 : 136)
                                 : (Traits::kIsSplit ? 136 : Traits::kIsFloat ? 144 : 160);
        if (residues == 1) return Traits::kIsTf32 ? 72 : Traits::kIsSplit ? 76 : 88;
        return Traits::kIsFloat || residues == 2 ? 80 : 96;
    }
    // Of a staged row of y, in elements.
    static constexpr int kStagedPitch = kTilePositions + kPiece;
    static constexpr int kStagedBytes = kWindowChunkOutputs * kStagedPitch * Traits::kElementBytes;
    // Under way, as stages leave room.
    static constexpr bool kHasLargeStages = Traits::kIsTf32 || (kStride > 1 && Traits::kIsSplit);
    static constexpr int kChunks = kHasLargeStages ? 3 : kWindowMostChunks;
    // Shared memory: stages | chunks of y | constants of two tiles | barriers.
    static constexpr int kConstantsOffset = kChunks * kStagedBytes;  // behind the stages
    static constexpr int kBarriersOffset = kConstantsOffset + 2 * 3 * kOutputs * 4;
};

// How one launch cuts its problem; written by the host, read by every role.
struct WindowGeometry {
    int32_t o_tiles;            // of one group
    IndexDivisor o_steps;       // of one group: tiles of outputs, or pairs of those
    IndexDivisor groups;
    IndexDivisor sample_boxes;  // a tile is some that follow each other, of all samples'
    int32_t pairs;              // of tiles, one for each block of a cluster; 0 where it does not fit
    int32_t stages;             // in all of a tile's channels
    int32_t image_stages;       // of which there are weights
    int32_t residues;           // 1: rows of x begin at 16-byte pieces; else how many lie differently
    int32_t box_bytes;          // of x, of 64 positions, in a stage
    int32_t ring, stage_bytes;  // stages under way, of weights and then x
    int32_t vector_bytes;       // of y, that lie in one piece in all rows, 16 at most
    int32_t smem_bytes;
    SafeTiles safe;
};

// 1 where rows of x begin at 16-byte pieces; else how many neighbouring channels make one row that does; 0
// where the copy engine cannot load them, or a loader does not take them. Rows that begin between pieces are
// loaded with what lies around them, which must not count as padding: at a stride of 1 the loader sees to it,
// for rows of whole words. At a stride of 2 a piece's channels make a row, and of 16 bits a lane's two
// channels must begin at an even and at an odd element.
template <class Traits>
inline int residues_of(const Problem& problem) {
    constexpr int kPiece = Traits::kPiece;
    const int64_t stride_c = problem.x_stride_c, stride_n = problem.x_stride_n;
    if (problem.x_stride_l != 1 || reinterpret_cast<uintptr_t>(problem.x) % 16 != 0 || stride_c < problem.L)
        return 0;
    if (problem.N > 1 && (stride_n < problem.G * problem.C * stride_c || stride_n % kPiece != 0 ||
                          stride_n >= int64_t{1} << 37))
        return 0;
    if (stride_c % kPiece == 0) return 1;
    if (kPiece * stride_c >= int64_t{1} << 31) return 0;
    if (Traits::kStride == 1) {
        int residues = 2;
        while (residues * stride_c % kPiece != 0) residues *= 2;
        return residues <= 4 && problem.C % residues == 0 ? residues : 0;
    }
    const bool padded =
        problem.pad_left > 0 || (problem.P - 1) * Traits::kStride + Traits::kTaps > problem.L;
    const bool alternates = Traits::kIsFloat || stride_c % 2 != 0;
    return !padded && alternates && problem.C % kPiece == 0 ? kPiece : 0;
}

// Pairs of tiles of a problem; clusters that run at once.
template <class Traits>
inline int64_t pairs_of(const Problem& problem) {
    const int64_t windows = ceil_div(problem.N * ceil_div(problem.P, kWindowBox), Traits::kBoxes);
    const int64_t o_tiles = ceil_div(problem.O, Traits::kOutputs);
    return problem.G * (Traits::kSharesX ? windows * ceil_div(o_tiles, kWindowCluster)
                                         : ceil_div(windows, kWindowCluster) * o_tiles);
}
inline int clusters_of(const Problem& problem) { return max(problem.device.sm_count / kWindowCluster, 1); }

template <class Traits>
inline WindowGeometry cut_windows(const Problem& problem) {
    WindowGeometry geometry{};
    geometry.residues = residues_of<Traits>(problem);
    if (geometry.residues == 0) return {};
    geometry.o_tiles = static_cast<int32_t>(ceil_div(problem.O, Traits::kOutputs));
    geometry.o_steps = plan_index_divisor(ceil_div(geometry.o_tiles, Traits::kOTiles));
    geometry.groups = plan_index_divisor(problem.G);
    geometry.sample_boxes = plan_index_divisor(ceil_div(problem.P, kWindowBox));
    geometry.image_stages =
        static_cast<int32_t>(round_up(problem.C, Traits::kChunkChannels) / Traits::kStageChannels);
    geometry.stages = static_cast<int32_t>(
        round_up(ceil_div(problem.C, Traits::kStageChannels), Traits::kStagesTogether));
    geometry.box_bytes = Traits::kStageChannels * Traits::pitch(geometry.residues) * Traits::kElementBytes;
    geometry.stage_bytes = Traits::kWeightBytes + Traits::kBoxes * geometry.box_bytes;
    const auto y_bits = static_cast<int64_t>(reinterpret_cast<uintptr_t>(problem.y)) |
                        problem.P * Traits::kElementBytes | 16;
    geometry.vector_bytes = static_cast<int32_t>(y_bits & -y_bits);
    constexpr int kOtherBytes = Traits::kBarriersOffset + 8 * kWindowBarriers + 128;  // which align the rest
    const int stages = (problem.device.smem_bytes - kOtherBytes) / geometry.stage_bytes;
    if (stages < 3) return {};
    geometry.ring = min(stages, kWindowMostStages);
    geometry.smem_bytes = kOtherBytes + geometry.ring * geometry.stage_bytes;
    const int64_t pairs = pairs_of<Traits>(problem);
    if (pairs >= int64_t{1} << 28 || (Traits::kSharesX && geometry.o_tiles % kWindowCluster != 0)) return {};
    geometry.pairs = static_cast<int32_t>(pairs);
    if (Traits::kMode == Mode::f16x3) {
        geometry.safe = find_safe_tiles(problem);
        if (geometry.safe.advance == 0) return {};
    }
    return geometry;
}

// What pack_weights and lay_out ask of a Geometry.
template <class Traits>
inline Geometry packing_of(const Problem& problem) {
    Geometry geometry = packing<Traits::kMode>(problem);
    geometry.by_steps = 1;
    geometry.tile_o = Traits::kOutputs;
    geometry.o_tiles = static_cast<int32_t>(ceil_div(problem.O, Traits::kOutputs));
    return geometry;
}

template <class Traits>
inline size_t workspace_of(const Problem& problem) {
    Scratch scratch;
    return lay_out<Traits::kMode>(problem, packing_of<Traits>(problem), nullptr, &scratch);
}

}  // namespace sm90
}  // namespace conv1d
''',
"downsample_sm90_plan.cuh": r'''
#line 1 "kernels/downsample_sm90_plan.cuh"
// Which problems the downsampling convolution (downsample_sm90.cuh) takes. No kernel here.




namespace conv1d {
namespace sm90 {

template <Mode kMode>
using DownTraits = WindowTraits<kMode, 3, 2, 128>;

}  // namespace sm90

// Where one sample makes enough tiles: it alone decides, as gemm_sm90, whose tiles are smaller, adds in
// another order; and where few of the last tiles' positions or outputs are missing. ms TF32, fp32, bf16 by
// this route and by that: 16x1280x3000 to 1280 (60 tiles a sample) .781, 1.53, .444 and .905, 1.90, .524, one
// sample of it .126, .164, .075 and .100, .181, .061; but 1x512x4096 to 512 (32 tiles) .050, .063, .033 and
// .032, .059, .022.
inline bool fits_downsample_sm90(const Problem& problem) {
    if (!fits_gemm_sm90(problem) || problem.K != 3 || problem.stride != 2 || problem.dilation != 1 ||
        problem.pad_left > 1 || problem.C < 64)
        return false;
    using Tile = sm90::DownTraits<sm90::Mode::tf32>;
    constexpr int kLeastTiles = 56;
    if (ceil_div(problem.P, Tile::kTilePositions) * ceil_div(problem.O, Tile::kOutputs) < kLeastTiles ||
        8 * round_up(problem.P, Tile::kTilePositions / 2) > 9 * problem.P ||
        8 * round_up(problem.O, Tile::kOutputs * sm90::kWindowCluster) > 9 * problem.O)
        return false;
    return sm90::with_mode(problem, [&](auto mode) {
        return sm90::cut_windows<sm90::DownTraits<decltype(mode)::value>>(problem).pairs > 0;
    });
}

inline size_t workspace_downsample_sm90(const Problem& problem) {
    return sm90::with_mode(problem, [&](auto mode) {
        return sm90::workspace_of<sm90::DownTraits<decltype(mode)::value>>(problem);
    });
}

}  // namespace conv1d
''',
"gemm_sm90_pipeline.cuh": r'''
#line 1 "kernels/gemm_sm90_pipeline.cuh"
// What the roles of the Hopper GEMM (gemm_sm90.cuh) share: barriers, rings of stages, rows and planes; and
// the warp that supplies them with tiles and weights.





namespace conv1d {
namespace sm90 {

// Addresses of the barriers in the shared window, and the announcements behind them.
struct Barriers {
    uint32_t base;
    Announcement* tile;    // [kTileSlots]
    int32_t* small_count;  // [kTileCounters] f16x3: values of x too small, of one tile

    __device__ __forceinline__ uint32_t x_full(int stage) const { return base + 8 * stage; }
    __device__ __forceinline__ uint32_t x_empty(int stage) const { return base + 8 * (kMaxStages + stage); }
    __device__ __forceinline__ uint32_t w_full(int stage) const {
        return base + 8 * (2 * kMaxStages + stage);
    }
    __device__ __forceinline__ uint32_t w_empty(int stage) const {
        return base + 8 * (3 * kMaxStages + stage);
    }
    __device__ __forceinline__ uint32_t tile_full(int slot) const {
        return base + 8 * (4 * kMaxStages + slot);
    }
    __device__ __forceinline__ uint32_t tile_empty(int slot) const {
        return base + 8 * (4 * kMaxStages + kTileSlots + slot);
    }
};

// A ring of stages: which one is next, and the parity its barrier will show.
struct Ring {
    int32_t stage = 0;
    uint32_t parity = 0;
    __device__ __forceinline__ void advance(int stages) {
        if (++stage == stages) {
            stage = 0;
            parity ^= 1;
        }
    }
};

// Row of position q of a window, and its plane's first row in a stage.
template <class Cut>
__device__ __forceinline__ int32_t divide_by_stride(const Cut& geometry, int32_t q, int32_t stride) {
    return stride == 1 ? q : __umulhi(q, geometry.stride_magic);
}
template <class Cut>
__device__ __forceinline__ int32_t plane_row(const Cut& geometry, int32_t plane) {
    return __popc(geometry.plane_mask & ((1u << plane) - 1)) * geometry.plane_rows;
}

// Flat tiles only: brings a row at or behind the end of its sample back into a later one; returns how much
// later.
__device__ __forceinline__ int32_t wrap_row(const Geometry& geometry, int32_t& row) {
    const int32_t samples =
        geometry.rows_magic != 0 ? __umulhi(row, geometry.rows_magic) : (row >= geometry.rows_per_sample);
    row -= samples * geometry.rows_per_sample;
    return samples;
}

// Where a tile lies. Tiles of one window of x and all output channels follow each other, so x is shared in
// L2.
__device__ __forceinline__ Announcement place_tile(const Geometry& geometry, const Problem& problem,
                                                   int32_t tile) {
    const int32_t per_window = geometry.o_tiles * static_cast<int32_t>(problem.G);
    const int32_t window = tile / per_window;
    const int32_t rest = tile - window * per_window;
    Announcement place;
    place.tile = tile;
    place.group = rest / geometry.o_tiles;
    place.channel = (rest - place.group * geometry.o_tiles) * geometry.tile_o;
    if (geometry.flat) {
        const int64_t first = int64_t{window} * geometry.tile_advance;
        place.sample = static_cast<int32_t>(first / geometry.rows_per_sample);
        place.row = static_cast<int32_t>(first - int64_t{place.sample} * geometry.rows_per_sample);
    } else {
        place.sample = window / geometry.tiles_per_sample;
        place.row =
            (window - place.sample * geometry.tiles_per_sample) * geometry.tile_advance - geometry.lead;
    }
    return place;
}

// f16x3: puts a tile on the list of those to be done again, once.
__device__ __forceinline__ void list_tile(const Scratch& scratch, int32_t tile) {
    if (atomicExch(&scratch.is_listed[tile], 1) == 0) scratch.list[atomicAdd(&scratch.tickets[1], 1)] = tile;
}

// f16x3 of other routes: lists the tiles of tf32x3 that hold some positions and output channels of a sample's
// group.
struct Span {
    int32_t begin, end;
};
__device__ __forceinline__ void list_overlapped(const SafeTiles& safe, const Problem& problem,
                                                const Scratch& scratch, int32_t sample, Span positions,
                                                int32_t group, Span channels) {
    const uint32_t first = positions.begin, last = positions.end - 1, advance = safe.advance;
    const uint32_t before = sample * (safe.flat ? safe.rows_per_sample : safe.tiles_per_sample);
    uint32_t window, end;
    if (safe.flat) {
        window = (before + first) / advance;
        end = (before + last) / advance + 1;
    } else {  // their rows end up to lead - 1 positions early
        window = before + first / advance;
        end = before + min((last + max(safe.lead - 1, 0)) / advance + 1,
                           static_cast<uint32_t>(safe.tiles_per_sample));
    }
    for (; window < end; ++window) {
        const int32_t tile =
            (static_cast<int32_t>(window) * static_cast<int32_t>(problem.G) + group) * safe.o_tiles;
        for (int32_t o = channels.begin / safe.tile_o; o * safe.tile_o < channels.end; ++o)
            list_tile(scratch, tile + o);
    }
}

// One thread: draws tickets, announces tiles one ahead of need, streams the weights of each. kMayBeListed:
// where there is a list, of the tiles on it only.
template <bool kMayBeListed>
__device__ __forceinline__ void run_supplier(const Geometry& geometry, const Problem& problem,
                                             uint32_t w_smem, const Barriers& barriers,
                                             const Scratch& scratch) {
    Ring tiles, weights;
    tiles.parity = weights.parity = 1;  // an empty ring: the first waits return at once
    const int64_t blocks_of_tile = int64_t{geometry.chunks} * geometry.taps;
    uint32_t announced = 0;
    const auto announce = [&](int32_t tile) {
        ptx::mbarrier_wait(barriers.tile_empty(tiles.stage), tiles.parity);
        Announcement place{-1, 0, 0, 0, 0, 0};
        if (tile < geometry.tiles) place = place_tile(geometry, problem, tile);
        place.counter = announced++ % kTileCounters;  // no one looks at that of kTileCounters tiles ago
        barriers.small_count[place.counter] = 0;
        barriers.tile[tiles.stage] = place;
        ptx::mbarrier_arrive(barriers.tile_full(tiles.stage));
        tiles.advance(kTileSlots);
    };
    const bool listed = kMayBeListed && scratch.list != nullptr;
    if (listed) ptx::griddepcontrol_wait();
    const int32_t tickets = listed ? scratch.tickets[1] : geometry.tiles;
    const auto tile_of = [&](int32_t ticket) {
        return ticket >= tickets ? geometry.tiles : listed ? scratch.list[ticket] : ticket;
    };
    int32_t next_ticket = blockIdx.x;
    int32_t tile = tile_of(next_ticket);
    int32_t next = tile;  // announced already, one tile ahead of the weights
    announce(next);
    ptx::griddepcontrol_wait();  // converters read x meanwhile
    for (bool first = true; tile < geometry.tiles; first = false, tile = next) {
        if (next < geometry.tiles) {
            next_ticket = (listed ? next_ticket : atomicAdd(scratch.tickets, 1)) + gridDim.x;
            next = tile_of(next_ticket);
            announce(next);
        }
        if (first || !geometry.resident) {
            const int32_t which = tile % (geometry.o_tiles * static_cast<int32_t>(problem.G));
            const uint32_t bytes = geometry.weight_bytes;
            const uint8_t* source = scratch.image + which * blocks_of_tile * bytes;
#pragma unroll 1
            for (int64_t block = 0; block < blocks_of_tile; ++block, source += bytes) {
                const uint32_t full = barriers.w_full(weights.stage);
                ptx::mbarrier_wait(barriers.w_empty(weights.stage), weights.parity);
                ptx::mbarrier_arrive_expect_tx(full, bytes);
                ptx::cp_async_bulk(w_smem + weights.stage * bytes, source, bytes, full);
                weights.advance(geometry.w_stages);
            }
        }
    }
}

}  // namespace sm90
}  // namespace conv1d
''',
"gemm_sm90_convert.cuh": r'''
#line 1 "kernels/gemm_sm90_convert.cuh"
// The operands of the Hopper GEMM (gemm_sm90.cuh) as wgmma takes them, K-major in swizzled rows of 128 bytes:
// weights packed once a launch, x converted by seven warps of each block.

#include <cuda_fp16.h>
#include <type_traits>







namespace conv1d {
namespace sm90 {

// A split of the two numbers, scaled already: the high parts, and the low parts times kLowScale.
__device__ __forceinline__ uint32_t split_f16(float first, float second, uint32_t& low) {
    const __half2 high = __floats2half2_rn(first, second);
    const float2 rest = __half22float2(high);
    const __half2 lows = __floats2half2_rn(fmaf(rest.x, -kLowScale, first * kLowScale),
                                           fmaf(rest.y, -kLowScale, second * kLowScale));
    low = *reinterpret_cast<const uint32_t*>(&lows);
    return *reinterpret_cast<const uint32_t*>(&high);
}

// f16x3: whether a value of x is too small for a split, but not zero.
__device__ __forceinline__ bool is_too_small(float value) {
    return fabsf(value) < kSmallestScaled / kXScale && value != 0.0f;
}

__device__ __forceinline__ uint32_t word_of(const uint4& four, int j) {
    return j % 4 == 0 ? four.x : j % 4 == 1 ? four.y : j % 4 == 2 ? four.z : four.w;
}

// The 16 bytes that begin `shift` elements, less than a piece, behind those of `piece`, which `next` follows.
template <int kElementBytes>
__device__ __forceinline__ uint4 realign(const uint4& piece, const uint4& next, int32_t shift) {
    uint32_t part[8];
#pragma unroll
    for (int j = 0; j < 4; ++j) part[j] = word_of(piece, j), part[4 + j] = word_of(next, j);
    const int32_t bytes = shift * kElementBytes;
#pragma unroll
    for (int j = 0; j < 6; ++j) part[j] = bytes & 8 ? part[j + 2] : part[j];
#pragma unroll
    for (int j = 0; j < 5; ++j) part[j] = bytes & 4 ? part[j + 1] : part[j];
    if constexpr (kElementBytes == 2) {
        const uint32_t selector = bytes & 2 ? 0x5432 : 0x3210;
#pragma unroll
        for (int j = 0; j < 4; ++j) part[j] = __byte_perm(part[j], part[j + 1], selector);
    }
    return make_uint4(part[0], part[1], part[2], part[3]);
}

// fp32 bits of magnitudes, which are ordered as the numbers are: the largest seen, and how many are too small
// for a split by f16x3, but not zero.
struct Range {
    uint32_t largest = 0, small = 0;
    __device__ __forceinline__ void add(uint32_t bits, float scale) {
        const uint32_t magnitude = bits & 0x7FFFFFFF;
        largest = max(largest, magnitude);
        small += magnitude - 1 < __float_as_uint(kSmallestScaled / scale) - 1;
    }
};

// Weights w [G*O][C][K] are packed into blocks in the order in which tiles use them, [G][o_tile][tap
// group][chunk][tap]; a block is the shared-memory image of a tile's output channels x one row of 8 pieces.
// One warp packs some taps of one output channel and 32 channels (64 in 16 bits) at a time: it reads them
// along w, through shared memory, and writes whole rows.
constexpr int kPackThreads = 256;
constexpr int kMostPackTaps = 32;              // at a time
constexpr int kPackPitch = kMostPackTaps + 1;  // of a staged channel: a row's pieces lie in different banks
template <class Bits>
constexpr int kPackChannels = kRowBytes / static_cast<int>(sizeof(Bits));

// What one warp packs at a time.
struct PackUnit {
    int32_t row;           // of the image: [G][o_tile][tile_o]
    int32_t c, tap, taps;  // as products see them
};

// How a row of the image is divided into units.
struct PackUnits {
    int32_t taps;      // of a unit at most
    int32_t segments;  // of a row's taps
    int32_t count;
};

// A warp mostly waits for memory, so where rows are few, units are of few taps (for the weights of 2x86x406
// to 192, K30 g2, 256 warps took 8 us, 2,048 take 2.5).
template <class Bits>
inline PackUnits divide_row(const Geometry& geometry, int64_t rows) {
    constexpr int64_t kFewWarps = 4096;
    const int32_t steps = static_cast<int32_t>(ceil_div(geometry.channels, kPackChannels<Bits>));
    PackUnits units{2 * kMostPackTaps, 0, 0};
    do {
        units.taps /= 2;
        units.segments = static_cast<int32_t>(ceil_div(geometry.taps, units.taps));
        units.count = steps * units.segments;
    } while (units.taps > 4 && rows * units.count < kFewWarps);
    return units;
}

// The i-th of row `row`.
template <class Bits>
__device__ __forceinline__ PackUnit unit_of(const Geometry& geometry, const PackUnits& units, int32_t row,
                                            int32_t i) {
    const int32_t step = i / units.segments, tap = (i - step * units.segments) * units.taps;
    return {row, step * kPackChannels<Bits>, tap, min(units.taps, geometry.taps - tap)};
}

// Channels [c, c + kPackChannels) and the taps of `unit`, of w_row [C][K], to staged[channel][kPackPitch];
// zero where there are none. kTogether loads are on their way at once, from the row's end where there is
// nothing to load: a load under a condition is a branch.
template <int kTogether, class Bits>
__device__ __forceinline__ void stage_weights(Bits* staged, const Bits* w_row, const PackUnit& unit,
                                              bool folded, int32_t C, int32_t K, bool exists) {
    const uint32_t magic = (0xFFFFFFFFu / unit.taps) + 1;  // 2^32 / taps, rounded up
    const int32_t count = kPackChannels<Bits> * unit.taps, lane = threadIdx.x % 32;
    const auto channel_of = [&](int32_t i) { return unit.taps == 1 ? i : __umulhi(i, magic); };
    const auto stage = [&](const Bits* source, int32_t last, auto place_of) {
#pragma unroll 1
        for (int32_t begin = 0; begin < count; begin += 32 * kTogether) {  // count is a multiple of 32
            Bits value[kTogether]{};
#pragma unroll
            for (int j = 0; j < kTogether; ++j) {
                if (begin + 32 * j >= count) break;
                const int32_t i = begin + 32 * j + lane;
                value[j] = __ldg(source + min(place_of(i, channel_of(i)), last));
            }
#pragma unroll
            for (int j = 0; j < kTogether; ++j) {
                if (begin + 32 * j >= count) break;
                const int32_t i = begin + 32 * j + lane, channel = channel_of(i);
                const bool inside = exists && place_of(i, channel) <= last;
                staged[i + channel * (kPackPitch - unit.taps)] = inside ? value[j] : Bits{0};
            }
        }
    };
    __syncwarp();
    if (folded) {
        stage(w_row, C * K - 1, [&](int32_t i, int32_t channel) {
            const int32_t c = unit.c + channel, tap = unit.tap + i - channel * unit.taps;
            const int32_t k = kFold * tap + c % kFold;
            return k < K ? c / kFold * K + k : INT32_MAX;
        });
    } else {
        stage(w_row + int64_t{unit.c} * K + unit.tap, (C - unit.c) * K - unit.tap - 1,
              [&](int32_t i, int32_t channel) { return i + channel * (K - unit.taps); });
    }
    __syncwarp();
}

// 16 bytes of the image: kPieceChannels weights from `staged` on, times `scale`; low: their low parts.
template <Mode kMode>
__device__ __forceinline__ uint4 pack_piece(const typename ModeTraits<kMode>::Bits* staged, bool low,
                                            float scale) {
    uint32_t words[4];
    const auto value = [&](int j) { return __uint_as_float(staged[j * kPackPitch]) * scale; };
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        if constexpr (kMode == Mode::f16x3) {
            uint32_t rest;
            const uint32_t high = split_f16(value(2 * j), value(2 * j + 1), rest);
            words[j] = low ? rest : high;
        } else if constexpr (kMode == Mode::tf32x3) {
            const uint32_t high = ptx::cvt_rn_tf32(value(j));
            words[j] = low ? ptx::cvt_rn_tf32(value(j) - __uint_as_float(high)) : high;
        } else if constexpr (kMode == Mode::tf32) {
            words[j] = round_tf32(staged[j * kPackPitch]);
        } else {
            words[j] = staged[2 * j * kPackPitch] |
                       static_cast<uint32_t>(staged[(2 * j + 1) * kPackPitch]) << 16;
        }
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}

// The first of a row's channels that one of its pieces carries. Where a folded channel's 8 positions fill two
// pieces, the second ones follow all first ones: four neighbouring rows of a channel lie in different banks.
template <Mode kMode>
__device__ __forceinline__ constexpr int32_t first_channel(int32_t piece, bool folded) {
    using Traits = ModeTraits<kMode>;
    constexpr int kHalf = Traits::kPieces / 2;
    if (!folded || Traits::kPieceChannels == kFold) return piece * Traits::kPieceChannels;
    return piece % kHalf * kFold + piece / kHalf * Traits::kPieceChannels;
}

// Staged weights to their rows of the image; kChunkChannels may be less than what is staged.
template <Mode kMode>
__device__ __forceinline__ void pack_staged(const typename ModeTraits<kMode>::Bits* staged,
                                            const PackUnit& unit, const Geometry& geometry, uint8_t* image,
                                            float scale) {
    using Traits = ModeTraits<kMode>;
    constexpr int kChunks = kPackChannels<typename Traits::Bits> / Traits::kChunkChannels;
    const int32_t tile = unit.row / geometry.tile_o, row = unit.row - tile * geometry.tile_o;
#pragma unroll
    for (int part = 0; part < kChunks; ++part) {
        const int32_t chunk = unit.c / Traits::kChunkChannels + part;
        if (chunk >= geometry.chunks) break;
#pragma unroll 1
        for (int32_t i = threadIdx.x % 32; i < unit.taps * 8; i += 32) {
            const int32_t tap = unit.tap + i / 8, piece = i % 8;
            const int32_t tap_group = geometry.tap_groups > 1 ? tap / geometry.taps_per_group : 0;
            const int32_t first_tap = tap_group * geometry.taps_per_group;
            const int64_t block =
                (int64_t{tile} * geometry.taps + first_tap) * geometry.chunks +
                chunk * min(geometry.taps_per_group, geometry.taps - first_tap) + tap - first_tap;
            const int32_t channel = part * Traits::kChunkChannels +
                                    first_channel<kMode>(piece % Traits::kPieces, geometry.folded);
            // By steps: those of a chunk follow each other, in each all taps; rows are not swizzled.
            constexpr int kParts = 8 / Traits::kPieces;  // high, then low
            const int32_t step = piece % Traits::kPieces / 2 * kParts + piece / Traits::kPieces;
            const int64_t place =
                geometry.by_steps
                    ? ((block - tap) * 4 + step * geometry.taps + tap) * (geometry.tile_o * 2) +
                          row / 8 * 16 + piece % 2 * 8 + row % 8
                    : (block * geometry.tile_o + row) * 8 + (piece ^ (row & 7));
            reinterpret_cast<uint4*>(image)[place] =
                pack_piece<kMode>(staged + channel * kPackPitch + i / 8, piece >= Traits::kPieces, scale);
        }
    }
}

// Index of row `row` of the image among the rows of w, or of another where there is none; whether there is.
__device__ __forceinline__ bool find_row_of_w(const Geometry& geometry, int32_t row, int32_t O,
                                              int64_t& w_row) {
    const int32_t group_rows = geometry.o_tiles * geometry.tile_o, group = row / group_rows;
    const int32_t o = row - group * group_rows;
    w_row = int64_t{group} * O + min(o, O - 1);
    return o < O;
}

// A row of the image a warp, and of it every gridDim.y-th unit. Zeroes the tickets.
template <Mode kMode>
__global__ void __launch_bounds__(kPackThreads)
    pack_weights_kernel(const void* __restrict__ w,  // [G*O][C][K]
                        Scratch scratch, Geometry geometry, PackUnits units, int32_t C, int32_t O, int32_t K,
                        int32_t rows) {
#if __CUDA_ARCH__ == 900
    using Bits = typename ModeTraits<kMode>::Bits;
    __shared__ Bits staged[kPackThreads / 32][kPackChannels<Bits> * kPackPitch];
    ptx::griddepcontrol_launch_dependents();
    const int32_t warp = threadIdx.x / 32, row = blockIdx.x * (kPackThreads / 32) + warp;
    if (blockIdx.x + blockIdx.y == 0 && threadIdx.x < 2) scratch.tickets[threadIdx.x] = 0;
    if (row >= rows) return;
    int64_t w_row;
    const bool exists = find_row_of_w(geometry, row, O, w_row);
#pragma unroll 1
    for (int32_t i = blockIdx.y; i < units.count; i += gridDim.y) {
        const PackUnit unit = unit_of<Bits>(geometry, units, row, i);
        stage_weights<8>(staged[warp], static_cast<const Bits*>(w) + w_row * C * K, unit,
                         geometry.folded != 0, C, K, exists);
        pack_staged<kMode>(staged[warp], unit, geometry, scratch.image, 1.0f);
    }
#endif
}

// One output channel a block: finds its scale and packs it for f16x3, and for kSafeMode. Zeroes the tickets
// and empties the list of tiles.
template <Mode kSafeMode>
__global__ void __launch_bounds__(kPackThreads)
    pack_split_weights_kernel(const uint32_t* __restrict__ w,  // fp32 [G*O][C][K]
                              Scratch scratch, Geometry geometry, Geometry safe_geometry, PackUnits units,
                              int32_t C, int32_t O, int32_t K) {
#if __CUDA_ARCH__ == 900
    __shared__ uint32_t staged[kPackThreads / 32][kPackChannels<uint32_t> * kPackPitch];
    __shared__ uint32_t largest, small;
    ptx::griddepcontrol_launch_dependents();
    if (blockIdx.x == 0 && threadIdx.x < 2) scratch.tickets[threadIdx.x] = 0;
    for (int64_t i = blockIdx.x * int64_t{kPackThreads} + threadIdx.x; i < geometry.tiles;
         i += gridDim.x * int64_t{kPackThreads})
        scratch.is_listed[i] = 0;
    int64_t w_row;
    const bool exists = find_row_of_w(geometry, static_cast<int32_t>(blockIdx.x), O, w_row);
    const uint32_t* const row = w + w_row * C * K;
    if (threadIdx.x == 0) largest = small = 0;
    __syncthreads();
    const int32_t weights = exists ? C * K : 0;
    Range range;
    for (int32_t i = threadIdx.x; i < weights; i += kPackThreads) range.add(row[i], 1.0f);
    atomicMax(&largest, range.largest);
    __syncthreads();
    // The largest magnitude's exponent becomes 14; beyond 2^100 either way, the scale itself could overflow.
    const int32_t exponent = static_cast<int32_t>(largest >> 23) - 127;
    const bool scales = exponent > -100 && exponent < 100;
    const float scale = scales ? __uint_as_float(static_cast<uint32_t>(14 - exponent + 127) << 23) : 1.0f;
    range = {};
    for (int32_t i = threadIdx.x; i < weights; i += kPackThreads) range.add(row[i], scale);
    if (range.small > 0) atomicAdd(&small, range.small);
    __syncthreads();
    if (threadIdx.x == 0)
        scratch.row_scaling[blockIdx.x] = make_float2(
            (scales || largest == 0 ? 1.0f : -1.0f) / (scale * kXScale), static_cast<float>(small));
    // The safe image's tiles may have other numbers of rows.
    const int32_t group_rows = geometry.o_tiles * geometry.tile_o;
    const int32_t group = static_cast<int32_t>(blockIdx.x) / group_rows;
    const int32_t o = static_cast<int32_t>(blockIdx.x) - group * group_rows;
    const int32_t safe_rows = safe_geometry.o_tiles * safe_geometry.tile_o;
    for (int32_t i = threadIdx.x / 32; i < units.count; i += kPackThreads / 32) {
        PackUnit unit = unit_of<uint32_t>(geometry, units, blockIdx.x, i);
        uint32_t* const weights_smem = staged[threadIdx.x / 32];
        // Eight together: 1.004 of the time.
        stage_weights<4>(weights_smem, row, unit, geometry.folded != 0, C, K, exists);
        pack_staged<Mode::f16x3>(weights_smem, unit, geometry, scratch.image, scale);
        unit.row = group * safe_rows + o;
        if (o < safe_rows)
            pack_staged<kSafeMode>(weights_smem, unit, safe_geometry, scratch.safe_image, 1.0f);
    }
#endif
}

template <Mode kMode>
void pack_weights(const Problem& problem, const Geometry& geometry, const Scratch& scratch,
                  cudaStream_t stream) {
    const int32_t rows = static_cast<int32_t>(problem.G) * geometry.o_tiles * geometry.tile_o;
    const PackUnits units = divide_row<typename ModeTraits<kMode>::Bits>(geometry, rows);
    const dim3 blocks(static_cast<unsigned>(ceil_div(rows, kPackThreads / 32)),
                      static_cast<unsigned>(min(int64_t{units.count}, kMaxBlockRows)));
    pack_weights_kernel<kMode><<<blocks, kPackThreads, 0, stream>>>(
        problem.w, scratch, geometry, units, static_cast<int32_t>(problem.C), static_cast<int32_t>(problem.O),
        static_cast<int32_t>(problem.K), rows);
}
template <Mode kSafeMode>
void pack_split_weights(const Problem& problem, const Geometry& geometry, const Geometry& safe,
                        const Scratch& scratch, cudaStream_t stream) {
    const unsigned rows = static_cast<unsigned>(problem.G * geometry.o_tiles * geometry.tile_o);
    pack_split_weights_kernel<kSafeMode><<<rows, kPackThreads, 0, stream>>>(
        static_cast<const uint32_t*>(problem.w), scratch, geometry, safe,
        divide_row<uint32_t>(geometry, rows), static_cast<int32_t>(problem.C),
        static_cast<int32_t>(problem.O), static_cast<int32_t>(problem.K));
}

// For all routes that pack so: compiled in gemm_sm90_16bit.cu, a short unit.
#define CONV1D_SM90_PACK(mode) \
    void pack_weights<Mode::mode>(const Problem&, const Geometry&, const Scratch&, cudaStream_t);
#define CONV1D_SM90_PACK_SPLIT(mode)                                                              \
    void pack_split_weights<Mode::mode>(const Problem&, const Geometry&, const Geometry&,         \
                                        const Scratch&, cudaStream_t);
extern template CONV1D_SM90_PACK(tf32)
extern template CONV1D_SM90_PACK(tf32x3)
extern template CONV1D_SM90_PACK(f16)
extern template CONV1D_SM90_PACK(bf16)
extern template CONV1D_SM90_PACK_SPLIT(tf32x3)

// A batch is 64 positions with all channels of a row, loaded and then stored; the batches of all stages go
// round the warps. Neighbouring lanes take neighbouring positions, so global loads run along the rows of x.
// Where these lie side by side a lane takes two, with one load a channel, of an aligned word. If the row
// begins at an odd element, that word holds the second half of a pair and the next lane's the first half of
// the next, so a batch is 62 positions then.
template <Mode kMode, Layout kLayout>
struct Converter {
    using Traits = ModeTraits<kMode>;
    using Bits = typename Traits::Bits;

    const Geometry& geometry;
    const Problem& problem;
    const Barriers& barriers;
    const Scratch& scratch;
    uint8_t* const x_smem;
    const int lane;
    int32_t batch;  // of the current stage
    __half2 largest;  // f16x3: magnitudes of the batch's high parts

    Ring tiles, stages;
    Announcement place;
    const Bits* x_tile;  // x at the tile's sample and group
    int32_t tap_group = 0, chunk = 0;

    __device__ __forceinline__ Converter(const Geometry& geometry, const Problem& problem,
                                         const Barriers& barriers, const Scratch& scratch, uint8_t* x_smem,
                                         int warp, int lane)
        : geometry(geometry),
          problem(problem),
          barriers(barriers),
          scratch(scratch),
          x_smem(x_smem),
          lane(lane),
          batch(warp) {
        stages.parity = 1;
    }

    __device__ __forceinline__ void next_tile() {
        ptx::mbarrier_wait(barriers.tile_full(tiles.stage), tiles.parity);
        place = barriers.tile[tiles.stage];
        __syncwarp();
        if (lane == 0) ptx::mbarrier_arrive(barriers.tile_empty(tiles.stage));
        tiles.advance(kTileSlots);
        x_tile = static_cast<const Bits*>(problem.x) + place.sample * problem.x_stride_n +
                 place.group * problem.C * problem.x_stride_c;
    }

    // Position of x at q = 0 of the window; row t of a sample begins at t*stride.
    __device__ __forceinline__ int32_t window_begin() const {
        return place.row * static_cast<int32_t>(problem.stride) - static_cast<int32_t>(problem.pad_left) +
               ptx::anew(tap_group) * geometry.taps_per_group *
                   (kLayout == Layout::folded ? kFold : static_cast<int32_t>(problem.dilation));
    }

    // Where position q of the window lies in channel c of x; null where it is padding.
    __device__ __forceinline__ const Bits* find(int32_t q, int32_t c) const {
        const int32_t stride = static_cast<int32_t>(problem.stride);
        int32_t l = window_begin() + q;
        const Bits* source = x_tile;
        bool valid = q < geometry.window && place.sample < problem.N;
        if (geometry.flat) {
            int32_t t = place.row + divide_by_stride(geometry, q, stride);
            const int32_t samples = wrap_row(geometry, t);
            source += samples * problem.x_stride_n;
            l -= samples * geometry.rows_per_sample * stride;
            valid = valid && place.sample + samples < problem.N;
        }
        valid = valid && static_cast<uint32_t>(l) < static_cast<uint32_t>(problem.L);
        source += int64_t{l} * geometry.x_stride_l + int64_t{c} * geometry.x_stride_c;
        return valid ? source : nullptr;
    }

    // The chunk's channels at position q of the window, and, where Word holds two elements, at q + 1.
    template <class Word>
    __device__ __forceinline__ void load(Word (&value)[Traits::kChunkChannels], int32_t q) {
        const int32_t c = chunk * Traits::kChunkChannels;
        const Bits* source = find(q, c);
        const int32_t channels = source != nullptr ? static_cast<int32_t>(problem.C) - c : 0;
#pragma unroll
        for (int i = 0; i < Traits::kChunkChannels; ++i, source += geometry.x_stride_c)
            value[i] = i < channels ? __ldg(reinterpret_cast<const Word*>(source)) : Word{};
    }

    // The same at q and q + 1, of which q is at an even position of x, where rows may begin at odd elements.
    using Pair = typename Traits::BitsPair;
    __device__ __forceinline__ void load_ragged(Pair (&value)[Traits::kChunkChannels], int32_t q) {
        const int32_t c = chunk * Traits::kChunkChannels;
        const int32_t l = window_begin() + q, L = static_cast<int32_t>(problem.L);
        const bool exists = place.sample < problem.N && l >= 0;
        const Bits* source = x_tile + l + int64_t{c} * geometry.x_stride_c;
        // Whether the rows of even channels and of odd ones, counted from c, begin at odd elements.
        const uint32_t parity = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(source) / sizeof(Bits));
        const bool odd[2] = {parity % 2 != 0, (parity + geometry.x_stride_c) % 2 != 0};
        const int32_t channels = static_cast<int32_t>(problem.C) - c;
        bool wanted[2];  // the lane before wants the first half of an odd row's word, also behind its end
#pragma unroll
        for (int j = 0; j < 2; ++j)
            wanted[j] = exists && (odd[j] ? q <= geometry.window && l <= L : q < geometry.window && l < L);
        source -= odd[0];
        const int32_t step = geometry.x_stride_c + odd[0] - odd[1];  // from an even channel to the next
#pragma unroll
        for (int i = 0; i < Traits::kChunkChannels; ++i) {
            value[i] = wanted[i % 2] && i < channels ? __ldg(reinterpret_cast<const Pair*>(source)) : Pair{};
            source += i % 2 == 0 ? step : 2 * geometry.x_stride_c - step;
        }
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            if (!odd[j]) continue;
#pragma unroll
            for (int i = j; i < Traits::kChunkChannels; i += 2) {
                if constexpr (Traits::kIsFloat) {
                    const uint32_t next = __shfl_down_sync(0xFFFFFFFF, value[i].x, 1);
                    value[i] = make_uint2(value[i].y, next);
                } else {
                    const uint32_t next = __shfl_down_sync(0xFFFFFFFF, value[i], 1);
                    value[i] = __byte_perm(value[i], next, 0x5432);
                }
            }
        }
        // Words over an end of the row hold an element that is not of it.
        const bool inside[2] = {l >= 0 && l < L, l >= 0 && l + 1 < L};
        if (__all_sync(0xFFFFFFFF, inside[0] && inside[1])) return;
#pragma unroll
        for (int i = 0; i < Traits::kChunkChannels; ++i) {
            if constexpr (Traits::kIsFloat)
                value[i] = make_uint2(inside[0] ? value[i].x : 0, inside[1] ? value[i].y : 0);
            else value[i] &= (inside[0] ? 0xFFFFu : 0u) | (inside[1] ? 0xFFFF0000u : 0u);
        }
    }

    // The row of the current stage that holds position q of the window; `target` is null where no tap reads
    // it.
    struct Row {
        uint8_t* target;
        int32_t swizzle;
    };
    __device__ __forceinline__ Row find_row(int32_t q) const {
        const int32_t stride = static_cast<int32_t>(problem.stride);
        const int32_t row = divide_by_stride(geometry, q, stride), plane = q - row * stride;
        if (q < 0 || q >= geometry.window || !(geometry.plane_mask >> plane & 1)) return {nullptr, 0};
        const int32_t stored_row = row + plane_row(geometry, plane);
        return {x_smem + stages.stage * geometry.x_stage_bytes + stored_row * kRowBytes, stored_row & 7};
    }

    // Rounds or splits the channels of one piece into a row. get_word(i) is channel i's element, or, of 16
    // bits each, those of channels 2*i and 2*i + 1. Returns whether one is too small for f16x3.
    template <class GetWord>
    __device__ __forceinline__ bool store_piece(const Row& row, int32_t piece, GetWord get_word) {
        uint32_t high[4], low[4];
        bool any_small = false;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            if constexpr (kMode == Mode::f16x3) {
                const float first = __uint_as_float(get_word(2 * j));
                const float second = __uint_as_float(get_word(2 * j + 1));
                any_small = any_small || is_too_small(first) || is_too_small(second);
                high[j] = split_f16(first * kXScale, second * kXScale, low[j]);
                largest = __hmax2(largest, __habs2(*reinterpret_cast<const __half2*>(&high[j])));
            } else if constexpr (kMode == Mode::tf32x3) {
                const float value = __uint_as_float(get_word(j));
                high[j] = ptx::cvt_rn_tf32(value);
                low[j] = ptx::cvt_rn_tf32(value - __uint_as_float(high[j]));
            } else if constexpr (kMode == Mode::tf32) {
                high[j] = round_tf32(get_word(j));
            } else {
                high[j] = get_word(j);
            }
        }
        *reinterpret_cast<uint4*>(row.target + ((piece ^ row.swizzle) << 4)) =
            make_uint4(high[0], high[1], high[2], high[3]);
        if constexpr (Traits::kIsSplit)
            *reinterpret_cast<uint4*>(row.target + (((piece + Traits::kPieces) ^ row.swizzle) << 4)) =
                make_uint4(low[0], low[1], low[2], low[3]);
        return any_small;
    }

    // All pieces of position q.
    template <class GetWord>
    __device__ __forceinline__ void store(int32_t q, GetWord get_word) {
        const Row row = find_row(q);
        if (row.target == nullptr) return;
        constexpr int kWords = Traits::kPieceChannels * Traits::kElementBytes / 4;  // of a piece
        bool any_small = false;
#pragma unroll
        for (int piece = 0; piece < Traits::kPieces; ++piece)
            any_small |= store_piece(row, piece, [&](int i) { return get_word(kWords * piece + i); });
        if (any_small) count_small(q, 0, Traits::kChunkChannels);
    }

    // Counts those of `most` of the chunk's channels at position q, where there are some. (One in a million
    // normal numbers is small: reading them again costs less than counting all of them.)
    __device__ __forceinline__ void count_small(int32_t q, int32_t first, int32_t most) {
        const int32_t c = chunk * Traits::kChunkChannels + first;
        const auto* source = reinterpret_cast<const float*>(find(ptx::anew(q), c));
        const int32_t channels = min(most, static_cast<int32_t>(problem.C) - c);
        int32_t count = 0;
#pragma unroll 1
        for (int32_t i = 0; i < channels; ++i, source += geometry.x_stride_c)
            count += is_too_small(__ldg(source));
        atomicAdd(&barriers.small_count[place.counter], count);
    }

    template <bool kRagged>
    __device__ __forceinline__ void convert_pairs() {
        const int32_t q = 2 * ptx::anew(lane) + geometry.batch_positions * batch - (window_begin() & 1);
        Pair value[Traits::kChunkChannels];
        if constexpr (kRagged) load_ragged(value, q);
        else load(value, q);
        claim();
        if (kRagged && lane == 31) return;
        if constexpr (Traits::kIsFloat) {
            store(q, [&](int i) { return value[i].x; });
            store(q + 1, [&](int i) { return value[i].y; });
        } else {
            store(q, [&](int i) { return __byte_perm(value[2 * i], value[2 * i + 1], 0x5410); });
            store(q + 1, [&](int i) { return __byte_perm(value[2 * i], value[2 * i + 1], 0x7632); });
        }
    }

    // Position i of those of the window that are loaded. The first taps read all planes that some tap reads.
    __device__ __forceinline__ int32_t loaded_position(int32_t i) const {
        if (geometry.planes == 0) return i;
        const int32_t stride = static_cast<int32_t>(problem.stride), row = i / geometry.planes;
        const int32_t shift = (i - row * geometry.planes) * static_cast<int32_t>(problem.dilation);
        return row * stride + shift - divide_by_stride(geometry, shift, stride) * stride;
    }

    __device__ __forceinline__ void convert_singles() {
        constexpr int kTogether = Traits::kIsFloat ? 2 : 1;  // runs of 32 positions, as registers allow
#pragma unroll 1
        for (int first = 0; first < 2; first += kTogether) {
            int32_t q[kTogether];
            Bits value[kTogether][Traits::kChunkChannels];
#pragma unroll
            for (int i = 0; i < kTogether; ++i) {
                q[i] = loaded_position(lane + 64 * batch + 32 * (first + i));
                load(value[i], q[i]);
            }
            claim();
#pragma unroll
            for (int i = 0; i < kTogether; ++i) {
                store(q[i], [&](int j) -> uint32_t {
                    if constexpr (Traits::kIsFloat) return value[i][j];
                    else return value[i][2 * j] | static_cast<uint32_t>(value[i][2 * j + 1]) << 16;
                });
            }
        }
    }

    // Channels-last: neighbouring lanes take the pieces of a row, whose channels are neighbours in memory.
    __device__ __forceinline__ void convert_pieces() {
        constexpr int kPositions = 32 / Traits::kPieces;  // of the warp at once
        constexpr int kLoads = Traits::kPieceChannels * Traits::kElementBytes / 16;
        const int32_t piece = lane % Traits::kPieces, first_channel = piece * Traits::kPieceChannels;
        const int32_t c = chunk * Traits::kChunkChannels + first_channel;
        const int32_t q = 64 * batch + lane / Traits::kPieces;  // and every kPositions-th from there on
        const int32_t l = window_begin() + q;
        const int32_t l_end = place.sample < problem.N && c < problem.C ? static_cast<int32_t>(problem.L) : 0;
        const Bits* const source = x_tile + int64_t{l} * geometry.x_stride_l + c;
        uint4 value[64 / kPositions][kLoads];
#pragma unroll
        for (int i = 0; i < 64 / kPositions; ++i) {
            const int32_t step = i * kPositions;
            const Bits* from = source + int64_t{step} * geometry.x_stride_l;
            bool valid = q + step < geometry.window &&
                         static_cast<uint32_t>(l + step) < static_cast<uint32_t>(l_end);
            if (geometry.flat) {
                from = find(q + step, c);
                valid = from != nullptr && l_end > 0;
            }
#pragma unroll
            for (int j = 0; j < kLoads; ++j)
                value[i][j] = valid ? __ldg(reinterpret_cast<const uint4*>(from) + j) : uint4{};
        }
        claim();
        // Where the stride divides kPositions, all lie in one plane, row_step rows apart.
        const int32_t stride = static_cast<int32_t>(problem.stride);
        const int32_t row_step = divide_by_stride(geometry, kPositions, stride);
        const bool in_step = row_step * stride == kPositions;
        const Row first_row = find_row(q);
#pragma unroll
        for (int i = 0; i < 64 / kPositions; ++i) {
            const int32_t step = i * kPositions;
            const bool stored = first_row.target != nullptr && q + step < geometry.window;
            const Row row = !in_step ? find_row(q + step)
                            : stored ? Row{first_row.target + i * row_step * kRowBytes,
                                           (first_row.swizzle + i * row_step) & 7}
                                     : Row{nullptr, 0};
            if (row.target == nullptr) continue;
            const bool any_small = store_piece(row, piece, [&](int j) {
                return word_of(value[i][j / 4], j);
            });
            if (any_small) count_small(q + step, first_channel, Traits::kPieceChannels);
        }
    }

    // The word of the next lane; in lane 31, `behind` of lane 0.
    __device__ __forceinline__ uint4 next_word(const uint4& word, const uint4& behind) const {
        uint32_t part[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const uint32_t first = lane == 0 ? word_of(behind, j) : word_of(word, j);
            part[j] = __shfl_sync(0xFFFFFFFF, first, (lane + 1) % 32);
        }
        return make_uint4(part[0], part[1], part[2], part[3]);
    }

    // 16 bytes of a channel of which the first is at position l, without elements outside of the row of x.
    __device__ __forceinline__ uint4 clip(const uint4& word, int32_t l) const {
        uint32_t part[4];
        const auto inside = [&](int32_t i) {
            return static_cast<uint32_t>(l + i) < static_cast<uint32_t>(problem.L);
        };
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            if constexpr (Traits::kIsFloat) part[j] = inside(j) ? word_of(word, j) : 0;
            else
                part[j] = word_of(word, j) & ((inside(2 * j) ? 0xFFFFu : 0u) |
                                              (inside(2 * j + 1) ? 0xFFFF0000u : 0u));
        }
        return make_uint4(part[0], part[1], part[2], part[3]);
    }

    // f16x3: half a piece of channels, which are neighbours in memory.
    __device__ __forceinline__ void store_half_piece(const Row& row, int32_t piece, int32_t half,
                                                     const uint4& word) {
        const float value[4] = {__uint_as_float(word.x), __uint_as_float(word.y), __uint_as_float(word.z),
                                __uint_as_float(word.w)};
        uint32_t high[2], low[2];
        bool any_small = false;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            any_small = any_small || is_too_small(value[2 * j]) || is_too_small(value[2 * j + 1]);
            high[j] = split_f16(value[2 * j] * kXScale, value[2 * j + 1] * kXScale, low[j]);
            largest = __hmax2(largest, __habs2(*reinterpret_cast<const __half2*>(&high[j])));
        }
        uint8_t* const target = row.target + 8 * half;
        *reinterpret_cast<uint2*>(target + ((piece ^ row.swizzle) << 4)) = make_uint2(high[0], high[1]);
        *reinterpret_cast<uint2*>(target + (((piece + Traits::kPieces) ^ row.swizzle) << 4)) =
            make_uint2(low[0], low[1]);
        if (any_small) {
            int32_t count = 0;
#pragma unroll
            for (int j = 0; j < 4; ++j) count += is_too_small(value[j]);
            atomicAdd(&barriers.small_count[place.counter], count);
        }
    }

    static constexpr int kElements = 16 / Traits::kElementBytes;  // of a word of 16 bytes
    // Folded: words of a channel's row; channels of x in a chunk.
    static constexpr int kHalves = kFold / kElements, kChannels = Traits::kChunkChannels / kFold;

    __device__ __forceinline__ void store_word(const Row& row, int32_t channel, int32_t half,
                                               const uint4& word) {
        if constexpr (kMode == Mode::f16x3) store_half_piece(row, channel, half, word);
        else store_piece(row, half * kChannels + channel, [&](int j) { return word_of(word, j); });
    }

    // Rows of the window behind the last batch, which its warp loads in one go with it: a lane takes a word.
    __device__ __forceinline__ int32_t rest_row() const {
        return geometry.batches * geometry.batch_positions + ptx::anew(lane) / (kChannels * kHalves);
    }
    __device__ __forceinline__ int32_t rest_position() const {
        return window_begin() + rest_row() * kFold + ptx::anew(lane) % kHalves * kElements;
    }
    __device__ __forceinline__ uint4 load_rest() const {
        const int32_t l = rest_position(), L = static_cast<int32_t>(problem.L);
        const int32_t c = chunk * kChannels + lane / kHalves % kChannels;
        const bool valid = c < static_cast<int32_t>(problem.C) && rest_row() < geometry.window &&
                           l > -kElements && l < L;
        const Bits* const source = x_tile + int64_t{c} * geometry.x_stride_c + l;
        return valid ? __ldg(reinterpret_cast<const uint4*>(source)) : uint4{};
    }
    __device__ __forceinline__ void store_rest(const uint4& word) {
        const int32_t q = rest_row();
        if (q >= geometry.window) return;
        uint8_t* const target = x_smem + stages.stage * geometry.x_stage_bytes + q * kRowBytes;
        store_word({target, q & 7}, lane / kHalves % kChannels, lane % kHalves,
                   clip(word, rest_position()));
    }

    // Folded: the channel's positions of a row are neighbours in memory. Neighbouring lanes load neighbouring
    // 16 bytes of a channel. Where rows of x begin between those, they load the aligned ones and exchange.
    template <bool kRagged>
    __device__ __forceinline__ void convert_folded() {
        constexpr int kRows = 32 / kHalves;                        // that a warp loads at once
        constexpr int kLoads = 64 / kRows;
        const int32_t row = geometry.batch_positions * batch + lane / kHalves, half = lane % kHalves;
        const int32_t first_l = window_begin() + geometry.batch_positions * batch * kFold;
        const int32_t l = first_l + lane * kElements, L = static_cast<int32_t>(problem.L);
        const int32_t c = chunk * kChannels;
        const Bits* const source = x_tile + int64_t{c} * geometry.x_stride_c + l;
        const auto shift_of = [&](int32_t channel) {
            return (misalignment<kElements>(source) + channel * geometry.x_stride_c) % kElements;
        };
        const bool takes_rest = !kRagged && geometry.rest > 0 && batch == geometry.batches - 1;
        uint4 rest{};
        if (takes_rest) rest = load_rest();
        uint4 value[kChannels][kLoads];
        const Bits* from = source;
#pragma unroll
        for (int channel = 0; channel < kChannels; ++channel, from += geometry.x_stride_c) {
            const int32_t shift = kRagged ? shift_of(channel) : 0;
            const bool exists = c + channel < static_cast<int32_t>(problem.C);
#pragma unroll
            for (int i = 0; i < kLoads; ++i) {
                const int32_t step = 32 * i * kElements - shift;
                const bool valid = exists && l + step > -kElements && l + step < L &&
                                   row + i * kRows < geometry.window + kRagged;
                value[channel][i] = valid ? __ldg(reinterpret_cast<const uint4*>(from + step)) : uint4{};
            }
        }
        claim();
        const bool is_inside = first_l >= 0 && first_l + 64 * kFold <= L;
        uint8_t* const target = x_smem + stages.stage * geometry.x_stage_bytes + row * kRowBytes;
#pragma unroll
        for (int channel = 0; channel < kChannels; ++channel) {
            const int32_t shift = kRagged ? shift_of(channel) : 0;
#pragma unroll
            for (int i = 0; i < kLoads; ++i) {
                uint4 word = value[channel][i];
                if (kRagged && shift != 0)
                    word = realign<Traits::kElementBytes>(
                        word, next_word(word, value[channel][(i + 1) % kLoads]), shift);
                if (!is_inside) word = clip(word, l + 32 * i * kElements);
                if (row + i * kRows >= geometry.window) continue;
                if (kRagged && i == kLoads - 1 && lane / kHalves == kRows - 1) continue;
                store_word({target + i * kRows * kRowBytes, row & 7}, channel, half, word);
            }
        }
        if (takes_rest) store_rest(rest);
    }

    __device__ __forceinline__ void convert_batch() {
        largest = __half2{};
        if constexpr (kLayout == Layout::channels_last) convert_pieces();
        else if constexpr (kLayout == Layout::folded)
            geometry.ragged ? convert_folded<true>() : convert_folded<false>();
        else if (geometry.ragged) convert_pairs<true>();
        else if (geometry.pairs) convert_pairs<false>();
        else convert_singles();
        if constexpr (kMode == Mode::f16x3) {
            ptx::griddepcontrol_wait();  // for an empty list
            const float2 most = __half22float2(largest);
            if (__any_sync(0xFFFFFFFF, !(most.x < INFINITY && most.y < INFINITY)) && lane == 0)
                list_tile(scratch, place.tile);
        }
    }

    // Waits until the current stage is free; it stays so until this warp leaves it.
    __device__ __forceinline__ void claim() {
        ptx::mbarrier_wait(barriers.x_empty(stages.stage), stages.parity);
    }

    // Brings `batch` back into a stage, leaving those before it; false once there are no more tiles. Every
    // warp claims and leaves every stage, also one in which it has no batch: else the barriers could run two
    // phases ahead of it, which to a parity looks like none.
    __device__ __forceinline__ bool find_stage() {
        while (batch >= geometry.batches) {
            batch -= geometry.batches;
            claim();
            ptx::fence_proxy_async();
            __syncwarp();
            if (lane == 0) ptx::mbarrier_arrive(barriers.x_full(stages.stage));
            stages.advance(geometry.x_stages);
            if (++chunk == geometry.chunks) {
                chunk = 0;
                if (++tap_group == geometry.tap_groups) {
                    tap_group = 0;
                    next_tile();
                    if (place.tile < 0) return false;
                }
            }
        }
        return true;
    }

    __device__ __forceinline__ void run() {
        next_tile();
        if (place.tile < 0) return;
        while (find_stage()) {
            convert_batch();
            batch += kConverterWarps;
        }
    }
};

}  // namespace sm90
}  // namespace conv1d
''',
"launch.cuh": r'''
#line 1 "kernels/launch.cuh"
// Launches that need attributes: clusters of blocks, and kernels that begin early.

#include <cuda_runtime.h>




namespace conv1d {

struct LaunchShape {
    int32_t blocks;
    int32_t cluster;  // blocks of one
    int32_t threads;  // of a block
    int32_t smem_bytes;
    bool overlaps;  // begins while the kernel before it still runs: see ptx::griddepcontrol_wait
    // Of a multiprocessor's shared memory and L1 cache, the percentage that is shared memory; else the driver
    // may leave as much as the kernel before had.
    int32_t smem_percent = cudaSharedmemCarveoutDefault;
};

template <class... Parameters, class... Arguments>
inline Error launch_shaped(void (*kernel)(Parameters...), const LaunchShape& shape, cudaStream_t stream,
                           const Arguments&... arguments) {
    cudaLaunchAttribute attributes[3]{};
    unsigned count = 0;
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {static_cast<unsigned>(shape.cluster), 1, 1};
    if (shape.overlaps) {
        attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attributes[count++].val.programmaticStreamSerializationAllowed = 1;
    }
    if (shape.smem_percent >= 0) {
        attributes[count].id = cudaLaunchAttributePreferredSharedMemoryCarveout;
        attributes[count++].val.sharedMemCarveout = static_cast<unsigned>(shape.smem_percent);
    }
    const cudaLaunchConfig_t config{static_cast<unsigned>(shape.blocks), static_cast<unsigned>(shape.threads),
                                    static_cast<size_t>(shape.smem_bytes), stream, attributes, count};
    cudaLaunchKernelEx(&config, kernel, arguments...);
    return launch_error();
}

}  // namespace conv1d
''',
"tensor_map.cuh": r'''
#line 1 "kernels/tensor_map.cuh"
// Tensor maps: what the copy engine knows of a tensor when it loads boxes of it (ptx::cp_async_bulk_tensor).

#include <cuda.h>
#include <cuda_runtime.h>

#include <atomic>



namespace conv1d {

using TensorMap = CUtensorMap;

// A tensor of up to four axes, the one along memory first, and the box that is loaded at once. Strides are
// those of the axes behind the first, in elements. Swizzled: boxes are rows of 128 bytes, as for wgmma.
struct BoxedTensor {
    const void* base;
    int element_bytes;
    int64_t extents[4];
    int64_t strides[3];
    int32_t box[4];
    bool swizzled;
};

// Describes the tensor's boxes; outside, it reads as zero. What the driver refuses becomes a sentence. The
// driver's function is asked for at run time: nothing links against it.
inline Error encode_tensor_map(const BoxedTensor& tensor, int axes, TensorMap* map) {
    using Encode = decltype(&cuTensorMapEncodeTiled);
    static std::atomic<void*> known{nullptr};
    void* encode = known.load(std::memory_order_relaxed);
    if (encode == nullptr) {
        cudaDriverEntryPointQueryResult found;
        const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000,
                                                                   cudaEnableDefault, &found);
        if (error != cudaSuccess) return cudaGetErrorString(error);
        if (encode == nullptr) return "the driver has no cuTensorMapEncodeTiled";
        known.store(encode, std::memory_order_relaxed);
    }
    cuuint64_t extents[4], strides[3];
    cuuint32_t box[4], steps[4];
    for (int i = 0; i < axes; ++i) {
        extents[i] = static_cast<cuuint64_t>(tensor.extents[i]);
        if (i > 0) strides[i - 1] = static_cast<cuuint64_t>(tensor.strides[i - 1] * tensor.element_bytes);
        box[i] = static_cast<cuuint32_t>(tensor.box[i]);
        steps[i] = 1;
    }
    const CUresult result = reinterpret_cast<Encode>(encode)(
        map, tensor.element_bytes == 4 ? CU_TENSOR_MAP_DATA_TYPE_UINT32 : CU_TENSOR_MAP_DATA_TYPE_UINT16,
        static_cast<cuuint32_t>(axes), const_cast<void*>(tensor.base), extents, strides, box, steps,
        CU_TENSOR_MAP_INTERLEAVE_NONE,
        tensor.swizzled ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE,
        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return result == CUDA_SUCCESS ? nullptr : "the driver refuses the tensor map";
}

// Describes x [N][C][L] for boxes of [1][channels][positions].
inline Error encode_tensor_map(const Problem& problem, int32_t positions, int32_t channels, TensorMap* map) {
    // One sample's stride means nothing and may be zero, which the driver refuses.
    const int64_t stride_n = problem.N == 1 ? problem.C * problem.x_stride_c : problem.x_stride_n;
    return encode_tensor_map(BoxedTensor{problem.x,
                              static_cast<int>(element_bytes(problem.dtype)),
                              {problem.L, problem.C, problem.N},
                              {problem.x_stride_c, stride_n},
                              {positions, channels, 1},
                              false},
                             3, map);
}

}  // namespace conv1d
''',
"window_sm90.cuh": r'''
#line 1 "kernels/window_sm90.cuh"
// Dense convolution on Hopper with x as register operand: the kernel of sliding_sm90.cuh and
// downsample_sm90.cuh, which bring loaders of x.
//
// x stays in shared memory as the copy engine brings it, [channel][position], and is operand A, from
// registers: D[position][output] = x^T * W^T. Two product warpgroups take neighbouring positions of the same
// outputs; the two blocks of a cluster share weights or x. A stage is one step of K of all taps; sums add
// terms in the order of channels, a step at a time, taps within. Other warps order stages, bring each tile's
// constants, and store y, chunk by chunk, while the next tile is multiplied. fp32 runs as three fp16
// products; what those cannot hold is done again by gemm_sm90.cuh, tile by tile (Mode). results/findings.md
// has what was measured.

#include <type_traits>











namespace conv1d {
namespace sm90 {

struct WindowBarriers {
    uint32_t base;
    __device__ __forceinline__ uint32_t full(int stage) const { return base + 8 * stage; }
    __device__ __forceinline__ uint32_t empty(int stage) const { return full(kWindowMostStages + stage); }
    __device__ __forceinline__ uint32_t staged(int chunk) const {
        return full(2 * kWindowMostStages + chunk);
    }
    __device__ __forceinline__ uint32_t stored(int chunk) const { return staged(kWindowMostChunks + chunk); }
    __device__ __forceinline__ uint32_t constants(int tile) const { return stored(kWindowMostChunks + tile); }
    __device__ __forceinline__ uint32_t constants_read(int tile) const { return constants(2 + tile); }
};

template <class Traits>
using ElementOf = std::conditional_t<
    Traits::kIsFloat, float, std::conditional_t<Traits::kMode == Mode::f16, __half, __nv_bfloat16>>;

// f16x3: the parts of values of x of two channels. Adds to `small` how many are too small for a split, of
// those that `counts(j)`.
template <int kCount, class Counts>
__device__ __forceinline__ void split_values(const uint32_t* first, const uint32_t* second,
                                             uint32_t (&parts)[2][kCount], int32_t& small, Counts counts) {
    uint32_t smallest = 0x7FFF7FFF;
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
        parts[0][j] = split_f16(__uint_as_float(first[j]) * kXScale, __uint_as_float(second[j]) * kXScale,
                                parts[1][j]);
        smallest = ptx::min_magnitude_f16(smallest, parts[0][j]);
    }
    if (min(smallest & 0xFFFF, smallest >> 16) <= kSmallestHigh) {  // zeros are counted only now
#pragma unroll
        for (int j = 0; j < kCount; ++j)
            if (counts(j))
                small += is_too_small(__uint_as_float(first[j])) + is_too_small(__uint_as_float(second[j]));
    }
}

struct WindowPlace {
    int32_t group, o;  // the first output, inside the group
    int32_t box;       // the first, of all samples'
};

// Of a tile's outputs. f16x3: what undoes the scales of x and w, and how many weights are too small.
template <int kOutputs>
struct WindowConstants {
    float bias[kOutputs], scale[kOutputs], small[kOutputs];

    // One warp.
    template <class Traits>
    __device__ __forceinline__ void bring(const WindowGeometry& geometry, const Problem& problem,
                                          const Scratch& scratch, const WindowPlace& place, int lane) {
#pragma unroll 1
        for (int i = lane; i < kOutputs; i += 32) {
            const int32_t o = place.o + i;
            const auto* const all = static_cast<const ElementOf<Traits>*>(problem.bias);
            bias[i] = all != nullptr && o < problem.O ? widen(all[place.group * problem.O + o]) : 0.0f;
            if constexpr (Traits::kIsSplit) {
                const float2 scaling = scratch.row_scaling[place.group * geometry.o_tiles * kOutputs + o];
                scale[i] = scaling.x, small[i] = scaling.y;
            }
        }
    }
};

// Tiles of one window of x and all outputs follow each other, so x is shared in L2.
template <class Traits>
__device__ __forceinline__ WindowPlace place_of_pair(const WindowGeometry& geometry, int32_t pair) {
    constexpr int kWindows = kWindowCluster / Traits::kOTiles;
    const int32_t rank = static_cast<int32_t>(ptx::cluster_ctarank());
    const int32_t rest = geometry.o_steps.quotient(pair), windows = geometry.groups.quotient(rest);
    const int32_t o_step = pair - rest * static_cast<int32_t>(geometry.o_steps.divisor);
    const int32_t o_tile = o_step * Traits::kOTiles + (Traits::kSharesX ? rank : 0);
    const int32_t window = windows * kWindows + (Traits::kSharesX ? 0 : rank);
    return {rest - windows * static_cast<int32_t>(geometry.groups.divisor), o_tile * Traits::kOutputs,
            window * Traits::kBoxes};
}
__device__ __forceinline__ int32_t first_pair() { return blockIdx.x / kWindowCluster; }
__device__ __forceinline__ int32_t pair_step() { return gridDim.x / kWindowCluster; }

struct WindowBox {
    int32_t n, p;  // the sample; N where there is none
};
__device__ __forceinline__ WindowBox find_box(const WindowGeometry& geometry, int32_t box) {
    const int32_t n = geometry.sample_boxes.quotient(box);
    return {n, (box - n * static_cast<int32_t>(geometry.sample_boxes.divisor)) * kWindowBox};
}

// How far the window of a box's first position begins behind the box, in elements, in rows of a residue:
// boxes begin at 16-byte pieces.
template <class Traits>
__device__ __forceinline__ int32_t lateness(const Problem& problem, int residue) {
    const int32_t start = residue * static_cast<int32_t>(problem.x_stride_c % Traits::kPiece) -
                          static_cast<int32_t>(problem.pad_left % Traits::kPiece);
    return start & (Traits::kPiece - 1);
}

// What the blocks of a cluster share, each brings a half of to both.
constexpr uint16_t kAllBlocks = (1 << kWindowCluster) - 1;

// One warp: orders each stage's weights and brings each tile's constants.
template <class Traits>
__device__ __forceinline__ void bring_weights(const WindowGeometry& geometry, const Problem& problem,
                                              uint32_t smem, const WindowBarriers& barriers,
                                              const Scratch& scratch,
                                              WindowConstants<Traits::kOutputs>* constants, int lane) {
    constexpr int kBytes = Traits::kSharesX ? Traits::kWeightBytes : Traits::kWeightBytes / kWindowCluster;
    const uint32_t share = Traits::kSharesX ? 0 : ptx::cluster_ctarank() * kBytes;
    ptx::griddepcontrol_wait();  // for packed weights
    Ring ring, tiles;
    ring.parity = tiles.parity = 1;  // empty rings: the first waits return at once
    for (int32_t pair = first_pair(); pair < geometry.pairs; pair += pair_step()) {
        const WindowPlace place = place_of_pair<Traits>(geometry, pair);
        if (ptx::elect()) {
            const int32_t image_tile = place.group * geometry.o_tiles + place.o / Traits::kOutputs;
            const uint8_t* weights =
                scratch.image + int64_t{image_tile} * geometry.image_stages * Traits::kWeightBytes + share;
#pragma unroll 1
            for (int32_t i = 0; i < geometry.stages; ++i, weights += Traits::kWeightBytes) {
                const uint32_t full = barriers.full(ring.stage);
                const uint32_t target = smem + ring.stage * geometry.stage_bytes + share;
                ptx::mbarrier_wait(barriers.empty(ring.stage), ring.parity);
                ptx::mbarrier_arrive_expect_tx(full, geometry.stage_bytes);
                if (Traits::kSharesX) ptx::cp_async_bulk(target, weights, kBytes, full);
                else ptx::cp_async_bulk_multicast(target, weights, kBytes, full, kAllBlocks);
                ring.advance(geometry.ring);
            }
        }
        __syncwarp();
        // Not needed before the tile's last product.
        ptx::mbarrier_wait(barriers.constants_read(tiles.stage), tiles.parity);
        constants[tiles.stage].template bring<Traits>(geometry, problem, scratch, place, lane);
        __syncwarp();
        if (lane == 0) ptx::mbarrier_arrive(barriers.constants(tiles.stage));
        tiles.advance(2);
    }
}

// One thread of each of some warps: orders its part of this block's share of each stage's x.
template <class Traits>
__device__ __forceinline__ void order_x(const WindowGeometry& geometry, const Problem& problem,
                                        const TensorMap& x_map, uint32_t smem, const WindowBarriers& barriers,
                                        int warp) {
    constexpr int kSharers = Traits::kSharesX ? kWindowXWarps * kWindowCluster : kWindowXWarps;
    const int32_t residues = geometry.residues;
    const int32_t sharer = Traits::kSharesX ? ptx::cluster_ctarank() * kWindowXWarps + warp : warp;
    const int32_t boxes = Traits::kBoxes * residues, bytes = geometry.box_bytes / residues;
    const int32_t begin = boxes * sharer / kSharers, end = boxes * (sharer + 1) / kSharers;
    // Stages do not wait for a warp that has none: to it a parity two phases on would look like no change.
    if (begin == end) return;
    const int32_t pad_left = static_cast<int32_t>(problem.pad_left);
    Ring ring;
    ring.parity = 1;
    for (int32_t pair = first_pair(); pair < geometry.pairs; pair += pair_step()) {
        const WindowPlace place = place_of_pair<Traits>(geometry, pair);
        // Of boxes that do not exist, the x of another sample.
        const int32_t last = static_cast<int32_t>(problem.N) - 1;
        WindowBox first = find_box(geometry, place.box + begin / residues);
        first.n = min(first.n, last);
#pragma unroll 1
        for (int32_t c = 0; c < geometry.stages * (Traits::kStageChannels / residues);
             c += Traits::kStageChannels / residues) {
            const uint32_t full = barriers.full(ring.stage);
            ptx::mbarrier_wait(barriers.empty(ring.stage), ring.parity);
            const uint32_t target = smem + ring.stage * geometry.stage_bytes + Traits::kWeightBytes;
            WindowBox box = first;
            int32_t residue = begin % residues;
#pragma unroll 1
            for (int32_t i = begin; i < end; ++i) {
                const int32_t l = box.p * Traits::kStride - pad_left +
                                  residue * static_cast<int32_t>(problem.x_stride_c);
                const int32_t start = l & -Traits::kPiece;
                if (Traits::kSharesX)
                    ptx::cp_async_bulk_tensor_multicast(target + i * bytes, &x_map, start, c, place.group,
                                                        box.n, full, kAllBlocks);
                else
                    ptx::cp_async_bulk_tensor(target + i * bytes, &x_map, start, c, place.group, box.n, full);
                if (++residue < residues) continue;
                residue = 0;
                box.p += kWindowBox;
                if (box.p >= problem.P) box.p = 0, box.n = min(box.n + 1, last);
            }
            ring.advance(geometry.ring);
        }
    }
}

// One of the warps that store: its share of the outputs of each chunk.
template <class Traits, class Element>
struct WindowStore {
    static constexpr int kRows = kWindowChunkOutputs / kWindowStoreWarps;
    static constexpr int kPiece = Traits::kPiece;

    const WindowGeometry& geometry;
    const Problem& problem;
    const WindowBarriers& barriers;
    Element* const staged;  // chunk 0's first output of this warp
    const int warp, lane;

    // Of outputs from y's row `row` on, as many as there are, by vectors that lie in one piece in all rows.
    template <class Vector>
    __device__ __forceinline__ void store(const Element* source, int32_t first_box, int64_t row,
                                          int32_t outputs) const {
        constexpr int kElements = sizeof(Vector) / sizeof(Element);
        constexpr int kLoads = Traits::kStoreRegisters < 40 ? 2 : 4;  // before any is stored
#pragma unroll 1
        for (int column = lane * kElements; column < Traits::kTilePositions; column += 32 * kElements) {
            const WindowBox box = find_box(geometry, first_box + column / kWindowBox);
            const int32_t p = box.p + column % kWindowBox;
            if (box.n >= problem.N || p >= problem.P) continue;
            const Element* const from = source + column;
            Element* y = static_cast<Element*>(problem.y) +
                         (box.n * problem.G * problem.O + row) * problem.P + p;
#pragma unroll
            for (int i = 0; i < kRows; i += kLoads, y += kLoads * problem.P) {
                Vector values[kLoads];
#pragma unroll
                for (int k = 0; k < kLoads; ++k)
                    values[k] = *reinterpret_cast<const Vector*>(from + (i + k) * Traits::kStagedPitch);
#pragma unroll
                for (int k = 0; k < kLoads; ++k)
                    if (i + k < outputs) *reinterpret_cast<Vector*>(y + k * problem.P) = values[k];
            }
        }
    }

    // The same of 16 bits where rows begin anywhere: run by run, of positions of one sample.
    __device__ __forceinline__ void store_apart(const Element* source, int32_t first_box, int64_t row,
                                                int32_t outputs) const {
        WindowBox box = find_box(geometry, first_box);
#pragma unroll 1
        for (int begin = 0; begin < Traits::kTilePositions && box.n < problem.N; box = {box.n + 1, 0}) {
            const int length = min(static_cast<int32_t>(problem.P) - box.p, Traits::kTilePositions - begin);
            const Element* from = source + begin;
            Element* y = static_cast<Element*>(problem.y) +
                         (box.n * problem.G * problem.O + row) * problem.P + box.p;
#pragma unroll 1
            for (int left = min(outputs, kRows); left > 0; --left) {
                store_run(from, y, length);
                from += Traits::kStagedPitch, y += problem.P;
            }
            begin += (length + kWindowBox - 1) / kWindowBox * kWindowBox;
        }
    }

    // Of one row, from a staged piece on: whole pieces of y from two staged ones each; the ends by elements.
    __device__ __forceinline__ void store_run(const Element* from, Element* y, int length) const {
        const int head = min(static_cast<int>(-reinterpret_cast<uintptr_t>(y) / 2 % kPiece), length);
#pragma unroll 1
        for (int piece = lane; head + (piece + 1) * kPiece <= length; piece += 32) {
            const uint4* const source = reinterpret_cast<const uint4*>(from) + piece;
            *reinterpret_cast<uint4*>(y + head + piece * kPiece) = realign<2>(source[0], source[1], head);
        }
        const int tail = (length - head) % kPiece;
        const int at = lane < kPiece ? lane : length - tail + lane - kPiece;
        if (lane < kPiece ? at < head : at < length && lane < 2 * kPiece) y[at] = from[at];
    }

    __device__ __forceinline__ void run() const {
        Ring ring;
        for (int32_t pair = first_pair(); pair < geometry.pairs; pair += pair_step()) {
            const WindowPlace place = place_of_pair<Traits>(geometry, pair);
#pragma unroll 1
            for (int begin = 0; begin < Traits::kOutputs; begin += kWindowChunkOutputs) {
                ptx::mbarrier_wait(barriers.staged(ring.stage), ring.parity);
                Element* const source = staged + ring.stage * (Traits::kStagedBytes / sizeof(Element));
                if (problem.activation != Activation::none) {
                    activate_staged(problem.activation, source, kRows * Traits::kStagedPitch);
                    __syncwarp();
                }
                const int32_t o = place.o + begin + warp * kRows;
                const int64_t row = place.group * problem.O + o;
                const int32_t outputs = static_cast<int32_t>(problem.O) - o;
                if (geometry.vector_bytes == 16) store<uint4>(source, place.box, row, outputs);
                else if (geometry.vector_bytes == 8) store<uint2>(source, place.box, row, outputs);
                else if (geometry.vector_bytes == 4) store<uint32_t>(source, place.box, row, outputs);
                else if constexpr (sizeof(Element) == 2) store_apart(source, place.box, row, outputs);
                __syncwarp();
                if (lane == 0) ptx::mbarrier_arrive(barriers.stored(ring.stage));
                ring.advance(Traits::kChunks);
            }
        }
    }
};

// One of the product warpgroups' threads; the loader holds its part of x and knows which positions it has.
// Its outputs are 8*j + 2t and that + 1 of the tile, where t is lane % 4.
template <class Loader>
struct WindowProduct {
    using Traits = typename Loader::Traits;
    using Element = ElementOf<Traits>;
    using Fragments = typename Loader::Fragments;
    static constexpr bool kIsSplit = Traits::kIsSplit;
    static constexpr int kProducts = Traits::kProducts, kOutputs = Traits::kOutputs;
    static constexpr int kColumns = kIsSplit ? kOutputs / 2 : kOutputs;  // of one product
    static constexpr int kValues = kColumns / 2;
    using Mma = WgmmaFromRegisters<Traits::kOperand, kColumns>;
    // Of two products: 64 positions each, or half of the outputs.
    using Sums = float[2][kValues];

    const WindowGeometry& geometry;
    const Problem& problem;
    const WindowBarriers& barriers;
    const Scratch& scratch;
    const WindowConstants<kOutputs>* const both_constants;  // of two tiles, in turn
    const uint32_t smem;
    Element* const staged;  // chunk 0's first position of this warp, of this lane's first output
    const int warp, lane;   // warp of 8: warpgroup warp / 4
    Loader loader;
    Ring ring, chunk_ring;

    // The next stage, once it is there.
    __device__ __forceinline__ void load_stage(Fragments& fragments) {
        ptx::mbarrier_wait(barriers.full(ring.stage), ring.parity);
        loader.load(fragments, smem + ring.stage * geometry.stage_bytes);
        ring.advance(geometry.ring);
    }

    // The registers of A must not be written between products.
    static __device__ __forceinline__ void settle(Fragments& fragments) {
        auto* const registers = reinterpret_cast<uint32_t*>(&fragments);
#pragma unroll
        for (int i = 0; i < static_cast<int>(sizeof(Fragments) / 4); ++i) ptx::settle(registers[i]);
    }

    // To each block of the cluster, as each brings its share of weights or x to all.
    __device__ __forceinline__ void release(int32_t stage) {
        if (lane < kWindowCluster) ptx::mbarrier_arrive_cluster(ptx::mapa(barriers.empty(stage), lane));
    }

    // The products of all taps: x's high or low part by that of w, of one part of the outputs.
    __device__ __forceinline__ void multiply(float (&sums)[2][kValues], const Fragments& fragments,
                                             uint32_t stage, int outputs, int x_part, int w_part, bool adds) {
        const uint64_t w_first = ptx::wgmma_descriptor_plain<256>(stage / 16);
#pragma unroll
        for (int tap = 0; tap < Traits::kTaps; ++tap) {
            const int offset = w_part * Traits::kWeightPartBytes + (tap * kOutputs + outputs * kColumns) * 32;
#pragma unroll
            for (int product = 0; product < kProducts; ++product)
                Mma::issue(sums[kIsSplit ? outputs : product],
                           Loader::operand(fragments, x_part, tap, product),
                           ptx::wgmma_descriptor_behind(w_first, offset / 16), adds || tap > 0);
        }
    }

    // All products of one tile.
    __device__ __forceinline__ void multiply_tile(Sums& sums) {
        Fragments fragments[2];
        bool accumulate = false;
        int32_t done = -1;  // a stage whose products may still be running
#pragma unroll 1
        for (int32_t first = 0; first < geometry.stages; first += 2) {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                if (i > 0 && first + i == geometry.stages) break;
                const int32_t number = ring.stage;
                load_stage(fragments[i]);
                settle(fragments[i]);
                ptx::wgmma_fence();
                multiply(sums, fragments[i], smem + number * geometry.stage_bytes, 0, 0, 0, accumulate);
                ptx::wgmma_commit_group();
                accumulate = true;
                ptx::wgmma_wait_group<1>();  // the stage before this one is done
                if (done >= 0) release(done);
                done = number;
            }
        }
        ptx::wgmma_wait_group<0>();
        release(done);
    }

    // The same of f16x3, some stages at a time. Products with a low part come first, which are too large by
    // kLowScale; the accumulator truncates, totals round to nearest.
    __device__ __forceinline__ void multiply_split_tile(Sums& total) {
        constexpr int kStages = Traits::kStagesTogether;
#pragma unroll
        for (int i = 0; i < 2 * kValues; ++i) total[i % 2][i / 2] = 0.0f;
        Sums sums;
        Fragments fragments[kStages];
#pragma unroll 1
        for (int32_t first = 0; first < geometry.stages; first += kStages) {
            int32_t number[kStages];
            uint32_t stage[kStages];
#pragma unroll
            for (int i = 0; i < kStages; ++i) {
                number[i] = ring.stage, stage[i] = smem + ring.stage * geometry.stage_bytes;
                load_stage(fragments[i]);
            }
#pragma unroll
            for (int i = 0; i < kStages; ++i) settle(fragments[i]);
            // One half of the outputs is multiplied while the other's sums are added.
#pragma unroll
            for (int outputs = 0; outputs < 2; ++outputs) {
                ptx::wgmma_fence();
#pragma unroll
                for (int i = 0; i < kStages; ++i) {
                    multiply(sums, fragments[i], stage[i], outputs, 1, 0, i > 0);
                    multiply(sums, fragments[i], stage[i], outputs, 0, 1, true);
                }
                ptx::wgmma_commit_group();
            }
#pragma unroll
            for (int outputs = 0; outputs < 2; ++outputs) {
                ptx::wgmma_wait_group<1>();
#pragma unroll
                for (int j = 0; j < kValues; ++j)
                    total[outputs][j] = fmaf(sums[outputs][j], 1 / kLowScale, total[outputs][j]);
                ptx::wgmma_fence();
#pragma unroll
                for (int i = 0; i < kStages; ++i)
                    multiply(sums, fragments[i], stage[i], outputs, 0, 0, i > 0);
                ptx::wgmma_commit_group();
            }
#pragma unroll
            for (int outputs = 0; outputs < 2; ++outputs) {
                if (outputs == 0) ptx::wgmma_wait_group<1>();
                else ptx::wgmma_wait_group<0>();
#pragma unroll
                for (int j = 0; j < kValues; ++j) total[outputs][j] += sums[outputs][j];
            }
#pragma unroll
            for (int i = 0; i < kStages; ++i) release(number[i]);
        }
    }

    // That of output 8*j + 2t + next, of row r of product i.
    static __device__ __forceinline__ float sum_of(const Sums& sums, int i, int j, int r, int next) {
        constexpr int kGroups = kColumns / 8;
        return sums[kIsSplit ? j / kGroups : i][4 * (j % kGroups) + 2 * r + next];
    }

    // f16x3: whether x and weights are in range, and sums large enough for the values that were too small;
    // see kSumOfSmallX.
    __device__ __forceinline__ bool sums_suffice(const Sums& sums, const WindowBox& box,
                                                 const WindowPlace& place,
                                                 const WindowConstants<kOutputs>& constants) const {
        if (box.n >= problem.N || box.p >= problem.P) return true;
        float zero = 0.0f;  // NaN where some sum is not finite: x was too large for a high part, or was not
#pragma unroll
        for (int i = 0; i < 2 * kValues; ++i) zero = fmaf(sums[i % 2][i / 2], 0.0f, zero);
        bool suffice = zero == 0.0f;
        float of_w = 0.0f;
#pragma unroll
        for (int i = 0; i < kOutputs; i += 32) {
            suffice = suffice && constants.scale[i + lane] > 0.0f;
            of_w = fmaxf(of_w, constants.small[i + lane]);
        }
        of_w = __uint_as_float(__reduce_max_sync(0xFFFFFFFF, __float_as_uint(of_w)));
        const float of_x = static_cast<float>(__reduce_add_sync(0xFFFFFFFF, loader.small));
        const float least = kSumOfSmallX * of_x + kSumOfSmallW * of_w;
        if (least > 0.0f) {  // seldom
            float smallest = least;
#pragma unroll
            for (int i = 0; i < 2 * kValues; ++i) {
                const int j = i / 4, next = i % 2, r = i / 2 % 2;
                const bool exists = place.o + 8 * j + 2 * (lane % 4) + next < problem.O &&
                                    box.p + Loader::position(lane, 0, r) < problem.P;
                smallest = exists ? fminf(smallest, fabsf(sum_of(sums, 0, j, r, next))) : smallest;
            }
            suffice = suffice && smallest >= least;
        }
        return __all_sync(0xFFFFFFFF, suffice);
    }

    // To the warps that store, some outputs at a time.
    __device__ __forceinline__ void stage_tile(const Sums& sums, const WindowConstants<kOutputs>& constants) {
        constexpr int kPitch = Traits::kStagedPitch, kGroups = kWindowChunkOutputs / 8;
        // Whose constants are there before the first of them is stored, as registers allow.
        constexpr int kTogether = Traits::kIsTf32 && Traits::kTaps > 3 ? 1 : kGroups;
#pragma unroll
        for (int chunk = 0; chunk < kOutputs / kWindowChunkOutputs; ++chunk) {
            ptx::mbarrier_wait(barriers.stored(chunk_ring.stage), chunk_ring.parity ^ 1);
            Element* const target = staged + chunk_ring.stage * (Traits::kStagedBytes / sizeof(Element));
#pragma unroll
            for (int first = 0; first < kGroups; first += kTogether) {
                Vector<float, 2> bias[kTogether], scale[kTogether];
#pragma unroll
                for (int k = 0; k < kTogether; ++k) {
                    const int o = 8 * (chunk * kGroups + first + k) + 2 * (lane % 4);
                    bias[k] = *reinterpret_cast<const Vector<float, 2>*>(constants.bias + o);
                    if (kIsSplit) scale[k] = *reinterpret_cast<const Vector<float, 2>*>(constants.scale + o);
                }
#pragma unroll
                for (int i = 0; i < 2 * kTogether * Loader::kRuns; ++i) {
                    const int run = i % Loader::kRuns, next = i / Loader::kRuns % 2;
                    const int k = i / Loader::kRuns / 2, j = chunk * kGroups + first + k;
                    Vector<Element, Loader::kRun> values;
#pragma unroll
                    for (int z = 0; z < Loader::kRun; ++z) {
                        float sum = sum_of(sums, Loader::product_of(run, z), j, Loader::row_of(z), next);
                        if (kIsSplit) sum *= scale[k].at[next];
                        values.at[z] = narrow<Element>(sum + bias[k].at[next]);
                    }
                    *reinterpret_cast<Vector<Element, Loader::kRun>*>(
                        target + (8 * (first + k) + next) * kPitch + Loader::run_start(lane, run)) = values;
                }
            }
            __syncwarp();
            if (lane == 0) ptx::mbarrier_arrive(barriers.staged(chunk_ring.stage));
            chunk_ring.advance(Traits::kChunks);
        }
    }

    // A tile in which none of this warpgroup's positions exist.
    __device__ __forceinline__ void skip_tile() {
#pragma unroll 1
        for (int32_t i = 0; i < geometry.stages; ++i) {
            ptx::mbarrier_wait(barriers.full(ring.stage), ring.parity);
            __syncwarp();  // none misses a phase
            release(ring.stage);
            ring.advance(geometry.ring);
        }
#pragma unroll 1
        for (int chunk = 0; chunk < kOutputs / kWindowChunkOutputs; ++chunk) {
            ptx::mbarrier_wait(barriers.stored(chunk_ring.stage), chunk_ring.parity ^ 1);
            __syncwarp();
            if (lane == 0) ptx::mbarrier_arrive(barriers.staged(chunk_ring.stage));
            chunk_ring.advance(Traits::kChunks);
        }
    }

    __device__ __forceinline__ void run() {
        Ring tiles;
        for (int32_t pair = first_pair(); pair < geometry.pairs; pair += pair_step(), tiles.advance(2)) {
            loader.small = 0;
            const WindowPlace place = place_of_pair<Traits>(geometry, pair);
            if (find_box(geometry, place.box + warp / 4 * (Traits::kBoxes / 2)).n >= problem.N) {
                skip_tile();
                ptx::mbarrier_wait(barriers.constants(tiles.stage), tiles.parity);
                __syncwarp();
                if (lane == 0) ptx::mbarrier_arrive(barriers.constants_read(tiles.stage));
                continue;
            }
            WindowBox box = find_box(geometry, place.box + warp / Traits::kWarpsOfBox);
            box.p += warp % Traits::kWarpsOfBox * Traits::kWarpPositions;
            loader.begin_tile(box.p);
            Sums sums;
            if constexpr (kIsSplit) multiply_split_tile(sums);
            else multiply_tile(sums);
            ptx::mbarrier_wait(barriers.constants(tiles.stage), tiles.parity);
            const WindowConstants<kOutputs>& constants = both_constants[tiles.stage];
            if constexpr (kIsSplit) {
                if (!sums_suffice(sums, box, place, constants) && lane == 0) {
                    const auto most = [](int32_t end, int64_t extent) {
                        return min(end, static_cast<int32_t>(extent));
                    };
                    list_overlapped(geometry.safe, problem, scratch, box.n,
                                    {box.p, most(box.p + Traits::kWarpPositions, problem.P)}, place.group,
                                    {place.o, most(place.o + kOutputs, problem.O)});
                }
                __syncwarp();
            }
            stage_tile(sums, constants);
            if (lane == 0) ptx::mbarrier_arrive(barriers.constants_read(tiles.stage));
        }
    }
};

template <class Loader>
__global__ void __launch_bounds__(kWindowThreads, 1)
    window_sm90_kernel(const __grid_constant__ TensorMap x_map, const __grid_constant__ Problem problem,
                        const __grid_constant__ WindowGeometry geometry,
                        const __grid_constant__ Scratch scratch) {
#if __CUDA_ARCH__ == 900
    using Traits = typename Loader::Traits;
    using Element = ElementOf<Traits>;
    constexpr int kOutputs = Traits::kOutputs;
    ptx::griddepcontrol_launch_dependents();
    extern __shared__ uint8_t smem_base[];
    uint8_t* const aligned = smem_base + ((128 - (ptx::smem_address(smem_base) & 127)) & 127);
    const uint32_t smem = ptx::smem_address(aligned);
    uint8_t* const staging = aligned + geometry.ring * geometry.stage_bytes;
    auto* const constants = reinterpret_cast<WindowConstants<kOutputs>*>(staging + Traits::kConstantsOffset);
    const WindowBarriers barriers{ptx::smem_address(staging + Traits::kBarriersOffset)};
    if (threadIdx.x == 0) {
        for (int i = 0; i < kWindowMostStages; ++i) {
            ptx::mbarrier_init(barriers.full(i), 1);
            ptx::mbarrier_init(barriers.empty(i), kProductWarps * kWindowCluster);
        }
        for (int i = 0; i < kWindowMostChunks; ++i) {
            ptx::mbarrier_init(barriers.staged(i), kProductWarps);
            ptx::mbarrier_init(barriers.stored(i), kWindowStoreWarps);
        }
        for (int i = 0; i < 2; ++i) {
            ptx::mbarrier_init(barriers.constants(i), 1);
            ptx::mbarrier_init(barriers.constants_read(i), kProductWarps);
        }
        ptx::fence_mbarrier_init();
    }
    ptx::cluster_sync();
    // Through a shuffle, so that the compiler knows it is the same in the whole warp.
    const int warp = __shfl_sync(0xFFFFFFFF, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
    if (warp < kProductWarps) {
        ptx::setmaxnreg_inc<Traits::kProductRegisters>();
        Element* const staged = reinterpret_cast<Element*>(staging) +
                                2 * (lane % 4) * Traits::kStagedPitch + warp * Traits::kWarpPositions;
        WindowProduct<Loader> product{geometry,  problem, barriers, scratch,
                                      constants, smem, staged, warp, lane,
                                      Loader(geometry, problem, warp, lane)};
        product.run();
    } else if (warp < kProductWarps + kWindowXWarps + 1) {
        ptx::setmaxnreg_dec<Traits::kOrderRegisters>();
        const int other_warp = warp - kProductWarps;
        if (other_warp == kWindowXWarps)
            bring_weights<Traits>(geometry, problem, smem, barriers, scratch, constants,
                                  lane);
        else if (ptx::elect())
            order_x<Traits>(geometry, problem, x_map, smem, barriers, other_warp);
    } else {
        ptx::setmaxnreg_dec<Traits::kStoreRegisters>();
        using Store = WindowStore<Traits, Element>;
        const int store_warp = warp - kProductWarps - kWindowXWarps - 1;
        Element* const staged =
            reinterpret_cast<Element*>(staging) + store_warp * Store::kRows * Traits::kStagedPitch;
        const Store store{geometry, problem, barriers, staged, store_warp, lane};
        store.run();
    }
    ptx::cluster_sync();  // shared memory outlives what other blocks do there
#endif
}

// What the copy engine loads: where rows lie differently, some that follow each other as one.
template <class Traits>
inline BoxedTensor describe_windows(const Problem& problem, const WindowGeometry& geometry) {
    const int64_t residues = geometry.residues, stride_g = problem.C * problem.x_stride_c;
    // One sample's stride means nothing and may be zero, which the driver refuses.
    return {problem.x,
            Traits::kElementBytes,
            {(residues - 1) * problem.x_stride_c + problem.L, problem.C / residues, problem.G, problem.N},
            {residues * problem.x_stride_c, stride_g,
             problem.N == 1 ? problem.G * stride_g : problem.x_stride_n},
            {Traits::pitch(geometry.residues), static_cast<int32_t>(Traits::kStageChannels / residues), 1, 1},
            false};
}

template <class Loader>
inline Error launch_window_products(const Problem& problem, const Scratch& scratch, cudaStream_t stream) {
    using Traits = typename Loader::Traits;
    const WindowGeometry geometry = cut_windows<Traits>(problem);
    TensorMap x_map;
    Error error = encode_tensor_map(describe_windows<Traits>(problem, geometry), 4, &x_map);
    if (error == nullptr) error = allow_smem<window_sm90_kernel<Loader>>(problem.device);
    if (error != nullptr) return error;
    const int blocks = min(geometry.pairs, clusters_of(problem)) * kWindowCluster;
    return launch_shaped(window_sm90_kernel<Loader>,
                         {blocks, kWindowCluster, kWindowThreads, geometry.smem_bytes, true}, stream, x_map,
                         problem, geometry, scratch);
}

template <class Loader>
Error launch_windows(const Problem& problem, cudaStream_t stream) {
    using Traits = typename Loader::Traits;
    const Geometry packed = packing_of<Traits>(problem);
    Scratch scratch;
    lay_out<Traits::kMode>(problem, packed, static_cast<uint8_t*>(problem.workspace), &scratch);
    if constexpr (Traits::kMode == Mode::f16x3) {
        const Geometry safe = choose_cut<Mode::tf32x3>(problem).geometry;
        pack_split_weights<Mode::tf32x3>(problem, packed, safe, scratch, stream);
        const Error error = launch_window_products<Loader>(problem, scratch, stream);
        return error == nullptr ? launch_listed_tiles(problem, scratch, stream) : error;
    } else {
        pack_weights<Traits::kMode>(problem, packed, scratch, stream);
        return launch_window_products<Loader>(problem, scratch, stream);
    }
}

}  // namespace sm90
}  // namespace conv1d
''',
"downsample_sm90.cuh": r'''
#line 1 "kernels/downsample_sm90.cuh"
// Dense convolution of three taps at a stride of 2 on Hopper, the downsampling of audio and speech models:
// window_sm90.cuh with a loader that reads four words of a channel at once and one from the lane beside it,
// the windows of two neighbouring positions (four of 16 bits), from which it takes all three taps. Rows that
// do not begin at 16-byte pieces are loaded by their residue: four (eight of 16 bits) neighbouring channels
// make one row of a tensor map, and the lanes' channels begin in different banks.

#include <type_traits>








namespace conv1d {
namespace sm90 {

// Lane 4*g + t holds, of a step of 32 bytes of K, words t and t + 4: channels t and t + 4, or, of 16 bits and
// split operands, 2t, 2t + 1 and those + 8. fp32: of positions 2g and 2g + 1 of each 16 of its warp; 16 bits:
// of positions 4g to 4g + 3 of its 32.
template <class Traits_>
struct DownLoader {
    using Traits = Traits_;
    static constexpr bool kIsSplit = Traits::kIsSplit;
    static constexpr int kProducts = Traits::kProducts, kParts = Traits::kParts;
    static constexpr int kTogether = Traits::kTogether;

    // In the staged rows of y.
    static constexpr int kRuns = Traits::kIsTf32 ? 2 : 1, kRun = Traits::kIsFloat ? 2 : 4;
    static __device__ __forceinline__ int run_start(int lane, int run) {
        return 16 * run + kRun * (lane / 4);
    }
    static __device__ __forceinline__ constexpr int product_of(int run, int z) {
        return Traits::kIsFloat ? run : z / 2;
    }
    static __device__ __forceinline__ constexpr int row_of(int z) { return z % 2; }
    static __device__ __forceinline__ int position(int lane, int product, int row) {
        return Traits::kIsFloat ? 16 * product + 2 * (lane / 4) + row : 4 * (lane / 4) + 2 * product + row;
    }

    struct Fragments {
        uint32_t part[kParts][Traits::kTaps][kProducts][4];  // high, then low
    };
    static __device__ __forceinline__ const uint32_t (&operand(const Fragments& fragments, int part, int tap,
                                                               int product))[4] {
        return fragments.part[part][tap][product];
    }

    const int lane;
    const bool apart, odd_padding;    // rows begin between 16-byte pieces; windows at odd elements
    uint32_t lane_offset[kTogether];  // of this lane's first channels and positions, in a stage
    uint32_t half_step;               // from words t to words t + 4
    bool odd[kTogether];              // 16 bits: positions begin at the second half of a word
    int32_t small;                    // f16x3: values of x too small for a split

    __device__ __forceinline__ DownLoader(const WindowGeometry& geometry, const Problem& problem, int warp,
                                          int lane)
        : lane(lane),
          apart(geometry.residues > 1),
          odd_padding(static_cast<uint32_t>(problem.pad_left) % 2 != 0) {
        const int g = lane / 4, t = lane % 4;
        constexpr int kBytes = Traits::kElementBytes, kResidues = Traits::kPiece;
        const int pitch = Traits::pitch(geometry.residues) * kBytes;
        const int rows = Traits::kIsTf32 ? 4 : 8;  // of channels between words t and t + 4
        half_step = rows / geometry.residues * pitch;
#pragma unroll
        for (int u = 0; u < kTogether; ++u) {
            const int channel = kTogether * t + u;
            int place = channel * pitch + (odd_padding ? 16 : 0);
            odd[u] = odd_padding;
            if (apart) {
                const int residue = channel % kResidues, late = lateness<Traits>(problem, residue);
                place = residue * (geometry.box_bytes / kResidues) + channel / kResidues * pitch +
                        (Traits::kIsFloat ? late : late / 2) * 4;
                odd[u] = !Traits::kIsFloat && late % 2 != 0;
            }
            lane_offset[u] = Traits::kWeightBytes + warp / Traits::kWarpsOfBox * geometry.box_bytes +
                             warp % Traits::kWarpsOfBox * Traits::kWarpPositions * Traits::kStride * kBytes +
                             16 * g + place;
        }
    }

    __device__ __forceinline__ void begin_tile(int32_t) {}

    // Of each channel, five words that follow each other: the windows of this lane's two neighbouring fp32
    // positions or four of 16 bits. kSpans: of 16 fp32 positions each, 128 bytes apart.
    static constexpr int kSpans = Traits::kIsTf32 ? 2 : 1;
    static constexpr int kHalves = kIsSplit ? 1 : 2;  // at once: as registers allow
    using Words = uint32_t[kHalves][kTogether][kSpans][5];

    // Of rows that begin at 16-byte pieces: four from memory, one from the lane beside. kOddPadding: that is
    // the first, else the last.
    template <bool kOddPadding>
    __device__ __forceinline__ void load_aligned(Words& words, uint32_t stage) const {
        const int g = lane / 4;
        uint4 four[kHalves][kTogether][kSpans];
        uint32_t beside[kHalves][kTogether];
#pragma unroll
        for (int half = 0; half < kHalves; ++half) {
#pragma unroll
            for (int u = 0; u < kTogether; ++u) {
                const uint32_t source = stage + lane_offset[u] + half * half_step;
#pragma unroll
                for (int i = 0; i < kSpans; ++i) ptx::ld_shared(four[half][u][i], source + 128 * i);
                beside[half][u] = 0;
                if (kOddPadding) ptx::ld_shared_if(g == 0, beside[half][u], source - 4);
                else ptx::ld_shared_if(g == 7, beside[half][u], source + 128 * (kSpans - 1) + 16);
            }
        }
#pragma unroll
        for (int half = 0; half < kHalves; ++half) {
#pragma unroll
            for (int u = 0; u < kTogether; ++u) {
                uint32_t from_lane[kSpans];
#pragma unroll
                for (int i = 0; i < kSpans; ++i) {
                    const uint4& own = four[half][u][i];
                    from_lane[i] = __shfl_sync(0xFFFFFFFF, kOddPadding ? own.w : own.x,
                                               (lane + (kOddPadding ? 28 : 4)) % 32);
                }
#pragma unroll
                for (int i = 0; i < kSpans; ++i) {
                    const uint4& own = four[half][u][i];
                    const int other = kOddPadding ? i - 1 : i + 1;  // the span that goes on beyond this one
                    const bool is_there = other >= 0 && other < kSpans;
                    const uint32_t beyond = is_there ? from_lane[is_there ? other : 0] : beside[half][u];
                    const uint32_t fifth = g == (kOddPadding ? 0 : 7) ? beyond : from_lane[i];
                    constexpr int kFirst = kOddPadding ? 1 : 0;
                    auto& five = words[half][u][i];
                    five[kOddPadding ? 0 : 4] = fifth;
                    five[kFirst] = own.x, five[kFirst + 1] = own.y;
                    five[kFirst + 2] = own.z, five[kFirst + 3] = own.w;
                }
            }
        }
    }

    __device__ __forceinline__ void load_words(Words& words, uint32_t stage) const {
        if (apart) {
#pragma unroll
            for (int i = 0; i < kHalves * kTogether * kSpans * 5; ++i) {
                const int j = i % 5, span = i / 5 % kSpans, u = i / 5 / kSpans % kTogether;
                const int half = i / 5 / kSpans / kTogether;
                ptx::ld_shared(words[half][u][span][j],
                               stage + lane_offset[u] + half * half_step + 128 * span + 4 * j);
            }
        } else if (odd_padding) {
            load_aligned<true>(words, stage);
        } else {
            load_aligned<false>(words, stage);
        }
    }

    // All of one stage of x, as operand A of the products of its taps.
    // Split operands take one half, words t or t + 4, at a time.
    __device__ __forceinline__ void load_fragments(Fragments& fragments, uint32_t stage, int first_half) {
        Words words;
        load_words(words, stage + first_half * half_step);
#pragma unroll
        for (int i = 0; i < kHalves; ++i) {
            const int half = first_half + i;
            auto& channels = words[i];
            if constexpr (Traits::kIsTf32) {
#pragma unroll
                for (int product = 0; product < kProducts; ++product) {
                    uint32_t(&five)[5] = channels[0][product];
#pragma unroll
                    for (int j = 0; j < 5; ++j) five[j] = round_tf32(five[j]);
#pragma unroll
                    for (int tap = 0; tap < Traits::kTaps; ++tap) {
#pragma unroll
                        for (int r = 0; r < 2; ++r)
                            fragments.part[0][tap][product][2 * half + r] = five[tap + 2 * r];
                    }
                }
            } else if constexpr (kIsSplit) {
                split_words(fragments, channels[0][0], channels[1][0], half);
            } else {
                take_halves(fragments, channels[0][0], channels[1][0], half);
            }
        }
    }

    // f16x3: two channels' words, of two positions.
    __device__ __forceinline__ void split_words(Fragments& fragments, const uint32_t (&even)[5],
                                                const uint32_t (&odd_ones)[5], int half) {
        uint32_t parts[2][5];
        split_values(even, odd_ones, parts, small, [](int) { return true; });
#pragma unroll
        for (int part = 0; part < kParts; ++part) {
#pragma unroll
            for (int tap = 0; tap < Traits::kTaps; ++tap) {
#pragma unroll
                for (int r = 0; r < 2; ++r)
                    fragments.part[part][tap][0][2 * half + r] = parts[part][tap + 2 * r];
            }
        }
    }

    // 16 bits: of two channels the numbers of four positions. Position z's tap k is number 2*z + k of the
    // channel's words, or the one behind it.
    __device__ __forceinline__ void take_halves(Fragments& fragments, const uint32_t (&first)[5],
                                                const uint32_t (&second)[5], int half) const {
        const uint32_t outer = (odd[0] ? 0x32 : 0x10) | (odd[1] ? 0x7600 : 0x5400);
        const uint32_t inner = (odd[0] ? 0x10 : 0x32) | (odd[1] ? 0x5400 : 0x7600);
#pragma unroll
        for (int z = 0; z < 4; ++z) {
            const uint32_t middle[2] = {odd[0] ? first[z + 1] : first[z], odd[1] ? second[z + 1] : second[z]};
            auto& taps = fragments.part[0];
            const int i = z / 2, at = 2 * half + z % 2;
            taps[0][i][at] = __byte_perm(first[z], second[z], outer);
            taps[1][i][at] = __byte_perm(middle[0], middle[1], inner);
            taps[2][i][at] = __byte_perm(first[z + 1], second[z + 1], outer);
        }
    }

    __device__ __forceinline__ void load(Fragments& fragments, uint32_t stage) {
#pragma unroll
        for (int half = 0; half < 2; half += kHalves) load_fragments(fragments, stage, half);
    }
};

}  // namespace sm90

inline Error launch_downsample_sm90(const Problem& problem, cudaStream_t stream) {
    return sm90::with_mode(problem, [&](auto mode) {
        using Traits = sm90::DownTraits<decltype(mode)::value>;
        return sm90::launch_windows<sm90::DownLoader<Traits>>(problem, stream);
    });
}

}  // namespace conv1d
''',
"downsample_sm90.cu": r'''
#line 1 "kernels/downsample_sm90.cu"
// The translation unit of route "downsample_sm90".



const conv1d::Route conv1d::kDownsampleSm90 = {"downsample_sm90", fits_downsample_sm90,
                                               workspace_downsample_sm90, launch_downsample_sm90};
''',
"few_outputs_project.cuh": r'''
#line 1 "kernels/few_outputs_project.cuh"
// "project": few outputs of few taps (O*K <= kRows). t[o, k, l] = sum over c of w[o, c, k] * x[c, l], which
// reads each x once; then y[o, p] = sum over k of t[o, k, l], through shared memory. Of fp32 a thread has
// some positions l, and multiplies in fp32; of 16 bits a warp has 256, and multiplies by tensor cores, x
// being transposed on the way from shared memory.

#include <algorithm>






namespace conv1d {
namespace few {

constexpr int kRows = 8;           // of t, at most: (o, k)
template <class Element>
constexpr int kProjectThreads = sizeof(Element) == 2 ? 64 : 128;
constexpr int64_t kMostChannels = 1024;  // whose weights of all rows share a block's memory with x
constexpr int kStageChannels = 16;       // 16 bits: of a stage of x, as many as a product sums
constexpr int kRowPad = 4;  // of t, so that lanes that hold several rows meet in no bank
template <class Element>
constexpr int kThreadL = 16 / sizeof(Element);  // neighbours that a thread loads
constexpr int kAhead = 16;                      // fp32: channels that are on their way

struct ProjectParams {
    Problem problem;
    int32_t threads;
    int32_t tile_p;  // output positions of a block
    int64_t p_tiles, tiles;
    size_t smem_bytes;
};

// What a block works on, and where its thread's x begins.
template <class Element>
struct ProjectPlace {
    int64_t n, g, p_begin;
    int32_t lead;  // positions between the block's first one, which is aligned, and the first that y needs
    bool in;       // whether the thread's positions lie in the row: all do, or none
    const Element* x;

    __device__ __forceinline__ explicit ProjectPlace(const ProjectParams& params) {
        const Problem& problem = params.problem;
        const uint32_t sample = blockIdx.x / static_cast<uint32_t>(params.p_tiles);
        n = sample / static_cast<uint32_t>(problem.G);
        g = sample - n * problem.G;
        p_begin = (blockIdx.x - sample * params.p_tiles) * params.tile_p;
        const int64_t l_needed = p_begin * problem.stride - problem.pad_left;
        lead = static_cast<int32_t>(l_needed & (kThreadL<Element> - 1));
        const int64_t l = l_needed - lead + static_cast<int64_t>(threadIdx.x) * kThreadL<Element>;
        in = static_cast<uint64_t>(l) < static_cast<uint64_t>(problem.L);
        x = static_cast<const Element*>(problem.x) + n * problem.x_stride_n +
            g * problem.C * problem.x_stride_c + (in ? l : 0);
    }
};

// y from t, whose rows are `pitch` apart.
template <class Element>
__device__ __forceinline__ void sum_taps(const ProjectParams& params, const ProjectPlace<Element>& place,
                                         const float* t_smem, int32_t pitch) {
    const Problem& problem = params.problem;
    const int32_t taps = static_cast<int32_t>(problem.K), stride = static_cast<int32_t>(problem.stride);
    const int32_t tap_step = pitch + static_cast<int32_t>(problem.dilation);  // from a tap to the next
    const int32_t outputs = static_cast<int32_t>(min(problem.P - place.p_begin, int64_t{params.tile_p}));
    for (int32_t o = 0; o < problem.O; ++o) {
        const int64_t channel = place.g * problem.O + o;
        float bias = 0;
        if (problem.bias != nullptr) bias = widen(static_cast<const Element*>(problem.bias)[channel]);
        Element* y = static_cast<Element*>(problem.y) +
                     (place.n * problem.G * problem.O + channel) * problem.P + place.p_begin;
#pragma unroll 4
        for (int32_t p = threadIdx.x; p < outputs; p += params.threads) {
            const float* t = t_smem + o * taps * pitch + p * stride + place.lead;
            float total = 0;
            for (int32_t k = 0; k < taps; ++k) total += t[k * tap_step];
            y[p] = problem.activation == Activation::none
                       ? narrow<Element>(total + bias)
                       : activate<Element, true>(problem.activation, total + bias);
        }
    }
}

template <class Element>
__global__ void __launch_bounds__(kProjectThreads<Element>, 4)
    few_outputs_project_kernel(const __grid_constant__ ProjectParams params) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    constexpr int kCount = kThreadL<Element>;
    using Values = Vector<Element, kCount>;
    extern __shared__ __align__(16) unsigned char smem[];
    const Problem& problem = params.problem;
    const int32_t tile_l = kCount * params.threads;
    const int32_t channels = static_cast<int32_t>(problem.C), taps = static_cast<int32_t>(problem.K);
    const int32_t rows = static_cast<int32_t>(problem.O) * taps;
    const int32_t w_count = channels * kRows;
    float* const w_smem = reinterpret_cast<float*>(smem);  // [channel][kRows]
    float* const t_smem = w_smem + w_count;                // [row][tile_l], and before that x
    ProjectPlace<Element> place(params);
    // Each thread copies for itself, kAhead channels ahead, what only it reads.
    auto* const ring = reinterpret_cast<Values*>(t_smem) + threadIdx.x;  // [kAhead][threads]
    const auto copy = [&](int32_t c, int32_t slot) {
        const bool exists = place.in && c < channels;
        ptx::cp_async_16(ptx::smem_address(ring + slot * params.threads), place.x, exists ? 16 : 0);
        ptx::cp_async_commit_group();
        if (c + 1 < channels) place.x += problem.x_stride_c;
    };
#pragma unroll 1
    for (int32_t c = 0; c < kAhead; ++c) copy(c, c);
    const Element* const w = static_cast<const Element*>(problem.w) + place.g * rows * channels;
    for (int32_t i = threadIdx.x; i < w_count; i += params.threads) {
        const int32_t c = i / kRows, row = i % kRows;
        const int32_t o = row / taps, k = row - o * taps;
        w_smem[i] = row < rows ? w[(o * channels + c) * taps + k] : 0;
    }
    __syncthreads();

    float sum[kRows][kCount] = {};
    int32_t slot = 0;
#pragma unroll 1
    for (int32_t c = 0; c < channels; ++c) {
        ptx::cp_async_wait_group<kAhead - 1>();
        const Values values = ring[slot * params.threads];
#pragma unroll
        for (int row = 0; row < kRows; row += 4) {
            const auto w_frag = *reinterpret_cast<const Vector<float, 4>*>(w_smem + c * kRows + row);
#pragma unroll
            for (int v = 0; v < 4; ++v) {
#pragma unroll
                for (int j = 0; j < kCount; ++j) sum[row + v][j] += w_frag.at[v] * values.at[j];
            }
        }
        copy(c + kAhead, slot);
        slot = slot + 1 < kAhead ? slot + 1 : 0;
    }
    ptx::cp_async_wait_all();
    __syncthreads();  // t may lie where x lay
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
        if (i >= rows) break;
        Values piece;
#pragma unroll
        for (int j = 0; j < kCount; ++j) piece.at[j] = sum[i][j];
        reinterpret_cast<Values*>(t_smem + i * tile_l)[threadIdx.x] = piece;
    }
    __syncthreads();
    sum_taps(params, place, t_smem, tile_l);
#endif
}

// Small blocks of one stage, so that others have theirs on the way while one multiplies or stores (two
// stages and half as many blocks: hifigan_post 46 us instead of 44). A stage holds kStageChannels rows of a
// warp's x, of 32 pieces of 16 bytes; piece i of row c lies at i ^ c % 8, so that the 8 rows of a matrix
// meet in no bank.
template <class Element>
__global__ void __launch_bounds__(kProjectThreads<Element>, 7)
    few_outputs_project_16bit_kernel(const __grid_constant__ ProjectParams params) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    constexpr int kRowBytes = 512, kStageBytes = kStageChannels * kRowBytes;
    constexpr int kTiles = 16;  // of 16 positions, a product each
    extern __shared__ __align__(16) unsigned char smem[];
    const Problem& problem = params.problem;
    const int32_t pitch = kThreadL<Element> * params.threads + kRowPad;
    const int32_t channels = static_cast<int32_t>(problem.C), taps = static_cast<int32_t>(problem.K);
    const int32_t rows = static_cast<int32_t>(problem.O) * taps;
    const int32_t stages = (channels + kStageChannels - 1) / kStageChannels;
    Element* const w_smem = reinterpret_cast<Element*>(smem);  // [stage][lane][4]: its b of a product
    const int32_t w_count = stages * kStageChannels * kRows;
    unsigned char* const x_smem = smem + w_count * sizeof(Element);  // [warp], and later t
    ProjectPlace<Element> place(params);
    const int32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t stage = ptx::smem_address(x_smem) + warp * kStageBytes;
    int32_t c_next = 0;
    const auto copy = [&] {
#pragma unroll
        for (int i = 0; i < kStageChannels; ++i) {
            const bool exists = place.in && c_next < channels;
            ptx::cp_async_16(stage + i * kRowBytes + ((lane ^ i % 8) * 16), place.x, exists ? 16 : 0);
            if (++c_next < channels) place.x += problem.x_stride_c;
        }
        ptx::cp_async_commit_group();
    };
    copy();
    const Element* const w = static_cast<const Element*>(problem.w) + place.g * rows * channels;
    for (int32_t i = threadIdx.x; i < w_count; i += params.threads) {
        const int32_t c = i / kRows, row = i % kRows;
        const int32_t o = row / taps, k = row - o * taps;
        const int32_t to_lane = row * 4 + c % 8 / 2, word = c % kStageChannels / 8;
        const bool exists = row < rows && c < channels;
        w_smem[((c / kStageChannels * 32 + to_lane) * 2 + word) * 2 + c % 2] =
            exists ? w[(o * channels + c) * taps + k] : narrow<Element>(0);
    }
    __syncthreads();

    // The row of a matrix whose address this lane gives: matrices are 8 channels by 8 positions, first the
    // two of the first 8 channels.
    const int32_t channel = lane / 16 * 8 + lane % 8, piece = lane / 8 % 2;
    const uint32_t x_row = stage + channel * kRowBytes;
    float sum[kTiles][4] = {};
#pragma unroll 1
    for (int32_t s = 0; s < stages; ++s) {
        ptx::cp_async_wait_group<0>();
        __syncwarp();
        const uint2 b = reinterpret_cast<const uint2*>(w_smem)[s * 32 + lane];
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
            uint32_t words[4];
            ptx::ldmatrix_x4_trans(words, x_row + (((2 * tile + piece) ^ channel % 8) * 16));
            const uint4 a = {words[0], words[1], words[2], words[3]};
            ptx::mma<Element>(sum[tile], a, b);
        }
        __syncwarp();  // x has been read by all lanes
        copy();
    }
    ptx::cp_async_wait_all();
    __syncthreads();  // t may lie where x lay
    float* const t_smem = reinterpret_cast<float*>(x_smem);  // [row][pitch]
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int32_t row = lane % 4 * 2 + i % 2;
            const int32_t position = warp * 256 + tile * 16 + i / 2 * 8 + lane / 4;
            if (row < rows) t_smem[row * pitch + position] = sum[tile][i];
        }
    }
    __syncthreads();
    sum_taps(params, place, t_smem, pitch);
#endif
}

// tiles is 0 where the problem does not suit.
template <class Element>
ProjectParams plan_project(const Problem& problem) {
    constexpr bool k16Bit = sizeof(Element) == 2;
    ProjectParams params{};
    params.problem = problem;
    if (problem.O > kRows || problem.K > kRows || problem.O * problem.K > kRows ||
        problem.C > kMostChannels || problem.stride > problem.K || problem.dilation > 512) {
        return params;
    }
    const auto in_vectors = [](int64_t count) { return count % kThreadL<Element> == 0; };
    if (problem.device.arch < 80 || problem.x_stride_l != 1 || !in_vectors(problem.L) ||
        !in_vectors(problem.x_stride_c) || !in_vectors(problem.x_stride_n) ||
        reinterpret_cast<uintptr_t>(problem.x) % 16 != 0) {
        return params;
    }
    const int64_t span = (problem.K - 1) * problem.dilation + kThreadL<Element> - 1;
    const int64_t most_bytes = k16Bit ? problem.device.smem_bytes : kPlainSmemBytes;
    const auto set = [&](int64_t threads) {
        const int64_t tile_l = threads * kThreadL<Element>;
        params.threads = static_cast<int32_t>(threads);
        params.tile_p = static_cast<int32_t>(tile_l > span ? (tile_l - 1 - span) / problem.stride + 1 : 0);
        const int64_t t_bytes = problem.O * problem.K * (tile_l + kRowPad) * sizeof(float);
        const int64_t x_bytes = threads * 16 * (k16Bit ? kStageChannels : kAhead);
        const int64_t w_count = (k16Bit ? round_up(problem.C, kStageChannels) : problem.C) * kRows;
        params.smem_bytes = w_count * sizeof(Element) + std::max(t_bytes, x_bytes);
        if (static_cast<int64_t>(params.smem_bytes) > most_bytes || 2 * span > tile_l) return false;
        params.p_tiles = ceil_div(problem.P, params.tile_p);
        params.tiles = params.p_tiles * problem.G * problem.N;
        if (params.tiles > kMaxBlocks) params.tiles = 0;
        return params.tiles > 0;
    };
    // The largest block that fits, or a smaller one where that leaves multiprocessors without work or is much
    // longer than a row.
    int64_t threads = kProjectThreads<Element>;
    while (threads > 64 && !set(threads)) threads /= 2;
    if (!set(threads)) {
        params.tiles = 0;
        return params;
    }
    while (threads > 64 && 8 * span <= threads * kThreadL<Element> &&
           (params.tiles < 4 * problem.device.sm_count || 2 * problem.P < params.tile_p))
        set(threads /= 2);
    // Rows much shorter than the smallest block: the general kernel, which counts through samples.
    if (2 * problem.P < params.tile_p) params.tiles = 0;
    return params;
}

template <class Element>
Error launch_project(const ProjectParams& params, cudaStream_t stream) {
    const auto blocks = static_cast<unsigned>(params.tiles);
    if constexpr (sizeof(Element) == 4) {
        few_outputs_project_kernel<Element>
            <<<blocks, params.threads, params.smem_bytes, stream>>>(params);
    } else {
        const Error error = allow_smem<few_outputs_project_16bit_kernel<Element>>(params.problem.device);
        if (error != nullptr) return error;
        few_outputs_project_16bit_kernel<Element>
            <<<blocks, params.threads, params.smem_bytes, stream>>>(params);
    }
    return launch_error();
}

}  // namespace few
}  // namespace conv1d
''',
"few_outputs.cuh": r'''
#line 1 "kernels/few_outputs.cuh"
// One to eight output channels a group: bound by reading x. "project", for few taps, reads each x once.

#include <algorithm>
#include <numeric>
#include <type_traits>









namespace conv1d {
namespace few {

// A window of x in shared memory, a few steps ahead of the products; the block's weights lie there
// throughout. A thread computes all outputs of kThreadP positions, 32 apart; warps share the positions and
// the products of a step. Where a sample has few positions, blocks share the reduction too: their sums meet
// in the workspace.
//
// x lies in rows as in memory, in pieces of 16 bytes at their alignment ("pieces"). Of fp32 whose stride
// would let lanes meet in a bank, it lies in planes of positions `stride` apart: tap k reads plane k % cycle,
// from row k / cycle * turn on.
constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kStages = 4;
constexpr int64_t kChannelBytes = 12288;  // of one channel's window, at most
constexpr int64_t kStageBytes = 12288;    // of a step's, about
constexpr int64_t kWeights = 4096;        // of a block
constexpr int64_t kChain = 1024;          // products that one thread sums in a line

template <class Element_, int kO_, int kThreadP_>
struct Tile {
    using Element = Element_;
    static constexpr int kO = kO_;
    static constexpr int kThreadP = kThreadP_;
    static constexpr int kWarpP = 32 * kThreadP;
    static constexpr int kPiece = 16 / sizeof(Element);  // elements
    static constexpr int kBlocks = kO * kThreadP > 16 ? 2 : 3;  // that registers are shared by
};

struct Params {
    Problem problem;
    int32_t p_shift, warps_k;  // of a block: 2^p_shift warps side by side; warps_k share the same positions
    int32_t channels, taps;    // of a step: more than one channel only with all taps
    int32_t tap_steps;         // of one channel
    int32_t steps, split_steps;  // of all, and of a block
    int32_t splits;
    bool in_planes;
    int32_t k_parts, c_parts;  // the warps that share products share taps, and channels
    int32_t items;             // of one channel: pieces, or elements
    Divisor fill_width;        // threads that fill one channel
    int32_t fill_channels;     // that are filled at once
    int32_t share_taps;        // of a part
    Divisor planes;
    Divisor cycle;             // more than all taps where x lies in pieces
    int32_t turn, plane_step; // in elements
    int32_t position_step;    // elements from a position to the next
    int32_t channel_bytes, stage_bytes, w_bytes;
    int64_t p_tiles, blocks;
    size_t smem_bytes;
};

// Where a step begins.
struct Step {
    int32_t channel, tap;

    __device__ __forceinline__ void advance(const Params& params) {
        tap += params.taps;
        if (tap < params.problem.K) return;
        tap = 0;
        channel += params.channels;
    }
    __device__ __forceinline__ int32_t channels(const Params& params) const {
        return min(params.channels, static_cast<int32_t>(params.problem.C) - channel);
    }
    __device__ __forceinline__ int32_t taps(const Params& params) const {
        return min(params.taps, static_cast<int32_t>(params.problem.K) - tap);
    }
};

// Starts to bring a step's x; `x` is position 0 of the group's first channel, `l_begin` what tap 0 of the
// block's first position reads.
template <class Tile>
__device__ __forceinline__ void fill_x(const Params& params, const Step& step, int32_t l_begin,
                                       const typename Tile::Element* x, unsigned char* stage) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int32_t l_step = l_begin + step.tap * static_cast<int32_t>(problem.dilation);
    const int32_t L = static_cast<int32_t>(problem.L), channels = step.channels(params);
    const int32_t width = params.fill_width.divisor, at_once = params.fill_channels;
    const int32_t first = params.fill_width.quotient(threadIdx.x);
    if (first >= at_once) return;
    const Element* row = x + (step.channel + static_cast<int64_t>(first)) * problem.x_stride_c;
    uint32_t target = ptx::smem_address(stage) + first * params.channel_bytes;
#pragma unroll 1
    for (int32_t c = first; c < channels; c += at_once) {
        const int32_t shift = misalignment<Tile::kPiece>(row + l_step);
#pragma unroll 1
        for (int32_t i = threadIdx.x - first * width; i < params.items; i += width) {
            if (sizeof(Element) == 4 && params.in_planes) {
                const int32_t r = params.planes.quotient(i), plane = i - r * params.planes.divisor;
                const int32_t l = l_step + r * static_cast<int32_t>(problem.stride) +
                                  plane * static_cast<int32_t>(problem.dilation);
                const bool inside = l >= 0 && l < L;
                ptx::cp_async<4>(target + (plane * params.plane_step + r) * 4, row + (inside ? l : 0),
                                 inside ? 4 : 0);
                continue;
            }
            const int32_t l = l_step - shift + i * Tile::kPiece;
            const bool inside = l >= 0 && l + Tile::kPiece <= L;
            if (inside || l + Tile::kPiece <= 0 || l >= L) {
                ptx::cp_async_16(target + i * 16, row + l, inside ? 16 : 0);
            } else {  // the row begins or ends inside this piece
                Element* const elements =
                    reinterpret_cast<Element*>(stage + c * params.channel_bytes) + i * Tile::kPiece;
#pragma unroll 1
                for (int j = 0; j < Tile::kPiece; ++j)
                    elements[j] = l + j >= 0 && l + j < L ? row[l + j] : Element{};
            }
        }
        row += at_once * problem.x_stride_c;
        target += at_once * params.channel_bytes;
    }
}

// Brings the weights of all products of a block: those of neighbouring steps are neighbours.
template <class Tile>
__device__ __forceinline__ void fill_w(const Params& params, int64_t g, int32_t begin, int32_t end,
                                       float* w_smem) {
    using Element = typename Tile::Element;
    constexpr int kBatch = 8 / Tile::kO;  // products whose weights are loaded at once
    const int32_t O = static_cast<int32_t>(params.problem.O);
    const int32_t all = static_cast<int32_t>(params.problem.C * params.problem.K);
    const Element* const w = static_cast<const Element*>(params.problem.w) + g * O * all;
#pragma unroll 1
    for (int32_t product = begin + threadIdx.x; product < end; product += kBatch * kThreads) {
        Element weight[kBatch][Tile::kO];
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
#pragma unroll
            for (int o = 0; o < Tile::kO; ++o) {
                const bool counts = product + i * kThreads < end && o < O;
                weight[i][o] = counts ? w[static_cast<int64_t>(o) * all + product + i * kThreads] : Element{};
            }
        }
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
            Vector<float, Tile::kO> wide;
#pragma unroll
            for (int o = 0; o < Tile::kO; ++o) wide.at[o] = widen(weight[i][o]);
            float* const target = w_smem + (product - begin + i * kThreads) * Tile::kO;
            if (product + i * kThreads < end) *reinterpret_cast<Vector<float, Tile::kO>*>(target) = wide;
        }
    }
}

// sum += this warp's share of a step's products; taps outside [tap_begin, tap_end) meet no x.
template <class Tile>
__device__ __forceinline__ void multiply(const Params& params, const Step& step, const unsigned char* stage,
                                         const float* w_smem, int32_t x_shift, int32_t part_k, int32_t part_c,
                                         int32_t tap_begin, int32_t tap_end,
                                         const int32_t (&offset)[Tile::kThreadP],
                                         float (&sum)[Tile::kO][Tile::kThreadP]) {
    using Element = typename Tile::Element;
    const int32_t taps = step.taps(params), channels = step.channels(params);
    const int32_t first = max(part_k * params.share_taps, tap_begin - step.tap);
    const int32_t last = min(min((part_k + 1) * params.share_taps, taps), tap_end - step.tap);
    if (part_c >= params.c_parts || first >= last) return;
    const uint32_t turns = params.cycle.quotient(first), first_phase = first - turns * params.cycle.divisor;
    const int32_t wrap = params.turn - static_cast<int32_t>(params.cycle.divisor) * params.plane_step;
    stage += (first_phase * params.plane_step + turns * params.turn) * sizeof(Element);
#pragma unroll 1
    for (int32_t c = part_c; c < channels; c += params.c_parts) {
        // As fill_x has it.
        const int32_t stride_c = static_cast<int32_t>(params.problem.x_stride_c);
        const int32_t shift =
            params.in_planes ? 0 : (x_shift + (step.channel + c) * stride_c) & (Tile::kPiece - 1);
        const Element* x_row = reinterpret_cast<const Element*>(stage + c * params.channel_bytes) + shift;
        const float* w_row = w_smem + (c * taps + first) * Tile::kO;
        uint32_t phase = first_phase;
#pragma unroll 2
        for (int32_t tap = first; tap < last; ++tap) {
            const auto w_frag = *reinterpret_cast<const Vector<float, Tile::kO>*>(w_row);
            float x_frag[Tile::kThreadP];
#pragma unroll
            for (int j = 0; j < Tile::kThreadP; ++j) x_frag[j] = widen(x_row[offset[j]]);
#pragma unroll
            for (int o = 0; o < Tile::kO; ++o) {
#pragma unroll
                for (int j = 0; j < Tile::kThreadP; ++j) sum[o][j] += w_frag.at[o] * x_frag[j];
            }
            w_row += Tile::kO;
            x_row += params.plane_step;
            if (++phase == params.cycle.divisor) {
                phase = 0;
                x_row += wrap;
            }
        }
    }
}

template <class Element>
__device__ __forceinline__ void store_output(const Problem& problem, int64_t channel, int64_t index,
                                             float value) {
    if (problem.bias != nullptr) value += widen(static_cast<const Element*>(problem.bias)[channel]);
    static_cast<Element*>(problem.y)[index] = problem.activation == Activation::none
                                                  ? narrow<Element>(value)
                                                  : activate<Element, true>(problem.activation, value);
}

template <class Tile>
__global__ void __launch_bounds__(kThreads, Tile::kBlocks)
    few_outputs_forward_kernel(const __grid_constant__ Params params) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    using Element = typename Tile::Element;
    extern __shared__ __align__(16) unsigned char smem[];
    float* const w_smem = reinterpret_cast<float*>(smem);  // [product][kO]
    unsigned char* const x_smem = smem + params.w_bytes;   // [stage][channel], then the warps' sums

    const Problem& problem = params.problem;
    const int32_t K = static_cast<int32_t>(problem.K), C = static_cast<int32_t>(problem.C);
    const int32_t O = static_cast<int32_t>(problem.O), P = static_cast<int32_t>(problem.P);
    const int32_t stride = static_cast<int32_t>(problem.stride);
    const int32_t dilation = static_cast<int32_t>(problem.dilation);
    const uint32_t tile = blockIdx.x / static_cast<uint32_t>(params.splits);
    const int32_t split = blockIdx.x - tile * params.splits;
    const uint32_t sample = tile / static_cast<uint32_t>(params.p_tiles);
    const int64_t n = sample / static_cast<uint32_t>(problem.G), g = sample - n * problem.G;
    const int32_t tile_p = Tile::kWarpP << params.p_shift;
    const int32_t p_begin = (tile - sample * static_cast<int32_t>(params.p_tiles)) * tile_p;
    const int32_t l_begin = p_begin * stride - static_cast<int32_t>(problem.pad_left);
    const Element* const x =
        static_cast<const Element*>(problem.x) + n * problem.x_stride_n + g * C * problem.x_stride_c;

    // The block's steps, and its taps that meet x.
    const int32_t first_step = split * params.split_steps;
    const int32_t steps = min(params.split_steps, params.steps - first_step);
    const int32_t first_group = first_step / params.tap_steps;
    Step step{first_group * params.channels, (first_step - first_group * params.tap_steps) * params.taps};
    const int32_t l_last = l_begin + (min(tile_p, P - p_begin) - 1) * stride;
    const int32_t tap_begin = l_last < 0 ? (-l_last + dilation - 1) / dilation : 0;
    const int32_t beyond = static_cast<int32_t>(problem.L) - l_begin;  // the first tap of which is outside
    const int32_t tap_end = beyond <= 0 ? 0 : min(K, (beyond - 1) / dilation + 1);
    const auto meets = [&](const Step& some) {
        return some.tap < tap_end && some.tap + params.taps > tap_begin;
    };

    Step ahead = step;
    int32_t ahead_index = 0;
    // The products of neighbouring steps are neighbours in w.
    const int32_t first_product = step.channel * K + step.tap;
    const int32_t next_step = first_step + steps, next_group = next_step / params.tap_steps;
    const int32_t next_tap = (next_step - next_group * params.tap_steps) * params.taps;
    const int32_t last_product = min(next_group * params.channels * K + next_tap, C * K);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int32_t warp_k = warp >> params.p_shift;
    const int32_t part_c = warp_k / params.k_parts, part_k = warp_k - part_c * params.k_parts;
    const int warp_p = (warp & ((1 << params.p_shift) - 1)) * Tile::kWarpP;
    const int live = max(0, min((P - p_begin - warp_p + 31) / 32, Tile::kThreadP));
    const int32_t x_shift = misalignment<Tile::kPiece>(x) + l_begin;
    const int32_t thread_x = (warp_p + lane) * params.position_step * static_cast<int32_t>(sizeof(Element));
    int32_t offset[Tile::kThreadP];  // of its positions; those that nobody needs read what the first does
#pragma unroll
    for (int j = 0; j < Tile::kThreadP; ++j) offset[j] = j < live ? 32 * j * params.position_step : 0;
    float sum[Tile::kO][Tile::kThreadP] = {};
#pragma unroll 1
    for (int32_t i = 1 - kStages; i < steps; ++i) {
        if (i >= 0) {
            ptx::cp_async_wait_group<kStages - 2>();
            __syncthreads();  // this step's x is there, that of the step before has been read
        }
        if (ahead_index < steps && meets(ahead))
            fill_x<Tile>(params, ahead, l_begin, x, x_smem + ahead_index % kStages * params.stage_bytes);
        ptx::cp_async_commit_group();
        ahead.advance(params);
        ++ahead_index;
        if (i == -1) fill_w<Tile>(params, g, first_product, last_product, w_smem);
        if (i < 0) continue;
        if (live > 0 && meets(step)) {
            const float* const step_w = w_smem + (step.channel * K + step.tap - first_product) * Tile::kO;
            multiply<Tile>(params, step, x_smem + i % kStages * params.stage_bytes + thread_x, step_w,
                           x_shift + step.tap * dilation, part_k, part_c, tap_begin, tap_end, offset, sum);
        }
        step.advance(params);
    }
    ptx::cp_async_wait_all();
    __syncthreads();  // all x has been read

    float* const sums = reinterpret_cast<float*>(x_smem);  // [warp][kO][kWarpP]
#pragma unroll
    for (int o = 0; o < Tile::kO; ++o) {
#pragma unroll
        for (int j = 0; j < Tile::kThreadP; ++j)
            sums[(warp * Tile::kO + o) * Tile::kWarpP + 32 * j + lane] = sum[o][j];
    }
    __syncthreads();
#pragma unroll 1
    for (int32_t i = threadIdx.x; i < O * tile_p; i += kThreads) {
        const int32_t o = i / Tile::kWarpP >> params.p_shift, p = i - o * tile_p;
        if (p_begin + p >= P) continue;
        const float* const part =
            sums + (p / Tile::kWarpP * Tile::kO + o) * Tile::kWarpP + p % Tile::kWarpP;
        float value = 0.0f;
#pragma unroll 2
        for (int32_t warp_k = 0; warp_k < params.warps_k; ++warp_k)
            value += part[(warp_k << params.p_shift) * Tile::kO * Tile::kWarpP];
        const int64_t channel = g * O + o;
        const int64_t index = (n * problem.G * O + channel) * P + p_begin + p;
        if (params.splits == 1) {
            store_output<Element>(problem, channel, index, value);
        } else {
            const int64_t outputs = problem.N * problem.G * O * P;
            static_cast<float*>(problem.workspace)[split * outputs + index] = value;
        }
    }
#endif
}

// y from the blocks' sums.
template <class Element>
__global__ void __launch_bounds__(kThreads)
    few_outputs_finish_kernel(const __grid_constant__ Problem problem, int32_t splits) {
    const int64_t outputs = problem.N * problem.G * problem.O * problem.P;
    const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (index >= outputs) return;
    const float* const part = static_cast<const float*>(problem.workspace) + index;
    float value = 0.0f;
#pragma unroll 8
    for (int32_t split = 0; split < splits; ++split) value += part[split * outputs];
    store_output<Element>(problem, index / problem.P % (problem.G * problem.O), index, value);
}

// blocks is 0 where the problem does not suit. Nothing here depends on N: the order of sums must not.
template <class Tile>
Params plan(const Problem& problem) {
    using Element = typename Tile::Element;
    Params params{};
    params.problem = problem;
    constexpr int64_t kMost = int64_t{1} << 28;  // positions and offsets are counted in 32 bits
    if (problem.device.arch < 80 || problem.O > Tile::kO || (problem.x_stride_l != 1 && problem.L > 1) ||
        problem.L > kMost || problem.P * problem.stride > kMost || problem.K * problem.dilation > kMost ||
        problem.pad_left > kMost || problem.C * problem.K > kMost || problem.G * problem.O > kMost ||
        problem.stride > 4096)
        return params;
    const int64_t stride = problem.stride, dilation = problem.dilation, K = problem.K;
    const int64_t common = std::gcd(stride, dilation);
    // Few taps do not repay copies of single elements, unless most of x is left out.
    params.in_planes = sizeof(Element) == 4 && (stride % 2 == 0 ? K > 8 || stride > 8 : stride > 8);
    const int64_t cycle = params.in_planes ? stride / common : K + 1;
    const int64_t planes = params.in_planes ? std::min(cycle, K) : 1;
    params.cycle = plan_divisor(cycle);
    params.planes = plan_divisor(planes);
    params.turn = static_cast<int32_t>(dilation / common);
    params.position_step = static_cast<int32_t>(params.in_planes ? 1 : stride);

    int64_t rows, plane_rows, channel_bytes, items;
    const auto lay_out = [&](int64_t taps) {
        if (params.in_planes) {
            const int64_t needed = rows + (taps - 1) / cycle * params.turn;
            // Neighbours in x, which fall into different planes, fall into different banks.
            plane_rows = planes == 1 ? needed : needed + (ceil_div(32, planes) + 31 * needed) % 32;
            items = needed * planes;
            channel_bytes = round_up(planes * plane_rows * sizeof(Element), 16);
        } else {
            const int64_t span = (rows - 1) * stride + (taps - 1) * dilation + 1;
            items = ceil_div(span + Tile::kPiece - 1, Tile::kPiece);
            channel_bytes = 16 * items;
        }
    };
    // Few warps along a row, for many to share its products, but each should have some products and each
    // multiprocessor some blocks.
    int64_t warps_p = kWarps, most_products = 0, taps = 0;
    for (;; warps_p /= 2) {
        rows = std::min(warps_p * Tile::kWarpP, round_up(problem.P, 32));
        most_products = std::min(kWeights / Tile::kO, kChain * (kWarps / warps_p));
        for (int64_t tap_steps = 1;; ++tap_steps) {
            taps = ceil_div(K, tap_steps);
            lay_out(taps);
            if (taps == 1 || (channel_bytes <= kChannelBytes && taps <= most_products)) break;
        }
        if (warps_p == 1) break;
        const bool too_wide = warps_p * Tile::kWarpP >= 2 * problem.P || channel_bytes > kChannelBytes;
        const bool few_blocks = ceil_div(problem.P, rows) * problem.G < 2 * problem.device.sm_count;
        const bool few_products = problem.C * K < 3 * (kWarps / warps_p);
        if (!too_wide && (!few_blocks || few_products)) break;
    }
    if (channel_bytes > kChannelBytes || items > 4096) return params;
    while (1 << params.p_shift < warps_p) ++params.p_shift;
    params.warps_k = static_cast<int32_t>(kWarps / warps_p);
    params.taps = static_cast<int32_t>(taps);
    params.items = static_cast<int32_t>(items);
    params.fill_width = plan_divisor(ceil_div(items, ceil_div(items, 64)));
    params.fill_channels = static_cast<int32_t>(kThreads / params.fill_width.divisor);
    params.plane_step = static_cast<int32_t>(params.in_planes ? plane_rows : dilation);
    params.channel_bytes = static_cast<int32_t>(channel_bytes);

    int64_t channels = taps < K ? 1 : std::min(problem.C, std::max<int64_t>(1, kStageBytes / channel_bytes));
    channels = std::max<int64_t>(1, std::min(channels, most_products / taps));
    channels = ceil_div(problem.C, ceil_div(problem.C, channels));
    const int64_t steps = ceil_div(problem.C, channels) * ceil_div(K, taps);
    params.channels = static_cast<int32_t>(channels);
    int64_t least_share = INT64_MAX;
    for (int64_t k_parts = 1; k_parts <= params.warps_k; ++k_parts) {
        const int64_t c_parts = params.warps_k / k_parts;
        const int64_t share = ceil_div(channels, c_parts) * ceil_div(taps, k_parts);
        if (share >= least_share) continue;
        least_share = share;
        params.k_parts = static_cast<int32_t>(k_parts);
        params.c_parts = static_cast<int32_t>(c_parts);
        params.share_taps = static_cast<int32_t>(ceil_div(taps, k_parts));
    }
    params.steps = static_cast<int32_t>(steps);
    params.tap_steps = static_cast<int32_t>(ceil_div(K, taps));
    params.p_tiles = ceil_div(problem.P, warps_p * Tile::kWarpP);
    const int64_t step_products = channels * taps;
    const int64_t wanted = ceil_div(2 * problem.device.sm_count, params.p_tiles * problem.G);
    const int64_t least = ceil_div(64 * params.warps_k, step_products);
    const int64_t most = std::max<int64_t>(1, most_products / step_products);
    const int64_t split_steps = std::min(most, std::max(least, ceil_div(steps, wanted)));
    params.splits = static_cast<int32_t>(ceil_div(steps, split_steps));
    params.split_steps = static_cast<int32_t>(ceil_div(steps, params.splits));
    params.splits = static_cast<int32_t>(ceil_div(steps, params.split_steps));

    params.stage_bytes = static_cast<int32_t>(channels * channel_bytes);
    const int64_t weights = std::min(params.split_steps * step_products, problem.C * K) * Tile::kO;
    params.w_bytes = static_cast<int32_t>(round_up(weights * sizeof(float), 16));
    const int64_t stages = std::min<int64_t>(kStages, params.split_steps);
    const int64_t sum_bytes = kWarps * Tile::kO * Tile::kWarpP * sizeof(float);
    params.smem_bytes = params.w_bytes + std::max(stages * params.stage_bytes, sum_bytes);
    const int64_t blocks = params.p_tiles * problem.G * problem.N * params.splits;
    const int64_t outputs = problem.N * problem.G * problem.O * problem.P;
    if (blocks <= kMaxBlocks && outputs / kThreads < kMaxBlocks) params.blocks = blocks;
    return params;
}

template <class Tile>
Error launch(const Problem& problem, cudaStream_t stream) {
    const Params params = plan<Tile>(problem);
    const Error error = allow_smem<few_outputs_forward_kernel<Tile>>(problem.device);
    if (error != nullptr) return error;
    few_outputs_forward_kernel<Tile>
        <<<static_cast<unsigned>(params.blocks), kThreads, params.smem_bytes, stream>>>(params);
    if (params.splits > 1) {
        const int64_t outputs = problem.N * problem.G * problem.O * problem.P;
        using Element = typename Tile::Element;
        const int32_t splits = params.splits;
        few_outputs_finish_kernel<Element>
            <<<static_cast<unsigned>(ceil_div(outputs, kThreads)), kThreads, 0, stream>>>(problem, splits);
    }
    return launch_error();
}

// Calls call(Tile) of the tile that suits.
template <class Call>
auto with_tile(const Problem& problem, Call call) {
    const auto with_element = [&](auto element) {
        using Element = decltype(element);
        const auto with_positions = [&](auto positions) {
            constexpr int kThreadP = decltype(positions)::value;
            if (problem.O == 1) return call(Tile<Element, 1, kThreadP>{});
            if (problem.O == 2) return call(Tile<Element, 2, kThreadP>{});
            if (problem.O <= 4) return call(Tile<Element, 4, kThreadP>{});
            return call(Tile<Element, 8, kThreadP>{});
        };
        // Weights are read once for all positions of a thread; but short sums rather fill multiprocessors.
        if (problem.P <= (problem.C * problem.K <= 256 ? 512 : 64))
            return with_positions(std::integral_constant<int, 1>{});
        return with_positions(std::integral_constant<int, 4>{});
    };
    if (problem.dtype == Dtype::float16) return with_element(__half{});
    if (problem.dtype == Dtype::bfloat16) return with_element(__nv_bfloat16{});
    return with_element(float{});
}

// "project" where one thread can load 16 bytes of each row that it needs, and a sample alone fills half the
// multiprocessors.
inline bool takes_project(const Problem& problem) {
    Problem sample = problem;
    sample.N = 1;
    const auto takes = [&](auto element) {
        const ProjectParams params = plan_project<decltype(element)>(problem);
        const ProjectParams alone = plan_project<decltype(element)>(sample);
        return params.tiles > 0 && 2 * alone.tiles >= problem.device.sm_count;
    };
    return problem.dtype == Dtype::float32 ? takes(float{}) : takes(__half{});
}

// What the kernels can compute; `problem` is canonical.
inline bool takes(const Problem& problem) {
    if (problem.dtype == Dtype::float64 || problem.O > 8) return false;
    if (takes_project(problem)) return true;
    if (problem.device.arch < 80) return false;
    return with_tile(problem, [&](auto tile) { return plan<decltype(tile)>(problem).blocks > 0; });
}

}  // namespace few

// Besides "project": sums of very many products, where rows are short, or where tensor cores would be nearly
// empty (fp32 needs three products there). ms by this route and by the next best: 2x706x59 to 4, K16 bf16
// .018 and .160, fp32 .018 and .140; 3x192x37538 to 3, K11 fp32 .149 and .227, but bf16 .156 and .065;
// 11x65x6545 to 5, K4 bf16 .033 and .018.
inline bool fits_few_outputs(const Problem& any_problem) {
    const Problem problem = canonical(any_problem);
    if (!few::takes(problem)) return false;
    // Of few products gather is sooner done: 2x2x86720 to 2, K3, stride 2, 6.3 us here and 5.2 there.
    if (few::takes_project(problem)) return problem.C * problem.K > 10 || !fits_gather(problem);
    const bool exact = problem.dtype == Dtype::float32 && problem.precision == Precision::ieee;
    const bool is_half = element_bytes(problem.dtype) == 2;
    const bool fits_gemm = (is_half || exact) && fits_gemm_sm90(problem);
    const int64_t products = problem.C * problem.K;
    // In 16 bits very long ones: 9x370x252 to 6, K4 26, 12; 40x599x46 to 3, K15 65, 29; but one sample of
    // 606x188 to 2, K17 14, 29.
    const bool is_long = products >= (is_half && fits_gemm ? 10000 : 1000) &&
                         (problem.P <= 1024 || problem.O <= (exact ? 4 : 1));
    // Of fewer, where the next best is "direct" or, for fp32, tensor cores (us here and by that: bf16
    // 3x280x67127 to 2, K2 105, 308; 59x29x1783 to 7, K7 35, 47; fp32 8x26x5666 to 2, K30 23, 54;
    // 37x26x33749 to 3, K5 181, 224; but fp32 by "direct" 40x56x596 to 3, K8 19, 16; bf16 by tensor cores
    // 1x63x27281 to 2, K11 s2 18, 12).
    const bool gains = is_half ? !fits_gemm : exact && fits_gemm && problem.O <= 4;
    if (!is_long && !(gains && problem.C >= 16 && problem.O < 8)) return false;
    // 4x225x226 to 2, K11, stride 2: 15 us there, 20 here; 15x393x11331 to 2, K7, stride 8: 106 and 178.
    return !fits_gather(problem);
}

inline size_t workspace_few_outputs(const Problem& any_problem) {
    const Problem problem = canonical(any_problem);
    if (few::takes_project(problem)) return 0;
    return few::with_tile(problem, [&](auto tile) -> size_t {
        const int32_t splits = few::plan<decltype(tile)>(problem).splits;
        if (splits == 1) return 0;
        return splits * sizeof(float) * problem.N * problem.G * problem.O * problem.P;
    });
}

inline Error launch_few_outputs(const Problem& any_problem, cudaStream_t stream) {
    const Problem problem = canonical(any_problem);
    return few::with_tile(problem, [&](auto tile) {
        using Tile = decltype(tile);
        using Element = typename Tile::Element;
        if (few::takes_project(problem))
            return few::launch_project<Element>(few::plan_project<Element>(problem), stream);
        return few::launch<Tile>(problem, stream);
    });
}

}  // namespace conv1d
''',
"few_outputs.cu": r'''
#line 1 "kernels/few_outputs.cu"
// The translation unit of route "few_outputs".



const conv1d::Route conv1d::kFewOutputs = {"few_outputs", fits_few_outputs, workspace_few_outputs,
                                           launch_few_outputs};
''',
"fold.cuh": r'''
#line 1 "kernels/fold.cuh"
// Groups of few channels on tensor cores, sm_80 and later: an implicit GEMM with mma.sync whose depth is the
// folded index (channel, tap). TF32, fp16, bf16, and fp32 at full accuracy as three TF32 products.
//
// Depth counts in words of 4 bytes: one fp32 operand, or two 16-bit ones: of two channels and one tap, or,
// where a group has one channel, of two neighbouring taps. A block brings weights, in the order in which
// lanes hold operand A, and its window of x into shared memory, as [row][l % stride][l / stride]: row r of
// words is channel r, or channels {2r, 2r + 1}, or {x[l], x[l + dilation]}. Of any word then neighbouring
// output positions lie side by side, for operand B of any stride and dilation. After one filling each warp
// goes its own way over tasks of 16*kMTiles channels x kWarpP positions, so that stores overlap products. A
// depth too long for shared memory comes in chunks of rows, with one task a warp. Cost: 2 reads of x for each
// 16*kMTiles x 8 outputs and 8 words; far fewer where x slides along registers (Params::slide).

#include <algorithm>
#include <cstring>
#include <type_traits>







namespace conv1d {
namespace fold {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kMmaWords = 8;   // depth of one product
constexpr int kMaxMTiles = 8;  // of 16 output channels, of a block
constexpr int kMaxTasks = 32;  // of a block

// kSplit: each fp32 operand is a high and a low part, and three products of parts make one.
template <class Element_, bool kSplit_, int kMTiles_, int kNTiles_, int kBlocks_>
struct Tile {
    using Element = Element_;
    static constexpr bool kSplit = kSplit_;
    static constexpr int kMTiles = kMTiles_;  // of 16 output channels, of one task
    static constexpr int kNTiles = kNTiles_;  // of 8 positions, of one task
    static constexpr int kBlocks = kBlocks_;  // that share a multiprocessor
    // For up to 16 output channels: registers for more blocks, none for a depth that comes in chunks.
    static constexpr bool kIsNarrow = !kSplit && kMTiles == 1;
    static constexpr int kWarpP = 8 * kNTiles;
    // Whether x stays in registers from one step to the next; three products for one hide its reads anyway.
    static constexpr bool kCanSlide = !kSplit && kNTiles <= 8;
    static constexpr int kPerWord = 4 / sizeof(Element);
    static constexpr int kVector = 16 / sizeof(Element);  // elements of a store
    // Of a staged row of y, in elements: 8 (4) words mod 32, so that 8 rows of pairs fall into all banks.
    static constexpr int kStagePitch = kWarpP + 8;
    static constexpr int kStageBytes = 8 * kStagePitch * static_cast<int>(sizeof(Element));  // of one warp
};

struct Params {
    Problem problem;
    bool tap_pairs;     // a word is two taps of one channel, not two channels of one tap
    bool y_pairs;       // rows of y start at multiples of two elements
    bool y_vectors;     // ... of 16 bytes
    int32_t rows;       // of words: ceil(C / kPerWord), 1 for tap pairs
    int32_t row_words;  // K, or ceil(K / 2)
    bool slide;  // each row fills whole products, and one product's x is the last one's, 8 positions on
    Divisor row_depth;   // row_words, or the next multiple of 8 where they slide
    int32_t tap_step;    // input positions from a word to the next of its row
    int32_t chunk_rows;  // rows in shared memory at once; the last chunk may have fewer
    int32_t chunks;
    int32_t chunk_steps;  // products in the depth of a chunk
    Divisor stride;
    int32_t span;         // input positions that a block reads
    int32_t plane_words;  // from a plane to the next; a plane's words lie `stride` input positions apart
    int32_t row_slots;    // words of a row, which has `stride` planes
    Divisor fill_width;   // threads that bring x side by side along a row
    int32_t fill_rows;    // at once
    Divisor fill_quads;   // warps that bring weights side by side across output channels, of 4 each
    int32_t fill_steps;   // at once
    int32_t filled_quads;  // of output channels, likewise; weights of others may be anything, but for the
                           // soundness of split sums
    int32_t m_tiles;      // of a block
    int32_t tasks_o;      // of a block, along output channels
    int32_t tasks_p;      // of a block, along positions: neighbouring warps store neighbouring pieces of rows
    int32_t tasks;        // of a block
    int32_t warps;        // of a block
    int32_t smem_bytes;
    IndexDivisor o_blocks, p_blocks, groups;
    int64_t blocks;
};

// What one block computes. Kept in shared memory: the sums leave few registers.
struct Place {
    int64_t n, g, o_begin, p_begin;
    int32_t m_tiles;  // that hold output channels
};

template <class Tile>
__device__ __forceinline__ Place place_of(const Params& params) {
    const Problem& problem = params.problem;
    const uint32_t run = params.o_blocks.quotient(blockIdx.x), sample = params.p_blocks.quotient(run);
    Place place;
    place.n = params.groups.quotient(sample);
    place.g = sample - place.n * problem.G;
    place.o_begin = (blockIdx.x - run * params.o_blocks.divisor) * params.m_tiles * 16;
    place.p_begin = (run - sample * params.p_blocks.divisor) * (params.tasks_p * Tile::kWarpP);
    place.m_tiles = static_cast<int>(min((problem.O - place.o_begin + 15) / 16, int64_t{params.m_tiles}));
    return place;
}

// Shared memory, in order.
struct Memory {
    uint32_t* w;            // [m_tile][chunk_steps][lane][4]
    int2* offsets;          // [chunk_steps][4]: of words t and t + 4
    uint32_t* x;            // [chunk_rows][row_slots]
    float* bias;            // [m_tiles*16]
    unsigned char* staged;  // [warp][8][kStagePitch] elements
};

template <class Tile>
constexpr int64_t smem_bytes(const Params& params) {
    const int64_t words = int64_t{params.m_tiles} * params.chunk_steps * 128 + params.chunk_steps * 8 +
                          round_up(int64_t{params.chunk_rows} * params.row_slots, 4) + params.m_tiles * 16;
    return words * 4 + std::min<int64_t>(params.tasks, kWarps) * Tile::kStageBytes;
}

__device__ __forceinline__ Memory memory_at(const Params& params, unsigned char* smem) {
    Memory memory;
    memory.w = reinterpret_cast<uint32_t*>(smem);
    memory.offsets = reinterpret_cast<int2*>(memory.w + params.m_tiles * params.chunk_steps * 128);
    memory.x = reinterpret_cast<uint32_t*>(memory.offsets + params.chunk_steps * 4);
    memory.bias = reinterpret_cast<float*>(memory.x + (params.chunk_rows * params.row_slots + 3) / 4 * 4);
    memory.staged = reinterpret_cast<unsigned char*>(memory.bias + params.m_tiles * 16);
    return memory;
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

// An fp32 operand as it lies in shared memory: rounded to TF32, or whole where it is split at each use.
template <class Tile>
__device__ __forceinline__ uint32_t float_word(float value) {
    return Tile::kSplit ? __float_as_uint(value) : round_tf32(__float_as_uint(value));
}

// A word on its way to shared memory, zero where elements are missing. `second_step` leads from one half's
// element to the other's.
template <class Tile>
struct Word {
    using Element = typename Tile::Element;
    Element half[Tile::kPerWord];

    __device__ __forceinline__ void load(const Element* source, int64_t second_step, bool has_first,
                                         bool has_second) {
        half[0] = has_first ? *source : Element{};
        if constexpr (Tile::kPerWord == 2) half[1] = has_second ? source[second_step] : Element{};
    }

    __device__ __forceinline__ void store(uint32_t* target) const {
        if constexpr (Tile::kPerWord == 1) *target = float_word<Tile>(half[0]);
        else memcpy(target, half, 4);
    }
};

// Both fills load kAlong x kAcross words before they store any.
//
// Weights of one chunk, with zeros for what O, C and K lack. A warp brings 8 neighbouring words, a product's
// depth, of 4 output channels at once.
template <class Tile, int kAlong, int kAcross>
__device__ __forceinline__ void fill_w(const Params& params, const Place& place, int row_begin,
                                       uint32_t* w_smem) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int K = static_cast<int>(problem.K), products = static_cast<int>(problem.C) * K;
    const int channels = static_cast<int>(problem.C) - row_begin * Tile::kPerWord;
    const int depth = params.row_depth.divisor;
    const int chunk_words = min(params.chunk_rows, params.rows - row_begin) * depth;
    const int outputs = static_cast<int>(min(problem.O - place.o_begin, int64_t{params.m_tiles} * 16));
    const Element* const w = static_cast<const Element*>(problem.w) +
                             (place.g * problem.O + place.o_begin) * products +
                             row_begin * Tile::kPerWord * K;
    const int second_step = params.tap_pairs ? 1 : K;
    const int across = params.fill_quads.divisor, first_step = params.fill_quads.quotient(warp);
    const int quads = first_step < params.fill_steps ? params.filled_quads : 0;
#pragma unroll 1
    for (int begin = first_step; begin < params.chunk_steps; begin += kAlong * params.fill_steps) {
        int source[kAlong];
        bool first[kAlong], second[kAlong];
#pragma unroll
        for (int i = 0; i < kAlong; ++i) {
            const int at = (begin + i * params.fill_steps) * kMmaWords + lane % 8;
            const int row = params.row_depth.quotient(at), k = at - row * depth;
            source[i] = row * Tile::kPerWord * K + (params.tap_pairs ? 2 * k : k);
            first[i] = at < chunk_words && k < params.row_words;
            second[i] = first[i] && (params.tap_pairs ? 2 * k + 1 < K : 2 * row + 1 < channels);
        }
#pragma unroll 1
        for (int quad = warp - first_step * across; quad < quads; quad += kAcross * across) {
            Word<Tile> word[kAcross][kAlong];
#pragma unroll
            for (int j = 0; j < kAcross; ++j) {
                const int o = (quad + j * across) * 4 + lane / 8;
#pragma unroll
                for (int i = 0; i < kAlong; ++i) {
                    word[j][i].load(w + o * products + source[i], second_step, first[i] && o < outputs,
                                    second[i] && o < outputs);
                }
            }
#pragma unroll
            for (int j = 0; j < kAcross; ++j) {
                const int o = (quad + j * across) * 4 + lane / 8;
                uint32_t* const target = w_smem + o / 16 * params.chunk_steps * 128 + o % 8 * 16 + o / 8 % 2 +
                                         lane % 4 * 4 + lane / 4 % 2 * 2;
#pragma unroll
                for (int i = 0; i < kAlong; ++i) {
                    const int step = begin + i * params.fill_steps;
                    if (step < params.chunk_steps && quad + j * across < quads)
                        word[j][i].store(target + step * 128);
                }
            }
        }
    }
}

// The window of x of one chunk, with zeros outside 0 <= l < L and for the channel that an odd C lacks.
template <class Tile, int kAlong, int kAcross>
__device__ __forceinline__ void fill_x(const Params& params, const Place& place, int row_begin,
                                       uint32_t* x_smem) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int rows = min(params.chunk_rows, params.rows - row_begin);
    const int channels = static_cast<int>(problem.C) - row_begin * Tile::kPerWord;
    const int lag = params.tap_pairs ? static_cast<int>(problem.dilation) : 0;  // of the second tap of a pair
    const int64_t l_begin = place.p_begin * problem.stride - problem.pad_left;
    const Inside inside = inside_row(l_begin, problem.L, params.span + lag);
    const int64_t row_step = Tile::kPerWord * problem.x_stride_c;
    const int64_t second_step = params.tap_pairs ? lag * problem.x_stride_l : problem.x_stride_c;
    const int width = params.fill_width.divisor, group = params.fill_width.quotient(threadIdx.x);
    const int first_row = group < params.fill_rows ? group : rows;
    const Element* const x = static_cast<const Element*>(problem.x) + place.n * problem.x_stride_n +
                             (place.g * problem.C + row_begin * Tile::kPerWord) * problem.x_stride_c +
                             l_begin * problem.x_stride_l + first_row * row_step;
#pragma unroll 1
    for (int begin = threadIdx.x - group * width; begin < params.span; begin += kAlong * width) {
        const Element* source[kAlong];
        int slot[kAlong];
        bool first[kAlong], second[kAlong];
#pragma unroll
        for (int i = 0; i < kAlong; ++i) {
            const int at = begin + i * width, turn = params.stride.quotient(at);
            source[i] = x + at * problem.x_stride_l;
            slot[i] = (at - turn * static_cast<int>(params.stride.divisor)) * params.plane_words + turn;
            first[i] = at >= inside.begin && at < inside.end;
            second[i] = at + lag >= inside.begin && at + lag < inside.end;
        }
#pragma unroll 1
        for (int row_at = first_row; row_at < rows; row_at += kAcross * params.fill_rows) {
            Word<Tile> word[kAcross][kAlong];
#pragma unroll
            for (int j = 0; j < kAcross; ++j) {
                const int row = row_at + j * params.fill_rows;
                const bool has_second = row < rows && (params.tap_pairs || 2 * row + 1 < channels);
#pragma unroll
                for (int i = 0; i < kAlong; ++i) {
                    word[j][i].load(source[i], second_step, first[i] && row < rows, second[i] && has_second);
                    source[i] += row_step * params.fill_rows;
                }
            }
#pragma unroll
            for (int j = 0; j < kAcross; ++j) {
                const int row = row_at + j * params.fill_rows;
#pragma unroll
                for (int i = 0; i < kAlong; ++i) {
                    if (begin + i * width < params.span && row < rows)
                        word[j][i].store(x_smem + row * params.row_slots + slot[i]);
                }
            }
        }
    }
}

// Asks for the window of x before weights are brought: fill_x has few loads on its way. fp32 .97 of the time,
// in 16 bits, whose words are two loads each, 1.03.
template <class Tile>
__device__ __forceinline__ void prefetch_x(const Params& params, const Place& place) {
    using Element = typename Tile::Element;
    constexpr int kLine = 128 / sizeof(Element);
    const Problem& problem = params.problem;
    if (problem.x_stride_l != 1) return;
    const int64_t l_begin = place.p_begin * problem.stride - problem.pad_left;
    const Inside inside = inside_row(l_begin, problem.L, params.span);
    const Element* const x = static_cast<const Element*>(problem.x) + place.n * problem.x_stride_n +
                             place.g * problem.C * problem.x_stride_c + l_begin;
    for (int c = threadIdx.x / 32; c < problem.C; c += params.warps) {
        for (int at = inside.begin + threadIdx.x % 32 * kLine; at < inside.end; at += 32 * kLine)
            ptx::prefetch_l2(x + c * problem.x_stride_c + at);
    }
}

// Where the words of a chunk lie in x_smem for output position 0 of the block.
__device__ __forceinline__ void fill_offsets(const Params& params, int2* offsets) {
    const int depth = params.row_depth.divisor, chunk_words = params.chunk_rows * depth;
    for (int word = threadIdx.x; word < params.chunk_steps * kMmaWords; word += blockDim.x) {
        const int row = params.row_depth.quotient(word), l = (word - row * depth) * params.tap_step;
        const int turn = params.stride.quotient(l);
        const int plane = l - turn * static_cast<int>(params.stride.divisor);
        const int offset = row * params.row_slots + plane * params.plane_words + turn;
        int* const target = reinterpret_cast<int*>(offsets) + word / 8 * 8 + word % 4 * 2 + word / 4 % 2;
        *target = word < chunk_words ? offset : 0;
    }
}

// The high part: 11 significant bits, ties away from zero. What remains has 12, and the product drops the
// last.
__device__ __forceinline__ uint32_t high_part(uint32_t bits) { return (bits + 0x1000) & 0xFFFFE000; }
__device__ __forceinline__ uint32_t low_part(uint32_t bits, uint32_t high) {
    return __float_as_uint(__uint_as_float(bits) - __uint_as_float(high));
}

// sum += w * x, one product deep, of whole fp32 operands. Small terms first; products truncate their sum, the
// addition rounds to nearest.
__device__ __forceinline__ void multiply_split(float (&sum)[4], const uint4& w, const uint4& w_low,
                                               const uint2& x) {
    const uint2 high = make_uint2(high_part(x.x), high_part(x.y));
    const uint2 low = make_uint2(low_part(x.x, high.x), low_part(x.y, high.y));
    float part[4] = {};
    ptx::mma<float>(part, w_low, high);
    ptx::mma<float>(part, w, low);
    ptx::mma<float>(part, w, high);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum[i] += part[i];
}

// One step of a task's depth. `slides`: x_frag holds the step before, whose words are this one's 8 positions
// on. kMasked: the step may have words that no tap fills. Weights are zero there, but x may hold an infinity.
template <class Tile, bool kMasked>
__device__ __forceinline__ void multiply_step(const uint4* w, int w_pitch, const uint32_t* x, int2 offset,
                                              bool slides, uint2 mask, int m_count,
                                              uint2 (&x_frag)[Tile::kNTiles],
                                              float (&sum)[Tile::kMTiles][Tile::kNTiles][4]) {
    const auto load = [&](int n) { return make_uint2(x[offset.x + 8 * n], x[offset.y + 8 * n]); };
    if (Tile::kCanSlide && slides) {
#pragma unroll
        for (int n = 0; n < Tile::kNTiles - 1; ++n) x_frag[n] = x_frag[n + 1];
        x_frag[Tile::kNTiles - 1] = load(Tile::kNTiles - 1);
    } else {
#pragma unroll
        for (int n = 0; n < Tile::kNTiles; ++n) x_frag[n] = load(n);
    }
    if (kMasked) {
#pragma unroll
        for (int n = 0; n < Tile::kNTiles; ++n)
            x_frag[n] = make_uint2(x_frag[n].x & mask.x, x_frag[n].y & mask.y);
    }
#pragma unroll
    for (int m = 0; m < Tile::kMTiles; ++m) {
        if (m > 0 && m >= m_count) break;
        const uint4 w_frag = w[m * w_pitch];
        if constexpr (Tile::kSplit) {
            const uint4 high = make_uint4(high_part(w_frag.x), high_part(w_frag.y), high_part(w_frag.z),
                                          high_part(w_frag.w));
            const uint4 low = make_uint4(low_part(w_frag.x, high.x), low_part(w_frag.y, high.y),
                                         low_part(w_frag.z, high.z), low_part(w_frag.w, high.w));
#pragma unroll
            for (int n = 0; n < Tile::kNTiles; ++n) multiply_split(sum[m][n], high, low, x_frag[n]);
        } else {
#pragma unroll
            for (int n = 0; n < Tile::kNTiles; ++n)
                ptx::mma<typename Tile::Element>(sum[m][n], w_frag, x_frag[n]);
        }
    }
}

// The products of one chunk for the task whose first tile and position in the block these are.
template <class Tile>
__device__ __forceinline__ void multiply(const Params& params, const Memory& memory, int chunk_rows,
                                         int m_begin, int m_count, int position,
                                         float (&sum)[Tile::kMTiles][Tile::kNTiles][4]) {
    const int lane = threadIdx.x % 32;
    const int t = lane % 4;
    // Runs of steps: the rows where x slides along them, else all words in one.
    const int runs = params.slide ? chunk_rows : 1;
    const int words = (params.slide ? 1 : chunk_rows) * params.row_words;
    const int last = (words - 1) / kMmaWords;  // step of a run, the one that may have words to spare
    const auto mask_of = [&](int word) {
        if (word >= words) return 0u;
        return params.tap_pairs && word == words - 1 && params.problem.K % 2 != 0 ? 0xFFFFu : ~0u;
    };
    const uint2 mask = make_uint2(mask_of(last * kMmaWords + t), mask_of(last * kMmaWords + t + 4));
    const int w_pitch = params.chunk_steps * 32;
    const uint4* w = reinterpret_cast<const uint4*>(memory.w) + m_begin * w_pitch + lane;
    const uint32_t* x = memory.x + position + lane / 4;
    const int2* offsets = memory.offsets + t;
    uint2 x_frag[Tile::kNTiles];
    for (int run = 0; run < runs; ++run) {
#pragma unroll 1
        for (int step = 0; step < last; ++step, w += 32, offsets += 4) {
            multiply_step<Tile, false>(w, w_pitch, x, *offsets, params.slide && step > 0, {}, m_count, x_frag,
                                       sum);
        }
        multiply_step<Tile, true>(w, w_pitch, x, *offsets, params.slide && last > 0, mask, m_count, x_frag,
                                  sum);
        w += 32;
        offsets += 4;
    }
}

// Two neighbours of a row of y, as they lie in memory.
template <class Element>
__device__ __forceinline__ auto round_pair(float first, float second) {
    if constexpr (sizeof(Element) == 4) {
        return make_float2(first, second);
    } else {
        const Element pair[2] = {narrow<Element>(first), narrow<Element>(second)};
        uint32_t bits;
        memcpy(&bits, pair, 4);
        return bits;
    }
}

// Eight output channels of a task to y. Each row is staged `phase` elements behind a multiple of 16 bytes, as
// it lies in y, so that all but its ends moves in 16 bytes, whatever P is.
template <class Tile>
__device__ __forceinline__ void write_rows(const Params& params, const float (&sum)[Tile::kNTiles][4],
                                           int half, float bias, typename Tile::Element* staged,
                                           typename Tile::Element* y, int rows, int left) {
    using Element = typename Tile::Element;
    constexpr int kVector = Tile::kVector;
    constexpr int kPitch = Tile::kStagePitch;
    constexpr int kLanes = Tile::kWarpP / kVector < 32 ? Tile::kWarpP / kVector : 32;  // along a row
    const int lane = threadIdx.x % 32;
    const int64_t P = params.problem.P;
    const uint32_t first_phase = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(y) / sizeof(Element));
    const auto phase_of = [&](int row) {
        return static_cast<int>((first_phase + row * static_cast<uint32_t>(P)) % kVector);
    };
    const uint32_t target = ptx::smem_address(staged + lane / 4 * kPitch + phase_of(lane / 4) + lane % 4 * 2);
    if (params.y_pairs) {
#pragma unroll
        for (int n = 0; n < Tile::kNTiles; ++n)
            ptx::st_shared(target + n * 8 * sizeof(Element),
                           round_pair<Element>(sum[n][2 * half] + bias, sum[n][2 * half + 1] + bias));
    } else {
#pragma unroll
        for (int n = 0; n < Tile::kNTiles; ++n)
            ptx::st_shared_apart(target + n * 8 * sizeof(Element),
                                 round_pair<Element>(sum[n][2 * half] + bias, sum[n][2 * half + 1] + bias));
    }
    __syncwarp();
    if (params.problem.activation != Activation::none)
        activate_staged(params.problem.activation, staged, 8 * kPitch);
#pragma unroll
    for (int i = 0; i < 8 * kLanes / 32; ++i) {
        const int row = lane / kLanes + i * (32 / kLanes);
        const int phase = phase_of(row);
        const int p = (kVector - phase) % kVector + lane % kLanes * kVector;
        if (row < rows && p + kVector <= left) {
            const uint4 piece = *reinterpret_cast<const uint4*>(staged + row * kPitch + phase + p);
            *reinterpret_cast<uint4*>(y + row * P + p) = piece;
        }
    }
    if (!params.y_vectors || left < Tile::kWarpP) {  // before the first whole piece and after the last
        constexpr int kEnds = 2 * kVector;
#pragma unroll 1
        for (int row = lane / kEnds; row < rows; row += 32 / kEnds) {
            const int phase = phase_of(row);
            const int head = min((kVector - phase) % kVector, left);
            const int i = lane % kEnds;
            const int p = i < kVector ? i : head + (left - head) / kVector * kVector + i - kVector;
            if (p < (i < kVector ? head : left)) y[row * P + p] = staged[row * kPitch + phase + p];
        }
    }
    __syncwarp();
}

// A task's outputs to y. Split operands: outputs whose sums are not sound are computed again.
template <class Tile>
__device__ __forceinline__ void write(const Params& params, const Place& place, const Memory& memory,
                                      int m_begin, int m_count, int64_t p,
                                      const float (&sum)[Tile::kMTiles][Tile::kNTiles][4]) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int lane = threadIdx.x % 32;
    const int64_t o_begin = place.o_begin + m_begin * 16;
    const int left = static_cast<int>(min(problem.P - p, int64_t{Tile::kWarpP}));
    if (left <= 0) return;
    Element* const staged = reinterpret_cast<Element*>(memory.staged + threadIdx.x / 32 * Tile::kStageBytes);
    Element* const y = static_cast<Element*>(problem.y) +
                       ((place.n * problem.G + place.g) * problem.O + o_begin) * problem.P + p;
    Soundness soundness;
#pragma unroll
    for (int m = 0; m < Tile::kMTiles; ++m) {
        if (m > 0 && m >= m_count) break;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int o = m * 16 + half * 8;
            const int rows = static_cast<int>(min(problem.O - o_begin - o, int64_t{8}));
            if (rows <= 0) break;
            const float bias = memory.bias[m_begin * 16 + o + lane / 4];
            write_rows<Tile>(params, sum[m], half, bias, staged, y + o * problem.P, rows, left);
            if constexpr (Tile::kSplit) {
#pragma unroll
                for (int n = 0; n < Tile::kNTiles; ++n) {
                    soundness.add(sum[m][n][2 * half]);
                    soundness.add(sum[m][n][2 * half + 1]);
                }
            }
        }
    }
    if constexpr (Tile::kSplit) {
        if (__all_sync(0xFFFFFFFF, soundness.holds())) return;
        const int rows = static_cast<int>(min(problem.O - o_begin, int64_t{16 * m_count}));
#pragma unroll 1
        for (int row = 0; row < rows; ++row) {
            for (int column = lane; column < left; column += 32) {
                float* const value = y + row * problem.P + column;
                if (!is_sound(*value))
                    *value = finish_exactly(problem, place.n, place.g, o_begin + row, p + column);
            }
        }
    }
}

#endif  // sm_80

// Blocks that registers are shared by. With more, ptxas spills some: for sm_120 with two, for sm_100 with
// three.
template <class Tile>
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
constexpr int kLaunchBlocks = 1;
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int kLaunchBlocks = 2;
#else
constexpr int kLaunchBlocks = Tile::kBlocks;
#endif

template <class Tile>
__global__ void __launch_bounds__(kThreads, kLaunchBlocks<Tile>)
    fold_sm80_forward_kernel(const __grid_constant__ Params params) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    using Element = typename Tile::Element;
    extern __shared__ __align__(16) unsigned char smem[];
    const Memory memory = memory_at(params, smem);
    const Problem& problem = params.problem;

    __shared__ Place place;
    {
        const Place here = place_of<Tile>(params);
        if (threadIdx.x == 0) place = here;
        if constexpr (Tile::kPerWord == 1) prefetch_x<Tile>(params, here);
        fill_offsets(params, memory.offsets);
        for (int o = threadIdx.x; o < params.m_tiles * 16; o += blockDim.x) {
            const bool biased = problem.bias != nullptr && here.o_begin + o < problem.O;
            const Element* bias = static_cast<const Element*>(problem.bias) + here.g * problem.O;
            memory.bias[o] = biased ? widen(bias[here.o_begin + o]) : 0.0f;
        }
        if constexpr (Tile::kMTiles == 1) fill_w<Tile, 8 / Tile::kPerWord, 1>(params, here, 0, memory.w);
        else fill_w<Tile, 2, 4>(params, here, 0, memory.w);
        if (params.rows <= 2) fill_x<Tile, 4, 2>(params, here, 0, memory.x);
        else fill_x<Tile, 2, 4>(params, here, 0, memory.x);
    }
    __syncthreads();

    // Of several chunks, warps without a task help to bring the rest.
    const int chunks = Tile::kIsNarrow ? 1 : params.chunks;
    const int tasks = chunks == 1 ? params.tasks : params.warps;
    for (int task = threadIdx.x / 32; task < tasks; task += params.warps) {
        const int row = Tile::kIsNarrow ? 0 : task / params.tasks_p;
        const int m_begin = row * Tile::kMTiles;
        const int m_count = Tile::kIsNarrow ? 1 : min(place.m_tiles - m_begin, Tile::kMTiles);
        const int position = (task - row * params.tasks_p) * Tile::kWarpP;
        const bool active = m_count > 0 && place.p_begin + position < problem.P;
        if (chunks == 1 && !active) continue;
        float sum[Tile::kMTiles][Tile::kNTiles][4] = {};
#pragma unroll 1
        for (int chunk = 0; chunk < chunks; ++chunk) {
            const int row_begin = chunk * params.chunk_rows;
            if (chunk > 0) {
                __syncthreads();  // the chunk before has been read
                fill_w<Tile, 1, 2>(params, place, row_begin, memory.w);
                fill_x<Tile, 1, 2>(params, place, row_begin, memory.x);
                __syncthreads();
            }
            if (!active) continue;
            multiply<Tile>(params, memory, min(params.chunk_rows, params.rows - row_begin), m_begin, m_count,
                           position, sum);
        }
        if (active) write<Tile>(params, place, memory, m_begin, m_count, place.p_begin + position, sum);
    }
#endif
}

// Cuts the output channels and the positions so that a block takes at most `smem_limit` bytes: the whole
// depth at once and a task for each of `warps`, or, where that is 0, the depth in chunks. `blocks` is 0 where
// that cannot be.
template <class Tile>
Params plan_within(const Problem& problem, int64_t smem_limit, int64_t warps) {
    Params params{};
    params.problem = problem;
    params.tap_pairs = Tile::kPerWord == 2 && problem.C == 1;
    params.rows = static_cast<int32_t>(ceil_div(problem.C, Tile::kPerWord));
    params.row_words = static_cast<int32_t>(params.tap_pairs ? ceil_div(problem.K, 2) : problem.K);
    params.tap_step = static_cast<int32_t>(params.tap_pairs ? 2 * problem.dilation : problem.dilation);
    // Worth a quarter more products: an eighth of the reads of x remain.
    const int64_t whole = round_up(params.row_words, kMmaWords);
    params.slide = Tile::kCanSlide && params.tap_step == problem.stride && params.row_words > kMmaWords &&
                   4 * whole <= 5 * params.row_words;
    const int64_t depth = params.slide ? whole : params.row_words;
    params.row_depth = plan_divisor(depth);
    params.stride = plan_divisor(problem.stride);
    const auto address = reinterpret_cast<uintptr_t>(problem.y);
    params.y_pairs = problem.P % 2 == 0 && address % (2 * sizeof(typename Tile::Element)) == 0;
    params.y_vectors = problem.P % Tile::kVector == 0 && address % 16 == 0;

    const int64_t m_total = ceil_div(problem.O, 16);
    const int64_t p_total = ceil_div(problem.P, Tile::kWarpP);
    // The next number of words that is 8 more than a multiple of 32 banks: a warp reads words of 4 planes or
    // rows at once, at 8 positions each.
    const auto apart = [](int64_t words) { return round_up(words + 24, 32) - 24; };
    const auto set = [&](int64_t chunk_rows, int64_t m_tiles, int64_t p_tiles) {
        params.chunks = static_cast<int32_t>(ceil_div(params.rows, chunk_rows));
        params.chunk_rows = static_cast<int32_t>(ceil_div(params.rows, params.chunks));
        params.chunk_steps = static_cast<int32_t>(ceil_div(params.chunk_rows * depth, kMmaWords));
        const int64_t span =
            (p_tiles * Tile::kWarpP - 1) * problem.stride + (depth - 1) * params.tap_step + 1;
        const int64_t plane_words = ceil_div(span, problem.stride);
        params.span = static_cast<int32_t>(span);
        params.plane_words = static_cast<int32_t>(problem.stride > 1 ? apart(plane_words) : plane_words);
        params.row_slots = static_cast<int32_t>(apart(problem.stride * params.plane_words));
        params.m_tiles = static_cast<int32_t>(m_tiles);
        params.tasks_o = static_cast<int32_t>(ceil_div(m_tiles, Tile::kMTiles));
        params.tasks_p = static_cast<int32_t>(p_tiles);
        params.tasks = params.tasks_o * params.tasks_p;
        params.smem_bytes = static_cast<int32_t>(smem_bytes<Tile>(params));
        const int64_t o_blocks = ceil_div(m_total, m_tiles), p_blocks = ceil_div(p_total, p_tiles);
        params.o_blocks = plan_index_divisor(o_blocks);
        params.p_blocks = plan_index_divisor(p_blocks);
        params.groups = plan_index_divisor(problem.G);
        params.blocks = o_blocks * p_blocks * problem.G * problem.N;
        // All where they share the tasks evenly, else some that do, and more that help to bring where blocks
        // are few.
        const int64_t even = params.tasks % kWarps == 0 ? kWarps
                             : params.tasks < kWarps    ? params.tasks
                                                        : kWarps / params.tasks_o * params.tasks_o;
        const int64_t share = 2 * kWarps * problem.device.sm_count / params.blocks;
        params.warps = static_cast<int32_t>(std::max(even, std::min<int64_t>(kWarps, share)));
        const int64_t width = std::min<int64_t>(round_up(span, 32), 32 * params.warps);
        params.filled_quads = static_cast<int32_t>(Tile::kIsNarrow ? ceil_div(problem.O, 4) : 4 * m_tiles);
        const int64_t quads = std::min(params.filled_quads, params.warps);
        params.fill_width = plan_divisor(width);
        params.fill_rows = static_cast<int32_t>(32 * params.warps / width);
        params.fill_quads = plan_divisor(quads);
        params.fill_steps = static_cast<int32_t>(params.warps / quads);
        return params.smem_bytes <= smem_limit;
    };
    // Output channels in equal blocks, a multiple of a task's where there are several.
    const auto m_tiles_of = [&](int64_t most) {
        if (m_total <= most) return m_total;
        return round_up(ceil_div(m_total, ceil_div(m_total, most)), Tile::kMTiles);
    };
    // The whole depth, for as many output channels as leave half the room.
    for (int64_t most = kMaxMTiles; warps > 0 && most >= Tile::kMTiles; most /= 2) {
        const int64_t m_tiles = m_tiles_of(most);
        int64_t p_tiles = std::min(warps / ceil_div(m_tiles, Tile::kMTiles), p_total);
        if (!set(params.rows, m_tiles, p_tiles)) continue;
        if (most / 2 >= Tile::kMTiles && m_tiles > most / 2 &&
            4 * m_total >= 3 * round_up(m_total, m_tiles_of(most / 2)) &&
            m_tiles * params.chunk_steps * 512 > smem_limit / 2)
            continue;
        // More positions share one filling while some waves of blocks remain.
        const auto larger = [&] {
            return 2 * params.tasks <= kMaxTasks && p_tiles < p_total &&
                   set(params.rows, m_tiles, 2 * p_tiles) &&
                   params.blocks >= 2 * Tile::kBlocks * problem.device.sm_count;
        };
        while (larger()) p_tiles *= 2;
        p_tiles = ceil_div(p_total, ceil_div(p_total, p_tiles));
        set(params.rows, m_tiles, p_tiles);
        // Fewer where multiprocessors would have no block.
        while (p_tiles > 1 && params.blocks < problem.device.sm_count) {
            p_tiles = ceil_div(p_tiles, 2);
            set(params.rows, m_tiles, p_tiles);
        }
        return params;
    }
    // Chunks of rows, one task for each warp.
    for (int64_t chunk_rows = params.rows; warps == 0 && chunk_rows > 0; --chunk_rows) {
        const int64_t m_tiles = m_tiles_of(4);
        int64_t p_tiles = std::min(kWarps / ceil_div(m_tiles, Tile::kMTiles), p_total);
        if (!set(chunk_rows, m_tiles, p_tiles)) continue;
        while (p_tiles > 1 && params.blocks < problem.device.sm_count)
            set(chunk_rows, m_tiles, p_tiles = ceil_div(p_tiles, 2));
        return params;
    }
    params.blocks = 0;
    return params;
}

template <class Tile>
Params plan(const Problem& problem) {
    // A block's share of a multiprocessor's shared memory, of which each block takes 1 KB more.
    const int64_t all = problem.device.smem_bytes + 1024, other = 1024 + static_cast<int64_t>(sizeof(Place));
    for (const int64_t warps : {kWarps, Tile::kIsNarrow ? kWarps / 2 : 0}) {
        for (int blocks = Tile::kBlocks; blocks > (warps > 0 ? 1 : 0); --blocks) {
            const Params params = plan_within<Tile>(problem, all / blocks - other, warps);
            if (params.blocks > 0) return params;
        }
    }
    return {};
}

// Whether tensor cores need no more cycles than the multiply-adds of the "direct" route, by what one
// multiprocessor does in a cycle, measured: words by mma.sync, multiply-adds, bytes stored. Where stores
// outlast both, this route has the better stores.
template <class Tile>
bool beats_direct(const Problem& problem, double words) {
    const int arch = problem.device.arch;
    const bool fast = arch == 80 || (arch >= 90 && arch < 120);  // others do TF32 at the rate of FFMA
    const double fast_words = Tile::kSplit ? 75 : Tile::kIsNarrow ? 220 : 120;
    const double words_per_cycle = fast ? fast_words : Tile::kSplit ? 37.5 : 60;
    const double ffma_per_cycle = arch == 80 ? 30 : 52;
    const double bytes_per_cycle = 18;
    const double outputs = static_cast<double>(problem.O) * static_cast<double>(problem.P);
    const double direct = outputs * static_cast<double>(problem.C * problem.K) / ffma_per_cycle;
    const double stores = outputs * static_cast<double>(element_bytes(problem.dtype)) / bytes_per_cycle;
    return words / words_per_cycle <= std::max(direct, stores);
}

// A problem, planned for a tile.
template <class Tile>
struct Launch {
    const Params params;

    explicit Launch(const Problem& problem) : params(plan<Tile>(problem)) {}

    bool takes() const { return params.blocks > 0 && params.blocks <= kMaxBlocks; }

    // Whether it does better than "direct", by one sample's numbers.
    bool suits() const {
        const Problem& problem = params.problem;
        // Many weights take long to bring: worth it where many positions share them, and most taps meet x (us
        // by this route and by "direct": 8x11x792 to 72, K166, TF32 176 and 69; 5x3x593 to 104, K230, 40 and
        // 22; 19x7x87 to 17, K596 d9 all in padding, 500 and 400).
        const bool padded = problem.K * problem.dilation > 2 * problem.L;
        if (params.chunks > 1 && padded) return false;
        if (params.chunks * params.chunk_steps > 64 && problem.P < 2048) return false;
        // Multiply-adds of words, those of padding included.
        const double words = static_cast<double>(params.chunks) * params.chunk_steps * kMmaWords *
                             static_cast<double>(round_up(problem.O, 16)) *
                             static_cast<double>(round_up(problem.P, Tile::kWarpP));
        return beats_direct<Tile>(problem, words);
    }

    Error run(cudaStream_t stream) const {
        const auto kernel = fold_sm80_forward_kernel<Tile>;
        const Error error = allow_smem<fold_sm80_forward_kernel<Tile>>(params.problem.device);
        if (error != nullptr) return error;
        kernel<<<static_cast<unsigned>(params.blocks), 32 * params.warps, params.smem_bytes, stream>>>(
            params);
        return launch_error();
    }
};

// Calls with a Launch of the tile that suits: the one that reads least from shared memory, but long rows
// where three products for one hide the reads of x.
template <class Element, bool kSplit, class Call>
auto with_tile(const Problem& problem, Call call) {
    if constexpr (kSplit) {
        if (problem.P >= 448) return call(Launch<Tile<Element, true, 1, 16, 2>>(problem));
        return call(Launch<Tile<Element, true, 1, 8, 2>>(problem));
    } else {
        if (problem.O <= 16) {
            const Launch<Tile<Element, false, 1, 8, 3>> narrow(problem);
            if (narrow.takes()) return call(narrow);
        }
        return call(Launch<Tile<Element, false, 2, 8, 2>>(problem));
    }
}

template <class Call>
auto with_launch(const Problem& problem, Call call) {
    switch (problem.dtype) {
        case Dtype::float16:
            return with_tile<__half, false>(problem, call);
        case Dtype::bfloat16:
            return with_tile<__nv_bfloat16, false>(problem, call);
        default:
            if (problem.precision == Precision::tf32) return with_tile<float, false>(problem, call);
            return with_tile<float, true>(problem, call);
    }
}

// Without a plan; `problem` is canonical, here and below.
inline bool may_take(const Problem& problem) {
    // What one block spans is counted in 32 bits.
    return problem.dtype != Dtype::float64 && problem.device.arch >= 80 && problem.C < 16 &&
           problem.stride <= 64 && problem.K <= 8192 && problem.dilation <= 8192 &&
           problem.K * problem.dilation <= 32768;
}

// What the kernel can compute.
inline bool takes(const Problem& problem) {
    return may_take(problem) && with_launch(problem, [](const auto& launch) { return launch.takes(); });
}

}  // namespace fold

// fp32, fp16 and bf16 from sm_80 on, fewer than 16 input channels a group. "direct" keeps sums too short
// for tensor cores to pay, and samples too small for setting out to (us by this route and by that: 3x3x468
// to 49, K24, TF32 17 and 10, bf16 14 and 11; 9x4x2594 to 71, K13 s4, 16 and 13, 14 and 17; 8x80x5238 to
// 104, K11 s4 g8, 20 and 34, 18 and 50; fp32, which takes three products for one, of one group: 1x2x1592 to
// 90, K158, 47 and 15, 256x4x600 to 300, K19, 333 and 286, but 23x3x2717 to 105, K459, 816 and 931), and
// strides that leave most of x unread (3x88x160185 to 96, K1 s8 g8, bf16, 97 and 60).
inline bool fits_fold_sm80(const Problem& any_problem) {
    const Problem problem = canonical(any_problem);
    const bool is_float = problem.dtype == Dtype::float32;
    const bool is_tf32 = problem.precision == Precision::tf32;
    const int64_t O = problem.O;
    // Products may be more than half empty: 20x780x157 to 325, K7 g65 bf16 55 us by direct, 21 by this, in
    // TF32 51, 23. With 4 outputs that takes long sums: bf16 14x272x1275 to 136, K21 g34 43, 24; 42x14x63902
    // to 28, K13 g7 264, 305.
    if (O < (!is_float ? 3 : is_tf32 ? 5 : 8) || !fold::may_take(problem)) return false;
    const int64_t least_products = !is_float ? (O < 4 ? 160 : O < 5 ? 90 : O < 8 ? 16 : 10)
                                   : !is_tf32 ? 48
                                              : (O < 128 ? 24 : 10);
    if (problem.C * problem.K < least_products || problem.stride >= 4 * problem.K) return false;
    if (fits_gather(problem)) return false;
    // Of one sample: its result must not depend on others.
    const double products = static_cast<double>(problem.G * problem.O * problem.C * problem.K) *
                            static_cast<double>(problem.P);
    const double least = !is_float ? 4e5 : is_tf32 ? 3e6 : problem.G > 1 ? 4e6 : 3.2e8;
    if (products < least) return false;
    return fold::with_launch(problem, [](const auto& launch) { return launch.takes() && launch.suits(); });
}

inline Error launch_fold_sm80(const Problem& any_problem, cudaStream_t stream) {
    const Problem problem = canonical(any_problem);
    return fold::with_launch(problem, [&](const auto& launch) { return launch.run(stream); });
}

}  // namespace conv1d
''',
"fold.cu": r'''
#line 1 "kernels/fold.cu"
// The translation unit of route "fold_sm80".



const conv1d::Route conv1d::kFoldSm80 = {"fold_sm80", fits_fold_sm80, no_workspace, launch_fold_sm80};
''',
"gather.cuh": r'''
#line 1 "kernels/gather.cuh"
// Few products an output: each thread gathers its own x, for one position of kO output channels. Long sums
// are added up from parts, which threads share where outputs are few. Nothing is staged but weights, and what
// a thread does before its first load is kept short, so that tiny problems take little more than a launch,
// and strides that pass most of x by cost no more than what they read.

#include <type_traits>





namespace conv1d {
namespace gather {

// kAlone: there are so many outputs that each thread sums all parts of its own.
template <class Element, int kO, bool kAlone>
__global__ void __launch_bounds__(kThreads, kUnboundBlocks)
    gather_kernel(const __grid_constant__ Params params) {
    extern __shared__ __align__(16) unsigned char smem[];
    const int32_t thread = threadIdx.x, products = params.products;
    float* const bias_smem = reinterpret_cast<float*>(smem);  // [kO]
    float* const w_smem = bias_smem + round_up(kO, 4);  // [product][kO]; later sums, [part][kO][position]
    const int32_t part = thread >> params.positions_log2, position = thread - (part << params.positions_log2);
    const int64_t index = (int64_t{blockIdx.x} << params.positions_log2) + position;
    const int64_t n = params.samples.quotient(index);
    const auto p = static_cast<int32_t>(index - n * params.samples.row.divisor);
    const bool active = n < params.N;
    const uint32_t o_begin = blockIdx.y * kO, channel = blockIdx.z * params.channels + o_begin;
    const int32_t outputs = min(static_cast<int32_t>(params.channels - o_begin), kO);

    // Weights and bias, then x: all on their way before any is waited for.
    const Element* const w = static_cast<const Element*>(params.w) +
                             static_cast<uint64_t>(channel) * static_cast<uint32_t>(products);
    const int32_t known = outputs * products;
    const Element w_first = thread < known ? w[thread] : Element{};
    float bias = 0.0f;
    if (params.bias != nullptr && thread < outputs)
        bias = widen(static_cast<const Element*>(params.bias)[channel + thread]);

    const int64_t row = params.samples.row.divisor;
    Element* const y = static_cast<Element*>(params.y) + n * params.y_sample_step +
                       static_cast<uint64_t>(channel) * row + p;

    // The thread's products, by channel and tap.
    const int32_t begin = min(part * params.share, products);
    const int32_t last = kAlone ? products : min(begin + params.share, products);
    const int32_t end = active ? last : begin;
    const int32_t first_row = params.taps.quotient(begin), taps = params.taps.divisor;
    const int32_t l_begin = p * params.stride - params.pad_left;
    int32_t tap = begin - first_row * taps;
    int32_t l = l_begin + tap * params.dilation;
    const Element* x = static_cast<const Element*>(params.x) + n * params.sample_step +
                       int64_t{blockIdx.z} * params.group_step + int64_t{first_row} * params.row_step +
                       int64_t{l} * params.l_step;
    Element value[kBatch];
    const auto load = [&](int32_t left) {
#pragma unroll
        for (int i = 0; i < kBatch; ++i) value[i] = Element{};
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
            if (i == kBatch / 2 && i >= left) break;
            const bool inside = i < left && static_cast<uint32_t>(l) < static_cast<uint32_t>(params.length);
            if (inside) value[i] = *x;
            const bool is_last = ++tap == taps;
            x += is_last ? params.turn_step : params.tap_step;
            l = is_last ? l_begin : l + params.dilation;
            if (is_last) tap = 0;
        }
    };
    load(end - begin);

    if (thread < kO) bias_smem[thread] = bias;
    if (thread < (kStep - 1) * kO) w_smem[kO * products + thread] = 0.0f;
    const auto store_w = [&](int32_t at, Element w_value) {
        const int32_t o = kO == 1 ? 0 : params.products_of_channel.quotient(at);
        if (at < kO * products) w_smem[(at - o * products) * kO + o] = widen(w_value);
    };
    store_w(thread, w_first);
#pragma unroll 1
    for (int32_t first = thread + kThreads; first < kO * products; first += kBatchW * kThreads) {
        Element w_value[kBatchW];
#pragma unroll
        for (int i = 0; i < kBatchW; ++i) {
            const int32_t at = first + i * kThreads;
            w_value[i] = at < known ? w[at] : Element{};
        }
#pragma unroll
        for (int i = 0; i < kBatchW; ++i) store_w(first + i * kThreads, w_value[i]);
    }
    __syncthreads();

    // The sum of the part at hand, which ends before product `part_end`. A thread that sums several adds up
    // those before in shared memory, behind the weights: registers would cost a block in four.
    float sum[kO] = {};
    float* const total_smem = w_smem + (products + kStep - 1) * kO + thread;
    int32_t part_end = params.share;
    const auto add_total = [&] {
#pragma unroll
        for (int o = 0; o < kO; ++o) {
            if (part_end > params.share) sum[o] += total_smem[o * kThreads];
        }
    };
#pragma unroll 1
    for (int32_t first = begin; first < end; first += kBatch) {
        if (kAlone && first == part_end) {
            add_total();
#pragma unroll
            for (int o = 0; o < kO; ++o) total_smem[o * kThreads] = sum[o], sum[o] = 0.0f;
            part_end += params.share;
        }
        float wide[kBatch];
#pragma unroll
        for (int i = 0; i < kBatch; ++i) wide[i] = widen(value[i]);
        if (first + kBatch < end) load(end - first - kBatch);
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
            if (i % kStep == 0 && first + i >= end) break;
            const auto w_frag = *reinterpret_cast<const Vector<float, kO>*>(w_smem + (first + i) * kO);
#pragma unroll
            for (int o = 0; o < kO; ++o) sum[o] = fmaf(w_frag.at[o], wide[i], sum[o]);
        }
    }
    if (kAlone) add_total();

    if (params.shared_parts == 1 && params.activation == Activation::none) {
        const auto bias_frag = *reinterpret_cast<const Vector<float, kO>*>(bias_smem);
        Element* target = y;
#pragma unroll
        for (int o = 0; o < kO; ++o, target += row) {
            if (active && o < outputs) *target = narrow<Element>(sum[o] + bias_frag.at[o]);
        }
        return;
    }
    __syncthreads();  // weights have been read
    const int32_t step_log2 = params.positions_log2;
#pragma unroll
    for (int o = 0; o < kO; ++o) w_smem[((part * kO + o) << step_log2) + position] = sum[o];
    __syncthreads();
    if (!active) return;
#pragma unroll 1
    for (int o = part; o < outputs; o += kThreads >> step_log2) {
        float total = w_smem[(o << step_log2) + position];
#pragma unroll 4
        for (int i = 1; i < params.shared_parts; ++i)
            total += w_smem[((i * kO + o) << step_log2) + position];
        total += bias_smem[o];
        y[o * row] = params.activation == Activation::none
                         ? narrow<Element>(total)
                         : activate<Element, true>(params.activation, total);
    }
}

template <class Element>
Error launch(const Problem& problem, cudaStream_t stream) {
    const Plan plan = gather::plan(problem);
    const dim3 blocks(static_cast<unsigned>(plan.p_blocks), static_cast<unsigned>(plan.o_blocks),
                      static_cast<unsigned>(problem.G));
    const auto run = [&](auto* kernel) {
        kernel<<<blocks, kThreads, plan.smem_bytes, stream>>>(plan.params);
        return launch_error();
    };
    const auto run_outputs = [&](auto outputs) {
        constexpr int kO = decltype(outputs)::value;
        return plan.alone ? run(gather_kernel<Element, kO, true>) : run(gather_kernel<Element, kO, false>);
    };
    if (plan.outputs == 1) return run_outputs(std::integral_constant<int, 1>{});
    if (plan.outputs == 2) return run_outputs(std::integral_constant<int, 2>{});
    if (plan.outputs == 4) return run_outputs(std::integral_constant<int, 4>{});
    if (plan.outputs == kOutputs) return run_outputs(std::integral_constant<int, kOutputs>{});
    return run_outputs(std::integral_constant<int, 2 * kOutputs>{});
}

}  // namespace gather

// Not inline: the kernels are compiled once, in gather.cu.
Error launch_gather(const Problem& any_problem, cudaStream_t stream) {
    const Problem problem = canonical(any_problem);
    if (problem.dtype == Dtype::float16) return gather::launch<__half>(problem, stream);
    if (problem.dtype == Dtype::bfloat16) return gather::launch<__nv_bfloat16>(problem, stream);
    return gather::launch<float>(problem, stream);
}

}  // namespace conv1d
''',
"gather.cu": r'''
#line 1 "kernels/gather.cu"
// The translation unit of route "gather".



const conv1d::Route conv1d::kGather = {"gather", fits_gather, no_workspace, launch_gather};
''',
"gemm_sm80.cuh": r'''
#line 1 "kernels/gemm_sm80.cuh"
// Dense convolution on Ampere, Ada and every later card: implicit GEMM with mma.sync, fed by cp.async.
// TF32 (operands rounded to nearest), fp16, bf16; sums in fp32; groups of 16 input channels and more.
//
// D[o][position] += W[o][channel] * X[channel][position, shifted by the tap], for each tap. A step of the
// reduction is a chunk of channels x a group of taps. cp.async brings, some steps ahead, the weights
// (packed in the order in which lanes hold operand A) and each channel's window of x as it lies in memory,
// from the 16-byte boundary before it: rows of any alignment move in whole pieces, and x leaves L2 once for
// all taps of a group. The block then rounds or pairs the windows into the step's tile, a Window (tile.cuh)
// that operand B is read from. The tile is gathered from global memory instead where positions are not
// neighbours there, where windows would not fit, and where rows are so short that a tile runs on from one
// sample to the next ("flat").

#include <cstring>
#include <type_traits>






namespace conv1d {
namespace gemm_sm80 {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kMmaWords = 8;
constexpr int kMaxTaps = 4;  // of a step

// Blocks that share a multiprocessor.
#if defined(__CUDA_ARCH__) && (__CUDA_ARCH__ == 860 || __CUDA_ARCH__ == 890 || __CUDA_ARCH__ >= 1200)
constexpr int kBlocks = 2;  // 100 KB of shared memory hold no more
#else
constexpr int kBlocks = 3;
#endif

template <class Element_, int kWarpsO_, int kMTiles_, int kNTiles_>
struct Tile {
    using Element = Element_;
    static constexpr int kWarpsO = kWarpsO_;
    static constexpr int kMTiles = kMTiles_;  // of 16 output channels, of one warp
    static constexpr int kNTiles = kNTiles_;  // of 8 positions, of one warp
    static constexpr int kWarpO = 16 * kMTiles;
    static constexpr int kWarpP = 8 * kNTiles;
    static constexpr int kO = kWarpO * kWarpsO;
    static constexpr int kP = kWarpP * (kWarps / kWarpsO);
    static constexpr int kStagePitch = kWarpP + 8;  // floats; 8 mod 32: fragments land in different banks
    static constexpr int kEpilogueBytes = kWarps * 16 * kStagePitch * 4;
    static_assert(kWarpP % 32 == 0, "staged rows must be 8 mod 32 banks apart");
};

// Hopper has a GEMM of its own and takes this one for strides beyond 32 only, where one tile will do.
template <class Element>
using HopperTile = Tile<Element, 2, 2, 8>;
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
template <class Tile>
constexpr bool kCompiled = std::is_same<Tile, HopperTile<typename Tile::Element>>::value;
#else
template <class Tile>
constexpr bool kCompiled = true;
#endif

template <class Element>
constexpr int kChannelsPerWord = 4 / sizeof(Element);

struct Params {
    Problem problem;
    const uint4* w_packed;  // [G][o_tiles][chunks][K][chunk_words / 8][kO / 16][32 lanes]
    Window<kMaxTaps> window;
    int32_t taps;  // of a step; the last group of a chunk may have fewer
    int32_t tap_groups;
    int32_t chunk_words;
    int32_t chunks;
    int32_t row_slots;  // pitch of the tile's rows; 4 mod 8: a half warp reads from all banks
    int32_t pieces;     // of 16 bytes, of one channel's window; 0 where x is gathered
    int32_t stages;
    int32_t w_stage_bytes;
    int32_t stage_bytes;  // weights and windows of one step
    int32_t smem_bytes;
    bool flat;     // positions count through all samples
    bool y_pairs;  // rows of y start at multiples of two elements
    int64_t o_tiles, p_tiles;
};

// What one block computes. Kept in shared memory: the sums leave few registers.
struct Place {
    int64_t n, g, o_begin, p_begin;
    int64_t l_begin;  // input position of the window's start at tap 0
    const uint4* w_packed;
};

// What one step reduces over: the tap groups of a chunk, then the next chunk.
struct Step {
    int chunk, tap_group;
};

__device__ __forceinline__ Step step_at(const Params& params, int index) {
    return {index / params.tap_groups, index % params.tap_groups};
}

__device__ __forceinline__ int taps_of(const Params& params, const Step& step) {
    return min(params.taps, static_cast<int>(params.problem.K) - step.tap_group * params.taps);
}

// Depth of a chunk in mma's: the last one may have fewer.
template <class Element>
__device__ __forceinline__ int depth_of(const Params& params, const Step& step) {
    const int words = static_cast<int>(ceil_div(params.problem.C, kChannelsPerWord<Element>));
    return (min(words - step.chunk * params.chunk_words, params.chunk_words) + kMmaWords - 1) / kMmaWords;
}

// One word of depth from its channels, the first in the low half.
__device__ __forceinline__ uint32_t pack_word(const float (&channel)[1]) {
    return round_tf32(__float_as_uint(channel[0]));
}
template <class Element>
__device__ __forceinline__ uint32_t pack_word(const Element (&channel)[2]) {
    uint16_t bits[2];
    static_assert(sizeof(channel) == 4, "two channels fill a word");
    memcpy(bits, channel, 4);
    return bits[0] | static_cast<uint32_t>(bits[1]) << 16;
}

// Weights in the order of w_packed, with zeros for the channels that C and O lack. One thread, one uint4.
template <class Element>
__global__ void __launch_bounds__(256)
    gemm_sm80_pack_kernel(const Element* __restrict__ w,  // [G*O, C, K]
                          uint4* __restrict__ w_packed,   // as Params has it
                          int64_t O, int64_t C, uint32_t K, uint32_t m_tiles, uint32_t o_tiles,
                          uint32_t depth, uint32_t chunks, uint32_t count) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    const uint32_t index = blockIdx.x * 256 + threadIdx.x;
    if (index >= count) return;
    // Taps run fastest, then channels, so that a warp reads neighbours.
    uint32_t rest = index;
    const uint32_t k = rest % K;
    rest /= K;
    const uint32_t t = rest % 4;
    rest /= 4;
    const uint32_t step = rest % depth;
    rest /= depth;
    const uint32_t chunk = rest % chunks;
    rest /= chunks;
    const uint32_t g = rest % 8;
    rest /= 8;
    const uint32_t m_tile = rest % m_tiles;
    rest /= m_tiles;
    const uint32_t o_tile = rest % o_tiles;
    const uint32_t group = rest / o_tiles;

    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int64_t o = (static_cast<int64_t>(o_tile) * m_tiles + m_tile) * 16 + g + i % 2 * 8;
        const int64_t word = (static_cast<int64_t>(chunk) * depth + step) * kMmaWords + t + i / 2 * 4;
        Element channel[kChannelsPerWord<Element>];
#pragma unroll
        for (int c = 0; c < kChannelsPerWord<Element>; ++c) {
            const int64_t place = word * kChannelsPerWord<Element> + c;
            channel[c] = o < O && place < C ? w[((group * O + o) * C + place) * K + k] : Element{};
        }
        words[i] = pack_word(channel);
    }
    const int64_t tile = (static_cast<int64_t>(group) * o_tiles + o_tile) * chunks + chunk;
    w_packed[(((tile * K + k) * depth + step) * m_tiles + m_tile) * 32 + g * 4 + t] =
        make_uint4(words[0], words[1], words[2], words[3]);
#endif
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

// Starts the copies of one step into its stage: the weights, then each channel's window.
template <class Tile>
__device__ __forceinline__ void fetch(const Params& params, const Place& place, const Step& step,
                                      unsigned char* stage) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    const int tap_begin = step.tap_group * params.taps;

    const int tap_vectors = params.chunk_words / kMmaWords * (Tile::kO / 16) * 32;
    const uint4* w = place.w_packed + (step.chunk * problem.K + tap_begin) * tap_vectors;
    const uint32_t w_stage = ptx::smem_address(stage);
    for (int i = threadIdx.x; i < taps_of(params, step) * tap_vectors; i += kThreads) {
        ptx::cp_async_16(w_stage + i * 16, w + i, 16);
    }
    if (params.pieces == 0) return;

    const int chunk_channels = params.chunk_words * kChannelsPerWord<Element>;
    const int64_t l_begin = place.l_begin + tap_begin * problem.dilation;
    const int64_t channel_begin = static_cast<int64_t>(step.chunk) * chunk_channels;
#pragma unroll 1
    for (int c = warp; c < chunk_channels; c += kWarps) {
        const int64_t channel = place.g * problem.C + channel_begin + c;
        // Addresses, in bytes: of the row, and of the 16-byte boundary at or before the window.
        const int64_t row =
            reinterpret_cast<int64_t>(static_cast<const Element*>(problem.x) +
                                      (place.n * problem.x_stride_n + channel * problem.x_stride_c));
        const int64_t row_end = row + problem.L * static_cast<int64_t>(sizeof(Element));
        const int64_t start = (row + l_begin * static_cast<int64_t>(sizeof(Element))) & ~int64_t{15};
        const uint32_t target = w_stage + params.w_stage_bytes + c * params.pieces * 16;
#pragma unroll 1
        for (int piece = lane; piece < params.pieces; piece += 32) {
            const int64_t address = start + piece * 16;
            int64_t bytes = min(row_end - address, int64_t{16});
            if (bytes < 0 || address + 16 <= row || channel_begin + c >= problem.C) bytes = 0;
            if (bytes > 0 && bytes < 16) {  // the row's end, perhaps the memory's: nothing behind it is read
                constexpr int kSize = sizeof(Element), kElements = 16 / kSize;
                Element* const end = reinterpret_cast<Element*>(stage + params.w_stage_bytes) +
                                     (c * params.pieces + piece) * kElements;
                const Element* const source = reinterpret_cast<const Element*>(address);
                for (int i = 0; i < kElements; ++i) end[i] = i * kSize < bytes ? source[i] : Element{};
                continue;
            }
            const void* source = bytes == 0 ? problem.x : reinterpret_cast<const void*>(address);
            ptx::cp_async_16(target + piece * 16, source, static_cast<uint32_t>(bytes));
        }
    }
}

// Rounds or pairs the windows of a stage into the step's tile. A word of depth is one TF32 channel or a
// pair of 16-bit ones, one mma takes 8, and the two that a lane needs at a slot lie together, one LDS.64:
//
//   tile[word / 8][word % 4][slot] = {word, word + 4}
template <class Tile>
__device__ __forceinline__ void convert(const Params& params, const Place& place, const Step& step,
                                        const unsigned char* stage, uint2* tile) {
    using Element = typename Tile::Element;
    constexpr int kPerWord = kChannelsPerWord<Element>;
    constexpr int kBatch = 4 / kPerWord;  // slots that a thread reads before it writes
    const Problem& problem = params.problem;
    const int t = threadIdx.x / 32;  // this warp's words modulo 4
    const int lane = threadIdx.x % 32;
    const int64_t l_begin = place.l_begin + step.tap_group * params.taps * problem.dilation;
    // Offsets from the window's start that lie in the row and, wherever in its first piece it starts, in its
    // own pieces: some planes are longer than their taps need. A window is short enough for 32 bits.
    const int64_t window_end = (params.pieces - 1) * (16 / static_cast<int>(sizeof(Element))) + 1;
    const int offset_begin = static_cast<int>(min(max(-l_begin, int64_t{0}), window_end));
    const int offset_end = static_cast<int>(max(min(problem.L - l_begin, window_end), int64_t{0}));
    const int stride = static_cast<int>(problem.stride);
    const Element* x = static_cast<const Element*>(problem.x) + place.n * problem.x_stride_n + l_begin;
    const int64_t channel_begin =
        place.g * problem.C + static_cast<int64_t>(step.chunk) * params.chunk_words * kPerWord;

    const int depths = depth_of<Element>(params, step);
#pragma unroll 1
    for (int depth = 0; depth < depths; ++depth) {
        const Element* window[2 * kPerWord];  // of the channels of words t and t + 4
#pragma unroll
        for (int i = 0; i < 2 * kPerWord; ++i) {
            const int c = (depth * kMmaWords + t + i / kPerWord * 4) * kPerWord + i % kPerWord;
            const int64_t address = reinterpret_cast<int64_t>(x + (channel_begin + c) * problem.x_stride_c);
            const int place_in_stage = params.w_stage_bytes + c * params.pieces * 16 + (address & 15);
            window[i] = reinterpret_cast<const Element*>(stage + place_in_stage);
        }
        for (int plane = 0; plane < params.window.planes; ++plane) {
            const int plane_offset = static_cast<int>(params.window.plane_offset[plane]);
            uint2* target = tile + (depth * 4 + t) * params.row_slots + plane * params.window.plane_rows;
            for (int row = lane; row < params.window.plane_rows; row += 32 * kBatch) {
                uint2 slot[kBatch];
#pragma unroll
                for (int j = 0; j < kBatch; ++j) {
                    const int offset = plane_offset + (row + 32 * j) * stride;
                    const bool inside = row + 32 * j < params.window.plane_rows && offset >= offset_begin &&
                                        offset < offset_end;
                    Element channel[2][kPerWord] = {};
                    if (inside) {
#pragma unroll
                        for (int i = 0; i < 2 * kPerWord; ++i)
                            channel[i / kPerWord][i % kPerWord] = window[i][offset];
                    }
                    slot[j] = make_uint2(pack_word(channel[0]), pack_word(channel[1]));
                }
#pragma unroll
                for (int j = 0; j < kBatch; ++j) {
                    if (row + 32 * j < params.window.plane_rows) target[row + 32 * j] = slot[j];
                }
            }
        }
    }
}

// The same tile straight from global memory: any strides, and rows of several samples.
template <class Tile>
__device__ __forceinline__ void gather(const Params& params, const Place& place, const Step& step,
                                       uint2* tile) {
    using Element = typename Tile::Element;
    constexpr int kPerWord = kChannelsPerWord<Element>;
    const Problem& problem = params.problem;
    const uint32_t t = threadIdx.x / 32;
    const int64_t channel_begin = static_cast<int64_t>(step.chunk) * params.chunk_words * kPerWord;
    const int64_t channels = problem.C - channel_begin;  // that remain
    const int depths = depth_of<Element>(params, step);
    for (uint32_t row = threadIdx.x % 32; row < params.window.plane_rows; row += 32) {
        int64_t n = place.n;
        int64_t p = place.p_begin + row;
        if (params.flat) {
            n = p / problem.P;
            p -= n * problem.P;
        }
        for (int plane = 0; plane < params.window.planes; ++plane) {
            const int64_t l = p * problem.stride + step.tap_group * params.taps * problem.dilation +
                              params.window.plane_offset[plane] - problem.pad_left;
            const bool inside = n < problem.N && l >= 0 && l < problem.L;
            const Element* x = static_cast<const Element*>(problem.x) + n * problem.x_stride_n +
                               l * problem.x_stride_l +
                               (place.g * problem.C + channel_begin + t * kPerWord) * problem.x_stride_c;
            uint2* target = tile + t * params.row_slots + plane * params.window.plane_rows + row;
#pragma unroll 1
            for (int depth = 0; depth < depths; ++depth) {
                Element channel[2][kPerWord];
#pragma unroll
                for (int half = 0; half < 2; ++half) {
#pragma unroll
                    for (int i = 0; i < kPerWord; ++i) {
                        const uint32_t c = (depth * kMmaWords + half * 4 + t) * kPerWord + i;
                        channel[half][i] = inside && c < channels ? x[i * problem.x_stride_c] : Element{};
                    }
                    x += 4 * kPerWord * problem.x_stride_c;
                }
                *target = make_uint2(pack_word(channel[0]), pack_word(channel[1]));
                target += 4 * params.row_slots;
            }
        }
    }
}

template <class Tile>
__device__ __forceinline__ void multiply(const Params& params, const Step& step, const unsigned char* stage,
                                         const uint2* tile, float (&sum)[Tile::kMTiles][Tile::kNTiles][4]) {
    using Element = typename Tile::Element;
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    const int chunk_depth = params.chunk_words / kMmaWords;
    const uint4* w_lane =
        reinterpret_cast<const uint4*>(stage) + warp % Tile::kWarpsO * Tile::kMTiles * 32 + lane;
    const uint2* x_lane =
        tile + lane % 4 * params.row_slots + warp / Tile::kWarpsO * Tile::kWarpP + lane / 4;
    const int taps = taps_of(params, step);
    const int depths = depth_of<Element>(params, step);
    for (int tap = 0; tap < taps; ++tap) {
#pragma unroll 1
        for (int depth = 0; depth < depths; ++depth) {
            const uint4* w = w_lane + (tap * chunk_depth + depth) * (Tile::kO / 16) * 32;
            const uint2* x = x_lane + depth * 4 * params.row_slots + params.window.tap_slot[tap];
            uint4 w_frag[Tile::kMTiles];
#pragma unroll
            for (int m = 0; m < Tile::kMTiles; ++m) w_frag[m] = w[m * 32];
#pragma unroll
            for (int n = 0; n < Tile::kNTiles; ++n) {
                const uint2 x_frag = x[n * 8];
#pragma unroll
                for (int m = 0; m < Tile::kMTiles; ++m) ptx::mma<Element>(sum[m][n], w_frag[m], x_frag);
            }
        }
    }
}

// Stores 16 rows of y that a warp has staged: kVector neighbours a lane, along the rows.
template <class Tile, int kVector>
__device__ __forceinline__ void store_rows(const Params& params, const Place& place, const float* staged,
                                           int64_t o_begin, int64_t p_begin) {
    using Element = typename Tile::Element;
    constexpr int kLanes = Tile::kWarpP / kVector < 32 ? Tile::kWarpP / kVector : 32;  // along a row
    const Problem& problem = params.problem;
    const int lane = threadIdx.x % 32;
    const int rows = static_cast<int>(min(problem.O - o_begin, int64_t{16}));
#pragma unroll 1
    for (int column = lane % kLanes * kVector; column < Tile::kWarpP; column += kLanes * kVector) {
        int64_t n = place.n;
        int64_t p = p_begin + column;
        if (params.flat) {
            n = p / problem.P;
            p -= n * problem.P;
        }
        if (p >= problem.P || n >= problem.N) continue;
        const int64_t channel = place.g * problem.O + o_begin;
        const Element* bias = static_cast<const Element*>(problem.bias) + channel;
        Element* y =
            static_cast<Element*>(problem.y) + (n * problem.G * problem.O + channel) * problem.P + p;
        const auto store = [&](auto activated) {
            constexpr int kUnroll = decltype(activated)::value ? 1 : 4;
#pragma unroll kUnroll
            for (int row = lane / kLanes; row < rows; row += 32 / kLanes) {
                const auto sums = *reinterpret_cast<const Vector<float, kVector>*>(
                    staged + row * Tile::kStagePitch + column);
                const float bias_value = problem.bias == nullptr ? 0.0f : widen(bias[row]);
                Vector<Element, kVector> out;
#pragma unroll
                for (int v = 0; v < kVector; ++v) {
                    out.at[v] = finish<Element, decltype(activated)::value>(problem, sums.at[v] + bias_value);
                }
                *reinterpret_cast<Vector<Element, kVector>*>(y + row * problem.P) = out;
            }
        };
        if (problem.activation == Activation::none) store(std::false_type{});
        else store(std::true_type{});
    }
}

template <class Tile>
__device__ __forceinline__ void write(const Params& params, const Place& place, float* smem,
                                      const float (&sum)[Tile::kMTiles][Tile::kNTiles][4]) {
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    float* staged = smem + warp * 16 * Tile::kStagePitch;
    float* fragment = staged + lane / 4 * Tile::kStagePitch + lane % 4 * 2;
    const int64_t p_begin = place.p_begin + warp / Tile::kWarpsO * Tile::kWarpP;
#pragma unroll
    for (int m = 0; m < Tile::kMTiles; ++m) {
        const int64_t o_begin = place.o_begin + warp % Tile::kWarpsO * Tile::kWarpO + m * 16;
#pragma unroll
        for (int n = 0; n < Tile::kNTiles; ++n) {
            *reinterpret_cast<float2*>(fragment + n * 8) = make_float2(sum[m][n][0], sum[m][n][1]);
            *reinterpret_cast<float2*>(fragment + n * 8 + 8 * Tile::kStagePitch) =
                make_float2(sum[m][n][2], sum[m][n][3]);
        }
        __syncwarp();
        if (params.y_pairs) {
            store_rows<Tile, 2>(params, place, staged, o_begin, p_begin);
        } else {
            store_rows<Tile, 1>(params, place, staged, o_begin, p_begin);
        }
        __syncwarp();
    }
}

#endif  // sm_80

template <class Tile>
__global__ void __launch_bounds__(kThreads, kBlocks)
    gemm_sm80_forward_kernel(const __grid_constant__ Params params) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    if constexpr (!kCompiled<Tile>) return;
    extern __shared__ __align__(16) unsigned char smem[];
    // [stages]{weights, windows} then the tile; at the end each warp stages its rows of y over them.
    uint2* tile = reinterpret_cast<uint2*>(smem + params.stages * params.stage_bytes);
    __shared__ Place place;
    if (threadIdx.x == 0) {
        const Problem& problem = params.problem;
        const int64_t o_tile = blockIdx.x % params.o_tiles;
        const int64_t rest = blockIdx.x / params.o_tiles;
        place.o_begin = o_tile * Tile::kO;
        place.p_begin = rest % params.p_tiles * Tile::kP;
        place.g = rest / params.p_tiles % problem.G;
        place.n = rest / params.p_tiles / problem.G;  // 0 where tiles are flat
        place.l_begin = place.p_begin * problem.stride - problem.pad_left;
        place.w_packed = params.w_packed + (place.g * params.o_tiles + o_tile) * params.chunks * problem.K *
                                               (params.chunk_words / kMmaWords * (Tile::kO / 16) * 32);
    }
    __syncthreads();

    float sum[Tile::kMTiles][Tile::kNTiles][4] = {};
    const int steps = params.chunks * params.tap_groups;
    for (int i = 0; i < params.stages - 1; ++i) {
        if (i < steps) fetch<Tile>(params, place, step_at(params, i), smem + i * params.stage_bytes);
        ptx::cp_async_commit_group();
    }
    for (int i = 0; i < steps; ++i) {
        if (params.stages == 2) {
            ptx::cp_async_wait_group<0>();
        } else {
            ptx::cp_async_wait_group<1>();
        }
        __syncthreads();  // this step has landed; the tile and the stage of the step before have been read
        const int ahead = i + params.stages - 1;
        if (ahead < steps) {
            fetch<Tile>(params, place, step_at(params, ahead),
                        smem + ahead % params.stages * params.stage_bytes);
        }
        ptx::cp_async_commit_group();
        const Step step = step_at(params, i);
        const unsigned char* stage = smem + i % params.stages * params.stage_bytes;
        if (params.pieces != 0) {
            convert<Tile>(params, place, step, stage, tile);
        } else {
            gather<Tile>(params, place, step, tile);
        }
        __syncthreads();
        multiply<Tile>(params, step, stage, tile, sum);
    }
    __syncthreads();
    write<Tile>(params, place, reinterpret_cast<float*>(smem), sum);
#endif
}

// Plans steps of this size; false where they exceed a block's share of shared memory.
template <class Tile>
bool plan_steps(Params& params, int64_t taps, int64_t chunk_words, int64_t stages, bool copied) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    params.tap_groups = static_cast<int32_t>(ceil_div(problem.K, taps));
    params.taps = static_cast<int32_t>(ceil_div(problem.K, params.tap_groups));
    params.window =
        plan_window<kMaxTaps>(params.taps, Tile::kP, problem.stride, problem.dilation, !params.flat);
    params.row_slots = params.window.slots() + ((4 - params.window.slots()) & 7);
    params.chunk_words = static_cast<int32_t>(chunk_words);
    params.chunks = static_cast<int32_t>(ceil_div(problem.C, chunk_words * kChannelsPerWord<Element>));
    params.stages = static_cast<int32_t>(stages);

    int64_t pieces = 0;
    if (copied) {
        // A window may start anywhere in its first piece.
        const int64_t window = (Tile::kP - 1) * problem.stride + (params.taps - 1) * problem.dilation + 1;
        pieces = ceil_div((window - 1) * static_cast<int64_t>(sizeof(Element)) + 16, 16);
    }
    const int64_t w_stage_bytes = params.taps * chunk_words * Tile::kO * 4;
    const int64_t stage_bytes = w_stage_bytes + chunk_words * kChannelsPerWord<Element> * pieces * 16;
    int64_t smem_bytes = stages * stage_bytes + chunk_words * params.row_slots * 4;
    if (smem_bytes < Tile::kEpilogueBytes) smem_bytes = Tile::kEpilogueBytes;

    // Three blocks share a multiprocessor, two where its memory is small; each block costs 1 KB more.
    const int64_t sm_bytes = problem.device.smem_bytes + 1024;
    const int64_t share = sm_bytes / (sm_bytes >= 160 * 1024 ? 3 : 2);
    if (smem_bytes + static_cast<int64_t>(sizeof(Place)) + 1024 > share) return false;
    params.pieces = static_cast<int32_t>(pieces);
    params.w_stage_bytes = static_cast<int32_t>(w_stage_bytes);
    params.stage_bytes = static_cast<int32_t>(stage_bytes);
    params.smem_bytes = static_cast<int32_t>(smem_bytes);
    return true;
}

// The most taps that fit, so that x is fetched least often; twice the channels where a step has only one
// tap.
template <class Tile>
Params plan(const Problem& problem) {
    Params params{};
    params.problem = problem;
    params.flat = 2 * problem.P <= Tile::kP;
    params.o_tiles = ceil_div(problem.O, Tile::kO);
    params.p_tiles = ceil_div(params.flat ? problem.N * problem.P : problem.P, Tile::kP);
    params.y_pairs = problem.P % 2 == 0 &&
                     reinterpret_cast<uintptr_t>(problem.y) % (2 * sizeof(typename Tile::Element)) == 0;
    const bool neighbours = problem.x_stride_l == 1 && !params.flat;
    for (const bool copied : {true, false}) {
        if (copied && !neighbours) continue;
        for (int64_t taps = problem.K < kMaxTaps ? problem.K : kMaxTaps; taps > 0; --taps) {
            for (int64_t mmas = taps == 1 ? 2 : 1; mmas > 0; --mmas) {
                for (const int64_t stages : {3, 2}) {
                    if (plan_steps<Tile>(params, taps, mmas * kMmaWords, stages, copied)) return params;
                }
            }
        }
    }
    return params;  // not reached: one gathered tap of one chunk takes 13 KB
}

inline size_t packed_vectors(const Params& params, int64_t tile_o) {
    return static_cast<size_t>(params.problem.G * params.o_tiles * params.chunks * params.problem.K *
                               (params.chunk_words / kMmaWords) * (tile_o / 16) * 32);
}

template <class Tile>
struct Launch {
    static size_t workspace_bytes(const Problem& problem) {
        return packed_vectors(plan<Tile>(problem), Tile::kO) * sizeof(uint4);
    }

    static Error run(const Problem& problem, cudaStream_t stream) {
        using Element = typename Tile::Element;
        Params params = plan<Tile>(problem);
        uint4* w_packed = static_cast<uint4*>(problem.workspace);
        params.w_packed = w_packed;
        const auto vectors = static_cast<uint32_t>(packed_vectors(params, Tile::kO));
        gemm_sm80_pack_kernel<Element><<<static_cast<unsigned>(ceil_div(vectors, 256)), 256, 0, stream>>>(
            static_cast<const Element*>(problem.w), w_packed, problem.O, problem.C,
            static_cast<uint32_t>(problem.K), Tile::kO / 16, static_cast<uint32_t>(params.o_tiles),
            params.chunk_words / kMmaWords, params.chunks, vectors);
        const int64_t samples = params.flat ? 1 : problem.N;
        const auto blocks = static_cast<unsigned>(params.o_tiles * params.p_tiles * problem.G * samples);
        const Error error = allow_smem<gemm_sm80_forward_kernel<Tile>>(problem.device);
        if (error != nullptr) return error;
        gemm_sm80_forward_kernel<Tile><<<blocks, kThreads, params.smem_bytes, stream>>>(params);
        return launch_error();
    }
};

// Calls Launch<Tile> of the tile that wastes least: wide in O, or, where O is small, in positions.
template <class Element, class Call>
auto with_tile(const Problem& problem, Call call) {
    if (problem.device.arch == 90) return call(Launch<HopperTile<Element>>{});
    if (problem.O <= 32) return call(Launch<Tile<Element, 1, 2, 8>>{});  // 32 x 256
    if (problem.O <= 64) return call(Launch<Tile<Element, 2, 2, 8>>{});  // 64 x 128
    // Short rows, or rows that end in the first half of a wide tile.
    const bool half_tiles = 4 * round_up(problem.P, 128) > 5 * round_up(problem.P, 64);
    if (half_tiles && problem.P > 32) return call(Launch<Tile<Element, 2, 4, 4>>{});  // 128 x 64
    return call(Launch<Tile<Element, 2, 4, 8>>{});                                    // 128 x 128
}

template <class Call>
auto with_launch(const Problem& problem, Call call) {
    switch (problem.dtype) {
        case Dtype::float16: return with_tile<__half>(problem, call);
        case Dtype::bfloat16: return with_tile<__nv_bfloat16>(problem, call);
        default: return with_tile<float>(problem, call);
    }
}

}  // namespace gemm_sm80

// TF32, fp16 and bf16 from sm_80 on; at least 16 input channels a group, below which fragments are half
// zeros, and 8 output channels.
inline bool fits_gemm_sm80(const Problem& problem) {
    const bool type = problem.dtype == Dtype::float16 || problem.dtype == Dtype::bfloat16 ||
                      (problem.dtype == Dtype::float32 && problem.precision == Precision::tf32);
    if (!type || problem.device.arch < 80 || problem.C < 16 || problem.O < 8) return false;
    // Blocks of at least 32 x 64 outputs, and packed weights, are counted in 32 bits.
    const int64_t blocks = problem.N * problem.G * ceil_div(problem.O, 32) * ceil_div(problem.P, 64);
    const int64_t weights = problem.G * round_up(problem.O, 128) * round_up(problem.C, 32) * problem.K;
    return blocks <= kMaxBlocks && weights < (int64_t{1} << 33);
}

inline size_t workspace_gemm_sm80(const Problem& problem) {
    const Problem same = canonical(problem);
    return gemm_sm80::with_launch(same, [&](auto launch) { return launch.workspace_bytes(same); });
}

inline Error launch_gemm_sm80(const Problem& problem, cudaStream_t stream) {
    const Problem same = canonical(problem);
    return gemm_sm80::with_launch(same, [&](auto launch) { return launch.run(same, stream); });
}

}  // namespace conv1d
''',
"gemm_sm80.cu": r'''
#line 1 "kernels/gemm_sm80.cu"
// The translation unit of route "gemm_sm80".



const conv1d::Route conv1d::kGemmSm80 = {"gemm_sm80", fits_gemm_sm80, workspace_gemm_sm80, launch_gemm_sm80};
''',
"gemm_sm90_product.cuh": r'''
#line 1 "kernels/gemm_sm90_product.cuh"
// The product warpgroups of the Hopper GEMM (gemm_sm90.cuh): D = W * X by wgmma, then D to y.

#include <cuda_bf16.h>
#include <cuda_fp16.h>








namespace conv1d {
namespace sm90 {

template <Mode kMode, int kN, Layout kLayout>
struct Product {
    using Traits = ModeTraits<kMode>;
    using Mma = Wgmma<Traits::kOperand, kN>;
    using Bits = typename Traits::Bits;
    using Element = std::conditional_t<Traits::kIsFloat, float,
                                       std::conditional_t<kMode == Mode::f16, __half, __nv_bfloat16>>;
    static constexpr int kValues = kN / 2;
    static constexpr int kPitch = Traits::stage_pitch(kN);

    const Geometry& geometry;
    const Problem& problem;
    const Barriers& barriers;
    const Scratch& scratch;
    const uint32_t x_smem, w_smem;
    Bits* const staging;   // [8][kPitch], this warp's own
    const int warp, lane;  // warp of 8: warpgroup warp / 4, in which 16 output channels each
    Ring stages, weights;

    // 32 bytes of K; addresses in units of 16 bytes.
    __device__ __forceinline__ void multiply_step(float (&acc)[kValues], uint32_t w16, uint32_t x16,
                                                  bool accumulate) {
        Mma::issue(acc, ptx::wgmma_descriptor(w16), ptx::wgmma_descriptor(x16), accumulate);
    }

    // The first kSteps steps of a row, of one tap and chunk, issued and committed. Split: on return acc is
    // not yet in `total`.
    template <int kSteps, int kTotal>
    __device__ __forceinline__ void multiply_steps(float (&acc)[kValues], float (&total)[kTotal],
                                                   uint32_t w16, uint32_t x16, bool accumulate) {
        ptx::wgmma_fence();
        if constexpr (Traits::kIsSplit) {  // low parts first: the accumulator truncates
#pragma unroll
            for (int k = 0; k < kSteps; ++k) {
                multiply_step(acc, w16 + 2 * k, x16 + 2 * (k + 2), k > 0);
                multiply_step(acc, w16 + 2 * (k + 2), x16 + 2 * k, true);
            }
            if constexpr (kMode == Mode::f16x3) {  // these are too large by kLowScale
                ptx::wgmma_commit_group();
                ptx::wgmma_wait_group<0>();
#pragma unroll
                for (int i = 0; i < kValues; ++i) total[i] = fmaf(acc[i], 1 / kLowScale, total[i]);
                ptx::wgmma_fence();
            }
        }
#pragma unroll
        for (int k = 0; k < kSteps; ++k)
            multiply_step(acc, w16 + 2 * k, x16 + 2 * k,
                          kMode == Mode::tf32x3 || (!Traits::kIsSplit && accumulate) || k > 0);
        ptx::wgmma_commit_group();
    }

    // The same of fewer steps than Traits::kSteps: 1 to 3; split: 1.
    template <int kTotal>
    __device__ __forceinline__ void multiply(float (&acc)[kValues], float (&total)[kTotal], uint32_t w16,
                                             uint32_t x16, int32_t steps, bool accumulate) {
        if (!Traits::kIsSplit && steps == 3) multiply_steps<3>(acc, total, w16, x16, accumulate);
        else if (!Traits::kIsSplit && steps == 2) multiply_steps<2>(acc, total, w16, x16, accumulate);
        else multiply_steps<1>(acc, total, w16, x16, accumulate);
    }

    __device__ __forceinline__ void release(uint32_t barrier) {
        if (lane == 0) ptx::mbarrier_arrive(barrier);
    }

    // Whether no column of this place is an output.
    __device__ __forceinline__ bool is_behind_end(const Announcement& place) const {
        return place.sample >= problem.N || (!geometry.flat && place.row >= problem.P);
    }

    // What a loop over taps multiplies: nothing, as many steps as have channels, or all steps: of the first
    // tap, which overwrites acc, of others at any stride, and at a stride of 1.
    enum class Taps { none, some, first, quick, quick_adjacent };

    // All products of one tile into acc. The instructions between two products bound a warpgroup that has few
    // columns, so most taps have no branches there.
    __device__ __forceinline__ void multiply_tile(float (&acc)[kValues], const Announcement& place) {
        // A warpgroup without outputs multiplies nothing, but passes the stages on like the other.
        const bool idle = place.channel >= problem.O || is_behind_end(place);
        const uint32_t w_warpgroup16 =
            (w_smem + (geometry.share == Share::channels ? warp / 4 * kWarpgroupO * kRowBytes : 0)) / 16;
        const int32_t first_row = geometry.share == Share::columns ? warp / 4 * geometry.advance : 0;
        const int32_t stride = geometry.stride;
        const int32_t step_shift = geometry.dilation / stride;
        const int32_t step_plane = geometry.dilation - step_shift * stride;
        float total[Traits::kIsSplit ? kValues : 1];
        if constexpr (Traits::kIsSplit) {
#pragma unroll
            for (int i = 0; i < kValues; ++i) total[i] = 0.0f;
        }
        bool accumulates = false;
        int32_t weights_done = -1, stage_done = -1;  // stages whose products may still be running
        const bool releases = lane == 0 && !geometry.resident;
        if (geometry.resident) weights.stage = 0, weights.parity = 0;
        for (int tap_group = 0; tap_group < geometry.tap_groups; ++tap_group) {
            const int32_t taps =
                min(geometry.taps_per_group, geometry.taps - tap_group * geometry.taps_per_group);
            for (int chunk = 0; chunk < geometry.chunks; ++chunk) {
                ptx::mbarrier_wait(barriers.x_full(stages.stage), stages.parity);
                const uint32_t x_stage16 = (x_smem + stages.stage * geometry.x_stage_bytes) / 16;
                constexpr int32_t kStepChannels = Traits::kChunkChannels / Traits::kSteps;
                const int32_t channels = geometry.channels - chunk * Traits::kChunkChannels;
                const int32_t steps = (channels + kStepChannels - 1) / kStepChannels;
                int32_t plane = 0, shift = first_row;
                const auto run_taps = [&](auto kind, int32_t count) {
                    constexpr bool kAdjacent = kind.value == Taps::quick_adjacent;
#pragma unroll 1
                    for (int32_t tap = 0; tap < count; ++tap) {
                        const int32_t plane_begin = kAdjacent ? 0 : plane_row(geometry, plane);
                        const uint32_t x16 = x_stage16 + (shift + plane_begin) * (kRowBytes / 16);
                        const uint32_t w16 = w_warpgroup16 + weights.stage * (geometry.weight_bytes / 16);
                        ptx::mbarrier_wait(barriers.w_full(weights.stage), weights.parity);
                        if constexpr (kind.value == Taps::some)
                            multiply(acc, total, w16, x16, steps, accumulates);
                        else if constexpr (kind.value != Taps::none)
                            multiply_steps<Traits::kSteps>(acc, total, w16, x16, kind.value != Taps::first);
                        accumulates = true;
                        ptx::wgmma_wait_group<Traits::kIsSplit ? 0 : 1>();  // else the tap before is done
                        if constexpr (Traits::kIsSplit && kind.value != Taps::none) {
#pragma unroll
                            for (int i = 0; i < kValues; ++i)
                                total[i] += acc[i];  // the accumulator truncates, this rounds to nearest
                        }
                        if (releases && weights_done >= 0)
                            ptx::mbarrier_arrive(barriers.w_empty(weights_done));
                        if (stage_done >= 0) release(barriers.x_empty(stage_done));
                        stage_done = -1;
                        weights_done = weights.stage;
                        weights.advance(geometry.w_stages);
                        shift += step_shift;
                        if constexpr (!kAdjacent) {
                            plane += step_plane;
                            if (plane >= stride) plane -= stride, ++shift;
                        }
                    }
                };
                // Split operands begin from zero by themselves.
                const int32_t first = Traits::kIsSplit || accumulates ? 0 : 1;
                if (idle) {
                    run_taps(std::integral_constant<Taps, Taps::none>{}, taps);
                } else if (steps < Traits::kSteps) {
                    run_taps(std::integral_constant<Taps, Taps::some>{}, taps);
                } else {
                    if (first > 0) run_taps(std::integral_constant<Taps, Taps::first>{}, first);
                    if (stride > 1) run_taps(std::integral_constant<Taps, Taps::quick>{}, taps - first);
                    else run_taps(std::integral_constant<Taps, Taps::quick_adjacent>{}, taps - first);
                }
                stage_done = stages.stage;
                stages.advance(geometry.x_stages);
            }
        }
        ptx::wgmma_wait_group<0>();
        if (!geometry.resident) release(barriers.w_empty(weights_done));
        release(barriers.x_empty(stage_done));
        if constexpr (Traits::kIsSplit) {
#pragma unroll
            for (int i = 0; i < kValues; ++i) acc[i] = total[i];
        }
    }

    // Two neighbours of a row of D, as they lie in memory.
    using Pair = std::conditional_t<Traits::kIsFloat, float2, uint32_t>;
    static __device__ __forceinline__ Pair round_pair(float first, float second) {
        if constexpr (Traits::kIsFloat) {
            return make_float2(first, second);
        } else if constexpr (kMode == Mode::f16) {
            const __half2 pair = __floats2half2_rn(first, second);
            return *reinterpret_cast<const uint32_t*>(&pair);
        } else {
            const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
            return *reinterpret_cast<const uint32_t*>(&pair);
        }
    }

    // How far row r behind `target` begins behind a 32-byte sector of y, where tiles keep to sectors, or else
    // behind a piece of 16 bytes.
    __device__ __forceinline__ int32_t offset_of(const Bits* target, int32_t r) const {
        const uint32_t index = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(target)) / sizeof(Bits);
        return static_cast<int32_t>((index + r * static_cast<uint32_t>(problem.P)) & geometry.offset_mask);
    }

    // This warp's rows 8*half..8*half + 7 of D. Column c of row r goes to staging[r][phi + c], phi being the
    // row's offset_of. kPaired: all phi are even, so that pairs stay aligned.
    template <bool kPaired>
    __device__ __forceinline__ void stage(const float (&acc)[kValues], int half, int32_t phi) {
        const uint32_t target = ptx::smem_address(staging + lane / 4 * kPitch + 2 * (lane % 4) + phi);
#pragma unroll
        for (int j = 0; j < kN / 8; ++j) {
            const Pair pair = round_pair(acc[4 * j + 2 * half], acc[4 * j + 2 * half + 1]);
            if constexpr (kPaired) ptx::st_shared(target + 8 * j * sizeof(Bits), pair);
            else ptx::st_shared_apart(target + 8 * j * sizeof(Bits), pair);
        }
    }

    // Eight staged rows to y, of which `target` is where column 0 of the first belongs; in flat tiles, of
    // each sample that the tile touches. Staged rows are as far behind 16 bytes as those of y: eight lanes
    // store the whole pieces of a row, and the elements before and behind them.
    __device__ __forceinline__ void store_rows(Bits* target, const Announcement& place, int32_t rows) {
        constexpr int32_t kPiece = 16 / Traits::kElementBytes, kRowLanes = 8;
        const int32_t P = static_cast<int32_t>(problem.P), lead = geometry.lead;
        const int64_t next_sample = problem.G * problem.O * problem.P - geometry.rows_per_sample;
        const int32_t row_lane = lane % kRowLanes;
        int32_t row = place.row;
#pragma unroll 1
        for (int32_t n = place.sample; n < problem.N && row > -kN; ++n) {
            constexpr int kUnroll = Traits::kIsSplit ? 1 : 2;  // two would spill a register
#pragma unroll kUnroll
            for (int32_t r = lane / kRowLanes; r < 8; r += 32 / kRowLanes) {
                const int32_t phi = offset_of(target, r), first = lead > 0 ? lead : phi;
                const int32_t begin = max(first, phi - row);
                const int32_t end = r < rows ? min(first + geometry.advance, phi + P - row) : 0;
                const int32_t pieces = (begin + kPiece - 1) & -kPiece, pieces_end = end & -kPiece;
                const Bits* const staged = staging + r * kPitch;
                Bits* const y = target + r * problem.P - phi;
#pragma unroll
                for (int32_t k = 0; k <= kN / (kPiece * kRowLanes); ++k) {
                    const int32_t piece = pieces + (row_lane + k * kRowLanes) * kPiece;
                    if (piece < pieces_end)
                        *reinterpret_cast<uint4*>(y + piece) =
                            *reinterpret_cast<const uint4*>(staged + piece);
                }
                if (row_lane < kPiece) {
                    const int32_t head = begin + row_lane, tail = max(pieces, pieces_end) + row_lane;
                    if (head < min(pieces, end)) y[head] = staged[head];
                    if (tail < end) y[tail] = staged[tail];
                }
            }
            if (!geometry.flat) break;
            row -= geometry.rows_per_sample;
            target += next_sample;
        }
    }

    // f16x3: of row lane/4 of a half of this warp's output channels.
    __device__ __forceinline__ float2 load_scaling(const Announcement& place, int half) {
        return scratch.row_scaling[place.group * geometry.o_tiles * geometry.tile_o + place.channel +
                                   warp % 4 * 16 + 8 * half + lane / 4];
    }

    // Of row lane/4 of a half of this warp's output channels.
    __device__ __forceinline__ float load_bias(const Announcement& place, int half) {
        const int32_t channel = place.channel + warp % 4 * 16 + 8 * half + lane / 4;
        if (problem.bias == nullptr || channel >= problem.O) return 0.0f;
        const Bits bits = static_cast<const Bits*>(problem.bias)[place.group * problem.O + channel];
        if constexpr (Traits::kIsFloat) return __uint_as_float(bits);
        else if constexpr (kMode == Mode::f16) return __half2float(__ushort_as_half(bits));
        else return __bfloat162float(__ushort_as_bfloat16(bits));
    }

    // D through shared memory to y, 8 output channels at a time.
    __device__ __forceinline__ void store_tile(float (&acc)[kValues], const Announcement& place,
                                               const float (&bias)[2]) {
#pragma unroll
        for (int i = 0; i < kValues; ++i) acc[i] += bias[i / 2 % 2];
        const int32_t channel = place.channel + warp % 4 * 16;  // the first of 16, inside the group
        Bits* const y_warp =
            static_cast<Bits*>(problem.y) +
            (place.sample * problem.G * problem.O + place.group * problem.O + channel) * problem.P +
            place.row;
#pragma unroll 1
        for (int half = 0; half < 2; ++half) {
            const int32_t rows = min(8, static_cast<int32_t>(problem.O) - channel - 8 * half);
            if (rows <= 0) continue;
            Bits* const target = y_warp + 8 * half * problem.P;
            const int32_t phi = offset_of(target, lane / 4);
            __syncwarp();  // the rows that were here have left
#pragma unroll
            for (int i = 0; i < 2; ++i) {  // registers have no index
                if (i != half) continue;
                if (problem.P % 2 == 0) stage<true>(acc, i, phi);
                else stage<false>(acc, i, phi);
            }
            if (problem.activation != Activation::none) {
                __syncwarp();
                activate_staged(problem.activation, reinterpret_cast<Element*>(staging), 8 * kPitch);
            }
            __syncwarp();
            store_rows(target, place, rows);
        }
    }

    // Split operands: see is_sound. Folded: a weight of zero that K lacks meets infinity.
    static constexpr bool kMends =
        kMode == Mode::tf32x3 || (kLayout == Layout::folded && !Traits::kIsSplit);

    static __device__ __forceinline__ bool is_right(float sum) {
        return Traits::kIsSplit ? is_sound(sum) : sum == sum;
    }

    // Does this warp's outputs again where they are not sound.
    __device__ __forceinline__ void mend_tile(const Announcement& place) {
        __syncwarp();  // all lanes have stored
#pragma unroll 1
        for (int32_t o = place.channel + warp % 4 * 16;
             o < min(place.channel + warp % 4 * 16 + 16, static_cast<int32_t>(problem.O)); ++o) {
            Element* const y = static_cast<Element*>(problem.y) + (place.group * problem.O + o) * problem.P;
            const int64_t sample_values = problem.G * problem.O * problem.P;
            const auto* const first = reinterpret_cast<Bits*>(y + place.sample * sample_values + place.row);
            const int32_t begin = geometry.lead > 0 ? geometry.lead - offset_of(first, 0) : 0;
#pragma unroll 1
            for (int column = lane; column < geometry.advance; column += 32) {
                int32_t p = place.row + begin + column;
                const int32_t n = place.sample + (geometry.flat ? wrap_row(geometry, p) : 0);
                if (n >= problem.N || p < 0 || p >= problem.P) continue;
                Element* const value = y + n * sample_values + p;
                const float sum = widen(*value);
                // Beside sums that are not, zero may be what is left of numbers too small for TF32.
                if ((Traits::kIsSplit && sum == 0.0f) || !is_right(sum))
                    *value = finish_exactly<Element>(problem, n, place.group, o, p);
            }
        }
    }

    // f16x3: whether the sums are large enough for the values that were too small; see kSumOfSmallX.
    __device__ __forceinline__ bool sums_suffice(const float (&acc)[kValues], const Announcement& place,
                                                 const float2 (&scaling)[2]) {
        const float of_x = kSumOfSmallX * static_cast<float>(barriers.small_count[place.counter]);
        bool suffice = true;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float least = of_x + kSumOfSmallW * scaling[half].y;
            if (least == 0.0f || place.channel + warp % 4 * 16 + 8 * half + lane / 4 >= problem.O) continue;
            float smallest = least;
#pragma unroll
            for (int i = 0; i < kValues; ++i) {
                if (i / 2 % 2 != half) continue;
                const int32_t p = place.row + 8 * (i / 4) + 2 * (lane % 4) + i % 2;
                const bool exists = geometry.flat || (p >= 0 && p < problem.P);
                smallest = exists ? fminf(smallest, fabsf(acc[i])) : smallest;
            }
            suffice = suffice && smallest >= least;
        }
        return suffice;
    }

    // Turns the place of a tile into that of this warpgroup's part of it.
    __device__ __forceinline__ void take_share(Announcement& place) {
        if (warp < 4) return;
        if (geometry.share == Share::channels) {
            place.channel += kWarpgroupO;
        } else if (geometry.share == Share::columns) {
            place.row += geometry.advance;
            if (geometry.flat) place.sample += wrap_row(geometry, place.row);
        } else {
            place.sample = static_cast<int32_t>(problem.N);  // none there
        }
    }

    __device__ __forceinline__ void run() {
        Ring tiles;
        if (kMode == Mode::f16x3) ptx::griddepcontrol_wait();  // for the scales
        for (;;) {
            ptx::mbarrier_wait(barriers.tile_full(tiles.stage), tiles.parity);
            Announcement place = barriers.tile[tiles.stage];
            __syncwarp();
            release(barriers.tile_empty(tiles.stage));
            tiles.advance(kTileSlots);
            if (place.tile < 0) break;
            take_share(place);
            const float bias[2] = {load_bias(place, 0), load_bias(place, 1)};  // arrives during the products
            float2 scaling[2];
            if constexpr (kMode == Mode::f16x3) {
                scaling[0] = load_scaling(place, 0), scaling[1] = load_scaling(place, 1);
            }
            float acc[kValues];
            multiply_tile(acc, place);
            if constexpr (kMode == Mode::f16x3) {
                const bool right = is_behind_end(place) || (scaling[0].x > 0 && scaling[1].x > 0 &&
                                                            sums_suffice(acc, place, scaling));
                if (!__all_sync(0xFFFFFFFF, right) && lane == 0) list_tile(scratch, place.tile);
#pragma unroll
                for (int i = 0; i < kValues; ++i) acc[i] *= scaling[i / 2 % 2].x;
            }
            bool sound = true;
            if constexpr (kMends) {
                Soundness soundness;
#pragma unroll
                for (int i = 0; i < kValues; ++i) soundness.add(acc[i]);
                sound = Traits::kIsSplit ? soundness.holds()
                                         : soundness.is_finite() || problem.K % kFold == 0;
                sound = __all_sync(0xFFFFFFFF, sound);
            }
            store_tile(acc, place, bias);
            if constexpr (kMends) {
                if (!sound) mend_tile(place);
            }
        }
    }
};

}  // namespace sm90
}  // namespace conv1d
''',
"gemm_sm90_kernel.cuh": r'''
#line 1 "kernels/gemm_sm90_kernel.cuh"
// The kernel of the Hopper GEMM (gemm_sm90.cuh) and its launch. Each instance takes one layout of x.










namespace conv1d {
namespace sm90 {

// Whether the product warpgroups need more than the 128 registers a thread that the launch gives.
template <Mode kMode, int kN>
constexpr bool kNeedsRegisters = kN * (ModeTraits<kMode>::kIsSplit ? 2 : 1) > 128;

template <Mode kMode, int kN, Layout kLayout>
__global__ void __launch_bounds__(kThreads, 1)
    gemm_sm90_kernel(const __grid_constant__ Problem problem, const __grid_constant__ Geometry geometry,
                     const __grid_constant__ Scratch scratch) {
#if __CUDA_ARCH__ == 900
    extern __shared__ uint8_t smem_base[];
    ptx::griddepcontrol_launch_dependents();
    uint8_t* const smem = smem_base + ((1024 - (ptx::smem_address(smem_base) & 1023)) & 1023);
    uint8_t* const w_smem = smem + geometry.x_stages * geometry.x_stage_bytes;
    uint8_t* const staging = w_smem + geometry.w_stages * geometry.weight_bytes;
    using Bits = typename ModeTraits<kMode>::Bits;
    constexpr int kWarpStagingBytes = ModeTraits<kMode>::warp_staging_bytes(kN);
    uint8_t* const control = staging + kProductWarps * kWarpStagingBytes;
    Announcement* const announcements = reinterpret_cast<Announcement*>(control + kBarrierBytes);
    const Barriers barriers{ptx::smem_address(control), announcements,
                            reinterpret_cast<int32_t*>(announcements + kTileSlots)};
    if (threadIdx.x == 0) {
        for (int i = 0; i < kMaxStages; ++i) {
            ptx::mbarrier_init(barriers.x_full(i), kConverterWarps);
            ptx::mbarrier_init(barriers.x_empty(i), kProductWarps);
            ptx::mbarrier_init(barriers.w_full(i), 1);
            ptx::mbarrier_init(barriers.w_empty(i), kProductWarps);
        }
        for (int i = 0; i < kTileSlots; ++i) {
            ptx::mbarrier_init(barriers.tile_full(i), 1);
            ptx::mbarrier_init(barriers.tile_empty(i), kProductWarps + kConverterWarps);
        }
        ptx::fence_mbarrier_init();
    }
    __syncthreads();
    // Through a shuffle, so that the compiler knows it is the same in the whole warp.
    const int warp = __shfl_sync(0xFFFFFFFF, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
    constexpr int kProductRegisters = ModeTraits<kMode>::kIsSplit ? 152 : 144;  // of 128 a thread at launch
    if (warp < kProductWarps) {
        if constexpr (kNeedsRegisters<kMode, kN>) ptx::setmaxnreg_inc<kProductRegisters>();
        Product<kMode, kN, kLayout> product{
            geometry,
            problem,
            barriers,
            scratch,
            ptx::smem_address(smem),
            ptx::smem_address(w_smem),
            reinterpret_cast<Bits*>(staging + warp * kWarpStagingBytes),
            warp,
            lane};
        product.run();
    } else {
        if constexpr (kNeedsRegisters<kMode, kN>) ptx::setmaxnreg_dec<256 - kProductRegisters>();
        if (warp < kProductWarps + kConverterWarps) {
            Converter<kMode, kLayout> converter(geometry, problem, barriers, scratch, smem,
                                                warp - kProductWarps, lane);
            converter.run();
        } else if (ptx::elect()) {
            run_supplier<kMode == Mode::tf32x3>(geometry, problem, ptx::smem_address(w_smem), barriers,
                                                scratch);
        }
    }
#endif
}

// Runs the kernel over the tiles of `geometry`.
template <Mode kMode, int kN, Layout kLayout>
Error launch_tiles(const Problem& problem, const Geometry& geometry, const Scratch& scratch,
                   cudaStream_t stream) {
    const auto kernel = gemm_sm90_kernel<kMode, kN, kLayout>;
    const Error error = allow_smem<gemm_sm90_kernel<kMode, kN, kLayout>>(problem.device);
    if (error != nullptr) return error;
    const int blocks = geometry.tiles < problem.device.sm_count ? geometry.tiles : problem.device.sm_count;
    const int percent =
        100 * (geometry.smem_bytes + kReservedBytes) / (problem.device.smem_bytes + kReservedBytes);
    return launch_shaped(kernel, {blocks, 1, kThreads, geometry.smem_bytes, true, percent}, stream, problem,
                         geometry, scratch);
}

// gemm_sm90.cu has those for fp32 and the usual layout. The others stand in units of their own, which compile
// beside it: gemm_sm90_16bit.cu, and of channels_last and folded x one for fp32 and one for 16 bits.
#define CONV1D_SM90_TEMPLATE(layout, mode, columns)                                                     \
    template Error launch_tiles<Mode::mode, columns, Layout::layout>(const Problem&, const Geometry&, \
                                                                     const Scratch&, cudaStream_t);
#define CONV1D_SM90_16BIT(...) CONV1D_SM90_TEMPLATE(positions, __VA_ARGS__)
#define CONV1D_SM90_CHANNELS_LAST(...) CONV1D_SM90_TEMPLATE(channels_last, __VA_ARGS__)
#define CONV1D_SM90_FOLDED(...) CONV1D_SM90_TEMPLATE(folded, __VA_ARGS__)
#define CONV1D_SM90_ELSEWHERE(...)                \
    extern CONV1D_SM90_CHANNELS_LAST(__VA_ARGS__) \
    extern CONV1D_SM90_FOLDED(__VA_ARGS__)
#define CONV1D_SM90_16BIT_ELSEWHERE(...) extern CONV1D_SM90_16BIT(__VA_ARGS__)
CONV1D_SM90_TILES(CONV1D_SM90_ELSEWHERE)
CONV1D_SM90_16BIT_TILES(CONV1D_SM90_16BIT_ELSEWHERE)

}  // namespace sm90
}  // namespace conv1d
''',
"gemm_sm90.cuh": r'''
#line 1 "kernels/gemm_sm90.cuh"
// Dense convolution on Hopper as an implicit GEMM: D[o][position] = sum of W[o][c, k] * X[c, k][position].
//
// Chosen for 16 channels a group and more. Persistent blocks draw tiles of 128 output channels x kN positions
// from a ticket, or of 64 x 2*kN; or, where those are few, of 64 x kN, which one warpgroup multiplies alone.
// Seven converter warps read x once, round or split it and store it K-major in rows of 128 bytes, one row a
// position: position q of the window is row q / stride of plane q % stride, so every tap of every stride and
// dilation is a plane and a row shift of the same tile; at a stride of 8 the planes are folded into channels
// (kFold in gemm_sm90_plan.cuh). One thread draws tickets and streams the packed weights. Two product
// warpgroups run wgmma, stage D and store it along the rows of y. Cost: each element of x leaves L2 once per
// tile of channels, each weight once per tile (once per block where all fit in shared memory). fp32 without
// TF32 runs as three products of split operands (Mode): of fp16 parts, then again of TF32 parts for the tiles
// that fp16 cannot hold, in a second launch that finds their list mostly empty.
// results/findings.md has what was measured, and what bounds it.





namespace conv1d {
namespace sm90 {

template <Mode kMode, int kN>
inline Error launch_products(const Problem& problem, const Geometry& geometry, const Scratch& scratch,
                             cudaStream_t stream) {
    return geometry.folded
               ? launch_tiles<kMode, kN, Layout::folded>(problem, geometry, scratch, stream)
           : geometry.channels_last
               ? launch_tiles<kMode, kN, Layout::channels_last>(problem, geometry, scratch, stream)
               : launch_tiles<kMode, kN, Layout::positions>(problem, geometry, scratch, stream);
}

// kN: the columns of the tiling.
template <Mode kMode, int kN>
inline Error launch_columns(const Problem& problem, const Tiling& tiling, const Geometry& geometry,
                            cudaStream_t stream) {
    Scratch scratch;
    lay_out<kMode>(problem, geometry, static_cast<uint8_t*>(problem.workspace), &scratch);
    if constexpr (kMode == Mode::f16x3) {
        // The same tiles, with rows of half the channels: the list means the same to both.
        const Geometry safe = cut<Mode::tf32x3>(problem, tiling, geometry.taps_per_group);
        pack_split_weights<Mode::tf32x3>(problem, geometry, safe, scratch, stream);
        const Error error = launch_products<kMode, kN>(problem, geometry, scratch, stream);
        if (error != nullptr) return error;
        scratch.image = scratch.safe_image;
        return launch_products<Mode::tf32x3, kN>(problem, safe, scratch, stream);
    } else {
        pack_weights<kMode>(problem, geometry, scratch, stream);
        return launch_products<kMode, kN>(problem, geometry, scratch, stream);
    }
}

template <Mode kMode>
inline Error launch_mode(const Problem& problem, const Cut& cut, cudaStream_t stream) {
#define CONV1D_SM90_LAUNCH(mode, kN)                                                     \
    if constexpr (kMode == Mode::mode) {                                                 \
        if (cut.tiling.columns == kN)                                                    \
            return launch_columns<kMode, kN>(problem, cut.tiling, cut.geometry, stream); \
    }
    CONV1D_SM90_TILES(CONV1D_SM90_LAUNCH)
#undef CONV1D_SM90_LAUNCH
    return "no tile fits this problem";
}

}  // namespace sm90

inline Error launch_gemm_sm90(const Problem& problem, cudaStream_t stream) {
    const sm90::Choice choice = sm90::choose(problem);
    switch (choice.mode) {
        case sm90::Mode::tf32:
            return sm90::launch_mode<sm90::Mode::tf32>(problem, choice.cut, stream);
        case sm90::Mode::tf32x3:
            return sm90::launch_mode<sm90::Mode::tf32x3>(problem, choice.cut, stream);
        case sm90::Mode::f16x3:
            return sm90::launch_mode<sm90::Mode::f16x3>(problem, choice.cut, stream);
        case sm90::Mode::f16:
            return sm90::launch_mode<sm90::Mode::f16>(problem, choice.cut, stream);
        default:
            return sm90::launch_mode<sm90::Mode::bf16>(problem, choice.cut, stream);
    }
}

}  // namespace conv1d
''',
"gemm_sm90.cu": r'''
#line 1 "kernels/gemm_sm90.cu"
// The translation unit of route "gemm_sm90".



const conv1d::Route conv1d::kGemmSm90 = {"gemm_sm90", fits_gemm_sm90, workspace_gemm_sm90, launch_gemm_sm90};

conv1d::Error conv1d::sm90::launch_listed_tiles(const Problem& problem, Scratch scratch,
                                                cudaStream_t stream) {
    const Cut cut = choose_cut<Mode::tf32x3>(problem);
    scratch.image = scratch.safe_image;
    if (cut.tiling.columns == 128)
        return launch_products<Mode::tf32x3, 128>(problem, cut.geometry, scratch, stream);
    return launch_products<Mode::tf32x3, 64>(problem, cut.geometry, scratch, stream);
}
''',
"gemm_sm90_16bit.cu": r'''
#line 1 "kernels/gemm_sm90_16bit.cu"
// The kernels of route "gemm_sm90" for 16 bits and the usual layout of x, and those that pack weights, in a
// translation unit of their own.


namespace conv1d {
namespace sm90 {

CONV1D_SM90_16BIT_TILES(CONV1D_SM90_16BIT)
template CONV1D_SM90_PACK(tf32)
template CONV1D_SM90_PACK(tf32x3)
template CONV1D_SM90_PACK(f16)
template CONV1D_SM90_PACK(bf16)
template CONV1D_SM90_PACK_SPLIT(tf32x3)

}  // namespace sm90
}  // namespace conv1d
''',
"gemm_sm90_channels_last.cu": r'''
#line 1 "kernels/gemm_sm90_channels_last.cu"
// The kernels of route "gemm_sm90" for fp32 and channels-last x, in a translation unit of their own.


namespace conv1d {
namespace sm90 {

CONV1D_SM90_FP32_TILES(CONV1D_SM90_CHANNELS_LAST)

}  // namespace sm90
}  // namespace conv1d
''',
"gemm_sm90_channels_last_16bit.cu": r'''
#line 1 "kernels/gemm_sm90_channels_last_16bit.cu"
// The kernels of route "gemm_sm90" for 16 bits and channels-last x, in a translation unit of their own.


namespace conv1d {
namespace sm90 {

CONV1D_SM90_16BIT_TILES(CONV1D_SM90_CHANNELS_LAST)

}  // namespace sm90
}  // namespace conv1d
''',
"gemm_sm90_folded.cu": r'''
#line 1 "kernels/gemm_sm90_folded.cu"
// The kernels of route "gemm_sm90" for fp32 and folded x, in a translation unit of their own.


namespace conv1d {
namespace sm90 {

CONV1D_SM90_FP32_TILES(CONV1D_SM90_FOLDED)

}  // namespace sm90
}  // namespace conv1d
''',
"gemm_sm90_folded_16bit.cu": r'''
#line 1 "kernels/gemm_sm90_folded_16bit.cu"
// The kernels of route "gemm_sm90" for 16 bits and folded x, in a translation unit of their own.


namespace conv1d {
namespace sm90 {

CONV1D_SM90_16BIT_TILES(CONV1D_SM90_FOLDED)

}  // namespace sm90
}  // namespace conv1d
''',
"pointwise_sm90.cuh": r'''
#line 1 "kernels/pointwise_sm90.cuh"
// Pointwise convolution on Hopper: with one tap, y[n] = W * x[n] is a plain matrix product.
//
// Chosen for 16 channels a group and more, and rows of x of whole 16 bytes. The positions of all samples lie
// in a line, cut into tiles. Eight loader warps bring x as it lies, [channel][position], and W, K-major in
// swizzled rows of 128 bytes, by asynchronous copies, and round or split W where it then lies. Two product
// warpgroups compute D[position][output] = x^T * W^T by wgmma: x is operand A, from registers, into which a
// thread reads four neighbouring positions of each of its channels; these are rows g and g + 8 of two
// products of 64 positions. So x is rounded, split or transposed in registers only, a thread's sums are four
// neighbours of a row of y, stored 16 bytes (of fp32) at once, and there is no packing and no workspace. fp32
// runs as three products of TF32 parts, of which the low ones come first, summed outside the tensor core
// every 16 channels; sums which those do not hold (inf, NaN, very small ones) are done again by
// multiply-adds. A sum's terms are added in the order of channels, wherever its position lies in a tile.

#include <type_traits>









namespace conv1d {
namespace pointwise_sm90 {

constexpr int kProductWarps = 8, kLoaderWarps = 8;
constexpr int kConverterWarps = 4;  // of the loaders, where the copy engine does the rest
constexpr int kLoaders = 32 * kLoaderWarps, kThreads = 32 * kProductWarps + kLoaders;
// Of a thread of the product warpgroups, of 128 at launch. kColumns: outputs of a tile.
template <class Traits, int kColumns>
constexpr int kProductRegisters = kColumns == 128 || Traits::kParts == 2 ? 184 : 152;
constexpr int kPositions = 128;         // of a product warpgroup
constexpr int kTilePositions = 256;     // of a tile; both warpgroups take its outputs
constexpr int kRowBytes = 128;          // of W: one output's channels of a chunk
constexpr int kSteps = 4;               // products of 32 bytes of channels in a chunk
constexpr int kMaxStages = 8;
constexpr int kCluster = 2;  // blocks that share x, where they do
constexpr uint16_t kAllBlocks = (1 << kCluster) - 1;

// kParts_: 2 keeps the accuracy of fp32.
template <class Element_, int kParts_>
struct Traits {
    using Element = Element_;
    static constexpr int kParts = kParts_;
    static constexpr bool kIsFloat = std::is_same<Element, float>::value;
    static constexpr Operand kOperand = kIsFloat                                     ? Operand::tf32
                                        : std::is_same<Element, __nv_bfloat16>::value ? Operand::bf16
                                                                                      : Operand::f16;
    static constexpr int kElementBytes = sizeof(Element);
    static constexpr int kPieceChannels = 16 / kElementBytes;
    static constexpr int kChunkChannels = kRowBytes / kElementBytes;
    // Of a channel in shared memory: those that four neighbouring lanes load lie in different banks.
    static __host__ __device__ constexpr int pitch(int residues) { return kPositions + 8 * residues; }
    // Of x, of a warpgroup.
    static __host__ __device__ constexpr int plane_bytes(int residues) {
        return kChunkChannels * pitch(residues) * kElementBytes;
    }
    // Of W, of a stage.
    static __host__ __device__ constexpr int part_bytes(int columns) { return columns * kRowBytes; }
    // Of a stage: W, in parts, then x.
    static __host__ __device__ constexpr int stage_bytes(int columns, int residues) {
        return kParts * part_bytes(columns) + kTilePositions / kPositions * plane_bytes(residues);
    }
    // Of a warp's staged rows of y, in elements: 8 rows of 32 lie in different banks.
    static constexpr int kStagedPitch = kIsFloat ? 36 : 40;
    static constexpr int kStagedBytes = 8 * kStagedPitch * kElementBytes;
    static constexpr int kStagingBytes = kProductWarps * (kStagedBytes + 128 * 4);  // and the bias
};

// Stages whose copies are under way while one is converted. With one more, loaders and products wait for each
// other: conformer_pw TF32 0.284 ms, not 0.248.
template <class Traits, int kColumns>
constexpr int kAhead = kColumns == 128 || Traits::kParts == 2 ? 2 : 3;

// How one launch cuts its problem; written by the host, read by every role.
struct Params {
    Problem problem;
    int32_t o_tiles;         // of one group
    int32_t tiles;           // of the whole problem
    int32_t chunks;          // of channels
    int32_t w_copy;          // bytes of W that are copied at once, 16 or 4; of x 16
    int32_t boxes;           // 1: the copy engine loads x and W; rows of positions begin at tiles then
    int32_t residues;        // 16 bits, boxes: how many neighbouring channels make a row of the tensor map, 1
                             // or 2, as rows begin at 16-byte pieces or between; a stage has these apart
    int32_t cluster;         // blocks that share x, each bringing a part to all: 1 or, with boxes, 2
    uint32_t line;           // positions of a sample in the line: P, or that rounded up to whole tiles
    int32_t y_direct;        // 1: four neighbouring sums are stored at once, from registers
    int32_t stages, stage_bytes;
    int32_t smem_bytes;      // stages | staging of y | barriers
};

struct Place {
    int32_t group, o;  // the first output, inside the group
    uint32_t q;        // the first position, of all samples' in a line
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ == 900

// Tiles of one window of x and all outputs follow each other, so x is shared in L2.
template <int kColumns>
__device__ __forceinline__ Place place_tile(const Params& params, int32_t tile) {
    const int32_t rest = tile / params.o_tiles, groups = static_cast<int32_t>(params.problem.G);
    const int32_t window = rest / groups;
    return {rest - window * groups, (tile - rest * params.o_tiles) * kColumns,
            static_cast<uint32_t>(window) * kTilePositions};
}

template <class Traits>
__device__ __forceinline__ int32_t residues_of(const Params& params) {
    return Traits::kIsFloat ? 1 : params.residues;
}

// A position of the line in its sample; whether there is one.
struct Position {
    uint32_t n, p;
    bool exists;
};
__device__ __forceinline__ Position find_position(const Params& params, uint32_t q) {
    const uint32_t n = q / params.line, p = q - n * params.line;
    return {n, p, n < params.problem.N && p < params.problem.P};
}

// Of fp32 bits the high and the low TF32 part.
__device__ __forceinline__ void split_tf32(uint32_t bits, uint32_t& high, uint32_t& low) {
    high = ptx::cvt_rn_tf32(__uint_as_float(bits));
    low = ptx::cvt_rn_tf32(__uint_as_float(bits) - __uint_as_float(high));
}

// The ring of stages: which one is next, and the parity its barrier will show.
struct Ring {
    int32_t stage;
    uint32_t parity;
    __device__ __forceinline__ void advance(int32_t stages) {
        if (++stage == stages) {
            stage = 0;
            parity ^= 1;
        }
    }
};
struct Barriers {
    uint32_t base;
    __device__ __forceinline__ uint32_t full(int stage) const { return base + 8 * stage; }
    __device__ __forceinline__ uint32_t empty(int stage) const { return base + 8 * (kMaxStages + stage); }
    // By the copy engine.
    __device__ __forceinline__ uint32_t landed(int stage) const {
        return base + 8 * (2 * kMaxStages + stage);
    }
};

// One of kLoaders threads that fill stages.
template <class Traits, int kColumns>
struct Loader {
    using Element = typename Traits::Element;
    static constexpr int kPieces = kColumns / 32;  // of W, of a thread: piece thread % 8 of every 32nd row
    static constexpr int kUnderWay = kAhead<Traits, kColumns>;

    const Params& params;
    const Problem& problem;
    const Barriers& barriers;
    uint8_t* const smem;
    const int thread;
    int32_t channels;         // left, of this chunk and those behind it
    const Element* w_source;  // this thread's first piece
    int32_t w_rows;           // from it on
    const Element* x_source;  // the positions that this thread copies, of its first channel
    bool x_exists;            // else they are zero

    template <int kBytes>
    static __device__ __forceinline__ void copy(uint32_t target, const void* source, bool exists) {
        if constexpr (kBytes == 16) ptx::cp_async_16(target, source, exists ? 16 : 0);
        else ptx::cp_async<kBytes>(target, source, exists ? kBytes : 0);
    }

    __device__ __forceinline__ int piece_offset() const {
        return thread / 8 * kRowBytes + (thread % 8 ^ thread / 8 % 8) * 16;
    }
    __device__ __forceinline__ void announce(uint32_t full) const {
        ptx::fence_proxy_async();
        __syncwarp();
        if (thread % 32 == 0) ptx::mbarrier_arrive(full);
    }

    // A chunk of W; zeros behind the last channel, and, as sums of split operands must all be sound or else
    // are looked at one by one, in rows that W lacks.
    template <int kBytes>
    __device__ __forceinline__ void load_weights(uint32_t stage) const {
        const int32_t left = channels - thread % 8 * Traits::kPieceChannels;
        const int64_t step = 32 * problem.C;
        const Element* source = w_source;
        uint32_t target = stage + piece_offset();
#pragma unroll
        for (int i = 0; i < kPieces; ++i, source += step, target += 32 * kRowBytes) {
            const bool exists = 32 * i < w_rows;
            if (Traits::kParts == 1 && !exists) break;
#pragma unroll
            for (int j = 0; j < 16 / kBytes; ++j) {
                constexpr int kCount = kBytes / Traits::kElementBytes;
                copy<kBytes>(target + j * kBytes, source + j * kCount, exists && j * kCount < left);
            }
        }
    }

    // kAll threads round or split W where it lies; the low parts come behind the high ones.
    template <int kAll>
    __device__ __forceinline__ void convert_weights(uint8_t* stage) const {
        constexpr int kTogether = 4, kStep = kAll / 8;
        uint8_t* const target = stage + piece_offset();
#pragma unroll
        for (int first = 0; first < kColumns / kStep; first += kTogether) {
            uint4 pieces[kTogether];
#pragma unroll
            for (int i = 0; i < kTogether; ++i) {
                if (first + i >= kColumns / kStep) break;
                pieces[i] = *reinterpret_cast<const uint4*>(target + (first + i) * kStep * kRowBytes);
            }
#pragma unroll
            for (int i = 0; i < kTogether; ++i) {
                if (first + i >= kColumns / kStep) break;
                uint8_t* const place = target + (first + i) * kStep * kRowBytes;
                uint32_t high[4] = {pieces[i].x, pieces[i].y, pieces[i].z, pieces[i].w};
                if constexpr (Traits::kParts == 2) {
                    uint32_t low[4];
#pragma unroll
                    for (int j = 0; j < 4; ++j) split_tf32(high[j], high[j], low[j]);
                    *reinterpret_cast<uint4*>(place + Traits::part_bytes(kColumns)) =
                        make_uint4(low[0], low[1], low[2], low[3]);
                } else {
#pragma unroll
                    for (int j = 0; j < 4; ++j) high[j] = round_tf32(high[j]);
                }
                *reinterpret_cast<uint4*>(place) = make_uint4(high[0], high[1], high[2], high[3]);
            }
        }
    }

    // A thread copies the same piece of 16 bytes of every kPiece-th channel: positions of one sample, as rows
    // are whole pieces.
    static constexpr int kPiece = 16 / Traits::kElementBytes;
    static constexpr int kPlanePieces = kPositions / kPiece;  // of a channel and product warpgroup

    __device__ __forceinline__ void load_x(uint32_t x_stage) const {
        const int32_t unit = thread % (2 * kPlanePieces), channel = thread / (2 * kPlanePieces);
        const int32_t left = x_exists ? channels - channel : 0;
        const int64_t step = kPiece * problem.x_stride_c;
        const Element* source = x_source;
        constexpr int kPitchBytes = Traits::pitch(1) * Traits::kElementBytes;
        uint32_t target = x_stage + unit / kPlanePieces * Traits::plane_bytes(1) + channel * kPitchBytes +
                          unit % kPlanePieces * 16;
#pragma unroll 8
        for (int c = 0; c < Traits::kChunkChannels; c += kPiece, source += step) {
            copy<16>(target, source, c < left);
            target += kPiece * kPitchBytes;
        }
    }

    // Turns to the chunks of a tile.
    __device__ __forceinline__ void begin_tile(int32_t tile) {
        const Place place = place_tile<kColumns>(params, tile);
        channels = static_cast<int32_t>(problem.C);
        w_rows = static_cast<int32_t>(problem.O) - place.o - thread / 8;
        w_source = static_cast<const Element*>(problem.w) + thread % 8 * Traits::kPieceChannels +
                   (place.group * problem.O + place.o + thread / 8) * problem.C;
        const Position at = find_position(params, place.q + thread % (2 * kPlanePieces) * kPiece);
        x_exists = at.exists;
        x_source = static_cast<const Element*>(problem.x) + at.n * problem.x_stride_n +
                   (place.group * problem.C + thread / (2 * kPlanePieces)) * problem.x_stride_c + at.p;
    }

    __device__ __forceinline__ void load_chunk(uint32_t stage) {
        const uint32_t x_stage = stage + Traits::kParts * Traits::part_bytes(kColumns);
        load_x(x_stage);
        if (params.w_copy == 16) load_weights<16>(stage);
        else load_weights<4>(stage);
        channels -= Traits::kChunkChannels;
        w_source += Traits::kChunkChannels;
        x_source += Traits::kChunkChannels * problem.x_stride_c;
    }

    __device__ __forceinline__ void run() {
        Ring filled{0, 1}, ready{0, 0};  // an empty ring: the first waits return at once
        int32_t tile = blockIdx.x;
        channels = 0;
        for (int32_t chunk = 0;; ++chunk) {
            if (chunk >= kUnderWay) {
                ptx::cp_async_wait_group<kUnderWay - 1>();
                if constexpr (Traits::kIsFloat)
                    convert_weights<kLoaders>(smem + ready.stage * params.stage_bytes);
                announce(barriers.full(ready.stage));
                ready.advance(params.stages);
            }
            if (channels <= 0 && tile < params.tiles) {
                begin_tile(tile);
                tile += gridDim.x;
            }
            if (channels > 0) {
                ptx::mbarrier_wait(barriers.empty(filled.stage), filled.parity);
                load_chunk(ptx::smem_address(smem) + filled.stage * params.stage_bytes);
                filled.advance(params.stages);
            } else if (chunk >= kUnderWay && ready.stage == filled.stage) {
                break;
            }
            ptx::cp_async_commit_group();  // an empty group keeps the count in step
        }
    }

    // Likewise of one thread by the copy engine. What lies outside x and W becomes zero. The blocks of a
    // cluster take neighbouring outputs of the same positions; each brings x of one product warpgroup to all.
    // A box begins at a 16-byte piece, which of a row's second channel is half a piece before the tile.
    __device__ __forceinline__ void order_boxes(const TensorMap& x_map, const TensorMap& w_map) const {
        const int32_t residues = residues_of<Traits>(params), plane_bytes = Traits::plane_bytes(residues);
        const int32_t rank = static_cast<int32_t>(ptx::cluster_ctarank());
        Ring filled{0, 1};
        for (int32_t tile = blockIdx.x; tile < params.tiles; tile += gridDim.x) {
            const Place place = place_tile<kColumns>(params, tile);
            const Position at = find_position(params, place.q);
            const int32_t n = static_cast<int32_t>(at.n), p = static_cast<int32_t>(at.p);
            int32_t row = 0;  // of the tensor map, of channel c
            for (int32_t c = 0; c < problem.C; c += Traits::kChunkChannels) {
                const uint32_t stage = ptx::smem_address(smem) + filled.stage * params.stage_bytes;
                const uint32_t x_stage = stage + Traits::kParts * Traits::part_bytes(kColumns);
                const uint32_t landed = barriers.landed(filled.stage);
                ptx::mbarrier_wait(barriers.empty(filled.stage), filled.parity);
                ptx::mbarrier_arrive_expect_tx(landed, Traits::part_bytes(kColumns) + 2 * plane_bytes);
#pragma unroll
                for (int32_t group = 0; group < 2; ++group) {
                    if (params.cluster > 1 && group != rank) continue;
                    uint32_t target = x_stage + group * plane_bytes;
                    int32_t start = p + group * kPositions;
                    for (int32_t residue = 0; residue < residues; ++residue) {
                        if (params.cluster == 1)
                            ptx::cp_async_bulk_tensor(target, &x_map, start, row, place.group, n, landed);
                        else
                            ptx::cp_async_bulk_tensor_multicast(target, &x_map, start, row, place.group, n,
                                                                landed, kAllBlocks);
                        target += plane_bytes / 2;
                        start += static_cast<int32_t>(problem.x_stride_c) & -Traits::kPieceChannels;
                    }
                }
                row += Traits::kChunkChannels >> (residues - 1);
                ptx::cp_async_bulk_tensor(stage, &w_map, c, place.o, place.group, landed);
                filled.advance(params.stages);
            }
        }
    }

    // The first kConverterWarps warps, beside that thread.
    __device__ __forceinline__ void convert_stages() const {
        Ring ready{0, 0};
        for (int32_t tile = blockIdx.x; tile < params.tiles; tile += gridDim.x) {
#pragma unroll 1
            for (int32_t chunk = 0; chunk < params.chunks; ++chunk) {
                ptx::mbarrier_wait(barriers.landed(ready.stage), ready.parity);
                if constexpr (Traits::kIsFloat)
                    convert_weights<32 * kConverterWarps>(smem + ready.stage * params.stage_bytes);
                announce(barriers.full(ready.stage));
                ready.advance(params.stages);
            }
        }
    }
};

// One of the product warpgroups' threads. Lane 4*g + t holds channels t and t + 4 of a step (in 16 bits 2t,
// 2t + 1 and those + 8) of the warp's positions 4g to 4g + 3; and these of outputs 8*j + 2t and that + 1.
template <class Traits, int kColumns>
struct Product {
    using Element = typename Traits::Element;
    using Mma = WgmmaFromRegisters<Traits::kOperand, kColumns>;
    static constexpr int kParts = Traits::kParts, kValues = kColumns / 2;
    using Sums = float[2][kValues];  // of positions 4g, 4g + 1 and of 4g + 2, 4g + 3

    const Params& params;
    const Problem& problem;
    const Barriers& barriers;
    const uint8_t* const smem;
    Element* const staged;  // [8][kStagedPitch], this warp's own
    float* const bias;      // [kColumns], likewise
    const int warp, lane;   // warp of 8: warpgroup warp / 4
    const int pair_step, odd_step;  // 16 bits: bytes of x from two channels to the next two; between the two
    Ring stages;

    struct Fragments {
        uint32_t part[kParts][2][4];  // high, then low; of both products
    };

    // Bytes of x in a stage from one channel, of 16 bits from two, to the next.
    __device__ __forceinline__ int channel_step() const {
        return Traits::kIsFloat ? Traits::pitch(1) * Traits::kElementBytes : pair_step;
    }

    // `x` is at this lane's first channel and position. First all loads: row by row, as ptxas makes some wait
    // for others' values where they come half by half (16 bits, long sums: 1.07 of the time).
    __device__ __forceinline__ void load_fragments(Fragments& fragments, const uint8_t* x, int step) const {
        using Loaded = std::conditional_t<Traits::kIsFloat, uint4, uint2>;
        constexpr int kRows = Traits::kIsFloat ? 1 : 2;  // of x, for a lane's channels that neighbour
        Loaded loaded[2][kRows];                         // of the halves of the step's channels
#pragma unroll
        for (int row = 0; row < kRows; ++row) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const uint8_t* const source = x + (2 * step + half) * 4 * channel_step() + row * odd_step;
                loaded[half][row] = *reinterpret_cast<const Loaded*>(source);
            }
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            if constexpr (Traits::kIsFloat) {
                const uint4 four = loaded[half][0];
                const uint32_t bits[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    uint32_t& high = fragments.part[0][i / 2][2 * half + i % 2];
                    if constexpr (kParts == 2)
                        split_tf32(bits[i], high, fragments.part[1][i / 2][2 * half + i % 2]);
                    else high = round_tf32(bits[i]);
                }
            } else {
                const uint2 first = loaded[half][0], second = loaded[half][1];
                fragments.part[0][0][2 * half] = __byte_perm(first.x, second.x, 0x5410);
                fragments.part[0][0][2 * half + 1] = __byte_perm(first.x, second.x, 0x7632);
                fragments.part[0][1][2 * half] = __byte_perm(first.y, second.y, 0x5410);
                fragments.part[0][1][2 * half + 1] = __byte_perm(first.y, second.y, 0x7632);
            }
        }
    }

    // The products of one step, x's high or low part by W's; `w16` is the step's W in units of 16 bytes.
    __device__ __forceinline__ void multiply(Sums& sums, const Fragments& fragments, uint32_t w16, int x_part,
                                             int w_part, bool accumulate) {
        const uint64_t w = ptx::wgmma_descriptor(w16 + w_part * (Traits::part_bytes(kColumns) / 16));
#pragma unroll
        for (int i = 0; i < 2; ++i) Mma::issue(sums[i], fragments.part[x_part][i], w, accumulate);
    }

    // To each block of the cluster, as each brings x to all.
    __device__ __forceinline__ void release(int32_t stage) {
        if (lane < params.cluster) ptx::mbarrier_arrive_cluster(ptx::mapa(barriers.empty(stage), lane));
    }

    // All products of one tile.
    __device__ __forceinline__ void multiply_tile(Sums& sums) {
        const int t = lane % 4, g = lane / 4, group = warp / 4;
        const int x_offset = kParts * Traits::part_bytes(kColumns) +
                             group * Traits::plane_bytes(residues_of<Traits>(params)) + t * channel_step() +
                             (warp % 4 * 32 + 4 * g) * Traits::kElementBytes;
        Sums total = {};  // of split operands
        Fragments fragments[2];
        bool accumulate = false;
        int32_t done = -1;  // a stage whose products may still be running
#pragma unroll 1
        for (int32_t chunk = 0; chunk < params.chunks; ++chunk) {
            ptx::mbarrier_wait(barriers.full(stages.stage), stages.parity);
            const uint8_t* const stage = smem + stages.stage * params.stage_bytes;
            const uint32_t w16 = ptx::smem_address(stage) / 16;
#pragma unroll
            for (int step = 0; step < kSteps; ++step) {
                load_fragments(fragments[step % 2], stage + x_offset, step);
                ptx::wgmma_fence();
                if constexpr (kParts == 1) {
                    multiply(sums, fragments[step % 2], w16 + 2 * step, 0, 0, accumulate);
                    accumulate = true;
                } else {  // the high parts of two steps come after all low ones; of these W's first, as a
                          // descriptor waits for products that read the one before it (.96 of the time)
                    multiply(sums, fragments[step % 2], w16 + 2 * step, 0, 1, step % 2 != 0);
                    multiply(sums, fragments[step % 2], w16 + 2 * step, 1, 0, true);
                    if (step % 2 != 0) {
                        multiply(sums, fragments[0], w16 + 2 * step - 2, 0, 0, true);
                        multiply(sums, fragments[1], w16 + 2 * step, 0, 0, true);
                    }
                }
                ptx::wgmma_commit_group();
                if (kParts == 2 && step % 2 != 0) {  // the accumulator truncates, the total rounds to nearest
                    ptx::wgmma_wait_group<0>();
#pragma unroll
                    for (int i = 0; i < 2 * kValues; ++i) total[i % 2][i / 2] += sums[i % 2][i / 2];
                } else {
                    ptx::wgmma_wait_group<1>();  // the step before this one is done
                }
                if (step == 0 && done >= 0) release(done);
            }
            done = stages.stage;
            stages.advance(params.stages);
        }
        ptx::wgmma_wait_group<0>();
        release(done);
        if constexpr (kParts == 2) {
#pragma unroll
            for (int i = 0; i < 2 * kValues; ++i) sums[i % 2][i / 2] = total[i % 2][i / 2];
        }
    }

    // Of output place.o + lane + 32*i; they arrive during the products.
    __device__ __forceinline__ float load_bias(const Place& place, int i) const {
        const int32_t o = place.o + lane + 32 * i;
        if (problem.bias == nullptr || o >= problem.O) return 0.0f;
        return widen(static_cast<const Element*>(problem.bias)[place.group * problem.O + o]);
    }
    // The output o of this place at a position.
    __device__ __forceinline__ Element* find_y(const Place& place, int32_t o, const Position& at) const {
        const int64_t row = (at.n * problem.G + place.group) * problem.O + o;
        return static_cast<Element*>(problem.y) + row * problem.P + at.p;
    }

    // Four neighbours of output 8*j + 2t + odd, as they lie in memory.
    using Four = std::conditional_t<Traits::kIsFloat, uint4, uint2>;
    static __device__ __forceinline__ Four round_four(const Sums& sums, int j, int odd, float added) {
        Vector<Element, 4> four;
#pragma unroll
        for (int i = 0; i < 4; ++i)
            four.at[i] = narrow<Element>(sums[i / 2][4 * j + 2 * (i % 2) + odd] + added);
        return *reinterpret_cast<const Four*>(&four);
    }

    // From registers, four neighbours at once, which are of one sample.
    __device__ __forceinline__ void store_direct(const Sums& sums, const Place& place) const {
        const Position at = find_position(params, place.q + 4 * (lane / 4));
        const int32_t o = place.o + 2 * (lane % 4);
        const int32_t outputs = at.exists ? static_cast<int32_t>(problem.O) - o : 0;
        Element* y = find_y(place, o, at);
#pragma unroll
        for (int j = 0; j < kColumns / 8; ++j, y += 8 * problem.P) {
            const float2 added = *reinterpret_cast<const float2*>(bias + 8 * j + 2 * (lane % 4));
            // Rounded without a branch: one for each row would make them wait for each other.
            const Four even = round_four(sums, j, 0, added.x), odd = round_four(sums, j, 1, added.y);
            if (8 * j < outputs) ptx::st_global(y, even);
            if (8 * j + 1 < outputs) ptx::st_global(y + problem.P, odd);
        }
    }

    // Through shared memory, 8 outputs at a time: a lane stores one position of each.
    __device__ __forceinline__ void store_staged(const Sums& sums, const Place& place) const {
        constexpr int kStagedPitch = Traits::kStagedPitch;
        const Position at = find_position(params, place.q + lane);
        Element* y = find_y(place, place.o, at);
        int32_t outputs = at.exists ? static_cast<int32_t>(problem.O) - place.o : 0;
#pragma unroll 1
        for (int j = 0; j < kColumns / 8; ++j, outputs -= 8, y += 8 * problem.P) {
            const int row = 2 * (lane % 4);
#pragma unroll
            for (int i = 0; i < kColumns / 8; ++i) {  // registers have no index
                if (i != j) continue;
                Element* const target = staged + row * kStagedPitch + lane / 4 * 4;
                const float2 added = *reinterpret_cast<const float2*>(bias + 8 * i + row);
                *reinterpret_cast<Four*>(target) = round_four(sums, i, 0, added.x);
                *reinterpret_cast<Four*>(target + kStagedPitch) = round_four(sums, i, 1, added.y);
            }
            __syncwarp();
            if (problem.activation != Activation::none)
                activate_staged(problem.activation, staged, 8 * kStagedPitch);
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                if (i < outputs) y[i * problem.P] = staged[i * kStagedPitch + lane];
            }
            __syncwarp();
        }
    }

    static __device__ __forceinline__ bool are_sound(const Sums& sums) {
        Soundness soundness;
#pragma unroll
        for (int i = 0; i < 2 * kValues; ++i) soundness.add(sums[i % 2][i / 2]);
        return soundness.holds();
    }
    // Of sums[i % 2][i / 2], bit i: whether it must be done again.
    static __device__ __forceinline__ uint64_t find_unsound(const Sums& sums) {
        uint64_t unsound = 0;
#pragma unroll
        for (int i = 0; i < 2 * kValues; ++i) unsound |= uint64_t{!is_sound(sums[i % 2][i / 2])} << i;
        return unsound;
    }
    __device__ __forceinline__ void mend(uint64_t unsound, const Place& place) const {
        __syncwarp();  // all have been stored
#pragma unroll 1
        for (int i = 0; i < 2 * kValues; ++i) {
            const int value = i / 2;
            const int32_t o = place.o + value / 4 * 8 + lane % 4 * 2 + value % 2;
            const Position at = find_position(params, place.q + lane / 4 * 4 + i % 2 * 2 + value / 2 % 2);
            if ((unsound >> i & 1) == 0 || o >= problem.O || !at.exists) continue;
            *reinterpret_cast<float*>(find_y(place, o, at)) =
                finish_exactly(problem, at.n, place.group, o, at.p);
        }
    }

    __device__ __forceinline__ void run() {
#pragma unroll 1
        for (int32_t tile = blockIdx.x; tile < params.tiles; tile += gridDim.x) {
            Place place = place_tile<kColumns>(params, tile);  // of this warp
            place.q += warp * 32;
            float own_bias[kColumns / 32];
#pragma unroll
            for (int i = 0; i < kColumns / 32; ++i) own_bias[i] = load_bias(place, i);
            Sums sums;
            multiply_tile(sums);
#pragma unroll
            for (int i = 0; i < kColumns / 32; ++i) bias[lane + 32 * i] = own_bias[i];
            __syncwarp();
            uint64_t unsound = 0;
            if constexpr (kParts == 2) {
                if (!are_sound(sums)) unsound = find_unsound(sums);
            }
            if (params.y_direct) store_direct(sums, place);
            else store_staged(sums, place);
            if constexpr (kParts == 2) {
                if (__any_sync(0xFFFFFFFF, unsound != 0)) mend(unsound, place);
            }
        }
    }
};

#endif

template <class Traits, int kColumns>
__global__ void __launch_bounds__(kThreads, 1)
    pointwise_sm90_kernel(const __grid_constant__ Params params, const __grid_constant__ TensorMap x_map,
                          const __grid_constant__ TensorMap w_map) {
#if __CUDA_ARCH__ == 900
    extern __shared__ uint8_t smem_base[];
    uint8_t* const smem = smem_base + ((1024 - (ptx::smem_address(smem_base) & 1023)) & 1023);
    uint8_t* const staging = smem + params.stages * params.stage_bytes;
    const Barriers barriers{ptx::smem_address(staging + Traits::kStagingBytes)};
    if (threadIdx.x == 0) {
        for (int i = 0; i < kMaxStages; ++i) {
            ptx::mbarrier_init(barriers.full(i), params.boxes ? kConverterWarps : kLoaderWarps);
            ptx::mbarrier_init(barriers.empty(i), kProductWarps * params.cluster);
            ptx::mbarrier_init(barriers.landed(i), 1);
        }
        ptx::fence_mbarrier_init();
    }
    ptx::cluster_sync();
    // Through a shuffle, so that the compiler knows it is the same in the whole warp.
    const int warp = __shfl_sync(0xFFFFFFFF, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
    if (warp < kProductWarps) {
        ptx::setmaxnreg_inc<kProductRegisters<Traits, kColumns>>();
        using Element = typename Traits::Element;
        uint8_t* const own = staging + warp * (Traits::kStagingBytes / kProductWarps);
        const int residues = residues_of<Traits>(params);
        const int pitch_bytes = Traits::pitch(residues) * Traits::kElementBytes;
        Product<Traits, kColumns> product{params,
                                          params.problem,
                                          barriers,
                                          smem,
                                          reinterpret_cast<Element*>(own),
                                          reinterpret_cast<float*>(own + Traits::kStagedBytes),
                                          warp,
                                          lane,
                                          2 / residues * pitch_bytes,
                                          residues == 1 ? pitch_bytes : Traits::plane_bytes(2) / 2 + 8,
                                          {0, 0}};
        product.run();
    } else {
        ptx::setmaxnreg_dec<256 - kProductRegisters<Traits, kColumns>>();
        Loader<Traits, kColumns> loader{params, params.problem, barriers, smem,
                                        static_cast<int>(threadIdx.x) - 32 * kProductWarps};
        if (!params.boxes) loader.run();
        else if (warp < kProductWarps + kConverterWarps) loader.convert_stages();
        else if (warp == kThreads / 32 - 1 && ptx::elect()) loader.order_boxes(x_map, w_map);
    }
    ptx::cluster_sync();  // shared memory outlives what other blocks do there
#endif
}

// tiles is 0 where that cannot be.
template <class Traits, int kColumns>
inline Params cut(const Problem& problem) {
    Params params{};
    params.problem = problem;
    params.o_tiles = static_cast<int32_t>(ceil_div(problem.O, kColumns));
    params.chunks = static_cast<int32_t>(ceil_div(problem.C, Traits::kChunkChannels));
    const int64_t element = Traits::kElementBytes;
    const auto aligned = [](const void* pointer, int64_t bytes) {
        return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
    };
    const auto w_in_pieces = [&](int64_t bytes) {
        return problem.C * element % bytes == 0 && aligned(problem.w, bytes);
    };
    params.w_copy = w_in_pieces(16) ? 16 : w_in_pieces(4) ? 4 : 0;
    const bool in_rows = problem.x_stride_l == 1 && problem.stride == 1 && problem.pad_left == 0 &&
                         problem.P == problem.L;
    // From one sample to the next too where there is none, as the choice of routes must not depend on that.
    const auto x_in_pieces = [&](int64_t bytes) {
        return in_rows && problem.P * element % bytes == 0 && problem.x_stride_c * element % bytes == 0 &&
               problem.x_stride_n * element % bytes == 0 && aligned(problem.x, bytes);
    };
    const bool whole_pieces = x_in_pieces(16);
    // Tiles lie in one sample each then: not where too much of them would be behind its end. The driver asks
    // for strides of whole 16 bytes, not zero.
    constexpr int64_t kFar = int64_t{1} << 37;
    const int64_t whole_tiles = round_up(problem.P, kTilePositions);
    // Two channels' rows of 8 mod 16 bytes make one of whole 16.
    const bool in_turn = !Traits::kIsFloat && !whole_pieces && x_in_pieces(8) && problem.C % 2 == 0 &&
                         problem.x_stride_c % Traits::kPieceChannels != 0 && aligned(problem.x, 16) &&
                         problem.x_stride_n % Traits::kPieceChannels == 0;
    params.boxes = (whole_pieces || in_turn) && params.w_copy == 16 &&
                   16 * (whole_tiles - problem.P) <= problem.P &&
                   problem.x_stride_c > 0 && problem.G * problem.C * problem.x_stride_c < kFar &&
                   problem.x_stride_n > 0 && problem.x_stride_n < kFar;
    params.residues = params.boxes && in_turn ? 2 : 1;
    params.line = static_cast<uint32_t>(params.boxes ? whole_tiles : problem.P);
    const int64_t tiles = ceil_div(problem.N * params.line, kTilePositions) * params.o_tiles * problem.G;
    // Worth it where the L2 bounds a block of many stages (us without and with it, bf16: 32x2048x512 to 2048
    // 261 and 196, 4x1024x1024 to 1024 21.5 and 19.1, 64x256x256 to 256 11.6 and 12.7; TF32: conformer_pw 229
    // and 206, 4x1024x1024 to 1024 34.9 and 37.0; fp32 548 and 546).
    const int64_t least_stages = (Traits::kIsFloat ? 100 : 8) * int64_t{problem.device.sm_count};
    const bool shares = Traits::kParts == 1 && params.boxes && params.o_tiles % kCluster == 0;
    params.cluster = shares && tiles * params.chunks >= least_stages ? kCluster : 1;
    params.y_direct =
        problem.activation == Activation::none && problem.P % 4 == 0 && aligned(problem.y, 4 * element);

    const int32_t other_bytes = Traits::kStagingBytes + 3 * kMaxStages * 8 + 1024;
    params.stage_bytes = Traits::stage_bytes(kColumns, params.residues);
    const int32_t room = (problem.device.smem_bytes - other_bytes) / params.stage_bytes;
    params.stages = room < kMaxStages ? room : kMaxStages;
    params.smem_bytes = params.stages * params.stage_bytes + other_bytes;
    const bool fits = tiles < kMaxBlocks / 2 && params.stages > kAhead<Traits, kColumns> &&
                      (whole_pieces || params.boxes) && params.w_copy != 0;
    params.tiles = fits ? static_cast<int32_t>(tiles) : 0;
    return params;
}

// Cycles that a launch needs by a simple count, in whole waves of tiles: products or bytes through L2, then
// stores.
template <class Traits>
inline double estimate_cycles(const Params& params, int columns) {
    constexpr double kBytesPerCycle = 28;  // of one multiprocessor from L2
    const double area = static_cast<double>(columns) * kTilePositions;
    const double products = area / 32 * (Traits::kParts == 2 ? 3.5 : 1);
    const double moves = (columns + kTilePositions / params.cluster) * kRowBytes / kBytesPerCycle;
    const double tile = params.chunks * (products > moves ? products : moves) + 1500 +
                        area * Traits::kElementBytes / 40;
    return static_cast<double>(ceil_div(params.tiles, params.problem.device.sm_count)) * tile;
}

// Calls run(traits) for the problem's dtype and precision.
template <class Run>
inline auto with_traits(const Problem& problem, Run run) {
    if (problem.dtype == Dtype::float16) return run(Traits<__half, 1>{});
    if (problem.dtype == Dtype::bfloat16) return run(Traits<__nv_bfloat16, 1>{});
    if (problem.precision == Precision::tf32) return run(Traits<float, 1>{});
    return run(Traits<float, 2>{});
}

// What the copy engine loads.
template <class Traits>
inline BoxedTensor describe_x(const Problem& problem, int residues) {
    return {problem.x,
            Traits::kElementBytes,
            {(residues - 1) * problem.x_stride_c + problem.L, problem.C / residues, problem.G, problem.N},
            {residues * problem.x_stride_c, problem.C * problem.x_stride_c, problem.x_stride_n},
            {Traits::pitch(residues), Traits::kChunkChannels / residues, 1, 1},
            false};
}
template <class Traits, int kColumns>
inline BoxedTensor describe_weights(const Problem& problem) {
    return {problem.w,
            Traits::kElementBytes,
            {problem.C, problem.O, problem.G},
            {problem.C, problem.C * problem.O},
            {Traits::kChunkChannels, kColumns, 1},
            true};
}

template <class Traits, int kColumns>
Error launch_tiles(const Params& params, cudaStream_t stream) {
    Error error = allow_smem<pointwise_sm90_kernel<Traits, kColumns>>(params.problem.device);
    if (error != nullptr) return error;
    TensorMap x_map{}, w_map{};
    if (params.boxes) {
        error = encode_tensor_map(describe_x<Traits>(params.problem, params.residues), 4, &x_map);
        if (error == nullptr)
            error = encode_tensor_map(describe_weights<Traits, kColumns>(params.problem), 3, &w_map);
        if (error != nullptr) return error;
    }
    const int32_t most = max(params.problem.device.sm_count / params.cluster, 1) * params.cluster;
    const int32_t blocks = params.tiles < most ? params.tiles : most;
    return launch_shaped(pointwise_sm90_kernel<Traits, kColumns>,
                         {blocks, params.cluster, kThreads, params.smem_bytes, false}, stream, params, x_map,
                         w_map);
}

template <class Traits>
inline Error launch(const Problem& problem, cudaStream_t stream) {
    const Params narrow = cut<Traits, 64>(problem);
    if constexpr (Traits::kParts == 1) {  // else there are no registers for the totals
        const Params wide = cut<Traits, 128>(problem);
        if (estimate_cycles<Traits>(wide, 128) < estimate_cycles<Traits>(narrow, 64))
            return launch_tiles<Traits, 128>(wide, stream);
    }
    return launch_tiles<Traits, 64>(narrow, stream);
}

}  // namespace pointwise_sm90

// Rows of x of whole 16 bytes. Others are sooner done by gemm_sm90, with packed weights and all (us by copies
// of 4 bytes here and by that, TF32: 38x65x1167 to 410 88, 53; 2x22x184643 to 123 131, 74; 5x35x2894 to 205
// 19, 17).
inline bool fits_pointwise_sm90(const Problem& problem) {
    constexpr int64_t kMost = int64_t{1} << 30;  // positions and channels are counted in 32 bits
    if (problem.device.arch != 90 || problem.dtype == Dtype::float64 || problem.K != 1) return false;
    if (problem.C < 16 || problem.O < 8 || problem.C >= kMost || problem.G * problem.O >= kMost) return false;
    if (problem.P >= kMost || problem.N >= kMost ||
        problem.N * (problem.P + pointwise_sm90::kTilePositions) >= kMost)
        return false;
    return pointwise_sm90::with_traits(problem, [&](auto traits) {
        using Traits = decltype(traits);
        return pointwise_sm90::cut<Traits, 64>(problem).tiles > 0 &&
               (Traits::kParts == 2 || pointwise_sm90::cut<Traits, 128>(problem).tiles > 0);
    });
}

inline Error launch_pointwise_sm90(const Problem& problem, cudaStream_t stream) {
    return pointwise_sm90::with_traits(problem, [&](auto traits) {
        return pointwise_sm90::launch<decltype(traits)>(problem, stream);
    });
}

}  // namespace conv1d
''',
"pointwise_sm90.cu": r'''
#line 1 "kernels/pointwise_sm90.cu"
// The translation unit of route "pointwise_sm90".



const conv1d::Route conv1d::kPointwiseSm90 = {"pointwise_sm90", fits_pointwise_sm90, no_workspace,
                                              launch_pointwise_sm90};
''',
"python.cpp": r'''
#line 1 "kernels/python.cpp"
// The library as a Python module, with the op as one function. torch.ops matches each call with the schema
// and boxes its arguments, which takes 2 us; here they go to the dispatcher as they are.
#define AT_PER_OPERATOR_HEADERS  // torch's headers read no operator's that is not named: a sixth of the time
#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/TracerMode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/python_variable.h>

#include <optional>

namespace {

using at::Tensor;
using c10::SymInt;
using OptionalTensor = std::optional<Tensor>;
using OptionalName = std::optional<c10::string_view>;
using Op = Tensor(const Tensor&, const Tensor&, const OptionalTensor&, SymInt, SymInt, SymInt, SymInt,
                  OptionalName, std::optional<SymInt>);

#define CONV1D_STRING_OF(name) #name
#define CONV1D_STRING(name) CONV1D_STRING_OF(name)
#define CONV1D_INIT_OF(name) PyInit_##name
#define CONV1D_INIT(name) CONV1D_INIT_OF(name)

constexpr const char* kOpName = CONV1D_STRING(TORCH_EXTENSION_NAME) "::conv1d";

bool read_int(PyObject* object, int64_t& value) {
    if (!PyLong_CheckExact(object)) return false;
    int overflow = 0;
    value = PyLong_AsLongLongAndOverflow(object, &overflow);
    return overflow == 0;
}

// An int, or the one int of a tuple or list.
bool read_number(PyObject* object, int64_t& value) {
    if (PyTuple_CheckExact(object) && PyTuple_GET_SIZE(object) == 1) object = PyTuple_GET_ITEM(object, 0);
    if (PyList_CheckExact(object) && PyList_GET_SIZE(object) == 1) object = PyList_GET_ITEM(object, 0);
    return read_int(object, value);
}

bool read_name(PyObject* object, OptionalName& name) {
    if (object == Py_None) return true;
    Py_ssize_t length = 0;
    const char* text = PyUnicode_CheckExact(object) ? PyUnicode_AsUTF8AndSize(object, &length) : nullptr;
    if (text == nullptr) {
        PyErr_Clear();
        return false;
    }
    name.emplace(text, length);
    return true;
}

// conv1d(x, weight, bias, stride, padding, dilation, groups, activation), all by position. NotImplemented for
// what torch.ops alone does justice to: subclasses of Tensor, numbers that are not plain, padding by name or
// different on the two sides; and where a mode or a tracer watches the calls from Python.
PyObject* conv1d_direct(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
    HANDLE_TH_ERRORS
    static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(kOpName, "").typed<Op>();
    int64_t stride, padding, dilation, groups;
    OptionalName activation;
    if (count != 8 || !THPVariable_CheckExact(arguments[0]) || !THPVariable_CheckExact(arguments[1]) ||
        !(arguments[2] == Py_None || THPVariable_CheckExact(arguments[2])) ||
        !read_number(arguments[3], stride) || !read_number(arguments[4], padding) ||
        !read_number(arguments[5], dilation) || !read_int(arguments[6], groups) ||
        !read_name(arguments[7], activation) || at::impl::torch_function_mode_enabled() ||
        at::tracer::impl::is_dispatch_enabled())
        Py_RETURN_NOTIMPLEMENTED;
    OptionalTensor bias;
    if (arguments[2] != Py_None) bias = THPVariable_Unpack(arguments[2]);
    Tensor y;
    {
        const pybind11::gil_scoped_release without_gil;
        y = op.call(THPVariable_Unpack(arguments[0]), THPVariable_Unpack(arguments[1]), bias, stride, padding,
                    dilation, groups, activation, std::nullopt);
    }
    return THPVariable_Wrap(std::move(y));
    END_HANDLE_TH_ERRORS
}

PyMethodDef kMethods[] = {
    {"conv1d", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(conv1d_direct)), METH_FASTCALL,
     nullptr},
    {},
};

PyModuleDef kModule = {PyModuleDef_HEAD_INIT, CONV1D_STRING(TORCH_EXTENSION_NAME), nullptr, 0, kMethods};

}  // namespace

PyMODINIT_FUNC CONV1D_INIT(TORCH_EXTENSION_NAME)() { return PyModule_Create(&kModule); }
''',
"sliding_sm90_plan.cuh": r'''
#line 1 "kernels/sliding_sm90_plan.cuh"
// Which problems the sliding convolution (sliding_sm90.cuh) takes, and with which tiles. No kernel here.




namespace conv1d {
namespace sm90 {

// Calls call(traits) with the tile that this problem takes. Either adds in the same order, so the number of
// samples may decide. One of half the outputs takes .62 of the time of the other.
template <class Call>
inline auto with_slide(const Problem& problem, Call call) {
    return with_mode(problem, [&](auto mode) {
        const auto with_taps = [&](auto taps) {
            constexpr Mode kMode = decltype(mode)::value;
            constexpr int kTaps = decltype(taps)::value;
            using Wide = WindowTraits<kMode, kTaps, 1, 128>;
            using Narrow = WindowTraits<kMode, kTaps, 1, 64>;
            const int clusters = clusters_of(problem);
            return 100 * ceil_div(pairs_of<Wide>(problem), clusters) <=
                           62 * ceil_div(pairs_of<Narrow>(problem), clusters)
                       ? call(Wide{})
                       : call(Narrow{});
        };
        return problem.K == 3 ? with_taps(std::integral_constant<int, 3>{})
                              : with_taps(std::integral_constant<int, 5>{});
    });
}

}  // namespace sm90

// ms TF32, fp32, bf16 by this route and by gemm_sm90: 16x128x3000 to 1280, K3 .171, .300, .101 and .192,
// .361, .136; 256x256x64 to 512, K5 .067, .141, .041 and .091, .186, .059; 2x768x98304 to 896, K5 3.35, 6.37,
// 1.69 and 3.92, 7.27, 2.08; 8x64x16000 to 64, K5 .033, .058, .024 and .039, .073, .028; one sample of
// 512x1024 to 512, K3 .034, .044, .021 and .029, .051, .020. But of few outputs its narrower tile is half
// empty: 2x512x800 to 16, K5 .039, .054, .024 and .032, .056, .020; and so are boxes where rows fill the
// last one little: 256x256x65 to 512, K5 .129, .267, .083 and .109, .209, .081. Rows that begin between
// 16-byte pieces cost more to read, which long sums of few tiles do not hide: 2x768x32767 to 896, K5 1.16,
// 2.29, .63 and 1.32, 2.56, .72; 64x80x301 to 1024, K5 .077, .130, .072 and .103, .191, .083; but vits_wn
// .035, .064, .028 and .033, .070, .027; one sample of 512x1027 to 512, K3 .047, .047, .034 and .031, .052,
// .021.
inline bool fits_sliding_sm90(const Problem& problem) {
    if (!fits_gemm_sm90(problem) || (problem.K != 3 && problem.K != 5) || problem.stride != 1 ||
        problem.dilation != 1 || problem.C < 16 || problem.O < 33 ||
        5 * round_up(problem.P, sm90::kWindowBox) > 7 * problem.P)
        return false;
    return sm90::with_slide(problem, [&](auto traits) {
        using Traits = decltype(traits);
        const sm90::WindowGeometry geometry = sm90::cut_windows<Traits>(problem);
        const int64_t tiles = ceil_div(problem.P, 256) * ceil_div(problem.O, 128);  // of a sample, by size
        return geometry.pairs > 0 &&
               (geometry.residues == 1 || Traits::kIsSplit || problem.C <= 128 || tiles >= 56);
    });
}

inline size_t workspace_sliding_sm90(const Problem& problem) {
    return sm90::with_slide(problem,
                            [&](auto traits) { return sm90::workspace_of<decltype(traits)>(problem); });
}

}  // namespace conv1d
''',
"sliding_sm90.cuh": r'''
#line 1 "kernels/sliding_sm90.cuh"
// Dense convolution of three or five taps at a stride of 1 on Hopper: window_sm90.cuh with x of neighbouring
// positions in a lane, which loads the words that all their taps need once.

#include <type_traits>








namespace conv1d {
namespace sm90 {

// Lane 4*g + t holds, of a step of 32 bytes of K, words t and t + 4: channels t and t + 4, or, of 16 bits and
// split operands, 2t, 2t + 1 and those + 8; of positions kSpan*g of its warp and those that follow. Rows g
// and g + 8 of product i are of these i and i + kProducts.
template <class Traits_>
struct SlideLoader {
    using Traits = Traits_;
    static constexpr bool kIsSplit = Traits::kIsSplit;
    static constexpr int kProducts = Traits::kProducts, kSpan = 2 * kProducts;
    static constexpr int kParts = Traits::kParts, kTogether = Traits::kTogether;
    // In the staged rows of y.
    static constexpr int kRuns = 1, kRun = kSpan;
    static __device__ __forceinline__ int run_start(int lane, int) { return kSpan * (lane / 4); }
    static __device__ __forceinline__ constexpr int product_of(int, int z) { return z % kProducts; }
    static __device__ __forceinline__ constexpr int row_of(int z) { return z / kProducts; }
    static __device__ __forceinline__ int position(int lane, int product, int row) {
        return kSpan * (lane / 4) + product + kProducts * row;
    }

    // Operand A of tap k of product i: numbers k + i and k + i + kProducts of those in the windows of all
    // positions, which is that of tap k + 1 of the product before.
    static constexpr int kNumbers = Traits::kTaps + kSpan - 1, kOperands = Traits::kTaps + kProducts - 1;
    struct Fragments {
        uint32_t part[kParts][kOperands][4];  // high, then low
    };
    static __device__ __forceinline__ const uint32_t (&operand(const Fragments& fragments, int part, int tap,
                                                               int product))[4] {
        return fragments.part[part][tap + product];
    }

    // Where windows begin behind blocks of kSpan elements, of the usual paddings: none, equal on both sides,
    // or all on the left. Other windows, and those of rows that begin between blocks (floats: between pieces,
    // which leaves the mask of padding to one way), are loaded by words.
    static constexpr int kLateSame = (kSpan - Traits::kTaps / 2 % kSpan) % kSpan;
    static constexpr int kLateCausal = (kSpan - (Traits::kTaps - 1) % kSpan) % kSpan;

    // How a stage is loaded: one bit each, of whose tests the compiler makes no table of jumps; else causal.
    static constexpr uint32_t kSame = 1, kWords = 2, kNone = 4;

    const Problem& problem;
    const int lane;
    const bool apart;                 // rows begin between 16-byte pieces
    uint32_t way;
    uint32_t lane_offset[kTogether];  // of this lane's first channels and position, in a stage
    uint32_t half_step;               // from words t to words t + 4
    uint32_t shift[kTogether];        // by words, 16 bits: where that window begins in its first word
    bool has_padding = false;         // apart: of this tile's windows of this warp, some reach out of the row
    int32_t first;                    // apart: where that of the first position begins in the row
    int32_t small;                    // f16x3: values of x too small for a split

    __device__ __forceinline__ SlideLoader(const WindowGeometry& geometry, const Problem& problem, int warp,
                                           int lane)
        : problem(problem), lane(lane), apart(geometry.residues > 1) {
        constexpr int kBytes = Traits::kElementBytes;
        const int t = lane % 4, residues = geometry.residues;
        const int pitch = Traits::pitch(residues) * kBytes;
        half_step = (Traits::kIsTf32 ? 4 : 8) / residues * pitch;
        const int position = warp % Traits::kWarpsOfBox * Traits::kWarpPositions + kSpan * (lane / 4);
        const int late = lateness<Traits>(problem, 0) % kSpan;
        const bool by_words = (apart && (Traits::kIsFloat || problem.x_stride_c % kSpan != 0)) ||
                              (late != 0 && late != kLateSame && late != kLateCausal);
        way = by_words ? kWords : late == kLateSame ? kSame : late == 0 ? kNone : 0;
#pragma unroll
        for (int u = 0; u < kTogether; ++u) {
            const int channel = kTogether * t + u, residue = channel % residues;
            const int late_in_box = lateness<Traits>(problem, residue);
            const int begin = by_words ? late_in_box * kBytes / 4 * 4 : late_in_box / kSpan * kSpan * kBytes;
            shift[u] = late_in_box * kBytes % 4 * 8;
            lane_offset[u] = Traits::kWeightBytes + warp / Traits::kWarpsOfBox * geometry.box_bytes +
                             residue * (geometry.box_bytes / residues) + channel / residues * pitch +
                             position * kBytes + begin;
        }
    }

    // Of a tile in which this warp's positions begin at p.
    __device__ __forceinline__ void begin_tile(int32_t p) {
        if (!apart) return;
        const int32_t begin = p - static_cast<int32_t>(problem.pad_left), L = static_cast<int32_t>(problem.L);
        has_padding = begin < 0 || begin + Traits::kWarpPositions + Traits::kTaps - 1 > L;
        first = begin + kSpan * (lane / 4);
    }

    // All of one stage of x. kLate: elements from a lane's first to the window of its first position; or
    // kByWords.
    static constexpr int kByWords = -1;
    template <int kLate>
    __device__ __forceinline__ void load_fragments(Fragments& fragments, uint32_t stage) {
        constexpr int kFirst = kLate == kByWords ? 0 : kLate;  // of the numbers in `words`
        constexpr int kPerWord = 4 / Traits::kElementBytes;
        constexpr int kBlocks = (kFirst + kNumbers + kSpan - 1) / kSpan;
        constexpr int kWords = kSpan / kPerWord;  // of a block
        using Block = std::conditional_t<kWords == 4, uint4, uint2>;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            uint32_t words[kTogether][kBlocks * kWords];
#pragma unroll
            for (int u = 0; u < kTogether; ++u) {
                const uint32_t source = stage + lane_offset[u] + half * half_step;
                if constexpr (kLate == kByWords) {
                    constexpr int kCount = kNumbers / kPerWord;
                    uint32_t loaded[kCount + 1];
#pragma unroll
                    for (int i = 0; i < kCount + kPerWord - 1; ++i)
                        ptx::ld_shared(loaded[i], source + 4 * i);
#pragma unroll
                    for (int i = 0; i < kCount; ++i)
                        words[u][i] = kPerWord == 1
                                          ? loaded[i]
                                          : __funnelshift_r(loaded[i], loaded[i + 1], shift[u]);
                } else {
#pragma unroll
                    for (int i = 0; i < kBlocks; ++i) {
                        Block block;
                        ptx::ld_shared(block, source + i * static_cast<int>(sizeof(Block)));
                        uint32_t* const to = words[u] + i * kWords;
                        to[0] = block.x, to[1] = block.y;
                        if constexpr (kWords == 4) to[2] = block.z, to[3] = block.w;
                    }
                }
            }
            uint32_t numbers[kParts][kNumbers];
            if constexpr (Traits::kIsTf32) {
#pragma unroll
                for (int j = 0; j < kNumbers; ++j) numbers[0][j] = round_tf32(words[0][kFirst + j]);
            } else if constexpr (kIsSplit) {
                // Beyond a lane's own positions are another's.
                split_values(words[0] + kFirst, words[1] + kFirst, numbers, small,
                             [&](int j) { return j < kSpan || lane >= 28; });
            } else {
#pragma unroll
                for (int j = 0; j < kNumbers; ++j) {
                    const int at = kFirst + j;
                    numbers[0][j] = __byte_perm(words[0][at / 2], words[kTogether - 1][at / 2],
                                                at % 2 != 0 ? 0x7632 : 0x5410);
                }
            }
#pragma unroll
            for (int part = 0; part < kParts; ++part) {
#pragma unroll
                for (int i = 0; i < kOperands; ++i) {
                    fragments.part[part][i][2 * half] = numbers[part][i];
                    fragments.part[part][i][2 * half + 1] = numbers[part][i + kProducts];
                }
            }
        }
    }

    // What is not of the row counts as zero.
    __device__ __forceinline__ void mask_padding(Fragments& fragments) const {
        if (!has_padding) return;
#pragma unroll
        for (int i = 0; i < kParts * kOperands; ++i) {
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const int32_t l = first + i % kOperands + r * kProducts;
                auto& registers = fragments.part[i / kOperands][i % kOperands];
                if (static_cast<uint32_t>(l) >= static_cast<uint32_t>(problem.L))
                    registers[r] = registers[2 + r] = 0;
            }
        }
    }

    __device__ __forceinline__ void load(Fragments& fragments, uint32_t stage) {
        if (way & kSame) {
            load_fragments<kLateSame>(fragments, stage);
        } else if (way & kWords) {
            load_fragments<kByWords>(fragments, stage);
            if (Traits::kIsFloat) mask_padding(fragments);
        } else if (way & kNone) {
            load_fragments<0>(fragments, stage);
        } else {
            load_fragments<kLateCausal>(fragments, stage);
        }
        if (!Traits::kIsFloat) mask_padding(fragments);
    }
};

// Those of five taps are compiled in sliding_sm90_five.cu.
#define CONV1D_SM90_SLIDE(mode, outputs) \
    Error launch_windows<SlideLoader<WindowTraits<Mode::mode, 5, 1, outputs>>>(const Problem&, cudaStream_t);
#define CONV1D_SM90_SLIDES_OF_FIVE(what) \
    what CONV1D_SM90_SLIDE(tf32, 128)    \
    what CONV1D_SM90_SLIDE(tf32, 64)     \
    what CONV1D_SM90_SLIDE(f16x3, 128)   \
    what CONV1D_SM90_SLIDE(f16x3, 64)    \
    what CONV1D_SM90_SLIDE(f16, 128)     \
    what CONV1D_SM90_SLIDE(f16, 64)      \
    what CONV1D_SM90_SLIDE(bf16, 128)    \
    what CONV1D_SM90_SLIDE(bf16, 64)
CONV1D_SM90_SLIDES_OF_FIVE(extern template)

}  // namespace sm90
}  // namespace conv1d
''',
"sliding_sm90.cu": r'''
#line 1 "kernels/sliding_sm90.cu"
// The translation unit of route "sliding_sm90"; its kernels for three taps.



namespace conv1d {

static Error launch_sliding_sm90(const Problem& problem, cudaStream_t stream) {
    return sm90::with_slide(problem, [&](auto traits) {
        return sm90::launch_windows<sm90::SlideLoader<decltype(traits)>>(problem, stream);
    });
}

}  // namespace conv1d

const conv1d::Route conv1d::kSlidingSm90 = {"sliding_sm90", fits_sliding_sm90, workspace_sliding_sm90,
                                            launch_sliding_sm90};
''',
"sliding_sm90_five.cu": r'''
#line 1 "kernels/sliding_sm90_five.cu"
// The kernels of route "sliding_sm90" for five taps, in a translation unit of their own.


namespace conv1d {
namespace sm90 {

CONV1D_SM90_SLIDES_OF_FIVE(template)

}  // namespace sm90
}  // namespace conv1d
''',
"small.cuh": r'''
#line 1 "kernels/small.cuh"
// Small dense problems on tensor cores, sm_80 and later: an implicit GEMM by mma.sync in one launch, with no
// packed weights and no workspace. TF32, fp16, bf16, and fp32 at full accuracy as three TF32 products.
//
// D[o][position] = sum of W[o][r] * X[r][position], where r = c*K + k counts in the weights' own order: their
// rows are read as they lie. Positions count through all samples. A lane gathers x for one position; a table
// says where each r is and which tap of its row. Loads run one chunk of the depth ahead, in registers.
//
// The depth is cut into parts. Each is summed by itself, then their sums are added in order. So a team of
// warps may take one part or all of them, and tiles may have any size: how many samples there are decides
// that, but no bit of the result. Few outputs: a warp a part, 16 x 16 outputs or 32 x 32. Many: two warps
// for all parts of those, or four for 64 x 64. Cost: x is gathered once per 16, 32 or 64 output channels and
// tap, through L1.

#include <cstring>
#include <type_traits>






namespace conv1d {
namespace small {

constexpr int kMmaWords = 8;       // depth of one product; a word is one fp32 operand or two 16-bit ones
constexpr int kLaneElements = 16;  // of x, and of w, that a thread loads of a chunk
constexpr int kGranule = 32;  // elements of depth: parts are multiples, as all tiles' chunks divide it
constexpr int kMaxParts = 16;
constexpr int kFarAway = 1 << 30;  // a position outside of every row, alone or added to one inside
constexpr int64_t kMostPositions = int64_t{1} << 28;

// A team is a warp with a part of its own (or, where shared memory has no room for a block of these, with all
// parts), or some warps, alone in a block, that share each chunk of all parts. kSplit: each fp32 operand is a
// high and a low number, and three products of those make one.
template <class Element_, bool kSplit_, int kWarpO_, int kWarpP_, int kTeamWarpsO_, int kTeamWarpsP_>
struct Tile {
    using Element = Element_;
    static constexpr bool kSplit = kSplit_;
    static constexpr int kWarpO = kWarpO_;  // output channels of a warp
    static constexpr int kWarpP = kWarpP_;  // positions of a warp
    static constexpr int kMTiles = kWarpO / 16;
    static constexpr int kNTiles = kWarpP / 8;
    static constexpr int kLaneRows = 32 / kWarpP;  // lanes that share a position, of x and of y
    static constexpr int kTeamWarpsO = kTeamWarpsO_;
    static constexpr int kTeamWarpsP = kTeamWarpsP_;
    static constexpr int kTeamWarps = kTeamWarpsO * kTeamWarpsP;
    static constexpr int kTeamThreads = 32 * kTeamWarps;
    static constexpr int kMaxTeams = kTeamWarps > 1 ? 1 : kMaxParts;
    static constexpr int kMaxThreads = kTeamThreads * kMaxTeams;
    static constexpr int kO = kWarpO * kTeamWarpsO;
    static constexpr int kP = kWarpP * kTeamWarpsP;
    static constexpr int kPerWord = 4 / sizeof(Element);
    static constexpr int kWarpElements = kLaneElements * kLaneRows;  // of a chunk, that a warp gathers
    static constexpr int kElements = kWarpElements * kTeamWarpsO;    // of a chunk
    static constexpr int kDepth = kElements / kPerWord;              // of a chunk, in words
    static constexpr int kPitch = kDepth + 4;  // words; 8 rows of 16 bytes fall into all banks
    static constexpr int kStages = kTeamWarps > 1 ? 2 : 1;
    static constexpr int kStageWords = (kO + kP) * kPitch;
    static constexpr int kSumPitch = kP + 8;  // floats; pairs of 4 rows fall into all banks
    static constexpr int kTeamWords = kStages * kStageWords + kO * kSumPitch;  // of shared memory
    static constexpr int kTeamBytes = 4 * kTeamWords + kTeamWarps * kWarpElements * 8;  // with the tables
    // That share a multiprocessor, where a block is one team: as many as spill no registers.
    static constexpr int kBlocks = kTeamWarps == 1   ? 1
                                   : kTeamWarps == 2 ? (kPerWord == 2 ? 10 : 8)
                                                     : (kSplit ? 3 : 4);
    static_assert(kGranule % kElements == 0, "parts must have whole chunks");
    static_assert(kO * kElements / kTeamThreads == kLaneElements, "a thread loads as much of w as of x");
};

struct Params {
    Problem problem;
    bool w_vectors;   // rows of w start at multiples of 16 bytes
    bool w_words;     // ... of 4 bytes
    Divisor taps;     // K
    int32_t depth;    // C*K
    int32_t chunks;   // of the depth
    int32_t part_chunks;  // of a part; the last one may have fewer
    int32_t teams;        // of a block: one for each part, or one for all
    IndexDivisor o_tiles, groups;
    SampleDivisor samples;  // whose positions follow one another
    int64_t blocks;
};

// Depth of a part, of which there are at most 8, or 16 of long sums.
inline int64_t part_depth(const Problem& problem) {
    const int64_t granules = ceil_div(problem.C * problem.K, kGranule);
    return ceil_div(granules, granules > 32 ? kMaxParts : kMaxParts / 2) * kGranule;
}

// Where r = c*K + k lies in x, in elements from channel 0 and tap 0, and k*dilation.
struct Entry {
    int32_t offset, tap;
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

template <class Tile>
__device__ __forceinline__ void sync_team() {
    if constexpr (Tile::kTeamWarps == 1) __syncwarp();
    else __syncthreads();  // the block is one team
}

// What one thread reads from.
template <class Element>
struct Source {
    const Element* x;  // channel 0 of the group, tap 0 of its position
    int32_t l;         // of tap 0; kFarAway where the position is none
    const Element* w;  // its first piece (Pieces) of the first chunk
    int32_t w_rows;    // from that piece's row on
};

// A chunk on its way from global to shared memory.
template <class Element>
struct Chunk {
    Element x[kLaneElements];
    uint32_t w[kLaneElements];  // words, or, where rows begin at odd 16-bit elements, such elements
};

template <class Element>
__device__ __forceinline__ uint32_t pack(Element first, Element second) {
    const Element pair[2] = {first, second};
    uint32_t bits;
    memcpy(&bits, pair, 4);
    return bits;
}

// Starts to load x at this warp's words of the chunk.
template <class Tile>
__device__ __forceinline__ void load_x(const Params& params, const Source<typename Tile::Element>& source,
                                       int r_begin, Entry* table, Chunk<typename Tile::Element>& chunk) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int lane = threadIdx.x % 32;
    __syncwarp();  // the table has been read
    if (lane < Tile::kWarpElements) {
        const int r = r_begin + lane;
        const int c = static_cast<int>(params.taps.quotient(r));
        const int k = r - c * static_cast<int>(params.taps.divisor);
        const int tap = k * static_cast<int>(problem.dilation);
        const int offset =
            c * static_cast<int>(problem.x_stride_c) + tap * static_cast<int>(problem.x_stride_l);
        table[lane] = r < params.depth ? Entry{offset, tap} : Entry{0, kFarAway};
    }
    __syncwarp();
    table += lane / Tile::kWarpP * kLaneElements;
#pragma unroll
    for (int i = 0; i < kLaneElements; i += 2) {
        const auto entries = *reinterpret_cast<const Vector<Entry, 2>*>(table + i);
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            const uint32_t l = static_cast<uint32_t>(source.l) + static_cast<uint32_t>(entries.at[j].tap);
            const bool inside = l < static_cast<uint32_t>(problem.L);
            chunk.x[i + j] = inside ? __ldg(source.x + entries.at[j].offset) : Element{};
        }
    }
}

// How a team's threads share a chunk of w, in kCount pieces of kPiece elements each: thread by thread along
// its rows. Rows that are stored at once, by 8 lanes with 16 bytes or by a warp with less, lie kApart from
// each other: so they fall into different banks, short as they may be.
template <class Tile, int kPiece>
struct Pieces {
    static constexpr int kInRow = Tile::kElements / kPiece;
    static constexpr int kCount = kLaneElements / kPiece;
    static constexpr int kWords = kPiece > Tile::kPerWord ? kPiece / Tile::kPerWord : 1;  // in Chunk::w
    static constexpr int kLanesAtOnce = kWords == 4 ? 8 : 32;
    static constexpr int kApart = 8 / (kLanesAtOnce / kInRow);
    using Bits = std::conditional_t<kWords == 4, uint4,
                                    std::conditional_t<kPiece == Tile::kPerWord, uint32_t, uint16_t>>;
    int row, element;  // of the first piece

    static __device__ __forceinline__ constexpr int row_at(int index) {  // of what is stored at once
        return index / kApart * 8 + index % kApart;
    }
    // From the first piece's row to the i-th one's.
    static __device__ __forceinline__ constexpr int rows_to(int i) {
        return row_at(i * Tile::kTeamThreads / kLanesAtOnce);
    }

    __device__ __forceinline__ Pieces() : element(threadIdx.x % kInRow * kPiece) {
        const int thread = threadIdx.x % Tile::kTeamThreads;
        row = row_at(thread / kLanesAtOnce) + thread % kLanesAtOnce / kInRow * kApart;
    }
};

// Calls with the largest pieces that every row of w starts at.
template <class Tile, class Call>
__device__ __forceinline__ void with_pieces(const Params& params, Call call) {
    if (params.w_vectors) call(Pieces<Tile, 4 * Tile::kPerWord>());
    else if (Tile::kPerWord == 1 || params.w_words) call(Pieces<Tile, Tile::kPerWord>());
    else call(Pieces<Tile, 1>());
}

// Starts to load w, from `depth_begin` on in each row.
template <class Tile>
__device__ __forceinline__ void load_w(const Params& params, const Source<typename Tile::Element>& source,
                                       int depth_begin, Chunk<typename Tile::Element>& chunk) {
    with_pieces<Tile>(params, [&](const auto& pieces) {
        using Bits = typename std::decay_t<decltype(pieces)>::Bits;
        const int32_t rows = depth_begin + pieces.element < params.depth ? source.w_rows : 0;
        const auto* w = source.w + depth_begin;
        ptx::settle(w);  // else all rows' addresses would be in registers before it is known which pieces
#pragma unroll
        for (int i = 0; i < pieces.kCount; ++i) {
            const Bits bits =
                pieces.rows_to(i) < rows ? __ldg(reinterpret_cast<const Bits*>(w)) : Bits{};
            memcpy(chunk.w + i * pieces.kWords, &bits, sizeof(bits));
            w += int64_t{pieces.rows_to(i + 1) - pieces.rows_to(i)} * params.depth;
        }
    });
}

// An operand as it lies in shared memory: TF32 rounded, ties away from zero, as cuDNN rounds; fp32 whole, to
// be split at each use.
template <class Tile>
__device__ __forceinline__ uint32_t operand(uint32_t bits) {
    if constexpr (Tile::kPerWord == 1 && !Tile::kSplit) return round_tf32(bits);
    else return bits;
}

// Puts a chunk where products read it: w[kO][kPitch], then x[kP][kPitch].
template <class Tile>
__device__ __forceinline__ void store(const Params& params, const Chunk<typename Tile::Element>& chunk,
                                      uint32_t* w_smem) {
    using Element = typename Tile::Element;
    constexpr int kPerWord = Tile::kPerWord, kPitch = Tile::kPitch;
    const int warp = threadIdx.x % Tile::kTeamThreads / 32, lane = threadIdx.x % 32;
    const int column = warp % Tile::kTeamWarpsP * Tile::kWarpP + lane % Tile::kWarpP;
    const int element =
        warp / Tile::kTeamWarpsP * Tile::kWarpElements + lane / Tile::kWarpP * kLaneElements;
    uint32_t* const x_smem = w_smem + (Tile::kO + column) * kPitch + element / kPerWord;
#pragma unroll
    for (int i = 0; i < kLaneElements / kPerWord; i += 4) {
        uint32_t word[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            if constexpr (kPerWord == 1) word[j] = operand<Tile>(__float_as_uint(chunk.x[i + j]));
            else word[j] = pack(chunk.x[2 * (i + j)], chunk.x[2 * (i + j) + 1]);
        }
        *reinterpret_cast<uint4*>(x_smem + i) = make_uint4(word[0], word[1], word[2], word[3]);
    }
    if (params.w_vectors) {
        const Pieces<Tile, 4 * kPerWord> pieces;
        uint32_t* const target = w_smem + pieces.row * kPitch + pieces.element / kPerWord;
#pragma unroll
        for (int i = 0; i < pieces.kCount; ++i) {
            *reinterpret_cast<uint4*>(target + pieces.rows_to(i) * kPitch) =
                make_uint4(operand<Tile>(chunk.w[4 * i]), operand<Tile>(chunk.w[4 * i + 1]),
                           operand<Tile>(chunk.w[4 * i + 2]), operand<Tile>(chunk.w[4 * i + 3]));
        }
    } else if (kPerWord == 1 || params.w_words) {
        const Pieces<Tile, kPerWord> pieces;
        uint32_t* const target = w_smem + pieces.row * kPitch + pieces.element / kPerWord;
#pragma unroll
        for (int i = 0; i < pieces.kCount; ++i)
            target[pieces.rows_to(i) * kPitch] = operand<Tile>(chunk.w[i]);
    } else {
        const Pieces<Tile, 1> pieces;
        uint16_t* const target =
            reinterpret_cast<uint16_t*>(w_smem) + pieces.row * 2 * kPitch + pieces.element;
#pragma unroll
        for (int i = 0; i < pieces.kCount; ++i)
            target[pieces.rows_to(i) * 2 * kPitch] = static_cast<uint16_t>(chunk.w[i]);
    }
}

// Splits fp32 numbers: leaves the high ones, of 11 significant bits, ties away from zero, and returns the low
// ones. They have 12 bits, of which the product drops the last.
__device__ __forceinline__ uint32_t split(uint32_t& bits) {
    const float value = __uint_as_float(bits);
    bits = (bits + 0x1000) & 0xFFFFE000;
    return __float_as_uint(value - __uint_as_float(bits));
}
__device__ __forceinline__ uint2 split(uint2& pair) {
    const uint32_t x = split(pair.x), y = split(pair.y);
    return make_uint2(x, y);
}
__device__ __forceinline__ uint4 split(uint4& four) {
    const uint32_t x = split(four.x), y = split(four.y), z = split(four.z), w = split(four.w);
    return make_uint4(x, y, z, w);
}

// The products of a chunk.
template <class Tile>
__device__ __forceinline__ void multiply(const uint32_t* w_smem,
                                         float (&sum)[Tile::kMTiles][Tile::kNTiles][4]) {
    using Element = typename Tile::Element;
    const int warp = threadIdx.x % Tile::kTeamThreads / 32;
    const int lane = threadIdx.x % 32;
    const uint32_t* const x_smem = w_smem + Tile::kO * Tile::kPitch;
    // As ldmatrix and mma take them, in rows of 4 words: 8 channels, 8 more, and both of the next 4 words;
    // 8 positions, the same of the next 4 words, and then 8 positions more.
    const int w_row = warp / Tile::kTeamWarpsP * Tile::kWarpO + lane % 16;
    const int x_row = warp % Tile::kTeamWarpsP * Tile::kWarpP + lane / 16 * 8 + lane % 8;
    const uint32_t w_lane = ptx::smem_address(w_smem + w_row * Tile::kPitch + lane / 16 * 4);
    const uint32_t x_lane = ptx::smem_address(x_smem + x_row * Tile::kPitch + lane / 8 % 2 * 4);
    // Two steps of split operands at once would spill registers.
    constexpr int kUnroll = Tile::kSplit ? 1 : Tile::kDepth / kMmaWords;
#pragma unroll kUnroll
    for (int step = 0; step < Tile::kDepth / kMmaWords; ++step) {
        uint4 w[Tile::kMTiles], w_low[Tile::kMTiles];
#pragma unroll
        for (int m = 0; m < Tile::kMTiles; ++m) {
            uint32_t words[4];
            ptx::ldmatrix_x4(words, w_lane + (m * 16 * Tile::kPitch + step * kMmaWords) * 4);
            w[m] = make_uint4(words[0], words[1], words[2], words[3]);
            if constexpr (Tile::kSplit) w_low[m] = split(w[m]);
        }
#pragma unroll
        for (int n = 0; n < Tile::kNTiles; n += 2) {
            uint32_t words[4];
            ptx::ldmatrix_x4(words, x_lane + (n * 8 * Tile::kPitch + step * kMmaWords) * 4);
            uint2 x[2] = {make_uint2(words[0], words[1]), make_uint2(words[2], words[3])};
            if constexpr (!Tile::kSplit) {
#pragma unroll
                for (int m = 0; m < Tile::kMTiles; ++m) {
                    ptx::mma<Element>(sum[m][n], w[m], x[0]);
                    ptx::mma<Element>(sum[m][n + 1], w[m], x[1]);
                }
            } else {
                const uint2 x_low[2] = {split(x[0]), split(x[1])};
#pragma unroll
                for (int m = 0; m < Tile::kMTiles; ++m) {
                    // Small terms first; products truncate their sum, the addition rounds to nearest.
                    float part[2][4] = {};
#pragma unroll
                    for (int j = 0; j < 2; ++j) ptx::mma<float>(part[j], w_low[m], x[j]);
#pragma unroll
                    for (int j = 0; j < 2; ++j) ptx::mma<float>(part[j], w[m], x_low[j]);
#pragma unroll
                    for (int j = 0; j < 2; ++j) ptx::mma<float>(part[j], w[m], x[j]);
#pragma unroll
                    for (int i = 0; i < 8; ++i) sum[m][n + i / 4][i % 4] += part[i / 4][i % 4];
                }
            }
        }
    }
}

// Adds the sums of a part to those of the parts before, in shared memory: [kO][kSumPitch]. Begins the next.
template <class Tile>
__device__ __forceinline__ void add_part(bool first, float (&sum)[Tile::kMTiles][Tile::kNTiles][4],
                                         float* total) {
    const int warp = threadIdx.x % Tile::kTeamThreads / 32;
    const int lane = threadIdx.x % 32;
    const int row = warp / Tile::kTeamWarpsP * Tile::kWarpO + lane / 4;
    const int column = warp % Tile::kTeamWarpsP * Tile::kWarpP + lane % 4 * 2;
#pragma unroll
    for (int m = 0; m < 2 * Tile::kMTiles; ++m) {
        auto* const targets = reinterpret_cast<float2*>(total + (row + m * 8) * Tile::kSumPitch + column);
#pragma unroll
        for (int n = 0; n < Tile::kNTiles; ++n) {
            float (&fragment)[4] = sum[m / 2][n];
            float2 part = make_float2(fragment[m % 2 * 2], fragment[m % 2 * 2 + 1]);
            if (!first) part = make_float2(targets[4 * n].x + part.x, targets[4 * n].y + part.y);
            targets[4 * n] = part;
            fragment[m % 2 * 2] = fragment[m % 2 * 2 + 1] = 0;
        }
    }
}

#endif  // sm_80

template <class Tile>
__global__ void __launch_bounds__(Tile::kMaxThreads, Tile::kBlocks)
    small_sm80_forward_kernel(const __grid_constant__ Params params) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    using Element = typename Tile::Element;
    extern __shared__ __align__(16) unsigned char smem[];  // [teams]{operands, sums}, [warps]{table}
    const Problem& problem = params.problem;
    const int lane = threadIdx.x % 32;
    // Through a shuffle, so that the compiler knows they are the same in the whole warp.
    const int block_warp = __shfl_sync(0xFFFFFFFF, static_cast<int>(threadIdx.x / 32), 0);
    const int team = Tile::kMaxTeams == 1 ? 0 : block_warp / Tile::kTeamWarps;
    const int warp = block_warp - team * Tile::kTeamWarps;  // of the team
    const int teams = Tile::kMaxTeams == 1 ? 1 : params.teams;
    float* const totals = reinterpret_cast<float*>(smem) + Tile::kStages * Tile::kStageWords;
    uint32_t* const team_smem = reinterpret_cast<uint32_t*>(smem) + team * Tile::kTeamWords;
    Entry* const table = reinterpret_cast<Entry*>(smem + teams * Tile::kTeamWords * 4) +
                         threadIdx.x / 32 * Tile::kWarpElements;

    const uint32_t rest = params.o_tiles.quotient(blockIdx.x), p_tile = params.groups.quotient(rest);
    const int64_t g = rest - p_tile * params.groups.divisor;
    const int64_t o_begin = int64_t{blockIdx.x - rest * params.o_tiles.divisor} * Tile::kO;
    const int lane_column = warp % Tile::kTeamWarpsP * Tile::kWarpP + lane % Tile::kWarpP;
    const int64_t position = int64_t{p_tile} * Tile::kP + lane_column;
    const int64_t n = params.samples.quotient(position), p = position - n * params.samples.row.divisor;

    Source<Element> source;
    const int64_t l = p * problem.stride - problem.pad_left;
    source.l = n < problem.N ? static_cast<int32_t>(l) : kFarAway;
    source.x = static_cast<const Element*>(problem.x) + n * problem.x_stride_n +
               g * problem.C * problem.x_stride_c + l * problem.x_stride_l;
    const int32_t outputs = static_cast<int32_t>(min(problem.O - o_begin, int64_t{Tile::kO}));
    with_pieces<Tile>(params, [&](const auto& pieces) {
        source.w = static_cast<const Element*>(problem.w) +
                   (g * problem.O + o_begin + pieces.row) * params.depth + pieces.element;
        source.w_rows = outputs - pieces.row;
    });
    ptx::settle(source.x);  // else each element's address would be computed from problem.x anew

    constexpr bool kEarlyBias = !Tile::kSplit && Tile::kTeamWarps == 1;
    const int warp_o = warp / Tile::kTeamWarpsP * Tile::kWarpO;
    const int64_t channel = g * problem.O + o_begin + warp_o;
    const Element* const bias = static_cast<const Element*>(problem.bias) + channel;
    const auto load_bias = [&] {
        return problem.bias != nullptr && warp_o + lane < outputs ? bias[lane] : Element{};
    };
    Element lane_bias{};
    if constexpr (kEarlyBias) lane_bias = load_bias();
    Element* const y =
        static_cast<Element*>(problem.y) + (n * problem.G * problem.O + channel) * problem.P + p;

    float sum[Tile::kMTiles][Tile::kNTiles][4] = {};
    Chunk<Element> chunk;
    uint32_t* operands = team_smem;
    const int begin = team * params.part_chunks;
    const int end = teams == 1 ? params.chunks : min(begin + params.part_chunks, params.chunks);
    int part_left = params.part_chunks;
    // Loads of a chunk pass behind products of the one before. One more round multiplies the last.
#pragma unroll 1
    for (int index = begin; index <= end; ++index) {
        const bool loads = index < end;
        if (loads) {
            const int depth_begin = index * Tile::kElements;
            load_w<Tile>(params, source, depth_begin, chunk);
            const int r_begin = depth_begin + warp / Tile::kTeamWarpsP * Tile::kWarpElements;
            load_x<Tile>(params, source, r_begin, table, chunk);
        }
        if (index > begin) {
            multiply<Tile>(operands, sum);
            if (--part_left == 0 || !loads) {
                part_left = params.part_chunks;
                const bool first = index - params.part_chunks <= begin;
                add_part<Tile>(first, sum, totals + team * Tile::kTeamWords);
            }
        }
        if (loads) {
            if constexpr (Tile::kStages == 1) sync_team<Tile>();  // the chunk before has been read
            else operands = team_smem + (index & 1) * Tile::kStageWords;
            store<Tile>(params, chunk, operands);
            sync_team<Tile>();
        }
    }
    if constexpr (!kEarlyBias) lane_bias = load_bias();
    __syncthreads();

    const int rows = min(outputs - warp_o, Tile::kWarpO);
    const int lane_row = lane / Tile::kWarpP;
    const float* const column = totals + warp_o * Tile::kSumPitch + lane_column;
    Soundness soundness;
    const auto write = [&](auto activated) {
        constexpr int kUnroll = decltype(activated)::value ? 1 : 8;
        Element* target = y + (team * Tile::kLaneRows + lane_row) * problem.P;
        const int64_t step = int64_t{teams} * Tile::kLaneRows * problem.P;
#pragma unroll kUnroll
        for (int begin = team * Tile::kLaneRows; begin < rows; begin += teams * Tile::kLaneRows) {
            const int row = begin + lane_row;
            float total = column[row * Tile::kSumPitch];
            if (teams > 1) {
#pragma unroll
                for (int i = 1; i < Tile::kMaxTeams; ++i) {
                    if (i < teams) total += column[i * Tile::kTeamWords + row * Tile::kSumPitch];
                }
            }
            total += __shfl_sync(0xFFFFFFFF, widen(lane_bias), row);
            const bool exists = source.l != kFarAway && row < rows;
            if constexpr (Tile::kSplit) soundness.add(exists ? total : 1.0f);
            // Without a branch: one for each row would cost as much as all else here.
            const Element value = finish<Element, decltype(activated)::value>(problem, total);
            if (exists) *target = value;
            target += step;
        }
    };
    if (problem.activation == Activation::none) write(std::false_type{});
    else write(std::true_type{});

    if constexpr (Tile::kSplit) {
        if (soundness.holds()) return;
#pragma unroll 1
        for (int row = team * Tile::kLaneRows + lane_row; row < rows; row += teams * Tile::kLaneRows) {
            float* const value = y + row * problem.P;
            if (is_sound(*value)) continue;
            // Where it lies says which it is: indices kept until here would cost registers.
            const int64_t index = value - static_cast<float*>(problem.y);
            const int64_t line = index / problem.P, group = line / problem.O;
            *value = finish_exactly(problem, group / problem.G, group % problem.G, line % problem.O,
                                    index % problem.P);
        }
    }
#endif
}

template <class Tile>
Params plan(const Problem& problem) {
    using Element = typename Tile::Element;
    Params params{};
    params.problem = problem;
    const int64_t depth = problem.C * problem.K;
    const auto starts_at = [&](int64_t elements) {  // multiples of so many elements
        const int64_t bytes = elements * static_cast<int64_t>(sizeof(Element));
        return depth % elements == 0 && reinterpret_cast<uintptr_t>(problem.w) % bytes == 0;
    };
    params.w_vectors = starts_at(4 * Tile::kPerWord);
    params.w_words = starts_at(Tile::kPerWord);
    params.taps = plan_divisor(problem.K);
    params.depth = static_cast<int32_t>(depth);
    params.chunks = static_cast<int32_t>(ceil_div(depth, Tile::kElements));
    params.part_chunks = static_cast<int32_t>(part_depth(problem) / Tile::kElements);
    const int64_t parts = ceil_div(params.chunks, params.part_chunks);
    const bool share = parts <= Tile::kMaxTeams && parts * Tile::kTeamBytes <= problem.device.smem_bytes;
    params.teams = share ? static_cast<int32_t>(parts) : 1;
    params.o_tiles = plan_index_divisor(ceil_div(problem.O, Tile::kO));
    params.groups = plan_index_divisor(problem.G);
    params.samples = plan_sample_divisor(problem.N, problem.P);
    params.blocks = params.o_tiles.divisor * problem.G * ceil_div(problem.N * problem.P, Tile::kP);
    return params;
}

template <class Tile>
Error launch(const Problem& problem, cudaStream_t stream) {
    const Params params = plan<Tile>(problem);
    const auto blocks = static_cast<unsigned>(params.blocks);
    const Error error = allow_smem<small_sm80_forward_kernel<Tile>>(problem.device);
    if (error != nullptr) return error;
    small_sm80_forward_kernel<Tile>
        <<<blocks, Tile::kTeamThreads * params.teams, Tile::kTeamBytes * params.teams, stream>>>(params);
    return launch_error();
}

// Takes the tile that suits, of those that give the same bits, by how 825 random layers ran in each mode with
// all of them: a warp a part as long as few run (16 x 16 outputs) or tiles are few (32 x 32), which two parts
// do not pay for; large tiles from one and a half a multiprocessor on, where at most a quarter of them is
// empty for it (24x300x493 to 356, K5 s4 g4: 29 us, not 44).
template <class Element, bool kSplit>
Error launch_tiles(const Problem& problem, cudaStream_t stream) {
    const int64_t sms = problem.device.sm_count;
    const auto tiles_of = [&](int64_t side) {
        return problem.G * ceil_div(problem.O, side) * ceil_div(problem.N * problem.P, side);
    };
    const int64_t parts = ceil_div(problem.C * problem.K, part_depth(problem));
    if (parts > 1 && tiles_of(16) * parts <= 20 * sms)
        return launch<Tile<Element, kSplit, 16, 16, 1, 1>>(problem, stream);
    if (parts > 3 && tiles_of(32) <= 4 * sms)
        return launch<Tile<Element, kSplit, 32, 32, 1, 1>>(problem, stream);
    const bool fills_large = 3 * round_up(problem.O, 64) <= 4 * round_up(problem.O, 32);
    if (fills_large && 2 * tiles_of(64) >= 3 * sms)
        return launch<Tile<Element, kSplit, 32, 32, 2, 2>>(problem, stream);
    return launch<Tile<Element, kSplit, 32, 16, 1, 2>>(problem, stream);
}

}  // namespace small

// Few products of one sample: how many samples there are must not decide. On Hopper the bounds are those of
// some 1,000 random layers of 1 to 64 samples in each mode: a sample with few outputs, or with few products
// for few tiles. Deep sums of one sample gain most (us by this route and by gemm_sm90, TF32: 1x988x87 to 368,
// K1 9.9, 37; 1x293x721 to 17, K1 7, 14; 1x51x1336 to 178, K8 s8 6.8, 21), those of many samples lose
// (49x756x86 to 138, K13 s3 122, 70; 61x164x34 to 940, K28 76, 58). Few outputs of rows that fill blocks by
// themselves are worst in many samples (tcn_d64, 64 samples, TF32: 43 and 23), but not with short rows (fp32,
// 2x62x69 to 9, K70: 19 and 74) or short sums (4x27x127186 to 24, K2: 32 and 50). Long rows that sliding_sm90
// takes (1 and 16 samples of 29x3592 to 43, K3, fp32 8.5 and 48, by that 17 and 26) and what stream_sm90
// takes (16 and 128 of 64x200 to 64, K3, TF32 9 and 22, by that 12 and 17) are left to them sooner.
inline bool is_small(const Problem& problem) {
    const double outputs =
        static_cast<double>(problem.G * round_up(problem.O, 32)) * static_cast<double>(problem.P);
    const double products = outputs * static_cast<double>(problem.C * problem.K);
    const bool hopper = problem.device.arch == 90, fills_rows = problem.P > 512;
    const bool fills_gemm =
        problem.O <= 32 && problem.G == 1 && fills_rows && problem.C * problem.K >= 128;
    const bool slides = hopper && problem.O > 32 && fills_rows && (problem.K == 3 || problem.K == 5) &&
                        problem.stride == 1 && problem.dilation == 1;
    const bool streams = hopper && problem.G == 1 && (problem.K == 2 || problem.K == 3) && problem.C > 32 &&
                         problem.C <= 64 && problem.O > 32 && problem.O <= 128;
    if (slides || streams) return products <= 4e6;
    if (!hopper) return products <= (fills_gemm ? 4e6 : 30e6);
    const bool is_half = element_bytes(problem.dtype) == 2;
    const bool is_ieee = !is_half && problem.precision == Precision::ieee;
    // Rows of whole 16 bytes for one tap pointwise_sm90 takes. Others are gathered once (us by this and by
    // gemm_sm90: 2x282x117 to 807, TF32 9.7, 15; 15x436x1265 to 17, fp32 27, 43; but 45x656x1506 to 304, K1
    // g16, TF32 154, 104). fp32 costs three products.
    const bool points = problem.K == 1 && problem.stride == 1 &&
                        problem.P * element_bytes(problem.dtype) % 16 == 0;
    if (problem.K == 1 && !points)
        return products <= (is_ieee ? (problem.O <= 32 ? 130e6 : 45e6) : 28e6);
    if (fills_gemm) return products <= (problem.K > 1 ? 4e6 : is_ieee ? 24e6 : 18e6);
    if (outputs <= 30000 && products <= (is_half ? 30e6 : 45e6)) return true;
    if (is_ieee && !points) return products <= 30e6;
    const int64_t tiles = problem.G * ceil_div(problem.O, 64) * ceil_div(problem.P, 64);
    return tiles <= (points ? 32 : 64) && products <= (is_half ? 8.4e6 : 13e6);
}

// fp32, fp16 and bf16 from sm_80 on, 16 input channels a group and more.
inline bool fits_small_sm80(const Problem& any_problem) {
    const Problem problem = canonical(any_problem);
    if (problem.dtype == Dtype::float64 || problem.device.arch < 80 || problem.C < 16 || problem.O < 8)
        return false;
    // Positions of x, and what one sample's group spans, are counted in 32 bits.
    const int64_t reach = problem.K * problem.dilation;
    constexpr int64_t kMost = small::kMostPositions;
    const bool counts = problem.L < kMost && problem.P < kMost && problem.stride < kMost &&
                        problem.P * problem.stride < kMost && problem.dilation < kMost && reach < kMost &&
                        problem.pad_left < kMost && problem.x_stride_c < kMost &&
                        problem.x_stride_l < kMost && problem.K < kMost && problem.C < kMost &&
                        problem.C * problem.x_stride_c + reach * problem.x_stride_l < kMost &&
                        problem.C * problem.K * problem.K < (int64_t{1} << 31);
    const int64_t blocks = problem.G * ceil_div(problem.O, 16) * ceil_div(problem.N * problem.P, 16);
    return counts && blocks <= kMaxBlocks && is_small(problem);
}

inline Error launch_small_sm80(const Problem& any_problem, cudaStream_t stream) {
    const Problem problem = canonical(any_problem);
    switch (problem.dtype) {
        case Dtype::float16:
            return small::launch_tiles<__half, false>(problem, stream);
        case Dtype::bfloat16:
            return small::launch_tiles<__nv_bfloat16, false>(problem, stream);
        default:
            if (problem.precision == Precision::tf32)
                return small::launch_tiles<float, false>(problem, stream);
            return small::launch_tiles<float, true>(problem, stream);
    }
}

}  // namespace conv1d
''',
"small.cu": r'''
#line 1 "kernels/small.cu"
// The translation unit of route "small_sm80".



const conv1d::Route conv1d::kSmallSm80 = {"small_sm80", fits_small_sm80, no_workspace, launch_small_sm80};
''',
"stem.cuh": r'''
#line 1 "kernels/stem.cuh"
// Short sums of few channels on tensor cores, sm_80 and later, bound by the stores of y: TF32, fp16, bf16,
// and fp32 at full accuracy as three products of fp16 parts. Stems of audio and genome models.
//
// Operands are as in fold.cuh: D[channel][position] by mma.sync, depth the folded (channel, tap) index in
// words of 4 bytes. A block has some channels and a span of positions. Its weights lie in shared memory as
// products read them, x as [row of words][l mod stride][l / stride]: a tap of any stride and dilation is a
// shift. Columns of products are dealt so that a lane holds 16 bytes of a row of y.
//
// A warp's job is 16 channels by 512 bytes of their rows, staged and stored by one bulk copy a row. The warps
// of a block, and then blocks, have neighbouring pieces of the same rows: stores are the faster the longer
// their pieces are and the fewer rows are written at once. Where sums are long, shared memory binds instead:
// then a job is 32 channels, whose products share x in registers, and is stored from there.
//
// Channels of a job are `classes` apart, so that their rows of y begin alike within a sector of 32 bytes, and
// positions count from there: all stores but the ends of rows fill whole sectors.

#include <algorithm>
#include <cstring>
#include <numeric>
#include <type_traits>






namespace conv1d {
namespace stem {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kMmaWords = 8;      // depth of one product
constexpr int kMTileO = 16;       // output channels of one product
constexpr int kPieceBytes = 512;  // of a row of y, of a job
constexpr int kStagedBytes = kWarps * kMTileO * kPieceBytes;
constexpr int kMostTiles = 12;    // of 16 channels, of a block
constexpr int kMostPieces = 8;    // of rows, of a block; x is brought for each block
constexpr int kLongPieces = 4;    // likewise, of long sums: their stores need what is left as L1 cache
constexpr int kLongRowPieces = 16;  // from which a row is long enough for them
constexpr int kSetOutJobs = 6;    // that a warp does in the time that setting out takes
constexpr int kSectorBytes = 32;
constexpr int kMaxWords = 80;     // of depth
constexpr int kBlocks = 2;        // that share a multiprocessor of 228 KB
// Likewise, and its registers. With two, ptxas for sm_100 and later spills some.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int kLaunchBlocks = 1;
#else
constexpr int kLaunchBlocks = kBlocks;
#endif

// kSplit: each fp32 operand is two fp16 numbers, scaled by a power of two: high + low / 2^11.
template <class Element_, bool kSplit_>
struct Tile {
    using Element = Element_;
    using Operand = std::conditional_t<kSplit_, __half, Element_>;  // of products
    static constexpr bool kSplit = kSplit_;
    static constexpr int kParts = kSplit ? 2 : 1;
    static constexpr int kPerWord = 4 / sizeof(Operand);
    static constexpr int kVector = 16 / sizeof(Element);  // positions that a lane stages at once
    static constexpr int kNTiles = kVector / 2;           // of 8 positions, whose columns that takes
    static constexpr int kGroup = 8 * kNTiles;            // positions: 64 bytes of a row of y
    static constexpr int kChunk = 2 * kGroup;
    static constexpr int kPiece = kPieceBytes / sizeof(Element);
    static constexpr int kBatch = kSplit ? 8 : kPerWord == 1 ? 11 : 14;  // words in flight, of a thread
    static constexpr int kBlockTiles = kSplit ? kMostTiles : 8;  // of 16 channels, of a block, at most
    static constexpr int kMaxSteps = kPerWord == 1 ? 10 : 5;     // products in the depth
    static constexpr int kLongSteps = kPerWord == 1 ? 8 : 5;     // likewise, where a job is 32 channels

    // For so many the kernel has code.
    static constexpr int round_steps(int64_t steps) {
        for (const int held : {1, 2, 4, kLongSteps})
            if (steps <= held) return held;
        return kMaxSteps;
    }
};

struct Params {
    Problem problem;
    bool tap_pairs;       // a word is two taps of one channel, not two channels of one tap
    int32_t rows;         // of words in shared memory
    int32_t words;        // of depth
    Divisor row_words;    // K, or K / 2 for tap pairs, whose last tap, where K is odd, has row 1 for itself
    int32_t steps;        // products in the depth
    Divisor stride;
    Divisor positions;    // of x, that a block reads
    int32_t plane_slots;  // of one row and one residue of l modulo the stride
    int32_t x_slots;      // of one part of x
    int32_t zeros;        // behind them, as many as a job has positions: for what the last step lacks
    int32_t part_slots;   // from one part to the next
    int32_t second_rows;  // that have a second element in their words
    int32_t row_bytes, l_bytes, second_bytes;  // in x, from row to row, position to position, to the second
    int32_t align;        // elements that phases count to
    int32_t classes;      // from a job's channel to its next
    int64_t row_step;     // likewise, in elements of y
    int32_t m_tiles;      // of 16 channels, of a job
    int32_t tiles;        // of a job's channels, of a group
    int32_t block_tiles;  // likewise, of a block
    int32_t span;         // positions of a block
    Divisor pieces;       // of 512 bytes of a row, of a block
    int32_t p_step;       // where a job is 32 channels, from its chunk to its next: others have those between
    int32_t p_blocks, o_blocks;
    int32_t replicas;     // blocks that share the places of some channels
    int32_t staged_bytes, smem_bytes;
    int64_t blocks;

    // Which of a channel's weights a word of the depth holds, -1 for none.
    template <int kPerWord>
    __device__ __forceinline__ int2 elements_of(int word) const {
        if (word >= words) return int2{-1, -1};
        if (kPerWord == 1) return int2{word, -1};
        const int K = static_cast<int>(problem.K);
        if (tap_pairs) return int2{2 * word, 2 * word + 1 < K ? 2 * word + 1 : -1};
        const int row = row_words.quotient(word), first = word + row * K;
        return int2{first, 2 * row + 1 < problem.C ? first + K : -1};
    }
    // Where x of a word of the depth lies for position 0, and whether it moves along with positions: what
    // the last step lacks is zeros.
    __device__ __forceinline__ int2 slot_of(int word) const {
        if (word >= words) return int2{x_slots, 0};
        const uint32_t row = row_words.quotient(word);
        const uint32_t tap = tap_pairs ? 2 * word : word - row * row_words.divisor;
        const uint32_t offset = tap * static_cast<uint32_t>(problem.dilation);
        const uint32_t shift = stride.quotient(offset);
        return int2{static_cast<int>(((row - shift) * stride.divisor + offset) * plane_slots + shift), -1};
    }
};

struct WarpRanges {
    uint2 of[kWarps];
};

// The channels of a job.
struct Rows {
    void* y;        // of the first one
    int32_t o;      // the first one
    int32_t count;  // that exist
    int32_t phase;  // how far behind a sector their rows of y begin
};

// What a block keeps beside weights, x and y.
struct alignas(16) Tables {
    WarpRanges ranges;
    int2 slots[kMaxWords];
    int2 elements[kMaxWords];
    float2 finish[kMostTiles * kMTileO];  // {factor, bias} of a row's sums
    Rows rows[kMostTiles];                // of each tile
    int32_t suit[kMostTiles];             // whether their weights are sums of two parts
    float x_unscale;                      // 0 where x is not
};

// Shared memory of a block, as a warp sees it.
struct Shared {
    unsigned char* staged;  // what it stores next, 16 rows of 512 bytes
    Tables* tables;
    uint4* weights;  // [tile of 16 channels][step][part][lane]
    uint32_t* x;     // [part], each [row of words][l mod stride][l / stride] and zeros
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

// An operand's high and low part, of a value already scaled.
struct Parts {
    __half high, low;
};
__device__ __forceinline__ Parts split(float value) {
    const __half high = __float2half_rn(value);
    return {high, __float2half_rn((value - __half2float(high)) * 2048.0f)};
}

template <class Element>
__device__ __forceinline__ uint32_t pack(Element first, Element second) {
    const Element pair[2] = {first, second};
    uint32_t bits;
    memcpy(&bits, pair, 4);
    return bits;
}

// Words of products from elements: {high, low} where they are split, else the first alone.
template <class Tile>
__device__ __forceinline__ uint2 operand_words(const typename Tile::Element (&value)[Tile::kPerWord],
                                               float scale) {
    if constexpr (Tile::kSplit) {
        const Parts first = split(value[0] * scale), second = split(value[1] * scale);
        return make_uint2(pack(first.high, second.high), pack(first.low, second.low));
    } else if constexpr (Tile::kPerWord == 2) {
        return make_uint2(pack(value[0], value[1]), 0);
    } else {
        return make_uint2(round_tf32(__float_as_uint(value[0])), 0);
    }
}

// The largest and the smallest magnitude but zero among fp32 operands, as bits.
constexpr uint32_t kInfinity = 0x7F800000;
struct Range {
    uint32_t largest, smallest;

    __device__ __forceinline__ void add(float value) {
        const uint32_t bits = __float_as_uint(value) & 0x7FFFFFFF;
        largest = max(largest, bits);
        smallest = min(smallest, bits == 0 ? smallest : bits);
    }
    // Whether two fp16 numbers hold 22 bits of each operand, once the largest is scaled to 2^14..2^15.
    __device__ __forceinline__ bool suits() const {
        const int high = largest >> 23, low = smallest >> 23;
        return largest == 0 || (high <= 127 + 60 && high >= 127 - 40 && high - low <= 26);
    }
    __device__ __forceinline__ float scale() const {
        return largest == 0 ? 1.0f : __uint_as_float((127 + 14 + 127 - (largest >> 23)) << 23);
    }
    __device__ __forceinline__ float unscale() const {
        return largest == 0 ? 1.0f : __uint_as_float(((largest >> 23) - 14) << 23);
    }
};

// Calls use(slot, value) for the words of x that a block reads, zeros outside 0 <= l < L.
template <class Tile, class Use>
__device__ __forceinline__ void for_words(const Params& params, const typename Tile::Element* x,
                                          int64_t l_begin, Use use) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const uint32_t positions = params.positions.divisor, items = params.rows * positions;
    // Where a row of x begins and ends, counted from l_begin; how far on the second element of a word lies.
    constexpr int64_t kMost = 1 << 30;
    const int row_begin = static_cast<int>(min(max(-l_begin, -kMost), kMost));
    const int row_end = static_cast<int>(min(max(problem.L - l_begin, -kMost), kMost));
    const uint32_t inside = max(row_end - row_begin, 0);
    const int lag = params.tap_pairs ? static_cast<int>(problem.dilation) : 0;
    const auto* const bytes = reinterpret_cast<const unsigned char*>(x + l_begin * problem.x_stride_l);
#pragma unroll 1
    for (uint32_t begin = ptx::anew(threadIdx.x); begin < items; begin += Tile::kBatch * kThreads) {
        // Set here, or the compiler would carry what a break leaves unset around the loop, and spill.
        Element value[Tile::kBatch][Tile::kPerWord] = {};
        uint32_t slot[Tile::kBatch] = {};
        const uint32_t left = items - begin / kThreads * kThreads;
#pragma unroll
        for (int i = 0; i < Tile::kBatch; ++i) {
            if (i * kThreads >= left) break;
            const uint32_t item = begin + i * kThreads;
            const int row = params.positions.quotient(item);
            const int offset = item - row * positions;
            const uint32_t shift = params.stride.quotient(offset);
            slot[i] = ((row - shift) * params.stride.divisor + offset) * params.plane_slots + shift;
            const auto* const source =
                reinterpret_cast<const Element*>(bytes + (row * params.row_bytes + offset * params.l_bytes));
            const bool exists = item < items;
            value[i][0] = exists && static_cast<uint32_t>(offset - row_begin) < inside ? *source : Element{};
            if constexpr (Tile::kPerWord == 2) {
                const auto* const second = reinterpret_cast<const Element*>(
                    reinterpret_cast<const unsigned char*>(source) + params.second_bytes);
                const bool has_second = exists && row < params.second_rows &&
                                        static_cast<uint32_t>(offset + lag - row_begin) < inside;
                value[i][1] = has_second ? *second : Element{};
            }
        }
#pragma unroll
        for (int i = 0; i < Tile::kBatch; ++i) {
            if (i * kThreads >= left) break;
            if (begin + i * kThreads < items) use(slot[i], value[i]);
        }
    }
}

// The range of what all threads have seen.
__device__ __forceinline__ Range block_range(Range range, WarpRanges& warps_smem) {
    range.largest = __reduce_max_sync(0xFFFFFFFF, range.largest);
    range.smallest = __reduce_min_sync(0xFFFFFFFF, range.smallest);
    if (threadIdx.x % 32 == 0) warps_smem.of[threadIdx.x / 32] = make_uint2(range.largest, range.smallest);
    __syncthreads();
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) {
        range.largest = max(range.largest, warps_smem.of[warp].x);
        range.smallest = min(range.smallest, warps_smem.of[warp].y);
    }
    return range;
}

// The first channel of the group's `tile`th job, whose channels are `classes` apart.
__device__ __forceinline__ int first_channel(const Params& params, int tile) {
    const int before = tile / params.classes;
    return tile + before * (params.m_tiles * kMTileO - 1) * params.classes;
}

// One warp: the operands A of 16 channels from o_begin on, in the order in which lanes hold them, as
// [step][part][lane], and what becomes of the channels' sums. Returns whether they have two parts.
template <class Tile>
__device__ __forceinline__ bool load_weights(const Params& params, int64_t g, int o_begin,
                                             const int2* elements_smem, uint4* weights_smem,
                                             float2* finish_smem) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int lane = threadIdx.x % 32;
    const int K = static_cast<int>(problem.K);
    const int row_elements = static_cast<int>(problem.C) * K;
    const Element* const w = static_cast<const Element*>(problem.w) + g * problem.O * row_elements;
    int row_offset[2];  // channels past the last have its weights, and go nowhere
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = half * 8 + lane / 4;
        const int64_t o = min(int64_t{o_begin + row * params.classes}, problem.O - 1);
        row_offset[half] = static_cast<int>(o) * row_elements;
        if (lane % 4 == 0) {
            const Element* const bias = static_cast<const Element*>(problem.bias) + g * problem.O + o;
            finish_smem[row] = make_float2(1.0f, problem.bias != nullptr ? widen(*bias) : 0.0f);
        }
    }
    // Words of step i / 4: rows lane / 4 and that + 8, word lane % 4 of the step and that + 4.
    Element value[4 * Tile::kMaxSteps][Tile::kPerWord];
#pragma unroll
    for (int i = 0; i < 4 * Tile::kMaxSteps; ++i) {
        const int2 element = elements_smem[i / 2 * 4 + lane % 4];
        const Element* const row = w + row_offset[i % 2];
        value[i][0] = element.x >= 0 ? row[element.x] : Element{};
        if constexpr (Tile::kPerWord == 2) value[i][1] = element.y >= 0 ? row[element.y] : Element{};
    }
    bool suit = true;
    float scale[2] = {};
    if constexpr (Tile::kSplit) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            Range range = {0, kInfinity};
#pragma unroll
            for (int i = half; i < 4 * Tile::kMaxSteps; i += 2) {
                range.add(value[i][0]);
                range.add(value[i][1]);
            }
#pragma unroll
            for (int other = 1; other < 4; other *= 2) {
                range.largest = max(range.largest, __shfl_xor_sync(0xFFFFFFFF, range.largest, other));
                range.smallest = min(range.smallest, __shfl_xor_sync(0xFFFFFFFF, range.smallest, other));
            }
            suit = suit && range.suits();
            scale[half] = range.scale();
            if (lane % 4 == 0) finish_smem[half * 8 + lane / 4].x = range.unscale();
        }
        suit = __all_sync(0xFFFFFFFF, suit);
    }
#pragma unroll
    for (int step = 0; step < Tile::kMaxSteps; ++step) {
        if (step >= params.steps) break;
        uint2 word[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) word[i] = operand_words<Tile>(value[4 * step + i], scale[i % 2]);
        uint4* const target = weights_smem + step * Tile::kParts * 32 + lane;
        target[0] = make_uint4(word[0].x, word[1].x, word[2].x, word[3].x);
        if constexpr (Tile::kSplit) target[32] = make_uint4(word[0].y, word[1].y, word[2].y, word[3].y);
    }
    return suit;
}

// A piece of the rows of some channels, `classes` apart.
template <class Element>
struct Piece {
    Element* y;      // of the first channel, at the first position
    int rows;        // channels that exist
    int begin, end;  // positions that exist
};

// Two neighbours of a row of y, rounded.
template <class Element>
__device__ __forceinline__ uint32_t round_pair(float first, float second) {
    return pack(narrow<Element>(first), narrow<Element>(second));
}

// A lane's 16 bytes of rows lane / 4 + 8 * i, of the group of a piece from p on: y is where the first goes.
template <int kCount, class Element>
__device__ __forceinline__ void store_vectors(const Params& params, const Piece<Element>& piece, int p,
                                              const uint4 (&vectors)[kCount], Element* y) {
    constexpr int kVector = 16 / sizeof(Element);
    const int lane = ptx::anew(threadIdx.x % 32), row = lane / 4, column = p + lane % 4 * kVector;
    if (p >= piece.begin && p + 4 * kVector <= piece.end && piece.rows == 8 * kCount) {
#pragma unroll
        for (int i = 0; i < kCount; ++i) ptx::st_global(y + i * 8 * params.row_step, vectors[i]);
        return;
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
        Element elements[kVector];
        memcpy(elements, &vectors[i], 16);
#pragma unroll
        for (int j = 0; j < kVector; ++j) {
            const bool exists = column + j >= piece.begin && column + j < piece.end;
            if (exists && row + 8 * i < piece.rows) y[i * 8 * params.row_step + j] = elements[j];
        }
    }
}

// One warp: the sums of a tile of kMTiles * 16 channels, by a piece from `at` on in the block. Those of 16
// channels are staged, 512 bytes a row; those of 32 go to y, 64 bytes of a row at a time.
template <class Tile, int kSteps, int kMTiles>
__device__ __forceinline__ void multiply(const Params& params, const Shared& shared,
                                         const Piece<typename Tile::Element>& piece, int tile, int at) {
    using Element = typename Tile::Element;
    using Operand = typename Tile::Operand;
    constexpr int kGroups = kMTiles == 1 ? 2 : 1;  // whose sums are held at once
    const int p_step = kMTiles == 1 ? Tile::kChunk : params.p_step;
    const int lane = ptx::anew(threadIdx.x % 32);
    const Tables& tables = *shared.tables;
    const uint4* const tile_weights = shared.weights + tile * kMTiles * kSteps * Tile::kParts * 32 + lane;
    const int position = at + params.align - 1 - tables.rows[tile].phase;
    uint4 weights[kSteps][kMTiles][Tile::kParts];
    const uint32_t* x[kSteps][2];  // where this lane's words of operand B lie for the first column
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
#pragma unroll
        for (int i = 0; i < kMTiles * Tile::kParts; ++i) {
            const int m = i / Tile::kParts, part = i % Tile::kParts;
            weights[step][m][part] = tile_weights[((m * kSteps + step) * Tile::kParts + part) * 32];
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int2 slot = tables.slots[step * kMmaWords + i * 4 + lane % 4];
            x[step][i] = shared.x + slot.x + (slot.y & position) + lane / 4 * Tile::kNTiles;
        }
    }
    float2 finish[2 * kMTiles];
#pragma unroll
    for (int i = 0; i < 2 * kMTiles; ++i) {
        finish[i] = tables.finish[tile * kMTiles * kMTileO + lane / 4 + 8 * i];
        if constexpr (Tile::kSplit) finish[i].x *= tables.x_unscale;
    }
    // Neighbouring rows lie in the same banks: odd ones stage their second group first.
    const bool is_odd = lane / 4 % 2 != 0;
    uint32_t target = ptx::smem_address(shared.staged) + lane / 4 * kPieceBytes + lane % 4 * 16;
    Element* y = piece.y + lane / 4 * params.row_step + lane % 4 * Tile::kVector;
#pragma unroll 1
    for (int p = 0; p < piece.end; p += p_step) {
#pragma unroll
        for (int held = 0; held < 2; held += kGroups) {
            float sum[kGroups][kMTiles][Tile::kNTiles][4] = {};
            float cross[kGroups][kMTiles][Tile::kNTiles][4] = {};
#pragma unroll
            for (int step = 0; step < kSteps; ++step) {
#pragma unroll
                for (int i = 0; i < kGroups * Tile::kNTiles; ++i) {
                    const int group = i / Tile::kNTiles, n = i % Tile::kNTiles;
                    const int column = (held + group) * Tile::kGroup + n;
                    const uint2 x_frag = make_uint2(x[step][0][column], x[step][1][column]);
                    uint2 x_low = make_uint2(0, 0);
                    if constexpr (Tile::kSplit) {
                        const uint32_t* const low[2] = {x[step][0] + params.part_slots,
                                                        x[step][1] + params.part_slots};
                        x_low = make_uint2(low[0][column], low[1][column]);
                    }
#pragma unroll
                    for (int m = 0; m < kMTiles; ++m) {
                        ptx::mma<Operand>(sum[group][m][n], weights[step][m][0], x_frag);
                        if constexpr (Tile::kSplit) {
                            ptx::mma<Operand>(cross[group][m][n], weights[step][m][0], x_low);
                            ptx::mma<Operand>(cross[group][m][n], weights[step][m][1], x_frag);
                        }
                    }
                }
            }
            uint4 out[kGroups][2 * kMTiles];
#pragma unroll
            for (int i = 0; i < kGroups * 2 * kMTiles; ++i) {
                const int group = i / (2 * kMTiles), half = i % (2 * kMTiles);
                const auto total = [&](int column) {
                    const int n = column % Tile::kNTiles, part = half % 2 * 2 + column / Tile::kNTiles;
                    float value = sum[group][half / 2][n][part];
                    if constexpr (Tile::kSplit)
                        value = (value + cross[group][half / 2][n][part] * (1.0f / 2048)) * finish[half].x;
                    return value + finish[half].y;
                };
                uint32_t word[4];
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    if constexpr (sizeof(Element) == 4) word[j] = __float_as_uint(total(j));
                    else word[j] = round_pair<Element>(total(2 * j), total(2 * j + 1));
                }
                out[group][half] = make_uint4(word[0], word[1], word[2], word[3]);
            }
            if constexpr (kMTiles == 1) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const uint4 first = is_odd ? out[1][half] : out[0][half];
                    const uint4 second = is_odd ? out[0][half] : out[1][half];
                    const uint32_t row = target + half * 8 * kPieceBytes;
                    ptx::st_shared(row + (is_odd ? 64 : 0), first);
                    ptx::st_shared(row + (is_odd ? 0 : 64), second);
                }
            } else {
                store_vectors<2 * kMTiles>(params, piece, p + held * Tile::kGroup, out[0],
                                           y + held * Tile::kGroup);
            }
        }
        target += 128;
        y += p_step;
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
            x[step][0] += p_step;
            x[step][1] += p_step;
        }
    }
}

// One warp: stores what it has staged, and activates it before. From sm_90 on by bulk copies, which read it
// later: ptx::cp_async_bulk_wait_read.
template <class Tile>
__device__ __forceinline__ void store(const Params& params, const Piece<typename Tile::Element>& piece,
                                      unsigned char* staged) {
    using Element = typename Tile::Element;
    constexpr int kVector = Tile::kVector;
    const Problem& problem = params.problem;
    const int lane = ptx::anew(threadIdx.x % 32), row = lane % kMTileO;
    __syncwarp();  // all sums are staged
    if (problem.activation != Activation::none)
        activate_staged(problem.activation, reinterpret_cast<Element*>(staged), kMTileO * Tile::kPiece);
    // The part of the piece that is whole vectors.
    const int first = min((piece.begin + kVector - 1) / kVector * kVector, piece.end);
    const int last = max(piece.end / kVector * kVector, first);
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
    ptx::fence_proxy_async();
    __syncwarp();
    if (lane < piece.rows && lane < kMTileO && first < last) {
        ptx::cp_async_bulk_store(reinterpret_cast<uint64_t>(piece.y + lane * params.row_step + first),
                                 ptx::smem_address(staged) + lane * kPieceBytes + first * sizeof(Element),
                                 (last - first) * sizeof(Element));
    }
    ptx::cp_async_bulk_commit();
#else
    for (int i = 0; i < piece.rows; ++i) {
        const int column = lane * kVector;
        const uint4 vector = reinterpret_cast<const uint4*>(staged + i * kPieceBytes)[lane];
        if (column >= first && column < last) ptx::st_global(piece.y + i * params.row_step + column, vector);
    }
#endif
    if (row < piece.rows) {  // a lane has one end of a row
        const bool is_head = lane < kMTileO;
        const int end = is_head ? first : piece.end;
        for (int column = is_head ? piece.begin : last; column < end; ++column)
            piece.y[row * params.row_step + column] =
                reinterpret_cast<const Element*>(staged)[row * Tile::kPiece + column];
    }
}

// One warp: the same outputs in plain multiply-adds, for operands that are not sums of two parts. The piece
// begins at position p_begin.
__device__ __noinline__ void compute_exactly(const Params& params, Piece<float> piece, int n, int g, int o,
                                             int64_t p_begin) {
    const Problem& problem = params.problem;
#pragma unroll 1
    for (int row = 0; row < piece.rows; ++row, piece.y += params.row_step) {
#pragma unroll 1
        for (int i = piece.begin + threadIdx.x % 32; i < piece.end; i += 32)
            piece.y[i] = finish_exactly(problem, n, g, o + row * params.classes, p_begin + i);
    }
}

// The group of a block's channels, and which of its tiles they begin with.
struct Channels {
    int g, tile_begin;
};
__device__ __forceinline__ Channels channels_of(const Params& params) {
    const uint32_t o_blocks = params.o_blocks, sets = o_blocks * static_cast<uint32_t>(params.problem.G);
    const uint32_t set = static_cast<uint32_t>(ptx::anew(blockIdx.x)) % sets, g = set / o_blocks;
    return {static_cast<int>(g), static_cast<int>((set - g * o_blocks) * params.block_tiles)};
}

// Brings what a block needs of x, from the first position that any phase begins at.
template <class Tile>
__device__ __forceinline__ void bring_x(const Params& params, const Shared& shared, int n, int g,
                                        int64_t block_p) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int64_t l_begin = (block_p - (params.align - 1)) * problem.stride - problem.pad_left;
    const Element* const x = static_cast<const Element*>(problem.x) + n * problem.x_stride_n +
                             g * problem.C * problem.x_stride_c;
    if constexpr (Tile::kSplit) {  // as it is, until its range is known
        Range range = {0, kInfinity};
        for_words<Tile>(params, x, l_begin, [&](int slot, const Element(&value)[2]) {
            range.add(value[0]);
            range.add(value[1]);
            shared.x[slot] = __float_as_uint(value[0]);
            shared.x[params.part_slots + slot] = __float_as_uint(value[1]);
        });
        range = block_range(range, shared.tables->ranges);
        const float scale = range.scale();
        if (threadIdx.x == 0) shared.tables->x_unscale = range.suits() ? range.unscale() : 0.0f;
#pragma unroll 4
        for (int slot = threadIdx.x; slot < params.x_slots; slot += kThreads) {
            uint32_t* const high = shared.x + slot;
            uint32_t* const low = high + params.part_slots;
            const float value[2] = {__uint_as_float(*high), __uint_as_float(*low)};
            const uint2 words = operand_words<Tile>(value, scale);
            *high = words.x;
            *low = words.y;
        }
    } else {
        for_words<Tile>(params, x, l_begin, [&](int slot, const Element(&value)[Tile::kPerWord]) {
            shared.x[slot] = operand_words<Tile>(value, 1.0f).x;
        });
    }
}

// The piece of a job's rows from `at` on in a block that begins at position block_p.
template <class Tile>
__device__ __forceinline__ Piece<typename Tile::Element> piece_of(const Params& params, const Rows& rows,
                                                                  int64_t block_p, int at, int most) {
    using Element = typename Tile::Element;
    const int64_t p_begin = block_p + at - rows.phase;
    const int end = static_cast<int>(min(params.problem.P - p_begin, int64_t{most}));
    return {static_cast<Element*>(rows.y) + p_begin, rows.count, p_begin < 0 ? static_cast<int>(-p_begin) : 0,
            end};
}

// Computes and stores what a block has of one place.
template <class Tile>
__device__ __forceinline__ void run_jobs(const Params& params, const Shared& shared, int n, int g,
                                         int64_t block_p) {
    using Element = typename Tile::Element;
    constexpr int kMost = Tile::kMaxSteps, kLongSteps = Tile::kLongSteps;
    const int warp = ptx::anew(threadIdx.x / 32);
    if constexpr (!Tile::kSplit) {
        if (params.m_tiles == 2) {  // a job for each warp
            const int warps_p = params.p_step / Tile::kChunk, tile = warp / warps_p;
            const int at = warp % warps_p * Tile::kChunk;
            if (tile >= params.block_tiles) return;
            const Rows& rows = shared.tables->rows[tile];
            const Piece<Element> piece = piece_of<Tile>(params, rows, block_p, at, params.span - at);
            if (piece.rows <= 0) return;
            if (params.steps == 4) multiply<Tile, 4, 2>(params, shared, piece, tile, at);
            else multiply<Tile, kLongSteps, 2>(params, shared, piece, tile, at);
            return;
        }
    }
    const int jobs = params.block_tiles * static_cast<int>(params.pieces.divisor);
#pragma unroll 1
    for (int job = warp; job < jobs; job += kWarps) {
        const int tile = params.pieces.quotient(job);
        const int at = (job - tile * static_cast<int>(params.pieces.divisor)) * Tile::kPiece;
        const Rows& rows = shared.tables->rows[tile];
        const Piece<Element> piece = piece_of<Tile>(params, rows, block_p, at, Tile::kPiece);
        if (piece.rows <= 0 || piece.end <= 0) continue;
        if constexpr (Tile::kSplit) {
            if (shared.tables->x_unscale == 0.0f || !shared.tables->suit[tile]) {
                compute_exactly(params, piece, n, g, rows.o, block_p + at - rows.phase);
                continue;
            }
        }
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
        ptx::cp_async_bulk_wait_read<0>();
#endif
        __syncwarp();  // what was staged has been read
        if (params.steps == 1) multiply<Tile, 1, 1>(params, shared, piece, tile, at);
        else if (params.steps == 2) multiply<Tile, 2, 1>(params, shared, piece, tile, at);
        else if (params.steps == 4) multiply<Tile, 4, 1>(params, shared, piece, tile, at);
        else if (params.steps == kLongSteps) multiply<Tile, kLongSteps, 1>(params, shared, piece, tile, at);
        else if constexpr (kMost > kLongSteps) multiply<Tile, kMost, 1>(params, shared, piece, tile, at);
        store<Tile>(params, piece, shared.staged);
    }
}

#endif  // sm_80

template <class Tile>
__global__ void __launch_bounds__(kThreads, kLaunchBlocks)
    stem_sm80_forward_kernel(const __grid_constant__ Params params) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    using Element = typename Tile::Element;
    extern __shared__ __align__(16) unsigned char smem[];
    const int warp = threadIdx.x / 32;
    const int m_vectors = params.steps * Tile::kParts * 32;
    Shared shared;
    // Bulk copies from between multiples of 128 bytes would take half as long again.
    shared.staged = smem + warp * kMTileO * kPieceBytes;
    shared.tables = reinterpret_cast<Tables*>(smem + params.staged_bytes);
    shared.weights = reinterpret_cast<uint4*>(shared.tables + 1);
    shared.x = reinterpret_cast<uint32_t*>(shared.weights + params.block_tiles * params.m_tiles * m_vectors);
    Tables& tables = *shared.tables;
    const Problem& problem = params.problem;

    if (threadIdx.x < kMaxWords) {
        tables.slots[threadIdx.x] = params.slot_of(threadIdx.x);
        tables.elements[threadIdx.x] = params.elements_of<Tile::kPerWord>(threadIdx.x);
    }
    for (int i = threadIdx.x; i < params.zeros; i += kThreads) {
#pragma unroll
        for (int part = 0; part < Tile::kParts; ++part)
            shared.x[part * params.part_slots + params.x_slots + i] = 0;
    }
    __syncthreads();
    const Channels own = channels_of(params);
#pragma unroll 1
    for (int i = warp; i < params.block_tiles * params.m_tiles; i += kWarps) {
        const int tile = i / params.m_tiles, m = i - tile * params.m_tiles;
        const int o = first_channel(params, own.tile_begin + tile) + m * kMTileO * params.classes;
        const bool suit = load_weights<Tile>(params, own.g, o, tables.elements,
                                             shared.weights + i * m_vectors, tables.finish + i * kMTileO);
        if (Tile::kSplit && threadIdx.x % 32 == 0) tables.suit[tile] = suit;
    }

    // A block keeps its channels; of long sums it moves over places: samples and spans of positions.
    const uint32_t places = static_cast<uint32_t>(problem.N * params.p_blocks);
#pragma unroll 1
    for (uint32_t place = blockIdx.x / (params.o_blocks * static_cast<uint32_t>(problem.G)); place < places;
         place = Tile::kSplit ? places : place + params.replicas) {
        const int n = place / static_cast<uint32_t>(params.p_blocks);
        const int64_t block_p = int64_t{place - n * static_cast<uint32_t>(params.p_blocks)} * params.span;
        const Channels channels = channels_of(params);
        __syncthreads();  // x and rows of the place before have been read
        if (threadIdx.x < params.block_tiles) {
            const int o = first_channel(params, channels.tile_begin + threadIdx.x);
            Element* const y = static_cast<Element*>(problem.y) +
                               ((int64_t{n} * problem.G + channels.g) * problem.O + o) * problem.P;
            const int left = static_cast<int>(problem.O) - o;
            const int phase = static_cast<int>(reinterpret_cast<uintptr_t>(y) / sizeof(Element));
            tables.rows[threadIdx.x] = {
                y, o, min((left + params.classes - 1) / params.classes, params.m_tiles * kMTileO),
                phase & (params.align - 1)};
        }
        bring_x<Tile>(params, shared, n, channels.g, block_p);
        __syncthreads();
        run_jobs<Tile>(params, shared, n, channels.g, block_p);
    }
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
    ptx::cp_async_bulk_wait_read<0>();  // shared memory outlives its readers
#endif
#endif
}

// Rows of y so far apart begin at the same place of a sector.
inline int64_t row_classes(const Problem& problem) {
    const int64_t align = kSectorBytes / element_bytes(problem.dtype);
    return align / std::gcd(align, problem.P);
}

// So many slots that lanes, which read neighbouring planes, meet in few banks: positions of a product are
// kNTiles apart.
template <class Tile>
int64_t padded_plane(int64_t slots) {
    return Tile::kNTiles == 4 ? round_up(slots - 1, 4) + 1 : round_up(slots - 16, 32) + 16;
}

// blocks is 0 where the problem does not suit.
template <class Tile>
Params plan(const Problem& problem) {
    Params params{};
    params.problem = problem;
    const int64_t reach = (problem.K - 1) * problem.dilation + 1;
    if (problem.C >= 16 || problem.C * problem.K > Tile::kMaxSteps * kMmaWords * Tile::kPerWord ||
        problem.O * problem.C * problem.K > kMaxBlocks || problem.stride > 64 || reach > 4096)
        return params;
    params.tap_pairs = Tile::kPerWord == 2 && problem.C == 1 && problem.K > 1;
    const int64_t row_words = params.tap_pairs ? problem.K / 2 : problem.K;
    params.rows =
        static_cast<int32_t>(params.tap_pairs ? 1 + problem.K % 2 : ceil_div(problem.C, Tile::kPerWord));
    params.words = static_cast<int32_t>(params.tap_pairs ? ceil_div(problem.K, 2) : params.rows * problem.K);
    params.row_words = plan_divisor(row_words);
    const int64_t steps = ceil_div(params.words, kMmaWords);
    if (steps > Tile::kMaxSteps) return params;
    params.steps = Tile::round_steps(steps);
    params.stride = plan_divisor(problem.stride);

    params.align = static_cast<int32_t>(kSectorBytes / sizeof(typename Tile::Element));
    params.classes = static_cast<int32_t>(row_classes(problem));
    params.row_step = params.classes * problem.P;
    // Of long sums and long rows a job is 32 channels, if all have so many. Weights of split operands would
    // take too many registers, and activations are staged.
    const bool is_long = params.steps > 2 && params.steps <= Tile::kLongSteps && !Tile::kSplit &&
                         problem.activation == Activation::none &&
                         problem.P >= kLongRowPieces * Tile::kPiece &&
                         problem.O % (2 * kMTileO * params.classes) == 0;
    params.m_tiles = is_long ? 2 : 1;
    params.staged_bytes = is_long ? 0 : kStagedBytes;
    params.tiles = static_cast<int32_t>(
        params.classes * ceil_div(ceil_div(problem.O, params.classes), params.m_tiles * kMTileO));
    constexpr int64_t kBytes = sizeof(typename Tile::Element);
    const int64_t second = params.tap_pairs ? problem.dilation * problem.x_stride_l : problem.x_stride_c;
    const int64_t row_step = params.tap_pairs ? 0 : Tile::kPerWord * problem.x_stride_c;
    params.second_rows = static_cast<int32_t>(params.tap_pairs ? 1 : problem.C / 2);
    params.second_bytes = static_cast<int32_t>(second * kBytes);
    params.row_bytes = static_cast<int32_t>(row_step * kBytes);
    params.l_bytes = static_cast<int32_t>(problem.x_stride_l * kBytes);

    // Rows of whole sectors all begin where y does.
    const int64_t y_phase = reinterpret_cast<uintptr_t>(problem.y) / kBytes % params.align;
    const int64_t most_phase = problem.P % params.align == 0 ? y_phase : params.align - 1;
    const int64_t row_pieces = ceil_div(problem.P + most_phase, Tile::kPiece);
    const int64_t planes = params.rows * problem.stride;
    const int64_t tile_bytes = params.m_tiles * params.steps * Tile::kParts * 512;
    const int64_t sharers = problem.device.smem_bytes > 200 << 10 ? kBlocks : 1;
    const int64_t share = (problem.device.smem_bytes + 1024) / sharers - 1024;
    const int64_t fixed_bytes = static_cast<int64_t>(sizeof(Tables)) + params.staged_bytes;
    // As many jobs a block as shared memory allows. Its positions must not depend on the number of samples:
    // split operands are scaled by what a block has of x.
    int64_t most_jobs = 0, most_tiles = 0, x_bytes = 0;
    const int64_t block_pieces = std::min<int64_t>(row_pieces, is_long ? kLongPieces : kMostPieces);
    for (int64_t most = block_pieces; most > 0; --most) {
        const int64_t p_blocks = ceil_div(row_pieces, most), pieces = ceil_div(row_pieces, p_blocks);
        const int64_t positions = (pieces * Tile::kPiece + params.align - 2) * problem.stride + reach;
        const int64_t plane_slots = padded_plane<Tile>(ceil_div(positions, problem.stride));
        const int64_t zeros = is_long ? pieces * Tile::kPiece : Tile::kPiece;
        const int64_t part_slots = round_up(planes * plane_slots + zeros, 4);
        const int64_t bytes = part_slots * Tile::kParts * 4;
        const int64_t tiles = std::min({(share - fixed_bytes - bytes) / tile_bytes,
                                        int64_t{Tile::kBlockTiles / params.m_tiles}, int64_t{params.tiles}});
        const int64_t items = params.rows * positions + Tile::kBatch * kThreads;
        const int64_t x_reach = (params.rows * row_step + items * problem.x_stride_l + second) * kBytes;
        if (std::max(items * positions, x_reach) > kMaxBlocks || tiles * pieces <= most_jobs) continue;
        most_jobs = tiles * pieces;
        most_tiles = tiles;
        x_bytes = bytes;
        params.positions = plan_divisor(positions);
        params.plane_slots = static_cast<int32_t>(plane_slots);
        params.x_slots = static_cast<int32_t>(planes * plane_slots);
        params.zeros = static_cast<int32_t>(zeros);
        params.part_slots = static_cast<int32_t>(part_slots);
        params.span = static_cast<int32_t>(pieces * Tile::kPiece);
        params.p_blocks = static_cast<int32_t>(p_blocks);
    }
    if (most_jobs == 0) return params;
    // In rounds of as many blocks as run at once, each of which takes as long as its jobs and setting out.
    const int64_t slots = sharers * problem.device.sm_count, pieces = params.span / Tile::kPiece;
    const int64_t places = problem.N * params.p_blocks;
    int64_t best = INT64_MAX;
    for (int64_t tiles = most_tiles; tiles > 0; --tiles) {
        if (is_long && kWarps % tiles != 0) continue;
        const int64_t o_blocks = ceil_div(params.tiles, tiles), sets = o_blocks * problem.G;
        // Blocks of long sums keep their weights: all that fit at once, each with as many places.
        const int64_t most = is_long ? std::max(slots / sets, int64_t{1}) : places;
        const int64_t replicas = ceil_div(places, ceil_div(places, most)), blocks = sets * replicas;
        const int64_t jobs = ceil_div(tiles * pieces * params.m_tiles, kWarps);  // of a warp
        const int64_t cost = ceil_div(sets * places, slots) * (jobs + kSetOutJobs);
        if (blocks > kMaxBlocks || places > kMaxBlocks / 2 || cost >= best) continue;
        best = cost;
        params.block_tiles = static_cast<int32_t>(tiles);
        params.o_blocks = static_cast<int32_t>(o_blocks);
        params.replicas = static_cast<int32_t>(replicas);
        params.blocks = blocks;
    }
    if (params.blocks == 0) return params;
    params.pieces = plan_divisor(pieces);
    params.p_step = static_cast<int32_t>(is_long ? kWarps / params.block_tiles * Tile::kChunk : Tile::kChunk);
    params.smem_bytes = static_cast<int32_t>(fixed_bytes + params.block_tiles * tile_bytes + x_bytes);
    return params;
}

template <class Tile>
struct Launch {
    static bool fits(const Problem& problem) { return plan<Tile>(problem).blocks > 0; }

    static Error run(const Problem& problem, cudaStream_t stream) {
        const Params params = plan<Tile>(problem);
        const Error error = allow_smem<stem_sm80_forward_kernel<Tile>>(problem.device);
        if (error != nullptr) return error;
        stem_sm80_forward_kernel<Tile>
            <<<static_cast<unsigned>(params.blocks), kThreads, params.smem_bytes, stream>>>(params);
        return launch_error();
    }
};

template <class Call>
auto with_launch(const Problem& problem, Call call) {
    switch (problem.dtype) {
        case Dtype::float16:
            return call(Launch<Tile<__half, false>>{});
        case Dtype::bfloat16:
            return call(Launch<Tile<__nv_bfloat16, false>>{});
        default:
            if (problem.precision == Precision::tf32) return call(Launch<Tile<float, false>>{});
            return call(Launch<Tile<float, true>>{});
    }
}

// What the kernel can compute; `problem` is canonical.
inline bool takes(const Problem& problem) {
    if (problem.dtype == Dtype::float64 || problem.device.arch < 80) return false;
    return with_launch(problem, [&](auto launch) { return launch.fits(problem); });
}

}  // namespace stem

// fp32, fp16 and bf16 from sm_80 on, fewer than 16 input channels a group, sums of some 80 products, and so
// many outputs and products that setting out does not count (us by this route and by the next best: TF32
// 7x3x29308 to 602, K2 138, 192; fp32 convtasnet_enc 57, 77; encodec_stem, 7 products for 32 channels, 170,
// 161; 7x3x2278 to 353, K8 s3 14.1, 10.4; of less than 10 million products a sample TF32 2x9x8698 to 86, K1
// 13.7, 8.7; 12x7x2423 to 64, K5 20, 12; but 16x5x4905 to 101, K3 18, 25). By one sample: its result must not
// depend on its batch.
inline bool fits_stem_sm80(const Problem& any_problem) {
    const Problem problem = canonical(any_problem);
    const int arch = problem.device.arch;
    const bool is_float = problem.dtype == Dtype::float32;
    const bool is_split = is_float && problem.precision != Precision::tf32;
    const bool fast = arch == 80 || (arch >= 90 && arch < 120);  // others do TF32 at the rate of FFMA
    const int64_t outputs = problem.G * problem.O * problem.P;
    const bool has_few = outputs < 3 << 17;
    const int64_t least_products = !is_float        ? (has_few ? 7 : 4)
                                   : has_few        ? (is_split ? 32 : 16)
                                   : problem.O < 64 ? (is_split ? 10 : 7)
                                                    : 4;
    const int64_t products = problem.C * problem.K;
    if ((is_float && !fast) || products < least_products || outputs < 1 << 17 || problem.P < 256 ||
        products * outputs < 10 << 20)
        return false;
    // Products may be half empty, in 16 bits three quarters: 8x4x30001 to 40, K9 in TF32 50, 40 (and to 100
    // 54, 74), in bf16 to 100 44, 65. Bringing x counts where it has many planes for the channels that there
    // are: TF32 31x7x110903 to 62, K5 s8 359, 125; 4x2x441000 to 64, K8 s4 58, 69.
    const int64_t least_rows = stem::kMTileO / (is_float ? 2 : 4) * stem::row_classes(problem);
    return problem.O >= std::max(least_rows, 4 * problem.C * problem.stride) && stem::takes(problem);
}

inline Error launch_stem_sm80(const Problem& any_problem, cudaStream_t stream) {
    const Problem problem = canonical(any_problem);
    return stem::with_launch(problem, [&](auto launch) { return launch.run(problem, stream); });
}

}  // namespace conv1d
''',
"stem.cu": r'''
#line 1 "kernels/stem.cu"
// The translation unit of route "stem_sm80".



const conv1d::Route conv1d::kStemSm80 = {"stem_sm80", fits_stem_sm80, no_workspace, launch_stem_sm80};
''',
"stream_sm90_plan.cuh": r'''
#line 1 "kernels/stream_sm90_plan.cuh"
// How the streaming convolution (stream_sm90.cuh) cuts a problem: the memory plan of a block, the tiles,
// which problems it takes. Pure functions of the problem's numbers; no kernel here.





namespace conv1d {
namespace sm90 {

// What fills the 96 registers a thread that hold weights, 48 of 16 bits. Known to the compiler: at branches
// between products it would wait for each.
constexpr int kMostStreamTaps = 3;
constexpr int kStreamChannels = 64;
constexpr int kStreamTileSlots = 16;  // tiles announced ahead; more than the stages of x can hold
constexpr int kStreamCounters = 2 * kStreamTileSlots;
constexpr int kFirstTurn = 1, kSecondTurn = 2;  // hardware barriers, of the product warpgroups
constexpr int kMostRawStages = 6, kMostXStages = 4;  // kb67 TF32: 0.88 ms; with 12 and 4 0.92, 5 and 8 0.89

// f16x3: kLargestScaled as fp16; what a value beyond it counts beside values too small, of which a tile has
// fewer.
constexpr uint32_t kLargestHigh = 0x7BF8;
constexpr int32_t kTooLarge = 1 << 16;

template <Mode kMode>
struct StreamTraits : ModeTraits<kMode> {
    using Traits = ModeTraits<kMode>;
    static constexpr int kChunks = kStreamChannels / Traits::kChunkChannels;
    // Of a raw stage: half a chunk.
    static constexpr int kRawChannels = Traits::kChunkChannels / 2;
    // Columns computed beyond those stored, so that each row of y is stored from a 32-byte sector on. Split
    // operands, bound by products, store rows from wherever they begin.
    static constexpr int kLead = Traits::kIsSplit ? 0 : 32 / Traits::kElementBytes;
    // Of a staged row of D, in elements: eight rows lie in different banks.
    static __host__ __device__ constexpr int pitch(int columns) {
        return columns + (Traits::kIsFloat && kLead > 0 ? 0 : 8);
    }
    static __host__ __device__ constexpr int warp_staging_bytes(int columns) {
        return 8 * pitch(columns) * Traits::kElementBytes;
    }
};

// How one launch cuts its problem; written by the host, read by every role.
struct StreamGeometry {
    int32_t columns;  // of a tile
    int32_t tiles, tiles_per_sample;
    int32_t begin;   // position of x at q = 0 of a tile's window, minus stride times the tile's row
    int32_t window;  // positions of x that a tile needs
    int32_t boxes;   // that load them: 3 at most
    int32_t box_positions, box_step;  // of a box, and how far apart they begin
    uint32_t box_magic, stride_magic;  // ceil(2^32 / box_positions or stride)
    int32_t plane_rows;     // distance between planes, in rows
    int32_t tap_row[kMostStreamTaps];  // in a stage, of column 0
    int32_t raw_stages, raw_stage_bytes;
    int32_t x_stages, x_stage_bytes;  // 2 or 4
    int32_t paired;  // 1: rows of y begin at even elements
    int32_t alternate;  // 1: each product warpgroup has all output channels, of every other tile
    int32_t smem_bytes;
    SafeTiles safe;
};

// Shared memory, in order: x stages | raw stages | staging of D, 8 warps | barriers | announced tiles |
// doubts.
constexpr int kStreamBarrierBytes = (2 * kMostRawStages + 2 * kMostXStages + 2 * kStreamTileSlots) * 8;
constexpr int kStreamControlBytes =
    static_cast<int>(kStreamBarrierBytes + kStreamTileSlots * sizeof(Announcement) +
                     kStreamCounters * sizeof(int32_t));

// Cuts the problem into tiles of `columns` positions, of which the first kLead may belong to the tile before.
// `tiles` is 0 where that cannot be.
template <Mode kMode>
inline StreamGeometry cut_stream(const Problem& problem, int columns) {
    using Traits = StreamTraits<kMode>;
    constexpr int kPieceElements = 16 / Traits::kElementBytes;
    StreamGeometry geometry{};
    geometry.columns = columns;
    // Boxes begin at 16-byte pieces of x. So do all windows, as tiles begin at multiples of 16 rows or, of
    // fp32, of 8, but for the padding: they begin that `early`.
    const int64_t stride = problem.stride;
    const int64_t early = (kPieceElements - problem.pad_left % kPieceElements) % kPieceElements;
    geometry.begin = static_cast<int32_t>(-problem.pad_left - early);
    int64_t window = (columns - 1) * stride + early + (problem.K - 1) * problem.dilation + 1;
    geometry.boxes = window <= 248 ? 1 : 2;
    const auto box_of = [&](int64_t positions) {
        const int64_t pieces = ceil_div(positions, kPieceElements);
        // Of 16 bits, eight channels are read at once: an odd number of pieces in a row spreads them over the
        // banks.
        return (Traits::kIsFloat ? pieces : pieces | 1) * kPieceElements;
    };
    int64_t box = box_of(ceil_div(window, geometry.boxes)), step = box;
    // Where taps lie far apart, each has a box of its own; that of tap k begins k * late early.
    const int64_t late = problem.dilation % kPieceElements;
    const int64_t apart = columns + early + (problem.K - 1) * late;
    const bool far = stride == 1 && problem.K * apart < window;
    if (far) {
        geometry.boxes = static_cast<int32_t>(problem.K);
        box = box_of(apart), step = problem.dilation - late;
        window = (problem.K - 1) * box + apart;
    }
    if (box > 256) return {};
    geometry.window = static_cast<int32_t>(window);
    geometry.box_positions = static_cast<int32_t>(box);
    geometry.box_step = static_cast<int32_t>(step);
    geometry.raw_stage_bytes = static_cast<int32_t>(
        round_up(geometry.boxes * box * Traits::kRawChannels * Traits::kElementBytes, 128));

    geometry.box_magic = static_cast<uint32_t>(ceil_div(int64_t{1} << 32, box));
    geometry.stride_magic = static_cast<uint32_t>(ceil_div(int64_t{1} << 32, stride));
    const int64_t converted = round_up(window, Traits::kIsFloat ? 1 : 8);  // at once
    const int64_t rows = ceil_div(converted, stride);
    int64_t plane_rows = rows;
    while (stride > 1 && plane_rows % 8 != kPlaneResidue[stride]) ++plane_rows;
    geometry.plane_rows = static_cast<int32_t>(plane_rows);
    geometry.x_stage_bytes =
        static_cast<int32_t>(round_up((plane_rows * (stride - 1) + rows) * kRowBytes, 1024));
    for (int tap = 0; tap < problem.K; ++tap) {
        const int64_t offset = early + tap * (far ? box + late : problem.dilation);
        geometry.tap_row[tap] = static_cast<int32_t>(offset % stride * plane_rows + offset / stride);
    }

    // f16x3 multiplies all chunks of a tile twice, so they stay meanwhile. Warpgroups that alternate have
    // stages of their own: of those of the other, each would miss phases.
    geometry.alternate = problem.O <= kTileO / 2;
    const int x_least = kMode == Mode::f16x3 || geometry.alternate ? 2 * Traits::kChunks : 2;
    const int64_t other_bytes =
        kProductWarps * Traits::warp_staging_bytes(columns) + kStreamControlBytes + 1024;
    const auto bytes = [&] {
        return other_bytes + int64_t{geometry.raw_stages} * geometry.raw_stage_bytes +
               int64_t{geometry.x_stages} * geometry.x_stage_bytes;
    };
    geometry.raw_stages = 3, geometry.x_stages = x_least;
    if (bytes() > problem.device.smem_bytes) return {};
    const auto fits = [&](int raw_stages, int x_stages) {
        const StreamGeometry before = geometry;
        geometry.raw_stages = raw_stages, geometry.x_stages = x_stages;
        if (bytes() > problem.device.smem_bytes) geometry = before;
    };
    fits(4, 4);
    for (int stages = geometry.raw_stages + 1; stages <= kMostRawStages; ++stages)
        fits(stages, geometry.x_stages);
    geometry.smem_bytes = static_cast<int32_t>(bytes());

    geometry.paired = problem.P % 2 == 0 &&
                      reinterpret_cast<uintptr_t>(problem.y) % (2 * Traits::kElementBytes) == 0;
    const int advance = columns - Traits::kLead;
    // The last columns of a row may be stored that early.
    const int early_end = Traits::kLead > 0 ? Traits::kLead - 1 : 0;
    geometry.tiles_per_sample = static_cast<int32_t>(ceil_div(problem.P + early_end, advance));
    const int64_t tiles = problem.N * geometry.tiles_per_sample;
    geometry.tiles = tiles < (int64_t{1} << 30) ? static_cast<int32_t>(tiles) : 0;
    if (kMode == Mode::f16x3) {
        geometry.safe = find_safe_tiles(problem);
        if (geometry.safe.advance == 0) return {};
    }
    return geometry;
}

// More columns take more shared memory, and load fewer positions of x twice. 16 bits have registers for twice
// as many.
template <Mode kMode>
constexpr int kWidestColumns = StreamTraits<kMode>::kIsFloat ? 128 + StreamTraits<kMode>::kLead : 256;
template <Mode kMode>
constexpr int kWideColumns = 128 + StreamTraits<kMode>::kLead;
template <Mode kMode>
constexpr int kNarrowColumns = 64 + StreamTraits<kMode>::kLead;

// How the warps of a block share registers: at launch all have the same number, 64 K in a block.
template <int kN, int kTaps = kMostStreamTaps>
struct StreamWarps {
    static constexpr int kConverters = kN > 192 ? 3 : 7;
    static constexpr int kThreads = 32 * (kProductWarps + kConverters + 1);  // and one warp orders boxes
    static constexpr int kOtherRegisters = kN > 192 ? 56 : kN < 100 || kTaps < 3 ? 72 : kN == 128 ? 48 : 56;
    static constexpr int kAtLaunch = (64 << 10) / kThreads / 8 * 8;
    static constexpr int kProductRegisters =
        (kAtLaunch * kThreads - kOtherRegisters * (kThreads - 32 * kProductWarps)) / (32 * kProductWarps);
};

// The columns of a tile: the most that fit; the widest only where tiles are many, so that none waits for the
// last ones.
template <Mode kMode>
inline StreamGeometry choose_stream_cut(const Problem& problem) {
    const StreamGeometry wide = cut_stream<kMode>(problem, kWideColumns<kMode>);
    if (problem.K < kMostStreamTaps) return wide;
    const StreamGeometry widest = cut_stream<kMode>(problem, kWidestColumns<kMode>);
    if (widest.tiles > 8 * problem.device.sm_count) return widest;
    return wide.tiles > 0 ? wide : cut_stream<kMode>(problem, kNarrowColumns<kMode>);
}

// Whether the copy engine can load boxes of x: what cuTensorMapEncodeTiled asks.
inline bool has_tensor_map(const Problem& problem) {
    const int64_t element = element_bytes(problem.dtype);
    return problem.x_stride_l == 1 && reinterpret_cast<uintptr_t>(problem.x) % 16 == 0 &&
           problem.x_stride_c * element % 16 == 0 && problem.x_stride_c >= problem.L &&
           (problem.N == 1 || (problem.x_stride_n >= problem.C * problem.x_stride_c &&
                               problem.x_stride_n % problem.x_stride_c == 0 &&
                               problem.x_stride_n * element < (int64_t{1} << 40)));
}

}  // namespace sm90

inline bool fits_stream_sm90(const Problem& problem) {
    // Half the room for channels must be used: fp32 packs them in two chunks, which all must be there.
    if (!fits_gemm_sm90(problem) || problem.G != 1 || problem.K < 2 ||
        problem.K > sm90::kMostStreamTaps ||
        problem.C <= sm90::kStreamChannels / 2 || problem.C > sm90::kStreamChannels ||
        problem.O <= sm90::kTileO / 4 || problem.O > sm90::kTileO || problem.stride > 8 ||
        !sm90::has_tensor_map(problem))
        return false;
    return sm90::with_mode(problem, [&](auto mode) {
        constexpr sm90::Mode kMode = decltype(mode)::value;
        const sm90::StreamGeometry geometry = sm90::choose_stream_cut<kMode>(problem);
        // Tiles at least half full, on average: the GEMM's run on from row to row where rows are short.
        const int64_t stored = geometry.columns - sm90::StreamTraits<kMode>::kLead;
        return geometry.tiles > 0 && geometry.tiles * stored <= 2 * problem.N * problem.P;
    });
}

inline size_t workspace_stream_sm90(const Problem& problem) {
    return sm90::with_mode(problem, [&](auto mode) {
        constexpr sm90::Mode kMode = decltype(mode)::value;
        sm90::Scratch scratch;
        return sm90::lay_out<kMode>(problem, sm90::packing<kMode>(problem), nullptr, &scratch);
    });
}

}  // namespace conv1d
''',
"stream_sm90_convert.cuh": r'''
#line 1 "kernels/stream_sm90_convert.cuh"
// How x reaches the products of the streaming convolution (stream_sm90.cuh): one warp draws tickets and
// orders boxes of x, seven or three convert what has come.







namespace conv1d {
namespace sm90 {

// Addresses of the barriers in the shared window, and what lies behind them.
struct StreamBarriers {
    uint32_t base;
    Announcement* tile;    // [kStreamTileSlots]
    int32_t* doubts;       // [kStreamCounters] f16x3: values of x too small, and too large, of one tile

    __device__ __forceinline__ uint32_t raw_full(int stage) const { return base + 8 * stage; }
    __device__ __forceinline__ uint32_t raw_empty(int stage) const {
        return base + 8 * (kMostRawStages + stage);
    }
    __device__ __forceinline__ uint32_t x_full(int stage) const {
        return base + 8 * (2 * kMostRawStages + stage);
    }
    __device__ __forceinline__ uint32_t x_empty(int stage) const {
        return base + 8 * (2 * kMostRawStages + kMostXStages + stage);
    }
    __device__ __forceinline__ uint32_t tile_full(int slot) const {
        return base + 8 * (2 * kMostRawStages + 2 * kMostXStages + slot);
    }
    __device__ __forceinline__ uint32_t tile_empty(int slot) const {
        return base + 8 * (2 * kMostRawStages + 2 * kMostXStages + kStreamTileSlots + slot);
    }
};

// The slot of announcement number `taken`, once it is there.
__device__ __forceinline__ int wait_for_tile(const StreamBarriers& barriers, uint32_t taken) {
    const int slot = taken % kStreamTileSlots;
    ptx::mbarrier_wait(barriers.tile_full(slot), taken / kStreamTileSlots % 2);
    return slot;
}
// Through shuffles, so that the compiler knows them to be the same in the whole warp.
__device__ __forceinline__ Announcement read_tile(const StreamBarriers& barriers, int slot) {
    Announcement place = barriers.tile[slot];
    place.tile = __shfl_sync(0xFFFFFFFF, place.tile, 0);
    place.sample = __shfl_sync(0xFFFFFFFF, place.sample, 0);
    place.row = __shfl_sync(0xFFFFFFFF, place.row, 0);
    return place;
}

// One thread: draws tickets, announces tiles, orders the boxes of x that each needs.
template <Mode kMode, int kN>
__device__ __forceinline__ void order_boxes(const StreamGeometry& geometry, const Problem& problem,
                                            const TensorMap& x_map, uint32_t raw_smem,
                                            const StreamBarriers& barriers, int32_t* tickets) {
    using Traits = StreamTraits<kMode>;
    Ring tiles, stages;
    tiles.parity = stages.parity = 1;  // an empty ring: the first waits return at once
    const uint32_t box_bytes = geometry.raw_stage_bytes / geometry.boxes;
    int32_t tile = blockIdx.x;
    int32_t ends = geometry.alternate ? 2 : 1;  // each product warpgroup needs one
    for (uint32_t announced = 0;; ++announced) {
        ptx::mbarrier_wait(barriers.tile_empty(tiles.stage), tiles.parity);
        Announcement place{-1, 0, 0, 0, 0, 0};
        if (tile < geometry.tiles) {
            place.tile = tile;
            place.sample = tile / geometry.tiles_per_sample;
            place.row = (tile - place.sample * geometry.tiles_per_sample) * (kN - Traits::kLead);
            place.row -= Traits::kLead;
        }
        // No one looks at that of kStreamCounters tiles ago.
        barriers.doubts[announced % kStreamCounters] = 0;
        barriers.tile[tiles.stage] = place;
        ptx::mbarrier_arrive(barriers.tile_full(tiles.stage));
        tiles.advance(kStreamTileSlots);
        if (place.tile < 0) {
            if (--ends == 0) return;
            continue;
        }
        if (announced > 0) tile = atomicAdd(tickets, 1) + gridDim.x;
        const int32_t l = place.row * static_cast<int32_t>(problem.stride) + geometry.begin;
        for (int32_t part = 0; part < 2 * Traits::kChunks; ++part) {
            const uint32_t full = barriers.raw_full(stages.stage);
            const uint32_t target = raw_smem + stages.stage * geometry.raw_stage_bytes;
            ptx::mbarrier_wait(barriers.raw_empty(stages.stage), stages.parity);
            ptx::mbarrier_arrive_expect_tx(full, geometry.raw_stage_bytes);
            for (int32_t box = 0; box < geometry.boxes; ++box)
                ptx::cp_async_bulk_tensor(target + box * box_bytes, &x_map, l + box * geometry.box_step,
                                          part * Traits::kRawChannels, place.sample, full);
            stages.advance(geometry.raw_stages);
        }
        if (announced == 0) {  // the kernel that packs weights zeroes the tickets
            ptx::griddepcontrol_wait();
            tile = atomicAdd(tickets, 1) + gridDim.x;
        }
    }
}

// A batch is 32 positions with all channels of a raw stage; the batches of all stages go round the warps.
// Position q of a window becomes row q / stride of plane q % stride.
template <Mode kMode, int kN>
struct StreamConverter {
    using Traits = StreamTraits<kMode>;
    static constexpr int kTogether = Traits::kIsSplit && kN < 100 ? 2 : 1;  // raw stages at once
    // Of fp32, loaded at once: as registers allow.
    static constexpr int kLoadChannels = Traits::kIsSplit && kN > 100 ? 8 : 16;

    const StreamGeometry& geometry;
    const Problem& problem;
    const StreamBarriers& barriers;
    const Scratch& scratch;
    uint8_t* const x_smem;
    uint8_t* const raw_smem;
    const int warp, lane;
    int32_t doubts;  // f16x3: how many values of a chunk are too small, kTooLarge where one is too large

    // Where position q belongs in a stage.
    __device__ __forceinline__ int32_t stored_row(int32_t q) const {
        const int32_t stride = static_cast<int32_t>(problem.stride);
        if (stride == 1) return q;
        const int32_t row = __umulhi(q, geometry.stride_magic);
        return row + (q - row * stride) * geometry.plane_rows;
    }

    // Where position q of the first channel lies in a raw stage, in elements: box behind box.
    __device__ __forceinline__ int32_t raw_place(int32_t q) const {
        const int32_t other_channels = (Traits::kRawChannels - 1) * geometry.box_positions;
        return q + static_cast<int32_t>(__umulhi(q, geometry.box_magic)) * other_channels;
    }

    // fp32: a lane takes one position, of kTogether raw stages.
    __device__ __forceinline__ void convert_floats(const uint32_t (&raw)[kTogether], uint8_t* stage,
                                                   int32_t q, int half) {
        if (q >= geometry.window) return;
        const int32_t row = stored_row(q);
        const int32_t channel_bytes = 4 * geometry.box_positions;
        uint32_t channel = 4 * raw_place(q);
        uint8_t* const target = stage + row * kRowBytes;
        constexpr int kPieces = Traits::kRawChannels / Traits::kPieceChannels;
#pragma unroll
        for (int first = 0; first < Traits::kRawChannels; first += kLoadChannels) {
            uint32_t source[kLoadChannels];
#pragma unroll
            for (int i = 0; i < kLoadChannels; ++i, channel += channel_bytes) {
                source[i] = channel;
                if (kTogether > 1) ptx::settle(source[i]);  // the compiler would compute them for each stage
            }
#pragma unroll
            for (int together = 0; together < kTogether; ++together) {
                uint32_t value[kLoadChannels];
#pragma unroll
                for (int i = 0; i < kLoadChannels; ++i) ptx::ld_shared(value[i], source[i] + raw[together]);
                uint32_t largest = 0, smallest = 0x7C007C00;  // f16x3: of the high parts, a pair of fp16
#pragma unroll
                for (int i = 0; i < kLoadChannels / Traits::kPieceChannels; ++i) {
                    const int32_t piece =
                        ((half + together) * kPieces + first / Traits::kPieceChannels + i) ^ (row & 7);
                    uint32_t high[4], low[4];
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        if constexpr (kMode == Mode::f16x3) {
                            const int k = 8 * i + 2 * j;
                            high[j] = split_f16(__uint_as_float(value[k]) * kXScale,
                                                __uint_as_float(value[k + 1]) * kXScale, low[j]);
                            largest = ptx::max_magnitude_f16(largest, high[j]);
                            smallest = ptx::min_magnitude_f16(smallest, high[j]);
                        } else {
                            high[j] = round_tf32(value[4 * i + j]);
                        }
                    }
                    *reinterpret_cast<uint4*>(target + piece * 16) =
                        make_uint4(high[0], high[1], high[2], high[3]);
                    if constexpr (Traits::kIsSplit)
                        *reinterpret_cast<uint4*>(target + (piece ^ Traits::kPieces) * 16) =
                            make_uint4(low[0], low[1], low[2], low[3]);
                }
                if constexpr (kMode == Mode::f16x3) {  // behind the stores: it branches
                    if (max(largest & 0xFFFF, largest >> 16) > kLargestHigh) doubts += kTooLarge;
                    if (min(smallest & 0xFFFF, smallest >> 16) <= kSmallestHigh) count_small(value);
                }
            }
        }
    }

    // f16x3: adds how many values are too small, but not zero. They are rare, and their high parts at most
    // kSmallestHigh: but so are those of zeros, so look for the smallest that is none first.
    // Twice the bits of a number, minus 1, is ordered as magnitudes are, but zero comes last.
    __device__ __forceinline__ void count_small(const uint32_t (&value)[kLoadChannels]) {
        const uint32_t limit = 2 * __float_as_uint(kSmallestScaled / kXScale) - 1;
        uint32_t smallest = 0xFFFFFFFF;
#pragma unroll
        for (int i = 0; i < kLoadChannels; ++i) smallest = min(smallest, 2 * value[i] - 1);
        if (smallest >= limit) return;
#pragma unroll
        for (int i = 0; i < kLoadChannels; ++i) doubts += 2 * value[i] - 1 < limit;
    }

    // 16 bits: four times eight positions of four times eight channels, transposed.
    __device__ __forceinline__ void convert_halves(uint32_t raw, uint8_t* stage, int32_t q, int half) {
        const int32_t row_bytes = geometry.box_positions * 2;
        const uint32_t source = raw + lane * row_bytes;
        const uint32_t target = ptx::smem_address(stage);
        const int32_t last = (geometry.window - 1) / 8 * 8;
        uint32_t words[4][4], place[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int32_t first = min(q + 8 * i, last);  // beyond the last eight: these once more
            ptx::ldmatrix_x4_trans(words[i], source + 2 * raw_place(first));
            const int32_t row = stored_row(first + lane % 8);
            place[i] = target + row * kRowBytes + ((half * 4 + lane / 8) ^ (row & 7)) * 16;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) ptx::stmatrix_x4(place[i], words[i]);
    }

    __device__ __forceinline__ void run() {
        Ring raws, stages;
        stages.parity = 1;
        int32_t q = 32 * warp, ends = geometry.alternate ? 2 : 1;
        for (uint32_t taken = 0;; ++taken) {
            const int slot = wait_for_tile(barriers, taken);
            const bool end = barriers.tile[slot].tile < 0;
            for (int32_t chunk = 0; chunk < Traits::kChunks; ++chunk) {
                if (end && chunk > 0) {
                    stages.advance(geometry.x_stages);
                    continue;
                }
                // Every warp waits for and leaves every stage, also one in which it has no batch: else the
                // barriers could run two phases ahead of it, which to a parity looks like none.
                ptx::mbarrier_wait(barriers.x_empty(stages.stage), stages.parity);
                if (end) {  // the products look for it behind this barrier
                    if (lane == 0) ptx::mbarrier_arrive(barriers.x_full(stages.stage));
                    stages.advance(geometry.x_stages);
                    continue;
                }
                uint8_t* const stage = x_smem + stages.stage * geometry.x_stage_bytes;
#pragma unroll 1
                for (int half = 0; half < 2; half += kTogether) {
                    int32_t raw_stage[kTogether];
                    uint32_t raw[kTogether];
#pragma unroll
                    for (int i = 0; i < kTogether; ++i) {
                        ptx::mbarrier_wait(barriers.raw_full(raws.stage), raws.parity);
                        raw_stage[i] = raws.stage;
                        raw[i] = ptx::smem_address(raw_smem) + raws.stage * geometry.raw_stage_bytes;
                        raws.advance(geometry.raw_stages);
                    }
#pragma unroll 1
                    for (; q < geometry.window; q += 32 * StreamWarps<kN>::kConverters) {
                        if constexpr (Traits::kIsFloat) convert_floats(raw, stage, q + lane, half);
                        else convert_halves(raw[0], stage, q, half);
                    }
                    q -= static_cast<int32_t>(round_up(geometry.window, 32));
                    // Behind the stores: what they hold has been loaded by then.
                    if (half + kTogether == 2) ptx::fence_proxy_async();
                    __syncwarp();
#pragma unroll
                    for (int i = 0; i < kTogether; ++i)
                        if (lane == 0) ptx::mbarrier_arrive(barriers.raw_empty(raw_stage[i]));
                }
                if (kMode == Mode::f16x3 && doubts > 0) {
                    atomicAdd(&barriers.doubts[taken % kStreamCounters], doubts);
                    doubts = 0;
                }
                __syncwarp();
                if (lane == 0) ptx::mbarrier_arrive(barriers.x_full(stages.stage));
                stages.advance(geometry.x_stages);
            }
            if (end && --ends == 0) return;
            if (lane == 0) ptx::mbarrier_arrive(barriers.tile_empty(slot));
        }
    }
};

}  // namespace sm90
}  // namespace conv1d
''',
"stream_sm90_product.cuh": r'''
#line 1 "kernels/stream_sm90_product.cuh"
// The product warpgroups of the streaming convolution (stream_sm90.cuh): D = W * X by wgmma, then D to y.

#include <type_traits>









namespace conv1d {
namespace sm90 {

template <Mode kMode, int kN, int kTaps>
struct StreamProduct {
    using Traits = StreamTraits<kMode>;
    using Mma = WgmmaFromRegisters<Traits::kOperand, kN>;
    using Bits = typename Traits::Bits;
    using Element = std::conditional_t<Traits::kIsFloat, float,
                                       std::conditional_t<kMode == Mode::f16, __half, __nv_bfloat16>>;
    static constexpr int kValues = kN / 2, kLead = Traits::kLead, kAdvance = kN - kLead;
    static constexpr int kPitch = Traits::pitch(kN);
    static constexpr int kChunks = Traits::kChunks, kBlocks = kChunks * kTaps;

    const StreamGeometry& geometry;
    const Problem& problem;
    const StreamBarriers& barriers;
    const Scratch& scratch;
    const uint32_t x_smem16;  // in units of 16 bytes
    Bits* const staging;      // [8][kPitch], this warp's own
    const int warp, lane;     // warp of 8: 16 output channels each, or of four
    uint32_t weights[kBlocks][4][4];  // of a tap and chunk, steps of 32 bytes of K, as operand A

    __device__ __forceinline__ int32_t first_channel() const {
        return (geometry.alternate ? warp % 4 : warp) * 16;
    }

    __device__ __forceinline__ void load_weights() {
        const uint32_t* const image = reinterpret_cast<const uint32_t*>(scratch.image);
#pragma unroll
        for (int block = 0; block < kBlocks; ++block) {
#pragma unroll
            for (int i = 0; i < 16; ++i) {
                const int row = first_channel() + lane / 4 + i % 2 * 8, piece = i / 4 * 2 + i / 2 % 2;
                weights[block][i / 4][i % 4] =
                    __ldg(&image[((block * kTileO + row) * 8 + (piece ^ (row & 7))) * 4 + lane % 4]);
            }
        }
    }

    __device__ __forceinline__ void release(uint32_t barrier) {
        if (lane == 0) ptx::mbarrier_arrive(barrier);
    }

    // The product of step `w` of a tap's weights and step `x` of its rows.
    __device__ __forceinline__ void multiply_step(float (&acc)[kValues], int chunk, int tap, int w, int x,
                                                  uint32_t stage16, bool accumulate) {
        const uint32_t rows16 = stage16 + geometry.tap_row[tap] * (kRowBytes / 16);
        Mma::issue(acc, weights[chunk * kTaps + tap][w], ptx::wgmma_descriptor(rows16 + 2 * x),
                   accumulate);
    }

    // The stages of the tile that was taken as number `taken`; there are 2 or 4.
    __device__ __forceinline__ int32_t stage_of(uint32_t taken, int chunk) const {
        return (taken * kChunks + chunk) & (geometry.x_stages - 1);
    }
    __device__ __forceinline__ void wait_for_x(uint32_t taken, int chunk) const {
        ptx::mbarrier_wait(barriers.x_full(stage_of(taken, chunk)),
                           ((taken * kChunks + chunk) & geometry.x_stages) != 0);
    }

    // f16x3: the product warpgroups take turns, so that one multiplies while the other stores.
    __device__ __forceinline__ void wait_for_turn() const {
        if (warp < 4) ptx::bar_sync<kFirstTurn>(256);
        else ptx::bar_sync<kSecondTurn>(256);
    }
    __device__ __forceinline__ void give_turn() const {
        if (warp < 4) ptx::bar_arrive<kSecondTurn>(256);
        else ptx::bar_arrive<kFirstTurn>(256);
    }

    // All products of the tile that was taken as number `taken` into acc; its first stage is there, and all
    // its stages are left behind. f16x3: first the products with a low part, which are too large by
    // kLowScale: the accumulator truncates.
    __device__ __forceinline__ void multiply_tile(float (&acc)[kValues], uint32_t taken) {
        constexpr bool kIsSplit = kMode == Mode::f16x3;
        const auto stage16_of = [&](int chunk) {
            return x_smem16 + stage_of(taken, chunk) * (geometry.x_stage_bytes / 16);
        };
#pragma unroll
        for (int chunk = 0; chunk < kChunks; ++chunk) {
            if (chunk > 0) wait_for_x(taken, chunk);
            ptx::wgmma_fence();
#pragma unroll
            for (int tap = 0; tap < kTaps; ++tap) {
#pragma unroll
                for (int k = 0; k < 4; ++k)  // split: a high part times a low one, in turn
                    multiply_step(acc, chunk, tap, k, kIsSplit ? k ^ 2 : k, stage16_of(chunk),
                                  chunk > 0 || tap > 0 || k > 0);
            }
            ptx::wgmma_commit_group();
        }
        if constexpr (kIsSplit) {
            ptx::wgmma_wait_group<0>();
#pragma unroll
            for (int i = 0; i < kValues; ++i) acc[i] *= 1 / kLowScale;
            ptx::wgmma_fence();
#pragma unroll
            for (int chunk = 0; chunk < kChunks; ++chunk) {
#pragma unroll
                for (int tap = 0; tap < kTaps; ++tap) {
#pragma unroll
                    for (int k = 0; k < 2; ++k)
                        multiply_step(acc, chunk, tap, k, k, stage16_of(chunk), true);
                }
                ptx::wgmma_commit_group();
            }
        }
        if (kIsSplit) give_turn();
        if constexpr (kChunks > 1) {
            ptx::wgmma_wait_group<1>();
            release(barriers.x_empty(stage_of(taken, 0)));
        }
        ptx::wgmma_wait_group<0>();
        release(barriers.x_empty(stage_of(taken, kChunks - 1)));
    }

    // Row lane/4 of half `half` of this warp's output channels.
    __device__ __forceinline__ int32_t channel_of(int half) const {
        return first_channel() + 8 * half + lane / 4;
    }

    __device__ __forceinline__ float load_bias(int half) const {
        if (problem.bias == nullptr || channel_of(half) >= problem.O) return 0.0f;
        return widen(static_cast<const Element*>(problem.bias)[channel_of(half)]);
    }

    // Two neighbours of a row of D, as they lie in memory.
    using Pair = std::conditional_t<Traits::kIsFloat, float2, uint32_t>;
    using PairBits = std::conditional_t<Traits::kIsFloat, uint2, uint32_t>;
    static __device__ __forceinline__ Pair finish_pair(float first, float second, float scale, float bias) {
        if constexpr (kMode == Mode::f16x3)
            return make_float2(fmaf(first, scale, bias), fmaf(second, scale, bias));
        else
            return Product<kMode, 64, Layout::positions>::round_pair(first + bias, second + bias);
    }

    // Eight staged rows of D to y, of which `target` is where column kLead of the first belongs, position p
    // of its sample. Each row stores kAdvance columns from a 32-byte sector on; a lane moves a Piece of them
    // at once. Some rows are loaded before any of them is stored. kWhole: all positions exist, and all rows.
    template <class Piece, bool kWhole>
    __device__ __forceinline__ void store_rows(Bits* target, int32_t p, int32_t rows) const {
        constexpr int kCount = sizeof(Piece) / sizeof(Bits), kPieces = (kAdvance - 1) / (32 * kCount) + 1;
        constexpr int kRegisters = kPieces * (sizeof(Piece) == 8 ? 2 : 1);  // of a row
        constexpr int kTogether = kRegisters > 4 ? 2 : kRegisters > 3 ? 4 : 8;
        const uint32_t index = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(target) / sizeof(Bits));
        const auto phi_of = [&](int r) -> int32_t {
            if constexpr (kLead == 0) return 0;
            else return (index + r * static_cast<uint32_t>(problem.P)) % kLead;
        };
        const uint32_t source = ptx::smem_address(staging + kLead + kCount * lane);
        Bits* const y = target + kCount * lane;
        const auto exists = [&](int i) { return kCount * lane + 32 * kCount * i < kAdvance; };
#pragma unroll
        for (int first = 0; first < 8; first += kTogether) {
            Piece piece[kTogether][kPieces];
#pragma unroll
            for (int r = 0; r < kTogether; ++r) {
#pragma unroll
                for (int i = 0; i < kPieces; ++i)
                    if (exists(i))
                        ptx::ld_shared(piece[r][i], source + ((first + r) * kPitch - phi_of(first + r) +
                                                              32 * kCount * i) *
                                                                 static_cast<int>(sizeof(Bits)));
            }
#pragma unroll
            for (int r = 0; r < kTogether; ++r) {
                const int32_t phi = phi_of(first + r);
                Bits* const row = y + ((first + r) * problem.P - phi);
#pragma unroll
                for (int i = 0; i < kPieces; ++i) {
                    const int32_t at = p - phi + kCount * lane + 32 * kCount * i;
                    if (exists(i) && (kWhole || (first + r < rows && at >= 0 && at < problem.P)))
                        *reinterpret_cast<Piece*>(row + 32 * kCount * i) = piece[r][i];
                }
            }
        }
    }

    // D through shared memory to y, 8 output channels at a time. `scale` undoes the scales of f16x3.
    __device__ __forceinline__ void store_tile(float (&acc)[kValues], const Announcement& place,
                                               const float (&scale)[2]) {
        const int32_t p = place.row + kLead;
        const bool inside = p >= kLead && p + kAdvance <= problem.P;
        Bits* const y =
            static_cast<Bits*>(problem.y) + (place.sample * problem.O + first_channel()) * problem.P + p;
        const float bias[2] = {load_bias(0), load_bias(1)};
        // f16x3 finishes all before it stages any, or stores would hold up its registers.
        Pair pair[kValues / 2];
#pragma unroll
        for (int i = 0; i < kValues / 2; ++i) {
            pair[i] = finish_pair(acc[2 * i], acc[2 * i + 1], scale[i % 2], bias[i % 2]);
            if (Traits::kIsSplit) ptx::settle(pair[i]);
        }
#pragma unroll 1
        for (int half = 0; half < 2; ++half) {
            const int32_t rows = static_cast<int32_t>(problem.O) - first_channel() - 8 * half;
            const uint32_t staged = ptx::smem_address(staging + lane / 4 * kPitch + 2 * (lane % 4));
#pragma unroll
            for (int i = 0; i < 2; ++i) {  // registers have no index
                if (i != half) continue;
#pragma unroll
                for (int j = 0; j < kN / 8; ++j)
                    ptx::st_shared(staged + 8 * j * sizeof(Bits), pair[2 * j + i]);
            }
            __syncwarp();
            if (problem.activation != Activation::none)
                activate_staged(problem.activation, reinterpret_cast<Element*>(staging), 8 * kPitch);
            Bits* const target = y + 8 * half * problem.P;
            if (geometry.paired && inside && rows >= 8) store_rows<PairBits, true>(target, p, rows);
            else if (geometry.paired) store_rows<PairBits, false>(target, p, rows);
            else store_rows<Bits, false>(target, p, rows);
            __syncwarp();
        }
    }

    // f16x3: what undoes the scales of x and w, and how many weights are too small.
    __device__ __forceinline__ float2 load_scaling(int half) const {
        return scratch.row_scaling[channel_of(half)];
    }

    // f16x3: whether x and weights are in range, and sums large enough for the values that were too small;
    // see kSumOfSmallX.
    __device__ __forceinline__ bool sums_suffice(const float (&acc)[kValues], const Announcement& place,
                                                 int32_t doubts) const {
        if (doubts >= kTooLarge) return false;
        const float of_x = kSumOfSmallX * static_cast<float>(doubts);
        const float2 scaling[2] = {load_scaling(0), load_scaling(1)};
        const float least[2] = {channel_of(0) < problem.O ? of_x + kSumOfSmallW * scaling[0].y : 0.0f,
                                channel_of(1) < problem.O ? of_x + kSumOfSmallW * scaling[1].y : 0.0f};
        bool suffice = scaling[0].x > 0.0f && scaling[1].x > 0.0f;
        const int32_t begin = place.row + 2 * (lane % 4);
#pragma unroll
        for (int i = 0; i < kValues; ++i) {
            const uint32_t p = begin + 8 * (i / 4) + i % 2;
            suffice &= fabsf(acc[i]) >= least[i / 2 % 2] || p >= static_cast<uint32_t>(problem.P);
        }
        return __all_sync(0xFFFFFFFF, suffice);
    }

    __device__ __forceinline__ void run() {
        ptx::griddepcontrol_wait();  // for packed weights; x is ordered and converted meanwhile
        load_weights();
        float scale[2] = {1.0f, 1.0f};
        bool doubtful = false;  // f16x3: some weights of this warp are out of range or too small
        if constexpr (kMode == Mode::f16x3) {
            const float2 scaling[2] = {load_scaling(0), load_scaling(1)};
            scale[0] = scaling[0].x, scale[1] = scaling[1].x;
            const bool right = scale[0] > 0.0f && scale[1] > 0.0f && scaling[0].y + scaling[1].y == 0.0f;
            doubtful = !__all_sync(0xFFFFFFFF, right);
            if (warp >= 4) give_turn();  // the first one is the other's
        }
        const uint32_t step = geometry.alternate ? 2 : 1;
        for (uint32_t taken = geometry.alternate ? warp / 4 : 0;; taken += step) {
            if (kMode == Mode::f16x3) wait_for_turn();
            wait_for_x(taken, 0);  // what is converted has been announced
            const int slot = taken % kStreamTileSlots;
            if (__shfl_sync(0xFFFFFFFF, barriers.tile[slot].tile, 0) < 0) break;
            float acc[kValues];
            multiply_tile(acc, taken);
            const Announcement place = read_tile(barriers, slot);  // only now: registers are scarce
            if constexpr (kMode == Mode::f16x3) {
                const int32_t doubts = __shfl_sync(0xFFFFFFFF, barriers.doubts[taken % kStreamCounters], 0);
                if ((doubtful || doubts > 0) && !sums_suffice(acc, place, doubts)) {
                    const int32_t end = min(place.row + kN, static_cast<int32_t>(problem.P));
                    if (lane == 0)
                        list_overlapped(geometry.safe, problem, scratch, place.sample,
                                        {max(place.row, 0), end}, 0, {0, static_cast<int32_t>(problem.O)});
                    __syncwarp();
                }
            }
            release(barriers.tile_empty(slot));
            store_tile(acc, place, scale);
        }
        if (kMode == Mode::f16x3) give_turn();
    }
};

}  // namespace sm90
}  // namespace conv1d
''',
"stream_sm90.cuh": r'''
#line 1 "kernels/stream_sm90.cuh"
// Dense convolution on Hopper where sums are short and positions many: bound by memory, not by products.
//
// Chosen for two or three taps, 33 to 64 input and 65 to 128 output channels: their packed weights fit into
// the registers of the product warpgroups for the life of a persistent block; and for x that the copy engine
// can load. One warp draws tickets and orders boxes of x by a tensor map: they pass the load and store units
// by. Taps that lie far apart have a box each. Converter warps round, split or transpose them into K-major
// rows of 128 bytes, as in gemm_sm90.cuh: a tap is a plane and a row shift. Two product warpgroups of 64
// output channels each multiply (weights are operand A), stage D and store it by plain stores along the rows
// of y, from 32-byte sectors on: the first kLead columns are computed for that. Of up to 64 output channels,
// each takes every other tile instead. fp32 runs as three fp16
// products; tiles that those cannot hold are done again by gemm_sm90.cuh. Cost: one pass over x and y, at 80
// to 95 % of the speed of a copy. results/findings.md has what was measured.












namespace conv1d {
namespace sm90 {

template <Mode kMode, int kN, int kTaps>
__global__ void __launch_bounds__(StreamWarps<kN>::kThreads, 1)
    stream_sm90_kernel(const __grid_constant__ TensorMap x_map, const __grid_constant__ Problem problem,
                       const __grid_constant__ StreamGeometry geometry,
                       const __grid_constant__ Scratch scratch) {
#if __CUDA_ARCH__ == 900
    using Warps = StreamWarps<kN, kTaps>;
    ptx::griddepcontrol_launch_dependents();
    extern __shared__ uint8_t smem_base[];
    uint8_t* const smem = smem_base + ((1024 - (ptx::smem_address(smem_base) & 1023)) & 1023);
    uint8_t* const raw_smem = smem + geometry.x_stages * geometry.x_stage_bytes;
    uint8_t* const staging = raw_smem + geometry.raw_stages * geometry.raw_stage_bytes;
    using Traits = StreamTraits<kMode>;
    constexpr int kWarpStagingBytes = Traits::warp_staging_bytes(kN);
    uint8_t* const control = staging + kProductWarps * kWarpStagingBytes;
    Announcement* const announcements = reinterpret_cast<Announcement*>(control + kStreamBarrierBytes);
    int32_t* const counters = reinterpret_cast<int32_t*>(announcements + kStreamTileSlots);
    const StreamBarriers barriers{ptx::smem_address(control), announcements, counters};
    if (threadIdx.x == 0) {
        const int consumers = geometry.alternate ? kProductWarps / 2 : kProductWarps;
        for (int i = 0; i < kMostRawStages; ++i) {
            ptx::mbarrier_init(barriers.raw_full(i), 1);
            ptx::mbarrier_init(barriers.raw_empty(i), Warps::kConverters);
        }
        for (int i = 0; i < kMostXStages; ++i) {
            ptx::mbarrier_init(barriers.x_full(i), Warps::kConverters);
            ptx::mbarrier_init(barriers.x_empty(i), consumers);
        }
        for (int i = 0; i < kStreamTileSlots; ++i) {
            ptx::mbarrier_init(barriers.tile_full(i), 1);
            ptx::mbarrier_init(barriers.tile_empty(i), consumers + Warps::kConverters);
        }
        ptx::fence_mbarrier_init();
    }
    __syncthreads();
    // Through a shuffle, so that the compiler knows it is the same in the whole warp.
    const int warp = __shfl_sync(0xFFFFFFFF, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
    if (warp < kProductWarps) {
        ptx::setmaxnreg_inc<Warps::kProductRegisters>();
        StreamProduct<kMode, kN, kTaps> product{
            geometry,
            problem,
            barriers,
            scratch,
            ptx::smem_address(smem) / 16,
            reinterpret_cast<typename Traits::Bits*>(staging + warp * kWarpStagingBytes),
            warp,
            lane};
        product.run();
    } else {
        ptx::setmaxnreg_dec<Warps::kOtherRegisters>();
        if (warp < kProductWarps + Warps::kConverters) {
            StreamConverter<kMode, kN> converter{geometry,
                                             problem,
                                             barriers,
                                             scratch,
                                             smem,
                                             raw_smem,
                                             warp - kProductWarps,
                                             lane};
            converter.run();
        } else if (ptx::elect()) {
            order_boxes<kMode, kN>(geometry, problem, x_map, ptx::smem_address(raw_smem), barriers,
                                   scratch.tickets);
        }
    }
#endif
}

template <Mode kMode, int kN, int kTaps = kMostStreamTaps>
inline Error launch_stream_products(const Problem& problem, const StreamGeometry& geometry,
                                    const Scratch& scratch, cudaStream_t stream) {
    TensorMap x_map;
    constexpr int kChannels = StreamTraits<kMode>::kRawChannels;
    Error error = encode_tensor_map(problem, geometry.box_positions, kChannels, &x_map);
    if (error == nullptr) error = allow_smem<stream_sm90_kernel<kMode, kN, kTaps>>(problem.device);
    if (error != nullptr) return error;
    const int blocks = geometry.tiles < problem.device.sm_count ? geometry.tiles : problem.device.sm_count;
    return launch_shaped(stream_sm90_kernel<kMode, kN, kTaps>,
                         {blocks, 1, StreamWarps<kN>::kThreads, geometry.smem_bytes, true}, stream, x_map,
                         problem, geometry, scratch);
}

template <Mode kMode>
inline Error launch_stream(const Problem& problem, const StreamGeometry& geometry, cudaStream_t stream) {
    Scratch scratch;
    const Geometry packed = packing<kMode>(problem);
    lay_out<kMode>(problem, packed, static_cast<uint8_t*>(problem.workspace), &scratch);
    const auto multiply = [&] {
        constexpr int kWidest = kWidestColumns<kMode>, kWide = kWideColumns<kMode>;
        if (problem.K == 2)
            return launch_stream_products<kMode, kWide, 2>(problem, geometry, scratch, stream);
        if (geometry.columns == kWidest)
            return launch_stream_products<kMode, kWidest>(problem, geometry, scratch, stream);
        if (geometry.columns == kWide)
            return launch_stream_products<kMode, kWide>(problem, geometry, scratch, stream);
        return launch_stream_products<kMode, kNarrowColumns<kMode>>(problem, geometry, scratch, stream);
    };
    if constexpr (kMode == Mode::f16x3) {
        const Geometry safe = choose_cut<Mode::tf32x3>(problem).geometry;
        pack_split_weights<Mode::tf32x3>(problem, packed, safe, scratch, stream);
        const Error error = multiply();
        return error == nullptr ? launch_listed_tiles(problem, scratch, stream) : error;
    } else {
        pack_weights<kMode>(problem, packed, scratch, stream);
        return multiply();
    }
}

}  // namespace sm90

inline Error launch_stream_sm90(const Problem& problem, cudaStream_t stream) {
    return sm90::with_mode(problem, [&](auto mode) {
        constexpr sm90::Mode kMode = decltype(mode)::value;
        return sm90::launch_stream<kMode>(problem, sm90::choose_stream_cut<kMode>(problem), stream);
    });
}

}  // namespace conv1d
''',
"stream_sm90.cu": r'''
#line 1 "kernels/stream_sm90.cu"
// The translation unit of route "stream_sm90".



const conv1d::Route conv1d::kStreamSm90 = {"stream_sm90", fits_stream_sm90, workspace_stream_sm90,
                                           launch_stream_sm90};
''',
"toeplitz.cuh": r'''
#line 1 "kernels/toeplitz.cuh"
// Depthwise convolution on tensor cores: one input channel a group, stride 1, any taps and dilation, 16-bit
// dtypes and TF32, sm_80 and later. Bound by memory up to some hundred taps.
//
// A strip is 8 neighbours of y. With row m of A the x from strip m on and T[k][n] = w[k-n] (zero where there
// is no such tap; taps of a dilated filter have zeros between them):
//
//   y[8*m + n] = sum over k of x[8*m + k] * T[k][n]
//
// A product m16n8k16 (of TF32, m16n8k8) adds 16 (8) of the K + 7 (and one for odd padding) numbers k to 16
// strips. These lie in 16 stretches of y, one strip in each, so that the strip of the next product is the
// stretch's next: a register of x serves 7 or 8 products.
//
// A warp takes 16 stretches of up to 7 strips, a block some warps, of one row of y or of several. x comes to
// shared memory as it lies in global memory, by 16-byte copies that need no registers; y is put in order
// there. A zero of T times inf or NaN of x is NaN: outputs that are NaN are summed again, by multiply-adds.

#include <algorithm>






namespace conv1d {
namespace toeplitz {

constexpr int kStrip = 8;       // positions
constexpr int kStretches = 16;  // of a warp: the rows of a product
constexpr int kRowsWarps = 4;   // of a block of several rows, at most
constexpr int kMaxRounds = 16;  // samples of a block, of
constexpr int kFewSteps = 64;   // no more products in a row: of more, loads cost nothing
constexpr int kMaxO = 4;
constexpr int kMaxTiles = 7;     // strips of a stretch. Odd, so that 8 stretches begin in different banks
constexpr int kMaxWarps = 8;     // of a block
// Of kMaxWarps, that share a multiprocessor: 80 registers a thread. ptxas spills for later architectures.
constexpr int blocks_per_sm(int arch) { return arch >= 100 ? 2 : 3; }
#ifdef __CUDA_ARCH__
constexpr int kBlocksPerSm = blocks_per_sm(__CUDA_ARCH__ / 10);
#else
constexpr int kBlocksPerSm = 1;  // the host compiles no kernel
#endif
constexpr int kFewTaps = 8, kFarTaps = 16, kNearBytes = 1536;  // see prefers_sums
constexpr int kGapTaps = 128, kGapTaps16 = 32;  // likewise where x has gaps, of floats and in 16 bits
constexpr int kAlignBytes = 32;  // where the stores of a warp begin: of parts of sectors, L2 takes fewer

template <class Element_>
struct Traits {
    using Element = Element_;
    static constexpr bool k16Bit = sizeof(Element) == 2;
    static constexpr int kWide = 16 / sizeof(Element);
    static constexpr int kDepth = 32 / sizeof(Element);          // of a product
    static constexpr int kStepStrips = kDepth / kStrip;          // by which a step moves the window
    static constexpr int kWindow = kMaxTiles + kStepStrips - 1;  // strips that the products of one step read
    static constexpr int kRotation = kWindow / kStepStrips;      // steps after which registers' roles repeat
    static constexpr int kWCopies = k16Bit ? 2 : 1;
    // 16-bit rows fit below the 48 KB that need no permission; of long rows of floats two blocks share an SM.
    static constexpr int kSmemBytes = k16Bit ? kPlainSmemBytes : 112 << 10;
    static_assert(kWindow % kStepStrips == 0, "a rotation must be whole steps");
};

// Two neighbours, as products take them.
template <class Element>
struct PairOf {
    using Type = uint32_t;
};
template <>
struct PairOf<float> {
    using Type = uint2;
};

struct Params {
    Problem problem;
    uint32_t channels;        // of y: G*O
    uint32_t channel_blocks;  // of rows_per_block channels each
    uint32_t segments;        // of a row of y, each the work of warps_per_row warps
    int32_t rows_per_block;
    int32_t warps_per_row;
    uint32_t rounds;    // samples that a block takes, one after the other
    int32_t x_buffers;  // 2 where these may be several
    int32_t tiles;      // strips of a stretch
    int32_t steps;      // products from tap 0 to the last
    int32_t x_elems;    // shared memory of a row's x
    int32_t w_elems;    // of one of the copies, or parts, of its taps
    int32_t row_bytes;  // of all: visits, x, w, y
};

// A row of one sample, as its warps see it. Computed once and kept in shared memory, where it costs no
// registers. Places in y and x count from `y` and `x`.
template <class Element>
struct alignas(16) Visit {
    const Element* x;  // aligned where rows are without gaps: at or up to 7 before the x under y and tap 0
    Element* y;        // of the segment's first position
    int32_t x_first;   // the x under y and tap 0
    int32_t x_begin, x_end;  // where the input row begins and ends
    int32_t y_end;           // what is stored
    int32_t y_shift;         // how far y is from aligned
    int32_t w_shift;         // how far T is moved down, so that pairs of x are aligned in most rows: 0 or 1
    float bias;              // of the channel
    const Element* w;        // the channel's taps
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

// Which products are summed together must not depend on where a row lies in memory: strips begin with y's
// position 0, and T moves by what the padding asks for.
template <class Traits, class Element = typename Traits::Element>
__device__ __forceinline__ Visit<Element> plan_visit(const Params& params, uint32_t n, uint32_t channel,
                                                     int64_t segment_first, int strips) {
    constexpr int kWide = Traits::kWide;
    const Problem& problem = params.problem;
    const uint32_t c = channel / static_cast<uint32_t>(problem.O);
    Visit<Element> visit;
    visit.y =
        static_cast<Element*>(problem.y) + (n * static_cast<int64_t>(params.channels) + channel) * problem.P;
    visit.y_shift = misalignment<kAlignBytes / sizeof(Element)>(visit.y);
    visit.y += segment_first;
    visit.y_end = static_cast<int>(min(problem.P - segment_first, int64_t{strips * kStrip}));
    visit.x = static_cast<const Element*>(problem.x) + n * problem.x_stride_n + c * problem.x_stride_c;
    int64_t l_first = segment_first - problem.pad_left;
    visit.x_first = problem.x_stride_l == 1 ? misalignment<kWide>(visit.x + l_first) : 0;
    visit.w_shift = static_cast<int>(problem.pad_left % 2);
    if (visit.x_first < visit.w_shift) visit.x_first += kWide;
    l_first -= visit.x_first;
    visit.x += l_first * problem.x_stride_l;
    const Inside inside = inside_row(l_first, problem.L, params.x_elems);
    visit.x_begin = inside.begin;
    visit.x_end = inside.end;
    if (channel >= params.channels) {
        visit.x_begin = visit.x_end = visit.y_end = 0;
        return visit;
    }
    visit.w = static_cast<const Element*>(problem.w) + channel * problem.K;
    visit.bias = problem.bias == nullptr ? 0 : widen(static_cast<const Element*>(problem.bias)[channel]);
    return visit;
}

// Starts to bring the x of a visit. Rows without gaps come in chunks of 16 bytes: by copies, which can put
// zeros in the place of all, or, where a row begins or ends inside of one, element by element, as rows with
// gaps do.
template <class Element>
__device__ __forceinline__ void fetch_x(const Visit<Element>& visit, int64_t x_stride_l, int count,
                                        Element* x_smem, int thread, int threads) {
    constexpr int kWide = 16 / sizeof(Element);
    const int x_begin = visit.x_begin, x_end = visit.x_end;
    if (x_stride_l == 1) {
        const Element* x = visit.x + thread * kWide;
        uint32_t target = ptx::smem_address(x_smem + thread * kWide);
#pragma unroll 1
        for (int i = thread * kWide; i < count; i += threads * kWide) {
            const int begin = max(x_begin - i, 0), end = min(x_end - i, kWide);  // of this chunk
            const bool is_whole = begin == 0 && end == kWide;
            if (is_whole || begin >= end) {
                ptx::cp_async_16(target, x, is_whole ? 16 : 0);
            } else {
                Vector<Element, kWide> some;
#pragma unroll
                for (int j = 0; j < kWide; ++j)
                    some.at[j] = j >= begin && j < end ? x[j] : narrow<Element>(0);
                *reinterpret_cast<Vector<Element, kWide>*>(x_smem + i) = some;
            }
            x += threads * kWide;
            target += threads * 16;
        }
    } else {
        constexpr int kBatch = 4;  // loads in flight
#pragma unroll 1
        for (int i = thread; i < count; i += kBatch * threads) {
            Element values[kBatch];
#pragma unroll
            for (int j = 0; j < kBatch; ++j) {
                const int at = i + j * threads;
                values[j] = at >= x_begin && at < x_end ? visit.x[at * x_stride_l] : narrow<Element>(0);
            }
#pragma unroll
            for (int j = 0; j < kBatch; ++j) {
                if (i + j * threads < count) x_smem[i + j * threads] = values[j];
            }
        }
    }
    ptx::cp_async_commit_group();
}

// The taps with the zeros around and between them: tap k at element kStrip + k*dilation. In 16 bits the
// second copy is one element ahead, so that any two neighbours are an aligned word of one of them.
template <class Traits, class Element = typename Traits::Element>
__device__ __forceinline__ void fetch_w(const Problem& problem, const Element* w, int w_elems,
                                        Element* w_smem, int thread, int threads) {
    const uint32_t dilation = static_cast<uint32_t>(problem.dilation);
#pragma unroll 1
    for (int i = thread; i < w_elems; i += threads) {
        const uint32_t offset = i - kStrip;  // huge before tap 0
        const uint32_t k = offset / dilation;
        const bool tap = k < problem.K && k * dilation == offset;
        const Element value = tap ? w[k] : narrow<Element>(0);
        if constexpr (Traits::k16Bit) {
            w_smem[i] = value;
            if (i > 0) w_smem[w_elems + i - 1] = value;
        } else {
            w_smem[i] = __uint_as_float(ptx::cvt_rna_tf32(value));
        }
    }
}

// To TF32, to nearest, ties away from zero: the product cuts what is below. inf and NaN become NaN, which is
// mended: cvt.rna would keep them, in more instructions.
__device__ __forceinline__ uint32_t round_or_nan(float value) {
    return __float_as_uint(fmaf(value, 0.0f, __uint_as_float(__float_as_uint(value) + 0x1000)));
}

// A pair of x from shared memory; kApart: it is not aligned.
template <bool kApart, class Element>
__device__ __forceinline__ typename PairOf<Element>::Type load_x(const Element* x) {
    if constexpr (sizeof(Element) == 2) {
        if (!kApart) return *reinterpret_cast<const uint32_t*>(x);
        const uint32_t* const words = reinterpret_cast<const uint32_t*>(x - 1);
        return words[0] >> 16 | words[1] << 16;
    } else {
        float2 pair;
        if (kApart) pair = {x[0], x[1]};
        else pair = *reinterpret_cast<const float2*>(x);
        return {round_or_nan(pair.x), round_or_nan(pair.y)};
    }
}

// The x of a product: of the lower and the upper half of its rows, the window's strips from `strip` on.
template <int kWindow>
__device__ __forceinline__ uint4 x_frag(const uint32_t (&window)[2][kWindow], int strip) {
    const int lower = strip % kWindow, upper = (strip + 1) % kWindow;
    return {window[0][lower], window[1][lower], window[0][upper], window[1][upper]};
}
template <int kWindow>
__device__ __forceinline__ uint4 x_frag(const uint2 (&window)[2][kWindow], int strip) {
    const int at = strip % kWindow;
    return {window[0][at].x, window[1][at].x, window[0][at].y, window[1][at].y};
}

// Whether one of the numbers in 16 bytes may be NaN.
template <class Element>
__device__ __forceinline__ bool holds_nan(uint4 words) {
    if constexpr (sizeof(Element) == 4) {
        const float sum = __uint_as_float(words.x) + __uint_as_float(words.y) + __uint_as_float(words.z) +
                          __uint_as_float(words.w);
        return sum != sum;
    }
    constexpr uint32_t kInf = std::is_same<Element, __half>::value ? 0x7c00 : 0x7f80;
    constexpr uint32_t kCarry = (0x7fff - kInf) * 0x10001;  // lifts just what is above inf into the sign bit
    uint32_t seen = 0;
    seen |= (words.x & 0x7fff7fff) + kCarry;
    seen |= (words.y & 0x7fff7fff) + kCarry;
    seen |= (words.z & 0x7fff7fff) + kCarry;
    seen |= (words.w & 0x7fff7fff) + kCarry;
    return (seen & 0x80008000) != 0;
}

// The sums of a warp's outputs: of stretch group (+ 8) and strip `tile`, numbers 2*t and 2*t + 1.
template <class Traits, bool kApart, class Element = typename Traits::Element>
__device__ __forceinline__ void add_products(const Params& params, const Visit<Element>& visit,
                                             int strip_first, const Element* x_smem, const Element* w_smem,
                                             float (&sum)[kMaxTiles][4]) {
    using Pair = typename PairOf<Element>::Type;
    constexpr int kDepth = Traits::kDepth;
    constexpr int kStepStrips = Traits::kStepStrips, kWindow = Traits::kWindow;
    constexpr int kRotation = Traits::kRotation;
    const Problem& problem = params.problem;
    const int tiles = params.tiles;
    const int lane = threadIdx.x % 32, group = lane / 4, t = lane % 4;
    const int x_begin = strip_first * kStrip + visit.x_first - visit.w_shift;
    // This lane's pair of the stretch's first strip, in A's upper half, and from there to the lower half.
    const Element* const x_lane = x_smem + x_begin + group * tiles * kStrip + 2 * t;
    const int half_elems = 8 * tiles * kStrip;
    const int w_first = kStrip + 2 * t - group - visit.w_shift;
    const Element* const w_lane =
        Traits::k16Bit ? w_smem + w_first % 2 * params.w_elems + w_first / 2 * 2 : w_smem + w_first;

    // Steps that see nothing but padding are left out.
    const int reach = x_begin + (kStretches * tiles - 1) * kStrip + kDepth;  // of step 0
    int step = max(visit.x_begin - reach, 0) / kDepth;
    const int steps_end = min(params.steps, (max(visit.x_end - x_begin, 0) + kDepth - 1) / kDepth);
    const uint32_t dilation = static_cast<uint32_t>(problem.dilation);
#pragma unroll 1
    while (step < steps_end) {
        // A run of steps. Where taps lie far apart, those without a tap are left out: each tap is a run then.
        int run_end = steps_end;
        if (dilation >= kDepth + kStrip) {
            const uint32_t k = (max(step * kDepth - kStrip, 0) + dilation - 1) / dilation;
            if (k >= problem.K) break;
            const int tap = static_cast<int>(k * dilation);
            step = max(step, tap / kDepth);
            run_end = min(run_end, (tap + kStrip) / kDepth + 1);
        }
        Pair window[2][kWindow];  // strip i of the run's x in window[half][i % kWindow]
        const auto load_strip = [&](int strip, int place) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                window[half][place] = load_x<kApart>(x_lane + half * half_elems + strip * kStrip);
            }
        };
#pragma unroll
        for (int i = 0; i < kWindow - kStepStrips; ++i) load_strip(kStepStrips * step + i, i);
#pragma unroll 1
        for (; step < run_end; step += kRotation) {
#pragma unroll
            for (int r = 0; r < kRotation; ++r) {
                if (step + r >= run_end) break;
#pragma unroll
                for (int i = kWindow - kStepStrips; i < kWindow; ++i) {
                    load_strip(kStepStrips * (step + r) + i, (kStepStrips * r + i) % kWindow);
                }
                const uint32_t* w = reinterpret_cast<const uint32_t*>(w_lane + (step + r) * kDepth);
                const uint2 w_frag = {w[0], w[Traits::k16Bit ? kStrip / 2 : 1]};
                // Also beyond `tiles`: what comes of it is not stored.
#pragma unroll
                for (int tile = 0; tile < kMaxTiles; ++tile) {
                    ptx::mma<Element>(sum[tile], x_frag(window, kStepStrips * r + tile), w_frag);
                }
            }
        }
        step = run_end;
    }
}

// Puts a warp's sums in order. kApart: pairs are not aligned.
template <bool kApart, class Element>
__device__ __forceinline__ void stage_y(const float (&sum)[kMaxTiles][4], float bias, int tiles, int y_shift,
                                        Element* y_smem) {
    const int lane = threadIdx.x % 32, group = lane / 4, t = lane % 4;
#pragma unroll
    for (int tile = 0; tile < kMaxTiles; ++tile) {
        if (tile >= tiles) break;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            Vector<Element, 2> pair;
            pair.at[0] = narrow<Element>(sum[tile][2 * half] + bias);
            pair.at[1] = narrow<Element>(sum[tile][2 * half + 1] + bias);
            Element* const target = y_smem + y_shift + ((half * 8 + group) * tiles + tile) * kStrip + 2 * t;
            if constexpr (kApart) {
                target[0] = pair.at[0];
                target[1] = pair.at[1];
            } else {
                *reinterpret_cast<Vector<Element, 2>*>(target) = pair;
            }
        }
    }
}

// x or w as it is multiplied.
template <class Traits>
__device__ __forceinline__ float operand(typename Traits::Element value) {
    if constexpr (!Traits::k16Bit) return __uint_as_float(ptx::cvt_rna_tf32(value));
    else return widen(value);
}

// Sums again those of the outputs [begin, end) that are NaN; `x` is under output 0 and tap 0.
template <class Traits, class Element = typename Traits::Element>
__device__ __forceinline__ void mend(const Problem& problem, const Visit<Element>& visit, const Element* x,
                                     int begin, int end, Element* y_smem) {
    const int taps = static_cast<int>(problem.K), dilation = static_cast<int>(problem.dilation);
#pragma unroll 1
    for (int i = begin; i < end; ++i) {
        float sum = widen(y_smem[i]);
        if (sum == sum) continue;
        sum = visit.bias;
#pragma unroll 1
        for (int k = 0; k < taps; ++k)
            sum += operand<Traits>(visit.w[k]) * operand<Traits>(x[i + k * dilation]);
        y_smem[i] = narrow<Element>(sum);
    }
}

// Stores a row's strips, 16 bytes a thread of the row.
template <class Traits, class Element = typename Traits::Element>
__device__ __forceinline__ void store_y(const Params& params, const Visit<Element>& visit,
                                        const Element* x_smem, Element* y_smem, int thread, int threads) {
    constexpr int kWide = Traits::kWide;
    const Activation activation = params.problem.activation;
#pragma unroll 1
    for (int i = thread * kWide; i < visit.y_end + visit.y_shift; i += threads * kWide) {
        const int first = i - visit.y_shift;  // aligned in y and in y_smem
        Element* const values = y_smem + i;
        const int begin = max(-first, 0), end = min(visit.y_end - first, kWide);
        if (holds_nan<Element>(*reinterpret_cast<const uint4*>(values))) {
            mend<Traits>(params.problem, visit, x_smem + visit.x_first + first, begin, end, values);
        }
        if (activation != Activation::none) {
#pragma unroll 1
            for (int j = 0; j < kWide; ++j) values[j] = activate<Element>(activation, widen(values[j]));
        }
        if (begin == 0 && end == kWide) {
            *reinterpret_cast<uint4*>(visit.y + first) = *reinterpret_cast<const uint4*>(values);
            continue;
        }
        const auto some = *reinterpret_cast<const Vector<Element, kWide>*>(values);
#pragma unroll
        for (int j = 0; j < kWide; ++j) {
            if (j >= begin && j < end) visit.y[first + j] = some.at[j];
        }
    }
}

#endif

template <class Traits>
__global__ void __launch_bounds__(kMaxWarps * 32, kBlocksPerSm)
    depthwise_toeplitz_kernel(const __grid_constant__ Params params) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    using Element = typename Traits::Element;
    extern __shared__ __align__(16) unsigned char smem[];
    const Problem& problem = params.problem;
    const int thread = threadIdx.x, threads = params.warps_per_row * 32;  // of a row
    const int strips = params.warps_per_row * kStretches * params.tiles;
    const int strip_first = thread / 32 * kStretches * params.tiles;  // of the warp

    // Rows and blocks are fewer than 2^31 (fits_toeplitz): divisions are of 32 bits.
    uint32_t block = blockIdx.x;
    int64_t segment_first = 0;
    if (params.segments > 1) {
        segment_first = block % params.segments * static_cast<int64_t>(strips * kStrip);
        block /= params.segments;
    }
    const uint32_t channel = block % params.channel_blocks * params.rows_per_block + threadIdx.y;
    const uint32_t n = block / params.channel_blocks * params.rounds;
    const int rounds = static_cast<int>(min(static_cast<uint32_t>(problem.N) - n, params.rounds));

    Visit<Element>* const visits = reinterpret_cast<Visit<Element>*>(smem + threadIdx.y * params.row_bytes);
    Element* const x_smem = reinterpret_cast<Element*>(visits + kMaxRounds);
    Element* const w_smem = x_smem + params.x_buffers * params.x_elems;
    Element* const y_smem = w_smem + Traits::kWCopies * params.w_elems;
    if (thread < rounds)
        visits[thread] = plan_visit<Traits>(params, n + thread, channel, segment_first, strips);
    __syncthreads();
    const int count = (strips + Traits::kStepStrips * params.steps + 1) * kStrip;
    fetch_x(visits[0], problem.x_stride_l, count, x_smem, thread, threads);
    if (channel < params.channels) {
        fetch_w<Traits>(problem, visits[0].w, params.w_elems, w_smem, thread, threads);
    }
#pragma unroll 1
    for (int round = 0; round < rounds; ++round) {
        // The next sample's x comes while this one's is multiplied.
        ptx::cp_async_wait_group<0>();
        __syncthreads();
        if (round + 1 < rounds) {
            fetch_x(visits[round + 1], problem.x_stride_l, count, x_smem + (round + 1) % 2 * params.x_elems,
                    thread, threads);
        }
        const Visit<Element>& visit = visits[round];
        const Element* const x_now = x_smem + round % 2 * params.x_elems;
        if (strip_first * kStrip < visit.y_end) {
            float sum[kMaxTiles][4] = {};
            // Where a row begins at another parity than most do, pairs of x are not aligned.
            if ((visit.x_first - visit.w_shift) % 2 == 0) {
                add_products<Traits, false>(params, visit, strip_first, x_now, w_smem, sum);
            } else {
                add_products<Traits, true>(params, visit, strip_first, x_now, w_smem, sum);
            }
            Element* const y_warp = y_smem + strip_first * kStrip;
            if (visit.y_shift % 2 == 0) {
                stage_y<false>(sum, visit.bias, params.tiles, visit.y_shift, y_warp);
            } else {
                stage_y<true>(sum, visit.bias, params.tiles, visit.y_shift, y_warp);
            }
        }
        __syncthreads();  // the row is in order
        store_y<Traits>(params, visit, x_now, y_smem, thread, threads);
    }
#endif
}

// Positions that the taps span. Taps further apart than this fit no block's shared memory.
constexpr int64_t kMaxSpan = 1 << 14;
inline int64_t span(const Problem& problem) {
    const bool small = problem.K <= kMaxSpan && problem.dilation <= kMaxSpan;
    return small ? (problem.K - 1) * problem.dilation + 1 : kMaxSpan + 1;
}

template <class Traits>
int64_t smem_bytes(const Problem& problem) {
    return std::min<int64_t>(Traits::kSmemBytes, problem.device.smem_bytes);
}

// Rows of `warps`, in segments of at most `most` of them.
template <class Traits>
Params plan_segments(const Problem& problem, int64_t warps, int64_t tiles, int64_t most) {
    Params params{};
    params.problem = problem;
    const int64_t segments = ceil_div(warps, most);
    params.segments = static_cast<uint32_t>(segments);
    params.warps_per_row = static_cast<int32_t>(ceil_div(warps, segments));
    params.tiles = static_cast<int32_t>(tiles);
    params.steps = static_cast<int32_t>(ceil_div(span(problem) + kStrip, Traits::kDepth));
    const int64_t strips = params.warps_per_row * kStretches * tiles;
    // All that the last step reads, for the tiles that are not stored too, and some for x_first.
    params.x_elems =
        static_cast<int32_t>((strips + Traits::kStepStrips * params.steps + Traits::kWindow) * kStrip);
    // In 16 bits, the copies begin 16 banks apart.
    params.w_elems = static_cast<int32_t>(round_up(kStrip + params.steps * Traits::kDepth, 64) +
                                          (Traits::k16Bit ? 32 : 0));
    params.x_buffers = params.steps > kFewSteps ? 1 : 2;
    const int64_t y_elems = strips * kStrip + kAlignBytes / sizeof(typename Traits::Element);
    const int64_t elems =
        params.x_buffers * params.x_elems + Traits::kWCopies * params.w_elems + y_elems;
    params.row_bytes = static_cast<int32_t>(kMaxRounds * sizeof(Visit<typename Traits::Element>) +
                                            elems * sizeof(typename Traits::Element));
    return params;
}

// row_bytes is beyond smem_bytes where not even one warp's work fits.
template <class Traits>
Params plan(const Problem& problem) {
    const int64_t strips = ceil_div(problem.P, kStrip), room = smem_bytes<Traits>(problem);
    int64_t warps = ceil_div(strips, kStretches * kMaxTiles);
    // Few rows are cut further, until each multiprocessor has work.
    const int64_t channels = problem.G * problem.O, rows = problem.N * channels;
    while (rows * warps < 8 * problem.device.sm_count && strips > 2 * kStretches * warps) warps *= 2;
    // Then in segments of fewer warps, and in warps of fewer tiles, until shared memory suffices.
    Params params{};
    for (;; warps *= 2) {
        const int64_t tiles = ceil_div(strips, kStretches * warps) | 1;
        for (int64_t most = kMaxWarps; most > 0; most /= 2) {
            params = plan_segments<Traits>(problem, warps, tiles, most);
            if (params.row_bytes <= room) break;
        }
        if (params.row_bytes <= room || strips <= 2 * kStretches * warps) break;
    }
    params.rows_per_block = 1;
    if (params.segments == 1 && params.row_bytes <= room) {
        const int64_t most = std::min<int64_t>(kRowsWarps / warps, room / params.row_bytes);
        params.rows_per_block = static_cast<int32_t>(std::max<int64_t>(most, 1));
    }
    params.channels = static_cast<uint32_t>(channels);
    params.channel_blocks = static_cast<uint32_t>(ceil_div(channels, params.rows_per_block));
    // So many rounds that waves of blocks are full; one more stands for what comes before the first.
    const int64_t most_rounds = params.x_buffers == 1 ? 1 : std::min<int64_t>(problem.N, kMaxRounds);
    const int64_t by_warps =
        blocks_per_sm(problem.device.arch) * kMaxWarps / (params.rows_per_block * params.warps_per_row);
    const int64_t by_smem =
        (problem.device.smem_bytes + 1024) / (params.rows_per_block * params.row_bytes + 1024);
    const int64_t at_once = std::max<int64_t>(std::min(by_warps, by_smem) * problem.device.sm_count, 1);
    int64_t least = 0;
    for (int64_t rounds = 1; rounds <= most_rounds; ++rounds) {
        const int64_t blocks = params.channel_blocks * params.segments * ceil_div(problem.N, rounds);
        const int64_t cost = ceil_div(blocks, at_once) * (rounds + 1);
        if (rounds > 1 && cost >= least) continue;
        least = cost;
        params.rounds = static_cast<uint32_t>(rounds);
    }
    return params;
}

template <class Traits>
Error launch(const Problem& problem, cudaStream_t stream) {
    const Params params = plan<Traits>(problem);
    if (!Traits::k16Bit) {
        const Error error = allow_smem<depthwise_toeplitz_kernel<Traits>>(problem.device);
        if (error != nullptr) return error;
    }
    const auto blocks = static_cast<unsigned>(ceil_div(params.problem.N, params.rounds) *
                                              params.channel_blocks * params.segments);
    const dim3 threads(params.warps_per_row * 32, params.rows_per_block);
    const int smem_bytes = params.rows_per_block * params.row_bytes;
    depthwise_toeplitz_kernel<Traits><<<blocks, threads, smem_bytes, stream>>>(params);
    return launch_error();
}

// Calls visit(traits) for what the problem asks for.
template <class Result, class Visitor>
Result with_traits(const Problem& problem, Visitor visit) {
    if (problem.dtype == Dtype::float16) return visit(Traits<__half>{});
    if (problem.dtype == Dtype::bfloat16) return visit(Traits<__nv_bfloat16>{});
    return visit(Traits<float>{});
}

// Where the next routes' multiply-adds are faster: of few taps that lie near each other or meet x, of short
// rows, of long sums for few positions (27x96x7185, K1782, dilation 4: 205 us by few_outputs, 813), and of
// floats some positions apart, whose T would be mostly zeros.
inline bool prefers_sums(const Problem& problem) {
    const bool is_float = problem.dtype == Dtype::float32, neighbours = problem.dilation == 1;
    const int64_t taps = std::min(problem.K, ceil_div(problem.L, problem.dilation));  // that can meet x
    const int64_t reach_bytes = (problem.K - 1) * problem.dilation * element_bytes(problem.dtype);
    const int64_t few = is_float ? (neighbours ? 32 : 12) : (neighbours ? 16 : 8);
    if (problem.x_stride_l == 1 && problem.K <= few && reach_bytes <= kNearBytes) return true;
    if (8 * taps <= problem.K || (6 * taps <= problem.K && problem.P <= 512)) return true;
    if (problem.P < 64 && problem.K >= 1000) return true;
    if (problem.P < (is_float ? 512 : 192) && taps <= (is_float ? 64 : 48)) return true;
    return is_float && (problem.K <= kFewTaps || (problem.dilation > 4 && problem.dilation < kFarTaps));
}

}  // namespace toeplitz

inline bool fits_toeplitz(const Problem& any_problem) {
    const Problem problem = canonical(any_problem);
    if (problem.dtype == Dtype::float64 || problem.device.arch < 80) return false;
    const bool is_float = problem.dtype == Dtype::float32;
    if (is_float && problem.precision != Precision::tf32) return false;
    // Rows with gaps come element by element. Neighbouring channels the next route loads together.
    const bool by_channel = problem.x_stride_l != 1 && problem.x_stride_c == 1 && problem.G > 1;
    if (by_channel && problem.K <= (is_float ? toeplitz::kGapTaps : toeplitz::kGapTaps16)) return false;
    if (problem.C != 1 || problem.O > toeplitz::kMaxO || problem.stride != 1) return false;
    if (toeplitz::span(problem) > toeplitz::kMaxSpan || toeplitz::prefers_sums(problem)) return false;
    // A block takes at least a warp's work of a row, of which there are fewer than P / 16 + 1.
    if (problem.N * problem.G * problem.O * (problem.P / 16 + 1) > kMaxBlocks) return false;
    return toeplitz::with_traits<bool>(problem, [&](auto traits) {
        using Traits = decltype(traits);
        return toeplitz::plan<Traits>(problem).row_bytes <= toeplitz::smem_bytes<Traits>(problem);
    });
}

inline Error launch_toeplitz(const Problem& any_problem, cudaStream_t stream) {
    const Problem problem = canonical(any_problem);
    return toeplitz::with_traits<Error>(
        problem, [&](auto traits) { return toeplitz::launch<decltype(traits)>(problem, stream); });
}

}  // namespace conv1d
''',
"toeplitz_sm90.cuh": r'''
#line 1 "kernels/toeplitz_sm90.cuh"
// Long depthwise filters on Hopper: one input channel a group, stride 1, from some hundred taps on; 16-bit
// dtypes, TF32, and float32 in full accuracy as three products of operands split into two fp16 numbers.
//
// In strips of 64 positions, y[64*m + r] = sum over j, k < 64 of w[64*j + k - r] * x[64*(m + j) + k]: for
// each j a product D[r][m] += A[r][k] * B[k][m] of wgmma. B's rows (strips of x) are 128 swizzled bytes,
// those of several samples side by side, so that the next j is the same tile some rows on. A's 8 x 8 parts
// depend only on how far k is from r: each is kept once, next to its neighbours, and with the parts of D's
// rows counted downwards both strides of A are that of one part. So w and x lie in shared memory once.
//
// A block takes one output channel of up to 8 samples: it fills shared memory, then its warpgroups take tiles
// of y in turn. float32 is scaled to fp16's range by the largest number of the row. inf and NaN meet
// zeros of A there: outputs that are NaN are summed again, as are small ones of rows with very small numbers.

#include <algorithm>







namespace conv1d {
namespace toeplitz_sm90 {

constexpr int kStrip = 64;    // positions of y and x; taps of a j
constexpr int kColumns = 64;  // of a product: strips times samples
constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kMaxSamples = 8;
constexpr int kRowBytes = 128;
constexpr int kPartBytes = 128;   // of w: 8 x 8 numbers of 16 bits
constexpr int kBatch = 8;         // rows of x that a warp loads at once
constexpr int kLowBits = 11;      // by which the lower fp16 number is scaled up
constexpr float kTiny = 0x1p-12f;  // below, scaled numbers lose bits,
template <int kParts>
constexpr float kSmall = kParts == 2 ? 1 : 16;  // which sums of this, times taps, may show

// kSplit: into how many 16-bit numbers an operand is split.
template <class Element_, int kSplit>
struct Traits {
    using Element = Element_;
    static constexpr int kParts = kSplit;
    static constexpr int kBlocksPerSm = kParts == 1 ? 2 : 1;  // 64 registers a thread, or 128
    static constexpr bool kScaled = std::is_same<Element, float>::value;
    static constexpr Operand kOperand =
        std::is_same<Element, __nv_bfloat16>::value ? Operand::bf16 : Operand::f16;
};

struct Params {
    Problem problem;
    uint32_t sample_blocks, segments;
    int32_t samples_log2;  // of a block
    int32_t strips;        // of y, of a block: whole tiles
    int32_t taps_blocks;   // j
    int32_t x_strips;      // that shared memory has room for
    int32_t x_bytes;       // of one of x's numbers: x_strips times samples rows
    int32_t w_bytes;       // of one of w's
};

// What one block works on.
struct Work {
    const void* x;  // of its first sample, position 0
    const void* w;  // taps
    void* y;        // of its first sample and position
    int64_t p_first;
    int64_t l_first;  // under p_first and tap 0: x's strip 0
    int32_t samples;  // that there are
    int32_t strips_begin, strips_end;  // where x has numbers
    int32_t x_first;                   // strip of the first row in shared memory
    float bias;
};

// Behind x and w in shared memory.
struct Control {
    Work work;
    int32_t largest[kMaxSamples + 1];  // finite magnitude of a sample's x, and of w, as bits
    int32_t tiny[kMaxSamples + 1];     // whether there are numbers below kTiny
};

inline int64_t smem_bytes(const Params& params, int parts) {
    return 1024 + parts * (int64_t{params.x_bytes} + params.w_bytes) + static_cast<int64_t>(sizeof(Control));
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ == 900

// The exponent that brings a row's largest magnitude to [2^14, 2^15).
__device__ __forceinline__ int scale_of(int largest) {
    return largest == 0 ? 0 : min(max(268 - (largest >> 23), 1), 254) - 127;
}
__device__ __forceinline__ float power_of_2(int exponent) { return __uint_as_float((exponent + 127) << 23); }

__device__ __forceinline__ int finite_magnitude(float value) {
    const int bits = static_cast<int>(__float_as_uint(value) & 0x7FFFFFFF);
    return bits < 0x7F800000 ? bits : 0;
}
// One warp: into `largest`, that of all its lanes.
__device__ __forceinline__ void keep_largest(int bits, int32_t* largest) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        bits = max(bits, __shfl_xor_sync(0xFFFFFFFF, bits, distance));
    }
    if (threadIdx.x % 32 == 0) atomicMax(largest, bits);
}

template <class Number>
__device__ __forceinline__ uint32_t pack(Number low, Number high) {
    Vector<Number, 2> pair;
    pair.at[0] = low;
    pair.at[1] = high;
    return *reinterpret_cast<const uint32_t*>(&pair);
}

// Two neighbours of x or w as the 16-bit numbers of the product, the lower ones `part_bytes` further on.
template <class Traits>
__device__ __forceinline__ void store_pair(const typename Traits::Element (&values)[2], float scale,
                                           uint8_t* target, int part_bytes, int32_t* tiny) {
    if constexpr (!Traits::kScaled) {
        *reinterpret_cast<uint32_t*>(target) = pack(values[0], values[1]);
    } else {
        __half high[2], low[2];
        bool is_tiny = false;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            float value = values[i] * scale;
            is_tiny |= value != 0 && fabsf(value) < kTiny;
            if (Traits::kParts == 1) value = __uint_as_float(ptx::cvt_rna_tf32(value));
            high[i] = __float2half_rn(value);
            low[i] = __float2half_rn((value - __half2float(high[i])) * (1 << kLowBits));
        }
        if (is_tiny) atomicMax(tiny, 1);
        *reinterpret_cast<uint32_t*>(target) = pack(high[0], high[1]);
        if (Traits::kParts == 2) *reinterpret_cast<uint32_t*>(target + part_bytes) = pack(low[0], low[1]);
    }
}

template <class Element>
__device__ __forceinline__ Work plan_work(const Params& params) {
    const Problem& problem = params.problem;
    const int all_samples = 1 << params.samples_log2;
    const uint32_t channel = blockIdx.x / params.segments / params.sample_blocks;
    const int64_t n_first = int64_t{blockIdx.x / params.segments % params.sample_blocks} * all_samples;
    Work work;
    work.samples = static_cast<int>(min(problem.N - n_first, int64_t{all_samples}));
    work.p_first = static_cast<int64_t>(blockIdx.x % params.segments) * params.strips * kStrip;
    work.l_first = work.p_first - problem.pad_left;
    work.x = static_cast<const Element*>(problem.x) + n_first * problem.x_stride_n +
             channel / static_cast<uint32_t>(problem.O) * problem.x_stride_c;
    work.w = static_cast<const Element*>(problem.w) + channel * problem.K;
    const int64_t row = n_first * problem.G * problem.O + channel;
    work.y = static_cast<Element*>(problem.y) + row * problem.P + work.p_first;
    work.bias = problem.bias == nullptr ? 0.0f : widen(static_cast<const Element*>(problem.bias)[channel]);
    const int most = params.strips + params.taps_blocks - 1;
    const Inside inside = inside_row(work.l_first, problem.L, most * kStrip);
    work.strips_begin = inside.begin / kStrip;
    work.strips_end = (inside.end + kStrip - 1) / kStrip;
    work.x_first = max(work.strips_begin - (kColumns / all_samples - 1), 0);
    return work;
}

// Two neighbours of a row of x in shared memory, from strip `strip`.
template <class Element>
__device__ __forceinline__ void load_pair(const Problem& problem, const Work& work, int sample, int strip,
                                          Element (&values)[2]) {
    const int64_t l = work.l_first + int64_t{strip} * kStrip + 2 * (threadIdx.x % 32);
    const Element* const x =
        static_cast<const Element*>(work.x) + sample * problem.x_stride_n + l * problem.x_stride_l;
    const bool wanted = sample < work.samples && strip < work.strips_end;
    values[0] = wanted && l >= 0 && l < problem.L ? x[0] : narrow<Element>(0);
    values[1] = wanted && l + 1 >= 0 && l + 1 < problem.L ? x[problem.x_stride_l] : narrow<Element>(0);
}

template <class Traits, class Element = typename Traits::Element>
__device__ __forceinline__ void fill_x(const Params& params, const Work& work, uint8_t* x_smem,
                                       Control* control) {
    const Problem& problem = params.problem;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int sample = warp % (1 << params.samples_log2);  // of all its rows
    const int rows = params.x_strips << params.samples_log2;
    float scale = 1;
    if constexpr (Traits::kScaled) {
        int largest = 0;
#pragma unroll 8
        for (int row = warp; row < rows; row += kWarps) {
            Element values[2];
            load_pair(problem, work, sample, work.x_first + (row >> params.samples_log2), values);
            largest = max(largest, max(finite_magnitude(values[0]), finite_magnitude(values[1])));
        }
        keep_largest(largest, &control->largest[sample]);
        __syncthreads();  // all warps of the sample have seen their rows
        scale = power_of_2(scale_of(control->largest[sample]));
    }
#pragma unroll 1
    for (int first = warp; first < rows; first += kBatch * kWarps) {
        Element values[kBatch][2];
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
            load_pair(problem, work, sample, work.x_first + ((first + i * kWarps) >> params.samples_log2),
                      values[i]);
        }
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
            const int row = first + i * kWarps;
            if (row >= rows) break;
            uint8_t* const target = x_smem + row * kRowBytes + ((lane / 4) ^ (row % 8)) * 16 + lane % 4 * 4;
            store_pair<Traits>(values[i], scale, target, params.x_bytes, &control->tiny[sample]);
        }
    }
}

template <class Traits, class Element = typename Traits::Element>
__device__ __forceinline__ void fill_w(const Params& params, const Work& work, uint8_t* w_smem,
                                       Control* control) {
    const Problem& problem = params.problem;
    const Element* const w = static_cast<const Element*>(work.w);
    float scale = 1;
    if constexpr (Traits::kScaled) {
        int largest = 0;
#pragma unroll 4
        for (int k = threadIdx.x; k < problem.K; k += kThreads) {
            largest = max(largest, finite_magnitude(w[k]));
        }
        keep_largest(largest, &control->largest[kMaxSamples]);
        __syncthreads();
        scale = power_of_2(scale_of(control->largest[kMaxSamples]));
    }
    const uint32_t dilation = static_cast<uint32_t>(problem.dilation);
#pragma unroll 4
    for (int i = threadIdx.x; i < params.w_bytes / 4; i += kThreads) {
        Element values[2];
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            // Of part i / 32, row i / 4 % 8 and column 2 * (i % 4) + j; part 7 has tap 0 at row 0, column 0.
            const uint32_t tap = (i / 32 - 7) * 8 + 2 * (i % 4) + j - i / 4 % 8, k = tap / dilation;
            values[j] = k < problem.K && k * dilation == tap ? w[k] : narrow<Element>(0);
        }
        store_pair<Traits>(values, scale, w_smem + i * 4, params.w_bytes, &control->tiny[kMaxSamples]);
    }
}

// The sum of one output by multiply-adds, in pieces, so that the error of many taps stays that of few.
template <class Traits>
__device__ __forceinline__ float sum_again(const Problem& problem, const typename Traits::Element* x,
                                        const typename Traits::Element* w, int64_t p) {
    constexpr bool kRounds = Traits::kScaled && Traits::kParts == 1;
    const auto operand = [](typename Traits::Element value) {
        if constexpr (kRounds) return __uint_as_float(ptx::cvt_rna_tf32(value));
        else return widen(value);
    };
    float sum = 0;
#pragma unroll 1
    for (int64_t first = 0; first < problem.K; first += 256) {
        float part = 0;
        const int64_t end = min(first + 256, problem.K);
#pragma unroll 1
        for (int64_t k = first; k < end; ++k) {
            const int64_t l = p + k * problem.dilation - problem.pad_left;
            if (l >= 0 && l < problem.L) part += operand(w[k]) * operand(x[l * problem.x_stride_l]);
        }
        sum += part;
    }
    return sum;
}

#endif

template <class Traits>
__global__ void __launch_bounds__(kThreads, Traits::kBlocksPerSm)
    depthwise_toeplitz_sm90_kernel(const __grid_constant__ Params params) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ == 900
    using Element = typename Traits::Element;
    using Mma = Wgmma<Traits::kOperand, kColumns>;
    constexpr int kParts = Traits::kParts, kSums = kColumns / 2;
    extern __shared__ __align__(16) unsigned char smem[];
    const Problem& problem = params.problem;
    uint8_t* const x_smem = smem + ((1024 - (ptx::smem_address(smem) & 1023)) & 1023);
    uint8_t* const w_smem = x_smem + kParts * params.x_bytes;
    static_assert(kPartBytes % alignof(Control) == 0, "what follows w must be aligned");
    Control* const control = reinterpret_cast<Control*>(w_smem + kParts * params.w_bytes);
    if (threadIdx.x <= kMaxSamples) control->largest[threadIdx.x] = control->tiny[threadIdx.x] = 0;
    const Work& work = control->work;
    if (threadIdx.x == 0) control->work = plan_work<Element>(params);
    __syncthreads();
    fill_w<Traits>(params, work, w_smem, control);
    fill_x<Traits>(params, work, x_smem, control);
    ptx::fence_proxy_async();
    __syncthreads();

    // Through a shuffle, so that the compiler knows it is the same in the whole warp.
    const int warp = __shfl_sync(0xFFFFFFFF, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
    const int tile_strips = kColumns >> params.samples_log2, all_samples = 1 << params.samples_log2;
    const int64_t sample_elems = problem.G * problem.O * problem.P;  // of y
    const uint32_t x16 = ptx::smem_address(x_smem) / 16, w16 = ptx::smem_address(w_smem) / 16;
#pragma unroll 1
    for (int strip = warp / 4 * tile_strips; strip < params.strips; strip += kThreads / 128 * tile_strips) {
        float sum[kSums] = {}, part[kSums] = {}, cross[kSums] = {};  // the latter two of split operands
        // Others see nothing but padding.
        const int j_begin = max(work.strips_begin - (strip + tile_strips - 1), 0);
        const int j_end = min(work.strips_end - strip, params.taps_blocks);
#pragma unroll 1
        for (int j = j_begin; j < j_end; ++j) {
            const uint32_t row = (strip + j - work.x_first) << params.samples_log2;
            const uint32_t x_tile = x16 + row * (kRowBytes / 16), w_tile = w16 + j * 8 * (kPartBytes / 16);
            ptx::wgmma_fence();
#pragma unroll
            for (int step = 0; step < 4; ++step) {  // of 16 taps
                const uint32_t x_at = x_tile + step * 2, w_at = w_tile + step * 2 * (kPartBytes / 16);
                const uint64_t x_high = ptx::wgmma_descriptor(x_at);
                const uint64_t w_high = ptx::wgmma_descriptor_plain(w_at);
                if constexpr (kParts == 1) {
                    Mma::issue(sum, w_high, x_high, true);
                } else {
                    const uint64_t x_low = ptx::wgmma_descriptor(x_at + params.x_bytes / 16);
                    const uint64_t w_low = ptx::wgmma_descriptor_plain(w_at + params.w_bytes / 16);
                    Mma::issue(cross, w_high, x_low, true);
                    Mma::issue(cross, w_low, x_high, true);
                    Mma::issue(part, w_high, x_high, step > 0);
                }
            }
            ptx::wgmma_commit_group();
            if constexpr (kParts == 2) {
                ptx::wgmma_wait_group<0>();
#pragma unroll
                for (int i = 0; i < kSums; ++i) sum[i] += part[i];
            }
        }
        ptx::wgmma_wait_group<0>();

        if constexpr (kParts == 2) {
#pragma unroll
            for (int i = 0; i < kSums; ++i) sum[i] += cross[i] * (1.0f / (1 << kLowBits));
        }

        // Of sum i: its sample and, in the block, its place in y. Parts of D's rows count downwards.
        const int64_t most = int64_t{params.strips} * kStrip;
        const int place_end = static_cast<int>(min(problem.P - work.p_first, most));
        const int place_lane = strip * kStrip + (7 - warp % 4 * 2) * 8 + lane / 4;
        const auto sample_of = [&](int i) { return (i / 4 * 8 + lane % 4 * 2 + i % 2) & (all_samples - 1); };
        const auto place_of = [&](int i) {
            const int strips_on = (i / 4 * 8 + lane % 4 * 2 + i % 2) >> params.samples_log2;
            return place_lane + strips_on * kStrip - i / 2 % 2 * 8;
        };
        Element* const y = static_cast<Element*>(work.y);
        uint32_t again = 0;  // bit i: that sum i is not right
#pragma unroll
        for (int i = 0; i < kSums; ++i) {
            if (sample_of(i) >= work.samples || place_of(i) >= place_end) continue;
            float value = sum[i];
            bool is_wrong = false;
            if constexpr (Traits::kScaled) {
                const bool tiny = (control->tiny[sample_of(i)] | control->tiny[kMaxSamples]) != 0;
                is_wrong = tiny && fabsf(value) < kSmall<kParts> * problem.K;
                value = ldexpf(value, -scale_of(control->largest[sample_of(i)]) -
                                          scale_of(control->largest[kMaxSamples]));
            }
            if (is_wrong || value != value) again |= 1u << i;
            y[sample_of(i) * sample_elems + place_of(i)] = narrow<Element>(value + work.bias);
        }
        if (again == 0 && problem.activation == Activation::none) continue;
#pragma unroll 1
        for (int i = 0; i < kSums; ++i) {
            if (sample_of(i) >= work.samples || place_of(i) >= place_end) continue;
            Element* const target = y + sample_of(i) * sample_elems + place_of(i);
            if (again >> i & 1) {
                const Element* const x =
                    static_cast<const Element*>(work.x) + sample_of(i) * problem.x_stride_n;
                const Element* const w = static_cast<const Element*>(work.w);
                const float sum_i = sum_again<Traits>(problem, x, w, work.p_first + place_of(i));
                *target = narrow<Element>(sum_i + work.bias);
            }
            if (problem.activation != Activation::none) {
                *target = activate<Element>(problem.activation, widen(*target));
            }
        }
    }
#endif
}

inline int parts_of(const Problem& problem) {
    return problem.dtype == Dtype::float32 && problem.precision == Precision::ieee ? 2 : 1;
}

// From how many taps on the others are slower. In fp32 that depends on which they are: fold_sm80 where many
// outputs share a channel (sincnet, 251 taps: 0.27 ms here, 0.42 there), else depthwise.
inline int64_t min_taps(const Problem& problem) {
    if (parts_of(problem) == 1) return 512;
    return problem.O >= 16 ? 192 : 256;
}

constexpr int64_t kMaxSpan = 1 << 14;

// Tiles of y of all samples of an output channel, those that only fill a block up too.
inline int64_t tile_count(const Params& params) {
    const int64_t strips = params.sample_blocks * params.segments * int64_t{params.strips};
    return (strips << params.samples_log2) / kColumns;
}

// The plan of fewest tiles; taps_blocks is 0 where no block's shared memory suffices.
inline Params plan(const Problem& problem, int parts) {
    Params best{};
    const int64_t span = (problem.K - 1) * problem.dilation + 1;
    const int64_t taps_blocks = ceil_div(span + kStrip - 1, kStrip), all_strips = ceil_div(problem.P, kStrip);
    // Where one number is enough, two blocks share a multiprocessor: one multiplies while the other loads.
    const int64_t room = parts == 1 ? problem.device.smem_bytes / 2 - 1024 : problem.device.smem_bytes;
    for (int samples_log2 = 3; samples_log2 >= 0; --samples_log2) {
        const int64_t samples = int64_t{1} << samples_log2, tile_strips = kColumns / samples;
        const int64_t sample_blocks = ceil_div(problem.N, samples);
        for (int64_t segments = 1; segments <= ceil_div(all_strips, tile_strips); ++segments) {
            Params params{};
            params.problem = problem;
            params.sample_blocks = static_cast<uint32_t>(sample_blocks);
            params.samples_log2 = samples_log2;
            const int64_t strips = round_up(ceil_div(all_strips, segments), tile_strips);
            params.strips = static_cast<int32_t>(strips);
            params.segments = static_cast<uint32_t>(ceil_div(all_strips, strips));
            params.taps_blocks = static_cast<int32_t>(taps_blocks);
            const int64_t x_strips = std::min(strips + taps_blocks - 1,
                                              ceil_div(problem.L, kStrip) + 1 + 2 * (tile_strips - 1));
            params.x_strips = static_cast<int32_t>(x_strips);
            params.x_bytes = static_cast<int32_t>(round_up(x_strips * samples * kRowBytes, 1024));
            params.w_bytes = static_cast<int32_t>((8 * taps_blocks + 8) * kPartBytes);
            if (smem_bytes(params, parts) > room) continue;
            if (best.taps_blocks == 0 || tile_count(params) < tile_count(best)) best = params;
            break;
        }
    }
    return best;
}

template <class Traits>
Error launch(const Problem& problem, cudaStream_t stream) {
    const Error error = allow_smem<depthwise_toeplitz_sm90_kernel<Traits>>(problem.device);
    if (error != nullptr) return error;
    const Params params = plan(problem, Traits::kParts);
    const auto blocks =
        static_cast<unsigned>(problem.G * problem.O * params.sample_blocks * params.segments);
    const int64_t bytes = smem_bytes(params, Traits::kParts);
    depthwise_toeplitz_sm90_kernel<Traits><<<blocks, kThreads, bytes, stream>>>(params);
    return launch_error();
}

}  // namespace toeplitz_sm90

inline bool fits_toeplitz_sm90(const Problem& problem) {
    using namespace toeplitz_sm90;
    if (problem.device.arch != 90 || problem.dtype == Dtype::float64) return false;
    if (problem.C != 1 || problem.stride != 1 || problem.dilation > 2) return false;
    if (problem.K < min_taps(problem)) return false;
    // Where few taps meet x: 3x531x41, K576, padding 287: 8 to 10 us by depthwise, 23 to 52 here.
    if (4 * ceil_div(problem.L, problem.dilation) <= problem.K && problem.P <= 512) return false;
    if (problem.K > kMaxSpan || problem.P > kMaxBlocks / kStrip || problem.N > kMaxBlocks) return false;
    if (problem.N * problem.G * problem.O * ceil_div(problem.P, kStrip) > kMaxBlocks) return false;
    // Nor where most products would be of nothing. Eight samples decide for any number.
    Problem some = problem;
    some.N = kMaxSamples;
    const Params params = plan(some, parts_of(problem));
    const int64_t most = ceil_div(some.N * ceil_div(some.P, kStrip), kColumns / 2);
    return params.taps_blocks > 0 && tile_count(params) <= most;
}

inline Error launch_toeplitz_sm90(const Problem& problem, cudaStream_t stream) {
    using namespace toeplitz_sm90;
    if (problem.dtype == Dtype::float16) return launch<Traits<__half, 1>>(problem, stream);
    if (problem.dtype == Dtype::bfloat16) return launch<Traits<__nv_bfloat16, 1>>(problem, stream);
    if (problem.precision == Precision::tf32) return launch<Traits<float, 1>>(problem, stream);
    return launch<Traits<float, 2>>(problem, stream);
}

}  // namespace conv1d
''',
"toeplitz.cu": r'''
#line 1 "kernels/toeplitz.cu"
// The translation unit of the routes for long depthwise filters: "toeplitz", "toeplitz_sm90".




const conv1d::Route conv1d::kToeplitz = {"toeplitz", fits_toeplitz, no_workspace, launch_toeplitz};
const conv1d::Route conv1d::kToeplitzSm90 = {"toeplitz_sm90", fits_toeplitz_sm90, no_workspace,
                                             launch_toeplitz_sm90};
''',
}
_conv1d_units = {
    "autograd.cpp": [
        "problem.h",
        "binding.h",
        "autograd.cpp",
    ],
    "conv1d.cpp": [
        "problem.h",
        "binding.h",
        "conv1d.cpp",
    ],
    "conv1d.cu": [
        "problem.h",
        "dispatch.cuh",
        "conv1d.cu",
    ],
    "cpu.cpp": [
        "problem.h",
        "cpu.cpp",
    ],
    "depthwise.cu": [
        "problem.h",
        "tile.cuh",
        "depthwise_row.cuh",
        "depthwise_outputs.cuh",
        "depthwise_padded.cuh",
        "mma.cuh",
        "ptx.cuh",
        "depthwise_rows.cuh",
        "depthwise_sliding.cuh",
        "gather_plan.cuh",
        "depthwise.cuh",
        "dispatch.cuh",
        "depthwise.cu",
    ],
    "direct.cu": [
        "mma.cuh",
        "problem.h",
        "ptx.cuh",
        "tile.cuh",
        "direct.cuh",
        "dispatch.cuh",
        "direct.cu",
    ],
    "downsample_sm90.cu": [
        "problem.h",
        "tile.cuh",
        "wgmma.cuh",
        "gemm_sm90_plan.cuh",
        "window_sm90_plan.cuh",
        "downsample_sm90_plan.cuh",
        "ptx.cuh",
        "gemm_sm90_pipeline.cuh",
        "gemm_sm90_convert.cuh",
        "launch.cuh",
        "tensor_map.cuh",
        "window_sm90.cuh",
        "downsample_sm90.cuh",
        "dispatch.cuh",
        "downsample_sm90.cu",
    ],
    "few_outputs.cu": [
        "mma.cuh",
        "problem.h",
        "ptx.cuh",
        "tile.cuh",
        "few_outputs_project.cuh",
        "gather_plan.cuh",
        "wgmma.cuh",
        "gemm_sm90_plan.cuh",
        "few_outputs.cuh",
        "dispatch.cuh",
        "few_outputs.cu",
    ],
    "fold.cu": [
        "problem.h",
        "tile.cuh",
        "gather_plan.cuh",
        "mma.cuh",
        "ptx.cuh",
        "fold.cuh",
        "dispatch.cuh",
        "fold.cu",
    ],
    "gather.cu": [
        "problem.h",
        "tile.cuh",
        "gather_plan.cuh",
        "gather.cuh",
        "dispatch.cuh",
        "gather.cu",
    ],
    "gemm_sm80.cu": [
        "mma.cuh",
        "problem.h",
        "ptx.cuh",
        "tile.cuh",
        "gemm_sm80.cuh",
        "dispatch.cuh",
        "gemm_sm80.cu",
    ],
    "gemm_sm90.cu": [
        "problem.h",
        "tile.cuh",
        "wgmma.cuh",
        "gemm_sm90_plan.cuh",
        "ptx.cuh",
        "gemm_sm90_pipeline.cuh",
        "gemm_sm90_convert.cuh",
        "gemm_sm90_product.cuh",
        "launch.cuh",
        "gemm_sm90_kernel.cuh",
        "gemm_sm90.cuh",
        "dispatch.cuh",
        "gemm_sm90.cu",
    ],
    "gemm_sm90_16bit.cu": [
        "problem.h",
        "tile.cuh",
        "wgmma.cuh",
        "gemm_sm90_plan.cuh",
        "ptx.cuh",
        "gemm_sm90_pipeline.cuh",
        "gemm_sm90_convert.cuh",
        "gemm_sm90_product.cuh",
        "launch.cuh",
        "gemm_sm90_kernel.cuh",
        "gemm_sm90_16bit.cu",
    ],
    "gemm_sm90_channels_last.cu": [
        "problem.h",
        "tile.cuh",
        "wgmma.cuh",
        "gemm_sm90_plan.cuh",
        "ptx.cuh",
        "gemm_sm90_pipeline.cuh",
        "gemm_sm90_convert.cuh",
        "gemm_sm90_product.cuh",
        "launch.cuh",
        "gemm_sm90_kernel.cuh",
        "gemm_sm90_channels_last.cu",
    ],
    "gemm_sm90_channels_last_16bit.cu": [
        "problem.h",
        "tile.cuh",
        "wgmma.cuh",
        "gemm_sm90_plan.cuh",
        "ptx.cuh",
        "gemm_sm90_pipeline.cuh",
        "gemm_sm90_convert.cuh",
        "gemm_sm90_product.cuh",
        "launch.cuh",
        "gemm_sm90_kernel.cuh",
        "gemm_sm90_channels_last_16bit.cu",
    ],
    "gemm_sm90_folded.cu": [
        "problem.h",
        "tile.cuh",
        "wgmma.cuh",
        "gemm_sm90_plan.cuh",
        "ptx.cuh",
        "gemm_sm90_pipeline.cuh",
        "gemm_sm90_convert.cuh",
        "gemm_sm90_product.cuh",
        "launch.cuh",
        "gemm_sm90_kernel.cuh",
        "gemm_sm90_folded.cu",
    ],
    "gemm_sm90_folded_16bit.cu": [
        "problem.h",
        "tile.cuh",
        "wgmma.cuh",
        "gemm_sm90_plan.cuh",
        "ptx.cuh",
        "gemm_sm90_pipeline.cuh",
        "gemm_sm90_convert.cuh",
        "gemm_sm90_product.cuh",
        "launch.cuh",
        "gemm_sm90_kernel.cuh",
        "gemm_sm90_folded_16bit.cu",
    ],
    "pointwise_sm90.cu": [
        "problem.h",
        "tile.cuh",
        "launch.cuh",
        "mma.cuh",
        "ptx.cuh",
        "tensor_map.cuh",
        "wgmma.cuh",
        "pointwise_sm90.cuh",
        "dispatch.cuh",
        "pointwise_sm90.cu",
    ],
    "python.cpp": [
        "python.cpp",
    ],
    "sliding_sm90.cu": [
        "problem.h",
        "tile.cuh",
        "wgmma.cuh",
        "gemm_sm90_plan.cuh",
        "ptx.cuh",
        "gemm_sm90_pipeline.cuh",
        "gemm_sm90_convert.cuh",
        "window_sm90_plan.cuh",
        "sliding_sm90_plan.cuh",
        "launch.cuh",
        "tensor_map.cuh",
        "window_sm90.cuh",
        "sliding_sm90.cuh",
        "dispatch.cuh",
        "sliding_sm90.cu",
    ],
    "sliding_sm90_five.cu": [
        "problem.h",
        "tile.cuh",
        "wgmma.cuh",
        "gemm_sm90_plan.cuh",
        "ptx.cuh",
        "gemm_sm90_pipeline.cuh",
        "gemm_sm90_convert.cuh",
        "window_sm90_plan.cuh",
        "sliding_sm90_plan.cuh",
        "launch.cuh",
        "tensor_map.cuh",
        "window_sm90.cuh",
        "sliding_sm90.cuh",
        "sliding_sm90_five.cu",
    ],
    "small.cu": [
        "mma.cuh",
        "problem.h",
        "ptx.cuh",
        "tile.cuh",
        "small.cuh",
        "dispatch.cuh",
        "small.cu",
    ],
    "stem.cu": [
        "mma.cuh",
        "problem.h",
        "ptx.cuh",
        "tile.cuh",
        "stem.cuh",
        "dispatch.cuh",
        "stem.cu",
    ],
    "stream_sm90.cu": [
        "problem.h",
        "tile.cuh",
        "wgmma.cuh",
        "gemm_sm90_plan.cuh",
        "ptx.cuh",
        "gemm_sm90_pipeline.cuh",
        "gemm_sm90_convert.cuh",
        "launch.cuh",
        "stream_sm90_plan.cuh",
        "tensor_map.cuh",
        "stream_sm90_convert.cuh",
        "gemm_sm90_product.cuh",
        "stream_sm90_product.cuh",
        "stream_sm90.cuh",
        "dispatch.cuh",
        "stream_sm90.cu",
    ],
    "toeplitz.cu": [
        "problem.h",
        "mma.cuh",
        "ptx.cuh",
        "tile.cuh",
        "toeplitz.cuh",
        "wgmma.cuh",
        "toeplitz_sm90.cuh",
        "dispatch.cuh",
        "toeplitz.cu",
    ],
}


# <<< sources


_conv1d_hash, _conv1d_ops = _conv1d_build()
