"""The flags of the experiment directory and of the hardware."""
from argparse import BooleanOptionalAction

from runtime import process
from runtime.arguments import COUNT, SIZE, interval


def add_arguments(parser) -> None:
    """Add the groups of flags about the experiment and the hardware."""
    add = parser.add_argument_group("experiment").add_argument
    add("--save", default="test", metavar="NAME", help="write the results to experiment/NAME")
    add("--load", default="", metavar="NAME", help="continue experiment/NAME with its flags")
    add("--resume", nargs="?", const="-1", default="0", metavar="N",
        help="resume experiment/<save>: -1 from its newest state, auto from its newest state or else from the start, "
             "N after epoch N (kept by --save_models); 0: do not resume")
    add("--reset", action="store_true", help="empty experiment/<save> first; image caches are kept")
    add("--save_every", type=interval, default="10m", metavar="N",
        help="save the state every N steps, or every N minutes (Nm); 0: only after epochs")
    add("--save_models", action=BooleanOptionalAction, default=False, help="keep the weights and the state of every tested epoch")
    add("--print_every", type=SIZE, default=100, help="number of steps between two lines of the log")

    add = parser.add_argument_group("hardware").add_argument
    add("--cpu", action="store_true", help="use the CPU even if there is a GPU")
    add("--n_GPUs", type=COUNT, default=1, help="1: one GPU, 0: the CPU; for several GPUs use torchrun --nproc_per_node N main.py")
    add("--precision", default="single", choices=[*process.PRECISIONS, "auto"],
        help="precision of training (autocast); auto: bf16 if the device has it and 20 steps with it are faster and as good, else single")
    add("--compile", action="store_true", help="compile network and loss (torch.compile): slow first steps, then faster ones")
    add("--deterministic", action="store_true", help="let a GPU compute equal bits in each run, with slower convolutions")
