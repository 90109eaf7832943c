"""Tests of the documentation: every command parses, commands that can be shortened run, every link has a target."""
import functools
import importlib
import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

import model
import option
from runtime import files
from tests.conftest import REPO, make_pairs, photo, save
from tests.test_commands import ROWS, make_everything, place_files, shortened, write_weights
from tool import guarded

PAGES = [REPO / "README.md", REPO / "CONTRIBUTING.md", REPO / "dataset/README.md", REPO / "experiment/README.md",
         *sorted((REPO / "docs").rglob("*.md"))]
DOCS = [page for page in PAGES if page.is_relative_to(REPO / "docs")]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:^|[\s`])((?:python main\.py|python -m (?:tool\.\w|tests\.\w|pytest)|torchrun|make [a-z])[^`\n]*)")
# these print texts, need optional packages, start a server, or take minutes
PARSED_ONLY = ("--help", "--list", "--logger", "--onnx", "onnxruntime", "clip.mp4", "tool.serve", "tool.demo", "tool.audit", "tool.bench",
               "tool.zoo", "--config zoo/")
SLOW = ("--template demo", "--save_maps", "--teachers", "tool.export")


class Command(NamedTuple):
    """A command as a page prints it, in one line."""
    page: str
    text: str


def snippets(page: str) -> list[str]:
    """Return the code of a page: fenced blocks except Python, indented lines, and inline code outside of both."""
    fenced = [code for _, language, code in FENCE.findall(page) if language != "python"]
    rest = FENCE.sub("", page)
    indented = re.findall(r"^ {4,}(?![-*\d])(\S.*)$", rest, re.MULTILINE)
    rest = re.sub(r"^ {4,}(?![-*\d])\S.*$", "", rest, flags=re.MULTILINE)
    inline = re.findall(r"`([^`]+)`", rest)
    return [*fenced, *indented, *(" ".join(code.split()) for code in inline)]


def commands_of(page: str) -> list[str]:
    """Return the commands on a page, with line continuations joined and with comments and text before the command removed."""
    found = []
    for snippet in snippets(page):
        for line in snippet.replace("\\\n", " ").splitlines():
            for text in COMMAND.findall(line):
                text = re.split(r"\s#\s", text)[0].strip()
                if not text.startswith("torchrun") or "main.py" in text:
                    found.append(" ".join(text.split()))
    return list(dict.fromkeys(found))


@functools.cache
def printed() -> list[Command]:
    """Return every command of all pages, each once."""
    first: dict[str, str] = {}
    for page in PAGES:
        for text in commands_of(page.read_text(encoding="utf-8")):
            first.setdefault(text, str(page.relative_to(REPO)))
    return [Command(page, text) for text, page in first.items()]


def flags_of(text: str) -> list[str] | None:
    """Return the arguments of a command that runs main.py, None for any other."""
    words = shlex.split(text)
    return words[words.index("main.py") + 1:] if "main.py" in words else None


MAIN = [command for command in printed() if flags_of(command.text) is not None
        and command.page != "CONTRIBUTING.md"]              # these use a model that the page adds; tests/test_contributing.py runs them
TOOLS = [command for command in printed() if command.text.startswith("python -m tool.")]
MAKE = [command for command in printed() if command.text.startswith("make ")]
PYTEST = [command for command in printed() if command.text.startswith(("python -m pytest", "python -m tests."))]
TABLE = [f"python main.py {row}" for _, row in ROWS]                     # tests/test_commands.py runs these
RUN = [command for command in MAIN if command.text not in TABLE and command.text.startswith("python")
       and not any(word in command.text for word in PARSED_ONLY)]
RUN_TOOLS = [command for command in TOOLS if not any(word in command.text for word in (*PARSED_ONLY, " DIR", " A B"))]


def marked(commands: list[Command]) -> list:
    """Return the commands as parameters of a test; those that take longer are marked slow."""
    return [pytest.param(command, marks=[pytest.mark.slow] * any(word in command.text for word in SLOW)) for command in commands]


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> Path:
    """A folder with everything that commands read, written once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("everything"))
        return make_everything(Path.cwd())


@pytest.fixture
def data(everything, place) -> Path:
    """The working folder with a copy of `everything`, and the recipes of the zoo."""
    for recipe in (REPO / "zoo").glob("*/args.json"):
        shutil.copy(recipe, files.make_folder(place / "zoo" / recipe.parent.name))
    return shutil.copytree(everything, place, dirs_exist_ok=True)


def test_the_extractor_finds_commands():
    """Commands are found in blocks, lists, inline code, continued lines and after other programs, but not in Python code or prose."""
    page = ("Run python main.py --never once.\n\n    python main.py --a 1      # why\n\n- point:\n\n      make demo\n\n"
            "Use `python -m tool.verify A` and `--flag`.\n\n```bash\nsrun torchrun --x 2 \\\n    main.py --b\n```\n\n"
            "```python\nmake nothing\n```\n| a | `make\ntest` |\n")
    assert commands_of(page) == ["torchrun --x 2 main.py --b", "python main.py --a 1", "make demo", "python -m tool.verify A", "make test"]


def test_there_are_commands_of_every_kind():
    assert len(MAIN) >= 50 and len(RUN) >= 15 and len(MAKE) >= 4
    assert {re.search(r"tool\.(\w+)", command.text)[1] for command in TOOLS} >= {
        path.stem for path in (REPO / "tool").glob("[a-z]*.py") if "__main__" in path.read_text() and path.stem != "demo_kd"}


@pytest.mark.parametrize("command", MAIN, ids=lambda command: command.text)
def test_a_command_of_main_parses(data, command):
    flags = flags_of(command.text)
    place_files(flags)
    if "--help" in flags:
        with pytest.raises(SystemExit) as ended:
            option.parse(flags)
        assert ended.value.code == 0
    else:
        assert option.parse(flags).model in model.MODELS


@pytest.mark.parametrize("command", TOOLS, ids=lambda command: command.text)
def test_a_command_of_a_tool_parses(data, command):
    name, *flags = shlex.split(command.text)[2:]
    place_files(flags)
    if name == "tool.demo":
        assert not flags                                                 # it takes none
    elif "--help" not in flags:
        assert arguments(name)(flags)


def arguments(name: str):
    """Return the function of a tool that reads its flags."""
    module = importlib.import_module(name)
    return module.parse if hasattr(module, "parse") else module.arguments


@pytest.mark.parametrize("command", MAKE, ids=lambda command: command.text)
def test_a_target_of_make_exists(command):
    targets = re.findall(r"^([\w-]+):", (REPO / "Makefile").read_text(), re.MULTILINE)
    words = [word for word in command.text.split()[1:] if "=" not in word]
    assert words and set(words) <= set(targets)


@pytest.mark.parametrize("command", PYTEST, ids=lambda command: command.text)
def test_a_file_of_tests_exists(command):
    words = shlex.split(command.text)
    module = [] if words[2] == "pytest" else [words[2].replace(".", "/") + ".py"]
    for path in [*module, *(word for word in words[3:] if word.startswith("tests"))]:
        assert (REPO / path).exists(), f"{command.page}: {path}"


@pytest.mark.parametrize("command", marked(RUN), ids=lambda command: command.text)
def test_a_command_runs(run, data, command):
    """The command runs on tiny data with a small network and few steps."""
    flags = flags_of(command.text)
    place_files(flags, run)
    status, text = run(*shortened(flags))
    assert status == 0, text


@pytest.mark.parametrize("command", marked(RUN_TOOLS), ids=lambda command: command.text)
def test_a_tool_runs(run, data, monkeypatch, command):
    """The tool runs on tiny data."""
    name, *flags = shlex.split(command.text)[2:]
    monkeypatch.delenv("UNWEATHER_DATA", raising=False)
    place_files(flags)
    if name == "tool.compare":
        for each in flags[:2]:
            assert run(*shortened(["--data_train", "mine", "--save", each]))[0] == 0
    if name == "tool.make_lists":
        shutil.rmtree("dataset/train")
    if name == "tool.measure":
        make_pairs(Path("Rain100L"), 2)
        for folder, kind in (("restored", "input"), ("clean", "target"), ("maps/Rain100L/sdr(fuse)", "input")):
            shutil.copytree(Path("Rain100L", kind), folder)
    if name == "tool.synthesise":
        save(Path("clean/photo.png"), photo(40, 48, 1))
    module = importlib.import_module(name)
    assert (guarded(name, lambda: module.run(flags)) if hasattr(module, "run") else module.main(flags)) == 0


@pytest.mark.parametrize("page", [page for page in PAGES if "import unweather" in page.read_text(encoding="utf-8")],
                         ids=lambda page: str(page.relative_to(REPO)))
def test_python_examples_run(place, page):
    """The examples run as printed; the model file and the two images that they name are written before."""
    write_weights(Path("experiment/mine/model/model_best.pt"), "smgarn")
    save(Path("snowy.jpg"), photo(40, 48, 1))
    save(Path("clean.png"), photo(40, 48, 1))
    examples = [code for _, language, code in FENCE.findall(page.read_text(encoding="utf-8")) if "import unweather" in code]
    for code in examples:
        exec(code, {})
        assert Image.open("restored.png").size == (48, 40)
        Path("restored.png").unlink()


def test_versions_agree():
    """The pages state the versions of pyproject.toml and requirements.txt."""
    stated = {"version": r'^version = "(.+)"', "python": r'^requires-python = ">=(.+)"', "torch": r"^torch>=(.+)$"}
    sources = (REPO / "pyproject.toml").read_text() + (REPO / "requirements.txt").read_text()
    known = {name: re.search(pattern, sources, re.MULTILINE)[1] for name, pattern in stated.items()}
    assert f"Version {known['version']}." in (REPO / "docs/README.md").read_text(encoding="utf-8")
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    assert f"Python {known['python']} or newer and torch {known['torch']} or newer" in readme


def test_readme_is_short():
    assert len((REPO / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_links_have_targets(page):
    """Every relative link names an existing file, and its #part is a heading of that file."""
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text(encoding="utf-8"))):
        if not re.match(r"[a-z]+:", target):
            path, _, part = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.is_file(), f"{page} links to {target}"
            assert not part or part in headings(file), f"{page} links to {target}"


def headings(page: Path) -> set[str]:
    """Return the anchors that GitHub makes for the headings of a page."""
    found = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_a_page_starts_with_a_command(page):
    assert commands_of("\n".join(page.read_text(encoding="utf-8").splitlines()[:12]))


def test_no_table_is_cut_in_two():
    """Every table starts with a heading; a table row without one is shown as text."""
    for page in PAGES:
        lines = ["", *FENCE.sub("", page.read_text(encoding="utf-8")).splitlines()]
        for number, line in enumerate(lines):
            if line.startswith("|") and not lines[number - 1].startswith("|"):
                assert re.fullmatch(r"\|[-:|]+\|", lines[number + 1]), f"{page}: {line}"


def test_flags_that_are_named_exist(place, capsys):
    """A flag at the start of inline code is a flag of main.py, of a tool, or of another program listed here."""
    for name in model.MODELS:
        with pytest.raises(SystemExit):
            option.parse(["--model", name, "--help"])
    for module in {shlex.split(command.text)[2] for command in TOOLS} - {"tool.demo"}:
        with pytest.raises(SystemExit):
            arguments(module)(["--help"])
    known = {*re.findall(r"--[\w-]+", capsys.readouterr().out), "--max-restarts", "--nproc_per_node"}
    for page in PAGES:
        for code in re.findall(r"`(--[\w-]+)", FENCE.sub("", page.read_text(encoding="utf-8"))):
            assert code in known, f"{page}: {code}"
