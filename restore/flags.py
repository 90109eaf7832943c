"""The flags that control how a network is applied to images and which results are saved."""
from argparse import BooleanOptionalAction

from restore import backend
from runtime import process
from runtime.arguments import COUNT, number, tile_side


def add_arguments(parser) -> None:
    """Add the group of flags about testing and restoring."""
    add = parser.add_argument_group("test and restore").add_argument
    add("--test_only", action=BooleanOptionalAction, default=False, help="test or restore without training")
    add("--chop", action=BooleanOptionalAction, default=False, help="always restore in tiles, with the side --tile, or 512")
    add("--tile", type=tile_side, default="auto", metavar="N",
        help="side of the tiles; images without ground truth are tiled automatically if memory is short; auto: the largest that fits")
    add("--whole", type=number(float, 0, 1e6), default=0.0, metavar="MEGAPIXELS",
        help="restore images without ground truth that have more pixels in tiles even if they fit into the memory; 0: none")
    add("--tile_overlap", type=COUNT, default=96, help="overlap of tiles in pixels, limited to half a tile")
    add("--memory", type=number(float, 0), default=0.0, metavar="GIB",
        help="memory that a process may use to restore images without ground truth; 0: all that is available")
    add("--self_ensemble", action=BooleanOptionalAction, default=False, help="average the results of the 8 flips and rotations")
    add_backend(add)
    add("--save_results", action=BooleanOptionalAction, default=False, help="save restored images as PNG (see --format)")
    add("--format", default="png", choices=("png", "jpg", "webp"),
        help="file format of restored images without ground truth; jpg and webp use quality 95; scored results are always PNG")
    add("--skip_done", action=BooleanOptionalAction, default=True,
        help="for images without ground truth, keep results that are newer than image and weights and were made with the same flags")
    add("--save_maps", action=BooleanOptionalAction, default=False,
        help="save the other outputs of the network: masks, intermediate images, uncertainty maps")
    add("--save_gt", action=BooleanOptionalAction, default=False, help="save input, result and ground truth side by side")
    add("--do_no_harm", action=BooleanOptionalAction, default=False,
        help="a final test also restores the ground truth itself, without noise and with noise of sigma 5 and 10, and reports its PSNR")


def add_backend(add) -> None:
    """Add the flags --test_precision and --backend with the `add_argument` of a parser or group."""
    add("--test_precision", default="single", choices=list(process.PRECISIONS), help="precision in which images are restored")
    add("--backend", default="torch", choices=backend.NAMES,
        help="what computes the network, except in the tests during a training; auto: the fastest that is installed and agrees with torch "
             "(pip install -e '.[fast]')")
