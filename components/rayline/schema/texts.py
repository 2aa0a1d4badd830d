"""Read the text under each key of a class of arguments from the source, as Pulumi's schema reader does."""

import ast
import inspect
from functools import cache

from rayline.schema.base import Arguments


@cache
def field_texts(arguments: type[Arguments]) -> dict[str, str]:
    """Return the text under each field of a class, by its name."""
    (declared,) = ast.parse(inspect.getsource(arguments)).body
    assert isinstance(declared, ast.ClassDef)
    texts = {}
    for field, text in zip(declared.body, declared.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            texts[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return texts
