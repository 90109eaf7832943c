"""--model external: a network in the user's own file, its errors in one sentence, and that only the command line names code."""
import json
import sys
from pathlib import Path

import pytest
import torch

import model
import option
import unweather
from model import external, teacher, weights
from runtime import files
from runtime.errors import UserError
from tests import small
from tests.conftest import TINY, photo

ARCH = external.EXAMPLE
FLAGS = ("--model", "external", "--arch", ARCH, "--arch_args", '{"width": 4}', "--multiple", "2", "--data_train", "set", *TINY[2:])
WRITTEN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        y = self.conv(x)
        return ANSWER
"""


@pytest.fixture
def trained(run, pairs):
    """A model file of the example network, trained for one epoch."""
    assert run(*FLAGS, "--save", "x", "--no-report")[0] == 0
    return "experiment/x/model/model_best.pt"


def written(text: str, name: str = "net.py") -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)
    return f"{name}:Net"


def built(arch: str, **flags):
    return external.build(option.Namespace(**({"arch": arch, "arch_args": "{}", "output": "", "multiple": 1} | flags)))


def refusal(arch: str, **flags) -> str:
    external.code._run.cache_clear()
    with pytest.raises(UserError) as caught:
        built(arch, **flags)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_file_names_code(run, fails, trained):
    """args.json states --arch for its reader only: a test, a resumed training and a config need the flag on the command line."""
    words = "add --arch FILE.py:CLASS to every command that uses it"
    stored = json.loads(Path("experiment/x/args.json").read_text())
    assert stored["arch"] == ARCH and stored["arch_args"] == '{"width": 4}'
    assert "arch" not in files.read_tensors(trained)["arguments"]
    for flags in (("--load", "x", "--test_only", "--cpu"), ("--load", "x", "--resume", "-1", "--epochs", "2", "--cpu"),
                  ("--config", "experiment/x/args.json", "--save", "y"), ("--test_only", "--pre_train", trained, "--data_test", "set")):
        assert words in fails(*flags)
        assert option.parse([*flags, "--arch", ARCH]).arch == ARCH
    assert run("--load", "x", "--test_only", "--arch", ARCH, "--cpu")[0] == 0
    assert run("--load", "x", "--resume", "-1", "--epochs", "2", "--arch", ARCH, "--cpu")[0] == 0
    assert run(*FLAGS, "--epochs", "2", "--save", "x", "--no-report")[0] == 0      # the same command tests a finished experiment again


def test_an_argument_arch_in_a_model_file_is_refused(place, trained):
    content = files.read_tensors(trained)
    content["arguments"] = dict(content["arguments"], arch="evil.py:Net")
    files.write_tensors(Path("evil.pt"), content)
    Path("evil.py").write_text("open('was_run', 'w')")
    with pytest.raises(UserError, match="states the argument 'arch', which external does not have"):
        weights.load("evil.pt", {"arch": ARCH})
    assert not Path("was_run").exists()


def test_python_teacher_and_features(run, trained):
    method = unweather.load(trained, arch=ARCH)
    assert unweather.restore(method, photo(33, 41, 0)).shape == (33, 41, 3)
    with pytest.raises(UserError, match="add --arch"):
        unweather.load(trained)
    assert teacher.Teacher(trained, "", method, torch.device("cpu"), ARCH).method.network.head.out_channels == 4
    student = ("--model", "nafnet", "--channels", "4", "--blocks", "1/1/1", "--data_train", "set", *TINY[2:], "--no-report")
    taught = ("--teacher", trained, "--loss", "1*L1+0.5*L1:image:teacher", "--save", "taught")
    assert run(*student, *taught, "--teacher_arch", ARCH)[0] == 0
    assert "add --teacher_arch" in run(*student, *taught, "--reset")[1]
    assert "--teacher_arch needs a teacher" in run(*student, "--teacher_arch", ARCH, "--save", "z")[1]


def test_another_model_takes_no_code(trained, old):
    with pytest.raises(UserError, match=r"old.pt: the model smgarn has no flag --arch"):
        unweather.load(old, arch=ARCH)


def test_a_larger_network_than_the_file(trained):
    content = files.read_tensors(trained)
    content["arguments"] = dict(content["arguments"], arch_args='{"width": 100000}')
    files.write_tensors(Path("large.pt"), content)
    with pytest.raises(UserError, match="the arguments describe a larger network than the file contains"):
        weights.load("large.pt", {"arch": ARCH})


@pytest.mark.parametrize("around", [
    lambda state: state,
    lambda state: {"params": state},
    lambda state: {"params_ema": state, "params": {key: value + 1 for key, value in state.items()}},
    lambda state: {"state_dict": {"params": state}, "epoch": 3},
    lambda state: {"state_dict": {f"net.{key}": value for key, value in state.items()}, "epoch": 3},
    lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}},
    lambda state: {f"module.{key}": value for key, value in state.items()},
    lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
], ids=["plain", "params", "ema", "nested", "lightning net", "lightning model", "module", "compiled"])
def test_weights_of_other_programs(place, around):
    method, other = built(ARCH, multiple=2), built(ARCH, multiple=2)
    torch.save(around(method.network.state_dict()), "w.pth")
    count = len(method.network.state_dict())
    assert f"{count} of {count} tensors matched" in weights.load_weights(other, "w.pth", "external")
    assert all(torch.equal(value, other.network.state_dict()[key]) for key, value in method.network.state_dict().items())


def test_a_prefix_goes_only_if_all_names_then_match(place):
    """A network whose own names begin with a wrapper's prefix keeps them, and a file with further names is refused."""
    method = built(written(WRITTEN.replace("self.conv", "self.net").replace("ANSWER", "y")))
    torch.save(method.network.state_dict(), "w.pth")
    assert "2 of 2" in weights.load_weights(method, "w.pth", "external")
    torch.save(method.network.state_dict() | {"loss.weight": torch.zeros(1)}, "w.pth")
    with pytest.raises(UserError, match=r"2 of its 2 tensors match, 1 are unknown; 'loss\.weight' is not part of the model"):
        weights.load_weights(method, "w.pth", "external")


@pytest.mark.parametrize("answer, output, words", [
    ("(y, x)", "", "returns a tuple; the part that is the image is named by --output: 0, 1"),
    ("{'clean': y, 'n': 3}", "mask", "returns a dict; the part that is the image is named by --output: clean"),
    ("y", "0", "returns a Tensor; leave out --output"),
    ("None", "", "returns a NoneType, which holds no tensor"),
    ("y[..., 1:]", "", "returns the shape (1, 3, 64, 64) for an input of (1, 3, 64, 65), which it must keep; if it needs sides"),
    ("y[:, :1]", "", "returns the shape (1, 1, 64, 65)"),
    ("y.byte()", "", "has the type torch.uint8"),
    ("y + torch.zeros(2, 3)", "", "fails for an input of (1, 3, 64, 65): RuntimeError: The size of tensor a"),
])
def test_a_wrong_result_is_one_sentence(place, answer, output, words):
    assert words in refusal(written(WRITTEN.replace("ANSWER", answer)), output=output)


@pytest.mark.parametrize("answer, output", [("(x, y)", "1"), ("[y]", "0"), ("{'clean': y}", "clean"), ("y", "")])
def test_output_chooses_the_image(place, answer, output):
    external.code._run.cache_clear()
    method, x = built(written(WRITTEN.replace("ANSWER", answer)), output=output), torch.rand(2, 3, 9, 7)
    assert torch.equal(method.restore(x), method.network.conv(x))


@pytest.mark.parametrize("text, words", [
    ("def build(:", "the file cannot be imported: SyntaxError: invalid syntax (FOLDER/net.py, line 1)"),
    ("x = 1\nimport no_such_package", "ModuleNotFoundError: No module named 'no_such_package' (FOLDER/net.py, line 2)"),
    ("from beside import y", "NameError: name 'z' is not defined (FOLDER/beside.py, line 2)"),
    ("raise SystemExit('usage: train.py')", "SystemExit: usage: train.py (FOLDER/net.py, line 1)"),
    ("", "net.py has no class Net; its networks are none"),
    ("from torch import nn\nclass Other(nn.Module): pass", "net.py has no class Net; its networks are Other"),
    ("def Net(): return 3", "this gives a int, not an nn.Module"),
    (WRITTEN, "fails for an input of (1, 3, 64, 65): NameError: name 'ANSWER' is not defined (FOLDER/net.py, line 12)"),
])
def test_a_file_that_does_not_work(place, text, words):
    Path("beside.py").write_text("x = 1\ny = z")
    assert words.replace("FOLDER", str(place)) in refusal(written(text))


@pytest.mark.parametrize("flags, words", [
    (("--arch", "net"), "--arch 'net' is not FILE.py:CLASS"),
    (("--arch", "none.py:Net"), "the file none.py does not exist"),
    (("--arch_args", "3"), "'3' is not a JSON object of keyword arguments"),
    (("--arch_args", "{" * 100_000), "is not a JSON object"),
    (("--arch_args", '{"dim": 48}'), "got an unexpected keyword argument 'dim'"),
    (("--output", "a b"), "'a b' is not a number from 0 or a key"),
    (("--multiple", "0"), "'0' is not a whole number from 1"),
])
def test_wrong_flags(fails, pairs, flags, words):
    sentence = fails(*FLAGS, "--save", "y", *flags)
    assert words in sentence
    assert not Path("experiment/y").exists()
    if "dim" in flags[1]:
        assert "it takes width: int = 16, blocks: int = 2" in sentence


def test_a_network_without_parameters_is_not_trained(fails, pairs):
    arch = written("from torch import nn\nclass Net(nn.Module):\n    def forward(self, x): return x * 0.5")
    flags = [part for part in FLAGS if part != '{"width": 4}' and part != "--arch_args"]
    assert "has no parameter that can be trained" in fails(*flags, "--arch", arch, "--save", "y")


def test_the_folders_of_a_foreign_repository(place):
    """Imports find what lies beside the file, relative or not, also under names of this program; __init__.py files are not run."""
    before, names = list(sys.path), set(sys.modules)
    for init in ("repo/model/__init__.py", "repo/model/archs/__init__.py"):
        written("raise RuntimeError('this imports a whole program')", init)
    written("STEP = 2", "repo/model/archs/util.py")
    written("def identity(x): return x", "repo/utility.py")
    written("from .archs.util import STEP as AGAIN", "repo/model/common.py")
    imports = ("from .util import STEP", "from ..common import AGAIN", "from model.archs import util", "from utility import identity",
               "import beside_it")
    written("\n".join(imports) + WRITTEN.replace("ANSWER", "identity(y) * STEP * AGAIN * util.STEP"), "repo/model/archs/net_arch.py")
    written("", "repo/model/archs/beside_it.py")
    method, x = built("repo/model/archs/net_arch.py:Net"), torch.rand(1, 3, 8, 8)
    assert torch.allclose(method.restore(x), 8 * method.network.conv(x))
    assert sys.path == before and sys.modules["model"] is model and "utility" not in set(sys.modules) - names
    assert "identity" not in vars(__import__("utility"))


def test_random_numbers_do_not_depend_on_the_trial(place):
    arch = written(WRITTEN.replace("ANSWER", "y + 0 * torch.rand(1)"))
    torch.manual_seed(3)
    network = external.code.load(arch)()
    expected = torch.rand(3)
    torch.manual_seed(3)
    method = built(arch)
    assert torch.equal(torch.rand(3), expected) and method.training and network.conv.weight.equal(method.network.conv.weight)


def test_tools_need_the_code(trained, capsys):
    from tool import serve
    assert list(serve.find([trained], {"model": "external", "arch": ARCH})) == ["x (external)"]
    with pytest.raises(UserError, match="add --arch"):
        serve.find([trained])
    assert small.code("external") == ["--model", "external", "--arch", ARCH]


@pytest.mark.parametrize("answer, words", [("sys.exit(0)", "fails for an input of (1, 3, 64, 65): SystemExit: 0"),
                                           ("Bad.now()", "fails for an input of (1, 3, 64, 65): Bad: an error without a text"),
                                           ("Worse.now()", "fails for an input of (1, 3, 64, 65): Worse: no (FOLDER/net.py, line 24)"),
                                           ("next(y for y in end())", "fails for an input of (1, 3, 64, 65): GeneratorExit: done")])
def test_code_that_ends_the_program_or_raises_anything(place, answer, words):
    text = WRITTEN.replace("ANSWER", answer) + """
class Bad(Exception):
    def __str__(self):
        raise ValueError
    @staticmethod
    def now():
        raise Bad
class Worse(BaseException):
    @staticmethod
    def now():
        raise Worse("no")
def end():
    raise GeneratorExit("done")
    yield 1
"""
    assert words.replace("FOLDER", str(place)) in refusal(written("import sys\n" + text))


@pytest.mark.parametrize("ending", ["SystemExit(0)", "BaseException('no')", "GeneratorExit"])
def test_a_class_that_ends_the_program(place, ending):
    text = WRITTEN.replace("super().__init__()", f"raise {ending}").replace("ANSWER", "y")
    assert f"cannot be built with --arch_args '{{}}': {ending.partition('(')[0]}: " in refusal(written(text))
    assert f"the file cannot be imported: {ending.partition('(')[0]}: " in refusal(written(f"raise {ending}"))


def test_ctrl_c_ends_the_program_also_in_code_of_the_user(place):
    for text in ("raise KeyboardInterrupt", WRITTEN.replace("ANSWER", "y").replace("super().__init__()", "raise KeyboardInterrupt"),
                 "import builtins\n" + WRITTEN.replace("ANSWER", "(_ for _ in ()).throw(KeyboardInterrupt)")):
        with pytest.raises(KeyboardInterrupt):
            refusal(written(text))


def test_a_result_without_gradient(fails, pairs):
    arch = written(WRITTEN.replace("ANSWER", "y.detach()"))
    flags = ("--model", "external", "--arch", arch, "--data_train", "set", "--save", "x", *TINY[2:])
    assert "the loss has no gradient" in fails(*flags)
