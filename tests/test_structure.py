"""The design's rules that a machine can check."""
import re
import subprocess
from pathlib import Path

import model
from data import image
from tests.conftest import REPO, python

SOURCES = [path for path in REPO.rglob("*.py") if not {".venv", "experiment", "dataset"} & set(path.relative_to(REPO).parts)]
CORE = [path for path in SOURCES if not {"tests", "tool"} & set(path.relative_to(REPO).parts)
        and (path.parent.parent != REPO / "model")]


def test_no_model_name_outside_its_folder():
    for path in CORE:
        text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("DEFAULT"))
        for name in model.MODELS:
            assert not re.search(rf"['\"]{name}['\"]", text), f"{path} names {name}"


def test_files_stay_small():
    assert [str(path) for path in SOURCES if len(path.read_text().splitlines()) > 300] == []


def test_weights_are_never_trusted():
    for path in CORE:
        for line in path.read_text().splitlines():
            assert "torch.load(" not in line or "weights_only=True" in line, f"{path}: {line}"
            assert not re.search(r"^\s*(import|from) pickle|strict=False|shell=True", line), f"{path}: {line}"


def test_images_are_decoded_in_one_place():
    """Only data/image.py opens image files, and only those of the named formats: Pillow runs Ghostscript for an EPS file."""
    for path in SOURCES:
        text = path.read_text()
        if "tests" not in path.relative_to(REPO).parts and path != REPO / "data/image.py":
            assert not re.search(r"Image\.open\(|imread|imageio(?![-_\[]ffmpeg)|io\.read_image|decode_image", text), path
    opened = re.findall(r"Image\.open\(.*", (REPO / "data/image.py").read_text())
    assert opened and all("formats=READABLE" in line for line in opened) and "EPS" not in image.READABLE


def test_packages_have_the_same_face():
    for name in model.MODELS:
        package = model.package(name)
        assert {"RECIPE", "add_arguments", "build", "from_official"} <= set(vars(package)), name
        assert package.__doc__


def test_importing_does_nothing(tmp_path):
    """Importing the program prints nothing, reads no command line, draws no library for drawing in, writes no file."""
    code = "import sys; sys.argv = ['x', '--nonsense']; import main; print('matplotlib' in sys.modules, 'skimage' in sys.modules)"
    result = subprocess.run(python("-c", code), capture_output=True, text=True, cwd=tmp_path,
                            env={"PYTHONPATH": str(REPO), "PATH": ""}, check=True)
    assert result.stdout.strip() == "False False" and result.stderr == ""
    assert list(Path(tmp_path).iterdir()) == []
