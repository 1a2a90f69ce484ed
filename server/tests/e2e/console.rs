//! The page for auditors, in a real browser against the real binary. Pictures of it are kept in the folder
//! `console` of cargo's folder for tests.

use gateway::Gateway;
use ledger::test_servers::nats::Nats;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use thirtyfour::Key;

use crate::browser::{Browser, DESKTOP, PHONE};
use crate::service::{Answer, DEMO_USER, Folder, Service, command, send};

mod access;
mod badge;
mod gateway;

const USER: &str = "[data-version=\"1\"]";
/// The badge above a history that was verified.
const GOOD: &str = "#badge[data-state=good]";

/// What development mode registers, with what a test changes.
async fn change(service: &Service, profile: Value) -> Answer {
    let token = service.token(DEMO_USER, "user");
    let path = "/api/v1/users/profile";
    let answer = service.send_json(Method::PUT, path, &token, &profile).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer
}

async fn named(service: &Service, name: &str) -> Answer {
    change(
        service,
        json!({"name": name, "surname": "Doe", "interests": ["music", "chess"]}),
    )
    .await
}

async fn upload(service: &Service) {
    let photo = include_bytes!("../../src/dev/demo-photo.jpg").to_vec();
    let part = reqwest::multipart::Part::bytes(photo).file_name("me.jpg");
    let request = service
        .request(Method::PATCH, "/api/v1/users/profile/photo")
        .bearer_auth(service.token(DEMO_USER, "user"))
        .multipart(reqwest::multipart::Form::new().part("file", part));
    assert_eq!(send(request).await.status, StatusCode::OK);
}

async fn register(service: &Service, username: &str, profile: Value) {
    let token = service.token("sign-up", "service");
    let mut body = profile;
    body["username"] = json!(username);
    let made = service
        .send_json(Method::POST, "/api/v1/users", &token, &body)
        .await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
}

impl Browser {
    /// Finds the user of development mode as a person does.
    async fn find_john(&self) {
        self.fill("#search", "john").await;
        self.says("#found", "@johndoe123").await;
        self.click("#found button").await;
        self.says("#who", "johndoe123").await;
    }

    /// Nothing failed, nothing was forbidden, nothing was asked of anybody else.
    async fn was_quiet(&self, url: &str) {
        assert!(!self.has_alert().await);
        let complaints = self.complaints().await;
        assert_eq!(complaints, [""; 0], "what the browser complained about");
        let asked = self.asked_for().await;
        assert!(!asked.is_empty());
        for address in asked {
            let is_own = address.starts_with(&format!("{url}/"));
            assert!(is_own || address.starts_with("data:"), "{address}");
        }
    }
}

#[tokio::test]
async fn an_auditor_finds_a_user_reads_its_history_goes_back_in_time_and_sees_what_happens_now() {
    let folder = Folder::new();
    let service = folder.start();
    assert!(
        service
            .banner
            .contains(&format!("Console: {}/console", service.url))
    );
    upload(&service).await;
    named(&service, "Johnny").await;
    let browser = Browser::open("console", &format!("{}/console", service.url), "en-GB").await;
    // The token is there, and with it what happened last.
    browser.says("#live-status", "Connected").await;
    browser.says("#tail", "Photo changed").await;
    browser.says("#health-status", "Ready").await;
    browser.says("#health-facts", "up to date").await;
    browser.shot("opened").await;

    browser.find_john().await;
    browser.says("[data-version=\"3\"] .change", "Name").await;
    browser.says("[data-version=\"3\"] del", "John").await;
    browser.says("[data-version=\"3\"] ins", "Johnny").await;
    browser.says("[data-version=\"3\"] .facts", DEMO_USER).await;
    let loaded = "const i = document.querySelector('[data-version=\"2\"] img'); return !!i && i.complete && i.naturalWidth > 0";
    browser.until(loaded).await;
    browser
        .until(&format!("return !!document.querySelector({})", json!(GOOD)))
        .await;
    browser.says("#badge-text", "version 3").await;
    browser.click("#badge summary").await;
    browser.says("#badge-key", "SHA-256").await;
    browser.shot("desktop-light").await;

    // The slider goes back, and forth.
    browser.says("#document", "Johnny").await;
    browser
        .run("document.querySelector('#slider').focus()")
        .await;
    browser.press(Key::Home).await;
    browser.says("#slider-at", "1 / 3").await;
    browser.until("return document.querySelector('#document').textContent.includes('John') && !document.querySelector('#document').textContent.includes('Johnny')").await;
    browser.until("return location.hash.endsWith('@1')").await;
    browser
        .until("return document.querySelector('[data-version=\"1\"]').ariaCurrent === 'true'")
        .await;
    browser.press(Key::End).await;
    browser.says("#document", "Johnny").await;

    // A time leads to its version.
    let recorded = browser
        .run("return document.querySelector('[data-version=\"2\"] time').dateTime")
        .await;
    let local = format!(
        "const d = new Date({recorded}); d.setMinutes(d.getMinutes() - d.getTimezoneOffset()); \
         const i = document.querySelector('#time'); i.value = d.toISOString().slice(0, 23)"
    );
    browser.run(&local).await;
    browser.click("#time-form button").await;
    browser.says("#slider-at", "2 / 3").await;
    browser.click("[data-version=\"3\"] h3").await;
    browser.says("#slider-at", "3 / 3").await;

    // What happens now is shown as it happens, and verified.
    named(&service, "Jack").await;
    browser.says("#tail li.new", "Profile updated").await;
    browser.says("[data-version=\"4\"] ins", "Jack").await;
    browser.says("#document", "Jack").await;
    browser.says("#badge-text", "version 4").await;
    browser
        .until(&format!("return !!document.querySelector({})", json!(GOOD)))
        .await;
    browser.until("return document.querySelector('[data-version=\"4\"] .mark').className.includes('proven')").await;

    // The same page opens again at the same place.
    browser.run("location.hash += '@2'").await;
    browser.says("#slider-at", "2 / 4").await;
    browser.reload().await;
    browser.says("#slider-at", "2 / 4").await;
    browser.was_quiet(&service.url).await;
}

#[tokio::test]
async fn the_page_is_readable_in_both_languages_in_the_dark_and_on_a_phone() {
    let folder = Folder::new();
    let service = folder.start();
    upload(&service).await;
    let interests = ["music", "street-photography", "travel", "cooking"];
    let bio = "Uzun bir cümle, ".repeat(12);
    change(&service, json!({"name": "Gülşah", "surname": "Yılmaz-Karaosmanoğlu", "bio": bio, "interests": interests})).await;
    let browser = Browser::open("console", &format!("{}/console", service.url), "tr-TR").await;
    browser.be_in("Europe/Istanbul").await;
    browser.reload().await;
    // The browser's own language is spoken.
    browser.says("#find-title", "Kullanıcı bul").await;
    browser.fill("#search", "GÜLŞAH").await;
    browser.says("#found", "@johndoe123").await;
    browser.click("#found button").await;
    browser.says(GOOD, "doğrulandı").await;
    browser.says("#moment-status", "itibarıyla").await;
    assert_eq!(
        browser.run("return document.documentElement.lang").await,
        "tr"
    );
    browser.shot("desktop-turkish").await;

    // Times are those of the viewer; UTC is told on hover.
    let time = "const t = document.querySelector('.facts time'); return [t.title.slice(11, 13), t.textContent.match(/\\d\\d(?=:)/)[0]].map(Number)";
    let hours: Vec<u64> = serde_json::from_value(browser.run(time).await).unwrap();
    assert_eq!((hours[0] + 3) % 24, hours[1]);
    assert_eq!(browser.text("#zone").await, "Europe/Istanbul saatiyle");

    browser.choose("#language", "en").await;
    browser.says("#find-title", "Find a user").await;
    browser.says(GOOD, "Verified").await;
    let background = "return getComputedStyle(document.body).backgroundColor";
    let light = browser.run(background).await;
    browser.prefer_dark().await;
    let dark = browser.run(background).await;
    assert_ne!(light, dark, "it follows the system");
    browser.shot("desktop-dark").await;
    browser.choose("#theme", "light").await;
    assert_eq!(browser.run(background).await, light);
    browser.choose("#theme", "dark").await;
    assert_eq!(browser.run(background).await, dark);
    // What was chosen is remembered.
    browser.reload().await;
    browser.says("#find-title", "Find a user").await;
    assert_eq!(browser.run(background).await, dark);
    browser.says(GOOD, "Verified").await;

    for (name, size) in [
        ("phone", PHONE),
        ("tablet", (820, 1100)),
        ("desktop", DESKTOP),
    ] {
        browser.size(size).await;
        let wider =
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(browser.run(wider).await, 0, "{name} scrolls sideways");
        browser.shot(&format!("{name}-dark")).await;
    }
    browser.size(PHONE).await;
    browser.choose("#theme", "light").await;
    browser.choose("#language", "tr").await;
    browser
        .run("document.querySelector('#history').scrollIntoView()")
        .await;
    browser.shot("phone-turkish").await;
    browser.was_quiet(&service.url).await;

    // Neither language lacks a text of the other.
    let lacking = "const {texts} = await import('/console/texts.js'); const [en, tr] = [texts.en, texts.tr].map(Object.keys); \
         const places = (text) => (text.match(/\\{\\w+\\}/g) ?? []).sort().join(); \
         return en.concat(tr).filter((key) => !texts.en[key] || !texts.tr[key] || places(texts.en[key]) !== places(texts.tr[key]))";
    assert_eq!(browser.run(lacking).await, json!([]));
}

#[tokio::test]
async fn names_that_are_programs_are_shown_as_text_and_nothing_is_executed() {
    let folder = Folder::new();
    let service = folder.start();
    let hostile = [
        "<img src=x onerror=alert(1)>",
        "<script>alert(1)</script>",
        "\"><svg/onload=alert(1)>",
        "javascript:alert(1)//'`${alert(1)}",
        "{{alert(1)}} </bdi></li></ol><h1>",
    ];
    for (n, name) in hostile.iter().enumerate() {
        let profile = json!({"name": "Mallory", "surname": name, "bio": format!("{name}\n{}", "W".repeat(400))});
        register(&service, &format!("mallory{n}"), profile).await;
    }
    // Texts that today's rules refuse can be in old histories.
    let worse = "\u{1b}[2J\u{202e}evil\u{2066}\u{200b}\u{0}\u{7}\u{e0041}";
    let gateway = Gateway::to(&service.url).await;
    gateway.alter(move |path, _, text| match path {
        "/api/v1/log/key" | "/api/v1/log/checkpoint" => text,
        _ => text.replace(
            "Mallory",
            serde_json::to_string(worse).unwrap().trim_matches('"'),
        ),
    });
    let browser = Browser::open("console", &format!("{}/console", gateway.url), "en").await;
    browser.run("globalThis.violations = []; document.addEventListener('securitypolicyviolation', (v) => violations.push(v.violatedDirective))").await;
    for (n, name) in hostile.iter().enumerate() {
        browser.fill("#search", &format!("mallory{n}")).await;
        browser.says("#found", &format!("@mallory{n}")).await;
        browser.says("#found", name).await;
        browser.click("#found button").await;
        browser.says("#who", name).await;
        browser.says("#timeline", name).await;
        browser.says("#document", name).await;
        browser.click(&format!("{USER} summary")).await;
        browser.says("#timeline pre", "specversion").await;
        // Characters that cannot be seen are named, and turn nothing around.
        for hidden in [
            "U+001B", "U+202E", "U+2066", "U+200B", "U+0000", "U+0007", "U+E0041",
        ] {
            browser.says("#who .hidden-character", "U+").await;
            browser.says("#document", hidden).await;
        }
        let left =
            "return /[\\u0000\\u0007\\u001b\\u202e\\u2066\\u200b]/.test(document.body.textContent)";
        assert_eq!(browser.run(left).await, false);
    }
    for (name, size) in [("hostile", DESKTOP), ("hostile-phone", PHONE)] {
        browser.size(size).await;
        let wider =
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(browser.run(wider).await, 0, "{name} scrolls sideways");
        browser.shot(name).await;
    }
    let made = "return document.querySelectorAll('main img:not([src*=\"/media/\"]), main script, main svg, main h1').length";
    assert_eq!(browser.run(made).await, 0);
    assert_eq!(browser.run("return violations").await, json!([]));
    browser.was_quiet(&gateway.url).await;

    // The policy would stop what the page itself does not do.
    let markup = "try { document.body.innerHTML = '<img src=x onerror=alert(1)>' } catch (error) { return error.name }";
    assert_eq!(browser.run(markup).await, "TypeError");
    // An address that is no user's opens nothing.
    browser
        .run("location.hash = '<img src=x onerror=alert(1)>'")
        .await;
    browser.says("#nobody", "Find a user").await;
    assert!(!browser.has_alert().await);
}

#[tokio::test]
async fn everything_can_be_done_with_the_keyboard() {
    let folder = Folder::new();
    let service = folder.start();
    named(&service, "Johnny").await;
    named(&service, "Jack").await;
    let browser = Browser::open("console", &format!("{}/console", service.url), "en").await;
    browser.keys("/").await;
    browser.keys("jack").await;
    browser.says("#found", "@johndoe123").await;
    browser.press(Key::Down).await;
    browser.press(Key::Enter).await;
    // The keyboard is where the history is.
    let at = |version: u32| {
        format!(
            "return document.activeElement.dataset.version === '{version}' && document.querySelector('#slider').value === '{version}'"
        )
    };
    browser.until(&at(3)).await;
    browser.press(Key::Down).await;
    browser.until(&at(2)).await;
    browser.press(Key::End).await;
    browser.until(&at(1)).await;
    browser.says("#moment-status", "As of").await;
    browser.press(Key::Up).await;
    browser.until(&at(2)).await;
    let ring = "return getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(
        browser.run(ring).await,
        "solid",
        "it shows where the keyboard is"
    );
    browser.shot("keyboard").await;
    browser.press(Key::Enter).await;
    browser
        .says("[data-version=\"2\"] pre", "\"prevhash\"")
        .await;
    browser.press(Key::Home).await;
    browser.until(&at(3)).await;
    for place in [
        "#slider",
        "#time",
        "#time-form button",
        "#pause",
        "#tail button",
    ] {
        browser.tab_to(place).await;
    }
    browser.press(Key::Enter).await;
    browser.until(&at(3)).await;
    browser
        .run("document.activeElement.blur(); scrollTo(0, 0)")
        .await;
    for place in [
        "#language",
        "#theme",
        "#access-button",
        "#search",
        "#badge summary",
    ] {
        browser.tab_to(place).await;
    }
    browser.press(Key::Space).await;
    browser.says("#badge-steps", "Chain of versions").await;
    browser.tab_to("#badge-again").await;
    // Every control says what it is.
    let nameless = "return [...document.querySelectorAll('button, input, select, summary')].filter((one) => one.checkVisibility()) \
         .filter((one) => !one.labels?.length && !one.textContent.trim() && !one.ariaLabel).map((one) => one.outerHTML)";
    assert_eq!(browser.run(nameless).await, json!([]));
    browser.was_quiet(&service.url).await;
}

#[tokio::test]
async fn a_live_tail_that_was_cut_or_paused_goes_on_without_a_gap_or_a_repetition() {
    let folder = Folder::new();
    let service = folder.start();
    let gateway = Gateway::to(&service.url).await;
    let browser = Browser::open("console", &format!("{}/console", gateway.url), "en").await;
    browser
        .says("#live-status", "Connected, at position 1.")
        .await;
    browser.find_john().await;
    named(&service, "A").await;
    browser.says("#live-status", "at position 2.").await;
    gateway.close_streams();
    browser
        .says("#live-status", "Disconnected at position 2")
        .await;
    browser.shot("disconnected").await;
    for name in ["B", "C", "D"] {
        named(&service, name).await;
    }
    gateway.open_streams();
    browser
        .says("#live-status", "Connected, at position 5.")
        .await;
    browser.click("#pause").await;
    browser.says("#live-status", "Paused at position 5").await;
    named(&service, "E").await;
    browser.click("#pause").await;
    browser
        .says("#live-status", "Connected, at position 6.")
        .await;
    let positions = "return [...document.querySelectorAll('#tail .spread small')].map((one) => one.textContent)";
    assert_eq!(
        browser.run(positions).await,
        json!(["6", "5", "4", "3", "2", "1"])
    );
    browser.says("[data-version=\"6\"] ins", "E").await;
    let versions =
        "return [...document.querySelectorAll('#timeline > li')].map((one) => one.dataset.version)";
    assert_eq!(
        browser.run(versions).await,
        json!(["6", "5", "4", "3", "2", "1"])
    );
}

#[tokio::test]
async fn a_long_history_is_read_page_by_page_and_any_version_of_it_can_be_opened() {
    let folder = Folder::new();
    let service = folder.start();
    for n in 2..=120 {
        named(&service, &format!("John{n}")).await;
    }
    let url = format!("{}/console#{DEMO_USER}", service.url);
    let browser = Browser::open("console", &url, "en").await;
    let count = "return document.querySelectorAll('#timeline > li').length";
    browser.says(GOOD, "Verified up to version 120").await;
    assert_eq!(browser.run(count).await, 50);
    browser.click("#older").await;
    browser.says("[data-version=\"21\"] ins", "John21").await;
    assert_eq!(browser.run(count).await, 100);
    browser.click("#older").await;
    browser.says("[data-version=\"2\"] ins", "John2").await;
    assert_eq!(browser.run(count).await, 120);
    browser
        .until("return document.querySelector('#older').hidden")
        .await;
    let in_order = "return [...document.querySelectorAll('#timeline > li')].every((one, at) => Number(one.dataset.version) === 120 - at)";
    assert_eq!(browser.run(in_order).await, true);
    browser.says(GOOD, "Verified up to version 120").await;
    let marked = "return document.querySelectorAll('#timeline .proven').length";
    assert_eq!(browser.run(marked).await, 120);

    browser.run("location.hash += '@7'").await;
    browser.reload().await;
    browser.says("#slider-at", "7 / 120").await;
    browser.says("#document", "John7").await;
    browser.says("[data-version=\"7\"] ins", "John7").await;
}

#[tokio::test]
async fn health_says_where_relay_and_documents_are_and_what_is_missing() {
    let mut nats = Nats::start();
    let folder = Folder::new();
    let mut serving = command(&folder.data_dir());
    serving.env("NATS_URL", nats.url());
    let service = folder.start_with(serving);
    let gateway = Gateway::to(&service.url).await;
    let browser = Browser::open("console", &format!("{}/console", gateway.url), "en").await;
    let published = "#health-facts > div:nth-child(3)";
    browser.says(published, "position 1").await;
    browser.says(published, "up to date").await;
    nats.kill();
    named(&service, "Johnny").await;
    browser
        .says("#health-status", "Ready, but not all is well")
        .await;
    browser.says(published, "1 behind").await;
    browser.says("#health-missing", "relay").await;
    browser.shot("health").await;
    nats.start_again();
    browser.says(published, "position 2").await;
    browser
        .until("return document.querySelector('#health-missing').children.length === 0")
        .await;

    let readiness = json!({
        "ready": false, "missing": ["<b>projection</b>"], "head": 5000, "applied": 3999, "published": 4000, "parkedUsers": 2,
    });
    gateway.alter(move |at, _, text| {
        if at == "/readyz" {
            readiness.to_string()
        } else {
            text
        }
    });
    browser.says("#health-status", "Not ready").await;
    browser.says("#health-facts", "position 3,999").await;
    browser.says("#health-facts", "1,001 behind").await;
    browser.says("#health-missing", "<b>projection</b>").await;
    gateway.alter(|at, _, text| {
        if at == "/readyz" {
            "<html>".to_owned()
        } else {
            text
        }
    });
    browser.says("#health-status", "Not available here").await;
}

#[tokio::test]
async fn a_gateway_that_keeps_readiness_inside_leaves_the_rest_of_the_page_working() {
    let folder = Folder::new();
    let service = folder.start();
    let gateway = Gateway::to(&service.url).await;
    gateway.hide("/readyz");
    let browser = Browser::open(
        "console",
        &format!("{}/console#{DEMO_USER}", gateway.url),
        "en",
    )
    .await;
    browser.says("#health-status", "Not available here").await;
    browser.says(GOOD, "Verified").await;
}
