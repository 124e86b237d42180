"""Recognises outputs of this program that lie among the images of an archive."""

from lib.storage.folder import Folder

RECORD = "run.json"
LABELS = "labels"
PAGE, PICTURES = "report.html", "report-pictures"
"""A report and its annotated pictures; a page of another name has a folder of another name."""
FOLDERS = frozenset({LABELS, "manifest", "checkpoint", "remaining", "compaction", PICTURES})
"""All folders that a run and its report write into the output."""


def places(output: Folder) -> tuple[str, ...]:
    """The uris of an output and of all its folders: where the source is the output, these still count."""
    return output.uri, *(f"{output}/{name}" for name in sorted(FOLDERS))


def is_of_a_run(parent: Folder, name: str) -> bool:
    """Whether a subfolder was written by a run or a report.

    Other subfolders of an output may hold images: an archive may be its own output.

    Args:
        parent: any folder of the archive.
        name: of its subfolder.

    Raises:
        OSError: the folder cannot be read.
    """
    if name == PICTURES and parent.holds(PAGE):
        return True
    return name in FOLDERS and parent.holds(RECORD) and parent.holds(LABELS)
