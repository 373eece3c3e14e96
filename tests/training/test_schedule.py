"""Our learning rates against torch's schedulers."""

import pytest
import torch

from hpsearch.objective import Constant, Cosine, Plateau, Step
from hpsearch.training.schedule import Rate

EPOCHS = 40


def torch_rates(make, losses):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = make(optimizer)
    rates = []
    for loss in losses:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(loss) if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) else scheduler.step()
    return rates


def our_rates(schedule, losses):
    rate, rates = Rate(schedule, 0.3, EPOCHS), []
    for epoch, loss in enumerate(losses):
        rates.append(rate.at(epoch))
        rate.observe(loss)
    return rates


S = torch.optim.lr_scheduler


@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        (Constant(), lambda o: S.ConstantLR(o, factor=1.0)),
        (Step(every=7, gamma=0.3), lambda o: S.StepLR(o, 7, 0.3)),
        (Cosine(), lambda o: S.CosineAnnealingLR(o, EPOCHS)),
        (Cosine(floor=0.1), lambda o: S.CosineAnnealingLR(o, EPOCHS, eta_min=0.03)),
        (Plateau(patience=2), lambda o: S.ReduceLROnPlateau(o, factor=0.1, patience=2)),
        (Plateau(0.5, 0, 1e-2), lambda o: S.ReduceLROnPlateau(o, factor=0.5, patience=0, threshold=1e-2)),
    ],
)
def test_rates_equal_torchs(schedule, make):
    generator = torch.Generator().manual_seed(4)
    noise = torch.rand(EPOCHS, generator=generator).tolist()
    losses = [1 / (1 + epoch) + 0.1 * n if epoch < 15 else 0.3 + 0.01 * n for epoch, n in enumerate(noise)]
    ours, theirs = our_rates(schedule, losses), torch_rates(make, losses)
    assert ours == pytest.approx(theirs, rel=1e-9)
    assert isinstance(schedule, Constant) or len(set(ours)) > 2


def test_a_rate_goes_on_from_its_state():
    losses = [1.0] * 20
    whole, first = Rate(Plateau(patience=3), 1.0, 20), Rate(Plateau(patience=3), 1.0, 20)
    for loss in losses[:6]:
        whole.observe(loss)
        first.observe(loss)
    second = Rate(Plateau(patience=3), 1.0, 20)
    second.restore(first.state())
    for loss in losses[6:]:
        whole.observe(loss)
        second.observe(loss)
        assert whole.at(0) == second.at(0)
    assert whole.at(0) < 1e-2
