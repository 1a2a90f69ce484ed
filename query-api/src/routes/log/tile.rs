//! `GET /api/v1/log/tile/{level}/{index}`: a tile of hashes, or the stored envelopes if the level is `entries`. The
//! layout is that of `c2sp.org/tlog-tiles`. The path of a partial tile ends in `.p/<width>`.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::response::Response;
use http_kit::error::ApiError;
use http_kit::fields::whole_number;
use http_kit::openapi::{self, Fails, NotThere, schema};
use ledger::merkle::tree::TILE;
use serde_json::json;
use utoipa::openapi::{self as described, RefOr, Schema};
use utoipa::{IntoResponses, PartialSchema};

use super::{newest, plain, tree};
use crate::routes::audit::AuditedRead;
use crate::routes::not_found;
use crate::{QueryApi, Shared};

const BYTES: &str = "application/octet-stream";
/// A tile never changes.
const FOR_EVER: &str = "private, max-age=31536000, immutable";
/// Levels of tiles of a ledger that fills a 64-bit number.
const LEVELS: u32 = 8;

/// A level in the OpenAPI document.
struct Level;

impl PartialSchema for Level {
    fn schema() -> RefOr<Schema> {
        let levels = (0..LEVELS).map(|level| level.to_string());
        let levels: Vec<_> = levels.chain(["entries".to_owned()]).collect();
        schema(json!({"type": "string", "enum": levels}))
    }
}

/// A tile in the OpenAPI document.
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

/// A tile, and the number of its hashes.
#[derive(Debug, PartialEq, Eq)]
struct TilePath {
    index: u64,
    width: u64,
}

/// Read a tile
///
/// A tile has 256 hashes of a level of the tree. With the level `entries` it has the stored envelopes, each after its
/// length in two bytes. Entries are for auditors, and reading them is recorded. An index above 999 is written in
/// groups, such as `x001/x234/067`. The first `w` hashes of a tile that is not full are `067.p/w`.
#[utoipa::path(
    get,
    path = "/api/v1/log/tile/{level}/{index}",
    operation_id = "getLogTileV1",
    tag = "Proofs",
    params(
        ("level" = inline(Level), Path, description = "The level, or `entries`."),
        ("index" = String, Path, description = "Which tile of the level.", example = "000.p/1"),
        AuditedRead
    ),
    responses(Tile, Fails<(AuditedRead, NotThere)>),
    security(("bearer" = []))
)]
pub(in crate::routes) async fn read(
    State(api): State<Shared>,
    mut read: AuditedRead,
    Path((level, index)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    if level == "entries" {
        read.require_auditor()?;
        let path = tile_path(&index).ok_or_else(not_found)?;
        read.mention("tile", &index);
        read.record(&api, None).await?;
        return entries(&api, &path).await;
    }
    read.parameters::<()>()?;
    let path = tile_path(&index).ok_or_else(not_found)?;
    let level = number(&level).and_then(|level| u32::try_from(level).ok());
    let level = level
        .filter(|level| *level < LEVELS)
        .ok_or_else(not_found)?;
    let size = newest(&api, 0).await?.size;
    is_there(&path, size >> (8 * level))?;
    let mut tree = tree(&api, size);
    let tile = tree.tile(level, path.index).await;
    let width = usize::try_from(path.width).expect("at most 256");
    let hashes = tile.map_err(ApiError::unavailable)?[..width].concat();
    Ok(plain(BYTES, FOR_EVER, hashes))
}

/// Each entry is its length in two bytes and its bytes.
async fn entries(api: &QueryApi, path: &TilePath) -> Result<Response, ApiError> {
    let size = newest(api, 0).await?.size;
    is_there(path, size)?;
    let width = usize::try_from(path.width).expect("at most 256");
    let events = api.history.read(path.index * TILE, width).await;
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
fn is_there(path: &TilePath, of_level: u64) -> Result<(), ApiError> {
    let end = path.index.checked_mul(TILE);
    let end = end.and_then(|start| start.checked_add(path.width));
    match end {
        Some(end) if end <= of_level => Ok(()),
        _ => Err(not_found()),
    }
}

/// `x001/x234/067` is 1,234,067; `067.p/8` are the first 8 hashes of tile 67.
fn tile_path(path: &str) -> Option<TilePath> {
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
        let group = whole_number(digits).filter(|_| digits.len() == 3)?;
        index = index.checked_mul(1000)?.checked_add(group)?;
        // One tile has one path.
        if index == 0 && parts.peek().is_some() {
            return None;
        }
    }
    Some(TilePath { index, width })
}

/// A number without leading zeros.
fn number(text: &str) -> Option<u64> {
    whole_number(text).filter(|number| number.to_string() == text)
}

#[cfg(test)]
mod tests;
