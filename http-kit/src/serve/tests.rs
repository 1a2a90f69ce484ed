use axum::routing::{get, post};
use bytes::Bytes;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::testing::{Ask, NOW, now, refuses};

const DEADLINE: Duration = Duration::from_secs(5);

/// One route of each kind that the layers must cope with.
fn router() -> Router {
    let read = async |body: Result<Bytes, axum::extract::rejection::BytesRejection>| match body {
        Ok(body) => Ok(body),
        Err(_) => Err(ApiError::new(Code::BodyTooLarge)),
    };
    let router = Router::new()
        .route("/fine", get(async || "fine"))
        .route(
            "/read",
            limits(post(read).put(read), 1000, Duration::from_secs(10)),
        )
        // A handler that leaves the refusal to the library.
        .route(
            "/left",
            limits(
                post(async |body: Bytes| body),
                1000,
                Duration::from_secs(10),
            ),
        )
        .route("/panic", get(panics))
        .route(
            "/as-is",
            get(async || (StatusCode::IM_A_TEAPOT, axum::Extension(AsIs), "tea")),
        )
        .route(
            "/slow",
            get(async || tokio::time::sleep(Duration::from_secs(3)).await),
        );
    harden(router, Clock::fixed(now()))
}

async fn panics() {
    panic!("a defect that a test planted")
}

#[tokio::test]
async fn an_unknown_route_is_not_found() {
    for method in ["GET", "POST", "BREW"] {
        let answer = Ask::new(method, "/nowhere").send(&router()).await;
        answer.fails(404, "RESOURCE_NOT_FOUND", &["Resource not found"]);
    }
    let ask = Ask::new("GET", "/nowhere");
    refuses(
        &router(),
        &ask,
        404,
        "RESOURCE_NOT_FOUND",
        &["Resource not found"],
        &["Kaynak bulunamadı"],
    )
    .await;
}

#[tokio::test]
async fn another_method_is_told_which_are_allowed() {
    let ask = Ask::new("DELETE", "/read");
    let answer = ask.clone().send(&router()).await;
    assert_eq!(answer.header("allow"), Some("POST,PUT"));
    let english = ["This method is not allowed here; see the Allow header"];
    let turkish = ["Bu yöntem burada kullanılamaz; Allow başlığına bakın"];
    refuses(
        &router(),
        &ask,
        405,
        "METHOD_NOT_ALLOWED",
        &english,
        &turkish,
    )
    .await;
    let answer = Ask::new("POST", "/fine").send(&router()).await;
    assert_eq!(answer.header("allow"), Some("GET,HEAD"));
}

#[tokio::test]
async fn a_panic_is_answered_and_the_service_lives() {
    let router = router();
    let ask = Ask::new("GET", "/panic");
    let english = ["Something went wrong on our side"];
    let turkish = ["Bizim tarafımızda bir sorun oluştu"];
    refuses(&router, &ask, 500, "INTERNAL_ERROR", &english, &turkish).await;
    let answer = Ask::new("GET", "/fine").send(&router).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"fine"[..]));
}

#[tokio::test(start_paused = true)]
async fn what_takes_too_long_is_given_up() {
    // A body that is under way for ever.
    let body =
        axum::body::Body::from_stream(futures::stream::pending::<Result<Bytes, Infallible>>());
    let request = Request::builder()
        .method("POST")
        .uri("/read")
        .body(body)
        .unwrap();
    let began = Instant::now();
    let response = tower::ServiceExt::oneshot(router(), request).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(10));
    let answer = axum::body::to_bytes(response.into_body(), 10_000)
        .await
        .unwrap();
    let envelope = json!({
        "isSuccess": false, "statusCode": 408, "data": null, "errors": ["The request took too long"], "timestamp": NOW,
    });
    assert_eq!(answer, envelope.to_string());
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_one_at_the_limit_is_not() {
    let router = router();
    let english = ["The request body is too large"];
    let turkish = ["İstek gövdesi çok büyük"];
    for path in ["/read", "/left"] {
        let ask = Ask::new("POST", path);
        for ask in [
            ask.clone().body(vec![b'x'; 1001]),
            ask.clone()
                .body(vec![b'x'; 1001])
                .header("content-length", "1001"),
            ask.clone().chunked(vec![b'x'; 1001]),
            ask.clone().endless(),
        ] {
            refuses(&router, &ask, 413, "BODY_TOO_LARGE", &english, &turkish).await;
        }
        for ask in [
            ask.clone().body(vec![b'x'; 1000]),
            ask.chunked(vec![b'x'; 1000]),
        ] {
            assert_eq!(ask.send(&router).await.status, 200);
        }
    }
}

#[tokio::test]
async fn too_many_and_too_large_headers_are_refused() {
    let router = router();
    let many = |n| {
        (0..n).fold(Ask::new("GET", "/fine"), |ask, n| {
            ask.header(&format!("x-{n}"), "x")
        })
    };
    let large = |n| Ask::new("GET", "/fine").header("x-large", "x".repeat(n));
    // The name, a colon, a space and the end of the line count, too.
    let most = HEADER_BYTES - "x-large: \r\n".len();
    for ask in [many(100), large(most)] {
        assert_eq!(ask.send(&router).await.status, 200);
    }
    let english = ["The request headers are too large"];
    let turkish = ["İstek başlıkları çok büyük"];
    for ask in [many(101), large(most + 1)] {
        // `refuses` adds a header, which is one more than too many.
        refuses(&router, &ask, 431, "HEADERS_TOO_LARGE", &english, &turkish).await;
    }
}

#[tokio::test]
async fn a_request_id_is_made_echoed_or_replaced() {
    let router = router();
    let id = async |given: &[&[u8]]| {
        let ask = given.iter().fold(Ask::new("GET", "/fine"), |ask, id| {
            ask.header("x-request-id", id)
        });
        let answer = ask.send(&router).await;
        answer.header("x-request-id").unwrap().to_owned()
    };
    let is_made = |id: &str| {
        id.parse::<uuid::Uuid>()
            .is_ok_and(|id| id.get_version_num() == 7)
    };
    assert!(is_made(&id(&[]).await));
    assert_ne!(id(&[]).await, id(&[]).await);
    assert_eq!(id(&[b"mine-1"]).await, "mine-1");
    let long = [b'x'; 129];
    for bad in [
        &[&b""[..]][..],
        &[b"a b"],
        &[b"\xff"],
        &[b"a", b"b"],
        &[&long],
    ] {
        assert!(is_made(&id(bad).await), "{bad:?}");
    }
    // Failures carry it, too.
    let answer = Ask::new("GET", "/panic").header("x-request-id", "mine-2");
    let answer = answer.send(&router).await;
    assert_eq!(answer.header("x-request-id"), Some("mine-2"));
}

#[tokio::test]
async fn problem_details_are_for_those_who_ask_for_them() {
    let router = router();
    for (accept, is_problem) in [
        (&["application/problem+json"][..], true),
        (&["Application/Problem+JSON"], true),
        (&["text/html, application/problem+json;q=0.5"], true),
        (&["text/html", "application/problem+json"], true),
        (&["application/problem+json; q=0"], false),
        (&["application/problem+json;Q=0.000"], false),
        (&["application/json"], false),
        (&["*/*"], false),
        (&["application/problem+jsonx"], false),
        (&[""], false),
        (&[], false),
    ] {
        let ask = accept
            .iter()
            .fold(Ask::new("GET", "/nowhere"), |ask, value| {
                ask.header("accept", value)
            });
        let answer = ask.send(&router).await;
        let wanted = if is_problem {
            "application/problem+json"
        } else {
            "application/json"
        };
        assert_eq!(answer.header("content-type"), Some(wanted), "{accept:?}");
    }
    let ask = Ask::new("GET", "/nowhere").header("accept", "application/problem+json");
    let problem = json!({
        "type": "about:blank", "title": "Resource not found", "status": 404, "code": "RESOURCE_NOT_FOUND", "errors": [],
    });
    let answer = ask.send(&router).await;
    assert_eq!(answer.body, problem.to_string());
}

#[tokio::test]
async fn an_unknown_language_is_english() {
    for (language, sentence) in [
        ("tr", "Kaynak bulunamadı"),
        ("en", "Resource not found"),
        ("TR", "Resource not found"),
        ("de", "Resource not found"),
        ("", "Resource not found"),
    ] {
        let ask = Ask::new("GET", "/nowhere").header("x-language", language);
        ask.send(&router())
            .await
            .fails(404, "RESOURCE_NOT_FOUND", &[sentence]);
    }
}

#[tokio::test]
async fn an_answer_that_is_marked_leaves_as_it_is() {
    let answer = Ask::new("GET", "/as-is").send(&router()).await;
    assert_eq!((answer.status, &answer.body[..]), (418, &b"tea"[..]));
    assert!(answer.header("x-error-code").is_none());
}

/// A server on a socket of its own. Time is paused in these tests: it moves on when nothing else can, so
/// limits of half a minute take no time.
struct Server {
    address: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let ended = tokio::spawn(serve(listener, router(), shutdown, DEADLINE));
        Self {
            address,
            stop,
            ended,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn say(&self, request: impl AsRef<[u8]>) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(request.as_ref()).await.unwrap();
        stream
    }
}

/// What comes until the server closes.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// One answer, by its length.
async fn one(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    loop {
        text.push(stream.read_u8().await.unwrap());
        if text.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8(text).unwrap();
    let length: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap()
        .parse()
        .unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    head + &String::from_utf8(body).unwrap()
}

#[track_caller]
fn is_enveloped(answer: &str, status: u16, code: &str) {
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status} ")),
        "{answer}"
    );
    assert!(
        answer.contains(&format!("x-error-code: {code}\r\n")),
        "{answer}"
    );
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    let start = format!("{{\"isSuccess\":false,\"statusCode\":{status},\"data\":null,");
    assert!(body.starts_with(&start), "{answer}");
}

const FINE: &str = "GET /fine HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn headers_that_come_too_slowly_end_the_connection() {
    let server = Server::start().await;
    let began = Instant::now();
    let mut stream = server.say("GET /fine HTTP/1.1\r\nhost: x\r\n").await;
    // A byte now and then does not help.
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        stream.write_all(b"x-slow: x\r\n").await.unwrap();
    }
    assert_eq!(rest(stream).await, "");
    let took = began.elapsed();
    assert!(
        took >= HEADER_TIME && took < HEADER_TIME + Duration::from_secs(1),
        "{took:?}"
    );
    let began = Instant::now();
    assert_eq!(rest(server.connect().await).await, "", "not a byte came");
    assert!(began.elapsed() < HEADER_TIME + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_too_slowly_is_answered_408() {
    let server = Server::start().await;
    let stream = server
        .say("POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n12345")
        .await;
    is_enveloped(&rest(stream).await, 408, "REQUEST_TIMEOUT");
}

#[tokio::test(start_paused = true)]
async fn who_sends_a_whole_body_that_is_refused_reads_why() {
    let server = Server::start().await;
    let length = 8 * 1024 * 1024;
    let head = format!("POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    let mut stream = server.say(head).await;
    // More than any buffer between the two holds, so that unread bytes would reset the connection.
    stream.write_all(&vec![b'x'; length]).await.unwrap();
    is_enveloped(&one(&mut stream).await, 413, "BODY_TOO_LARGE");
    // All was read, so the connection can go on.
    stream.write_all(FINE.as_bytes()).await.unwrap();
    assert!(one(&mut stream).await.ends_with("\r\n\r\nfine"));
}

#[tokio::test(start_paused = true)]
async fn who_goes_on_sending_for_ever_is_not_listened_to_for_ever() {
    let server = Server::start().await;
    let head = "POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n";
    let mut stream = server.say(head).await;
    stream.write_all(&[b'x'; 2000]).await.unwrap();
    let began = Instant::now();
    is_enveloped(&rest(stream).await, 413, "BODY_TOO_LARGE");
    assert!(began.elapsed() < LINGER_TIME + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_connection_serves_many_requests_and_ends_when_it_is_idle() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    for _ in 0..3 {
        stream.write_all(FINE.as_bytes()).await.unwrap();
        assert!(one(&mut stream).await.ends_with("\r\n\r\nfine"));
        stream
            .write_all(b"POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc")
            .await
            .unwrap();
        assert!(one(&mut stream).await.ends_with("\r\n\r\nabc"));
        stream
            .write_all(b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        is_enveloped(&one(&mut stream).await, 404, "RESOURCE_NOT_FOUND");
    }
    let began = Instant::now();
    assert_eq!(rest(stream).await, "");
    assert!(began.elapsed() <= HEADER_TIME + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_sent_at_once_are_answered_in_their_order() {
    let server = Server::start().await;
    let requests = format!(
        "{FINE}POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabcGET /nowhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    );
    let answers = rest(server.say(requests).await).await;
    let statuses: Vec<_> = answers
        .split("HTTP/1.1 ")
        .skip(1)
        .map(|answer| &answer[..3])
        .collect();
    assert_eq!(statuses, ["200", "200", "404"], "{answers}");
}

#[tokio::test(start_paused = true)]
async fn headers_over_the_limits_are_answered_431_in_the_envelope() {
    let server = Server::start().await;
    let fields = |n| "x-field: x\r\n".repeat(n);
    let large = format!("x-large: {}\r\n", "x".repeat(40 * 1024));
    for headers in [fields(150), large] {
        let request =
            format!("GET /fine HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        let answer = rest(server.say(request).await).await;
        is_enveloped(&answer, 431, "HEADERS_TOO_LARGE");
    }
    // What is far over them is still told the status.
    let request = format!("GET /fine HTTP/1.1\r\nhost: x\r\n{}\r\n", fields(1000));
    let answer = rest(server.say(request).await).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_head_request_has_the_headers_and_no_body() {
    let server = Server::start().await;
    for path in ["/fine", "/nowhere"] {
        let request = format!("HEAD {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = rest(server.say(request).await).await;
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
        assert!(answer.contains("x-request-id: "), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_lets_the_request_under_way_finish_and_takes_no_more() {
    let server = Server::start().await;
    let slow = server.say("GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let idle = server.connect().await;
    // Until the slow request has begun.
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.stop.send(()).unwrap();
    assert_eq!(
        rest(idle).await,
        "",
        "who asks for nothing is not waited for"
    );
    assert!(TcpStream::connect(server.address).await.is_err());
    let answer = rest(slow).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    server.ended.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_not_finished_at_the_deadline_is_dropped() {
    let server = Server::start().await;
    let stuck = server
        .say("POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n")
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    server.stop.send(()).unwrap();
    server.ended.await.unwrap().unwrap();
    assert_eq!(began.elapsed(), DEADLINE);
    assert_eq!(rest(stuck).await, "");
}
