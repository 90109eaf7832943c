"""make demo-kd: train three small teachers, one for each weather, then their student; print a table and save an image."""
import json
import sys

if __name__ == "__main__":                # before torch is imported
    from runtime import waiting
    waiting.before_torch()

import numpy as np

import main
from data import image
from runtime import experiment
from runtime.errors import UserError
from tool.demo import check_own

WEATHERS = ("Snow", "Rain", "Haze")
SETS = [f"Demo{weather}" for weather in WEATHERS]


def run() -> int:
    """Run the four commands of main.py, then print the table; return the exit status."""
    teachers = [str(teacher_folder(weather) / "model" / "model_best.pt") for weather in WEATHERS]
    commands = [["--template", "kd_demo_teacher", "--data_train", name, "--save", teacher_folder(weather).name, "--reset"]
                for weather, name in zip(WEATHERS, SETS)]
    commands.append(["--template", "kd_demo", "--data_train", "+".join(SETS), "--teachers", *teachers, "--save", "kd_demo", "--reset",
                     "--save_gt"])
    for name in ("kd_demo", *(teacher_folder(weather).name for weather in WEATHERS)):
        check_own(name)
    print("the demo trains without the paper's losses 0.1*SCR and 0.2*HCR, because they need VGG weights that are not included")
    for flags in commands:
        print(f"\n$ python main.py {' '.join(flags)}", flush=True)
        status = main.main(flags)
        if status:
            return status
    print(f"\n{'held-out photos':18}{'input':>8}{'teacher':>10}{'student':>10}   mean PSNR in dB, RGB, 8 bits, no border, 4 images each")
    for weather, name in zip(WEATHERS, SETS):
        teacher, student = (numbers(place)[name] for place in (teacher_folder(weather), experiment.ROOT / "kd_demo"))
        print(f"{name:18}{student['input_psnr']:8.2f}{teacher['psnr']:10.2f}{student['psnr']:10.2f}")
    print("the student has one set of weights for the three weathers and sees each of them in a third of its steps; "
          "at this size and length its PSNR is below that of the teachers")
    sheet()
    print(f"\nimage: {experiment.ROOT}/kd_demo/demo.png (degraded, teacher, student, clean)")
    return 0


def teacher_folder(weather: str):
    """Return the output directory of the teacher for a weather."""
    return experiment.ROOT / f"kd_teacher_{weather.lower()}"


def numbers(place) -> dict:
    """Return the content of metrics.json of an experiment."""
    return json.loads((place / "metrics.json").read_text(encoding="utf-8"))


def sheet() -> None:
    """Write demo.png: one image for each weather as degraded image, teacher's result, student's result and clean image."""
    rows = []
    for weather, name in zip(WEATHERS, SETS):
        picture = f"cat_{weather.lower()}1.png"
        sides = image.read(experiment.ROOT / "kd_demo" / f"compare-{name}" / picture)
        width = image.size(teacher_folder(weather) / f"results-{name}" / picture)[1]
        taught = image.read(teacher_folder(weather) / f"results-{name}" / picture)
        rows.append(np.hstack([sides[:, :width], taught, sides[:, width:2 * width], sides[:, 2 * width:3 * width]]))
    image.write(experiment.ROOT / "kd_demo" / "demo.png", np.vstack(rows))


if __name__ == "__main__":
    try:
        sys.exit(run())
    except UserError as error:
        sys.exit(main.print_error(error, 2))
