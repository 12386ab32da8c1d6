"""The whole test run happens in namespaces of its own: root or not, it neither sees nor touches the host's network."""

import pytest

from vethlib import ns


def pytest_configure(config: pytest.Config) -> None:
    ns.isolate()
