"""Imports point one way: facts <- schema <- arguments <- types <- plans <- manifests <- resources <- platform <- program.

The command line stands above the package.
"""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "components" / "rayline"
MODULES = sorted(PACKAGE.rglob("*.py"))
COMMAND_LINE = sorted((ROOT / "rayline_cli").rglob("*.py"))
PRODUCT = [*MODULES, *COMMAND_LINE, *sorted((ROOT / "policy").rglob("*.py")), ROOT / "__main__.py"]
PULUMI = {"pulumi", "pulumi_gcp", "pulumi_kubernetes", "pulumi_random"}

# The layers of a room, lowest first, with the packages that each may import besides the standard library. A module that is
# named in none makes Pulumi resources.
LAYERS: dict[str, tuple[set[str], set[str]]] = {
    "facts": (set(), set()),
    "schema": (set(), {"pulumi", "pydantic", "pydantic_core"}),
    "arguments": ({"arguments", "model", "catalog"}, {"pydantic", "yaml"}),
    "types": ({"types"}, set()),
    "plan": (
        {
            "plan",
            "adapters",
            "maintenance",
            "capacity",
            "addresses",
            "applications",
            "disaggregation",
            "drain",
            "engine_arguments",
            "environment",
            "fit",
            "gpus",
            "limits",
            "loading",
            "request",
            "scale",
            "speculation",
            "tasks",
            "traffic",
            "workload",
            "zero",
        },
        set(),
    ),
    "manifests": (
        {"manifests", "manifest", "mirror_manifests", "api_key", "groups", "pods", "reading", "serve_config", "serve_reading"},
        {"yaml"},
    ),
    "resources": (set(), PULUMI),
    "platform": (set(), PULUMI),
}
ORDER = list(LAYERS)


def imports(path: pathlib.Path) -> set[str]:
    """Return the full names of everything that a file imports, at whatever depth; relative ones made absolute."""
    base = ROOT / "components" if PACKAGE in path.parents else ROOT
    package = list(path.relative_to(base).parent.parts)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *(node.module.split(".") if node.module else [])])
            # `from . import plan` names modules, `from .plan import Plan` a name in one
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def module_of(name: str) -> pathlib.Path | None:
    """Return the file of the package's module that a full name lies in; None for a name from elsewhere."""
    parts = name.split(".")
    if parts[0] != "rayline":
        return None
    for end in range(len(parts), 0, -1):
        path = PACKAGE.joinpath(*parts[1:end])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


def own(path: pathlib.Path) -> set[pathlib.Path]:
    """Return the modules of the component package that a file imports, without packages that say nothing."""
    return {module for name in imports(path) if (module := module_of(name)) and module.stem != "__init__"}


def foreign(path: pathlib.Path) -> set[str]:
    """Return the packages outside the project and the standard library that a file imports."""
    return {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - {"rayline"}


def layer(path: pathlib.Path) -> str:
    """Return the layer of a module of the component package."""
    room = path.relative_to(PACKAGE).parts[0]
    if room in ("facts", "schema"):
        return room
    for name, (stems, _) in LAYERS.items():
        # the platform's plan and types are the top of their layers
        if path.stem in stems:
            return name
    return "platform" if room == "platform" else "resources"


def name_of(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


ROOMS = [path for path in MODULES if path.parent != PACKAGE and "in_pods" not in path.parts and path.stem != "__init__"]


@pytest.mark.parametrize("path", ROOMS, ids=name_of)
def test_a_module_imports_from_its_own_layer_or_one_below(path):
    above = [name_of(other) for other in own(path) if ORDER.index(layer(other)) > ORDER.index(layer(path))]
    assert above == []
    assert foreign(path) <= LAYERS[layer(path)][1]


def test_no_module_imports_itself_through_others():
    graph = {path: own(path) - {path} for path in ROOMS}
    while free := [path for path, below in graph.items() if not below & graph.keys()]:
        for path in free:
            del graph[path]
    assert [name_of(path) for path in graph] == []


# What several components use.
SHARED = ("kubernetes_object", "nodes")


def test_components_never_know_each_other():
    resources = {path for path in ROOMS if layer(path) == "resources" and path.stem not in SHARED}
    assert len(resources) >= 12
    assert {name_of(path): [name_of(other) for other in own(path) & resources] for path in resources} == {
        name_of(path): [] for path in resources
    }


def test_the_platform_alone_composes_the_components():
    resources = {path for path in ROOMS if layer(path) == "resources" and path.stem not in SHARED}
    platform = [own(PACKAGE / "platform" / name) for name in ("inference_platform.py", "google.py")]
    assert resources <= set().union(*platform)


def test_a_reader_finds_at_most_fourteen_entries_at_the_top():
    assert len([path for path in PACKAGE.iterdir() if path.name != "__pycache__"]) <= 14


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_component_package_does_not_import_the_command_line(path):
    assert not {name for name in imports(path) if name.split(".")[0] == "rayline_cli"}


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_the_product_does_not_import_benchmarks_or_tools(path):
    assert not {name for name in imports(path) if name.split(".")[0] in ("rayline_bench", "rayline_docs")}


def test_a_command_of_another_package_is_not_imported_before_it_is_needed():
    code = "import sys; from rayline_cli import cli; print([m for m in sys.modules if m.startswith('rayline_bench')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# Parts of the command line, each with the parts that it never imports. The local runtime ends with verify's checks; no arrow
# leads back, and a client serves whoever calls it.
NEVER = {"clients": ("clients", "verify", "local", "cli"), "verify": ("local", "cli"), "local": ("cli",)}


@pytest.mark.parametrize("part", NEVER)
def test_parts_of_the_command_line_import_in_one_direction(part: str):
    forbidden = tuple(f"rayline_cli.{other}." for other in NEVER[part])
    files = [path for path in COMMAND_LINE if path.relative_to(ROOT).parts[1] == part]
    assert files
    assert {name_of(path): {name for name in imports(path) if f"{name}.".startswith(forbidden)} for path in files} == {
        name_of(path): set() for path in files
    }


# The modules that make a RayService, and those that read one.
RAY_SERVICE = ("manifest", "groups", "pods", "serve_config", "reading", "serve_reading")


@pytest.mark.parametrize("path", [path for path in PRODUCT if path.stem not in RAY_SERVICE], ids=name_of)
def test_a_ray_service_is_read_by_its_reading_alone(path: pathlib.Path):
    keys = {"serveConfigV2", "headGroupSpec", "workerGroupSpecs", "llm_configs", "rayStartParams", "secretKeyRef"}
    constants = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
    assert not keys & constants


def test_the_local_runtime_knows_verify_in_two_places():
    local = [path for path in COMMAND_LINE if path.relative_to(ROOT).parts[1] == "local"]
    assert {path.stem for path in local if any(name.startswith("rayline_cli.verify") for name in imports(path))} == {
        "bring_up",
        "target",
    }


LABORATORY = [*sorted((ROOT / "benchmarks" / "rayline_bench").rglob("*.py")), *sorted((ROOT / "tools").rglob("*.py"))]


@pytest.mark.parametrize("path", [*PRODUCT, *LABORATORY], ids=name_of)
def test_modules_and_functions_are_short_enough_to_be_read(path: pathlib.Path):
    text = path.read_text()
    # facts are tables; a script in a pod is one file of a ConfigMap
    assert len(text.splitlines()) <= 400 or {"facts", "in_pods"} & set(path.parts)
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {name: length for name, length in lengths.items() if length > 60} == {}


def test_a_class_has_its_name_alone():
    places: dict[str, list[str]] = {}
    for path in [*PRODUCT, *LABORATORY]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(name_of(path))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


@pytest.mark.parametrize("path", [*MODULES, *COMMAND_LINE, *sorted((ROOT / "tests").rglob("*.py"))], ids=name_of)
def test_nobody_imports_the_program(path):
    assert not {name for name in imports(path) if name.split(".")[0] == "__main__"}


def test_imports_are_read_whatever_their_form():
    # the other tests are worth what this is worth
    assert {PACKAGE / "facts" / "defaults.py", PACKAGE / "service" / "fit.py"} <= own(PACKAGE / "service" / "limits.py")
    assert PACKAGE / "platform" / "types.py" in own(ROOT / "rayline_cli" / "offline.py")
