//! Waiting: what is due or failing, what was given up, what was not understood.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Redirect;
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;
use shared::outbox::{Entry, Kept, Lane, Status};

use super::labels::words;
use super::unfolded::pretty;
use crate::console::flow::Subject;
use crate::console::page::{
    Answer, Failure, Icon, Page, View, empty, facts, folded, heading, item_address, item_badge, item_name,
    kind, meaning, reason, subject, time,
};
use crate::console::state::Console;

/// Items of one kind on a page.
const PAGE: usize = 100;

/// Which of them.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Asked {
    show: Option<String>,
}

/// All of it.
pub(crate) async fn list(State(console): State<Arc<Console>>, Query(asked): Query<Asked>) -> Answer {
    let outbox = &console.tables.outbox;
    let (mut pending, mut dead) = (Vec::new(), Vec::new());
    for lane in [Lane::Sync, Lane::Relay] {
        pending.extend(outbox.waiting(lane, PAGE).await?);
        dead.extend(outbox.list_dead(lane, PAGE).await?);
    }
    pending.sort_by_key(|entry| (entry.attempts == 0 && entry.reason.is_none(), entry.due_at));
    dead.sort_by_key(|entry| std::cmp::Reverse(entry.dead_at));
    let mut kept = outbox.quarantined(100).await?;
    kept.sort_by_key(|one| std::cmp::Reverse(one.at));
    pending.truncate(PAGE);
    dead.truncate(PAGE);
    kept.truncate(PAGE);
    let now = console.clock.now();
    let show = asked.show.as_deref().unwrap_or_default();
    let tabs = html! {
        nav.filters aria-label="What waits" {
            @for (name, label, count) in [("", "Pending", pending.len()), ("dead", "Given up", dead.len()), ("kept", "Not understood", kept.len())] {
                a href={ "/console/waiting" @if !name.is_empty() { "?show=" (name) } }
                    aria-current=[(show == name).then_some("true")] {
                    (label) " " span.mute { (count) @if count >= PAGE { "+" } }
                }
            }
        }
    };
    let content = html! {
        (heading("Waiting", &tabs))
        @match show {
            "dead" => (given_up(&console, &dead, now)),
            "kept" => (not_understood(&console, &kept, now)),
            _ => (still_pending(&console, &pending, now)),
        }
    };
    let page = Page {
        console: &console,
        view: View::Waiting,
        title: "Waiting",
        content,
        form: None,
    };
    Ok(page.render().await)
}

fn rows(console: &Console, entries: &[Entry], now: Timestamp) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Outbox items" {
            table.list {
                thead { tr {
                    th scope="col" { "What" } th scope="col" { "About" } th scope="col" { "Stands" }
                    th scope="col" { "Why" } th scope="col" { "Attempts" } th scope="col" { "Since" } th scope="col" { "Next" }
                } }
                tbody {
                    @for entry in entries {
                        tr {
                            td { a href=(item_address(console, entry)) { (kind(entry.kind)) } }
                            td { @if let Some(about) = Subject::of_outbox(&entry.subject) { (subject(console, &about)) } @else { span.mute { "–" } } }
                            td { (item_badge(entry, now)) }
                            td { @if let Some(code) = &entry.reason { (reason(code)) } @else { span.mute { "–" } } }
                            td.number { (entry.attempts) }
                            td { (time(entry.failing_since.unwrap_or(entry.created_at), now)) }
                            td {
                                @if entry.status == Status::Pending && let Some(due) = entry.due_at { (time(due, now)) }
                                @else if let Some(at) = entry.dead_at { "given up " (time(at, now)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn still_pending(console: &Console, entries: &[Entry], now: Timestamp) -> Markup {
    if entries.is_empty() {
        return empty(
            Icon::Check,
            "Nothing waits",
            &html! {
                p { "Everything that was accepted has left." }
                @if console.local.is_some() {
                    p { "To see something wait, switch a fault on at " a href="/console/try" { "Try" } " and send something." }
                }
            },
        );
    }
    html! {
        (rows(console, entries, now))
        @if entries.len() >= PAGE { p.notice { "There may be more: a page shows 100." } }
    }
}

fn given_up(console: &Console, entries: &[Entry], now: Timestamp) -> Markup {
    if entries.is_empty() {
        return empty(
            Icon::Check,
            "Nothing was given up",
            &html! {
                p { "An item is given up when it was refused for good, or was tried for as long as " code { "RETRY_FOR_HOURS" } " says." }
            },
        );
    }
    html! {
        @if console.local.is_some() {
            form.inline method="post" action="/console/waiting/redrive" {
                button type="submit" { "Send all again" }
                span.mute { "Correct the cause first: what is refused for good is refused again." }
            }
        } @else {
            p.notice { "To send them again: " code { "bridge dead redrive --all --stack " (console.name) } }
        }
        (rows(console, entries, now))
        @if entries.len() >= PAGE { p.notice { "There may be more: a page shows 100." } }
    }
}

fn not_understood(console: &Console, kept: &[Kept], now: Timestamp) -> Markup {
    if kept.is_empty() {
        return empty(
            Icon::Check,
            "Everything was understood",
            &html! {
                p { "What is signed but cannot be read without guessing is kept here for 30 days." }
            },
        );
    }
    html! {
        @if kept.len() >= PAGE { p.notice { "There may be more: a page shows 100." } }
        ul.kept {
            @for one in kept {
                li { a href={ "/console/waiting/kept/" (console.shown.address(&format!("{}\n{}", one.source, one.key))) } {
                    strong { (words(&one.reason)) } } " "
                    span.mute { "from " (one.source) @if let Some(at) = one.at { ", " (time(at, now)) } }
                }
            }
        }
    }
}

/// The item that an address means.
async fn find(console: &Console, part: &str) -> Result<Entry, Failure> {
    let gone = || {
        Failure::not_found(
            "No such item is stored: it has left and was removed, or this address is another console’s.",
        )
    };
    let id = console.shown.open(part).ok_or_else(gone)?;
    let (subject, event_key) = id.split_once('\n').ok_or_else(gone)?;
    console
        .tables
        .outbox
        .get(subject, event_key)
        .await?
        .ok_or_else(gone)
}

/// One outbox item.
pub(crate) async fn one(State(console): State<Arc<Console>>, Path(part): Path<String>) -> Answer {
    let entry = find(&console, &part).await?;
    let now = console.clock.now();
    let at = |at: Option<Timestamp>| at.map(|at| time(at, now));
    let payload: Value = entry.payload().unwrap_or_default();
    let redrive = html! {
        @if entry.status == Status::Dead && console.local.is_some() {
            form method="post" action={ (item_address(&console, &entry)) "/redrive" } {
                button.primary type="submit" { "Send again" }
            }
        }
    };
    let content = html! {
        p.crumbs { a href={ "/console/waiting" @if entry.status == Status::Dead { "?show=dead" } } { "Waiting" } " / " code { (item_name(&entry)) } }
        (heading(kind(entry.kind), &redrive))
        section.card {
            (facts(vec![
                ("Stands", Some(item_badge(&entry, now))),
                ("About", Subject::of_outbox(&entry.subject).map(|about| subject(&console, &about))),
                ("Why", entry.reason.as_deref().map(|code| html! { (reason(code)) @if let Some(means) = meaning(code) { " " span.mute { (means) } } })),
                ("Attempts", Some(html! { (entry.attempts) })),
                ("Since", at(Some(entry.created_at))),
                ("Fails since", at(entry.failing_since)),
                ("Next try", at(entry.due_at)),
                ("Not before", at(entry.not_before)),
                ("Given up", at(entry.dead_at)),
                ("Lane", Some(html! { (entry.lane.as_str()) })),
                ("Event key", Some(html! { code { (console.shown.id(&entry.event_key)) } })),
            ]))
            @if payload.is_null() {
                p.mute { "It holds nothing more: once settled, nothing personal stays in an item." }
            } @else {
                @match console.shown.json(&payload) {
                    Some(text) => (folded("payload", "Payload", &text)),
                    None => p.mute { "The payload is hidden: start the console with " code { "--reveal" } "." },
                }
            }
        }
        @if entry.status == Status::Dead && console.local.is_none() {
            p.notice { "To send it again: " code { "bridge dead redrive " (item_name(&entry)) " --stack " (console.name) } }
        }
    };
    let page = Page {
        console: &console,
        view: View::Waiting,
        title: kind(entry.kind),
        content,
        form: None,
    };
    Ok(page.render().await)
}

/// Sends a dead item again.
pub(crate) async fn redrive(
    State(console): State<Arc<Console>>,
    Path(part): Path<String>,
) -> Result<Redirect, Failure> {
    let entry = find(&console, &part).await?;
    console.tables.outbox.redrive(&entry).await?;
    Ok(Redirect::to(&item_address(&console, &entry)))
}

/// Sends every dead item again that the page shows.
pub(crate) async fn redrive_all(State(console): State<Arc<Console>>) -> Result<Redirect, Failure> {
    for lane in [Lane::Sync, Lane::Relay] {
        for entry in console.tables.outbox.list_dead(lane, PAGE).await? {
            console.tables.outbox.redrive(&entry).await?;
        }
    }
    Ok(Redirect::to("/console/waiting"))
}

/// One body that was not understood, decoded.
pub(crate) async fn kept(State(console): State<Arc<Console>>, Path(part): Path<String>) -> Answer {
    let gone = || {
        Failure::not_found(
            "No such body is kept: it was removed after 30 days, or this address is another console’s.",
        )
    };
    let id = console.shown.open(&part).ok_or_else(gone)?;
    let (source, key) = id.split_once('\n').ok_or_else(gone)?;
    let body = console
        .tables
        .outbox
        .quarantined_body(source, key)
        .await?
        .ok_or_else(gone)?;
    let code = key.split('#').next().unwrap_or_default();
    let text = String::from_utf8_lossy(&body);
    // A page of megabytes helps nobody.
    let shown: String = text.chars().take(64 << 10).collect();
    let content = html! {
        p.crumbs { a href="/console/waiting?show=kept" { "Not understood" } }
        (heading(&words(code), &html! {}))
        section.card {
            (facts(vec![
                ("From", Some(html! { (source) })),
                ("Reason", Some(reason(code))),
                ("Size", Some(html! { (body.len()) " bytes" })),
            ]))
            @if console.shown.is_open() {
                pre tabindex="0" role="region" aria-label="Body" { code { (pretty(&shown)) } }
                @if shown.len() < text.len() { p.mute { "The first 65,536 characters." } }
            } @else {
                p.mute { "The body is hidden: start the console with " code { "--reveal" } "." }
            }
        }
    };
    let page = Page {
        console: &console,
        view: View::Waiting,
        title: "Not understood",
        content,
        form: None,
    };
    Ok(page.render().await)
}
