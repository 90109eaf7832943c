"""Rain2Avoid applied to images on which it was not trained."""
import functools

import numpy as np
import torch

import model
import option
from data import image
from model.rain2avoid import ldgp, learning
from restore.restorer import Restorer, Settings
from tests.test_ldgp import streaked


def test_tiles_share_the_map_of_the_whole_picture(place):
    """In an image with two directions of rain, every tile uses the map that is made of the whole image."""
    args = option.parse(["--model", "rain2avoid", "--channels", "4", "--dir_demo", "photos", "--cpu", "--blend", "0"])
    two = np.hstack([streaked(240, 240, 30, 0), streaked(240, 160, -20, 1)])
    assert ldgp.angle(two[:, :240]) != ldgp.angle(two[:, 240:])               # separate tiles would use different directions
    x = image.to_tensor(two)[None]
    method, finish = model.build(args), functools.partial(learning.applied, args)
    whole = Restorer(method, finish=finish)(x)
    tiled = Restorer(method, Settings(chop=True, tile=128, overlap=32), finish)(x)
    assert torch.equal(whole, tiled)                                          # --blend 0: only the references, not the network
    own = torch.cat([Restorer(method, finish=finish)(part) for part in x.split([240, 160], -1)], -1)
    assert (whole - own).abs().mean() * 255 > 0.1


def test_sets_of_other_strength_have_other_maps(place):
    """A dot in the name of a set is not that of an ending; before, all strengths that begin alike shared a folder of maps."""
    args = option.parse(["--model", "rain2avoid", "--dir_out", "out"])
    found = [learning.output_folder(args, name).name for name in ("photos@rain0-1.5", "photos@rain0-1.2", "lists/mine.csv")]
    assert found == ["photos@rain0-1.5", "photos@rain0-1.2", "mine"]
