//! The event types and their payloads.
//!
//! Payloads contain plain strings, because history must load for ever, even where today's rules
//! would refuse a value that an earlier rule accepted. The names in [`UserEvent::event_type`] are
//! stored and never change; the Rust names may. The crate's README says how a payload may change.
//!
//! The comments on payloads and members are published: [`crate::schema`] makes the schemas from
//! them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::profile::{Change, Profile, ProfileUpdated};
use crate::{PhotoId, Time};

/// Passes every event type to a macro: description, variant with its payload, stored name, and the
/// version of the payload that this program writes. This is the only list of event types.
///
/// A stored name never changes. The Rust name may.
macro_rules! each_event_type {
    ($then:ident) => {
        $then! {
            /// The user was registered.
            UserRegistered(Box<crate::event::UserRegistered>) = "user-registered", 1;
            /// Profile members changed.
            ProfileUpdated(Box<crate::event::ProfileUpdated>) = "profile-updated", 1;
            /// The user has a new photo.
            PhotoChanged(Box<crate::event::PhotoChanged>) = "photo-changed", 1;
            /// The user has a new username.
            UsernameChanged(crate::event::UsernameChanged) = "username-changed", 1;
        }
    };
}
pub(crate) use each_event_type;

/// The user was registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserRegistered {
    /// The canonical username.
    pub username: String,
    /// The members a user may replace later.
    #[serde(flatten)]
    pub profile: Profile,
    /// Digits of the country code, without `+`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country_code: Option<String>,
    /// Digits of the national number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone_number: Option<String>,
    /// The accepted consents.
    #[serde(flatten)]
    pub consents: Consents,
    /// Whether the sign-up was finished.
    pub is_registration_complete: bool,
    /// The user's roles, such as `user`.
    pub roles: Vec<String>,
    /// The last sign-in, as the sign-up service knew it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_login: Option<Time>,
}

/// The accepted consents, with their versions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Consents {
    /// Whether the privacy policy was accepted.
    #[serde(default)]
    pub privacy_policy_accepted: bool,
    /// The accepted version of the privacy policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy_policy_version: Option<String>,
    /// Whether the terms of use were accepted.
    #[serde(default)]
    pub terms_of_use_accepted: bool,
    /// The accepted version of the terms of use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms_of_use_version: Option<String>,
    /// Whether the consent form was accepted.
    #[serde(default)]
    pub consent_form_accepted: bool,
    /// The accepted version of the consent form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consent_form_version: Option<String>,
}

/// The user has a new photo. The pixels are in the photo store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PhotoChanged {
    /// A new identifier for each change.
    pub photo_id: PhotoId,
    /// SHA-256 of the uploaded bytes, 64 lower-case hexadecimal digits.
    pub content_hash: String,
    /// The size of the upload in bytes.
    pub size: u64,
    /// The media type of the upload, such as `image/png`.
    pub media_type: String,
    /// Width of the upload in pixels, after its orientation was applied.
    pub width: u32,
    /// Height of the upload in pixels, after its orientation was applied.
    pub height: u32,
    /// File name of the main rendition, such as `512.jpg`.
    pub main: String,
    /// The small renditions, smallest first.
    pub variants: Vec<Variant>,
    /// The photo that this one replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_photo_id: Option<PhotoId>,
}

/// One rendition of a photo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Variant {
    /// The nominal side in pixels. Clients ask for the rendition by this number.
    pub size: u32,
    /// File name in the photo's folder, such as `96.webp`.
    pub file: String,
    /// The real side in pixels. It is less than `size` when the upload was smaller.
    pub side: u32,
}

/// The user has a new username.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsernameChanged {
    /// The canonical name before the change.
    pub before: String,
    /// The canonical name after the change.
    pub after: String,
    /// Until this time no other user may take the old name.
    pub held_until: Time,
}

/// Bytes that no version of this program wrote.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A newer program, or another program, wrote the event.
    #[error("the event type `{event_type}` in schema version {schema_version} is not known")]
    UnknownType {
        /// The stored name.
        event_type: String,
        /// Its schema version.
        schema_version: u32,
    },
    /// The payload or envelope does not have the shape of its type.
    #[error("malformed event")]
    Malformed(#[from] serde_json::Error),
}

macro_rules! declare {
    ($($(#[doc = $doc:literal])* $variant:ident($payload:ty) = $name:literal, $version:literal;)*) => {
        /// One change of a user.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum UserEvent {$(
            $(#[doc = $doc])*
            $variant($payload),
        )*}

        impl UserEvent {
            /// The stored name of every type.
            pub const TYPES: &[&str] = &[$($name),*];

            /// The stored name of the event's type.
            pub fn event_type(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name,)* }
            }

            /// The version of the payload's shape that this program writes.
            pub fn schema_version(&self) -> u32 {
                match self { $(Self::$variant(_) => $version,)* }
            }

            /// The payload as JSON text.
            pub fn to_json(&self) -> String {
                let text = match self { $(Self::$variant(payload) => serde_json::to_string(payload),)* };
                text.expect("payloads are plain strings and numbers")
            }

            /// Reads a payload by its stored type and schema version. An older version gets a pure
            /// upcaster here, before the match.
            pub fn from_json(event_type: &str, schema_version: u32, json: &str) -> Result<Self, DecodeError> {
                match (event_type, schema_version) {
                    $(($name, $version) => Ok(Self::$variant(serde_json::from_str(json)?)),)*
                    _ => Err(DecodeError::UnknownType {
                        event_type: event_type.to_owned(),
                        schema_version,
                    }),
                }
            }
        }
    };
}
each_event_type!(declare);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_payload_is_an_event_or_an_error(
            event_type in prop_oneof![
                proptest::sample::select(UserEvent::TYPES).prop_map(str::to_owned),
                "[a-z-]{0,20}",
            ],
            schema_version in 0_u32..3,
            json in prop_oneof![
                ".{0,60}",
                r#"\{("(name|before|after|heldUntil|bio|photoId|size|roles)":("[a-z0-9]{0,24}"|[0-9]{1,20}|null|\[\]|\{"before":null,"after":"x"\}),?){0,4}\}"#,
            ],
        ) {
            if let Ok(event) = UserEvent::from_json(&event_type, schema_version, &json) {
                let again = UserEvent::from_json(event.event_type(), event.schema_version(), &event.to_json());
                prop_assert_eq!(again.unwrap(), event);
            }
        }
    }
}
