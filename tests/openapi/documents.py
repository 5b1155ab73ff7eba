"""Validates both descriptions by themselves: their format, their examples, and the names that they
share with docs/protocol.md."""

import json
import re
import subprocess

import jsonschema
import openapi_spec_validator

from origin import ASYNCAPI, HOME, OPENAPI, ROOT

PARSER = """
import { Parser } from "@asyncapi/parser";
import { readFileSync } from "node:fs";
const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[1], "utf8"));
// Severity 0 is an error and 1 a warning. 2 are hints, such as the one that a version after 3.0 exists.
const bad = diagnostics.filter(({ severity }) => severity < 2);
for (const one of bad) console.log(one.code, one.path.join("."), one.message);
process.exit(document && bad.length === 0 ? 0 : 1);
"""


class Document:
    """A description, whose schemas can be compared with values."""

    def __init__(self, path):
        self.root = json.loads(path.read_text())

    def resolve(self, value):
        while isinstance(value, dict) and "$ref" in value and len(value) == 1:
            found = self.root
            for step in value["$ref"].removeprefix("#/").split("/"):
                found = found[step.replace("~1", "/").replace("~0", "~")]
            value = found
        return value

    def errors(self, schema, value):
        """What is wrong with a value; an empty list for a valid one. The JSON texts inside of events
        are compared with their `contentSchema` too."""
        whole = (
            {**schema, "components": self.root["components"]}
            if "$ref" not in schema
            else {"allOf": [schema], "components": self.root["components"]}
        )
        validator = jsonschema.validators.extend(
            jsonschema.Draft202012Validator, {"contentSchema": embedded(self)}
        )(whole)
        return [
            f"{list(error.absolute_path)}: {error.message[:300]}" for error in validator.iter_errors(value)
        ]


def embedded(document):
    def check(_validator, schema, text, _parent):
        try:
            value = json.loads(text)
        except ValueError as error:
            yield jsonschema.ValidationError(f"{text!r} is not JSON: {error}")
            return
        for error in document.errors(schema, value):
            yield jsonschema.ValidationError(error)

    return check


def sse(text):
    """The events of a stream as objects, as OpenAPI 3.2 describes them."""
    events = []
    for block in text.split("\n\n"):
        event = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                event["data"] = f"{event['data']}\n{value}" if "data" in event else value
            elif name in ("event", "id", "retry"):
                event[name] = int(value) if name == "retry" else value
        if "data" in event:
            events.append(event)
    return events


def examples(document, node, path=""):
    """All examples, each with its schema and its place."""
    if isinstance(node, list):
        for index, one in enumerate(node):
            yield from examples(document, one, f"{path}/{index}")
        return
    if not isinstance(node, dict):
        return
    if isinstance(node.get("examples"), list) and ("type" in node or "anyOf" in node or "allOf" in node):
        yield from ((f"{path}/examples", node, one) for one in node["examples"])
    if "schema" in node and "in" in node or "schema" in node and ("example" in node or "examples" in node):
        if "example" in node:
            yield f"{path}/example", node["schema"], node["example"]
        for name, one in (node.get("examples") or {}).items():
            if "value" in one:
                yield f"{path}/examples/{name}", node["schema"], one["value"]
            else:
                events = sse(one["serializedValue"])
                yield f"{path}/examples/{name}", node["schema"], events
                yield from ((f"{path}/examples/{name}", node["itemSchema"], event) for event in events)
    if "payload" in node and "examples" in node:
        yield from ((f"{path}/examples", node["payload"], one["payload"]) for one in node["examples"])
    for name, one in node.items():
        if name not in ("examples", "example"):
            yield from examples(document, one, f"{path}/{name}")


def protocol_names():
    """The names of problems in docs/protocol.md, and the reasons of gaps and of shed responses."""
    text = (ROOT / "docs/protocol.md").read_text()
    rows = text[text.index("| name | status | when |") :].split("\n\n")[0].splitlines()[2:]
    problems = {name for row in rows for name in re.findall(r"`([a-z-]+)`", row.split("|")[1])}
    gaps = text[text.index("| reason | when |") :].split("\n\n")[0]
    gaps = set(re.findall(r"^\| `([a-z-]+)`", gaps, re.M)) | {"damaged", "lost"}
    shed = text[text.index("| reason | meaning |") :].split("\n\n")[0]
    return problems, gaps, set(re.findall(r"^\| `([a-z-]+)`", shed, re.M))


def check():
    faults = []
    openapi, asyncapi = Document(OPENAPI), Document(ASYNCAPI)
    faults += [
        f"openapi.json: {error.message}"
        for error in openapi_spec_validator.OpenAPIV32SpecValidator(openapi.root).iter_errors()
    ]
    parsed = subprocess.run(
        ["node", "--input-type=module", "-e", PARSER, "--", str(ASYNCAPI)],
        cwd=HOME,
        capture_output=True,
        text=True,
    )
    if parsed.returncode != 0:
        faults.append(f"asyncapi.json: {parsed.stdout}{parsed.stderr}")
    count = 0
    for document, name in ((openapi, "openapi.json"), (asyncapi, "asyncapi.json")):
        for place, schema, value in examples(document, document.root):
            count += 1
            faults += [f"{name}{place}: {error}" for error in document.errors(schema, value)]
    problems, gaps, shed = protocol_names()
    schemas = openapi.root["components"]["schemas"]
    for what, described, specified in [
        (
            "problems",
            {one.split(":")[-1] for one in schemas["Problem"]["properties"]["type"]["enum"]},
            problems,
        ),
        ("reasons of gaps", set(schemas["GapObject"]["properties"]["reason"]["enum"]), gaps),
        (
            "reasons of gaps over WebSockets",
            set(asyncapi.root["components"]["schemas"]["Gap"]["properties"]["reason"]["enum"]),
            gaps,
        ),
        ("reasons of shed responses", set(schemas["ShedReason"]["enum"]), shed),
    ]:
        if described != specified:
            faults.append(f"{what}: the description and docs/protocol.md differ in {described ^ specified}")
    for fault in faults:
        print(f"FAIL {fault}")
    print(f"{'FAIL' if faults else 'ok  '} documents: {count} examples")
    return not faults
