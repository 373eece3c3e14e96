"""Models as users write them, in lanes and alone: the same curves, or alone with the reason. Never wrong or a crash."""

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hpsearch.executor import Assignment
from hpsearch.objective import ObjectiveAddress, Workload
from hpsearch.training import step
from hpsearch.training.groups import Trainer
from hpsearch.training.worker import execute
from hpsearch.trial import EpochReport, Finished, Grouped, RunKey

CORPUS = Path(__file__).parents[1] / "fusing_corpus"
#: four trials, one of them with two seeds
RUNS = [RunKey(0, 1), RunKey(0, 2), RunKey(1, 1), RunKey(2, 2), RunKey(3, 3)]
LOOP = {"lr": [0.05, 0.1, 0.02, 0.2], "weight_decay": [0.0, 1e-3, 1e-2, 0.0]}
DROPOUT = {"dropout": [0.3, 0.0, 0.5, 0.1]}
SCALE = {"scale": [0.5, 1.0, 1.5, 2.0]}
EPS = {"eps": [1e-5, 1e-3, 1e-1, 1e-2]}
SLOPE = {"slope": [0.01, 0.1, 0.2, 0.3]}

DATA_DEPENDENT = "reads numbers out of tensors"
RANDOM = "draws random numbers"


@dataclass(frozen=True)
class Case:
    """A task of the corpus, the params it reads (a value a trial), and what is to become of its runs."""

    task: str
    params: dict = field(default_factory=dict)
    #: words of the reason, where its runs train alone
    solo: str = ""
    #: how many groups are vmapped; None: one, or none where its runs train alone
    groups: int | None = None
    #: it shows only while they train: the epoch is undone
    late: bool = False


CASES = [
    Case("mlp.py:ModuleDropout", DROPOUT),
    Case("mlp.py:FunctionalDropout", DROPOUT),
    Case("mlp.py:DropoutOnlyIfAny", DROPOUT, groups=4),
    Case("mlp.py:DropoutInValidation", {"dropout": [0.3, 0.2, 0.5, 0.1]}, solo=RANDOM),
    Case("mlp.py:AlphaDropout", DROPOUT, groups=4),
    Case("mlp.py:Width", {"width": [8, 16, 8, 12]}, groups=3),
    Case("mlp.py:Twice", DROPOUT),
    Case("convolutions.py:BatchNormCNN", DROPOUT),
    Case("convolutions.py:Residual"),
    Case("convolutions.py:Conv1d"),
    Case("normalisation.py:BatchNormNumbers", {**EPS, "bn_momentum": [0.1, 0.2, 0.05, 0.5]}),
    Case("normalisation.py:CumulativeBatchNorm", solo=DATA_DEPENDENT),
    Case("normalisation.py:WithoutStatistics", EPS),
    Case("normalisation.py:LayerAndGroupNorm", EPS),
    Case("attention.py:ByHand", DROPOUT),
    Case("attention.py:TorchLayer"),
    Case("attention.py:TorchLayerWithDropout", DROPOUT, solo=RANDOM, groups=1),
    Case("attention.py:ScaledDotProduct"),
    Case("attention.py:ScaledDotProductWithDropout", DROPOUT, solo=RANDOM, groups=1),
    Case("text.py:Embedding"),
    Case("text.py:Padding"),
    Case("text.py:SparseEmbedding", solo="sparse"),
    Case("text.py:MaxNorm", solo="in place"),
    Case("text.py:Bag"),
    Case("text.py:Tied", DROPOUT),
    Case("structure.py:Containers"),
    Case("structure.py:Frozen"),
    Case("structure.py:FrozenStatistics", DROPOUT),
    Case("structure.py:Unused"),
    Case("structure.py:Lazy"),
    Case("structure.py:Shared"),
    Case("structure.py:ExtraState"),
    Case("structure.py:Compiled", solo="compiled already"),
    Case("structure.py:Scripted", solo="ScriptModule"),
    Case("structure.py:ListedParameter", solo="keeps a parameter or buffer beside torch"),
    Case("structure.py:DetachedState", solo="other tensors than its parameters"),
    Case("structure.py:PlainState", solo="state_dict"),
    Case("slopes.py:Slopes", {**SLOPE, "alpha": [0.5, 1.0, 1.5, 2.0]}),
    Case("slopes.py:FunctionalSlope", SLOPE),
    Case("slopes.py:Softplus", SLOPE, groups=4),
    Case("slopes.py:Learned", SLOPE),
    Case("slopes.py:Randomised", solo=RANDOM),
    Case("slopes.py:FloatAttribute", SCALE),
    Case("slopes.py:FloatInPython", SCALE, groups=4),
    Case("slopes.py:FloatMadeATensor", SCALE, groups=4),
    Case("attributes.py:ActivationName", {"activation": ["relu", "tanh", "relu", "gelu"]}, groups=3),
    Case("attributes.py:Skip", {"use_skip": [True, False, True, False]}, groups=2),
    Case("attributes.py:Config", SCALE, groups=4),
    Case("attributes.py:TensorAttribute", {"width": [8, 4, 8, 6]}, groups=3),
    Case("attributes.py:Closure", SCALE, groups=4),
    Case("attributes.py:Repeats", {"width": [1, 2, 1, 3]}, groups=3),
    Case("attributes.py:WholeParams", SCALE, groups=4),
    Case("attributes.py:Patched", SCALE, groups=4),
    Case("attributes.py:FunctionAttribute", SCALE, groups=4),
    Case("attributes.py:Slot", SCALE, groups=4),
    Case("attributes.py:Clerk"),
    Case("hooks.py:ForwardHook"),
    Case("hooks.py:HookWithParam", SCALE, groups=4),
    Case("hooks.py:CountingHook", solo="changes"),
    Case("hooks.py:LateHook", solo="changes"),
    Case("hooks.py:GradientHook", solo="gradient"),
    Case("hooks.py:ActivationHook", solo="gradient"),
    Case("hooks.py:BackwardHook", solo="gradient"),
    Case("hooks.py:WeightClamped", solo="in place"),
    Case("hooks.py:WeightReplaced", solo=".data"),
    Case("hooks.py:LateClamp", solo="gradient"),
    Case("hooks.py:AccumulateHook", solo="gradient"),
    Case("hooks.py:FaintHook", solo="gradient"),
    Case("hooks.py:TellsByGradient"),
    Case("buffers.py:InPlace"),
    Case("buffers.py:Assigned"),
    Case("buffers.py:ChangedInValidation"),
    Case("buffers.py:IndexTable"),
    Case("buffers.py:PythonCounter", solo="changes attributes of the model (n)"),
    Case("buffers.py:MovingAverage", {"decay": [0.9, 0.5, 0.99, 0.0]}),
    Case("buffers.py:LastOutput", solo="changes attributes of the model (seen)"),
    Case("buffers.py:FilledInForward", solo="fills buffers that are None before (mean)"),
    Case("buffers.py:WholeNumber", solo="another type"),
    Case("buffers.py:LargestBatch", solo="changes attributes of the model (most)"),
    Case("data_dependent.py:Item", solo=DATA_DEPENDENT),
    Case("data_dependent.py:Branch", solo=DATA_DEPENDENT),
    Case("data_dependent.py:Shape"),
    Case("data_dependent.py:Mask", solo="depends on data"),
    Case("data_dependent.py:TopK"),
    Case("data_dependent.py:ToList", solo=DATA_DEPENDENT),
    Case("data_dependent.py:Numpy", solo=DATA_DEPENDENT),
    Case("data_dependent.py:Assertion", solo=DATA_DEPENDENT),
    Case("functions.py:OldFunction", solo="autograd"),
    Case("functions.py:NewFunction"),
    Case("functions.py:Quantised"),
    Case("functions.py:Checkpointing", solo="checkpoint"),
    Case("functions.py:NoGrad"),
    Case("functions.py:GradientInForward", solo="requires_grad_"),
    Case("functions.py:Derivatives"),
    Case("recurrent.py:LSTM", solo="LSTM"),
    Case("recurrent.py:GRU", solo="GRU"),
    Case("recurrent.py:GRUCell"),
    Case("recurrent.py:ByHand"),
    Case("randomness.py:Noise", solo=RANDOM),
    Case("randomness.py:NoiseLike", solo=RANDOM),
    Case("randomness.py:NoiseInPlace", solo=RANDOM),
    Case("randomness.py:Gumbel", solo=RANDOM),
    Case("randomness.py:PythonRandom", solo=RANDOM),
    Case("randomness.py:NumpyRandom", solo=RANDOM),
    Case("randomness.py:SeldomRandom", solo=RANDOM),
    Case("randomness.py:Factories", SCALE),
    Case("randomness.py:OwnGenerator", solo="Generator"),
    Case("tensors.py:ByHand", SCALE),
    Case("tensors.py:InPlace"),
    Case("tensors.py:FillsZeros", solo="in place"),
    Case("tensors.py:Fourier"),
    Case("tensors.py:Casts"),
    Case("tensors.py:WeightNorm"),
    Case("tensors.py:SpectralNorm"),
    Case("tensors.py:Orthogonal"),
    Case("tensors.py:Einsum"),
    Case("tasks.py:WeightedLoss"),
    Case("tasks.py:LossModule"),
    Case("tasks.py:FocalLoss"),
    Case("tasks.py:HardExamples"),
    Case("tasks.py:NumpyMetrics"),
    Case("tasks.py:Augmented", DROPOUT),
    Case("tasks.py:Flipped"),
    Case("tasks.py:RandomAugment", solo=RANDOM),
    Case("tasks.py:Regression", DROPOUT),
    Case("tasks.py:TwoHeads"),
    Case("tasks.py:DictOutput"),
    Case("tasks.py:Probabilities"),
    Case("tasks.py:ClassAttribute", SCALE, solo="what all runs share (Scaled.scale)"),
    Case("tasks.py:SharedDict", SCALE, solo="what all runs share (SharedDict.config)"),
    Case("tasks.py:GlobalNumber", SCALE, solo="what all runs share (tasks.GAMMA)"),
    Case("tasks.py:EnvironmentVariable", SCALE, solo="what all runs share (os.environ)"),
    Case("tasks.py:Cached"),
    Case("tasks.py:NoneBeside", solo="more than tensors"),
    Case("tasks.py:Annealed", solo="what all runs share, and changes it (Annealed.step)"),
    Case("tasks.py:GlobalList", solo="what all runs share, and changes it (tasks.SEEN)"),
    Case("tasks.py:Namespace", SCALE, solo="what all runs share (Namespace.options)"),
    Case("tasks.py:DefaultArgument", SCALE, solo="what all runs share (scaled.__defaults__)"),
    Case("tasks.py:KeepsModel", solo="keeps what it makes"),
    Case("tasks.py:Scratch", solo="changes it (Scratch.ones)", groups=1, late=True),
    Case("tasks.py:ConditionalMetric", solo="depend on data", groups=1, late=True),
    Case(
        "tasks.py:Searched",
        {**DROPOUT, "label_smoothing": [0.1, 0.2, 0.3, 0.05], "clip": [0.1, 1.0, 0.5, 10.0], "l1": [0, 1e-3, 1e-2, 0]},
    ),
]


def workload(case, folder, lanes):
    address = ObjectiveAddress(*case.task.split(":"), CORPUS)
    return Workload(
        study="corpus",
        objective=address,
        metric="val_loss",
        direction="minimize",
        seed=0,
        lanes=lanes,
        files=folder,
    )


def assignments(case):
    params = {**LOOP, **case.params}
    return [
        Assignment(run=run, params={name: values[run.trial] for name, values in params.items()}, attempt=1)
        for run in RUNS
    ]


def alone(case, folder, runs=RUNS):
    """The reports of each run, trained by the ordinary loop."""
    reports = []
    for assignment in assignments(case)[: len(runs)]:
        execute(assignment, workload(case, folder, 1), send=reports.append, stopped=lambda: False, device="cpu")
    return reports


def together(case, folder, lanes):
    """The reports of all runs, of which so many are in hand at a time."""
    reports, waiting = [], deque(assignments(case))

    def more():
        return [waiting.popleft() for _ in range(min(len(waiting), 2))]

    first = [waiting.popleft() for _ in range(lanes)]
    Trainer("cpu").train(
        first, workload(case, folder, lanes), send=reports.extend, stopped=lambda run: False, more=more
    )
    return reports


def curves(reports):
    """Run -> epoch -> every number of the epoch, layers' norms too."""
    found = {run: {} for run in RUNS}
    for report in reports:
        if isinstance(report, EpochReport):
            norms = {f"{name}.{k}": norm for name, pair in report.layers.items() for k, norm in enumerate(pair)}
            assert report.epoch not in found[report.run]
            found[report.run][report.epoch] = {**report.metrics, **norms}
    return found


def endings(reports):
    """Run -> how it ended; values apart."""
    last = [report for report in reports if isinstance(report, Finished)]
    assert sorted(report.run for report in last) == sorted(RUNS)
    ends = {r.run: (r.state, r.reason, r.best_epoch, r.last_epoch, r.error, r.attempt) for r in last}
    return ends, {r.run: r.value for r in last}


def assert_same(reports, expected):
    ends, values = endings(reports)
    other_ends, other_values = endings(expected)
    assert ends == other_ends
    mine, theirs = curves(reports), curves(expected)
    for run in RUNS:
        assert list(mine[run]) == list(theirs[run])
        for epoch, numbers in theirs[run].items():
            assert mine[run][epoch] == pytest.approx(numbers, rel=1e-8, abs=1e-10), (run, epoch)
        assert values[run] == pytest.approx(other_values[run], rel=1e-8)


# A user's worker does not take warnings for errors: that vmap goes one lane after the other, that torch.jit is old.
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("case", CASES, ids=[case.task.replace(".py:", "-") for case in CASES])
def test_a_run_in_a_lane_is_the_run_alone(case, tmp_path, monkeypatch):
    expected = alone(case, tmp_path / "alone")
    assert not [report.error for report in expected if isinstance(report, Finished) and report.error]
    again = curves(alone(case, tmp_path / "again", RUNS[:1]))
    assert again[RUNS[0]] == curves(expected)[RUNS[0]]

    reports = together(case, tmp_path / "together", len(RUNS))
    assert_same(reports, expected)
    groups = [report for report in reports if isinstance(report, Grouped)]
    fused = [report for report in groups if report.engine == "vmap"]
    assert [group.reason for group in fused] == [""] * (not case.solo if case.groups is None else case.groups)
    reasons = {group.reason for group in groups if group not in fused}
    assert len(reasons) == bool(case.solo)
    assert all(case.solo in reason for reason in reasons), reasons
    assert sorted(run for group in groups for run in group.runs) == sorted(RUNS * (1 + case.late))

    # Two lanes for five runs: lanes are freed and filled again; and every step that can be is recorded.
    if fused or "share" in case.solo:
        monkeypatch.setattr(step, "TAPED_AFTER", 0)
        assert_same(together(case, tmp_path / "few", 2), expected)
