//! The shapes of what is asked and answered, as JSON Schema (draft 2020-12). They follow what commands print with `--json`.

use serde_json::{Map, Value, json};

/// A shape that is not described further.
fn any() -> Value {
    json!({})
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn maybe(kind: &str) -> Value {
    json!({ "type": [kind, "null"] })
}

fn number() -> Value {
    json!({ "type": "integer" })
}

fn flag() -> Value {
    json!({ "type": "boolean" })
}

fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn texts() -> Value {
    list(text())
}

fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn word(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

/// A name such as those of stacks.
fn name(pattern: &str, longest: usize) -> Value {
    json!({ "type": "string", "pattern": pattern, "maxLength": longest })
}

/// An object with these keys, of which those that begin with `?` may be missing, and with no others.
fn object(keys: &[(&str, Value)]) -> Value {
    let bare = |key: &str| key.trim_start_matches('?').to_owned();
    let properties: Map<String, Value> = keys.iter().map(|(key, value)| (bare(key), value.clone())).collect();
    let required: Vec<&str> = keys.iter().map(|(key, _)| *key).filter(|key| !key.starts_with('?')).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

/// An object of any keys with values like this.
fn map(values: Value) -> Value {
    json!({ "type": "object", "additionalProperties": values })
}

/// What stands in a path for the placeholder of this name, or in a query.
pub(super) fn named(placeholder: &str) -> Value {
    match placeholder {
        "stack" => name(STACK, 40),
        "server" => name(SERVER, 63),
        "variable" => name(VARIABLE, 200),
        _ => name(NODE, 40),
    }
}

const STACK: &str = "^[a-z](-?[a-z0-9])*$";
const SERVER: &str = "^[a-z]([a-z0-9-]*[a-z0-9])?$";
const NODE: &str = "^[a-z]([a-z0-9_-]*[a-z0-9])?$";
const VARIABLE: &str = "^[A-Za-z_][A-Za-z0-9_]*$";

/// All of them by name.
pub(super) fn all() -> Map<String, Value> {
    let all = answers().into_iter().chain(machines()).chain(grid()).chain(records()).chain(requests());
    all.map(|(name, schema)| (name.to_owned(), schema)).collect()
}

/// What lists and values are made of.
fn answers() -> Vec<(&'static str, Value)> {
    vec![
        ("Pong", object(&[("pong", flag()), ("version", text())])),
        ("Env", map(text())),
        ("Done", object(&[("output", texts())])),
        (
            "Error",
            object(&[(
                "error",
                object(&[("code", text()), ("message", text()), ("request_id", text()), ("?output", texts())]),
            )]),
        ),
        ("Info", object(&[("version", text()), ("process", number()), ("?program", text())])),
        (
            "Stack",
            object(&[
                ("stack", text()),
                ("owner", text()),
                ("branch", maybe("string")),
                ("release", maybe("integer")),
                ("commit", maybe("string")),
                ("created", time()),
                ("deployed", json!({ "type": ["string", "null"], "format": "date-time" })),
                ("mode", text()),
                ("urls", texts()),
            ]),
        ),
        ("Node", object(&[("node", text()), ("count", number())])),
    ]
}

/// What runs, and where.
fn machines() -> Vec<(&'static str, Value)> {
    vec![
        (
            "Container",
            object(&[
                ("stack", text()),
                ("node", text()),
                ("container", text()),
                ("server", text()),
                ("release", text()),
                ("state", text()),
                ("code", maybe("integer")),
                ("address", maybe("string")),
                ("seconds", number()),
                ("again_in", maybe("integer")),
            ]),
        ),
        (
            "Job",
            object(&[
                ("stack", text()),
                ("job", text()),
                ("image", maybe("string")),
                ("daemonized", flag()),
                ("static", flag()),
                ("server", maybe("string")),
                ("state", text()),
                ("seconds", maybe("integer")),
            ]),
        ),
        (
            "Server",
            object(&[
                ("name", text()),
                ("address", maybe("string")),
                ("ip", maybe("string")),
                ("hostname", text()),
                ("state", text()),
                ("from", text()),
                ("why", maybe("string")),
                ("size", number()),
                ("used", number()),
                ("free", number()),
                ("processors", number()),
                ("architecture", text()),
                ("tags", texts()),
                ("containers", texts()),
                ("host_key", maybe("string")),
            ]),
        ),
    ]
}

/// How servers stand together.
fn grid() -> Vec<(&'static str, Value)> {
    vec![
        (
            "Network",
            object(&[
                ("server", text()),
                ("presence", any()),
                ("rules", text()),
                ("agent", text()),
                ("peers", texts()),
                ("open", texts()),
                ("trouble", texts()),
            ]),
        ),
        (
            "Grid",
            object(&[
                ("slices", map(json!({ "type": "object" }))),
                ("?autosize", json!({ "type": "object" })),
                ("?waiting", map(json!({ "type": "object" }))),
                ("?asked", list(json!({ "type": "object" }))),
            ]),
        ),
    ]
}

/// What the tree keeps, and events.
fn records() -> Vec<(&'static str, Value)> {
    vec![
        (
            "Release",
            object(&[
                ("number", number()),
                ("cause", any()),
                ("commit", maybe("string")),
                ("subject", text()),
                ("env_version", number()),
                ("instructions", list(any())),
                ("user", text()),
                ("created", time()),
            ]),
        ),
        (
            "Proc",
            object(&[
                ("node", text()),
                ("count", number()),
                ("release", number()),
                ("env_version", number()),
                ("settings", json!({ "type": "object" })),
                ("address", maybe("string")),
                ("home", maybe("string")),
                ("?published", list(any())),
            ]),
        ),
        (
            "Run",
            object(&[
                ("run", number()),
                ("began", time()),
                ("?ended", time()),
                ("?by", text()),
                ("?attached", flag()),
                ("server", text()),
                ("container", text()),
                ("outcome", any()),
            ]),
        ),
        (
            "Event",
            object(&[
                ("id", number()),
                ("at", time()),
                ("user", text()),
                ("from", text()),
                ("?stack", text()),
                ("what", text()),
                ("result", word(&["begun", "done", "refused", "failed", "unknown"])),
                ("?why", text()),
            ]),
        ),
    ]
}

/// What bodies say.
fn requests() -> Vec<(&'static str, Value)> {
    let counts = json!({
        "type": "object", "minProperties": 1, "propertyNames": name(NODE, 40),
        "additionalProperties": { "type": "integer", "minimum": 0, "maximum": 100 },
    });
    // What no environment can hold.
    let value = json!({ "type": "string", "pattern": "^[^\\u0000]*$" });
    let env = json!({
        "type": "object", "propertyNames": name(VARIABLE, 200), "additionalProperties": value,
    });
    let reference = json!({
        "type": "string", "minLength": 1, "maxLength": 250,
        "pattern": "^[^\\s\\u0000-\\u001f\\u007f-\\u009f-][^\\s\\u0000-\\u001f\\u007f-\\u009f]*$",
    });
    let job = json!({
        "type": "object",
        "properties": { "name": name(NODE, 40), "image": text(), "stack": name(STACK, 40) },
        "required": ["name", "image"],
        "description": "A job as `jobs run` takes it: name, image, command, volumes, ports, env, size, cpus, filter, \
            fixed, static, server, stack",
    });
    vec![
        ("NewStack", object(&[("name", name(STACK, 40))])),
        ("Deploy", object(&[("?ref", reference)])),
        ("Counts", counts),
        ("Restart", object(&[("?node", name(NODE, 40))])),
        ("Rollback", object(&[("?release", json!({ "type": "integer", "minimum": 1 }))])),
        ("NewEnv", env),
        ("Variable", object(&[("value", value)])),
        ("NewJob", job),
    ]
}
