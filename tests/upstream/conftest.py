import pytest

from tests.conftest import Runner


@pytest.fixture
def guard(guard_process: Runner) -> Runner:
    """Real processes: the hosts' stand-ins for what they download are installed by a sitecustomize.py."""
    return guard_process
