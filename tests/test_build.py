"""Building at import: once, whatever interferes; where it cannot, one sentence names the cause and the cure."""
import ctypes
import os
import pathlib
import re
import shutil
import signal
import subprocess
import textwrap
import time

import ninja
import pytest
import torch
from conftest import ROOT, STUB, built_in, run_python, start_python

NINJA_FOLDER = pathlib.Path(ninja.BIN_DIR)


def load(path, before=""):
    """Python that runs the file at `path` as an evaluator does, and then checks a result against torch."""
    return textwrap.dedent(before) + textwrap.dedent(f"""
        import torch
        context = {{}}
        exec(open({str(path)!r}).read(), context)
        x, weight = torch.rand(1, 2, 8), torch.rand(3, 2, 3)
        torch.testing.assert_close(context["conv1d"](x, weight), torch.conv1d(x, weight))
        print("loaded", context["_conv1d_ops"].name)
    """)


def compilations(err):
    return err.count("conv1d: compiling")


@pytest.fixture(scope="module")
def stub(write_stub):
    return write_stub()


@pytest.fixture(scope="module")
def built(stub, tmp_path_factory):
    """(the stub, a cache that holds it): copy the cache before changing it."""
    cache = tmp_path_factory.mktemp("built")
    out, err = run_python(load(stub), TORCH_EXTENSIONS_DIR=str(cache))
    assert out.startswith("loaded conv1d_") and compilations(err) == 1
    return stub, cache


@pytest.fixture
def copy(built, tmp_path):
    """(the stub, a copy of the cache that holds it, its library's folder there)."""
    stub, cache = built
    shutil.copytree(cache, tmp_path / "cache", symlinks=True)
    [folder] = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    return stub, tmp_path / "cache", folder


# ---- once ----


def test_building_says_one_line_on_stderr_and_nothing_on_stdout(stub, tmp_path):
    out, err = run_python(load(stub), TORCH_EXTENSIONS_DIR=str(tmp_path))
    assert out.startswith("loaded") and out.count("\n") == 1
    assert re.fullmatch(rf"conv1d: compiling C\+\+.* into {tmp_path}/conv1d_\w+, once\n", err)


def test_later_imports_are_silent_quick_and_need_no_compiler(built):
    stub, cache = built
    code = textwrap.dedent(f"""
        import time, torch
        text = open({str(stub)!r}).read()
        begin = time.perf_counter()
        exec(text, {{}})
        seconds = time.perf_counter() - begin
        import sys
        print(seconds, "torch.utils.cpp_extension" in sys.modules)
    """)
    out, err = run_python(code, TORCH_EXTENSIONS_DIR=str(cache), PATH="", CXX="/no/compiler")
    seconds, imported = out.split()
    assert err == "" and imported == "False"
    assert float(seconds) < 0.5


def test_shipped_file_imports_from_the_cache_in_half_a_second(model_new):
    code = (
        "import time, torch; begin = time.perf_counter(); import model_new; "
        "print(time.perf_counter() - begin, model_new._conv1d_ops.name)"
    )
    out, err = run_python(code, TORCH_EXTENSIONS_DIR=built_in(model_new), PYTHONPATH=str(ROOT))
    seconds, name = out.split()
    assert err == "" and name == model_new._conv1d_ops.name
    assert float(seconds) < 0.5


def test_full_cache_may_be_read_only(copy):
    stub, cache, folder = copy
    for path in (folder, cache):
        path.chmod(0o555)
    out, err = run_python(load(stub), TORCH_EXTENSIONS_DIR=str(cache))
    assert out.startswith("loaded") and err == ""
    for path in (folder, cache):
        path.chmod(0o755)


def test_eight_processes_on_an_empty_cache_compile_once(stub, tmp_path):
    processes = [start_python(load(stub), TORCH_EXTENSIONS_DIR=str(tmp_path)) for _ in range(8)]
    results = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, results
    assert sum(compilations(err) for _, err in results) == 1


def test_default_cache_is_torchs(stub, tmp_path):
    out, err = run_python(load(stub), TORCH_EXTENSIONS_DIR=None, XDG_CACHE_HOME=None, HOME=str(tmp_path))
    assert f" into {tmp_path}/.cache/torch_extensions/conv1d_" in err


def test_changed_sources_live_side_by_side_in_one_process(copy, write_stub):
    stub, cache, _ = copy
    doubled = write_stub({"problem.h": STUB["problem.h"].replace("= 1", "= 2")})
    code = load(stub) + textwrap.dedent(f"""
        again, changed = {{}}, {{}}
        exec(open({str(doubled)!r}).read(), changed)
        exec(open({str(stub)!r}).read(), again)
        torch.testing.assert_close(changed["conv1d"](x, weight), 2 * torch.conv1d(x, weight))
        torch.testing.assert_close(again["conv1d"](x, weight), torch.conv1d(x, weight))
        torch.testing.assert_close(context["conv1d"](x, weight), torch.conv1d(x, weight))
        print(changed["_conv1d_hash"] != context["_conv1d_hash"] == again["_conv1d_hash"])
    """)
    out, err = run_python(code, TORCH_EXTENSIONS_DIR=str(cache))
    assert out.endswith("True\n") and compilations(err) == 1


def test_cache_may_be_named_relative_to_where_one_stands(stub, tmp_path):
    code = f"import os; os.chdir({str(tmp_path)!r})\n" + load(stub) + "os.chdir('/')\n"
    out, err = run_python(code, TORCH_EXTENSIONS_DIR="some [place]")
    assert out.startswith("loaded") and f" into {tmp_path}/some [place]/conv1d_" in err


def test_building_leaves_the_process_as_it_was(stub, tmp_path):
    code = "import os; before = dict(os.environ)\n" + load(stub) + "print(before == dict(os.environ))\n"
    code += "from torch.utils import cpp_extension; print(cpp_extension.CUDA_HOME)"
    out, _ = run_python(code, TORCH_EXTENSIONS_DIR=str(tmp_path))
    fresh, _ = run_python("from torch.utils import cpp_extension; print(cpp_extension.CUDA_HOME)")
    assert out.splitlines()[1:] == ["True", *fresh.splitlines()]


def test_revisions_in_one_process_share_no_symbol(model_new):
    name = model_new._conv1d_ops.name
    command = ["nm", "-CD", "--defined-only", f"{built_in(model_new)}/{name}/{name}.so"]
    symbols = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "c10::" in symbols
    assert [line.split(maxsplit=2)[2] for line in symbols.splitlines() if "conv1d" in line] == [f"PyInit_{name}"]


def test_library_of_another_torch_is_not_taken(copy):
    stub, cache, _ = copy
    code = load(stub, "import torch; torch.__version__ = '0.0'")
    out, err = run_python(code, TORCH_EXTENSIONS_DIR=str(cache))
    assert compilations(err) == 1


# ---- whatever interferes ----


@pytest.mark.parametrize("after", [0.0, 1.5])
def test_killed_build_is_begun_again(stub, tmp_path, after):
    process = start_python(load(stub), TORCH_EXTENSIONS_DIR=str(tmp_path))
    assert "compiling" in process.stderr.readline()
    while process.poll() is None and not list(tmp_path.glob("conv1d_*.part")):
        time.sleep(0.01)  # the announcement comes first, then the folder
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = list(tmp_path.glob("conv1d_*.part"))
    assert len(left) == 1
    (left[0] / "lock").touch()  # where torch would wait for ever
    out, err = run_python(load(stub), timeout=120, TORCH_EXTENSIONS_DIR=str(tmp_path))
    assert out.startswith("loaded") and compilations(err) == 1
    assert list(tmp_path.glob("conv1d_*.part")) == []


def truncate(folder, library):
    os.truncate(library, library.stat().st_size // 2)


def flip_a_byte(folder, library):
    content = bytearray(library.read_bytes())
    content[len(content) // 2] ^= 0xFF
    library.write_bytes(content)


def lose_the_library(folder, library):
    library.unlink()


def lose_the_record(folder, library):
    (folder / "sha256").unlink()


def leave_torchs_lock(folder, library):
    (folder / "sha256").unlink()
    (folder / "lock").touch()


DAMAGES = [truncate, flip_a_byte, lose_the_library, lose_the_record, leave_torchs_lock]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_cache_is_rebuilt_once(copy, damage):
    stub, cache, folder = copy
    damage(folder, folder / f"{folder.name}.so")
    out, err = run_python(load(stub), timeout=120, TORCH_EXTENSIONS_DIR=str(cache))
    assert out.startswith("loaded") and compilations(err) == 1
    out, err = run_python(load(stub), TORCH_EXTENSIONS_DIR=str(cache))
    assert out.startswith("loaded") and compilations(err) == 0


def test_failed_build_can_be_mended_in_the_same_process(stub, tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "library.h").write_text("#error not the one\n")
    code = textwrap.dedent(f"""
        import os
        try:
            exec(open({str(stub)!r}).read(), {{}})
        except RuntimeError as error:
            print("#error not the one" in str(error))
        del os.environ["CPATH"]
    """)
    cache = tmp_path / "cache"
    out, err = run_python(code + load(stub), TORCH_EXTENSIONS_DIR=str(cache), CPATH=str(tmp_path))
    assert out.startswith("True\nloaded") and compilations(err) == 2


# ---- one sentence ----


def failing_sentence(stub, cache, before="", **environment):
    """The last line of a failing load: the exception that a user sees."""
    out, err = run_python(load(stub, before), fails=True, TORCH_EXTENSIONS_DIR=str(cache), **environment)
    assert out == ""
    return err.splitlines()[-1]


def test_compiler_errors_show_with_the_room_they_came_from(write_stub, tmp_path):
    broken = write_stub({"problem.h": "#pragma once\n\nconstexpr double kScale = nonsense;\n"})
    _, err = run_python(load(broken), fails=True, TORCH_EXTENSIONS_DIR=str(tmp_path))
    assert re.search(r"kernels/problem\.h:3:\d+: error: .*nonsense", err)


def test_cache_that_cannot_be_written(stub, tmp_path):
    (tmp_path / "file").touch()
    cache = tmp_path / "file" / "cache"
    sentence = failing_sentence(stub, cache)
    assert sentence.startswith(f"ImportError: conv1d cannot be compiled: {cache} is not a writable directory")
    assert sentence.endswith("run: export TORCH_EXTENSIONS_DIR=/tmp/torch_extensions")


NO_PACKAGE = "import sys; sys.modules['ninja'] = None"  # the folder that it names may hold a compiler too


def test_no_ninja(stub, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "c++").symlink_to(shutil.which("c++"))
    sentence = failing_sentence(stub, tmp_path / "cache", NO_PACKAGE, PATH=str(tmp_path / "bin"), CXX=None)
    assert sentence == "ImportError: conv1d cannot be compiled: ninja was not found; run: pip install ninja"


def test_ninja_of_an_environment_that_is_not_activated(stub, tmp_path):
    path = ":".join(folder for folder in os.environ["PATH"].split(":") if folder != str(NINJA_FOLDER))
    out, _ = run_python(load(stub), TORCH_EXTENSIONS_DIR=str(tmp_path), PATH=path)
    assert out.startswith("loaded")


@pytest.mark.parametrize("compiler, named", [("/no/g++", "/no/g++"), (None, "c++")])
def test_no_compiler(stub, tmp_path, compiler, named):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ninja").symlink_to(NINJA_FOLDER / "ninja")
    sentence = failing_sentence(stub, tmp_path / "cache", NO_PACKAGE, CXX=compiler, PATH=str(tmp_path / "bin"))
    wanted = f"conv1d cannot be compiled: {named} was not found; run: apt-get install g++"
    assert sentence == f"ImportError: {wanted}"


def test_unknown_architecture(stub, tmp_path):
    sentence = failing_sentence(
        stub, tmp_path, "import torch; torch.version.cuda = '13.0'", TORCH_CUDA_ARCH_LIST="Hoper"
    )
    assert sentence == "ImportError: conv1d: TORCH_CUDA_ARCH_LIST holds 'Hoper'; write 8.6 or 9.0+PTX"


def toolkit(folder, release, architectures=("75", "80", "90", "120")):
    """A CUDA toolkit as far as the build looks at one before it compiles."""
    (folder / "bin").mkdir(parents=True)
    (folder / "include").mkdir()
    (folder / "include" / "cuda_runtime.h").touch()
    nvcc = folder / "bin" / "nvcc"
    listed = "\\n".join(f"compute_{number}" for number in architectures)
    nvcc.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = --version ] && echo "Cuda compilation tools, release {release}, V{release}.88"\n'
        f'[ "$1" = --list-gpu-arch ] && printf "{listed}\\n"\n'
    )
    nvcc.chmod(0o755)
    return folder


# torch of a CUDA version that no toolkit of this machine has.
CUDA_TORCH = "import torch; torch.version.cuda = '{}'"
REFUSAL = """
import re
keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
for _ in range(2):
    try:
        context["_conv1d_ops"].conv1d.default.redispatch(keys, x, weight, None, 1, 0, 1, 1)
    except RuntimeError as error:
        print(error)
    again = {{}}
    exec(open({!r}).read(), again)
"""


@pytest.mark.parametrize(
    "version, command",
    [
        ("99.1", "pip install 'cuda-toolkit[nvcc,cccl]==99.1.*'"),
        ("11.8", "conda install -c nvidia cuda-toolkit=11.8"),
    ],
)
def test_no_nvcc_of_torchs_version_leaves_the_cpu_half(stub, tmp_path, version, command):
    other = toolkit(tmp_path / "other", "12.8")
    code = load(stub, CUDA_TORCH.format(version)) + REFUSAL.format(str(stub))
    out, err = run_python(code, TORCH_EXTENSIONS_DIR=str(tmp_path / "cache"), CUDA_HOME=str(other))
    loaded, *refusals = out.splitlines()
    sentence = err.splitlines()[0]
    assert loaded.startswith("loaded") and compilations(err) == 1
    assert sentence.startswith(f"conv1d has no CUDA half: found no nvcc of CUDA {version.split('.')[0]}, ")
    assert f"({other}/bin/nvcc is of CUDA 12.8)" in sentence and sentence.endswith(f"; run: {command}")
    assert refusals == [sentence] * 2


def test_no_nvcc_at_all(stub, tmp_path):
    find = """
        import os, torch; torch.version.cuda = "99.1"
        access = os.access
        os.access = lambda path, mode: not str(path).endswith("/nvcc") and access(path, mode)
    """
    _, err = run_python(load(stub, find), TORCH_EXTENSIONS_DIR=str(tmp_path))
    assert err.splitlines()[0] == (
        "conv1d has no CUDA half: found no nvcc of CUDA 99, which torch was built with; "
        "run: pip install 'cuda-toolkit[nvcc,cccl]==99.1.*'"
    )


def test_toolkit_of_torchs_version_is_found_behind_another(stub, model_new, tmp_path, monkeypatch):
    wrong, right = toolkit(tmp_path / "wrong", "12.8"), toolkit(tmp_path / "site" / "nvidia" / "cu99", "99.0")
    monkeypatch.setattr(torch.version, "cuda", "99.0")
    monkeypatch.setenv("CUDA_HOME", str(wrong))
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert model_new._conv1d_find_nvcc() == (str(right), None)
    monkeypatch.setenv("CUDA_PATH", str(toolkit(tmp_path / "named", "99.3")))
    assert model_new._conv1d_find_nvcc() == (str(tmp_path / "named"), None)


def test_nvcc_before_12_5_is_none(model_new, tmp_path, monkeypatch):
    old = toolkit(tmp_path / "old", "12.4")
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.setenv("CUDA_HOME", str(old))
    home, sentence = model_new._conv1d_find_nvcc()
    assert home is None and f"({old}/bin/nvcc is of CUDA 12.4)" in sentence
    assert "found no nvcc of CUDA 12 from 12.5 on, which torch was built with" in sentence
    monkeypatch.setenv("CUDA_PATH", str(toolkit(tmp_path / "new", "12.5")))
    assert model_new._conv1d_find_nvcc() == (str(tmp_path / "new"), None)


# ---- architectures ----

NVML = """
int nvmlInit_v2(void) {{ return 0; }}
int nvmlShutdown(void) {{ return 0; }}
int nvmlDeviceGetCount_v2(unsigned* count) {{ *count = {count}; return 0; }}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {{
    *device = (void*)(long)(index + 1);
    return 0;
}}
int nvmlDeviceGetCudaComputeCapability(void* device, int* major, int* minor) {{
    int capabilities[][2] = {capabilities};
    *major = capabilities[(long)device - 1][0];
    *minor = capabilities[(long)device - 1][1];
    return 0;
}}
"""


@pytest.fixture
def architectures(model_new, tmp_path, monkeypatch):
    """architectures(listed, gpus): what would be compiled with this TORCH_CUDA_ARCH_LIST and these GPUs."""

    def ask(listed, gpus):
        library = tmp_path / "libnvidia-ml.so.1"
        if gpus:
            pairs = ", ".join(f"{{{major}, {minor}}}" for major, minor in gpus)
            (tmp_path / "nvml.c").write_text(NVML.format(count=len(gpus), capabilities=f"{{{pairs}}}"))
            subprocess.run(["cc", "-shared", "-fPIC", tmp_path / "nvml.c", "-o", library], check=True)
        open_library = ctypes.CDLL
        monkeypatch.setattr(ctypes, "CDLL", lambda name: open_library(str(tmp_path / name)))
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
        if listed is not None:
            monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", listed)
        return model_new._conv1d_architectures()

    return ask


@pytest.mark.parametrize(
    "listed, gpus, codes",
    [
        (None, [], ["compute_80", "sm_80", "sm_90a"]),
        ("", [], ["compute_80", "sm_80", "sm_90a"]),
        ("6.1 Volta", [], ["compute_80", "sm_80", "sm_90a"]),
        ("Ada", [], ["compute_89", "sm_89"]),
        ("Hopper", [], ["compute_80", "sm_90a"]),
        ("9.0", [], ["sm_90a"]),
        ("9.0a", [], ["sm_90a"]),
        ("7.0;7.5 8.6+PTX", [], ["compute_86", "sm_75", "sm_86"]),
        ("Ampere+Tegra;12.0a", [], ["sm_120a", "sm_87"]),
        (None, [(9, 0)], ["sm_90a"]),
        (None, [(8, 0), (12, 0), (8, 0), (6, 1)], ["sm_120", "sm_80"]),
        ("Ada", [(9, 0)], ["compute_89", "sm_89", "sm_90a"]),
        ("native", [(10, 0)], ["sm_100"]),
    ],
)
def test_architectures_are_those_asked_for_and_those_here(architectures, listed, gpus, codes):
    assert architectures(listed, gpus) == codes


@pytest.fixture
def compile_flags(model_new, tmp_path, monkeypatch):
    """compile_flags(codes, known): what torch is asked to build for `codes` where nvcc knows the `known`."""
    from torch.utils import cpp_extension

    def ask(codes, known):
        given = {}
        monkeypatch.setattr(
            cpp_extension, "load", lambda name, sources, **arguments: given.update(arguments, sources=sources)
        )
        home = str(toolkit(tmp_path / "toolkit", "13.0", known)) if codes else None
        (tmp_path / "folder").mkdir()
        model_new._conv1d_compile("conv1d_test", str(tmp_path / "folder"), ["-O3"], ["-O3"], codes, home)
        return given

    return ask


def test_each_architecture_is_named_to_nvcc(compile_flags):
    given = compile_flags(["compute_80", "sm_80", "sm_90a"], ["80", "90"])
    assert [flag for flag in given["extra_cuda_cflags"] if "arch" in flag] == [
        "-gencode=arch=compute_80,code=compute_80",
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_90a,code=sm_90a",
    ]
    assert "-DCONV1D_WITH_CUDA" in given["extra_cflags"]


def test_gpu_newer_than_nvcc_gets_the_newest_ptx(compile_flags):
    given = compile_flags(["sm_200", "sm_80"], ["75", "80", "120"])
    assert [flag for flag in given["extra_cuda_cflags"] if "arch" in flag] == [
        "-gencode=arch=compute_120,code=compute_120",
        "-gencode=arch=compute_80,code=sm_80",
    ]


def test_cpu_half_has_no_cuda_in_it(compile_flags):
    given = compile_flags([], [])
    names = [pathlib.Path(source).name for source in given["sources"]]
    assert names == ["autograd.cpp", "python.cpp", "conv1d.cpp", "cpu.cpp"]
    assert "-DCONV1D_WITH_CUDA" not in given["extra_cflags"]
