//! Any event, with any texts in it.

use events::envelope::Previous;
use events::event::{
    Change, Consents, PhotoChanged, Profile, ProfileUpdated, UserRegistered, UsernameChanged,
    Variant,
};
use events::{Context, EventId, LeafHash, PhotoId, Recorded, Time, UserEvent, UserId};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ -~]{0,20}",
        Just(" \r\n\u{0}\u{202e}".to_owned())
    ]
}

fn time() -> impl Strategy<Value = Time> {
    any::<i64>().prop_map(Time::from_millis)
}

/// A text for every kind of member.
trait Member {
    fn of(texts: &mut impl Iterator<Item = String>) -> Self;
}

impl Member for Option<String> {
    fn of(texts: &mut impl Iterator<Item = String>) -> Self {
        texts.next().filter(|text| !text.is_empty())
    }
}

impl Member for Vec<String> {
    fn of(texts: &mut impl Iterator<Item = String>) -> Self {
        let length = texts.next().map_or(0, |text| text.len() % 4);
        texts.take(length).collect()
    }
}

fn profile() -> impl Strategy<Value = Profile> {
    macro_rules! make {
        (
            required { $($(#[doc = $about:literal])* $member:ident $json:literal: $kind:ident,)* }
            optional { $($(#[doc = $about_o:literal])* $member_o:ident $json_o:literal: $type:ty = $kind_o:ident,)* }
        ) => {
            |texts: Vec<String>| {
                let mut texts = texts.into_iter();
                Profile {
                    $($member: texts.next().unwrap_or_default(),)*
                    $($member_o: <$type as Member>::of(&mut texts),)*
                }
            }
        };
    }
    vec(text(), 0..40).prop_map(events::profile_members!(make))
}

fn registered() -> impl Strategy<Value = UserEvent> {
    let consents = (any::<[bool; 4]>(), of(text()), of(text()), of(text()));
    let rest = (
        text(),
        of(text()),
        of(text()),
        vec(text(), 0..4),
        of(time()),
    );
    (profile(), consents, rest).prop_map(|(profile, consents, rest)| {
        let ([privacy, terms, form, is_complete], privacy_version, terms_version, form_version) =
            consents;
        let (username, country_code, phone_number, roles, last_login) = rest;
        UserEvent::UserRegistered(Box::new(UserRegistered {
            username,
            profile,
            country_code,
            phone_number,
            consents: Consents {
                privacy_policy_accepted: privacy,
                privacy_policy_version: privacy_version,
                terms_of_use_accepted: terms,
                terms_of_use_version: terms_version,
                consent_form_accepted: form,
                consent_form_version: form_version,
            },
            is_registration_complete: is_complete,
            roles,
            last_login,
        }))
    })
}

fn updated() -> impl Strategy<Value = UserEvent> {
    (profile(), profile()).prop_map(|(before, after)| {
        let changes = ProfileUpdated::between(&before, &after);
        // An update without a change is also an example: the smallest event of its type.
        UserEvent::ProfileUpdated(Box::new(changes.unwrap_or_else(|| ProfileUpdated {
            name: Some(Change {
                before: before.name,
                after: after.name,
            }),
            ..ProfileUpdated::default()
        })))
    })
}

fn photo_id() -> impl Strategy<Value = PhotoId> {
    (time(), any::<[u8; 8]>()).prop_map(|(made, random)| PhotoId::new(made, random))
}

fn photo() -> impl Strategy<Value = UserEvent> {
    let variant = (any::<[u32; 2]>(), text());
    let variant = variant.prop_map(|([size, side], file)| Variant { size, file, side });
    let texts = (text(), text(), text());
    let numbers = (any::<u64>(), any::<[u32; 2]>());
    (
        photo_id(),
        texts,
        numbers,
        vec(variant, 0..4),
        of(photo_id()),
    )
        .prop_map(
            |(photo_id, texts, (size, [width, height]), variants, previous_photo_id)| {
                let (content_hash, media_type, main) = texts;
                UserEvent::PhotoChanged(Box::new(PhotoChanged {
                    photo_id,
                    content_hash,
                    size,
                    media_type,
                    width,
                    height,
                    main,
                    variants,
                    previous_photo_id,
                }))
            },
        )
}

fn renamed() -> impl Strategy<Value = UserEvent> {
    (text(), text(), time()).prop_map(|(before, after, held_until)| {
        UserEvent::UsernameChanged(UsernameChanged {
            before,
            after,
            held_until,
        })
    })
}

fn context() -> impl Strategy<Value = Context> {
    (vec(of(text()), 9), text(), text()).prop_map(|(mut texts, actor_type, actor)| {
        let mut next = || texts.pop().flatten();
        Context {
            actor_type,
            actor,
            correlation_id: next(),
            causation_id: next(),
            traceparent: next(),
            language: next(),
            timezone: next(),
            platform: next(),
            app_version: next(),
            device_id: next(),
            request_id: next(),
        }
    })
}

/// Any event of any type, as the ledger could hold it.
pub(crate) fn any_event() -> impl Strategy<Value = Recorded> {
    let event = prop_oneof![registered(), updated(), photo(), renamed()];
    let previous = of((any::<u64>(), any::<[u8; 32]>()));
    let numbers = (
        any::<[u64; 2]>(),
        time(),
        time(),
        any::<([u8; 10], [u8; 8])>(),
    );
    (numbers, previous, context(), event).prop_map(|(numbers, previous, context, event)| {
        let ([position, version], time, recorded_at, (of_event, of_user)) = numbers;
        Recorded {
            position,
            event_id: EventId::new(time, of_event),
            user_id: UserId::new(recorded_at, of_user),
            version,
            time,
            recorded_at,
            previous: previous.map(|(position, hash)| Previous {
                position,
                hash: LeafHash(hash),
            }),
            context,
            event,
        }
    })
}
