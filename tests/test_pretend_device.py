"""The pretend device keeps the rules that a CUDA device has."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from pretend_device import pretend_device
from torch import Tensor, nn

VALUES = torch.tensor([[3.0, 1.0], [0.0, 2.0]])


@pytest.fixture
def device() -> Iterator[torch.device]:
    with pretend_device() as device:
        yield device


@pytest.mark.parametrize(
    "mixed",
    [
        lambda x: x + VALUES,
        lambda x: VALUES @ x,
        lambda x: torch.cat([x, VALUES]),
        lambda x: torch.stack([x.sum(), torch.tensor(1.0)]),
        lambda x: torch.where(x > 1, x, VALUES),
        lambda x: x.index_select(0, torch.tensor([1])),
        lambda x: x.gather(1, torch.zeros(2, 1, dtype=torch.long)),
        lambda x: F.embedding(torch.tensor([1]), x),
        lambda x: VALUES[x.long()],
        lambda x: x.clone().index_put_((torch.tensor([0]),), VALUES[:1]),
        lambda x: x.clone().normal_(generator=torch.Generator()),
        lambda x: torch.randint(3, (2,), generator=torch.Generator(), device=x.device),
    ],
)
def test_what_a_gpu_refuses(device: torch.device, mixed: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(RuntimeError, match=r"Expected|indices should be"):
        mixed(VALUES.to(device))


def test_numpy_takes_no_tensor_of_the_device(device: torch.device) -> None:
    for read in (Tensor.numpy, Tensor.__array__):
        with pytest.raises((RuntimeError, TypeError)):
            read(VALUES.to(device))
        assert read(VALUES.to(device).cpu()).tolist() == VALUES.tolist()


def test_what_a_gpu_takes(device: torch.device) -> None:
    x = VALUES.to(device)
    for found, expected in (
        (x * torch.tensor(2.0), 2 * VALUES),
        (x[torch.tensor([1])], VALUES[1:]),
        (x[VALUES > 1], VALUES[VALUES > 1]),
        (x.nonzero(), VALUES.nonzero()),
        (x.to("cpu"), VALUES),
        (torch.arange(3, device=x.device), torch.arange(3)),
        (torch.tensor([3, 1], device=device), torch.tensor([3, 1])),
        (x.new_tensor([1]), torch.tensor([1.0])),
        (torch.zeros(2, 2).to(device).copy_(VALUES), VALUES),
        (torch.zeros(2, 2).copy_(x), VALUES),
    ):
        assert torch.equal(found.cpu(), expected)
    assert x.tolist() == VALUES.tolist() and x.max().item() == int(x.max()) == 3
    assert x.device == device == (x + 1).device and x.cpu().device.type == "cpu"


def test_writing_in_place_writes_to_the_tensor_and_through_its_views(device: torch.device) -> None:
    x = VALUES.clone().to(device)
    x[0] += 1
    x[:, 1].zero_()
    x[torch.tensor([1]), 1] = 5
    assert x.tolist() == [[4.0, 0.0], [0.0, 5.0]]


def test_a_second_derivative(device: torch.device) -> None:
    x = VALUES.to(device).requires_grad_()
    (slope,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
    slope.sum().backward()
    assert x.grad.device == device
    assert torch.equal(x.grad.cpu(), 6 * VALUES)


def test_a_module_moves_trains_and_comes_back(device: torch.device) -> None:
    ends = []
    for place in ("cpu", device):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).to(place)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            model(VALUES.to(place)).square().sum().backward()
            optimizer.step()
        ends.append([value.cpu() for value in model.double().state_dict().values()])
    torch.testing.assert_close(ends[1], ends[0])


def test_outside_of_the_block_there_is_no_device() -> None:
    with pretend_device() as device:
        x = VALUES.to(device)
    assert torch.equal(x.cpu(), VALUES)
    with pytest.raises((RuntimeError, NotImplementedError)):
        VALUES.to(device)
