//! `GET /api/v1/users/search`: users by the beginnings of words of their names.

use axum::extract::State;
use events::Time;
use events::profile::PublicProfile;
use http_kit::answer::Answer;
use http_kit::caller::{Caller, Role};
use http_kit::error::ApiError;
use http_kit::fields::string;
use http_kit::text::Text;
use projector::read_model::Search;
use projector::search::words;
use serde::Serialize;

use super::Reader;
use crate::QueryApi;

const DEFAULT_LIMIT: u32 = 5;
const MAX_LIMIT: u32 = 100;
/// Pages further on cost ever more; nobody reads them.
const MAX_PAGE: u32 = 1000;
const MAX_QUERY: usize = 100;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a> {
    items: Vec<PublicProfile<'a>>,
    page: u32,
    limit: u32,
    has_more: bool,
}

pub(super) async fn search(
    State(api): State<QueryApi>,
    caller: Caller,
    reader: Reader,
) -> Result<Answer, ApiError> {
    caller.require(&[Role::User])?;
    let mut parameters = reader.parameters;
    let words = parameters.optional("q", |value| query(string(value)?));
    let page = parameters
        .optional("page", |value| number(string(value)?, MAX_PAGE))
        .unwrap_or(1);
    let limit = parameters
        .optional("limit", |value| number(string(value)?, MAX_LIMIT))
        .unwrap_or(DEFAULT_LIMIT);
    let expertise = parameters.optional("expertise", |value| expertise(string(value)?));
    if words.is_none() && expertise.is_none() && !parameters.has_problems() {
        parameters.problem("q", Text::new("REQUIRED"));
    }
    parameters.finish()?;
    // One more than asked for tells whether there is another page.
    let search = Search {
        words: words.unwrap_or_default(),
        expertise,
        offset: (page - 1) * limit,
        limit: limit + 1,
    };
    let mut found = api
        .documents
        .search(&search)
        .await
        .map_err(ApiError::unavailable)?;
    let limit_as_len = usize::try_from(limit).expect("at most 100");
    let has_more = found.len() > limit_as_len;
    found.truncate(limit_as_len);
    let now = api.clock.now();
    let today = Time::from(now).date();
    let items = found
        .iter()
        .map(|document| PublicProfile {
            document,
            public_url: &api.public_url,
            today,
        })
        .collect();
    Ok(Answer::ok(
        now,
        &Page {
            items,
            page,
            limit,
            has_more,
        },
    ))
}

fn query(text: &str) -> Result<Vec<String>, Text> {
    if text.chars().nth(MAX_QUERY).is_some() {
        return Err(Text::new("TOO_LONG").with("max", MAX_QUERY));
    }
    let words = words(text);
    if words.is_empty() {
        return Err(Text::new("TOO_SHORT").with("min", 1));
    }
    Ok(words)
}

fn number(text: &str, max: u32) -> Result<u32, Text> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text
        .parse()
        .ok()
        .filter(|number| digits && (1..=max).contains(number));
    number.ok_or_else(|| Text::new("BAD_NUMBER").with("min", 1).with("max", max))
}

fn expertise(text: &str) -> Result<String, Text> {
    match events::profile::EXPERTISE.iter().find(|one| **one == text) {
        Some(one) => Ok((*one).to_owned()),
        None => {
            Err(Text::new("NOT_ALLOWED").with("allowed", events::profile::EXPERTISE.join(", ")))
        }
    }
}
