"""Collaborative knowledge transfer: projects the features of teachers and student into a common space (knowledge collation, stage 1)."""
import torch
from torch import Tensor, nn

from model import names

RELEASED = {                              # beginning of a released name -> the name here
    "teacher_projectors.PFPs": "teacher",
    "teacher_projectors.IPFPs": "inverse",
    "student_projector.PFP": "student",
}


def projector(inputs: int, outputs: int) -> nn.Sequential:
    """Return two 3 × 3 convolutions without bias (Kaiming normal) with a ReLU between them: (B, inputs, h, w) to (B, outputs, h, w)."""
    first, second = (nn.Conv2d(width, outputs, 3, padding=1, bias=False) for width in (inputs, outputs))
    for layer in (first, second):
        nn.init.kaiming_normal_(layer.weight)
    return nn.Sequential(first, nn.ReLU(), second)


class Transfer(nn.Module):
    """Projectors of one feature to half its width: one with an inverse for each teacher, and one for the student."""

    def __init__(self, width: int, teachers: int):
        super().__init__()
        self.teacher = nn.ModuleList(projector(width, width // 2) for _ in range(teachers))
        self.inverse = nn.ModuleList(projector(width // 2, width) for _ in range(teachers))
        self.student = projector(width, width // 2)

    def forward(self, teacher_features: list[Tensor], student_feature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the projections of teachers and student, both (B, C / 2, h, w), and the teachers' reconstruction (B, C, h, w).

        The feature of teacher k is (B_k, C, h, w), for the images of its weather, of which there may be none; the student's is
        (B, C, h, w). The results of the teachers are concatenated in the order of the teachers.
        """
        projected = [project(feature) for project, feature in zip(self.teacher, teacher_features)]
        reconstructed = [invert(feature) for invert, feature in zip(self.inverse, projected)]
        return torch.cat(projected), self.student(student_feature), torch.cat(reconstructed)


class Collation(nn.Module):
    """One Transfer for each feature that the networks return."""

    def __init__(self, widths: list[int], teachers: int):
        super().__init__()
        self.transfers = nn.ModuleList(Transfer(width, teachers) for width in widths)

    def forward(self, teacher_features: list[list[Tensor]], student_features: list[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return the result of each feature's Transfer; `teacher_features` holds one list of features for each teacher."""
        return [transfer(list(theirs), ours)
                for transfer, theirs, ours in zip(self.transfers, zip(*teacher_features), student_features)]


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state_dict of a released Transfer with the names of this one; unknown names stay."""
    return names.renamed(state, RELEASED)
