"""Models are asked about faces; what they have said is kept, so that nobody is asked twice."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lib.audit.faces import AuditedFaces, FaceLabels
from lib.audit.look import CARRIED, LookAtFaces
from lib.audit.opinions import OPINION_SCHEMA, Opinions, opinions_of
from lib.evaluation.labelling import label_rows
from lib.faces.registry import NO_DETECTOR, DetectorSpec
from lib.images import Limits
from lib.models.bundle import Bundle
from lib.scoring.labelling import Labelling
from lib.scoring.placement import Placement
from lib.storage.folder import Folder

FOLDER = "opinions"
"""Of an output: what each model has said."""


@dataclass(frozen=True)
class Interview:
    """The faces that models are asked about, and what they have said.

    Attributes:
        faces: all of them.
        labels: of them.
        output: folder of the audit.
        placement: what is wanted of the cluster's pools.
        remedy: what the user can do where it stops.
        opinions: so far.
    """

    faces: AuditedFaces
    labels: FaceLabels
    output: Folder
    placement: Placement
    remedy: str
    opinions: Opinions

    def ask(self, name: str, bundle: Bundle, fold: int | None, look: bool) -> None:
        """Ask a model, unless its answers are there from an earlier start.

        Args:
            name: of its answers.
            bundle: the model.
            fold: of the faces that it is asked about; None: all.
            look: whether the detector looks at their pictures, too.

        Raises:
            UserError: what stopped it.
        """
        folder, file = self.output / FOLDER, f"{name}.parquet"
        if not folder.holds(file):
            folder.write_table(file, self._answers(bundle, self._members(fold), look))
        self.opinions.add(folder.read_table(file))

    def _members(self, fold: int | None) -> NDArray[np.bool_]:
        return np.ones(len(self.labels), bool) if fold is None else self.labels.folds == fold

    def _answers(self, bundle: Bundle, members: NDArray[np.bool_], look: bool) -> pa.Table:
        """What a model says of some faces and their mirror images: rows of `OPINION_SCHEMA`, alone."""
        labelling = Labelling(
            LookAtFaces(DetectorSpec() if look else None),
            DetectorSpec(NO_DETECTOR),
            Limits(),
            bundle,
            age_distribution=True,
            carry=CARRIED,
            mirror=True,  # which costs little beside training
        )
        rows = label_rows(self.faces.rows(members), labelling, self.placement, self.remedy)
        parts = [opinions_of(of_block, self.labels, bundle) for of_block in rows]
        answers = pa.concat_tables([OPINION_SCHEMA.empty_table(), *parts])
        if len(answers) != members.sum():
            missing = members.sum() - len(answers)
            raise RuntimeError(f"{missing} faces have come back without a label row")
        return answers
