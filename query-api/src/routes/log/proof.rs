//! `GET /api/v1/log/proof/inclusion`, `GET /api/v1/log/proof/consistency`, and
//! `GET /api/v1/audit/users/{userId}/proof`: hashes that, with a checkpoint, show that an event is in the
//! ledger, that a ledger is the beginning of a later one, and that a user's history is whole.

use axum::extract::{Path, State};
use events::{Position, UserId, Version};
use http_kit::answer::Answer;
use http_kit::caller::Caller;
use http_kit::code::Code;
use http_kit::error::ApiError;
use http_kit::openapi::values;
use http_kit::openapi::{Fails, NotThere, Refuses};
use http_kit::query::{number_from, optional, required};
use http_kit::query_parameters;
use http_kit::text::Text;
use ledger::merkle::tree::Hash;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{EXAMPLE_CHECKPOINT, newest, not_yet_signed, tree};
use crate::routes::audit::{AuditedRead, within};
use crate::routes::{Example, LogRead, Shows, not_found};
use crate::{QueryApi, Shared};

/// A proof that an event is in the ledger. Hashes are hexadecimal digits.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Inclusion {
    /// The position of the event. The index of its leaf is this minus one.
    #[schema(value_type = u64)]
    position: Position,
    /// The size of the tree: its number of events.
    size: u64,
    leaf_hash: String,
    /// From the sibling of the leaf upwards.
    hashes: Vec<String>,
    root: String,
}

/// A proof that a ledger is the beginning of a later ledger. Hashes are hexadecimal digits.
#[derive(Serialize, ToSchema)]
pub(crate) struct Consistency {
    /// The size of the earlier tree.
    from: u64,
    /// The size of the later tree.
    to: u64,
    hashes: Vec<String>,
}

/// A proof that the history of a user is complete. Hashes are hexadecimal digits.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WholeHistory {
    #[schema(value_type = values::UserId)]
    user_id: UserId,
    /// The version of the newest event within the checkpoint.
    #[schema(value_type = u64)]
    version: Version,
    /// The position of the same event.
    #[schema(value_type = u64)]
    position: Position,
    leaf_hash: String,
    /// From the sibling of the leaf upwards.
    hashes: Vec<String>,
    /// The size of the tree of the checkpoint.
    size: u64,
    /// The signed note.
    checkpoint: String,
}

/// Hashes of examples.
const HASHES: [&str; 2] = [
    "0ac5186a91863e8e1d90c808014aa89bf5da8e3ee1d9f07630f0378f68f1ab62",
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
];

impl Example for Inclusion {
    fn example() -> Value {
        json!({"position": 42, "size": 42, "leafHash": HASHES[1], "hashes": [HASHES[0]], "root": HASHES[0]})
    }
}

impl Example for Consistency {
    fn example() -> Value {
        json!({"from": 41, "to": 42, "hashes": HASHES})
    }
}

impl Example for WholeHistory {
    fn example() -> Value {
        let user = http_kit::profile::example();
        json!(Self {
            user_id: user.user_id,
            version: user.version,
            position: user.position,
            leaf_hash: HASHES[1].to_owned(),
            hashes: vec![HASHES[0].to_owned()],
            size: user.position,
            checkpoint: EXAMPLE_CHECKPOINT.to_owned(),
        })
    }
}

query_parameters! {
    /// A leaf of a tree.
    struct Leaf {
        /// The position of the event.
        position: Position = required("position", number_from(1)),
        /// The size of the tree. The default is the size of the newest checkpoint.
        size: Option<u64> = optional("size", number_from(1)),
    }
}

impl Refuses for Leaf {
    fn refusals() -> Vec<ApiError> {
        bad("position")
    }
}

query_parameters! {
    /// The sizes of two trees.
    struct Sizes {
        /// The size of the earlier tree.
        from: u64 = required("from", number_from(0)),
        /// The size of the tree. The default is the size of the newest checkpoint.
        to: Option<u64> = optional("to", number_from(1)),
    }
}

impl Refuses for Sizes {
    fn refusals() -> Vec<ApiError> {
        bad("from")
    }
}

/// The tree is not signed that far yet.
struct Unsigned;

impl Refuses for Unsigned {
    fn refusals() -> Vec<ApiError> {
        vec![not_yet_signed(42)]
    }
}

fn bad(name: &'static str) -> Vec<ApiError> {
    let problem = Text::new("BEYOND_END").with("max", 42);
    let bad = ApiError::new(Code::ValidationFailed).field(name, problem);
    vec![bad, not_yet_signed(42)]
}

/// Prove that an event is in the ledger
///
/// Hashes from the sibling of the leaf upwards (RFC 6962, 2.1.1). They lead to the root of a checkpoint.
#[utoipa::path(
    get,
    path = "/api/v1/log/proof/inclusion",
    operation_id = "getLogInclusionProofV1",
    tag = "Proofs",
    params(Leaf, LogRead),
    responses(Shows<Inclusion>, Fails<(Caller, LogRead, Leaf)>),
    security(("bearer" = []))
)]
pub(in crate::routes) async fn inclusion(
    State(api): State<Shared>,
    _: Caller,
    read: LogRead,
) -> Result<Answer, ApiError> {
    let (Leaf { position, size }, wanted) = read.parameters()?;
    let newest = newest(&api, wanted).await?.size;
    let size = size.unwrap_or(newest);
    reaches(&api, "size", size, newest).await?;
    within("position", position, size)?;
    let (leaf_hash, hashes) = included(&api, position, size).await?;
    let root = tree(&api, size).root().await;
    let inclusion = Inclusion {
        position,
        size,
        leaf_hash,
        hashes,
        root: hex::encode(root.map_err(ApiError::unavailable)?),
    };
    Ok(Answer::ok(api.clock.now(), &inclusion))
}

/// Prove that a ledger is the beginning of a later ledger
///
/// The hashes lead to the roots of two checkpoints (RFC 6962, 2.1.2).
#[utoipa::path(
    get,
    path = "/api/v1/log/proof/consistency",
    operation_id = "getLogConsistencyProofV1",
    tag = "Proofs",
    params(Sizes, LogRead),
    responses(Shows<Consistency>, Fails<(Caller, LogRead, Sizes)>),
    security(("bearer" = []))
)]
pub(in crate::routes) async fn consistency(
    State(api): State<Shared>,
    _: Caller,
    read: LogRead,
) -> Result<Answer, ApiError> {
    let (Sizes { from, to }, wanted) = read.parameters()?;
    let newest = newest(&api, wanted).await?.size;
    let to = to.unwrap_or(newest);
    reaches(&api, "to", to, newest).await?;
    within("from", from, to)?;
    let proof = tree(&api, to).consistency(from).await;
    let consistency = Consistency {
        from,
        to,
        hashes: texts(&proof.map_err(ApiError::unavailable)?),
    };
    Ok(Answer::ok(api.clock.now(), &consistency))
}

/// Prove that the history of a user is complete
///
/// Each event contains the hash of the previous event of its user, so the newest event proves that none is missing.
/// Reading the history of another user is recorded.
#[utoipa::path(
    get,
    path = "/api/v1/audit/users/{userId}/proof",
    operation_id = "getUsersHistoryProofV1",
    tag = "Proofs",
    params(("userId" = values::UserId, Path, description = "The id of the user."), AuditedRead),
    responses(Shows<WholeHistory>, Fails<(AuditedRead, Unsigned, NotThere)>),
    security(("bearer" = []))
)]
pub(in crate::routes) async fn whole_history(
    State(api): State<Shared>,
    mut read: AuditedRead,
    Path(user_id): Path<String>,
) -> Result<Answer, ApiError> {
    let user = read.user(&user_id)?;
    read.record(&api, Some(user)).await?;
    let newest = newest(&api, 0).await?;
    let mut before = Version::MAX;
    // Events after the checkpoint are skipped. There are few, because the checkpoint is about a second old.
    let last = loop {
        let event = api.history.read_user_back(&user, before, 1).await;
        let event = event.map_err(ApiError::unavailable)?.into_iter().next();
        match event {
            Some(event) if event.position > newest.size && event.version == 1 => {
                return Err(not_yet_signed(event.position));
            }
            Some(event) if event.position > newest.size => before = event.version,
            Some(event) => break event,
            None => return Err(not_found()),
        }
    };
    let (leaf_hash, hashes) = included(&api, last.position, newest.size).await?;
    let whole = WholeHistory {
        user_id: user,
        version: last.version,
        position: last.position,
        leaf_hash,
        hashes,
        size: newest.size,
        checkpoint: newest.note,
    };
    Ok(Answer::ok(api.clock.now(), &whole))
}

/// The hash of an event, and the proof that it is in the tree.
async fn included(
    api: &QueryApi,
    position: Position,
    size: u64,
) -> Result<(String, Vec<String>), ApiError> {
    let leaf = api.history.leaf_hashes(position - 1, 1).await;
    let leaf = leaf.map_err(ApiError::unavailable)?;
    let leaf = leaf.first().ok_or_else(|| not_yet_signed(position))?;
    let proof = tree(api, size).inclusion(position - 1).await;
    let proof = proof.map_err(ApiError::unavailable)?;
    Ok((hex::encode(leaf), texts(&proof)))
}

/// 503 for a tree that is not signed yet, 400 for a tree that is larger than the ledger.
async fn reaches(
    api: &QueryApi,
    name: &'static str,
    size: u64,
    newest: u64,
) -> Result<(), ApiError> {
    if size <= newest {
        return Ok(());
    }
    let head = api.history.head().await.map_err(ApiError::unavailable)?;
    within(name, size, head.position)?;
    Err(not_yet_signed(size))
}

fn texts(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(hex::encode).collect()
}

#[cfg(test)]
mod tests {
    use http_kit::testing::Answer;
    use ledger::merkle::note::Signer;
    use ledger::merkle::tree::{is_consistent, is_included};
    use serde_json::Value;

    use super::*;
    use crate::testing::{Api, JANE, JOHN, auditor, called, user};

    fn hash(text: &Value) -> Hash {
        hex::decode(text.as_str().unwrap())
            .unwrap()
            .try_into()
            .unwrap()
    }

    fn hashes(data: &Value) -> Vec<Hash> {
        data["hashes"]
            .as_array()
            .unwrap()
            .iter()
            .map(hash)
            .collect()
    }

    fn opened(note: &str) -> ledger::merkle::note::Checkpoint {
        let signer = Signer::new("example.com/log", [1; 32]).unwrap();
        signer.public_key().open(note).unwrap()
    }

    fn text(answer: &Answer) -> String {
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.header("content-type"),
            Some("text/plain; charset=utf-8")
        );
        String::from_utf8(answer.body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn every_event_is_proven_to_be_in_the_signed_ledger() {
        let api = Api::with_users().await;
        api.sign().await;
        let checkpoint = opened(&text(&api.read(auditor("/api/v1/log/checkpoint")).await));
        assert_eq!(checkpoint.size, 3);
        for position in 1..=3 {
            let path = format!("/api/v1/log/proof/inclusion?position={position}");
            let data = api.read(user(JANE, &path)).await.data();
            assert_eq!(
                (&data["position"], &data["size"]),
                (&position.into(), &3.into())
            );
            assert_eq!(hash(&data["root"]), checkpoint.root);
            let leaf = hash(&data["leafHash"]);
            assert!(is_included(
                &leaf,
                position - 1,
                3,
                &hashes(&data),
                &checkpoint.root
            ));
        }
    }

    #[tokio::test]
    async fn a_later_ledger_is_proven_to_begin_as_the_earlier_one() {
        let api = Api::with_users().await;
        api.sign().await;
        let old = opened(&text(&api.read(auditor("/api/v1/log/checkpoint")).await));
        api.append(JANE, called("Jane", "Joan")).await;
        api.append(JANE, called("Joan", "Jane")).await;
        api.sign().await;
        let new = opened(&text(&api.read(auditor("/api/v1/log/checkpoint")).await));
        let data = api
            .read(auditor("/api/v1/log/proof/consistency?from=3"))
            .await
            .data();
        assert_eq!((&data["from"], &data["to"]), (&3.into(), &5.into()));
        let (old, new) = ((3, &old.root), (5, &new.root));
        assert!(is_consistent(old, new, &hashes(&data)));
    }

    #[tokio::test]
    async fn a_user_proves_that_nothing_was_left_out_of_its_history() {
        let api = Api::with_users().await;
        api.sign().await;
        // After the checkpoint: not proven yet, and not in the way.
        api.append(JOHN, called("John", "Jon")).await;
        let path = format!("/api/v1/audit/users/{JOHN}/proof");
        let data = api.read(user(JOHN, &path)).await.data();
        assert_eq!(
            (&data["version"], &data["position"]),
            (&2.into(), &3.into())
        );
        let checkpoint = opened(data["checkpoint"].as_str().unwrap());
        let leaf = hash(&data["leafHash"]);
        assert!(is_included(&leaf, 2, 3, &hashes(&data), &checkpoint.root));
        let other = api.read(user(JANE, &path)).await;
        assert_eq!(other.status, 403);
        let nobody = "/api/v1/audit/users/507f1f77bcf86cd799439000/proof";
        assert_eq!(api.read(auditor(nobody)).await.status, 404);
    }

    #[tokio::test]
    async fn what_is_not_signed_yet_is_asked_for_again() {
        let api = Api::with_users().await;
        let sentences = [
            "The service cannot answer right now; try again shortly",
            "The log is not signed up to position 1 yet; try again in a second.",
        ];
        for path in [
            "checkpoint",
            "key",
            "proof/inclusion?position=1",
            "proof/consistency?from=0",
        ] {
            let answer = api.send(auditor(&format!("/api/v1/log/{path}"))).await;
            assert_eq!(answer.header("retry-after"), Some("1"));
            answer.fails(503, "NOT_YET_READABLE", &sentences);
        }
        api.sign().await;
        api.append(JOHN, called("John", "Jon")).await;
        let path = "/api/v1/log/proof/inclusion?position=1&size=4";
        assert_eq!(api.send(auditor(path)).await.status, 503);
    }

    #[tokio::test]
    async fn what_is_asked_wrongly_is_refused() {
        let api = Api::with_users().await;
        api.sign().await;
        for (query, problems) in [
            ("inclusion", &["position: is required"][..]),
            (
                "inclusion?position=0",
                &["position: must be a whole number from 1 to 9223372036854775807"],
            ),
            (
                "inclusion?position=4",
                &["position: must be at most 3, which is the newest"],
            ),
            (
                "inclusion?position=2&size=1",
                &["position: must be at most 1, which is the newest"],
            ),
            (
                "inclusion?position=2&size=4",
                &["size: must be at most 3, which is the newest"],
            ),
            (
                "consistency?from=3&to=1000000",
                &["to: must be at most 3, which is the newest"],
            ),
            (
                "consistency?from=3&to=2",
                &["from: must be at most 2, which is the newest"],
            ),
            (
                "consistency?from=-1&x=1",
                &[
                    "from: must be a whole number from 0 to 9223372036854775807",
                    "x: is not a known field",
                ],
            ),
        ] {
            let answer = api
                .read(auditor(&format!("/api/v1/log/proof/{query}")))
                .await;
            let mut sentences = vec!["Validation failed"];
            sentences.extend(problems);
            answer.fails(400, "VALIDATION_FAILED", &sentences);
        }
    }
}
