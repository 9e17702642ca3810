//! Flow: requests as they come, each a line that unfolds.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;
use shared::outbox::{Lane, Status};

use super::labels::{origin, short, standing, words};
use super::unfolded;
use crate::console::flow::{Flow, KEPT, Proof, Standing};
use crate::console::page::{Answer, Icon, Page, View, badge, empty, heading, icon, item, subject, time};
use crate::console::state::{Console, Local};
use crate::console::views::tries;

/// Lines on a page.
const PAGE: usize = 50;
/// What of it is wanted.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Asked {
    /// Only those that stand so.
    show: Option<String>,
    /// Only older ones.
    before: Option<u64>,
    /// Explain each step.
    guide: Option<String>,
}

/// All requests.
pub(crate) async fn list(State(console): State<Arc<Console>>, Query(asked): Query<Asked>) -> Answer {
    page(&console, &asked, None).await
}

/// All requests, and one of them unfolded.
pub(crate) async fn one(
    State(console): State<Arc<Console>>,
    Path(number): Path<u64>,
    Query(asked): Query<Asked>,
) -> Answer {
    page(&console, &asked, Some(number)).await
}

async fn page(console: &Console, asked: &Asked, open: Option<u64>) -> Answer {
    let content = match &console.local {
        Some(local) => flows(console, local, asked, open),
        None => deployed(console).await?,
    };
    let title = open.map_or_else(|| "Flow".to_owned(), |number| format!("Request {number}"));
    let page = Page {
        console,
        view: View::Flow,
        title: &title,
        content,
        form: None,
    };
    Ok(page.render().await)
}

/// Which requests a filter shows.
fn shows(filter: &str, standing: Standing) -> bool {
    match filter {
        "trouble" => matches!(
            standing,
            Standing::Failed | Standing::Failing | Standing::Kept | Standing::Refused
        ),
        "working" => matches!(standing, Standing::Working | Standing::Later | Standing::Failing),
        _ => true,
    }
}

fn flows(console: &Console, local: &Local, asked: &Asked, open: Option<u64>) -> Markup {
    let now = console.clock.now();
    let all = local.flows.all();
    let total = local.flows.total();
    let filter = asked.show.as_deref().unwrap_or_default();
    let before = asked.before.unwrap_or(u64::MAX);
    let mut shown: Vec<&Arc<Flow>> = all
        .iter()
        .filter(|flow| flow.number < before && shows(filter, flow.standing(now)))
        .collect();
    let older = shown
        .get(PAGE)
        .is_some()
        .then(|| shown.get(PAGE - 1).map(|flow| flow.number))
        .flatten();
    shown.truncate(PAGE);
    // One that is unfolded is shown wherever it stands.
    let away = open.and_then(|open| {
        let is_shown = shown.iter().any(|flow| flow.number == open);
        all.iter().find(|flow| flow.number == open && !is_shown)
    });
    let is_gone = open.is_some_and(|open| !all.iter().any(|flow| flow.number == open));
    let guide = asked.guide.is_some();
    let count = |filter: &str| {
        all.iter()
            .filter(|flow| shows(filter, flow.standing(now)))
            .count()
    };
    let filters = html! {
        nav.filters aria-label="Which requests" {
            @for (name, label) in [("", "All"), ("trouble", "Trouble"), ("working", "Under way")] {
                a href={ "/console" @if !name.is_empty() { "?show=" (name) } }
                    aria-current=[(filter == name).then_some("true")] {
                    (label) " " span.mute { (count(name)) }
                }
            }
        }
    };
    html! {
        (heading("Flow", &filters))
        @if all.is_empty() {
            (first_visit())
        } @else {
            @if is_gone { p.notice { "That request is no longer remembered: the last " (KEPT) " are." } }
            @if shown.is_empty() {
                (empty(Icon::Check, "Nothing like that", &html! { p { "No request that is remembered stands so." } }))
            }
            ol.flows hx-boost="true" hx-target="#content" hx-select="#content" hx-swap="outerHTML show:none" {
                @for flow in away.into_iter().chain(shown) {
                    (line(console, flow, now, open == Some(flow.number), guide, filter))
                }
            }
            @if let Some(older) = older {
                p.next { a.button href={ "/console?before=" (older) @if !filter.is_empty() { "&show=" (filter) } } { "Older" } }
            }
            @if total > KEPT as u64 {
                p.notice { "Shown are the last " (KEPT) " of " (total) " requests; older ones are forgotten." }
            }
        }
    }
}

fn first_visit() -> Markup {
    html! {
        section.welcome aria-labelledby="welcome" {
            h2 #welcome { "Nothing has happened yet" }
            p.lead {
                "This is a whole bridge on your machine: the functions that are deployed, an embedded AWS, and stand-ins for "
                "Meta, Braze and your own system. Start something, and watch what follows, step by step."
            }
            (tries::starters())
            p.mute { "Or send one of the recorded webhooks from " a href="/console/try" { "Try" } ", or with " code { "bridge send" } "." }
        }
    }
}

fn line(console: &Console, flow: &Flow, now: Timestamp, open: bool, guide: bool, filter: &str) -> Markup {
    let (tone, picture, word) = standing(flow.standing(now));
    let (sender, label) = origin(flow.origin);
    let query = if filter.is_empty() {
        String::new()
    } else {
        format!("?show={filter}")
    };
    // A second click folds it again.
    let address = if open {
        format!("/console{query}")
    } else {
        format!("/console/flow/{}{query}", flow.number)
    };
    html! {
        li.flow.(tone.class()).open[open] id={ "flow-" (flow.number) } {
            a.line #{ "line-" (flow.number) } href=(address) aria-expanded=(open) {
                span.when { (time(flow.at, now)) }
                span.origin { (icon(sender)) (label) }
                span.what { (what(console, flow)) }
                (track(flow))
                (badge(tone, picture, word))
            }
            @if open { (unfolded::flow(console, flow, now, guide)) }
        }
    }
}

/// The first thing that was read, in a line.
fn what(console: &Console, flow: &Flow) -> Markup {
    let more = flow.event_count.saturating_sub(1);
    html! {
        @if let Some(event) = flow.events.first() {
            strong { (words(&event.name)) }
            @if let Some(said) = event.said.as_deref().filter(|said| !said.is_empty()) {
                " “" bdi { (short(&console.shown.text(said))) } "”"
            }
            @if more > 0 { " " span.mute { "and " (more) " more" } }
        } @else if let Some(reason) = flow.quarantined.first() {
            strong { "kept: " (words(reason)) }
        } @else if let Some(call) = flow.calls.first() {
            strong { (call.to.label()) } " " code { (call.path) }
            @if flow.calls.len() > 1 { " " span.mute { "and " (flow.calls.len() - 1) " more" } }
        } @else {
            code { (flow.method) " " (flow.path) }
        }
    }
}

/// How far it has come, in four steps: let in, read, decided, sent.
fn track(flow: &Flow) -> Markup {
    let sent = flow
        .items
        .iter()
        .filter(|item| item.entry.status == Status::Done)
        .count();
    let dead = flow.items.iter().any(|item| item.entry.status == Status::Dead);
    let failing = flow
        .items
        .iter()
        .any(|item| item.entry.attempts > 0 && item.entry.status == Status::Pending);
    let changed = flow.changes.iter().any(|change| !change.fields.is_empty());
    let is_in = flow.proof != Proof::Wrong;
    let steps = [
        if is_in { "good" } else { "bad" },
        match (flow.event_count, flow.quarantined.is_empty()) {
            (_, false) => "warn",
            (0, _) => "none",
            _ => "good",
        },
        if changed || !flow.items.is_empty() {
            "good"
        } else {
            "none"
        },
        match (flow.items.len(), dead, failing) {
            (_, true, _) => "bad",
            (_, _, true) => "warn",
            (0, ..) => "none",
            (all, ..) if all == sent => "good",
            _ => "busy",
        },
    ];
    let label = format!(
        "{}, {} read, {}, {sent} of {} sent",
        if is_in { "let in" } else { "refused" },
        flow.event_count,
        if changed { "changed" } else { "nothing changed" },
        flow.items.len()
    );
    html! {
        span.track role="img" aria-label=(label) title=(label) {
            @for step in steps { i.(step) {} }
        }
    }
}

/// A deployed stack keeps no requests: what is still to leave, and what was given up, is what there is to see.
async fn deployed(console: &Console) -> anyhow::Result<Markup> {
    let now = console.clock.now();
    let mut entries = Vec::new();
    for lane in [Lane::Sync, Lane::Relay] {
        entries.extend(console.tables.outbox.waiting(lane, 50).await?);
        entries.extend(console.tables.outbox.list_dead(lane, 25).await?);
    }
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.created_at));
    entries.truncate(PAGE);
    Ok(html! {
        (heading("Flow", &html! {}))
        p.notice {
            "A deployed stack remembers no requests; its log does. Here is what is still to leave, and what was given up, newest first."
        }
        @if entries.is_empty() {
            (empty(Icon::Check, "Nothing waits", &html! { p { "Everything that was accepted has left." } }))
        }
        ul.items {
            @for entry in &entries {
                li.about {
                    @if let Some(about) = crate::console::flow::Subject::of_outbox(&entry.subject) {
                        span.mute { (subject(console, &about)) " · " (time(entry.created_at, now)) }
                    }
                    ul { (item(console, entry, now)) }
                }
            }
        }
    })
}
