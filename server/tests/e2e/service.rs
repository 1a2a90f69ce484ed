//! A running `profile-ledger`, and a client of it.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;

/// How long anything may take before a test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// The user that development mode registers.
pub(crate) const DEMO_USER: &str = "507f1f77bcf86cd799439011";

/// The binary, without any variable of ours that the test run itself may have.
pub(crate) fn command(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_profile-ledger"));
    as_newcomer(&mut command).env("DATA_DIR", data_dir);
    command
}

/// Takes away every variable that the binary reads.
pub(crate) fn as_newcomer(command: &mut Command) -> &mut Command {
    for variable in [
        "LISTEN",
        "DATA_DIR",
        "DATABASE_URL",
        "READ_MODEL_URL",
        "NATS_URL",
        "PHOTO_STORE",
        "PUBLIC_URL",
        "API_SERVERS",
        "JWT_SECRET",
        "JWT_PUBLIC_KEY",
        "JWT_JWKS",
        "JWT_ISSUER",
        "JWT_AUDIENCE",
        "RUST_LOG",
    ] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null())
}

/// Where a test keeps the data of its services.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.0.path().join("data")
    }

    pub(crate) fn file(&self, name: &str, contents: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path
    }

    /// Everything the services of this folder have logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.0.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn log_file(&self) -> File {
        let log = self.0.path().join("log");
        File::options().create(true).append(true).open(log).unwrap()
    }

    /// Starts the whole service on a free port.
    pub(crate) fn start(&self) -> Service {
        self.start_with(command(&self.data_dir()))
    }

    /// Starts what a command says, on a free port.
    pub(crate) fn start_with(&self, mut command: Command) -> Service {
        let mut process = command
            .args(["--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(self.log_file())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut banner = String::new();
        let mut url = None;
        for line in lines.by_ref() {
            let line = line.unwrap();
            if let Some((_, rest)) = line.split_once("is running on ") {
                url = rest
                    .split_whitespace()
                    .next()
                    .map(|url| url.trim_end_matches('.').to_owned());
            }
            banner.push_str(&line);
            banner.push('\n');
            // The last line of either greeting.
            if line.contains("Ctrl-C")
                || line.contains("is running on") && !banner.contains("development mode")
            {
                break;
            }
        }
        let Some(url) = url else {
            let status = process.wait().unwrap();
            panic!(
                "the service ended with {status} before it was running:\n{}",
                self.log()
            );
        };
        Service {
            process,
            url,
            banner,
            data_dir: self.data_dir(),
            client: reqwest::Client::builder()
                .timeout(DEADLINE)
                .build()
                .unwrap(),
        }
    }
}

/// A running service; ended with the test.
pub(crate) struct Service {
    process: Child,
    pub(crate) url: String,
    pub(crate) banner: String,
    data_dir: PathBuf,
    client: reqwest::Client,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An answer that has been read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The data of a success.
    #[track_caller]
    pub(crate) fn data(&self) -> &Value {
        assert!(self.status.is_success(), "{self:?}");
        assert_eq!(self.body["isSuccess"], true, "{self:?}");
        &self.body["data"]
    }
}

impl Service {
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A token of development mode, made by the binary itself.
    pub(crate) fn token(&self, user: &str, role: &str) -> String {
        let made = command(&self.data_dir)
            .args(["token", "--user", user, "--role", role])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Answer {
        send(self.request(Method::GET, path).bearer_auth(token)).await
    }

    pub(crate) async fn send_json(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: &Value,
    ) -> Answer {
        send(self.request(method, path).bearer_auth(token).json(body)).await
    }

    /// Asks it to stop, as an operator does, and waits until it has.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.process.wait().unwrap()
    }

    /// Ends it as a power failure would.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{signal}"), &self.pid().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }
}

pub(crate) async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = response.bytes().await.unwrap();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Answer {
        status,
        headers,
        body,
    }
}
