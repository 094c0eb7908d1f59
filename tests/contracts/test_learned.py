"""Every learned ranker of LEARNERS: what a fusion must keep, on requests with a known truth."""

import numpy as np
import pytest

from polyrank.errors import ConfigError, DataError
from polyrank.evaluation.requests import Requests
from polyrank.fusion.learned import LEARNERS, learn
from polyrank.fusion.store import load_fusion, save_fusion
from polyrank.metrics.toplists import ndcg
from polyrank.progress import Silent

CONTEXT, NEGATIVE = ("length", "device"), ("hate",)
SMALL = {
    "lambdarank": {"trees": 80, "leaf_rows": 20, "threads": 1},
    "monotone": {"epochs": 12, "hidden": 6, "knots": 9, "pairs": 4_000},
    "listwise": {"epochs": 12, "width": 16, "attention_heads": 2, "dropout": 0.0, "pairs": 4_000},
}
SMALL["listwise, monotone"] = {**SMALL["listwise"], "monotone": True}
MONOTONE = ("lambdarank", "monotone", "listwise, monotone")


def requests(users, seed=0):
    """What a row is worth: its chance of a click, plus three times that of a like, less that of a hate."""
    rng = np.random.default_rng(seed)
    rows = users * 8
    click, like, hate = 1 / (1 + np.exp(-rng.normal([-0.5, -2.5, -3.0], [1.0, 1.0, 1.5], (rows, 3)).T))
    worth = click + 3 * like - 2 * hate + 0.3 * rng.normal(size=rows)
    return Requests(
        columns={
            "click": click,
            "like": like,
            "hate": hate,
            "length": rng.exponential(60, rows),
            "device": rng.integers(0, 3, rows).astype(float),
        },
        heads=("click", "like", "hate"),
        labels={"click": (rng.random(rows) < click).astype(float)},
        numeric=frozenset(),
        requests=np.arange(rows) // 8,
        users=np.arange(rows) // 8,
        reward=np.maximum(worth, 0),
    )


def learner_of(name):
    return name.partition(",")[0]


def config_of(name, **changes):
    return LEARNERS[learner_of(name)].config(**{**SMALL[name], **changes})


@pytest.fixture(scope="module")
def fusions():
    train, valid = requests(250), requests(80, seed=1)
    return {name: learn(learner_of(name), train, valid, CONTEXT, NEGATIVE, config_of(name)) for name in SMALL}


@pytest.fixture(params=list(SMALL))
def name(request):
    return request.param


def test_every_learner_is_in_this_battery():
    assert set(map(learner_of, SMALL)) == set(LEARNERS)


def test_it_orders_better_than_every_head_and_than_equal_weights(fusions, name):
    test = requests(300, seed=2)
    rivals = [test.columns["click"], test.columns["like"], -test.columns["hate"]]
    rivals.append(np.sum(rivals, axis=0))
    found = fusions[name].score(test.columns, test.requests)
    best = max(ndcg(rival, test.reward, test.requests, 3).mean() for rival in rivals)
    assert ndcg(found, test.reward, test.requests, 3).mean() > best + 0.01


def test_saved_and_loaded_it_scores_alike(fusions, name, tmp_path):
    data = requests(20, seed=3)
    save_fusion(fusions[name], tmp_path)
    again = load_fusion(tmp_path)
    assert type(again) is type(fusions[name])
    assert (again.heads, again.context) == (("click", "like", "hate"), CONTEXT)
    np.testing.assert_array_equal(
        again.score(data.columns, data.requests), fusions[name].score(data.columns, data.requests)
    )
    assert not list(tmp_path.glob("*.pkl"))


def test_what_was_saved_is_refused_when_it_is_damaged(fusions, name, tmp_path):
    save_fusion(fusions[name], tmp_path)
    document = (tmp_path / "fusion.json").read_text()
    (tmp_path / "fusion.json").write_text(document.replace('"heads"', '"head"'))
    with pytest.raises(Exception, match="a fusion must be whole"):
        load_fusion(tmp_path)


def test_rows_and_requests_may_come_in_any_order(fusions, name):
    data, order = requests(15, seed=4), np.random.default_rng(0).permutation(120)
    scores = fusions[name].score(data.columns, data.requests)
    shuffled = data.select(order)
    np.testing.assert_allclose(
        fusions[name].score(shuffled.columns, shuffled.requests), scores[order], atol=1e-9, rtol=0
    )


def test_other_requests_change_no_score(fusions, name):
    data = requests(15, seed=5)
    mine = data.requests == 4
    alone = fusions[name].score({k: v[mine] for k, v in data.columns.items()})
    np.testing.assert_allclose(fusions[name].score(data.columns, data.requests)[mine], alone, atol=1e-9, rtol=0)


def test_equal_candidates_have_equal_scores(fusions, name):
    data = requests(1, seed=6)
    columns = {key: np.concatenate((values, values[:1])) for key, values in data.columns.items()}
    scores = fusions[name].score(columns)
    assert scores[0] == pytest.approx(scores[-1], abs=1e-9)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-30])
def test_scores_of_extreme_predictions_are_finite(fusions, name, value):
    data = requests(2, seed=7)
    columns = {**data.columns, "click": np.full(16, value), "like": np.full(16, value), "length": np.full(16, 1e12)}
    assert np.isfinite(fusions[name].score(columns, data.requests)).all()


def test_no_row_and_one_row(fusions, name):
    nothing = {key: values[:0] for key, values in requests(1).columns.items()}
    assert fusions[name].score(nothing).shape == (0,)
    assert fusions[name].score({key: values[:1] for key, values in requests(1).columns.items()}).shape == (1,)


def test_a_missing_column_is_named(fusions, name):
    with pytest.raises(ValueError, match="'like'"):
        fusions[name].score({"click": np.ones(2), "hate": np.ones(2), "length": np.ones(2), "device": np.ones(2)})


@pytest.mark.parametrize("kind", MONOTONE)
@pytest.mark.parametrize(("head", "sign"), [("click", 1), ("like", 1), ("hate", -1)])
def test_a_candidate_never_loses_a_place_by_a_higher_positive_head(fusions, kind, head, sign):
    data, rng = requests(60, seed=8), np.random.default_rng(1)
    before = fusions[kind].score(data.columns, data.requests)
    for _ in range(4):
        one = np.arange(60) * 8 + rng.integers(0, 8, 60)  # one candidate of every request rises
        raised = data.columns[head].copy()
        raised[one] += (1 - raised[one]) * rng.random(60)
        after = fusions[kind].score({**data.columns, head: raised}, data.requests)
        moved = sign * (after - before).reshape(60, 8)
        own = moved[np.arange(60), one % 8]
        assert (own >= -1e-9).all()
        assert (own[:, None] - moved >= -1e-9).all()


def test_the_transformer_promises_no_place(fusions):
    data, lost = requests(200, seed=8), []
    for head in ("click", "like"):
        raised = data.columns[head].copy()
        raised[::8] += 0.5 * (1 - raised[::8])
        before, after = (
            fusions["listwise"].score({**data.columns, head: p}, data.requests) for p in (data.columns[head], raised)
        )
        lost.append(((after - before)[::8] < -1e-6).any())
    assert any(lost)  # else the option monotone would have nothing to promise


@pytest.mark.parametrize("kind", ["lambdarank", "monotone"])  # the others see all that rise beside it
@pytest.mark.parametrize(("head", "sign"), [("click", 1), ("like", 1), ("hate", -1)])
def test_a_higher_positive_head_never_lowers_a_score(fusions, kind, head, sign):
    rng = np.random.default_rng(0)
    data = requests(60, seed=8)
    columns = {**data.columns, "length": rng.exponential(60, 480) ** 2}
    before = fusions[kind].score(columns, data.requests)
    # From a hair to the far end, and in steps that cross every split and knot.
    for raised in (columns[head] + 1e-7, columns[head] + (1 - columns[head]) * rng.random(480), np.ones(480)):
        after = fusions[kind].score({**columns, head: raised}, data.requests)
        assert (sign * (after - before) >= -1e-9).all()
        columns, before = {**columns, head: raised}, after


def test_lambdarank_without_the_constraint_is_not_monotone(fusions):
    train = requests(250)
    # A reward that falls in the click: the constraint forbids what the data says.
    turned = Requests(**{**vars(train), "reward": 1 - train.columns["click"]})
    free = learn("lambdarank", turned, turned, (), NEGATIVE, config_of("lambdarank", monotone=False))
    bound = learn("lambdarank", turned, turned, (), NEGATIVE, config_of("lambdarank"))
    low, high = ({**train.columns, "click": np.full(2000, value)} for value in (0.05, 0.9))
    assert free.score(low).mean() > free.score(high).mean() + 0.1
    assert (bound.score(low) <= bound.score(high)).all()


def test_one_seed_one_fusion(name):
    train, valid, data = requests(40), requests(20, seed=1), requests(10, seed=9)
    knobs = {"trees": 5} if name == "lambdarank" else {"epochs": 2}
    kind = learner_of(name)
    first, again = (learn(kind, train, valid, CONTEXT, NEGATIVE, config_of(name, **knobs)) for _ in range(2))
    np.testing.assert_array_equal(first.score(data.columns, data.requests), again.score(data.columns, data.requests))
    if name != "lambdarank":  # nothing in it is drawn unless rows or columns are sampled
        other = learn(kind, train, valid, CONTEXT, NEGATIVE, config_of(name, seed=1, **knobs))
        assert (other.score(data.columns, data.requests) != first.score(data.columns, data.requests)).any()


class _Counted(Silent):
    total = 0

    def advance(self, rows, note=""):
        self.total += rows


def test_the_bar_comes_to_its_end(name):
    bar, rounds = _Counted(), 7
    kind = learner_of(name)
    config = config_of(name, **{LEARNERS[kind].rounds: rounds, "patience": 2})
    learn(kind, requests(30), requests(20, seed=1), (), NEGATIVE, config, bar)
    assert bar.total == rounds


@pytest.mark.parametrize("name", LEARNERS)
def test_what_cannot_be_learned_is_said(name):
    data = requests(10)
    with pytest.raises(ConfigError, match="context must name columns"):
        learn(name, data, data, ("height",))
    with pytest.raises(ConfigError, match="negative must name heads"):
        learn(name, data, data, (), ("length",))
    flat = Requests(**{**vars(data), "reward": data.requests.astype(float)})
    with pytest.raises(DataError, match="validation requests whose rows differ in reward"):
        learn(name, data, flat)


def test_an_unknown_ranker_is_refused_with_its_neighbour():
    with pytest.raises(ConfigError, match="did you mean 'monotone'"):
        learn("monotonic", requests(2), requests(2))
