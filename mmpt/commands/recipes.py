"""The commands about recipes: recipes, keys."""

from typing import Annotated

import typer

from mmpt.commands.errors import clear_errors

recipe_app = typer.Typer()

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@recipe_app.command()
def recipes(debug: Debug = False) -> None:
    """List the recipes that come with the package: mmpt pretrain NAME, or mmpt finetune NAME, runs one."""
    with clear_errors(debug):
        from mmpt.recipe.packaged import packaged_recipes

        found = list(packaged_recipes())
        width = max(len(recipe.name) for recipe in found)
        for recipe in found:
            typer.echo(f"mmpt {recipe.command:<8} {recipe.name:<{width}}  {recipe.about}")


@recipe_app.command()
def keys(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A recipe, whose values are shown beside the defaults.", metavar="[RECIPE]"),
    ] = None,
    debug: Debug = False,
) -> None:
    """List every key that a recipe can have, with its type and default.

    With a recipe: the keys of its command (pretrain or finetune) and stream, and its own values.
    """
    with clear_errors(debug):
        from mmpt.recipe.key_list import list_keys

        for line in list_keys(recipe):
            typer.echo(line)
