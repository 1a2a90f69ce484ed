//! Requests that strangers send to find out what breaks, for every route alike. Each is a good request
//! with one thing wrong, so that what is refused is refused for that.

use axum::Router;
use jiff::ToSpan as _;

use super::{Answer, Ask, now, token_until};
use crate::caller::Role;

/// The most bytes of an answer to a hostile request.
const MAX_ANSWER: usize = 32 * 1024;

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only who has a good token.
    Token,
    /// Everybody, but a bad token is refused.
    Anybody,
    /// Everybody; headers are not looked at.
    Open,
}

/// What a route reads from a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// No body.
    Nothing,
    /// JSON, up to so many bytes.
    Json(usize),
    /// One part of a form, up to so many bytes.
    Multipart(usize),
}

/// A route, and how it is used well.
#[derive(Debug, Clone)]
pub struct Target {
    /// The path as the router knows it, with its `{places}`.
    pub pattern: &'static str,
    /// The method.
    pub method: &'static str,
    /// A good request, with its token.
    pub good: Ask,
    /// Who may use it.
    pub access: Access,
    /// What it reads.
    pub reads: Reads,
    /// Whether it changes something: it then knows `If-Match` and `Idempotency-Key`.
    pub is_command: bool,
}

/// One hostile request and the statuses that may answer it.
struct Case {
    what: String,
    ask: Ask,
    statuses: Vec<u16>,
}

/// Sends every hostile request to a route and then the good one, which proves that only the hostile thing
/// was refused and that the service lives.
pub async fn withstands(router: &Router, target: &Target) {
    for case in cases(target) {
        let what = format!("{} {}: {}", target.method, target.pattern, case.what);
        let answer = case.ask.clone().send(router).await;
        is_enveloped(&answer, &what);
        assert!(case.statuses.contains(&answer.status), "{what}: {answer:?}");
        if answer.status == 405 {
            let allow = answer.header("allow").expect("405 says what is allowed");
            let is_listed = allow.split(',').any(|method| method == target.method);
            assert!(is_listed, "{what}: {allow}");
        }
        let problem = case
            .ask
            .without("accept")
            .header("accept", "application/problem+json");
        let problem = problem.send(router).await;
        assert_eq!(problem.status, answer.status, "{what}");
        is_problem(&problem, &what);
    }
    // Some answers have no end.
    let answer = target.good.clone().open(router).await;
    assert!(answer.status().is_success(), "{answer:?}");
}

/// The methods of a route, as it tells them itself. `HEAD` comes with `GET` and is left out.
pub async fn methods(router: &Router, path: &str) -> Vec<String> {
    let answer = Ask::new("OPTIONS", path).send(router).await;
    assert_eq!(answer.status, 405, "{path}");
    let allow = answer.header("allow").expect("405 says what is allowed");
    let methods = allow.split(',').filter(|method| *method != "HEAD");
    methods.map(str::to_owned).collect()
}

fn is_enveloped(answer: &Answer, what: &str) {
    let json = answer.json();
    let members: Vec<_> = json
        .as_object()
        .unwrap_or_else(|| panic!("{what}: {answer:?}"))
        .keys()
        .map(String::as_str)
        .collect();
    let wanted = ["isSuccess", "statusCode", "data", "errors", "timestamp"];
    assert_eq!(members, wanted, "{what}");
    assert_eq!(json["isSuccess"], false, "{what}");
    assert_eq!(json["statusCode"], answer.status, "{what}");
    assert!(json["data"].is_null(), "{what}");
    let errors = json["errors"].as_array().expect("a list");
    let are_sentences = errors
        .iter()
        .all(|error| error.as_str().is_some_and(|error| !error.is_empty()));
    assert!(are_sentences && !errors.is_empty(), "{what}: {errors:?}");
    has_headers(answer, what);
}

fn is_problem(answer: &Answer, what: &str) {
    let json = answer.json();
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json"),
        "{what}"
    );
    assert_eq!(json["status"], answer.status, "{what}");
    assert_eq!(
        json["code"].as_str(),
        answer.header("x-error-code"),
        "{what}"
    );
    has_headers(answer, what);
}

fn has_headers(answer: &Answer, what: &str) {
    let code = answer.header("x-error-code").unwrap_or_default();
    let is_code = !code.is_empty() && code.bytes().all(|b| b == b'_' || b.is_ascii_uppercase());
    assert!(is_code, "{what}: {code}");
    assert!(answer.header("x-request-id").is_some(), "{what}");
    assert_eq!(
        answer.header("x-content-type-options"),
        Some("nosniff"),
        "{what}"
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
    assert!(answer.body.len() <= MAX_ANSWER, "{what}: too long");
}

fn cases(target: &Target) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |what: &str, ask: Ask, statuses: &[u16]| {
        cases.push(Case {
            what: what.chars().take(100).collect(),
            ask,
            statuses: statuses.to_vec(),
        });
    };
    tokens(target, &mut case);
    methods_and_paths(target, &mut case);
    headers(target, &mut case);
    bodies(target, &mut case);
    cases
}

fn tokens(target: &Target, case: &mut impl FnMut(&str, Ask, &[u16])) {
    if target.access == Access::Open {
        return;
    }
    let without = target.good.clone().without("authorization");
    if target.access == Access::Token {
        case("no token", without.clone(), &[401]);
    }
    let all = [Role::User, Role::Service, Role::Auditor, Role::Admin];
    let subject = "507f1f77bcf86cd799439011";
    let good = token_until(subject, &all, now() + 1.hour());
    let [_, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else {
        panic!("three parts")
    };
    // {"alg":"none","typ":"JWT"}
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    let other_service = crate::caller::mint_hs256(
        b"the secret of some other service",
        &crate::caller::Grant {
            subject,
            roles: &all,
            issuer: None,
            audience: None,
            issued: now(),
            expires: now() + 1.hour(),
        },
    );
    for (what, value) in [
        ("a garbage token", "Bearer garbage".to_owned()),
        ("an empty token", "Bearer ".to_owned()),
        ("no scheme", good.clone()),
        ("another scheme", "Basic am9objpzZWNyZXQ=".to_owned()),
        (
            "an expired token",
            format!("Bearer {}", token_until(subject, &all, now() - 1.hour())),
        ),
        ("an unsigned token", format!("Bearer {none}.{claims}.")),
        (
            "a token whose algorithm was taken away",
            format!("Bearer {none}.{claims}.{signature}"),
        ),
        (
            "a token of another service",
            format!("Bearer {other_service}"),
        ),
        (
            "a token of 20 KiB",
            format!("Bearer {}", "x".repeat(20 * 1024)),
        ),
    ] {
        case(what, without.clone().header("authorization", value), &[401]);
    }
    let twice = without.clone().bearer(&good).bearer(&good);
    case("two tokens", twice, &[401]);
    let binary = without.header("authorization", b"Bearer \xff\xfe");
    case("a token of bytes", binary, &[401]);
}

fn methods_and_paths(target: &Target, case: &mut impl FnMut(&str, Ask, &[u16])) {
    let good = &target.good;
    // Other methods of the same path are other routes of the table.
    for method in ["OPTIONS", "TRACE", "DELETE", "BREW"] {
        case(method, good.clone().method(method), &[405]);
    }
    let path = good.uri.split('?').next().unwrap_or_default();
    for (what, uri) in [
        ("a slash more", format!("{path}/")),
        ("a very long path", format!("{path}{}", "/x".repeat(20_000))),
        ("a doubled slash", format!("/{path}")),
        ("dots", format!("{path}/../../../../etc/passwd")),
        ("upper case", path.to_ascii_uppercase()),
    ] {
        case(what, good.clone().uri(&uri), &[404]);
    }
    let parts: Vec<_> = target.pattern.split('/').collect();
    for place in parts
        .iter()
        .enumerate()
        .filter_map(|(place, part)| part.starts_with('{').then_some(place))
    {
        let long = "x".repeat(30_000);
        for hostile in [
            "%00",
            "%2e%2e",
            "..%2f..%2f..%2fetc%2fpasswd",
            "%2fetc%2fpasswd",
            "..%5c..%5c",
            "'%20OR%201=1--",
            "%25",
            "%E2%80%AE",
            "null",
            "-1",
            "%20",
            &long,
        ] {
            let mut parts: Vec<_> = path.split('/').collect();
            parts[place] = hostile;
            let ask = good.clone().uri(&parts.join("/"));
            case(&format!("{hostile} in the path"), ask, &[404]);
        }
        let mut parts: Vec<_> = path.split('/').collect();
        parts[place] = "%ff";
        let ask = good.clone().uri(&parts.join("/"));
        case("no UTF-8 in the path", ask, &[400]);
    }
    if target.access != Access::Open && !target.is_command {
        let long = format!("q=a{}", "&a=b".repeat(7_000));
        for query in [
            "unknown=1",
            "minPosition=-1",
            "minPosition=1e3",
            "minPosition=99999999999999999999",
            "minPosition=",
            "minPosition=1&minPosition=1",
            "minPosition=%31%",
            "minPosition=%ff",
            "%00=%00",
            "=&=&=",
            "minPosition[]=1",
            "'%20OR%201=1--",
            &long,
        ] {
            let ask = good.clone().uri(&format!("{path}?{query}"));
            case(&format!("the query {query}"), ask, &[400]);
        }
    }
}

fn headers(target: &Target, case: &mut impl FnMut(&str, Ask, &[u16])) {
    let good = &target.good;
    let many = (0..101).fold(good.clone(), |ask, n| ask.header(&format!("x-{n}"), "x"));
    case("101 headers", many, &[431]);
    let same = (0..101).fold(good.clone(), |ask, _| ask.header("x-same", "x"));
    case("101 headers of one name", same, &[431]);
    let long = good.clone().header("x-long", "x".repeat(33 * 1024));
    case("a header of 33 KiB", long, &[431]);
    if target.access == Access::Open {
        return;
    }
    let long = "x".repeat(129);
    for (name, value) in [
        ("x-timezone", &b"Mars/Olympus"[..]),
        ("x-timezone", b"UTC+99:99"),
        ("x-timezone", b"\xff"),
        ("x-platform", b"toaster"),
        ("x-platform", b"web, web"),
        ("x-app-version", long.as_bytes()),
        ("x-app-version", b"1.0\t2"),
        ("x-device-id", long.as_bytes()),
        ("x-device-id", b"\xc3\x28"),
    ] {
        let ask = good.clone().header(name, value);
        let what = format!("{name}: {}", String::from_utf8_lossy(value));
        case(&what, ask, &[400]);
    }
    for name in ["x-timezone", "x-platform", "x-app-version", "x-device-id"] {
        let ask = good.clone().header(name, "web").header(name, "web");
        case(&format!("{name} twice"), ask, &[400]);
    }
    if target.is_command {
        for value in [
            "1",
            "\"x\"",
            "W/\"1\"",
            "\"1\", \"2\"",
            "\"\"",
            "",
            "\"-1\"",
        ] {
            let ask = good.clone().header("if-match", value);
            case(&format!("If-Match: {value}"), ask, &[412]);
        }
        for value in ["", "a b", &"x".repeat(256)] {
            let ask = good.clone().header("idempotency-key", value);
            case(&format!("Idempotency-Key: {value}"), ask, &[400]);
        }
        let ask = good.clone().header("idempotency-key", "a");
        let ask = ask.header("idempotency-key", "b");
        case("Idempotency-Key twice", ask, &[400]);
    } else {
        for value in [&b"-1"[..], b"x", b"\xff", b"", b"99999999999999999999"] {
            let ask = good.clone().header("ledger-min-position", value);
            let what = format!("Ledger-Min-Position: {}", String::from_utf8_lossy(value));
            case(&what, ask, &[400]);
        }
        let ask = good.clone().header("ledger-min-position", "0");
        let ask = ask.header("ledger-min-position", "1");
        case("Ledger-Min-Position twice", ask, &[400]);
    }
}

fn bodies(target: &Target, case: &mut impl FnMut(&str, Ask, &[u16])) {
    let (limit, media_type) = match target.reads {
        Reads::Nothing => return,
        Reads::Json(limit) => (limit, "application/json"),
        Reads::Multipart(limit) => (limit, "multipart/form-data; boundary=x"),
    };
    let typed = |media_type: &str| {
        let ask = target.good.clone().without("content-type");
        ask.header("content-type", media_type)
    };
    let plain = target.good.clone().without("content-type");
    case("no Content-Type", plain, &[415]);
    for other in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/jsonx",
        "",
    ] {
        case(&format!("Content-Type: {other}"), typed(other), &[415]);
    }
    let mut over = match target.reads {
        Reads::Multipart(_) => {
            b"--x\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n".to_vec()
        }
        _ => Vec::new(),
    };
    over.resize(limit + 1, b' ');
    let length = over.len().to_string();
    let with_length = typed(media_type).header("content-length", length);
    case(
        "a body over the limit",
        with_length.body(over.clone()),
        &[413],
    );
    case(
        "a body over the limit in pieces",
        typed(media_type).chunked(over.clone()),
        &[413],
    );
    // What is before the first boundary of a form is passed over, so this one has none.
    case("an endless body", typed(media_type).endless(), &[413]);
    over.truncate(100);
    case(
        "a body that breaks off",
        typed(media_type).broken(over),
        &[400],
    );

    let many: Vec<_> = (0..1_000).map(|n| format!("\"{n}\":0")).collect();
    let many = format!("{{{}}}", many.join(","));
    let deep = "{\"a\":".repeat(2_500);
    let lists = format!("{{\"a\":{}", "[".repeat(10_000));
    for body in [
        &b""[..],
        b"{",
        b"null",
        b"[]",
        b"\"text\"",
        b"{} {}",
        b"{\"a\":1,}",
        b"{'a':1}",
        b"{\"a\":NaN}",
        b"{\"a\":1e999}",
        b"{\"a\":\"\\ud800\"}",
        b"{\"a\":\"\xff\"}",
        b"\xef\xbb\xbf{}",
        b"\0\0\0\0",
        b"{\"a\":\"\0\"}",
        b"{\"a\":1,\"a\":2}",
        b"{\"__proto__\":{\"admin\":true}}",
        b"--x--\r\n",
        b"--x\r\n\r\n",
        b"--x\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nno end",
        b"--x\r\nContent-Disposition: form-data; name=\"\0\"\r\n\r\n\r\n--x--\r\n",
        many.as_bytes(),
        deep.as_bytes(),
        lists.as_bytes(),
    ] {
        let what = format!("the body {}", String::from_utf8_lossy(body));
        case(&what, typed(media_type).body(body.to_vec()), &[400]);
    }
}
