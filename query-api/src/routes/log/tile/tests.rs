use http_kit::caller::Role;
use http_kit::testing::{Ask, token};
use ledger::merkle::tree::{join, perfect};

use super::*;
use crate::testing::{Api, JANE, auditor, called, user};

#[test]
fn the_path_of_a_tile_is_that_of_the_public_layout() {
    let at = |index, width| Some(TilePath { index, width });
    assert_eq!(tile_path("000"), at(0, 256));
    assert_eq!(tile_path("067"), at(67, 256));
    assert_eq!(tile_path("x001/067"), at(1067, 256));
    assert_eq!(tile_path("x001/x234/067.p/8"), at(1_234_067, 8));
    for other in tlog_tiles_of(&[0, 7, 999, 1000, 1_234_067, 999_999_999]) {
        let (path, index, width) = other;
        assert_eq!(tile_path(&path), at(index, width), "{path}");
    }
    for bad in [
        "",
        "0",
        "0000",
        "x000/001",
        "001/002",
        "x001",
        "000.p/0",
        "000.p/256",
        "000.p/01",
        "000.p/",
        "-01",
        "00a",
        "x001/",
        "/000",
        "000/",
        "x999/x999/x999/x999/x999/x999/x999/999",
        "000.p/1.p/1",
    ] {
        assert_eq!(tile_path(bad), None, "{bad}");
    }
}

/// What an independent implementation calls them.
fn tlog_tiles_of(indexes: &[u64]) -> Vec<(String, u64, u64)> {
    let of = |index: &u64| {
        [256_u32, 17].map(|width| {
            let tile = tlog_tiles::Tile::new(8, 0, *index, width, false);
            let path = tile.path();
            let path = path.strip_prefix("tile/8/0/").unwrap().to_owned();
            (path, *index, u64::from(width))
        })
    };
    indexes.iter().flat_map(of).collect()
}

#[tokio::test]
async fn tiles_hold_the_hashes_that_make_the_root() {
    let api = Api::with_users().await;
    for n in 0..258 {
        api.append(JANE, called(&format!("J{n}"), &format!("J{}", n + 1)))
            .await;
    }
    api.sign().await;
    let tile = async |path: &str| {
        let answer = api
            .send(user(JANE, &format!("/api/v1/log/tile/{path}")))
            .await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/octet-stream")
        );
        assert_eq!(
            answer.header("cache-control"),
            Some("private, max-age=31536000, immutable")
        );
        let chunks = answer.body.chunks(32);
        chunks
            .map(|hash| hash.try_into().unwrap())
            .collect::<Vec<[u8; 32]>>()
    };
    let full = tile("0/000").await;
    assert_eq!(full.len(), 256);
    assert_eq!(tile("0/000.p/5").await, full[..5]);
    let rest = tile("0/001.p/5").await;
    let above = tile("1/000.p/1").await;
    assert_eq!(above, [perfect(&full)]);
    let data = api
        .read(auditor("/api/v1/log/proof/inclusion?position=1"))
        .await
        .data();
    let root = join(&[above[0], perfect(&rest[..4]), rest[4]]);
    assert_eq!(data["root"], hex::encode(root));
    for absent in [
        "0/001",
        "0/001.p/6",
        "0/002.p/1",
        "1/000",
        "1/000.p/2",
        "2/000.p/1",
        "8/000",
        "00/000",
        "x/000",
    ] {
        let answer = api
            .send(user(JANE, &format!("/api/v1/log/tile/{absent}")))
            .await;
        assert_eq!(answer.status, 404, "{absent}");
    }
}

#[tokio::test]
async fn entries_are_the_stored_envelopes_and_only_for_auditors() {
    let api = Api::with_users().await;
    api.sign().await;
    let path = "/api/v1/log/tile/entries/000.p/3";
    let answer = api.send(auditor(path)).await;
    assert_eq!(answer.status, 200);
    let mut rest = &answer.body[..];
    let mut entries = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let (entry, after) = after.split_at(usize::from(u16::from_be_bytes(*length)));
        entries.push(entry.to_vec());
        rest = after;
    }
    assert_eq!(entries.len(), 3);
    let tile = api.send(auditor("/api/v1/log/tile/0/000.p/3")).await;
    for (entry, hash) in entries.iter().zip(tile.body.chunks(32)) {
        assert_eq!(events::LeafHash::of(entry).0, hash);
    }
    assert_eq!(api.send(user(JANE, path)).await.status, 403);
    let service = Ask::new("GET", path).bearer(&token("a-service", &[Role::Service]));
    assert_eq!(api.send(service).await.status, 403);
    let reads = api.read(auditor("/api/v1/audit/reads")).await.data();
    assert_eq!(
        reads["items"][0]["route"],
        "/api/v1/log/tile/{level}/{*index}"
    );
}
