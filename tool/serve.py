"""python -m tool.serve: a local web page that restores photos, at http://127.0.0.1:7860."""
import argparse
import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":                # before torch is imported
    from runtime import waiting
    waiting.leave_cores_to_others()

import numpy as np
import torch
from PIL import Image

from data import image
from model import weights
from model.method import Method
from restore.restorer import Restorer, Settings
from runtime import experiment, process
from runtime.arguments import Parser, number
from runtime.errors import Failure, UserError
from runtime.files import make_folder, natural
from tool import guarded

HOST = "127.0.0.1"
KEPT = 3                                  # number of networks that stay in memory
TILE, OVERLAP = 512, 96
MOST = 200_000_000                        # largest number of pixels of a photo
SHOWN = 2048                              # longest side in pixels of the images on the page; the download has full size
HOUR = 3600.0                             # seconds after which uploads and results are deleted
ZOO = Path("zoo")
TEXT = """# Unweather
Removes snow, rain, haze and noise from photos. Photos stay on this machine: they are not sent anywhere, and they are deleted after an hour.
"""
CSS = """.gradio-container { width: 100% !important; max-width: 1180px !important; margin: 0 auto !important; }
footer { display: none !important; }"""


class Result(NamedTuple):
    """A photo before and after restoring, (H, W, 3) uint8, with the number of tiles and the time in seconds."""
    before: np.ndarray
    after: np.ndarray
    tiles: int
    seconds: float


class Service:
    """Restores photos with one of several model files; a lock lets one thread compute at a time.

    weights: the path of each model file by its name on the page; whole: photos with more pixels are restored in tiles.
    """

    def __init__(self, weights: dict[str, Path], whole: int):
        self.weights, self.whole = weights, whole
        self.loaded: OrderedDict[tuple[str, int], Method] = OrderedDict()
        self.busy = threading.Lock()

    def restore(self, photo: Path, name: str, progress: Callable[[int, int], None] = lambda done, count: None) -> Result:
        """Return the photo restored with the weights `name`; `progress` is called with (tiles done, all tiles).

        UserError for unknown weights and for a file that is no photo; the message contains no path of this machine.
        """
        if name not in self.weights:
            raise UserError("Please choose one of the weights in the list.")
        before = decoded(photo)
        height, width = before.shape[:2]
        settings = Settings(chop=height * width > self.whole, tile=TILE, overlap=OVERLAP)
        start, counts = time.perf_counter(), [1]              # numbers of tiles, as the Restorer reports them

        def report(done: int, count: int) -> None:
            counts.append(count)
            progress(done, count)

        try:
            with self.busy:
                restorer = Restorer(self._method(name), settings, progress=report)
                after = image.to_array(restorer(image.to_tensor(before)[None], may_tile=False)[0])
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise UserError(f"The memory is too small for a photo of {width} × {height} pixels.") from error
        except Failure as error:
            raise UserError("These weights are damaged: the result is not finite.") from error
        return Result(before, after, counts[-1], time.perf_counter() - start)

    def _method(self, name: str) -> Method:
        """Return the network of these weights; the file is read again when it has changed."""
        path = self.weights[name]
        try:
            key = (name, path.stat().st_mtime_ns)
            if key not in self.loaded:
                self.loaded[key] = weights.load(path).to(process.device())
        except (OSError, UserError) as error:
            raise UserError("These weights can no longer be read; please choose others.") from error
        self.loaded.move_to_end(key)
        while len(self.loaded) > KEPT:
            self.loaded.popitem(last=False)
        return self.loaded[key]


def decoded(photo: Path) -> np.ndarray:
    """Return a photo, (H, W, 3) uint8; UserError, with a message for the user of the page, when it is no photo or too large."""
    try:
        height, width = image.size(photo)
        if height * width > MOST:
            raise UserError(f"This photo has {height * width / 1e6:.0f} million pixels; {MOST / 1e6:.0f} million is the limit.")
        return image.read(photo)
    except UserError as error:
        start, text = f"cannot read the image {photo}: ", str(error)
        if not text.startswith(start):
            raise
        raise UserError(f"This file cannot be read as a photo: {text.removeprefix(start).partition('; replace')[0]}.") from error


def shown(picture: np.ndarray) -> np.ndarray:
    """Return an image, (H, W, 3) uint8, reduced to at most SHOWN pixels on its longest side."""
    height, width = picture.shape[:2]
    factor = SHOWN / max(height, width)
    if factor >= 1:
        return picture
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX, reducing_gap=2.0))


def find(given: list[str]) -> dict[str, Path]:
    """Return the model files by the name that the page shows; UserError when there is none, or when a file of `given` cannot be used."""
    usual = [*sorted(experiment.ROOT.glob("*/model/model_best.pt"), key=natural), *sorted(ZOO.glob("*.pt"), key=natural)]
    found: dict[str, Path] = {}
    for path in map(Path, given or usual):
        try:
            stated = weights.describe(path)
            if not stated:
                raise UserError(f"{path} does not state its model")
        except UserError as error:
            if given:
                raise
            print(f"left out: {error}", file=sys.stderr)
            continue
        short = path.parents[1].name if path.parent.name == "model" else path.stem
        label = f"{short} ({stated['model']})"
        found[label if label not in found else f"{path} ({stated['model']})"] = path
    weights.forget()
    if not found:
        raise UserError(f"there are no model files {experiment.ROOT}/*/model/model_best.pt or {ZOO}/*.pt; name one with --weights FILE")
    return found


def delete_old(place: Path, age: float = HOUR) -> None:
    """Delete the files in a folder and its subfolders that are older than `age` seconds."""
    for path in place.rglob("*"):
        with contextlib.suppress(OSError):                # another thread may delete the file
            if path.is_file() and time.time() - path.stat().st_mtime > age:
                path.unlink()


def page(service: Service, place: Path):
    """Return the page as Gradio Blocks; results are written to subfolders of `place`."""
    import gradio as gr
    progress = gr.Progress()

    def show_photo(photo: str | None):
        nothing = {slider: gr.update(value=None, visible=False), download: gr.update(value=None, interactive=False)}
        if not photo:
            return {**nothing, preview: gr.update(value=None, visible=True), status: ""}
        try:
            picture = decoded(Path(photo))
        except UserError as error:
            return {**nothing, preview: gr.update(value=None, visible=True), status: f"⚠️ {error}"}
        return {**nothing, preview: gr.update(value=shown(picture), visible=True),
                status: f"{picture.shape[1]} × {picture.shape[0]} pixels."}

    def restore_photo(photo: str | None, name: str, progress=progress):
        if not photo:
            return {status: "⚠️ Please choose a photo first."}
        progress(0, "restoring")
        try:
            result = service.restore(Path(photo), name, lambda done, count: progress((done, count), "restoring", unit="tiles"))
        except UserError as error:
            return {status: f"⚠️ {error}"}
        path = make_folder(place / uuid.uuid4().hex) / f"{Path(photo).stem}-restored.png"
        image.write(path, result.after)
        height, width = result.after.shape[:2]
        how = f", in {result.tiles} tiles" if result.tiles > 1 else ""
        return {slider: gr.update(value=(shown(result.before), shown(result.after)), visible=True), preview: gr.update(visible=False),
                download: gr.update(value=str(path), interactive=True),
                status: f"{width} × {height} pixels restored with {name}{how} in {result.seconds:.1f} s. Drag the line to compare."}

    with gr.Blocks(title="Unweather", analytics_enabled=False) as blocks:
        gr.Markdown(TEXT)
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                photo = gr.File(label="Photo", file_types=sorted(image.EXTENSIONS), type="filepath", height=150, elem_id="photo")
                weights = gr.Dropdown(list(service.weights), value=next(iter(service.weights)), label="Weights", elem_id="weights")
                start = gr.Button("Restore", variant="primary", elem_id="restore")
                download = gr.DownloadButton("Download as PNG, full size", interactive=False, elem_id="download")
                status = gr.Markdown(elem_id="status")
            with gr.Column(scale=2, min_width=320):
                preview = gr.Image(show_label=False, format="png", interactive=False, height=560, buttons=[], elem_id="preview")
                slider = gr.ImageSlider(label="Before | after", format="png", interactive=False, height=560, max_height=560, visible=False,
                                        buttons=["fullscreen"], elem_id="slider")
        gr.on([photo.upload, photo.clear], show_photo, photo, [preview, slider, download, status], show_progress="hidden",
              api_visibility="private")
        start.click(restore_photo, [photo, weights], [slider, preview, download, status], concurrency_limit=1, concurrency_id="network",
                    show_progress_on=[preview, slider], api_visibility="private")
    return blocks


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed flags; UserError for an unknown flag."""
    parser = Parser(prog="tool.serve", description=__doc__, allow_abbrev=False)
    parser.add_argument("--weights", nargs="+", default=[], metavar="FILE",
                        help="model files that the page offers; default: every experiment/*/model/model_best.pt and zoo/*.pt")
    parser.add_argument("--port", type=number(int, 1, 65535), default=7860, help="port of the page; default: 7860")
    parser.add_argument("--whole", type=number(float, 0), default=1.0, metavar="MEGAPIXELS",
                        help=f"photos with more pixels are restored in tiles of {TILE} pixels; default: 1")
    parser.add_argument("--cpu", action="store_true", help="compute on the CPU even if there is a GPU")
    return parser.parse_args(argv)


def run(argv: list[str] | None = None, ended: threading.Event | None = None) -> None:
    """Serve the page until SIGINT, SIGTERM or `ended`; UserError when weights or Gradio are missing or the port is in use."""
    args = arguments(argv)
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    try:
        import gradio as gr
    except ImportError as error:
        raise UserError("the page needs the package gradio: pip install 'gradio>=6'") from error
    ended = ended or threading.Event()
    if threading.current_thread() is threading.main_thread():
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, lambda *_: ended.set())
    with tempfile.TemporaryDirectory(prefix="unweather-") as place, process.session(args.cpu, 1):
        os.environ["GRADIO_TEMP_DIR"] = place
        blocks = page(Service(find(args.weights), round(args.whole * 1e6)), Path(place))
        try:
            blocks.queue(max_size=64).launch(
                server_name=HOST, server_port=args.port, share=False, quiet=True, prevent_thread_lock=True, ssr_mode=False, footer_links=[],
                max_file_size="500mb", enable_monitoring=False, css=CSS,
                theme=gr.themes.Default(primary_hue="blue", font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")))
        except OSError as error:
            raise UserError(f"the port {args.port} is in use; choose another with --port") from error
        print(f"http://{HOST}:{args.port} — press Ctrl-C to end the server", flush=True)
        try:
            while not ended.wait(60):
                delete_old(Path(place))
        finally:
            blocks.close(verbose=False)


if __name__ == "__main__":
    sys.exit(guarded("tool.serve", run))
