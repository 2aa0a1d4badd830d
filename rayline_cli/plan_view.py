"""The plan of a stack in a terminal and as JSON."""

from typing import Any

from pydantic_core import to_jsonable_python
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from .forecast_view import prospect_of_plan
from .offline import Declared, Program
from .plan_cards import Card, stack_card

# --- in a terminal


def program_view(program: Program, *, tree: bool = True, plain: bool = False) -> RenderableType:
    """Return heading, cards and tree of resources of one stack. `plain`: without frames, for a pipe."""
    card = stack_card(program)
    heading = Text(f"\n{card.stack}", style="bold").append(f"  {card.where}", style="default")
    for fact in card.facts:
        heading.append(f"\n  {fact}")
    if card.cost:
        heading.append(f"\n  {card.cost}", style="green")
    warnings = [Text(f"! {warning}", style="yellow") for warning in card.warnings]
    resources = [_tree(program)] if tree else []
    return Group(heading, *((_plain if plain else _framed)(service) for service in card.services), *warnings, *resources)


def _plain(card: Card) -> Text:
    # a table fills its lines up with spaces
    wide = max(len(label) for label, _ in card.rows)
    return Text("\n".join([card.title, *(f"{label:<{wide}}  {text}".rstrip() for label, text in card.rows)]))


def _framed(card: Card) -> Panel:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for row in card.rows:
        table.add_row(*row)
    return Panel(table, title=f"[bold]{card.title}[/]", title_align="left", expand=False)


def _tree(program: Program) -> Tree:
    children: dict[str, list[Declared]] = {}
    known = {resource.urn for resource in program.resources}
    for resource in program.resources:
        children.setdefault(resource.parent if resource.parent in known else "", []).append(resource)
    root = Tree(f"[dim]{len(program.resources)} resources[/]")

    def grow(branch: Tree, parent: str) -> None:
        for resource in children.get(parent, []):
            protected = " [yellow]protected[/]" if resource.protect else ""
            grow(branch.add(f"{resource.type.split(':')[-1]} [dim]{resource.name}[/]{protected}"), resource.urn)

    grow(root, "")
    return root


# --- as JSON

# Properties of a service that are next to its fields.
_DERIVED = ("accelerator", "gpus", "image", "model_id", "parked", "served_model_name")


def program_json(program: Program) -> dict[str, Any]:
    """Return the plan and the resources as data; no secret is in it."""
    plan = to_jsonable_python(program.plan)
    for service, data in zip(program.plan.services, plan["services"], strict=True):
        for model, own in zip(service.models, (data, *data["beside"]), strict=True):
            fit = model.fit
            own["fit"] |= {"kv_cache_tokens": fit.kv_cache_tokens, "concurrency": round(fit.concurrency, 2)}
            own |= to_jsonable_python({name: getattr(model, name) for name in _DERIVED})
            own["workload"] = to_jsonable_python(prospect_of_plan(model)[0])
            # the model's own row is documentation
            del own["model"]
            if model is not service:
                # those of the service are of all its models
                for part in ("machine", "workers", "hourly_usd", "highest_hourly_usd"):
                    del own[part]
    for part in (plan["cluster"]["system_pool"], *plan["pools"], *plan["services"]):
        if part and part["machine"]:
            # a set has another order each time
            part["machine"]["capacities"].sort()
    resources = [
        {"type": r.type, "name": r.name, "parent": r.parent.split("::")[-1], "protect": r.protect} for r in program.resources
    ]
    return {"stack": program.stack, "plan": plan, "resources": resources}
