//! The two published shapes of a document: the own profile and the public one.

use jiff::civil::Date;

use events::Document;

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

/// A user as strangers see it: never phone, e-mail, gender or birth date.
pub struct PublicProfile<'a> {
    /// The user.
    pub document: &'a Document,
    /// Where this service is reached, without a slash at the end; photo URLs begin with it.
    pub public_url: &'a str,
    /// The day on which the age is counted.
    pub today: Date,
}

/// Whole years between a `YYYY-MM-DD` and a day. `None` when the text is no date or lies ahead;
/// who was born on 29 February is a year older on 1 March of common years.
pub fn age(born: &str, today: Date) -> Option<i16> {
    let born: Date = born.parse().ok()?;
    let had_birthday = (today.month(), today.day()) >= (born.month(), born.day());
    let years = today.year() - born.year() - i16::from(!had_birthday);
    (years >= 0).then_some(years)
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! names {
        (
            required { $($(#[doc = $about:literal])* $member:ident $json:literal: $kind:ident,)* }
            optional { $($(#[doc = $about_o:literal])* $member_o:ident $json_o:literal: $type:ty = $kind_o:ident,)* }
        ) => {
            [$($json,)* $($json_o,)*]
        };
    }

    #[test]
    fn the_example_user_has_every_member_and_shows_it() {
        let example = example();
        let profile = serde_json::to_value(&example.profile).unwrap();
        let own = OwnProfile {
            document: &example,
            public_url: "",
        };
        let own = serde_json::to_value(own).unwrap();
        for name in events::profile_members!(names) {
            assert!(!profile[name].is_null(), "profile/example.json: {name}");
            assert!(!own[name].is_null(), "profile/shape.rs, `Own`: {name}");
        }
    }
}
