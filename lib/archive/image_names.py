"""Names of images as people and tables write them → uris."""

from lib.storage.uris import FILE_SCHEME, is_data_uri, scheme_of, with_lower_scheme


def named_uri(name: str, base: str) -> str | None:
    """The uri of an image that a table names; None where it leads out of the bucket.

    Args:
        name: a path or a uri.
        base: the folder to which names are relative, without a slash at the end. In object storage `.`
            and `..` in a relative name are resolved, because keys are plain text there.
    """
    name = with_lower_scheme(name)
    if scheme_of(name) or name.startswith(("/", FILE_SCHEME)) or is_data_uri(name):
        return name
    return _in_bucket(name, base) if scheme_of(base) else f"{base}/{name}"


def _in_bucket(name: str, base: str) -> str | None:
    start, bucket, *folders = base.replace("://", "/", 1).split("/")
    for part in name.split("/"):
        if part == ".." and not folders:
            return None
        if part == "..":
            folders.pop()
        elif part != ".":
            folders.append(part)
    return f"{start}://{'/'.join([bucket, *folders])}"
