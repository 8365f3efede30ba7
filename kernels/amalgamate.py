"""Folds kernels/ into model_new.py.

    python kernels/amalgamate.py                  rewrite the generated parts of model_new.py
    python kernels/amalgamate.py --check          exit 1 where model_new.py is not what kernels/ folds to
    python kernels/amalgamate.py --problem 76     write model_new_76.py: the same body, that problem's page
    python kernels/amalgamate.py --problem 76 --output FILE

Two parts of model_new.py are generated, each between its two marks: the page (what an evaluator asks of one
problem) and the sources. They are pure functions of this file and its neighbours; the rest is hand-written.
"""
import argparse
import pathlib
import re
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
MODEL = FOLDER.parent / "model_new.py"

# What a translation unit starts from; each compiles beside the others.
ROOT_SUFFIXES = (".cpp", ".cu")

# KernelBench level 1. `signature` is what the problem's Model takes by position between kernel_size and bias.
PAGES = {
    67: {
        "title": "conv_standard_1D",
        "signature": {"stride": 1, "padding": 0, "dilation": 1, "groups": 1},
        "init": "[64, 128, 3]",
        "x": (32, 64, 131072),
    },
    76: {
        "title": "conv_standard_1D_dilated_strided",
        "signature": {"stride": 1, "dilation": 1},
        "init": "[64, 128, 3, 3, 4]",
        "x": (64, 64, 524280),
    },
}

PAGE = '''\
class ModelNew(nn.Module):
    """KernelBench level 1, problem {number} ({title}), with the signature of that problem's Model."""

    def __init__(
        self, in_channels, out_channels, kernel_size, {signature}, bias=False
    ):
        super().__init__()
        self.conv1d = Conv1d(
            in_channels,
            out_channels,
            kernel_size,
{arguments}            bias=bias,
        )

    def forward(self, x):
        return self._modules["conv1d"](x)  # what self.conv1d is, 1.2 us sooner


def get_inputs():
    return [torch.rand({x})]


def get_init_inputs():
    return {init}
'''


class AmalgamationError(Exception):
    """One sentence: what in kernels/ cannot be folded."""


def page_text(number):
    """The page of one problem: ModelNew, get_inputs, get_init_inputs."""
    page = PAGES[number]
    return PAGE.format(
        number=number,
        title=page["title"],
        signature=", ".join(f"{name}={value}" for name, value in page["signature"].items()),
        arguments="".join(f"            {name}={name},\n" for name in page["signature"]),
        x=", ".join(map(str, page["x"])),
        init=page["init"],
    )


def read_sources(folder=FOLDER):
    """{file name: text} of every C++ and CUDA source in `folder`."""
    names = sorted(p.name for p in folder.iterdir() if p.suffix in (".h", ".cuh", *ROOT_SUFFIXES))
    return {name: (folder / name).read_text(encoding="utf-8") for name in names}


LOCAL_INCLUDE = re.compile(r'#include "(.+)"')


def local_includes(name, text):
    """The kernels/ files that `text` includes, in order.

    Folded, they precede everything in the file: so they must stand before its code and outside every #if.
    """
    includes, code, depth = [], False, 0
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        match = LOCAL_INCLUDE.match(line)
        if match and (code or depth):
            raise AmalgamationError(
                f'kernels/{name}:{number}: #include "{match[1]}" must come before all code, outside #if.'
            )
        if match:
            includes.append(match[1])
        depth += line.startswith("#if")
        depth -= line.startswith("#endif")
        code = code or not re.match(r"(//.*|#(pragma once|include|if|el|endif).*)?$", line)
    return includes


def fold_unit(root, sources):
    """The files of one translation unit: `root` and what it includes, each once, the included ones first."""
    order = []

    def visit(name, path):
        if name in path:
            raise AmalgamationError(f"kernels/{name} includes itself: {' -> '.join([*path, name])}.")
        if name not in sources:
            raise AmalgamationError(f"kernels/{name} is missing; {path[-1] if path else 'a unit'} needs it.")
        for include in local_includes(name, sources[name]):
            visit(include, [*path, name])
        if name not in order:
            order.append(name)

    visit(root, [])
    return order


def embedded_text(name, text):
    """A source as it is embedded: what folding replaces is blanked, so that each line keeps its number."""
    if "'''" in text:
        raise AmalgamationError(f"kernels/{name} holds ''', the quotes that model_new.py puts around it.")
    lines = [
        "" if LOCAL_INCLUDE.match(line.strip()) or line.strip() == "#pragma once" else line
        for line in text.splitlines()
    ]
    return "\n".join([f'#line 1 "kernels/{name}"', *lines, ""])


def sources_text(sources):
    """The generated block of sources: every file once, and the order in which each unit takes them."""
    units = {name: fold_unit(name, sources) for name in sources if name.endswith(ROOT_SUFFIXES)}
    for name in sources:
        if not any(name in unit for unit in units.values()):
            raise AmalgamationError(f"kernels/{name} is reached from none of {', '.join(units)}.")
    parts = ["_conv1d_sources = {"]
    for name in dict.fromkeys(name for unit in units.values() for name in unit):
        parts.append(f"\"{name}\": r'''\n{embedded_text(name, sources[name])}''',")
    parts.append("}")
    parts.append("_conv1d_units = {")
    for root, unit in units.items():
        parts.extend([f'    "{root}": [', *(f'        "{name}",' for name in unit), "    ],"])
    parts.append("}\n")
    return "\n".join(parts)


def replace_between(text, mark, generated):
    """`text` with what stands between the two lines of `mark` replaced."""
    begin, end = f"# >>> {mark}, written by kernels/amalgamate.py\n", f"# <<< {mark}\n"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise AmalgamationError(f"model_new.py must hold the marks of its {mark} once each.")
    head, rest = text.split(begin)
    tail = rest.split(end)[1]
    return f"{head}{begin}\n\n{generated}\n\n{end}{tail}"


def amalgamate(problem=67, folder=FOLDER, model=MODEL):
    """The one-file module for `problem`: `model`'s hand-written part, a page, the sources of `folder`."""
    text = replace_between(model.read_text(encoding="utf-8"), "page", page_text(problem))
    return replace_between(text, "sources", sources_text(read_sources(folder)))


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Folds kernels/ into model_new.py.")
    parser.add_argument("--check", action="store_true", help="only tell, exit 1, if model_new.py is stale")
    parser.add_argument("--problem", type=int, choices=sorted(PAGES), help="write that problem's file")
    parser.add_argument("--output", type=pathlib.Path, metavar="FILE", help="default: model_new_PROBLEM.py")
    options = parser.parse_args(arguments)
    if options.output and not options.problem:
        parser.error("--output needs --problem")
    try:
        text = amalgamate(options.problem or 67)
    except AmalgamationError as error:
        print(error, file=sys.stderr)
        return 1
    if options.check:
        if text == MODEL.read_text(encoding="utf-8"):
            return 0
        print("model_new.py is stale; run: python kernels/amalgamate.py", file=sys.stderr)
        return 1
    name = f"model_new_{options.problem}.py" if options.problem else MODEL.name
    (options.output or MODEL.with_name(name)).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
