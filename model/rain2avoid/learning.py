"""The runs of Rain2Avoid: one per image (single, online) or one for a whole set (multiple), and their results."""
import functools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

import metric
from contract import Batch, Item, Numbers, Outcome, Run, Sample, Stage, collate
from data import image, loader, source, tests
from data.choose import LISTS, Chosen, choose, names, sets_to_test
from model import norm
from model.method import Method
from model.rain2avoid import guard, ldgp
from model.rain2avoid.nss import Drawn
from model.rain2avoid.picture import RESULT, Picture, keep, sample
from model.rain2avoid.references import References
from model.rain2avoid.warm import Warm
from runtime import experiment, files, process
from runtime.errors import UserError
from runtime.pace import Cost

Restores = Callable[..., Tensor]          # restore.Restorer: (B, 3, H, W) to the same shape; it has the attribute `method`


def runs(args, backbone: Method) -> Iterator[Run]:
    """Yield the runs that --steps and --strategy specify; maps and references are made before each run.

    `backbone` is a network of the kind that the runs train. Raises UserError if several processes would train one network per image.
    """
    parameters = sum(parameter.numel() for parameter in backbone.network.parameters())
    if args.test_only:                    # training used no targets, so all images may be tested
        if args.keep_clean:
            process.log().say("pixels that are not rain in the map keep their values; --no-keep_clean uses the network's output everywhere")
        yield Run(args.save, None, tests(args, {each: choose(args, each, "test", whole=True) for each in sets_to_test(args)}),
                  finish=functools.partial(applied, args) if args.keep_clean else None)
        return
    if process.world() > 1 and args.strategy != "multiple":
        raise UserError(f"--strategy {args.strategy} trains each network in one process; to use several, start the program several times "
                        "without torchrun, each time with another --save and another part of the images, for example --data_range 1-50")
    if args.strategy == "multiple" and args.steps not in ("ldgp", "nss") and "+" in args.data_train:
        raise UserError("--strategy multiple trains a network for one set; start the program once for each set, each with its own --save")
    for name in names(args.data_train):
        chosen, place = choose(args, name, "test", whole=True), output_folder(args, name)
        source.check_sizes(chosen.items)
        if args.steps in ("ldgp", "nss"):
            prepare(chosen.items, place, args)
            process.log().say(f"{place.name}: {len(chosen.items)} images; the files are in {place}")
        elif args.strategy == "multiple":
            yield _together(chosen, name, place, args, backbone.multiple_of, parameters)
        else:
            yield from PictureRuns(chosen, name, place, args, backbone.multiple_of, parameters)


def output_folder(args, name: str) -> Path:
    """Return the output directory for maps, references and results of a set: its folder below --dir_out (or --dir_data)."""
    if name == "Folder":
        name = Path(args.dir_demo).resolve().name
    name = Path(name).stem if name.lower().endswith(LISTS) else Path(name).name            # the dot of photos@rain0-1.5 begins no ending
    return Path(args.dir_out or args.dir_data) / name


def prepare(items, place: Path, args) -> None:
    """Make the maps of all images and, with --steps nss, the fused references."""
    for item in items:
        picture = Picture(item, place, args)
        picture.find_rain(anew=args.steps == "ldgp")
        if args.steps == "nss":
            picture.draw()


class PictureRuns:
    """The runs of --strategy single and online: one network for each image of a set; pictures.json lists the finished images."""

    def __init__(self, chosen: Chosen, name: str, place: Path, args, multiple: int, parameters: int):
        self.chosen, self.name, self.place, self.args, self.multiple, self.parameters = chosen, name, place, args, multiple, parameters
        self.path = experiment.folder_of(args.save) / experiment.FINISHED
        self.finished = {} if args.reset else _finished(self.path)
        self.warm = Warm(self.path.with_name(f"previous-{place.name}.pt"), fresh=args.reset) if args.warm_start else None
        self.cost = Cost(self.args.epochs)

    def __iter__(self) -> Iterator[Run]:
        """Yield one run that returns the results of all finished images, then one run for each other image."""
        known = self.finished.setdefault(self.name, {})
        done = {item.name: item for item in self.chosen.items if item.name in known and self._result(item).is_file()}
        rest = [item for item in self.chosen.items if item.name not in done]
        if done:
            yield Run(self.name, None, {}, done=lambda _: [self._outcome([*done.values()])], kept=False)
        if rest:
            self.cost.images = len(rest)
            process.log().say(f"{self.name}: {len(rest)} images to derain; strategy {self.args.strategy}, {self.args.epochs} epochs of a "
                              f"network of {self.parameters:,} parameters for each image, on {process.device()}")
        for item in tqdm(rest, self.place.name, unit="image", disable=process.quiet(), leave=False):
            yield self._run(item)
        process.log().say(f"maps, references and results are in {self.place}")

    def _run(self, item: Item) -> Run:
        picture = Picture(item, self.place, self.args)
        self.cost.epochs = _alike(self.args.stages, picture.rgb.shape)
        picture.find_rain(anew=self.args.steps == "all")
        drawn, train = picture.draw(), None
        reason = picture.why_not(drawn.positions)
        if reason:
            process.log().say(f"{item.name}: {reason}; the result is the unchanged image")
        else:
            material = picture.weigh() if self.args.strategy == "online" else drawn
            train = functools.partial(_train, self.args, self.multiple, [picture], [material])
        statistics = Statistics(self.args, self.multiple, picture, drawn) if train else None

        def before_epoch(method: Method, epoch: int) -> None:
            self.cost.before_epoch(epoch)
            if statistics:
                statistics.before_epoch(method, epoch)

        return Run(item.name, train, {}, self._begin, functools.partial(self._done, item, picture, statistics), kept=False,
                   plateau=self.args.plateau, before_epoch=before_epoch)

    def _begin(self, method: Method) -> None:
        """Load the weights of the previous image's network if --warm_start has kept them."""
        if self.warm and (weights := self.warm.last(self.finished[self.name])):
            method.network.load_state_dict(weights)

    def _done(self, item: Item, picture: Picture, statistics: "Statistics | None", restorer: Restores) -> list[Outcome]:
        """Write the result, store its numbers, record the image as finished, and return its outcome."""
        if statistics:
            statistics.settle(restorer.method)
        output = network_output(restorer, picture) if statistics else picture.rgb
        if statistics and self.warm:
            self.warm.keep(item.name, restorer.method.network.state_dict())
        self.finished[self.name][item.name] = finish(picture, output, self.chosen.task, self.args)
        files.write_json(self.path, self.finished)
        return [self._outcome([item])]

    def _result(self, item: Item) -> Path:
        return self.place / RESULT / f"{item.name}.png"

    def _outcome(self, items: list[Item]) -> Outcome:
        rows = [(item, self.finished[self.name][item.name]) for item in items]
        return outcome(self.name, self.chosen, rows, self.place, f"{self.args.strategy}, a network for each image", self.parameters)


def _finished(path: Path) -> dict[str, dict[str, Numbers]]:
    """Return the numbers of finished images by set and name from pictures.json, {} without the file or if it is damaged."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if all(isinstance(row, dict) for images in found.values() for numbers in images.values() for row in (numbers, *numbers.values())):
            return found
    except (OSError, ValueError, AttributeError, RecursionError):
        pass
    process.log().say(f"warning: {path} is damaged; all images are derained again")
    return {}


class Statistics:
    """Batch statistics of the one image that a network is trained on; from half of the epochs on they are fixed.

    Batch norm uses the statistics of the current crop in training, but the running ones at test, so a network that is trained on
    one crop at a time is applied in another way than it was trained. The second half of the training uses what the test uses:
    the statistics of crops that cover the image (at most 16). They are taken once, so tiles of the image use them as well.
    """

    def __init__(self, args, multiple: int, picture: Picture, drawn: Drawn):
        stage = args.stages[-1]
        self.from_epoch, self.settled = -(-args.epochs // 2), False
        self.crops = References([picture], [drawn], 1, args.seed, stage.patch_size, multiple, "").overview

    def before_epoch(self, method: Method, epoch: int) -> None:
        """Fix the statistics if the first half of the epochs is finished."""
        if epoch >= self.from_epoch:
            self.settle(method)
            norm.fix(method)

    def settle(self, method: Method) -> None:
        """Gather the statistics, once."""
        if not self.settled:
            self.settled = True
            norm.gather(method.network, self.crops().to(next(method.parameters()).device, memory_format=torch.channels_last))


def outcome(name: str, chosen: Chosen, rows: list[tuple[Item, Numbers]], place: Path, weights: str, parameters: int) -> Outcome:
    """Return the outcome of a set whose result images are below `place`."""
    shown = [(item._replace(images={**item.images, "result": place / RESULT / f"{item.name}.png"}), numbers) for item, numbers in rows]
    return Outcome(name, chosen.task, chosen.subset, shown, weights, parameters)


def applied(args, x: Tensor, output: Tensor) -> Tensor:
    """Return the result for a whole image x and the network's output, (1, 3, H, W) each; makes the map and references of x."""
    rgb = image.to_array(x[0])
    prior = ldgp.prior(rgb, args.ldgp_patch, args.kernel_size, args.map_confidence)
    drawn = sample(rgb, prior, args)
    fused, network = drawn.fused().cpu().numpy(), image.to_array(output[0])
    refusal = guard.refusal(network, fused, prior > args.threshold, guard.spread(drawn))
    if refusal:
        process.log().say(f"an image of {rgb.shape[1]}x{rgb.shape[0]} pixels: {refusal}")
    return image.to_tensor(composed(rgb, prior, fused, fused if refusal else network, args))[None].to(x.device)


def composed(rgb: np.ndarray, prior: np.ndarray, fused: np.ndarray, network: np.ndarray, args) -> np.ndarray:
    """Return the result, (H, W, 3) uint8: in rain pixels --blend * network + (1 - --blend) * fused, elsewhere the image itself.

    With --no-keep_clean it is the network's output everywhere, as in the paper.
    """
    if not args.keep_clean:
        return network
    mixed = np.rint(args.blend * network + (1 - args.blend) * fused).astype(np.uint8)
    return np.where(prior[..., None] > args.threshold, mixed, rgb)


def network_output(restorer: Restores, picture: Picture) -> np.ndarray:
    """Return the network's output for an image, (H, W, 3) uint8; an image with a target is processed in tiles only with --chop."""
    x = image.to_tensor(picture.rgb)[None]
    return image.to_array(restorer(x, may_tile=picture.target is None, name=picture.name)[0])


def finish(picture: Picture, network: np.ndarray, task: str, args) -> dict[str, dict[str, float]]:
    """Write the result, composed with the network's output (H, W, 3) uint8; return its numbers by protocol, {} without target.

    Keys with the prefix `input_`, `fused_` and `network_` are the PSNR and SSIM of the rainy image, of the fused reference and of
    the network's output alone.
    """
    refusal = guard.refusal(network, picture.fused, picture.prior > args.threshold, picture.spread)
    if refusal:
        process.log().say(f"{picture.name}: {refusal}")
    result = composed(picture.rgb, picture.prior, picture.fused, picture.fused if refusal else network, args)
    keep(picture.path(RESULT), result)
    if picture.target is None:
        return {}
    images = {"": result, "input_": picture.rgb, "fused_": picture.fused, "network_": network}
    found: dict[str, dict[str, float]] = {}
    for protocol in args.protocol:
        target = protocol.fit(image.to_tensor(picture.target)[None])
        found[protocol.name] = {
            f"{prefix}{key}": value for prefix, each in images.items()
            for key, value in metric.compare(protocol.fit(image.to_tensor(each)[None]), target, protocol, task,
                                             () if prefix else args.metrics).items()}
    return found


def _together(chosen: Chosen, name: str, place: Path, args, multiple: int, parameters: int) -> Run:
    """Return the run of one network for a set; images without rain or without clean pixels are left out of the training.

    Raises UserError if no image is left.
    """
    pictures = []
    for item in tqdm(chosen.items, "references", unit="image", disable=process.quiet(), leave=False):
        pictures.append(Picture(item, place, args))
        pictures[-1].find_rain(anew=args.steps == "all")
    sources = [picture.draw() for picture in pictures]
    useful = [number for number, drawn in enumerate(sources) if not pictures[number].why_not(drawn.positions)]
    if not useful:
        first = pictures[0]
        raise UserError(f"no image of {name} can be used for training; for example {first.name}: {first.why_not(sources[0].positions)}")
    if len(useful) < len(pictures):
        process.log().say(f"{len(pictures) - len(useful)} of {len(pictures)} images of {name} cannot be used for training and are left out")
    train = functools.partial(_train, args, multiple, [pictures[n] for n in useful], [sources[n] for n in useful])
    sets = tests(args, {each: chosen if each == name else choose(args, each, "test", whole=True) for each in sets_to_test(args)})

    def done(restorer: Restores) -> list[Outcome]:
        own = list(range(len(pictures)))[process.rank()::process.world()]
        found = [(number, finish(pictures[number], network_output(restorer, pictures[number]), chosen.task, args))
                 for number in tqdm(own, "results", unit="image", disable=process.quiet(), leave=False)]
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
    pin = process.device().type == "cuda"
    return DataLoader(dataset, batch_sampler=draws, collate_fn=_batch, pin_memory=pin, generator=torch.Generator())


def _alike(stages: list[Stage], shape: tuple[int, ...]) -> float:
    """Return how many epochs of the first stage take as long as all stages, for crops of an image of this shape, (H, W, 3)."""
    pixels = [math.prod(min(side, stage.patch_size) for side in shape[:2]) for stage in stages]
    return sum(stage.epochs * size for stage, size in zip(stages, pixels)) / pixels[0]


def _batch(samples: list[Sample]) -> Batch:
    """Stack samples to a Batch in channels-last order, as the network's weights are: otherwise a UNet reorders large tensors."""
    batch = collate(samples)
    batch.input = batch.input.contiguous(memory_format=torch.channels_last)
    batch.targets = {name: each.contiguous(memory_format=torch.channels_last) for name, each in batch.targets.items()}
    return batch
