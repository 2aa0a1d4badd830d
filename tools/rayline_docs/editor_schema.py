"""Write the JSON Schemas of stack files and of models' files. Editors complete and check them (yaml-language-server)."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from rayline.models.catalog import SCHEMA as MODEL_FILE
from rayline.models.model import AttentionLayers, Model, RecurrentLayers
from rayline.platform.arguments import InferencePlatformArgs
from rayline.schema.base import Arguments
from rayline.schema.read import PROVIDER_KEYS, TOKEN_KEY
from rayline.schema.texts import field_texts
from rayline_cli.stack_names import PROJECT_ROOT
from rayline_docs.keys import places

FILE = PROJECT_ROOT / "stacks" / "schema.json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(project: str = "rayline") -> dict[str, Any]:
    """Return the JSON Schema. Keys of the program may have the project's prefix, as Pulumi's CLI writes them."""
    made = InferencePlatformArgs.model_json_schema()
    definitions = made["$defs"]
    for arguments in {arguments for _, arguments in places()}:
        properties = (made if arguments is InferencePlatformArgs else definitions[arguments.__name__])["properties"]
        _describe(arguments, properties)
    definitions["HuggingFaceArgs"]["properties"].pop("token")
    own = {str(PROVIDER_KEYS.get(key, key)): value for key, value in made["properties"].items()}
    secret = {"type": "object", "properties": {"secure": {"type": "string"}}, "required": ["secure"]}
    own[TOKEN_KEY] = secret | {"description": f"Written by `pulumi config set --secret {TOKEN_KEY}`."}
    prefixed = {f"{project}:{key}": value for key, value in own.items() if ":" not in key}
    needed = [{"anyOf": [{"required": [key]}, {"required": [f"{project}:{key}"]}]} for key in made["required"]]
    config = {
        "type": "object",
        "properties": own | prefixed,
        "allOf": needed,
        # of the providers
        "patternProperties": {"^(gcp|kubernetes|pulumi|random):": {}},
        "additionalProperties": False,
    }
    return {
        "$schema": DIALECT,
        "title": "Stack file of rayline",
        "type": "object",
        "properties": {
            "config": config,
            **{key: {"type": "string"} for key in ("encryptionsalt", "encryptedkey", "secretsprovider")},
            "environment": {},
        },
        # notes, and what aliases repeat
        "patternProperties": {"^x-": {}},
        "required": ["config"],
        "additionalProperties": False,
        "$defs": definitions,
    }


def _describe(arguments: type[Arguments], properties: dict[str, Any]) -> None:
    for name, text in field_texts(arguments).items():
        properties[name]["description"] = text
        properties[name].pop("title", None)
        if "patternProperties" in properties[name]:
            # names of one's own have a form
            properties[name]["additionalProperties"] = False


def model_schema() -> dict[str, Any]:
    """Return the JSON Schema of a model's file: all numbers, or `like` and those that differ from the other model's."""
    made = Model.model_json_schema()
    for arguments in (Model, AttentionLayers, RecurrentLayers):
        _describe(arguments, (made if arguments is Model else made["$defs"][arguments.__name__])["properties"])
    like = {**made["properties"]["model"], "description": "Model whose numbers this file takes where it has none of its own."}
    made["properties"] = {**made["properties"], "like": like}
    complete = [key for key in made.pop("required") if key != "model"]
    either = [{"required": ["like"]}, {"required": complete}]
    return made | {"$schema": DIALECT, "title": "Model file of rayline", "required": ["model"], "anyOf": either}


def texts() -> Mapping[pathlib.Path, str]:
    """Return the content of each schema's file."""
    return {FILE: _text(schema()), MODEL_FILE: _text(model_schema())}


def _text(made: Mapping[str, Any]) -> str:
    return json.dumps(made, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
