"""The bucket of a URI: `s3://`, `gs://`, `az://`."""

from __future__ import annotations

import os
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, ObjectStore

from lib.common.errors import UserError
from lib.storage.bucket import Bucket, client_config
from lib.storage.options import TIMEOUT_SECONDS, S3Options, StorageOptions
from lib.storage.retry import ATTEMPTS
from lib.storage.s3 import S3Bucket
from lib.storage.uris import bucket_and_key, scheme_of

if TYPE_CHECKING:
    from obstore.store import AzureConfig

SCHEMES = ("s3", "gs", "az")
_lock = Lock()


def open_bucket(
    uri: str,
    options: StorageOptions | None = None,
    attempts: int = ATTEMPTS,
    timeout: float = TIMEOUT_SECONDS,
) -> tuple[Bucket, str]:
    """The bucket of a URI and the key in it; a process has one client for each bucket.

    Args:
        uri: of an object or prefix.
        options: how it is reached.
        attempts: of each request, at most.
        timeout: seconds that an attempt may take.

    Raises:
        PlaceError: there are no credentials.
        UserError: the URI or the options are impossible.
    """
    name, key = bucket_and_key(uri)
    with _lock:  # threads that start together share one
        bucket = _bucket(scheme_of(uri), name, (options or StorageOptions()).s3, attempts, timeout)
    return bucket, key


@lru_cache(maxsize=64)
def _bucket(scheme: str, name: str, options: S3Options, attempts: int, timeout: float) -> Bucket:
    if scheme == "s3":
        return S3Bucket(name, options, attempts, timeout)
    try:
        store = _azure(name, timeout) if scheme == "az" else _google(name, timeout)
    except (BaseError, ValueError, OSError) as error:
        raise UserError(f"{scheme}://{name}: {str(error).splitlines()[0]}") from None
    return Bucket(store, attempts, timeout)


def _google(name: str, timeout: float) -> ObjectStore:
    return GCSStore(name, client_options=client_config(timeout), retry_config={"max_retries": 0})


def _azure(name: str, timeout: float) -> ObjectStore:
    account = os.environ.get("AZURE_STORAGE_ACCOUNT") or os.environ.get(
        "AZURE_STORAGE_ACCOUNT_NAME"
    )
    if not account and not os.environ.get("AZURE_STORAGE_USE_EMULATOR"):
        raise UserError("az:// needs the account's name in AZURE_STORAGE_ACCOUNT")
    # obstore looks for the credentials itself.
    config: AzureConfig = {"account_name": account} if account else {}
    return AzureStore(
        name,
        config=config,
        client_options=client_config(timeout),
        retry_config={"max_retries": 0},
    )
