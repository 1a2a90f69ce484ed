//! A gateway in front of a service that cuts connections and alters what passes.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use reqwest::StatusCode;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What is done to an answer: its path, its query, and its text.
type Alter = Box<dyn Fn(&str, &str, String) -> String + Send>;

#[derive(Clone)]
pub(crate) struct Gateway {
    /// Where it is reached.
    pub(crate) url: String,
    client: reqwest::Client,
    state: Arc<Mutex<Tricks>>,
}

#[derive(Default)]
struct Tricks {
    /// The service.
    behind: String,
    hidden: Option<&'static str>,
    alter: Option<Alter>,
    is_closed: bool,
    cut: CancellationToken,
}

impl Gateway {
    /// A gateway to a service; it ends with the test.
    pub(crate) async fn to(service: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gateway = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            client: reqwest::Client::new(),
            state: Arc::default(),
        };
        gateway.lead_to(service);
        let router = Router::new().fallback(pass).with_state(gateway.clone());
        tokio::spawn(async { axum::serve(listener, router).await });
        gateway
    }

    /// From now on leads to another service.
    pub(crate) fn lead_to(&self, service: &str) {
        service.clone_into(&mut self.state.lock().unwrap().behind);
    }

    /// From now on says that a path does not exist.
    pub(crate) fn hide(&self, path: &'static str) {
        self.state.lock().unwrap().hidden = Some(path);
    }

    /// From now on alters the text of every answer that has an end.
    pub(crate) fn alter(&self, alter: impl Fn(&str, &str, String) -> String + Send + 'static) {
        self.state.lock().unwrap().alter = Some(Box::new(alter));
    }

    /// From now on lets everything pass as it is.
    pub(crate) fn behave(&self) {
        self.state.lock().unwrap().alter = None;
    }

    /// Cuts every stream, and refuses new ones until it is opened again.
    pub(crate) fn close_streams(&self) {
        let mut state = self.state.lock().unwrap();
        state.is_closed = true;
        std::mem::take(&mut state.cut).cancel();
    }

    pub(crate) fn open_streams(&self) {
        self.state.lock().unwrap().is_closed = false;
    }
}

async fn pass(State(gateway): State<Gateway>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let is_stream = parts.uri.path() == "/api/v1/events/stream";
    let (url, cut) = {
        let state = gateway.state.lock().unwrap();
        if is_stream && state.is_closed {
            return StatusCode::BAD_GATEWAY.into_response();
        }
        if state.hidden == Some(parts.uri.path()) {
            return StatusCode::NOT_FOUND.into_response();
        }
        (format!("{}{}", state.behind, parts.uri), state.cut.clone())
    };
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let request = gateway.client.request(parts.method, url);
    let answer = request.headers(parts.headers).body(body).send().await;
    let answer = answer.unwrap();
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        if name != "content-length" && name != "transfer-encoding" {
            response = response.header(name, value);
        }
    }
    let media_type = answer.headers().get("content-type");
    let is_image = media_type.is_some_and(|one| one.to_str().unwrap().starts_with("image/"));
    let body = if is_stream {
        let cut = async move { cut.cancelled().await };
        Body::from_stream(answer.bytes_stream().take_until(Box::pin(cut)))
    } else if is_image {
        Body::from(answer.bytes().await.unwrap())
    } else {
        let text = answer.text().await.unwrap();
        let query = parts.uri.query().unwrap_or_default();
        let state = gateway.state.lock().unwrap();
        Body::from(match &state.alter {
            Some(alter) => alter(parts.uri.path(), query, text),
            None => text,
        })
    };
    response.body(body).unwrap()
}
