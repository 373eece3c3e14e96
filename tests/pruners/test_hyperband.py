import pytest

from hpsearch.pruner import Bracket
from hpsearch.pruners.hyperband import Hyperband
from tests.conformance.pruners import PrunerSuite, rung, train


class TestThirds(PrunerSuite):
    @pytest.fixture
    def pruner(self):
        return Hyperband()


class TestHalvesFromTheFourthEpoch(PrunerSuite):
    @pytest.fixture
    def pruner(self):
        return Hyperband(eta=2, min_epochs=4)


#: table 1 of Li et al. (2018), R = 81, eta = 3: (n_i, r_i) for i = 0, 1 .., from bracket s = 4 to s = 0
TABLE = [
    [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
    [(27, 3), (9, 9), (3, 27), (1, 81)],
    [(9, 9), (3, 27), (1, 81)],
    [(6, 27), (2, 81)],
    [(5, 81)],
]


def test_the_brackets_of_the_papers_table():
    """Its rungs; and its numbers, each bracket started with as many trials as in the table."""
    brackets = Hyperband().brackets(143, 81)
    assert [(*b.rungs, 81) for b in brackets] == [tuple(r for _, r in column) for column in TABLE]
    for bracket, column in zip(brackets, TABLE, strict=True):
        alive = [float(k) for k in range(column[0][0])]
        for (n, epoch), then in zip(column, [*(n for n, _ in column[1:]), None], strict=True):
            assert len(alive) == n
            if then is not None:
                assert epoch in bracket.rungs
                verdict = Hyperband().decide(rung(dict(enumerate([v] for v in alive)), epoch=epoch))
                alive = [alive[k] for k in sorted(verdict.go)]


@pytest.mark.parametrize(
    ("trials", "epochs", "eta", "sizes"),
    [
        # ceil((s_max + 1) * eta**s / (s + 1)), as in algorithm 1
        (143, 81, 3, [81, 34, 15, 8, 5]),
        (49, 27, 3, [27, 12, 6, 4]),
        (378, 256, 4, [256, 80, 27, 10, 5]),
    ],
)
def test_a_cohort_of_the_algorithms_size_is_divided_as_in_the_algorithm(trials, epochs, eta, sizes):
    most = len(sizes) - 1
    assert sizes == [-(-(most + 1) * eta**s // (s + 1)) for s in range(most, -1, -1)]
    assert [b.trials for b in Hyperband(eta=eta).brackets(trials, epochs)] == sizes


def test_a_cohort_of_any_size_keeps_the_proportions():
    shares = [eta_s / s for eta_s, s in ((81, 5), (27, 4), (9, 3), (3, 2), (1, 1))]
    for trials in range(1, 400):
        exact = [trials * share / sum(shares) for share in shares]
        sizes = [b.trials for b in Hyperband().brackets(trials, 81)]
        assert sum(sizes) == trials
        # Brackets without trials are left out, and they are the least of the shares.
        padded = sizes + [0] * (5 - len(sizes))
        assert all(abs(size - share) < 1 for size, share in zip(padded, exact, strict=True))
        assert sizes == sorted(sizes, reverse=True)


def test_each_bracket_costs_about_the_same_counted_as_in_the_paper():
    """B = (s_max + 1) * R = 405 epochs a bracket, where every stage starts from nothing."""
    _, came = train(Hyperband(), 143, 81, lambda k, epoch: float(k))
    costs = [sum(n * r for n, r in zip(counts, (*b.rungs, 81), strict=True)) for b, counts in came]
    assert costs[0] == 405
    assert all(0.6 * 405 <= cost <= 1.7 * 405 for cost in costs)
    # Ours go on from where they waited, which is less.
    trained, _ = train(Hyperband(), 143, 81, lambda k, epoch: float(k))
    assert sum(trained.values()) < sum(costs)


@pytest.mark.parametrize(
    ("pruner", "trials", "epochs", "brackets"),
    [
        (Hyperband(), 22, 20, [(12, (2, 6)), (6, (6,)), (4, ())]),
        (Hyperband(max_epochs=9), 17, 100, [(9, (1, 3)), (5, (3,)), (3, ())]),
        (Hyperband(max_epochs=100), 17, 9, [(9, (1, 3)), (5, (3,)), (3, ())]),
        (Hyperband(min_epochs=3), 17, 27, [(9, (3, 9)), (5, (9,)), (3, ())]),
        (Hyperband(), 3, 81, [(2, (1,)), (1, ())]),
        (Hyperband(), 1, 81, [(1, ())]),
        (Hyperband(), 8, 2, [(8, ())]),
        (Hyperband(), 8, None, [(8, ())]),
    ],
)
def test_the_brackets(pruner, trials, epochs, brackets):
    assert pruner.brackets(trials, epochs) == [Bracket(trials=n, rungs=rungs) for n, rungs in brackets]


def test_problems():
    (problem,) = Hyperband().problems(None)
    assert (problem.field, "max_epochs: 20" in problem.hint) == ("pruner.max_epochs", True)
    assert Hyperband(max_epochs=3).problems(None) == []
    (problem,) = Hyperband().problems(2)
    assert problem.message == "is too many for runs of 2 epochs: with eta 3 they need 3, not 1"
    fields = [p.field for p in Hyperband(eta=0, min_epochs=0, cohort=0).problems(20)]
    assert fields == ["pruner.eta", "pruner.min_epochs", "pruner.cohort"]
