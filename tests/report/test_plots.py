"""What DVC shows: the judges' numbers as they stand in the report."""

import numbers

from pipeline.report.plots import curves, distances, summary
from tests.report.facts import facts, metrics


def test_summary_has_the_headlines_by_judge_and_nothing_but_numbers() -> None:
    told = summary(metrics())
    assert list(told) == ["classifier-b", "selfsup-b", "all"]
    judge = told["classifier-b"]
    own = next(arm for arm in metrics()["arms"] if (arm["name"], arm["kind"]) == ("weighted", "strategy"))
    assert judge["fd16_classifier-b"] == own["metrics"]["fd16_classifier-b"]
    assert judge["precision"] == own["metrics"]["precision_classifier-b"]
    assert judge["difference_low"] < judge["difference_value"] < judge["difference_high"]
    assert told["all"] == {"rfd_selection": own["metrics"]["rfd_selection"], "passes": 1.0}
    assert all(isinstance(value, numbers.Real) for row in told.values() for value in row.values())


def test_judges_without_intervals_or_floors_have_what_they_have() -> None:
    judged = metrics()
    judged["floor"] = {}
    for arm in judged["intervals"]["arms"]:
        arm["distances"], arm["differences"] = {}, {}
    assert set(summary(judged)["selfsup-b"]) == {"fd16_selfsup-b", "best_member", "precision", "recall", "coverage"}
    row = next(row for row in distances(judged) if row["arm"] == "vae/r0")
    assert row["low"] == row["distance"] == row["high"]


def test_a_row_for_each_arm_and_judge() -> None:
    rows = distances(metrics())
    assert len(rows) == 2 * len(metrics()["arms"])
    assert all(row["low"] < row["distance"] < row["high"] for row in rows)


def test_a_row_for_each_number_of_training() -> None:
    rows = curves(facts().histories)
    assert len(rows) == 6 * 100 * 2
    assert rows[0] == {
        "family": "mlp",
        "member": "mlp/r0",
        "kimg": 2.0,
        "number": "loss_g",
        "value": facts().histories["mlp/r0"][0]["loss_g"],
    }
