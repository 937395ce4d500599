import pytest


@pytest.fixture(autouse=True, scope="module")
def quick(no_curves):
    """Curves are tested in `reporting` and by the commands."""
