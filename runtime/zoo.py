"""The weights that come with the program: `zoo:NAME` stands for the file zoo/NAME/model.safetensors of the repository."""
from pathlib import Path

from runtime.errors import UserError, short

ROOT = Path(__file__).resolve().parents[1] / "zoo"
PREFIX, FILE = "zoo:", "model.safetensors"
DEFAULT = "zoo:aio"                       # restores noise, rain, haze and snow


def names() -> list[str]:
    """Return the names of the networks in the zoo, the default one first."""
    found = sorted(path.parent.name for path in ROOT.glob(f"*/{FILE}"))
    return sorted(found, key=lambda name: PREFIX + name != DEFAULT)


def located(path: str | Path) -> str | Path:
    """Return the path of the file that `zoo:NAME` stands for, any other path as it is; raises UserError for an unknown name."""
    text = str(path)
    if not text.startswith(PREFIX):
        return path
    name = text.removeprefix(PREFIX)
    if name not in names():
        raise UserError(f"'{short(text)}' is not in the zoo, which has {', '.join(PREFIX + each for each in names()) or 'no weights'}; "
                        f"a file of this name is ./{short(text)}")
    return str(ROOT / name / FILE)
