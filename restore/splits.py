"""Rewrites an ONNX graph without splits of the channels that convolutions compute, which OpenVINO executes slowly."""
import itertools
from collections import Counter


def removed(content: bytes) -> bytes:
    """Return an ONNX file in which convolutions compute the parts directly that a Split along the channels made of their result.

    A Split may follow a convolution, or depthwise convolutions after one; each part gets its share of their weights.
    """
    import onnx
    from onnx import numpy_helper
    model = onnx.load_from_string(content)
    graph = model.graph
    values = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    maker = {name: node for node in graph.node for name in node.output}
    uses = Counter(name for node in graph.node for name in node.input) + Counter(each.name for each in graph.output)
    nodes, dropped = [], set()
    for node in graph.node:
        chain = _chain(node, values, maker, uses)
        if not chain:
            nodes.append(node)
            continue
        dropped |= {each.output[0] for each in chain}
        count = len(values[chain[0].input[1]])
        sizes = values[node.input[1]].tolist() if len(node.input) > 1 else _equal(count, len(node.output))
        borders = [0, *itertools.accumulate(sizes)]
        for number, (start, end) in enumerate(itertools.pairwise(borders)):
            source = chain[-1].input[0]
            for convolution in reversed(chain):
                part = onnx.NodeProto()
                part.CopyFrom(convolution)
                part.name = f"{convolution.name}_{number}"
                part.input[0], part.output[0] = source, f"{convolution.output[0]}_{number}"
                for place, name in enumerate(convolution.input[1:], 1):
                    part.input[place] = f"{name}_{convolution.output[0]}_{number}"
                    graph.initializer.append(numpy_helper.from_array(values[name][start:end].copy(), part.input[place]))
                for attribute in part.attribute:
                    if attribute.name == "group" and attribute.i > 1:
                        attribute.i = end - start
                nodes.append(part)
                source = part.output[0]
            part.output[0] = node.output[number]
    del graph.node[:]
    graph.node.extend(node for node in nodes if node.output[0] not in dropped)
    used = {name for node in graph.node for name in node.input}
    kept = [each for each in graph.initializer if each.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return model.SerializeToString()


def _chain(node, values: dict, maker: dict, uses: Counter) -> list:
    """Return the convolutions whose channels a Split divides, last one first; [] for all other nodes."""
    if node.op_type != "Split" or _number(node, "axis", 0) != 1 or (len(node.input) > 1 and node.input[1] not in values):
        return []
    chain, name = [], node.input[0]
    while True:
        made = maker.get(name)
        if made is None or made.op_type != "Conv" or uses[name] != 1 or not all(each in values for each in made.input[1:]):
            return []
        chain.append(made)
        group, weights = _number(made, "group", 1), values[made.input[1]]
        if group == 1:
            return chain
        if group != len(weights) or weights.shape[1] != 1:
            return []
        name = made.input[0]


def _number(node, name: str, default: int) -> int:
    return next((each.i for each in node.attribute if each.name == name), default)


def _equal(count: int, parts: int) -> list[int]:
    """Return the sizes of the parts as Split makes them: equal, the last one smaller if necessary."""
    size = -(-count // parts)
    return [size] * (parts - 1) + [count - size * (parts - 1)]
