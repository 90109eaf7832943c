"""Collaborative knowledge transfer: teachers' and student's features in a common space, for knowledge collation (stage 1)."""
import torch
from torch import Tensor, nn

RELEASED = {                              # released key prefix -> ours
    "teacher_projectors.PFPs.": "teacher.",
    "teacher_projectors.IPFPs.": "inverse.",
    "student_projector.PFP.": "student.",
}


def projector(inputs: int, outputs: int) -> nn.Sequential:
    """Return two 3x3 convolutions without bias, Kaiming-normal, a ReLU between them: (B, inputs, h, w) to (B, outputs, h, w)."""
    first, second = (nn.Conv2d(width, outputs, 3, padding=1, bias=False) for width in (inputs, outputs))
    for layer in (first, second):
        nn.init.kaiming_normal_(layer.weight)
    return nn.Sequential(first, nn.ReLU(), second)


class Transfer(nn.Module):
    """One feature's projectors into half its width: one for each teacher, with an inverse, and the student's."""

    def __init__(self, width: int, teachers: int):
        super().__init__()
        self.teacher = nn.ModuleList(projector(width, width // 2) for _ in range(teachers))
        self.inverse = nn.ModuleList(projector(width // 2, width) for _ in range(teachers))
        self.student = projector(width, width // 2)

    def forward(self, teacher_features: list[Tensor], student_feature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return teachers' and student's projection, both (B, C / 2, h, w), and the teachers' reconstruction (B, C, h, w).

        Teacher k gives (B_k, C, h, w) for its share of the batch, which may be empty; the student gives (B, C, h, w).
        The teachers' results are joined in their order.
        """
        projected = [project(feature) for project, feature in zip(self.teacher, teacher_features)]
        reconstructed = [invert(feature) for invert, feature in zip(self.inverse, projected)]
        return torch.cat(projected), self.student(student_feature), torch.cat(reconstructed)


class Collation(nn.Module):
    """A Transfer for each feature that the networks hand out."""

    def __init__(self, widths: list[int], teachers: int):
        super().__init__()
        self.transfers = nn.ModuleList(Transfer(width, teachers) for width in widths)

    def forward(self, teacher_features: list[list[Tensor]], student_features: list[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return each feature's Transfer result; `teacher_features` holds a list of features for each teacher."""
        return [transfer(list(theirs), ours)
                for transfer, theirs, ours in zip(self.transfers, zip(*teacher_features), student_features)]


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of one released Transfer to ours; a key that is not known keeps its name."""
    return {_rename(key): value for key, value in state.items()}


def _rename(key: str) -> str:
    for theirs, ours in RELEASED.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key
