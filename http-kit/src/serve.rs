//! The layers around every route (envelope, request ids, limits, panics, access log), and the server.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, EXPECT, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::MethodRouter;
use futures::FutureExt as _;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;
use tracing::Instrument as _;

use crate::client::RequestId;
use crate::clock::Clock;
use crate::code::Code;
use crate::error::ApiError;
use crate::metrics::HTTP_SECONDS;
use crate::text::Language;

/// The most connections at once. More connections wait to be accepted.
const CONNECTIONS: usize = 8_192;
/// File descriptors that are kept free for other files and connections.
const OTHER_FILES: u64 = 256;
/// How long a client may take to send the headers of a request, and how long a connection may be idle
/// between requests.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// The most header fields of a request, and their most bytes in total.
const HEADER_FIELDS: usize = 100;
const HEADER_BYTES: usize = 32 * 1024;
/// Bytes that are read ahead of a connection, and header fields that are parsed. Both are above the limits, so that
/// requests over the limits are answered in the envelope. hyper refuses requests over these without one.
const BUFFER: usize = 48 * 1024;
const PARSED_FIELDS: usize = 2 * HEADER_FIELDS;

/// Limits the body (413) and the time (408) of a route. The time includes the reading of the body.
pub fn limits<S: Clone + Send + Sync + 'static>(
    route: MethodRouter<S>,
    body_bytes: usize,
    time: Duration,
) -> MethodRouter<S> {
    // One layer, because axum clones every layer and its content for each request.
    let limit = move |mut request: Request, next: Next| async move {
        DefaultBodyLimit::max(body_bytes).apply(&mut request);
        let answered = tokio::time::timeout(time, linger(request, next)).await;
        answered.unwrap_or_else(|_| StatusCode::REQUEST_TIMEOUT.into_response())
    };
    route.layer::<_, Infallible>(from_fn(limit))
}

/// The longest time in which a client does not read anything of an answer.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// Bytes that a client may send after its request was refused.
const LINGER_BYTES: usize = 12 * 1024 * 1024;
/// The time in which it may send them.
const LINGER_TIME: Duration = Duration::from_secs(5);

/// Reads and drops the rest of the body of a refused request. Otherwise a client that is still sending would see a
/// reset connection instead of the answer.
async fn linger(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    // Such a client waits for our answer or our consent before it sends the body.
    let waits = parts.headers.contains_key(EXPECT);
    let lent = Lent(Arc::new(Mutex::new(Begun {
        body,
        is_begun: false,
    })));
    let mut rest = Lent(Arc::clone(&lent.0));
    let response = next.run(Request::from_parts(parts, Body::new(lent))).await;
    let is_refused = response.status().is_client_error() || response.status().is_server_error();
    if is_refused && (!waits || rest.lock().is_begun) {
        let rest = async {
            let mut read = 0;
            while let Some(Ok(frame)) = rest.frame().await {
                read += frame.data_ref().map_or(0, Bytes::len);
                if read > LINGER_BYTES {
                    break;
                }
            }
        };
        // A client that sends more, or more slowly, gets the reset.
        let _ = tokio::time::timeout(LINGER_TIME, rest).await;
    }
    response
}

/// A body that the route reads. [`linger`] reads the rest.
struct Lent(Arc<Mutex<Begun>>);

struct Begun {
    body: Body,
    /// Whether the route started to read it.
    is_begun: bool,
}

impl Lent {
    fn lock(&self) -> MutexGuard<'_, Begun> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut begun = self.lock();
        begun.is_begun = true;
        Pin::new(&mut begun.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.lock().body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().body.size_hint()
    }
}

/// Marks an answer that keeps its own format, such as that of a probe.
#[derive(Debug, Clone, Copy)]
pub struct AsIs;

/// Puts the envelope, request ids, the access log and the handling of panics around all routes. It is one layer, for
/// the same reason as in [`limits`].
pub fn harden(router: Router, clock: Clock) -> Router {
    router
        .method_not_allowed_fallback(async || ApiError::new(Code::MethodNotAllowed))
        .fallback(async || ApiError::new(Code::NotFound))
        .layer(from_fn_with_state(clock, envelope))
}

async fn envelope(State(clock): State<Clock>, mut request: Request, next: Next) -> Response {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the edge at which ids of requests are made"
    )]
    let id = RequestId::of(request.headers(), uuid::Uuid::now_v7);
    request.extensions_mut().insert(id.clone());
    let language = Language::of(request.headers());
    let problem_json = wants_problem_json(request.headers());
    let method = request.method().clone();
    // The pattern of the route, for the log: a raw path can contain a name.
    let path = request.extensions().get::<MatchedPath>().cloned();
    let route = path.as_ref().map_or("unmatched", MatchedPath::as_str);
    let began = clock.now();
    let span = tracing::info_span!("request", request.id = id.0);

    let response = if are_too_large(request.headers()) {
        ApiError::new(Code::HeadersTooLarge).into_response()
    } else {
        let answered = AssertUnwindSafe(next.run(request)).catch_unwind();
        let answered = answered.instrument(span.clone()).await;
        answered.unwrap_or_else(|_| ApiError::new(Code::Internal).into_response())
    };
    let now = clock.now();
    let mut response = span.in_scope(|| render(response, language, problem_json, now));
    let seconds = now.duration_since(began).as_secs_f64();
    tracing::info!(
        parent: &span,
        http.method = method.as_str(),
        http.route = route,
        http.status = response.status().as_u16(),
        http.milliseconds = seconds * 1000.0,
        "Answered a request"
    );
    let status = response.status().as_u16().to_string();
    HTTP_SECONDS.record([route.to_owned().into(), status.into()], seconds);
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        headers.insert("x-request-id", value);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Gives every failure the same format, also failures from libraries.
fn render(
    mut response: Response,
    language: Language,
    problem_json: bool,
    now: jiff::Timestamp,
) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error())
        || response.extensions().get::<AsIs>().is_some()
    {
        return response;
    }
    let error = response
        .extensions_mut()
        .remove::<ApiError>()
        .unwrap_or_else(|| ApiError::new(Code::of(status)));
    error.render(language, problem_json, now, &response)
}

fn are_too_large(headers: &HeaderMap) -> bool {
    // As they are sent: with a colon, a space and a line end.
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    headers.len() > HEADER_FIELDS || bytes > HEADER_BYTES
}

/// Whether `Accept` names `application/problem+json` and does not refuse it.
fn wants_problem_json(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let named = parts
                .next()
                .is_some_and(|name| name.eq_ignore_ascii_case("application/problem+json"));
            let refused = parts.any(|parameter| {
                let quality = parameter
                    .strip_prefix("q=")
                    .or_else(|| parameter.strip_prefix("Q="));
                quality.is_some_and(|quality| {
                    quality
                        .trim()
                        .parse::<f32>()
                        .is_ok_and(|quality| quality <= 0.0)
                })
            });
            named && !refused
        })
}

/// Serves until `shutdown`. Then it stops accepting, lets running requests finish until `deadline`, and drops the rest.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()>,
    deadline: Duration,
) -> std::io::Result<()> {
    // HTTP/1.1 only: detecting HTTP/2 by its first bytes would wait for them without a limit, and gateways use HTTP/1.1
    // to their backends.
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_headers(PARSED_FIELDS)
        .max_buf_size(BUFFER);
    let allowed = connections_allowed();
    let graceful = GracefulShutdown::new();
    let mut connections = tokio::task::JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if connections.len() >= allowed => continue,
            accepted = listener.accept(), if connections.len() < allowed => accepted,
        };
        // Finished connections are collected as new ones come.
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let service = TowerToHyperService::new(router.clone());
                let connection = graceful.watch(server.serve_connection(polite(stream), service));
                connections.spawn(async move {
                    // A client that breaks its connection is not a problem of the service.
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "A connection ended early");
                    }
                });
            }
            // For example, there are no file descriptors left: wait for connections to end.
            Err(error) => {
                tracing::warn!(%error, "A connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(deadline, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!(
            connections = connections.len(),
            "Connections were still open at the deadline and are dropped"
        );
    }
    connections.shutdown().await;
    Ok(())
}

/// The most connections that leave enough file descriptors free. The limit of the process is raised as far as
/// possible.
fn connections_allowed() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let is_raised = setrlimit(Resource::Nofile, raised).is_ok();
    let files = if is_raised {
        limit.maximum
    } else {
        limit.current
    };
    let files = files.unwrap_or(u64::MAX);
    let allowed = files.saturating_sub(OTHER_FILES).max(OTHER_FILES);
    usize::try_from(allowed).map_or(CONNECTIONS, |allowed| allowed.min(CONNECTIONS))
}

/// A connection that sends small answers at once, and that ends when its client stops reading for too long.
fn polite(stream: TcpStream) -> TokioIo<Pin<Box<TimeoutStream<TcpStream>>>> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIME));
    TokioIo::new(Box::pin(stream))
}

#[cfg(test)]
mod tests;
