"""A value that `pulumi config set --secret` encrypted is refused by the program where it would come out in clear text."""

import pathlib

import pytest

from tests.engine.conftest import a_life

pytestmark = pytest.mark.engine

SECRET = "recognisable-and-17"


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("services.chat.pods.env.PLAINLOOKING", "services"),
        ("services.chat.replicas", "services"),
        ("gcp:project", "gcp:project"),
    ],
)
def test_a_secret_that_the_program_would_write_out_stops_it_before_anything_is_made(
    tmp_path: pathlib.Path, stand_ins: pathlib.Path, path: str, key: str
) -> None:
    life = a_life(tmp_path, "kind", stand_ins)
    life.project.pulumi("config", "set", "--stack", "kind", "--secret", "--path", path, stdin=SECRET)
    run = life.do("up", "up")
    assert run.code != 0
    assert f"{key}: encrypted (`secure:`), itself or below" in run.output
    assert life.operations["up"] == []
    assert [name for name, text in life.written().items() if SECRET in text] == []
