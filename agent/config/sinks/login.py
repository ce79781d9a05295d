"""Who we are to a back end over HTTP, in files: what each way of saying it needs."""

from typing import Literal

from agent.config.scalars import FilePath, Url, VendorName
from agent.config.section import Section


class Basic(Section):
    """A name and a password (RFC 7617)."""

    user_file: FilePath
    """File with the name. No default."""
    password_file: FilePath
    """File with the password. No default."""


class OAuth2(Section):
    """A token that is asked for by client credentials (RFC 6749 §4.4), and renewed before its end."""

    token_url: Url
    """Where the token is asked for. No default. `${NAME}` is read from the environment."""
    client_id_file: FilePath
    """File with the client's id. No default."""
    client_secret_file: FilePath
    """File with the client's secret. No default."""
    request: Literal["form", "json"] = "form"
    """How it is asked for: a `form`, as the RFC has it, or `json`. Default form."""
    credentials: Literal["basic", "body"] = "basic"
    """Where the credentials stand: as `basic` in the header, or in the `body`. Default basic."""
    audience: VendorName | None = None
    """The audience to ask for. Default none."""
    scope: VendorName | None = None
    """The scope to ask for. Default none."""
