"""Small networks for the tests: the flags of every model in its small size, and files of networks made with spandrel's classes."""
import importlib
from pathlib import Path

import pytest
import torch

import model

# small networks of spandrel's classes: architecture -> (class, arguments)
FOREIGN = {
    "NAFNet": ("NAFNet", dict(width=4, middle_blk_num=1, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1])),
    "DnCNN": ("DnCNN", dict(in_nc=3, out_nc=3, nc=8, nb=9, act_mode="R")),
    "FDnCNN": ("DnCNN", dict(in_nc=4, out_nc=3, nc=8, nb=9, act_mode="R", mode="FDnCNN")),
    "DRUNet": ("DRUNet", dict(in_nc=4, out_nc=3, nc=[4, 4, 8, 8], nb=2)),
    "SCUNet": ("SCUNet", dict(config=[1] * 7, dim=64)),
    "FBCNN": ("FBCNN", dict(nc=[4, 4, 8, 512], nb=2)),
    "KBNet": ("KBNet_s", dict(width=4, middle_blk_num=1, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1])),
    "Uformer": ("Uformer", dict(embed_dim=4, depths=[1] * 9, num_heads=[1] * 9)),
    "MixDehazeNet": ("MixDehazeNet", dict(embed_dims=[8, 8, 8, 8, 8])),
    "SwinIR": ("SwinIR", dict(img_size=16, embed_dim=8, depths=[2], num_heads=[2], window_size=8)),
    "FFTformer": ("FFTformer", dict(dim=8, num_blocks=[1, 1, 1], num_refinement_blocks=1)),
    "RetinexFormer": ("RetinexFormer", dict(n_feat=8, stage=1)),
    "HVICIDNet": ("HVICIDNet", dict(channels=[8, 8, 16, 16])),
}


def foreign(name: str) -> torch.nn.Module:
    """Return a network of FOREIGN with random weights, also where training starts with zeros."""
    pytest.importorskip("spandrel", reason="the extra 'spandrel' is not installed")
    kind, arguments = FOREIGN[name]
    package = importlib.import_module(f"spandrel.architectures.{'DnCNN' if name == 'FDnCNN' else name}")
    torch.manual_seed(0)
    network = getattr(package, kind)(**arguments)
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    return network.eval()


def write_foreign(name: str, path: str = "tiny.pth") -> torch.nn.Module:
    """Write a file of weights as other programs do, in the working folder, and return its network."""
    network = foreign(name)
    torch.save(network.state_dict(), path)
    return network


def flags(name: str) -> list[str]:
    """Return the flags of a model in the small size that its package states as TINY.

    A model whose file decides what its network is gets one, a DnCNN; the test is skipped where spandrel is not installed.
    """
    tiny = model.package(name).TINY
    if "pre_train" in tiny and not Path(tiny["pre_train"]).exists():
        write_foreign("DnCNN", tiny["pre_train"])
    return [part for key, value in tiny.items() for part in (f"--{key}", str(value))]


def code(name: str) -> list[str]:
    """Return the flags that a tool needs for a model file that does not name the code of its network, [] if the model needs none."""
    known = model.code_flags(name)
    return [*(["--model", name] if known else []), *(part for flag in known for part in (f"--{flag}", model.package(name).TINY[flag]))]


def typed(name: str) -> dict[str, str]:
    """Return the same for `weights.load`."""
    return {flag: model.package(name).TINY[flag] for flag in model.code_flags(name)}
