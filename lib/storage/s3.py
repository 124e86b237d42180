"""A client for S3 and compatible servers: boto3, with a faster path for reading objects.

boto3 takes 1.4 ms of a core to read an object of 5 KB; pyarrow's client sends two requests (HEAD, GET)
and does not support requester-pays buckets. `S3.read` sends one GET that botocore signs: 0.5 ms.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from email.utils import parsedate_to_datetime
from threading import Lock
from typing import Any, NamedTuple
from urllib.parse import quote

from lib.storage.options import TIMEOUT_SECONDS, S3Options, session_of
from lib.storage.retry import ATTEMPTS, Transient, retrying
from lib.storage.s3_errors import (
    NO_CREDENTIALS,
    S3Error,
    connection_error,
    error_of,
    error_of_body,
)

# botocore logs at every start where it has found credentials.
logging.getLogger("botocore.credentials").setLevel(logging.WARNING)

CONNECTIONS = 64
CONNECT_SECONDS = 5.0
SLOWEST_BYTES_A_SECOND = 1 << 20
"""Large objects get more time than `TIMEOUT_SECONDS`: as long as they arrive at this speed."""
_CHUNK = 1 << 20


class _OtherRegionError(Exception):
    """The bucket is in another region."""

    def __init__(self, region: str) -> None:
        super().__init__(region)
        self.region = region


class Object(NamedTuple):
    """A listed object; `modified` in seconds since 1970."""

    key: str
    size: int
    etag: str
    modified: float = 0.0


class Prefix(NamedTuple):
    """A common prefix of keys that are not listed individually."""

    key: str


class S3:
    """A client for one set of options; threads may share it."""

    def __init__(
        self, options: S3Options, attempts: int = ATTEMPTS, timeout: float = TIMEOUT_SECONDS
    ) -> None:
        """Make a client.

        Args:
            options: which server, and as whom.
            attempts: of all requests but `read`.
            timeout: seconds to wait for an answer, in each attempt of all requests but `read`.

        Raises:
            UserError: the options are impossible.
        """
        import boto3
        import urllib3
        from botocore import UNSIGNED
        from botocore.config import Config

        options = options.resolved()
        self._options = options
        self._attempts = attempts
        self._session = session_of(options)
        config = Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=timeout,
            max_pool_connections=CONNECTIONS,
            retries={"mode": "standard", "total_max_attempts": attempts},
            # Compatible servers rarely support the newer checksums, or buckets as host names.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"} if options.endpoint else {},
            **({"signature_version": UNSIGNED} if options.anonymous else {}),
        )
        self._client = boto3.session.Session(botocore_session=self._session).client(
            "s3", endpoint_url=options.endpoint, region_name=options.region, config=config
        )
        self._region = self._client.meta.region_name
        self._payer = {"RequestPayer": "requester"} if options.requester_pays else {}
        self._pool = urllib3.PoolManager(maxsize=CONNECTIONS, retries=False)
        self._bases: dict[str, str] = {}
        self._elsewhere: dict[str, S3] = {}
        """The clients for buckets in other regions than that of the options."""
        self._lock = Lock()

    def read(
        self,
        bucket: str,
        key: str,
        start: int = 0,
        size: int | None = None,
        max_bytes: int | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> tuple[bytes, str]:
        """Read an object or a range of it in one request; transient failures are retried.

        Args:
            bucket: of the object.
            key: of the object.
            start: first byte.
            size: bytes to read; None reads to the end.
            max_bytes: nothing is read if the object or range is larger.
            timeout: seconds for one attempt.

        Returns:
            The bytes and the etag.

        Raises:
            S3Error: the object cannot be read.
        """
        if size == 0:
            return b"", ""  # HTTP has no empty range
        if bucket in self._elsewhere:
            return self._elsewhere[bucket].read(bucket, key, start, size, max_bytes, timeout)
        try:
            return retrying(
                lambda: self._read(bucket, key, start, size, max_bytes, timeout), timeout
            )
        except Transient as failure:
            raise S3Error("download_error", str(failure)) from None
        except _OtherRegionError as error:
            self._elsewhere[bucket] = client(replace(self._options, region=error.region))
            return self.read(bucket, key, start, size, max_bytes, timeout)

    def _read(
        self,
        bucket: str,
        key: str,
        start: int,
        size: int | None,
        max_bytes: int | None,
        timeout: float,
    ) -> tuple[bytes, str]:
        import urllib3

        headers = {}
        if start or size is not None:
            headers["Range"] = f"bytes={start}-{'' if size is None else start + size - 1}"
        deadline = time.monotonic() + timeout
        limits = urllib3.Timeout(connect=min(CONNECT_SECONDS, timeout), read=timeout)
        url = self._base(bucket) + quote(key, safe="/~")
        try:
            # Not `request`, which resolves . and .. in a key.
            response = self._pool.connection_from_url(url).urlopen(
                "GET", f"/{url.split('/', 3)[3]}", headers=self._signed(url, headers),
                timeout=limits, retries=False, redirect=False, preload_content=False,
                decode_content=False,
            )  # fmt: skip
            try:
                data = self._body(response, size, max_bytes, deadline)
            except BaseException:
                response.close()  # the unread rest of the body blocks the connection
                raise
            response.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Transient(connection_error(error)) from None
        return data, response.headers.get("ETag", "").strip('"')

    def _body(
        self, response: Any, size: int | None, max_bytes: int | None, deadline: float
    ) -> bytes:
        if response.status not in (200, 206):
            region = response.headers.get("x-amz-bucket-region", self._region)
            if region != self._region:
                raise _OtherRegionError(region)
            raise error_of_body(response.status, response.read(4096))
        length = response.headers.get("Content-Length")
        if max_bytes is not None and length is not None and int(length) > max_bytes:
            raise S3Error("too_large", f"{length} bytes; the limit is {max_bytes}")
        deadline += int(length or 0) / SLOWEST_BYTES_A_SECOND
        parts = []
        read = 0
        while part := response.read1(_CHUNK):
            parts.append(part)
            read += len(part)
            if max_bytes is not None and read > max_bytes:
                raise S3Error("too_large", f"more than {max_bytes} bytes, the limit")
            if time.monotonic() > deadline:
                raise Transient("the server took too long to send the bytes")
        if length is not None and read != int(length):
            raise Transient(f"only {read} of {length} bytes came")
        if size is not None and response.status == 200 and read > size:
            raise S3Error("download_error", "the server does not know byte ranges")
        return b"".join(parts)

    def _signed(self, url: str, headers: dict[str, str]) -> dict[str, str]:
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest

        if self._options.requester_pays:
            headers["x-amz-request-payer"] = "requester"
        if self._options.anonymous:
            return headers
        credentials = self._session.get_credentials()
        if credentials is None:
            raise S3Error("access_denied", NO_CREDENTIALS)
        request = AWSRequest("GET", url, headers=headers)
        S3SigV4Auth(credentials, "s3", self._region).add_auth(request)
        return dict(request.headers.items())

    def _base(self, bucket: str) -> str:
        """The URL of a bucket, as boto3 derives it from its configuration."""
        from botocore.exceptions import NoCredentialsError, ParamValidationError

        with self._lock:
            if bucket not in self._bases:
                try:
                    url = self._client.generate_presigned_url(
                        "get_object", {"Bucket": bucket, "Key": "k"}
                    )
                except NoCredentialsError:
                    raise S3Error("access_denied", NO_CREDENTIALS) from None
                except ParamValidationError:
                    raise S3Error("not_found", f"no bucket can be called {bucket!r}") from None
                self._bases[bucket] = url.partition("?")[0].removesuffix("k")
            return self._bases[bucket]

    def read_with_age(self, bucket: str, key: str) -> tuple[bytes, str, float]:
        """An object, its etag, and its age in seconds by the server's clock.

        Raises:
            S3Error: the object cannot be read.
        """
        from botocore.exceptions import BotoCoreError

        answer = self._call("get_object", Bucket=bucket, Key=key, **self._payer)
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        age = (now - answer["LastModified"]).total_seconds()
        try:
            return answer["Body"].read(), answer["ETag"].strip('"'), age
        except BotoCoreError:
            raise S3Error(
                "download_error", "the connection ended before all bytes had come"
            ) from None

    def size(self, bucket: str, key: str) -> tuple[int, str]:
        """Size and etag of an object.

        Raises:
            S3Error: the object cannot be read.
        """
        found = self._call("head_object", Bucket=bucket, Key=key, **self._payer)
        return found["ContentLength"], found["ETag"].strip('"')

    def pages(
        self, bucket: str, prefix: str, after: str = "", folders: bool = False
    ) -> Iterator[list[Object | Prefix]]:
        """List a prefix in the order of its keys, up to a thousand at a time.

        Args:
            bucket: to look in.
            prefix: that the keys begin with.
            after: list only keys behind this one.
            folders: list common prefixes in place of the keys of folders below the prefix.

        Raises:
            S3Error: it cannot be listed.
        """
        more: dict[str, Any] = {"StartAfter": after} if after else {}
        if folders:
            more["Delimiter"] = "/"
        while True:
            page = self._call(
                "list_objects_v2", Bucket=bucket, Prefix=prefix, **more, **self._payer
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

    def write(self, bucket: str, key: str, data: bytes, **conditions: str) -> str | None:
        """Write an object, whole or not at all.

        Args:
            bucket: to write into.
            key: of the object.
            data: its bytes.
            conditions: `IfNoneMatch="*"`, `IfMatch=etag`.

        Returns:
            The etag; None if a condition does not hold.

        Raises:
            S3Error: it cannot be written.
        """
        try:
            answer = self._call("put_object", Bucket=bucket, Key=key, Body=data, **conditions)
        except S3Error as error:
            if conditions and error.status == "precondition":
                return None
            raise
        return answer["ETag"].strip('"')

    def copy(self, bucket: str, source: str, target: str) -> None:
        """Copy an object within its bucket."""
        self._call(
            "copy_object", Bucket=bucket, Key=target, CopySource={"Bucket": bucket, "Key": source}
        )

    def delete(self, bucket: str, key: str) -> None:
        """Delete an object; none is no error."""
        self._call("delete_object", Bucket=bucket, Key=key)

    def delete_all(self, bucket: str, keys: Sequence[str]) -> None:
        """Delete objects, a thousand in a request.

        Raises:
            S3Error: one cannot be deleted.
        """
        for start in range(0, len(keys), 1000):
            some = [{"Key": key} for key in keys[start : start + 1000]]
            answer = self._call(
                "delete_objects", Bucket=bucket, Delete={"Objects": some, "Quiet": True}
            )
            if errors := answer.get("Errors"):
                raise S3Error("download_error", f"cannot delete {errors[0].get('Key')!r}")

    def _call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            return getattr(self._client, operation)(**arguments)
        except ClientError as error:
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            refusal = error_of(status, error.response.get("Error", {}).get("Code", ""))
            if isinstance(refusal, Transient):  # boto3 has retried
                refusal = S3Error("download_error", f"{refusal} (tried {self._attempts} times)")
            raise refusal from None
        except NoCredentialsError:
            raise S3Error("access_denied", NO_CREDENTIALS) from None
        except BotoCoreError as error:
            raise S3Error("download_error", f"{str(error).splitlines()[0]}") from None


_clients: dict[tuple[S3Options, int, float], S3] = {}
_clients_lock = Lock()


def client(options: S3Options, attempts: int = ATTEMPTS, timeout: float = TIMEOUT_SECONDS) -> S3:
    """The client of this process for some options; making one takes a third of a second."""
    wanted = options, attempts, timeout
    with _clients_lock:
        if wanted not in _clients:
            _clients[wanted] = S3(*wanted)
        return _clients[wanted]
