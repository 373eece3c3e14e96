"""Mixed precision: what is bfloat16 and what stays float32, alone and in lanes."""

import pytest
import torch
from torch import nn
from torch.func import vmap
from torch.nn import functional

from hpsearch.errors import ObjectiveError
from hpsearch.objective import TEXTBOOK
from hpsearch.training.data import prepare
from hpsearch.training.guard import seed_everything
from hpsearch.training.lifted import LaneFunctions
from hpsearch.training.precision import LaneAutocast
from hpsearch.training.randomness import Purpose, permutation
from hpsearch.training.recipe import resolve
from hpsearch.trial import State
from tests.training.fusing import (
    CNN16,
    MLP,
    MLP16,
    Small,
    Transformer16,
    Words16,
    alone,
    assert_close,
    assignments,
    is_fused,
    key,
    together,
)
from tests.training.test_fused import RATES_OF_DROPOUT, Masked


@pytest.mark.parametrize("value", ["float16", "bf16", torch.bfloat16, None])
def test_another_precision_is_refused_with_those_there_are(tmp_path, value):
    class Other(MLP):
        precision = value

    for refused in (lambda: resolve(Other(), {}), lambda: prepare(Other(), 0, "cpu")):
        with pytest.raises(ObjectiveError) as error:
            refused()
        assert str(error.value).startswith(f"precision: {value!r} is unknown; there are float32, float64, bfloat16")


class Half(MLP):
    precision = "float16"


def test_and_by_a_worker_before_anything_is_trained(tmp_path):
    told = together(Half, tmp_path, assignments([{"lr": 0.1}] * 2))
    for k in range(2):
        last = told.last(key(k))
        assert (last.state, last.reason, told.curve(key(k))) == (State.FAILED, "study", [])
        assert "precision: 'float16' is unknown" in last.error


def test_the_loop_equals_a_plain_torch_loop_under_autocast_to_the_bit(tmp_path):
    """Also after updates: nothing that was cast is kept from step to step."""
    run = assignments([{"optimizer": "sgd", "lr": 0.1, "dropout": 0.0}], until=3)[0]
    told = alone(MLP16, tmp_path, [run])

    parts = prepare(MLP16(), 0, "cpu")[0]
    seed_everything(run.run.seed)
    model = MLP16().model({"dropout": 0.0})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def output_of(inputs):
        with torch.autocast("cpu", torch.bfloat16):
            return model(inputs).float()

    for epoch in range(3):
        for rows in permutation(run.run.seed, Purpose.ORDER, epoch, len(parts.train.targets)).split(16):
            optimizer.zero_grad()
            functional.cross_entropy(output_of(parts.train.inputs[rows]), parts.train.targets[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            validation = functional.cross_entropy(output_of(parts.validation.inputs), parts.validation.targets)
        assert told.curve(run.run)[epoch]["val_loss"] == validation.item()
    for name, weight in model.state_dict().items():
        assert torch.equal(told.checkpoint(run.run)["model"][name], weight)


class Looking(MLP16):
    """It raises where a type is not what it is to be."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.last = nn.Linear(5, 8, bias=False), nn.BatchNorm1d(8), nn.Linear(8, 3)

        def forward(self, x):
            assert (x.dtype, self.first.weight.dtype) == (torch.float32, torch.float32)
            assert torch.is_autocast_enabled("cpu")
            assert not torch.is_autocast_cache_enabled()
            h = self.first(x)
            y = self.norm(h)
            z = self.last(y.relu())
            assert {h.dtype, y.dtype, z.dtype} == {torch.bfloat16}
            return {"classes": z, "all": [z]}

    def model(self, params):
        return self.Net()

    def loss(self, output, target):
        assert not torch.is_autocast_enabled("cpu")
        assert (output["classes"].dtype, output["all"][0].dtype) == (torch.float32, torch.float32)
        return functional.cross_entropy(output["classes"], target)

    def metrics(self, output, target):
        assert not torch.is_autocast_enabled("cpu")
        return {"accuracy": (output["classes"].argmax(-1) == target).double().mean()}


def test_the_forward_computes_in_bfloat16_and_all_else_in_float32(tmp_path):
    runs = assignments([{"lr": 0.05 * (k + 1), "optimizer": "adam"} for k in range(3)], until=2)
    lanes, solo = together(Looking, tmp_path / "lanes", runs), alone(Looking, tmp_path / "solo", runs)
    assert is_fused(lanes, 3), lanes.grouped
    for told in (lanes, solo):
        for run in runs:
            state = told.checkpoint(run.run)
            tensors = [t for part in ("model", "buffers", "best") for t in state[part].values()]
            assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.float32}
            assert told.curve(run.run)[0] != told.curve(run.run)[1]


@pytest.mark.parametrize("task", [MLP16, CNN16, Transformer16, Words16])
def test_short_trainings_in_lanes_and_alone(tmp_path, task):
    """The rest of a lane's sameness is in test_fused and test_isolation, beside float32 and float64."""
    settings = [{"optimizer": name, "lr": TEXTBOOK[name]["lr"], "dropout": 0.1 * k, "weight_decay": 0.01 * k}
                for name in ("momentum", "adam") for k in range(3)]  # fmt: skip
    runs = assignments(settings)
    lanes, solo = together(task, tmp_path / "lanes", runs), alone(task, tmp_path / "solo", runs)
    assert is_fused(lanes)
    for run in runs:
        for ours, theirs in zip(lanes.curve(run.run), solo.curve(run.run), strict=True):
            losses = ("train_loss", "val_loss")
            assert_close({n: ours[n] for n in losses}, {n: theirs[n] for n in losses}, 1e-2)
        assert solo.last(run.run).engine == "solo, cpu, bfloat16"
        assert lanes.last(run.run).engine == "vmap, cpu, 3 lanes, bfloat16"


class Masked16(Masked):
    """The mask of a bfloat16 tensor."""

    precision = "bfloat16"

    class Net(Masked.Net):
        def forward(self, x):
            return self.drop((self.weight[: len(x)] * x[:, None]).bfloat16())

    def model(self, params):
        return self.Net(params["p"])


def test_masks_are_those_of_any_other_precision(tmp_path):
    runs = assignments([{"lr": 0.0, "p": p} for p in RATES_OF_DROPOUT], until=1)
    lanes, solo = together(Masked16, tmp_path / "lanes", runs), alone(Masked16, tmp_path / "solo", runs)
    double = alone(Masked, tmp_path / "double", runs)
    assert is_fused(lanes, 7)
    for run in runs:
        ours, theirs, wide = (told.checkpoint(run.run)["buffers"]["velocity"] for told in (lanes, solo, double))
        assert torch.equal(ours, theirs)
        assert torch.equal(ours != 0, wide != 0)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X, W, B = random(3, 8, 6), random(3, 6, 6, seed=1), random(3, 6, seed=2)
C, CW = random(3, 4, 6, 8, 8, seed=3), random(3, 6, 6, 3, 3, seed=4)
Y, S = torch.arange(8) % 6, random(5, 6, 9, seed=5)
FUNCTIONS = {
    "linear": lambda x, w, b, c, v: functional.linear(x, w, b),
    "linear without bias": lambda x, w, b, c, v: functional.linear(input=x, weight=w),
    "linear of a vector": lambda x, w, b, c, v: functional.linear(x[0], w, b),
    "matmul": lambda x, w, b, c, v: x @ w,
    "einsum": lambda x, w, b, c, v: torch.einsum("bi,oi->bo", x, w),
    "addmm": lambda x, w, b, c, v: torch.addmm(b, x, w),
    "baddbmm": lambda x, w, b, c, v: torch.baddbmm(b, x[None], w[None]),
    "conv2d": lambda x, w, b, c, v: functional.conv2d(c, v, b),
    "conv2d in groups": lambda x, w, b, c, v: functional.conv2d(c, v[:, :3], b, 2, "valid", 1, 2),
    "conv1d of shared inputs": lambda x, w, b, c, v: functional.conv1d(S, v[..., 0], b, padding=1),
    "conv_transpose2d": lambda x, w, b, c, v: functional.conv_transpose2d(c, v, b),
    "batch_norm": lambda x, w, b, c, v: functional.batch_norm(functional.conv2d(c, v), None, None, b, b, True),
    "group_norm": lambda x, w, b, c, v: functional.group_norm(functional.conv2d(c, v), 2, b, b),
    "layer_norm": lambda x, w, b, c, v: functional.layer_norm(functional.linear(x, w), [6], b, b),
    "rms_norm": lambda x, w, b, c, v: functional.rms_norm(functional.linear(x, w), [6], b),
    "softmax": lambda x, w, b, c, v: functional.linear(x, w, b).softmax(-1),
    "gelu": lambda x, w, b, c, v: functional.gelu(functional.linear(x, w, b)),
    "prelu": lambda x, w, b, c, v: functional.prelu(x, b[:1]),
    "attention": lambda x, w, b, c, v: functional.scaled_dot_product_attention(x[None], x[None], x[None]),
    "cross_entropy": lambda x, w, b, c, v: functional.cross_entropy(functional.linear(x, w, b), Y),
    "mse_loss": lambda x, w, b, c, v: functional.mse_loss(functional.linear(x, w, b), torch.zeros(8, 6)),
    "prod": lambda x, w, b, c, v: functional.linear(x, w, b).prod(-1),
    "embedding": lambda x, w, b, c, v: functional.embedding(Y, w),
}


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # rms_norm, alone
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_lanes_functions_take_and_give_the_types_that_they_would_alone(name):
    """Values and gradients to two roundings of bfloat16, the gradients computed outside of autocast."""
    function = FUNCTIONS[name]
    leaves = [leaf.clone().requires_grad_() for leaf in (X, W, B, C, CW)]

    def one(*leaves):
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            return function(*leaves)

    def lane(*leaves):
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False), LaneFunctions(), LaneAutocast("cpu"):
            return function(*leaves)

    ours = vmap(lane)(*leaves)
    theirs = torch.stack([one(*[leaf[k] for leaf in leaves]) for k in range(3)])
    assert ours.dtype == theirs.dtype
    assert_near(ours, theirs)
    weights = random(*ours.shape, seed=9)
    got = torch.autograd.grad((ours.float() * weights).sum(), leaves, allow_unused=True)
    wanted = torch.autograd.grad((theirs.float() * weights).sum(), leaves, allow_unused=True)
    for a, b in zip(got, wanted, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == torch.float32
            assert_near(a, b)


def assert_near(a, b):
    a, b = a.detach(), b.detach()
    assert float((a.double() - b.double()).abs().max()) <= 2**-7 * float(b.double().abs().max())


@pytest.mark.parametrize("name", ["leaky_relu", "elu", "batch_norm", "layer_norm", "group_norm", "rms_norm"])
def test_numbers_in_which_lanes_differ_are_not_rounded_to_bfloat16(name):
    numbers = torch.tensor([0.013, 0.1037, 0.307], dtype=torch.float64)
    functions = {
        "leaky_relu": lambda x, n: functional.leaky_relu(x, n),
        "elu": lambda x, n: functional.elu(x, n),
        "batch_norm": lambda x, n: functional.batch_norm(x, None, None, None, None, True, 0.1, n),
        "layer_norm": lambda x, n: functional.layer_norm(x, [6], None, None, n),
        "group_norm": lambda x, n: functional.group_norm(x, 2, None, None, n),
        "rms_norm": lambda x, n: functional.rms_norm(x, [6], None, n),
    }
    function, x = functions[name], X.bfloat16()

    def lane(x, n):
        with LaneFunctions(), LaneAutocast("cpu"):
            return function(x, n)

    ours = vmap(lane)(x, numbers)
    assert ours.dtype == torch.bfloat16
    for k in range(3):
        exact = function(x[k].double(), float(numbers[k]))
        # One rounding; elu makes two.
        allowed = (2 if name == "elu" else 1) * 2.0**-8 * exact.abs() * (1 + 1e-3) + 1e-7
        assert ((ours[k].double() - exact).abs() <= allowed).all()


class Momenta(Small):
    """Lanes that differ in BatchNorm's momentum."""

    precision = "bfloat16"

    def model(self, params):
        return nn.Sequential(
            nn.Linear(5, 8, bias=False), nn.BatchNorm1d(8, momentum=params["rate"]), nn.ReLU(), nn.Linear(8, 3)
        )

    def data(self):
        return MLP.data(self)


def test_running_statistics_of_lanes_with_momenta_of_their_own_are_float32(tmp_path):
    runs = assignments([{"lr": 0.01, "rate": 0.1 + 0.0137 * k} for k in range(3)], until=3)
    lanes, solo = together(Momenta, tmp_path / "lanes", runs), alone(Momenta, tmp_path / "solo", runs)
    assert is_fused(lanes, 3)
    for run in runs:
        ours, theirs = (told.checkpoint(run.run)["model"] for told in (lanes, solo))
        for name in ("1.running_mean", "1.running_var"):
            assert ours[name].dtype == torch.float32
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-4)
