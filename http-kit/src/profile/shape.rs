//! The members of the published shapes, in their order. What is written and what is described to clients come
//! from the same types.
//!
//! History may hold what today's rules refuse, so no member is described as one of a list.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::{OwnProfile, PublicProfile};
use events::{PhotoId, Time, UserId};

use crate::openapi::values;

/// A user as itself sees it. Optional members without a value are left out.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "the published page has them")]
pub(super) struct Own<'a> {
    #[schema(value_type = values::UserId)]
    #[serde(rename = "_id")]
    pub(super) id: UserId,
    #[schema(example = "John")]
    pub(super) name: &'a str,
    #[schema(example = "Doe")]
    pub(super) surname: &'a str,
    #[schema(example = "johndoe123")]
    pub(super) username: &'a str,
    #[schema(nullable = false, example = "available")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) availability_status: Option<&'a str>,
    /// Digits of the country code.
    #[schema(nullable = false, example = "90")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) country_code: Option<&'a str>,
    /// Digits of the national number.
    #[schema(nullable = false, example = "5551234567")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) phone_number: Option<&'a str>,
    #[schema(nullable = false, example = "male")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gender: Option<&'a str>,
    /// The date, written as midnight in UTC.
    #[schema(nullable = false, format = DateTime, example = "1995-06-15T00:00:00.000Z")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) birth_date: Option<String>,
    pub(super) interests: &'a [String],
    #[schema(nullable = false, example = "designer")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expertise: Option<&'a str>,
    pub(super) privacy_policy_accepted: bool,
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) privacy_policy_version: Option<&'a str>,
    pub(super) terms_of_use_accepted: bool,
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) terms_of_use_version: Option<&'a str>,
    pub(super) consent_form_accepted: bool,
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) consent_form_version: Option<&'a str>,
    pub(super) is_registration_complete: bool,
    pub(super) roles: &'a [String],
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) profile_photo: Option<ProfilePhoto>,
    #[schema(nullable = false, value_type = Option<values::Time>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_login: Option<Time>,
    #[schema(value_type = values::Time)]
    pub(super) created_at: Time,
    #[schema(value_type = values::Time)]
    pub(super) updated_at: Time,
    #[schema(nullable = false, example = "john.doe@example.com")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) email: Option<&'a str>,
    #[schema(nullable = false, example = "Passionate about technology and travel")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bio: Option<&'a str>,
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) instagram: Option<&'a str>,
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tiktok: Option<&'a str>,
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) x: Option<&'a str>,
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) snapchat: Option<&'a str>,
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) facebook: Option<&'a str>,
}

/// A user as strangers see it: never phone, e-mail, gender or birth date.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Public<'a> {
    #[schema(value_type = values::UserId)]
    #[serde(rename = "_id")]
    pub(super) id: UserId,
    #[schema(example = "John")]
    pub(super) name: &'a str,
    #[schema(example = "Doe")]
    pub(super) surname: &'a str,
    #[schema(example = "johndoe123")]
    pub(super) username: &'a str,
    #[schema(nullable = false, example = "available")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) availability_status: Option<&'a str>,
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) profile_photo: Option<ProfilePhoto>,
    pub(super) interests: &'a [String],
    #[schema(nullable = false, example = "designer")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expertise: Option<&'a str>,
    /// Whole years, on the day of the answer.
    #[schema(nullable = false, minimum = 0, example = 30)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) age: Option<i16>,
    #[schema(nullable = false, example = "Passionate about technology and travel")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bio: Option<&'a str>,
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) instagram: Option<&'a str>,
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) snapchat: Option<&'a str>,
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) x: Option<&'a str>,
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tiktok: Option<&'a str>,
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) facebook: Option<&'a str>,
}

/// A photo of a user. Its bytes never change; another photo has other URLs.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProfilePhoto {
    /// New for each change.
    #[schema(value_type = values::PhotoId)]
    #[serde(rename = "_id")]
    pub(super) id: PhotoId,
    /// The whole photo, a square JPEG.
    #[schema(format = "uri")]
    pub(super) url: String,
    /// Always `image`.
    pub(super) r#type: &'static str,
    /// The same photo in other sizes, as WebP, by the pixels of a side.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub(super) variants: Variants,
    #[schema(value_type = values::Time)]
    pub(super) created_at: Time,
    #[schema(value_type = values::Time)]
    pub(super) updated_at: Time,
}

/// The URL of each by its nominal side.
pub(super) struct Variants(pub(super) Vec<(u32, String)>);

impl Serialize for Variants {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(side, url)| (side.to_string(), url)))
    }
}

/// Described as what is written of it.
macro_rules! is_described_as {
    ($($name:ident as $shape:ident;)*) => {$(
        impl PartialSchema for $name<'_> {
            fn schema() -> RefOr<Schema> {
                $shape::schema()
            }
        }

        impl ToSchema for $name<'_> {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
                $shape::schemas(schemas);
            }
        }
    )*};
}

is_described_as! {
    OwnProfile as Own;
    PublicProfile as Public;
}
