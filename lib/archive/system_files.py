"""Files that operating systems, NAS devices and editors leave among the pictures."""

FILE_PREFIX = "._"
"""macOS keeps the attributes of `x.jpg` in `._x.jpg`, which is no picture."""
FILES = frozenset({".ds_store", "thumbs.db", "desktop.ini"})
FOLDERS = frozenset(
    {
        "@eadir",
        ".ipynb_checkpoints",
        ".trashes",
        "#recycle",
        "$recycle.bin",
        "__macosx",
        ".thumbnails",
        "lost+found",
    }
)
"""Previews, waste bins and backups. Windows and NAS devices differ in upper and lower case."""
FOLDER_PREFIX = ".trash-"
"""Followed by the number of the user: `.Trash-1000`."""


def is_system_file(path: str) -> bool:
    """Whether a file is a system file, or lies in a folder of such files.

    Args:
        path: relative to the source, with slashes; the path of a folder ends in a slash.
    """
    path = path.lower()
    *folders, name = path.split("/")
    if name.startswith(FILE_PREFIX) or name in FILES or not FOLDERS.isdisjoint(folders):
        return True
    # First a quick look, for millions of files.
    return FOLDER_PREFIX in path and any(part.startswith(FOLDER_PREFIX) for part in folders)
