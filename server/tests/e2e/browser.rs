//! A headless Chromium with a profile of its own, and what a person does with it.

use std::io::{BufRead as _, BufReader};
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use thirtyfour::common::capabilities::chromium::ChromiumLikeCapabilities as _;
use thirtyfour::common::capabilities::desiredcapabilities::CapabilitiesHelper as _;
use thirtyfour::{By, DesiredCapabilities, Key, WebDriver};

use crate::service::DEADLINE;

/// Sizes of windows in pixels.
pub(crate) const DESKTOP: (u32, u32) = (1440, 1000);
pub(crate) const PHONE: (u32, u32) = (360, 780);

pub(crate) struct Browser {
    driver: WebDriver,
    /// The folder of its pictures, in cargo's folder for tests.
    pictures: &'static str,
    _chromedriver: Ended,
    _profile: tempfile::TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser ends with its driver, as their pipe does.
        let _ = self.driver.clone().leak();
    }
}

/// A name of this machine that browsers take for another one.
pub(crate) const ELSEWHERE: &str = "ledger.test";

/// A process that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Browser {
    /// Opens an address in a browser of a language. `pictures` is a folder for its pictures, in cargo's for tests.
    pub(crate) async fn open(pictures: &'static str, url: &str, language: &str) -> Self {
        let mut chromedriver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("chromedriver, of Debian's package chromium-driver");
        let mut lines = BufReader::new(chromedriver.stdout.take().unwrap()).lines();
        let chromedriver = Ended(chromedriver);
        let port = lines.find_map(|line| {
            let line = line.unwrap();
            let (_, port) = line.split_once("successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        // It goes on writing; nobody reads it, but the pipe must stay.
        std::thread::spawn(move || lines.for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        let mut wanted = DesiredCapabilities::chrome();
        for argument in [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--remote-debugging-pipe",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            // Whatever asks for another machine is seen, and does not get there.
            &format!(
                "--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
            ),
            &format!("--accept-lang={language}"),
            &format!("--user-data-dir={}", profile.path().display()),
        ] {
            wanted.add_arg(argument).unwrap();
        }
        let logs = json!({"browser": "ALL", "performance": "ALL"});
        wanted.set("goog:loggingPrefs", logs).unwrap();
        let driver = format!("http://127.0.0.1:{}", port.unwrap());
        let driver = WebDriver::new(driver, wanted).await.unwrap();
        let browser = Self {
            driver,
            pictures,
            _chromedriver: chromedriver,
            _profile: profile,
        };
        browser.size(DESKTOP).await;
        browser.driver.goto(url).await.unwrap();
        browser
            .until("return document.documentElement.dataset.ready === ''")
            .await;
        browser
    }

    /// The value of a script.
    pub(crate) async fn run(&self, script: &str) -> Value {
        let value = self.driver.execute(script, Vec::new()).await;
        value.unwrap().json().clone()
    }

    /// Waits until a script says so.
    #[track_caller]
    pub(crate) fn until(&self, script: &str) -> impl Future<Output = ()> {
        let caller = Location::caller();
        self.wait(script.to_owned(), format!("{caller}: {script}"))
    }

    /// Waits until an element is shown and says something.
    #[track_caller]
    pub(crate) fn says(&self, css: &str, text: &str) -> impl Future<Output = ()> {
        let what = format!("{}: {css} does not say {text}", Location::caller());
        let (css, text) = (json!(css), json!(text));
        let script = format!(
            "const e = document.querySelector({css}); return !!e && e.checkVisibility() && e.textContent.includes({text})"
        );
        self.wait(script, what)
    }

    async fn wait(&self, script: String, what: String) {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while self.run(&script).await != true {
            if tokio::time::Instant::now() > deadline {
                self.shot("failed").await;
                panic!("{what}:\n{}", self.text("body").await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The text of an element.
    pub(crate) async fn text(&self, css: &str) -> String {
        let script = format!("return document.querySelector({}).innerText", json!(css));
        self.run(&script).await.as_str().unwrap().to_owned()
    }

    /// Clicks on an element.
    pub(crate) async fn click(&self, css: &str) {
        let element = self.driver.find(By::Css(css)).await.unwrap();
        element.scroll_into_view().await.unwrap();
        element.click().await.unwrap();
    }

    /// Types into an element, in place of what was there.
    pub(crate) async fn fill(&self, css: &str, text: &str) {
        let element = self.driver.find(By::Css(css)).await.unwrap();
        element.clear().await.unwrap();
        element.send_keys(text).await.unwrap();
    }

    /// Chooses an option by its value.
    pub(crate) async fn choose(&self, css: &str, value: &str) {
        self.click(&format!("{css} option[value=\"{value}\"]"))
            .await;
    }

    /// Presses a key, wherever the keyboard is.
    pub(crate) async fn press(&self, key: Key) {
        self.keys(&char::from(key).to_string()).await;
    }

    /// Types, wherever the keyboard is.
    pub(crate) async fn keys(&self, text: &str) {
        let typed = self.driver.action_chain().send_keys(text);
        typed.perform().await.unwrap();
    }

    /// Presses Tab until an element has the keyboard.
    pub(crate) async fn tab_to(&self, css: &str) {
        let script = format!("return document.activeElement.matches({})", json!(css));
        for _ in 0..60 {
            if self.run(&script).await == true {
                return;
            }
            self.press(Key::Tab).await;
        }
        panic!("Tab does not lead to {css}");
    }

    /// Makes the window so large, also smaller than windows can be.
    pub(crate) async fn size(&self, (width, height): (u32, u32)) {
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.tell("Emulation.setDeviceMetricsOverride", metrics)
            .await;
    }

    /// What the system prefers, as it tells the page.
    pub(crate) async fn prefer_dark(&self) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]});
        self.tell("Emulation.setEmulatedMedia", features).await;
    }

    /// Moves to a time zone.
    pub(crate) async fn be_in(&self, zone: &str) {
        let zone = json!({"timezoneId": zone});
        self.tell("Emulation.setTimezoneOverride", zone).await;
    }

    async fn tell(&self, command: &str, parameters: Value) {
        self.driver
            .cdp()
            .send_raw(command, parameters)
            .await
            .unwrap();
    }

    pub(crate) async fn reload(&self) {
        self.driver.refresh().await.unwrap();
        self.until("return document.documentElement.dataset.ready === ''")
            .await;
    }

    /// Whether a message box is open.
    pub(crate) async fn has_alert(&self) -> bool {
        self.driver.get_alert_text().await.is_ok()
    }

    /// Waits for a question of the page; its text.
    pub(crate) async fn question(&self) -> String {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            if let Ok(text) = self.driver.get_alert_text().await {
                return text;
            }
            assert!(tokio::time::Instant::now() < deadline, "nothing is asked");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Answers the question that is open.
    pub(crate) async fn answer(&self, yes: bool) {
        let answered = if yes {
            self.driver.accept_alert().await
        } else {
            self.driver.dismiss_alert().await
        };
        answered.unwrap();
    }

    /// Gives a file to an element that asks for one.
    pub(crate) async fn attach(&self, css: &str, file: &Path) {
        let element = self.driver.find(By::Css(css)).await.unwrap();
        element.send_keys(file.to_str().unwrap()).await.unwrap();
    }

    /// Keeps a picture of the page.
    pub(crate) async fn shot(&self, name: &str) {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(self.pictures);
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{name}.png"));
        self.driver.screenshot(&file).await.unwrap();
    }

    /// What the browser complained about since it was asked last: scripts that failed, what the policy of
    /// the page forbade, what was not there.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.driver.browser_log().await.unwrap();
        log.into_iter().map(|entry| entry.message).collect()
    }

    /// Every address that the page asked for.
    pub(crate) async fn asked_for(&self) -> Vec<String> {
        let log = self.driver.get_log("performance").await.unwrap();
        let messages = log.into_iter().map(|entry| entry.message);
        let messages = messages.map(|text| serde_json::from_str::<Value>(&text).unwrap());
        messages
            .filter(|message| message["message"]["method"] == "Network.requestWillBeSent")
            .map(|mut message| message["message"]["params"].take())
            // A new browser shows a page of its own first.
            .filter(|asked| {
                !asked["documentURL"]
                    .as_str()
                    .unwrap()
                    .starts_with("chrome://")
            })
            .map(|asked| asked["request"]["url"].as_str().unwrap().to_owned())
            .collect()
    }
}
