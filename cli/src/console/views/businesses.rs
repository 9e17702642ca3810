//! Businesses: installs, what is on and off and why, and what happened.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use jiff::Timestamp;
use maud::{Markup, html};
use shared::fbe::event::business_manager_of;
use shared::fbe::install::{Change, Install, Status};

use super::labels::words;
use super::people::{Asked, followed, look_up, next_page, plain};
use crate::console::flow::Subject;
use crate::console::page::{
    Answer, Failure, Icon, Page, Tone, View, badge, empty, facts, folded, heading, next, time,
};
use crate::console::state::Console;

/// All installs of the local stack.
pub(crate) async fn list(State(console): State<Arc<Console>>, Query(asked): Query<Asked>) -> Answer {
    let now = console.clock.now();
    let content = if console.local.is_some() {
        let page = console.tables.installs(asked.key(&console)).await?;
        let installs = page.items.iter().filter_map(read);
        let mut installs: Vec<Install> = installs
            .filter(|install| business_manager_of(&install.business_id).is_none())
            .collect();
        installs.sort_by_key(|install| std::cmp::Reverse(install.history.last().map(|entry| entry.noted_at)));
        html! {
            (heading("Businesses", &html! { span.mute { (installs.len()) @if page.next.is_some() { " on this page" } } }))
            @if installs.is_empty() {
                (empty(Icon::Shop, "No business yet", &html! {
                    p { "One appears when it installs your Facebook Business Extension app." }
                    form method="post" action="/console/try/start/install" { button.primary type="submit" { "Let a business install" } }
                }))
            } @else { (rows(&console, &installs, now)) }
            (next(next_page(&console, View::Businesses, page.next.as_ref())))
        }
    } else {
        html! {
            (heading("Businesses", &html! {}))
            (look_up("a business", &html! { p { "By your id of it, by its pixel, or by its Business Manager." } }))
        }
    };
    let page = Page {
        console: &console,
        view: View::Businesses,
        title: "Businesses",
        content,
        form: None,
    };
    Ok(page.render().await)
}

fn read(row: &serde_json::Value) -> Option<Install> {
    serde_json::from_value(row.get("facts")?.clone()).ok()
}

fn status(status: Status) -> Markup {
    match status {
        Status::Active => badge(Tone::Good, Icon::Check, "installed"),
        Status::Uninstalled => badge(Tone::Quiet, Icon::Dash, "removed"),
        Status::TokenInvalid => badge(Tone::Bad, Icon::Alert, "token invalid"),
    }
}

fn rows(console: &Console, installs: &[Install], now: Timestamp) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Businesses" {
            table.list {
                thead { tr {
                    th scope="col" { "Business" } th scope="col" { "Stands" } th scope="col" { "On" } th scope="col" { "Off" }
                    th scope="col" { "Last change" } th scope="col" { "When" }
                } }
                tbody {
                    @for install in installs {
                        @let gating = install.gating();
                        @let last = install.history.last();
                        tr {
                            td { a.who href={ "/console/businesses/" (console.shown.address(&install.business_id)) } { (install.business_id) } }
                            td { (status(install.status)) }
                            td { @for feature in &gating.enabled { span.chip.on { (feature) } " " } }
                            td { @for off in &gating.disabled { span.chip.off title={ "lacks " (words(&off.missing)) } { (off.feature) } " " } }
                            td { @if let Some(last) = last { (change(last.change)) } }
                            td { @if let Some(last) = last { (time(last.at, now)) } }
                        }
                    }
                }
            }
        }
    }
}

fn change(change: Change) -> &'static str {
    match change {
        Change::Installed => "installed",
        Change::Updated => "changed",
        Change::Uninstalled => "removed",
        Change::TokenInvalid => "token refused",
    }
}

/// One business.
pub(crate) async fn one(State(console): State<Arc<Console>>, Path(part): Path<String>) -> Answer {
    let gone = || Failure::not_found("No such business is stored, or this address is another console’s.");
    let id = console.shown.open(&part).ok_or_else(gone)?;
    let subject = Subject::Install(id.clone());
    let row = console.tables.row(&subject).await?.ok_or_else(gone)?;
    let install = read(&row).ok_or_else(gone)?;
    let entries = console.tables.items_of(&subject).await?;
    let gating = install.gating();
    let now = console.clock.now();
    let assets = serde_json::to_value(&install.assets).unwrap_or_default();
    let content = html! {
        p.crumbs { a href="/console/businesses" { "Businesses" } }
        (heading(&id, &status(install.status)))
        div.cards {
            section.card {
                h2 { "Features" }
                @if gating.enabled.is_empty() && gating.disabled.is_empty() { p.mute { "None is installed." } }
                ul.features {
                    @for feature in &gating.enabled { li { (badge(Tone::Good, Icon::Check, "on")) " " strong { (feature) } } }
                    @for off in &gating.disabled {
                        li { (badge(Tone::Quiet, Icon::Dash, "off")) " " strong { (off.feature) } " " span.mute { "lacks " (words(&off.missing)) } }
                    }
                    @for feature in &gating.unknown { li { (badge(Tone::Warn, Icon::Alert, "unknown")) " " strong { (feature) } } }
                }
                @if !install.drift.is_empty() {
                    h3 { "Where Meta differed" }
                    ul { @for drift in &install.drift { li { strong { (words(&drift.field)) } } } }
                }
            }
            section.card {
                h2 { "Install" }
                (facts(vec![
                    ("Token", Some(match (&install.token, install.status) {
                        (None, _) => html! { span.mute { "none" } },
                        (Some(_), Status::TokenInvalid) => badge(Tone::Bad, Icon::Cross, "refused"),
                        (Some(token), _) => html! { (badge(Tone::Good, Icon::Check, "in force")) @if token.exchanged_at.is_some() { " " span.mute { "exchanged for a system user’s" } } },
                    })),
                    ("Installed", install.installed_at.map(|at| time(at, now))),
                    ("Compared with Meta", install.reconciled_at.map(|at| time(at, now))),
                    ("Unknown at Meta since", install.unknown_at_graph_since.map(|at| time(at, now))),
                    ("Claims", (install.managers.len() > 1).then(|| html! { (install.managers.len()) " Business Managers; the first owns it" })),
                ]))
                h3 { "Assets" }
                dl.facts.code {
                    @for (name, value) in assets.as_object().into_iter().flatten() { div { dt { (words(name)) } dd { (joined(value)) } } }
                }
                @if let Some(text) = row.get("facts").and_then(|facts| console.shown.json(facts)) { (folded("facts", "All facts, as stored", &text)) }
            }
        }
        section {
            h2 { "History" }
            ol.history {
                @for entry in install.history.iter().rev() {
                    li { strong { (change(entry.change)) } " " span.mute { (time(entry.at, now)) }
                        @if !entry.fields.is_empty() { " " span.mute { (entry.fields.iter().map(|field| words(field)).collect::<Vec<_>>().join(", ")) } } }
                }
            }
        }
        (followed(&console, &subject, &entries, now))
    };
    let page = Page {
        console: &console,
        view: View::Businesses,
        title: &id,
        content,
        form: None,
    };
    Ok(page.render().await)
}

fn joined(value: &serde_json::Value) -> String {
    match value.as_array() {
        Some(values) => values.iter().map(plain).collect::<Vec<_>>().join(", "),
        None => plain(value),
    }
}
