//! The profile members that a user replaces, and the changes between two profiles.
//!
//! Each member is declared once, in [`profile_members!`](crate::profile_members).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Passes every member of the profile to a macro: description, Rust name, JSON name and kind.
///
/// The kind names the rules for the value. This crate keeps every kind as plain text, because
/// history loads even where today's rules refuse it. The command API has a parser, limits and a
/// description for each kind in `command-api/src/values/kinds.rs`.
///
/// The order is the order of members in stored and published JSON.
#[macro_export]
macro_rules! profile_members {
    ($then:ident) => {
        $then! {
            required {
                /// The given name.
                name "name": Name,
                /// The family name.
                surname "surname": Name,
            }
            optional {
                /// Whether the user can be reached, such as `available`.
                availability_status "availabilityStatus": Option<String> = Availability,
                /// The gender that the user gave, such as `female`.
                gender "gender": Option<String> = Gender,
                /// The date of birth, `YYYY-MM-DD`.
                birth_date "birthDate": Option<String> = BirthDate,
                /// Interests as short words, without repetition.
                interests "interests": Vec<String> = Interests,
                /// The user's expertise, such as `chef`.
                expertise "expertise": Option<String> = Expertise,
                /// The e-mail address.
                email "email": Option<String> = Email,
                /// A short text about the user.
                bio "bio": Option<String> = Biography,
                /// The name on Instagram.
                instagram "instagram": Option<String> = Handle,
                /// The name on TikTok.
                tiktok "tiktok": Option<String> = Handle,
                /// The name on X.
                x "x": Option<String> = Handle,
                /// The name on Snapchat.
                snapchat "snapchat": Option<String> = Handle,
                /// The name on Facebook.
                facebook "facebook": Option<String> = Handle,
            }
        }
    };
}

/// An optional member without a value is left out of JSON.
trait Optional {
    fn is_absent(&self) -> bool;
}

impl<T> Optional for Option<T> {
    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl<T> Optional for Vec<T> {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

/// One member before and after; `None` is absent (`null` in JSON).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change<T> {
    /// The value before the change.
    pub before: T,
    /// The value after the change.
    pub after: T,
}

impl<T: PartialEq + Clone> Change<T> {
    /// The change between two values; `None` when they are equal.
    pub fn between(before: &T, after: &T) -> Option<Self> {
        (before != after).then(|| Self {
            before: before.clone(),
            after: after.clone(),
        })
    }
}

macro_rules! declare {
    (
        required { $($(#[doc = $about:literal])* $member:ident $json:literal: $kind:ident,)* }
        optional { $($(#[doc = $about_o:literal])* $member_o:ident $json_o:literal: $type:ty = $kind_o:ident,)* }
    ) => {
        /// The members of a profile that its user may replace.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub struct Profile {
            $(
                $(#[doc = $about])*
                #[serde(rename = $json)]
                pub $member: String,
            )*
            $(
                $(#[doc = $about_o])*
                #[serde(rename = $json_o, default, skip_serializing_if = "Optional::is_absent")]
                pub $member_o: $type,
            )*
        }

        /// Profile members changed. Contains only the changed members.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(default)]
        pub struct ProfileUpdated {
            $(
                $(#[doc = $about])*
                #[serde(rename = $json, skip_serializing_if = "Option::is_none")]
                pub $member: Option<Change<String>>,
            )*
            $(
                $(#[doc = $about_o])*
                #[serde(rename = $json_o, skip_serializing_if = "Option::is_none")]
                pub $member_o: Option<Change<$type>>,
            )*
        }

        impl ProfileUpdated {
            /// The changes between two profiles; `None` when they are equal.
            pub fn between(before: &Profile, after: &Profile) -> Option<Self> {
                let changes = Self {
                    $($member: Change::between(&before.$member, &after.$member),)*
                    $($member_o: Change::between(&before.$member_o, &after.$member_o),)*
                };
                (changes != Self::default()).then_some(changes)
            }

            /// Writes the changed members into a profile.
            pub fn apply_to(&self, profile: &mut Profile) {
                $(if let Some(change) = &self.$member {
                    profile.$member.clone_from(&change.after);
                })*
                $(if let Some(change) = &self.$member_o {
                    profile.$member_o.clone_from(&change.after);
                })*
            }
        }
    };
}
profile_members!(declare);
