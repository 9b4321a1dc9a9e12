"""Serve one model through Transformers' OpenAI-compatible server (`tinygpt serve`).

    serve(ServeArguments("runs/quickstart"), check_template, lambda address, name, chats: print(address))

The server, its routes and its wire format are those of `transformers serve`. This file adds checks of the model folder,
refuses other models, and lists the one model in `/v1/models`. Answers end at the model's stop tokens, before a stop
string and inside the context. Streams end with [DONE], and an invalid request gets status 400 with a reason.
"""

import contextlib
import contextvars
import json
import logging
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import torch

from tinygpt_hf.errors import Interrupted, UsageError
from tinygpt_hf.inference.engine import Engine, open_engine
from tinygpt_hf.inference.generation import Sampling, context_length, generate_steps, stop_ids
from tinygpt_hf.inference.session import knows_turns
from tinygpt_hf.inference.text_stream import StopStrings
from tinygpt_hf.model.loading import load_model
from tinygpt_hf.reading.turns import read_tools, read_turns
from tinygpt_hf.settings.inference import ServeArguments
from tinygpt_hf.tokenizing.chat_template import chat_pieces

SAMPLED = tuple(field.name for field in fields(Sampling))
# Settings of a generation config that our engine supports; a request with any other goes to the library's `generate`.
ENGINE_SETTINGS = {
    *SAMPLED, "do_sample", "max_new_tokens", "eos_token_id", "bos_token_id", "pad_token_id", "transformers_version",
    "_from_model_config", "use_cache", "stop_strings",
}  # fmt: skip
SECONDS_TO_FINISH = 1  # for an answer in progress when the server shuts down


def serve(
    arguments: ServeArguments, check: Callable[[object], None], started: Callable[[str, str, bool], None]
) -> None:
    """Answer requests until Ctrl-C (`KeyboardInterrupt`) or SIGTERM (`Interrupted`).

    `check(tokenizer)` may refuse the folder's chat template, which the library renders without limits.
    `started(address, name, chats)` is called once clients can connect; `chats` is False for a base model.
    """
    try:
        from transformers.cli.serve import Serve
        from transformers.utils.import_utils import is_serve_available
    except ImportError:
        Serve = None
    if Serve is None or not is_serve_available():
        raise UsageError(
            "the parts of a web server are not installed", "the serve extra", "run pip install 'tinygpt_hf[serve]'"
        )

    class Unstarted(Serve):
        """The server, built but not running: the constructor of `Serve` would start it."""

        def start_server(self):
            pass

    with contextlib.closing(listening_socket(arguments.host, arguments.port)) as listener, interrupted_by_sigterm():
        model, tokenizer = load_model(arguments.model, arguments.device, arguments.dtype)
        check(tokenizer)
        name = arguments.model if not Path(arguments.model).is_dir() else str(Path(arguments.model))
        library = Unstarted(non_blocking=True, log_level="critical")
        pin_model(library._model_manager, name, limit_generation(model, tokenizer), tokenizer)
        check_messages(library, tokenizer)
        manager = make_request_manager()
        library._generation_state.get_manager = lambda *_, **__: manager
        for handler in (library._chat_handler, library._completion_handler):
            end_streams_with_done(handler)
        return_errors_as_400(library.server.config.app)
        library.server.config.timeout_graceful_shutdown = SECONDS_TO_FINISH
        logging.getLogger("uvicorn.error").setLevel(
            logging.CRITICAL
        )  # silence its shutdown messages; requests are still logged
        host, port = listener.getsockname()[:2]
        started(f"http://{f'[{host}]' if ':' in host else host}:{port}", name, knows_turns(name, tokenizer))
        library.server.run(sockets=[listener])


def limit_generation(model, tokenizer):
    """Replace the model's `generate` by one that obeys its stop tokens and context length, and return the model.

    Requests that use only `ENGINE_SETTINGS` run on our engine, which reuses the cache of a shared prefix.
    """
    model.generation_config.eos_token_id = sorted(stop_ids(model, tokenizer))
    generate, longest, engine = model.generate, context_length(model), open_engine(model)

    def limited_generate(**inputs):
        settings, given = inputs["generation_config"], inputs["input_ids"].shape[1]
        seed = inputs.pop("seed", None)
        if given == 0:
            raise ValueError("the prompt is empty")
        if longest is not None:
            if given >= longest:
                raise ValueError(f"the prompt has {given} tokens and the model's context is {longest}")
            settings.max_new_tokens = min(settings.max_new_tokens or longest, longest - given)
        if settings.do_sample is None:  # the server leaves it unset even if the request has a temperature
            settings.do_sample = bool(settings.temperature or settings.top_p)
        options = engine_options(settings, model.generation_config)
        if options is None or not isinstance(engine, Engine) or len(inputs["input_ids"]) > 1:
            if seed is not None:
                torch.manual_seed(seed)
            return generate(**inputs)
        options["seed"] = int(torch.randint(2**62, ())) if seed is None else seed
        ids = inputs["input_ids"][0].tolist()
        return generate_with_engine(engine, model, tokenizer, ids, options, inputs.get("streamer"))

    model.generate = limited_generate
    return model


def engine_options(settings, own) -> dict | None:
    """Return a request's generation config as options of `generate_steps`, or None if the engine does not support it.

    Settings missing in the request come from `own`, the model's generation config.
    """
    named = [*own.to_diff_dict().items(), *settings.to_diff_dict().items()]
    if any(value and name not in ENGINE_SETTINGS for name, value in named):
        return None
    if settings.eos_token_id not in (None, own.eos_token_id):
        return None
    merged = {name: getattr(settings, name) for name in (*SAMPLED, "do_sample", "max_new_tokens")}
    merged = {name: getattr(own, name) if value is None else value for name, value in merged.items()}
    values = {name: merged[name] for name in SAMPLED if merged[name] is not None}
    if merged["do_sample"]:
        values = {"top_k": 50} | values  # the library's default
    else:
        values["temperature"] = 0.0
    sampling = Sampling(**values)
    try:
        sampling.check()
    except UsageError:
        return None  # the library reports the error
    return {"sampling": sampling, "max_new_tokens": merged["max_new_tokens"], "stop": stop_strings(settings)}


def generate_with_engine(engine: Engine, model, tokenizer, ids: list[int], options: dict, streamer):
    """Generate as `model.generate` would; return the ids (1, T) of prompt and answer."""
    all_ids = list(ids)
    if streamer is not None:
        streamer.put(torch.tensor([ids]))
    for step in generate_steps(model, tokenizer, ids, engine=engine, **options):
        all_ids.append(step.id)
        if streamer is not None:
            streamer.put(torch.tensor([step.id]))
    if streamer is not None:
        streamer.end()
    return torch.tensor([all_ids])


def pin_model(manager, name: str, model, tokenizer) -> None:
    """Make this the only model of the server's `ModelManager`, so that requests load nothing from disk or the Hub."""
    known = manager.process_model_name(name)
    entry = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "tinygpt_hf"}

    def load(requested: str, progress_callback=None, tqdm_class=None, gguf_file: str | None = None):
        if requested != known or gguf_file:
            raise ValueError(f"this server has one model, {name}")
        if progress_callback:
            progress_callback({"status": "ready", "model": known, "cached": True})
        return model, tokenizer

    manager.force_model = name
    manager.load_model_and_processor = load
    manager.get_gen_models = lambda: [entry]


def check_messages(library, tokenizer) -> None:
    """Parse a request's messages like training data, and refuse fields that the chat template cannot show.

    The library silently drops reasoning, names, images, and the content of messages with tool calls.
    """
    render = tokenizer.apply_chat_template

    def rendered(messages, tools=None, **options):
        tools = read_tools(tools, "tools", "the request") if tools else None
        chat_pieces(tokenizer, messages, add_generation_prompt=True, tools=tools)
        return render(messages, tools=tools, **options)

    def read(messages, modality):
        return read_turns([{"role": message["role"], **message} for message in messages], "the request")

    tokenizer.apply_chat_template = rendered
    for handler in (library._chat_handler, library._response_handler):
        handler.get_processor_inputs_from_messages = read


def stop_strings(settings) -> list[str]:
    """Return the stop strings of a generation config and normalize them there to a list or None.

    OpenAI's clients send one string or several.
    """
    named = settings.stop_strings or []
    stops = named if isinstance(named, list) else [named]
    if not all(isinstance(stop, str) for stop in stops):
        raise ValueError(f"stop is {named}, where a text or a list of texts is expected")
    settings.stop_strings = [stop for stop in stops if stop] or None
    return settings.stop_strings or []


def make_request_manager():
    """Return the library's `GenerateManager`, changed to use a seed per request and to cut answers before stop strings."""
    from transformers.cli.serving import utils

    # The library sets torch's global seed, which a concurrent request may overwrite. Each request is an asyncio task.
    request_seed = contextvars.ContextVar("seed", default=None)
    utils.set_torch_seed = request_seed.set

    def with_seed(inputs) -> dict:
        return {**inputs, "seed": request_seed.get()}

    class Manager(utils.GenerateManager):
        def generate_streaming(self, model, processor, inputs, gen_config, *rest, **options):
            stops = StopStrings(stop_strings(gen_config))
            stream = super().generate_streaming(model, processor, with_seed(inputs), gen_config, *rest, **options)
            return StopQueue(stream[0], stops, gen_config), stream[1]

        async def generate_non_streaming(self, model, processor, inputs, gen_config, *rest, **options):
            stops = StopStrings(stop_strings(gen_config))
            inputs = with_seed(inputs)
            text, count, ids = await super().generate_non_streaming(
                model, processor, inputs, gen_config, *rest, **options
            )
            text = stops.add(text) + stops.flush()
            if stops.found is not None:
                gen_config.max_new_tokens = None  # else the server may report finish_reason "length"
                if utils.get_response_template(processor, model):  # the server then parses the ids again
                    ids = processor(text, add_special_tokens=False, return_tensors="pt")["input_ids"][0]
            return text, count, ids

    return Manager()


class StopQueue:
    """The server's queue of an answer's pieces, cut before the first stop string."""

    def __init__(self, queue, stops: StopStrings, settings):
        self._queue, self._stops, self._settings = queue, stops, settings

    async def get(self):
        while (item := self._filter(await self._queue.get())) == "":
            pass
        return item

    def get_nowait(self):
        while (item := self._filter(self._queue.get_nowait())) == "":
            pass
        return item

    def _filter(self, item):
        if type(item) is str:  # text; reasoning and other pieces have their own types
            item = self._stops.add(item)
            if self._stops.found is not None:
                self._settings.max_new_tokens = None  # else the server may report finish_reason "length"
        elif item is None and (rest := self._stops.flush()):
            self._queue.put_nowait(None)
            return rest
        elif hasattr(item, "msg"):  # an error, which the server puts into a JSON string unescaped
            item.msg = json.dumps(item.msg)[1:-1]
        return item


def end_streams_with_done(handler) -> None:
    """Make the handler's streams end with `data: [DONE]`, as OpenAI's do."""
    stream = handler._streaming

    async def append_done(events):
        async with contextlib.aclosing(events):  # stops the answer if the client disconnects
            async for event in events:
                yield event
            yield "data: [DONE]\n\n"

    def stream_with_done(*inputs, **options):
        response = stream(*inputs, **options)
        response.body_iterator = append_done(response.body_iterator)
        return response

    handler._streaming = stream_with_done


def return_errors_as_400(app) -> None:
    """Report errors in OpenAI's format, with status 400 where the library would answer 500."""
    from fastapi import HTTPException
    from fastapi.responses import JSONResponse
    from jinja2 import TemplateError

    async def refuse(request, error: Exception):
        reason = getattr(error, "detail", None) or str(error)
        if isinstance(error, (KeyError, TypeError)):  # their messages alone say little
            reason = f"{type(error).__name__}: {reason}"
        body = {"error": {"message": reason, "type": "invalid_request_error"}}
        return JSONResponse(body, status_code=getattr(error, "status_code", 400))

    for kind in (HTTPException, UsageError, ValueError, KeyError, TypeError, TemplateError):
        app.add_exception_handler(kind, refuse)


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a socket listening at `host` and `port`; raise a `UsageError` if that is not possible."""
    try:
        if not 0 <= port < 2**16:
            raise OverflowError("ports are 0 to 65535")  # getaddrinfo would reduce it modulo 65536
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
        return listener
    except (OSError, OverflowError, UnicodeError) as error:  # UnicodeError: an invalid host name
        raise UsageError(
            f"{host} port {port} cannot be served on ({getattr(error, 'strerror', None) or error})",
            "a free port on an address of this machine",
            "choose another --port, or end the program that holds it",
        ) from None


@contextlib.contextmanager
def interrupted_by_sigterm():
    """Raise `Interrupted` on SIGTERM while the context is open."""

    def interrupt(number, frame):
        raise Interrupted("stopped by SIGTERM", number)

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
