"""Opening the papers' own checkpoints: which model a file is, whether it fits, and the converter that reads it.

A converter stands beside its model and has the signature ``function(state_dict, **keywords) -> nn.Module``; one that
serves several names also takes ``name``. It reads the configuration from names and shapes, takes what shapes cannot
tell as keywords, checks every other keyword with `agree`, and loads with `check_shapes`.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.errors import ConfigError, WeightsError

if TYPE_CHECKING:
    import os

    from torch import Tensor, nn

__all__ = [
    "FINGERPRINTS",
    "OFFICIAL",
    "Fingerprint",
    "agree",
    "check_shapes",
    "describe",
    "detect",
    "load_official",
    "official_options",
]

OFFICIAL: dict[str, str] = {
    "autoformer": "pipelines.forecast.models.autoformer:from_official",
    "linear": "pipelines.forecast.models.linear:from_official",
    "nlinear": "pipelines.forecast.models.linear:from_official",
    "dlinear": "pipelines.forecast.models.linear:from_official",
    "lmuformer": "pipelines.classify.models.lmuformer:from_official",
    "cfsr": "pipelines.superres.models.cfsr:from_official",
    "hsdt": "pipelines.denoise.models.hsdt:from_official",
    "mamba": "pipelines.transcribe.models.mamba_weights:from_official",
    "ponet": "pipelines.match.models.ponet_weights:from_official",
    "smith": "pipelines.match.models.smith_weights:from_official",
    "swift": "pipelines.fmri.models.swift_weights:from_official",
    "fluidworld": "pipelines.world.models.world_weights:from_fluidworld",
    "fluidworld_transformer": "pipelines.world.models.world_weights:from_transformer",
    "fluidworld_convlstm": "pipelines.world.models.world_weights:from_convlstm",
}


class Fingerprint(NamedTuple):
    """What tells a model's checkpoint by its key names.

    Attributes:
        required: regular expressions; each must match the whole of at least one key.
        only: where given, every key must match the whole of this one.
        parts: label -> regular expression whose first group is counted (e.g. layers), for messages.
    """

    required: tuple[str, ...]
    only: str | None = None
    parts: Mapping[str, str] = {}

    def fits(self, keys: Iterable[str]) -> bool:
        """Whether key names fit.

        Example:
            >>> Fingerprint((r"a[.]weight",)).fits(["a.weight", "b"])
            True
        """
        keys = list(keys)
        if self.only is not None and not all(re.fullmatch(self.only, key) for key in keys):
            return False
        return all(any(re.fullmatch(pattern, key) for key in keys) for pattern in self.required)


_HEAD = r"Linear(?:[.]\d+)?[.](?:weight|bias)"
_PLAIN = Fingerprint((r"Linear(?:[.]\d+)?[.]weight",), only=_HEAD, parts={"channel": r"Linear[.](\d+)[.]weight"})

FINGERPRINTS: dict[str, Fingerprint] = {
    "autoformer": Fingerprint(
        (
            r"enc_embedding[.]value_embedding[.]tokenConv[.]weight",
            r"encoder[.]attn_layers[.]\d+[.]attention[.]query_projection[.]weight",
            r"decoder[.]layers[.]\d+[.]projection[.]weight",
        ),
        parts={
            "encoder layer": r"encoder[.]attn_layers[.](\d+)[.].*",
            "decoder layer": r"decoder[.]layers[.](\d+)[.].*",
        },
    ),
    "dlinear": Fingerprint(
        (r"Linear_Seasonal(?:[.]\d+)?[.]weight", r"Linear_Trend(?:[.]\d+)?[.]weight"),
        parts={"channel": r"Linear_Seasonal[.](\d+)[.]weight"},
    ),
    # Linear and NLinear have the same keys and shapes: only their forward differs, so either name fits.
    "linear": _PLAIN,
    "nlinear": _PLAIN,
    "lmuformer": Fingerprint(
        (
            r"patch_embed[.]conv_layers[.]\d+[.]0[.]weight",
            r"block[.]\d+[.]attn[.]lmu[.]W_u[.]weight",
            r"block[.]\d+[.]mlp[.]fc1_conv[.]weight",
        ),
        parts={"block": r"block[.](\d+)[.].*"},
    ),
    "cfsr": Fingerprint(
        (
            r"conv_first[.]weight",
            r"layers[.]\d+[.]blocks[.]\d+[.]attn[.]a[.]2[.]lkb_reparam[.]weight",
            r"layers[.]\d+[.]blocks[.]\d+[.]mlp[.]pos[.]weight",
            r"upsample[.]0[.]weight",
        ),
        parts={"block": r"layers[.](\d+[.]blocks[.]\d+)[.].*"},
    ),
    "hsdt": Fingerprint(
        (
            r"head[.]conv[.].*weight",
            r"encoder[.]layers[.]\d+[.]conv[.].*weight",
            r"decoder[.]layers[.]\d+[.]conv[.].*weight",
            r"tail[.]weight",
        ),
        parts={"encoder layer": r"encoder[.]layers[.](\d+)[.].*"},
    ),
    # Our own recognisers hold such blocks too, but below the names of their directions.
    "mamba": Fingerprint(
        tuple(
            rf"(?:.*(?<!ahead)(?<!back)[.])?{name}"
            for name in ("A_log", "conv1d[.]weight", "x_proj[.]weight", "dt_proj[.]weight")
        ),
        parts={"layer": r"(?:.*[.])?layers[.](\d+)[.]mixer[.].*"},
    ),
    "ponet": Fingerprint(
        (
            r"(?:.*[.])?embeddings[.]word_embeddings[.]weight",
            r"(?:.*[.])?encoder[.]layer[.]\d+[.]attention[.]self[.]dense_segment[.]weight",
        ),
        parts={"layer": r"(?:.*[.])?encoder[.]layer[.](\d+)[.].*"},
    ),
    # Variables of TensorFlow.
    "smith": Fingerprint(
        (
            r"bert/embeddings/word_embeddings",
            r"doc_bert/doc_encoder/layer_\d+/attention/self/query/kernel",
            r"seq_rep_from_bert_sent_dense/dense/kernel",
        ),
        parts={
            "sentence layer": r"bert/encoder/layer_(\d+)/.*",
            "document layer": r"doc_bert/doc_encoder/layer_(\d+)/.*",
        },
    ),
    "swift": Fingerprint(
        (
            r"(?:.*[.])?patch_embed[.]fc[.]weight",
            r"(?:.*[.])?pos_embeds[.]0[.]time_embed",
            r"(?:.*[.])?layers[.]\d+[.]blocks[.]\d+[.]attn[.]qkv[.]weight",
        ),
        parts={"block": r"(?:.*[.])?layers[.](\d+[.]blocks[.]\d+)[.].*"},
    ),
    "fluidworld": Fingerprint(
        (
            r"encoder[.]fluid_layers[.]\d+[.]diffusion[.]D",
            r"belief_field[.]gate_proj[.]0[.]weight",
            r"decoder[.]decoder[.]0[.]weight",
        ),
        parts={"encoder layer": r"encoder[.]fluid_layers[.](\d+)[.].*"},
    ),
    "fluidworld_transformer": Fingerprint(
        (
            r"pos_embed",
            r"encoder_blocks[.]\d+[.]attn[.]in_proj_weight",
            r"temporal_blocks[.]\d+[.]attn[.]in_proj_weight",
            r"decoder[.]decoder[.]0[.]weight",
        ),
        parts={"encoder block": r"encoder_blocks[.](\d+)[.].*"},
    ),
    "fluidworld_convlstm": Fingerprint(
        (r"convlstm[.]gates[.]weight", r"output_proj[.]0[.]weight", r"decoder[.]decoder[.]0[.]weight"),
    ),
}


def load_official(name: str, source: Mapping[str, Any] | str | os.PathLike[str], **options: Any) -> nn.Module:
    """A paper's released checkpoint as a model of this library, in eval mode, with the official forward signature.

    Args:
        name: a model, one of `OFFICIAL`.
        source: whatever `pipelines.weights.read_state_dict` reads; for smith also a checkpoint of TensorFlow or a .npz.
        **options: what shapes cannot tell (seq_len, n_heads, ...); every argument name of the official constructor is
            accepted and checked against the shapes.

    Raises:
        ConfigError: an unknown model or keyword (with the nearest known one).
        WeightsError: the file cannot be read safely, is another model, or does not fit exactly.

    Complexity: O(bytes) time.

    Example:
        >>> load_official("autofromer", {})
        Traceback (most recent call last):
        pipelines.errors.ConfigError: no official checkpoints are known for this model. Found: autofromer. ...
    """
    from pipelines.weights import read_state_dict

    converter = _converter(name)
    _check_keywords(name, converter, options)
    # Releases that are no files of PyTorch are read by a function of the converter's own module.
    read = getattr(importlib.import_module(OFFICIAL[name].split(":")[0]), "read_official", read_state_dict)
    state = read(source)
    where = "the state dict" if isinstance(source, Mapping) else source
    _check_kind(name, state, where)
    if "name" in inspect.signature(converter).parameters:
        options = {**options, "name": name}
    return converter(state, **options).eval()


def official_options(name: str) -> list[str]:
    """Keywords that the converter of a model names itself (the flags a command line may offer).

    Raises:
        ConfigError: an unknown model.
    """
    parameters = list(inspect.signature(_converter(name)).parameters.values())[1:]
    return [item.name for item in parameters if item.kind is not item.VAR_KEYWORD and item.name != "name"]


def detect(state: Mapping[str, Any]) -> str | None:
    """The model whose fingerprint a state dict has, or None; of models with equal keys the first.

    Complexity: O(models x keys).

    Example:
        >>> detect({"Linear_Seasonal.weight": 0, "Linear_Trend.weight": 0})
        'dlinear'
    """
    return next((name for name, fingerprint in FINGERPRINTS.items() if fingerprint.fits(state)), None)


def describe(state: Mapping[str, Any]) -> str:
    """What a state dict looks like, for messages.

    Example:
        >>> describe({"Linear.0.weight": 0, "Linear.0.bias": 0, "Linear.1.weight": 0, "Linear.1.bias": 0})
        'linear or nlinear (4 tensors, 2 channels)'
        >>> describe({"foo.weight": 0})
        'no known model (1 tensor, the first is foo.weight)'
    """
    names = [name for name, fingerprint in FINGERPRINTS.items() if fingerprint.fits(state)]
    count = _counted(len(state), "tensor")
    if not names:
        first = next(iter(state), None)
        return f"no known model ({count}, the first is {first})" if first else "no known model (no tensors)"
    found = (
        ({match[1] for key in state if (match := re.fullmatch(pattern, key))}, label)
        for label, pattern in FINGERPRINTS[names[0]].parts.items()
    )
    parts = [_counted(len(numbers), label) for numbers, label in found if numbers]
    return f"{' or '.join(names)} ({', '.join([count, *parts])})"


def check_shapes(
    module: nn.Module, state: Mapping[str, Tensor], *, name: str, ignore: Iterable[str] = ()
) -> dict[str, Tensor]:
    """Refuse a state dict that does not fit a module exactly, saying everything that is wrong in one message.

    Args:
        module: the model that the tensors are for.
        state: tensors by name.
        name: the model's name, for the message.
        ignore: regular expressions of whole keys that the module does not keep (e.g. stored position tables).

    Returns:
        The tensors of `state` without the ignored ones: ready for ``load_state_dict(strict=True)``.

    Raises:
        WeightsError: keys missing or unexpected, or shapes that differ: the first of each, and how many.

    Complexity: O(keys).

    Example:
        >>> import torch
        >>> check_shapes(torch.nn.Linear(2, 1), {"weight": torch.zeros(1, 3)}, name="linear")
        Traceback (most recent call last):
        pipelines.errors.WeightsError: the tensors do not fit linear: 1 missing (bias); 1 of another shape ...
    """
    patterns = [re.compile(pattern) for pattern in ignore]
    kept = {key: value for key, value in state.items() if not any(item.fullmatch(key) for item in patterns)}
    own = {key: value for key, value in module.state_dict().items() if not any(p.fullmatch(key) for p in patterns)}
    missing = [key for key in own if key not in kept]
    unexpected = [key for key in kept if key not in own]
    other = [
        f"{key} {tuple(value.shape)} instead of {tuple(own[key].shape)}"
        for key, value in kept.items()
        if key in own and value.shape != own[key].shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", other))
    problems = [f"{len(keys)} {kind} ({_first_few(keys)})" for kind, keys in kinds if keys]
    if problems:
        raise WeightsError(
            f"the tensors do not fit {name}: {'; '.join(problems)}",
            found=describe(state),
            cure="check the options that set sizes, or that the file is of this model",
        )
    return kept


def agree(name: str, given: Any, found: Any) -> Any:
    """The value that the checkpoint shows, after a keyword of the user's was compared with it.

    Args:
        name: the keyword.
        given: what the user passed, None for nothing.
        found: what names and shapes say.

    Raises:
        WeightsError: the two differ.

    Example:
        >>> agree("d_model", None, 512)
        512
        >>> agree("d_model", 256, 512)
        Traceback (most recent call last):
        pipelines.errors.WeightsError: d_model: does not agree with the checkpoint. Found: 256. Expected: 512. ...
    """
    if given is not None and given != found:
        cure = f"pass {name}={found!r} or leave it out: it is read from the tensors"
        raise WeightsError("does not agree with the checkpoint", where=name, found=given, expected=found, cure=cure)
    return found


def _converter(name: str) -> Callable[..., nn.Module]:
    if name not in OFFICIAL:
        near = difflib.get_close_matches(name, OFFICIAL, n=1)
        cure = f"did you mean {near[0]}?" if near else None
        problem = "no official checkpoints are known for this model"
        raise ConfigError(problem, found=name, expected=", ".join(sorted(OFFICIAL)), cure=cure)
    module, function = OFFICIAL[name].split(":")
    return getattr(importlib.import_module(module), function)


def _check_keywords(name: str, converter: Callable[..., nn.Module], options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(converter).parameters
    if any(item.kind is item.VAR_KEYWORD for item in parameters.values()):
        return
    known = [key for key in list(parameters)[1:] if key != "name"]
    for key in options:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            cure = f"did you mean {near[0]}?" if near else None
            raise ConfigError(f"{name} has no such option", found=key, expected=", ".join(known), cure=cure)


def _check_kind(name: str, state: Mapping[str, Any], where: object) -> None:
    fingerprint = FINGERPRINTS.get(name)
    if fingerprint is None or fingerprint.fits(state):
        return
    seen = detect(state)
    cure = f"load_official({seen!r}, ...) or --model {seen}" if seen else "check that the file is the right one"
    problem = f"this is not a checkpoint of {name}"
    raise WeightsError(problem, where=where, found=describe(state), expected=name, cure=cure)


def _first_few(keys: list[str], count: int = 3) -> str:
    more = f" and {len(keys) - count} more" if len(keys) > count else ""
    return ", ".join(keys[:count]) + more


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
