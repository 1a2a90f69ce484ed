//! How values of the `events` crate are described: `#[schema(value_type = values::UserId)]`.

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{KnownFormat, RefOr, Schema, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

/// [`events::UserId`].
pub struct UserId;

impl PartialSchema for UserId {
    fn schema() -> RefOr<Schema> {
        object_id("Names a user for ever.", "507f1f77bcf86cd799439011")
    }
}

impl ToSchema for UserId {}

/// [`events::PhotoId`].
pub struct PhotoId;

impl PartialSchema for PhotoId {
    fn schema() -> RefOr<Schema> {
        object_id("Names one change of a photo.", "507f1f77bcf86cd799439012")
    }
}

impl ToSchema for PhotoId {}

fn object_id(about: &str, example: &str) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(about))
        .pattern(Some("^[0-9a-f]{24}$"))
        .examples([example])
        .into()
}

/// [`events::Time`].
pub struct Time;

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("UTC, with milliseconds and `Z`."))
            .examples(["2026-05-22T16:11:26.808Z"])
            .into()
    }
}

impl ToSchema for Time {}
