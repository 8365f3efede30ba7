"""The folding of kernels/ into model_new.py: complete, in order, repeatable, loud about what it cannot fold."""
import functools
import re
import subprocess
import sys

import pytest
from conftest import ROOT, STUB


def run_script(root, *arguments):
    command = [sys.executable, "kernels/amalgamate.py", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True)


def test_shipped_file_is_what_kernels_fold_to(amalgamate):
    assert (ROOT / "model_new.py").read_text() == amalgamate.amalgamate()
    check = run_script(ROOT, "--check")
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")


@pytest.fixture
def project(tmp_path):
    """A copy of the project's folding, with the sources of STUB: (root, run the script there)."""
    (tmp_path / "kernels").mkdir()
    for name, text in STUB.items():
        (tmp_path / "kernels" / name).write_text(text)
    for name in ("model_new.py", "kernels/amalgamate.py"):
        (tmp_path / name).write_text((ROOT / name).read_text())

    return tmp_path, functools.partial(run_script, tmp_path)


def test_check_tells_a_stale_file_in_one_sentence_and_leaves_it(project):
    root, run = project
    before = (root / "model_new.py").read_text()
    check = run("--check")
    assert check.returncode == 1 and check.stderr.count("\n") == 1 and "amalgamate.py" in check.stderr
    assert (root / "model_new.py").read_text() == before
    assert run().returncode == 0 and run("--check").returncode == 0


def test_folding_twice_changes_nothing(project):
    root, run = project
    run()
    once = (root / "model_new.py").read_bytes()
    run()
    assert (root / "model_new.py").read_bytes() == once


def test_hand_written_part_survives(project):
    root, run = project
    hand = re.split(r"# (?:>>>|<<<) .*\n", (root / "model_new.py").read_text())[::2]
    run()
    assert re.split(r"# (?:>>>|<<<) .*\n", (root / "model_new.py").read_text())[::2] == hand


def sources_of(text):
    """(_conv1d_sources, _conv1d_units) of a folded file."""
    context = {}
    block = text.split("# >>> sources")[1].split("# <<< sources")[0]
    exec(block[block.index("\n") :], context)
    return context["_conv1d_sources"], context["_conv1d_units"]


def test_each_source_stands_once_and_included_before_including(amalgamate):
    sources, units = sources_of(amalgamate.amalgamate())
    on_disk = amalgamate.read_sources()
    assert sources.keys() == on_disk.keys()
    assert {"conv1d.cpp", "conv1d.cu"} < units.keys()
    for root, unit in units.items():
        assert unit[-1] == root and len(set(unit)) == len(unit)
        for place, name in enumerate(unit):
            for include in re.findall(r'^#include "(.+)"', on_disk[name], re.MULTILINE):
                assert include in unit[:place], f"{name} before {include}"


def test_every_line_keeps_its_number_and_its_room(amalgamate):
    sources, _ = sources_of(amalgamate.amalgamate())
    for name, text in amalgamate.read_sources().items():
        first, *lines = sources[name].strip("\n").split("\n")
        assert first == f'#line 1 "kernels/{name}"'
        for number, (kept, written) in enumerate(zip(lines, text.splitlines()), 1):
            blanked = kept == "" and re.match(r'#include "|#pragma once', written)
            assert kept == written or blanked, (name, number)
        assert len(lines) == len(text.rstrip().splitlines())


def test_source_that_nobody_reaches_is_refused(amalgamate):
    with pytest.raises(amalgamate.AmalgamationError, match="kernels/orphan.cuh is reached from none"):
        amalgamate.sources_text({**STUB, "orphan.cuh": "#pragma once\n"})


def test_include_that_does_not_exist_is_refused(amalgamate):
    with pytest.raises(amalgamate.AmalgamationError, match="kernels/gone.h is missing; conv1d.cu needs it"):
        amalgamate.sources_text({**STUB, "conv1d.cu": '#include "problem.h"\n#include "gone.h"\n'})


def test_circle_of_includes_is_refused(amalgamate):
    with pytest.raises(amalgamate.AmalgamationError, match="itself: .*problem.h -> a.h -> problem.h"):
        amalgamate.sources_text({**STUB, "problem.h": '#include "a.h"\n', "a.h": '#include "problem.h"\n'})


@pytest.mark.parametrize("head", ["int code;\n", "#define CONFIGURES 1\n", "#ifdef CONV1D_WITH_CUDA\n"])
def test_include_that_folding_would_move_is_refused(amalgamate, head):
    with pytest.raises(amalgamate.AmalgamationError, match='conv1d.cu:2: #include "problem.h" must come'):
        amalgamate.sources_text({**STUB, "conv1d.cu": head + '#include "problem.h"\n'})


def test_quotes_that_would_end_the_string_are_refused(amalgamate):
    with pytest.raises(amalgamate.AmalgamationError, match="problem.h holds '''"):
        amalgamate.sources_text({**STUB, "problem.h": "// '''\n"})


def test_script_fails_in_one_sentence(project):
    root, run = project
    (root / "kernels" / "orphan.h").write_text("")
    failed = run()
    assert failed.returncode == 1 and failed.stderr.count("\n") == 1 and "orphan.h" in failed.stderr


def test_problem_page_differs_and_the_body_does_not(project):
    root, run = project
    run()
    assert run("--problem", "76").returncode == 0
    assert run("--problem", "76", "--output", "other.py").returncode == 0
    ours, other = (root / "model_new.py").read_text(), (root / "model_new_76.py").read_text()
    assert (root / "other.py").read_text() == other
    ours, other = (re.split(r"# (?:>>>|<<<) page.*\n", text) for text in (ours, other))
    assert ours[::2] == other[::2] and ours[1] != other[1] and "[64, 128, 3, 3, 4]" in other[1]
    assert run("--problem", "67", "--output", "same.py").returncode == 0
    assert (root / "same.py").read_text() == (root / "model_new.py").read_text()


def test_unknown_problem_and_stray_output_are_refused(project):
    _, run = project
    assert run("--problem", "1").returncode == 2
    assert run("--output", "x.py").returncode == 2
