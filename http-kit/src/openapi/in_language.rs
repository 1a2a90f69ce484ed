//! What a document that exists in each language is asked for with.

use serde_json::json;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};

use super::{Refuses, query};
use crate::code::Code;
use crate::error::ApiError;
use crate::fields::{self, Fields};
use crate::text::{Language, Text};

/// `lang`, the only parameter.
pub struct InLanguage;

impl InLanguage {
    /// The language that a query asks for; English without one. Errors: 400 for any other, and for other parameters.
    pub fn of(query: Option<&str>) -> Result<Language, ApiError> {
        let mut parameters = Fields::from_query(query);
        let language = parameters.optional("lang", |value| {
            Language::parse(fields::string(value)?).ok_or_else(unknown)
        });
        parameters.finish()?;
        Ok(language.unwrap_or_default())
    }
}

fn unknown() -> Text {
    Text::new("NOT_ALLOWED").with("allowed", Language::ALL.map(Language::as_str).join(", "))
}

impl IntoParams for InLanguage {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let names = Language::ALL.map(Language::as_str);
        let languages = json!({"type": "string", "enum": names, "default": names[0]});
        vec![query(
            "lang",
            languages,
            "The language of the descriptions.",
        )]
    }
}

impl Refuses for InLanguage {
    fn refusals() -> Vec<ApiError> {
        vec![ApiError::new(Code::ValidationFailed).field("lang", unknown())]
    }
}
