"""Names of released tensors: one table for both directions, for every package that has a released file."""
import importlib

import pytest
import torch

import model
from model import names
from tests.parity import facts

RELEASES = {"two_stage_kd": "twostage", "dsrir": "dsrir", "smgarn": "smgarn", "sapnet": "sapnet", "nafnet": "nafnet",
            "restormer": "r2a_restormer", "drsformer": "r2a_drsformer", "unet": "r2a_unet", "dncnn": "r2a_dncnn"}
ONE_WAY = {"resnet", "rain2avoid"}        # a release holds tensors twice and some that are not used; the network is that of a backbone


def test_every_package_is_listed():
    assert {name for name in model.MODELS if hasattr(model.package(name), "to_official")} == set(RELEASES)
    assert not ONE_WAY & set(RELEASES)


@pytest.mark.parametrize("name", RELEASES)
def test_the_released_names_come_back(name):
    """Every name of the released file, from tests/parity, becomes another name here, and that one becomes the released name again."""
    package, known = importlib.import_module(f"model.{name}"), [key for key, _ in facts(RELEASES[name])["state_dict"]]
    ours = package.from_official({key: key for key in known})
    assert len(ours) == len(known) and sum(ours != theirs for ours, theirs in ours.items()) > len(known) / 3
    assert package.to_official(ours) == {key: key for key in known}


def test_a_table_in_both_directions():
    table = {"body": "blocks", "body.*.conv": "blocks.*.enter", "ups.*.0": "ups.*", "head": "first"}
    theirs = ["body.3.conv.weight", "body.3.convs", "body.x", "ups.12.0.bias", "head", "heads.x", "other.body", "body.a.conv.weight"]
    ours = ["blocks.3.enter.weight", "blocks.3.convs", "blocks.x", "ups.12.bias", "first", "heads.x", "other.body", "blocks.a.conv.weight"]
    assert list(names.renamed(dict.fromkeys(theirs), table)) == ours
    assert list(names.renamed(dict.fromkeys(ours), table, back=True)) == theirs


def test_names_that_do_not_come_back_are_not_used(monkeypatch):
    """A network whose names `from_official` would not restore keeps the names of this program."""
    package = model.package("smgarn")
    method = package.SnowRemoval(channels=4)
    assert names.released(method).keys() != method.network.state_dict().keys()
    monkeypatch.setattr(package, "to_official", lambda state: {"Stage_I." + key: value for key, value in state.items()})
    assert names.released(method) is None
    monkeypatch.setattr(package, "to_official", lambda state: dict.fromkeys(state, torch.zeros(1)))
    assert names.released(method) is None
