//! The description of the api for programs: OpenAPI 3.1, made from the table of endpoints.

use serde_json::{Map, Value, json};

use super::endpoints::{Answer, Body, Endpoint, Kind, Method, Parameter};
use super::schemas;
use super::table::ENDPOINTS;
use super::trouble;

/// The whole description.
pub fn document(version: &str) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for endpoint in ENDPOINTS {
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        path[endpoint.method.word().to_ascii_lowercase()] = operation(endpoint);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Quarry",
            "version": version,
            "description": "Every endpoint is a command of `quarry`, with the same rights and the same events. \
                `quarry tokens add NAME` makes a token.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas::all(),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
        "security": [{ "token": [] }],
    })
}

fn operation(endpoint: &Endpoint) -> Value {
    let mut operation = json!({
        "operationId": endpoint.id(),
        "summary": endpoint.summary,
        "description": format!("Right: {}.", endpoint.right),
        "parameters": named(endpoint).chain(endpoint.all_parameters().map(parameter)).collect::<Vec<_>>(),
        "responses": responses(endpoint),
    });
    let (schema, required) = match endpoint.body {
        Body::None => (None, false),
        Body::Optional(schema) => (Some(schema), false),
        Body::Required(schema) => (Some(schema), true),
    };
    if let Some(schema) = schema {
        operation["requestBody"] =
            json!({ "required": required, "content": { "application/json": { "schema": reference(schema) } } });
    }
    if endpoint.answer == Answer::Pong {
        operation["security"] = json!([]);
    }
    operation
}

/// What stands in the path.
fn named(endpoint: &Endpoint) -> impl Iterator<Item = Value> {
    let names = endpoint.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": schemas::named(name) }))
}

fn parameter(parameter: &Parameter) -> Value {
    let schema = match parameter.kind {
        Kind::Flag => json!({ "type": "boolean", "default": false }),
        Kind::Unless => json!({ "type": "boolean", "default": true }),
        Kind::Count(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Stack => schemas::named("stack"),
        Kind::Node => schemas::named("node"),
        Kind::Cursor => json!({ "type": "string", "minLength": 1, "maxLength": 300 }),
    };
    json!({ "name": parameter.name, "in": "query", "description": parameter.what, "schema": schema })
}

fn responses(endpoint: &Endpoint) -> Value {
    let json = |schema: Value| json!({ "application/json": { "schema": schema } });
    let plain = || json!({ "text/plain": { "schema": { "type": "string" } } });
    let (status, content) = match endpoint.answer {
        Answer::Pong => ("200", json(reference("Pong"))),
        Answer::Document => ("200", json(json!({ "type": "object" }))),
        Answer::Value(schema) => ("200", json(reference(schema))),
        Answer::List(schema, _) => ("200", json(json!({ "type": "array", "items": reference(schema) }))),
        Answer::Done => ("200", json(reference("Done"))),
        Answer::Made => ("201", json(reference("Done"))),
        Answer::Lines | Answer::Metrics => ("200", plain()),
        Answer::Events(schema) => {
            let mut content = json(json!({ "type": "array", "items": reference(schema) }));
            content["text/event-stream"] = json!({ "schema": { "type": "string" } });
            ("200", content)
        }
    };
    let mut responses = Map::from_iter([(status.to_owned(), json!({ "description": "Done", "content": content }))]);
    for kind in troubles(endpoint) {
        let (status, word) = kind.status();
        let answer = json!({ "description": word.replace('_', " "), "content": json(reference("Error")) });
        responses.insert(status.to_string(), answer);
    }
    Value::Object(responses)
}

/// What may go wrong.
fn troubles(endpoint: &Endpoint) -> Vec<trouble::Kind> {
    use trouble::Kind;
    let mut kinds = vec![Kind::Bad, Kind::Bug, Kind::Away];
    if endpoint.answer != Answer::Pong {
        kinds.extend([Kind::Stranger, Kind::Often]);
    }
    if endpoint.order.is_some() {
        kinds.extend([Kind::Forbidden, Kind::Missing, Kind::Mistake]);
    }
    if endpoint.method != Method::Get {
        kinds.push(Kind::Conflict);
    }
    if endpoint.body != Body::None {
        kinds.extend([Kind::Long, Kind::Slow]);
    }
    kinds
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every `$ref` below a value.
    fn references(value: &Value, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                into.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
                object.values().for_each(|value| references(value, into));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, into)),
            _ => {}
        }
    }

    #[test]
    fn every_endpoint_is_described_and_every_reference_leads_somewhere() {
        let document = document("1.2.3");
        let operations: usize =
            document["paths"].as_object().unwrap().values().map(|path| path.as_object().unwrap().len()).sum();
        assert_eq!(operations, ENDPOINTS.len());
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        let known: BTreeSet<String> =
            schemas::all().keys().map(|name| format!("#/components/schemas/{name}")).collect();
        assert_eq!(found, known, "each schema is used, and each that is used is there");
        assert_eq!(document["paths"]["/v1/ping"]["get"]["security"], json!([]));
        assert!(document["paths"]["/v1/stacks"]["get"]["responses"]["401"].is_object());
    }

    #[test]
    fn placeholders_are_parameters_of_the_path() {
        let document = document("1");
        let operation = &document["paths"]["/v1/stacks/{stack}/env/{variable}"]["put"];
        let names: Vec<&str> =
            operation["parameters"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["stack", "variable", "restart"]);
        assert_eq!(operation["requestBody"]["required"], json!(true));
    }
}
