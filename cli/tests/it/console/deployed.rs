//! The console of a deployed stack: it only reads, and hides people. The local stack's tables stand for a deployed one's.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use assert_cmd::cargo::cargo_bin;
use bridge::payloads::{self, Sender};
use bridge::stack::LocalStack;
use serde_json::json;
use testkit::braze::{Endpoint, faults};
use testkit::time::start;

use super::{options, post};
use crate::browser::{Browser, Look};

const PSID: &str = "5275811702764837";

/// `bridge console` over the tables of a local stack.
struct Console {
    process: Child,
    address: String,
}

impl Console {
    fn start(stack: &LocalStack, arguments: &[&str]) -> Self {
        let aws = stack.aws().address().to_string();
        let mut process = Command::new(cargo_bin!("bridge"))
            .args([
                "--now",
                &start().to_string(),
                "console",
                "--port",
                "0",
                "--aws-addr",
                &aws,
            ])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let line = BufReader::new(process.stdout.take().unwrap())
            .lines()
            .next()
            .unwrap()
            .unwrap();
        let address = line.strip_prefix("console ").unwrap().to_owned();
        Self { process, address }
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.address.split('?').next().unwrap())
    }

    fn url(&self) -> &str {
        self.address.split("/console").next().unwrap()
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A stack in which something waits, was given up and was not understood.
async fn stack() -> LocalStack {
    let stack = LocalStack::start(options()).await.unwrap();
    let braze = stack.fakes().braze.as_ref().unwrap();
    braze.script(
        Endpoint::TriggerSend,
        faults::bad_request("The campaign is archived"),
    );
    let body = json!({"user_id": "user-of-the-brand", "first_name": "Ana", "message": "a private question", "dispatch_id": "d-1"});
    post(&stack, Sender::Whatsapp, body.to_string()).await;
    for case in ["messenger/message_text", "messenger/unknown_kind", "fbe/install"] {
        let (sender, _) = case.split_once('/').unwrap();
        let sender = Sender::ALL
            .into_iter()
            .find(|known| known.name() == sender)
            .unwrap();
        let recorded = payloads::recorded(sender);
        let payload = recorded.iter().find(|payload| payload.name == case).unwrap();
        post(&stack, sender, payload.body.clone()).await;
    }
    stack
}

async fn look_up(browser: &Browser, wanted: &str, view: &str) {
    browser.write("#search", wanted).await;
    browser.press("Enter").await;
    browser
        .until(&format!(
            "return location.pathname.startsWith('/console/{view}/')"
        ))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployed_stack_is_read_by_key_and_index_and_its_people_are_hidden() {
    let stack = stack().await;
    let console = Console::start(&stack, &[]);
    let browser = Browser::start().await;
    browser.look(Look::Light).await;
    browser.open(&console.address).await;
    browser
        .shows(&["read only", "people are hidden", "Reply through Braze"])
        .await;
    let mut seen = Vec::new();
    let mut look = async |browser: &Browser| {
        seen.push(
            browser
                .js("return document.documentElement.outerHTML + location.href")
                .await
                .to_string(),
        );
    };
    for path in [
        "",
        "/people",
        "/conversations",
        "/businesses",
        "/waiting",
        "/waiting?show=dead",
        "/waiting?show=kept",
    ] {
        browser.open(&console.at(path)).await;
        look(&browser).await;
    }
    browser.open(&console.at("/waiting?show=dead")).await;
    browser.click("td a").await;
    browser
        .shows(&["The payload is hidden", "bridge dead redrive"])
        .await;
    look(&browser).await;
    look_up(&browser, &format!("1134597043258171 {PSID}"), "people").await;
    browser.shows(&["What the bridge knows", "not linked"]).await;
    browser.picture("deployed-person", Look::Light).await;
    look(&browser).await;
    look_up(&browser, "user-of-the-brand", "conversations").await;
    browser.shows(&["(18 characters)"]).await;
    look(&browser).await;
    // A business is no person.
    look_up(&browser, "shop-42-unique-id", "businesses").await;
    browser.shows(&["fb_shop"]).await;
    for page in &seen {
        for personal in [PSID, "user-of-the-brand", "a private question", "Ana"] {
            assert!(!page.contains(personal), "{personal} in {page}");
        }
    }
    let status = browser
        .js("return fetch('/console/try').then(answer => answer.status)")
        .await;
    assert_eq!(status, 404, "nothing can be posted");
    assert_eq!(
        browser
            .complaints(console.url())
            .iter()
            .filter(|one| !one.contains("404"))
            .count(),
        0
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_of_a_deployed_stack_scans_nothing_and_writes_nothing() {
    let stack = stack().await;
    bridge::inspect::drained(&stack, testkit::time::PATIENCE)
        .await
        .unwrap();
    let console = Console::start(&stack, &["--reveal"]);
    let browser = Browser::start().await;
    browser.open(&console.address).await;
    stack.aws().reset_calls();
    for path in [
        "",
        "/people",
        "/conversations",
        "/businesses",
        "/waiting",
        "/waiting?show=kept",
    ] {
        browser.open(&console.at(path)).await;
    }
    look_up(&browser, "user-of-the-brand", "conversations").await;
    browser.shows(&["a private question"]).await;
    let address = browser.address().await;
    assert!(!address.contains("brand"), "{address}");
    let calls = format!("{:?}", stack.aws().dynamodb_calls());
    assert!(calls.contains("Query") && !calls.contains("Scan"), "{calls}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_plays_into_the_console() {
    let mut process = Command::new(cargo_bin!("bridge"))
        .args([
            "demo",
            "--console",
            "--quiet",
            "messenger/message_text",
            "whatsapp/full",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let line = lines.next().unwrap();
    let browser = Browser::start().await;
    browser.look(Look::Light).await;
    browser.open(line.strip_prefix("console ").unwrap()).await;
    browser.shows(&["hello, world!", "where is my order?"]).await;
    assert!(lines.any(|line| line.contains("stays open until Ctrl-C")));
    process.kill().unwrap();
    process.wait().unwrap();
}
