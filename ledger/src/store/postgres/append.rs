//! The statement of an append.

use std::collections::HashMap;

use super::super::{AppendError, Batch, Claim};
use crate::postgres::{Statement, signed};
use events::envelope::StoredEvent;
use events::{Time, UserId};

/// The columns of an event, in the order in which they are written.
macro_rules! stored_columns {
    () => {
        "position, event_id, user_id, version, event_type, schema_version, recorded_at, envelope, leaf_hash"
    };
}

/// Returns no rows when the head has moved. An append that waits for the head's row while another commits
/// finds the row at another position, because PostgreSQL evaluates the condition again.
///
/// `named` contains the changes of the batch by username, each name once, with the user who must be allowed to
/// take it first. It is checked against the claims of the statement's snapshot. That snapshot is as old as the
/// matching head, because every append that changes claims moves the head.
const APPEND: &str = concat!(
    "WITH moved AS (
    UPDATE ledger.ledger_head SET position = $4, recorded_at = $5, appends = appends + 1
    WHERE position = $1 AND epoch = $2 AND store_id = $3 AND appends = $25
    RETURNING position
), appended AS (
    INSERT INTO ledger.events
        (",
    stored_columns!(),
    ")
    SELECT e.position, e.event_id::uuid, e.user_id, e.version, e.event_type, e.schema_version, e.recorded_at,
        e.envelope, e.leaf_hash
    FROM moved CROSS JOIN unnest($6::bigint[], $7::text[], $8::text[], $9::bigint[], $10::text[], $11::integer[],
        $12::bigint[], $13::bytea[], $14::bytea[])
        AS e(",
    stored_columns!(),
    ")
), named AS (
    SELECT n.username, n.taker, n.user_id, n.held_until
    FROM moved CROSS JOIN unnest($15::text[], $16::text[], $17::text[], $18::bigint[])
        AS n(username, taker, user_id, held_until)
), claimed AS (
    INSERT INTO ledger.username_claims (username, user_id, held_until)
    SELECT username, user_id, held_until FROM named
    ON CONFLICT (username) DO UPDATE SET user_id = excluded.user_id, held_until = excluded.held_until
), remembered AS (
    INSERT INTO ledger.idempotency (actor, key, fingerprint, answer, recorded_at)
    SELECT o.actor, o.key, o.fingerprint, o.answer, o.recorded_at
    FROM moved CROSS JOIN unnest($20::bytea[], $21::bytea[], $22::bytea[], $23::bytea[], $24::bigint[])
        AS o(actor, key, fingerprint, answer, recorded_at)
    ON CONFLICT (actor, key) DO UPDATE
    SET fingerprint = excluded.fingerprint, answer = excluded.answer, recorded_at = excluded.recorded_at
)
SELECT
    CASE WHEN $19 OR EXISTS (
        SELECT FROM named AS n JOIN ledger.username_claims AS c ON c.username = n.username
        WHERE c.user_id <> n.taker AND (c.held_until IS NULL OR c.held_until > $5)
    ) THEN ledger.refuse_taken_name() END,
    CASE current_setting('synchronous_commit')
        WHEN 'off' THEN set_config('synchronous_commit', 'on', true)
    END
FROM moved"
);

/// The reason why an append was not written.
pub(super) fn refused(error: sqlx::Error) -> AppendError {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    match code.as_deref() {
        Some("PLTKN") => AppendError::NameTaken,
        // When the database's default isolation is stricter, a lost race ends with this error.
        Some("40001") => AppendError::HeadMoved,
        _ => AppendError::Store(error.into()),
    }
}

pub(super) fn append(batch: &Batch) -> Statement<'_> {
    let events = &batch.events;
    let (names, is_contradictory) = names(&batch.claims, batch.recorded_at);
    let outcomes: HashMap<_, _> = batch
        .outcomes
        .iter()
        .map(|outcome| (&outcome.key, outcome))
        .collect();
    let each_event =
        |millis_of: fn(&StoredEvent) -> i64| -> Vec<i64> { events.iter().map(millis_of).collect() };
    sqlx::query(APPEND)
        .bind(signed(batch.expected.position))
        .bind(signed(batch.expected.epoch))
        .bind(&batch.expected.store_id)
        .bind(signed(batch.expected.position + events.len() as u64))
        .bind(batch.recorded_at.millis())
        .bind(each_event(|event| signed(event.position)))
        .bind(strings(events, |event| event.event_id.to_string()))
        .bind(strings(events, |event| event.user_id.to_string()))
        .bind(each_event(|event| signed(event.version)))
        .bind(strings(events, |event| event.event_type.clone()))
        .bind(
            events
                .iter()
                .map(|event| i32::try_from(event.schema_version).unwrap_or(i32::MAX))
                .collect::<Vec<_>>(),
        )
        .bind(each_event(|event| event.recorded_at.millis()))
        .bind(
            events
                .iter()
                .map(|event| &*event.envelope)
                .collect::<Vec<&[u8]>>(),
        )
        .bind(
            events
                .iter()
                .map(|event| &event.leaf_hash.0[..])
                .collect::<Vec<&[u8]>>(),
        )
        .bind(strings(&names, |name| name.last.username.clone()))
        .bind(strings(&names, |name| name.taker.to_string()))
        .bind(strings(&names, |name| name.last.user_id.to_string()))
        .bind(
            names
                .iter()
                .map(|name| name.last.held_until.map(Time::millis))
                .collect::<Vec<_>>(),
        )
        .bind(is_contradictory)
        .bind(
            outcomes
                .keys()
                .map(|key| key.actor.as_bytes())
                .collect::<Vec<_>>(),
        )
        .bind(
            outcomes
                .keys()
                .map(|key| key.key.as_bytes())
                .collect::<Vec<_>>(),
        )
        .bind(
            outcomes
                .values()
                .map(|outcome| &outcome.fingerprint[..])
                .collect::<Vec<_>>(),
        )
        .bind(
            outcomes
                .values()
                .map(|outcome| &outcome.answer[..])
                .collect::<Vec<_>>(),
        )
        .bind(
            outcomes
                .values()
                .map(|outcome| outcome.recorded_at.millis())
                .collect::<Vec<_>>(),
        )
        .bind(signed(batch.expected.appends))
}

fn strings<T>(list: &[T], text_of: fn(&T) -> String) -> Vec<String> {
    list.iter().map(text_of).collect()
}

/// The changes of one name by a batch: the user who must be allowed to take it first, and its final
/// state.
struct Name<'b> {
    taker: &'b UserId,
    last: &'b Claim,
}

/// The claims of a batch, each name once, because a statement cannot write a row twice. Decides
/// whether each later claim to a name may follow the claim before it; the second result is `true`
/// when one may not.
fn names(claims: &[Claim], now: Time) -> (Vec<Name<'_>>, bool) {
    let mut names: Vec<Name<'_>> = Vec::new();
    let mut index: HashMap<&str, usize> = HashMap::new();
    let mut is_contradictory = false;
    for claim in claims {
        if let Some(&n) = index.get(&*claim.username) {
            let name = &mut names[n];
            is_contradictory |= !name.last.is_free_for(&claim.user_id, now);
            name.last = claim;
        } else {
            index.insert(&claim.username, names.len());
            names.push(Name {
                taker: &claim.user_id,
                last: claim,
            });
        }
    }
    (names, is_contradictory)
}
