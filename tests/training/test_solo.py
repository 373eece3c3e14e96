"""The solo loop: against plain torch, and against itself."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from hpsearch.errors import ObjectiveError, Paused, Stopped
from hpsearch.objective import Cosine, Data, Plateau, TrainingTask
from hpsearch.training.course import CHECKPOINT, Orders, Outcome
from hpsearch.training.data import prepare
from hpsearch.training.guard import seed_everything
from hpsearch.training.randomness import KeyedDropout, Purpose, permutation
from hpsearch.training.solo import train
from hpsearch.trial import Direction


def blobs(n: int = 203) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    targets = torch.arange(n) % 3
    return torch.randn(n, 5, generator=generator) + targets[:, None], targets


class Task(TrainingTask):
    epochs = 4
    batch_size = 16

    def model(self, params):
        layers = [nn.Linear(5, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(params["dropout"]), nn.Linear(12, 3)]
        return nn.Sequential(*layers)

    def data(self):
        return Data(*blobs())


class Plain(Task):
    """Without dropout, so that every param is one of the loop's."""

    def model(self, params):
        return nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 3))


class Regression(Plain):
    def model(self, params):
        return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1))

    def data(self):
        inputs, targets = blobs()
        return Data(inputs, targets.float()[:, None] + inputs[:, :1])


def orders(folder: Path, **changes) -> Orders:
    defaults = {
        "seed": 3, "study_seed": 0, "metric": "val_loss", "direction": Direction.MINIMIZE,
        "device": "cpu", "checkpoint_dir": folder, "until_epoch": None,
    }  # fmt: skip
    return Orders(**{**defaults, **changes})


def run(task, folder, params=None, **changes) -> tuple[Outcome, list]:
    told = []
    outcome = train(task, params or {}, orders(folder, **changes), lambda *said: told.append(said))
    return outcome, told


@pytest.mark.parametrize(
    ("params", "make"),
    [
        ({"optimizer": "sgd", "lr": 0.1}, lambda p: torch.optim.SGD(p, lr=0.1)),
        ({"momentum": 0.8, "lr": 0.05}, lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.8)),
        ({"optimizer": "adam", "lr": 0.01}, lambda p: torch.optim.Adam(p, lr=0.01)),
    ],
)
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_the_loop_equals_a_plain_torch_loop(tmp_path, params, make, dropout):
    class Double(Task):
        precision = "float64"

    task = Double()
    outcome, told = run(task, tmp_path, {"dropout": dropout, **params})

    parts = prepare(task, 0, "cpu")[0]
    seed_everything(3)
    model = task.model({"dropout": dropout}).double()
    optimizer, step = make(model.parameters()), 0
    for epoch in range(4):
        model.train()
        total = 0.0
        for rows in permutation(3, Purpose.ORDER, epoch, len(parts.train.targets)).split(16):
            with KeyedDropout(3, step):  # with p = 0 nothing happens; otherwise these are the injected masks
                loss = nn.functional.cross_entropy(model(parts.train.inputs[rows]), parts.train.targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            total += loss.item() * len(rows)
        model.eval()
        with torch.no_grad():
            output = model(parts.validation.inputs)
        val_loss = nn.functional.cross_entropy(output, parts.validation.targets).item()
        accuracy = (output.argmax(1) == parts.validation.targets).double().mean().item()
        metrics = told[epoch][1]
        assert metrics["train_loss"] == pytest.approx(total / len(parts.train.targets), abs=1e-10)
        assert metrics["val_loss"] == pytest.approx(val_loss, abs=1e-10)
        assert metrics["val_accuracy"] == pytest.approx(accuracy)
        assert metrics["lr"] == params["lr"]
    assert told[-1][2]["4"][1] == pytest.approx(torch.cat([p.flatten() for p in model[4].parameters()]).norm().item())
    assert told[-1][2]["4"][0] == pytest.approx(
        torch.cat([p.grad.flatten() for p in model[4].parameters()]).norm().item()
    )
    assert outcome.last_epoch == 3


def test_at_dropout_zero_no_mode_is_needed(tmp_path):
    """p = 0 is the identity: the same training as that of a model without dropout layers."""

    class Without(Task):
        def model(self, params):
            return nn.Sequential(*[m for m in Task.model(self, params) if not isinstance(m, nn.Dropout)])

    with_p0 = [metrics for _, metrics, _ in run(Task(), tmp_path, {"dropout": 0.0})[1]]
    assert with_p0 == [metrics for _, metrics, _ in run(Without(), tmp_path, {"dropout": 0.5})[1]]


def test_the_same_run_twice_is_equal_to_the_bit_and_seeds_matter(tmp_path):
    first, second = run(Task(), tmp_path, {"dropout": 0.3}), run(Task(), tmp_path, {"dropout": 0.3})
    assert first[1] == second[1]
    assert first[1] != run(Task(), tmp_path, {"dropout": 0.3}, seed=4)[1]
    assert first[1] != run(Task(), tmp_path, {"dropout": 0.3}, study_seed=1)[1]


def test_value_and_best_epoch_go_by_the_studys_metric(tmp_path):
    class Hot(Plain):
        epochs = 12

    outcome, told = run(Hot(), tmp_path, {"lr": 0.5}, metric="val_accuracy", direction=Direction.MAXIMIZE)
    accuracies = [metrics["val_accuracy"] for _, metrics, _ in told]
    assert outcome.value == max(accuracies)
    assert outcome.best_epoch == accuracies.index(max(accuracies))
    assert outcome.last_epoch == 11
    parts = prepare(Hot(), 0, "cpu")[0]
    right = outcome.models[0](parts.validation.inputs).argmax(1) == parts.validation.targets
    assert right.double().mean().item() == pytest.approx(outcome.value)


def test_early_stopping_waits_for_patience_and_keeps_the_best_weights(tmp_path):
    class Patient(Plain):
        epochs = 200
        patience = 3

    outcome, told = run(Patient(), tmp_path, {"lr": 0.3})
    losses = [metrics["val_loss"] for _, metrics, _ in told]
    assert outcome.last_epoch < 199
    assert outcome.best_epoch == losses.index(min(losses)) == outcome.last_epoch - 3
    parts = prepare(Patient(), 0, "cpu")[0]
    with torch.no_grad():
        loss = nn.functional.cross_entropy(outcome.models[0](parts.validation.inputs), parts.validation.targets)
    assert loss.item() == pytest.approx(min(losses))


@pytest.mark.parametrize(("lr", "task"), [(1e30, Plain()), (1e4, Regression())])
def test_a_diverged_run_says_at_which_epoch(tmp_path, lr, task):
    outcome, told = run(task, tmp_path, {"lr": lr})
    assert outcome.value is None
    assert outcome.reason in (f"nan loss at epoch {len(told)}", f"inf loss at epoch {len(told)}")
    assert outcome.last_epoch == len(told)
    assert all(math.isfinite(value) for _, metrics, _ in told for value in metrics.values())


@pytest.mark.parametrize("schedule", ["cosine", "plateau", "step", "constant"])
def test_schedules_by_name_reach_the_weights(tmp_path, schedule):
    rates = [metrics["lr"] for _, metrics, _ in run(Plain(), tmp_path, {"schedule": schedule, "lr": 0.1})[1]]
    assert rates[0] == 0.1
    assert (len(set(rates)) > 1) == (schedule == "cosine")


@pytest.mark.parametrize("task", [Task, Regression])
@pytest.mark.parametrize("until", [1, 3])
def test_a_paused_run_goes_on_exactly(tmp_path, task, until):
    class Long(task):
        epochs = 6
        schedule = Plateau(patience=0) if task is Regression else Cosine()
        optimizer = "adam"
        folds = 3 if task is Regression else None

    params = {"dropout": 0.3, "lr": 0.01} if task is Task else {"lr": 0.01}
    whole = run(Long(), tmp_path / "whole", params)
    folder = tmp_path / "parts"
    folder.mkdir()
    told = []
    with pytest.raises(Paused):
        train(Long(), params, orders(folder, until_epoch=until), lambda *said: told.append(said))
    assert len(told) == until
    with pytest.raises(Paused):
        train(Long(), params, orders(folder, until_epoch=until + 1), lambda *said: told.append(said))
    torch.manual_seed(77)
    outcome = train(Long(), params, orders(folder), lambda *said: told.append(said))
    assert told == whole[1]
    assert (outcome.value, outcome.best_epoch) == (whole[0].value, whole[0].best_epoch)
    assert not (folder / CHECKPOINT).exists()


def test_a_checkpoint_of_another_setting_is_not_taken_up(tmp_path):
    with pytest.raises(Paused):
        train(Plain(), {"lr": 0.1}, orders(tmp_path, until_epoch=2), lambda *said: None)
    assert run(Plain(), tmp_path, {"lr": 0.2})[1] == run(Plain(), tmp_path / "fresh", {"lr": 0.2})[1]


def test_until_epoch_at_the_end_completes(tmp_path):
    assert run(Plain(), tmp_path, until_epoch=4)[0].last_epoch == 3


def test_a_stop_passes(tmp_path):
    def tell(epoch, metrics, layers):
        raise Stopped

    with pytest.raises(Stopped):
        train(Plain(), {}, orders(tmp_path), tell)


def test_folds_report_the_mean_over_models_of_their_own(tmp_path):
    class Folded(Plain):
        folds = 4

    outcome, told = run(Folded(), tmp_path)
    assert len(outcome.models) == 4
    parts = prepare(Folded(), 0, "cpu")
    losses = [
        nn.functional.cross_entropy(model(part.validation.inputs), part.validation.targets).item()
        for model, part in zip(outcome.models, parts, strict=True)
    ]
    assert sum(losses) / 4 == pytest.approx(outcome.value)
    assert len({round(loss, 9) for loss in losses}) == 4
    assert outcome.value == min(metrics["val_loss"] for _, metrics, _ in told)


def test_a_trial_may_say_its_epochs(tmp_path):
    _, told = run(Plain(), tmp_path, {"epochs": 2, "schedule": "cosine"})
    assert [epoch for epoch, _, _ in told] == [0, 1]

    class Two(Plain):
        epochs = 2

    # The schedule's end too is where the trial's epochs end.
    assert run(Two(), tmp_path, {"schedule": "cosine"})[1] == told


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"optimizer": "adam", "momentum": 0.9}, "'momentum' is read by nobody: the optimizer is adam"),
        ({"optimizer": "sgd", "betas": "0.9, 0.99"}, "'betas' is read by nobody: the optimizer is sgd"),
        ({"droput": 0.5}, "'droput' is read by nobody"),
        ({"patience": 5}, "'patience' is read by nobody"),
        ({"optimizer": "adamm"}, "'adamm' is unknown; there are sgd"),
        ({"schedule": "cosin"}, "'cosin' is unknown; there are constant"),
        ({"batch_size": 0}, "batch_size: must be a whole number"),
        ({"epochs": 0}, "epochs: must be a whole number of at least 1"),
        ({"epochs": 2.5}, "epochs: must be a whole number of at least 1"),
        ({"lr": -0.1}, "lr: must be a number"),
        ({"lr": "fast"}, "lr: must be a number"),
        ({"optimizer": "adam", "betas": "0.9"}, "betas: must be two numbers"),
        ({"optimizer": "adam", "betas": "0.9, 1.0"}, "betas: must be at least 0 and below 1"),
    ],
)
def test_params_that_do_not_fit_are_named(tmp_path, params, words):
    with pytest.raises(ObjectiveError, match=words):
        run(Plain(), tmp_path, params)


@pytest.mark.parametrize(
    "read",
    [
        lambda p: p["a"],
        lambda p: p.get("a"),
        lambda p: dict(**p),
        lambda p: list(p.items()),
        lambda p: {**p},
    ],
)
def test_every_way_of_reading_a_param_counts(tmp_path, read):
    class Reader(Plain):
        def model(self, params):
            read(params)
            return Plain.model(self, params)

    run(Reader(), tmp_path, {"a": 1})


def test_the_model_does_not_see_the_loops_params(tmp_path):
    class Curious(Plain):
        def model(self, params):
            assert list(params) == ["width"]
            return nn.Linear(5, params["lr"])

    with pytest.raises(KeyError, match="goes to the training loop"):
        run(Curious(), tmp_path, {"lr": 0.1, "width": 3})


def test_an_unknown_metric_lists_those_there_are(tmp_path):
    with pytest.raises(ObjectiveError, match="reports no 'val_acc'") as caught:
        run(Plain(), tmp_path, metric="val_acc")
    assert caught.value.hint == "it reports train_loss, val_loss, val_accuracy, lr"


def test_label_smoothing_is_torchs_and_leaves_validation_alone(tmp_path):
    smooth, plain = (
        run(Plain(), tmp_path, {"label_smoothing": 0.2, "lr": 0.0})[1],
        run(Plain(), tmp_path, {"lr": 0.0})[1],
    )
    assert smooth[0][1]["val_loss"] == plain[0][1]["val_loss"]
    parts = prepare(Plain(), 0, "cpu")[0]
    seed_everything(3)
    output = Plain().model({})(parts.train.inputs)
    expected = nn.functional.cross_entropy(output, parts.train.targets, label_smoothing=0.2).item()
    assert smooth[0][1]["train_loss"] == pytest.approx(expected, rel=1e-5)


def test_label_smoothing_that_nobody_reads(tmp_path):
    class Own(Plain):
        def loss(self, output, target):
            return nn.functional.nll_loss(output.log_softmax(1), target)

    for task in (Own(), Regression()):
        with pytest.raises(ObjectiveError, match="label_smoothing is read by nobody"):
            run(task, tmp_path, {"label_smoothing": 0.1})


def test_initialisation(tmp_path):
    class Big(Plain):
        epochs = 1
        init = "kaiming"

        def model(self, params):
            return nn.Sequential(nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 512, 5), nn.Flatten(), nn.Linear(512, 3))

    def deviations(how):
        Big.init = how
        model = run(Big(), tmp_path, {"lr": 0.0})[0].models[0]
        assert not model[1].bias.any()
        return model[1].weight.std().item(), model[3].weight.std().item()

    assert deviations("kaiming") == pytest.approx((math.sqrt(2 / 5), math.sqrt(2 / 512)), rel=0.1)
    # Glorot's fan-out of a convolution counts its kernel: 5 * 512.
    assert deviations("xavier") == pytest.approx((math.sqrt(2 / (5 + 2560)), math.sqrt(2 / 515)), rel=0.1)
    with pytest.raises(ObjectiveError, match="init: must be kaiming"):
        deviations("he")


def test_augmentation_changes_training_alone_and_repeats(tmp_path):
    class Noisy(Plain):
        def augment(self, batch, key):
            return batch + 0.5 * key.uniform(*batch.shape)

    noisy = run(Noisy(), tmp_path, {"lr": 0.0})[1]
    plain = run(Plain(), tmp_path, {"lr": 0.0})[1]
    assert noisy == run(Noisy(), tmp_path, {"lr": 0.0})[1]
    assert noisy[0][1]["val_loss"] == plain[0][1]["val_loss"]
    assert noisy[0][1]["train_loss"] != plain[0][1]["train_loss"]
    assert noisy[0][1]["train_loss"] != noisy[1][1]["train_loss"]


def test_a_lazy_model_and_an_unused_parameter(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.spare = nn.LazyLinear(3), nn.Linear(2, 2)

        def forward(self, x):
            return self.first(x)

    class Lazy(Plain):
        def model(self, params):
            return Net()

    outcome, told = run(Lazy(), tmp_path)
    assert outcome.models[0].first.weight.shape == (3, 5)
    assert told[0][2]["spare"][0] == 0.0


def test_wrong_models_and_losses_are_named(tmp_path):
    class NoModel(Plain):
        def model(self, params):
            return None

    class Rows(Plain):
        def loss(self, output, target):
            return nn.functional.cross_entropy(output, target, reduction="none")

    class Nothing(Plain):
        def model(self, params):
            return nn.Flatten()

    for task, words in [
        (NoModel(), "not NoneType"),
        (Rows(), r"not a tensor of shape \(16,\)"),
        (Nothing(), "no train"),
    ]:
        with pytest.raises(ObjectiveError, match=words):
            run(task, tmp_path)


def test_what_was_saved_later_than_the_record_knows_is_not_gone_on_from(tmp_path):
    """A coordinator that died before it recorded the pause, or a deleted study of the same name."""
    with pytest.raises(Paused):
        run(Task(), tmp_path, {"dropout": 0.1}, until_epoch=2)
    assert next(epoch for epoch, *_ in run(Task(), tmp_path, {"dropout": 0.1}, from_epoch=1)[1]) == 0
    with pytest.raises(Paused):
        run(Task(), tmp_path, {"dropout": 0.1}, until_epoch=2)
    assert next(epoch for epoch, *_ in run(Task(), tmp_path, {"dropout": 0.1}, from_epoch=2)[1]) == 2
