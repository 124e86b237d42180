"""What of a folder is passed over because of its place: system files, outputs of runs."""

# ruff: noqa: PTH118 - as in lib/archive/listing.py

import os
from collections.abc import Sequence

from lib.archive.run_outputs import FOLDERS, is_of_a_run
from lib.archive.system_files import is_system_file
from lib.storage.folder import Folder
from lib.storage.options import StorageOptions
from lib.storage.uris import scheme_of

SYSTEM_FILE = "system file"
OUTPUT_OF_A_RUN = "output of a run"


class Selection:
    """Chooses by the place of a file below its source; where the source itself lies does not count."""

    def __init__(
        self, root: str, exclude: Sequence[str], all_files: bool, options: StorageOptions
    ) -> None:
        """Choose among the files of a source.

        Args:
            root: the source, a folder or a prefix of keys.
            exclude: folders to pass over, without a slash at the end; the source itself and those
                around it are ignored.
            all_files: take system files, too.
            options: how files are reached.
        """
        self._root = root
        self._exclude = tuple(f"{folder}/" for folder in _below(root, exclude))
        self._all_files = all_files
        self._options = options
        self._known: dict[str, bool] = {}
        """Folder of the archive with the name of a folder of a run → whether it is one."""

    def why_skipped(self, uri: str) -> str | None:
        """The reason to pass over a file or a folder; None to take it.

        Args:
            uri: below the source; that of a folder ends in a slash.

        Raises:
            OSError: the folder that it is in cannot be read.
        """
        if reason := self.why_skipped_by_name(uri):
            return reason
        return OUTPUT_OF_A_RUN if self._is_in_an_output(uri) else None

    def why_skipped_by_name(self, uri: str) -> str | None:
        """The same without a look into any folder, so other runs are not recognised."""
        if not self._all_files and is_system_file(self._place(uri)):
            return SYSTEM_FILE
        if uri.startswith(self._exclude):
            return OUTPUT_OF_A_RUN
        return None

    def _place(self, uri: str) -> str:
        return uri.removeprefix(self._root).removeprefix("/")

    def _is_in_an_output(self, uri: str) -> bool:
        place = self._place(uri)
        *folders, _ = place.split("/")
        if FOLDERS.isdisjoint(folders):
            return False
        for depth, name in enumerate(folders):
            if name not in FOLDERS:
                continue
            parent = uri.removesuffix(place) + "/".join(folders[:depth])
            folder = f"{parent}/{name}"
            if folder not in self._known:
                there = Folder(parent.rstrip("/"), self._options)
                self._known[folder] = is_of_a_run(there, name)
            if self._known[folder]:
                return True
        return False


def _below(root: str, folders: Sequence[str]) -> list[str]:
    if scheme_of(root):
        return [folder for folder in folders if folder.startswith(root) and folder != root]
    real = os.path.realpath(root)  # the source may be a link
    places = [os.path.relpath(os.path.realpath(f), real) for f in folders if not scheme_of(f)]
    return [os.path.join(root, p) for p in places if p.split("/")[0] not in (".", "..")]
