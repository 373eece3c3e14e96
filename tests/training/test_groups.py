"""What a worker does with the runs it has in hand: who trains together, and what becomes of each."""

import time
from array import array
from itertools import count

import pytest
import torch
from torch import nn

from hpsearch.objective import Data, Plateau
from hpsearch.training.groups import Trainer
from hpsearch.trial import EpochReport, Finished, Grouped, PausedReport, State
from tests.training.fusing import (
    CNN,
    MLP,
    STEPS,
    TWO,
    Later,
    Small,
    Told,
    alone,
    assert_same,
    assignments,
    in_two_parts,
    is_fused,
    key,
    keys,
    noise,
    together,
)

# What is said, and when


def test_reports_of_an_epoch_go_together_and_every_run_ends_once(tmp_path):
    runs = assignments([{"lr": 0.1, "epochs": 1 + k} for k in range(4)])
    told = together(MLP, tmp_path, runs)
    assert isinstance(told.sent[0][0], Grouped)
    assert told.sent[0][0].runs == tuple(keys(runs))
    for epoch, together_sent in enumerate(told.sent[1:]):
        reported = [report for report in together_sent if isinstance(report, EpochReport)]
        assert {report.epoch for report in reported} == {epoch}
        assert [report.run for report in reported] == keys(runs)[epoch:] or epoch
        assert {report.run for report in reported} == set(keys(runs)[epoch:])
        ends = [report.run for report in together_sent if isinstance(report, Finished)]
        assert ends == [key(epoch)]
    assert len(told.sent) == 5
    for run in keys(runs):
        last = told.last(run)
        assert (last.state, last.engine) == (State.COMPLETE, "vmap, cpu, 4 lanes")
        assert last.seconds > 0
        assert last.worker
        assert last.environment is not None


def test_one_lane_a_worker_means_the_solo_loop(tmp_path):
    runs = assignments([{"lr": 0.1}] * 2)
    told = together(MLP, tmp_path / "one", runs, lanes=1)
    assert told.grouped == []
    solo = alone(MLP, tmp_path / "solo", runs)
    assert [told.curve(run) for run in keys(runs)] == [solo.curve(run) for run in keys(runs)]
    assert {told.last(run).engine for run in keys(runs)} == {"solo, cpu"}


def test_runs_that_cannot_share_a_group_have_groups_of_their_own(tmp_path):
    settings = [{}, {"optimizer": "adam"}, {"batch_size": 20}, {"clip": 1.0}, {"label_smoothing": 0.1}]
    runs = assignments([params for params in settings for _ in range(2)])
    told = together(MLP, tmp_path / "lanes", runs)
    assert [g.runs for g in told.grouped] == [tuple(keys(runs)[k : k + 2]) for k in range(0, 10, 2)]
    assert_same(told, alone(MLP, tmp_path / "solo", runs), keys(runs))


# Lanes come and go


def test_lanes_that_end_at_different_epochs_are_refilled(tmp_path):
    """Three slots for nine runs: each freed one is filled by the next run, which begins at its own epoch 0."""
    lengths = [2, 5, 3, 4, 1, 6, 2, 3, 5]
    runs = assignments(
        [{"lr": 0.02 * (k + 1), "epochs": n, "dropout": 0.1 * (k % 4), "schedule": ["cosine", "plateau"][k % 2]}
         for k, n in enumerate(lengths)]
    )  # fmt: skip
    for name, first, more in [
        ("queued", runs, Later()),
        ("given", runs[:2], Later([], runs[2:3], runs[3:7], [], runs[7:])),
    ]:
        told = together(CNN, tmp_path / name, first, more=more, lanes=3)
        solo = alone(CNN, tmp_path / f"solo {name}", runs)
        assert is_fused(told)
        assert max(len([r for r in sent if isinstance(r, EpochReport)]) for sent in told.sent) == 3
        assert_same(told, solo, keys(runs))
    assert len(told.grouped) <= 3


def test_a_run_that_comes_later_joins_the_group_that_trains(tmp_path):
    runs = assignments([{"epochs": 6}, {"epochs": 6}, {"epochs": 3}])
    told = together(MLP, tmp_path, runs[:2], more=Later(runs[2:]), lanes=3)
    assert len(told.grouped) == 1
    second = [report.run for report in told.sent[2] if isinstance(report, EpochReport)]
    assert set(second) == set(keys(runs))


class Patient(MLP):
    epochs = 40
    patience = 2


def test_early_stopping_is_each_lanes_own(tmp_path):
    runs = assignments([{"lr": 0.02 * 3**k, "dropout": 0.3} for k in range(5)])
    told, solo = together(Patient, tmp_path / "lanes", runs), alone(Patient, tmp_path / "solo", runs)
    assert is_fused(told, 5)
    assert_same(told, solo, keys(runs), 1e-6)
    ends = {told.last(run).last_epoch for run in keys(runs)}
    assert len(ends) > 2
    assert max(ends) < 39


def test_value_and_best_epoch_go_by_the_metric_that_is_maximised(tmp_path):
    runs = assignments([{"lr": 0.1, "dropout": 0.1 * k} for k in range(4)])
    changes = {"metric": "val_accuracy", "direction": "maximize"}
    told, solo = together(CNN, tmp_path / "a", runs, **changes), alone(CNN, tmp_path / "b", runs, **changes)
    assert_same(told, solo, keys(runs))
    for run in keys(runs):
        assert told.last(run).value == max(metrics["val_accuracy"] for metrics in told.curve(run))


# Pauses


class Long(CNN):
    """All that a pause must keep: velocity, running statistics, the schedule's state, best weights, patience."""

    epochs = 7
    optimizer = "adam"
    lr = 0.02
    schedule = Plateau(patience=0, factor=0.5, threshold=0.05)
    patience = 5


@pytest.mark.parametrize("ways", ["lanes lanes", "lanes solo", "solo lanes", "lanes solo lanes"])
def test_a_paused_run_goes_on_in_lanes_or_alone(tmp_path, ways):
    settings = [{"dropout": 0.1 * k, "weight_decay": 0.01 * k} for k in range(4)]
    whole = alone(Long, tmp_path / "whole", assignments(settings))
    parts = ways.split()
    said = Told(tmp_path / "parts")
    for part, way in enumerate(parts):
        until = None if part == len(parts) - 1 else 2 * part + 2
        train = together if way == "lanes" else alone
        told = train(Long, tmp_path / "parts", assignments(settings, until=until))
        if until is not None:
            for run in keys(assignments(settings)):
                assert isinstance(told.last(run), PausedReport)
                assert told.last(run).epoch == until - 1
        said.sent += told.unpaused()
    assert_same(said, whole, keys(assignments(settings)))
    assert not list((tmp_path / "parts").rglob("*.pt"))


def test_lanes_pause_at_epochs_of_their_own_and_others_take_their_place(tmp_path):
    settings = [{"lr": 0.05, "dropout": 0.1 * k} for k in range(6)]
    first = [run for k in range(6) for run in assignments(settings, until=1 + k % 3)[k : k + 1]]
    told = together(CNN, tmp_path / "parts", first, lanes=2)
    on = together(CNN, tmp_path / "parts", assignments(settings)[::-1], lanes=4)
    told.sent = told.unpaused() + on.sent
    assert_same(told, alone(CNN, tmp_path / "solo", assignments(settings)), keys(first))


def test_a_lane_that_is_the_first_to_have_a_penalty_joins_the_others(tmp_path):
    """Until then steps have been repeated without one."""
    runs = assignments([{"weight_decay": decay, "epochs": n} for decay, n in ((0.0, 8), (0.0, 16), (0.1, 8))])
    told = together(MLP, tmp_path / "lanes", runs[:2], more=Later(*[[]] * 7, runs[2:]))
    assert is_fused(told)
    assert_same(told, alone(MLP, tmp_path / "solo", runs), keys(runs))


# One handful after another

#: of a kind that hpsearch does not look into: else it would take it for something that lanes must not share
CALLS = array("b")


class Noted(nn.Sequential):
    """Its Python says whenever it runs."""

    def forward(self, x):
        CALLS.append(1)
        return super().forward(x)


class Watched(MLP):
    def model(self, params):
        return Noted(MLP.model(self, params))


def test_lanes_that_all_ended_are_those_of_the_next_handful(tmp_path):
    """Neither probed again nor recorded again; and to the bit as by a new worker."""
    trainer = Trainer("cpu")
    settings = [{"lr": 0.02 + 0.01 * k, "dropout": 0.05 * k, "epochs": 5} for k in range(12)]
    first, second = assignments(settings), assignments(settings[::-1], first=12)
    assert is_fused(together(Watched, tmp_path / "lanes", first, trainer=trainer))
    before = len(CALLS)
    told = together(Watched, tmp_path / "lanes", second, trainer=trainer)
    mine = len(CALLS) - before
    fresh = together(Watched, tmp_path / "fresh", second)
    assert mine < 5 * (STEPS + 1) < len(CALLS) - before - mine  # one a step, one a validation
    assert [(g.engine, g.lanes, g.runs) for g in told.grouped] == [("vmap", 12, tuple(keys(second)))]
    for run in keys(second):
        assert told.curve(run) == fresh.curve(run)
        assert told.last(run).engine == "vmap, cpu, 12 lanes"
    assert_same(told, alone(Watched, tmp_path / "solo", second), keys(second))


def test_paused_runs_go_on_in_the_lanes_that_are_kept(tmp_path):
    trainer, said = Trainer("cpu"), Told(tmp_path / "parts")
    settings = [{"dropout": 0.1 * k, "weight_decay": 0.01 * k} for k in range(4)]
    for until, some in ((2, settings), (4, settings[1:3]), (None, settings[1:3])):
        runs = [run for run in assignments(settings, until=until) if run.params in some]
        told = together(Long, tmp_path / "parts", runs, trainer=trainer)
        said.sent += told.unpaused()
    whole = assignments(settings)[1:3]
    assert_same(said, alone(Long, tmp_path / "solo", whole), keys(whole))


def test_a_handful_of_another_kind_has_lanes_of_its_own(tmp_path):
    trainer = Trainer("cpu")
    runs = assignments([{}, {}, {"batch_size": 8}, {"batch_size": 8}, {}, {}])
    for number in (0, 2, 4):
        some = runs[number : number + 2]
        told = together(MLP, tmp_path / "lanes", some, trainer=trainer)
        assert is_fused(told, 2)
        assert_same(told, alone(MLP, tmp_path / "solo", some), keys(some))


def test_another_study_has_lanes_of_its_own(tmp_path):
    """Its seed cuts the data in another way."""
    trainer, runs = Trainer("cpu"), assignments([{}, {}])
    together(MLP, tmp_path / "lanes", runs, trainer=trainer)
    told = together(MLP, tmp_path / "other", runs, trainer=trainer, seed=1)
    assert is_fused(told, 2)
    assert_same(told, alone(MLP, tmp_path / "other", runs, seed=1), keys(runs))


# Ends that are nobody's wish


def test_a_stopped_run_leaves_and_the_others_go_on(tmp_path):
    runs = assignments([{"dropout": 0.1 * k} for k in range(3)])
    heard = []

    def stopped(run):
        heard.append(run)
        return run == key(1) and heard.count(run) == 2

    told = together(MLP, tmp_path / "lanes", runs, stopped=stopped)
    assert (told.last(key(1)).state, told.last(key(1)).last_epoch) == (State.CANCELLED, 1)
    assert len(told.curve(key(1))) == 2
    assert_same(told, alone(MLP, tmp_path / "solo", runs), [key(0), key(2)])


class Slow(MLP):
    epochs = 10_000


def test_a_lane_that_is_too_old_fails_and_younger_ones_go_on(tmp_path):
    runs = assignments([{"epochs": 10_000}, {"epochs": 10_000}])
    told = together(Slow, tmp_path, runs, timeout_s=0.3)
    for run in keys(runs):
        last = told.last(run)
        assert (last.state, last.reason) == (State.FAILED, "timeout")
        assert last.last_epoch < 9_000
        assert 0.3 < last.seconds < 1.0


class Napping(MLP):
    epochs = 3

    def metrics(self, output, target):
        time.sleep(0.2)
        return {}


def test_a_lanes_time_is_its_share(tmp_path):
    """Six tenths of a second for all of them, which is one after the other a tenth each."""
    runs = assignments([{"dropout": 0.1 * k} for k in range(6)])
    told = together(Napping, tmp_path, runs, timeout_s=0.35)
    assert {told.last(run).state for run in keys(runs)} == {State.COMPLETE}
    assert all(told.last(run).seconds < 0.35 for run in keys(runs))


class Line(Small):
    """Its weights grow by a factor of the learning rate each step: rounding cannot move the epoch it diverges at."""

    optimizer = "sgd"
    epochs = 6

    def model(self, params):
        return nn.Linear(5, 1)

    def data(self):
        return Data(noise(5), noise(1))


def test_a_diverged_lane_says_its_epoch_and_reason_as_solo_does(tmp_path):
    runs = assignments([{"lr": lr} for lr in (0.1, 1e30, 0.05, 1e10, 1e7, 0.2)])
    told, solo = together(Line, tmp_path / "lanes", runs), alone(Line, tmp_path / "solo", runs)
    assert is_fused(told, 6)
    assert_same(told, solo, keys(runs))
    ends = [told.last(run) for run in keys(runs)]
    assert [end.state is State.DIVERGED for end in ends] == [False, True, False, True, True, False]
    assert [ends[k].reason for k in (1, 3, 4)] == [f"inf loss at epoch {epoch}" for epoch in (1, 2, 4)]


def test_a_metric_that_nobody_reports_fails_every_run(tmp_path):
    told = together(MLP, tmp_path, assignments([{}, {}]), metric="val_acc")
    for run in (key(0), key(1)):
        assert (told.last(run).state, told.last(run).reason) == (State.FAILED, "study")
        assert "val_acc" in told.last(run).error


class Failing(MLP):
    """Its metrics raise when a lane's outputs are those of the run with the marked bias, from its second epoch."""

    epochs = 4

    def model(self, params):
        model = MLP.model(self, params)
        model.register_buffer("mark", torch.tensor(float(params["mark"])))
        return Marked(model)

    def metrics(self, output, target):
        mark = output[0, 3].item()  # a number is read, so lanes are measured one by one
        return {"mark": mark if 0 <= mark < 2 else [][0]}


class Marked(nn.Module):
    """Adds what training has done to the mark so far as a fourth output."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.seen.add_(1.0)
        mark = self.inner.mark * self.seen / 5  # five batches an epoch
        logits = self.inner(x)
        return torch.cat([logits, mark.to(logits.dtype).expand(len(x), 1)], 1)


def test_an_exception_in_the_middle_costs_its_run_alone(tmp_path):
    """The run with mark 1 raises after its second epoch; lanes are measured one by one here."""
    runs = assignments([{"mark": mark, "lr": 0.05} for mark in (0.0, 1.0, 0.3, 0.1)])
    told, solo = together(Failing, tmp_path / "lanes", runs), alone(Failing, tmp_path / "solo", runs)
    first, others, broken = told.grouped
    assert (first.engine, others.engine, broken.engine) == ("vmap", "vmap", "solo")
    assert (others.runs, others.reason) == ((key(0), key(2), key(3)), "")
    assert broken.runs == (key(1),)
    assert "IndexError" in broken.reason
    last = told.last(key(1))
    assert (last.state, last.reason, len(told.curve(key(1)))) == (State.FAILED, "exception", 1)
    assert last.error == solo.last(key(1)).error
    assert "[][0]" in last.error
    assert_same(told, solo, [key(0), key(2), key(3)])


class Cholesky(nn.Module):
    """Raises where the weights are not finite; how many lanes there are it cannot know."""

    def __init__(self):
        super().__init__()
        self.square, self.last = nn.Parameter(torch.randn(5, 5)), nn.Linear(5, 3)

    def forward(self, x):
        factor = torch.linalg.cholesky(self.square @ self.square.T + torch.eye(5, dtype=x.dtype))
        return self.last(torch.relu(x @ factor))


class Factored(MLP):
    def model(self, params):
        return Cholesky()


def test_a_diverging_lane_that_makes_its_step_raise_leaves_the_others_as_they_are(tmp_path):
    good = assignments([{"lr": 0.01 * (1 + k % 5), "epochs": 3} for k in range(6)])
    bad = assignments([{"lr": 1e30, "epochs": 3}] * 2, first=20)
    without = together(Factored, tmp_path / "without", good)
    told = together(Factored, tmp_path / "with", [*good[:2], bad[0], *good[2:5], bad[1], *good[5:]])
    solo = alone(Factored, tmp_path / "solo", bad)
    for run in keys(good):
        assert told.curve(run) == without.curve(run)
        assert [r.layers for r in told.epochs(run)] == [r.layers for r in without.epochs(run)]
        assert told.last(run).engine.startswith("vmap"), told.grouped
    for run in keys(bad):
        assert (told.last(run).state, told.last(run).reason) == (solo.last(run).state, solo.last(run).reason)
        assert len(told.curve(run)) == len(solo.curve(run)) == 1
        assert told.last(run).engine.startswith("solo")
    assert [g.lanes for g in told.grouped] == [8, 6, 1]


class Broken(MLP):
    def loss(self, output, target):
        raise LookupError("no such thing")


class BrokenForward(MLP):
    def model(self, params):
        return nn.Linear(4, 3)


@pytest.mark.parametrize(("task", "words"), [(Broken, "no such thing"), (BrokenForward, "mat1 and mat2")])
def test_code_that_always_raises_fails_each_run_with_its_own_traceback(tmp_path, task, words):
    told = together(task, tmp_path, assignments([{}, {}]))
    for run in (key(0), key(1)):
        assert (told.last(run).state, told.last(run).reason) == (State.FAILED, "exception")
        assert words in told.last(run).error


def physical(tensor):
    """The tensor behind those of torch.func: with all lanes."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


class Memory:
    """A device that has room for so many lanes' outputs, and after so many batches for less."""

    def __init__(self):
        self.room, self.later, self.batches = 10**9, 10**9, count()

    def hold(self, lanes):
        if lanes > (self.room if next(self.batches) < 20 else self.later):
            raise torch.OutOfMemoryError(f"CUDA out of memory: {lanes} lanes")


MEMORY = Memory()


class Limited(CNN):
    """With a buffer of its seed's that no state_dict has, and one that training moves."""

    epochs = 6

    def model(self, params):
        model = CNN.model(self, params)
        model[6].register_buffer("offset", torch.randn(3), persistent=False)
        model[6].register_buffer("batches", torch.zeros(3), persistent=False)
        model[6].register_forward_hook(add_buffers)
        return model

    def loss(self, output, target):
        MEMORY.hold(physical(output).numel() // output.numel())
        return CNN.loss(self, output, target)


def add_buffers(module, inputs, output):
    if module.training:
        module.batches.add_(module.offset, alpha=0.02)
    return output + module.offset - module.batches.sin()


@pytest.mark.parametrize(("room", "later"), [(4, 10**9), (10**9, 6), (6, 4)])
def test_too_little_memory_halves_the_group_and_goes_on(tmp_path, monkeypatch, room, later):
    """At the first step, or from the third epoch on; one lane more is computed than there are."""
    runs = assignments([{"lr": 0.05, "dropout": 0.1 * k, "epochs": 5 + k % 2} for k in range(8)])
    solo = alone(Limited, tmp_path / "solo", runs)
    monkeypatch.setattr(MEMORY, "room", room)
    monkeypatch.setattr(MEMORY, "later", later)
    monkeypatch.setattr(MEMORY, "batches", count())
    told = together(Limited, tmp_path / "lanes", runs)
    assert_same(told, solo, keys(runs))
    assert "out of memory with 8 lanes" in [g.reason for g in told.grouped]
    assert {g.engine for g in told.grouped} == {"vmap"}
    last = [len([r for r in sent if isinstance(r, EpochReport)]) for sent in told.sent][-6:]
    assert max(last) < min(room, later)


@pytest.mark.parametrize("ways", ["lanes solo", "solo lanes", "lanes lanes", "solo solo"])
def test_a_pause_keeps_what_a_state_dict_leaves_out(tmp_path, ways):
    told, on = in_two_parts(Limited, tmp_path, ways)
    assert is_fused(on, 2) == ways.endswith("lanes")
    assert_same(told, alone(Limited, tmp_path / "whole", TWO), keys(TWO))


class Steep(nn.Module):
    """Its forward takes a way by a float of its own: lanes that differ in it cannot be vmapped."""

    def __init__(self, slope):
        super().__init__()
        self.slope, self.inner = slope, nn.Linear(5, 3)

    def forward(self, x):
        return self.inner(x) * (self.slope if self.slope > 1 else 1.0)


class Sloped(MLP):
    def model(self, params):
        return Steep(params["slope"])


def test_lanes_that_cannot_differ_in_a_float_have_groups_by_it(tmp_path):
    runs = assignments([{"slope": slope} for slope in (0.5, 2.0, 0.5, 2.0, 3.0)])
    told = together(Sloped, tmp_path / "lanes", runs)
    assert [g.lanes for g in told.grouped] == [2, 2, 1]
    assert is_fused(told)
    assert_same(told, alone(Sloped, tmp_path / "solo", runs), keys(runs))


def test_a_later_run_that_cannot_join_waits_for_lanes_of_its_own(tmp_path):
    runs = assignments([{"slope": slope, "epochs": 6} for slope in (2.0, 2.0, 3.0, 2.0)])
    told = together(Sloped, tmp_path / "lanes", runs[:2], more=Later(runs[2:]))
    assert_same(told, alone(Sloped, tmp_path / "solo", runs), keys(runs))
    engines = [told.last(run).engine for run in keys(runs)]
    assert engines == ["vmap, cpu, 3 lanes", "vmap, cpu, 3 lanes", "vmap, cpu, 1 lane", "vmap, cpu, 3 lanes"]


@pytest.mark.parametrize("second", [(3.0, 3.0, 3.0), (2.0, 3.0, 2.0, 3.0), (3.0, 2.0)])
def test_a_handful_that_cannot_join_the_kept_lanes_has_some_of_its_own(tmp_path, second):
    trainer = Trainer("cpu")
    together(Sloped, tmp_path / "lanes", assignments([{"slope": 2.0}] * 2), trainer=trainer)
    runs = assignments([{"slope": slope} for slope in second], first=2)
    told = together(Sloped, tmp_path / "lanes", runs, trainer=trainer)
    assert_same(told, alone(Sloped, tmp_path / "solo", runs), keys(runs))
    assert {told.last(run).engine.split(",")[0] for run in keys(runs)} == {"vmap"}
    last = together(Sloped, tmp_path / "lanes", assignments([{"slope": 3.0}] * 2, first=9), trainer=trainer)
    assert is_fused(last, 2)


def test_memory_that_was_too_little_is_not_tried_again(tmp_path, monkeypatch):
    trainer, runs = Trainer("cpu"), assignments([{"lr": 0.05}] * 6)
    monkeypatch.setattr(MEMORY, "room", 4)
    monkeypatch.setattr(MEMORY, "batches", count())
    told = together(Limited, tmp_path / "lanes", runs, trainer=trainer)
    assert told.grouped[0].reason == "out of memory with 6 lanes"
    monkeypatch.setattr(MEMORY, "batches", count())
    told = together(Limited, tmp_path / "lanes", runs, trainer=trainer)
    assert is_fused(told, 3)
    assert not any(g.reason for g in told.grouped)


class Counting(Sloped):
    """Lanes are measured one by one: a number is read."""

    def metrics(self, output, target):
        return {"accuracy": (output.argmax(1) == target).double().mean().item()}


def test_a_later_run_that_cannot_join_leaves_the_others_their_way(tmp_path):
    runs = assignments([{"slope": slope, "epochs": 6} for slope in (2.0, 2.0, 3.0, 2.0)])
    told = together(Counting, tmp_path / "lanes", runs[:2], more=Later(runs[2:]))
    assert_same(told, alone(Counting, tmp_path / "solo", runs), keys(runs))
    assert {told.last(run).engine.split(",")[0] for run in keys(runs)} == {"vmap"}
