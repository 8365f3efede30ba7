"""What test files share: the module under test, stub sources that build fast, processes of their own."""
import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest
import torch

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# tests/cuda needs a GPU; everything else runs anywhere.
collect_ignore = [] if torch.cuda.is_available() else ["cuda"]


def pytest_collection_finish():
    """torch's own samples, once a test file has imported them, forbid setting torch.backends' flags; check.py does."""
    torch.backends.flags_frozen.__globals__["__allow_nonbracketed_mutation_flag"] = True
    assert not torch.backends.flags_frozen()


# A binding that hands everything to torch: what the build around it does shows in seconds.
STUB = {
    "conv1d.cpp": """\
#include <ATen/core/Tensor.h>
#include <ATen/ops/conv1d.h>
#include <torch/library.h>

#include "problem.h"

at::Tensor conv1d(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                  int64_t stride, int64_t padding, int64_t dilation, int64_t groups,
                  std::optional<c10::string_view> activation) {
    return at::conv1d(x, weight, bias, stride, padding, dilation, groups).mul(kScale);
}

#define REGISTER(name, library) TORCH_LIBRARY(name, library)
REGISTER(TORCH_EXTENSION_NAME, library) {
    library.def(
        "conv1d(Tensor x, Tensor weight, Tensor? bias=None, int stride=1, int padding=0, int dilation=1, "
        "int groups=1, str? activation=None) -> Tensor");
    library.impl("conv1d", c10::DispatchKey::CPU, &conv1d);
}
""",
    "python.cpp": """\
#include <Python.h>

PyObject* direct(PyObject*, PyObject*) { Py_RETURN_NOTIMPLEMENTED; }
PyMethodDef methods[] = {{"conv1d", direct, METH_VARARGS, nullptr}, {}};
PyModuleDef module = {PyModuleDef_HEAD_INIT, "stub", nullptr, 0, methods};

#define INIT_OF(name) PyInit_##name
#define INIT(name) INIT_OF(name)
PyMODINIT_FUNC INIT(TORCH_EXTENSION_NAME)() { return PyModule_Create(&module); }
""",
    "conv1d.cu": '#include "problem.h"\n\n__global__ void kernel() {}\n',
    "problem.h": "#pragma once\nconstexpr double kScale = 1;\n",
}


@pytest.fixture(scope="session")
def amalgamate():
    """kernels/amalgamate.py, a script, as a module."""
    spec = importlib.util.spec_from_file_location("amalgamate", ROOT / "kernels" / "amalgamate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def model_new():
    """The shipped file, imported; the first import on a machine compiles it."""
    import model_new

    return model_new


@pytest.fixture(scope="session")
def write_stub(amalgamate, tmp_path_factory):
    """write_stub({name: text}) folds STUB, some of it replaced, into a model_new.py and returns its path."""

    def write(edit={}):
        folder = tmp_path_factory.mktemp("stub")
        (folder / "kernels").mkdir()
        for name, text in {**STUB, **edit}.items():
            (folder / "kernels" / name).write_text(text)
        path = folder / "model_new.py"
        path.write_text(amalgamate.amalgamate(folder=folder / "kernels"))
        return path

    return write


def start_python(code, **environment):
    """A process that runs `code`, its output captured; `environment` goes on top of ours (None removes)."""
    merged = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=merged, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run_python(code, *, fails=False, timeout=300, **environment):
    """Runs `code` in a process of its own; (stdout, stderr). It must succeed, or fail where `fails`."""
    process = start_python(code, **environment)
    out, err = process.communicate(timeout=timeout)
    assert (process.returncode != 0) == fails, f"exit code {process.returncode}\n{out}\n{err}"
    return out, err


def built_in(module):
    """The cache folder from which the library of `module` was loaded."""
    name = module._conv1d_ops.name
    return next(path for path in torch.ops.loaded_libraries if name in path).split(f"/{name}")[0]
