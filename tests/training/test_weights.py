"""A model's state, copied and given back."""

import pytest
from torch import nn

from tests.training.fusing import MLP, TWO, alone, assert_same, in_two_parts, keys


class Filling(nn.Module):
    """Two buffers that are None until the first batch; no state_dict has the second."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(5, 3)
        self.register_buffer("mean", None)
        self.register_buffer("scale", None, persistent=False)

    def forward(self, x):
        if self.mean is None:
            self.mean, self.scale = x.detach().mean(0), x.detach().std(0)
        return self.last((x - self.mean) / self.scale)


class Filled(MLP):
    def model(self, params):
        return Filling()


@pytest.mark.parametrize("ways", ["lanes solo", "solo lanes", "lanes lanes", "solo solo"])
def test_a_buffer_that_the_first_batch_fills_outlives_a_pause(tmp_path, ways):
    told, _ = in_two_parts(Filled, tmp_path, ways)
    assert_same(told, alone(Filled, tmp_path / "whole", TWO), keys(TWO))
