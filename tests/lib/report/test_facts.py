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
            "4.45 (4.25 to 4.67) years; saying the median age always: 14.75",
        ),
        ("age within 5 years", "66.8% (64.7% to 68.8%)"),
        ("age inside the 80% interval", "80.3%"),
        (
            "the same by expected age",
            "0-2: 83%, 3-9: 79%, 10-19: 80%, 20-29: 83%, 30-39: 75%, 40-49: 78%, 50-59: 80%, "
            "60-69: 86%, 70+: 84%",
        ),
        (
            "the same by true age",
            "0-2: 79%, 3-9: 81%, 10-19: 81%, 20-29: 81%, 30-39: 78%, 40-49: 81%, 50-59: 82%, "
            "60-69: 78%, 70+: 81%",
        ),
        ("gender", "94.6% (93.6% to 95.6%)"),
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
