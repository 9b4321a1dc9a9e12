"""Keep the import paths of earlier versions; importing one warns with the new path."""

import sys
import warnings
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "tinygpt_hf.inference.loading": "tinygpt_hf.model.loading",
    "tinygpt_hf.sharing": "tinygpt_hf.export",
    "tinygpt_hf.sharing.export": "tinygpt_hf.export.export",
}


class MovedModules:
    """An import finder for the old names; it is last in `sys.meta_path`, so it only sees modules that do not exist."""

    def find_spec(self, name: str, path=None, target: ModuleType | None = None) -> ModuleSpec | None:
        # the type checker wants importlib.abc.Loader, but importing it takes 25 ms
        return ModuleSpec(name, self) if name in MOVED else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        return None  # creates an empty module, which exec_module replaces

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        warnings.warn(f"{name} is now {MOVED[name]}", DeprecationWarning, stacklevel=2)
        sys.modules[name] = import_module(MOVED[name])  # the import statement returns this entry


def keep_old_names() -> None:
    """Install the finder for old import paths, once."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
