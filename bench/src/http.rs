//! One keep-alive connection. This client uses little CPU time compared with the service.

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A request with its whole body.
pub(crate) type Sent = Request<Full<Bytes>>;

/// The answer to a request.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `Ledger-Position`.
    pub(crate) position: Option<u64>,
    pub(crate) body: Bytes,
}

/// A connection to a service.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    pub(crate) async fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // It ends with the sender. Errors are reported to the request.
        tokio::spawn(async { drop(connection.await) });
        Ok(Self { sender })
    }

    pub(crate) async fn send(&mut self, request: Sent) -> anyhow::Result<Answer> {
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let (parts, body) = response.into_parts();
        let position = parts.headers.get("ledger-position");
        let position = position.and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Answer {
            status: parts.status.as_u16(),
            position,
            body: body.collect().await?.to_bytes(),
        })
    }

    pub(crate) async fn get(&mut self, path: &str, token: &str) -> anyhow::Result<Answer> {
        self.send(request(
            Method::GET,
            path,
            token,
            "application/json",
            Bytes::new(),
        ))
        .await
    }
}

/// Builds a request with a token. An empty token is left out.
pub(crate) fn request(
    method: Method,
    path: &str,
    token: &str,
    content_type: &str,
    body: Bytes,
) -> Sent {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "localhost");
    if !token.is_empty() {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    if !body.is_empty() {
        request = request.header(CONTENT_TYPE, content_type);
    }
    request
        .body(Full::new(body))
        .expect("paths and tokens of ours are good")
}
