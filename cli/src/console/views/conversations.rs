//! Conversations: as a chat, with mode, window and what waits. Here one can write as the person.

use std::sync::Arc;

use axum::Form;
use axum::extract::{Path, Query, State};
use axum::response::Redirect;
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::outbox::{Entry, Status};
use shared::whatsapp::conversation::{Conversation, Mode, Role, Turn, TurnStatus};
use uuid::Uuid;

use super::labels::short;
use super::people::{Asked, flows, look_up, next_page};
use crate::console::flow::Subject;
use crate::console::page::{
    Answer, Failure, Icon, Page, Tone, View, badge, empty, facts, heading, item, length, next, time,
};
use crate::console::state::{Console, Local};
use crate::payloads::{Payload, Sender};

/// All conversations of the local stack.
pub(crate) async fn list(State(console): State<Arc<Console>>, Query(asked): Query<Asked>) -> Answer {
    let now = console.clock.now();
    let content = if console.local.is_some() {
        let page = console.tables.conversations(asked.key(&console)).await?;
        let mut found: Vec<Conversation> = page.items.iter().filter_map(read).collect();
        found.sort_by_key(|conversation| std::cmp::Reverse(conversation.last_activity_at));
        html! {
            (heading("Conversations", &html! { span.mute { (found.len()) @if page.next.is_some() { " on this page" } } }))
            @if found.is_empty() {
                (empty(Icon::Chat, "No conversation yet", &html! {
                    p { "One begins when somebody writes on WhatsApp and Braze hands it over." }
                    form method="post" action="/console/try/start/whatsapp" { button.primary type="submit" { "Ask a question on WhatsApp" } }
                }))
            } @else { (rows(&console, &found, now)) }
            (next(next_page(&console, View::Conversations, page.next.as_ref())))
        }
    } else {
        html! {
            (heading("Conversations", &html! {}))
            (look_up("a conversation", &html! { p { "By its id: " code { "user:42" } ", " code { "braze:5fbd…" } " or " code { "phone:+1555…" } "." } }))
        }
    };
    let page = Page {
        console: &console,
        view: View::Conversations,
        title: "Conversations",
        content,
        form: None,
    };
    Ok(page.render().await)
}

fn read(row: &Value) -> Option<Conversation> {
    serde_json::from_value(row.get("facts")?.clone()).ok()
}

fn rows(console: &Console, found: &[Conversation], now: Timestamp) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Conversations" {
            table.list {
                thead { tr {
                    th scope="col" { "With" } th scope="col" { "Name" } th scope="col" { "Answered by" } th scope="col" { "Window" }
                    th scope="col" { "Said" } th scope="col" { "Last activity" }
                } }
                tbody {
                    @for conversation in found {
                        tr {
                            td { a.who href=(address(console, conversation.id.as_str())) { (console.shown.id(conversation.id.as_str())) } }
                            td dir="auto" { (name(console, conversation)) }
                            td { (mode(conversation)) }
                            td { (window(conversation, now)) }
                            td.number { (conversation.turns) }
                            td { (time(conversation.last_activity_at, now)) }
                        }
                    }
                }
            }
        }
    }
}

fn address(console: &Console, id: &str) -> String {
    format!("/console/conversations/{}", console.shown.address(id))
}

fn name(console: &Console, conversation: &Conversation) -> Markup {
    let person = &conversation.person;
    let name = person.profile_name.as_deref().or(person.first_name.as_deref());
    html! {
        @if let Some(name) = name { (short(&console.shown.text(name))) } @else { span.mute { "–" } }
    }
}

fn mode(conversation: &Conversation) -> Markup {
    match conversation.mode {
        Mode::Bot => badge(Tone::Busy, Icon::Flow, "bot"),
        Mode::Human => badge(Tone::Warn, Icon::Person, "human"),
    }
}

fn window(conversation: &Conversation, now: Timestamp) -> Markup {
    let closes = conversation.window_closes_at;
    if conversation.window_is_open(now) {
        html! { (badge(Tone::Good, Icon::Clock, "open")) " " span.mute { "for " (length(closes.duration_since(now))) } }
    } else {
        html! { (badge(Tone::Quiet, Icon::Clock, "closed")) " " span.mute { (time(closes, now)) } }
    }
}

/// Where older turns begin.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Before {
    before: Option<String>,
}

/// One conversation.
pub(crate) async fn one(
    State(console): State<Arc<Console>>,
    Path(part): Path<String>,
    Query(asked): Query<Before>,
) -> Answer {
    let gone = || Failure::not_found("No such conversation is stored, or this address is another console’s.");
    let id = console.shown.open(&part).ok_or_else(gone)?;
    let subject = Subject::Conversation(id.clone());
    let row = console.tables.row(&subject).await?.ok_or_else(gone)?;
    let conversation = read(&row).ok_or_else(gone)?;
    let before = asked
        .before
        .as_deref()
        .and_then(|before| console.shown.open(before));
    let said = console.tables.turns(&id, before.as_deref()).await?;
    let turns = said.items.iter().rev().filter_map(|row| {
        let turn: Turn =
            serde_json::from_value(row.get("facts").cloned().unwrap_or_else(|| row.clone())).ok()?;
        Some(turn)
    });
    let turns: Vec<Turn> = turns.collect();
    let older = said.next.and_then(|key| key.get("sort_key").cloned());
    let entries = console.tables.items_of(&subject).await?;
    let open: Vec<&Entry> = entries
        .iter()
        .filter(|entry| entry.status != Status::Done)
        .collect();
    let now = console.clock.now();
    let title = console.shown.id(&id);
    let content = html! {
        p.crumbs { a href="/console/conversations" { "Conversations" } }
        (heading(&title, &html! { (mode(&conversation)) " " (window(&conversation, now)) }))
        div.cards.chatting {
            section.chat aria-label="What was said" {
                @if let Some(older) = older {
                    p.next { a.button href={ (address(&console, &id)) "?before=" (console.shown.address(&older)) } { "Earlier" } }
                }
                @if turns.is_empty() { p.mute { "Nothing that is still kept." } }
                ol.turns { @for turn in &turns { (bubble(&console, turn, now)) } }
            }
            section.card {
                h2 { "Conversation" }
                (facts(vec![
                    ("Name", Some(name(&console, &conversation))),
                    ("Answered by", Some(mode(&conversation))),
                    ("Since", Some(time(conversation.mode_since, now))),
                    ("Window closes", Some(time(conversation.window_closes_at, now))),
                    ("Last message", Some(time(conversation.last_inbound_at, now))),
                    ("Route", conversation.route.as_deref().map(|route| html! { code { (route) } })),
                    ("Answers", Some(html! { (conversation.answers) })),
                    ("Asked again", conversation.ask_not_before.filter(|at| *at > now).map(|at| time(at, now))),
                ]))
                h3 { "What waits" }
                @if open.is_empty() { p.mute { "Nothing: all has left." } }
                ul.items { @for entry in open { (item(&console, entry, now)) } }
            }
        }
        @if let Some(local) = &console.local { (flows(&console, local, &subject, now)) }
    };
    let form = console.local.as_ref().map(|_| composer(&console, &id));
    let page = Page {
        console: &console,
        view: View::Conversations,
        title: &title,
        content,
        form,
    };
    Ok(page.render().await)
}

fn bubble(console: &Console, turn: &Turn, now: Timestamp) -> Markup {
    let (class, who) = match turn.role {
        Role::User => ("theirs", "They"),
        Role::Assistant => ("ours", "Answer"),
    };
    let content = &turn.content;
    html! {
        li.turn.(class) {
            div.bubble dir="auto" {
                span.hidden { (who) ": " }
                @if content.text.is_empty() { span.mute { "(no text)" } } @else { (console.shown.text(&content.text)) }
                @for url in &content.media_urls { div.media { "Attachment: " (console.shown.text(url)) } }
                @if let Some(product) = &content.product_id { div.media { "Product: " (console.shown.text(product)) } }
            }
            p.mute {
                (time(turn.at, now))
                @match turn.status {
                    Some(TurnStatus::Pending) => { " " (badge(Tone::Busy, Icon::Dots, "not handed over yet")) }
                    Some(TurnStatus::GivenUp) => { " " (badge(Tone::Bad, Icon::Cross, "given up")) }
                    Some(TurnStatus::HandedOver) | None => {}
                }
            }
        }
    }
}

fn composer(console: &Console, id: &str) -> Markup {
    html! {
        form.composer method="post" action={ (address(console, id)) "/say" } {
            label.hidden for="say" { "Write as the person" }
            textarea #say name="text" rows="2" dir="auto" required maxlength="65536" placeholder="Write as the person…" {}
            button.primary type="submit" { "Send" }
        }
    }
}

/// What the person writes.
#[derive(Deserialize)]
pub(crate) struct Said {
    text: String,
}

/// Posts a message as Braze's webhook campaign does.
pub(crate) async fn say(
    State(console): State<Arc<Console>>,
    Path(part): Path<String>,
    Form(said): Form<Said>,
) -> Result<Redirect, Failure> {
    let local = console
        .local
        .as_ref()
        .ok_or_else(|| Failure::wrong("This console only reads."))?;
    let id = console
        .shown
        .open(&part)
        .ok_or_else(|| Failure::not_found("No such conversation."))?;
    let row = console.tables.row(&Subject::Conversation(id.clone())).await?;
    let known = row.as_ref().and_then(read);
    let person = known.map(|conversation| conversation.person).unwrap_or_default();
    let body = json!({
        "user_id": person.user_id, "braze_id": person.braze_id, "phone_number": person.phone_number,
        "profile_name": person.profile_name, "first_name": person.first_name, "language": person.language,
        "message": said.text, "dispatch_id": format!("console-{}", Uuid::new_v4()),
    });
    post(local, body).await?;
    Ok(Redirect::to(&format!("{}#say", address(&console, &id))))
}

/// Posts a message of WhatsApp; gives the number of the request.
pub(crate) async fn post(local: &Local, mut body: Value) -> anyhow::Result<u64> {
    if let Some(fields) = body.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    let payload = Payload {
        sender: Sender::Whatsapp,
        name: "whatsapp/console".to_owned(),
        body: body.to_string().into_bytes(),
    };
    local.post(&payload).await
}
