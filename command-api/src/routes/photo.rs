//! `PATCH /api/v1/users/profile/photo`: sets a new photo of the caller.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::multipart::{Field, MultipartError, MultipartRejection};
use axum::extract::{Multipart, State};
use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use events::event::Variant;
use events::photo_key;
use events::{PhotoId, Time, UserId};
use futures::future::try_join_all;
use http_kit::answer::Answer;
use http_kit::code::Code;
use http_kit::error::ApiError;
use http_kit::metrics::PHOTO_SECONDS;
use http_kit::openapi::{Fails, Refuses, schema};
use http_kit::text::Text;
use photo::{Error, MAX_BYTES, Processed};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::{Done, OfUser, Sender, answer, undecided};
use crate::CommandApi;
use crate::committer::Undecided;
use crate::user::{Action, NewPhoto};

/// The maximum upload with the multipart framing around it.
pub(super) const BODY_BYTES: usize = MAX_BYTES + 64 * 1024;
/// Long enough for 10 MiB over a slow mobile network.
pub(super) const TIME: Duration = Duration::from_mins(1);
/// The maximum number of uploads in memory.
const UPLOADS: usize = 3;

/// The uploads in progress: at most 3 per process and one per user. This bounds the memory, and one
/// user cannot lock others out.
#[derive(Clone)]
pub struct Uploads {
    places: Arc<Semaphore>,
    users: Arc<Mutex<HashSet<UserId>>>,
}

impl Default for Uploads {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(UPLOADS)),
            users: Arc::default(),
        }
    }
}

struct Upload {
    _place: OwnedSemaphorePermit,
    users: Arc<Mutex<HashSet<UserId>>>,
    user_id: UserId,
}

impl Uploads {
    fn begin(&self, user_id: UserId) -> Result<Upload, ApiError> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if users.contains(&user_id) {
            return Err(one_at_a_time());
        }
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| busy())?;
        users.insert(user_id);
        Ok(Upload {
            _place: place,
            users: Arc::clone(&self.users),
            user_id,
        })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.users
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.user_id);
    }
}

/// Change the own photo
///
/// One part `file`: JPEG, PNG, WebP or GIF, recognised by its bytes. At most 10 MiB, 50 megapixels
/// and 12,000 pixels per side, and at least 96 pixels per side. The photo is decoded and encoded
/// again as squares, so no metadata survives. One upload per user at a time.
#[utoipa::path(
    patch,
    path = "/api/v1/users/profile/photo",
    operation_id = "updateUsersProfilePhotoV1",
    tag = "Photo",
    params(Sender),
    request_body(
        content = PhotoBody,
        content_type = "multipart/form-data",
        encoding(("file" = (content_type = "image/jpeg, image/png, image/webp, image/gif")))
    ),
    responses(Done<200>, Fails<(Sender, BadPhoto, OfUser, Undecided)>),
    security(("bearer" = []))
)]
pub(super) async fn change(
    State(api): State<CommandApi>,
    sender: Sender,
    multipart: Result<Multipart, MultipartRejection>,
) -> Result<Answer, ApiError> {
    let user_id = sender.user()?;
    let _upload = api.uploads.begin(user_id)?;
    let multipart = multipart.map_err(|_| ApiError::new(Code::UnsupportedMediaType))?;
    let bytes = timed(&api, "receive", read_file(multipart)).await?;
    let processed = timed(&api, "process", api.photos.process(bytes))
        .await
        .map_err(bad_photo)?;

    // Write the bytes first and the event second: an event never names missing bytes.
    let photo_id = PhotoId::new(Time::from(api.clock.now()), api.randomness.bytes());
    let content_hash = processed.content_hash_hex();
    let writes = try_join_all(processed.renditions.iter().map(async |rendition| {
        let key = photo_key::file(&user_id, &content_hash, &photo_id, rendition.name);
        api.photo_store.create(&key, rendition.bytes.clone()).await
    }));
    timed(&api, "store", writes)
        .await
        .map_err(ApiError::unavailable)?;

    let action = Action::ChangePhoto(Box::new(new_photo(photo_id, &content_hash, &processed)));
    let decided = sender
        .submit(
            &api,
            user_id,
            action,
            "change photo",
            content_hash.as_bytes(),
        )
        .await;
    let may_be_used = match &decided {
        Ok(decided) => decided.result.as_ref().is_ok_and(|document| {
            document
                .photo
                .as_ref()
                .is_some_and(|photo| photo.id == photo_id)
        }),
        Err(Undecided::QueueFull | Undecided::KeyReused) => false,
        // The event may have been written; the sweep will decide.
        Err(Undecided::ShuttingDown | Undecided::Store(_) | Undecided::Panicked) => true,
    };
    if !may_be_used
        && let Err(error) = api
            .photo_store
            .remove(&user_id, &content_hash, &photo_id)
            .await
    {
        tracing::warn!(
            error = events::chain(&error),
            "The bytes of an unused photo stay until the next sweep"
        );
    }
    answer(&api, StatusCode::OK, decided.map_err(undecided)?)
}

/// The OpenAPI description of an upload.
struct PhotoBody;

impl PartialSchema for PhotoBody {
    fn schema() -> RefOr<Schema> {
        schema(json!({
            "type": "object",
            "required": ["file"],
            "properties": {
                "file": {
                    "type": "string",
                    "format": "binary",
                    "description": "A JPEG, PNG, WebP or GIF of at most 10 MiB.",
                    "maxLength": MAX_BYTES,
                },
            },
            "additionalProperties": false,
        }))
    }
}

impl ToSchema for PhotoBody {}

/// The refusals of an upload.
struct BadPhoto;

impl Refuses for BadPhoto {
    fn refusals() -> Vec<ApiError> {
        vec![
            ApiError::new(Code::UnsupportedMediaType),
            bad_photo(Error::TooManyBytes),
            bad_photo(Error::TooSmall),
            busy(),
            one_at_a_time(),
        ]
    }
}

/// Awaits one stage of an upload and records its duration.
async fn timed<T>(api: &CommandApi, stage: &'static str, work: impl Future<Output = T>) -> T {
    let began = api.clock.now();
    let done = work.await;
    let seconds = api.clock.now().duration_since(began).as_secs_f64();
    PHOTO_SECONDS.record([stage.into()], seconds);
    done
}

fn new_photo(photo_id: PhotoId, content_hash: &str, processed: &Processed) -> NewPhoto {
    let main = processed
        .renditions
        .iter()
        .find(|rendition| rendition.media_type == "image/jpeg");
    let variants = processed
        .renditions
        .iter()
        .filter(|rendition| rendition.media_type != "image/jpeg");
    NewPhoto {
        photo_id,
        content_hash: content_hash.to_owned(),
        size: processed.source_bytes,
        media_type: processed.source_format.media_type().to_owned(),
        width: processed.width,
        height: processed.height,
        main: main.expect("the pipeline makes one JPEG").name.to_owned(),
        variants: variants
            .map(|rendition| Variant {
                size: rendition.label,
                file: rendition.name.to_owned(),
                side: rendition.side,
            })
            .collect(),
    }
}

/// The bytes of the one part `file`.
async fn read_file(mut multipart: Multipart) -> Result<Bytes, ApiError> {
    let mut file = None;
    while let Some(field) = multipart
        .next_field()
        .await
        .map_err(|error| bad_multipart(&error))?
    {
        match field.name() {
            Some("file") if file.is_none() => file = Some(read_part(field).await?),
            Some("file") => return Err(bad_file(Text::new("PHOTO_MORE_THAN_ONE"))),
            name => {
                let name: String = name
                    .unwrap_or_default()
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(64)
                    .collect();
                return Err(
                    ApiError::new(Code::ValidationFailed).field(name, Text::new("UNKNOWN_FIELD"))
                );
            }
        }
    }
    file.ok_or_else(|| bad_file(Text::new("PHOTO_MISSING")))
}

async fn read_part(mut field: Field<'_>) -> Result<Bytes, ApiError> {
    // Growing step by step would copy the bytes each time. Untouched memory costs nothing.
    let mut bytes = BytesMut::with_capacity(MAX_BYTES);
    while let Some(chunk) = field.chunk().await.map_err(|error| bad_multipart(&error))? {
        if bytes.len() + chunk.len() > MAX_BYTES {
            return Err(bad_photo(Error::TooManyBytes));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

fn bad_multipart(error: &MultipartError) -> ApiError {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return bad_photo(Error::TooManyBytes);
    }
    ApiError::new(Code::ValidationFailed).field("body", Text::new("BAD_MULTIPART"))
}

fn bad_file(problem: Text) -> ApiError {
    ApiError::new(Code::ValidationFailed).field("file", problem)
}

fn one_at_a_time() -> ApiError {
    ApiError::new(Code::TooManyRequests)
        .because(Text::new("ONE_UPLOAD_AT_A_TIME"))
        .retry_after(1)
}

fn busy() -> ApiError {
    ApiError::new(Code::QueueFull)
        .because(Text::new("PHOTO_BUSY"))
        .retry_after(2)
}

fn bad_photo(error: Error) -> ApiError {
    use photo::{MAX_MEGAPIXELS, MAX_SIDE, MIN_SIDE};
    match error {
        Error::Empty => bad_file(Text::new("PHOTO_EMPTY")),
        Error::TooManyBytes => ApiError::new(Code::BodyTooLarge)
            .because(Text::new("PHOTO_TOO_MANY_BYTES").with("max", MAX_BYTES / (1024 * 1024))),
        Error::UnsupportedFormat(format) => {
            bad_file(Text::new("PHOTO_FORMAT_UNSUPPORTED").with("format", format))
        }
        Error::UnknownFormat => bad_file(Text::new("PHOTO_FORMAT_UNKNOWN")),
        Error::TooManyPixels => {
            bad_file(Text::new("PHOTO_TOO_MANY_PIXELS").with("max", MAX_MEGAPIXELS))
        }
        Error::TooLarge => bad_file(Text::new("PHOTO_TOO_LARGE").with("max", MAX_SIDE)),
        Error::TooSmall => bad_file(Text::new("PHOTO_TOO_SMALL").with("min", MIN_SIDE)),
        Error::Damaged => bad_file(Text::new("PHOTO_DAMAGED")),
        Error::Busy => busy(),
    }
}

#[cfg(test)]
mod tests;
