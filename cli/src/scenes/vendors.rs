//! A model that hands over to people by a tool call, and a vendor with a key of its own, which opens nobody else's
//! conversation.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde_json::{Value, json};
use shared::clock::Clock;
use testkit::external_system::{Behaviour, ExternalSystem, Options, Reply};
use testkit::fault::{Answer, Fault};

use super::talk::{Expected, HUMAN, Talk};
use crate::secrets;
use crate::stack::{LocalStack, StackOptions};

/// Who talks to the model, and who to the vendor: external ids in Braze.
const TO_MODEL: &str = "bo";
const TO_VENDOR: &str = "cleo";

const MODEL_KEY: &str = "key-of-the-model";
/// base64 of `secret-of-the-vendor-00000000000`
const VENDOR_SECRET: &str = "whsec_c2VjcmV0LW9mLXRoZS12ZW5kb3ItMDAwMDAwMDAwMDA=";
const VENDOR_TOKEN: &str = "token-of-the-vendor";

const DISCLOSURE: &str = "You are talking to a machine.";

/// Plays it on a stack of its own, prints it unless `quiet`, and says how many things were off.
///
/// # Errors
///
/// When a stack cannot be started or asked.
pub(crate) async fn play(clock: &Clock, client: &reqwest::Client, quiet: bool) -> anyhow::Result<usize> {
    let options = |secret: &str| Options::new(secret).clock(clock).drained(false);
    let model = ExternalSystem::start(options(VENDOR_SECRET).openai_api_key(MODEL_KEY)).await?;
    let vendor = ExternalSystem::start(options(VENDOR_SECRET).bearer_token(VENDOR_TOKEN)).await?;
    let routes = json!([
        {"name": "assistant", "keywords": ["assistant"], "match": "contains", "kind": "openai",
         "external_system_url": model.openai_url()},
        {"name": "parcels", "keywords": ["parcel"], "match": "contains", "external_system_url": vendor.url()},
    ]);
    let settings = [
        ("RELAY_ROUTES", routes.to_string()),
        ("OPENAI_MODEL", "local-model".to_owned()),
        ("OPENAI_SYSTEM_PROMPT", "You answer for a shop.".to_owned()),
        ("OPENAI_TOOLS", "hand_off,set_attributes".to_owned()),
        ("OPENAI_ATTRIBUTES", "shoe_size".to_owned()),
        ("DISCLOSURE_TEXT", DISCLOSURE.to_owned()),
    ];
    let mut secrets = secrets::development();
    let relay = secrets.get_mut("relay").and_then(Value::as_object_mut);
    relay.context("there is no relay secret")?.insert(
        "routes".to_owned(),
        json!({
            "assistant": {"openai_api_key": MODEL_KEY},
            "parcels": {"signing_secret": VENDOR_SECRET, "external_system_token": VENDOR_TOKEN},
        }),
    );
    let settings = settings.map(|(name, value)| (name.to_owned(), value));
    let stack = LocalStack::start(StackOptions {
        settings: BTreeMap::from(settings),
        secrets: Some(secrets),
        ..StackOptions::with_clock(clock)
    })
    .await?;
    let played = async {
        let mut to_model = Talk::with(&stack, client, quiet, (TO_MODEL, &model))?;
        tool_calls(&mut to_model).await?;
        let mut to_vendor = Talk::with(&stack, client, quiet, (TO_VENDOR, &vendor))?;
        own_key(&mut to_vendor).await?;
        foreign_conversation(&mut to_vendor).await?;
        for refusal in [model.take_refusals(), vendor.take_refusals()].concat() {
            to_vendor.is_off(refusal);
        }
        to_vendor.refusals();
        Ok(to_model.off + to_vendor.off)
    };
    let played = played.await;
    stack.stop().await;
    played
}

async fn tool_calls(talk: &mut Talk<'_>) -> anyhow::Result<()> {
    talk.title("a model notes an attribute and hands over to people, by tool calls");
    let call = |name: &str, arguments: Value| {
        json!({"id": format!("call_{name}"), "type": "function",
            "function": {"name": name, "arguments": arguments.to_string()}})
    };
    let completion = json!({"choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
        "role": "assistant",
        "content": "Noted. A colleague takes over.",
        "tool_calls": [
            call("set_attributes", json!({"attributes": {"shoe_size": 42}})),
            call("hand_off", json!({"reason": "wants a person"})),
        ],
    }}]});
    talk.system
        .script(Behaviour::Fault(Fault::Answer(Answer::json(200, &completion))));
    let text = "Dear assistant, I have shoe size 42 and want a person.";
    talk.says(text).await?;
    talk.settles(&Expected {
        handed: &[&[text]],
        sent: &[DISCLOSURE, "Noted. A colleague takes over."],
        attributes: &[("shoe_size", json!(42)), (HUMAN, json!(true))],
        ..Expected::default()
    })
    .await?;
    // People answer now: the model is not asked.
    talk.says("Are you there?").await?;
    talk.settles(&Expected {
        attributes: &[(HUMAN, json!(true))],
        ..Expected::default()
    })
    .await
}

async fn own_key(talk: &mut Talk<'_>) -> anyhow::Result<()> {
    talk.title("a vendor is asked with a key of its own");
    talk.says("Where is my parcel?").await?;
    talk.settles(&Expected {
        handed: &[&["Where is my parcel?"]],
        mode: "bot",
        sent: &[DISCLOSURE, "You said: Where is my parcel?"],
        ..Expected::default()
    })
    .await
}

async fn foreign_conversation(talk: &mut Talk<'_>) -> anyhow::Result<()> {
    talk.title("the vendor writes into the other one's conversation, and may not");
    let foreign = format!("user:{TO_MODEL}");
    talk.calls_back_into(&foreign, "vendor-1", &Reply::text("Buy more parcels!"))
        .await?;
    talk.settles(&Expected::default()).await?;
    talk.called_back(&[403]).await;
    Ok(())
}
