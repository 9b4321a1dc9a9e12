"""Register TinyGPT with transformers in any import order, without importing transformers.

Transformers does not look for models of other packages, and `AutoConfig`, `AutoModel...` need our real classes. Therefore a
finder at the head of `sys.meta_path` watches the few modules involved, and registers what is possible each time one of them
has been executed. Modules that are already loaded count at once. The plain alternative, importing the model and calling
`register()`, would make every start four seconds slower.
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

_AUTO_CLASSES = {  # Auto class -> (our class, the table of class names in transformers)
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

_executed: set[str] = set()  # watched modules that are completely imported
_done: set[str] = set()  # watched modules whose registration step has run


def register_auto_classes() -> None:
    """Register what is possible now, and the rest once the needed modules are loaded. Calling it again does nothing."""
    if any(isinstance(finder, _WatchingFinder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _WatchingFinder())
    for name in _STEPS:
        module = sys.modules.get(name)
        # a module is in sys.modules during its own import, when its classes do not exist yet
        if module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False):
            _executed.add(name)
    _run_ready_steps()


class _WatchingFinder:
    """An import finder that uses the standard one, and runs the registration steps after a watched module."""

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
            _run_ready_steps()

        loader.exec_module = execute_then_register
        return spec


def _run_ready_steps() -> None:
    """Run each step whose watched module is loaded and whose own module is not in the middle of its import."""
    for watched, (needed, step) in _STEPS.items():
        if step is None or watched in _done or watched not in _executed:
            continue
        if needed in sys.modules and needed not in _executed:
            continue  # this function is called again at the end of that import
        _done.add(watched)
        step()


def _name_classes_on_library() -> None:
    """Make `getattr(transformers, architectures[0])` work, which `transformers serve` and TRL use to find a class."""
    # transformers replaces its module object (see _STEPS); modules that imported it earlier hold the old object
    holders = [vars(module).get(_LIBRARY) for module in list(sys.modules.values()) if isinstance(module, ModuleType)]
    for library in [sys.modules[_LIBRARY], *holders]:
        if not isinstance(library, ModuleType) or library.__name__ != _LIBRARY:
            continue
        objects = vars(library).get("_objects")  # the lazy module's first lookup
        if isinstance(objects, dict) and not isinstance(objects, _LazyObjects):
            vars(library)["_objects"] = _LazyObjects(objects)


class _LazyObjects(dict):
    """The lazy module's loaded objects, extended by our classes, which are imported on first access."""

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
        # register() does not extend these tables, and Trainer's label smoothing shifts labels only for names in them
        getattr(auto, name_table).setdefault(MODEL_TYPE, name)


_STEPS = {  # watched module -> (our module that must not be half imported, registration step)
    _LIBRARY: (_CONFIGURATION, _name_classes_on_library),
    # this module executes transformers/__init__ again, without a finder, and replaces the module object
    _PROCESSING: (_CONFIGURATION, _name_classes_on_library),
    _AUTO_CONFIGURATION: (_CONFIGURATION, _register_configuration),
    _AUTO_MODELING: (_MODELING, _register_models),
    _CONFIGURATION: (_CONFIGURATION, None),
    _MODELING: (_MODELING, None),
}
