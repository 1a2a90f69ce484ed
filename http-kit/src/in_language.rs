//! The language of a document that exists in several.

use crate::code::Code;
use crate::error::ApiError;
use crate::openapi::Refuses;
use crate::query::{OneOf, defaulted, read};
use crate::text::Language;

crate::query_parameters! {
    /// `lang`, the only parameter.
    pub struct InLanguage {
        /// The language of the descriptions.
        language: Language = defaulted("lang", LANGUAGES, Language::En),
    }
}

const LANGUAGES: OneOf<Language> = OneOf(&Language::ALL);

impl InLanguage {
    /// The language in a query; English by default. Errors: 400 for an unknown language and for other parameters.
    pub fn of(query: Option<&str>) -> Result<Language, ApiError> {
        read(query).map(|Self { language }| language)
    }
}

impl Refuses for InLanguage {
    fn refusals() -> Vec<ApiError> {
        vec![ApiError::new(Code::ValidationFailed).field("lang", LANGUAGES.problem())]
    }
}
