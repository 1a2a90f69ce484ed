//! The aggregate: every rule about what may happen to a user. Pure; time and ids come in.

use events::document::{Document, FoldError, fold};
use events::envelope::Previous;
use events::store::Claim;
use events::user::{
    Consents, PhotoChanged, ProfileUpdated, UserEvent, UserRegistered, UsernameChanged, Variant,
};
use events::{PhotoId, Recorded, Time, UserId, Username, Version};
use serde::{Deserialize, Serialize};

use crate::values::NewProfile;

/// Days between two changes of a username by its user, and days for which the old name is held.
pub const USERNAME_DAYS: i64 = 30;

/// What the rules need to know of a user: the fold of its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// What the user is.
    pub document: Document,
    /// When the user last changed its username. Registration does not count.
    pub username_changed_at: Option<Time>,
    /// The newest event, which the next one will name.
    pub last: Previous,
}

/// What a client wants to happen to a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make the user exist.
    Register(Box<Registration>),
    /// Replace all that the user may replace.
    ReplaceProfile(Box<NewProfile>),
    /// Set a new photo, whose bytes are stored already.
    ChangePhoto(Box<NewPhoto>),
    /// Take another username.
    ChangeUsername(Username),
}

impl Action {
    /// The username that the action takes: its claim must be known to decide.
    pub fn wanted_username(&self) -> Option<&Username> {
        match self {
            Self::Register(registration) => Some(&registration.username),
            Self::ChangeUsername(username) => Some(username),
            Self::ReplaceProfile(_) | Self::ChangePhoto(_) => None,
        }
    }
}

/// A new user.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the published API say it all")]
pub struct Registration {
    pub username: Username,
    pub profile: NewProfile,
    pub country_code: Option<String>,
    pub phone_number: Option<String>,
    pub consents: Consents,
    pub is_registration_complete: bool,
    pub roles: Vec<String>,
    pub last_login: Option<Time>,
}

/// A new photo, as the pipeline made and stored it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPhoto {
    /// New for each change.
    pub photo_id: PhotoId,
    /// SHA-256 of the upload, in hexadecimal digits.
    pub content_hash: String,
    /// Bytes of the upload.
    pub size: u64,
    /// What the upload was.
    pub media_type: String,
    /// Pixels of the upload.
    pub width: u32,
    /// Pixels of the upload.
    pub height: u32,
    /// File name of the main rendition.
    pub main: String,
    /// The small renditions.
    pub variants: Vec<Variant>,
}

/// Why an action was refused. Stored with its idempotency key, so the shape stays readable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    /// No such user.
    #[error("no such user")]
    NoSuchUser,
    /// A user with this id is registered already.
    #[error("the user is registered already")]
    UserExists {
        /// Who.
        user_id: UserId,
    },
    /// Another user has the name.
    #[error("the username is taken")]
    UsernameTaken {
        /// The name.
        username: String,
    },
    /// The name is held for the user who gave it up.
    #[error("the username is held")]
    UsernameHeld {
        /// The name.
        username: String,
        /// Until when.
        until: Time,
    },
    /// The last change is less than [`USERNAME_DAYS`] ago.
    #[error("the username was changed too recently")]
    UsernameChangeTooSoon {
        /// From when it may be changed.
        next: Time,
    },
    /// The client decided on another version of the user.
    #[error("the user has another version")]
    VersionMismatch {
        /// What the client saw.
        expected: Version,
        /// What it is.
        actual: Version,
    },
}

/// What an action on a user comes to at a time: the events to append, none when nothing would
/// change, or why not. `claim` is that of the wanted username, if anybody ever had it; `expected`
/// is the version that the client decided on.
pub fn decide(
    user_id: UserId,
    user: Option<&User>,
    claim: Option<&Claim>,
    action: &Action,
    expected: Option<Version>,
    now: Time,
) -> Result<Vec<UserEvent>, Rejection> {
    if let (Action::Register(registration), None) = (action, user) {
        // Who is not there yet has version 0.
        if let Some(expected) = expected.filter(|expected| *expected != 0) {
            return Err(Rejection::VersionMismatch {
                expected,
                actual: 0,
            });
        }
        take(&user_id, &registration.username, claim, now)?;
        return Ok(vec![UserEvent::UserRegistered(Box::new(registered(
            registration,
        )))]);
    }
    let user = user.ok_or(Rejection::NoSuchUser)?;
    let actual = user.document.version;
    if let Some(expected) = expected.filter(|expected| *expected != actual) {
        return Err(Rejection::VersionMismatch { expected, actual });
    }
    match action {
        Action::Register(_) => Err(Rejection::UserExists { user_id }),
        Action::ReplaceProfile(profile) => {
            let changes = ProfileUpdated::between(&user.document.profile, profile.as_inner());
            Ok(changes
                .map(|changes| UserEvent::ProfileUpdated(Box::new(changes)))
                .into_iter()
                .collect())
        }
        Action::ChangePhoto(photo) => Ok(change_photo(user, photo).into_iter().collect()),
        Action::ChangeUsername(username) => change_username(user_id, user, claim, username, now),
    }
}

/// The user after one more event.
pub fn apply(user: Option<User>, recorded: &Recorded, last: Previous) -> Result<User, FoldError> {
    let (document, username_changed_at) = match user {
        Some(user) => (Some(user.document), user.username_changed_at),
        None => (None, None),
    };
    let username_changed_at = match &recorded.event {
        UserEvent::UsernameChanged(_) => Some(recorded.recorded_at),
        UserEvent::UserRegistered(_)
        | UserEvent::ProfileUpdated(_)
        | UserEvent::PhotoChanged(_) => username_changed_at,
    };
    Ok(User {
        document: fold(document, recorded)?,
        username_changed_at,
        last,
    })
}

fn registered(registration: &Registration) -> UserRegistered {
    let registration = registration.clone();
    UserRegistered {
        username: registration.username.to_string(),
        profile: registration.profile.into_inner(),
        country_code: registration.country_code,
        phone_number: registration.phone_number,
        consents: registration.consents,
        is_registration_complete: registration.is_registration_complete,
        roles: registration.roles,
        last_login: registration.last_login,
    }
}

fn change_photo(user: &User, photo: &NewPhoto) -> Option<UserEvent> {
    let current = user.document.photo.as_ref();
    if current.is_some_and(|current| current.content_hash == photo.content_hash) {
        return None;
    }
    let photo = photo.clone();
    Some(UserEvent::PhotoChanged(Box::new(PhotoChanged {
        photo_id: photo.photo_id,
        content_hash: photo.content_hash,
        size: photo.size,
        media_type: photo.media_type,
        width: photo.width,
        height: photo.height,
        main: photo.main,
        variants: photo.variants,
        previous_photo_id: current.map(|current| current.id),
    })))
}

fn change_username(
    user_id: UserId,
    user: &User,
    claim: Option<&Claim>,
    username: &Username,
    now: Time,
) -> Result<Vec<UserEvent>, Rejection> {
    if user.document.username == username.as_str() {
        return Ok(Vec::new());
    }
    if let Some(next) = user
        .username_changed_at
        .map(|last| last.plus_days(USERNAME_DAYS))
        .filter(|next| now < *next)
    {
        return Err(Rejection::UsernameChangeTooSoon { next });
    }
    take(&user_id, username, claim, now)?;
    Ok(vec![UserEvent::UsernameChanged(UsernameChanged {
        before: user.document.username.clone(),
        after: username.to_string(),
        held_until: now.plus_days(USERNAME_DAYS),
    })])
}

fn take(
    user_id: &UserId,
    username: &Username,
    claim: Option<&Claim>,
    now: Time,
) -> Result<(), Rejection> {
    let username = username.to_string();
    match claim {
        Some(claim) if !claim.is_free_for(user_id, now) => Err(match claim.held_until {
            Some(until) => Rejection::UsernameHeld { username, until },
            None => Rejection::UsernameTaken { username },
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::LeafHash;
    use events::{Context, EventId};

    const USER: &str = "507f1f77bcf86cd799439011";
    const OTHER: &str = "507f1f77bcf86cd799439099";
    /// 2026-03-01T00:00:00Z.
    const START: i64 = 1_772_323_200_000;
    const DAY: i64 = 86_400_000;

    fn user_id() -> UserId {
        USER.parse().unwrap()
    }

    fn at(millis_after_start: i64) -> Time {
        Time::from_millis(START + millis_after_start)
    }

    fn username(text: &str) -> Username {
        Username::parse(text).unwrap()
    }

    fn profile(json: &str) -> Box<NewProfile> {
        let mut fields = http_kit::fields::Fields::parse(json.as_bytes()).unwrap();
        Box::new(crate::values::profile(&mut fields, at(0).date()).unwrap())
    }

    fn register(name: &str) -> Action {
        Action::Register(Box::new(Registration {
            username: username(name),
            profile: *profile(r#"{"name":"John","surname":"Doe"}"#),
            country_code: None,
            phone_number: None,
            consents: Consents::default(),
            is_registration_complete: true,
            roles: vec!["user".to_owned()],
            last_login: None,
        }))
    }

    fn photo(id: &str, content_hash: &str) -> Action {
        Action::ChangePhoto(Box::new(NewPhoto {
            photo_id: id.parse().unwrap(),
            content_hash: content_hash.to_owned(),
            size: 10,
            media_type: "image/png".to_owned(),
            width: 100,
            height: 100,
            main: "512.jpg".to_owned(),
            variants: Vec::new(),
        }))
    }

    /// A user and the claims on names, after some accepted actions at their times.
    struct Given {
        user: Option<User>,
        claims: Vec<Claim>,
    }

    #[track_caller]
    fn given(actions: &[(i64, Action)]) -> Given {
        let mut given = Given {
            user: None,
            claims: Vec::new(),
        };
        for (when, action) in actions {
            let events = given
                .decide(action, None, at(*when))
                .expect("a given action is accepted");
            given.record(events, at(*when));
        }
        given
    }

    impl Given {
        fn decide(
            &self,
            action: &Action,
            expected: Option<Version>,
            now: Time,
        ) -> Result<Vec<UserEvent>, Rejection> {
            let claim = action.wanted_username().and_then(|wanted| {
                self.claims
                    .iter()
                    .rev()
                    .find(|claim| claim.username == wanted.as_str())
            });
            decide(user_id(), self.user.as_ref(), claim, action, expected, now)
        }

        fn record(&mut self, events: Vec<UserEvent>, now: Time) {
            for event in events {
                self.claims
                    .extend(events::store::claims_of(&user_id(), &event));
                let version = self
                    .user
                    .as_ref()
                    .map_or(1, |user| user.document.version + 1);
                let recorded = Recorded {
                    position: version,
                    event_id: EventId::new(now, [0; 10]),
                    user_id: user_id(),
                    version,
                    time: now,
                    recorded_at: now,
                    previous: self.user.as_ref().map(|user| user.last),
                    context: Context::default(),
                    event,
                };
                let last = Previous {
                    position: version,
                    hash: LeafHash([0; 32]),
                };
                self.user =
                    Some(apply(self.user.take(), &recorded, last).expect("decided events follow"));
            }
        }

        fn claimed(mut self, claim: Claim) -> Self {
            self.claims.push(claim);
            self
        }

        #[track_caller]
        fn when(&self, millis: i64, action: &Action) -> Result<Vec<&'static str>, Rejection> {
            let events = self.decide(action, None, at(millis))?;
            Ok(events.iter().map(UserEvent::event_type).collect())
        }
    }

    fn claim(name: &str, user: &str, held_until: Option<i64>) -> Claim {
        Claim {
            username: name.to_owned(),
            user_id: user.parse().unwrap(),
            held_until: held_until.map(at),
        }
    }

    #[test]
    fn nobody_can_be_registered() {
        assert_eq!(
            given(&[]).when(0, &register("john")),
            Ok(vec!["user-registered"])
        );
    }

    #[test]
    fn a_user_is_registered_once() {
        let given = given(&[(0, register("john"))]);
        assert_eq!(
            given.when(1, &register("other")),
            Err(Rejection::UserExists { user_id: user_id() })
        );
    }

    #[test]
    fn a_taken_name_cannot_be_registered() {
        let given = given(&[]).claimed(claim("john", OTHER, None));
        let rejection = Rejection::UsernameTaken {
            username: "john".to_owned(),
        };
        assert_eq!(given.when(0, &register("john")), Err(rejection));
    }

    #[test]
    fn who_is_not_registered_cannot_change() {
        for action in [
            Action::ChangeUsername(username("jane")),
            Action::ReplaceProfile(profile(r#"{"name":"Jane","surname":"Doe"}"#)),
            photo("507f1f77bcf86cd799439012", "aa"),
        ] {
            assert_eq!(given(&[]).when(0, &action), Err(Rejection::NoSuchUser));
        }
    }

    #[test]
    fn registration_does_not_count_as_a_change_of_username() {
        let given = given(&[(0, register("john"))]);
        assert_eq!(
            given.when(0, &Action::ChangeUsername(username("jane"))),
            Ok(vec!["username-changed"])
        );
    }

    #[test]
    fn a_username_changes_again_after_exactly_30_days() {
        let given = given(&[
            (0, register("john")),
            (5, Action::ChangeUsername(username("jane"))),
        ]);
        let again = Action::ChangeUsername(username("jack"));
        let next = at(5 + 30 * DAY);
        assert_eq!(
            given.when(5 + 30 * DAY - 1, &again),
            Err(Rejection::UsernameChangeTooSoon { next })
        );
        assert_eq!(
            given.when(5 + 30 * DAY, &again),
            Ok(vec!["username-changed"])
        );
    }

    #[test]
    fn a_refused_change_does_not_move_the_30_days() {
        let mut given = given(&[
            (0, register("john")),
            (0, Action::ChangeUsername(username("jane"))),
        ]);
        assert!(
            given
                .when(29 * DAY, &Action::ChangeUsername(username("jack")))
                .is_err()
        );
        given.record(Vec::new(), at(29 * DAY));
        assert!(
            given
                .when(30 * DAY, &Action::ChangeUsername(username("jack")))
                .is_ok()
        );
    }

    #[test]
    fn the_30_days_roll_from_the_last_accepted_change() {
        let given = given(&[
            (0, register("john")),
            (0, Action::ChangeUsername(username("jane"))),
            (30 * DAY, Action::ChangeUsername(username("jack"))),
        ]);
        let next = at(60 * DAY);
        assert_eq!(
            given.when(59 * DAY, &Action::ChangeUsername(username("jill"))),
            Err(Rejection::UsernameChangeTooSoon { next })
        );
    }

    #[test]
    fn the_same_username_changes_nothing_even_within_30_days() {
        let given = given(&[
            (0, register("john")),
            (0, Action::ChangeUsername(username("jane"))),
        ]);
        assert_eq!(
            given.when(1, &Action::ChangeUsername(username("Jane"))),
            Ok(vec![])
        );
    }

    #[test]
    fn a_name_given_up_is_held_for_its_owner_for_exactly_30_days() {
        let given = given(&[(0, register("mine"))]).claimed(claim("john", OTHER, Some(30 * DAY)));
        let take = Action::ChangeUsername(username("john"));
        let rejection = Rejection::UsernameHeld {
            username: "john".to_owned(),
            until: at(30 * DAY),
        };
        assert_eq!(given.when(30 * DAY - 1, &take), Err(rejection));
        assert_eq!(given.when(30 * DAY, &take), Ok(vec!["username-changed"]));
    }

    #[test]
    fn an_owner_takes_its_old_name_back() {
        let given = given(&[
            (0, register("john")),
            (0, Action::ChangeUsername(username("jane"))),
        ]);
        assert_eq!(
            given.when(30 * DAY, &Action::ChangeUsername(username("john"))),
            Ok(vec!["username-changed"])
        );
    }

    #[test]
    fn a_replaced_profile_records_only_what_changed() {
        let given = given(&[(0, register("john"))]);
        let replace =
            Action::ReplaceProfile(profile(r#"{"name":"Jane","surname":"Doe","bio":"hi"}"#));
        let events = given.decide(&replace, None, at(1)).unwrap();
        let [UserEvent::ProfileUpdated(updated)] = &events[..] else {
            panic!("one event: {events:?}")
        };
        let json = serde_json::to_value(updated).unwrap();
        let expected = serde_json::json!({
            "name": {"before": "John", "after": "Jane"},
            "bio": {"before": null, "after": "hi"},
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn an_absent_member_is_cleared() {
        let with_bio = profile(r#"{"name":"John","surname":"Doe","bio":"hi"}"#);
        let given = given(&[(0, register("john")), (1, Action::ReplaceProfile(with_bio))]);
        let without = Action::ReplaceProfile(profile(r#"{"name":"John","surname":"Doe"}"#));
        let events = given.decide(&without, None, at(2)).unwrap();
        let [UserEvent::ProfileUpdated(updated)] = &events[..] else {
            panic!("one event: {events:?}")
        };
        assert_eq!(updated.bio.as_ref().unwrap().after, None);
    }

    #[test]
    fn the_same_profile_and_the_same_photo_change_nothing() {
        let first = photo("507f1f77bcf86cd799439012", "aa");
        let given = given(&[(0, register("john")), (1, first)]);
        assert_eq!(
            given.when(
                2,
                &Action::ReplaceProfile(profile(r#"{"name":"John","surname":"Doe"}"#))
            ),
            Ok(vec![])
        );
        assert_eq!(
            given.when(2, &photo("507f1f77bcf86cd799439013", "aa")),
            Ok(vec![])
        );
        assert_eq!(
            given.when(2, &photo("507f1f77bcf86cd799439013", "bb")),
            Ok(vec!["photo-changed"])
        );
    }

    #[test]
    fn a_new_photo_names_the_one_before() {
        let given = given(&[
            (0, register("john")),
            (1, photo("507f1f77bcf86cd799439012", "aa")),
        ]);
        let events = given
            .decide(&photo("507f1f77bcf86cd799439013", "bb"), None, at(2))
            .unwrap();
        let [UserEvent::PhotoChanged(changed)] = &events[..] else {
            panic!("one event: {events:?}")
        };
        assert_eq!(
            changed.previous_photo_id,
            Some("507f1f77bcf86cd799439012".parse().unwrap())
        );
    }

    #[test]
    fn who_is_not_there_yet_has_version_0() {
        let rejection = Rejection::VersionMismatch {
            expected: 1,
            actual: 0,
        };
        let (given, register) = (given(&[]), register("john"));
        assert_eq!(given.decide(&register, Some(1), at(0)), Err(rejection));
        assert!(given.decide(&register, Some(0), at(0)).is_ok());
    }

    #[test]
    fn a_decision_on_another_version_is_refused_before_anything_else() {
        let given = given(&[(0, register("john"))]);
        let action = Action::ChangeUsername(username("john"));
        let rejection = Rejection::VersionMismatch {
            expected: 7,
            actual: 1,
        };
        assert_eq!(given.decide(&action, Some(7), at(1)), Err(rejection));
        assert_eq!(given.decide(&action, Some(1), at(1)), Ok(vec![]));
    }
}
