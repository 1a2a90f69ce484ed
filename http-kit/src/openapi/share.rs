//! Moves descriptions that several operations have in common into the components.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::members;

/// Moves parameters, headers, examples and failures that are the same in several operations into the components.
pub(super) fn share(document: &mut Value) {
    let mut paths = document["paths"].take();
    let mut components = document["components"].take();
    // From the inside out, so that answers are compared after their own parts were moved.
    for part in [
        Part::Examples,
        Part::Headers,
        Part::Responses,
        Part::Parameters,
    ] {
        let mut count = Count::default();
        each(&mut paths, part, &mut |name, value| count.add(name, value));
        let kept = count.most_common();
        each(&mut paths, part, &mut |name, value| {
            if kept.get(&name).is_some_and(|kept| kept == value) {
                *value = json!({"$ref": format!("#/components/{}/{name}", part.name())});
            }
        });
        if !kept.is_empty() {
            members(&mut components).insert(part.name().to_owned(), Value::Object(kept));
        }
    }
    document["paths"] = paths;
    document["components"] = components;
}

#[derive(Clone, Copy)]
enum Part {
    Parameters,
    Headers,
    Examples,
    Responses,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Parameters => "parameters",
            Self::Headers => "headers",
            Self::Examples => "examples",
            Self::Responses => "responses",
        }
    }
}

/// Visits each item of a part, with its name in the components.
fn each(paths: &mut Value, part: Part, visit: &mut impl FnMut(String, &mut Value)) {
    let items = members(paths).values_mut();
    let operations = items.flat_map(|item| members(item).values_mut());
    for operation in operations {
        if let Part::Parameters = part {
            let parameters = operation.get_mut("parameters");
            for parameter in parameters
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                if let Some(name) = parameter["name"].as_str() {
                    visit(name.to_owned(), parameter);
                }
            }
            continue;
        }
        for (status, response) in members(&mut operation["responses"]) {
            match part {
                // Successes differ.
                Part::Responses if status.as_str() >= "400" => visit(reason(status), response),
                Part::Headers => {
                    let headers = response.get_mut("headers");
                    for (name, header) in headers.map(members).into_iter().flatten() {
                        visit(name.clone(), header);
                    }
                }
                Part::Examples => {
                    let contents = response.get_mut("content");
                    for (media_type, content) in contents.map(members).into_iter().flatten() {
                        let form = if media_type == "application/problem+json" {
                            ".problem"
                        } else {
                            ""
                        };
                        let examples = content.get_mut("examples");
                        for (name, example) in examples.map(members).into_iter().flatten() {
                            visit(format!("{name}{form}"), example);
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

/// `NotFound` for 404.
fn reason(status: &str) -> String {
    let status = status.parse::<axum::http::StatusCode>();
    let reason = status.ok().and_then(|status| status.canonical_reason());
    let reason = reason.unwrap_or("Failure");
    reason.split([' ', '-']).collect()
}

/// Counts the values of each name, in the order of first appearance.
#[derive(Default)]
struct Count {
    names: Vec<String>,
    values: HashMap<String, Vec<(Value, usize)>>,
}

impl Count {
    fn add(&mut self, name: String, value: &Value) {
        let values = self.values.entry(name.clone()).or_insert_with(|| {
            self.names.push(name);
            Vec::new()
        });
        match values.iter_mut().find(|(known, _)| known == value) {
            Some((_, count)) => *count += 1,
            None => values.push((value.clone(), 1)),
        }
    }

    /// The most frequent value of each name, if it occurs more than once.
    fn most_common(mut self) -> Map<String, Value> {
        let mut kept = Map::new();
        for name in self.names {
            let values = self.values.remove(&name).unwrap_or_default();
            let mut most: Option<(Value, usize)> = None;
            for (value, count) in values {
                if count > most.as_ref().map_or(1, |(_, most)| *most) {
                    most = Some((value, count));
                }
            }
            if let Some((value, _)) = most {
                kept.insert(name, value);
            }
        }
        kept
    }
}
