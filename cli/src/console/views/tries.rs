//! Try: three ways to start, any recorded case or an own body, and switches that make the stand-ins fail.

use std::sync::Arc;

use anyhow::Context as _;
use axum::Form;
use axum::extract::{Path, Query, State};
use axum::response::Redirect;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::conversations;
use crate::console::faults::{Failure as Fault, Faults};
use crate::console::flow::Party;
use crate::console::page::{Answer, Failure, Icon, Page, View, heading, icon};
use crate::console::state::{Console, Local};
use crate::fakes::recorded_page;
use crate::payloads::{self, Payload, Sender};

/// An own body, in bytes. API Gateway takes no more.
pub(crate) const LARGEST: usize = 10 << 20;

/// What of a recorded install only one business may have.
const OWN: [&str; 5] = [
    "shop-42-unique-id",
    "973766133343161",
    "1964583793745557",
    "EAAB_install_token",
    "726635365295186",
];

/// The three ways to start.
pub(crate) fn starters() -> Markup {
    html! {
        div.starters {
            @for (name, picture, title, text) in [
                ("message", Icon::Chat, "Somebody new writes", "A first message to your page on Messenger. A contact is made, and a profile in Braze."),
                ("install", Icon::Shop, "A business installs", "The token is exchanged, features are switched on, the business and your platform are notified."),
                ("whatsapp", Icon::Send, "A question on WhatsApp", "Braze hands it over, your system answers, and the reply goes back through Braze."),
            ] {
                form method="post" action={ "/console/try/start/" (name) } {
                    button.starter type="submit" id={ "start-" (name) } {
                        (icon(picture)) strong { (title) } span { (text) }
                    }
                }
            }
        }
    }
}

/// Which case is in the form.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Asked {
    case: Option<String>,
}

fn local(console: &Console) -> Result<&Local, Failure> {
    console
        .local
        .as_ref()
        .ok_or_else(|| Failure::wrong("This console only reads."))
}

/// All of it.
pub(crate) async fn form(State(console): State<Arc<Console>>, Query(asked): Query<Asked>) -> Answer {
    let local = local(&console)?;
    let case = asked.case.as_deref().unwrap_or("messenger/message_text");
    let chosen = Sender::ALL
        .into_iter()
        .flat_map(payloads::recorded)
        .find(|payload| payload.name == case);
    let chosen = chosen.ok_or_else(|| Failure::not_found("There is no such recorded case."))?;
    let page = Page {
        console: &console,
        view: View::Try,
        title: "Try",
        content: html! {
            (heading("Try", &html! {}))
            section { h2 { "Start something" } (starters()) }
            (switches(local))
        },
        form: Some(own(&chosen)),
    };
    Ok(page.render().await)
}

fn switches(local: &Local) -> Markup {
    let on = local.faults.on();
    html! {
        section {
            h2 { "Make something fail" }
            p.mute { "Every request to it fails so until you switch it off. What waits meanwhile is under " a href="/console/waiting" { "Waiting" } "." }
            div.switches {
                @for party in Party::ALL {
                    @if Faults::is_played(&local.fakes, party) {
                        form.switch method="post" action="/console/try/fault" {
                            input type="hidden" name="party" value=(party.name());
                            span.label id={ "fault-" (party.name()) } { (party.label()) }
                            div.choices role="group" aria-labelledby={ "fault-" (party.name()) } {
                                button type="submit" name="failure" value="" aria-pressed=(!on.contains_key(&party)) { "works" }
                                @for failure in Fault::ALL {
                                    button type="submit" name="failure" value=(failure.name()) aria-pressed=(on.get(&party) == Some(&failure)) {
                                        (failure.label(party))
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn own(chosen: &Payload) -> Markup {
    let text = String::from_utf8_lossy(&chosen.body);
    let is_text = std::str::from_utf8(&chosen.body).is_ok();
    html! {
        section.card {
            h2 { "Send a webhook" }
            form.choose method="get" action="/console/try" {
                label for="case" { "Recorded case" }
                select #case name="case" {
                    @for sender in Sender::ALL {
                        optgroup label=(sender.name()) {
                            @for payload in payloads::recorded(sender) {
                                option value=(payload.name) selected[payload.name == chosen.name] { (payload.name) }
                            }
                        }
                    }
                }
                button type="submit" { "Show" }
            }
            form.own method="post" action="/console/try/send" {
                input type="hidden" name="case" value=(chosen.name);
                label for="sender" { "Signed and posted as" }
                select #sender name="sender" {
                    @for sender in Sender::ALL {
                        option value=(sender.name()) selected[sender == chosen.sender] { (sender.name()) " → " (sender.path()) }
                    }
                }
                label for="body" { "Body" }
                textarea #body name="body" rows="12" spellcheck="false" dir="ltr" { "\n" (text) }
                @if !is_text { p.mute { "This case is not UTF-8: sent unchanged, it goes out byte by byte as recorded." } }
                div.buttons {
                    button.primary type="submit" { "Sign and post" }
                    button type="submit" name="forged" value="1" { "Post with a wrong signature" }
                }
            }
        }
    }
}

/// A body to send.
#[derive(Deserialize)]
pub(crate) struct Own {
    case: String,
    sender: String,
    body: String,
    forged: Option<String>,
}

/// Signs a body and posts it.
pub(crate) async fn send(
    State(console): State<Arc<Console>>,
    Form(own): Form<Own>,
) -> Result<Redirect, Failure> {
    let local = local(&console)?;
    let sender = Sender::ALL.into_iter().find(|sender| sender.name() == own.sender);
    let sender = sender.ok_or_else(|| Failure::wrong("There is no such sender."))?;
    // A form sends every line break as CR LF.
    let written = own.body.replace("\r\n", "\n");
    let recorded = payloads::recorded(sender)
        .into_iter()
        .find(|payload| payload.name == own.case);
    let is_unchanged =
        |payload: &Payload| String::from_utf8_lossy(&payload.body).replace("\r\n", "\n") == written;
    let payload = match recorded.filter(is_unchanged) {
        Some(payload) => payload,
        None => Payload {
            sender,
            name: own.case,
            body: written.into_bytes(),
        },
    };
    let number = if own.forged.is_some() {
        local.post_forged(&payload).await?
    } else {
        local.post(&payload).await?
    };
    Ok(Redirect::to(&format!("/console/flow/{number}")))
}

/// One of the three ways to start.
pub(crate) async fn start(
    State(console): State<Arc<Console>>,
    Path(name): Path<String>,
) -> Result<Redirect, Failure> {
    let local = local(&console)?;
    let number = match name.as_str() {
        "message" => local.post(&message(&console)).await?,
        "install" => local.post(&install(&console)?).await?,
        "whatsapp" => whatsapp(local).await?,
        _ => return Err(Failure::not_found("There is no such button.")),
    };
    Ok(Redirect::to(&format!("/console/flow/{number}?guide=1")))
}

/// Sixteen digits that nobody has.
fn digits() -> String {
    format!("5{:015}", Uuid::new_v4().as_u128() % 1_000_000_000_000_000)
}

fn message(console: &Console) -> Payload {
    let at = console.clock.now().as_millisecond();
    let page = recorded_page();
    let body = json!({"object": "page", "entry": [{"id": page.id, "time": at, "messaging": [{
        "sender": {"id": digits()}, "recipient": {"id": page.id}, "timestamp": at,
        "message": {"mid": format!("m_{}", Uuid::new_v4().simple()), "text": "Hi! Do you ship to Lisbon? 🙂"},
    }]}]});
    Payload {
        sender: Sender::Messenger,
        name: "messenger/start".to_owned(),
        body: body.to_string().into_bytes(),
    }
}

fn install(console: &Console) -> anyhow::Result<Payload> {
    let mut payload = payloads::find("fbe/install", None)?;
    let mut text = String::from_utf8(payload.body).context("the recorded install is no text")?;
    let [business, manager, pixel, token, catalog] = OWN;
    let name = format!("shop-{}", Uuid::new_v4().simple().to_string().split_at(6).0);
    for (recorded, own) in [
        (business, name),
        (manager, digits()),
        (pixel, digits()),
        (catalog, digits()),
        (token, format!("EAAB_{}", Uuid::new_v4().simple())),
    ] {
        text = text.replace(recorded, &own);
    }
    let mut body: Value = serde_json::from_str(&text).context("the recorded install is no JSON")?;
    if let Some(time) = body.pointer_mut("/entry/0/time") {
        *time = console.clock.now().as_second().into();
    }
    payload.body = body.to_string().into_bytes();
    Ok(payload)
}

async fn whatsapp(local: &Local) -> anyhow::Result<u64> {
    let user = format!("guest-{}", Uuid::new_v4().simple().to_string().split_at(6).0);
    if let Some(braze) = &local.fakes.braze {
        // Whom Braze does not know, it sends nothing.
        braze.add_user(&user, &json!({"first_name": "Ana"}));
    }
    let body = json!({
        "user_id": user, "phone_number": format!("+1555{:07}", Uuid::new_v4().as_u128() % 10_000_000),
        "first_name": "Ana", "profile_name": "Ana 🌻", "language": "en",
        "message": "Where is my order?", "dispatch_id": format!("console-{}", Uuid::new_v4()),
    });
    conversations::post(local, body).await
}

/// A switch.
#[derive(Deserialize)]
pub(crate) struct Switch {
    party: String,
    failure: String,
}

/// Switches a fault on, or off.
pub(crate) async fn fault(
    State(console): State<Arc<Console>>,
    Form(switch): Form<Switch>,
) -> Result<Redirect, Failure> {
    let local = local(&console)?;
    let party = Party::ALL.into_iter().find(|party| party.name() == switch.party);
    let party = party.ok_or_else(|| Failure::wrong("There is no such switch."))?;
    let failure = Fault::ALL
        .into_iter()
        .find(|failure| failure.name() == switch.failure);
    if !local.faults.switch(&local.fakes, party, failure) {
        return Err(Failure::wrong(
            "That is the real service; only a stand-in can be made to fail.",
        ));
    }
    local.flows.ring();
    Ok(Redirect::to("/console/try"))
}
