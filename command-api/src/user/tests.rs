use super::*;
use events::LeafHash;
use events::event::Consents;
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

/// A user and the claims to names after some accepted actions.
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
                .extend(ledger::store::claims_of(&user_id(), &event));
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
            self.user = Some(
                apply(self.user.take(), &recorded, last)
                    .expect("decided events are valid next events"),
            );
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
fn a_user_that_does_not_exist_can_be_registered() {
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
fn a_user_that_is_not_registered_cannot_change() {
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
fn a_replaced_profile_records_only_the_changes() {
    let given = given(&[(0, register("john"))]);
    let replace = Action::ReplaceProfile(profile(r#"{"name":"Jane","surname":"Doe","bio":"hi"}"#));
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
fn a_user_that_does_not_exist_yet_has_version_0() {
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
