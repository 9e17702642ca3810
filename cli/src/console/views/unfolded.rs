//! One request in full: what came, how it was checked, what was read, decided, planned and sent.

use jiff::Timestamp;
use maud::{Markup, html};
use shared::outbox::Status;

use super::labels::words;
use crate::console::flow::{Call, Change, EVENTS, Flow, LARGEST_BODY, Origin, Proof};
use crate::console::page::{Icon, Tone, badge, call_badge, folded, icon, item, party, subject, time};
use crate::console::state::Console;

/// Explains each step.
const CAPTIONS: [&str; 6] = [
    "Meta or Braze posts to one address of the bridge. It is answered only once everything it says is durable, so nothing is lost.",
    "The exact bytes are checked before anything is read. What is not signed reaches no parser.",
    "The body is read tolerantly: one broken item is put aside, its neighbours go on.",
    "A pure function decides: from what is known, the events and the time. The new state and all that follows from it are written in one transaction.",
    "What is to leave lies in the outbox until it has left. The same webhook again finds it there, and changes nothing.",
    "The dispatcher sends it, at once or when it is due, and again if it fails. Here the stand-ins on your machine took it.",
];

/// The request in full.
pub(crate) fn flow(console: &Console, flow: &Flow, now: Timestamp, guide: bool) -> Markup {
    html! {
        div.unfolded hx-boost="false" {
            ol.steps {
                @if flow.origin != Origin::Schedule {
                    (step("Request", Some(0), guide, true, &request(console, flow)))
                    (step("Verified", Some(1), guide, flow.proof != Proof::None, &verified(flow)))
                    (step("Read", Some(2), guide, flow.event_count > 0 || !flow.quarantined.is_empty(), &read(console, flow, now)))
                    (step("Decided", Some(3), guide, !flow.changes.is_empty(), &decided(console, flow)))
                    (step("Outbox", Some(4), guide, !flow.items.is_empty(), &outbox(console, flow, now)))
                }
                (step("Sent", (flow.origin != Origin::Schedule).then_some(5), guide, !flow.calls.is_empty(), &sent(console, flow, now)))
            }
        }
    }
}

fn step(title: &str, number: Option<usize>, guide: bool, reached: bool, body: &Markup) -> Markup {
    let caption = number.and_then(|number| CAPTIONS.get(number));
    html! {
        li.step.reached[reached] {
            h3 { (title) }
            div.body {
                @if guide && let Some(caption) = caption { p.caption { (caption) } }
                (body)
            }
        }
    }
}

fn request(console: &Console, flow: &Flow) -> Markup {
    let took = flow.took.map(|took| took.as_millis());
    html! {
        p {
            code { (flow.method) " " (flow.path) } " "
            span.mute { (flow.bytes) " bytes" } " "
            @match (flow.status, took) {
                (Some(status), Some(took)) => { "answered " (call_badge(Some(status))) " " span.mute { "in " (took) " ms" } }
                (None, Some(took)) => { (badge(Tone::Bad, Icon::Cross, "no answer")) " " span.mute { "after " (took) " ms" } }
                _ => { (badge(Tone::Busy, Icon::Dots, "in hand")) }
            }
        }
        @if console.shown.is_open() {
            @if !flow.body.is_empty() {
                (folded(&format!("body-{}", flow.number), "Body", &pretty(&flow.body)))
                @if flow.bytes > LARGEST_BODY {
                    p.mute { "The first " (LARGEST_BODY / 1024) " KiB of it; more is not remembered." }
                }
            }
            @if !flow.answer.is_empty() {
                (folded(&format!("answer-{}", flow.number), "Answer", &flow.answer))
            }
        }
    }
}

/// Indented if it is JSON, else as it came.
pub(crate) fn pretty(body: &str) -> String {
    let value: Result<serde_json::Value, _> = serde_json::from_str(body);
    let pretty = value
        .ok()
        .and_then(|value| serde_json::to_string_pretty(&value).ok());
    pretty.unwrap_or_else(|| body.to_owned())
}

fn verified(flow: &Flow) -> Markup {
    html! {
        p {
            @match flow.proof {
                Proof::Signature => { (badge(Tone::Good, Icon::Lock, "signed")) " Meta’s signature fits the bytes." }
                Proof::Token => { (badge(Tone::Good, Icon::Lock, "known")) " The sender’s token or signature is right." }
                Proof::Wrong => { (badge(Tone::Bad, Icon::Lock, "refused")) " The signature or token is missing or wrong. Nothing was read." }
                Proof::None => { span.mute { "This route asks for none here, or the function checks it by itself." } }
            }
        }
    }
}

fn read(console: &Console, flow: &Flow, now: Timestamp) -> Markup {
    html! {
        @if flow.event_count == 0 && flow.quarantined.is_empty() { p.mute { "Nothing." } }
        ul.events {
            @for event in &flow.events {
                li {
                    strong { (words(&event.name)) }
                    @if let Some(about) = &event.subject { " " (subject(console, about)) }
                    " " span.mute { (time(event.at, now)) }
                    @if let Some(said) = event.said.as_deref().filter(|said| !said.is_empty()) {
                        blockquote dir="auto" { (console.shown.text(said)) }
                    }
                }
            }
        }
        @if flow.event_count > EVENTS {
            p.mute { "The first " (EVENTS) " of " (flow.event_count) " events; the others were treated alike." }
        }
        @for reason in &flow.quarantined {
            p { (badge(Tone::Warn, Icon::Box, "not understood")) " " code { (reason) } " – kept for 30 days, see " a href="/console/waiting?show=kept" { "Waiting" } "." }
        }
    }
}

fn decided(console: &Console, flow: &Flow) -> Markup {
    html! {
        @if flow.changes.is_empty() { p.mute { "Nothing is known that this changes." } }
        @for change in &flow.changes { (changed(console, change)) }
    }
}

fn changed(console: &Console, change: &Change) -> Markup {
    let shown = |text: &Option<String>| text.as_ref().map(|text| console.shown.text(text));
    html! {
        p {
            (subject(console, &change.subject)) " "
            @if change.is_new { (badge(Tone::Busy, Icon::Check, "new")) }
            @if change.fields.is_empty() { span.mute { "stays as it was" } }
        }
        @if !change.fields.is_empty() {
            div.scroll tabindex="0" role="region" aria-label="What changed" {
                table.diff {
                    thead { tr { th scope="col" { "Fact" } th scope="col" { "Before" } th scope="col" { "After" } } }
                    tbody {
                        @for (name, before, after) in &change.fields {
                            tr {
                                th scope="row" { (words(name)) }
                                td { @match shown(before) { Some(text) => { del dir="auto" { (text) } } None => { span.mute { "–" } } } }
                                td { @match shown(after) { Some(text) => { ins dir="auto" { (text) } } None => { span.mute { "–" } } } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn outbox(console: &Console, flow: &Flow, now: Timestamp) -> Markup {
    let done = flow
        .items
        .iter()
        .filter(|item| item.entry.status == Status::Done)
        .count();
    html! {
        @if flow.items.is_empty() { p.mute { "Nothing has to leave." } }
        @else if flow.items.len() > 3 { p.mute { (done) " of " (flow.items.len()) " have left." } }
        ul.items { @for one in &flow.items { (item(console, &one.entry, now)) } }
    }
}

fn sent(console: &Console, flow: &Flow, now: Timestamp) -> Markup {
    html! {
        @if flow.calls.is_empty() { p.mute { "No call yet." } }
        ul.calls {
            @for (number, call) in flow.calls.iter().enumerate() { (call_line(console, flow.number, number, call, now)) }
        }
    }
}

fn call_line(console: &Console, flow: u64, number: usize, call: &Call, now: Timestamp) -> Markup {
    html! {
        li {
            p {
                (party(call.to)) " " code { (call.path) } " " (call_badge(call.status)) " " span.mute { (time(call.at, now)) }
            }
            @for said in call.said.iter().take(10) { p.said dir="auto" { (icon(Icon::Dash)) (console.shown.text(said)) } }
            @if let Some(body) = console.shown.json(&call.body) {
                (folded(&format!("call-{flow}-{number}"), "What was said", &body))
            }
        }
    }
}
