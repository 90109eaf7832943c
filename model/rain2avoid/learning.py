"""The runs of Rain2Avoid: one per picture (single, online), or one for a whole set (multiple); and what they come to."""
import copy
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

import metric
from contract import Item, Numbers, Outcome, Run, Stage
from data import image, loader, tests
from data.choose import Chosen, choose, names
from model.method import Method
from model.rain2avoid import ldgp
from model.rain2avoid.picture import RESULT, Picture, keep, sample
from model.rain2avoid.references import References
from runtime import experiment, files, process
from runtime.errors import UserError

Restores = Callable[..., Tensor]          # restore.Restorer: (B, 3, H, W) -> the same, and its `method`


def runs(args, backbone: Method) -> Iterator[Run]:
    """Yield the runs that --steps and --strategy ask for; maps and references are made before each run.

    `backbone` is a network like those that will be trained.
    """
    parameters = sum(parameter.numel() for parameter in backbone.network.parameters())
    if args.test_only:                    # the network was trained without targets, so that no image has to be held out
        if args.keep_clean:
            process.log().say("pixels where the map finds no rain stay as they are; --no-keep_clean takes the network's answer everywhere")
        yield Run(args.save, None, tests(args, {each: choose(args, each, "test", whole=True) for each in names(args.data_test)}),
                  finish=functools.partial(applied, args) if args.keep_clean else None)
        return
    if process.world() > 1 and args.strategy != "multiple":
        raise UserError(f"--strategy {args.strategy} trains a network per picture, by one process each; start several without torchrun, "
                        "each with its own --save and part of the pictures, as --data_range 1-50")
    for name in names(args.data_train):
        chosen, place = choose(args, name, "test", whole=True), output_folder(args, name)
        if args.steps in ("ldgp", "nss"):
            prepare(chosen.items, place, args)
            process.log().say(f"{place.name}: {len(chosen.items)} pictures, see {place}")
        elif args.strategy == "multiple":
            yield _together(chosen, name, place, args, backbone.multiple_of, parameters)
        else:
            yield from PictureRuns(chosen, name, place, args, backbone.multiple_of, parameters)


def output_folder(args, name: str) -> Path:
    """Return where the maps, references and results of a set go: its folder below --dir_out (or --dir_data)."""
    if name == "Folder":
        name = Path(args.dir_demo).resolve().name
    return Path(args.dir_out or args.dir_data) / Path(name).stem


def prepare(items, place: Path, args) -> None:
    """Make the maps of all pictures and, with --steps nss, their fused references."""
    for item in items:
        picture = Picture(item, place, args)
        picture.find_rain(anew=args.steps == "ldgp")
        if args.steps == "nss":
            picture.draw()


class PictureRuns:
    """The runs of --strategy single and online: a network for each picture of a set; finished pictures are in pictures.json."""

    def __init__(self, chosen: Chosen, name: str, place: Path, args, multiple: int, parameters: int):
        self.chosen, self.name, self.place, self.args = chosen, name, place, args
        self.multiple, self.parameters = multiple, parameters
        self.path = experiment.folder_of(args.save) / experiment.FINISHED
        self.finished = json.loads(self.path.read_text(encoding="utf-8")) if self.path.is_file() and not args.reset else {}
        self.weights: dict[str, Tensor] = {}                      # of the picture before, for --warm_start

    def __iter__(self) -> Iterator[Run]:
        """Yield one run with the results of all finished pictures, then one for each of the others."""
        known = self.finished.setdefault(self.name, {})
        done = [item for item in self.chosen.items if item.name in known and self._result(item).is_file()]
        names_done = {item.name for item in done}
        rest = [item for item in self.chosen.items if item.name not in names_done]
        if done:
            yield Run(self.name, None, {}, done=lambda _: [self._outcome(done)], kept=False)
        for item in tqdm(rest, self.place.name, unit="picture", disable=process.quiet(), leave=False):
            yield self._run(item)
        process.log().say(f"maps, references and results are in {self.place}")

    def _run(self, item: Item) -> Run:
        picture = Picture(item, self.place, self.args)
        picture.find_rain(anew=self.args.steps == "all")
        drawn, train = picture.draw(), None
        reason = picture.why_not(drawn.positions)
        if reason:
            process.log().say(f"{item.name}: {reason}; the result is the picture as it is")
        else:
            source = picture.weigh() if self.args.strategy == "online" else drawn
            train = functools.partial(_train, self.args, self.multiple, [picture], [source])
        return Run(item.name, train, {}, self._begin, functools.partial(self._done, item, picture, bool(train)), kept=False,
                   plateau=self.args.plateau)

    def _begin(self, method: Method) -> None:
        """Start from the network of the picture before, where --warm_start has kept it."""
        if self.weights:
            method.network.load_state_dict(self.weights)

    def _done(self, item: Item, picture: Picture, trained: bool, restorer: Restores) -> list[Outcome]:
        """Write the result and its numbers, mark the picture as finished, and return its results."""
        answer = answered(restorer, picture) if trained else picture.rgb
        if trained and self.args.warm_start:
            self.weights = copy.deepcopy(restorer.method.network.state_dict())
        self.finished[self.name][item.name] = finish(picture, answer, self.chosen.task, self.args)
        files.write_json(self.path, self.finished)
        return [self._outcome([item])]

    def _result(self, item: Item) -> Path:
        return self.place / RESULT / f"{item.name}.png"

    def _outcome(self, items: list[Item]) -> Outcome:
        rows = [(item, self.finished[self.name][item.name]) for item in items]
        return outcome(self.name, self.chosen, rows, self.place, f"{self.args.strategy}, a network for each picture", self.parameters)


def outcome(name: str, chosen: Chosen, rows: list[tuple[Item, Numbers]], place: Path, weights: str, parameters: int) -> Outcome:
    """Return the results of a set whose results lie in `place`."""
    shown = [(item._replace(images={**item.images, "result": place / RESULT / f"{item.name}.png"}), numbers) for item, numbers in rows]
    return Outcome(name, chosen.task, chosen.subset, shown, weights, parameters)


def applied(args, x: Tensor, answer: Tensor) -> Tensor:
    """Return the result for a whole picture and the network's answer, (1, 3, H, W) each, with map and references of that picture."""
    rgb = image.to_array(x[0])
    prior = ldgp.prior(rgb, args.ldgp_patch, args.kernel_size)
    fused = sample(rgb, prior, args).fused().cpu().numpy()
    return image.to_tensor(composed(rgb, prior, fused, image.to_array(answer[0]), args))[None].to(x.device)


def composed(rgb: np.ndarray, prior: np.ndarray, fused: np.ndarray, network: np.ndarray, args) -> np.ndarray:
    """Return the result, (H, W, 3) uint8: where there is rain the network's answer and the fused reference, --blend of the first.

    Elsewhere the picture as it is. With --no-keep_clean the network's answer everywhere, as in the paper.
    """
    if not args.keep_clean:
        return network
    mixed = np.rint(args.blend * network + (1 - args.blend) * fused).astype(np.uint8)
    return np.where(prior[..., None] > args.threshold, mixed, rgb)


def answered(restorer: Restores, picture: Picture) -> np.ndarray:
    """Return the network's answer to a picture, (H, W, 3) uint8; one with a target is tiled only by --chop."""
    x = image.to_tensor(picture.rgb)[None]
    return image.to_array(restorer(x, may_tile=picture.truth is None, name=picture.name)[0])


def finish(picture: Picture, network: np.ndarray, task: str, args) -> dict[str, dict[str, float]]:
    """Write the result, composed from the network's answer (H, W, 3) uint8; return its numbers by protocol.

    Beside PSNR and SSIM of the result stand those of the rainy picture (`input_…`), the fused reference (`fused_…`) and
    the network's answer alone (`network_…`); {} without truth.
    """
    result = composed(picture.rgb, picture.prior, picture.fused, network, args)
    keep(picture.path(RESULT), result)
    if picture.truth is None:
        return {}
    images = {"": result, "input_": picture.rgb, "fused_": picture.fused, "network_": network}
    found: dict[str, dict[str, float]] = {}
    for protocol in args.protocol:
        truth = protocol.fit(image.to_tensor(picture.truth)[None])
        found[protocol.name] = {
            f"{prefix}{key}": value for prefix, each in images.items()
            for key, value in metric.compare(protocol.fit(image.to_tensor(each)[None]), truth, protocol, task,
                                             () if prefix else args.metrics).items()}
    return found


def _together(chosen: Chosen, name: str, place: Path, args, multiple: int, parameters: int) -> Run:
    """Return the run of one network for a set; pictures that teach nothing are left out of the training."""
    pictures = []
    for item in tqdm(chosen.items, "references", unit="picture", disable=process.quiet(), leave=False):
        pictures.append(Picture(item, place, args))
        pictures[-1].find_rain(anew=args.steps == "all")
    sources = [picture.draw() for picture in pictures]
    useful = [number for number, drawn in enumerate(sources) if not pictures[number].why_not(drawn.positions)]
    if not useful:
        first = pictures[0]
        raise UserError(f"no picture of {name} can be learned from: {first.name}: {first.why_not(sources[0].positions)}")
    if len(useful) < len(pictures):
        process.log().say(f"{len(pictures) - len(useful)} of {len(pictures)} pictures of {name} teach nothing and are left out")
    train = functools.partial(_train, args, multiple, [pictures[n] for n in useful], [sources[n] for n in useful])
    sets = tests(args, {each: chosen if each == name else choose(args, each, "test", whole=True) for each in names(args.data_test)})

    def done(restorer: Restores) -> list[Outcome]:
        own = list(range(len(pictures)))[process.rank()::process.world()]
        found = [(number, finish(pictures[number], answered(restorer, pictures[number]), chosen.task, args))
                 for number in tqdm(own, "results", unit="picture", disable=process.quiet(), leave=False)]
        rows = [(chosen.items[number], numbers) for number, numbers in sorted(process.gather(found), key=lambda row: row[0])]
        process.log().say(f"maps, references and results are in {place}")
        return [outcome(name, chosen, rows, place, "multiple, a network for the set", parameters)]

    return Run(args.save, train, sets, done=done, blind=True)


def _train(args, multiple: int, pictures: list[Picture], sources: list, stage: Stage) -> DataLoader:
    """Return the loader of a stage's batches: crops with the mean of --sdr_together references as their target."""
    together = min(args.sdr_together, args.sdr_num)
    dataset = References(pictures, sources, together, args.seed, stage.patch_size, multiple, "" if args.no_augment else args.augment)
    count = len(pictures) if len(pictures) > 1 else -(-args.sdr_num // together)
    batch_size = min(stage.batch_size, count) if process.world() == 1 else stage.batch_size
    steps = args.test_every or -(-count // batch_size)
    draws = loader.Draws([list(range(count))], batch_size, steps, args.seed, process.rank(), process.world())
    return loader.train_loader(dataset, draws, 0, pin=process.device().type == "cuda")
