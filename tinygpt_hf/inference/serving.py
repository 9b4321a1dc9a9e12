"""Serve one model through the OpenAI-compatible server of Transformers, within the model's bounds (`tinygpt serve`).

    serve(ServeArguments("runs/quickstart"), check_template, lambda address, name, chats: print(address))

The server, its routes and its wire format are the library's own (`transformers serve`). This file adds
what it leaves to its user: the folder is checked first, other models are refused, `/v1/models` names the one there is, an
answer ends at the model's stop tokens, before a stop string and inside its context, a stream ends with [DONE], and a request
that cannot be answered is a 400 with a reason.
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
# Of a generation config; whatever names anything else is left to the library's own loop.
ENGINE_OBEYS = {
    *SAMPLED, "do_sample", "max_new_tokens", "eos_token_id", "bos_token_id", "pad_token_id", "transformers_version",
    "_from_model_config", "use_cache", "stop_strings",
}  # fmt: skip
SECONDS_TO_FINISH = 1  # what an answer in progress gets when the server is asked to end


def serve(
    arguments: ServeArguments, check: Callable[[object], None], started: Callable[[str, str, bool], None]
) -> None:
    """Answer requests until a signal ends it: `KeyboardInterrupt` on Ctrl-C, `Interrupted` on SIGTERM.

    `check(tokenizer)` may refuse the folder's chat template, which the library renders without limits.
    `started(address, name, chats)` is called once clients can connect; `chats`: the model has learned turns.
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
        """Build the server without running it: `Serve` starts to answer inside its constructor."""

        def start_server(self):
            pass

    with contextlib.closing(listening(arguments.host, arguments.port)) as listener, ended_by_sigterm():
        model, tokenizer = load_model(arguments.model, arguments.device, arguments.dtype)
        check(tokenizer)
        name = arguments.model if not Path(arguments.model).is_dir() else str(Path(arguments.model))
        library = Unstarted(non_blocking=True, log_level="critical")
        pin(library._model_manager, name, within_bounds(model, tokenizer), tokenizer)
        keep_conversations_whole(library, tokenizer)
        manager = request_manager()
        library._generation_state.get_manager = lambda *_, **__: manager
        for handler in (library._chat_handler, library._completion_handler):
            end_with_done(handler)
        answer_with_reasons(library.server.config.app)
        library.server.config.timeout_graceful_shutdown = SECONDS_TO_FINISH
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # its words at the end; requests are still listed
        host, port = listener.getsockname()[:2]
        started(f"http://{f'[{host}]' if ':' in host else host}:{port}", name, knows_turns(name, tokenizer))
        library.server.run(sockets=[listener])


def within_bounds(model, tokenizer):
    """Hold the model's `generate` to its stop tokens and its context, of which the server knows nothing.

    What asks for no more than a plain answer of our model is answered by our engine, which keeps what two requests begin with.
    """
    model.generation_config.eos_token_id = sorted(stop_ids(model, tokenizer))
    generate, longest, engine = model.generate, context_length(model), open_engine(model)

    def bounded(**inputs):
        settings, given = inputs["generation_config"], inputs["input_ids"].shape[1]
        seed = inputs.pop("seed", None)
        if given == 0:
            raise ValueError("the prompt is empty")
        if longest is not None:
            if given >= longest:
                raise ValueError(f"the prompt has {given} tokens and the model's context is {longest}")
            settings.max_new_tokens = min(settings.max_new_tokens or longest, longest - given)
        if settings.do_sample is None:  # the server does not say so where a temperature is asked for
            settings.do_sample = bool(settings.temperature or settings.top_p)
        wishes = engine_wishes(settings, model.generation_config)
        if wishes is None or not isinstance(engine, Engine) or len(inputs["input_ids"]) > 1:
            if seed is not None:
                torch.manual_seed(seed)
            return generate(**inputs)
        wishes["seed"] = int(torch.randint(2**62, ())) if seed is None else seed
        ids = inputs["input_ids"][0].tolist()
        return answer_by_engine(engine, model, tokenizer, ids, wishes, inputs.get("streamer"))

    model.generate = bounded
    return model


def engine_wishes(settings, own) -> dict | None:
    """Read what `generate_steps` takes from a request's generation config over the model's own; None: it asks for more."""
    named = [*own.to_diff_dict().items(), *settings.to_diff_dict().items()]
    if any(value and name not in ENGINE_OBEYS for name, value in named):
        return None
    if settings.eos_token_id not in (None, own.eos_token_id):
        return None
    asked = {name: getattr(settings, name) for name in (*SAMPLED, "do_sample", "max_new_tokens")}
    asked = {name: getattr(own, name) if value is None else value for name, value in asked.items()}
    values = {name: asked[name] for name in SAMPLED if asked[name] is not None}
    if asked["do_sample"]:
        values = {"top_k": 50} | values  # the library's default
    else:
        values["temperature"] = 0.0
    sampling = Sampling(**values)
    try:
        sampling.check()
    except UsageError:
        return None  # the library says what it thinks of it
    return {"sampling": sampling, "max_new_tokens": asked["max_new_tokens"], "stop": stop_strings(settings)}


def answer_by_engine(engine: Engine, model, tokenizer, ids: list[int], wishes: dict, streamer):
    """Do the work of `generate` for one prompt: (1, T) ids with the prompt."""
    made = list(ids)
    if streamer is not None:
        streamer.put(torch.tensor([ids]))
    for step in generate_steps(model, tokenizer, ids, engine=engine, **wishes):
        made.append(step.id)
        if streamer is not None:
            streamer.put(torch.tensor([step.id]))
    if streamer is not None:
        streamer.end()
    return torch.tensor([made])


def pin(manager, name: str, model, tokenizer) -> None:
    """Make this the one model the server's `ModelManager` has: nothing is loaded on request, from disk or from the Hub."""
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


def keep_conversations_whole(library, tokenizer) -> None:
    """Read a request's messages as training data is read, and refuse what the chat template has no place for.

    The library drops reasoning, names, pictures, and the content of a message that calls tools.
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
    """Read the stop strings of a generation config, and leave there a list or nothing: OpenAI's clients send one or several."""
    named = settings.stop_strings or []
    stops = named if isinstance(named, list) else [named]
    if not all(isinstance(stop, str) for stop in stops):
        raise ValueError(f"stop is {named}, where a text or a list of texts is expected")
    settings.stop_strings = [stop for stop in stops if stop] or None
    return settings.stop_strings or []


def request_manager():
    """Make what the server's handlers answer through: the library's, with each request's own seed and without what its stop
    strings end, which the library would send."""
    from transformers.cli.serving import utils

    # the library sets torch's seed, which another request may set again before this one's turn; a request is a task of its own
    asked = contextvars.ContextVar("seed", default=None)
    utils.set_torch_seed = asked.set

    def seeded(inputs) -> dict:
        return {**inputs, "seed": asked.get()}

    class Manager(utils.GenerateManager):
        def generate_streaming(self, model, processor, inputs, gen_config, *rest, **options):
            stops = StopStrings(stop_strings(gen_config))
            stream = super().generate_streaming(model, processor, seeded(inputs), gen_config, *rest, **options)
            return StoppedQueue(stream[0], stops, gen_config), stream[1]

        async def generate_non_streaming(self, model, processor, inputs, gen_config, *rest, **options):
            stops = StopStrings(stop_strings(gen_config))
            inputs = seeded(inputs)
            text, count, ids = await super().generate_non_streaming(
                model, processor, inputs, gen_config, *rest, **options
            )
            text = stops.add(text) + stops.flush()
            if stops.found is not None:
                gen_config.max_new_tokens = None  # else the server calls a full length the reason
                if utils.get_response_template(processor, model):  # it reads the ids once more
                    ids = processor(text, add_special_tokens=False, return_tensors="pt")["input_ids"][0]
            return text, count, ids

    return Manager()


class StoppedQueue:
    """Read the pieces of an answer from the server's queue, up to a stop string."""

    def __init__(self, queue, stops: StopStrings, settings):
        self._queue, self._stops, self._settings = queue, stops, settings

    async def get(self):
        while (item := self._passed(await self._queue.get())) == "":
            pass
        return item

    def get_nowait(self):
        while (item := self._passed(self._queue.get_nowait())) == "":
            pass
        return item

    def _passed(self, item):
        if type(item) is str:  # text: what else there is (reasoning, say) has a type of its own
            item = self._stops.add(item)
            if self._stops.found is not None:
                self._settings.max_new_tokens = None  # else the server calls a full length the reason
        elif item is None and (rest := self._stops.flush()):
            self._queue.put_nowait(None)
            return rest
        elif hasattr(item, "msg"):  # an error, which the server puts between quotes as it is
            item.msg = json.dumps(item.msg)[1:-1]
        return item


def end_with_done(handler) -> None:
    """Let the handler's streams end as OpenAI's do, with `data: [DONE]`."""
    stream = handler._streaming

    async def and_done(events):
        async with contextlib.aclosing(events):  # a client that leaves ends the answer
            async for event in events:
                yield event
            yield "data: [DONE]\n\n"

    def ended(*inputs, **options):
        response = stream(*inputs, **options)
        response.body_iterator = and_done(response.body_iterator)
        return response

    handler._streaming = ended


def answer_with_reasons(app) -> None:
    """Say what is wrong with a request in the form OpenAI's clients read, as status 400 where the library answers 500."""
    from fastapi import HTTPException
    from fastapi.responses import JSONResponse
    from jinja2 import TemplateError

    async def refuse(request, error: Exception):
        reason = getattr(error, "detail", None) or str(error)
        if isinstance(error, (KeyError, TypeError)):  # their words alone say little
            reason = f"{type(error).__name__}: {reason}"
        body = {"error": {"message": reason, "type": "invalid_request_error"}}
        return JSONResponse(body, status_code=getattr(error, "status_code", 400))

    for kind in (HTTPException, UsageError, ValueError, KeyError, TypeError, TemplateError):
        app.add_exception_handler(kind, refuse)


def listening(host: str, port: int) -> socket.socket:
    """Open a socket that takes connections at `host` and `port`, before anything slow is done."""
    try:
        if not 0 <= port < 2**16:
            raise OverflowError("ports are 0 to 65535")  # getaddrinfo would take the remainder
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
        return listener
    except (OSError, OverflowError, UnicodeError) as error:  # UnicodeError: a host that cannot be a name
        raise UsageError(
            f"{host} port {port} cannot be served on ({getattr(error, 'strerror', None) or error})",
            "a free port on an address of this machine",
            "choose another --port, or end the program that holds it",
        ) from None


@contextlib.contextmanager
def ended_by_sigterm():
    def leave(number, frame):
        raise Interrupted("stopped by SIGTERM", number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
