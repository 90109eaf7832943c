"""Small videos that tests make from moving crops of a photo under synthetic rain, with the ffmpeg of imageio-ffmpeg."""
import subprocess
from pathlib import Path

import numpy as np

from data import degrade
from restore import ffmpeg
from tests.conftest import photo

RATE = 10                                 # frames per second


def rainy(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Return moving crops, (H, W, 3) uint8, of a photo, each with its own rain."""
    scene = photo(2 * height, width + 2 * count, 1)
    crops = (scene[height // 2:height // 2 + height, 2 * step:2 * step + width] for step in range(count))
    return [np.rint(255 * degrade.rain(crop / 255, np.random.default_rng(step), 0.5)).astype(np.uint8) for step, crop in enumerate(crops)]


def ffmpeg_does(*arguments: object) -> bytes:
    """Run ffmpeg and return what it prints."""
    command = [ffmpeg.program(), "-hide_banner", "-loglevel", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=True).stdout


def film(path: Path, frames: list[np.ndarray], sound: bool = True, rotation: int = 0, times: str = "", *more: str) -> Path:
    """Write frames as a video with a tone; `times` is an expression of the filter setpts for the times of the frames."""
    height, width = frames[0].shape[:2]
    path.parent.mkdir(parents=True, exist_ok=True)
    upright = path.with_name(f"upright{path.suffix}")
    tone = ["-f", "lavfi", "-i", f"sine=440:duration={len(frames) / RATE}"] if sound else []
    uneven = ["-vf", f"setpts={times}", "-fps_mode", "passthrough", "-enc_time_base", "1:1000"] if times else []
    command = [ffmpeg.program(), "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}",
               "-r", str(RATE), "-i", "pipe:0", *tone, *uneven, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "8", *more,
               f"file:{upright}"]
    subprocess.run(command, input=b"".join(frame.tobytes() for frame in frames), check=True)
    ffmpeg_does(*(["-display_rotation", rotation] if rotation else []), "-i", f"file:{upright}", "-c", "copy", f"file:{path}")
    upright.unlink()
    return path


def packets(path: Path) -> bytes:
    """Return the times and checksums of the sound's packets."""
    return ffmpeg_does("-i", f"file:{path}", "-map", "0:a", "-c", "copy", "-f", "framecrc", "pipe:1")


def decoded(path: Path) -> list[np.ndarray]:
    """Return the frames of a video, upright."""
    return [frame.copy() for frame in ffmpeg.frames(path, ffmpeg.inspect(path), 0)]


def difference(some: list[np.ndarray], others: list[np.ndarray]) -> float:
    """Return the largest mean difference of two frames at the same place, in levels of 255."""
    assert len(some) == len(others)
    return max(float(np.abs(one.astype(int) - other).mean()) for one, other in zip(some, others))
