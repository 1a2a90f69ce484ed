//! What can happen to a user.
//!
//! Payloads hold plain strings: history must load for ever, also where today's rules would refuse
//! what an earlier rule accepted. The names in [`UserEvent::event_type`] are stored and never
//! change; the Rust names may. How a payload may change is in the crate's README.
//!
//! Readers see what is written above each payload and its members: [`crate::schema`] makes the
//! published schemas of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{PhotoId, Time, UserId};

/// One thing that happened to a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserEvent {
    /// The user came to exist.
    UserRegistered(Box<UserRegistered>),
    /// Members of the profile changed.
    ProfileUpdated(Box<ProfileUpdated>),
    /// The user has a new photo.
    PhotoChanged(Box<PhotoChanged>),
    /// The user has a new username.
    UsernameChanged(UsernameChanged),
}

/// The user came to exist.
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
    /// What the user agreed to.
    #[serde(flatten)]
    pub consents: Consents,
    /// Whether the sign-up was finished.
    pub is_registration_complete: bool,
    /// What the user may do, such as `user`.
    pub roles: Vec<String>,
    /// When the user last signed in, as the sign-up service knew it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_login: Option<Time>,
}

/// What a user agreed to, and in which version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Consents {
    /// Whether the privacy policy was accepted.
    #[serde(default)]
    pub privacy_policy_accepted: bool,
    /// Which version of the privacy policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy_policy_version: Option<String>,
    /// Whether the terms of use were accepted.
    #[serde(default)]
    pub terms_of_use_accepted: bool,
    /// Which version of the terms of use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms_of_use_version: Option<String>,
    /// Whether the consent form was accepted.
    #[serde(default)]
    pub consent_form_accepted: bool,
    /// Which version of the consent form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consent_form_version: Option<String>,
}

/// The members of a profile that its user may replace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// The given name.
    pub name: String,
    /// The family name.
    pub surname: String,
    /// Whether the user can be reached, such as `available`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability_status: Option<String>,
    /// The gender that the user gave, such as `female`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gender: Option<String>,
    /// The date of birth, `YYYY-MM-DD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub birth_date: Option<String>,
    /// What the user likes, as short words; each is there once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interests: Vec<String>,
    /// What the user is good at, such as `chef`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expertise: Option<String>,
    /// The e-mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// What the user says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bio: Option<String>,
    /// The name on Instagram.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instagram: Option<String>,
    /// The name on TikTok.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiktok: Option<String>,
    /// The name on X.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    /// The name on Snapchat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapchat: Option<String>,
    /// The name on Facebook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facebook: Option<String>,
}

/// One member before and after; `None` is absent (`null` in JSON).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change<T> {
    /// What it was.
    pub before: T,
    /// What it is now.
    pub after: T,
}

impl<T: PartialEq + Clone> Change<T> {
    /// The change between two values, if they differ.
    pub fn between(before: &T, after: &T) -> Option<Self> {
        (before != after).then(|| Self {
            before: before.clone(),
            after: after.clone(),
        })
    }
}

/// Members of the profile changed; only those that did are there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProfileUpdated {
    /// The given name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Change<String>>,
    /// The family name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surname: Option<Change<String>>,
    /// Whether the user can be reached, such as `available`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability_status: Option<Change<Option<String>>>,
    /// The gender that the user gave, such as `female`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gender: Option<Change<Option<String>>>,
    /// The date of birth, `YYYY-MM-DD`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub birth_date: Option<Change<Option<String>>>,
    /// What the user likes, as short words; each is there once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interests: Option<Change<Vec<String>>>,
    /// What the user is good at, such as `chef`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expertise: Option<Change<Option<String>>>,
    /// The e-mail address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<Change<Option<String>>>,
    /// What the user says of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bio: Option<Change<Option<String>>>,
    /// The name on Instagram.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instagram: Option<Change<Option<String>>>,
    /// The name on TikTok.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tiktok: Option<Change<Option<String>>>,
    /// The name on X.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x: Option<Change<Option<String>>>,
    /// The name on Snapchat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapchat: Option<Change<Option<String>>>,
    /// The name on Facebook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub facebook: Option<Change<Option<String>>>,
}

/// Runs a macro once with the name of every member that profiles and their changes share, so that
/// comparing and folding cannot forget one.
macro_rules! each_profile_member {
    ($then:ident) => {
        $then!(
            name,
            surname,
            availability_status,
            gender,
            birth_date,
            interests,
            expertise,
            email,
            bio,
            instagram,
            tiktok,
            x,
            snapchat,
            facebook
        )
    };
}

impl ProfileUpdated {
    /// What changed between two profiles; `None` when nothing did.
    pub fn between(before: &Profile, after: &Profile) -> Option<Self> {
        macro_rules! compare {
            ($($member:ident),*) => { Self { $($member: Change::between(&before.$member, &after.$member)),* } };
        }
        let changes = each_profile_member!(compare);
        (changes != Self::default()).then_some(changes)
    }

    /// Writes the changed members into a profile.
    pub fn apply_to(&self, profile: &mut Profile) {
        macro_rules! write {
            ($($member:ident),*) => {
                $(if let Some(change) = &self.$member { profile.$member.clone_from(&change.after); })*
            };
        }
        each_profile_member!(write);
    }
}

/// The user has a new photo. The pixels are in the photo store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PhotoChanged {
    /// New for each change.
    pub photo_id: PhotoId,
    /// SHA-256 of the uploaded bytes, 64 lower-case hexadecimal digits.
    pub content_hash: String,
    /// Bytes of the upload.
    pub size: u64,
    /// What the upload was, such as `image/png`.
    pub media_type: String,
    /// Pixels of the upload, after its orientation was applied.
    pub width: u32,
    /// Pixels of the upload, after its orientation was applied.
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
    /// The nominal side in pixels by which clients ask for it.
    pub size: u32,
    /// File name in the photo's folder, such as `96.webp`.
    pub file: String,
    /// The real side in pixels: smaller than `size` when the upload was.
    pub side: u32,
}

/// The user has a new username.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsernameChanged {
    /// The canonical name given up.
    pub before: String,
    /// The canonical name taken.
    pub after: String,
    /// Until when nobody else may take the name given up.
    pub held_until: Time,
}

/// Bytes of history that no version of this program wrote.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A newer program wrote it, or something else did.
    #[error("no event type `{event_type}` in schema version {schema_version} is known")]
    UnknownType {
        /// The stored name.
        event_type: String,
        /// Its schema version.
        schema_version: u32,
    },
    /// The payload or envelope is not what its type promises.
    #[error("malformed event")]
    Malformed(#[from] serde_json::Error),
}

impl UserEvent {
    /// The stored name of every type.
    pub const TYPES: [&str; 4] = [
        "user-registered",
        "profile-updated",
        "photo-changed",
        "username-changed",
    ];

    /// The stored name of the event's type.
    pub fn event_type(&self) -> &'static str {
        match self {
            Self::UserRegistered(_) => "user-registered",
            Self::ProfileUpdated(_) => "profile-updated",
            Self::PhotoChanged(_) => "photo-changed",
            Self::UsernameChanged(_) => "username-changed",
        }
    }

    /// The version of the payload's shape that this program writes.
    pub fn schema_version(&self) -> u32 {
        1
    }

    /// The payload as JSON text.
    pub fn to_json(&self) -> String {
        let text = match self {
            Self::UserRegistered(payload) => serde_json::to_string(payload),
            Self::ProfileUpdated(payload) => serde_json::to_string(payload),
            Self::PhotoChanged(payload) => serde_json::to_string(payload),
            Self::UsernameChanged(payload) => serde_json::to_string(payload),
        };
        text.expect("payloads are plain strings and numbers")
    }

    /// Reads a payload by its stored type and schema version. Later versions get a pure upcaster
    /// here.
    pub fn from_json(
        event_type: &str,
        schema_version: u32,
        json: &str,
    ) -> Result<Self, DecodeError> {
        Ok(match (event_type, schema_version) {
            ("user-registered", 1) => Self::UserRegistered(serde_json::from_str(json)?),
            ("profile-updated", 1) => Self::ProfileUpdated(serde_json::from_str(json)?),
            ("photo-changed", 1) => Self::PhotoChanged(serde_json::from_str(json)?),
            ("username-changed", 1) => Self::UsernameChanged(serde_json::from_str(json)?),
            _ => {
                return Err(DecodeError::UnknownType {
                    event_type: event_type.to_owned(),
                    schema_version,
                });
            }
        })
    }
}

/// The subject on which an event of a user is published: `profiles.v1.<p00..p63>.<event-type>`.
pub fn subject(user: &UserId, event_type: &str) -> String {
    subject_of(&shard(user.shard()), event_type)
}

/// The subject of a type in a shard as [`shards`] names them, or of what stands for both.
pub fn subject_of(shard: &str, event_type: &str) -> String {
    format!("profiles.v1.{shard}.{event_type}")
}

/// Every shard as subjects name it: `p00` to `p63`.
pub fn shards() -> impl Iterator<Item = String> {
    (0..64).map(shard)
}

fn shard(number: u8) -> String {
    format!("p{number:02}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_payload_is_an_event_or_an_error(
            event_type in "user-registered|profile-updated|photo-changed|username-changed|[a-z-]{0,20}",
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
