"""python -m tool.zoo publish NAME: put the weights of a training into zoo/NAME, if float16 costs them at most 0.01 dB."""
import shutil

import main
from runtime import experiment, files, zoo
from runtime.errors import Failure, UserError
from tool.zoo import prepare, recipes, train

LOSS = 0.01                               # dB of PSNR that float16 may cost on each set of --data_test
SHIPPED = (zoo.FILE, "plan.json", "curves.png")
LARGEST, TOGETHER = 12e6, 30e6            # bytes of a file of weights, and of all


def run(name: str) -> None:
    """Test the last weights of a training and those in float16, and copy the latter; raises UserError or Failure."""
    folder = experiment.folder_of(f"zoo/{name}/training").parent
    release, latest = folder / "release", folder / "training" / "model" / "model_latest.pt"
    if not (release / zoo.FILE).is_file():
        raise UserError(f"no training of '{name}' has ended: there is no {release / zoo.FILE}; make zoo NAME={name} trains it")
    if not prepare.source() or files.read_json(release / "plan.json").get("data") != train.REAL:
        raise UserError(f"{release} is a smoke test without the data of UNWEATHER_DATA; such weights are not published")
    flags, plan = experiment.read_args(folder / "training" / "args.json"), files.read_json(release / "plan.json")
    recipe = recipes.flags(name)
    if plan["recipe"] != recipe:
        raise UserError(f"{recipes.path(name)} has changed since the training of {release}; put it back, or train again")
    plans = {each: experiment.folder_of(f"zoo/{each}/release") / "plan.json" for each in recipes.unshipped(name)}
    if missing := next((path for path in plans.values() if not path.is_file()), None):
        raise UserError(f"'{name}' was trained with other weights, but there is no {missing}, which says how they were trained; bring this "
                        "folder back, too")
    numbers = []
    for kind, file in (("single", latest), ("half", release / zoo.FILE)):
        save = f"zoo/{name}/check-{kind}"
        shutil.rmtree(experiment.folder_of(save), ignore_errors=True)
        if main.main(["--test_only", "--pre_train", str(file), "--data_test", flags["data_test"], "--dir_data", flags["dir_data"],
                      "--save", save, *recipes.network_alone(recipe)]):
            raise Failure(f"the test of {file} failed")
        numbers.append(files.read_json(experiment.folder_of(save) / "metrics.json"))
    for data_set, before in numbers[0].items():
        lost = before["psnr"] - numbers[1][data_set]["psnr"]
        print(f"{data_set}: {before['psnr']:.3f} dB, in float16 {-lost:+.4f} dB")
        if lost > LOSS:
            raise Failure(f"float16 costs {lost:.3f} dB on {data_set}, more than {LOSS} dB; the weights are not published")
    place = zoo.ROOT / name
    others = sum(path.stat().st_size for path in zoo.ROOT.glob(f"*/{zoo.FILE}") if path.parent != place)
    size = (release / zoo.FILE).stat().st_size
    if size > LARGEST or size + others > TOGETHER:
        raise Failure(f"{release / zoo.FILE} has {size / 1e6:.1f} MB, all others {others / 1e6:.1f} MB; the zoo allows "
                      f"{LARGEST / 1e6:.0f} MB for a file and {TOGETHER / 1e6:.0f} MB for all")
    for each, path in plans.items():                              # of weights that do not ship, how they were trained
        shutil.copyfile(path, zoo.ROOT / each / "plan.json")
    for file in SHIPPED:
        with files.temporary(place / file) as part:
            shutil.copyfile(release / file, part)
    print(f"{place} is written; python -m tool.zoo --write tests it and writes its card and the tables")
