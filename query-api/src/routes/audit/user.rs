//! `GET /api/v1/audit/users/{userId}`: a user as it was, at a version, a position or a time; without one,
//! as it is in the ledger now.

use axum::extract::{Path, State};
use events::document::Document;
use events::profile::OwnProfile;
use events::replay::{Until, replay};
use events::store::position_at;
use events::{Position, Time, UserId, Version};
use http_kit::answer::Answer;
use http_kit::code::Code;
use http_kit::error::ApiError;
use http_kit::fields::Fields;
use http_kit::text::Text;
use serde::Serialize;

use super::{Asked, head, newest, not_replayed, place, time, within};
use crate::QueryApi;

/// Which moment is asked for.
enum At {
    Now,
    Version(Version),
    Position(Position),
    Time(Time),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AsItWas<'a> {
    #[serde(flatten)]
    moment: Moment,
    document: OwnProfile<'a>,
}

/// The last event within.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Moment {
    version: Version,
    position: Position,
    recorded_at: Time,
}

impl Moment {
    pub(super) fn of(document: &Document) -> Self {
        Self {
            version: document.version,
            position: document.position,
            recorded_at: document.updated_at,
        }
    }
}

pub(in crate::routes) async fn read(
    State(api): State<QueryApi>,
    mut asked: Asked,
    Path(user_id): Path<String>,
) -> Result<Answer, ApiError> {
    let user = asked.user(&user_id)?;
    let now = Time::from(api.clock.now());
    let at = at(&mut asked.parameters, now);
    asked.record(&api, Some(user)).await?;

    let newest = newest(&api, &user).await?;
    let until = match at {
        At::Now => Until::Version(newest.version),
        At::Version(version) => {
            within("atVersion", version, newest.version)?;
            Until::Version(version)
        }
        At::Position(position) => {
            within("atPosition", position, head(&*api.history).await?)?;
            Until::Position(position)
        }
        At::Time(time) => {
            let position = position_at(&*api.history, time).await;
            Until::Position(position.map_err(ApiError::unavailable)?)
        }
    };
    let document = replay(&*api.history, &user, None, until).await;
    let Some(document) = document.map_err(not_replayed)? else {
        return Err(not_registered_then(&api, &user).await);
    };
    let as_it_was = AsItWas {
        moment: Moment::of(&document),
        document: OwnProfile {
            document: &document,
            public_url: &api.public_url,
        },
    };
    let answer = Answer::ok(api.clock.now(), &as_it_was);
    Ok(answer.version(document.version).position(document.position))
}

/// At most one moment.
fn at(parameters: &mut Fields, now: Time) -> At {
    let version = parameters.optional("atVersion", |value| place(value, 1));
    let position = parameters.optional("atPosition", |value| place(value, 0));
    let time = parameters.optional("at", |value| match time(value)? {
        // What will have happened by then is not known.
        time if time > now => Err(Text::new("IN_THE_FUTURE").with("now", now)),
        time => Ok(time),
    });
    let moments = [
        ("atVersion", version.map(At::Version)),
        ("atPosition", position.map(At::Position)),
        ("at", time.map(At::Time)),
    ];
    let mut given = moments
        .into_iter()
        .filter_map(|(name, at)| Some((name, at?)));
    let Some((first, at)) = given.next() else {
        return At::Now;
    };
    for (name, _) in given {
        parameters.problem(name, Text::new("NOT_TOGETHER").with("other", first));
    }
    at
}

async fn not_registered_then(api: &QueryApi, user: &UserId) -> ApiError {
    let error = ApiError::new(Code::NotFound);
    match api.history.read_user(user, 0, 1).await.as_deref() {
        Ok([first]) => error.because(
            Text::new("NOT_REGISTERED_THEN")
                .with("position", first.position)
                .with("time", first.recorded_at),
        ),
        _ => error,
    }
}
