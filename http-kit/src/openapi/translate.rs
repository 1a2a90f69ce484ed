//! Translates a document.

use serde_json::Value;

use crate::text::{self, Language};

/// Translates every sentence. Of an example in several languages, it keeps the one in this language.
pub(super) fn translate(document: &mut Value, language: Language) {
    match document {
        Value::Object(members) => {
            for (name, value) in members {
                match name.as_str() {
                    "description" | "summary" if value.is_string() => sentence(value, language),
                    "examples" if value.is_object() => examples(value, language),
                    // These are data.
                    "example" | "default" | "enum" => {}
                    _ => translate(value, language),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| translate(item, language)),
        _ => {}
    }
}

/// Each paragraph is looked up by itself.
fn sentence(value: &mut Value, language: Language) {
    let written = value.as_str().unwrap_or_default();
    // Line ends of a source file have no meaning; an empty line begins a paragraph.
    let paragraphs = written.split("\n\n");
    let paragraphs: Vec<_> = paragraphs
        .map(|lines| text::translate(&lines.replace('\n', " "), language).to_owned())
        .collect();
    *value = Value::from(paragraphs.join("\n\n"));
}

fn examples(examples: &mut Value, language: Language) {
    let examples = super::members(examples).values_mut();
    for example in examples {
        for name in ["summary", "description"] {
            if let Some(text) = example.get_mut(name).filter(|text| text.is_string()) {
                sentence(text, language);
            }
        }
        if let Some(value) = example["value"].get_mut(language.as_str()) {
            example["value"] = value.take();
        }
    }
}
