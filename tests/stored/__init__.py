"""Files as earlier versions wrote them; tests/test_stored.py loads and applies them for ever."""
import lzma
from pathlib import Path

from runtime import files


def unpack(packed: Path, path: str) -> Path:
    files.make_folder(Path(path).parent)
    Path(path).write_bytes(lzma.decompress(packed.read_bytes()))
    return Path(path)


def rewrite(path: Path, **changes) -> Path:
    """Write a model file again with other contents; a value of None takes a key away."""
    content = files.read_tensors(path) | changes
    files.write_tensors(path, {key: value for key, value in content.items() if value is not None})
    return path
