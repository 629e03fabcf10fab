"""Finds one model of a settings file by what clients call it."""

from extproc.settings_file import SettingsError
from tokenext.settings import ModelSettings, Settings

__all__ = ["select"]


def select(settings: Settings, name: str, *, source: str) -> tuple[int, ModelSettings]:
    """The model of a name or alias, and its place in the file. Raises SettingsError."""
    for number, model in enumerate(settings.models):
        if name in (model.name, *model.aliases):
            return number, model
    known = ", ".join(model.name for model in settings.models)
    raise SettingsError(source, f"has no model {name!r}; it has {known}")
