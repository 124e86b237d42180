"""Buckets of S3 and compatible servers.

boto3 knows AWS's configuration: credentials, endpoints, regions, addressing, access points. obstore does
the requests, but for two kinds:

- Listings. obstore ends a listing with an error where one key has an empty part, or a part `.` or `..`.
- Reads of such keys, and of ranges where the server answers them with the status 200, as rclone does.
  They cost more CPU time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from typing import Any

from obstore.exceptions import BaseError

from lib.storage.answers import NO_AWS_CREDENTIALS, error_of
from lib.storage.bucket import CONNECT_SECONDS, Bucket, Object, Prefix, check_size, client_config
from lib.storage.errors import Fetched, PlaceError, RegionError, place_error, storage_error
from lib.storage.options import S3Options, ca_file, session_of

CONNECTIONS = 64
CREDENTIALS_SECONDS = 300
"""How long obstore may use credentials; botocore renews temporary ones ten minutes before their end."""


@lru_cache(maxsize=64)
def _client(options: S3Options, timeout: float) -> Any:
    """The client of boto3, without retries; making one takes a third of a second."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    session = session_of(options)
    style = (session.get_scoped_config().get("s3") or {}).get("addressing_style")
    config = Config(
        connect_timeout=min(CONNECT_SECONDS, timeout),
        read_timeout=timeout,
        max_pool_connections=CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": 1},
        # Compatible servers rarely support the newer checksums, or buckets as host names.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": style or ("path" if options.endpoint else "auto")},
        **({"signature_version": UNSIGNED} if options.anonymous else {}),
    )
    return boto3.session.Session(botocore_session=session).client(
        "s3",
        endpoint_url=options.endpoint,
        region_name=options.region,
        config=config,
        verify=ca_file(session),
    )


class S3Bucket(Bucket):
    """A bucket of S3; see `Bucket`."""

    def __init__(self, name: str, options: S3Options, attempts: int, timeout: float) -> None:
        """Connect to nothing yet.

        Args:
            name: of the bucket, or the ARN of an access point.
            options: which server, and as whom.
            attempts: of each request, at most.
            timeout: seconds that an attempt may take.

        Raises:
            PlaceError: there are no credentials, or no bucket can have this name.
            UserError: the options are impossible.
        """
        self._name, self._options = name, options.resolved()
        self._payer = {"RequestPayer": "requester"} if options.requester_pays else {}
        self._refused = False
        """Whether obstore refuses the ranges of this server."""
        super().__init__(self._open(timeout), attempts, timeout)

    def _open(self, timeout: float) -> Any:
        from obstore.auth.boto3 import Boto3CredentialProvider
        from obstore.store import S3Store

        self._boto = _client(self._options, timeout)
        session = session_of(self._options)
        who: dict[str, Any] = {"skip_signature": True}
        if not self._options.anonymous:
            if session.get_credentials() is None:
                raise place_error("access_denied", NO_AWS_CREDENTIALS)
            ttl = timedelta(seconds=CREDENTIALS_SECONDS)
            who = {"credential_provider": Boto3CredentialProvider(session, ttl=ttl)}
        config = client_config(timeout)
        if (ca := ca_file(session)) is not None:
            config["root_certificate"] = _certificates(ca)
        return S3Store(
            self._name,
            # Where boto3 finds the bucket, whatever its addressing.
            endpoint=self._url(),
            virtual_hosted_style_request=True,
            # Some servers do not know it, or want another checksum than the one that is sent.
            disable_bulk_delete=True,
            region=self._options.region or "us-east-1",
            request_payer=self._options.requester_pays,
            client_options=config,
            retry_config={"max_retries": 0},
            **who,
        )

    def _url(self) -> str:
        from botocore.exceptions import BotoCoreError

        try:
            url = self._boto.generate_presigned_url(
                "get_object", {"Bucket": self._name, "Key": "k"}
            )
        except BotoCoreError as error:
            raise error_of(error) from None
        return str(url.partition("?")[0].removesuffix("/k"))

    def _read(self, key: str, start: int, size: int | None, max_bytes: int | None) -> Fetched:
        part = start or size is not None
        if (part and self._refused) or not _is_plain(key):
            return self._read_with_boto(key, start, size, max_bytes)
        try:
            return super()._read(key, start, size, max_bytes)
        except BaseError as error:
            if "NotPartial" not in str(error):
                raise
        found = self._read_with_boto(key, start, size, max_bytes)
        self._refused = True
        return found

    def _read_with_boto(
        self, key: str, start: int, size: int | None, max_bytes: int | None
    ) -> Fetched:
        part = {}
        if start or size is not None:
            part["Range"] = f"bytes={start}-{'' if size is None else start + size - 1}"
        answer = self._boto.get_object(Bucket=self._name, Key=key, **part, **self._payer)
        with answer["Body"] as body:
            if part and not answer.get("ContentRange", "").startswith(f"bytes {start}-"):
                raise storage_error("download_error", "the server does not know byte ranges")
            check_size(answer["ContentLength"], max_bytes)
            return Fetched(body.read(), answer.get("ETag", "").strip('"'))

    def head(self, key: str) -> Object:
        """See `Bucket`."""
        if _is_plain(key):
            return super().head(key)
        found = self._retried(
            lambda: self._boto.head_object(Bucket=self._name, Key=key, **self._payer)
        )
        modified = found["LastModified"].timestamp()
        return Object(key, found["ContentLength"], found.get("ETag", "").strip('"'), modified)

    def pages(
        self, prefix: str, after: str = "", folders: bool = False
    ) -> Iterator[list[Object | Prefix]]:
        """See `Bucket`; up to a thousand items a page, with `folders`, too."""
        more: dict[str, Any] = {"StartAfter": after} if after else {}
        if folders:
            more["Delimiter"] = "/"
        while True:
            page = self._retried(
                lambda: self._boto.list_objects_v2(
                    Bucket=self._name, Prefix=prefix, **more, **self._payer
                )
            )
            found: list[Object | Prefix] = [
                Object(o["Key"], o["Size"], o["ETag"].strip('"'), o["LastModified"].timestamp())
                for o in page.get("Contents", ())
            ]
            if folders:
                found += [Prefix(p["Prefix"]) for p in page.get("CommonPrefixes", ())]
                found.sort(key=lambda item: item.key.encode())
            yield found
            if not page.get("IsTruncated"):
                return
            more["ContinuationToken"] = page["NextContinuationToken"]

    def _retried(self, operation: Any, conditional: bool = False) -> Any:
        try:
            return super()._retried(operation, conditional)
        except RegionError:
            region = self._region()
            if region in (None, self._options.region):
                raise
        self._options = replace(self._options, region=region)
        self._store = self._open(self._timeout)
        return super()._retried(operation, conditional)

    def _region(self) -> str | None:
        """Where the bucket is; its server says so even where it refuses."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer = self._boto.head_bucket(Bucket=self._name)
        except ClientError as error:
            answer = error.response
        except BotoCoreError:
            return None
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        region = headers.get("x-amz-bucket-region")
        return None if region is None else str(region)


def _is_plain(key: str) -> bool:
    """Whether obstore can address the key."""
    return key.isprintable() and not {"", ".", ".."} & {*key.split("/")}


def _certificates(file: str) -> bytes:
    try:
        with open(file, "rb") as opened:  # noqa: PTH123
            return opened.read()
    except OSError as error:
        raise PlaceError(
            error.errno, f"cannot read the certificates in {file!r}: {error.strerror}"
        ) from None
