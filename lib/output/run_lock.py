"""A lock: at most one run writes into an output at a time.

On a local disk the run locks the file `lock.json`; the system releases it when the run ends, for any
reason. In object storage, and on file systems without file locks, the file itself is the lock (a lease).
Its holder renews it; otherwise it expires, by the clock of the storage. With conditional writes (S3 and
most compatible servers) two runs never hold it together; without them, a run checks after
`SETTLE_SECONDS` that it wrote last.
"""

import fcntl
import json
import logging
import os
import secrets
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple, Self

from lib.common.errors import UserError, reason_of
from lib.storage.bucket import Bucket
from lib.storage.buckets import open_bucket
from lib.storage.errors import ConditionsError
from lib.storage.folder import Folder

FILE = "lock.json"
EXPIRES_SECONDS = 60.0
RENEW_SECONDS = 15.0
ATTEMPTS, TIMEOUT_SECONDS = 4, 5.0
"""Of each request: a stalled one ends before the lock expires."""
SETTLE_SECONDS = 2.0
"""Time after which a storage without conditional writes shows the last write."""

log = logging.getLogger("score")


class RunLock:
    """Holds the lock of an output while a `with` block runs.

    Raises:
        UserError: on entering, where another run holds it.
    """

    def __init__(self, output: Folder) -> None:
        self._output = output
        self._lock: _LocalLock | _Lease
        self._lock = _LocalLock(output) if output.is_local else _Lease(output)

    def __enter__(self) -> Self:
        try:
            self._lock.take()
        except _NoFileLocksError:
            self._lock = _Lease(self._output)
            self._lock.take()
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()


class _NoFileLocksError(Exception):
    """The file system does not know file locks: ENOSYS, ENOLCK, EOPNOTSUPP."""


class _LocalLock:
    def __init__(self, output: Folder) -> None:
        self._output = output

    def take(self) -> None:
        try:
            self._output.make()
            self._file = Path(self._output.uri, FILE).open("a+")  # noqa: SIM115 - it stays open
        except OSError as error:
            raise UserError(f"cannot write to {str(self._output)!r}: {error.strerror}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = _parse(self._file.read().encode())
            self._file.close()
            raise UserError(_taken(self._output, holder)) from None
        except OSError as error:
            self._file.close()
            raise _NoFileLocksError from error
        self._file.truncate(0)
        self._file.write(json.dumps(_me("")))
        self._file.flush()

    def release(self) -> None:
        # The file stays: another run may have it open and wait for its lock.
        self._file.truncate(0)
        self._file.close()


class _Found(NamedTuple):
    holder: dict[str, Any]
    version: Any
    age: float


class _Lease:
    def __init__(self, output: Folder) -> None:
        self._output = output
        self._token = secrets.token_hex(8)
        self._version: Any = None
        self._conditional = True
        self._done = Event()
        self._thread = Thread(target=self._renew, name="lock", daemon=True)

    def take(self) -> None:
        try:
            self._take()
        except OSError as error:
            raise UserError(f"cannot write to {str(self._output)!r}: {reason_of(error)}") from None
        self._thread.start()

    def _take(self) -> None:
        found = self._look()
        if found is not None and not self._is_free(found):
            left = max(0, round(EXPIRES_SECONDS - found.age))
            hint = f"if that was killed, its lock expires in {left} s"
            raise UserError(f"{_taken(self._output, found.holder)}; {hint}")
        self._write(found.version if found else None, new=found is None)
        if self._write(new=True):
            # The file exists, so this storage ignores conditions.
            self._conditional = False
        if not self._conditional:
            time.sleep(SETTLE_SECONDS)
        found = self._look()
        if found is None or found.holder.get("token") != self._token:
            raise UserError(_taken(self._output, found.holder if found else {}))
        self._version = found.version

    def _is_free(self, found: _Found) -> bool:
        """Whether the lock has expired, or its holder was a process of this machine that has ended."""
        if found.age >= EXPIRES_SECONDS or not found.holder.get("token"):
            return True
        me = _me("")
        if any(found.holder.get(name) != me[name] for name in ("host", "machine")):
            return False
        try:
            os.kill(int(found.holder["pid"]), 0)
        except (ProcessLookupError, ValueError, KeyError):
            return True
        except OSError:
            return False
        return False

    def release(self) -> None:
        self._done.set()
        self._thread.join()
        with suppress(OSError):  # it expires
            found = self._look()
            if found is not None and found.holder.get("token") == self._token:
                self._output.delete(FILE)

    def _renew(self) -> None:
        held = time.monotonic()
        while not self._done.wait(RENEW_SECONDS):
            now = time.monotonic()
            try:
                self._write(self._version)
                found = self._look()
            except OSError as error:
                log.warning("the lock could not be renewed: %s", reason_of(error))
                if time.monotonic() - held < EXPIRES_SECONDS:
                    continue
                log.error("error: the lock has expired, and another run may have it")
                break
            if found is None or found.holder.get("token") != self._token:
                log.error("error: %s", _taken(self._output, found.holder if found else {}))
                break
            held, self._version = now, found.version
        else:
            return
        os.kill(os.getpid(), signal.SIGINT)  # the same as Ctrl-C: a later start continues

    def _write(self, replacing: Any = None, new: bool = False) -> bool:
        """Write the lock if the condition holds, where the storage knows conditions."""
        data = json.dumps(_me(self._token)).encode()
        if self._output.is_local:
            self._output.write(FILE, data)
            return True
        bucket, key = self._place()
        if self._conditional:
            try:
                return bucket.write(key, data, replacing, new) is not None
            except ConditionsError:
                self._conditional = False
        return bucket.write(key, data) is not None

    def _look(self) -> _Found | None:
        if self._output.is_local:
            return self._look_at_file()
        bucket, key = self._place()
        found = bucket.versioned(key)
        if found is None:
            return None
        holder = _parse(found.data)
        age = 0.0 if holder.get("token") == self._token else self._now() - found.modified
        return _Found(holder, found.version, age)

    def _now(self) -> float:
        """The time by the clock of the storage: that of an object which is written for it."""
        bucket, key = self._place()
        clock = f"{key}.{self._token}"
        bucket.write(clock, b"")
        try:
            return bucket.head(clock).modified
        finally:
            bucket.delete([clock])

    def _place(self) -> tuple[Bucket, str]:
        return open_bucket(
            f"{self._output.uri}/{FILE}", self._output.options, ATTEMPTS, TIMEOUT_SECONDS
        )

    def _look_at_file(self) -> _Found | None:
        """The lock on a file system without file locks."""
        path = Path(self._output.uri, FILE)
        try:
            data = path.read_bytes()
            written = path.stat().st_mtime
        except FileNotFoundError:
            return None
        return _Found(_parse(data), None, time.time() - written)


def _me(token: str) -> dict[str, Any]:
    """The holder of the lock; process ids are comparable only on the same machine."""
    machine = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        machine = f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    return {"token": token, "host": socket.gethostname(), "pid": os.getpid(), "machine": machine}


def _parse(data: bytes) -> dict[str, Any]:
    try:
        holder = json.loads(data)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _taken(output: Folder, holder: dict[str, Any]) -> str:
    who = f" (process {holder['pid']} on {holder['host']})" if holder.get("pid") else ""
    return f"another run{who} is writing to {str(output)!r}; wait for it, or give another --output"
