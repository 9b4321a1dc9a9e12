"""Register TinyGPT with transformers whatever the import order, without importing transformers.

Nothing in transformers looks for models of other packages, and `AutoConfig`, `AutoModel...` need our real classes. So
a finder at the head of `sys.meta_path` waits for the few modules this depends on; each time one has been executed, all
that can be registered is. Modules that are already there count at once. It is the package's one piece of magic;
importing the model and calling `register()` four times is the plain way, at four seconds a start.
"""

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

MODEL_TYPE = "tinygpt"

_CONFIGURATION = "tinygpt_hf.model.configuration_tinygpt"
_MODELING = "tinygpt_hf.model.modeling_tinygpt"
_LIBRARY = "transformers"
_AUTO_CONFIGURATION = "transformers.models.auto.configuration_auto"
_AUTO_MODELING = "transformers.models.auto.modeling_auto"
_PROCESSING = "transformers.processing_utils"

_AUTO_CLASSES = {  # Auto class -> our class, the library's table of class names
    "AutoModel": ("TinyGPTModel", "MODEL_MAPPING_NAMES"),
    **{
        f"AutoModelFor{task}": (f"TinyGPTFor{task}", f"MODEL_FOR_{table}_MAPPING_NAMES")
        for task, table in (
            ("CausalLM", "CAUSAL_LM"),
            ("SequenceClassification", "SEQUENCE_CLASSIFICATION"),
            ("TokenClassification", "TOKEN_CLASSIFICATION"),
            ("QuestionAnswering", "QUESTION_ANSWERING"),
        )
    },
}
_NAMES_ON_LIBRARY = {"TinyGPTConfig": _CONFIGURATION, **{name: _MODELING for name, _ in _AUTO_CLASSES.values()}}

_executed: set[str] = set()  # the awaited modules whose code has run to its end
_done: set[str] = set()  # the registrations that have been made


def register_auto_classes() -> None:
    """Register now what can be, and the rest when the modules it needs have loaded. Calling it again does nothing."""
    if any(isinstance(finder, _AwaitModules) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _AwaitModules())
    for name in _STEPS:
        module = sys.modules.get(name)
        # a module in the middle of its own import is in sys.modules already, but its classes are not there yet
        if module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False):
            _executed.add(name)
    _register_what_can_be()


class _AwaitModules:
    """Let the ordinary finder find a module, and add a call after its execution."""

    def find_spec(self, name: str, path=None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in _STEPS or name in _executed:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        loader: Any = spec.loader
        execute = loader.exec_module

        def execute_then_register(module: ModuleType) -> None:
            execute(module)
            _executed.add(name)
            _register_what_can_be()

        loader.exec_module = execute_then_register
        return spec


def _register_what_can_be() -> None:
    """Run each step whose awaited module is there and whose own module is not in the middle of its import."""
    for awaited, (needed, step) in _STEPS.items():
        if step is None or awaited in _done or awaited not in _executed:
            continue
        if needed in sys.modules and needed not in _executed:
            continue  # the end of that import brings us here again
        _done.add(awaited)
        step()


def _name_classes_on_library() -> None:
    """Make `getattr(transformers, architectures[0])` work, by which `transformers serve` and TRL look a class up."""
    # who imported the library before it put a new object in its place (see _STEPS) still holds the old one
    holders = [vars(module).get(_LIBRARY) for module in list(sys.modules.values()) if isinstance(module, ModuleType)]
    for library in [sys.modules[_LIBRARY], *holders]:
        if not isinstance(library, ModuleType) or library.__name__ != _LIBRARY:
            continue
        objects = vars(library).get("_objects")  # where the lazy module looks first
        if isinstance(objects, dict) and not isinstance(objects, _LazyObjects):
            vars(library)["_objects"] = _LazyObjects(objects)


class _LazyObjects(dict):
    """Hold the lazy module's ready objects and ours, which are imported when asked for, as its own are."""

    def __contains__(self, name: object) -> bool:
        return name in _NAMES_ON_LIBRARY or super().__contains__(name)

    def __getitem__(self, name: str):
        if name in _NAMES_ON_LIBRARY and not super().__contains__(name):
            self[name] = getattr(import_module(_NAMES_ON_LIBRARY[name]), name)
        return super().__getitem__(name)


def _register_configuration() -> None:
    configuration = import_module(_CONFIGURATION)
    sys.modules[_AUTO_CONFIGURATION].AutoConfig.register(MODEL_TYPE, configuration.TinyGPTConfig, exist_ok=True)


def _register_models() -> None:
    configuration, modeling = import_module(_CONFIGURATION), import_module(_MODELING)
    auto = sys.modules[_AUTO_MODELING]
    for auto_class, (name, name_table) in _AUTO_CLASSES.items():
        getattr(auto, auto_class).register(configuration.TinyGPTConfig, getattr(modeling, name), exist_ok=True)
        # register() leaves these alone, and Trainer's label smoothing shifts labels only for names it finds here
        getattr(auto, name_table).setdefault(MODEL_TYPE, name)


_STEPS = {  # awaited module -> (our module that must not be half imported, what to do)
    _LIBRARY: (_CONFIGURATION, _name_classes_on_library),
    # this module runs the library's __init__ a second time, past every finder, and puts a new object in its place
    _PROCESSING: (_CONFIGURATION, _name_classes_on_library),
    _AUTO_CONFIGURATION: (_CONFIGURATION, _register_configuration),
    _AUTO_MODELING: (_MODELING, _register_models),
    _CONFIGURATION: (_CONFIGURATION, None),
    _MODELING: (_MODELING, None),
}
