"""Which data a run has seen: the same bytes, the same fingerprint; and one byte is enough."""

import re

import pytest
import torch

from hpsearch.objective import Data
from hpsearch.training import fingerprint as module
from hpsearch.training.data import prepare
from hpsearch.training.fingerprint import fingerprint
from hpsearch.training.recipe import ModelParams
from tests.training.fusing import MLP, alone, assignments, key, together


def made(**changes) -> Data:
    inputs = torch.arange(600, dtype=torch.uint8).view(100, 2, 3)
    targets = torch.arange(100) % 10
    return Data(**{"inputs": inputs, "targets": targets, "test_inputs": inputs + 1, "test_targets": targets, **changes})


def test_it_is_of_the_bytes_and_not_of_how_they_lie():
    first = fingerprint(made())
    assert re.fullmatch("[0-9a-f]{16}", first)
    turned = made().inputs.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert not turned.is_contiguous()
    assert fingerprint(made(inputs=turned)) == first
    assert fingerprint(made(transform=lambda batch: batch)) == first


@pytest.mark.parametrize("name", ["inputs", "targets", "test_inputs", "test_targets"])
def test_one_number_differs_in_every_part(name):
    changed = getattr(made(), name).clone()
    changed.view(-1)[57] += 1
    assert fingerprint(made(**{name: changed})) != fingerprint(made())


def test_shape_type_and_name_are_part_of_it():
    data = made()
    seen = {
        fingerprint(one)
        for one in (
            data,
            made(inputs=data.inputs.view(100, 3, 2)),
            made(inputs=data.inputs.view(torch.int8)),
            made(inputs=data.test_inputs, test_inputs=data.inputs),
            made(test_inputs=None, test_targets=None),
        )
    }
    assert len(seen) == 5


@pytest.mark.parametrize(
    "inputs",
    [
        torch.zeros(4, 0),
        torch.zeros(4, dtype=torch.bool),
        torch.zeros(4, 3, dtype=torch.bfloat16),
        torch.zeros(4, dtype=torch.complex64).conj(),
        torch.zeros(4, 1).expand(4, 5),
        torch.zeros(4, 2, requires_grad=True),
    ],
)
def test_every_dense_tensor_has_one(inputs):
    assert fingerprint(Data(inputs, torch.zeros(4)))


def test_a_sparse_one_has_none():
    assert fingerprint(Data(torch.eye(4).to_sparse(), torch.zeros(4))) == ""


def test_large_data_are_told_by_their_targets_and_a_sample_of_rows(monkeypatch):
    monkeypatch.setattr(module, "WHOLE", 100_000)
    monkeypatch.setattr(module, "SMALL", 50_000)
    monkeypatch.setattr(module, "ROWS", 16)
    inputs, targets = torch.zeros(60_000, 2, dtype=torch.uint8), torch.zeros(40_000, dtype=torch.uint8)
    data = Data(inputs, targets)
    first = fingerprint(data)
    assert fingerprint(Data(inputs.clone(), targets.clone())) == first
    seen = set()
    for row in range(0, 60_000, 6_000):
        changed = inputs.clone()
        changed[row : row + 6_000] = 1
        seen.add(fingerprint(Data(changed, targets)))
    assert len(seen) > 5  # 16 rows of ten stretches
    for row in (0, 59_999):
        changed = inputs.clone()
        changed[row] = 1
        assert fingerprint(Data(changed, targets)) != first
    changed = targets.clone()
    changed[12_345] = 1
    assert fingerprint(Data(inputs, changed)) != first
    assert fingerprint(Data(inputs[:-1], targets)) != first


class Scaled(MLP):
    def data(self):
        data = super().data()
        return Data(data.inputs * self.params["scale"], data.targets)


def test_lanes_and_runs_alone_say_what_they_were_given(tmp_path):
    # Two of each, and other seeds: the data of a run, not the latest that were made.
    runs = assignments([{"scale": scale, "dropout": p} for scale in (1.0, 2.0) for p in (0.1, 0.3)])
    told, solo = together(Scaled, tmp_path / "lanes", runs), alone(Scaled, tmp_path / "solo", runs)
    for how in (told, solo):
        seen = [how.last(key(k)).environment.data for k in range(4)]
        assert seen == [fingerprint(Data(MLP().data().inputs * s, MLP().data().targets)) for s in (1, 1, 2, 2)]
        assert seen[0] != seen[2]


def test_a_paused_run_says_it_too(tmp_path):
    runs = assignments([{"dropout": 0.1}] * 2, until=2)
    told, solo = together(MLP, tmp_path / "lanes", runs), alone(MLP, tmp_path / "solo", runs)
    seen = {how.last(key(k)).environment.data for how in (told, solo) for k in range(2)}
    assert seen == {fingerprint(MLP().data())}


def test_it_is_computed_once_for_prepared_data():
    task = MLP()
    first, second = (prepare(task, 0, "cpu", ModelParams({"dropout": p}))[0] for p in (0.1, 0.2))
    assert first is second
    assert first.fingerprint == fingerprint(task.data())
