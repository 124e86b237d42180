"""Label rows beside the truth about the same faces."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lib.scoring.schema import CERTAIN, OK, SHARPNESS
from lib.tasks import TASKS
from lib.tasks.under_age import under_column

LABEL_COLUMNS = (
    "uri", "status", "error",
    *(name for task in TASKS.values() for name in task.evaluated_columns),
    "model",
)  # fmt: skip
"""What a comparison needs of the label row."""
WELCOME_COLUMNS = (
    *(column.name for task in TASKS.values() for column in task.optional_columns),
    "age_std", under_column().name, CERTAIN, SHARPNESS,
)  # fmt: skip
"""What it can use besides, where it is there."""


@dataclass(frozen=True)
class Comparison:
    """Row i of both tables speaks of the same face.

    Attributes:
        truth: `name` (for people), `age` (float64, years), `gender`, `group` and, where it is known,
            `sigma`, `age_low` and `age_high` (float64, years); null and NaN mean unknown.
        labels: `LABEL_COLUMNS` and, where they are known, `WELCOME_COLUMNS`.
        about: what is compared; JSON.
    """

    truth: pa.Table
    labels: pa.Table
    about: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.truth)

    def statuses(self) -> dict[str, int]:
        """Faces by status, the most frequent first."""
        return dict(Counter(self.labels["status"].to_pylist()).most_common())

    def without_label(self) -> list[str]:
        """Each face that has no label, and why, in words."""
        columns = (self.truth["name"], self.labels["status"], self.labels["error"])
        table = pa.table(columns, ["name", "status", "error"])
        faces = table.filter(pc.not_equal(table["status"], OK)).to_pylist()
        return [": ".join(filter(None, face.values())) for face in faces]
