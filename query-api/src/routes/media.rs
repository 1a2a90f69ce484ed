//! `GET /media/users/{userId}/photos/{hash}/{photoId}/{file}`: the bytes of a photo.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse as _, Response};
use events::photo_key;
use events::{PhotoId, UserId};
use http_kit::client::if_none_match;
use http_kit::error::ApiError;
use http_kit::openapi::values;
use http_kit::openapi::{self, Away, Fails, Known, NotThere, schema};
use serde_json::json;
use utoipa::openapi::{self as described, RefOr, Schema};
use utoipa::{IntoResponses, PartialSchema};

use super::not_found;
use crate::Shared;

/// The files that a photo can have. The type of each is fixed by its name, whatever the store says.
const FILES: [(&str, &str); 6] = [
    ("40.webp", "image/webp"),
    ("76.webp", "image/webp"),
    ("96.webp", "image/webp"),
    ("192.webp", "image/webp"),
    ("512.webp", "image/webp"),
    ("512.jpg", "image/jpeg"),
];

/// The names in [`FILES`].
struct FileName;

impl PartialSchema for FileName {
    fn schema() -> RefOr<Schema> {
        schema(json!({"type": "string", "enum": FILES.map(|(name, _)| name)}))
    }
}

/// The bytes in the OpenAPI document.
struct PhotoBytes;

impl IntoResponses for PhotoBytes {
    fn responses() -> BTreeMap<String, RefOr<described::Response>> {
        let bytes = openapi::bytes("The bytes.", &["image/webp", "image/jpeg"]);
        let known = openapi::described("The client already has these bytes.");
        let answers = [("200", bytes), ("304", known)];
        BTreeMap::from(answers.map(|(status, answer)| {
            let answer = answer
                .header("ETag", openapi::answer_header("Identifies the bytes."))
                .header(
                    "Cache-Control",
                    openapi::answer_header("Public, for a year."),
                );
            (status.to_owned(), answer.build().into())
        }))
    }
}

/// Read the bytes of a photo
///
/// The URLs in `profilePhoto` lead here. The bytes at a URL never change.
#[utoipa::path(
    get,
    path = "/media/users/{userId}/photos/{hash}/{photoId}/{file}",
    operation_id = "getUsersPhotoFile",
    tag = "Photo",
    params(
        ("userId" = values::UserId, Path, description = "The id of the user."),
        ("hash" = String, Path, description = "SHA-256 of the upload.", pattern = "^[0-9a-f]{64}$"),
        ("photoId" = values::PhotoId, Path, description = "The id of the photo."),
        ("file" = inline(FileName), Path, description = "A side in pixels, and the form."),
        Known
    ),
    responses(PhotoBytes, Fails<(NotThere, Away)>),
    security()
)]
pub(super) async fn read(
    State(api): State<Shared>,
    Path((user, hash, photo, file)): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    // Every part is parsed, so that no path leads anywhere but to a photo.
    let user: UserId = user.parse().map_err(|_| not_found())?;
    let photo: PhotoId = photo.parse().map_err(|_| not_found())?;
    let is_hash = hash.len() == 64
        && hash
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let (file, media_type) = FILES
        .iter()
        .find(|(name, _)| *name == file && is_hash)
        .ok_or_else(not_found)?;
    let key = photo_key::file(&user, &hash, &photo, file);
    let bytes = api
        .photo_store
        .read(&key)
        .await
        .map_err(ApiError::unavailable)?
        .ok_or_else(not_found)?;
    // A key's bytes never change, so the key is a strong validator.
    let etag = format!("\"{hash}-{photo}-{file}\"");
    let headers_out: [(HeaderName, &str); 5] = [
        (CACHE_CONTROL, "public, max-age=31536000, immutable"),
        (ETAG, &etag),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; sandbox; frame-ancestors 'none'",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "cross-origin",
        ),
    ];
    if if_none_match(&headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, headers_out).into_response());
    }
    Ok((
        headers_out,
        [(CONTENT_TYPE, *media_type), (CONTENT_DISPOSITION, "inline")],
        bytes,
    )
        .into_response())
}

#[cfg(test)]
mod tests {
    use http_kit::testing::{Answer, Ask, refuses};

    use super::*;
    use crate::testing::{Api, JANE, JOHN, PHOTO, hash};

    fn path(file: &str) -> String {
        format!("/media/users/{JOHN}/photos/{}/{PHOTO}/{file}", hash())
    }

    impl Api {
        async fn with_files() -> Self {
            let api = Self::still().await;
            for (file, _) in FILES {
                let (user, photo) = (JOHN.parse().unwrap(), PHOTO.parse().unwrap());
                let key = photo_key::file(&user, &hash(), &photo, file);
                let bytes = format!("<script>{file}</script>").into();
                api.photo_store.create(&key, bytes).await.unwrap();
            }
            api
        }

        async fn get(&self, path: &str) -> Answer {
            self.send(Ask::new("GET", path)).await
        }
    }

    #[tokio::test]
    async fn a_photo_is_served_as_an_image_and_nothing_else_for_ever() {
        let api = Api::with_files().await;
        for (file, media_type) in FILES {
            let answer = api.get(&path(file)).await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.body, format!("<script>{file}</script>"));
            let etag = format!("\"{}-{PHOTO}-{file}\"", hash());
            for (name, value) in [
                ("content-type", media_type),
                ("cache-control", "public, max-age=31536000, immutable"),
                ("etag", &etag),
                ("x-content-type-options", "nosniff"),
                (
                    "content-security-policy",
                    "default-src 'none'; sandbox; frame-ancestors 'none'",
                ),
                ("cross-origin-resource-policy", "cross-origin"),
                ("content-disposition", "inline"),
            ] {
                assert_eq!(answer.header(name), Some(value), "{name} of {file}");
            }
            assert!(answer.header("x-request-id").is_some());
        }
        let head = api.send(Ask::new("HEAD", &path("40.webp"))).await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.header("content-length"), Some("24"));
    }

    #[tokio::test]
    async fn who_has_the_bytes_already_is_told_so() {
        let api = Api::with_files().await;
        let etag = format!("\"{}-{PHOTO}-40.webp\"", hash());
        for (tags, status) in [
            (etag.clone(), 304),
            (format!("\"x\", {etag}"), 304),
            ("*".to_owned(), 304),
            ("\"x\"".to_owned(), 200),
        ] {
            let ask = Ask::new("GET", &path("40.webp")).header("if-none-match", &tags);
            let answer = api.send(ask).await;
            assert_eq!(answer.status, status, "{tags}");
            assert_eq!(answer.body.is_empty(), status == 304, "{tags}");
            assert_eq!(answer.header("etag"), Some(etag.as_str()));
            let immutable = "public, max-age=31536000, immutable";
            assert_eq!(answer.header("cache-control"), Some(immutable));
        }
    }

    #[tokio::test]
    async fn what_is_no_photo_is_not_found() {
        let api = Api::with_files().await;
        let hash = hash();
        let other = "cd".repeat(32);
        for path in [
            path("41.webp"),
            path("512.png"),
            path("40.WEBP"),
            path("40.webp%00"),
            path("40.webp%2f"),
            path(".."),
            path("..%2f..%2f..%2fledger.db"),
            path("%2e%2e%2f40.webp"),
            path("%2fetc%2fpasswd"),
            path("..%5c40.webp"),
            format!("/media/users/{JANE}/photos/{hash}/{PHOTO}/40.webp"),
            format!("/media/users/{JOHN}/photos/{other}/{PHOTO}/40.webp"),
            format!("/media/users/{JOHN}/photos/{hash}/{JANE}/40.webp"),
            format!("/media/users/..%2f{JOHN}/photos/{hash}/{PHOTO}/40.webp"),
            format!("/media/users/{JOHN}/photos/{hash}%2f../{PHOTO}/40.webp"),
            format!("/media/users/{JOHN}/photos/../{PHOTO}/40.webp"),
            format!(
                "/media/users/{JOHN}/photos/{}/{PHOTO}/40.webp",
                hash.to_uppercase()
            ),
            format!(
                "/media/users/{}/photos/{hash}/{PHOTO}/40.webp",
                JOHN.to_uppercase()
            ),
            "/media/../ledger.db".to_owned(),
            "/media/".to_owned(),
        ] {
            let ask = Ask::new("GET", &path);
            let (english, turkish) = (["Resource not found"], ["Kaynak bulunamadı"]);
            let code = "RESOURCE_NOT_FOUND";
            refuses(&api.router, &ask, 404, code, &english, &turkish).await;
        }
    }
}
