//! The two published shapes of a document: the own profile and the public one.

use jiff::civil::Date;
use serde::{Serialize, Serializer};

use events::{Document, photo_key};

use shape::{Own, ProfilePhoto, Public, Variants};

mod shape;

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

/// The user of the published page, for examples.
pub fn example() -> Document {
    serde_json::from_str(include_str!("profile/example.json")).expect("it is a document")
}

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
        Own {
            id: document.user_id,
            name: &profile.name,
            surname: &profile.surname,
            username: &document.username,
            availability_status: profile.availability_status.as_deref(),
            country_code: document.country_code.as_deref(),
            phone_number: document.phone_number.as_deref(),
            gender: profile.gender.as_deref(),
            birth_date: profile
                .birth_date
                .as_ref()
                .map(|date| format!("{date}T00:00:00.000Z")),
            interests: &profile.interests,
            expertise: profile.expertise.as_deref(),
            privacy_policy_accepted: consents.privacy_policy_accepted,
            privacy_policy_version: consents.privacy_policy_version.as_deref(),
            terms_of_use_accepted: consents.terms_of_use_accepted,
            terms_of_use_version: consents.terms_of_use_version.as_deref(),
            consent_form_accepted: consents.consent_form_accepted,
            consent_form_version: consents.consent_form_version.as_deref(),
            is_registration_complete: document.is_registration_complete,
            roles: &document.roles,
            profile_photo: photo(document, self.public_url),
            last_login: document.last_login,
            created_at: document.created_at,
            updated_at: document.updated_at,
            email: profile.email.as_deref(),
            bio: profile.bio.as_deref(),
            instagram: profile.instagram.as_deref(),
            tiktok: profile.tiktok.as_deref(),
            x: profile.x.as_deref(),
            snapchat: profile.snapchat.as_deref(),
            facebook: profile.facebook.as_deref(),
        }
        .serialize(serializer)
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
        let born = profile.birth_date.as_deref();
        Public {
            id: document.user_id,
            name: &profile.name,
            surname: &profile.surname,
            username: &document.username,
            availability_status: profile.availability_status.as_deref(),
            profile_photo: photo(document, self.public_url),
            interests: &profile.interests,
            expertise: profile.expertise.as_deref(),
            age: born.and_then(|born| age(born, self.today)),
            bio: profile.bio.as_deref(),
            instagram: profile.instagram.as_deref(),
            snapchat: profile.snapchat.as_deref(),
            x: profile.x.as_deref(),
            tiktok: profile.tiktok.as_deref(),
            facebook: profile.facebook.as_deref(),
        }
        .serialize(serializer)
    }
}

/// Whole years between a `YYYY-MM-DD` and a day. `None` when the text is no date or lies ahead;
/// who was born on 29 February is a year older on 1 March of common years.
pub fn age(born: &str, today: Date) -> Option<i16> {
    let born: Date = born.parse().ok()?;
    let had_birthday = (today.month(), today.day()) >= (born.month(), born.day());
    let years = today.year() - born.year() - i16::from(!had_birthday);
    (years >= 0).then_some(years)
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
