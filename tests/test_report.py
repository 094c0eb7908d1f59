"""Pages say every name, verdict and number, load nothing, and survive hostile names and missing parts."""

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from polyrank.errors import DataError
from polyrank.page import count_text, delta_text, number_text
from polyrank.report import headline, profile_html, seesaw_html, verdict_sentence

FIXTURES = Path(__file__).parent / "fixtures"
STUDY: dict[str, Any] = json.loads((FIXTURES / "seesaw.json").read_text(encoding="utf-8"))
PROFILE: dict[str, Any] = json.loads((FIXTURES / "profile.json").read_text(encoding="utf-8"))
HOSTILE = """<b>like</b> & "q" '</script><script>alert(1)</script><img src="https://example.com/x">"""


class Page(HTMLParser):
    """What a browser would see: visible text, tags with attributes, figures."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.figures: list[dict[str, Any]] = []
        self.scripts = 0
        self._inside: list[str] = []
        self._words: list[str] = []
        self._data_type: str | None = None
        self.feed(html)
        self.close()
        self.text = re.sub(r"\s+", " ", "".join(self._words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style", "title"):
            self._inside.append(tag)
            self._data_type = dict(attrs).get("type")
            self.scripts += tag == "script" and self._data_type is None
        else:
            self._words.append(" " if tag in ("td", "tr", "p", "div", "span", "small", "br") else "")

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self._words.append(data)
        elif self._data_type == "application/json":
            self.figures.append(json.loads(data))


@pytest.fixture(scope="module")
def seesaw() -> Page:
    return Page(seesaw_html(STUDY))


@pytest.fixture(scope="module")
def profile() -> Page:
    return Page(profile_html(PROFILE))


def bare_study() -> dict[str, Any]:
    return {"format": 1, "tasks": [{"name": "click"}], "models": [{"name": "mmoe"}]}


def small_study() -> dict[str, Any]:
    study = copy.deepcopy(STUDY)
    study["models"], study["tasks"] = study["models"][1:2], study["tasks"][:1]
    return study


def rich_study() -> dict[str, Any]:
    """The fixture, with a regression task, a task inside a sample space under a hostile name, and nulls everywhere."""
    study = copy.deepcopy(STUDY)
    study["tasks"] += [
        {"name": "watch", "kind": "duration", "metric": "xauc", "rows": 5000, "positives": None, "given": None,
         "base_rate": 15342.1},
        {"name": HOSTILE, "kind": "binary", "metric": "auc", "rows": 9, "positives": 0, "given": "income",
         "base_rate": None},
    ]  # fmt: skip
    gain = {"mean": 0.0121, "low": 0.004, "high": 0.02, "verdict": "gain"}
    for model in study["models"]:
        metrics = {"xauc": 0.66, "mae": 8123.123, "rmse": 12345.6, "auc": None}
        model["tasks"]["watch"] = {
            "mean": 0.66, "std": None, "per_seed": [0.66], "metrics": metrics, "delta": {"single_task": gain}
        }  # fmt: skip
        model["tasks"][HOSTILE] = {"mean": None, "std": None, "per_seed": [], "metrics": {"auc": None}, "delta": {}}
        model["calibration"][HOSTILE] = {"predicted": [None], "observed": [None], "count": [0]}
    study["models"][0]["gates"] = [
        {"level": 1, "gate": HOSTILE, "experts": [HOSTILE], "weights": [1.0], "entropy": None}
    ]
    study["notes"].append(HOSTILE)
    study["command"] = HOSTILE
    return study


def test_each_architecture_has_one_plain_sentence(seesaw: Page) -> None:
    assert "MMoE: helped income (+0.0011), no difference for never_married." in seesaw.text
    assert "Shared bottom: helped income (+0.0008), hurt never_married (−0.0011)." in seesaw.text
    assert "CGC: no difference for income and never_married." in seesaw.text
    assert "PLE: helped income (+0.0014) and never_married (+0.0006)." in seesaw.text
    assert "Against LightGBM: worse on income (−0.0055), no difference for never_married." in seesaw.text


def test_every_mean_delta_interval_and_metric_is_on_the_page(seesaw: Page) -> None:
    entries = [entry for model in STUDY["models"] for entry in model["tasks"].values()]
    for entry in entries:
        assert f"{number_text(entry['mean'])} ± {number_text(entry['std'])}" in seesaw.text
        for delta in entry["delta"].values():
            sign = {"gain": "▲", "loss": "▼", "tie": "="}[delta["verdict"]]
            words = f"{delta_text(delta['mean'])} [{delta_text(delta['low'])}, {delta_text(delta['high'])}]"
            assert f"{words} {sign} {delta['verdict']}" in seesaw.text
        assert number_text(entry["metrics"]["log_loss"]) in seesaw.text
        assert number_text(entry["metrics"]["ece"]) in seesaw.text
    for reference in STUDY["references"].values():
        for entry in reference.values():
            assert number_text(entry["mean"]) in seesaw.text


def test_a_difference_without_an_interval_is_shown_without_one() -> None:
    study = small_study()
    task = study["tasks"][0]["name"]
    for delta in study["models"][0]["tasks"][task]["delta"].values():
        delta |= {"mean": 0.0625, "low": None, "high": None, "verdict": "tie"}
    page = Page(seesaw_html(study))
    assert "+0.0625 = tie" in page.text
    assert re.search(r"\b(nan|None|Undefined)\b", page.text) is None
    points = [trace for figure in page.figures for trace in figure["data"] if trace.get("mode") == "markers+text"]
    assert [trace["x"] for trace in points] == [[0.0625], [0.0625]]


def test_whose_curves_and_gates_are_shown_is_told(seesaw: Page) -> None:
    assert "The curves are those of the first seed's models." in seesaw.text
    assert "over all rows, also those outside a task's sample space, and of the first seed's model" in seesaw.text


def test_the_run_is_told_rows_seeds_command_notes(seesaw: Page) -> None:
    for words in (STUDY["title"], STUDY["command"], STUDY["created"], "Seeds: 0, 1", *STUDY["notes"]):
        assert words in seesaw.text
    assert "159,618 training, 39,905 validation, 99,762 test" in seesaw.text
    assert "6,186 positive (6.20 %)" in seesaw.text


def test_a_metric_nobody_measured_has_no_column(seesaw: Page) -> None:
    headers = [tag for tag, _ in seesaw.tags if tag == "th"]
    assert len(headers) == 2 * (1 + 1 + 2 * 2 + 2)  # model, AUC, two references, log loss and ECE; GAUC is null


def test_the_page_has_every_figure_with_the_numbers_of_the_study(seesaw: Page) -> None:
    # seesaw 2 x 2, curves 2 x 2, gates MMoE + CGC + PLE x 2, calibration 2, costs 5
    assert len(seesaw.figures) == 4 + 4 + 4 + 2 + 5
    intervals = {
        (delta["low"], delta["high"])
        for model in STUDY["models"]
        for entry in model["tasks"].values()
        for delta in entry["delta"].values()
    }
    shown = set()
    for figure in seesaw.figures[:4]:
        for trace in figure["data"]:
            if trace["mode"] == "lines":
                shown |= set(zip(trace["x"][::3], trace["x"][1::3], strict=True))
    assert shown == intervals


@pytest.mark.parametrize("html", [seesaw_html(STUDY), profile_html(PROFILE)], ids=["seesaw", "profile"])
def test_a_page_loads_nothing(html: str) -> None:
    page = Page(html)
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    assert "@import" not in html.split("</style>")[0]
    (policy,) = [a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert html.count("plotly.js v") >= 1
    assert page.scripts == 2  # the bundle once, and the page's own few lines


def test_hostile_names_are_text_everywhere() -> None:
    html = seesaw_html(rich_study())
    page = Page(html)
    assert "<script>alert" not in html
    assert "<b>like" not in html
    assert page.scripts == 2
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert page.text.count(HOSTILE) > 8
    labels = [label for f in page.figures for trace in f["data"] if trace["type"] == "heatmap" for label in trace["y"]]
    assert any(label.startswith("&lt;b&gt;like") for label in labels)

    profile = copy.deepcopy(PROFILE)
    profile["source"] = profile["tasks"][0]["name"] = profile["features"][0]["name"] = HOSTILE
    profile["features"][1]["top"] = [[HOSTILE, 0.5]]
    profile["warnings"] = [HOSTILE]
    profile["leaks"] = [{"feature": HOSTILE, "task": HOSTILE, "auc": 0.999}]
    html = profile_html(profile)
    page = Page(html)
    assert "<script>alert" not in html
    assert page.scripts == 2
    assert page.text.count(HOSTILE) >= 6


def test_a_regression_task_and_a_sample_space_are_explained() -> None:
    page = Page(seesaw_html(rich_study()))
    assert "watch (+0.0121)" in page.text
    assert "8123.1" in page.text
    assert "12,346" in page.text
    assert "only rows where income is positive" in page.text
    assert "not measured" in page.text
    assert "XAUC of single-task models: –" in page.text
    assert re.search(r"\b(nan|None|Undefined)\b", page.text) is None


def test_a_study_with_nothing_but_names_is_a_page() -> None:
    page = Page(seesaw_html(bare_study()))
    assert "MMoE: not measured for click." in page.text
    assert "The study has no reference to compare with." in page.text
    assert page.figures == []
    for absent in ("Learning curves", "Calibration", "What it costs", "Who listens"):
        assert absent not in page.text
    assert re.search(r"\b(nan|None|Undefined)\b", page.text) is None


@pytest.mark.parametrize("part", ["gates", "curves", "calibration", "cost", "tasks"])
@pytest.mark.parametrize("value", ["absent", None])
def test_any_part_of_a_model_may_be_missing(part: str, value: object) -> None:
    study = small_study()
    for model in study["models"]:
        model[part] = None
        if value == "absent":
            del model[part]
    page = seesaw_html(study)
    assert all(task["name"] in page for task in study["tasks"])


@pytest.mark.parametrize(
    "part", ["title", "created", "command", "rows", "seeds", "level", "notes", "references", "costs"]
)
@pytest.mark.parametrize("value", ["absent", None])
def test_any_part_of_a_study_may_be_missing(part: str, value: object) -> None:
    study = small_study()
    study[part] = None
    if value == "absent":
        del study[part]
    page = seesaw_html(study)
    assert all(task["name"] in page for task in study["tasks"])


def test_a_study_without_lightgbm_says_so() -> None:
    study = copy.deepcopy(STUDY)
    del study["references"]["lightgbm"], study["costs"]["lightgbm"]
    for model in study["models"]:
        for entry in model["tasks"].values():
            del entry["delta"]["lightgbm"]
    page = Page(seesaw_html(study))
    assert "LightGBM was not part of this study." in page.text
    assert "Against LightGBM" not in page.text
    assert "Against single-task models" in page.text


def balanced_study() -> dict[str, Any]:
    """The fixture as a study of balancers, of which a run recorded all there is."""
    study = copy.deepcopy(STUDY)
    names = [task["name"] for task in study["tasks"]]
    for model in study["models"]:
        model["name"] += " + dwa"
    curve = study["models"][0]["curves"][0]
    curve["balance"] = {
        "step": [10, 20],
        "weights": {name: [1.0, 1.5] for name in names},
        "norms": {name: [0.5, 0.5] for name in names},
        "cosines": [[[1.0, -0.25], [-0.25, 1.0]]] * 2,
    }
    study["pareto"] = {
        "reference": dict.fromkeys(names, 0.9),
        "hypervolume": 0.0042,
        "models": {
            model["name"]: {"front": index == 1, "share": 0.25, "alone": 0.5}
            for index, model in enumerate(study["models"])
        },
    }
    return study


def test_the_pareto_picture_and_its_table() -> None:
    study = balanced_study()
    page = Page(seesaw_html(study))
    assert "MMoE + dwa: helped income" in page.text
    assert "2 MMoE + dwa yes 50.0 % 25.0 %" in page.text
    assert "1 Shared bottom + dwa no 50.0 % 25.0 %" in page.text
    assert "Hypervolume 0.0042" in page.text
    (picture,) = [
        f for f in page.figures if "better →" in f["layout"].get("yaxis", {}).get("title", {}).get("text", "")
    ]
    points = {trace["name"]: (trace["x"][0], trace["y"][0]) for trace in picture["data"] if "name" in trace}
    mean = {model["name"]: model["tasks"] for model in study["models"]}["mmoe + dwa"]
    assert points["MMoE + dwa"] == (mean["income"]["mean"], mean["never_married"]["mean"])
    assert {"Single-task", "LightGBM"} < set(points)


def test_what_a_balancer_did_is_shown_for_the_model_that_recorded_it() -> None:
    page = Page(seesaw_html(balanced_study()))
    assert "Balancing over time" in page.text
    for panel in ("Loss weights", "Gradient norms", "Agreement over time"):
        assert page.text.count(panel) == 1
    assert sum(tag == "details" for tag, _ in page.tags) == 1
    assert "Balancing over time" not in Page(seesaw_html(STUDY)).text


def test_effective_experts_are_the_exponential_of_the_entropy() -> None:
    study = copy.deepcopy(STUDY)
    study["models"][1]["gates"] = [
        {"level": 1, "gate": "income", "experts": ["a", "b", "c"], "weights": [0.5, 0.5, 0.0], "entropy": 0.6931472}
    ]
    assert "income: 2.0 of 3" in Page(seesaw_html(study)).text


@pytest.mark.parametrize(
    ("verdicts", "outcome", "verdict"),
    [
        (("gain", "gain"), "helps, hurts nothing", "gain"),
        (("gain", "tie"), "helps, hurts nothing", "gain"),
        (("gain", "loss"), "seesaw: one task paid for another", "loss"),
        (("loss", "tie"), "hurts, helps nothing", "loss"),
        (("tie", "tie"), "no difference", "tie"),
        ((None, None), "not measured", None),
    ],
)
def test_the_outcome_follows_from_the_verdicts(
    verdicts: tuple[str | None, ...], outcome: str, verdict: str | None
) -> None:
    tasks = {
        name: {"delta": {"single_task": {"mean": 0.1, "verdict": v}}} for name, v in zip("ab", verdicts, strict=True)
    }
    line = headline({"name": "mmoe", "tasks": tasks}, ["a", "b"], "single_task")
    assert (line.name, line.outcome, line.verdict) == ("MMoE", outcome, verdict)
    assert [v for _, v in line.badges] == [v for v in verdicts if v]


def test_a_sentence_lists_three_tasks_in_order() -> None:
    gain = {"delta": {"single_task": {"mean": 0.01, "verdict": "gain"}}}
    model = {"name": "m", "tasks": {"a": gain, "b": gain, "c": gain, "d": None}}
    sentence = verdict_sentence(model, ["a", "b", "c", "d"], "single_task")
    assert sentence == "helped a (+0.0100), b (+0.0100) and c (+0.0100), not measured for d"


def test_the_profile_says_its_headlines_leaks_and_warnings(profile: Page) -> None:
    assert "1,186,059 rows" in profile.text
    assert "video_duration alone ranks long_view with AUC 0.9931" in profile.text
    for warning in PROFILE["warnings"]:
        assert warning in profile.text
    for task in PROFILE["tasks"]:
        assert f"{task['name']} {task['column']} {task['kind']} {task['given'] or '–'}" in profile.text
        assert count_text(task["labelled"]) in profile.text
    assert "≥ 100,000" in profile.text
    assert "NORMAL 99.8 %" in profile.text
    assert "18.4 %" in profile.text


def test_the_profile_figures_are_the_profile(profile: Page) -> None:
    # positives, conditional, missing, outside, contradictions, correlations, cardinalities, unseen
    assert len(profile.figures) == 8
    assert profile.figures[1]["data"][0]["z"] == PROFILE["funnel"]["conditional"]
    assert profile.figures[2]["data"][0]["y"] == ["like", "watch"]
    assert profile.figures[5]["data"][0]["z"] == PROFILE["correlations"]["values"]
    assert profile.figures[7]["data"][0]["x"] == sorted(
        (f["out_of_vocabulary"] for f in PROFILE["features"] if f["out_of_vocabulary"] is not None), reverse=True
    )


def test_feature_columns_sort_by_number_and_missing_ones_are_marked(profile: Page) -> None:
    cells = [a["data-sort"] for tag, a in profile.tags if tag == "td" and "data-sort" in a]
    assert len(cells) == 11 * len(PROFILE["features"])
    assert cells[:5] == ["user_id", "id", "int64", "0.0", "7176"]
    assert cells[7:10] == ["", "", ""]
    assert sum(tag == "th" and "data-numbers" in a for tag, a in profile.tags) == 7


def test_a_profile_with_nothing_but_names_is_a_page() -> None:
    page = Page(profile_html({"format": 1, "tasks": [{"name": "click"}], "features": [{"name": "age"}]}))
    assert "click" in page.text
    assert "age" in page.text
    assert "Every row has every label." in page.text
    assert page.figures == []
    assert re.search(r"\b(nan|None|Undefined)\b", page.text) is None


@pytest.mark.parametrize(
    "part", ["source", "rows", "valid", "valid_rows", "funnel", "correlations", "leaks", "warnings"]
)
@pytest.mark.parametrize("value", ["absent", None])
def test_any_part_of_a_profile_may_be_missing(part: str, value: object) -> None:
    profile = {**PROFILE, part: None}
    if value == "absent":
        del profile[part]
    page = profile_html(profile)
    assert "</html>" in page
    assert part == "features" or all(feature["name"] in page for feature in PROFILE["features"])


@pytest.mark.parametrize("document", [{}, {"format": 2}, {"format": 1}, {"format": 1, "tasks": {}, "models": []}])
def test_another_format_is_one_clear_error(document: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"seesaw\.json"):
        seesaw_html(document)
    with pytest.raises(DataError, match="profile"):
        profile_html(document)


def test_rendering_is_pure_and_deterministic() -> None:
    study = small_study()
    first = seesaw_html(study)
    assert study == small_study()
    assert seesaw_html(study) == first
