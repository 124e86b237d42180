"""What a report says of the embedded model; the card is that of models/default."""

from pathlib import Path

import pytest

from lib.output.reader import Output
from lib.output.run_record import RunRecord, claim
from lib.report.facts import facts, model_card, terms_of_model
from tests.made_labels import CARD, write_rows

TRAINED_ON = "15,057 faces of UTKFace (https://susanqq.github.io/UTKFace/)"
TERMS = "for non-commercial research only"


def output_of(folder: Path, card: dict[str, object]) -> Output:
    fingerprint = {"model": "mobilenet-96@1", "detector": "none"}
    claim(folder, RunRecord("jobs.score", fingerprint, model=card))
    write_rows(folder, [])
    return Output(str(folder))


def test_the_report_says_what_the_model_was_trained_on_and_its_terms(tmp_path: Path) -> None:
    output = output_of(tmp_path, CARD)
    (model,) = [group for group in facts(output) if group.title == "Model"]
    assert model.facts == [
        ("model", "mobilenet-96@1"),
        ("faces found by", "no detector: the images are face crops"),
        ("trained on", TRAINED_ON),
        ("terms", TERMS),
        (
            "age, mean absolute error",
            "4.50 (4.31 to 4.72) years; saying the median age always: 14.75",
        ),
        ("age within 5 years", "66.1% (64.0% to 68.0%)"),
        ("age inside the 80% interval", "80.2%"),
        (
            "the same by expected age",
            "0-2: 82%, 3-9: 75%, 10-19: 79%, 20-29: 83%, 30-39: 76%, 40-49: 80%, 50-59: 80%, "
            "60-69: 85%, 70+: 83%",
        ),
        (
            "the same by true age",
            "0-2: 77%, 3-9: 80%, 10-19: 82%, 20-29: 81%, 30-39: 78%, 40-49: 84%, 50-59: 80%, "
            "60-69: 78%, 70+: 80%",
        ),
        ("gender", "94.1% (93.0% to 95.2%)"),
    ]
    assert model.note
    assert terms_of_model(output) == [f"The model was trained on {TRAINED_ON}; terms: {TERMS}."]


@pytest.mark.parametrize("card", [{}, {"name": "of another maker"}])
def test_a_record_without_a_card_leaves_its_facts_out(
    card: dict[str, object], tmp_path: Path
) -> None:
    output = output_of(tmp_path, card)
    assert model_card(output) is None
    assert terms_of_model(output) == []
    (model,) = [group for group in facts(output) if group.title == "Model"]
    assert [name for name, _ in model.facts] == ["model", "faces found by"]
