"""`rayline model`."""

import pathlib
from typing import Annotated

import typer

from .common import PROJECT_ROOT, JsonOption, app, print_json, print_line

model = typer.Typer(help="Files of models: the numbers that the plan needs.", no_args_is_help=True)
app.add_typer(model, name="model", epilog="Example: rayline model add Qwen/Qwen3-8B")

FolderOption = Annotated[pathlib.Path, typer.Option("--folder", help="Folder with the files.", show_default="models/")]


@model.command(epilog="Example: rayline model add meta-llama/Llama-3.1-8B-Instruct")
def add(
    source: Annotated[
        str, typer.Argument(metavar="MODEL", help="Hugging Face id, a folder with the model, or gs://BUCKET/FOLDER.")
    ],
    name: Annotated[
        str | None, typer.Option("--as", help="The service's `model`, such as gs://my-bucket/my-model. Default: MODEL.")
    ] = None,
    like: Annotated[
        str | None, typer.Option("--like", help="For a fine-tune: the base, whose numbers it takes. Nothing is fetched.")
    ] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Commit, tag or branch. Default: main.")] = None,
    given: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A value that the model's files do not say.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite the model's file.")] = False,
    folder: FolderOption = PROJECT_ROOT / "models",
    as_json: JsonOption = False,
) -> None:
    """Read a model's config.json and safetensors headers, and write its file. No weights are downloaded."""
    from rayline_cli import model_files

    added = model_files.add(source, folder, name=name, like=like, revision=revision, given=given or (), replace=replace)
    if as_json:
        print_json(added)
        return
    print_line(added.text.rstrip())
    print_line(f"\nwritten: {added.file}; commit it, and set `model: {added.model}` in a service")


@model.command("list", epilog="Example: rayline model list")
def list_models(folder: FolderOption = PROJECT_ROOT / "models", as_json: JsonOption = False) -> None:
    """List the models that have a file: the kit's and those of the folder."""
    from rayline_cli import model_files

    known = model_files.known(folder)
    if as_json:
        print_json([model.model_dump(exclude_defaults=True) for model in known.values()])
        return
    for name, row in known.items():
        print_line(f"{name}  {row.parameters / 1e9:.2f} B parameters, {row.weights_bytes / 2**30:.1f} GiB, {row.licence}")
