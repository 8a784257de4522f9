"""Nothing secret is compared with ==: whoever measures how long the answer took would learn how much was right.

Read from the syntax tree of the whole source. What counts as secret is told by names and calls (`token`, `.sign(...)`,
`.get_secret_value()`), by the headers that carry secrets, and by what was computed from either in the same function.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "cartwake"

# The last word of a name, or a word of a call's.
SECRET_WORDS = {
    *(
        "key",
        "secret",
        "token",
        "mac",
        "signature",
        "digest",
        "password",
        "hash",
        "credential",
        "authorization",
        "mark",
    ),
    *("sign", "hexdigest"),
}
SECRET_HEADERS = ("authorization", "-signature", "-token", "api-key")
# What comes out of these is as secret as what went in; of other calls the name tells.
TRANSPARENT_CALLS = {"b64encode", "b64decode", "b64url", "un_b64url", "bytes", "str", "get", "next"}
METHODS_THAT_KEEP = {
    "encode",
    "decode",
    "strip",
    "lower",
    "upper",
    "hex",
    "removeprefix",
    "partition",
    "rpartition",
    "split",
}

# File, and the comparison as the syntax tree writes it; each with the reason why its time tells nobody anything.
ALLOWED = {
    (
        "carts/model.py",
        "self.phone_hash == self.consented_phone",
    ): "both are stored, and nobody can choose a keyed hash",
    (
        "consent/export.py",
        "found['phone_hash'] in (None, phone_hash)",
    ): "both from the database, for the one whose phones they are",
    ("consent/events.py", "_key(change) in lifted"): "tenant and keyed hash, both from the same batch",
    ("credits/model.py", "key not in seen"): "ids of a reservation",
    ("credits/reservations.py", "key in credits_of"): "ids of a reservation",
    ("kit/config.py", "secret.get_secret_value() == DEVELOPMENT_SECRET"): "the operator's own, at the start; no caller",
    (
        "kit/config.py",
        "settings.twilio_auth_token.get_secret_value() == DEVELOPMENT_TOKEN",
    ): "the operator's own, at the start; no caller",
    ("kit/config_listing.py", "name in secret_settings()"): "the names of settings",
    ("messages/facts.py", "message.session_key in sessions"): "ids of a session",
    ("messages/facts.py", "phone in everywhere"): "keyed hashes, both from the database",
    ("messages/recovery.py", "key[3] in marked"): "ids of a message",
    ("messages/recovery.py", "text.sid in keys"): "the carrier's ids of texts",
    ("messages/recovery.py", "keys[text.sid][3] in marked"): "ids of a message",
    (
        "tenants/answers.py",
        "found['request_hash'] != request.request_hash",
    ): "a digest of what the same caller sent, now and before; it opens nothing",
}
# Where secrets are compared today: file, how, and how they would be compared carelessly.
SITES = [
    (
        "kit/crypto.py",
        "hmac.compare_digest(self._mac(key_id, purpose, message)[: len(mac)], mac)",
        "self._mac(key_id, purpose, message)[: len(mac)] == mac",
    ),
    (
        "carriers/sandbox/server.py",
        'not hmac.compare_digest(given.encode(errors="surrogateescape"), expected.encode())',
        "given != expected",
    ),
    ("kit/schema.py", "not hmac.compare_digest(known[0], mark)", "known[0] != mark"),
    (
        "observe/exporter.py",
        'hmac.compare_digest(authorization.encode("utf-8", "surrogateescape"), expected.encode())',
        "expected in (authorization,)",
    ),
]
# Hashes that anybody may know, compared with the same care all the same, and how often.
PUBLIC = {"consent/verify.py": 3, "consent/invariants.py": 3}


def comparisons(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of each comparison of something secret, and of each `match` on it."""
    for scope in scopes(tree):
        tainted = secrets_of(scope)
        for node in within(scope):
            if isinstance(node, ast.Compare):
                for left, operator, right in zip(
                    [node.left, *node.comparators], node.ops, node.comparators, strict=False
                ):
                    is_equality = isinstance(operator, ast.Eq | ast.NotEq | ast.In | ast.NotIn)
                    if is_equality and (is_secret(left, tainted) or is_secret(right, tainted)):
                        yield node.lineno, ast.unparse(node)
            elif isinstance(node, ast.Match) and is_secret(node.subject, tainted):
                yield node.lineno, f"match {ast.unparse(node.subject)}"


def scopes(tree: ast.AST) -> Iterator[ast.AST]:
    """The module, and each of its functions with whatever is nested in it."""
    yield tree
    yield from _outermost(tree)


def _outermost(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
        else:
            yield from _outermost(child)


def within(scope: ast.AST) -> Iterator[ast.AST]:
    """Every node of a scope; of a module's, those outside of functions."""
    for child in ast.iter_child_nodes(scope):
        if not (
            isinstance(scope, ast.Module | ast.ClassDef) and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        ):
            yield child
            yield from within(child)


def secrets_of(scope: ast.AST) -> set[str]:
    """Names that were given something secret."""
    tainted: set[str] = set()
    given = [node for node in within(scope) if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr)]
    for _ in range(3):  # one from another, from a third
        for node in given:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if node.value is not None and is_secret(node.value, tainted):
                tainted |= {target.id for target in targets if isinstance(target, ast.Name)}
    return tainted


def is_secret(node: ast.AST, tainted: set[str]) -> bool:
    """Whether an expression holds something secret, or is made from it."""
    if isinstance(node, ast.Name):
        return node.id in tainted or says_secret(node.id)
    if isinstance(node, ast.Attribute):
        return says_secret(node.attr)
    if isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in TRANSPARENT_CALLS:
            return any(is_secret(argument, tainted) for argument in node.args)
        if called in METHODS_THAT_KEEP and isinstance(node.func, ast.Attribute):
            return is_secret(node.func.value, tainted)
        return bool(SECRET_WORDS & set(words(called)))
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and node.value.lower().endswith(SECRET_HEADERS) and " " not in node.value
    if isinstance(node, ast.Compare | ast.Lambda):
        return False  # a yes or no; nothing yet
    if isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp):
        return is_secret(node.elt, tainted)
    if isinstance(node, ast.Dict):  # `in` looks at its keys
        return any(key is not None and is_secret(key, tainted) for key in node.keys)
    if isinstance(node, ast.DictComp):
        return is_secret(node.key, tainted)
    return any(is_secret(child, tainted) for child in ast.iter_child_nodes(node))


def says_secret(name: str) -> bool:
    return words(name)[-1] in SECRET_WORDS


def words(name: str) -> list[str]:
    """`API_KEYS` as `api` and `key`."""
    return [word.removesuffix("s") for word in name.strip("_").lower().replace("hashes", "hash").split("_")]


def found_in_source() -> dict[tuple[str, str], int]:
    return {
        (file.relative_to(SOURCE).as_posix(), text): line
        for file in sorted(SOURCE.rglob("*.py"))
        for line, text in comparisons(ast.parse(file.read_text("utf-8")))
    }


def test_nothing_secret_is_compared_by_equality() -> None:
    found = found_in_source()
    broken = [f"{file}:{line}: {text}" for (file, text), line in found.items() if (file, text) not in ALLOWED]
    assert not broken, "use hmac.compare_digest, or say in ALLOWED why its time tells nothing:\n" + "\n".join(broken)
    assert not set(ALLOWED) - set(found), "these are gone: take them off the list"


def test_every_place_that_compares_secrets_is_tried() -> None:
    found = {
        file.relative_to(SOURCE).as_posix(): count
        for file in SOURCE.rglob("*.py")
        if (count := file.read_text("utf-8").count("compare_digest("))
    }
    assert found == {file: 1 for file, _, _ in SITES} | PUBLIC


@pytest.mark.parametrize(("file", "careful", "careless"), SITES, ids=[file for file, _, _ in SITES])
def test_each_of_them_would_be_seen_if_it_were_careless(file: str, careful: str, careless: str) -> None:
    text = (SOURCE / file).read_text("utf-8")
    assert text.count(careful) == 1
    found = [said for _, said in comparisons(ast.parse(text.replace(careful, careless)))]
    assert [said for said in found if (file, said) not in ALLOWED] == [careless.replace("[: len", "[:len")]


CARELESS = [
    "token == given",
    "given != api_secret",
    "mac[:9] == found.mac",
    "a.signature != b",
    "key == given",
    "sign(url, form) == header",
    "vault.sign(link_id, 'link') != mac_of_it",
    "settings.auth_token.get_secret_value() == given",
    "given in (settings.api_key, other)",
    "hmac.new(key, body, 'sha256').hexdigest() == given",
    "hash_secret(given) == found['secret_hash']",
    "row.phone_hash == theirs",
    "request.headers['X-Twilio-Signature'] == computed",
    "request.headers.get('authorization', '') == 'Basic ' + known",
]


@pytest.mark.parametrize("comparison", CARELESS)
def test_a_careless_comparison_is_seen(comparison: str) -> None:
    assert list(comparisons(ast.parse(f"async def f():\n    def g():\n        return {comparison} or other")))
    assert list(comparisons(ast.parse(comparison)))


@pytest.mark.parametrize(
    "code",
    [
        "def f():\n  given = request.headers.get('Authorization', '')\n  if given[7:] == x: pass",
        "def f():\n  good = b64url(vault.sign(body, 'x'))\n  def g(y):\n    return good == y",
        "def f():\n  match token:\n    case 'x': pass",
        "class A:\n  def f(self):\n    return self._password == given",
    ],
)
def test_so_is_one_by_another_name(code: str) -> None:
    assert list(comparisons(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "hmac.compare_digest(token, given) and machine == other and secret is None",
        "len(mac) != 16 or not vault.verify(body, mac, 'x')",
        "key_id in roots or token_kind == 'x'",
        "kind_of(token) == KeyKind.OPERATOR",
    ],
)
def test_what_tells_nothing_of_a_secret_passes(code: str) -> None:
    assert not list(comparisons(ast.parse(code)))
