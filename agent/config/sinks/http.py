from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PlainValidator, StrictBool, WithJsonSchema, model_validator

from agent.address import is_loopback
from agent.config import document
from agent.config.scalars import Duration, FilePath, Url, VendorName, shown, written
from agent.config.sinks.answers import Answer, Batch
from agent.config.sinks.login import Basic, OAuth2
from agent.config.sinks.section import Found, Remote
from agent.sinks.template import Template, TemplateError

if TYPE_CHECKING:
    from agent.sinks.login import Login

Preset = Literal[
    "amberflo",
    "flexprice",
    "killbill",
    "m3ter",
    "meteroid",
    "metronome",
    "openmeter",
    "orb",
    "polar",
    "togai",
]
MERGED = ("batch", "headers", "oauth2")  # of these a section may write a part; of all else it writes the whole


def preset(name: str) -> Mapping[str, Any]:
    """What a preset says, as a section would. Raises FileNotFoundError."""
    text = files("agent.config").joinpath("presets", f"{name}.yaml").read_text()
    values: Mapping[str, Any] = document.parse(text, f"{name}.yaml").values
    return values


def _body(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f'{shown(value)} is not a mapping. Write the body of one record, such as `id: "{{id}}"`.')
    return value


JsonBody = Annotated[Mapping[str, Any], PlainValidator(_body), WithJsonSchema({"type": "object"})]


class Http(Remote):
    """Records as JSON to any billing system over HTTP: by a preset, or by what is written here alone."""

    kind: Literal["http"]
    """`http`."""
    preset: Preset | None = None
    """The vendor whose words are the defaults of all the other keys. Default: none, and `body` must be written."""
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    """How it is sent. Default POST."""
    url: Url = ""
    """Where it is posted to. No default but that of a preset. `${NAME}` is read from the environment."""
    body: JsonBody = written({})
    """What one record is told as: JSON with references such as `{id}`, `{value|number}` and `{at|ms}`. No default but
    that of a preset."""
    batch: Batch = written({})
    """How records make a request: shape, under, beside. Default: each is a request of its own."""
    content_type: VendorName = "application/json"
    """What the body is called. Default application/json."""
    gzip: StrictBool = False
    """Whether the body is compressed. Default false."""
    headers: dict[str, VendorName] | None = None
    """Further headers, by name; none of them may be a secret. Default none."""
    token_file: FilePath | None = None
    """File with the bearer token; read again when the receiver refuses it. Default: no token."""
    token_header: VendorName | None = None
    """The header whose whole value is the token, such as X-API-Key. Default: `Authorization: Bearer`."""
    basic: Basic | None = None
    """A name and a password: user_file, password_file. Default none."""
    oauth2: OAuth2 | None = None
    """A token by client credentials: token_url, client_id_file, client_secret_file and so on. Default none."""
    secret_headers: Annotated[dict[str, FilePath], Field(min_length=1)] | None = None
    """Further headers, each with the file that holds its value. Default none."""
    customer_ids: Literal["own", "ours"] = "ours"
    """`own`: the receiver knows customers by ids of its own alone, and each needs one in its `ids`. Default ours: the
    customer's id here, where none is given."""
    answers: tuple[Answer, ...] = ()
    """What answers mean: the first that fits. What none fits is taken as HTTP has it, and no success is. No default."""
    max_batch: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 1
    """Most records in a request. Default 1."""
    dedupe_horizon: Duration | None = None
    """How long the receiver discards a record whose id it has seen; `0s`: it does not. A billing sink must say, for
    what may have arrived is sent again only within it. Default for a copy: for ever."""

    @model_validator(mode="before")
    @classmethod
    def _by_preset(cls, values: Any) -> Any:
        """The section over its preset; one that is not known is told of where it stands."""
        if not isinstance(values, dict) or not isinstance(values.get("preset"), str):
            return values
        try:
            known = preset(values["preset"])
        except (FileNotFoundError, ValueError):
            return values
        merged = {
            key: {**known[key], **values[key]} for key in MERGED if isinstance(values.get(key), dict) and key in known
        }
        return {**known, **values, **merged}

    @property
    def remembers(self) -> int | None:
        """How long it discards a repeated id, ns; None: for ever."""
        return self.dedupe_horizon

    @property
    def needs_ids(self) -> bool:
        """Whether it knows customers by ids of its own alone."""
        return self.customer_ids == "own"

    @property
    def destination(self) -> tuple[str, ...]:
        """What may not change while something that was frozen for it is unsettled: whom it goes to, in which form."""
        return self.kind, self.method, self.url, self.batch.shape, self.batch.under or ""

    def arguments(self) -> Mapping[str, object]:
        """What its sink is made of, beside id and role, as plain values."""
        return {
            **super().arguments(),
            "body": self.body,
            "shape": self.batch.shape,
            "under": self.batch.under or "",
            "beside": self.batch.beside or {},
            "method": self.method,
            "content_type": self.content_type,
            "headers": self.headers or {},
            "compress": self.gzip,
            "rules": tuple(answer.plain() for answer in self.answers),
            "login": self._login(),
            "max_batch": self.max_batch,
            "dedupe_horizon": self.dedupe_horizon,
        }

    def secrets(self) -> Mapping[str, Path | None]:
        """The files that nobody else should be able to read, by key."""
        found = {"token_file": self.token_file, **super().secrets()}
        if self.basic is not None:
            found["basic.password_file"] = self.basic.password_file
        if self.oauth2 is not None:
            found["oauth2.client_secret_file"] = self.oauth2.client_secret_file
        return found | {f"secret_headers.{name}": file for name, file in (self.secret_headers or {}).items()}

    def files(self) -> Mapping[str, Path | None]:
        """The other files that it reads, by key."""
        found = dict(super().files())
        if self.basic is not None:
            found["basic.user_file"] = self.basic.user_file
        if self.oauth2 is not None:
            found["oauth2.client_id_file"] = self.oauth2.client_id_file
        return found

    def problems(self) -> Found:
        """What it can be wrong about by itself: keys below it, what and cure."""
        yield from super().problems()
        known = "" if self.preset is None else f": the preset {self.preset} has none"
        for key in [key for key in ("url", "body") if not getattr(self, key)]:
            yield (key,), f"missing{known}. Add `{key}: ...`."
        if self.body:
            yield from self._wrong_body()
        yield from self._wrong_batch()
        yield from self._wrong_login()
        if not any(answer.means == "delivered" for answer in self.answers):
            text = "no answer means delivered, so everything would be sent until its id is forgotten"
            yield ("answers",), f"{text}. Write one such as `- {{status: 200, means: delivered}}`."
        if self.role != "billing":
            return
        if self.dedupe_horizon is None:
            text = "not written, and a billing sink must say how long the receiver discards an id it has seen"
            yield ("dedupe_horizon",), f"{text}. Write 32d, or what it states; 0s if it takes everything again."
        if self.dimensions is None or any(told.aggregation is None for told in self.dimensions.values()):
            text = "records are deltas, and this receiver cannot be asked whether it adds them"
            yield ("dimensions",), f"{text}. Name the dimensions, each with `aggregation: sum`, if it does."

    def untold(self, label: str) -> str | None:
        """Why no record with this label can be told there; None: it can."""
        try:
            hidden = label in Template(self.body).beside_labels
        except TemplateError:  # which is told elsewhere
            return None
        return f"the label {label} and a key of the body have one name" if hidden else None

    def _wrong_body(self) -> Found:
        try:
            template = Template(self.body)
        except TemplateError as error:
            yield ("body", *(step for step in error.where if step != "\0key")), str(error)
            return
        if template.id_path is None:
            text = "drops the record's id, by which a repeat is known"
            yield ("body",), f'{text}. Give a key of its own to it, such as `id: "{{id}}"`.'
        for name in ("value", "customer"):
            if name not in template.names:
                yield ("body",), f"does not tell the {name}. Add {{{name}}} where the receiver reads it."
        if "dimension" not in template.names and (self.dimensions is None or len(self.dimensions) > 1):
            text = "does not tell the dimension, and there are several"
            yield ("body",), f"{text}. Add {{dimension}} where the receiver reads it."

    def _wrong_batch(self) -> Found:
        shape = self.batch.shape
        if shape == "list" and self.batch.under is None:
            yield ("batch", "under"), "missing: a list stands under a key. Add `under: events`, or what it is called."
        for key in ("under", "beside"):
            if shape != "list" and getattr(self.batch, key) is not None:
                yield ("batch", key), f"only a list has one, and the shape is {shape}. Remove it."
        if self.batch.beside and self.batch.under in self.batch.beside:
            yield ("batch", "beside", self.batch.under), "the key of the records themselves. Remove it."
        if shape == "single" and self.max_batch > 1:
            yield ("max_batch",), "a single record makes the request. Write 1, or another batch.shape."

    def _wrong_login(self) -> Found:
        ways = [key for key in ("token_file", "basic", "oauth2") if getattr(self, key) is not None]
        both = ways[1:] if self.token_header is None else [key for key in ways[1:] if key == "oauth2"]
        for key in both:
            yield (key,), f"beside {ways[0]}, and both would be the Authorization. Remove one."
        if self.token_header is not None and self.token_file is None:
            yield ("token_file",), f"missing: {self.token_header} holds a token. Name the file that it is in."
        asked = "" if self.oauth2 is None else self.oauth2.token_url
        if asked.startswith("http://") and not is_loopback(asked):
            yield (
                ("oauth2", "token_url"),
                "what is in client_secret_file would be sent in the clear. Write https:// there.",
            )
        for name in self.headers or {}:
            if name.lower() in ("authorization", "cookie", "x-api-key", "proxy-authorization"):
                yield ("headers", name), "a secret does not stand in this file. Put it into one, under secret_headers."

    def _login(self) -> "Login | None":
        from agent.credentials import Token
        from agent.sinks.login import Basic, Bearer, Several

        logins: list[Login] = []
        if self.token_file is not None:
            logins.append(Bearer(self.token_file, self.token_header))
        if self.basic is not None:
            name, password = self.basic.user_file, self.basic.password_file
            logins.append(Basic(Token(name, "basic.user_file"), Token(password, "basic.password_file")))
        if self.oauth2 is not None:
            logins.append(self._asked(self.oauth2))
        logins += [Bearer(file, name, f"secret_headers.{name}") for name, file in (self.secret_headers or {}).items()]
        return None if not logins else logins[0] if len(logins) == 1 else Several(*logins)

    def _asked(self, told: OAuth2) -> "Login":
        from agent.credentials import Tls, Token
        from agent.sinks.oauth2 import ClientCredentials

        asked = (("audience", told.audience), ("scope", told.scope))
        return ClientCredentials(
            f"sinks[{self.id}]",
            told.token_url,
            Token(told.client_id_file, "oauth2.client_id_file"),
            Token(told.client_secret_file, "oauth2.client_secret_file"),
            form=told.request,
            place=told.credentials,
            asked=tuple((name, value) for name, value in asked if value is not None),
            tls=Tls(self.tls.ca_file, self.tls.cert_file, self.tls.key_file),
            timeout=self.timeout,
        )
