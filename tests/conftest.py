"""Fixtures that every test may use."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.azure_server import azure_server, install
from tests.ray_head import RayHead, ray_head, without_cluster
from tests.s3_server import (
    ENVIRONMENT,
    MotoServer,
    Proxy,
    S3Server,
    moto_server,
    proxy_before,
    s3_server,
)

# A suite that a shell starts in the background inherits a SIGINT that is ignored, and so would its jobs.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files beside this one: they hold some of the longest tests."""
    items.sort(key=lambda item: item.path.parent != Path(__file__).parent)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the shared data sets; a test that asks for it is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"the shared data sets are not at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small bundle, which no test changes."""
    # It imports TensorFlow, which most tests do without.
    from tests.bundles import make_bundle

    return make_bundle(tmp_path_factory.mktemp("model") / "tiny").folder


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """One S3 server for all tests; this process and the cluster have its credentials."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        with s3_server() as running:
            yield running


@pytest.fixture(scope="session")
def moto(s3: S3Server) -> Iterator[MotoServer]:
    """Another one, which answers ranges and conditions as AWS does."""
    with moto_server() as running:
        yield running


@pytest.fixture
def moto_proxy(moto: MotoServer) -> Iterator[Proxy]:
    """The same behind a proxy."""
    with proxy_before(moto) as running:
        yield running


@pytest.fixture(scope="session")
def azure(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """A server of Azure with the container `photos`; az:// leads to it."""
    program = install(request.config.cache.mkdir("azurite"))
    with (
        azure_server(program, tmp_path_factory.mktemp("azure")) as environment,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in environment.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def _proxy(s3: S3Server) -> Iterator[Proxy]:
    with proxy_before(s3) as running:
        yield running


@pytest.fixture
def proxy(_proxy: Proxy) -> Iterator[Proxy]:
    """The server behind a proxy that can make it fail; at first it does not."""
    _proxy.reset()
    yield _proxy
    _proxy.reset()


@pytest.fixture(scope="session")
def head() -> Iterator[RayHead]:
    """One Ray cluster for all tests; more logical CPUs than cores, so that nothing waits for room."""
    with ray_head(cpus=4, more=ENVIRONMENT, dashboard=True) as running:
        yield running


@pytest.fixture
def alone() -> dict[str, str]:
    """The environment of a job without a cluster."""
    return without_cluster()
