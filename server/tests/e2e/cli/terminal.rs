//! What people read: aligned text in a file, colours on a terminal.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use events::Time;
use serde_json::Value;

use super::{Ledger, append, on_files, put, rename};
use crate::service::{DEMO_USER, Folder};

/// A text with `TIME` in place of every time.
fn without_times(text: &str) -> String {
    let word = |part: &str| {
        let word = part.trim_end_matches([' ', '"', '\n']);
        match word.parse::<Time>() {
            Ok(_) => part.replace(word, "TIME"),
            Err(_) => part.to_owned(),
        }
    };
    text.split_inclusive([' ', '"', '\n']).map(word).collect()
}

const HISTORY: &str = r#"User 507f1f77bcf86cd799439011

version 2  position 2  TIME  profile-updated
  by user 507f1f77bcf86cd799439011  platform mobile_ios  app 2.1.0  device phone-1  request request-1
  name                "John" → "Johnny"
  availabilityStatus  "available" → (none)
  gender              "male" → (none)
  birthDate           "1995-06-15" → (none)
  interests           ["music","sports","travel","cooking","reading"] → []
  expertise           "designer" → (none)
  email               "john.doe@example.com" → (none)
  bio                 "Passionate about technology and travel" → "A \"line\"\nand another"
  instagram           "myinstagram" → (none)
  tiktok              "mytiktok" → (none)
  x                   "mytwitterx" → (none)
  snapchat            "mysnapchat" → (none)
  facebook            "myfacebook" → (none)

version 3  position 3  TIME  username-changed
  by user 507f1f77bcf86cd799439011  platform web  request request-2
  username  "johndoe123" → "johnny"
"#;

const STATE: &str = r#"User 507f1f77bcf86cd799439011  version 3  position 3  TIME
  _id                     "507f1f77bcf86cd799439011"
  name                    "Johnny"
  surname                 "Doe"
  username                "johnny"
  countryCode             "90"
  phoneNumber             "5551234567"
  interests               []
  privacyPolicyAccepted   true
  privacyPolicyVersion    "1.2.0"
  termsOfUseAccepted      true
  termsOfUseVersion       "1.1.0"
  consentFormAccepted     true
  consentFormVersion      "1.0.0"
  isRegistrationComplete  true
  roles                   ["user"]
  lastLogin               "TIME"
  createdAt               "TIME"
  updatedAt               "TIME"
  bio                     "A \"line\"\nand another"
"#;

const DIFF: &str = r#"User 507f1f77bcf86cd799439011
  from  version 2  position 2  TIME
  to    version 3  position 3  TIME

  username   "johndoe123" → "johnny"
  updatedAt  "TIME" → "TIME"
"#;

#[tokio::test]
async fn people_read_aligned_text_without_colours_in_a_file() {
    let folder = Folder::new();
    let ledger = on_files(&folder);
    let service = folder.start();
    put(&service, "Johnny", "A \"line\"\nand another").await;
    rename(&service, "johnny").await;
    assert_eq!(
        without_times(&ledger.prints(0, &["history", "johnny", "--after=1"])),
        HISTORY
    );
    let url = ["--public-url", "https://example.org"];
    let state = [&["state", DEMO_USER], &url[..]].concat();
    assert_eq!(without_times(&ledger.prints(0, &state)), STATE);
    let diff = [&["diff", DEMO_USER, "--from=2", "--to=3"], &url[..]].concat();
    assert_eq!(without_times(&ledger.prints(1, &diff)), DIFF);
    let same = ledger.prints(0, &["diff", DEMO_USER, "--from=3", "--to=3"]);
    assert!(same.ends_with("\n\n  no difference\n"), "{same}");
}

/// What a command prints to a terminal.
fn on_a_terminal(ledger: &Ledger<'_>, arguments: &[&str], no_color: &str) -> String {
    let mut script = ledger.command(&[]);
    let mut line = env!("CARGO_BIN_EXE_profile-ledger").to_owned();
    for argument in arguments {
        write!(line, " '{argument}'").unwrap();
    }
    let mut on_terminal = Command::new("script");
    on_terminal.args(["-qec", &line, "/dev/null"]);
    for (name, value) in script.get_envs() {
        match value {
            Some(value) => on_terminal.env(name, value),
            None => on_terminal.env_remove(name),
        };
    }
    on_terminal.env("TERM", "xterm").env("NO_COLOR", no_color);
    script.env_clear();
    let output = on_terminal.stdin(Stdio::null()).output();
    String::from_utf8(output.expect("script is part of bsdutils").stdout).unwrap()
}

#[tokio::test]
async fn a_terminal_gets_colours_and_never_what_a_user_wrote_to_command_it() {
    let folder = Folder::new();
    let ledger = on_files(&folder);
    let service = folder.start();
    let hostile = "\u{9b}31m\u{202e}gnp.exe\u{200b}";
    assert!(service.stop().success());
    append(&folder, hostile).await;
    for arguments in [
        &["history", "hostile"][..],
        &["state", "hostile"],
        &["history", "hostile", "--json"],
        &["state", "hostile", "--json"],
    ] {
        let printed = on_a_terminal(&ledger, arguments, "");
        for c in ['\u{9b}', '\u{202e}', '\u{200b}'] {
            assert!(!printed.contains(c), "{printed:?}");
        }
        assert!(printed.contains("gnp.exe"), "{printed:?}");
        let is_coloured = printed.contains("\x1b[1m");
        assert_eq!(is_coloured, !arguments.contains(&"--json"), "{printed:?}");
        let plain = on_a_terminal(&ledger, arguments, "1");
        assert!(!plain.contains('\x1b'), "{plain:?}");
        // In JSON it is the same text.
        if arguments.contains(&"--json") {
            let value: Value = serde_json::from_str(printed.trim()).unwrap();
            let bio = value["event"]["data"]["bio"].as_str();
            assert_eq!(bio.or(value["document"]["bio"].as_str()).unwrap(), hostile);
        }
    }
    let refused = on_a_terminal(&ledger, &["export"], "");
    assert!(refused.contains("not written to a terminal"), "{refused:?}");
}
