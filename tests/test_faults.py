"""Whatever a server does, every way in ends with the right text or one clear line, and keeps what had arrived."""

import pytest
from conftest import new_shell
from faults.fault import KEY
from faults.grounds import KEY_VARIABLE, open_grounds, variables
from faults.table import FAULTS, TABLE
from faults.ways import WAYS, ask, problems


@pytest.fixture(scope="module")
def grounds(tmp_path_factory):
    """Give the servers of all faults."""
    with open_grounds(tmp_path_factory.mktemp("grounds")) as opened:
        yield opened


@pytest.fixture(scope="module")
def shell():
    """Give one shell for all cells."""
    with variables(**{KEY_VARIABLE: KEY}), new_shell() as opened:
        yield opened


def test_the_table_is_long_and_names_no_case_twice():
    """At least 150 cases, all of the four groups, each with a name of its own."""
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 150
    assert min(map(len, TABLE.values())) >= 30


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_ends_as_the_table_says_by_every_way(fault, way, grounds, shell, tmp_path):
    """The exact text, or the error in one line with what had arrived; the requests are counted, no key is shown."""
    assert list(problems(fault, ask(fault, way, grounds, tmp_path, shell))) == []
