//! `GET /api/v1/log/tile/{level}/{index}`: a tile of hashes, or with `entries` as level the stored envelopes
//! themselves, laid out as in `c2sp.org/tlog-tiles`. A part of a tile ends in `.p/<width>`.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::response::Response;
use ledger::merkle::tree::TILE;
use http_kit::error::ApiError;
use http_kit::openapi::{self, Fails, NotThere, schema};
use serde_json::json;
use utoipa::openapi::{self as described, RefOr, Schema};
use utoipa::{IntoResponses, PartialSchema};

use super::{newest, plain, tree};
use crate::routes::audit::Asked;
use crate::routes::not_found;
use crate::{QueryApi, Shared};

const BYTES: &str = "application/octet-stream";
/// A tile never changes.
const FOR_EVER: &str = "private, max-age=31536000, immutable";
/// Levels of tiles of a ledger that fills a 64-bit number.
const LEVELS: u32 = 8;

/// A level described.
struct Level;

impl PartialSchema for Level {
    fn schema() -> RefOr<Schema> {
        let levels = (0..LEVELS).map(|level| level.to_string());
        let levels: Vec<_> = levels.chain(["entries".to_owned()]).collect();
        schema(json!({"type": "string", "enum": levels}))
    }
}

/// A tile described.
struct Tile;

impl IntoResponses for Tile {
    fn responses() -> BTreeMap<String, RefOr<described::Response>> {
        let answer = openapi::bytes("The tile. It never changes.", &[BYTES]).header(
            "Cache-Control",
            openapi::answer_header("Private, for a year."),
        );
        BTreeMap::from([("200".to_owned(), answer.build().into())])
    }
}

/// Which tile, and how many of its hashes.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    index: u64,
    width: u64,
}

/// Read a tile
///
/// 256 hashes of a level of the tree, or with `entries` as level the stored envelopes themselves, each after its length
/// in two bytes; those are for auditors, and a look at them is recorded. An index beyond 999 is written in groups, such
/// as `x001/x234/067`; the first `w` hashes of a tile that is not full are `067.p/w`.
#[utoipa::path(
    get,
    path = "/api/v1/log/tile/{level}/{index}",
    operation_id = "getLogTileV1",
    tag = "Proofs",
    params(
        ("level" = inline(Level), Path, description = "The level, or `entries`."),
        ("index" = String, Path, description = "Which tile of the level.", example = "000.p/1"),
        Asked
    ),
    responses(Tile, Fails<(Asked, NotThere)>),
    security(("bearer" = []))
)]
pub(in crate::routes) async fn read(
    State(api): State<Shared>,
    mut asked: Asked,
    Path((level, index)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    if level == "entries" {
        asked.require_auditor()?;
        let place = place(&index).ok_or_else(not_found)?;
        asked.mention("tile", &index);
        asked.record(&api, None).await?;
        return entries(&api, &place).await;
    }
    asked.finish()?;
    let place = place(&index).ok_or_else(not_found)?;
    let level = number(&level).and_then(|level| u32::try_from(level).ok());
    let level = level
        .filter(|level| *level < LEVELS)
        .ok_or_else(not_found)?;
    let size = newest(&api, 0).await?.size;
    is_there(&place, size >> (8 * level))?;
    let mut tree = tree(&api, size);
    let tile = tree.tile(level, place.index).await;
    let width = usize::try_from(place.width).expect("at most 256");
    let hashes = tile.map_err(ApiError::unavailable)?[..width].concat();
    Ok(plain(BYTES, FOR_EVER, hashes))
}

/// Each entry is its length in two bytes and its bytes.
async fn entries(api: &QueryApi, place: &Place) -> Result<Response, ApiError> {
    let size = newest(api, 0).await?.size;
    is_there(place, size)?;
    let width = usize::try_from(place.width).expect("at most 256");
    let events = api.history.read(place.index * TILE, width).await;
    let mut bundle = Vec::new();
    for event in events.map_err(ApiError::unavailable)? {
        let length = u16::try_from(event.envelope.len());
        let length = length.map_err(ApiError::internal)?;
        bundle.extend(length.to_be_bytes());
        bundle.extend(&event.envelope);
    }
    Ok(plain(BYTES, FOR_EVER, bundle))
}

/// 404 for hashes that the tree does not have.
fn is_there(place: &Place, of_level: u64) -> Result<(), ApiError> {
    let end = place.index.checked_mul(TILE);
    let end = end.and_then(|start| start.checked_add(place.width));
    match end {
        Some(end) if end <= of_level => Ok(()),
        _ => Err(not_found()),
    }
}

/// `x001/x234/067` is 1,234,067; `067.p/8` are the first 8 hashes of tile 67.
fn place(path: &str) -> Option<Place> {
    let (path, width) = match path.split_once(".p/") {
        Some((path, width)) => (
            path,
            number(width).filter(|width| (1..TILE).contains(width))?,
        ),
        None => (path, TILE),
    };
    let mut parts = path.split('/').peekable();
    let mut index: u64 = 0;
    while let Some(part) = parts.next() {
        let digits = if parts.peek().is_some() {
            part.strip_prefix('x')?
        } else {
            part
        };
        if digits.len() != 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        index = index.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
        // One tile has one path.
        if index == 0 && parts.peek().is_some() {
            return None;
        }
    }
    Some(Place { index, width })
}

/// A number without leading zeros.
fn number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests;
