"""The label row: what comes out for every image, described in one place."""

from collections.abc import Iterator

import pyarrow as pa

from lib.tasks import TASKS
from lib.tasks.task import Column
from lib.tasks.under_age import ADULT_AGE, under_column

OK = "ok"
NO_FACE = "no_face"
STATUSES = {
    OK: "at least one face was found and labelled",
    NO_FACE: "the image was read, and no face was found in it",
    "not_found": "listed, but gone when it was to be read",
    "access_denied": "the storage refused to give it",
    "download_error": "it could not be read, after all retries",
    "decode_error": "its bytes are not an image, or a broken one",
    "too_large": "more pixels or bytes than allowed; it was not decoded",
    "unsupported": "an image, but of a format that is not read",
}
"""Every status and its meaning. All but the first two count as errors."""

KEYS = ("id", "uri")
"""The columns that name an image of an archive; the others say what is in it."""
POINT = pa.struct([("x", pa.float32()), ("y", pa.float32())])
LANDMARKS = pa.struct(
    [(name, POINT) for name in ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")]
)
"""Five points of a face; left and right as seen in the picture."""
BOX = pa.struct([(side, pa.int32()) for side in ("x", "y", "width", "height")])
POSE = pa.struct([(angle, pa.float32()) for angle in ("yaw", "pitch", "roll")])

CERTAIN, SHARPNESS = "certain", "sharpness"
_OF_TASKS = tuple(column for task in TASKS.values() for column in task.columns)
_ON_REQUEST = tuple(column for task in TASKS.values() for column in task.optional_columns)
_OF_PICTURE = (
    Column(
        CERTAIN,
        pa.bool_(),
        "false where the labels are hardly worth anything, by the model card's rule",
    ),
    Column("box", BOX, "x, y, width, height of the face in pixels of the upright image"),
    Column("face_score", pa.float32(), "the detector's confidence, 0 to 1"),
    Column(SHARPNESS, pa.float32(), "variance of the crop's Laplacian, low where it is blurred"),
    Column(
        "pose", POSE, "yaw, pitch, roll in degrees: nose to the right, nose up, turned clockwise"
    ),
    Column("cut", pa.bool_(), "whether the box reaches the border of the image"),
)


def face_columns(with_distribution: bool = False, threshold: int = ADULT_AGE) -> tuple[Column, ...]:
    """The columns of a face.

    Args:
        with_distribution: the whole distribution of the age, too.
        threshold: of the probability to be younger, in years.
    """
    columns = (*_OF_TASKS, under_column(threshold), *_OF_PICTURE)
    return columns + _ON_REQUEST if with_distribution else columns


def face_type(with_distribution: bool = False, threshold: int = ADULT_AGE) -> pa.StructType:
    """The type of one element of `faces`: what the row says of the main face, and the landmarks."""
    fields = [(c.name, c.type) for c in face_columns(with_distribution, threshold)]
    return pa.struct([*fields, ("landmarks", LANDMARKS)])


def label_columns(with_distribution: bool = False, threshold: int = ADULT_AGE) -> Iterator[Column]:
    """All columns of the label row, in order; see `face_columns`."""
    yield Column("id", pa.int64(), "number of the image in the manifest")
    yield Column("uri", pa.string(), "where the image is")
    yield Column("status", pa.string(), "`ok`, `no_face`, or why there is no label")
    yield Column(
        "error",
        pa.string(),
        "what went wrong, or that the file has changed since it was listed; else null",
    )
    yield Column("width", pa.int32(), "of the upright image, in pixels; null where it is unknown")
    yield Column("height", pa.int32(), "of the upright image, in pixels; null where it is unknown")
    yield Column("face_count", pa.int32(), "number of faces found")
    for column in face_columns(with_distribution, threshold):
        yield column._replace(meaning=f"main (largest) face: {column.meaning}")
    yield Column(
        "faces",
        pa.list_(face_type(with_distribution, threshold)),
        "the same for every face, largest first; and `landmarks`: x, y of eyes, nose, mouth corners",
    )
    yield Column("model", pa.string(), "name and digest of the model")


def label_schema(
    with_distribution: bool = False, keys: bool = True, threshold: int = ADULT_AGE
) -> pa.Schema:
    """The Arrow schema of the label row, with or without `KEYS`."""
    every = label_columns(with_distribution, threshold)
    columns = [c for c in every if keys or c.name not in KEYS]
    return pa.schema([(c.name, c.type) for c in columns])


def schema_table() -> str:
    """The label row as a Markdown table, as it stands in the README."""
    rows = [f"| `{c.name}` | {_plain(c.type)} | {c.meaning} |" for c in label_columns(True)]
    return "\n".join(["| column | type | meaning |", "| --- | --- | --- |", *rows])


def _plain(type_: pa.DataType) -> str:
    if type_ == BOX:
        return "struct of int32"
    if type_ == POSE:
        return "struct of float"
    if pa.types.is_list(type_):
        return "list of structs" if pa.types.is_struct(type_.value_type) else "list of float"
    return str(type_)
