//! Routes as they are described, to be compared with those that there are.

use serde_json::json;

use crate::openapi::operations;

/// The path and the method of every operation, in order.
pub fn described(part: &utoipa::openapi::OpenApi) -> Vec<(String, String)> {
    let paths = json!(part.paths);
    let operations = operations(&paths);
    sorted(
        operations
            .map(|(path, method, _)| (path.to_owned(), method.to_ascii_uppercase()))
            .collect(),
    )
}

/// The patterns and the methods of routes, in order. A pattern of several segments is described as one of a segment,
/// for OpenAPI has none other.
pub fn sorted(mut routes: Vec<(String, String)>) -> Vec<(String, String)> {
    for (pattern, _) in &mut routes {
        *pattern = pattern.replace("{*", "{");
    }
    routes.sort_unstable();
    routes
}
