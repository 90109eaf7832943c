"""python -m tool.serve: a local web page that restores photos, at http://127.0.0.1:7860."""
import argparse
import re
import signal
import sys
import tempfile
import threading
from pathlib import Path

if __name__ == "__main__":                # before torch is imported
    from runtime import waiting
    waiting.before_torch()

from model import weights
from restore.flags import add_backend
from restore.jobs import Jobs
from restore.restorer import Settings
from restore.worker import TILE, Worker
from runtime import experiment, zoo
from runtime.arguments import Parser, number
from runtime.errors import UserError
from runtime.files import natural
from tool import guarded, network
from tool.page import HOST, Server

ADDRESS = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::\d{1,5})?")


def find(given: list[str], typed: dict | None = None) -> dict[str, Path]:
    """Return the model files by the name that the page shows; UserError when there is none, or when a file of `given` cannot be used.

    typed: flags of the network of files that do not state their model.
    """
    shipped = [zoo.PREFIX + name for name in zoo.names()]
    usual = [*shipped[:1], *sorted(experiment.ROOT.glob("*/model/model_best.pt"), key=natural), *shipped[1:]]
    found: dict[str, Path] = {}
    for text in given or usual:
        try:
            path = Path(zoo.located(text))
            stated = weights.network_flags(path, weights.typed_for(path, typed))
            if not (weights.describe(path) and weights.from_arguments(stated["model"])):
                weights.load(path, weights.typed_for(path, typed))     # only now it is known whether the file fits these flags
        except UserError as error:
            if given:
                raise
            print(f"left out: {error}", file=sys.stderr)
            continue
        in_zoo = str(text).startswith(zoo.PREFIX)
        short = text if in_zoo else path.parents[1].name if path.parent.name == "model" else path.stem
        label = f"{short} ({stated['model']})"
        found[label if label not in found else f"{path} ({stated['model']})"] = path
    weights.forget()
    if typed and found and not any(label.endswith(f"({typed['model']})") for label in found):
        raise UserError(f"none of the files is of the model {typed['model']}: {', '.join(found)}; leave out --model")
    if not found:
        raise UserError(f"there are no model files {experiment.ROOT}/*/model/model_best.pt and no weights in {zoo.ROOT}; "
                        "name a file with --weights FILE")
    return found


def address(text: str) -> str:
    """Check an argparse value, NAME or NAME:PORT, and return it in lower case."""
    if not ADDRESS.fullmatch(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME or NAME:PORT, as in localhost:8000")
    return text.lower()


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed flags; UserError for an unknown flag."""
    parser = Parser(prog="tool.serve", description=__doc__, allow_abbrev=False)
    parser.add_argument("--weights", nargs="+", default=[], metavar="FILE",
                        help=f"model files that the page offers, also {zoo.PREFIX}NAME; default: those of the zoo and every "
                             "experiment/*/model/model_best.pt")
    parser.add_argument("--port", type=number(int, 1, 65535), default=7860, help="port of the page; default: 7860")
    parser.add_argument("--address", nargs="+", type=address, default=[], metavar="NAME:PORT",
                        help="further addresses under which a browser may open the page, as localhost:8000 behind "
                             "ssh -L 8000:127.0.0.1:7860; the page accepts requests from this machine only in any case")
    parser.add_argument("--whole", type=number(float, 0, 1e6), default=1.0, metavar="MEGAPIXELS",
                        help=f"photos with more pixels are restored in tiles of {TILE} pixels; default: 1")
    parser.add_argument("--time_limit", type=number(float, 0.01, 10_000), default=10.0, metavar="MINUTES",
                        help="a photo that takes longer is given up; default: 10")
    add_backend(parser.add_argument)
    parser.add_argument("--cpu", action="store_true", help="compute on the CPU even if there is a GPU")
    return network.parse(parser, argv)


def run(argv: list[str] | None = None, ended: threading.Event | None = None) -> None:
    """Serve the page until SIGINT, SIGTERM or `ended`; UserError when weights are missing or the port is in use."""
    args = arguments(argv)
    ended = ended or threading.Event()
    if threading.current_thread() is threading.main_thread():
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, lambda *_: ended.set())
    worker = Worker(find(args.weights, args.network), round(args.whole * 1e6), args.cpu, 60 * args.time_limit, args.network,
                    Settings(backend=args.backend, precision=args.test_precision))
    with tempfile.TemporaryDirectory(prefix="unweather-", ignore_cleanup_errors=True) as place:
        try:
            server = Server(args.port, args.address, Jobs(worker, Path(place)))
        except OSError as error:
            raise UserError(f"the port {args.port} is in use; choose another with --port") from error
        with server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                worker.start()
                print(f"http://{HOST}:{args.port} — press Ctrl-C to end the server", flush=True)
                while not ended.wait(60):
                    server.jobs.tidy()
            finally:
                server.shutdown()
                worker.close()


if __name__ == "__main__":
    sys.exit(guarded("tool.serve", run))
