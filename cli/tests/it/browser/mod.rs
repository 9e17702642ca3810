//! Chromium without a screen, for tests of the console. There must be one: a test that cannot see fails.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chromiumoxide::Page;
use chromiumoxide::cdp::browser_protocol::emulation::{MediaFeature, SetDeviceMetricsOverrideParams};
use chromiumoxide::cdp::browser_protocol::input::{DispatchKeyEventParams, DispatchKeyEventType};
use chromiumoxide::cdp::browser_protocol::log::{EventEntryAdded, LogEntryLevel};
use chromiumoxide::cdp::browser_protocol::network::EventRequestWillBeSent;
use chromiumoxide::cdp::browser_protocol::page::CaptureScreenshotFormat;
use chromiumoxide::cdp::js_protocol::runtime::{
    ConsoleApiCalledType, EvaluateParams, EventConsoleApiCalled, EventExceptionThrown,
};
use chromiumoxide::page::ScreenshotParams;
use futures_util::StreamExt as _;
use serde_json::Value;
use tempfile::TempDir;

const AXE: &str = include_str!("axe.min.js");

/// What a page has asked for, or said.
type Lines = Arc<Mutex<Vec<String>>>;

/// How long a page may take to show something.
const PATIENCE: Duration = Duration::from_mins(1);

/// What the page is drawn for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Light,
    Dark,
    Narrow,
}

impl Look {
    pub(crate) const ALL: [Self; 3] = [Self::Light, Self::Dark, Self::Narrow];

    fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
            Self::Narrow => "narrow",
        }
    }
}

/// What Chromium is called by distributions.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// A browser with nothing in it.
pub(crate) struct Browser {
    page: Page,
    _process: chromiumoxide::Browser,
    /// What was asked of whom, and what went wrong.
    asked: Lines,
    wrong: Lines,
    process: Child,
    _profile: TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn spawn(profile: &TempDir) -> Child {
    for name in NAMES {
        let mut command = Command::new(name);
        command
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .args([
                "--disable-dev-shm-usage",
                "--remote-debugging-port=0",
                "--lang=en",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        // The suite is also run at another time. A browser that believes it breaks in many ways.
        for (name, _) in std::env::vars() {
            if name == "LD_PRELOAD" || name.contains("FAKE") {
                command.env_remove(name);
            }
        }
        if let Ok(process) = command.spawn() {
            return process;
        }
    }
    panic!("there is no Chromium, and the console is tested in a real browser: apt-get install chromium")
}

impl Browser {
    pub(crate) async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut process = spawn(&profile);
        let mut lines = BufReader::new(process.stderr.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let url = lines.find_map(|line| line.strip_prefix("DevTools listening on ").map(str::to_owned));
        let url = url.unwrap();
        // It must not stand still because nobody reads what it says.
        std::thread::spawn(move || lines.for_each(drop));
        let (browser, mut handler) = chromiumoxide::Browser::connect(url).await.unwrap();
        tokio::spawn(async move { while handler.next().await.is_some() {} });
        let page = browser.new_page("about:blank").await.unwrap();
        page.enable_log().await.unwrap();
        page.enable_runtime().await.unwrap();
        let (asked, wrong) = (Lines::default(), Lines::default());
        let mut requests = page.event_listener::<EventRequestWillBeSent>().await.unwrap();
        let mut entries = page.event_listener::<EventEntryAdded>().await.unwrap();
        let mut consoles = page.event_listener::<EventConsoleApiCalled>().await.unwrap();
        let mut exceptions = page.event_listener::<EventExceptionThrown>().await.unwrap();
        let (kept_asked, kept_wrong) = (asked.clone(), wrong.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    Some(request) = requests.next() => kept_asked.lock().unwrap().push(request.request.url.clone()),
                    Some(event) = entries.next() => {
                        if matches!(event.entry.level, LogEntryLevel::Error | LogEntryLevel::Warning) {
                            kept_wrong.lock().unwrap().push(event.entry.text.clone());
                        }
                    }
                    Some(event) = consoles.next() => {
                        if matches!(event.r#type, ConsoleApiCalledType::Error | ConsoleApiCalledType::Warning) {
                            kept_wrong.lock().unwrap().push(format!("{:?}", event.args));
                        }
                    }
                    Some(event) = exceptions.next() => {
                        kept_wrong.lock().unwrap().push(format!("{:?}", event.exception_details));
                    }
                    else => break,
                }
            }
        });
        Self {
            page,
            _process: browser,
            asked,
            wrong,
            process,
            _profile: profile,
        }
    }

    pub(crate) async fn open(&self, url: &str) {
        // A machine that is busy may take longer than the client waits.
        if self.page.goto(url).await.is_err() {
            self.page.goto(url).await.unwrap();
        }
    }

    pub(crate) async fn address(&self) -> String {
        self.js("return location.href").await.as_str().unwrap().to_owned()
    }

    /// The text of the page as it is shown.
    pub(crate) async fn text(&self) -> String {
        self.js("return document.body ? document.body.innerText : ''")
            .await
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub(crate) async fn js(&self, script: &str) -> Value {
        self.evaluate(&format!("(() => {{ {script} }})()")).await
    }

    /// A page that is just being left has nothing to say; the next one has.
    async fn evaluate(&self, expression: &str) -> Value {
        let begin = Instant::now();
        loop {
            let parameters = EvaluateParams::builder()
                .expression(expression)
                .await_promise(true)
                .return_by_value(true);
            match self.page.evaluate(parameters.build().unwrap()).await {
                Ok(result) => return result.value().cloned().unwrap_or_default(),
                Err(error) if begin.elapsed() > PATIENCE => panic!("{expression:.200}: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn find(&self, selector: &str) -> chromiumoxide::Element {
        let begin = Instant::now();
        loop {
            match self.page.find_element(selector).await {
                Ok(found) => return found,
                Err(error) if begin.elapsed() > PATIENCE => panic!("there is no {selector}: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Clicks what this selector finds.
    pub(crate) async fn click(&self, selector: &str) {
        let begin = Instant::now();
        let watch = format!(
            "window.missed = true;
            document.addEventListener('click', event => {{
                if (event.target.closest({selector:?})) window.missed = false;
            }}, true)"
        );
        loop {
            self.js(&watch).await;
            let element = self.find(selector).await;
            let clicked = element.click().await;
            // What is drawn anew, or moves, at this moment is missed.
            if clicked.is_ok() && self.js("return window.missed !== true").await == true {
                return;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "{selector} cannot be clicked: {clicked:?}"
            );
        }
    }

    pub(crate) async fn write(&self, selector: &str, text: &str) {
        let field = self.find(selector).await;
        self.js(&format!("document.querySelector({selector:?}).value = ''"))
            .await;
        field.click().await.unwrap();
        field.type_str(text).await.unwrap();
    }

    pub(crate) async fn press(&self, key: &str) {
        self.find("body").await.press_key(key).await.unwrap();
    }

    /// Presses Enter with Control held.
    pub(crate) async fn press_control_enter(&self) {
        for kind in [DispatchKeyEventType::RawKeyDown, DispatchKeyEventType::KeyUp] {
            let event = DispatchKeyEventParams::builder()
                .r#type(kind)
                .key("Enter")
                .code("Enter")
                .modifiers(2);
            self.page.execute(event.build().unwrap()).await.unwrap();
        }
    }

    /// Waits until the page shows all of this, without being loaded again.
    pub(crate) async fn shows(&self, wanted: &[&str]) {
        let begin = Instant::now();
        loop {
            let text = self.text().await;
            let missing: Vec<_> = wanted.iter().filter(|wanted| !text.contains(**wanted)).collect();
            if missing.is_empty() {
                return;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "{} does not show {missing:?}:\n{text}",
                self.address().await
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until this holds on the page.
    pub(crate) async fn until(&self, script: &str) {
        let begin = Instant::now();
        while self.js(script).await != Value::Bool(true) {
            assert!(
                begin.elapsed() < PATIENCE,
                "{script} at {}:\n{}",
                self.address().await,
                self.text().await
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// As somebody with such a screen sees it.
    pub(crate) async fn look(&self, look: Look) {
        let (width, height, scheme) = match look {
            Look::Light => (1280, 860, "light"),
            Look::Dark => (1280, 860, "dark"),
            Look::Narrow => (390, 844, "light"),
        };
        let size = SetDeviceMetricsOverrideParams::new(width, height, 1.0, false);
        self.page.execute(size).await.unwrap();
        let scheme = MediaFeature::new("prefers-color-scheme", scheme);
        self.page.emulate_media_features(vec![scheme]).await.unwrap();
    }

    /// Keeps what the page looks like in `target/console-screenshots`.
    pub(crate) async fn picture(&self, name: &str, look: Look) {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/console-screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{name}-{}.png", look.name()));
        let parameters = ScreenshotParams::builder()
            .format(CaptureScreenshotFormat::Png)
            .build();
        let png = self.page.screenshot(parameters).await.unwrap();
        std::fs::write(file, png).unwrap();
    }

    /// What a person who cannot see, or use a mouse, would stumble over: the serious and the critical.
    pub(crate) async fn hurdles(&self) -> Vec<String> {
        self.evaluate(&format!("{AXE}; true")).await;
        let found = self
            .evaluate("axe.run(document, {resultTypes: ['violations']}).then(found => found.violations)")
            .await;
        let found = found.as_array().unwrap().clone();
        let serious = found
            .iter()
            .filter(|one| matches!(one["impact"].as_str(), Some("serious" | "critical")));
        serious
            .map(|one| {
                format!(
                    "{}: {} {}",
                    one["id"],
                    one["help"],
                    one.pointer("/nodes/0/html").unwrap()
                )
            })
            .collect()
    }

    /// What the pages complained of, and what they asked of anybody but `url`, so far.
    pub(crate) fn complaints(&self, url: &str) -> Vec<String> {
        let mut complaints = self.wrong.lock().unwrap().clone();
        let asked = self.asked.lock().unwrap();
        assert!(asked.iter().any(|asked| asked.starts_with(url)), "{asked:?}");
        let elsewhere = asked
            .iter()
            .filter(|asked| !asked.starts_with(url) && *asked != "about:blank");
        complaints.extend(elsewhere.map(|asked| format!("asked {asked}")));
        complaints
    }
}
