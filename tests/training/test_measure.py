"""Whether lanes pay."""

import torch
from torch import nn

from hpsearch.objective import Data
from hpsearch.training import group
from hpsearch.training.measure import LARGEST_CONVOLUTIONS, counted
from hpsearch.training.probe import probe
from tests.training.fusing import ROWS, Small, alone, assert_same, assignments, is_fused, keys, noise, together


class Images(Small):
    epochs, batch_size = 1, 16

    def model(self, params):
        width = params["width"]
        return nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.Dropout(params["dropout"]), nn.Flatten(), nn.Linear(width * 256, 3)
        )

    def data(self):
        return Data(noise(1, 16, 16), torch.arange(ROWS) % 3)


def test_multiplications_of_a_forward():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1, stride=2))
    with counted(model) as found:
        model(torch.zeros(2, 3, 6, 6))
        model(torch.zeros(1, 3, 6, 6))
    assert found == [2 * (36 * 8 * 27 + 9 * 4 * 8), 36 * 8 * 27 + 9 * 4 * 8]
    assert not model._forward_pre_hooks
    assert not model[0]._forward_hooks


def test_large_convolutions_train_alone_on_a_cpu_unless_told_otherwise(tmp_path, monkeypatch):
    width = 1 + LARGEST_CONVOLUTIONS // (16 * 256 * 9)
    runs = assignments([{"width": width, "dropout": 0.1 * k} for k in (1, 2)])
    probes = []
    monkeypatch.setattr(group, "probe", lambda *given: probes.append(1) or probe(*given))
    told = together(Images, tmp_path / "lanes", runs, fixed_lanes=False)
    assert len(probes) == 1  # more alike, they would be no faster
    assert {(g.engine, g.reason[:16]) for g in told.grouped} == {("solo", "its convolutions")}
    forced = together(Images, tmp_path / "forced", runs)
    assert is_fused(forced, 2)
    assert_same(forced, alone(Images, tmp_path / "alone", runs), keys(runs))
    small = assignments([{"width": width - 1, "dropout": 0.1 * k} for k in (1, 2)])
    assert is_fused(together(Images, tmp_path / "small", small, fixed_lanes=False), 2)
