"""`serve-app settings` lists what the code takes."""

import json

from click.testing import CliRunner
from pydantic import BaseModel

from serve_app.cli import main
from serve_app.cli.settings import settings
from serve_app.config import Args, Scaling, Stub, UserConfig


def test_every_setting_is_listed_with_its_default_and_what_it_is_for() -> None:
    listed = json.loads(CliRunner().invoke(main, ["settings", "--json"], catch_exceptions=False).output)
    found = {(each["section"].rpartition(".")[2].removesuffix("[]"), each["key"]): each["default"] for each in listed}
    names: dict[str, type[BaseModel]] = {
        "args": Args,
        "stub": Stub,
        "user_config": UserConfig,
        "policy_kwargs": Scaling,
    }
    expected = {
        (section, key): field.default
        for section, model in names.items()
        for key, field in model.model_fields.items()
        if key != "stub"
    }
    assert found == expected
    assert all(each["description"] for each in listed)


def test_the_table_names_them_all() -> None:
    result = CliRunner(env={"COLUMNS": "120"}).invoke(main, ["settings"], catch_exceptions=False)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert all(any(line.split()[:1] == [setting.key] for line in lines) for setting in settings())
    assert "16777216 (16 MiB)" in result.output
