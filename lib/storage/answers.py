"""What a server of object storage answered, or why it did not: short messages without secrets.

obstore tells the cause of a failure only in the text of its error. `tests/lib/storage/test_bucket.py`
makes each of them with a real server, so a release of obstore with other texts fails there.
"""

import errno
import re

from obstore.exceptions import UnauthenticatedError
from urllib3.exceptions import HTTPError, TimeoutError

from lib.storage.errors import ConditionsError, RegionError, place_error, storage_error
from lib.storage.retry import Transient

NO_CREDENTIALS = "no credentials here; give them in the environment or files of the provider"
NO_AWS_CREDENTIALS = (
    "no AWS credentials here; give them in AWS's environment or files, or use --s3.anonymous"
)
UNTRUSTED = (
    "the server's certificate is not trusted; give the certificate of its CA in AWS_CA_BUNDLE or "
    "SSL_CERT_FILE"
)
OWN_CA = (
    "the server's certificate is its own CA, which is not accepted; make one with openssl's "
    "-addext basicConstraints=critical,CA:FALSE, or sign it with a CA"
)
TOO_SLOW = "the server took too long to send the bytes"
BROKEN = "the connection was reset, or ended before all bytes had come"
NO_TLS = "the server does not speak TLS; check the https:// of the endpoint"
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,60})</Code>")
_QUERY = re.compile(r"\?\S*")
"""Of an address in a message: it may hold a token."""
_PLACE_CODES = frozenset({"NoSuchBucket", "ContainerNotFound"})
_TRANSIENT_CODES = frozenset({"RequestTimeout", "SlowDown", "InternalError"})
_REGION_CODES = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed"})
_CREDENTIAL_CODES = frozenset(
    {
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "InvalidToken",
        "TokenRefreshRequired",
        "AuthenticationFailed",
    }
)


def error_of_answer(status: int, code: str = "", conditional: bool = False) -> Exception:
    """The error of an answer; without the server's text, which may hold the request.

    Args:
        status: of HTTP.
        code: in the body: `NoSuchKey`, `SlowDown`, …
        conditional: whether the request was a write with a condition.
    """
    code = "" if code.isdecimal() else code
    said = f"{status} {code}".strip()
    if code in _PLACE_CODES:
        return place_error("not_found", "no such bucket")
    if status == 404 or code == "NoSuchKey":
        return storage_error("not_found", "no such object")
    if code in _CREDENTIAL_CODES:
        return place_error("access_denied", f"the server refuses the credentials ({said})")
    if status in (401, 403):
        return storage_error("access_denied", f"the server refuses it ({said})")
    if status == 301 or code in _REGION_CODES:
        return RegionError(errno.EIO, f"the bucket is in another region ({said})")
    if conditional and status in (400, 501):
        return ConditionsError(errno.EIO, f"the server does not know conditional writes ({said})")
    if status in (408, 429) or (status >= 500 and status != 501) or code in _TRANSIENT_CODES:
        return Transient(f"the server answered {said}")
    return storage_error("download_error", f"the server answered {said}")


def error_of(error: Exception, conditional: bool = False) -> Exception:
    """The error for an exception of obstore or botocore; one of ours is given back.

    Args:
        error: any.
        conditional: whether the request was a write with a condition.
    """
    if isinstance(error, Transient) or (isinstance(error, OSError) and error.errno is not None):
        return error
    if isinstance(error, HTTPError):  # while botocore read a body
        return Transient(TOO_SLOW if isinstance(error, TimeoutError) else BROKEN)
    if type(error).__module__.startswith("botocore"):
        return _of_botocore(error, conditional)
    return _of_obstore(error, conditional)


def _of_obstore(error: Exception, conditional: bool) -> Exception:
    text = str(error)
    head, _, details = text.partition("Debug source:")
    if status := _STATUS.search(head):
        code = _CODE.search(text)
        return error_of_answer(int(status[1]), code[1] if code else "", conditional)
    if isinstance(error, UnauthenticatedError):
        return place_error("access_denied", NO_CREDENTIALS)
    if isinstance(error, FileNotFoundError):
        return storage_error("not_found", "no such object")
    if "redirect without LOCATION" in head:
        return RegionError(errno.EIO, "the bucket is in another region")
    if "CaUsedAsEndEntity" in details:
        return place_error("download_error", OWN_CA)
    if "InvalidCertificate" in details:
        return place_error("download_error", UNTRUSTED)
    if "InvalidContentType" in details:
        return place_error("download_error", NO_TLS)
    if "dns error" in details:
        return Transient("the server's name is unknown", of_place=True)
    if "ConnectError" in details:
        return Transient("the server cannot be reached", of_place=True)
    if "TimedOut" in details:  # before it answered at all, or in a body
        return Transient(TOO_SLOW, of_place="error sending request" in head)
    if "HTTP error" in head:
        return Transient(BROKEN)
    said = _QUERY.sub("", head.strip().splitlines()[0])[:200]
    return storage_error("download_error", f"the storage failed: {said}")


def _of_botocore(error: Exception, conditional: bool) -> Exception:
    from botocore import exceptions as boto

    match error:
        case boto.ClientError():
            answer = error.response
            status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            return error_of_answer(status, answer.get("Error", {}).get("Code", ""), conditional)
        case boto.NoCredentialsError():
            return place_error("access_denied", NO_AWS_CREDENTIALS)
        case boto.ParamValidationError():
            return place_error("not_found", "no bucket can have this name")
        case boto.SSLError():
            verified = "CERTIFICATE_VERIFY_FAILED" not in str(error)
            return place_error("download_error", NO_TLS if verified else UNTRUSTED)
        case boto.ReadTimeoutError():
            return Transient(TOO_SLOW)
        case boto.EndpointConnectionError() | boto.ConnectTimeoutError():
            return Transient("the server cannot be reached", of_place=True)
        case boto.HTTPClientError() | boto.IncompleteReadError() | boto.ResponseStreamingError():
            return Transient(BROKEN)
        case _:
            return storage_error("download_error", str(error).splitlines()[0])
