//! The console: who gets in, and what they see in a real browser.

mod access;
mod deployed;
mod views;

use bridge::payloads::{self, Sender};
use bridge::secrets::development_credential;
use bridge::stack::{LocalStack, StackOptions};
use shared::clock::Clock;
use testkit::time::{PATIENCE, start};

/// A stack with its console.
pub(crate) async fn stack() -> LocalStack {
    LocalStack::start(options()).await.unwrap()
}

pub(crate) fn options() -> StackOptions {
    StackOptions {
        console: true,
        ..StackOptions::with_clock(&Clock::starting_at(start()))
    }
}

/// Posts a body as its sender does.
pub(crate) async fn post(stack: &LocalStack, sender: Sender, body: impl Into<Vec<u8>>) {
    let payload = payloads::Payload {
        sender,
        name: "own".to_owned(),
        body: body.into(),
    };
    let mut request =
        shared::clients::http::client(PATIENCE).post(format!("{}{}", stack.url(), sender.path()));
    for (name, value) in payload.headers(&development_credential(sender)) {
        request = request.header(name, value);
    }
    let answer = request.body(payload.body).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.status());
}

/// The address of a view.
pub(crate) fn at(stack: &LocalStack, path: &str) -> String {
    format!("{}/console{path}", stack.url())
}
