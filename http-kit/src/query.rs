//! Query parameters as structs. One declaration reads them and describes them.
//!
//! ```
//! use http_kit::query::{defaulted, number, optional};
//!
//! http_kit::query_parameters! {
//!     /// Which page of a list.
//!     struct Page {
//!         /// Begins after this item.
//!         after: Option<u64> = optional("after", number(0, 1_000_000)),
//!         /// Items on a page.
//!         limit: usize = defaulted("limit", number(1, 100), 20),
//!     }
//! }
//!
//! let page: Page = http_kit::query::read(Some("after=7")).unwrap();
//! assert_eq!((page.after, page.limit), (Some(7), 20));
//! ```
//!
//! The comment of a member is its description in the OpenAPI document.

use std::marker::PhantomData;

use serde::Serialize;
use serde_json::{Value, json};
#[doc(hidden)]
pub use utoipa::IntoParams;
#[doc(hidden)]
pub use utoipa::openapi::path::{Parameter, ParameterIn};

use crate::error::ApiError;
use crate::fields::{Fields, string, whole_number};
use crate::openapi;
use crate::text::Text;

/// A struct of query parameters, declared with [`query_parameters!`](crate::query_parameters).
pub trait Query: Sized {
    /// Takes the parameters out of a query string. `None` when a required one is missing or bad. Every problem is
    /// reported to the fields.
    fn take(fields: &mut Fields) -> Option<Self>;
}

/// A query string that has these parameters and no other. Errors: 400 with every problem at once.
pub fn read<Q: Query>(query: Option<&str>) -> Result<Q, ApiError> {
    let mut fields = Fields::from_query(query);
    let parameters = Q::take(&mut fields);
    fields.finish_with(parameters)
}

impl Query for () {
    fn take(_: &mut Fields) -> Option<Self> {
        Some(())
    }
}

impl<A: Query, B: Query> Query for (A, B) {
    fn take(fields: &mut Fields) -> Option<Self> {
        let (a, b) = (A::take(fields), B::take(fields));
        a.zip(b)
    }
}

/// Declares a struct of query parameters: `member: Type = presence("name", kind)`.
///
/// The presence is [`required`], [`optional`] or [`defaulted`]; the kind is a [`Kind`]. Parameters are read in the
/// order of the members.
#[macro_export]
macro_rules! query_parameters {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $($(#[doc = $about:literal])+ $member_vis:vis $member:ident: $type:ty = $parameter:expr,)+
        }
    ) => {
        $(#[$meta])*
        $vis struct $name {
            $($(#[doc = $about])+ $member_vis $member: $type,)+
        }

        impl $crate::query::Query for $name {
            fn take(fields: &mut $crate::fields::Fields) -> Option<Self> {
                // Every member is read before any is missed, so that every problem is reported.
                $(let $member: Option<$type> = $crate::query::Member::take($parameter, fields);)+
                Some(Self { $($member: $member?,)+ })
            }
        }

        impl $crate::query::IntoParams for $name {
            fn into_params(
                _: impl Fn() -> Option<$crate::query::ParameterIn>,
            ) -> Vec<$crate::query::Parameter> {
                vec![$($crate::query::describe::<$type>($parameter, &[$($about),+]),)+]
            }
        }
    };
}

/// How a parameter's value is read and described.
pub trait Kind {
    /// The type of a parsed value.
    type Value;

    /// Reads a value.
    fn parse(&self, text: &str) -> Result<Self::Value, Text>;

    /// The JSON Schema of the values.
    fn schema(&self) -> Value;
}

/// One parameter: a name, a kind, and whether it may be absent.
pub trait Member {
    /// The type of the member.
    type Value;

    /// Takes the parameter out of a query string and reports what is wrong with it.
    fn take(self, fields: &mut Fields) -> Option<Self::Value>;

    /// The parameter in the OpenAPI document.
    fn describe(self, about: &str) -> Parameter;
}

/// A parameter that must be there.
pub fn required<K: Kind>(name: &'static str, kind: K) -> impl Member<Value = K::Value> {
    Required(name, kind)
}

/// A parameter that may be absent.
pub fn optional<K: Kind>(name: &'static str, kind: K) -> impl Member<Value = Option<K::Value>> {
    Optional(name, kind)
}

/// A parameter with a value for when it is absent.
pub fn defaulted<K: Kind<Value: Serialize>>(
    name: &'static str,
    kind: K,
    default: K::Value,
) -> impl Member<Value = K::Value> {
    Defaulted(name, kind, default)
}

struct Required<K>(&'static str, K);

struct Optional<K>(&'static str, K);

struct Defaulted<K: Kind>(&'static str, K, K::Value);

impl<K: Kind> Member for Required<K> {
    type Value = K::Value;

    fn take(self, fields: &mut Fields) -> Option<K::Value> {
        fields.required(self.0, |value| self.1.parse(string(value)?))
    }

    fn describe(self, about: &str) -> Parameter {
        openapi::required(openapi::query(self.0, self.1.schema(), about))
    }
}

impl<K: Kind> Member for Optional<K> {
    type Value = Option<K::Value>;

    fn take(self, fields: &mut Fields) -> Option<Option<K::Value>> {
        Some(fields.optional(self.0, |value| self.1.parse(string(value)?)))
    }

    fn describe(self, about: &str) -> Parameter {
        openapi::query(self.0, self.1.schema(), about)
    }
}

impl<K: Kind<Value: Serialize>> Member for Defaulted<K> {
    type Value = K::Value;

    fn take(self, fields: &mut Fields) -> Option<K::Value> {
        let given = fields.optional(self.0, |value| self.1.parse(string(value)?));
        Some(given.unwrap_or(self.2))
    }

    fn describe(self, about: &str) -> Parameter {
        let mut schema = self.1.schema();
        schema["default"] = json!(self.2);
        openapi::query(self.0, schema, about)
    }
}

/// The lines of a comment as one description.
#[doc(hidden)]
pub fn describe<V>(parameter: impl Member<Value = V>, about: &[&str]) -> Parameter {
    let lines: Vec<_> = about.iter().map(|line| line.trim()).collect();
    parameter.describe(&lines.join(" "))
}

/// Whole numbers in a range; see [`number`] and [`number_from`].
#[derive(Debug, Clone, Copy)]
pub struct Number<T> {
    min: u64,
    max: u64,
    value: PhantomData<T>,
}

/// The greatest number that the databases' signed integers hold.
const MAX: u64 = i64::MAX.unsigned_abs();

/// Whole numbers from `min` to `max`.
pub const fn number<T>(min: u64, max: u64) -> Number<T> {
    Number {
        min,
        max,
        value: PhantomData,
    }
}

/// Whole numbers from `min` on, such as positions and versions.
pub const fn number_from(min: u64) -> Number<u64> {
    number(min, MAX)
}

impl<T> Number<T> {
    /// The problem of any other value.
    pub fn problem(&self) -> Text {
        Text::new("BAD_NUMBER")
            .with("min", self.min)
            .with("max", self.max)
    }
}

impl<T: TryFrom<u64>> Kind for Number<T> {
    type Value = T;

    fn parse(&self, text: &str) -> Result<T, Text> {
        whole_number(text)
            .filter(|number| (self.min..=self.max).contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| self.problem())
    }

    fn schema(&self) -> Value {
        if self.max == MAX {
            json!({"type": "integer", "format": "int64", "minimum": self.min})
        } else {
            json!({"type": "integer", "minimum": self.min, "maximum": self.max})
        }
    }
}

/// One of a list of names.
#[derive(Debug, Clone, Copy)]
pub struct OneOf<T: 'static>(pub &'static [T]);

impl<T: AsRef<str>> OneOf<T> {
    fn names(&self) -> Vec<&str> {
        self.0.iter().map(AsRef::as_ref).collect()
    }

    /// The problem of any other name.
    pub fn problem(&self) -> Text {
        Text::new("NOT_ALLOWED").with("allowed", self.names().join(", "))
    }
}

impl<T: AsRef<str> + Copy> Kind for OneOf<T> {
    type Value = T;

    fn parse(&self, text: &str) -> Result<T, Text> {
        let found = self.0.iter().find(|one| one.as_ref() == text);
        found.copied().ok_or_else(|| self.problem())
    }

    fn schema(&self) -> Value {
        json!({"type": "string", "enum": self.names()})
    }
}

/// Values with a parser and a schema of their own.
#[derive(Debug, Clone, Copy)]
pub struct Parsed<T> {
    /// Reads a value.
    pub parse: fn(&str) -> Result<T, Text>,
    /// The JSON Schema of the values.
    pub schema: fn() -> Value,
}

impl<T> Kind for Parsed<T> {
    type Value = T;

    fn parse(&self, text: &str) -> Result<T, Text> {
        (self.parse)(text)
    }

    fn schema(&self) -> Value {
        (self.schema)()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::text::Language;

    query_parameters! {
        /// A page of a list.
        struct Page {
            /// The list:
            /// its name.
            list: &'static str = required("list", OneOf(&["users", "events"])),
            /// Begins after this one.
            after: Option<u64> = optional("after", number_from(0)),
            /// Items on a page.
            limit: usize = defaulted("limit", number(1, 100), 20),
        }
    }

    #[test]
    fn parameters_are_read_into_their_struct() {
        let page: Page = read(Some("list=users&after=007")).unwrap();
        assert_eq!((page.list, page.after, page.limit), ("users", Some(7), 20));
        let page: Page = read(Some("limit=100&list=events")).unwrap();
        assert_eq!((page.list, page.after, page.limit), ("events", None, 100));
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let error = read::<Page>(Some("after=-1&limit=101&sort=name")).err();
        assert_eq!(
            error.unwrap().sentences(Language::En),
            [
                "Validation failed",
                "list: is required",
                "after: must be a whole number from 0 to 9223372036854775807",
                "limit: must be a whole number from 1 to 100",
                "sort: is not a known field",
            ]
        );
        let error = read::<(Page, ())>(Some("list=photos")).err().unwrap();
        let problem = "list: must be one of: users, events";
        assert_eq!(error.sentences(Language::En)[1], problem);
    }

    #[test]
    fn parameters_are_described_by_their_declaration() {
        let described = json!(Page::into_params(|| None));
        let parameter = |name: &str, about: &str, required: bool, schema: Value| json!({"name": name, "in": "query", "description": about, "required": required, "schema": schema});
        let after = json!({"type": "integer", "format": "int64", "minimum": 0});
        let limit = json!({"type": "integer", "minimum": 1, "maximum": 100, "default": 20});
        let list = json!({"type": "string", "enum": ["users", "events"]});
        let wanted = json!([
            parameter("list", "The list: its name.", true, list),
            parameter("after", "Begins after this one.", false, after),
            parameter("limit", "Items on a page.", false, limit),
        ]);
        assert_eq!(described, wanted);
    }

    proptest! {
        #[test]
        fn any_text_is_a_number_in_range_or_a_problem(text in "[-+0-9a-z. ]{0,25}") {
            if let Ok(number) = number::<u32>(1, 1000).parse(&text) {
                prop_assert!((1..=1000).contains(&number));
            }
            if let Ok(number) = number_from(0).parse(&text) {
                prop_assert_eq!(number.to_string(), text.trim_start_matches('0').to_owned().max("0".to_owned()));
            }
        }
    }
}
