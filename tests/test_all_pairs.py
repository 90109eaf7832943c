"""The contrastive loss over all pairs of a batch: its memory grows with the batch, not with its square."""
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from loss import contrast, pretrained
from tests.test_perceptual import sample


class Largest(TorchDispatchMode):
    """Within the block, the number of elements of the largest tensor that is made."""
    elements = 0

    def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [x for x in (result if isinstance(result, tuple) else (result,)) if isinstance(x, Tensor)]
        self.elements = max([self.elements, *(x.numel() for x in tensors)])
        return result


def test_memory_grows_with_the_batch():
    """Four times the batch needs four times the memory for all its pairs, not sixteen times."""
    torch.manual_seed(0)
    term, found = contrast.Contrast(pretrained.VGG(16), contrast.PCL, "image", "image", hard=True), []
    term.requires_grad_(False)
    for count in (4, 16):
        prediction, batch = sample(count, side=16)
        with Largest() as largest:
            term(prediction, batch).backward()
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, kept=kept: kept.append(x.nbytes) or x, lambda x: x):
            contrast.AllPairs.apply(prediction["image"] * 1, batch.input.detach())
        found.append((largest.elements, sum(kept)))
    assert [many / few for few, many in zip(*found)] == [4, 4]
