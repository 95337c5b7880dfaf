"""Numbers for weights and images of the references, without a file."""
import torch


def waves(shape, step):
    """Element j is sin(step j), as in the test."""
    count = torch.Size(shape).numel()
    return (torch.arange(count, dtype=torch.float64) * step).sin().view(shape).float()
