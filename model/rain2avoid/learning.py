"""The runs of Rain2Avoid: one per picture (single, online), or one for a whole set (multiple); and what they come to."""
import copy
import functools
import json
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

import metric
import report
import tester
from contract import Run, Stage, nothing
from data import image, loader, source, tests
from data.choose import Chosen, choose, names
from model.method import Method
from model.rain2avoid import ldgp
from model.rain2avoid.picture import RESULT, Picture, keep, sample
from model.rain2avoid.references import References
from runtime import experiment, files, process
from runtime.errors import UserError

WHOLE = 2048 * 2048                       # pixels of a picture that is restored in one piece


def runs(args, backbone: Method) -> Iterator[Run]:
    """Yield the runs that --steps and --strategy ask for; what comes before the learning is done on the way.

    `backbone` is a network like those that will be trained.
    """
    multiple, parameters = backbone.multiple_of, sum(parameter.numel() for parameter in backbone.network.parameters())
    if args.test_only:                    # no truth was ever seen: no picture is held out
        yield Run(args.save, None, tests(args, {each: choose(args, each, "test", whole=True) for each in names(args.data_test)}),
                  functools.partial(_compose, args) if args.keep_clean else nothing)
        return
    if process.world() > 1 and args.strategy != "multiple":
        raise UserError(f"--strategy {args.strategy} trains a network per picture, by one process each; start several without torchrun, "
                        "each with its own --save and part of the pictures, as --data_range 1-50")
    for name in names(args.data_train):
        chosen, place = choose(args, name, "test", whole=True), folder(args, name)
        with tqdm(chosen.items, place.name, unit="picture", disable=process.quiet(), leave=False) as items:
            if args.steps in ("ldgp", "nss"):
                prepare(items, place, args)
                process.log().say(f"{place.name}: {len(chosen.items)} pictures, see {place}")
            elif args.strategy == "multiple":
                yield _together(list(items), chosen, name, place, args, multiple)
            else:
                yield from _alone(items, chosen, name, place, args, multiple, parameters)


def folder(args, name: str) -> Path:
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


def _alone(items: tqdm, chosen: Chosen, name: str, place: Path, args, multiple: int, parameters: int) -> Iterator[Run]:
    """Yield a run per picture that is not finished yet; then say how good they are, where there is truth."""
    path = experiment.folder_of(args.save) / experiment.PICTURES
    finished = json.loads(path.read_text(encoding="utf-8")) if path.is_file() and not args.reset else {}
    known, last = finished.setdefault(name, {}), {}
    for item in items:
        if item.name in known and (place / RESULT / f"{item.name}.png").is_file():
            continue
        picture = Picture(item, place, args)
        picture.find_rain(anew=args.steps == "all")
        drawn, results = picture.draw(), [picture.rgb]
        reason = picture.why_not(drawn.positions)
        if reason:
            process.log().say(f"{item.name}: {reason}; the result is the picture as it is")
            yield Run(item.name, None, {}, kept=False)
        else:
            train = functools.partial(_train, args, multiple, [picture], [picture.weigh() if args.strategy == "online" else drawn])
            yield Run(item.name, train, {}, functools.partial(_begin, last), functools.partial(_finish, args, picture, last, results),
                      kept=False)
        known[item.name] = finish(picture, results[-1], chosen.task, args)
        files.write_json(path, finished)
    _conclude(name, place, chosen, known, parameters, args)


def _compose(args, method: Method) -> None:
    """Let a network that is only applied restore as `composed` says; maps and references are made on the way."""
    network = method.restore

    def restore(x: Tensor) -> Tensor:
        answers, results = network(x), []
        for rainy, answered in zip(x, answers):
            rgb = image.to_array(rainy)
            prior = ldgp.prior(rgb, args.ldgp_patch, args.kernel_size)
            fused = sample(rgb, prior, args).fused().cpu().numpy()
            results.append(image.to_tensor(composed(rgb, prior, fused, image.to_array(answered), args)))
        return torch.stack(results).to(x.device)

    method.restore = restore
    process.log().say("pixels where the map finds no rain stay as they are; --no-keep_clean takes the network's answer everywhere")


def composed(rgb: np.ndarray, prior: np.ndarray, fused: np.ndarray, network: np.ndarray, args) -> np.ndarray:
    """Return the result, (H, W, 3) uint8: where there is rain the network's answer and the fused reference, --blend of the first.

    Elsewhere the picture as it is. With --no-keep_clean the network's answer everywhere, as in the paper.
    """
    if not args.keep_clean:
        return network
    mixed = np.rint(args.blend * network + (1 - args.blend) * fused).astype(np.uint8)
    return np.where(prior[..., None] > args.threshold, mixed, rgb)


def _begin(last: dict, method: Method) -> None:
    """Begin where the last picture's network ended, if that is known."""
    if last:
        method.network.load_state_dict(last)


def _finish(args, picture: Picture, last: dict, results: list, method: Method) -> None:
    """Note the network's answer and, with --warm_start, its weights."""
    results.append(answer(method, picture.rgb, args))
    if args.warm_start:
        last.update(copy.deepcopy(method.network.state_dict()))


@torch.inference_mode()
def answer(method: Method, rgb: np.ndarray, args) -> np.ndarray:
    """Return what a network makes of a picture (H, W, 3) uint8; a very large one is restored in tiles."""
    x = image.to_tensor(rgb)[None].to(process.device())
    chopped = Namespace(**{**vars(args), "chop": args.chop or rgb.size // 3 > WHOLE})
    return image.to_array(tester.restore_as_told(method.eval(), x, chopped)[0])


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
    for protocol in args.protocols:
        truth = protocol.fit(image.to_tensor(picture.truth)[None])
        found[protocol.name] = {
            f"{prefix}{key}": value for prefix, each in images.items()
            for key, value in metric.compare(protocol.fit(image.to_tensor(each)[None]), truth, protocol, task,
                                             () if prefix else args.extra_metrics).items()}
    return found


def _together(items: list, chosen: Chosen, name: str, place: Path, args, multiple: int) -> Run:
    """Return the run of one network for a set; pictures that teach nothing are left out of the training."""
    pictures = []
    for item in tqdm(items, "references", unit="picture", disable=process.quiet(), leave=False):
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
    return Run(args.save, train, sets, done=functools.partial(_restore_all, pictures, name, chosen, args), blind=True)


def _restore_all(pictures: list[Picture], name: str, chosen: Chosen, args, method: Method) -> None:
    rows, own = [], pictures[process.rank()::process.world()]
    for picture in tqdm(own, "results", unit="picture", disable=process.quiet(), leave=False):
        rows.append((picture.name, finish(picture, answer(method, picture.rgb, args), chosen.task, args)))
    _conclude(name, pictures[0].place, chosen, dict(process.gather(rows)), sum(p.numel() for p in method.network.parameters()), args)


def _conclude(name: str, place: Path, chosen: Chosen, rows: dict[str, dict], parameters: int, args) -> None:
    """Say and write down how good the results of a set, in `place`, are, where there is truth; show them on the result page."""
    folder, first = experiment.folder_of(args.save), args.protocols[0]
    named = [(item.name, rows[item.name]) for item in chosen.items]
    album = report.Album(name, len(named), args)
    for item, (_, numbers) in list(zip(chosen.items, named))[process.rank()::process.world()]:
        rainy, result = source.read(item.images["input"]), image.read(place / RESULT / f"{item.name}.png")
        truth = source.read(item.images["image"]) if "image" in item.images else None
        album.add(item.name, *(None if each is None else image.to_tensor(each)[None] for each in (rainy, result, truth)),
                  numbers.get(first.name, {}))
    album.write(folder, first.settings() if any(numbers for _, numbers in named) else {})
    weights = f"{args.strategy}, a network for {'the set' if args.strategy == 'multiple' else 'each picture'}"
    tester.conclude({name: (named, chosen.task, chosen.subset)}, args, folder, weights, parameters)


def _train(args, multiple: int, pictures: list[Picture], sources: list, stage: Stage) -> DataLoader:
    """Return the loader of a stage's batches: crops with the mean of --sdr_together references as their target."""
    together = min(args.sdr_together, args.sdr_num)
    dataset = References(pictures, sources, together, args.seed, stage.patch_size, multiple, "" if args.no_augment else args.augment)
    count = len(pictures) if len(pictures) > 1 else -(-args.sdr_num // together)
    batch_size = min(stage.batch_size, count) if process.world() == 1 else stage.batch_size
    steps = args.test_every or -(-count // batch_size)
    draws = loader.Draws([list(range(count))], batch_size, steps, args.seed, process.rank(), process.world())
    return loader.train_loader(dataset, draws, 0, pin=process.device().type == "cuda")
