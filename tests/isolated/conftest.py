from __future__ import annotations

from collections.abc import Iterator

import pytest
from scene import Scene, scene


@pytest.fixture
def stage() -> Iterator[Scene]:
    """The scene, at whose end the siblings have to work."""
    with scene() as stage:
        yield stage
        stage.assert_siblings_work()
