# SPDX-License-Identifier: Apache-2.0
"""Varlink interface definitions, read by another reader than the daemon's own, and JSON held against
them. https://varlink.org/Interface-Definition"""

import os
import re
from pathlib import Path

SOURCE = Path(os.environ.get("top_srcdir", Path(__file__).resolve().parents[2])) / "src" / "varlink"

TOKEN = re.compile(r"\s*(?:#[^\n]*\n\s*)*(->|\[\]|\[string\]|[A-Za-z][A-Za-z0-9_.]*|[?():,])")


def text(name):
    return (SOURCE / f"{name}.varlink").read_text()


class Interface:
    """types, methods (input, output) and errors by name. A type is a name, {"field": type} for a struct,
    a set for an enum, or ("?", type), ("[]", type), ("[string]", type)."""

    def __init__(self, definition):
        self.types, self.methods, self.errors = {}, {}, {}
        self.tokens = TOKEN.findall(definition)
        assert self.take() == "interface"
        self.name = self.take()
        while self.tokens:
            kind, name = self.take(), self.take()
            if kind == "type":
                self.types[name] = self.type()
            elif kind == "error":
                self.errors[name] = self.type()
            else:
                assert kind == "method"
                given = self.type()
                assert self.take() == "->"
                self.methods[name] = (given, self.type())

    def take(self):
        return self.tokens.pop(0)

    def type(self):
        first = self.take()
        if first in ("?", "[]", "[string]"):
            return (first, self.type())
        if first != "(":
            return first
        names, fields = set(), {}
        while self.tokens[0] != ")":
            name = self.take()
            names.add(name)
            if self.tokens[0] == ":":
                self.take()
                fields[name] = self.type()
            if self.tokens[0] == ",":
                self.take()
        self.take()
        assert not fields or set(fields) == names
        return fields if fields or not names else names

    def check(self, kind, value, where=""):
        """Raises when the value does not fit."""
        if isinstance(kind, str) and kind in self.types:
            kind = self.types[kind]
        if isinstance(kind, dict):
            assert isinstance(value, dict), f"{where}: {value!r} is no object"
            assert set(value) <= set(kind), f"{where}: unknown {set(value) - set(kind)}"
            for name, field in kind.items():
                self.check(field, value.get(name), f"{where}.{name}")
        elif isinstance(kind, set):
            assert value in kind, f"{where}: {value!r} is none of {kind}"
        elif isinstance(kind, tuple):
            self._check_compound(*kind, value, where)
        else:
            python = {"bool": bool, "int": int, "float": (int, float), "string": str, "object": dict}[kind]
            assert isinstance(value, python), f"{where}: {value!r} is no {kind}"
            assert kind == "bool" or not isinstance(value, bool), f"{where}: {value!r} is no {kind}"

    def _check_compound(self, kind, element, value, where):
        if kind == "?":
            if value is not None:
                self.check(element, value, where)
        elif kind == "[]":
            assert isinstance(value, list), f"{where}: {value!r} is no array"
            for i, item in enumerate(value):
                self.check(element, item, f"{where}[{i}]")
        else:
            assert isinstance(value, dict), f"{where}: {value!r} is no map"
            for name, item in value.items():
                self.check(element, item, f"{where}[{name}]")

    def check_reply(self, method, parameters):
        self.check(self.methods[method][1], parameters, method)

    def check_error(self, name, parameters):
        self.check(self.errors[name], parameters, name)
