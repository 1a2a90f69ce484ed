//! The two published shapes of a document: the own profile and the public one.

use jiff::civil::Date;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use crate::document::{Document, Photo};
use crate::photos;
use crate::{Time, UserId};

/// What a user can be expert in, as the published page lists it.
pub const EXPERTISE: [&str; 12] = [
    "musician",
    "trainer",
    "chef",
    "photographer",
    "designer",
    "stylist",
    "gamer",
    "educator",
    "coach",
    "entertainer",
    "developer",
    "creator",
];

/// A user as itself sees it. Members, names, types and order are those of the published page.
pub struct OwnProfile<'a> {
    /// The user.
    pub document: &'a Document,
    /// Where this service is reached, without a slash at the end; photo URLs begin with it.
    pub public_url: &'a str,
}

impl Serialize for OwnProfile<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let document = self.document;
        let (profile, consents) = (&document.profile, &document.consents);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("_id", &document.user_id)?;
        map.serialize_entry("name", &profile.name)?;
        map.serialize_entry("surname", &profile.surname)?;
        map.serialize_entry("username", &document.username)?;
        entry(
            &mut map,
            "availabilityStatus",
            profile.availability_status.as_ref(),
        )?;
        entry(&mut map, "countryCode", document.country_code.as_ref())?;
        entry(&mut map, "phoneNumber", document.phone_number.as_ref())?;
        entry(&mut map, "gender", profile.gender.as_ref())?;
        // The published page writes a birth date as midnight in UTC.
        entry(
            &mut map,
            "birthDate",
            profile
                .birth_date
                .as_ref()
                .map(|date| format!("{date}T00:00:00.000Z")),
        )?;
        map.serialize_entry("interests", &profile.interests)?;
        entry(&mut map, "expertise", profile.expertise.as_ref())?;
        map.serialize_entry("privacyPolicyAccepted", &consents.privacy_policy_accepted)?;
        entry(
            &mut map,
            "privacyPolicyVersion",
            consents.privacy_policy_version.as_ref(),
        )?;
        map.serialize_entry("termsOfUseAccepted", &consents.terms_of_use_accepted)?;
        entry(
            &mut map,
            "termsOfUseVersion",
            consents.terms_of_use_version.as_ref(),
        )?;
        map.serialize_entry("consentFormAccepted", &consents.consent_form_accepted)?;
        entry(
            &mut map,
            "consentFormVersion",
            consents.consent_form_version.as_ref(),
        )?;
        map.serialize_entry("isRegistrationComplete", &document.is_registration_complete)?;
        map.serialize_entry("roles", &document.roles)?;
        entry(&mut map, "profilePhoto", photo(document, self.public_url))?;
        entry(&mut map, "lastLogin", document.last_login)?;
        map.serialize_entry("createdAt", &document.created_at)?;
        map.serialize_entry("updatedAt", &document.updated_at)?;
        entry(&mut map, "email", profile.email.as_ref())?;
        entry(&mut map, "bio", profile.bio.as_ref())?;
        entry(&mut map, "instagram", profile.instagram.as_ref())?;
        entry(&mut map, "tiktok", profile.tiktok.as_ref())?;
        entry(&mut map, "x", profile.x.as_ref())?;
        entry(&mut map, "snapchat", profile.snapchat.as_ref())?;
        entry(&mut map, "facebook", profile.facebook.as_ref())?;
        map.end()
    }
}

/// A user as strangers see it: never phone, e-mail, gender or birth date.
pub struct PublicProfile<'a> {
    /// The user.
    pub document: &'a Document,
    /// Where this service is reached, without a slash at the end; photo URLs begin with it.
    pub public_url: &'a str,
    /// The day on which the age is counted.
    pub today: Date,
}

impl Serialize for PublicProfile<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let document = self.document;
        let profile = &document.profile;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("_id", &document.user_id)?;
        map.serialize_entry("name", &profile.name)?;
        map.serialize_entry("surname", &profile.surname)?;
        map.serialize_entry("username", &document.username)?;
        entry(
            &mut map,
            "availabilityStatus",
            profile.availability_status.as_ref(),
        )?;
        entry(&mut map, "profilePhoto", photo(document, self.public_url))?;
        map.serialize_entry("interests", &profile.interests)?;
        entry(&mut map, "expertise", profile.expertise.as_ref())?;
        entry(
            &mut map,
            "age",
            profile
                .birth_date
                .as_deref()
                .and_then(|born| age(born, self.today)),
        )?;
        entry(&mut map, "bio", profile.bio.as_ref())?;
        entry(&mut map, "instagram", profile.instagram.as_ref())?;
        entry(&mut map, "snapchat", profile.snapchat.as_ref())?;
        entry(&mut map, "x", profile.x.as_ref())?;
        entry(&mut map, "tiktok", profile.tiktok.as_ref())?;
        entry(&mut map, "facebook", profile.facebook.as_ref())?;
        map.end()
    }
}

/// Writes a member if it has a value: absent members are left out, never `null`.
fn entry<M: serde::ser::SerializeMap>(
    map: &mut M,
    name: &str,
    value: Option<impl Serialize>,
) -> Result<(), M::Error> {
    value.map_or(Ok(()), |value| map.serialize_entry(name, &value))
}

/// Whole years between a `YYYY-MM-DD` and a day. `None` when the text is no date or lies ahead;
/// who was born on 29 February is a year older on 1 March of common years.
pub fn age(born: &str, today: Date) -> Option<i16> {
    let born: Date = born.parse().ok()?;
    let had_birthday = (today.month(), today.day()) >= (born.month(), born.day());
    let years = today.year() - born.year() - i16::from(!had_birthday);
    (years >= 0).then_some(years)
}

fn photo<'a>(document: &'a Document, public_url: &'a str) -> Option<PhotoShape<'a>> {
    document.photo.as_ref().map(|photo| PhotoShape {
        user: document.user_id,
        photo,
        public_url,
    })
}

struct PhotoShape<'a> {
    user: UserId,
    photo: &'a Photo,
    public_url: &'a str,
}

impl Serialize for PhotoShape<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape<'a> {
            #[serde(rename = "_id")]
            id: crate::PhotoId,
            url: String,
            r#type: &'static str,
            variants: Variants<'a>,
            created_at: Time,
            updated_at: Time,
        }
        struct Variants<'a>(&'a PhotoShape<'a>);
        impl Serialize for Variants<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let shape = self.0;
                serializer.collect_map(
                    shape
                        .photo
                        .variants
                        .iter()
                        .map(|variant| (variant.size.to_string(), shape.url(&variant.file))),
                )
            }
        }
        Shape {
            id: self.photo.id,
            url: self.url(&self.photo.main),
            r#type: "image",
            variants: Variants(self),
            created_at: self.photo.created_at,
            updated_at: self.photo.updated_at,
        }
        .serialize(serializer)
    }
}

impl PhotoShape<'_> {
    fn url(&self, file: &str) -> String {
        let key = photos::key(&self.user, &self.photo.content_hash, &self.photo.id, file);
        format!("{}/media/{key}", self.public_url)
    }
}
