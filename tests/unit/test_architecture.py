"""Imports point one way: texts, facts <- fit <- plan <- manifest <- components <- platform <- program; the kit <- the command line."""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "components").rglob("*.py"))
RAYLINE = sorted((ROOT / "rayline").rglob("*.py"))
PULUMI = {"pulumi", "pulumi_gcp", "pulumi_kubernetes", "pulumi_random"}
# rules about texts that facts, plan, components and settings share
TEXTS = {"names", "secret_values", "spelling"}
# what a module of the package may import from the package, and from outside it besides the standard library
MANIFESTS = {p.stem for p in MODULES if p.stem.endswith(("_manifest", "_manifests"))}
PURE = {
    **{name: (set(), set()) for name in TEXTS},
    "fit": ({"facts"}, set()),
    # a folder: its files may import each other
    "plan": ({"facts", "fit", "plan"} | TEXTS, set()),
    **{name: ({"facts", "plan"} | MANIFESTS, {"yaml"}) for name in MANIFESTS},
    "arguments": ({"facts"}, {"pulumi"}),
}
# not a component: how every component makes a manifest into a resource
KUBERNETES_OBJECT = "kubernetes_object"
COMPONENT = ({"facts", "names", KUBERNETES_OBJECT} | MANIFESTS, PULUMI)


def imports(path: pathlib.Path) -> set[str]:
    """Full names of everything that a file imports, at whatever depth; relative ones made absolute."""
    package = list(path.relative_to(ROOT).parent.parts)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *(node.module.split(".") if node.module else [])])
            # `from . import plan` names modules, `from .plan import Plan` a name in one
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def own(path: pathlib.Path) -> set[str]:
    """The modules of the component package that a file imports."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("components.")}


def foreign(path: pathlib.Path) -> set[str]:
    """The packages outside the project and the standard library that a file imports."""
    return {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - {"components"}


def layer(path: pathlib.Path) -> str:
    """The folder of a module that lies in one, else its own name."""
    return path.stem if path.parent.name == "components" else path.parent.name


def name_of(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent.name == "facts"], ids=name_of)
def test_facts_know_only_facts(path):
    assert own(path) <= {"facts"}
    assert foreign(path) == set()


@pytest.mark.parametrize("path", [p for p in MODULES if layer(p) in PURE], ids=name_of)
def test_pure_modules_know_only_what_is_below_them(path):
    inside, outside = PURE[layer(path)]
    assert own(path) <= inside
    assert foreign(path) <= outside


@pytest.mark.parametrize(
    "path",
    [p for p in MODULES if p.parent.name == "components" and p.stem not in {*PURE, "__init__", "inference_platform"}],
    ids=name_of,
)
def test_components_never_know_each_other_nor_the_plan(path):
    inside, outside = COMPONENT
    assert own(path) <= inside
    assert foreign(path) <= outside


def test_the_platform_alone_composes_the_components():
    components = {p.stem for p in MODULES if p.parent.name == "components"} - {
        *PURE,
        "__init__",
        "__main__",
        "inference_platform",
        KUBERNETES_OBJECT,
    }
    assert len(components) >= 6
    assert components <= own(ROOT / "components" / "inference_platform.py")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_component_package_never_knows_the_command_line(path):
    assert not {name for name in imports(path) if name.split(".")[0] == "rayline"}


def test_the_component_package_reads_no_pydantic_so_that_it_stays_light():
    assert not [path for path in MODULES if "pydantic" in foreign(path)]


def test_settings_know_the_facts_and_not_the_plan():
    assert own(ROOT / "rayline" / "settings.py") == {"facts", "secret_values", "spelling"}


@pytest.mark.parametrize("path", [*MODULES, *RAYLINE, *sorted((ROOT / "tests").rglob("*.py"))], ids=name_of)
def test_nobody_imports_the_program(path):
    assert not {name for name in imports(path) if name.split(".")[0] == "__main__"}


def test_imports_are_read_whatever_their_form():
    # the other tests are worth what this is worth
    assert {"components.facts.defaults", "components.fit.memory_fit"} <= imports(
        ROOT / "components" / "plan" / "cluster.py"
    ) | imports(ROOT / "components" / "plan" / "gpus.py")
    assert "components.facts" in {
        ".".join(name.split(".")[:2]) for name in imports(ROOT / "components" / "gpu_node_pool.py")
    }
    assert own(ROOT / "rayline" / "offline.py") == {"plan"}
