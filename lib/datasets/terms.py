"""Where labelled faces come from, and the terms that data, and hence a model of them, come with."""

from lib.common.errors import UserError
from lib.output import run_record
from lib.storage.folder import Folder

NAMES = {
    "utkface": "UTKFace (https://susanqq.github.io/UTKFace/)",
    "imdb-wiki": "IMDB-WIKI (https://data.vision.ee.ethz.ch/cvl/rrothe/imdb-wiki/)",
    "table": "a table of the user's own",
}
TERMS = {
    "utkface": "for non-commercial research only",
    "imdb-wiki": "for academic research only",
    "table": "the terms of the pictures in the table hold",
}


def source_of(faces: Folder) -> str:
    """Name the data set that a folder faces/ of jobs.prepare was made from."""
    return NAMES.get(_prepared_from(faces), "unknown; not from jobs.prepare")


def terms_of(faces: Folder) -> str:
    """What its publishers allow, and so what a model of it may be used for."""
    return TERMS.get(_prepared_from(faces), "unknown; whoever knows the data must say")


def _prepared_from(faces: Folder) -> str:
    try:
        return str(run_record.read(faces.parent).fingerprint.get("source"))
    except (OSError, UserError):
        return ""
