"""The flags that say how a network is applied to images and which of its results are saved."""
from argparse import BooleanOptionalAction

from runtime import process
from runtime.arguments import COUNT, number, tile_side


def add_arguments(parser) -> None:
    """Add the group of flags about testing and restoring."""
    add = parser.add_argument_group("test and restore").add_argument
    add("--test_only", action=BooleanOptionalAction, default=False, help="test or restore, train nothing")
    add("--chop", action=BooleanOptionalAction, default=False, help="restore in tiles, whatever the memory; their side is --tile, or 512")
    add("--tile", type=tile_side, default="auto", metavar="N",
        help="side of the tiles; pictures without truth get them by themselves where memory lacks, auto: as large as fits")
    add("--tile_overlap", type=COUNT, default=96, help="by how much tiles overlap; at most half a tile is used")
    add("--memory", type=number(float, 0), default=0.0, metavar="GIB",
        help="how much a process that restores pictures without truth may take; 0: what is available")
    add("--self_ensemble", action=BooleanOptionalAction, default=False, help="mean over the 8 flips and turns")
    add("--test_precision", default="single", choices=list(process.PRECISIONS), help="precision of tests")
    add("--save_results", action=BooleanOptionalAction, default=False, help="save restored images as PNG (see --format)")
    add("--format", default="png", choices=("png", "jpg", "webp"),
        help="of restored pictures without truth; jpg and webp with quality 95. Scored results are always PNG")
    add("--skip_done", action=BooleanOptionalAction, default=True,
        help="keep results without truth that are newer than picture and weights and were made with the same flags")
    add("--save_maps", action=BooleanOptionalAction, default=False,
        help="save what else the network shows: masks, images of its stages, maps of its uncertainty")
    add("--save_gt", action=BooleanOptionalAction, default=False, help="save input, result and truth side by side")
