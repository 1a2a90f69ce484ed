//! The members of the published shapes, in their order. The same types write the JSON and describe it to clients.
//!
//! History may hold what today's rules refuse, so no member is described as one of a list.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use events::{Document, PhotoId, Time, UserId, photo_key};

use super::{OwnProfile, PublicProfile, age};
use crate::openapi::values;

/// Declares a published shape: each member with its type and its value, which is taken from what is shown.
macro_rules! shape {
    (
        $(#[$meta:meta])*
        $name:ident of $shown:ident: $from:ident {
            $($(#[$attribute:meta])* $member:ident: $type:ty = $value:expr,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Serialize, ToSchema)]
        #[serde(rename_all = "camelCase")]
        struct $name<'a> {
            $($(#[$attribute])* $member: $type,)*
        }

        impl Serialize for $from<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let $shown = self;
                let shape = $name { $($member: $value,)* };
                shape.serialize(serializer)
            }
        }

        // It is described as its shape.
        impl PartialSchema for $from<'_> {
            fn schema() -> RefOr<Schema> {
                $name::schema()
            }
        }

        impl ToSchema for $from<'_> {
            fn name() -> Cow<'static, str> {
                stringify!($from).into()
            }

            fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
                $name::schemas(schemas);
            }
        }
    };
}

shape! {
    /// A user as itself sees it. Optional members without a value are left out.
    Own of own: OwnProfile {
        #[schema(value_type = values::UserId)]
        #[serde(rename = "_id")]
        id: UserId = own.document.user_id,
        #[schema(example = "John")]
        name: &'a str = &own.document.profile.name,
        #[schema(example = "Doe")]
        surname: &'a str = &own.document.profile.surname,
        #[schema(example = "johndoe123")]
        username: &'a str = &own.document.username,
        #[schema(nullable = false, example = "available")]
        #[serde(skip_serializing_if = "Option::is_none")]
        availability_status: Option<&'a str> = own.document.profile.availability_status.as_deref(),
        /// Digits of the country code.
        #[schema(nullable = false, example = "90")]
        #[serde(skip_serializing_if = "Option::is_none")]
        country_code: Option<&'a str> = own.document.country_code.as_deref(),
        /// Digits of the national number.
        #[schema(nullable = false, example = "5551234567")]
        #[serde(skip_serializing_if = "Option::is_none")]
        phone_number: Option<&'a str> = own.document.phone_number.as_deref(),
        #[schema(nullable = false, example = "male")]
        #[serde(skip_serializing_if = "Option::is_none")]
        gender: Option<&'a str> = own.document.profile.gender.as_deref(),
        /// The date, written as midnight in UTC.
        #[schema(nullable = false, format = DateTime, example = "1995-06-15T00:00:00.000Z")]
        #[serde(skip_serializing_if = "Option::is_none")]
        birth_date: Option<String> =
            own.document.profile.birth_date.as_ref().map(|date| format!("{date}T00:00:00.000Z")),
        interests: &'a [String] = &own.document.profile.interests,
        #[schema(nullable = false, example = "designer")]
        #[serde(skip_serializing_if = "Option::is_none")]
        expertise: Option<&'a str> = own.document.profile.expertise.as_deref(),
        privacy_policy_accepted: bool = own.document.consents.privacy_policy_accepted,
        #[schema(nullable = false)]
        #[serde(skip_serializing_if = "Option::is_none")]
        privacy_policy_version: Option<&'a str> = own.document.consents.privacy_policy_version.as_deref(),
        terms_of_use_accepted: bool = own.document.consents.terms_of_use_accepted,
        #[schema(nullable = false)]
        #[serde(skip_serializing_if = "Option::is_none")]
        terms_of_use_version: Option<&'a str> = own.document.consents.terms_of_use_version.as_deref(),
        consent_form_accepted: bool = own.document.consents.consent_form_accepted,
        #[schema(nullable = false)]
        #[serde(skip_serializing_if = "Option::is_none")]
        consent_form_version: Option<&'a str> = own.document.consents.consent_form_version.as_deref(),
        is_registration_complete: bool = own.document.is_registration_complete,
        roles: &'a [String] = &own.document.roles,
        #[schema(nullable = false)]
        #[serde(skip_serializing_if = "Option::is_none")]
        profile_photo: Option<ProfilePhoto> = photo(own.document, own.public_url),
        #[schema(nullable = false, value_type = Option<values::Time>)]
        #[serde(skip_serializing_if = "Option::is_none")]
        last_login: Option<Time> = own.document.last_login,
        #[schema(value_type = values::Time)]
        created_at: Time = own.document.created_at,
        #[schema(value_type = values::Time)]
        updated_at: Time = own.document.updated_at,
        #[schema(nullable = false, example = "john.doe@example.com")]
        #[serde(skip_serializing_if = "Option::is_none")]
        email: Option<&'a str> = own.document.profile.email.as_deref(),
        #[schema(nullable = false, example = "Passionate about technology and travel")]
        #[serde(skip_serializing_if = "Option::is_none")]
        bio: Option<&'a str> = own.document.profile.bio.as_deref(),
        #[schema(nullable = false)]
        #[serde(skip_serializing_if = "Option::is_none")]
        instagram: Option<&'a str> = own.document.profile.instagram.as_deref(),
        #[schema(nullable = false)]
        #[serde(skip_serializing_if = "Option::is_none")]
        tiktok: Option<&'a str> = own.document.profile.tiktok.as_deref(),
        #[schema(nullable = false)]
        #[serde(skip_serializing_if = "Option::is_none")]
        x: Option<&'a str> = own.document.profile.x.as_deref(),
        #[schema(nullable = false)]
        #[serde(skip_serializing_if = "Option::is_none")]
        snapchat: Option<&'a str> = own.document.profile.snapchat.as_deref(),
        #[schema(nullable = false)]
        #[serde(skip_serializing_if = "Option::is_none")]
        facebook: Option<&'a str> = own.document.profile.facebook.as_deref(),
    }
}

shape! {
    /// A user as strangers see it: never phone, e-mail, gender or birth date.
    Public of public: PublicProfile {
        #[schema(value_type = values::UserId)]
        #[serde(rename = "_id")]
        id: UserId = public.document.user_id,
        #[schema(example = "John")]
        name: &'a str = &public.document.profile.name,
        #[schema(example = "Doe")]
        surname: &'a str = &public.document.profile.surname,
        #[schema(example = "johndoe123")]
        username: &'a str = &public.document.username,
        #[schema(nullable = false, example = "available")]
        #[serde(skip_serializing_if = "Option::is_none")]
        availability_status: Option<&'a str> = public.document.profile.availability_status.as_deref(),
        #[schema(nullable = false)]
        #[serde(skip_serializing_if = "Option::is_none")]
        profile_photo: Option<ProfilePhoto> = photo(public.document, public.public_url),
        interests: &'a [String] = &public.document.profile.interests,
        #[schema(nullable = false, example = "designer")]
        #[serde(skip_serializing_if = "Option::is_none")]
        expertise: Option<&'a str> = public.document.profile.expertise.as_deref(),
        /// Whole years, on the day of the answer.
        #[schema(nullable = false, minimum = 0, example = 30)]
        #[serde(skip_serializing_if = "Option::is_none")]
        age: Option<i16> = public.document.profile.birth_date.as_deref().and_then(|born| age(born, public.today)),
        #[schema(nullable = false, example = "Passionate about technology and travel")]
        #[serde(skip_serializing_if = "Option::is_none")]
        bio: Option<&'a str> = public.document.profile.bio.as_deref(),
        #[schema(nullable = false)]
        #[serde(skip_serializing_if = "Option::is_none")]
        instagram: Option<&'a str> = public.document.profile.instagram.as_deref(),
        #[schema(nullable = false)]
        #[serde(skip_serializing_if = "Option::is_none")]
        snapchat: Option<&'a str> = public.document.profile.snapchat.as_deref(),
        #[schema(nullable = false)]
        #[serde(skip_serializing_if = "Option::is_none")]
        x: Option<&'a str> = public.document.profile.x.as_deref(),
        #[schema(nullable = false)]
        #[serde(skip_serializing_if = "Option::is_none")]
        tiktok: Option<&'a str> = public.document.profile.tiktok.as_deref(),
        #[schema(nullable = false)]
        #[serde(skip_serializing_if = "Option::is_none")]
        facebook: Option<&'a str> = public.document.profile.facebook.as_deref(),
    }
}

/// A photo of a user. Its bytes never change; another photo has other URLs.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ProfilePhoto {
    /// New for each change.
    #[schema(value_type = values::PhotoId)]
    #[serde(rename = "_id")]
    id: PhotoId,
    /// The whole photo, a square JPEG.
    #[schema(format = "uri")]
    url: String,
    /// Always `image`.
    r#type: &'static str,
    /// The same photo in other sizes, as WebP, by the pixels of a side.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    variants: Variants,
    #[schema(value_type = values::Time)]
    created_at: Time,
    #[schema(value_type = values::Time)]
    updated_at: Time,
}

/// The URL of each by its nominal side.
struct Variants(Vec<(u32, String)>);

impl Serialize for Variants {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(side, url)| (side.to_string(), url)))
    }
}

fn photo(document: &Document, public_url: &str) -> Option<ProfilePhoto> {
    let photo = document.photo.as_ref()?;
    let url = |file: &str| {
        let key = photo_key::file(&document.user_id, &photo.content_hash, &photo.id, file);
        format!("{public_url}/media/{key}")
    };
    let variants = photo.variants.iter();
    Some(ProfilePhoto {
        id: photo.id,
        url: url(&photo.main),
        r#type: "image",
        variants: Variants(
            variants
                .map(|variant| (variant.size, url(&variant.file)))
                .collect(),
        ),
        created_at: photo.created_at,
        updated_at: photo.updated_at,
    })
}
