"""Options of storage, the same for every job."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any
from urllib.parse import urlsplit

import tyro

from lib.common.errors import UserError
from lib.storage.uris import scheme_of

TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class S3Options:
    """S3 server and account; AWS's environment and config files give what is left out.

    Attributes:
        endpoint: URL of an S3-compatible server.
        region: Of the bucket.
        profile: In AWS's config files.
        anonymous: Do not sign requests: for public buckets.
        requester_pays: Agree to pay for the requests.
    """

    endpoint: str | None = None
    region: str | None = None
    profile: str | None = None
    anonymous: bool = False
    requester_pays: bool = False

    def resolved(self) -> "S3Options":
        """The same options, completed by this machine's environment and AWS config files.

        Raises:
            UserError: the profile is unknown, the endpoint is no URL, or the region no name of one.
        """
        from botocore.exceptions import BotoCoreError
        from botocore.utils import validate_region_name

        try:
            session = session_of(self)
            config = session.get_scoped_config()
            endpoint = self.endpoint or _endpoint_of(session, config)
            region = self.region or session.get_config_variable("region") or "us-east-1"
            validate_region_name(region)
        except BotoCoreError as error:
            raise UserError(f"AWS's configuration: {error}") from None
        if endpoint is not None:
            parts = urlsplit(endpoint)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
                # The message leaves the URL out: it may contain a password.
                raise UserError(
                    "the endpoint of S3 must be a URL such as http://127.0.0.1:9000, no user in it"
                )
        profile = self.profile or session.get_config_variable("profile")
        return replace(self, endpoint=endpoint, region=region, profile=profile)


@dataclass(frozen=True)
class HttpOptions:
    """Images at `http://` and `https://` URLs.

    Attributes:
        per_host: Connections to one host at most, at a time; each worker has its share, at least one.
        private: Also read from loopback, link-local and private addresses.
        ignore_robots: Also read images whose answer says X-Robots-Tag: noai or noimageai.
    """

    per_host: int = 8
    private: bool = False
    ignore_robots: bool = False

    def check(self) -> None:
        """Check the values.

        Raises:
            UserError: one is impossible.
        """
        if self.per_host < 1:
            raise UserError(f"--http.per-host must be at least 1, not {self.per_host}")


@dataclass(frozen=True)
class StorageOptions:
    """How files are reached.

    Attributes:
        s3: S3 server and account.
        http: Images at URLs.
    """

    s3: S3Options = field(default_factory=S3Options)
    http: HttpOptions = field(default_factory=HttpOptions)

    @staticmethod
    def from_dict(found: Mapping[str, Any]) -> "StorageOptions":
        """The options of `dataclasses.asdict`.

        Raises:
            KeyError, TypeError: it is something else.
        """
        return StorageOptions(S3Options(**found["s3"]), HttpOptions(**found["http"]))

    def resolved(self) -> "StorageOptions":
        """The same options, those of S3 completed by this machine's environment and AWS config files.

        Raises:
            UserError: one is impossible.
        """
        return replace(self, s3=self.s3.resolved())

    def resolved_for(self, *places: str) -> "StorageOptions":
        """As `resolved` if one of the places is in S3 or an option of it is given; else unchanged.

        Raises:
            UserError: as `resolved`.
        """
        self.http.check()
        needed = self.s3 != S3Options() or any(scheme_of(place) == "s3" for place in places)
        return self.resolved() if needed else self


S3Option = Annotated[
    tyro.conf.FlagCreatePairsOff[S3Options], tyro.conf.arg(help="S3 server and account.")
]
"""The options `--s3.*` of a job that reads and writes folders only."""
StorageOption = Annotated[tyro.conf.FlagCreatePairsOff[StorageOptions], tyro.conf.arg(name="")]
"""The options `--s3.*` and `--http.*` of a job."""


def session_of(options: S3Options) -> Any:
    """The botocore session of the options' profile."""
    from botocore.session import Session

    return Session(profile=options.profile)


def _endpoint_of(session: Any, config: dict[str, Any]) -> str | None:
    """The endpoint that the environment or the profile gives, as boto3 would find it."""
    import boto3

    ignored = str(config.get("ignore_configured_endpoint_urls", "")).lower() == "true"
    if ignored:
        return None
    made = boto3.session.Session(botocore_session=session).client("s3", region_name="us-east-1")
    endpoint = made.meta.endpoint_url
    host = urlsplit(endpoint).hostname or ""
    return None if host.endswith((".amazonaws.com", ".amazonaws.com.cn")) else endpoint


def ca_file(session: Any) -> str | None:
    """The file with the certificates to trust: AWS's setting, or else that of OpenSSL."""
    return session.get_config_variable("ca_bundle") or os.environ.get("SSL_CERT_FILE")
