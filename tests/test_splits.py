"""Splits after convolutions: convolutions compute the parts themselves, with the same results."""
import numpy as np
import pytest

from restore import splits

onnx = pytest.importorskip("onnx", reason="the extra 'fast' is not installed: no onnx")


def graph(nodes, outputs, **constants) -> bytes:
    """Return an ONNX file with the input x, (1, 4, H, W), and these nodes and constants."""
    from onnx import helper, numpy_helper
    values = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    made = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", 1, [1, 4, "h", "w"])],
                             [helper.make_tensor_value_info(name, 1, [1, None, None, None]) for name in outputs], values)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def conv(name: str, source: str, *more: str, **flags):
    return onnx.helper.make_node("Conv", [source, f"{name}_w", *more], [name], name, **flags)


def split(source: str, outputs: list[str], *sizes: str, **flags):
    return onnx.helper.make_node("Split", [source, *sizes], outputs, axis=1, **flags)


MIXED, LOCAL = weights(6, 4, 1, 1), weights(6, 1, 3, 3)
FILES = {
    "sizes": ([conv("mixed", "x", "bias"), split("mixed", ["a", "b", "c"], "sizes")], "abc",
              {"mixed_w": MIXED, "bias": weights(6), "sizes": np.array([1, 2, 3])}, 0),
    "depthwise": ([conv("mixed", "x"), conv("local", "mixed", "bias", group=6, pads=[1, 1, 1, 1]),
                   split("local", ["a", "b"], num_outputs=2)], "ab", {"mixed_w": MIXED, "local_w": LOCAL, "bias": weights(6)}, 0),
    "uneven": ([conv("mixed", "x"), split("mixed", ["a", "b", "c", "d"], num_outputs=4)], "abcd", {"mixed_w": weights(7, 4, 3, 3)}, 0),
    "used twice": ([conv("mixed", "x"), split("mixed", ["a", "b"], num_outputs=2)], ["a", "b", "mixed"], {"mixed_w": MIXED}, 1),
    "groups": ([conv("mixed", "x", group=2), split("mixed", ["a", "b"], num_outputs=2)], "ab", {"mixed_w": weights(6, 2, 1, 1)}, 1),
    "of the input": ([split("x", ["a", "b"], num_outputs=2)], "ab", {}, 1),
}


@pytest.mark.parametrize("name", FILES)
def test_the_results_are_the_same(name):
    from onnx.reference import ReferenceEvaluator
    nodes, outputs, constants, left = FILES[name]
    content = graph(nodes, outputs, **constants)
    changed = splits.removed(content)
    onnx.checker.check_model(onnx.load_from_string(changed))
    assert sum(node.op_type == "Split" for node in onnx.load_from_string(changed).graph.node) == left
    x = {"x": weights(1, 4, 5, 7)}
    for found, expected in zip(ReferenceEvaluator(changed).run(None, x), ReferenceEvaluator(content).run(None, x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
