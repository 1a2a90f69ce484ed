//! A private nats-server with JetStream.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// The time limit for a start or stop of the server.
const DEADLINE: Duration = Duration::from_mins(1);

/// Starts and stops the server as commanded on its input, and reports on its output. At the end of
/// its input, which also comes when the test process is killed, it kills the server and removes the
/// folder.
const SUPERVISOR: &str = r#"
folder=$(mktemp -d) || exit 1
echo "folder $folder"
server=
while read -r order port; do
    case $order in
        start)
            "$0" -a 127.0.0.1 -p "$port" -js -sd "$folder" "$@" 2>&1 </dev/null &
            server=$! ;;
        *)
            kill -"$order" "$server"
            wait "$server" 2>/dev/null
            echo stopped ;;
    esac
done
[ -z "$server" ] || kill -KILL "$server" 2>/dev/null
wait 2>/dev/null
rm -rf "$folder"
"#;

/// A private nats-server. When dropped, it is killed and its folder removed.
#[derive(Debug)]
pub struct Nats {
    supervisor: Child,
    /// `None` only during the drop.
    orders: Option<ChildStdin>,
    lines: Receiver<String>,
    folder: PathBuf,
    port: u16,
}

impl Nats {
    /// Starts a server on a free port.
    ///
    /// # Panics
    ///
    /// When nats-server is not installed or does not start: a test that needs it fails.
    #[track_caller]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server on a free port with additional arguments.
    ///
    /// # Panics
    ///
    /// Like [`Nats::start`].
    #[track_caller]
    pub fn start_with(arguments: &[&str]) -> Self {
        let mut supervisor = Command::new("/bin/sh")
            .args(["-c", SUPERVISOR])
            .arg(program())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A Ctrl-C is for the tests; the supervisor notices their end and cleans up.
            .process_group(0)
            .spawn()
            .expect("a shell");
        let orders = supervisor.stdin.take();
        let output = supervisor.stdout.take().expect("it is piped");
        let (sender, lines) = channel();
        // Reads also when nobody waits for a line, so that the server can always write.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut nats = Self {
            supervisor,
            orders,
            lines,
            folder: PathBuf::new(),
            port: 0,
        };
        nats.folder = nats.wait_for("folder ").into();
        nats.launch("-1");
        nats
    }

    /// Starts the server again, on the same port and with the current content of its folder.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.launch(&self.port.to_string());
    }

    #[track_caller]
    fn launch(&mut self, port: &str) {
        self.order(&format!("start {port}"));
        let address = self.wait_for("Listening for client connections on 127.0.0.1:");
        self.port = address.parse().expect("a port");
        self.wait_for("Server is ready");
    }

    /// Stops the server as an operator does, and waits until it has ended.
    #[track_caller]
    pub fn stop(&mut self) {
        self.order("TERM");
        self.wait_for("stopped");
    }

    /// Kills the server (`kill -9`), and waits until it has ended.
    #[track_caller]
    pub fn kill(&mut self) {
        self.order("KILL");
        self.wait_for("stopped");
    }

    /// The URL for clients.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The folder of JetStream's files. Change it only while the server is stopped.
    pub fn store_dir(&self) -> &Path {
        &self.folder
    }

    /// Replaces the files of a stopped server with an earlier copy of them.
    #[track_caller]
    pub fn roll_back_to(&self, copy: &Path) {
        std::fs::remove_dir_all(&self.folder).expect("the folder can be removed");
        copy_folder(copy, &self.folder);
    }

    /// Copies the files of a stopped server.
    #[track_caller]
    pub fn copy_to(&self, copy: &Path) {
        copy_folder(&self.folder, copy);
    }

    #[track_caller]
    fn order(&mut self, order: &str) {
        let orders = self.orders.as_mut().expect("it is not dropped");
        writeln!(orders, "{order}").expect("the supervisor of nats-server is there");
    }

    /// The rest of the next line that contains a text.
    #[track_caller]
    fn wait_for(&self, text: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => {
                    if let Some((_, rest)) = line.split_once(text) {
                        return rest.to_owned();
                    }
                    seen.push(line);
                }
                Err(error) => {
                    let why = match error {
                        RecvTimeoutError::Timeout => "did not answer in time",
                        RecvTimeoutError::Disconnected => "ended",
                    };
                    panic!(
                        "nats-server {why}: no line with {text:?} after\n{}",
                        seen.join("\n")
                    );
                }
            }
        }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.supervisor.wait();
    }
}

#[track_caller]
fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|folder| folder.join("nats-server"))
        .find(|program| program.is_file())
        .expect(
            "nats-server is not installed; this test needs it: install the package `nats-server`",
        )
}

#[track_caller]
fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder can be made");
    for entry in std::fs::read_dir(from).expect("the folder is there") {
        let entry = entry.expect("the folder can be read");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy_folder(&from, &to);
        } else {
            std::fs::copy(&from, &to).expect("a file can be copied");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(nats: &Nats) -> bool {
        std::net::TcpStream::connect(("127.0.0.1", nats.port)).is_ok()
    }

    #[test]
    fn a_server_starts_stops_and_leaves_nothing() {
        let mut nats = Nats::start();
        let (url, folder) = (nats.url(), nats.store_dir().to_owned());
        assert!(answers(&nats));
        nats.stop();
        assert!(!answers(&nats));
        nats.start_again();
        assert!(answers(&nats));
        nats.kill();
        assert!(!answers(&nats));
        nats.start_again();
        assert_eq!(nats.url(), url);
        assert_eq!(nats.store_dir(), folder);
        drop(nats);
        assert!(!folder.exists());
    }

    /// When a test process is killed, the supervisor only sees the end of its input.
    #[test]
    fn a_server_ends_with_the_process_that_started_it() {
        let mut nats = Nats::start();
        let folder = nats.store_dir().to_owned();
        drop(nats.orders.take());
        let status = nats.supervisor.wait().unwrap();
        assert!(status.success(), "{status}");
        assert!(!answers(&nats));
        assert!(!folder.exists());
    }
}
